package postgres

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/orchestrator-project/orchestrator/pipeline"
	"github.com/orchestrator-project/orchestrator/store"
)

// keeperLock is the advisory lock of whoever sweeps; backups share it.
const keeperLock = 7811887430015

const (
	// partitions lists the tables of days, also those that a sweep which was
	// stopped has detached already.
	partitions = `SELECT c.relname, i.inhrelid IS NOT NULL, coalesce(i.inhdetachpending, false),
			pg_total_relation_size(c.oid), pg_relation_size(c.oid), greatest(c.reltuples, pg_stat_get_live_tuples(c.oid), 0)::bigint
		FROM pg_class c LEFT JOIN pg_inherits i ON i.inhrelid = c.oid
		WHERE c.relkind = 'r' AND c.relname ~ '^(run|step_log|blob|log_chunk)_[0-9]{8}$' AND pg_table_is_visible(c.oid) ORDER BY c.relname`

	active = `status IN ('QUEUED','RUNNING','WAITING','PAUSED')`
	// stragglers are the unfinished runs that need a day: their own, that of the run
	// whose results they use, those of runs that they have begun.
	stragglers = `SELECT day, count(*)::integer, (array_agg(run_id::text ORDER BY run_id))[1:$2] FROM (
			SELECT day, run_id FROM run WHERE ` + active + ` AND day < $1
			UNION SELECT run_day(forked_from), run_id FROM run WHERE ` + active + ` AND forked_from IS NOT NULL AND run_day(forked_from) < $1
			UNION SELECT c.day, u.run_id FROM run u JOIN run c ON c.parent_run = u.run_id WHERE u.` + active + ` AND c.day < $1) need
		GROUP BY day ORDER BY day`
	countRuns = `SELECT count(*) FROM run WHERE day = $1`
	// idleRuns are finished runs of a day that no unfinished one needs.
	idleRuns = `SELECT r.run_id FROM run r WHERE r.day = $1 AND r.status IN ('COMPLETED','FAILED','CANCELLED')
			AND NOT EXISTS (SELECT FROM run f WHERE f.forked_from = r.run_id AND f.` + active + `)
			AND NOT EXISTS (SELECT FROM run p WHERE p.day = run_day(r.parent_run) AND p.run_id = r.parent_run AND p.` + active + `)
		LIMIT 50`
	oldestDay  = `SELECT min(day) FROM run`
	oldBundles = `SELECT digest FROM bundle WHERE used_at < $1`
	allPlans   = `SELECT compiled FROM plan`

	sweepApprovals = `DELETE FROM approval WHERE id IN (SELECT id FROM approval a WHERE a.run_id < $1
		AND NOT EXISTS (SELECT FROM run r WHERE r.day = run_day(a.run_id) AND r.run_id = a.run_id) LIMIT $2)`
	sweepFires = `DELETE FROM schedule_fire WHERE (schedule, fire_at) IN (SELECT schedule, fire_at FROM schedule_fire f
		WHERE NOT open AND decided_at < $1 AND run_id IS NOT NULL
		AND NOT EXISTS (SELECT FROM run r WHERE r.day = run_day(f.run_id) AND r.run_id = f.run_id) LIMIT $2)`
	sweepPlans = `DELETE FROM plan WHERE used_at < $1 AND digest IN (SELECT digest FROM plan p WHERE used_at < $1
		AND NOT EXISTS (SELECT FROM pipeline WHERE plan_digest = p.digest) AND NOT EXISTS (SELECT FROM run WHERE plan_digest = p.digest) LIMIT $2)`
	sweepBundles = `DELETE FROM bundle WHERE used_at < $1 AND digest = ANY($2)`
	sweepKeys    = `DELETE FROM idempotency WHERE key IN (SELECT key FROM idempotency WHERE expires_at < statement_timestamp() LIMIT $1)`
)

// partition is the table of a day.
type partition struct {
	table, parent     string
	day               time.Time
	attached, pending bool
	bytes, heap, rows int64
}

func readPartitions(ctx context.Context, c *pgx.Conn) ([]partition, error) {
	rows, err := c.Query(ctx, partitions)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, func(r pgx.CollectableRow) (p partition, err error) {
		if err := r.Scan(&p.table, &p.attached, &p.pending, &p.bytes, &p.heap, &p.rows); err != nil {
			return p, err
		}
		at := strings.LastIndexByte(p.table, '_')
		p.parent = p.table[:at]
		p.day, err = time.Parse("20060102", p.table[at+1:])
		return p, err
	})
}

func readStragglers(ctx context.Context, c *pgx.Conn, before time.Time) ([]store.Straggler, error) {
	if before.IsZero() {
		return nil, nil
	}
	rows, err := c.Query(ctx, stragglers, before, store.StragglersShown)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, func(r pgx.CollectableRow) (s store.Straggler, err error) {
		var runs []string
		err = r.Scan(&s.Day, &s.Count, &runs)
		for _, id := range runs {
			s.Runs = append(s.Runs, pipeline.RunID(id))
		}
		return s, err
	})
}

// sweep is a sweep under way, on a connection of its own.
type sweep struct {
	conn   *pgx.Conn
	report store.SweepReport
}

// Sweep implements store.Keeper.
func (s *Store) Sweep(ctx context.Context, c store.Cut) (store.SweepReport, error) {
	c = c.Guarded(time.Now())
	conn, err := s.connect(ctx, `SET lock_timeout = '2s'`)
	if err != nil {
		return store.SweepReport{}, s.fail(ctx, "sweep", err)
	}
	defer release(conn)
	w := &sweep{conn: conn}
	var mine bool
	err = conn.QueryRow(ctx, `SELECT pg_try_advisory_lock($1)`, int64(keeperLock)).Scan(&mine)
	if err == nil && !mine {
		return store.SweepReport{Busy: true}, nil
	}
	if err == nil {
		err = w.all(ctx, c)
	}
	return w.report, s.fail(ctx, "sweep", err)
}

func (w *sweep) all(ctx context.Context, c store.Cut) error {
	if !c.Drop.IsZero() {
		if err := w.days(ctx, c); err != nil {
			return err
		}
	}
	for _, t := range []struct {
		n   *int
		sql string
		arg []any
		old bool // it goes with runs
	}{
		{&w.report.Keys, sweepKeys, nil, false},
		{&w.report.Cached, sweepCache, nil, false},
		{&w.report.Approvals, sweepApprovals, []any{store.FirstKey(c.Drop)}, true},
		{&w.report.Fires, sweepFires, []any{c.Drop}, true},
	} {
		if t.old && c.Drop.IsZero() {
			continue
		}
		if err := w.batches(ctx, t.n, t.sql, t.arg...); err != nil {
			return err
		}
	}
	if c.Drop.IsZero() {
		return nil
	}
	return w.content(ctx)
}

// batches deletes until nothing is left. The last parameter of the statement is
// how many rows it may delete.
func (w *sweep) batches(ctx context.Context, n *int, sql string, args ...any) error {
	args = append(args, store.SweepBatch)
	for {
		tag, err := w.conn.Exec(ctx, sql, args...)
		if err != nil {
			return err
		}
		*n += int(tag.RowsAffected())
		if tag.RowsAffected() < store.SweepBatch {
			return nil
		}
	}
}

// days lets go of days, the oldest first.
func (w *sweep) days(ctx context.Context, c store.Cut) error {
	var err error
	if w.report.Stragglers, err = readStragglers(ctx, w.conn, c.Drop); err != nil {
		return err
	}
	list, err := readPartitions(ctx, w.conn)
	if err != nil {
		return err
	}
	byDay := map[time.Time][]partition{}
	var days []time.Time
	for _, p := range list {
		if p.day.Before(c.Drop) {
			if byDay[p.day] == nil {
				days = append(days, p.day)
			}
			byDay[p.day] = append(byDay[p.day], p)
		}
	}
	slices.SortFunc(days, time.Time.Compare)
	for i, day := range days {
		if slices.ContainsFunc(w.report.Stragglers, func(s store.Straggler) bool { return s.Day.Equal(day) }) {
			if day.Before(c.Thin) {
				if err := w.thin(ctx, day); err != nil {
					return err
				}
			}
			continue
		}
		var runs int
		if err := w.conn.QueryRow(ctx, countRuns, day).Scan(&runs); err != nil {
			return err
		}
		err := w.drop(ctx, byDay[day])
		if locked(err) {
			// Another detached table of the same parent would have to wait for this one.
			w.report.Later = append(w.report.Later, days[i:]...)
			return nil
		}
		if err != nil {
			return err
		}
		w.report.Days = append(w.report.Days, day)
		w.report.Runs += runs
	}
	return nil
}

// locked tells whether a lock was not to be had in time. 55000 is what another
// detached table of the parent gives, whose end was not waited for.
func locked(err error) bool {
	pg, ok := errors.AsType[*pgconn.PgError](err)
	return ok && (pg.Code == "55P03" || pg.Code == "40P01" || pg.Code == "55000")
}

// drop removes the tables of a day, runs first: once they are gone nobody finds
// the rest. Detaching a table concurrently takes no lock that keeps writers of other
// days waiting.
func (w *sweep) drop(ctx context.Context, tables []partition) error {
	slices.SortFunc(tables, func(a, b partition) int {
		return slices.Index(store.DayTables, a.parent) - slices.Index(store.DayTables, b.parent)
	})
	for _, p := range tables {
		name, parent := pgx.Identifier{p.table}.Sanitize(), pgx.Identifier{p.parent}.Sanitize()
		if p.attached {
			how := "CONCURRENTLY"
			if p.pending {
				how = "FINALIZE"
			}
			if _, err := w.conn.Exec(ctx, fmt.Sprintf(`ALTER TABLE %s DETACH PARTITION %s %s`, parent, name, how)); err != nil {
				return err
			}
		}
		if _, err := w.conn.Exec(ctx, `DROP TABLE `+name); err != nil {
			return err
		}
	}
	return nil
}

// thin removes finished runs of a day that stays. Content is shared by the runs of
// a day and goes with it.
func (w *sweep) thin(ctx context.Context, day time.Time) error {
	for {
		rows, err := w.conn.Query(ctx, idleRuns, day)
		if err != nil {
			return err
		}
		runs, err := pgx.CollectRows(rows, pgx.RowTo[[16]byte])
		if err != nil || len(runs) == 0 {
			return err
		}
		b := new(pgx.Batch)
		for _, table := range []string{"log_chunk", "step_log", "run"} {
			b.Queue(`DELETE FROM `+table+` WHERE day = $1 AND run_id = ANY($2::uuid[])`, day, runs)
		}
		if err := w.conn.SendBatch(ctx, b).Close(); err != nil {
			return err
		}
		w.report.Thinned += len(runs)
	}
}

// content removes plans and bundles that serve nobody any more.
func (w *sweep) content(ctx context.Context) error {
	var oldest *time.Time
	if err := w.conn.QueryRow(ctx, oldestDay).Scan(&oldest); err != nil {
		return err
	}
	before := store.UnusedBefore(time.Now(), orZero(oldest))
	if err := w.batches(ctx, &w.report.Plans, sweepPlans, before); err != nil {
		return err
	}
	rows, err := w.conn.Query(ctx, oldBundles, before)
	if err != nil {
		return err
	}
	old, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil || len(old) == 0 {
		return err
	}
	named := map[pipeline.Digest]bool{}
	if rows, err = w.conn.Query(ctx, allPlans); err != nil {
		return err
	}
	var compiled []byte
	if _, err := pgx.ForEachRow(rows, []any{&compiled}, func() error {
		d, err := store.BundleOf(compiled) // a plan that cannot be read may name any: all stay
		named[d] = true
		return err
	}); err != nil {
		return err
	}
	old = slices.DeleteFunc(old, func(d string) bool { return named[pipeline.Digest(d)] })
	tag, err := w.conn.Exec(ctx, sweepBundles, before, old)
	w.report.Bundles = int(tag.RowsAffected())
	return err
}

func orZero(t *time.Time) time.Time {
	if t == nil {
		return time.Time{}
	}
	return *t
}

// countedHeap is the size up to which the rows of a table are counted.
const countedHeap = 16 << 20

const sharedTables = `SELECT c.relname, pg_total_relation_size(c.oid), pg_relation_size(c.oid), greatest(c.reltuples, pg_stat_get_live_tuples(c.oid), 0)::bigint
	FROM pg_class c WHERE c.relkind = 'r' AND c.relnamespace = (SELECT relnamespace FROM pg_class WHERE oid = 'run'::regclass)
		AND c.relname !~ '^(run|step_log|blob|log_chunk)_[0-9]{8}$' ORDER BY c.relname`

// Growth implements store.Keeper.
func (s *Store) Growth(ctx context.Context, before time.Time) (store.Growth, error) {
	var g store.Growth
	err := s.do(ctx, "read what the store takes", func(c *pgxpool.Conn) error {
		g = store.Growth{}
		list, err := readPartitions(ctx, c.Conn())
		if err != nil {
			return err
		}
		days := map[time.Time]*store.DayGrowth{}
		for _, p := range list {
			if p.heap == 0 && days[p.day] == nil && p.day.After(time.Now()) { // made ahead
				continue
			}
			d := days[p.day]
			if d == nil {
				d = &store.DayGrowth{Day: p.day}
				days[p.day] = d
			}
			if p.rows, err = counted(ctx, c, p.table, p.heap, p.rows); err != nil {
				return err
			}
			d.Tables = append(d.Tables, store.TableGrowth{Table: p.parent, Rows: p.rows, Bytes: p.bytes})
		}
		for _, d := range days {
			slices.SortFunc(d.Tables, func(a, b store.TableGrowth) int {
				return slices.Index(store.DayTables, a.Table) - slices.Index(store.DayTables, b.Table)
			})
			g.Days = append(g.Days, *d)
		}
		rows, err := c.Query(ctx, sharedTables)
		if err != nil {
			return err
		}
		shared, err := pgx.CollectRows(rows, func(r pgx.CollectableRow) (p partition, err error) {
			err = r.Scan(&p.table, &p.bytes, &p.heap, &p.rows)
			return p, err
		})
		if err != nil {
			return err
		}
		for _, p := range shared {
			if p.rows, err = counted(ctx, c, p.table, p.heap, p.rows); err != nil {
				return err
			}
			g.Shared = append(g.Shared, store.TableGrowth{Table: p.table, Rows: p.rows, Bytes: p.bytes})
		}
		if g.Stragglers, err = readStragglers(ctx, c.Conn(), before); err != nil {
			return err
		}
		return c.QueryRow(ctx, `SELECT pg_database_size(current_database())`).Scan(&g.Bytes)
	})
	g.Sum(time.Now())
	return g, err
}

// counted counts the rows of a small table; those of a large one are as many as
// the database's statistics say. A table that a sweep has dropped meanwhile has none.
func counted(ctx context.Context, c *pgxpool.Conn, table string, heap, estimate int64) (int64, error) {
	if heap > countedHeap {
		return estimate, nil
	}
	n := int64(0)
	err := c.QueryRow(ctx, `SELECT count(*) FROM `+pgx.Identifier{table}.Sanitize()).Scan(&n)
	if pg, ok := errors.AsType[*pgconn.PgError](err); ok && pg.Code == "42P01" {
		err = nil
	}
	return n, err
}
