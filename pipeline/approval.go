package pipeline

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
)

// ApprovalID names an approval: a UUIDv7 in its usual text form.
type ApprovalID string

// NewApprovalID returns a fresh id.
func NewApprovalID() ApprovalID { return ApprovalID(uuid.Must(uuid.NewV7()).String()) }

// ApprovalKind says what is asked, and so how it can be decided.
type ApprovalKind string

// The kinds of approval.
const (
	ApprovalAsk     ApprovalKind = "ask"            // answer
	ApprovalApprove ApprovalKind = "approve"        // approve, reject
	ApprovalTool    ApprovalKind = "tool"           // approve, reject, answer
	ApprovalDecide  ApprovalKind = "needs_decision" // retry, done, fail
	ApprovalBudget  ApprovalKind = "budget"         // approve, reject
)

// ApprovalStatus is the state of an approval.
type ApprovalStatus string

// The states. Only an open approval can be decided.
const (
	ApprovalOpen      ApprovalStatus = "open"
	ApprovalDecided   ApprovalStatus = "decided"
	ApprovalExpired   ApprovalStatus = "expired"   // its deadline has decided it
	ApprovalWithdrawn ApprovalStatus = "withdrawn" // its run no longer asks
)

// DeadlineActor is who decides an approval whose deadline has passed.
const DeadlineActor = "deadline"

// Approval is a question to people that a step waits for.
type Approval struct {
	ID        ApprovalID
	Run       RunID
	Pipeline  string // the pipeline's id, for lists
	Path      Path
	Kind      ApprovalKind
	Question  string
	Choices   []any    // an answer must be one of them; nil: anything
	Schema    *Type    // the type of the answer; nil: any
	Default   any      // of a call of a tool: its arguments
	Scope     string   // of a call of a tool: what can be approved for the rest of the run
	Assignees []string // who may decide; empty: anyone
	Quorum    int      // equal decisions that are needed; 0 and 1: one
	Deadline  time.Time
	OnTimeout string // fail, default, approve or reject; what the deadline decides
	Status    ApprovalStatus
	Decisions []Decision // in order; the last one settled it
	CreatedAt time.Time
	DecidedAt time.Time
}

// Decision is what somebody said to an approval.
type Decision struct {
	Approval ApprovalID
	Decision string // approve, reject, answer, retry, done, fail
	Value    any    // the answer, the output of done, or of approve: other arguments for the call; nil: as they are
	Remember string // of approve: the approval's Scope, which it approves for the rest of the run; empty: this call alone
	Comment  string
	Actor    string
	At       time.Time
}

// decisions are what can be said to each kind.
var decisions = map[ApprovalKind][]string{
	ApprovalAsk:     {"answer"},
	ApprovalApprove: {"approve", "reject"},
	ApprovalTool:    {"approve", "reject", "answer"}, // answer: instead of the tool
	ApprovalDecide:  {"retry", "done", "fail"},
	ApprovalBudget:  {"approve", "reject"},
}

// Allowed lists what can be said to the approval.
func (a *Approval) Allowed() []string { return decisions[a.Kind] }

// Decide adds a decision and reports whether the approval is settled by it.
// One rejection settles it; otherwise as many equal decisions of different
// people as its quorum says. The errors are *Error: Conflict where it is no
// longer open or the same person has decided before, Denied where somebody else
// is asked, Invalid where the decision does not fit. A's Schema is checked by
// the caller, who knows the types of the language.
func (a *Approval) Decide(d Decision) (settled bool, err error) {
	if a.Status != ApprovalOpen {
		last := ""
		if n := len(a.Decisions); n > 0 {
			last = fmt.Sprintf(": %s by %s", a.Decisions[n-1].Decision, a.Decisions[n-1].Actor)
		}
		return false, &Error{Kind: Conflict, Reason: "already_decided", Text: fmt.Sprintf("approval %s is already %s%s", a.ID, a.Status, last)}
	}
	system := d.Actor == DeadlineActor
	if !slices.Contains(a.Allowed(), d.Decision) && !(system && d.Decision == "fail") {
		return false, &Error{
			Kind: Invalid, Reason: "wrong_decision",
			Text: fmt.Sprintf("%q cannot be said to approval %s of kind %s; it takes %s", d.Decision, a.ID, a.Kind, strings.Join(a.Allowed(), ", ")),
		}
	}
	if d.Remember != "" && (d.Decision != "approve" || d.Remember != a.Scope) {
		return false, &Error{Kind: Invalid, Reason: "not_remembered", Text: fmt.Sprintf("only the approval of a tool's call can be remembered, and %s is of kind %s", a.ID, a.Kind)}
	}
	if !system {
		if len(a.Assignees) > 0 && !slices.Contains(a.Assignees, d.Actor) {
			return false, &Error{Kind: Denied, Reason: "not_asked", Text: fmt.Sprintf("approval %s asks %s, not %s", a.ID, strings.Join(a.Assignees, ", "), d.Actor)}
		}
		if slices.ContainsFunc(a.Decisions, func(e Decision) bool { return e.Actor == d.Actor }) {
			return false, &Error{Kind: Conflict, Reason: "already_decided", Text: fmt.Sprintf("%s has already decided approval %s; others are asked too", d.Actor, a.ID)}
		}
		if d.Decision == "answer" && len(a.Choices) > 0 && !slices.ContainsFunc(a.Choices, func(c any) bool { return equal(c, d.Value) }) {
			return false, &Error{Kind: Invalid, Reason: "wrong_answer", Text: fmt.Sprintf("the answer must be one of %s", EncodeValue(a.Choices))}
		}
	}
	d.Approval = a.ID
	a.Decisions = append(a.Decisions, d)
	same := 0
	for _, e := range a.Decisions {
		if e.Decision == d.Decision && equal(e.Value, d.Value) {
			same++
		}
	}
	if !system && d.Decision != "reject" && d.Decision != "fail" && same < a.Quorum {
		return false, nil
	}
	a.Status, a.DecidedAt = ApprovalDecided, d.At
	if system {
		a.Status = ApprovalExpired
	}
	return true, nil
}

func equal(a, b any) bool { return bytes.Equal(EncodeValue(a), EncodeValue(b)) }

// AppendDecision appends d as a JSON object, and DecodeDecision reads it: the
// form in which decisions are stored.
func AppendDecision(b []byte, d *Decision) []byte {
	m := map[string]any{"approval": string(d.Approval), "decision": d.Decision, "actor": d.Actor, "at": d.At.UTC().Format(time.RFC3339Nano)}
	if d.Value != nil {
		m["value"] = d.Value
	}
	if d.Remember != "" {
		m["remember"] = d.Remember
	}
	if d.Comment != "" {
		m["comment"] = d.Comment
	}
	return AppendValue(b, m)
}

// DecodeDecision reads what AppendDecision wrote.
func DecodeDecision(b []byte) (*Decision, error) {
	v, err := DecodeValue(b)
	if err != nil {
		return nil, fmt.Errorf("decode decision: %w", err)
	}
	m, ok := v.(map[string]any)
	if !ok {
		return nil, fmt.Errorf("decode decision: it is a %T", v)
	}
	text := func(k string) string { s, _ := m[k].(string); return s }
	d := &Decision{Approval: ApprovalID(text("approval")), Decision: text("decision"), Comment: text("comment"), Remember: text("remember"), Actor: text("actor"), Value: m["value"]}
	if d.At, err = time.Parse(time.RFC3339Nano, text("at")); err != nil {
		return nil, fmt.Errorf("decode decision: %w", err)
	}
	return d, nil
}
