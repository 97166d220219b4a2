package sqlite

import (
	"context"
	"database/sql"
	"fmt"
	"iter"
	"strings"

	"github.com/orchestrator-project/orchestrator/store"
)

// Dump implements store.Archive.
func (s *Store) Dump(ctx context.Context, emit func(*store.Table, []any) error) (epoch int64, err error) {
	tx, err := s.read.BeginTx(ctx, &sql.TxOptions{ReadOnly: true}) // the first read takes the snapshot
	if err != nil {
		return 0, storeError("back up", err)
	}
	defer func() { _ = tx.Rollback() }() // it has written nothing
	for _, t := range store.Tables {
		if err := dumpTable(ctx, tx, t, emit); err != nil {
			return 0, storeError("back up "+t.Name, err)
		}
	}
	err = tx.QueryRowContext(ctx, `SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'lane_lease'`).Scan(&epoch)
	return epoch, storeError("back up", err)
}

func dumpTable(ctx context.Context, tx *sql.Tx, t *store.Table, emit func(*store.Table, []any) error) error {
	list := make([]string, len(t.Columns))
	row, into := make([]any, len(t.Columns)), make([]any, len(t.Columns))
	for i, c := range t.Columns {
		into[i] = &row[i]
		if list[i] = `"` + c.Name + `"`; c.From != "" {
			list[i] = c.From
		}
	}
	rows, err := tx.QueryContext(ctx, fmt.Sprintf(`SELECT %s FROM %s ORDER BY %s`, strings.Join(list, ", "), t.Name, t.Order))
	if err != nil {
		return err
	}
	return drain(rows, func(r *sql.Rows) error {
		if err := r.Scan(into...); err != nil {
			return err
		}
		for i, c := range t.Columns {
			switch v := row[i].(type) {
			case []byte:
				switch c.Kind {
				case store.KeyColumn:
					if len(v) != 16 {
						return fmt.Errorf("column %s: a key of %d bytes", c.Name, len(v))
					}
					row[i] = [16]byte(v)
				case store.TextColumn, store.JSONColumn:
					row[i] = string(v)
				}
			case int64:
				if c.Kind == store.FloatColumn {
					row[i] = float64(v)
				}
			}
		}
		return emit(t, row)
	})
}

const (
	queueTheRest = `INSERT INTO run_queue (priority, run_id) SELECT priority, run_id FROM run
		WHERE status = 'QUEUED' AND run_id NOT IN (SELECT run_id FROM run_queue)`
	timersPriority = `UPDATE run_timer SET priority = (SELECT priority FROM run WHERE run.run_id = run_timer.run_id)`
	moveEpoch      = `UPDATE sqlite_sequence SET seq = max(seq, ?) WHERE name = 'lane_lease'`
	makeEpoch      = `INSERT INTO sqlite_sequence (name, seq) SELECT 'lane_lease', ? WHERE NOT EXISTS (SELECT 1 FROM sqlite_sequence WHERE name = 'lane_lease')`
)

// addedColumns are columns that only this child has; the end of Load fills them.
var addedColumns = map[string]map[string]any{"run_timer": {"priority": int64(0)}}

// Load implements store.Archive.
func (s *Store) Load(ctx context.Context, epoch int64, tables []*store.Table, rows func(*store.Table) iter.Seq2[[]any, error]) error {
	if _, err := s.Reclaim(ctx); err != nil {
		return err
	}
	return s.writer.do(ctx, "restore", func(t *tx) error {
		var there bool
		if err := t.row(`SELECT EXISTS (SELECT 1 FROM lane_lease)`, nil, &there); err != nil {
			return err
		}
		if there {
			return store.StoreInUse()
		}
		for _, name := range store.EmptyTables {
			if err := t.row(`SELECT EXISTS (SELECT 1 FROM `+name+`)`, nil, &there); err != nil {
				return err
			}
			if there {
				return store.StoreNotEmpty(name)
			}
		}
		for _, table := range tables {
			if _, err := t.exec(`DELETE FROM ` + table.Name); err != nil {
				return err
			}
			if err := t.load(ctx, table, rows(table)); err != nil {
				return err
			}
		}
		for _, end := range []struct {
			sql  string
			args []any
		}{{queueTheRest, nil}, {timersPriority, nil}, {moveEpoch, []any{epoch}}, {makeEpoch, []any{epoch}}} {
			if _, err := t.exec(end.sql, end.args...); err != nil {
				return err
			}
		}
		return nil
	})
}

func (t *tx) load(ctx context.Context, table *store.Table, rows iter.Seq2[[]any, error]) error {
	var names []string
	for _, c := range table.Columns {
		names = append(names, `"`+c.Name+`"`)
	}
	var more []any
	for name, v := range addedColumns[table.Name] {
		names, more = append(names, name), append(more, v)
	}
	insert := fmt.Sprintf(`INSERT INTO %s (%s) VALUES (?%s)`, table.Name, strings.Join(names, ", "), strings.Repeat(", ?", len(names)-1))
	for row, err := range rows {
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return err
		}
		args := make([]any, 0, len(names))
		for _, v := range row {
			if k, ok := v.([16]byte); ok {
				v = k[:]
			}
			args = append(args, v)
		}
		if _, err := t.exec(insert, append(args, more...)...); err != nil {
			return fmt.Errorf("table %s: %w", table.Name, err)
		}
	}
	return nil
}
