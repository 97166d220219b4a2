package server

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/orchestrator-project/orchestrator/pipeline"
	orchestratorv1 "github.com/orchestrator-project/orchestrator/proto/orchestrator/v1"
	"github.com/orchestrator-project/orchestrator/store"
)

// log reads a run's whole log through a hub.
func readLog(ctx context.Context, h *hub, id pipeline.RunID, after int32) ([]*orchestratorv1.Event, error) {
	r, err := h.open(ctx, id)
	if err != nil {
		return nil, err
	}
	defer h.release(r)
	var all []*orchestratorv1.Event
	for {
		events, err := r.next(ctx, after, always)
		if err != nil || len(events) == 0 {
			return all, err
		}
		all = append(all, events...)
		after = events[len(events)-1].GetSeq()
	}
}

// A run that was created here may go on elsewhere before anybody looks at it.
func TestAHubReadsWhatOtherProcessesHaveAppended(t *testing.T) {
	f := start(t)
	for name, bell := range map[string]func(pipeline.RunID) store.Bell{
		"named":      func(id pipeline.RunID) store.Bell { return store.Bell{Runs: []pipeline.RunID{id}} },
		"bells lost": func(pipeline.RunID) store.Bell { return store.Bell{All: true} },
	} {
		t.Run(name, func(t *testing.T) {
			id := f.create()
			run, err := f.st.Run(t.Context(), id)
			if err != nil {
				t.Fatal(err)
			}
			var begun []pipeline.Event
			for e, err := range f.st.Events(t.Context(), id, 0) {
				if err != nil {
					t.Fatal(err)
				}
				begun = append(begun, e)
			}
			h := newHub(f.st, f.srv.log, 1<<30, func(*pipeline.Event) {})
			h.bell(store.Bell{Created: []*pipeline.Run{run}, Appended: []store.Append{{Run: id, Events: begun}}})
			f.engine.steps(id, 0, 3)
			h.bell(bell(id))
			r, err := h.open(t.Context(), id)
			if err != nil {
				t.Fatal(err)
			}
			defer h.release(r)
			gen, _ := r.events.state()
			got, err := r.next(t.Context(), 0, gen)
			if err != nil || len(got) != len(begun)+6 {
				t.Errorf("%d events of %d, %v", len(got), len(begun)+6, err)
			}
		})
	}
}

func TestAHubWithoutMemoryTellsTheSameStory(t *testing.T) {
	f := start(t)
	id := f.create()
	// Steps that stay open across segments and cursors, with attempts between.
	var events []pipeline.Event
	for i := range 40 {
		events = append(events, pipeline.Event{
			Type: pipeline.StepStarted, Path: pipeline.Path(fmt.Sprintf("long%d", i)), Attempt: 1,
			Data: pipeline.Data{Kind: pipeline.KindCommand, Parameters: map[string]any{"i": int64(i)}},
		})
	}
	f.engine.add(id, events...)
	f.engine.steps(id, 0, 1200)
	events = nil
	for i := range 40 {
		path := pipeline.Path(fmt.Sprintf("long%d", i))
		events = append(events,
			pipeline.Event{Type: pipeline.StepRetrying, Path: path, Attempt: 1, Data: pipeline.Data{Error: pipeline.Failuref("timeout", "slow")}},
			pipeline.Event{Type: pipeline.StepStarted, Path: path, Attempt: 2})
	}
	f.engine.add(id, events...)
	f.engine.steps(id, 1200, 1200)
	f.engine.finish(id)

	nothing := func(*pipeline.Event) {}
	big := newHub(f.st, f.srv.log, 1<<30, nothing)
	want, err := readLog(t.Context(), big, id, 0)
	if err != nil || len(want) != 2+40+80+4800+1 {
		t.Fatalf("%d events, %v", len(want), err)
	}
	small := newHub(f.st, f.srv.log, 1<<16, nothing)
	user, err := small.open(t.Context(), id) // it stays, so that its segments must be remade
	if err != nil {
		t.Fatal(err)
	}
	same := func(after int32) {
		got, err := readLog(t.Context(), small, id, after)
		if err != nil {
			t.Error(err)
			return
		}
		if len(got) != len(want)-int(after) {
			t.Errorf("after %d: %d events", after, len(got))
			return
		}
		for i := range got {
			if !proto.Equal(got[i], want[int(after)+i]) {
				t.Errorf("event %d: got %v, want %v", i, got[i], want[int(after)+i])
				return
			}
		}
	}
	same(0)
	var wg sync.WaitGroup
	for i := range 2 {
		wg.Go(func() {
			rnd := rand.New(rand.NewPCG(1, uint64(i)))
			for range 2 {
				same(rnd.Int32N(int32(len(want))))
			}
		})
	}
	wg.Wait()
	if _, _, bytes := small.sizes(); bytes > 1<<16+user.bytes {
		t.Errorf("the small hub holds %d bytes, of which views %d", bytes, user.bytes)
	}
	// A reader that walks through history reads it about once, not once a page.
	before := f.st.events.Load()
	same(0)
	if n := f.st.events.Load() - before; n > 6500 {
		t.Errorf("one walk read %d events", n)
	}
	small.release(user)
	if n, users, _ := small.sizes(); n != 1 || users != 0 {
		t.Errorf("with nobody there the small hub holds %d runs and %d users, want only the run used last", n, users)
	}
}

func TestTheHubForgetsTheRunsThatWereUsedLongestAgo(t *testing.T) {
	f := start(t)
	h := newHub(f.st, f.srv.log, 400_000, func(*pipeline.Event) {})
	var ids []pipeline.RunID
	for i := range 5 {
		id := f.create()
		f.engine.steps(id, 0, 60)
		f.engine.finish(id)
		ids = append(ids, id)
		if _, err := readLog(t.Context(), h, id, 0); err != nil {
			t.Fatal(err)
		}
		if _, _, bytes := h.sizes(); bytes > 400_000 {
			t.Errorf("after %d runs it holds %d bytes", i+1, bytes)
		}
	}
	if h.runs[ids[0]] != nil || h.runs[ids[4]] == nil {
		t.Error("not the oldest run was forgotten")
	}
	got, err := readLog(t.Context(), h, ids[0], 0)
	if err != nil || len(got) != 123 {
		t.Errorf("a run that was forgotten: %d events, %v", len(got), err)
	}
}

func TestABrokenLogIsAnErrorNotAGap(t *testing.T) {
	f := start(t)
	id := f.create()
	f.engine.mu.Lock()
	f.engine.seq[id] = 7
	f.engine.mu.Unlock()
	f.engine.steps(id, 0, 1)
	got, err := readLog(t.Context(), f.srv.hub, id, 0)
	if err == nil {
		t.Errorf("%d events without an error", len(got))
	}
}

func TestFoldingStopsWithItsRequest(t *testing.T) {
	f := start(t)
	id := f.create()
	f.engine.steps(id, 0, 100)
	r, err := f.srv.hub.open(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	defer f.srv.hub.release(r)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := r.take(t.Context()); err != nil { // somebody else folds
		t.Fatal(err)
	}
	if _, err := r.next(ctx, 0, always); err == nil {
		t.Error("it waited for another's fold although its caller had left")
	}
	r.give()
	if err := r.catchUp(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestTheHubKeepsNothingOfRunsThatStandInLine(t *testing.T) {
	f := start(t)
	h := newHub(f.st, f.srv.log, 1<<20, func(*pipeline.Event) {})
	for _, status := range []pipeline.RunStatus{pipeline.RunQueued, pipeline.RunRunning} {
		run := &pipeline.Run{ID: pipeline.NewRunID(), Status: status}
		h.bell(store.Bell{Created: []*pipeline.Run{run}, Appended: []store.Append{{Run: run.ID, Events: []pipeline.Event{{Seq: 1, Type: pipeline.RunCreated}}}}})
		if kept := h.fresh.runs[run.ID] != nil; kept != (status == pipeline.RunRunning) {
			t.Errorf("a new run that is %s is kept: %v", status, kept)
		}
	}
}

func BenchmarkFold(b *testing.B) {
	run := &pipeline.Run{ID: pipeline.NewRunID()}
	v := pipeline.NewView(*run)
	seq := int32(0)
	for b.Loop() {
		seq++
		e := pipeline.Event{Seq: seq, Type: pipeline.StepFinished, Path: "loop[1]/work", Attempt: 1, Data: pipeline.Data{
			Status: pipeline.StepCompleted, Output: map[string]any{"text": "0123456789012345678901234567890123456789"},
		}}
		step := v.Apply(&e)
		if _, err := fromEvent(&e, &v.Run, step); err != nil {
			b.Fatal(err)
		}
	}
}
