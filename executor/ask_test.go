package executor_test

import (
	"context"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/orchestrator-project/orchestrator/executor"
	"github.com/orchestrator-project/orchestrator/pipeline"
	"github.com/orchestrator-project/orchestrator/store"
	"github.com/orchestrator-project/orchestrator/store/storetest"
)

func (e *engine) decide(a *pipeline.Approval, decision string, value any, actor string) {
	e.t.Helper()
	_, err := e.store.Decide(context.Background(), a.ID, pipeline.Decision{Decision: decision, Value: value, Actor: actor, Comment: "because"})
	if err != nil {
		e.t.Fatalf("decide: %v", err)
	}
}

func TestQuestions(t *testing.T) {
	for name, open := range stores {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := open(t)
			e := start(t, s, troubled, unpolled)
			tests := []struct {
				name, src       string
				decision, actor string
				value           any
				want            pipeline.Approval
				status          pipeline.RunStatus
				outputs         map[string]any
				reason          string
			}{
				{
					name:     "an answer",
					src:      "inputs: {n: {type: integer, default: 2}}\nsteps:\n- {id: q, ask: {question: 'Which of {{ n }}?', choices: [a, b], default: b, assignees: [ann, bob]}, state: {s: '{{ q }}!'}}\noutputs: {q: '{{ q }}', s: '{{ s }}'}",
					decision: "answer", value: "a", actor: "ann",
					want:   pipeline.Approval{Kind: pipeline.ApprovalAsk, Question: "Which of 2?", Choices: []any{"a", "b"}, Default: "b", Assignees: []string{"ann", "bob"}, OnTimeout: "default"},
					status: pipeline.RunCompleted, outputs: map[string]any{"q": "a", "s": "a!"},
				},
				{
					name: "approved", src: "steps:\n- {id: q, approve: 'Ship it?'}\noutputs: {q: '{{ q }}'}", decision: "approve", actor: "ann",
					want:   pipeline.Approval{Kind: pipeline.ApprovalApprove, Question: "Ship it?", OnTimeout: "reject"},
					status: pipeline.RunCompleted, outputs: map[string]any{"q": "approve"},
				},
				{
					name: "rejected", src: "steps:\n- {id: q, approve: 'Ship it?'}", decision: "reject", actor: "ann",
					want:   pipeline.Approval{Kind: pipeline.ApprovalApprove, Question: "Ship it?", OnTimeout: "reject"},
					status: pipeline.RunFailed, reason: "rejected",
				},
				{
					name: "rejected, and the run goes on", src: "steps:\n- {id: q, approve: 'Ship it?', on_failure: skip}\n- {id: a, action: probe, needs: q, with: {do: on}}\noutputs: {a: '{{ a }}'}", decision: "reject", actor: "ann",
					want:   pipeline.Approval{Kind: pipeline.ApprovalApprove, Question: "Ship it?", OnTimeout: "reject"},
					status: pipeline.RunCompleted, outputs: map[string]any{"a": "on"},
				},
			}
			for _, tt := range tests {
				t.Run(tt.name, func(t *testing.T) {
					e := &engine{Executor: e.Executor, t: t, store: e.store}
					id := e.submit(tt.src, nil)
					a := e.approval(id)
					if run := e.status(id, pipeline.RunWaiting); run.Reason != "approval" {
						t.Errorf("it waits for %q", run.Reason)
					}
					tt.want.ID, tt.want.Run, tt.want.Path, tt.want.Status, tt.want.CreatedAt = a.ID, id, "q", pipeline.ApprovalOpen, a.CreatedAt
					tt.want.Pipeline = "test"
					if diff := cmp.Diff(&tt.want, a); diff != "" {
						t.Errorf("it asks: %s", diff)
					}
					e.decide(a, tt.decision, tt.value, tt.actor)
					run, _ := e.wait(id)
					if run.Status != tt.status || tt.reason != "" && run.Error.Reason != tt.reason {
						t.Errorf("%s %v", run.Status, run.Error)
					}
					if diff := cmp.Diff(tt.outputs, run.Outputs); tt.outputs != nil && diff != "" {
						t.Errorf("outputs: %s", diff)
					}
				})
			}
		})
	}
}

// A deadline decides as the pipeline says, of a parked run too.
func TestDeadlinesDecide(t *testing.T) {
	for name, open := range stores {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := open(t)
			e := start(t, s, troubled, unpolled)
			tests := []struct {
				src    string
				status pipeline.RunStatus
				output any
			}{
				{"steps:\n- {id: q, ask: {question: q, default: 7, deadline: 2.1}}\noutputs: {q: '{{ q }}'}", pipeline.RunCompleted, int64(7)},
				{"steps:\n- {id: q, ask: {question: q, default: 7, deadline: 0.05, on_timeout: fail}}\noutputs: {q: '{{ q }}'}", pipeline.RunFailed, nil},
				{"steps:\n- {id: q, approve: {question: q, deadline: 0.05}, on_failure: continue}\n- {id: a, action: probe, needs: q}\noutputs: {q: '{{ q }}'}", pipeline.RunFailed, nil},
				{"steps:\n- {id: q, approve: {question: q, deadline: 0.05, on_timeout: approve}}\noutputs: {q: '{{ q }}'}", pipeline.RunCompleted, "approve"},
			}
			ids := make([]pipeline.RunID, len(tests))
			for i := range tests {
				ids[i] = e.submit(tests[i].src, nil)
			}
			for i, tt := range tests {
				run, _ := e.wait(ids[i])
				if run.Status != tt.status || run.Outputs["q"] != tt.output {
					t.Errorf("%s: %s %v %v", tt.src, run.Status, run.Outputs, run.Error)
				}
				page, err := s.Approvals(t.Context(), store.ApprovalQuery{Run: ids[i], Limit: 10})
				if err != nil || len(page.Approvals) != 1 || page.Approvals[0].Status != pipeline.ApprovalExpired {
					t.Errorf("%s: approvals %+v, %v", tt.src, page.Approvals, err)
				}
			}
		})
	}
}

// A question whose step is given up is withdrawn, and a decision that comes too
// late changes nothing.
func TestQuestionsAreWithdrawn(t *testing.T) {
	for name, open := range stores {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := open(t)
			hold := make(chan struct{})
			e := start(t, s, func(ctx context.Context, _ executor.Env, do string) (any, error) {
				if do == "fail" {
					return nil, pipeline.Failuref(pipeline.CategoryTool, "told to fail")
				}
				select {
				case <-hold:
				case <-ctx.Done():
				}
				return do, nil
			})
			id := e.submit("steps:\n- {id: q, ask: {question: q}}\n- {id: a, action: probe, with: {do: fail}, needs: w}\n- {id: w, wait: {signal: now}}\nfinally:\n- {id: tidy, action: probe}", nil)
			a := e.approval(id)
			e.status(id, pipeline.RunWaiting)
			e.signal(id, "now", nil)
			e.await("the question to be withdrawn", func() bool {
				got, err := s.Approval(context.Background(), a.ID)
				if err != nil {
					t.Fatal(err)
				}
				return got.Status == pipeline.ApprovalWithdrawn
			})
			_, err := s.Decide(context.Background(), a.ID, pipeline.Decision{Decision: "answer", Actor: "ann", At: time.Now()})
			if pipeline.KindOf(err) != pipeline.Conflict {
				t.Errorf("deciding it then: %v", err)
			}
			close(hold)
			run, v := e.wait(id)
			if run.Status != pipeline.RunFailed || v.Step("q").Status != pipeline.StepSkipped || v.Step("tidy").Status != pipeline.StepCompleted {
				t.Errorf("%s, the question %s, finally %s", run.Status, v.Step("q").Status, v.Step("tidy").Status)
			}
		})
	}
}

func TestQuestionThatCannotBeAsked(t *testing.T) {
	e := start(t, storetest.Open(t), troubled)
	for _, src := range []string{
		"inputs: {q: {type: any, default: null}}\nsteps:\n- {id: a, ask: {question: '{{ q }}'}}",
		"inputs: {q: {type: any, default: 3}}\nsteps:\n- {id: a, ask: {question: q, choices: '{{ q }}'}}",
		"inputs: {q: {type: any, default: [1]}}\nsteps:\n- {id: a, ask: {question: q, assignees: '{{ q }}'}}",
	} {
		if run, _ := e.wait(e.submit(src, nil)); run.Status != pipeline.RunFailed || run.Error.Kind != pipeline.CategoryValidation {
			t.Errorf("%s: %s %v", src, run.Status, run.Error)
		}
	}
}
