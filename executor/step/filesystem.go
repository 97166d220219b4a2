package step

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"syscall"
	"unicode/utf8"

	"github.com/orchestrator-project/orchestrator/executor"
	"github.com/orchestrator-project/orchestrator/pipeline"
)

const readDoc = `Reads a file of the workspace.

    - id: notes
      tool: filesystem
      action: read
      parameters: {path: notes.md}

content is the text, or base64 where the file is not text; encoding says which. A file larger than max_bytes fails the step. Nothing outside the workspace can be read, also not through symbolic links.`

const writeDoc = `Writes a file of the workspace, whole or not at all, and creates its folders.

    - id: report
      tool: filesystem
      action: write
      parameters: {path: out/report.md, content: "# {{ title }}"}

A text is written as it is, any other value as indented JSON. The new content takes the place of the old in one moment, is on the disk when the step completes, and keeps the old file's permissions; a symbolic link at path is replaced.`

const appendDoc = `Adds to the end of a file of the workspace, and creates it and its folders where needed.

    - id: journal
      tool: filesystem
      action: append
      parameters: {path: out/journal.txt, content: "{{ line }}\n"}

A text is added as it is, any other value as one line of JSON. After a crash the content may stand there twice.`

const listDoc = `Lists files of the workspace by a pattern.

    - id: sources
      tool: filesystem
      action: list
      parameters: {path: src, pattern: "**/*.{go,md}"}

In a pattern * and ? stand for characters of one name, [a-z] for one of them, {a,b} for alternatives, and ** for any number of folders. Names that begin with a dot are found only by a pattern that spells the dot. Symbolic links to folders are not followed. files is sorted and relative to the workspace.`

// maxEntries bounds what a listing may look at.
const maxEntries = 200_000

type readFile struct {
	Path     string `param:"required" doc:"relative to the workspace"`
	MaxBytes int64  `default:"8388608" doc:"refuse a larger file; at most 12582912"`
}

type writeFile struct {
	Path     string `param:"required" doc:"relative to the workspace"`
	Content  any    `param:"required" doc:"a text, or a value to write as JSON"`
	Encoding string `default:"\"text\"" enum:"text,base64" doc:"how content is to be understood"`
}

type appendFile struct {
	Path     string `param:"required" doc:"relative to the workspace"`
	Content  any    `param:"required" doc:"a text, or a value to write as JSON"`
	Encoding string `default:"\"text\"" enum:"text,base64" doc:"how content is to be understood"`
}

type listFiles struct {
	Path    string `default:"\".\"" doc:"the folder to look in"`
	Pattern any    `default:"\"*\"" doc:"a pattern or a list of them, relative to path"`
	Kind    string `default:"\"file\"" enum:"file,folder,any" doc:"what to list"`
}

type readResult struct {
	Path     string `doc:"relative to the workspace"`
	Content  string `doc:"the text, or base64"`
	Encoding string `doc:"text or base64"`
	Size     int64  `doc:"in bytes"`
	Sha256   string `param:"sha256" doc:"of the bytes, in hexadecimal"`
}

type writeResult struct {
	Path   string `doc:"relative to the workspace"`
	Size   int64  `doc:"of the whole file, in bytes"`
	Sha256 string `param:"sha256" doc:"of the whole file, in hexadecimal"`
}

type listResult struct {
	Files   []string `doc:"the paths, sorted, relative to the workspace"`
	Entries []any    `doc:"the same as maps: path, size in bytes, folder"`
	Count   int64    `doc:"how many"`
}

// filesystemAction describes one operation of the tool filesystem.
func filesystemAction[T executor.Runner]() executor.Action {
	d := executor.Describe{Tool: "filesystem", Effect: pipeline.EffectIdempotent, Workspace: true}
	var zero T
	switch any(zero).(type) {
	case readFile:
		d.Name, d.Doc, d.Returns = "read", readDoc, readResult{}
	case writeFile:
		d.Name, d.Doc, d.Returns = "write", writeDoc, writeResult{}
	case appendFile:
		d.Name, d.Doc, d.Returns, d.Effect = "append", appendDoc, writeResult{}, pipeline.EffectAtLeastOnce
	case listFiles:
		d.Name, d.Doc, d.Returns = "list", listDoc, listResult{}
	}
	return executor.NewAction[T](d)
}

// openWorkspace opens the workspace as a root that nothing leaves, and gives
// the path relative to it.
func openWorkspace(env executor.Env, name string) (*os.Root, string, error) {
	rel, err := inWorkspace(env, name)
	if err != nil {
		return nil, "", err
	}
	root, err := os.OpenRoot(env.Workspace)
	if err != nil {
		return nil, "", pipeline.Failuref(pipeline.CategorySystem, "open the run's workspace: %v", cause(err))
	}
	return root, rel, nil
}

// inWorkspace makes a path relative to the workspace, by its letters alone.
func inWorkspace(env executor.Env, name string) (string, error) {
	if name == "" || strings.ContainsRune(name, 0) {
		return "", invalid("%q is not a path", name)
	}
	rel := filepath.Clean(name)
	if filepath.IsAbs(rel) {
		var err error
		if rel, err = filepath.Rel(env.Workspace, rel); err != nil {
			return "", escapes(name)
		}
	}
	if !filepath.IsLocal(rel) {
		return "", escapes(name)
	}
	return rel, nil
}

func escapes(name string) error {
	f := invalid("%s is outside the workspace", name)
	f.Reason = reasonEscapes
	return f
}

// cause is an I/O error without the path that the message names already.
func cause(err error) error {
	if p, ok := errors.AsType[*fs.PathError](err); ok {
		return p.Err
	}
	if l, ok := errors.AsType[*os.LinkError](err); ok {
		return l.Err
	}
	return err
}

// ioFailure tells what went wrong with a file.
func ioFailure(doing, name string, err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		f := invalid("there is no file %s in the workspace", name)
		f.Reason = "not_found"
		return f
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT), errors.Is(err, syscall.EMFILE), errors.Is(err, syscall.ENFILE):
		return pipeline.Failuref(pipeline.CategoryResource, "%s %s: %v", doing, name, cause(err))
	case errors.Is(err, syscall.EISDIR):
		return invalid("%s is a folder", name)
	case errors.Is(err, syscall.ENOTDIR):
		return invalid("%s %s: a part of the path is a file, not a folder", doing, name)
	case errors.Is(err, syscall.EIO):
		return pipeline.Failuref(pipeline.CategorySystem, "%s %s: %v", doing, name, cause(err))
	case strings.Contains(err.Error(), "path escapes"): // os.Root has no error value for it
		return escapes(name)
	}
	return invalid("%s %s: %v", doing, name, cause(err))
}

// readRegular reads a regular file of at most limit bytes. It cannot hang on a
// pipe or device that lies in the workspace.
func readRegular(root *os.Root, name string, limit int64) ([]byte, error) {
	f, err := root.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, ioFailure("read", name, err)
	}
	defer f.Close()
	info, err := f.Stat()
	switch {
	case err != nil:
		return nil, ioFailure("read", name, err)
	case info.IsDir():
		return nil, invalid("%s is a folder; list shows what is in it", name)
	case !info.Mode().IsRegular():
		return nil, invalid("%s is not a regular file", name)
	}
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	switch {
	case err != nil:
		return nil, ioFailure("read", name, err)
	case int64(len(b)) > limit:
		return nil, tooLarge("%s has %d bytes; at most %s can be read", name, max(info.Size(), limit+1), size(limit))
	}
	return b, nil
}

// Run gives content and digest.
func (r readFile) Run(_ context.Context, env executor.Env) (executor.Output, error) {
	const most = 12 << 20 // its base64 fits a value
	if r.MaxBytes <= 0 || r.MaxBytes > most {
		return executor.Output{}, invalid("parameter max_bytes is %d; it can be 1 to %d", r.MaxBytes, most)
	}
	root, name, err := openWorkspace(env, r.Path)
	if err != nil {
		return executor.Output{}, err
	}
	defer root.Close()
	b, err := readRegular(root, name, r.MaxBytes)
	if err != nil {
		return executor.Output{}, err
	}
	content, encoding := textOrBase64(b)
	sum := sha256.Sum256(b)
	return executor.Output{Value: map[string]any{
		"path": filepath.ToSlash(name), "content": content, "encoding": encoding,
		"size": int64(len(b)), "sha256": hex.EncodeToString(sum[:]),
	}}, nil
}

// textOrBase64 shows bytes as a text if they are one.
func textOrBase64(b []byte) (content, encoding string) {
	if utf8.Valid(b) && bytes.IndexByte(b, 0) < 0 {
		return string(b), "text"
	}
	return base64.StdEncoding.EncodeToString(b), "base64"
}

// contentBytes is what a write or append puts into the file.
func contentBytes(v any, encoding string, indent bool) ([]byte, error) {
	s, isText := v.(string)
	switch {
	case encoding == "base64":
		if !isText {
			return nil, invalid("parameter content must be a text in base64; it is %s", kindOf(v))
		}
		b, err := base64.StdEncoding.DecodeString(strings.TrimSpace(s))
		if err != nil {
			return nil, invalid("parameter content is not base64: %v", err)
		}
		return b, nil
	case isText:
		return []byte(s), nil
	case indent:
		var b bytes.Buffer
		if err := json.Indent(&b, pipeline.EncodeValue(v), "", "  "); err != nil {
			return nil, fmt.Errorf("indent JSON: %w", err)
		}
		b.WriteByte('\n')
		return b.Bytes(), nil
	}
	return append(pipeline.EncodeValue(v), '\n'), nil
}

// Run writes beside the file, then renames.
func (w writeFile) Run(ctx context.Context, env executor.Env) (executor.Output, error) {
	b, err := contentBytes(w.Content, w.Encoding, true)
	if err != nil {
		return executor.Output{}, err
	}
	root, name, err := openWorkspace(env, w.Path)
	if err != nil {
		return executor.Output{}, err
	}
	defer root.Close()
	if ctx.Err() != nil {
		return executor.Output{}, ended(ctx)
	}
	if err := replace(root, name, b); err != nil {
		return executor.Output{}, err
	}
	sum := sha256.Sum256(b)
	return executor.Output{Value: map[string]any{
		"path": filepath.ToSlash(name), "size": int64(len(b)), "sha256": hex.EncodeToString(sum[:]),
	}}, nil
}

// replace puts b in the place of a file in one moment, durably.
func replace(root *os.Root, name string, b []byte) (err error) {
	perm := fs.FileMode(0)
	switch info, err := root.Lstat(name); {
	case err != nil: // reported by what follows, unless it is just new
	case info.IsDir():
		return invalid("%s is a folder", name)
	case info.Mode().IsRegular():
		perm = info.Mode().Perm()
	}
	dir := filepath.Dir(name)
	if err := root.MkdirAll(dir, 0o777); err != nil {
		return ioFailure("create the folder of", name, err)
	}
	temp := filepath.Join(dir, ".write-"+rand.Text())
	f, err := root.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
	if err != nil {
		return ioFailure("write", name, err)
	}
	defer func() {
		if err != nil {
			_ = root.Remove(temp)
		}
	}()
	_, err = f.Write(b)
	if err == nil && perm != 0 {
		err = f.Chmod(perm)
	}
	if err == nil {
		err = f.Sync()
	}
	if e := f.Close(); err == nil {
		err = e
	}
	if err == nil {
		err = root.Rename(temp, name)
	}
	if err != nil {
		return ioFailure("write", name, err)
	}
	return syncFolder(root, dir)
}

// syncFolder makes a new name in the folder survive a power cut.
func syncFolder(root *os.Root, dir string) error {
	d, err := root.Open(dir)
	if err != nil {
		return ioFailure("open", dir, err)
	}
	defer d.Close()
	if err := d.Sync(); err != nil && !errors.Is(err, syscall.EINVAL) { // not every file system can
		return ioFailure("write", dir, err)
	}
	return nil
}

// Run opens for append, writes once and syncs.
func (a appendFile) Run(ctx context.Context, env executor.Env) (executor.Output, error) {
	b, err := contentBytes(a.Content, a.Encoding, false)
	if err != nil {
		return executor.Output{}, err
	}
	root, name, err := openWorkspace(env, a.Path)
	if err != nil {
		return executor.Output{}, err
	}
	defer root.Close()
	if ctx.Err() != nil {
		return executor.Output{}, ended(ctx)
	}
	if err := root.MkdirAll(filepath.Dir(name), 0o777); err != nil {
		return executor.Output{}, ioFailure("create the folder of", name, err)
	}
	f, err := root.OpenFile(name, os.O_RDWR|os.O_APPEND|os.O_CREATE|syscall.O_NONBLOCK, 0o666)
	if err != nil {
		return executor.Output{}, ioFailure("append to", name, err)
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		return executor.Output{}, invalid("%s is not a regular file", name)
	}
	if _, err := f.Write(b); err != nil {
		return executor.Output{}, ioFailure("append to", name, err)
	}
	if err := f.Sync(); err != nil {
		return executor.Output{}, ioFailure("append to", name, err)
	}
	h := sha256.New()
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return executor.Output{}, ioFailure("read", name, err)
	}
	n, err := io.Copy(h, f)
	if err != nil {
		return executor.Output{}, ioFailure("read", name, err)
	}
	return executor.Output{Value: map[string]any{
		"path": filepath.ToSlash(name), "size": n, "sha256": hex.EncodeToString(h.Sum(nil)),
	}}, nil
}

// Run walks the folder in sorted order.
func (l listFiles) Run(ctx context.Context, env executor.Env) (executor.Output, error) {
	g, err := compileGlobs(l.Pattern)
	if err != nil {
		return executor.Output{}, err
	}
	root, base, err := openWorkspace(env, l.Path)
	if err != nil {
		return executor.Output{}, err
	}
	defer root.Close()
	base = filepath.ToSlash(base)
	seen := 0
	var entries []any
	err = fs.WalkDir(root.FS(), base, func(name string, e fs.DirEntry, err error) error {
		switch {
		case ctx.Err() != nil:
			return ended(ctx)
		case err != nil && name == base:
			return err
		case err != nil: // it vanished, or may not be read: it is not listed
			return nil //nolint:nilerr // what cannot be read is left out, on purpose
		case name == base:
			if !e.IsDir() {
				return invalid("%s is not a folder", name)
			}
			return nil
		}
		if seen++; seen > maxEntries {
			return tooLarge("%s holds more than %d files; list a folder of it", base, maxEntries)
		}
		rel := name
		if base != "." {
			rel = strings.TrimPrefix(name, base+"/")
		}
		if fits := l.Kind == "any" || (l.Kind == "folder") == e.IsDir(); fits && g.match(rel) {
			entries = append(entries, entry(root, name, e))
		}
		if e.IsDir() && !g.below(rel) {
			return fs.SkipDir
		}
		return nil
	})
	if err != nil {
		if f, ok := errors.AsType[*pipeline.Failure](err); ok {
			return executor.Output{}, f
		}
		return executor.Output{}, ioFailure("list", base, err)
	}
	return listing(entries), nil
}

func entry(root *os.Root, name string, e fs.DirEntry) map[string]any {
	m := map[string]any{"path": path.Clean(name), "size": int64(0), "folder": e.IsDir()}
	if info, err := root.Stat(name); err == nil && info.Mode().IsRegular() {
		m["size"] = info.Size()
	}
	return m
}

// listing sorts by path: a walk goes by folder, where a.txt comes after a/b.
func listing(entries []any) executor.Output {
	sortEntries(entries)
	files := make([]any, len(entries))
	for i, e := range entries {
		if m, ok := e.(map[string]any); ok {
			files[i] = m["path"]
		}
	}
	if entries == nil {
		entries = []any{}
	}
	return executor.Output{Value: map[string]any{"files": files, "entries": entries, "count": int64(len(files))}}
}
