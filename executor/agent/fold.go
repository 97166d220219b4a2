package agent

import (
	"encoding/json"
	"time"

	"github.com/orchestrator-project/orchestrator/executor/model"
	"github.com/orchestrator-project/orchestrator/pipeline"
)

// past is what earlier attempts of the step have recorded.
type past struct {
	events []pipeline.Event
	turns  map[int32]map[int32]*pipeline.Event // finished turns: by In, by Turn
	calls  map[int32]map[string]*recorded      // calls of tools: by the model call that asked for them, by ID
	within map[int32][]int32                   // N of the calls of tools, by In
	used   map[int32]*pipeline.Usage           // of model calls, by In
	said   []*pipeline.Event                   // messages to the agent
	asked  map[int32][]*pipeline.Event         // questions that tools have asked while they ran: by the N of the call
}

// recorded is what is known of a call of a tool.
type recorded struct {
	n        int32
	begun    bool                // an attempt has begun it
	approval pipeline.ApprovalID // that it was last asked for and that has not led to its start; empty: none
	doubt    bool                // approval is about what became of it, not about whether it may begin
	granted  pipeline.ApprovalID // that has led to its start; empty: none
	askedAt  time.Time
	done     *pipeline.Invocation
}

// fold orders what was recorded.
func fold(events []pipeline.Event) *past {
	p := &past{
		events: events, turns: map[int32]map[int32]*pipeline.Event{}, calls: map[int32]map[string]*recorded{},
		within: map[int32][]int32{}, used: map[int32]*pipeline.Usage{}, asked: map[int32][]*pipeline.Event{},
	}
	for i := range events {
		e := &events[i]
		c := e.Data.Call
		switch {
		case e.Type == pipeline.SignalReceived && e.Data.Signal == pipeline.SignalSteer:
			p.said = append(p.said, e)
		case c == nil:
		case e.Type == pipeline.ModelCalled:
			p.asks(e, c)
		case e.Type == pipeline.ToolCalled && c.Of == 0:
			if c.State == pipeline.InvocationAsked {
				p.asked[c.In] = append(p.asked[c.In], e)
			}
		case e.Type == pipeline.ToolCalled:
			p.works(e, c)
		}
	}
	return p
}

func (p *past) asks(e *pipeline.Event, c *pipeline.Invocation) {
	if u := e.Data.Usage; u != nil {
		p.used[c.In] = model.Sum(p.used[c.In], u)
	}
	if c.Agent == "" || c.Phase != string(model.PhaseTurn) && c.Phase != string(model.PhaseRepair) || model.Recorded(e) == nil {
		return
	}
	if p.turns[c.In] == nil {
		p.turns[c.In] = map[int32]*pipeline.Event{}
	}
	p.turns[c.In][c.Turn] = e
}

func (p *past) works(e *pipeline.Event, c *pipeline.Invocation) {
	if p.calls[c.Of] == nil {
		p.calls[c.Of] = map[string]*recorded{}
	}
	r := p.calls[c.Of][c.ID]
	if r == nil {
		r = &recorded{n: c.N}
		p.calls[c.Of][c.ID] = r
		p.within[c.In] = append(p.within[c.In], c.N)
	}
	switch c.State {
	case pipeline.InvocationAsked:
		r.approval, r.doubt, r.askedAt = c.Approval, r.begun, e.At
	case pipeline.InvocationStarted:
		if !r.doubt {
			r.granted = r.approval
		}
		r.begun, r.approval, r.doubt = true, "", false
	case pipeline.InvocationFinished:
		r.done = c
	}
}

// turn is a turn that was recorded; nil: it is to be taken.
func (p *past) turn(in int32, turn int) *pipeline.Event {
	return p.turns[in][int32(turn)] //nolint:gosec // turns are few
}

// call is what is known of a call; nil: nothing.
func (p *past) call(of int32, id string) *recorded { return p.calls[of][id] }

// charge adds to an account what the agent within a call, and those within its
// calls, have spent.
func (p *past) charge(a *account, in int32) {
	if u := p.used[in]; u != nil {
		a.tokens += int64(u.InputTokens) + int64(u.OutputTokens)
		a.usd += u.CostUSD
	}
	for _, n := range p.within[in] {
		p.charge(a, n)
	}
}

// opening are the messages of an agent's first turn as they were sent; nil: it
// was not recorded.
func (p *past) opening(in int32) []model.Message {
	e := p.turn(in, 0)
	if e == nil {
		return nil
	}
	r, err := model.Conversation(p.events, e.Data.Call.N)
	if err != nil || len(r.Messages) == 0 {
		return nil // the prompt is composed again, of the same parts
	}
	return r.Messages[:1]
}

// heard tells how many of the oldest messages to the agent, after those that
// earlier turns have heard, the turn was sent.
func (p *past) heard(e *pipeline.Event, pending []*pipeline.Event) int {
	if len(pending) == 0 || pending[0].Seq > e.Seq {
		return 0
	}
	r, err := model.Conversation(p.events, e.Data.Call.N)
	if err != nil {
		return 0
	}
	n := 0
	after := 0
	for i := range r.Messages {
		if r.Messages[i].Role == model.Assistant {
			after = i + 1
		}
	}
	for _, m := range r.Messages[after:] {
		if text, _ := pendingText(pending, n); m.Text() == text && n < len(pending) {
			n++
		}
	}
	return n
}

func pendingText(pending []*pipeline.Event, n int) (string, bool) {
	if n >= len(pending) {
		return "", false
	}
	text, ok := pending[n].Data.Value.(string)
	return text, ok
}

// contentValue is what a tool gave, as it is recorded.
func contentValue(blocks []model.Block) any {
	list := make([]any, len(blocks))
	for i := range blocks {
		b := &blocks[i]
		if b.Kind == model.BlockText {
			list[i] = map[string]any{"kind": b.Kind, "text": b.Text}
			continue
		}
		text, err := json.Marshal(b)
		if err != nil {
			continue
		}
		if list[i], err = pipeline.DecodeValue(text); err != nil {
			list[i] = map[string]any{"kind": model.BlockText, "text": "(a " + b.Kind + " that could not be kept)"}
		}
	}
	return map[string]any{"content": list}
}

// contentOf reads what contentValue wrote.
func contentOf(v any) []model.Block {
	var r struct {
		Content []model.Block `json:"content"`
	}
	if err := json.Unmarshal(pipeline.EncodeValue(v), &r); err != nil {
		return []model.Block{{Kind: model.BlockText, Text: string(pipeline.EncodeValue(v))}}
	}
	return r.Content
}
