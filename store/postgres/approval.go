package postgres

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/orchestrator-project/orchestrator/pipeline"
	"github.com/orchestrator-project/orchestrator/store"
)

const (
	approvalColumns = `SELECT id, run_id, pipeline, status, request, decisions, deadline, created_at, decided_at FROM approval `
	readApproval    = approvalColumns + `WHERE id = $1`
)

func scanApproval(row pgx.CollectableRow) (*pipeline.Approval, error) {
	var (
		a                  pipeline.Approval
		id, run            [16]byte
		request, decisions []byte
		deadline, decided  *time.Time
	)
	if err := row.Scan(&id, &run, &a.Pipeline, &a.Status, &request, &decisions, &deadline, &a.CreatedAt, &decided); err != nil {
		return nil, err
	}
	a.ID, a.Run, a.CreatedAt = store.ApprovalIDOf(id), store.RunIDOf(run[:]), a.CreatedAt.UTC()
	if deadline != nil {
		a.Deadline = deadline.UTC()
	}
	if decided != nil {
		a.DecidedAt = decided.UTC()
	}
	if err := store.DecodeRequest(&a, request); err != nil {
		return nil, err
	}
	var err error
	a.Decisions, err = store.DecodeDecisions(decisions)
	return &a, err
}

func queryApproval(ctx context.Context, c *pgxpool.Conn, id pipeline.ApprovalID, key [16]byte) (*pipeline.Approval, error) {
	rows, err := c.Query(ctx, readApproval, key)
	if err != nil {
		return nil, err
	}
	a, err := pgx.CollectExactlyOneRow(rows, scanApproval)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, store.ApprovalNotFound(id)
	}
	return a, err
}

// Approval implements store.Store.
func (s *Store) Approval(ctx context.Context, id pipeline.ApprovalID) (*pipeline.Approval, error) {
	k, err := store.ApprovalKey(id)
	if err != nil {
		return nil, err
	}
	var a *pipeline.Approval
	err = s.do(ctx, "read approval "+string(id), func(c *pgxpool.Conn) (err error) {
		a, err = queryApproval(ctx, c, id, k)
		return err
	})
	return a, err
}

// Approvals implements store.Store.
func (s *Store) Approvals(ctx context.Context, q store.ApprovalQuery) (store.ApprovalPage, error) {
	limit := store.PageSize(q.Limit)
	var args []any
	arg := func(v any) string {
		args = append(args, v)
		return "$" + strconv.Itoa(len(args))
	}
	where := "true"
	if q.Before != "" {
		k, err := store.ApprovalKey(q.Before)
		if err != nil {
			return store.ApprovalPage{}, store.BadPage()
		}
		where += " AND id < " + arg(k)
	}
	if q.Run != "" {
		k, err := runKey(q.Run)
		if err != nil {
			return store.ApprovalPage{}, err
		}
		where += " AND run_id = " + arg(k)
	}
	if q.Status != "" {
		where += " AND status = " + arg(store.Clean(string(q.Status)))
	}
	sql := approvalColumns + `WHERE ` + where + ` ORDER BY id DESC LIMIT ` + arg(limit+1)
	var page store.ApprovalPage
	err := s.do(ctx, "list approvals", func(c *pgxpool.Conn) error {
		rows, err := c.Query(ctx, sql, args...)
		if err != nil {
			return err
		}
		page.Approvals, err = pgx.CollectRows(rows, scanApproval)
		return err
	})
	if err != nil {
		return store.ApprovalPage{}, err
	}
	if len(page.Approvals) > limit {
		page.Approvals, page.More = page.Approvals[:limit], true
	}
	return page, nil
}

// decide records a decision if the approval still is what the decision was made
// upon. The run's row is locked before the approval's.
const decide = `WITH target AS (SELECT priority, day, run_id, status, status = 'WAITING' AND lane_epoch IS NULL AS parked
		FROM run WHERE day = $1 AND run_id = $2 FOR SHARE),
	decided AS (UPDATE approval a SET status = $4, decisions = $5, decided_at = $6 FROM target
		WHERE a.id = $3 AND a.status = 'open' AND a.decisions IS NOT DISTINCT FROM $7
			AND target.status NOT IN ('COMPLETED','FAILED','CANCELLED') RETURNING a.id),
	sent AS (INSERT INTO inbox (msg_id, run_id, kind, actor, body, at) SELECT $8, $2, $9, $10, $11, $12 FROM decided WHERE $8 <> ''),
	woken AS (INSERT INTO run_queue (priority, day, run_id)
		SELECT t.priority, t.day, t.run_id FROM target t, decided WHERE t.parked AND $8 <> '' ON CONFLICT DO NOTHING)
	SELECT status, parked, EXISTS (SELECT FROM decided) FROM target`

// Decide implements store.Store. Nothing is locked while the decision is
// weighed: one that others have overtaken is weighed again.
func (s *Store) Decide(ctx context.Context, id pipeline.ApprovalID, d pipeline.Decision) (*pipeline.Approval, error) {
	k, err := store.ApprovalKey(id)
	if err != nil {
		return nil, err
	}
	d.Approval, d.At = id, store.DecisionTime(d.At, time.Now())
	text := pipeline.AppendDecision(nil, &d)
	var a *pipeline.Approval
	bell := store.Bell{Approvals: true}
	doubt := false // an earlier try may have been recorded
	err = s.do(ctx, "decide approval "+string(id), func(c *pgxpool.Conn) error {
		for {
			if a, err = queryApproval(ctx, c, id, k); err != nil {
				return err
			}
			if doubt && slices.ContainsFunc(a.Decisions, func(e pipeline.Decision) bool {
				return bytes.Equal(pipeline.AppendDecision(nil, &e), text)
			}) {
				return nil
			}
			doubt = false
			before := store.EncodeDecisions(a.Decisions)
			m, err := store.Settle(a, d)
			if err != nil {
				return err
			}
			if m == nil {
				m = new(store.Message)
			} else {
				bell.Inbox = []pipeline.RunID{a.Run}
			}
			run, err := runKey(a.Run)
			if err != nil {
				return err
			}
			var at *time.Time
			if !a.DecidedAt.IsZero() {
				at = &a.DecidedAt
			}
			var status pipeline.RunStatus
			var parked, decided bool
			doubt = true
			err = c.QueryRow(ctx, decide, a.Run.Day(), run, k, string(a.Status), store.EncodeDecisions(a.Decisions), at, before,
				string(m.ID), m.Kind, store.Clean(m.Actor), m.Body, d.At).Scan(&status, &parked, &decided)
			switch {
			case errors.Is(err, pgx.ErrNoRows):
				return runNotFound(a.Run)
			case err != nil:
				return err
			case decided:
				bell.Queued = parked && m.ID != ""
				return nil
			case status.Final():
				return runFinished(a.Run)
			}
			doubt = false
		}
	})
	if err != nil {
		return nil, err
	}
	s.Ring(bell)
	return a, nil
}
