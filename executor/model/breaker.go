package model

import (
	"errors"
	"sync"
	"time"

	"github.com/sony/gobreaker/v2"
)

// The states of a circuit breaker.
const (
	BreakerClosed   = "closed"
	BreakerOpen     = "open"
	BreakerHalfOpen = "half-open"
)

const (
	// breakerFailures in a row open a breaker.
	breakerFailures = 5
	// breakerTimeout is how long it stays open until one request may try.
	breakerTimeout = time.Minute
)

// breakers keep requests from services that are down, one for each provider and
// model. The zero value is ready.
type breakers struct {
	changed func(name, state string)

	mu   sync.Mutex
	list map[string]*gobreaker.TwoStepCircuitBreaker[any]
}

func (b *breakers) of(name string) *gobreaker.TwoStepCircuitBreaker[any] {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.list == nil {
		b.list = map[string]*gobreaker.TwoStepCircuitBreaker[any]{}
	}
	k := b.list[name]
	if k == nil {
		k = gobreaker.NewTwoStepCircuitBreaker[any](gobreaker.Settings{
			Name: name, Timeout: breakerTimeout,
			ReadyToTrip:  func(c gobreaker.Counts) bool { return c.ConsecutiveFailures >= breakerFailures },
			IsSuccessful: func(err error) bool { return err == nil || !down(err) },
			IsExcluded:   func(err error) bool { return err != nil && !down(err) && !answered(err) },
			OnStateChange: func(name string, _, to gobreaker.State) {
				if b.changed != nil {
					b.changed(name, to.String())
				}
			},
		})
		b.list[name] = k
	}
	return k
}

// state is that of the breaker of the name.
func (b *breakers) state(name string) string {
	b.mu.Lock()
	k := b.list[name]
	b.mu.Unlock()
	if k == nil {
		return BreakerClosed
	}
	return k.State().String()
}

// down reports whether an error says that the service is not well. One that is
// only busy, or that refuses the request, is.
func down(err error) bool {
	e, ok := errors.AsType[*Error](err)
	if !ok {
		return false
	}
	switch e.Class {
	case ClassOverloaded, ClassServer, ClassNetwork, ClassTimeout, ClassMalformed:
		return true
	}
	return false
}

// answered reports whether an error is an answer of a service that is well.
func answered(err error) bool {
	e, ok := errors.AsType[*Error](err)
	return ok && e.Class != ClassCancelled
}
