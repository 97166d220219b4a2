package executor

import (
	"fmt"
	"maps"
	"os"
	"strings"

	"github.com/orchestrator-project/orchestrator/pipeline"
)

// answer evaluates a control-flow task and returns how to record it. It reads
// the machine but does not change it.
func (r *runState) answer(t *pipeline.Task) func() {
	if r.book.replays() {
		if f := r.replayed(t); f != nil {
			return f
		}
	}
	switch t.Kind {
	case pipeline.TaskPass:
		return r.answerPass(t)
	case pipeline.TaskCollect:
		return r.answerCollect(t)
	case pipeline.TaskClose:
		return r.answerClose(t)
	case pipeline.TaskFinish:
		return r.answerFinish(t)
	}
	return r.answerBegin(t)
}

func (r *runState) answerPass(t *pipeline.Task) func() {
	ok, fail := true, (*pipeline.Failure)(nil)
	if c := t.Def.Loop.Condition; c != nil {
		ok, fail = r.evaluation(r.m.PassScope(t.Path, t.Index)).test(c, "while.condition")
	}
	return func() {
		switch {
		case fail != nil:
			r.finish(t, fail, nil)
		case ok:
			r.record(pipeline.StateSet, t.PassPath(), 0, pipeline.Data{
				Pass: true, State: map[string]any{"loop_iteration": int64(t.Index)},
			})
		default:
			r.m.EndLoop(t.Path)
		}
	}
}

// answerCollect looks at a pass that is over: what it gives, and whether it was
// the last one.
func (r *runState) answerCollect(t *pipeline.Task) func() {
	ev := r.evaluation(r.m.PassScope(t.Path, t.Index))
	var d pipeline.Data
	var fail *pipeline.Failure
	if c := t.Def.Loop.Collect; c != nil {
		d.Collected, fail = ev.collect(c)
	}
	if u := t.Def.Loop.Until; u != nil && fail == nil {
		d.Done, fail = ev.test(u, string(t.Def.Kind)+".until")
	}
	if fail != nil {
		fail.Step = t.PassPath()
		d = pipeline.Data{Error: fail}
	}
	return func() { r.record(pipeline.StateSet, t.PassPath(), 0, d) }
}

// answerClose ends a block: its state is evaluated with its own output in sight.
func (r *runState) answerClose(t *pipeline.Task) func() {
	d := pipeline.Data{Status: t.Status, Output: t.Output, Error: t.Failure, Reason: t.Reason}
	var fail *pipeline.Failure
	switch {
	case t.Exhausted:
		d.Output, fail = r.evaluation(r.m.Scope(t.Path).WithOutput(t.Output)).entries(t.Def.Loop.Exhausted, "repeat.on_exhausted")
	case t.Status != pipeline.StepCompleted:
	case t.Def.Kind == pipeline.KindCall:
		if unit := r.prog.plan.Units[t.Def.Call.Unit]; unit.HasOutputs {
			d.Output, fail = r.evaluation(r.m.UnitScope(t.Path)).entries(unit.Outputs, "outputs")
		}
	case t.Def.Kind == pipeline.KindCompete && t.Def.Compete.Ledger != nil && !r.inLedger(t):
		fail = r.enter(t)
	}
	if fail == nil && d.Status == pipeline.StepFailed {
		fail, d.Error = d.Error, nil
		if fail == nil {
			fail = pipeline.Failuref(pipeline.CategoryUnknown, "the step failed")
		}
	}
	if fail != nil {
		d = r.failed(t, fail, d)
	} else {
		d = r.withState(t, d)
	}
	return func() { r.record(pipeline.StepFinished, t.Path, 1, d) }
}

// withState adds to the end of a step that completed the state that it sets.
func (r *runState) withState(t *pipeline.Task, d pipeline.Data) pipeline.Data {
	if d.Status != pipeline.StepCompleted || len(t.Def.State) == 0 {
		return d
	}
	state, fail := r.evaluation(r.m.Scope(t.Path).WithOutput(d.Output)).entries(t.Def.State, "state")
	if fail != nil {
		return r.failed(t, fail, pipeline.Data{Kind: d.Kind, Signal: d.Signal})
	}
	d.State = state
	return d
}

// completed is the answer to the begin of a step that is over at once.
func (r *runState) completed(t *pipeline.Task, params, output any) func() {
	d := r.withState(t, pipeline.Data{Kind: t.Def.Kind, Status: pipeline.StepCompleted, Parameters: params, Output: output})
	return func() { r.record(pipeline.StepFinished, t.Path, t.Attempt, d) }
}

// refused is the answer to the begin of a step that fails at once.
func (r *runState) refused(t *pipeline.Task, fail *pipeline.Failure, params any) func() {
	return func() { r.finish(t, fail, params) }
}

func (r *runState) answerFinish(t *pipeline.Task) func() {
	d := pipeline.Data{RunStatus: t.RunStatus, Reason: t.Reason, Error: t.Failure}
	if t.RunStatus == pipeline.RunCompleted {
		if r.m.Plan.HasOutputs {
			out, fail := r.evaluation(r.m.Scope("")).entries(r.m.Plan.Outputs, "outputs")
			if fail != nil {
				d.RunStatus, d.Reason, d.Error = pipeline.RunFailed, "outputs_failed", fail
			} else {
				d.Outputs = out
			}
		} else {
			d.Outputs = r.m.RunOutputs()
		}
	}
	return func() { r.end(d) }
}

// end is the end of the run.
func (r *runState) end(d pipeline.Data) {
	r.record(pipeline.RunFinished, "", 0, d)
	r.finished = true
	r.stopTimers()
	r.lane.row(r)
	if r.run.Workspace == "" { // only what is empty
		dir := r.lane.ex.runDir(r.run)
		if r.workspace != dir {
			_ = os.Remove(r.workspace)
		}
		_ = os.Remove(dir)
		if r.files.marked || r.m.Files() != nil {
			_ = os.Remove(r.lane.ex.markOf(r.run.ID))
		}
	}
}

// answerBegin tests a control-flow step's condition and begins it.
func (r *runState) answerBegin(t *pipeline.Task) func() {
	ev := r.evaluation(r.m.Scope(t.Path))
	def := t.Def
	if def.Condition != nil {
		ok, fail := ev.test(def.Condition, "condition")
		if fail != nil {
			return r.refused(t, fail, nil)
		}
		if !ok {
			return func() { r.skipped(t) }
		}
	}
	d := pipeline.Data{Kind: def.Kind}
	switch def.Kind { //exhaustive:enforce
	case pipeline.KindSet:
		return r.answerSet(t, ev)
	case pipeline.KindAssert:
		return r.answerAssert(t, ev)
	case pipeline.KindWait:
		return r.answerWait(t, ev)
	case pipeline.KindAsk:
		return r.answerAsk(t, ev)
	case pipeline.KindCall:
		return r.answerCall(t, ev)
	case pipeline.KindFor, pipeline.KindQueue:
		if d.Items = r.resolvedItems(t); d.Items != nil {
			break
		}
		what := string(def.Kind) + ".items"
		v, fail := ev.field(def.Loop.Items, what)
		items, ok := listOf(v)
		if fail == nil && !ok {
			fail = pipeline.Failuref(pipeline.CategoryValidation, "%s is %s; it must be a list", what, kindName(v))
		}
		if fail != nil {
			return r.refused(t, fail, nil)
		}
		d.Items = items
	case pipeline.KindIf, pipeline.KindMatch:
		arm, fail := branch(def, ev)
		if fail != nil {
			return r.refused(t, fail, nil)
		}
		d.Branch = &arm
	case pipeline.KindParallel, pipeline.KindCompete:
		d.Branch = new(int) // the one body
	case pipeline.KindWhile, pipeline.KindRepeat:
	case pipeline.KindAction, pipeline.KindSkill, pipeline.KindCommand, pipeline.KindAgent: // work
	}
	return func() { r.record(pipeline.StepStarted, t.Path, t.Attempt, d) }
}

// branch is the arm that an if or a match takes; -1: none of an if.
func branch(def *pipeline.StepDef, ev evaluation) (int, *pipeline.Failure) {
	value := ""
	if def.Kind == pipeline.KindMatch {
		v, fail := ev.field(def.Match, "match.on")
		if fail != nil {
			return 0, fail
		}
		value = caseOf(v)
	}
	for i := range def.Branches {
		b := &def.Branches[i]
		switch {
		case def.Kind == pipeline.KindMatch:
			if b.Case != nil && *b.Case != value {
				continue
			}
		case b.Condition != nil:
			ok, fail := ev.test(b.Condition, "condition")
			if fail != nil {
				return 0, fail
			}
			if !ok {
				continue
			}
		}
		return i, nil
	}
	if def.Kind == pipeline.KindMatch {
		if len(value) > 200 {
			value = strings.ToValidUTF8(value[:200], "") + "…"
		}
		cases := make([]any, len(def.Branches))
		for i := range def.Branches {
			cases[i] = *def.Branches[i].Case
		}
		return 0, &pipeline.Failure{
			Kind: pipeline.CategoryValidation, Reason: "no_case",
			Message: fmt.Sprintf("no case fits %q, and there is no default; there are cases for %s", value, list(cases)),
		}
	}
	return -1, nil
}

// caseOf is a value as the text that cases are compared with.
func caseOf(v any) string {
	if s, ok := v.(string); ok {
		return s
	}
	return string(pipeline.EncodeValue(v))
}

// listOf is v as a list; a map gives its keys in order, as in Jinja.
func listOf(v any) ([]any, bool) {
	switch v := v.(type) {
	case []any:
		if v == nil {
			v = []any{}
		}
		return v, true
	case map[string]any:
		return sortedKeys(v), true
	}
	return nil, false
}

// answerSet evaluates assignments; each sees the ones before it.
func (r *runState) answerSet(t *pipeline.Task, ev evaluation) func() {
	set, fail := ev.entries(t.Def.Set, "set")
	var state map[string]any
	if fail == nil && len(t.Def.State) > 0 {
		ev.scope = ev.scope.WithOutput(set)
		state, fail = ev.entries(t.Def.State, "state")
	}
	if fail != nil {
		return r.refused(t, fail, nil)
	}
	all := make(map[string]any, len(set)+len(state))
	maps.Copy(all, set)
	maps.Copy(all, state)
	return func() {
		r.record(pipeline.StepFinished, t.Path, t.Attempt, pipeline.Data{
			Kind: t.Def.Kind, Status: pipeline.StepCompleted, Output: all, State: all,
		})
	}
}

func (r *runState) answerAssert(t *pipeline.Task, ev evaluation) func() {
	ok, fail := ev.test(t.Def.Assert, "assert")
	if fail == nil && !ok {
		fail = &pipeline.Failure{
			Kind: pipeline.CategoryFailed, Reason: "assertion_failed", Line: t.Def.Assert.Pos.Line, Column: t.Def.Assert.Pos.Column,
			Message: fmt.Sprintf("the assertion does not hold: %s", t.Def.Assert.Src),
		}
	}
	if fail != nil {
		return r.refused(t, fail, nil)
	}
	return r.completed(t, nil, true)
}

func (r *runState) skipped(t *pipeline.Task) {
	r.record(pipeline.StepWasSkipped, t.Path, 0, pipeline.Data{Kind: t.Def.Kind, Action: t.Def.Action, Reason: pipeline.ReasonCondition})
}
