package executor

import (
	"context"
	"errors"
	"time"

	"github.com/orchestrator-project/orchestrator/pipeline"
	"github.com/orchestrator-project/orchestrator/store"
)

const (
	// workerSafety is how long a run that waits for a worker is at most parked:
	// the process that would have woken it may have died.
	workerSafety = 5 * time.Minute
	// maxDormant is how many parked runs one process remembers for each kind of
	// worker that they wait for. The others are woken by workerSafety.
	maxDormant = 100_000
)

// dormant is the parked runs that wait for the same of a worker.
type dormant struct {
	def  *pipeline.StepDef // any of the steps
	runs []pipeline.RunID
}

// goAbroad finds a worker for a step, once it is known that the step runs.
func (r *runState) goAbroad(t *pipeline.Task) {
	if carries(t.Def) == "" {
		r.finish(t, &pipeline.Failure{
			Kind: pipeline.CategoryValidation, Reason: reasonLabels,
			Message: "a skill without a command asks a model, which workers do not do; leave out worker",
		}, nil)
		return
	}
	task := *t
	r.aside(t.Def, func() func() {
		run := true
		if task.Def.Condition != nil && r.m.Step(task.Path).Status == pipeline.StepPending {
			var fail *pipeline.Failure
			if run, fail = r.evaluation(r.m.Scope(task.Path)).test(task.Def.Condition, "condition"); fail != nil {
				return func() { r.finish(&task, fail, nil) }
			}
		}
		return func() {
			switch {
			case !run:
				r.skipped(&task)
			case r.distant >= r.farLimit():
				r.later = append(r.later, task)
			default:
				r.standInLine(task)
			}
		}
	})
}

// farLimit is how many steps of the run may be with workers, or in line for them.
func (r *runState) farLimit() int {
	if m := r.m.Plan.Settings.MaxParallel; m > 0 {
		return max(1, m-r.running)
	}
	return r.lane.ex.cfg.RunSteps
}

// standInLine waits for a worker. Where none is connected that could ever take
// the step, the log says so, and the run may be parked.
func (r *runState) standInLine(t pipeline.Task) {
	r.distant++
	c := r.lane.ex.crew
	c.stand(want{run: r, task: t})
	if !c.near(t.Def) {
		r.stranded(t)
	}
}

// stranded notes that nobody is there who could take a step in line.
func (r *runState) stranded(t pipeline.Task) {
	if r.over() || r.lane.ex.crew.near(t.Def) {
		return
	}
	if w, _ := r.waiter(t.Path, t.Def, pipeline.WaitWorker); w != nil {
		r.rest()
		return
	}
	if r.m.Paused() || !r.m.Stands(&t) {
		return
	}
	r.record(pipeline.StepIsWaiting, t.Path, t.Attempt, pipeline.Data{
		Kind: t.Def.Kind, Action: t.Def.Action, Waiting: &pipeline.Waiting{For: pipeline.WaitWorker, Labels: t.Def.Worker},
	})
	r.rest()
}

// awaitWorker stands in line again for a step that waited when its run was parked
// or lost its owner.
func (r *runState) awaitWorker(path pipeline.Path, def *pipeline.StepDef) {
	r.do(func() {
		if t, _ := r.waiter(path, def, pipeline.WaitWorker); t != nil {
			r.standInLine(*t)
		}
	})
}

// seated gives a step to the worker that has a seat for it.
func (r *runState) seated(t pipeline.Task, s seat) {
	r.distant--
	t2, _ := r.waiter(t.Path, t.Def, pipeline.WaitWorker)
	if r.over() || r.lane.stopping || t2 == nil && !r.m.Stands(&t) || r.shelve(&t) {
		r.lane.ex.crew.free(s)
		r.lineUp()
		return
	}
	launch := func(f func() bool) {
		if r.over() || !f() {
			r.lane.ex.crew.free(s)
		} else {
			r.distant++ // it is done with once its attempt has ended
		}
		if !r.over() {
			r.lineUp()
			r.pump()
		}
	}
	if !r.prog.impure[t.Def] {
		launch(r.prepare(&t, &s))
		return
	}
	r.busy = true
	r.lane.ex.tasks.Go(func() {
		f := r.prepare(&t, &s)
		r.lane.post(func() {
			r.busy = false
			launch(f)
			r.drain()
		})
	})
}

// lineUp lets the next steps of the run stand in line.
func (r *runState) lineUp() {
	for len(r.later) > 0 && r.distant < r.farLimit() && !r.over() {
		t := r.later[0]
		r.later = r.later[1:]
		if r.m.Stands(&t) {
			r.standInLine(t)
		}
	}
}

// repeatAbroad begins again what a worker has lost or declined.
func (r *runState) repeatAbroad(j *job, why error) {
	if s := r.m.Step(j.task.Path); s == nil || s.Status != pipeline.StepRunning {
		return
	}
	if !errors.Is(why, errDeclined) && j.a.effect == pipeline.EffectAtMostOnce {
		what := " is gone"
		if errors.Is(why, errHandedBack) {
			what = " has given it back"
		}
		r.doubt(&j.task, j.work.key, j.promised(), "The worker "+j.a.worker+" that ran the step "+string(j.task.Path)+what+", and the step may have taken effect.")
		r.pump()
		return
	}
	d := pipeline.Data{Reason: pipeline.ReasonWorkerLost, Due: r.lane.ex.cfg.Now().UTC(), Error: &pipeline.Failure{
		Kind: pipeline.CategorySystem, Reason: pipeline.ReasonWorkerLost,
		Message: "the worker " + j.a.worker + " is gone; the step is begun again elsewhere",
	}}
	if !errors.Is(why, errWorkerLost) {
		d.Reason = pipeline.ReasonWorkerDeclined
		d.Error.Reason, d.Error.Message = d.Reason, "the worker "+j.a.worker+" has given the step back"
	}
	r.record(pipeline.StepRetrying, j.task.Path, j.task.Attempt, d)
	r.pump()
}

// sendAway gives a step to a worker once its start is durable: whoever owns the
// run then knows that a worker has it.
func (j *job) sendAway(s seat) func() bool {
	r, t := j.r, &j.task
	token := r.token(t.Path, t.Attempt)
	x := r.lane.ex.crew.errand(s, r.assignment(t, j.work, j.env, token), j.work.redact)
	j.runner, j.limit = x, j.task.Def.TimeoutOf(r.m.Tries(t.Path))
	j.a.abroad, j.a.hear, j.a.worker = true, x.hear, s.hand.info.Name
	return func() bool {
		r.record(pipeline.StepStarted, t.Path, t.Attempt, pipeline.Data{
			Kind: t.Def.Kind, Action: j.work.key, Parameters: j.work.redact.value(j.work.shown), Worker: j.a.worker, Remote: true,
			Consumed: j.work.consumed, Given: j.work.beyond(r.run.ID, j.task.Def),
		})
		r.lane.whenDurable(r, r.m.Seq, j.launch)
		return true
	}
}

// travels reports whether a task is for a worker. What has become of an attempt
// elsewhere, or of one that nobody may repeat, is settled here.
func (r *runState) travels(t *pipeline.Task) bool {
	return r.lane.ex.abroad(t.Def) && r.settling(t.Path) == nil && !(t.Interrupted && r.lane.ex.effectAbroad(t.Def) == pipeline.EffectAtMostOnce)
}

// effectAbroad is what is known of a step's effect before its parameters are: what
// the step says, else its action.
func (e *Executor) effectAbroad(def *pipeline.StepDef) pipeline.Effect {
	if def.Effect != "" || def.Kind != pipeline.KindAction || def.Action == "" {
		return def.Effect
	}
	if a := e.actions[def.Action]; a != nil {
		return a.Spec.Effect
	}
	return e.crew.brought(def.Action).Spec.Effect
}

// sleep remembers a run that is parked until a worker comes.
func (c *crew) sleep(r *runState) {
	waits := r.m.Waits()
	for i := range waits {
		def := waits[i].Def
		if waits[i].Waiting.For != pipeline.WaitWorker {
			continue
		}
		c.remember(r.run.ID, def)
	}
}

func (c *crew) remember(run pipeline.RunID, def *pipeline.StepDef) {
	c.mu.Lock()
	defer c.mu.Unlock()
	key := needOf(def)
	d := c.dormant[key]
	if d == nil {
		d = &dormant{def: def}
		c.dormant[key] = d
	}
	if len(d.runs) < maxDormant {
		d.runs = append(d.runs, run)
	}
	c.rouse()
}

// rouse wakes parked runs for which a worker has room, as many as it has room
// for. crew.mu is held.
func (c *crew) rouse() {
	for key, d := range c.dormant {
		room := 0
		for _, h := range c.hands {
			if h.open(d.def.Worker, carries(d.def), d.def.Resources) {
				room += int(h.info.Slots) - h.taken()
			}
		}
		n := min(room, len(d.runs))
		if n <= 0 {
			continue
		}
		wake := d.runs[:n:n]
		if d.runs = d.runs[n:]; len(d.runs) == 0 {
			delete(c.dormant, key)
		}
		c.ex.tasks.Go(func() { c.wake(wake) })
	}
}

func (c *crew) wake(runs []pipeline.RunID) {
	for _, id := range runs {
		err := c.ex.cfg.Store.Send(c.ex.work, id, store.Message{Kind: store.MessageWorker, Actor: string(c.ex.cfg.Replica)})
		if err != nil && c.ex.work.Err() == nil && pipeline.KindOf(err) != pipeline.Conflict && pipeline.KindOf(err) != pipeline.NotFound {
			c.ex.log.Warn("run not woken for a worker; it looks again by itself", "run", id, "err", err)
		}
	}
}

// scan wakes the runs that were parked before this process began, or by others
// that are gone, once the first worker is there.
func (c *crew) scan() {
	q := store.Query{Status: []pipeline.RunStatus{pipeline.RunWaiting}, Limit: 500}
	for {
		page, err := c.ex.cfg.Store.Runs(c.ex.work, q)
		if err != nil {
			if c.ex.work.Err() == nil {
				c.ex.log.Warn("runs that wait for a worker not found; they look again by themselves", "err", err)
			}
			return
		}
		var wake []pipeline.RunID
		for _, run := range page.Runs {
			if run.Reason == pipeline.WaitWorker {
				wake = append(wake, run.ID)
			}
			q.Before = run.ID
		}
		c.wake(wake)
		if !page.More {
			return
		}
	}
}

// announce tells the other servers, for their workers, where this one is.
func (e *Executor) announce(ctx context.Context) error {
	if e.cfg.Advertise == "" {
		return nil
	}
	return e.cfg.Store.Announce(ctx, e.cfg.Replica, e.cfg.Advertise)
}

// peers are the addresses of all servers that share the store and say theirs.
func (c *crew) peers(ctx context.Context) []string {
	list, err := c.ex.cfg.Store.Peers(ctx)
	if err != nil && ctx.Err() == nil {
		c.ex.log.Warn("addresses of the other servers not read", "err", err)
	}
	return list
}

// leaveAbroad lets go of what workers carry out, without a word to them: the next
// owner hears of it from them.
func (r *runState) leaveAbroad() {
	for _, a := range r.attempts {
		if a.abroad {
			a.cancel(errStopped)
		}
	}
}
