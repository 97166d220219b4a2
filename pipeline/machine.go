package pipeline

import (
	"fmt"
	"maps"
	"strconv"
	"time"
)

// TaskKind is what a Task asks its driver to do.
type TaskKind int

// The kinds of task.
const (
	// TaskBegin: test the condition, then record what fits: step_skipped (it is
	// false), step_started (work and blocks), step_waiting (waits and questions)
	// or step_finished (what is done at once, or failed).
	TaskBegin TaskKind = iota
	// TaskSkip: record step_skipped with Reason. A step that waits for an event or
	// a person no longer does.
	TaskSkip
	// TaskPass: a while loop: test its condition; record state_set (Pass) at
	// PassPath, or call EndLoop, or record step_finished (the test failed).
	TaskPass
	// TaskCollect: a pass of a loop with collect or until is over: evaluate both
	// in the pass, record state_set (Collected and Done, or Error) at PassPath.
	TaskCollect
	// TaskClose: a block is done: evaluate its state, and what Exhausted or the
	// outputs of a called pipeline ask for; record step_finished with Status,
	// Output and Failure.
	TaskClose
	// TaskFinish: the run is done: evaluate its outputs, record run_finished.
	TaskFinish
)

// Task is something that may happen next. The driver answers each task with
// the event it names; until then the machine does not ask again.
type Task struct {
	Kind    TaskKind
	Path    Path
	Def     *StepDef
	Index   int       // of TaskPass and TaskCollect: the pass
	Attempt int32     // of TaskBegin: the number of the attempt to record
	Due     time.Time // of TaskBegin: not before; zero: now
	// Interrupted says of TaskBegin that an attempt began and its outcome is
	// unknown, since the process that ran it has gone.
	Interrupted bool
	Reason      string
	Status      StepStatus // of TaskClose
	Output      any        // of TaskClose
	Failure     *Failure   // of TaskClose and TaskFinish
	RunStatus   RunStatus  // of TaskFinish
	// Exhausted says of TaskClose that a repeat loop has come to its maximum, and
	// that Loop.Exhausted, evaluated in the block's scope, is its output.
	Exhausted bool

	token int32 // of TaskBegin: stands only while it is the instance's newest
}

// PassPath is the path of the task's pass.
func (t *Task) PassPath() Path { return passPath(t.Path, t.Index) }

func passPath(loop Path, i int) Path {
	return Path(string(loop) + "[" + strconv.Itoa(i) + "]")
}

// The reasons of skipped, failed and cancelled steps.
const (
	ReasonCondition = "condition_false"
	ReasonJumped    = "jumped" // a jump led past it
	ReasonUpstream  = "upstream_failed"
	ReasonStopped   = "run_stopped"
	ReasonCancelled = "cancelled"
	ReasonFailed    = "failed" // failed under on_failure: skip
	ReasonTimeout   = "timeout"
	ReasonOwnerDied = "owner_died"
	ReasonUnknown   = "outcome_unknown" // it may run once, and nobody knows whether it took effect
	ReasonMaxVisits = "max_visits"      // a jump back would have gone beyond its bound
	ReasonExhausted = "exhausted"       // a repeat loop came to its maximum
	ReasonNoWinner  = "no_winner"       // of compete
)

// ReasonHandedOver is why a run is resumed whose owner had left in good order;
// ReasonLeaseExpired is why one is whose owner was not heard of for too long,
// and may live: what it had under way may still be.
// ReasonWoken is why one is that was parked: nothing of it was under way.
const (
	ReasonHandedOver   = "handed_over"
	ReasonLeaseExpired = "lease_expired"
	ReasonWoken        = "woken"
)

// Machine is the state of one run: it learns everything from events and says
// what may happen next. Apply and Next must be called by one goroutine. It is
// deterministic: the same plan and events give the same tasks.
type Machine struct {
	Plan *Plan
	Run  Run
	Seq  int32 // of the newest event applied

	unit      *unit // the run's own pipeline
	dir       string
	insts     map[Path]*inst
	bodies    map[*Body]*bodyInfo
	queue     []Task
	compactAt int // length of queue at which what no longer stands is dropped

	busy      int // instances that somebody other than a wait keeps going
	waiting   map[*inst]struct{}
	finishing bool // the task that ends the run is out

	cancel  string // why the run is being ended from outside; empty: it is not
	aborts  int    // units whose running steps are to be cancelled
	deaths  map[Path]int
	signals map[string][]any // received and not taken, oldest first

	approved map[string]any // by Approval.Scope: who has approved it for the rest of the run
	sessions map[string]any // by unit and name: the id of the newest conversation
	answers  map[string]any
	answer   map[Path]map[string]*Answer
	// contents holds those of them that models gave, by what was asked.
	contents map[Digest]*Answer
	answered int
	autoUSD  float64
	homes    map[*StepDef]*Unit // of the steps of called pipelines, once asked for

	uploads  Digest        // of the files that came with the submission
	trace    *Trace        // that the run belongs to; nil: one of its own
	files    *WorkspaceRef // the newest save of its directory
	late     bool          // its own timeout has passed
	handed   bool          // the owner has left in good order, and nothing has happened since
	critical int32         // seq of the end of the newest step that is marked so; 0: none
	begun    int32         // instances that events have named
	order    int64         // of the newest task
}

// NewMachine returns the machine of a run before its first event.
func NewMachine(plan *Plan, run Run) *Machine {
	m := &Machine{
		Plan: plan, Run: run.fresh(), insts: map[Path]*inst{}, bodies: map[*Body]*bodyInfo{},
		waiting: map[*inst]struct{}{}, deaths: map[Path]int{}, signals: map[string][]any{}, answer: map[Path]map[string]*Answer{},
	}
	m.unit = newUnit(&plan.Unit, nil)
	m.unit.inputs = m.Run.Inputs
	return m
}

// SetVars gives the machine the run's own vars, evaluated.
func (m *Machine) SetVars(vars map[string]any) { m.unit.vars = vars }

// SetDir tells the machine where the pipeline's bundle is unpacked: the value of
// pipeline.dir.
func (m *Machine) SetDir(dir string) { m.dir = dir }

// Step returns the live instance at path, or nil: it has not been reached, or
// its pass or visit is over.
func (m *Machine) Step(path Path) *Step {
	if x := m.insts[path]; x != nil {
		return &x.step
	}
	return nil
}

// Tries is how many attempts of the step have failed.
func (m *Machine) Tries(path Path) int {
	if x := m.insts[path]; x != nil {
		return x.tries
	}
	return 0
}

// Rule is the on_error rule that the instance's newest failure was met with;
// nil: none.
func (m *Machine) Rule(path Path) *Rule {
	if x := m.insts[path]; x != nil {
		return x.rule
	}
	return nil
}

// Def is what the live instance at path is made of, or nil.
func (m *Machine) Def(path Path) *StepDef {
	if x := m.insts[path]; x != nil {
		return x.def
	}
	return nil
}

// Deaths is how many owners died while the step was in flight.
func (m *Machine) Deaths(path Path) int { return m.deaths[path] }

// Next returns the tasks that have become possible since the last call, in a
// stable order.
func (m *Machine) Next() []Task {
	if len(m.queue) == 0 || m.Paused() {
		return nil
	}
	list := m.queue[:0]
	for _, t := range m.queue {
		if m.fill(&t) {
			list = append(list, t)
		}
	}
	m.queue, m.compactAt = nil, 0
	return list
}

// enqueue adds a task. While a long log is folded nobody takes them, so those
// that have been answered since are dropped from time to time.
func (m *Machine) enqueue(t Task) {
	if len(m.queue) >= max(m.compactAt, 1024) {
		kept := m.queue[:0]
		for _, old := range m.queue {
			probe := old
			if m.fill(&probe) {
				kept = append(kept, old)
			}
		}
		clear(m.queue[len(kept):])
		m.queue, m.compactAt = kept, 2*len(kept)
	}
	m.queue = append(m.queue, t)
}

// fill completes a queued task from the state of now, and reports whether it
// still stands.
func (m *Machine) fill(t *Task) bool {
	if t.Kind == TaskFinish {
		if m.Run.Status.Final() {
			return false
		}
		m.verdict(t)
		return true
	}
	x := m.insts[t.Path]
	if x == nil || x.step.Status.Final() {
		return false
	}
	t.Def = x.def
	switch t.Kind {
	case TaskBegin:
		if t.token != x.token || x.skip != "" || t.Interrupted != (x.step.Status == StepRunning) {
			return false
		}
		t.Due = x.due
		t.Attempt = max(x.step.Attempt, x.base) + 1
		if x.goesOn() && x.base <= x.step.Attempt {
			t.Attempt = x.step.Attempt
		}
	case TaskSkip:
		t.Reason = x.skip
		return x.skip != ""
	case TaskPass:
		return x.block != nil && x.opened == t.Index && !x.ended && !x.halted
	case TaskCollect:
		return x.block != nil && x.active[t.Index] != nil
	case TaskClose:
		if x.block == nil {
			return false
		}
		m.closing(x, t)
	case TaskFinish:
	}
	return true
}

// Stands reports whether a task that Next gave earlier is still to be done. A
// driver that keeps tasks for later asks before it begins one.
func (m *Machine) Stands(t *Task) bool {
	probe := *t
	return m.fill(&probe)
}

// Apply tells the machine what happened. An event that cannot follow is an
// error; the machine is of no use after it.
func (m *Machine) Apply(e *Event) error {
	if e.Seq != m.Seq+1 {
		return fmt.Errorf("apply event %d after %d", e.Seq, m.Seq)
	}
	m.Seq = e.Seq
	m.Run.apply(e)
	m.parting(e)
	switch e.Type {
	case RunCreated:
		m.answers, m.uploads, m.trace = e.Data.Answers, e.Data.Uploads, e.Data.Trace
	case RunStarted:
		if m.unit.root == nil {
			m.openUnit(m.unit)
			if m.cancel != "" {
				m.haltFrame(m.unit.root, ReasonCancelled)
			}
		}
	case RunResumed:
		if e.Data.Reason != ReasonWoken && e.Data.Reason != ReasonUnpaused {
			m.resume(e)
		}
	case Checkpoint, WorkspaceLost:
		m.filed(e)
	case SignalReceived:
		if e.Path != "" {
			m.steered(e)
			break
		}
		m.signal(e)
	case AutoResolved:
		m.resolved(e)
	case ModelCalled, ToolCalled:
		m.called(e)
	case ApprovalIsDecided:
		if x := m.insts[e.Path]; x != nil {
			x.decision = e.Data.Decision
			x.journal.decided(e)
		}
		m.remember(e.Data.Decision)
	case StateSet:
		return m.applyState(e)
	case StepStarted, StepRetrying, StepIsWaiting, StepFinished, StepWasSkipped:
		return m.applyStep(e)
	case RunFinished:
		m.insts, m.queue, m.busy = map[Path]*inst{}, nil, 0
		clear(m.waiting)
	}
	return nil
}

// resume asks again for all that was under way when the run lost its owner.
func (m *Machine) resume(e *Event) {
	kept := m.queue[:0]
	for _, t := range m.queue {
		probe := t
		if t.Interrupted || !m.fill(&probe) {
			continue
		}
		if x := m.insts[t.Path]; x != nil && t.Kind == TaskBegin && x.mayHaveRun() {
			x.base = max(x.base, x.step.Attempt) + 1
		}
		kept = append(kept, t)
	}
	m.queue = kept
	m.unit.walk(func(x *inst) {
		if x.step.Status != StepRunning || x.block != nil {
			return
		}
		if e.Data.Reason == ReasonOwnerDied || e.Data.Reason == ReasonLeaseExpired {
			m.deaths[x.path]++
		}
		if x.step.Lost == "" { // later owners have not begun another attempt
			x.step.Lost = e.Data.Reason
		}
		// The attempt that an earlier resumption asked for may have run
		// although its start was not recorded.
		x.base = max(x.base, x.step.Attempt, x.offered)
		x.offered = x.base + 1
		x.token++
		x.out = x.token
		x.order = m.ordered()
		m.queue = append(m.queue, Task{Kind: TaskBegin, Path: x.path, Interrupted: true, token: x.token})
	})
}

// mayHaveRun reports whether an attempt without a record may have had effects.
func (x *inst) mayHaveRun() bool {
	return x.def.Kind.Work() && x.def.Effect != EffectPure
}

func (m *Machine) applyStep(e *Event) error {
	x := m.insts[e.Path]
	if x == nil {
		return fmt.Errorf("apply %s: no step instance at %s", e.Type, e.Path)
	}
	if x.step.Status.Final() {
		return fmt.Errorf("apply %s: step %s is already %s", e.Type, e.Path, x.step.Status)
	}
	if x.block != nil && e.Type != StepFinished {
		return fmt.Errorf("apply %s: block %s has begun", e.Type, e.Path)
	}
	if x.number == 0 {
		m.begun++
		x.number = m.begun
	}
	x.step.apply(e)
	if i := int(e.Data.Rule) - 1; i >= 0 && i < len(x.def.OnError) {
		x.rule, x.ruled = &x.def.OnError[i], e.Type == StepFinished
	}
	halt := x.frame.halt
	switch e.Type {
	case StepStarted:
		x.token++ // its begin task is answered
		m.converse(x, e)
		x.due = zeroTime
		x.skip = ""
		m.consumed(x, e.Data.Consumed)
		if x.def.Block() {
			m.begin(x, e)
			if halt != "" {
				m.haltBlock(x, halt)
			}
		}
	case StepRetrying:
		if x.journal != nil && afresh(&e.Data) {
			x.journal.first = 0
		}
		switch e.Data.Reason {
		case ReasonDecided: // nothing has failed
		case ReasonWorkerLost:
			m.deaths[x.path]++
		case ReasonWorkerDeclined: // it has not begun
		case ReasonUnknown: // nobody knows that it has failed
		default:
			x.tries++
		}
		if e.Data.Adopted && m.deaths[x.path] > 0 { // the process that was held to be dead was not
			m.deaths[x.path]--
		}
		x.due, x.since = e.Data.Due, e.Seq
		x.skip = ""
		if halt != "" {
			m.skip(x, halt)
		} else {
			m.ask(x)
		}
	case StepIsWaiting:
		x.since = e.Seq
		x.token++ // no other task begins it
		x.skip = ""
		if halt != "" {
			m.skip(x, halt)
		}
	case StepFinished:
		u := x.frame.unit
		if x.def.Critical {
			m.critical = e.Seq
		}
		if len(e.Data.State) > 0 {
			maps.Copy(u.state, e.Data.State)
		}
		for _, v := range e.Data.Published {
			u.publish(v)
		}
		if e.Data.Signal != "" {
			m.takeSignal(e.Data.Signal)
		}
		m.finished(x)
	case StepWasSkipped:
		m.finished(x)
	}
	m.settle(x)
	return nil
}
