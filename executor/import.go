package executor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/orchestrator-project/orchestrator/pipeline"
	"github.com/orchestrator-project/orchestrator/pipeline/spec"
	"github.com/orchestrator-project/orchestrator/store"
)

// Import stores the finished run that an archive holds, to be read and forked. An
// archive that is not whole, or whose parts do not fit each other, gives Invalid,
// a run that is here already Conflict; then nothing is stored.
func (e *Executor) Import(ctx context.Context, archive io.ReadSeeker) (*pipeline.Run, error) {
	a, err := store.OpenRunArchive(archive, e.cfg.Now())
	if err != nil {
		return nil, err
	}
	plan, err := e.archived(a)
	if err != nil {
		return nil, err
	}
	if plan != nil {
		if err := fits(plan, a); err != nil {
			return nil, err
		}
		prog, err := newProgram(plan)
		if err != nil {
			return nil, notWhole("its plan cannot be carried out", err)
		}
		for _, unit := range prog.detached { // forks of the run may begin them
			c, err := prog.child(unit)
			if err != nil {
				return nil, err
			}
			err = e.cfg.Store.PutPlan(ctx, store.Plan{Digest: c.digest, Source: a.Plan.Source, Compiled: c.compiled, Format: plan.Format})
			if err != nil {
				return nil, err
			}
		}
	}
	if err := store.ImportRun(ctx, e.cfg.Store, e.cfg.Replica, a); err != nil {
		return nil, err
	}
	e.cfg.Store.Ring(store.Bell{Runs: []pipeline.RunID{a.Run.ID}})
	return e.cfg.Store.Run(ctx, a.Run.ID)
}

func notWhole(text string, cause error) error {
	return &pipeline.Error{Kind: pipeline.Invalid, Reason: "archive_invalid", Text: "the archive is not whole: " + text, Err: cause}
}

// archived is the plan of an archive, made again from its source: nobody can
// smuggle in a plan that its source does not show, or one that no compiler makes.
// Of an older format it is nil: whoever needs that plan compiles it anyway.
func (e *Executor) archived(a *store.RunArchive) (*pipeline.Plan, error) {
	if a.Plan.Format > pipeline.PlanFormat {
		return nil, &pipeline.Error{
			Kind: pipeline.Invalid, Reason: "archive_newer",
			Text: fmt.Sprintf("the plan of the archive has the format %d of a newer version; this one knows %d", a.Plan.Format, pipeline.PlanFormat),
		}
	}
	var was struct {
		File string `json:"file"`
	}
	if err := json.Unmarshal(a.Plan.Compiled, &was); err != nil {
		return nil, notWhole("its plan cannot be read", err)
	}
	plan, _, err := spec.Compile(spec.Source{File: was.File, Text: a.Plan.Source, Files: a.Files[a.Bundle]}, e.catalog)
	if found, ok := errors.AsType[*pipeline.Diagnostics](err); ok {
		return nil, notWhole("its source is not a pipeline of this version: "+found.Error(), err)
	}
	if err != nil || a.Plan.Format < pipeline.PlanFormat {
		return nil, err
	}
	found := []*pipeline.Plan{plan}
	for i := range plan.Units { // the run may be one that a call has detached
		found = append(found, detachedPlan(plan, i))
	}
	for _, p := range found {
		_, d, err := spec.EncodePlan(p)
		if err != nil {
			return nil, err
		}
		if d == a.Plan.Digest && p.ID == a.Run.Pipeline {
			return p, nil
		}
	}
	return nil, &pipeline.Error{
		Kind: pipeline.Invalid, Reason: "plan_differs",
		Text: "the archive's plan is not what this version makes of its source; import it with the version that it was exported from",
	}
}

// fits checks that the log is one of a run of the plan.
func fits(plan *pipeline.Plan, a *store.RunArchive) (err error) {
	defer func() {
		if p := recover(); p != nil { // the machine trusts logs that this engine has written
			err = notWhole("its log is not one of its pipeline", fmt.Errorf("panic: %v", p))
		}
	}()
	m := pipeline.NewMachine(plan, *a.Run)
	return a.EachEvent(func(ev *pipeline.Event) error {
		if err := m.Apply(ev); err != nil {
			return notWhole(fmt.Sprintf("record %d of its log cannot follow those before it", ev.Seq), err)
		}
		return nil
	})
}
