package executor

import (
	"sync/atomic"
	"time"
)

// storeClock is how far the store's clock is from ours, as heartbeats tell.
//
// The time of a wait is decided by the clock of the process that owns the run.
// The row of a parked run has the same moment by the store's clock: so the run is
// woken when its time has come for the process that has parked it, however wrong
// the clock of that one is, and each process rings its alarm when the store says
// that the time has come. A process whose clock is behind that of the one which
// has parked the run waits for the difference.
type storeClock struct{ ahead atomic.Int64 } // nanoseconds

// heard learns what the store's clock was at some moment between two of ours. What
// is known already stands as far as that allows, so that the time which the answer
// took counts for nothing.
func (c *storeClock) heard(now, before, after time.Time) {
	if now.IsZero() {
		return
	}
	least, most := int64(now.Sub(after)), int64(now.Sub(before))
	c.ahead.Store(min(max(c.ahead.Load(), least), most))
}

// theirs is a time of ours by the store's clock; zero stays zero.
func (c *storeClock) theirs(t time.Time) time.Time { return shifted(t, c.ahead.Load()) }

// ours is a time of the store by our clock; zero stays zero.
func (c *storeClock) ours(t time.Time) time.Time { return shifted(t, -c.ahead.Load()) }

func shifted(t time.Time, by int64) time.Time {
	if t.IsZero() {
		return t
	}
	return t.Add(time.Duration(by))
}
