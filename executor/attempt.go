package executor

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"runtime/debug"
	"sort"
	"strconv"
	"strings"
	"time"

	"github.com/orchestrator-project/orchestrator/pipeline"
)

// maxDeaths is how many owners may die with the same step in flight before the
// step is held to be the cause.
const maxDeaths = 3

// job is a leaf that is about to run.
type job struct {
	r      *runState
	task   pipeline.Task
	a      *attempt
	runner Runner
	env    Env
	work   *work
	limit  time.Duration
	begun  time.Time
	past   journaling // of actions with a journal
	// cacheAs is the name under which equal steps find the result; empty: it is
	// not kept.
	cacheAs pipeline.Digest
}

// start evaluates a leaf's fields, records its start and sends it to work. It
// reports whether it uses the slot that the pool granted.
func (r *runState) start(t *pipeline.Task) bool {
	if r.prog.impure[t.Def] || r.book.moves(t.Path) {
		// Its fields read files: evaluate elsewhere, then launch.
		r.busy = true
		task := *t
		r.lane.ex.tasks.Go(func() {
			launch := r.prepare(&task, nil)
			r.lane.post(func() {
				r.busy = false
				if r.gone || r.unsettled(func() { r.task(&task) }) || !launch() {
					r.running--
					r.lane.ex.pool.release()
				}
				if !r.gone {
					r.ask()
					r.pump()
				}
				r.drain()
			})
		})
		return true
	}
	launch, task := r.prepare(t, nil), *t
	if r.unsettled(func() { r.task(&task) }) {
		return false
	}
	return launch()
}

// prepare evaluates what the step was given and returns how to launch it; that
// reports whether the step runs now: here, or with the worker that it has a seat
// at. It reads the machine but does not change it.
func (r *runState) prepare(t *pipeline.Task, s *seat) func() bool {
	red := r.redactor()
	refuse := func(fail *pipeline.Failure, params any) func() bool {
		fail.Message = red.text(fail.Message)
		return func() bool { r.finish(t, fail, red.value(params)); return false }
	}
	ev := r.evaluation(r.m.Scope(t.Path))
	def := t.Def
	if r.prog.impure[def] && !r.book.previews() {
		if err := makeWorkspace(r.workspace); err != nil {
			return refuse(asFailure(err), nil)
		}
	}
	if def.Condition != nil && r.m.Step(t.Path).Status == pipeline.StepPending {
		ok, fail := ev.test(def.Condition, "condition")
		if fail != nil {
			return refuse(fail, nil)
		}
		if !ok {
			return func() bool { r.skipped(t); return false }
		}
	}
	if r.book.replays() {
		return r.replayWork(ev, t, red)
	}
	if fail := r.lane.ex.suits(def); fail != nil && !r.book.may(t.Path) && r.settling(t.Path) == nil && !r.lane.ex.abroad(def) {
		return refuse(fail, nil)
	}
	w, fail := r.compose(ev, t, red)
	if fail != nil {
		return refuse(fail, nil)
	}
	runner, err := w.action.Bind(w.params)
	if err != nil {
		return refuse(asFailure(err), w.shown)
	}
	base := r.lane.ex.cfg.Environ
	if s != nil {
		base = nil // the worker's own
	}
	env, fail := r.environment(ev, t, w, base)
	if fail != nil {
		return refuse(fail, w.shown)
	}
	effect := w.effect(def)
	if again := r.recallWork(t, w, effect, red); again != nil {
		return again
	}
	if rep := r.settling(t.Path); rep != nil {
		return r.settle(t, w, env, effect, rep)
	}
	if (t.Interrupted || s != nil) && r.m.Deaths(t.Path) >= maxDeaths {
		return refuse(&pipeline.Failure{
			Kind: pipeline.CategorySystem, Reason: pipeline.ReasonOwnerDied,
			Message: fmt.Sprintf("%d processes have died while they ran this step; it is not started again", maxDeaths),
		}, w.shown)
	}
	if t.Interrupted && effect == pipeline.EffectAtMostOnce {
		return r.inDoubt(t, w)
	}
	j := &job{
		r: r, task: *t, a: &attempt{number: t.Attempt, effect: effect}, runner: runner, env: env, work: w,
		limit: def.TimeoutOf(r.m.Tries(t.Path)),
	}
	if def.Cache != nil && effect != pipeline.EffectAtMostOnce {
		if j.cacheAs, fail = r.cacheKey(ev, t, w); fail != nil {
			return refuse(fail, w.shown)
		}
		if output, ok := j.cached(); ok {
			launch, fail := r.reuse(t, j, output)
			if fail != nil {
				return refuse(fail, w.shown)
			}
			return launch
		}
	}
	if s != nil {
		return j.sendAway(*s)
	}
	return func() bool {
		// Where attempts were skipped, an owner may have died of this very step
		// before its start was recorded: from now on its deaths are counted.
		before := r.m.Step(t.Path).Attempt
		suspect := t.Attempt > before+1
		r.record(pipeline.StepStarted, t.Path, t.Attempt, pipeline.Data{
			Kind: def.Kind, Action: w.key, Parameters: red.value(w.shown), Worker: string(r.lane.ex.cfg.Replica),
			Consumed: w.consumed, Given: w.beyond(r.run.ID, def),
		})
		if w.action.Journal {
			j.past.first, j.past.calls = r.m.Journal(t.Path)
			j.past.last, j.past.goesOn = r.m.Seq, t.Attempt == before
			if r.journals == nil {
				r.journals = map[pipeline.Path]*attempt{}
			}
			r.journals[t.Path] = j.a
			r.expireOpen(t.Path)
			j.env.Tenure = r.tenure()
			j.env.Rest = (&slot{pool: r.lane.ex.pool}).rest
			j.env.Child = r.within(j.env.Rest)
		}
		if effect == pipeline.EffectAtMostOnce || suspect || j.past.first > 0 {
			// Its start must be known before its effect can be.
			r.lane.launchDurable(j, r.m.Seq)
			return true
		}
		j.launch()
		return true
	}
}

// environment composes what the attempt may use. Of the server's own
// environment a command sees only what is harmless and needed.
func (r *runState) environment(ev evaluation, t *pipeline.Task, w *work, base []string) (Env, *pipeline.Failure) {
	def := t.Def
	env := Env{
		Run: r.run.ID, Path: t.Path, Attempt: t.Attempt, Workspace: r.workspace,
		Bundle: r.lane.ex.bundleDir(r.prog.plan.Bundle), Sandbox: sandboxOf(def), Redact: w.redact.text,
		Unit: r.m.Unit(t.Path), Needs: def.Needs, Secret: r.lane.ex.cfg.Secret, Agent: w.agent,
		TraceContent: r.lane.ex.cfg.TraceContent,
	}
	if def.Kind == pipeline.KindAction && !w.action.Workspace && len(def.Env)+len(def.Secrets) == 0 {
		return env, nil // nothing here inherits an environment
	}
	// What a model or others have written is not shown what the caller has in mind for
	// programs of their own.
	if env.Sandbox != nil || w.agent != nil || w.action.Confined {
		base = Harmless(base)
	}
	vars := map[string]string{}
	for _, kv := range base {
		if k, v, ok := strings.Cut(kv, "="); ok {
			vars[k] = v
		}
	}
	for i := range def.Env {
		e := &def.Env[i]
		v, shown, fail := r.withSecrets(ev, e, "env."+e.Name, w.redact)
		if fail != nil {
			return Env{}, fail
		}
		vars[e.Name] = word(v)
		if w.env == nil {
			w.env = map[string]any{}
		}
		w.env[e.Name] = shown
	}
	for _, name := range def.Secrets {
		value, ok := r.lane.ex.cfg.Secret(name)
		if !ok {
			return Env{}, noSecret(name)
		}
		vars[name] = value
	}
	vars["ORCHESTRATOR_RUN_ID"] = string(r.run.ID)
	vars["ORCHESTRATOR_STEP_PATH"] = string(t.Path)
	vars["ORCHESTRATOR_ATTEMPT"] = strconv.Itoa(int(t.Attempt))
	vars["ORCHESTRATOR_IDEMPOTENCY_KEY"] = env.IdempotencyKey()
	if env.Bundle != "" {
		vars["ORCHESTRATOR_BUNDLE"] = env.Bundle
	}
	vars["PWD"] = r.workspace
	maps.Copy(vars, w.vars)
	env.Environ = make([]string, 0, len(vars))
	for k, v := range vars {
		env.Environ = append(env.Environ, k+"="+v)
	}
	sort.Strings(env.Environ)
	return env, nil
}

// Instant is a Runner that may say, once it is bound, that its Run only computes,
// for microseconds: it waits for nothing and writes no log. The lane then runs it
// itself, for which there is no context, in less time than a goroutine takes to begin.
type Instant interface {
	Runner
	Instant() bool
}

// instant reports whether nothing about the job can take time.
func (j *job) instant() bool {
	def := j.task.Def
	if i, ok := j.runner.(Instant); !ok || !i.Instant() {
		return false
	}
	return !j.work.action.Workspace && j.work.takes == nil && j.cacheAs == "" && def.Resources == nil &&
		def.Returns == nil && len(j.work.gives)+len(def.Publish)+len(j.work.kept) == 0 && !j.r.m.Cancels(j.task.Path)
}

// launch runs the job on its own goroutine, unless it is over at once; the lane
// hears how it ended.
func (j *job) launch() {
	ex := j.r.lane.ex
	if j.instant() {
		j.begun, j.limit = ex.cfg.Now(), 0
		out, err := j.execute(ex.work)
		j.r.lane.next(func() { j.done(out, err, nil) })
		return
	}
	ctx, cancel := context.WithCancelCause(ex.work)
	j.r.files.touched = true
	j.a.cancel = cancel
	j.r.attempts[j.task.Path] = j.a
	j.begun = ex.cfg.Now()
	if j.r.m.Cancels(j.task.Path) {
		cancel(errCancelled)
	}
	ex.tasks.Go(func() {
		log := ex.logs.writer(j.env.Run, j.env.Path, j.env.Attempt, j.work.redact)
		if j.a.abroad {
			log.chunk.N = ownLines
		}
		log.goesOn = j.past.goesOn
		j.env.Log = log.write
		var out Output
		release, err := func() {}, error(nil)
		if !j.a.abroad {
			release, err = ex.capacity.take(ctx, j.task.Def.Resources)
		}
		if err == nil {
			out, err = j.execute(ctx)
			release()
		}
		log.flush()
		cause := context.Cause(ctx)
		cancel(nil)
		j.r.lane.post(func() { j.done(out, err, cause) })
	})
}

// execute runs the step under its time limit. A panic is the step's failure.
func (j *job) execute(ctx context.Context) (out Output, err error) {
	ctx, span := j.traced(ctx)
	if span != nil {
		defer func() { EndSpan(span, j.env, err) }()
	}
	if j.limit > 0 {
		var stop context.CancelFunc
		ctx, stop = context.WithTimeoutCause(ctx, j.limit, &pipeline.Failure{
			Kind: pipeline.CategoryTimeout, Message: fmt.Sprintf("timed out after %s", j.limit),
		})
		defer stop()
	}
	defer func() {
		if p := recover(); p != nil {
			j.r.lane.ex.log.Error("step panicked", "run", j.env.Run, "step", j.env.Path, "panic", p, "stack", string(debug.Stack()))
			err = pipeline.Failuref(pipeline.CategorySystem, "the step broke down inside the server: %v", p)
		}
	}()
	if j.work.action.Workspace && !j.lazy() {
		if err := j.env.MakeWorkspace(); err != nil {
			return Output{}, err
		}
	}
	if w := j.work.takes; w != nil && !j.a.abroad {
		if wrong := checkPaths(j.env.Workspace, w.typ, w.value); wrong != nil {
			return Output{}, pipeline.Failuref(pipeline.CategoryValidation, "the parameters are wrong: %s", listed(wrong))
		}
	}
	if j.work.action.Journal && !j.a.abroad {
		if err := j.openJournal(ctx); err != nil {
			return Output{}, err
		}
	}
	out, err = j.runner.Run(ctx, j.env)
	if err == nil {
		var fail *pipeline.Failure
		if out.Value, fail = j.result(out.Value); fail == nil {
			j.a.published, fail = j.publish(ctx, out.Value)
		}
		switch {
		case fail != nil:
			err = fail
		case j.cacheAs != "":
			j.keepResult(ctx, out.Value)
		}
	}
	if ctx.Err() != nil && err != nil {
		if timeout, ok := errors.AsType[*pipeline.Failure](context.Cause(ctx)); ok {
			err = timeout
		}
	}
	return out, err
}

// lazy reports whether the run's directory is made by the calls that need it: most of
// what asks models only talks.
func (j *job) lazy() bool {
	def := j.task.Def
	return j.work.action.Journal && j.work.takes == nil && j.cacheAs == "" && def.Returns == nil &&
		len(j.work.gives)+len(def.Publish)+len(j.work.kept) == 0
}

// done is the lane's side of the end of an attempt.
func (j *job) done(out Output, err error, cause error) {
	r := j.r
	if j.a.abroad {
		r.distant--
	} else {
		r.running--
		r.lane.ex.pool.release()
	}
	if r.attempts[j.task.Path] == j.a {
		delete(r.attempts, j.task.Path)
	}
	r.lane.ex.met.stepSeconds.WithLabelValues(string(j.task.Def.Kind)).Observe(r.lane.ex.cfg.Now().Sub(j.begun).Seconds())
	if r.gone {
		if errors.Is(err, ErrJournal) { // the next owner goes on from what was recorded
			cause = errFenced
		}
		j.afterLoss(out, err, cause)
		return
	}
	if errors.Is(cause, errStopped) || errors.Is(cause, errFenced) {
		return // unfinished: whoever owns the run next does it again
	}
	if cause == nil && (errors.Is(err, errWorkerLost) || errors.Is(err, errDeclined) || errors.Is(err, errHandedBack)) {
		r.do(func() { r.repeatAbroad(j, err) })
		return
	}
	if s, ok := errors.AsType[*Suspension](err); ok && cause == nil {
		r.do(func() { r.suspend(j, s) })
		return
	}
	out, fail := j.outcome(out, err, cause)
	r.do(func() {
		if fail == nil && len(j.task.Def.State) > 0 {
			r.stateOf(j, out)
			return
		}
		r.ended(&j.task, j.a, out, nil, fail)
		r.ask()
		r.pump()
	})
}

// outcome is how an attempt ended, without secrets.
func (j *job) outcome(out Output, err error, cause error) (Output, *pipeline.Failure) {
	fail := asFailure(err)
	if fail != nil && cause != nil {
		fail = &pipeline.Failure{Kind: pipeline.CategoryCancelled, Message: "cancelled"}
	}
	out.Value = j.work.redact.value(out.Value)
	if fail != nil {
		fail.Message = j.work.redact.text(fail.Message)
	}
	return out, fail
}

// stateOf evaluates the state that a completed leaf sets, then records its end.
func (r *runState) stateOf(j *job, out Output) {
	evaluate := func() func() {
		if r.m.Step(j.task.Path) == nil {
			return func() {}
		}
		state, fail := r.evaluation(r.m.Scope(j.task.Path).WithOutput(out.Value)).entries(j.task.Def.State, "state")
		if r.fills.wanted != nil {
			return func() { r.unsettled(func() { r.stateOf(j, out) }) }
		}
		return func() {
			r.ended(&j.task, j.a, out, state, fail)
			r.ask()
			r.pump()
		}
	}
	if !r.prog.impure[j.task.Def] {
		evaluate()()
		return
	}
	r.busy = true
	r.lane.ex.tasks.Go(func() {
		finish := evaluate()
		r.lane.post(func() {
			r.busy = false
			if !r.gone {
				finish()
			}
			r.drain()
		})
	})
}

// asFailure classifies an error of a step.
func asFailure(err error) *pipeline.Failure {
	if err == nil {
		return nil
	}
	if f, ok := errors.AsType[*pipeline.Failure](err); ok {
		c := *f
		return &c
	}
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return &pipeline.Failure{Kind: pipeline.CategoryTimeout, Message: err.Error()}
	case errors.Is(err, os.ErrPermission), errors.Is(err, os.ErrNotExist):
		return &pipeline.Failure{Kind: pipeline.CategoryValidation, Message: err.Error()}
	}
	return &pipeline.Failure{Kind: pipeline.CategoryUnknown, Message: err.Error()}
}

// makeWorkspace creates a run's directory before its first use.
func makeWorkspace(dir string) error {
	if err := os.MkdirAll(filepath.Clean(dir), 0o700); err != nil {
		return pipeline.Failuref(pipeline.CategorySystem, "cannot create the workspace: %v", err)
	}
	return nil
}
