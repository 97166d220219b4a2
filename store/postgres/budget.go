package postgres

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/orchestrator-project/orchestrator/pipeline"
	"github.com/orchestrator-project/orchestrator/store"
)

const (
	makeBudgets = `INSERT INTO budget (key) SELECT k FROM unnest($1::text[]) k ORDER BY k ON CONFLICT DO NOTHING`
	holdBudgets = `SELECT clock_timestamp() FROM (SELECT 1 FROM budget WHERE key = ANY ($1) ORDER BY key FOR UPDATE) held`
	readNow     = `SELECT clock_timestamp()`

	budgetColumns = `SELECT key, spent_tokens, spent_nanos, spent_calls, taken_tokens, taken_nanos, taken_calls,
		raised_tokens, raised_nanos, raised_calls FROM budget`
	readBudget  = budgetColumns + ` WHERE key = $1`
	listBudgets = budgetColumns + ` ORDER BY key`
	writeBudget = `UPDATE budget SET spent_tokens = $2, spent_nanos = $3, spent_calls = $4, taken_tokens = $5, taken_nanos = $6,
		taken_calls = $7, raised_tokens = $8, raised_nanos = $9, raised_calls = $10 WHERE key = $1`

	readSlices = `SELECT replica, tokens, nanos, calls, expires_at FROM budget_slice WHERE key = $1 ORDER BY replica`
	writeSlice = `INSERT INTO budget_slice (key, replica, tokens, nanos, calls, expires_at) VALUES ($1, $2, $3, $4, $5, $6)
		ON CONFLICT (key, replica) DO UPDATE SET tokens = excluded.tokens, nanos = excluded.nanos, calls = excluded.calls, expires_at = excluded.expires_at`
	dropSlice = `DELETE FROM budget_slice WHERE key = $1 AND replica = $2`

	spenderColumns = `SELECT run_id, replica, keys, tokens, nanos, calls FROM budget_run`
	readSpender    = spenderColumns + ` WHERE run_id = $1`
	readSpenders   = spenderColumns + ` WHERE replica = $1 ORDER BY run_id`
	writeSpender   = `INSERT INTO budget_run (run_id, replica, keys, tokens, nanos, calls) VALUES ($1, $2, $3, $4, $5, $6)
		ON CONFLICT (run_id) DO UPDATE SET replica = excluded.replica, keys = excluded.keys, tokens = excluded.tokens,
			nanos = excluded.nanos, calls = excluded.calls`
	dropSpender = `DELETE FROM budget_run WHERE run_id = $1`
	writeRaise  = `INSERT INTO budget_raise (id, key, tokens, nanos, calls, actor, at) VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT DO NOTHING`
)

// WithBudgets implements store.Budgets.
func (s *Store) WithBudgets(ctx context.Context, keys []string, f func(store.BudgetTx) error) error {
	keys = slices.Compact(slices.Sorted(slices.Values(cleaned(keys))))
	return s.do(ctx, "change budgets", func(c *pgxpool.Conn) error {
		if _, err := c.Exec(ctx, makeBudgets, keys); err != nil { // on its own: nobody waits for another's insert within a transaction
			return err
		}
		return pgx.BeginFunc(ctx, c, func(tx pgx.Tx) error {
			if _, err := tx.Exec(ctx, holdBudgets, keys); err != nil {
				return err
			}
			t := &budgetTx{ctx: ctx, tx: tx}
			if err := tx.QueryRow(ctx, readNow).Scan(&t.now); err != nil {
				return err
			}
			return f(t)
		})
	})
}

func cleaned(list []string) []string {
	out := make([]string, len(list))
	for i, s := range list {
		out[i] = store.Clean(s)
	}
	return out
}

// Budgets implements store.Budgets.
func (s *Store) Budgets(ctx context.Context) ([]store.Budget, error) {
	var list []store.Budget
	err := s.do(ctx, "list budgets", func(c *pgxpool.Conn) error {
		rows, err := c.Query(ctx, listBudgets)
		if err != nil {
			return err
		}
		list, err = pgx.CollectRows(rows, func(r pgx.CollectableRow) (store.Budget, error) { return scanBudget(r) })
		return err
	})
	return list, err
}

func scanBudget(r pgx.Row) (store.Budget, error) {
	var b store.Budget
	err := r.Scan(&b.Key, &b.Spent.Tokens, &b.Spent.Nanos, &b.Spent.Calls, &b.Taken.Tokens, &b.Taken.Nanos, &b.Taken.Calls,
		&b.Raised.Tokens, &b.Raised.Nanos, &b.Raised.Calls)
	return b, err
}

type budgetTx struct {
	ctx context.Context //nolint:containedctx // it lives as long as the call that it was given to
	tx  pgx.Tx
	now time.Time
}

func (t *budgetTx) exec(query string, args ...any) (int64, error) {
	tag, err := t.tx.Exec(t.ctx, query, args...)
	return tag.RowsAffected(), err
}

func (t *budgetTx) Now() time.Time { return t.now }

func (t *budgetTx) Budget(key string) (store.Budget, error) {
	return scanBudget(t.tx.QueryRow(t.ctx, readBudget, store.Clean(key)))
}

func (t *budgetTx) SetBudget(b store.Budget) error {
	_, err := t.exec(writeBudget, store.Clean(b.Key), b.Spent.Tokens, b.Spent.Nanos, b.Spent.Calls, b.Taken.Tokens, b.Taken.Nanos, b.Taken.Calls,
		b.Raised.Tokens, b.Raised.Nanos, b.Raised.Calls)
	return err
}

func (t *budgetTx) Slices(key string) ([]store.BudgetSlice, error) {
	rows, err := t.tx.Query(t.ctx, readSlices, store.Clean(key))
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, func(r pgx.CollectableRow) (store.BudgetSlice, error) {
		s := store.BudgetSlice{Key: key}
		err := r.Scan(&s.Replica, &s.Amount.Tokens, &s.Amount.Nanos, &s.Amount.Calls, &s.ExpiresAt)
		return s, err
	})
}

func (t *budgetTx) SetSlice(s store.BudgetSlice) error {
	_, err := t.exec(writeSlice, store.Clean(s.Key), store.Clean(s.Replica), s.Amount.Tokens, s.Amount.Nanos, s.Amount.Calls, s.ExpiresAt)
	return err
}

func (t *budgetTx) DropSlice(key, replica string) error {
	_, err := t.exec(dropSlice, store.Clean(key), store.Clean(replica))
	return err
}

func scanSpender(r pgx.Row) (store.BudgetRun, error) {
	var b store.BudgetRun
	var keys []byte
	if err := r.Scan((*string)(&b.Run), &b.Replica, &keys, &b.Settled.Tokens, &b.Settled.Nanos, &b.Settled.Calls); err != nil {
		return b, err
	}
	return b, json.Unmarshal(keys, &b.Keys)
}

func (t *budgetTx) Spender(run pipeline.RunID) (*store.BudgetRun, error) {
	b, err := scanSpender(t.tx.QueryRow(t.ctx, readSpender, string(run)))
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, nil //nolint:nilnil // as the interface says
	}
	return &b, err
}

func (t *budgetTx) Spenders(replica string) ([]store.BudgetRun, error) {
	rows, err := t.tx.Query(t.ctx, readSpenders, store.Clean(replica))
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, func(r pgx.CollectableRow) (store.BudgetRun, error) { return scanSpender(r) })
}

func (t *budgetTx) SetSpender(r store.BudgetRun) error {
	keys, err := json.Marshal(r.Keys)
	if err != nil {
		return err
	}
	_, err = t.exec(writeSpender, string(r.Run), store.Clean(r.Replica), store.Clean(string(keys)), r.Settled.Tokens, r.Settled.Nanos, r.Settled.Calls)
	return err
}

func (t *budgetTx) DropSpender(run pipeline.RunID) error {
	_, err := t.exec(dropSpender, string(run))
	return err
}

func (t *budgetTx) Raise(r store.BudgetRaise) (bool, error) {
	n, err := t.exec(writeRaise, store.Clean(r.ID), store.Clean(r.Key), r.By.Tokens, r.By.Nanos, r.By.Calls, store.Clean(r.Actor), t.now)
	return n == 1, err
}

const (
	makeRate = `INSERT INTO rate (key, tat) VALUES ($1, 0) ON CONFLICT DO NOTHING`
	holdRate = `SELECT tat, ` + nowMicros + ` FROM rate WHERE key = $1 FOR UPDATE`
	setRate  = `UPDATE rate SET tat = $2 WHERE key = $1`
)

// TakeRate implements store.Budgets.
func (s *Store) TakeRate(ctx context.Context, key string, r store.Rate, n int64, most time.Duration) (wait time.Duration, taken bool, err error) {
	key = store.Clean(key)
	err = s.do(ctx, "take turns of a rate", func(c *pgxpool.Conn) error {
		var tat, now int64
		return pgx.BeginFunc(ctx, c, func(tx pgx.Tx) error {
			err := tx.QueryRow(ctx, holdRate, key).Scan(&tat, &now)
			if errors.Is(err, pgx.ErrNoRows) {
				if _, err = tx.Exec(ctx, makeRate, key); err != nil {
					return err
				}
				err = tx.QueryRow(ctx, holdRate, key).Scan(&tat, &now)
			}
			if err != nil {
				return err
			}
			var next int64
			next, wait = r.Takes(now, tat, n)
			if taken = wait <= most; !taken {
				return nil
			}
			_, err = tx.Exec(ctx, setRate, key, next)
			return err
		})
	})
	return wait, taken, err
}
