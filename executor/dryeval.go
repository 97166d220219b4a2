package executor

import (
	"errors"
	"strconv"
	"strings"
	"time"

	"github.com/orchestrator-project/orchestrator/pipeline"
	"github.com/orchestrator-project/orchestrator/pipeline/expr"
	"github.com/orchestrator-project/orchestrator/pipeline/spec"
)

// unknown is a value that only a run can give. What an evaluation touches of it
// is not known either.
type unknown struct {
	cause   string // in a sentence: "step a", "the files of the workspace"
	touched *string
}

// Attr is as unknown as the whole.
func (u unknown) Attr(string) (any, bool) { u.touch(); return u, true }

// Value stands for something that is not known.
func (u unknown) Value() any { u.touch(); return nil }

func (u unknown) touch() {
	if *u.touched == "" {
		*u.touched = u.cause
	}
}

// foreseen is a step as a dry run knows it.
type foreseen struct {
	cause  string // why its output is not known; empty: it is
	output any
	status string // completed or skipped
}

// dryScope is what the templates of one step can name.
type dryScope struct {
	frames  []*dryFrame // the innermost first
	unit    *dryUnit
	touched *string
}

// dryUnit is a pipeline: the one that is run, or one that it calls.
type dryUnit struct {
	def    *pipeline.Unit
	inputs map[string]any
	vars   map[string]any
	state  map[string]any // unknown where a step that may or may not run sets it
}

// dryFrame is a body.
type dryFrame struct {
	steps map[string]*foreseen
	names map[string]string // that a loop gives, with why they are not known
}

// plain turns what the walk keeps into what an evaluation sees.
func (s dryScope) plain(v any) any {
	if u, ok := v.(unknown); ok {
		u.touched = s.touched
		return u
	}
	return v
}

func (s dryScope) unknown(cause string) (any, bool) { return unknown{cause, s.touched}, true }

// Lookup finds a name, in the order of a run.
func (s dryScope) Lookup(name string) (any, bool) {
	for _, f := range s.frames {
		if cause, ok := f.names[name]; ok {
			return s.unknown(cause)
		}
	}
	if v, ok := s.unit.state[name]; ok {
		return s.plain(v), true
	}
	if v, ok := s.unit.inputs[name]; ok {
		return s.plain(v), true
	}
	if v, ok := s.step(name, false); ok {
		return v, true
	}
	if v, ok := s.unit.vars[name]; ok {
		return s.plain(v), true
	}
	switch name {
	case "inputs":
		return members{s, s.unit.inputs}, true
	case "vars":
		return members{s, s.unit.vars}, true
	case "steps":
		return drySteps{s}, true
	case "pipeline":
		u := s.unit.def
		return members{s, map[string]any{
			"id": u.ID, "name": u.Name, "version": u.Version, "dir": unknown{cause: "where the pipeline's files will be"},
		}}, true
	case "run":
		return s.unknown("the run")
	case "secrets":
		return s.unknown("a secret")
	}
	return nil, false
}

func (s dryScope) step(id string, strict bool) (any, bool) {
	for _, f := range s.frames {
		if x, ok := f.steps[id]; ok && id != "" {
			if x.cause != "" {
				return s.unknown(x.cause)
			}
			return dryStep{s, x, strict}, true
		}
	}
	return nil, false
}

// members is a map of which some values may not be known.
type members struct {
	scope dryScope
	of    map[string]any
}

// Attr is a member.
func (m members) Attr(name string) (any, bool) {
	v, ok := m.of[name]
	return m.scope.plain(v), ok
}

// Value is known where all members are.
func (m members) Value() any {
	for _, v := range m.of {
		if u, ok := m.scope.plain(v).(unknown); ok {
			u.touch()
			return nil
		}
	}
	return m.of
}

type drySteps struct{ scope dryScope }

// Attr finds a step by its id.
func (s drySteps) Attr(name string) (any, bool) { return s.scope.step(name, true) }

// Value is what only a run knows.
func (s drySteps) Value() any { return unknown{"the steps", s.scope.touched}.Value() }

// dryStep is a step whose output is known.
type dryStep struct {
	scope  dryScope
	of     *foreseen
	strict bool
}

// Value is the output.
func (s dryStep) Value() any { return s.of.output }

// Attr is a name of the step or a field of its output.
func (s dryStep) Attr(name string) (any, bool) {
	m, _ := s.of.output.(map[string]any)
	field, has := m[name]
	if has && !s.strict {
		return field, true
	}
	switch name {
	case "status":
		return s.of.status, true
	case "success":
		return s.of.status == "completed", true
	case "output", "result", "value", "outputs":
		return s.of.output, true
	case "error", "exit_code":
		return nil, true
	case "attempts", "started_at", "duration", "parameters", "artifacts":
		return s.scope.unknown("how a step ends")
	}
	return field, has
}

// errUnseen is the error of functions that only a run can carry out.
var errUnseen = errors.New("only a run knows this")

// env is what a template sees. touched learns what is not known of that.
func (s dryScope) env() *expr.Env {
	unseen := func(cause string) error { unknown{cause, s.touched}.touch(); return errUnseen }
	const files = "the files of the workspace"
	return &expr.Env{Scope: s, Host: expr.Host{
		Now:         func() time.Time { _ = unseen("the time"); return time.Time{} },
		ListFiles:   func(string) ([]string, error) { return nil, unseen(files) },
		FileExists:  func(string) (bool, error) { return false, unseen(files) },
		IncludeFile: func(string) (string, error) { return "", unseen(files) },
		Collect:     func() (any, error) { return nil, unseen("the passes of a loop") },
	}}
}

// outcome of an evaluation: a value, or why there is none.
type outcome struct {
	value any
	cause string // it is not known
	wrong string // it cannot be evaluated
}

func (o outcome) known() bool { return o.cause == "" && o.wrong == "" }

// dryEval evaluates fields of one step.
type dryEval struct {
	w      *dryRun
	unit   *dryUnit
	frames []*dryFrame
	path   string
	extra  map[string]any // further names
}

func (ev dryEval) scope(touched *string) expr.Scope {
	return overlay{ev.extra, dryScope{frames: ev.frames, unit: ev.unit, touched: touched}}
}

// overlay is a scope with names before it.
type overlay struct {
	names map[string]any
	scope dryScope
}

// Lookup finds a name.
func (o overlay) Lookup(name string) (any, bool) {
	if v, ok := o.names[name]; ok {
		return o.scope.plain(v), true
	}
	return o.scope.Lookup(name)
}

func (ev dryEval) with(name string, v any) dryEval {
	extra := map[string]any{name: v}
	for k, v := range ev.extra {
		if k != name {
			extra[k] = v
		}
	}
	ev.extra = extra
	return ev
}

// answered is the evaluation with the answers to the template's tags.
func (ev dryEval) answered(autos []*pipeline.Auto) dryEval {
	if len(autos) == 0 {
		return ev
	}
	answers := make([]any, len(autos))
	for i, a := range autos {
		o := ev.auto(a)
		if !o.known() {
			return ev.with(pipeline.AutoName, unknown{cause: "an <AUTO> tag"})
		}
		answers[i] = o.value
	}
	return ev.with(pipeline.AutoName, answers)
}

func (ev dryEval) auto(a *pipeline.Auto) outcome {
	v, ok := ev.w.sub.Answers[ev.path+"."+a.Key]
	if !ok && a.Fallback != nil {
		o := ev.value(a.Fallback)
		if !o.known() {
			return o
		}
		v, ok = o.value, true
	}
	if s := ev.unit.def.Settings.Auto; !ok && s != nil && s.Fallback != nil {
		v, ok = s.Fallback, true
	}
	if !ok {
		return outcome{cause: "an <AUTO> tag"}
	}
	v, wrong := spec.Conform(&a.Type, v)
	if wrong != nil {
		return outcome{wrong: "the value of an <AUTO> tag " + wrong[0].String()}
	}
	return outcome{value: v}
}

// template evaluates a template that stands in the plan.
func (ev dryEval) template(t *pipeline.Template) outcome {
	return ev.answered(t.Autos).eval(ev.w.prog.templates[t.ID])
}

func (ev dryEval) eval(x *expr.Template) outcome {
	touched := ""
	env := dryScope{touched: &touched}.env()
	env.Scope = ev.scope(&touched)
	v, err := x.Eval(env)
	return ended(v, err, touched)
}

// test evaluates a condition.
func (ev dryEval) test(t *pipeline.Template) outcome {
	touched := ""
	env := dryScope{touched: &touched}.env()
	env.Scope = ev.answered(t.Autos).scope(&touched)
	ok, err := ev.w.prog.templates[t.ID].Test(env)
	return ended(ok, err, touched)
}

func ended(v any, err error, touched string) outcome {
	switch {
	case touched != "":
		return outcome{cause: touched}
	case err != nil:
		return outcome{wrong: err.Error()}
	}
	return outcome{value: v}
}

// value evaluates a field; of one that is known in part nothing is.
func (ev dryEval) value(f *pipeline.Field) outcome {
	switch {
	case f.Template != nil:
		return ev.template(f.Template)
	case f.List != nil:
		list := make([]any, len(f.List))
		for i := range f.List {
			o := ev.value(&f.List[i])
			if !o.known() {
				return o
			}
			list[i] = o.value
		}
		return outcome{value: list}
	case f.Map != nil:
		m := make(map[string]any, len(f.Map))
		for i := range f.Map {
			o := ev.value(&f.Map[i].Value)
			if !o.known() {
				return o
			}
			m[f.Map[i].Name] = o.value
		}
		return outcome{value: m}
	case f.Empty == "list":
		return outcome{value: []any{}}
	case f.Empty == "map":
		return outcome{value: map[string]any{}}
	}
	return outcome{value: f.Const}
}

// text renders a field as far as it is known: other placeholders stay as they
// stand in the source.
func (ev dryEval) text(f *pipeline.Field) (text, cause string) {
	o := ev.value(f)
	if o.known() {
		return word(o.value), ""
	}
	if f.Template == nil {
		return "", o.cause
	}
	t := f.Template
	if o.wrong != "" || strings.Contains(t.Src, "{%") || strings.Contains(t.Src, "{#") {
		return shownSource(t, t.Src), o.cause
	}
	in := ev.answered(t.Autos)
	var b strings.Builder
	rest := t.Src
	for {
		i := strings.Index(rest, "{{")
		if i < 0 {
			b.WriteString(rest)
			return b.String(), o.cause
		}
		b.WriteString(rest[:i])
		end := min(expr.PlaceholderEnd(rest, i+2)+2, len(rest))
		part := rest[i:end]
		rest = rest[end:]
		if x, err := expr.Compile(part); err == nil {
			if o := in.eval(x); o.known() {
				b.WriteString(word(o.value))
				continue
			}
		}
		b.WriteString(shownSource(t, part))
	}
}

// shownSource is a part of a template as its author wrote it.
func shownSource(t *pipeline.Template, part string) string {
	for i, a := range t.Autos {
		name := pipeline.AutoName + "[" + strconv.Itoa(i) + "]"
		tag := "<AUTO>" + shownSource(a.Prompt, a.Prompt.Src) + "</AUTO>"
		part = strings.ReplaceAll(part, "{{ "+name+" }}", tag)
		part = strings.ReplaceAll(part, name, tag)
	}
	return part
}
