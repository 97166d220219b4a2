package server

import (
	"encoding/json"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/orchestrator-project/orchestrator/pipeline"
	"github.com/orchestrator-project/orchestrator/pipeline/graph"
	"github.com/orchestrator-project/orchestrator/pipeline/spec"
	orchestratorv1 "github.com/orchestrator-project/orchestrator/proto/orchestrator/v1"
	"github.com/orchestrator-project/orchestrator/proto/wire"
	"github.com/orchestrator-project/orchestrator/store"
)

// This file is the one converter between the domain and the wire.

var runStatus = map[pipeline.RunStatus]orchestratorv1.Run_Status{
	pipeline.RunQueued:    orchestratorv1.Run_QUEUED,
	pipeline.RunRunning:   orchestratorv1.Run_RUNNING,
	pipeline.RunWaiting:   orchestratorv1.Run_WAITING,
	pipeline.RunPaused:    orchestratorv1.Run_PAUSED,
	pipeline.RunCompleted: orchestratorv1.Run_COMPLETED,
	pipeline.RunFailed:    orchestratorv1.Run_FAILED,
	pipeline.RunCancelled: orchestratorv1.Run_CANCELLED,
}

var stepStatus = map[pipeline.StepStatus]orchestratorv1.Step_Status{
	pipeline.StepPending:   orchestratorv1.Step_PENDING,
	pipeline.StepRunning:   orchestratorv1.Step_RUNNING,
	pipeline.StepWaiting:   orchestratorv1.Step_WAITING,
	pipeline.StepCompleted: orchestratorv1.Step_COMPLETED,
	pipeline.StepFailed:    orchestratorv1.Step_FAILED,
	pipeline.StepSkipped:   orchestratorv1.Step_SKIPPED,
	pipeline.StepCancelled: orchestratorv1.Step_CANCELLED,
}

func fromTime(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}

// fromValue is a value as JSON text; nil is empty.
func fromValue(v any) string {
	if v == nil {
		return ""
	}
	return string(pipeline.EncodeValue(v))
}

// fromObject is fromValue of a map that may be nil.
func fromObject(m map[string]any) string {
	if m == nil {
		return ""
	}
	return fromValue(m)
}

func fromFailure(f *pipeline.Failure) *orchestratorv1.Failure {
	if f == nil {
		return nil
	}
	return &orchestratorv1.Failure{Kind: f.Kind, Step: string(f.Step), Message: f.Message}
}

func fromUsage(u pipeline.Usage) *orchestratorv1.Usage {
	return &orchestratorv1.Usage{InputTokens: u.InputTokens, OutputTokens: u.OutputTokens, CostUsd: u.CostUSD, Steps: u.Steps, UnpricedCalls: u.Unpriced, Estimated: u.Estimated}
}

func fromRun(r *pipeline.Run) *orchestratorv1.Run {
	out := &orchestratorv1.Run{
		Id: string(r.ID), Pipeline: r.Pipeline, Version: r.Version, PlanDigest: string(r.PlanDigest),
		Status: runStatus[r.Status], Reason: r.Reason,
		Inputs: fromObject(r.Inputs), Outputs: fromObject(r.Outputs), Error: fromFailure(r.Error),
		Labels:    r.Labels,
		CreatedAt: fromTime(r.CreatedAt), StartedAt: fromTime(r.StartedAt), FinishedAt: fromTime(r.FinishedAt),
		ParentRun: string(r.ParentRun), ForkedFrom: string(r.ForkedFrom), ForkSeq: r.ForkSeq,
		Usage: fromUsage(r.Usage), Priority: r.Priority, ConcurrencyKey: r.Concurrency.Key,
	}
	out.Queue, out.FairKey = store.PlaceOf(r)
	return out
}

func fromStep(s *pipeline.Step) *orchestratorv1.Step {
	return &orchestratorv1.Step{
		Path: string(s.Path), Id: s.ID, Kind: string(s.Kind), Action: s.Action,
		Status: stepStatus[s.Status], Attempt: s.Attempt,
		Parameters: fromValue(s.Parameters), Output: fromValue(s.Output), Error: fromFailure(s.Error),
		StartedAt: fromTime(s.StartedAt), FinishedAt: fromTime(s.FinishedAt),
		Worker: s.Worker, Model: s.Model, Usage: fromUsage(s.Usage), CacheHit: s.CacheHit, Reason: s.Reason,
		Waiting: fromWaiting(s.Waiting), Artifacts: fromVersions(s.Artifacts), ReusedFrom: string(s.ReusedFrom),
	}
}

func fromWaiting(w *pipeline.Waiting) *orchestratorv1.Waiting {
	if w == nil {
		return nil
	}
	return &orchestratorv1.Waiting{For: w.For, Due: fromTime(w.Due), Signal: w.Signal, Files: w.Files, Approval: string(w.Approval), Labels: w.Labels}
}

func fromVersions(list []pipeline.Version) []*orchestratorv1.Artifact {
	var out []*orchestratorv1.Artifact
	for i := range list {
		out = append(out, fromVersion("", &list[i]))
	}
	return out
}

func fromVersion(run pipeline.RunID, v *pipeline.Version) *orchestratorv1.Artifact {
	return &orchestratorv1.Artifact{
		RunId: string(run), Artifact: v.Artifact, Version: v.Version, Producer: string(v.Producer),
		Value: fromValue(v.Value), Digest: string(v.Blob), Size: clamp(int(v.Size)),
	}
}

func fromPlanned(p *pipeline.Planned) *orchestratorv1.PlannedStep {
	return &orchestratorv1.PlannedStep{
		Path: string(p.Path), Kind: string(p.Kind), WouldRun: p.WouldRun, Command: p.Command, Prompt: p.Prompt, Reason: p.Reason,
	}
}

func fromApproval(a *pipeline.Approval) *orchestratorv1.Approval {
	out := &orchestratorv1.Approval{
		Id: string(a.ID), RunId: string(a.Run), Pipeline: a.Pipeline, Path: string(a.Path), Kind: string(a.Kind),
		Question: a.Question, Default: fromValue(a.Default), Assignees: a.Assignees, Quorum: clamp(a.Quorum),
		Deadline: fromTime(a.Deadline), OnTimeout: a.OnTimeout, Status: string(a.Status), Scope: a.Scope,
		CreatedAt: fromTime(a.CreatedAt), DecidedAt: fromTime(a.DecidedAt), Allowed: a.Allowed(),
	}
	if a.Choices != nil {
		out.Choices = fromValue(a.Choices)
	}
	if a.Schema != nil {
		out.Type = spec.TypeText(a.Schema)
	}
	for i := range a.Decisions {
		d := &a.Decisions[i]
		out.Decisions = append(out.Decisions, &orchestratorv1.Decision{
			Decision: d.Decision, Value: fromValue(d.Value), Comment: d.Comment, Actor: d.Actor, At: fromTime(d.At), Remember: d.Remember,
		})
	}
	return out
}

// fromEvent is an event as viewers get it: what it says itself and, as run or
// step, what it has touched as that is after it.
func fromEvent(e *pipeline.Event, run *pipeline.Run, step *pipeline.Step) (*orchestratorv1.Event, error) {
	own := e.Data
	var whole proto.Message
	key := `"run":`
	if step != nil {
		key, whole = `"step":`, fromStep(step)
		own.Kind, own.Action, own.Parameters, own.Worker, own.Status = "", "", nil, "", ""
		if own.Call == nil { // what a call says of itself is not the step's
			own.Output, own.Error, own.Model, own.Usage, own.Cached = nil, nil, "", nil, false
		}
	} else if e.Path == "" {
		whole = fromRun(run)
		own.RunStatus, own.Outputs, own.Error = "", nil, nil
	}
	data := pipeline.AppendData(nil, &own)
	if whole != nil {
		data = data[:len(data)-1] // the closing brace
		if len(data) > 1 {
			data = append(data, ',')
		}
		data = append(data, key...)
		var err error
		if data, err = wire.Append(data, whole); err != nil {
			return nil, err
		}
		data = append(data, '}')
	}
	return &orchestratorv1.Event{
		RunId: string(run.ID), Seq: e.Seq, Type: string(e.Type), Path: string(e.Path), Attempt: e.Attempt,
		At: fromTime(e.At), Data: string(data),
	}, nil
}

func fromLog(c *store.LogChunk) *orchestratorv1.LogLine {
	return &orchestratorv1.LogLine{
		Path: string(c.Path), Attempt: c.Attempt, N: c.N, At: fromTime(c.At), Stream: c.Stream, Text: c.Text,
	}
}

func fromDiagnostics(d *pipeline.Diagnostics) []*orchestratorv1.Diagnostic {
	if d == nil {
		return nil
	}
	list := make([]*orchestratorv1.Diagnostic, len(d.List))
	for i := range d.List {
		x := &d.List[i]
		p := &orchestratorv1.Diagnostic{
			Code: x.Code, Severity: string(x.Severity), Message: x.Message, File: x.File,
			Line: clamp(x.Line), Column: clamp(x.Column), EndLine: clamp(x.EndLine), EndColumn: clamp(x.EndColumn),
			Step: x.Step, Path: x.Path, Hint: x.Hint,
		}
		for _, r := range x.Related {
			p.Related = append(p.Related, &orchestratorv1.Related{Message: r.Message, File: r.File, Line: clamp(r.Line), Column: clamp(r.Column)})
		}
		list[i] = p
	}
	return list
}

// fromPlan describes a plan; version, digest and creation come from its
// registration, if it has one.
func fromPlan(p *pipeline.Plan, digest pipeline.Digest, source string) *orchestratorv1.Pipeline {
	out := &orchestratorv1.Pipeline{
		Id: p.ID, Name: p.Name, Version: p.Version, Description: p.Description, PlanDigest: string(digest),
		Secrets: p.Secrets, Steps: clamp(countSteps(&p.Root) + countSteps(&p.Finally)), Source: source,
	}
	for i := range p.Inputs {
		in := &p.Inputs[i]
		x := &orchestratorv1.Input{
			Name: in.Name, Type: in.Type.Kind, Required: in.Required, Default: fromValue(in.Default), Description: in.Description,
		}
		if in.Type.Values != nil {
			x.Values = fromValue(in.Type.Values)
		}
		out.Inputs = append(out.Inputs, x)
	}
	for i := range p.Outputs {
		out.Outputs = append(out.Outputs, p.Outputs[i].Name)
	}
	return out
}

// drawing lays a plan out.
func drawing(p *pipeline.Plan) (g *orchestratorv1.Graph, d graph.Graph) {
	d = graph.Layout(p)
	g = &orchestratorv1.Graph{Width: d.Width, Height: d.Height}
	for i := range d.Nodes {
		n := &d.Nodes[i]
		g.Nodes = append(g.Nodes, &orchestratorv1.GraphNode{
			Id: n.ID, Label: n.Label, Kind: n.Kind, Action: n.Action, Parent: n.Parent,
			X: n.X, Y: n.Y, Width: n.W, Height: n.H, Layer: clamp(n.Layer), Line: clamp(n.Line),
		})
	}
	for i := range d.Edges {
		e := &d.Edges[i]
		points := make([]float64, 0, 2*len(e.Points))
		for _, p := range e.Points {
			points = append(points, p.X, p.Y)
		}
		g.Edges = append(g.Edges, &orchestratorv1.GraphEdge{From: e.From, To: e.To, Cause: e.Cause, Points: points, Label: e.Label, Back: e.Back})
	}
	for i := range d.Arms {
		a := &d.Arms[i]
		g.Arms = append(g.Arms, &orchestratorv1.GraphArm{Block: a.Block, Label: a.Label, X: a.X, Y: a.Y, Width: a.W, Height: a.H})
	}
	return g, d
}

// countSteps counts the steps of a body with those in its blocks.
func countSteps(b *pipeline.Body) int {
	n := 0
	for _, s := range b.Steps {
		n++
		if s.Loop != nil {
			n += countSteps(&s.Loop.Body)
		}
		for i := range s.Branches {
			n += countSteps(&s.Branches[i].Body)
		}
	}
	return n
}

func fromRegistered(p *store.Pipeline) *orchestratorv1.Pipeline {
	return &orchestratorv1.Pipeline{
		Id: p.ID, Version: p.Version, Name: p.Name, Description: p.Description,
		PlanDigest: string(p.PlanDigest), CreatedAt: fromTime(p.CreatedAt),
	}
}

// rawJSON is the wire form of one field of m.
func rawJSON(m proto.Message, field string) json.RawMessage {
	b, err := wire.Marshal(m)
	var members map[string]json.RawMessage
	if err == nil {
		err = json.Unmarshal(b, &members)
	}
	if err != nil || members[field] == nil {
		return json.RawMessage("null")
	}
	return members[field]
}
