package tool

import (
	"context"
	"slices"

	"github.com/orchestrator-project/orchestrator/executor"
	"github.com/orchestrator-project/orchestrator/pipeline"
	"github.com/orchestrator-project/orchestrator/pipeline/expr"
)

// request is an HTTP request of the pipeline's own as a tool. The action http
// sends it, with its rules.
func (s *source) request(w Want, def *pipeline.Tool) (Tool, error) {
	i := slices.IndexFunc(s.cfg.Actions, func(a executor.Action) bool { return a.Spec.Key == "http" })
	if i < 0 {
		return Tool{}, bad("agent %s: this server sends no requests", w.Agent.Name)
	}
	send, req := &s.cfg.Actions[i], def.HTTP
	method := req.Method
	if method == "" {
		method = "GET"
	}
	// RFC 9110, 9.2.2: which methods can be repeated.
	effect := pipeline.EffectIdempotent
	if method == "POST" || method == "PATCH" {
		effect = pipeline.EffectAtMostOnce
	}
	return Tool{
		Name: def.Name, Description: def.Description, Schema: argumentsOf(def.Parameters), Effect: effect,
		Run: func(ctx context.Context, env executor.Env, c Call) (Result, error) {
			more := named(c.Arguments)
			url, err := w.Text(&req.URL, more)
			if err != nil {
				return Result{}, err
			}
			params := map[string]any{"method": method, "url": expr.Text(url)}
			if req.Body != nil {
				body, err := w.Text(req.Body, more)
				if err != nil {
					return Result{}, err
				}
				if _, ok := body.(string); ok {
					params["body"] = body
				} else if body != nil {
					params["json"] = body
				}
			}
			if len(req.Headers) > 0 {
				headers := map[string]any{}
				more["secrets"] = secrets{w.Secret}
				for i := range req.Headers {
					v, err := w.Text(&req.Headers[i].Value, more)
					if err != nil {
						return Result{}, err
					}
					headers[req.Headers[i].Name] = v
				}
				params["headers"] = headers
			}
			out, err := perform(ctx, send, env, params)
			return answered(out.Value), err
		},
	}, nil
}

// answered is the answer to a request as a model reads it: its body.
func answered(v any) Result {
	m, _ := v.(map[string]any)
	if m == nil {
		return Result{}
	}
	if m["json"] != nil {
		return Value(m["json"])
	}
	body, _ := m["body"].(string)
	if m["encoding"] != "text" {
		kind := ""
		if h, _ := m["headers"].(map[string]any); h != nil {
			kind, _ = h["content-type"].(string)
		}
		return bytesShown(body, kind, "")
	}
	if body == "" {
		return Text("(an answer without a body)")
	}
	return Text(body)
}
