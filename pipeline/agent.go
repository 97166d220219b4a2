package pipeline

import (
	"path"
	"regexp"
	"strings"
	"time"
)

// AgentAction is the action of steps whose agent is a model with tools, and no
// program.
const AgentAction = "agent"

// Agent is an agent as it stands in the plan. One that is a program has a
// Command; any other is a loop of a model and its tools. Its templates are
// evaluated in the scope of the step that uses it.
type Agent struct {
	Name         string  `json:"name"`
	Description  string  `json:"description,omitempty"`
	Command      []Field `json:"command,omitempty"` // evaluated with the further names model, a text or null, and session, see SessionValue
	Input        string  `json:"input,omitempty"`   // of a program: stdin (default), argument
	Instructions *Field  `json:"instructions,omitempty"`

	// Model and Needs are its own. Those of a step's agent count only where
	// another agent reaches it as a tool: StepDef.Model and StepDef.Needs say what
	// the step asks. Of an agent behind a tool, both nil: as the agent that calls it.
	Model  *Field       `json:"model,omitempty"` // name of a model
	Needs  *Needs       `json:"needs,omitempty"` // requires_model
	Tools  []Tool       `json:"tools,omitempty"`
	MCP    []string     `json:"mcp,omitempty"`    // servers of the plan, all of whose allowed tools it gets
	Skills []Skill      `json:"skills,omitempty"` // that it may load
	Output *AgentOutput `json:"output,omitempty"` // nil: a text
	Limits AgentLimits  `json:"limits,omitzero"`
	// Agents are the other agents that a step's agent comes to by tools, each once
	// and without Agents of its own. They may name each other, and it: Limits.Depth
	// bounds that.
	Agents []Agent `json:"agents,omitempty"`
	Pos    Pos     `json:"pos,omitzero"`
}

// Find finds an agent by its name: a step's own, or one that it comes to.
func (a *Agent) Find(name string) *Agent {
	if a.Name == name {
		return a
	}
	for i := range a.Agents {
		if a.Agents[i].Name == name {
			return &a.Agents[i]
		}
	}
	return nil
}

// AgentOutput is what an agent's last answer must be.
type AgentOutput struct {
	Schema  map[string]any `json:"schema"`            // JSON Schema (2020-12)
	Retries int            `json:"retries,omitempty"` // how often it is asked again; default 1
	Mode    string         `json:"mode,omitempty"`    // native, tool, prompt; empty: the best that the model can
}

// AgentLimits bound an agent; zero members mean the defaults named here.
type AgentLimits struct {
	Steps       int           `json:"steps,omitempty"`        // turns of its model; default 20
	Tokens      int64         `json:"tokens,omitempty"`       // of all its calls together, in and out; 0: no bound
	USD         float64       `json:"usd,omitempty"`          // of all its calls together; 0: no bound
	Wall        time.Duration `json:"wall,omitempty"`         // of an attempt, waiting for people not counted; 0: no bound
	Parallel    int           `json:"parallel,omitempty"`     // tool calls at once; default 8
	RepeatCalls int           `json:"repeat_calls,omitempty"` // equal calls after which it is a loop; default 3
	Depth       int           `json:"depth,omitempty"`        // agents within agents; default 4
}

// Tool is a tool that an agent may call, or a set of them. At most one of
// Action, Server, HTTP, Command, SQL, Pipeline and Agent says what stands behind
// it; none: a tool of the server's own by that Name, as filesystem, terminal, ask_human.
type Tool struct {
	Name        string        `json:"name"` // as the model calls it; of a set: its name
	Description string        `json:"description,omitempty"`
	Parameters  *Type         `json:"parameters,omitempty"` // of Command, HTTP, SQL, Pipeline and Agent: a map, which the arguments must satisfy; nil: it takes none
	Gate        *Gate         `json:"gate,omitempty"`       // whom it needs before it runs; nil: nobody
	Effect      Effect        `json:"effect,omitempty"`     // empty: the tool's own
	Timeout     time.Duration `json:"timeout,omitempty"`    // of one call; 0: the tool's own
	Sandbox     *Sandbox      `json:"sandbox,omitempty"`    // of Command and terminal
	Env         []Entry       `json:"env,omitempty"`        // of Command and terminal
	Secrets     []string      `json:"secrets,omitempty"`    // of Command and terminal

	Action   string    `json:"action,omitempty"`   // catalogue key
	Server   string    `json:"server,omitempty"`   // MCP server of the plan: the tool is mcp__SERVER__TOOL
	HTTP     *HTTPTool `json:"http,omitempty"`     // a request
	Command  []Field   `json:"command,omitempty"`  // argv; its templates, and those of Env and HTTP, read the arguments by their names, and as args
	SQL      *SQLTool  `json:"sql,omitempty"`      // a query
	Pipeline *Call     `json:"pipeline,omitempty"` // an import: a run of its own, within the step; the arguments are its inputs
	Agent    string    `json:"agent,omitempty"`    // another agent, or itself: Agent.Find of the step's; the argument is its prompt
	Pos      Pos       `json:"pos,omitzero"`
}

// HTTPTool is a request as a tool. Secrets may stand in its headers.
type HTTPTool struct {
	Method  string  `json:"method,omitempty"` // default GET
	URL     Field   `json:"url"`
	Headers []Entry `json:"headers,omitempty"`
	Body    *Field  `json:"body,omitempty"` // a text as it is; anything else as JSON
}

// SQLTool is a read-only query as a tool. Without a Query the model writes it.
type SQLTool struct {
	DSN    string   `json:"dsn"`             // name of the secret that holds the database's URL
	Query  *string  `json:"query,omitempty"` // with $1, $2 ... for the arguments named in Args
	Args   []string `json:"args,omitempty"`
	MaxRow int      `json:"max_rows,omitempty"` // default 200
}

// Gate says when a call needs a person's approval.
type Gate struct {
	Always    bool          `json:"always,omitempty"`
	When      *Template     `json:"when,omitempty"`      // a condition in the step's scope with args, the call's arguments; an error in it counts as true
	Assignees []string      `json:"assignees,omitempty"` // who may decide; empty: anyone
	Deadline  time.Duration `json:"deadline,omitempty"`  // after it the call is denied; 0: none
}

// MCPServer is a server of the Model Context Protocol as it stands in the plan.
// Its templates read what is the same for a whole run: inputs, vars, run and
// pipeline; Env and Headers read secrets too.
type MCPServer struct {
	Name      string   `json:"name"`
	Command   []Field  `json:"command,omitempty"` // of stdio
	Env       []Entry  `json:"env,omitempty"`
	Secrets   []string `json:"secrets,omitempty"`
	URL       *Field   `json:"url,omitempty"`       // of http and sse
	Transport string   `json:"transport,omitempty"` // stdio, http, sse
	Headers   []Entry  `json:"headers,omitempty"`
	Sandbox   *Sandbox `json:"sandbox,omitempty"`
	Allow     []string `json:"allow,omitempty"` // patterns of tool names, as path.Match has them; empty: all
	Deny      []string `json:"deny,omitempty"`  // of those, none that matches one of these
	Pos       Pos      `json:"pos,omitzero"`
}

// Allows reports whether a tool of the server may be called.
func (s *MCPServer) Allows(tool string) bool {
	matches := func(patterns []string) bool {
		for _, p := range patterns {
			if ok, err := path.Match(p, tool); err == nil && ok {
				return true
			}
		}
		return false
	}
	return (len(s.Allow) == 0 || matches(s.Allow)) && !matches(s.Deny)
}

// MCPPrefix begins the names of tools of MCP servers.
const MCPPrefix = "mcp__"

// MCPName is the name under which steps and models call a tool of a server.
func MCPName(server, tool string) string { return MCPPrefix + server + "__" + tool }

// MCPTool takes such a name apart. Names of servers hold no "__" and do not end
// in "_", so that there is one way to do so.
func MCPTool(name string) (server, tool string, ok bool) {
	rest, ok := strings.CutPrefix(name, MCPPrefix)
	if !ok {
		return "", "", false
	}
	server, tool, ok = strings.Cut(rest, "__")
	return server, tool, ok && server != "" && tool != ""
}

// MCPServerName reports whether a server can go by a name, so that the names of its
// tools can be taken apart again.
func MCPServerName(name string) bool {
	return mcpServer.MatchString(name) && len(name) <= 32 && !strings.Contains(name, "__") && !strings.HasSuffix(name, "_")
}

var mcpServer = regexp.MustCompile("^[A-Za-z][A-Za-z0-9_-]*$")

// Server finds an MCP server of the pipeline's own by its name; nil: there is none.
func (u *Unit) Server(name string) *MCPServer {
	for i := range u.MCPServers {
		if u.MCPServers[i].Name == name {
			return &u.MCPServers[i]
		}
	}
	return nil
}

// Model finds a model that the pipeline names itself; nil: there is none, and the
// name is one of the registry.
func (u *Unit) Model(name string) *ModelAlias {
	for i := range u.Models {
		if u.Models[i].Name == name {
			return &u.Models[i]
		}
	}
	return nil
}

// ModelAlias is a model that a pipeline names itself, under models.
type ModelAlias struct {
	Name        string   `json:"name"`
	Provider    string   `json:"provider,omitempty"` // empty: as the registry says of Model
	Model       string   `json:"model,omitempty"`    // the provider's own name for it, or without Provider the registry's; empty: Name
	BaseURL     string   `json:"base_url,omitempty"` // without a Key, no key of the server's is sent there
	API         string   `json:"api,omitempty"`      // of openai and local: chat (default), responses
	File        string   `json:"file,omitempty"`     // of script and cassette: its path in the bundle
	Key         string   `json:"key,omitempty"`      // name of the secret that holds the key
	Fallback    []string `json:"fallback,omitempty"` // names of models, the pipeline's own or the registry's
	Temperature *float64 `json:"temperature,omitempty"`
	MaxTokens   int64    `json:"max_tokens,omitempty"`
	Pos         Pos      `json:"pos,omitzero"`
}

// Session names the conversation of an agent that is a program: the step that
// starts it gives it an id, which those that continue it are given too. A start
// that happens again, as in a loop, begins another one of that name.
type Session struct {
	Name  string `json:"name"`
	Start bool   `json:"start,omitempty"` // else: continue
}

// SessionValue is what the templates of an agent's command read as session; nil:
// the step has none.
func SessionValue(s *Session, id string) any {
	if s == nil {
		return nil
	}
	return map[string]any{"name": s.Name, "id": id, "start": s.Start}
}

// Budget bounds what the model calls of a run may cost; zero members: no bound.
type Budget struct {
	Tokens int64   `json:"tokens,omitempty"`
	USD    float64 `json:"usd,omitempty"`
	Calls  int64   `json:"calls,omitempty"`
}
