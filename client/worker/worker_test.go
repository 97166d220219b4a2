package worker

import (
	"context"
	"encoding/json"
	"slices"
	"strings"
	"testing"
)

func TestFuncDescribesItsTypes(t *testing.T) {
	type in struct {
		Text  string   `json:"text" doc:"what to shout"`
		Times *int     `json:"times"`
		Tags  []string `json:"tags,omitempty"`
	}
	a := Func("shout", "Shouts.", func(_ context.Context, _ *Task, in in) (string, error) { return strings.ToUpper(in.Text), nil })
	want := `{"additionalProperties":false,"properties":{"tags":{"items":{"type":"string"},"type":"array"},"text":{"description":"what to shout","type":"string"},"times":{"type":"integer"}},"required":["text"],"type":"object"}`
	if string(a.Parameters) != want || string(a.Returns) != `{"type":"string"}` {
		t.Errorf("the schemas are %s and %s", a.Parameters, a.Returns)
	}
	r, err := a.Run(t.Context(), &Task{Parameters: json.RawMessage(`{"text":"hey"}`)})
	if err != nil || r.Output != "HEY" {
		t.Errorf("the result is %v, %v", r.Output, err)
	}
}

func TestSecretsInStreamsAreBlottedOut(t *testing.T) {
	b := newBlotter(map[string]string{"token": "s3cr3t-value"})
	var out strings.Builder
	for _, piece := range []string{"a s3cr", "3t-va", "lue b s3c"} {
		out.WriteString(b.pass("stdout", piece))
	}
	for _, rest := range b.rest() {
		out.WriteString(rest)
	}
	if out.String() != "a [secret token] b s3c" {
		t.Errorf("shown is %q", out.String())
	}
}

func TestPatternsNameFiles(t *testing.T) {
	for _, c := range []struct {
		pattern, name string
		want          bool
	}{
		{"*.txt", "a.txt", true},
		{"*.txt", "b/a.txt", false},
		{"**/*.txt", "b/c/a.txt", true},
		{"**/*.txt", "a.txt", true},
		{"out/**", "out/a/b", true},
		{"out/**", "outer/a", false},
		{"out/r?.csv", "out/r1.csv", true},
	} {
		if got := matches(strings.Split(c.pattern, "/"), strings.Split(c.name, "/")); got != c.want {
			t.Errorf("%s names %s: %v", c.pattern, c.name, got)
		}
	}
}

func TestPathsInAResultAreFoundWhereTheyMayBe(t *testing.T) {
	v := map[string]any{"report": "r.md", "parts": []any{map[string]any{"file": "a"}, map[string]any{"file": "../b"}}}
	var names []string
	for _, at := range []string{"report", "parts.*.file", "none"} {
		namesIn(v, strings.Split(at, "."), func(s string) { names = append(names, s) })
	}
	if !slices.Equal(names, []string{"r.md", "a"}) {
		t.Errorf("the files are %q", names)
	}
}

func TestWorkerNeedsServersAndActions(t *testing.T) {
	if err := Run(t.Context(), Config{}); err == nil {
		t.Error("a worker without servers runs")
	}
}
