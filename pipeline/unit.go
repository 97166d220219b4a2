package pipeline

// unit is a pipeline under way: the run's own, or one that a call has begun.
// Names mean what stands in it.
type unit struct {
	def      *Unit
	call     *inst // nil: the run's own
	inputs   map[string]any
	vars     map[string]any
	state    map[string]any
	isState  map[string]bool
	root     *frame
	finally  *frame
	soft     *Failure // the first failure under on_failure: continue
	abort    bool     // running steps are to be cancelled
	versions map[string][]Version
	consumed map[consumption]int32
}

// consumption is a step with an artifact that it was handed.
type consumption struct {
	def      *StepDef
	artifact string
}

func newUnit(def *Unit, call *inst) *unit {
	u := &unit{def: def, call: call, state: map[string]any{}, isState: make(map[string]bool, len(def.State))}
	for _, name := range def.State {
		u.isState[name] = true
	}
	return u
}

// openUnit begins a pipeline's steps.
func (m *Machine) openUnit(u *unit) {
	u.openRoot()
	m.open(u.root)
	m.checkDone(u.root)
}

func (u *unit) openRoot() {
	prefix := ""
	if u.call != nil {
		prefix = string(u.call.path) + "/"
	}
	u.root = &frame{body: &u.def.Root, unit: u, index: -1, prefix: prefix}
	u.root.space = &space{tops: []*frame{u.root}}
}

func (u *unit) openFinally() {
	f := u.root
	u.finally = &frame{body: &u.def.Finally, unit: u, parent: f, final: true, index: -1, prefix: f.prefix, space: f.space}
	f.space.tops = append(f.space.tops, u.finally)
}

// frames lists what of the unit is open.
func (u *unit) frames() []*frame {
	var list []*frame
	for _, f := range []*frame{u.root, u.finally} {
		if f != nil {
			list = append(list, f)
		}
	}
	return list
}

// walk visits all instances that are not final.
func (u *unit) walk(visit func(x *inst)) {
	for _, f := range u.frames() {
		f.walk(visit)
	}
}

// failure is why the pipeline has failed, once its steps are final; nil: it has not.
func (u *unit) failure() *Failure {
	switch {
	case u.root.failed != nil:
		return u.root.failed
	case u.finally != nil && u.finally.failed != nil:
		return u.finally.failed
	}
	return u.soft
}

// unitAt is the unit that the instance at path stands in.
func (m *Machine) unitAt(path Path) *unit {
	if x := m.insts[path]; x != nil {
		return x.frame.unit
	}
	return m.unit
}

// Unit is the pipeline that the instance at path stands in; that of the empty
// path is the run's own.
func (m *Machine) Unit(path Path) *Unit { return m.unitAt(path).def }

// homeOf is the pipeline whose text holds a step.
func (m *Machine) homeOf(def *StepDef) *Unit {
	if len(m.Plan.Units) == 0 {
		return &m.Plan.Unit
	}
	if m.homes == nil {
		m.homes = map[*StepDef]*Unit{}
		var note func(u *Unit, b *Body)
		note = func(u *Unit, b *Body) {
			for _, s := range b.Steps {
				m.homes[s] = u
				if s.Loop != nil {
					note(u, &s.Loop.Body)
				}
				for i := range s.Branches {
					note(u, &s.Branches[i].Body)
				}
			}
		}
		for _, u := range m.Plan.Units {
			note(u, &u.Root)
			note(u, &u.Finally)
		}
	}
	if u := m.homes[def]; u != nil {
		return u
	}
	return &m.Plan.Unit
}

// abort lets the running steps of a unit be cancelled, or no longer.
func (m *Machine) abort(u *unit, on bool) {
	if u.abort == on {
		return
	}
	u.abort = on
	if on {
		m.aborts++
	} else {
		m.aborts--
	}
}

// Aborting reports whether steps that run are to be cancelled: those of which
// Cancels says so.
func (m *Machine) Aborting() bool { return m.aborts > 0 }

// Cancels reports whether the step at path, which runs, is to be cancelled: its
// run is, or its pipeline or one that calls it has failed under on_error: abort.
// The steps of finally are left alone.
func (m *Machine) Cancels(path Path) bool {
	if m.aborts == 0 {
		return false
	}
	for x := m.insts[path]; x != nil && !x.frame.final; x = x.frame.unit.call {
		if x.frame.unit.abort {
			return true
		}
	}
	return false
}

// end ends the run from outside. Once only finally steps are left, the run ends
// as it would have.
func (m *Machine) end(name string) {
	root := m.unit.root
	if m.cancel != "" || root != nil && root.left == 0 {
		return
	}
	m.cancel = name
	m.abort(m.unit, true)
	if root != nil {
		m.haltFrame(root, ReasonCancelled)
	}
}

// verdict says how the run ends.
func (m *Machine) verdict(t *Task) {
	t.RunStatus = RunCompleted
	failure := m.unit.failure()
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
