package web

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	api "github.com/orchestrator-project/orchestrator/proto/orchestrator/v1"
	"github.com/orchestrator-project/orchestrator/proto/wire"
)

// approvalID is the n-th approval of a fake.
func approvalID(n int) string { return fmt.Sprintf("019bb000-%04x-7abc-8def-0123456789ab", n) }

// allowedOf says how each kind is decided, as the API does.
func allowedOf(kind string) []string {
	switch kind {
	case "ask":
		return []string{"answer"}
	case "needs_decision":
		return []string{"retry", "done", "fail"}
	}
	return []string{"approve", "reject"}
}

// ask lets a step of the story ask people.
func (s *story) ask(n int, path, kind, question string, change func(*api.Approval)) *api.Approval {
	a := &api.Approval{
		Id: approvalID(n), RunId: s.run.Id, Pipeline: s.run.Pipeline, Path: path, Kind: kind, Question: question,
		Status: "open", CreatedAt: timestamppb.New(epoch.Add(time.Minute)), Allowed: allowedOf(kind), OnTimeout: "fail",
	}
	if change != nil {
		change(a)
	}
	s.f.mu.Lock()
	s.f.approvals = append(s.f.approvals, a)
	s.f.mu.Unlock()
	s.step(path, api.Step_WAITING, epoch.Add(time.Minute), func(st *api.Step) {
		st.Kind, st.Reason = "ask", "approval"
		st.Waiting = &api.Waiting{For: "approval", Approval: a.Id, Due: a.Deadline}
	})
	return a
}

// waits lets a step of the story wait.
func (s *story) waits(path string, w *api.Waiting) {
	s.step(path, api.Step_WAITING, epoch.Add(time.Minute), func(st *api.Step) {
		st.Kind, st.Reason, st.Waiting = "wait", w.For, w
	})
}

// carry adds an event that carries data beside the step as it is.
func (s *story) carry(typ, path, data string) {
	s.f.mu.Lock()
	defer s.f.mu.Unlock()
	e := &api.Event{RunId: s.run.Id, Seq: int32(len(s.events) + 1), Type: typ, Path: path, At: timestamppb.New(epoch.Add(time.Minute)), Data: data}
	if i, ok := s.index[path]; ok && path != "" {
		b, err := wire.Marshal(s.steps[i])
		if err != nil {
			panic(err)
		}
		e.Data = strings.TrimSuffix(data, "}") + `,"step":` + string(b) + `}`
	}
	s.events = append(s.events, e)
	close(s.changed)
	s.changed = make(chan struct{})
}

func (f *fake) approvalAt(id string) (int, error) {
	i := slices.IndexFunc(f.approvals, func(a *api.Approval) bool { return a.Id == id })
	if i < 0 {
		return 0, status.Errorf(codes.NotFound, "there is no approval %s", id)
	}
	return i, nil
}

func (f *fake) ListApprovals(_ context.Context, r *api.ListApprovalsRequest) (*api.ListApprovalsResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := &api.ListApprovalsResponse{}
	for _, a := range slices.Backward(f.approvals) {
		if r.Status != "" && a.Status != r.Status || r.RunId != "" && a.RunId != r.RunId || r.PageToken != "" && a.Id >= r.PageToken {
			continue
		}
		if len(out.Approvals) == int(r.PageSize) {
			out.NextPageToken = out.Approvals[len(out.Approvals)-1].Id
			break
		}
		out.Approvals = append(out.Approvals, a)
	}
	return out, nil
}

func (f *fake) GetApproval(_ context.Context, r *api.GetApprovalRequest) (*api.Approval, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	i, err := f.approvalAt(r.Id)
	if err != nil {
		return nil, err
	}
	return f.approvals[i], nil
}

func (f *fake) DecideApproval(_ context.Context, r *api.DecideApprovalRequest) (*api.Approval, error) {
	f.mu.Lock()
	i, err := f.approvalAt(r.Id)
	if err != nil {
		f.mu.Unlock()
		return nil, err
	}
	a := proto.CloneOf(f.approvals[i])
	switch {
	case a.Status != "open":
		err = status.Errorf(codes.Aborted, "approval %s is already %s", a.Id, a.Status)
	case !slices.Contains(a.Allowed, r.Decision):
		err = status.Errorf(codes.InvalidArgument, "%q cannot be said to approval %s", r.Decision, a.Id)
	case a.Type == "integer" && strings.Contains(r.Value, "."):
		err = status.Errorf(codes.InvalidArgument, "value: must be an integer")
	}
	if err != nil {
		f.mu.Unlock()
		return nil, err
	}
	f.decided = append(f.decided, r)
	now := time.Now()
	a.Decisions = append(a.Decisions, &api.Decision{Decision: r.Decision, Value: r.Value, Comment: r.Comment, Actor: "local", At: timestamppb.New(now)})
	a.Status, a.DecidedAt = "decided", timestamppb.New(now)
	f.approvals[i] = a
	s := f.runs[a.RunId]
	f.mu.Unlock()
	if s != nil {
		s.carry("approval_decided", a.Path, `{"decision":{"decision":"`+r.Decision+`","actor":"local"}}`)
		s.step(a.Path, api.Step_COMPLETED, now, func(st *api.Step) { st.Waiting, st.Reason, st.Output = nil, "", r.Value })
	}
	return a, nil
}

// decisions are what was decided so far.
func (f *fake) decisions() []*api.DecideApprovalRequest {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.decided)
}

func (f *fake) SendSignal(_ context.Context, r *api.SendSignalRequest) (*api.Run, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	s, err := f.story(r.Id)
	if err != nil {
		return nil, err
	}
	f.signals = append(f.signals, r)
	return s.run, nil
}

// DryRun plans one step of each answer; a source with "flaw" in it is refused.
func (f *fake) DryRun(_ context.Context, r *api.CreateRunRequest) (*api.DryRunResponse, error) {
	f.mu.Lock()
	f.dry = append(f.dry, r)
	f.mu.Unlock()
	if !strings.Contains(r.Inputs, "repo") {
		st, err := status.New(codes.InvalidArgument, "the inputs do not fit").WithDetails(&errdetails.BadRequest{
			FieldViolations: []*errdetails.BadRequest_FieldViolation{{Field: "repo", Description: "is required"}},
		})
		if err != nil {
			return nil, err
		}
		return nil, st.Err()
	}
	return &api.DryRunResponse{Plan: []*api.PlannedStep{
		{Path: "load", Kind: "command", WouldRun: "yes", Command: `gh issue list --repo acme/site --json "number,title"`},
		{Path: "each_issue/classify", Kind: "action", WouldRun: "unknown", Prompt: "Classify <b>this</b> issue.", Reason: "it depends on the items of load"},
		{Path: "approve_it", Kind: "ask", WouldRun: "yes", Prompt: "Shall the report go out?"},
		{Path: "notify", Kind: "skill", WouldRun: "no", Reason: "condition_false"},
	}}, nil
}

func (f *fake) ListArtifacts(_ context.Context, r *api.ListArtifactsRequest) (*api.ListArtifactsResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := &api.ListArtifactsResponse{}
	s, err := f.story(r.RunId)
	if err != nil {
		return nil, err
	}
	for _, st := range s.steps {
		out.Artifacts = append(out.Artifacts, st.Artifacts...)
	}
	return out, nil
}

func (f *fake) GetArtifact(ctx context.Context, r *api.GetArtifactRequest) (*api.ArtifactContent, error) {
	list, err := f.ListArtifacts(ctx, &api.ListArtifactsRequest{RunId: r.RunId})
	if err != nil {
		return nil, err
	}
	for _, a := range list.Artifacts {
		if a.Artifact == r.Artifact && a.Version == r.Version {
			return &api.ArtifactContent{Artifact: a, Content: []byte(f.blobs[a.Digest])}, nil
		}
	}
	return nil, status.Errorf(codes.NotFound, "the run has no such version of an artifact %s", r.Artifact)
}
