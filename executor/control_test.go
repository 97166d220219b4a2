package executor_test

import (
	"context"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/orchestrator-project/orchestrator/executor"
	"github.com/orchestrator-project/orchestrator/pipeline"
	"github.com/orchestrator-project/orchestrator/pipeline/spec"
	"github.com/orchestrator-project/orchestrator/store/storetest"
)

// troubled is an action that does as it is told: it fails with a category, or
// gives back what it was given.
func troubled(_ context.Context, env executor.Env, do string) (any, error) {
	kind, ok := strings.CutPrefix(do, "fail ")
	switch {
	case !ok:
		return do, nil
	case kind == "twice":
		if env.Attempt > 2 {
			return "third time", nil
		}
		kind = pipeline.CategoryTool
	}
	return nil, pipeline.Failuref(kind, "told to fail: %s", kind)
}

func TestControlFlow(t *testing.T) {
	e := start(t, storetest.Open(t), troubled)
	tests := []struct {
		name    string
		src     string
		inputs  map[string]any
		status  pipeline.RunStatus
		reason  string // of the run's error
		outputs map[string]any
		steps   map[string]pipeline.StepStatus
	}{
		{
			name:    "an assertion that holds",
			src:     "steps:\n- {id: a, assert: '{{ 1 < 2 }}'}\n- {id: b, set: {k: '{{ a }}'}}\noutputs: {k: '{{ k }}'}",
			status:  pipeline.RunCompleted,
			outputs: map[string]any{"k": true},
		},
		{
			name:   "an assertion that does not hold",
			src:    "steps:\n- {id: a, assert: '{{ 1 > 2 }}'}",
			status: pipeline.RunFailed, reason: "assertion_failed",
			steps: map[string]pipeline.StepStatus{"a": pipeline.StepFailed},
		},
		{
			name:    "match takes the case that is spelled so",
			src:     "inputs: {n: {type: any}}\nsteps:\n- {id: m, match: {on: '{{ n }}', cases: {3: [{id: three, action: probe, with: {do: three}}], true: [{id: yes, action: probe}]}, default: [{id: other, action: probe}]}}\n",
			inputs:  map[string]any{"n": int64(3)},
			status:  pipeline.RunCompleted,
			outputs: map[string]any{"m": map[string]any{"three": "three", "yes": nil, "other": nil}},
		},
		{
			name:   "match without a case that fits",
			src:    "inputs: {n: {type: any}}\nsteps:\n- {id: m, match: {on: '{{ n }}', cases: {3: []}}}\n",
			inputs: map[string]any{"n": "four"},
			status: pipeline.RunFailed, reason: "no_case",
			steps: map[string]pipeline.StepStatus{"m": pipeline.StepFailed},
		},
		{
			name:    "repeat until",
			src:     "steps:\n- {id: r, repeat: {until: 'n >= 3', max_iterations: 9}, steps: [{id: count, set: {n: '{{ (n | default(0, true)) + 1 }}'}}]}\noutputs: {n: '{{ n }}', i: '{{ r.iterations }}', done: '{{ r.completed }}'}",
			status:  pipeline.RunCompleted,
			outputs: map[string]any{"n": int64(3), "i": int64(3), "done": true},
		},
		{
			name:   "repeat is exhausted",
			src:    "steps:\n- {id: r, repeat: {until: 'a == 1', max_iterations: 2}, steps: [{id: a, action: probe}]}",
			status: pipeline.RunFailed, reason: pipeline.ReasonExhausted,
		},
		{
			name:    "repeat is exhausted and gives other outputs",
			src:     "steps:\n- {id: r, repeat: {until: 'a == 1', max_iterations: 2, on_exhausted: {tries: '{{ 1 + 1 }}'}}, steps: [{id: a, action: probe}]}\noutputs: {r: '{{ r.tries }}'}",
			status:  pipeline.RunCompleted,
			outputs: map[string]any{"r": int64(2)},
		},
		{
			name:    "a queue is worked off until enough is found",
			src:     "steps:\n- {id: q, queue: {items: '{{ range(100) }}', steps: [{id: a, action: probe, with: {do: 'x{{ item }}'}}], until: 'index >= 4'}}\noutputs: {n: '{{ q.iterations }}', done: '{{ q.completed }}'}",
			status:  pipeline.RunCompleted,
			outputs: map[string]any{"n": int64(5), "done": true},
		},
		{
			name:    "parallel steps",
			src:     "steps:\n- {id: p, parallel: [{id: a, action: probe, with: {do: x}}, {id: b, action: probe, with: {do: y}}]}\noutputs: {p: '{{ p.a }}{{ p.b }}'}",
			status:  pipeline.RunCompleted,
			outputs: map[string]any{"p": "xy"},
		},
		{
			name:    "the best of several",
			src:     "steps:\n- {id: c, compete: {candidates: [{id: a, action: probe, with: {do: long word}}, {id: b, action: probe, with: {do: fail tool}}, {id: d, action: probe, with: {do: short}}], tie_break: shortest}}\noutputs: {w: '{{ c.winner }}', o: '{{ c.output }}'}",
			status:  pipeline.RunCompleted,
			outputs: map[string]any{"w": "d", "o": "short"},
		},
		{
			name:    "vars see those before them",
			src:     "vars: {a: 2, b: '{{ a + 1 }}', c: '{{ vars.b * a }}'}\nsteps:\n- {id: p, set: {n: '{{ c }}'}}\n- {id: q, pipeline: {vars: {a: 1, b: '{{ a + 1 }}'}, steps: [{id: r, set: {m: '{{ b }}'}}], outputs: {m: '{{ m }}'}}}\noutputs: {n: '{{ n }}', m: '{{ q.m }}'}",
			status:  pipeline.RunCompleted,
			outputs: map[string]any{"n": int64(6), "m": int64(2)},
		},
		{
			name: "a call has its own names",
			src: `
inputs: {who: {type: string}}
vars: {style: outer}
steps:
- id: greet
  with: {name: "{{ who }}"}
  pipeline:
    inputs: {name: {type: string}, times: {type: integer, default: 2}}
    vars: {word: "hello {{ name }}"}
    steps:
    - {id: say, action: probe, with: {do: "{{ word }}!"}}
    - {id: count, set: {n: "{{ times }}"}}
    outputs: {text: "{{ say }}", n: "{{ n }}"}
outputs: {text: "{{ greet.text }}", n: "{{ greet.n }}"}`,
			inputs: map[string]any{"who": "world"}, status: pipeline.RunCompleted,
			outputs: map[string]any{"text": "hello world!", "n": int64(2)},
		},
		{
			name:   "a call with an input of another type",
			src:    "inputs: {n: {type: any}}\nsteps:\n- {id: c, with: {n: '{{ n }}'}, pipeline: {inputs: {n: {type: integer}}, steps: [{id: a, action: probe}]}}",
			inputs: map[string]any{"n": "three"}, status: pipeline.RunFailed, reason: "inputs",
		},
		{
			name:    "a fallback handles a failure",
			src:     "steps:\n- {id: a, action: probe, with: {do: fail tool}, on_error: [{match: {category: tool}, do: fallback, value: 'instead {{ 1 + 1 }}'}]}\n- {id: b, action: probe, with: {do: '{{ a }}'}}\noutputs: {b: '{{ b }}'}",
			status:  pipeline.RunCompleted,
			outputs: map[string]any{"b": "instead 2"},
			steps:   map[string]pipeline.StepStatus{"a": pipeline.StepFailed},
		},
		{
			name:   "a rule that repeats",
			src:    "steps:\n- {id: a, action: probe, with: {do: fail twice}, on_error: [{match: {category: tool}, do: retry, retry: {max_attempts: 3, initial: 0.001}}]}\noutputs: {a: '{{ a }}', n: '{{ a.attempts }}'}",
			status: pipeline.RunCompleted, outputs: map[string]any{"a": "third time", "n": int64(3)},
		},
		{
			name:   "a rule that jumps",
			src:    "settings: {order: sequence}\nsteps:\n- {id: a, action: probe, with: {do: fail model}, on_error: [{match: {pattern: 'told.*model'}, do: goto, goto: c}]}\n- {id: b, action: probe}\n- {id: c, action: probe}",
			status: pipeline.RunCompleted,
			steps:  map[string]pipeline.StepStatus{"a": pipeline.StepFailed, "b": pipeline.StepSkipped, "c": pipeline.StepCompleted},
		},
		{
			name:   "a rule that asks another model does so once",
			src:    "steps:\n- {id: a, action: probe, with: {do: fail twice}, on_failure: skip, on_error: [{match: {category: tool}, do: switch_model, model: other}]}\n- {id: b, set: {n: '{{ steps.a.attempts }}'}}\noutputs: {n: '{{ n }}'}",
			status: pipeline.RunCompleted, outputs: map[string]any{"n": int64(2)},
			steps: map[string]pipeline.StepStatus{"a": pipeline.StepSkipped},
		},
		{
			name:   "a fallback that cannot be evaluated",
			src:    "inputs: {z: {type: integer}}\nsteps:\n- {id: a, action: probe, with: {do: fail tool}, on_error: [{do: fallback, value: '{{ 1 // z }}'}]}",
			inputs: map[string]any{"z": int64(0)}, status: pipeline.RunFailed, reason: "expression",
		},
		{
			name:   "vars that cannot be evaluated",
			src:    "inputs: {z: {type: integer}}\nvars: {v: '{{ 1 // z }}'}\nsteps:\n- {id: a, action: probe, with: {do: '{{ v }}'}}",
			inputs: map[string]any{"z": int64(0)}, status: pipeline.RunFailed, reason: "expression",
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			e := &engine{Executor: e.Executor, t: t, store: e.store}
			run, v := e.wait(e.submit(tt.src, tt.inputs))
			if run.Status != tt.status {
				t.Fatalf("status %s, want %s (error: %v)", run.Status, tt.status, run.Error)
			}
			if tt.reason != "" && run.Error.Reason != tt.reason {
				t.Errorf("it failed because of %q (%v), want %q", run.Error.Reason, run.Error, tt.reason)
			}
			if tt.outputs != nil {
				if diff := cmp.Diff(tt.outputs, run.Outputs); diff != "" {
					t.Errorf("outputs: %s", diff)
				}
			}
			for path, want := range tt.steps {
				if s := v.Step(pipeline.Path(path)); s == nil || s.Status != want {
					t.Errorf("step %s: %+v, want %s", path, s, want)
				}
			}
		})
	}
}

// A contest is entered into its ledger once, also when its run is taken over
// between the line and the record.
func TestLedgerOfAContest(t *testing.T) {
	dir := t.TempDir()
	e := start(t, storetest.Open(t), troubled, func(c *executor.Config) { c.Workspace = dir })
	const src = "steps:\n- {id: c, compete: {candidates: [{id: a, action: probe, with: {do: x}}, {id: b, action: probe, with: {do: y}}], ledger: log/contests.jsonl}}"
	for range 2 {
		if run, _ := e.wait(e.submit(src, nil)); run.Status != pipeline.RunCompleted {
			t.Fatalf("%s %v", run.Status, run.Error)
		}
	}
	b, err := os.ReadFile(filepath.Join(dir, "log", "contests.jsonl"))
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	if err != nil || len(lines) != 2 {
		t.Fatalf("%q, %v", lines, err)
	}
	v, err := pipeline.DecodeValue([]byte(lines[0]))
	if m, ok := v.(map[string]any); err != nil || !ok || m["winner"] != "a" {
		t.Errorf("entry %s: %v", lines[0], err)
	}
}

// A detached call is a run of its own, begun in the commit in which its step ends.
func TestDetachedCall(t *testing.T) {
	e := start(t, storetest.Open(t), troubled)
	s := e.submission(`
steps:
- id: spawn
  detach: true
  with: {n: 5}
  pipeline: {id: below, version: 2.0.0, inputs: {n: {type: integer}}, steps: [{id: a, action: probe, with: {do: "n{{ n }}"}}], outputs: {a: "{{ a }}"}}
outputs: {child: "{{ spawn.run_id }}"}`, nil)
	s.Labels, s.Priority = map[string]string{"team": "x"}, 3
	parent, err := e.Submit(context.Background(), s)
	if err != nil {
		t.Fatal(err)
	}
	run, v := e.wait(parent.ID)
	if run.Status != pipeline.RunCompleted {
		t.Fatalf("%s %v", run.Status, run.Error)
	}
	id, _ := run.Outputs["child"].(string)
	child, _ := e.wait(pipeline.RunID(id))
	if child.Status != pipeline.RunCompleted || child.Outputs["a"] != "n5" {
		t.Errorf("the child: %s %v %v", child.Status, child.Outputs, child.Error)
	}
	if child.ParentRun != parent.ID || child.Pipeline != "below" || child.Version != "2.0.0" || child.Labels["team"] != "x" || child.Priority != 3 {
		t.Errorf("the child is %+v", child)
	}
	if s := v.Step("spawn"); s.Kind != pipeline.KindCall || s.Status != pipeline.StepCompleted {
		t.Errorf("the call: %+v", s)
	}
}

// The plan of a child that an older release has stored is found again in its
// parent's source.
func TestChildOfAnOlderFormat(t *testing.T) {
	const src = "steps:\n- {id: spawn, detach: true, pipeline: {id: below, steps: [{id: s, wait: {signal: go}}, {id: a, action: probe, with: {do: '{{ s }}'}}], outputs: {a: '{{ a }}'}}}\noutputs: {child: '{{ spawn.run_id }}'}"
	child := func(e *engine) *pipeline.Run {
		parent, _ := e.wait(e.submit(src, nil))
		id, _ := parent.Outputs["child"].(string)
		return e.status(pipeline.RunID(id), pipeline.RunWaiting)
	}
	first := start(t, storetest.Open(t), troubled)
	plan, err := first.store.Plan(t.Context(), child(first).PlanDigest)
	if err != nil {
		t.Fatal(err)
	}
	s := storetest.Open(t)
	plan.Format--
	if err := s.PutPlan(t.Context(), *plan); err != nil {
		t.Fatal(err)
	}
	one := start(t, s, troubled)
	id := child(one).ID
	one.stop()
	two := start(t, s, troubled)
	two.signal(id, "go", "on")
	if run, _ := two.wait(id); run.Status != pipeline.RunCompleted || run.Outputs["a"] != "on" {
		t.Errorf("%s %v %v", run.Status, run.Outputs, run.Error)
	}
}

func TestSettingsOfARun(t *testing.T) {
	dir := t.TempDir()
	e := start(t, storetest.Open(t), troubled, func(c *executor.Config) { c.Workspace = dir })
	s := e.submission("settings: {workspace: deep/er, priority: 7}\nsteps:\n- {id: a, run: 'pwd; echo x >f'}", nil)
	s.Answers = map[string]any{"a.x": "y"}
	run, err := e.Submit(context.Background(), s)
	if err != nil {
		t.Fatal(err)
	}
	done, _ := e.wait(run.ID)
	if done.Status != pipeline.RunCompleted || done.Priority != 7 || done.Outputs["a"] != filepath.Join(dir, "deep", "er") {
		t.Fatalf("%s %d %v %v", done.Status, done.Priority, done.Outputs, done.Error)
	}
	for ev, err := range e.store.Events(t.Context(), run.ID, 0) {
		if err != nil {
			t.Fatal(err)
		}
		if ev.Type == pipeline.RunCreated && ev.Data.Answers["a.x"] != "y" {
			t.Errorf("the answers were not kept: %+v", ev.Data)
		}
	}
}

// What travels with a pipeline is unpacked for reading, and its uploads stand in
// the workspace before the first step.
func TestBundleAndUploads(t *testing.T) {
	bundles := t.TempDir()
	t.Cleanup(func() { unseal(t, bundles) })
	e := start(t, storetest.Open(t), troubled, func(c *executor.Config) { c.Bundles = bundles })
	s := e.submission("vars: {home: '{{ pipeline }}'}\nsteps:\n- {id: a, run: '{{ home.dir }}/bin/tool.sh; cat in/data.txt'}\noutputs: {a: '{{ a }}', dir: '{{ home.dir }}'}", nil)
	s.Bundle = pipeline.Bundle{"bin/tool.sh": []byte("#!/bin/sh\necho tool\n")}
	s.Uploads = pipeline.Bundle{"in/data.txt": []byte("data")}
	s.Plan.Bundle = s.Bundle.Digest()
	var err error
	if s.Compiled, s.PlanDigest, err = spec.EncodePlan(s.Plan); err != nil {
		t.Fatal(err)
	}
	run, err := e.Submit(context.Background(), s)
	if err != nil {
		t.Fatal(err)
	}
	done, _ := e.wait(run.ID)
	if done.Status != pipeline.RunCompleted || done.Outputs["a"] != "tool\ndata" {
		t.Fatalf("%s %v %v", done.Status, done.Outputs, done.Error)
	}
	if dir, _ := done.Outputs["dir"].(string); !strings.HasPrefix(dir, bundles) {
		t.Errorf("it was unpacked in %q", dir)
	}
}

// unseal lets a folder be removed that was unpacked for reading only.
func unseal(t *testing.T, dir string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			err = os.Chmod(path, 0o700)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}
