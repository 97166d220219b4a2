package executor_test

import (
	"context"
	"sync/atomic"
	"testing"

	"github.com/orchestrator-project/orchestrator/executor"
	"github.com/orchestrator-project/orchestrator/pipeline"
	"github.com/orchestrator-project/orchestrator/store"
	"github.com/orchestrator-project/orchestrator/store/storetest"
)

// unrung is a store whose bells of messages are lost, as those of a process that
// dies between a message and its bell. It counts what is asked of it.
type unrung struct {
	store.Store
	inboxes, heartbeats atomic.Int64
}

func (u *unrung) Listen(ctx context.Context, f func(store.Bell)) error {
	return u.Store.Listen(ctx, func(b store.Bell) {
		b.Inbox = nil
		if !b.All {
			f(b)
		}
	})
}

func (u *unrung) Inbox(ctx context.Context, runs []pipeline.RunID) ([]store.Message, error) {
	u.inboxes.Add(1)
	return u.Store.Inbox(ctx, runs)
}

func (u *unrung) Heartbeat(ctx context.Context, r store.ReplicaID) (store.Pulse, error) {
	u.heartbeats.Add(1)
	return u.Store.Heartbeat(ctx, r)
}

// A message whose bell is lost is heard with the next heartbeat, by a run in
// memory and by one that a Selective executor has parked.
func TestAMessageWithoutABellIsHeard(t *testing.T) {
	for name, open := range stores {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			running := make(chan struct{}, 1)
			hang := func(ctx context.Context, _ executor.Env, _ string) (any, error) {
				running <- struct{}{}
				<-ctx.Done()
				return nil, ctx.Err()
			}
			e := start(t, &unrung{Store: open(t)}, hang, func(c *executor.Config) { c.Selective = true })
			busy := e.submit("steps:\n- {id: a, action: probe, with: {do: hang}}", nil)
			<-running
			e.send(busy, store.MessageCancel, "")
			if run, _ := e.wait(busy); run.Status != pipeline.RunCancelled {
				t.Errorf("%s %v", run.Status, run.Error)
			}
			parked := e.submit("steps:\n- {id: w, wait: {signal: go}}", nil)
			e.status(parked, pipeline.RunWaiting)
			e.signal(parked, "go", nil)
			if run, _ := e.wait(parked); run.Status != pipeline.RunCompleted {
				t.Errorf("%s %v", run.Status, run.Error)
			}
		})
	}
}

// An executor without runs reads no inboxes.
func TestAnIdleExecutorReadsNoInbox(t *testing.T) {
	u := &unrung{Store: storetest.Open(t)}
	e := start(t, u, troubled)
	id := e.submit("steps:\n- {id: w, wait: {signal: go}}", nil)
	e.status(id, pipeline.RunWaiting)
	e.await("a heartbeat after the parking", beats(u, 1))
	before := u.inboxes.Load()
	e.await("heartbeats", beats(u, 4))
	if n := u.inboxes.Load() - before; n > 0 {
		t.Errorf("%d inboxes were read", n)
	}
}

// beats reports whether there have been so many heartbeats since now.
func beats(u *unrung, n int64) func() bool {
	before := u.heartbeats.Load()
	return func() bool { return u.heartbeats.Load() >= before+n }
}
