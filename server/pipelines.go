package server

import (
	"context"
	"strings"

	"google.golang.org/protobuf/proto"

	"github.com/orchestrator-project/orchestrator/pipeline"
	"github.com/orchestrator-project/orchestrator/pipeline/graph"
	"github.com/orchestrator-project/orchestrator/pipeline/spec"
	orchestratorv1 "github.com/orchestrator-project/orchestrator/proto/orchestrator/v1"
	"github.com/orchestrator-project/orchestrator/store"
)

// pipelines serves orchestrator.v1.Pipelines.
type pipelines struct {
	orchestratorv1.UnimplementedPipelinesServer
	*Server
}

var _ orchestratorv1.PipelinesServer = pipelines{}

// ValidatePipeline answers with what the compiler has found, which may be nothing.
func (s pipelines) ValidatePipeline(ctx context.Context, req *orchestratorv1.ValidatePipelineRequest) (*orchestratorv1.ValidatePipelineResponse, error) {
	if err := s.checkSize(req, req.GetFiles()); err != nil {
		return nil, err
	}
	c, err := s.compile(ctx, req.GetFile(), req.GetSource(), req.GetFiles())
	if err != nil {
		return nil, err
	}
	return &orchestratorv1.ValidatePipelineResponse{Diagnostics: fromDiagnostics(c.diags), Truncated: clamp(c.diags.Truncated)}, nil
}

// sourced is a request that brings a pipeline.
type sourced interface {
	proto.Message
	GetFile() string
	GetSource() string
	GetFiles() map[string][]byte
}

// accept compiles the pipeline of a request that needs one without errors.
func (s *Server) accept(ctx context.Context, req sourced) (*compiled, error) {
	if req.GetSource() == "" {
		return nil, refuse("source", "required", "send the pipeline's source")
	}
	if err := s.checkSize(req, req.GetFiles()); err != nil {
		return nil, err
	}
	c, err := s.compile(ctx, req.GetFile(), req.GetSource(), req.GetFiles())
	if err != nil {
		return nil, err
	}
	return c, c.refused()
}

// ExplainPipeline describes a source that compiles.
func (s pipelines) ExplainPipeline(ctx context.Context, req *orchestratorv1.ExplainPipelineRequest) (*orchestratorv1.Pipeline, error) {
	c, err := s.accept(ctx, req)
	if err != nil {
		return nil, err
	}
	return s.describe(c), nil
}

// describe is a pipeline with everything that is known of it.
func (s *Server) describe(c *compiled) *orchestratorv1.Pipeline {
	p := fromPlan(c.plan, c.digest, c.source)
	var d graph.Graph
	p.Graph, d = drawing(c.plan)
	p.Mermaid, p.Svg = d.Mermaid(), d.SVG(c.plan.Name)
	x := spec.Explain(c.plan, s.cfg.Catalog())
	p.Example, p.Estimate = x.Example, x.Estimate.String()
	p.Models = x.Models
	p.Triggers = x.Triggers
	if x.AnyModel {
		p.Models = append(p.Models, "any")
	}
	for _, tool := range x.Tools {
		if name, ok := strings.CutPrefix(tool, "skill "); ok {
			p.Skills = append(p.Skills, name)
		} else if name, ok := strings.CutPrefix(tool, "agent "); ok {
			p.Agents = append(p.Agents, name)
		} else {
			p.Tools = append(p.Tools, tool)
		}
	}
	p.Holes = fromHoles(c.plan)
	return p
}

// fromHoles lists the <AUTO> tags of a plan.
func fromHoles(plan *pipeline.Plan) []*orchestratorv1.Hole {
	var list []*orchestratorv1.Hole
	for _, h := range spec.Holes(plan) {
		hole := &orchestratorv1.Hole{Key: h.Key, Type: spec.TypeText(&h.Auto.Type), Line: clamp(h.Auto.Pos.Line)}
		if h.Auto.Prompt != nil {
			hole.Prompt = h.Auto.Prompt.Src
		}
		if f := h.Auto.Fallback; f != nil {
			hole.Fallback = fromValue(f.Const)
		}
		list = append(list, hole)
	}
	return list
}

// CreatePipeline registers a version.
func (s pipelines) CreatePipeline(ctx context.Context, req *orchestratorv1.CreatePipelineRequest) (*orchestratorv1.Pipeline, error) {
	c, err := s.accept(ctx, req)
	if err != nil {
		return nil, err
	}
	if c.files != nil {
		if err := s.cfg.Store.PutBundle(ctx, c.plan.Bundle, c.files); err != nil {
			return nil, err
		}
	}
	if err := s.cfg.Store.PutPlan(ctx, store.Plan{
		Digest: c.digest, Source: []byte(c.source), Compiled: c.encoded, Format: pipeline.PlanFormat,
	}); err != nil {
		return nil, err
	}
	if err := s.cfg.Store.PutPipeline(ctx, store.Pipeline{
		ID: c.plan.ID, Version: c.plan.Version, Name: c.plan.Name, Description: c.plan.Description, PlanDigest: c.digest,
	}); err != nil {
		return nil, err
	}
	if err := s.follow(ctx, c.plan); err != nil {
		return nil, err
	}
	p, err := s.cfg.Store.Pipeline(ctx, c.plan.ID, c.plan.Version)
	if err != nil {
		return nil, err
	}
	out := s.describe(c)
	out.CreatedAt = fromTime(p.CreatedAt)
	return out, nil
}

// ListPipelines pages through the registered pipelines by id.
func (s pipelines) ListPipelines(ctx context.Context, req *orchestratorv1.ListPipelinesRequest) (*orchestratorv1.ListPipelinesResponse, error) {
	size, err := s.cfg.Limits.pageSize(req.GetPageSize())
	if err != nil {
		return nil, err
	}
	after, err := readPageToken("pipelines", req.GetPageToken())
	if err != nil {
		return nil, err
	}
	list, err := s.cfg.Store.Pipelines(ctx, after, size+1)
	if err != nil {
		return nil, err
	}
	resp := &orchestratorv1.ListPipelinesResponse{}
	if len(list) > size {
		list = list[:size]
		resp.NextPageToken = pageToken("pipelines", list[size-1].ID)
	}
	for i := range list {
		resp.Pipelines = append(resp.Pipelines, fromRegistered(&list[i]))
	}
	return resp, nil
}

// GetPipeline describes a registered version.
func (s pipelines) GetPipeline(ctx context.Context, req *orchestratorv1.GetPipelineRequest) (*orchestratorv1.Pipeline, error) {
	p, err := s.cfg.Store.Pipeline(ctx, req.GetName(), req.GetVersion())
	if err != nil {
		return nil, err
	}
	c, err := s.stored(ctx, p.PlanDigest)
	if err != nil {
		return nil, err
	}
	out := s.describe(c)
	out.CreatedAt = fromTime(p.CreatedAt)
	return out, nil
}

// ListVersions lists what is registered under one id.
func (s pipelines) ListVersions(ctx context.Context, req *orchestratorv1.ListVersionsRequest) (*orchestratorv1.ListVersionsResponse, error) {
	list, err := s.cfg.Store.Versions(ctx, req.GetName())
	if err != nil {
		return nil, err
	}
	if len(list) == 0 {
		return nil, fault(pipeline.NotFound, "pipeline_not_found", "there is no pipeline %s", short(req.GetName()))
	}
	resp := &orchestratorv1.ListVersionsResponse{}
	for i := range list {
		resp.Versions = append(resp.Versions, fromRegistered(&list[i]))
	}
	return resp, nil
}

// GetSchema returns the JSON Schema of the language with the server's actions.
func (s pipelines) GetSchema(context.Context, *orchestratorv1.GetSchemaRequest) (*orchestratorv1.Schema, error) {
	return &orchestratorv1.Schema{Schema: string(spec.Schema(s.cfg.Catalog()))}, nil
}

// GetGraph draws a run's plan.
func (s runs) GetGraph(ctx context.Context, req *orchestratorv1.GetGraphRequest) (*orchestratorv1.Graph, error) {
	c, err := s.planOf(ctx, req.GetId())
	if err != nil {
		return nil, err
	}
	g, _ := drawing(c.plan)
	return g, nil
}

// GetDefinition returns the source of a run's plan.
func (s runs) GetDefinition(ctx context.Context, req *orchestratorv1.GetDefinitionRequest) (*orchestratorv1.Definition, error) {
	c, err := s.planOf(ctx, req.GetId())
	if err != nil {
		return nil, err
	}
	return &orchestratorv1.Definition{PlanDigest: string(c.digest), File: c.plan.File, Source: c.source, Holes: fromHoles(c.plan)}, nil
}

func (s runs) planOf(ctx context.Context, run string) (*compiled, error) {
	id, err := runID(run)
	if err != nil {
		return nil, err
	}
	r, err := s.cfg.Store.Run(ctx, id)
	if err != nil {
		return nil, err
	}
	return s.stored(ctx, r.PlanDigest)
}
