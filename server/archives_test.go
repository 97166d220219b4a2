package server

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/orchestrator-project/orchestrator/pipeline"
	"github.com/orchestrator-project/orchestrator/store"
	"github.com/orchestrator-project/orchestrator/store/storetest"
)

// Import stores what the archive holds.
func (e *engine) Import(ctx context.Context, archive io.ReadSeeker) (*pipeline.Run, error) {
	a, err := store.OpenRunArchive(archive, time.Now())
	if err == nil {
		err = store.ImportRun(ctx, e.st, "importer", a)
	}
	if err != nil {
		return nil, err
	}
	return e.st.Run(ctx, a.Run.ID)
}

func TestArchivesTravelByREST(t *testing.T) {
	from, to := start(t), start(t)
	run := storetest.Finished(t, from.st, 61)
	path := "/v1/runs/" + string(run.ID)
	code, h, file := from.do(http.MethodGet, path+":export", "")
	if code != http.StatusOK || h.Get("Content-Type") != "application/zstd" || h.Get("Content-Disposition") == "" {
		t.Fatalf("export: %d %v", code, h)
	}
	zstd := []string{"Content-Type", "application/zstd"}
	to.refused(http.StatusUnsupportedMediaType, "unsupported_media_type", http.MethodPost, "/v1/runs:import", file)
	to.refused(http.StatusBadRequest, "archive_invalid", http.MethodPost, "/v1/runs:import", file[:len(file)-9], zstd...)
	to.refused(http.StatusBadRequest, "archive_invalid", http.MethodPost, "/v1/runs:import", "x", zstd...)
	to.refused(http.StatusNotFound, "run_not_found", http.MethodGet, path, "")
	to.refused(http.StatusNotFound, "run_not_found", http.MethodGet, path+":export", "")
	if code, _, text := to.do(http.MethodPost, "/v1/runs:import", file, zstd...); code != http.StatusOK || object(t, text)["id"] != string(run.ID) {
		t.Fatalf("import: %d %s", code, text)
	}
	to.refused(http.StatusConflict, "run_exists", http.MethodPost, "/v1/runs:import", file, zstd...)
	for _, part := range []string{"", "/steps", "/events?page_size=500", "/logs"} {
		_, _, was := from.do(http.MethodGet, path+part, "")
		code, _, is := to.do(http.MethodGet, path+part, "")
		if code != http.StatusOK {
			t.Fatalf("%q: %d %s", part, code, is)
		}
		if d := cmp.Diff(unlabelled(t, was), unlabelled(t, is)); d != "" {
			t.Errorf("%q differs (-exported +imported):\n%s", part, d)
		}
	}
	active := from.create()
	from.refused(http.StatusConflict, "run_active", http.MethodGet, fmt.Sprintf("/v1/runs/%s:export", active), "")
}

// unlabelled are the documents of an answer without the labels of runs.
func unlabelled(t *testing.T, text string) (list []any) {
	t.Helper()
	var strip func(any)
	strip = func(v any) {
		switch v := v.(type) {
		case map[string]any:
			delete(v, "labels")
			for _, x := range v {
				strip(x)
			}
		case []any:
			for _, x := range v {
				strip(x)
			}
		}
	}
	d := json.NewDecoder(bytes.NewReader([]byte(text)))
	for {
		var v any
		if err := d.Decode(&v); err == io.EOF { //nolint:errorlint // as the decoder says it
			return list
		} else if err != nil {
			t.Fatalf("%q: %v", text, err)
		}
		strip(v)
		list = append(list, v)
	}
}

func TestDiffOfRuns(t *testing.T) {
	f := start(t)
	a, b := f.create(), f.create()
	f.engine.steps(a, 0, 300)
	f.engine.steps(b, 2, 300)
	f.engine.add(b, pipeline.Event{Type: pipeline.StepStarted, Path: "tail", Attempt: 2, Data: pipeline.Data{Kind: pipeline.KindAction}},
		pipeline.Event{Type: pipeline.StepFinished, Path: "tail", Attempt: 2, Data: pipeline.Data{Status: pipeline.StepFailed, Error: &pipeline.Failure{Kind: "failed", Message: "no"}}})
	f.engine.add(a, pipeline.Event{Type: pipeline.StepStarted, Path: "tail", Attempt: 1, Data: pipeline.Data{Kind: pipeline.KindAction}},
		pipeline.Event{Type: pipeline.StepFinished, Path: "tail", Attempt: 1, Data: pipeline.Data{Status: pipeline.StepCompleted, Output: "é"}})
	f.engine.finish(a)
	path := fmt.Sprintf("/v1/runs:diff?a=%s&b=%s", a, b)
	_, _, text := f.do(http.MethodGet, path+"&limit=4", "")
	d := object(t, text)
	for field, want := range map[string]int64{"steps_same": 298, "steps_changed": 1, "steps_only_a": 2, "steps_only_b": 2, "more": 1} {
		if d[field] != want {
			t.Errorf("%s is %v, want %d", field, d[field], want)
		}
	}
	first, _ := d["first"].(map[string]any)
	if d["same"] != false || first["path"] != "loop[0]/work" || first["change"] != "only_a" || first["b"] != nil {
		t.Errorf("the difference is %s", text)
	}
	if def, _ := d["definition"].(map[string]any); def["same"] != true {
		t.Errorf("the definition: %v", def)
	}
	if out, _ := d["outputs"].([]any); len(out) != 1 {
		t.Errorf("the outputs: %v", out)
	}
	_, _, text = f.do(http.MethodGet, path, "")
	steps, _ := object(t, text)["steps"].([]any)
	last, _ := steps[len(steps)-1].(map[string]any)
	if len(steps) != 5 || last["path"] != "tail" {
		t.Fatalf("the steps are %v", steps)
	}
	if d := cmp.Diff([]any{"status", "output", "error", "attempt"}, last["fields"]); d != "" {
		t.Errorf("fields (-want +got):\n%s", d)
	}
	if _, _, text = f.do(http.MethodGet, fmt.Sprintf("/v1/runs:diff?a=%s&b=%s", a, a), ""); object(t, text)["same"] != true {
		t.Errorf("a run differs from itself: %s", text)
	}
	f.refused(http.StatusBadRequest, "required", http.MethodGet, "/v1/runs:diff?a="+string(a), "")
	f.refused(http.StatusBadRequest, "invalid_limit", http.MethodGet, path+"&limit=9999", "")
	f.refused(http.StatusNotFound, "run_not_found", http.MethodGet, "/v1/runs:diff?a=x&b=y", "")
}
