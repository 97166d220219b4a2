package budget

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/orchestrator-project/orchestrator/executor"
	"github.com/orchestrator-project/orchestrator/pipeline"
	"github.com/orchestrator-project/orchestrator/store"
)

const (
	// settleEvery is how often a replica that spends settles with the store.
	settleEvery = 2 * time.Second
	// sliceLife is how long a slice is kept for a replica that does not show up.
	sliceLife = time.Minute
	// slicesOf is into how many slices a budget is cut, at least. Calls that may
	// cost more than that draw what they need.
	slicesOf = 50
	// idleRun is how long a run spends nothing until the store forgets it.
	idleRun = time.Minute
	// Workspace is the one workspace that there is.
	Workspace = "default"
)

// shared is this replica's part of the budgets that replicas share.
type shared struct {
	cfg    Config
	bounds map[string]pipeline.Amount // by scope
	woken  chan struct{}              // capacity 1: something was drawn

	mu     sync.Mutex
	slices map[string]*slice
	runs   map[pipeline.RunID]*spender
}

// slice is what was drawn from one budget.
type slice struct {
	key   string
	owner owner
	base  pipeline.Amount

	draw sync.Mutex // held while the store is asked; taken before mu

	mu       sync.Mutex
	have     pipeline.Amount // drawn and not spent, also what is set aside
	reserved pipeline.Amount
	used     bool // since the last time that it was settled
}

// spender is a run that the store knows as ours.
type spender struct {
	account *account
	keys    []string
	last    time.Time // that it reserved something

	enter sync.Mutex // held while the store is told of it
	known bool
}

func newShared(cfg Config) *shared {
	return &shared{
		cfg: cfg, woken: make(chan struct{}, 1), slices: map[string]*slice{}, runs: map[pipeline.RunID]*spender{},
		bounds: map[string]pipeline.Amount{
			pipeline.BudgetPipeline: cfg.Pipeline.Amount(), pipeline.BudgetWorkspace: cfg.Workspace.Amount(), pipeline.BudgetDay: cfg.Day.Amount(),
		},
	}
}

// part is what a reservation has set aside of a slice.
type part struct{ slice *slice }

func (p part) settle(need, cost pipeline.Amount) {
	p.slice.mu.Lock()
	defer p.slice.mu.Unlock()
	p.slice.reserved = p.slice.reserved.Minus(need)
	p.slice.have = p.slice.have.Minus(cost)
}

// reserve sets the amount aside in all budgets that bound the run, or tells which
// of them does not hold it, and when that will change by itself.
func (s *shared) reserve(ctx context.Context, env executor.Env, a *account, need pipeline.Amount, r *reservation) (*pipeline.Overdraft, time.Time, error) {
	now := s.cfg.Now().UTC()
	list := s.of(env.Tenure.Pipeline, now)
	if err := s.enter(ctx, env.Run, a, list, now); err != nil {
		return nil, time.Time{}, err
	}
	for _, sl := range list {
		over, err := s.take(ctx, sl, need)
		if err != nil {
			return nil, time.Time{}, err
		}
		if over != nil {
			due := time.Time{}
			if sl.owner.scope == pipeline.BudgetDay {
				due = now.Truncate(24 * time.Hour).Add(24 * time.Hour)
			}
			return over, due, nil
		}
		r.parts = append(r.parts, part{sl})
	}
	return nil, time.Time{}, nil
}

// of are the slices that a run of the pipeline spends from.
func (s *shared) of(pipe string, now time.Time) []*slice {
	s.mu.Lock()
	defer s.mu.Unlock()
	var list []*slice
	for _, o := range []owner{{pipeline.BudgetDay, now.Format(time.DateOnly)}, {pipeline.BudgetPipeline, pipe}, {pipeline.BudgetWorkspace, Workspace}} {
		base := s.bounds[o.scope]
		if base == (pipeline.Amount{}) {
			continue
		}
		key := store.BudgetKey(o.scope, o.name)
		sl := s.slices[key]
		if sl == nil {
			sl = &slice{key: key, owner: o, base: base}
			s.slices[key] = sl
		}
		sl.mu.Lock()
		sl.used = true // it stays
		sl.mu.Unlock()
		list = append(list, sl)
	}
	return list
}

// enter tells the store that the run spends here from now on, and settles what a
// former owner has left.
func (s *shared) enter(ctx context.Context, run pipeline.RunID, a *account, list []*slice, now time.Time) error {
	keys := make([]string, len(list))
	for i, sl := range list {
		keys[i] = sl.key
	}
	s.mu.Lock()
	sp := s.runs[run]
	if sp == nil || sp.account != a {
		sp = &spender{account: a}
		s.runs[run] = sp
	}
	sp.last = now
	s.mu.Unlock()
	sp.enter.Lock()
	defer sp.enter.Unlock()
	if sp.known && slices.Equal(sp.keys, keys) {
		return nil
	}
	d := a.due(dayOf(list))
	err := s.cfg.Store.WithBudgets(ctx, slices.Concat(keys, sp.keys, slices.Collect(maps.Keys(d.late))), func(t store.BudgetTx) error {
		row, err := t.Spender(run)
		if err != nil {
			return err
		}
		if row != nil {
			if err := charge(t, *row, d.paid, d.late); err != nil {
				return err
			}
		}
		return t.SetSpender(store.BudgetRun{Run: run, Replica: s.cfg.Replica, Keys: keys, Settled: d.paid})
	})
	if err != nil {
		a.giveBack(d.late)
		return err
	}
	sp.keys, sp.known = keys, true
	return nil
}

// dayOf is the key of the day among slices; empty: there is none.
func dayOf(list []*slice) string {
	for _, sl := range list {
		if sl.owner.scope == pipeline.BudgetDay {
			return sl.key
		}
	}
	return ""
}

func sliceOf(t store.BudgetTx, key, replica string) (store.BudgetSlice, error) {
	list, err := t.Slices(key)
	if err != nil {
		return store.BudgetSlice{}, err
	}
	for _, s := range list {
		if s.Replica == replica {
			return s, nil
		}
	}
	return store.BudgetSlice{Key: key, Replica: replica}, nil
}

func floor(a pipeline.Amount) pipeline.Amount {
	return pipeline.Amount{Tokens: max(a.Tokens, 0), Nanos: max(a.Nanos, 0), Calls: max(a.Calls, 0)}
}

func least(a, b pipeline.Amount) pipeline.Amount {
	return floor(pipeline.Amount{Tokens: min(a.Tokens, b.Tokens), Nanos: min(a.Nanos, b.Nanos), Calls: min(a.Calls, b.Calls)})
}

func most(a, b pipeline.Amount) pipeline.Amount {
	return pipeline.Amount{Tokens: max(a.Tokens, b.Tokens), Nanos: max(a.Nanos, b.Nanos), Calls: max(a.Calls, b.Calls)}
}

// fits sets the amount aside where the slice holds it; else it tells what is
// missing.
func (sl *slice) fits(need pipeline.Amount) (missing pipeline.Amount, ok bool) {
	sl.mu.Lock()
	defer sl.mu.Unlock()
	sl.used = true
	free := sl.have.Minus(sl.reserved)
	if need.Exceeds(sl.base, free) == nil {
		sl.reserved = sl.reserved.Plus(need)
		return pipeline.Amount{}, true
	}
	return floor(need.Minus(free)), false
}

// take sets the amount aside, and draws another slice where that is needed.
func (s *shared) take(ctx context.Context, sl *slice, need pipeline.Amount) (*pipeline.Overdraft, error) {
	if _, ok := sl.fits(need); ok {
		return nil, nil //nolint:nilnil // it fits
	}
	sl.draw.Lock()
	defer sl.draw.Unlock()
	for settled := false; ; settled = true {
		missing, ok := sl.fits(need)
		if ok {
			return nil, nil //nolint:nilnil // it fits
		}
		over, dead, err := s.drawMore(ctx, sl, missing, need)
		if err != nil {
			return nil, err
		}
		switch {
		case over == nil:
		case len(dead) == 0 || settled:
			return over, nil
		default:
			for _, replica := range dead {
				if err := s.bury(ctx, replica); err != nil {
					return nil, err
				}
			}
		}
	}
}

// drawMore draws at least what is missing, or tells that the budget does not hold
// it, and which replicas hold slices of it but are gone.
func (s *shared) drawMore(ctx context.Context, sl *slice, missing, need pipeline.Amount) (over *pipeline.Overdraft, dead []string, err error) {
	var grant pipeline.Amount
	err = s.cfg.Store.WithBudgets(ctx, []string{sl.key}, func(t store.BudgetTx) error {
		grant, over, dead = pipeline.Amount{}, nil, nil
		b, err := t.Budget(sl.key)
		if err != nil {
			return err
		}
		limit := sl.base.Plus(b.Raised)
		room := limit.Minus(b.Taken)
		if members := missing.Exceeds(sl.base, room); members != nil {
			over = &pipeline.Overdraft{Scope: sl.owner.scope, Name: sl.owner.name, Members: members, Limit: limit, Needs: need}
			list, err := t.Slices(sl.key)
			for _, other := range list {
				if other.Replica != s.cfg.Replica && other.ExpiresAt.Before(t.Now()) {
					dead = append(dead, other.Replica)
				}
			}
			return err
		}
		portion := pipeline.Amount{Tokens: sl.base.Tokens / slicesOf, Nanos: sl.base.Nanos / slicesOf, Calls: sl.base.Calls / slicesOf}
		grant = bounded(sl.base, least(most(missing, portion), room))
		mine, err := sliceOf(t, sl.key, s.cfg.Replica)
		if err != nil {
			return err
		}
		mine.Amount, mine.ExpiresAt = mine.Amount.Plus(grant), t.Now().Add(sliceLife)
		b.Taken = b.Taken.Plus(grant)
		if err := t.SetSlice(mine); err != nil {
			return err
		}
		return t.SetBudget(b)
	})
	if err != nil || over != nil {
		return over, dead, err
	}
	sl.mu.Lock()
	sl.have = sl.have.Plus(grant)
	sl.mu.Unlock()
	select {
	case s.woken <- struct{}{}:
	default:
	}
	return nil, nil, nil
}

// bounded keeps the members that the budget bounds.
func bounded(base, a pipeline.Amount) pipeline.Amount {
	if base.Tokens == 0 {
		a.Tokens = 0
	}
	if base.Nanos == 0 {
		a.Nanos = 0
	}
	if base.Calls == 0 {
		a.Calls = 0
	}
	return a
}

// bury settles what a replica that is gone has drawn: what its runs have spent is
// in their logs, and the rest is free again.
func (s *shared) bury(ctx context.Context, replica string) error {
	var rows []store.BudgetRun
	if err := s.cfg.Store.WithBudgets(ctx, nil, func(t store.BudgetTx) (err error) {
		rows, err = t.Spenders(replica)
		return err
	}); err != nil {
		return err
	}
	budgets, err := s.cfg.Store.Budgets(ctx)
	if err != nil {
		return err
	}
	totals := map[pipeline.RunID]pipeline.Amount{}
	for _, r := range rows {
		if totals[r.Run], err = s.logged(ctx, r.Run); err != nil {
			return err
		}
	}
	keys := make([]string, len(budgets))
	for i := range budgets {
		keys[i] = budgets[i].Key
	}
	return s.cfg.Store.WithBudgets(ctx, keys, func(t store.BudgetTx) error {
		for _, key := range keys {
			if left, err := sliceOf(t, key, replica); err != nil || left.ExpiresAt.After(t.Now()) {
				return err // it lives
			}
		}
		now, err := t.Spenders(replica)
		if err != nil {
			return err
		}
		for _, r := range now {
			total, known := totals[r.Run]
			if !known {
				return nil // it has just taken a run
			}
			if err := charge(t, r, total, nil); err != nil {
				return err
			}
			if err := t.DropSpender(r.Run); err != nil {
				return err
			}
		}
		for _, key := range keys {
			left, err := sliceOf(t, key, replica)
			if err != nil {
				return err
			}
			if left.ExpiresAt.IsZero() {
				continue
			}
			b, err := t.Budget(key)
			if err != nil {
				return err
			}
			b.Taken = b.Taken.Minus(left.Amount)
			if err := t.SetBudget(b); err != nil {
				return err
			}
			if err := t.DropSlice(key, replica); err != nil {
				return err
			}
		}
		return nil
	})
}

// logged is what a run has spent, as its log says. A run that is not there any
// more has spent what was settled.
func (s *shared) logged(ctx context.Context, run pipeline.RunID) (pipeline.Amount, error) {
	var u pipeline.Usage
	for e, err := range s.cfg.Store.Events(ctx, run, 0) {
		if err != nil {
			if pipeline.KindOf(err) == pipeline.NotFound {
				break
			}
			return pipeline.Amount{}, err
		}
		if e.Type == pipeline.ModelCalled || e.Type == pipeline.StepFinished {
			u.Add(e.Data.Usage)
		}
	}
	return pipeline.PaidOf(&u), nil
}

// raise raises a shared budget once.
func (s *shared) raise(ctx context.Context, id pipeline.ApprovalID, o *pipeline.Overdraft, d *pipeline.Decision) error {
	by := o.Raise(d)
	if by == (pipeline.Amount{}) {
		return nil
	}
	return Raise(ctx, s.cfg.Store, store.BudgetRaise{ID: string(id), Key: store.BudgetKey(o.Scope, o.Name), By: by, Actor: d.Actor})
}

// Raise raises a shared budget, once for each id.
func Raise(ctx context.Context, st store.Budgets, r store.BudgetRaise) error {
	return st.WithBudgets(ctx, []string{r.Key}, func(t store.BudgetTx) error {
		fresh, err := t.Raise(r)
		if err != nil || !fresh {
			return err
		}
		b, err := t.Budget(r.Key)
		if err != nil {
			return err
		}
		b.Raised = b.Raised.Plus(r.By)
		return t.SetBudget(b)
	})
}
