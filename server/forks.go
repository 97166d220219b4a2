package server

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"google.golang.org/protobuf/proto"

	"github.com/orchestrator-project/orchestrator/pipeline"
	orchestratorv1 "github.com/orchestrator-project/orchestrator/proto/orchestrator/v1"
	"github.com/orchestrator-project/orchestrator/store"
)

// Forks makes runs that use what other runs have recorded.
type Forks interface {
	// Fork starts one. A source whose state does not allow it gives Conflict, a step
	// or record that it does not have Invalid, inputs that do not fit Diagnostics.
	Fork(ctx context.Context, f pipeline.Forking) (*pipeline.Run, error)
	// PreviewFork says what Fork would do with each step; it stores and starts nothing.
	PreviewFork(ctx context.Context, f pipeline.Forking) ([]pipeline.ForkStep, error)
}

// PauseRun leaves the wish in the run's inbox.
func (s runs) PauseRun(ctx context.Context, req *orchestratorv1.PauseRunRequest) (*orchestratorv1.Run, error) {
	return s.steer(ctx, req.GetId(), store.MessagePause)
}

// ResumeRun leaves the wish in the run's inbox.
func (s runs) ResumeRun(ctx context.Context, req *orchestratorv1.ResumeRunRequest) (*orchestratorv1.Run, error) {
	return s.steer(ctx, req.GetId(), store.MessageResume)
}

// steer pauses or resumes a run. What was asked of it and has not reached it yet
// counts: a run can be resumed right after it was asked to pause.
func (s runs) steer(ctx context.Context, text, kind string) (*orchestratorv1.Run, error) {
	id, err := runID(text)
	if err != nil {
		return nil, err
	}
	run, err := s.cfg.Store.Run(ctx, id)
	if err != nil {
		return nil, err
	}
	paused := run.Status == pipeline.RunPaused
	if !run.Status.Final() {
		messages, err := s.cfg.Store.Inbox(ctx, []pipeline.RunID{id})
		if err != nil {
			return nil, err
		}
		for i := range messages {
			switch messages[i].Kind {
			case store.MessagePause:
				paused = true
			case store.MessageResume, store.MessageCancel:
				paused = false
			}
		}
		switch {
		case kind == store.MessagePause && paused:
			return nil, fault(pipeline.Conflict, "run_paused", "run %s is paused already", id)
		case kind == store.MessageResume && !paused:
			return nil, fault(pipeline.Conflict, "run_not_paused", "run %s is not paused: it is %s", id, run.Status)
		}
	}
	if err := s.cfg.Store.Send(ctx, id, store.Message{Kind: kind, Actor: localUser}); err != nil {
		return nil, err
	}
	if run, err = s.cfg.Store.Run(ctx, id); err != nil {
		return nil, err
	}
	return fromRun(run), nil
}

// RetryRun uses all that completed.
func (s runs) RetryRun(ctx context.Context, req *orchestratorv1.RetryRunRequest) (*orchestratorv1.Run, error) {
	return s.fork(ctx, req, req.GetPreview(), req.GetIdempotencyKey(), &orchestratorv1.PreviewForkRequest{
		Id: req.GetId(), Mode: string(pipeline.ForkRetry),
	})
}

// RerunRun uses what began before a step.
func (s runs) RerunRun(ctx context.Context, req *orchestratorv1.RerunRunRequest) (*orchestratorv1.Run, error) {
	return s.fork(ctx, req, req.GetPreview(), req.GetIdempotencyKey(), &orchestratorv1.PreviewForkRequest{
		Id: req.GetId(), Mode: string(pipeline.ForkRerun), From: req.GetFrom(),
	})
}

// ForkRun uses what the log holds up to a record.
func (s runs) ForkRun(ctx context.Context, req *orchestratorv1.ForkRunRequest) (*orchestratorv1.Run, error) {
	return s.fork(ctx, req, req.GetPreview(), req.GetIdempotencyKey(), &orchestratorv1.PreviewForkRequest{
		Id: req.GetId(), Mode: string(pipeline.ForkAt), At: req.GetAt(), Inputs: req.GetInputs(),
		Source: req.GetSource(), File: req.GetFile(), Files: req.GetFiles(), Answers: req.GetAnswers(),
	})
}

// ReplayRun uses everything and launches nothing.
func (s runs) ReplayRun(ctx context.Context, req *orchestratorv1.ReplayRunRequest) (*orchestratorv1.Run, error) {
	return s.fork(ctx, req, false, req.GetIdempotencyKey(), &orchestratorv1.PreviewForkRequest{
		Id: req.GetId(), Mode: string(pipeline.ForkReplay),
	})
}

// fork starts what a request asks for; what is what it asks, in the one form that
// holds all kinds.
func (s runs) fork(ctx context.Context, req proto.Message, preview bool, key string, what *orchestratorv1.PreviewForkRequest) (*orchestratorv1.Run, error) {
	if preview {
		return nil, refuse("preview", "wrong_method", "call PreviewFork; in REST, the same path with preview does it")
	}
	if len(key) > maxKey {
		return nil, refuse("idempotency_key", "too_long", "longer than %d bytes", maxKey)
	}
	f, err := s.forking(ctx, what)
	if err != nil {
		return nil, err
	}
	text, err := proto.MarshalOptions{Deterministic: true}.Marshal(req)
	if err != nil {
		return nil, fmt.Errorf("digest request: %w", err)
	}
	sum := sha256.Sum256(append([]byte(what.GetMode()+" "), text...))
	f.Edit.IdempotencyKey, f.Edit.RequestDigest = key, pipeline.Digest("sha256:"+hex.EncodeToString(sum[:]))
	run, err := s.cfg.Forks.Fork(ctx, *f)
	if err != nil {
		return nil, forkError(err)
	}
	return fromRun(run), nil
}

// PreviewFork says what becomes of each step.
func (s runs) PreviewFork(ctx context.Context, req *orchestratorv1.PreviewForkRequest) (*orchestratorv1.PreviewForkResponse, error) {
	if mode := pipeline.ForkMode(req.GetMode()); mode != pipeline.ForkRetry && mode != pipeline.ForkRerun && mode != pipeline.ForkAt {
		return nil, refuse("mode", "invalid_mode", "must be retry, rerun or fork")
	}
	f, err := s.forking(ctx, req)
	if err != nil {
		return nil, err
	}
	list, err := s.cfg.Forks.PreviewFork(ctx, *f)
	if err != nil {
		return nil, forkError(err)
	}
	resp := &orchestratorv1.PreviewForkResponse{Steps: make([]*orchestratorv1.ForkStep, len(list))}
	for i := range list {
		p := &list[i]
		resp.Steps[i] = &orchestratorv1.ForkStep{Path: string(p.Path), Kind: string(p.Kind), Decision: p.Decision, Reason: p.Reason}
	}
	return resp, nil
}

// forkError shows what is wrong with inputs and answers as it is shown of a new run.
func forkError(err error) error {
	if found, ok := errors.AsType[*pipeline.Diagnostics](err); ok {
		return &inputsError{found}
	}
	return err
}

// forking reads a request.
func (s runs) forking(ctx context.Context, req *orchestratorv1.PreviewForkRequest) (*pipeline.Forking, error) {
	id, err := runID(req.GetId())
	if err != nil {
		return nil, err
	}
	f := &pipeline.Forking{From: id, Mode: pipeline.ForkMode(req.GetMode()), Step: pipeline.Path(req.GetFrom()), At: req.GetAt()}
	switch {
	case f.Mode == pipeline.ForkRerun && f.Step == "":
		return nil, refuse("from", "required", "name the step from which on everything runs again, by its path")
	case f.Mode != pipeline.ForkRerun && f.Step != "":
		return nil, refuse("from", "ambiguous", "only a rerun begins from a step")
	case f.Mode == pipeline.ForkAt:
	case f.At != 0 || req.GetInputs()+req.GetSource()+req.GetAnswers() != "" || len(req.GetFiles()) > 0:
		return nil, refuse("mode", "ambiguous", "only a fork takes a record, inputs, answers or a source")
	default:
		return f, nil
	}
	if n := len(req.GetInputs()) + len(req.GetAnswers()); n > s.cfg.Limits.Inputs {
		return nil, fault(pipeline.TooLarge, "inputs_too_large", "the inputs and answers are %d bytes; at most %d are allowed", n, s.cfg.Limits.Inputs)
	}
	if err := s.checkSize(req, req.GetFiles()); err != nil {
		return nil, err
	}
	e := &f.Edit
	if e.Inputs, err = jsonObject("inputs", req.GetInputs()); err != nil {
		return nil, err
	}
	if e.Answers, err = jsonObject("answers", req.GetAnswers()); err != nil {
		return nil, err
	}
	if req.GetSource() == "" {
		return f, nil
	}
	c, err := s.compile(ctx, req.GetFile(), req.GetSource(), req.GetFiles())
	if err == nil {
		err = c.refused()
	}
	if err != nil {
		return nil, err
	}
	e.Plan, e.PlanDigest, e.Compiled, e.Source, e.Bundle = c.plan, c.digest, c.encoded, []byte(c.source), c.files
	return f, nil
}

// previewed turns a REST request for a fork that only asks what would become of
// each step into the one that answers that.
func previewed(path string, data []byte) (string, []byte) {
	stem, verb, ok := cutLast(path, ":")
	if !ok || !strings.HasPrefix(path, "/v1/runs/") || !bytes.Contains(data, []byte(`"preview"`)) {
		return path, data
	}
	switch pipeline.ForkMode(verb) {
	case pipeline.ForkRetry, pipeline.ForkRerun, pipeline.ForkAt:
	default:
		return path, data
	}
	var req map[string]json.RawMessage
	if json.Unmarshal(data, &req) != nil || string(req["preview"]) != "true" {
		return path, data
	}
	delete(req, "preview")
	delete(req, "idempotency_key") // nothing is made that could be made twice
	req["mode"] = json.RawMessage(`"` + verb + `"`)
	changed, err := json.Marshal(req)
	if err != nil {
		return path, data
	}
	return stem + ":forkPreview", changed
}

func cutLast(s, sep string) (before, after string, found bool) {
	if i := strings.LastIndex(s, sep); i >= 0 {
		return s[:i], s[i+len(sep):], true
	}
	return s, "", false
}
