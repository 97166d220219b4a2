package executor

import (
	"context"
	"errors"
	"fmt"
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
	trace     *runTrace // nil: none

	durable   int32 // the newest committed seq
	held      []heldTask
	ready     []pipeline.Task // may start as soon as the pool grants a slot
	asking    bool            // a request to the pool is out
	running   int
	attempts  map[pipeline.Path]*attempt
	timers    map[*time.Timer]struct{}
	busy      bool
	backlog   []func()
	createdIn *store.Batch      // the batch that holds its Create, until that is committed
	createdAt int               // the index there
	rowIn     *store.Batch      // the newest batch that holds its row
	looking   int               // looks at files and decisions under way elsewhere
	staying   bool              // it only waits, but not for long
	arriving  bool              // it was taken, and hears what was said before it rests
	asleep    bool              // it was parked and nothing has happened since
	late      bool              // its own timeout has ended it
	barred    *pipeline.Failure // why it cannot begin
	finished  bool              // run_finished is recorded
	parked    bool              // its parking stands in a batch
	rung      bool              // messages have come since
	resolved  []resolution      // <AUTO> tags that were filled in and are not recorded yet
	fills     fills             // those that models are being asked about
	gone      bool              // the lane has let go of it
	saved     saving
	files     saves
	distant   int             // steps with workers, or in line for them
	later     []pipeline.Task // for workers, beyond what the run may have there

	adoptions map[pipeline.Path]*adoption // attempts that may be under way elsewhere
	said      map[pipeline.Path]*said     // what was reported and has had no effect yet

	// Of a run that is paused, or that ends its children before itself.
	shelf       []pipeline.Task // to be done once it goes on
	deferred    []store.Message // likewise
	bequeathing bool            // its children are being told to end

	book *book // what it may use of another run's log

	journals map[pipeline.Path]*attempt // the newest attempts of steps with a journal
	taken    int32                      // the newest seq when the lane took the run
	tenured  *Tenure                    // nil: nobody has asked for it yet
}

// over reports whether nothing more can happen to the run here.
func (r *runState) over() bool { return r.gone || r.finished || r.parked }

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
	// published is what it made, before its versions have numbers.
	published []pipeline.Version
	// hear takes what its holder says of it, on the lane's goroutine, and does not
	// block. nil: this process carries it out.
	hear    func(Report)
	abroad  bool    // a worker carries it out
	worker  string  // which
	adopted bool    // it was carried out elsewhere
	orphan  *orphan // its run has another owner
	news    mailbox // of actions with a journal
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
	r.awaken()
	if list := r.resolved; len(list) > 0 { // what it builds on
		r.resolved = nil
		for i := range list {
			r.record(pipeline.AutoResolved, list[i].path, 0, pipeline.Data{Auto: &list[i].Answer})
		}
	}
	if typ == pipeline.StepFinished || typ == pipeline.StepWasSkipped {
		r.unanswered(path)
	}
	e := pipeline.Event{Seq: r.m.Seq + 1, Type: typ, Path: path, Attempt: attempt, At: r.lane.ex.cfg.Now().UTC(), Data: d}
	if err := r.m.Apply(&e); err != nil {
		// A bug of ours; the run must not go on from a state nobody understands.
		r.lane.ex.log.Error("event does not follow", "run", r.run.ID, "type", typ, "path", path, "err", err)
		panic(fmt.Sprintf("executor: run %s: %v", r.run.ID, err))
	}
	r.lane.append(r, e)
	r.grew(&e)
	if len(r.journals) > 0 {
		r.overheard(&e)
	}
	if r.book != nil {
		r.book.note(&e)
	}
	if len(r.said)+len(r.adoptions) > 0 {
		r.heeded(&e)
	}
}

// awaken records that a run that was parked goes on.
func (r *runState) awaken() {
	if r.asleep {
		r.asleep = false
		r.record(pipeline.RunResumed, "", 0, pipeline.Data{Reason: pipeline.ReasonWoken})
		r.lane.row(r)
	}
}

// pump carries out everything that has become possible, until only work that
// somebody else does is left.
func (r *runState) pump() {
	r.cancelSome()
	const yieldAfter = 1024 // a chain of a thousand steps ends in the turn, and the commit, in which it began
	for n := 0; !r.busy && !r.over(); {
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
	r.cancelSome()
	r.rest()
}

// task answers one task of the machine.
func (r *runState) task(t *pipeline.Task) {
	if r.over() || !r.m.Stands(t) || r.shelve(t) {
		return
	}
	switch t.Kind {
	case pipeline.TaskBegin:
		r.begin(t)
	case pipeline.TaskSkip:
		r.unask(t.Path)
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
	if t.Interrupted && r.awaitHolder(t) {
		return
	}
	if r.settling(t.Path) != nil {
		r.ready = append(r.ready, *t)
		r.ask()
		return
	}
	if pure(t.Def) && !r.prog.impure[t.Def] {
		r.proceed(t)
		return
	}
	if t.Def.Kind.Work() && r.book.may(t.Path) { // nothing is launched before that is known to need it
		r.ready = append(r.ready, *t)
		r.ask()
		return
	}
	// The next owner must know that the run went on: it would otherwise hand out
	// the attempt's number again.
	r.awaken()
	if after := r.m.Seq; r.durable < after {
		r.lane.eager = true
		r.held = append(r.held, heldTask{*t, after})
		return
	}
	r.proceed(t)
}

// pure reports whether a step may run ahead of the log.
func pure(d *pipeline.StepDef) bool {
	return !d.Kind.Work() || d.Effect == pipeline.EffectPure
}

// proceed evaluates control flow at once and lines leaves up for the pool.
func (r *runState) proceed(t *pipeline.Task) {
	if r.shelve(t) {
		return
	}
	if !t.Def.Kind.Work() {
		r.evaluate(t)
		return
	}
	if r.travels(t) {
		r.goAbroad(t)
		return
	}
	r.ready = append(r.ready, *t)
	r.ask()
}

// ask requests a slot if a step is ready and the run's own limit allows it.
func (r *runState) ask() {
	r.lineUp()
	if r.asking || len(r.ready) == 0 || r.gone || r.lane.stopping || r.running >= r.limit() || r.lane.quiet() {
		return
	}
	r.asking = true
	if r.lane.ex.pool.request(r) {
		r.lane.next(func() { r.do(r.granted) })
	}
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
	for len(r.ready) > 0 && !r.gone && !r.lane.stopping && !r.lane.quiet() {
		t := r.ready[0]
		r.ready = r.ready[1:]
		if !r.m.Stands(&t) || r.shelve(&t) {
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

// evaluate answers a task by evaluating templates.
func (r *runState) evaluate(t *pipeline.Task) {
	task, again := *t, false
	r.aside(t.Def, func() func() {
		if again && !r.m.Stands(&task) {
			return func() {}
		}
		again = true
		return r.answer(&task)
	})
}

// aside lets f evaluate fields of a step, or of the run itself where def is nil,
// and then does what it returns. Where the fields read files, f works elsewhere,
// so that the lane never waits for a disk; the run stands still meanwhile.
func (r *runState) aside(def *pipeline.StepDef, f func() func()) {
	if !r.prog.impure[def] || r.book.previews() {
		if finish := f(); !r.unsettled(func() { r.aside(def, f) }) {
			finish()
		}
		return
	}
	r.busy = true
	r.lane.ex.tasks.Go(func() {
		if err := makeWorkspace(r.workspace); err != nil {
			r.lane.ex.log.Warn("no workspace", "run", r.run.ID, "err", err)
		}
		finish := f()
		r.lane.post(func() {
			r.busy = false
			if !r.gone {
				if !r.unsettled(func() { r.aside(def, f) }) {
					finish()
				}
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
	return evaluation{prog: r.prog, scope: scope, tags: r, dir: r.workspace, now: r.lane.ex.cfg.Now}
}

// after runs f on the lane, unless the run is over by then.
func (r *runState) after(d time.Duration, f func()) {
	var t *time.Timer
	t = time.AfterFunc(d, func() {
		r.lane.post(func() {
			delete(r.timers, t)
			if !r.over() {
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

// cancelSome cancels the attempts that are no longer wanted.
func (r *runState) cancelSome() {
	if !r.m.Aborting() {
		return
	}
	for path, a := range r.attempts {
		if r.m.Cancels(path) {
			a.cancel(errCancelled)
		}
	}
	r.cancelAdoptions()
	r.cancelFills()
}

func (r *runState) cancelAttempts(cause error) {
	for _, a := range r.attempts {
		a.cancel(cause)
	}
	for _, f := range r.fills.asking {
		f.cancel(cause)
	}
}

// committed goes on with what waited for events that are durable now.
func (r *runState) committed() {
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
