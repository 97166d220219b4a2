package postgres

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/orchestrator-project/orchestrator/pipeline"
	"github.com/orchestrator-project/orchestrator/store"
)

// Commit implements store.Lane. The batch is one round trip and one implicit
// transaction: the fence, idempotency keys in order, runs, their records in one
// statement, and the rest.
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
	runs, log, keyedLog := insertRuns, insertLog, insertKeyedLog
	if l.doubt {
		runs, log, keyedLog = insertRunsAgain, insertLogAgain, insertKeyedLogAgain
	}
	var batch pgconn.Batch
	var err error
	add := func(sql string, params ...[]byte) {
		if err != nil {
			return
		}
		var d *pgconn.StatementDescription
		if d, err = l.prepare(ctx, sql); err == nil {
			batch.ExecStatement(d, params, binaryFormat, binaryFormat)
		}
	}
	add(fence, w.epoch[:])
	if w.keys.n > 0 {
		add(takeKeys, w.keys.bytes(), w.keyDigests.bytes(), w.keyRuns.bytes())
	}
	if w.run[0].n > 0 {
		add(runs, w.params(w.run[:])...)
	}
	if w.log[0].n > 0 {
		add(log, w.params(w.log[:])...)
	}
	if w.keyedLog[0].n > 0 {
		add(keyedLog, w.params(w.keyedLog[:])...)
	}
	if w.fin[0].n > 0 {
		add(finishRuns, append(w.params(w.fin[:]), w.epoch[:])...)
	}
	if w.ended.n > 0 {
		add(dropInbox, w.ended.bytes())
	}
	if w.yield[0].n > 0 {
		add(yieldRuns, w.yield[0].bytes(), w.yield[1].bytes(), w.epoch[:])
	}
	if w.consume.n > 0 {
		add(consume, w.consume.bytes())
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
	for reader.NextResult() {
		r := reader.ResultReader()
		if outcome && len(r.FieldDescriptions()) == 3 {
			owners = make(map[string]keyOwner, w.keys.n)
			for r.NextRow() {
				v := r.Values()
				owners[string(v[0])] = keyOwner{run: [16]byte(v[1]), digest: string(v[2])}
			}
		}
		if _, err := r.Close(); err != nil {
			break // Close of the batch says it
		}
	}
	if err := reader.Close(); err != nil {
		return store.Result{}, err
	}
	return w.result(b, owners), nil
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

	insertRunsHead = `WITH created AS (
		INSERT INTO run (day, run_id, pipeline, version, plan_digest, parent_run, forked_from, status, reason, error, lane_epoch, priority,
			labels, inputs, outputs, workdir, created_at, started_at, finished_at, input_tokens, output_tokens, cost_usd, steps)
		SELECT u.day, u.run_id, u.pipeline, u.version, u.plan_digest, u.parent_run, u.forked_from, u.status, u.reason, u.error, u.lane_epoch, u.priority,
			u.labels::jsonb, u.inputs, u.outputs, u.workdir, u.created_at, u.started_at, u.finished_at, u.input_tokens, u.output_tokens, u.cost_usd, u.steps
		FROM unnest($1::date[], $2::uuid[], $3::text[], $4::text[], $5::text[], $6::uuid[], $7::uuid[], $8::text[], $9::text[], $10::bytea[],
			$11::bigint[], $12::integer[], $13::text[], $14::bytea[], $15::bytea[], $16::text[], $17::timestamptz[], $18::timestamptz[],
			$19::timestamptz[], $20::integer[], $21::integer[], $22::float8[], $23::integer[], $24::text[])
			AS u (day, run_id, pipeline, version, plan_digest, parent_run, forked_from, status, reason, error, lane_epoch, priority,
			labels, inputs, outputs, workdir, created_at, started_at, finished_at, input_tokens, output_tokens, cost_usd, steps, key)
		WHERE u.key IS NULL OR EXISTS (SELECT FROM idempotency i WHERE i.key = u.key AND i.run_id = u.run_id)`
	insertRunsTail = ` RETURNING priority, day, run_id, status)
		INSERT INTO run_queue (priority, day, run_id) SELECT priority, day, run_id FROM created WHERE status = 'QUEUED'`

	insertRuns      = insertRunsHead + insertRunsTail
	insertRunsAgain = insertRunsHead + ` ON CONFLICT DO NOTHING` + insertRunsTail

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

	finishRuns = `UPDATE run SET status = f.status, reason = f.reason, error = f.error, outputs = f.outputs, started_at = f.started_at,
			finished_at = f.finished_at, input_tokens = f.input_tokens, output_tokens = f.output_tokens, cost_usd = f.cost_usd, steps = f.steps,
			lane_epoch = CASE WHEN f.final THEN NULL ELSE run.lane_epoch END
		FROM unnest($1::date[], $2::uuid[], $3::text[], $4::text[], $5::bytea[], $6::bytea[], $7::timestamptz[], $8::timestamptz[],
			$9::integer[], $10::integer[], $11::float8[], $12::integer[], $13::boolean[])
			AS f (day, run_id, status, reason, error, outputs, started_at, finished_at, input_tokens, output_tokens, cost_usd, steps, final)
		WHERE run.day = f.day AND run.run_id = f.run_id AND run.lane_epoch = $14`
	dropInbox = `DELETE FROM inbox WHERE run_id = ANY($1::uuid[])`
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

// batchWriter turns batches into parameters; its buffers serve all of a lane's.
type batchWriter struct {
	epoch                     [8]byte
	keys, keyDigests, keyRuns array
	run                       [24]array
	log, keyedLog             [10]array
	fin                       [13]array
	ended, consume            array
	yield                     [2]array
	blob                      [4]array
	blobs                     []store.Blob
	days                      []int64 // of the batch's runs, each once
	body                      []byte
	list                      [][]byte
}

var (
	runOIDs = [24]uint32{oidDate, oidUUID, oidText, oidText, oidText, oidUUID, oidUUID, oidText, oidText, oidBytea, oidInt8, oidInt4,
		oidText, oidBytea, oidBytea, oidText, oidTimestamptz, oidTimestamptz, oidTimestamptz, oidInt4, oidInt4, oidFloat8, oidInt4, oidText}
	logOIDs = [10]uint32{oidDate, oidUUID, oidInt4, oidInt4, oidInt8, oidTimestamptz, oidText, oidText, oidBytea, oidBytea}
	finOIDs = [13]uint32{oidDate, oidUUID, oidText, oidText, oidBytea, oidBytea, oidTimestamptz, oidTimestamptz, oidInt4, oidInt4,
		oidFloat8, oidInt4, oidBool}
)

// maxKept bounds the buffers that are kept for the next batch.
const maxKept = 4 << 20

func (w *batchWriter) reset(epoch int64) {
	each := func(a *array, oid uint32) {
		if cap(a.buf) > maxKept {
			a.buf = nil
		}
		a.reset(oid)
	}
	each(&w.keys, oidText)
	each(&w.keyDigests, oidText)
	each(&w.keyRuns, oidUUID)
	for i := range w.run {
		each(&w.run[i], runOIDs[i])
	}
	for i := range w.log {
		each(&w.log[i], logOIDs[i])
		each(&w.keyedLog[i], logOIDs[i])
	}
	for i := range w.fin {
		each(&w.fin[i], finOIDs[i])
	}
	each(&w.ended, oidUUID)
	each(&w.consume, oidText)
	each(&w.yield[0], oidDate)
	each(&w.yield[1], oidUUID)
	w.blobs, w.days = w.blobs[:0], w.days[:0]
	putInt8(w.epoch[:], epoch)
}

func (w *batchWriter) params(columns []array) [][]byte {
	list := make([][]byte, 0, len(columns)+1)
	for i := range columns {
		list = append(list, columns[i].bytes())
	}
	return list
}

func (w *batchWriter) encode(epoch int64, b *store.Batch) error {
	w.reset(epoch)
	keyed, err := w.takeKeys(b.Create)
	if err != nil {
		return err
	}
	for i := range b.Create {
		c := &b.Create[i]
		id, err := runKey(c.Run.ID)
		if err != nil {
			return err
		}
		if c.IdempotencyKey != "" && keyed[id] == "" {
			continue // another of this batch has its key
		}
		w.putRun(epoch, c.Run, id, keyed[id])
		w.putEvents(id, c.Events, keyed[id] != "")
	}
	for i := range b.Append {
		a := &b.Append[i]
		id, err := runKey(a.Run)
		if err != nil {
			return err
		}
		_, maybe := keyed[id]
		w.putEvents(id, a.Events, maybe)
	}
	for i := range b.Finish {
		r := b.Finish[i].Run
		if slices.ContainsFunc(b.Finish[i+1:], func(f store.Finish) bool { return f.Run.ID == r.ID }) {
			continue // the last one counts
		}
		id, err := runKey(r.ID)
		if err != nil {
			return err
		}
		w.putFinish(r, id)
	}
	for _, run := range b.Yield {
		id, err := runKey(run)
		if err != nil {
			return err
		}
		w.day(id)
		w.yield[0].putDay(store.DayOf(id))
		w.yield[1].putBytes(id[:])
	}
	for _, m := range b.Consume {
		w.consume.putText(store.Clean(string(m)))
	}
	slices.SortFunc(w.blobs, func(a, b store.Blob) int {
		if a.Day != b.Day {
			return int(a.Day - b.Day)
		}
		return bytes.Compare(a.SHA[:], b.SHA[:])
	})
	w.blobs = slices.CompactFunc(w.blobs, func(a, b store.Blob) bool { return a.Day == b.Day && a.SHA == b.SHA })
	return nil
}

// takeKeys writes the keys of the batch in order, each for the first run that
// asks for it. The map holds every run with a key; those that lost theirs to
// another run of the batch have none.
func (w *batchWriter) takeKeys(list []store.Create) (map[[16]byte]string, error) {
	type taker struct {
		key string
		run [16]byte
		c   *store.Create
	}
	var takers []taker
	var keyed map[[16]byte]string
	for i := range list {
		c := &list[i]
		if c.IdempotencyKey == "" {
			continue
		}
		id, err := runKey(c.Run.ID)
		if err != nil {
			return nil, err
		}
		if keyed == nil {
			keyed = make(map[[16]byte]string)
		}
		keyed[id] = ""
		takers = append(takers, taker{key: store.Clean(c.IdempotencyKey), run: id, c: c})
	}
	slices.SortStableFunc(takers, func(a, b taker) int { return strings.Compare(a.key, b.key) })
	for i, t := range takers {
		if i > 0 && takers[i-1].key == t.key {
			continue
		}
		keyed[t.run] = t.key
		w.keys.putText(t.key)
		w.keyDigests.putText(store.Clean(string(t.c.RequestDigest)))
		w.keyRuns.putBytes(t.run[:])
	}
	return keyed, nil
}

func (w *batchWriter) result(b *store.Batch, owners map[string]keyOwner) store.Result {
	if len(b.Create) == 0 {
		return store.Result{}
	}
	res := store.Result{Creates: make([]store.CreateResult, len(b.Create))}
	for i := range b.Create {
		c := &b.Create[i]
		if c.IdempotencyKey == "" {
			continue
		}
		owner, ok := owners[store.Clean(c.IdempotencyKey)]
		if id, _ := store.RunKey(c.Run.ID); ok && owner.run != id {
			res.Creates[i] = store.CreateResult{Existing: store.RunIDOf(owner.run[:]), Mismatch: owner.digest != store.Clean(string(c.RequestDigest))}
		}
	}
	return res
}

func (w *batchWriter) day(id [16]byte) {
	if d := store.DayOf(id); !slices.Contains(w.days, d) {
		w.days = append(w.days, d)
	}
}

func (w *batchWriter) putRun(epoch int64, r *pipeline.Run, id [16]byte, key string) {
	w.day(id)
	c := &w.run
	optional := func(a *array, id pipeline.RunID) {
		if k, ok := store.RunKey(id); ok {
			a.putBytes(k[:])
		} else {
			a.putNull()
		}
	}
	c[0].putDay(store.DayOf(id))
	c[1].putBytes(id[:])
	c[2].putText(store.Clean(r.Pipeline))
	c[3].putText(store.Clean(r.Version))
	c[4].putText(store.Clean(string(r.PlanDigest)))
	optional(&c[5], r.ParentRun)
	optional(&c[6], r.ForkedFrom)
	c[7].putText(store.Clean(string(r.Status)))
	c[8].putText(store.Clean(r.Reason))
	c[9].putBytes(store.EncodeFailure(r.Error))
	if r.Status == pipeline.RunQueued || r.Status.Final() {
		c[10].putNull()
	} else {
		c[10].putInt8(epoch)
	}
	c[11].putInt4(r.Priority)
	c[12].putBytes(store.EncodeLabels(r.Labels))
	c[13].putBytes(store.EncodeMap(r.Inputs))
	c[14].putBytes(store.EncodeMap(r.Outputs))
	c[15].putText(store.Clean(r.Workspace))
	c[16].putTime(r.CreatedAt)
	c[17].putTimeOrNull(r.StartedAt)
	c[18].putTimeOrNull(r.FinishedAt)
	c[19].putInt4(r.Usage.InputTokens)
	c[20].putInt4(r.Usage.OutputTokens)
	c[21].putFloat8(store.Finite(r.Usage.CostUSD))
	c[22].putInt4(r.Usage.Steps)
	if key == "" {
		c[23].putNull()
	} else {
		c[23].putText(key)
	}
}

func (w *batchWriter) putEvents(id [16]byte, events []pipeline.Event, maybe bool) {
	c := &w.log
	if maybe {
		c = &w.keyedLog
	}
	if len(events) > 0 {
		w.day(id)
	}
	day := store.DayOf(id)
	for i := range events {
		e := &events[i]
		w.body = pipeline.AppendData(w.body[:0], &e.Data)
		var digest int64
		if len(w.body) > store.BlobMin {
			b := store.NewBlob(day, w.body)
			w.blobs = append(w.blobs, b)
			digest = store.EventDigest(e, b.SHA[:])
			c[8].putNull()
			c[9].putBytes(b.SHA[:])
			if cap(w.body) > maxKept {
				w.body = nil
			}
		} else {
			digest = store.EventDigest(e, w.body)
			c[8].putBytes(w.body)
			c[9].putNull()
		}
		c[0].putDay(day)
		c[1].putBytes(id[:])
		c[2].putInt4(e.Seq)
		c[3].putInt4(e.Attempt)
		c[4].putInt8(digest)
		c[5].putTime(e.At)
		c[6].putText(store.Clean(string(e.Type)))
		c[7].putText(store.Clean(string(e.Path)))
	}
}

func (w *batchWriter) putFinish(r *pipeline.Run, id [16]byte) {
	w.day(id)
	c := &w.fin
	c[0].putDay(store.DayOf(id))
	c[1].putBytes(id[:])
	c[2].putText(store.Clean(string(r.Status)))
	c[3].putText(store.Clean(r.Reason))
	c[4].putBytes(store.EncodeFailure(r.Error))
	c[5].putBytes(store.EncodeMap(r.Outputs))
	c[6].putTimeOrNull(r.StartedAt)
	c[7].putTimeOrNull(r.FinishedAt)
	c[8].putInt4(r.Usage.InputTokens)
	c[9].putInt4(r.Usage.OutputTokens)
	c[10].putFloat8(store.Finite(r.Usage.CostUSD))
	c[11].putInt4(r.Usage.Steps)
	c[12].putBool(r.Status.Final())
	if r.Status.Final() {
		w.ended.putBytes(id[:])
	}
}

func runKey(id pipeline.RunID) ([16]byte, error) {
	k, ok := store.RunKey(id)
	if !ok {
		return k, runNotFound(id)
	}
	return k, nil
}

func runNotFound(id pipeline.RunID) error {
	return &pipeline.Error{Kind: pipeline.NotFound, Reason: "run_not_found", Text: fmt.Sprintf("there is no run %s", id)}
}
