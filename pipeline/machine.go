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
	TaskBegin   TaskKind = iota // test the condition; then record step_skipped, or step_started and do it
	TaskSkip                    // record step_skipped with Reason
	TaskPass                    // a while loop: test its condition; record state_set (Pass) at PassPath, or step_finished
	TaskCollect                 // a loop with collect: evaluate it in the pass, record state_set (Collected) at PassPath
	TaskClose                   // a block is done: evaluate its state, record step_finished with Status, Output and Failure
	TaskFinish                  // the run is done: evaluate its outputs, record run_finished
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

	token int32 // of TaskBegin: stands only while it is the instance's newest
}

// PassPath is the path of the task's pass.
func (t *Task) PassPath() Path { return passPath(t.Path, t.Index) }

func passPath(loop Path, i int) Path {
	return Path(string(loop) + "[" + strconv.Itoa(i) + "]")
}

// The reasons of skipped and cancelled steps.
const (
	ReasonCondition = "condition_false"
	ReasonUpstream  = "upstream_failed"
	ReasonStopped   = "run_stopped"
	ReasonCancelled = "cancelled"
	ReasonFailed    = "failed" // failed under on_failure: skip
	ReasonTimeout   = "timeout"
	ReasonOwnerDied = "owner_died"
)

// ReasonHandedOver is why a run is resumed whose owner had left in good order.
const ReasonHandedOver = "handed_over"

// Machine is the state of one run: it learns everything from events and says
// what may happen next. Apply and Next must be called by one goroutine. It is
// deterministic: the same plan and events give the same tasks.
type Machine struct {
	Plan *Plan
	Run  Run
	Seq  int32 // of the newest event applied

	vars    map[string]any
	state   map[string]any
	isState map[string]bool
	insts   map[Path]*inst
	bodies  map[*Body]*bodyInfo
	queue   []Task
	root    *frame
	finally *frame
	soft    *Failure // the first failure under on_failure: continue
	cancel  string   // why the run is being ended from outside; empty: it is not
	abort   bool     // running steps are to be cancelled
	resumes int32
	deaths  map[Path]int
}

// bodyInfo is derived from a Body once.
type bodyInfo struct {
	dependents [][]int32
	index      map[string]int
}

// frame is one instantiation of a body: the root, finally, the arm of a
// choice, or one pass of a loop.
type frame struct {
	body   *Body
	info   *bodyInfo
	owner  *inst // nil: root or finally
	parent *frame
	index  int // the pass; -1: not a pass
	prefix string
	insts  []*inst
	left   int      // instances that are not final
	failed *Failure // the first failure that nothing handles
	halt   string   // why nothing new may start
}

// inst is one step instance.
type inst struct {
	def   *StepDef
	frame *frame
	path  Path
	step  Step
	waits int
	pos   int    // in frame.insts
	asked bool   // a begin or skip task is out
	token int32  // of the newest begin task
	close bool   // the close task is out
	skip  string // it must be skipped, and why
	tries int    // attempts that ended in failure
	base  int32  // attempts below or equal may have been used without a record
	// offered is the attempt that the newest resumption asked for, 0: none.
	offered int32
	due     time.Time
	arm     *frame
	active  map[int]*frame // passes under way or being collected
	items   []any          // of for
	opened  int            // passes begun
	result  []any          // of passes, by index
	errs    []any
	failed  *Failure
	halted  bool
	ended   bool // a while loop's condition was false
}

// NewMachine returns the machine of a run before its first event.
func NewMachine(plan *Plan, run Run) *Machine {
	m := &Machine{
		Plan: plan, Run: run.fresh(), state: map[string]any{}, isState: map[string]bool{},
		insts: map[Path]*inst{}, bodies: map[*Body]*bodyInfo{}, deaths: map[Path]int{},
	}
	for _, name := range plan.State {
		m.isState[name] = true
	}
	return m
}

// SetVars gives the machine the pipeline's vars, evaluated.
func (m *Machine) SetVars(vars map[string]any) { m.vars = vars }

// Aborting reports whether steps that run are to be cancelled.
func (m *Machine) Aborting() bool { return m.abort }

// Step returns the live instance at path, or nil: it has not been reached, or
// its pass is over.
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

// Deaths is how many owners died while the step was in flight.
func (m *Machine) Deaths(path Path) int { return m.deaths[path] }

// Next returns the tasks that have become possible since the last call, in a
// stable order.
func (m *Machine) Next() []Task {
	if len(m.queue) == 0 {
		return nil
	}
	list := m.queue[:0]
	for _, t := range m.queue {
		if m.fill(&t) {
			list = append(list, t)
		}
	}
	m.queue = nil
	return list
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
	case TaskSkip:
		t.Reason = x.skip
		return x.step.Status == StepPending || x.step.Status == StepWaiting
	case TaskPass:
		return x.opened == t.Index && !x.ended && !x.halted
	case TaskCollect:
		return x.active[t.Index] != nil
	case TaskClose:
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

// verdict says how the run ends.
func (m *Machine) verdict(t *Task) {
	t.RunStatus = RunCompleted
	failure := m.root.failed
	if failure == nil && m.finally != nil {
		failure = m.finally.failed
	}
	if failure == nil {
		failure = m.soft
	}
	switch {
	case m.cancel == SignalTimeout:
		t.RunStatus, t.Reason = RunFailed, ReasonTimeout
		t.Failure = Failuref(CategoryTimeout, "the run took longer than its timeout of %s", m.Plan.Settings.Timeout)
	case m.cancel != "":
		t.RunStatus, t.Reason = RunCancelled, ReasonCancelled
	case failure != nil:
		t.RunStatus, t.Reason, t.Failure = RunFailed, "step_failed", failure
	}
}

// Apply tells the machine what happened. An event that cannot follow is an
// error and changes nothing but Seq.
func (m *Machine) Apply(e *Event) error {
	if e.Seq != m.Seq+1 {
		return fmt.Errorf("apply event %d after %d", e.Seq, m.Seq)
	}
	m.Seq = e.Seq
	m.Run.apply(e)
	switch e.Type {
	case RunStarted:
		if m.root == nil {
			m.root = m.open(&m.Plan.Root, nil, -1, "", nil)
			if m.cancel != "" {
				m.haltFrame(m.root, ReasonCancelled)
			}
			m.checkDone(m.root)
		}
	case RunResumed:
		m.resume(e)
	case SignalReceived:
		m.signal(e.Data.Signal)
	case StateSet:
		return m.applyState(e)
	case StepStarted, StepRetrying, StepIsWaiting, StepFinished, StepWasSkipped:
		return m.applyStep(e)
	case RunFinished:
		m.insts, m.queue = map[Path]*inst{}, nil
	}
	return nil
}

// resume asks again for all that was under way when the run lost its owner.
func (m *Machine) resume(e *Event) {
	m.resumes++
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
	var walk func(f *frame)
	walk = func(f *frame) {
		if f == nil {
			return
		}
		for _, x := range f.insts {
			if x.step.Status.Final() {
				continue
			}
			if x.step.Status == StepRunning && !x.def.Kind.Block() {
				if e.Data.Reason == ReasonOwnerDied {
					m.deaths[x.path]++
				}
				// The attempt that an earlier resumption asked for may have run
				// although its start was not recorded.
				x.base = max(x.base, x.step.Attempt, x.offered)
				x.offered = x.base + 1
				x.token++
				m.queue = append(m.queue, Task{Kind: TaskBegin, Path: x.path, Interrupted: true, token: x.token})
			}
			walk(x.arm)
			for i := range x.opened {
				walk(x.active[i])
			}
		}
	}
	walk(m.root)
	walk(m.finally)
}

// mayHaveRun reports whether an attempt without a record may have had effects.
func (x *inst) mayHaveRun() bool {
	return (x.def.Kind == KindAction || x.def.Kind == KindCommand) && x.def.Effect != EffectPure
}

// signal ends the run from outside. Once only finally steps are left, the run
// ends as it would have.
func (m *Machine) signal(name string) {
	if name != SignalCancel && name != SignalTimeout || m.cancel != "" || m.root != nil && m.root.left == 0 {
		return
	}
	m.cancel, m.abort = name, true
	if m.root != nil {
		m.haltFrame(m.root, ReasonCancelled)
	}
}

func (m *Machine) applyStep(e *Event) error {
	x := m.insts[e.Path]
	if x == nil {
		return fmt.Errorf("apply %s: no step instance at %s", e.Type, e.Path)
	}
	if x.step.Status.Final() {
		return fmt.Errorf("apply %s: step %s is already %s", e.Type, e.Path, x.step.Status)
	}
	x.step.apply(e)
	switch e.Type {
	case StepStarted:
		if x.def.Kind.Block() {
			m.begin(x, e)
		}
	case StepRetrying:
		x.tries++
		x.due = e.Data.Due
		m.ask(x)
	case StepFinished:
		maps.Copy(m.state, e.Data.State)
		m.finished(x)
	case StepWasSkipped:
		m.finished(x)
	}
	return nil
}

func (m *Machine) push(kind TaskKind, x *inst) {
	if kind == TaskClose {
		if x.close {
			return
		}
		x.close = true
	}
	m.queue = append(m.queue, Task{Kind: kind, Path: x.path})
}

// ask pushes the task that begins the instance's next attempt.
func (m *Machine) ask(x *inst) {
	x.asked = true
	x.token++
	m.queue = append(m.queue, Task{Kind: TaskBegin, Path: x.path, token: x.token})
}

// open instantiates a body and asks for the steps that wait for nothing.
func (m *Machine) open(b *Body, owner *inst, index int, prefix string, parent *frame) *frame {
	f := &frame{
		body: b, info: m.info(b), owner: owner, parent: parent, index: index, prefix: prefix,
		insts: make([]*inst, len(b.Steps)), left: len(b.Steps),
	}
	pool := make([]inst, len(b.Steps))
	for i, def := range b.Steps {
		x := &pool[i]
		x.def, x.frame, x.pos, x.waits = def, f, i, len(def.Deps)
		if def.ID == "" { // the single step of a loop is the pass itself
			x.path = Path(prefix)
		} else {
			x.path = Path(prefix + def.ID)
		}
		x.step = Step{Path: x.path, ID: x.path.ID(), Kind: def.Kind, Action: def.Action, Status: StepPending}
		f.insts[i] = x
		m.insts[x.path] = x
	}
	for _, x := range f.insts {
		if x.waits == 0 {
			m.ask(x)
		}
	}
	return f
}

func (m *Machine) info(b *Body) *bodyInfo {
	if in := m.bodies[b]; in != nil {
		return in
	}
	in := &bodyInfo{dependents: make([][]int32, len(b.Steps)), index: make(map[string]int, len(b.Steps))}
	for i, s := range b.Steps {
		in.index[s.ID] = i
		for _, d := range s.Deps {
			in.dependents[d.On] = append(in.dependents[d.On], int32(i))
		}
	}
	m.bodies[b] = in
	return in
}

// finished moves the frame on after one of its instances became final.
func (m *Machine) finished(x *inst) {
	f := x.frame
	f.left--
	stop := x.step.Status == StepCancelled
	switch x.step.Status {
	case StepFailed:
		if x.def.OnFailure == "continue" {
			if m.soft == nil && m.Plan.Settings.OnError != "continue" {
				m.soft = x.failure()
			}
		} else {
			stop = true
			m.fail(f, x.failure())
		}
	case StepSkipped:
		switch x.step.Reason {
		case ReasonUpstream, ReasonStopped, ReasonCancelled:
			stop = true
		}
	}
	for _, i := range f.info.dependents[x.pos] {
		d := f.insts[i]
		d.waits--
		switch {
		case d.asked:
		case stop:
			m.skip(d, ReasonUpstream)
		case d.waits == 0:
			m.ask(d)
		}
	}
	m.checkDone(f)
}

// failure is why the step failed, with the step named.
func (x *inst) failure() *Failure {
	if x.step.Error == nil {
		return &Failure{Kind: CategoryUnknown, Step: x.path, Message: "the step failed"}
	}
	if x.step.Error.Step != "" {
		return x.step.Error
	}
	f := *x.step.Error
	f.Step = x.path
	return &f
}

// fail records a failure that nothing handles and stops what policy stops.
func (m *Machine) fail(f *frame, why *Failure) {
	if f.failed == nil {
		f.failed = why
	}
	switch {
	case f == m.root && m.Plan.Settings.OnError == "continue":
	case f == m.root && m.Plan.Settings.OnError == "abort":
		m.abort = true
		m.haltFrame(f, ReasonStopped)
	case f == m.finally: // each finally step has its chance
	default:
		m.haltFrame(f, ReasonStopped)
	}
}

// skip asks for an instance that has not begun to be skipped.
func (m *Machine) skip(x *inst, reason string) {
	if x.skip != "" || x.step.Status.Final() || x.step.Status == StepRunning {
		return
	}
	x.skip, x.asked = reason, true
	m.push(TaskSkip, x)
}

// haltFrame lets nothing new start in a frame and the frames within.
func (m *Machine) haltFrame(f *frame, reason string) {
	if f.halt != "" {
		return
	}
	f.halt = reason
	for _, x := range f.insts {
		if x.step.Status.Final() {
			continue
		}
		if x.step.Status == StepRunning {
			m.haltBlock(x, reason)
			continue
		}
		why := reason
		for _, d := range x.def.Deps {
			if y := f.insts[d.On]; y.step.Status == StepFailed && y.def.OnFailure != "continue" {
				why = ReasonUpstream
			}
		}
		m.skip(x, why)
	}
}

// checkDone moves on when all instances of a frame are final.
func (m *Machine) checkDone(f *frame) {
	if f.left > 0 {
		return
	}
	switch {
	case f.owner == nil && f == m.finally || f.owner == nil && len(m.Plan.Finally.Steps) == 0:
		m.queue = append(m.queue, Task{Kind: TaskFinish})
	case f.owner == nil:
		m.abort = false // what runs now is the clean-up
		m.finally = m.open(&m.Plan.Finally, nil, -1, "", m.root)
	case f.index < 0:
		x := f.owner
		if f.failed != nil {
			x.failed = f.failed
		}
		m.push(TaskClose, x)
	case f.failed == nil && f.halt == "" && f.owner.def.Loop.Collect != nil:
		m.queue = append(m.queue, Task{Kind: TaskCollect, Path: f.owner.path, Index: f.index})
	default:
		m.passDone(f.owner, f, nil)
	}
}
