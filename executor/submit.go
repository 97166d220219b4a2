package executor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/orchestrator-project/orchestrator/pipeline"
	"github.com/orchestrator-project/orchestrator/pipeline/spec"
	"github.com/orchestrator-project/orchestrator/store"
)

// submitLimit is how long a submitter waits for a store that does not answer.
const submitLimit = 30 * time.Second

// Submit makes a run durable and starts it. The same idempotency key with the
// same request answers the first run.
func (e *Executor) Submit(ctx context.Context, s pipeline.Submission) (*pipeline.Run, error) {
	ctx, cancel := context.WithTimeout(ctx, submitLimit)
	defer cancel()
	prog, err := e.keep(ctx, &s)
	if err != nil {
		return nil, err
	}
	for {
		run, err := e.offer(ctx, s, prog)
		// A lane that lost its lease has recorded nothing under a fresh id;
		// its successor takes the run.
		if !errors.Is(err, errFenced) || ctx.Err() != nil {
			return run, err
		}
		select {
		case <-ctx.Done():
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// keep makes durable what the run is made of, and unpacks it: the files, the
// plan, and the plans of the pipelines that it may begin as runs of their own.
func (e *Executor) keep(ctx context.Context, s *pipeline.Submission) (*program, error) {
	if len(s.Uploads) > 0 {
		if err := e.cfg.Store.PutBundle(ctx, s.Uploads.Digest(), s.Uploads); err != nil {
			return nil, err
		}
	}
	if prog, ok := e.plans.GetIfPresent(s.PlanDigest); ok && e.cfg.Now().Sub(prog.kept) < planKept {
		return prog, e.unpack(ctx, prog.plan.Bundle)
	}
	prog, err := newProgram(s.Plan)
	if err != nil {
		return nil, err
	}
	if len(s.Bundle) > 0 {
		if err := e.cfg.Store.PutBundle(ctx, s.Plan.Bundle, s.Bundle); err != nil {
			return nil, err
		}
	}
	for _, unit := range prog.detached {
		c, err := prog.child(unit)
		if err != nil {
			return nil, err
		}
		err = e.cfg.Store.PutPlan(ctx, store.Plan{Digest: c.digest, Source: s.Source, Compiled: c.compiled, Format: s.Plan.Format})
		if err != nil {
			return nil, err
		}
	}
	err = e.cfg.Store.PutPlan(ctx, store.Plan{Digest: s.PlanDigest, Source: s.Source, Compiled: s.Compiled, Format: s.Plan.Format})
	if err != nil {
		return nil, err
	}
	if err := e.unpack(ctx, s.Plan.Bundle); err != nil {
		return nil, err
	}
	prog.kept = e.cfg.Now()
	e.plans.Set(s.PlanDigest, prog)
	return prog, nil
}

// offer gives a new run to a lane and waits until it is durable.
func (e *Executor) offer(ctx context.Context, s pipeline.Submission, prog *program) (*pipeline.Run, error) {
	reply := make(chan submitted, 1)
	sub := submission{
		prog: prog, reply: func(a submitted) { reply <- a }, answers: s.Answers, uploads: s.Uploads.Digest(), trace: placeIn(ctx),
		run: &pipeline.Run{
			ID: pipeline.NewRunID(), Pipeline: s.Plan.ID, Version: s.Plan.Version, PlanDigest: s.PlanDigest,
			Inputs: s.Inputs, Labels: s.Labels, Priority: priorityOf(s.Priority, s.Plan), Workspace: e.cfg.Workspace,
			Queue: s.Queue, FairKey: s.FairKey,
		},
		create: store.Create{IdempotencyKey: s.IdempotencyKey, RequestDigest: s.RequestDigest},
	}
	if err := prog.place(sub.run); err != nil {
		return nil, err
	}
	if err := e.writeUploads(sub.run, prog.plan, s.Uploads); err != nil {
		return nil, err
	}
	if s.Fork != nil {
		sub.fork = s.Fork
		if err := e.derive(ctx, sub.run, s.Fork, prog); err != nil {
			return nil, err
		}
		defer e.books.Delete(sub.run.ID)
	}
	l := e.roomiest()
	if l == nil {
		return nil, errNoLane()
	}
	l.post(func() { l.submit(sub) })
	select {
	case <-ctx.Done():
		return nil, &pipeline.Error{Kind: pipeline.Unavailable, Reason: "not_acknowledged", Text: "the database has not acknowledged the run in time; with an idempotency key it is safe to submit again", Err: ctx.Err()}
	case r := <-reply:
		if r.err != nil {
			e.discard(sub.run, s.Uploads)
			return nil, r.err
		}
		if r.run.Pipeline == "" { // an earlier run of the same key
			e.discard(sub.run, s.Uploads)
			return e.cfg.Store.Run(ctx, r.run.ID)
		}
		return r.run, nil
	}
}

// shareFrom is the number of runs in a lane from which others take new ones, too.
// A commit costs about as much for one run as for ten: runs that share it are
// cheaper than lanes that commit side by side.
const shareFrom = 512

// roomiest is the lane for a new run, or nil: the first one that has few, else the
// one that has the fewest.
func (e *Executor) roomiest() *lane {
	e.mu.Lock()
	defer e.mu.Unlock()
	var least *lane
	for _, l := range e.lanes {
		n := int(l.size.Load())
		if n < min(shareFrom, e.cfg.Runs/2) {
			return l
		}
		if least == nil || n < int(least.size.Load()) {
			least = l
		}
	}
	return least
}

// priorityOf is the priority of a run: its own, else that of its pipeline.
func priorityOf(given int32, plan *pipeline.Plan) int32 {
	if given != 0 {
		return given
	}
	return int32(min(max(plan.Settings.Priority, math.MinInt32), math.MaxInt32))
}

// Resume goes on with a queued or parked run, here and now. A run that somebody owns or
// that has finished gives Conflict.
func (e *Executor) Resume(ctx context.Context, id pipeline.RunID) error {
	e.mu.Lock()
	var l *lane
	if len(e.lanes) > 0 {
		l = e.lanes[0]
	}
	e.mu.Unlock()
	if l == nil {
		return errNoLane()
	}
	reply := make(chan error, 1)
	l.post(func() {
		if l.stopping || l.fenced {
			reply <- errNoLane()
			return
		}
		l.jobs <- laneJob{resume: id, reply: func(err error) { reply <- err }}
	})
	select {
	case <-ctx.Done():
		return ctx.Err()
	case err := <-reply:
		return err
	}
}

func errNoLane() error {
	return &pipeline.Error{Kind: pipeline.Unavailable, Reason: "store_unavailable", Text: "the server is not ready: it has no lane on the database yet; try again"}
}

// read loads what is needed to go on with a run.
func (e *Executor) read(run *pipeline.Run) (*program, past, []store.Message, error) {
	ctx, cancel := context.WithTimeout(e.work, time.Minute)
	defer cancel()
	prog, err := e.program(ctx, run)
	if err != nil {
		return nil, past{}, nil, err
	}
	p, err := e.recall(ctx, run, prog.plan)
	if err != nil {
		return nil, past{}, nil, err
	}
	if p.m != nil {
		if p.lost, err = e.receiveFiles(ctx, run, p.m.Files()); err != nil {
			return nil, past{}, nil, err
		}
		if err := e.receiveUploads(ctx, run, prog.plan, p.m.Uploads()); err != nil {
			return nil, past{}, nil, err
		}
	}
	messages, err := e.cfg.Store.Inbox(ctx, []pipeline.RunID{run.ID})
	if err != nil {
		return nil, past{}, nil, fmt.Errorf("read inbox: %w", err)
	}
	return prog, p, messages, nil
}

// program is the plan of a run, ready to be executed, with its bundle unpacked.
func (e *Executor) program(ctx context.Context, run *pipeline.Run) (*program, error) {
	prog, ok := e.plans.GetIfPresent(run.PlanDigest)
	if !ok {
		p, err := e.cfg.Store.Plan(ctx, run.PlanDigest)
		if err != nil {
			return nil, fmt.Errorf("read plan: %w", err)
		}
		plan, err := spec.DecodePlan(p.Compiled)
		if err != nil || p.Format != pipeline.PlanFormat {
			plan, err = e.recompile(ctx, run, p)
		}
		if err != nil {
			return nil, fmt.Errorf("read plan %s: %w", run.PlanDigest, err)
		}
		if prog, err = newProgram(plan); err != nil {
			return nil, err
		}
		e.plans.Set(run.PlanDigest, prog)
	}
	if err := e.unpack(ctx, prog.plan.Bundle); err != nil {
		return nil, err
	}
	return prog, nil
}

// recompile makes the plan of a run again from its source, as when it was stored
// in an older format. The plan of a run that a call has detached is found among
// those that its source calls.
func (e *Executor) recompile(ctx context.Context, run *pipeline.Run, p *store.Plan) (*pipeline.Plan, error) {
	src := spec.Source{File: "pipeline.yaml", Text: p.Source}
	var old struct {
		Bundle pipeline.Digest `json:"bundle"`
	}
	if json.Unmarshal(p.Compiled, &old) == nil && old.Bundle != "" {
		files, err := e.cfg.Store.Bundle(ctx, old.Bundle)
		if err != nil {
			return nil, err
		}
		src.Files = files
	}
	plan, _, err := spec.Compile(src, e.catalog)
	if err != nil || plan.ID == run.Pipeline && run.ParentRun == "" {
		return plan, err
	}
	for i, u := range plan.Units {
		if u.ID == run.Pipeline {
			return detachedPlan(plan, i), nil
		}
	}
	return plan, nil
}
