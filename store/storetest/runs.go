package storetest

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/orchestrator-project/orchestrator/pipeline"
	"github.com/orchestrator-project/orchestrator/store"
)

func createAndRead(t *testing.T, h Harness) {
	s := h.Open(t)
	l := openLane(t, s, "a")
	full := &pipeline.Run{
		ID: pipeline.NewRunID(), Pipeline: "größe/測試", Version: "1.2.3", PlanDigest: "sha256:ab", Status: pipeline.RunRunning, Reason: "because",
		Inputs: map[string]any{
			"list": []any{int64(1), 2.5, "x", nil, true}, "big": int64(1) << 62, "nested": map[string]any{"a": map[string]any{}}, "float": 3.0,
		},
		Labels: map[string]string{"team": "core", "a'b\"c": "{}"}, Priority: -7, CreatedAt: instant(0), StartedAt: instant(5),
		ParentRun: pipeline.NewRunID(), ForkedFrom: pipeline.NewRunID(), Workspace: "/srv/work",
		Usage: pipeline.Usage{InputTokens: 1, OutputTokens: 2, CostUSD: 0.25, Steps: 3, Unpriced: 1},
	}
	bare := &pipeline.Run{ID: pipeline.NewRunID(), Status: pipeline.RunQueued, CreatedAt: instant(0)}
	failed := newRun(pipeline.RunFailed)
	code := 3
	failed.Error = &pipeline.Failure{Kind: pipeline.CategoryFailed, Step: "a/b", Message: "no", ExitCode: &code}
	failed.FinishedAt = instant(9)
	failed.Outputs = map[string]any{"x": "y"}
	commit(t, l, &store.Batch{Create: []store.Create{created(full), created(bare), created(failed)}})
	for _, want := range []*pipeline.Run{full, bare, failed} {
		equal(t, "run", read(t, s, want.ID), want)
	}
	again := h.Again(t, s)
	equal(t, "run in another process", read(t, again, full.ID), full)

	_, err := s.Run(t.Context(), pipeline.NewRunID())
	wantKind(t, err, pipeline.NotFound)
	_, err = s.Run(t.Context(), "no-id")
	wantKind(t, err, pipeline.NotFound)
	if n := len(events(t, s, pipeline.NewRunID(), 0)); n != 0 {
		t.Errorf("an unknown run has %d events", n)
	}
}

func listRuns(t *testing.T, h Harness) {
	s := h.Open(t)
	l := openLane(t, s, "a")
	all := make([]*pipeline.Run, 0, 25)
	b := new(store.Batch)
	for i := range 25 {
		r := newRun([]pipeline.RunStatus{pipeline.RunRunning, pipeline.RunQueued, pipeline.RunFailed, pipeline.RunCompleted, pipeline.RunWaiting}[i%5])
		r.Labels = map[string]string{"team": []string{"core", "web"}[i%2], "n": string(rune('a' + i))}
		if i%3 == 0 {
			r.Pipeline = "third"
		}
		b.Create = append(b.Create, created(r))
		r.Inputs = nil // lists do not read them
		all = append([]*pipeline.Run{r}, all...)
	}
	commit(t, l, b)
	page := func(q store.Query) store.Page {
		t.Helper()
		p, err := s.Runs(t.Context(), q)
		if err != nil {
			t.Fatalf("list runs: %v", err)
		}
		return p
	}
	keep := func(f func(*pipeline.Run) bool) []*pipeline.Run {
		var list []*pipeline.Run
		for _, r := range all {
			if f(r) {
				list = append(list, r)
			}
		}
		return list
	}
	equal(t, "all", page(store.Query{}).Runs, all)
	var walked []pipeline.RunID
	q := store.Query{Limit: 10}
	for {
		p := page(q)
		walked = append(walked, ids(p.Runs)...)
		if !p.More {
			break
		}
		if len(p.Runs) != 10 {
			t.Fatalf("a page of %d runs says that more follow", len(p.Runs))
		}
		q.Before = p.Runs[9].ID
	}
	equal(t, "walk by pages", walked, ids(all))
	if p := page(store.Query{Limit: 25}); p.More || len(p.Runs) != 25 {
		t.Errorf("the last page has %d runs, more %v", len(p.Runs), p.More)
	}
	for name, c := range map[string]struct {
		q    store.Query
		want func(*pipeline.Run) bool
	}{
		"active": {store.Query{Status: []pipeline.RunStatus{pipeline.RunRunning, pipeline.RunQueued}}, func(r *pipeline.Run) bool {
			return r.Status == pipeline.RunRunning || r.Status == pipeline.RunQueued
		}},
		"failed": {store.Query{Status: []pipeline.RunStatus{pipeline.RunFailed}}, func(r *pipeline.Run) bool { return r.Status == pipeline.RunFailed }},
		"mixed": {store.Query{Status: []pipeline.RunStatus{pipeline.RunFailed, pipeline.RunWaiting}}, func(r *pipeline.Run) bool {
			return r.Status == pipeline.RunFailed || r.Status == pipeline.RunWaiting
		}},
		"pipeline": {store.Query{Pipeline: "third"}, func(r *pipeline.Run) bool { return r.Pipeline == "third" }},
		"label":    {store.Query{Labels: map[string]string{"team": "web"}}, func(r *pipeline.Run) bool { return r.Labels["team"] == "web" }},
		"labels":   {store.Query{Labels: map[string]string{"team": "web", "n": "b"}}, func(r *pipeline.Run) bool { return r.Labels["n"] == "b" }},
		"no label": {store.Query{Labels: map[string]string{"team": "we"}}, func(*pipeline.Run) bool { return false }},
		"all of it": {
			store.Query{Pipeline: "third", Status: []pipeline.RunStatus{pipeline.RunCompleted}, Labels: map[string]string{"team": "web"}, Before: all[5].ID},
			func(r *pipeline.Run) bool {
				return r.Pipeline == "third" && r.Status == pipeline.RunCompleted && r.Labels["team"] == "web" && r.ID < all[5].ID
			},
		},
	} {
		equal(t, name, ids(page(c.q).Runs), ids(keep(c.want)))
	}
	_, err := s.Runs(t.Context(), store.Query{Before: "x"})
	wantKind(t, err, pipeline.Invalid)
}

func eventsInOrder(t *testing.T, h Harness) {
	s := h.Open(t)
	l := openLane(t, s, "a")
	one, two := submit(t, l, pipeline.RunRunning), submit(t, l, pipeline.RunRunning)
	const last = 2300 // over two reads of a store
	for seq := int32(2); seq <= last; seq += 100 {
		commit(t, l, &store.Batch{Append: []store.Append{
			{Run: one.ID, Events: steps(seq, min(last, seq+99))}, {Run: two.ID, Events: steps(seq, seq)},
		}})
	}
	got := events(t, s, one.ID, 0)
	if len(got) != last {
		t.Fatalf("%d events, want %d", len(got), last)
	}
	for i, e := range got[1:] {
		want := step(int32(i) + 2)
		if e.Seq != want.Seq || e.Type != want.Type || e.Path != want.Path || !e.At.Equal(want.At) {
			t.Fatalf("event %d is %+v", i+2, e)
		}
	}
	equal(t, "tail", events(t, s, one.ID, last-2), steps(last-1, last))
	if n := len(events(t, s, one.ID, last)); n != 0 {
		t.Errorf("%d events after the last", n)
	}
	n := 0
	for _, err := range s.Events(t.Context(), one.ID, 0) {
		if n++; err != nil || n == 3 {
			break
		}
	}
	if n != 3 {
		t.Errorf("a reader that leaves got %d events", n)
	}
}

func bodies(t *testing.T, h Harness) {
	s := h.Open(t)
	l := openLane(t, s, "a")
	r := submit(t, l, pipeline.RunRunning)
	long := strings.Repeat("blob ", 2_000)
	outputs := []any{
		"", "NUL \x00 in it", "漢字 \U0001F600 \u2028 </script>", long, long, // the same content twice
		strings.Repeat("\x00", 5000), strings.Repeat("random? no ", 400_000),
		map[string]any{"deep": []any{map[string]any{"x": long + "!"}}},
		map[string]any{"a": int64(9007199254740993), "b": 1.0, "c": 1e300},
	}
	var list []pipeline.Event
	for i, out := range outputs {
		e := step(int32(i)*2 + 3)
		e.Seq, e.Path, e.Data.Output = int32(i)+2, "größe[0]/~x", out
		list = append(list, e)
	}
	commit(t, l, &store.Batch{Append: []store.Append{{Run: r.ID, Events: list}}})
	other := submit(t, l, pipeline.RunRunning) // shares a blob
	commit(t, l, &store.Batch{Append: []store.Append{{Run: other.ID, Events: list[3:4]}}})
	got := events(t, s, r.ID, 1)
	equal(t, "events", got, list)
	equal(t, "shared", events(t, s, other.ID, 1), list[3:4])

	big := newRun(pipeline.RunRunning)
	big.Inputs = map[string]any{"text": strings.Repeat("input\x00", 300_000)}
	commit(t, l, &store.Batch{Create: []store.Create{created(big)}})
	equal(t, "large input", read(t, s, big.ID).Inputs, big.Inputs)
}

func hostileText(t *testing.T, h Harness) {
	s := h.Open(t)
	l := openLane(t, s, "a")
	bad := "a\x00b\xff"
	r := newRun(pipeline.RunRunning)
	r.Pipeline, r.Version, r.Reason, r.Workspace = bad, bad, bad, bad
	r.Labels = map[string]string{bad: bad}
	r.Inputs = map[string]any{bad: bad}
	r.Error = &pipeline.Failure{Kind: bad, Message: bad}
	c := created(r)
	c.Events[0].Path, c.IdempotencyKey = pipeline.Path(bad), bad
	c.Events[0].Data.Reason = bad
	commit(t, l, &store.Batch{Create: []store.Create{c}})
	const clean = "a\ufffdb\ufffd"
	got := read(t, s, r.ID)
	if got.Pipeline != clean || got.Labels[clean] != clean || got.Error.Message != "a\x00b\ufffd" {
		t.Errorf("run reads back as %+v", got)
	}
	if p, err := s.Runs(t.Context(), store.Query{Pipeline: bad, Labels: map[string]string{bad: bad}}); err != nil || len(p.Runs) != 1 {
		t.Errorf("found %d runs, %v", len(p.Runs), err)
	}
	if err := s.Send(t.Context(), r.ID, store.Message{Kind: bad, Actor: bad, Body: []byte(bad)}); err != nil {
		t.Errorf("send: %v", err)
	}
	if m, err := s.Inbox(t.Context(), []pipeline.RunID{r.ID}); err != nil || len(m) != 1 || string(m[0].Body) != bad {
		t.Errorf("inbox: %v, %v", m, err)
	}
}

func finishes(t *testing.T, h Harness) {
	s := h.Open(t)
	l := openLane(t, s, "a")
	r := submit(t, l, pipeline.RunRunning)
	r.Status, r.Reason, r.StartedAt = pipeline.RunWaiting, "backoff", instant(3)
	r.Usage.Steps = 4
	commit(t, l, &store.Batch{Finish: []store.Finish{{Run: r}}})
	equal(t, "waiting run", read(t, s, r.ID), r)
	r.Status, r.Reason, r.FinishedAt = pipeline.RunCompleted, "", instant(7)
	r.Outputs = map[string]any{"answer": int64(42)}
	r.Usage = pipeline.Usage{InputTokens: 10, OutputTokens: 20, CostUSD: 1.5, Steps: 9, Unpriced: 2}
	b := &store.Batch{
		Append: []store.Append{{Run: r.ID, Events: []pipeline.Event{{Seq: 2, Type: pipeline.RunFinished, At: instant(7)}}}},
		Finish: []store.Finish{{Run: r}},
	}
	commit(t, l, b)
	commit(t, l, b) // in doubt
	equal(t, "finished run", read(t, s, r.ID), r)
	if err := l.Release(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := read(t, s, r.ID); got.Status != pipeline.RunCompleted {
		t.Errorf("release made the finished run %s", got.Status)
	}
}

func keyed(key, digest string) store.Create {
	c := created(newRun(pipeline.RunQueued))
	c.IdempotencyKey, c.RequestDigest = key, pipeline.Digest(digest)
	return c
}

func idempotency(t *testing.T, h Harness) {
	s := h.Open(t)
	l, other := openLane(t, s, "a"), openLane(t, s, "b")
	first := keyed("key", "sha256:1")
	b := &store.Batch{Create: []store.Create{first}}
	equal(t, "first", commit(t, l, b), store.Result{Creates: []store.CreateResult{{}}})
	equal(t, "the same batch again", commit(t, l, b), store.Result{Creates: []store.CreateResult{{}}})

	same, different, plain := keyed("key", "sha256:1"), keyed("key", "sha256:2"), created(newRun(pipeline.RunRunning))
	fresh, twin := keyed("fresh", "sha256:3"), keyed("fresh", "sha256:3")
	res := commit(t, other, &store.Batch{
		Create: []store.Create{same, different, plain, fresh, twin},
		Append: []store.Append{{Run: same.Run.ID, Events: steps(2, 3)}, {Run: fresh.Run.ID, Events: steps(2, 3)}},
	})
	equal(t, "second", res, store.Result{Creates: []store.CreateResult{
		{Existing: first.Run.ID}, {Existing: first.Run.ID, Mismatch: true}, {}, {}, {Existing: fresh.Run.ID},
	}})
	for _, c := range []store.Create{same, different, twin} {
		if _, err := s.Run(t.Context(), c.Run.ID); pipeline.KindOf(err) != pipeline.NotFound {
			t.Errorf("a run that lost its key reads with %v", err)
		}
		if n := len(events(t, s, c.Run.ID, 0)); n != 0 {
			t.Errorf("a run that lost its key has %d events", n)
		}
	}
	if n := len(events(t, s, fresh.Run.ID, 0)); n != 3 {
		t.Errorf("the run that took its key has %d events, want 3", n)
	}
	runs, err := l.Claim(t.Context(), 10)
	if err != nil {
		t.Fatal(err)
	}
	equal(t, "queued", ids(runs), []pipeline.RunID{first.Run.ID, fresh.Run.ID})
	commit(t, l, b) // in doubt, while its run is owned
	if got := read(t, s, first.Run.ID); got.Status != pipeline.RunRunning {
		t.Errorf("a resend made the claimed run %s", got.Status)
	}
	if runs, err := other.Claim(t.Context(), 10); err != nil || len(runs) != 0 {
		t.Errorf("a resend queued %d owned runs again, %v", len(runs), err)
	}
}

func crossedKeys(t *testing.T, h Harness) {
	s := h.Open(t)
	const lanes, rounds, keys = 4, 8, 20
	var wg sync.WaitGroup
	var mu sync.Mutex
	won := make(map[string][]pipeline.RunID)
	for i := range lanes {
		l := openLane(t, s, store.ReplicaID("r"+string(rune('0'+i))))
		wg.Go(func() {
			for round := range rounds {
				b := new(store.Batch)
				for k := range keys {
					n := k
					if i%2 == 1 {
						n = keys - 1 - k // the other way round
					}
					b.Create = append(b.Create, keyed(string(rune('a'+round))+string(rune('a'+n)), "sha256:1"))
				}
				ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
				res, err := l.Commit(ctx, b)
				cancel()
				if err != nil {
					t.Errorf("commit: %v", err)
					return
				}
				mu.Lock()
				for k, r := range res.Creates {
					id := r.Existing
					if id == "" {
						id = b.Create[k].Run.ID
					}
					key := b.Create[k].IdempotencyKey
					won[key] = append(won[key], id)
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	for key, list := range won {
		for _, id := range list {
			if id != list[0] {
				t.Fatalf("key %s stands for runs %s and %s", key, list[0], id)
			}
		}
	}
	p, err := s.Runs(t.Context(), store.Query{Limit: 1000})
	if err != nil || len(p.Runs) != rounds*keys {
		t.Errorf("%d runs, want %d; %v", len(p.Runs), rounds*keys, err)
	}
}

func inDoubt(t *testing.T, h Harness) {
	s := h.Open(t)
	l := openLane(t, s, "a")
	owned, queued := newRun(pipeline.RunRunning), newRun(pipeline.RunQueued)
	big := step(3)
	big.Data.Output = strings.Repeat("x", 5000)
	b := &store.Batch{
		Create: []store.Create{created(owned), created(queued)},
		Append: []store.Append{{Run: owned.ID, Events: []pipeline.Event{step(2), big, step(4)}}},
	}
	for range 3 {
		commit(t, l, b)
	}
	if n := len(events(t, s, owned.ID, 0)); n != 4 {
		t.Errorf("%d events, want 4", n)
	}
	runs, err := l.Claim(t.Context(), 10)
	if err != nil || len(runs) != 1 || runs[0].ID != queued.ID {
		t.Fatalf("claimed %v, %v", ids(runs), err)
	}
	// Partly recorded, then more.
	commit(t, l, &store.Batch{Append: []store.Append{{Run: owned.ID, Events: steps(5, 40)}}})
	commit(t, l, &store.Batch{Append: []store.Append{{Run: owned.ID, Events: steps(5, 80)}}})
	got := events(t, s, owned.ID, 0)
	if len(got) != 80 || got[79].Seq != 80 {
		t.Errorf("%d events, want 80", len(got))
	}
}

func overwrite(t *testing.T, h Harness) {
	s := h.Open(t)
	l := openLane(t, s, "a")
	r := submit(t, l, pipeline.RunRunning)
	commit(t, l, &store.Batch{Append: []store.Append{{Run: r.ID, Events: steps(2, 3)}}})
	forged := step(3)
	forged.Data.Output = "forged"
	_, err := l.Commit(t.Context(), &store.Batch{Append: []store.Append{{Run: r.ID, Events: []pipeline.Event{forged, step(4)}}}})
	if err == nil || errors.Is(err, store.ErrFenced) {
		t.Errorf("overwriting a record gives %v", err)
	}
	equal(t, "events", events(t, s, r.ID, 1), steps(2, 3))
	commit(t, l, &store.Batch{Append: []store.Append{{Run: r.ID, Events: []pipeline.Event{step(4)}}}}) // the lane lives on
}

func cancelled(t *testing.T, h Harness) {
	s := h.Open(t)
	l := openLane(t, s, "a")
	r := submit(t, l, pipeline.RunRunning)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := l.Commit(ctx, &store.Batch{Append: []store.Append{{Run: r.ID, Events: steps(2, 3)}}}); !errors.Is(err, context.Canceled) {
		t.Errorf("commit: %v", err)
	}
	if _, err := s.Run(ctx, r.ID); !errors.Is(err, context.Canceled) {
		t.Errorf("read: %v", err)
	}
	commit(t, l, &store.Batch{Append: []store.Append{{Run: r.ID, Events: steps(2, 3)}}})
	if n := len(events(t, s, r.ID, 0)); n != 3 {
		t.Errorf("%d events, want 3", n)
	}
}
