package executor

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"sync"
	"time"

	"github.com/orchestrator-project/orchestrator/pipeline"
	"github.com/orchestrator-project/orchestrator/pipeline/spec"
	"github.com/orchestrator-project/orchestrator/store"
)

// reasonChild is the reason of a call whose run did not complete.
const reasonChild = "child_run_failed"

// reasonDeadlock is the reason of a call whose run would wait for its caller.
const reasonDeadlock = "concurrency_deadlock"

// deafEvery is how often a run is asked for that another process may have, where
// the store hears no bells of others.
const deafEvery = time.Second

// within begins runs for the step's calls: each is a child of the step's run, and
// belongs to it. Meanwhile the step gives its slot to others by rest, as the run may
// need it. It is made on the lane's goroutine and used on others.
func (r *runState) within(rest func(context.Context) func()) func(ctx context.Context, call *pipeline.Call, inputs map[string]any, key string) (*pipeline.Run, error) {
	ex, prog, parent := r.lane.ex, r.prog, *r.run
	return func(ctx context.Context, call *pipeline.Call, inputs map[string]any, key string) (*pipeline.Run, error) {
		inputs, err := spec.Inputs(&pipeline.Plan{Unit: *prog.plan.Units[call.Unit]}, inputs)
		if err != nil {
			return nil, inputFailure(call.Name, err)
		}
		c, err := prog.child(call.Unit)
		if err != nil {
			return nil, err
		}
		run, err := ex.begin(ctx, c, &parent, inputs, key)
		if err != nil {
			return nil, err
		}
		wake := rest(ctx)
		run, err = ex.outlive(ctx, run)
		wake()
		if err != nil {
			return nil, err
		}
		if run.Status != pipeline.RunCompleted {
			f := pipeline.Failuref(pipeline.CategoryFailed, "the pipeline %s was %s (run %s)", call.Name, run.Status, run.ID)
			if run.Error != nil {
				f = pipeline.Failuref(run.Error.Kind, "the pipeline %s has failed: %s (run %s)", call.Name, run.Error.Message, run.ID)
			}
			f.Reason = reasonChild
			return nil, f
		}
		return run, nil
	}
}

// begin makes the run of a call durable, or finds the one that an earlier attempt
// of the call has begun.
func (e *Executor) begin(ctx context.Context, c *child, parent *pipeline.Run, inputs map[string]any, key string) (*pipeline.Run, error) {
	hash := func(text string) string {
		sum := sha256.Sum256([]byte(text))
		return hex.EncodeToString(sum[:])
	}
	plan := c.prog.plan
	for {
		run := &pipeline.Run{
			ID: pipeline.NewRunID(), Pipeline: plan.ID, Version: plan.Version, PlanDigest: c.digest, Inputs: inputs,
			Labels: maps.Clone(parent.Labels), Priority: priorityOf(0, plan), Workspace: parent.Workspace,
			ParentRun: parent.ID, FairKey: parent.FairKey,
		}
		if run.Priority == 0 {
			run.Priority = parent.Priority
		}
		if err := c.prog.place(run); err != nil {
			return nil, err
		}
		if k := run.Concurrency; k.Key != "" && k.Max <= 1 && k.Key == parent.Concurrency.Key {
			f := pipeline.Failuref(pipeline.CategoryValidation, "the run of the pipeline %s could never start: one run of the concurrency key %q may be under way, and it is the one that would wait for it; "+
				"give one of the two another settings.concurrency.key", plan.ID, k.Key)
			f.Reason = reasonDeadlock
			return nil, f
		}
		l := e.roomiest()
		if l == nil {
			return nil, errNoLane()
		}
		reply := make(chan submitted, 1)
		s := submission{
			prog: c.prog, run: run, awaited: true, trace: placeIn(ctx), reply: func(a submitted) { reply <- a },
			create: store.Create{
				IdempotencyKey: "call:" + hash(key),
				RequestDigest:  pipeline.Digest("sha256:" + hash(string(c.digest)+string(pipeline.EncodeValue(inputs)))),
			},
		}
		l.post(func() { l.submit(s) })
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case a := <-reply:
			switch {
			case errors.Is(a.err, errFenced) && ctx.Err() == nil: // another lane takes it
				if err := wait(ctx, 20*time.Millisecond); err != nil {
					return nil, err
				}
				continue
			case a.err != nil:
				return nil, a.err
			case a.run.Pipeline == "": // it was begun before
				return e.cfg.Store.Run(ctx, a.run.ID)
			}
			return a.run, nil
		}
	}
}

func wait(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

// outlive waits for the end of a run. A step that is cancelled, or whose time is
// over, cancels the run; one that only changes hands lets it be: its next attempt
// waits on.
func (e *Executor) outlive(ctx context.Context, run *pipeline.Run) (*pipeline.Run, error) {
	news, stop := e.endings.await(run.ID)
	defer stop()
	var ask <-chan time.Time
	if e.cfg.Store.Deaf() {
		tick := time.NewTicker(deafEvery)
		defer tick.Stop()
		ask = tick.C
	}
	for {
		now, err := e.cfg.Store.Run(ctx, run.ID)
		switch {
		case ctx.Err() != nil:
			return nil, e.abandon(ctx, run.ID)
		case err == nil && now.Status.Final():
			return now, nil
		case err != nil && pipeline.KindOf(err) != pipeline.Unavailable:
			return nil, fmt.Errorf("read run %s: %w", run.ID, err)
		}
		var again <-chan time.Time
		if err != nil {
			again = time.After(time.Second)
		}
		select {
		case <-news:
		case <-ask:
		case <-again:
		case <-ctx.Done():
			return nil, e.abandon(ctx, run.ID)
		}
	}
}

// abandon lets go of a run whose caller has gone.
func (e *Executor) abandon(ctx context.Context, id pipeline.RunID) error {
	cause := context.Cause(ctx)
	if errors.Is(cause, errStopped) || errors.Is(cause, errFenced) {
		return ctx.Err()
	}
	late, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	m := store.Message{ID: store.MessageID("abandon/" + string(id)), Kind: store.MessageCancel, Actor: "the call that began it"}
	if err := e.cfg.Store.Send(late, id, m); err != nil && pipeline.KindOf(err) != pipeline.Conflict {
		e.log.Warn("run of an ended call not cancelled", "run", id, "err", err)
	}
	return ctx.Err()
}

// endings tells those who wait for runs that there is news of them.
type endings struct {
	mu   sync.Mutex
	runs map[pipeline.RunID][]chan struct{}
}

// await gives a channel of capacity 1 that receives after the run has ended, or
// may have.
func (w *endings) await(id pipeline.RunID) (news <-chan struct{}, stop func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	c := make(chan struct{}, 1)
	if w.runs == nil {
		w.runs = map[pipeline.RunID][]chan struct{}{}
	}
	w.runs[id] = append(w.runs[id], c)
	return c, func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		list := w.runs[id]
		for i := range list {
			if list[i] == c {
				list = append(list[:i:i], list[i+1:]...)
				break
			}
		}
		if w.runs[id] = list; len(list) == 0 {
			delete(w.runs, id)
		}
	}
}

func (w *endings) heard(b store.Bell) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.runs) == 0 {
		return
	}
	if b.All {
		for _, list := range w.runs {
			ring(list)
		}
		return
	}
	for _, id := range b.Runs {
		ring(w.runs[id])
	}
	for i := range b.Appended {
		a := &b.Appended[i]
		if len(w.runs[a.Run]) > 0 && len(a.Events) > 0 && a.Events[len(a.Events)-1].Type == pipeline.RunFinished {
			ring(w.runs[a.Run])
		}
	}
}

func ring(list []chan struct{}) {
	for _, c := range list {
		nudge(c)
	}
}
