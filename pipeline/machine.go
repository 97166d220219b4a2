package pipeline

import (
	"fmt"
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
	def    *StepDef
	frame  *frame
	path   Path
	step   Step
	waits  int
	pos    int    // in frame.insts
	asked  bool   // a begin or skip task is out
	token  int32  // of the newest begin task
	close  bool   // the close task is out
	skip   string // it must be skipped, and why
	tries  int    // attempts that ended in failure
	base   int32  // attempts below or equal may have been used without a record
	due    time.Time
	arm    *frame
	active map[int]*frame // passes under way or being collected
	items  []any          // of for
	opened int            // passes begun
	result []any          // of passes, by index
	errs   []any
	failed *Failure
	halted bool
	ended  bool // a while loop's condition was false
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

// closing says how a block ends.
func (m *Machine) closing(x *inst, t *Task) {
	t.Status, t.Failure = StepCompleted, x.failed
	switch {
	case x.failed != nil:
		t.Status = StepFailed
	case x.halted:
		t.Status, t.Reason = StepCancelled, x.frame.halt
	}
	if x.def.Loop == nil {
		if x.arm != nil {
			t.Output = m.outputOf(x.arm)
		}
		return
	}
	results := x.result
	if results == nil {
		results = []any{}
	}
	out := map[string]any{
		"results": results, "iterations": int64(x.opened),
		"completed": x.failed == nil && !x.halted && (x.def.Kind == KindFor || x.ended),
	}
	if x.def.Kind == KindFor {
		errs := x.errs
		if errs == nil {
			errs = []any{}
		}
		out["errors"] = errs
	}
	t.Output = out
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

func (m *Machine) applyState(e *Event) error {
	if !e.Data.Pass && e.Data.Collected == nil && e.Data.State != nil && e.Path == "" {
		for k, v := range e.Data.State {
			m.state[k] = v
		}
		return nil
	}
	loop, i, ok := e.Path.splitPass()
	x := m.insts[loop]
	if !ok || x == nil || x.def.Loop == nil {
		return fmt.Errorf("apply %s: no loop pass at %s", e.Type, e.Path)
	}
	if e.Data.Pass {
		m.openPass(x, i)
		return nil
	}
	f := x.active[i]
	if f == nil {
		return fmt.Errorf("apply %s: pass %s is not under way", e.Type, e.Path)
	}
	m.passDone(x, f, e.Data.Collected)
	return nil
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
		for k, v := range e.Data.State {
			m.state[k] = v
		}
		m.finished(x)
	case StepWasSkipped:
		m.finished(x)
	}
	return nil
}

// begin opens a block's first frames.
func (m *Machine) begin(x *inst, e *Event) {
	switch {
	case x.def.Loop == nil:
		if e.Data.Branch == nil || *e.Data.Branch < 0 || *e.Data.Branch >= len(x.def.Branches) {
			m.push(TaskClose, x)
			return
		}
		x.arm = m.open(&x.def.Branches[*e.Data.Branch].Body, x, -1, x.frame.prefix, x.frame)
		m.checkDone(x.arm)
	case x.def.Kind == KindFor:
		x.active = map[int]*frame{}
		x.result = make([]any, 0, len(e.Data.Items))
		x.items = e.Data.Items
		m.advance(x)
	default:
		x.active = map[int]*frame{}
		m.advance(x)
	}
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

// window is how many passes of a loop may be under way.
func (m *Machine) window(l *Loop) int {
	if l.Parallel == -1 {
		if n := m.Plan.Settings.MaxParallel; n > 0 {
			return n
		}
		return 1024
	}
	return max(l.Parallel, 1)
}

// advance opens the passes that may begin, or closes the loop.
func (m *Machine) advance(x *inst) {
	l := x.def.Loop
	if x.def.Kind == KindFor {
		for n := m.window(l); !x.halted && x.opened < len(x.items) && len(x.active) < n; {
			m.openPass(x, x.opened)
		}
		if len(x.active) == 0 && (x.halted || x.opened >= len(x.items)) {
			m.push(TaskClose, x)
		}
		return
	}
	switch {
	case len(x.active) > 0:
	case x.halted || x.ended || x.opened >= l.Max:
		m.push(TaskClose, x)
	default:
		m.queue = append(m.queue, Task{Kind: TaskPass, Path: x.path, Index: x.opened})
	}
}

// EndLoop tells the machine that a while loop's condition was false. It is
// followed by the TaskClose that Next then gives.
func (m *Machine) EndLoop(path Path) {
	if x := m.insts[path]; x != nil && !x.ended {
		x.ended = true
		m.push(TaskClose, x)
	}
}

func (m *Machine) openPass(x *inst, i int) {
	if x.opened <= i {
		x.opened = i + 1
	}
	prefix := string(passPath(x.path, i))
	if !x.def.Loop.Single {
		prefix += "/"
	}
	f := m.open(&x.def.Loop.Body, x, i, prefix, x.frame)
	x.active[i] = f
	m.checkDone(f)
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

// haltBlock lets no further pass of a running block begin.
func (m *Machine) haltBlock(x *inst, reason string) {
	if !x.def.Kind.Block() || x.halted || x.close {
		return
	}
	x.halted = true
	if x.arm != nil {
		m.haltFrame(x.arm, reason)
	}
	for i := range x.opened {
		if f := x.active[i]; f != nil {
			m.haltFrame(f, reason)
		}
	}
	if x.def.Loop != nil && len(x.active) == 0 {
		m.push(TaskClose, x)
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

// passDone keeps a pass's output and goes on with the loop.
func (m *Machine) passDone(x *inst, f *frame, collected any) {
	delete(x.active, f.index)
	for len(x.result) <= f.index {
		x.result = append(x.result, nil)
	}
	switch {
	case f.failed != nil && x.def.Loop.OnItemError == "continue":
		x.errs = append(x.errs, map[string]any{
			"index": int64(f.index), "kind": f.failed.Kind, "message": f.failed.Message, "step": string(f.failed.Step),
		})
	case f.failed != nil:
		if x.failed == nil {
			x.failed = f.failed
		}
		m.haltBlock(x, ReasonStopped)
	case f.halt != "":
	case x.def.Loop.Collect != nil:
		x.result[f.index] = collected
	default:
		x.result[f.index] = m.outputOf(f)
	}
	m.forget(f)
	m.advance(x)
}

// forget drops the instances of a pass that is over.
func (m *Machine) forget(f *frame) {
	for _, x := range f.insts {
		delete(m.insts, x.path)
		if x.arm != nil {
			m.forget(x.arm)
		}
	}
}

// outputOf is the value of a finished frame: step id to output, or the output
// itself of a single step.
func (m *Machine) outputOf(f *frame) any {
	if len(f.insts) == 1 && f.insts[0].def.ID == "" {
		return f.insts[0].step.Output
	}
	out := make(map[string]any, len(f.insts))
	for _, x := range f.insts {
		out[x.def.ID] = x.step.Output
	}
	return out
}

// splitPass splits "a/loop[2]" into "a/loop" and 2.
func (p Path) splitPass() (Path, int, bool) {
	s := string(p)
	if len(s) == 0 || s[len(s)-1] != ']' {
		return "", 0, false
	}
	for i := len(s) - 2; i >= 0; i-- {
		if s[i] == '[' {
			n, err := strconv.Atoi(s[i+1 : len(s)-1])
			return Path(s[:i]), n, err == nil
		}
	}
	return "", 0, false
}
