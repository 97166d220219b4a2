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

Without a network or a key, orchestrator run --script FILE answers from a file; such answers are marked with the model name script. Each call is recorded as soon as it is answered, so that no crash after that asks again.`

const structuredDoc = `Asks a language model and gives its answer as a value that satisfies a JSON Schema.

    - id: label
      action: generate_structured
      parameters:
        prompt: "Is this a bug or an idea? {{ issue }}"
        schema: {type: object, required: [label], properties: {label: {enum: [bug, idea]}}}

The output is the value: {{ label.label }}. An answer that violates the schema is asked for once more, with what is wrong; a second one fails the step with category contract. References in the schema lead nowhere but into the schema itself.`

// Generate asks a model for a text.
type Generate struct {
	Prompt      string `param:"required" doc:"what the model is asked"`
	System      string `doc:"instructions that stand above the prompt"`
	Model       string `doc:"the model to ask; default: the server's"`
	MaxTokens   int64  `doc:"the longest answer, in tokens; default: the model's own limit"`
	Temperature any    `type:"number" doc:"0 for steady answers, more for varied ones; default: the model's own"`

	asker
}

// GenerateStructured asks a model for a value.
type GenerateStructured struct {
	Prompt      string         `param:"required" doc:"what the model is asked"`
	Schema      map[string]any `param:"required" doc:"the JSON Schema (2020-12) of the wanted value"`
	System      string         `doc:"instructions that stand above the prompt"`
	Model       string         `doc:"the model to ask; default: the server's"`
	MaxTokens   int64          `doc:"the longest answer, in tokens; default: the model's own limit"`
	Temperature any            `type:"number" doc:"0 for steady answers, more for varied ones; default: the model's own"`

	asker
}

func generateAction(cfg Config, name string) executor.Action {
	a := executor.NewAction[Generate](executor.Describe{
		Name: name, Doc: generateDoc, Effect: pipeline.EffectAtLeastOnce, Model: true,
	})
	a.Spec.Returns = pipeline.Type{Kind: "string"}
	a.Journal = true
	return prepare(a, func(g *Generate) { g.asker = asker{action: name, models: cfg.Model} })
}

func structuredAction(cfg Config) executor.Action {
	const name = "generate_structured"
	a := executor.NewAction[GenerateStructured](executor.Describe{
		Name: name, Doc: structuredDoc, Effect: pipeline.EffectAtLeastOnce, Model: true,
	})
	a.Journal = true
	return prepare(a, func(g *GenerateStructured) { g.asker = asker{action: name, models: cfg.Model} })
}

// Run asks once; retries are the step's.
func (g Generate) Run(ctx context.Context, env executor.Env) (executor.Output, error) {
	r := g.request(env, g.System, g.Prompt)
	r.Model = g.Model
	if err := limits(r, g.MaxTokens, g.Temperature); err != nil {
		return executor.Output{}, err
	}
	return g.ask(ctx, env, r)
}

// Run asks once, and once more for an answer that violates the schema.
func (g GenerateStructured) Run(ctx context.Context, env executor.Env) (executor.Output, error) {
	r := g.request(env, g.System, g.Prompt)
	r.Model, r.Schema = g.Model, g.Schema
	if err := limits(r, g.MaxTokens, g.Temperature); err != nil {
		return executor.Output{}, err
	}
	return g.ask(ctx, env, r)
}

// asker is how the steps that ask a model do it.
type asker struct {
	action string
	models model.Caller
}

func (a asker) request(env executor.Env, system, prompt string) *model.Request {
	return &model.Request{
		Run: env.Run, Step: env.Path, Action: a.action, Needs: env.Needs, System: system,
		Messages:       []model.Message{model.UserText(prompt)},
		IdempotencyKey: env.IdempotencyKey(),
	}
}

// limits reads the parameters that bound an answer.
func limits(r *model.Request, maxTokens int64, temperature any) error {
	if maxTokens < 0 {
		return invalid("parameter max_tokens is %d; it cannot be negative", maxTokens)
	}
	r.MaxTokens = maxTokens
	switch t := temperature.(type) {
	case nil:
	case int64:
		f := float64(t)
		r.Temperature = &f
	case float64:
		r.Temperature = &t
	default:
		return invalid("parameter temperature must be a number")
	}
	return nil
}

// ask gives the text of the answer, or its value where the request has a schema.
func (a asker) ask(ctx context.Context, env executor.Env, r *model.Request) (executor.Output, error) {
	if a.models == nil {
		f := pipeline.Failuref(pipeline.CategoryModel,
			"no model is configured, and %s needs one: run with --script FILE to answer from a file", a.action)
		f.Reason = "no_model"
		return executor.Output{}, f
	}
	answer, err := a.models.Ask(ctx, env, r)
	var out executor.Output
	if answer != nil { // also one that violates the contract: it has its price
		out.Model = answer.Model
		if env.Journal == nil { // else its calls tell
			out.Usage = answer.Usage
		}
	}
	if err != nil {
		if ctx.Err() != nil {
			return out, ended(ctx)
		}
		if _, ok := errors.AsType[*pipeline.Failure](err); ok {
			return out, err
		}
		if _, ok := errors.AsType[*executor.Suspension](err); ok || errors.Is(err, executor.ErrJournal) {
			return out, err // the engine's to deal with
		}
		return out, pipeline.Failuref(pipeline.CategoryModel, "ask the model: %v", err)
	}
	text := answer.Text()
	n := len(text)
	out.Value = text
	if r.Schema != nil {
		out.Value = answer.Value
		n = len(pipeline.EncodeValue(answer.Value))
	}
	if n > maxValue {
		return executor.Output{}, tooLarge("the model's answer has %s; a step gives at most %s", size(int64(n)), size(maxValue))
	}
	return out, nil
}
