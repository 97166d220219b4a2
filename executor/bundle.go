package executor

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/orchestrator-project/orchestrator/pipeline"
)

// bundleDir is where the files that travel with a pipeline are unpacked; empty
// for a pipeline without any.
func (e *Executor) bundleDir(d pipeline.Digest) string {
	if d == "" {
		return ""
	}
	return filepath.Join(e.cfg.Bundles, strings.TrimPrefix(string(d), "sha256:"))
}

// unpack puts the files of a bundle into its folder, for reading only. They
// appear there all at once, so that whoever finds the folder finds them all.
func (e *Executor) unpack(ctx context.Context, d pipeline.Digest) error {
	dir := e.bundleDir(d)
	if dir == "" {
		return nil
	}
	if _, err := os.Stat(dir); err == nil {
		return nil
	}
	b, err := e.cfg.Store.Bundle(ctx, d)
	if err != nil {
		return fmt.Errorf("read bundle: %w", err)
	}
	if err := os.MkdirAll(e.cfg.Bundles, 0o700); err != nil {
		return fmt.Errorf("unpack bundle: %w", err)
	}
	tmp, err := os.MkdirTemp(e.cfg.Bundles, "unpacking-")
	if err != nil {
		return fmt.Errorf("unpack bundle: %w", err)
	}
	if err := writeFiles(tmp, b, 0o500); err == nil { // a script may be run as it stands
		err = sealFolders(tmp)
		if err == nil {
			err = os.Rename(tmp, dir)
		}
		if err == nil {
			return nil
		}
	}
	removeSealed(tmp)
	if _, there := os.Stat(dir); there == nil { // somebody else was faster
		return nil
	}
	return fmt.Errorf("unpack bundle into %s: it cannot be written", dir)
}

// writeFiles writes files below a folder.
func writeFiles(dir string, b pipeline.Bundle, mode fs.FileMode) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer func() { _ = root.Close() }()
	for name, data := range b {
		file := filepath.FromSlash(name)
		if err := root.MkdirAll(filepath.Dir(file), 0o700); err != nil {
			return err
		}
		if err := root.WriteFile(file, data, mode); err != nil {
			return err
		}
	}
	return nil
}

// sealFolders takes the right to write from all folders, the deepest first.
func sealFolders(dir string) error {
	return eachFolder(dir, 0o500)
}

func removeSealed(dir string) {
	_ = eachFolder(dir, 0o700)
	_ = os.RemoveAll(dir)
}

func eachFolder(dir string, mode fs.FileMode) error {
	return filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			return err
		}
		return os.Chmod(path, mode) //nolint:gosec // a folder must be entered
	})
}

// runDir is the directory that belongs to a run.
func (e *Executor) runDir(run *pipeline.Run) string {
	if run.Workspace != "" {
		return run.Workspace
	}
	return filepath.Join(e.cfg.Workspaces, string(run.ID))
}

// workspace is the directory that the steps of a run mean: its own, or the folder
// within that its pipeline names.
func (e *Executor) workspace(run *pipeline.Run, plan *pipeline.Plan) string {
	dir := e.runDir(run)
	if sub := filepath.FromSlash(plan.Settings.Workspace); filepath.IsLocal(sub) {
		dir = filepath.Join(dir, sub)
	}
	return dir
}

// writeUploads puts the files that came with a submission into the workspace.
func (e *Executor) writeUploads(run *pipeline.Run, plan *pipeline.Plan, files pipeline.Bundle) error {
	if len(files) == 0 {
		return nil
	}
	dir := e.workspace(run, plan)
	if err := makeWorkspace(dir); err != nil {
		return err
	}
	if err := writeFiles(dir, files, 0o600); err != nil {
		return fmt.Errorf("write the files that came with the run: %w", err)
	}
	return nil
}

// receiveUploads does the same for a run that another process has accepted.
func (e *Executor) receiveUploads(ctx context.Context, run *pipeline.Run, plan *pipeline.Plan, d pipeline.Digest) error {
	if d == "" {
		return nil
	}
	if _, err := os.Stat(e.workspace(run, plan)); err == nil {
		return nil
	}
	files, err := e.cfg.Store.Bundle(ctx, d)
	if err != nil {
		return fmt.Errorf("read the files that came with the run: %w", err)
	}
	return e.writeUploads(run, plan, files)
}

// discard removes the directory of a run that did not come to be.
func (e *Executor) discard(run *pipeline.Run, uploads pipeline.Bundle) {
	if len(uploads) > 0 && run.Workspace == "" {
		_ = os.RemoveAll(e.runDir(run))
	}
}
