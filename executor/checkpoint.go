package executor

import (
	"context"
	"errors"
	"fmt"

	"github.com/orchestrator-project/orchestrator/pipeline"
	"github.com/orchestrator-project/orchestrator/store"
)

// When a run's state is saved as a whole: once its log has grown by so much since
// the last time, and by as much as was saved then. So what is saved is together at
// most about as long as the log, and a new owner reads at most about twice the state.
const (
	checkpointBytes   = 512 << 10
	checkpointRecords = 2000
	fixedRecords      = 1000    // settings.checkpoint: fixed
	recordBytes       = 128     // what a record takes in the log besides its values, at least
	snapshotPart      = 4 << 20 // bytes of a blob, of which a snapshot may need several
)

// saving is what a lane knows of the newest snapshot of a run.
type saving struct {
	covers int32 // seq of the newest event that it knows
	size   int64 // its bytes
	grown  int64 // about how many bytes the log has grown by since
	busy   bool  // one is being made
}

// grew counts a record, and saves the state when it is time.
func (r *runState) grew(e *pipeline.Event) {
	s := &r.saved
	s.grown += volume(e)
	if !s.busy && r.isDue() {
		r.checkpoint()
	}
}

func (r *runState) isDue() bool {
	s, set := &r.saved, &r.prog.plan.Settings
	records := r.m.Seq - s.covers
	due := r.m.Critical() > s.covers
	switch set.Checkpoint {
	case "none":
		return false
	case "fixed":
		every := int32(fixedRecords)
		if set.CheckpointEvery > 0 {
			every = int32(min(set.CheckpointEvery, 1<<30))
		}
		if records >= every {
			return !r.m.Run.Status.Final()
		}
	default:
		due = due || records >= checkpointRecords || s.grown >= checkpointBytes
	}
	return due && s.grown >= s.size && !r.m.Run.Status.Final()
}

// volume is about how many bytes a record takes, and never more than it does.
func volume(e *pipeline.Event) int64 {
	left := 32
	return recordBytes + int64(len(e.Path)) + lengthOf(e.Data.Parameters, &left) + lengthOf(e.Data.Output, &left) + lengthOf(e.Data.Collected, &left)
}

// lengthOf adds up the texts in a value, of which it looks at no more than left parts.
func lengthOf(v any, left *int) int64 {
	if *left--; *left < 0 {
		return 0
	}
	n := int64(1)
	switch v := v.(type) {
	case string:
		n += int64(len(v))
	case []any:
		for _, e := range v {
			if *left <= 0 {
				break
			}
			n += lengthOf(e, left)
		}
	case map[string]any:
		for k, e := range v {
			if *left <= 0 {
				break
			}
			n += int64(len(k)) + lengthOf(e, left)
		}
	}
	return n
}

// checkpoint saves the run's state. The lane takes the snapshot, which is short;
// it is encoded and kept elsewhere, and the record that names it comes later.
func (r *runState) checkpoint() {
	s := &r.saved
	snapshot := r.m.Snapshot()
	s.covers, s.grown, s.busy = snapshot.Seq, 0, true
	r.looking++ // a run that is about to wait has its state saved first
	r.lane.ex.tasks.Go(func() {
		ref, err := r.lane.ex.keepSnapshot(r.run.ID, snapshot)
		r.lane.post(func() { r.do(func() { r.checkpointed(ref, err) }) })
	})
}

// keepSnapshot makes a snapshot durable.
func (e *Executor) keepSnapshot(run pipeline.RunID, s *pipeline.Snapshot) (*pipeline.SnapshotRef, error) {
	b := s.Encode()
	ref := &pipeline.SnapshotRef{Covers: s.Seq, Size: int64(len(b))}
	for len(b) > 0 {
		n := min(len(b), snapshotPart)
		part, err := e.cfg.Store.PutBlob(e.work, run, b[:n])
		if err != nil {
			return nil, fmt.Errorf("keep a snapshot: %w", err)
		}
		ref.Parts = append(ref.Parts, part)
		b = b[n:]
	}
	return ref, nil
}

// checkpointed records that the state was saved. A run that has been let go of, or
// that is about to be, does without: its next owner folds a little more.
func (r *runState) checkpointed(ref *pipeline.SnapshotRef, err error) {
	s := &r.saved
	s.busy = false
	r.looking--
	l := r.lane
	switch {
	case err != nil:
		if r.lane.ex.work.Err() == nil {
			l.ex.log.Warn("state of a run not saved; trying again later", "run", r.run.ID, "err", err)
		}
	case !r.over() && !r.asleep && !l.stopping && !l.fenced:
		s.size = ref.Size
		r.record(pipeline.Checkpoint, "", 0, pipeline.Data{Snapshot: ref})
	}
	r.rest()
}

// past is how far a run has come by its log.
type past struct {
	m      *pipeline.Machine // nil: the log makes no sense, as broken says
	broken error
	saved  saving
	lost   *pipeline.Data // of workspace_lost, where that is to be recorded
}

// recall folds a run's log, from the newest snapshot on where there is one.
func (e *Executor) recall(ctx context.Context, run *pipeline.Run, plan *pipeline.Plan) (past, error) {
	if run.Checkpoint > 0 {
		p, err := e.recallSnapshot(ctx, run, plan)
		if err == nil && p.broken == nil {
			return p, nil
		}
		if kind := pipeline.KindOf(err); kind == pipeline.Unavailable || ctx.Err() != nil {
			return past{}, err
		}
		e.log.Warn("snapshot not used; the whole log is read", "run", run.ID, "err", errors.Join(err, p.broken))
	}
	p := past{m: pipeline.NewMachine(plan, *run)}
	for ev, err := range e.cfg.Store.Events(ctx, run.ID, 0) {
		if err != nil {
			return past{}, fmt.Errorf("read log: %w", err)
		}
		if !p.apply(&ev) {
			return p, nil
		}
	}
	if p.m.Seq == 0 {
		return past{}, errors.New("read log: it is empty")
	}
	return p, nil
}

// recallSnapshot reads what follows the newest snapshot. The record that names it
// is among that.
func (e *Executor) recallSnapshot(ctx context.Context, run *pipeline.Run, plan *pipeline.Plan) (past, error) {
	var p past
	var before []pipeline.Event // the record
	for ev, err := range e.cfg.Store.Events(ctx, run.ID, run.Checkpoint) {
		if err != nil {
			return past{}, fmt.Errorf("read log: %w", err)
		}
		if p.m != nil {
			if !p.apply(&ev) {
				return p, nil
			}
			continue
		}
		before = append(before, ev)
		ref := ev.Data.Snapshot
		if ref == nil || ref.Covers != run.Checkpoint {
			continue
		}
		b, err := store.ReadSnapshot(ctx, e.cfg.Store, run.ID, ref)
		if err != nil {
			return past{}, err
		}
		if p.m, err = pipeline.RestoreMachine(plan, *run, b); err != nil {
			return past{}, err
		}
		p.saved = saving{covers: ref.Covers, size: ref.Size}
		for i := range before {
			if !p.apply(&before[i]) {
				return p, nil
			}
		}
		before = nil
	}
	if p.m == nil {
		return past{}, errors.New("read log: no record names the newest snapshot")
	}
	return p, nil
}

// apply folds one record; false: it does not follow.
func (p *past) apply(ev *pipeline.Event) bool {
	if err := p.m.Apply(ev); err != nil {
		p.m, p.broken = nil, err
		return false
	}
	p.saved.grown += volume(ev)
	return true
}

// folded is the machine of a run whose events are few.
func folded(plan *pipeline.Plan, run *pipeline.Run, events []pipeline.Event) (*pipeline.Machine, error) {
	m := pipeline.NewMachine(plan, *run)
	for i := range events {
		if err := m.Apply(&events[i]); err != nil {
			return nil, err
		}
	}
	return m, nil
}
