package main

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"
)

// postgres reads the counters of the database that is measured.
type postgres struct {
	url  string
	conn *pgx.Conn
}

func connect(ctx context.Context, url string) (*postgres, error) {
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return nil, err
	}
	return &postgres{url: url, conn: conn}, nil
}

func (p *postgres) close() {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	_ = p.conn.Close(ctx)
}

// describe is the server's version and the settings that decide what a commit costs.
func (p *postgres) describe(ctx context.Context) string {
	var text string
	err := p.conn.QueryRow(ctx, `SELECT 'PostgreSQL ' || current_setting('server_version') || ', fsync ' || current_setting('fsync') ||
		', synchronous_commit ' || current_setting('synchronous_commit') || ', shared_buffers ' || current_setting('shared_buffers')`).Scan(&text)
	if err != nil {
		return err.Error()
	}
	return text
}

// checkpoint lets each measurement start alike: the first change of a page after
// it costs a whole page of WAL.
func (p *postgres) checkpoint(ctx context.Context) error {
	_, err := p.conn.Exec(ctx, "CHECKPOINT")
	return err
}

type counters struct {
	commits int64 // transactions that ended, in this database
	wal     int64 // bytes, of the whole server
}

// counters reads what has been written up to now. Other sessions hand in their
// numbers within 10 s (PGSTAT_IDLE_INTERVAL of PostgreSQL), so it waits for that.
func (p *postgres) counters(ctx context.Context) (c counters, err error) {
	if err := sleep(ctx, 11*time.Second); err != nil {
		return c, err
	}
	return p.read(ctx)
}

func (p *postgres) read(ctx context.Context) (c counters, err error) {
	// Our own connection hands in its count before each look, so that it can be
	// taken off exactly.
	err = p.conn.QueryRow(ctx, `SELECT xact_commit + xact_rollback, pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')::bigint
		FROM pg_stat_database WHERE datname = current_database()`).Scan(&c.commits, &c.wal)
	return c, err
}

// statements is how many transactions per second others have sent within d.
func (p *postgres) statements(ctx context.Context, d time.Duration) (float64, error) {
	before, err := p.read(ctx)
	if err != nil {
		return 0, err
	}
	if err := sleep(ctx, d); err != nil {
		return 0, err
	}
	after, err := p.read(ctx)
	if err != nil {
		return 0, err
	}
	others := after.commits - before.commits - 1 // the first look itself
	return float64(max(0, others)) / d.Seconds(), nil
}
