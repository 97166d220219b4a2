package pipeline

import (
	"maps"
	"slices"
	"strconv"
	"time"
)

// bodyInfo is derived from a Body once.
type bodyInfo struct {
	dependents [][]int32
	index      map[string]int
}

// frame is one instantiation of a body: a pipeline's steps or its finally, the
// body of a choice, or one pass of a loop.
type frame struct {
	body   *Body
	info   *bodyInfo
	unit   *unit
	owner  *inst // nil: the unit's root or finally
	parent *frame
	final  bool // it is, or stands in, the finally of its unit
	index  int  // the pass; -1: not a pass
	prefix string
	space  *space
	insts  []*inst
	left   int      // instances that are not final
	failed *Failure // the first failure that nothing handles
	halt   string   // why nothing new may start
	jumps  int      // back, taken so far
	order  int64    // of the task that collects the pass
}

// space is where instances need different paths: a unit, or a pass of a loop.
// Bodies of choices stand in the space of their block.
type space struct {
	tops []*frame
	// visits is how many instances an id has had, from when one was needed twice.
	visits map[string]int32
}

// inst is one step instance.
type inst struct {
	def   *StepDef
	frame *frame
	path  Path
	step  Step
	visit int32 // in its space, from 1
	turn  int   // in its frame, from 1
	waits int   // steps that it still waits for
	pos   int   // in frame.insts
	asked bool  // a begin or skip task is out
	busy  bool  // counted in Machine.busy
	stop  bool  // it ended so that what depends on it must not run
	token int32 // of the newest begin task
	out   int32 // the token of the begin task that asked last: it is out while that is token
	order int64 // of the newest task, among all
	// number counts instances from 1, in the order of their first event.
	number int32
	skip   string
	tries  int   // attempts that ended in failure
	base   int32 // attempts below or equal may have been used without a record
	// offered is the attempt that the newest resumption asked for, 0: none.
	offered int32
	due     time.Time
	since   int32            // seq of the event by which it waits
	rule    *Rule            // that its newest failure was met with
	ruled   bool             // the rule says how it ended
	before  map[string]int32 // versions of artifacts that the step had been handed before
	// decision has settled the approval that the step asked for, whether or not
	// the step has ended since.
	decision *Decision
	// journal tells of the calls that the step has made; nil: none.
	journal *journal
	*block  // of blocks that have begun
}

// block is what a block that has begun holds.
type block struct {
	arm        *frame         // of choices, parallel and compete
	unit       *unit          // of calls
	active     map[int]*frame // of loops: passes under way or being collected
	items      []any          // of for and queue
	opened     int            // passes begun
	result     []any          // of passes, by index
	errs       []any
	failed     *Failure
	halted     bool
	ended      bool // the loop's own condition has ended it
	close      bool // the close task is out
	testing    bool // the pass task is out
	collecting int  // collect tasks that are out
}

// passes lists the passes under way, in order.
func (b *block) passes() []*frame {
	list := make([]*frame, 0, len(b.active))
	for _, i := range slices.Sorted(maps.Keys(b.active)) {
		list = append(list, b.active[i])
	}
	return list
}

// frames lists what is open within a block, in a stable order.
func (b *block) frames() []*frame {
	switch {
	case b == nil:
		return nil
	case b.arm != nil:
		return []*frame{b.arm}
	case b.unit != nil:
		return b.unit.frames()
	}
	return b.passes()
}

// walk visits the instances of a frame and of the frames within, but for what
// is final.
func (f *frame) walk(visit func(x *inst)) {
	for _, x := range f.insts {
		if x.step.Status.Final() {
			continue
		}
		visit(x)
		for _, in := range x.block.frames() {
			in.walk(visit)
		}
	}
}

// open instantiates a body, and asks for the steps that wait for nothing. The
// frame is already known to its owner.
func (m *Machine) open(f *frame) {
	f.info = m.info(f.body)
	f.insts = make([]*inst, len(f.body.Steps))
	f.left = len(f.insts)
	pool := make([]inst, len(f.insts))
	for i := range f.insts {
		m.place(&pool[i], f, i)
	}
	for _, x := range f.insts {
		if x.waits == 0 {
			m.ask(x)
		}
	}
}

// place makes x the instance of the frame's i-th step.
func (m *Machine) place(x *inst, f *frame, i int) {
	def := f.body.Steps[i]
	x.def, x.frame, x.pos, x.waits, x.turn = def, f, i, len(def.Deps), 1
	x.path, x.visit = m.name(f, def.ID)
	x.step = Step{Path: x.path, ID: x.path.ID(), Kind: def.Kind, Action: def.Action, Status: StepPending}
	f.insts[i] = x
	m.insts[x.path] = x
}

// name is the path of the next instance of a step. The single step of a loop
// has no id: its path is that of the pass.
func (m *Machine) name(f *frame, id string) (Path, int32) {
	s := f.space
	if s.visits == nil {
		if path := f.path(id, 1); m.insts[path] == nil {
			return path, 1
		}
		s.count()
	}
	s.visits[id]++
	v := s.visits[id]
	return f.path(id, v), v
}

// path is that of a step's v-th instance.
func (f *frame) path(id string, v int32) Path {
	if v > 1 {
		return Path(f.prefix + id + "~" + strconv.Itoa(int(v)))
	}
	return Path(f.prefix + id)
}

// count begins to number the instances of each id.
func (s *space) count() {
	s.visits = map[string]int32{}
	var walk func(f *frame)
	walk = func(f *frame) {
		for _, x := range f.insts {
			if x == nil {
				continue
			}
			s.visits[x.def.ID] = max(s.visits[x.def.ID], x.visit)
			if x.block != nil && x.arm != nil && x.arm.space == s {
				walk(x.arm)
			}
		}
	}
	for _, f := range s.tops {
		walk(f)
	}
}

// forget drops the instances of a frame that is over.
func (m *Machine) forget(f *frame) {
	for _, x := range f.insts {
		m.drop(x)
	}
}

// drop forgets an instance and all that it holds.
func (m *Machine) drop(x *inst) {
	delete(m.insts, x.path)
	delete(m.deaths, x.path)
	delete(m.answer, x.path)
	for _, f := range x.block.frames() {
		m.forget(f)
	}
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

// push asks for a task of a block.
func (m *Machine) push(kind TaskKind, x *inst, index int) {
	switch kind {
	case TaskClose:
		if x.close {
			return
		}
		x.close = true
	case TaskPass:
		x.testing = true
	case TaskCollect:
		x.collecting++
		x.active[index].order = m.ordered()
	case TaskBegin, TaskSkip, TaskFinish:
	}
	x.order = m.ordered()
	m.enqueue(Task{Kind: kind, Path: x.path, Index: index})
	m.settle(x)
}

// ask asks for the instance's next attempt.
func (m *Machine) ask(x *inst) {
	x.asked = true
	x.token++
	x.out, x.order = x.token, m.ordered()
	m.enqueue(Task{Kind: TaskBegin, Path: x.path, token: x.token})
	m.settle(x)
}

// skip asks for an instance that does not run to be skipped.
func (m *Machine) skip(x *inst, reason string) {
	if x.skip != "" || x.step.Status.Final() || x.step.Status == StepRunning {
		return
	}
	x.skip, x.asked, x.order = reason, true, m.ordered()
	m.enqueue(Task{Kind: TaskSkip, Path: x.path})
	m.settle(x)
}

// settle keeps the count of what is under way and the list of what waits.
func (m *Machine) settle(x *inst) {
	status := x.step.Status
	waits := status == StepWaiting && x.skip == ""
	busy := false
	switch {
	case status.Final() || waits:
	case status == StepRunning:
		busy = x.block == nil || x.close || x.testing || x.collecting > 0
	default:
		busy = x.asked
	}
	if busy != x.busy {
		x.busy = busy
		if busy {
			m.busy++
		} else {
			m.busy--
		}
	}
	if waits {
		m.waiting[x] = struct{}{}
	} else {
		delete(m.waiting, x)
	}
}

// finished moves the frame on after one of its instances became final.
func (m *Machine) finished(x *inst) {
	f := x.frame
	f.left--
	to, handled := x.route()
	x.stop = x.step.Status == StepCancelled
	switch x.step.Status {
	case StepFailed:
		switch {
		case handled:
		case x.def.OnFailure == "continue":
			if u := f.unit; u.soft == nil && u.def.Settings.OnError != "continue" {
				u.soft = x.failure()
			}
		default:
			x.stop = true
			m.fail(f, x.failure())
		}
	case StepSkipped:
		switch x.step.Reason {
		case ReasonUpstream, ReasonStopped, ReasonCancelled:
			x.stop = true
		}
	}
	if to != nil && f.halt == "" {
		if *to <= x.pos {
			why := m.jumpBack(x, *to)
			if why == nil {
				return
			}
			x.stop = true
			m.fail(f, why)
		} else {
			for _, over := range f.insts[x.pos+1 : *to] {
				m.skip(over, ReasonJumped)
			}
		}
	}
	for _, i := range f.info.dependents[x.pos] {
		d := f.insts[i]
		d.waits--
		switch {
		case d.asked:
		case x.stop:
			m.skip(d, ReasonUpstream)
		case d.waits == 0:
			if why := f.nothingToJudge(d); why != nil {
				m.fail(f, why)
			} else {
				m.ask(d)
			}
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
	u := f.unit
	switch {
	case f == u.finally: // each finally step has its chance
	case f == u.root && u.def.Settings.OnError == "continue":
	case f == u.root && u.def.Settings.OnError == "abort":
		m.abort(u, true)
		m.haltFrame(f, ReasonStopped)
	default:
		m.haltFrame(f, ReasonStopped)
	}
}

// haltFrame lets nothing new start in a frame and the frames within.
func (m *Machine) haltFrame(f *frame, reason string) {
	if f.halt != "" {
		return
	}
	f.halt = reason
	for _, x := range f.insts {
		switch {
		case x.step.Status.Final():
		case x.step.Status == StepRunning:
			m.haltBlock(x, reason)
		default:
			why := reason
			for _, d := range x.def.Deps {
				if y := f.insts[d.On]; y.stop && (y.step.Status == StepFailed || y.step.Status == StepCompleted) {
					why = ReasonUpstream
				}
			}
			m.skip(x, why)
		}
	}
}

// checkDone moves on when all instances of a frame are final.
func (m *Machine) checkDone(f *frame) {
	if f.left > 0 {
		return
	}
	u, x := f.unit, f.owner
	switch {
	case x == nil && f == u.root && len(u.def.Finally.Steps) > 0:
		m.abort(u, false) // what runs now is the clean-up
		u.openFinally()
		m.open(u.finally)
	case x == nil && u.call != nil:
		m.abort(u, false)
		m.push(TaskClose, u.call, 0)
	case x == nil:
		m.finishing = true
		m.enqueue(Task{Kind: TaskFinish})
	case f.index < 0:
		if f.failed != nil {
			x.failed = f.failed
		}
		m.push(TaskClose, x, 0)
	case f.failed == nil && f.halt == "" && (x.def.Loop.Collect != nil || x.def.Loop.Until != nil):
		m.push(TaskCollect, x, f.index)
	default:
		m.passDone(x, f, nil)
	}
}

// output is the value of a finished frame: step id to output, or the output
// itself of a single step.
func (f *frame) output() any {
	if len(f.insts) == 1 && f.insts[0].def.ID == "" {
		return f.insts[0].step.Output
	}
	out := make(map[string]any, len(f.insts))
	for _, x := range f.insts {
		out[x.def.ID] = x.step.Output
	}
	return out
}
