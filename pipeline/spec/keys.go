package spec

import (
	"fmt"
	"slices"
	"strings"

	"github.com/orchestrator-project/orchestrator/pipeline"
	"github.com/orchestrator-project/orchestrator/pipeline/expr"
)

// place is a set of the mappings that a key may stand in.
type place uint64

const (
	inDocument place = 1 << iota
	inSettings
	inContext
	inAuto
	inStep
	inRetry
	inOn
	inGoto
	inRule
	inFailure
	inCache
	inResources
	inSandbox
	inFor
	inWhile
	inRepeat
	inQueue
	inIf
	inElif
	inMatch
	inCompete
	inWait
	inAsk
	inApprove
	inType
	inAgent
	inOwnAction
	inPublish
	inConsume
	inFiles
	inInject
	inSkill
	inTriggers
	inCron
	inWebhook
	inCheckpoint
	inConcurrency
	inBudget
	inModel
	inNeeds
	inServer
	inTool
	inHTTPTool
	inSQLTool
	inApproval
	inAgentOutput
	inLimits
	inSession
	endOfPlaces
)

// inDoing marks the keys of a step that say what it does; beside inStep.
const inDoing place = 1 << 63

var placeNames = map[place]string{
	inDocument: "a pipeline", inSettings: "settings", inContext: "context", inAuto: "settings.auto", inStep: "a step", inRetry: "retry",
	inOn: "on", inGoto: "a route", inRule: "a rule", inFailure: "match of a rule", inCache: "cache", inResources: "resources", inSandbox: "sandbox",
	inFor: "for", inWhile: "while", inRepeat: "repeat", inQueue: "queue", inIf: "if", inElif: "elif", inMatch: "match", inCompete: "compete",
	inWait: "wait", inAsk: "ask", inApprove: "approve", inType: "a type",
	inAgent: "an agent", inOwnAction: "an action of the pipeline's own", inPublish: "publish", inConsume: "consume", inFiles: "files", inInject: "inject",
	inSkill: "SKILL.md", inTriggers: "on of a pipeline", inCron: "cron", inWebhook: "webhook", inCheckpoint: "checkpoint", inConcurrency: "concurrency",
	inBudget: "settings.budget", inModel: "a model", inNeeds: "requires_model", inServer: "an MCP server", inTool: "a tool", inHTTPTool: "http of a tool",
	inSQLTool: "sql of a tool", inApproval: "approval", inAgentOutput: "output of an agent", inLimits: "limits", inSession: "session",
}

func (p place) String() string { return placeNames[p] }

// key is a word of the language. The table of keys is the only list of them: the
// parser, the messages about unknown keys and the schema for editors read it.
type key struct {
	name    string
	aliases []string
	in      place
	shape   string // names a part of the schema, see schema.go
	must    bool   // required by the schema
	later   bool   // part of the language, not of this version
	doc     string
}

var keys = slices.Concat(flowKeys, agentKeys)

// flowKeys are those of pipelines, steps and types; agentKeys those of agents and
// all that they work with.
var flowKeys = []key{
	// The document.
	{name: "orchestrator", in: inDocument, shape: "one", doc: "Version of the language; 1 is the only one."},
	{name: "id", in: inDocument, shape: "text", doc: "The pipeline's id; by default made from its name."},
	{name: "name", in: inDocument, shape: "text", doc: "The pipeline's name; by default the file's. Never rendered."},
	{name: "version", in: inDocument, shape: "scalar", doc: "The pipeline's own version, by default 0.0.0."},
	{name: "description", in: inDocument, shape: "text", doc: "What the pipeline is for. Never rendered."},
	{name: "metadata", in: inDocument, shape: "any", doc: "Notes of any form; the engine does not read them."},
	{name: "inputs", aliases: []string{"parameters"}, in: inDocument, shape: "inputs", doc: "What a run is given, by name: a type, or a bare default value."},
	{name: "settings", in: inDocument, shape: "settings", doc: "How the run behaves as a whole."},
	{name: "context", in: inDocument, shape: "context", doc: "Older form of settings: timeout, max_retries and checkpoint_strategy; anything else becomes a var."},
	{name: "vars", in: inDocument, shape: "map", doc: "Values with names, worked out when the run begins."},
	{name: "secrets", in: inDocument, shape: "names", doc: "Names of the secrets that steps may ask for."},
	{name: "steps", in: inDocument, shape: "steps", must: true, doc: "What is to be done. A step waits for what it refers to and for its dependencies; all else may run at the same time."},
	{name: "finally", in: inDocument, shape: "steps", doc: "Steps that run once at the end, after success, failure or cancellation, one after the other."},
	{name: "outputs", in: inDocument, shape: "map", doc: "What the run gives, by name; without it, the output of each step."},
	{name: "models", in: inDocument, shape: "models", doc: "Models by names of the pipeline's own: which they are, and what they fall back on."},
	{name: "agents", in: inDocument, shape: "agents", doc: "Agents that steps hand prompts to, by name: programs with a command, or models with instructions and tools."},
	{name: "mcp_servers", in: inDocument, shape: "servers", doc: "Servers of the Model Context Protocol, by name, whose tools agents and steps may call."},
	{name: "actions", in: inDocument, shape: "own_actions", doc: "Actions of the pipeline's own, by name: prompts with typed parameters and results."},
	{name: "imports", in: inDocument, shape: "imports", doc: "Other pipelines that steps call, by name: files beside this one."},
	{name: "bundle", in: inDocument, shape: "names", doc: "Patterns of further files that travel with the pipeline, relative to its folder."},
	{name: "artifacts", in: inDocument, shape: "types", doc: "What steps publish and consume, by name, with its type."},
	{name: "on", in: inDocument, shape: "triggers", doc: "What starts runs once the pipeline is registered: times and webhooks."},

	// What starts runs.
	{name: "cron", in: inTriggers, shape: "cron", doc: "When to run: a cron expression of five fields, or an alias such as @daily; a list of them; or a mapping that says more."},
	{name: "webhook", in: inTriggers, shape: "webhook", doc: "Lets other services start runs by signed requests to /v1/hooks and the pipeline's id."},
	{name: "cron", in: inCron, shape: "names", must: true, doc: "A cron expression, or a list of them."},
	{name: "timezone", in: inCron, shape: "text", doc: "The time zone of the expressions, as in Europe/Berlin; default UTC."},
	{name: "overlap", in: inCron, shape: "overlap", doc: "What a fire does while the run before is not over: skip (default), queue keeps one for later, allow, cancel_previous."},
	{name: "catch_up", in: inCron, shape: "catch_up", doc: "Which fires that were missed while no server ran are made up: latest (default), all or none."},
	{name: "catch_up_window", in: inCron, shape: "duration", doc: "How old a missed fire may be to be made up; default 1h, at most 7d."},
	{name: "jitter", in: inCron, shape: "duration", doc: "Each fire is late by a part of this; default 0, at most 1h."},
	{name: "inputs", in: inCron, shape: "map", doc: "The inputs of the runs; those with defaults may be left out."},
	{name: "secret", in: inWebhook, shape: "text", must: true, doc: "The name of the server's secret with which requests are signed."},
	{name: "scheme", in: inWebhook, shape: "scheme", doc: "How they are signed: standard (default), as Standard Webhooks says, or github."},
	{name: "inputs", in: inWebhook, shape: "map", doc: "The inputs of the run, as templates over body and headers; without it, the body's fields that are inputs."},

	// Settings.
	{name: "timeout", in: inSettings | inContext, shape: "duration", doc: "How long the whole run may take; without it, as long as it likes."},
	{name: "max_parallel", in: inSettings, shape: "count", doc: "How many steps of the run may run at once."},
	{name: "on_error", in: inSettings, shape: "on_error", doc: "After a failed step: stop (default) starts nothing new, abort also cancels what runs, continue goes on with what does not depend on it."},
	{name: "order", in: inSettings, shape: "order", doc: "graph (default): steps run as soon as they can; sequence: in the order of the file."},
	{name: "retry", in: inSettings, shape: "retry", doc: "When failed steps are repeated that may safely be."},
	{name: "checkpoint", in: inSettings, shape: "checkpoint", doc: "When the state of a run is saved as a whole: adaptive (default), fixed, {fixed: N} or none."},
	{name: "max_retries", in: inContext, shape: "natural", doc: "How often a failed step is repeated."},
	{name: "fixed", in: inCheckpoint, shape: "count", doc: "How many records of the log lie between two savings."},
	{name: "checkpoint_strategy", in: inContext, shape: "checkpoint", doc: "As settings.checkpoint."},
	{name: "max_transitions", in: inSettings, shape: "count", doc: "How many jumps back one list of steps may take in all."},
	{name: "unknown_actions", in: inSettings, shape: "unknown_actions", doc: "What an action that the catalogue does not know means: error (default), or model, which asks a model to do what the name and parameters say."},
	{name: "auto", in: inSettings, shape: "auto", doc: "What filling in <AUTO> values may cost."},
	{name: "workspace", in: inSettings, shape: "text", doc: "A folder below the run's workspace that is used in its place."},
	{name: "priority", in: inSettings, shape: "integer", doc: "Of the pipeline's runs: higher ones begin first. Default 0."},
	{name: "max", in: inAuto, shape: "count", doc: "How many values may be filled in within a run."},
	{name: "cost_limit", in: inAuto, shape: "number", doc: "What they may cost within a run, in USD."},
	{name: "fallback", in: inAuto, shape: "any", doc: "The value where nothing else gives one and the tag has no fallback of its own."},
	{name: "budget", in: inSettings, shape: "budget", doc: "What the model calls of a run may take in all; before more is spent, the run waits for a higher budget."},
	{name: "tokens", in: inBudget, shape: "count", doc: "Tokens, in and out."},
	{name: "usd", in: inBudget, shape: "number", doc: "What they may cost, in USD."},
	{name: "calls", in: inBudget, shape: "count", doc: "How many calls there may be."},
	{name: "queue", in: inSettings, shape: "text", doc: "The queue in which runs wait for their start, unless the submission names another. Default default."},
	{name: "concurrency", in: inSettings, shape: "concurrency", doc: "How many runs of one key may be under way at the same time; others wait in the queue."},
	{name: "key", in: inConcurrency, shape: "text", must: true, doc: "What the runs share, as text over inputs, run and pipeline, as in deploy-{{ inputs.target }}. Runs of all pipelines with an equal key count; an empty one sets no bound."},
	{name: "max", in: inConcurrency, shape: "count", doc: "How many runs of the key may be under way, those that wait on their way included. Default 1."},

	// Steps: what holds for all of them.
	{name: "id", in: inStep, shape: "id", must: true, doc: "The step's name for other steps, unique in its list. Letters, digits, _ and -."},
	{name: "name", in: inStep, shape: "text", doc: "A title for people. Never rendered."},
	{name: "description", in: inStep, shape: "text", doc: "Never rendered."},
	{name: "metadata", in: inStep, shape: "any", doc: "Notes of any form; the engine does not read them."},
	{name: "dependencies", aliases: []string{"depends_on", "needs"}, in: inStep, shape: "names", doc: "Ids of steps of the same list that must be over first. What a step refers to in {{ }} need not be named."},
	{name: "condition", aliases: []string{"when"}, in: inStep, shape: "condition", doc: "The step is skipped unless this is true. A bare expression, or one {{ }}."},
	{name: "timeout", in: inStep, shape: "duration", doc: "How long one attempt may take: seconds, or 90s, 5m, 1h30m. Commands have 5m by default; 0 means no limit."},
	{name: "retry", in: inStep, shape: "retry", doc: "When a failed attempt is repeated."},
	{name: "max_retries", in: inStep, shape: "natural", doc: "How often a failed attempt is repeated; 2 means three attempts."},
	{name: "on_failure", in: inStep, shape: "on_failure", doc: "What a failure means: fail (default) skips what depends on the step, continue goes on with a null output, skip counts the step as skipped, retry repeats it; the id of a step of the same list goes on there."},
	{name: "on_success", in: inStep, shape: "id", doc: "The step of the same list to go on with after success. Those in between are skipped."},
	{name: "on_false", in: inStep, shape: "id", doc: "The step of the same list to go on with when the condition is false."},
	{name: "on", in: inStep, shape: "on", doc: "Where to go on, in full: success, failure and always, each with goto."},
	{name: "max_visits", in: inStep, shape: "count", doc: "How often jumps back may make the step begin, the first time included."},
	{name: "on_error", in: inStep, shape: "rules", doc: "What is done about failures: rules, of which the first that matches counts."},
	{name: "state", in: inStep, shape: "map", doc: "Variables that are set when the step has succeeded. They can be read by name anywhere and are null before."},
	{name: "effect", in: inStep, shape: "effect", doc: "What a crash may do to the step: pure and idempotent steps are repeated freely, at_least_once with the same idempotency key, at_most_once never."},
	{name: "cache", in: inStep, shape: "cache", doc: "true: an equal step of an earlier run need not run again."},
	{name: "critical", in: inStep, shape: "boolean", doc: "The state of the run is saved as a whole after this step."},
	{name: "worker", in: inStep, shape: "names", doc: "Labels that the worker which runs the step must have."},
	{name: "resources", in: inStep, shape: "resources", doc: "What an attempt takes of its worker."},
	{name: "sandbox", in: inStep, shape: "sandbox", doc: "Confines what the step runs: true, or how."},
	{name: "order", in: inStep, shape: "order", doc: "Of a block's steps: sequence (default), or graph."},
	{name: "parameters", aliases: []string{"with"}, in: inStep, shape: "map", doc: "What the action, skill or called pipeline is given."},
	{name: "tool", in: inStep, shape: "text", doc: "The tool whose operation the action names, as in tool: filesystem, action: write."},
	{name: "env", in: inStep, shape: "map", doc: "Environment variables of what the step runs."},
	{name: "secrets", in: inStep, shape: "names", doc: "Secrets that what the step runs finds as environment variables of these names."},
	{name: "capture", in: inStep, shape: "capture", doc: "How a command's standard output becomes its output: text (default), lines, or json."},

	// Steps: what they do.
	{name: "action", in: inStep | inDoing, shape: "action", doc: "The action to run."},
	{name: "command", in: inStep | inDoing, shape: "list", doc: "A program with its arguments, run without a shell."},
	{name: "run", in: inStep | inDoing, shape: "text", doc: "A line for the shell. Values are quoted with | sh."},
	{name: "set", in: inStep | inDoing, shape: "map", doc: "State variables to set; together they are the step's output."},
	{name: "assert", in: inStep | inDoing, shape: "condition", doc: "Fails the step unless this is true."},
	{name: "wait", in: inStep | inDoing, shape: "wait", doc: "Waits for a time, a signal or files."},
	{name: "ask", in: inStep | inDoing, shape: "ask", doc: "Asks people; the answer is the output."},
	{name: "approve", in: inStep | inDoing, shape: "approve", doc: "Asks people to approve or reject; a rejection fails the step."},
	{name: "call", in: inStep | inDoing, shape: "text", doc: "Runs an imported pipeline; its outputs are the output."},
	{name: "pipeline", in: inStep | inDoing, shape: "document", doc: "A pipeline of its own, with its own names, called in place."},
	{name: "for", in: inStep | inDoing, shape: "for", doc: "Repeats the steps, or the one action of this step, for each item."},
	{name: "while", in: inStep | inDoing, shape: "while", doc: "Repeats the steps while a condition holds."},
	{name: "repeat", in: inStep | inDoing, shape: "repeat", doc: "Repeats the steps until a condition holds, which is tested after each pass."},
	{name: "queue", in: inStep | inDoing, shape: "queue", doc: "Works a list of items off, several at once, until it is empty or a condition holds."},
	{name: "if", in: inStep | inDoing, shape: "if", doc: "Steps to run under a condition; with a text, the same as condition."},
	{name: "elif", in: inStep, shape: "elifs", doc: "Further conditions, tried in turn."},
	{name: "else", in: inStep, shape: "steps", doc: "Steps to run when no condition held."},
	{name: "match", in: inStep | inDoing, shape: "match", doc: "Runs the steps of the case that a value is."},
	{name: "parallel", in: inStep | inDoing, shape: "steps", doc: "Steps that run at the same time."},
	{name: "compete", in: inStep | inDoing, shape: "compete", doc: "Runs candidates at the same time and takes the best."},
	{name: "steps", in: inStep, shape: "steps", doc: "The body of for, while and repeat, one step after the other."},
	{name: "detach", in: inStep, shape: "boolean", doc: "Of a call: begins a run of its own and goes on without waiting for it."},

	{name: "skill", in: inStep | inDoing, shape: "text", doc: "A skill to use, by name: skills/NAME/SKILL.md beside the pipeline."},
	{name: "agent", in: inStep | inDoing, shape: "text", doc: "An agent of the pipeline's, which is handed the prompt."},
	{name: "prompt", in: inStep, shape: "text", doc: "What an agent or model is asked."},
	{name: "prompt_file", in: inStep, shape: "text", doc: "The file that holds the prompt, relative to the pipeline's folder. It is a template."},
	{name: "model", in: inStep, shape: "text", doc: "The model that is asked, in place of the default."},
	{name: "returns", in: inStep, shape: "returns", doc: "What the step promises to give: fields with their types, and from: where they are read. With by and cases, one of several sets of fields."},
	{name: "publish", in: inStep, shape: "publish", doc: "Makes new versions of artifacts of fields of the result."},
	{name: "consume", in: inStep, shape: "consume", doc: "Artifacts that the step is handed; it waits for their producers."},
	{name: "files", in: inStep, shape: "files", doc: "Files that are put into the prompt."},
	{name: "session", in: inStep, shape: "session", doc: "The conversation that an agent which is a program starts or continues."},
	{name: "requires_model", in: inStep, shape: "needs", doc: "What the model that is asked must be able to do; one that does is chosen."},
	{name: "artifacts", in: inStep, shape: "names", doc: "Patterns of files that the step leaves in the workspace: they are kept with the run, each as an artifact that is named by its path."},

	// Contracts.
	{name: "artifact", in: inPublish | inConsume, shape: "text", must: true, doc: "The name of the artifact."},
	{name: "from", in: inPublish, shape: "text", must: true, doc: "The field of the result that becomes the new version."},
	{name: "from", in: inConsume, shape: "names", doc: "Ids of the steps that may have published it; by default any."},
	{name: "fresh", in: inConsume, shape: "fresh", doc: "any (default), or new: a version that this step has not consumed before."},
	{name: "as", in: inConsume, shape: "consume_as", doc: "How the step is handed it: as reference (default), content or none."},
	{name: "required", in: inFiles, shape: "names", doc: "Patterns that must match a file, relative to the workspace."},
	{name: "optional", in: inFiles, shape: "names", doc: "Patterns that may match files."},
	{name: "inject", in: inFiles, shape: "inject", doc: "How the files are put into the prompt."},
	{name: "mode", in: inInject, shape: "inject_mode", doc: "content (default), or list: only their names."},
	{name: "position", in: inInject, shape: "inject_position", doc: "after (default) the prompt, or before it."},

	// The front matter of a skill.
	{name: "name", in: inSkill, shape: "text", must: true, doc: "The skill's name, which is its folder's too."},
	{name: "description", in: inSkill, shape: "text", must: true, doc: "What the skill does and when to use it."},
	{name: "parameters", in: inSkill, shape: "types", doc: "What it is given, by name, with its type; without it, anything."},
	{name: "returns", in: inSkill, shape: "types", doc: "What it gives, by name, with its type; without it, anything."},
	{name: "run", in: inSkill, shape: "any", doc: "The program with its arguments, or a line for the shell; without it, a model is given the text of the skill."},
	{name: "sandbox", in: inSkill, shape: "sandbox", doc: "What its program, which always runs in a sandbox, needs there, as in {network: true}."},
	{name: "tools", in: inSkill, shape: "names", doc: "Tools that it uses."},
	{name: "active", in: inSkill, shape: "boolean", doc: "false: it may not be used."},
	{name: "license", in: inSkill, shape: "text", doc: "Its license."},
	{name: "compatibility", in: inSkill, shape: "text", doc: "What it needs of its surroundings."},
	{name: "metadata", in: inSkill, shape: "any", doc: "Notes of any form."},
	{name: "allowed-tools", in: inSkill, shape: "any", doc: "Tools that it may use without asking; for other programs."},

	// Retry.
	{name: "max_attempts", in: inRetry, shape: "count", doc: "How often the step is tried in all; default 3."},
	{name: "backoff", in: inRetry, shape: "backoff", doc: "How the pause grows: exponential (default), linear or constant."},
	{name: "initial", in: inRetry, shape: "duration", doc: "The first pause, default 1s."},
	{name: "max", in: inRetry, shape: "duration", doc: "The longest pause, default 60s."},
	{name: "jitter", in: inRetry, shape: "jitter", doc: "full (default) draws each pause at random below its length; none does not."},
	{name: "on", in: inRetry, shape: "retry_on", doc: "What is repeated: categories of failure, failed for every failure that a step reports, or exit codes. Default: rate_limit, timeout, resource_exhaustion, system."},
	{name: "timeout_factor", in: inRetry, shape: "number", doc: "By what the timeout grows with each attempt."},

	// Jumps and failures.
	{name: "success", in: inOn, shape: "goto", doc: "After success."},
	{name: "failure", in: inOn, shape: "goto", doc: "After a failure, which is handled by it."},
	{name: "always", in: inOn, shape: "goto", doc: "Where no other route is taken."},
	{name: "goto", in: inGoto, shape: "id", must: true, doc: "The step of the same list to go on with."},
	{name: "match", in: inRule, shape: "failure", doc: "Which failures the rule is for: all that is named must hold. Without it: every one."},
	{name: "do", in: inRule, shape: "rule", must: true, doc: "retry, fallback, switch_model, goto or fail."},
	{name: "retry", in: inRule, shape: "retry", doc: "Of retry: how often and when."},
	{name: "value", in: inRule, shape: "any", doc: "Of fallback: the step's output."},
	{name: "model", in: inRule, shape: "text", doc: "Of switch_model: the model that the next attempts ask."},
	{name: "goto", in: inRule, shape: "id", doc: "Of goto: the step of the same list to go on with."},
	{name: "category", in: inFailure, shape: "categories", doc: "Categories of failure, of which it must be one."},
	{name: "code", aliases: []string{"codes"}, in: inFailure, shape: "codes", doc: "Exit codes, HTTP statuses or reasons, of which it must have one."},
	{name: "pattern", in: inFailure, shape: "text", doc: "A regular expression that the message must hold."},

	// Where and with what a step runs.
	{name: "ttl", in: inCache, shape: "duration", doc: "How long a result is kept, default 24h."},
	{name: "key", in: inCache, shape: "any", doc: "What is compared in place of the step's parameters."},
	{name: "cpu", in: inResources | inSandbox, shape: "number", doc: "Processors."},
	{name: "memory_gb", in: inResources, shape: "number", doc: "Memory, in GB."},
	{name: "gpu", in: inResources, shape: "number", doc: "Graphics processors."},
	{name: "driver", in: inSandbox, shape: "text", doc: "The kind of sandbox: process, docker, host; default: the first of the server's that works."},
	{name: "network", in: inSandbox, shape: "boolean", doc: "Whether the network can be reached; default false."},
	{name: "memory", in: inSandbox, shape: "bytes", doc: "The most memory: bytes, or as in 512MB."},
	{name: "pids", in: inSandbox, shape: "count", doc: "The most processes."},
	{name: "timeout", in: inSandbox, shape: "duration", doc: "How long the processes may run."},

	// Waiting and asking.
	{name: "for", in: inWait, shape: "field_duration", doc: "How long."},
	{name: "until", in: inWait, shape: "text", doc: "A time, as in 2026-01-31T06:00:00Z."},
	{name: "signal", in: inWait, shape: "text", doc: "The name of a signal that is sent to the run; what comes with it is the output."},
	{name: "files", in: inWait, shape: "text", doc: "A pattern of files, relative to the workspace; their paths are the output."},
	{name: "count", in: inWait, shape: "count", doc: "Of files: how many there must be, default 1."},
	{name: "poll", in: inWait, shape: "duration", doc: "Of files: how often to look, default 500ms."},
	{name: "timeout", in: inWait, shape: "duration", doc: "How long to wait at most, the same as the step's timeout."},
	{name: "question", in: inAsk | inApprove, shape: "text", must: true, doc: "What is asked."},
	{name: "choices", in: inAsk, shape: "items", doc: "The possible answers."},
	{name: "schema", in: inAsk, shape: "type", doc: "The type of the answer."},
	{name: "default", in: inAsk, shape: "any", doc: "The answer that is offered, and taken when nobody answers in time."},
	{name: "assignees", in: inAsk | inApprove, shape: "field_names", doc: "Who is asked; without it, anyone may answer."},
	{name: "quorum", in: inAsk | inApprove, shape: "count", doc: "How many must say the same, default 1."},
	{name: "deadline", in: inAsk | inApprove, shape: "duration", doc: "How long to wait for people."},
	{name: "on_timeout", in: inAsk, shape: "ask_timeout", doc: "At the deadline: default takes the default, which is the default where there is one; fail fails the step."},
	{name: "on_timeout", in: inApprove, shape: "approve_timeout", doc: "At the deadline: reject (default), approve, or fail."},

	// Blocks.
	{name: "items", in: inFor | inQueue, shape: "items", must: true, doc: "The items: a list, or an expression that gives one."},
	{name: "variable", in: inFor | inQueue, shape: "id", doc: "The item's name in the body; item always works too."},
	{name: "parallel", in: inFor, shape: "parallel", doc: "true: all items at once as far as the run allows; a number: that many at once. Default: one after the other."},
	{name: "collect", in: inFor, shape: "condition", doc: "An expression, worked out after each pass, that takes the place of the pass's output in results."},
	{name: "on_item_error", in: inFor, shape: "on_item_error", doc: "fail (default) ends the loop with the first failed item; continue puts null into results and the failure into errors."},
	{name: "max_parallel", in: inQueue, shape: "count", doc: "How many items are worked on at once; default 1."},
	{name: "steps", in: inQueue, shape: "steps", must: true, doc: "What is done with each item, one step after the other."},
	{name: "until", in: inQueue, shape: "condition", doc: "Tested after each item; no further one begins once it is true."},
	{name: "until", in: inRepeat, shape: "condition", must: true, doc: "Tested after each pass; it is the last one once this is true."},
	{name: "on_exhausted", in: inRepeat, shape: "on_exhausted", doc: "After max_iterations passes: fail (default), continue, or outputs that take the place of the loop's own."},
	{name: "condition", in: inWhile, shape: "condition", must: true, doc: "Another pass begins while this is true."},
	{name: "max_iterations", in: inWhile | inRepeat, shape: "count", must: true, doc: "The most passes. A while loop ends then with completed: false."},
	{name: "collect", in: inWhile | inRepeat | inQueue, shape: "condition", doc: "An expression, worked out after each pass, that takes the place of the pass's output in results."},
	{name: "condition", in: inIf | inElif, shape: "condition", must: true, doc: "When to run the steps."},
	{name: "then", in: inIf | inElif, shape: "steps", must: true, doc: "The steps."},

	{name: "on", in: inMatch, shape: "any", must: true, doc: "The value that is looked at."},
	{name: "cases", in: inMatch, shape: "cases", must: true, doc: "The steps for each value, which is compared as text."},
	{name: "default", in: inMatch, shape: "steps", doc: "The steps for any other value."},
	{name: "candidates", in: inCompete, shape: "steps", must: true, doc: "Steps that run at the same time; one that fails is out."},
	{name: "judge", in: inCompete, shape: "judge", doc: "What decides: an action, agent or any other doing, which finds the candidates' outputs in {{ candidates }} and gives the id of the best."},
	{name: "tie_break", in: inCompete, shape: "tie_break", doc: "Without a judge, or when it names none: first (default), shortest or longest."},
	{name: "ledger", in: inCompete, shape: "text", doc: "A file that a line of JSON about each contest is added to, relative to the workspace."},

	// Types.
	{name: "type", in: inType, shape: "type_name", doc: "string, integer, number, boolean, enum, path, list, map, any, file, secret, duration or union; list<T> and optional<T>."},
	{name: "default", in: inType, shape: "any", doc: "The value where none is given. An input without one is required."},
	{name: "required", in: inType, shape: "boolean", doc: "false: the input may be left out, and is null then."},
	{name: "description", aliases: []string{"help"}, in: inType, shape: "text", doc: "What it is for."},
	{name: "values", aliases: []string{"enum", "allowed", "choices"}, in: inType, shape: "values", doc: "The values that are allowed."},
	{name: "under", in: inType, shape: "text", doc: "Of a path: the folder that it must be in."},
	{name: "must_exist", in: inType, shape: "boolean", doc: "Of a path: something must be there."},
	{name: "items", in: inType, shape: "type", doc: "Of a list: the type of its items."},
	{name: "properties", in: inType, shape: "types", doc: "Of a map: its keys and their types."},
	{name: "additional", aliases: []string{"additionalProperties"}, in: inType, shape: "boolean", doc: "Of a map: whether other keys may stand in it."},
	{name: "optional", in: inType, shape: "boolean", doc: "Whether null is a value too."},
	{name: "min", aliases: []string{"minimum"}, in: inType, shape: "number", doc: "Of a number: the least that it can be."},
	{name: "max", aliases: []string{"maximum"}, in: inType, shape: "number", doc: "Of a number: the most that it can be."},
	{name: "by", in: inType, shape: "text", doc: "Of a union: the field that tells its cases apart."},
	{name: "cases", in: inType, shape: "fields", doc: "Of a union: the fields of each case, by the value of that field."},
	{name: "schema", in: inType, shape: "any", doc: "A JSON Schema that the value must satisfy besides."},
}

// byPlace finds keys by place and spelling.
var byPlace = indexKeys()

func indexKeys() map[place]map[string]*key {
	m := map[place]map[string]*key{}
	for p := inDocument; p < endOfPlaces; p <<= 1 {
		m[p] = map[string]*key{}
	}
	for i := range keys {
		k := &keys[i]
		for p, names := range m {
			if k.in&p == 0 {
				continue
			}
			names[k.name] = k
			for _, a := range k.aliases {
				names[a] = k
			}
		}
	}
	return m
}

// spellings lists what may be written in a place.
func spellings(in place) []string {
	var names []string
	for name, k := range byPlace[in] {
		if !k.later {
			names = append(names, name)
		}
	}
	return names
}

// fields are the known keys of a mapping, in the order of the source.
type fields struct {
	node   *node
	where  where
	list   []field
	broken bool // a key stands here that was reported; what is missing may be meant by it
}

type field struct {
	*key
	pair *pair
}

// get is the value of a key, or nil.
func (f *fields) get(name string) *node {
	if p := f.pair(name); p != nil {
		return p.value
	}
	return nil
}

func (f *fields) pair(name string) *pair {
	for i := range f.list {
		if f.list[i].name == name {
			return f.list[i].pair
		}
	}
	return nil
}

// fields checks the keys of a mapping. Unknown ones, and ones that this version
// does not carry out, are errors; w says where the mapping stands.
func (c *compiler) fields(n *node, in place, w where) *fields {
	f := &fields{node: n, where: w, list: make([]field, 0, len(n.pairs))}
	table := byPlace[in]
	for i := range n.pairs {
		p := &n.pairs[i]
		k := table[p.name]
		switch {
		case k == nil:
			if in == inContext {
				continue
			}
			f.broken = true
			x := fault{code: "E0110", at: p.key.at, msg: fmt.Sprintf("%s has no key %q", in, p.name)}
			known, other := spellings(in), elsewhere(p.name, in)
			s := c.suggest(p.name, known)
			param := in == inStep && c.isParameter(n, p.name)
			switch {
			case param:
				x.hint = fmt.Sprintf("%s is a parameter of the action: write it under with", p.name)
			case s != "" && (other == "" || singular(s) == singular(p.name)):
				x.msg += fmt.Sprintf(" (did you mean %q?)", s)
			case other != "":
				x.hint = other
			case len(known) <= maxListed:
				slices.Sort(known)
				x.hint = "it has " + quoteList(known)
			}
			c.error(x, w)
		case k.later:
			f.broken = true
			c.error(fault{code: "E0110", at: p.key.at, msg: fmt.Sprintf("%s is part of the language, but this version does not support it yet", p.name)}, w)
		default:
			if other := f.pair(k.name); other != nil {
				c.found.error(c.placed(fault{code: "E0102", at: p.key.at, msg: fmt.Sprintf("%s and %s are the same key", other.name, p.name)}, w), c.found.related(other.key.off, "first here"))
				continue
			}
			f.list = append(f.list, field{k, p})
		}
	}
	return f
}

// withinAgents are the mappings within agents, their tools and models; their keys
// are not what someone means who writes one outside.
const withinAgents = inBudget | inModel | inNeeds | inServer | inTool | inHTTPTool | inSQLTool | inApproval | inAgentOutput | inLimits | inSession

// elsewhere is a hint where a key stands in the wrong mapping.
func elsewhere(name string, in place) string {
	for p := inDocument; p < endOfPlaces; p <<= 1 {
		if p&withinAgents != 0 && in&(withinAgents|inAgent) == 0 {
			continue
		}
		if k := byPlace[p][name]; p != in && k != nil && !k.later {
			return fmt.Sprintf("%s is a key of %s", name, p)
		}
	}
	return ""
}

// isParameter reports whether the action of a step has a parameter of that name.
func (c *compiler) isParameter(step *node, name string) bool {
	tool, action := "", step.get("action")
	if t := step.get("tool"); t != nil {
		tool = t.text
	}
	if action == nil {
		return false
	}
	a := c.cat.find(tool, action.text)
	return a != nil && slices.ContainsFunc(a.Params, func(p pipeline.Property) bool { return p.Name == name })
}

// singular is a key without its plural.
func singular(name string) string { return strings.TrimSuffix(name, "s") }

// maxListed is how many keys a hint names at most.
const maxListed = 16

// maxSuggested bounds how many names are compared in the search for what was meant.
const maxSuggested = 200_000

// suggest is the likely meaning of a misspelled name. Where there are many
// findings, it saves the effort.
func (c *compiler) suggest(name string, among []string) string {
	if c.suggested += len(among); c.suggested > maxSuggested || len(c.found.list) > 2*maxDiagnostics {
		return ""
	}
	return expr.Suggest(name, among)
}
