// Package docker locks programs in by containers of a Docker engine, one for each
// program, which is removed with it. Programs come from images of their own, which
// scripts/sandbox-image makes; of this machine they see their workspace, which they
// can change, and what they were given to read, both under their usual names.
//
// A container has no network, a root that is read-only, a small /tmp, no
// privileges, no user but nobody, and bounds on memory, processors and processes. The
// engine keeps nothing of what it writes.
//
//	d := &docker.Driver{Socket: "/var/run/docker.sock", Images: map[string]string{"python": "orchestrator/python:3.11-slim"}}
//	p, err := d.Start(ctx, sandbox.Spec{Workspace: dir, Image: "python"}, sandbox.Program{Argv: []string{"python3", "-c", code}})
package docker

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/moby/moby/client"

	"github.com/orchestrator-project/orchestrator/executor/sandbox"
	"github.com/orchestrator-project/orchestrator/pipeline"
)

// Driver runs programs in containers.
type Driver struct {
	// Socket is the file by which the engine is reached; or an address, as in
	// tcp://10.0.0.9:2375, of one that has the same files under the same names.
	Socket string
	// Images are those for programs by what they need: python, nodejs; custom is for
	// all others, and where it is missing, that for python.
	Images map[string]string
	Logger *slog.Logger // default: slog.Default

	mu      sync.Mutex // guards what follows
	engine  *client.Client
	swept   bool
	filters bool // the engine refuses calls to the kernel, as it does by default
}

var _ sandbox.Driver = (*Driver)(nil)

// Name is docker.
func (*Driver) Name() string { return sandbox.Docker }

// dial is the engine's client. It connects when it is first used.
func (d *Driver) dial() (*client.Client, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.engine == nil {
		address := d.Socket
		if !strings.Contains(address, "://") {
			address = "unix://" + address
		}
		engine, err := client.New(client.WithHost(address))
		if err != nil {
			return nil, fmt.Errorf("use the Docker engine at %s: %w", d.Socket, err)
		}
		d.engine = engine
	}
	return d.engine, nil
}

// image is the one for a need.
func (d *Driver) image(need string) string {
	return cmp.Or(d.Images[need], d.Images["custom"], d.Images["python"])
}

// level is what a container holds.
func (d *Driver) level(image string, s sandbox.Spec) sandbox.Level {
	d.mu.Lock()
	defer d.mu.Unlock()
	l := sandbox.Level{Driver: sandbox.Docker, Image: image, Network: !s.Network, Files: true, Processes: true, Users: true, Calls: d.filters}
	if s.Memory > 0 {
		l.Memory = "container"
	}
	if s.CPU > 0 {
		l.CPU = "container"
	}
	if s.Pids > 0 {
		l.Pids = "container"
	}
	return l
}

// Probe asks the engine whether it is there and has the image for most programs.
func (d *Driver) Probe(ctx context.Context) (sandbox.Level, error) {
	engine, err := d.dial()
	if err != nil {
		return sandbox.Level{}, err
	}
	if _, err := engine.Ping(ctx, client.PingOptions{NegotiateAPIVersion: true}); err != nil {
		return sandbox.Level{}, fmt.Errorf("no Docker engine answers at %s; start one, or name its socket as sandbox.docker_socket: %w", d.Socket, err)
	}
	image := d.image("")
	if err := d.has(ctx, engine, image); err != nil {
		return sandbox.Level{}, err
	}
	info, err := engine.Info(ctx, client.InfoOptions{})
	if err != nil {
		return sandbox.Level{}, fmt.Errorf("ask the Docker engine about itself: %w", err)
	}
	d.mu.Lock()
	d.filters = slices.ContainsFunc(info.Info.SecurityOptions, func(o string) bool {
		return strings.HasPrefix(o, "name=seccomp") && !strings.Contains(o, "unconfined")
	})
	d.mu.Unlock()
	d.sweep(ctx, engine)
	return d.level(image, sandbox.Spec{Memory: 1, CPU: 1, Pids: 1}), nil
}

// has reports whether the engine has an image. It is never fetched from elsewhere.
func (d *Driver) has(ctx context.Context, engine *client.Client, image string) error {
	if image == "" {
		return errors.New("there is no image for it: sandbox.images of config.yaml names none")
	}
	_, err := engine.ImageInspect(ctx, image)
	if cerrdefs.IsNotFound(err) {
		return fmt.Errorf("the Docker engine has no image %s; scripts/sandbox-image makes those for python and nodejs", image)
	}
	if err != nil {
		return fmt.Errorf("ask the Docker engine for the image %s: %w", image, err)
	}
	return nil
}

// Start makes a container for the program and starts it.
func (d *Driver) Start(ctx context.Context, s sandbox.Spec, p sandbox.Program) (_ sandbox.Running, err error) {
	started := false
	defer func() {
		if !started {
			p.Close()
		}
	}()
	if f := sandbox.Check(s, p); f != nil {
		return nil, f
	}
	engine, err := d.dial()
	if err != nil {
		return nil, none(err)
	}
	image := d.image(s.Image)
	if err := d.has(ctx, engine, image); err != nil {
		return nil, none(err)
	}
	if err := share(s); err != nil {
		return nil, pipeline.Failuref(pipeline.CategorySystem, "open the workspace to the container's user: %v", err)
	}
	made, err := engine.ContainerCreate(ctx, client.ContainerCreateOptions{Config: d.config(image, s, p), HostConfig: hostConfig(s)})
	if err != nil {
		return nil, pipeline.Failuref(pipeline.CategorySystem, "make a container: %v", err)
	}
	r := &running{d: d, engine: engine, id: made.ID, level: d.level(image, s), done: make(chan struct{})}
	if err := r.begin(ctx, p); err != nil {
		r.remove()
		return nil, err
	}
	started = true
	return r, nil
}

// none is the failure of what cannot be locked in.
func none(err error) *pipeline.Failure {
	f := pipeline.Failuref(pipeline.CategorySystem, "%v", err)
	f.Reason = sandbox.ReasonNone
	return f
}

// The labels by which a container tells whose it is.
const (
	labelHost = "orchestrator.sandbox.host"
	labelPid  = "orchestrator.sandbox.pid"
	labelLife = "orchestrator.sandbox.life"
)

// life tells this process from those that had its id before.
var life = rand.Text()

func labels() map[string]string {
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	return map[string]string{labelHost: host, labelPid: strconv.Itoa(os.Getpid()), labelLife: life}
}

// sweep removes, once, the containers of processes of this machine that were
// killed and could not do it themselves.
func (d *Driver) sweep(ctx context.Context, engine *client.Client) {
	d.mu.Lock()
	first := !d.swept
	d.swept = true
	d.mu.Unlock()
	if !first {
		return
	}
	own := labels()
	list, err := engine.ContainerList(ctx, client.ContainerListOptions{
		All: true, Filters: make(client.Filters).Add("label", labelHost+"="+own[labelHost]),
	})
	if err != nil {
		d.log().Warn("containers of earlier processes not found", "err", err)
		return
	}
	for _, c := range list.Items {
		pid, err := strconv.Atoi(c.Labels[labelPid])
		if err != nil || c.Labels[labelLife] == life {
			continue
		}
		if pid == os.Getpid() || errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) {
			if _, err := engine.ContainerRemove(ctx, c.ID, client.ContainerRemoveOptions{Force: true, RemoveVolumes: true}); err != nil {
				d.log().Warn("container of an earlier process not removed", "container", c.ID, "err", err)
			}
		}
	}
}

func (d *Driver) log() *slog.Logger { return cmp.Or(d.Logger, slog.Default()) }
