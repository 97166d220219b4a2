package storetest

import (
	"bytes"
	"testing"
	"time"

	"github.com/orchestrator-project/orchestrator/pipeline"
	"github.com/orchestrator-project/orchestrator/store"
)

// Finished puts a run into the store that has everything which an archive holds:
// n steps, a blob, logs, files, an approval. It returns the run as stored.
func Finished(t testing.TB, s store.Store, n int32) *pipeline.Run {
	t.Helper()
	files, uploads := pipeline.Bundle{"lib/a.yaml": []byte("x"), "empty": {}}, pipeline.Bundle{"in.txt": []byte("given")}
	for _, b := range []pipeline.Bundle{files, uploads} {
		if err := s.PutBundle(t.Context(), b.Digest(), b); err != nil {
			t.Fatalf("put bundle: %v", err)
		}
	}
	compiled := []byte(`{"format":1,"id":"demo","bundle":"` + string(files.Digest()) + `"}`)
	plan := store.Plan{Digest: store.BlobDigest(store.NewBlob(0, compiled).SHA), Source: []byte("id: demo\n"), Compiled: compiled, Format: 1}
	if err := s.PutPlan(t.Context(), plan); err != nil {
		t.Fatalf("put plan: %v", err)
	}
	l := openLane(t, s, "maker")
	r := newRun(pipeline.RunRunning)
	r.PlanDigest, r.StartedAt, r.Labels = plan.Digest, instant(1).Truncate(time.Microsecond), map[string]string{"team": "a<b"}
	r.Queue, r.FairKey, r.Concurrency = "night", "k", pipeline.Concurrency{Key: "c", Max: 2}
	first := created(r)
	first.Events[0].Data.Uploads = uploads.Digest()
	commit(t, l, &store.Batch{Create: []store.Create{first}})
	blob, err := s.PutBlob(t.Context(), r.ID, []byte("content"))
	if err != nil {
		t.Fatalf("put blob: %v", err)
	}
	list := steps(2, n)
	last := int32(len(list) + 1)
	end := step(3)
	end.Seq, end.Data.Output = last+1, map[string]any{"big": string(bytes.Repeat([]byte("é<"), 4000)), "n": int64(1) << 62, "f": 1.0}
	end.Data.Published = []pipeline.Version{{Artifact: "report", Version: 1, Producer: end.Path, Value: "report.md", Blob: blob, Size: 7}}
	r.Status, r.Outputs, r.FinishedAt = pipeline.RunFailed, map[string]any{"n": int64(3)}, instant(9).Truncate(time.Microsecond)
	r.Error = &pipeline.Failure{Kind: "failed", Step: "a", Message: "it broke"}
	r.Usage = pipeline.Usage{InputTokens: 3, CostUSD: 0.25, Steps: n / 2, Unpriced: n % 3}
	over := pipeline.Event{Seq: last + 2, Type: pipeline.RunFinished, At: r.FinishedAt, Data: pipeline.Data{RunStatus: r.Status, Outputs: r.Outputs, Error: r.Error}}
	list = append(list, end, over)
	asked := &pipeline.Approval{
		ID: pipeline.NewApprovalID(), Run: r.ID, Pipeline: r.Pipeline, Path: "q", Kind: pipeline.ApprovalAsk, Question: "Go on?",
		Choices: []any{"yes", int64(2)}, Status: pipeline.ApprovalDecided, CreatedAt: instant(2).Truncate(time.Microsecond), DecidedAt: instant(3).Truncate(time.Microsecond),
		Decisions: []pipeline.Decision{{Decision: "answer", Value: "yes", Actor: "ada", At: instant(3).Truncate(time.Microsecond)}},
	}
	commit(t, l, &store.Batch{
		Append: []store.Append{{Run: r.ID, Events: list}}, Ask: []*pipeline.Approval{asked}, Finish: []store.Finish{{Run: r}},
	})
	var chunks []store.LogChunk
	for i := range int32(5) {
		chunks = append(chunks, store.LogChunk{Run: r.ID, Path: "loop[1]/work", Attempt: 1, N: i + 1, At: instant(int(i)), Stream: "stdout", Text: "line\n"})
	}
	if err := s.AppendLogs(t.Context(), chunks); err != nil {
		t.Fatalf("append logs: %v", err)
	}
	return read(t, s, r.ID)
}

// printed are the log chunks of a run, without the store's cursors.
func printed(t testing.TB, s store.Store, id pipeline.RunID) []store.LogChunk {
	t.Helper()
	var list []store.LogChunk
	for c, err := range s.Logs(t.Context(), store.LogQuery{Run: id}) {
		if err != nil {
			t.Fatalf("read logs: %v", err)
		}
		c.Cursor = 0
		list = append(list, c)
	}
	return list
}

func runArchives(t *testing.T, h Harness) {
	from, to := h.Open(t), h.Open(t)
	run := Finished(t, from, 6001)
	var file bytes.Buffer
	if err := store.ExportRun(t.Context(), from, run.ID, &file); err != nil {
		t.Fatalf("export: %v", err)
	}
	a, err := store.OpenRunArchive(bytes.NewReader(file.Bytes()), time.Now())
	if err != nil {
		t.Fatalf("open the archive: %v", err)
	}
	if a.Plan.Format != 1 || int(a.Events) != len(events(t, from, run.ID, 0)) {
		t.Errorf("the archive has %d events and a plan of format %d", a.Events, a.Plan.Format)
	}

	// An import that has broken off leaves no run, and is no hindrance.
	broken := openLane(t, to, "broken")
	commit(t, broken, &store.Batch{Append: []store.Append{{Run: run.ID, Events: events(t, from, run.ID, 0)[:4096]}}})
	if err := to.AppendLogs(t.Context(), printed(t, from, run.ID)[:2]); err != nil {
		t.Fatalf("append logs: %v", err)
	}
	if _, err := to.Run(t.Context(), run.ID); pipeline.KindOf(err) != pipeline.NotFound {
		t.Fatalf("half an import shows: %v", err)
	}
	if err := store.ImportRun(t.Context(), to, "importer", a); err != nil {
		t.Fatalf("import: %v", err)
	}
	want := *run
	want.Labels = map[string]string{"team": "a<b", store.LabelImported: "true"}
	equal(t, "the run", read(t, to, run.ID), &want)
	equal(t, "its log", events(t, to, run.ID, 0), events(t, from, run.ID, 0))
	equal(t, "what it printed", printed(t, to, run.ID), printed(t, from, run.ID))
	for _, d := range []pipeline.Digest{a.Bundle, a.Uploads} {
		if b, err := to.Bundle(t.Context(), d); err != nil || b.Digest() != d {
			t.Errorf("the files %s are %v, %v", d, b, err)
		}
	}
	was, err1 := from.Approvals(t.Context(), store.ApprovalQuery{Run: run.ID})
	is, err2 := to.Approvals(t.Context(), store.ApprovalQuery{Run: run.ID})
	if err1 != nil || err2 != nil || len(is.Approvals) != 1 {
		t.Fatalf("approvals: %v, %v", err1, err2)
	}
	equal(t, "its approvals", is.Approvals, was.Approvals)
	published := events(t, to, run.ID, 6001)[0].Data.Published
	if b, err := to.Blob(t.Context(), run.ID, published[0].Blob); err != nil || string(b) != "content" {
		t.Errorf("the content is %q, %v", b, err)
	}
	l := openLane(t, to, "worker")
	if got := claim(t, l, 9); len(got) > 0 {
		t.Errorf("an imported run was claimed: %v", got)
	}
	wantKind(t, store.ImportRun(t.Context(), to, "importer", a), pipeline.Conflict)
	active := submit(t, openLane(t, from, "b"), pipeline.RunRunning)
	wantKind(t, store.ExportRun(t.Context(), from, active.ID, &file), pipeline.Conflict)
}
