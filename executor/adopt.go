package executor

import (
	"errors"
	"time"

	"github.com/orchestrator-project/orchestrator/pipeline"
	"github.com/orchestrator-project/orchestrator/store"
)

// take makes the lane own a run that has come as far as m.
func (l *lane) take(run *pipeline.Run, prog *program, m *pipeline.Machine) *runState {
	r := &runState{
		lane: l, run: run, prog: prog, m: m, book: l.ex.bookFor(run), workspace: l.ex.workspace(run, prog.plan),
		attempts: map[pipeline.Path]*attempt{}, timers: map[*time.Timer]struct{}{}, taken: m.Seq,
	}
	r.trace = l.ex.traceOf(run, m.Trace())
	r.m.SetDir(l.ex.bundleDir(prog.plan.Bundle))
	vars, fail := r.evaluation(r.m.Scope("")).vars(prog.plan.Vars)
	r.barred = fail
	r.m.SetVars(vars)
	r.late = m.Late()
	l.runs[run.ID] = r
	l.size.Store(int32(len(l.runs))) //nolint:gosec // at most Config.Runs
	l.ex.bundles.hold(l.ex.bundleDir(prog.plan.Bundle), 1)
	l.ex.met.active.Inc()
	if !r.m.Run.StartedAt.IsZero() {
		r.limitTime()
	}
	return r
}

// adopt goes on with a run whose past is durable.
func (l *lane) adopt(run *pipeline.Run, prog *program, p past, messages []store.Message, fresh bool) *runState {
	r := l.take(run, prog, p.m)
	r.saved = p.saved
	r.durable = r.m.Seq
	r.arriving = true
	r.files.touched = !fresh && r.m.Run.Status != pipeline.RunWaiting
	switch {
	case r.m.Run.Status.Final():
		// Its end was recorded but its row was not: only possible after a defect.
		r.finished = true
		l.row(r)
		return r
	case r.m.Run.StartedAt.IsZero():
		r.record(pipeline.RunStarted, "", 0, pipeline.Data{})
		r.limitTime()
	case r.m.Run.Status == pipeline.RunWaiting:
		r.asleep = true // until something happens
	case r.m.Paused() && (!r.m.InFlight() || run.Status == pipeline.RunPaused): // it was parked so, and begins nothing
	case !fresh:
		r.record(pipeline.RunResumed, "", 0, pipeline.Data{Reason: loss(parting(p.m), messages)})
	}
	if p.lost != nil {
		r.record(pipeline.WorkspaceLost, "", 0, *p.lost)
	}
	if r.m.Ending() == pipeline.SignalCancel {
		r.cancelChildren()
	}
	waits := r.m.Waits()
	for i := range waits {
		r.awaitAgain(&waits[i])
	}
	return r
}

// setOff sets a run going that the lane has just taken.
func (r *runState) setOff() {
	r.arriving = false
	if r.barred != nil && !r.over() {
		r.end(pipeline.Data{RunStatus: pipeline.RunFailed, Reason: "vars_failed", Error: r.barred})
		return
	}
	r.pump()
}

// limitTime ends the run when its own timeout has passed.
func (r *runState) limitTime() {
	if due := r.deadline(); !due.IsZero() {
		r.after(due.Sub(r.lane.ex.cfg.Now()), func() {
			if r.m.Paused() {
				return // it counts once the run goes on
			}
			r.late = true
			r.signal(pipeline.SignalTimeout, nil, "")
		})
	}
}

// deadline is when the run's own timeout ends it; zero: never, or it has.
func (r *runState) deadline() time.Time {
	limit := r.prog.plan.Settings.Timeout
	if limit <= 0 || r.late {
		return time.Time{}
	}
	return r.m.Run.StartedAt.Add(limit)
}

// drop lets go of a run.
func (l *lane) drop(r *runState) {
	if r.gone {
		return
	}
	r.gone = true
	r.stopTimers()
	if r.distant > 0 {
		l.ex.crew.leave(r)
	}
	if !r.parked {
		l.ex.watch.forget(r.run.ID)
	}
	delete(l.runs, r.run.ID)
	l.size.Store(int32(len(l.runs))) //nolint:gosec // at most Config.Runs
	l.ex.bundles.hold(l.ex.bundleDir(r.prog.plan.Bundle), -1)
	l.ex.met.active.Dec()
	if l.ex.cfg.Left != nil {
		l.ex.cfg.Left(r.run.ID)
	}
}

// claimed goes on with runs from the queue: their logs are read elsewhere.
func (l *lane) claimed(runs []*pipeline.Run, asked int, err error) {
	l.claiming = false
	if err != nil {
		if errors.Is(err, store.ErrFenced) { // unless the lease can be renewed
			l.claim, l.check = true, true
			return
		}
		l.ex.log.Warn("queue not read", "err", err)
		time.AfterFunc(time.Second, func() { l.post(func() { l.claim = true }) })
		return
	}
	l.claim = l.claim || len(runs) == asked
	l.ex.crowded.Store(len(runs) == asked)
	if !l.claim {
		l.ex.queued.Store(false)
	}
	for _, run := range runs {
		l.load(run)
	}
}

// load reads a claimed run's log and goes on with it.
func (l *lane) load(run *pipeline.Run) {
	l.loading[run.ID] = false
	l.ex.tasks.Go(func() {
		prog, past, messages, err := l.ex.read(run)
		if err == nil {
			err = l.ex.keepBook(run, prog)
		}
		l.post(func() {
			if l.fenced || l.stopping {
				return // it is queued again with the lane's release
			}
			if err != nil {
				l.ex.log.Error("run not read; trying again", "run", run.ID, "err", err)
				time.AfterFunc(time.Second, func() {
					l.post(func() {
						if !l.fenced && !l.stopping {
							l.load(run)
						}
					})
				})
				return
			}
			rung := l.loading[run.ID]
			delete(l.loading, run.ID)
			if past.m == nil {
				l.ex.log.Error("run cannot be taken over", "run", run.ID, "err", past.broken)
				return
			}
			r := l.adopt(run, prog, past, messages, false)
			l.deliver(messages)
			if rung {
				l.readInbox([]pipeline.RunID{run.ID})
			}
			r.do(r.setOff)
		})
	})
}
