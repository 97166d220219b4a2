package sandbox_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/orchestrator-project/orchestrator/executor/sandbox"
	"github.com/orchestrator-project/orchestrator/pipeline"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// absent is a driver that does not work here.
type absent string

func (a absent) Name() string { return string(a) }

func (a absent) Probe(context.Context) (sandbox.Level, error) {
	return sandbox.Level{}, errors.New("it is broken")
}

func (a absent) Start(context.Context, sandbox.Spec, sandbox.Program) (sandbox.Running, error) {
	return nil, errors.New("started although it is broken")
}

func TestTheFirstDriverThatWorksIsTaken(t *testing.T) {
	both := &sandbox.Set{Drivers: []sandbox.Driver{absent("process"), sandbox.Host{}}}
	for _, c := range []struct {
		name, driver string
		set          *sandbox.Set
		takes        string
		says         string // within the failure
		kind         string
	}{
		{"the first that works", "", both, "host", "", ""},
		{"the named one", "host", both, "host", "", ""},
		{"the named one does not work", "process", both, "", "process: it is broken", pipeline.CategorySystem},
		{"its old name", "bubblewrap", both, "", "process: it is broken", pipeline.CategorySystem},
		{"an unknown one", "vault", both, "", "there is no sandbox vault; sandbox.drivers of this server has process and host", pipeline.CategoryValidation},
		{"without host", "", both.Strict(), "", "it does not run without one", pipeline.CategorySystem},
		{"host is not named", "host", both.Strict(), "", "has process", pipeline.CategoryValidation},
		{"none", "", &sandbox.Set{}, "", "this server has no sandbox", pipeline.CategorySystem},
		{"nil", "host", nil, "", "this server has no sandbox", pipeline.CategorySystem},
		{"nil, strict", "", (*sandbox.Set)(nil).Strict(), "", "this server has no sandbox", pipeline.CategorySystem},
	} {
		t.Run(c.name, func(t *testing.T) {
			d, _, err := c.set.Pick(t.Context(), c.driver)
			if c.takes != "" {
				if err != nil || d.Name() != c.takes {
					t.Errorf("got %v, %v", d, err)
				}
				return
			}
			f, ok := errors.AsType[*pipeline.Failure](err)
			if !ok || f.Reason != sandbox.ReasonNone || f.Kind != c.kind || !strings.Contains(f.Message, c.says) {
				t.Errorf("got %v, want %s: %s", err, c.kind, c.says)
			}
		})
	}
}

// bare runs without a sandbox, as a server does whose configuration says so.
var bare = &sandbox.Set{Drivers: []sandbox.Driver{sandbox.Host{}}}

func sh(line string) sandbox.Program {
	return sandbox.Program{Argv: []string{"sh", "-c", line}, Environ: []string{"PATH=/usr/bin:/bin", "A=b"}}
}

func TestRunKeepsTheBeginningAndReadsAll(t *testing.T) {
	got, err := bare.Run(t.Context(), nil, sandbox.Spec{Workspace: t.TempDir()}, sh("cat; head -c 5000000 /dev/zero | tr '\\0' x; printf 'a\\377b' >&2; exit 7"), "in ", 5)
	if err != nil {
		t.Fatal(err)
	}
	if got.Stdout != "in xx" || got.Stderr != "a\ufffdb" || !got.Cut || got.Exit.Code != 7 || got.Took <= 0 || got.Level.Driver != "host" {
		t.Errorf("got %+v", got)
	}
	got, err = bare.Run(t.Context(), nil, sandbox.Spec{Workspace: t.TempDir()}, sh("kill -TERM $$"), "", 5)
	if err != nil || got.Exit.Code != 143 || got.Exit.Signal != syscall.SIGTERM || got.Cut {
		t.Errorf("got %+v, %v", got, err)
	}
}

func TestTimeEndsEverything(t *testing.T) {
	got, err := bare.Run(t.Context(), &pipeline.Sandbox{Timeout: 3 * time.Second}, sandbox.Spec{Workspace: t.TempDir()}, sh("echo begun; trap '' TERM; sleep 600 & wait; sleep 600"), "", 100)
	if err != nil || got.Stdout != "begun\n" || got.Exit.Limit != sandbox.LimitTime {
		t.Errorf("got %+v, %v", got, err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(pipeline.Failuref(pipeline.CategoryCancelled, "somebody stopped it"))
	if _, err := bare.Run(ctx, nil, sandbox.Spec{Workspace: t.TempDir()}, sh("sleep 600"), "", 100); err == nil || !strings.Contains(err.Error(), "somebody stopped it") {
		t.Errorf("got %v", err)
	}
}

func TestWhatIsNotStartedLeavesNothingOpen(t *testing.T) {
	for _, set := range []*sandbox.Set{bare, {}, {Drivers: []sandbox.Driver{absent("process")}}} {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		p := sandbox.Program{Argv: []string{"no-such-program"}, Stdout: w}
		if _, err := set.Start(t.Context(), nil, sandbox.Spec{Workspace: t.TempDir()}, p); err == nil {
			t.Error("started")
		}
		if _, err := r.Read(make([]byte, 1)); err == nil { // the end, as nobody holds the other one
			t.Error("the stream is still open")
		}
		r.Close()
	}
}

func TestHostStartsNothingWithoutAWorkspace(t *testing.T) {
	for text, spec := range map[string]sandbox.Spec{
		"has no workspace": {}, "the workspace of the run is gone": {Workspace: filepath.Join(t.TempDir(), "gone")},
	} {
		if _, err := (sandbox.Host{}).Start(t.Context(), spec, sh(":")); err == nil || !strings.Contains(err.Error(), text) {
			t.Errorf("got %v, want %q", err, text)
		}
	}
}

func TestALevelInALine(t *testing.T) {
	for want, l := range map[string]sandbox.Level{
		"host; open: network, files, processes, users, calls; not bound: memory, cpu, pids, disk": {Driver: "host"},
		"docker (x:1); apart: files, processes, users; open: network, calls; bound: memory by container, disk by watch; not bound: cpu, pids": {
			Driver: "docker", Image: "x:1", Files: true, Processes: true, Users: true, Memory: "container", Disk: "watch",
		},
	} {
		if got := l.String(); got != want {
			t.Errorf("got %s\nwant %s", got, want)
		}
	}
}
