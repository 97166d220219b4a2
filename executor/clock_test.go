package executor

import (
	"testing"
	"time"
)

func TestStoreClock(t *testing.T) {
	at := time.Date(2026, 3, 29, 0, 30, 0, 0, time.UTC)
	var c storeClock
	for _, x := range []struct {
		name               string
		now, before, after time.Duration // from at
		want               time.Duration // that the store is ahead
	}{
		{"equal clocks stay equal, however long the answer took", 0, -time.Millisecond, 3 * time.Second, 0},
		{"an hour ahead", time.Hour, 0, time.Second, time.Hour - time.Second},
		{"no more is known", time.Hour, 0, 2 * time.Second, time.Hour - time.Second},
		{"a faster answer", time.Hour, 0, time.Millisecond, time.Hour - time.Millisecond},
		{"set back", -time.Minute, 0, 0, -time.Minute},
	} {
		c.heard(at.Add(x.now), at.Add(x.before), at.Add(x.after))
		if got := c.theirs(at).Sub(at); got != x.want {
			t.Errorf("%s: the store is ahead by %s, want %s", x.name, got, x.want)
		}
		if got := c.ours(c.theirs(at)); !got.Equal(at) {
			t.Errorf("%s: there and back is %s", x.name, got)
		}
	}
	c.heard(time.Time{}, at, at)
	if got := c.theirs(at).Sub(at); got != -time.Minute {
		t.Errorf("a store without a clock of its own changes what is known to %s", got)
	}
	if !c.theirs(time.Time{}).IsZero() || !c.ours(time.Time{}).IsZero() {
		t.Error("never has become a time")
	}
}

// A process whose clock is ahead does not beat all the time around each timer.
func TestAlarmOfAClockThatIsAhead(t *testing.T) {
	now := time.Date(2026, 3, 29, 0, 30, 0, 0, time.UTC)
	a := &alarm{now: func() time.Time { return now }, most: time.Second, rung: make(chan struct{}, 1)}
	due := now.Add(time.Minute)
	now = due
	for i, want := range []time.Duration{100 * time.Millisecond, 200 * time.Millisecond, 400 * time.Millisecond, 800 * time.Millisecond, time.Second, time.Second} {
		if got := a.wait(due); got != want {
			t.Errorf("look %d comes after %s, want %s", i+1, got, want)
		}
		now = now.Add(want)
	}
	if got := a.wait(now.Add(time.Hour)); got != time.Hour {
		t.Errorf("a time to come is waited for %s", got)
	}
	if got := a.wait(now); got != clockGap {
		t.Errorf("the next timer begins with %s", got)
	}
}
