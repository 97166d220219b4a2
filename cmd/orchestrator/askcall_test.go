package main

import (
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	api "github.com/orchestrator-project/orchestrator/proto/orchestrator/v1"
)

func TestWhatIsTypedAboutACall(t *testing.T) {
	a := &api.Approval{Id: "x", Kind: "tool", Default: `{"amount":120}`, Allowed: []string{"approve", "reject", "answer"}}
	tests := []struct {
		line    string
		editing bool
		want    *api.DecideApprovalRequest // nil: none
		problem string
	}{
		{line: "a", want: &api.DecideApprovalRequest{Decision: "approve"}},
		{line: "y fine with me", want: &api.DecideApprovalRequest{Decision: "approve", Comment: "fine with me"}},
		{line: "R  too much", want: &api.DecideApprovalRequest{Decision: "reject", Comment: "too much"}},
		{line: "n", want: &api.DecideApprovalRequest{Decision: "reject"}},
		{line: "t", want: &api.DecideApprovalRequest{Decision: "approve", Remember: true}},
		{line: "e"},
		{line: `e {"amount": 20}`, want: &api.DecideApprovalRequest{Decision: "approve", Value: `{"amount": 20}`}},
		{line: `{"amount": 20}`, editing: true, want: &api.DecideApprovalRequest{Decision: "approve", Value: `{"amount": 20}`}},
		{line: "", editing: true, want: &api.DecideApprovalRequest{Decision: "approve", Value: `{"amount":120}`}},
		{line: "20", editing: true, problem: "JSON object"},
		{line: "e {amount", problem: "JSON object"},
		{line: "", problem: "a to approve"},
		{line: "maybe", problem: "a to approve"},
	}
	for _, tt := range tests {
		got, problem := callReply(a, tt.line, tt.editing)
		if tt.want != nil {
			tt.want.Id = "x"
		}
		if !proto.Equal(got, tt.want) || (problem == "") != (tt.problem == "") || !strings.Contains(problem, tt.problem) {
			t.Errorf("%q (%v) means %v, %q; want %v", tt.line, tt.editing, got, problem, tt.want)
		}
	}
	for editing, want := range map[bool]string{false: "[e]dit", true: `{"amount":120}`} {
		if p := callPrompt(a, editing); !strings.Contains(p, want) {
			t.Errorf("the prompt is %q", p)
		}
	}
}
