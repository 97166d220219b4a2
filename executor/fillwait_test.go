package executor_test

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/orchestrator-project/orchestrator/executor"
	"github.com/orchestrator-project/orchestrator/pipeline"
	"github.com/orchestrator-project/orchestrator/store"
)

// thrifty fills in tags once people have raised the budget, as a model behind a
// purse does: it asks them once, and looks for their decision in the journal.
type thrifty struct {
	value       any
	asked, paid atomic.Int32
}

func (f *thrifty) Fill(_ context.Context, env executor.Env, q executor.Question) (pipeline.Answer, error) {
	var open []pipeline.ApprovalID
	for _, e := range env.Journal.Events() {
		c := e.Data.Call
		if c == nil || c.State != pipeline.InvocationAsked {
			continue
		}
		d := env.Journal.Decision(c.Approval)
		switch {
		case d == nil:
			open = append(open, c.Approval)
		case d.Decision != "approve":
			return pipeline.Answer{}, pipeline.Failuref(pipeline.CategoryResource, "the budget is spent")
		default:
			f.paid.Add(1)
			return pipeline.Answer{Key: q.Tag.Key, Value: f.value, Model: "oracle"}, nil
		}
	}
	if len(open) > 0 {
		return pipeline.Answer{}, &executor.Suspension{Reason: pipeline.ReasonBudget, Open: open}
	}
	f.asked.Add(1)
	a := &pipeline.Approval{ID: pipeline.NewApprovalID(), Kind: pipeline.ApprovalBudget, Question: "More?"}
	return pipeline.Answer{}, &executor.Suspension{Reason: pipeline.ReasonBudget, Asks: []executor.Asked{{
		Approval: a, Type: pipeline.ModelCalled, Call: pipeline.Invocation{N: env.Journal.Next(), Param: q.Tag.Key},
	}}}
}

// spent waits until the run lies there for its budget, and gives what is asked.
func (e *engine) spent(id pipeline.RunID) *pipeline.Approval {
	e.t.Helper()
	e.await("the run to be parked", func() bool {
		run, err := e.store.Run(context.Background(), id)
		return err == nil && run.Status == pipeline.RunWaiting && run.Reason == pipeline.ReasonBudget
	})
	page, err := e.store.Approvals(context.Background(), store.ApprovalQuery{Run: id, Status: pipeline.ApprovalOpen, Limit: 10})
	if err != nil || len(page.Approvals) != 1 {
		e.t.Fatalf("open are %v, %v", page.Approvals, err)
	}
	return page.Approvals[0]
}

func TestTagThatExceedsABudgetParksTheRun(t *testing.T) {
	const (
		one   = "steps:\n- {id: a, action: debug, with: {value: '<AUTO>x</AUTO>'}}\noutputs: {v: '{{ a.value }}'}"
		loop  = "steps:\n- {id: l, while: {condition: '<AUTO>go on?</AUTO>', max_iterations: 3}, steps: [{id: a, action: debug, with: {value: 1}}]}"
		other = "steps:\n- {id: a, action: debug, with: {value: '<AUTO fallback=\"none\">x</AUTO>'}}\noutputs: {v: '{{ a.value }}'}"
	)
	for name, c := range map[string]struct {
		src, decision string
		answer        any
		restart       bool
		status        pipeline.RunStatus
		output        any
		paid          int32
	}{
		"a raise":                          {one, "approve", "X", false, pipeline.RunCompleted, "X", 1},
		"a raise for another process":      {one, "approve", "X", true, pipeline.RunCompleted, "X", 1},
		"no raise":                         {one, "reject", "X", false, pipeline.RunFailed, nil, 0},
		"no raise, and a fallback":         {other, "reject", "X", true, pipeline.RunCompleted, "none", 0},
		"in the pass of a loop":            {loop, "approve", false, false, pipeline.RunCompleted, nil, 1},
		"in the pass of a loop, restarted": {loop, "approve", false, true, pipeline.RunCompleted, nil, 1},
	} {
		for dialect, open := range stores {
			t.Run(name+"/"+dialect, func(t *testing.T) {
				t.Parallel()
				s := open(t)
				f := &thrifty{value: c.answer}
				with := func(cfg *executor.Config) { cfg.Filler = f }
				e := start(t, s, troubled, with)
				id := e.submit(c.src, nil)
				a := e.spent(id)
				if c.restart {
					e.stop()
					e = start(t, s, troubled, with)
				}
				e.decide(a, c.decision, nil, "ada")
				run, _ := e.wait(id)
				if run.Status != c.status || run.Outputs["v"] != c.output || f.asked.Load() != 1 || f.paid.Load() != c.paid {
					t.Errorf("%s %v %v, asked %d times, paid %d", run.Status, run.Outputs, run.Error, f.asked.Load(), f.paid.Load())
				}
				if c.status == pipeline.RunFailed && !strings.Contains(run.Error.Message, "budget") {
					t.Errorf("it failed for %v", run.Error)
				}
			})
		}
	}
}

func TestCancelEndsTheWaitOfATag(t *testing.T) {
	for dialect, open := range stores {
		t.Run(dialect, func(t *testing.T) {
			e := start(t, open(t), troubled, func(cfg *executor.Config) { cfg.Filler = &thrifty{} })
			id := e.submit("steps:\n- {id: a, action: debug, with: {value: '<AUTO>x</AUTO>'}}", nil)
			a := e.spent(id)
			e.send(id, "cancel", "")
			if run, _ := e.wait(id); run.Status != pipeline.RunCancelled {
				t.Errorf("the run is %s, %v", run.Status, run.Error)
			}
			e.await("the question to be withdrawn", func() bool {
				now, err := e.store.Approval(context.Background(), a.ID)
				return err == nil && now.Status != pipeline.ApprovalOpen
			})
		})
	}
}
