package sqlite

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"time"

	"github.com/orchestrator-project/orchestrator/pipeline"
	"github.com/orchestrator-project/orchestrator/store"
)

const (
	makeBudget    = `INSERT INTO budget (key) VALUES (?) ON CONFLICT DO NOTHING`
	budgetColumns = `SELECT key, spent_tokens, spent_nanos, spent_calls, taken_tokens, taken_nanos, taken_calls,
		raised_tokens, raised_nanos, raised_calls FROM budget`
	readBudget  = budgetColumns + ` WHERE key = ?`
	listBudgets = budgetColumns + ` ORDER BY key`
	writeBudget = `UPDATE budget SET spent_tokens = ?2, spent_nanos = ?3, spent_calls = ?4, taken_tokens = ?5, taken_nanos = ?6,
		taken_calls = ?7, raised_tokens = ?8, raised_nanos = ?9, raised_calls = ?10 WHERE key = ?1`

	readSlices = `SELECT replica, tokens, nanos, calls, expires_at FROM budget_slice WHERE key = ? ORDER BY replica`
	writeSlice = `INSERT INTO budget_slice (key, replica, tokens, nanos, calls, expires_at) VALUES (?, ?, ?, ?, ?, ?)
		ON CONFLICT (key, replica) DO UPDATE SET tokens = excluded.tokens, nanos = excluded.nanos, calls = excluded.calls, expires_at = excluded.expires_at`
	dropSlice = `DELETE FROM budget_slice WHERE key = ? AND replica = ?`

	spenderColumns = `SELECT run_id, replica, keys, tokens, nanos, calls FROM budget_run`
	readSpender    = spenderColumns + ` WHERE run_id = ?`
	readSpenders   = spenderColumns + ` WHERE replica = ? ORDER BY run_id`
	writeSpender   = `INSERT INTO budget_run (run_id, replica, keys, tokens, nanos, calls) VALUES (?, ?, ?, ?, ?, ?)
		ON CONFLICT (run_id) DO UPDATE SET replica = excluded.replica, keys = excluded.keys, tokens = excluded.tokens,
			nanos = excluded.nanos, calls = excluded.calls`
	dropSpender = `DELETE FROM budget_run WHERE run_id = ?`
	writeRaise  = `INSERT INTO budget_raise (id, key, tokens, nanos, calls, actor, at) VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING`
)

// WithBudgets implements store.Budgets.
func (s *Store) WithBudgets(ctx context.Context, keys []string, f func(store.BudgetTx) error) error {
	return s.writer.do(ctx, "change budgets", func(t *tx) error {
		for _, k := range keys {
			if _, err := t.exec(makeBudget, text(k)); err != nil {
				return err
			}
		}
		return f(budgetTx{t})
	})
}

// Budgets implements store.Budgets.
func (s *Store) Budgets(ctx context.Context) ([]store.Budget, error) {
	var list []store.Budget
	err := s.writer.do(ctx, "list budgets", func(t *tx) error {
		list = nil
		return t.rows(listBudgets, nil, func(r *sql.Rows) error {
			b, err := scanBudget(r.Scan)
			list = append(list, b)
			return err
		})
	})
	return list, err
}

func scanBudget(scan func(...any) error) (store.Budget, error) {
	var b store.Budget
	err := scan(&b.Key, &b.Spent.Tokens, &b.Spent.Nanos, &b.Spent.Calls, &b.Taken.Tokens, &b.Taken.Nanos, &b.Taken.Calls,
		&b.Raised.Tokens, &b.Raised.Nanos, &b.Raised.Calls)
	return b, err
}

type budgetTx struct{ t *tx }

func (b budgetTx) Now() time.Time { return b.t.now }

func (b budgetTx) Budget(key string) (store.Budget, error) {
	return scanBudget(func(into ...any) error { return b.t.row(readBudget, []any{text(key)}, into...) })
}

func (b budgetTx) SetBudget(w store.Budget) error {
	_, err := b.t.exec(writeBudget, text(w.Key), w.Spent.Tokens, w.Spent.Nanos, w.Spent.Calls, w.Taken.Tokens, w.Taken.Nanos, w.Taken.Calls,
		w.Raised.Tokens, w.Raised.Nanos, w.Raised.Calls)
	return err
}

func (b budgetTx) Slices(key string) ([]store.BudgetSlice, error) {
	var list []store.BudgetSlice
	err := b.t.rows(readSlices, []any{text(key)}, func(r *sql.Rows) error {
		s := store.BudgetSlice{Key: key}
		var at sql.NullInt64
		err := r.Scan(&s.Replica, &s.Amount.Tokens, &s.Amount.Nanos, &s.Amount.Calls, &at)
		s.ExpiresAt = fromMicros(at)
		list = append(list, s)
		return err
	})
	return list, err
}

func (b budgetTx) SetSlice(s store.BudgetSlice) error {
	_, err := b.t.exec(writeSlice, text(s.Key), text(s.Replica), s.Amount.Tokens, s.Amount.Nanos, s.Amount.Calls, micros(s.ExpiresAt))
	return err
}

func (b budgetTx) DropSlice(key, replica string) error {
	_, err := b.t.exec(dropSlice, text(key), text(replica))
	return err
}

func scanSpender(scan func(...any) error) (store.BudgetRun, error) {
	var r store.BudgetRun
	var keys string
	if err := scan((*string)(&r.Run), &r.Replica, &keys, &r.Settled.Tokens, &r.Settled.Nanos, &r.Settled.Calls); err != nil {
		return r, err
	}
	return r, json.Unmarshal([]byte(keys), &r.Keys)
}

func (b budgetTx) Spender(run pipeline.RunID) (*store.BudgetRun, error) {
	r, err := scanSpender(func(into ...any) error { return b.t.row(readSpender, []any{string(run)}, into...) })
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil //nolint:nilnil // as the interface says
	}
	return &r, err
}

func (b budgetTx) Spenders(replica string) ([]store.BudgetRun, error) {
	var list []store.BudgetRun
	err := b.t.rows(readSpenders, []any{text(replica)}, func(r *sql.Rows) error {
		s, err := scanSpender(r.Scan)
		list = append(list, s)
		return err
	})
	return list, err
}

func (b budgetTx) SetSpender(r store.BudgetRun) error {
	keys, err := json.Marshal(r.Keys)
	if err != nil {
		return err
	}
	_, err = b.t.exec(writeSpender, string(r.Run), text(r.Replica), text(string(keys)), r.Settled.Tokens, r.Settled.Nanos, r.Settled.Calls)
	return err
}

func (b budgetTx) DropSpender(run pipeline.RunID) error {
	_, err := b.t.exec(dropSpender, string(run))
	return err
}

func (b budgetTx) Raise(r store.BudgetRaise) (bool, error) {
	n, err := b.t.exec(writeRaise, text(r.ID), text(r.Key), r.By.Tokens, r.By.Nanos, r.By.Calls, text(r.Actor), micros(b.t.now))
	return n == 1, err
}

const (
	readRate = `SELECT tat FROM rate WHERE key = ?`
	setRate  = `INSERT INTO rate (key, tat) VALUES (?, ?) ON CONFLICT DO UPDATE SET tat = excluded.tat`
)

// TakeRate implements store.Budgets.
func (s *Store) TakeRate(ctx context.Context, key string, r store.Rate, n int64, most time.Duration) (wait time.Duration, taken bool, err error) {
	err = s.writer.relaxed(ctx, "take turns of a rate", func(t *tx) error {
		var tat, next int64
		if err := t.row(readRate, []any{text(key)}, &tat); err != nil && !errors.Is(err, sql.ErrNoRows) {
			return err
		}
		next, wait = r.Takes(t.now.UnixMicro(), tat, n)
		if taken = wait <= most; !taken {
			return nil
		}
		_, err := t.exec(setRate, text(key), next)
		return err
	})
	return wait, taken, err
}
