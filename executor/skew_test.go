package executor_test

import (
	"context"
	"testing"
	"time"

	"github.com/orchestrator-project/orchestrator/executor"
	"github.com/orchestrator-project/orchestrator/pipeline"
	"github.com/orchestrator-project/orchestrator/store"
)

// dueIn is how long it takes, by the store's clock, until a parked run is woken.
func (e *engine) dueIn(id pipeline.RunID) time.Duration {
	e.t.Helper()
	e.status(id, pipeline.RunWaiting)
	var st *store.Standing
	e.await("the run to have no owner", func() bool {
		var err error
		if st, err = e.store.Standing(context.Background(), id); err != nil {
			e.t.Fatal(err)
		}
		return st.Replica == "" && !st.Due.IsZero()
	})
	return time.Until(st.Due)
}

// A replica whose clock is wrong parks a run for as long as it is to wait, by any clock.
func TestWrongClockParksForTheRightTime(t *testing.T) {
	for kind, open := range stores {
		for name, off := range map[string]time.Duration{"ahead": 3 * time.Hour, "behind": -3 * time.Hour} {
			t.Run(kind+", "+name, func(t *testing.T) {
				t.Parallel()
				e := start(t, open(t), nil, func(c *executor.Config) { c.Now = func() time.Time { return time.Now().Add(off) } })
				id := e.submit("steps:\n- {id: w, wait: {for: 1h}}", nil)
				if in := e.dueIn(id); in < 59*time.Minute || in > 61*time.Minute {
					t.Errorf("it is woken in %s, want an hour", in)
				}
			})
		}
	}
}

// A moment is the same one however the clocks of people are set before it comes:
// in Berlin the day from noon to noon over the last Sunday of March has 23 hours.
func TestWaitOverAChangeOfTheClocks(t *testing.T) {
	berlin, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Skip("no time zones here:", err)
	}
	off := time.Until(time.Date(2026, 3, 28, 12, 0, 0, 0, berlin))
	e := start(t, stores["sqlite"](t), nil, func(c *executor.Config) {
		c.Now = func() time.Time { return time.Now().Add(off).In(berlin) }
	})
	for text, want := range map[string]time.Duration{
		"until: '2026-03-29T12:00:00+02:00'": 23 * time.Hour,
		"until: '2026-03-29T10:00:00Z'":      23 * time.Hour,
		"until: '2026-03-29T12:00:00+01:00'": 24 * time.Hour,
		"for: 24h":                           24 * time.Hour,
	} {
		if in := e.dueIn(e.submit("steps:\n- {id: w, wait: {"+text+"}}", nil)); in < want-time.Minute || in > want+time.Minute {
			t.Errorf("%s: it is woken in %s, want %s", text, in, want)
		}
	}
}
