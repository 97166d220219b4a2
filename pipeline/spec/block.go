package spec

import (
	"fmt"

	"github.com/orchestrator-project/orchestrator/pipeline"
)

// maxIterations bounds what max_iterations may say.
const maxIterations = 1_000_000

// bodyOf reads the steps of a block.
func (c *compiler) bodyOf(f *fields, s *step, n *node, path string, b *body) {
	b.graph = c.blockGraph(f, s)
	s.bodies = append(s.bodies, b)
	c.stepList(n, s, where{s, path}, b)
}

// blockGraph reports whether the block's steps are a graph.
func (c *compiler) blockGraph(f *fields, s *step) bool {
	return c.oneOf(f.get("order"), where{s, "order"}, "sequence", "graph") == "graph"
}

// forEach reads a loop over items. single is the one doing of its passes, or
// empty where the passes have steps.
func (c *compiler) forEach(f *fields, s *step, single string) {
	d := s.def
	d.Kind = pipeline.KindFor
	d.Loop = &pipeline.Loop{Variable: "item"}
	w := where{s, "for"}
	n := f.get("for")
	if n.kind != mapping {
		c.error(fault{code: "E0104", at: n.at, msg: "for must be a mapping, not " + n.what(), hint: `as in for: {items: "{{ files }}", variable: file}`}, w)
		return
	}
	g := c.fields(n, inFor, w)
	l := d.Loop
	c.items(g, l, w)
	c.loopVariable(g, s, w)
	if v := g.get("parallel"); v != nil {
		switch x := mustPlain(v.text).(type) {
		case bool:
			if v.kind == scalar && x {
				l.Parallel = -1
			}
		default:
			l.Parallel, _ = c.integer(v, w.in("parallel"), 1)
		}
	}
	l.OnItemError = c.oneOf(g.get("on_item_error"), w.in("on_item_error"), "fail", "continue")
	if v := g.get("collect"); v != nil {
		l.Collect = c.expression(v, w.in("collect"))
	}
	d.Effect = pipeline.EffectPure
	if single == "" {
		c.rules(f, s, "for")
	}
	steps := f.get("steps")
	switch {
	case single != "" && steps != nil:
		c.error(fault{code: "E0112", at: f.pair("steps").key.at, msg: fmt.Sprintf("a loop repeats either steps or one %s, not both", single)}, where{step: s})
	case single != "":
		c.singleBody(f, s, single)
	case steps == nil:
		c.error(fault{code: "E0112", at: f.pair("for").key.at, msg: "nothing is repeated", hint: "give the loop steps, or one of " + quoteList(singleDoings)}, where{step: s})
	default:
		c.bodyOf(f, s, steps, "steps", &body{loop: true})
		c.needSteps(s, steps)
	}
}

// loopVariable reads what the body of a loop calls its item.
func (c *compiler) loopVariable(g *fields, s *step, w where) {
	v := g.get("variable")
	if v == nil {
		return
	}
	name, ok := c.word(v, w.in("variable"))
	if ok && (name == "item" || c.goodName(v, name, "a loop's variable", w.in("variable"))) {
		s.def.Loop.Variable = name
		s.variable = v.at
	}
}

func (c *compiler) needSteps(s *step, n *node) {
	if n.kind == list && len(n.items) == 0 || n.isNull() {
		c.error(fault{code: "E0112", at: n.at, msg: "a loop needs at least one step"}, where{s, "steps"})
	}
}

// items reads what the loop goes over.
func (c *compiler) items(g *fields, l *pipeline.Loop, w where) {
	n := g.get("items")
	if n == nil && g.broken {
		return
	}
	if n == nil {
		c.error(fault{code: "E0111", at: g.node.at, msg: lastName(w.path) + " needs items", hint: `a list, or an expression that gives one: items: "{{ files }}"`}, w)
		return
	}
	items := c.field(n, w.in("items"), useField)
	c.expect(items.Template, &pipeline.Type{Kind: "list"})
	if _, isList := items.Const.([]any); items.Template == nil && items.List == nil && !isList && !c.lost(n) {
		x := fault{code: "E0104", at: n.at, msg: "items must be a list, or an expression that gives one, not " + n.what()}
		if n.kind == scalar && !templated(n.text) && stepID(n.text) {
			x.hint = fmt.Sprintf(`an expression stands in braces: "{{ %s }}"`, n.text)
		}
		c.error(x, w.in("items"))
	}
	l.Items = &items
}

// lost reports whether n holds a template that did not compile, which was
// reported already.
func (c *compiler) lost(n *node) bool {
	return n.kind == scalar && (templated(n.text) || tagged(n.text))
}

// singleBody makes the body of a loop that repeats one doing: a step without an
// id, which takes all that concerns the doing itself.
func (c *compiler) singleBody(f *fields, s *step, doing string) {
	b := &body{owner: s, loop: true, byID: map[string]*step{}}
	inner := &step{def: &pipeline.StepDef{Pos: c.text.pos(f.pair(doing).key.off)}, body: b, at: f.pair(doing).key.at}
	b.steps = []*step{inner}
	s.bodies = append(s.bodies, b)
	s.def.Loop.Single = true
	c.do(f, inner, doing)
}

// maxIterations reads how many passes a loop may have at most.
func (c *compiler) maxIterations(f, g *fields, s *step, key string) {
	w := where{s, key}
	v := g.get("max_iterations")
	if v == nil {
		if !g.broken {
			c.error(fault{code: "E0408", at: f.pair(key).key.at, msg: key + " needs max_iterations", hint: "how many passes there may be at most, as in max_iterations: 10"}, w)
		}
		return
	}
	x, _ := mustPlain(v.text).(int64)
	if v.kind != scalar || x < 1 || x > maxIterations {
		c.error(fault{code: "E0408", at: v.at, msg: fmt.Sprintf("max_iterations must be a whole number from 1 to %d", maxIterations)}, w.in("max_iterations"))
	}
	s.def.Loop.Max = int(x)
}

// constantCondition reports what a condition is, where it cannot be anything else.
func constantCondition(t *pipeline.Template) (value, known bool) {
	if t == nil {
		return false, false
	}
	value, known = mustPlain(bare(t.Src)).(bool)
	return value, known
}

// while reads a loop under a condition.
func (c *compiler) while(f *fields, s *step) {
	d := s.def
	d.Kind = pipeline.KindWhile
	d.Loop = &pipeline.Loop{}
	w := where{s, "while"}
	n := f.get("while")
	if n.kind != mapping {
		c.error(fault{code: "E0104", at: n.at, msg: "while must be a mapping, not " + n.what(), hint: `as in while: {condition: "{{ not done }}", max_iterations: 5}`}, w)
		return
	}
	g := c.fields(n, inWhile, w)
	if v := g.get("condition"); v != nil {
		d.Loop.Condition = c.condition(v, w.in("condition"), useTest)
	} else {
		c.error(fault{code: "E0111", at: n.at, msg: "while needs a condition"}, w)
	}
	c.maxIterations(f, g, s, "while")
	if always, known := constantCondition(d.Loop.Condition); known {
		x := fault{code: "W0702", at: g.get("condition").at, msg: "this condition is always true: only max_iterations ends the loop"}
		if !always {
			x.msg = "this condition is never true: the loop does nothing"
		}
		c.warn(x, w.in("condition"))
	}
	if v := g.get("collect"); v != nil {
		d.Loop.Collect = c.expression(v, w.in("collect"))
	}
	d.Effect = pipeline.EffectPure
	steps := f.get("steps")
	if steps == nil {
		c.error(fault{code: "E0111", at: f.pair("while").key.at, msg: "while needs steps"}, where{step: s})
		return
	}
	c.bodyOf(f, s, steps, "steps", &body{loop: true})
	c.needSteps(s, steps)
}

// repeat reads a loop that is tested after each pass.
func (c *compiler) repeat(f *fields, s *step) {
	d := s.def
	d.Kind, d.Effect = pipeline.KindRepeat, pipeline.EffectPure
	d.Loop = &pipeline.Loop{}
	w := where{s, "repeat"}
	n := f.get("repeat")
	if n.kind != mapping {
		c.error(fault{code: "E0104", at: n.at, msg: "repeat must be a mapping, not " + n.what(), hint: `as in repeat: {until: "{{ ok }}", max_iterations: 5}`}, w)
		return
	}
	g := c.fields(n, inRepeat, w)
	if v := g.get("until"); v != nil {
		d.Loop.Until = c.condition(v, w.in("until"), useCollect)
	} else if !g.broken {
		c.error(fault{code: "E0111", at: n.at, msg: "repeat needs until, a condition"}, w)
	}
	c.maxIterations(f, g, s, "repeat")
	if v := g.get("collect"); v != nil {
		d.Loop.Collect = c.expression(v, w.in("collect"))
	}
	if v := g.get("on_exhausted"); v != nil {
		switch {
		case v.kind == mapping:
			d.Loop.OnExhausted = "outputs"
			d.Loop.Exhausted = c.entries(v, w.in("on_exhausted"), useExhausted)
			s.returns = &pipeline.Type{Kind: "any"}
		case v.kind == list:
			c.wrong(v, w.in("on_exhausted"), "fail, continue, or a mapping of outputs")
		default:
			d.Loop.OnExhausted = c.oneOf(v, w.in("on_exhausted"), "fail", "continue")
		}
	}
	if until, known := constantCondition(d.Loop.Until); known {
		x := fault{code: "W0702", at: g.get("until").at, msg: "this condition is always true: there is one pass"}
		switch {
		case !until && d.Loop.OnExhausted == "":
			x.code, x.msg, x.hint = "E0409", "this condition is never true: the loop could only fail at max_iterations", "on_exhausted: continue makes a loop of that many passes"
			c.error(x, w.in("until"))
		case !until:
			x.msg = "this condition is never true: only max_iterations ends the loop"
			c.warn(x, w.in("until"))
		default:
			c.warn(x, w.in("until"))
		}
	}
	steps := f.get("steps")
	if steps == nil {
		c.error(fault{code: "E0111", at: f.pair("repeat").key.at, msg: "repeat needs steps"}, where{step: s})
		return
	}
	c.bodyOf(f, s, steps, "steps", &body{loop: true})
	c.needSteps(s, steps)
}

// queue reads a list of items that is worked off.
func (c *compiler) queue(f *fields, s *step) {
	d := s.def
	d.Kind, d.Effect = pipeline.KindQueue, pipeline.EffectPure
	d.Loop = &pipeline.Loop{Variable: "item"}
	w := where{s, "queue"}
	n := f.get("queue")
	if n.kind != mapping {
		c.error(fault{code: "E0104", at: n.at, msg: "queue must be a mapping, not " + n.what(), hint: `as in queue: {items: "{{ files }}", max_parallel: 4, steps: [...]}`}, w)
		return
	}
	g := c.fields(n, inQueue, w)
	c.items(g, d.Loop, w)
	c.loopVariable(g, s, w)
	if v := g.get("max_parallel"); v != nil {
		d.Loop.Parallel, _ = c.integer(v, w.in("max_parallel"), 1)
	}
	if v := g.get("until"); v != nil {
		d.Loop.Until = c.condition(v, w.in("until"), useCollect)
	}
	if v := g.get("collect"); v != nil {
		d.Loop.Collect = c.expression(v, w.in("collect"))
	}
	steps := g.get("steps")
	if steps == nil {
		if !g.broken {
			c.error(fault{code: "E0111", at: n.at, msg: "queue needs steps"}, w)
		}
		return
	}
	c.bodyOf(f, s, steps, "queue.steps", &body{loop: true})
	c.needSteps(s, steps)
}

// choice reads if, elif and else.
func (c *compiler) choice(f *fields, s *step) {
	s.def.Kind = pipeline.KindIf
	c.arm(f, s, f.get("if"), inIf, "if")
	if n := f.get("elif"); n != nil {
		items := []*node{n}
		if n.kind == list {
			items = n.items
		}
		for i, item := range items {
			c.arm(f, s, item, inElif, fmt.Sprintf("elif[%d]", i))
		}
	}
	if n := f.get("else"); n != nil {
		s.def.Branches = append(s.def.Branches, pipeline.Branch{})
		c.bodyOf(f, s, n, "else", &body{})
	}
	s.def.Effect = pipeline.EffectPure
}

// arm reads a condition with its steps.
func (c *compiler) arm(f *fields, s *step, n *node, in place, path string) {
	w := where{s, path}
	if n.kind != mapping {
		c.error(fault{code: "E0104", at: n.at, msg: fmt.Sprintf("%s must be a mapping, not %s", in, n.what()), hint: "with a condition and then"}, w)
		return
	}
	g := c.fields(n, in, w)
	branch := pipeline.Branch{}
	if v := g.get("condition"); v != nil {
		branch.Condition = c.condition(v, w.in("condition"), useField)
	} else {
		c.error(fault{code: "E0111", at: n.at, msg: fmt.Sprintf("%s needs a condition", in)}, w)
	}
	then := g.get("then")
	if then == nil {
		c.error(fault{code: "E0111", at: n.at, msg: fmt.Sprintf("%s needs then, a list of steps", in)}, w)
		then = &node{kind: list, off: n.off, at: n.at}
	}
	s.def.Branches = append(s.def.Branches, branch)
	c.bodyOf(f, s, then, path+".then", &body{})
}
