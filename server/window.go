package server

import (
	"context"
	"errors"
	"slices"
	"sort"

	"github.com/orchestrator-project/orchestrator/pipeline"
	"github.com/orchestrator-project/orchestrator/store"
)

// A long run that nobody has looked at is not folded from its beginning: its view
// begins with the newest snapshot, and holds of the earlier steps those that the
// engine still knows. The others are read when they are asked for, a window at a
// time, from the cursor before them.

// cursor is a place in a run's log: the view as it is there, without what has
// ended, and how many steps have begun by then.
type cursor struct {
	view  *pipeline.View
	steps int
}

func (c cursor) clone() cursor { return cursor{view: c.view.Clone(), steps: c.steps} }

// apply folds the next event; what has ended is dropped from time to time.
func (c *cursor) apply(e *pipeline.Event) *pipeline.Step {
	if e.Seq%cursorEvents == 0 {
		c.view.Prune()
	}
	known := len(c.view.Steps)
	step := c.view.Apply(e)
	c.steps += len(c.view.Steps) - known
	return step
}

// keep makes a cursor of where a fold has come to, unless there is one near; the
// turn is held.
func (r *folded) keep(v *pipeline.View, steps int) {
	i := sort.Search(len(r.cursors), func(i int) bool { return r.cursors[i].view.Seq > v.Seq })
	if v.Seq-r.cursors[i-1].view.Seq >= cursorEvents {
		r.cursors = slices.Insert(r.cursors, i, cursor{view: v.Unfinished(), steps: steps})
	}
}

// restored is the machine of a run at its newest snapshot; nil: there is none
// that can be used, and the fold begins with the log.
func (h *hub) restored(ctx context.Context, run *pipeline.Run) (*pipeline.Machine, error) {
	if run.Checkpoint == 0 || h.plan == nil {
		return nil, nil //nolint:nilnil // as it says
	}
	for e, err := range h.store.Events(ctx, run.ID, run.Checkpoint) {
		if err != nil {
			return nil, err
		}
		ref := e.Data.Snapshot
		if ref == nil || ref.Covers != run.Checkpoint {
			continue
		}
		plan, err := h.plan(ctx, run.PlanDigest)
		var b []byte
		if err == nil {
			b, err = store.ReadSnapshot(ctx, h.store, run.ID, ref)
		}
		var m *pipeline.Machine
		if err == nil {
			m, err = pipeline.RestoreMachine(plan, *run, b)
		}
		if err != nil && ctx.Err() == nil && !errors.Is(err, context.Canceled) {
			h.log.Warn("snapshot not used; the whole log is folded", "run", run.ID, "err", err)
			return nil, nil //nolint:nilnil // it costs time, no more
		}
		return m, err
	}
	return nil, nil //nolint:nilnil // the record is not there
}

// startLate lets the fold begin with a snapshot. The segments before it are as if
// they had been dropped.
func (r *folded) startLate(m *pipeline.Machine) {
	r.view = m.View()
	r.early, r.held = m.Begun(), len(r.view.Steps)
	for _, s := range r.view.Steps {
		r.bytes += stepBytes + weight(s.Parameters) + weight(s.Output)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.seq = r.view.Seq
	for first := int32(1); first <= r.seq; first += segmentEvents {
		r.segments = append(r.segments, &segment{run: r, first: first, last: min(first+segmentEvents-1, r.seq)})
	}
}

// stepCount is how many steps have begun; the turn is held.
func (r *folded) stepCount() int { return r.early + len(r.view.Steps) - r.held }

// windowSteps is how many earlier steps are read at once.
const windowSteps = 1000

// steps calls f for the steps from an index on, in order of their first
// event, until f returns false. The steps must not be kept.
func (r *folded) steps(ctx context.Context, from, most int, f func(*pipeline.Step) bool) (total int, err error) {
	if err := r.take(ctx); err != nil {
		return 0, err
	}
	defer r.give()
	for from < r.early {
		list, err := r.window(ctx, from, min(r.early-from, most, windowSteps))
		if err != nil {
			return 0, err
		}
		for _, s := range list {
			if !f(s) {
				return r.stepCount(), nil
			}
		}
		from += len(list)
	}
	for i := from - r.early + r.held; i < len(r.view.Steps); i++ {
		if !f(r.view.Steps[i]) {
			break
		}
	}
	return r.stepCount(), nil
}

// window reads n steps that began before the snapshot, from an index on, as they
// are now: what the view does not hold has ended, and its end is read.
func (r *folded) window(ctx context.Context, from, n int) ([]*pipeline.Step, error) {
	i := sort.Search(len(r.cursors), func(i int) bool { return r.cursors[i].steps > from }) - 1
	at := r.cursors[i].clone()
	list := make([]*pipeline.Step, 0, n)
	open := map[*pipeline.Step]struct{}{}
	for e, err := range r.hub.store.Events(ctx, r.id, at.view.Seq) {
		if err != nil {
			return nil, err
		}
		known := at.steps
		step := at.apply(&e)
		r.keep(at.view, at.steps)
		if at.steps > known && known >= from && len(list) < n {
			if live := r.view.Step(step.Path); live != nil {
				list = append(list, live)
			} else {
				list = append(list, step)
				open[step] = struct{}{}
			}
		}
		if step != nil && step.Status.Final() {
			delete(open, step)
		}
		if len(list) == n && len(open) == 0 {
			return list, nil
		}
	}
	return nil, errors.New("steps of run " + string(r.id) + ": its log ends before them")
}

// planOf reads a plan by its digest.
func (s *Server) planOf(ctx context.Context, d pipeline.Digest) (*pipeline.Plan, error) {
	c, err := s.stored(ctx, d)
	if err != nil {
		return nil, err
	}
	return c.plan, c.refused()
}
