package examples_test

import (
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/orchestrator-project/orchestrator/pipeline"
)

func TestSecretsInHeaders(t *testing.T) {
	h := open(t, "")
	run := h.see(t, "secret-headers.yaml", example{
		inputs: map[string]any{"url": echo(t)},
		want:   `{"body":"Bearer [secret API_TOKEN]","sign":"Basic","status":200}`,
	})
	if text := string(pipeline.EncodeValue(run.Outputs)); strings.Contains(text, "s3cr3t") {
		t.Error("the secret can be seen: " + text)
	}
}

func TestSeedWithoutModelSaysWhatToDo(t *testing.T) {
	h := open(t, "")
	run := h.end(t, h.submit(t, "seeds/generate-uppercase.yaml", nil))
	if run.Status != pipeline.RunFailed || run.Error == nil || !strings.Contains(run.Error.Message, "--script FILE") {
		t.Errorf("%s: %v", run.Status, run.Error)
	}
}

func TestCodeReportOnRealSource(t *testing.T) {
	h := open(t, "")
	copyTree(t, "../executor/step", filepath.Join(h.dir, "source"))
	run := h.end(t, h.submit(t, "code-report.yaml", map[string]any{"folder": "source"}))
	if run.Status != pipeline.RunCompleted {
		t.Fatalf("%s: %v", run.Status, run.Error)
	}
	files, lines, longest := 0, 0, 0
	names, err := filepath.Glob(filepath.Join(h.dir, "source", "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		n := strings.Count(string(b), "\n")
		files, lines, longest = files+1, lines+n, max(longest, n)
	}
	if run.Outputs["files"] != int64(files) || run.Outputs["lines"] != int64(lines) {
		t.Errorf("got %v files, %v lines; want %d, %d", run.Outputs["files"], run.Outputs["lines"], files, lines)
	}
	classes, _ := run.Outputs["classes"].([]any)
	sum, low := int64(0), int64(0)
	for _, c := range classes {
		m, _ := c.(map[string]any)
		n, _ := m["files"].(int64)
		if m["from"] != low {
			t.Errorf("class %v begins at %v", m, low)
		}
		low, _ = m["to"].(int64)
		low++
		sum += n
	}
	if sum != int64(files) || low <= int64(longest) {
		t.Errorf("the classes hold %d files up to %d lines; want %d, %d", sum, low, files, longest)
	}
	h.contains(t, "out/code-report.md", "### source/http.go")
	h.contains(t, "out/code-report.md", "functions: httpAction, safe, Run, ")
}

func TestHealthSweepOfALocalServer(t *testing.T) {
	var asked atomic.Int32
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/busy":
			if asked.Add(1) < 3 {
				w.WriteHeader(http.StatusServiceUnavailable)
			}
		case "/gone":
			w.WriteHeader(http.StatusNotFound)
		case "/ill":
			w.WriteHeader(http.StatusInternalServerError)
		}
	}))
	defer s.Close()
	h := open(t, "")
	run := h.end(t, h.submit(t, "health-sweep.yaml", map[string]any{"urls": []any{s.URL + "/well", s.URL + "/busy", s.URL + "/gone", s.URL + "/ill"}}))
	if run.Status != pipeline.RunCompleted {
		t.Fatalf("%s: %v", run.Status, run.Error)
	}
	want := map[string]any{
		"healthy": false, "down": []any{s.URL + "/gone", s.URL + "/ill"},
		"attempts": []any{int64(1), int64(3), int64(1), int64(3)}, "report": "out/health.md",
	}
	if diff := cmp.Diff(want, run.Outputs); diff != "" {
		t.Errorf("outputs: %s", diff)
	}
	h.contains(t, "out/health.md", "# 2 of 4 services are up")
	h.contains(t, "out/health.md", "/ill | DOWN | 3 | GET "+s.URL+"/ill answered 500")
}
