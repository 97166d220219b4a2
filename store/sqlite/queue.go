package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"maps"
	"strings"
	"time"

	"github.com/orchestrator-project/orchestrator/pipeline"
	"github.com/orchestrator-project/orchestrator/store"
)

const (
	describeRun = `UPDATE run SET queue = ?, fair_key = ?, concurrency = ?, concurrency_max = ? WHERE run_id = ?`
	makeQueue   = `INSERT INTO queue (name) VALUES (?) ON CONFLICT DO NOTHING`
	makeClock   = `INSERT INTO fair_clock (queue, priority, pass) VALUES (?, ?, 0) ON CONFLICT DO NOTHING`
	readWeights = `SELECT weights FROM queue WHERE name = ?`
	// A key that was idle begins where the clock of its line is.
	growKey = `INSERT INTO fair_key AS f (queue, priority, key, pass)
		VALUES (?1, ?2, ?3, (SELECT pass FROM fair_clock WHERE queue = ?1 AND priority = ?2) + ?4)
		ON CONFLICT DO UPDATE SET pass = max(f.pass, excluded.pass - ?4) + ?4 RETURNING pass`
	enqueueRun = `INSERT INTO run_queue (priority, run_id, queue, pass, pipeline, fair_key, concurrency, concurrency_max, queued_at)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING`
)

// place records which queue a new run belongs to, and puts one that waits for
// its start into the line.
func (t *tx) place(r *pipeline.Run, id [16]byte) error {
	waits := r.Status == pipeline.RunQueued
	if !waits && r.Queue == "" && r.FairKey == "" && r.Concurrency.Key == "" {
		return nil
	}
	queue, fair := store.PlaceOf(r)
	var slot any
	if r.Concurrency.Key != "" {
		slot = text(r.Concurrency.Key)
	}
	if _, err := t.exec(describeRun, queue, fair, slot, r.Concurrency.Max, id[:]); err != nil || !waits {
		return err
	}
	if _, err := t.exec(makeQueue, queue); err != nil {
		return err
	}
	if _, err := t.exec(makeClock, queue, r.Priority); err != nil {
		return err
	}
	var weights string
	if err := t.row(readWeights, []any{queue}, &weights); err != nil {
		return err
	}
	stride := store.Stride(1)
	if weights != "{}" {
		m, err := store.DecodeWeights([]byte(weights))
		if err != nil {
			return err
		}
		stride = store.Stride(m[fair])
	}
	var pass int64
	if err := t.row(growKey, []any{queue, r.Priority, fair, stride}, &pass); err != nil {
		return err
	}
	_, err := t.exec(enqueueRun, r.Priority, id[:], queue, pass, text(r.Pipeline), fair, slot, r.Concurrency.Max, t.now.UnixMicro())
	return err
}

const (
	freeSlots = `DELETE FROM slot WHERE run_id = ? RETURNING key`
	// letGo lets the next run that waits for a slot stand in line again.
	letGo = `UPDATE run_queue SET held = 0 WHERE run_id =
		(SELECT run_id FROM run_queue WHERE concurrency = ? AND held = 1 ORDER BY priority DESC, pass, run_id LIMIT 1)`
)

// free gives back what a run that has finished held; it tells whether others may
// have waited for it.
func (t *tx) free(id [16]byte) (bool, error) {
	var keys []string
	err := t.rows(freeSlots, []any{id[:]}, func(r *sql.Rows) error {
		var key string
		err := r.Scan(&key)
		keys = append(keys, key)
		return err
	})
	if err != nil {
		return false, err
	}
	for _, k := range keys {
		if key, ok := strings.CutPrefix(k, store.KeySlot("")); ok {
			if _, err := t.exec(letGo, key); err != nil {
				return false, err
			}
		}
	}
	return len(keys) > 0, nil
}

func microseconds(n int64) time.Duration { return time.Duration(n) * time.Microsecond }

// queueGates lists the queues that are paused or limited, and whether runs may
// start from them.
const (
	queueGates = `SELECT name, paused_at IS NOT NULL, coalesce(max_running, 0), coalesce(every, 0), burst, tat,
			EXISTS (SELECT 1 FROM run_queue WHERE queue = name AND held = 0),
			(SELECT count(*) FROM slot WHERE key = 'queue ' || name)
		FROM queue WHERE paused_at IS NOT NULL OR max_running IS NOT NULL OR every IS NOT NULL
			OR EXISTS (SELECT 1 FROM run_queue WHERE queue = name AND held = 0) ORDER BY name`
	pausedPipelines = `SELECT pipeline FROM paused_pipeline ORDER BY pipeline`
)

type querier interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
}

// readGates tells whether some run may start from its queue, when the rate of a
// queue lets the next one start, and what is paused or limited.
func readGates(ctx context.Context, db querier, now time.Time) (ready bool, next time.Time, g store.Gates, err error) {
	rows, err := db.QueryContext(ctx, queueGates)
	if err != nil {
		return false, next, g, err
	}
	err = drain(rows, func(r *sql.Rows) error {
		var (
			name          string
			paused, waits bool
			limit, used   int64
			every, tat    int64
			rate          store.Rate
		)
		if err := r.Scan(&name, &paused, &limit, &every, &rate.Burst, &tat, &waits, &used); err != nil {
			return err
		}
		if paused || limit > 0 || every > 0 {
			g.Queues = append(g.Queues, name)
		}
		if paused || !waits || limit > 0 && used >= limit {
			return nil
		}
		if every > 0 {
			rate.Every = microseconds(every)
			if n, due := rate.Allows(now.UnixMicro(), tat); n == 0 {
				if at := time.UnixMicro(due).UTC(); next.IsZero() || at.Before(next) {
					next = at
				}
				return nil
			}
		}
		ready = true
		return nil
	})
	if err != nil {
		return false, next, g, err
	}
	rows, err = db.QueryContext(ctx, pausedPipelines)
	if err != nil {
		return false, next, g, err
	}
	err = drain(rows, func(r *sql.Rows) error {
		var id string
		err := r.Scan(&id)
		g.Pipelines = append(g.Pipelines, id)
		return err
	})
	return ready, next, g, err
}

// Gates implements store.Store.
func (s *Store) Gates(ctx context.Context) (store.Gates, error) {
	_, _, g, err := readGates(ctx, s.read, time.Now())
	return g, storeError("read what is paused", err)
}

const (
	queueColumns = `SELECT name, paused_at, paused_by, coalesce(max_running, 0), coalesce(every, 0), burst, weight, weights, tat FROM queue`
	readQueue    = queueColumns + ` WHERE name = ?`
	listQueues   = queueColumns + ` ORDER BY name`
	countWaiting = `SELECT queue, fair_key, count(*), sum(held <> 0), min(queued_at)
		FROM (SELECT queue, fair_key, held, queued_at FROM run_queue WHERE queue <> '' AND (?1 = '' OR queue = ?1) LIMIT ?2) GROUP BY queue, fair_key`
	countRunning = `SELECT coalesce(queue, ?), count(*) FROM run
		WHERE status IN ('QUEUED','RUNNING','WAITING','PAUSED') AND started_at IS NOT NULL GROUP BY 1`
)

func scanQueue(r *sql.Rows, now time.Time) (store.Queue, error) {
	var (
		q          store.Queue
		paused     sql.NullInt64
		by         string
		every, tat int64
		weights    []byte
	)
	if err := r.Scan(&q.Name, &paused, &by, &q.MaxRunning, &every, &q.Rate.Burst, &q.Weight, &weights, &tat); err != nil {
		return q, err
	}
	if paused.Valid {
		q.Paused = &store.Pause{At: fromMicros(paused), By: by}
	}
	q.SetRate(microseconds(every), tat, now)
	var err error
	q.Weights, err = store.DecodeWeights(weights)
	return q, err
}

// Queues implements store.Store.
func (s *Store) Queues(ctx context.Context) ([]store.Queue, error) {
	list, err := s.queues(ctx, "")
	return list, storeError("list queues", err)
}

// Queue implements store.Store.
func (s *Store) Queue(ctx context.Context, name string) (*store.Queue, error) {
	if err := store.QueueNamed(name); err != nil {
		return nil, err
	}
	list, err := s.queues(ctx, name)
	if err != nil {
		return nil, storeError("read queue "+name, err)
	}
	return &list[0], nil
}

// queues reads the queue of that name, or all if it is empty.
func (s *Store) queues(ctx context.Context, name string) ([]store.Queue, error) {
	var list []store.Queue
	query, args := listQueues, []any(nil)
	if name != "" {
		query, args = readQueue, []any{name}
	}
	now := time.Now()
	err := s.query(ctx, query, args, func(r *sql.Rows) error {
		q, err := scanQueue(r, now)
		list = append(list, q)
		return err
	})
	if err != nil {
		return nil, err
	}
	tally := store.NewTally(list, name)
	err = s.query(ctx, countWaiting, []any{name, store.CountMost}, func(r *sql.Rows) error {
		var queue, key string
		var n, held int32
		var oldest sql.NullInt64
		if err := r.Scan(&queue, &key, &n, &held, &oldest); err != nil {
			return err
		}
		tally.Waiting(queue, key, n, held, fromMicros(oldest))
		return nil
	})
	if err != nil {
		return nil, err
	}
	err = s.query(ctx, countRunning, []any{pipeline.DefaultQueue}, func(r *sql.Rows) error {
		var queue string
		var n int32
		err := r.Scan(&queue, &n)
		tally.Running(queue, n)
		return err
	})
	return tally.Queues(), err
}

const (
	pauseQueue = `UPDATE queue SET paused_at = CASE WHEN ?2 THEN coalesce(paused_at, ?3) END,
		paused_by = CASE WHEN NOT ?2 THEN '' WHEN paused_at IS NULL THEN ?4 ELSE paused_by END WHERE name = ?1`
	limitQueue  = `UPDATE queue SET max_running = nullif(?, 0) WHERE name = ?`
	rateQueue   = `UPDATE queue SET every = nullif(?, 0), burst = ?, tat = 0 WHERE name = ?`
	weighQueue  = `UPDATE queue SET weight = ? WHERE name = ?`
	weighKeys   = `UPDATE queue SET weights = ? WHERE name = ?`
	dropSlots   = `DELETE FROM slot WHERE key = ?`
	countActive = `INSERT INTO slot (key, run_id, at) SELECT ?1, run_id, ?2 FROM run
		WHERE status IN ('QUEUED','RUNNING','WAITING','PAUSED') AND started_at IS NOT NULL AND coalesce(queue, ?4) = ?3 ON CONFLICT DO NOTHING`
)

// SetQueue implements store.Store.
func (s *Store) SetQueue(ctx context.Context, name string, c store.QueueChange) (*store.Queue, error) {
	if err := store.QueueNamed(name); err != nil {
		return nil, err
	}
	if err := c.Check(); err != nil {
		return nil, err
	}
	err := s.writer.do(ctx, "set queue "+name, func(t *tx) error { return t.setQueue(name, &c) })
	if err != nil {
		return nil, err
	}
	s.Ring(store.Bell{Queued: true, Gates: true})
	return s.Queue(ctx, name)
}

func (t *tx) setQueue(name string, c *store.QueueChange) error {
	steps := []func() (int64, error){func() (int64, error) { return t.exec(makeQueue, name) }}
	step := func(query string, args ...any) {
		steps = append(steps, func() (int64, error) { return t.exec(query, args...) })
	}
	if c.Paused != nil {
		step(pauseQueue, name, *c.Paused, t.now.UnixMicro(), text(c.Actor))
	}
	if c.MaxRunning != nil {
		step(limitQueue, *c.MaxRunning, name)
		if *c.MaxRunning == 0 {
			step(dropSlots, store.QueueSlot(name))
		} else {
			step(countActive, store.QueueSlot(name), t.now.UnixMicro(), name, pipeline.DefaultQueue)
		}
	}
	if c.Rate != nil {
		step(rateQueue, c.Rate.Every.Microseconds(), max(c.Rate.Burst, 1), name)
	}
	if c.Weight != nil {
		step(weighQueue, *c.Weight, name)
	}
	for _, f := range steps {
		if _, err := f(); err != nil {
			return err
		}
	}
	if len(c.Weights) == 0 {
		return nil
	}
	var weights []byte
	if err := t.row(readWeights, []any{name}, &weights); err != nil {
		return err
	}
	m, err := store.DecodeWeights(weights)
	if err != nil {
		return err
	}
	maps.Copy(m, c.Weights)
	_, err = t.exec(weighKeys, string(store.EncodeWeights(m)), name)
	return err
}

const (
	insertPause = `INSERT INTO paused_pipeline (pipeline, at, actor) VALUES (?, ?, ?) ON CONFLICT DO NOTHING`
	deletePause = `DELETE FROM paused_pipeline WHERE pipeline = ?`
	letGoOn     = `UPDATE run_queue SET held = 0 WHERE pipeline = ? AND held = 2`
	readPause   = `SELECT at, actor FROM paused_pipeline WHERE pipeline = ?`
)

// PausePipeline implements store.Store.
func (s *Store) PausePipeline(ctx context.Context, id string, paused bool, actor string) (*store.Pause, error) {
	err := s.writer.do(ctx, "pause or resume pipeline "+id, func(t *tx) error {
		if paused {
			_, err := t.exec(insertPause, text(id), t.now.UnixMicro(), text(actor))
			return err
		}
		if _, err := t.exec(deletePause, text(id)); err != nil {
			return err
		}
		_, err := t.exec(letGoOn, text(id))
		return err
	})
	if err != nil {
		return nil, err
	}
	s.Ring(store.Bell{Queued: true, Gates: true})
	return s.PipelinePaused(ctx, id)
}

// PipelinePaused implements store.Store.
func (s *Store) PipelinePaused(ctx context.Context, id string) (*store.Pause, error) {
	var p *store.Pause
	err := s.query(ctx, readPause, []any{text(id)}, func(r *sql.Rows) error {
		var at sql.NullInt64
		p = new(store.Pause)
		err := r.Scan(&at, &p.By)
		p.At = fromMicros(at)
		return err
	})
	return p, storeError("read pipeline "+id, err)
}

const (
	readStanding = `SELECT queue, priority, pass, held, queued_at FROM run_queue WHERE run_id = ?`
	countAhead   = `SELECT count(*) FROM (SELECT 1 FROM run_queue WHERE queue = ?1 AND held = 0 AND priority > ?2 LIMIT ?5)
		UNION ALL SELECT count(*) FROM (SELECT 1 FROM run_queue WHERE queue = ?1 AND held = 0 AND priority = ?2 AND (pass, run_id) < (?3, ?4) LIMIT ?5)`
	readHolders = `SELECT run_id FROM slot WHERE key = ? ORDER BY at, run_id LIMIT 10`
	readDue     = `SELECT due_at FROM run_timer WHERE run_id = ?`
	readOwner   = `SELECT l.replica, l.epoch FROM run r JOIN lane_lease l ON l.epoch = r.lane_epoch WHERE r.run_id = ?`
	readOwners  = `SELECT l.epoch, l.replica, (SELECT count(*) FROM run WHERE lane_epoch = l.epoch AND status IN ('QUEUED','RUNNING','WAITING','PAUSED'))
		FROM lane_lease l`
)

// Standing implements store.Store.
func (s *Store) Standing(ctx context.Context, id pipeline.RunID) (*store.Standing, error) {
	run, err := s.Run(ctx, id)
	if err != nil {
		return nil, err
	}
	st := &store.Standing{Run: run}
	if err := s.standing(ctx, st); err != nil {
		return nil, storeError("read where run "+string(id)+" stands", err)
	}
	return st, nil
}

func (s *Store) standing(ctx context.Context, st *store.Standing) error {
	run := st.Run
	run.Inputs, run.Outputs = nil, nil
	k, err := key(run.ID)
	if err != nil {
		return err
	}
	var queue string
	var priority, pass int64
	err = s.query(ctx, readStanding, []any{k[:]}, func(r *sql.Rows) error {
		var queued sql.NullInt64
		st.Waits = true
		err := r.Scan(&queue, &priority, &pass, &st.Held, &queued)
		st.Since, st.UnderWay = fromMicros(queued), queue == ""
		return err
	})
	if err != nil {
		return err
	}
	if st.Pipeline, err = s.PipelinePaused(ctx, run.Pipeline); err != nil {
		return err
	}
	if st.Waits {
		err = s.query(ctx, countAhead, []any{queue, priority, pass, k[:], store.AheadMost}, func(r *sql.Rows) error {
			var n int32
			err := r.Scan(&n)
			st.Ahead = min(st.Ahead+n, store.AheadMost)
			return err
		})
	}
	if err == nil && st.Waits && queue != "" {
		now := time.Now()
		err = s.query(ctx, readQueue, []any{queue}, func(r *sql.Rows) error {
			q, err := scanQueue(r, now)
			st.Queue = &q
			return err
		})
		if err == nil {
			err = s.query(ctx, countSlots, []any{store.QueueSlot(queue)}, func(r *sql.Rows) error { return r.Scan(&st.Running) })
		}
	}
	if err == nil && run.Concurrency.Key != "" {
		err = s.query(ctx, readHolders, []any{store.KeySlot(run.Concurrency.Key)}, func(r *sql.Rows) error {
			var id []byte
			err := r.Scan(&id)
			st.Holders = append(st.Holders, store.RunIDOf(id))
			return err
		})
	}
	if err == nil {
		err = s.query(ctx, readDue, []any{k[:]}, func(r *sql.Rows) error {
			var due sql.NullInt64
			err := r.Scan(&due)
			st.Due = fromMicros(due)
			return err
		})
	}
	if err != nil {
		return err
	}
	return s.owners(ctx, st, k)
}

// owners reads who owns the run and who lives. A lane lives while its file is locked.
func (s *Store) owners(ctx context.Context, st *store.Standing, run [16]byte) error {
	free := make(map[int64]bool)
	for _, e := range s.freeLocks() {
		free[e] = true
	}
	err := s.query(ctx, readOwner, []any{run[:]}, func(r *sql.Rows) error {
		var epoch int64
		err := r.Scan(&st.Replica, &epoch)
		st.Dead = free[epoch]
		return err
	})
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return err
	}
	st.Replicas = make(map[store.ReplicaID]int)
	return s.query(ctx, readOwners, nil, func(r *sql.Rows) error {
		var epoch int64
		var replica store.ReplicaID
		var runs int
		err := r.Scan(&epoch, &replica, &runs)
		if err == nil && !free[epoch] {
			st.Replicas[replica] += runs
		}
		return err
	})
}
