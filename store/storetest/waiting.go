package storetest

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/orchestrator-project/orchestrator/pipeline"
	"github.com/orchestrator-project/orchestrator/store"
)

// waiting is the row of a run that only waits.
func waiting(r *pipeline.Run) *pipeline.Run {
	w := *r
	w.Status, w.Reason = pipeline.RunWaiting, "signal"
	return &w
}

func parkFor(r *pipeline.Run, wake time.Time) *store.Batch {
	return &store.Batch{Park: []store.Park{{Run: waiting(r), Wake: wake}}}
}

func pulse(t testing.TB, s store.Store, r store.ReplicaID) store.Pulse {
	t.Helper()
	p, err := s.Heartbeat(t.Context(), r)
	if err != nil {
		t.Fatalf("heartbeat: %v", err)
	}
	if off := time.Since(p.Now); off.Abs() > time.Minute {
		t.Errorf("the store's clock is %s: %s ago", p.Now, off)
	}
	p.Now = time.Time{}
	return p
}

func claim(t testing.TB, l store.Lane, n int) []*pipeline.Run {
	t.Helper()
	runs, err := l.Claim(t.Context(), n)
	if err != nil {
		t.Fatalf("claim: %v", err)
	}
	return runs
}

func send(t testing.TB, s store.Store, id pipeline.RunID, m store.MessageID) {
	t.Helper()
	if err := s.Send(t.Context(), id, store.Message{ID: m, Kind: store.MessageSignal, At: instant(0)}); err != nil {
		t.Fatalf("send: %v", err)
	}
}

func parks(t *testing.T, h Harness) {
	s := h.Open(t)
	l, next := openLane(t, s, "a"), openLane(t, s, "b")
	r := submit(t, l, pipeline.RunRunning)
	commit(t, l, &store.Batch{
		Append: []store.Append{{Run: r.ID, Events: steps(2, 3)}},
		Park:   []store.Park{{Run: waiting(r)}},
	})
	if got := read(t, s, r.ID); got.Status != pipeline.RunWaiting || got.Reason != "signal" {
		t.Errorf("the parked run is %s, %q", got.Status, got.Reason)
	}
	if runs := claim(t, next, 10); len(runs) != 0 {
		t.Errorf("a run that nothing wakes was claimed: %v", ids(runs))
	}
	equal(t, "pulse", pulse(t, s, "a"), store.Pulse{})

	// It keeps its status until its owner says otherwise.
	got, err := next.ClaimRun(t.Context(), r.ID)
	if err != nil || got.Status != pipeline.RunWaiting || got.Reason != "signal" || got.Inputs["n"] != int64(1) {
		t.Fatalf("claimed %+v, %v", got, err)
	}
	_, err = l.ClaimRun(t.Context(), r.ID)
	wantKind(t, err, pipeline.Conflict)
	got.Status, got.Reason = pipeline.RunRunning, ""
	commit(t, next, &store.Batch{Finish: []store.Finish{{Run: got}}})
	if got := read(t, s, r.ID); got.Status != pipeline.RunRunning || got.Reason != "" {
		t.Errorf("the woken run is %s, %q", got.Status, got.Reason)
	}

	// Awake and parked again in one batch.
	commit(t, next, &store.Batch{Finish: []store.Finish{{Run: got}}, Park: []store.Park{{Run: waiting(got)}}})
	if got := read(t, s, r.ID); got.Status != pipeline.RunWaiting {
		t.Errorf("the run is %s", got.Status)
	}
	if _, err := l.ClaimRun(t.Context(), r.ID); err != nil {
		t.Error(err)
	}
}

func parkedTimers(t *testing.T, h Harness) {
	s := h.Open(t)
	other := h.Again(t, s)
	l, next := openLane(t, s, "a"), openLane(t, other, "b")
	far := time.Now().Add(time.Hour).UTC().Truncate(time.Microsecond)
	r, later := submit(t, l, pipeline.RunRunning), submit(t, l, pipeline.RunRunning)
	commit(t, l, parkFor(r, far))
	commit(t, l, parkFor(later, far.Add(time.Hour)))
	for _, x := range []store.Store{s, other} {
		equal(t, "pulse", pulse(t, x, "x"), store.Pulse{NextDue: far})
	}
	if runs := claim(t, next, 10); len(runs) != 0 {
		t.Errorf("a run was claimed before its time: %v", ids(runs))
	}
	// A message comes first: the timer is over, too.
	send(t, other, r.ID, "m")
	equal(t, "pulse", pulse(t, s, "a"), store.Pulse{Queued: true, NextDue: far})
	equal(t, "claimed", ids(claim(t, next, 10)), []pipeline.RunID{r.ID})
	equal(t, "pulse", pulse(t, s, "a"), store.Pulse{NextDue: far.Add(time.Hour)})
	if _, err := l.ClaimRun(t.Context(), later.ID); err != nil {
		t.Fatal(err)
	}
	equal(t, "pulse", pulse(t, s, "a"), store.Pulse{})

	soon := time.Now().Add(200 * time.Millisecond)
	commit(t, l, parkFor(later, soon))
	eventually(t, "the time of the run comes", func() bool { return pulse(t, other, "b").Queued })
	if time.Now().Before(soon) {
		t.Error("the heartbeat sees it before its time")
	}
	runs := claim(t, next, 10)
	equal(t, "claimed", ids(runs), []pipeline.RunID{later.ID})
	if len(runs) == 1 && runs[0].Status != pipeline.RunWaiting {
		t.Errorf("the claimed run is %s", runs[0].Status)
	}
	equal(t, "pulse", pulse(t, s, "a"), store.Pulse{})
}

// duesStandInLine claims parked runs by the same rule as queued ones, but first
// within their priority.
func duesStandInLine(t *testing.T, h Harness) {
	s := h.Open(t)
	l := openLane(t, s, "a")
	past := time.Now().Add(-time.Minute)
	var want []pipeline.RunID
	for _, x := range []struct {
		priority int32
		parked   bool
	}{{3, false}, {2, true}, {2, false}, {1, true}, {0, false}, {0, true}, {-1, true}} {
		r := newRun(pipeline.RunQueued)
		r.Priority = x.priority
		if x.parked {
			r.Status = pipeline.RunRunning
		}
		commit(t, l, &store.Batch{Create: []store.Create{created(r)}})
		if x.parked {
			commit(t, l, parkFor(r, past))
		}
		want = append(want, r.ID)
	}
	want[4], want[5] = want[5], want[4] // who is under way goes first
	if p := pulse(t, s, "a"); !p.Queued || !p.NextDue.IsZero() {
		t.Errorf("pulse %+v", p)
	}
	var got []pipeline.RunID
	for range want {
		got = append(got, ids(claim(t, l, 1))...)
	}
	equal(t, "order", got, want)
}

func parkedMessages(t *testing.T, h Harness) {
	s := h.Open(t)
	other := h.Again(t, s)
	l, next := openLane(t, s, "a"), openLane(t, other, "b")
	none := func(what string) {
		t.Helper()
		if runs := claim(t, next, 10); len(runs) != 0 {
			t.Errorf("%s: claimed %v", what, ids(runs))
		}
	}
	r := submit(t, l, pipeline.RunRunning)
	send(t, other, r.ID, "m1")
	none("a message for a run that is owned")

	b := parkFor(r, time.Time{})
	b.Consume = []store.MessageID{"m1"}
	commit(t, l, b)
	none("its only message was consumed")

	// Two messages, one claim.
	send(t, other, r.ID, "m2")
	send(t, s, r.ID, "m3")
	send(t, s, r.ID, "m3")
	equal(t, "claimed", ids(claim(t, next, 10)), []pipeline.RunID{r.ID})
	none("it was claimed")
	send(t, s, r.ID, "m4")
	none("it waits, but is owned")

	// A message that was not consumed.
	b = parkFor(r, time.Now().Add(time.Hour))
	b.Consume = []store.MessageID{"m2", "m3"}
	heard := make(chan struct{}, 8)
	listening, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	ready := make(chan struct{}, 8)
	wg.Go(func() {
		_ = other.Listen(listening, func(b store.Bell) {
			switch {
			case b.All:
				ready <- struct{}{}
			case b.Queued:
				heard <- struct{}{}
			}
		})
	})
	<-ready
	commit(t, next, b)
	<-heard
	stop()
	wg.Wait()
	equal(t, "claimed", ids(claim(t, l, 10)), []pipeline.RunID{r.ID})
	equal(t, "pulse", pulse(t, s, "a"), store.Pulse{})
}

// parkInDoubt sends a batch again that another owner has overtaken.
func parkInDoubt(t *testing.T, h Harness) {
	s := h.Open(t)
	l, next := openLane(t, s, "a"), openLane(t, s, "b")
	r := submit(t, l, pipeline.RunRunning)
	b := parkFor(r, time.Now().Add(time.Hour))
	b.Append = []store.Append{{Run: r.ID, Events: steps(2, 3)}}
	commit(t, l, b)
	commit(t, l, b)
	woken, err := next.ClaimRun(t.Context(), r.ID)
	if err != nil {
		t.Fatal(err)
	}
	woken.Status = pipeline.RunRunning
	commit(t, next, &store.Batch{Finish: []store.Finish{{Run: woken}}})
	send(t, s, r.ID, "m")
	commit(t, l, b)
	if got := read(t, s, r.ID); got.Status != pipeline.RunRunning {
		t.Errorf("a resend made the run %s", got.Status)
	}
	equal(t, "pulse", pulse(t, s, "a"), store.Pulse{})
	if runs := claim(t, l, 10); len(runs) != 0 {
		t.Errorf("a resend queued %v", ids(runs))
	}
}

// waitersOfTheDead ends a replica that has parked one run and owns another that
// waits: only the second is queued again.
func waitersOfTheDead(t *testing.T, h Harness) {
	s := h.Open(t)
	dead := h.Again(t, s)
	l := openLane(t, s, "alive")
	old, err := dead.OpenLane(t.Context(), "dead")
	if err != nil {
		t.Fatal(err)
	}
	parked, owned := submit(t, old, pipeline.RunRunning), submit(t, old, pipeline.RunRunning)
	commit(t, old, parkFor(parked, time.Time{}))
	commit(t, old, parkFor(owned, time.Now().Add(-time.Minute)))
	equal(t, "claimed", ids(claim(t, old, 10)), []pipeline.RunID{owned.ID})
	h.Kill(t, dead)
	eventually(t, "the run of the dead is queued", func() bool {
		n, err := s.Reclaim(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return n == 1
	})
	equal(t, "claimed", ids(claim(t, l, 10)), []pipeline.RunID{owned.ID})
	if got := read(t, s, parked.ID); got.Status != pipeline.RunWaiting {
		t.Errorf("the parked run is %s", got.Status)
	}
	send(t, s, parked.ID, "m")
	equal(t, "claimed", ids(claim(t, l, 10)), []pipeline.RunID{parked.ID})
	commit(t, l, parkFor(parked, time.Time{}))
	if err := l.Release(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := read(t, s, parked.ID); got.Status != pipeline.RunWaiting {
		t.Errorf("after the release of its last lane the parked run is %s", got.Status)
	}
}

// parkAgainstSend lets a run park while a message is sent to it: whichever
// comes first, it is claimed, once.
func parkAgainstSend(t *testing.T, h Harness) {
	s := h.Open(t)
	other := h.Again(t, s)
	l := openLane(t, s, "a")
	r := submit(t, l, pipeline.RunRunning)
	last := store.MessageID("")
	for round := range 100 {
		b := parkFor(r, time.Time{})
		if last != "" {
			b.Consume = []store.MessageID{last}
		}
		last = store.MessageID(fmt.Sprint("m", round))
		var wg sync.WaitGroup
		wg.Go(func() {
			if err := other.Send(t.Context(), r.ID, store.Message{ID: last, Kind: store.MessageSignal}); err != nil {
				t.Errorf("send: %v", err)
			}
		})
		_, err := l.Commit(t.Context(), b)
		wg.Wait()
		if err != nil {
			t.Fatalf("park: %v", err)
		}
		if runs := claim(t, l, 10); len(runs) != 1 {
			t.Fatalf("round %d: %d claims after a message, want 1", round, len(runs))
		}
	}
}

// patiently asks again while the store is busy with others: so many writers at
// once may keep one of them waiting for longer than it waits by itself.
func patiently(f func() error) error {
	for {
		if err := f(); pipeline.KindOf(err) != pipeline.Unavailable {
			return err
		}
	}
}

// NoLostWakeUp lets lanes of two processes claim and park some runs while
// others send to them, and checks that every message is consumed. Nothing else
// wakes the runs.
func NoLostWakeUp(t *testing.T, s, other store.Store) {
	const lanes, runs, senders, each = 3, 4, 3, 25
	stores := []store.Store{s, other}
	setup := openLane(t, s, "setup")
	var all []pipeline.RunID
	b := new(store.Batch)
	for range runs {
		r := newRun(pipeline.RunQueued)
		b.Create = append(b.Create, created(r))
		all = append(all, r.ID)
	}
	commit(t, setup, b)
	var mu sync.Mutex
	consumed := make(map[store.MessageID]int)
	working, stop := context.WithCancel(t.Context())
	var workers, sending sync.WaitGroup
	for i := range lanes {
		st := stores[i%2]
		l := openLane(t, st, store.ReplicaID(fmt.Sprint("lane", i)))
		workers.Go(func() {
			for working.Err() == nil {
				var list []*pipeline.Run
				if err := patiently(func() (err error) { list, err = l.Claim(t.Context(), 2); return err }); err != nil {
					t.Errorf("claim: %v", err)
					return
				}
				for _, r := range list {
					var inbox []store.Message
					if err := patiently(func() (err error) { inbox, err = st.Inbox(t.Context(), []pipeline.RunID{r.ID}); return err }); err != nil {
						t.Errorf("inbox: %v", err)
						return
					}
					b := parkFor(r, time.Time{})
					for _, m := range inbox {
						b.Consume = append(b.Consume, m.ID)
					}
					if err := patiently(func() error { _, err := l.Commit(t.Context(), b); return err }); err != nil {
						t.Errorf("park: %v", err)
						return
					}
					mu.Lock()
					for _, m := range inbox {
						consumed[m.ID]++
					}
					mu.Unlock()
				}
			}
		})
	}
	for i := range senders {
		st := stores[i%2]
		sending.Go(func() {
			for k := range each {
				m := store.Message{ID: store.MessageID(fmt.Sprint(i, "/", k)), Kind: store.MessageSignal}
				run := all[rand.IntN(runs)]
				if err := patiently(func() error { return st.Send(t.Context(), run, m) }); err != nil {
					t.Errorf("send: %v", err)
				}
			}
		})
	}
	sending.Wait()
	eventually(t, "every message is consumed", func() bool {
		mu.Lock()
		defer mu.Unlock()
		return len(consumed) == senders*each
	})
	stop()
	workers.Wait()
	for id, n := range consumed {
		if n != 1 {
			t.Errorf("message %s was consumed %d times", id, n)
		}
	}
}

func children(t *testing.T, h Harness) {
	s := h.Open(t)
	l, next := openLane(t, s, "a"), openLane(t, s, "b")
	parent := submit(t, l, pipeline.RunRunning)
	child := newRun(pipeline.RunQueued)
	child.ParentRun = parent.ID
	b := &store.Batch{
		Create: []store.Create{created(child)},
		Append: []store.Append{{Run: parent.ID, Events: steps(2, 3)}},
		Park:   []store.Park{{Run: waiting(parent)}},
	}
	for range 2 {
		commit(t, l, b)
	}
	runs := claim(t, next, 10)
	equal(t, "claimed", ids(runs), []pipeline.RunID{child.ID})
	if got := read(t, s, child.ID); got.ParentRun != parent.ID {
		t.Errorf("the parent of the child is %q", got.ParentRun)
	}
	child.Status, child.FinishedAt = pipeline.RunCompleted, instant(9)
	commit(t, next, &store.Batch{Finish: []store.Finish{{Run: child}}})
	commit(t, l, b) // in doubt, after the child has ended
	if got := read(t, s, child.ID); got.Status != pipeline.RunCompleted {
		t.Errorf("a resend made the child %s", got.Status)
	}
	if runs := claim(t, next, 10); len(runs) != 0 {
		t.Errorf("a resend queued %v", ids(runs))
	}
}
