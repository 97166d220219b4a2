package process

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/orchestrator-project/orchestrator/executor/sandbox"
	"github.com/orchestrator-project/orchestrator/pipeline"
)

// tryTime is how long it may take to find out whether a sandbox works here.
const tryTime = 10 * time.Second

// rung is how much of the isolation a machine allows.
type rung struct {
	bwrap string
	users bool // a user namespace of its own
	proc  bool // a /proc of its own; else an empty one
	seals bool // the program can be kept from making more user namespaces
	guard bool // for root: the machine's devices and bwrap cannot be changed
}

// rungs are what is tried, the strictest first: root may do without a user
// namespace, which some containers forbid, and others forbid only /proc.
func rungs(bwrap string) []rung {
	root := os.Geteuid() == 0
	guard := root && guards(bwrap)
	list := []rung{{bwrap, true, true, true, guard}, {bwrap, true, true, false, guard}}
	if root {
		list = append(list, rung{bwrap, false, true, false, guard})
	}
	return append(list, rung{bwrap, true, false, false, guard})
}

// Probe tries the sandbox out, until it has worked once, with a program that does
// nothing, as not every machine allows one.
func (d *Driver) Probe(ctx context.Context) (sandbox.Level, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.rung != nil {
		return d.level, nil
	}
	find := d.Find
	if find == nil {
		find = look
	}
	bwrap, err := find()
	if err != nil {
		return sandbox.Level{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, tryTime)
	defer cancel()
	dir, err := os.MkdirTemp("", "orchestrator-sandbox-")
	if err != nil {
		return sandbox.Level{}, fmt.Errorf("make a folder to try it in: %w", err)
	}
	defer os.RemoveAll(dir)
	var first error
	for _, r := range rungs(bwrap) {
		level, err := d.try(ctx, r, dir)
		if err == nil {
			d.rung, d.level = &r, level
			return level, nil
		}
		if first == nil {
			first = err
		}
	}
	return sandbox.Level{}, fmt.Errorf("bwrap does not work here: %w; the machine, or the container that this server runs in, must allow user namespaces", first)
}

// try runs a program that does nothing and learns what holds for it.
func (d *Driver) try(ctx context.Context, r rung, dir string) (sandbox.Level, error) {
	stderr, w, err := os.Pipe()
	if err != nil {
		return sandbox.Level{}, err
	}
	defer stderr.Close()
	p, err := d.start(ctx, r, sandbox.Spec{Workspace: dir, Memory: 1 << 30, CPU: 1, Pids: 100}, sandbox.Program{
		Argv: []string{"/bin/sh", "-c", ":"}, Environ: []string{"PATH=/usr/bin:/bin"}, Stderr: w,
	})
	if err != nil {
		return sandbox.Level{}, err
	}
	stop := context.AfterFunc(ctx, p.Kill)
	defer stop()
	exit, err := p.Wait()
	if err == nil && exit.Code != 0 {
		said := make([]byte, 1024)
		n, _ := stderr.Read(said)
		err = errors.New(cmp.Or(strings.Join(strings.Fields(string(said[:n])), " "), fmt.Sprintf("exit code %d", exit.Code)))
	}
	return p.Level(), err
}

// look finds bwrap in the PATH of this process.
func look() (string, error) {
	path, err := exec.LookPath("bwrap")
	if err != nil {
		return "", errors.New("the program bwrap is not installed; it comes with the package bubblewrap (apt-get install bubblewrap)")
	}
	return filepath.Abs(path)
}

// Start runs a program locked in.
func (d *Driver) Start(ctx context.Context, s sandbox.Spec, p sandbox.Program) (sandbox.Running, error) {
	if _, err := d.Probe(ctx); err != nil {
		p.Close()
		f := pipeline.Failuref(pipeline.CategorySystem, "%v", err)
		f.Reason = sandbox.ReasonNone
		return nil, f
	}
	r := d.rung // does not change any more
	return d.start(ctx, *r, s, p)
}
