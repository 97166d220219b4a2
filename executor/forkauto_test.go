package executor_test

import (
	"context"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/orchestrator-project/orchestrator/executor"
	"github.com/orchestrator-project/orchestrator/pipeline"
	"github.com/orchestrator-project/orchestrator/store/storetest"
)

// tagged has tags that name an input, that follow a result, and that do neither.
const tagged = `
inputs: {topic: bees}
steps:
- {id: plan, action: debug, with: {value: '<AUTO>depth of {{ inputs.topic }}</AUTO>'}}
- {id: title, action: debug, with: {value: '<AUTO>title for {{ plan.value }}</AUTO>'}}
- {id: free, action: debug, with: {value: '<AUTO>a colour</AUTO>'}}
outputs: {plan: '{{ plan.value }}', title: '{{ title.value }}', free: '{{ free.value }}'}
`

// foreseen is what a fork would do and why, by path.
func (e *engine) foreseen(f pipeline.Forking) map[string]string {
	e.t.Helper()
	list, err := e.PreviewFork(e.t.Context(), f)
	if err != nil {
		e.t.Fatalf("preview: %v", err)
	}
	plan := map[string]string{}
	for _, s := range list {
		plan[string(s.Path)] = strings.TrimSuffix(s.Decision+": "+s.Reason, ": ")
	}
	return plan
}

func TestForkAsksAgainOnlyWhatIsAskedDifferently(t *testing.T) {
	f := &filler{answer: echoing}
	e := start(t, storetest.Open(t), troubled, filling(f))
	first, _ := e.wait(e.submit(tagged, nil))
	for _, c := range []struct {
		name    string
		edit    pipeline.Submission
		asked   []string
		preview map[string]string
		outputs map[string]any
	}{
		{
			name: "nothing is edited", preview: map[string]string{"plan": "reuse", "title": "reuse", "free": "reuse"},
			outputs: map[string]any{"plan": "DEPTH OF BEES", "title": "TITLE FOR DEPTH OF BEES", "free": "A COLOUR"},
		},
		{
			name: "an input that a tag names", edit: pipeline.Submission{Inputs: map[string]any{"topic": "cats"}},
			asked: []string{"depth of cats", "title for DEPTH OF CATS"},
			preview: map[string]string{
				"plan": "rerun: a model fills in value", "title": "unknown: unknown until plan has run", "free": "reuse",
			},
			outputs: map[string]any{"plan": "DEPTH OF CATS", "title": "TITLE FOR DEPTH OF CATS", "free": "A COLOUR"},
		},
		{
			name: "an answer", edit: pipeline.Submission{Answers: map[string]any{"plan.value": "three"}},
			asked: []string{"title for three"},
			preview: map[string]string{
				"plan": "rerun: what it is given has changed", "title": "unknown: unknown until plan has run", "free": "reuse",
			},
			outputs: map[string]any{"plan": "three", "title": "TITLE FOR THREE", "free": "A COLOUR"},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			f.mu.Lock()
			f.asked = nil
			f.mu.Unlock()
			fork := pipeline.Forking{From: first.ID, Mode: pipeline.ForkAt, Edit: c.edit}
			if diff := cmp.Diff(c.preview, e.foreseen(fork)); diff != "" {
				t.Error(diff)
			}
			if n := len(f.texts()); n > 0 {
				t.Errorf("the preview asks %v", f.texts())
			}
			run, _ := e.wait(e.fork(fork))
			if diff := cmp.Diff(c.outputs, run.Outputs); diff != "" {
				t.Errorf("%s, %v", diff, run.Error)
			}
			if diff := cmp.Diff(c.asked, f.texts()); diff != "" {
				t.Error(diff)
			}
			again, _ := e.wait(e.fork(pipeline.Forking{From: run.ID, Mode: pipeline.ForkAt}))
			if diff := cmp.Diff(c.outputs, again.Outputs); diff != "" || len(f.texts()) != len(c.asked) {
				t.Errorf("a fork of the fork asks again: %v, %s", f.texts(), diff)
			}
			for _, ev := range e.log(again.ID) {
				if a := ev.Data.Auto; a != nil && a.From == "model" && (a.Model != "oracle" || a.Kind != executor.OpenParameter || a.Usage != nil) {
					t.Errorf("a reused answer is recorded as %+v", a)
				}
			}
		})
	}
}

func TestPreviewOfAnOpenConditionAsksNobody(t *testing.T) {
	f := &filler{answer: func(context.Context, executor.Env, executor.Question) (any, error) { return true, nil }}
	e := start(t, storetest.Open(t), troubled, filling(f))
	const src = `
inputs: {x: 1}
steps:
- {id: a, action: debug, if: '<AUTO>is {{ inputs.x }} much?</AUTO>', with: {value: 1}}
- {id: b, if: {condition: '<AUTO>and {{ inputs.x }}?</AUTO>', then: [{id: c, action: debug, with: {value: 2}}]}}
`
	first, _ := e.wait(e.submit(src, nil))
	asked := len(f.texts())
	got := e.foreseen(pipeline.Forking{From: first.ID, Mode: pipeline.ForkAt, Edit: pipeline.Submission{Inputs: map[string]any{"x": int64(2)}}})
	want := map[string]string{
		"a": "unknown: unknown until a model has filled in if", "b": "unknown: unknown until a model has filled in if.condition", "c": "unknown: unknown until b has run",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if len(f.texts()) != asked {
		t.Errorf("it asks %v", f.texts()[asked:])
	}
}

func TestForkRefusesAnAnswerThatNothingAsksFor(t *testing.T) {
	f := &filler{answer: echoing}
	e := start(t, storetest.Open(t), troubled, filling(f))
	first, _ := e.wait(e.submit(tagged, nil))
	_, err := e.Fork(t.Context(), pipeline.Forking{From: first.ID, Mode: pipeline.ForkAt, Edit: pipeline.Submission{Answers: map[string]any{"plan.valeu": 1}}})
	if err == nil || !strings.Contains(err.Error(), `plan.valeu (did you mean "plan.value"?)`) {
		t.Errorf("got %v", err)
	}
}
