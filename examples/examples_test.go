// Package examples_test runs every pipeline of this folder.
package examples_test

import (
	"context"
	"io/fs"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/orchestrator-project/orchestrator/executor"
	"github.com/orchestrator-project/orchestrator/executor/model"
	"github.com/orchestrator-project/orchestrator/executor/model/script"
	"github.com/orchestrator-project/orchestrator/executor/step"
	"github.com/orchestrator-project/orchestrator/pipeline"
	"github.com/orchestrator-project/orchestrator/pipeline/spec"
	"github.com/orchestrator-project/orchestrator/store"
	"github.com/orchestrator-project/orchestrator/store/storetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// house is an engine with one workspace, which holds a copy of the examples and
// of some source files.
type house struct {
	*executor.Executor
	store store.Store
	dir   string
}

func open(t *testing.T, scriptFile string) *house {
	t.Helper()
	h := &house{dir: t.TempDir(), store: storetest.Open(t)}
	copyTree(t, ".", filepath.Join(h.dir, "examples"))
	copyTree(t, "../executor/step", filepath.Join(h.dir, "source"))
	var provider model.Provider
	if scriptFile != "" {
		text, err := os.ReadFile(scriptFile)
		if err != nil {
			t.Fatal(err)
		}
		if provider, err = script.Parse(scriptFile, text); err != nil {
			t.Fatal(err)
		}
	}
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	var err error
	h.Executor, err = executor.New(executor.Config{
		Store: h.store, Actions: step.All(step.Config{Model: provider, Transport: transport}), Command: step.Command(),
		Workspace: h.dir, Lanes: 1, Grace: 2 * time.Second, Logger: slog.New(slog.DiscardHandler),
		Secret: func(name string) (string, bool) { return "s3cr3t-of-the-day", name == "API_TOKEN" },
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var done sync.WaitGroup
	done.Go(func() {
		if err := h.Run(ctx); err != nil {
			t.Errorf("run: %v", err)
		}
	})
	t.Cleanup(func() { cancel(); done.Wait() })
	for h.Ready(ctx) != nil { // its lane is opened at once, unless the machine is busy
		select {
		case <-time.After(5 * time.Millisecond):
		case <-t.Context().Done():
			t.Fatal("the engine does not get ready")
		}
	}
	return h
}

func copyTree(t *testing.T, from, to string) {
	t.Helper()
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
}

// run compiles the file, submits it and waits for its end.
func (h *house) run(t *testing.T, file string, inputs map[string]any) *pipeline.Run {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	plan, notes, err := spec.Compile(spec.Source{File: file, Text: text}, h.Catalog())
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range notes.List {
		if n.Severity != pipeline.SeverityInfo {
			t.Errorf("%s:%d:%d: %s: %s", n.File, n.Line, n.Column, n.Code, n.Message)
		}
	}
	compiled, digest, err := spec.EncodePlan(plan)
	if err != nil {
		t.Fatal(err)
	}
	given, err := spec.Inputs(plan, inputs)
	if err != nil {
		t.Fatal(err)
	}
	run, err := h.Submit(ctx, pipeline.Submission{Plan: plan, PlanDigest: digest, Compiled: compiled, Source: text, Inputs: given})
	if err != nil {
		t.Fatal(err)
	}
	bells := make(chan struct{}, 1)
	var listening sync.WaitGroup
	defer listening.Wait()
	defer cancel()
	listening.Go(func() {
		_ = h.store.Listen(ctx, func(store.Bell) {
			select {
			case bells <- struct{}{}:
			default:
			}
		})
	})
	for {
		now, err := h.store.Run(ctx, run.ID)
		if err != nil {
			t.Fatalf("run %s: %v", file, err)
		}
		if now.Status.Final() {
			return now
		}
		select {
		case <-bells:
		case <-time.After(20 * time.Millisecond): // the first bell may have rung before Listen
		}
	}
}

// example is what running a file must give.
type example struct {
	script string
	inputs map[string]any
	want   string            // the outputs as JSON
	files  map[string]string // what files of the workspace must contain
}

var examples = map[string]example{
	"hello.yaml": {want: `{"greeting":"Hello, world!"}`},
	"inputs.yaml": {want: `{"result":{"last":"nothing","limit":"1m30s","line":"A title: 3 x 0.5, shallow in examples","noted":false,` +
		`"owner":"Ada is 36","product":1.5,"strict":"lenient","tags":"new+small"}}`},
	"commands.yaml": {want: `{"answer":42,"code":0,"count":0,"program":"O'Brien & sons|a  b","second":"two","shell":"O'BRIEN & SONS"}`},
	"for.yaml": {want: `{"described":"1. alpha has 5 letters; 2. beta has 4 letters; 3. gamma has 5 letters",` +
		`"loud":["ALPHA","BETA","GAMMA"],"passes":3}`},
	"for-nested.yaml":   {want: `{"products":[[10,20],[20,40],[30,60]]}`},
	"for-parallel.yaml": {want: `{"lines":[9,23],"missing":1}`},
	"while.yaml":        {want: `{"finished":true,"highest":9232,"steps":111}`},
	"if.yaml":           {want: `{"advice":"Go out."}`},
	"condition.yaml":    {want: `{"text":"not released, skipped"}`},
	"retry.yaml":        {want: `{"flaky":3,"reported":2}`},
	"on-failure.yaml":   {want: `{"report":{"fallback":"nothing came","optional":"skipped","tolerated":"failed with exit code 3"}}`},
	"finally.yaml":      {want: `{"said":"worked"}`, files: map[string]string{"work/journal.txt": "work: completed\n"}},
	"state.yaml":        {want: `{"taken":[3,9,4,1],"total":17}`},
	"order.yaml":        {want: `{"report":"9 words\nbrown"}`},
	"timeout.yaml":      {want: `{"status":"failed","why":"timeout"}`},
	"effect.yaml":       {want: `{"keyed":true,"paid":"paid","year":` + time.Now().UTC().Format("2006") + `}`},
	"secrets.yaml":      {want: `{"others":"another step sees ''","use":"the token is [secret API_TOKEN]"}`},
	"filesystem.yaml": {
		want:  `{"files":["notes/data.json","notes/today.md"],"text":"# Today\n- wrote 8 bytes\n"}`,
		files: map[string]string{"notes/data.json": "{\n  \"done\": true,\n  \"sha\": \""},
	},
	"transform.yaml": {want: `{"index":"cat, dog, ran, saw, the","lines":2}`},
	"data-analysis.yaml": { // means and deviations as published
		want: `{"deviations":[0.17366,0.46991,0.55189],"means":[1.462,4.26,5.552],"outliers":10,"report":"out/data-analysis.md","rows":150}`,
		files: map[string]string{"out/data-analysis.md": "| setosa | 50 | 1.462 | 0.174 | 1.0 | 1.5 | 1.7 | 1.9 |\n" +
			"| versicolor | 50 | 4.260 | 0.470 | 3.0 | 4.35 | 4.8 | 5.1 |\n"},
	},
	"formats.yaml": {
		want: `{"cleaned":1,"filed":"archive/2024/priced.parquet","first":[{"customer":"Ada","day":"2024-05-01","order":1,"price":2.5,"product":"P1","quantity":2},` +
			`{"customer":"Bob","day":"2024-05-01","order":2,"price":10.0,"product":"P2","quantity":1}],"matched":4,"rows":5,"violations":["/4/price"]}`,
	},
	"statistics.yaml": {
		want: `{"charts":["box","box","scatter"],"columns":["petal_length","petal_width","sepal_length","sepal_width","species=setosa",` +
			`"species=versicolor","species=virginica"],"duplicates":1,"rows":149,"strongest":"petal_length differs by species: its mean is 5.552 for ` +
			`virginica and 1.462 for setosa; one-way analysis of variance F = 1180.16, p \u003c 0.001"}`,
		files: map[string]string{"out/irises.md": "| difference | petal_length, species | 0.941372 | 2.85678e-91 |\n"},
	},
	"execute.yaml": {want: `{"squares":"1 4 9","unit":"m2"}`},
	"code-checks.yaml": {
		want: `{"functions":9,"grave":["code-injection","hard-coded-secret","shell-injection","unsafe-deserialization"],"hardest":16,"style":10}`,
	},
	"judge.yaml": {script: "judge.script.yaml", want: `{"predictions":["yes","no"],"sure":false,"then":"ask a person","word":"one"}`},
	"seeds/generate-uppercase.yaml": {
		script: "seeds/generate-uppercase.script.yaml",
		want:   `{"step1":"You said: Hello, world!","step2":"YOU SAID: HELLO, WORLD!"}`,
	},
}

func TestExamples(t *testing.T) {
	h := open(t, "")
	for file, want := range examples {
		t.Run(file, func(t *testing.T) {
			h := h
			if want.script != "" {
				h = open(t, want.script)
			}
			run := h.run(t, file, want.inputs)
			if run.Status != pipeline.RunCompleted {
				t.Fatalf("%s: %v", run.Status, run.Error)
			}
			if diff := cmp.Diff(want.want, string(pipeline.EncodeValue(run.Outputs))); diff != "" {
				t.Errorf("outputs: %s", diff)
			}
			for name, text := range want.files {
				h.contains(t, name, text)
			}
		})
	}
}

func (h *house) contains(t *testing.T, name, text string) {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(h.dir, name))
	if err != nil || !strings.Contains(string(b), text) {
		t.Errorf("%s lacks %q (%v):\n%s", name, text, err, b)
	}
}

func TestEveryExampleIsRun(t *testing.T) {
	err := fs.WalkDir(os.DirFS("."), ".", func(file string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() || filepath.Ext(file) != ".yaml" || strings.HasSuffix(file, ".script.yaml") {
			return err
		}
		_, listed := examples[file]
		if !listed && file != "code-report.yaml" && file != "health-sweep.yaml" {
			t.Errorf("%s is not run by a test", file)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestSeedWithoutModelSaysWhatToDo(t *testing.T) {
	run := open(t, "").run(t, "seeds/generate-uppercase.yaml", nil)
	if run.Status != pipeline.RunFailed || run.Error == nil || !strings.Contains(run.Error.Message, "--script FILE") {
		t.Errorf("%s: %v", run.Status, run.Error)
	}
}

func TestCodeReportOnRealSource(t *testing.T) {
	h := open(t, "")
	run := h.run(t, "code-report.yaml", map[string]any{"folder": "source"})
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
	h.contains(t, "out/code-report.md", "### source/command.go")
	h.contains(t, "out/code-report.md", "functions: Command, Run, argv, ")
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
	run := h.run(t, "health-sweep.yaml", map[string]any{"urls": []any{s.URL + "/well", s.URL + "/busy", s.URL + "/gone", s.URL + "/ill"}})
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
