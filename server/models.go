package server

import (
	"cmp"
	"context"
	"errors"
	"strings"
	"time"

	"github.com/orchestrator-project/orchestrator/pipeline"
	orchestratorv1 "github.com/orchestrator-project/orchestrator/proto/orchestrator/v1"
	"github.com/orchestrator-project/orchestrator/store"
)

// Models are the language models of a process.
type Models interface {
	// Models tells how they stand now. It may ask local servers whether they are
	// there.
	Models(ctx context.Context) (pipeline.Models, error)
	// TestModel asks one of them. A name that there is not is NotFound; a model that
	// does not answer gives a *pipeline.Failure.
	TestModel(ctx context.Context, name, prompt string) (pipeline.ModelTest, error)
}

// models serves orchestrator.v1.Models.
type models struct {
	orchestratorv1.UnimplementedModelsServer
	*Server
}

var _ orchestratorv1.ModelsServer = models{}

func (s models) known(ctx context.Context) (pipeline.Models, error) {
	if s.cfg.Models == nil {
		return pipeline.Models{}, fault(pipeline.Unavailable, "no_models", "this process asks no models")
	}
	return s.cfg.Models.Models(ctx)
}

// ListModels lists the models.
func (s models) ListModels(ctx context.Context, req *orchestratorv1.ListModelsRequest) (*orchestratorv1.ListModelsResponse, error) {
	all, err := s.known(ctx)
	if err != nil {
		return nil, err
	}
	resp := &orchestratorv1.ListModelsResponse{BuiltIn: all.BuiltIn, Scripted: all.Scripted}
	for i := range all.List {
		if all.List[i].Available || !req.GetAvailable() {
			resp.Models = append(resp.Models, fromModel(&all.List[i]))
		}
	}
	return resp, nil
}

// GetModel reads one model.
func (s models) GetModel(ctx context.Context, req *orchestratorv1.GetModelRequest) (*orchestratorv1.Model, error) {
	all, err := s.known(ctx)
	if err != nil {
		return nil, err
	}
	for i := range all.List {
		if all.List[i].Name == req.GetName() {
			return fromModel(&all.List[i]), nil
		}
	}
	return nil, noModel(req.GetName())
}

func noModel(name string) error {
	return fault(pipeline.NotFound, "model_not_found", "there is no model %s; orchestrator models list shows those that there are", short(name))
}

// maxPrompt bounds what a test may ask.
const maxPrompt = 4096

// TestModel asks one model.
func (s models) TestModel(ctx context.Context, req *orchestratorv1.TestModelRequest) (*orchestratorv1.TestModelResponse, error) {
	if len(req.GetPrompt()) > maxPrompt {
		return nil, refuse("prompt", "too_long", "a test asks at most %d bytes", maxPrompt)
	}
	if _, err := s.GetModel(ctx, &orchestratorv1.GetModelRequest{Name: req.GetName()}); err != nil {
		return nil, err
	}
	t, err := s.cfg.Models.TestModel(ctx, req.GetName(), req.GetPrompt())
	if f, ok := errors.AsType[*pipeline.Failure](err); ok {
		return nil, fault(pipeline.Unavailable, cmp.Or(f.Reason, "model_failed"), "%s", f.Message)
	}
	if err != nil {
		return nil, err
	}
	return &orchestratorv1.TestModelResponse{
		Text: t.Text, Model: t.Model, Seconds: t.Seconds, InputTokens: t.Usage.InputTokens, OutputTokens: t.Usage.OutputTokens,
		CostUsd: t.Usage.CostUSD, Priced: t.Priced,
	}, nil
}

// ListUsage lists what calls of models have come to.
func (s models) ListUsage(ctx context.Context, req *orchestratorv1.ListUsageRequest) (*orchestratorv1.ListUsageResponse, error) {
	const list = "usage"
	q := store.UsageQuery{Since: req.GetSince(), Until: req.GetUntil(), Pipeline: req.GetPipeline(), Model: req.GetModel()}
	for field, text := range map[string]string{"since": q.Since, "until": q.Until} {
		if _, err := time.Parse(time.DateOnly, text); text != "" && err != nil {
			return nil, refuse(field, "not_a_day", "%s is no day; write it as 2026-01-31", short(text))
		}
	}
	place, err := readPageToken(list, req.GetPageToken())
	if err != nil {
		return nil, err
	}
	if parts := strings.Split(place, "\n"); len(parts) == 3 {
		q.After.Day, q.After.Pipeline, q.After.Model = parts[0], parts[1], parts[2]
	}
	size, err := s.cfg.Limits.pageSize(req.GetPageSize())
	if err != nil {
		return nil, err
	}
	q.Limit = size + 1
	found, err := s.cfg.Store.ModelUsage(ctx, q)
	if err != nil {
		return nil, err
	}
	resp := &orchestratorv1.ListUsageResponse{}
	if len(found) > size {
		found = found[:size]
		last := &found[size-1]
		resp.NextPageToken = pageToken(list, last.Day+"\n"+last.Pipeline+"\n"+last.Model)
	}
	for i := range found {
		m := &found[i]
		resp.Usage = append(resp.Usage, &orchestratorv1.ModelUsage{Day: m.Day, Pipeline: m.Pipeline, Model: m.Model, Statistics: fromModelStat(m)})
	}
	return resp, nil
}

func fromModel(m *pipeline.ModelState) *orchestratorv1.Model {
	out := &orchestratorv1.Model{
		Name: m.Name, Provider: m.Provider, Id: m.ID, Available: m.Available, Reason: m.Reason, Breaker: m.Breaker,
		Tasks: m.Tasks, Languages: m.Languages, ContextWindow: clamp(int(m.Context)), FunctionCalling: m.Tools, StructuredOutput: m.Structured,
		Streaming: m.Streaming, Expertise: m.Expertise, BaseModel: m.BaseModel, Quantization: m.Quantization, Fallback: m.Fallback,
		Statistics: fromModelStat(&m.Stat),
	}
	if p := m.Price; p != nil {
		out.Price = &orchestratorv1.ModelPrice{From: p.From, Input: p.Input, Output: p.Output, CachedInput: p.Cached, CacheWrite: p.CacheWrite}
	}
	return out
}

func fromModelStat(m *pipeline.ModelStat) *orchestratorv1.ModelStatistics {
	out := &orchestratorv1.ModelStatistics{
		Calls: clamp(int(m.Calls)), Failures: clamp(int(m.Failures)), InputTokens: float64(m.InputTokens), OutputTokens: float64(m.OutputTokens),
		CachedTokens: float64(m.CachedTokens), CostUsd: m.CostUSD, UnpricedCalls: clamp(int(m.Unpriced)),
	}
	if m.Calls > 0 {
		out.MeanReward = m.Reward / float64(m.Calls)
	}
	if n := m.Calls - m.Failures; n > 0 {
		out.MeanSeconds = m.Seconds / float64(n)
	}
	return out
}
