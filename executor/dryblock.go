package executor

import (
	"slices"
	"strings"

	"github.com/orchestrator-project/orchestrator/pipeline"
	"github.com/orchestrator-project/orchestrator/pipeline/spec"
)

// block walks what a block holds.
func (w *dryRun) block(def *pipeline.StepDef, ev dryEval, c chance) {
	inner := ev.path + "/"
	switch def.Kind {
	case pipeline.KindFor, pipeline.KindQueue, pipeline.KindWhile, pipeline.KindRepeat:
		w.loop(def, ev, c)
	case pipeline.KindIf, pipeline.KindMatch:
		w.arms(def, ev, c)
	case pipeline.KindParallel, pipeline.KindCompete:
		var names map[string]string
		if def.Compete != nil {
			names = map[string]string{"candidates": "what the candidates give"}
		}
		w.body(&def.Branches[0].Body, ev.unit, ev.frames, names, inner, c)
	case pipeline.KindCall:
		unit := w.prog.plan.Units[def.Call.Unit]
		w.pipeline(unit, w.inputs(unit, def.Call.With, ev), inner, c)
	}
	ev.frames[0].steps[def.ID].cause = "step " + def.ID
	if c.run == wouldNotRun {
		*ev.frames[0].steps[def.ID] = foreseen{status: "skipped"}
	}
}

// loop walks a loop's body once, for all passes: what a pass alone knows is not
// known.
func (w *dryRun) loop(def *pipeline.StepDef, ev dryEval, c chance) {
	l := def.Loop
	names := map[string]string{}
	for _, name := range []string{"index", "position", "iteration", "loop_iteration"} {
		names[name] = "the pass of loop " + def.ID
	}
	switch {
	case l.Items != nil:
		for _, name := range []string{"item", l.Variable} {
			if name != "" {
				names[name] = "the item of loop " + def.ID
			}
		}
		o := ev.value(l.Items)
		list, ok := listOf(o.value)
		switch {
		case o.cause != "":
			c = c.and(depends(o.cause))
		case o.wrong != "":
			c = c.and(chance{wouldNotRun, "the items cannot be evaluated: " + o.wrong})
		case !ok:
			c = c.and(chance{wouldNotRun, "the items are no list"})
		case len(list) == 0:
			c = c.and(chance{wouldNotRun, "there are no items"})
		}
	case l.Condition != nil:
		first := ev.with("loop_iteration", int64(0)).with("index", int64(0)).with("iteration", int64(1)).with("position", int64(1))
		c = c.and(holds(first.test(l.Condition), "the loop's condition is false"))
	}
	if c.run != wouldNotRun { // a later pass sees what an earlier one has set
		for _, name := range written(&l.Body) {
			ev.unit.state[name] = unknown{cause: "the passes of loop " + def.ID}
		}
	}
	w.body(&l.Body, ev.unit, ev.frames, names, ev.path+"/", c)
	if c.run != wouldNotRun {
		for _, name := range written(&l.Body) {
			ev.unit.state[name] = unknown{cause: "the passes of loop " + def.ID}
		}
	}
}

// written lists the state that the steps of a body set.
func written(b *pipeline.Body) []string {
	var names []string
	for _, s := range b.Steps {
		for _, list := range [][]pipeline.Entry{s.Set, s.State} {
			for i := range list {
				names = append(names, list[i].Name)
			}
		}
		if s.Loop != nil {
			names = append(names, written(&s.Loop.Body)...)
		}
		for i := range s.Branches {
			names = append(names, written(&s.Branches[i].Body)...)
		}
	}
	return names
}

// arms walks the arms of a choice: the one that is taken, where that is known.
func (w *dryRun) arms(def *pipeline.StepDef, ev dryEval, c chance) {
	left := c // of what the arms before leave over
	var on outcome
	if def.Kind == pipeline.KindMatch {
		on = ev.value(def.Match)
	}
	for i := range def.Branches {
		b := &def.Branches[i]
		taken := chance{run: wouldRun}
		switch {
		case def.Kind == pipeline.KindMatch && !on.known():
			taken = holds(on, "")
		case def.Kind == pipeline.KindMatch && b.Case != nil && *b.Case != caseOf(on.value):
			taken = chance{wouldNotRun, "another case is taken"}
		case b.Condition != nil:
			taken = holds(ev.test(b.Condition), "the condition of its arm is false")
		}
		w.body(&b.Body, ev.unit, ev.frames, nil, ev.path+"/", left.and(taken))
		switch taken.run {
		case wouldRun:
			left = left.and(chance{wouldNotRun, "another arm is taken"})
		case mayRun:
			left = left.and(taken)
		}
	}
}

// inputs are those of a pipeline that is called, as far as they are known.
func (w *dryRun) inputs(unit *pipeline.Unit, with []pipeline.Entry, ev dryEval) map[string]any {
	inputs, all := map[string]any{}, true
	for i := range with {
		v := kept(ev.value(&with[i].Value))
		_, missing := v.(unknown)
		all = all && !missing
		inputs[with[i].Name] = v
	}
	if all {
		if checked, err := spec.Inputs(&pipeline.Plan{Unit: *unit}, inputs); err == nil {
			return checked
		}
	}
	for i := range unit.Inputs {
		in := &unit.Inputs[i]
		if _, given := inputs[in.Name]; !given {
			inputs[in.Name] = in.Default
		}
	}
	return inputs
}

// show fills in what a step would launch, or ask. cause is why a part of that is
// not known.
func (w *dryRun) show(def *pipeline.StepDef, ev dryEval, p *pipeline.Planned) (cause string) {
	text := func(f *pipeline.Field) string {
		s, why := ev.text(f)
		if cause == "" {
			cause = why
		}
		return s
	}
	words := func(list []pipeline.Field) string {
		parts := make([]string, len(list))
		for i := range list {
			parts[i] = shellWord(text(&list[i]))
		}
		return strings.Join(parts, " ")
	}
	switch def.Kind {
	case pipeline.KindCommand:
		if def.Run != nil {
			p.Command = text(def.Run)
		} else {
			p.Command = words(def.Command)
		}
	case pipeline.KindSkill:
		switch s := def.Skill; {
		case s.Run != "":
			p.Command = s.Run
		case s.Command != nil:
			parts := make([]string, len(s.Command))
			for i, word := range s.Command {
				parts[i] = shellWord(word)
			}
			p.Command = strings.Join(parts, " ")
		default:
			p.Prompt = s.Prompt
		}
	case pipeline.KindAgent:
		model := any(nil)
		if def.Model != nil {
			model = kept(ev.value(def.Model))
		}
		var parts []string
		for _, f := range []*pipeline.Field{def.Agent.Instructions, def.Prompt} {
			if f != nil {
				parts = append(parts, strings.TrimSpace(text(f)))
			}
		}
		p.Prompt = strings.Join(parts, "\n\n")
		session := any(nil)
		if def.Session != nil {
			session = unknown{cause: "a session that has not begun"}
		}
		ev = ev.with("model", model).with("session", session)
		p.Command = words(def.Agent.Command)
	case pipeline.KindAsk:
		p.Prompt = text(&def.Ask.Question)
	case pipeline.KindAction:
		if def.ActionAuto != nil {
			if o := ev.auto(def.ActionAuto); o.cause != "" {
				cause = o.cause
			}
			return cause
		}
		asked := ""
		if a := w.ex.actions[def.Action]; a != nil && a.Spec.Model {
			for _, name := range []string{"instructions", "prompt"} {
				if slices.ContainsFunc(def.Parameters, func(e pipeline.Entry) bool { return e.Name == name }) {
					asked = name
				}
			}
		}
		call := []string{def.Action}
		for i := range def.Parameters {
			e := &def.Parameters[i]
			switch value := text(&e.Value); {
			case e.Name == asked:
				p.Prompt = value
			case value == "" && e.Value.Const == nil:
				call = append(call, e.Name+"=...") // a list or map that is not known yet
			default:
				call = append(call, e.Name+"="+shellWord(value))
			}
		}
		p.Command = strings.Join(call, " ")
	}
	return cause
}

// plainWord are the characters that a shell leaves alone.
const plainWord = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_./:=@%+,-{}"

// shellWord writes a word as a shell would read it.
func shellWord(s string) string {
	if s != "" && strings.Trim(s, plainWord) == "" || strings.HasPrefix(s, "{{") && strings.HasSuffix(s, "}}") {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
