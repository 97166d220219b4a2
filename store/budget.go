package store

import (
	"context"
	"time"

	"github.com/orchestrator-project/orchestrator/pipeline"
)

// Budgets keeps what the budgets that replicas share have been spent on, and the
// rates that they keep together.
//
// A replica draws a slice of a budget, spends from it in memory and settles now
// and then, so that no row is written for each call. Taken is what was spent and
// what the slices still hold: no replica is given more than the limit leaves.
type Budgets interface {
	// WithBudgets calls f in a transaction that holds the budgets of the keys, which
	// are made where they are missing: nobody else changes them, their slices or runs
	// that spend from them until it ends. f may be called again.
	WithBudgets(ctx context.Context, keys []string, f func(BudgetTx) error) error
	// Budgets lists the budgets that were ever drawn from or raised, by key.
	Budgets(ctx context.Context) ([]Budget, error)
	// TakeRate takes n turns of a rate, by the store's clock, and tells how long to
	// wait before the first of them may be used. Where that is longer than most, it
	// takes nothing, and tells how long it is.
	TakeRate(ctx context.Context, key string, r Rate, n int64, most time.Duration) (wait time.Duration, taken bool, err error)
}

// BudgetTx is a transaction over budgets.
type BudgetTx interface {
	Now() time.Time // the store's clock
	Budget(key string) (Budget, error)
	SetBudget(b Budget) error
	// Slices lists the slices of a budget by replica.
	Slices(key string) ([]BudgetSlice, error)
	SetSlice(s BudgetSlice) error
	DropSlice(key, replica string) error
	// Spender is a run as the replica has settled it that owns it or did so last; nil:
	// it has not spent.
	Spender(run pipeline.RunID) (*BudgetRun, error)
	// Spenders lists the runs of a replica.
	Spenders(replica string) ([]BudgetRun, error)
	SetSpender(r BudgetRun) error
	DropSpender(run pipeline.RunID) error
	// Raise notes a raise of the budget under its id, and reports whether it is new.
	Raise(r BudgetRaise) (bool, error)
}

// Budget is what has become of a shared budget. Its key is its scope and name, as
// in day/2026-01-31.
type Budget struct {
	Key    string
	Spent  pipeline.Amount
	Taken  pipeline.Amount // spent, or drawn by a replica
	Raised pipeline.Amount // by people, over what the configuration says
}

// BudgetKey is the key of a budget.
func BudgetKey(scope, name string) string { return scope + "/" + name }

// BudgetSlice is what a replica has drawn and not settled.
type BudgetSlice struct {
	Key, Replica string
	Amount       pipeline.Amount
	ExpiresAt    time.Time // after it the replica is held to be gone
}

// BudgetRun is a run that spends from shared budgets.
type BudgetRun struct {
	Run     pipeline.RunID
	Replica string
	Keys    []string        // of the budgets
	Settled pipeline.Amount // of what it has spent
}

// BudgetRaise is a raise of a budget.
type BudgetRaise struct {
	ID    string // of the approval, or another one that its caller chose
	Key   string
	By    pipeline.Amount
	Actor string
}

// Takes tells what taking n turns at now, in microseconds, makes of the
// theoretical arrival time tat, and how long their taker has to wait: the generic
// cell rate algorithm.
func (r Rate) Takes(now, tat, n int64) (next int64, wait time.Duration) {
	every := r.Every.Microseconds()
	begin := max(tat, now)
	ahead := begin - now - (int64(max(r.Burst, 1))-1)*every
	return begin + n*every, time.Duration(max(ahead, 0)) * time.Microsecond
}
