package docker

import (
	"cmp"
	"context"
	"errors"
	"io"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/moby/moby/api/pkg/stdcopy"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
	"github.com/moby/moby/client"

	"github.com/orchestrator-project/orchestrator/executor/sandbox"
	"github.com/orchestrator-project/orchestrator/pipeline"
)

// nobody is the user of every program: by its number, as an image need not name it.
const (
	nobodyID = 65534
	nobody   = "65534:65534"
)

// period is that in which a container's processor time is counted, in microseconds.
const period = 100_000

// cleanTime is how long the engine may take for what is done after a program.
const cleanTime = 30 * time.Second

func (d *Driver) config(image string, s sandbox.Spec, p sandbox.Program) *container.Config {
	var environ []string
	for _, kv := range p.Environ {
		name, value, ok := strings.Cut(kv, "=")
		switch {
		case !ok || name == "" || name == "PATH" || name == "TMPDIR": // those of the image
			continue
		case name == "HOME" && !strings.HasPrefix(value, s.Workspace):
			kv = "HOME=/tmp"
		}
		environ = append(environ, kv)
	}
	return &container.Config{
		Image: image, User: nobody, WorkingDir: cmp.Or(p.Dir, s.Workspace), Env: append(environ, "TMPDIR=/tmp"), Labels: labels(),
		Entrypoint: p.Argv[:1], Cmd: p.Argv[1:], // not the image's own
		AttachStdin: true, AttachStdout: true, AttachStderr: true, OpenStdin: true, StdinOnce: true, NetworkDisabled: !s.Network,
	}
}

func hostConfig(s sandbox.Spec) *container.HostConfig {
	yes := true
	h := &container.HostConfig{
		NetworkMode: "none", ReadonlyRootfs: true, Init: &yes, IpcMode: container.IPCModePrivate,
		CapDrop: []string{"ALL"}, SecurityOpt: []string{"no-new-privileges:true"},
		Tmpfs:     map[string]string{"/tmp": "rw,noexec,nosuid,nodev,mode=1777,size=" + strconv.Itoa(sandbox.Scratch)},
		LogConfig: container.LogConfig{Type: "none"}, // nothing reads the engine's copy, and it has no bound
		Resources: container.Resources{
			Memory: s.Memory, MemorySwap: s.Memory, // together: no swap
			Ulimits: []*container.Ulimit{{Name: "core"}},
		},
	}
	if s.Network {
		h.NetworkMode = "bridge"
	}
	if s.CPU > 0 {
		h.CPUPeriod, h.CPUQuota = period, max(1000, int64(math.Round(s.CPU*period)))
	}
	if s.Pids > 0 {
		n := int64(s.Pids)
		h.PidsLimit = &n
	}
	if s.Disk > 0 {
		h.Ulimits = append(h.Ulimits, &container.Ulimit{Name: "fsize", Soft: s.Disk, Hard: s.Disk})
	}
	for _, dir := range s.Readable {
		h.Mounts = append(h.Mounts, mount.Mount{Type: mount.TypeBind, Source: dir, Target: dir, ReadOnly: true})
	}
	h.Mounts = append(h.Mounts, mount.Mount{Type: mount.TypeBind, Source: s.Workspace, Target: s.Workspace})
	// What lies below something else comes after it, or it would be covered.
	slices.SortStableFunc(h.Mounts, func(a, b mount.Mount) int { return strings.Count(a.Target, "/") - strings.Count(b.Target, "/") })
	return h
}

// running is a program in its container.
type running struct {
	d      *Driver
	engine *client.Client
	id     string
	level  sandbox.Level

	streams client.HijackedResponse
	pumps   sync.WaitGroup
	stop    context.CancelFunc // of waiting for its end
	done    chan struct{}      // closed when it has ended; then code and err are set
	code    int64
	err     error

	mu   sync.Mutex // guards gone
	gone bool       // its id may be another's
}

// begin connects the streams and starts the program.
func (r *running) begin(ctx context.Context, p sandbox.Program) error {
	streams, err := r.engine.ContainerAttach(ctx, r.id, client.ContainerAttachOptions{Stream: true, Stdin: true, Stdout: true, Stderr: true})
	if err != nil {
		return pipeline.Failuref(pipeline.CategorySystem, "connect to the container: %v", err)
	}
	r.streams = streams.HijackedResponse
	waiting, stop := context.WithCancel(context.WithoutCancel(ctx))
	end := r.engine.ContainerWait(waiting, r.id, client.ContainerWaitOptions{Condition: container.WaitConditionNextExit})
	if _, err := r.engine.ContainerStart(ctx, r.id, client.ContainerStartOptions{}); err != nil {
		stop()
		r.streams.Close()
		return notStarted(err, p.Argv[0])
	}
	r.stop = stop
	r.pumps.Go(func() { r.feed(p.Stdin) })
	r.pumps.Go(func() { r.drain(p) })
	r.pumps.Go(func() {
		defer close(r.done)
		select {
		case w := <-end.Result:
			r.code = w.StatusCode
			if w.Error != nil {
				r.err = errors.New(w.Error.Message)
			}
		case r.err = <-end.Error:
		}
		if p.Stdin != nil {
			p.Stdin.Close() // wakes whoever feeds a program that is gone
		}
	})
	return nil
}

// notStarted is the failure of a program that the engine could not start.
func notStarted(err error, name string) *pipeline.Failure {
	f := pipeline.Failuref(pipeline.CategorySystem, "start the container: %v", err)
	switch text := err.Error(); {
	case strings.Contains(text, "executable file not found"), strings.Contains(text, "no such file or directory"):
		f = pipeline.Failuref(pipeline.CategoryValidation, "there is no command %s in the sandbox's image", name)
		f.Reason = "command_not_found"
	case strings.Contains(text, "permission denied"):
		f = pipeline.Failuref(pipeline.CategoryValidation, "%s cannot be run in the sandbox's image: permission denied", name)
		f.Reason = "not_executable"
	}
	return f
}

// feed passes the standard input on, and its end.
func (r *running) feed(in *os.File) {
	if in != nil {
		_, _ = io.Copy(r.streams.Conn, in) // a program need not read all of it
	}
	_ = r.streams.CloseWrite()
}

// drain passes on what the program writes until it has closed its streams. What
// nobody takes any more is dropped, as the container must never wait for us.
func (r *running) drain(p sandbox.Program) {
	_, _ = stdcopy.StdCopy(tolerant{p.Stdout}, tolerant{p.Stderr}, r.streams.Reader)
	for _, f := range []*os.File{p.Stdout, p.Stderr} {
		if f != nil {
			f.Close()
		}
	}
}

// tolerant is a writer that never fails.
type tolerant struct{ f *os.File }

func (t tolerant) Write(b []byte) (int, error) {
	if t.f != nil {
		_, _ = t.f.Write(b)
	}
	return len(b), nil
}

func (r *running) Level() sandbox.Level { return r.level }

func (r *running) Done() <-chan struct{} { return r.done }

// Terminate asks the program to end.
func (r *running) Terminate() { r.signal("SIGTERM") }

// Kill ends all processes of the container.
func (r *running) Kill() { r.signal("SIGKILL") }

func (r *running) signal(name string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	select {
	case <-r.done:
		return
	default:
	}
	if r.gone {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), cleanTime)
	defer cancel()
	if _, err := r.engine.ContainerKill(ctx, r.id, client.ContainerKillOptions{Signal: name}); err != nil {
		r.d.log().Warn("container not signalled", "container", r.id, "signal", name, "err", err)
		if name == "SIGKILL" {
			r.stop() // the engine does not answer: nobody waits for it for ever
		}
	}
}

// Wait removes the container, and with it what it has left behind.
func (r *running) Wait() (sandbox.Exit, error) {
	<-r.done
	exit := sandbox.Exit{Code: int(r.code)}
	ctx, cancel := context.WithTimeout(context.Background(), cleanTime)
	defer cancel()
	if state, err := r.engine.ContainerInspect(ctx, r.id, client.ContainerInspectOptions{}); err == nil && state.Container.State != nil && state.Container.State.OOMKilled {
		exit.Limit = sandbox.LimitMemory
	}
	if exit.Code == 128+int(syscall.SIGXFSZ) {
		exit.Limit = sandbox.LimitDisk
	}
	r.remove()
	// The engine closes the streams with the container; where it does not answer,
	// this side does.
	late := time.AfterFunc(time.Second, r.streams.Close)
	defer late.Stop()
	r.pumps.Wait()
	r.stop()
	r.streams.Close()
	if r.err != nil {
		return exit, pipeline.Failuref(pipeline.CategorySystem, "wait for the container: %v", r.err)
	}
	return exit, nil
}

func (r *running) remove() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.gone = true
	ctx, cancel := context.WithTimeout(context.Background(), cleanTime)
	defer cancel()
	if _, err := r.engine.ContainerRemove(ctx, r.id, client.ContainerRemoveOptions{Force: true, RemoveVolumes: true}); err != nil {
		r.d.log().Warn("container not removed", "container", r.id, "err", err)
	}
}
