package postgres_test

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/orchestrator-project/orchestrator/store"
	"github.com/orchestrator-project/orchestrator/store/postgres"
	"github.com/orchestrator-project/orchestrator/store/storetest"
)

// Promise 6: where LISTEN is allowed and no bell comes, a store knows, and still
// tells its own bells; once connected without whatever swallowed them, it hears.
func TestBellsThatDoNotComeAreMissed(t *testing.T) {
	address := storetest.Postgres(t)
	p, through := newProxy(t, address)
	p.mute.Store(true)
	s, err := postgres.Open(t.Context(), postgres.Config{URL: through, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	if s.Deaf() {
		t.Error("deaf before it listens")
	}
	bells := make(chan store.Bell, 100)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { defer close(ended); _ = s.Listen(ctx, func(b store.Bell) { bells <- b }) }()
	t.Cleanup(func() { cancel(); <-ended })
	hear := func(what string, want func(store.Bell) bool) {
		t.Helper()
		late := time.After(2 * time.Minute)
		for {
			select {
			case b := <-bells:
				if want(b) {
					return
				}
			case <-late:
				t.Fatalf("waited too long for %s", what)
			}
		}
	}
	all := func(b store.Bell) bool { return b.All }
	hear("the first bell", all)
	if !s.Deaf() {
		t.Fatal("it believes that it hears")
	}
	s.Ring(store.Bell{Approvals: true})
	hear("its own bell", func(b store.Bell) bool { return b.Approvals })

	other, err := postgres.Open(t.Context(), postgres.Config{URL: address, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = other.Close() })
	p.mute.Store(false)
	p.cut()
	hear("the bell of the new connection", all)
	eventually(t, "it knows that it hears", func() bool { return !s.Deaf() })
	other.Ring(store.Bell{Gates: true})
	hear("the other's bell", func(b store.Bell) bool { return b.Gates })
}
