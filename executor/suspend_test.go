package executor_test

import (
	"context"
	"testing"

	"github.com/orchestrator-project/orchestrator/executor"
	"github.com/orchestrator-project/orchestrator/pipeline"
)

// penniless is work that asks for a raise of its budget, once.
type penniless struct{}

func (penniless) Run(_ context.Context, env executor.Env) (executor.Output, error) {
	s := &executor.Suspension{Reason: pipeline.ReasonBudget}
	for _, e := range env.Journal.Events() {
		if c := e.Data.Call; c != nil && c.State == pipeline.InvocationAsked {
			s.Open = append(s.Open, c.Approval)
		}
	}
	if s.Open == nil {
		s.Asks = []executor.Asked{{
			Approval: &pipeline.Approval{ID: pipeline.NewApprovalID(), Kind: pipeline.ApprovalBudget, Question: "More?"},
			Type:     pipeline.ModelCalled, Call: pipeline.Invocation{N: env.Journal.Next()},
		}}
	}
	return executor.Output{}, s
}

// A run that lies there for a budget or for people is cancelled, here and by
// whoever takes it up again, and its questions are withdrawn.
func TestCancelEndsARunThatWasLaidDown(t *testing.T) {
	const src = "agents: {a: {model: m}}\nsteps:\n- {id: l, for: {items: [1]}, steps: [{id: s, agent: a, prompt: x}]}"
	for dialect, open := range stores {
		t.Run(dialect, func(t *testing.T) {
			e := start(t, open(t), troubled, func(c *executor.Config) {
				c.Agent = executor.Action{
					Spec: pipeline.ActionSpec{Key: pipeline.AgentAction, Effect: pipeline.EffectAtLeastOnce}, Journal: true,
					Bind: func(map[string]any) (executor.Runner, error) { return penniless{}, nil },
				}
			})
			id := e.submit(src, nil)
			a := e.spent(id)
			e.send(id, "cancel", "")
			if run, _ := e.wait(id); run.Status != pipeline.RunCancelled {
				t.Errorf("the run is %s, %v", run.Status, run.Error)
			}
			if now, err := e.store.Approval(t.Context(), a.ID); err != nil || now.Status == pipeline.ApprovalOpen {
				t.Errorf("the question is %v, %v", now, err)
			}
		})
	}
}
