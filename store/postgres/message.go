package postgres

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/orchestrator-project/orchestrator/pipeline"
	"github.com/orchestrator-project/orchestrator/store"
)

// insertMessage locks the run's row against a batch that finishes or parks it,
// so that no message is left behind for a finished run and none is slept over.
const insertMessage = `WITH target AS (SELECT priority, day, run_id, status, lane_epoch IS NULL AND (status = 'WAITING' OR status = 'PAUSED' AND $4::text IN ('resume','cancel')) AS parked
		FROM run WHERE day = $1 AND run_id = $2 FOR SHARE),
	taken AS (INSERT INTO idempotency AS i (key, request_digest, run_id, expires_at)
		SELECT $8, $9, run_id, clock_timestamp() + interval '24 hours' FROM target WHERE $8::text <> '' AND status NOT IN ('COMPLETED','FAILED','CANCELLED')
		ON CONFLICT (key) DO UPDATE SET request_digest = EXCLUDED.request_digest, run_id = EXCLUDED.run_id, expires_at = EXCLUDED.expires_at
		WHERE i.expires_at < clock_timestamp() RETURNING key),
	sent AS (INSERT INTO inbox (msg_id, run_id, kind, actor, body, at)
		SELECT $3, $2, $4, $5, $6, coalesce($7, clock_timestamp()) FROM target
		WHERE status NOT IN ('COMPLETED','FAILED','CANCELLED') AND ($8::text = '' OR EXISTS (SELECT FROM taken))
		ON CONFLICT DO NOTHING),
	woken AS (INSERT INTO run_queue (priority, day, run_id) SELECT priority, day, run_id FROM target WHERE parked ON CONFLICT DO NOTHING),
	-- One that is cancelled ends although its queue holds it back.
	hurried AS (UPDATE run_queue q SET queue = '', pass = 0, held = 0 FROM target t
		WHERE q.run_id = t.run_id AND t.status = 'QUEUED' AND $4::text = 'cancel')
	SELECT status, parked OR status = 'QUEUED' AND $4::text = 'cancel', $8::text <> '' AND NOT EXISTS (SELECT FROM taken) FROM target`

// Send implements store.Store.
func (s *Store) Send(ctx context.Context, run pipeline.RunID, m store.Message) error {
	k, err := runKey(run)
	if err != nil {
		return err
	}
	if m.ID == "" {
		m.ID = store.MessageID(uuid.Must(uuid.NewV7()).String())
	}
	var at *time.Time
	if !m.At.IsZero() {
		at = &m.At
	}
	var status pipeline.RunStatus
	var used bool
	taken := m.TakenKey(run)
	bell := store.Bell{Inbox: []pipeline.RunID{run}}
	do := s.do
	if m.Kind == store.MessageSignal && m.Key == "" {
		do = s.once // it may have been taken already, and would be taken again
	}
	err = do(ctx, "send to run "+string(run), func(c *pgxpool.Conn) error {
		return c.QueryRow(ctx, insertMessage, run.Day(), k, store.Clean(string(m.ID)), store.Clean(m.Kind), store.Clean(m.Actor), m.Body, at, taken, string(m.Digest())).
			Scan(&status, &bell.Queued, &used)
	})
	if used && err == nil {
		if sent, err := s.Sent(ctx, run, m); sent || err != nil {
			return err
		}
	}
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return runNotFound(run)
	case err != nil:
		return err
	case status.Final():
		return runFinished(run)
	}
	s.Ring(bell)
	return nil
}

const takenKey = `SELECT request_digest FROM idempotency WHERE key = $1 AND expires_at >= clock_timestamp()`

// Sent implements store.Store.
func (s *Store) Sent(ctx context.Context, run pipeline.RunID, m store.Message) (bool, error) {
	if m.Key == "" {
		return false, nil
	}
	var before string
	err := s.do(ctx, "look for a message to run "+string(run), func(c *pgxpool.Conn) error {
		return c.QueryRow(ctx, takenKey, m.TakenKey(run)).Scan(&before)
	})
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return false, nil
	case err != nil:
		return false, err
	}
	return true, m.Again(run, before)
}

func runFinished(run pipeline.RunID) error {
	return &pipeline.Error{Kind: pipeline.Conflict, Reason: "run_finished", Text: fmt.Sprintf("run %s has already finished", run)}
}

const readInbox = `SELECT msg_id, run_id, kind, actor, body, at FROM inbox WHERE run_id = ANY($1::uuid[])`

// Inbox implements store.Store.
func (s *Store) Inbox(ctx context.Context, runs []pipeline.RunID) ([]store.Message, error) {
	keys := make([][16]byte, 0, len(runs))
	for _, id := range runs {
		if k, ok := store.RunKey(id); ok {
			keys = append(keys, k)
		}
	}
	if len(keys) == 0 {
		return nil, nil
	}
	var list []store.Message
	err := s.do(ctx, "read inboxes", func(c *pgxpool.Conn) error {
		rows, err := c.Query(ctx, readInbox, keys)
		if err != nil {
			return err
		}
		list, err = pgx.CollectRows(rows, func(r pgx.CollectableRow) (m store.Message, err error) {
			var run [16]byte
			err = r.Scan(&m.ID, &run, &m.Kind, &m.Actor, &m.Body, &m.At)
			m.Run, m.At = store.RunIDOf(run[:]), m.At.UTC()
			return m, err
		})
		return err
	})
	store.SortMessages(list)
	return list, err
}

const insertChunks = `INSERT INTO log_chunk (day, run_id, cursor, path, attempt, n, at, stream, data)
	SELECT day, run_id, nextval('log_cursor'), path, attempt, n, at, stream, data
	FROM unnest($1::date[], $2::uuid[], $3::text[], $4::integer[], $5::integer[], $6::timestamptz[], $7::text[], $8::bytea[])
		AS u (day, run_id, path, attempt, n, at, stream, data)`

// AppendLogs implements store.Store. One connection writes all logs of a
// process, so that cursors become visible in their order.
func (s *Store) AppendLogs(ctx context.Context, chunks []store.LogChunk) error {
	if len(chunks) == 0 {
		return nil
	}
	var (
		days           []time.Time
		runs           [][16]byte
		paths, streams []string
		attempts, ns   []int32
		ats            []time.Time
		texts          [][]byte
		newDays        []int64
	)
	for i := range chunks {
		c := &chunks[i]
		k, err := runKey(c.Run)
		if err != nil {
			return err
		}
		days, runs, paths, streams = append(days, c.Run.Day()), append(runs, k), append(paths, store.Clean(string(c.Path))), append(streams, store.Clean(c.Stream))
		attempts, ns, ats, texts = append(attempts, c.Attempt), append(ns, c.N), append(ats, c.At), append(texts, nonNil([]byte(c.Text)))
		newDays = append(newDays, store.DayOf(k))
	}
	write := func() error {
		return s.logs.use(ctx, s, func(c *pgx.Conn) error {
			_, err := c.Exec(ctx, insertChunks, days, runs, paths, attempts, ns, ats, streams, texts)
			return err
		})
	}
	err := write()
	if noPartition(err) {
		if err := s.ensureRunDays(ctx, newDays); err != nil {
			return err
		}
		err = write()
	}
	return s.fail(ctx, "store logs", err)
}

const readChunks = `SELECT cursor, path, attempt, n, at, stream, data FROM log_chunk
	WHERE day = $1 AND run_id = $2 AND cursor > $3 AND ($4 = '' OR path = $4) ORDER BY cursor LIMIT $5`

// Logs implements store.Store.
func (s *Store) Logs(ctx context.Context, q store.LogQuery) iter.Seq2[store.LogChunk, error] {
	return func(yield func(store.LogChunk, error) bool) {
		k, err := runKey(q.Run)
		if err != nil {
			yield(store.LogChunk{}, err)
			return
		}
		const atOnce = 200
		after, left := q.After, q.Limit
		for {
			n := atOnce
			if q.Limit > 0 {
				n = min(n, left)
			}
			var list []store.LogChunk
			err := s.do(ctx, "read the logs of run "+string(q.Run), func(c *pgxpool.Conn) error {
				rows, err := c.Query(ctx, readChunks, q.Run.Day(), k, after, store.Clean(string(q.Path)), n)
				if err != nil {
					return err
				}
				list, err = pgx.CollectRows(rows, func(r pgx.CollectableRow) (store.LogChunk, error) {
					c := store.LogChunk{Run: q.Run}
					var data []byte
					err := r.Scan(&c.Cursor, &c.Path, &c.Attempt, &c.N, &c.At, &c.Stream, &data)
					c.At, c.Text = c.At.UTC(), string(data)
					return c, err
				})
				return err
			})
			if err != nil {
				yield(store.LogChunk{}, err)
				return
			}
			for _, c := range list {
				if !yield(c, nil) {
					return
				}
				after = c.Cursor
			}
			left -= len(list)
			if len(list) < n || (q.Limit > 0 && left <= 0) {
				return
			}
		}
	}
}
