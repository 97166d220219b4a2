package executor_test

import (
	"context"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/orchestrator-project/orchestrator/executor"
	"github.com/orchestrator-project/orchestrator/pipeline"
	"github.com/orchestrator-project/orchestrator/store/storetest"
)

// Deployments are no deaths: a long step may meet many of them.
func TestHandOversAreNotHeldAgainstAStep(t *testing.T) {
	s := storetest.Open(t)
	running := make(chan struct{}, 1)
	var last atomic.Bool
	act := func(ctx context.Context, _ executor.Env, do string) (any, error) {
		if last.Load() {
			return do, nil
		}
		running <- struct{}{}
		<-ctx.Done()
		return nil, ctx.Err()
	}
	shortly := func(c *executor.Config) { c.Grace = 10 * time.Millisecond }
	one := start(t, s, act, shortly)
	id := one.submit("steps:\n- {id: a, action: probe, with: {do: long}}", nil)
	for range 5 {
		<-running
		one.stop()
		one = start(t, s, act, shortly)
	}
	<-running
	last.Store(true)
	one.stop()
	one = start(t, s, act, shortly)
	run, v := one.wait(id)
	if a := v.Step("a"); run.Status != pipeline.RunCompleted || a.Attempt != 7 {
		t.Errorf("the run is %s after %d attempts: %v", run.Status, a.Attempt, run.Error)
	}
	var reasons []string
	for e, err := range s.Events(t.Context(), id, 0) {
		if err != nil {
			t.Fatal(err)
		}
		if e.Type == pipeline.RunResumed {
			reasons = append(reasons, e.Data.Reason)
		}
	}
	if len(reasons) != 6 || slices.ContainsFunc(reasons, func(r string) bool { return r != pipeline.ReasonHandedOver }) {
		t.Errorf("it was resumed because of %q", reasons)
	}
}
