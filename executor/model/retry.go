package model

import (
	"context"
	"math/rand/v2"
	"time"
)

// Retry says how a request is repeated that may work later. Zero members mean
// the defaults named here.
type Retry struct {
	Tries int           // requests in all, to one model; default 4
	First time.Duration // the first wait is up to this; each one doubles; default 500ms
	Most  time.Duration // no wait is longer; default 30s
	// Asked bounds the wait that a service may ask for by Retry-After; one that asks
	// for more is not waited for. Default 60s.
	Asked time.Duration
	// Jitter gives a number below 1; default: random. The wait is that share of its
	// bound ("full jitter").
	Jitter func() float64
}

func (y Retry) filled() Retry {
	if y.Tries <= 0 {
		y.Tries = 4
	}
	if y.First <= 0 {
		y.First = 500 * time.Millisecond
	}
	if y.Most <= 0 {
		y.Most = 30 * time.Second
	}
	if y.Asked <= 0 {
		y.Asked = time.Minute
	}
	if y.Jitter == nil {
		y.Jitter = rand.Float64
	}
	return y
}

// wait is how long to wait after the try of that number, from 1; false: there is
// no next one.
func (y Retry) wait(try int, e *Error) (time.Duration, bool) {
	if try >= y.Tries || !e.Retryable() || e.RetryAfter > y.Asked {
		return 0, false
	}
	bound := y.Most
	if shift := try - 1; shift < 16 && y.First<<shift < bound {
		bound = y.First << shift
	}
	d := time.Duration(y.Jitter() * float64(bound))
	return max(d, e.RetryAfter), true
}

// sleep waits, or until ctx ends.
func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
