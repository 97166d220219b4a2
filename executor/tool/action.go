package tool

import (
	"context"
	"strings"

	"github.com/orchestrator-project/orchestrator/executor"
	"github.com/orchestrator-project/orchestrator/pipeline"
)

// actionTool makes a tool of an action of the catalogue. The model chooses all its
// arguments, and so the host of a request.
func actionTool(a *executor.Action, private []string) Tool {
	t := Tool{
		Name: toolName(a.Spec.Key), Description: forModels(a.Spec.Doc), Effect: a.Spec.Effect,
		Schema: objectOf(a.Spec.Params, a.Spec.Open),
		Run: func(ctx context.Context, env executor.Env, c Call) (Result, error) {
			out, err := perform(executor.PublicOnly(ctx, private), a, env, c.Arguments)
			if err != nil {
				return partly(out), err
			}
			return shown(out.Value), nil
		},
	}
	if a.Effect != nil {
		t.EffectOf = a.Effect
	}
	return t
}

// perform carries out an action.
func perform(ctx context.Context, a *executor.Action, env executor.Env, params map[string]any) (executor.Output, error) {
	r, err := a.Bind(params)
	if err == nil && a.Workspace {
		err = env.MakeWorkspace()
	}
	if err != nil {
		return executor.Output{}, err
	}
	return r.Run(ctx, env)
}

// partly is what an action had given when it failed.
func partly(out executor.Output) Result {
	if out.Value == nil || out.Value == "" {
		return Result{}
	}
	return shown(out.Value)
}

// shown is a value as a model reads it: a text as it is, anything else as JSON.
func shown(v any) Result {
	if s, ok := v.(string); ok {
		return Text(s)
	}
	return Value(v)
}

// forModels is a manual page without its examples, which show the language of
// pipelines.
func forModels(doc string) string {
	var out []string
	for block := range strings.SplitSeq(doc, "\n\n") {
		if !strings.HasPrefix(block, "    ") && strings.TrimSpace(block) != "" {
			out = append(out, block)
		}
	}
	return strings.Join(out, "\n\n")
}

// askHuman is the tool by which an agent asks people.
func askHuman() Tool {
	return Tool{
		Name:        AskHuman,
		Description: "Asks a person and gives the answer. Ask only what you cannot find out by yourself, one question at a time.",
		Effect:      pipeline.EffectPure, Human: true,
		Schema: map[string]any{
			"type": "object", "additionalProperties": false, "required": []any{"question"},
			"properties": map[string]any{
				"question": map[string]any{"type": "string", "minLength": int64(1), "description": "all that the person must know to answer it"},
				"choices":  map[string]any{"type": "array", "items": map[string]any{"type": "string"}, "description": "answers to choose from; without them, any text"},
			},
		},
	}
}
