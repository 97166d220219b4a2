package store_test

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/orchestrator-project/orchestrator/pipeline"
	"github.com/orchestrator-project/orchestrator/store"
)

func TestBellsSurviveTheWay(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		ids := func(name string) []pipeline.RunID {
			var list []pipeline.RunID
			for range rapid.IntRange(0, 200).Draw(t, name) {
				list = append(list, pipeline.NewRunID())
			}
			return list
		}
		b := store.Bell{
			Runs: ids("runs"), Logs: ids("logs"), Inbox: ids("inbox"),
			Queued: rapid.Bool().Draw(t, "queued"), All: rapid.Bool().Draw(t, "all"), Approvals: rapid.Bool().Draw(t, "approvals"),
		}
		text := store.EncodeBell(b)
		if len(text) >= 7900 {
			t.Fatalf("%d bytes", len(text))
		}
		got := store.DecodeBell(text)
		if got.Queued != b.Queued || got.Approvals != b.Approvals || b.All && !got.All {
			t.Fatalf("%+v became %+v", b, got)
		}
		if !got.All && !(slices.Equal(got.Runs, b.Runs) && slices.Equal(got.Logs, b.Logs) && slices.Equal(got.Inbox, b.Inbox)) {
			t.Fatalf("%+v became %+v", b, got)
		}
	})
}

func TestUnknownBellSaysAll(t *testing.T) {
	for _, text := range []string{"q.x", ".r123", ".z0123456789012345678901", ".r!!!!!!!!!!!!!!!!!!!!!!"} {
		if b := store.DecodeBell(text); !b.All {
			t.Errorf("%q became %+v", text, b)
		}
	}
}

func TestBusGathersAndSendsAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var bus store.Bus
		var mu sync.Mutex
		var list []store.Bell
		fail := false
		sent := func() []store.Bell {
			mu.Lock()
			defer mu.Unlock()
			all := list
			list = nil
			return all
		}
		away := func(b bool) {
			mu.Lock()
			defer mu.Unlock()
			fail = b
		}
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() {
			bus.Run(ctx, 10*time.Millisecond, func(_ context.Context, b store.Bell) error {
				mu.Lock()
				defer mu.Unlock()
				list = append(list, b)
				if fail {
					return errors.New("away")
				}
				return nil
			})
		})
		for range 50 {
			bus.Ring(store.Bell{Runs: []pipeline.RunID{pipeline.NewRunID()}})
			time.Sleep(100 * time.Microsecond)
		}
		time.Sleep(20 * time.Millisecond)
		synctest.Wait()
		if got := sent(); len(got) != 1 || len(got[0].Runs) != 50 {
			t.Fatalf("%d bells sent for 50 rung in 5 ms", len(got))
		}
		away(true)
		bus.Ring(store.Bell{Queued: true})
		time.Sleep(500 * time.Millisecond)
		synctest.Wait()
		away(false)
		time.Sleep(time.Second)
		synctest.Wait()
		if got := sent(); len(got) != 2 || !got[1].All {
			t.Fatalf("sent %+v, want the lost bell again as one that says all", got)
		}
		bus.Ring(store.Bell{Queued: true})
		cancel()
		wg.Wait()
		if got := sent(); len(got) != 1 || !got[0].Queued {
			t.Fatalf("sent %+v at the end", got)
		}
	})
}
