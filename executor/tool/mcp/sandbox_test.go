package mcp

import (
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/orchestrator-project/orchestrator/executor/sandbox"
	boxes "github.com/orchestrator-project/orchestrator/executor/sandbox/process"
	"github.com/orchestrator-project/orchestrator/executor/tool"
	"github.com/orchestrator-project/orchestrator/pipeline"
)

func TestServerInASandbox(t *testing.T) {
	w := newWorld(t, Config{})
	s := w.program("friend")
	s.Sandbox = &pipeline.Sandbox{}
	driver := &boxes.Driver{Readable: []string{filepath.Dir(s.Command[0])}}
	if _, err := driver.Probe(w.done); err != nil {
		t.Skipf("this machine has no sandbox of the driver process: %v", err)
	}
	w.pool.cfg.Sandbox = &sandbox.Set{Drivers: []sandbox.Driver{driver}}
	set := w.open(s)
	if pid, err := strconv.Atoi(w.call(set, "pid", tool.Call{})); err != nil || pid > 100 {
		t.Errorf("its process is %d, %v: it is not in a namespace of its own", pid, err)
	}
	if got := w.call(set, "echo", tool.Call{Arguments: map[string]any{"text": "hi"}}); got != `{"text":"hi"}` {
		t.Errorf("echo gave %q", got)
	}
	await(t, "the log", func() bool { return strings.Contains(w.logged(), "runs in the sandbox process") })
}
