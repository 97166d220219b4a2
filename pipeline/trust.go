package pipeline

import (
	"fmt"

	"github.com/google/uuid"
)

// remember notes what a decision approves for the rest of the run.
func (m *Machine) remember(d *Decision) {
	if d == nil || d.Remember == "" || d.Decision != "approve" {
		return
	}
	if m.approved == nil {
		m.approved = map[string]any{}
	}
	m.approved[d.Remember] = d.Actor
}

// Approved tells who has approved a scope for the rest of the run; empty: nobody.
func (m *Machine) Approved(scope string) string {
	by, _ := m.approved[scope].(string)
	return by
}

// SessionID is the id of the conversation that an attempt of a step starts.
func SessionID(run RunID, path Path, attempt int32) string {
	return uuid.NewSHA1(uuid.NameSpaceOID, fmt.Appendf(nil, "%s/%s#%d", run, path, attempt)).String()
}

// converse notes the conversation that an agent's attempt has started.
func (m *Machine) converse(x *inst, e *Event) {
	s := x.def.Session
	if s == nil || !s.Start {
		return
	}
	if m.sessions == nil {
		m.sessions = map[string]any{}
	}
	m.sessions[sessionKey(x, s.Name)] = SessionID(m.Run.ID, x.path, e.Attempt)
}

// Session is the id of the newest conversation of that name in the pipeline that
// the step stands in; empty: no step has started one.
func (m *Machine) Session(path Path, name string) string {
	x := m.insts[path]
	if x == nil {
		return ""
	}
	id, _ := m.sessions[sessionKey(x, name)].(string)
	return id
}

// sessionKey tells the conversations of called pipelines apart.
func sessionKey(x *inst, name string) string {
	if call := x.frame.unit.call; call != nil {
		return string(call.path) + " " + name
	}
	return " " + name
}
