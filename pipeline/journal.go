package pipeline

import (
	"slices"
	"strings"
)

// ReasonDecided is why work goes on that waited for people: one of the approvals
// that it had asked for is decided.
const ReasonDecided = "decided"

// journal is what the machine knows of the calls that a step has made. What they
// gave stands in the log alone, so that it costs no memory.
type journal struct {
	first int32        // seq of the oldest event that the next attempt builds on; 0: none
	calls int32        // the highest Invocation.N
	open  []ApprovalID // asked for and not decided
}

// called notes an entry of a step's journal. One at a pass of a loop is of the
// loop itself.
func (m *Machine) called(e *Event) {
	x := m.insts[e.Path]
	if x == nil {
		if i := strings.LastIndexByte(string(e.Path), '['); i >= 0 {
			x = m.insts[e.Path[:i]]
		}
	}
	if x == nil || e.Data.Call == nil {
		return
	}
	if x.path == e.Path {
		x.step.apply(e)
	}
	delete(m.deaths, x.path) // it gets on: a process that dies then is not its fault
	if x.journal == nil {
		x.journal = &journal{}
	}
	j, c := x.journal, e.Data.Call
	if j.first == 0 {
		j.first = e.Seq
	}
	j.calls = max(j.calls, c.N)
	if c.State == InvocationAsked && c.Approval != "" && !slices.Contains(j.open, c.Approval) {
		j.open = append(j.open, c.Approval)
	}
}

// steered notes something that was said to the step's agent.
func (m *Machine) steered(e *Event) {
	if x := m.insts[e.Path]; x != nil {
		if x.journal == nil {
			x.journal = &journal{}
		}
		if x.journal.first == 0 {
			x.journal.first = e.Seq
		}
	}
}

func (j *journal) decided(e *Event) {
	if j != nil && e.Data.Decision != nil {
		id := e.Data.Decision.Approval
		j.open = slices.DeleteFunc(j.open, func(o ApprovalID) bool { return o == id })
	}
}

// afresh reports whether the attempt after a failure begins with an empty
// journal. What failed from outside goes on where it stood; what the calls
// themselves have led to is not taken for granted.
func afresh(d *Data) bool {
	if d.Error == nil || d.Reason == ReasonDecided || d.Reason == ReasonUnknown || d.Reason == ReasonWorkerLost || d.Reason == ReasonWorkerDeclined {
		return false
	}
	switch d.Error.Kind {
	case CategoryRateLimit, CategoryTimeout, CategoryResource, CategorySystem, CategoryModel:
		return false
	}
	return true
}

// goesOn reports whether the step was laid down and is now to go on, as people
// have decided: it has failed at nothing, and its attempt is the same.
func (x *inst) goesOn() bool {
	s := &x.step
	return x.journal != nil && s.Status == StepWaiting && s.Waiting != nil && s.Waiting.For == WaitRetry && s.Error == nil
}

// Journal tells from which event on the log holds what an attempt of the step
// builds on (0: nothing does), and the highest number that its calls have used.
func (m *Machine) Journal(path Path) (first, calls int32) {
	x := m.insts[path]
	if x == nil || x.journal == nil {
		return 0, 0
	}
	return x.journal.first, x.journal.calls
}

// Open lists the approvals that the step's work has asked for and that are not
// decided.
func (m *Machine) Open(path Path) []ApprovalID {
	if x := m.insts[path]; x != nil && x.journal != nil {
		return slices.Clone(x.journal.open)
	}
	return nil
}

// Asker is the step whose work has asked for an approval that is still open, or
// empty.
func (m *Machine) Asker(id ApprovalID) Path {
	for path, x := range m.insts {
		if x.journal != nil && slices.Contains(x.journal.open, id) {
			return path
		}
	}
	return ""
}
