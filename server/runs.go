package server

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"unicode"
	"unicode/utf8"

	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"

	"github.com/orchestrator-project/orchestrator/pipeline"
	"github.com/orchestrator-project/orchestrator/pipeline/spec"
	orchestratorv1 "github.com/orchestrator-project/orchestrator/proto/orchestrator/v1"
	"github.com/orchestrator-project/orchestrator/store"
)

// runs serves orchestrator.v1.Runs.
type runs struct {
	orchestratorv1.UnimplementedRunsServer
	*Server
}

var _ orchestratorv1.RunsServer = runs{}

// The limits of labels; a request that is larger than they allow would not be
// found again by a filter.
const (
	maxLabels     = 64
	maxLabelName  = 63
	maxLabelValue = 256
	maxKey        = 256 // of an idempotency key
)

func runID(s string) (pipeline.RunID, error) {
	id, ok := pipeline.ParseRunID(s)
	if !ok {
		return "", fault(pipeline.NotFound, "run_not_found", "there is no run %s", short(s))
	}
	return id, nil
}

// short is text of the caller as it may stand in a message.
func short(s string) string {
	const most = 64
	if utf8.RuneCountInString(s) > most {
		s = string([]rune(s)[:most]) + "..."
	}
	return strconv.Quote(s)
}

// CreateRun compiles, checks the inputs and submits.
func (s runs) CreateRun(ctx context.Context, req *orchestratorv1.CreateRunRequest) (*orchestratorv1.Run, error) {
	if req.GetDryRun() {
		return nil, refuse("dry_run", "wrong_method", "call DryRun; in REST, POST /v1/runs with dry_run does it")
	}
	sub, err := s.submission(ctx, req)
	if err != nil {
		return nil, err
	}
	run, err := s.cfg.Submitter.Submit(ctx, *sub)
	if err != nil {
		return nil, err
	}
	return fromRun(run), nil
}

// DryRun says what CreateRun would run. Open <AUTO> tags are no reason to refuse
// it: they are what it shows.
func (s runs) DryRun(ctx context.Context, req *orchestratorv1.CreateRunRequest) (*orchestratorv1.DryRunResponse, error) {
	dry, _ := proto.Clone(req).(*orchestratorv1.CreateRunRequest)
	dry.DryRun = true
	sub, err := s.submission(ctx, dry)
	if err != nil {
		return nil, err
	}
	plan, err := s.cfg.Preview.DryRun(ctx, *sub)
	if err != nil {
		return nil, err
	}
	resp := &orchestratorv1.DryRunResponse{Plan: make([]*orchestratorv1.PlannedStep, len(plan))}
	for i := range plan {
		resp.Plan[i] = fromPlanned(&plan[i])
	}
	return resp, nil
}

// submission checks a request from end to end.
func (s runs) submission(ctx context.Context, req *orchestratorv1.CreateRunRequest) (*pipeline.Submission, error) {
	if err := s.checkCreate(req); err != nil {
		return nil, err
	}
	digest, err := requestDigest(req)
	if err != nil {
		return nil, err
	}
	var c *compiled
	if req.GetSource() != "" {
		c, err = s.compile(ctx, req.GetFile(), req.GetSource(), req.GetFiles())
	} else {
		c, err = s.registered(ctx, req.GetPipeline(), req.GetVersion())
	}
	if err != nil {
		return nil, err
	}
	if err := c.refused(); err != nil {
		return nil, err
	}
	given, err := jsonObject("inputs", req.GetInputs())
	if err != nil {
		return nil, err
	}
	inputs, err := checkInputs(c.plan, given)
	if err != nil {
		return nil, err
	}
	answers, err := s.answers(ctx, c.plan, req)
	if err != nil {
		return nil, err
	}
	uploads := pipeline.Bundle(req.GetUploads())
	if err := checkPaths("uploads", uploads); err != nil {
		return nil, err
	}
	return &pipeline.Submission{
		Plan: c.plan, PlanDigest: c.digest, Compiled: c.encoded, Source: []byte(c.source), Bundle: c.files,
		Inputs: inputs, Answers: answers, Uploads: uploads, Labels: req.GetLabels(), Priority: req.GetPriority(), Queue: req.GetQueue(), FairKey: req.GetFairKey(),
		IdempotencyKey: req.GetIdempotencyKey(), RequestDigest: digest,
	}, nil
}

// answers checks what was given for the plan's <AUTO> tags.
func (s runs) answers(ctx context.Context, plan *pipeline.Plan, req *orchestratorv1.CreateRunRequest) (map[string]any, error) {
	given, err := jsonObject("answers", req.GetAnswers())
	if err != nil {
		return nil, err
	}
	answers, unused, err := spec.CheckAnswers(plan, given)
	if err == nil && len(unused) > 0 {
		bad := &refusal{reason: "invalid_answers"}
		for _, key := range unused {
			bad.violations = append(bad.violations, violation{Field: "answers." + key, Reason: "unused_answer", Text: "the pipeline has no <AUTO> tag of this key" + spec.MeantAnswer(plan, key)})
		}
		return nil, bad
	}
	if err == nil && !req.GetDryRun() {
		err = s.unfilled(ctx, plan, answers)
	}
	if found, ok := errors.AsType[*pipeline.Diagnostics](err); ok {
		return nil, &inputsError{found}
	}
	return answers, err
}

// checkCreate finds everything that is wrong with a request before its
// pipeline is looked at.
func (s runs) checkCreate(req *orchestratorv1.CreateRunRequest) error {
	var bad []violation
	add := func(field, reason, format string, args ...any) {
		bad = append(bad, violation{Field: field, Reason: reason, Text: fmt.Sprintf(format, args...)})
	}
	if req.GetSource() == "" && req.GetPipeline() == "" {
		add("source", "required", "send a pipeline's source or name a registered pipeline")
	}
	if req.GetSource() != "" && req.GetPipeline() != "" {
		add("pipeline", "ambiguous", "send source or pipeline, not both")
	}
	if req.GetVersion() != "" && req.GetPipeline() == "" {
		add("version", "ambiguous", "a version needs a pipeline")
	}
	if req.GetQueue() != "" && !pipeline.IsQueue(req.GetQueue()) {
		add("queue", "invalid_queue", "%s is not the name of a queue: 1 to 128 letters, digits and -_./:", short(req.GetQueue()))
	}
	if len(req.GetFairKey()) > maxKey {
		add("fair_key", "too_long", "longer than %d bytes", maxKey)
	}
	if len(req.GetIdempotencyKey()) > maxKey {
		add("idempotency_key", "too_long", "longer than %d bytes", maxKey)
	}
	bad = append(bad, badLabels(req.GetLabels())...)
	if bad != nil {
		return &refusal{reason: "invalid_request", violations: bad}
	}
	for _, values := range []struct{ name, text string }{{"inputs", req.GetInputs()}, {"answers", req.GetAnswers()}} {
		if n := len(values.text); n > s.cfg.Limits.Inputs {
			return fault(pipeline.TooLarge, values.name+"_too_large", "the %s are %d bytes; at most %d are allowed", values.name, n, s.cfg.Limits.Inputs)
		}
	}
	return s.checkSize(req, req.GetFiles(), req.GetUploads())
}

// badLabels finds what is wrong with labels.
func badLabels(labels map[string]string) (bad []violation) {
	add := func(field, reason, format string, args ...any) {
		bad = append(bad, violation{Field: field, Reason: reason, Text: fmt.Sprintf(format, args...)})
	}
	if len(labels) > maxLabels {
		add("labels", "too_many", "more than %d", maxLabels)
		return bad
	}
	for k, v := range labels {
		if !labelName(k) {
			add("labels", "invalid_label", "%s is not a label's name: 1 to %d letters, digits and -_./", short(k), maxLabelName)
		}
		if len(v) > maxLabelValue || !printable(v) {
			add("labels."+k, "invalid_label", "must be at most %d bytes of printable text", maxLabelValue)
		}
	}
	return bad
}

func labelName(s string) bool {
	if s == "" || len(s) > maxLabelName {
		return false
	}
	for _, r := range s {
		if !unicode.IsLetter(r) && !unicode.IsDigit(r) && r != '-' && r != '_' && r != '.' && r != '/' {
			return false
		}
	}
	return true
}

func printable(s string) bool {
	for _, r := range s {
		if !unicode.IsPrint(r) {
			return false
		}
	}
	return true
}

// jsonObject reads the JSON text of a field that holds an object.
func jsonObject(field, text string) (map[string]any, error) {
	if text == "" {
		return map[string]any{}, nil
	}
	v, err := pipeline.DecodeValue([]byte(text))
	if err != nil {
		return nil, refuse(field, "invalid_json", "not a JSON value that can be used: %v", err)
	}
	switch v := v.(type) {
	case nil:
		return map[string]any{}, nil
	case map[string]any:
		return v, nil
	}
	return nil, refuse(field, "invalid_type", "must be a JSON object with the %s by name", field)
}

// requestDigest is over everything that the caller sent, if a key may compare it
// with another request.
func requestDigest(req *orchestratorv1.CreateRunRequest) (pipeline.Digest, error) {
	if req.GetIdempotencyKey() == "" {
		return "", nil
	}
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(req)
	if err != nil {
		return "", fmt.Errorf("digest request: %w", err)
	}
	sum := sha256.Sum256(b)
	return pipeline.Digest("sha256:" + hex.EncodeToString(sum[:])), nil
}

// ListRuns pages through the runs by keyset.
func (s runs) ListRuns(ctx context.Context, req *orchestratorv1.ListRunsRequest) (*orchestratorv1.ListRunsResponse, error) {
	q, err := parseFilter(req.GetFilter())
	if err != nil {
		return nil, err
	}
	if q.Limit, err = s.cfg.Limits.pageSize(req.GetPageSize()); err != nil {
		return nil, err
	}
	list := "runs " + req.GetFilter()
	place, err := readPageToken(list, req.GetPageToken())
	if err != nil {
		return nil, err
	}
	q.Before = pipeline.RunID(place)
	page, err := s.cfg.Store.Runs(ctx, q)
	if err != nil {
		return nil, err
	}
	resp := &orchestratorv1.ListRunsResponse{Runs: make([]*orchestratorv1.Run, len(page.Runs))}
	for i, r := range page.Runs {
		resp.Runs[i] = fromRun(r)
	}
	if page.More && len(page.Runs) > 0 {
		resp.NextPageToken = pageToken(list, string(page.Runs[len(page.Runs)-1].ID))
	}
	return resp, nil
}

// GetRun reads the run's row.
func (s runs) GetRun(ctx context.Context, req *orchestratorv1.GetRunRequest) (*orchestratorv1.Run, error) {
	id, err := runID(req.GetId())
	if err != nil {
		return nil, err
	}
	run, err := s.cfg.Store.Run(ctx, id)
	if err != nil {
		return nil, err
	}
	return fromRun(run), nil
}

// ListSteps pages through the folded run.
func (s runs) ListSteps(ctx context.Context, req *orchestratorv1.ListStepsRequest) (*orchestratorv1.ListStepsResponse, error) {
	id, err := runID(req.GetId())
	if err != nil {
		return nil, err
	}
	size, err := s.cfg.Limits.pageSize(req.GetPageSize())
	if err != nil {
		return nil, err
	}
	list := "steps " + string(id)
	from, err := readPageNumber(list, req.GetPageToken())
	if err != nil {
		return nil, err
	}
	r, err := s.hub.open(ctx, id)
	if err != nil {
		return nil, err
	}
	defer s.hub.release(r)
	if err := r.catchUp(ctx); err != nil {
		return nil, err
	}
	resp := &orchestratorv1.ListStepsResponse{}
	weight := 0
	total, err := r.steps(ctx, from, size, func(step *pipeline.Step) bool {
		p := fromStep(step)
		weight += len(p.GetParameters()) + len(p.GetOutput())
		resp.Steps = append(resp.Steps, p)
		return len(resp.GetSteps()) < size && weight < s.cfg.Limits.Response
	})
	if err != nil {
		return nil, err
	}
	if next := from + len(resp.GetSteps()); next < total {
		resp.NextPageToken = pageToken(list, strconv.Itoa(next))
	}
	return resp, nil
}

// ListEvents pages through the log.
func (s runs) ListEvents(ctx context.Context, req *orchestratorv1.ListEventsRequest) (*orchestratorv1.ListEventsResponse, error) {
	id, err := runID(req.GetId())
	if err != nil {
		return nil, err
	}
	size, err := s.cfg.Limits.pageSize(req.GetPageSize())
	if err != nil {
		return nil, err
	}
	if req.GetAfter() < 0 {
		return nil, refuse("after", "invalid_after", "must not be negative")
	}
	list := "events " + string(id)
	place, err := readPageNumber(list, req.GetPageToken())
	if err != nil {
		return nil, err
	}
	r, err := s.hub.open(ctx, id)
	if err != nil {
		return nil, err
	}
	defer s.hub.release(r)
	resp := &orchestratorv1.ListEventsResponse{}
	after, weight := max(req.GetAfter(), clamp(place)), 0
	more := false
	for !more {
		events, err := r.next(ctx, after, always)
		if err != nil {
			return nil, err
		}
		if len(events) == 0 {
			break
		}
		for _, e := range events {
			if len(resp.GetEvents()) == size || weight >= s.cfg.Limits.Response {
				more = true
				break
			}
			resp.Events = append(resp.Events, e)
			after = e.GetSeq()
			weight += len(e.GetData())
		}
	}
	if more {
		resp.NextPageToken = pageToken(list, strconv.Itoa(int(after)))
	}
	return resp, nil
}

// WatchRun sends what the log holds after a sequence number and then, bell by
// bell, what is added to it, and what is only live.
func (s runs) WatchRun(req *orchestratorv1.WatchRunRequest, stream orchestratorv1.Runs_WatchRunServer) error {
	ctx := stream.Context()
	id, err := runID(req.GetId())
	if err != nil {
		return err
	}
	if req.GetAfter() < 0 {
		return refuse("after", "invalid_after", "must not be negative")
	}
	r, err := s.hub.open(ctx, id)
	if err != nil {
		return err
	}
	defer s.hub.release(r)
	if err := stream.SendHeader(streamOpen()); err != nil {
		return err
	}
	after := req.GetAfter()
	look := newLooker()
	if _, done := r.state(); !done {
		defer s.cfg.Store.Look(id, look.add)()
	}
	live := func() error {
		for _, e := range look.take() {
			if err := stream.Send(e); err != nil {
				return err
			}
		}
		return nil
	}
	for first := true; ; first = false {
		gen, rung := r.events.state()
		if first && !r.whole() {
			gen = always // this reading, even if no bell was heard
		}
		for {
			events, err := r.next(ctx, after, gen)
			if err != nil {
				return err
			}
			if len(events) == 0 {
				break
			}
			together(ctx, len(events))
			if err := live(); err != nil { // shown before they were recorded
				return err
			}
			for _, e := range events {
				if err := stream.Send(e); err != nil {
					return err
				}
			}
			after = events[len(events)-1].GetSeq()
			if s.hub.isClosing() {
				return errDraining
			}
		}
		seq, done := r.state()
		if after < seq {
			continue // another watcher has folded more meanwhile
		}
		if done {
			return nil
		}
		for waiting := true; waiting; {
			select {
			case <-rung:
				waiting = false
			case <-look.news:
				if err := live(); err != nil {
					return err
				}
			case <-ctx.Done():
				return ctx.Err()
			case <-s.hub.closing:
				return errDraining
			}
		}
	}
}

// streamOpen is the header that tells the gateway that a stream has begun.
func streamOpen() metadata.MD { return metadata.Pairs(streamHeader, "open") }

// CancelRun leaves the wish in the run's inbox.
func (s runs) CancelRun(ctx context.Context, req *orchestratorv1.CancelRunRequest) (*orchestratorv1.Run, error) {
	id, err := runID(req.GetId())
	if err != nil {
		return nil, err
	}
	if err := s.cfg.Store.Send(ctx, id, store.Message{Kind: store.MessageCancel, Actor: localUser}); err != nil {
		return nil, err
	}
	run, err := s.cfg.Store.Run(ctx, id)
	if err != nil {
		return nil, err
	}
	return fromRun(run), nil
}

// maxSignal bounds the data of a signal, in bytes of JSON.
const maxSignal = 1 << 20

// SendSignal leaves a signal in the run's inbox.
func (s runs) SendSignal(ctx context.Context, req *orchestratorv1.SendSignalRequest) (*orchestratorv1.Run, error) {
	id, err := runID(req.GetId())
	if err != nil {
		return nil, err
	}
	if !labelName(req.GetName()) {
		return nil, refuse("name", "invalid_name", "%s is not a signal's name: 1 to %d letters, digits and -_./", short(req.GetName()), maxLabelName)
	}
	if slices.Contains([]string{pipeline.SignalCancel, pipeline.SignalTimeout, pipeline.SignalHandedOver}, req.GetName()) {
		return nil, refuse("name", "reserved_name", "%s is a signal of the engine's own; to end a run, cancel it", req.GetName())
	}
	if n := len(req.GetData()); n > maxSignal {
		return nil, fault(pipeline.TooLarge, "data_too_large", "the data are %d bytes; at most %d are allowed", n, maxSignal)
	}
	data, err := jsonValue("data", req.GetData())
	if err != nil {
		return nil, err
	}
	if len(req.GetIdempotencyKey()) > maxKey {
		return nil, refuse("idempotency_key", "too_long", "longer than %d bytes", maxKey)
	}
	body := pipeline.EncodeValue(map[string]any{"name": req.GetName(), "data": data})
	if err := s.cfg.Store.Send(ctx, id, store.Message{Kind: store.MessageSignal, Actor: localUser, Body: body, Key: req.GetIdempotencyKey()}); err != nil {
		return nil, err
	}
	run, err := s.cfg.Store.Run(ctx, id)
	if err != nil {
		return nil, err
	}
	return fromRun(run), nil
}

// jsonValue reads the JSON text of a field; none is null.
func jsonValue(field, text string) (any, error) {
	if text == "" {
		return nil, nil //nolint:nilnil // null is a value
	}
	v, err := pipeline.DecodeValue([]byte(text))
	if err != nil {
		return nil, refuse(field, "invalid_json", "not a JSON value that can be used: %v", err)
	}
	return v, nil
}
