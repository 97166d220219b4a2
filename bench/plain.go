package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"
)

const plainConnections = 32

const plainSchema = `
DROP TABLE IF EXISTS plain_run, plain_step;
CREATE TABLE plain_run (
    id    uuid PRIMARY KEY,
    epoch bigint NOT NULL,
    seq   integer NOT NULL
);
CREATE TABLE plain_step (
    run_id uuid NOT NULL,
    seq    integer NOT NULL,
    type   text NOT NULL,
    path   text NOT NULL,
    at     timestamptz NOT NULL,
    body   jsonb NOT NULL,
    PRIMARY KEY (run_id, seq)
)`

// The fence and the record of one step, in one round trip and one commit.
const (
	plainFence  = `UPDATE plain_run SET seq = seq + 1 WHERE id = $1 AND epoch = $2`
	plainRecord = `INSERT INTO plain_step (run_id, seq, type, path, at, body) VALUES ($1, $2, 'step_finished', $3, now(), $4)`
)

// plainLoop measures what the usual way gives on this database: each step is
// one transaction with a fenced UPDATE and an INSERT, sent as one pipelined
// batch, over 32 connections at once.
func plainLoop(ctx context.Context, d time.Duration, pg *postgres) (stepsPerSecond float64, err error) {
	if _, err := pg.conn.Exec(ctx, plainSchema); err != nil {
		return 0, err
	}
	if err := pg.checkpoint(ctx); err != nil {
		return 0, err
	}
	body := `{"status": "COMPLETED", "output": "` + strings.Repeat("x", 64) + `"}` // about 100 bytes
	counts := make([]int, plainConnections)
	conns := make([]*pgx.Conn, plainConnections)
	for i := range conns {
		if conns[i], err = pgx.Connect(ctx, pg.url); err != nil {
			return 0, err
		}
		defer func() { _ = conns[i].Close(context.WithoutCancel(ctx)) }()
	}
	began := time.Now()
	g, ctx := errgroup.WithContext(ctx)
	for i, conn := range conns {
		g.Go(func() error {
			for run := 0; time.Since(began) < d; run++ {
				id := fmt.Sprintf("00000000-0000-7000-8000-%06x%06x", i, run)
				if _, err := conn.Exec(ctx, `INSERT INTO plain_run (id, epoch, seq) VALUES ($1, 1, 0)`, id); err != nil {
					return err
				}
				for step := 1; step <= steps; step++ {
					b := &pgx.Batch{}
					b.Queue(plainFence, id, 1)
					b.Queue(plainRecord, id, step, fmt.Sprintf("s%d", step), body)
					if err := conn.SendBatch(ctx, b).Close(); err != nil {
						return err
					}
					counts[i]++
				}
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return 0, err
	}
	elapsed := time.Since(began)
	total := 0
	for _, n := range counts {
		total += n
	}
	return float64(total) / elapsed.Seconds(), nil
}
