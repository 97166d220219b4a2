package executor

import (
	"context"
	"time"

	"github.com/orchestrator-project/orchestrator/pipeline"
	"github.com/orchestrator-project/orchestrator/store"
)

// beatAgain is how long to wait at most after a heartbeat that failed.
const beatAgain = 500 * time.Millisecond

// renew sends a heartbeat. The leases are good for one TTL after it was sent, by
// this process's monotonic clock. Lanes that had begun nothing for want of one go
// on.
func (e *Executor) renew(ctx context.Context) (store.Pulse, error) {
	sent, before := time.Since(e.start), e.cfg.Now()
	p, err := e.cfg.Store.Heartbeat(ctx, e.cfg.Replica)
	if err != nil {
		return p, err
	}
	e.clock.heard(p.Now, before, e.cfg.Now())
	for {
		old := e.beat.Load()
		if old >= int64(sent) || e.beat.CompareAndSwap(old, int64(sent)) {
			break
		}
	}
	e.each(func(l *lane) {
		if l.held.CompareAndSwap(true, false) {
			l.post(l.goOn)
		}
	})
	return p, nil
}

// silent is for how long no heartbeat of the lane has been acknowledged.
func (l *lane) silent() time.Duration {
	return time.Since(l.ex.start) - max(l.opened, time.Duration(l.ex.beat.Load()))
}

// quiet reports whether the lane begins nothing new: its lease may soon be
// somebody else's to end.
func (l *lane) quiet() bool {
	if l.silent() < l.ex.cfg.TTL*6/10 {
		return false
	}
	l.held.Store(true)
	return l.silent() >= l.ex.cfg.TTL*6/10 // a heartbeat that came meanwhile may not have seen it
}

// goOn lets the runs begin what they have kept.
func (l *lane) goOn() {
	for _, r := range l.runs {
		r.do(r.ask)
	}
}

// mute is why the lane may not write: its lease may have expired.
func (l *lane) mute() error {
	if l.silent() < l.ex.cfg.TTL {
		return nil
	}
	return &pipeline.Error{Kind: pipeline.Unavailable, Reason: "no_heartbeat", Text: "the database has not acknowledged a heartbeat within the time of the lease"}
}

// putBlob keeps content with a run. A store that is away is waited for: the step
// that has made the content need not be repeated.
func (e *Executor) putBlob(ctx context.Context, run pipeline.RunID, data []byte) (pipeline.Digest, error) {
	begun, wait := time.Now(), 50*time.Millisecond
	for {
		d, err := e.cfg.Store.PutBlob(ctx, run, data)
		if pipeline.KindOf(err) != pipeline.Unavailable || time.Since(begun) > e.cfg.AdoptionGrace {
			return d, err
		}
		select {
		case <-ctx.Done():
			return d, err
		case <-time.After(wait):
		}
		wait = min(2*wait, 3*time.Second)
	}
}
