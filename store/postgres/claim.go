package postgres

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/orchestrator-project/orchestrator/pipeline"
	"github.com/orchestrator-project/orchestrator/store"
)

// A claim waits for nobody. Whatever another transaction holds at the moment (a
// run, the row of a queue with a limit, the lock of a concurrency key) is left
// out; if that may have hidden something, the queue's bell rings here a moment
// later.
//
// Counts of slots are read by statements that begin after the lock has been
// taken, so that they see what its last holder has committed.

// pick is a run that a claim takes, or sets aside.
type pick struct {
	Queue       string
	Priority    int32
	Pass        int64
	Day         time.Time
	Run         [16]byte
	Pipeline    string
	Concurrency *string
	Most        int32
	Limited     bool    // its queue counts what runs
	At          float64 // its place among the queues, within its priority
}

const (
	// lockFreed takes the locks of concurrency keys of which slots were given
	// back, and letGo puts as many runs that wait for them back into line.
	lockFreed = `SELECT set_config('orchestrator.freed', coalesce((SELECT array_agg(key)::text FROM
		(SELECT DISTINCT key FROM (SELECT key FROM slot_freed LIMIT 256) f OFFSET 0) k WHERE ` + tryKey + `), '{}'), true)`
	letGo = `WITH gone AS (DELETE FROM slot_freed WHERE key = ANY(current_setting('orchestrator.freed')::text[]) RETURNING key)
		UPDATE run_queue SET held = 0 WHERE run_id IN (
			SELECT r.run_id FROM (SELECT key, count(*) AS n FROM gone GROUP BY key) g, LATERAL (SELECT run_id FROM run_queue q
				WHERE q.concurrency = g.key AND q.held = 1 ORDER BY q.priority DESC, q.pass, q.run_id LIMIT g.n) r)`
	freedLeft = `SELECT EXISTS (SELECT FROM slot_freed)`
	tryKey    = `pg_try_advisory_xact_lock(1870029925, hashtext(key))`

	// lockQueues takes the rows of the queues with limits that hold runs, and tells how
	// many it has taken of how many.
	lockQueues = `WITH limited AS (SELECT name FROM queue q, LATERAL (SELECT FROM run_queue r WHERE r.queue = q.name AND r.held = 0 LIMIT 1) r
			WHERE paused_at IS NULL AND (max_running IS NOT NULL OR every IS NOT NULL)),
		mine AS (SELECT q.name FROM queue q WHERE q.name = ANY(ARRAY(SELECT name FROM limited)) FOR NO KEY UPDATE SKIP LOCKED)
		SELECT set_config('orchestrator.queues', coalesce((SELECT array_agg(name)::text FROM mine), '{}'), true),
			(SELECT count(*) FROM mine), (SELECT count(*) FROM limited)`

	// lines are the queues that runs may start from, with how many may; the one
	// without a name is that of runs that are under way.
	lines = `line AS (
			SELECT '' AS name, '-Infinity'::float8 AS at, 0::float8 AS stride, $1::bigint AS room, false AS limited
			UNION ALL SELECT q.name, greatest(q.pass, (SELECT max(pass) FROM queue) - 1), 1 / q.weight::float8, least($1::bigint,
				CASE WHEN q.max_running IS NOT NULL THEN q.max_running - (SELECT count(*) FROM slot s WHERE s.key = 'queue ' || q.name) END,
				CASE WHEN q.every IS NOT NULL THEN greatest(0, (` + nowMicros + ` + (q.burst - 1) * q.every - greatest(` + nowMicros + `, q.tat) + q.every) / q.every) END),
				q.max_running IS NOT NULL
			FROM queue q WHERE q.paused_at IS NULL
				AND (q.max_running IS NULL AND q.every IS NULL OR q.name = ANY(current_setting('orchestrator.queues')::text[])))`
	nowMicros = `(extract(epoch FROM statement_timestamp()) * 1000000)::bigint`

	// pickQueued sees first, without locks, how the next runs are spread over
	// the lines, and then takes so many from each.
	pickQueued = `WITH ` + lines + `,
		share AS (SELECT name, count(*) AS n FROM (
				SELECT l.name FROM line l, LATERAL (SELECT priority, row_number() OVER () AS n FROM (SELECT priority FROM run_queue q
					WHERE q.queue = l.name AND q.held = 0 ORDER BY q.priority DESC, q.pass, q.run_id LIMIT l.room) q) q
				WHERE l.room > 0 ORDER BY q.priority DESC, l.at + q.n * l.stride, l.name LIMIT $1) s GROUP BY name)
		SELECT l.name, p.priority, p.pass, p.day, p.run_id, p.pipeline, p.concurrency, p.concurrency_max, l.limited,
			CASE l.name WHEN '' THEN l.at ELSE l.at + p.n * l.stride END
		FROM share s JOIN line l ON l.name = s.name, LATERAL (SELECT t.*, row_number() OVER () AS n FROM (
			SELECT q.* FROM (SELECT priority, pass, day, run_id, pipeline, concurrency, concurrency_max FROM run_queue q
					WHERE q.queue = s.name AND q.held = 0 ORDER BY q.priority DESC, q.pass, q.run_id) q,
				LATERAL (SELECT FROM run WHERE run.day = q.day AND run.run_id = q.run_id AND ` + claimable + ` FOR NO KEY UPDATE SKIP LOCKED) r
			LIMIT s.n) t) p`
	pickRun = `WITH ` + lines + `
		SELECT coalesce(q.queue, ''), run.priority, coalesce(q.pass, 0), run.day, run.run_id, run.pipeline, q.concurrency, coalesce(q.concurrency_max, 0),
			coalesce(l.limited, false), coalesce(l.at + l.stride, 0)
		FROM (SELECT * FROM run WHERE day = $2 AND run_id = $3 AND ` + claimable + ` FOR NO KEY UPDATE) run
			LEFT JOIN run_queue q ON q.run_id = run.run_id LEFT JOIN line l ON l.name = q.queue AND l.room > 0
		WHERE q.queue IS NULL OR l.name IS NOT NULL`
	runStatus = `SELECT status FROM run WHERE day = $1 AND run_id = $2`

	// Nobody resumes a pipeline while a claim relies on its being paused.
	lockPaused = `SELECT pipeline FROM paused_pipeline FOR KEY SHARE SKIP LOCKED`
	lockKeys   = `SELECT key FROM (SELECT DISTINCT u.key FROM unnest($1::text[]) AS u (key) OFFSET 0) k WHERE ` + tryKey
	usedSlots  = `SELECT substr(key, 5), count(*)::integer FROM slot WHERE key = ANY($1) GROUP BY key`

	setAside  = `UPDATE run_queue q SET held = u.held FROM unnest($1::uuid[], $2::smallint[]) AS u (run_id, held) WHERE q.run_id = u.run_id`
	unqueue   = `WITH gone AS (DELETE FROM run_timer WHERE run_id = ANY($1)) DELETE FROM run_queue WHERE run_id = ANY($1)`
	takeSlots = `INSERT INTO slot (key, run_id) SELECT * FROM unnest($1::text[], $2::uuid[]) ON CONFLICT DO NOTHING`
	// moveQueues and moveClocks leave out rows that another claim is moving: it
	// takes them about as far.
	moveQueues = `UPDATE queue q SET pass = greatest(q.pass, u.at),
			tat = CASE WHEN q.every IS NULL THEN q.tat ELSE greatest(q.tat, ` + nowMicros + `) + u.n * q.every END
		FROM unnest($1::text[], $2::float8[], $3::bigint[]) AS u (name, at, n)
		WHERE q.name = u.name AND q.name IN (SELECT name FROM queue WHERE name = ANY($1) FOR NO KEY UPDATE SKIP LOCKED)`
	moveClocks = `UPDATE fair_clock c SET pass = greatest(c.pass, u.pass)
		FROM unnest($1::text[], $2::integer[], $3::bigint[]) AS u (queue, priority, pass),
			LATERAL (SELECT FROM fair_clock f WHERE f.queue = u.queue AND f.priority = u.priority FOR NO KEY UPDATE SKIP LOCKED) free
		WHERE c.queue = u.queue AND c.priority = u.priority`
	sweepFair = `DELETE FROM fair_key WHERE ctid = ANY(ARRAY(
		SELECT k.ctid FROM unnest($1::text[], $2::integer[], $3::bigint[]) AS u (queue, priority, pass),
			LATERAL (SELECT k.ctid FROM fair_key k WHERE k.queue = u.queue AND k.priority = u.priority AND k.pass <= u.pass
				ORDER BY k.queue, k.priority, k.pass LIMIT 512 FOR UPDATE SKIP LOCKED) k))`
)

// claimSoon is when a claim that others were in the way of is made again.
const claimSoon = 50 * time.Millisecond

// Claim implements store.Lane. The rows to be owned are known before the
// transaction commits, so that a claim whose outcome is lost can be looked up.
func (l *lane) Claim(ctx context.Context, n int) ([]*pipeline.Run, error) {
	if n <= 0 {
		return nil, nil
	}
	var runs []*pipeline.Run
	err := l.try(ctx, func() error {
		var err error
		if runs, err = l.settle(ctx); err != nil {
			return err
		}
		for again := true; again && len(runs) < n; {
			var more []*pipeline.Run
			more, again, err = l.claimNext(ctx, n-len(runs))
			runs = append(runs, more...)
			if err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, l.s.fail(ctx, "claim runs", err)
	}
	return runs, nil
}

// claimNext is one transaction of a claim. If runs were set aside, others may
// stand behind them.
func (l *lane) claimNext(ctx context.Context, n int) (runs []*pipeline.Run, again bool, err error) {
	var hidden bool
	runs, aside, err := l.take(ctx, func() ([]pick, []pick, []store.HeldBy, error) {
		b := new(pgx.Batch)
		b.Queue("BEGIN")
		b.Queue(fence, l.epoch)
		b.Queue(queueDue, n)
		b.Queue(lockFreed)
		b.Queue(letGo)
		b.Queue(freedLeft).QueryRow(func(r pgx.Row) error { return r.Scan(&hidden) })
		b.Queue(lockQueues).QueryRow(func(r pgx.Row) error {
			var queues string
			var mine, all int
			err := r.Scan(&queues, &mine, &all)
			hidden = hidden || mine < all
			return err
		})
		var rows []pick
		b.Queue(pickQueued, n).Query(func(r pgx.Rows) (err error) {
			rows, err = pgx.CollectRows(r, pgx.RowToStructByPos[pick])
			return err
		})
		paused := pausedOf(b)
		if err := l.conn.SendBatch(ctx, b).Close(); err != nil {
			return nil, nil, nil, err
		}
		slices.SortFunc(rows, func(a, b pick) int {
			return cmp.Or(cmp.Compare(b.Priority, a.Priority), cmp.Compare(a.At, b.At), cmp.Compare(a.Queue, b.Queue),
				cmp.Compare(a.Pass, b.Pass), slices.Compare(a.Run[:], b.Run[:]))
		})
		take, held, why, unsure, err := l.admit(ctx, rows, *paused)
		hidden = hidden || unsure
		return take, held, why, err
	})
	if hidden {
		l.s.claimLater(claimSoon)
	}
	return runs, aside, err
}

func pausedOf(b *pgx.Batch) *map[string]bool {
	paused := make(map[string]bool)
	b.Queue(lockPaused).Query(func(r pgx.Rows) error {
		list, err := pgx.CollectRows(r, pgx.RowTo[string])
		for _, p := range list {
			paused[p] = true
		}
		return err
	})
	return &paused
}

// claimLater rings the queue's bell in this process.
func (s *Store) claimLater(wait time.Duration) {
	time.AfterFunc(wait, func() { s.bus.Deliver(store.Bell{Queued: true}) })
}

// admit sorts out which of the picked runs may start. Those whose key is locked
// by somebody else are neither taken nor set aside: nobody can be sure.
func (l *lane) admit(ctx context.Context, rows []pick, paused map[string]bool) (take, held []pick, why []store.HeldBy, unsure bool, err error) {
	var keys []string
	for i := range rows {
		if k := rows[i].Concurrency; k != nil && rows[i].Queue != "" && !paused[rows[i].Pipeline] && !slices.Contains(keys, *k) {
			keys = append(keys, *k)
		}
	}
	used := make(map[string]int32, len(keys))
	locked := make(map[string]bool, len(keys))
	if len(keys) > 0 {
		names := make([]string, len(keys))
		for i, k := range keys {
			names[i] = store.KeySlot(k)
		}
		b := new(pgx.Batch)
		b.Queue(lockKeys, keys).Query(func(r pgx.Rows) error {
			list, err := pgx.CollectRows(r, pgx.RowTo[string])
			for _, k := range list {
				locked[k] = true
			}
			return err
		})
		b.Queue(usedSlots, names).Query(func(r pgx.Rows) error {
			var key string
			var n int32
			_, err := pgx.ForEachRow(r, []any{&key, &n}, func() error {
				used[key] = n
				return nil
			})
			return err
		})
		if err := l.conn.SendBatch(ctx, b).Close(); err != nil {
			return nil, nil, nil, false, err
		}
	}
	for _, p := range rows {
		switch k := p.Concurrency; {
		case p.Queue == "":
		case paused[p.Pipeline]:
			held, why = append(held, p), append(why, store.HeldPipeline)
			continue
		case k == nil:
		case !locked[*k]:
			unsure = true
			continue
		case used[*k] >= p.Most:
			held, why = append(held, p), append(why, store.HeldSlot)
			continue
		default:
			used[*k]++
		}
		take = append(take, p)
	}
	return take, held, why, unsure, nil
}

// take owns the runs that choose says, sets others aside and commits the
// transaction that choose began. It tells whether it set any aside.
func (l *lane) take(ctx context.Context, choose func() (take, held []pick, why []store.HeldBy, err error)) ([]*pipeline.Run, bool, error) {
	rows, held, why, err := choose()
	if err != nil {
		return nil, false, err
	}
	b := new(pgx.Batch)
	if len(held) > 0 {
		_, ids := columns(held)
		b.Queue(setAside, ids, why)
	}
	var runs []*pipeline.Run
	if len(rows) > 0 {
		l.claiming = rows
		days, ids := columns(rows)
		b.Queue(unqueue, ids)
		b.Queue(own, l.epoch, days, ids).Query(func(r pgx.Rows) (err error) {
			runs, err = collectRuns(r, true)
			return err
		})
		account(b, rows)
	}
	b.Queue("COMMIT") // also where nothing is owned: due runs stand in line now
	if err := l.conn.SendBatch(ctx, b).Close(); err != nil {
		return nil, false, err
	}
	l.claiming = nil
	place := make(map[pipeline.RunID]int, len(rows))
	for i := range rows {
		place[store.RunIDOf(rows[i].Run[:])] = i
	}
	slices.SortFunc(runs, func(a, b *pipeline.Run) int { return place[a.ID] - place[b.ID] })
	return runs, len(held) > 0, nil
}

// account writes down what the runs hold and how far their lines have come.
func account(b *pgx.Batch, rows []pick) {
	type level struct {
		queue    string
		priority int32
	}
	type progress struct {
		at float64
		n  int64
	}
	var keys []string
	var holders [][16]byte
	clocks, queues := make(map[level]int64), make(map[string]progress)
	for i := range rows {
		p := &rows[i]
		if p.Queue == "" {
			continue
		}
		if p.Concurrency != nil {
			keys, holders = append(keys, store.KeySlot(*p.Concurrency)), append(holders, p.Run)
		}
		if p.Limited {
			keys, holders = append(keys, store.QueueSlot(p.Queue)), append(holders, p.Run)
		}
		at := level{p.Queue, p.Priority}
		clocks[at] = max(clocks[at], p.Pass)
		q := queues[p.Queue]
		queues[p.Queue] = progress{max(q.at, p.At), q.n + 1}
	}
	if len(keys) > 0 {
		b.Queue(takeSlots, keys, holders)
	}
	if len(queues) == 0 {
		return
	}
	var names, levels []string
	var ats []float64
	var ns, passes []int64
	var priorities []int32
	for name, q := range queues {
		names, ats, ns = append(names, name), append(ats, q.at), append(ns, q.n)
	}
	for at, pass := range clocks {
		levels, priorities, passes = append(levels, at.queue), append(priorities, at.priority), append(passes, pass)
	}
	b.Queue(moveQueues, names, ats, ns)
	b.Queue(moveClocks, levels, priorities, passes)
	b.Queue(sweepFair, levels, priorities, passes)
}

func columns(rows []pick) (days []time.Time, ids [][16]byte) {
	for i := range rows {
		days, ids = append(days, rows[i].Day), append(ids, rows[i].Run)
	}
	return days, ids
}

// ClaimRun implements store.Lane.
func (l *lane) ClaimRun(ctx context.Context, id pipeline.RunID) (*pipeline.Run, error) {
	k, err := runKey(id)
	if err != nil {
		return nil, err
	}
	var run *pipeline.Run
	err = l.try(ctx, func() error {
		if slices.ContainsFunc(l.claiming, func(p pick) bool { return p.Run == k }) {
			runs, err := l.settle(ctx)
			if err != nil {
				return err
			}
			for _, x := range runs {
				if x.ID == id {
					run = x
					return nil
				}
			}
		}
		var err error
		run, err = l.claimNamed(ctx, id, k)
		return err
	})
	if err != nil {
		return nil, l.s.fail(ctx, "claim run "+string(id), err)
	}
	return run, nil
}

// claimNamed takes one run, if its queue lets it start.
func (l *lane) claimNamed(ctx context.Context, id pipeline.RunID, k [16]byte) (*pipeline.Run, error) {
	var status pipeline.RunStatus
	b := new(pgx.Batch)
	b.Queue(fence, l.epoch)
	b.Queue(runStatus, id.Day(), k).QueryRow(func(r pgx.Row) error { return r.Scan(&status) })
	err := l.conn.SendBatch(ctx, b).Close()
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, runNotFound(id)
	}
	if err != nil {
		return nil, err
	}
	runs, _, err := l.take(ctx, func() (take, held []pick, why []store.HeldBy, err error) {
		b := new(pgx.Batch)
		b.Queue("BEGIN")
		b.Queue(fence, l.epoch)
		b.Queue(lockQueues)
		var rows []pick
		b.Queue(pickRun, 1, id.Day(), k).Query(func(r pgx.Rows) (err error) {
			rows, err = pgx.CollectRows(r, pgx.RowToStructByPos[pick])
			return err
		})
		paused := pausedOf(b)
		if err := l.conn.SendBatch(ctx, b).Close(); err != nil {
			return nil, nil, nil, err
		}
		take, _, _, _, err = l.admit(ctx, rows, *paused)
		return take, nil, nil, err
	})
	switch {
	case err != nil:
		return nil, err
	case len(runs) == 1:
		return runs[0], nil
	case status == pipeline.RunQueued:
		return nil, store.MayNotStart(id)
	}
	return nil, &pipeline.Error{Kind: pipeline.Conflict, Reason: "run_not_queued", Text: fmt.Sprintf("run %s is neither queued nor parked, it is %s", id, status)}
}
