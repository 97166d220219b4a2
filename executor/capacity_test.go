package executor_test

import (
	"context"
	"strings"
	"sync"
	"testing"

	"github.com/orchestrator-project/orchestrator/executor"
	"github.com/orchestrator-project/orchestrator/pipeline"
	"github.com/orchestrator-project/orchestrator/store/storetest"
)

func TestStepsThatNeedAnotherWorker(t *testing.T) {
	e := start(t, storetest.Open(t), troubled, func(c *executor.Config) {
		c.Labels = []string{"arm", "big"}
		c.Resources = pipeline.Resources{CPU: 2, MemoryGB: 4}
	})
	for step, says := range map[string]string{
		"worker: [arm, big], resources: {cpu: 2}": "",
		"resources: {cpu: 2.5}":                   "asks for 2.5 cpu; this worker has 2",
		"resources: {memory_gb: 64}":              "asks for 64 GB of memory; this worker has 4",
		"resources: {gpu: 1}":                     "asks for 1 gpu; this worker has 0",
	} {
		run, _ := e.wait(e.submit("steps:\n- {id: a, action: probe, "+step+"}", nil))
		switch {
		case says == "" && run.Status != pipeline.RunCompleted:
			t.Errorf("%s: %v", step, run.Error)
		case says != "" && (run.Error == nil || run.Error.Kind != pipeline.CategoryResource || !strings.Contains(run.Error.Message, says)):
			t.Errorf("%s: %+v", step, run.Error)
		}
	}
}

// Steps share what they say they take, and one that waits for it can be cancelled.
func TestResourcesAreShared(t *testing.T) {
	var mu sync.Mutex
	used, most := 0.0, 0.0
	weight := map[string]float64{"small": 1, "large": 3}
	e := start(t, storetest.Open(t), func(_ context.Context, _ executor.Env, do string) (any, error) {
		mu.Lock()
		used += weight[do]
		most = max(most, used)
		mu.Unlock()
		defer func() {
			mu.Lock()
			used -= weight[do]
			mu.Unlock()
		}()
		return do, nil
	}, func(c *executor.Config) { c.Resources = pipeline.Resources{CPU: 3} })
	run, _ := e.wait(e.submit("steps:\n- id: l\n  for: {items: '{{ range(40) | list }}', parallel: true}\n  steps:\n  - {id: a, action: probe, with: {do: small}, resources: {cpu: 1}}\n  - {id: b, action: probe, with: {do: large}, resources: {cpu: 3}}", nil))
	if run.Status != pipeline.RunCompleted {
		t.Fatal(run.Error)
	}
	if most > 3 {
		t.Errorf("steps took %v of 3", most)
	}
}

func TestAStepThatWaitsForResourcesCanBeCancelled(t *testing.T) {
	begun := make(chan struct{}, 2)
	e := start(t, storetest.Open(t), func(ctx context.Context, _ executor.Env, _ string) (any, error) {
		begun <- struct{}{}
		<-ctx.Done()
		return nil, ctx.Err()
	}, func(c *executor.Config) { c.Resources = pipeline.Resources{CPU: 1} })
	id := e.submit("steps:\n- {id: a, action: probe, resources: {cpu: 1}}\n- {id: b, action: probe, resources: {cpu: 1}}", nil)
	<-begun
	e.send(id, "cancel", "")
	run, v := e.wait(id)
	if run.Status != pipeline.RunCancelled || v.Step("a").Status != pipeline.StepCancelled || v.Step("b").Status != pipeline.StepCancelled {
		t.Errorf("%s: a %s, b %s", run.Status, v.Step("a").Status, v.Step("b").Status)
	}
	if len(begun) > 0 {
		t.Error("both have begun")
	}
}
