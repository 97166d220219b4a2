package process

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"io"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/orchestrator-project/orchestrator/executor/sandbox"
	"github.com/orchestrator-project/orchestrator/pipeline"
)

// start runs a program on a rung. bwrap gets its options by a pipe and has an
// empty environment: neither its command line nor /proc/1/environ, which the
// program sees, tells anything. It waits before it executes the program until the
// bounds stand.
func (d *Driver) start(ctx context.Context, r rung, s sandbox.Spec, p sandbox.Program) (_ *running, err error) {
	defer func() { p.Close() }()
	if ctx.Err() != nil {
		return nil, pipeline.Failuref(pipeline.CategoryCancelled, "the step was cancelled")
	}
	if f := cmp.Or(sandbox.Check(s, p), fits(s, p)); f != nil {
		return nil, f
	}
	v := d.view(r, s)
	path, err := sandbox.LookUp(p.Argv[0], s.Workspace, p.Environ, v.sees)
	if err != nil {
		return nil, err
	}
	options := v.options(path, cmp.Or(p.Dir, s.Workspace), s.Network, environ(p.Environ, s.Workspace))
	drains, err := unset(&p)
	if err != nil {
		return nil, pipeline.Failuref(pipeline.CategoryResource, "open the streams: %v", err)
	}
	plumbing, err := newPlumbing(options)
	if err != nil {
		return nil, pipeline.Failuref(pipeline.CategoryResource, "prepare the sandbox: %v", err)
	}
	defer plumbing.close()
	// What this process itself was given open is for no program, whatever it is.
	_ = unix.CloseRange(3, math.MaxUint32, unix.CLOSE_RANGE_CLOEXEC)
	line := append([]string{r.bwrap, "--args", "3", "--"}, path)
	line = append(line, p.Argv[1:]...)
	var before func() error
	if r.guard {
		before = func() error { return guard(r.bwrap) }
	}
	child, err := sandbox.StartChild(ctx, p.Argv[0], r.bwrap, line, nil, "/", append([]*os.File{p.Stdin, p.Stdout, p.Stderr}, plumbing.theirs()...), before)
	if err != nil {
		return nil, err
	}
	out := &running{Child: child, drains: drains, init: -1, fsize: s.Disk, level: sandbox.Level{
		Driver: sandbox.Process, Network: !s.Network, Files: true, Processes: true, Users: r.users && (r.guard || os.Geteuid() != 0), Calls: machine != 0,
	}}
	stop := context.AfterFunc(ctx, child.Kill)
	defer stop()
	pid, err := plumbing.pid()
	if err != nil {
		return out, nil // bwrap has ended and says why on standard error
	}
	if out.init, err = unix.PidfdOpen(pid, 0); err == nil {
		err = d.bound(out, pid, s)
	}
	if errors.Is(err, unix.ESRCH) {
		return out, nil // as above
	}
	if err != nil {
		child.Kill()
		if _, gone := out.Wait(); gone != nil {
			err = errors.Join(err, gone)
		}
		return nil, pipeline.Failuref(pipeline.CategorySystem, "bound the sandbox: %v", err)
	}
	plumbing.release()
	return out, nil
}

// unset gives a program the streams that it was not given: no /dev/null, as that is a
// file of the machine, the mode of which its owner could change.
func unset(p *sandbox.Program) (*sync.WaitGroup, error) {
	var err error
	if p.Stdin == nil {
		if p.Stdin, err = sandbox.Input(""); err != nil {
			return nil, err
		}
	}
	drains := &sync.WaitGroup{}
	for _, f := range []**os.File{&p.Stdout, &p.Stderr} {
		if *f != nil {
			continue
		}
		r, w, err := os.Pipe()
		if err != nil {
			return nil, err
		}
		*f = w
		drains.Go(func() {
			_, _ = io.Copy(io.Discard, r)
			r.Close()
		})
	}
	return drains, nil
}

// longest is the most that the kernel takes of one argument, and largest of all of
// them with the environment: beyond, bwrap would fail with a text of its own.
const (
	longest = 128<<10 - 1
	largest = 3 << 19
	most    = 8000 // arguments that bwrap takes
)

// fits refuses more than the kernel or bwrap take.
func fits(s sandbox.Spec, p sandbox.Program) *pipeline.Failure {
	sum := 0
	for _, list := range [][]string{p.Argv, p.Environ, s.Readable, {s.Workspace, p.Dir}} {
		for _, text := range list {
			if sum += len(text) + 9; len(text) > longest || sum > largest || len(p.Argv) > most {
				f := pipeline.Failuref(pipeline.CategoryValidation, "the arguments and environment are larger than the system allows; pass what is long in a file or on standard input")
				f.Reason = "arguments_too_long"
				return f
			}
		}
	}
	return nil
}

// environ is what the program sees: its home is the scratch space, where the
// one that it was given is not there.
func environ(base []string, workspace string) []string {
	out := make([]string, 0, len(base)+2)
	for _, kv := range base {
		name, value, ok := strings.Cut(kv, "=")
		switch {
		case !ok || name == "" || name == "TMPDIR":
			continue
		case name == "HOME" && !below(filepath.Clean(value), workspace):
			kv = "HOME=/tmp"
		}
		out = append(out, kv)
	}
	return append(out, "TMPDIR=/tmp")
}

// plumbing is the pipes between this process and bwrap: its options, what it says
// of the program's process, and the word to begin.
type plumbing struct {
	options, filter, info, begin [2]*os.File // read, write
}

func newPlumbing(options []string) (*plumbing, error) {
	pl := &plumbing{}
	for _, p := range []*[2]*os.File{&pl.info, &pl.begin} {
		r, w, err := os.Pipe()
		if err != nil {
			pl.close()
			return nil, err
		}
		p[0], p[1] = r, w
	}
	// Files in memory: a pipe may hold less than the environment.
	var err error
	if pl.options[0], err = sandbox.InMemory(strings.Join(options, "\x00") + "\x00"); err == nil {
		pl.filter[0], err = sandbox.InMemory(string(filter()))
	}
	if err != nil {
		pl.close()
		return nil, err
	}
	return pl, nil
}

// The descriptors that bwrap knows theirs by.
const (
	infoFD   = "4"
	beginFD  = "5"
	filterFD = "6"
)

// theirs are the ends that bwrap gets, from descriptor 3 on.
func (pl *plumbing) theirs() []*os.File {
	files := []*os.File{pl.options[0], pl.info[1], pl.begin[0]}
	if machine != 0 {
		files = append(files, pl.filter[0]) // where it does not know it, it would stay open
	}
	return files
}

// pid waits until the program's namespaces stand and returns the process that is
// the first in them.
func (pl *plumbing) pid() (int, error) {
	pl.info[1].Close() // bwrap has the other one
	pl.begin[0].Close()
	text, err := io.ReadAll(io.LimitReader(pl.info[0], 64<<10))
	if err != nil {
		return 0, err
	}
	var said struct {
		Pid int `json:"child-pid"`
	}
	if err := json.NewDecoder(bytes.NewReader(text)).Decode(&said); err != nil {
		return 0, err
	}
	if said.Pid <= 0 {
		return 0, errors.New("it names no process")
	}
	return said.Pid, nil
}

// release lets the program begin.
func (pl *plumbing) release() { _, _ = pl.begin[1].Write([]byte{1}) }

func (pl *plumbing) close() {
	for _, p := range [][2]*os.File{pl.options, pl.filter, pl.info, pl.begin} {
		for _, f := range p {
			if f != nil {
				f.Close()
			}
		}
	}
}

// running is a program that is locked in.
type running struct {
	*sandbox.Child // bwrap
	drains         *sync.WaitGroup
	init           int // a pidfd of the first process in the sandbox; -1: bwrap failed before
	group          *group
	fsize          int64
	level          sandbox.Level
}

func (r *running) Level() sandbox.Level { return r.level }

// Kill ends bwrap, and with it the first process of the sandbox, and with that
// all others.
func (r *running) Kill() { r.Child.Kill() }

// Terminate ends it as Kill does: bwrap passes no signals on.
func (r *running) Terminate() { r.Kill() }

// Wait returns when nothing of the sandbox is left.
func (r *running) Wait() (sandbox.Exit, error) {
	exit, err := r.Child.Wait()
	if r.init >= 0 {
		_ = unix.PidfdSendSignal(r.init, unix.SIGKILL, nil, 0)          // where bwrap ended, it gets one anyway
		gone := []unix.PollFd{{Fd: int32(r.init), Events: unix.POLLIN}} //nolint:gosec // a descriptor
		for {
			if _, err := unix.Poll(gone, -1); !errors.Is(err, unix.EINTR) {
				break
			}
		}
		unix.Close(r.init)
	}
	r.drains.Wait()
	switch {
	case r.group.starved() && exit.Code != 0:
		exit.Limit = sandbox.LimitMemory
	case r.fsize > 0 && exit.Code == 128+int(unix.SIGXFSZ):
		exit.Limit = sandbox.LimitDisk
	}
	r.group.remove()
	return exit, err
}

// bound sets the bounds of the process, which its children inherit.
func (d *Driver) bound(r *running, pid int, s sandbox.Spec) error {
	limit := func(what int, n int64) error {
		if n < 0 {
			n = 0
		}
		return unix.Prlimit(pid, what, &unix.Rlimit{Cur: uint64(n), Max: uint64(n)}, nil)
	}
	// One byte: a program of the machine that is given cores would get one at 0 too.
	if err := limit(unix.RLIMIT_CORE, 1); err != nil {
		return err
	}
	if s.Disk > 0 {
		if err := limit(unix.RLIMIT_FSIZE, s.Disk); err != nil {
			return err
		}
	}
	r.group = newGroup(d.Groups, s, pid)
	l := &r.level
	l.Memory, l.CPU, l.Pids = r.group.holds("memory"), r.group.holds("cpu"), r.group.holds("pids")
	if s.Memory > 0 && l.Memory == "" {
		if err := limit(unix.RLIMIT_DATA, s.Memory); err != nil {
			return err
		}
		l.Memory = "rlimit"
	}
	// The kernel does not count the processes of the user root.
	if s.Pids > 0 && l.Pids == "" && os.Geteuid() != 0 {
		if err := limit(unix.RLIMIT_NPROC, int64(s.Pids)); err != nil {
			return err
		}
		l.Pids = "rlimit"
	}
	if n := int(math.Ceil(s.CPU)); n > 0 && l.CPU == "" {
		if n < runtime.NumCPU() {
			if err := few(pid, n); err != nil {
				return err
			}
		}
		l.CPU = "affinity"
	}
	return nil
}

// few lets a process run on n of the processors that this one may use. Which ones
// differs from one program to the next.
func few(pid, n int) error {
	var ours, its unix.CPUSet
	if err := unix.SchedGetaffinity(0, &ours); err != nil {
		return err
	}
	count := ours.Count()
	skip := int(time.Now().UnixNano()/int64(time.Millisecond)) % max(1, count)
	for taken, cpu, seen := 0, 0, 0; taken < min(n, count); cpu = (cpu + 1) % 1024 {
		if !ours.IsSet(cpu) {
			continue
		}
		if seen++; seen > skip && !its.IsSet(cpu) {
			its.Set(cpu)
			taken++
		}
	}
	return unix.SchedSetaffinity(pid, &its)
}
