package storetest

import (
	"errors"
	"sync"
	"testing"

	"github.com/orchestrator-project/orchestrator/pipeline"
	"github.com/orchestrator-project/orchestrator/store"
)

// keyedMessages holds that a message with a key is left for its run once, also where
// the first has long been read, and where many send it at once.
func keyedMessages(t *testing.T, h Harness) {
	s := h.Open(t)
	other := h.Again(t, s)
	l := openLane(t, s, "a")
	r, twin := submit(t, l, pipeline.RunRunning), submit(t, l, pipeline.RunRunning)
	m := store.Message{Kind: store.MessageSignal, Body: []byte(`{"name":"go"}`), Key: "k"}

	if sent, err := s.Sent(t.Context(), r.ID, m); sent || err != nil {
		t.Fatalf("sent before it was: %v, %v", sent, err)
	}
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			if err := []store.Store{s, other}[i%2].Send(t.Context(), r.ID, m); err != nil {
				t.Errorf("send: %v", err)
			}
		})
	}
	wg.Wait()
	list := inbox(t, s, r.ID)
	if len(list) != 1 || string(list[0].Body) != string(m.Body) {
		t.Fatalf("the inbox holds %v", list)
	}
	commit(t, l, &store.Batch{Append: []store.Append{{Run: r.ID, Events: steps(2, 2)}}, Consume: []store.MessageID{list[0].ID}})
	if err := other.Send(t.Context(), r.ID, m); err != nil {
		t.Errorf("again, once it was read: %v", err)
	}
	if list := inbox(t, s, r.ID); len(list) != 0 {
		t.Errorf("it was left again: %v", list)
	}

	reused := func(m store.Message) {
		t.Helper()
		if err := s.Send(t.Context(), r.ID, m); pipeline.KindOf(err) != pipeline.Conflict || reasonOf(err) != "idempotency_key_reused" {
			t.Errorf("the key for another message: %v", err)
		}
		if _, err := s.Sent(t.Context(), r.ID, m); reasonOf(err) != "idempotency_key_reused" {
			t.Errorf("asked for another message of the key: %v", err)
		}
	}
	reused(store.Message{Kind: store.MessageSignal, Body: []byte(`{"name":"stop"}`), Key: "k"})
	reused(store.Message{Kind: store.MessageSteer, Body: m.Body, Key: "k"})

	m2 := m
	m2.Key = "k2"
	for _, x := range []struct {
		run pipeline.RunID
		m   store.Message
	}{{r.ID, m2}, {twin.ID, m}} { // another key, and the key for another run
		if err := s.Send(t.Context(), x.run, x.m); err != nil || len(inbox(t, s, x.run)) != 1 {
			t.Errorf("sent to %s by %s: %v, %v", x.run, x.m.Key, err, inbox(t, s, x.run))
		}
	}

	r.Status = pipeline.RunCompleted
	commit(t, l, &store.Batch{
		Append: []store.Append{{Run: r.ID, Events: []pipeline.Event{{Seq: 3, Type: pipeline.RunFinished, At: instant(7)}}}},
		Finish: []store.Finish{{Run: r}},
	})
	if err := s.Send(t.Context(), r.ID, m); err != nil {
		t.Errorf("again, once the run has finished: %v", err)
	}
	if sent, err := other.Sent(t.Context(), r.ID, m); !sent || err != nil {
		t.Errorf("sent: %v, %v", sent, err)
	}
	m.Key = "late"
	if err := s.Send(t.Context(), r.ID, m); reasonOf(err) != "run_finished" {
		t.Errorf("a new one to a finished run: %v", err)
	}
	if sent, err := s.Sent(t.Context(), r.ID, m); sent || err != nil {
		t.Errorf("what was refused counts as sent: %v, %v", sent, err)
	}
}

func inbox(t testing.TB, s store.Store, run pipeline.RunID) []store.Message {
	t.Helper()
	list, err := s.Inbox(t.Context(), []pipeline.RunID{run})
	if err != nil {
		t.Fatalf("inbox: %v", err)
	}
	return list
}

func reasonOf(err error) string {
	if e, ok := errors.AsType[*pipeline.Error](err); ok {
		return e.Reason
	}
	return ""
}
