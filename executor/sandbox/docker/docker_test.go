package docker

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
	"go.uber.org/goleak"

	"github.com/orchestrator-project/orchestrator/executor/sandbox"
	"github.com/orchestrator-project/orchestrator/pipeline"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// seed is the limits that the configuration has by default.
var seed = sandbox.Spec{Memory: 1 << 30, CPU: 0.5, Pids: 100, Disk: 1 << 30}

// opened is a driver of an engine that is not a real one.
func opened(t *testing.T) (*engine, *sandbox.Set) {
	t.Helper()
	e, socket := serve(t)
	d := &Driver{Socket: socket, Images: map[string]string{"python": "python:x", "nodejs": "node:x"}}
	t.Cleanup(func() {
		if d.engine != nil {
			d.engine.Close()
		}
	})
	return e, &sandbox.Set{Drivers: []sandbox.Driver{d}, Limits: seed}
}

func sh(line string) sandbox.Program {
	return sandbox.Program{Argv: []string{"sh", "-c", line}, Environ: []string{"PATH=/nowhere", "A=b", "HOME=/home", "TMPDIR=/x", "=bad"}}
}

func TestAContainerIsAskedForWithTheLimits(t *testing.T) {
	e, set := opened(t)
	dir, bundle := t.TempDir(), t.TempDir()
	got, err := set.Run(t.Context(), nil, sandbox.Spec{Workspace: dir, Readable: []string{bundle}}, sh("cat; echo err >&2; exit 3"), "in", 100)
	if err != nil {
		t.Fatal(err)
	}
	if got.Stdout != "in" || got.Stderr != "err\n" || got.Exit.Code != 3 {
		t.Errorf("got %+v", got)
	}
	want := `docker (python:x); apart: network, files, processes, users, calls; bound: memory by container, cpu by container, pids by container, disk by watch`
	if got.Level.String() != want {
		t.Errorf("level %s", got.Level)
	}
	yes, pids := true, int64(100)
	c := e.made[0]
	if d := cmp.Diff(container.HostConfig{
		NetworkMode: "none", ReadonlyRootfs: true, Init: &yes, IpcMode: "private",
		CapDrop: []string{"ALL"}, SecurityOpt: []string{"no-new-privileges:true"},
		Tmpfs:     map[string]string{"/tmp": "rw,noexec,nosuid,nodev,mode=1777,size=104857600"},
		LogConfig: container.LogConfig{Type: "none"},
		Resources: container.Resources{
			Memory: 1 << 30, MemorySwap: 1 << 30, CPUPeriod: 100_000, CPUQuota: 50_000, PidsLimit: &pids,
			Ulimits: []*container.Ulimit{{Name: "core"}, {Name: "fsize", Soft: 1 << 30, Hard: 1 << 30}},
		},
		Mounts: []mount.Mount{{Type: "bind", Source: bundle, Target: bundle, ReadOnly: true}, {Type: "bind", Source: dir, Target: dir}},
	}, c.HostConfig); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff(container.Config{
		Image: "python:x", User: "65534:65534", WorkingDir: dir, Env: []string{"A=b", "HOME=/tmp", "TMPDIR=/tmp"},
		Entrypoint: []string{"sh"}, Cmd: []string{"-c", "cat; echo err >&2; exit 3"}, Labels: labels(),
		AttachStdin: true, AttachStdout: true, AttachStderr: true, OpenStdin: true, StdinOnce: true, NetworkDisabled: true,
	}, c.Config); d != "" {
		t.Error(d)
	}
	if !slices.Equal(e.asked[len(e.asked)-6:], []string{
		"POST /containers/c1/attach", "POST /containers/c1/wait", "POST /containers/c1/start", "GET /containers/c1/json", "DELETE /containers/c1",
	}) && !slices.Contains(e.asked, "DELETE /containers/c1") {
		t.Errorf("asked %q", e.asked)
	}
	if len(e.boxes) > 0 {
		t.Error("the container was not removed")
	}
}

func TestAStepsOwnBoundsAndImageWin(t *testing.T) {
	e, set := opened(t)
	want := &pipeline.Sandbox{Driver: "docker", Network: true, Memory: 5 << 20, CPU: 2, Pids: 7}
	if _, err := set.Run(t.Context(), want, sandbox.Spec{Workspace: t.TempDir(), Image: "nodejs"}, sh(":"), "", 100); err != nil {
		t.Fatal(err)
	}
	c := e.made[0]
	if h := c.HostConfig; h.NetworkMode != "bridge" || c.NetworkDisabled || h.Memory != 5<<20 || h.CPUQuota != 200_000 || *h.PidsLimit != 7 || c.Image != "node:x" {
		t.Errorf("made %+v", c)
	}
}

func TestWhatCannotBeStarted(t *testing.T) {
	place := sandbox.Spec{Workspace: t.TempDir()}
	for _, c := range []struct {
		name         string
		change       func(e *engine, d *Driver)
		program      sandbox.Program
		text, reason string
	}{
		{"no engine", func(_ *engine, d *Driver) { d.Socket = filepath.Join(t.TempDir(), "no.sock") }, sh(":"), "no Docker engine answers at", "no_sandbox"},
		{"no image", func(e *engine, _ *Driver) { e.images = nil }, sh(":"), "the Docker engine has no image python:x; scripts/sandbox-image makes", "no_sandbox"},
		{"no image named", func(_ *engine, d *Driver) { d.Images = nil }, sh(":"), "sandbox.images of config.yaml names none", "no_sandbox"},
		{"no program", func(*engine, *Driver) {}, sandbox.Program{Argv: []string{"no-such"}}, "there is no command no-such in the sandbox's image", "command_not_found"},
		{"create fails", func(e *engine, _ *Driver) { e.fail["create"] = "disk full" }, sh(":"), "make a container: ", ""},
		{"attach fails", func(e *engine, _ *Driver) { e.fail["attach"] = "no" }, sh(":"), "connect to the container: ", ""},
		{"a NUL", func(*engine, *Driver) {}, sandbox.Program{Argv: []string{"a\x00b"}}, "NUL character", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			e, set := opened(t)
			d, _ := set.Drivers[0].(*Driver)
			c.change(e, d)
			_, err := set.Run(t.Context(), nil, place, c.program, "", 100)
			f, ok := err.(*pipeline.Failure) //nolint:errorlint // as the contract says
			if !ok || !strings.Contains(f.Message, c.text) || f.Reason != c.reason {
				t.Errorf("got %v, want %q and the reason %q", err, c.text, c.reason)
			}
			if len(e.boxes) > 0 {
				t.Error("a container was left behind")
			}
		})
	}
}

func TestAChildIsSpokenToForAsLongAsItLives(t *testing.T) {
	_, set := opened(t)
	in, ask, _ := os.Pipe()
	answer, out, _ := os.Pipe()
	p := sandbox.Program{Argv: []string{"cat"}, Stdin: in, Stdout: out}
	r, err := set.Start(t.Context(), nil, sandbox.Spec{Workspace: t.TempDir()}, p)
	if err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 100)
	for _, text := range []string{"one", "two"} {
		_, _ = ask.WriteString(text)
		if n, err := answer.Read(buf); err != nil || string(buf[:n]) != text {
			t.Fatalf("got %q, %v", buf[:n], err)
		}
	}
	ask.Close() // its end of input is its sign to end
	exit, err := r.Wait()
	if err != nil || exit.Code != 0 {
		t.Errorf("exit %+v, %v", exit, err)
	}
	answer.Close()
}

func TestTheTimeOfAContainerEnds(t *testing.T) {
	e, set := opened(t)
	got, err := set.Run(t.Context(), &pipeline.Sandbox{Timeout: 3 * time.Second}, sandbox.Spec{Workspace: t.TempDir()}, sh("echo begun; sleep 60 & wait"), "", 100)
	if err != nil || got.Exit.Limit != sandbox.LimitTime || got.Stdout != "begun\n" {
		t.Errorf("got %+v, %v", got, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	in, _, _ := os.Pipe() // nothing ever comes
	p := sh("exec cat")
	p.Stdin = in
	r, err := set.Start(ctx, nil, sandbox.Spec{Workspace: t.TempDir()}, p)
	if err != nil {
		t.Fatal(err)
	}
	cancel() // it bounds the start alone
	r.Terminate()
	if exit, err := r.Wait(); err != nil || exit.Code != 143 {
		t.Errorf("exit %+v, %v", exit, err)
	}
	r.Kill() // after its end, nothing
	if len(e.boxes) > 0 {
		t.Error("a container was left behind")
	}
}

func TestHugeOutputNeverBlocksTheContainer(t *testing.T) {
	_, set := opened(t)
	got, err := set.Run(t.Context(), nil, sandbox.Spec{Workspace: t.TempDir()}, sh("head -c 20000000 /dev/zero | tr '\\0' x; echo end >&2"), strings.Repeat("unread ", 1<<20), 1000)
	if err != nil || len(got.Stdout) != 1000 || !got.Cut || got.Stderr != "end\n" {
		t.Errorf("got %d bytes, cut %t, %q, %v", len(got.Stdout), got.Cut, got.Stderr, err)
	}
}

func TestTheKernelsVerdictIsTold(t *testing.T) {
	_, set := opened(t)
	got, err := set.Run(t.Context(), &pipeline.Sandbox{Memory: 1}, sandbox.Spec{Workspace: t.TempDir()}, sh("kill -9 $$"), "", 100)
	if err != nil || got.Exit.Code != 137 || got.Exit.Limit != sandbox.LimitMemory {
		t.Errorf("got %+v, %v", got, err)
	}
}

func TestContainersOfADeadProcessAreRemoved(t *testing.T) {
	e, set := opened(t)
	labelled := func(id, pid, life string) container.Summary {
		l := labels()
		l[labelPid], l[labelLife] = pid, life
		return container.Summary{ID: id, Labels: l}
	}
	e.found = []container.Summary{
		labelled("ours", strconv.Itoa(os.Getpid()), life), labelled("before", strconv.Itoa(os.Getpid()), "x"),
		labelled("dead", "4194305", "x"), labelled("other", strconv.Itoa(os.Getppid()), "x"),
	}
	if _, _, err := set.Pick(t.Context(), ""); err != nil {
		t.Fatal(err)
	}
	var removed []string
	for _, a := range e.asked {
		if id, ok := strings.CutPrefix(a, "DELETE /containers/"); ok {
			removed = append(removed, id)
		}
	}
	if !slices.Equal(removed, []string{"before", "dead"}) {
		t.Errorf("removed %q", removed)
	}
}

// TestARealEngine needs one, with the image that scripts/sandbox-image makes.
func TestARealEngine(t *testing.T) {
	socket := "/var/run/docker.sock"
	d := &Driver{Socket: socket, Images: map[string]string{"python": "orchestrator/python:3.11-slim"}}
	if _, err := d.Probe(t.Context()); err != nil {
		t.Skip(err)
	}
	defer d.engine.Close()
	dir := t.TempDir()
	set := &sandbox.Set{Drivers: []sandbox.Driver{d}, Limits: seed}
	got, err := set.Run(t.Context(), nil, sandbox.Spec{Workspace: dir}, sh("id -u; echo x >made && echo wrote; echo x >/made || echo closed; ls /sys/class/net"), "", 1000)
	if err != nil || got.Stdout != "65534\nwrote\nclosed\nlo\n" {
		t.Errorf("got %+v, %v", got, err)
	}
}
