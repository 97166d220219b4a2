package executor

import (
	"context"
	"fmt"

	"github.com/orchestrator-project/orchestrator/pipeline"
)

// What can be said of a step whose outcome is unknown.
const (
	sayRetry = "retry" // it runs again
	sayDone  = "done"  // it took effect, and this is what it gave
)

// doubt asks people about a step that may run once, whose attempt has ended so
// that nobody knows whether it took effect. What was promised is the type of the
// output that they can give. why begins the question.
func (r *runState) doubt(t *pipeline.Task, action string, promised []*pipeline.Type, why string) {
	s := r.m.Step(t.Path)
	if r.over() || s == nil || s.Status.Final() {
		return
	}
	if r.m.Cancels(t.Path) {
		task := *t
		task.Attempt = s.Attempt
		r.ended(&task, &attempt{number: s.Attempt}, Output{}, nil, &pipeline.Failure{Kind: pipeline.CategoryCancelled, Message: "cancelled"})
		return
	}
	a := &pipeline.Approval{
		ID: pipeline.NewApprovalID(), Run: r.run.ID, Pipeline: r.run.Pipeline, Path: t.Path, Kind: pipeline.ApprovalDecide,
		Status: pipeline.ApprovalOpen, CreatedAt: r.lane.ex.cfg.Now().UTC(),
		Question: why + " It may run only once. Shall it run again (retry), count as done with the output that you give (done), or fail (fail)?",
	}
	if n := len(promised); n > 0 {
		a.Schema = atLeast(promised[n-1])
	}
	r.record(pipeline.StepIsWaiting, t.Path, s.Attempt, pipeline.Data{
		Kind: t.Def.Kind, Action: action, Reason: pipeline.ReasonUnknown,
		Waiting: &pipeline.Waiting{For: waitApproval, Approval: a.ID},
	})
	r.lane.batch.Ask = append(r.lane.batch.Ask, a)
	r.rest()
}

// inDoubt is how to launch a step whose outcome is unknown: not.
func (r *runState) inDoubt(t *pipeline.Task, w *work) func() bool {
	promised := (&job{task: *t, work: w}).promised()
	return func() bool {
		r.doubt(t, w.key, promised, fmt.Sprintf("The process that ran the step %s is gone, and the step may have taken effect.", t.Path))
		return false
	}
}

// resolve carries out what was decided about a step in doubt.
func (r *runState) resolve(t *pipeline.Task, d *pipeline.Decision) {
	said := "decided by " + d.Actor
	if d.Comment != "" {
		said += ": " + d.Comment
	}
	unknown := &pipeline.Failure{Kind: pipeline.CategorySystem, Reason: pipeline.ReasonUnknown, Message: "nobody knows whether the step took effect; " + said}
	switch d.Decision {
	case sayRetry:
		r.record(pipeline.StepRetrying, t.Path, t.Attempt, pipeline.Data{
			Reason: pipeline.ReasonUnknown, Error: unknown, Due: r.lane.ex.cfg.Now().UTC(),
		})
	case sayDone:
		task := *t
		r.aside(t.Def, func() func() { return r.givenBy(&task, d.Value) })
	default:
		r.conclude(t, unknown, pipeline.Data{Kind: t.Def.Kind, Action: r.m.Step(t.Path).Action})
	}
}

// givenBy ends a step in doubt with the output that somebody gives for it, if
// that is what the step promises; else the question is put again.
func (r *runState) givenBy(t *pipeline.Task, output any) func() {
	red := r.redactor()
	w, fail := r.compose(r.evaluation(r.m.Scope(t.Path)), t, red)
	var published []pipeline.Version
	j := &job{r: r, task: *t, a: &attempt{number: t.Attempt}, work: w}
	if fail == nil {
		j.env = Env{Run: r.run.ID, Path: t.Path, Attempt: t.Attempt, Workspace: r.workspace, Log: func(string, string) {}}
		if output, fail = j.checked(output); fail == nil {
			ctx, cancel := context.WithTimeout(r.lane.ex.work, blobTimeout)
			defer cancel()
			published, fail = j.publish(ctx, output)
		}
	}
	if fail != nil {
		return func() {
			r.doubt(t, r.m.Step(t.Path).Action, j.promised(), fmt.Sprintf("The output given for the step %s does not fit: %s.", t.Path, red.text(fail.Message)))
		}
	}
	d := r.withState(t, pipeline.Data{Kind: t.Def.Kind, Action: w.key, Status: pipeline.StepCompleted, Output: red.value(output)})
	return func() {
		if s := r.m.Step(t.Path); r.over() || s == nil || s.Status != pipeline.StepWaiting {
			return
		}
		if d.Status == pipeline.StepCompleted {
			d.Published = r.numbered(published)
		}
		r.record(pipeline.StepFinished, t.Path, t.Attempt, d)
	}
}
