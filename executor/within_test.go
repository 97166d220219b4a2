package executor_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/orchestrator-project/orchestrator/executor"
	"github.com/orchestrator-project/orchestrator/pipeline"
	"github.com/orchestrator-project/orchestrator/store"
	"github.com/orchestrator-project/orchestrator/store/storetest"
)

// below is the pipeline that calls run; the step that names it never does.
const below = `
- {id: never, condition: "false", detach: true, pipeline: {id: below, inputs: {do: string}, steps: [{id: work, action: probe, with: {do: "{{ do }}"}}], outputs: {did: "{{ work }}"}}}
`

// calling is an engine whose probe runs the pipeline below when it is told to.
func calling(t *testing.T, s store.Store, work func(ctx context.Context, do string) (any, error), change ...func(*executor.Config)) *engine {
	t.Helper()
	return start(t, s, func(ctx context.Context, env executor.Env, do string) (any, error) {
		key, isCall := map[string]string{"first": "1", "again": "1", "other": "2", "fails": "3", "waits": "4"}[do]
		if !isCall {
			return work(ctx, do)
		}
		input := "work"
		if do == "fails" || do == "waits" {
			input = do + " below"
		}
		run, err := env.Child(ctx, &pipeline.Call{Name: "below", Unit: 0}, map[string]any{"do": input}, string(env.Run)+"#"+key)
		if err != nil {
			return nil, err
		}
		return map[string]any{"run": string(run.ID), "did": run.Outputs["did"]}, nil
	}, append(change, func(c *executor.Config) {
		for i := range c.Actions {
			if c.Actions[i].Spec.Key == "probe" {
				c.Actions[i].Journal = true
			}
		}
	})...)
}

func worker(ctx context.Context, do string) (any, error) {
	switch do {
	case "fails below":
		return nil, pipeline.Failuref(pipeline.CategoryFailed, "no luck")
	case "waits below":
		<-ctx.Done()
		return nil, ctx.Err()
	}
	return "done: " + do, nil
}

func TestACallRunsAPipelineOncePerKey(t *testing.T) {
	e := calling(t, storetest.Open(t), worker)
	run, _ := e.wait(e.submit(`
steps:
- {id: a, action: probe, with: {do: first}}
- {id: b, action: probe, with: {do: again}, needs: a}
- {id: c, action: probe, with: {do: other}, needs: b}`+below+`
outputs: {a: "{{ a }}", b: "{{ b }}", c: "{{ c }}"}`, nil))
	if run.Status != pipeline.RunCompleted {
		t.Fatalf("%s: %v", run.Status, run.Error)
	}
	a, b, c := run.Outputs["a"], run.Outputs["b"], run.Outputs["c"]
	if d := cmp.Diff(a, b); d != "" {
		t.Errorf("an equal key found another run: %s", d)
	}
	if cmp.Equal(a, c) {
		t.Error("another key found the same run")
	}
	if did, _ := a.(map[string]any); did["did"] != "done: work" {
		t.Errorf("the outputs are %v", a)
	}
	page, err := e.store.Runs(t.Context(), store.Query{Parent: run.ID, Limit: 10})
	if err != nil || len(page.Runs) != 2 {
		t.Errorf("the run has %d children, %v", len(page.Runs), err)
	}
}

// A step that waits for a run that it has begun leaves its slot to that run.
func TestACallNeedsNoSlotWhileItWaits(t *testing.T) {
	e := calling(t, storetest.Open(t), worker, func(c *executor.Config) { c.Steps = 1 })
	run, _ := e.wait(e.submit("steps:\n- {id: a, action: probe, with: {do: first}}"+below, nil))
	if run.Status != pipeline.RunCompleted {
		t.Errorf("%s: %v", run.Status, run.Error)
	}
}

// Runs that fill the server do not keep out those that they wait for.
func TestACallNeedsNoRoomForItsRun(t *testing.T) {
	e := calling(t, storetest.Open(t), worker, func(c *executor.Config) { c.Lanes, c.Runs = 1, 1 })
	var ids []pipeline.RunID
	for range 3 {
		ids = append(ids, e.submit("steps:\n- {id: a, action: probe, with: {do: first}}"+below, nil))
	}
	for _, id := range ids {
		if run, _ := e.wait(id); run.Status != pipeline.RunCompleted {
			t.Errorf("%s: %v", run.Status, run.Error)
		}
	}
}

// A run that would wait for the one that waits for it is refused at once.
func TestACallOfItsOwnConcurrencyKeyIsRefused(t *testing.T) {
	const own = "\nsettings: {concurrency: {key: till}}"
	inner := strings.Replace(below, "inputs: {do", "settings: {concurrency: {key: till}}, inputs: {do", 1)
	e := calling(t, storetest.Open(t), worker)
	run, v := e.wait(e.submit("steps:\n- {id: a, action: probe, with: {do: first}}"+inner+own, nil))
	step := v.Step("a")
	if run.Status != pipeline.RunFailed || step.Error == nil || step.Error.Reason != "concurrency_deadlock" || !strings.Contains(step.Error.Message, `"till"`) {
		t.Errorf("%s: %v", run.Status, run.Error)
	}
	for what, def := range map[string]string{"another key": strings.Replace(inner, "key: till", "key: safe", 1) + own, "room for two": strings.Replace(inner, "key: till", "key: till, max: 2", 1) + "\nsettings: {concurrency: {key: till, max: 2}}"} {
		if run, _ := e.wait(e.submit("steps:\n- {id: a, action: probe, with: {do: first}}"+def, nil)); run.Status != pipeline.RunCompleted {
			t.Errorf("%s: %s: %v", what, run.Status, run.Error)
		}
	}
}

func TestAFailedRunIsAFailedCall(t *testing.T) {
	e := calling(t, storetest.Open(t), worker)
	run, _ := e.wait(e.submit("steps:\n- {id: a, action: probe, with: {do: fails}}"+below, nil))
	if run.Status != pipeline.RunFailed || run.Error == nil || run.Error.Reason != "child_run_failed" {
		t.Errorf("%s: %v", run.Status, run.Error)
	}
}

func TestCancellingARunCancelsThoseOfItsCalls(t *testing.T) {
	began := make(chan struct{}, 10)
	e := calling(t, storetest.Open(t), func(ctx context.Context, do string) (any, error) {
		began <- struct{}{}
		return worker(ctx, do)
	})
	id := e.submit("steps:\n- {id: a, action: probe, with: {do: waits}}"+below, nil)
	<-began
	e.send(id, store.MessageCancel, "{}")
	e.status(id, pipeline.RunCancelled)
	page, err := e.store.Runs(t.Context(), store.Query{Parent: id, Limit: 10})
	if err != nil || len(page.Runs) != 1 {
		t.Fatalf("%d children, %v", len(page.Runs), err)
	}
	e.status(page.Runs[0].ID, pipeline.RunCancelled)
}

// A call whose process ends goes on waiting for the same run in the next one.
func TestACallSurvivesItsProcess(t *testing.T) {
	s := storetest.Open(t)
	began, over := make(chan struct{}, 10), errors.New("the process ends")
	first := calling(t, s, func(ctx context.Context, _ string) (any, error) {
		began <- struct{}{}
		<-ctx.Done()
		return nil, over
	})
	id := first.submit("steps:\n- {id: a, action: probe, with: {do: first}}"+below+"\noutputs: {a: '{{ a }}'}", nil)
	<-began
	first.stop()
	second := calling(t, s, worker)
	run, _ := second.wait(id)
	if run.Status != pipeline.RunCompleted {
		t.Fatalf("%s: %v", run.Status, run.Error)
	}
	page, err := s.Runs(t.Context(), store.Query{Parent: id, Limit: 10})
	if err != nil || len(page.Runs) != 1 || page.Runs[0].Status != pipeline.RunCompleted {
		t.Errorf("children: %v, %v", page.Runs, err)
	}
}
