package model

import (
	"context"

	"github.com/orchestrator-project/orchestrator/executor"
	"github.com/orchestrator-project/orchestrator/pipeline"
)

// Purse holds what calls may cost. It is asked before each call, so that no
// budget is overdrawn by calls that are under way at once.
type Purse interface {
	// Reserve sets aside what the call may cost, in every budget that bounds it.
	// Where one is spent, the error is an *executor.Suspension, which people end by a
	// raise, or a *pipeline.Failure. A Reservation is always settled or released.
	Reserve(ctx context.Context, env executor.Env, e Estimate) (Reservation, error)
}

// Reservation is what was set aside for one call. Only the first of its methods
// that is called counts.
type Reservation interface {
	// Settle says what the call has cost.
	Settle(u pipeline.Usage)
	// Release gives all of it back: nothing was spent.
	Release()
}

// Estimate is what a call may cost at most, as far as that is known before it.
type Estimate struct {
	Request      *Request
	Model        string // of the registry
	Provider     string
	InputTokens  int64
	OutputTokens int64   // at most
	USD          float64 // of both; 0 where Priced is false
	Priced       bool    // prices of the model are known
	Replays      bool    // the answer is a recorded one: nothing is paid
}

// Limiter keeps the rates that providers allow.
type Limiter interface {
	// Wait returns once a request of about so many tokens may be sent to a service.
	// account names the service and the key that it is asked with, but not the key
	// itself: all models that are asked so share the limits. The error is that of the
	// context, or a *pipeline.Failure of category rate_limit where the wait would be
	// endless.
	Wait(ctx context.Context, account string, l Limits, tokens int64) error
}
