package pipeline

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
)

// RuleOf is the index of the first on_error rule of a step that matches a
// failure; -1: none does. A rule without a match of its own matches all but
// cancellation.
func RuleOf(def *StepDef, f *Failure) int {
	if f == nil || f.Kind == CategoryCancelled {
		return -1
	}
	return slices.IndexFunc(def.OnError, func(r Rule) bool { return r.matches(f) })
}

func (r *Rule) matches(f *Failure) bool {
	if len(r.Category) > 0 && !slices.Contains(r.Category, f.Kind) {
		return false
	}
	if len(r.Codes) > 0 && !slices.ContainsFunc(r.Codes, f.hasCode) {
		return false
	}
	if r.Pattern != "" {
		re, err := regexp.Compile(r.Pattern)
		if err != nil || !re.MatchString(f.Message) {
			return false
		}
	}
	return true
}

// hasCode reports whether an exit code, an HTTP status or a reason is that of
// the failure.
func (f *Failure) hasCode(code string) bool {
	return f.ExitCode != nil && code == strconv.Itoa(*f.ExitCode) ||
		f.Reason != "" && (code == f.Reason || "http_"+code == f.Reason)
}

// route is where a step's end leads, nil: on as ever, and whether a failure of
// the step is handled by that.
func (x *inst) route() (to *int, handled bool) {
	var r Routes
	if x.def.Routes != nil {
		r = *x.def.Routes
	}
	failed := false
	switch {
	case x.step.Status == StepCompleted:
		to = r.Success
	case x.step.Status == StepFailed, x.step.Status == StepSkipped && x.step.Reason == ReasonFailed:
		failed = true
		to = r.Failure
		if x.ruled {
			switch x.rule.Do {
			case "goto":
				return x.rule.To, true
			case "fallback":
				to, handled = nil, true
			}
		}
	case x.step.Status == StepSkipped && x.step.Reason == ReasonCondition:
		to = r.False
	default:
		return nil, false
	}
	if to == nil {
		to = r.Always
	}
	return to, handled || failed && to != nil
}

// jumpBack begins the steps from the i-th to x again: they get fresh instances,
// and what comes after x waits for those. The failure is why that cannot be.
func (m *Machine) jumpBack(x *inst, i int) *Failure {
	f := x.frame
	again := f.insts[i : x.pos+1]
	target := again[0]
	if why := m.mayReturn(x, target); why != nil {
		return why
	}
	for _, y := range again {
		if !y.step.Status.Final() {
			return &Failure{Kind: CategoryValidation, Step: x.path, Message: fmt.Sprintf("a jump from %s back to %s passes %s, which has not ended", x.def.ID, target.def.ID, y.def.ID)}
		}
	}
	f.jumps++
	if f.space.visits == nil {
		f.space.count()
	}
	f.left += len(again)
	for k, old := range again {
		pos := i + k
		for _, d := range f.info.dependents[pos] {
			if int(d) > x.pos && pos != x.pos {
				f.insts[d].waits++
			}
		}
		m.drop(old)
		y := &inst{}
		m.place(y, f, pos)
		y.turn = old.turn + 1
		y.waits = 0
		for _, d := range y.def.Deps {
			if d.On >= i && d.On <= x.pos {
				y.waits++
			}
		}
	}
	for _, y := range f.insts[i : x.pos+1] {
		if y.waits == 0 {
			m.ask(y)
		}
	}
	return nil
}

// mayReturn says why a jump back is beyond its bounds; nil: it is not.
func (m *Machine) mayReturn(x, target *inst) *Failure {
	visits, jumps := target.def.MaxVisits, x.frame.unit.def.Settings.MaxTransitions
	why := ""
	switch {
	case visits > 0 && target.turn >= visits:
		why = fmt.Sprintf("%s has begun %d times, which is its max_visits", target.def.ID, target.turn)
	case jumps > 0 && x.frame.jumps >= jumps:
		why = fmt.Sprintf("%d jumps back have been taken, which is settings.max_transitions", x.frame.jumps)
	case visits <= 0 && jumps <= 0:
		why = "nothing bounds it: give the target max_visits, or set settings.max_transitions"
	default:
		return nil
	}
	return &Failure{
		Kind: CategoryValidation, Reason: ReasonMaxVisits, Step: x.path, Line: x.def.Pos.Line, Column: x.def.Pos.Column,
		Message: fmt.Sprintf("the jump from %s back to %s is not taken: %s", x.def.ID, target.def.ID, why),
	}
}
