// Package examples_test runs every pipeline of this folder.
package examples_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/orchestrator-project/orchestrator/executor"
	"github.com/orchestrator-project/orchestrator/executor/agent"
	"github.com/orchestrator-project/orchestrator/executor/model"
	"github.com/orchestrator-project/orchestrator/executor/model/script"
	"github.com/orchestrator-project/orchestrator/executor/sandbox"
	"github.com/orchestrator-project/orchestrator/executor/sandbox/process"
	"github.com/orchestrator-project/orchestrator/executor/skill"
	"github.com/orchestrator-project/orchestrator/executor/step"
	"github.com/orchestrator-project/orchestrator/executor/tool"
	"github.com/orchestrator-project/orchestrator/executor/tool/mcp"
	"github.com/orchestrator-project/orchestrator/pipeline"
	"github.com/orchestrator-project/orchestrator/pipeline/spec"
	"github.com/orchestrator-project/orchestrator/store"
	"github.com/orchestrator-project/orchestrator/store/storetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// house is an engine with one workspace.
type house struct {
	*executor.Executor
	store  store.Store
	dir    string // the workspace
	models bool
	fills  bool // the model fills in <AUTO> tags, in place of the answers beside the file
}

// open starts an engine over an empty workspace. A script stands in for models.
func open(t *testing.T, scriptFile string) *house {
	t.Helper()
	h := &house{dir: t.TempDir(), store: storetest.Open(t), models: scriptFile != ""}
	var models model.Caller
	if h.models {
		text, err := os.ReadFile(scriptFile)
		if err != nil {
			t.Fatal(err)
		}
		provider, err := script.Parse(scriptFile, text)
		if err != nil {
			t.Fatal(err)
		}
		models = model.NewRouter(model.Config{
			Scripted: provider, Logger: slog.New(slog.DiscardHandler),
			Open: func(model.Endpoint) (model.Provider, error) { return nil, errors.New("the tests have no network") },
		})
	}
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	// Where the machine allows no sandbox, its configuration may say so.
	boxes := &sandbox.Set{Drivers: []sandbox.Driver{&process.Driver{}, sandbox.Host{}}}
	steps := step.Config{Model: models, Transport: transport, Sandbox: boxes}
	actions := step.All(steps)
	servers := mcp.NewPool(mcp.Config{Sandbox: boxes, Version: "test", Logger: slog.New(slog.DiscardHandler)})
	t.Cleanup(servers.Close)
	tools := tool.New(tool.Config{Actions: actions, Servers: servers, Sandbox: boxes, Results: h.store})
	var filler executor.Filler
	if h.models {
		filler = model.Auto{Models: models}
	}
	bundles := t.TempDir()
	t.Cleanup(func() { unseal(t, bundles) })
	var err error
	h.Executor, err = executor.New(executor.Config{
		Store: h.store, Actions: actions, Command: step.Command(steps), Agent: agent.New(agent.Config{Models: models, Tools: tools}), Filler: filler,
		Remote: servers.Action, Left: servers.Leave,
		Workspace: h.dir, Bundles: bundles, Lanes: 1, Grace: 2 * time.Second, Logger: slog.New(slog.DiscardHandler),
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

// unseal lets a folder be removed that was unpacked for reading only.
func unseal(t *testing.T, dir string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			err = os.Chmod(path, 0o700)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

func copyTree(t *testing.T, from, to string) {
	t.Helper()
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, file string) []byte {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// pack collects the files that travel with a pipeline.
func pack(t *testing.T, file string) pipeline.Bundle {
	t.Helper()
	bundle := pipeline.Bundle{}
	folder := os.DirFS(filepath.Dir(file))
	add := func(pattern string) {
		names, err := fs.Glob(folder, pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range names {
			if bundle[name], err = fs.ReadFile(folder, name); err != nil {
				t.Fatal(err)
			}
		}
	}
	var follow func(dir string, source []byte)
	follow = func(dir string, source []byte) {
		for _, need := range spec.Needs(source) {
			name := filepath.Join(dir, need.Name)
			switch need.Kind {
			case spec.NeedSkill:
				add("skills/" + need.Name + "/*")
				if bundle["skills/"+need.Name+"/SKILL.md"] != nil {
					continue
				}
				files, err := skill.Library{}.Files(need.Name)
				if err != nil {
					t.Fatal(err)
				}
				for name, data := range files {
					bundle["skills/"+name] = data
				}
			case spec.NeedImport:
				add(name)
				follow(filepath.Dir(name), bundle[name])
			default:
				add(name)
			}
		}
	}
	follow("", read(t, file))
	return bundle
}

// compile compiles a file with what travels with it.
func (h *house) compile(t *testing.T, file string) (*pipeline.Plan, *pipeline.Diagnostics, pipeline.Bundle) {
	t.Helper()
	bundle := pack(t, file)
	plan, notes, err := spec.Compile(spec.Source{File: file, Text: read(t, file), Files: bundle}, h.Catalog())
	if err != nil {
		var text strings.Builder
		spec.Format(&text, notes, false)
		t.Fatal(text.String())
	}
	return plan, notes, bundle
}

// beside reads a file with inputs or answers that stands beside a pipeline, if
// there is one.
func beside[T any](t *testing.T, file, kind string, parse func([]byte) (T, error)) T {
	t.Helper()
	var v T
	text, err := os.ReadFile(companion(file, kind))
	if errors.Is(err, fs.ErrNotExist) {
		return v
	}
	if err == nil {
		v, err = parse(text)
	}
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// companion is the file of a kind beside a pipeline's.
func companion(file, kind string) string {
	return strings.TrimSuffix(file, ".yaml") + "." + kind + ".yaml"
}

// submit starts a run of the file. Inputs are added to those of the file beside it.
func (h *house) submit(t *testing.T, file string, inputs map[string]any) pipeline.RunID {
	t.Helper()
	plan, _, bundle := h.compile(t, file)
	compiled, digest, err := spec.EncodePlan(plan)
	if err != nil {
		t.Fatal(err)
	}
	if inputs == nil {
		inputs = beside(t, file, "inputs", spec.ReadInputs)
	}
	given, err := spec.Inputs(plan, inputs)
	if err != nil {
		t.Fatal(err)
	}
	var known map[string]any
	if !h.fills {
		known = beside(t, file, "answers", func(text []byte) (map[string]any, error) {
			return spec.ParseAnswers(companion(file, "answers"), text)
		})
	}
	answers, unused, err := spec.CheckAnswers(plan, known)
	if err != nil || unused != nil {
		t.Fatalf("answers that nobody asks for: %v, or wrong ones: %v", unused, err)
	}
	if !h.models {
		if err := spec.MissingAnswers(plan, answers); err != nil {
			t.Fatal(err)
		}
	}
	run, err := h.Submit(t.Context(), pipeline.Submission{
		Plan: plan, PlanDigest: digest, Compiled: compiled, Source: read(t, file), Inputs: given, Answers: answers, Bundle: bundle,
	})
	if err != nil {
		t.Fatal(err)
	}
	return run.ID
}

// await asks until there is an answer, at most five minutes.
func await[T any](t *testing.T, what string, ask func(ctx context.Context) (T, bool, error)) T {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	for {
		v, ok, err := ask(ctx)
		switch {
		case err != nil:
			t.Fatalf("waiting for %s: %v", what, err)
		case ok:
			return v
		}
		select {
		case <-time.After(10 * time.Millisecond):
		case <-ctx.Done():
			t.Fatalf("%s does not come", what)
		}
	}
}

// end waits for the end of a run.
func (h *house) end(t *testing.T, id pipeline.RunID) *pipeline.Run {
	t.Helper()
	return await(t, fmt.Sprintf("the end of run %s", id), func(ctx context.Context) (*pipeline.Run, bool, error) {
		run, err := h.store.Run(ctx, id)
		return run, err == nil && run.Status.Final(), err
	})
}

// signal sends a signal to a run.
func signal(name string, data any) func(*testing.T, *house, pipeline.RunID) {
	return func(t *testing.T, h *house, id pipeline.RunID) {
		t.Helper()
		body := pipeline.EncodeValue(map[string]any{"name": name, "data": data})
		if err := h.store.Send(t.Context(), id, store.Message{Kind: store.MessageSignal, Actor: "ann", Body: body}); err != nil {
			t.Fatal(err)
		}
	}
}

// say decides what the run asks, each time by the person named.
func say(decision string, value any, people ...string) func(*testing.T, *house, pipeline.RunID) {
	return func(t *testing.T, h *house, id pipeline.RunID) {
		t.Helper()
		a := await(t, "a question", func(ctx context.Context) (*pipeline.Approval, bool, error) {
			page, err := h.store.Approvals(ctx, store.ApprovalQuery{Run: id, Status: pipeline.ApprovalOpen, Limit: 1})
			if err != nil || len(page.Approvals) == 0 {
				return nil, false, err
			}
			return page.Approvals[0], true, nil
		})
		for _, who := range people {
			if _, err := h.store.Decide(t.Context(), a.ID, pipeline.Decision{Decision: decision, Value: value, Actor: who}); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// echo answers a request with its header Authorization.
func echo(t *testing.T) string {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = w.Write([]byte(r.Header.Get("Authorization")))
	}))
	t.Cleanup(s.Close)
	return s.URL
}

// all lists the pipelines of the folder.
func all(t *testing.T) []string {
	t.Helper()
	var files []string
	err := fs.WalkDir(os.DirFS("."), ".", func(file string, e fs.DirEntry, err error) error {
		if file == elsewhere {
			return fs.SkipDir
		}
		if err != nil || e.IsDir() || filepath.Ext(file) != ".yaml" {
			return err
		}
		kind := filepath.Ext(strings.TrimSuffix(file, ".yaml"))
		if !slices.Contains([]string{".inputs", ".answers", ".script"}, kind) {
			files = append(files, file)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}
