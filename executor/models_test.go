package executor_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/orchestrator-project/orchestrator/executor"
	"github.com/orchestrator-project/orchestrator/executor/model"
	"github.com/orchestrator-project/orchestrator/executor/step"
	"github.com/orchestrator-project/orchestrator/pipeline"
)

// service answers each question with a number that grows, and counts how often it
// was asked. The question at which it hangs is never answered.
type service struct {
	mu    sync.Mutex
	asked map[string]int
	hangs string
	hung  chan struct{} // is closed as soon as it hangs
	once  sync.Once
}

func (s *service) answer(ctx context.Context, r *model.Request) (*model.Response, error) {
	q := r.LastUser()
	s.mu.Lock()
	s.asked[q]++
	n := len(s.asked)
	s.mu.Unlock()
	if q == s.hangs {
		s.once.Do(func() { close(s.hung) })
		<-ctx.Done()
		return nil, context.Cause(ctx)
	}
	return &model.Response{
		Message: model.AssistantText(fmt.Sprintf(`{"prediction": "%d", "confidence": 1}`, n)), Model: "counter",
		Usage: &pipeline.Usage{InputTokens: 1000, OutputTokens: 10},
	}, nil
}

// withModel lets an executor ask a service by a router of its own.
func withModel(s *service) func(*executor.Config) {
	return func(c *executor.Config) {
		price := 0.000001
		r := model.NewRouter(model.Config{
			Registry: &model.Registry{Entries: []*model.Entry{{Name: "m", Provider: model.ProviderOpenAI, BaseURL: "http://m.test", Metrics: model.Metrics{CostPerToken: &price}}}},
			Open:     func(model.Endpoint) (model.Provider, error) { return model.Func(s.answer), nil },
		})
		c.Actions = step.All(step.Config{Model: r})
		c.Grace = 10 * time.Millisecond
	}
}

// A process that dies in the middle of a step has paid for what was answered; the
// next one pays for the rest only.
func TestAnsweredCallsAreNotMadeAgainAfterACrash(t *testing.T) {
	for name, open := range stores {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			st := open(t)
			first := &service{asked: map[string]int{}, hangs: "## row\n3", hung: make(chan struct{})}
			e := start(t, st, troubled, withModel(first))
			id := e.submit("steps:\n- {id: a, action: batch_predict, parameters: {models: [m], data: [1, 2, 3, 4], execution_strategy: sequential}}", nil)
			<-first.hung
			e.stop()

			second := &service{asked: map[string]int{}}
			e = start(t, st, troubled, withModel(second))
			run, v := e.wait(id)
			if run.Status != pipeline.RunCompleted {
				t.Fatal(run.Error)
			}
			if diff := cmp.Diff(map[string]int{"## row\n1": 1, "## row\n2": 1, "## row\n3": 1}, first.asked); diff != "" {
				t.Errorf("the first process: %s", diff)
			}
			if diff := cmp.Diff(map[string]int{"## row\n3": 1, "## row\n4": 1}, second.asked); diff != "" {
				t.Errorf("the second process: %s", diff)
			}
			calls := 0
			for _, ev := range e.log(id) {
				if ev.Type == pipeline.ModelCalled && !ev.Data.Call.Failed {
					calls++
				}
			}
			s := v.Step("a")
			if calls != 4 || s.Attempt != 2 || s.Model != "counter" {
				t.Errorf("%d calls recorded; the step: %+v", calls, s)
			}
			if s.Usage.Calls < 4 || s.Usage.InputTokens < 4000 || run.Usage.CostUSD < 0.00404 || run.Usage.CostUSD > 0.0052 {
				t.Errorf("usage %+v, of the run %+v", s.Usage, run.Usage)
			}
		})
	}
}
