package executor

import (
	"context"
	"sync"

	"github.com/orchestrator-project/orchestrator/pipeline"
)

// Tenure is what is kept in memory of a run for as long as this process owns it,
// and no longer: its next owner begins with what was recorded. It is safe for
// concurrent use.
type Tenure struct {
	Pipeline string             // the id of the run's pipeline
	Settings *pipeline.Settings // of the run's plan
	Usage    pipeline.Usage     // of the run, recorded before

	past func(ctx context.Context, each func(pipeline.Event)) error

	mu   sync.Mutex
	kept map[any]any
}

// NewTenure begins with what the run's log holds; past nil: nothing.
func NewTenure(s *pipeline.Settings, used pipeline.Usage, past func(ctx context.Context, each func(pipeline.Event)) error) *Tenure {
	return &Tenure{Settings: s, Usage: used, past: past}
}

// Keep gives what is kept under the key, which make makes where there is nothing
// yet. make must not call the tenure.
func (t *Tenure) Keep(key any, make func() any) any {
	t.mu.Lock()
	defer t.mu.Unlock()
	v, ok := t.kept[key]
	if !ok {
		if t.kept == nil {
			t.kept = map[any]any{}
		}
		v = make()
		t.kept[key] = v
	}
	return v
}

// Past shows each event that was recorded before the tenure, oldest first.
func (t *Tenure) Past(ctx context.Context, each func(pipeline.Event)) error {
	if t.past == nil {
		return nil
	}
	return t.past(ctx, each)
}

// tenure is that of the run, from the first step on that asks for it.
func (r *runState) tenure() *Tenure {
	if r.tenured != nil {
		return r.tenured
	}
	ex, run, last := r.lane.ex, r.run.ID, r.taken
	var past func(context.Context, func(pipeline.Event)) error
	if last > 1 { // more than that it was created
		past = func(ctx context.Context, each func(pipeline.Event)) error {
			for e, err := range ex.cfg.Store.Events(ctx, run, 0) {
				if err != nil {
					return err
				}
				if e.Seq > last {
					break
				}
				each(e)
			}
			return nil
		}
	}
	r.tenured = NewTenure(&r.prog.plan.Settings, r.m.Run.Usage, past)
	r.tenured.Pipeline = r.run.Pipeline
	return r.tenured
}
