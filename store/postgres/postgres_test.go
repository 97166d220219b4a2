package postgres_test

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/orchestrator-project/orchestrator/store"
	"github.com/orchestrator-project/orchestrator/store/postgres"
	"github.com/orchestrator-project/orchestrator/store/storetest"
)

func TestMain(m *testing.M) {
	storetest.Child(func(place string) (store.Store, error) {
		return postgres.Open(context.Background(), postgres.Config{URL: place})
	})
	// The first test process starts the server that all of them share.
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("github.com/orchestrator-project/orchestrator/store/storetest.(*Cluster).run.func1"))
}

func open(t testing.TB, url string, ttl time.Duration) *postgres.Store {
	t.Helper()
	s, err := postgres.Open(context.Background(), postgres.Config{URL: url, LeaseTTL: ttl, PoolSize: 4, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatalf("open: %v", err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return s
}

func TestStore(t *testing.T) {
	const ttl = 15 * time.Second
	storetest.Run(t, storetest.Harness{
		Open:  func(t testing.TB) store.Store { return open(t, storetest.Migrated(t), ttl) },
		Again: func(t testing.TB, s store.Store) store.Store { return open(t, s.(*postgres.Store).URL(), ttl) },
		Kill:  func(_ testing.TB, s store.Store) { s.(*postgres.Store).Abandon() },
	})
}
