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

// commitTime is how long a transaction of one inserted row takes, in
// milliseconds: what nobody who waits for it can be faster than.
func (p *postgres) commitTime(ctx context.Context) (p50 float64, err error) {
	if _, err := p.conn.Exec(ctx, `CREATE TABLE IF NOT EXISTS bare (at timestamptz NOT NULL)`); err != nil {
		return 0, err
	}
	var list []float64
	for range 500 {
		began := time.Now()
		if _, err := p.conn.Exec(ctx, `INSERT INTO bare (at) VALUES (now())`); err != nil {
			return 0, err
		}
		list = append(list, time.Since(began).Seconds()*1e3)
	}
	return median(list), nil
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

// quiet changes a setting of the whole server.
func (p *postgres) quiet(ctx context.Context, how string) error {
	for _, sql := range []string{"ALTER SYSTEM " + how, "SELECT pg_reload_conf()"} {
		if _, err := p.conn.Exec(ctx, sql); err != nil {
			return err
		}
	}
	return nil
}

type results struct {
	runs     int
	steps    int // results of steps
	distinct int // steps that have a result
}

// results counts what has been recorded.
func (p *postgres) results(ctx context.Context) (r results, err error) {
	err = p.conn.QueryRow(ctx, `SELECT (SELECT count(*) FROM run), count(*), count(DISTINCT (run_id, path)) FROM step_log
		WHERE type = 'step_finished'`).Scan(&r.runs, &r.steps, &r.distinct)
	return r, err
}

// runs counts all runs, open those that have not finished, and parked those that
// wait in no server's memory.
func (p *postgres) runs(ctx context.Context) (int, error) { return p.count(ctx, `true`) }

func (p *postgres) open(ctx context.Context) (int, error) {
	return p.count(ctx, `status IN ('QUEUED','RUNNING','WAITING','PAUSED')`)
}

func (p *postgres) parked(ctx context.Context) (int, error) {
	return p.count(ctx, `status = 'WAITING' AND lane_epoch IS NULL`)
}

func (p *postgres) count(ctx context.Context, where string) (n int, err error) {
	err = p.conn.QueryRow(ctx, `SELECT count(*) FROM run WHERE `+where).Scan(&n)
	return n, err
}

// fill writes n finished runs of the last 30 days, of 50 pipelines, a
// hundredth of them failed.
func (p *postgres) fill(ctx context.Context, n int) error {
	if _, err := p.conn.Exec(ctx, `SELECT ensure_day((now() AT TIME ZONE 'UTC')::date - g) FROM generate_series(0, 30) g`); err != nil {
		return err
	}
	if _, err := p.conn.Exec(ctx, `INSERT INTO run (day, run_id, pipeline, version, plan_digest, status, reason, priority, workdir,
			created_at, started_at, finished_at, input_tokens, output_tokens, cost_usd, steps)
		SELECT (at AT TIME ZONE 'UTC')::date, (lpad(to_hex((extract(epoch FROM at) * 1000)::bigint), 12, '0') || '7000a' || lpad(to_hex(g), 15, '0'))::uuid,
			'bench-' || g % 50, '1.0.0', 'sha256:bench', CASE WHEN g % 100 = 0 THEN 'FAILED' ELSE 'COMPLETED' END, '', 0, '',
			at, at, at + interval '1 second', 0, 0, 0, 10
		FROM (SELECT g, date_trunc('milliseconds', now() - g * (interval '29 days' / $1::integer)) AS at FROM generate_series(1, $1::integer) g) s`, n); err != nil {
		return err
	}
	_, err := p.conn.Exec(ctx, `ANALYZE`)
	return err
}

// some names runs from all over the table.
func (p *postgres) some(ctx context.Context, n int) ([]string, error) {
	rows, err := p.conn.Query(ctx, `SELECT run_id::text FROM run TABLESAMPLE BERNOULLI (1) WHERE plan_digest = 'sha256:bench' ORDER BY random() LIMIT $1`, n)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowTo[string])
}
