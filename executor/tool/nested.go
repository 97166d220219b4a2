package tool

import (
	"context"
	"errors"
	"maps"

	"github.com/orchestrator-project/orchestrator/executor"
	"github.com/orchestrator-project/orchestrator/pipeline"
	"github.com/orchestrator-project/orchestrator/pipeline/expr"
)

// pipeline is an imported pipeline as a tool.
func pipelineTool(w Want, def *pipeline.Tool) Tool {
	return Tool{
		Name: def.Name, Description: def.Description, Schema: argumentsOf(def.Parameters), Effect: pipeline.EffectIdempotent,
		Run: func(ctx context.Context, env executor.Env, c Call) (Result, error) {
			inputs := map[string]any{}
			for i := range def.Pipeline.With {
				e := &def.Pipeline.With[i]
				v, err := w.Text(&e.Value, named(c.Arguments))
				if err != nil {
					return Result{}, err
				}
				inputs[e.Name] = v
			}
			maps.Copy(inputs, c.Arguments)
			if env.Child == nil {
				return Result{}, errors.New("no pipeline can be run from here")
			}
			run, err := env.Child(ctx, def.Pipeline, inputs, c.Key)
			if err != nil {
				return Result{}, err
			}
			return Value(map[string]any{"run_id": string(run.ID), "outputs": run.Outputs}), nil
		},
	}
}

// agent is another agent as a tool.
func agentTool(w Want, def *pipeline.Tool) (Tool, error) {
	if w.Nested == nil {
		return Tool{}, bad("agent %s: it can call no agents", w.Agent.Name)
	}
	root := w.Root
	if root == nil {
		root = w.Agent
	}
	a := root.Find(def.Agent)
	if a == nil {
		return Tool{}, bad("agent %s: there is no agent %s", w.Agent.Name, def.Agent)
	}
	t := Tool{Name: def.Name, Description: def.Description, Effect: pipeline.EffectIdempotent} // its own calls have theirs
	prompt := "prompt"
	if def.Parameters == nil {
		t.Schema = map[string]any{
			"type": "object", "additionalProperties": false, "required": []any{"prompt"},
			"properties": map[string]any{
				"prompt": map[string]any{"type": "string", "minLength": int64(1), "description": "what it is to do, with all that it must know: it sees nothing else"},
			},
		}
	} else {
		t.Schema = argumentsOf(def.Parameters)
		if len(def.Parameters.Properties) == 1 {
			prompt = def.Parameters.Properties[0].Name
		}
	}
	t.Run = func(ctx context.Context, env executor.Env, c Call) (Result, error) {
		v, ok := c.Arguments[prompt]
		if !ok {
			v = c.Arguments
		}
		text := expr.Text(v)
		if text == "" {
			return Result{}, errors.New("the prompt is empty")
		}
		return w.Nested(ctx, env, a, text, c)
	}
	return t, nil
}
