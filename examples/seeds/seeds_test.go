// Package seeds_test holds the pipelines of this folder to the texts that they
// come from.
package seeds_test

import (
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v4"
)

// TestSeedsStandVerbatim compares each pipeline with the text that it comes
// from. In that text some have lost the blanks at the start of their lines.
func TestSeedsStandVerbatim(t *testing.T) {
	texts, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(texts) != 9 {
		t.Fatalf("%d texts, not 9 (%v)", len(texts), err)
	}
	for _, text := range texts {
		name := strings.TrimSuffix(filepath.Base(text), ".txt")
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(lines(t, text), lines(t, name+".yaml")); diff != "" {
				t.Errorf("the pipeline differs from the text: %s", diff)
			}
		})
	}
}

// lines gives a file's lines without the blanks in front of them.
func lines(t *testing.T, file string) []string {
	t.Helper()
	list := strings.Split(strings.TrimRight(read(t, file), "\n"), "\n")
	for i := range list {
		list[i] = strings.TrimLeft(list[i], " ")
	}
	return list
}

func read(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

var (
	stepLine = regexp.MustCompile(`^\s*- id: (\S+)$`)
	tagLine  = regexp.MustCompile(`^\s*(\w+): <AUTO>`)
)

// TestEveryTagHasItsAnswer compares the tags of each pipeline with its answers.
func TestEveryTagHasItsAnswer(t *testing.T) {
	for _, name := range []string{"research-report", "code-review", "data-analysis", "ensemble"} {
		t.Run(name, func(t *testing.T) {
			var tags []string
			step := ""
			for line := range strings.Lines(read(t, name+".yaml")) {
				line = strings.TrimRight(line, "\n")
				if m := stepLine.FindStringSubmatch(line); m != nil {
					step = m[1]
				}
				if m := tagLine.FindStringSubmatch(line); m != nil {
					tags = append(tags, step+"."+m[1])
				}
			}
			var answers map[string]any
			if err := yaml.Unmarshal([]byte(read(t, name+".answers.yaml")), &answers); err != nil {
				t.Fatal(err)
			}
			slices.Sort(tags)
			if diff := cmp.Diff(tags, slices.Sorted(maps.Keys(answers))); diff != "" {
				t.Errorf("tags and answers: %s", diff)
			}
		})
	}
}
