package step

import (
	"context"
	"slices"
	"strings"

	"github.com/orchestrator-project/orchestrator/executor"
	"github.com/orchestrator-project/orchestrator/pipeline"
	"github.com/orchestrator-project/orchestrator/pipeline/expr"
)

// judgement is an action that needs judgement: what the model is told, what it is
// shown and what it has to give. judgements is the table of them.
type judgement struct {
	name   string
	doc    string
	params []pipeline.Property
	oneOf  []string // of these at least one must be given
	// returns is a text, or a map whose fields the answer must have.
	returns pipeline.Type
	prompt  string
	// without gives the output where it follows from the parameters, so that no
	// model is asked; false: the model is asked.
	without func(params map[string]any) (any, bool, error)
	// narrow adapts the schema of the answer to the parameters.
	narrow func(params map[string]any, schema map[string]any) error
}

// asking are the parameters that all judgements have.
var asking = []pipeline.Property{
	given("instructions", "string", "what else the model is told"),
	given("model", "string", "the model to ask; default: the server's"),
	given("max_tokens", "integer", "the longest answer, in tokens; default: the model's own limit"),
	given("temperature", "number", "0 for steady answers, more for varied ones; default: the model's own"),
}

func needed(name, doc string) pipeline.Property {
	p := given(name, "any", doc)
	p.Required = true
	return p
}

func given(name, kind, doc string) pipeline.Property {
	return pipeline.Property{Name: name, Doc: doc, Type: pipeline.Type{Kind: kind, Description: doc}}
}

func gives(props ...pipeline.Property) pipeline.Type {
	for i := range props {
		props[i].Required = true
	}
	return pipeline.Type{Kind: "map", Properties: props}
}

func listOf(name, doc string, item pipeline.Type) pipeline.Property {
	p := given(name, "list", doc)
	p.Type.Items = &item
	return p
}

func judgeAction(cfg Config, j *judgement) executor.Action {
	return executor.Action{
		Spec: pipeline.ActionSpec{
			Key: j.name, Name: j.name, Doc: j.doc, Params: slices.Concat(j.params, asking),
			Returns: j.returns, Effect: pipeline.EffectAtLeastOnce, Model: true,
		},
		Journal: true,
		Bind: func(params map[string]any) (executor.Runner, error) {
			if err := j.check(params); err != nil {
				return nil, err
			}
			return judge{judgement: j, given: params, asker: asker{action: j.name, models: cfg.Model}}, nil
		},
	}
}

// check holds the parameters against the table.
func (j *judgement) check(params map[string]any) error {
	known := slices.Concat(j.params, asking)
	for name := range params {
		if !slices.ContainsFunc(known, func(p pipeline.Property) bool { return p.Name == name }) {
			return invalid("there is no parameter %s", name)
		}
	}
	for _, p := range known {
		v := params[p.Name]
		if v == nil {
			if p.Required {
				return invalid("parameter %s is missing", p.Name)
			}
			continue
		}
		fits := true
		switch p.Type.Kind {
		case "string":
			_, fits = v.(string)
		case "integer":
			_, fits = v.(int64)
		}
		if !fits {
			return invalid("parameter %s is %s; it must be of the type %s", p.Name, kindOf(v), p.Type.Kind)
		}
	}
	if len(j.oneOf) > 0 && !slices.ContainsFunc(j.oneOf, func(name string) bool { return params[name] != nil }) {
		return invalid("%s needs at least one of the parameters %s", j.name, strings.Join(j.oneOf, ", "))
	}
	return nil
}

// judge is one judgement about to be made.
type judge struct {
	*judgement
	asker
	given map[string]any
}

// Run computes what can be computed and asks for the rest.
func (j judge) Run(ctx context.Context, env executor.Env) (executor.Output, error) {
	if j.without != nil {
		v, done, err := j.without(j.given)
		if err != nil || done {
			return executor.Output{Value: v}, err
		}
	}
	r := j.request(env, j.prompt, j.show())
	r.Model, _ = j.given["model"].(string)
	maxTokens, _ := j.given["max_tokens"].(int64)
	if err := limits(r, maxTokens, j.given["temperature"]); err != nil {
		return executor.Output{}, err
	}
	if j.returns.Kind != "string" {
		r.Schema = schemaOf(&j.returns)
		if j.narrow != nil {
			if err := j.narrow(j.given, r.Schema); err != nil {
				return executor.Output{}, err
			}
		}
	}
	return j.ask(ctx, env, r)
}

// show is what the model sees: each parameter under its name, in the order of the
// table. What was not given is not mentioned.
func (j judge) show() string {
	var parts []string
	for _, p := range append(slices.Clip(j.params), asking[0]) {
		v := j.given[p.Name]
		if v == nil {
			continue
		}
		parts = append(parts, "## "+p.Name+"\n"+strings.TrimRight(expr.Text(v), "\n"))
	}
	return strings.Join(parts, "\n\n")
}

// schemaOf is the JSON Schema of a type of the catalogue.
func schemaOf(t *pipeline.Type) map[string]any {
	s := map[string]any{}
	switch t.Kind {
	case "string", "integer", "number", "boolean":
		s["type"] = t.Kind
	case "enum":
		s["enum"] = t.Values
	case "list":
		s["type"] = "array"
		if t.Items != nil {
			s["items"] = schemaOf(t.Items)
		}
	case "map":
		s["type"] = "object"
		props, must := map[string]any{}, []any{}
		for i := range t.Properties {
			p := &t.Properties[i]
			props[p.Name] = schemaOf(&p.Type)
			if p.Required {
				must = append(must, p.Name)
			}
		}
		if len(props) > 0 {
			s["properties"], s["required"], s["additionalProperties"] = props, must, t.Additional
		}
	}
	if t.Min != nil {
		s["minimum"] = *t.Min
	}
	if t.Max != nil {
		s["maximum"] = *t.Max
	}
	if t.Optional {
		s = map[string]any{"anyOf": []any{s, map[string]any{"type": "null"}}}
	}
	if t.Description != "" {
		s["description"] = t.Description
	}
	return s
}

// modelName reads the name of a model: a text, or a map that has one.
func modelName(v any) (string, bool) {
	if m, ok := v.(map[string]any); ok {
		for _, key := range []string{"name", "model", "id"} {
			if s, ok := m[key].(string); ok && s != "" {
				return s, true
			}
		}
		return "", false
	}
	s, ok := v.(string)
	s = strings.TrimSpace(s)
	return s, ok && s != ""
}

// modelNames reads a list of models, or a text that names them between commas.
func modelNames(param string, v any) ([]string, error) {
	if s, ok := v.(string); ok {
		list := []any{}
		for part := range strings.SplitSeq(s, ",") {
			if strings.TrimSpace(part) != "" {
				list = append(list, part)
			}
		}
		v = list
	}
	list, ok := v.([]any)
	if !ok || len(list) == 0 {
		return nil, invalid("parameter %s is a list of models; it is %s", param, expr.Text(v))
	}
	names := make([]string, 0, len(list))
	for i, e := range list {
		name, ok := modelName(e)
		if !ok {
			return nil, invalid("parameter %s: item %d is neither a name nor a map with a name", param, i)
		}
		if !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names, nil
}

// judgeActions are the judgements of the table.
func judgeActions(cfg Config) []executor.Action {
	actions := make([]executor.Action, len(judgements))
	for i := range judgements {
		actions[i] = judgeAction(cfg, &judgements[i])
	}
	return actions
}
