package store_test

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/orchestrator-project/orchestrator/pipeline"
	"github.com/orchestrator-project/orchestrator/store"
)

// two stages that hear each other's notes.
func stages(t *testing.T) (a, b *store.Stage, notes *atomic.Int64) {
	t.Helper()
	a, b, notes = &store.Stage{}, &store.Stage{}, new(atomic.Int64)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{}, 2)
	join := func(from, to *store.Stage) {
		go func() {
			from.Run(ctx, func(_ context.Context, note string) error {
				if len(note) >= 8000-20 {
					t.Errorf("a note of %d bytes", len(note))
				}
				notes.Add(1)
				to.Hear(note)
				return nil
			})
			done <- struct{}{}
		}()
	}
	join(a, b)
	join(b, a)
	t.Cleanup(func() { cancel(); <-done; <-done })
	return a, b, notes
}

func TestPiecesReachViewersInOtherProcesses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b, notes := stages(t)
		synctest.Wait()
		run := pipeline.NewRunID()
		show := func(text string) {
			a.Show(store.Shown{Run: run, Path: "x[3]/y", Attempt: 2, Delta: pipeline.Delta{Call: 7, Agent: "writer", Kind: "text", Text: text}})
		}
		show("nobody looks")
		time.Sleep(time.Minute)
		if notes.Load() != 0 {
			t.Errorf("%d notes were sent while nobody looked", notes.Load())
		}

		var got strings.Builder
		var last store.Shown
		leave := b.Look(run, func(p store.Shown) { got.WriteString(p.Delta.Text); last = p })
		time.Sleep(100 * time.Millisecond)
		if !a.Watched(run) {
			t.Fatal("the other process does not know that somebody looks")
		}
		long := strings.Repeat("Grüße\x01\"<&>\n", 2000)
		show("first ")
		show(long)
		time.Sleep(100 * time.Millisecond)
		synctest.Wait()
		if want := "first " + long; got.String() != want {
			t.Errorf("%d bytes came of %d", got.Len(), len(want))
		}
		if last.Path != "x[3]/y" || last.Attempt != 2 || last.Delta.Call != 7 || last.Delta.Agent != "writer" {
			t.Errorf("a piece lost what it is of: %+v", last)
		}
		time.Sleep(time.Minute)
		if !a.Watched(run) {
			t.Error("a viewer that stays is forgotten")
		}
		before := notes.Load()
		time.Sleep(time.Minute)
		if sent := notes.Load() - before; sent > 12 {
			t.Errorf("%d notes a minute for one viewer of a quiet run", sent)
		}
		leave()
		time.Sleep(time.Minute)
		before = notes.Load()
		show("late")
		time.Sleep(time.Minute)
		if a.Watched(run) || notes.Load() != before {
			t.Error("a viewer that has left is still shown something")
		}
	})
}

func TestANoteThatIsNotUnderstoodSaysNothing(t *testing.T) {
	var s store.Stage
	for _, note := range []string{"", "x", "[]", `{"watch":7}`, `{"shown":[{"Run":[]}]}`, "{" + strings.Repeat(" ", 9000)} {
		s.Hear(note)
	}
	if s.Watched("x") {
		t.Error("something was understood")
	}
}
