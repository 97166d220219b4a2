package main

import (
	"context"
	"log/slog"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

const (
	heapRoom   = 64 << 20 // bytes of garbage that a small heap may gather before it is collected
	leastGC    = 100      // percent of what is in use, Go's own default; for large heaps
	mostGC     = 800
	memoryBeat = 2 * time.Second
	quietBytes = 1 << 20 // allocated within a beat: less is nothing to do
	quietBeats = 3       // with nothing to do, before memory is given back
	worthwhile = 4 << 20 // bytes allocated since memory was last given back
)

// memory tends the memory of a server. A small heap is collected less often than
// Go would: under load that saves a tenth of the processor, and costs tens of
// megabytes. Once the load is over, what it has left behind is given back to the
// system, which an idle process would otherwise not do for minutes.
type memory struct {
	own bool // it decides how often the heap is collected; else GOGC does
	log *slog.Logger
}

// run tends the memory until ctx ends.
func (m memory) run(ctx context.Context) error {
	figures := []metrics.Sample{{Name: "/gc/heap/live:bytes"}, {Name: "/gc/heap/allocs:bytes"}}
	percent := 0
	var before, given uint64 // allocated at the last beat, and when memory was last given back
	quiet := 0
	tick := time.NewTicker(memoryBeat)
	defer tick.Stop()
	for {
		metrics.Read(figures)
		live, allocated := figures[0].Value.Uint64(), figures[1].Value.Uint64()
		if want := gcPercent(live); m.own && (want > percent+percent/4 || want < percent-percent/4) {
			debug.SetGCPercent(want)
			percent = want
		}
		if quiet++; allocated-before > quietBytes {
			quiet = 0
		}
		before = allocated
		if quiet >= quietBeats && allocated-given > worthwhile {
			debug.FreeOSMemory()
			if n, err := releaseProgram(); err != nil {
				m.log.Debug("the program's own pages are kept", "err", err)
			} else {
				m.log.Debug("memory given back", "program", n)
			}
			given = allocated
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// gcPercent is the value of GOGC with which a heap of so many bytes in use has
// room for garbage.
func gcPercent(live uint64) int {
	return int(min(mostGC, max(leastGC, 100*heapRoom/max(live, 1))))
}
