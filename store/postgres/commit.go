package postgres

import (
	"context"
	"errors"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/orchestrator-project/orchestrator/store"
)

// Commit implements store.Lane. The batch is one round trip and one implicit
// transaction: the fence, idempotency keys in order, runs, their records in one
// statement, and the rest; or fewer and simpler statements, if it is small.
func (l *lane) Commit(ctx context.Context, b *store.Batch) (store.Result, error) {
	w := &l.w
	if err := w.encode(l.epoch, b); err != nil {
		return store.Result{}, err
	}
	trying, cancel := context.WithTimeout(ctx, commitTimeout)
	defer cancel()
	for n := 0; ; n++ {
		res, err := l.send(trying, b)
		if err == nil {
			l.doubt = false
			if l.w.ended.n > 0 {
				l.wary = max(l.wary-1, 0)
			}
			return res, nil
		}
		var pg *pgconn.PgError
		switch {
		case errors.As(err, &pg) && !isLost(err):
			if isFence(err) {
				l.doubt = false // nobody can record it any more
				return store.Result{}, store.ErrFenced
			}
			if n < 5 && again(err) {
				continue
			}
			if n < 5 && !l.doubt && l.wary == 0 && isLeftBehind(err) {
				l.wary = wariness
				continue
			}
			if n < 5 && pg.Code == "23505" && !l.doubt {
				l.doubt = true // recorded already? compare
				continue
			}
			if n < 5 && (pg.Code == "0A000" || pg.Code == "26000") { // prepared before a change of the schema
				l.drop()
				continue
			}
			if n < 5 && noPartition(err) {
				if err := l.s.ensureRunDays(trying, w.days); err != nil {
					return store.Result{}, err
				}
				continue
			}
		case errors.Is(err, store.ErrFenced):
			return store.Result{}, err
		case l.conn == nil: // not even sent
		case l.conn.IsClosed() || isLost(err):
			l.drop()
			l.doubt = true
		}
		return store.Result{}, l.s.fail(ctx, "record a batch", err)
	}
}

func (s *Store) ensureRunDays(ctx context.Context, days []int64) error {
	for _, d := range days {
		day := time.Unix(d*24*60*60, 0).UTC()
		if err := s.ensureDays(ctx, day, day); err != nil {
			return err
		}
	}
	return nil
}

// send sends the encoded batch once.
func (l *lane) send(ctx context.Context, b *store.Batch) (store.Result, error) {
	if err := l.reach(ctx); err != nil {
		return store.Result{}, err
	}
	w := &l.w
	if len(w.blobs) > 0 {
		if err := l.sendBlobs(ctx); err != nil {
			return store.Result{}, err
		}
	}
	var batch pgconn.Batch
	var err error
	n := 0 // statements
	add := func(sql string, params ...[]byte) int {
		if err == nil {
			var d *pgconn.StatementDescription
			if d, err = l.prepare(ctx, sql); err == nil {
				batch.ExecStatement(d, params, binaryFormat, binaryFormat)
			}
		}
		n++
		return n - 1
	}
	woken, freed, withdrawn := -1, -1, -1
	if !l.doubt && w.small() && (w.ended.n == 0 || l.wary == 0 && !w.holds) {
		w.addSmall(add)
	} else {
		woken, freed, withdrawn = w.addAll(add, l.doubt)
	}
	outcome := w.keys.n > 0
	if outcome {
		add(keyOutcome, w.keys.bytes())
	}
	if err != nil {
		return store.Result{}, err
	}
	reader := l.conn.PgConn().ExecBatch(ctx, &batch)
	var owners map[string]keyOwner
	bell := store.Bell{Approvals: w.ask[0].n+w.withdraw.n > 0}
	for i := 0; reader.NextResult(); i++ {
		r := reader.ResultReader()
		if outcome && len(r.FieldDescriptions()) == 3 {
			owners = make(map[string]keyOwner, w.keys.n)
			for r.NextRow() {
				v := r.Values()
				owners[string(v[0])] = keyOwner{run: [16]byte(v[1]), digest: string(v[2])}
			}
		}
		tag, err := r.Close()
		if err != nil {
			break // Close of the batch says it
		}
		bell.Queued = bell.Queued || (i == woken || i == freed) && tag.RowsAffected() > 0
		bell.Approvals = bell.Approvals || i == withdrawn && tag.RowsAffected() > 0
	}
	if err := reader.Close(); err != nil {
		return store.Result{}, err
	}
	if !bell.Empty() {
		l.s.Ring(bell)
	}
	return w.result(b, owners), nil
}

// addAll adds the statements of a batch of any kind. It returns the places of those
// whose count of rows matters, or -1.
func (w *batchWriter) addAll(add func(sql string, params ...[]byte) int, doubt bool) (woken, freed, withdrawn int) {
	woken, freed, withdrawn = -1, -1, -1
	runs, log, keyedLog := insertRuns, insertLog, insertKeyedLog
	if doubt {
		runs, log, keyedLog = insertRunsAgain, insertLogAgain, insertKeyedLogAgain
	}
	add(fence, w.epoch[:])
	if w.keys.n > 0 {
		add(takeKeys, w.keys.bytes(), w.keyDigests.bytes(), w.keyRuns.bytes())
	}
	if w.run[0].n > 0 {
		add(runs, w.params(w.run[:])...)
	}
	if w.place.line[0].n > 0 {
		add(growKeys, w.params(w.place.line[:])...)
	}
	if w.place.run[0].n > 0 {
		add(placeRuns, w.params(w.place.run[:])...)
	}
	if w.log[0].n > 0 {
		add(log, w.params(w.log[:])...)
	}
	if w.keyedLog[0].n > 0 {
		add(keyedLog, w.params(w.keyedLog[:])...)
	}
	if w.mark[0].n > 0 {
		add(markCheckpoints, append(w.params(w.mark[:]), w.epoch[:])...)
	}
	if w.fin[0].n > 0 {
		add(finishRuns, append(w.params(w.fin[:]), w.epoch[:])...)
	}
	if w.yield[0].n > 0 {
		add(yieldRuns, w.yield[0].bytes(), w.yield[1].bytes(), w.epoch[:])
	}
	if w.park[0].n > 0 {
		add(parkRuns, append(w.params(w.park[:]), w.epoch[:])...)
	}
	// The locks of runs come before those of messages and approvals: whoever
	// sends or decides takes them in this order, too.
	if w.consume.n > 0 {
		add(consume, w.consume.bytes())
	}
	if w.ask[0].n > 0 {
		add(insertApprovals, w.params(w.ask[:])...)
	}
	if w.withdraw.n > 0 {
		add(withdrawApprovals, w.withdraw.bytes())
	}
	if w.park[0].n > 0 {
		woken = add(wakeParked, w.park[0].bytes(), w.park[1].bytes())
	}
	if w.ended.n > 0 {
		freed = add(dropHoldings, w.ended.bytes())
		withdrawn = add(withdrawEnded, w.ended.bytes())
	}
	return woken, freed, withdrawn
}

var binaryFormat = []int16{1}

const (
	asyncCommit = `SELECT set_config('synchronous_commit', 'off', true)`
	insertBlobs = `INSERT INTO blob (day, sha, size, data)
		SELECT * FROM unnest($1::date[], $2::bytea[], $3::integer[], $4::bytea[]) ON CONFLICT DO NOTHING`
)

// sendBlobs stores bodies ahead of the batch, in the order of their keys, so
// that two lanes with the same ones cannot block each other crosswise. The
// batch that names them is flushed after them.
func (l *lane) sendBlobs(ctx context.Context) error {
	w := &l.w
	for i := range w.blob {
		w.blob[i].reset([]uint32{oidDate, oidBytea, oidInt4, oidBytea}[i])
	}
	for i := range w.blobs {
		b := &w.blobs[i]
		w.blob[0].putDay(b.Day)
		w.blob[1].putBytes(b.SHA[:])
		w.blob[2].putInt4(int32(b.Size))
		w.blob[3].putBytes(b.Data)
	}
	async, err := l.prepare(ctx, asyncCommit)
	if err != nil {
		return err
	}
	insert, err := l.prepare(ctx, insertBlobs)
	if err != nil {
		return err
	}
	var batch pgconn.Batch
	batch.ExecStatement(async, nil, nil, binaryFormat)
	batch.ExecStatement(insert, w.params(w.blob[:]), binaryFormat, binaryFormat)
	if err := l.conn.PgConn().ExecBatch(ctx, &batch).Close(); err != nil {
		return err
	}
	w.blobs = w.blobs[:0] // they stand, also for a resend
	return nil
}

const (
	takeKeys = `INSERT INTO idempotency AS i (key, request_digest, run_id, expires_at)
		SELECT u.key, u.digest, u.run_id, clock_timestamp() + interval '24 hours'
		FROM unnest($1::text[], $2::text[], $3::uuid[]) AS u (key, digest, run_id)
		ON CONFLICT (key) DO UPDATE SET request_digest = EXCLUDED.request_digest, run_id = EXCLUDED.run_id, expires_at = EXCLUDED.expires_at
		WHERE i.expires_at < clock_timestamp()`
	keyOutcome = `SELECT key, run_id, request_digest FROM idempotency WHERE key = ANY($1::text[])`

	insertRuns = `INSERT INTO run (day, run_id, pipeline, version, plan_digest, parent_run, forked_from, status, reason, error, lane_epoch, priority,
			labels, inputs, outputs, workdir, created_at, started_at, finished_at, input_tokens, output_tokens, cost_usd, steps, fork_seq, unpriced_calls)
		SELECT u.day, u.run_id, u.pipeline, u.version, u.plan_digest, u.parent_run, u.forked_from, u.status, u.reason, u.error, u.lane_epoch, u.priority,
			u.labels::jsonb, u.inputs, u.outputs, u.workdir, u.created_at, u.started_at, u.finished_at, u.input_tokens, u.output_tokens, u.cost_usd, u.steps, u.fork_seq,
			u.unpriced_calls
		FROM unnest($1::date[], $2::uuid[], $3::text[], $4::text[], $5::text[], $6::uuid[], $7::uuid[], $8::text[], $9::text[], $10::bytea[],
			$11::bigint[], $12::integer[], $13::text[], $14::bytea[], $15::bytea[], $16::text[], $17::timestamptz[], $18::timestamptz[],
			$19::timestamptz[], $20::integer[], $21::integer[], $22::float8[], $23::integer[], $24::text[], $25::integer[], $26::integer[])
			AS u (day, run_id, pipeline, version, plan_digest, parent_run, forked_from, status, reason, error, lane_epoch, priority,
			labels, inputs, outputs, workdir, created_at, started_at, finished_at, input_tokens, output_tokens, cost_usd, steps, key, fork_seq, unpriced_calls)
		WHERE u.key IS NULL OR EXISTS (SELECT FROM idempotency i WHERE i.key = u.key AND i.run_id = u.run_id)`
	insertRunsAgain = insertRuns + ` ON CONFLICT DO NOTHING`

	insertLogHead = `INSERT INTO step_log (day, run_id, seq, attempt, digest, at, type, path, body, blob)
		SELECT * FROM unnest($1::date[], $2::uuid[], $3::integer[], $4::integer[], $5::bigint[], $6::timestamptz[], $7::text[], $8::text[],
			$9::bytea[], $10::bytea[]) AS u (day, run_id, seq, attempt, digest, at, type, path, body, blob)`
	// Records of a run that may have lost its idempotency key.
	whereCreated = ` WHERE EXISTS (SELECT FROM run WHERE run.day = u.day AND run.run_id = u.run_id)`
	// Only of a batch in doubt. A record that stands must be the same one; if
	// not, the cast fails, and with it the whole batch.
	orTheSame = ` ON CONFLICT (day, run_id, seq) DO UPDATE
		SET digest = ('record ' || EXCLUDED.seq || ' of run ' || EXCLUDED.run_id || ' stands with other content')::bigint
		WHERE step_log.digest <> EXCLUDED.digest`

	insertLog           = insertLogHead
	insertLogAgain      = insertLogHead + orTheSame
	insertKeyedLog      = insertLogHead + whereCreated
	insertKeyedLogAgain = insertLogHead + whereCreated + orTheSame

	markCheckpoints = `UPDATE run SET checkpoint_seq = m.seq
		FROM (SELECT day, run_id, max(seq) AS seq FROM unnest($1::date[], $2::uuid[], $3::integer[]) AS u (day, run_id, seq) GROUP BY 1, 2) m
		WHERE run.day = m.day AND run.run_id = m.run_id AND run.lane_epoch = $4`
	finishRuns = `UPDATE run SET status = f.status, reason = f.reason, error = f.error, outputs = f.outputs, started_at = f.started_at,
			finished_at = f.finished_at, input_tokens = f.input_tokens, output_tokens = f.output_tokens, cost_usd = f.cost_usd, steps = f.steps,
			unpriced_calls = f.unpriced_calls, lane_epoch = CASE WHEN f.final THEN NULL ELSE run.lane_epoch END
		FROM unnest($1::date[], $2::uuid[], $3::text[], $4::text[], $5::bytea[], $6::bytea[], $7::timestamptz[], $8::timestamptz[],
			$9::integer[], $10::integer[], $11::float8[], $12::integer[], $13::integer[], $14::boolean[])
			AS f (day, run_id, status, reason, error, outputs, started_at, finished_at, input_tokens, output_tokens, cost_usd, steps, unpriced_calls, final)
		WHERE run.day = f.day AND run.run_id = f.run_id AND run.lane_epoch = $15`
	parkRuns = `WITH parked AS (
			UPDATE run SET status = p.status, reason = p.reason, error = p.error, outputs = p.outputs, started_at = p.started_at,
				finished_at = p.finished_at, input_tokens = p.input_tokens, output_tokens = p.output_tokens, cost_usd = p.cost_usd,
				steps = p.steps, unpriced_calls = p.unpriced_calls, lane_epoch = NULL
			FROM unnest($1::date[], $2::uuid[], $3::text[], $4::text[], $5::bytea[], $6::bytea[], $7::timestamptz[], $8::timestamptz[],
				$9::integer[], $10::integer[], $11::float8[], $12::integer[], $13::integer[], $14::timestamptz[])
				AS p (day, run_id, status, reason, error, outputs, started_at, finished_at, input_tokens, output_tokens, cost_usd, steps, unpriced_calls, wake)
			WHERE run.day = p.day AND run.run_id = p.run_id AND run.lane_epoch = $15 RETURNING run.day, run.run_id, p.wake)
		INSERT INTO run_timer (run_id, day, due_at) SELECT run_id, day, wake FROM parked WHERE wake IS NOT NULL
		ON CONFLICT (run_id) DO UPDATE SET due_at = EXCLUDED.due_at`
	// A statement after parkRuns, so that it sees the message of a sender that
	// held the run's row while parkRuns waited for it.
	wakeParked = `INSERT INTO run_queue (priority, day, run_id)
		SELECT run.priority, run.day, run.run_id FROM unnest($1::date[], $2::uuid[]) AS u (day, run_id)
			JOIN run ON run.day = u.day AND run.run_id = u.run_id
		WHERE run.status IN ('WAITING','PAUSED') AND run.lane_epoch IS NULL
			AND EXISTS (SELECT FROM inbox i WHERE i.run_id = u.run_id AND (run.status = 'WAITING' OR i.kind IN ('resume','cancel')))
		ON CONFLICT DO NOTHING`

	insertApprovals = `INSERT INTO approval (id, run_id, pipeline, status, request, decisions, deadline, created_at, decided_at)
		SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::text[], $5::bytea[], $6::bytea[], $7::timestamptz[], $8::timestamptz[],
			$9::timestamptz[]) ON CONFLICT (id) DO NOTHING`
	withdrawApprovals = `UPDATE approval SET status = 'withdrawn' WHERE id = ANY($1::uuid[]) AND status = 'open'`
	withdrawEnded     = `UPDATE approval SET status = 'withdrawn' WHERE run_id = ANY($1::uuid[]) AND status = 'open'`

	// dropHoldings ends what a run that has finished leaves behind, and yields a
	// row for each slot that others may have waited for.
	dropHoldings = `WITH gone AS (DELETE FROM inbox WHERE run_id = ANY($1::uuid[])),
		freed AS (DELETE FROM slot WHERE run_id = ANY($1::uuid[]) RETURNING key),
		noted AS (INSERT INTO slot_freed (key) SELECT substr(key, 5) FROM freed WHERE key LIKE 'key %')
		SELECT FROM freed`
	yieldRuns = `WITH freed AS (
			UPDATE run SET status = 'QUEUED', lane_epoch = NULL FROM unnest($1::date[], $2::uuid[]) AS u (day, run_id)
			WHERE run.day = u.day AND run.run_id = u.run_id AND run.lane_epoch = $3 RETURNING run.priority, run.day, run.run_id)
		INSERT INTO run_queue (priority, day, run_id) SELECT priority, day, run_id FROM freed ON CONFLICT DO NOTHING`
	consume = `DELETE FROM inbox WHERE msg_id = ANY($1::text[])`
)

type keyOwner struct {
	run    [16]byte
	digest string
}
