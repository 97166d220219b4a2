package step

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/orchestrator-project/orchestrator/executor"
	"github.com/orchestrator-project/orchestrator/executor/sandbox"
	"github.com/orchestrator-project/orchestrator/executor/sandbox/process"
	"github.com/orchestrator-project/orchestrator/pipeline"
)

func TestACommandIsLockedIn(t *testing.T) {
	sandboxHere(t)
	env, _ := testEnv(t)
	env.Sandbox = &pipeline.Sandbox{}
	env.Bundle = t.TempDir()
	if err := os.WriteFile(filepath.Join(env.Bundle, "part"), []byte("a part\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	outside := t.TempDir()
	got, err := command(t, env, params{"stdin": "in", "run": `pwd; cat ` + env.Bundle + `/part; echo x >` + env.Bundle + `/part 2>/dev/null || echo "the bundle is closed"
		echo x >` + outside + `/made 2>/dev/null || echo "outside is closed"; echo x >made && echo wrote; grep -c : /proc/net/dev; cat`})
	if err != nil {
		t.Fatal(err)
	}
	same(t, got, env.Workspace+"\na part\nthe bundle is closed\noutside is closed\nwrote\n1\nin")
	got, err = command(t, env, params{"command": []any{"sh", "-c", "echo $0 $1", "a b", "c"}})
	if err != nil {
		t.Fatal(err)
	}
	same(t, got, "a b c")
	_, err = command(t, env, params{"run": "echo why >&2; exit 3"})
	failed(t, err, pipeline.CategoryFailed, "exit code 3: why")
}

func TestTheBoundsOfASandbox(t *testing.T) {
	sandboxHere(t)
	env, _ := testEnv(t)
	if _, err := sandbox.LookUp("python3", env.Workspace, env.Environ, nil); err != nil {
		t.Skip(err)
	}
	env.Sandbox = &pipeline.Sandbox{Memory: 256 << 20}
	_, err := command(t, env, params{"command": []any{"python3", "-c", "b = bytearray(b'x' * (1 << 30))"}})
	if f, ok := errors.AsType[*pipeline.Failure](err); !ok || f.Reason != "sandbox_memory" && !strings.Contains(f.Message, "MemoryError") {
		t.Errorf("too much memory: %v", err)
	}
	got, err := command(t, env, params{"command": []any{"python3", "-c", "print(len(bytearray(1 << 20)))"}})
	if err != nil {
		t.Fatal(err)
	}
	same(t, got, "1048576")

	env.Sandbox = &pipeline.Sandbox{Timeout: 100 * time.Millisecond}
	_, err = command(t, env, params{"run": "sleep 60"})
	failed(t, err, pipeline.CategoryTimeout, "the sandbox's time of 100ms is over")

	env.Sandbox = &pipeline.Sandbox{Network: true}
	here, err := os.ReadFile("/proc/net/dev")
	if err != nil {
		t.Fatal(err)
	}
	if got, err = command(t, env, params{"run": "cat /proc/net/dev"}); err != nil {
		t.Fatal(err)
	}
	same(t, strings.Count(got.(string), ":"), strings.Count(string(here), ":"))
}

func TestASandboxThatThereIsNot(t *testing.T) {
	env, _ := testEnv(t)
	env.Sandbox = &pipeline.Sandbox{Driver: "vault"}
	_, err := command(t, env, params{"run": "echo x"})
	if f := failed(t, err, pipeline.CategoryValidation, "there is no sandbox vault; sandbox.drivers of this server has process"); f.Reason != "no_sandbox" {
		t.Errorf("reason %s", f.Reason)
	}
	absent := &process.Driver{Find: func() (string, error) { return "", errors.New("bwrap is not installed") }}
	for text, set := range map[string]*sandbox.Set{
		"sandbox.drivers in config.yaml":                                nil,
		"it does not run without one:\nprocess: bwrap is not installed": {Drivers: []sandbox.Driver{absent}},
	} {
		_, err = CommandStep{Line: "echo x", set: set}.Run(t.Context(), box(env))
		if f := failed(t, err, pipeline.CategorySystem, text); f.Reason != "no_sandbox" {
			t.Errorf("reason %s", f.Reason)
		}
	}
	out, err := CommandStep{Line: "echo x", set: &sandbox.Set{Drivers: []sandbox.Driver{absent, sandbox.Host{}}}}.Run(t.Context(), box(env))
	if err != nil {
		t.Fatal(err)
	}
	same(t, out.Value, "x")
}

func box(env executor.Env) executor.Env {
	env.Sandbox = &pipeline.Sandbox{}
	return env
}
