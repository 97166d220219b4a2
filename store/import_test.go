package store_test

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/orchestrator-project/orchestrator/pipeline"
	"github.com/orchestrator-project/orchestrator/store"
	"github.com/orchestrator-project/orchestrator/store/storetest"
)

type entry struct {
	name string
	data []byte
	kind byte
}

func exported(t testing.TB) []byte {
	t.Helper()
	s := storetest.Open(t)
	run := storetest.Finished(t, s, 21)
	var b bytes.Buffer
	if err := store.ExportRun(t.Context(), s, run.ID, &b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func unpack(t testing.TB, file []byte) (list []entry) {
	t.Helper()
	zr, err := zstd.NewReader(bytes.NewReader(file))
	if err != nil {
		t.Fatal(err)
	}
	defer zr.Close()
	tr := tar.NewReader(zr)
	for {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return list
		}
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(tr)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, entry{h.Name, data, tar.TypeReg})
	}
}

// pack writes the entries with a manifest that fits them.
func pack(t testing.TB, list []entry) []byte {
	t.Helper()
	last := len(list) - 1
	if last >= 0 && list[last].name == "manifest.json" {
		var m struct {
			Format int              `json:"format"`
			Run    string           `json:"run"`
			Files  []map[string]any `json:"files"`
		}
		if err := json.Unmarshal(list[last].data, &m); err != nil {
			t.Fatal(err)
		}
		m.Files = nil
		for _, e := range list[:last] {
			sum := sha256.Sum256(e.data)
			m.Files = append(m.Files, map[string]any{"name": e.name, "size": len(e.data), "sha256": hex.EncodeToString(sum[:])})
		}
		list[last].data, _ = json.Marshal(m)
	}
	var b bytes.Buffer
	zw, err := zstd.NewWriter(&b)
	if err != nil {
		t.Fatal(err)
	}
	tw := tar.NewWriter(zw)
	for _, e := range list {
		h := &tar.Header{Typeflag: e.kind, Name: e.name, Mode: 0o600, Size: int64(len(e.data))}
		if e.kind == tar.TypeSymlink {
			h.Linkname, h.Size, e.data = "/etc/passwd", 0, nil
		}
		if err := tw.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := tw.Write(e.data); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(tw.Close(), zw.Close()); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestHostileArchivesAreRefused(t *testing.T) {
	file := exported(t)
	now := time.Now()
	if _, err := store.OpenRunArchive(bytes.NewReader(pack(t, unpack(t, file))), now); err != nil {
		t.Fatalf("packed again: %v", err)
	}
	replace := func(name, from, to string) func([]entry) []entry {
		return func(list []entry) []entry {
			i := slices.IndexFunc(list, func(e entry) bool { return strings.Contains(e.name, name) })
			changed := strings.Replace(string(list[i].data), from, to, 1)
			if changed == string(list[i].data) {
				t.Fatalf("%s has no %s", name, from)
			}
			list[i].data = []byte(changed)
			return list
		}
	}
	without := func(name string) func([]entry) []entry {
		return func(list []entry) []entry {
			return slices.DeleteFunc(list, func(e entry) bool { return strings.HasPrefix(e.name, name) })
		}
	}
	with := func(e entry, at int) func([]entry) []entry {
		return func(list []entry) []entry {
			if at < 0 {
				at += len(list)
			}
			return slices.Insert(list, at, e)
		}
	}
	for name, change := range map[string]func([]entry) []entry{
		"a gap in the log":            replace("events/", `"seq":7,`, `"seq":8,`),
		"an unknown record":           replace("events/", `"type":"step_started"`, `"type":"run_code"`),
		"a record after the end":      replace("events/", `"type":"step_started"`, `"type":"run_finished"`),
		"another end":                 replace("run.json", `"status":"FAILED"`, `"status":"COMPLETED"`),
		"a run that has not finished": replace("run.json", `"status":"FAILED"`, `"status":"QUEUED"`),
		"a run of the future":         replace("run.json", `"id":"0`, `"id":"7`),
		"an unknown key":              replace("run.json", `"pipeline"`, `"pipelines"`),
		"another plan":                replace("plan.json", `"demo"`, `"evil"`),
		"another file":                replace("lib/a.yaml", "x", "y"),
		"other content":               replace("blobs/", "content", "CONTENT"),
		"an open approval":            replace("approvals", `"status":"decided"`, `"status":"open"`),
		"a stranger's text":           replace("logs/", `"stream":"stdout"`, `"stream":"elsewhere"`),
		"no log":                      without("events/"),
		"no content":                  without("blobs/"),
		"no files":                    without("files/"),
		"no end":                      without("manifest"),
		"no run":                      without("run.json"),
		"a way out":                   with(entry{"files/../../etc/passwd", []byte("x"), tar.TypeReg}, 3),
		"an absolute path":            with(entry{"/etc/passwd", []byte("x"), tar.TypeReg}, 3),
		"a link":                      with(entry{"files/a/b", nil, tar.TypeSymlink}, 3),
		"a stranger":                  with(entry{"notes.txt", []byte("x"), tar.TypeReg}, 3),
		"more content":                with(entry{"blobs/00", []byte("x"), tar.TypeReg}, -1),
		"a part out of order":         with(entry{"events/000009.jsonl", []byte("x\n"), tar.TypeReg}, 3),
		"something behind the end":    func(list []entry) []entry { return append(list, entry{"run.json", []byte("{}"), tar.TypeReg}) },
	} {
		_, err := store.OpenRunArchive(bytes.NewReader(pack(t, change(unpack(t, file)))), now)
		if e, ok := errors.AsType[*pipeline.Error](err); !ok || e.Kind != pipeline.Invalid || e.Reason != "archive_invalid" {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, n := range []int{0, 3, len(file) / 2, len(file) - 1} {
		if _, err := store.OpenRunArchive(bytes.NewReader(file[:n]), now); pipeline.KindOf(err) != pipeline.Invalid {
			t.Errorf("cut off at %d: %v", n, err)
		}
	}
	for i := 0; i < len(file); i += 7 {
		broken := slices.Clone(file)
		broken[i] ^= 0x10
		_, _ = store.OpenRunArchive(bytes.NewReader(broken), now) // it may be padding; it must not panic
	}
}

// FuzzOpenRunArchive reads what anyone may send. The parts are fuzzed apart from
// their compression, which would stop nearly every change.
func FuzzOpenRunArchive(f *testing.F) {
	list := unpack(f, exported(f))
	for i := range list {
		f.Add(i, list[i].name, list[i].data)
	}
	f.Fuzz(func(t *testing.T, at int, name string, data []byte) {
		if at < 0 || at >= len(list) || len(name) > 200 || strings.ContainsRune(name, 0) {
			return
		}
		changed := slices.Clone(list)
		changed[at] = entry{name, data, tar.TypeReg}
		a, err := store.OpenRunArchive(bytes.NewReader(pack(t, changed)), time.Now())
		if err == nil {
			if err := a.EachEvent(func(*pipeline.Event) error { return nil }); err != nil {
				t.Fatalf("what was found whole is not: %v", err)
			}
		} else if pipeline.KindOf(err) != pipeline.Invalid {
			t.Fatal(err)
		}
	})
}
