package pipeline

import "time"

// Agent is an agent as it stands in the plan. One that is a program has a
// Command; any other is a loop of a model and its tools.
type Agent struct {
	Name         string  `json:"name"`
	Command      []Field `json:"command,omitempty"` // evaluated in the step's scope, with the names model and session
	Input        string  `json:"input,omitempty"`   // of a program: stdin (default), argument
	Instructions *Field  `json:"instructions,omitempty"`

	Model  *Field       `json:"model,omitempty"` // name of a model; nil: the step's, else the one that selection takes
	Needs  *Needs       `json:"needs,omitempty"` // requires_model
	Tools  []Tool       `json:"tools,omitempty"`
	MCP    []string     `json:"mcp,omitempty"`    // servers of the plan, all of whose allowed tools it gets
	Skills []Skill      `json:"skills,omitempty"` // that it may load
	Output *AgentOutput `json:"output,omitempty"` // nil: a text
	Limits AgentLimits  `json:"limits,omitzero"`
	Pos    Pos          `json:"pos,omitzero"`
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
	Parameters  *Type         `json:"parameters,omitempty"` // of Command, HTTP, SQL, Pipeline and Agent: a map
	Gate        *Gate         `json:"gate,omitempty"`       // whom it needs before it runs; nil: nobody
	Effect      Effect        `json:"effect,omitempty"`     // empty: the tool's own
	Timeout     time.Duration `json:"timeout,omitempty"`    // of one call; 0: the tool's own
	Sandbox     *Sandbox      `json:"sandbox,omitempty"`    // of Command and terminal
	Env         []Entry       `json:"env,omitempty"`        // of Command and terminal
	Secrets     []string      `json:"secrets,omitempty"`

	Action   string    `json:"action,omitempty"`   // catalogue key
	Server   string    `json:"server,omitempty"`   // MCP server of the plan: the tool is mcp__SERVER__TOOL
	HTTP     *HTTPTool `json:"http,omitempty"`     // a request
	Command  []Field   `json:"command,omitempty"`  // argv; templates read the arguments by their names, and as args
	SQL      *SQLTool  `json:"sql,omitempty"`      // a query
	Pipeline *Call     `json:"pipeline,omitempty"` // an import: a run of its own, within the step
	Agent    *Agent    `json:"agent,omitempty"`    // another agent of the plan, with a prompt
	Pos      Pos       `json:"pos,omitzero"`
}

// HTTPTool is a request as a tool. Templates read the arguments by their names.
type HTTPTool struct {
	Method  string  `json:"method,omitempty"` // default GET
	URL     Field   `json:"url"`
	Headers []Entry `json:"headers,omitempty"`
	Body    *Field  `json:"body,omitempty"`
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
	When      *Template     `json:"when,omitempty"`      // a condition on args, the call's arguments
	Assignees []string      `json:"assignees,omitempty"` // who may decide; empty: anyone
	Deadline  time.Duration `json:"deadline,omitempty"`  // after it the call is denied; 0: none
}

// MCPServer is a server of the Model Context Protocol as it stands in the plan.
type MCPServer struct {
	Name      string   `json:"name"`
	Command   []Field  `json:"command,omitempty"` // of stdio
	Env       []Entry  `json:"env,omitempty"`
	Secrets   []string `json:"secrets,omitempty"`
	URL       *Field   `json:"url,omitempty"`       // of http and sse
	Transport string   `json:"transport,omitempty"` // stdio, http, sse
	Headers   []Entry  `json:"headers,omitempty"`
	Sandbox   *Sandbox `json:"sandbox,omitempty"`
	Allow     []string `json:"allow,omitempty"` // patterns of tool names; empty: all
	Deny      []string `json:"deny,omitempty"`
	Pos       Pos      `json:"pos,omitzero"`
}

// ModelAlias is a model that a pipeline names itself, under models.
type ModelAlias struct {
	Name        string   `json:"name"`
	Provider    string   `json:"provider,omitempty"` // empty: as the registry says of Model
	Model       string   `json:"model,omitempty"`    // the provider's own name for it; empty: Name
	BaseURL     string   `json:"base_url,omitempty"`
	API         string   `json:"api,omitempty"`  // of openai: chat (default), responses
	File        string   `json:"file,omitempty"` // of script and cassette: a file of the bundle
	Key         string   `json:"key,omitempty"`  // name of the secret that holds the key
	Fallback    []string `json:"fallback,omitempty"`
	Temperature *float64 `json:"temperature,omitempty"`
	MaxTokens   int64    `json:"max_tokens,omitempty"`
	Pos         Pos      `json:"pos,omitzero"`
}

// Needs is what a model must be able to do: requires_model.
type Needs struct {
	Tasks      []string `json:"tasks,omitempty"`
	MinContext int64    `json:"min_context,omitempty"` // tokens
	Expertise  string   `json:"expertise,omitempty"`   // low, medium, high, very-high
	CostLimit  float64  `json:"cost_limit,omitempty"`  // USD for 1,000 tokens
	MinSize    string   `json:"min_size,omitempty"`    // as in 7B
	MaxSize    string   `json:"max_size,omitempty"`
	Tools      bool     `json:"tools,omitempty"`
	Structured bool     `json:"structured,omitempty"`
	Streaming  bool     `json:"streaming,omitempty"`
	Languages  []string `json:"languages,omitempty"`
	Policy     string   `json:"policy,omitempty"` // a selection policy of the registry
}

// Session names the conversation of an agent that is a program: the first step
// that starts one gives it an id, which those that continue it are given too.
type Session struct {
	Name  string `json:"name"`
	Start bool   `json:"start,omitempty"` // else: continue
}

// Budget bounds what the model calls of a run may cost; zero members: no bound.
type Budget struct {
	Tokens int64   `json:"tokens,omitempty"`
	USD    float64 `json:"usd,omitempty"`
	Calls  int64   `json:"calls,omitempty"`
}
