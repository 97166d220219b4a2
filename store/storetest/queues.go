package storetest

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/orchestrator-project/orchestrator/pipeline"
	"github.com/orchestrator-project/orchestrator/store"
)

// queued makes n runs of a fair key wait for their start, changed by change.
func queued(t testing.TB, l store.Lane, n int, key string, change ...func(*pipeline.Run)) []*pipeline.Run {
	t.Helper()
	b := new(store.Batch)
	var runs []*pipeline.Run
	for range n {
		r := newRun(pipeline.RunQueued)
		r.FairKey = key
		for _, f := range change {
			f(r)
		}
		runs = append(runs, r)
		b.Create = append(b.Create, created(r))
	}
	commit(t, l, b)
	return runs
}

func inQueue(name string) func(*pipeline.Run) { return func(r *pipeline.Run) { r.Queue = name } }

func holding(key string, most int32) func(*pipeline.Run) {
	return func(r *pipeline.Run) { r.Concurrency = pipeline.Concurrency{Key: key, Max: most} }
}

// finished ends a run.
func finished(t testing.TB, l store.Lane, runs ...*pipeline.Run) {
	t.Helper()
	b := new(store.Batch)
	for _, r := range runs {
		end := *r
		end.Status, end.FinishedAt = pipeline.RunCompleted, instant(9)
		b.Finish = append(b.Finish, store.Finish{Run: &end})
	}
	commit(t, l, b)
}

func perKey(runs []*pipeline.Run) map[string]int {
	m := make(map[string]int)
	for _, r := range runs {
		m[r.FairKey]++
	}
	return m
}

func setQueue(t testing.TB, s store.Store, name string, c store.QueueChange) *store.Queue {
	t.Helper()
	q, err := s.SetQueue(t.Context(), name, c)
	if err != nil {
		t.Fatalf("set queue %s: %v", name, err)
	}
	return q
}

// fairOverKeys gives keys very different loads through two lanes: while all of
// them have runs waiting, each gets its share, whatever the size of the claims.
func fairOverKeys(t *testing.T, h Harness) {
	s := h.Open(t)
	l, other := openLane(t, s, "a"), openLane(t, h.Again(t, s), "b")
	setQueue(t, s, pipeline.DefaultQueue, store.QueueChange{Weights: map[string]int{"heavy": 3}})
	load := map[string]int{"hog": 400, "some": 120, "few": 60, "heavy": 250}
	var wg sync.WaitGroup
	for i, lane := range []store.Lane{l, other} {
		wg.Go(func() {
			for range 2 {
				for _, key := range []string{"hog", "heavy", "some", "few"}[i:] {
					queued(t, lane, load[key]/4, key)
				}
				for _, key := range []string{"hog"}[:i] {
					queued(t, lane, load[key]/4, key)
				}
			}
		})
	}
	wg.Wait()
	got := make(map[string]int)
	for total := 0; total < 120; {
		n := min(1+rand.IntN(9), 120-total)
		runs := claim(t, []store.Lane{l, other}[total%2], n)
		if len(runs) != n {
			t.Fatalf("claimed %d runs of %d", len(runs), n)
		}
		for key, n := range perKey(runs) {
			got[key] += n
		}
		total += n
	}
	for key, want := range map[string]int{"hog": 20, "some": 20, "few": 20, "heavy": 60} {
		if d := got[key] - want; d < -3 || d > 3 {
			t.Errorf("after 120 claims %s has got %d, want %d: %v", key, got[key], want, got)
		}
	}
}

// noHoarding lets a key return after it was idle: it has saved nothing up, and
// one that comes late does not wait behind another's backlog.
func noHoarding(t *testing.T, h Harness) {
	s := h.Open(t)
	l := openLane(t, s, "a")
	first := queued(t, l, 1, "idle")
	queued(t, l, 200, "busy")
	claim(t, l, 101)
	queued(t, l, 100, "idle")
	got := perKey(claim(t, l, 40))
	if got["idle"] < 18 || got["idle"] > 22 {
		t.Errorf("after a pause the key of %s gets %d of 40 claims, want half", first[0].ID, got["idle"])
	}
	late := queued(t, l, 1, "late")
	found := false
	for _, r := range claim(t, l, 4) {
		found = found || r.ID == late[0].ID
	}
	if !found {
		t.Error("a key that has just come waits behind the backlog of others")
	}
}

// queuesTakeTurns shares claims among queues by their weights, and a queue that
// was paused has saved nothing up.
func queuesTakeTurns(t *testing.T, h Harness) {
	s := h.Open(t)
	l := openLane(t, s, "a")
	weight := int32(2)
	setQueue(t, s, "b", store.QueueChange{Weight: &weight})
	for _, name := range []string{"a", "b", "c"} {
		queued(t, l, 200, name, inQueue(name))
	}
	yes, no := true, false
	setQueue(t, s, "c", store.QueueChange{Paused: &yes})
	count := func(n int, want map[string]int) {
		t.Helper()
		got := make(map[string]int)
		for range n / 3 {
			for key, n := range perKey(claim(t, l, 3)) {
				got[key] += n
			}
		}
		for name, n := range want {
			if d := got[name] - n; d < -2 || d > 2 {
				t.Errorf("of %d claims the queues got %v, want %v", n, got, want)
				return
			}
		}
	}
	count(60, map[string]int{"a": 20, "b": 40, "c": 0})
	setQueue(t, s, "c", store.QueueChange{Paused: &no})
	count(60, map[string]int{"a": 15, "b": 30, "c": 15})
}

func prioritiesGoFirst(t *testing.T, h Harness) {
	s := h.Open(t)
	l := openLane(t, s, "a")
	var want []pipeline.RunID
	queued(t, l, 20, "x")
	for _, name := range []string{"", "other"} {
		urgent := queued(t, l, 1, "x", inQueue(name), func(r *pipeline.Run) { r.Priority = 9 })
		want = append(want, urgent[0].ID)
	}
	got := ids(claim(t, l, 2))
	if len(got) != 2 || got[0] != want[0] && got[0] != want[1] || got[1] != want[0] && got[1] != want[1] {
		t.Errorf("claimed %v, want %v", got, want)
	}
}

// concurrencyKeys lets lanes of two processes race for the slots of a key.
func concurrencyKeys(t *testing.T, h Harness) {
	const most, total = 3, 60
	s := h.Open(t)
	other := h.Again(t, s)
	setup := openLane(t, s, "setup")
	queued(t, setup, total, "", holding("deploy", most))
	free := queued(t, setup, 1, "")
	var mu sync.Mutex
	holders := make(map[pipeline.RunID]bool) // claimed and not finished
	var done atomic.Int32
	var wg sync.WaitGroup
	// goOn parks a run that was claimed, which lets it hold the key, or finishes it.
	goOn := func(l store.Lane, r *pipeline.Run) {
		mu.Lock()
		parked := holders[r.ID]
		if r.ID != free[0].ID {
			holders[r.ID] = true
		}
		if len(holders) > most {
			t.Errorf("%d runs hold the key, at most %d may", len(holders), most)
		}
		if parked {
			delete(holders, r.ID)
		}
		mu.Unlock()
		if !parked && r.ID != free[0].ID {
			commit(t, l, parkFor(r, time.Now().Add(-time.Second)))
			return
		}
		finished(t, l, r)
		done.Add(1)
	}
	for i := range 4 {
		l := openLane(t, []store.Store{s, other}[i%2], store.ReplicaID(fmt.Sprint("lane", i)))
		wg.Go(func() {
			for end := time.Now().Add(time.Minute); done.Load() < total+1; {
				if time.Now().After(end) {
					t.Errorf("%d of %d runs have finished after a minute", done.Load(), total+1)
					return
				}
				var runs []*pipeline.Run
				if err := patiently(func() (err error) { runs, err = l.Claim(t.Context(), 5); return err }); err != nil {
					t.Errorf("claim: %v", err)
					return
				}
				for _, r := range runs {
					goOn(l, r)
				}
			}
		})
	}
	wg.Wait()
	left, err := s.Queue(t.Context(), pipeline.DefaultQueue)
	if err != nil || left.Waiting != 0 || left.Running != 0 {
		t.Errorf("in the end the queue is %+v, %v", left, err)
	}
}

// slotsOutliveOwners kills the owner of a run with a key: the slot is the run's,
// whoever owns it.
func slotsOutliveOwners(t *testing.T, h Harness) {
	s := h.Open(t)
	dead := h.Again(t, s)
	l := openLane(t, s, "alive")
	old, err := dead.OpenLane(t.Context(), "dead")
	if err != nil {
		t.Fatal(err)
	}
	runs := queued(t, l, 3, "", holding("one", 1))
	equal(t, "claimed", ids(claim(t, old, 10)), []pipeline.RunID{runs[0].ID})
	h.Kill(t, dead)
	eventually(t, "the run of the dead is queued", func() bool {
		if got := claim(t, l, 10); len(got) != 0 {
			t.Fatalf("claimed %v while the key is held", ids(got))
		}
		n, err := s.Reclaim(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return n == 1
	})
	again := claim(t, l, 10)
	equal(t, "claimed after the death", ids(again), []pipeline.RunID{runs[0].ID})
	equal(t, "pulse while the key is held", pulse(t, s, "alive").Queued, false)
	st := standing(t, s, runs[1].ID)
	if st.Held != store.HeldSlot || len(st.Holders) != 1 || st.Holders[0] != runs[0].ID {
		t.Errorf("the next one is held by %v, holders %v", st.Held, st.Holders)
	}
	finished(t, l, again[0])
	equal(t, "pulse when it is free", pulse(t, s, "alive").Queued, true)
	equal(t, "claimed when it is free", ids(claim(t, l, 10)), []pipeline.RunID{runs[1].ID})
}

// heldRunsStandAside: runs that wait for a slot are not in the way of others.
func heldRunsStandAside(t *testing.T, h Harness) {
	s := h.Open(t)
	l := openLane(t, s, "a")
	queued(t, l, 500, "x", holding("k", 1))
	behind := queued(t, l, 2, "x")
	got := claim(t, l, 3)
	if len(got) != 3 || got[1].ID != behind[0].ID || got[2].ID != behind[1].ID {
		t.Errorf("claimed %v", ids(got))
	}
	_, err := l.ClaimRun(t.Context(), queued(t, l, 1, "x", holding("k", 1))[0].ID)
	wantKind(t, err, pipeline.Conflict)
}

func standing(t testing.TB, s store.Store, id pipeline.RunID) *store.Standing {
	t.Helper()
	st, err := s.Standing(t.Context(), id)
	if err != nil {
		t.Fatalf("where run %s stands: %v", id, err)
	}
	return st
}

func rateLimits(t *testing.T, h Harness) {
	s := h.Open(t)
	l := openLane(t, s, "a")
	runs := queued(t, l, 5, "")
	before := time.Now()
	setQueue(t, s, pipeline.DefaultQueue, store.QueueChange{Rate: &store.Rate{Every: time.Hour, Burst: 2}})
	equal(t, "the burst", ids(claim(t, l, 10)), []pipeline.RunID{runs[0].ID, runs[1].ID})
	equal(t, "after the burst", len(claim(t, l, 10)), 0)
	_, err := l.ClaimRun(t.Context(), runs[2].ID)
	wantKind(t, err, pipeline.Conflict)
	p := pulse(t, s, "a")
	if p.Queued || p.NextDue.Before(before.Add(59*time.Minute)) || p.NextDue.After(time.Now().Add(61*time.Minute)) {
		t.Errorf("pulse %+v, want the next start in an hour", p)
	}
	equal(t, "gates", p.Gates, store.Gates{Queues: []string{pipeline.DefaultQueue}})
	q := setQueue(t, s, pipeline.DefaultQueue, store.QueueChange{Rate: &store.Rate{Every: 30 * time.Millisecond, Burst: 1}})
	if q.Rate.Every != 30*time.Millisecond || q.Waiting != 3 || q.Running != 2 {
		t.Errorf("the queue is %+v", q)
	}
	begun := time.Now()
	var got []pipeline.RunID
	eventually(t, "the others start", func() bool {
		got = append(got, ids(claim(t, l, 10))...)
		return len(got) == 3
	})
	equal(t, "the others", got, ids(runs[2:]))
	if took := time.Since(begun); took < 50*time.Millisecond {
		t.Errorf("three starts at 30 ms took %v", took)
	}
	setQueue(t, s, pipeline.DefaultQueue, store.QueueChange{Rate: &store.Rate{}})
	equal(t, "gates without limits", pulse(t, s, "a").Gates, store.Gates{})
}

func runningLimits(t *testing.T, h Harness) {
	s := h.Open(t)
	l := openLane(t, s, "a")
	early := submit(t, l, pipeline.RunRunning)
	runs := queued(t, l, 4, "")
	equal(t, "one before the limit", ids(claim(t, l, 1)), []pipeline.RunID{runs[0].ID})
	two, none := int32(2), int32(0)
	setQueue(t, s, pipeline.DefaultQueue, store.QueueChange{MaxRunning: &two})
	_ = early // it has no time of its start and does not count
	next := claim(t, l, 10)
	equal(t, "up to the limit", ids(next), []pipeline.RunID{runs[1].ID})
	equal(t, "pulse at the limit", pulse(t, s, "a").Queued, false)
	st := standing(t, s, runs[3].ID)
	if st.Queue == nil || st.Queue.MaxRunning != 2 || st.Running != 2 || st.Ahead != 1 || st.Since.IsZero() {
		t.Errorf("the last one stands at %+v", st)
	}
	commit(t, l, parkFor(next[0], time.Time{}))
	equal(t, "while one is parked", len(claim(t, l, 10)), 0)
	send(t, s, next[0].ID, "m")
	equal(t, "who is under way", ids(claim(t, l, 10)), []pipeline.RunID{next[0].ID})
	finished(t, l, next[0])
	equal(t, "after an end", ids(claim(t, l, 10)), []pipeline.RunID{runs[2].ID})
	setQueue(t, s, pipeline.DefaultQueue, store.QueueChange{MaxRunning: &none})
	equal(t, "without the limit", ids(claim(t, l, 10)), []pipeline.RunID{runs[3].ID})
}

func pausedQueues(t *testing.T, h Harness) {
	s := h.Open(t)
	l := openLane(t, s, "a")
	yes, no := true, false
	q := setQueue(t, s, "slow", store.QueueChange{Paused: &yes, Actor: "ann"})
	if q.Paused == nil || q.Paused.By != "ann" || q.Paused.At.IsZero() {
		t.Errorf("the queue is %+v", q)
	}
	setQueue(t, s, "slow", store.QueueChange{Paused: &yes, Actor: "bob"})
	runs := queued(t, l, 2, "", inQueue("slow"))
	equal(t, "claimed", len(claim(t, l, 10)), 0)
	p := pulse(t, s, "a")
	equal(t, "pulse", p.Queued, false)
	equal(t, "gates", p.Gates, store.Gates{Queues: []string{"slow"}})
	if st := standing(t, s, runs[0].ID); st.Queue.Paused == nil || st.Queue.Paused.By != "ann" {
		t.Errorf("the run stands at %+v", st)
	}
	// A run that is cancelled ends although its queue is paused.
	if err := s.Send(t.Context(), runs[1].ID, store.Message{Kind: store.MessageCancel}); err != nil {
		t.Fatal(err)
	}
	equal(t, "cancelled", ids(claim(t, l, 10)), []pipeline.RunID{runs[1].ID})
	setQueue(t, s, "slow", store.QueueChange{Paused: &no})
	equal(t, "resumed", ids(claim(t, l, 10)), []pipeline.RunID{runs[0].ID})
}

func pausedPipelines(t *testing.T, h Harness) {
	s := h.Open(t)
	l := openLane(t, s, "a")
	pause, err := s.PausePipeline(t.Context(), "demo", true, "ann")
	if err != nil || pause == nil || pause.By != "ann" {
		t.Fatalf("paused: %+v, %v", pause, err)
	}
	runs := queued(t, l, 300, "")
	others := queued(t, l, 2, "other", func(r *pipeline.Run) { r.Pipeline = "other" })
	equal(t, "claimed", ids(claim(t, l, 10)), ids(others))
	equal(t, "pulse", pulse(t, s, "a").Queued, false)
	if st := standing(t, s, runs[0].ID); st.Held != store.HeldPipeline || st.Pipeline == nil || st.Pipeline.By != "ann" {
		t.Errorf("the run stands at %+v", st)
	}
	for range 2 {
		if pause, err = s.PausePipeline(t.Context(), "demo", false, "bob"); err != nil || pause != nil {
			t.Fatalf("resumed: %+v, %v", pause, err)
		}
	}
	equal(t, "resumed", ids(claim(t, l, 300)), ids(runs))
}

// queueFigures reads what queues and their runs show.
func queueFigures(t *testing.T, h Harness) {
	s := h.Open(t)
	l := openLane(t, s, "a")
	runs := queued(t, l, 3, "x", inQueue("q"))
	queued(t, l, 2, "y", inQueue("q"), holding("k", 1))
	queued(t, l, 1, "")
	claim(t, l, 4)
	list, err := s.Queues(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, q := range list {
		names = append(names, q.Name)
	}
	equal(t, "queues", names, []string{pipeline.DefaultQueue, "q"})
	q, err := s.Queue(t.Context(), "q")
	if err != nil || q.Waiting != 2 || q.Running != 3 || q.Oldest.IsZero() || len(q.Keys) == 0 || q.Weight != 1 {
		t.Errorf("the queue is %+v, %v", q, err)
	}
	unused, err := s.Queue(t.Context(), "unused")
	if err != nil || unused.Name != "unused" || unused.Weight != 1 || unused.Waiting != 0 {
		t.Errorf("an unused queue is %+v, %v", unused, err)
	}
	_, err = s.Queue(t.Context(), "no queue")
	wantKind(t, err, pipeline.Invalid)
	got := read(t, s, runs[0].ID)
	equal(t, "place of a run", []string{got.Queue, got.FairKey}, []string{"q", "x"})
	if st := standing(t, s, runs[0].ID); st.Replica != "a" || st.Dead || st.Replicas["a"] != 4 {
		t.Errorf("an owned run stands at %+v", st)
	}
	_, err = s.Standing(t.Context(), pipeline.NewRunID())
	wantKind(t, err, pipeline.NotFound)
}
