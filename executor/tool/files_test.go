package tool_test

import (
	"bytes"
	"image"
	"image/png"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/orchestrator-project/orchestrator/executor"
	"github.com/orchestrator-project/orchestrator/executor/tool"
	"github.com/orchestrator-project/orchestrator/pipeline"
)

func write(t *testing.T, env executor.Env, name, content string) {
	t.Helper()
	name = filepath.Join(env.Workspace, name)
	if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestFilesystemIsASetOfTools(t *testing.T) {
	env := environment(t)
	box := open(t, config(&blobs{}), env, want(pipeline.Tool{Name: "filesystem"}))
	const all = "filesystem_read filesystem_write filesystem_append filesystem_list filesystem_copy filesystem_move filesystem_delete filesystem_edit filesystem_search read_result"
	if got := names(box.Tools()); got != all {
		t.Errorf("the tools are %s", got)
	}
	for _, c := range []struct{ tool, arguments, want string }{
		{"filesystem_write", `{"path": "a/b.txt", "content": "one\ntwo\n"}`, "a/b.txt"},
		{"filesystem_read", `{"path": "a/b.txt"}`, "one\ntwo\n"},
		{"filesystem_append", `{"path": "a/b.txt", "content": "three\n"}`, "a/b.txt"},
		{"filesystem_edit", `{"path": "a/b.txt", "old": "two", "new": "2"}`, "Replaced 1 times in a/b.txt."},
		{"filesystem_search", `{"pattern": "^t"}`, "a/b.txt:3: three\n"},
		{"filesystem_search", `{"pattern": "^t", "name": "*.go"}`, "No line matches."},
		{"filesystem_copy", `{"source": "a", "destination": "c"}`, `"path":"c"`},
		{"filesystem_move", `{"source": "c/b.txt", "destination": "d.txt"}`, "d.txt"},
		{"filesystem_read", `{"path": "d.txt"}`, "one\n2\nthree\n"},
		{"filesystem_delete", `{"path": "d.txt"}`, `"count":1`},
		{"filesystem_list", `{"pattern": "**"}`, `"files":["a/b.txt"]`},
	} {
		if got, r := call(t, box, env, c.tool, c.arguments); !strings.Contains(got, c.want) || r.Failed {
			t.Errorf("%s %s gave %s", c.tool, c.arguments, got)
		}
	}
}

func TestNoFileToolLeavesTheWorkspace(t *testing.T) {
	env := environment(t)
	outside := filepath.Join(t.TempDir(), "secret.txt")
	if err := os.WriteFile(outside, []byte("outside"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(outside, filepath.Join(env.Workspace, "link")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(filepath.Dir(outside), filepath.Join(env.Workspace, "folder")); err != nil {
		t.Fatal(err)
	}
	box := open(t, config(&blobs{}), env, want(pipeline.Tool{Name: "filesystem"}))
	for _, path := range []string{outside, "../x", "link", "folder/secret.txt", "a/../../x", "/etc/passwd", ""} {
		for _, c := range []struct{ tool, arguments string }{
			{"filesystem_read", `{"path": PATH}`},
			{"filesystem_edit", `{"path": PATH, "old": "outside", "new": "inside"}`},
			{"filesystem_search", `{"path": PATH, "pattern": "outside"}`},
			{"filesystem_append", `{"path": PATH, "content": "more"}`},
		} {
			if path == "" && c.tool == "filesystem_search" {
				continue // it means the workspace
			}
			got, r := call(t, box, env, c.tool, strings.Replace(c.arguments, "PATH", string(pipeline.EncodeValue(path)), 1))
			if strings.Contains(got, "outside\n") || !r.Failed && got != "No line matches." {
				t.Errorf("%s of %q gave %s", c.tool, path, got)
			}
		}
	}
	if got, _ := call(t, box, env, "filesystem_search", `{"pattern": "outside"}`); got != "No line matches." {
		t.Errorf("a search followed a link: %s", got)
	}
	if text, err := os.ReadFile(outside); err != nil || string(text) != "outside" {
		t.Errorf("what lies outside is %q, %v", text, err)
	}
}

func TestEditChangesOnePlaceOrSaysWhy(t *testing.T) {
	for _, c := range []struct {
		name, file, arguments string
		again                 bool
		want, left            string
		failed                bool
	}{
		{"once", "a b c", `{"path": "f", "old": "b", "new": "x"}`, false, "Replaced 1 times", "a x c", false},
		{"nothing", "a b c", `{"path": "f", "old": "z", "new": "x"}`, false, "does not stand in f", "a b c", true},
		{"twice", "b\nb\n", `{"path": "f", "old": "b", "new": "x"}`, false, "stands 2 times in f, in the lines 1, 2", "b\nb\n", true},
		{"all", "b\nb\n", `{"path": "f", "old": "b", "new": "x", "all": true}`, false, "Replaced 2 times", "x\nx\n", false},
		{"same", "b", `{"path": "f", "old": "b", "new": "b"}`, false, "the same", "b", true},
		{"done before a crash", "a x c", `{"path": "f", "old": "b", "new": "x"}`, true, "earlier attempt", "a x c", false},
		{"maybe done before a crash", "a bb c", `{"path": "f", "old": "b", "new": "bb"}`, true, "read the file", "a bb c", true},
		{"no file", "", `{"path": "other", "old": "b", "new": "x"}`, false, "there is no file other", "", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			env := environment(t)
			write(t, env, "f", c.file)
			box := open(t, config(&blobs{}), env, want(pipeline.Tool{Name: "filesystem"}))
			got, r := call(t, box, env, "filesystem_edit", c.arguments, func(x *tool.Call) { x.Again = c.again })
			if !strings.Contains(got, c.want) || r.Failed != c.failed {
				t.Errorf("gave %q, failed: %v", got, r.Failed)
			}
			if left, err := os.ReadFile(filepath.Join(env.Workspace, "f")); err != nil || string(left) != c.left {
				t.Errorf("left %q, %v", left, err)
			}
		})
	}
}

func TestReadShowsPicturesAndRefusesOtherBytes(t *testing.T) {
	env := environment(t)
	var picture bytes.Buffer
	if err := png.Encode(&picture, image.NewGray(image.Rect(0, 0, 4, 4))); err != nil {
		t.Fatal(err)
	}
	write(t, env, "p.png", picture.String())
	write(t, env, "blob.bin", "\x00\x01\x02\xff\xfe"+strings.Repeat("\x00", 1000))
	write(t, env, "large.png", picture.String()+strings.Repeat("\x00", 6<<20))
	kept := &blobs{}
	box := open(t, config(kept), env, want(pipeline.Tool{Name: "filesystem"}))
	_, r := call(t, box, env, "filesystem_read", `{"path": "p.png"}`)
	if m := r.Content[0].Media; m == nil || m.Type != "image/png" || m.Blob == "" || !bytes.Equal(m.Data, picture.Bytes()) {
		t.Errorf("a picture gave %+v", r.Content)
	}
	for _, name := range []string{"blob.bin", "large.png"} {
		if got, r := call(t, box, env, "filesystem_read", `{"path": "`+name+`"}`); !strings.Contains(got, "is not shown") || r.Content[0].Media != nil {
			t.Errorf("%s gave %s", name, got)
		}
	}
}
