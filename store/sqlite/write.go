package sqlite

import (
	"context"
	"database/sql"
	"time"

	"github.com/orchestrator-project/orchestrator/store"
)

// writer is the one connection that writes; whoever holds turn uses it.
type writer struct {
	turn  chan struct{}
	db    *sql.DB
	conn  *sql.Conn
	stmts map[string]*sql.Stmt
	tx    tx
	swept time.Time // when expired idempotency keys were last deleted
}

func newWriter(ctx context.Context, db *sql.DB) (*writer, error) {
	conn, err := db.Conn(ctx)
	if err != nil {
		return nil, err
	}
	w := &writer{turn: make(chan struct{}, 1), db: db, conn: conn, stmts: make(map[string]*sql.Stmt)}
	w.tx.w = w
	return w, nil
}

func (w *writer) close() error {
	w.turn <- struct{}{} // the last transaction has ended
	defer func() { <-w.turn }()
	for _, st := range w.stmts {
		st.Close()
	}
	clear(w.stmts)
	w.conn.Close()
	return w.db.Close()
}

// do runs f in one durable transaction.
func (w *writer) do(ctx context.Context, what string, f func(*tx) error) error {
	return w.run(ctx, what, false, f)
}

// relaxed runs f in a transaction that a crash of the machine may undo.
func (w *writer) relaxed(ctx context.Context, what string, f func(*tx) error) error {
	return w.run(ctx, what, true, f)
}

func (w *writer) run(ctx context.Context, what string, relaxed bool, f func(*tx) error) (err error) {
	select {
	case w.turn <- struct{}{}:
		defer func() { <-w.turn }()
	case <-ctx.Done():
		return ctx.Err()
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	t := &w.tx
	if relaxed {
		if _, err := t.exec("PRAGMA synchronous = NORMAL"); err != nil {
			return storeError(what, err)
		}
		defer func() {
			if _, e := t.exec("PRAGMA synchronous = FULL"); e != nil && err == nil {
				err = storeError(what, e)
			}
		}()
	}
	// Statements run to their end once begun: a transaction is short, and an
	// interrupted COMMIT would leave the outcome open for no gain.
	if _, err := t.exec("BEGIN IMMEDIATE"); err != nil {
		return storeError(what, err)
	}
	t.now = time.Now()
	err = f(t)
	if err == nil {
		_, err = t.exec("COMMIT")
	}
	if err != nil {
		_, _ = w.conn.ExecContext(context.Background(), "ROLLBACK") // some errors have rolled back already
		return storeError(what, err)
	}
	return nil
}

// tx is the running transaction of a writer.
type tx struct {
	w    *writer
	now  time.Time
	args []any // reused by statements of many rows
}

func (t *tx) stmt(query string) (*sql.Stmt, error) {
	if st := t.w.stmts[query]; st != nil {
		return st, nil
	}
	st, err := t.w.conn.PrepareContext(context.Background(), query)
	if err != nil {
		return nil, err
	}
	t.w.stmts[query] = st
	return st, nil
}

// exec returns the number of changed rows.
func (t *tx) exec(query string, args ...any) (int64, error) {
	st, err := t.stmt(query) //nolint:sqlclosecheck // it is kept with the connection
	if err != nil {
		return 0, err
	}
	res, err := st.ExecContext(context.Background(), args...)
	if err != nil {
		return 0, err
	}
	return res.RowsAffected()
}

// row reads one row; without one it returns sql.ErrNoRows.
func (t *tx) row(query string, args []any, into ...any) error {
	st, err := t.stmt(query) //nolint:sqlclosecheck // it is kept with the connection
	if err != nil {
		return err
	}
	return st.QueryRowContext(context.Background(), args...).Scan(into...)
}

// rows calls f for every row.
func (t *tx) rows(query string, args []any, f func(*sql.Rows) error) error {
	st, err := t.stmt(query) //nolint:sqlclosecheck // it is kept with the connection
	if err != nil {
		return err
	}
	rows, err := st.QueryContext(context.Background(), args...)
	if err != nil {
		return err
	}
	return drain(rows, f)
}

func drain(rows *sql.Rows, f func(*sql.Rows) error) error {
	defer rows.Close()
	for rows.Next() {
		if err := f(rows); err != nil {
			return err
		}
	}
	return rows.Err()
}

// text is a string for a column.
func text[S ~string](s S) string { return store.Clean(string(s)) }

// micros is a time for a column; the zero time is NULL.
func micros(t time.Time) any {
	if t.IsZero() {
		return nil
	}
	return t.UnixMicro()
}

func fromMicros(n sql.NullInt64) time.Time {
	if !n.Valid {
		return time.Time{}
	}
	return time.UnixMicro(n.Int64).UTC()
}

// null is b for a column that may be NULL.
func null(b []byte) any {
	if b == nil {
		return nil
	}
	return b
}
