package spec

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"

	"github.com/orchestrator-project/orchestrator/pipeline"
)

// jump is a place in a step that names the step to go on with.
type jump struct {
	node *node
	path string // of the field
	to   **int  // where the plan says it
}

// routes reads where a step goes on. on_failure is read by onFailure.
func (c *compiler) routes(f *fields, s *step) {
	w := where{step: s}
	r := s.routes()
	said := map[string]*pair{}
	if p := f.pair("on_failure"); p != nil && r.Failure == nil && len(s.jumps) > 0 {
		said["failure"] = p
	}
	add := func(name string, p *pair, n *node, path string, to **int) {
		if other := said[name]; other != nil {
			c.found.error(c.placed(fault{code: "E0102", at: p.key.at, msg: fmt.Sprintf("%s and %s both say where to go on", other.name, p.name)}, w), c.found.related(other.key.off, "first here"))
			return
		}
		said[name] = p
		if id, ok := c.word(n, w.in(path)); ok && id != "" {
			s.jumps = append(s.jumps, jump{n, path, to})
		}
	}
	if p := f.pair("on_success"); p != nil {
		add("success", p, p.value, "on_success", &r.Success)
	}
	if p := f.pair("on_false"); p != nil {
		add("false", p, p.value, "on_false", &r.False)
		if s.def.Condition == nil {
			c.warn(fault{code: "W0702", at: p.key.at, msg: "on_false is never taken: the step has no condition"}, w)
		}
	}
	if n := f.get("on"); n != nil {
		if n.kind != mapping {
			c.error(fault{code: "E0104", at: n.at, msg: "on must be a mapping, not " + n.what(), hint: "as in on: {success: {goto: publish}}"}, w.in("on"))
			return
		}
		g := c.fields(n, inOn, w.in("on"))
		for _, x := range []struct {
			name string
			to   **int
		}{{"success", &r.Success}, {"failure", &r.Failure}, {"always", &r.Always}} {
			p := g.pair(x.name)
			if p == nil {
				continue
			}
			path := "on." + x.name
			if p.value.kind != mapping {
				c.error(fault{code: "E0104", at: p.value.at, msg: fmt.Sprintf("%s must be a mapping, not %s", x.name, p.value.what()), hint: "as in {goto: publish}"}, w.in(path))
				continue
			}
			h := c.fields(p.value, inGoto, w.in(path))
			if to := h.get("goto"); to != nil {
				add(x.name, p, to, path+".goto", x.to)
			} else if !h.broken {
				c.error(fault{code: "E0111", at: p.value.at, msg: "a route needs goto, the id of a step"}, w.in(path))
			}
		}
	}
	if n := f.get("max_visits"); n != nil {
		s.def.MaxVisits, _ = c.integer(n, w.in("max_visits"), 1)
		s.visits = n.at
	}
}

// routes are the step's routes; plan leaves them out where there are none.
func (s *step) routes() *pipeline.Routes {
	if s.def.Routes == nil {
		s.def.Routes = &pipeline.Routes{}
	}
	return s.def.Routes
}

// ruleActions are what a rule can do.
var ruleActions = []string{"retry", "fallback", "switch_model", "goto", "fail"}

// rules reads on_error. doing is what the step does.
func (c *compiler) rules(f *fields, s *step, doing string) {
	n := f.get("on_error")
	if n == nil {
		return
	}
	w := where{s, "on_error"}
	items := []*node{n}
	if n.kind == list {
		items = n.items
	}
	gotos := map[int]*node{}
	for i, item := range items {
		at := w
		if n.kind == list {
			at = w.in("[" + strconv.Itoa(i) + "]")
		}
		if item.kind != mapping {
			c.error(fault{code: "E0104", at: item.at, msg: "a rule is a mapping, not " + item.what(), hint: "as in {match: {category: timeout}, do: retry}"}, at)
			continue
		}
		r, to := c.rule(item, doing, at)
		if !c.asksProgram(f) {
			c.fixedModel(item.get("model"), at.in("model"))
		}
		if to != nil {
			gotos[len(s.def.OnError)] = to
		}
		s.def.OnError = append(s.def.OnError, r)
	}
	for i := range s.def.OnError {
		if to := gotos[i]; to != nil {
			s.jumps = append(s.jumps, jump{to, "on_error[" + strconv.Itoa(i) + "].goto", &s.def.OnError[i].To})
		}
		if r := &s.def.OnError[i]; i+1 < len(s.def.OnError) && r.Category == nil && r.Codes == nil && r.Pattern == "" {
			c.warn(fault{code: "W0702", at: items[min(i+1, len(items)-1)].at, msg: "this rule is never reached: the one before it matches every failure"}, w)
			break
		}
	}
}

func (c *compiler) rule(n *node, doing string, w where) (r pipeline.Rule, to *node) {
	f := c.fields(n, inRule, w)
	r.Pos = c.text.pos(n.off)
	if m := f.get("match"); m != nil {
		c.failure(m, &r, w.in("match"))
	}
	do := f.pair("do")
	if do == nil {
		if !f.broken {
			c.error(fault{code: "E0111", at: n.at, msg: "the rule does not say what to do", hint: "do can be " + quoteList(ruleActions)}, w)
		}
		return r, nil
	}
	r.Do = c.choose(do.value, w.in("do"), ruleActions...)
	belongs := map[string]string{"retry": "retry", "value": "fallback", "model": "switch_model", "goto": "goto"}
	for _, key := range []string{"retry", "value", "model", "goto"} {
		switch p := f.pair(key); {
		case p != nil && r.Do != "" && r.Do != belongs[key]:
			c.error(fault{code: "E0110", at: p.key.at, msg: fmt.Sprintf("%s means nothing here: it belongs to do: %s", key, belongs[key])}, w)
		case p == nil && r.Do == belongs[key] && key != "retry":
			c.error(fault{code: "E0111", at: do.value.at, msg: fmt.Sprintf("do: %s needs %s", r.Do, key)}, w)
		}
	}
	switch r.Do {
	case "retry", "switch_model":
		if !slices.Contains(workDoings, doing) {
			c.error(fault{code: "E0110", at: do.value.at, msg: fmt.Sprintf("do: %s means nothing for %s", r.Do, doing), hint: "give it to the steps within, or use fallback, goto or fail"}, w)
		}
		if v := f.get("retry"); v != nil {
			r.Retry = c.retry(v, w.in("retry"))
		} else if r.Do == "retry" {
			r.Retry = &pipeline.Retry{MaxAttempts: defaultAttempts}
		}
		if v := f.get("model"); v != nil {
			r.Model, _ = c.word(v, w.in("model"))
		}
	case "fallback":
		if v := f.get("value"); v != nil {
			x := c.field(v, w.in("value"), useField)
			r.Value = &x
		}
	case "goto":
		if v := f.get("goto"); v != nil {
			if id, ok := c.word(v, w.in("goto")); ok && id != "" {
				to = v
			}
		}
	}
	return r, to
}

// failure reads which failures a rule is for.
func (c *compiler) failure(n *node, r *pipeline.Rule, w where) {
	if n.kind != mapping {
		c.wrong(n, w, "a mapping")
		return
	}
	f := c.fields(n, inFailure, w)
	names, nodes := c.names(f.get("category"), w.in("category"))
	for i, name := range names {
		if !slices.Contains(failureCategories, name) {
			c.choose(nodes[i], w.in("category"), failureCategories...)
			continue
		}
		r.Category = append(r.Category, name)
	}
	if v := f.get("code"); v != nil {
		items := []*node{v}
		if v.kind == list {
			items = v.items
		}
		for _, item := range items {
			if item.kind != scalar || item.isNull() || templated(item.text) {
				c.wrong(item, w.in("code"), "an exit code, an HTTP status or a reason")
				continue
			}
			r.Codes = append(r.Codes, item.text)
		}
	}
	if v := f.get("pattern"); v != nil {
		pattern, ok := c.word(v, w.in("pattern"))
		if _, err := regexp.Compile(pattern); ok && err != nil {
			c.error(fault{code: "E0104", at: v.at, msg: "pattern is not a regular expression: " + err.Error(), hint: "the syntax is RE2's"}, w.in("pattern"))
		}
		r.Pattern = pattern
	}
}

// failureCategories are those that rules can match: a cancelled step is not
// asked what to do.
var failureCategories = retryCategories

// jumps resolves where the steps of a body go on, and adds the edges of jumps in
// a graph.
func (c *compiler) jumps(b *body, add func(i, on, off int, cause string)) {
	back := make([]bool, len(b.steps)) // steps that a jump leads back to
	var all []leap
	lost := false
	for _, s := range b.steps {
		for i := range s.jumps {
			j := &s.jumps[i]
			t := c.target(s, j)
			if t == nil {
				lost = true
				continue
			}
			to := t.index
			*j.to = &to
			all = append(all, leap{s.index, to, j})
			back[to] = back[to] || to <= s.index
		}
		if r := s.def.Routes; r != nil && *r == (pipeline.Routes{}) {
			s.def.Routes = nil
		}
	}
	for i, s := range b.steps {
		if s.def.MaxVisits > 0 && !back[i] && !lost {
			c.warn(fault{code: "W0702", at: s.visits, msg: "max_visits means nothing: no jump leads back to this step"}, where{s, "max_visits"})
		}
	}
	if b.graph {
		jumpEdges(len(b.steps), all, add)
		return
	}
	if len(all) > 0 && !lost {
		c.endless(b, all)
	}
}

// leap is a resolved jump.
type leap struct {
	from, to int
	*jump
}

// jumpEdges lets every step that a jump may skip, and its target, wait for the
// step that jumps. Where a step is in reach of several, it waits for the last of
// them, which waits for the others itself.
func jumpEdges(n int, all []leap, add func(i, on, off int, cause string)) {
	from := make([][]leap, n)
	for _, l := range all {
		from[l.from] = append(from[l.from], l)
	}
	var open []leap // the jumps that reach on, the last step that jumps on top
	for i := range n {
		for len(open) > 0 && open[len(open)-1].to < i {
			open = open[:len(open)-1]
		}
		if len(open) > 0 {
			l := open[len(open)-1]
			add(i, l.from, l.node.off, causeJump)
		}
		for _, l := range from[i] {
			for k := len(open) - 1; k >= 0 && open[k].to <= l.to && open[k].from == i; k-- {
				open = open[:k] // one of the same step that does not reach as far
			}
			if len(open) == 0 || open[len(open)-1].from != i {
				open = append(open, l)
			}
		}
	}
}

// target finds the step that a jump names; nil after an error.
func (c *compiler) target(s *step, j *jump) *step {
	b, id := s.body, j.node.text
	w := where{s, j.path}
	t := b.byID[id]
	switch {
	case t == nil:
		c.noTarget(s, j, w)
		return nil
	case b.apart != "":
		c.error(fault{code: "E0407", at: j.node.at, msg: fmt.Sprintf("steps of %s run at the same time; none goes on with another", b.apart)}, w)
		return nil
	case b.graph && t.index <= s.index:
		c.found.error(c.placed(fault{
			code: "E0405", at: j.node.at, msg: fmt.Sprintf("%s stands before this step, and the steps here are a graph, in which nothing runs twice", id),
			hint: "repeat with while or repeat, or write order: sequence",
		}, w), c.found.related(t.at.off, "%s is here", id))
		return nil
	case t.index <= s.index && t.def.MaxVisits == 0 && c.plan.Settings.MaxTransitions == 0:
		c.found.error(c.placed(fault{
			code: "E0406", at: j.node.at, msg: fmt.Sprintf("this jump back to %s has no bound", id),
			hint: fmt.Sprintf("give %s max_visits, or the settings max_transitions", id),
		}, w), c.found.related(t.at.off, "%s is here", id))
		return nil
	}
	return t
}

func (c *compiler) noTarget(s *step, j *jump, w where) {
	id := j.node.text
	if others := c.steps[id]; len(others) > 0 {
		x := fault{code: "E0407", at: j.node.at, msg: fmt.Sprintf("the step %s stands in another list: a jump stays in its own", id)}
		if p := s.parent(); p != nil && p.def.ID != "" {
			x.hint = fmt.Sprintf("a route of %s itself goes on from the end of the block", p.def.ID)
		}
		c.found.error(c.placed(x, w), c.found.related(others[0].at.off, "%s is here", id))
		return
	}
	x := fault{code: "E0404", at: j.node.at, msg: fmt.Sprintf("there is no step %q to go on with", id)}
	names := make([]string, 0, len(s.body.byID)+4)
	for k := range s.body.byID {
		names = append(names, k)
	}
	if j.path == "on_failure" {
		names = append(names, failureWords...)
	}
	if like := c.suggest(id, names); like != "" {
		x.msg += fmt.Sprintf(" (did you mean %q?)", like)
	}
	c.error(x, w)
}

// endless reports a sequence whose end cannot be reached, as every way comes to
// a jump back, and warns about steps that no way comes to.
func (c *compiler) endless(b *body, all []leap) {
	n := len(b.steps)
	next := make([][]int, n)
	for i, s := range b.steps {
		next[i] = s.successors(i)
	}
	reached := make([]bool, n+1)
	queue := []int{0}
	reached[0] = true
	for len(queue) > 0 {
		i := queue[len(queue)-1]
		queue = queue[:len(queue)-1]
		if i == n {
			continue
		}
		for _, k := range next[i] {
			if !reached[k] {
				reached[k] = true
				queue = append(queue, k)
			}
		}
	}
	if reached[n] {
		for i, s := range b.steps {
			if !reached[i] && reached[max(i-1, 0)] {
				c.warn(fault{code: "W0701", at: s.at, msg: fmt.Sprintf("the step %s never runs: every way jumps over it", s.def.ID)}, where{step: s})
			}
		}
		return
	}
	for _, l := range slices.Backward(all) {
		if l.to <= l.from && reached[l.from] {
			s := b.steps[l.from]
			c.error(fault{
				code: "E0409", at: l.node.at, msg: "nothing leads out of this loop: it could only fail when its visits are used up",
				hint: "jump back under a condition, as with on_failure, on_false or a step in between that goes on elsewhere",
			}, where{s, l.path})
			return
		}
	}
}

// successors are the steps, by index, that may run after the step at index i of
// its body; one behind the last is the end. A failure that nothing handles has
// none.
func (s *step) successors(i int) []int {
	var out []int
	r := s.def.Routes
	if r == nil {
		r = &pipeline.Routes{}
	}
	route := func(to, other *int) {
		switch {
		case to != nil:
			out = append(out, *to)
		case other != nil:
			out = append(out, *other)
		default:
			out = append(out, i+1)
		}
	}
	route(r.Success, r.Always)
	if s.def.Condition != nil {
		route(r.False, r.Always)
	}
	if r.Failure != nil || r.Always != nil || s.def.OnFailure == "continue" || s.def.OnFailure == "skip" {
		route(r.Failure, r.Always)
	}
	for k := range s.def.OnError {
		switch rule := &s.def.OnError[k]; {
		case rule.To != nil:
			out = append(out, *rule.To)
		case rule.Do == "fallback":
			route(nil, r.Always)
		}
	}
	return out
}
