package spec

import (
	"fmt"
	"path"
	"strings"

	"github.com/orchestrator-project/orchestrator/pipeline"
)

// server is an MCP server of the pipeline's, or of the installation.
type server struct {
	plan      *pipeline.MCPServer
	at        span // of the pipeline's
	used      bool
	installed bool // the pipeline does not say what it is
}

// declareServers reads the mcp_servers block. A server of the pipeline's counts
// more than one of the installation that has the same name.
func (c *compiler) declareServers(n *node) {
	c.servers = map[string]*server{}
	for i := range c.cat.servers {
		s := &c.cat.servers[i]
		c.servers[s.Name] = &server{plan: s, used: true, installed: true}
	}
	if n == nil || n.isNull() {
		return
	}
	w := where{path: "mcp_servers"}
	if n.kind != mapping {
		c.wrong(n, w, "a mapping from names to servers")
		return
	}
	for i := range n.pairs {
		p := &n.pairs[i]
		w := w.in(p.name)
		switch {
		case !pipeline.MCPServerName(p.name):
			c.error(fault{code: "E0113", at: p.key.at, msg: fmt.Sprintf("%q cannot be an MCP server's name", p.name), hint: "letters, digits, _ and -, beginning with a letter, without __ and without _ at the end, as it becomes part of the names of tools; at most 32"}, w)
		case p.value.kind != mapping:
			c.wrong(p.value, w, "a mapping with command or url")
		default:
			s := &server{plan: c.declareServer(p, w), at: p.key.at}
			c.servers[p.name] = s
		}
	}
	for i := range n.pairs {
		if s := c.servers[n.pairs[i].name]; s != nil && !s.installed {
			c.plan.MCPServers = append(c.plan.MCPServers, *s.plan)
		}
	}
}

func (c *compiler) declareServer(p *pair, w where) *pipeline.MCPServer {
	f := c.fields(p.value, inServer, w)
	out := &pipeline.MCPServer{Name: p.name, Pos: c.text.pos(p.key.off)}
	command, url := f.pair("command"), f.pair("url")
	var foreign []string
	switch {
	case command != nil && url != nil:
		c.found.error(c.placed(fault{code: "E0112", at: url.key.at, msg: "a server is a command or stands at a url, not both"}, w), c.found.related(command.key.off, "the other one"))
	case command != nil:
		out.Transport = "stdio"
		c.allowed(command.key.at, w, "command")
		out.Command = c.argv(command.value, w.in("command"), useServer)
		foreign = []string{"headers"}
	case url != nil:
		foreign = []string{"env", "secrets", "sandbox"}
		out.Transport = "http"
		if v := c.textField(url.value, w.in("url"), useServer); v != nil {
			if s, fixed := v.Const.(string); fixed && !webAddress(s) {
				c.error(fault{code: "E0104", at: url.value.at, msg: fmt.Sprintf("url cannot be %q", s), hint: "as in https://tools.example.org/mcp"}, w.in("url"))
			}
			out.URL = v
		}
	case !f.broken:
		c.error(fault{code: "E0111", at: p.key.at, msg: fmt.Sprintf("the MCP server %s has neither a command nor a url", p.name)}, w)
	}
	for _, key := range foreign {
		if k := f.pair(key); k != nil {
			c.error(fault{code: "E0110", at: k.key.at, msg: fmt.Sprintf("%s means nothing for a server with %s", key, map[bool]string{true: "a command", false: "a url"}[command != nil])}, w)
		}
	}
	if v := f.get("transport"); v != nil {
		words := transports
		if command != nil {
			words = []string{"stdio"}
		}
		if word := c.choose(v, w.in("transport"), words...); word != "" {
			out.Transport = word
		}
	}
	c.opening(w, func() {
		out.Env = c.variables(f.get("env"), w.in("env"), useServer)
		out.Headers = c.headers(f.get("headers"), w.in("headers"), useServer)
	})
	out.Secrets = c.secretNames(f.get("secrets"), w.in("secrets"))
	if v := f.get("sandbox"); v != nil {
		out.Sandbox = c.sandbox(v, w.in("sandbox"))
	}
	out.Allow, out.Deny = c.toolPatterns(f.get("allow"), w.in("allow")), c.toolPatterns(f.get("deny"), w.in("deny"))
	return out
}

func (c *compiler) toolPatterns(n *node, w where) []string {
	names, nodes := c.names(n, w)
	for i, name := range names {
		if _, err := path.Match(name, ""); err != nil {
			c.error(fault{code: "E0104", at: nodes[i].at, msg: fmt.Sprintf("%q is not a pattern", name), hint: "* stands for any letters, as in read_*"}, w)
		}
	}
	return names
}

// serverNamed finds a server that is declared; nil after an error.
func (c *compiler) serverNamed(at span, name string, w where) *server {
	if s := c.servers[name]; s != nil {
		s.used = true
		return s
	}
	known := sortedKeys(c.servers)
	x := fault{code: "E0301", at: at, msg: fmt.Sprintf("there is no MCP server %q", name), hint: "servers are declared in the pipeline's mcp_servers, or in the mcp.json of the installation"}
	if like := c.suggest(name, known); like != "" {
		x.msg, x.hint = x.msg+fmt.Sprintf(" (did you mean %q?)", like), ""
	} else if len(known) > 0 {
		x.hint += "; " + c.whereServersAre(known)
	}
	c.error(x, w)
	return nil
}

// whereServersAre lists servers by who declares them.
func (c *compiler) whereServersAre(names []string) string {
	var own, installed []string
	for _, name := range names {
		if c.servers[name].installed {
			installed = append(installed, name)
		} else {
			own = append(own, name)
		}
	}
	var parts []string
	if len(own) > 0 {
		parts = append(parts, "the pipeline has "+quoteList(own))
	}
	if len(installed) > 0 {
		parts = append(parts, "the installation has "+quoteList(installed))
	}
	return strings.Join(parts, ", ")
}

// serverTool checks the name of a server's tool; the error says what is wrong.
func (c *compiler) serverTool(at span, name string, w where) (server string, ok bool) {
	server, tool, ok := pipeline.MCPTool(name)
	if !ok {
		c.error(fault{code: "E0301", at: at, msg: fmt.Sprintf("%q names no tool of an MCP server", name), hint: "as in mcp__SERVER__TOOL"}, w)
		return "", false
	}
	s := c.serverNamed(at, server, w)
	if s == nil {
		return "", false
	}
	if s.installed && !s.plan.Allows(tool) {
		c.error(fault{code: "E0602", at: at, msg: fmt.Sprintf("the tool %s of %s may not be called: its allow and deny in the mcp.json of the installation leave it out", tool, server)}, w)
		return "", false
	}
	if !s.plan.Allows(tool) {
		c.found.error(c.placed(fault{code: "E0602", at: at, msg: fmt.Sprintf("the tool %s of %s may not be called: its allow and deny leave it out", tool, server)}, w), c.found.related(s.at.off, "%s is here", server))
		return "", false
	}
	return server, c.allowed(at, w, name)
}

// toolAction is what the compiler knows of a step that calls a tool of a server;
// nil after an error.
func (c *compiler) toolAction(n *node, name string, w where) *pipeline.ActionSpec {
	if _, ok := c.serverTool(n.at, name, w); !ok {
		return nil
	}
	return &pipeline.ActionSpec{Key: name, Name: name, Open: true, Returns: pipeline.Type{Kind: "any"}, Effect: pipeline.EffectAtLeastOnce}
}

// opening lets secrets be named in the templates that f reads.
func (c *compiler) opening(w where, f func()) {
	c.marking(w, f, func(u *use) { u.open = true })
}

// marking calls mark for the uses of names in the templates that f reads.
func (c *compiler) marking(w where, f func(), mark func(*use)) {
	uses := &c.docUses
	if w.step != nil {
		uses = &w.step.uses
	}
	from := len(*uses)
	f()
	for _, u := range (*uses)[from:] {
		mark(u)
	}
}
