package executor

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"go.opentelemetry.io/otel/trace"

	"github.com/orchestrator-project/orchestrator/pipeline"
	"github.com/orchestrator-project/orchestrator/pipeline/spec"
)

// Filler asks a model what an <AUTO> tag stands for.
type Filler interface {
	// Fill gives a value of the question's type. It may take long and ends soon
	// after ctx does; the calls that it makes are recorded in env.Journal, so that
	// another attempt does not repeat them. The errors are as those of a Runner.
	Fill(ctx context.Context, env Env, q Question) (pipeline.Answer, error)
}

// What an <AUTO> tag leaves open.
const (
	OpenTask       = "task_type"            // which action the step is
	OpenModel      = "model_selection"      // which model it asks
	OpenParameter  = "parameter_inference"  // a value that the step is given
	OpenDependency = "dependency_detection" // whether, how often and over what it runs
)

// Question is an <AUTO> tag whose step is about to start.
type Question struct {
	Path    pipeline.Path // of the step instance, or of a pass of a loop
	Tag     *pipeline.Auto
	Kind    string           // OpenTask, OpenModel, OpenParameter, OpenDependency
	Text    string           // of the tag, its templates and inner tags filled in
	Choices []any            // that the answer must be one of, besides its type; nil: any
	Actions []map[string]any // of OpenTask: name, doc and parameters of each choice
	Step    map[string]any   // id, kind, action and description of the step
	Around  map[string]any   // the step's other parameters, as far as they are known
	Earlier map[string]any   // outputs of the steps that it depends on
}

// The bounds of what a question tells of its surroundings, in bytes of JSON.
const (
	maxAround = 16 << 10
	maxAspect = 4 << 10
)

// Why a tag was not given to a model.
const (
	reasonPending = "auto_pending" // it is being filled in: never recorded
	reasonLimit   = "auto_limit"
)

// fills are the tags of a run that models are being asked about.
type fills struct {
	wanted *wanting                     // by the evaluation under way
	done   map[tagID]*filled            // asked, and not used yet
	asking map[pipeline.Digest]*filling // by what is asked
}

// tagID names a tag within a run.
type tagID struct {
	path pipeline.Path
	key  string
}

type filled struct {
	answer pipeline.Answer
	fail   *pipeline.Failure
}

// wanting is a tag that an evaluation cannot do without.
type wanting struct {
	id       tagID
	question Question
	def      *pipeline.StepDef
}

// filling is a question on its way; equal ones wait for the same answer.
type filling struct {
	path    pipeline.Path
	content pipeline.Digest
	wanting *wanting
	cancel  context.CancelCauseFunc
	then    []func(filled)
	paths   []pipeline.Path // of all that wait for it, one for each of then

	// Of one that waits for people:
	waits bool
	open  []pipeline.ApprovalID
	due   time.Time // it is put again; zero: only after a decision
}

// errPending is how an evaluation ends that needs an answer first.
func errPending() *pipeline.Failure {
	return &pipeline.Failure{Kind: pipeline.CategorySystem, Reason: reasonPending, Message: "an <AUTO> tag is being filled in"}
}

// fillIn gives what a model has answered for the tag, here or, where it was asked
// the same, in the run that past is from; or it puts the question. It is called
// while fields are evaluated.
func (r *runState) fillIn(ev evaluation, path pipeline.Path, a *pipeline.Auto, text string, past *pipeline.Answer) (*pipeline.Answer, *pipeline.Failure) {
	id := tagID{path, a.Key}
	if f := r.fills.done[id]; f != nil {
		delete(r.fills.done, id)
		return &f.answer, f.fail
	}
	def := r.m.Def(path)
	if def == nil {
		def = r.m.Def(homeOf(path))
	}
	if def == nil {
		return nil, pipeline.Failuref(pipeline.CategorySystem, "an <AUTO> tag stands outside of steps")
	}
	q := r.question(ev, path, def, a, text)
	if past != nil && past.Content == q.content(r.run.ID) {
		used := paid(past)
		return &used, nil
	}
	if s := r.m.Unit(homeOf(path)).Settings.Auto; s != nil {
		if fail := r.withinAuto(s); fail != nil {
			return nil, fail
		}
	}
	r.fills.wanted = &wanting{id: id, def: def, question: q}
	return nil, errPending()
}

// homeOf is the step that a path is of: that of a pass is its loop's.
func homeOf(path pipeline.Path) pipeline.Path {
	if strings.HasSuffix(string(path), "]") {
		if i := strings.LastIndexByte(string(path), '['); i >= 0 {
			return path[:i]
		}
	}
	return path
}

// withinAuto holds what the run's tags have cost against its settings.
func (r *runState) withinAuto(s *pipeline.AutoSettings) *pipeline.Failure {
	n, usd := r.m.Answered()
	switch {
	case s.Max > 0 && n+len(r.fills.asking) >= s.Max:
		return &pipeline.Failure{Kind: pipeline.CategoryResource, Reason: reasonLimit, Message: "settings.auto.max is reached: models have filled in as many <AUTO> tags as they may"}
	case s.CostLimit > 0 && usd >= s.CostLimit:
		return &pipeline.Failure{Kind: pipeline.CategoryResource, Reason: reasonLimit, Message: "settings.auto.cost_limit is reached: filling in <AUTO> tags may cost no more"}
	}
	return nil
}

// question says what is to be decided, and what surrounds it.
func (r *runState) question(ev evaluation, path pipeline.Path, def *pipeline.StepDef, a *pipeline.Auto, text string) Question {
	q := Question{
		Path: path, Tag: a, Kind: OpenParameter, Text: text, Around: map[string]any{}, Earlier: map[string]any{},
		Step: map[string]any{"id": def.ID, "kind": string(def.Kind)},
	}
	if def.Action != "" {
		q.Step["action"] = def.Action
	}
	if def.Description != "" {
		q.Step["description"] = def.Description
	}
	key, _, _ := strings.Cut(a.Key, "#")
	switch {
	case a == def.ActionAuto:
		q.Kind = OpenTask
		for _, s := range r.prog.actions(r.lane.ex.Catalog()) {
			q.Choices = append(q.Choices, s.Key)
			params := []any{}
			for i := range s.Params {
				params = append(params, s.Params[i].Name)
			}
			doc, _, _ := strings.Cut(s.Doc, "\n")
			q.Actions = append(q.Actions, map[string]any{"name": s.Key, "does": doc, "parameters": params})
		}
	case key == "model" || strings.HasSuffix(key, ".model"):
		q.Kind = OpenModel
	case steers(def, a):
		q.Kind = OpenDependency
	}
	left := maxAround
	put := func(m map[string]any, name string, v any) {
		n := len(pipeline.EncodeValue(v))
		if n > maxAspect {
			v = string(pipeline.EncodeValue(v)[:maxAspect]) + "…"
			n = maxAspect
		}
		if left -= n; left > 0 {
			m[name] = v
		}
	}
	for i := range def.Parameters {
		e := &def.Parameters[i]
		if tagged(&e.Value) {
			if known := r.m.Answer(path, e.Name); known != nil && known.Key != a.Key {
				put(q.Around, e.Name, known.Value)
			}
			continue
		}
		if v, fail := ev.field(&e.Value, e.Name); fail == nil {
			put(q.Around, e.Name, v)
		}
	}
	for _, s := range ev.scope.Before() {
		put(q.Earlier, s.ID, s.Output)
	}
	return q
}

// steers reports whether the tag decides if the step runs, how often, over what,
// or which way it takes.
func steers(def *pipeline.StepDef, a *pipeline.Auto) bool {
	list := []*pipeline.Template{def.Condition, def.Assert}
	field := func(f *pipeline.Field) {
		if f != nil {
			list = append(list, f.Template)
			for i := range f.List {
				list = append(list, f.List[i].Template)
			}
		}
	}
	field(def.Match)
	if l := def.Loop; l != nil {
		field(l.Items)
		list = append(list, l.Condition, l.Until)
	}
	for i := range def.Branches {
		list = append(list, def.Branches[i].Condition)
	}
	return slices.ContainsFunc(list, func(t *pipeline.Template) bool { return t != nil && slices.Contains(t.Autos, a) })
}

// tagged reports whether <AUTO> tags stand in a field.
func tagged(f *pipeline.Field) bool {
	return f.Template != nil && len(f.Template.Autos) > 0 || slices.ContainsFunc(f.List, func(e pipeline.Field) bool { return tagged(&e) }) ||
		slices.ContainsFunc(f.Map, func(e pipeline.Entry) bool { return tagged(&e.Value) })
}

// actions are those that a step can turn out to be.
func (p *program) actions(c pipeline.Catalog) []*pipeline.ActionSpec {
	var list []*pipeline.ActionSpec
	for _, s := range c.Actions {
		list = append(list, s)
	}
	slices.SortFunc(list, func(a, b *pipeline.ActionSpec) int { return strings.Compare(a.Key, b.Key) })
	return list
}

// content names what is asked: equal questions have equal answers. The run's own
// id, which stands in paths of its workspace, is not part of it.
func (q *Question) content(run pipeline.RunID) pipeline.Digest {
	text := string(pipeline.EncodeValue(map[string]any{
		"kind": q.Kind, "text": q.Text, "type": spec.AnswerSchema(&q.Tag.Type), "choices": q.Choices, "model": q.Tag.Model, "task": q.Tag.Task,
		"step": q.Step, "around": q.Around, "earlier": q.Earlier,
	}))
	return digestOf([]byte(strings.ReplaceAll(text, string(run), "run")))
}

// unsettled reports whether an evaluation has ended because a tag is open. Then a
// model is asked, and again is called on the lane once that is over.
func (r *runState) unsettled(again func()) bool {
	w := r.fills.wanted
	if w == nil || r.book.previews() { // a preview asks nobody
		return false
	}
	r.fills.wanted = nil
	if r.fills.done == nil {
		r.fills.done, r.fills.asking = map[tagID]*filled{}, map[pipeline.Digest]*filling{}
	}
	content := w.question.content(r.run.ID)
	then := func(f filled) {
		f.answer.Key, f.answer.Content = w.id.key, content
		r.fills.done[w.id] = &f
		again()
	}
	known := r.m.AnswerTo(content)
	for i := range r.resolved {
		if a := &r.resolved[i].Answer; a.Content == content {
			known = a
		}
	}
	if known != nil {
		then(filled{answer: paid(known)})
		return true
	}
	if f := r.fills.asking[content]; f != nil {
		f.then, f.paths = append(f.then, then), append(f.paths, w.id.path)
		return true
	}
	r.putQuestion(w, content, []func(filled){then}, []pipeline.Path{w.id.path})
	return true
}

// putQuestion asks a model, elsewhere.
func (r *runState) putQuestion(w *wanting, content pipeline.Digest, then []func(filled), paths []pipeline.Path) {
	ex, path := r.lane.ex, w.id.path
	ctx, cancel := context.WithCancelCause(ex.work)
	f := &filling{path: path, content: content, wanting: w, cancel: cancel, then: then, paths: paths}
	r.fills.asking[content] = f
	a := &attempt{cancel: cancel}
	if r.journals == nil {
		r.journals = map[pipeline.Path]*attempt{}
	}
	r.journals[path] = a
	past := journaling{last: r.durable}
	past.first, past.calls = r.m.Journal(homeOf(path))
	red := r.redactor()
	r.looking++
	env := Env{
		Run: r.run.ID, Path: path, Tenure: r.tenure(), Workspace: r.workspace, Bundle: ex.bundleDir(r.prog.plan.Bundle),
		Redact: red.text, Log: func(string, string) {}, TraceContent: ex.cfg.TraceContent,
		Unit: r.m.Unit(homeOf(path)), Secret: ex.cfg.Secret, // it may be one of the pipeline's own models that is asked
	}
	if r.trace != nil {
		ctx = trace.ContextWithSpan(ctx, r.trace.span)
	}
	ex.tasks.Go(func() {
		var answer pipeline.Answer
		var err error
		if env.Journal, err = r.journal(ctx, path, a, past, red, func() bool { return r.fills.asking[content] == f }); err == nil {
			ex.show(&env, red)
			answer, err = r.answerOf(ctx, env, w, content)
		}
		cause := context.Cause(ctx)
		cancel(nil)
		r.lane.post(func() {
			r.looking--
			if r.journals[path] == a {
				delete(r.journals, path)
			}
			if r.gone || errors.Is(cause, errStopped) || errors.Is(cause, errFenced) || errors.Is(err, ErrJournal) {
				delete(r.fills.asking, content)
				return // whoever owns the run next asks again
			}
			r.do(func() {
				if s, ok := errors.AsType[*Suspension](err); ok && !r.over() && cause == nil {
					r.layDown(f, s, red)
					r.ask()
					r.pump()
					return
				}
				delete(r.fills.asking, content)
				for _, then := range f.then {
					then(filled{answer: answer, fail: asFailure(err)})
				}
				r.pump()
			})
		})
	})
}

// answerOf is a model's answer, or the one that an equal question of another run
// got, where the step's own cache policy allows that.
func (r *runState) answerOf(ctx context.Context, env Env, w *wanting, content pipeline.Digest) (pipeline.Answer, error) {
	ex, shared := r.lane.ex, w.def.Cache
	if shared != nil {
		if b, _, err := ex.cfg.Cache.Cached(ctx, content); err == nil && b != nil {
			if d, err := pipeline.DecodeData(b); err == nil && d.Auto != nil {
				a := *d.Auto
				a.From, a.Usage = fromCache, nil
				return a, nil
			}
		}
	}
	a, err := ex.cfg.Filler.Fill(ctx, env, w.question)
	if err != nil {
		return a, err
	}
	a.From, a.Kind = fromFiller, w.question.Kind
	if shared != nil {
		ttl := shared.TTL
		if ttl == 0 {
			ttl = ex.cfg.CacheTTL
		}
		if err := ex.cfg.Cache.PutCached(ctx, content, pipeline.AppendData(nil, &pipeline.Data{Auto: &a}), ttl); err != nil {
			ex.log.Warn("answer to an <AUTO> tag not kept for other runs", "run", env.Run, "err", err)
		}
	}
	return a, nil
}

// cancelFills ends questions whose step will not start.
func (r *runState) cancelFills() {
	for _, f := range r.fills.asking {
		if s := r.m.Step(homeOf(f.path)); s == nil || s.Status.Final() || r.m.Cancels(homeOf(f.path)) {
			if f.waits {
				r.dropFill(f)
				continue
			}
			f.cancel(errCancelled)
		}
	}
}
