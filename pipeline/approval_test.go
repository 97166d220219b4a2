package pipeline_test

import (
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/orchestrator-project/orchestrator/pipeline"
)

func TestApprovalsAreDecided(t *testing.T) {
	say := func(actor, decision string, value any) pipeline.Decision {
		return pipeline.Decision{Actor: actor, Decision: decision, Value: value, At: time.Unix(9, 0).UTC()}
	}
	for _, c := range []struct {
		name      string
		approval  pipeline.Approval
		decisions []pipeline.Decision
		want      pipeline.ApprovalStatus
		kind      pipeline.ErrorKind // of the last decision's error, where reason is set
		reason    string
	}{
		{"approved", pipeline.Approval{Kind: pipeline.ApprovalApprove}, []pipeline.Decision{say("ann", "approve", nil)}, pipeline.ApprovalDecided, 0, ""},
		{"rejected", pipeline.Approval{Kind: pipeline.ApprovalTool, Quorum: 3}, []pipeline.Decision{say("ann", "reject", nil)}, pipeline.ApprovalDecided, 0, ""},
		{"answered", pipeline.Approval{Kind: pipeline.ApprovalAsk}, []pipeline.Decision{say("ann", "answer", "x")}, pipeline.ApprovalDecided, 0, ""},
		{"one of the choices", pipeline.Approval{Kind: pipeline.ApprovalAsk, Choices: []any{int64(1), "b"}}, []pipeline.Decision{say("ann", "answer", int64(1))}, pipeline.ApprovalDecided, 0, ""},
		{"none of the choices", pipeline.Approval{Kind: pipeline.ApprovalAsk, Choices: []any{int64(1), "b"}}, []pipeline.Decision{say("ann", "answer", "1")}, pipeline.ApprovalOpen, pipeline.Invalid, "wrong_answer"},
		{"a word of another kind", pipeline.Approval{Kind: pipeline.ApprovalAsk}, []pipeline.Decision{say("ann", "approve", nil)}, pipeline.ApprovalOpen, pipeline.Invalid, "wrong_decision"},
		{"done with a value", pipeline.Approval{Kind: pipeline.ApprovalDecide}, []pipeline.Decision{say("ann", "done", "v")}, pipeline.ApprovalDecided, 0, ""},
		{"somebody else", pipeline.Approval{Kind: pipeline.ApprovalBudget, Assignees: []string{"ann", "bob"}}, []pipeline.Decision{say("eve", "approve", nil)}, pipeline.ApprovalOpen, pipeline.Denied, "not_asked"},
		{"the quorum is not there yet", pipeline.Approval{Kind: pipeline.ApprovalApprove, Quorum: 2}, []pipeline.Decision{say("ann", "approve", nil)}, pipeline.ApprovalOpen, 0, ""},
		{"the quorum", pipeline.Approval{Kind: pipeline.ApprovalApprove, Quorum: 2}, []pipeline.Decision{say("ann", "approve", nil), say("bob", "approve", nil)}, pipeline.ApprovalDecided, 0, ""},
		{"the same person twice", pipeline.Approval{Kind: pipeline.ApprovalApprove, Quorum: 2}, []pipeline.Decision{say("ann", "approve", nil), say("ann", "approve", nil)}, pipeline.ApprovalOpen, pipeline.Conflict, "already_decided"},
		{
			"answers that differ make no quorum",
			pipeline.Approval{Kind: pipeline.ApprovalAsk, Quorum: 2},
			[]pipeline.Decision{say("ann", "answer", "x"), say("bob", "answer", "y")},
			pipeline.ApprovalOpen, 0, "",
		},
		{
			"answers of which enough are equal",
			pipeline.Approval{Kind: pipeline.ApprovalAsk, Quorum: 2},
			[]pipeline.Decision{say("ann", "answer", "x"), say("bob", "answer", "y"), say("cid", "answer", "x")},
			pipeline.ApprovalDecided, 0, "",
		},
		{"too late", pipeline.Approval{Kind: pipeline.ApprovalApprove}, []pipeline.Decision{say("ann", "approve", nil), say("bob", "reject", nil)}, pipeline.ApprovalDecided, pipeline.Conflict, "already_decided"},
		{"withdrawn", pipeline.Approval{Kind: pipeline.ApprovalApprove, Status: pipeline.ApprovalWithdrawn}, []pipeline.Decision{say("ann", "approve", nil)}, pipeline.ApprovalWithdrawn, pipeline.Conflict, "already_decided"},
		{"its deadline rejects", pipeline.Approval{Kind: pipeline.ApprovalApprove, Assignees: []string{"ann"}}, []pipeline.Decision{say(pipeline.DeadlineActor, "reject", nil)}, pipeline.ApprovalExpired, 0, ""},
		{"its deadline answers", pipeline.Approval{Kind: pipeline.ApprovalAsk, Quorum: 2}, []pipeline.Decision{say(pipeline.DeadlineActor, "answer", "d")}, pipeline.ApprovalExpired, 0, ""},
		{"its deadline fails it", pipeline.Approval{Kind: pipeline.ApprovalAsk}, []pipeline.Decision{say(pipeline.DeadlineActor, "fail", nil)}, pipeline.ApprovalExpired, 0, ""},
		{"nobody else fails it", pipeline.Approval{Kind: pipeline.ApprovalAsk}, []pipeline.Decision{say("ann", "fail", nil)}, pipeline.ApprovalOpen, pipeline.Invalid, "wrong_decision"},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := c.approval
			a.ID = "a1"
			if a.Status == "" {
				a.Status = pipeline.ApprovalOpen
			}
			var settled bool
			var err error
			for _, d := range c.decisions {
				settled, err = a.Decide(d)
			}
			if a.Status != c.want {
				t.Errorf("it is %s, want %s", a.Status, c.want)
			}
			if c.reason != "" {
				e, ok := errors.AsType[*pipeline.Error](err)
				if !ok || e.Kind != c.kind || e.Reason != c.reason || settled {
					t.Errorf("%v, settled: %v", err, settled)
				}
				return
			}
			if err != nil || settled != (c.want != pipeline.ApprovalOpen) {
				t.Errorf("settled: %v, %v", settled, err)
			}
			if settled && !a.DecidedAt.Equal(time.Unix(9, 0)) || a.Decisions[0].Approval != "a1" || len(a.Decisions) != len(c.decisions) {
				t.Errorf("it holds %+v", a)
			}
		})
	}
}

func TestDecisionsSurviveTheirCodec(t *testing.T) {
	for _, d := range []pipeline.Decision{
		{Approval: "a", Decision: "approve", Actor: "ann", At: time.Unix(5, 7).UTC()},
		{Approval: "a", Decision: "answer", Value: map[string]any{"n": int64(1), "f": 2.0}, Comment: "why \"not\"", Actor: pipeline.DeadlineActor, At: time.Unix(5, 0).UTC()},
	} {
		got, err := pipeline.DecodeDecision(pipeline.AppendDecision(nil, &d))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(&d, got); diff != "" {
			t.Error(diff)
		}
	}
	for _, text := range []string{``, `3`, `{}`, `{"at": "yesterday"}`} {
		if _, err := pipeline.DecodeDecision([]byte(text)); err == nil {
			t.Errorf("%q is read as a decision", text)
		}
	}
}
