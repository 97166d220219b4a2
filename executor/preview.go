package executor

import (
	"context"
	"fmt"

	"github.com/orchestrator-project/orchestrator/pipeline"
)

// forkNotes are what a preview has found out: what becomes of each instance that
// the fork would come to without running anything.
type forkNotes struct {
	list  []pipeline.ForkStep
	again map[string]string // the path of what runs again, by step
	seen  map[string]bool   // steps that an instance is known of
}

func (n *forkNotes) add(t *pipeline.Task, decision, reason string) {
	n.seen[stepKey(t.Path)] = true
	n.list = append(n.list, pipeline.ForkStep{Path: t.Path, Kind: t.Def.Kind, Decision: decision, Reason: reason})
}

func (n *forkNotes) reuse(t *pipeline.Task) { n.add(t, pipeline.WouldReuse, "") }

// open notes a step whose <AUTO> tag a model would be asked about. What it is
// given, or whether it runs at all, shows then.
func (n *forkNotes) open(t *pipeline.Task, w *wanting) {
	n.again[stepKey(t.Path)] = string(t.Path)
	if w.question.Kind == OpenDependency {
		n.add(t, pipeline.WouldUnknown, "unknown until a model has filled in "+w.id.key)
		return
	}
	n.add(t, pipeline.WouldRerun, "a model fills in "+w.id.key)
}

func (n *forkNotes) rerun(t *pipeline.Task, why string) {
	n.again[stepKey(t.Path)] = string(t.Path)
	n.add(t, pipeline.WouldRerun, why)
}

// PreviewFork says what a fork would do with each step. It goes as far as the
// records lead; of what comes after a step that runs again it says what can be
// known before. It stores and starts nothing.
func (e *Executor) PreviewFork(ctx context.Context, f pipeline.Forking) ([]pipeline.ForkStep, error) {
	s, err := e.forkOf(ctx, &f)
	if err != nil {
		return nil, err
	}
	prog, err := newProgram(s.Plan)
	if err != nil {
		return nil, err
	}
	b, err := e.openBook(ctx, s.Fork, prog)
	if err != nil {
		return nil, err
	}
	b.notes = &forkNotes{again: map[string]string{}, seen: map[string]bool{}}
	run := *b.source
	run.Inputs, run.PlanDigest = s.Inputs, s.PlanDigest
	l := newLane(e) // it never runs: what it gathers is dropped
	m := pipeline.NewMachine(prog.plan, run)
	m.SetDir(e.bundleDir(prog.plan.Bundle))
	r := &runState{
		lane: l, run: &run, prog: prog, m: m, book: b, workspace: e.workspace(&run, prog.plan),
		attempts: map[pipeline.Path]*attempt{},
	}
	vars, fail := r.evaluation(m.Scope("")).vars(prog.plan.Vars)
	if fail != nil {
		return nil, &pipeline.Error{Kind: pipeline.Invalid, Reason: "vars_failed", Text: fail.Message}
	}
	m.SetVars(vars)
	r.record(pipeline.RunCreated, "", 0, pipeline.Data{Answers: s.Answers})
	r.record(pipeline.RunStarted, "", 0, pipeline.Data{})
	for tasks := m.Next(); len(tasks) > 0; tasks = m.Next() {
		for i := range tasks {
			if err := ctx.Err(); err != nil {
				return nil, err
			}
			if t := &tasks[i]; m.Stands(t) {
				r.foreseeTask(t)
			}
		}
		l.batch.Append = nil
		clear(l.index)
	}
	b.unreached()
	return b.notes.list, nil
}

// foreseeTask answers a task as far as that needs nothing to run.
func (r *runState) foreseeTask(t *pipeline.Task) {
	n := r.book.notes
	switch t.Kind {
	case pipeline.TaskFinish:
	case pipeline.TaskSkip:
		n.add(t, pipeline.WouldSkip, words(t.Reason))
		r.task(t)
	case pipeline.TaskBegin:
		before := len(n.list)
		var end func()
		if t.Def.Kind.Work() {
			launch := r.prepare(t, nil)
			end = func() { launch() }
		} else {
			end = r.answer(t)
		}
		if r.opens(t) {
			return
		}
		end()
		if s := r.m.Step(t.Path); len(n.list) == before && s != nil {
			switch {
			case s.Status == pipeline.StepSkipped:
				n.add(t, pipeline.WouldSkip, words(s.Reason))
			case s.Status == pipeline.StepFailed && s.Error != nil:
				n.rerun(t, "it would fail: "+s.Error.Message)
			case !t.Def.Block():
				n.add(t, pipeline.WouldRerun, "it only computes")
			}
		}
	default:
		if end := r.answer(t); !r.opens(t) {
			end()
		}
	}
}

// opens notes the <AUTO> tag without which the task cannot be evaluated, and
// reports whether there is one.
func (r *runState) opens(t *pipeline.Task) bool {
	w := r.fills.wanted
	if w == nil {
		return false
	}
	r.fills.wanted = nil
	r.book.notes.open(t, w)
	return true
}

// words is a reason as a person reads it.
func words(reason string) string {
	switch reason {
	case pipeline.ReasonCondition:
		return "its condition is false"
	case pipeline.ReasonJumped:
		return "a jump leads past it"
	case pipeline.ReasonUpstream:
		return "a step before it fails"
	}
	return "the run ends before it"
}

// unreached notes the steps that no instance is known of, as they wait for others
// that run again.
func (b *book) unreached() {
	n := b.notes
	causes := map[*planStep]string{}
	var cause func(s *planStep) string
	cause = func(s *planStep) string {
		if c, ok := causes[s]; ok {
			return c
		}
		causes[s] = "" // of a circle, which there is not
		c := ""
		for _, before := range s.before {
			if c == "" {
				c = n.again[before.key]
			}
			for _, in := range before.within {
				if c == "" {
					c = n.again[in.key]
				}
			}
			if c == "" {
				c = cause(before)
			}
		}
		if c == "" && s.block != nil {
			if c = n.again[s.block.key]; c == "" {
				c = cause(s.block)
			}
		}
		causes[s] = c
		return c
	}
	recorded := map[string]bool{}
	for path, rec := range b.records {
		if rec.seq > 0 && rec.end.Status == pipeline.StepCompleted {
			recorded[stepKey(path)] = true
		}
	}
	for _, s := range b.plan.list {
		if n.seen[s.key] || s.def.Block() {
			continue
		}
		why := cause(s)
		step := pipeline.ForkStep{Path: pipeline.Path(plainKey(s.key)), Kind: s.def.Kind, Decision: pipeline.WouldUnknown}
		switch {
		case s.final:
			step.Decision, step.Reason = pipeline.WouldRerun, "finally steps belong to each run"
		case why == "":
			if len(n.again) == 0 {
				step.Decision, step.Reason = pipeline.WouldSkip, "the run does not come to it"
			} else {
				step.Reason = "unknown until what is before it has run"
			}
		case s.def.Condition != nil:
			step.Reason = fmt.Sprintf("unknown until %s has run: its condition decides", why)
		case !leaf(s.def):
			step.Decision, step.Reason = pipeline.WouldRerun, "it only computes"
		case !recorded[s.key]:
			step.Decision, step.Reason = pipeline.WouldRerun, "it has no result yet"
		case s.def.Effect != pipeline.EffectPure && s.def.Kind != pipeline.KindAction:
			step.Decision, step.Reason = pipeline.WouldRerun, fmt.Sprintf("it follows %s, which runs again", why)
		default:
			step.Reason = fmt.Sprintf("unknown until %s has run", why)
		}
		n.list = append(n.list, step)
	}
}

// plainKey is the path that a step's key is made of.
func plainKey(key string) string {
	if n := len(key); n > 2 && key[n-2:] == "[]" {
		return key[:n-2]
	}
	return key
}
