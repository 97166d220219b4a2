package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"path/filepath"
	"slices"
	"time"

	"github.com/orchestrator-project/orchestrator/pipeline"
	"github.com/orchestrator-project/orchestrator/store"
)

const (
	active = `status IN ('QUEUED','RUNNING','WAITING','PAUSED')`
	// needs lists what unfinished runs need: their own day, the run whose results
	// they use, those that they have begun.
	needs = `SELECT run_id, run_id FROM run WHERE ` + active + ` AND run_id < ?1
		UNION SELECT forked_from, run_id FROM run WHERE ` + active + ` AND forked_from IS NOT NULL AND forked_from < ?1
		UNION SELECT c.run_id, u.run_id FROM run u JOIN run c ON c.parent_run = u.run_id WHERE u.` + active + ` AND c.run_id < ?1
		ORDER BY 2`
	// idleRun is a finished run of a day that no unfinished one needs.
	idleRun = `SELECT r.run_id FROM run r WHERE r.run_id >= ? AND r.run_id < ? AND r.status IN ('COMPLETED','FAILED','CANCELLED')
			AND NOT EXISTS (SELECT 1 FROM run f WHERE f.forked_from = r.run_id AND f.` + active + `)
			AND NOT EXISTS (SELECT 1 FROM run p WHERE p.run_id = r.parent_run AND p.` + active + `)
		ORDER BY r.run_id LIMIT 1`

	dropRuns  = `DELETE FROM run WHERE run_id IN (SELECT run_id FROM run WHERE run_id >= ? AND run_id < ? LIMIT ?)`
	dropLog   = `DELETE FROM step_log WHERE rowid IN (SELECT rowid FROM step_log WHERE run_id >= ? AND run_id < ? LIMIT ?)`
	dropChunk = `DELETE FROM log_chunk WHERE cursor IN (SELECT cursor FROM log_chunk WHERE run_id >= ? AND run_id < ? LIMIT ?)`
	dropBlobs = `DELETE FROM blob WHERE rowid IN (SELECT rowid FROM blob WHERE day = ? LIMIT ?)`

	oldestRun  = `SELECT min(run_id) FROM run`
	oldBundles = `SELECT digest FROM bundle WHERE used_at < ?`
	allPlans   = `SELECT compiled FROM plan`

	sweepApprovals = `DELETE FROM approval WHERE id IN (SELECT id FROM approval a WHERE a.run_id < ?
		AND NOT EXISTS (SELECT 1 FROM run r WHERE r.run_id = a.run_id) LIMIT ?)`
	sweepFires = `DELETE FROM schedule_fire WHERE (schedule, fire_at) IN (SELECT schedule, fire_at FROM schedule_fire f
		WHERE NOT open AND decided_at < ? AND run_id IS NOT NULL AND NOT EXISTS (SELECT 1 FROM run r WHERE r.run_id = f.run_id) LIMIT ?)`
	sweepPlans = `DELETE FROM plan WHERE digest IN (SELECT digest FROM plan p WHERE used_at < ?
		AND NOT EXISTS (SELECT 1 FROM pipeline WHERE plan_digest = p.digest) AND NOT EXISTS (SELECT 1 FROM run WHERE plan_digest = p.digest) LIMIT ?)`
	sweepBundle   = `DELETE FROM bundle WHERE digest = ? AND used_at < ?`
	sweepOldKeys  = `DELETE FROM idempotency WHERE key IN (SELECT key FROM idempotency WHERE expires_at < ? LIMIT ?)`
	sweepOldCache = `DELETE FROM cache WHERE key IN (SELECT key FROM cache WHERE expires_at <= ? ORDER BY expires_at LIMIT ?)`
)

// dayTables find the rows of days: the first day from a key on, and what it takes.
// Sizes leave out what the file's pages and indexes add.
var dayTables = []struct{ name, next, size string }{
	{
		"run", `SELECT min(run_id) FROM run WHERE run_id >= ?`,
		`SELECT count(*), coalesce(sum(300 + coalesce(length(inputs), 0) + coalesce(length(outputs), 0) + coalesce(length(error), 0) + coalesce(length(labels), 0)), 0)
			FROM run WHERE run_id >= ? AND run_id < ?`,
	},
	{
		"step_log", `SELECT min(run_id) FROM step_log WHERE run_id >= ?`,
		`SELECT count(*), coalesce(sum(80 + length(type) + length(path) + coalesce(length(body), 0) + coalesce(length(blob), 0)), 0)
			FROM step_log WHERE run_id >= ? AND run_id < ?`,
	},
	{"blob", "", `SELECT count(*), coalesce(sum(90 + length(data)), 0) FROM blob WHERE day = ?`},
	{
		"log_chunk", `SELECT min(run_id) FROM log_chunk WHERE run_id >= ?`,
		`SELECT count(*), coalesce(sum(70 + length(path) + length(data)), 0) FROM log_chunk WHERE run_id >= ? AND run_id < ?`,
	},
}

const nextBlobDay = `SELECT min(day) FROM blob WHERE day >= ?`

func dayOf(key []byte) time.Time {
	return time.Unix(store.DayOf([16]byte(key))*24*60*60, 0).UTC()
}

// daysBefore lists the days that hold anything, up to a time; zero: all.
func (s *Store) daysBefore(ctx context.Context, before time.Time) ([]time.Time, error) {
	found := map[time.Time]bool{}
	for _, t := range dayTables {
		for from := (time.Time{}); ; {
			var day time.Time
			var err error
			if t.next == "" {
				var n sql.NullInt64
				err = s.query(ctx, nextBlobDay, []any{max(from.Unix()/86400, 0)}, func(r *sql.Rows) error { return r.Scan(&n) })
				if n.Valid {
					day = time.Unix(n.Int64*86400, 0).UTC()
				}
			} else {
				var key []byte
				first := store.FirstKey(from)
				err = s.query(ctx, t.next, []any{first[:]}, func(r *sql.Rows) error { return r.Scan(&key) })
				if key != nil {
					day = dayOf(key)
				}
			}
			if err != nil {
				return nil, err
			}
			if day.IsZero() || !before.IsZero() && !day.Before(before) {
				break
			}
			found[day] = true
			from = day.AddDate(0, 0, 1)
		}
	}
	var days []time.Time
	for d := range found {
		days = append(days, d)
	}
	slices.SortFunc(days, time.Time.Compare)
	return days, nil
}

func (s *Store) stragglers(ctx context.Context, before time.Time) ([]store.Straggler, error) {
	if before.IsZero() {
		return nil, nil
	}
	var list []store.Straggler
	at := map[time.Time]int{}
	seen := map[string]bool{}
	first := store.FirstKey(before)
	err := s.query(ctx, needs, []any{first[:]}, func(r *sql.Rows) error {
		var needed, by []byte
		if err := r.Scan(&needed, &by); err != nil {
			return err
		}
		day := dayOf(needed)
		pair := day.String() + string(by)
		if seen[pair] {
			return nil
		}
		seen[pair] = true
		i, ok := at[day]
		if !ok {
			i = len(list)
			at[day], list = i, append(list, store.Straggler{Day: day})
		}
		if list[i].Count++; list[i].Count <= store.StragglersShown {
			list[i].Runs = append(list[i].Runs, store.RunIDOf(by))
		}
		return nil
	})
	slices.SortFunc(list, func(a, b store.Straggler) int { return a.Day.Compare(b.Day) })
	return list, err
}

// Sweep implements store.Keeper. The file keeps the room for later.
func (s *Store) Sweep(ctx context.Context, c store.Cut) (store.SweepReport, error) {
	lock, err := store.TryLockFile(filepath.Join(s.lanesDir(), "sweep.lock"))
	if errors.Is(err, store.ErrFileLocked) {
		return store.SweepReport{Busy: true}, nil
	}
	if err != nil {
		return store.SweepReport{}, storeError("sweep", err)
	}
	defer lock.Release()
	w := &sweep{s: s}
	err = w.all(ctx, c.Guarded(time.Now()))
	return w.report, storeError("sweep", err)
}

// sweep is a sweep under way.
type sweep struct {
	s      *Store
	report store.SweepReport
}

func (w *sweep) all(ctx context.Context, c store.Cut) error {
	now := time.Now().UnixMicro()
	if !c.Drop.IsZero() {
		if err := w.days(ctx, c); err != nil {
			return err
		}
	}
	for _, t := range []struct {
		n   *int
		sql string
		arg any
		old bool // it goes with runs
	}{
		{&w.report.Keys, sweepOldKeys, now, false},
		{&w.report.Cached, sweepOldCache, now, false},
		{&w.report.Approvals, sweepApprovals, first(c.Drop), true},
		{&w.report.Fires, sweepFires, c.Drop.UnixMicro(), true},
	} {
		if t.old && c.Drop.IsZero() {
			continue
		}
		n, err := w.batches(ctx, t.sql, t.arg)
		*t.n += n
		if err != nil {
			return err
		}
	}
	if c.Drop.IsZero() {
		return nil
	}
	return w.content(ctx)
}

func first(day time.Time) []byte {
	key := store.FirstKey(day)
	return key[:]
}

// batches deletes until nothing is left, a little at a time: writers wait for no
// more than that. The last parameter of the statement is how many rows it may delete.
func (w *sweep) batches(ctx context.Context, query string, args ...any) (total int, err error) {
	args = append(args, store.SweepBatch)
	for {
		var n int64
		err := w.s.writer.do(ctx, "sweep", func(t *tx) (err error) {
			n, err = t.exec(query, args...)
			return err
		})
		total += int(n)
		if err != nil || n < store.SweepBatch {
			return total, err
		}
	}
}

// days lets go of days, the oldest first.
func (w *sweep) days(ctx context.Context, c store.Cut) (err error) {
	if w.report.Stragglers, err = w.s.stragglers(ctx, c.Drop); err != nil {
		return err
	}
	days, err := w.s.daysBefore(ctx, c.Drop)
	if err != nil {
		return err
	}
	for _, day := range days {
		if slices.ContainsFunc(w.report.Stragglers, func(s store.Straggler) bool { return s.Day.Equal(day) }) {
			if day.Before(c.Thin) {
				if err := w.thin(ctx, day); err != nil {
					return err
				}
			}
			continue
		}
		// Runs first: once they are gone nobody finds the rest.
		n, err := w.drop(ctx, first(day), first(day.AddDate(0, 0, 1)))
		w.report.Runs += n
		if err == nil {
			_, err = w.batches(ctx, dropBlobs, day.Unix()/86400)
		}
		if err != nil {
			return err
		}
		w.report.Days = append(w.report.Days, day)
	}
	return nil
}

// drop removes the runs between two keys, and returns how many.
func (w *sweep) drop(ctx context.Context, from, to []byte) (int, error) {
	runs, err := w.batches(ctx, dropRuns, from, to)
	for _, query := range []string{dropLog, dropChunk} {
		if err == nil {
			_, err = w.batches(ctx, query, from, to)
		}
	}
	return runs, err
}

// thin removes finished runs of a day that stays. Content is shared by the runs of
// a day and goes with it.
func (w *sweep) thin(ctx context.Context, day time.Time) error {
	for {
		var run []byte
		err := w.s.query(ctx, idleRun, []any{first(day), first(day.AddDate(0, 0, 1))}, func(r *sql.Rows) error { return r.Scan(&run) })
		if err != nil || run == nil {
			return err
		}
		after := slices.Clone(run)
		for i := len(after) - 1; i >= 0; i-- { // the next key
			if after[i]++; after[i] != 0 {
				break
			}
		}
		// The run goes last: without it nobody would find what a crash has left.
		for _, query := range []string{dropLog, dropChunk, dropRuns} {
			if _, err := w.batches(ctx, query, run, after); err != nil {
				return err
			}
		}
		w.report.Thinned++
	}
}

// content removes plans and bundles that serve nobody any more.
func (w *sweep) content(ctx context.Context) error {
	var key []byte
	if err := w.s.query(ctx, oldestRun, nil, func(r *sql.Rows) error { return r.Scan(&key) }); err != nil {
		return err
	}
	var oldest time.Time
	if key != nil {
		oldest = dayOf(key)
	}
	before := store.UnusedBefore(time.Now(), oldest).UnixMicro()
	var err error
	if w.report.Plans, err = w.batches(ctx, sweepPlans, before); err != nil {
		return err
	}
	var old []string
	err = w.s.query(ctx, oldBundles, []any{before}, func(r *sql.Rows) error {
		var d string
		err := r.Scan(&d)
		old = append(old, d)
		return err
	})
	if err != nil || len(old) == 0 {
		return err
	}
	named := map[pipeline.Digest]bool{}
	err = w.s.query(ctx, allPlans, nil, func(r *sql.Rows) error {
		var compiled sql.RawBytes
		if err := r.Scan(&compiled); err != nil {
			return err
		}
		d, err := store.BundleOf(compiled) // a plan that cannot be read may name any: all stay
		named[d] = true
		return err
	})
	if err != nil {
		return err
	}
	for _, d := range old {
		if named[pipeline.Digest(d)] {
			continue
		}
		err := w.s.writer.do(ctx, "sweep", func(t *tx) error {
			n, err := t.exec(sweepBundle, d, before)
			w.report.Bundles += int(n)
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// sharedSizes are the tables that belong to no day and may grow.
var sharedSizes = []struct{ name, size string }{
	{"approval", `SELECT count(*), coalesce(sum(100 + length(request) + coalesce(length(decisions), 0)), 0) FROM approval`},
	{"bundle", `SELECT count(*), coalesce(sum(100 + length(data)), 0) FROM bundle`},
	{"cache", `SELECT count(*), coalesce(sum(100 + length(value)), 0) FROM cache`},
	{"idempotency", `SELECT count(*), coalesce(sum(100 + length(key)), 0) FROM idempotency`},
	{"inbox", `SELECT count(*), coalesce(sum(100 + coalesce(length(body), 0)), 0) FROM inbox`},
	{"pipeline", `SELECT count(*), coalesce(sum(200 + length(description)), 0) FROM pipeline`},
	{"plan", `SELECT count(*), coalesce(sum(100 + length(source) + length(compiled)), 0) FROM plan`},
	{"run_queue", `SELECT count(*), count(*) * 120 FROM run_queue`},
	{"schedule", `SELECT count(*), count(*) * 300 FROM schedule`},
	{"schedule_fire", `SELECT count(*), count(*) * 80 FROM schedule_fire`},
}

const fileSize = `SELECT page_count * page_size FROM pragma_page_count(), pragma_page_size()`

// Growth implements store.Keeper.
func (s *Store) Growth(ctx context.Context, before time.Time) (store.Growth, error) {
	g, err := s.growth(ctx, before)
	return g, storeError("read what the store takes", err)
}

func (s *Store) growth(ctx context.Context, before time.Time) (g store.Growth, err error) {
	days, err := s.daysBefore(ctx, time.Time{})
	if err != nil {
		return g, err
	}
	size := func(name, query string, args ...any) (store.TableGrowth, error) {
		t := store.TableGrowth{Table: name}
		err := s.query(ctx, query, args, func(r *sql.Rows) error { return r.Scan(&t.Rows, &t.Bytes) })
		return t, err
	}
	for _, day := range days {
		d := store.DayGrowth{Day: day}
		for _, t := range dayTables {
			args := []any{first(day), first(day.AddDate(0, 0, 1))}
			if t.next == "" {
				args = []any{day.Unix() / 86400}
			}
			one, err := size(t.name, t.size, args...)
			if err != nil {
				return g, err
			}
			d.Tables = append(d.Tables, one)
		}
		g.Days = append(g.Days, d)
	}
	for _, t := range sharedSizes {
		one, err := size(t.name, t.size)
		if err != nil {
			return g, err
		}
		g.Shared = append(g.Shared, one)
	}
	if g.Stragglers, err = s.stragglers(ctx, before); err != nil {
		return g, err
	}
	err = s.query(ctx, fileSize, nil, func(r *sql.Rows) error { return r.Scan(&g.Bytes) })
	g.Sum(time.Now())
	return g, err
}
