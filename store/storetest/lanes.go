package storetest

import (
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/orchestrator-project/orchestrator/pipeline"
	"github.com/orchestrator-project/orchestrator/store"
)

func claimOrder(t *testing.T, h Harness) {
	s := h.Open(t)
	l := openLane(t, s, "a")
	var runs []*pipeline.Run
	b := new(store.Batch)
	for _, p := range []int32{0, 5, -3, 5, 0, 9} {
		r := newRun(pipeline.RunQueued)
		r.Priority = p
		runs = append(runs, r)
		b.Create = append(b.Create, created(r))
	}
	commit(t, l, b)
	var got []pipeline.RunID
	for _, n := range []int{0, 2, 3, 10, 10} {
		list, err := l.Claim(t.Context(), n)
		if err != nil {
			t.Fatal(err)
		}
		if len(list) > n {
			t.Errorf("claimed %d runs, asked for %d", len(list), n)
		}
		for _, r := range list {
			if r.Status != pipeline.RunRunning || r.StartedAt.IsZero() || r.Inputs["n"] != int64(1) {
				t.Errorf("claimed run is %+v", r)
			}
		}
		got = append(got, ids(list)...)
	}
	want := []pipeline.RunID{runs[5].ID, runs[1].ID, runs[3].ID, runs[0].ID, runs[4].ID, runs[2].ID}
	equal(t, "order", got, want)
}

func claimOnce(t *testing.T, h Harness) {
	s := h.Open(t)
	l := openLane(t, s, "a")
	b := new(store.Batch)
	const total = 200
	for range total {
		b.Create = append(b.Create, created(newRun(pipeline.RunQueued)))
	}
	commit(t, l, b)
	again := h.Again(t, s)
	var mu sync.Mutex
	seen := make(map[pipeline.RunID]int64)
	var wg sync.WaitGroup
	for i := range 4 {
		claimer := openLane(t, []store.Store{s, again}[i%2], store.ReplicaID(fmt.Sprint("c", i)))
		wg.Go(func() {
			for {
				runs, err := claimer.Claim(t.Context(), 7)
				if err != nil {
					t.Errorf("claim: %v", err)
					return
				}
				if len(runs) == 0 {
					return
				}
				mu.Lock()
				for _, r := range runs {
					if seen[r.ID] != 0 {
						t.Errorf("run %s was claimed twice", r.ID)
					}
					seen[r.ID] = claimer.Epoch()
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	if len(seen) != total {
		t.Errorf("%d runs were claimed, want %d", len(seen), total)
	}
}

func claimRun(t *testing.T, h Harness) {
	s := h.Open(t)
	l, other := openLane(t, s, "a"), openLane(t, s, "b")
	first, second := submit(t, l, pipeline.RunQueued), submit(t, l, pipeline.RunQueued)
	r, err := l.ClaimRun(t.Context(), second.ID)
	if err != nil || r.ID != second.ID || r.Status != pipeline.RunRunning || r.Inputs["n"] != int64(1) {
		t.Fatalf("claimed %+v, %v", r, err)
	}
	for _, claimer := range []store.Lane{l, other} {
		_, err = claimer.ClaimRun(t.Context(), second.ID)
		wantKind(t, err, pipeline.Conflict)
	}
	_, err = l.ClaimRun(t.Context(), pipeline.NewRunID())
	wantKind(t, err, pipeline.NotFound)
	runs, err := other.Claim(t.Context(), 10)
	if err != nil {
		t.Fatal(err)
	}
	equal(t, "the rest of the queue", ids(runs), []pipeline.RunID{first.ID})
	if err := l.Release(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := l.ClaimRun(t.Context(), second.ID); !errors.Is(err, store.ErrFenced) {
		t.Errorf("claim of a released lane: %v", err)
	}
}

// fenced kills a replica and writes with its lane after its runs were taken.
func fenced(t *testing.T, h Harness) {
	s := h.Open(t)
	dead := h.Again(t, s)
	l := openLane(t, s, "alive")
	old, err := dead.OpenLane(t.Context(), "dead")
	if err != nil {
		t.Fatal(err)
	}
	r := submit(t, old, pipeline.RunRunning)
	waiting := submit(t, old, pipeline.RunWaiting)
	done := submit(t, old, pipeline.RunCompleted)
	h.Kill(t, dead)
	eventually(t, "the heartbeat sees the dead lane", func() bool {
		p, err := s.Heartbeat(t.Context(), "alive")
		if err != nil {
			t.Fatal(err)
		}
		if p.Lost {
			t.Fatal("the living lane is lost")
		}
		return p.Expired
	})
	total, err := s.Reclaim(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if total != 2 {
		t.Errorf("%d runs were queued again, want 2", total)
	}
	if got := read(t, s, r.ID); got.Status != pipeline.RunQueued {
		t.Errorf("the orphan is %s", got.Status)
	}
	if got := read(t, s, done.ID); got.Status != pipeline.RunCompleted {
		t.Errorf("the finished run is %s", got.Status)
	}
	runs, err := l.Claim(t.Context(), 10)
	if err != nil {
		t.Fatal(err)
	}
	equal(t, "claimed", ids(runs), []pipeline.RunID{r.ID, waiting.ID})
	commit(t, l, &store.Batch{Append: []store.Append{{Run: r.ID, Events: steps(2, 2)}}})

	// A zombie: the same lease, used by a process that does not know. It is
	// played by a lane that was released under its feet.
	zombie := openLane(t, s, "zombie")
	lost := submit(t, zombie, pipeline.RunRunning)
	if err := zombie.Release(t.Context()); err != nil {
		t.Fatal(err)
	}
	fresh := newRun(pipeline.RunRunning)
	for name, b := range map[string]*store.Batch{
		"append": {Append: []store.Append{{Run: lost.ID, Events: steps(2, 3)}}},
		"create": {Create: []store.Create{created(fresh)}},
		"keyed":  {Create: []store.Create{keyed("zombie", "sha256:1")}},
		"all":    {Create: []store.Create{created(fresh)}, Append: []store.Append{{Run: lost.ID, Events: steps(2, 3)}}, Finish: []store.Finish{{Run: lost}}, Yield: []pipeline.RunID{lost.ID}},
	} {
		if _, err := zombie.Commit(t.Context(), b); !errors.Is(err, store.ErrFenced) {
			t.Errorf("%s under an old epoch: %v", name, err)
		}
	}
	if _, err := zombie.Claim(t.Context(), 1); !errors.Is(err, store.ErrFenced) {
		t.Errorf("claim under an old epoch: %v", err)
	}
	if n := len(events(t, s, lost.ID, 0)); n != 1 {
		t.Errorf("the fenced batch left %d events", n-1)
	}
	if _, err := s.Run(t.Context(), fresh.ID); pipeline.KindOf(err) != pipeline.NotFound {
		t.Errorf("the fenced batch left a run: %v", err)
	}
	if err := zombie.Release(t.Context()); err != nil {
		t.Errorf("second release: %v", err)
	}
}

func reclaimSparesLiving(t *testing.T, h Harness) {
	s := h.Open(t)
	other := h.Again(t, s)
	l := openLane(t, s, "a")
	r := submit(t, l, pipeline.RunRunning)
	if _, err := s.Heartbeat(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	for _, x := range []store.Store{s, other} {
		if n, err := x.Reclaim(t.Context()); err != nil || n != 0 {
			t.Errorf("reclaimed %d runs of a living lane, %v", n, err)
		}
		if p, err := x.Heartbeat(t.Context(), "x"); err != nil || p.Expired || p.Lost {
			t.Errorf("pulse %+v, %v", p, err)
		}
	}
	commit(t, l, &store.Batch{Append: []store.Append{{Run: r.ID, Events: steps(2, 2)}}})
}

func release(t *testing.T, h Harness) {
	s := h.Open(t)
	l, next := openLane(t, s, "a"), openLane(t, s, "b")
	if l.ID() == next.ID() || l.Epoch() == next.Epoch() {
		t.Errorf("lanes %d/%d and %d/%d", l.ID(), l.Epoch(), next.ID(), next.Epoch())
	}
	low := newRun(pipeline.RunRunning)
	low.Priority = -1
	commit(t, l, &store.Batch{Create: []store.Create{created(low)}})
	high := submit(t, l, pipeline.RunPaused)
	if err := l.Release(t.Context()); err != nil {
		t.Fatal(err)
	}
	runs, err := next.Claim(t.Context(), 10)
	if err != nil {
		t.Fatal(err)
	}
	equal(t, "released", ids(runs), []pipeline.RunID{high.ID, low.ID})
}

func yields(t *testing.T, h Harness) {
	s := h.Open(t)
	l, next := openLane(t, s, "a"), openLane(t, s, "b")
	kept, given := submit(t, l, pipeline.RunRunning), submit(t, l, pipeline.RunRunning)
	b := &store.Batch{Append: []store.Append{{Run: given.ID, Events: steps(2, 3)}}, Yield: []pipeline.RunID{given.ID}}
	commit(t, l, b)
	if got := read(t, s, given.ID); got.Status != pipeline.RunQueued {
		t.Errorf("the yielded run is %s", got.Status)
	}
	runs, err := next.Claim(t.Context(), 10)
	if err != nil {
		t.Fatal(err)
	}
	equal(t, "claimed", ids(runs), []pipeline.RunID{given.ID})
	commit(t, l, b) // in doubt: the next owner keeps it
	if got := read(t, s, given.ID); got.Status != pipeline.RunRunning {
		t.Errorf("a resend made the run %s", got.Status)
	}
	if got := read(t, s, kept.ID); got.Status != pipeline.RunRunning {
		t.Errorf("the kept run is %s", got.Status)
	}
}

func concurrentLanes(t *testing.T, h Harness) {
	s := h.Open(t)
	again := h.Again(t, s)
	const lanes, batches, runs = 4, 10, 5
	var wg sync.WaitGroup
	var mu sync.Mutex
	var all []pipeline.RunID
	for i := range lanes {
		l := openLane(t, []store.Store{s, again}[i%2], store.ReplicaID(fmt.Sprint("r", i)))
		wg.Go(func() {
			b := new(store.Batch)
			for range runs {
				b.Create = append(b.Create, created(newRun(pipeline.RunRunning)))
			}
			own := b.Create
			for k := range batches {
				if _, err := l.Commit(t.Context(), b); err != nil {
					t.Errorf("commit: %v", err)
					return
				}
				b = new(store.Batch)
				for _, c := range own {
					b.Append = append(b.Append, store.Append{Run: c.Run.ID, Events: steps(int32(k)*4+2, int32(k)*4+5)})
				}
			}
			mu.Lock()
			defer mu.Unlock()
			for _, c := range own {
				all = append(all, c.Run.ID)
			}
		})
	}
	wg.Wait()
	for _, id := range all {
		if n := len(events(t, s, id, 0)); n != (batches-1)*4+1 {
			t.Errorf("run %s has %d events", id, n)
		}
	}
	if len(all) != lanes*runs {
		t.Errorf("%d runs", len(all))
	}
}

func heartbeat(t *testing.T, h Harness) {
	s := h.Open(t)
	other := h.Again(t, s)
	l := openLane(t, s, "a")
	equal(t, "idle", pulse(t, s, "a"), store.Pulse{})
	submit(t, l, pipeline.RunQueued)
	equal(t, "queued", pulse(t, s, "a"), store.Pulse{Queued: true})
	equal(t, "queued, elsewhere", pulse(t, other, "b"), store.Pulse{Queued: true})
	if _, err := l.Claim(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	equal(t, "claimed", pulse(t, s, "a"), store.Pulse{})
	equal(t, "claimed, elsewhere", pulse(t, other, "b"), store.Pulse{})
	start := time.Now()
	for range 100 {
		pulse(t, s, "a")
	}
	if d := time.Since(start); d > time.Minute {
		t.Errorf("100 heartbeats took %v", d)
	}
}
