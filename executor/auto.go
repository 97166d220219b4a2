package executor

import (
	"fmt"
	"strings"

	"github.com/orchestrator-project/orchestrator/pipeline"
	"github.com/orchestrator-project/orchestrator/pipeline/spec"
)

// The reasons of steps whose <AUTO> tags could not be filled in.
const (
	reasonUnresolved = "auto_unresolved"
	reasonAutoType   = "auto_type"
)

// Where the value of a tag comes from.
const (
	fromAnswer   = "answer"
	fromFallback = "fallback"
	fromFiller   = "model"
	fromCache    = "cache" // a model's, in another run
)

// resolution is a tag that was filled in, to be recorded.
type resolution struct {
	path pipeline.Path
	pipeline.Answer
}

// tagBook knows the <AUTO> tags of a run.
type tagBook interface {
	tagsAt(path pipeline.Path) *tags
}

// tags fills in the <AUTO> tags of one step instance, or of one pass of a loop.
type tags struct {
	path     pipeline.Path
	answers  map[string]any                    // that came with the run, by path and key
	fallback any                               // of tags without one of their own
	recorded func(key string) *pipeline.Answer // what was decided before; nil: nothing
	record   func(pipeline.Answer)
	// earlier is what another run was given, and this one may use where it asks the
	// same; sure: whatever it asks. nil: nothing.
	earlier func(*pipeline.Auto) (past *pipeline.Answer, sure bool)
	// fill asks a model for the tag of that text, unless past has answered the very
	// question; nil: there is none.
	fill func(ev evaluation, a *pipeline.Auto, text string, past *pipeline.Answer) (*pipeline.Answer, *pipeline.Failure)
}

// tagsAt fills in those at the path. What it decides is recorded with the next
// event of the run, and counts from now on.
func (r *runState) tagsAt(path pipeline.Path) *tags {
	t := &tags{path: path, answers: r.m.Answers()}
	home := path
	if i := strings.LastIndexByte(string(path), '['); i >= 0 && r.m.Step(path) == nil {
		home = path[:i] // of a pass: its loop
	}
	if s := r.m.Unit(home).Settings.Auto; s != nil {
		t.fallback = s.Fallback
	}
	t.recorded = func(key string) *pipeline.Answer {
		for i := range r.resolved {
			if a := &r.resolved[i]; a.path == path && a.Key == key {
				return &a.Answer
			}
		}
		return r.m.Answer(path, key)
	}
	t.earlier = func(a *pipeline.Auto) (*pipeline.Answer, bool) { return r.book.answer(path, a), r.book.replays() }
	if r.lane.ex.cfg.Filler != nil {
		t.fill = func(ev evaluation, a *pipeline.Auto, text string, past *pipeline.Answer) (*pipeline.Answer, *pipeline.Failure) {
			return r.fillIn(ev, path, a, text, past)
		}
	}
	t.record = func(a pipeline.Answer) { r.resolved = append(r.resolved, resolution{path, a}) }
	return t
}

// answered is the evaluation with the answers to the template's tags.
func (ev evaluation) answered(t *pipeline.Template, what string) (evaluation, *pipeline.Failure) {
	if len(t.Autos) == 0 {
		return ev, nil
	}
	answers := make([]any, len(t.Autos))
	for i, a := range t.Autos {
		v, fail := ev.resolve(a, what)
		if fail != nil {
			return ev, fail
		}
		answers[i] = v
	}
	return ev.with(pipeline.AutoName, answers), nil
}

// resolve is the value of a tag: what was decided before, else the answer that
// came with the run, the one for this very pass first, else the fallback. The
// tags within its text come before it.
func (ev evaluation) resolve(a *pipeline.Auto, what string) (any, *pipeline.Failure) {
	if ev.tags == nil {
		return nil, pipeline.Failuref(pipeline.CategorySystem, "%s: an <AUTO> tag stands outside of steps", what)
	}
	tags := ev.tags.tagsAt(ev.scope.Path())
	if known := tags.recorded(a.Key); known != nil {
		return known.Value, nil
	}
	for _, path := range []string{string(tags.path), plainPath(tags.path)} {
		if v, ok := tags.answers[path+"."+a.Key]; ok {
			return tags.decide(a, what, v, fromAnswer)
		}
	}
	past, sure := tags.earlier(a)
	if past != nil && (sure || tags.fill == nil) {
		return tags.settle(a, what, paid(past))
	}
	why := "it has no answer and no fallback"
	if tags.fill != nil {
		text, fail := ev.eval(a.Prompt, what)
		if fail != nil && fail.Reason != reasonUnresolved {
			return nil, fail
		}
		if fail == nil {
			var answer *pipeline.Answer
			if answer, fail = tags.fill(ev, a, word(text), past); fail == nil {
				return tags.settle(a, what, *answer)
			}
			if fail.Reason == reasonPending || fail.Kind == pipeline.CategoryCancelled {
				return nil, fail
			}
			why = "the model gave no usable answer, and it has no fallback (" + fail.Message + ")"
		}
	} else if _, fail := ev.answered(a.Prompt, what); fail != nil && fail.Reason != reasonUnresolved {
		return nil, fail
	}
	switch {
	case a.Fallback != nil:
		v, fail := ev.field(a.Fallback, what)
		if fail != nil {
			return nil, fail
		}
		return tags.decide(a, what, v, fromFallback)
	case tags.fallback != nil:
		return tags.decide(a, what, tags.fallback, fromFallback)
	}
	return nil, &pipeline.Failure{
		Kind: pipeline.CategoryValidation, Reason: reasonUnresolved, Line: a.Pos.Line, Column: a.Pos.Column,
		Message: fmt.Sprintf("%s: nothing fills in this <AUTO> tag: %s; give one as %s.%s (line %d)",
			what, why, plainPath(tags.path), a.Key, a.Pos.Line),
	}
}

// paid is an answer that is used once more: it costs nothing more.
func paid(a *pipeline.Answer) pipeline.Answer {
	used := *a
	used.Usage = nil
	return used
}

// decide holds a value against the tag's type and settles the tag.
func (t *tags) decide(a *pipeline.Auto, what string, v any, from string) (any, *pipeline.Failure) {
	return t.settle(a, what, pipeline.Answer{Value: v, From: from})
}

func (t *tags) settle(a *pipeline.Auto, what string, answer pipeline.Answer) (any, *pipeline.Failure) {
	v, wrong := spec.Conform(&a.Type, answer.Value)
	if wrong != nil {
		return nil, &pipeline.Failure{
			Kind: pipeline.CategoryValidation, Reason: reasonAutoType, Line: a.Pos.Line, Column: a.Pos.Column,
			Message: fmt.Sprintf("%s: the %s of the <AUTO> tag %s.%s %s (line %d)", what, answer.From, plainPath(t.path), a.Key, &wrong[0], a.Pos.Line),
		}
	}
	answer.Key, answer.Value = a.Key, v
	t.record(answer)
	return v, nil
}
