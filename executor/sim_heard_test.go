package executor_test

import (
	"slices"
	"time"

	"github.com/orchestrator-project/orchestrator/pipeline"
	"github.com/orchestrator-project/orchestrator/store"
)

// hearing is how long a message may stay unheard where nothing is wrong: a
// heartbeat, and what it takes to claim, to read and to record.
const hearing = 4 * time.Second

// mustBeHeard demands that a message has its effect within a heartbeat, whatever
// has become of its bell, of an owner that is well. Where nobody is, the time
// begins anew. The caller holds db.mu.
func (w *simWorld) mustBeHeard(r *simRow, m store.Message) {
	switch m.Kind {
	case store.MessageCancel, store.MessageSignal, store.MessageDecision, store.MessagePause, store.MessageResume:
	default:
		return // a report stays until its step has ended
	}
	since := time.Now()
	w.later(hearing, func() {
		w.db.mu.Lock()
		defer w.db.mu.Unlock()
		stands := slices.ContainsFunc(r.inbox, func(o store.Message) bool { return o.ID == m.ID })
		if !stands || r.paused() && !store.WakesPaused(m.Kind) {
			return
		}
		if !w.heedful(r, since) {
			w.mustBeHeard(r, m)
			return
		}
		w.violation("timeliness: run %d has not heard a %s for %s\n%s", r.number, m.Kind, time.Since(since), w.why(r))
	})
}

// heedful reports whether somebody was there to hear what was said to a run: one
// owner who has had it since then, or any process for a run that is parked.
func (w *simWorld) heedful(r *simRow, since time.Time) bool {
	if r.epoch == 0 {
		return w.weather.memory >= 100 && r.freed.Before(since) && slices.ContainsFunc(w.procs, func(p *simProc) bool { return p.claims(since) })
	}
	return r.taken.Before(since) && slices.ContainsFunc(w.procs, func(p *simProc) bool {
		return p.well(since) && slices.Contains(p.client.open, r.epoch)
	})
}

// paused reports whether the run waits for somebody to resume it, by its log.
func (r *simRow) paused() bool {
	for _, rec := range slices.Backward(r.log) {
		d, err := pipeline.DecodeData(rec.body)
		switch rec.event.Type {
		case pipeline.RunIsPaused:
			return true
		case pipeline.RunResumed:
			if err == nil && d.Reason == pipeline.ReasonUnpaused {
				return false
			}
		case pipeline.SignalReceived:
			if err == nil && d.Signal == pipeline.SignalCancel {
				return false
			}
		}
	}
	return false
}

// found is what of an inbox is found.
func (f *simFlaws) found(inbox []store.Message) []store.Message {
	if !f.findsLate {
		return inbox
	}
	var list []store.Message
	for _, m := range inbox {
		if time.Since(m.At) > 2*hearing {
			list = append(list, m)
		}
	}
	return list
}
