package postgres

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/orchestrator-project/orchestrator/pipeline"
	"github.com/orchestrator-project/orchestrator/store"
)

// lane is a lease with a connection of its own.
type lane struct {
	s       *Store
	id      int64
	epoch   int64
	replica store.ReplicaID

	conn     *pgx.Conn // nil while it is lost
	prepared map[string]*pgconn.StatementDescription
	doubt    bool   // the last batch may have been recorded
	wary     int    // so many batches that end runs take the general statements
	claiming []pick // a claim whose outcome is unknown
	w        batchWriter
}

func (l *lane) ID() int64    { return l.id }
func (l *lane) Epoch() int64 { return l.epoch }

// laneSettings keep the planner from ever choosing a plan that reads whole
// partitions, whether it has figures or not: every statement of a lane goes by
// primary keys, or along the index of the queue or of the timers.
const laneSettings = `SET plan_cache_mode = force_generic_plan; SET enable_hashjoin = off; SET enable_mergejoin = off;
	SET enable_seqscan = off; SET enable_sort = off; SET jit = off`

const insertLease = `INSERT INTO lane_lease (lane, replica, presence, backend_pid, backend_start, expires_at)
	SELECT free.lane, $1, $2, pg_backend_pid(), (SELECT backend_start FROM pg_stat_activity WHERE pid = pg_backend_pid()), clock_timestamp() + $3
	FROM (SELECT g AS lane FROM generate_series(1, (SELECT count(*)::integer + 1 FROM lane_lease)) g
		WHERE NOT EXISTS (SELECT FROM lane_lease l WHERE l.lane = g) ORDER BY g LIMIT 1) free
	ON CONFLICT DO NOTHING RETURNING lane, epoch`

// OpenLane implements store.Store.
func (s *Store) OpenLane(ctx context.Context, replica store.ReplicaID) (store.Lane, error) {
	key, err := s.presence.hold(ctx, replica)
	if err != nil {
		return nil, s.fail(ctx, "open a lane", err)
	}
	conn, err := s.connect(ctx, laneSettings)
	if err != nil {
		return nil, s.fail(ctx, "open a lane", err)
	}
	l := &lane{s: s, replica: replica, conn: conn, prepared: make(map[string]*pgconn.StatementDescription)}
	for { // another process may take the same number
		err = conn.QueryRow(ctx, insertLease, store.Clean(string(replica)), key, s.cfg.LeaseTTL).Scan(&l.id, &l.epoch)
		if !errors.Is(err, pgx.ErrNoRows) {
			break
		}
	}
	if err != nil {
		discard(conn)
		return nil, s.fail(ctx, "open a lane", err)
	}
	s.mu.Lock()
	s.lanes[l.epoch] = l
	s.mu.Unlock()
	return l, nil
}

const (
	// endOld ends the connection that this lane has lost: what it was doing is
	// then over, one way or the other.
	endOld = `SELECT pg_terminate_backend(a.pid) FROM lane_lease l JOIN pg_stat_activity a
		ON a.pid = l.backend_pid AND a.backend_start = l.backend_start WHERE l.epoch = $1 AND a.pid <> pg_backend_pid()`
	newBackend = `UPDATE lane_lease SET backend_pid = pg_backend_pid(),
			backend_start = (SELECT backend_start FROM pg_stat_activity WHERE pid = pg_backend_pid())
		WHERE epoch = $1`
)

// reach gives the lane its connection back when it was lost.
func (l *lane) reach(ctx context.Context) error {
	if l.conn != nil && !l.conn.IsClosed() {
		return nil
	}
	l.drop()
	conn, err := l.s.connect(ctx, laneSettings)
	if err != nil {
		return err
	}
	_, err = conn.Exec(ctx, endOld, l.epoch)
	if err == nil {
		var tag pgconn.CommandTag
		tag, err = conn.Exec(ctx, newBackend, l.epoch)
		if err == nil && tag.RowsAffected() == 0 {
			err = store.ErrFenced
		}
	}
	if err != nil {
		discard(conn)
		return err
	}
	l.conn = conn
	return nil
}

// drop closes the connection.
func (l *lane) drop() {
	if l.conn != nil {
		discard(l.conn)
		l.conn = nil
	}
	clear(l.prepared)
}

func (l *lane) prepare(ctx context.Context, sql string) (*pgconn.StatementDescription, error) {
	if d := l.prepared[sql]; d != nil {
		return d, nil
	}
	d, err := l.conn.PgConn().Prepare(ctx, fmt.Sprintf("s%d", len(l.prepared)), sql, nil)
	if err == nil {
		l.prepared[sql] = d
	}
	return d, err
}

var fence = `SELECT 1 / ` + fmt.Sprintf(stands, "$1")

// isFence recognizes the fence's division by zero.
func isFence(err error) bool {
	var pg *pgconn.PgError
	return errors.As(err, &pg) && pg.Code == "22012"
}

// again tells whether the server asks to send the transaction again.
func again(err error) bool {
	var pg *pgconn.PgError
	return errors.As(err, &pg) && (pg.Code == "40P01" || pg.Code == "40001")
}

const (
	dropLease = `DELETE FROM lane_lease WHERE epoch = $1`
	// The second statement of the transaction, so that it sees what a batch in
	// flight has recorded while the first one waited for it.
	freeRuns = `WITH freed AS (
			UPDATE run SET status = 'QUEUED', lane_epoch = NULL
			WHERE status IN ('QUEUED','RUNNING','WAITING','PAUSED') AND lane_epoch = ANY($1)
			RETURNING priority, day, run_id)
		INSERT INTO run_queue (priority, day, run_id) SELECT priority, day, run_id FROM freed ON CONFLICT DO NOTHING`
)

// Release implements store.Lane; repeating it changes nothing.
func (l *lane) Release(ctx context.Context) error {
	s, n := l.s, int64(0)
	s.mu.Lock()
	_, open := s.lanes[l.epoch]
	s.mu.Unlock()
	if !open {
		return nil
	}
	release := func(c *pgxpool.Conn) error {
		return pgx.BeginFunc(ctx, c, func(tx pgx.Tx) error {
			tag, err := tx.Exec(ctx, dropLease, l.epoch)
			if err != nil || tag.RowsAffected() == 0 {
				return err
			}
			tag, err = tx.Exec(ctx, freeRuns, []int64{l.epoch})
			n = tag.RowsAffected()
			return err
		})
	}
	err := s.pool.AcquireFunc(ctx, release)
	if err != nil && ctx.Err() == nil && (isLost(err) || again(err)) {
		s.pool.Reset()
		err = s.pool.AcquireFunc(ctx, release)
	}
	if err != nil {
		return s.fail(ctx, "release a lane", err)
	}
	s.mu.Lock()
	delete(s.lanes, l.epoch)
	s.mu.Unlock()
	l.drop()
	if n > 0 {
		s.Ring(store.Bell{Queued: true})
	}
	return nil
}

// The lock of a run's row guards its rows in run_queue and run_timer, too. A
// claim takes only locks that nobody holds and so never waits for a sender. It
// walks along an index and locks run by run until it has enough: the lateral
// subqueries leave the planner no other way.
const (
	claimable = `run.lane_epoch IS NULL AND run.status IN ('QUEUED','WAITING','PAUSED')`
	// queueDue lets parked runs whose time has come stand in line with the others.
	queueDue = `WITH due AS (
			SELECT r.priority, r.day, r.run_id
			FROM (SELECT day, run_id FROM run_timer WHERE due_at <= statement_timestamp() ORDER BY due_at) t,
				LATERAL (SELECT priority, day, run_id FROM run WHERE run.day = t.day AND run.run_id = t.run_id AND ` + claimable + `
					FOR NO KEY UPDATE SKIP LOCKED) r
			LIMIT $1),
		gone AS (DELETE FROM run_timer WHERE run_id = ANY(ARRAY(SELECT run_id FROM due)))
		INSERT INTO run_queue (priority, day, run_id) SELECT priority, day, run_id FROM due ON CONFLICT DO NOTHING`
	own = `UPDATE run SET status = CASE WHEN run.status IN ('WAITING','PAUSED') THEN run.status ELSE 'RUNNING' END, lane_epoch = $1,
			started_at = coalesce(started_at, clock_timestamp())
		FROM unnest($2::date[], $3::uuid[]) AS u (day, run_id)
		WHERE run.day = u.day AND run.run_id = u.run_id AND ` + claimable + ` RETURNING ` + ownColumns
	owned = `SELECT ` + ownColumns + ` FROM run JOIN unnest($2::date[], $3::uuid[]) AS u (day, run_id)
		ON run.day = u.day AND run.run_id = u.run_id WHERE run.lane_epoch = $1`
	ownColumns = `run.run_id, pipeline, version, plan_digest, parent_run, forked_from, status, reason, error, priority, labels,
		workdir, created_at, started_at, finished_at, input_tokens, output_tokens, cost_usd, steps, unpriced_calls, fork_seq, checkpoint_seq, ` + placeColumns + `, inputs, outputs`
)

// try runs f on a working connection, and again when the server asks for it.
func (l *lane) try(ctx context.Context, f func() error) error {
	ctx, cancel := context.WithTimeout(ctx, commitTimeout)
	defer cancel()
	for n := 0; ; n++ {
		if err := l.reach(ctx); err != nil {
			return err
		}
		err := f()
		if err == nil {
			return nil
		}
		if isFence(err) {
			err = store.ErrFenced
		}
		if !l.conn.IsClosed() && l.conn.PgConn().TxStatus() != 'I' {
			if _, e := l.conn.Exec(ctx, "ROLLBACK"); e != nil {
				l.drop()
			}
		}
		if !again(err) || n == 5 {
			return err
		}
	}
}

// settle gives the runs of a claim whose outcome was unknown.
func (l *lane) settle(ctx context.Context) ([]*pipeline.Run, error) {
	if len(l.claiming) == 0 {
		return nil, nil
	}
	days, ids := columns(l.claiming)
	rows, err := l.conn.Query(ctx, owned, l.epoch, days, ids)
	if err != nil {
		return nil, err
	}
	runs, err := collectRuns(rows, true)
	if err == nil {
		l.claiming = nil
	}
	return runs, err
}
