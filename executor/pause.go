package executor

import (
	"time"

	"github.com/orchestrator-project/orchestrator/pipeline"
	"github.com/orchestrator-project/orchestrator/store"
)

// pause lets a run hand out nothing more. What it has begun ends and is
// recorded; then the run is parked, and costs rows until somebody resumes it.
func (r *runState) pause(actor string) {
	if r.over() || r.m.Paused() || r.m.Ending() != "" {
		return
	}
	r.record(pipeline.RunIsPaused, "", 0, pipeline.Data{Actor: actor})
	r.lane.row(r)
}

// unpause lets a paused run go on.
func (r *runState) unpause(actor string) {
	if r.over() || !r.m.Paused() {
		return
	}
	r.record(pipeline.RunResumed, "", 0, pipeline.Data{Reason: pipeline.ReasonUnpaused, Actor: actor})
	r.unpaused()
}

// unpaused carries out what came up while the run was paused, in its order.
func (r *runState) unpaused() {
	r.lane.row(r)
	if due := r.deadline(); !due.IsZero() && !due.After(r.lane.ex.cfg.Now()) {
		r.limitTime()
	}
	shelf, deferred := r.shelf, r.deferred
	r.shelf, r.deferred = nil, nil
	for i := range shelf {
		r.do(func() { r.task(&shelf[i]) })
	}
	waits := r.m.Waits()
	for i := range waits {
		r.awaitAgain(&waits[i])
	}
	for i := range deferred {
		r.do(func() { r.receive(&deferred[i]) })
	}
	r.do(r.pump)
}

// shelve keeps a task that may not be done now: of a paused run, and the end of
// one that has not yet told its children to end too.
func (r *runState) shelve(t *pipeline.Task) bool {
	if !r.m.Paused() && (!r.bequeathing || t.Kind != pipeline.TaskFinish) {
		return false
	}
	r.shelf = append(r.shelf, *t)
	return true
}

// putOff keeps a message that waits until the run is resumed.
func (r *runState) putOff(m *store.Message) bool {
	switch m.Kind {
	case store.MessageSignal, store.MessageDecision, store.MessageFiles:
	default:
		return false
	}
	if !r.m.Paused() {
		return false
	}
	r.deferred = append(r.deferred, *m)
	return true
}

// restPaused parks a paused run once nothing of it is under way. Its tasks and
// messages are found again by whoever resumes it. A lane that stops hands it over
// instead: attempts that were cut short there must be begun again by the next owner.
func (r *runState) restPaused() {
	if r.lane.stopping || r.createdIn != nil || r.running+r.looking > 0 || len(r.attempts)+len(r.adoptions)+len(r.backlog) > 0 {
		return
	}
	if r.saveFiles() {
		return
	}
	for i := range r.deferred {
		delete(r.lane.taken, r.deferred[i].ID)
	}
	r.park(time.Time{})
	r.lane.ex.watch.forget(r.run.ID)
}
