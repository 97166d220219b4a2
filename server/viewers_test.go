package server

import (
	"fmt"
	"runtime"
	"sync"
	"testing"

	"github.com/orchestrator-project/orchestrator/pipeline"
)

// A viewer that stalls is not waited for, and nothing piles up for it: what it has
// not taken is read again by number when it goes on.
func TestAStalledViewerHoldsNoMemory(t *testing.T) {
	f := start(t, func(c *Config) { c.Limits.Folded = 1 << 20 })
	id := f.create()
	stalled := f.watch(t.Context(), id, 0)
	stalled.until(1)
	for i := range 20 {
		f.engine.steps(id, 500*i, 500)
		fast := f.watch(t.Context(), id, int32(2+1000*i))
		fast.until(int32(2 + 1000*(i+1)))
	}
	if _, _, bytes := f.srv.hub.sizes(); bytes > 20<<20 { // the view of 10,000 steps, and no log beside it
		t.Errorf("the hub holds %d bytes", bytes)
	}
	f.srv.hub.mu.Lock()
	encoded := f.srv.hub.encoded
	f.srv.hub.mu.Unlock()
	if encoded > 1<<20 {
		t.Errorf("%d bytes of events wait for a viewer that does not read", encoded)
	}
	f.engine.finish(id)
	for stalled.next() != nil { //nolint:revive // until the end
	}
	if stalled.after != 20003 {
		t.Errorf("the stalled viewer came to %d", stalled.after)
	}
}

// 200 viewers, of one run or of a run each, get every event once and in order, and
// cost a few goroutines each, which end with them.
func TestTwoHundredViewers(t *testing.T) {
	const viewers = 200
	for _, runs := range []int{1, viewers} {
		t.Run(fmt.Sprintf("%d runs", runs), func(t *testing.T) {
			f := start(t)
			before := runtime.NumGoroutine()
			ids := make([]pipeline.RunID, runs)
			for i := range ids {
				ids[i] = f.create()
			}
			var all sync.WaitGroup
			for i := range viewers {
				w := f.watch(t.Context(), ids[i%runs], 0)
				w.until(2)
				all.Go(func() {
					for w.next() != nil { //nolint:revive // until the end
					}
					if w.after != 23 {
						t.Errorf("a viewer came to %d", w.after)
					}
				})
			}
			if n := runtime.NumGoroutine() - before; n > 12*viewers {
				t.Errorf("%d goroutines serve %d viewers", n, viewers)
			}
			for n := range 10 {
				for _, id := range ids {
					f.engine.steps(id, n, 1)
				}
			}
			for _, id := range ids {
				f.engine.finish(id)
			}
			all.Wait()
			if _, users, _ := f.srv.hub.sizes(); users > viewers {
				t.Errorf("%d users of %d viewers are left", users, viewers)
			}
		})
	}
}

// BenchmarkViewers measures what an event costs that 200 viewers of a run see.
func BenchmarkViewers(b *testing.B) {
	f := start(b)
	id := f.create()
	const viewers = 200
	var all sync.WaitGroup
	for range viewers {
		w := f.watch(b.Context(), id, 0)
		w.until(2)
		all.Go(func() {
			for w.next() != nil { //nolint:revive // until the end
			}
		})
	}
	b.ResetTimer()
	for i := range b.N {
		f.engine.steps(id, 10*i, 10)
	}
	f.engine.finish(id)
	all.Wait()
	b.StopTimer()
	events := float64(20 * b.N)
	b.ReportMetric(events*viewers/b.Elapsed().Seconds(), "deliveries/s")
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/(events*viewers), "ns/delivery")
}
