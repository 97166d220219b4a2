package pipeline

import "slices"

// What a new owner of a run asks of the machine, so that it need not have seen
// the events itself.

// Uploads names the files that came with the submission; empty: none did.
func (m *Machine) Uploads() Digest { return m.uploads }

// Files is the newest save of the run's directory; nil: there is none. Where the
// files were lost, it has a number and no files.
func (m *Machine) Files() *WorkspaceRef { return m.files }

// filed notes where the run's files are.
func (m *Machine) filed(e *Event) {
	w := e.Data.Workspace
	switch {
	case w == nil:
	case e.Type == WorkspaceLost:
		m.files = &WorkspaceRef{Save: w.Save}
	default:
		m.files = w
	}
}

// Late reports whether the run's own timeout has passed.
func (m *Machine) Late() bool { return m.late }

// HandedOver reports whether the newest owner has left in good order.
func (m *Machine) HandedOver() bool { return m.handed }

// Critical is the sequence number of the end of the newest step that is marked
// critical; 0: none has ended.
func (m *Machine) Critical() int32 { return m.critical }

// Decision has settled the approval that the step at path asked for; nil: none has.
func (m *Machine) Decision(path Path) *Decision {
	if x := m.insts[path]; x != nil {
		return x.decision
	}
	return nil
}

// parting notes whether an event is the last word of an owner. What is said of
// snapshots and files says nothing of the run itself.
func (m *Machine) parting(e *Event) {
	if e.Type != Checkpoint && e.Type != WorkspaceLost {
		m.handed = e.Type == SignalReceived && e.Data.Signal == SignalHandedOver ||
			e.Type == RunResumed && e.Data.Reason == ReasonHandedOver
	}
}

// ordered numbers the tasks in the order in which they are asked for.
func (m *Machine) ordered() int64 {
	m.order++
	return m.order
}

// Begun is how many step instances events have named.
func (m *Machine) Begun() int { return int(m.begun) }

// View is what viewers see of the run as far as the machine remembers: the run,
// and the instances that it still holds, in the order of their first event. The
// steps of passes that are over are not among them.
func (m *Machine) View() *View {
	v := NewView(m.Run)
	v.Run, v.Seq = m.Run, m.Seq
	named := make([]*inst, 0, len(m.insts))
	for _, x := range m.insts {
		switch {
		case x.number > 0:
			named = append(named, x)
		case x.step.Called:
			v.before(x.path, &x.step.Usage)
		}
	}
	slices.SortFunc(named, func(a, b *inst) int { return int(a.number - b.number) })
	for _, x := range named {
		s := x.step
		s.Lost = "" // of no concern to viewers
		v.Steps = append(v.Steps, &s)
		v.byPath[s.Path] = &s
	}
	return v
}
