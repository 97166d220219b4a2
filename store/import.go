package store

import (
	"context"
	"fmt"
	"time"

	"github.com/orchestrator-project/orchestrator/pipeline"
)

// What one commit of an import holds.
const (
	importBatch = 4096    // events
	importBytes = 8 << 20 // and their bytes, about
)

// ImportRun stores the run of an archive under its own id, as it ended. The run
// appears at once and whole, at the end. One that is there already, and a run that
// cannot be there beside what is, give Conflict. What an import that broke off has
// left behind is no hindrance to repeating it. Replica names the process, which may
// have lanes of its own.
func ImportRun(ctx context.Context, s Store, replica ReplicaID, a *RunArchive) error {
	exists := func(text string) error {
		return &pipeline.Error{Kind: pipeline.Conflict, Reason: "run_exists", Text: text}
	}
	_, err := s.Run(ctx, a.Run.ID)
	if err == nil {
		return exists(fmt.Sprintf("run %s is here already", a.Run.ID))
	}
	if pipeline.KindOf(err) != pipeline.NotFound {
		return err
	}
	for _, q := range a.Approvals {
		old, err := s.Approval(ctx, q.ID)
		if err == nil && old.Run != a.Run.ID {
			return exists(fmt.Sprintf("approval %s is another run's", q.ID))
		}
		if err != nil && pipeline.KindOf(err) != pipeline.NotFound {
			return err
		}
	}
	for d, files := range a.Files {
		if err := s.PutBundle(ctx, d, files); err != nil {
			return err
		}
	}
	if err := s.PutPlan(ctx, a.Plan); err != nil {
		return err
	}
	i := &importing{ctx: ctx, s: s, replica: replica, a: a}
	if i.printed, err = i.alreadyPrinted(); err != nil {
		return err
	}
	if err := a.entries(i.entry); err != nil {
		return err
	}
	return i.commit(&Batch{Create: []Create{{Run: a.Run, Events: i.events}}, Ask: a.Approvals})
}

// importing is the storing of an archive.
type importing struct {
	ctx     context.Context
	s       Store
	replica ReplicaID
	a       *RunArchive
	events  []pipeline.Event
	size    int
	printed int // chunks of logs that are stored
}

// alreadyPrinted counts the chunks that an import which broke off has stored.
func (i *importing) alreadyPrinted() (n int, err error) {
	for _, err := range i.s.Logs(i.ctx, LogQuery{Run: i.a.Run.ID}) {
		if err != nil {
			return 0, err
		}
		n++
	}
	return n, nil
}

func (i *importing) entry(name string, data []byte) error {
	switch stageOf(name) {
	case stageEvents:
		return lines(data, i.event)
	case stageLogs:
		var chunks []LogChunk
		err := lines(data, func(line []byte) error {
			c, err := i.a.chunk(line)
			switch {
			case err != nil:
				return err
			case i.printed > 0:
				i.printed--
			default:
				chunks = append(chunks, *c)
			}
			return nil
		})
		if err != nil {
			return err
		}
		return i.s.AppendLogs(i.ctx, chunks)
	case stageBlobs:
		_, err := i.s.PutBlob(i.ctx, i.a.Run.ID, data)
		return err
	}
	return nil
}

// event gathers records; those that fill a batch are stored ahead of their run.
func (i *importing) event(line []byte) error {
	e, err := readEvent(line)
	if err != nil {
		return err
	}
	if len(i.events) == importBatch || len(i.events) > 0 && i.size+len(line) > importBytes {
		if err := i.commit(&Batch{Append: []Append{{Run: i.a.Run.ID, Events: i.events}}}); err != nil {
			return err
		}
		i.events, i.size = nil, 0
	}
	i.events, i.size = append(i.events, *e), i.size+len(line)
	return nil
}

// commit records a batch through a lane of its own, which so needs no heartbeat
// and cannot get in the way of those that runs live in.
func (i *importing) commit(b *Batch) (err error) {
	l, err := i.s.OpenLane(i.ctx, i.replica)
	if err != nil {
		return err
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(i.ctx), 5*time.Second)
		defer cancel()
		if e := l.Release(ctx); err == nil {
			err = e
		}
	}()
	_, err = l.Commit(i.ctx, b)
	return err
}
