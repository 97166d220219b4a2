package examples_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.yaml.in/yaml/v4"

	"github.com/orchestrator-project/orchestrator/pipeline"
)

// TestSeedsTagsAreFilledInOnce runs the seeds without answers: a scripted model
// fills in each of their 34 tags, and is asked for each once.
func TestSeedsTagsAreFilledInOnce(t *testing.T) {
	all := 0
	for _, name := range []string{"research-report", "code-review", "data-analysis", "ensemble"} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join("seeds", name+".yaml")
			var answers map[string]any
			if err := yaml.Unmarshal(read(t, companion(file, "answers")), &answers); err != nil {
				t.Fatal(err)
			}
			var rules []any
			for key, v := range answers {
				step, param, _ := strings.Cut(key, ".")
				rules = append(rules, map[string]any{
					"when": map[string]any{"step": step, "param": param, "phase": "answer"}, "json": v, "times": 1,
					"usage": map[string]any{"input_tokens": 100, "output_tokens": 10},
				})
			}
			if s := companion(file, "script"); exists(s) {
				var own struct{ Rules []any }
				if err := yaml.Unmarshal(read(t, s), &own); err != nil {
					t.Fatal(err)
				}
				rules = append(rules, own.Rules...)
			}
			text, err := yaml.Marshal(map[string]any{"rules": rules})
			if err != nil {
				t.Fatal(err)
			}
			script := filepath.Join(t.TempDir(), "all.script.yaml")
			if err := os.WriteFile(script, text, 0o600); err != nil {
				t.Fatal(err)
			}
			h := open(t, script)
			copyTree(t, "seeds", h.dir)
			h.fills = true
			run := h.end(t, h.submit(t, file, nil))
			if run.Status != pipeline.RunCompleted {
				t.Fatalf("%s: %v", run.Status, run.Error)
			}
			asked, filled := map[string]int{}, map[string]int{}
			for e, err := range h.store.Events(t.Context(), run.ID, 0) {
				if err != nil {
					t.Fatal(err)
				}
				if c := e.Data.Call; c != nil && c.Param != "" && c.Phase == "answer" {
					asked[fmt.Sprintf("%s.%s", e.Path, c.Param)]++
				}
				if a := e.Data.Auto; a != nil {
					if a.From != "model" || a.Model != "script" || a.Kind == "" || a.Usage == nil {
						t.Errorf("%s.%s: %+v", e.Path, a.Key, a)
					}
					filled[string(e.Path)+"."+a.Key]++
				}
			}
			for key := range answers {
				if asked[key] != 1 || filled[key] != 1 {
					t.Errorf("%s was asked %d times and filled in %d times", key, asked[key], filled[key])
				}
			}
			all += len(filled)
		})
	}
	if all != 34 {
		t.Errorf("%d tags were filled in, not 34", all)
	}
}
