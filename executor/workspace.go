package executor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/orchestrator-project/orchestrator/pipeline"
	"github.com/orchestrator-project/orchestrator/store"
)

// A run that parks or is handed over may go on at another machine: what its own
// directory holds is saved with the run, and restored where it is missing or older.
// Beside the directories stands for each of them which save it is at.

const (
	savesAtOnce = 2 // of one executor, each of which holds at most maxSaved bytes
	saveTime    = time.Minute
	saveAgain   = time.Second
)

// saves is what a lane knows of the saving of a run's directory.
type saves struct {
	touched bool   // steps have run since the newest save
	marked  bool   // a save was begun here
	stop    func() // ends the saving under way; nil: there is none
}

// saveFiles begins to save the run's directory if steps may have changed it, and
// reports whether that is under way. The run rests once it is done.
func (r *runState) saveFiles() bool {
	l := r.lane
	if r.files.stop != nil {
		return true
	}
	if !r.files.touched || r.run.Workspace != "" || l.hurried || l.fenced {
		return false
	}
	ctx, stop := context.WithTimeout(l.ex.work, saveTime)
	r.files.touched, r.files.marked, r.files.stop = false, true, stop
	r.looking++
	last := r.m.Files()
	l.ex.tasks.Go(func() {
		ref, err := l.ex.saveDir(ctx, r.run, last)
		stop()
		l.post(func() { r.do(func() { r.filesSaved(ref, err) }) })
	})
	return true
}

// filesSaved records what was saved. Where the store was away, it is tried again;
// what cannot be saved at all does not hold up the run.
func (r *runState) filesSaved(ref *pipeline.WorkspaceRef, err error) {
	r.files.stop = nil
	r.looking--
	l := r.lane
	if r.over() || l.fenced || l.parted {
		return
	}
	switch {
	case pipeline.KindOf(err) == pipeline.Unavailable && !l.stopping:
		r.files.touched, r.staying = true, true
		r.after(saveAgain, func() {
			r.staying = false
			r.pump()
		})
		return
	case err != nil:
		l.ex.log.Warn("files of a run not saved; on another machine it will not find them", "run", r.run.ID, "err", err)
	case ref != nil:
		r.record(pipeline.Checkpoint, "", 0, pipeline.Data{Workspace: ref})
	}
	r.rest()
}

// filesSaved saves the directories of all runs of a lane that stops, and reports
// whether that is done.
func (l *lane) filesSaved() bool {
	done := true
	for _, r := range l.runs {
		if !r.over() && !r.asleep && !r.m.Run.StartedAt.IsZero() && r.saveFiles() {
			done = false
		}
	}
	return done
}

// hurryFiles gives the savings of a lane that stops as long again as its steps had.
func (l *lane) hurryFiles() {
	time.AfterFunc(l.ex.cfg.Grace, func() {
		l.post(func() {
			l.hurried = true
			for _, r := range l.runs {
				if r.files.stop != nil {
					r.files.stop()
				}
			}
		})
	})
}

// mark tells which save a directory is at.
type mark struct {
	Save     int32           `json:"save"`
	Manifest pipeline.Digest `json:"manifest,omitempty"`
}

// markOf is the file that holds the mark of a run's directory.
func (e *Executor) markOf(run pipeline.RunID) string {
	return filepath.Join(e.cfg.Workspaces, ".saves", string(run))
}

func (e *Executor) readMark(run pipeline.RunID) (m mark) {
	if b, err := os.ReadFile(e.markOf(run)); err == nil {
		_ = json.Unmarshal(b, &m) // a mark that was cut off says nothing
	}
	return m
}

func (e *Executor) writeMark(run pipeline.RunID, ref *pipeline.WorkspaceRef) error {
	name := e.markOf(run)
	b, err := json.Marshal(mark{Save: ref.Save, Manifest: ref.Manifest})
	if err == nil {
		err = os.MkdirAll(filepath.Dir(name), 0o700)
	}
	if err == nil {
		err = os.WriteFile(name, b, 0o600)
	}
	if err != nil {
		return fmt.Errorf("mark the run's directory: %w", err)
	}
	return nil
}

// saveDir saves a run's directory; nil: nothing has changed since the newest save,
// or there is nothing. One that is too large is marked, so that its next owner
// knows what it lacks.
func (e *Executor) saveDir(ctx context.Context, run *pipeline.Run, last *pipeline.WorkspaceRef) (*pipeline.WorkspaceRef, error) {
	root, err := os.OpenRoot(e.runDir(run))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil //nolint:nilnil // there is nothing
	}
	if err != nil {
		return nil, fmt.Errorf("save the run's directory: %w", err)
	}
	defer func() { _ = root.Close() }()
	select {
	case e.saving <- struct{}{}:
		defer func() { <-e.saving }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	s, err := survey(root)
	if err != nil {
		return nil, fmt.Errorf("save the run's directory: %w", err)
	}
	if last == nil {
		if len(s.Entries) == 0 && !s.large {
			return nil, nil //nolint:nilnil // likewise
		}
		last = &pipeline.WorkspaceRef{}
	}
	ref := &pipeline.WorkspaceRef{Save: last.Save + 1, Files: s.files, Size: s.size, Holder: string(e.cfg.Replica)}
	if !s.large {
		old, err := e.manifest(ctx, run.ID, last)
		if err != nil {
			return nil, err
		}
		omitted, err := s.pack(root, old, func(b []byte) (pipeline.Digest, error) { return e.cfg.Store.PutBlob(ctx, run.ID, b) })
		switch {
		case errors.Is(err, errTooMuch):
		case err != nil:
			return nil, fmt.Errorf("save the run's directory: %w", err)
		case last.Manifest != "" && s.same(old):
			ref = last
		default:
			if ref.Manifest, err = e.putManifest(ctx, run.ID, &s.manifest); err != nil {
				return nil, err
			}
		}
		if s.omitted = append(s.omitted, omitted...); len(s.omitted) > 0 && ref != last {
			e.log.Warn("some files of a run are not saved: they lead out of its directory, are no files, or cannot be read",
				"run", run.ID, "files", len(s.omitted), "first", s.omitted[0])
		}
	} else if last.Manifest == "" && last.Files == ref.Files && last.Size == ref.Size {
		ref = last
	}
	if err := e.writeMark(run.ID, ref); err != nil {
		return nil, err
	}
	if ref == last {
		return nil, nil //nolint:nilnil // nothing has changed
	}
	return ref, nil
}

// manifest reads that of a save; of one without any, or whose list is lost, it is empty.
func (e *Executor) manifest(ctx context.Context, run pipeline.RunID, ref *pipeline.WorkspaceRef) (*manifest, error) {
	m := &manifest{}
	if ref.Manifest == "" {
		return m, nil
	}
	b, err := e.cfg.Store.Blob(ctx, run, ref.Manifest)
	if pipeline.KindOf(err) == pipeline.NotFound {
		return m, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the list of the run's files: %w", err)
	}
	if json.Unmarshal(b, m) != nil || m.check() != nil {
		return &manifest{}, nil //nolint:nilerr // all is stored again
	}
	return m, nil
}

// putManifest stores a manifest; one that is too long is not stored: empty.
func (e *Executor) putManifest(ctx context.Context, run pipeline.RunID, m *manifest) (pipeline.Digest, error) {
	b, err := json.Marshal(m)
	if err != nil {
		return "", fmt.Errorf("write the list of the run's files: %w", err)
	}
	if len(b) > store.MaxBlob {
		return "", nil
	}
	return e.cfg.Store.PutBlob(ctx, run, b)
}

const (
	lostTooLarge = "too_large"  // it was not saved
	lostDamaged  = "unreadable" // what was saved cannot be restored
)

// receiveFiles sees to it that the directory of a run that this process takes over
// holds at least what was saved. What is lost is told; an error means that it is
// not known yet.
func (e *Executor) receiveFiles(ctx context.Context, run *pipeline.Run, ref *pipeline.WorkspaceRef) (lost *pipeline.Data, err error) {
	if ref == nil || run.Workspace != "" {
		return nil, nil //nolint:nilnil // nothing was saved
	}
	dir := e.runDir(run)
	if _, err := os.Stat(dir); err == nil {
		m := e.readMark(run.ID)
		if m.Save > ref.Save || m.Save == ref.Save && m.Manifest == ref.Manifest {
			return nil, nil //nolint:nilnil // it is all here
		}
	}
	reason := lostTooLarge
	if ref.Manifest != "" {
		err := e.restoreDir(ctx, run.ID, dir, ref)
		switch {
		case err == nil:
			return nil, nil //nolint:nilnil // nothing is lost
		case ctx.Err() != nil || pipeline.KindOf(err) == pipeline.Unavailable:
			return nil, err
		}
		e.log.Warn("files of a run not restored", "run", run.ID, "err", err)
		reason = lostDamaged
	}
	removeSealed(dir) // what an earlier owner left here is no state that the run was in
	if err := e.writeMark(run.ID, ref); err != nil {
		e.log.Warn("files of a run not marked", "run", run.ID, "err", err)
	}
	if ref.Files == 0 && ref.Size == 0 {
		return nil, nil //nolint:nilnil // it was told before, or there was none
	}
	return &pipeline.Data{Workspace: ref, Reason: reason}, nil
}

// restoring begins the name of a directory that is not complete.
const restoring = ".restoring-"

// restoreDir puts what was saved in place of the directory, all at once.
func (e *Executor) restoreDir(ctx context.Context, run pipeline.RunID, dir string, ref *pipeline.WorkspaceRef) error {
	b, err := e.cfg.Store.Blob(ctx, run, ref.Manifest)
	if err != nil {
		return err
	}
	m := &manifest{}
	if err := json.Unmarshal(b, m); err != nil {
		return fmt.Errorf("%w: %w", errManifest, err)
	}
	parent := filepath.Dir(dir)
	if err := os.MkdirAll(parent, 0o700); err != nil {
		return err
	}
	tmp := filepath.Join(parent, restoring+string(run))
	removeSealed(tmp) // what a crash has left
	if err := os.Mkdir(tmp, 0o700); err != nil {
		return err
	}
	root, err := os.OpenRoot(tmp)
	if err == nil {
		err = errors.Join(m.unpack(root, func(d pipeline.Digest) ([]byte, error) { return e.cfg.Store.Blob(ctx, run, d) }), root.Close())
	}
	if err == nil {
		removeSealed(dir)
		err = os.Rename(tmp, dir)
	}
	if err != nil {
		removeSealed(tmp)
		return err
	}
	return e.writeMark(run, ref)
}

// sweepWorkspaces removes the directories on this machine of runs of days before
// the given one that the store no longer has, whichever process removed them there.
func (e *Executor) sweepWorkspaces(ctx context.Context, before time.Time) {
	entries, err := os.ReadDir(e.cfg.Workspaces)
	if err != nil {
		return
	}
	for _, entry := range entries {
		id := pipeline.RunID(entry.Name())
		key, ok := store.RunKey(id)
		if !ok || !entry.IsDir() || store.DayOf(key) >= before.Unix()/(24*60*60) {
			continue
		}
		if _, err := e.cfg.Store.Run(ctx, id); pipeline.KindOf(err) != pipeline.NotFound {
			continue
		}
		removeSealed(filepath.Join(e.cfg.Workspaces, string(id)))
		_ = os.Remove(e.markOf(id))
	}
}
