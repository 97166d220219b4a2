package storetest

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/orchestrator-project/orchestrator/pipeline"
	"github.com/orchestrator-project/orchestrator/store"
)

// daysAgo is a day in the past.
func daysAgo(n int) time.Time { return store.Today(time.Now()).AddDate(0, 0, -n) }

// runOf is a running run whose id is of a day.
func runOf(day time.Time) *pipeline.Run {
	key := store.FirstKey(day.Add(time.Hour))
	_, _ = rand.Read(key[6:]) // never fails
	key[6], key[8] = key[6]&0x0f|0x70, key[8]&0x3f|0x80
	r := newRun(pipeline.RunRunning)
	r.ID, r.CreatedAt = store.RunIDOf(key[:]), day.Add(time.Hour)
	return r
}

// past puts a run of a day into the store, with a record, a log, content and an
// approval; it has finished if it is to.
func past(t testing.TB, s store.Store, l store.Lane, r *pipeline.Run, over bool) *pipeline.Run {
	t.Helper()
	commit(t, l, &store.Batch{Create: []store.Create{created(r)}})
	big := step(3)
	big.Seq, big.Data.Output = 2, string(bytes.Repeat([]byte(r.ID), 200))
	commit(t, l, &store.Batch{
		Append: []store.Append{{Run: r.ID, Events: []pipeline.Event{big}}},
		Ask:    []*pipeline.Approval{{ID: pipeline.NewApprovalID(), Run: r.ID, Pipeline: r.Pipeline, Path: "q", Kind: pipeline.ApprovalAsk, Status: pipeline.ApprovalOpen, CreatedAt: instant(2)}},
	})
	if _, err := s.PutBlob(t.Context(), r.ID, []byte(r.ID)); err != nil {
		t.Fatalf("put blob: %v", err)
	}
	if err := s.AppendLogs(t.Context(), []store.LogChunk{{Run: r.ID, Path: "a", Attempt: 1, N: 1, At: instant(1), Stream: "stdout", Text: "line\n"}}); err != nil {
		t.Fatalf("append logs: %v", err)
	}
	if over {
		end := *r
		end.Status, end.FinishedAt = pipeline.RunCompleted, r.CreatedAt
		commit(t, l, &store.Batch{Finish: []store.Finish{{Run: &end}}})
	}
	return r
}

func sweep(t testing.TB, s store.Store, drop, thin int) store.SweepReport {
	t.Helper()
	report, err := s.Sweep(t.Context(), store.Cut{Drop: daysAgo(drop), Thin: daysAgo(thin)})
	if err != nil || report.Busy {
		t.Fatalf("sweep: %+v, %v", report, err)
	}
	return report
}

func gone(t testing.TB, s store.Store, id pipeline.RunID) bool {
	t.Helper()
	_, err := s.Run(t.Context(), id)
	if err == nil {
		if len(events(t, s, id, 0)) == 0 {
			t.Errorf("run %s is there without its log", id)
		}
		return false
	}
	wantKind(t, err, pipeline.NotFound)
	if n := len(events(t, s, id, 0)); n > 0 {
		t.Errorf("run %s has left %d records", id, n)
	}
	for range s.Logs(t.Context(), store.LogQuery{Run: id}) {
		t.Errorf("run %s has left logs", id)
	}
	list, err := s.Approvals(t.Context(), store.ApprovalQuery{Run: id})
	if err != nil || len(list.Approvals) > 0 {
		t.Errorf("run %s has left approvals: %d, %v", id, len(list.Approvals), err)
	}
	return true
}

func grown(t testing.TB, s store.Store, day, before time.Time) (*store.DayGrowth, store.Growth) {
	t.Helper()
	g, err := s.Growth(t.Context(), before)
	if err != nil {
		t.Fatalf("growth: %v", err)
	}
	if i := slices.IndexFunc(g.Days, func(d store.DayGrowth) bool { return d.Day.Equal(day) }); i >= 0 {
		return &g.Days[i], g
	}
	return nil, g
}

// sweeps holds what goes with a day, and what keeps one.
func sweeps(t *testing.T, h Harness) {
	s := h.Open(t)
	l := openLane(t, s, "a")
	old := past(t, s, l, runOf(daysAgo(40)), true)
	alive := past(t, s, l, runOf(daysAgo(35)), false)
	beside := past(t, s, l, runOf(daysAgo(35)), true)
	source := past(t, s, l, runOf(daysAgo(34)), true)
	fork := runOf(daysAgo(1))
	fork.ForkedFrom, fork.ForkSeq = source.ID, 2
	past(t, s, l, fork, false)
	young := past(t, s, l, runOf(daysAgo(3)), true)

	d, g := grown(t, s, daysAgo(40), daysAgo(30))
	if d == nil || len(d.Tables) != 4 || d.Bytes == 0 || d.Tables[0].Table != "run" || d.Tables[0].Rows != 1 || d.Tables[1].Rows != 2 || d.Tables[3].Rows != 1 {
		t.Errorf("the old day takes %+v", d)
	}
	if g.Bytes == 0 || g.PerDay == 0 || len(g.Shared) == 0 {
		t.Errorf("the store takes %d bytes, %d a day, and has %d more tables", g.Bytes, g.PerDay, len(g.Shared))
	}
	kept := []store.Straggler{{Day: daysAgo(35), Count: 1, Runs: []pipeline.RunID{alive.ID}}, {Day: daysAgo(34), Count: 1, Runs: []pipeline.RunID{fork.ID}}}
	equal(t, "stragglers", g.Stragglers, kept)

	if report, err := s.Sweep(t.Context(), store.Cut{}); err != nil || !report.Empty() {
		t.Errorf("a sweep that may remove nothing removed %+v, %v", report, err)
	}
	report := sweep(t, s, 30, 60)
	equal(t, "days", report.Days, []time.Time{daysAgo(40)})
	equal(t, "stragglers", report.Stragglers, kept)
	if report.Runs != 1 || report.Thinned != 0 || report.Approvals != 1 {
		t.Errorf("the sweep removed %+v", report)
	}
	if !gone(t, s, old.ID) {
		t.Error("the old run is there")
	}
	if d, _ := grown(t, s, daysAgo(40), time.Time{}); d != nil {
		t.Errorf("the old day takes %+v after the sweep", d)
	}
	for _, r := range []*pipeline.Run{alive, beside, source, fork, young} {
		if gone(t, s, r.ID) {
			t.Errorf("run %s is gone", r.ID)
		}
	}
	if again := sweep(t, s, 30, 60); !again.Empty() {
		t.Errorf("a second sweep removed %+v", again)
	}

	// Past twice the retention the finished runs of a kept day go, but not the one
	// that a fork needs.
	if report := sweep(t, s, 17, 34-1); report.Thinned != 1 || len(report.Days) != 0 {
		t.Errorf("the sweep removed %+v", report)
	}
	if !gone(t, s, beside.ID) || gone(t, s, alive.ID) || gone(t, s, source.ID) {
		t.Error("the wrong runs of the kept days are gone")
	}

	// Writers of a dropped day find it again.
	late := past(t, s, l, runOf(daysAgo(40)), true)
	if gone(t, s, late.ID) {
		t.Error("a run of a day that had gone is not there")
	}
	for _, r := range []*pipeline.Run{alive, fork} {
		end := *r
		end.Status = pipeline.RunCancelled
		commit(t, l, &store.Batch{Finish: []store.Finish{{Run: &end}}})
	}
	if report := sweep(t, s, 2, 4); len(report.Days) != 4 || len(report.Stragglers) != 0 || gone(t, s, fork.ID) || !gone(t, s, young.ID) {
		t.Errorf("the last sweep removed %+v", report)
	}
	if report := sweep(t, s, -5, -9); gone(t, s, fork.ID) || len(report.Days) != 0 {
		t.Errorf("a sweep took the runs of yesterday: %+v", report)
	}
}

// sweepsWithWriters holds that a sweep takes nothing from those who write meanwhile.
func sweepsWithWriters(t *testing.T, h Harness) {
	s := h.Open(t)
	other := h.Again(t, s)
	l := openLane(t, s, "a")
	for n := range 6 {
		past(t, s, l, runOf(daysAgo(20+n)), true)
	}
	writing, stop := context.WithCancel(t.Context())
	var all sync.WaitGroup
	var written []pipeline.RunID
	all.Go(func() {
		for writing.Err() == nil {
			r := newRun(pipeline.RunRunning)
			if _, err := l.Commit(context.WithoutCancel(writing), &store.Batch{Create: []store.Create{created(r)}}); err != nil {
				t.Errorf("commit: %v", err)
				return
			}
			written = append(written, r.ID)
		}
	})
	dropped := map[time.Time]bool{}
	eventually(t, "all days are dropped", func() bool {
		for _, from := range []store.Store{s, other} {
			report, err := from.Sweep(t.Context(), store.Cut{Drop: daysAgo(10)})
			if err != nil {
				t.Fatalf("sweep: %v", err)
			}
			for _, d := range report.Days {
				dropped[d] = true
			}
		}
		return len(dropped) == 6
	})
	stop()
	all.Wait()
	for _, id := range written {
		if gone(t, s, id) {
			t.Errorf("run %s is gone", id)
		}
	}
}

// keepsContent holds that nothing goes that somebody may be about to name.
func keepsContent(t *testing.T, h Harness) {
	s := h.Open(t)
	files := pipeline.Bundle{"a": []byte("1")}
	if err := errors.Join(s.PutBundle(t.Context(), files.Digest(), files), s.PutPlan(t.Context(), store.Plan{Digest: "sha256:1", Compiled: []byte("{}")})); err != nil {
		t.Fatal(err)
	}
	if report := sweep(t, s, 2, 4); report.Plans+report.Bundles > 0 {
		t.Errorf("fresh content is gone: %+v", report)
	}
	if _, err := s.Plan(t.Context(), "sha256:1"); err != nil {
		t.Error(err)
	}
}
