package server

import (
	"context"
	"iter"
	"strconv"

	"github.com/orchestrator-project/orchestrator/pipeline"
	orchestratorv1 "github.com/orchestrator-project/orchestrator/proto/orchestrator/v1"
)

// scriptModel is the model that scripts answer as.
const scriptModel = "script"

// ListAnswers pages through what the run's <AUTO> tags were filled in with.
func (s calls) ListAnswers(ctx context.Context, req *orchestratorv1.ListAnswersRequest) (*orchestratorv1.ListAnswersResponse, error) {
	id, err := runID(req.GetId())
	if err != nil {
		return nil, err
	}
	size, err := s.cfg.Limits.pageSize(req.GetPageSize())
	if err != nil {
		return nil, err
	}
	list := "answers " + string(id) + " " + req.GetStep()
	after, err := readPageNumber(list, req.GetPageToken())
	if err != nil {
		return nil, err
	}
	if _, err := s.cfg.Store.Run(ctx, id); err != nil {
		return nil, err
	}
	var events iter.Seq2[pipeline.Event, error]
	if step := pipeline.Path(req.GetStep()); step == "" {
		events = s.cfg.Store.Events(ctx, id, clamp(after))
	} else {
		events = s.cfg.Store.StepEvents(ctx, id, step, clamp(after))
	}
	resp, weight := &orchestratorv1.ListAnswersResponse{}, 0
	for e, err := range events {
		if err != nil {
			return nil, err
		}
		if e.Data.Auto == nil {
			continue
		}
		if len(resp.GetAnswers()) == size || weight >= s.cfg.Limits.Response {
			resp.NextPageToken = pageToken(list, strconv.Itoa(after))
			return resp, nil
		}
		a := fromAnswer(&e)
		resp.Answers = append(resp.Answers, a)
		after, weight = int(e.Seq), weight+len(a.GetValue())
	}
	return resp, nil
}

// fromAnswer is the answer that an event records.
func fromAnswer(e *pipeline.Event) *orchestratorv1.Answer {
	a := e.Data.Auto
	out := &orchestratorv1.Answer{
		Key: string(e.Path) + "." + a.Key, Step: string(e.Path), Param: a.Key, Value: fromValue(a.Value), From: a.From,
		Model: a.Model, Scripted: a.Model == scriptModel, Kind: a.Kind, Seq: e.Seq, At: fromTime(e.At),
	}
	if a.Usage != nil {
		out.Usage = fromUsage(*a.Usage)
	}
	return out
}
