package executor_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/orchestrator-project/orchestrator/executor"
	"github.com/orchestrator-project/orchestrator/executor/model"
	"github.com/orchestrator-project/orchestrator/executor/step"
	"github.com/orchestrator-project/orchestrator/pipeline"
	"github.com/orchestrator-project/orchestrator/pipeline/spec"
	"github.com/orchestrator-project/orchestrator/store/storetest"
)

// packed is a submission of a pipeline with the files that travel with it.
func (e *engine) packed(src string, files map[string]string, inputs map[string]any) pipeline.Submission {
	e.t.Helper()
	bundle := pipeline.Bundle{}
	for name, text := range files {
		bundle[name] = []byte(text)
	}
	plan, _, err := spec.Compile(spec.Source{File: "test.yaml", Text: []byte(src), Files: bundle}, e.Catalog())
	if err != nil {
		e.t.Fatalf("compile: %v", err)
	}
	compiled, digest, err := spec.EncodePlan(plan)
	if err != nil {
		e.t.Fatal(err)
	}
	if plan, err = spec.DecodePlan(compiled); err != nil {
		e.t.Fatal(err)
	}
	in, err := spec.Inputs(plan, inputs)
	if err != nil {
		e.t.Fatal(err)
	}
	return pipeline.Submission{Plan: plan, PlanDigest: digest, Compiled: compiled, Source: []byte(src), Inputs: in, Bundle: bundle}
}

func (e *engine) enter(s pipeline.Submission) pipeline.RunID {
	e.t.Helper()
	run, err := e.Submit(context.Background(), s)
	if err != nil {
		e.t.Fatalf("submit: %v", err)
	}
	return run.ID
}

// inBundles lets an executor unpack bundles in a folder that goes with the test.
func inBundles(t *testing.T) func(*executor.Config) {
	t.Helper()
	dir := t.TempDir()
	t.Cleanup(func() { unseal(t, dir) })
	return func(c *executor.Config) { c.Bundles = dir }
}

func TestSkills(t *testing.T) {
	e := start(t, storetest.Open(t), troubled, inBundles(t))
	skill := func(front, body string) map[string]string {
		return map[string]string{"skills/s/SKILL.md": "---\nname: s\ndescription: For tests.\n" + front + "---\n" + body, "skills/s/part.txt": "a part\n"}
	}
	const use = "steps:\n- {id: a, skill: s, with: %}\noutputs: {v: '{{ a }}'}"
	tests := []struct {
		name    string
		files   map[string]string
		with    string
		outputs map[string]any
		kind    string // of the run's error
		says    string // its message holds this
	}{
		{
			name:    "it reads its parameters, defaults filled in, and gives JSON",
			files:   skill("parameters: {x: integer, y: {type: integer, default: 5}}\nrun: cat\n", ""),
			with:    "{x: 3}",
			outputs: map[string]any{"v": map[string]any{"x": int64(3), "y": int64(5)}},
		},
		{
			name: "files of its folder are found by ./",
			files: func() map[string]string {
				f := skill("run: [./go.sh, ./part.txt]\n", "")
				f["skills/s/go.sh"] = "#!/bin/sh\nprintf '\"%s%s\"' \"$(cat \"$1\")\" \"$(basename \"$ORCHESTRATOR_SKILL_DIR\")\"\n"
				return f
			}(),
			with:    "{}",
			outputs: map[string]any{"v": "a parts"},
		},
		{
			name:    "success: false is data",
			files:   skill("returns: {success: boolean}\nrun: 'echo ''{\"success\": false}'''\n", ""),
			with:    "{}",
			outputs: map[string]any{"v": map[string]any{"success": false}},
		},
		{
			name: "it works in the workspace", files: skill("run: 'cd . && [ \"$PWD\" != \"$ORCHESTRATOR_SKILL_DIR\" ] && cat \"$ORCHESTRATOR_BUNDLE/skills/s/part.txt\" >copy && echo true'\n", ""),
			with: "{}", outputs: map[string]any{"v": true},
		},
		{name: "its exit code is its failure", files: skill("run: 'echo broken >&2; exit 4'\n", ""), with: "{}", kind: pipeline.CategoryFailed, says: "exit code 4: broken"},
		{name: "it gives no JSON", files: skill("run: echo hello\n", ""), with: "{}", kind: pipeline.CategoryContract, says: "one JSON value"},
		{
			name:  "it gives something else than it says",
			files: skill("returns: {n: integer, t: string}\nrun: 'echo ''{\"n\": \"x\", \"u\": 1}'''\n", ""), with: "{}",
			kind: pipeline.CategoryContract, says: "it must have t",
		},
		{
			name:  "a parameter that names no file",
			files: skill("parameters: {f: {type: path, must_exist: true}}\nrun: cat\n", ""), with: "{f: nowhere.txt}",
			kind: pipeline.CategoryValidation, says: "f must name something that exists",
		},
		{
			name:  "a parameter that turns out to be of the wrong type",
			files: skill("parameters: {n: integer}\nrun: cat\n", ""), with: "{n: '{{ \"x\" | upper }}'}",
			kind: pipeline.CategoryValidation, says: "do not suit the skill s: n must be",
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			e := &engine{Executor: e.Executor, t: t, store: e.store}
			run, v := e.wait(e.enter(e.packed(strings.Replace(use, "%", tt.with, 1), tt.files, nil)))
			if tt.outputs != nil {
				if diff := cmp.Diff(tt.outputs, run.Outputs); diff != "" {
					t.Fatalf("%s (error: %v)", diff, run.Error)
				}
				if s := v.Step("a"); s.Kind != pipeline.KindSkill || s.Action != "" || s.Parameters == nil {
					t.Errorf("the step: %+v", s)
				}
				return
			}
			if run.Error == nil || run.Error.Kind != tt.kind || !strings.Contains(run.Error.Message, tt.says) {
				t.Errorf("error %+v", run.Error)
			}
		})
	}
}

// oracle answers every request with its value.
type oracle struct {
	asked chan *model.Request
	value any
}

func (o oracle) answer(_ context.Context, r *model.Request) (*model.Response, error) {
	o.asked <- r
	return &model.Response{Value: o.value, Model: "oracle"}, nil
}

func TestASkillWithoutACommandAsksTheModel(t *testing.T) {
	o := oracle{asked: make(chan *model.Request, 1), value: map[string]any{"mood": "good"}}
	e := start(t, storetest.Open(t), troubled, inBundles(t), func(c *executor.Config) {
		c.Actions = step.All(step.Config{Model: model.Direct{Provider: model.Func(o.answer)}})
	})
	files := map[string]string{"skills/judge/SKILL.md": "---\nname: judge\ndescription: d\nparameters: {text: string}\nreturns: {mood: {enum: [good, bad]}}\n---\nTell the mood.\n"}
	run, v := e.wait(e.enter(e.packed("steps:\n- {id: a, skill: judge, with: {text: hooray}}\noutputs: {m: '{{ a.mood }}'}", files, nil)))
	if run.Outputs["m"] != "good" {
		t.Fatalf("%v %v", run.Outputs, run.Error)
	}
	r := <-o.asked
	if said := r.LastUser(); !strings.Contains(said, "Tell the mood.") || !strings.Contains(said, "hooray") || r.Schema == nil {
		t.Errorf("asked %q with schema %v", said, r.Schema)
	}
	if s := v.Step("a"); s.Model != "oracle" || !cmp.Equal(s.Parameters, any(map[string]any{"text": "hooray"})) {
		t.Errorf("the step: %+v", s)
	}
}

// A bundle is unpacked once for all of its runs, and again where it is gone.
func TestBundlesAreUnpackedOnce(t *testing.T) {
	for name, open := range stores {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := open(t)
			var dir string
			e := start(t, s, troubled, inBundles(t), func(c *executor.Config) { dir = c.Bundles })
			sub := e.packed("bundle: [data.txt]\nsteps:\n- {id: a, run: 'cat \"$ORCHESTRATOR_BUNDLE/data.txt\"'}", map[string]string{"data.txt": "text"}, nil)
			content := func() []string {
				entries, err := os.ReadDir(dir)
				if err != nil {
					t.Fatal(err)
				}
				var names []string
				for _, x := range entries {
					names = append(names, x.Name())
				}
				return names
			}
			for range 2 {
				run, _ := e.wait(e.enter(sub))
				if run.Outputs["a"] == nil {
					t.Fatalf("%v", run.Error)
				}
			}
			names := content()
			if len(names) != 1 {
				t.Fatalf("unpacked are %v", names)
			}
			unseal(t, dir)
			if err := os.RemoveAll(filepath.Join(dir, names[0])); err != nil {
				t.Fatal(err)
			}
			if run, _ := e.wait(e.enter(sub)); run.Outputs["a"] != "text" || len(content()) != 1 {
				t.Errorf("%v %v", run.Outputs, run.Error)
			}
		})
	}
}
