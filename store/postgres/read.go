package postgres

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/orchestrator-project/orchestrator/pipeline"
	"github.com/orchestrator-project/orchestrator/store"
)

// placeColumns are those of a run's queue.
const placeColumns = `coalesce(queue, ''), coalesce(fair_key, ''), coalesce(concurrency, ''), coalesce(concurrency_max, 0)`

// listColumns are a run's columns without the values.
const (
	listColumns = `run_id, pipeline, version, plan_digest, parent_run, forked_from, status, reason, error, priority, labels,
	workdir, created_at, started_at, finished_at, input_tokens, output_tokens, cost_usd, steps, unpriced_calls, fork_seq, checkpoint_seq, ` + placeColumns
	runColumns = listColumns + `, inputs, outputs`
)

func collectRuns(rows pgx.Rows, values bool) ([]*pipeline.Run, error) {
	defer rows.Close()
	var list []*pipeline.Run
	for rows.Next() {
		r, err := scanRun(rows, values)
		if err != nil {
			return nil, err
		}
		list = append(list, r)
	}
	return list, rows.Err()
}

func scanRun(rows pgx.Rows, values bool) (*pipeline.Run, error) {
	var (
		r                          pipeline.Run
		id                         [16]byte
		parent, fork               *[16]byte
		failure, labels, ins, outs []byte
		started, finished          *time.Time
	)
	into := []any{
		&id, &r.Pipeline, &r.Version, &r.PlanDigest, &parent, &fork, &r.Status, &r.Reason, &failure, &r.Priority, &labels,
		&r.Workspace, &r.CreatedAt, &started, &finished, &r.Usage.InputTokens, &r.Usage.OutputTokens, &r.Usage.CostUSD, &r.Usage.Steps, &r.Usage.Unpriced,
		&r.ForkSeq, &r.Checkpoint, &r.Queue, &r.FairKey, &r.Concurrency.Key, &r.Concurrency.Max,
	}
	if values {
		into = append(into, &ins, &outs)
	}
	if err := rows.Scan(into...); err != nil {
		return nil, err
	}
	r.ID = store.RunIDOf(id[:])
	store.Placed(&r)
	if parent != nil {
		r.ParentRun = store.RunIDOf(parent[:])
	}
	if fork != nil {
		r.ForkedFrom = store.RunIDOf(fork[:])
	}
	r.CreatedAt = r.CreatedAt.UTC()
	if started != nil {
		r.StartedAt = started.UTC()
	}
	if finished != nil {
		r.FinishedAt = finished.UTC()
	}
	var err error
	if r.Labels, err = store.DecodeLabels(labels); err != nil {
		return nil, err
	}
	if r.Error, err = store.DecodeFailure(failure); err != nil {
		return nil, err
	}
	if r.Inputs, err = store.DecodeMap(ins); err != nil {
		return nil, err
	}
	if r.Outputs, err = store.DecodeMap(outs); err != nil {
		return nil, err
	}
	return &r, nil
}

const readRun = `SELECT ` + runColumns + ` FROM run WHERE day = $1 AND run_id = $2`

// Run implements store.Store.
func (s *Store) Run(ctx context.Context, id pipeline.RunID) (*pipeline.Run, error) {
	k, err := runKey(id)
	if err != nil {
		return nil, err
	}
	var runs []*pipeline.Run
	err = s.do(ctx, "read run "+string(id), func(c *pgxpool.Conn) error {
		rows, err := c.Query(ctx, readRun, id.Day(), k)
		if err != nil {
			return err
		}
		runs, err = collectRuns(rows, true)
		return err
	})
	if err != nil {
		return nil, err
	}
	if len(runs) == 0 {
		return nil, runNotFound(id)
	}
	return runs[0], nil
}

// Runs implements store.Store.
func (s *Store) Runs(ctx context.Context, q store.Query) (store.Page, error) {
	limit := store.PageSize(q.Limit)
	var args []any
	arg := func(v any) string {
		args = append(args, v)
		return "$" + strconv.Itoa(len(args))
	}
	where := "true"
	if q.Before != "" {
		k, ok := store.RunKey(q.Before)
		if !ok {
			return store.Page{}, store.BadPage()
		}
		day := arg(q.Before.Day())
		where += " AND day <= " + day + " AND (day, run_id) < (" + day + ", " + arg(k) + ")"
	}
	if len(q.Status) > 0 {
		// The literal lists are the predicates of the partial indexes.
		switch {
		case !slices.ContainsFunc(q.Status, pipeline.RunStatus.Final):
			where += " AND status IN ('QUEUED','RUNNING','WAITING','PAUSED')"
		case len(q.Status) == 1 && q.Status[0] == pipeline.RunFailed:
			where += " AND status = 'FAILED'"
		}
		names := make([]string, len(q.Status))
		for i, st := range q.Status {
			names[i] = string(st)
		}
		where += " AND status = ANY(" + arg(names) + ")"
	}
	if q.Pipeline != "" {
		where += " AND pipeline = " + arg(store.Clean(q.Pipeline))
	}
	for column, id := range map[string]pipeline.RunID{"parent_run": q.Parent, "forked_from": q.Forked} {
		if id == "" {
			continue
		}
		k, err := runKey(id)
		if err != nil {
			return store.Page{}, err
		}
		where += " AND " + column + " = " + arg(k) //nolint:modernize // at most twice
	}
	if labels := store.EncodeLabels(q.Labels); labels != nil {
		where += " AND labels @> " + arg(string(labels)) + "::jsonb"
	}
	sql := `SELECT ` + listColumns + ` FROM run WHERE ` + where + ` ORDER BY day DESC, run_id DESC LIMIT ` + arg(limit+1)
	var page store.Page
	err := s.do(ctx, "list runs", func(c *pgxpool.Conn) error {
		rows, err := c.Query(ctx, sql, args...)
		if err != nil {
			return err
		}
		page.Runs, err = collectRuns(rows, false)
		return err
	})
	if err != nil {
		return store.Page{}, err
	}
	if len(page.Runs) > limit {
		page.Runs, page.More = page.Runs[:limit], true
	}
	return page, nil
}

const (
	readLog = `SELECT seq, type, path, attempt, at, body, blob FROM step_log
		WHERE day = $1 AND run_id = $2 AND seq > $3 ORDER BY seq LIMIT $4`
	readBlobs = `SELECT sha, size, data FROM blob WHERE day = $1 AND sha = ANY($2)`

	// eventsAtOnce bounds what one read holds in memory, and blobsAtOnce what
	// their large bodies may add.
	eventsAtOnce = 1000
	blobsAtOnce  = 32
)

// Events implements store.Store.
func (s *Store) Events(ctx context.Context, id pipeline.RunID, after int32) iter.Seq2[pipeline.Event, error] {
	return s.events(ctx, id, after, readLog)
}

// events reads a run's log by a query, whose further arguments are more.
func (s *Store) events(ctx context.Context, id pipeline.RunID, after int32, query string, more ...any) iter.Seq2[pipeline.Event, error] {
	return func(yield func(pipeline.Event, error) bool) {
		k, err := runKey(id)
		if err != nil {
			yield(pipeline.Event{}, err)
			return
		}
		for {
			var chunk logChunk
			err := s.do(ctx, "read the events of run "+string(id), func(c *pgxpool.Conn) error {
				chunk = logChunk{}
				return chunk.read(ctx, c.Conn(), id.Day(), query, append([]any{id.Day(), k, after, eventsAtOnce}, more...))
			})
			if err != nil {
				yield(pipeline.Event{}, err)
				return
			}
			for i := range chunk.events {
				if !yield(chunk.events[i], nil) {
					return
				}
			}
			if !chunk.more {
				return
			}
			after = chunk.events[len(chunk.events)-1].Seq
		}
	}
}

// logChunk is one read of a run's log.
type logChunk struct {
	events []pipeline.Event
	more   bool
}

func (l *logChunk) read(ctx context.Context, c *pgx.Conn, day time.Time, query string, args []any) error {
	rows, err := c.Query(ctx, query, args...)
	if err != nil {
		return err
	}
	defer rows.Close()
	type hole struct {
		event int
		sha   string
	}
	var holes []hole
	for rows.Next() {
		var e pipeline.Event
		var body, blob []byte
		if err := rows.Scan(&e.Seq, &e.Type, &e.Path, &e.Attempt, &e.At, &body, &blob); err != nil {
			return err
		}
		e.At = e.At.UTC()
		if blob != nil {
			if len(holes) == blobsAtOnce {
				l.more = true
				break
			}
			holes = append(holes, hole{event: len(l.events), sha: string(blob)})
		} else if e.Data, err = pipeline.DecodeData(body); err != nil {
			return fmt.Errorf("record %d: %w", e.Seq, err)
		}
		l.events = append(l.events, e)
	}
	rows.Close()
	if err := rows.Err(); err != nil {
		return err
	}
	l.more = l.more || len(l.events) == eventsAtOnce
	if len(holes) == 0 {
		return nil
	}
	names := make([][]byte, len(holes))
	for i, h := range holes {
		names[i] = []byte(h.sha)
	}
	blobs, err := c.Query(ctx, readBlobs, day, names)
	if err != nil {
		return err
	}
	defer blobs.Close()
	bodies := make(map[string][]byte, len(holes))
	for blobs.Next() {
		var sha, data []byte
		var size int
		if err := blobs.Scan(&sha, &size, &data); err != nil {
			return err
		}
		if bodies[string(sha)], err = store.OpenBlob(data, size); err != nil {
			return err
		}
	}
	if err := blobs.Err(); err != nil {
		return err
	}
	for _, h := range holes {
		body, ok := bodies[h.sha]
		if !ok {
			return errors.New("the body of a record is missing")
		}
		e := &l.events[h.event]
		if e.Data, err = pipeline.DecodeData(body); err != nil {
			return fmt.Errorf("record %d: %w", e.Seq, err)
		}
	}
	return nil
}
