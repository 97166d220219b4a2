package pipeline

// Scope is what the templates of one step instance, or of one pass of a loop,
// can name: loop names, state, inputs, steps, vars and the built-in names, all
// of the pipeline that it stands in. It serves as the scope of pipeline/expr.
type Scope struct {
	m     *Machine
	unit  *unit
	frame *frame // nil: no step can be named
	inst  *inst
	self  *StepValue // the step's own value while its state is evaluated
}

// Scope is the scope of the instance at path; the empty path is the run's.
func (m *Machine) Scope(path Path) Scope {
	x := m.insts[path]
	if x == nil {
		return Scope{m: m, unit: m.unit, frame: m.unit.root}
	}
	return Scope{m: m, unit: x.frame.unit, frame: x.frame, inst: x}
}

// Before lists the steps that have ended and that the scope's own step depends on.
func (s Scope) Before() []*Step {
	if s.inst == nil {
		return nil
	}
	var list []*Step
	for _, d := range s.inst.def.Deps {
		if x := s.inst.frame.insts[d.On]; x.step.Status.Final() {
			list = append(list, &x.step)
		}
	}
	return list
}

// UnitScope is the scope of the outputs of the pipeline that the call at path
// has begun; that of the empty path is the run's.
func (m *Machine) UnitScope(path Path) Scope {
	if x := m.insts[path]; x != nil && x.block != nil && x.unit != nil {
		return Scope{m: m, unit: x.unit, frame: x.unit.root}
	}
	return m.Scope("")
}

// VarsScope is the scope of the vars of the pipeline that the call at path is
// about to begin with those inputs.
func (m *Machine) VarsScope(path Path, inputs map[string]any) Scope {
	x := m.insts[path]
	if x == nil || x.def.Call == nil {
		return m.Scope("")
	}
	u := newUnit(m.Plan.Units[x.def.Call.Unit], x)
	u.inputs = inputs
	return Scope{m: m, unit: u}
}

// PassScope is the scope within a pass of a loop: after its steps, for collect
// and until, or before them, for the condition of a while loop.
func (m *Machine) PassScope(path Path, i int) Scope {
	x := m.insts[path]
	if x == nil {
		return m.Scope("")
	}
	s := Scope{m: m, unit: x.frame.unit, inst: x}
	if x.block != nil {
		s.frame = x.active[i]
	}
	if s.frame == nil { // the condition is tested before the pass exists
		body := &x.def.Loop.Body
		s.frame = &frame{body: body, info: m.info(body), unit: s.unit, owner: x, parent: x.frame, index: i}
	}
	return s
}

// Path is the instance whose templates the scope serves, or the pass of a loop;
// the empty path is the run.
func (s Scope) Path() Path {
	switch {
	case s.inst == nil:
		return ""
	case s.frame != nil && s.frame.owner == s.inst && s.frame.index >= 0:
		return passPath(s.inst.path, s.frame.index)
	}
	return s.inst.path
}

// WithOutput returns the scope in which the step's own name has that output.
func (s Scope) WithOutput(output any) Scope {
	if s.inst == nil {
		return s
	}
	step := s.inst.step
	step.Output, step.Status = output, StepCompleted
	s.self = &StepValue{step: &step, loop: s.inst.def.Loop != nil}
	return s
}

// Results is the value of collect_results(): the passes' outputs of the loop
// whose state is being evaluated, else of the innermost loop around.
func (s Scope) Results() ([]any, bool) {
	if s.inst != nil && s.inst.def.Loop != nil && s.inst.block != nil {
		return s.inst.result, true
	}
	for f := s.frame; f != nil; f = f.parent {
		if f.owner != nil && f.owner.def.Loop != nil {
			return f.owner.result, true
		}
	}
	return nil, false
}

// Lookup finds a name.
func (s Scope) Lookup(name string) (any, bool) {
	within := s.inst
	for f := s.frame; f != nil; f = f.parent {
		if v, ok := f.name(name, within); ok {
			return v, true
		}
		within = f.owner
	}
	if v, ok := s.unit.state[name]; ok {
		return v, true
	}
	if s.unit.isState[name] {
		return nullState{}, true
	}
	if v, ok := s.unit.inputs[name]; ok {
		return v, true
	}
	if v := s.step(name, false); v != nil {
		return v, true
	}
	if v, ok := s.unit.vars[name]; ok {
		return v, true
	}
	switch name {
	case "inputs":
		return s.unit.inputs, true
	case "vars":
		return s.unit.vars, true
	case "steps":
		return stepsValue{s}, true
	case "run":
		const form = "2006-01-02T15:04:05Z07:00"
		return map[string]any{
			"id": string(s.m.Run.ID), "created_at": s.m.Run.CreatedAt.UTC().Format(form), "scheduled_at": s.m.Run.ScheduledAt().UTC().Format(form),
		}, true
	case "pipeline":
		u := s.unit.def
		return map[string]any{"id": u.ID, "name": u.Name, "version": u.Version, "dir": s.m.dir}, true
	}
	return nil, false
}

// name is one that the frame's block gives to what stands within: those of a
// pass, and the candidates to a compete block's judge.
func (f *frame) name(name string, within *inst) (any, bool) {
	x := f.owner
	switch {
	case x == nil:
		return nil, false
	case x.def.Compete != nil:
		if name == "candidates" && within != nil && within.frame == f && within.pos == judgeOf(x.def) {
			return x.offers(), true
		}
		return nil, false
	case f.index < 0:
		return nil, false
	}
	if x.block != nil && f.index < len(x.items) && (name == "item" || name == x.def.Loop.Variable) {
		return x.items[f.index], true
	}
	switch name {
	case "index", "loop_iteration":
		return int64(f.index), true
	case "position", "iteration":
		return int64(f.index + 1), true
	}
	return nil, false
}

// step finds a step of this or an enclosing body.
func (s Scope) step(id string, strict bool) any {
	if s.self != nil && s.inst.def.ID == id {
		v := *s.self
		v.strict = strict
		return v
	}
	for f := s.frame; f != nil; f = f.parent {
		if i, ok := f.info.index[id]; ok && id != "" {
			if f.insts == nil {
				return StepValue{step: &Step{Status: StepPending}, strict: strict}
			}
			x := f.insts[i]
			return StepValue{step: &x.step, loop: x.def.Loop != nil, strict: strict}
		}
	}
	return nil
}

// stepsValue is the name "steps".
type stepsValue struct{ scope Scope }

// Attr finds a step by id.
func (s stepsValue) Attr(name string) (any, bool) {
	v := s.scope.step(name, true)
	return v, v != nil
}

// Value is the steps in sight with their outputs.
func (s stepsValue) Value() any {
	out := map[string]any{}
	for f := s.scope.frame; f != nil; f = f.parent {
		for _, x := range f.insts {
			if _, ok := out[x.def.ID]; !ok && x.def.ID != "" {
				out[x.def.ID] = x.step.Output
			}
		}
	}
	return out
}

// RunOutputs is the value of a run without an outputs block: step id to output.
func (m *Machine) RunOutputs() map[string]any {
	if m.unit.root == nil {
		return map[string]any{}
	}
	out, _ := m.unit.root.output().(map[string]any)
	return out
}
