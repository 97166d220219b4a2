package step

import (
	"context"
	"encoding/base64"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"pgregory.net/rapid"

	"github.com/orchestrator-project/orchestrator/pipeline"
)

const shaOfABC = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"

func TestWriteThenRead(t *testing.T) {
	env, _ := testEnv(t)
	v, err := run(t, Config{}, env, "filesystem.write", params{"path": "./a/b/../c.txt", "content": "abc"})
	if err != nil {
		t.Fatal(err)
	}
	same(t, v, params{"path": "a/c.txt", "size": 3, "sha256": shaOfABC})
	v, err = run(t, Config{}, env, "filesystem.read", params{"path": filepath.Join(env.Workspace, "a/c.txt")})
	if err != nil {
		t.Fatal(err)
	}
	same(t, v, params{"path": "a/c.txt", "size": 3, "sha256": shaOfABC, "content": "abc", "encoding": "text"})
	names, _ := filepath.Glob(filepath.Join(env.Workspace, "a", ".*"))
	if len(names) > 0 {
		t.Errorf("left behind: %v", names)
	}
}

func TestWriteReplacesAndKeepsPermissions(t *testing.T) {
	env, _ := testEnv(t)
	script(t, env, "tool", "old", 0o700)
	if _, err := run(t, Config{}, env, "filesystem.write", params{"path": "tool", "content": "new"}); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(filepath.Join(env.Workspace, "tool"))
	if err != nil || info.Mode().Perm() != 0o700 || info.Size() != 3 {
		t.Errorf("%v, %v", info, err)
	}
}

func TestContent(t *testing.T) {
	for name, c := range map[string]struct {
		write         params
		read          string
		readsAsBase64 bool
	}{
		"text":        {params{"content": "a\n"}, "a\n", false},
		"empty":       {params{"content": ""}, "", false},
		"number":      {params{"content": 5}, "5\n", false},
		"map":         {params{"content": params{"b": []any{1, 2.0}, "a": "<x>"}}, "{\n  \"a\": \"\\u003cx>\",\n  \"b\": [\n    1,\n    2.0\n  ]\n}\n", false},
		"base64":      {params{"content": base64.StdEncoding.EncodeToString([]byte{0xff, 0}), "encoding": "base64"}, "\xff\x00", true},
		"base64 text": {params{"content": "YWJj\n", "encoding": "base64"}, "abc", false},
		"zero byte":   {params{"content": "a\x00"}, "a\x00", true},
	} {
		t.Run(name, func(t *testing.T) {
			env, _ := testEnv(t)
			c.write["path"] = "f"
			if _, err := run(t, Config{}, env, "filesystem.write", c.write); err != nil {
				t.Fatal(err)
			}
			v, err := run(t, Config{}, env, "filesystem.read", params{"path": "f"})
			if err != nil {
				t.Fatal(err)
			}
			content, encoding := field(t, v, "content").(string), field(t, v, "encoding")
			if c.readsAsBase64 != (encoding == "base64") {
				t.Errorf("encoding %v", encoding)
			}
			if c.readsAsBase64 {
				b, _ := base64.StdEncoding.DecodeString(content)
				content = string(b)
			}
			if content != c.read {
				t.Errorf("content %q, want %q", content, c.read)
			}
		})
	}
}

func TestAppend(t *testing.T) {
	env, _ := testEnv(t)
	var v any
	for _, content := range []any{"a", "bc", params{"x": 1}} {
		var err error
		if v, err = run(t, Config{}, env, "filesystem.append", params{"path": "log/f", "content": content}); err != nil {
			t.Fatal(err)
		}
	}
	b, err := os.ReadFile(filepath.Join(env.Workspace, "log/f"))
	if string(b) != "abc{\"x\":1}\n" || err != nil || field(t, v, "size") != int64(len(b)) {
		t.Errorf("got %q, %v, %v", b, err, v)
	}
}

func TestNothingLeavesTheWorkspace(t *testing.T) {
	outside := t.TempDir()
	if err := os.WriteFile(filepath.Join(outside, "secret"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	env, _ := testEnv(t)
	for name, target := range map[string]string{
		"file": filepath.Join(outside, "secret"), "folder": outside, "up": "../" + filepath.Base(outside), "loop": "loop", "root": "/",
	} {
		if err := os.Symlink(target, filepath.Join(env.Workspace, name)); err != nil {
			t.Fatal(err)
		}
	}
	for _, path := range []string{
		"../secret", "..", "/etc/passwd", filepath.Join(outside, "secret"), "a/../../x", "folder/secret", "up/secret", "folder/new/deep",
		"root/etc/passwd", "loop", "loop/x", "", "a\x00b", env.Workspace + "/../x", env.Workspace + "x/y",
	} {
		for key, p := range map[string]params{
			"filesystem.read":   {"path": path},
			"filesystem.write":  {"path": path, "content": "x"},
			"filesystem.append": {"path": path, "content": "x"},
			"filesystem.list":   {"path": path},
			"load_data":         {"source": path},
		} {
			if key == "filesystem.write" && path == "loop" {
				continue // the link is replaced
			}
			if v, err := run(t, Config{}, env, key, p); err == nil {
				t.Errorf("%s %q gives %s", key, path, pipeline.EncodeValue(v))
			} else {
				failed(t, err, pipeline.CategoryValidation, "")
			}
		}
	}
	for _, key := range []string{"filesystem.read", "filesystem.append"} {
		_, err := run(t, Config{}, env, key, params{"path": "file", "content": "x"})
		if key == "filesystem.read" {
			_, err = run(t, Config{}, env, key, params{"path": "file"})
		}
		if f := failed(t, err, "validation", "file is outside the workspace"); f.Reason != reasonEscapes {
			t.Errorf("reason %q", f.Reason)
		}
	}
	if _, err := run(t, Config{}, env, "filesystem.write", params{"path": "file", "content": "mine"}); err != nil {
		t.Errorf("a link is replaced: %v", err)
	}
	entries, _ := os.ReadDir(outside)
	b, _ := os.ReadFile(filepath.Join(outside, "secret"))
	if len(entries) != 1 || string(b) != "x" {
		t.Errorf("the outside was changed: %v %q", entries, b)
	}
}

func TestLinksWithinTheWorkspaceAreFollowed(t *testing.T) {
	env, _ := testEnv(t)
	script(t, env, "real/f", "abc", 0o600)
	if err := os.Symlink("real", filepath.Join(env.Workspace, "link")); err != nil {
		t.Fatal(err)
	}
	v, err := run(t, Config{}, env, "filesystem.read", params{"path": "link/f"})
	if err != nil || field(t, v, "content") != "abc" {
		t.Errorf("got %v, %v", v, err)
	}
}

func TestFilesystemRefusals(t *testing.T) {
	env, _ := testEnv(t)
	script(t, env, "dir/f", strings.Repeat("x", 100), 0o600)
	if err := syscall.Mkfifo(filepath.Join(env.Workspace, "pipe"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		key            string
		params         params
		category, text string
	}{
		{"filesystem.read", params{"path": "nothing"}, "validation", "there is no file nothing in the workspace"},
		{"filesystem.read", params{"path": "dir"}, "validation", "dir is a folder"},
		{"filesystem.read", params{"path": "dir/f/g"}, "validation", "a file, not a folder"},
		{"filesystem.read", params{"path": "pipe"}, "validation", "not a regular file"},
		{"filesystem.read", params{"path": "dir/f", "max_bytes": 99}, "failed", "has 100 bytes; at most 99 bytes can be read"},
		{"filesystem.read", params{"path": "dir/f", "max_bytes": 0}, "validation", "max_bytes"},
		{"filesystem.write", params{"path": "dir", "content": "x"}, "validation", "dir is a folder"},
		{"filesystem.write", params{"path": ".", "content": "x"}, "validation", "is a folder"},
		{"filesystem.write", params{"path": "dir/f/g", "content": "x"}, "validation", ""},
		{"filesystem.write", params{"path": "x", "content": "?", "encoding": "base64"}, "validation", "not base64"},
		{"filesystem.write", params{"path": "x", "content": 1, "encoding": "base64"}, "validation", "it is a number"},
		{"filesystem.append", params{"path": "dir", "content": "x"}, "validation", "dir is a folder"},
		{"filesystem.append", params{"path": "pipe", "content": "x"}, "validation", "not a regular file"},
		{"filesystem.list", params{"path": "dir/f"}, "validation", "is not a folder"},
		{"filesystem.list", params{"path": "nothing"}, "validation", "there is no file nothing"},
		{"filesystem.list", params{"pattern": "[a"}, "validation", "is not a pattern"},
		{"filesystem.list", params{"pattern": "../*"}, "validation", "is not a pattern"},
		{"filesystem.list", params{"pattern": "/etc/*"}, "validation", "is not a pattern"},
		{"filesystem.list", params{"pattern": "{a,b"}, "validation", "{ without its }"},
		{"filesystem.list", params{"pattern": strings.Repeat("{a,b}", 20)}, "validation", "more than 1000 alternatives"},
		{"filesystem.list", params{"pattern": 5}, "validation", "not a number"},
		{"filesystem.list", params{"pattern": []any{5}}, "validation", "it holds a number"},
	} {
		_, err := run(t, Config{}, env, c.key, c.params)
		failed(t, err, c.category, c.text)
	}
}

func TestCancelledWriteDoesNothing(t *testing.T) {
	env, _ := testEnv(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := writeFile{Path: "f", Content: "x"}.Run(ctx, env)
	failed(t, err, pipeline.CategoryCancelled, "")
	if entries, _ := os.ReadDir(env.Workspace); len(entries) > 0 {
		t.Errorf("written: %v", entries)
	}
}

func TestList(t *testing.T) {
	env, _ := testEnv(t)
	for _, f := range []string{"a.go", "a.txt", "b/c.go", "b/d/e.go", "b/d/f.md", "b.go", ".git/config", "b/.hidden.go", "c.go/x"} {
		script(t, env, f, "12345", 0o600)
	}
	if err := os.Symlink("b", filepath.Join(env.Workspace, "link")); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		params params
		want   string
	}{
		{params{}, "a.go a.txt b.go link"},
		{params{"pattern": "*.go"}, "a.go b.go"},
		{params{"pattern": "**/*.go"}, "a.go b.go b/c.go b/d/e.go"},
		{params{"pattern": "**"}, "a.go a.txt b.go b/c.go b/d/e.go b/d/f.md c.go/x link"},
		{params{"pattern": "**/*.{md,txt}"}, "a.txt b/d/f.md"},
		{params{"pattern": "b/**/*.go"}, "b/c.go b/d/e.go"},
		{params{"pattern": "**/d/**"}, "b/d/e.go b/d/f.md"},
		{params{"pattern": []any{"a.*", "*.go"}}, "a.go a.txt b.go"},
		{params{"pattern": "[!b].go"}, "a.go"},
		{params{"pattern": "[^b].go"}, "a.go"},
		{params{"pattern": "?.go"}, "a.go b.go"},
		{params{"pattern": ".git/*"}, ".git/config"},
		{params{"pattern": "**/.*.go"}, "b/.hidden.go"},
		{params{"path": "b"}, "b/c.go"},
		{params{"path": "b", "pattern": "**/*.go"}, "b/c.go b/d/e.go"},
		{params{"path": "link", "pattern": "*.go"}, "link/c.go"},
		{params{"kind": "folder"}, "b c.go"},
		{params{"kind": "folder", "pattern": "**"}, "b b/d c.go"},
		{params{"kind": "any", "pattern": "b*"}, "b b.go"},
		{params{"pattern": "./*.txt"}, "a.txt"},
		{params{"pattern": []any{}}, ""},
	} {
		v, err := run(t, Config{}, env, "filesystem.list", c.params)
		if err != nil {
			t.Errorf("%v: %v", c.params, err)
			continue
		}
		files, _ := field(t, v, "files").([]any)
		var got []string
		for _, f := range files {
			got = append(got, f.(string))
		}
		if strings.Join(got, " ") != c.want || field(t, v, "count") != int64(len(got)) {
			t.Errorf("%v: got %v, want %s", c.params, got, c.want)
		}
	}
	v, err := run(t, Config{}, env, "filesystem.list", params{"kind": "any", "pattern": "b*"})
	if err != nil {
		t.Fatal(err)
	}
	same(t, field(t, v, "entries"), []any{
		params{"path": "b", "size": 0, "folder": true}, params{"path": "b.go", "size": 5, "folder": false},
	})
}

// The matcher that tries every split of ** is the plain meaning of a glob.
func TestGlobMeansWhatTheSimpleMatcherMeans(t *testing.T) {
	var plain func(g, parts []string) bool
	plain = func(g, parts []string) bool {
		switch {
		case len(g) == 0:
			return len(parts) == 0
		case g[0] == "**":
			return plain(g[1:], parts) || len(parts) > 0 && plain(g, parts[1:])
		case len(parts) == 0:
			return false
		}
		ok, _ := filepath.Match(g[0], parts[0])
		return ok && plain(g[1:], parts[1:])
	}
	rapid.Check(t, func(t *rapid.T) {
		g := rapid.SliceOfN(rapid.SampledFrom([]string{"**", "*", "a", "a*", "?b"}), 1, 5).Draw(t, "glob")
		parts := rapid.SliceOfN(rapid.SampledFrom([]string{"a", "b", "ab"}), 1, 6).Draw(t, "path")
		if got, want := glob(g).match(parts, false), plain(g, parts); got != want {
			t.Fatalf("%v %v: got %v", g, parts, got)
		}
		if glob(g).match(parts, false) {
			for i := 1; i < len(parts); i++ {
				if !glob(g).match(parts[:i], true) {
					t.Fatalf("%v matches %v but skips the folder %v", g, parts, parts[:i])
				}
			}
		}
	})
}
