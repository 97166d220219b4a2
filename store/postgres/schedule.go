package postgres

import (
	"context"
	"errors"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/orchestrator-project/orchestrator/pipeline"
	"github.com/orchestrator-project/orchestrator/store"
)

// Clock implements store.Store.
func (s *Store) Clock(ctx context.Context) (time.Time, error) {
	var now time.Time
	err := s.do(ctx, "read the clock", func(c *pgxpool.Conn) error {
		return c.QueryRow(ctx, `SELECT clock_timestamp()`).Scan(&now)
	})
	return now.UTC(), err
}

const (
	scheduleColumns = `id, name, pipeline, version, inputs, labels, priority, cron, zone, overlap, catch_up, catch_up_from, jitter,
		starts_at, ends_at, paused, owned, next_fire, last_fire, last_run, due_at, waiting, backfill_parallel, revision, created_at, updated_at`
	readSchedule   = `SELECT ` + scheduleColumns + ` FROM schedule WHERE id = $1`
	listSchedules  = `SELECT ` + scheduleColumns + ` FROM schedule WHERE id > $1 AND ($2 = '' OR pipeline = $2) ORDER BY id LIMIT $3`
	createSchedule = `INSERT INTO schedule (id, name, pipeline, version, inputs, labels, priority, cron, zone, overlap, catch_up, catch_up_from, jitter,
			starts_at, ends_at, paused, owned, next_fire, due_at, waiting, backfill_parallel, revision, created_at, updated_at)
		VALUES ($1, $2, $3, $4, $5, $6::text::jsonb, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, false, 1, 1, now(), now())
		ON CONFLICT DO NOTHING RETURNING revision, created_at, updated_at`
	updateSchedule = `UPDATE schedule SET name = $2, pipeline = $3, version = $4, inputs = $5, labels = $6::text::jsonb, priority = $7, cron = $8,
			zone = $9, overlap = $10, catch_up = $11, catch_up_from = $12, jitter = $13, starts_at = $14, ends_at = $15, paused = $16, owned = $17,
			next_fire = $18, due_at = CASE WHEN waiting AND NOT $16 THEN now() ELSE $19 END, revision = revision + 1, updated_at = now()
		WHERE id = $1 AND revision = $20 RETURNING revision, created_at, updated_at`
	deleteFires    = `DELETE FROM schedule_fire WHERE schedule = $1`
	deleteSchedule = `DELETE FROM schedule WHERE id = $1`
)

// scheduleParams are the first nineteen parameters of createSchedule and updateSchedule.
func scheduleParams(s *pipeline.Schedule) []any {
	var labels *string
	if b := store.EncodeLabels(s.Labels); b != nil {
		text := string(b)
		labels = &text
	}
	return []any{
		store.Clean(s.ID), store.Clean(s.Name), store.Clean(s.Pipeline), store.Clean(s.Version), store.EncodeMap(s.Inputs), labels, s.Priority,
		store.EncodeCron(s.Cron), store.Clean(s.Zone), s.Overlap, s.CatchUp, s.CatchUpFrom.Microseconds(), s.Jitter.Microseconds(),
		timeOrNull(s.Start), timeOrNull(s.End), s.Paused, s.Owned, timeOrNull(s.Next), timeOrNull(s.Due),
	}
}

func timeOrNull(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}

func timeOrZero(t *time.Time) time.Time {
	if t == nil {
		return time.Time{}
	}
	return t.UTC()
}

func scanSchedule(row pgx.CollectableRow) (*pipeline.Schedule, error) {
	var (
		s                            pipeline.Schedule
		inputs, labels               []byte
		cron                         string
		catchUp, jitter              int64
		start, end, next, fired, due *time.Time
		run                          *[16]byte
	)
	err := row.Scan(&s.ID, &s.Name, &s.Pipeline, &s.Version, &inputs, &labels, &s.Priority, &cron, &s.Zone, &s.Overlap, &s.CatchUp, &catchUp, &jitter,
		&start, &end, &s.Paused, &s.Owned, &next, &fired, &run, &due, &s.Waiting, &s.Parallel, &s.Revision, &s.CreatedAt, &s.UpdatedAt)
	if err != nil {
		return nil, err
	}
	s.Cron = store.DecodeCron(cron)
	s.CatchUpFrom, s.Jitter = time.Duration(catchUp)*time.Microsecond, time.Duration(jitter)*time.Microsecond
	s.Start, s.End, s.Next, s.LastFire, s.Due = timeOrZero(start), timeOrZero(end), timeOrZero(next), timeOrZero(fired), timeOrZero(due)
	s.CreatedAt, s.UpdatedAt = s.CreatedAt.UTC(), s.UpdatedAt.UTC()
	if run != nil {
		s.LastRun = store.RunIDOf(run[:])
	}
	if s.Labels, err = store.DecodeLabels(labels); err != nil {
		return nil, err
	}
	s.Inputs, err = store.DecodeMap(inputs)
	return &s, err
}

// CreateSchedule implements store.Store.
func (s *Store) CreateSchedule(ctx context.Context, sch *pipeline.Schedule) error {
	err := s.do(ctx, "create a schedule", func(c *pgxpool.Conn) error {
		return c.QueryRow(ctx, createSchedule, scheduleParams(sch)...).Scan(&sch.Revision, &sch.CreatedAt, &sch.UpdatedAt)
	})
	if errors.Is(err, pgx.ErrNoRows) {
		return store.ScheduleExists(sch.ID)
	}
	sch.CreatedAt, sch.UpdatedAt = sch.CreatedAt.UTC(), sch.UpdatedAt.UTC()
	return err
}

// UpdateSchedule implements store.Store.
func (s *Store) UpdateSchedule(ctx context.Context, sch *pipeline.Schedule) error {
	err := s.do(ctx, "update a schedule", func(c *pgxpool.Conn) error {
		return c.QueryRow(ctx, updateSchedule, append(scheduleParams(sch), sch.Revision)...).Scan(&sch.Revision, &sch.CreatedAt, &sch.UpdatedAt)
	})
	if errors.Is(err, pgx.ErrNoRows) {
		if _, err := s.Schedule(ctx, sch.ID); err != nil {
			return err
		}
		return store.ScheduleChanged(sch.ID)
	}
	sch.CreatedAt, sch.UpdatedAt = sch.CreatedAt.UTC(), sch.UpdatedAt.UTC()
	return err
}

// DeleteSchedule implements store.Store.
func (s *Store) DeleteSchedule(ctx context.Context, id string) error {
	return s.do(ctx, "delete a schedule", func(c *pgxpool.Conn) error {
		return pgx.BeginFunc(ctx, c, func(tx pgx.Tx) error {
			tag, err := tx.Exec(ctx, deleteSchedule, store.Clean(id))
			if err != nil {
				return err
			}
			if tag.RowsAffected() == 0 {
				return store.ScheduleNotFound(id)
			}
			_, err = tx.Exec(ctx, deleteFires, store.Clean(id))
			return err
		})
	})
}

// Schedule implements store.Store.
func (s *Store) Schedule(ctx context.Context, id string) (*pipeline.Schedule, error) {
	var list []*pipeline.Schedule
	err := s.do(ctx, "read a schedule", func(c *pgxpool.Conn) (err error) {
		rows, err := c.Query(ctx, readSchedule, store.Clean(id))
		if err == nil {
			list, err = pgx.CollectRows(rows, scanSchedule)
		}
		return err
	})
	if err == nil && len(list) == 0 {
		err = store.ScheduleNotFound(id)
	}
	if err != nil {
		return nil, err
	}
	return list[0], nil
}

// Schedules implements store.Store.
func (s *Store) Schedules(ctx context.Context, q store.ScheduleQuery) ([]*pipeline.Schedule, error) {
	var list []*pipeline.Schedule
	err := s.do(ctx, "list schedules", func(c *pgxpool.Conn) (err error) {
		rows, err := c.Query(ctx, listSchedules, store.Clean(q.After), store.Clean(q.Pipeline), store.PageSize(q.Limit))
		if err == nil {
			list, err = pgx.CollectRows(rows, scanSchedule)
		}
		return err
	})
	return list, err
}

const (
	// Whoever dies with a schedule in hand has not moved it on: it is due again
	// when hold has passed.
	takeSchedules = `UPDATE schedule SET due_at = statement_timestamp() + $2, revision = revision + 1
		WHERE id IN (SELECT id FROM schedule WHERE due_at <= statement_timestamp() ORDER BY due_at LIMIT $1 FOR UPDATE SKIP LOCKED)
		RETURNING ` + scheduleColumns
	openFires = `SELECT schedule, fire_at, state, open, backfill, run_id, reason, decided_at FROM unnest($1::text[]) u (id),
		LATERAL (SELECT * FROM schedule_fire WHERE schedule = u.id AND open ORDER BY backfill, backfill AND state = 'pending', fire_at LIMIT $2) f`
)

// TakeSchedules implements store.Store.
func (s *Store) TakeSchedules(ctx context.Context, n int, hold time.Duration) (store.Taken, error) {
	var taken store.Taken
	err := s.do(ctx, "take due schedules", func(c *pgxpool.Conn) error {
		taken = store.Taken{}
		return pgx.BeginFunc(ctx, c, func(tx pgx.Tx) error {
			rows, err := tx.Query(ctx, takeSchedules, n, hold)
			if err != nil {
				return err
			}
			list, err := pgx.CollectRows(rows, scanSchedule)
			if err != nil || len(list) == 0 {
				return err
			}
			if err := tx.QueryRow(ctx, `SELECT clock_timestamp()`).Scan(&taken.Now); err != nil {
				return err
			}
			taken.Now = taken.Now.UTC()
			ids, at := make([]string, len(list)), make(map[string]int, len(list))
			for i, sch := range list {
				ids[i], at[sch.ID] = sch.ID, i
				taken.List = append(taken.List, store.TakenSchedule{Schedule: sch})
			}
			rows, err = tx.Query(ctx, openFires, ids, store.MaxOpen)
			if err != nil {
				return err
			}
			_, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (pipeline.Fire, error) {
				id, f, err := scanFire(row)
				if err == nil {
					t := &taken.List[at[id]]
					t.Open = append(t.Open, f)
				}
				return f, err
			})
			return err
		})
	})
	return taken, err
}

func scanFire(row pgx.CollectableRow) (schedule string, f pipeline.Fire, err error) {
	var run *[16]byte
	err = row.Scan(&schedule, &f.At, &f.State, &f.Open, &f.Backfill, &run, &f.Reason, &f.Decided)
	if run != nil {
		f.Run = store.RunIDOf(run[:])
	}
	f.At, f.Decided = f.At.UTC(), f.Decided.UTC()
	return schedule, f, err
}

const (
	holdRevision = `SELECT FROM schedule WHERE id = $1 AND revision = $2 FOR UPDATE`
	markWaiting  = `UPDATE schedule SET waiting = true WHERE id = $1`
	insertFires  = `INSERT INTO schedule_fire (schedule, fire_at, state, open, backfill, run_id, reason, decided_at)
		SELECT $1, u.at, u.state, u.open, u.backfill, NULL, u.reason, clock_timestamp()
		FROM unnest($2::timestamptz[], $3::text[], $4::boolean[], $5::boolean[], $6::text[]) u (at, state, open, backfill, reason)
		ON CONFLICT DO NOTHING RETURNING fire_at`
	settleFires = `UPDATE schedule_fire f SET state = u.state, open = u.open, run_id = u.run_id, reason = u.reason
		FROM unnest($2::timestamptz[], $3::text[], $4::boolean[], $5::boolean[], $6::text[], $7::uuid[]) u (at, state, open, backfill, reason, run_id)
		WHERE f.schedule = $1 AND f.fire_at = u.at AND f.open`
	keepLast        = `UPDATE schedule SET last_fire = $2, last_run = $3 WHERE id = $1 AND (last_fire IS NULL OR last_fire <= $2)`
	advanceSchedule = `UPDATE schedule SET next_fire = $3, due_at = CASE WHEN paused THEN NULL ELSE $4::timestamptz END, waiting = $5, revision = revision + 1
		WHERE id = $1 AND revision = $2 RETURNING revision`
	forgetFires = `DELETE FROM schedule_fire WHERE schedule = $1 AND NOT open AND fire_at < now() - $2::interval`
)

func fireParams(id string, fires []pipeline.Fire) []any {
	n := len(fires)
	at, state, open, backfill, reason := make([]time.Time, n), make([]string, n), make([]bool, n), make([]bool, n), make([]string, n)
	for i := range fires {
		f := &fires[i]
		at[i], state[i], open[i], backfill[i], reason[i] = f.At, string(f.State), f.Open, f.Backfill, store.Clean(f.Reason)
	}
	return []any{store.Clean(id), at, state, open, backfill, reason}
}

// DecideFires implements store.Store.
func (s *Store) DecideFires(ctx context.Context, id string, revision int64, fires []pipeline.Fire) ([]time.Time, error) {
	var fresh []time.Time
	err := s.do(ctx, "record fires", func(c *pgxpool.Conn) error {
		return pgx.BeginFunc(ctx, c, func(tx pgx.Tx) error {
			tag, err := tx.Exec(ctx, holdRevision, store.Clean(id), revision)
			if err == nil && tag.RowsAffected() == 0 {
				err = store.ScheduleChanged(id)
			}
			if err != nil {
				return err
			}
			if _, err := tx.Exec(ctx, markWaiting, store.Clean(id)); err != nil {
				return err
			}
			rows, err := tx.Query(ctx, insertFires, fireParams(id, fires)...)
			if err == nil {
				fresh, err = pgx.CollectRows(rows, scanUTC)
			}
			return err
		})
	})
	return fresh, err
}

func scanUTC(row pgx.CollectableRow) (time.Time, error) {
	var t time.Time
	err := row.Scan(&t)
	return t.UTC(), err
}

// AdvanceSchedule implements store.Store.
func (s *Store) AdvanceSchedule(ctx context.Context, sch *pipeline.Schedule, fires []pipeline.Fire) error {
	id := store.Clean(sch.ID)
	runs := make([]*[16]byte, len(fires))
	for i := range fires {
		if k, ok := store.RunKey(fires[i].Run); ok {
			runs[i] = &k
		}
	}
	changed := false
	err := s.do(ctx, "advance a schedule", func(c *pgxpool.Conn) error {
		return pgx.BeginFunc(ctx, c, func(tx pgx.Tx) error {
			if len(fires) > 0 {
				if _, err := tx.Exec(ctx, settleFires, append(fireParams(id, fires), runs)...); err != nil {
					return err
				}
			}
			if k, ok := store.RunKey(sch.LastRun); ok {
				if _, err := tx.Exec(ctx, keepLast, id, sch.LastFire, k); err != nil {
					return err
				}
			}
			err := tx.QueryRow(ctx, advanceSchedule, id, sch.Revision, timeOrNull(sch.Next), timeOrNull(sch.Due), sch.Waiting).Scan(&sch.Revision)
			if changed = errors.Is(err, pgx.ErrNoRows); changed {
				return nil
			}
			if err != nil {
				return err
			}
			_, err = tx.Exec(ctx, forgetFires, id, pipeline.FireRetention)
			return err
		})
	})
	if err == nil && changed {
		err = store.ScheduleChanged(sch.ID)
	}
	return err
}

const wakeSchedule = `UPDATE schedule SET due_at = statement_timestamp() WHERE id = $1 AND waiting AND due_at > statement_timestamp()`

// WakeSchedule implements store.Store.
func (s *Store) WakeSchedule(ctx context.Context, id string) (bool, error) {
	woken := false
	err := s.do(ctx, "wake a schedule", func(c *pgxpool.Conn) error {
		tag, err := c.Exec(ctx, wakeSchedule, store.Clean(id))
		woken = tag.RowsAffected() > 0
		return err
	})
	return woken, err
}

const (
	backfillSchedule = `UPDATE schedule SET backfill_parallel = $2, waiting = true, revision = revision + 1,
			due_at = CASE WHEN paused THEN NULL ELSE statement_timestamp() END
		WHERE id = $1`
	backfillFires = `INSERT INTO schedule_fire AS f (schedule, fire_at, state, open, backfill, run_id, reason, decided_at)
		SELECT $1, u.at, 'pending', true, true, NULL, '', clock_timestamp() FROM unnest($2::timestamptz[]) u (at)
		ON CONFLICT (schedule, fire_at) DO UPDATE SET state = 'pending', open = true, backfill = true, reason = '', decided_at = EXCLUDED.decided_at
		WHERE f.state IN ('skipped','failed')`
)

// Backfill implements store.Store.
func (s *Store) Backfill(ctx context.Context, id string, times []time.Time, parallel int) (int, error) {
	var added int64
	err := s.do(ctx, "backfill a schedule", func(c *pgxpool.Conn) error {
		return pgx.BeginFunc(ctx, c, func(tx pgx.Tx) error {
			tag, err := tx.Exec(ctx, backfillSchedule, store.Clean(id), parallel)
			if err == nil && tag.RowsAffected() == 0 {
				err = store.ScheduleNotFound(id)
			}
			if err != nil {
				return err
			}
			tag, err = tx.Exec(ctx, backfillFires, store.Clean(id), times)
			added = tag.RowsAffected()
			return err
		})
	})
	return int(added), err
}

const listFires = `SELECT schedule, fire_at, state, open, backfill, run_id, reason, decided_at FROM schedule_fire
	WHERE schedule = $1 AND fire_at < coalesce($2::timestamptz, 'infinity') ORDER BY fire_at DESC LIMIT $3`

// Fires implements store.Store.
func (s *Store) Fires(ctx context.Context, q store.FireQuery) ([]pipeline.Fire, error) {
	var list []pipeline.Fire
	err := s.do(ctx, "list fires", func(c *pgxpool.Conn) error {
		rows, err := c.Query(ctx, listFires, store.Clean(q.Schedule), timeOrNull(q.Before), store.PageSize(q.Limit))
		if err != nil {
			return err
		}
		list, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (pipeline.Fire, error) {
			_, f, err := scanFire(row)
			return f, err
		})
		return err
	})
	return list, err
}
