package postgres

import (
	"context"
	"errors"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/orchestrator-project/orchestrator/store"
)

// dead is true of a lease l whose time is over, or whose replica is known to
// be gone: neither its presence nor its lane's own connection is left. A
// server that has just started has lost those of the living, too, and gives
// them one TTL ($1) to come back.
const dead = `clock_timestamp() > pg_postmaster_start_time() + $1 AND (l.expires_at < clock_timestamp() OR ` + gone + `)`

// gone is true of a lease l whose replica is known to be gone. Who gets the lock
// of a presence, shared and only for the moment, knows that nobody holds it; to
// look for it in pg_locks would cost more the more replicas there are.
const gone = `CASE WHEN pg_try_advisory_xact_lock_shared(l.presence)
	THEN NOT EXISTS (SELECT FROM pg_stat_activity a WHERE a.pid = l.backend_pid AND a.backend_start = l.backend_start) ELSE false END`

// near is the leases after the newest one of this replica ($3), in a ring. Each
// replica looks after those next to it: whoever finds a dead one there looks for
// all of them. So a heartbeat costs the same whatever the number of replicas.
const near = `(SELECT * FROM (SELECT * FROM lane_lease WHERE epoch > $3 ORDER BY epoch LIMIT 4) a
	UNION ALL SELECT * FROM (SELECT * FROM lane_lease ORDER BY epoch LIMIT 4) b)`

// A renewal that a crash of the database loses does no harm: a server that has
// just started believes nobody to be dead. So it waits for no disk.
const heartbeat = `WITH mine AS (UPDATE lane_lease SET expires_at = clock_timestamp() + $1
		WHERE epoch = ANY($2) AND set_config('synchronous_commit', 'off', true) <> '' RETURNING 1), ` + gates + `
	SELECT (SELECT count(*) FROM mine),
		EXISTS (SELECT FROM ` + near + ` l WHERE l.epoch <> ALL($2) AND ` + dead + `),
		EXISTS (SELECT FROM run_queue WHERE queue = '' AND held = 0) OR EXISTS (SELECT FROM slot_freed)
			OR EXISTS (SELECT FROM gate WHERE ready AND wait = 0) OR EXISTS (SELECT FROM run_timer WHERE due_at <= statement_timestamp()),
		least((SELECT due_at FROM run_timer WHERE due_at > statement_timestamp() ORDER BY due_at LIMIT 1),
			(SELECT statement_timestamp() + min(wait) * interval '1 microsecond' FROM gate WHERE ready AND wait > 0)),
		` + gatesOf + `,
		(SELECT extract(epoch FROM due_at - statement_timestamp())::float8 FROM schedule WHERE due_at IS NOT NULL ORDER BY due_at LIMIT 1),
		clock_timestamp()`

// Heartbeat implements store.Store. An expired lease that still stands is
// renewed like any other.
func (s *Store) Heartbeat(ctx context.Context, replica store.ReplicaID) (store.Pulse, error) {
	epochs, newest := []int64{}, int64(0)
	s.mu.Lock()
	for e, l := range s.lanes {
		if l.replica == replica {
			epochs, newest = append(epochs, e), max(newest, e)
		}
	}
	s.mu.Unlock()
	var p store.Pulse
	var mine int
	var next *time.Time
	var fire *float64 // seconds until a schedule is due
	beat, cancel := context.WithTimeout(ctx, s.cfg.LeaseTTL)
	defer cancel()
	err := s.do(beat, "renew the leases", func(c *pgxpool.Conn) error {
		return c.QueryRow(beat, heartbeat, s.cfg.LeaseTTL, epochs, newest).Scan(&mine, &p.Expired, &p.Queued, &next, &p.Gates.Queues, &p.Gates.Pipelines, &fire, &p.Now)
	})
	if beat.Err() != nil && ctx.Err() == nil {
		err = s.fail(ctx, "renew the leases", beat.Err())
	}
	if err != nil {
		return store.Pulse{}, err
	}
	if next != nil {
		p.NextDue = next.UTC()
	}
	if fire != nil {
		p.FireIn = time.Duration(max(*fire, 0) * float64(time.Second))
		p.Fires = p.FireIn == 0
	}
	p.Lost = mine < len(epochs)
	p.Expired = p.Expired && !s.presence.spares()
	s.newDay(ctx)
	return p, nil
}

const (
	// lockPatience bounds the wait for a batch in flight.
	lockPatience = `SET LOCAL lock_timeout = '1s'`
	reclaimLanes = `DELETE FROM lane_lease l WHERE l.epoch <> ALL($2) AND ` + dead + ` RETURNING l.epoch, NOT ` + gone
	// noteExpired tells the next owners that the last one may live. It comes before
	// freeRuns, which forgets whose they were.
	noteExpired = `INSERT INTO inbox (msg_id, run_id, kind, actor, at)
		SELECT gen_random_uuid()::text, run_id, 'expired', '', clock_timestamp() FROM run
		WHERE status IN ('QUEUED','RUNNING','WAITING','PAUSED') AND lane_epoch = ANY($1)`
	// endStuck ends exactly the connections of dead lanes, whose client was
	// stopped in the middle of a batch: no time-out of the server's does.
	endStuck = `SELECT pg_terminate_backend(a.pid) FROM lane_lease l JOIN pg_stat_activity a
		ON a.pid = l.backend_pid AND a.backend_start = l.backend_start WHERE l.epoch <> ALL($2) AND ` + dead
)

// Reclaim implements store.Store.
func (s *Store) Reclaim(ctx context.Context) (int, error) {
	if s.presence.spares() {
		return 0, nil
	}
	s.mu.Lock()
	living := []int64{} // ours: the heartbeat renews them even when they have expired
	for e := range s.lanes {
		living = append(living, e)
	}
	s.mu.Unlock()
	var n int64
	err := s.do(ctx, "reclaim lanes", func(c *pgxpool.Conn) error {
		for try := 0; ; try++ {
			err := pgx.BeginFunc(ctx, c, func(tx pgx.Tx) error {
				n = 0
				if _, err := tx.Exec(ctx, lockPatience); err != nil {
					return err
				}
				rows, err := tx.Query(ctx, reclaimLanes, s.cfg.LeaseTTL, living)
				if err != nil {
					return err
				}
				var epochs, expired []int64
				var epoch int64
				var living bool
				_, err = pgx.ForEachRow(rows, []any{&epoch, &living}, func() error {
					epochs = append(epochs, epoch)
					if living {
						expired = append(expired, epoch)
					}
					return nil
				})
				if err != nil || len(epochs) == 0 {
					return err
				}
				if len(expired) > 0 {
					if _, err := tx.Exec(ctx, noteExpired, expired); err != nil {
						return err
					}
				}
				tag, err := tx.Exec(ctx, freeRuns, epochs)
				n = tag.RowsAffected()
				return err
			})
			var pg *pgconn.PgError
			stuck := errors.As(err, &pg) && pg.Code == "55P03"
			if try == 3 || !stuck && !again(err) {
				return err
			}
			if stuck {
				if _, err := c.Exec(ctx, endStuck, s.cfg.LeaseTTL, living); err != nil {
					return err
				}
				time.Sleep(10 * time.Millisecond) // until the ended ones have let go
			}
		}
	})
	if err != nil {
		return 0, err
	}
	if n > 0 {
		s.Ring(store.Bell{Queued: true})
	}
	return int(n), nil
}
