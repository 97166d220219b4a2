package spec

import (
	"slices"

	"github.com/orchestrator-project/orchestrator/pipeline"
)

var agentKeys = []key{
	// Agents and actions of the pipeline's own.
	{name: "command", in: inAgent, shape: "list", doc: "The program with its arguments; {{ model }} is the step's model, {{ session }} its conversation."},
	{name: "input", in: inAgent, shape: "agent_input", doc: "How the program gets the prompt: stdin (default), or as its last argument."},
	{name: "instructions", in: inAgent, shape: "text", doc: "What the agent is for and how it works; stands above every prompt."},
	{name: "instructions_file", in: inAgent, shape: "text", doc: "The file that holds the instructions, relative to the pipeline's folder. It is a template."},
	{name: "model", in: inAgent | inOwnAction, shape: "text", doc: "The model that is asked, unless a step says otherwise."},
	{name: "requires_model", in: inAgent, shape: "needs", doc: "What the model must be able to do, unless a step says otherwise; one that does is chosen."},
	{name: "tools", in: inAgent, shape: "tools", doc: "Tools that the model may call."},
	{name: "mcp", in: inAgent, shape: "names", doc: "Names of mcp_servers, all of whose allowed tools it may call."},
	{name: "skills", in: inAgent, shape: "names", doc: "Skills that it may load, by name."},
	{name: "output", in: inAgent, shape: "agent_output", doc: "What its last answer must be; without it, a text."},
	{name: "limits", in: inAgent, shape: "limits", doc: "How far it may go."},
	{name: "context", in: inAgent, later: true},
	{name: "memory", in: inAgent, later: true},
	{name: "handoffs", in: inAgent, later: true},
	{name: "hooks", in: inAgent, later: true},
	{name: "schema", in: inAgentOutput, shape: "any", must: true, doc: "A JSON Schema that the answer satisfies."},
	{name: "retries", in: inAgentOutput, shape: "natural", doc: "How often it is asked again for an answer that does; default 1."},
	{name: "mode", in: inAgentOutput, shape: "output_mode", doc: "How the answer is asked for: native, tool or prompt; by default the best that the model can."},
	{name: "steps", in: inLimits, shape: "count", doc: "How often the model may be asked; at the last time without tools. Default 20."},
	{name: "tokens", in: inLimits, shape: "count", doc: "Tokens of all its calls, in and out."},
	{name: "usd", in: inLimits, shape: "number", doc: "What its calls may cost, in USD."},
	{name: "wall", in: inLimits, shape: "duration", doc: "How long an attempt may take; waiting for people does not count."},
	{name: "parallel", in: inLimits, shape: "count", doc: "How many tools run at once; default 8."},
	{name: "repeat_calls", in: inLimits, shape: "count", doc: "After how many equal calls of a tool it counts as a loop; default 3."},
	{name: "depth", in: inLimits, shape: "count", doc: "How deep agents may call agents; default 4."},
	{name: "start", in: inSession, shape: "id", doc: "Starts a conversation of this name."},
	{name: "continue", in: inSession, shape: "id", doc: "Goes on with the conversation of this name."},

	// Tools of agents.
	{name: "name", in: inTool, shape: "text", doc: "A tool that there is: filesystem, terminal, ask_human, an action, or mcp__SERVER__TOOL; or the name of one that is described here."},
	{name: "description", in: inTool, shape: "text", doc: "What the model is told about it. Never rendered."},
	{name: "parameters", in: inTool, shape: "types", doc: "What it is given, by name, with its type."},
	{name: "approval", in: inTool, shape: "approval", doc: "When people are asked before it runs: always, a condition on args, or a mapping that says more."},
	{name: "effect", in: inTool, shape: "effect", doc: "What a crash may do to a call, as of steps; at_most_once for tools of which nothing is known."},
	{name: "timeout", in: inTool, shape: "duration", doc: "How long a call may take."},
	{name: "sandbox", in: inTool, shape: "sandbox", doc: "Confines what command and terminal run: true, or how."},
	{name: "env", in: inTool, shape: "map", doc: "Environment variables of command and terminal."},
	{name: "secrets", in: inTool, shape: "names", doc: "Secrets that command and terminal find as environment variables of these names."},
	{name: "http", in: inTool, shape: "http_tool", doc: "The tool is a request."},
	{name: "command", in: inTool, shape: "list", doc: "The tool is a program with its arguments; {{ name }} is an argument of the call."},
	{name: "sql", in: inTool, shape: "sql_tool", doc: "The tool is a query that only reads."},
	{name: "pipeline", in: inTool, shape: "text", doc: "The tool is an imported pipeline; it is given its inputs and gives its outputs."},
	{name: "agent", in: inTool, shape: "text", doc: "The tool is an agent of the pipeline's, which is given a prompt."},
	{name: "when", in: inApproval, shape: "condition", doc: "always (default), or a condition on args, the arguments of the call."},
	{name: "assignees", in: inApproval, shape: "names", doc: "Who may decide; without it, anyone."},
	{name: "deadline", in: inApproval, shape: "duration", doc: "After which the call is denied."},
	{name: "method", in: inHTTPTool, shape: "http_method", doc: "Default GET."},
	{name: "url", in: inHTTPTool, shape: "text", must: true, doc: "The address; {{ name }} is an argument of the call."},
	{name: "headers", in: inHTTPTool, shape: "map", doc: "Headers; secrets may stand in them."},
	{name: "body", in: inHTTPTool, shape: "any", doc: "A text as it is, anything else as JSON."},
	{name: "dsn", in: inSQLTool, shape: "text", must: true, doc: "The name of the secret that holds the database's URL."},
	{name: "query", in: inSQLTool, shape: "text", doc: "The query, with $1, $2 for the arguments that args names; without it, the model writes it."},
	{name: "args", in: inSQLTool, shape: "names", doc: "Names of parameters, in the order of $1, $2."},
	{name: "max_rows", in: inSQLTool, shape: "count", doc: "How many rows it gives at most; default 200."},

	// MCP servers.
	{name: "command", in: inServer, shape: "list", doc: "The program that is the server, with its arguments; it talks on standard input and output."},
	{name: "env", in: inServer, shape: "map", doc: "Environment variables of the program."},
	{name: "secrets", in: inServer, shape: "names", doc: "Secrets that the program finds as environment variables of these names."},
	{name: "sandbox", in: inServer, shape: "sandbox", doc: "Confines the program: true, or how."},
	{name: "url", in: inServer, shape: "text", doc: "The address of a server that runs elsewhere."},
	{name: "transport", in: inServer, shape: "transport", doc: "Of a url: http (default), or sse as older servers have it."},
	{name: "headers", in: inServer, shape: "map", doc: "Headers of its requests; secrets may stand in them."},
	{name: "allow", in: inServer, shape: "names", doc: "Patterns of the tools that may be called, as in read_*; by default all."},
	{name: "deny", in: inServer, shape: "names", doc: "Patterns of those that may not."},

	// Models.
	{name: "provider", in: inModel, shape: "provider", doc: "Who answers: anthropic, openai, google, local, script or cassette; by default as the registry says."},
	{name: "model", in: inModel, shape: "text", doc: "The provider's own name for the model; by default the name here."},
	{name: "base_url", in: inModel, shape: "text", doc: "Another address of the provider's, or of a server that talks like it."},
	{name: "api", in: inModel, shape: "model_api", doc: "Of openai and local: chat (default), or responses."},
	{name: "file", in: inModel, shape: "text", doc: "Of script and cassette: the file that holds the answers, relative to the pipeline's folder."},
	{name: "key", in: inModel, shape: "text", doc: "The name of the secret that holds the key."},
	{name: "fallback", in: inModel, shape: "names", doc: "Models that are asked in turn when this one does not answer."},
	{name: "temperature", in: inModel, shape: "number", doc: "From 0 to 2."},
	{name: "max_tokens", in: inModel, shape: "count", doc: "How long an answer may be."},
	{name: "tasks", in: inNeeds, shape: "names", doc: "Tasks that it must be for, as in code_generation."},
	{name: "min_context", aliases: []string{"context_window"}, in: inNeeds, shape: "count", doc: "How many tokens its context must hold."},
	{name: "expertise", in: inNeeds, shape: "expertise", doc: "How good it must be: low, medium, high or very-high."},
	{name: "cost_limit", in: inNeeds, shape: "number", doc: "What 1,000 tokens may cost, in USD."},
	{name: "min_size", in: inNeeds, shape: "size", doc: "How many parameters it must have, as in 7B."},
	{name: "max_size", in: inNeeds, shape: "size", doc: "How many parameters it may have, as in 70B."},
	{name: "tools", aliases: []string{"supports_function_calling"}, in: inNeeds, shape: "boolean", doc: "It must call tools."},
	{name: "structured", aliases: []string{"supports_structured_output"}, in: inNeeds, shape: "boolean", doc: "It must hold its answers to a schema."},
	{name: "streaming", aliases: []string{"supports_streaming"}, in: inNeeds, shape: "boolean", doc: "It must give its answers as they arise."},
	{name: "languages", in: inNeeds, shape: "names", doc: "Languages that it must know, as in de."},
	{name: "policy", in: inNeeds, shape: "text", doc: "The selection policy that chooses among those that do."},

	// Actions of the pipeline's own.
	{name: "prompt", in: inOwnAction, shape: "text", doc: "What the model is asked; the parameters can be named in it."},
	{name: "prompt_file", in: inOwnAction, shape: "text", doc: "The file that holds the prompt."},
	{name: "parameters", in: inOwnAction, shape: "types", doc: "What the action is given, by name, with its type."},
	{name: "returns", in: inOwnAction, shape: "types", doc: "What it gives, by name, with its type; without it, a text."},
	{name: "description", in: inOwnAction | inAgent, shape: "text", doc: "What it is for. Never rendered."},
}

// Words that keys of agents can have.
var (
	outputModes = []string{"native", "tool", "prompt"}
	httpMethods = []string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"}
	providers   = []string{"anthropic", "openai", "google", "local", "script", "cassette"}
	modelAPIs   = []string{"chat", "responses"}
	transports  = []string{"http", "sse"}
)

// agentShape is shape for the values of agentKeys.
func agentShape(name string) object {
	named := func(in place) object {
		return orNull(object{"type": "object", "additionalProperties": mapShape(in)})
	}
	switch name {
	case "agents":
		return named(inAgent)
	case "models":
		return named(inModel)
	case "servers":
		return named(inServer)
	case "agent_input":
		return enum("stdin", "argument")
	case "agent_output":
		return mapShape(inAgentOutput)
	case "output_mode":
		return enum(outputModes...)
	case "limits":
		return mapShape(inLimits)
	case "session":
		return mapShape(inSession)
	case "budget":
		return mapShape(inBudget)
	case "needs":
		return mapShape(inNeeds)
	case "tools":
		one := anyOf(object{"type": "string"}, mapShape(inTool))
		return anyOf(one, object{"type": []any{"array", "null"}, "items": one})
	case "approval":
		return anyOf(object{"type": []any{"string", "boolean"}}, mapShape(inApproval))
	case "http_tool":
		return mapShape(inHTTPTool)
	case "sql_tool":
		return mapShape(inSQLTool)
	case "http_method":
		return enum(httpMethods...)
	case "transport":
		return enum(append(slices.Clone(transports), "stdio")...)
	case "provider":
		return enum(providers...)
	case "model_api":
		return enum(modelAPIs...)
	case "expertise":
		return enum(pipeline.Expertises...)
	case "size":
		return object{"type": "string", "pattern": "^ *[0-9.]+[MBTmbt] *$"}
	}
	return object{}
}
