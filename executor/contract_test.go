package executor_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/orchestrator-project/orchestrator/executor"
	"github.com/orchestrator-project/orchestrator/pipeline"
	"github.com/orchestrator-project/orchestrator/store/storetest"
)

func TestContracts(t *testing.T) {
	e := start(t, storetest.Open(t), troubled)
	const decision = "from: json out/r.json, by: decision, cases: {APPROVE: {report: {type: path, under: out, must_exist: true}}, REVISE: {issues: {type: list, items: string}}}"
	tests := []struct {
		name, run, returns string
		output             any
		says               []string // in the message of its failure
	}{
		{name: "standard output", run: `echo '{"n": 1.0, "l": ["a"]}'`, returns: "n: integer, l: list<string>", output: map[string]any{"n": int64(1), "l": []any{"a"}}},
		{name: "all that is wrong is listed", run: `echo '{"n": "x", "l": [1], "o": 2}'`, returns: "n: integer, l: list<string>", says: []string{"n must be", "l[0] must be"}},
		{name: "more than was asked for", run: `echo '{"n": 1, "o": 2}'`, returns: "n: integer", output: map[string]any{"n": int64(1), "o": int64(2)}},
		{name: "no JSON", run: "echo yes", returns: "n: integer", says: []string{"one JSON value"}},
		{name: "a file", run: `mkdir -p out; echo '{"decision": "REVISE", "issues": ["a"]}' >out/r.json; echo done`, returns: decision, output: map[string]any{"decision": "REVISE", "issues": []any{"a"}}},
		{name: "the other case, with its file", run: `mkdir -p out; touch out/x.md; echo '{"decision": "APPROVE", "report": "out/x.md"}' >out/r.json`, returns: decision, output: map[string]any{"decision": "APPROVE", "report": "out/x.md"}},
		{name: "a field of another case", run: `mkdir -p out; echo '{"decision": "APPROVE", "issues": []}' >out/r.json`, returns: decision, says: []string{"must have report", "must not have issues"}},
		{name: "no file", run: "rm -rf out", returns: decision, says: []string{"there is no file out/r.json"}},
		{name: "a file of something else", run: "mkdir -p out; echo no >out/r.json", returns: decision, says: []string{"out/r.json does not hold one JSON value"}},
		{name: "a path that does not exist", run: `mkdir -p out; echo '{"decision": "APPROVE", "report": "out/none"}' >out/r.json`, returns: decision, says: []string{"report must name something that exists"}},
		{name: "a path elsewhere", run: `mkdir -p out; echo '{"decision": "APPROVE", "report": "/etc/passwd"}' >out/r.json`, returns: decision, says: []string{"report must be a path within the workspace"}},
		{name: "a link that leads out", run: `mkdir -p out; ln -sf /etc/passwd out/l; echo '{"decision": "APPROVE", "report": "out/l"}' >out/r.json`, returns: decision, says: []string{"report must be a path within the workspace"}},
		{name: "a result that is a link that leads out", run: `mkdir -p out; rm -f out/r.json; ln -s /etc/hostname out/r.json`, returns: decision, says: []string{"escapes"}},
		{name: "files", run: `rm -rf out; mkdir -p out/d; touch out/report.md out/d/b out/d/a`, returns: "from: files, report: {type: path, under: out}, parts: {type: list, items: {type: path, under: out/d}}", output: map[string]any{"report": "out/report.md", "parts": []any{"out/d/a", "out/d/b"}}},
		{name: "files that are not there", run: `rm -rf out; mkdir out`, returns: "from: files, report: {type: path, under: out}", says: []string{"must have report"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			e := &engine{Executor: e.Executor, t: t, store: e.store}
			run, v := e.wait(e.submit("steps:\n- id: a\n  run: |\n    "+tt.run+"\n  returns: {"+tt.returns+"}", nil))
			s := v.Step("a")
			if tt.output != nil {
				if diff := cmp.Diff(tt.output, s.Output); diff != "" {
					t.Errorf("%s (error: %v)", diff, run.Error)
				}
				return
			}
			if s.Status != pipeline.StepFailed || s.Error.Kind != pipeline.CategoryContract {
				t.Fatalf("the step: %s %+v, output %v", s.Status, s.Error, s.Output)
			}
			for _, says := range tt.says {
				if !strings.Contains(s.Error.Message, says) {
					t.Errorf("%q does not say %q", s.Error.Message, says)
				}
			}
		})
	}
}

func TestArtifacts(t *testing.T) {
	for name, open := range stores {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := open(t)
			e := start(t, s, troubled)
			id := e.submit(`
artifacts: {report: {type: path, under: out}, notes: {type: map, additional: true}}
steps:
- id: draft
  run: "mkdir -p out; printf 'first text' >out/report.md; echo '{\"report\": \"out/report.md\", \"notes\": {\"n\": 1}}'"
  returns: {report: {type: path, under: out, must_exist: true}, notes: {type: map, additional: true}}
  publish: [{artifact: report, from: report}, {artifact: notes, from: notes}]
- id: change
  needs: draft
  run: "printf changed >out/report.md"
- id: read
  needs: change
  run: 'printf "%s" "$ORCHESTRATOR_CONSUMED"'
  capture: json
  consume: [{artifact: report, from: [draft], as: content}, {artifact: notes}]
- id: quiet
  needs: change
  run: 'printf "%s" "${ORCHESTRATOR_CONSUMED-unset}"'
  consume: [{artifact: report, as: none}]
outputs: {read: '{{ read }}', quiet: '{{ quiet }}', made: '{{ steps.draft.artifacts }}'}
`, nil)
			run, v := e.wait(id)
			want := map[string]any{
				"quiet": "unset",
				"read": map[string]any{
					"report": map[string]any{"version": int64(1), "producer": "draft", "value": "out/report.md", "content": "first text"},
					"notes":  map[string]any{"version": int64(1), "producer": "draft", "value": map[string]any{"n": int64(1)}},
				},
				"made": []any{
					map[string]any{"artifact": "report", "version": int64(1), "value": "out/report.md"},
					map[string]any{"artifact": "notes", "version": int64(1), "value": map[string]any{"n": int64(1)}},
				},
			}
			if diff := cmp.Diff(want, run.Outputs); diff != "" {
				t.Fatalf("%s (error: %v)", diff, run.Error)
			}
			made := v.Step("draft").Artifacts
			if len(made) != 2 || made[0].Size != int64(len("first text")) || made[1].Blob != "" {
				t.Fatalf("published: %+v", made)
			}
			if data, err := s.Blob(t.Context(), id, made[0].Blob); err != nil || string(data) != "first text" {
				t.Errorf("kept is %q, %v", data, err)
			}
		})
	}
}

func TestWhatIsConsumedMustBeThere(t *testing.T) {
	e := start(t, storetest.Open(t), troubled)
	const artifacts = "artifacts: {a: {type: integer}}\nsteps:\n- id: make\n  if: '{{ make_it }}'\n  run: echo '{\"v\":1}'\n  returns: {v: integer}\n  publish: {artifact: a, from: v}\n"
	t.Run("missing", func(t *testing.T) {
		e := &engine{Executor: e.Executor, t: t, store: e.store}
		run, v := e.wait(e.submit("inputs: {make_it: false}\n"+artifacts+"- {id: use, run: 'touch launched', consume: {artifact: a}}", nil))
		if s := v.Step("use"); s.Status != pipeline.StepFailed || s.Error.Kind != pipeline.CategoryContract || s.Reason != "artifact_missing" {
			t.Errorf("%+v %v", s, run.Error)
		}
	})
	t.Run("stale", func(t *testing.T) {
		e := &engine{Executor: e.Executor, t: t, store: e.store}
		_, v := e.wait(e.submit("inputs: {make_it: true}\n"+artifacts+"- id: l\n  needs: make\n  for: {items: [1, 2]}\n  steps:\n  - {id: use, run: 'true', consume: {artifact: a, fresh: new}}", nil))
		if s := v.Step("l[0]/use"); s.Status != pipeline.StepCompleted {
			t.Errorf("the first: %+v", s)
		}
		if s := v.Step("l[1]/use"); s.Status != pipeline.StepFailed || s.Reason != "artifact_stale" {
			t.Errorf("the second: %+v", s)
		}
	})
}

func TestAgentsThatArePrograms(t *testing.T) {
	dir := t.TempDir()
	e := start(t, storetest.Open(t), troubled, func(c *executor.Config) { c.Workspace = dir })
	big := strings.Repeat("0123456789abcdef", 17<<10) // more than a prompt takes
	for name, text := range map[string]string{"docs/b.md": "text of b\n", "docs/a.md": "text of a", "big.txt": big} {
		if err := os.MkdirAll(filepath.Join(dir, filepath.Dir(name)), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	const agents = "inputs: {who: you}\nagents:\n  echo: {command: [sh, -c, 'cat; echo \"m=$0\"', '{{ model }}'], model: small, instructions: 'Be brief, {{ who }}.'}\n" +
		"  last: {command: [sh, -c, 'printf \"%s\" \"$1\"', sh], input: argument}\n  judge: {command: [sh, -c, 'cat >asked; echo ''{\"n\": 3}''']}\nsteps:\n"
	t.Run("standard input", func(t *testing.T) {
		e := &engine{Executor: e.Executor, t: t, store: e.store}
		run, v := e.wait(e.submit(agents+"- {id: a, agent: echo, prompt: 'Say {{ 1 + 1 }}.'}", nil))
		if want := "Be brief, you.\n\nSay 2.m=small"; run.Outputs["a"] != want {
			t.Fatalf("%q %v", run.Outputs["a"], run.Error)
		}
		if want := any(map[string]any{"prompt": "Be brief, you.\n\nSay 2.", "model": "small"}); !cmp.Equal(want, v.Step("a").Parameters) {
			t.Errorf("recorded: %v", v.Step("a").Parameters)
		}
	})
	t.Run("the last argument, with files", func(t *testing.T) {
		e := &engine{Executor: e.Executor, t: t, store: e.store}
		run, _ := e.wait(e.submit(agents+"- {id: a, agent: last, prompt: Look., files: {required: ['docs/*.md'], optional: [nothing/*]}}\n"+
			"- {id: b, agent: last, prompt: Look., files: {required: ['docs/*.md'], inject: {mode: list, position: before}}}", nil))
		if want := "Look.\n\n## Files\n### docs/a.md\ntext of a\n\n### docs/b.md\ntext of b"; run.Outputs["a"] != want {
			t.Errorf("%q %v", run.Outputs["a"], run.Error)
		}
		if want := "## Files\n- docs/a.md\n- docs/b.md\n\nLook."; run.Outputs["b"] != want {
			t.Errorf("%q %v", run.Outputs["b"], run.Error)
		}
	})
	t.Run("files that are cut", func(t *testing.T) {
		e := &engine{Executor: e.Executor, t: t, store: e.store}
		run, v := e.wait(e.submit(agents+"- {id: a, agent: judge, prompt: Look., files: {required: ['*.txt', docs/b.md]}}", nil))
		if run.Status != pipeline.RunCompleted {
			t.Fatal(run.Error)
		}
		params, _ := v.Step("a").Parameters.(map[string]any)
		want := []any{
			map[string]any{"path": "big.txt", "size": int64(len(big)), "included": int64(256 << 10)},
			map[string]any{"path": "docs/b.md", "size": int64(10), "included": int64(0)},
		}
		if diff := cmp.Diff(want, params["files"]); diff != "" {
			t.Error(diff)
		}
	})
	t.Run("files that are missing", func(t *testing.T) {
		e := &engine{Executor: e.Executor, t: t, store: e.store}
		_, v := e.wait(e.submit(agents+"- {id: a, agent: last, prompt: Look., files: {required: [none/*.md]}}", nil))
		if s := v.Step("a"); s.Status != pipeline.StepFailed || s.Reason != "files_missing" {
			t.Errorf("%+v", s)
		}
	})
	t.Run("a contract", func(t *testing.T) {
		e := &engine{Executor: e.Executor, t: t, store: e.store}
		run, _ := e.wait(e.submit(agents+"- {id: a, agent: judge, prompt: Count., returns: {n: integer}}\n- {id: b, agent: judge, prompt: Count., returns: {t: string}, on_failure: continue, needs: a}", nil))
		if run.Outputs != nil || run.Error == nil || !strings.Contains(run.Error.Message, "must have t") {
			t.Fatalf("%v %v", run.Outputs, run.Error)
		}
		asked, err := os.ReadFile(filepath.Join(dir, "asked"))
		if want := "Count.\n\n## Result\nAnswer with one JSON object and nothing else:\n- t: string"; err != nil || string(asked) != want {
			t.Errorf("asked %q, %v", asked, err)
		}
	})
}
