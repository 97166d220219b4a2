// Package agent runs agents: a model is asked, calls tools, reads what they gave
// and is asked again, until it answers. Every turn and every call of a tool
// stands in the step's journal, so that an attempt which goes on after a crash or
// after people have decided something begins with the conversation as it was:
// what is finished is not done again.
//
//	actions := executor.Config{Agent: agent.New(agent.Config{Models: caller, Tools: tools})}
//
// A turn is recorded by the model.Caller. Of the calls that it asks for, the loop
// records that they begin, where a crash must not repeat them unseen, and what
// they gave. Calls that people have to approve are asked for by laying the step
// down (executor.Suspension), once all others of the turn are done.
package agent

import (
	"context"
	"errors"
	"time"

	"github.com/orchestrator-project/orchestrator/executor"
	"github.com/orchestrator-project/orchestrator/executor/model"
	"github.com/orchestrator-project/orchestrator/executor/tool"
	"github.com/orchestrator-project/orchestrator/pipeline"
)

// Config is what agents work with.
type Config struct {
	Models model.Caller // nil: every agent fails with reason no_model
	Tools  tool.Source  // nil: agents have no tools
	// Window tells how many tokens the model of that name takes in; 0: unknown. The
	// unit, which may be nil, has names of its own. nil: nothing is known.
	Window func(u *pipeline.Unit, model string) int64
	// Grace is for how long calls that may have effects go on after their step is
	// cancelled, so that what came of them is recorded; default 5s.
	Grace time.Duration
}

// The reasons of agents that fail.
const (
	ReasonLoop    = "loop_detected"    // it made the same call again and again
	ReasonSteps   = "limit_steps"      // no answer within limits.steps
	ReasonTokens  = "limit_tokens"     // limits.tokens is used up
	ReasonUSD     = "limit_usd"        // limits.usd is used up
	ReasonWall    = "limit_wall"       // limits.wall is over
	ReasonEmpty   = "empty_answer"     // the model said nothing, also when asked again
	ReasonCut     = "answer_cut"       // its answer was cut off, also when asked again
	ReasonFilter  = "content_filtered" // the provider has kept the answer back
	reasonNoModel = "no_model"
)

// New is the action behind steps whose agent is no program.
func New(cfg Config) executor.Action {
	if cfg.Grace <= 0 {
		cfg.Grace = 5 * time.Second
	}
	return executor.Action{
		Spec: pipeline.ActionSpec{
			Key: pipeline.AgentAction, Name: pipeline.AgentAction, Effect: pipeline.EffectAtLeastOnce, Model: true, Returns: pipeline.Type{Kind: "any"},
			Doc: "Hands a prompt to an agent: a model that may call tools before it answers.",
		},
		Journal: true, Workspace: true,
		Bind: func(map[string]any) (executor.Runner, error) { return runner{&cfg}, nil },
	}
}

type runner struct{ cfg *Config }

// Run works until the agent has answered.
func (r runner) Run(ctx context.Context, env executor.Env) (executor.Output, error) {
	given := env.Agent
	if given == nil || env.Journal == nil {
		return executor.Output{}, pipeline.Failuref(pipeline.CategorySystem, "the agent was given nothing to work with")
	}
	if r.cfg.Models == nil {
		f := pipeline.Failuref(pipeline.CategoryModel, "no model is configured, and the agent %s needs one: run with --script FILE to answer from a file", given.Agent.Name)
		f.Reason = reasonNoModel
		return executor.Output{}, f
	}
	if wall := given.Agent.Limits.Wall; wall > 0 {
		f := pipeline.Failuref(pipeline.CategoryTimeout, "the agent %s has worked for %s, the limit of its wall time", given.Agent.Name, wall)
		f.Reason = ReasonWall
		var stop context.CancelFunc
		ctx, stop = context.WithTimeoutCause(ctx, wall, f)
		defer stop()
	}
	w := &attempt{cfg: r.cfg, env: env, given: given, past: fold(env.Journal.Events())}
	w.crew.join()
	l, err := w.open(ctx, opening{agent: given.Agent, prompt: given.Prompt, instructions: given.Instructions, model: given.Model, needs: given.Needs, schema: given.Schema})
	if err != nil {
		return executor.Output{}, ended(ctx, err)
	}
	defer l.close()
	v, err := l.run(ctx)
	out := executor.Output{Value: v, Model: l.answered}
	if err != nil {
		return executor.Output{Model: l.answered}, ended(ctx, err)
	}
	return out, nil
}

// ended is the error of an attempt whose context may have ended it.
func ended(ctx context.Context, err error) error {
	if ctx.Err() == nil || errors.Is(err, executor.ErrJournal) {
		return err
	}
	if f, ok := errors.AsType[*pipeline.Failure](context.Cause(ctx)); ok {
		return f
	}
	return context.Cause(ctx)
}

// attempt is one attempt of a step's agent, with all agents that it comes to.
type attempt struct {
	cfg   *Config
	env   executor.Env
	given *executor.AgentEnv
	past  *past
	crew  crew
}

// opening is what an agent begins with.
type opening struct {
	agent        *pipeline.Agent
	prompt       string
	instructions string
	model        string
	needs        *pipeline.Needs
	schema       map[string]any // of the answer, besides the agent's own; nil: none
	depth        int
	in           int32 // N of the tool call that it works for; 0: the step
	spent        *account
}

// open prepares an agent.
func (w *attempt) open(ctx context.Context, o opening) (*loop, error) {
	l := &loop{
		attempt: w, agent: o.agent, in: o.in, depth: o.depth, model: o.model, needs: o.needs, system: o.instructions,
		limits: bounds(o.agent.Limits), spent: &account{up: o.spent},
		equal: map[string]int{}, ids: map[string]bool{},
	}
	w.past.charge(l.spent, o.in)
	if w.cfg.Tools != nil {
		l.skills = tool.Skills(o.agent)
		l.system = joined(l.system, l.skills)
	}
	l.output = outputOf(o.agent.Output, o.schema)
	if l.output.mode == modePrompt {
		l.system = joined(l.system, l.output.told())
	}
	l.messages = []model.Message{model.UserText(o.prompt)}
	if first := w.past.opening(o.in); first != nil {
		l.messages = first
	}
	if w.cfg.Tools == nil {
		return l, nil
	}
	window := int64(0)
	if w.cfg.Window != nil {
		window = w.cfg.Window(w.given.Unit, l.model)
	}
	box, err := w.cfg.Tools.Open(ctx, w.env, tool.Want{
		Window: window,
		Agent:  o.agent, Root: w.given.Agent, Unit: w.given.Unit, Depth: o.depth, Nested: l.nested,
		Text: w.given.Text, Test: w.given.Test, Secret: w.given.Secret,
	})
	if err != nil {
		return nil, err
	}
	l.box = box
	return l, nil
}

func (l *loop) close() {
	if l.box != nil {
		_ = l.box.Close() // what it could not free has no bearing on the answer
	}
}

// bounds are an agent's limits with the defaults.
func bounds(l pipeline.AgentLimits) pipeline.AgentLimits {
	for _, d := range []struct {
		have *int
		want int
	}{{&l.Steps, 20}, {&l.Parallel, 8}, {&l.RepeatCalls, 3}, {&l.Depth, 4}} {
		if *d.have <= 0 {
			*d.have = d.want
		}
	}
	return l
}

func joined(a, b string) string {
	if a == "" || b == "" {
		return a + b
	}
	return a + "\n\n" + b
}
