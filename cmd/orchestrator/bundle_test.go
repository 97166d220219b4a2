package main

import (
	"strings"
	"testing"

	"github.com/orchestrator-project/orchestrator/pipeline/spec"
)

func TestPatternsOfABundle(t *testing.T) {
	tests := []struct {
		pattern, name string
		want          bool
	}{
		{"data/*.csv", "data/a.csv", true},
		{"data/*.csv", "data/deep/a.csv", false},
		{"data/*.csv", "data/.a.csv", false},
		{"data/.*.csv", "data/.a.csv", true},
		{"data/**", "data/a.csv", true},
		{"data/**", "data/deep/er/a.csv", true},
		{"data/**", "data", false},
		{"data/**", "data/.git/config", false},
		{"**/*.md", "a.md", true},
		{"**/*.md", "x/y/a.md", true},
		{"**/*.md", "x/.y/a.md", false},
		{"**/x/**/a", "x/a", true},
		{"**/x/**/a", "y/x/z/x/b/a", true},
		{"**/x/**/a", "y/z/a", false},
		{"*", "a", true},
		{"*", "a/b", false},
		{"[ab]?", "bx", true},
		{"[ab]?", "cx", false},
	}
	for _, tt := range tests {
		if got := fits(strings.Split(tt.pattern, "/"), strings.Split(tt.name, "/")); got != tt.want {
			t.Errorf("%s of %s: %v", tt.name, tt.pattern, got)
		}
	}
}

func TestTextsAreReadByTheTypeThatTheAPINames(t *testing.T) {
	for name, want := range map[string]string{
		"string": "string", "integer": "integer", "optional number": "number", "path under out": "path", "any": "any", "": "any",
		"map {a: integer}": "map", "one of plain, fancy": "string", "one of 1, 2": "any", "one of 1, x": "string", "union": "any",
	} {
		if got := typeOf(name); got.Kind != want {
			t.Errorf("%q: %s", name, got.Kind)
		}
	}
	nested := typeOf("list<list<integer>>")
	if got := spec.TypeText(&nested); got != "list<list<integer>>" {
		t.Error(got)
	}
}
