package executor

import (
	"context"
	"slices"
	"time"

	"github.com/orchestrator-project/orchestrator/pipeline"
)

// Suspension is the error by which a Runner with a journal lays its step down
// until people have decided something: the step waits, at the cost of a row, and
// the next decision begins another attempt.
type Suspension struct {
	Reason string // of the step's and the run's waiting, snake_case; empty: approval
	// Asks are the approvals to ask for, each with the call that it is about, which
	// is recorded as asked. Run, Pipeline, Path, Status and CreatedAt are filled in.
	Asks []Asked
	// Open are approvals that earlier attempts have asked for and still wait for.
	Open []pipeline.ApprovalID
	Due  time.Time // the first deadline among them all; zero: none
}

// Asked is a question about a call.
type Asked struct {
	Approval *pipeline.Approval
	Type     pipeline.EventType // ToolCalled or ModelCalled
	Call     pipeline.Invocation
}

func (s *Suspension) Error() string { return "the step waits for people" }

// journaling is what the lane tells an attempt of its journal.
type journaling struct {
	first int32 // seq of the oldest event that it builds on; 0: none
	last  int32 // and of the newest
	calls int32 // the highest number that its calls have used

	goesOn bool // the attempt was laid down, and goes on as the same
}

// openJournal gives the attempt its journal.
func (j *job) openJournal(ctx context.Context) (err error) {
	path := j.task.Path
	j.env.Journal, err = j.r.journal(ctx, path, j.a, j.past, j.work.redact, func() bool {
		s := j.r.m.Step(path)
		return s != nil && s.Status == pipeline.StepRunning
	})
	if err == nil {
		write := j.env.Journal.write
		j.env.Journal.write = func(ctx context.Context, asks []*pipeline.Approval, events []pipeline.Event) error {
			defer j.env.Rest(ctx)() // until the commit, which more steps may then share
			return write(ctx, asks, events)
		}
		j.r.lane.ex.show(&j.env, j.work.redact)
	}
	return err
}

// journal is that of a step's attempt, with what it builds on. What is appended
// is refused once another attempt has begun, or stands, which the lane calls, says no.
func (r *runState) journal(ctx context.Context, path pipeline.Path, a *attempt, builds journaling, red *redactor, stands func() bool) (*Journal, error) {
	var past []pipeline.Event
	read := func(of pipeline.Path, types ...pipeline.EventType) error {
		for e, err := range r.lane.ex.cfg.Store.StepEvents(ctx, r.run.ID, of, builds.first-1) {
			if err != nil {
				return err
			}
			if e.Seq > builds.last {
				break
			}
			if slices.Contains(types, e.Type) {
				past = append(past, e)
			}
		}
		return nil
	}
	if builds.first > 0 {
		if err := read(path, pipeline.ModelCalled, pipeline.ToolCalled, pipeline.ApprovalIsDecided, pipeline.SignalReceived); err != nil {
			return nil, err
		}
		if home := homeOf(path); home != path { // what was decided about a pass of a loop stands at the loop
			if err := read(home, pipeline.ApprovalIsDecided); err != nil {
				return nil, err
			}
		}
	}
	j := NewJournal(past, func(ctx context.Context, asks []*pipeline.Approval, events []pipeline.Event) error {
		return r.write(ctx, path, a, red, stands, asks, events)
	})
	j.next = max(j.next, builds.calls)
	a.news.open(j)
	return j, nil
}

// write is the journal's: on the lane's goroutine, and then until the commit.
func (r *runState) write(ctx context.Context, path pipeline.Path, a *attempt, red *redactor, stands func() bool, asks []*pipeline.Approval, events []pipeline.Event) error {
	done := make(chan error, 1)
	lost := func() { done <- ErrJournal }
	r.lane.post(func() {
		if r.gone {
			lost()
			return
		}
		r.do(func() {
			if r.over() || r.journals[path] != a || !stands() {
				lost()
				return
			}
			for _, a := range asks {
				r.askFor(a, path)
				r.expireAt(a.ID, a.Deadline)
			}
			for i := range events {
				d := events[i].Data
				if d.Call != nil && !red.empty() {
					c := *d.Call
					c.Request, c.Response = red.value(c.Request), red.value(c.Response)
					d.Call = &c
				}
				r.record(events[i].Type, path, a.number, d)
			}
			r.lane.whenDurable(r, r.m.Seq, func() { done <- nil })
			r.lane.durables[len(r.lane.durables)-1].lost = lost
		})
	})
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-r.lane.ended:
		return ErrJournal
	}
}

// askFor puts a question into the batch.
func (r *runState) askFor(a *pipeline.Approval, path pipeline.Path) {
	if a.ID == "" {
		a.ID = pipeline.NewApprovalID()
	}
	a.Run, a.Pipeline, a.Path = r.run.ID, r.run.Pipeline, path
	a.Status, a.CreatedAt = pipeline.ApprovalOpen, r.lane.ex.cfg.Now().UTC()
	r.lane.batch.Ask = append(r.lane.batch.Ask, a)
}

// expireAt lets a deadline decide about an approval while the work that has asked
// for it goes on. Of a step that waits, await sees to it.
func (r *runState) expireAt(id pipeline.ApprovalID, deadline time.Time) {
	if !deadline.IsZero() {
		r.after(deadline.Sub(r.lane.ex.cfg.Now()), func() { r.expire(id) })
	}
}

// expireOpen does so for what earlier attempts of a step have asked for, now that
// another one begins.
func (r *runState) expireOpen(path pipeline.Path) {
	open := r.m.Open(path)
	if len(open) == 0 {
		return
	}
	r.lane.ex.tasks.Go(func() {
		for _, id := range open {
			a, err := r.lane.ex.cfg.Store.Approval(r.lane.ex.work, id)
			if err != nil {
				r.lane.ex.log.Warn("deadline of an approval not known until its step waits again", "run", r.run.ID, "approval", id, "err", err)
				continue
			}
			r.lane.post(func() {
				if !r.over() {
					r.expireAt(id, a.Deadline)
				}
			})
		}
	})
}

// suspend lays the step of an attempt down until people have decided.
func (r *runState) suspend(j *job, s *Suspension) {
	path := j.task.Path
	step := r.m.Step(path)
	if r.over() || step == nil || step.Status != pipeline.StepRunning {
		return
	}
	if r.m.Cancels(path) {
		r.ended(&j.task, j.a, Output{}, nil, &pipeline.Failure{Kind: pipeline.CategoryCancelled, Message: "cancelled"})
		r.ask()
		r.pump()
		return
	}
	wait := &pipeline.Waiting{For: waitApproval, Due: s.Due}
	for i := range s.Asks {
		q := &s.Asks[i]
		if q.Approval.ID != "" && slices.Contains(r.m.Open(path), q.Approval.ID) {
			continue // several calls have run into the same
		}
		r.askFor(q.Approval, path)
		c := q.Call
		c.State, c.Approval = pipeline.InvocationAsked, q.Approval.ID
		c.Request = j.work.redact.value(c.Request)
		r.record(q.Type, path, j.a.number, pipeline.Data{Call: &c})
		wait.Approvals = append(wait.Approvals, q.Approval.ID)
	}
	open, decided := r.m.Open(path), false
	for _, id := range s.Open {
		switch {
		case !slices.Contains(open, id):
			decided = true
		case !slices.Contains(wait.Approvals, id): // several calls may wait for the same
			wait.Approvals = append(wait.Approvals, id)
		}
	}
	r.record(pipeline.StepIsWaiting, path, j.a.number, pipeline.Data{Kind: j.task.Def.Kind, Action: j.work.key, Reason: s.Reason, Waiting: wait})
	if decided || len(wait.Approvals) == 0 {
		r.comeBack(path)
	} else {
		r.await(path, j.task.Def)
	}
	r.ask()
	r.pump()
}

// comeBack lets the attempt of a step go on whose work was laid down.
func (r *runState) comeBack(path pipeline.Path) {
	s := r.m.Step(path)
	r.record(pipeline.StepRetrying, path, s.Attempt, pipeline.Data{Reason: pipeline.ReasonDecided, Due: r.lane.ex.cfg.Now().UTC()})
}

// toWork hands a decision to the work that has asked for it, whether it waits or
// goes on meanwhile. It reports whether there is such work.
func (r *runState) toWork(d *pipeline.Decision) bool {
	path := r.m.Asker(d.Approval)
	if path == "" {
		return false
	}
	s := r.m.Step(path)
	spent := s.Status == pipeline.StepWaiting && s.Reason == pipeline.ReasonBudget
	r.record(pipeline.ApprovalIsDecided, path, s.Attempt, pipeline.Data{Decision: d})
	if s.Status == pipeline.StepWaiting && s.Waiting != nil && slices.Contains(s.Waiting.Approvals, d.Approval) {
		r.comeBack(path)
	}
	spent = r.decidedFills(d) || spent
	if spent && d.Decision == sayApprove {
		r.raised()
	}
	return true
}

// raised lets the steps that a spent budget has laid down look again: what one of
// them was granted may be enough for all.
func (r *runState) raised() {
	waits := r.m.Waits()
	for i := range waits {
		if s := r.m.Step(waits[i].Path); s.Status == pipeline.StepWaiting && s.Reason == pipeline.ReasonBudget {
			r.comeBack(waits[i].Path)
		}
	}
}

// steeringOf reads the body of a message to an agent.
func steeringOf(body []byte) (path pipeline.Path, text string, err error) {
	v, err := pipeline.DecodeValue(body)
	if err != nil {
		return "", "", err
	}
	m, _ := v.(map[string]any)
	step, _ := m["step"].(string)
	text, _ = m["text"].(string)
	return pipeline.Path(step), text, nil
}

// steer records something said to the agent of a step, for its next turn. It
// reports whether there is such a step.
func (r *runState) steer(path pipeline.Path, text, actor string) bool {
	s := r.m.Step(path)
	if r.over() || s == nil || s.Status.Final() || s.Action != pipeline.AgentAction {
		return false
	}
	r.record(pipeline.SignalReceived, path, s.Attempt, pipeline.Data{Signal: pipeline.SignalSteer, Value: text, Actor: actor})
	return true
}

// overheard passes on what was recorded for an attempt with a journal.
func (r *runState) overheard(e *pipeline.Event) {
	if e.Type != pipeline.ApprovalIsDecided && e.Type != pipeline.SignalReceived || e.Path == "" {
		return
	}
	if a := r.journals[e.Path]; a != nil {
		a.news.add(*e)
	}
}

// unanswered withdraws what the work of a step has asked for and nobody has
// answered, now that it is over.
func (r *runState) unanswered(path pipeline.Path) {
	r.lane.batch.Withdraw = append(r.lane.batch.Withdraw, r.m.Open(path)...)
	delete(r.journals, path)
}
