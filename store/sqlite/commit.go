package sqlite

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/orchestrator-project/orchestrator/pipeline"
	"github.com/orchestrator-project/orchestrator/store"
)

const fence = `SELECT 1 FROM lane_lease WHERE epoch = ?`

func (t *tx) fence(epoch int64) error {
	var one int
	err := t.row(fence, []any{epoch}, &one)
	if errors.Is(err, sql.ErrNoRows) {
		return store.ErrFenced
	}
	return err
}

// Commit implements store.Lane.
func (l *lane) Commit(ctx context.Context, b *store.Batch) (store.Result, error) {
	rows := new(logRows) // encoded before the turn is taken
	for i := range b.Create {
		if err := rows.add(b.Create[i].Run.ID, b.Create[i].Events); err != nil {
			return store.Result{}, err
		}
	}
	for i := range b.Append {
		if err := rows.add(b.Append[i].Run, b.Append[i].Events); err != nil {
			return store.Result{}, err
		}
	}
	var res store.Result
	var bell store.Bell
	err := l.s.writer.do(ctx, "record a batch", func(t *tx) error {
		res, bell = store.Result{}, store.Bell{}
		if err := t.fence(l.epoch); err != nil {
			return err
		}
		lost, err := t.create(l.epoch, b.Create, &res)
		if err != nil {
			return err
		}
		if err := t.blobs(rows.blobs); err != nil {
			return err
		}
		keep := rows.rows
		if len(lost) > 0 {
			keep = keep[:0:0]
			for _, r := range rows.rows {
				if _, gone := lost[r.run]; !gone {
					keep = append(keep, r)
				}
			}
		}
		if err := t.appendLog(keep); err != nil {
			return err
		}
		if err := t.markCheckpoints(l.epoch, keep); err != nil {
			return err
		}
		for _, id := range b.Consume {
			if _, err := t.exec(deleteMessage, text(id)); err != nil {
				return err
			}
		}
		if err := t.ask(b.Ask); err != nil {
			return err
		}
		for _, id := range b.Withdraw {
			if err := t.withdraw(id); err != nil {
				return err
			}
		}
		withdrawn, freed, err := t.finish(l.epoch, b.Finish)
		if err != nil {
			return err
		}
		bell.Queued = freed
		bell.Approvals = withdrawn || len(b.Ask)+len(b.Withdraw) > 0
		for i := range b.Park {
			woken, err := t.park(l.epoch, &b.Park[i])
			if err != nil {
				return err
			}
			bell.Queued = bell.Queued || woken
		}
		for _, id := range b.Yield {
			if err := t.yield(l.epoch, id); err != nil {
				return err
			}
		}
		return nil
	})
	if err == nil && !bell.Empty() {
		l.s.Ring(bell)
	}
	return res, err
}

const (
	readKey   = `SELECT run_id, request_digest, expires_at FROM idempotency WHERE key = ?`
	writeKey  = `INSERT OR REPLACE INTO idempotency (key, request_digest, run_id, expires_at) VALUES (?, ?, ?, ?)`
	sweepKeys = `DELETE FROM idempotency WHERE expires_at < ?`
	insertRun = `INSERT INTO run (run_id, pipeline, version, plan_digest, parent_run, forked_from, status, reason, error,
			lane_epoch, priority, labels, inputs, outputs, workdir, created_at, started_at, finished_at,
			input_tokens, output_tokens, cost_usd, steps, unpriced_calls, fork_seq)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (run_id) DO NOTHING`
)

// sweepEvery is how often expired idempotency keys are deleted, if keys are used.
const sweepEvery = time.Hour

// create records new runs; it returns those that lost their key to another.
func (t *tx) create(epoch int64, list []store.Create, res *store.Result) (map[[16]byte]struct{}, error) {
	if len(list) == 0 {
		return nil, nil
	}
	res.Creates = make([]store.CreateResult, len(list))
	var lost map[[16]byte]struct{}
	for i := range list {
		c := &list[i]
		id, err := key(c.Run.ID)
		if err != nil {
			return nil, err
		}
		if c.IdempotencyKey != "" {
			won, err := t.takeKey(c, id, &res.Creates[i])
			if err != nil {
				return nil, err
			}
			if !won {
				if lost == nil {
					lost = make(map[[16]byte]struct{})
				}
				lost[id] = struct{}{}
				continue
			}
		}
		if err := t.insertRun(epoch, c.Run, id); err != nil {
			return nil, err
		}
	}
	return lost, nil
}

func (t *tx) takeKey(c *store.Create, id [16]byte, res *store.CreateResult) (bool, error) {
	var (
		owner   []byte
		digest  string
		expires int64
	)
	k := text(c.IdempotencyKey)
	err := t.row(readKey, []any{k}, &owner, &digest, &expires)
	switch {
	case err == nil && bytes.Equal(owner, id[:]):
		return true, nil
	case err == nil && expires > t.now.UnixMicro():
		*res = store.CreateResult{Existing: store.RunIDOf(owner), Mismatch: digest != text(c.RequestDigest)}
		return false, nil
	case err != nil && !errors.Is(err, sql.ErrNoRows):
		return false, err
	}
	err = t.keepKey(k, c.RequestDigest, id)
	return err == nil, err
}

// keepKey remembers a key that was used now.
func (t *tx) keepKey(k string, digest pipeline.Digest, id [16]byte) error {
	if t.now.Sub(t.w.swept) > sweepEvery {
		if _, err := t.exec(sweepKeys, t.now.UnixMicro()); err != nil {
			return err
		}
		t.w.swept = t.now
	}
	_, err := t.exec(writeKey, k, text(digest), id[:], t.now.Add(store.IdempotencyTTL).UnixMicro())
	return err
}

func (t *tx) insertRun(epoch int64, r *pipeline.Run, id [16]byte) error {
	var owner any
	if r.Status != pipeline.RunQueued && !r.Status.Final() {
		owner = epoch
	}
	var labels any
	if b := store.EncodeLabels(r.Labels); b != nil {
		labels = string(b)
	}
	n, err := t.exec(insertRun, id[:], text(r.Pipeline), text(r.Version), text(r.PlanDigest), optionalKey(r.ParentRun),
		optionalKey(r.ForkedFrom), text(r.Status), text(r.Reason), null(store.EncodeFailure(r.Error)), owner, r.Priority,
		labels, null(store.EncodeMap(r.Inputs)), null(store.EncodeMap(r.Outputs)), text(r.Workspace), r.CreatedAt.UnixMicro(),
		micros(r.StartedAt), micros(r.FinishedAt), r.Usage.InputTokens, r.Usage.OutputTokens, store.Finite(r.Usage.CostUSD), r.Usage.Steps, r.Usage.Unpriced, r.ForkSeq)
	if err != nil || n == 0 { // n == 0: a batch that was in doubt comes again
		return err
	}
	return t.place(r, id)
}

const insertBlob = `INSERT INTO blob (day, sha, size, data) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING`

func (t *tx) blobs(list []store.Blob) error {
	for i := range list {
		b := &list[i]
		if _, err := t.exec(insertBlob, b.Day, b.SHA[:], b.Size, b.Data); err != nil {
			return err
		}
	}
	return nil
}

// logRow is an event as its row holds it; body and blob exclude each other.
type logRow struct {
	run    [16]byte
	event  *pipeline.Event
	body   []byte
	blob   []byte
	digest int64
}

type logRows struct {
	rows  []logRow
	blobs []store.Blob
	buf   []byte
}

func (l *logRows) add(run pipeline.RunID, events []pipeline.Event) error {
	id, err := key(run)
	if err != nil {
		return err
	}
	for i := range events {
		e := &events[i]
		row := logRow{run: id, event: e}
		start := len(l.buf)
		l.buf = pipeline.AppendData(l.buf, &e.Data)
		body := l.buf[start:len(l.buf):len(l.buf)]
		if len(body) > store.BlobMin {
			b := store.NewBlob(store.DayOf(id), body)
			l.blobs = append(l.blobs, b)
			row.blob = b.SHA[:]
			row.digest = store.EventDigest(e, b.SHA[:])
			l.buf = l.buf[:start]
		} else {
			row.body = body
			row.digest = store.EventDigest(e, body)
		}
		l.rows = append(l.rows, row)
	}
	return nil
}

const (
	logRowsAtOnce = 32
	oneLogRow     = `(?, ?, ?, ?, ?, ?, ?, ?, ?)`
	insertLogHead = `INSERT INTO step_log (run_id, seq, type, path, attempt, at, body, blob, digest) VALUES `
	insertLogTail = ` ON CONFLICT (run_id, seq) DO NOTHING`
	insertLogRow  = insertLogHead + oneLogRow + insertLogTail
	digestOf      = `SELECT digest FROM step_log WHERE run_id = ? AND seq = ?`
)

var insertLogRows = insertLogHead + oneLogRow + strings.Repeat(", "+oneLogRow, logRowsAtOnce-1) + insertLogTail

func (t *tx) appendLog(rows []logRow) error {
	for chunk := range slices.Chunk(rows, logRowsAtOnce) {
		query, size := insertLogRows, logRowsAtOnce
		if len(chunk) < logRowsAtOnce {
			query, size = insertLogRow, 1
		}
		for part := range slices.Chunk(chunk, size) {
			t.args = t.args[:0]
			for i := range part {
				r := &part[i]
				e := r.event
				t.args = append(t.args, r.run[:], e.Seq, text(e.Type), text(e.Path), e.Attempt, e.At.UnixMicro(),
					null(r.body), null(r.blob), r.digest)
			}
			n, err := t.exec(query, t.args...)
			if err != nil {
				return err
			}
			if n < int64(size) {
				if err := t.compare(part); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// compare checks that records which stood already are the same ones.
func (t *tx) compare(rows []logRow) error {
	for i := range rows {
		r := &rows[i]
		var digest int64
		if err := t.row(digestOf, []any{r.run[:], r.event.Seq}, &digest); err != nil {
			return err
		}
		if digest != r.digest {
			return fmt.Errorf("record %d of run %s stands with other content", r.event.Seq, store.RunIDOf(r.run[:]))
		}
	}
	return nil
}

const (
	finishRun = `UPDATE run SET status = ?, reason = ?, error = ?, outputs = ?, started_at = ?, finished_at = ?,
			input_tokens = ?, output_tokens = ?, cost_usd = ?, steps = ?, unpriced_calls = ?, lane_epoch = ?
		WHERE run_id = ? AND lane_epoch = ?`
	dropInbox     = `DELETE FROM inbox WHERE run_id = ?`
	deleteMessage = `DELETE FROM inbox WHERE msg_id = ?`
	yieldRun      = `UPDATE run SET status = 'QUEUED', lane_epoch = NULL WHERE run_id = ? AND lane_epoch = ? RETURNING priority`
)

// finish updates runs; it tells whether approvals were withdrawn with them, and
// whether slots were given back.
func (t *tx) finish(epoch int64, list []store.Finish) (withdrawn, freed bool, err error) {
	for i := range list {
		r := list[i].Run
		id, err := key(r.ID)
		if err != nil {
			return false, false, err
		}
		var owner any = epoch
		if r.Status.Final() {
			owner = nil
		}
		if _, err := t.updateRun(epoch, id, r, r.Status, owner); err != nil {
			return false, false, err
		}
		if owner == nil {
			if _, err := t.exec(dropInbox, id[:]); err != nil {
				return false, false, err
			}
			n, err := t.exec(withdrawOfRun, id[:])
			if err != nil {
				return false, false, err
			}
			withdrawn = withdrawn || n > 0
			given, err := t.free(id)
			if err != nil {
				return false, false, err
			}
			freed = freed || given
		}
	}
	return withdrawn, freed, nil
}

// updateRun writes the row of a run of the lane; it returns false when the lane
// does not own the run.
func (t *tx) updateRun(epoch int64, id [16]byte, r *pipeline.Run, status pipeline.RunStatus, owner any) (bool, error) {
	u := &r.Usage
	n, err := t.exec(finishRun, text(status), text(r.Reason), null(store.EncodeFailure(r.Error)), null(store.EncodeMap(r.Outputs)),
		micros(r.StartedAt), micros(r.FinishedAt), u.InputTokens, u.OutputTokens, store.Finite(u.CostUSD), u.Steps, u.Unpriced, owner, id[:], epoch)
	return n > 0, err
}

func (t *tx) yield(epoch int64, run pipeline.RunID) error {
	id, err := key(run)
	if err != nil {
		return err
	}
	var priority int64
	err = t.row(yieldRun, []any{id[:], epoch}, &priority)
	if errors.Is(err, sql.ErrNoRows) {
		return nil // it was given back already
	}
	if err == nil {
		_, err = t.exec(queueRun, priority, id[:])
	}
	return err
}

func key(id pipeline.RunID) ([16]byte, error) {
	k, ok := store.RunKey(id)
	if !ok {
		return k, &pipeline.Error{Kind: pipeline.NotFound, Reason: "run_not_found", Text: fmt.Sprintf("there is no run %q", id)}
	}
	return k, nil
}

func optionalKey(id pipeline.RunID) any {
	k, ok := store.RunKey(id)
	if !ok {
		return nil
	}
	return k[:]
}
