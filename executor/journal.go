package executor

import (
	"context"
	"errors"
	"slices"
	"sync"

	"github.com/orchestrator-project/orchestrator/pipeline"
)

// ErrJournal is the error of an attempt whose run has got another owner: what it
// does is not recorded any more, so it must stop. The next owner goes on from
// what was.
var ErrJournal = errors.New("the run has another owner; its journal is closed")

// Journal is a step's own part of the run's log: the calls of models and tools
// that its attempts have made, what people decided about them, and what was said
// to it meanwhile. An attempt looks there before it does anything, so that
// nothing which is finished is done twice. It is safe for concurrent use.
type Journal struct {
	write func(ctx context.Context, asks []*pipeline.Approval, events []pipeline.Event) error

	mu      sync.Mutex
	past    []pipeline.Event
	byKey   map[pipeline.Digest][]int // of finished calls that nobody has taken: indexes into past
	next    int32
	news    []pipeline.Event
	changed chan struct{} // is closed by the next news
	decided map[pipeline.ApprovalID]*pipeline.Decision
	memos   map[any]func() any
	posed   map[pipeline.ApprovalID]bool // asked for by this attempt while it goes on
	later   []pipeline.Event             // to be recorded with the next ones
	before  func()                       // is called before anything is recorded; nil: nothing is
}

// NewJournal returns a journal that begins with past, oldest first, and hands
// what is appended to write, which returns once it is durable. Tests keep it in
// memory with a write that does nothing, or nil.
func NewJournal(past []pipeline.Event, write func(ctx context.Context, asks []*pipeline.Approval, events []pipeline.Event) error) *Journal {
	j := &Journal{
		write: write, past: past, byKey: map[pipeline.Digest][]int{}, changed: make(chan struct{}),
		decided: map[pipeline.ApprovalID]*pipeline.Decision{},
	}
	for i := range past {
		if d := past[i].Data.Decision; d != nil {
			j.decided[d.Approval] = d
		}
		c := past[i].Data.Call
		if c == nil {
			continue
		}
		j.next = max(j.next, c.N)
		if c.State == pipeline.InvocationFinished && c.Key != "" {
			j.byKey[c.Key] = append(j.byKey[c.Key], i)
		}
	}
	return j
}

// Events are what was recorded before this attempt began, oldest first:
// model_called, tool_called, approval_decided and signal_received at the step's
// path. They must not be changed.
func (j *Journal) Events() []pipeline.Event {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.past
}

// Take gives the oldest finished call of the type and key that was recorded
// before this attempt began and was not taken yet; nil: there is none, and the
// call is to be made.
func (j *Journal) Take(typ pipeline.EventType, key pipeline.Digest) *pipeline.Event {
	j.mu.Lock()
	defer j.mu.Unlock()
	list := j.byKey[key]
	for n, i := range list {
		if j.past[i].Type == typ {
			j.byKey[key] = slices.Delete(list, n, n+1)
			return &j.past[i]
		}
	}
	return nil
}

// Next is a number for a call, which no other call of the step has.
func (j *Journal) Next() int32 {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.next++
	return j.next
}

// Memo is what build gives, the first time that it is asked for the key: what a
// reader of the journal wants to remember as long as the attempt lasts. build may
// read the journal.
func (j *Journal) Memo(key any, build func() any) any {
	j.mu.Lock()
	if j.memos == nil {
		j.memos = map[any]func() any{}
	}
	m := j.memos[key]
	if m == nil {
		m = sync.OnceValue(build)
		j.memos[key] = m
	}
	j.mu.Unlock()
	return m()
}

// Append records events of type model_called and tool_called together, in one
// commit, and returns when that is durable. The error is ErrJournal, or that of
// the context: then nobody knows whether they were recorded. What was left to Later
// is recorded before them, in the same commit.
func (j *Journal) Append(ctx context.Context, events ...pipeline.Event) error {
	return j.record(ctx, nil, events)
}

func (j *Journal) record(ctx context.Context, asks []*pipeline.Approval, events []pipeline.Event) error {
	j.mu.Lock()
	if len(j.later) > 0 {
		events = append(j.later, events...)
		j.later = nil
	}
	j.mu.Unlock()
	if j.before != nil {
		j.before()
	}
	if j.write == nil || len(events) == 0 {
		return ctx.Err()
	}
	return j.write(ctx, asks, events)
}

// Later leaves events to the next Append: those of calls that a crash may repeat,
// so that nothing has to wait until they are durable.
func (j *Journal) Later(events ...pipeline.Event) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.later = append(j.later, events...)
}

// Pose asks people while the attempt goes on: it records the calls as asked and
// the events after them, all in one commit. Approvals without an ID get one; one that
// this attempt has asked for already is not asked again. What nobody has decided
// when there is nothing else to do belongs into Suspension.Open.
func (j *Journal) Pose(ctx context.Context, asks []Asked, events ...pipeline.Event) error {
	var list []*pipeline.Approval
	var all []pipeline.Event
	j.mu.Lock()
	for _, q := range asks {
		a, call := q.Approval, q.Call
		if a.ID == "" {
			a.ID = pipeline.NewApprovalID()
		}
		if j.posed[a.ID] {
			continue
		}
		if j.posed == nil {
			j.posed = map[pipeline.ApprovalID]bool{}
		}
		j.posed[a.ID] = true
		call.State, call.Approval = pipeline.InvocationAsked, a.ID
		list = append(list, a)
		all = append(all, pipeline.Event{Type: q.Type, Data: pipeline.Data{Call: &call}})
	}
	j.mu.Unlock()
	return j.record(ctx, list, append(all, events...))
}

// Posed reports whether this attempt has asked for the approval while it went on.
func (j *Journal) Posed(id pipeline.ApprovalID) bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.posed[id]
}

// Ask asks people while the attempt goes on, and waits for their decision. call
// is the call that it is about; it is recorded as asked, with the approval. An
// attempt that can lay its step down returns a Suspension instead.
func (j *Journal) Ask(ctx context.Context, a *pipeline.Approval, call pipeline.Invocation) (*pipeline.Decision, error) {
	if err := j.Pose(ctx, []Asked{{Approval: a, Type: pipeline.ToolCalled, Call: call}}); err != nil {
		return nil, err
	}
	return j.Await(ctx, a.ID)
}

// Await waits for the decision of people about an approval that the step has
// asked for.
func (j *Journal) Await(ctx context.Context, id pipeline.ApprovalID) (*pipeline.Decision, error) {
	for {
		changed := j.Changed()
		if d := j.Decision(id); d != nil {
			return d, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// Decision is what people decided about an approval that the step has asked for;
// nil: nothing yet.
func (j *Journal) Decision(id pipeline.ApprovalID) *pipeline.Decision {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.decided[id]
}

// Changed is closed as soon as something is recorded that somebody else has said:
// a decision, or a message to the agent. Take it before looking.
func (j *Journal) Changed() <-chan struct{} {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.changed
}

// News are the events approval_decided and signal_received that were recorded at
// the step's path since the attempt began, or since the last call.
func (j *Journal) News() []pipeline.Event {
	j.mu.Lock()
	defer j.mu.Unlock()
	news := j.news
	j.news = nil
	return news
}

// tell adds what somebody else has said.
func (j *Journal) tell(e pipeline.Event) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if d := e.Data.Decision; d != nil {
		j.decided[d.Approval] = d
	}
	j.news = append(j.news, e)
	close(j.changed)
	j.changed = make(chan struct{})
}

// mailbox keeps what is said to an attempt until its journal is open.
type mailbox struct {
	mu      sync.Mutex
	early   []pipeline.Event
	journal *Journal
}

func (m *mailbox) add(e pipeline.Event) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.journal == nil {
		m.early = append(m.early, e)
		return
	}
	m.journal.tell(e)
}

func (m *mailbox) open(j *Journal) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, e := range m.early {
		j.tell(e)
	}
	m.early, m.journal = nil, j
}
