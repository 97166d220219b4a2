package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"iter"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/orchestrator-project/orchestrator/pipeline"
	"github.com/orchestrator-project/orchestrator/store"
)

const (
	runStatus = `SELECT status FROM run WHERE run_id = ?`
	runState  = `SELECT status, lane_epoch IS NULL, priority FROM run WHERE run_id = ?`
	// hurryRun lets a run that is cancelled end although its queue holds it back.
	hurryRun      = `UPDATE run_queue SET queue = '', pass = 0, held = 0 WHERE run_id = ?`
	insertMessage = `INSERT INTO inbox (msg_id, run_id, kind, actor, body, at) VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING`
)

// Send implements store.Store.
func (s *Store) Send(ctx context.Context, run pipeline.RunID, m store.Message) error {
	id, err := key(run)
	if err != nil {
		return err
	}
	if m.ID == "" {
		m.ID = store.MessageID(uuid.Must(uuid.NewV7()).String())
	}
	bell := store.Bell{Inbox: []pipeline.RunID{run}}
	err = s.writer.do(ctx, "send to run "+string(run), func(t *tx) (err error) {
		bell.Queued, err = t.send(run, id, &m)
		return err
	})
	if err != nil {
		return err
	}
	s.Ring(bell)
	return nil
}

// send leaves a message, and queues the run if it is parked.
func (t *tx) send(run pipeline.RunID, id [16]byte, m *store.Message) (queued bool, err error) {
	var (
		status   pipeline.RunStatus
		free     bool
		priority int64
	)
	err = t.row(runState, []any{id[:]}, &status, &free, &priority)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return false, runNotFound(run)
	case err != nil:
		return false, err
	}
	if m.Key != "" {
		if used, err := t.sent(run, m); used || err != nil {
			return false, err
		}
	}
	if status.Final() {
		return false, &pipeline.Error{Kind: pipeline.Conflict, Reason: "run_finished", Text: fmt.Sprintf("run %s has already finished", run)}
	}
	if m.Key != "" {
		if err := t.keepKey(m.TakenKey(run), m.Digest(), id); err != nil {
			return false, err
		}
	}
	at := m.At
	if at.IsZero() {
		at = t.now
	}
	if _, err := t.exec(insertMessage, text(m.ID), id[:], text(m.Kind), text(m.Actor), null(m.Body), at.UnixMicro()); err != nil {
		return false, err
	}
	if status == pipeline.RunQueued && m.Kind == store.MessageCancel {
		_, err := t.exec(hurryRun, id[:])
		return true, err
	}
	if !free || status != pipeline.RunWaiting && (status != pipeline.RunPaused || !store.WakesPaused(m.Kind)) {
		return false, nil
	}
	_, err = t.exec(queueRun, priority, id[:])
	return true, err
}

// sent reports whether the message's key was used before; the error says for
// what else.
func (t *tx) sent(run pipeline.RunID, m *store.Message) (bool, error) {
	var (
		owner   []byte
		before  string
		expires int64
	)
	err := t.row(readKey, []any{m.TakenKey(run)}, &owner, &before, &expires)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return false, nil
	case err != nil:
		return false, err
	case expires <= t.now.UnixMicro():
		return false, nil
	}
	return true, m.Again(run, before)
}

// Sent implements store.Store.
func (s *Store) Sent(ctx context.Context, run pipeline.RunID, m store.Message) (sent bool, err error) {
	if m.Key == "" {
		return false, nil
	}
	err = s.writer.do(ctx, "look for a message to run "+string(run), func(t *tx) (err error) {
		sent, err = t.sent(run, &m)
		return err
	})
	return sent, err
}

const (
	readInboxHead = `SELECT msg_id, run_id, kind, actor, body, at FROM inbox WHERE run_id IN (?`
	readInboxTail = `) ORDER BY at, msg_id`
	inboxAtOnce   = 500 // runs asked for in one statement
)

// Inbox implements store.Store.
func (s *Store) Inbox(ctx context.Context, runs []pipeline.RunID) ([]store.Message, error) {
	var list []store.Message
	for len(runs) > 0 {
		n := min(len(runs), inboxAtOnce)
		// Few texts of the statement, so that each stays prepared.
		width := 1
		for width < n {
			width *= 2
		}
		args := make([]any, 0, width)
		for i := range width {
			k, ok := store.RunKey(runs[min(i, n-1)])
			if !ok {
				k = [16]byte{}
			}
			args = append(args, k[:])
		}
		err := s.query(ctx, readInboxHead+strings.Repeat(", ?", width-1)+readInboxTail, args, func(r *sql.Rows) error {
			var m store.Message
			var run []byte
			var at int64
			if err := r.Scan(&m.ID, &run, &m.Kind, &m.Actor, &m.Body, &at); err != nil {
				return err
			}
			m.Run, m.At = store.RunIDOf(run), time.UnixMicro(at).UTC()
			list = append(list, m)
			return nil
		})
		if err != nil {
			return nil, storeError("read inboxes", err)
		}
		runs = runs[n:]
	}
	store.SortMessages(list)
	return list, nil
}

const insertChunk = `INSERT INTO log_chunk (run_id, path, attempt, n, at, stream, data) VALUES (?, ?, ?, ?, ?, ?, ?)`

// AppendLogs implements store.Store.
func (s *Store) AppendLogs(ctx context.Context, chunks []store.LogChunk) error {
	if len(chunks) == 0 {
		return nil
	}
	return s.writer.relaxed(ctx, "store logs", func(t *tx) error {
		for i := range chunks {
			c := &chunks[i]
			id, err := key(c.Run)
			if err != nil {
				return err
			}
			if _, err := t.exec(insertChunk, id[:], text(c.Path), c.Attempt, c.N, c.At.UnixMicro(), text(c.Stream), nonNil([]byte(c.Text))); err != nil {
				return err
			}
		}
		return nil
	})
}

const readChunks = `SELECT cursor, path, attempt, n, at, stream, data FROM log_chunk
	WHERE run_id = ?1 AND cursor > ?2 AND (?3 = '' OR path = ?3) ORDER BY cursor LIMIT ?4`

// Logs implements store.Store.
func (s *Store) Logs(ctx context.Context, q store.LogQuery) iter.Seq2[store.LogChunk, error] {
	return func(yield func(store.LogChunk, error) bool) {
		k, err := key(q.Run)
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
			err := s.query(ctx, readChunks, []any{k[:], after, text(q.Path), n}, func(r *sql.Rows) error {
				c := store.LogChunk{Run: q.Run}
				var at int64
				var data sql.RawBytes
				if err := r.Scan(&c.Cursor, &c.Path, &c.Attempt, &c.N, &at, &c.Stream, &data); err != nil {
					return err
				}
				c.At, c.Text = time.UnixMicro(at).UTC(), string(data)
				list = append(list, c)
				return nil
			})
			if err != nil {
				yield(store.LogChunk{}, storeError("read the logs of run "+string(q.Run), err))
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
