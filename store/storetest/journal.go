package storetest

import (
	"strings"
	"testing"

	"github.com/orchestrator-project/orchestrator/pipeline"
	"github.com/orchestrator-project/orchestrator/store"
)

// stepEvents reads the events of single steps out of a run's.
func stepEvents(t *testing.T, h Harness) {
	s := h.Open(t)
	l := openLane(t, s, "a")
	r := submit(t, l, pipeline.RunRunning)
	paths := []pipeline.Path{"a", "b", "a/b", "A", "", "l[10]/a"}
	const n = 2500 // more than one read gives
	var events []pipeline.Event
	for seq := int32(2); seq <= n; seq++ {
		e := step(seq)
		e.Path = paths[int(seq)%len(paths)]
		if seq%500 == 0 {
			e.Data.Output = strings.Repeat("large ", 2000)
		}
		events = append(events, e)
	}
	commit(t, l, &store.Batch{Append: []store.Append{{Run: r.ID, Events: events}}})
	for _, path := range append(paths, "nobody") {
		for _, after := range []int32{0, 1000, n} {
			var want []int32
			for i := range events {
				if events[i].Path == path && events[i].Seq > after {
					want = append(want, events[i].Seq)
				}
			}
			for e, err := range s.StepEvents(t.Context(), r.ID, path, after) {
				if err != nil {
					t.Fatal(err)
				}
				if path == "" && e.Seq == 1 { // of the run itself: how it was created
					continue
				}
				if len(want) == 0 || e.Seq != want[0] || e.Path != path {
					t.Fatalf("event %d at %q; want %v at %q", e.Seq, e.Path, want[:min(1, len(want))], path)
				}
				if text, _ := e.Data.Output.(string); e.Seq%500 == 0 && len(text) != 12000 {
					t.Errorf("the body of event %d has %d bytes", e.Seq, len(text))
				}
				want = want[1:]
			}
			if len(want) > 0 {
				t.Errorf("%d events at %q after %d are missing", len(want), path, after)
			}
		}
	}
}
