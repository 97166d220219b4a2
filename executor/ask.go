package executor

import (
	"fmt"
	"time"

	"github.com/orchestrator-project/orchestrator/pipeline"
)

// What can be said to a question, and what its deadline says.
const (
	sayAnswer  = "answer"
	sayApprove = "approve"
	sayReject  = "reject"
	sayFail    = "fail"
	sayDefault = "default" // of Ask.OnTimeout: the default is the answer
)

// answerAsk asks people: the question stands in the same commit as the step that
// waits for it.
func (r *runState) answerAsk(t *pipeline.Task, ev evaluation) func() {
	params, fail := r.asked(t, ev)
	if fail != nil {
		return r.refused(t, fail, nil)
	}
	if f := r.recall(t, &offer{params: params}); f != nil {
		return f
	}
	a, fail := r.approval(t, ev)
	if fail != nil {
		return r.refused(t, fail, nil)
	}
	return func() {
		r.record(pipeline.StepIsWaiting, t.Path, t.Attempt, pipeline.Data{
			Kind: t.Def.Kind, Parameters: params, Waiting: &pipeline.Waiting{For: waitApproval, Due: a.Deadline, Approval: a.ID},
		})
		r.lane.batch.Ask = append(r.lane.batch.Ask, a)
		r.await(t.Path, t.Def)
	}
}

// approval is the question of a step.
func (r *runState) approval(t *pipeline.Task, ev evaluation) (*pipeline.Approval, *pipeline.Failure) {
	ask := t.Def.Ask
	now := r.lane.ex.cfg.Now().UTC()
	a := &pipeline.Approval{
		ID: pipeline.NewApprovalID(), Run: r.run.ID, Pipeline: r.run.Pipeline, Path: t.Path, Kind: pipeline.ApprovalAsk,
		Schema: ask.Schema, Quorum: ask.Quorum, Status: pipeline.ApprovalOpen, CreatedAt: now, OnTimeout: ask.OnTimeout,
	}
	if ask.Approve {
		a.Kind = pipeline.ApprovalApprove
	}
	var fail *pipeline.Failure
	if a.Question, fail = ev.text(&ask.Question, "question"); fail != nil {
		return nil, fail
	}
	if ask.Choices != nil {
		v, fail := ev.field(ask.Choices, "choices")
		if fail != nil {
			return nil, fail
		}
		list, ok := listOf(v)
		if !ok || len(list) == 0 {
			return nil, pipeline.Failuref(pipeline.CategoryValidation, "choices is %s; it must be a list with something in it", kindName(v))
		}
		a.Choices = list
	}
	if ask.Default != nil {
		if a.Default, fail = ev.field(ask.Default, "default"); fail != nil {
			return nil, fail
		}
	}
	if ask.Assignees != nil {
		if a.Assignees, fail = ev.names(ask.Assignees, "assignees"); fail != nil {
			return nil, fail
		}
	}
	if a.OnTimeout == "" {
		switch {
		case ask.Default != nil:
			a.OnTimeout = sayDefault
		case ask.Approve:
			a.OnTimeout = sayReject
		default:
			a.OnTimeout = sayFail
		}
	}
	if ask.Deadline > 0 {
		a.Deadline = now.Add(ask.Deadline)
	}
	return a, nil
}

// names evaluates a list of names, or one.
func (ev evaluation) names(f *pipeline.Field, what string) ([]string, *pipeline.Failure) {
	v, fail := ev.field(f, what)
	if fail != nil {
		return nil, fail
	}
	if s, ok := v.(string); ok {
		v = []any{s}
	}
	list, ok := v.([]any)
	names := make([]string, 0, len(list))
	for _, e := range list {
		s, is := e.(string)
		ok = ok && is && s != ""
		names = append(names, s)
	}
	if !ok {
		return nil, pipeline.Failuref(pipeline.CategoryValidation, "%s is %s; it must be a list of names", what, pipeline.EncodeValue(v))
	}
	return names, nil
}

// decided ends the wait for a decision that has settled an approval.
func (r *runState) decided(d *pipeline.Decision) {
	if r.toWork(d) {
		return
	}
	for _, w := range r.m.Waits() {
		if w.Waiting == nil || w.Waiting.Approval != d.Approval {
			continue
		}
		t, _ := r.waiter(w.Path, w.Def, waitApproval)
		if t == nil {
			return
		}
		r.record(pipeline.ApprovalIsDecided, w.Path, t.Attempt, pipeline.Data{Decision: d})
		r.obey(t, d)
		return
	}
}

// obey ends the wait of a step whose approval is decided.
func (r *runState) obey(t *pipeline.Task, d *pipeline.Decision) {
	if t.Def.Kind != pipeline.KindAsk {
		r.resolve(t, d)
		return
	}
	fail, output := verdict(d, t.Def)
	if fail != nil {
		r.conclude(t, fail, pipeline.Data{Kind: t.Def.Kind, Output: output})
		return
	}
	r.waited(t, func() pipeline.Data {
		return r.withState(t, pipeline.Data{Kind: t.Def.Kind, Status: pipeline.StepCompleted, Output: output})
	})
}

// verdict is what a decision means for the step that asked.
func verdict(d *pipeline.Decision, def *pipeline.StepDef) (fail *pipeline.Failure, output any) {
	switch d.Decision {
	case sayAnswer:
		return nil, d.Value
	case sayApprove:
		return nil, sayApprove
	case sayReject:
		text := "rejected by " + d.Actor
		if d.Actor == pipeline.DeadlineActor {
			text = "rejected: nobody decided in time"
		}
		if d.Comment != "" {
			text += ": " + d.Comment
		}
		return &pipeline.Failure{Kind: pipeline.CategoryFailed, Reason: "rejected", Message: text}, sayReject
	}
	return &pipeline.Failure{
		Kind: pipeline.CategoryTimeout, Reason: pipeline.ReasonTimeout, Message: fmt.Sprintf("nobody answered within %s", def.Ask.Deadline),
	}, nil
}

// expire lets the deadline of an approval decide it, like anybody else: one
// decision wins, and the run hears of it by a message.
func (r *runState) expire(id pipeline.ApprovalID) {
	r.looking++
	r.lane.ex.tasks.Go(func() {
		err := r.lane.ex.deadline(id)
		r.lane.post(func() {
			r.looking--
			if r.over() || r.lane.stopping || r.lane.fenced {
				return
			}
			if err != nil {
				r.lane.ex.log.Warn("deadline of an approval not recorded; trying again", "run", r.run.ID, "approval", id, "err", err)
				r.after(time.Second, func() { r.expire(id) })
				return
			}
			r.lane.readInbox([]pipeline.RunID{r.run.ID})
		})
	})
}

// deadline decides an approval whose time is over. That somebody else was faster
// is no error.
func (e *Executor) deadline(id pipeline.ApprovalID) error {
	a, err := e.cfg.Store.Approval(e.work, id)
	if err != nil {
		return err
	}
	if a.Deadline.IsZero() || a.Deadline.After(e.cfg.Now()) {
		return nil
	}
	d := pipeline.Decision{Decision: a.OnTimeout, Actor: pipeline.DeadlineActor, At: e.cfg.Now().UTC()}
	if a.OnTimeout == sayDefault {
		d.Decision, d.Value = sayAnswer, a.Default
	}
	_, err = e.cfg.Store.Decide(e.work, id, d)
	if pipeline.KindOf(err) == pipeline.Conflict {
		return nil
	}
	return err
}

// unask withdraws the question of a step that is skipped, and looks for its files
// no more.
func (r *runState) unask(path pipeline.Path) {
	s := r.m.Step(path)
	if s == nil || s.Status != pipeline.StepWaiting || s.Waiting == nil {
		return
	}
	switch s.Waiting.For {
	case waitApproval:
		if id := s.Waiting.Approval; id != "" { // what a step's work has asked for is withdrawn as it ends
			r.lane.batch.Withdraw = append(r.lane.batch.Withdraw, id)
		}
	case waitFiles:
		r.lane.ex.watch.drop(r.run.ID, path)
	}
}
