package executor

import (
	"context"
	"errors"
	"time"

	"github.com/orchestrator-project/orchestrator/pipeline"
	"github.com/orchestrator-project/orchestrator/store"
)

// adoption is the wait of a run's new owner for an attempt that may still be
// under way elsewhere: in a process that has lost its lease, or with a worker.
type adoption struct {
	task   *pipeline.Task // begins the step again when nobody claims the attempt; nil: not asked for yet
	until  time.Time      // zero: not begun
	over   bool           // nobody holds the attempt
	report *Report        // what came of it
	holder *Report        // who has last said that it goes on; nil: nobody
}

// loss is why a run of these events and messages lost its owner.
func loss(parting string, messages []store.Message) string {
	if parting != pipeline.ReasonOwnerDied {
		return parting
	}
	for i := range messages {
		if messages[i].Kind == store.MessageExpired {
			return pipeline.ReasonLeaseExpired
		}
	}
	return parting
}

// adopted is the adoption of a step's attempt, which is begun with its first use.
func (r *runState) adopted(path pipeline.Path) *adoption {
	a := r.adoptions[path]
	if a == nil {
		if r.adoptions == nil {
			r.adoptions = map[pipeline.Path]*adoption{}
		}
		a = &adoption{}
		r.adoptions[path] = a
	}
	return a
}

// settling is what was reported of the attempt of a step that this process does
// not carry out; nil: nothing that ends it.
func (r *runState) settling(path pipeline.Path) *Report {
	if a := r.adoptions[path]; a != nil {
		return a.report
	}
	return nil
}

// awaitHolder keeps the task of a step whose attempt may still be under way
// elsewhere, and reports whether it did.
func (r *runState) awaitHolder(t *pipeline.Task) bool {
	s := r.m.Step(t.Path)
	wait := r.lane.ex.cfg.AdoptionWait
	switch {
	case s.Remote:
		wait = r.lane.ex.cfg.RemoteWait
	case s.Lost != pipeline.ReasonLeaseExpired && r.adoptions[t.Path] == nil:
		return false
	}
	a := r.adopted(t.Path)
	if a.over || a.report != nil || r.m.Cancels(t.Path) {
		return false
	}
	now := r.lane.ex.cfg.Now()
	if a.until.IsZero() {
		a.until = now.Add(wait)
	}
	left := a.until.Sub(now)
	if left <= 0 {
		a.over = true
		return false
	}
	task := *t
	a.task = &task
	r.after(left, func() { r.goOn(task.Path) })
	return true
}

// goOn looks again at a step whose attempt was waited for.
func (r *runState) goOn(path pipeline.Path) {
	if a := r.adoptions[path]; a != nil && a.task != nil {
		task := *a.task
		a.task = nil
		r.task(&task)
		r.pump()
	}
}

// cancelAdoptions no longer waits for attempts that are not wanted.
func (r *runState) cancelAdoptions() {
	for path, a := range r.adoptions {
		if a.task != nil && r.m.Cancels(path) {
			r.lane.post(func() { r.do(func() { r.goOn(path) }) })
		}
	}
}

// heardOf takes what was said of an attempt that nobody here carries out.
func (r *runState) heardOf(path pipeline.Path, rep *Report) {
	a := r.adopted(path)
	switch rep.State {
	case ReportHeld:
		// As long as the step may take; its holder dies with less.
		wait := r.lane.ex.cfg.AdoptionGrace
		if s := r.m.Step(path); s != nil {
			if def := r.m.Def(path); def != nil {
				if limit := def.TimeoutOf(r.m.Tries(path)); limit > 0 {
					wait = min(wait, limit)
				}
			}
		}
		a.over, a.holder = false, rep
		a.until = r.lane.ex.cfg.Now().Add(wait)
	case ReportLost:
		a.over = true
		r.goOn(path)
	case ReportFinished:
		a.report = rep
		r.goOn(path)
	}
}

// settle records what came of an attempt that was carried out elsewhere, as if it
// had ended here: its number stays.
func (r *runState) settle(t *pipeline.Task, w *work, env Env, effect pipeline.Effect, rep *Report) func() bool {
	task := *t
	task.Attempt = r.m.Step(t.Path).Attempt
	env.Attempt = task.Attempt
	j := &job{r: r, task: task, a: &attempt{number: task.Attempt, effect: effect, adopted: true}, env: env, work: w}
	return func() bool {
		ex := r.lane.ex
		ctx, cancel := context.WithCancelCause(ex.work)
		j.a.cancel = cancel
		r.attempts[task.Path] = j.a
		j.begun = ex.cfg.Now()
		ex.tasks.Go(func() {
			log := ex.logs.writer(env.Run, env.Path, env.Attempt, w.redact)
			j.env.Log = log.write
			out, err := j.reported(ctx, rep)
			log.flush()
			cause := context.Cause(ctx)
			cancel(nil)
			r.lane.post(func() { j.done(out, err, cause) })
		})
		return true
	}
}

// reported is the outcome of an attempt as its holder tells it. A worker knows
// nothing of what the step promises; another server has seen to it.
func (j *job) reported(ctx context.Context, rep *Report) (Output, error) {
	out := Output{Value: rep.Output, Model: rep.Model, Usage: rep.Usage}
	if rep.Error != nil {
		return out, rep.Error
	}
	if rep.checked {
		j.a.published = rep.published
		return out, nil
	}
	if err := j.r.lane.ex.bringBack(ctx, j.env.Run, j.env.Workspace, rep.Files); err != nil {
		return out, err
	}
	var fail *pipeline.Failure
	if out.Value, fail = j.result(out.Value); fail == nil {
		j.a.published, fail = j.publish(ctx, out.Value)
	}
	if fail != nil {
		return out, fail
	}
	return out, nil
}

// orphan is an attempt that goes on although its run has another owner.
type orphan struct {
	token  AttemptToken
	cancel context.CancelCauseFunc
	grace  *time.Timer
	bundle string
}

// orphans lets the attempts of a fenced lane go on, and offers them and what
// they have given to the next owners.
func (l *lane) orphans() {
	ex := l.ex
	grace := ex.cfg.Now().Add(ex.cfg.AdoptionGrace)
	var held []*Report
	for _, r := range l.runs {
		for path, a := range r.attempts {
			o := &orphan{token: r.token(path, a.number), cancel: a.cancel, bundle: ex.bundleDir(r.prog.plan.Bundle)}
			o.grace = time.AfterFunc(ex.cfg.AdoptionGrace, func() { o.cancel(errFenced) })
			ex.bundles.hold(o.bundle, 1)
			ex.orphaned.Add(1)
			a.orphan = o
			held = append(held, &Report{Token: o.token, State: ReportHeld, Worker: string(ex.cfg.Replica)})
		}
	}
	held = append(held, l.unrecorded()...)
	if len(held) == 0 {
		return
	}
	ex.tasks.Go(func() {
		for _, rep := range held {
			ex.insist(rep, grace)
		}
	})
}

// unrecorded is what came of attempts whose records were lost with the lease.
func (l *lane) unrecorded() []*Report {
	var list []*Report
	look := func(run pipeline.RunID, events []pipeline.Event) {
		key := l.ex.signer.Load()
		for i := range events {
			e := &events[i]
			// Only attempts end without their kind being named again.
			if e.Type != pipeline.StepFinished && e.Type != pipeline.StepRetrying || e.Data.Kind != "" || e.Data.Status == pipeline.StepCancelled || key == nil {
				continue
			}
			list = append(list, &Report{
				Token: attemptID{Run: run, Path: e.Path, Attempt: e.Attempt, Epoch: l.epoch}.sign(*key), State: ReportFinished,
				Output: e.Data.Output, Error: e.Data.Error, Usage: e.Data.Usage, Model: e.Data.Model, Worker: string(l.ex.cfg.Replica),
				checked: true, published: e.Data.Published,
			})
		}
	}
	batches := []*store.Batch{l.batch}
	if l.sent != nil {
		batches = []*store.Batch{l.sent.batch, l.batch}
	}
	for _, b := range batches {
		for i := range b.Append {
			look(b.Append[i].Run, b.Append[i].Events)
		}
	}
	return list
}

// insist reports until somebody has heard it, or nobody can use it any more.
func (e *Executor) insist(rep *Report, until time.Time) {
	wait := 50 * time.Millisecond
	for {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(e.work), reportTimeout)
		err := e.Report(ctx, *rep)
		cancel()
		switch {
		case err == nil:
			return
		case pipeline.KindOf(err) == pipeline.Conflict, pipeline.KindOf(err) == pipeline.NotFound:
			e.log.Info("attempt of a lost run not adopted", "state", rep.State, "err", err)
			return
		case e.work.Err() != nil, e.cfg.Now().After(until):
			e.log.Warn("attempt of a lost run not reported", "state", rep.State, "err", err)
			return
		}
		select {
		case <-e.work.Done():
		case <-time.After(wait):
		}
		wait = min(2*wait, 3*time.Second)
	}
}

// reportTimeout is how long one try to report may take.
const reportTimeout = 5 * time.Second

// afterLoss reports how an attempt ended whose run has another owner.
func (j *job) afterLoss(out Output, err error, cause error) {
	o := j.a.orphan
	if o == nil {
		return
	}
	ex := j.r.lane.ex
	o.grace.Stop()
	rep := &Report{Token: o.token, State: ReportFinished, Worker: string(ex.cfg.Replica)}
	if errors.Is(cause, errStopped) || errors.Is(cause, errFenced) {
		rep.State = ReportLost
	} else {
		out, fail := j.outcome(out, err, cause)
		rep.Output, rep.Error, rep.Usage, rep.Model = out.Value, fail, out.Usage, out.Model
		rep.checked, rep.published = true, j.a.published
	}
	until := ex.cfg.Now().Add(ex.cfg.AdoptionGrace)
	ex.tasks.Go(func() {
		ex.insist(rep, until)
		ex.bundles.hold(o.bundle, -1)
		ex.orphaned.Done()
	})
}
