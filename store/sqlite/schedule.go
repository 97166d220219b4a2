package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"time"

	"github.com/orchestrator-project/orchestrator/pipeline"
	"github.com/orchestrator-project/orchestrator/store"
)

// Clock implements store.Store.
func (s *Store) Clock(context.Context) (time.Time, error) {
	return time.Now().UTC().Truncate(time.Microsecond), nil
}

const (
	scheduleColumns = `id, name, pipeline, version, inputs, labels, priority, cron, zone, overlap, catch_up, catch_up_from, jitter,
		starts_at, ends_at, paused, owned, next_fire, last_fire, last_run, due_at, waiting, backfill_parallel, revision, created_at, updated_at`
	readSchedule   = `SELECT ` + scheduleColumns + ` FROM schedule WHERE id = ?`
	listSchedules  = `SELECT ` + scheduleColumns + ` FROM schedule WHERE id > ?1 AND (?2 = '' OR pipeline = ?2) ORDER BY id LIMIT ?3`
	createSchedule = `INSERT INTO schedule (id, name, pipeline, version, inputs, labels, priority, cron, zone, overlap, catch_up, catch_up_from, jitter,
			starts_at, ends_at, paused, owned, next_fire, due_at, waiting, backfill_parallel, revision, created_at, updated_at)
		VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, 0, 1, 1, ?20, ?20)
		ON CONFLICT DO NOTHING RETURNING revision, created_at, updated_at`
	updateSchedule = `UPDATE schedule SET name = ?2, pipeline = ?3, version = ?4, inputs = ?5, labels = ?6, priority = ?7, cron = ?8,
			zone = ?9, overlap = ?10, catch_up = ?11, catch_up_from = ?12, jitter = ?13, starts_at = ?14, ends_at = ?15, paused = ?16, owned = ?17,
			next_fire = ?18, due_at = CASE WHEN waiting AND NOT ?16 THEN ?20 ELSE ?19 END, revision = revision + 1, updated_at = ?20
		WHERE id = ?1 AND revision = ?21 RETURNING revision, created_at, updated_at`
	deleteFires    = `DELETE FROM schedule_fire WHERE schedule = ?`
	deleteSchedule = `DELETE FROM schedule WHERE id = ?`
)

// scheduleParams are the first twenty parameters of createSchedule and updateSchedule.
func scheduleParams(s *pipeline.Schedule, now time.Time) []any {
	var labels any
	if b := store.EncodeLabels(s.Labels); b != nil {
		labels = string(b)
	}
	return []any{
		text(s.ID), text(s.Name), text(s.Pipeline), text(s.Version), null(store.EncodeMap(s.Inputs)), labels, s.Priority,
		store.EncodeCron(s.Cron), text(s.Zone), s.Overlap, s.CatchUp, s.CatchUpFrom.Microseconds(), s.Jitter.Microseconds(),
		micros(s.Start), micros(s.End), s.Paused, s.Owned, micros(s.Next), micros(s.Due), now.UnixMicro(),
	}
}

func scanSchedule(r *sql.Rows) (*pipeline.Schedule, error) {
	var (
		s                            pipeline.Schedule
		inputs, labels, run          []byte
		cron                         string
		catchUp, jitter              int64
		created, updated             int64
		start, end, next, fired, due sql.NullInt64
	)
	err := r.Scan(&s.ID, &s.Name, &s.Pipeline, &s.Version, &inputs, &labels, &s.Priority, &cron, &s.Zone, &s.Overlap, &s.CatchUp, &catchUp, &jitter,
		&start, &end, &s.Paused, &s.Owned, &next, &fired, &run, &due, &s.Waiting, &s.Parallel, &s.Revision, &created, &updated)
	if err != nil {
		return nil, err
	}
	s.Cron = store.DecodeCron(cron)
	s.CatchUpFrom, s.Jitter = time.Duration(catchUp)*time.Microsecond, time.Duration(jitter)*time.Microsecond
	s.Start, s.End, s.Next, s.LastFire, s.Due = fromMicros(start), fromMicros(end), fromMicros(next), fromMicros(fired), fromMicros(due)
	s.CreatedAt, s.UpdatedAt = time.UnixMicro(created).UTC(), time.UnixMicro(updated).UTC()
	if run != nil {
		s.LastRun = store.RunIDOf(run)
	}
	if s.Labels, err = store.DecodeLabels(labels); err != nil {
		return nil, err
	}
	s.Inputs, err = store.DecodeMap(inputs)
	return &s, err
}

// writeSchedule runs createSchedule or updateSchedule; other is the error when it finds no row.
func (t *tx) writeSchedule(query string, s *pipeline.Schedule, params []any, other error) error {
	var created, updated int64
	err := t.row(query, params, &s.Revision, &created, &updated)
	if errors.Is(err, sql.ErrNoRows) {
		return other
	}
	s.CreatedAt, s.UpdatedAt = time.UnixMicro(created).UTC(), time.UnixMicro(updated).UTC()
	return err
}

// CreateSchedule implements store.Store.
func (s *Store) CreateSchedule(ctx context.Context, sch *pipeline.Schedule) error {
	return s.writer.do(ctx, "create a schedule", func(t *tx) error {
		return t.writeSchedule(createSchedule, sch, scheduleParams(sch, t.now), store.ScheduleExists(sch.ID))
	})
}

// UpdateSchedule implements store.Store.
func (s *Store) UpdateSchedule(ctx context.Context, sch *pipeline.Schedule) error {
	changed := store.ScheduleChanged(sch.ID)
	err := s.writer.do(ctx, "update a schedule", func(t *tx) error {
		return t.writeSchedule(updateSchedule, sch, append(scheduleParams(sch, t.now), sch.Revision), changed)
	})
	if errors.Is(err, changed) {
		if _, err := s.Schedule(ctx, sch.ID); err != nil {
			return err
		}
	}
	return err
}

// DeleteSchedule implements store.Store.
func (s *Store) DeleteSchedule(ctx context.Context, id string) error {
	return s.writer.do(ctx, "delete a schedule", func(t *tx) error {
		n, err := t.exec(deleteSchedule, text(id))
		if err != nil {
			return err
		}
		if n == 0 {
			return store.ScheduleNotFound(id)
		}
		_, err = t.exec(deleteFires, text(id))
		return err
	})
}

// Schedule implements store.Store.
func (s *Store) Schedule(ctx context.Context, id string) (*pipeline.Schedule, error) {
	var sch *pipeline.Schedule
	err := s.query(ctx, readSchedule, []any{text(id)}, func(r *sql.Rows) (err error) {
		sch, err = scanSchedule(r)
		return err
	})
	if err == nil && sch == nil {
		err = store.ScheduleNotFound(id)
	}
	return sch, storeError("read a schedule", err)
}

// Schedules implements store.Store.
func (s *Store) Schedules(ctx context.Context, q store.ScheduleQuery) ([]*pipeline.Schedule, error) {
	var list []*pipeline.Schedule
	err := s.query(ctx, listSchedules, []any{text(q.After), text(q.Pipeline), store.PageSize(q.Limit)}, func(r *sql.Rows) error {
		sch, err := scanSchedule(r)
		list = append(list, sch)
		return err
	})
	return list, storeError("list schedules", err)
}

const (
	// Whoever dies with a schedule in hand has not moved it on: it is due again
	// when hold has passed.
	takeSchedules = `UPDATE schedule SET due_at = ?3, revision = revision + 1
		WHERE id IN (SELECT id FROM schedule WHERE due_at <= ?2 ORDER BY due_at LIMIT ?1) RETURNING ` + scheduleColumns
	fireColumns = `SELECT fire_at, state, open, backfill, run_id, reason, decided_at FROM schedule_fire `
	openFires   = fireColumns + `WHERE schedule = ? AND open ORDER BY backfill, backfill AND state = 'pending', fire_at LIMIT ?`
)

// TakeSchedules implements store.Store.
func (s *Store) TakeSchedules(ctx context.Context, n int, hold time.Duration) (store.Taken, error) {
	var taken store.Taken
	err := s.writer.do(ctx, "take due schedules", func(t *tx) error {
		taken = store.Taken{Now: t.now.UTC().Truncate(time.Microsecond)}
		err := t.rows(takeSchedules, []any{n, t.now.UnixMicro(), t.now.Add(hold).UnixMicro()}, func(r *sql.Rows) error {
			sch, err := scanSchedule(r)
			taken.List = append(taken.List, store.TakenSchedule{Schedule: sch})
			return err
		})
		if err != nil {
			return err
		}
		for i := range taken.List {
			one := &taken.List[i]
			err := t.rows(openFires, []any{text(one.ID), store.MaxOpen}, func(r *sql.Rows) error {
				f, err := scanFire(r)
				one.Open = append(one.Open, f)
				return err
			})
			if err != nil {
				return err
			}
		}
		return nil
	})
	return taken, err
}

func scanFire(r *sql.Rows) (f pipeline.Fire, err error) {
	var at, decided int64
	var run []byte
	err = r.Scan(&at, &f.State, &f.Open, &f.Backfill, &run, &f.Reason, &decided)
	f.At, f.Decided = time.UnixMicro(at).UTC(), time.UnixMicro(decided).UTC()
	if run != nil {
		f.Run = store.RunIDOf(run)
	}
	return f, err
}

const (
	holdRevision = `UPDATE schedule SET waiting = 1 WHERE id = ? AND revision = ?`
	insertFire   = `INSERT INTO schedule_fire (schedule, fire_at, state, open, backfill, run_id, reason, decided_at)
		VALUES (?, ?, ?, ?, ?, NULL, ?, ?) ON CONFLICT DO NOTHING`
	settleFire      = `UPDATE schedule_fire SET state = ?3, open = ?4, run_id = ?5, reason = ?6 WHERE schedule = ?1 AND fire_at = ?2 AND open`
	keepLast        = `UPDATE schedule SET last_fire = ?2, last_run = ?3 WHERE id = ?1 AND (last_fire IS NULL OR last_fire <= ?2)`
	advanceSchedule = `UPDATE schedule SET next_fire = ?3, due_at = CASE WHEN paused THEN NULL ELSE ?4 END, waiting = ?5, revision = revision + 1
		WHERE id = ?1 AND revision = ?2 RETURNING revision`
	forgetFires = `DELETE FROM schedule_fire WHERE schedule = ? AND NOT open AND fire_at < ?`
)

// DecideFires implements store.Store.
func (s *Store) DecideFires(ctx context.Context, id string, revision int64, fires []pipeline.Fire) ([]time.Time, error) {
	var fresh []time.Time
	err := s.writer.do(ctx, "record fires", func(t *tx) error {
		fresh = nil
		n, err := t.exec(holdRevision, text(id), revision)
		if err == nil && n == 0 {
			err = store.ScheduleChanged(id)
		}
		if err != nil {
			return err
		}
		for i := range fires {
			f := &fires[i]
			n, err := t.exec(insertFire, text(id), f.At.UnixMicro(), string(f.State), f.Open, f.Backfill, text(f.Reason), t.now.UnixMicro())
			if err != nil {
				return err
			}
			if n > 0 {
				fresh = append(fresh, f.At)
			}
		}
		return nil
	})
	return fresh, err
}

// AdvanceSchedule implements store.Store.
func (s *Store) AdvanceSchedule(ctx context.Context, sch *pipeline.Schedule, fires []pipeline.Fire) error {
	changed := false
	err := s.writer.do(ctx, "advance a schedule", func(t *tx) error {
		for i := range fires {
			f := &fires[i]
			if _, err := t.exec(settleFire, text(sch.ID), f.At.UnixMicro(), string(f.State), f.Open, optionalKey(f.Run), text(f.Reason)); err != nil {
				return err
			}
		}
		if k, ok := store.RunKey(sch.LastRun); ok {
			if _, err := t.exec(keepLast, text(sch.ID), sch.LastFire.UnixMicro(), k[:]); err != nil {
				return err
			}
		}
		err := t.row(advanceSchedule, []any{text(sch.ID), sch.Revision, micros(sch.Next), micros(sch.Due), sch.Waiting}, &sch.Revision)
		if changed = errors.Is(err, sql.ErrNoRows); changed {
			return nil
		}
		if err != nil {
			return err
		}
		_, err = t.exec(forgetFires, text(sch.ID), t.now.Add(-pipeline.FireRetention).UnixMicro())
		return err
	})
	if err == nil && changed {
		err = store.ScheduleChanged(sch.ID)
	}
	return err
}

const wakeSchedule = `UPDATE schedule SET due_at = ?2 WHERE id = ?1 AND waiting AND due_at > ?2`

// WakeSchedule implements store.Store.
func (s *Store) WakeSchedule(ctx context.Context, id string) (bool, error) {
	woken := false
	err := s.writer.do(ctx, "wake a schedule", func(t *tx) error {
		n, err := t.exec(wakeSchedule, text(id), t.now.UnixMicro())
		woken = n > 0
		return err
	})
	return woken, err
}

const (
	backfillSchedule = `UPDATE schedule SET backfill_parallel = ?2, waiting = 1, revision = revision + 1,
			due_at = CASE WHEN paused THEN NULL ELSE ?3 END
		WHERE id = ?1`
	backfillFire = `INSERT INTO schedule_fire AS f (schedule, fire_at, state, open, backfill, run_id, reason, decided_at)
		VALUES (?, ?, 'pending', 1, 1, NULL, '', ?)
		ON CONFLICT (schedule, fire_at) DO UPDATE SET state = 'pending', open = 1, backfill = 1, reason = '', decided_at = excluded.decided_at
		WHERE f.state IN ('skipped','failed')`
)

// Backfill implements store.Store.
func (s *Store) Backfill(ctx context.Context, id string, times []time.Time, parallel int) (int, error) {
	added := 0
	err := s.writer.do(ctx, "backfill a schedule", func(t *tx) error {
		added = 0
		n, err := t.exec(backfillSchedule, text(id), parallel, t.now.UnixMicro())
		if err == nil && n == 0 {
			err = store.ScheduleNotFound(id)
		}
		if err != nil {
			return err
		}
		for _, at := range times {
			n, err := t.exec(backfillFire, text(id), at.UnixMicro(), t.now.UnixMicro())
			if err != nil {
				return err
			}
			added += int(n)
		}
		return nil
	})
	return added, err
}

const listFires = fireColumns + `WHERE schedule = ?1 AND (?2 IS NULL OR fire_at < ?2) ORDER BY fire_at DESC LIMIT ?3`

// Fires implements store.Store.
func (s *Store) Fires(ctx context.Context, q store.FireQuery) ([]pipeline.Fire, error) {
	var list []pipeline.Fire
	err := s.query(ctx, listFires, []any{text(q.Schedule), micros(q.Before), store.PageSize(q.Limit)}, func(r *sql.Rows) error {
		f, err := scanFire(r)
		list = append(list, f)
		return err
	})
	return list, storeError("list fires", err)
}
