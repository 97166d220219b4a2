package storetest

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/orchestrator-project/orchestrator/pipeline"
	"github.com/orchestrator-project/orchestrator/store"
)

func plans(t *testing.T, h Harness) {
	s := h.Open(t)
	p := store.Plan{Digest: "sha256:aa", Source: []byte("name: x\x00\xff"), Compiled: bytes.Repeat([]byte(`{"a":1}`), 10_000), Format: 3}
	for range 2 {
		if err := s.PutPlan(t.Context(), p); err != nil {
			t.Fatal(err)
		}
	}
	got, err := h.Again(t, s).Plan(t.Context(), p.Digest)
	if err != nil {
		t.Fatal(err)
	}
	equal(t, "plan", *got, p)
	_, err = s.Plan(t.Context(), "sha256:bb")
	wantKind(t, err, pipeline.NotFound)
	var wg sync.WaitGroup
	for range 8 { // the same new plan from everywhere
		wg.Go(func() {
			if err := s.PutPlan(t.Context(), store.Plan{Digest: "sha256:cc"}); err != nil {
				t.Errorf("put a plan: %v", err)
			}
		})
	}
	wg.Wait()
}

func pipelines(t *testing.T, h Harness) {
	s := h.Open(t)
	put := func(id, version, digest string) error {
		return s.PutPipeline(t.Context(), store.Pipeline{
			ID: id, Version: version, Name: "Name of " + id, Description: "größe", PlanDigest: pipeline.Digest(digest), CreatedAt: instant(0),
		})
	}
	for _, p := range [][3]string{{"b", "2", "sha256:1"}, {"b", "10", "sha256:2"}, {"a", "1", "sha256:3"}, {"B", "1", "sha256:3"}, {"b", "1", "sha256:4"}, {"c", "1", "sha256:5"}} {
		if err := put(p[0], p[1], p[2]); err != nil {
			t.Fatal(err)
		}
	}
	if err := put("b", "2", "sha256:1"); err != nil {
		t.Errorf("registering the same version again: %v", err)
	}
	wantKind(t, put("b", "2", "sha256:9"), pipeline.Conflict)
	one := func(version string) store.Pipeline {
		t.Helper()
		p, err := s.Pipeline(t.Context(), "b", version)
		if err != nil {
			t.Fatal(err)
		}
		return *p
	}
	want := store.Pipeline{ID: "b", Version: "1", Name: "Name of b", Description: "größe", PlanDigest: "sha256:4", CreatedAt: instant(0)}
	equal(t, "newest", one(""), want)
	want.Version, want.PlanDigest = "10", "sha256:2"
	equal(t, "by version", one("10"), want)
	_, err := s.Pipeline(t.Context(), "b", "3")
	wantKind(t, err, pipeline.NotFound)
	_, err = s.Pipeline(t.Context(), "nobody", "")
	wantKind(t, err, pipeline.NotFound)
	names := func(list []store.Pipeline, err error) (out []string) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range list {
			out = append(out, p.ID+"@"+p.Version)
		}
		return out
	}
	equal(t, "versions", names(s.Versions(t.Context(), "b")), []string{"b@1", "b@10", "b@2"})
	equal(t, "list", names(s.Pipelines(t.Context(), "", 0)), []string{"B@1", "a@1", "b@1", "c@1"})
	equal(t, "page", names(s.Pipelines(t.Context(), "B", 2)), []string{"a@1", "b@1"})
}

func messages(t *testing.T, h Harness) {
	s := h.Open(t)
	other := h.Again(t, s)
	l := openLane(t, s, "a")
	r, queued := submit(t, l, pipeline.RunRunning), submit(t, l, pipeline.RunQueued)
	first := store.Message{ID: "m1", Run: r.ID, Kind: "signal", Actor: "me", Body: []byte(`{"a":1}`), At: instant(1)}
	second := store.Message{ID: "m0", Run: r.ID, Kind: "cancel", Actor: "you", At: instant(2)}
	for _, m := range []store.Message{second, first, first} {
		if err := other.Send(t.Context(), r.ID, m); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Send(t.Context(), queued.ID, store.Message{Kind: "cancel"}); err != nil {
		t.Fatal(err)
	}
	inbox := func(runs ...pipeline.RunID) []store.Message {
		t.Helper()
		list, err := s.Inbox(t.Context(), runs)
		if err != nil {
			t.Fatal(err)
		}
		return list
	}
	equal(t, "inbox", inbox(r.ID), []store.Message{first, second})
	if got := inbox(queued.ID); len(got) != 1 || got[0].ID == "" || got[0].At.IsZero() {
		t.Errorf("inbox of the queued run: %+v", got)
	}
	many := make([]pipeline.RunID, 1200)
	for i := range many {
		many[i] = pipeline.NewRunID()
	}
	if n := len(inbox(append(many, r.ID, queued.ID)...)); n != 3 {
		t.Errorf("%d messages for all, want 3", n)
	}
	if n := len(inbox()); n != 0 {
		t.Errorf("%d messages for nobody", n)
	}
	commit(t, l, &store.Batch{Append: []store.Append{{Run: r.ID, Events: steps(2, 2)}}, Consume: []store.MessageID{"m1"}})
	equal(t, "after consuming", inbox(r.ID), []store.Message{second})

	r.Status, r.FinishedAt = pipeline.RunCancelled, instant(5)
	commit(t, l, &store.Batch{Finish: []store.Finish{{Run: r}}})
	wantKind(t, s.Send(t.Context(), r.ID, store.Message{Kind: "cancel"}), pipeline.Conflict)
	wantKind(t, s.Send(t.Context(), pipeline.NewRunID(), store.Message{Kind: "cancel"}), pipeline.NotFound)
	wantKind(t, s.Send(t.Context(), "x", store.Message{Kind: "cancel"}), pipeline.NotFound)
	if n := len(inbox(r.ID)); n != 0 {
		t.Errorf("a finished run keeps %d messages", n)
	}
}

func logs(t *testing.T, h Harness) {
	s := h.Open(t)
	l := openLane(t, s, "a")
	one, two := submit(t, l, pipeline.RunRunning), submit(t, l, pipeline.RunRunning)
	var want []store.LogChunk
	n := int32(0)
	write := func(count int) {
		t.Helper()
		var list []store.LogChunk
		for range count {
			n++
			c := store.LogChunk{
				Run: one.ID, Path: pipeline.Path([]string{"a", "b"}[n%2]), Attempt: 1, N: n, At: instant(int(n)),
				Stream: []string{"stdout", "stderr", "system"}[n%3], Text: fmt.Sprintf("line %d \x00 \xff größe\n", n),
			}
			list = append(list, c, store.LogChunk{Run: two.ID, Path: "x", Attempt: 1, N: n, At: instant(0), Stream: "stdout", Text: "other"})
			want = append(want, c)
		}
		if err := s.AppendLogs(t.Context(), list); err != nil {
			t.Fatal(err)
		}
	}
	collect := func(q store.LogQuery) []store.LogChunk {
		t.Helper()
		var list []store.LogChunk
		for c, err := range s.Logs(t.Context(), q) {
			if err != nil {
				t.Fatal(err)
			}
			if len(list) > 0 && c.Cursor <= list[len(list)-1].Cursor {
				t.Fatalf("cursor %d follows %d", c.Cursor, list[len(list)-1].Cursor)
			}
			list = append(list, c)
		}
		return list
	}
	bare := func(list []store.LogChunk) []store.LogChunk {
		list = slices.Clone(list)
		for i := range list {
			list[i].Cursor = 0
		}
		return list
	}
	write(450)
	all := collect(store.LogQuery{Run: one.ID})
	equal(t, "all", bare(all), want)
	equal(t, "limit", collect(store.LogQuery{Run: one.ID, Limit: 7}), all[:7])
	equal(t, "resume", collect(store.LogQuery{Run: one.ID, After: all[6].Cursor, Limit: 300}), all[7:307])
	for _, c := range collect(store.LogQuery{Run: one.ID, Path: "a"}) {
		if c.Path != "a" {
			t.Fatalf("a chunk of %s", c.Path)
		}
	}
	if got := collect(store.LogQuery{Run: one.ID, Path: "a"}); len(got) != 225 {
		t.Errorf("%d chunks of one step", len(got))
	}
	write(3) // what a follower sees next
	equal(t, "follow", bare(collect(store.LogQuery{Run: one.ID, After: all[len(all)-1].Cursor})), want[450:])
	if err := s.AppendLogs(t.Context(), nil); err != nil {
		t.Error(err)
	}
	// Writers at once keep each run's cursors growing.
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for i := range 20 {
				c := store.LogChunk{Run: two.ID, Path: "y", Attempt: 1, N: int32(i), At: instant(0), Stream: "stdout", Text: strings.Repeat("x", 100)}
				if err := s.AppendLogs(t.Context(), []store.LogChunk{c, c}); err != nil {
					t.Errorf("append logs: %v", err)
				}
			}
		})
	}
	wg.Wait()
	if n := len(collect(store.LogQuery{Run: two.ID, Path: "y"})); n != 160 {
		t.Errorf("%d chunks of four writers", n)
	}
}

// ear collects bells.
type ear struct {
	mu    sync.Mutex
	heard []store.Bell
}

func (e *ear) hear(b store.Bell) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.heard = append(e.heard, b)
}

func (e *ear) any(f func(store.Bell) bool) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.ContainsFunc(e.heard, f)
}

func (e *ear) clear() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.heard = nil
}

// listen listens until the end of the test and returns once bells can be heard.
func listen(t testing.TB, s store.Store) *ear {
	t.Helper()
	e := new(ear)
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := s.Listen(ctx, e.hear); err != nil {
			t.Errorf("listen: %v", err)
		}
	})
	t.Cleanup(func() { cancel(); wg.Wait() })
	eventually(t, "the listener is there", func() bool { return e.any(func(b store.Bell) bool { return b.All }) })
	return e
}

func bells(t *testing.T, h Harness) {
	s := h.Open(t)
	other := h.Again(t, s)
	here, second, there := listen(t, s), listen(t, s), listen(t, other)
	ring := func(what string, b store.Bell, want func(store.Bell) bool) {
		t.Helper()
		for _, e := range []*ear{here, second, there} {
			e.clear()
		}
		s.Ring(b)
		if !here.any(want) || !second.any(want) {
			t.Errorf("%s: not heard here at once", what)
		}
		eventually(t, what+": heard elsewhere", func() bool { return there.any(want) })
	}
	a, b, c := pipeline.NewRunID(), pipeline.NewRunID(), pipeline.NewRunID()
	has := func(list []pipeline.RunID, id pipeline.RunID) bool { return slices.Contains(list, id) }
	ring("runs", store.Bell{Runs: []pipeline.RunID{a, b}}, func(x store.Bell) bool { return x.All || has(x.Runs, a) && has(x.Runs, b) })
	ring("logs", store.Bell{Logs: []pipeline.RunID{b}}, func(x store.Bell) bool { return x.All || has(x.Logs, b) })
	ring("inbox", store.Bell{Inbox: []pipeline.RunID{c}}, func(x store.Bell) bool { return x.All || has(x.Inbox, c) })
	ring("queue", store.Bell{Queued: true}, func(x store.Bell) bool { return x.Queued })
	many := make([]pipeline.RunID, 2000)
	for i := range many {
		many[i] = pipeline.NewRunID()
	}
	ring("many", store.Bell{Runs: many}, func(x store.Bell) bool { return x.All || len(x.Runs) == len(many) })

	l := openLane(t, s, "a")
	r := submit(t, l, pipeline.RunRunning)
	here.clear()
	if err := other.Send(t.Context(), r.ID, store.Message{Kind: "cancel"}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "a message rings", func() bool { return here.any(func(x store.Bell) bool { return x.All || has(x.Inbox, r.ID) }) })
	there.clear()
	if err := l.Release(t.Context()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "a released lane rings", func() bool { return there.any(func(x store.Bell) bool { return x.Queued }) })

	// A bell that is rung just before the end still gets out.
	there.clear()
	last := h.Again(t, s)
	last.Ring(store.Bell{Inbox: []pipeline.RunID{a}})
	if err := last.Close(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the last bell", func() bool { return there.any(func(x store.Bell) bool { return x.All || has(x.Inbox, a) }) })

	// Listening ends with its context, and can begin again.
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := s.Listen(ctx, func(store.Bell) {}); err != nil {
		t.Errorf("listen until the end of the context: %v", err)
	}
	ring("after one left", store.Bell{Runs: []pipeline.RunID{a}}, func(x store.Bell) bool { return x.All || has(x.Runs, a) })
}
