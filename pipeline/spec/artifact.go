package spec

import (
	"fmt"
	"slices"
	"strings"

	"github.com/orchestrator-project/orchestrator/pipeline"
)

// artifact is a declared artifact.
type artifact struct {
	kind      pipeline.Type
	at        span
	producers []*step // in the order of the file
}

// declareArtifacts reads the artifacts block.
func (c *compiler) declareArtifacts(n *node) {
	c.artifacts = map[string]*artifact{}
	if n == nil || n.isNull() {
		return
	}
	w := where{path: "artifacts"}
	if n.kind != mapping {
		c.wrong(n, w, "a mapping from names to types")
		return
	}
	for i := range n.pairs {
		p := &n.pairs[i]
		if !c.goodName(p.key, p.name, "an artifact's name", w) {
			continue
		}
		t := c.property(p.name, p.value, w.in(p.name)).Type
		c.artifacts[p.name] = &artifact{kind: t, at: p.key.at}
		c.plan.Artifacts = append(c.plan.Artifacts, pipeline.Artifact{Name: p.name, Type: t, Pos: c.text.pos(p.key.off)})
	}
}

// each calls f for a mapping, or for each of a list of them.
func (c *compiler) each(n *node, in place, w where, f func(*fields, where)) {
	items := []*node{n}
	if n.kind == list {
		items = n.items
	}
	for i, item := range items {
		at := w
		if n.kind == list {
			at = w.in(fmt.Sprintf("[%d]", i))
		}
		if item.kind != mapping {
			c.wrong(item, at, "a mapping with artifact")
			continue
		}
		f(c.fields(item, in, at), at)
	}
}

// artifactNamed reads the name of a declared artifact.
func (c *compiler) artifactNamed(f *fields, w where) (string, *node) {
	n := f.get("artifact")
	if n == nil {
		if !f.broken {
			c.error(fault{code: "E0111", at: f.node.at, msg: lastName(w.path) + " names no artifact"}, w)
		}
		return "", nil
	}
	name, ok := c.word(n, w.in("artifact"))
	if !ok {
		return "", nil
	}
	if c.artifacts[name] != nil {
		return name, n
	}
	x := fault{code: "E0506", at: n.at, msg: fmt.Sprintf("no artifact named %q is declared", name), hint: "declare it with its type in the pipeline's artifacts"}
	names := make([]string, 0, len(c.artifacts))
	for k := range c.artifacts {
		names = append(names, k)
	}
	if like := c.suggest(name, names); like != "" {
		x.msg, x.hint = x.msg+fmt.Sprintf(" (did you mean %q?)", like), ""
	}
	c.error(x, w.in("artifact"))
	return "", nil
}

// publish reads which artifacts a step makes versions of.
func (c *compiler) publish(n *node, s *step) {
	c.each(n, inPublish, where{s, "publish"}, func(f *fields, w where) {
		name, at := c.artifactNamed(f, w)
		from := f.get("from")
		if from == nil {
			c.error(fault{code: "E0111", at: f.node.at, msg: "publish needs from, a field of the result"}, w)
			return
		}
		field, ok := c.word(from, w.in("from"))
		if name == "" || !ok {
			return
		}
		if slices.ContainsFunc(s.def.Publish, func(p pipeline.Publish) bool { return p.Artifact == name }) {
			c.error(fault{code: "E0507", at: at.at, msg: fmt.Sprintf("this step publishes %s twice", name)}, w.in("artifact"))
			return
		}
		c.publishable(from, field, s, name, w.in("from"))
		s.def.Publish = append(s.def.Publish, pipeline.Publish{Artifact: name, From: field, Pos: c.text.pos(at.off)})
		c.artifacts[name].producers = append(c.artifacts[name].producers, s)
	})
}

// publishable checks the field of the result that is published.
func (c *compiler) publishable(n *node, field string, s *step, name string, w where) {
	t := s.returns
	for part := range strings.SplitSeq(field, ".") {
		if t == nil || !closed(t) {
			return
		}
		p := property(t, part)
		if p == nil && t.Kind == "union" {
			for i := range t.Cases {
				if p == nil {
					p = caseField(&t.Cases[i], part)
				}
			}
		}
		if p == nil {
			x := fault{code: "E0506", at: n.at, msg: fmt.Sprintf("the result has no field %q", field)}
			var names []string
			for i := range t.Properties {
				names = append(names, t.Properties[i].Name)
			}
			if len(names) > 0 {
				x.hint = "it has " + quoteList(names)
			} else {
				x.hint = "declare it in returns"
			}
			c.error(x, w)
			return
		}
		t = &p.Type
	}
	if want := &c.artifacts[name].kind; t.Kind != "any" && want.Kind != "any" && t.Kind != want.Kind {
		c.error(fault{code: "E0503", at: n.at, msg: fmt.Sprintf("%s is %s, but the artifact %s is %s", field, typeText(t), name, typeText(want))}, w)
	}
}

// consume reads which artifacts a step is handed.
func (c *compiler) consume(n *node, s *step) {
	c.each(n, inConsume, where{s, "consume"}, func(f *fields, w where) {
		name, at := c.artifactNamed(f, w)
		x := pipeline.Consume{Artifact: name}
		var from []*node
		x.From, from = c.names(f.get("from"), w.in("from"))
		x.Fresh = c.oneOf(f.get("fresh"), w.in("fresh"), "any", "new")
		x.As = c.oneOf(f.get("as"), w.in("as"), "reference", "content", "none")
		if name == "" {
			return
		}
		if slices.ContainsFunc(s.def.Consume, func(y pipeline.Consume) bool { return y.Artifact == name }) {
			c.error(fault{code: "E0507", at: at.at, msg: fmt.Sprintf("this step consumes %s twice", name)}, w.in("artifact"))
			return
		}
		x.Pos = c.text.pos(at.off)
		s.def.Consume = append(s.def.Consume, x)
		c.consumers = append(c.consumers, consumer{s, name, at, from, w})
	})
}

// consumer is a step that is handed an artifact.
type consumer struct {
	step *step
	name string
	at   *node
	from []*node
	w    where
}

// lineage finds the producers of what steps consume: a consumer waits for those
// that stand before it in its list, or else for all.
func (c *compiler) lineage() {
	for _, x := range c.consumers {
		producers := c.artifacts[x.name].producers
		for _, n := range x.from {
			if slices.ContainsFunc(producers, func(p *step) bool { return p.def.ID == n.text }) {
				continue
			}
			f := fault{code: "E0506", at: n.at, msg: fmt.Sprintf("no step %q publishes %s", n.text, x.name)}
			var ids []string
			for _, p := range producers {
				ids = append(ids, p.def.ID)
			}
			if like := c.suggest(n.text, ids); like != "" {
				f.msg += fmt.Sprintf(" (did you mean %q?)", like)
			} else if len(ids) > 0 {
				f.hint = "it is published by " + quoteList(ids)
			}
			c.error(f, x.w.in("from"))
		}
		if len(x.from) > 0 {
			producers = slices.DeleteFunc(slices.Clone(producers), func(p *step) bool {
				return !slices.ContainsFunc(x.from, func(n *node) bool { return n.text == p.def.ID })
			})
		}
		others := slices.DeleteFunc(slices.Clone(producers), func(p *step) bool { return p == x.step })
		if len(others) == 0 {
			if len(x.from) == 0 || len(producers) > 0 {
				c.error(fault{code: "E0506", at: x.at.at, msg: fmt.Sprintf("no other step publishes %s", x.name), hint: "publish: [{artifact: " + x.name + ", from: FIELD}] in the step that makes it"}, x.w.in("artifact"))
			}
			continue
		}
		c.awaitProducers(x, others)
	}
}

func (c *compiler) awaitProducers(x consumer, producers []*step) {
	type pair struct{ from, on *step }
	var before, after []pair
	for _, p := range producers {
		a, b := meeting(x.step, p)
		switch {
		case a == nil || a == b || !a.body.graph:
		case b.index < a.index:
			before = append(before, pair{a, b})
		default:
			after = append(after, pair{a, b})
		}
	}
	if len(before) == 0 {
		before = after
	}
	for _, p := range before {
		p.from.inflow = append(p.from.inflow, edge{p.on.index, x.at.at.off})
	}
}

// meeting finds the steps of one list that two steps are, or stand in.
func meeting(a, b *step) (x, y *step) {
	for x = a; x != nil; x = x.parent() {
		for y = b; y != nil; y = y.parent() {
			if x.body == y.body {
				return x, y
			}
		}
	}
	return nil, nil
}
