package postgres_test

import (
	"testing"

	"github.com/orchestrator-project/orchestrator/pipeline"
	"github.com/orchestrator-project/orchestrator/store"
	"github.com/orchestrator-project/orchestrator/store/storetest"
)

// What a commit costs are its statements: those of a small batch are counted, so
// that no later change adds one unseen.
func TestStatementsOfASmallBatch(t *testing.T) {
	p, address := newProxy(t, storetest.Migrated(t))
	s := open(t, address, 0)
	l := lane(t, s, "counted")
	defer func() { _ = l.Release(t.Context()) }()
	commit := func(b *store.Batch) {
		t.Helper()
		if _, err := l.Commit(t.Context(), b); err != nil {
			t.Fatal(err)
		}
	}
	// Other connections of the store send statements, too: the least of several tries
	// is the batch's own.
	least := map[string]int64{}
	counted := func(what string, b *store.Batch) {
		t.Helper()
		before := p.statements.Load()
		commit(b)
		n := p.statements.Load() - before
		if had, ok := least[what]; !ok || n < had {
			least[what] = n
		}
	}
	for range 8 {
		r := runOf(pipeline.RunRunning)
		counted("a new run", &store.Batch{Create: []store.Create{creation(r)}})
		counted("a step", appending(r.ID, 2, 3))
		end := appending(r.ID, 4, 5, 6)
		end.Finish = []store.Finish{{Run: ended(r)}}
		counted("the end of a run", end)
	}
	for what, want := range map[string]int64{"a new run": 2, "a step": 1, "the end of a run": 3} {
		if least[what] != want {
			t.Errorf("%s takes %d statements, want %d", what, least[what], want)
		}
	}
}

// A run that ends with a message which its lane has not heard of leaves none behind,
// whether its batch is small or not.
func TestSmallBatchLeavesNothingBehind(t *testing.T) {
	s := open(t, storetest.Migrated(t), 0)
	l := lane(t, s, "ending")
	defer func() { _ = l.Release(t.Context()) }()
	for range 3 { // the first one finds out, the others know
		r := runOf(pipeline.RunRunning)
		if _, err := l.Commit(t.Context(), &store.Batch{Create: []store.Create{creation(r)}}); err != nil {
			t.Fatal(err)
		}
		if err := s.Send(t.Context(), r.ID, store.Message{Kind: store.MessageCancel}); err != nil {
			t.Fatal(err)
		}
		end := appending(r.ID, 2)
		end.Finish = []store.Finish{{Run: ended(r)}}
		if _, err := l.Commit(t.Context(), end); err != nil {
			t.Fatal(err)
		}
		if got, err := s.Run(t.Context(), r.ID); err != nil || got.Status != pipeline.RunCompleted || count(t, s, r.ID) != 2 {
			t.Errorf("run %+v, %v", got, err)
		}
		if list, err := s.Inbox(t.Context(), []pipeline.RunID{r.ID}); err != nil || len(list) != 0 {
			t.Errorf("%d messages are left, %v", len(list), err)
		}
	}
}

func ended(r *pipeline.Run) *pipeline.Run {
	done := *r
	done.Status, done.FinishedAt = pipeline.RunCompleted, r.CreatedAt
	return &done
}
