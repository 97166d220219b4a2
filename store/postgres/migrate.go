package postgres

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/orchestrator-project/orchestrator/migrations"
)

// migrationLock is the advisory lock of whoever changes the schema.
const migrationLock = 7811887430013

const daysAhead = 7

func (s *Store) migrate(ctx context.Context) error {
	latest, err := migrations.Latest(migrations.Postgres)
	if err != nil {
		return err
	}
	var current int64
	err = s.pool.QueryRow(ctx, migrations.CurrentSQL).Scan(&current)
	var pg *pgconn.PgError
	if err != nil && (!errors.As(err, &pg) || pg.Code != "42P01") { // no such table: an empty database
		return err
	}
	if current < latest {
		if err := s.upgrade(ctx); err != nil {
			return err
		}
	}
	today := time.Now().UTC().Truncate(24 * time.Hour)
	if err := s.ensureDays(ctx, today.AddDate(0, 0, -1), today.AddDate(0, 0, daysAhead)); err != nil {
		return err
	}
	s.day = today
	return nil
}

// upgrade applies the migrations while other processes wait.
func (s *Store) upgrade(ctx context.Context) error {
	lock, err := s.connect(ctx, `SET lock_timeout = '60s'`)
	if err != nil {
		return err
	}
	defer discard(lock)
	if _, err := lock.Exec(ctx, `SELECT pg_advisory_lock($1)`, int64(migrationLock)); err != nil {
		return fmt.Errorf("wait for another process that migrates the schema: %w", err)
	}
	conf := s.conf.Copy()
	conf.RuntimeParams["lock_timeout"] = "10000" // rather fail than stop everybody's writes
	db := stdlib.OpenDB(*conf)
	defer db.Close()
	return migrations.Apply(ctx, db, migrations.Postgres)
}

const missingDays = `SELECT d::date FROM generate_series($1::date, $2::date, '1 day') d
	WHERE to_regclass('log_chunk_' || to_char(d, 'YYYYMMDD')) IS NULL ORDER BY d`

// ensureDays makes the partitions of the days from first to last.
func (s *Store) ensureDays(ctx context.Context, first, last time.Time) error {
	return s.do(ctx, "make the partitions of the days", func(c *pgxpool.Conn) error {
		rows, err := c.Query(ctx, missingDays, first, last)
		if err != nil {
			return err
		}
		days, err := pgx.CollectRows(rows, pgx.RowTo[time.Time])
		if err != nil {
			return err
		}
		for _, d := range days {
			if err := ensureDay(ctx, c.Conn(), d); err != nil {
				return err
			}
		}
		return nil
	})
}

func ensureDay(ctx context.Context, c *pgx.Conn, day time.Time) error {
	b := new(pgx.Batch)
	b.Queue(`SELECT set_config('lock_timeout', '5s', true)`)
	b.Queue(`SELECT ensure_day($1)`, day)
	return c.SendBatch(ctx, b).Close()
}

// newDay looks after the partitions once a day.
func (s *Store) newDay(ctx context.Context) {
	today := time.Now().UTC().Truncate(24 * time.Hour)
	s.mu.Lock()
	due := today.After(s.day)
	s.mu.Unlock()
	if !due {
		return
	}
	err := s.ensureDays(ctx, today.AddDate(0, 0, -1), today.AddDate(0, 0, daysAhead))
	if err != nil {
		s.cfg.Logger.Warn("the partitions of the coming days are not there yet, will try again", "err", err)
		return
	}
	s.mu.Lock()
	s.day = today
	s.mu.Unlock()
}

// noPartition tells whether err is an insert that found no partition.
func noPartition(err error) bool {
	var pg *pgconn.PgError
	return errors.As(err, &pg) && pg.Code == "23514" && pg.ConstraintName == ""
}
