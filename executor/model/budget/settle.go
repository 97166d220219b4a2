package budget

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/orchestrator-project/orchestrator/pipeline"
	"github.com/orchestrator-project/orchestrator/store"
)

// run settles while something is drawn, and a last time when ctx ends.
func (s *shared) run(ctx context.Context) error {
	defer func() {
		last, cancel := context.WithTimeout(context.WithoutCancel(ctx), sliceLife/4)
		defer cancel()
		if _, err := s.settle(last, true); err != nil {
			s.cfg.Logger.Warn("budgets were not settled at the end; another replica does it", "err", err)
		}
	}()
	timer := time.NewTimer(0)
	<-timer.C
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-s.woken:
			timer.Reset(settleEvery)
			continue
		case <-timer.C:
		}
		more, err := s.settle(ctx, false)
		if err != nil && ctx.Err() == nil {
			s.cfg.Logger.Warn("budgets could not be settled; it is tried again", "err", err)
		}
		if more || err != nil {
			timer.Reset(settleEvery)
		}
	}
}

// settle tells the store what was spent, and gives back what is not used: what
// nobody has asked for since the last time, or with all all that is not set aside.
// It reports whether anything is still held.
func (s *shared) settle(ctx context.Context, all bool) (more bool, err error) {
	s.mu.Lock()
	list := make([]*slice, 0, len(s.slices))
	keys := make([]string, 0, len(s.slices))
	for key := range s.slices {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	for _, key := range keys {
		list = append(list, s.slices[key])
	}
	runs := maps.Clone(s.runs)
	s.mu.Unlock()
	for _, sl := range list { // in the order of their keys
		sl.draw.Lock()
		defer sl.draw.Unlock()
	}
	keep := make([]pipeline.Amount, len(list))
	for i, sl := range list {
		sl.mu.Lock()
		if all || !sl.used {
			sl.have = least(sl.have, sl.reserved)
		}
		sl.have = floor(sl.have) // what goes beyond is taken with the run's own total
		keep[i], sl.used = sl.have, false
		sl.mu.Unlock()
	}
	old, dues := s.cfg.Now().UTC().Add(-idleRun), map[pipeline.RunID]due{}
	s.mu.Lock() // after the slices: what is paid between counts twice for a while, and not never
	for id, sp := range runs {
		d := sp.account.due("")
		if d.over = (all || sp.last.Before(old)) && d.held == (pipeline.Amount{}); d.over {
			delete(s.runs, id) // its next call enters again
		}
		dues[id] = d
		keys = slices.AppendSeq(keys, maps.Keys(d.late))
	}
	s.mu.Unlock()
	slices.Sort(keys)
	keys = slices.Compact(keys)
	err = s.cfg.Store.WithBudgets(ctx, keys, func(t store.BudgetTx) error {
		rows, err := t.Spenders(s.cfg.Replica)
		if err != nil {
			return err
		}
		for _, row := range rows {
			sp := runs[row.Run]
			if sp == nil {
				continue
			}
			d := dues[row.Run]
			if err := charge(t, row, d.paid, d.late); err != nil {
				return err
			}
			if d.over {
				if err := t.DropSpender(row.Run); err != nil {
					return err
				}
			} else if d.paid != row.Settled {
				row.Settled = d.paid
				if err := t.SetSpender(row); err != nil {
					return err
				}
			}
		}
		for i, sl := range list {
			b, err := t.Budget(sl.key)
			if err != nil {
				return err
			}
			mine, err := sliceOf(t, sl.key, s.cfg.Replica)
			if err != nil {
				return err
			}
			b.Taken = b.Taken.Plus(keep[i]).Minus(mine.Amount)
			if err := t.SetBudget(b); err != nil {
				return err
			}
			if keep[i] == (pipeline.Amount{}) {
				err = t.DropSlice(sl.key, s.cfg.Replica)
			} else {
				mine.Amount, mine.ExpiresAt = keep[i], t.Now().Add(sliceLife)
				err = t.SetSlice(mine)
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		s.mu.Lock()
		defer s.mu.Unlock()
		for id, d := range dues {
			runs[id].account.giveBack(d.late)
			if s.runs[id] == nil {
				s.runs[id] = runs[id]
			}
		}
		return true, fmt.Errorf("settle budgets: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, sl := range list {
		if keep[i] != (pipeline.Amount{}) {
			more = true
			continue
		}
		sl.mu.Lock()
		if sl.have == (pipeline.Amount{}) && sl.reserved == (pipeline.Amount{}) && !sl.used {
			delete(s.slices, sl.key)
		}
		sl.mu.Unlock()
	}
	return more || len(s.runs) > 0, nil
}

// charge settles what a run has paid since it was settled last, from the slices of
// the replica that owned it. late is what of it belongs to days that were over when
// it was paid, by their keys: it does not count for the day of the row.
func charge(t store.BudgetTx, row store.BudgetRun, total pipeline.Amount, late map[string]pipeline.Amount) error {
	paid := floor(total.Minus(row.Settled))
	if paid == (pipeline.Amount{}) && len(late) == 0 {
		return nil
	}
	of := map[string]pipeline.Amount{}
	for _, key := range row.Keys {
		of[key] = paid
		if scope, _, _ := strings.Cut(key, "/"); scope != pipeline.BudgetDay {
			continue
		}
		for other, amount := range late {
			if other != key {
				of[key] = of[key].Minus(amount)
			}
		}
	}
	for key, amount := range late {
		if _, ok := of[key]; !ok {
			of[key] = amount
		}
	}
	for _, key := range slices.Sorted(maps.Keys(of)) {
		b, err := t.Budget(key)
		if err != nil {
			return err
		}
		from, err := sliceOf(t, key, row.Replica)
		if err != nil {
			return err
		}
		covered := least(from.Amount, of[key])
		b.Spent, b.Taken = b.Spent.Plus(of[key]), b.Taken.Plus(of[key]).Minus(covered)
		if err := t.SetBudget(b); err != nil {
			return err
		}
		if covered != (pipeline.Amount{}) {
			from.Amount = from.Amount.Minus(covered)
			if err := t.SetSlice(from); err != nil {
				return err
			}
		}
	}
	return nil
}
