package postgres

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/orchestrator-project/orchestrator/pipeline"
	"github.com/orchestrator-project/orchestrator/store"
)

// addedColumns are columns that only this child has, with the values that they begin
// with: how much the newest batch added to a key says nothing later.
var addedColumns = map[string]map[string]any{"fair_key": {"grown": int64(0), "stride": int64(0)}}

// Dump implements store.Archive. Sweeps wait for it, so that no table goes away
// under its snapshot.
func (s *Store) Dump(ctx context.Context, emit func(*store.Table, []any) error) (epoch int64, err error) {
	conn, err := s.connect(ctx, ``)
	if err != nil {
		return 0, s.fail(ctx, "back up", err)
	}
	defer release(conn)
	if _, err := conn.Exec(ctx, `SELECT pg_advisory_lock_shared($1)`, int64(keeperLock)); err != nil {
		return 0, s.fail(ctx, "back up", err)
	}
	tx, err := conn.BeginTx(ctx, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly})
	if err != nil {
		return 0, s.fail(ctx, "back up", err)
	}
	for _, t := range store.Tables {
		if err := dumpTable(ctx, tx, t, emit); err != nil {
			return 0, s.fail(ctx, "back up "+t.Name, err)
		}
	}
	err = tx.QueryRow(ctx, `SELECT last_value FROM lane_epoch`).Scan(&epoch)
	return epoch, s.fail(ctx, "back up", err)
}

func dumpTable(ctx context.Context, tx pgx.Tx, t *store.Table, emit func(*store.Table, []any) error) error {
	list := make([]string, len(t.Columns))
	for i, c := range t.Columns {
		list[i] = pgx.Identifier{c.Name}.Sanitize()
		switch {
		case c.From != "":
			list[i] = c.From
		case c.Kind == store.JSONColumn:
			list[i] += "::text"
		}
	}
	order := t.Order
	if t.ByDay {
		order = "day, " + order // as the ids sort, and as the partitions lie
	}
	rows, err := tx.Query(ctx, fmt.Sprintf(`SELECT %s FROM %s ORDER BY %s`, strings.Join(list, ", "), t.Name, order))
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		row, err := rows.Values()
		if err != nil {
			return err
		}
		for i, c := range t.Columns {
			if row[i], err = neutral(c.Kind, row[i]); err != nil {
				return fmt.Errorf("column %s: %w", c.Name, err)
			}
		}
		if err := emit(t, row); err != nil {
			return err
		}
	}
	return rows.Err()
}

// neutral is a value of a row as an archive has it.
func neutral(kind store.ColumnKind, v any) (any, error) {
	switch v := v.(type) {
	case nil, string, []byte, int64, float64, [16]byte:
		return v, nil
	case int16:
		return int64(v), nil
	case int32:
		return int64(v), nil
	case bool:
		if v {
			return int64(1), nil
		}
		return int64(0), nil
	case time.Time:
		if kind == store.DayColumn {
			return v.Unix() / 86400, nil
		}
		return v.UnixMicro(), nil
	}
	return nil, fmt.Errorf("a value of type %T", v)
}

// ownValue is a value of an archive as a row has it.
func ownValue(kind store.ColumnKind, v any) any {
	if v == nil {
		return nil
	}
	switch kind {
	case store.BoolColumn:
		return v.(int64) != 0
	case store.TimeColumn:
		return time.UnixMicro(v.(int64)).UTC()
	case store.DayColumn:
		return dayTime(v.(int64))
	case store.TextColumn, store.JSONColumn, store.BytesColumn, store.KeyColumn, store.IntColumn, store.FloatColumn:
	}
	return v
}

func dayTime(day int64) time.Time { return time.Unix(day*86400, 0).UTC() }

const (
	leaseThere   = `SELECT EXISTS (SELECT FROM lane_lease)`
	queueTheRest = `INSERT INTO run_queue (priority, day, run_id) SELECT priority, day, run_id FROM run r
		WHERE status = 'QUEUED' AND NOT EXISTS (SELECT FROM run_queue q WHERE q.run_id = r.run_id)`
	moveSequences = `SELECT setval('lane_epoch', greatest($1::bigint + 1, (SELECT last_value FROM lane_epoch)), true),
		setval('log_cursor', greatest((SELECT max(cursor) FROM log_chunk), 1)),
		setval(pg_get_serial_sequence('pipeline', 'seq'), greatest((SELECT max(seq) FROM pipeline), 1))`
)

// Load implements store.Archive.
func (s *Store) Load(ctx context.Context, epoch int64, tables []*store.Table, rows func(*store.Table) iter.Seq2[[]any, error]) error {
	if _, err := s.Reclaim(ctx); err != nil {
		return err
	}
	conn, err := s.connect(ctx, `SET lock_timeout = '5s'`)
	if err != nil {
		return s.fail(ctx, "restore", err)
	}
	defer discard(conn)
	err = pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, `LOCK TABLE lane_lease, run IN SHARE ROW EXCLUSIVE MODE`); err != nil {
			return err
		}
		if err := mustBeEmpty(ctx, tx); err != nil {
			return err
		}
		days := map[int64]bool{}
		for _, t := range tables {
			if _, err := tx.Exec(ctx, `DELETE FROM `+t.Name); err != nil {
				return err
			}
			if err := loadTable(ctx, tx, t, rows(t), days); err != nil {
				return err
			}
		}
		if _, err := tx.Exec(ctx, queueTheRest); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, moveSequences, epoch)
		return err
	})
	return s.fail(ctx, "restore", err)
}

func mustBeEmpty(ctx context.Context, tx pgx.Tx) error {
	var there bool
	if err := tx.QueryRow(ctx, leaseThere).Scan(&there); err != nil {
		return err
	}
	if there {
		return store.StoreInUse()
	}
	for _, name := range store.EmptyTables {
		if err := tx.QueryRow(ctx, `SELECT EXISTS (SELECT FROM `+name+`)`).Scan(&there); err != nil {
			return err
		}
		if there {
			return store.StoreNotEmpty(name)
		}
	}
	return nil
}

// loadTable copies the rows of a table. days are those whose partitions are there.
func loadTable(ctx context.Context, tx pgx.Tx, t *store.Table, rows iter.Seq2[[]any, error], days map[int64]bool) error {
	var names []string
	for _, c := range t.Columns {
		names = append(names, c.Name)
	}
	var more []any
	for name, v := range addedColumns[t.Name] {
		names, more = append(names, name), append(more, v)
	}
	if t.ByDay {
		names = append(names, "day")
	}
	// The partition of a day is made before its first row; meanwhile nothing else
	// may use the connection, so that a copy ends there and another begins.
	next, stop := iter.Pull2(rows)
	defer stop()
	var row []any
	var day int64
	read := func() error {
		r, err, ok := next()
		if !ok || err != nil {
			row = nil
			return err
		}
		row = make([]any, 0, len(names))
		for i, c := range t.Columns {
			row = append(row, ownValue(c.Kind, r[i]))
			switch {
			case c.Kind == store.DayColumn:
				day = r[i].(int64)
			case t.ByDay && c.Name == "run_id":
				day = store.DayOf(r[i].([16]byte))
			}
		}
		row = append(row, more...)
		if t.ByDay {
			row = append(row, dayTime(day))
		}
		return nil
	}
	if err := read(); err != nil {
		return err
	}
	byDay := t.Name != "run_queue" && t.Name != "run_timer" && (t.ByDay || t.Name == "blob")
	for row != nil {
		if byDay && !days[day] {
			if _, err := tx.Exec(ctx, `SELECT ensure_day($1)`, dayTime(day)); err != nil {
				return err
			}
			days[day] = true
		}
		from, first := day, true
		_, err := tx.CopyFrom(ctx, pgx.Identifier{t.Name}, names, pgx.CopyFromFunc(func() ([]any, error) {
			if !first {
				if err := read(); err != nil {
					return nil, err
				}
			}
			first = false
			if row == nil || byDay && day != from && !days[day] {
				return nil, nil
			}
			return row, nil
		}))
		if err != nil {
			if known, ok := errors.AsType[*pipeline.Error](err); ok {
				return known
			}
			return fmt.Errorf("table %s: %w", t.Name, err)
		}
	}
	return nil
}
