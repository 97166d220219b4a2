package server

import (
	"github.com/orchestrator-project/orchestrator/pipeline"
	orchestratorv1 "github.com/orchestrator-project/orchestrator/proto/orchestrator/v1"
	"github.com/orchestrator-project/orchestrator/store"
)

// maxTail is the most that ReadLogs looks back for: the lines wait in memory.
const maxTail = 10_000

// ReadLogs sends a run's log chunks and, if asked to, follows them until the
// run has finished.
func (s runs) ReadLogs(req *orchestratorv1.ReadLogsRequest, stream orchestratorv1.Runs_ReadLogsServer) error {
	ctx := stream.Context()
	id, err := runID(req.GetId())
	if err != nil {
		return err
	}
	if req.GetTail() < 0 || req.GetTail() > maxTail {
		return refuse("tail", "invalid_tail", "must be 0 to %d", maxTail)
	}
	if !req.GetFollow() {
		if _, err := s.cfg.Store.Run(ctx, id); err != nil {
			return err
		}
		if err := stream.SendHeader(streamOpen()); err != nil {
			return err
		}
		_, err := s.sendLogs(req, stream, id, 0)
		return err
	}
	r, err := s.hub.open(ctx, id)
	if err != nil {
		return err
	}
	defer s.hub.release(r)
	if err := stream.SendHeader(streamOpen()); err != nil {
		return err
	}
	cursor := int64(0)
	for {
		_, logged := r.logs.state()
		_, changed := r.events.state()
		// Whether the run has ended is asked before its log is read: what it
		// printed was stored before it ended.
		if err := r.catchUp(ctx); err != nil {
			return err
		}
		_, done := r.state()
		if cursor, err = s.sendLogs(req, stream, id, cursor); err != nil || done {
			return err
		}
		select {
		case <-logged:
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		case <-s.hub.closing:
			return errDraining
		}
	}
}

// sendLogs sends what was logged after a cursor and returns the new one. The
// tail counts only for the first reading.
func (s runs) sendLogs(req *orchestratorv1.ReadLogsRequest, stream orchestratorv1.Runs_ReadLogsServer, id pipeline.RunID, cursor int64) (int64, error) {
	q := store.LogQuery{Run: id, Path: pipeline.Path(req.GetStep()), After: cursor}
	var last ring
	if cursor == 0 {
		last.limit = int(req.GetTail())
	}
	for c, err := range s.cfg.Store.Logs(stream.Context(), q) {
		if err != nil {
			return cursor, err
		}
		cursor = max(cursor, c.Cursor)
		line := fromLog(&c)
		if last.limit > 0 {
			last.add(line)
			continue
		}
		if err := stream.Send(line); err != nil {
			return cursor, err
		}
	}
	for _, line := range last.all() {
		if err := stream.Send(line); err != nil {
			return cursor, err
		}
	}
	return cursor, nil
}

// ring keeps the last few lines.
type ring struct {
	limit int
	lines []*orchestratorv1.LogLine
	begin int // the oldest, once lines is full
}

func (r *ring) add(line *orchestratorv1.LogLine) {
	if len(r.lines) < r.limit {
		r.lines = append(r.lines, line)
		return
	}
	r.lines[r.begin] = line
	r.begin = (r.begin + 1) % r.limit
}

func (r *ring) all() []*orchestratorv1.LogLine {
	return append(r.lines[r.begin:len(r.lines):len(r.lines)], r.lines[:r.begin]...)
}
