package spec

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/orchestrator-project/orchestrator/pipeline"
	"github.com/orchestrator-project/orchestrator/pipeline/expr"
)

// The actions of the catalogue that ask a model: for a text, and for a value of
// a given form.
const (
	askText  = "generate"
	askValue = "generate_structured"
)

// ownAction is an action of the pipeline's own: a prompt with typed parameters.
type ownAction struct {
	spec    *pipeline.ActionSpec
	prompt  string         // its source, in which the parameters are names
	model   *pair          // nil: the default
	returns *pipeline.Type // nil: a text
	good    bool
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

// declareActions reads the actions block.
func (c *compiler) declareActions(n *node) {
	c.actions = map[string]*ownAction{}
	if n == nil || n.isNull() {
		return
	}
	w := where{path: "actions"}
	if n.kind != mapping {
		c.wrong(n, w, "a mapping from names to actions")
		return
	}
	for i := range n.pairs {
		p := &n.pairs[i]
		w := w.in(p.name)
		switch {
		case !stepID(p.name):
			c.error(fault{code: "E0113", at: p.key.at, msg: fmt.Sprintf("%q cannot be an action's name", p.name), hint: "letters, digits, _ and -, beginning with a letter"}, w)
		case c.cat.find("", p.name) != nil:
			c.error(fault{code: "E0209", at: p.key.at, msg: fmt.Sprintf("%s is an action of the catalogue already", p.name), hint: "rename this one"}, w)
		case p.value.kind != mapping:
			c.wrong(p.value, w, "a mapping with prompt or prompt_file")
		default:
			c.actions[p.name] = c.declareAction(p, w)
		}
	}
}

func (c *compiler) declareAction(p *pair, w where) *ownAction {
	errs := c.found.errs
	f := c.fields(p.value, inOwnAction, w)
	c.inert(f.get("description"), w.in("description"))
	a := &ownAction{spec: &pipeline.ActionSpec{Key: p.name, Name: p.name, Model: true}, model: f.pair("model")}
	if v := f.get("parameters"); v != nil {
		a.spec.Params = c.propertiesOf(v, w.in("parameters"))
		if v.kind == mapping {
			for i := range v.pairs {
				c.parameterName(&v.pairs[i], w.in("parameters"))
			}
		}
	}
	if v := f.get("returns"); v != nil && !v.isNull() {
		a.returns = c.resultType(v, w.in("returns"))
	}
	prompt, file := f.pair("prompt"), f.pair("prompt_file")
	switch {
	case prompt != nil && file != nil:
		c.found.error(c.placed(fault{code: "E0102", at: file.key.at, msg: "prompt and prompt_file both say what is asked"}, w), c.found.related(prompt.key.off, "the other one"))
	case prompt != nil && (prompt.value.kind != scalar || prompt.value.isNull()):
		c.wrong(prompt.value, w.in("prompt"), "a text")
	case prompt != nil:
		a.prompt = prompt.value.text
		c.ownPrompt(a, prompt.value, c.text.source(prompt.value), w.in("prompt"))
	case file != nil:
		if t := c.promptFile(file.value, w.in("prompt_file")); t != nil {
			a.prompt = t.src
			c.ownPrompt(a, file.value, t.global, w.in("prompt_file"))
		}
	case !f.broken:
		c.error(fault{code: "E0111", at: p.key.at, msg: fmt.Sprintf("the action %s has neither prompt nor prompt_file", p.name)}, w)
	}
	a.good = c.found.errs == errs
	return a
}

// parameterName checks that a prompt can name a parameter.
func (c *compiler) parameterName(p *pair, w where) {
	if c.goodName(p.key, p.name, "a parameter's name", w) && strings.Contains(p.name, "-") {
		c.error(fault{code: "E0113", at: p.key.at, msg: fmt.Sprintf("%q cannot be named in a prompt", p.name), hint: "letters, digits and _, beginning with a letter or _"}, w)
	}
}

// ownPrompt checks a prompt in which nothing but the action's parameters can be named.
func (c *compiler) ownPrompt(a *ownAction, n *node, to func(int) int, w where) {
	if tagged(a.prompt) {
		c.replaceTags(n, a.prompt, to, w, useVars, false, nil) // reports it
		return
	}
	x, err := expr.Compile(a.prompt)
	u := &use{expr: x, node: n, where: w, to: to}
	if err != nil {
		c.templateErrors(u, err)
		return
	}
	var names []string
	for i := range a.spec.Params {
		names = append(names, a.spec.Params[i].Name)
	}
	for _, r := range x.Refs() {
		if slices.Contains(names, r.Root) || r.Dashed != "" && r.Root == r.Dashed {
			continue
		}
		f := fault{code: "E0201", at: c.at(u, r.Off, r.End), msg: fmt.Sprintf("the action %s has no parameter %q", a.spec.Name, r.Root), hint: "its prompt can name its parameters, and nothing else"}
		if like := c.suggest(r.Root, names); like != "" {
			f.msg += fmt.Sprintf(" (did you mean %q?)", like)
		}
		c.error(f, w)
	}
}

// modelAction reads a step whose action is one of the pipeline's own, or one
// that nobody knows where the settings leave such to a model. It reports whether
// it is one of these.
func (c *compiler) modelAction(f *fields, s *step) bool {
	n := f.get("action")
	if n.kind != scalar || f.get("tool") != nil || tagged(n.text) || templated(n.text) {
		return false
	}
	a := c.actions[n.text]
	if a == nil {
		known := c.cat.find("", n.text) != nil
		if known || c.plan.Settings.UnknownActions != "model" || !stepID(n.text) || strings.HasPrefix(n.text, pipeline.MCPPrefix) {
			return false
		}
		a = c.unknownAction(f, n.text)
	}
	w := where{step: s}
	d := s.def
	s.spec = a.spec
	d.Effect = pipeline.EffectAtLeastOnce
	c.contract(f, s, true, false)
	first := c.templates
	es := c.parameters(a.spec, f.get("parameters"), n, w)
	if !a.good {
		s.returns = &pipeline.Type{Kind: "any"}
		return true
	}
	returns := a.returns
	if d.Returns != nil {
		returns = &d.Returns.Type
	}
	d.Action = askText
	if returns != nil {
		d.Action = askValue
	}
	if c.cat.byKey[d.Action] == nil {
		c.error(fault{code: "E0301", at: n.at, msg: fmt.Sprintf("%s asks a model by the action %s, which the catalogue does not have", n.text, d.Action)}, w.in("action"))
		return true
	}
	d.Parameters = []pipeline.Entry{{Name: "prompt", Value: c.join(a, es, n, first), Pos: c.text.pos(n.off)}}
	if returns == nil {
		s.returns = &pipeline.Type{Kind: "string"}
	} else {
		s.returns = returns
		d.Parameters = append(d.Parameters, pipeline.Entry{Name: "schema", Value: pipeline.Field{Const: AnswerSchema(returns)}, Pos: c.text.pos(n.off)})
	}
	model := f.pair("model")
	if model == nil {
		model = a.model
	}
	d.Needs = c.needsOf(f, w)
	if !c.allowed(n.at, w.in("action"), d.Action) {
		return true
	}
	if model != nil {
		c.fixedModel(model.value, w.in("model"))
		if v := c.modelOf(&fields{list: []field{{byPlace[inStep]["model"], model}}}, w); v != nil {
			d.Parameters = append(d.Parameters, pipeline.Entry{Name: "model", Value: *v, Pos: c.text.pos(model.key.off)})
		}
	}
	for _, key := range []string{"prompt", "prompt_file"} {
		if p := f.pair(key); p != nil {
			c.error(fault{code: "E0110", at: p.key.at, msg: fmt.Sprintf("%s means nothing here: the action has a prompt of its own", key)}, w)
		}
	}
	return true
}

// unknownAction makes an action of its name and the parameters of its step.
func (c *compiler) unknownAction(f *fields, name string) *ownAction {
	a := &ownAction{spec: &pipeline.ActionSpec{Key: name, Name: name, Model: true}, good: true}
	var b strings.Builder
	fmt.Fprintf(&b, "Carry out the action %q and give its result, without any remarks.\n", name)
	if n := f.get("parameters"); n != nil && n.kind == mapping {
		for i := range n.pairs {
			p := &n.pairs[i]
			errs := c.found.errs
			c.parameterName(p, where{path: "parameters"})
			a.good = a.good && c.found.errs == errs
			a.spec.Params = append(a.spec.Params, pipeline.Property{Name: p.name, Type: pipeline.Type{Kind: "any", Optional: true}})
			fmt.Fprintf(&b, "\n%s: {{ %s | tojson }}", p.name, p.name)
		}
	}
	a.prompt = b.String()
	return a
}

var answerName = regexp.MustCompile(`\b` + pipeline.AutoName + `\[(\d+)\]`)

// join makes one template of an action's prompt and the values of its
// parameters, which it sets as names before the prompt. The templates of the
// parameters, which began with number first, are gone then; what is left of them
// gets their numbers.
func (c *compiler) join(a *ownAction, es []pipeline.Entry, n *node, first int) pipeline.Field {
	j := joined{}
	for i := range a.spec.Params {
		p := &a.spec.Params[i]
		value := &pipeline.Field{Const: p.Default}
		for k := range es {
			if es[k].Name == p.Name {
				value = &es[k].Value
			}
		}
		if t := value.Template; t != nil && !single(t.Src) {
			j.text(p.Name, t)
			continue
		}
		j.src.WriteString("{% set " + p.Name + " = " + j.expression(value) + " %}")
	}
	j.src.WriteString(a.prompt)
	src := j.src.String()
	x, err := expr.Compile(src)
	if err != nil {
		c.error(fault{code: "E0205", at: n.at, msg: "the prompt does not go together with its parameters: " + err.Error()}, where{})
		return pipeline.Field{}
	}
	c.templates = first
	c.renumber(j.autos)
	t := &pipeline.Template{ID: c.templates, Src: src, Pos: c.text.pos(n.off), Impure: x.Impure(), Autos: j.autos}
	c.templates++
	return pipeline.Field{Template: t}
}

func (c *compiler) renumber(autos []*pipeline.Auto) {
	take := func(t *pipeline.Template) {
		c.renumber(t.Autos)
		t.ID = c.templates
		c.templates++
	}
	for _, a := range autos {
		take(a.Prompt)
		if a.Fallback != nil && a.Fallback.Template != nil {
			take(a.Fallback.Template)
		}
	}
}

// joined is a template in the making.
type joined struct {
	src   strings.Builder
	autos []*pipeline.Auto
	names int
}

// single reports whether a template is one {{ }}.
func single(src string) bool {
	_, err := expr.CompileCondition(src)
	return err == nil
}

// take adds the tags of a template, and gives its source with their new numbers.
func (j *joined) take(t *pipeline.Template) string {
	from := len(j.autos)
	j.autos = append(j.autos, t.Autos...)
	return answerName.ReplaceAllStringFunc(t.Src, func(s string) string {
		k, _ := strconv.Atoi(answerName.FindStringSubmatch(s)[1])
		return pipeline.AutoName + "[" + strconv.Itoa(from+k) + "]"
	})
}

// text sets a name to a text with placeholders.
func (j *joined) text(name string, t *pipeline.Template) {
	j.src.WriteString("{% set " + name + " %}" + j.take(t) + "{% endset %}")
}

// expression gives a value as an expression; texts with placeholders within it
// get names of their own before.
func (j *joined) expression(f *pipeline.Field) string {
	switch {
	case f.Template != nil && single(f.Template.Src):
		return "(" + strings.Trim(inBraces(strings.TrimSpace(j.take(f.Template))), "-+") + ")"
	case f.Template != nil:
		j.names++
		name := fmt.Sprintf("__part%d__", j.names)
		j.text(name, f.Template)
		return name
	case f.List != nil:
		parts := make([]string, len(f.List))
		for i := range f.List {
			parts[i] = j.expression(&f.List[i])
		}
		return "[" + strings.Join(parts, ", ") + "]"
	case f.Map != nil:
		parts := make([]string, len(f.Map))
		for i := range f.Map {
			parts[i] = literal(f.Map[i].Name) + ": " + j.expression(&f.Map[i].Value)
		}
		return "{" + strings.Join(parts, ", ") + "}"
	}
	return literal(f.Const)
}
