package executor

import (
	"context"
	"time"

	"github.com/orchestrator-project/orchestrator/pipeline"
	"github.com/orchestrator-project/orchestrator/store"
)

// unfinished are the states of runs that can be cancelled.
var unfinished = []pipeline.RunStatus{pipeline.RunQueued, pipeline.RunRunning, pipeline.RunWaiting, pipeline.RunPaused}

// cancelChildren cancels the runs that a cancelled run has begun. The run does
// not end before each has been told, so that a new owner, who finds the cancel in
// the log, does it again: being told twice changes nothing.
func (r *runState) cancelChildren() {
	if len(r.prog.detached) == 0 || r.bequeathing {
		return
	}
	r.bequeathing = true
	if seq := r.m.Seq; r.durable < seq { // a child may stand in the same batch
		r.lane.whenDurable(r, seq, r.tellChildren)
		return
	}
	r.tellChildren()
}

func (r *runState) tellChildren() {
	ex := r.lane.ex
	ex.tasks.Go(func() {
		err := ex.cancelChildren(ex.work, r.run.ID)
		r.lane.post(func() {
			if r.over() || r.lane.stopping || r.lane.fenced {
				return // the next owner does it
			}
			if err != nil {
				ex.log.Warn("children of a cancelled run not cancelled; trying again", "run", r.run.ID, "err", err)
				r.after(time.Second, r.tellChildren)
				return
			}
			r.bequeathing = false
			shelf := r.shelf
			r.shelf = nil
			for i := range shelf {
				r.do(func() { r.task(&shelf[i]) })
			}
			r.do(r.pump)
		})
	})
}

// cancelChildren leaves each unfinished child of a run the wish to end; they pass
// it on.
func (e *Executor) cancelChildren(ctx context.Context, parent pipeline.RunID) error {
	q := store.Query{Parent: parent, Status: unfinished, Limit: 500}
	for {
		page, err := e.cfg.Store.Runs(ctx, q)
		if err != nil {
			return err
		}
		for _, child := range page.Runs {
			m := store.Message{
				ID: store.MessageID("cancel/" + string(parent) + "/" + string(child.ID)), Kind: store.MessageCancel, Actor: "run " + string(parent),
			}
			err := e.cfg.Store.Send(ctx, child.ID, m)
			if kind := pipeline.KindOf(err); err != nil && kind != pipeline.Conflict && kind != pipeline.NotFound {
				return err
			}
			q.Before = child.ID
		}
		if !page.More {
			return nil
		}
	}
}
