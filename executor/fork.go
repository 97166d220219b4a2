package executor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/orchestrator-project/orchestrator/pipeline"
	"github.com/orchestrator-project/orchestrator/pipeline/spec"
	"github.com/orchestrator-project/orchestrator/store"
)

// maxInherited bounds the files, in bytes, that a run gets from the one whose
// results it uses.
const maxInherited = 1 << 30

// Fork starts a run that uses what another has recorded. What it asks for and is
// not there gives Invalid; a source whose state does not allow it, Conflict.
func (e *Executor) Fork(ctx context.Context, f pipeline.Forking) (*pipeline.Run, error) {
	s, err := e.forkOf(ctx, &f)
	if err != nil {
		return nil, err
	}
	return e.Submit(ctx, *s)
}

// forkOf is the submission of a fork.
func (e *Executor) forkOf(ctx context.Context, f *pipeline.Forking) (*pipeline.Submission, error) {
	source, err := e.cfg.Store.Run(ctx, f.From)
	if err != nil {
		return nil, err
	}
	if err := mayFork(source, f.Mode); err != nil {
		return nil, err
	}
	prog, err := e.program(ctx, source)
	if err != nil {
		return nil, err
	}
	created, last, err := e.ends(ctx, source.ID)
	if err != nil {
		return nil, err
	}
	fork := &pipeline.Fork{From: source.ID, Seq: last, Mode: f.Mode}
	switch {
	case f.At > last || f.At < 0:
		return nil, &pipeline.Error{
			Kind: pipeline.Invalid, Reason: "seq_beyond_log",
			Text: fmt.Sprintf("the log of run %s has the records 1 to %d; there is no %d", source.ID, last, f.At),
		}
	case f.At > 0:
		fork.Seq = f.At
	case f.Step != "":
		fork.Rerun = []pipeline.Path{f.Step}
	}
	s := f.Edit
	s.Fork = fork
	given := s.Inputs
	if s.Plan == nil {
		p, err := e.cfg.Store.Plan(ctx, source.PlanDigest)
		if err != nil {
			return nil, err
		}
		s.Plan, s.PlanDigest, s.Compiled, s.Source, s.Inputs = prog.plan, source.PlanDigest, p.Compiled, p.Source, source.Inputs
	}
	if s.Plan != prog.plan || len(given) > 0 {
		if s.Inputs, err = spec.Inputs(s.Plan, inherited(s.Plan, source.Inputs, given)); err != nil {
			return nil, err
		}
	}
	if _, unused, err := spec.CheckAnswers(s.Plan, s.Answers); err == nil && len(unused) > 0 {
		return nil, &pipeline.Error{
			Kind: pipeline.Invalid, Reason: "invalid_answers",
			Text: "the pipeline has no <AUTO> tag " + strings.Join(unused, ", ") + spec.MeantAnswer(s.Plan, unused[0]),
		}
	}
	answers := maps.Clone(created.Answers)
	if answers == nil {
		answers = map[string]any{}
	}
	maps.Copy(answers, s.Answers)
	if s.Answers, _, err = spec.CheckAnswers(s.Plan, answers); err != nil { // those that nothing asks for any more are left out
		return nil, err
	}
	if created.Uploads != "" {
		if s.Uploads, err = e.cfg.Store.Bundle(ctx, created.Uploads); err != nil {
			return nil, err
		}
	}
	s.Labels, s.Priority = maps.Clone(source.Labels), source.Priority
	delete(s.Labels, store.LabelImported)
	s.Queue, s.FairKey = source.Queue, source.FairKey
	return &s, nil
}

// mayFork refuses what the state of the source does not allow.
func mayFork(source *pipeline.Run, mode pipeline.ForkMode) error {
	switch {
	case mode == pipeline.ForkAt:
	case !source.Status.Final():
		return &pipeline.Error{
			Kind: pipeline.Conflict, Reason: "run_active",
			Text: fmt.Sprintf("run %s has not finished: it is %s; cancel it first, or fork it as it is now", source.ID, source.Status),
		}
	case mode == pipeline.ForkRetry && source.Status == pipeline.RunCompleted:
		return &pipeline.Error{
			Kind: pipeline.Conflict, Reason: "run_completed",
			Text: fmt.Sprintf("run %s has completed: there is nothing to retry; run it again from a step, or fork it", source.ID),
		}
	}
	return nil
}

// ends are what the first record of a log says, and the number of the last one.
func (e *Executor) ends(ctx context.Context, id pipeline.RunID) (created pipeline.Data, last int32, err error) {
	for ev, err := range e.cfg.Store.Events(ctx, id, 0) {
		if err != nil {
			return created, 0, fmt.Errorf("read log: %w", err)
		}
		if ev.Seq == 1 {
			created = ev.Data
		}
		last = ev.Seq
	}
	return created, last, nil
}

// inherited are the inputs of a fork: those of its source that its plan still
// has, and what is given in their place.
func inherited(plan *pipeline.Plan, old, given map[string]any) map[string]any {
	all := map[string]any{}
	for name, v := range old {
		if slices.ContainsFunc(plan.Inputs, func(in pipeline.Input) bool { return in.Name == name }) {
			all[name] = v
		}
	}
	maps.Copy(all, given)
	return all
}

// derive makes a new run the fork of another: it gets a copy of its files, and its
// results are at hand for the lane that takes it.
func (e *Executor) derive(ctx context.Context, run *pipeline.Run, fork *pipeline.Fork, prog *program) error {
	b, err := e.openBook(ctx, fork, prog)
	if err != nil {
		return err
	}
	run.ForkedFrom, run.ForkSeq, run.Workspace = fork.From, fork.Seq, b.source.Workspace
	if fork.Mode != pipeline.ForkReplay {
		if err := copyFiles(e.runDir(b.source), e.runDir(run)); err != nil {
			return err
		}
	}
	e.books.Store(run.ID, b)
	return nil
}

// keepBook opens the book of a run that a lane is about to take.
func (e *Executor) keepBook(run *pipeline.Run, prog *program) error {
	ctx, cancel := context.WithTimeout(e.work, time.Minute)
	defer cancel()
	b, err := e.bookOf(ctx, run, prog)
	if err == nil && b != nil {
		e.books.Store(run.ID, b)
	}
	return err
}

// bookFor hands a run the book that was opened for it.
func (e *Executor) bookFor(run *pipeline.Run) *book {
	if run.ForkedFrom == "" {
		return nil
	}
	v, _ := e.books.LoadAndDelete(run.ID)
	b, _ := v.(*book)
	return b
}

// copyFiles copies a run's directory, if it is on this machine.
func copyFiles(from, to string) error {
	if from == to {
		return nil
	}
	size := int64(0)
	err := filepath.WalkDir(from, func(_ string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		info, err := d.Info()
		if err == nil {
			size += info.Size()
		}
		return err
	})
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil && size > maxInherited {
		return &pipeline.Error{
			Kind: pipeline.TooLarge, Reason: "workspace_too_large",
			Text: fmt.Sprintf("the files of the run take %d MiB, more than the %d MiB that a fork can take over; start a new run instead", size>>20, maxInherited>>20),
		}
	}
	if err == nil {
		err = os.MkdirAll(to, 0o700)
	}
	if err == nil {
		err = os.CopyFS(to, os.DirFS(from))
	}
	if err != nil && !errors.Is(err, fs.ErrExist) { // files that came with the run are there
		return fmt.Errorf("copy the files of the run: %w", err)
	}
	return nil
}
