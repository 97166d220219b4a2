package server

import (
	"context"
	"net/http"
	"strings"
	"testing"

	"github.com/orchestrator-project/orchestrator/pipeline"
	orchestratorv1 "github.com/orchestrator-project/orchestrator/proto/orchestrator/v1"
)

// Fork answers a run that says what was asked for.
func (e *engine) Fork(ctx context.Context, f pipeline.Forking) (*pipeline.Run, error) {
	if _, err := e.st.Run(ctx, f.From); err != nil {
		return nil, err
	}
	return &pipeline.Run{
		ID: pipeline.NewRunID(), ForkedFrom: f.From, ForkSeq: f.At, Status: pipeline.RunRunning, Inputs: f.Edit.Inputs,
		Reason: string(f.Mode) + " " + string(f.Step) + " " + f.Edit.IdempotencyKey,
	}, nil
}

// PreviewFork names the mode.
func (e *engine) PreviewFork(_ context.Context, f pipeline.Forking) ([]pipeline.ForkStep, error) {
	return []pipeline.ForkStep{{Path: "a", Kind: pipeline.KindAction, Decision: pipeline.WouldRerun, Reason: string(f.Mode)}}, nil
}

func TestForksInREST(t *testing.T) {
	f := start(t)
	id := string(f.create())
	base := "/v1/runs/" + id
	for _, c := range []struct {
		path, body string
		code       int
		want       string
	}{
		{base + ":retry", `{"idempotency_key":"k"}`, http.StatusOK, `"reason":"retry  k"`},
		{base + ":rerun", `{"from":"a[1]/b"}`, http.StatusOK, `"reason":"rerun a[1]/b "`},
		{base + ":rerun", `{}`, http.StatusBadRequest, `name the step`},
		{base + ":fork", `{"at":3,"inputs":{"n":1}}`, http.StatusOK, `"fork_seq":3`},
		{base + ":fork", `{"source":"steps: ["}`, http.StatusBadRequest, ``},
		{base + ":replay", `{}`, http.StatusOK, `"reason":"replay  "`},
		{base + ":fork", `{"at":3,"preview":true}`, http.StatusOK, `"decision":"rerun","reason":"fork"`},
		{base + ":retry", `{"preview":true}`, http.StatusOK, `"reason":"retry"`},
		{base + ":forkPreview", `{"mode":"replay"}`, http.StatusBadRequest, `must be retry, rerun or fork`},
		{"/v1/runs/" + string(pipeline.NewRunID()) + ":retry", `{}`, http.StatusNotFound, `run_not_found`},
	} {
		code, _, text := f.do(http.MethodPost, c.path, c.body)
		if code != c.code || !strings.Contains(text, c.want) {
			t.Errorf("%s %s gave %d: %s", c.path, c.body, code, text)
		}
	}
}

func TestPauseAndResume(t *testing.T) {
	f := start(t)
	id := string(f.create())
	pause := func() error {
		_, err := f.runs().PauseRun(t.Context(), &orchestratorv1.PauseRunRequest{Id: id})
		return err
	}
	resume := func() error {
		_, err := f.runs().ResumeRun(t.Context(), &orchestratorv1.ResumeRunRequest{Id: id})
		return err
	}
	for i, step := range []struct {
		do   func() error
		want string // empty: it is taken
	}{{resume, "is not paused"}, {pause, ""}, {pause, "is paused already"}, {resume, ""}, {resume, "is not paused"}, {pause, ""}} {
		err := step.do()
		if (err == nil) != (step.want == "") || err != nil && !strings.Contains(err.Error(), step.want) {
			t.Errorf("step %d gave %v", i, err)
		}
	}
}
