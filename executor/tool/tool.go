// Package tool is the contract between agents and their tools: a Tool has a
// name, a JSON Schema of its arguments and a function. A Box holds those that one
// agent may call while one attempt of its step lasts.
package tool

import (
	"context"
	"time"

	"github.com/orchestrator-project/orchestrator/executor"
	"github.com/orchestrator-project/orchestrator/executor/model"
	"github.com/orchestrator-project/orchestrator/pipeline"
)

// Tool is something that an agent may call.
type Tool struct {
	Name        string
	Description string
	// Schema is the JSON Schema (2020-12) of the arguments, of type object. They are
	// held against it before Run.
	Schema map[string]any
	// Effect says what a crash may do to a call; empty: at_most_once.
	Effect pipeline.Effect
	// EffectOf tells it by the arguments, where they decide; nil: Effect. EffectWith
	// is what to ask.
	EffectOf func(arguments map[string]any) pipeline.Effect
	Timeout  time.Duration // of one call; 0: none
	Gate     *pipeline.Gate
	// Human says that a call is a question to people: the loop asks it and gives the
	// answer as the result; Run is nil.
	Human bool
	// Run carries out a call. A *pipeline.Failure, and any other error but the
	// context's, executor.ErrJournal and *executor.Suspension, is a result that the
	// model reads.
	Run func(ctx context.Context, env executor.Env, c Call) (Result, error)

	compile func(schema map[string]any) (*model.Schema, error) // nil: model.Compile
}

// Call is a call of a tool.
type Call struct {
	N         int32          // its number in the step's journal
	ID        string         // as the model named it
	Arguments map[string]any // JSON values as of pipeline.DecodeValue
	// Key is equal over all attempts of the call and different for every call: what
	// services are handed so that they do nothing twice.
	Key string
	// Depth counts the agents that stand above: 0 within the step's own agent.
	Depth int
	// Again says that an earlier attempt may have begun this call.
	Again bool
	// Progress shows a piece of output to whoever looks on.
	Progress func(text string)
	// Ask asks people while the call goes on: elicitation.
	Ask func(ctx context.Context, question string, schema map[string]any) (*pipeline.Decision, error)
}

// Result is what a call gave.
type Result struct {
	Content []model.Block // text, image, audio, document
	Failed  bool          // the tool reports failure
}

// Text is a result that is a text.
func Text(s string) Result {
	return Result{Content: []model.Block{{Kind: model.BlockText, Text: s}}}
}

// Value is a result that is a JSON value.
func Value(v any) Result { return Text(string(pipeline.EncodeValue(v))) }

// Want is what an agent is to get.
type Want struct {
	Agent  *pipeline.Agent
	Root   *pipeline.Agent // the step's own, which knows the others; nil: Agent
	Unit   *pipeline.Unit  // whose names its tools mean: MCP servers, imports
	Depth  int             // of the agent that gets them
	Window int64           // tokens that the agent's model takes in; 0: unknown
	Nested func(ctx context.Context, env executor.Env, a *pipeline.Agent, prompt string, c Call) (Result, error)
	// Text evaluates a field of the plan in the step's scope.
	Text func(f *pipeline.Field, more map[string]any) (any, error)
	// Test evaluates a condition with more names.
	Test func(t *pipeline.Template, more map[string]any) (bool, error)
	// Secret finds a secret by its name.
	Secret func(name string) (string, bool)
}

// Source gives agents their tools.
type Source interface {
	// Open gives the tools that the agent may call, in the order of its list, each
	// name once. The box must be closed when the attempt ends. The error is a
	// *pipeline.Failure.
	Open(ctx context.Context, env executor.Env, w Want) (Box, error)
}

// Box holds the tools of one agent.
type Box interface {
	// Tools are those that the model is shown now. The list may change between
	// turns: servers come and go, and a search brings more.
	Tools() []Tool
	// Find gives a tool by the name that a model uses; also one that it is not
	// shown. nil: there is none.
	Find(name string) *Tool
	Close() error
}
