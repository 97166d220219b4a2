package postgres_test

import (
	"context"
	"log/slog"
	"testing"

	"github.com/orchestrator-project/orchestrator/pipeline"
	"github.com/orchestrator-project/orchestrator/store"
	"github.com/orchestrator-project/orchestrator/store/postgres"
	"github.com/orchestrator-project/orchestrator/store/storetest"
)

func TestPiecesReachViewersOnOtherReplicas(t *testing.T) {
	address := storetest.Postgres(t)
	open := func() *postgres.Store {
		s, err := postgres.Open(t.Context(), postgres.Config{URL: address, Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		heard, ended := make(chan struct{}, 1), make(chan struct{})
		go func() {
			defer close(ended)
			_ = s.Listen(ctx, func(store.Bell) {
				select {
				case heard <- struct{}{}:
				default:
				}
			})
		}()
		<-heard
		t.Cleanup(func() { cancel(); <-ended; _ = s.Close() })
		return s
	}
	owner, viewers := open(), open()
	run := pipeline.NewRunID()
	got := make(chan store.Shown, 100)
	defer viewers.Look(run, func(p store.Shown) { got <- p })()
	eventually(t, "the owner knows of the viewer", func() bool { return owner.Watched(run) })
	owner.Show(store.Shown{Run: run, Path: "a", Attempt: 1, Delta: pipeline.Delta{Call: 3, Kind: "reasoning", Text: "hm, 'that' is \\ odd"}})
	if p := <-got; p.Delta.Text != "hm, 'that' is \\ odd" || p.Delta.Call != 3 || p.Path != "a" {
		t.Errorf("it saw %+v", p)
	}
	if viewers.Watched(pipeline.NewRunID()) || owner.Deaf() {
		t.Error("another run is watched too, or the owner is deaf")
	}
}
