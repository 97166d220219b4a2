package executor

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"time"

	"github.com/orchestrator-project/orchestrator/pipeline"
	"github.com/orchestrator-project/orchestrator/store"
)

// runState is a run in the hands of a lane. Only the lane's goroutine touches
// it, except while busy, when only the goroutine that evaluates for it does.
type runState struct {
	lane      *lane
	run       *pipeline.Run
	prog      *program
	m         *pipeline.Machine
	workspace string

	durable   int32 // the newest committed seq
	held      []heldTask
	ready     []pipeline.Task // may start as soon as the pool grants a slot
	asking    bool            // a request to the pool is out
	running   int
	attempts  map[pipeline.Path]*attempt
	timers    map[*time.Timer]struct{}
	busy      bool
	backlog   []func()
	createdIn *store.Batch // the batch that holds its Create, until that is committed
	createdAt int          // the index there
	finished  bool         // run_finished is recorded
	gone      bool         // the lane has let go of it
}

// heldTask waits until the events it builds on are durable.
type heldTask struct {
	task  pipeline.Task
	after int32
}

// attempt is one execution of a step.
type attempt struct {
	number int32
	effect pipeline.Effect
	cancel context.CancelCauseFunc
}

var (
	errCancelled = errors.New("the run is being cancelled")
	errStopped   = errors.New("the server is stopping")
	errFenced    = errors.New("this replica has lost the run")
)

// do runs f now, or when the evaluation under way has ended.
func (r *runState) do(f func()) {
	if r.busy {
		r.backlog = append(r.backlog, f)
		return
	}
	f()
}

// record appends an event to the run's log and tells the machine.
func (r *runState) record(typ pipeline.EventType, path pipeline.Path, attempt int32, d pipeline.Data) {
	e := pipeline.Event{Seq: r.m.Seq + 1, Type: typ, Path: path, Attempt: attempt, At: r.lane.ex.cfg.Now().UTC(), Data: d}
	if err := r.m.Apply(&e); err != nil {
		// A bug of ours; the run must not go on from a state nobody understands.
		r.lane.ex.log.Error("event does not follow", "run", r.run.ID, "type", typ, "path", path, "err", err)
		panic(fmt.Sprintf("executor: run %s: %v", r.run.ID, err))
	}
	r.lane.append(r, e)
}

// pump carries out everything that has become possible, until only work that
// somebody else does is left.
func (r *runState) pump() {
	if r.m.Aborting() {
		r.cancelAttempts(errCancelled)
	}
	const yieldAfter = 1000
	for n := 0; !r.busy && !r.gone && !r.finished; {
		if r.lane.events > maxBatchEvents && r.lane.sent != nil {
			r.lane.stalled = append(r.lane.stalled, r)
			return
		}
		tasks := r.m.Next()
		if len(tasks) == 0 {
			break
		}
		for i := range tasks {
			if r.busy {
				rest := tasks[i:]
				r.backlog = append(r.backlog, func() {
					for i := range rest {
						r.task(&rest[i])
					}
				})
				break
			}
			r.task(&tasks[i])
		}
		if n += len(tasks); n >= yieldAfter {
			r.lane.post(func() { r.do(r.pump) })
			return
		}
	}
	if r.m.Aborting() {
		r.cancelAttempts(errCancelled)
	}
}

// task answers one task of the machine.
func (r *runState) task(t *pipeline.Task) {
	if r.gone || r.finished || !r.m.Stands(t) {
		return
	}
	switch t.Kind {
	case pipeline.TaskBegin:
		r.begin(t)
	case pipeline.TaskSkip:
		r.record(pipeline.StepWasSkipped, t.Path, 0, pipeline.Data{Kind: t.Def.Kind, Action: t.Def.Action, Reason: t.Reason})
	case pipeline.TaskPass, pipeline.TaskCollect, pipeline.TaskClose, pipeline.TaskFinish:
		r.evaluate(t)
	}
}

// begin starts a step, or keeps it until it may start.
func (r *runState) begin(t *pipeline.Task) {
	if wait := t.Due.Sub(r.lane.ex.cfg.Now()); !t.Due.IsZero() && wait > 0 {
		task := *t
		r.after(wait, func() { r.task(&task); r.pump() })
		return
	}
	if pure(t.Def) && !r.prog.impure[t.Def] {
		r.proceed(t)
		return
	}
	if after := r.m.Seq; r.durable < after {
		r.lane.eager = true
		r.held = append(r.held, heldTask{*t, after})
		return
	}
	r.proceed(t)
}

// pure reports whether a step may run ahead of the log.
func pure(d *pipeline.StepDef) bool {
	switch d.Kind {
	case pipeline.KindAction, pipeline.KindCommand:
		return d.Effect == pipeline.EffectPure
	default:
		return true
	}
}

// proceed evaluates control flow at once and lines leaves up for the pool.
func (r *runState) proceed(t *pipeline.Task) {
	if t.Def.Kind != pipeline.KindAction && t.Def.Kind != pipeline.KindCommand {
		r.evaluate(t)
		return
	}
	r.ready = append(r.ready, *t)
	r.ask()
}

// ask requests a slot if a step is ready and the run's own limit allows it.
func (r *runState) ask() {
	if r.asking || len(r.ready) == 0 || r.gone || r.running >= r.limit() {
		return
	}
	r.asking = true
	r.lane.ex.pool.request(r)
}

func (r *runState) limit() int {
	n := r.lane.ex.cfg.RunSteps
	if m := r.m.Plan.Settings.MaxParallel; m > 0 && m < n {
		n = m
	}
	return n
}

// granted uses a slot of the pool, or gives it back.
func (r *runState) granted() {
	r.asking = false
	for len(r.ready) > 0 && !r.gone && !r.lane.stopping {
		t := r.ready[0]
		r.ready = r.ready[1:]
		if !r.m.Stands(&t) {
			continue
		}
		if r.start(&t) {
			r.running++
			r.ask()
			r.pump()
			return
		}
		r.pump()
		if r.busy {
			break
		}
	}
	r.lane.ex.pool.release()
	r.ask()
}

// evaluate answers a task by evaluating templates, elsewhere when they read
// files, so that the lane never waits for a disk.
func (r *runState) evaluate(t *pipeline.Task) {
	if t.Def == nil || !r.prog.impure[t.Def] {
		r.answer(t)()
		return
	}
	r.busy = true
	task := *t
	r.lane.ex.tasks.Go(func() {
		if err := makeWorkspace(r.workspace); err != nil {
			r.lane.ex.log.Warn("no workspace", "run", r.run.ID, "err", err)
		}
		finish := r.answer(&task)
		r.lane.post(func() {
			r.busy = false
			if !r.gone {
				finish()
				r.pump()
			}
			r.drain()
		})
	})
}

// drain runs what was put off while the run was busy.
func (r *runState) drain() {
	for len(r.backlog) > 0 && !r.busy {
		f := r.backlog[0]
		r.backlog = r.backlog[1:]
		f()
	}
}

func (r *runState) evaluation(scope pipeline.Scope) evaluation {
	return evaluation{prog: r.prog, scope: scope, dir: r.workspace, now: r.lane.ex.cfg.Now}
}

// answer evaluates a control-flow task and returns how to record it. It reads
// the machine but does not change it.
func (r *runState) answer(t *pipeline.Task) func() {
	switch t.Kind {
	case pipeline.TaskPass:
		return r.answerPass(t)
	case pipeline.TaskCollect:
		v, fail := r.evaluation(r.m.PassScope(t.Path, t.Index)).collect(t.Def.Loop.Collect)
		return func() {
			if fail != nil {
				r.finish(t, fail, nil)
				return
			}
			r.record(pipeline.StateSet, t.PassPath(), 0, pipeline.Data{Collected: v})
		}
	case pipeline.TaskClose:
		return r.answerClose(t)
	case pipeline.TaskFinish:
		return r.answerFinish(t)
	}
	return r.answerBegin(t)
}

func (r *runState) answerPass(t *pipeline.Task) func() {
	ok, fail := r.evaluation(r.m.PassScope(t.Path, t.Index)).test(t.Def.Loop.Condition, "while.condition")
	return func() {
		switch {
		case fail != nil:
			r.finish(t, fail, nil)
		case ok:
			r.record(pipeline.StateSet, t.PassPath(), 0, pipeline.Data{
				Pass: true, State: map[string]any{"loop_iteration": int64(t.Index)},
			})
		default:
			r.m.EndLoop(t.Path)
		}
	}
}

// answerClose ends a block: its state is evaluated with its own output in sight.
func (r *runState) answerClose(t *pipeline.Task) func() {
	d := pipeline.Data{Status: t.Status, Output: t.Output, Error: t.Failure, Reason: t.Reason}
	if t.Status == pipeline.StepFailed && t.Def.OnFailure == "skip" {
		d.Status, d.Reason, d.Output = pipeline.StepSkipped, pipeline.ReasonFailed, nil
	}
	if t.Status == pipeline.StepCompleted && len(t.Def.State) > 0 {
		state, fail := r.evaluation(r.m.Scope(t.Path).WithOutput(t.Output)).entries(t.Def.State, "state")
		if fail != nil {
			d = failedData(t.Def, fail)
		} else {
			d.State = state
		}
	}
	return func() { r.record(pipeline.StepFinished, t.Path, 1, d) }
}

// failedData is the end of a step that failed for good.
func failedData(def *pipeline.StepDef, fail *pipeline.Failure) pipeline.Data {
	d := pipeline.Data{Status: pipeline.StepFailed, Error: fail}
	if def.OnFailure == "skip" {
		d.Status, d.Reason = pipeline.StepSkipped, pipeline.ReasonFailed
	}
	return d
}

// finish ends a step that failed before or outside an attempt.
func (r *runState) finish(t *pipeline.Task, fail *pipeline.Failure, params any) {
	d := failedData(t.Def, fail)
	d.Kind, d.Action, d.Parameters = t.Def.Kind, t.Def.Action, params
	r.record(pipeline.StepFinished, t.Path, max(t.Attempt, 1), d)
}

func (r *runState) answerFinish(t *pipeline.Task) func() {
	d := pipeline.Data{RunStatus: t.RunStatus, Reason: t.Reason, Error: t.Failure}
	if t.RunStatus == pipeline.RunCompleted {
		if r.m.Plan.HasOutputs {
			out, fail := r.evaluation(r.m.Scope("")).entries(r.m.Plan.Outputs, "outputs")
			if fail != nil {
				d.RunStatus, d.Reason, d.Error = pipeline.RunFailed, "outputs_failed", fail
			} else {
				d.Outputs = out
			}
		} else {
			d.Outputs = r.m.RunOutputs()
		}
	}
	return func() {
		r.record(pipeline.RunFinished, "", 0, d)
		r.finished = true
		r.stopTimers()
		r.lane.finish(r)
		if r.run.Workspace == "" {
			_ = os.Remove(r.workspace) // if it is empty
		}
	}
}

// answerBegin tests a control-flow step's condition and begins it.
func (r *runState) answerBegin(t *pipeline.Task) func() {
	ev := r.evaluation(r.m.Scope(t.Path))
	def := t.Def
	if def.Condition != nil {
		ok, fail := ev.test(def.Condition, "condition")
		if fail != nil {
			return func() { r.finish(t, fail, nil) }
		}
		if !ok {
			return func() { r.skipped(t) }
		}
	}
	d := pipeline.Data{Kind: def.Kind}
	switch def.Kind {
	case pipeline.KindSet:
		return r.answerSet(t, ev)
	case pipeline.KindFor:
		v, fail := ev.field(def.Loop.Items, "for.items")
		items, ok := listOf(v)
		if fail == nil && !ok {
			fail = pipeline.Failuref(pipeline.CategoryValidation, "for.items is %s; it must be a list", kindName(v))
		}
		if fail != nil {
			return func() { r.finish(t, fail, nil) }
		}
		d.Items = items
	case pipeline.KindIf:
		arm := -1
		for i := range def.Branches {
			if c := def.Branches[i].Condition; c != nil {
				ok, fail := ev.test(c, "condition")
				if fail != nil {
					return func() { r.finish(t, fail, nil) }
				}
				if !ok {
					continue
				}
			}
			arm = i
			break
		}
		d.Branch = &arm
	}
	return func() { r.record(pipeline.StepStarted, t.Path, t.Attempt, d) }
}

// listOf is v as a list; a map gives its keys in order, as in Jinja.
func listOf(v any) ([]any, bool) {
	switch v := v.(type) {
	case []any:
		if v == nil {
			v = []any{}
		}
		return v, true
	case map[string]any:
		return sortedKeys(v), true
	}
	return nil, false
}

// answerSet evaluates assignments; each sees the ones before it.
func (r *runState) answerSet(t *pipeline.Task, ev evaluation) func() {
	set, fail := ev.entries(t.Def.Set, "set")
	var state map[string]any
	if fail == nil && len(t.Def.State) > 0 {
		ev.scope = ev.scope.WithOutput(set)
		state, fail = ev.entries(t.Def.State, "state")
	}
	return func() {
		if fail != nil {
			r.finish(t, fail, nil)
			return
		}
		all := make(map[string]any, len(set)+len(state))
		maps.Copy(all, set)
		maps.Copy(all, state)
		r.record(pipeline.StepFinished, t.Path, t.Attempt, pipeline.Data{
			Kind: t.Def.Kind, Status: pipeline.StepCompleted, Output: all, State: all,
		})
	}
}

func (r *runState) skipped(t *pipeline.Task) {
	r.record(pipeline.StepWasSkipped, t.Path, 0, pipeline.Data{Kind: t.Def.Kind, Action: t.Def.Action, Reason: pipeline.ReasonCondition})
}

// ended records what came of an attempt.
func (r *runState) ended(t *pipeline.Task, a *attempt, out Output, state map[string]any, fail *pipeline.Failure) {
	if r.gone || r.m.Step(t.Path) == nil || r.m.Step(t.Path).Status != pipeline.StepRunning {
		return
	}
	if fail == nil {
		r.record(pipeline.StepFinished, t.Path, t.Attempt, pipeline.Data{
			Status: pipeline.StepCompleted, Output: out.Value, State: state, Model: out.Model, Usage: out.Usage,
		})
		return
	}
	if fail.Kind == pipeline.CategoryCancelled {
		r.record(pipeline.StepFinished, t.Path, t.Attempt, pipeline.Data{
			Status: pipeline.StepCancelled, Reason: pipeline.ReasonCancelled, Error: fail,
		})
		return
	}
	policy := r.m.RetryOf(t.Def, a.effect)
	if delay, ok := policy.Delay(fail, r.m.Tries(t.Path)+1, rand.Float64()); ok && !r.m.Aborting() { //nolint:gosec // jitter
		r.record(pipeline.StepRetrying, t.Path, t.Attempt, pipeline.Data{Error: fail, Due: r.lane.ex.cfg.Now().Add(delay).UTC()})
		return
	}
	d := failedData(t.Def, fail)
	if d.Status == pipeline.StepFailed {
		d.Output = out.Value
	}
	d.Model, d.Usage = out.Model, out.Usage
	r.record(pipeline.StepFinished, t.Path, t.Attempt, d)
}

// after runs f on the lane, unless the run is over by then.
func (r *runState) after(d time.Duration, f func()) {
	var t *time.Timer
	t = time.AfterFunc(d, func() {
		r.lane.post(func() {
			delete(r.timers, t)
			if !r.gone && !r.finished {
				r.do(f)
			}
		})
	})
	r.timers[t] = struct{}{}
}

func (r *runState) stopTimers() {
	for t := range r.timers {
		t.Stop()
	}
	clear(r.timers)
}

func (r *runState) cancelAttempts(cause error) {
	for _, a := range r.attempts {
		a.cancel(cause)
	}
}

// committed learns that the run's events up to seq are durable.
func (r *runState) committed(seq int32) {
	r.durable = max(r.durable, seq)
	n := 0
	for n < len(r.held) && r.held[n].after <= r.durable {
		n++
	}
	if n == 0 {
		return
	}
	free := r.held[:n:n]
	r.held = r.held[n:]
	for i := range free {
		if t := &free[i].task; !r.gone && r.m.Stands(t) {
			r.proceed(t)
		}
	}
	r.pump()
}
