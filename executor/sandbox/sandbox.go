// Package sandbox runs the programs of steps, tools and servers of tools: locked
// in by a driver, or bare where the server's configuration says so. It is the one
// way in which the engine starts a program, be it a command, a piece of code or a
// child that is spoken to for hours over its standard input and output.
//
// Driver is the contract; Host, the driver that holds nothing, is here, and every
// other is a child folder. A Set is what a server has of them. It never runs bare
// what is to be locked in, unless host is one of its drivers.
//
//	p, err := set.Start(ctx, step.Sandbox, sandbox.Spec{Workspace: dir}, sandbox.Program{
//		Argv: []string{"python3", "-c", code}, Environ: environ, Stdout: w,
//	})
//	...
//	<-p.Done()
//	exit, err := p.Wait()
package sandbox

import (
	"context"
	"os"
	"slices"
	"strings"
	"syscall"
)

// The names of the drivers, as configurations and pipelines call them.
const (
	Process = "process" // processes of this machine, in namespaces of their own
	Docker  = "docker"  // a container of a Docker engine
	HostRun = "host"    // bare: nothing is held
)

// Spec says what a program may use. The zero value is the strictest that there
// is, without bounds on what it takes.
type Spec struct {
	Workspace string   // absolute; the one folder that it may change, under this very name
	Readable  []string // absolute; folders that it can read besides the system's programs
	Image     string   // what its image must have: python, nodejs; empty: any. Drivers without images ignore it
	Network   bool     // false: none but its own
	Memory    int64    // bytes; 0: no bound
	CPU       float64  // processors; 0: no bound
	Pids      int      // processes and threads; 0: no bound
	Disk      int64    // bytes that it may add to the workspace; 0: no bound
}

// Scratch is how much fits into /tmp of a program that is locked in, in bytes.
const Scratch = 100 << 20

// Program is what to run.
type Program struct {
	Argv    []string // the program, by a path or as found in the PATH of Environ, and its arguments
	Environ []string // complete, as name=value; nothing is inherited
	Dir     string   // absolute, in the workspace; empty: the workspace

	// Stdin, Stdout and Stderr are the program's from Start on, which closes them,
	// also where it fails. nil: nothing to read; what is written is dropped.
	// Whoever holds the other end of a pipe must read it, or the program waits.
	Stdin, Stdout, Stderr *os.File
}

// Close gives up the streams of a program that is not started.
func (p Program) Close() {
	for _, f := range []*os.File{p.Stdin, p.Stdout, p.Stderr} {
		if f != nil {
			f.Close()
		}
	}
}

// Driver is a way to lock programs in. Its methods may be called concurrently.
type Driver interface {
	// Name is one of the names above.
	Name() string
	// Probe says what holds here for a program that asks for nothing more. The
	// error says why there is no such sandbox here, and how to get it.
	Probe(ctx context.Context) (Level, error)
	// Start runs a program. ctx bounds the start alone: whoever starts a program
	// ends it. The error is a *pipeline.Failure.
	Start(ctx context.Context, s Spec, p Program) (Running, error)
}

// Running is a program that was started. All methods but Wait may be called at
// any time and concurrently.
type Running interface {
	// Level is what holds for it.
	Level() Level
	// Done is closed when the program itself has ended. What it has left behind
	// may still run, and write, until Wait.
	Done() <-chan struct{}
	// Terminate asks it to end. What is locked in may be killed at once.
	Terminate()
	// Kill ends it with everything that it has started.
	Kill()
	// Wait waits for its end, ends what it has left behind, frees what was held
	// for it, and says how it ended. It is to be called once, also after Kill.
	Wait() (Exit, error)
}

// What ended a program that took more than it may.
const (
	LimitTime   = "time"
	LimitMemory = "memory"
	LimitDisk   = "disk"
)

// Exit is how a program ended.
type Exit struct {
	Code   int            // as shells count: 128 and the signal's number where a signal ended it
	Signal syscall.Signal // that ended it; 0: none that is known
	Limit  string         // which bound it broke; empty: none that is known
}

// Level is what isolation holds for a program: what was reached, not what was
// wished for.
type Level struct {
	Driver    string
	Image     string // the image that its programs come from; empty: this machine's programs
	Network   bool   // it reaches no network
	Files     bool   // it changes nothing but the workspace and a scratch space of its own, and reads only what it was given
	Processes bool   // it sees and reaches no processes but its own
	Users     bool   // it has no privileges outside of a user namespace, or container, of its own
	Calls     bool   // calls to the kernel that it does not need are refused

	// How a bound is held: cgroup, container, rlimit (for each process), affinity,
	// watch (looked at now and then); empty: it is not.
	Memory, CPU, Pids, Disk string
}

// String is the level in a line for people.
func (l Level) String() string {
	var apart, open, bound, free []string
	for _, x := range []struct {
		name string
		held bool
	}{{"network", l.Network}, {"files", l.Files}, {"processes", l.Processes}, {"users", l.Users}, {"calls", l.Calls}} {
		if x.held {
			apart = append(apart, x.name)
		} else {
			open = append(open, x.name)
		}
	}
	for _, x := range []struct{ name, by string }{{"memory", l.Memory}, {"cpu", l.CPU}, {"pids", l.Pids}, {"disk", l.Disk}} {
		if x.by != "" {
			bound = append(bound, x.name+" by "+x.by)
		} else {
			free = append(free, x.name)
		}
	}
	var parts []string
	for _, part := range []struct {
		name string
		list []string
	}{{"apart", apart}, {"open", open}, {"bound", bound}, {"not bound", free}} {
		if len(part.list) > 0 {
			parts = append(parts, part.name+": "+strings.Join(part.list, ", "))
		}
	}
	name := l.Driver
	if l.Image != "" {
		name += " (" + l.Image + ")"
	}
	return name + "; " + strings.Join(parts, "; ")
}

// Value is the level as a value of the language.
func (l Level) Value() map[string]any {
	return map[string]any{
		"driver": l.Driver, "image": l.Image, "network": l.Network, "files": l.Files, "processes": l.Processes, "users": l.Users, "calls": l.Calls,
		"memory": l.Memory, "cpu": l.CPU, "pids": l.Pids, "disk": l.Disk,
	}
}

// Variable is the value of a variable in an environment.
func Variable(environ []string, name string) string {
	for _, kv := range slices.Backward(environ) {
		if v, ok := strings.CutPrefix(kv, name+"="); ok {
			return v
		}
	}
	return ""
}
