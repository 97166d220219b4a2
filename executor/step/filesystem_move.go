package step

import (
	"context"
	"crypto/rand"
	"errors"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/orchestrator-project/orchestrator/executor"
	"github.com/orchestrator-project/orchestrator/pipeline"
)

const copyDoc = `Copies a file or a folder within the workspace.

    - id: keep
      tool: filesystem
      action: copy
      parameters: {source: out/report.md, destination: archive/report.md}

Folders that are missing are created. Each file appears whole or not at all, with the permissions of its source, and takes the place of one that is there; overwrite: false refuses that. A folder is copied with all it holds, into destination, beside what is there. Symbolic links to files are copied as files; links to folders, and what is neither file nor folder, fail the step before anything is copied.`

const moveDoc = `Moves a file or a folder within the workspace.

    - id: file_away
      tool: filesystem
      action: move
      parameters: {source: inbox/task.md, destination: done/task.md}

It happens in one moment. A file takes the place of a file that is there, unless overwrite: false; a folder that is there must be empty. Folders that are missing are created. A symbolic link is moved itself. After a crash the step may find its work done and fail because source is gone.`

const deleteDoc = `Deletes a file of the workspace, or a folder.

    - id: clean
      tool: filesystem
      action: delete
      parameters: {path: out/tmp, recursive: true}

A folder that is not empty needs recursive: true. What is not there counts as deleted: count is 0. A symbolic link is deleted itself. The workspace cannot be deleted.`

type copyFile struct {
	Source      string `param:"required" doc:"a file or folder, relative to the workspace"`
	Destination string `param:"required" doc:"the name of the copy"`
	Overwrite   bool   `default:"true" doc:"whether files that are there are replaced"`
}

type moveFile struct {
	Source      string `param:"required" doc:"a file or folder, relative to the workspace"`
	Destination string `param:"required" doc:"its new name"`
	Overwrite   bool   `default:"true" doc:"whether a file that is there is replaced"`
}

type deleteFile struct {
	Path      string `param:"required" doc:"a file or folder, relative to the workspace"`
	Recursive bool   `doc:"delete a folder with all it holds"`
}

type copyResult struct {
	Path  string `doc:"the copy, relative to the workspace"`
	Count int64  `doc:"how many files were copied"`
	Size  int64  `doc:"of these files, in bytes"`
}

type moveResult struct {
	Path string `doc:"the new name, relative to the workspace"`
}

type deleteResult struct {
	Path  string `doc:"what was to be deleted, relative to the workspace"`
	Count int64  `doc:"how many files and folders were deleted"`
}

func copyAction() executor.Action {
	return executor.NewAction[copyFile](executor.Describe{
		Tool: "filesystem", Name: "copy", Doc: copyDoc, Effect: pipeline.EffectIdempotent, Workspace: true, Returns: copyResult{},
	})
}

func moveAction() executor.Action {
	return executor.NewAction[moveFile](executor.Describe{
		Tool: "filesystem", Name: "move", Doc: moveDoc, Effect: pipeline.EffectAtLeastOnce, Workspace: true, Returns: moveResult{},
	})
}

func deleteAction() executor.Action {
	return executor.NewAction[deleteFile](executor.Describe{
		Tool: "filesystem", Name: "delete", Doc: deleteDoc, Effect: pipeline.EffectIdempotent, Workspace: true, Returns: deleteResult{},
	})
}

// openPair opens the workspace for a source and a destination, of which neither
// holds the other.
func openPair(env executor.Env, source, destination string) (root *os.Root, from, to string, err error) {
	if to, err = inWorkspace(env, destination); err != nil {
		return nil, "", "", err
	}
	if root, from, err = openWorkspace(env, source); err != nil {
		return nil, "", "", err
	}
	from, to = filepath.ToSlash(from), filepath.ToSlash(to)
	switch {
	case from == to:
		err = invalid("source and destination are both %s", from)
	case to == "." || from == ".":
		err = invalid("the workspace itself cannot be source or destination")
	case strings.HasPrefix(to, from+"/"):
		err = invalid("the destination %s lies in the source %s", to, from)
	case strings.HasPrefix(from, to+"/"):
		err = invalid("the source %s lies in the destination %s", from, to)
	}
	if err != nil {
		root.Close()
		return nil, "", "", err
	}
	return root, from, to, nil
}

// Run looks at all there is to copy, then copies file by file.
func (c copyFile) Run(ctx context.Context, env executor.Env) (executor.Output, error) {
	root, from, to, err := openPair(env, c.Source, c.Destination)
	if err != nil {
		return executor.Output{}, err
	}
	defer root.Close()
	info, err := root.Stat(from)
	if err != nil {
		return executor.Output{}, ioFailure("read", from, err)
	}
	files, folders := []string{""}, []string{}
	if info.IsDir() {
		if files, folders, err = inFolder(ctx, root, from); err != nil {
			return executor.Output{}, err
		}
	}
	for _, f := range files {
		name, target := path.Join(from, f), path.Join(to, f)
		if info, err := root.Stat(name); err != nil {
			return executor.Output{}, ioFailure("read", name, err)
		} else if !info.Mode().IsRegular() {
			return executor.Output{}, invalid("%s is not a regular file", name)
		}
		if _, err := root.Lstat(target); err == nil && !c.Overwrite {
			return executor.Output{}, invalid("%s is there already; overwrite: true replaces it", target)
		}
	}
	for _, f := range folders {
		if err := root.MkdirAll(path.Join(to, f), 0o777); err != nil {
			return executor.Output{}, ioFailure("create", path.Join(to, f), err)
		}
	}
	size := int64(0)
	for _, f := range files {
		n, err := copyOne(ctx, root, path.Join(from, f), path.Join(to, f))
		if err != nil {
			return executor.Output{}, err
		}
		size += n
	}
	return executor.Output{Value: map[string]any{"path": to, "count": int64(len(files)), "size": size}}, nil
}

// inFolder lists what a folder holds, relative to it, with the folder itself as
// an empty name.
func inFolder(ctx context.Context, root *os.Root, base string) (files, folders []string, err error) {
	err = fs.WalkDir(root.FS(), base, func(name string, e fs.DirEntry, err error) error {
		if ctx.Err() != nil {
			return ended(ctx)
		}
		if err != nil {
			return ioFailure("read", name, err)
		}
		if len(files)+len(folders) >= maxEntries {
			return tooLarge("%s holds more than %d files", base, maxEntries)
		}
		rel := strings.TrimPrefix(strings.TrimPrefix(name, base), "/")
		if e.IsDir() {
			folders = append(folders, rel)
		} else {
			files = append(files, rel)
		}
		return nil
	})
	return files, folders, err
}

// copyOne writes beside the target, then renames.
func copyOne(ctx context.Context, root *os.Root, from, to string) (int64, error) {
	in, err := root.OpenFile(from, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return 0, ioFailure("read", from, err)
	}
	defer in.Close()
	info, err := in.Stat()
	if err != nil || !info.Mode().IsRegular() {
		return 0, invalid("%s is not a regular file", from)
	}
	if there, err := root.Lstat(to); err == nil && there.IsDir() {
		return 0, invalid("%s is a folder", to)
	}
	if err := root.MkdirAll(path.Dir(to), 0o777); err != nil {
		return 0, ioFailure("create the folder of", to, err)
	}
	temp := path.Join(path.Dir(to), ".write-"+rand.Text())
	out, err := root.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return 0, ioFailure("write", to, err)
	}
	defer func() { _ = root.Remove(temp) }() // it is gone where all went well
	n := int64(0)
	for err == nil {
		var some int64
		some, err = io.CopyN(out, in, 4<<20)
		n += some
		if ctx.Err() != nil {
			err = ctx.Err()
		}
	}
	if errors.Is(err, io.EOF) {
		err = out.Chmod(info.Mode().Perm())
	}
	if err == nil {
		err = out.Sync()
	}
	if e := out.Close(); err == nil {
		err = e
	}
	if err == nil {
		err = root.Rename(temp, to)
	}
	switch {
	case ctx.Err() != nil:
		return 0, ended(ctx)
	case err != nil:
		return 0, ioFailure("write", to, err)
	}
	return n, syncFolder(root, path.Dir(to))
}

// Run renames.
func (m moveFile) Run(ctx context.Context, env executor.Env) (executor.Output, error) {
	root, from, to, err := openPair(env, m.Source, m.Destination)
	if err != nil {
		return executor.Output{}, err
	}
	defer root.Close()
	if ctx.Err() != nil {
		return executor.Output{}, ended(ctx)
	}
	info, err := root.Lstat(from)
	if err != nil {
		return executor.Output{}, ioFailure("move", from, err)
	}
	if there, err := root.Lstat(to); err == nil {
		switch {
		case !m.Overwrite:
			return executor.Output{}, invalid("%s is there already; overwrite: true replaces it", to)
		case there.IsDir() != info.IsDir():
			return executor.Output{}, invalid("%s and %s are not both files or both folders", from, to)
		}
	}
	if err := root.MkdirAll(path.Dir(to), 0o777); err != nil {
		return executor.Output{}, ioFailure("create the folder of", to, err)
	}
	if err := root.Rename(from, to); err != nil {
		if errors.Is(err, syscall.ENOTEMPTY) || errors.Is(err, syscall.EEXIST) {
			return executor.Output{}, invalid("the folder %s is not empty", to)
		}
		return executor.Output{}, ioFailure("move", from, err)
	}
	for _, dir := range []string{path.Dir(to), path.Dir(from)} {
		if err := syncFolder(root, dir); err != nil {
			return executor.Output{}, err
		}
	}
	return executor.Output{Value: map[string]any{"path": to}}, nil
}

// Run deletes what is below first.
func (d deleteFile) Run(ctx context.Context, env executor.Env) (executor.Output, error) {
	root, name, err := openWorkspace(env, d.Path)
	if err != nil {
		return executor.Output{}, err
	}
	defer root.Close()
	name = filepath.ToSlash(name)
	if name == "." {
		return executor.Output{}, invalid("the workspace itself cannot be deleted")
	}
	done := func(n int) (executor.Output, error) {
		return executor.Output{Value: map[string]any{"path": name, "count": int64(n)}}, nil
	}
	info, err := root.Lstat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return done(0)
	}
	if err != nil {
		return executor.Output{}, ioFailure("delete", name, err)
	}
	files, folders := []string{""}, []string{}
	if info.IsDir() {
		if files, folders, err = inFolder(ctx, root, name); err != nil {
			return executor.Output{}, err
		}
		if !d.Recursive && len(files)+len(folders) > 1 {
			return executor.Output{}, invalid("the folder %s is not empty; recursive: true deletes it with all it holds", name)
		}
	}
	for _, f := range files {
		if ctx.Err() != nil {
			return executor.Output{}, ended(ctx)
		}
		if err := remove(root, path.Join(name, f)); err != nil {
			return executor.Output{}, err
		}
	}
	for _, folder := range slices.Backward(folders) { // a folder stands before what it holds
		if err := remove(root, path.Join(name, folder)); err != nil {
			return executor.Output{}, err
		}
	}
	if err := syncFolder(root, path.Dir(name)); err != nil {
		return executor.Output{}, err
	}
	return done(len(files) + len(folders))
}

func remove(root *os.Root, name string) error {
	err := root.Remove(name)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return ioFailure("delete", name, err)
	}
	return nil
}
