package pipeline

import (
	"math"
	"slices"
	"strconv"
	"time"
)

// defaultRetryOn is the categories that are repeated when a policy names none.
var defaultRetryOn = []string{CategoryRateLimit, CategoryTimeout, CategoryResource, CategorySystem}

// maxRetryAfter bounds how long the other side can make us wait.
const maxRetryAfter = 10 * time.Minute

// RetryOf is the policy of a step whose attempt had that effect; nil: none.
// The pipeline's own default holds only where repeating does no harm.
func (m *Machine) RetryOf(def *StepDef, effect Effect) *Retry {
	if def.Retry != nil {
		return def.Retry
	}
	if effect == EffectPure || effect == EffectIdempotent {
		return m.homeOf(def).Settings.Retry
	}
	return nil
}

// Delay says whether a failed attempt is repeated, and after how long. failed
// counts the failed attempts including this one; random is in [0, 1).
func (r *Retry) Delay(f *Failure, failed int, random float64) (time.Duration, bool) {
	if r == nil || failed >= r.MaxAttempts || !r.covers(f) {
		return 0, false
	}
	initial, limit := r.Initial, r.Max
	if initial <= 0 {
		initial = time.Second
	}
	if limit <= 0 {
		limit = time.Minute
	}
	d := float64(initial)
	switch r.Backoff {
	case "constant":
	case "linear":
		d *= float64(failed)
	default:
		d *= math.Pow(2, float64(failed-1))
	}
	d = min(d, float64(limit))
	if r.Jitter != "none" {
		d *= random
	}
	if f.RetryAfter > 0 {
		d = max(d, min(f.RetryAfter*float64(time.Second), float64(maxRetryAfter)))
	}
	return time.Duration(d), true
}

// covers reports whether the policy speaks of this failure.
func (r *Retry) covers(f *Failure) bool {
	if f.Kind == CategoryCancelled || f.Kind == CategoryValidation && !slices.Contains(r.On, CategoryValidation) {
		return false
	}
	if f.Kind == CategoryFailed {
		if r.Reported || slices.Contains(r.On, CategoryFailed) {
			return true
		}
		return f.ExitCode != nil && slices.Contains(r.On, strconv.Itoa(*f.ExitCode))
	}
	on := r.On
	if len(on) == 0 {
		on = defaultRetryOn
	}
	return slices.Contains(on, f.Kind) || r.Reported && f.Kind != CategoryValidation
}

// TimeoutOf is the time limit of the given attempt; 0: none.
func (d *StepDef) TimeoutOf(tries int) time.Duration {
	t := d.Timeout
	if d.Retry != nil && d.Retry.TimeoutFactor > 0 {
		t = time.Duration(float64(t) * math.Pow(d.Retry.TimeoutFactor, float64(tries)))
	}
	return t
}
