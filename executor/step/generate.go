package step

import (
	"context"
	"errors"

	"github.com/orchestrator-project/orchestrator/executor"
	"github.com/orchestrator-project/orchestrator/executor/model"
	"github.com/orchestrator-project/orchestrator/pipeline"
)

const generateDoc = `Asks a language model and gives its answer as a text.

    - id: greeting
      action: generate
      parameters: {prompt: "Greet {{ inputs.name }} in one line."}

Without a network or a key, orchestrator run --script FILE answers from a file; such answers are marked with the model name script. A crash may ask again, with the same idempotency key.`

// Generate asks a model for a text.
type Generate struct {
	Prompt      string `param:"required" doc:"what the model is asked"`
	System      string `doc:"instructions that stand above the prompt"`
	Model       string `doc:"the model to ask; default: the server's"`
	MaxTokens   int64  `doc:"the longest answer, in tokens; default: the model's own limit"`
	Temperature any    `type:"number" doc:"0 for steady answers, more for varied ones; default: the model's own"`

	action   string
	provider model.Provider
}

func generateAction(cfg Config, name string) executor.Action {
	a := executor.NewAction[Generate](executor.Describe{
		Name: name, Doc: generateDoc, Effect: pipeline.EffectAtLeastOnce, Model: true,
	})
	a.Spec.Returns = pipeline.Type{Kind: "string"}
	return prepare(a, func(g *Generate) { g.action, g.provider = name, cfg.Model })
}

// Run asks once; retries are the step's.
func (g Generate) Run(ctx context.Context, env executor.Env) (executor.Output, error) {
	if g.provider == nil {
		f := pipeline.Failuref(pipeline.CategoryModel,
			"no model is configured, and %s needs one: run with --script FILE to answer from a file", g.action)
		f.Reason = "no_model"
		return executor.Output{}, f
	}
	r := model.Request{
		Step: env.Path, Action: g.action, Model: g.Model, System: g.System, MaxTokens: g.MaxTokens,
		Messages:       []model.Message{{Role: model.User, Text: g.Prompt}},
		IdempotencyKey: env.IdempotencyKey(),
	}
	if g.MaxTokens < 0 {
		return executor.Output{}, invalid("parameter max_tokens is %d; it cannot be negative", g.MaxTokens)
	}
	switch t := g.Temperature.(type) {
	case nil:
	case int64:
		f := float64(t)
		r.Temperature = &f
	case float64:
		r.Temperature = &t
	default:
		return executor.Output{}, invalid("parameter temperature must be a number")
	}
	a, err := g.provider.Call(ctx, r)
	if err != nil {
		if ctx.Err() != nil {
			return executor.Output{}, ended(ctx)
		}
		if _, ok := errors.AsType[*pipeline.Failure](err); ok {
			return executor.Output{}, err
		}
		return executor.Output{}, pipeline.Failuref(pipeline.CategoryModel, "ask the model: %v", err)
	}
	if len(a.Text) > maxValue {
		return executor.Output{}, tooLarge("the model's answer has %s; a step gives at most %s", size(int64(len(a.Text))), size(maxValue))
	}
	return executor.Output{Value: a.Text, Model: a.Model, Usage: a.Usage}, nil
}
