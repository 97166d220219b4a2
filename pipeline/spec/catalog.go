package spec

import (
	"fmt"
	"slices"
	"strings"

	"github.com/orchestrator-project/orchestrator/pipeline"
)

// catalog finds actions by the ways in which pipelines name them.
type catalog struct {
	byKey map[string]*pipeline.ActionSpec
	bare  map[string]*pipeline.ActionSpec // without a tool, or with one that may be left out
	keys  []string                        // sorted

	models []pipeline.ModelSpec // nil: not known
	policy *pipeline.Policy

	servers []pipeline.MCPServer // of the installation
	skills  []string             // of the installation
}

func newCatalog(cat pipeline.Catalog) *catalog {
	c := &catalog{byKey: cat.Actions, bare: make(map[string]*pipeline.ActionSpec, len(cat.Actions)), models: cat.Models, policy: cat.Policy, servers: cat.Servers, skills: cat.Skills}
	for key := range cat.Actions {
		c.keys = append(c.keys, key)
	}
	slices.Sort(c.keys)
	for _, key := range c.keys {
		a := cat.Actions[key]
		if a.Tool == "" {
			c.bare[a.Name] = a
		}
	}
	for _, key := range c.keys {
		if a := cat.Actions[key]; a.Tool != "" && a.Bare && c.bare[a.Name] == nil {
			c.bare[a.Name] = a
		}
	}
	return c
}

// find resolves an action by its tool, which may be empty, and its name.
func (c *catalog) find(tool, name string) *pipeline.ActionSpec {
	if tool != "" {
		return c.byKey[tool+"."+name]
	}
	if a := c.bare[name]; a != nil {
		return a
	}
	if a := c.byKey[name]; a != nil && a.Tool != "" {
		return a
	}
	return nil
}

// names lists what an action may be called.
func (c *catalog) names() []string {
	names := make([]string, 0, len(c.bare))
	for name := range c.bare {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// operations lists the names of a tool's operations.
func (c *catalog) operations(tool string) []string {
	var names []string
	for _, key := range c.keys {
		if a := c.byKey[key]; a.Tool == tool {
			names = append(names, a.Name)
		}
	}
	return names
}

func (c *catalog) tools() []string {
	var names []string
	for _, key := range c.keys {
		if t := c.byKey[key].Tool; t != "" && !slices.Contains(names, t) {
			names = append(names, t)
		}
	}
	return names
}

// action resolves what a step names, or reports that there is no such action.
func (c *compiler) action(f *fields, w where) *pipeline.ActionSpec {
	n := f.get("action")
	auto := n.kind == scalar && strings.Contains(n.text, tagOpen)
	name, ok := n.text, true
	if !auto {
		name, ok = c.word(n, w.in("action"))
	}
	tool := ""
	if t := f.get("tool"); t != nil {
		if tool, ok = c.word(t, w.in("tool")); !ok {
			return nil
		}
		if ops := c.cat.operations(tool); len(ops) == 0 {
			x := fault{code: "E0301", at: t.at, msg: fmt.Sprintf("there is no tool %q", tool), hint: "tools are " + quoteList(c.cat.tools())}
			if s := c.suggest(tool, c.cat.tools()); s != "" {
				x.msg += fmt.Sprintf(" (did you mean %q?)", s)
			}
			c.error(x, w.in("tool"))
			return nil
		}
	}
	switch {
	case !ok:
		return nil
	case auto:
		c.autoAction(n, tool, w.step)
		return nil
	}
	if a := c.cat.find(tool, name); a != nil {
		c.allowed(n.at, w.in("action"), a.Key, a.Name, a.Tool)
		return a
	}
	if tool == "" && strings.HasPrefix(name, pipeline.MCPPrefix) {
		return c.toolAction(n, name, w.in("action"))
	}
	x := fault{code: "E0301", at: n.at, msg: fmt.Sprintf("there is no action %q", name)}
	if tool != "" {
		ops := c.cat.operations(tool)
		x.msg = fmt.Sprintf("the tool %s has no operation %q", tool, name)
		x.hint = "it has " + quoteList(ops)
		if s := c.suggest(name, ops); s != "" {
			x.msg += fmt.Sprintf(" (did you mean %q?)", s)
		}
		c.error(x, w.in("action"))
		return nil
	}
	for _, key := range c.cat.keys {
		if a := c.cat.byKey[key]; a.Tool != "" && a.Name == name {
			x.hint = fmt.Sprintf("it is an operation of a tool: write tool: %s, action: %s", a.Tool, name)
			break
		}
	}
	tools := c.cat.tools()
	if tool := c.suggest(name, tools); tool != "" || slices.Contains(tools, name) {
		if tool == "" {
			tool = name
		}
		x.hint = fmt.Sprintf("%s is a tool: write tool: %s, action: and one of %s", tool, tool, quoteList(c.cat.operations(tool)))
	}
	if s := c.suggest(name, append(sortedKeys(c.actions), c.cat.names()...)); s != "" && x.hint == "" {
		x.msg += fmt.Sprintf(" (did you mean %q?)", s)
	} else if s := c.suggest(name, c.cat.keys); s != "" && x.hint == "" {
		x.msg += fmt.Sprintf(" (did you mean %q?)", s)
	} else if x.hint == "" && c.found.errs <= maxDiagnostics {
		x.hint = "there are " + quoteList(c.cat.names()) + "; if a worker brings it, start that worker: its actions are known once it has connected"
	}
	c.error(x, w.in("action"))
	return nil
}

// parameters reads the arguments of an action and checks what is fixed. Those
// named in besides stand in keys of their own.
func (c *compiler) parameters(a *pipeline.ActionSpec, n *node, at *node, w where, besides ...string) []pipeline.Entry {
	w = w.in("parameters")
	if n == nil || n.isNull() {
		n = &node{kind: mapping, off: at.off, at: at.at}
	}
	if n.kind != mapping {
		c.wrong(n, w, "a mapping")
		return nil
	}
	es := c.entries(n, w, useField)
	if a == nil {
		return es
	}
	broken := false // a parameter was reported; what is missing may be meant by it
	for i := range es {
		p := &n.pairs[i]
		k := slices.IndexFunc(a.Params, func(q pipeline.Property) bool { return q.Name == p.name })
		if k < 0 {
			if !a.Open {
				broken = true
				c.unknownParameter(a, p, w)
			}
			continue
		}
		q := &a.Params[k]
		if p.value.isNull() && !q.Required {
			continue
		}
		c.fits(&q.Type, p.value, &es[i].Value, q.Name, w.in(q.Name))
	}
	for i := range a.Params {
		q := &a.Params[i]
		if !broken && q.Required && q.Default == nil && n.get(q.Name) == nil && !slices.Contains(besides, q.Name) {
			c.error(fault{code: "E0303", at: at.at, msg: fmt.Sprintf("%s needs the parameter %s: %s", a.Name, q.Name, typeText(&q.Type)), hint: q.Doc}, w)
		}
	}
	return es
}

func (c *compiler) unknownParameter(a *pipeline.ActionSpec, p *pair, w where) {
	names := make([]string, len(a.Params))
	for i := range a.Params {
		names[i] = a.Params[i].Name
	}
	x := fault{code: "E0303", at: p.key.at, msg: fmt.Sprintf("%s has no parameter %q", a.Name, p.name), hint: "it has " + quoteList(names)}
	if len(names) == 0 {
		x.hint = "it has none"
	}
	if s := c.suggest(p.name, names); s != "" {
		x.msg += fmt.Sprintf(" (did you mean %q?)", s)
	}
	c.error(x, w)
}

// fits checks the fixed parts of a value against a type; what templates give is
// checked when the step starts.
func (c *compiler) fits(t *pipeline.Type, n *node, f *pipeline.Field, name string, w where) {
	switch {
	case f.Template != nil:
		c.expect(f.Template, t)
		return
	case isConst(f):
		_, m := check(t, f.Const)
		if m == nil {
			return
		}
		at := n.at
		if inner := n.walk(m.Path); inner != nil {
			at = inner.at
		}
		c.error(fault{code: m.code("E0303"), at: at, msg: fmt.Sprintf("%s %s", name, m), hint: m.Hint}, w)
	case f.List != nil:
		if t.Kind != "list" && t.Kind != "any" {
			c.error(fault{code: "E0303", at: n.at, msg: fmt.Sprintf("%s must be %s, not a list", name, typeText(t))}, w)
			return
		}
		if t.Kind == "list" && t.Items != nil && len(n.items) == len(f.List) {
			for i := range f.List {
				c.fits(t.Items, n.items[i], &f.List[i], fmt.Sprintf("%s[%d]", name, i), w.in(fmt.Sprintf("[%d]", i)))
			}
		}
	case f.Map != nil:
		if t.Kind != "map" && t.Kind != "any" {
			c.error(fault{code: "E0303", at: n.at, msg: fmt.Sprintf("%s must be %s, not a map", name, typeText(t))}, w)
			return
		}
		if len(t.Properties) == 0 || len(n.pairs) != len(f.Map) {
			return
		}
		for i := range f.Map {
			k := slices.IndexFunc(t.Properties, func(q pipeline.Property) bool { return q.Name == f.Map[i].Name })
			switch {
			case k >= 0:
				c.fits(&t.Properties[k].Type, n.pairs[i].value, &f.Map[i].Value, name+"."+f.Map[i].Name, w.in(f.Map[i].Name))
			case !t.Additional:
				c.error(fault{code: "E0303", at: n.pairs[i].key.at, msg: fmt.Sprintf("%s must not have %s", name, f.Map[i].Name)}, w)
			}
		}
	}
}

// walk finds the node at a path such as [2].name.
func (n *node) walk(path string) *node {
	for path != "" && n != nil {
		if path[0] == '[' {
			end := strings.IndexByte(path, ']')
			i := 0
			if _, err := fmt.Sscanf(path[1:max(end, 1)], "%d", &i); err != nil || i >= len(n.items) {
				return nil
			}
			n, path = n.items[i], path[end+1:]
			continue
		}
		name := strings.TrimPrefix(path, ".")
		if i := strings.IndexAny(name, ".["); i >= 0 {
			name = name[:i]
		}
		n, path = n.get(name), strings.TrimPrefix(path, ".")[len(name):]
	}
	return n
}
