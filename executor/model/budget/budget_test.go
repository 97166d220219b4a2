package budget

import (
	"context"
	"errors"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/orchestrator-project/orchestrator/executor"
	"github.com/orchestrator-project/orchestrator/executor/model"
	"github.com/orchestrator-project/orchestrator/pipeline"
)

func settings(b pipeline.Budget) *pipeline.Settings { return &pipeline.Settings{Budget: &b} }

// asked is the journal of a later attempt, after a budget's question.
func asked(t *testing.T, err error, d *pipeline.Decision) *executor.Journal {
	t.Helper()
	s, ok := errors.AsType[*executor.Suspension](err)
	if !ok || len(s.Asks) != 1 || s.Reason != pipeline.ReasonBudget {
		t.Fatalf("got %v", err)
	}
	q := s.Asks[0]
	call := q.Call
	call.State, call.Approval = pipeline.InvocationAsked, q.Approval.ID
	past := []pipeline.Event{{Seq: 5, Type: q.Type, Path: "s", Data: pipeline.Data{Call: &call}}}
	if d != nil {
		d.Approval = q.Approval.ID
		past = append(past, pipeline.Event{Seq: 6, Type: pipeline.ApprovalIsDecided, Path: "s", Data: pipeline.Data{Decision: d}})
	}
	return executor.NewJournal(past, nil)
}

func TestRunStopsAtItsBudgetAndGoesOnAfterARaise(t *testing.T) {
	e := model.Estimate{Model: "m", InputTokens: 40, OutputTokens: 60}
	for _, c := range []struct {
		name     string
		decision *pipeline.Decision
		want     string // of the next attempt
	}{
		{"as much again", &pipeline.Decision{Decision: "approve", Actor: "ada"}, ""},
		{"by enough", &pipeline.Decision{Decision: "approve", Actor: "ada", Value: map[string]any{"tokens": int64(50)}}, ""},
		{"by too little", &pipeline.Decision{Decision: "approve", Actor: "ada", Value: map[string]any{"tokens": 49.0}}, "the step waits for people"},
		{"not at all", &pipeline.Decision{Decision: "reject", Actor: "ada", Comment: "enough"}, "ada has not raised it: enough"},
		{"nobody has decided", nil, "the step waits for people"},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := New(Config{})
			tenure := executor.NewTenure(settings(pipeline.Budget{Tokens: 150}), pipeline.Usage{InputTokens: 60, OutputTokens: 40}, nil)
			env := executor.Env{Run: "run", Path: "s", Attempt: 1, Tenure: tenure, Journal: executor.NewJournal(nil, nil)}
			_, err := p.Reserve(t.Context(), env, e)
			journal := asked(t, err, c.decision)
			if _, again := p.Reserve(t.Context(), env, e); !errors.Is(again, err) {
				t.Errorf("a second call of the attempt asks again: %v", again)
			}
			past := journal.Events()
			for name, env := range map[string]executor.Env{
				"here": {Run: "run", Path: "s", Attempt: 2, Tenure: tenure, Journal: journal},
				"elsewhere": {Run: "run", Path: "other", Attempt: 1, Journal: executor.NewJournal(nil, nil), Tenure: executor.NewTenure(
					tenure.Settings, tenure.Usage, func(_ context.Context, each func(pipeline.Event)) error {
						for _, e := range past {
							each(e)
						}
						return nil
					})},
			} {
				r, err := p.Reserve(t.Context(), env, e)
				switch {
				case c.want == "" && err != nil:
					t.Errorf("%s: %v", name, err)
				case c.want != "" && name == "here" && (err == nil || !strings.Contains(err.Error(), c.want)):
					t.Errorf("%s: got %v, want %s", name, err, c.want)
				case c.want != "" && err == nil:
					t.Errorf("%s: it goes on", name)
				}
				if r != nil {
					r.Release()
				}
			}
		})
	}
}

func TestQuestionSaysWhatIsSpent(t *testing.T) {
	p := New(Config{Run: pipeline.Budget{USD: 0.5, Calls: 9}})
	env := executor.Env{Run: "run", Path: "s", Attempt: 1, Journal: executor.NewJournal(nil, nil), Tenure: executor.NewTenure(nil, pipeline.Usage{CostUSD: 0.4, Calls: 3}, nil)}
	_, err := p.Reserve(t.Context(), env, model.Estimate{Model: "fable", USD: 0.25, Priced: true})
	s, ok := errors.AsType[*executor.Suspension](err)
	if !ok || s.Asks[0].Approval.Kind != pipeline.ApprovalBudget ||
		s.Asks[0].Approval.Question != "The budget of the run, 0.5 USD, does not hold the next call of fable, which may take 0.25 USD. Raise it, and the step goes on?" {
		t.Fatalf("got %+v", s)
	}
	env.Journal = nil
	if _, err := p.Reserve(t.Context(), env, model.Estimate{Model: "fable", USD: 0.25}); !refused(err) {
		t.Errorf("a step that cannot wait: %v", err)
	}
}

func TestConcurrentCallsOfARunFitTogether(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const most = 1000
		p := New(Config{Run: pipeline.Budget{Tokens: most}})
		env := executor.Env{Run: "run", Path: "s", Tenure: executor.NewTenure(nil, pipeline.Usage{}, nil)}
		spent, held := int64(0), map[int]struct {
			r    model.Reservation
			need int64
		}{}
		for i := range rapid.IntRange(1, 60).Draw(t, "calls") {
			need := rapid.Int64Range(1, 300).Draw(t, "need")
			sum := spent + need
			for _, h := range held {
				sum += h.need
			}
			r, err := p.Reserve(context.Background(), env, model.Estimate{InputTokens: need})
			if (err == nil) != (sum <= most) {
				t.Fatalf("%d of %d: %v", sum, most, err)
			}
			if err == nil {
				held[i] = struct {
					r    model.Reservation
					need int64
				}{r, need}
			}
			if old, ok := held[rapid.IntRange(0, i).Draw(t, "ends")]; ok && rapid.Bool().Draw(t, "end") {
				for k, h := range held {
					if h == old {
						delete(held, k)
					}
				}
				used := rapid.Int64Range(0, old.need).Draw(t, "used")
				old.r.Settle(pipeline.Usage{InputTokens: int32(used)})
				old.r.Release() // counts for nothing
				spent += used
			}
		}
	})
}
