package spec

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/orchestrator-project/orchestrator/pipeline"
	"github.com/orchestrator-project/orchestrator/pipeline/expr"
)

// commandTimeout is how long an attempt of a command may take by default.
const commandTimeout = 300 * time.Second

// builtinNames are what expressions can name without anyone defining it; they
// can be nothing else.
var builtinNames = []string{
	"inputs", "steps", "vars", "run", "pipeline", "env", "secrets", "item", "index", "position", "loop_iteration", "state",
}

// operators are the words of expressions. A step may be called so, and is named
// by steps.in then.
var operators = []string{"true", "false", "none", "null", "True", "False", "None", "and", "or", "not", "in", "is", "if", "else"}

// reservedIDs can be no step's id.
var reservedIDs = append([]string{"fail", "continue", "skip", "retry", "true", "false", "none", "null"}, builtinNames...)

func stepID(s string) bool {
	for i := range len(s) {
		b := s[i]
		letter := b >= 'a' && b <= 'z' || b >= 'A' && b <= 'Z'
		if !letter && (i == 0 || b != '_' && b != '-' && (b < '0' || b > '9')) {
			return false
		}
	}
	return s != "" && len(s) <= 100
}

// stepList reads a list of steps into b.
func (c *compiler) stepList(n *node, owner *step, w where, b *body) *body {
	b.owner = owner
	b.byID = map[string]*step{}
	if n.isNull() {
		n = &node{kind: list, off: n.off, at: n.at}
	}
	if n.kind != list {
		if !c.fixed(n, w) {
			c.error(fault{code: "E0104", at: n.at, msg: fmt.Sprintf("%s must be a list of steps, not %s", lastName(w.path), n.what()), hint: "each step of a list begins with - id: and its name"}, w)
		}
		return b
	}
	b.steps = make([]*step, 0, len(n.items))
	for i, item := range n.items {
		if item.kind != mapping {
			c.error(fault{code: "E0104", at: item.at, msg: "a step is a mapping with an id, not " + item.what()}, w)
			continue
		}
		s := &step{def: &pipeline.StepDef{Pos: c.text.pos(item.off)}, body: b, index: len(b.steps), at: span{item.off, item.at.end}}
		b.steps = append(b.steps, s)
		f := c.fieldsOfStep(item, s, i, w)
		c.step(f, s)
	}
	return b
}

// fieldsOfStep finds out the step's id first, so that messages can name it.
func (c *compiler) fieldsOfStep(item *node, s *step, i int, w where) *fields {
	n := item.get("id")
	if n == nil {
		c.error(fault{code: "E0111", at: s.at, msg: fmt.Sprintf("step %d has no id", i+1), hint: "an id is a name for other steps, as in id: fetch"}, where{w.step, w.path + "[" + strconv.Itoa(i) + "]"})
		return c.fields(item, inStep, where{step: s})
	}
	s.id, s.at = n, n.at
	switch id := n.text; {
	case n.kind != scalar || !stepID(id):
		c.error(fault{code: "E0113", at: n.at, msg: fmt.Sprintf("%s cannot be a step's id", idText(n)), hint: "letters, digits, _ and -, beginning with a letter"}, where{w.step, w.path + "[" + strconv.Itoa(i) + "].id"})
	case slices.Contains(reservedIDs, id):
		c.error(fault{code: "E0115", at: n.at, msg: fmt.Sprintf("%s is a word of the language and cannot be a step's id", id)}, where{w.step, w.path + "[" + strconv.Itoa(i) + "].id"})
	default:
		s.def.ID = id
		if first := s.body.byID[id]; first != nil {
			c.found.error(c.placed(fault{code: "E0114", at: n.at, msg: fmt.Sprintf("there are two steps %q here", id)}, where{s, "id"}), c.found.related(first.at.off, "first here"))
			break
		}
		s.body.byID[id] = s
		c.steps[id] = append(c.steps[id], s)
	}
	return c.fields(item, inStep, where{step: s})
}

func idText(n *node) string {
	if n.kind != scalar {
		return n.what()
	}
	return strconv.Quote(n.text)
}

// step reads one step.
func (c *compiler) step(f *fields, s *step) {
	w := where{step: s}
	d := s.def
	d.Name = c.inert(f.get("name"), w.in("name"))
	d.Description = c.inert(f.get("description"), w.in("description"))
	if n := f.get("metadata"); n != nil {
		c.inertValue(n, w.in("metadata"))
	}
	_, s.declared = c.names(f.get("dependencies"), w.in("dependencies"))
	if n := f.get("condition"); n != nil {
		d.Condition = c.condition(n, w.in("condition"), useField)
	}
	if p := f.pair("if"); p != nil && p.value.kind == scalar {
		if cond := f.pair("condition"); cond != nil {
			c.found.error(c.placed(fault{code: "E0102", at: p.key.at, msg: "if with a text is the same as condition, which stands here too"}, w), c.found.related(cond.key.off, "first here"))
		} else {
			d.Condition = c.condition(p.value, w.in("if"), useField)
		}
	}
	doings := c.doings(f)
	c.onFailure(f, s, doings)
	c.routes(f, s)
	d.Critical = c.boolean(f.get("critical"), w.in("critical"))
	c.doing(f, s, doings)
	if n := f.get("state"); n != nil {
		s.def.State = c.assignments(n, s, "state", useState)
	}
	if d.Effect == pipeline.EffectPure && f.get("effect") == nil && s.impure() {
		d.Effect = pipeline.EffectIdempotent
	}
}

// doings are the keys that say what the step does.
func (c *compiler) doings(f *fields) []string {
	var names []string
	for i := range f.list {
		k := &f.list[i]
		if k.in&inDoing != 0 && !(k.name == "if" && k.pair.value.kind == scalar) {
			names = append(names, k.name)
		}
	}
	return names
}

// workDoings are the doings that run on the worker pool.
var workDoings = []string{"action", "skill", "command", "run", "agent"}

// singleDoings are what for can repeat without a list of steps.
var singleDoings = append(slices.Clone(workDoings), "call", "pipeline", "set", "assert", "wait", "ask", "approve", "if", "match", "parallel", "compete")

// doing reads what the step does.
func (c *compiler) doing(f *fields, s *step, doings []string) {
	w := where{step: s}
	single := len(doings) == 2 && slices.Contains(doings, "for") && slices.ContainsFunc(doings, func(d string) bool { return slices.Contains(singleDoings, d) })
	switch {
	case len(doings) == 1:
		c.only(f, s, doings[0])
		c.do(f, s, doings[0])
	case single:
		c.only(f, s, doings...)
		c.forEach(f, s, doings[1-slices.Index(doings, "for")])
	case len(doings) > 1:
		p := f.pair(doings[1])
		c.found.error(c.placed(fault{code: "E0112", at: p.key.at, msg: fmt.Sprintf("a step does one thing, not %s", strings.Join(doings, " and "))}, w), c.found.related(f.pair(doings[0]).key.off, "it does this already"))
	case f.get("state") != nil:
		s.def.Kind, s.def.Effect = pipeline.KindSet, pipeline.EffectPure
		c.only(f, s, "set")
		c.rules(f, s, "set")
	case !f.broken: // what is missing may be the key that was reported
		c.error(fault{code: "E0112", at: s.at, msg: "this step does nothing", hint: "give it one of " + quoteList(doingKeys())}, w)
	}
}

// doingKeys lists what a step can do.
func doingKeys() []string {
	var names []string
	for i := range keys {
		if keys[i].in&inDoing != 0 {
			names = append(names, keys[i].name)
		}
	}
	return names
}

// do reads one doing into the step.
func (c *compiler) do(f *fields, s *step, doing string) {
	if doing != "for" {
		c.rules(f, s, doing)
	}
	switch doing {
	case "for":
		c.forEach(f, s, "")
	case "while":
		c.while(f, s)
	case "repeat":
		c.repeat(f, s)
	case "queue":
		c.queue(f, s)
	case "if":
		c.choice(f, s)
	case "match":
		c.match(f, s)
	case "parallel":
		c.parallel(f, s)
	case "compete":
		c.compete(f, s)
	case "call", "pipeline":
		c.call(f, s, doing)
	case "assert":
		c.assertion(f, s)
	case "wait":
		c.wait(f, s)
	case "ask", "approve":
		c.ask(f, s, doing)
	default:
		c.leaf(f, s, doing)
	}
	if d := s.def; s.body.loop && d.ID == "" && d.Effect == pipeline.EffectPure && f.get("effect") == nil && s.impure() {
		d.Effect = pipeline.EffectIdempotent // the inner step of a loop ends here
	}
}

// suits says which keys belong to which doing; keys that are not named here
// belong to all.
var suits = map[string][]string{
	"parameters":     {"action", "skill", "call", "pipeline"},
	"tool":           {"action"},
	"env":            {"command", "run", "skill", "agent"},
	"secrets":        {"command", "run", "skill", "agent"},
	"capture":        {"command", "run"},
	"prompt":         {"action", "agent"},
	"prompt_file":    {"action", "agent"},
	"model":          {"action", "agent"},
	"session":        {"agent"},
	"requires_model": {"action", "agent"},
	"returns":        workDoings,
	"publish":        workDoings,
	"artifacts":      workDoings,
	"consume":        workDoings,
	"files":          {"action", "skill", "agent"},
	"effect":         workDoings,
	"timeout":        append(slices.Clone(workDoings), "wait"),
	"retry":          workDoings,
	"max_retries":    workDoings,
	"cache":          workDoings,
	"worker":         workDoings,
	"resources":      workDoings,
	"sandbox":        workDoings,
	"steps":          {"for", "while", "repeat"},
	"order":          {"for", "while", "repeat", "queue", "if", "match"},
	"elif":           {"if"},
	"else":           {"if"},
	"detach":         {"call", "pipeline"},
}

// only refuses keys that mean nothing for any of the doings.
func (c *compiler) only(f *fields, s *step, doings ...string) {
	for i := range f.list {
		k := &f.list[i]
		of, limited := suits[k.name]
		if !limited || slices.ContainsFunc(doings, func(d string) bool { return slices.Contains(of, d) }) {
			continue
		}
		x := fault{code: "E0110", at: k.pair.key.at, msg: fmt.Sprintf("%s means nothing here: it belongs to %s", k.pair.name, strings.Join(of, ", "))}
		if k.name == "timeout" || k.name == "retry" || k.name == "max_retries" {
			switch {
			case doings[0] == "ask" || doings[0] == "approve":
				x.hint = "how long people may take is said by deadline"
			case doings[0] == "call":
				x.hint = "give it to the steps of the called pipeline"
			case !slices.Contains([]string{"set", "assert", "wait"}, doings[0]):
				x.hint = "give it to the steps within"
			}
		}
		c.error(x, where{step: s})
	}
}

// leaf reads an action, command, set or other work into the step.
func (c *compiler) leaf(f *fields, s *step, kind string) {
	w := where{step: s}
	d := s.def
	c.repetition(f, s)
	c.surroundings(f, s)
	if n := f.get("timeout"); n != nil {
		d.Timeout, _ = c.duration(n, w.in("timeout"))
	}
	effect := c.choose(f.get("effect"), w.in("effect"), "pure", "idempotent", "at_least_once", "at_most_once")
	switch kind {
	case "action":
		d.Kind = pipeline.KindAction
		if c.modelAction(f, s) {
			break
		}
		a := c.action(f, w)
		s.spec = a
		d.Parameters = c.parameters(a, f.get("parameters"), f.get("action"), w, askedBy(f)...)
		if a == nil {
			d.Needs = c.needsOf(f, w) // of an action of choice
			break
		}
		if p := f.pair("requires_model"); p != nil && !a.Model {
			c.error(fault{code: "E0110", at: p.key.at, msg: fmt.Sprintf("requires_model means nothing here: %s asks no model", a.Name)}, w)
		} else if a.Model {
			c.modelParameter(d.Parameters, f.get("parameters"), w)
			d.Needs = c.needsOf(f, w)
		}
		d.Action, d.Effect = a.Key, a.Effect
		c.staysWithin(s, f.get("parameters"))
		c.writesFile(s, f.get("parameters"))
		s.returns = &a.Returns
		c.askModel(f, s, a)
		c.contract(f, s, a.Model, false)
	case "skill":
		c.skill(f, s)
		if d.Skill != nil {
			c.contract(f, s, d.Skill.Prompt != "", d.Skill.Prompt == "")
		}
	case "agent":
		c.agentStep(f, s)
	case "command", "run":
		d.Kind, d.Effect = pipeline.KindCommand, pipeline.EffectAtLeastOnce
		if f.get("timeout") == nil {
			d.Timeout = commandTimeout
		}
		c.allowed(f.pair(kind).key.at, w, "command")
		c.command(f, s, kind)
		c.contract(f, s, false, true)
	case "set":
		d.Kind, d.Effect = pipeline.KindSet, pipeline.EffectPure
		d.Set = c.assignments(f.get("set"), s, "set", useField)
		s.returns = &pipeline.Type{Kind: "map"}
		for i := range d.Set {
			s.returns.Properties = append(s.returns.Properties, pipeline.Property{Name: d.Set[i].Name, Type: pipeline.Type{Kind: "any"}})
		}
	}
	if effect != "" {
		d.Effect = pipeline.Effect(effect)
	}
	if n := f.get("publish"); n != nil {
		c.publish(n, s)
	}
	if n := f.get("consume"); n != nil {
		c.consume(n, s)
	}
	if p := f.pair("artifacts"); p != nil {
		d.Artifacts = c.patterns(p.value, w.in("artifacts"))
		if d.Cache != nil {
			c.error(fault{code: "E0110", at: p.key.at, msg: "artifacts and cache exclude each other: a result that is used again leaves no files"}, w)
		}
	}
	if p := f.pair("files"); p != nil {
		if a := s.spec; d.Kind == pipeline.KindAction && a != nil && !a.Model {
			c.error(fault{code: "E0110", at: p.key.at, msg: fmt.Sprintf("files are put into prompts, and %s has none", a.Name)}, w)
		}
		d.Files = c.promptFiles(p.value, w.in("files"))
	}
	if d.Returns == nil && slices.ContainsFunc(d.OnError, func(r pipeline.Rule) bool { return r.Do == "fallback" }) {
		s.returns = nil // what the rule gives may be anything
	}
}

// impure reports whether a field of the step reads files or the clock.
func (s *step) impure() bool {
	return slices.ContainsFunc(s.uses, func(u *use) bool { return u.expr.Impure() })
}

// command reads an argv or a line for the shell, with what surrounds it.
func (c *compiler) command(f *fields, s *step, kind string) {
	w := where{step: s}
	d := s.def
	n := f.get(kind)
	switch {
	case kind == "run" && (n.kind != scalar || n.isNull()):
		c.wrong(n, w.in("run"), "a line for the shell")
	case kind == "run":
		field := c.field(n, w.in("run"), useField)
		if field.Template == nil {
			field.Const = n.text
		}
		d.Run = &field
		c.unquoted(n, s)
	case n.kind != list:
		c.error(fault{code: "E0104", at: n.at, msg: "command must be a list, the program with its arguments", hint: "a line for the shell is written as run"}, w.in("command"))
	case len(n.items) == 0:
		c.error(fault{code: "E0104", at: n.at, msg: "command names no program"}, w.in("command"))
	default:
		for i, item := range n.items {
			at := w.in("command[" + strconv.Itoa(i) + "]")
			if item.kind != scalar || item.isNull() {
				c.error(fault{code: "E0104", at: item.at, msg: "an argument must be a text, not " + item.what()}, at)
				continue
			}
			field := c.field(item, at, useField)
			if field.Template == nil {
				field.Const = item.text // as it stands: 0.10 stays 0.10
			}
			d.Command = append(d.Command, field)
		}
	}
	c.environment(f, s)
	d.Capture = c.oneOf(f.get("capture"), w.in("capture"), "text", "lines", "json")
	switch d.Capture {
	case "":
		s.returns = &pipeline.Type{Kind: "string"}
	case "lines":
		s.returns = &pipeline.Type{Kind: "list", Items: &pipeline.Type{Kind: "string"}}
	}
}

// environment reads what a program finds in its environment.
func (c *compiler) environment(f *fields, s *step) {
	w := where{step: s}
	s.def.Env = c.variables(f.get("env"), w.in("env"), useField)
	s.def.Secrets = c.secretNames(f.get("secrets"), w.in("secrets"))
}

// variables reads a mapping of environment variables.
func (c *compiler) variables(n *node, w where, when usage) []pipeline.Entry {
	if n == nil || n.isNull() {
		return nil
	}
	if n.kind != mapping {
		c.wrong(n, w, "a mapping")
		return nil
	}
	var out []pipeline.Entry
	for i := range n.pairs {
		p := &n.pairs[i]
		if !envName(p.name) {
			c.error(fault{code: "E0113", at: p.key.at, msg: fmt.Sprintf("%q cannot be an environment variable", p.name)}, w)
		}
		if p.value.kind != scalar {
			c.wrong(p.value, w.in(p.name), "a text")
			continue
		}
		if when != useField && c.fixed(p.value, w.in(p.name)) {
			continue
		}
		field := c.field(p.value, w.in(p.name), when)
		if field.Template == nil {
			field.Const = p.value.text
			if p.value.isNull() {
				field.Const = ""
			}
		}
		out = append(out, pipeline.Entry{Name: p.name, Value: field, Pos: c.text.pos(p.key.off)})
	}
	return out
}

// unquoted warns about values that a shell would split or carry out.
func (c *compiler) unquoted(n *node, s *step) {
	src := n.text
	var to func(int) int
	for i := 0; ; {
		k := strings.Index(src[i:], "{{")
		if k < 0 {
			return
		}
		from := i + k
		end := expr.PlaceholderEnd(src, from+2)
		inner := strings.TrimSpace(strings.Trim(src[from+2:end], "-+"))
		i = min(end+2, len(src))
		filters := strings.Split(inner, "|")
		last := strings.TrimSpace(filters[len(filters)-1])
		if len(filters) > 1 && (last == "sh" || strings.HasPrefix(last, "sh(")) || harmless(inner) {
			continue
		}
		if to == nil {
			to = c.text.source(n)
		}
		c.warn(fault{code: "W0601", at: span{to(from), to(i-1) + 1}, msg: "this value is not quoted for the shell", hint: "write {{ " + strings.TrimSpace(inner) + " | sh }}, or use command with a list of arguments"}, where{s, "run"})
	}
}

// harmless reports whether an expression is a number or word without references.
func harmless(expr string) bool {
	switch expr {
	case "index", "position", "loop_iteration", "iteration", "run.id":
		return true
	}
	_, isText := mustPlain(expr).(string)
	return !isText
}

// assignments reads the variables that the step sets, under set or state.
func (c *compiler) assignments(n *node, s *step, key string, when usage) []pipeline.Entry {
	w := where{step: s, path: key}
	if n.kind != mapping {
		c.wrong(n, w, "a mapping")
		return nil
	}
	var list []pipeline.Entry
	for i := range n.pairs {
		p := &n.pairs[i]
		if p.name == "loop_iteration" && strings.Join(strings.Fields(strings.Trim(p.value.text, "{}")), "") == "loop_iteration+1" {
			continue // the engine counts itself
		}
		if !c.goodName(p.key, p.name, "a state variable", w) {
			continue
		}
		list = append(list, pipeline.Entry{Name: p.name, Value: c.field(p.value, w.in(p.name), when), Pos: c.text.pos(p.key.off)})
		s.writes = append(s.writes, p.name)
		s.writeAt = append(s.writeAt, p.key.at)
		if c.state[p.name] == nil {
			c.state[p.name] = &def{at: p.key.at}
		}
	}
	return list
}
