package pipeline

import (
	"strings"
)

// Scope is what the templates of one step instance, or of one pass of a loop,
// can name: loop names, state, inputs, steps, vars and the built-in names. It
// serves as the scope of pipeline/expr.
type Scope struct {
	m     *Machine
	frame *frame
	inst  *inst
	self  *StepValue // the step's own value while its state is evaluated
}

// Scope is the scope of the instance at path; the empty path is the run's.
func (m *Machine) Scope(path Path) Scope {
	x := m.insts[path]
	if x == nil {
		return Scope{m: m, frame: m.root}
	}
	return Scope{m: m, frame: x.frame, inst: x}
}

// PassScope is the scope within a pass of a loop: after its steps, for
// collect, or before them, for the condition of a while loop.
func (m *Machine) PassScope(path Path, i int) Scope {
	x := m.insts[path]
	if x == nil {
		return Scope{m: m, frame: m.root}
	}
	if f := x.active[i]; f != nil {
		return Scope{m: m, frame: f, inst: x}
	}
	// The condition is tested before the pass exists.
	return Scope{m: m, frame: &frame{body: &x.def.Loop.Body, info: m.info(&x.def.Loop.Body), owner: x, parent: x.frame, index: i}, inst: x}
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
	if s.inst != nil && s.inst.def.Loop != nil {
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
	for f := s.frame; f != nil; f = f.parent {
		if f.index >= 0 && f.owner != nil {
			if v, ok := f.loopName(name); ok {
				return v, true
			}
		}
	}
	if v, ok := s.m.state[name]; ok {
		return v, true
	}
	if s.m.isState[name] {
		return nullState{}, true
	}
	if v, ok := s.m.Run.Inputs[name]; ok {
		return v, true
	}
	if v := s.step(name, false); v != nil {
		return v, true
	}
	if v, ok := s.m.vars[name]; ok {
		return v, true
	}
	switch name {
	case "inputs":
		return s.m.Run.Inputs, true
	case "vars":
		return s.m.vars, true
	case "steps":
		return stepsValue{s}, true
	case "run":
		return map[string]any{"id": string(s.m.Run.ID), "created_at": s.m.Run.CreatedAt.UTC().Format("2006-01-02T15:04:05Z07:00")}, true
	case "pipeline":
		return map[string]any{"id": s.m.Plan.ID, "name": s.m.Plan.Name, "version": s.m.Plan.Version}, true
	}
	return nil, false
}

func (f *frame) loopName(name string) (any, bool) {
	l := f.owner.def.Loop
	if f.owner.def.Kind == KindFor && f.index < len(f.owner.items) {
		switch name {
		case l.Variable, "item":
			return f.owner.items[f.index], true
		}
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

// StepValue is a step as templates see it: its output, with the step's own
// names as attributes. Under `steps.` those names come first, else the fields
// of the output do.
type StepValue struct {
	step   *Step
	loop   bool
	strict bool
}

// Value is the output; null for a step that was skipped.
func (v StepValue) Value() any { return v.step.Output }

// Attr finds a name of the step or a field of its output.
func (v StepValue) Attr(name string) (any, bool) {
	if v.strict {
		if a, ok := v.own(name); ok {
			return a, true
		}
		return v.field(name)
	}
	if a, ok := v.field(name); ok {
		return a, true
	}
	return v.own(name)
}

func (v StepValue) field(name string) (any, bool) {
	m, ok := v.step.Output.(map[string]any)
	if !ok {
		return nil, false
	}
	if a, ok := m[name]; ok {
		return a, true
	}
	if v.loop && (name == "last" || name == "final_results") {
		if l, ok := m["results"].([]any); ok && len(l) > 0 {
			return l[len(l)-1], true
		}
		return nil, true
	}
	return nil, false
}

// own is one of the names that every step has.
func (v StepValue) own(name string) (any, bool) {
	s := v.step
	switch name {
	case "status":
		return strings.ToLower(string(s.Status)), true
	case "success":
		return s.Status == StepCompleted, true
	case "error":
		if s.Error == nil {
			return nil, true
		}
		return map[string]any{"kind": s.Error.Kind, "message": s.Error.Message, "step": string(s.Error.Step)}, true
	case "output", "result", "value", "outputs":
		return s.Output, true
	case "parameters":
		return s.Parameters, true
	case "artifacts":
		return []any{}, true
	case "exit_code":
		if s.Error != nil && s.Error.ExitCode != nil {
			return int64(*s.Error.ExitCode), true
		}
		if s.Kind == KindCommand && s.Status == StepCompleted {
			return int64(0), true
		}
		return nil, true
	case "attempts":
		return int64(s.Attempt), true
	case "started_at":
		if s.StartedAt.IsZero() {
			return nil, true
		}
		return s.StartedAt.UTC().Format("2006-01-02T15:04:05.000Z07:00"), true
	case "duration":
		if s.StartedAt.IsZero() || s.FinishedAt.IsZero() {
			return nil, true
		}
		return s.FinishedAt.Sub(s.StartedAt).Seconds(), true
	}
	return nil, false
}

// nullState is a state variable that nothing has set: null, and so is every
// attribute of it.
type nullState struct{}

// Attr is null for every name.
func (n nullState) Attr(string) (any, bool) { return n, true }

// Value is null.
func (nullState) Value() any { return nil }

// RunOutputs is the value of a run without an outputs block: step id to output.
func (m *Machine) RunOutputs() map[string]any {
	if m.root == nil {
		return map[string]any{}
	}
	out, _ := m.outputOf(m.root).(map[string]any)
	return out
}
