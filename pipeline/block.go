package pipeline

import (
	"fmt"
	"maps"
	"strconv"
)

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

func (m *Machine) applyState(e *Event) error {
	if !e.Data.Pass && e.Data.Collected == nil && e.Data.State != nil && e.Path == "" {
		maps.Copy(m.state, e.Data.State)
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
