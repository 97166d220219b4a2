package executor

import (
	"context"
	"strings"

	"github.com/orchestrator-project/orchestrator/pipeline"
	"github.com/orchestrator-project/orchestrator/pipeline/expr"
)

// Whether a step would run.
const (
	wouldRun    = "yes"
	wouldNotRun = "no"
	mayRun      = "unknown"
)

// DryRun says what a submission would run, as far as that is known before: from
// inputs, vars, constants, answers, and what set and pure actions compute of
// these. It lists every step, those of blocks once, in the order of the source.
// It starts no process, reads no files and stores nothing.
func (e *Executor) DryRun(ctx context.Context, s pipeline.Submission) ([]pipeline.Planned, error) {
	prog, err := newProgram(s.Plan)
	if err != nil {
		return nil, err
	}
	w := &dryRun{ctx: ctx, ex: e, prog: prog, sub: &s}
	w.pipeline(&s.Plan.Unit, s.Inputs, "", chance{run: wouldRun})
	return w.list, ctx.Err()
}

// dryRun walks a plan.
type dryRun struct {
	ctx  context.Context //nolint:containedctx // of one call
	ex   *Executor
	prog *program
	sub  *pipeline.Submission
	list []pipeline.Planned
}

// chance says whether something would run, and why not or why that is not known.
type chance struct{ run, why string }

func depends(cause string) chance { return chance{mayRun, "depends on " + cause} }

// and is the chance of what runs only where both do.
func (c chance) and(d chance) chance {
	switch {
	case c.run == wouldNotRun || d.run == wouldRun:
		return c
	case d.run == wouldNotRun || c.run == wouldRun:
		return d
	}
	return c
}

// holds is the chance of what runs where a condition does.
func holds(o outcome, otherwise string) chance {
	switch {
	case o.wrong != "":
		return chance{wouldNotRun, "its condition cannot be evaluated: " + o.wrong}
	case o.cause != "":
		return depends(o.cause)
	case o.value == true:
		return chance{run: wouldRun}
	}
	return chance{wouldNotRun, otherwise}
}

// pipeline walks a pipeline with its inputs, some of which may not be known.
func (w *dryRun) pipeline(def *pipeline.Unit, inputs map[string]any, prefix string, c chance) {
	u := &dryUnit{def: def, inputs: inputs, vars: map[string]any{}, state: map[string]any{}}
	for _, name := range def.State {
		u.state[name] = expr.NullState
	}
	ev := dryEval{w: w, unit: u}
	for i := range def.Vars {
		u.vars[def.Vars[i].Name] = kept(ev.value(&def.Vars[i].Value))
	}
	root := w.body(&def.Root, u, nil, nil, prefix, c)
	w.body(&def.Finally, u, []*dryFrame{root}, nil, prefix, c)
}

// kept is an outcome as a value that later evaluations name.
func kept(o outcome) any {
	switch {
	case o.known():
		return o.value
	case o.cause != "":
		return unknown{cause: o.cause}
	}
	return unknown{cause: "a value that cannot be evaluated"}
}

// body walks a list of steps.
func (w *dryRun) body(b *pipeline.Body, u *dryUnit, outer []*dryFrame, names map[string]string, prefix string, c chance) *dryFrame {
	f := &dryFrame{steps: map[string]*foreseen{}, names: names}
	for _, def := range b.Steps {
		f.steps[def.ID] = &foreseen{cause: "step " + def.ID}
	}
	frames := append([]*dryFrame{f}, outer...)
	jumps := make([]chance, len(b.Steps)) // what jumps of earlier steps mean for a step
	for i := range jumps {
		jumps[i] = c
	}
	for i, def := range b.Steps {
		if w.ctx.Err() != nil {
			return f
		}
		path := prefix + def.ID
		if def.ID == "" {
			path = strings.TrimSuffix(prefix, "/")
		}
		ev := dryEval{w: w, unit: u, frames: frames, path: path}
		own := w.step(def, ev, jumps[i])
		if r := def.Routes; r != nil {
			skipped := func(to *int, c chance) {
				for k := i + 1; to != nil && k < *to; k++ {
					jumps[k] = jumps[k].and(c)
				}
			}
			if own.run == wouldNotRun {
				skipped(r.False, chance{wouldNotRun, "step " + def.ID + " jumps over it"})
			} else {
				for _, to := range []*int{r.Success, r.Failure, r.False, r.Always} {
					skipped(to, depends("how step "+def.ID+" ends"))
				}
			}
		}
	}
	return f
}

// step lists one step with all that it holds, and foresees its output.
func (w *dryRun) step(def *pipeline.StepDef, ev dryEval, c chance) chance {
	if def.Condition != nil && c.run != wouldNotRun {
		c = c.and(holds(ev.test(def.Condition), "its condition is false"))
	}
	at := len(w.list)
	w.list = append(w.list, pipeline.Planned{Path: pipeline.Path(ev.path), Kind: def.Kind, WouldRun: c.run, Reason: c.why})
	me := ev.frames[0].steps[def.ID]
	if c.run == wouldNotRun {
		*me = foreseen{status: "skipped"}
	}
	entry := w.list[at]
	cause := ""
	switch {
	case def.Block():
		w.block(def, ev, c)
	case c.run != wouldNotRun:
		cause = w.show(def, ev, &entry)
		entry.Path, entry.Kind = w.list[at].Path, w.list[at].Kind
	}
	if def.Loop != nil && def.Loop.Single && len(w.list) > at+1 { // the loop and its one step are one
		entry.Command, entry.Prompt = w.list[at+1].Command, w.list[at+1].Prompt
		w.list = append(w.list[:at+1], w.list[at+2:]...)
	}
	if entry.Reason == "" && cause != "" {
		entry.Reason = "not known yet: " + cause
	}
	w.list[at] = entry
	if c.run != wouldNotRun {
		if c.run == wouldRun && !def.Block() {
			if o := w.foresee(def, ev); o.known() {
				*me = foreseen{output: o.value, status: "completed"}
			}
		}
		w.assign(def, ev, c)
	}
	return c
}

// assign sets the state that a step sets.
func (w *dryRun) assign(def *pipeline.StepDef, ev dryEval, c chance) {
	for _, list := range [][]pipeline.Entry{def.Set, def.State} {
		for i := range list {
			var v any = unknown{cause: "step " + def.ID}
			if c.run == wouldRun {
				v = kept(ev.value(&list[i].Value))
			}
			ev.unit.state[list[i].Name] = v
		}
	}
}

// foresee is the output of a step that computes it of what is known.
func (w *dryRun) foresee(def *pipeline.StepDef, ev dryEval) outcome {
	unseen := outcome{cause: "step " + def.ID}
	switch def.Kind {
	case pipeline.KindSet:
		return ev.value(&pipeline.Field{Map: append(append([]pipeline.Entry{}, def.Set...), def.State...)})
	case pipeline.KindAssert:
		return ev.test(def.Assert)
	case pipeline.KindAction:
		a := w.ex.actions[def.Action]
		if a == nil || def.Effect != pipeline.EffectPure || a.Spec.Effect != pipeline.EffectPure || a.Spec.Model || a.Workspace {
			return unseen
		}
		o := ev.value(&pipeline.Field{Map: def.Parameters, Empty: "map"})
		params, _ := o.value.(map[string]any)
		if !o.known() {
			return o
		}
		r, err := a.Bind(params)
		if err != nil {
			return unseen
		}
		out, err := r.Run(w.ctx, Env{Path: pipeline.Path(ev.path), Attempt: 1, Log: func(string, string) {}})
		if err != nil {
			return unseen
		}
		return outcome{value: out.Value}
	}
	return unseen
}
