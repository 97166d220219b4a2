package storetest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/orchestrator-project/orchestrator/pipeline"
	"github.com/orchestrator-project/orchestrator/store"
)

// instant is a time that both stores keep exactly.
func instant(i int) time.Time {
	return time.Date(2026, 3, 4, 5, 6, 7, 123456000, time.UTC).Add(time.Duration(i) * time.Millisecond)
}

func newRun(status pipeline.RunStatus) *pipeline.Run {
	return &pipeline.Run{
		ID: pipeline.NewRunID(), Pipeline: "demo", Version: "1", PlanDigest: "sha256:0", Status: status,
		Inputs: map[string]any{"n": int64(1)}, CreatedAt: instant(0),
	}
}

func created(r *pipeline.Run) store.Create {
	return store.Create{Run: r, Events: []pipeline.Event{{Seq: 1, Type: pipeline.RunCreated, At: instant(1)}}}
}

// step is the event at seq: odd ones start a step, even ones finish it.
func step(seq int32) pipeline.Event {
	e := pipeline.Event{Seq: seq, Path: pipeline.Path(fmt.Sprintf("loop[%d]/work", seq/2)), Attempt: 1, At: instant(int(seq))}
	if seq%2 == 1 {
		e.Type, e.Data = pipeline.StepFinished, pipeline.Data{Status: pipeline.StepCompleted, Output: map[string]any{"text": "done", "n": int64(seq)}}
	} else {
		e.Type, e.Data = pipeline.StepStarted, pipeline.Data{Kind: pipeline.KindAction, Action: "http", Parameters: map[string]any{"url": "http://example.com"}}
	}
	return e
}

func steps(from, to int32) []pipeline.Event {
	var list []pipeline.Event
	for seq := from; seq <= to; seq++ {
		list = append(list, step(seq))
	}
	return list
}

// openLane opens a lane that is kept alive, and released at the end of the test.
func openLane(t testing.TB, s store.Store, replica store.ReplicaID) store.Lane {
	t.Helper()
	l, err := s.OpenLane(t.Context(), replica)
	if err != nil {
		t.Fatalf("open a lane: %v", err)
	}
	beating, stop := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		for beating.Err() == nil {
			select {
			case <-beating.Done():
			case <-time.After(2 * time.Second):
				_, _ = s.Heartbeat(beating, replica) // the test looks at its own
			}
		}
	})
	t.Cleanup(func() {
		stop()
		wg.Wait()
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		_ = l.Release(ctx) // the test may have killed it
	})
	return l
}

func commit(t testing.TB, l store.Lane, b *store.Batch) store.Result {
	t.Helper()
	res, err := l.Commit(t.Context(), b)
	if err != nil {
		t.Fatalf("commit: %v", err)
	}
	return res
}

func submit(t testing.TB, l store.Lane, status pipeline.RunStatus) *pipeline.Run {
	t.Helper()
	r := newRun(status)
	commit(t, l, &store.Batch{Create: []store.Create{created(r)}})
	return r
}

func read(t testing.TB, s store.Store, id pipeline.RunID) *pipeline.Run {
	t.Helper()
	r, err := s.Run(t.Context(), id)
	if err != nil {
		t.Fatalf("read run: %v", err)
	}
	return r
}

func events(t testing.TB, s store.Store, id pipeline.RunID, after int32) []pipeline.Event {
	t.Helper()
	var list []pipeline.Event
	for e, err := range s.Events(t.Context(), id, after) {
		if err != nil {
			t.Fatalf("read events: %v", err)
		}
		list = append(list, e)
	}
	return list
}

func equal(t testing.TB, what string, got, want any) {
	t.Helper()
	if d := cmp.Diff(want, got, cmpopts.EquateEmpty()); d != "" {
		t.Errorf("%s differs (-want +got):\n%s", what, d)
	}
}

func ids(runs []*pipeline.Run) []pipeline.RunID {
	var list []pipeline.RunID
	for _, r := range runs {
		list = append(list, r.ID)
	}
	return list
}

func wantKind(t testing.TB, err error, kind pipeline.ErrorKind) {
	t.Helper()
	var e *pipeline.Error
	if !errors.As(err, &e) || e.Kind != kind {
		t.Errorf("error is %v, want kind %d", err, kind)
	} else if e.Text == "" || e.Reason == "" {
		t.Errorf("error %#v lacks words for the caller", e)
	}
}

// eventually waits for what another process does. Two minutes are long enough
// for a lane of a database that has just started, which is spared for one TTL.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(2 * time.Minute); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if ok() {
			return
		}
	}
	t.Fatalf("did not happen within 2 minutes: %s", what)
}
