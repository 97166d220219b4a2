package executor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

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
		_ = os.Chtimes(dir, time.Time{}, e.cfg.Now()) // it is in use
		return nil
	}
	b, err := e.cfg.Store.Bundle(ctx, d)
	if err != nil {
		return fmt.Errorf("read bundle: %w", err)
	}
	if err := os.MkdirAll(e.cfg.Bundles, 0o700); err != nil {
		return fmt.Errorf("unpack bundle: %w", err)
	}
	tmp, err := os.MkdirTemp(e.cfg.Bundles, unpacking)
	if err != nil {
		return fmt.Errorf("unpack bundle: %w", err)
	}
	if err := writeFiles(tmp, b, 0o500); err == nil { // a script may be run as it stands
		err = sealFolders(tmp)
		if err == nil {
			err = os.Rename(tmp, dir)
		}
		if err == nil {
			e.sweep(dir)
			return nil
		}
	}
	removeSealed(tmp)
	if _, there := os.Stat(dir); there == nil { // somebody else was faster
		return nil
	}
	return fmt.Errorf("unpack bundle into %s: it cannot be written", dir)
}

const (
	unpacking  = "unpacking-"   // begins the names of folders that are not complete
	maxBundles = 1 << 30        // bytes that unpacked bundles may take before old ones go
	freshness  = 24 * time.Hour // since the last use, by which a bundle may still be somebody's
)

// sweep removes the bundles that nobody has used for long, the oldest first,
// until the rest is no more than maxBundles. What a crash left half unpacked
// goes too. The bundles of runs in memory are used all the time, see hold.
func (e *Executor) sweep(keep string) {
	entries, err := os.ReadDir(e.cfg.Bundles)
	if err != nil {
		return
	}
	type old struct {
		dir  string
		used time.Time
		size int64
	}
	var list []old
	var total int64
	for _, entry := range entries {
		info, err := entry.Info()
		if err != nil || !entry.IsDir() {
			continue
		}
		b := old{dir: filepath.Join(e.cfg.Bundles, entry.Name()), used: info.ModTime()}
		_ = filepath.WalkDir(b.dir, func(_ string, d fs.DirEntry, err error) error {
			if err == nil && d.Type().IsRegular() {
				if info, err := d.Info(); err == nil {
					b.size += info.Size()
				}
			}
			return nil
		})
		total += b.size
		if b.dir != keep && e.cfg.Now().Sub(b.used) > freshness && !e.bundles.held(b.dir) {
			list = append(list, b)
		}
	}
	slices.SortFunc(list, func(a, b old) int { return a.used.Compare(b.used) })
	for _, b := range list {
		if total <= maxBundles && !strings.HasPrefix(filepath.Base(b.dir), unpacking) {
			continue
		}
		removeSealed(b.dir)
		total -= b.size
	}
}

// holders counts the runs in memory by the folder of their bundle.
type holders struct {
	mu sync.Mutex
	of map[string]int
}

func (h *holders) hold(dir string, n int) {
	if dir == "" {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.of == nil {
		h.of = map[string]int{}
	}
	if h.of[dir] += n; h.of[dir] == 0 {
		delete(h.of, dir)
	}
}

func (h *holders) held(dir string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.of[dir] > 0
}

// writeFiles writes files below a folder. They are on the disk when it returns.
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
		if err := writeFile(root, file, data, mode); err != nil {
			return err
		}
	}
	return nil
}

func writeFile(root *os.Root, name string, data []byte, mode fs.FileMode) error {
	f, err := root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, mode)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	return errors.Join(err, f.Sync(), f.Close())
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
	if (len(uploads) > 0 || run.ForkedFrom != "") && run.Workspace == "" {
		_ = os.RemoveAll(e.runDir(run))
	}
}
