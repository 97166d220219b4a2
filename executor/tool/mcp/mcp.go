// Package mcp makes the tools of Model Context Protocol servers tools of agents
// and steps. A Pool keeps one session for each run and server in this process,
// which the run's agents and steps share: over stdio, where the server is a
// program that the pool starts and reaps, over streamable HTTP, and over SSE as
// older servers have it. A connection that breaks is made again when it is next
// asked for. What a server does wrong is a failure of the call that met it.
//
//	set, err := pool.Open(ctx, env, tool.Want{Text: text, Secret: secret}, []string{"fs"})
//	defer set.Close()
//	for _, t := range set.Tools() { ... t.Run(ctx, env, call) ... }
package mcp

import (
	"cmp"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/orchestrator-project/orchestrator/executor/model"
	"github.com/orchestrator-project/orchestrator/executor/sandbox"
	"github.com/orchestrator-project/orchestrator/pipeline"
	"github.com/orchestrator-project/orchestrator/pipeline/expr"
)

// The transports.
const (
	stdio      = "stdio"
	streamable = "http"
	sse        = "sse"
)

// Config is what a Pool needs. Zero values mean the defaults named here.
type Config struct {
	// Models answers servers that ask a model (sampling), within the budgets of the
	// step whose call it is; nil: servers are told that there is none.
	Models model.Caller
	// Sandbox is where servers run that ask for one; nil: they are not started.
	Sandbox *sandbox.Set
	// Installed are servers that pipelines may name without saying what they are, see
	// ReadInstalled.
	Installed []Server
	Logins    *Logins       // nil: there are none
	Environ   []string      // what servers inherit; default: executor.Harmless of this process
	Idle      time.Duration // how long a session that nobody uses is kept; default 1 min
	Connect   time.Duration // how long a server may take to answer at first; default 30 s; programs are given as much, and three times that when they are tried again
	// Silence is how long a call may go on without a sign of the server; default
	// 5 min. Progress is a sign; time in which people are asked does not count.
	Silence time.Duration
	Version string       // of this program, as servers are told
	Logger  *slog.Logger // default: slog.Default
}

// Server is a server as a run means it: its templates are evaluated.
type Server struct {
	Name      string
	Transport string   // stdio, http, sse
	Command   []string // of stdio
	Env       map[string]string
	URL       string // of http and sse
	Headers   map[string]string
	OAuth     *OAuth // nil: as a login says, where there is one
	Sandbox   *pipeline.Sandbox
	Allow     []string // as in pipeline.MCPServer
	Deny      []string

	installed bool     // it is one of the installation
	hidden    []string // values that are shown nowhere
	sent      *tokens  // likewise
	lacking   []string // variables of the environment that it needs and that are not set
}

// Resolve evaluates a server of the plan. text evaluates a field with more names,
// secret finds a secret; the error is a *pipeline.Failure of category validation.
func Resolve(s *pipeline.MCPServer, text func(f *pipeline.Field, more map[string]any) (any, error), secret func(name string) (string, bool)) (Server, error) {
	out := Server{
		Name: s.Name, Transport: cmp.Or(s.Transport, stdio), Sandbox: s.Sandbox,
		Allow: s.Allow, Deny: s.Deny,
	}
	missing := ""
	find := func(name string) (string, bool) {
		if secret == nil {
			missing = name
			return "", false
		}
		v, ok := secret(name)
		if !ok {
			missing = name
		}
		return v, ok
	}
	var used []string
	more := map[string]any{"secrets": secrets{find: func(name string) (string, bool) {
		v, ok := find(name)
		if ok {
			used = append(used, v)
		}
		return v, ok
	}}}
	word := func(f *pipeline.Field, more map[string]any) (string, error) {
		v, err := text(f, more)
		switch {
		case err != nil && missing != "":
			return "", noSecret(s.Name, missing)
		case err != nil:
			return "", err
		}
		if v == nil {
			return "", nil
		}
		return expr.Text(v), nil
	}
	entries := func(list []pipeline.Entry) (map[string]string, error) {
		m := make(map[string]string, len(list))
		for i := range list {
			before := len(used)
			v, err := word(&list[i].Value, more)
			if err != nil {
				return nil, err
			}
			m[list[i].Name] = v
			if len(used) > before {
				out.hidden = append(out.hidden, v)
			}
		}
		return m, nil
	}
	for i := range s.Command {
		w, err := word(&s.Command[i], nil)
		if err != nil {
			return Server{}, err
		}
		out.Command = append(out.Command, w)
	}
	var err error
	if s.URL != nil {
		if out.URL, err = word(s.URL, nil); err != nil {
			return Server{}, err
		}
	}
	if out.Env, err = entries(s.Env); err != nil {
		return Server{}, err
	}
	if out.Headers, err = entries(s.Headers); err != nil {
		return Server{}, err
	}
	for _, name := range s.Secrets {
		v, ok := find(name)
		if !ok {
			return Server{}, noSecret(s.Name, name)
		}
		out.Env[name] = v
		used = append(used, v)
	}
	out.hidden = append(out.hidden, used...)
	return out, nil
}

func noSecret(server, name string) error {
	return pipeline.Failuref(pipeline.CategoryValidation,
		"the secret %s, which the MCP server %s needs, has no value; set ORCHESTRATOR_SECRET_%s where the server runs", name, server, strings.ToUpper(name))
}

// secrets is the name `secrets` in templates.
type secrets struct {
	find func(name string) (string, bool)
}

// Attr is a secret's value.
func (s secrets) Attr(name string) (any, bool) {
	v, ok := s.find(name)
	return v, ok
}

// Value is null: secrets are named one by one.
func (secrets) Value() any { return nil }

// allows reports whether a tool may be called.
func (s *Server) allows(remote string) bool {
	p := pipeline.MCPServer{Allow: s.Allow, Deny: s.Deny}
	return p.Allows(remote)
}

// key tells servers apart that are started, or spoken to, in different ways. Which
// of their tools may be called makes no difference.
func (s *Server) key() string {
	pairs := func(m map[string]string) []any {
		var list []any
		for _, k := range slices.Sorted(maps.Keys(m)) {
			list = append(list, k, m[k])
		}
		return list
	}
	argv := make([]any, len(s.Command))
	for i, w := range s.Command {
		argv[i] = w
	}
	box := any(nil)
	if s.Sandbox != nil {
		box = fmt.Sprintf("%+v", *s.Sandbox)
	}
	return string(pipeline.EncodeValue([]any{s.Name, s.installed, s.Transport, argv, pairs(s.Env), s.URL, pairs(s.Headers), box}))
}

// blot leaves out what may be shown nowhere.
func (s *Server) blot(text string) string {
	for _, v := range s.hidden {
		if len(v) >= 4 { // shorter ones are too common
			text = strings.ReplaceAll(text, v, "[secret]")
		}
	}
	return s.sent.blot(text)
}
