package storetest

import (
	"testing"
	"time"

	"github.com/orchestrator-project/orchestrator/pipeline"
	"github.com/orchestrator-project/orchestrator/store"
)

// paused is the row of a run that is paused.
func paused(r *pipeline.Run) *pipeline.Run {
	p := *r
	p.Status, p.Reason = pipeline.RunPaused, ""
	return &p
}

func pausedRuns(t *testing.T, h Harness) {
	s := h.Open(t)
	l, next := openLane(t, s, "a"), openLane(t, s, "b")
	say := func(id pipeline.RunID, kind string) {
		t.Helper()
		if err := s.Send(t.Context(), id, store.Message{Kind: kind, At: instant(0)}); err != nil {
			t.Fatalf("send: %v", err)
		}
	}
	none := func(why string) {
		t.Helper()
		if got := claim(t, next, 9); len(got) > 0 {
			t.Fatalf("%s: %d runs were claimed", why, len(got))
		}
	}
	one := func(id pipeline.RunID, why string) {
		t.Helper()
		got := claim(t, next, 9)
		if len(got) != 1 || got[0].ID != id || got[0].Status != pipeline.RunPaused {
			t.Fatalf("%s: the claim gave %v", why, got)
		}
	}

	r := submit(t, l, pipeline.RunRunning)
	commit(t, l, &store.Batch{Park: []store.Park{{Run: paused(r)}}})
	if got := read(t, s, r.ID); got.Status != pipeline.RunPaused {
		t.Fatalf("the run is %s", got.Status)
	}
	say(r.ID, store.MessageSignal)
	say(r.ID, store.MessageDecision)
	none("what waits with a paused run does not queue it")
	say(r.ID, store.MessageResume)
	one(r.ID, "a resume queues it")
	if got, err := s.Inbox(t.Context(), []pipeline.RunID{r.ID}); err != nil || len(got) != 3 {
		t.Fatalf("its inbox holds %v, %v", got, err)
	}

	c := submit(t, l, pipeline.RunRunning)
	commit(t, l, &store.Batch{Park: []store.Park{{Run: paused(c)}}})
	say(c.ID, store.MessageCancel)
	one(c.ID, "a cancel queues it")

	early := submit(t, l, pipeline.RunRunning)
	say(early.ID, store.MessageSignal)
	commit(t, l, &store.Batch{Park: []store.Park{{Run: paused(early)}}})
	none("a signal that came before its parking waits too")
	late := submit(t, l, pipeline.RunRunning)
	say(late.ID, store.MessageResume)
	commit(t, l, &store.Batch{Park: []store.Park{{Run: paused(late)}}})
	one(late.ID, "a resume that came before its parking queues it")

	byName := submit(t, l, pipeline.RunRunning)
	commit(t, l, &store.Batch{Park: []store.Park{{Run: paused(byName)}}})
	got, err := next.ClaimRun(t.Context(), byName.ID)
	if err != nil || got.Status != pipeline.RunPaused {
		t.Fatalf("claim by name: %v, %v", got, err)
	}
}

func relatives(t *testing.T, h Harness) {
	s := h.Open(t)
	l := openLane(t, s, "a")
	add := func(change func(r *pipeline.Run)) *pipeline.Run {
		r := newRun(pipeline.RunRunning)
		r.StartedAt = instant(1).Truncate(time.Microsecond)
		change(r)
		commit(t, l, &store.Batch{Create: []store.Create{created(r)}})
		return r
	}
	root := add(func(*pipeline.Run) {})
	child := add(func(r *pipeline.Run) { r.ParentRun = root.ID })
	fork := add(func(r *pipeline.Run) { r.ForkedFrom, r.ForkSeq = root.ID, 17 })
	if got := read(t, s, fork.ID); got.ForkedFrom != root.ID || got.ForkSeq != 17 {
		t.Errorf("the fork reads back as of %s, %d", got.ForkedFrom, got.ForkSeq)
	}
	for _, c := range []struct {
		q    store.Query
		want *pipeline.Run
	}{{store.Query{Parent: root.ID}, child}, {store.Query{Forked: root.ID, Status: []pipeline.RunStatus{pipeline.RunRunning}}, fork}} {
		page, err := s.Runs(t.Context(), c.q)
		if err != nil || len(page.Runs) != 1 || page.Runs[0].ID != c.want.ID {
			t.Errorf("%+v gave %v, %v", c.q, page.Runs, err)
		}
	}
	if page, err := s.Runs(t.Context(), store.Query{Parent: child.ID}); err != nil || len(page.Runs) != 0 {
		t.Errorf("a run without children has %v, %v", page.Runs, err)
	}
}
