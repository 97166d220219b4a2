package spec

import (
	"fmt"
	"slices"

	"github.com/orchestrator-project/orchestrator/pipeline"
	"github.com/orchestrator-project/orchestrator/pipeline/expr"
)

// sessionUse is a step that starts a conversation or goes on with one.
type sessionUse struct {
	step *step
	node *node // its name
}

// sessionPrefix begins the names under which conversations stand among state
// variables, which steps are ordered by.
const sessionPrefix = "the session "

// session reads the conversation of a step; program says that its agent is one.
func (c *compiler) session(f *fields, s *step, program bool) {
	p := f.pair("session")
	if p == nil {
		return
	}
	w := where{s, "session"}
	if p.value.kind != mapping {
		c.wrong(p.value, w, "a mapping with start or continue")
		return
	}
	g := c.fields(p.value, inSession, w)
	if len(g.list) != 1 {
		if !g.broken {
			c.error(fault{code: "E0112", at: p.value.at, msg: "a session is started or continued, one of the two", hint: "as in session: {start: fix}"}, w)
		}
		return
	}
	if !program {
		c.error(fault{code: "E0110", at: p.key.at, msg: "sessions of agents that are models are part of the language, but this version does not support them yet", hint: "an agent with a command can have one"}, w)
		return
	}
	key := g.list[0].name
	v := g.list[0].pair.value
	name, ok := c.word(v, w.in(key))
	switch {
	case !ok:
	case !stepID(name):
		c.error(fault{code: "E0113", at: v.at, msg: fmt.Sprintf("%q cannot be a session's name", name), hint: "letters, digits, _ and -, beginning with a letter"}, w.in(key))
	default:
		s.def.Session = &pipeline.Session{Name: name, Start: key == "start"}
		c.sessions = append(c.sessions, sessionUse{s, v})
		if !slices.ContainsFunc(s.uses, func(u *use) bool {
			return u.when == useAgent && slices.ContainsFunc(u.expr.Refs(), func(r expr.Ref) bool { return r.Root == "session" })
		}) {
			c.warn(fault{code: "W0702", at: p.key.at, msg: fmt.Sprintf("the command of the agent %s does not name session, so nothing tells it the conversation", s.def.Agent.Name), hint: "as in --resume {{ session.id }}"}, where{step: s})
		}
	}
}

// resolveSessions orders the steps of each conversation as the file has them, and
// reports those that continue one that cannot have been started.
func (c *compiler) resolveSessions() {
	for _, x := range c.sessions {
		x.step.touch(sessionPrefix+x.step.def.Session.Name, true, x.node.at.off)
	}
	for _, x := range c.sessions {
		if x.step.def.Session.Start {
			continue
		}
		name := x.step.def.Session.Name
		var names []string
		var start *step
		can := false
		for _, y := range c.sessions {
			if t := y.step; t.def.Session.Start {
				names = append(names, t.def.Session.Name)
				if t.def.Session.Name == name {
					start, can = t, can || mayPrecede(t, x.step)
				}
			}
		}
		w := where{x.step, "session.continue"}
		switch {
		case can:
			c.sharedSession(x, w)
		case start != nil:
			c.found.error(c.placed(fault{code: "E0204", at: x.node.at, msg: fmt.Sprintf("the session %s cannot have been started yet", name)}, w), c.found.related(start.at.off, "%s starts it", start.def.ID))
		default:
			f := fault{code: "E0204", at: x.node.at, msg: fmt.Sprintf("no step starts the session %s", name), hint: fmt.Sprintf("as in session: {start: %s}", name)}
			if like := c.suggest(name, names); like != "" {
				f.msg += fmt.Sprintf(" (did you mean %q?)", like)
			}
			c.error(f, w)
		}
	}
}

// sharedSession refuses a conversation that all passes of a parallel loop would
// continue: each has to start its own.
func (c *compiler) sharedSession(x sessionUse, w where) {
	for b := x.step.body; b != nil; b = b.around() {
		if !b.loop || b.owner.def.Loop.Parallel == 0 || b.owner.def.Loop.Parallel == 1 {
			continue
		}
		if !slices.ContainsFunc(c.sessions, func(y sessionUse) bool {
			return y.step.def.Session.Start && y.step.def.Session.Name == x.step.def.Session.Name && y.step.within(b)
		}) {
			c.found.error(c.placed(fault{code: "E0412", at: x.node.at, msg: fmt.Sprintf("passes of the parallel loop %s would all continue the session %s", b.owner.def.ID, x.step.def.Session.Name), hint: "let each pass start its own"}, w), c.found.related(b.owner.at.off, "the loop"))
			return
		}
	}
}

// within reports whether the step stands in a list or in a block of it.
func (s *step) within(b *body) bool {
	for in := s.body; in != nil; in = in.around() {
		if in == b {
			return true
		}
	}
	return false
}

// mayPrecede reports whether t can be over when s begins: it stands before it, or
// in an earlier pass of a loop around both, or a jump leads back.
func mayPrecede(t, s *step) bool {
	if t == s {
		return s.inLoop()
	}
	for a := s; a != nil; a = a.parent() {
		for b := t; b != nil; b = b.parent() {
			switch {
			case a.body != b.body:
			case a == b:
				return a.inLoop() // in two arms of it
			case a.inLoop() || slices.ContainsFunc(a.body.steps, func(x *step) bool { return len(x.jumps) > 0 }):
				return true
			default:
				return b.index < a.index
			}
		}
	}
	root := func(s *step) *body {
		for s.parent() != nil {
			s = s.parent()
		}
		return s.body
	}
	return root(s).final && !root(t).final
}

// inLoop reports whether the step can run more than once, one pass after another.
func (s *step) inLoop() bool {
	for b := s.body; b != nil; b = b.around() {
		if b.loop && b.owner.def.Loop.Parallel >= 0 && b.owner.def.Loop.Parallel <= 1 {
			return true
		}
	}
	return false
}
