package spec

import (
	"fmt"
)

// definitions reports names that mean two things.
func (c *compiler) definitions() {
	twice := func(name string, at span, s *step, what string, first span, other string) {
		if at.off < first.off {
			at, first, what, other = first, at, other, what
		}
		c.found.error(fault{code: "E0209", at: at, step: s.path(), msg: fmt.Sprintf("%s is %s, and %s as well", name, what, other), hint: "rename one of them"}, c.found.related(first.off, "%s here", other))
	}
	for _, e := range c.plan.Vars {
		if in := c.inputs[e.Name]; in != nil {
			twice(e.Name, c.vars[e.Name].at, nil, "a var", in.at, "an input")
		}
	}
	for name, d := range c.state {
		if in := c.inputs[name]; in != nil {
			twice(name, d.at, nil, "a state variable", in.at, "an input")
		}
		if v := c.vars[name]; v != nil {
			twice(name, d.at, nil, "a state variable", v.at, "a var")
		}
	}
	c.definedSteps(c.root)
	c.definedSteps(c.finally)
}

func (c *compiler) definedSteps(b *body) {
	twice := func(s *step, at span, path, msg string, first span, what string) {
		c.found.error(fault{code: "E0209", at: at, step: s.path(), path: path, msg: msg, hint: "rename one of them"}, c.found.related(first.off, "%s", what))
	}
	for _, s := range b.steps {
		id := s.def.ID
		if in := c.inputs[id]; id != "" && in != nil {
			twice(s, s.at, "id", fmt.Sprintf("%s is a step, and an input as well", id), in.at, "an input here")
		}
		if v := c.vars[id]; id != "" && v != nil {
			twice(s, s.at, "id", fmt.Sprintf("%s is a step, and a var as well", id), v.at, "a var here")
		}
		if d := c.state[id]; id != "" && d != nil {
			twice(s, s.at, "id", fmt.Sprintf("%s is a step, and a state variable as well", id), d.at, "a state variable here")
		}
		for outer := b.around(); id != "" && outer != nil; outer = outer.around() {
			if first := outer.byID[id]; first != nil && !(s.judge && first.judge) {
				c.found.error(fault{code: "E0114", at: s.at, step: s.path(), path: "id", msg: fmt.Sprintf("a step %q stands in the list around this one too", id)}, c.found.related(first.at.off, "the other one"))
			}
		}
		if b.final && id != "" && c.root.byID[id] != nil {
			c.found.error(fault{code: "E0114", at: s.at, step: id, path: "id", msg: fmt.Sprintf("a step %q stands in steps too", id)}, c.found.related(c.root.byID[id].at.off, "the other one"))
		}
		if s.overItems() && s.def.Loop.Variable != "item" {
			c.variable(s, twice)
		}
		arms := map[string]*step{} // steps of one id would have the same path
		for _, inner := range s.bodies {
			for _, t := range inner.steps {
				switch first := arms[t.def.ID]; {
				case t.def.ID == "" || len(s.bodies) == 1:
				case first == nil:
					arms[t.def.ID] = t
				case first.body != t.body:
					c.found.error(fault{code: "E0114", at: t.at, step: t.path(), path: "id", msg: fmt.Sprintf("a step %q stands in another arm of %s", t.def.ID, id)}, c.found.related(first.at.off, "the other one"))
				}
			}
			c.definedSteps(inner)
		}
	}
}

func (c *compiler) variable(s *step, twice func(*step, span, string, string, span, string)) {
	v := s.def.Loop.Variable
	at := s.variable
	path := string(s.def.Kind) + ".variable"
	if in := c.inputs[v]; in != nil {
		twice(s, at, path, fmt.Sprintf("%s is the variable of a loop, and an input as well", v), in.at, "an input here")
	}
	if d := c.vars[v]; d != nil {
		twice(s, at, path, fmt.Sprintf("%s is the variable of a loop, and a var as well", v), d.at, "a var here")
	}
	if d := c.state[v]; d != nil {
		twice(s, at, path, fmt.Sprintf("%s is the variable of a loop, and a state variable as well", v), d.at, "a state variable here")
	}
	for b := s.body; b != nil; b = b.around() {
		if t := b.byID[v]; t != nil {
			twice(s, at, path, fmt.Sprintf("%s is the variable of a loop, and a step as well", v), t.at, "a step here")
		}
		if o := b.owner; o != nil && b.loop && o.overItems() && o.def.Loop.Variable == v {
			twice(s, at, path, fmt.Sprintf("%s is the variable of the loop around this one too", v), o.at, "that loop")
		}
	}
	for _, inner := range s.bodies {
		if t := inner.byID[v]; t != nil {
			twice(s, at, path, fmt.Sprintf("%s is the variable of a loop, and a step in it as well", v), t.at, "a step here")
		}
	}
}
