package storetest

import (
	"testing"

	"github.com/orchestrator-project/orchestrator/pipeline"
	"github.com/orchestrator-project/orchestrator/store"
)

// checkpoints: the row of a run says how far its newest snapshot knows the log,
// from the commit on that holds its record, and a new owner gets that with the run.
func checkpoints(t *testing.T, h Harness) {
	s := h.Open(t)
	l := openLane(t, s, "a")
	run, other := submit(t, l, pipeline.RunRunning), submit(t, l, pipeline.RunRunning)
	if n := read(t, s, run.ID).Checkpoint; n != 0 {
		t.Errorf("a run without a checkpoint has a snapshot of %d", n)
	}
	part, err := s.PutBlob(t.Context(), run.ID, []byte("state"))
	if err != nil {
		t.Fatal(err)
	}
	mark := func(seq, covers int32) pipeline.Event {
		return pipeline.Event{Seq: seq, Type: pipeline.Checkpoint, At: instant(int(seq)), Data: pipeline.Data{
			Snapshot: &pipeline.SnapshotRef{Covers: covers, Size: 5, Parts: []pipeline.Digest{part}},
		}}
	}
	b := &store.Batch{Append: []store.Append{
		{Run: run.ID, Events: append(steps(2, 4), mark(5, 3), step(6), mark(7, 6))},
		{Run: other.ID, Events: steps(2, 3)},
	}}
	commit(t, l, b)
	commit(t, l, b) // in doubt
	commit(t, l, &store.Batch{Append: []store.Append{{Run: run.ID, Events: steps(8, 9)}}})
	if n := read(t, s, run.ID).Checkpoint; n != 6 {
		t.Errorf("the newest snapshot knows %d events, want 6", n)
	}
	if n := read(t, s, other.ID).Checkpoint; n != 0 {
		t.Errorf("a run without a checkpoint has a snapshot of %d", n)
	}
	page, err := s.Runs(t.Context(), store.Query{})
	if err != nil || len(page.Runs) != 2 || page.Runs[1].Checkpoint != 6 {
		t.Errorf("the list says %v, %v", page.Runs, err)
	}
	equal(t, "the record", events(t, s, run.ID, 6)[0], mark(7, 6))

	commit(t, l, &store.Batch{Yield: []pipeline.RunID{run.ID}})
	claimed, err := l.ClaimRun(t.Context(), run.ID)
	if err != nil || claimed.Checkpoint != 6 {
		t.Errorf("claimed %v, %v", claimed, err)
	}
	done := *run
	done.Status, done.FinishedAt = pipeline.RunCompleted, instant(99)
	commit(t, l, &store.Batch{Append: []store.Append{{Run: run.ID, Events: []pipeline.Event{mark(10, 9)}}}, Finish: []store.Finish{{Run: &done}}})
	if r := read(t, s, run.ID); r.Checkpoint != 9 || r.Status != pipeline.RunCompleted {
		t.Errorf("the finished run is %s with a snapshot of %d", r.Status, r.Checkpoint)
	}
}
