package pipeline

import (
	"cmp"
	"slices"
)

// restoring builds a machine from what a snapshot holds.
type restoring struct {
	unpacker
	m     *Machine
	tasks []orderedTask
	depth int // of units
}

// orderedTask is a task that is out, with its place among all.
type orderedTask struct {
	order int64
	task  Task
}

// maxUnits bounds how deep calls may stand in one another.
const maxUnits = 1000

func (r *restoring) machine() {
	m := r.m
	m.Seq = r.short()
	run := &m.Run
	run.Status, run.Reason = RunStatus(r.text()), r.text()
	d := r.data()
	run.Error = d.Error
	if d.Usage != nil {
		run.Usage = *d.Usage
	}
	run.Outputs = r.mapping()
	run.StartedAt, run.FinishedAt = r.time(), r.time()
	if !slices.Contains(RunStatuses, run.Status) {
		r.fail()
	}
	m.cancel = r.text()
	m.finishing, m.late, m.handed = r.truth(), r.truth(), r.truth()
	m.critical, m.begun = r.short(), r.short()
	m.order = r.number()
	m.uploads = Digest(r.text())
	d = r.data()
	m.files, m.trace = d.Workspace, d.Trace
	m.answers = r.mapping()
	for range r.count() {
		name := r.text()
		if list := r.list(); len(list) > 0 {
			m.signals[name] = list
		}
	}
	m.approved, m.sessions = r.mapping(), r.mapping()
	for range r.count() {
		path, keys := Path(r.text()), map[string]*Answer{}
		for range r.count() {
			if a := r.data().Auto; a != nil {
				keys[a.Key] = a
				m.learned(a)
			}
		}
		m.answer[path] = keys
	}
	r.unit(m.unit)
	if m.finishing && !run.Status.Final() {
		r.tasks = append(r.tasks, orderedTask{m.order + 1, Task{Kind: TaskFinish}})
	}
	slices.SortStableFunc(r.tasks, func(a, b orderedTask) int { return cmp.Compare(a.order, b.order) })
	for i := range r.tasks {
		m.queue = append(m.queue, r.tasks[i].task)
	}
}

func (r *restoring) unit(u *unit) {
	if r.depth++; r.depth > maxUnits {
		r.fail()
		return
	}
	defer func() { r.depth-- }()
	u.soft = r.failure()
	r.m.abort(u, r.truth())
	if state := r.mapping(); state != nil {
		u.state = state
	}
	for range r.count() {
		for _, v := range r.data().Published {
			u.publish(v)
		}
	}
	if n := r.count(); n > 0 {
		u.consumed = make(map[consumption]int32)
		defs := stepsOf(u.def)
		for range n {
			i, artifact := r.size(), r.text()
			if i >= len(defs) {
				r.fail()
				return
			}
			u.consumed[consumption{defs[i], artifact}] = r.short()
		}
	}
	if r.truth() {
		u.openRoot()
		r.frame(u.root)
	}
	if r.truth() {
		if u.root == nil {
			r.fail()
			return
		}
		u.openFinally()
		r.frame(u.finally)
	}
}

// frame fills a frame that its owner has just opened.
func (r *restoring) frame(f *frame) {
	f.info = r.m.info(f.body)
	f.failed = r.failure()
	f.halt = r.text()
	f.jumps = r.size()
	f.order = r.number()
	if f.space.tops[0] == f {
		counted, n := r.truth(), r.count()
		if counted {
			f.space.visits = make(map[string]int32)
		}
		for range n {
			id, visits := r.text(), r.short()
			if !counted {
				r.fail()
				return
			}
			f.space.visits[id] = visits
		}
	}
	f.insts = make([]*inst, len(f.body.Steps))
	pool := make([]inst, len(f.insts))
	for i := range f.insts {
		r.inst(&pool[i], f, i)
		if !pool[i].step.Status.Final() {
			f.left++
		}
	}
}

func (r *restoring) inst(x *inst, f *frame, i int) {
	def := f.body.Steps[i]
	marks := r.size()
	x.def, x.frame, x.pos = def, f, i
	x.visit, x.turn, x.waits = r.short(), r.size(), r.size()
	x.order = r.number()
	x.path = f.path(def.ID, x.visit)
	x.step = Step{Path: x.path, ID: x.path.ID(), Kind: def.Kind, Action: def.Action, Status: StepPending}
	f.insts[i] = x
	r.m.insts[x.path] = x
	if marks > markAll || x.visit < 1 || x.waits > len(def.Deps) {
		r.fail()
	}
	if r.err != nil {
		return
	}
	x.asked, x.stop, x.ruled = marks&markAsked != 0, marks&markStop != 0, marks&markRuled != 0
	if marks&markKnown != 0 {
		r.known(x)
	}
	if x.ruled && x.rule == nil {
		r.fail()
	}
	if marks&markJournal != 0 {
		x.journal = &journal{first: r.short(), calls: r.short()}
		for range r.size() {
			x.journal.open = append(x.journal.open, ApprovalID(r.text()))
			if r.err != nil {
				return
			}
		}
		if marks&markNamed == 0 {
			if u := r.data().Usage; u != nil { // of <AUTO> tags, before it begins
				x.step.Usage = *u
			}
			x.step.Called = x.journal.calls > 0
		}
	}
	if marks&markNamed != 0 {
		x.number = r.short()
		r.step(&x.step)
	}
	if marks&markBlock != 0 {
		if x.step.Status == StepPending || !def.Block() {
			r.fail()
			return
		}
		r.block(x)
	}
	if !x.step.Status.Final() && r.err == nil {
		r.outstanding(x, marks&markOut != 0)
		r.m.settle(x)
	}
}

// known reads what a few instances have besides their place.
func (r *restoring) known(x *inst) {
	x.skip, x.tries = r.text(), r.size()
	x.base, x.offered = r.short(), r.short()
	x.due, x.since = r.time(), r.short()
	if n := r.size(); n > 0 {
		r.m.deaths[x.path] = n
	}
	rule := r.size()
	if rule > len(x.def.OnError) {
		r.fail()
		return
	}
	if rule > 0 {
		x.rule = &x.def.OnError[rule-1]
	}
	for range r.count() {
		if x.before == nil {
			x.before = map[string]int32{}
		}
		name := r.text()
		x.before[name] = r.short()
	}
	x.decision = r.data().Decision
}

func (r *restoring) step(s *Step) {
	s.Kind, s.Action, s.Status, s.Reason = Kind(r.text()), r.text(), StepStatus(r.text()), r.text()
	s.Attempt = r.short()
	s.Parameters, s.Output = r.value(), r.value()
	s.StartedAt, s.FinishedAt = r.time(), r.time()
	s.Children = r.short()
	s.ReusedFrom = RunID(r.text())
	d := r.data()
	s.Error, s.Waiting, s.Worker, s.Model, s.CacheHit, s.Artifacts = d.Error, d.Waiting, d.Worker, d.Model, d.Cached, d.Published
	s.Remote, s.Lost = d.Remote, d.Reason
	if d.Usage != nil {
		s.Usage = *d.Usage
	}
	s.Called = d.Call != nil
	switch s.Status {
	case StepPending, StepRunning, StepWaiting, StepCompleted, StepFailed, StepSkipped, StepCancelled:
	default:
		r.fail()
	}
}

func (r *restoring) block(x *inst) {
	b := &block{}
	x.block = b
	if r.truth() {
		b.items = r.list()
		x.step.Parameters = map[string]any{"items": b.items}
	}
	b.opened = r.size()
	b.result, b.errs = r.list(), r.list()
	b.failed = r.failure()
	b.halted, b.ended, b.close, b.testing = r.truth(), r.truth(), r.truth(), r.truth()
	switch {
	case x.def.Loop != nil:
		limit := x.def.Loop.Max
		if x.def.Kind == KindFor || x.def.Kind == KindQueue {
			limit = len(b.items)
		}
		if b.opened > limit || len(b.result) > limit {
			r.fail()
			return
		}
		b.active = map[int]*frame{}
		for range r.count() {
			i := r.size()
			if r.err != nil || i >= b.opened || b.active[i] != nil {
				r.fail()
				return
			}
			f := x.newPass(i)
			b.active[i] = f
			r.frame(f)
			if f.left == 0 {
				b.collecting++
			}
		}
	case x.def.Call != nil:
		if i := x.def.Call.Unit; i < 0 || i >= len(r.m.Plan.Units) {
			r.fail()
			return
		}
		b.unit = newUnit(r.m.Plan.Units[x.def.Call.Unit], x)
		b.unit.inputs, b.unit.vars = r.mapping(), r.mapping()
		r.unit(b.unit)
	default:
		arm := r.size()
		if arm > len(x.def.Branches) {
			r.fail()
			return
		}
		if arm > 0 {
			b.arm = x.newArm(&x.def.Branches[arm-1].Body)
			r.frame(b.arm)
		}
	}
}

// outstanding asks again for the tasks of an instance that nobody has answered.
func (r *restoring) outstanding(x *inst, begin bool) {
	ask := func(order int64, t Task) { r.tasks = append(r.tasks, orderedTask{order, t}) }
	switch {
	case x.skip != "":
		ask(x.order, Task{Kind: TaskSkip, Path: x.path})
	case begin:
		x.token++
		x.out = x.token
		ask(x.order, Task{Kind: TaskBegin, Path: x.path, Interrupted: x.step.Status == StepRunning, token: x.token})
	}
	if x.block == nil {
		return
	}
	if x.testing {
		ask(x.order, Task{Kind: TaskPass, Path: x.path, Index: x.opened})
	}
	if x.close {
		ask(x.order, Task{Kind: TaskClose, Path: x.path})
	}
	if x.def.Loop != nil {
		for _, f := range x.passes() {
			if f.left == 0 {
				ask(f.order, Task{Kind: TaskCollect, Path: x.path, Index: f.index})
			}
		}
	}
}
