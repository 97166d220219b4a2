package pipeline

import (
	"fmt"
	"maps"
	"strconv"
)

// closing says how a block ends.
func (m *Machine) closing(x *inst, t *Task) {
	failed := x.failed
	if x.unit != nil {
		failed = x.unit.failure()
	}
	t.Status, t.Failure = StepCompleted, failed
	switch {
	case failed != nil:
		t.Status = StepFailed
	case x.halted:
		t.Status, t.Reason = StepCancelled, x.frame.halt
	}
	switch {
	case x.def.Loop != nil:
		x.closeLoop(t)
	case x.def.Compete != nil:
		x.closeCompete(t)
	case x.unit != nil:
		if !x.unit.def.HasOutputs {
			t.Output = x.unit.root.output()
		}
	case len(x.def.Branches) > 0:
		t.Output = x.choice()
	}
}

// choice is the output of a block with arms: step id to output, null for the
// steps of arms that were not taken.
func (x *inst) choice() map[string]any {
	out := map[string]any{}
	for i := range x.def.Branches {
		for _, s := range x.def.Branches[i].Body.Steps {
			out[s.ID] = nil
		}
	}
	if x.arm != nil {
		taken, _ := x.arm.output().(map[string]any)
		maps.Copy(out, taken)
	}
	return out
}

// closeLoop is the output of a loop; a repeat loop that came to its maximum
// ends as its on_exhausted says.
func (x *inst) closeLoop(t *Task) {
	list := x.def.Kind == KindFor || x.def.Kind == KindQueue
	results := x.result
	if results == nil {
		results = []any{}
	}
	out := map[string]any{
		"results": results, "iterations": int64(x.opened),
		"completed": t.Status == StepCompleted && (list || x.ended),
	}
	if list {
		errs := x.errs
		if errs == nil {
			errs = []any{}
		}
		out["errors"] = errs
	}
	t.Output = out
	if x.def.Kind != KindRepeat || x.ended || t.Status != StepCompleted {
		return
	}
	switch x.def.Loop.OnExhausted {
	case "continue":
	case "outputs":
		t.Exhausted = true
	default:
		t.Status = StepFailed
		t.Failure = Failuref(CategoryFailed, "until did not hold after %d iterations", x.opened)
		t.Failure.Reason, t.Failure.Step = ReasonExhausted, x.path
	}
}

// applyState takes the beginning or the end of a pass, or variables of the run.
func (m *Machine) applyState(e *Event) error {
	if e.Path == "" {
		maps.Copy(m.unit.state, e.Data.State)
		return nil
	}
	loop, i, ok := e.Path.splitPass()
	x := m.insts[loop]
	if !ok || x == nil || x.def.Loop == nil || x.block == nil {
		return fmt.Errorf("apply %s: no loop pass at %s", e.Type, e.Path)
	}
	if e.Data.Pass {
		x.testing = false
		if !x.halted && !x.ended { // else it was tested while the loop was being stopped
			m.openPass(x, i)
		}
		m.settle(x)
		return nil
	}
	f := x.active[i]
	if f == nil {
		return fmt.Errorf("apply %s: pass %s is not under way", e.Type, e.Path)
	}
	x.collecting--
	if e.Data.Error != nil {
		f.failed = e.Data.Error
	}
	x.ended = x.ended || e.Data.Done
	m.passDone(x, f, e.Data.Collected)
	m.settle(x)
	return nil
}

// begin opens a block's first frames.
func (m *Machine) begin(x *inst, e *Event) {
	x.block = &block{}
	switch x.def.Kind {
	case KindIf, KindMatch:
		if e.Data.Branch == nil || *e.Data.Branch < 0 || *e.Data.Branch >= len(x.def.Branches) {
			m.push(TaskClose, x, 0)
			return
		}
		m.openArm(x, &x.def.Branches[*e.Data.Branch].Body)
	case KindParallel, KindCompete:
		m.openArm(x, &x.def.Branches[0].Body)
	case KindCall:
		x.unit = newUnit(m.Plan.Units[x.def.Call.Unit], x)
		x.unit.inputs, _ = e.Data.Parameters.(map[string]any)
		x.unit.vars = e.Data.Vars
		m.openUnit(x.unit)
	default:
		x.active = map[int]*frame{}
		x.items = e.Data.Items
		if len(x.items) > 0 {
			x.result = make([]any, 0, len(x.items))
		}
		m.advance(x)
	}
}

// openArm opens the body of a choice. It adds nothing to the paths of its
// steps, unless it has no id that could tell them from others.
func (m *Machine) openArm(x *inst, b *Body) {
	x.arm = x.newArm(b)
	m.open(x.arm)
	m.checkDone(x.arm)
}

func (x *inst) newArm(b *Body) *frame {
	f := x.frame
	arm := &frame{body: b, unit: f.unit, owner: x, parent: f, final: f.final, index: -1, prefix: f.prefix, space: f.space}
	if x.def.ID == "" {
		arm.prefix, arm.space = string(x.path)+"/", &space{tops: []*frame{arm}}
	}
	return arm
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
	limit, window := l.Max, 1
	if x.def.Kind == KindFor || x.def.Kind == KindQueue {
		limit, window = len(x.items), m.window(l)
	}
	for !x.halted && !x.ended && x.opened < limit && len(x.active) < window {
		if x.def.Kind == KindWhile {
			if !x.testing {
				m.push(TaskPass, x, x.opened)
			}
			return
		}
		m.openPass(x, x.opened)
	}
	if len(x.active) == 0 {
		m.push(TaskClose, x, 0)
	}
}

// EndLoop tells the machine that a while loop's condition was false. It is
// followed by the TaskClose that Next then gives.
func (m *Machine) EndLoop(path Path) {
	if x := m.insts[path]; x != nil && x.block != nil && !x.ended {
		x.ended, x.testing = true, false
		m.push(TaskClose, x, 0)
	}
}

func (m *Machine) openPass(x *inst, i int) {
	if x.opened <= i {
		x.opened = i + 1
	}
	f := x.newPass(i)
	x.active[i] = f
	m.open(f)
	m.checkDone(f)
}

func (x *inst) newPass(i int) *frame {
	prefix := string(passPath(x.path, i))
	if !x.def.Loop.Single {
		prefix += "/"
	}
	f := &frame{body: &x.def.Loop.Body, unit: x.frame.unit, owner: x, parent: x.frame, final: x.frame.final, index: i, prefix: prefix}
	f.space = &space{tops: []*frame{f}}
	return f
}

// haltBlock lets nothing new begin in a block that runs. A call of which only
// the finally is left ends as it would have.
func (m *Machine) haltBlock(x *inst, reason string) {
	if x.block == nil || x.halted || x.close || x.unit != nil && x.unit.root.left == 0 {
		return
	}
	x.halted = true
	switch {
	case x.arm != nil:
		m.haltFrame(x.arm, reason)
	case x.unit != nil:
		m.haltFrame(x.unit.root, reason)
	case len(x.active) == 0:
		m.push(TaskClose, x, 0)
	default:
		for _, f := range x.passes() {
			m.haltFrame(f, reason)
		}
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
		x.result[f.index] = f.output()
	}
	m.forget(f)
	delete(m.answer, passPath(x.path, f.index))
	m.advance(x)
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
