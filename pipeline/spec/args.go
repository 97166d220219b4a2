package spec

import (
	"fmt"
	"slices"

	"github.com/orchestrator-project/orchestrator/pipeline"
	"github.com/orchestrator-project/orchestrator/pipeline/expr"
)

// sessionType is what the command of an agent reads as session.
var sessionType = pipeline.Type{Kind: "map", Optional: true, Properties: []pipeline.Property{
	{Name: "name", Type: pipeline.Type{Kind: "string"}},
	{Name: "id", Type: pipeline.Type{Kind: "string"}},
	{Name: "start", Type: pipeline.Type{Kind: "boolean"}},
}}

// given resolves the names that an agent hands to a template: the arguments of a
// call, and the conversation of a program.
func (c *compiler) given(u *use, r *expr.Ref) bool {
	switch {
	case u.when == useAgent && r.Root == "session":
		c.typed(u, r, 0, &sessionType, "session")
		return true
	case u.when != useTool && u.when != useGate:
		return false
	case r.Root == "args":
		if u.args != nil {
			c.typed(u, r, 0, u.args, "args")
		}
		return true
	}
	if p := property(u.args, r.Root); p != nil && u.when == useTool {
		c.typed(u, r, 0, &p.Type, "the parameter "+r.Root)
		return true
	}
	return false
}

// notGiven reports a name in a template of a tool that nothing defines: it would
// be mistaken for an input.
func (c *compiler) notGiven(u *use, r *expr.Ref, at span) bool {
	if u.when != useTool && u.when != useGate {
		return false
	}
	known := append(c.inSight(u), "args")
	if u.when == useGate {
		known = append(known, "always")
	}
	x := fault{code: "E0201", at: at, msg: fmt.Sprintf("there is nothing named %q", r.Root), hint: "the arguments of the call are args, as in args.amount > 100"}
	if u.when == useTool {
		x.hint = "declare it in the tool's parameters, if the model gives it"
		if u.args != nil {
			for i := range u.args.Properties {
				known = append(known, u.args.Properties[i].Name)
			}
		}
	}
	if like := c.suggest(r.Root, known); like != "" {
		x.msg += fmt.Sprintf(" (did you mean %q?)", like)
	}
	c.error(x, u.where)
	return true
}

// unusedParts warns about agents, models and servers that nothing names.
func (c *compiler) unusedParts() {
	warn := func(at span, block, what, name string) {
		c.warn(fault{code: "W0701", at: at, msg: fmt.Sprintf("the %s %s is never used", what, name)}, where{path: block + "." + name})
	}
	for name, a := range c.agents {
		if !a.used {
			warn(a.at, "agents", "agent", name)
		}
	}
	for name, s := range c.servers {
		if !s.used {
			warn(s.at, "mcp_servers", "MCP server", name)
		}
	}
	for name, m := range c.models {
		if !m.used && !c.choosesModel() {
			warn(m.at, "models", "model", name)
		}
	}
}

// choosesModel reports whether a template names a model, which may be any.
func (c *compiler) choosesModel() bool {
	var within func(b *body) bool
	within = func(b *body) bool {
		return slices.ContainsFunc(b.steps, func(s *step) bool {
			named := s.def.Model != nil && s.def.Model.Template != nil
			for i := range s.def.Parameters {
				named = named || s.def.Parameters[i].Name == "model" && s.def.Parameters[i].Value.Template != nil
			}
			return named || slices.ContainsFunc(s.bodies, within)
		})
	}
	return within(c.root) || within(c.finally)
}
