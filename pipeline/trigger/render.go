package trigger

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/orchestrator-project/orchestrator/pipeline"
	"github.com/orchestrator-project/orchestrator/pipeline/expr"
)

// HookNames are the names that the inputs of a webhook may use.
var HookNames = []string{"body", "headers"}

// HookInputs are the inputs of a run that a webhook starts. What the webhook
// declares is rendered over the request; without that, each field of the body that
// is an input's name is that input, and the others are left out.
func HookInputs(hook *pipeline.WebhookTrigger, inputs []pipeline.Input, body any, headers map[string]any) (map[string]any, error) {
	if hook.Inputs != nil {
		scope := expr.MapScope{"body": body, "headers": headers}
		out := make(map[string]any, len(hook.Inputs))
		for name, v := range hook.Inputs {
			x, err := render(v, scope)
			if err != nil {
				return nil, &pipeline.Error{Kind: pipeline.Invalid, Reason: "webhook_inputs", Text: fmt.Sprintf("input %s cannot be made of the request: %v", name, err)}
			}
			out[name] = x
		}
		return out, nil
	}
	fields, ok := body.(map[string]any)
	if !ok && body != nil {
		return nil, &pipeline.Error{Kind: pipeline.Invalid, Reason: "webhook_inputs", Text: "the body must be a JSON object whose fields are the pipeline's inputs"}
	}
	out := map[string]any{}
	for i := range inputs {
		if v, ok := fields[inputs[i].Name]; ok {
			out[inputs[i].Name] = v
		}
	}
	return out, nil
}

// render evaluates the templates of a value.
func render(v any, scope expr.Scope) (any, error) {
	switch v := v.(type) {
	case string:
		if !strings.Contains(v, "{") {
			return v, nil
		}
		t, err := expr.Compile(v)
		if err != nil {
			return nil, err
		}
		x, err := t.Eval(&expr.Env{Scope: scope})
		if bad, ok := errors.AsType[*expr.Error](err); ok {
			err = errors.New(bad.Text)
		}
		return x, err
	case []any:
		out := slices.Clone(v)
		for i := range out {
			x, err := render(out[i], scope)
			if err != nil {
				return nil, err
			}
			out[i] = x
		}
		return out, nil
	case map[string]any:
		out := make(map[string]any, len(v))
		for k := range v {
			x, err := render(v[k], scope)
			if err != nil {
				return nil, err
			}
			out[k] = x
		}
		return out, nil
	}
	return v, nil
}
