package sandbox

import (
	"cmp"
	"context"
	"os"
	"path/filepath"

	"github.com/orchestrator-project/orchestrator/pipeline"
)

// Host runs programs bare, as the server's user: nothing is held. It is what runs
// the commands that nobody asked to lock in; for those that are to be locked in,
// a server has it only where its configuration says so.
type Host struct {
	// Guarded has a small process stand beside each program, which ends what the
	// program has started if this process is killed. It is for programs that live long.
	Guarded bool
}

var _ Driver = Host{}

// Name is host.
func (Host) Name() string { return HostRun }

// Probe finds a level at which nothing is held.
func (Host) Probe(context.Context) (Level, error) { return Level{Driver: HostRun}, nil }

// Start runs the program in a process group of its own. What leaves the group, as
// setsid does, is out of reach.
func (h Host) Start(ctx context.Context, s Spec, p Program) (Running, error) {
	defer p.Close()
	if ctx.Err() != nil {
		return nil, ended(ctx)
	}
	if !filepath.IsAbs(s.Workspace) {
		return nil, pipeline.Failuref(pipeline.CategorySystem, "the run has no workspace")
	}
	path, err := LookUp(p.Argv[0], s.Workspace, p.Environ, nil)
	if err != nil {
		return nil, err
	}
	files, done, err := p.Files()
	if err != nil {
		return nil, err
	}
	defer done()
	c, err := StartChild(ctx, p.Argv[0], path, p.Argv, p.Environ, cmp.Or(p.Dir, s.Workspace), files, nil)
	if err != nil {
		return nil, err
	}
	b := bare{Child: c}
	if h.Guarded {
		b.guard = guarding(c.Proc.Pid)
	}
	return b, nil
}

type bare struct {
	*Child
	guard *guard // nil: none
}

func (bare) Level() Level { return Level{Driver: HostRun} }

func (b bare) Wait() (Exit, error) {
	defer b.guard.end()
	return b.Child.Wait()
}

// Files are the three streams of a program, the missing ones replaced by
// /dev/null, which done closes. The error is a *pipeline.Failure.
func (p Program) Files() (files []*os.File, done func(), err error) {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return nil, nil, pipeline.Failuref(pipeline.CategorySystem, "open %s: %v", os.DevNull, err)
	}
	return []*os.File{cmp.Or(p.Stdin, null), cmp.Or(p.Stdout, null), cmp.Or(p.Stderr, null)}, func() { null.Close() }, nil
}
