// Package rate keeps the rates that services allow to a key: requests and tokens a
// minute, as models.yaml says. Models that are asked with one key share its rate, and
// so do replicas, through the store. Each takes
// a second's worth of turns at a time, and hands them out in memory, so that no row
// is written for each call.
package rate

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/orchestrator-project/orchestrator/executor/model"
	"github.com/orchestrator-project/orchestrator/pipeline"
	"github.com/orchestrator-project/orchestrator/store"
)

// Store keeps the rates that replicas share: store.Budgets.TakeRate.
type Store interface {
	TakeRate(ctx context.Context, key string, r store.Rate, n int64, most time.Duration) (wait time.Duration, taken bool, err error)
}

// Limiter implements model.Limiter. It is safe for concurrent use.
type Limiter struct {
	store Store

	mu      sync.Mutex
	buckets map[string]*bucket
}

var _ model.Limiter = (*Limiter)(nil)

const (
	// longest is how long a call may be kept waiting for its turn.
	longest = 10 * time.Minute
	// burst is for how long an account may have been idle to make up for it.
	burst = 5 * time.Second
	// portion is for how long a replica takes turns ahead.
	portion = time.Second
)

// New returns a Limiter that shares what it takes through the store.
func New(st Store) *Limiter { return &Limiter{store: st, buckets: map[string]*bucket{}} }

// Wait implements model.Limiter.
func (l *Limiter) Wait(ctx context.Context, account string, limits model.Limits, tokens int64) error {
	for _, b := range []struct {
		what      string
		perMinute int64
		n         int64
	}{{"requests", limits.RequestsPerMinute, 1}, {"tokens", limits.TokensPerMinute, tokens}} {
		if b.perMinute <= 0 || b.n <= 0 {
			continue
		}
		at, err := l.bucket(account+" "+b.what).take(ctx, l.store, b.perMinute, b.n)
		if err != nil {
			return err
		}
		if err := until(ctx, at); err != nil {
			return err
		}
	}
	return nil
}

func (l *Limiter) bucket(name string) *bucket {
	l.mu.Lock()
	defer l.mu.Unlock()
	b := l.buckets[name]
	if b == nil {
		b = &bucket{name: name, turn: make(chan struct{}, 1)}
		l.buckets[name] = b
	}
	return b
}

// bucket is the turns that were taken of one rate.
type bucket struct {
	name string
	turn chan struct{} // holds one while somebody takes
	left int64
	from time.Time // when they may be used
}

// turnsOf is a rate with turns of at least a millisecond, each of so many units.
func turnsOf(perMinute int64) (r store.Rate, unit int64) {
	unit = max(1, perMinute/time.Minute.Milliseconds())
	r.Every = time.Duration(float64(time.Minute) * float64(unit) / float64(perMinute))
	r.Burst = int32(max(1, burst/r.Every)) //nolint:gosec // at most 5,000
	return r, unit
}

// take takes n units and tells when they may be used.
func (b *bucket) take(ctx context.Context, st Store, perMinute, n int64) (time.Time, error) {
	select {
	case b.turn <- struct{}{}:
		defer func() { <-b.turn }()
	case <-ctx.Done():
		return time.Time{}, context.Cause(ctx)
	}
	r, unit := turnsOf(perMinute)
	need := (n + unit - 1) / unit
	if b.left < need {
		more := max(need-b.left, int64(portion/r.Every))
		wait, taken, err := st.TakeRate(ctx, b.name, r, more, longest)
		switch {
		case err != nil:
			return time.Time{}, fmt.Errorf("take turns of the rate of %s: %w", b.name, err)
		case !taken:
			f := pipeline.Failuref(pipeline.CategoryRateLimit, "the rate of %s, %d a minute, has its next turn in %s only", b.name, perMinute, wait.Round(time.Second))
			f.Reason, f.RetryAfter = "rate_limit", wait.Seconds()
			return time.Time{}, f
		}
		b.left += more
		if at := time.Now().Add(wait); at.After(b.from) {
			b.from = at
		}
	}
	b.left -= need
	return b.from, nil
}

func until(ctx context.Context, at time.Time) error {
	d := time.Until(at)
	if d <= 0 {
		return nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
