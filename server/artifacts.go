package server

import (
	"context"

	"github.com/orchestrator-project/orchestrator/pipeline"
	orchestratorv1 "github.com/orchestrator-project/orchestrator/proto/orchestrator/v1"
)

// artifacts serves orchestrator.v1.Artifacts.
type artifacts struct {
	orchestratorv1.UnimplementedArtifactsServer
	*Server
}

var _ orchestratorv1.ArtifactsServer = artifacts{}

// versions reads what a run has published, in order.
func (s artifacts) versions(ctx context.Context, run string) (pipeline.RunID, []pipeline.Version, error) {
	id, err := runID(run)
	if err != nil {
		return "", nil, err
	}
	r, err := s.hub.open(ctx, id)
	if err != nil {
		return "", nil, err
	}
	defer s.hub.release(r)
	if err := r.catchUp(ctx); err != nil {
		return "", nil, err
	}
	var list []pipeline.Version
	_, err = r.steps(ctx, 0, windowSteps, func(step *pipeline.Step) bool {
		list = append(list, step.Artifacts...)
		return true
	})
	return id, list, err
}

// ListArtifacts lists the versions that a run has published.
func (s artifacts) ListArtifacts(ctx context.Context, req *orchestratorv1.ListArtifactsRequest) (*orchestratorv1.ListArtifactsResponse, error) {
	if req.GetRunId() == "" {
		return nil, refuse("run_id", "required", "name the run")
	}
	id, list, err := s.versions(ctx, req.GetRunId())
	if err != nil {
		return nil, err
	}
	resp := &orchestratorv1.ListArtifactsResponse{}
	for i := range list {
		resp.Artifacts = append(resp.Artifacts, fromVersion(id, &list[i]))
	}
	return resp, nil
}

// GetArtifact reads one version with the content of its file.
func (s artifacts) GetArtifact(ctx context.Context, req *orchestratorv1.GetArtifactRequest) (*orchestratorv1.ArtifactContent, error) {
	id, list, err := s.versions(ctx, req.GetRunId())
	if err != nil {
		return nil, err
	}
	var found *pipeline.Version
	for i := range list {
		v := &list[i]
		if v.Artifact == req.GetArtifact() && (req.GetVersion() == 0 || v.Version == req.GetVersion()) {
			found = v
		}
	}
	if found == nil {
		return nil, fault(pipeline.NotFound, "artifact_not_found", "the run has no such version of an artifact %s", short(req.GetArtifact()))
	}
	out := &orchestratorv1.ArtifactContent{Artifact: fromVersion(id, found)}
	if found.Blob != "" {
		if out.Content, err = s.cfg.Store.Blob(ctx, id, found.Blob); err != nil {
			return nil, err
		}
	}
	return out, nil
}
