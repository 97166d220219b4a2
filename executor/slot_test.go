package executor_test

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/orchestrator-project/orchestrator/executor"
	"github.com/orchestrator-project/orchestrator/pipeline"
	"github.com/orchestrator-project/orchestrator/store/storetest"
)

// journalled makes the probe an action with a journal.
func journalled(c *executor.Config) {
	for i := range c.Actions {
		if c.Actions[i].Spec.Key == "probe" {
			c.Actions[i].Journal = true
		}
	}
}

// All five wait at once, as for a model, though there is one slot; what they do
// before and after takes it.
func TestStepsThatWaitForAModelTakeNoSlot(t *testing.T) {
	var all sync.WaitGroup
	all.Add(5)
	var busy, most atomic.Int32
	work := func() {
		most.Store(max(most.Load(), busy.Add(1)))
		busy.Add(-1)
	}
	e := start(t, storetest.Open(t), func(ctx context.Context, env executor.Env, _ string) (any, error) {
		work()
		wake := env.Rest(ctx)
		all.Done()
		all.Wait()
		wake()
		work()
		return nil, nil
	}, journalled, func(c *executor.Config) { c.Steps, c.RunSteps = 1, 5 })
	run, _ := e.wait(e.submit("steps:\n- id: l\n  for: {items: [1, 2, 3, 4, 5], parallel: true}\n  steps:\n  - {id: a, action: probe}", nil))
	if run.Status != pipeline.RunCompleted {
		t.Fatal(run.Error)
	}
	if most.Load() != 1 {
		t.Errorf("%d steps worked at once, of 1", most.Load())
	}
}

// One that waits for a slot again, because another step has taken it meanwhile, can be
// cancelled; the slots are right afterwards.
func TestAStepThatWaitsToGoOnCanBeCancelled(t *testing.T) {
	taken, rested := make(chan struct{}), make(chan struct{})
	again := make(chan struct{})
	e := start(t, storetest.Open(t), func(ctx context.Context, env executor.Env, do string) (any, error) {
		switch do {
		case "rest":
			wake := env.Rest(ctx)
			close(rested)
			<-taken
			wake()
			close(again)
			return nil, context.Cause(ctx)
		case "take":
			<-rested
			close(taken)
			<-again
		}
		return nil, nil
	}, journalled, func(c *executor.Config) { c.Steps = 1 })
	first := e.submit("steps:\n- {id: a, action: probe, with: {do: rest}}", nil)
	<-rested
	second := e.submit("steps:\n- {id: a, action: probe, with: {do: take}}", nil)
	<-taken
	e.send(first, "cancel", "")
	if run, _ := e.wait(first); run.Status != pipeline.RunCancelled {
		t.Errorf("%s: %v", run.Status, run.Error)
	}
	if run, _ := e.wait(second); run.Status != pipeline.RunCompleted {
		t.Errorf("%s: %v", run.Status, run.Error)
	}
	if run, _ := e.wait(e.submit("steps:\n- {id: a, action: probe}\n- {id: b, action: probe}", nil)); run.Status != pipeline.RunCompleted {
		t.Errorf("%s: %v", run.Status, run.Error)
	}
}
