package tool

import (
	"context"
	"slices"
	"strings"

	"github.com/orchestrator-project/orchestrator/executor"
	"github.com/orchestrator-project/orchestrator/executor/sandbox"
	"github.com/orchestrator-project/orchestrator/pipeline"
)

// Names of tools that the server brings itself, beside the actions of the
// catalogue and filesystem_read and so on.
const (
	Filesystem = "filesystem" // the set of all tools for files
	Terminal   = "terminal"
	AskHuman   = "ask_human"
	ReadResult = "read_result"
	Search     = "search_tools"
)

// reasonUnknown is the reason of an agent whose tools are not all there.
const reasonUnknown = "unknown_tool"

// Config is what tools need from the process they run in.
type Config struct {
	Actions []executor.Action // each of them is a tool
	Servers Servers           // nil: there are no MCP servers
	Query   Query             // nil: no query is a tool
	Sandbox *sandbox.Set      // where programs run; nil: they do not
	Results Results           // keeps what is too large to be shown; nil: its middle is lost
	// Policy says whom a call needs where the pipeline does not; nil: nobody.
	Policy func(tool string) *pipeline.Gate
	// Limit is how many bytes of a result a model is shown; default 32 KiB.
	Limit int
	// PrivateHosts are patterns of hosts that models may choose for requests although
	// they are not public.
	PrivateHosts []string
	// Share is the part of a model's window that the descriptions of tools may take
	// before those that nobody has named are found by search_tools alone; default
	// 0.1. Most is how many tools there may be before that; default 64.
	Share float64
	Most  int
}

// Servers opens MCP servers; executor/tool/mcp does.
type Servers interface {
	// Open connects to servers, by their names in the plan or in the installation. The
	// error is a *pipeline.Failure, or the context's.
	Open(ctx context.Context, env executor.Env, w Want, servers []string) (ServerSet, error)
}

// ServerSet is what one attempt holds of MCP servers.
type ServerSet interface {
	// Tools are what the servers offer now, as far as they are allowed.
	Tools() []ServerTool
	Close()
}

// ServerTool is a tool of an MCP server.
type ServerTool struct {
	Tool          // its Name is one that every model takes
	Server string // of the plan
	Remote string // its name at the server
}

// Results keeps content with a run; store.Store does.
type Results interface {
	PutBlob(ctx context.Context, run pipeline.RunID, data []byte) (pipeline.Digest, error)
	Blob(ctx context.Context, run pipeline.RunID, d pipeline.Digest) ([]byte, error)
}

// New gives a Source of all that pipelines may name as tools.
func New(cfg Config) Source {
	if cfg.Limit <= 0 {
		cfg.Limit = 32 << 10
	}
	if cfg.Share <= 0 {
		cfg.Share = 0.1
	}
	if cfg.Most <= 0 {
		cfg.Most = 64
	}
	return &source{cfg: cfg, own: builtIn(cfg)}
}

type source struct {
	cfg      Config
	own      []Tool // built in, without what a pipeline says of them
	compiled compiler
}

// builtIn are the tools that are the same for all pipelines, in the order of
// the manual.
func builtIn(cfg Config) []Tool {
	tools := files(cfg)
	for i := range cfg.Actions {
		if a := &cfg.Actions[i]; a.Spec.Tool != Filesystem {
			tools = append(tools, actionTool(a, cfg.PrivateHosts))
		}
	}
	return append(tools, terminal(cfg), askHuman())
}

// Tools describes the tools that pipelines may name without describing them.
func Tools(cfg Config) []pipeline.ToolSpec {
	var list []pipeline.ToolSpec
	for _, t := range builtIn(cfg) {
		set := ""
		if strings.HasPrefix(t.Name, Filesystem+"_") {
			set = Filesystem
		}
		e := t.EffectWith(nil)
		if t.EffectOf != nil {
			e = ""
		}
		list = append(list, pipeline.ToolSpec{Name: t.Name, Set: set, Description: t.Description, Schema: t.Schema, Effect: e, Human: t.Human})
	}
	return list
}

// Find gives a built-in tool by its name, guarded as for agents; nil: there is
// none.
func Find(cfg Config, name string) *Tool {
	s, _ := New(cfg).(*source)
	if i := slices.IndexFunc(s.own, func(t Tool) bool { return t.Name == name }); i >= 0 {
		t := s.guarded(s.own[i])
		return &t
	}
	return nil
}

// Open gathers the agent's tools.
func (s *source) Open(ctx context.Context, env executor.Env, w Want) (Box, error) {
	b := &box{}
	if err := s.gather(ctx, env, w, b); err != nil {
		_ = b.Close()
		return nil, err
	}
	if len(b.list) == 0 && b.servers == nil {
		return b, nil
	}
	if s.cfg.Results != nil && env.Run != "" {
		b.add(s.readResult())
	}
	s.fold(env, w, b)
	return b, nil
}

func (s *source) gather(ctx context.Context, env executor.Env, w Want, b *box) error {
	a := w.Agent
	servers := slices.Clone(a.MCP)
	for i := range a.Tools {
		if t := &a.Tools[i]; t.Server != "" && !slices.Contains(servers, t.Server) {
			servers = append(servers, t.Server)
		}
	}
	if err := s.connect(ctx, env, w, b, servers); err != nil {
		return err
	}
	for i := range a.Tools {
		def := &a.Tools[i]
		made, err := s.made(w, b, def)
		if err != nil {
			return err
		}
		for _, t := range made {
			if def.Parameters != nil && def.Pipeline == nil && def.Agent == "" {
				t.Run = completing(def.Parameters, t.Run)
			}
			s.adapt(&t, def)
			if !b.add(s.guarded(t)) {
				return bad("agent %s: two of its tools are called %s; give one of them another name", a.Name, t.Name)
			}
		}
	}
	for _, t := range s.skills(a, b) {
		s.adapt(&t, &pipeline.Tool{})
		if !b.add(s.guarded(t)) {
			return bad("agent %s: its tool %s has the name of the tool for its skills; give it another name", a.Name, t.Name)
		}
	}
	return nil
}

// connect opens the servers.
func (s *source) connect(ctx context.Context, env executor.Env, w Want, b *box, names []string) error {
	if len(names) == 0 {
		return nil
	}
	if s.cfg.Servers == nil {
		return bad("agent %s: this server cannot reach MCP servers", w.Agent.Name)
	}
	var err error
	b.servers, err = s.cfg.Servers.Open(ctx, env, w, names)
	if err != nil {
		return err
	}
	b.whole = w.Agent.MCP
	b.dress = func(t Tool) Tool {
		s.adapt(&t, &pipeline.Tool{})
		return s.guarded(t)
	}
	return nil
}

// made are the tools that an entry of an agent's list means.
func (s *source) made(w Want, b *box, def *pipeline.Tool) ([]Tool, error) {
	one := func(t Tool, err error) ([]Tool, error) { return []Tool{t}, err }
	switch {
	case def.Action != "":
		for i := range s.cfg.Actions {
			if a := &s.cfg.Actions[i]; a.Spec.Key == def.Action {
				t, err := s.builtIn(w, def, toolName(a.Spec.Key))
				if err == nil && def.Name != "" && def.Name != a.Spec.Key {
					t.Name = def.Name
				}
				return one(t, err)
			}
		}
		return nil, bad("agent %s: there is no action %s", w.Agent.Name, def.Action)
	case def.Server != "":
		for _, t := range b.servers.Tools() {
			if t.Server == def.Server && (t.Name == def.Name || pipeline.MCPName(t.Server, t.Remote) == def.Name) {
				return one(t.Tool, nil)
			}
		}
		return nil, bad("agent %s: the MCP server %s has no tool %s, or does not allow it", w.Agent.Name, def.Server, def.Name)
	case def.HTTP != nil:
		return one(s.request(w, def))
	case len(def.Command) > 0:
		return one(s.command(w, def), nil)
	case def.SQL != nil:
		return one(s.query(w, def))
	case def.Pipeline != nil:
		return one(pipelineTool(w, def), nil)
	case def.Agent != "":
		return one(agentTool(w, def))
	case def.Name == Filesystem:
		var set []Tool
		for _, t := range s.own {
			if strings.HasPrefix(t.Name, Filesystem+"_") {
				set = append(set, t)
			}
		}
		return set, nil
	}
	return one(s.builtIn(w, def, def.Name))
}

// builtIn is a tool of the server's own.
func (s *source) builtIn(w Want, def *pipeline.Tool, name string) (Tool, error) {
	if name == Terminal {
		return s.terminalOf(w, def), nil
	}
	i := slices.IndexFunc(s.own, func(t Tool) bool { return t.Name == name || t.Name == toolName(name) })
	if i < 0 {
		return Tool{}, bad("agent %s: there is no tool %s", w.Agent.Name, name)
	}
	return s.own[i], nil
}

// adapt puts what the pipeline and the server say of a tool in the place of what
// it says of itself.
func (s *source) adapt(t *Tool, def *pipeline.Tool) {
	if def.Description != "" {
		t.Description = def.Description
	}
	if def.Effect != "" {
		t.Effect, t.EffectOf = def.Effect, nil
	}
	if def.Timeout > 0 {
		t.Timeout = def.Timeout
	}
	if def.Gate != nil {
		t.Gate = def.Gate
	}
	if s.cfg.Policy == nil {
		return
	}
	if g := s.cfg.Policy(t.Name); g != nil && (t.Gate == nil || !t.Gate.Always) {
		own := *g
		if t.Gate != nil { // whom the pipeline names may still decide
			own.Assignees, own.Deadline = t.Gate.Assignees, t.Gate.Deadline
		}
		t.Gate = &own
	}
}

// toolName is a name that models can write, of an action's key.
func toolName(key string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '-' || r == '_' || r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z':
			return r
		}
		return '_'
	}, key)
}

// bad is the failure of an agent whose tools cannot be had.
func bad(format string, args ...any) *pipeline.Failure {
	f := pipeline.Failuref(pipeline.CategoryValidation, format, args...)
	f.Reason = reasonUnknown
	return f
}

// box is what one agent has.
type box struct {
	list    []Tool            // those that it was given by name, in the order of its list
	servers ServerSet         // nil: none
	whole   []string          // servers all of whose tools it has
	dress   func(t Tool) Tool // what a server's tool becomes
	search  *catalogue        // nil: all tools are shown
}

// add adds a tool, unless there is one of its name.
func (b *box) add(t Tool) bool {
	if b.has(t.Name) {
		return false
	}
	b.list = append(b.list, t)
	return true
}

func (b *box) has(name string) bool {
	return slices.ContainsFunc(b.list, func(t Tool) bool { return t.Name == name })
}

// offered are the tools that nobody has named and that the agent has all the
// same: those that its servers have now.
func (b *box) offered() []Tool {
	if b.servers == nil {
		return nil
	}
	var list []Tool
	for _, t := range b.servers.Tools() {
		if slices.Contains(b.whole, t.Server) && !b.has(t.Name) {
			list = append(list, b.dress(t.Tool))
		}
	}
	return list
}

// Tools are those that the model is shown.
func (b *box) Tools() []Tool {
	list := slices.Clone(b.list)
	if b.search != nil {
		return append(list, b.search.shown(b.offered())...)
	}
	return append(list, b.offered()...)
}

// Find finds a tool.
func (b *box) Find(name string) *Tool {
	list := b.list
	if b.search != nil {
		list = append(slices.Clone(list), b.search.tool)
	}
	for _, some := range [][]Tool{list, b.offered()} {
		if i := slices.IndexFunc(some, func(t Tool) bool { return t.Name == name }); i >= 0 {
			return &some[i]
		}
	}
	return nil
}

// Close lets go of the servers.
func (b *box) Close() error {
	if b.servers != nil {
		b.servers.Close()
	}
	return nil
}
