package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"time"

	"github.com/orchestrator-project/orchestrator/pipeline"
	"github.com/orchestrator-project/orchestrator/store"
)

// query runs a prepared read and calls f for every row.
func (s *Store) query(ctx context.Context, query string, args []any, f func(*sql.Rows) error) error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return sql.ErrConnDone
	}
	st := s.stmts[query]
	if st == nil {
		var err error
		if st, err = s.read.PrepareContext(ctx, query); err != nil {
			s.mu.Unlock()
			return err
		}
		s.stmts[query] = st
	}
	s.mu.Unlock()
	rows, err := st.QueryContext(ctx, args...)
	if err != nil {
		return err
	}
	return drain(rows, f)
}

// placeColumns are those of a run's queue.
const placeColumns = `coalesce(queue, ''), coalesce(fair_key, ''), coalesce(concurrency, ''), coalesce(concurrency_max, 0)`

const runColumns = `run_id, pipeline, version, plan_digest, parent_run, forked_from, status, reason, error, priority, labels,
	workdir, created_at, started_at, finished_at, input_tokens, output_tokens, cost_usd, steps, unpriced_calls, fork_seq, checkpoint_seq, ` + placeColumns + `, inputs, outputs`

// listColumns are runColumns without the values.
const listColumns = `run_id, pipeline, version, plan_digest, parent_run, forked_from, status, reason, error, priority, labels,
	workdir, created_at, started_at, finished_at, input_tokens, output_tokens, cost_usd, steps, unpriced_calls, fork_seq, checkpoint_seq, ` + placeColumns

func scanRun(rows *sql.Rows, values bool) (*pipeline.Run, error) {
	var (
		r                          pipeline.Run
		id, parent, fork           []byte
		failure, labels, ins, outs []byte
		created, started, finished sql.NullInt64
	)
	into := []any{
		&id, &r.Pipeline, &r.Version, &r.PlanDigest, &parent, &fork, &r.Status, &r.Reason, &failure, &r.Priority, &labels,
		&r.Workspace, &created, &started, &finished, &r.Usage.InputTokens, &r.Usage.OutputTokens, &r.Usage.CostUSD, &r.Usage.Steps, &r.Usage.Unpriced,
		&r.ForkSeq, &r.Checkpoint, &r.Queue, &r.FairKey, &r.Concurrency.Key, &r.Concurrency.Max,
	}
	if values {
		into = append(into, &ins, &outs)
	}
	if err := rows.Scan(into...); err != nil {
		return nil, err
	}
	r.ID = store.RunIDOf(id)
	store.Placed(&r)
	if parent != nil {
		r.ParentRun = store.RunIDOf(parent)
	}
	if fork != nil {
		r.ForkedFrom = store.RunIDOf(fork)
	}
	r.CreatedAt, r.StartedAt, r.FinishedAt = fromMicros(created), fromMicros(started), fromMicros(finished)
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

const readRun = `SELECT ` + runColumns + ` FROM run WHERE run_id = ?`

// Run implements store.Store.
func (s *Store) Run(ctx context.Context, id pipeline.RunID) (*pipeline.Run, error) {
	k, err := key(id)
	if err != nil {
		return nil, err
	}
	var run *pipeline.Run
	err = s.query(ctx, readRun, []any{k[:]}, func(r *sql.Rows) (err error) {
		run, err = scanRun(r, true)
		return err
	})
	if err != nil {
		return nil, storeError("read run "+string(id), err)
	}
	if run == nil {
		return nil, runNotFound(id)
	}
	return run, nil
}

func runNotFound(id pipeline.RunID) error {
	return &pipeline.Error{Kind: pipeline.NotFound, Reason: "run_not_found", Text: fmt.Sprintf("there is no run %s", id)}
}

// Runs implements store.Store.
func (s *Store) Runs(ctx context.Context, q store.Query) (store.Page, error) {
	limit := store.PageSize(q.Limit)
	var args []any
	where := "run_id < ?"
	if q.Before == "" {
		where = "run_id >= ?" // all
		args = append(args, make([]byte, 16))
	} else {
		k, ok := store.RunKey(q.Before)
		if !ok {
			return store.Page{}, store.BadPage()
		}
		args = append(args, k[:])
	}
	if len(q.Status) > 0 {
		// The literal lists are the predicates of the partial indexes.
		switch {
		case !slices.ContainsFunc(q.Status, pipeline.RunStatus.Final):
			where += " AND status IN ('QUEUED','RUNNING','WAITING','PAUSED')"
		case len(q.Status) == 1 && q.Status[0] == pipeline.RunFailed:
			where += " AND status = 'FAILED'"
		}
		where += " AND status IN (?" + strings.Repeat(", ?", len(q.Status)-1) + ")"
		for _, st := range q.Status {
			args = append(args, string(st))
		}
	}
	if q.Pipeline != "" {
		where += " AND pipeline = ?"
		args = append(args, text(q.Pipeline))
	}
	for column, id := range map[string]pipeline.RunID{"parent_run": q.Parent, "forked_from": q.Forked} {
		if id == "" {
			continue
		}
		k, err := key(id)
		if err != nil {
			return store.Page{}, err
		}
		where += " AND " + column + " = ?"
		args = append(args, k[:])
	}
	names := make([]string, 0, len(q.Labels))
	for name := range q.Labels {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		where += " AND EXISTS (SELECT 1 FROM json_each(run.labels) WHERE key = ? AND value = ?)"
		args = append(args, text(name), text(q.Labels[name]))
	}
	args = append(args, limit+1)
	var page store.Page
	err := s.query(ctx, `SELECT `+listColumns+` FROM run WHERE `+where+` ORDER BY run_id DESC LIMIT ?`, args, func(r *sql.Rows) error {
		run, err := scanRun(r, false)
		page.Runs = append(page.Runs, run)
		return err
	})
	if err != nil {
		return store.Page{}, storeError("list runs", err)
	}
	if len(page.Runs) > limit {
		page.Runs, page.More = page.Runs[:limit], true
	}
	return page, nil
}

const readLog = `SELECT s.seq, s.type, s.path, s.attempt, s.at, s.body, b.size, b.data
	FROM step_log s LEFT JOIN blob b ON b.day = ? AND b.sha = s.blob
	WHERE s.run_id = ? AND s.seq > ? ORDER BY s.seq LIMIT ?`

// eventsAtOnce bounds what one read holds in memory.
const eventsAtOnce = 1000

// Events implements store.Store.
func (s *Store) Events(ctx context.Context, id pipeline.RunID, after int32) iter.Seq2[pipeline.Event, error] {
	return s.events(ctx, id, after, readLog)
}

// events reads a run's log by a query, whose further arguments are more.
func (s *Store) events(ctx context.Context, id pipeline.RunID, after int32, query string, more ...any) iter.Seq2[pipeline.Event, error] {
	return func(yield func(pipeline.Event, error) bool) {
		k, err := key(id)
		if err != nil {
			yield(pipeline.Event{}, err)
			return
		}
		var events []pipeline.Event
		for {
			events = events[:0]
			err := s.query(ctx, query, append(append([]any{store.DayOf(k), k[:], after}, more...), eventsAtOnce), func(r *sql.Rows) error {
				e, err := scanEvent(r)
				events = append(events, e)
				return err
			})
			if err != nil {
				yield(pipeline.Event{}, storeError("read the events of run "+string(id), err))
				return
			}
			for i := range events {
				if !yield(events[i], nil) {
					return
				}
			}
			if len(events) < eventsAtOnce {
				return
			}
			after = events[len(events)-1].Seq
		}
	}
}

func scanEvent(rows *sql.Rows) (pipeline.Event, error) {
	var (
		e    pipeline.Event
		at   int64
		body sql.RawBytes
		size sql.NullInt64
		data sql.RawBytes
	)
	if err := rows.Scan(&e.Seq, &e.Type, &e.Path, &e.Attempt, &at, &body, &size, &data); err != nil {
		return e, err
	}
	e.At = time.UnixMicro(at).UTC()
	if body == nil {
		if !size.Valid {
			return e, errors.New("the body of a record is missing")
		}
		var err error
		if body, err = store.OpenBlob(data, int(size.Int64)); err != nil {
			return e, err
		}
	}
	var err error
	e.Data, err = pipeline.DecodeData(body)
	return e, err
}
