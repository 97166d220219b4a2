package spec

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/orchestrator-project/orchestrator/pipeline"
)

// document reads the whole pipeline. It returns nil where nothing could be made
// of it; the findings say why.
func (c *compiler) document(root *node) *pipeline.Plan {
	if root.kind != mapping {
		c.error(fault{code: "E0103", at: root.at, msg: "a pipeline is a mapping with the key steps, not " + root.what()}, where{})
		return nil
	}
	c.plan = &pipeline.Plan{Unit: pipeline.Unit{File: c.text.file}}
	f := c.fields(root, inDocument, where{})
	c.header(f)
	c.declareInputs(f.pair("inputs"))
	c.settings(f)
	c.declareVars(f)
	c.declareSecrets(f.get("secrets"))
	c.declareImports(f.get("imports"))
	c.declareArtifacts(f.get("artifacts"))
	c.declareModels(f.get("models"))
	c.declareServers(f.get("mcp_servers"))
	c.declareActions(f.get("actions"))
	c.declareAgents(f.get("agents"))
	c.bundlePatterns(f.get("bundle"))
	c.declareTriggers(f.get("on"))
	steps := f.get("steps")
	if steps == nil {
		if !slices.ContainsFunc(root.pairs, func(p pair) bool { return c.suggest(p.name, []string{"steps"}) != "" }) { // it was reported
			c.error(fault{code: "E0111", at: span{root.off, root.off + 1}, msg: "the key steps is missing", hint: "a pipeline has a list of steps, each with an id and what it does"}, where{})
		}
		return nil
	}
	c.root = c.stepList(steps, nil, where{path: "steps"}, &body{graph: c.plan.Root.Order != "sequence", outside: c.outside})
	if n := f.get("finally"); n != nil {
		c.finally = c.stepList(n, nil, where{path: "finally"}, &body{final: true, outside: c.outside})
	} else {
		c.finally = &body{final: true}
	}
	if n := f.get("outputs"); n != nil {
		c.plan.HasOutputs = true
		c.plan.Outputs = c.documentMap(n, "outputs", useOutputs)
	}
	c.closeAutos()
	c.lineage()
	c.resolve()
	c.order()
	c.outputPaths()
	if c.found.errs > 0 {
		return nil
	}
	c.finish()
	if c.triggersFit(); c.found.errs > 0 {
		return nil
	}
	return c.plan
}

// header reads what says what the pipeline is.
func (c *compiler) header(f *fields) {
	w := where{}
	if n := f.get("orchestrator"); n != nil {
		if v, ok := c.integer(n, w.in("orchestrator"), 1); ok && v != 1 {
			c.error(fault{code: "E0104", at: n.at, msg: fmt.Sprintf("version %d of the language is not known", v), hint: "the only one is 1"}, w)
		}
	}
	p := c.plan
	p.Name = strings.TrimSpace(c.inert(f.get("name"), w.in("name")))
	p.Description = c.inert(f.get("description"), w.in("description"))
	p.Version = strings.TrimSpace(c.inert(f.get("version"), w.in("version")))
	if p.Version == "" {
		p.Version = "0.0.0"
	}
	if p.Name == "" {
		p.Name = c.title
	}
	if p.Name == "" {
		base := path.Base(strings.ReplaceAll(c.text.file, `\`, "/"))
		p.Name = strings.TrimSuffix(base, path.Ext(base))
		if p.Name == "" || p.Name == "." || p.Name == "/" {
			p.Name = "pipeline"
		}
	}
	if n := f.get("metadata"); n != nil {
		c.inertValue(n, w.in("metadata"))
	}
	if n := f.get("id"); n != nil {
		id := c.inert(n, w.in("id"))
		if !IsID(id) {
			c.error(fault{code: "E0113", at: n.at, msg: fmt.Sprintf("%q cannot be a pipeline's id", id), hint: "letters, digits, dots, _ and -, beginning with a letter or digit; at most 100"}, w.in("id"))
		}
		p.ID = id
		return
	}
	p.ID = Slug(p.Name)
}

// inertValue warns about templates in a value that is never rendered.
func (c *compiler) inertValue(n *node, w where) {
	switch n.kind {
	case list:
		for _, item := range n.items {
			c.inertValue(item, w)
		}
	case mapping:
		for i := range n.pairs {
			c.inertValue(n.pairs[i].value, w.in(n.pairs[i].name))
		}
	default:
		c.inert(n, w)
	}
}

// IsID reports whether a text can be the id of a pipeline.
func IsID(s string) bool {
	if s == "" || len(s) > 100 {
		return false
	}
	for i := range len(s) {
		b := s[i]
		letter := b >= 'a' && b <= 'z' || b >= 'A' && b <= 'Z' || b >= '0' && b <= '9'
		if !letter && (i == 0 || b != '.' && b != '_' && b != '-') {
			return false
		}
	}
	return true
}

// Slug makes an id of a name.
func Slug(name string) string {
	var b strings.Builder
	dash := false
	for _, r := range strings.ToLower(name) {
		switch {
		case r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r == '_':
			if dash && b.Len() > 0 {
				b.WriteByte('-')
			}
			dash = false
			if r == '_' && b.Len() == 0 {
				continue
			}
			b.WriteRune(r)
		default:
			dash = true
		}
		if b.Len() >= 100 {
			break
		}
	}
	if b.Len() == 0 {
		return "pipeline"
	}
	return b.String()
}

// declareInputs reads the inputs block.
func (c *compiler) declareInputs(p *pair) {
	if p == nil {
		return
	}
	c.hasInputs = true
	w := where{path: "inputs"}
	if p.value.isNull() {
		return
	}
	if p.value.kind != mapping {
		c.wrong(p.value, w, "a mapping from names to types or defaults")
		return
	}
	for i := range p.value.pairs {
		in := &p.value.pairs[i]
		if !c.goodName(in.key, in.name, "an input's name", w) {
			continue
		}
		d := c.input(in, w.in(in.name))
		d.Pos = c.text.pos(in.key.off)
		c.inputs[in.name] = &input{def: d, at: in.key.at}
		c.plan.Inputs = append(c.plan.Inputs, d)
	}
}

func (c *compiler) input(in *pair, w where) pipeline.Input {
	if declared(in.value) {
		p := c.property(in.name, in.value, w)
		return pipeline.Input{Name: p.Name, Type: p.Type, Required: p.Required, Default: p.Default, Description: p.Doc}
	}
	if in.value.isNull() {
		return pipeline.Input{Name: in.name, Type: pipeline.Type{Kind: "any"}, Required: true}
	}
	v, ok := c.constant(in.value, w)
	if !ok {
		v = nil
	}
	if s, isText := v.(string); isText && typeNames[s] != "" && !in.value.quoted() {
		c.warn(fault{code: "W0702", at: in.value.at, msg: fmt.Sprintf("the default of %s is the text %q, not the type", in.name, s), hint: fmt.Sprintf("write {type: %s} for a type", s)}, w)
	}
	return pipeline.Input{Name: in.name, Type: typeOfValue(v), Default: v}
}

// goodName checks the name of an input, var, state or loop variable.
func (c *compiler) goodName(at *node, name, what string, w where) bool {
	ok := name != "" && len(name) <= 100
	for i := 0; ok && i < len(name); i++ {
		b := name[i]
		letter := b >= 'a' && b <= 'z' || b >= 'A' && b <= 'Z' || b == '_'
		ok = letter || i > 0 && (b >= '0' && b <= '9' || b == '-')
	}
	switch {
	case !ok:
		c.error(fault{code: "E0113", at: at.at, msg: fmt.Sprintf("%q cannot be %s", name, what), hint: "letters, digits, _ and -, beginning with a letter or _"}, w)
	case slices.Contains(builtinNames, name), name == pipeline.AutoName:
		c.error(fault{code: "E0209", at: at.at, msg: fmt.Sprintf("%s is a name of the language and cannot be %s", name, what)}, w)
		return false
	case slices.Contains(operators, name):
		c.error(fault{code: "E0115", at: at.at, msg: fmt.Sprintf("%s is a word of expressions and cannot be %s", name, what)}, w)
		return false
	}
	return ok
}

// settings reads settings, and what of context goes there.
func (c *compiler) settings(f *fields) {
	s := &c.plan.Settings
	if n := f.get("settings"); n != nil && !n.isNull() {
		w := where{path: "settings"}
		if n.kind != mapping {
			c.wrong(n, w, "a mapping")
		} else {
			c.settingsMap(c.fields(n, inSettings, w), w)
		}
	}
	n := f.get("context")
	if n == nil || n.isNull() {
		return
	}
	w := where{path: "context"}
	if n.kind != mapping {
		c.wrong(n, w, "a mapping")
		return
	}
	g := c.fields(n, inContext, w)
	if v := g.get("timeout"); v != nil {
		if d, ok := c.duration(v, w.in("timeout")); ok && s.Timeout == 0 {
			s.Timeout = d
		}
	}
	if v := g.get("checkpoint_strategy"); v != nil {
		if word, every := c.checkpoint(v, w.in("checkpoint_strategy")); s.Checkpoint == "" {
			s.Checkpoint, s.CheckpointEvery = word, every
		}
	}
	if v := g.get("max_retries"); v != nil {
		if k, ok := c.integer(v, w.in("max_retries"), 0); ok && s.Retry == nil {
			s.Retry = &pipeline.Retry{MaxAttempts: k + 1}
		}
	}
}

func (c *compiler) settingsMap(g *fields, w where) {
	s := &c.plan.Settings
	if v := g.get("timeout"); v != nil {
		s.Timeout, _ = c.duration(v, w.in("timeout"))
	}
	if v := g.get("max_parallel"); v != nil {
		s.MaxParallel, _ = c.integer(v, w.in("max_parallel"), 1)
	}
	s.OnError = c.oneOf(g.get("on_error"), w.in("on_error"), "stop", "abort", "continue")
	s.Checkpoint, s.CheckpointEvery = c.checkpoint(g.get("checkpoint"), w.in("checkpoint"))
	if c.oneOf(g.get("order"), w.in("order"), "graph", "sequence") == "sequence" {
		c.plan.Root.Order = "sequence"
	}
	if v := g.get("retry"); v != nil {
		s.Retry = c.retry(v, w.in("retry"))
	}
	if v := g.get("max_transitions"); v != nil {
		s.MaxTransitions, _ = c.integer(v, w.in("max_transitions"), 1)
	}
	s.UnknownActions = c.oneOf(g.get("unknown_actions"), w.in("unknown_actions"), "error", "model")
	if v := g.get("auto"); v != nil {
		s.Auto = c.autoSettings(v, w.in("auto"))
	}
	if v := g.get("budget"); v != nil {
		s.Budget = c.budget(v, w.in("budget"))
	}
	if v := g.get("workspace"); v != nil {
		s.Workspace = c.workspace(v, w.in("workspace"))
	}
	if v := g.get("priority"); v != nil {
		s.Priority, _ = c.integer(v, w.in("priority"), -1<<31)
	}
	if v := g.get("queue"); v != nil {
		s.Queue = c.queueName(v, w.in("queue"))
	}
	if v := g.get("concurrency"); v != nil {
		s.Concurrency = c.concurrency(v, w.in("concurrency"))
	}
}

// declareVars reads vars, and what of context goes there.
func (c *compiler) declareVars(f *fields) {
	add := func(p *pair, w where) {
		if !c.goodName(p.key, p.name, "a var's name", w) {
			return
		}
		if first := c.vars[p.name]; first != nil {
			c.found.error(fault{code: "E0209", at: p.key.at, msg: fmt.Sprintf("the var %s is defined twice", p.name), path: w.path}, c.found.related(first.at.off, "first here"))
			return
		}
		c.vars[p.name] = &def{at: p.key.at, index: len(c.plan.Vars)}
		from := len(c.docUses)
		value := c.field(p.value, w.in(p.name), useVars)
		for _, u := range c.docUses[from:] {
			u.name = p.name
		}
		c.plan.Vars = append(c.plan.Vars, pipeline.Entry{Name: p.name, Value: value, Pos: c.text.pos(p.key.off)})
	}
	if n := f.get("vars"); n != nil && !n.isNull() {
		w := where{path: "vars"}
		if n.kind != mapping {
			c.wrong(n, w, "a mapping")
		} else {
			for i := range n.pairs {
				add(&n.pairs[i], w)
			}
		}
	}
	if n := f.get("context"); n != nil && n.kind == mapping {
		for i := range n.pairs {
			if p := &n.pairs[i]; byPlace[inContext][p.name] == nil {
				add(p, where{path: "context"})
			}
		}
	}
}

// declareSecrets reads the names of the secrets that steps may ask for.
func (c *compiler) declareSecrets(n *node) {
	w := where{path: "secrets"}
	names, nodes := c.names(n, w)
	for i, name := range names {
		if !envName(name) {
			c.error(fault{code: "E0113", at: nodes[i].at, msg: fmt.Sprintf("%q cannot be a secret's name", name), hint: "letters, digits and _; it becomes an environment variable"}, w)
			continue
		}
		c.secrets[name] = true
		c.plan.Secrets = append(c.plan.Secrets, name)
	}
}

// envName reports whether s can be an environment variable.
func envName(s string) bool {
	for i := range len(s) {
		b := s[i]
		letter := b >= 'a' && b <= 'z' || b >= 'A' && b <= 'Z' || b == '_'
		if !letter && (i == 0 || b < '0' || b > '9') {
			return false
		}
	}
	return s != "" && len(s) <= 200
}

// documentMap reads a mapping of values that belongs to no step.
func (c *compiler) documentMap(n *node, name string, when usage) []pipeline.Entry {
	w := where{path: name}
	if n.isNull() {
		return nil
	}
	if n.kind != mapping {
		c.wrong(n, w, "a mapping")
		return nil
	}
	return c.entries(n, w, when)
}

// finish turns what was read into the plan.
func (c *compiler) finish() {
	p := c.plan
	p.Root = c.root.plan()
	p.Finally = c.finally.plan()
	p.Templates = c.templates
	for name := range c.state {
		p.State = append(p.State, name)
	}
	slices.Sort(p.State)
	if !c.hasInputs {
		for _, in := range c.inputs {
			p.Inputs = append(p.Inputs, in.def)
			p.Inferred = true
		}
		slices.SortFunc(p.Inputs, func(a, b pipeline.Input) int {
			if a.Pos.Line != b.Pos.Line {
				return a.Pos.Line - b.Pos.Line
			}
			if a.Pos.Column != b.Pos.Column {
				return a.Pos.Column - b.Pos.Column
			}
			return strings.Compare(a.Name, b.Name)
		})
	}
}

// plan gives the body with its steps; their edges are there already.
func (b *body) plan() pipeline.Body {
	out := pipeline.Body{Order: "sequence"}
	if b.graph {
		out.Order = "graph"
	}
	if len(b.steps) == 0 {
		out.Order = ""
		return out
	}
	out.Steps = make([]*pipeline.StepDef, len(b.steps))
	for i, s := range b.steps {
		out.Steps[i] = s.def
		for j, inner := range s.bodies {
			if s.def.Loop != nil {
				s.def.Loop.Body = inner.plan()
			} else {
				s.def.Branches[j].Body = inner.plan()
			}
		}
	}
	return out
}
