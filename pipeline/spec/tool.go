package spec

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/orchestrator-project/orchestrator/pipeline"
)

// ownTools are tools of agents that no action stands behind.
var ownTools = []string{"filesystem", "terminal", "ask_human"}

// toolName is what models can call a tool.
var toolName = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_-]{0,63}$`)

// agentTool is a tool of an agent: what no template says of it, and where its
// templates stand.
type agentTool struct {
	plan   pipeline.Tool
	path   string  // within the agent, as in tools[0]
	fields *fields // nil: a name
}

// toolKinds are the keys that say what stands behind a tool.
var toolKinds = []string{"http", "command", "sql", "pipeline", "agent"}

// declareTools reads the tools of an agent.
func (c *compiler) declareTools(a *agent, n *node, w where) {
	if n == nil || n.isNull() {
		return
	}
	items := []*node{n}
	if n.kind == list {
		items = n.items
	}
	seen := map[string]*node{}
	for i, item := range items {
		path := "tools[" + strconv.Itoa(i) + "]"
		w := w.in(path)
		var f *fields
		at := item
		switch item.kind {
		case mapping:
			f = c.fields(item, inTool, w)
			if v := f.get("name"); v != nil {
				at = v
			}
		case list:
			c.wrong(item, w, "the name of a tool, or a mapping with name")
			continue
		}
		for _, t := range c.tool(item, f, w) {
			if first := seen[t.Name]; first != nil {
				c.found.error(c.placed(fault{code: "E0114", at: at.at, msg: fmt.Sprintf("there are two tools %q here", t.Name)}, w), c.found.related(first.at.off, "first here"))
				continue
			}
			seen[t.Name] = at
			t.Pos = c.text.pos(item.off)
			a.tools = append(a.tools, &agentTool{plan: t, path: path, fields: f})
		}
	}
}

// tool reads one tool, or a set of tools of the catalogue.
func (c *compiler) tool(n *node, f *fields, w where) []pipeline.Tool {
	if f == nil {
		name, ok := c.word(n, w)
		if !ok {
			return nil
		}
		return c.toolNamed(n, name, w)
	}
	var kind *pair
	for _, k := range toolKinds {
		p := f.pair(k)
		if p != nil && kind != nil {
			c.found.error(c.placed(fault{code: "E0112", at: p.key.at, msg: fmt.Sprintf("a tool is one thing, not %s and %s", kind.name, k)}, w), c.found.related(kind.key.off, "it is this already"))
			return nil
		}
		if p != nil {
			kind = p
		}
	}
	name := ""
	at := f.get("name")
	if at != nil {
		var ok bool
		if name, ok = c.word(at, w.in("name")); !ok {
			return nil
		}
	}
	var list []pipeline.Tool
	switch {
	case kind == nil && at == nil:
		if !f.broken {
			c.error(fault{code: "E0111", at: n.at, msg: "the tool has no name"}, w)
		}
		return nil
	case kind == nil:
		list = c.toolNamed(at, name, w.in("name"))
	default:
		t, ok := c.ownTool(f, kind, name, at, w)
		if !ok {
			return nil
		}
		list = []pipeline.Tool{t}
	}
	for i := range list {
		c.toolTerms(&list[i], f, kind, w)
	}
	return list
}

// toolNamed finds a tool that there is.
func (c *compiler) toolNamed(n *node, name string, w where) []pipeline.Tool {
	if strings.HasPrefix(name, pipeline.MCPPrefix) {
		server, ok := c.serverTool(n.at, name, w)
		if !ok {
			return nil
		}
		return []pipeline.Tool{{Name: name, Server: server}}
	}
	if slices.Contains(ownTools, name) {
		if !c.allowed(n.at, w, name) {
			return nil
		}
		return []pipeline.Tool{{Name: name}}
	}
	as := func(name string, a *pipeline.ActionSpec) pipeline.Tool {
		return pipeline.Tool{Name: strings.ReplaceAll(name, ".", "_"), Action: a.Key}
	}
	if a := c.cat.find("", name); a != nil {
		if !c.allowed(n.at, w, a.Key, a.Name, a.Tool) {
			return nil
		}
		return []pipeline.Tool{as(name, a)}
	}
	var set []pipeline.Tool
	for _, op := range c.cat.operations(name) {
		a := c.cat.find(name, op)
		if c.allowed(n.at, w, a.Key, a.Name, a.Tool) {
			set = append(set, as(a.Key, a))
		}
	}
	if set == nil && len(c.cat.operations(name)) == 0 {
		c.unknownTool(n, name, w)
	}
	return set
}

func (c *compiler) unknownTool(n *node, name string, w where) {
	x := fault{code: "E0301", at: n.at, msg: fmt.Sprintf("there is no tool %q", name)}
	known := slices.Concat(ownTools, c.cat.tools(), c.cat.names(), c.cat.keys)
	switch {
	case c.agents[name] != nil:
		x.hint = fmt.Sprintf("it is an agent: write {agent: %s}", name)
	case c.imports[name] != nil:
		x.hint = fmt.Sprintf("it is an import: write {pipeline: %s}", name)
	case c.servers[name] != nil:
		x.hint = fmt.Sprintf("it is an MCP server: mcp: [%s] gives all its tools, %s one", name, pipeline.MCPName(name, "TOOL"))
	case c.actions[name] != nil:
		x.hint = "actions of the pipeline's own are no tools yet"
	default:
		if like := c.suggest(name, known); like != "" {
			x.msg += fmt.Sprintf(" (did you mean %q?)", like)
			break
		}
		x.hint = "there are " + quoteList(ownTools) + ", the actions of the catalogue and mcp__SERVER__TOOL; one of its own says http, command, sql, pipeline or agent"
	}
	c.error(x, w)
}

// ownTool reads a tool that is described where it stands.
func (c *compiler) ownTool(f *fields, kind *pair, name string, at *node, w where) (pipeline.Tool, bool) {
	t := pipeline.Tool{Name: name}
	if at == nil {
		if kind.name != "agent" && kind.name != "pipeline" {
			c.error(fault{code: "E0111", at: kind.key.at, msg: "the tool has no name"}, w)
			return t, false
		}
		at = kind.value
		if t.Name = at.text; at.kind != scalar {
			c.wrong(at, w.in(kind.name), "a name")
			return t, false
		}
	}
	switch {
	case !toolName.MatchString(t.Name) || strings.HasPrefix(t.Name, pipeline.MCPPrefix):
		c.error(fault{code: "E0113", at: at.at, msg: fmt.Sprintf("%q cannot be a tool's name", t.Name), hint: "letters, digits, _ and -, beginning with a letter; at most 64, and not mcp__"}, w)
		return t, false
	case slices.Contains(ownTools, t.Name):
		c.error(fault{code: "E0209", at: at.at, msg: fmt.Sprintf("%s is a tool already", t.Name), hint: "rename this one"}, w)
		return t, false
	}
	params := f.pair("parameters")
	if params != nil && (kind.name == "pipeline" || kind.name == "agent") {
		x := fault{code: "E0110", at: params.key.at, msg: "parameters means nothing here: the tool is given the inputs of the pipeline"}
		if kind.name == "agent" {
			x.msg = "parameters means nothing here: an agent is given a prompt"
		}
		c.error(x, w)
		return t, false
	}
	if params != nil {
		t.Parameters = &pipeline.Type{Kind: "map", Properties: c.propertiesOf(params.value, w.in("parameters"))}
		for i := range params.value.pairs {
			p := &params.value.pairs[i]
			if c.parameterName(p, w.in("parameters")); p.name == "args" {
				c.error(fault{code: "E0209", at: p.key.at, msg: "args is the name of all arguments together"}, w.in("parameters"))
			}
		}
	}
	ok := true
	switch kind.name {
	case "http":
		ok = c.allowed(kind.key.at, w, "http")
		t.HTTP = c.httpTool(kind.value, w.in("http"))
	case "command":
		ok = c.allowed(kind.key.at, w, "command")
	case "sql":
		ok = c.allowed(kind.key.at, w, "sql")
		t.SQL = c.sqlTool(kind.value, &t, params, w.in("sql"))
	case "pipeline":
		t.Pipeline = c.pipelineTool(kind.value, &t, w.in("pipeline"))
		ok = t.Pipeline != nil
	case "agent":
		t.Agent, ok = c.word(kind.value, w.in("agent"))
		if ok && c.agentNamed(kind.value, t.Agent, w.in("agent")) == nil {
			ok = false
		}
		t.Parameters = &pipeline.Type{Kind: "map", Properties: []pipeline.Property{{Name: "prompt", Type: pipeline.Type{Kind: "string"}, Required: true, Doc: "what the agent is asked"}}}
	}
	return t, ok
}

func (c *compiler) httpTool(n *node, w where) *pipeline.HTTPTool {
	out := &pipeline.HTTPTool{}
	if n.kind != mapping {
		c.wrong(n, w, "a mapping with url")
		return out
	}
	f := c.fields(n, inHTTPTool, w)
	out.Method = c.oneOf(f.get("method"), w.in("method"), httpMethods...)
	if f.get("url") == nil && !f.broken {
		c.error(fault{code: "E0111", at: n.at, msg: "the request has no url"}, w)
	}
	return out
}

// placeholder is an argument of a query.
var placeholder = regexp.MustCompile(`\$([0-9]{1,4})`)

func (c *compiler) sqlTool(n *node, t *pipeline.Tool, params *pair, w where) *pipeline.SQLTool {
	out := &pipeline.SQLTool{}
	if n.kind != mapping {
		c.wrong(n, w, "a mapping with dsn and query")
		return out
	}
	f := c.fields(n, inSQLTool, w)
	if v := f.get("dsn"); v == nil && !f.broken {
		c.error(fault{code: "E0111", at: n.at, msg: "the query has no dsn", hint: "the name of the secret that holds the database's URL"}, w)
	} else if v != nil {
		if name, ok := c.word(v, w.in("dsn")); ok && c.secretNamed(v, name, w.in("dsn")) {
			out.DSN = name
		}
	}
	if v := f.get("max_rows"); v != nil {
		out.MaxRow, _ = c.integer(v, w.in("max_rows"), 1)
	}
	var nodes []*node
	out.Args, nodes = c.names(f.get("args"), w.in("args"))
	query := f.get("query")
	if query == nil {
		for key, p := range map[string]*pair{"args": f.pair("args"), "parameters": params} {
			if p != nil {
				c.error(fault{code: "E0110", at: p.key.at, msg: key + " means nothing without a query, which the model writes then"}, w)
			}
		}
		t.Parameters = &pipeline.Type{Kind: "map", Properties: []pipeline.Property{{Name: "query", Type: pipeline.Type{Kind: "string"}, Required: true, Doc: "a query that only reads"}}}
		return out
	}
	text, ok := c.word(query, w.in("query"))
	if !ok {
		return out
	}
	out.Query = &text
	var known []string
	if t.Parameters != nil {
		for i := range t.Parameters.Properties {
			known = append(known, t.Parameters.Properties[i].Name)
		}
	}
	for i, name := range out.Args {
		if !slices.Contains(known, name) {
			x := fault{code: "E0201", at: nodes[i].at, msg: fmt.Sprintf("the tool has no parameter %q", name), hint: "declare it in the tool's parameters"}
			if like := c.suggest(name, known); like != "" {
				x.msg += fmt.Sprintf(" (did you mean %q?)", like)
			}
			c.error(x, w.in("args"))
		}
	}
	for _, m := range placeholder.FindAllStringSubmatch(text, -1) {
		if k, _ := strconv.Atoi(m[1]); k < 1 || k > len(out.Args) {
			c.error(fault{code: "E0303", at: query.at, msg: fmt.Sprintf("the query names $%s, but args has %d names", m[1], len(out.Args))}, w.in("query"))
		}
	}
	return out
}

func (c *compiler) pipelineTool(n *node, t *pipeline.Tool, w where) *pipeline.Call {
	name, ok := c.word(n, w)
	if !ok {
		return nil
	}
	to := c.importNamed(n, name, w)
	if to == nil || !to.good {
		return nil
	}
	t.Parameters = &pipeline.Type{Kind: "map"}
	for i := range to.inputs {
		in := &to.inputs[i]
		t.Parameters.Properties = append(t.Parameters.Properties, pipeline.Property{Name: in.Name, Type: in.Type, Required: in.Required, Default: in.Default, Doc: in.Description})
	}
	t.Description = strings.TrimSpace(c.whole.plan.Units[to.unit].Description)
	return &pipeline.Call{Name: name, Unit: to.unit}
}

// toolTerms reads what holds for a call of any tool.
func (c *compiler) toolTerms(t *pipeline.Tool, f *fields, kind *pair, w where) {
	if v := f.get("description"); v != nil {
		t.Description = strings.TrimSpace(c.inert(v, w.in("description")))
	}
	t.Effect = pipeline.Effect(c.choose(f.get("effect"), w.in("effect"), "pure", "idempotent", "at_least_once", "at_most_once"))
	if v := f.get("timeout"); v != nil {
		t.Timeout, _ = c.duration(v, w.in("timeout"))
	}
	if v := f.get("approval"); v != nil {
		t.Gate = c.gate(v, w.in("approval"))
	}
	runs := t.Name == "terminal" && kind == nil || kind != nil && kind.name == "command"
	for _, key := range []string{"sandbox", "env", "secrets"} {
		if p := f.pair(key); p != nil && !runs {
			c.error(fault{code: "E0110", at: p.key.at, msg: key + " means nothing here: it belongs to command and terminal"}, w)
		}
	}
	if p := f.pair("parameters"); p != nil && kind == nil {
		c.error(fault{code: "E0110", at: p.key.at, msg: fmt.Sprintf("parameters means nothing here: %s has its own", t.Name)}, w)
	}
	if v := f.get("sandbox"); v != nil {
		t.Sandbox = c.sandbox(v, w.in("sandbox"))
	}
	t.Secrets = c.secretNames(f.get("secrets"), w.in("secrets"))
}

// gate reads when a call needs people; its condition is compiled with the step.
func (c *compiler) gate(n *node, w where) *pipeline.Gate {
	g := &pipeline.Gate{}
	when := n
	switch n.kind {
	case list:
		c.wrong(n, w, "always, a condition on args, or a mapping")
		return g
	case mapping:
		f := c.fields(n, inApproval, w)
		g.Assignees, _ = c.names(f.get("assignees"), w.in("assignees"))
		if v := f.get("deadline"); v != nil {
			g.Deadline, _ = c.duration(v, w.in("deadline"))
		}
		when = f.get("when")
	}
	g.Always = when == nil || when.kind == scalar && when.text == "always"
	return g
}

// compileTool is a tool with its templates, for one step. nested says that
// another agent calls its agent.
func (c *compiler) compileTool(x *agentTool, w where) pipeline.Tool {
	t := x.plan
	if x.fields == nil {
		return t
	}
	w = w.in(x.path)
	params := t.Parameters
	if t.Action != "" {
		a := c.cat.byKey[t.Action]
		params = &pipeline.Type{Kind: "map", Properties: a.Params, Additional: a.Open}
	}
	given := func(f func()) { c.marking(w, f, func(u *use) { u.args = params }) }
	given(func() {
		if p := x.fields.pair("command"); p != nil {
			t.Command = c.argv(p.value, w.in("command"), useTool)
		}
		c.opening(w, func() { t.Env = c.variables(x.fields.get("env"), w.in("env"), useTool) })
		if p := x.fields.pair("http"); p != nil && p.value.kind == mapping {
			h := *t.HTTP
			t.HTTP = &h
			c.compileRequest(t.HTTP, p.value, w.in("http"))
		}
	})
	if v := x.fields.get("approval"); v != nil && !t.Gate.Always {
		g := *t.Gate
		t.Gate = &g
		w := w.in("approval")
		if v.kind == mapping {
			v, w = v.get("when"), w.in("when")
		}
		if !c.fixed(v, w) {
			given(func() { g.When = c.condition(v, w, useGate) })
		}
	}
	return t
}

func (c *compiler) compileRequest(h *pipeline.HTTPTool, n *node, w where) {
	if v := n.get("url"); v != nil {
		if x := c.textField(v, w.in("url"), useTool); x != nil {
			h.URL = *x
			if s, fixed := x.Const.(string); fixed && !webAddress(s) {
				c.error(fault{code: "E0104", at: v.at, msg: fmt.Sprintf("url cannot be %q", s), hint: "as in https://api.example.org/orders/{{ id }}"}, w.in("url"))
			}
		}
	}
	c.opening(w, func() { h.Headers = c.headers(n.get("headers"), w.in("headers"), useTool) })
	if v := n.get("body"); v != nil && !v.isNull() && !c.fixedWithin(v, w.in("body")) {
		x := c.field(v, w.in("body"), useTool)
		h.Body = &x
	}
}

// fixedWithin reports an <AUTO> tag anywhere in a value.
func (c *compiler) fixedWithin(n *node, w where) bool {
	bad := c.fixed(n, w)
	for _, item := range n.items {
		bad = c.fixedWithin(item, w) || bad
	}
	for i := range n.pairs {
		bad = c.fixedWithin(n.pairs[i].value, w.in(n.pairs[i].name)) || bad
	}
	return bad
}

// textField reads a text that may be a template but holds no tags.
func (c *compiler) textField(n *node, w where, when usage) *pipeline.Field {
	if n.kind != scalar || n.isNull() {
		c.wrong(n, w, "a text")
		return nil
	}
	if c.fixed(n, w) {
		return nil
	}
	x := c.field(n, w, when)
	if x.Template == nil {
		x.Const = n.text
	}
	return &x
}

// argv reads a program with its arguments.
func (c *compiler) argv(n *node, w where, when usage) []pipeline.Field {
	if n.kind != list || len(n.items) == 0 {
		c.error(fault{code: "E0104", at: n.at, msg: "command must be a list, the program with its arguments"}, w)
		return nil
	}
	var out []pipeline.Field
	for i, item := range n.items {
		at := where{w.step, w.path + "[" + strconv.Itoa(i) + "]"}
		if item.kind != scalar || item.isNull() {
			c.error(fault{code: "E0104", at: item.at, msg: "an argument must be a text, not " + item.what()}, at)
			continue
		}
		if when == useAgent || !c.fixed(item, at) {
			x := c.field(item, at, when)
			if x.Template == nil {
				x.Const = item.text // as it stands: 0.10 stays 0.10
			}
			out = append(out, x)
		}
	}
	return out
}

// headers reads those of a request.
func (c *compiler) headers(n *node, w where, when usage) []pipeline.Entry {
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
		if p.name == "" || strings.ContainsAny(p.name, " \t\r\n:") {
			c.error(fault{code: "E0113", at: p.key.at, msg: fmt.Sprintf("%q cannot be a header", p.name)}, w)
			continue
		}
		if x := c.textField(p.value, w.in(p.name), when); x != nil {
			out = append(out, pipeline.Entry{Name: p.name, Value: *x, Pos: c.text.pos(p.key.off)})
		}
	}
	return out
}
