package server

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/orchestrator-project/orchestrator/pipeline"
	"github.com/orchestrator-project/orchestrator/pipeline/spec"
	orchestratorv1 "github.com/orchestrator-project/orchestrator/proto/orchestrator/v1"
	"github.com/orchestrator-project/orchestrator/store"
)

// localUser is who acts where there is no login.
const localUser = "local"

// approvals serves orchestrator.v1.Approvals.
type approvals struct {
	orchestratorv1.UnimplementedApprovalsServer
	*Server
}

var _ orchestratorv1.ApprovalsServer = approvals{}

var approvalStatuses = []string{
	string(pipeline.ApprovalOpen), string(pipeline.ApprovalDecided), string(pipeline.ApprovalExpired), string(pipeline.ApprovalWithdrawn),
}

func approvalID(s string) (pipeline.ApprovalID, error) {
	u, err := uuid.Parse(s)
	if err != nil || u.Version() != 7 {
		return "", fault(pipeline.NotFound, "approval_not_found", "there is no approval %s", short(s))
	}
	return pipeline.ApprovalID(u.String()), nil
}

// ListApprovals pages through the approvals by keyset.
func (s approvals) ListApprovals(ctx context.Context, req *orchestratorv1.ListApprovalsRequest) (*orchestratorv1.ListApprovalsResponse, error) {
	q := store.ApprovalQuery{Status: pipeline.ApprovalStatus(req.GetStatus())}
	if q.Status != "" && !slices.Contains(approvalStatuses, string(q.Status)) {
		return nil, refuse("status", "invalid_status", "%s is no status of an approval; there are %s", short(req.GetStatus()), strings.Join(approvalStatuses, ", "))
	}
	var err error
	if req.GetRunId() != "" {
		if q.Run, err = runID(req.GetRunId()); err != nil {
			return nil, err
		}
	}
	if q.Limit, err = s.cfg.Limits.pageSize(req.GetPageSize()); err != nil {
		return nil, err
	}
	list := "approvals " + req.GetStatus() + " " + string(q.Run)
	place, err := readPageToken(list, req.GetPageToken())
	if err != nil {
		return nil, err
	}
	q.Before = pipeline.ApprovalID(place)
	page, err := s.cfg.Store.Approvals(ctx, q)
	if err != nil {
		return nil, err
	}
	resp := &orchestratorv1.ListApprovalsResponse{Approvals: make([]*orchestratorv1.Approval, len(page.Approvals))}
	for i, a := range page.Approvals {
		resp.Approvals[i] = fromApproval(a)
	}
	if page.More && len(page.Approvals) > 0 {
		resp.NextPageToken = pageToken(list, string(page.Approvals[len(page.Approvals)-1].ID))
	}
	return resp, nil
}

// GetApproval reads one approval.
func (s approvals) GetApproval(ctx context.Context, req *orchestratorv1.GetApprovalRequest) (*orchestratorv1.Approval, error) {
	id, err := approvalID(req.GetId())
	if err != nil {
		return nil, err
	}
	a, err := s.cfg.Store.Approval(ctx, id)
	if err != nil {
		return nil, err
	}
	return fromApproval(a), nil
}

const (
	maxComment = 10_000 // of a decision, in bytes
	maxAlike   = 500    // open questions of a run that are looked at for those that a decision is good for, too
)

// DecideApproval checks the answer by its type and lets one caller win.
func (s approvals) DecideApproval(ctx context.Context, req *orchestratorv1.DecideApprovalRequest) (*orchestratorv1.Approval, error) {
	id, err := approvalID(req.GetId())
	if err != nil {
		return nil, err
	}
	if len(req.GetComment()) > maxComment {
		return nil, refuse("comment", "too_long", "longer than %d bytes", maxComment)
	}
	if n := len(req.GetValue()); n > s.cfg.Limits.Inputs {
		return nil, fault(pipeline.TooLarge, "value_too_large", "the value is %d bytes; at most %d are allowed", n, s.cfg.Limits.Inputs)
	}
	v, err := jsonValue("value", req.GetValue())
	if err != nil {
		return nil, err
	}
	a, err := s.cfg.Store.Approval(ctx, id)
	if err != nil {
		return nil, err
	}
	if req.GetDecision() == "" {
		return nil, refuse("decision", "required", "say what is decided: %s", strings.Join(a.Allowed(), ", "))
	}
	says := req.GetDecision() == "answer" || req.GetDecision() == "done" || a.Kind == pipeline.ApprovalBudget && v != nil
	if says && a.Schema != nil && a.Status == pipeline.ApprovalOpen {
		bad := &refusal{reason: "invalid_answer"}
		var wrong []spec.Violation
		if v, wrong = spec.Conform(a.Schema, v); wrong != nil {
			for _, w := range wrong {
				bad.violations = append(bad.violations, violation{Field: strings.TrimSuffix("value."+w.Path, "."), Reason: "invalid_answer", Text: w.Text})
			}
			return nil, bad
		}
	}
	d := pipeline.Decision{
		Approval: id, Decision: req.GetDecision(), Value: v, Comment: req.GetComment(), Actor: localUser, At: time.Now().UTC(),
	}
	if req.GetRemember() {
		if a.Scope == "" || d.Decision != "approve" {
			return nil, refuse("remember", "not_remembered", "only the approval of a tool's call can be remembered for the rest of the run")
		}
		d.Remember = a.Scope
	}
	if a.Kind == pipeline.ApprovalTool && d.Decision == "approve" && v != nil {
		if _, ok := v.(map[string]any); !ok {
			return nil, refuse("value", "invalid_arguments", "the arguments of a call are a JSON object")
		}
	}
	a, err = s.cfg.Store.Decide(ctx, id, d)
	if err != nil {
		return nil, err
	}
	if d.Remember != "" {
		err = s.alike(ctx, a, d)
	}
	return fromApproval(a), err
}

// alike lets what was approved for the rest of a run be good for the calls that
// wait already. Whoever has decided about one of them meanwhile wins.
func (s approvals) alike(ctx context.Context, a *pipeline.Approval, d pipeline.Decision) error {
	page, err := s.cfg.Store.Approvals(ctx, store.ApprovalQuery{Run: a.Run, Status: pipeline.ApprovalOpen, Limit: maxAlike})
	if err != nil {
		return err
	}
	for _, other := range page.Approvals {
		if other.Scope != a.Scope || other.Kind != pipeline.ApprovalTool {
			continue
		}
		d.Approval, d.Value, d.Remember = other.ID, nil, ""
		if _, err := s.cfg.Store.Decide(ctx, other.ID, d); err != nil && pipeline.KindOf(err) != pipeline.Conflict {
			return err
		}
	}
	return nil
}
