package spec

import (
	"fmt"
	"slices"

	"github.com/orchestrator-project/orchestrator/pipeline"
	"github.com/orchestrator-project/orchestrator/pipeline/expr"
)

// stepAttributes are the names that every step has beside the fields of its
// output.
var stepAttributes = []string{
	"status", "success", "error", "output", "result", "value", "outputs", "parameters", "artifacts", "exit_code", "attempts", "started_at", "duration",
}

// stepRef checks that the step t has run when u is evaluated, and that it has
// what u asks of it. b is the list that t stands in; name is the place of its id
// in the template; skip counts the segments of the path up to its id.
func (c *compiler) stepRef(u *use, r *expr.Ref, t *step, b *body, name span, skip int) {
	if c.hasRun(u, t, b, name) {
		c.stepField(u, r, t, skip)
	}
}

func (c *compiler) hasRun(u *use, t *step, b *body, name span) bool {
	s := u.where.step
	if s == nil || u.when == useCollect && len(s.bodies) > 0 && b == s.bodies[0] {
		return true
	}
	a := s
	for a.body != b {
		if a = a.parent(); a == nil {
			return true // a step of finally names one of steps
		}
	}
	id := t.def.ID
	switch {
	case a == t && a == s && (u.when == useState || u.when == useExhausted):
		return true
	case a == t && a == s && s.def.Loop != nil:
		c.error(fault{code: "E0204", at: c.at(u, name.off, name.end), msg: fmt.Sprintf("the loop %s has no value before it is over", id), hint: "carry values from pass to pass in state"}, u.where)
		return false
	case a == t && a == s:
		c.error(fault{code: "E0204", at: c.at(u, name.off, name.end), msg: fmt.Sprintf("the step %s cannot use its own result", id), hint: "only its state is worked out after it"}, u.where)
		return false
	case a == t:
		c.error(fault{code: "E0204", at: c.at(u, name.off, name.end), msg: fmt.Sprintf("%s is not over while its own steps run", id), hint: "carry values from pass to pass in state"}, u.where)
		return false
	case b.apart != "" && !a.judge:
		c.found.error(c.placed(fault{
			code: "E0204", at: c.at(u, name.off, name.end), msg: fmt.Sprintf("%s runs at the same time as %s: steps of %s do not wait for each other", id, a.def.ID, b.apart),
		}, u.where), c.found.related(t.at.off, "%s is here", id))
		return false
	case b.graph:
		a.refs = append(a.refs, edge{t.index, c.anchor(u, c.at(u, name.off, name.end).off)})
	case t.index > a.index:
		c.found.error(c.placed(fault{code: "E0204", at: c.at(u, name.off, name.end), msg: fmt.Sprintf("the step %s comes later in this list and cannot have run", id)}, u.where), c.found.related(t.at.off, "%s is here", id))
		return false
	}
	return true
}

// stepField checks the first names behind a step.
func (c *compiler) stepField(u *use, r *expr.Ref, t *step, skip int) {
	if len(r.Path) <= skip {
		return
	}
	out := t.output()
	first := &r.Path[skip]
	if first.IsIndex {
		if out != nil && out.Kind == "map" && closed(out) {
			c.noField(u, r, skip, out, "step "+t.def.ID)
		}
		return
	}
	f := property(out, first.Name)
	if f == nil && out != nil && out.Kind == "union" {
		reported := false
		if f, reported = c.provenField(u, r, skip, t, out); reported {
			return
		}
	}
	if f != nil {
		c.typed(u, r, skip+1, &f.Type, fmt.Sprintf("%s of step %s", first.Name, t.def.ID))
		return
	}
	switch first.Name {
	case "output", "result", "value", "outputs":
		if out != nil && out.Kind == "union" && len(r.Path) > skip+1 && !r.Path[skip+1].IsIndex {
			c.unionField(u, r, skip+1, t, out)
			return
		}
		if out != nil {
			c.typed(u, r, skip+1, out, "step "+t.def.ID)
		}
		return
	}
	if slices.Contains(stepAttributes, first.Name) {
		return
	}
	if out != nil && closed(out) {
		c.noField(u, r, skip, out, "step "+t.def.ID)
	}
}

// typed checks the names behind a value of a known type, from r.Path[i] on.
func (c *compiler) typed(u *use, r *expr.Ref, i int, t *pipeline.Type, what string) {
	for ; i < len(r.Path); i++ {
		s := &r.Path[i]
		switch {
		case t.Kind == "list" && s.IsIndex && t.Items != nil:
			t = t.Items
			continue
		case s.IsIndex && t.Kind != "map" || t.Kind == "any" || !closed(t):
			return
		}
		f := property(t, s.Name)
		if f == nil && t.Kind == "union" && slices.Contains(unionFields(t), s.Name) {
			return // only a step's cases are proven
		}
		if f == nil || s.IsIndex {
			c.noField(u, r, i, t, what)
			return
		}
		t = &f.Type
	}
}

// closed reports whether a value of the type has no fields but the known ones.
func closed(t *pipeline.Type) bool {
	switch t.Kind {
	case "any", "enum":
		return false
	case "map":
		return len(t.Properties) > 0 && !t.Additional
	}
	return true
}

func property(t *pipeline.Type, name string) *pipeline.Property {
	if t != nil && t.Kind == "union" {
		return unionField(t, name)
	}
	if t == nil || t.Kind != "map" {
		return nil
	}
	for i := range t.Properties {
		if t.Properties[i].Name == name {
			return &t.Properties[i]
		}
	}
	return nil
}

// noField reports a name that a typed value does not have.
func (c *compiler) noField(u *use, r *expr.Ref, i int, t *pipeline.Type, what string) {
	if r.Guarded && i == len(r.Path)-1 {
		return
	}
	s := &r.Path[i]
	name := s.Name
	if s.IsIndex {
		name = fmt.Sprint(s.Index)
	}
	x := fault{code: "E0203", at: c.at(u, s.Off, s.End), msg: fmt.Sprintf("%s has no field %q", what, name)}
	var names []string
	for k := range t.Properties {
		names = append(names, t.Properties[k].Name)
	}
	if t.Kind == "union" {
		names = unionFields(t)
	}
	if like := c.suggest(name, append(names, stepAttributes...)); like != "" {
		x.msg += fmt.Sprintf(" (did you mean %q?)", like)
	}
	switch {
	case len(names) > 0:
		x.hint = "it has " + quoteList(names)
	case t.Kind == "map":
	case t.Kind == "list":
		x.hint = "it is a list"
	default:
		x.hint = "it is " + typeText(t)
	}
	c.error(x, u.where)
}

// output is the type of a step's output, or nil.
func (s *step) output() *pipeline.Type {
	if s.returns != nil || len(s.bodies) == 0 {
		return s.returns
	}
	switch s.def.Kind {
	case pipeline.KindIf, pipeline.KindMatch, pipeline.KindParallel:
		s.returns = &pipeline.Type{Kind: "map"}
		for _, b := range s.bodies {
			s.returns.Properties = append(s.returns.Properties, b.outputs(s.def.Kind != pipeline.KindParallel)...)
		}
		return s.returns
	}
	if s.def.Loop == nil {
		return nil
	}
	pass := s.pass()
	any := pipeline.Type{Kind: "any"}
	s.returns = &pipeline.Type{Kind: "map", Properties: []pipeline.Property{
		{Name: "results", Type: pipeline.Type{Kind: "list", Items: &pass}},
		{Name: "last", Type: pass},
		{Name: "final_results", Type: pass},
		{Name: "iterations", Type: pipeline.Type{Kind: "integer"}},
		{Name: "completed", Type: pipeline.Type{Kind: "boolean"}},
		{Name: "errors", Type: pipeline.Type{Kind: "list", Items: &any}},
	}}
	return s.returns
}

// pass is the type of what a pass of a loop gives.
func (s *step) pass() pipeline.Type {
	if s.def.Loop.Collect != nil {
		return pipeline.Type{Kind: "any"}
	}
	b := s.bodies[0]
	if s.def.Loop.Single {
		if t := b.steps[0].output(); t != nil {
			return *t
		}
		return pipeline.Type{Kind: "any"}
	}
	return pipeline.Type{Kind: "map", Properties: b.outputs(false)}
}

// outputs are the fields of what a body gives: the outputs of its steps. Those of
// an arm are optional, as another may be taken.
func (b *body) outputs(arm bool) []pipeline.Property {
	out := make([]pipeline.Property, 0, len(b.steps))
	for _, inner := range b.steps {
		p := pipeline.Property{Name: inner.def.ID, Type: pipeline.Type{Kind: "any"}}
		if o := inner.output(); o != nil {
			p.Type = *o
		}
		p.Type.Optional = p.Type.Optional || arm
		out = append(out, p)
	}
	return out
}
