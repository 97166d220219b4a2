package worker

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	api "github.com/orchestrator-project/orchestrator/proto/orchestrator/v1"
)

const (
	maxFile  = 32 << 20 // bytes of a file that goes back
	maxFiles = 1000     // that go back
	// fetchFor bounds the fetching of files, and the handing over of one.
	fetchFor = 2 * time.Minute
	// oldBundle is how long the files of a pipeline stay without being used.
	oldBundle = 24 * time.Hour
)

// clients are the servers that can be asked now, the attempt's own first.
func (a *attempt) clients() []api.WorkersClient {
	w := a.w
	w.mu.Lock()
	defer w.mu.Unlock()
	list := []api.WorkersClient{a.link.api}
	for _, l := range w.links {
		if l.up && l != a.link {
			list = append(list, l.api)
		}
	}
	return list
}

// ask tries a call on the servers until one answers.
func (a *attempt) ask(ctx context.Context, f func(ctx context.Context, c api.WorkersClient) error) error {
	ctx, cancel := context.WithTimeout(ctx, fetchFor)
	defer cancel()
	for wait := firstWait; ; wait = min(2*wait, longWait) {
		var err error
		for _, c := range a.clients() {
			if err = f(ctx, c); err == nil || final(err) {
				return err
			}
		}
		t := time.NewTimer(wait)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return fmt.Errorf("%w (%w)", err, context.Cause(ctx))
		}
	}
}

// prepare makes the working folder with the files that the attempt needs.
func (a *attempt) prepare(ctx context.Context) (*Task, error) {
	o := a.order
	broken := func(what string, err error) error {
		return &Failure{Category: "system", Message: "the worker cannot " + what + ": " + err.Error()}
	}
	sum := sha256.Sum256([]byte(o.GetToken()))
	t := &Task{
		Run: o.GetRunId(), Path: o.GetPath(), Attempt: int(o.GetAttempt()), Key: o.GetIdempotencyKey(),
		Env: map[string]string{}, Dir: filepath.Join(a.w.cfg.Dir, "attempts", hex.EncodeToString(sum[:12])), a: a,
	}
	if o.GetSandbox() != "" {
		t.Sandbox = json.RawMessage(o.GetSandbox())
	}
	dir, err := filepath.Abs(t.Dir)
	if err == nil {
		t.Dir = dir
		err = os.MkdirAll(dir, 0o700)
	}
	if err != nil {
		return nil, broken("make a working folder", err)
	}
	if err := a.fill(ctx, t); err != nil {
		removeAll(t.Dir)
		return nil, broken("fetch the files of the step", err)
	}
	parameters := o.GetParameters()
	if parameters == "" {
		parameters = "{}"
	}
	if mark := o.GetBundleMark(); mark != "" && t.Bundle != "" {
		parameters = strings.ReplaceAll(parameters, quoted(mark), quoted(t.Bundle))
		for name, v := range o.GetEnv() {
			t.Env[name] = strings.ReplaceAll(v, mark, t.Bundle)
		}
	} else {
		maps.Copy(t.Env, o.GetEnv())
	}
	t.Parameters = json.RawMessage(parameters)
	return t, nil
}

// quoted is a text as it stands within a JSON string.
func quoted(s string) string {
	b, _ := json.Marshal(s) // a string
	return string(b[1 : len(b)-1])
}

func (a *attempt) fill(ctx context.Context, t *Task) error {
	o := a.order
	if d := o.GetBundle(); d != "" {
		var err error
		if t.Bundle, err = a.w.bundles.get(ctx, a, d); err != nil {
			return err
		}
	}
	if d := o.GetUploads(); d != "" {
		files, err := a.fetch(ctx, d)
		if err != nil {
			return err
		}
		if err := writeFiles(t.Dir, files, 0o600); err != nil {
			return err
		}
	}
	for _, f := range o.GetFiles() {
		var data []byte
		err := a.ask(ctx, func(ctx context.Context, c api.WorkersClient) error {
			resp, err := c.FetchBlob(ctx, &api.FetchBlobRequest{Token: o.GetToken(), Digest: f.GetDigest()})
			data = resp.GetContent()
			return err
		})
		if err == nil {
			err = writeFiles(t.Dir, map[string][]byte{f.GetName(): data}, 0o600)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (a *attempt) fetch(ctx context.Context, digest string) (files map[string][]byte, err error) {
	err = a.ask(ctx, func(ctx context.Context, c api.WorkersClient) error {
		resp, err := c.FetchFiles(ctx, &api.FetchFilesRequest{Token: a.order.GetToken(), Digest: digest})
		files = resp.GetFiles()
		return err
	})
	return files, err
}

// writeFiles writes files below a folder and nowhere else.
func writeFiles(dir string, files map[string][]byte, mode fs.FileMode) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer func() { _ = root.Close() }()
	for name, data := range files {
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

func removeAll(dir string) {
	_ = filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			return os.Chmod(name, 0o700) //nolint:gosec // our own, to be removed
		}
		return nil
	})
	_ = os.RemoveAll(dir)
}

// bundles keeps the files that travel with pipelines, each for as long as it is
// used from time to time.
type bundles struct {
	dir string
	mu  sync.Mutex
}

var digestForm = regexp.MustCompile(`^sha256:[0-9a-f]{64}$`)

// get is the folder with the files of a bundle.
func (b *bundles) get(ctx context.Context, a *attempt, digest string) (string, error) {
	if !digestForm.MatchString(digest) {
		return "", fmt.Errorf("%q is no digest", digest)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	dir, err := filepath.Abs(filepath.Join(b.dir, strings.TrimPrefix(digest, "sha256:")))
	if err != nil {
		return "", err
	}
	if _, err := os.Stat(dir); err == nil {
		now := time.Now()
		return dir, os.Chtimes(dir, now, now)
	}
	b.sweep()
	files, err := a.fetch(ctx, digest)
	if err != nil {
		return "", err
	}
	if err := os.MkdirAll(b.dir, 0o700); err != nil {
		return "", err
	}
	tmp, err := os.MkdirTemp(b.dir, "unpacking-")
	if err != nil {
		return "", err
	}
	if err := writeFiles(tmp, files, 0o500); err != nil { // a script may be run as it stands
		removeAll(tmp)
		return "", err
	}
	if err := os.Rename(tmp, dir); err != nil {
		removeAll(tmp)
		return "", err
	}
	return dir, nil
}

// sweep removes bundles that have not been used for long.
func (b *bundles) sweep() {
	entries, err := os.ReadDir(b.dir)
	if err != nil {
		return
	}
	for _, e := range entries {
		if info, err := e.Info(); err == nil && time.Since(info.ModTime()) > oldBundle {
			removeAll(filepath.Join(b.dir, e.Name()))
		}
	}
}

// collect hands over the files that belong to the result.
func (a *attempt) collect(ctx context.Context, dir string, output json.RawMessage) ([]*api.WorkerFile, error) {
	var names []string
	add := func(name string) {
		if name = path.Clean(filepath.ToSlash(name)); !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	if len(a.order.GetCollectFields()) > 0 && len(output) > 0 {
		var v any
		if err := json.Unmarshal(output, &v); err == nil {
			for _, field := range a.order.GetCollectFields() {
				namesIn(v, strings.Split(field, "."), add)
			}
		}
	}
	if err := matching(dir, a.order.GetCollect(), add); err != nil {
		return nil, &Failure{Category: "system", Message: "the worker cannot look for the files of the result: " + err.Error()}
	}
	slices.Sort(names)
	if len(names) > maxFiles {
		return nil, &Failure{Category: "contract", Message: fmt.Sprintf("the result has %d files; at most %d go back", len(names), maxFiles)}
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, &Failure{Category: "system", Message: "the working folder is gone"}
	}
	defer func() { _ = root.Close() }()
	var list []*api.WorkerFile
	for _, name := range names {
		f, err := a.handOver(ctx, root, name)
		if err != nil {
			return nil, err
		}
		if f != nil {
			list = append(list, f)
		}
	}
	return list, nil
}

// handOver sends one file; what is no file, or is not there, is left out.
func (a *attempt) handOver(ctx context.Context, root *os.Root, name string) (*api.WorkerFile, error) {
	info, err := root.Stat(filepath.FromSlash(name))
	switch {
	case err != nil || !info.Mode().IsRegular():
		return nil, nil //nolint:nilnil,nilerr // the server says what is missing
	case info.Size() > maxFile:
		return nil, &Failure{Category: "contract", Reason: "file_too_large", Message: fmt.Sprintf("%s is larger than %d MiB, which is the most that goes back from a worker", name, maxFile>>20)}
	}
	data, err := root.ReadFile(filepath.FromSlash(name))
	if err != nil {
		return nil, &Failure{Category: "system", Message: "the worker cannot read " + name + ": " + err.Error()}
	}
	data = []byte(a.blot.text(string(data)))
	f := &api.WorkerFile{Name: name, Size: int64(len(data))}
	err = a.ask(ctx, func(ctx context.Context, c api.WorkersClient) error {
		resp, err := c.KeepBlob(ctx, &api.KeepBlobRequest{Token: a.order.GetToken(), Content: data})
		f.Digest = resp.GetDigest()
		return err
	})
	if err != nil {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		return nil, &Failure{Category: "system", Message: "the worker cannot hand over " + name + ": " + err.Error()}
	}
	return f, nil
}

// namesIn finds the texts at a place in a value; * is every item of a list.
func namesIn(v any, at []string, add func(string)) {
	if len(at) == 0 {
		if s, ok := v.(string); ok && filepath.IsLocal(filepath.FromSlash(s)) {
			add(s)
		}
		return
	}
	switch v := v.(type) {
	case map[string]any:
		namesIn(v[at[0]], at[1:], add)
	case []any:
		if at[0] == "*" {
			for _, e := range v {
				namesIn(e, at[1:], add)
			}
		}
	}
}

// matching finds the files below a folder that patterns name: * and ? stand for
// characters within a name, ** for folders.
func matching(dir string, patterns []string, add func(string)) error {
	if len(patterns) == 0 {
		return nil
	}
	return filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			return err
		}
		rel, err := filepath.Rel(dir, name)
		if err != nil || d.IsDir() {
			return err
		}
		parts := strings.Split(filepath.ToSlash(rel), "/")
		for _, p := range patterns {
			if matches(strings.Split(path.Clean(p), "/"), parts) {
				add(filepath.ToSlash(rel))
				break
			}
		}
		return nil
	})
}

func matches(pattern, parts []string) bool {
	for i, p := range pattern {
		if p == "**" {
			rest := pattern[i+1:]
			for n := range len(parts) + 1 {
				if len(rest) == 0 || matches(rest, parts[n:]) {
					return true
				}
			}
			return false
		}
		if len(parts) == 0 {
			return false
		}
		if ok, err := path.Match(p, parts[0]); err != nil || !ok {
			return false
		}
		parts = parts[1:]
	}
	return len(parts) == 0
}
