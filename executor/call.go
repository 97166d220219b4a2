package executor

import (
	"errors"
	"maps"
	"strings"
	"sync"

	"github.com/orchestrator-project/orchestrator/pipeline"
	"github.com/orchestrator-project/orchestrator/pipeline/spec"
	"github.com/orchestrator-project/orchestrator/store"
)

// answerCall begins what is called: within the run, or as a run of its own.
func (r *runState) answerCall(t *pipeline.Task, ev evaluation) func() {
	call := t.Def.Call
	unit := r.prog.plan.Units[call.Unit]
	with, fail := ev.entries(call.With, "with")
	if fail != nil {
		return r.refused(t, fail, nil)
	}
	inputs, err := spec.Inputs(&pipeline.Plan{Unit: *unit}, with)
	if err != nil {
		return r.refused(t, inputFailure(call.Name, err), with)
	}
	if call.Detach {
		if f := r.recall(t, &offer{params: inputs}); f != nil {
			return f
		}
		return r.detach(t, inputs)
	}
	vars, fail := r.varsOf(unit, inputs)
	if fail != nil {
		return r.refused(t, fail, with)
	}
	return func() {
		r.record(pipeline.StepStarted, t.Path, t.Attempt, pipeline.Data{Kind: t.Def.Kind, Parameters: inputs, Vars: vars})
	}
}

// inputFailure says what is wrong with the inputs of a call.
func inputFailure(name string, err error) *pipeline.Failure {
	fail := pipeline.Failuref(pipeline.CategoryValidation, "call of %s: %v", name, err)
	fail.Reason = "inputs"
	if d, ok := errors.AsType[*pipeline.Diagnostics](err); ok {
		texts := make([]string, len(d.List))
		for i := range d.List {
			texts[i] = d.List[i].Message
		}
		fail.Message = "call of " + name + ": " + strings.Join(texts, "; ")
	}
	return fail
}

// varsOf evaluates the vars of a pipeline that is called: they see its inputs
// and nothing of the caller.
func (r *runState) varsOf(unit *pipeline.Unit, inputs map[string]any) (map[string]any, *pipeline.Failure) {
	run := r.m.Run
	run.Inputs = inputs
	m := pipeline.NewMachine(&pipeline.Plan{Unit: *unit}, run)
	m.SetDir(r.lane.ex.bundleDir(r.prog.plan.Bundle))
	return r.evaluation(m.Scope("")).vars(unit.Vars)
}

// child is a called pipeline as the plan of a run of its own.
type child struct {
	prog     *program
	digest   pipeline.Digest
	compiled []byte
}

// children are those of one program, made when they are needed first.
type children struct {
	mu   sync.Mutex
	made map[int]*child
}

// child is the plan for a run of the plan's unit of that index. It is the same,
// to the digest, whoever makes it.
func (p *program) child(unit int) (*child, error) {
	p.children.mu.Lock()
	defer p.children.mu.Unlock()
	if c := p.children.made[unit]; c != nil {
		return c, nil
	}
	plan := detachedPlan(p.plan, unit)
	compiled, digest, err := spec.EncodePlan(plan)
	if err != nil {
		return nil, err
	}
	prog, err := newProgram(plan)
	if err != nil {
		return nil, err
	}
	if p.children.made == nil {
		p.children.made = map[int]*child{}
	}
	c := &child{prog: prog, digest: digest, compiled: compiled}
	p.children.made[unit] = c
	return c, nil
}

// detachedPlan is a called pipeline as a plan of its own. It keeps all that its
// own calls may need, under the same numbers.
func detachedPlan(plan *pipeline.Plan, unit int) *pipeline.Plan {
	p := *plan
	p.Unit = *plan.Units[unit]
	return &p
}

// detach begins a run of its own in the same commit in which the step ends: it is
// begun once, and outlives its parent. Its plan was stored with its parent's.
func (r *runState) detach(t *pipeline.Task, inputs map[string]any) func() {
	c, err := r.prog.child(t.Def.Call.Unit)
	if err != nil {
		return r.refused(t, asFailure(err), inputs)
	}
	plan := c.prog.plan
	s := submission{
		prog: c.prog, trace: r.trace.place(), answers: answersBelow(r.m.Answers(), t.Path),
		run: &pipeline.Run{
			ID: pipeline.NewRunID(), Pipeline: plan.ID, Version: plan.Version, PlanDigest: c.digest, Inputs: inputs,
			Labels: maps.Clone(r.run.Labels), Priority: priorityOf(0, plan), Workspace: r.run.Workspace, ParentRun: r.run.ID,
			FairKey: r.run.FairKey,
		},
		create: store.Create{},
	}
	if s.run.Priority == 0 {
		s.run.Priority = r.run.Priority
	}
	if err := c.prog.place(s.run); err != nil {
		return r.refused(t, asFailure(err), inputs)
	}
	d := r.withState(t, pipeline.Data{
		Kind: t.Def.Kind, Status: pipeline.StepCompleted, Parameters: inputs,
		Output: map[string]any{"run_id": string(s.run.ID)}, Child: s.run.ID,
	})
	return func() {
		r.record(pipeline.StepFinished, t.Path, t.Attempt, d)
		if d.Status == pipeline.StepCompleted {
			r.lane.enrol(s)
		}
	}
}

// answersBelow are the answers to the <AUTO> tags of what a step calls, by the
// keys that they have there.
func answersBelow(answers map[string]any, path pipeline.Path) map[string]any {
	var below map[string]any
	for _, prefix := range []string{plainPath(path) + "/", string(path) + "/"} { // the exact one counts
		for key, v := range answers {
			if rest, ok := strings.CutPrefix(key, prefix); ok {
				if below == nil {
					below = map[string]any{}
				}
				below[rest] = v
			}
		}
	}
	return below
}

// plainPath is a path without the numbers of passes and visits.
func plainPath(path pipeline.Path) string {
	segments := strings.Split(string(path), "/")
	for i, s := range segments {
		if n := strings.IndexAny(s, "[~"); n >= 0 {
			segments[i] = s[:n]
		}
	}
	return strings.Join(segments, "/")
}
