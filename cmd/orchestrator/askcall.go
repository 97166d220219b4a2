package main

import (
	"strings"

	"github.com/orchestrator-project/orchestrator/pipeline"
	api "github.com/orchestrator-project/orchestrator/proto/orchestrator/v1"
)

// aboutCall reports whether an approval is about a call that an agent wants to make.
func aboutCall(a *api.Approval) bool { return a.GetKind() == string(pipeline.ApprovalTool) }

// callPrompt says what may be typed about a call. editing: its arguments are to
// be typed.
func callPrompt(a *api.Approval, editing bool) string {
	if editing {
		return "arguments as JSON [" + plainText(a.GetDefault()) + "]:"
	}
	return "[a]pprove, [r]eject, [e]dit its arguments, approve all of this [t]ool:"
}

// callReply is the decision about a call that a typed line means, or why it means
// none. A nil request without a problem: the arguments are to be typed.
func callReply(a *api.Approval, line string, editing bool) (req *api.DecideApprovalRequest, problem string) {
	req = &api.DecideApprovalRequest{Id: a.GetId(), Decision: "approve"}
	word, rest, _ := strings.Cut(line, " ")
	rest = strings.TrimSpace(rest)
	if editing {
		word, rest = "e", line
		if line == "" {
			rest = a.GetDefault()
		}
	}
	switch strings.ToLower(word) {
	case "a", "y", "yes", "approve":
		req.Comment = rest
	case "t":
		req.Comment, req.Remember = rest, true
	case "r", "n", "no", "reject":
		req.Decision, req.Comment = "reject", rest
	case "e", "edit":
		if rest == "" {
			return nil, ""
		}
		v, err := pipeline.DecodeValue([]byte(rest))
		if _, ok := v.(map[string]any); err != nil || !ok {
			return nil, `type the arguments as a JSON object, as in {"amount": 20}`
		}
		req.Value = rest
	default:
		return nil, "type a to approve or r to reject, and a comment if you like; e to change the arguments; t to approve this call and all further ones of the tool in this run"
	}
	return req, ""
}
