//go:build unix

package main_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
)

// held is a step that a worker carries out until a file named go stands in dir.
const held = `name: held
inputs:
  dir: {type: string}
steps:
  - id: there
    worker: [gpu]
    run: echo $ORCHESTRATOR_ATTEMPT $ORCHESTRATOR_IDEMPOTENCY_KEY >> {{ dir | sh }}/begun; until [ -e {{ dir | sh }}/go ]; do sleep 0.02; done; echo attempt $ORCHESTRATOR_ATTEMPT
outputs:
  text: "{{ there }}"
`

// briefly shortens the waits for workers that are gone; patiently waits for them.
var (
	briefly   = []string{"ORCHESTRATOR_EXECUTION_ADOPTION_WAIT=2s"}
	patiently = []string{"ORCHESTRATOR_EXECUTION_ADOPTION_WAIT=5m"}
)

// work starts a worker for a server and waits until it is connected.
func work(t testing.TB, s *server, name string, args ...string) *process {
	t.Helper()
	p := start(t, launch{args: append([]string{"worker", "--server", s.url, "--name", name}, args...), home: t.TempDir()})
	p.wrote(&p.err, `"msg":"connected"`)
	return p
}

// workers asks a server for the names of its workers and their states.
func (s *site) workers() map[string]string {
	s.t.Helper()
	var list struct {
		Workers []struct{ Name, Status string }
	}
	s.get("/v1/workers", &list)
	states := map[string]string{}
	for _, w := range list.Workers {
		states[w.Name] = w.Status
	}
	return states
}

func TestStepsWithLabelsGoOnlyToTheirWorkers(t *testing.T) {
	t.Parallel()
	s := serve(t, t.TempDir(), patiently...)
	dir := t.TempDir()
	id := s.submit(held, map[string]any{"dir": dir})
	s.parked(id, "worker")
	work(t, s, "other", "--labels", "eu")
	work(t, s, "gpu", "--labels", "eu,gpu")
	eventually(t, "the step begins", func() bool { return len(lines(t, dir, "begun")) == 1 })
	touch(t, dir, "go")
	s.finish(id, "COMPLETED")
	if w := s.steps(id)["there"].Worker; w != "gpu" {
		t.Errorf("the step was carried out by %q", w)
	}
}

func TestStepOfAKilledWorkerIsBegunAgainElsewhere(t *testing.T) {
	t.Parallel()
	s := serve(t, t.TempDir(), briefly...)
	dir := t.TempDir()
	one := work(t, s, "one", "--labels", "gpu")
	id := s.submit(held, map[string]any{"dir": dir})
	eventually(t, "the step begins", func() bool { return len(lines(t, dir, "begun")) == 1 })
	one.kill()
	work(t, s, "two", "--labels", "gpu")
	eventually(t, "the step begins again", func() bool { return len(lines(t, dir, "begun")) == 2 })
	touch(t, dir, "go")
	s.finish(id, "COMPLETED")
	key := id + "/there"
	if got := strings.Join(lines(t, dir, "begun"), ", "); got != "1 "+key+", 2 "+key {
		t.Errorf("the attempts were %s", got)
	}
}

func TestKilledServerAdoptsWhatAWorkerHolds(t *testing.T) {
	t.Parallel()
	s := serve(t, t.TempDir(), patiently...)
	dir := t.TempDir()
	gpu := work(t, s, "gpu", "--labels", "gpu")
	id := s.submit(held, map[string]any{"dir": dir})
	eventually(t, "the step begins", func() bool { return len(lines(t, dir, "begun")) == 1 })
	s.kill()
	s = s.again()
	eventually(t, "the worker is back", func() bool { return s.workers()["gpu"] == "connected" })
	touch(t, dir, "go")
	s.finish(id, "COMPLETED")
	if got := lines(t, dir, "begun"); len(got) != 1 {
		t.Errorf("the attempts were %q", got)
	}
	gpu.signal(syscall.SIGTERM)
	if code := gpu.wait(patience); code != 0 {
		t.Errorf("the worker ended with code %d", code)
	}
}

func TestDrainedWorkerFinishesAndLeaves(t *testing.T) {
	t.Parallel()
	s := serve(t, t.TempDir(), briefly...)
	dir := t.TempDir()
	gpu := work(t, s, "gpu", "--labels", "gpu")
	id := s.submit(held, map[string]any{"dir": dir})
	eventually(t, "the step begins", func() bool { return len(lines(t, dir, "begun")) == 1 })
	code, _, stderr := run(t, launch{args: []string{"workers", "drain", "gpu", "--server", s.url}, home: t.TempDir()})
	if code != 0 {
		t.Fatalf("drain ended with code %d: %s", code, stderr)
	}
	touch(t, dir, "go")
	s.finish(id, "COMPLETED")
	if code := gpu.wait(patience); code != 0 {
		t.Errorf("the worker ended with code %d", code)
	}
	eventually(t, "the worker is gone", func() bool { return len(s.workers()) == 0 })
}

// TestWorkerInPython runs the example with what scripts/needs finds.
func TestWorkerInPython(t *testing.T) {
	t.Parallel()
	python := os.Getenv("PYTHON_GRPC")
	if python == "" {
		python = "/usr/bin/python3"
	}
	if err := exec.CommandContext(t.Context(), python, "-c", "import grpc, google.protobuf").Run(); err != nil {
		t.Skipf("%s cannot import grpc; bin/needs -for python -- go test finds or installs one", python)
	}
	_, here, _, _ := runtime.Caller(0)
	root := filepath.Dir(filepath.Dir(filepath.Dir(here)))
	stubs := t.TempDir()
	protoc := exec.CommandContext(t.Context(), "protoc", "-I", filepath.Join(root, "proto"), "--python_out", stubs,
		"orchestrator/v1/workers.proto", "orchestrator/v1/options.proto")
	if out, err := protoc.CombinedOutput(); err != nil {
		t.Fatalf("protoc: %v\n%s", err, out)
	}
	s := serve(t, t.TempDir(), briefly...)
	example := filepath.Join(root, "examples", "workers", "python")
	worker := exec.CommandContext(t.Context(), python, filepath.Join(example, "worker.py"), "--server", s.listen, "--name", "snake")
	worker.Env = append(os.Environ(), "PYTHONPATH="+stubs)
	var wrote output
	worker.Stdout, worker.Stderr = &wrote, &wrote
	if err := worker.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- worker.Wait() }()
	eventually(t, "the worker connects", func() bool { return s.workers()["snake"] == "connected" })
	source, err := os.ReadFile(filepath.Join(example, "count.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	id := s.submit(string(source), map[string]any{"text": "to be or not to be"})
	s.finish(id, "COMPLETED")
	if code, _, text := s.send("GET", "/v1/runs/"+id, ""); code != 200 || !strings.Contains(text, `"words":6`) {
		t.Errorf("the run is %s", text)
	}
	if err := worker.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; err != nil {
		t.Errorf("the worker ended with %v:\n%s", err, wrote.String())
	}
}
