package executor_test

import (
	"context"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/orchestrator-project/orchestrator/pipeline"
	"github.com/orchestrator-project/orchestrator/store/storetest"
)

// answered submits a pipeline with answers to its tags.
func (e *engine) answered(src string, inputs, answers map[string]any) pipeline.RunID {
	e.t.Helper()
	s := e.submission(src, inputs)
	s.Answers = answers
	run, err := e.Submit(context.Background(), s)
	if err != nil {
		e.t.Fatalf("submit: %v", err)
	}
	return run.ID
}

// resolutions lists what the run's tags were filled in with, in order.
func (e *engine) resolutions(id pipeline.RunID) []string {
	e.t.Helper()
	var list []string
	for ev, err := range e.store.Events(context.Background(), id, 0) {
		if err != nil {
			e.t.Fatal(err)
		}
		if a := ev.Data.Auto; a != nil {
			list = append(list, string(ev.Path)+"."+a.Key+" = "+string(pipeline.EncodeValue(a.Value))+" by "+a.From)
		}
	}
	return list
}

func TestAutoTags(t *testing.T) {
	e := start(t, storetest.Open(t), troubled)
	tests := []struct {
		name    string
		src     string
		answers map[string]any
		outputs map[string]any
		told    []string
		reason  string // of the run's error
	}{
		{
			name:    "a whole value",
			src:     "steps:\n- {id: a, action: debug, with: {value: '<AUTO type=\"integer\">how many</AUTO>'}}\noutputs: {v: '{{ a.value }}'}",
			answers: map[string]any{"a.value": int64(3)},
			outputs: map[string]any{"v": int64(3)},
			told:    []string{"a.value = 3 by answer"},
		},
		{
			name:    "within a text, two of them",
			src:     "inputs: {x: 7}\nsteps:\n- {id: a, action: probe, with: {do: 'from <AUTO>a</AUTO> to <AUTO>b, not {{ x }}</AUTO>.'}}\noutputs: {v: '{{ a }}'}",
			answers: map[string]any{"a.do": "here", "a.do#2": "there"},
			outputs: map[string]any{"v": "from here to there."},
			told:    []string{`a.do = "here" by answer`, `a.do#2 = "there" by answer`},
		},
		{
			name:    "an inner tag before the one around it",
			src:     "steps:\n- {id: a, action: probe, with: {do: '<AUTO fallback=\"outer\">of <AUTO>inner</AUTO></AUTO>'}}\noutputs: {v: '{{ a }}'}",
			answers: map[string]any{"a.do#2": "given"},
			outputs: map[string]any{"v": "outer"},
			told:    []string{`a.do#2 = "given" by answer`, `a.do = "outer" by fallback`},
		},
		{
			name:    "in lists and maps",
			src:     "steps:\n- {id: a, action: debug, with: {value: {k: ['<AUTO>x</AUTO>', 2]}}}\noutputs: {v: '{{ a.value }}'}",
			answers: map[string]any{"a.value.k[0]": "one"},
			outputs: map[string]any{"v": map[string]any{"k": []any{"one", int64(2)}}},
		},
		{
			name:    "in a condition",
			src:     "steps:\n- {id: a, action: probe, if: '<AUTO>is it worth it?</AUTO>', with: {do: x}}\noutputs: {v: '{{ a.status }}'}",
			answers: map[string]any{"a.if": false},
			outputs: map[string]any{"v": "skipped"},
			told:    []string{"a.if = false by answer"},
		},
		{
			name:    "as the items of a loop, and in its passes",
			src:     "steps:\n- id: l\n  for: {items: '<AUTO>which</AUTO>'}\n  steps:\n  - {id: a, action: probe, with: {do: '<AUTO>what of {{ item }}</AUTO>'}}\noutputs: {v: '{{ l.results }}'}",
			answers: map[string]any{"l.for.items": []any{"p", "q"}, "l/a.do": "any", "l[1]/a.do": "second"},
			outputs: map[string]any{"v": []any{map[string]any{"a": "any"}, map[string]any{"a": "second"}}},
			told:    []string{`l.for.items = ["p","q"] by answer`, `l[0]/a.do = "any" by answer`, `l[1]/a.do = "second" by answer`},
		},
		{
			name:    "tested before each pass",
			src:     "steps:\n- id: w\n  while: {condition: '<AUTO>go on?</AUTO>', max_iterations: 5}\n  steps:\n  - {id: a, action: probe, with: {do: x}}\noutputs: {n: '{{ w.iterations }}'}",
			answers: map[string]any{"w.while.condition": true, "w[2].while.condition": false},
			outputs: map[string]any{"n": int64(2)},
			told:    []string{"w[0].while.condition = true by answer", "w[1].while.condition = true by answer", "w[2].while.condition = false by answer"},
		},
		{
			name:    "tested after each pass",
			src:     "steps:\n- id: r\n  repeat: {until: '<AUTO>good?</AUTO>', max_iterations: 5}\n  steps:\n  - {id: a, action: probe, with: {do: x}}\noutputs: {n: '{{ r.iterations }}'}",
			answers: map[string]any{"r.repeat.until": false, "r[1].repeat.until": true},
			outputs: map[string]any{"n": int64(2)},
		},
		{
			name:    "as an action",
			src:     "steps:\n- {id: a, action: <AUTO>which tool</AUTO>, with: {do: hello}}\noutputs: {v: '{{ a }}'}",
			answers: map[string]any{"a.action": "probe"},
			outputs: map[string]any{"v": "hello"},
			told:    []string{`a.action = "probe" by answer`},
		},
		{
			name:    "the settings' fallback",
			src:     "settings: {auto: {fallback: whatever}}\nsteps:\n- {id: a, action: probe, with: {do: <AUTO>x</AUTO>}}\noutputs: {v: '{{ a }}'}",
			outputs: map[string]any{"v": "whatever"},
			told:    []string{`a.do = "whatever" by fallback`},
		},
		{
			name:    "a fallback that is a template",
			src:     "inputs: {x: 7}\nsteps:\n- {id: a, action: probe, with: {do: '<AUTO fallback=\"n{{ x }}\">x</AUTO>'}}\noutputs: {v: '{{ a }}'}",
			outputs: map[string]any{"v": "n7"},
		},
		{
			name:    "one answer for all attempts",
			src:     "steps:\n- {id: a, action: probe, with: {do: '<AUTO>x</AUTO>'}, retry: {max_attempts: 3, initial: 0.001, on: [tool]}}\noutputs: {v: '{{ a }}'}",
			answers: map[string]any{"a.do": "fail twice"},
			outputs: map[string]any{"v": "third time"},
			told:    []string{`a.do = "fail twice" by answer`},
		},
		{
			name:    "in state and in set",
			src:     "steps:\n- {id: s, set: {k: '<AUTO>k</AUTO>'}}\n- {id: a, action: probe, needs: s, with: {do: x}, state: {m: '{{ a }}<AUTO>m</AUTO>'}}\noutputs: {k: '{{ k }}', m: '{{ m }}'}",
			answers: map[string]any{"s.set.k": "one", "a.state.m": "two"},
			outputs: map[string]any{"k": "one", "m": "xtwo"},
		},
		{
			name:   "nothing fills it in",
			src:    "steps:\n- {id: a, action: probe, with: {do: <AUTO>x</AUTO>}}",
			reason: "auto_unresolved",
		},
		{
			name:    "a value of the wrong type",
			src:     "steps:\n- {id: a, action: probe, with: {do: '<AUTO choices=\"a, b\">x</AUTO>'}}",
			answers: map[string]any{"a.do": "c"},
			reason:  "auto_type",
		},
		{
			name:    "an action that does not take the parameters",
			src:     "steps:\n- {id: a, action: <AUTO>which tool</AUTO>, with: {do: hello}}",
			answers: map[string]any{"a.action": "debug"},
			reason:  "",
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			e := &engine{Executor: e.Executor, t: t, store: e.store}
			id := e.answered(tt.src, nil, tt.answers)
			run, _ := e.wait(id)
			if tt.outputs == nil {
				if run.Status != pipeline.RunFailed || run.Error == nil || run.Error.Kind != pipeline.CategoryValidation || run.Error.Reason != tt.reason {
					t.Fatalf("status %s, error %+v", run.Status, run.Error)
				}
				return
			}
			if diff := cmp.Diff(tt.outputs, run.Outputs); diff != "" {
				t.Errorf("outputs: %s (error: %v)", diff, run.Error)
			}
			if told := e.resolutions(id); tt.told != nil && !cmp.Equal(tt.told, told) {
				t.Errorf("recorded: %s", cmp.Diff(tt.told, told))
			}
		})
	}
}

// What was decided is recorded before the step begins, and holds after a restart.
func TestAutoAnswersAreRecordedBeforeTheStep(t *testing.T) {
	for name, open := range stores {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := open(t)
			e := start(t, s, troubled)
			id := e.answered("steps:\n- {id: a, action: probe, with: {do: '<AUTO>x</AUTO>'}}\n- {id: w, needs: a, wait: {signal: go}}\n"+
				"- {id: b, action: probe, needs: w, with: {do: '{{ a }}<AUTO>y</AUTO>'}}\noutputs: {v: '{{ b }}'}", nil, map[string]any{"a.do": "one", "b.do": "two"})
			e.status(id, pipeline.RunWaiting)
			e.stop()
			again := start(t, s, troubled)
			again.signal(id, "go", nil)
			run, _ := again.wait(id)
			if diff := cmp.Diff(map[string]any{"v": "onetwo"}, run.Outputs); diff != "" {
				t.Error(diff)
			}
			begun := map[pipeline.Path]bool{}
			for ev, err := range s.Events(context.Background(), id, 0) {
				if err != nil {
					t.Fatal(err)
				}
				begun[ev.Path] = begun[ev.Path] || ev.Type == pipeline.StepStarted
				if ev.Type == pipeline.AutoResolved && begun[ev.Path] {
					t.Errorf("%s was begun before its tag was resolved", ev.Path)
				}
			}
			if diff := cmp.Diff([]string{`a.do = "one" by answer`, `b.do = "two" by answer`}, again.resolutions(id)); diff != "" {
				t.Error(diff)
			}
		})
	}
}
