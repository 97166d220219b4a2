package storetest

import (
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/orchestrator-project/orchestrator/pipeline"
	"github.com/orchestrator-project/orchestrator/store"
)

// budgets: transactions over the same budgets happen one after the other, from
// any process.
func budgets(t *testing.T, h Harness) {
	s := h.Open(t)
	other := h.Again(t, s)
	const callers, each = 8, 10
	var all sync.WaitGroup
	for i := range callers {
		all.Go(func() {
			from, keys := s, []string{"day/x", "pipeline/p"}
			if i%2 == 1 {
				from, keys = other, []string{"pipeline/p", "day/x", "workspace/default"}
			}
			for range each {
				err := from.WithBudgets(t.Context(), keys, func(tx store.BudgetTx) error {
					b, err := tx.Budget("pipeline/p")
					if err != nil {
						return err
					}
					b.Taken = b.Taken.Plus(pipeline.Amount{Tokens: 1, Nanos: 2, Calls: 3})
					return tx.SetBudget(b)
				})
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	list, err := other.Budgets(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	const n = callers * each
	want := []store.Budget{{Key: "day/x"}, {Key: "pipeline/p", Taken: pipeline.Amount{Tokens: n, Nanos: 2 * n, Calls: 3 * n}}, {Key: "workspace/default"}}
	if diff := cmp.Diff(want, list); diff != "" {
		t.Error(diff)
	}
}

// budgetRows: what is written is read again, and goes.
func budgetRows(t *testing.T, h Harness) {
	s := h.Open(t)
	run := pipeline.NewRunID()
	amount := pipeline.Amount{Tokens: 1, Nanos: 1 << 60, Calls: 3}
	do := func(what string, f func(tx store.BudgetTx) error) {
		t.Helper()
		if err := s.WithBudgets(t.Context(), []string{"day/x"}, f); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
	}
	slice := store.BudgetSlice{Key: "day/x", Replica: "r", Amount: amount}
	spender := store.BudgetRun{Run: run, Replica: "r", Keys: []string{"day/x", `odd"key`}, Settled: amount}
	full := store.Budget{Key: "day/x", Spent: amount, Taken: amount.Plus(amount), Raised: pipeline.Amount{Calls: 1}}
	do("write", func(tx store.BudgetTx) error {
		slice.ExpiresAt = tx.Now().Add(time.Minute).Truncate(time.Microsecond).UTC()
		for range 2 { // the second time over the first
			if err := tx.SetSlice(slice); err != nil {
				return err
			}
			if err := tx.SetSpender(spender); err != nil {
				return err
			}
		}
		return tx.SetBudget(full)
	})
	do("read", func(tx store.BudgetTx) error {
		b, err := tx.Budget("day/x")
		if err != nil {
			return err
		}
		slices, err := tx.Slices("day/x")
		if err != nil {
			return err
		}
		for i := range slices {
			slices[i].ExpiresAt = slices[i].ExpiresAt.UTC()
		}
		one, err := tx.Spender(run)
		if err != nil {
			return err
		}
		list, err := tx.Spenders("r")
		if err != nil {
			return err
		}
		if diff := cmp.Diff([]any{full, []store.BudgetSlice{slice}, &spender, []store.BudgetRun{spender}}, []any{b, slices, one, list}); diff != "" {
			t.Error(diff)
		}
		if none, err := tx.Spender(pipeline.NewRunID()); none != nil || err != nil {
			t.Errorf("a run that has not spent: %v, %v", none, err)
		}
		if err := tx.DropSlice("day/x", "r"); err != nil {
			return err
		}
		return tx.DropSpender(run)
	})
	for _, want := range []bool{true, false} {
		do("raise", func(tx store.BudgetTx) error {
			slices, err := tx.Slices("day/x")
			if err != nil {
				return err
			}
			list, err := tx.Spenders("r")
			if err != nil {
				return err
			}
			fresh, err := tx.Raise(store.BudgetRaise{ID: "a", Key: "day/x", By: amount, Actor: "ada"})
			if fresh != want || len(slices)+len(list) > 0 {
				t.Errorf("a raise is new: %t, want %t; %d slices and %d runs are left", fresh, want, len(slices), len(list))
			}
			return err
		})
	}
}

// sharedRates: turns are taken one after the other, and too long a wait takes none.
func sharedRates(t *testing.T, h Harness) {
	s := h.Open(t)
	other := h.Again(t, s)
	rate := store.Rate{Every: time.Hour, Burst: 2}
	for i, c := range []struct {
		from  store.Store
		n     int64
		most  time.Duration
		taken bool
		least time.Duration
	}{
		{s, 1, 0, true, 0},
		{other, 1, 0, true, 0},
		{s, 1, 0, false, time.Hour - time.Minute},
		{other, 3, 2 * time.Hour, true, time.Hour - time.Minute},
		{s, 1, time.Hour, false, 4*time.Hour - time.Minute},
	} {
		wait, taken, err := c.from.TakeRate(t.Context(), "fable", rate, c.n, c.most)
		if err != nil || taken != c.taken || wait < c.least || wait > c.least+time.Minute {
			t.Errorf("%d: waits %s, taken %t, %v", i, wait, taken, err)
		}
	}
	if wait, taken, err := s.TakeRate(t.Context(), "another", rate, 1, 0); wait != 0 || !taken || err != nil {
		t.Errorf("another key waits %s, %t, %v", wait, taken, err)
	}
}
