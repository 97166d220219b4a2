package server

import (
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"

	"github.com/orchestrator-project/orchestrator/pipeline"
	orchestratorv1 "github.com/orchestrator-project/orchestrator/proto/orchestrator/v1"
)

// This file converts what servers and workers say to each other.

// toWorker reads a hello.
func toWorker(h *orchestratorv1.WorkerHello) (pipeline.Worker, error) {
	w := pipeline.Worker{
		Name: h.GetName(), Incarnation: h.GetIncarnation(), Version: h.GetVersion(), Labels: h.GetLabels(), Slots: h.GetSlots(),
		Resources: toResources(h.GetResources()), Runs: h.GetRuns(), Held: h.GetHeld(), Draining: h.GetDraining(),
	}
	for i, a := range h.GetActions() {
		spec, err := toBrought(fmt.Sprintf("hello.actions[%d]", i), a)
		if err != nil {
			return w, err
		}
		w.Actions = append(w.Actions, spec)
	}
	return w, nil
}

func toResources(r *orchestratorv1.WorkerResources) pipeline.Resources {
	return pipeline.Resources{CPU: r.GetCpu(), MemoryGB: r.GetMemoryGb(), GPU: r.GetGpu()}
}

func fromResources(r pipeline.Resources) *orchestratorv1.WorkerResources {
	if r == (pipeline.Resources{}) {
		return nil
	}
	return &orchestratorv1.WorkerResources{Cpu: r.CPU, MemoryGb: r.MemoryGB, Gpu: r.GPU}
}

var actionNameForm = regexp.MustCompile(`^[a-z][a-z0-9_]{0,63}$`)

// toBrought reads the description of an action that a worker brings.
func toBrought(field string, a *orchestratorv1.WorkerAction) (pipeline.ActionSpec, error) {
	s := pipeline.ActionSpec{Key: a.GetName(), Name: a.GetName(), Doc: a.GetDoc(), Effect: pipeline.Effect(a.GetEffect())}
	if !actionNameForm.MatchString(a.GetName()) {
		return s, refuse(field+".name", "invalid_name", "an action's name is up to 64 lower-case letters, digits and _, beginning with a letter")
	}
	switch s.Effect {
	case "":
		s.Effect = pipeline.EffectAtLeastOnce
	case pipeline.EffectPure, pipeline.EffectIdempotent, pipeline.EffectAtLeastOnce, pipeline.EffectAtMostOnce:
	default:
		return s, refuse(field+".effect", "invalid_effect", "an effect is pure, idempotent, at_least_once or at_most_once")
	}
	schema, err := toSchema(a.GetParameters())
	if err != nil {
		return s, refuse(field+".parameters", "invalid_schema", "%v", err)
	}
	params := typeOfSchema(schema)
	if params.Kind != "map" && params.Kind != "any" {
		return s, refuse(field+".parameters", "invalid_schema", "the schema of the parameters is one of an object")
	}
	s.Params, s.Open = params.Properties, params.Kind == "any" || params.Additional
	if schema, err = toSchema(a.GetReturns()); err != nil {
		return s, refuse(field+".returns", "invalid_schema", "%v", err)
	}
	s.Returns = typeOfSchema(schema)
	return s, nil
}

func toSchema(text string) (map[string]any, error) {
	if text == "" {
		return nil, nil //nolint:nilnil // anything goes
	}
	v, err := pipeline.DecodeValue([]byte(text))
	if err != nil {
		return nil, fmt.Errorf("it is not JSON: %w", err)
	}
	m, ok := v.(map[string]any)
	if !ok {
		return nil, errors.New("a JSON Schema is an object")
	}
	return m, nil
}

// typeOfSchema is a JSON Schema as a type of the language: as far as that goes,
// the fields have types by which a pipeline is checked before it runs; the
// schema itself is held against the values when there are some.
func typeOfSchema(schema map[string]any) pipeline.Type {
	t := pipeline.Type{Kind: "any"}
	t.Description, _ = schema["description"].(string)
	if values, ok := schema["enum"].([]any); ok && len(values) > 0 {
		t.Kind, t.Values = "enum", values
		return t
	}
	word, _ := schema["type"].(string)
	switch word {
	case "string", "integer", "number", "boolean":
		t.Kind = word
	case "array":
		t.Kind = "list"
		if items, ok := schema["items"].(map[string]any); ok {
			of := typeOfSchema(items)
			t.Items = &of
		}
	case "object":
		t.Kind = "map"
		more, said := schema["additionalProperties"].(bool)
		t.Additional = !said || more
		t.Properties = propertiesOf(schema)
	}
	if simple(schema) {
		return t
	}
	t.Schema = schema
	return t
}

// simple reports whether a schema says nothing beyond what its type says.
func simple(schema map[string]any) bool {
	for key := range schema {
		switch key {
		case "type", "description", "title", "default", "properties", "required", "items", "enum":
		case "additionalProperties":
			if _, ok := schema[key].(bool); !ok {
				return false
			}
		default:
			return false
		}
	}
	return true
}

func propertiesOf(schema map[string]any) []pipeline.Property {
	fields, _ := schema["properties"].(map[string]any)
	required, _ := schema["required"].([]any)
	names := make([]string, 0, len(fields))
	for name := range fields {
		names = append(names, name)
	}
	slices.Sort(names)
	list := make([]pipeline.Property, 0, len(names))
	for _, name := range names {
		field, _ := fields[name].(map[string]any)
		p := pipeline.Property{Name: name, Type: typeOfSchema(field), Required: slices.Contains(required, any(name)), Default: field["default"]}
		p.Doc = p.Type.Description
		p.Type.Optional = !p.Required
		list = append(list, p)
	}
	return list
}

func fromBrought(a *pipeline.ActionSpec) *orchestratorv1.WorkerAction {
	return &orchestratorv1.WorkerAction{Name: a.Key, Doc: a.Doc, Effect: string(a.Effect)}
}

// toWord reads what a worker says.
func toWord(m *orchestratorv1.ConnectRequest) (pipeline.WorkerWord, error) {
	switch m := m.GetMessage().(type) {
	case *orchestratorv1.ConnectRequest_Heartbeat:
		return pipeline.WorkerWord{Heartbeat: &pipeline.WorkerLoad{Busy: m.Heartbeat.GetBusy(), Used: toResources(m.Heartbeat.GetUsed())}}, nil
	case *orchestratorv1.ConnectRequest_Held:
		return pipeline.WorkerWord{Held: m.Held.GetTokens()}, nil
	case *orchestratorv1.ConnectRequest_Log:
		l := m.Log
		if !slices.Contains([]string{"stdout", "stderr", "system"}, l.GetStream()) {
			return pipeline.WorkerWord{}, refuse("log.stream", "invalid_stream", "a stream is stdout, stderr or system")
		}
		return pipeline.WorkerWord{Log: &pipeline.WorkerLog{Token: l.GetToken(), Stream: l.GetStream(), Text: l.GetText(), N: l.GetN()}}, nil
	case *orchestratorv1.ConnectRequest_Result:
		r, err := toResult(m.Result)
		return pipeline.WorkerWord{Result: r}, err
	case *orchestratorv1.ConnectRequest_Decline:
		return pipeline.WorkerWord{Decline: &pipeline.WorkerDecline{Token: m.Decline.GetToken(), Reason: m.Decline.GetReason(), Begun: m.Decline.GetBegun()}}, nil
	case *orchestratorv1.ConnectRequest_Drain:
		return pipeline.WorkerWord{Drain: true}, nil
	}
	return pipeline.WorkerWord{}, refuse("message", "unexpected_message", "say heartbeat, held, log, result, decline or drain after the hello")
}

// categories are those that a worker may give a failure.
var categories = []string{
	pipeline.CategoryRateLimit, pipeline.CategoryTimeout, pipeline.CategoryResource, pipeline.CategoryValidation, pipeline.CategorySystem,
	pipeline.CategoryModel, pipeline.CategoryTool, pipeline.CategoryContract, pipeline.CategoryCancelled, pipeline.CategoryFailed,
}

// toResult reads how an attempt ended. What a server cannot make sense of is the
// attempt's failure.
func toResult(r *orchestratorv1.WorkerResult) (*pipeline.WorkerResult, error) {
	out := &pipeline.WorkerResult{Token: r.GetToken(), Model: r.GetModel()}
	if r.GetToken() == "" {
		return nil, refuse("result.token", "required", "name the attempt")
	}
	if text := r.GetOutput(); text != "" {
		v, err := pipeline.DecodeValue([]byte(text))
		if err != nil {
			out.Error = pipeline.Failuref(pipeline.CategoryContract, "the worker's result is not JSON: %v", err)
		}
		out.Output = v
	}
	if u := r.GetUsage(); u != nil {
		out.Usage = &pipeline.Usage{InputTokens: u.GetInputTokens(), OutputTokens: u.GetOutputTokens(), CostUSD: u.GetCostUsd()}
	}
	for _, f := range r.GetFiles() {
		out.Files = append(out.Files, pipeline.WorkerFile{Name: f.GetName(), Digest: pipeline.Digest(f.GetDigest()), Size: f.GetSize()})
	}
	if e := r.GetError(); e != nil {
		f := &pipeline.Failure{Kind: e.GetCategory(), Reason: e.GetReason(), Message: e.GetMessage(), RetryAfter: e.GetRetryAfter()}
		if !slices.Contains(categories, f.Kind) {
			f.Kind = pipeline.CategoryUnknown
		}
		if code := int(e.GetExitCode()); code != 0 {
			f.ExitCode = &code
		}
		out.Error = f
	}
	return out, nil
}

// fromOrder is what a worker is told.
func fromOrder(o *pipeline.WorkerOrder) *orchestratorv1.ConnectResponse {
	switch {
	case o.Assign != nil:
		return &orchestratorv1.ConnectResponse{Message: &orchestratorv1.ConnectResponse_Assign{Assign: fromAssignment(o.Assign)}}
	case o.Cancel != "":
		return &orchestratorv1.ConnectResponse{Message: &orchestratorv1.ConnectResponse_Cancel{Cancel: &orchestratorv1.WorkerCancel{Token: o.Cancel}}}
	case o.Acknowledge != "":
		return &orchestratorv1.ConnectResponse{Message: &orchestratorv1.ConnectResponse_Acknowledge{Acknowledge: &orchestratorv1.WorkerAcknowledgement{Token: o.Acknowledge}}}
	case o.Drain:
		return &orchestratorv1.ConnectResponse{Message: &orchestratorv1.ConnectResponse_Drain{Drain: &orchestratorv1.WorkerDrain{}}}
	}
	return &orchestratorv1.ConnectResponse{Message: &orchestratorv1.ConnectResponse_Peers{Peers: &orchestratorv1.WorkerPeers{Peers: o.Peers}}}
}

func fromAssignment(a *pipeline.Assignment) *orchestratorv1.WorkerAssignment {
	out := &orchestratorv1.WorkerAssignment{
		Token: a.Token, RunId: string(a.Run), Path: string(a.Path), Attempt: a.Attempt, IdempotencyKey: a.Key, Action: a.Action,
		Parameters: fromObject(a.Parameters), Env: a.Env, Secrets: a.Secrets, Timeout: a.Timeout.Seconds(),
		Bundle: string(a.Bundle), BundleMark: a.BundleMark, Uploads: string(a.Uploads), Collect: a.Collect, CollectFields: a.CollectFields,
	}
	if a.Sandbox != nil {
		if text, err := json.Marshal(a.Sandbox); err == nil { // plain fields
			out.Sandbox = string(text)
		}
	}
	if a.Resources != nil {
		out.Resources = fromResources(*a.Resources)
	}
	for _, f := range a.Files {
		out.Files = append(out.Files, &orchestratorv1.WorkerFile{Name: f.Name, Digest: string(f.Digest), Size: f.Size})
	}
	return out
}

func fromWorker(w *pipeline.Worker) *orchestratorv1.Worker {
	out := &orchestratorv1.Worker{
		Name: w.Name, Version: w.Version, Labels: w.Labels, Slots: w.Slots, Busy: w.Busy, Resources: fromResources(w.Resources),
		Used: fromResources(w.Used), Runs: w.Runs, Status: w.Status, ConnectedAt: fromTime(w.ConnectedAt), HeardAt: fromTime(w.HeardAt),
	}
	for i := range w.Actions {
		out.Actions = append(out.Actions, fromBrought(&w.Actions[i]))
	}
	for _, a := range w.Attempts {
		out.Attempts = append(out.Attempts, &orchestratorv1.WorkerAttempt{RunId: string(a.Run), Path: string(a.Path), Attempt: a.Attempt, Since: fromTime(a.Since)})
	}
	return out
}
