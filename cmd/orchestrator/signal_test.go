//go:build unix

package main

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	api "github.com/orchestrator-project/orchestrator/proto/orchestrator/v1"
)

// command is the real command in a process of its own; TestMain has put it in
// the path.
type command struct {
	*exec.Cmd
	out, err printed // complete after end
}

// printed is what a command has printed so far.
type printed struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (p *printed) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.text.Write(b)
}

func (p *printed) String() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.text.String()
}

// says waits until a command has printed a text.
func (p *printed) says(t *testing.T, text string) {
	t.Helper()
	if !happens(func() bool { return strings.Contains(p.String(), text) }) {
		t.Fatalf("it has not printed %q, but\n%s", text, p.String())
	}
}

func startCommand(t *testing.T, dir string, args ...string) *command {
	t.Helper()
	c := &command{Cmd: exec.CommandContext(t.Context(), "orchestrator", args...)}
	c.Dir = dir
	c.Env = append(os.Environ(), "ORCHESTRATOR_HOME="+filepath.Join(dir, "home"))
	c.Stdout, c.Stderr = &c.out, &c.err
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	return c
}

// end waits for the command and returns its exit code.
func (c *command) end(t *testing.T) int {
	t.Helper()
	err := c.Wait()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	t.Logf("%s\n%s%s", strings.Join(c.Args, " "), c.out.String(), c.err.String())
	return c.ProcessState.ExitCode()
}

func (c *command) interrupt(t *testing.T) {
	t.Helper()
	if err := c.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
}

func writeFile(t *testing.T, dir, name, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

const endless = `
id: endless
steps:
  - id: wait
    run: touch started; sleep 600
finally:
  - id: tidy
    run: touch tidied
`

func TestCtrlCCancelsTheRunAndItsFinallyStepsRun(t *testing.T) {
	dir := t.TempDir()
	writeFile(t, dir, "endless.yaml", endless)
	c := startCommand(t, dir, "run", "endless.yaml", "--json")
	if !appears(filepath.Join(dir, "started")) {
		t.Fatal("the step has not started")
	}
	c.interrupt(t)
	if code := c.end(t); code != exitInterrupted {
		t.Errorf("exit code %d", code)
	}
	if status, _, err := lookJSON([]byte(c.out.String()), "status"); status != "CANCELLED" {
		t.Errorf("the run is %s, %v", status, err)
	}
	if !strings.Contains(c.err.String(), "cancelling; press Ctrl-C again to leave at once") {
		t.Error("it does not say that it cancels")
	}
	if _, err := os.Stat(filepath.Join(dir, "tidied")); err != nil {
		t.Errorf("finally steps did not run: %v", err)
	}
}

func TestTheSecondCtrlCLeavesAtOnce(t *testing.T) {
	dir := t.TempDir()
	writeFile(t, dir, "stubborn.yaml", `
id: stubborn
steps:
  - id: wait
    run: trap '' TERM; touch started; while true; do sleep 0.1; done
`)
	t.Setenv("ORCHESTRATOR_EXECUTION_GRACE", "10m") // the step's, which is not waited for
	c := startCommand(t, dir, "run", "stubborn.yaml")
	if !appears(filepath.Join(dir, "started")) {
		t.Fatal("the step has not started")
	}
	c.interrupt(t)
	c.err.says(t, "press Ctrl-C again") // two signals at once may count as one
	w := startCommand(t, dir, "runs", "watch", "last", "--json")
	w.out.says(t, "signal_received") // the cancellation is on record
	w.interrupt(t)
	w.end(t)
	c.interrupt(t)
	began := time.Now()
	if code := c.end(t); code != exitInterrupted {
		t.Errorf("exit code %d", code)
	}
	if d := time.Since(began); d > 2*time.Minute {
		t.Errorf("it took %s", d)
	}
	if !strings.Contains(c.err.String(), "orchestrator runs resume") {
		t.Error("it does not say how to continue")
	}
	if r := startCommand(t, dir, "runs", "resume", "last"); r.end(t) != exitFailed || !strings.Contains(r.err.String(), "run cancelled") {
		t.Error("the run cannot be continued to its cancellation")
	}
}

func TestCtrlCOnlyStopsWatching(t *testing.T) {
	dir := t.TempDir()
	writeFile(t, dir, "endless.yaml", endless)
	r := startCommand(t, dir, "run", "endless.yaml", "-q")
	if !appears(filepath.Join(dir, "started")) {
		t.Fatal("the step has not started")
	}
	if g := startCommand(t, dir, "runs", "resume", "last"); g.end(t) != exitRefused || !strings.Contains(g.err.String(), "executed by another process") {
		t.Error("a run that is executed can be resumed")
	}
	w := startCommand(t, dir, "runs", "watch", "last", "--json")
	w.out.says(t, "step_started")
	w.interrupt(t)
	if code := w.end(t); code != exitInterrupted {
		t.Errorf("watch: exit code %d", code)
	}
	g := startCommand(t, dir, "runs", "get", "last", "--json")
	g.end(t)
	if status, _, err := lookJSON([]byte(g.out.String()), "status"); status != api.Run_RUNNING.String() {
		t.Errorf("the run is %s, %v", status, err)
	}
	// Cancelled from another process.
	if x := startCommand(t, dir, "runs", "cancel", "last"); x.end(t) != 0 {
		t.Error("it cannot be cancelled")
	}
	if code := r.end(t); code != exitFailed {
		t.Errorf("run: exit code %d", code)
	}
}

func TestAHouseLeavesNothingBehind(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	for _, p := range []plan{{bare: true}, {}, {lanes: true}, {lanes: true, queue: true}} {
		c := newCLI(t)
		cfg, err := c.embeddedConfig()
		if err != nil {
			t.Fatal(err)
		}
		p.cfg, p.log, p.home = cfg, logger(c.log, cfg, false), c.home()
		h, err := build(t.Context(), p)
		if err != nil {
			t.Fatal(err)
		}
		if p.lanes {
			if err := h.ready(t.Context()); err != nil {
				t.Error(err)
			}
		}
		if _, err := newClient(h.conn()).pipelines.GetSchema(t.Context(), &api.GetSchemaRequest{}); err != nil {
			t.Error(err)
		}
		h.close()
	}
}
