package mcp

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/orchestrator-project/orchestrator/executor"
	"github.com/orchestrator-project/orchestrator/executor/sandbox"
	"github.com/orchestrator-project/orchestrator/executor/tool"
	"github.com/orchestrator-project/orchestrator/pipeline"
)

// Pool keeps the sessions of this process with MCP servers.
type Pool struct {
	cfg   Config
	life  context.Context //nolint:containedctx // of the sessions
	end   context.CancelFunc
	tasks sync.WaitGroup // of sessions

	mu       sync.Mutex
	sessions map[place]*session
	closed   bool
}

// place is what makes a session one.
type place struct {
	run pipeline.RunID
	key string
}

var errClosed = errors.New("the sessions with MCP servers are closed")

// NewPool makes a pool. It must be closed.
func NewPool(cfg Config) *Pool {
	if cfg.Environ == nil {
		cfg.Environ = executor.Harmless(os.Environ())
	}
	for _, d := range []struct {
		p *time.Duration
		v time.Duration
	}{{&cfg.Idle, time.Minute}, {&cfg.Connect, 30 * time.Second}, {&cfg.Silence, 5 * time.Minute}} {
		if *d.p == 0 {
			*d.p = d.v
		}
	}
	if cfg.Version == "" {
		cfg.Version = "dev"
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	p := &Pool{cfg: cfg, sessions: map[place]*session{}}
	p.life, p.end = context.WithCancel(context.Background())
	return p
}

var _ tool.Servers = (*Pool)(nil)

// Open connects to the servers, where this run has no session with them yet, and
// gives what they offer: it is tool.Servers. Sets of one run share its sessions.
// What the servers log appears in the log of env.
func (p *Pool) Open(ctx context.Context, env executor.Env, w tool.Want, servers []string) (tool.ServerSet, error) {
	list := make([]Server, len(servers))
	for i, name := range servers {
		var err error
		if list[i], err = p.named(name, w.Unit, w.Text, w.Secret); err != nil {
			return nil, err
		}
	}
	model := ""
	if w.Agent != nil && w.Agent.Model != nil && w.Text != nil {
		v, err := w.Text(w.Agent.Model, nil)
		if err != nil {
			return nil, err
		}
		model, _ = v.(string)
	}
	set, err := p.Connect(ctx, env, model, list)
	if err != nil {
		return nil, err
	}
	return set, nil
}

// named is a server as a run means it: the one of its pipeline that has the name,
// else the installation's.
func (p *Pool) named(name string, unit *pipeline.Unit, text func(*pipeline.Field, map[string]any) (any, error), secret func(string) (string, bool)) (Server, error) {
	if s := unit.Server(name); s != nil {
		return Resolve(s, text, secret)
	}
	for _, s := range p.cfg.Installed {
		if s.Name == name {
			return s, s.complete()
		}
	}
	return Server{}, missing("there is no MCP server %s, neither in the pipeline nor in the mcp.json of the server that runs it", name)
}

// Connect is Open for servers whose templates are evaluated, each name once.
// model is whom a server's questions to a model go to; empty: one is chosen. The
// set must be closed when the attempt ends. The error is a *pipeline.Failure of
// category tool or validation, or the context's.
func (p *Pool) Connect(ctx context.Context, env executor.Env, model string, servers []Server) (*Set, error) {
	set := &Set{pool: p, env: env, model: model, changed: make(chan struct{}, 1)}
	for i := range servers {
		s, err := p.session(env, &servers[i], set)
		if err != nil {
			set.Close()
			return nil, err
		}
		set.members = append(set.members, member{session: s, server: &servers[i]})
	}
	failed := make([]error, len(set.members))
	var wait sync.WaitGroup
	for i, m := range set.members {
		wait.Go(func() { failed[i] = m.session.ready(ctx) })
	}
	wait.Wait()
	for i, err := range failed {
		if err == nil {
			continue
		}
		set.Close()
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		return nil, unreachable(set.members[i].server, err)
	}
	return set, nil
}

// unreachable is the failure of whoever wants a server that cannot be had.
func unreachable(s *Server, err error) *pipeline.Failure {
	kind, reason, text := pipeline.CategoryTool, "mcp_unreachable", err.Error()
	if f, ok := errors.AsType[*pipeline.Failure](err); ok {
		kind = f.Kind
		if f.Reason == reasonLogin {
			reason, text = f.Reason, f.Message
		}
	}
	f := pipeline.Failuref(kind, "the MCP server %s cannot be used: %s", s.Name, s.blot(text))
	f.Reason = reason
	return f
}

// session is the run's session with a server, which the set holds from now on.
func (p *Pool) session(env executor.Env, server *Server, set *Set) (*session, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, errClosed
	}
	at := place{run: env.Run, key: server.key()}
	s := p.sessions[at]
	if s == nil {
		server.sent = &tokens{}
		s = &session{pool: p, at: at, server: *server, place: sandbox.Spec{Workspace: env.Workspace}, calls: map[string]*running{}}
		if env.Bundle != "" {
			s.place.Readable = []string{env.Bundle}
		}
		p.sessions[at] = s
	}
	server.sent = s.server.sent
	if s.idle != nil {
		s.idle.Stop()
		s.idle = nil
	}
	s.hold(set)
	return s, nil
}

// release notes that a set is closed. A session that nobody holds ends soon.
func (p *Pool) release(s *session, set *Set) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if s.letGo(set) > 0 || p.closed || p.sessions[s.at] != s {
		return
	}
	if s.left {
		p.drop(s)
		return
	}
	s.idle = time.AfterFunc(p.cfg.Idle, func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		if s.holders() == 0 {
			p.drop(s)
		}
	})
}

// drop ends a session. The pool's mutex is held.
func (p *Pool) drop(s *session) {
	if p.sessions[s.at] == s {
		delete(p.sessions, s.at)
	}
	if s.idle != nil {
		s.idle.Stop()
	}
	s.close()
}

// Leave ends the sessions of a run that this process has to do with no more, or
// for now. Those in use end as soon as they are not.
func (p *Pool) Leave(run pipeline.RunID) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for at, s := range p.sessions {
		if at.run != run {
			continue
		}
		s.left = true
		if s.holders() == 0 {
			p.drop(s)
		}
	}
}

// Close ends all sessions and returns when their processes and connections have
// ended.
func (p *Pool) Close() {
	p.mu.Lock()
	p.closed = true
	for _, s := range p.sessions {
		p.drop(s)
	}
	p.mu.Unlock()
	p.tasks.Wait()
	p.end()
}

// Set is what one attempt holds of the pool.
type Set struct {
	pool    *Pool
	env     executor.Env
	model   string
	members []member
	changed chan struct{} // capacity 1

	once sync.Once
}

type member struct {
	session *session
	server  *Server // as the one who opened it means it
}

// Tools are what the servers offer now and the pipeline allows, server by server
// in the order in which they were opened, each name once.
func (s *Set) Tools() []tool.ServerTool {
	var list []tool.ServerTool
	seen := map[string]bool{}
	for _, m := range s.members {
		for _, l := range m.session.offers() {
			name := Name(m.server.Name, l.remote)
			if !m.server.allows(l.remote) || seen[name] {
				continue
			}
			seen[name] = true
			list = append(list, s.tool(m, l, name))
		}
	}
	return list
}

// Find gives a tool by the name that models use, or by its whole one; nil: no
// server offers it now, or the pipeline does not allow it.
func (s *Set) Find(name string) *tool.ServerTool {
	for _, t := range s.Tools() {
		if t.Name == name || pipeline.MCPName(t.Server, t.Remote) == name {
			return &t
		}
	}
	return nil
}

// Why says why there is no tool of that name, where the server lists one that
// cannot be used.
func (s *Set) Why(server, remote string) string {
	for _, m := range s.members {
		if m.server.Name != server {
			continue
		}
		if why := m.session.refused(remote); why != "" {
			return why
		}
		if !m.server.allows(remote) {
			return "its allow and deny leave it out"
		}
		return fmt.Sprintf("the server has no tool %s", remote)
	}
	return fmt.Sprintf("there is no server %s", server)
}

// Changed receives after the tools of a server have changed.
func (s *Set) Changed() <-chan struct{} { return s.changed }

// Close lets the sessions go. It may be called twice.
func (s *Set) Close() {
	s.once.Do(func() {
		for _, m := range s.members {
			s.pool.release(m.session, s)
		}
	})
}
