package sqlite

import (
	"context"
	"database/sql"
	"time"

	"github.com/orchestrator-project/orchestrator/pipeline"
	"github.com/orchestrator-project/orchestrator/store"
)

const (
	insertTimer = `INSERT OR REPLACE INTO run_timer (run_id, due_at, priority) VALUES (?, ?, (SELECT priority FROM run WHERE run_id = ?1))`
	wakeRun     = `INSERT INTO run_queue (priority, run_id)
		SELECT priority, run_id FROM run WHERE run_id = ?1 AND EXISTS (SELECT 1 FROM inbox
			WHERE run_id = ?1 AND (run.status <> 'PAUSED' OR kind IN ('resume','cancel'))) ON CONFLICT DO NOTHING`
)

// park frees a run that only waits; it tells whether a message that is there
// already has queued it again.
func (t *tx) park(epoch int64, p *store.Park) (woken bool, err error) {
	id, err := key(p.Run.ID)
	if err != nil {
		return false, err
	}
	status := pipeline.RunWaiting
	if p.Run.Status == pipeline.RunPaused {
		status = pipeline.RunPaused
	}
	if owned, err := t.updateRun(epoch, id, p.Run, status, nil); err != nil || !owned { // a batch that was in doubt comes again
		return false, err
	}
	if !p.Wake.IsZero() {
		if _, err := t.exec(insertTimer, id[:], p.Wake.UnixMicro()); err != nil {
			return false, err
		}
	}
	n, err := t.exec(wakeRun, id[:])
	return n > 0, err
}

const (
	insertApproval = `INSERT INTO approval (id, run_id, pipeline, status, request, decisions, deadline, created_at, decided_at)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO NOTHING`
	withdrawOne   = `UPDATE approval SET status = 'withdrawn' WHERE id = ? AND status = 'open'`
	withdrawOfRun = `UPDATE approval SET status = 'withdrawn' WHERE run_id = ? AND status = 'open'`
)

func (t *tx) ask(list []*pipeline.Approval) error {
	for _, a := range list {
		id, err := store.ApprovalKey(a.ID)
		if err != nil {
			return err
		}
		run, err := key(a.Run)
		if err != nil {
			return err
		}
		request, err := store.EncodeRequest(a)
		if err != nil {
			return err
		}
		if _, err := t.exec(insertApproval, id[:], run[:], text(a.Pipeline), string(a.Status), request, null(store.EncodeDecisions(a.Decisions)),
			micros(a.Deadline), a.CreatedAt.UnixMicro(), micros(a.DecidedAt)); err != nil {
			return err
		}
	}
	return nil
}

func (t *tx) withdraw(id pipeline.ApprovalID) error {
	k, err := store.ApprovalKey(id)
	if err != nil {
		return err
	}
	_, err = t.exec(withdrawOne, k[:])
	return err
}

const (
	approvalColumns = `SELECT id, run_id, pipeline, status, request, decisions, deadline, created_at, decided_at FROM approval `
	readApproval    = approvalColumns + `WHERE id = ?`
)

func scanApproval(rows *sql.Rows) (*pipeline.Approval, error) {
	var (
		a                          pipeline.Approval
		id, run                    []byte
		request, decisions         []byte
		deadline, created, decided sql.NullInt64
	)
	if err := rows.Scan(&id, &run, &a.Pipeline, &a.Status, &request, &decisions, &deadline, &created, &decided); err != nil {
		return nil, err
	}
	a.ID, a.Run = store.ApprovalIDOf([16]byte(id)), store.RunIDOf(run)
	a.Deadline, a.CreatedAt, a.DecidedAt = fromMicros(deadline), fromMicros(created), fromMicros(decided)
	if err := store.DecodeRequest(&a, request); err != nil {
		return nil, err
	}
	var err error
	a.Decisions, err = store.DecodeDecisions(decisions)
	return &a, err
}

// Approval implements store.Store.
func (s *Store) Approval(ctx context.Context, id pipeline.ApprovalID) (*pipeline.Approval, error) {
	k, err := store.ApprovalKey(id)
	if err != nil {
		return nil, err
	}
	var a *pipeline.Approval
	err = s.query(ctx, readApproval, []any{k[:]}, func(r *sql.Rows) (err error) {
		a, err = scanApproval(r)
		return err
	})
	if err == nil && a == nil {
		err = store.ApprovalNotFound(id)
	}
	return a, storeError("read approval "+string(id), err)
}

// Approvals implements store.Store.
func (s *Store) Approvals(ctx context.Context, q store.ApprovalQuery) (store.ApprovalPage, error) {
	limit := store.PageSize(q.Limit)
	var args []any
	where := "id >= ?" // all
	if q.Before == "" {
		args = append(args, make([]byte, 16))
	} else {
		k, err := store.ApprovalKey(q.Before)
		if err != nil {
			return store.ApprovalPage{}, store.BadPage()
		}
		where = "id < ?"
		args = append(args, k[:])
	}
	if q.Run != "" {
		k, err := key(q.Run)
		if err != nil {
			return store.ApprovalPage{}, err
		}
		where += " AND run_id = ?"
		args = append(args, k[:])
	}
	if q.Status != "" {
		where += " AND status = ?"
		args = append(args, text(q.Status))
	}
	var page store.ApprovalPage
	err := s.query(ctx, approvalColumns+`WHERE `+where+` ORDER BY id DESC LIMIT ?`, append(args, limit+1), func(r *sql.Rows) error {
		a, err := scanApproval(r)
		page.Approvals = append(page.Approvals, a)
		return err
	})
	if err != nil {
		return store.ApprovalPage{}, storeError("list approvals", err)
	}
	if len(page.Approvals) > limit {
		page.Approvals, page.More = page.Approvals[:limit], true
	}
	return page, nil
}

const updateApproval = `UPDATE approval SET status = ?, decisions = ?, decided_at = ? WHERE id = ?`

// Decide implements store.Store.
func (s *Store) Decide(ctx context.Context, id pipeline.ApprovalID, d pipeline.Decision) (*pipeline.Approval, error) {
	k, err := store.ApprovalKey(id)
	if err != nil {
		return nil, err
	}
	d.At = store.DecisionTime(d.At, time.Now())
	var a *pipeline.Approval
	bell := store.Bell{Approvals: true}
	err = s.writer.do(ctx, "decide approval "+string(id), func(t *tx) error {
		a = nil
		err := t.rows(readApproval, []any{k[:]}, func(r *sql.Rows) (err error) {
			a, err = scanApproval(r)
			return err
		})
		if err != nil {
			return err
		}
		if a == nil {
			return store.ApprovalNotFound(id)
		}
		m, err := store.Settle(a, d)
		if err != nil {
			return err
		}
		run, err := key(a.Run)
		if err != nil {
			return err
		}
		if m != nil {
			if bell.Queued, err = t.send(a.Run, run, m); err != nil {
				return err
			}
			bell.Inbox = []pipeline.RunID{a.Run}
		}
		_, err = t.exec(updateApproval, string(a.Status), store.EncodeDecisions(a.Decisions), micros(a.DecidedAt), k[:])
		return err
	})
	if err != nil {
		return nil, err
	}
	s.Ring(bell)
	return a, nil
}
