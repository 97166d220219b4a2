package pipeline

// Trace is the place in a trace of somebody else's that a run belongs to, in the
// words of W3C Trace Context.
type Trace struct {
	Parent string `json:"parent"`          // traceparent
	State  string `json:"state,omitempty"` // tracestate
}

// Trace is the trace that the run was submitted with; nil: it has one of its own.
func (m *Machine) Trace() *Trace { return m.trace }
