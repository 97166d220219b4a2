package postgres

import (
	"context"
	"errors"
	"maps"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/orchestrator-project/orchestrator/pipeline"
	"github.com/orchestrator-project/orchestrator/store"
)

const (
	// A sub-select with a limit walks along the index, where EXISTS may read the
	// whole queue into a hash.
	//
	// gates are the queues: closed says that new runs must not pass by them,
	// ready that runs wait and no limit but the rate holds them back, and wait how
	// many microseconds that does.
	gates = `gate AS (SELECT q.name, q.paused_at IS NOT NULL OR q.max_running IS NOT NULL OR q.every IS NOT NULL AS closed,
			q.paused_at IS NULL AND (SELECT true FROM run_queue r WHERE r.queue = q.name AND r.held = 0 LIMIT 1) IS TRUE
				AND (q.max_running IS NULL OR q.max_running > (SELECT count(*) FROM slot s WHERE s.key = 'queue ' || q.name)) AS ready,
			CASE WHEN q.every IS NULL THEN 0 ELSE greatest(0, q.tat - (q.burst - 1) * q.every - ` + nowMicros + `) END AS wait
		FROM queue q)`
	gatesOf = `(SELECT array_agg(name ORDER BY name) FROM gate WHERE closed),
		(SELECT array_agg(pipeline ORDER BY pipeline) FROM paused_pipeline)`
	readGates = `WITH ` + gates + ` SELECT ` + gatesOf
)

// Gates implements store.Store.
func (s *Store) Gates(ctx context.Context) (store.Gates, error) {
	var g store.Gates
	err := s.do(ctx, "read what is paused", func(c *pgxpool.Conn) error {
		return c.QueryRow(ctx, readGates).Scan(&g.Queues, &g.Pipelines)
	})
	return g, err
}

const (
	queueColumns = `SELECT name, paused_at, paused_by, coalesce(max_running, 0), coalesce(every, 0), burst, weight, weights::text, tat FROM queue`
	readQueue    = queueColumns + ` WHERE name = $1`
	listQueues   = queueColumns + ` WHERE $1 = '' OR name = $1 ORDER BY name`
	countWaiting = `SELECT queue, fair_key, count(*)::integer, count(*) FILTER (WHERE held <> 0)::integer, min(queued_at)
		FROM (SELECT queue, fair_key, held, queued_at FROM run_queue WHERE queue <> '' AND ($1 = '' OR queue = $1) LIMIT $2) q GROUP BY queue, fair_key`
	countRunning = `SELECT coalesce(queue, $1), count(*)::integer FROM run
		WHERE status IN ('QUEUED','RUNNING','WAITING','PAUSED') AND started_at IS NOT NULL GROUP BY 1`
)

func scanQueue(row pgx.Row, now time.Time) (store.Queue, error) {
	var (
		q          store.Queue
		paused     *time.Time
		by         string
		every, tat int64
		weights    string
	)
	if err := row.Scan(&q.Name, &paused, &by, &q.MaxRunning, &every, &q.Rate.Burst, &q.Weight, &weights, &tat); err != nil {
		return q, err
	}
	if paused != nil {
		q.Paused = &store.Pause{At: paused.UTC(), By: by}
	}
	q.SetRate(time.Duration(every)*time.Microsecond, tat, now)
	var err error
	q.Weights, err = store.DecodeWeights([]byte(weights))
	return q, err
}

// Queues implements store.Store.
func (s *Store) Queues(ctx context.Context) ([]store.Queue, error) { return s.queues(ctx, "") }

// Queue implements store.Store.
func (s *Store) Queue(ctx context.Context, name string) (*store.Queue, error) {
	if err := store.QueueNamed(name); err != nil {
		return nil, err
	}
	list, err := s.queues(ctx, name)
	if err != nil {
		return nil, err
	}
	return &list[0], nil
}

// queues reads the queue of that name, or all if it is empty.
func (s *Store) queues(ctx context.Context, name string) ([]store.Queue, error) {
	var list []store.Queue
	err := s.do(ctx, "read queues", func(c *pgxpool.Conn) error {
		now := time.Now()
		rows, err := c.Query(ctx, listQueues, name)
		if err != nil {
			return err
		}
		settings, err := pgx.CollectRows(rows, func(r pgx.CollectableRow) (store.Queue, error) { return scanQueue(r, now) })
		if err != nil {
			return err
		}
		tally := store.NewTally(settings, name)
		var queue, key string
		var n, held int32
		var oldest time.Time
		if rows, err = c.Query(ctx, countWaiting, name, store.CountMost); err != nil {
			return err
		}
		_, err = pgx.ForEachRow(rows, []any{&queue, &key, &n, &held, &oldest}, func() error {
			tally.Waiting(queue, key, n, held, oldest.UTC())
			return nil
		})
		if err != nil {
			return err
		}
		if rows, err = c.Query(ctx, countRunning, pipeline.DefaultQueue); err != nil {
			return err
		}
		_, err = pgx.ForEachRow(rows, []any{&queue, &n}, func() error {
			tally.Running(queue, n)
			return nil
		})
		list = tally.Queues()
		return err
	})
	return list, err
}

const (
	makeQueue  = `INSERT INTO queue (name) VALUES ($1) ON CONFLICT DO NOTHING`
	pauseQueue = `UPDATE queue SET paused_at = CASE WHEN $2 THEN coalesce(paused_at, clock_timestamp()) END,
		paused_by = CASE WHEN NOT $2 THEN '' WHEN paused_at IS NULL THEN $3 ELSE paused_by END WHERE name = $1`
	limitQueue  = `UPDATE queue SET max_running = nullif($2::integer, 0) WHERE name = $1`
	rateQueue   = `UPDATE queue SET every = nullif($2::bigint, 0), burst = $3, tat = 0 WHERE name = $1`
	weighQueue  = `UPDATE queue SET weight = $2 WHERE name = $1`
	lockWeights = `SELECT weights::text FROM queue WHERE name = $1 FOR NO KEY UPDATE`
	weighKeys   = `UPDATE queue SET weights = $2::text::jsonb WHERE name = $1`
	dropSlots   = `DELETE FROM slot WHERE key = $1`
	countActive = `INSERT INTO slot (key, run_id) SELECT $1, run_id FROM run
		WHERE status IN ('QUEUED','RUNNING','WAITING','PAUSED') AND started_at IS NOT NULL AND coalesce(queue, $3) = $2 ON CONFLICT DO NOTHING`
)

// SetQueue implements store.Store.
func (s *Store) SetQueue(ctx context.Context, name string, c store.QueueChange) (*store.Queue, error) {
	if err := store.QueueNamed(name); err != nil {
		return nil, err
	}
	if err := c.Check(); err != nil {
		return nil, err
	}
	err := s.do(ctx, "set queue "+name, func(conn *pgxpool.Conn) error {
		return pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error { return setQueue(ctx, tx, name, &c) })
	})
	if err != nil {
		return nil, err
	}
	s.Ring(store.Bell{Queued: true, Gates: true})
	return s.Queue(ctx, name)
}

func setQueue(ctx context.Context, tx pgx.Tx, name string, c *store.QueueChange) error {
	b := new(pgx.Batch)
	b.Queue(makeQueue, name)
	if c.Paused != nil {
		b.Queue(pauseQueue, name, *c.Paused, store.Clean(c.Actor))
	}
	if c.MaxRunning != nil {
		b.Queue(limitQueue, name, *c.MaxRunning)
		if *c.MaxRunning == 0 {
			b.Queue(dropSlots, store.QueueSlot(name))
		} else {
			b.Queue(countActive, store.QueueSlot(name), name, pipeline.DefaultQueue)
		}
	}
	if c.Rate != nil {
		b.Queue(rateQueue, name, c.Rate.Every.Microseconds(), max(c.Rate.Burst, 1))
	}
	if c.Weight != nil {
		b.Queue(weighQueue, name, *c.Weight)
	}
	if err := tx.SendBatch(ctx, b).Close(); err != nil || len(c.Weights) == 0 {
		return err
	}
	var text string
	if err := tx.QueryRow(ctx, lockWeights, name).Scan(&text); err != nil {
		return err
	}
	m, err := store.DecodeWeights([]byte(text))
	if err != nil {
		return err
	}
	maps.Copy(m, c.Weights)
	_, err = tx.Exec(ctx, weighKeys, name, string(store.EncodeWeights(m)))
	return err
}

const (
	insertPause = `INSERT INTO paused_pipeline (pipeline, at, actor) VALUES ($1, clock_timestamp(), $2) ON CONFLICT DO NOTHING`
	deletePause = `DELETE FROM paused_pipeline WHERE pipeline = $1`
	// letGoOn follows deletePause, which waits for claims that rely on the pause, and so
	// sees what they have set aside.
	letGoOn   = `UPDATE run_queue SET held = 0 WHERE pipeline = $1 AND held = 2`
	readPause = `SELECT at, actor FROM paused_pipeline WHERE pipeline = $1`
)

// PausePipeline implements store.Store.
func (s *Store) PausePipeline(ctx context.Context, id string, paused bool, actor string) (*store.Pause, error) {
	id = store.Clean(id)
	err := s.do(ctx, "pause or resume pipeline "+id, func(c *pgxpool.Conn) error {
		if paused {
			_, err := c.Exec(ctx, insertPause, id, store.Clean(actor))
			return err
		}
		return pgx.BeginFunc(ctx, c, func(tx pgx.Tx) error {
			if _, err := tx.Exec(ctx, deletePause, id); err != nil {
				return err
			}
			_, err := tx.Exec(ctx, letGoOn, id)
			return err
		})
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
	err := s.do(ctx, "read pipeline "+id, func(c *pgxpool.Conn) error {
		p = new(store.Pause)
		err := c.QueryRow(ctx, readPause, store.Clean(id)).Scan(&p.At, &p.By)
		if errors.Is(err, pgx.ErrNoRows) {
			p, err = nil, nil
		}
		return err
	})
	if p != nil {
		p.At = p.At.UTC()
	}
	return p, err
}

const (
	readPlace  = `SELECT queue, priority, pass, held, queued_at FROM run_queue WHERE run_id = $1`
	countAhead = `SELECT least($5, (SELECT count(*) FROM (SELECT FROM run_queue WHERE queue = $1 AND held = 0 AND priority > $2 LIMIT $5) a)
		+ (SELECT count(*) FROM (SELECT FROM run_queue WHERE queue = $1 AND held = 0 AND priority = $2 AND (pass, run_id) < ($3, $4) LIMIT $5) b))::integer`
	countSlots  = `SELECT count(*)::integer FROM slot WHERE key = $1`
	readHolders = `SELECT run_id FROM slot WHERE key = $1 ORDER BY at, run_id LIMIT 10`
	readDue     = `SELECT due_at FROM run_timer WHERE run_id = $1`
	readOwners  = `SELECT l.epoch = (SELECT lane_epoch FROM run WHERE day = $2 AND run_id = $3) IS TRUE, l.replica, l.expires_at, ` + dead + `,
		(SELECT count(*) FROM run WHERE lane_epoch = l.epoch AND status IN ('QUEUED','RUNNING','WAITING','PAUSED')) FROM lane_lease l`
)

// Standing implements store.Store.
func (s *Store) Standing(ctx context.Context, id pipeline.RunID) (*store.Standing, error) {
	run, err := s.Run(ctx, id)
	if err != nil {
		return nil, err
	}
	run.Inputs, run.Outputs = nil, nil
	var st *store.Standing
	err = s.do(ctx, "read where run "+string(id)+" stands", func(c *pgxpool.Conn) error {
		st = &store.Standing{Run: run}
		return s.standing(ctx, c, st)
	})
	if err == nil {
		st.Pipeline, err = s.PipelinePaused(ctx, run.Pipeline)
	}
	return st, err
}

func (s *Store) standing(ctx context.Context, c *pgxpool.Conn, st *store.Standing) error {
	run := st.Run
	k, err := runKey(run.ID)
	if err != nil {
		return err
	}
	there := func(err error) (bool, error) { // none is no error
		if errors.Is(err, pgx.ErrNoRows) {
			return false, nil
		}
		return err == nil, err
	}
	var queue string
	var priority int32
	var pass int64
	if st.Waits, err = there(c.QueryRow(ctx, readPlace, k).Scan(&queue, &priority, &pass, &st.Held, &st.Since)); err != nil {
		return err
	}
	if st.Waits {
		st.Since, st.UnderWay = st.Since.UTC(), queue == ""
		if err := c.QueryRow(ctx, countAhead, queue, priority, pass, k, store.AheadMost).Scan(&st.Ahead); err != nil {
			return err
		}
	}
	if st.Waits && !st.UnderWay {
		q, err := scanQueue(c.QueryRow(ctx, readQueue, queue), time.Now())
		if err != nil {
			return err
		}
		st.Queue = &q
		if err := c.QueryRow(ctx, countSlots, store.QueueSlot(queue)).Scan(&st.Running); err != nil {
			return err
		}
	}
	if run.Concurrency.Key != "" {
		rows, err := c.Query(ctx, readHolders, store.KeySlot(run.Concurrency.Key))
		if err != nil {
			return err
		}
		st.Holders, err = pgx.CollectRows(rows, func(r pgx.CollectableRow) (pipeline.RunID, error) {
			var id [16]byte
			err := r.Scan(&id)
			return store.RunIDOf(id[:]), err
		})
		if err != nil {
			return err
		}
	}
	if _, err := there(c.QueryRow(ctx, readDue, k).Scan(&st.Due)); err != nil {
		return err
	}
	if !st.Due.IsZero() {
		st.Due = st.Due.UTC()
	}
	st.Replicas = make(map[store.ReplicaID]int)
	rows, err := c.Query(ctx, readOwners, s.cfg.LeaseTTL, run.ID.Day(), k)
	if err != nil {
		return err
	}
	var mine, over bool
	var replica store.ReplicaID
	var expires time.Time
	var runs int
	_, err = pgx.ForEachRow(rows, []any{&mine, &replica, &expires, &over, &runs}, func() error {
		if mine {
			st.Replica, st.Expires, st.Dead = replica, expires.UTC(), over
		}
		if !over {
			st.Replicas[replica] += runs
		}
		return nil
	})
	return err
}
