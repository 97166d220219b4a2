package spec

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/orchestrator-project/orchestrator/pipeline"
)

// assertion reads a step that only tests something.
func (c *compiler) assertion(f *fields, s *step) {
	s.def.Kind, s.def.Effect = pipeline.KindAssert, pipeline.EffectPure
	s.def.Assert = c.condition(f.get("assert"), where{s, "assert"}, useField)
}

// wait reads a step that waits for a time, a signal or files.
func (c *compiler) wait(f *fields, s *step) {
	d := s.def
	d.Kind, d.Effect, d.Wait = pipeline.KindWait, pipeline.EffectPure, &pipeline.Wait{}
	w := where{s, "wait"}
	n := f.get("wait")
	if n.kind != mapping {
		c.error(fault{code: "E0104", at: n.at, msg: "wait must be a mapping, not " + n.what(), hint: "as in wait: {for: 5m}, {until: time}, {signal: name} or {files: pattern}"}, w)
		return
	}
	g := c.fields(n, inWait, w)
	var first *pair
	for _, key := range []string{"for", "until", "signal", "files"} {
		p := g.pair(key)
		if p == nil {
			continue
		}
		if first != nil {
			c.found.error(c.placed(fault{code: "E0112", at: p.key.at, msg: fmt.Sprintf("a step waits for one thing; %s and %s are two", first.name, key)}, w), c.found.related(first.key.off, "it waits for this already"))
			continue
		}
		first = p
		c.waitFor(p, d.Wait, s)
	}
	if first == nil && !g.broken {
		c.error(fault{code: "E0111", at: n.at, msg: "wait does not say what for", hint: "give it one of for, until, signal, files"}, w)
	}
	for _, key := range []string{"count", "poll"} {
		if p := g.pair(key); p != nil && d.Wait.Files == nil && first != nil {
			c.error(fault{code: "E0110", at: p.key.at, msg: fmt.Sprintf("%s means nothing here: it belongs to files", key)}, w)
		}
	}
	if v := g.get("count"); v != nil {
		d.Wait.Count, _ = c.integer(v, w.in("count"), 1)
	}
	if v := g.get("poll"); v != nil {
		d.Wait.Poll, _ = c.duration(v, w.in("poll"))
	}
	own, within := f.pair("timeout"), g.pair("timeout")
	if own != nil {
		d.Timeout, _ = c.duration(own.value, where{s, "timeout"})
	}
	if within != nil {
		d.Timeout, _ = c.duration(within.value, w.in("timeout"))
		if own != nil {
			c.found.error(c.placed(fault{code: "E0102", at: within.key.at, msg: "the timeout is given twice"}, w), c.found.related(own.key.off, "the step has one"))
		}
	}
}

// waitFor reads what is waited for.
func (c *compiler) waitFor(p *pair, to *pipeline.Wait, s *step) {
	w := where{s, "wait." + p.name}
	v := c.field(p.value, w, useField)
	fixed := v.Template == nil && !c.lost(p.value)
	words, isText := v.Const.(string)
	switch p.name {
	case "for":
		to.For = &v
		if fixed {
			c.duration(p.value, w)
		}
	case "until":
		to.Until = &v
		if _, err := time.Parse(time.RFC3339, words); fixed && err != nil {
			c.error(fault{code: "E0104", at: p.value.at, msg: "until must be a time", hint: "as in 2026-01-31T06:00:00Z, or with a zone such as +02:00"}, w)
		}
	case "signal":
		to.Signal = &v
		s.returns = &pipeline.Type{Kind: "any"}
	case "files":
		to.Files = &v
		s.returns = &pipeline.Type{Kind: "list", Items: &pipeline.Type{Kind: "path"}}
	}
	if fixed && (p.name == "signal" || p.name == "files") {
		switch {
		case !isText || words == "":
			c.wrong(p.value, w, "a text")
		case p.name == "files" && (strings.HasPrefix(words, "/") || slices.Contains(strings.Split(words, "/"), "..")):
			c.error(fault{code: "E0601", at: p.value.at, msg: fmt.Sprintf("%s is not within the workspace", words)}, w)
		}
	}
}

// ask reads a question to people; approve is one whose answers are fixed.
func (c *compiler) ask(f *fields, s *step, key string) {
	d := s.def
	approve := key == "approve"
	d.Kind, d.Effect, d.Ask = pipeline.KindAsk, pipeline.EffectPure, &pipeline.Ask{Approve: approve}
	a := d.Ask
	w := where{s, key}
	n := f.get(key)
	if approve {
		s.returns = &pipeline.Type{Kind: "enum", Values: []any{"approve", "reject"}}
	}
	if n.kind == scalar && !n.isNull() { // the question alone
		a.Question = c.asked(n, w)
		return
	}
	if n.kind != mapping {
		c.wrong(n, w, "a question, or a mapping")
		return
	}
	in := inAsk
	if approve {
		in = inApprove
	}
	g := c.fields(n, in, w)
	switch v := g.get("question"); {
	case v != nil:
		a.Question = c.asked(v, w.in("question"))
	case !g.broken:
		c.error(fault{code: "E0111", at: n.at, msg: key + " needs a question"}, w)
	}
	c.answers(g, s, w)
	if v := g.get("assignees"); v != nil {
		x := c.field(v, w.in("assignees"), useField)
		if one, ok := x.Const.(string); ok {
			x.Const = []any{one}
		}
		a.Assignees = &x
	}
	if v := g.get("quorum"); v != nil {
		a.Quorum, _ = c.integer(v, w.in("quorum"), 1)
		if a.Assignees != nil && a.Assignees.Template == nil {
			people := len(a.Assignees.List)
			if names, ok := a.Assignees.Const.([]any); ok {
				people = len(names)
			}
			if a.Quorum > people {
				c.error(fault{code: "E0104", at: v.at, msg: fmt.Sprintf("%d must say the same, but only %d are asked", a.Quorum, people)}, w.in("quorum"))
			}
		}
	}
	if v := g.get("deadline"); v != nil {
		a.Deadline, _ = c.duration(v, w.in("deadline"))
	}
	words := []string{"fail", "default"}
	if approve {
		words = []string{"reject", "approve", "fail"}
	}
	v := g.get("on_timeout")
	if v == nil {
		return
	}
	a.OnTimeout = c.choose(v, w.in("on_timeout"), words...)
	switch {
	case g.get("deadline") == nil:
		c.error(fault{code: "E0111", at: g.pair("on_timeout").key.at, msg: "on_timeout needs a deadline", hint: "as in deadline: 2d"}, w)
	case a.OnTimeout == "default" && g.get("default") == nil:
		c.error(fault{code: "E0111", at: v.at, msg: "on_timeout: default needs a default"}, w)
	}
}

// asked reads a question.
func (c *compiler) asked(n *node, w where) pipeline.Field {
	if n.kind != scalar || n.isNull() {
		c.wrong(n, w, "a text")
		return pipeline.Field{}
	}
	q := c.field(n, w, useField)
	if isConst(&q) {
		q.Const = n.text
	}
	return q
}

// answers reads what may be answered, and the type of it.
func (c *compiler) answers(g *fields, s *step, w where) {
	a := s.def.Ask
	if v := g.get("choices"); v != nil {
		x := c.field(v, w.in("choices"), useField)
		a.Choices = &x
		switch list, isList := x.Const.([]any); {
		case isList && len(list) > 0:
			s.returns = &pipeline.Type{Kind: "enum", Values: list}
		case isConst(&x) && !c.lost(v):
			c.wrong(v, w.in("choices"), "a list of answers")
		}
	}
	if p := g.pair("schema"); p != nil {
		if other := g.pair("choices"); other != nil {
			c.found.error(c.placed(fault{code: "E0112", at: p.key.at, msg: "an answer is one of the choices or of a type, not both"}, w), c.found.related(other.key.off, "the choices"))
		}
		t := c.property("schema", p.value, w.in("schema")).Type
		a.Schema, s.returns = &t, &t
	}
	v := g.get("default")
	if v == nil {
		return
	}
	x := c.field(v, w.in("default"), useField)
	a.Default = &x
	if isConst(&x) && s.returns != nil && !c.lost(v) {
		if _, bad := check(s.returns, x.Const); bad != nil {
			c.error(fault{code: bad.code("E0501"), at: v.at, msg: "the default " + bad.String(), hint: bad.Hint}, w.in("default"))
		}
	}
}
