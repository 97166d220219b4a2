package executor_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/orchestrator-project/orchestrator/pipeline"
	"github.com/orchestrator-project/orchestrator/store/storetest"
)

// What the language promises where constructs meet.
func TestLanguage(t *testing.T) {
	e := start(t, storetest.Open(t), troubled)
	tests := []struct {
		name    string
		src     string
		status  pipeline.RunStatus
		outputs map[string]any
	}{
		{
			name:    "a tolerated failure has no output",
			src:     "settings: {on_error: continue}\nsteps:\n- {id: a, run: 'echo half; exit 3', on_failure: continue}\n- {id: b, set: {empty: '{{ a is none and a.output is none }}', code: '{{ steps.a.exit_code }}', why: '{{ a.error.kind }}'}}\noutputs: {a: '{{ a }}', b: '{{ b }}'}",
			status:  pipeline.RunCompleted,
			outputs: map[string]any{"a": nil, "b": map[string]any{"empty": true, "code": int64(3), "why": "failed"}},
		},
		{
			name:    "a tolerated failure is null in the pass of a loop",
			src:     "settings: {on_error: continue}\nsteps:\n- {id: l, for: {items: [0, 1]}, steps: [{id: a, run: 'echo {{ item }}; exit {{ item }}', on_failure: continue}]}\noutputs: {r: '{{ l.results }}'}",
			status:  pipeline.RunCompleted,
			outputs: map[string]any{"r": []any{map[string]any{"a": "0"}, map[string]any{"a": nil}}},
		},
		{
			name:    "a loop that failed and is tolerated has no output",
			src:     "settings: {on_error: continue}\nsteps:\n- {id: l, on_failure: continue, for: {items: [0, 1]}, run: 'exit {{ item }}'}\n- {id: b, set: {empty: '{{ l is none }}'}}\noutputs: {empty: '{{ b.empty }}'}",
			status:  pipeline.RunCompleted,
			outputs: map[string]any{"empty": true},
		},
		{
			name:    "a failure that is routed keeps what the step gave",
			src:     "steps:\n- {id: a, run: 'echo half; exit 3', on_failure: c}\n- {id: b, run: echo b}\n- {id: c, set: {got: '{{ a }}'}}\noutputs: {got: '{{ c.got }}', b: '{{ b }}'}",
			status:  pipeline.RunCompleted,
			outputs: map[string]any{"got": "half", "b": nil},
		},
		{
			name:    "what an exhausted loop gives can be made of its passes",
			src:     "steps:\n- {id: r, repeat: {until: \"a == 'z'\", max_iterations: 2, on_exhausted: {best: '{{ r.last.a }}', tries: '{{ r.iterations }}', all: '{{ collect_results() | length }}'}}, steps: [{id: a, run: 'echo {{ iteration }}'}]}\noutputs: {r: '{{ r }}'}",
			status:  pipeline.RunCompleted,
			outputs: map[string]any{"r": map[string]any{"best": "2", "tries": int64(2), "all": int64(2)}},
		},
		{
			name:    "a wait is limited within it too",
			src:     "settings: {on_error: continue}\nsteps:\n- {id: w, wait: {signal: never, timeout: 0.01}, on_failure: continue}\n- {id: b, needs: w, set: {why: '{{ steps.w.error.kind }}', empty: '{{ w is none }}'}}\noutputs: {b: '{{ b }}'}",
			status:  pipeline.RunCompleted,
			outputs: map[string]any{"b": map[string]any{"why": "timeout", "empty": true}},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			e := &engine{Executor: e.Executor, t: t, store: e.store}
			run, _ := e.wait(e.submit(tt.src, nil))
			if run.Status != tt.status {
				t.Fatalf("it is %s: %v", run.Status, run.Error)
			}
			if diff := cmp.Diff(tt.outputs, run.Outputs); diff != "" {
				t.Errorf("outputs: %s", diff)
			}
		})
	}
}
