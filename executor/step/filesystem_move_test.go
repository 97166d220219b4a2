package step

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/orchestrator-project/orchestrator/executor"
	"github.com/orchestrator-project/orchestrator/pipeline"
)

func contentOf(t *testing.T, dir, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		return "-"
	}
	return string(b)
}

func TestCopyFile(t *testing.T) {
	env, _ := testEnv(t)
	script(t, env, "tool", "abc", 0o750)
	for range 2 { // it may be repeated
		v, err := run(t, Config{}, env, "filesystem.copy", params{"source": "tool", "destination": "a/b/tool2"})
		if err != nil {
			t.Fatal(err)
		}
		same(t, v, params{"path": "a/b/tool2", "count": 1, "size": 3})
	}
	info, err := os.Stat(filepath.Join(env.Workspace, "a/b/tool2"))
	if err != nil || info.Mode().Perm() != 0o750 || contentOf(t, env.Workspace, "tool") != "abc" || contentOf(t, env.Workspace, "a/b/tool2") != "abc" {
		t.Errorf("%v, %v", info, err)
	}
	_, err = run(t, Config{}, env, "filesystem.copy", params{"source": "tool", "destination": "a/b/tool2", "overwrite": false})
	failed(t, err, pipeline.CategoryValidation, "a/b/tool2 is there already")
	names, _ := filepath.Glob(filepath.Join(env.Workspace, "a/b/.*"))
	if len(names) > 0 {
		t.Errorf("left behind: %v", names)
	}
}

func TestCopyFolder(t *testing.T) {
	env, _ := testEnv(t)
	script(t, env, "src/x", "1", 0o600)
	script(t, env, "src/deep/y", "22", 0o600)
	script(t, env, "dst/z", "old", 0o600)
	if err := os.Mkdir(filepath.Join(env.Workspace, "src/empty"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("x", filepath.Join(env.Workspace, "src/link")); err != nil {
		t.Fatal(err)
	}
	v, err := run(t, Config{}, env, "filesystem.copy", params{"source": "src", "destination": "dst"})
	if err != nil {
		t.Fatal(err)
	}
	same(t, v, params{"path": "dst", "count": 3, "size": 4})
	for name, want := range map[string]string{"dst/x": "1", "dst/deep/y": "22", "dst/link": "1", "dst/z": "old", "src/x": "1"} {
		if got := contentOf(t, env.Workspace, name); got != want {
			t.Errorf("%s: %q", name, got)
		}
	}
	if info, err := os.Lstat(filepath.Join(env.Workspace, "dst/link")); err != nil || !info.Mode().IsRegular() {
		t.Errorf("the link was copied as %v, %v", info, err)
	}
	if info, err := os.Stat(filepath.Join(env.Workspace, "dst/empty")); err != nil || !info.IsDir() {
		t.Errorf("%v, %v", info, err)
	}
}

func TestMove(t *testing.T) {
	env, _ := testEnv(t)
	script(t, env, "in/task", "abc", 0o600)
	script(t, env, "old", "old", 0o600)
	v, err := run(t, Config{}, env, "filesystem.move", params{"source": "in/task", "destination": "done/x/task"})
	if err != nil {
		t.Fatal(err)
	}
	same(t, v, params{"path": "done/x/task"})
	_, err = run(t, Config{}, env, "filesystem.move", params{"source": "done/x/task", "destination": "old", "overwrite": false})
	failed(t, err, pipeline.CategoryValidation, "old is there already")
	if _, err = run(t, Config{}, env, "filesystem.move", params{"source": "done/x/task", "destination": "old"}); err != nil {
		t.Fatal(err)
	}
	if _, err = run(t, Config{}, env, "filesystem.move", params{"source": "done", "destination": "gone"}); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"old": "abc", "in/task": "-", "done/x/task": "-"} {
		if got := contentOf(t, env.Workspace, name); got != want {
			t.Errorf("%s: %q", name, got)
		}
	}
}

func TestDelete(t *testing.T) {
	env, _ := testEnv(t)
	outside := t.TempDir()
	if err := os.WriteFile(filepath.Join(outside, "keep"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	script(t, env, "dir/a", "1", 0o600)
	script(t, env, "dir/b/c", "1", 0o600)
	script(t, env, "file", "1", 0o600)
	for _, link := range []string{"dir/out", "out"} {
		if err := os.Symlink(outside, filepath.Join(env.Workspace, link)); err != nil {
			t.Fatal(err)
		}
	}
	_, err := run(t, Config{}, env, "filesystem.delete", params{"path": "dir"})
	failed(t, err, pipeline.CategoryValidation, "dir is not empty")
	for _, c := range []struct {
		path  string
		count int
	}{{"file", 1}, {"file", 0}, {"never/was", 0}, {"out", 1}, {"dir", 5}} {
		v, err := run(t, Config{}, env, "filesystem.delete", params{"path": c.path, "recursive": true})
		if err != nil {
			t.Fatal(err)
		}
		same(t, v, params{"path": c.path, "count": c.count})
	}
	if err := os.Mkdir(filepath.Join(env.Workspace, "empty"), 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := run(t, Config{}, env, "filesystem.delete", params{"path": "empty"}); err != nil {
		t.Error(err)
	}
	rest, _ := os.ReadDir(env.Workspace)
	if _, err := os.Stat(filepath.Join(outside, "keep")); err != nil || len(rest) != 0 {
		t.Errorf("%v, left %v", err, rest)
	}
}

func TestMovingNothingLeavesTheWorkspace(t *testing.T) {
	env, _ := testEnv(t)
	outside := t.TempDir()
	if err := os.WriteFile(filepath.Join(outside, "secret"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	script(t, env, "file", "abc", 0o600)
	script(t, env, "dir/f", "abc", 0o600)
	if err := syscall.Mkfifo(filepath.Join(env.Workspace, "pipe"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, target := range map[string]string{"link": filepath.Join(outside, "secret"), "folder": outside, "tree/inner": outside, "loop": "loop"} {
		path := filepath.Join(env.Workspace, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(target, path); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		key, source, destination, text string
	}{
		{"copy", "../x", "y", "outside the workspace"},
		{"copy", "file", "../y", "outside the workspace"},
		{"copy", "file", "folder/y", "outside the workspace"},
		{"copy", "link", "y", "outside the workspace"},
		{"copy", "folder", "y", "outside the workspace"},
		{"copy", "tree", "y", "outside the workspace"},
		{"copy", "loop", "y", ""},
		{"copy", "pipe", "y", "not a regular file"},
		{"copy", "nothing", "y", "there is no file nothing"},
		{"copy", "file", "./file", "are both file"},
		{"copy", "dir", "dir/in", "lies in the source"},
		{"copy", "dir/f", "dir", "lies in the destination"},
		{"copy", ".", "x", "workspace itself"},
		{"copy", "file", "dir", "dir is a folder"},
		{"copy", "", "dir", "is not a path"},
		{"move", "../x", "y", "outside the workspace"},
		{"move", "file", "/etc/y", "outside the workspace"},
		{"move", "file", "folder/y", "outside the workspace"},
		{"move", "folder/secret", "y", "outside the workspace"},
		{"move", "nothing", "y", "there is no file nothing"},
		{"move", "file", "dir", "not both files or both folders"},
		{"move", "tree", "dir", "dir is not empty"},
		{"move", "dir", "dir/in", "lies in the source"},
		{"delete", ".", "", "workspace itself"},
		{"delete", "../x", "", "outside the workspace"},
		{"delete", "folder/secret", "", "outside the workspace"},
	} {
		p := params{"source": c.source, "destination": c.destination}
		if c.key == "delete" {
			p = params{"path": c.source}
		}
		_, err := run(t, Config{}, env, "filesystem."+c.key, p)
		if err == nil {
			t.Errorf("%s %s %s: no error", c.key, c.source, c.destination)
			continue
		}
		failed(t, err, pipeline.CategoryValidation, c.text)
	}
	if got := contentOf(t, outside, "secret") + contentOf(t, env.Workspace, "file"); got != "xabc" {
		t.Errorf("something changed: %s", got)
	}
}

func TestCopyStopsWhenCancelled(t *testing.T) {
	env, _ := testEnv(t)
	script(t, env, "big", strings.Repeat("x", 1<<20), 0o600)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for _, r := range []executor.Runner{
		copyFile{Source: "big", Destination: "y", Overwrite: true}, moveFile{Source: "big", Destination: "y", Overwrite: true}, deleteFile{Path: "big"},
	} {
		_, err := r.Run(ctx, env)
		failed(t, err, pipeline.CategoryCancelled, "cancelled")
	}
	if contentOf(t, env.Workspace, "y") != "-" || len(contentOf(t, env.Workspace, "big")) != 1<<20 {
		t.Error("something was done")
	}
}
