package budget

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"math/rand/v2"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/orchestrator-project/orchestrator/executor"
	"github.com/orchestrator-project/orchestrator/executor/model"
	"github.com/orchestrator-project/orchestrator/pipeline"
	"github.com/orchestrator-project/orchestrator/store"
	"github.com/orchestrator-project/orchestrator/store/sqlite"
)

// ledger is a store whose runs' logs are kept here.
type ledger struct {
	store.Store

	mu   sync.Mutex
	logs map[pipeline.RunID][]pipeline.Event
}

func openLedger(t *testing.T) *ledger {
	t.Helper()
	st, err := sqlite.Open(t.Context(), sqlite.Config{Path: filepath.Join(t.TempDir(), "budgets.db")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = st.Close() })
	return &ledger{Store: st, logs: map[pipeline.RunID][]pipeline.Event{}}
}

func (l *ledger) Events(_ context.Context, run pipeline.RunID, _ int32) iter.Seq2[pipeline.Event, error] {
	l.mu.Lock()
	defer l.mu.Unlock()
	list := l.logs[run]
	return func(yield func(pipeline.Event, error) bool) {
		for _, e := range list {
			if !yield(e, nil) {
				return
			}
		}
	}
}

func (l *ledger) record(run pipeline.RunID, u pipeline.Usage) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.logs[run] = append(l.logs[run], pipeline.Event{Type: pipeline.ModelCalled, Data: pipeline.Data{Usage: &u}})
}

// used is what a run's log says.
func (l *ledger) used(run pipeline.RunID) pipeline.Usage {
	l.mu.Lock()
	defer l.mu.Unlock()
	var u pipeline.Usage
	for _, e := range l.logs[run] {
		u.Add(e.Data.Usage)
	}
	return u
}

func (l *ledger) all() pipeline.Amount {
	var sum pipeline.Amount
	l.mu.Lock()
	runs := make([]pipeline.RunID, 0, len(l.logs))
	for id := range l.logs {
		runs = append(runs, id)
	}
	l.mu.Unlock()
	for _, id := range runs {
		u := l.used(id)
		sum = sum.Plus(pipeline.AmountOf(&u))
	}
	return sum
}

// env is a run in the hands of a replica.
func (l *ledger) env(run pipeline.RunID) executor.Env {
	t := executor.NewTenure(nil, l.used(run), nil)
	t.Pipeline = "p"
	return executor.Env{Run: run, Path: "s", Attempt: 1, Tenure: t}
}

// refused reports whether a call was refused for a budget.
func refused(err error) bool {
	f, ok := errors.AsType[*pipeline.Failure](err)
	return ok && f.Reason == pipeline.ReasonBudget
}

func (l *ledger) budget(t interface {
	Helper()
	Fatal(...any)
}, key string,
) store.Budget {
	t.Helper()
	list, err := l.Budgets(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range list {
		if b.Key == key {
			return b
		}
	}
	t.Fatal("no budget ", key)
	return store.Budget{}
}

const limit = 10_000

// Replicas with random calls, some of which die with calls under way and without
// settling: what is spent never goes beyond the budget, and in the end the store
// knows exactly what the logs say.
func TestReplicasNeverOverspend(t *testing.T) {
	var cases int
	rapid.Check(t, func(rt *rapid.T) {
		cases++
		l := openLedger(t)
		now := time.Now()
		clock := func() time.Time { return now }
		open := func(name string) *Purse {
			return New(Config{Workspace: pipeline.Budget{Tokens: limit}, Store: l, Replica: name, Now: clock})
		}
		n, born := rapid.IntRange(1, 4).Draw(rt, "replicas"), 0
		purses, envs, owner := make([]*Purse, n), map[pipeline.RunID]executor.Env{}, map[pipeline.RunID]int{}
		for i := range purses {
			purses[i] = open(fmt.Sprint("r", i))
		}
		over := func(what string) {
			if spent := l.all(); spent.Tokens > limit {
				rt.Fatalf("%s: %d tokens spent of %d", what, spent.Tokens, limit)
			}
		}
		for range rapid.IntRange(5, 60).Draw(rt, "calls") {
			run := pipeline.RunID(fmt.Sprint("run", rapid.IntRange(0, 5).Draw(rt, "run")))
			if _, ok := owner[run]; !ok {
				owner[run] = rapid.IntRange(0, n-1).Draw(rt, "owner")
				envs[run] = l.env(run)
			}
			i := owner[run]
			switch rapid.IntRange(0, 9).Draw(rt, "what") {
			case 0: // it goes to another replica, with or without settling
				if rapid.Bool().Draw(rt, "settled") {
					if _, err := purses[i].shared.settle(t.Context(), false); err != nil {
						rt.Fatal(err)
					}
				}
				delete(owner, run)
			case 1: // its replica dies
				for id, o := range owner {
					if o == i {
						delete(owner, id)
					}
				}
				born++ // no two replicas have one name
				purses[i] = open(fmt.Sprint("r", i, "-", born))
			case 2:
				if _, err := purses[i].shared.settle(t.Context(), rapid.Bool().Draw(rt, "all")); err != nil {
					rt.Fatal(err)
				}
			default:
				most := rapid.Int64Range(1, 900).Draw(rt, "most")
				r, err := purses[i].Reserve(t.Context(), envs[run], model.Estimate{InputTokens: most})
				if refused(err) {
					continue
				}
				if err != nil {
					rt.Fatal(err)
				}
				switch rapid.IntRange(0, 3).Draw(rt, "end") {
				case 0:
					r.Release()
				case 1: // it hangs
				default:
					u := pipeline.Usage{InputTokens: int32(rapid.Int64Range(0, most).Draw(rt, "used")), Calls: 1}
					l.record(run, u)
					r.Settle(u)
				}
			}
			over("a call")
		}
		for _, p := range purses {
			if _, err := p.shared.settle(t.Context(), true); err != nil {
				rt.Fatal(err)
			}
		}
		bury(rt, l, purses[0])
		list, err := l.Budgets(t.Context())
		if err != nil {
			rt.Fatal(err)
		}
		for _, b := range list {
			if want := l.all(); b.Spent.Tokens != want.Tokens || b.Taken.Tokens < b.Spent.Tokens {
				rt.Fatalf("the store knows of %+v, the logs of %+v", b, want)
			}
		}
	})
}

// bury settles all replicas that have left something, as if their time were over.
func bury(t interface{ Fatal(...any) }, l *ledger, p *Purse) {
	replicas := map[string]bool{}
	err := l.WithBudgets(context.Background(), []string{"workspace/default"}, func(tx store.BudgetTx) error {
		list, err := tx.Slices("workspace/default")
		for _, s := range list {
			replicas[s.Replica] = true
			s.ExpiresAt = tx.Now().Add(-time.Second)
			if err := tx.SetSlice(s); err != nil {
				return err
			}
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for r := range replicas {
		if err := p.shared.bury(context.Background(), r); err != nil {
			t.Fatal(err)
		}
	}
}

func TestWhatADeadReplicaHasDrawnIsFreeAgain(t *testing.T) {
	l := openLedger(t)
	cfg := Config{Workspace: pipeline.Budget{Tokens: 1000}, Store: l, Replica: "dead"}
	dead := New(cfg)
	r, err := dead.Reserve(t.Context(), l.env("a"), model.Estimate{InputTokens: 900})
	if err != nil {
		t.Fatal(err)
	}
	u := pipeline.Usage{InputTokens: 100, Calls: 1}
	l.record("a", u)
	r.Settle(u)
	cfg.Replica = "alive"
	alive := New(cfg)
	if _, err := alive.Reserve(t.Context(), l.env("b"), model.Estimate{InputTokens: 800}); !refused(err) {
		t.Fatalf("while the other one may live: %v", err)
	}
	err = l.WithBudgets(t.Context(), []string{"workspace/default"}, func(tx store.BudgetTx) error {
		list, err := tx.Slices("workspace/default")
		for _, s := range list {
			if s.Replica == "dead" {
				s.ExpiresAt = tx.Now().Add(-time.Second)
				err = errors.Join(err, tx.SetSlice(s))
			}
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := alive.Reserve(t.Context(), l.env("b"), model.Estimate{InputTokens: 801}); err != nil {
		t.Fatalf("after its time: %v", err)
	}
	if b := l.budget(t, "workspace/default"); b.Spent.Tokens != 100 {
		t.Errorf("settled %+v", b)
	}
}

func TestRaiseCountsOnce(t *testing.T) {
	l := openLedger(t)
	p := New(Config{Day: pipeline.Budget{USD: 1}, Store: l, Replica: "r"})
	e := model.Estimate{USD: 1.5, Priced: true}
	if _, err := p.Reserve(t.Context(), l.env("a"), e); !refused(err) {
		t.Fatalf("got %v", err)
	}
	for range 2 {
		if _, err := p.RaiseBudget(t.Context(), "once", "day", "", pipeline.Amount{Nanos: pipeline.Nanos(0.5)}, "ada"); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := p.Reserve(t.Context(), l.env("a"), e); err != nil {
		t.Fatal(err)
	}
	list, err := p.Budgets(t.Context())
	if err != nil || len(list) != 1 || list[0].Limit.USD() != 1.5 || list[0].Held.USD() != 1.5 {
		t.Errorf("got %+v, %v", list, err)
	}
	for _, scope := range []string{"run", "galaxy"} {
		if _, err := p.RaiseBudget(t.Context(), "x", scope, "n", pipeline.Amount{}, "ada"); pipeline.KindOf(err) != pipeline.Invalid {
			t.Errorf("%s: %v", scope, err)
		}
	}
}

func TestConcurrentCallsShareSlices(t *testing.T) {
	l := openLedger(t)
	const replicas, calls, cost = 3, 200, 10
	var all sync.WaitGroup
	var mu sync.Mutex
	granted := 0
	for i := range replicas {
		p := New(Config{Workspace: pipeline.Budget{Calls: 300}, Store: l, Replica: fmt.Sprint(i)})
		for k := range 4 {
			env := l.env(pipeline.RunID(fmt.Sprint("run", i, k)))
			all.Go(func() {
				for range calls / 4 {
					r, err := p.Reserve(t.Context(), env, model.Estimate{InputTokens: cost})
					if refused(err) {
						continue
					}
					if err != nil {
						t.Error(err)
						return
					}
					mu.Lock()
					granted++
					mu.Unlock()
					r.Settle(pipeline.Usage{InputTokens: int32(rand.IntN(cost)), Calls: 1}) //nolint:gosec // no secret
				}
			})
		}
	}
	all.Wait()
	if granted > 300 || granted < 300-replicas*300/slicesOf {
		t.Errorf("%d of 300 calls were granted", granted)
	}
}
