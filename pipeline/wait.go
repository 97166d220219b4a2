package pipeline

import (
	"slices"
	"time"
)

// Waiter is a step instance that waits, for what Waiting says; For is "retry"
// where the next attempt waits for its time.
type Waiter struct {
	Path    Path
	Def     *StepDef
	Waiting *Waiting
	Due     time.Time // the end of a timer or delay, or the deadline; zero: none
}

// WaitRetry is what a step waits for between two attempts.
const WaitRetry = "retry"

// Waits lists the instances that are WAITING, the one that has waited longest
// first.
func (m *Machine) Waits() []Waiter {
	if len(m.waiting) == 0 {
		return nil
	}
	list := make([]*inst, 0, len(m.waiting))
	for x := range m.waiting {
		list = append(list, x)
	}
	slices.SortFunc(list, func(a, b *inst) int { return int(a.since) - int(b.since) })
	out := make([]Waiter, len(list))
	for i, x := range list {
		w := x.step.Waiting
		if w == nil {
			w = &Waiting{For: WaitRetry, Due: x.due}
		}
		out[i] = Waiter{Path: x.path, Def: x.def, Waiting: w, Due: w.Due}
	}
	return out
}

// Idle reports whether nothing but Waits can move the run on: no task is queued
// or unanswered and no step runs. An attempt that waits for its time counts as a
// wait, also once that has come.
func (m *Machine) Idle() bool { return m.IdleBut(0) }

// IdleBut is Idle where so many instances are under way.
func (m *Machine) IdleBut(instances int) bool {
	return m.unit.root != nil && !m.Run.Status.Final() && m.busy == instances && !m.finishing
}

// signal takes what was said to the run from outside. What is not for the run
// itself is kept until a wait takes it.
func (m *Machine) signal(e *Event) {
	switch name := e.Data.Signal; name {
	case SignalCancel, SignalTimeout:
		m.late = m.late || name == SignalTimeout
		m.end(name)
	case SignalHandedOver:
	default:
		m.signals[name] = append(m.signals[name], e.Data.Value)
	}
}

// Signal is what came with the oldest signal of that name that no wait has
// taken, and whether there is one. A step_finished that names the signal takes it.
func (m *Machine) Signal(name string) (any, bool) {
	if list := m.signals[name]; len(list) > 0 {
		return list[0], true
	}
	return nil, false
}

func (m *Machine) takeSignal(name string) {
	switch list := m.signals[name]; len(list) {
	case 0:
	case 1:
		delete(m.signals, name)
	default:
		m.signals[name] = list[1:]
	}
}

// Answers are those that came with the submission, to <AUTO> tags by their keys.
func (m *Machine) Answers() map[string]any { return m.answers }

// Answer is what the tag of that key was resolved to at the instance; nil: it
// has not been.
func (m *Machine) Answer(path Path, key string) *Answer { return m.answer[path][key] }

// AnswerTo is a model's answer to an equal question of the run; nil: there is
// none.
func (m *Machine) AnswerTo(content Digest) *Answer { return m.contents[content] }

// Answered is how many <AUTO> tags models have filled in, and what that has cost.
func (m *Machine) Answered() (n int, usd float64) { return m.answered, m.autoUSD }

// learned notes an answer that a model gave.
func (m *Machine) learned(a *Answer) {
	if a.Content == "" {
		return
	}
	if m.contents == nil {
		m.contents = map[Digest]*Answer{}
	}
	m.contents[a.Content] = a
	m.answered++
	if a.Usage != nil {
		m.autoUSD += a.Usage.CostUSD
	}
}

func (m *Machine) resolved(e *Event) {
	if e.Data.Auto == nil {
		return
	}
	at := m.answer[e.Path]
	if at == nil {
		at = map[string]*Answer{}
		m.answer[e.Path] = at
	}
	at[e.Data.Auto.Key] = e.Data.Auto
	m.learned(e.Data.Auto)
}

// Versions are those of an artifact of the pipeline that the instance at path
// stands in, oldest first.
func (m *Machine) Versions(path Path, artifact string) []Version {
	return m.unitAt(path).versions[artifact]
}

// ConsumedBy is the newest version of the artifact that the step had been
// handed before the instance at path was first begun; 0: none.
func (m *Machine) ConsumedBy(path Path, artifact string) int32 {
	x := m.insts[path]
	if x == nil {
		return 0
	}
	if v, ok := x.before[artifact]; ok {
		return v
	}
	return x.frame.unit.consumed[consumption{x.def, artifact}]
}

func (u *unit) publish(v Version) {
	if u.versions == nil {
		u.versions = map[string][]Version{}
	}
	u.versions[v.Artifact] = append(u.versions[v.Artifact], v)
}

// consumed notes what an attempt was handed. Later attempts of the instance
// may be handed the same again.
func (m *Machine) consumed(x *inst, list []Version) {
	u := x.frame.unit
	for _, v := range list {
		if u.consumed == nil {
			u.consumed = map[consumption]int32{}
		}
		key := consumption{x.def, v.Artifact}
		if _, ok := x.before[v.Artifact]; !ok {
			if x.before == nil {
				x.before = map[string]int32{}
			}
			x.before[v.Artifact] = u.consumed[key]
		}
		u.consumed[key] = max(u.consumed[key], v.Version)
	}
}
