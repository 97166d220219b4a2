package pipeline

import (
	"encoding/json"
	"time"
)

// The states of an Invocation, as an event tells it.
const (
	InvocationAsked    = "asked"    // people have to decide before it may go on
	InvocationStarted  = "started"  // it may have had its effect from here on
	InvocationFinished = "finished" // it is over
)

// Invocation is a call of a model or of a tool that a step made while it ran: an entry
// of the step's journal, told by the events model_called and tool_called. What
// is finished is never done again by a later attempt.
type Invocation struct {
	N        int32      // its number within the step instance, from 1; all events of one call have the same
	In       int32      // N of the tool call within which it was made, by a nested agent; 0: by the step itself
	Of       int32      // of a tool call: N of the model call that asked for it
	State    string     // InvocationAsked, InvocationStarted, InvocationFinished
	Agent    string     // whose turn it is, or who calls the tool; empty: no agent
	Turn     int32      // of an agent: counts from 0
	Phase    string     // of a model call: schema, answer, repair, turn, judge, compact
	Param    string     // of an <AUTO> tag: its key
	Key      Digest     // of the request: an equal request of a later attempt takes this answer
	ID       string     // of a tool call: as the model named it
	Name     string     // of a tool call: the tool
	Effect   Effect     // of a tool call
	Approval ApprovalID // of asked: what people decide
	By       string     // of a call that was approved: who did
	Request  any        // what was asked, each message once: a later call of the same agent says only what was added
	Response any        // of finished: what came back
	Failed   bool       // of finished: it reports failure, which the model may read
	Provider string     // of a model call
	Choice   any        // of a model call: among which models it was chosen, and why
	Tries    int32      // of a model call: requests that were sent; 0 and 1: one
	Rules    []string   // of a model call that a script answered: the rules that its tries have used
	Took     time.Duration
	Wait     time.Duration // of a model call: until the first piece of the answer
}

// Delta is a piece of an answer or of a tool's output on its way: live only,
// never recorded.
type Delta struct {
	Call  int32 // N of the call
	Agent string
	Kind  string // text, reasoning, tool; reset: forget what came of this call
	Name  string // of tool: which
	Text  string
}

// DeltaReset is the Kind that tells those who look on to forget what came of a
// call: it is begun again.
const DeltaReset = "reset"

func appendInvocation(b []byte, c *Invocation) []byte {
	o := begun(b)
	o.number("n", int64(c.N))
	o.number("in", int64(c.In))
	o.number("of", int64(c.Of))
	o.text("state", c.State)
	o.text("agent", c.Agent)
	o.number("turn", int64(c.Turn))
	o.text("phase", c.Phase)
	o.text("param", c.Param)
	o.text("key", string(c.Key))
	o.text("id", c.ID)
	o.text("name", c.Name)
	o.text("effect", string(c.Effect))
	o.text("approval", string(c.Approval))
	o.text("by", c.By)
	o.value("request", c.Request)
	o.value("response", c.Response)
	o.truth("failed", c.Failed)
	o.text("provider", c.Provider)
	o.value("choice", c.Choice)
	o.number("tries", int64(c.Tries))
	if len(c.Rules) > 0 {
		o.marshal("rules", c.Rules)
	}
	o.number("took", int64(c.Took))
	o.number("wait", int64(c.Wait))
	return o.end()
}

// storedInvocation is the decoding form of Invocation.
type storedInvocation struct {
	N        int32           `json:"n"`
	In       int32           `json:"in"`
	Of       int32           `json:"of"`
	State    string          `json:"state"`
	Agent    string          `json:"agent"`
	Turn     int32           `json:"turn"`
	Phase    string          `json:"phase"`
	Param    string          `json:"param"`
	Key      Digest          `json:"key"`
	ID       string          `json:"id"`
	Name     string          `json:"name"`
	Effect   Effect          `json:"effect"`
	Approval ApprovalID      `json:"approval"`
	By       string          `json:"by"`
	Request  json.RawMessage `json:"request"`
	Response json.RawMessage `json:"response"`
	Failed   bool            `json:"failed"`
	Provider string          `json:"provider"`
	Choice   json.RawMessage `json:"choice"`
	Tries    int32           `json:"tries"`
	Rules    []string        `json:"rules"`
	Took     time.Duration   `json:"took"`
	Wait     time.Duration   `json:"wait"`
}

func (s *storedInvocation) invocation(r *reader) *Invocation {
	return &Invocation{
		N: s.N, In: s.In, Of: s.Of, State: s.State, Agent: s.Agent, Turn: s.Turn, Phase: s.Phase, Param: s.Param, Key: s.Key,
		ID: s.ID, Name: s.Name, Effect: s.Effect, Approval: s.Approval, By: s.By,
		Request: r.value(s.Request), Response: r.value(s.Response), Failed: s.Failed,
		Provider: s.Provider, Choice: r.value(s.Choice), Tries: s.Tries, Rules: s.Rules, Took: s.Took, Wait: s.Wait,
	}
}
