package spec

import (
	"fmt"
	"slices"
	"strings"

	"github.com/orchestrator-project/orchestrator/pipeline"
	"github.com/orchestrator-project/orchestrator/pipeline/expr"
)

// match reads a choice by a value. Whether its cases suit the value is checked
// when names are resolved.
func (c *compiler) match(f *fields, s *step) {
	d := s.def
	d.Kind, d.Effect = pipeline.KindMatch, pipeline.EffectPure
	w := where{s, "match"}
	n := f.get("match")
	if n.kind != mapping {
		c.error(fault{code: "E0104", at: n.at, msg: "match must be a mapping, not " + n.what(), hint: `as in match: {on: "{{ label }}", cases: {bug: [...]}, default: [...]}`}, w)
		return
	}
	g := c.fields(n, inMatch, w)
	if v := g.get("on"); v != nil {
		from := len(s.uses)
		on := c.field(v, w.in("on"), useField)
		d.Match = &on
		if on.Template != nil && len(s.uses) > from {
			s.on = s.uses[from]
		}
	} else if !g.broken {
		c.error(fault{code: "E0111", at: n.at, msg: "match needs on, the value that is looked at"}, w)
	}
	switch p := g.pair("cases"); {
	case p == nil:
		if !g.broken {
			c.error(fault{code: "E0111", at: n.at, msg: "match needs cases"}, w)
		}
	case p.value.kind != mapping:
		c.wrong(p.value, w.in("cases"), "a mapping from values to steps")
	default:
		s.cases = p
		for i := range p.value.pairs {
			arm := &p.value.pairs[i]
			label := arm.name
			s.def.Branches = append(s.def.Branches, pipeline.Branch{Case: &label})
			c.bodyOf(f, s, arm.value, "match.cases."+label, &body{label: &label})
		}
	}
	if v := g.get("default"); v != nil {
		s.def.Branches = append(s.def.Branches, pipeline.Branch{})
		c.bodyOf(f, s, v, "match.default", &body{})
	}
}

// exhaustive checks the cases of a match against the type of its value.
func (c *compiler) exhaustive(s *step) {
	if s.cases == nil {
		return
	}
	w := where{s, "match"}
	t := c.typeOfUse(s.on)
	if s.def.Match.Template == nil && isConst(s.def.Match) {
		c.warn(fault{code: "W0702", at: s.cases.key.at, msg: "the value of this match never changes: on holds no template"}, w)
	}
	values := caseValues(t)
	if values == nil {
		return
	}
	for i := range s.cases.value.pairs {
		p := &s.cases.value.pairs[i]
		if slices.Contains(values, p.name) {
			continue
		}
		x := fault{code: "E0410", at: p.key.at, msg: fmt.Sprintf("the value is never %q", p.name), hint: "it is one of " + quoteList(values)}
		if like := c.suggest(p.name, values); like != "" {
			x.msg += fmt.Sprintf(" (did you mean %q?)", like)
		}
		c.error(x, w.in("cases"))
	}
	if len(s.def.Branches) > len(s.cases.value.pairs) {
		return // default
	}
	var missing []string
	for _, v := range values {
		if s.cases.value.get(v) == nil {
			missing = append(missing, v)
		}
	}
	if missing != nil {
		c.error(fault{code: "E0410", at: s.cases.key.at, msg: "no case for " + quoteList(missing), hint: "add them, or a default"}, w)
	}
}

// caseValues are the values that a type has, as text; nil where they cannot be
// counted.
func caseValues(t *pipeline.Type) []string {
	if t == nil {
		return nil
	}
	switch t.Kind {
	case "boolean":
		return []string{"true", "false"}
	case "enum":
		values := make([]string, len(t.Values))
		for i, v := range t.Values {
			values[i] = expr.Text(v)
		}
		return values
	}
	return nil
}

// parallel reads steps that run at the same time.
func (c *compiler) parallel(f *fields, s *step) {
	s.def.Kind, s.def.Effect = pipeline.KindParallel, pipeline.EffectPure
	s.def.Branches = []pipeline.Branch{{}}
	n := f.get("parallel")
	b := &body{graph: true, apart: "parallel"}
	s.bodies = append(s.bodies, b)
	c.stepList(n, s, where{s, "parallel"}, b)
	if n.kind == list && len(n.items) == 0 || n.isNull() {
		c.error(fault{code: "E0112", at: n.at, msg: "parallel needs at least one step"}, where{s, "parallel"})
	}
}

// judgeID is the id of the step that judges the candidates of compete.
const judgeID = "judge"

// compete reads candidates, of which the best is taken.
func (c *compiler) compete(f *fields, s *step) {
	d := s.def
	d.Kind, d.Effect, d.Compete = pipeline.KindCompete, pipeline.EffectPure, &pipeline.Compete{}
	d.Branches = []pipeline.Branch{{}}
	w := where{s, "compete"}
	n := f.get("compete")
	if n.kind != mapping {
		c.error(fault{code: "E0104", at: n.at, msg: "compete must be a mapping, not " + n.what(), hint: "as in compete: {candidates: [...], judge: {...}}"}, w)
		return
	}
	g := c.fields(n, inCompete, w)
	b := &body{graph: true, apart: "compete"}
	s.bodies = append(s.bodies, b)
	if v := g.get("candidates"); v != nil {
		c.stepList(v, s, w.in("candidates"), b)
		if v.kind == list && len(v.items) < 2 {
			c.error(fault{code: "E0112", at: v.at, msg: "compete needs at least two candidates"}, w.in("candidates"))
		}
	} else {
		b.owner, b.byID = s, map[string]*step{}
		if !g.broken {
			c.error(fault{code: "E0111", at: n.at, msg: "compete needs candidates"}, w)
		}
	}
	for _, t := range b.steps { // one that fails is out of the contest
		t.def.OnError = append(t.def.OnError, pipeline.Rule{Do: "fallback", Value: &pipeline.Field{}, Pos: t.def.Pos})
	}
	if p := g.pair("judge"); p != nil {
		c.judge(p, s, b)
	}
	d.Compete.TieBreak = c.oneOf(g.get("tie_break"), w.in("tie_break"), "first", "shortest", "longest")
	if v := g.get("ledger"); v != nil {
		ledger := c.field(v, w.in("ledger"), useField)
		d.Compete.Ledger = &ledger
		if file, ok := ledger.Const.(string); isConst(&ledger) && !c.lost(v) {
			switch _, bad := check(&pipeline.Type{Kind: "path"}, ledger.Const); {
			case !ok:
				c.wrong(v, w.in("ledger"), "a path")
			case bad != nil:
				c.error(fault{code: bad.code("E0104"), at: v.at, msg: "ledger " + bad.String()}, w.in("ledger"))
			default:
				s.files = append(s.files, output{file, v.at})
			}
		}
	}
	candidates := pipeline.Type{Kind: "map"}
	for _, t := range b.steps {
		if !t.judge {
			candidates.Properties = append(candidates.Properties, pipeline.Property{Name: t.def.ID, Type: pipeline.Type{Kind: "any"}})
		}
	}
	any := pipeline.Type{Kind: "any"}
	s.returns = &pipeline.Type{Kind: "map", Properties: []pipeline.Property{
		{Name: "winner", Type: pipeline.Type{Kind: "string"}}, {Name: "output", Type: any}, {Name: "candidates", Type: candidates}, {Name: "judgement", Type: any},
	}}
}

// judge reads the step that decides, which waits for all candidates.
func (c *compiler) judge(p *pair, owner *step, b *body) {
	w := where{owner, "compete.judge"}
	n := p.value
	if n.kind != mapping {
		c.wrong(n, w, "a mapping that says what to do")
		return
	}
	s := &step{def: &pipeline.StepDef{ID: judgeID, Pos: c.text.pos(n.off)}, body: b, index: len(b.steps), at: p.key.at, judge: true}
	if first := b.byID[judgeID]; first != nil {
		c.found.error(c.placed(fault{code: "E0114", at: first.at, msg: "a candidate cannot be called judge: the judge is"}, w), c.found.related(p.key.off, "the judge"))
	}
	if id := n.get("id"); id != nil && id.text != judgeID {
		c.error(fault{code: "E0115", at: id.at, msg: "the judge's id is judge"}, w)
	}
	b.steps = append(b.steps, s)
	b.byID[judgeID] = s
	f := c.fields(n, inStep, where{step: s})
	c.step(f, s)
	owner.def.Compete.Judge = true
}

// typeOfUse is the type of a template that is exactly one reference; nil where
// it is anything else or not known. The names are resolved already.
func (c *compiler) typeOfUse(u *use) *pipeline.Type {
	if u == nil {
		return nil
	}
	refs := u.expr.Refs()
	src := strings.TrimSpace(u.expr.Source())
	inner, braced := strings.CutPrefix(src, "{{")
	inner, closed := strings.CutSuffix(inner, "}}")
	inner = strings.TrimSpace(strings.Trim(inner, "-"))
	if braced != closed || len(refs) != 1 {
		return nil
	}
	r := &refs[0]
	words := []string{r.Root}
	for i := range r.Path {
		if r.Path[i].IsIndex {
			return nil
		}
		words = append(words, r.Path[i].Name)
	}
	if strings.Join(words, ".") != inner {
		return nil
	}
	return c.typeOfRef(u, r)
}

// typeOfRef is the type of what a reference names, or nil.
func (c *compiler) typeOfRef(u *use, r *expr.Ref) *pipeline.Type {
	root, path := r.Root, r.Path
	if u.loopName(root) || c.state[root] != nil {
		return nil
	}
	if (root == "inputs" || root == "steps") && len(path) > 0 {
		kind := root
		root, path = path[0].Name, path[1:]
		if kind == "inputs" {
			if in := c.inputs[root]; in != nil {
				return member(&in.def.Type, path)
			}
			return nil
		}
	} else if in := c.inputs[root]; in != nil && c.hasInputs {
		return member(&in.def.Type, path)
	}
	t, _ := c.findStep(u, root)
	if t == nil {
		return nil
	}
	out := t.output()
	if len(path) > 0 && property(out, path[0].Name) == nil {
		switch path[0].Name {
		case "output", "result", "value", "outputs":
			return member(out, path[1:])
		case "success":
			return &pipeline.Type{Kind: "boolean"}
		}
		if r.Root == "steps" && path[0].Name == "status" {
			return nil
		}
	}
	return member(out, path)
}

// member is the type behind names of a value.
func member(t *pipeline.Type, path []expr.Segment) *pipeline.Type {
	for i := range path {
		p := property(t, path[i].Name)
		if p == nil {
			return tagOf(t, path[i].Name, i == len(path)-1)
		}
		t = &p.Type
	}
	return t
}

// tagOf is the type of the field that tells the cases of a union apart.
func tagOf(t *pipeline.Type, name string, last bool) *pipeline.Type {
	if t == nil || t.Kind != "union" || name != t.By || !last {
		return nil
	}
	tags := make([]any, len(t.Cases))
	for i := range t.Cases {
		tags[i] = t.Cases[i].Tag
	}
	return &pipeline.Type{Kind: "enum", Values: tags}
}
