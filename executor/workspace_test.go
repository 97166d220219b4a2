package executor_test

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/orchestrator-project/orchestrator/executor"
	"github.com/orchestrator-project/orchestrator/pipeline"
	"github.com/orchestrator-project/orchestrator/store"
	"github.com/orchestrator-project/orchestrator/store/storetest"
)

// onBothStores calls f with a store of each kind.
func onBothStores(t *testing.T, f func(t *testing.T, s store.Store)) {
	t.Helper()
	t.Run("sqlite", func(t *testing.T) { t.Parallel(); f(t, storetest.Open(t)) })
	t.Run("postgres", func(t *testing.T) { t.Parallel(); f(t, openPostgres(t, storetest.Postgres(t), 0)) })
}

// storing counts the blobs that are stored through it.
type storing struct {
	store.Store
	blobs atomic.Int32
}

func (c *storing) PutBlob(ctx context.Context, run pipeline.RunID, data []byte) (pipeline.Digest, error) {
	c.blobs.Add(1)
	return c.Store.PutBlob(ctx, run, data)
}

// saves are what was said of the run's files: those that were saved, and lost.
func (e *engine) saves(id pipeline.RunID) (saved, lost []*pipeline.Data) {
	e.t.Helper()
	for _, ev := range events(e.t.(*testing.T), e.store, id) { //nolint:forcetypeassert // in tests only
		d := ev.Data
		switch {
		case d.Workspace == nil:
		case ev.Type == pipeline.WorkspaceLost:
			lost = append(lost, &d)
		default:
			saved = append(saved, &d)
		}
	}
	return saved, lost
}

// parkedRun waits until nobody owns the run.
func (e *engine) parkedRun(id pipeline.RunID) {
	e.t.Helper()
	e.status(id, pipeline.RunWaiting)
	e.await("the run to be parked", func() bool {
		saved, _ := e.saves(id)
		return len(saved) > 0 && e.status(id, pipeline.RunWaiting) != nil
	})
}

// atGate waits until the run is parked at the n-th step that waits.
func (e *engine) atGate(id pipeline.RunID, n int) {
	e.t.Helper()
	e.await("a step that waits", func() bool {
		types := e.told(id, pipeline.StepIsWaiting, pipeline.RunIsWaiting, pipeline.RunResumed)
		waits := 0
		for _, line := range types {
			if strings.Contains(line, string(pipeline.StepIsWaiting)) {
				waits++
			}
		}
		return waits == n && strings.Contains(types[len(types)-1], string(pipeline.RunIsWaiting))
	})
}

const filesAndAGate = `
settings: {order: sequence}
steps:
- {id: make, run: 'mkdir -p sub/deep; umask 022; printf "#!/bin/sh\necho ran" > sub/deep/tool; chmod 750 sub/deep/tool; printf text > note; ln -s note alias; ln -s /etc/passwd out; ln -s ../.. up; mkfifo pipe; mkdir empty; cp note sub/copy'}
- {id: gate, wait: {signal: go}}
- {id: look, run: 'find . | sort; cat note alias sub/copy; sub/deep/tool'}
- {id: more, run: 'printf changed > note'}
- {id: again, wait: {signal: on}}
- {id: last, run: 'cat note'}
outputs: {look: '{{ look }}', last: '{{ last }}'}`

const foundFiles = ".\n./alias\n./empty\n./note\n./sub\n./sub/copy\n./sub/deep\n./sub/deep/tool\ntexttexttextran"

// What a run's directory holds when the run parks is there for the next owner,
// whose machine has never seen it, and where that is the first one again, whose
// directory is older.
func TestFilesOfAParkedRunGoWithIt(t *testing.T) {
	onBothStores(t, func(t *testing.T, s store.Store) { //nolint:thelper // the test itself
		here, there := t.TempDir(), t.TempDir()
		at := func(dir string) func(*executor.Config) {
			return func(c *executor.Config) { c.Workspaces = dir }
		}
		one := start(t, s, nil, at(here))
		id := one.submit(filesAndAGate, nil)
		one.parkedRun(id)
		one.stop()
		two := start(t, s, nil, at(there))
		two.signal(id, "go", nil)
		two.await("the second save", func() bool { saved, _ := two.saves(id); return len(saved) == 2 })
		two.stop()
		if text, err := os.ReadFile(filepath.Join(here, string(id), "note")); err != nil || string(text) != "text" {
			t.Fatalf("the first machine has %q, %v", text, err)
		}
		three := start(t, s, nil, at(here))
		three.signal(id, "on", nil)
		run, _ := three.wait(id)
		want := map[string]any{"look": foundFiles, "last": "changed"}
		if diff := cmp.Diff(want, run.Outputs); diff != "" {
			t.Errorf("%v: %s", run.Error, diff)
		}
		if _, lost := three.saves(id); len(lost) > 0 {
			t.Errorf("%+v is said to be lost", lost[0].Workspace)
		}
	})
}

// What it holds when its owner leaves goes to the next one, too.
func TestFilesOfAHandedOverRunGoWithIt(t *testing.T) {
	onBothStores(t, func(t *testing.T, s store.Store) { //nolint:thelper // the test itself
		busy := make(chan struct{}, 1)
		one := start(t, s, func(ctx context.Context, _ executor.Env, do string) (any, error) {
			busy <- struct{}{}
			<-ctx.Done()
			return nil, ctx.Err()
		}, func(c *executor.Config) { c.Grace = time.Second })
		id := one.submit(`
settings: {order: sequence}
steps:
- {id: make, run: 'echo kept > note'}
- {id: hang, action: probe}
- {id: last, run: 'cat note'}
outputs: {last: '{{ last }}'}`, nil)
		<-busy
		one.stop()
		two := start(t, s, nil)
		run, _ := two.wait(id)
		if run.Outputs["last"] != "kept" {
			t.Errorf("%s %v %v", run.Status, run.Outputs, run.Error)
		}
		saved, _ := two.saves(id)
		if len(saved) != 1 || saved[0].Workspace.Files != 1 || saved[0].Workspace.Size != 5 || saved[0].Workspace.Manifest == "" {
			t.Errorf("saved: %+v", saved)
		}
	})
}

// What is too large to be saved stays where it is. An owner elsewhere says so,
// once, and the run goes on; on its own machine it is still there.
func TestFilesThatAreTooLargeAreLostElsewhere(t *testing.T) {
	const src = `
settings: {order: sequence}
steps:
- {id: make, run: 'truncate -s 65M large; echo x > small'}
- {id: gate, wait: {signal: go}}
- {id: look, run: 'ls'}
- {id: again, wait: {signal: on}}
outputs: {look: '{{ look }}'}`
	for _, same := range []bool{true, false} {
		dir := t.TempDir()
		s := &storing{Store: storetest.Open(t)}
		one := start(t, s, nil, func(c *executor.Config) { c.Workspaces = dir })
		id := one.submit(src, nil)
		one.parkedRun(id)
		one.stop()
		if n := s.blobs.Load(); n != 0 {
			t.Errorf("%d blobs were stored", n)
		}
		two := start(t, s, nil, func(c *executor.Config) {
			if same {
				c.Workspaces = dir
			}
		})
		two.signal(id, "go", nil)
		two.atGate(id, 2)
		two.stop()
		three := start(t, s, nil, func(c *executor.Config) { c.Workspaces = dir })
		three.signal(id, "on", nil)
		run, _ := three.wait(id)
		_, lost := three.saves(id)
		if same {
			if run.Outputs["look"] != "large\nsmall" || len(lost) != 0 {
				t.Errorf("on the same machine: %v, lost %+v", run.Outputs, lost)
			}
			continue
		}
		if run.Outputs["look"] != "" || run.Status != pipeline.RunCompleted {
			t.Errorf("elsewhere: %s %v %v", run.Status, run.Outputs, run.Error)
		}
		if len(lost) != 1 || lost[0].Reason != "too_large" || lost[0].Workspace.Size != 65<<20+2 || lost[0].Workspace.Files != 2 {
			t.Errorf("elsewhere: lost %+v", lost)
		}
	}
}

// What has not changed is not stored again, and of what has, only that.
func TestUnchangedFilesAreNotSavedAgain(t *testing.T) {
	s := &storing{Store: storetest.Open(t)}
	e := start(t, s, nil)
	id := e.submit(`
settings: {order: sequence}
steps:
- {id: make, run: 'head -c 9000000 /dev/urandom > large; echo x > small; cp large twin'}
- {id: one, wait: {signal: one}}
- {id: nothing, run: 'true'}
- {id: two, wait: {signal: two}}
- {id: more, run: 'echo y > small; mv twin moved'}
- {id: three, wait: {signal: three}}`, nil)
	var counts []int32
	for i, name := range []string{"one", "two", "three"} {
		e.atGate(id, i+1)
		counts = append(counts, s.blobs.Swap(0))
		e.signal(id, name, nil)
	}
	e.wait(id)
	saved, _ := e.saves(id)
	// Three packs for 9 MB and the list; nothing; a pack and the list.
	if diff := cmp.Diff([]int32{4, 0, 2}, counts); diff != "" || len(saved) != 2 {
		t.Errorf("%d saves, blobs: %s", len(saved), diff)
	}
}

// A run that a replica takes over from one that was killed gets what was saved
// last; where what was saved cannot be read, the run is told and goes on.
func TestDamagedSavesAreTold(t *testing.T) {
	s := storetest.Open(t)
	one := start(t, s, nil)
	id := one.submit(filesAndAGate, nil)
	one.parkedRun(id)
	one.stop()
	saved, _ := one.saves(id)
	c := &tallying{Store: s, bad: func(d pipeline.Digest) bool { return d != saved[0].Workspace.Manifest }}
	two := start(t, c, nil)
	two.signal(id, "go", nil)
	run, _ := two.wait(id)
	_, lost := two.saves(id)
	if len(lost) != 1 || lost[0].Reason != "unreadable" || run.Status != pipeline.RunFailed {
		t.Errorf("%s, lost %+v", run.Status, lost)
	}
}

// No list of files, whatever it says, has anything written outside the folder.
func TestHostileListsStayInside(t *testing.T) {
	digest := func(text string) pipeline.Digest { return executor.DigestOf([]byte(text)) }
	file := func(name string) map[string]any {
		return map[string]any{"path": name, "mode": 0o644, "size": 4, "digest": digest("evil"), "parts": []any{map[string]any{"pack": 0, "size": 4}}}
	}
	link := func(name, to string) map[string]any {
		return map[string]any{"path": name, "mode": fs.ModeSymlink, "link": to}
	}
	for name, entries := range map[string][]any{
		"a path upwards":              {file("../evil")},
		"an absolute path":            {file("/tmp/evil")},
		"a path up and down":          {file("a/../../evil")},
		"no name":                     {file("")},
		"through a link":              {link("out", ".."), file("out/evil")},
		"through a link, late":        {file("out/evil"), link("out", "..")},
		"an absolute link":            {link("out", "/etc")},
		"a link upwards":              {link("a", "../..")},
		"a link by a link":            {map[string]any{"path": "p/q", "mode": fs.ModeDir | 0o755}, link("p/q/up", "../.."), link("a", "p/q/up/..")},
		"a file that names no pack":   {map[string]any{"path": "x", "mode": 0o644, "size": 4, "parts": []any{map[string]any{"pack": 7, "size": 4}}}},
		"a file beyond its pack":      {map[string]any{"path": "x", "mode": 0o644, "size": 400, "parts": []any{map[string]any{"pack": 0, "size": 400}}}},
		"a file before its pack":      {map[string]any{"path": "x", "mode": 0o644, "size": 4, "parts": []any{map[string]any{"pack": 0, "at": -2, "size": 4}}}},
		"a file of another content":   {map[string]any{"path": "x", "mode": 0o644, "size": 4, "digest": digest("else"), "parts": []any{map[string]any{"pack": 0, "size": 4}}}},
		"a size that overflows":       {map[string]any{"path": "x", "mode": 0o644, "size": int64(1) << 62, "parts": []any{map[string]any{"pack": 0, "size": int64(1) << 62}}}},
		"a device":                    {map[string]any{"path": "x", "mode": fs.ModeDevice}},
		"the folder itself as a link": {link(".", "..")},
	} {
		t.Run(name, func(t *testing.T) {
			top := t.TempDir()
			dir := filepath.Join(top, "a", "b")
			if err := os.MkdirAll(dir, 0o700); err != nil {
				t.Fatal(err)
			}
			text, err := json.Marshal(map[string]any{"packs": []string{"p"}, "entries": entries})
			if err != nil {
				t.Fatal(err)
			}
			_ = executor.RestoreFiles(text, dir, func(pipeline.Digest) ([]byte, error) { return []byte("evil"), nil })
			err = filepath.WalkDir(top, func(p string, d fs.DirEntry, err error) error {
				if err != nil {
					return err
				}
				if d.Type() == fs.ModeSymlink {
					if to, err := filepath.EvalSymlinks(p); err == nil && !strings.HasPrefix(to, dir) {
						return errors.New(p + " leads to " + to)
					}
				}
				if !d.IsDir() && !strings.HasPrefix(p, dir) {
					return errors.New(p + " was written")
				}
				return nil
			})
			if err != nil {
				t.Error(err)
			}
			if _, err := os.Stat("/tmp/evil"); err == nil {
				t.Error("/tmp/evil was written")
			}
		})
	}
}
