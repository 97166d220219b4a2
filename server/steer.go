package server

import (
	"context"
	"strings"

	"github.com/orchestrator-project/orchestrator/pipeline"
	orchestratorv1 "github.com/orchestrator-project/orchestrator/proto/orchestrator/v1"
	"github.com/orchestrator-project/orchestrator/store"
)

// maxSteer bounds what is said to an agent at once, in bytes.
const maxSteer = 64 << 10

// SteerRun leaves a message for an agent in the run's inbox.
func (s runs) SteerRun(ctx context.Context, req *orchestratorv1.SteerRunRequest) (*orchestratorv1.Run, error) {
	id, err := runID(req.GetId())
	if err != nil {
		return nil, err
	}
	path := pipeline.Path(req.GetStep())
	switch {
	case path == "":
		return nil, refuse("step", "required", "say which step the agent works for")
	case strings.TrimSpace(req.GetText()) == "":
		return nil, refuse("text", "required", "say what the agent is to hear")
	case len(req.GetText()) > maxSteer:
		return nil, refuse("text", "too_long", "longer than %d bytes", maxSteer)
	case len(req.GetIdempotencyKey()) > maxKey:
		return nil, refuse("idempotency_key", "too_long", "longer than %d bytes", maxKey)
	}
	m := store.Message{Kind: store.MessageSteer, Actor: localUser, Key: req.GetIdempotencyKey()}
	m.Body = pipeline.EncodeValue(map[string]any{"step": string(path), "text": req.GetText()})
	sent, err := s.cfg.Store.Sent(ctx, id, m) // the step may have ended since
	if err == nil && !sent {
		if err = s.steerable(ctx, id, path); err == nil {
			err = s.cfg.Store.Send(ctx, id, m)
		}
	}
	if err != nil {
		return nil, err
	}
	run, err := s.cfg.Store.Run(ctx, id)
	if err != nil {
		return nil, err
	}
	return fromRun(run), nil
}

// steerable reports why nothing can be said to the step; nil: its agent is at
// work, or waits for people.
func (s runs) steerable(ctx context.Context, id pipeline.RunID, path pipeline.Path) error {
	var step *pipeline.Step
	for e, err := range s.cfg.Store.StepEvents(ctx, id, path, 0) {
		if err != nil {
			return err
		}
		if step == nil {
			step = &pipeline.Step{Path: path, Status: pipeline.StepPending}
		}
		switch e.Type {
		case pipeline.StepStarted:
			step.Status, step.Kind, step.Action = pipeline.StepRunning, e.Data.Kind, e.Data.Action
		case pipeline.StepFinished, pipeline.StepWasSkipped:
			step.Status = pipeline.StepCompleted
		}
	}
	switch {
	case step == nil:
		if _, err := s.cfg.Store.Run(ctx, id); err != nil {
			return err
		}
		return fault(pipeline.NotFound, "no_step", "run %s has come to no step %s", id, short(string(path)))
	case step.Status.Final():
		return fault(pipeline.Conflict, "step_finished", "the step %s has ended", path)
	case step.Action != pipeline.AgentAction:
		return fault(pipeline.Conflict, "no_agent", "the step %s is no agent that can be told something", path)
	}
	return nil
}
