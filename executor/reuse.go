package executor

import (
	"context"
	"fmt"
	"slices"

	"github.com/orchestrator-project/orchestrator/pipeline"
	"github.com/orchestrator-project/orchestrator/pipeline/spec"
)

// recall ends a step with the record that fits it: nothing is launched. It
// returns nil where the step has to begin.
func (r *runState) recall(t *pipeline.Task, o *offer) func() {
	b := r.book
	if b == nil || r.m.Step(t.Path).Attempt > 0 { // it has begun here
		return nil
	}
	rec, why := b.find(t, r.run.ID, o)
	if rec == nil {
		if b.notes != nil {
			b.notes.rerun(t, why)
			return func() {}
		}
		return nil
	}
	d := *rec.end
	d.Kind, d.Action, d.Parameters, d.Given, d.Signal = t.Def.Kind, actionOf(t.Def, rec.end), o.params, o.more, ""
	d.Reused = &pipeline.Reused{Run: b.source.ID, Seq: rec.seq}
	d.State, d.Rule = nil, 0
	if b.notes == nil {
		var fail *pipeline.Failure
		if d.Published, fail = r.transfer(d.Published); fail != nil {
			return func() { r.finish(t, fail, o.params) }
		}
	}
	d = r.withState(t, d)
	return func() {
		if b.notes != nil {
			b.notes.reuse(t)
		}
		r.reused(t, rec, d, o.consumed)
	}
}

// reused records the end of a step that was taken from another run.
func (r *runState) reused(t *pipeline.Task, rec *record, d pipeline.Data, consumed []pipeline.Version) {
	if len(consumed) > 0 {
		r.record(pipeline.StepStarted, t.Path, rec.attempt, pipeline.Data{
			Kind: d.Kind, Action: d.Action, Parameters: d.Parameters, Consumed: consumed, Given: d.Given,
		})
	}
	if d.Status == pipeline.StepCompleted {
		d.Published = r.numbered(slices.Clone(d.Published))
	} else {
		d.Published = nil
	}
	r.record(pipeline.StepFinished, t.Path, rec.attempt, d)
	r.book.deny(t.Path) // it is used up
}

// actionOf is the action of a step as it is recorded.
func actionOf(def *pipeline.StepDef, end *pipeline.Data) string {
	if end.Action != "" {
		return end.Action
	}
	return def.Action
}

// transfer keeps what the versions of artifacts hold with this run too.
func (r *runState) transfer(list []pipeline.Version) ([]pipeline.Version, *pipeline.Failure) {
	ctx, cancel := context.WithTimeout(r.lane.ex.work, blobTimeout)
	defer cancel()
	for i := range list {
		v := &list[i]
		if v.Blob == "" {
			continue
		}
		data, err := r.lane.ex.cfg.Store.Blob(ctx, r.book.source.ID, v.Blob)
		if err == nil {
			_, err = r.lane.ex.cfg.Store.PutBlob(ctx, r.run.ID, data)
		}
		if err != nil {
			return nil, pipeline.Failuref(pipeline.CategorySystem, "use version %d of the artifact %s of run %s again: %v", v.Version, v.Artifact, r.book.source.ID, err)
		}
	}
	return list, nil
}

// moves reports whether using the record of an instance again moves content in
// the store, which the lane must not wait for.
func (b *book) moves(path pipeline.Path) bool {
	return b.may(path) && b.records[path].end != nil &&
		slices.ContainsFunc(b.records[path].end.Published, func(v pipeline.Version) bool { return v.Blob != "" })
}

// recallWork is recall of a step that runs on the pool, once it is known what it
// would be given. Where it has to begin, what it builds on must be durable first:
// a chain of steps that are reused is not held up by that.
func (r *runState) recallWork(t *pipeline.Task, w *work, effect pipeline.Effect, red *redactor) func() bool {
	if !r.book.may(t.Path) && !r.book.previews() {
		return nil
	}
	o := &offer{
		params: red.value(w.shown), consumed: w.consumed, more: w.beyond(r.run.ID, t.Def),
		tame: effect == pipeline.EffectPure || w.action.Spec.Model && t.Def.Kind == pipeline.KindAction,
	}
	end := r.recall(t, o)
	if end == nil {
		task := *t
		return func() bool {
			r.book.deny(task.Path)
			r.begin(&task)
			return false
		}
	}
	return func() bool { end(); return false }
}

// replay ends a step as its source did, whatever that was; a step that the source
// has no end of fails.
func (r *runState) replay(t *pipeline.Task, o *offer) func() {
	b := r.book
	rec := b.records[t.Path]
	if rec == nil || rec.seq == 0 || rec.skipped && rec.end.Reason != pipeline.ReasonCondition {
		fail := &pipeline.Failure{
			Kind: pipeline.CategorySystem, Reason: pipeline.ReasonNotRecorded,
			Message: fmt.Sprintf("run %s has no result of this step, and a replay runs nothing", b.source.ID),
		}
		return func() {
			d := pipeline.Data{Kind: t.Def.Kind, Action: t.Def.Action, Parameters: o.params, Status: pipeline.StepFailed, Error: fail, Reason: fail.Reason}
			r.record(pipeline.StepFinished, t.Path, 1, d)
		}
	}
	d := *rec.end
	if rec.skipped {
		return func() { r.record(pipeline.StepWasSkipped, t.Path, 0, d) }
	}
	d.Kind, d.Action, d.Signal = t.Def.Kind, actionOf(t.Def, rec.end), ""
	d.Parameters, d.Given = o.params, o.more
	d.Reused = &pipeline.Reused{Run: b.source.ID, Seq: rec.seq, Differs: b.differs(t, rec, r.run.ID, o)}
	if !leaf(t.Def) {
		d.Reused = nil // it is computed
	}
	var fail *pipeline.Failure
	if d.Published, fail = r.transfer(d.Published); fail != nil {
		return func() { r.finish(t, fail, o.params) }
	}
	return func() { r.reused(t, rec, d, o.consumed) }
}

// replayWork is replay of a step that runs on the pool. What it would be given
// now is only to be compared.
func (r *runState) replayWork(ev evaluation, t *pipeline.Task, red *redactor) func() bool {
	o := &offer{}
	w, fail := r.compose(ev, t, red)
	if fail == nil {
		_, fail = r.environment(ev, t, w, nil)
	}
	if fail == nil {
		o = &offer{params: red.value(w.shown), consumed: w.consumed, more: w.beyond(r.run.ID, t.Def)}
	}
	end := r.replay(t, o)
	return func() bool { end(); return false }
}

// replayed answers a task of control flow from the records; nil: it is evaluated
// as ever, of what was reused.
func (r *runState) replayed(t *pipeline.Task) func() {
	b := r.book
	switch t.Kind {
	case pipeline.TaskBegin:
		rec := b.records[t.Path]
		if rec != nil && rec.begin != nil && t.Def.Block() {
			d := *rec.begin
			return func() { r.record(pipeline.StepStarted, t.Path, t.Attempt, d) }
		}
		return r.replay(t, r.offered(t))
	case pipeline.TaskPass:
		d := b.passes[passKey(t.PassPath(), true)]
		return func() {
			if d == nil {
				r.m.EndLoop(t.Path)
				return
			}
			r.record(pipeline.StateSet, t.PassPath(), 0, *d)
		}
	case pipeline.TaskCollect:
		if d := b.passes[passKey(t.PassPath(), false)]; d != nil {
			return func() { r.record(pipeline.StateSet, t.PassPath(), 0, *d) }
		}
	case pipeline.TaskSkip, pipeline.TaskClose, pipeline.TaskFinish:
	}
	return nil
}

// offered is what a step of control flow that a fork can reuse is given, as far
// as it can be evaluated.
func (r *runState) offered(t *pipeline.Task) *offer {
	o := &offer{}
	if !leaf(t.Def) {
		return o
	}
	if params, fail := r.asked(t, r.evaluation(r.m.Scope(t.Path))); fail == nil {
		o.params = params
	}
	return o
}

// asked is what a step that waits, asks or begins another run is given, as it is
// recorded.
func (r *runState) asked(t *pipeline.Task, ev evaluation) (any, *pipeline.Failure) {
	params := map[string]any{}
	add := func(name string, f *pipeline.Field, what string) *pipeline.Failure {
		if f == nil {
			return nil
		}
		v, fail := ev.field(f, what)
		params[name] = v
		return fail
	}
	var fail *pipeline.Failure
	first := func(f *pipeline.Failure) {
		if fail == nil {
			fail = f
		}
	}
	switch {
	case t.Def.Wait != nil:
		w := t.Def.Wait
		first(add("for", w.For, "wait.for"))
		first(add("until", w.Until, "wait.until"))
		first(add("signal", w.Signal, "wait.signal"))
		first(add("files", w.Files, "wait.files"))
	case t.Def.Ask != nil:
		first(add("question", &t.Def.Ask.Question, "question"))
		first(add("choices", t.Def.Ask.Choices, "choices"))
	case t.Def.Call != nil:
		with, fail := ev.entries(t.Def.Call.With, "with")
		if fail != nil {
			return nil, fail
		}
		inputs, err := spec.Inputs(&pipeline.Plan{Unit: *r.prog.plan.Units[t.Def.Call.Unit]}, with)
		return inputs, asFailure(err)
	}
	return params, fail
}

// inLedger reports whether the source has entered what a compete block gives, and
// nothing of the block has run again.
func (r *runState) inLedger(t *pipeline.Task) bool {
	b := r.book
	if b == nil {
		return false
	}
	rec, step := b.records[t.Path], b.plan.steps[stepKey(t.Path)]
	return b.notes != nil || rec != nil && rec.seq > 0 && rec.end.Status == pipeline.StepCompleted && step != nil && !step.ran
}

// resolvedItems are the items that a loop found in the source, where they are
// read from files or the clock and nothing has changed since; nil: they are
// looked for again.
func (r *runState) resolvedItems(t *pipeline.Task) []any {
	b := r.book
	if b == nil || !r.prog.impure[t.Def] || !b.may(t.Path) {
		return nil
	}
	rec, step := b.records[t.Path], b.plan.steps[stepKey(t.Path)]
	if rec.begin == nil || step == nil || step.shaken != "" || step.final || b.cut > 0 && rec.begun >= b.cut || rec.is == "" || rec.is != b.is[t.Def] {
		return nil
	}
	return rec.begin.Items
}
