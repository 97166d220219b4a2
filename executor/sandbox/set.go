package sandbox

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/orchestrator-project/orchestrator/pipeline"
)

// ReasonNone is the reason of the failure of what is to be locked in and cannot be.
const ReasonNone = "no_sandbox"

// Set is the sandboxes of a server. A nil Set has none.
type Set struct {
	// Drivers are those that its configuration names, the preferred one first. Host is
	// among them only where the configuration says that programs may run bare.
	Drivers []Driver
	// Limits is what a program may use where nobody says anything else; only its
	// Memory, CPU, Pids and Disk count.
	Limits Spec
}

// Strict is the Set without Host: whatever it starts is locked in.
func (s *Set) Strict() *Set {
	if s == nil {
		return nil
	}
	return &Set{Limits: s.Limits, Drivers: slices.DeleteFunc(slices.Clone(s.Drivers), func(d Driver) bool { return d.Name() == HostRun })}
}

// Pick is the driver of that name, or the first that works where the name is
// empty, and what it holds. The error is a *pipeline.Failure with the reason
// no_sandbox that says how to get one.
func (s *Set) Pick(ctx context.Context, name string) (Driver, Level, error) {
	if name == "bubblewrap" || name == "bwrap" {
		name = Process // as results and pipelines called it before there were others
	}
	var names []string
	var why error
	if s != nil {
		for _, d := range s.Drivers {
			names = append(names, d.Name())
			if name != "" && d.Name() != name {
				continue
			}
			level, err := d.Probe(ctx)
			if err == nil {
				return d, level, nil
			}
			if ctx.Err() != nil {
				return nil, Level{}, ended(ctx)
			}
			why = errors.Join(why, fmt.Errorf("%s: %w", d.Name(), err))
		}
	}
	f := pipeline.Failuref(pipeline.CategorySystem, "")
	f.Reason = ReasonNone
	switch {
	case why != nil:
		f.Message = fmt.Sprintf("there is no sandbox that works here, and it does not run without one:\n%v", why)
	case len(names) == 0:
		f.Message = "this server has no sandbox, and it does not run without one; sandbox.drivers in config.yaml names the drivers it may use"
	default:
		f.Kind = pipeline.CategoryValidation
		f.Message = fmt.Sprintf("there is no sandbox %s; sandbox.drivers of this server has %s", name, listed(names))
	}
	return nil, Level{}, f
}

func listed(names []string) string {
	last := len(names) - 1
	if last == 0 {
		return names[0]
	}
	return strings.Join(names[:last], ", ") + " and " + names[last]
}

// Start runs a program locked in as want says, where it says anything; place is
// where: its Workspace, Readable and Image count. The error is a *pipeline.Failure.
func (s *Set) Start(ctx context.Context, want *pipeline.Sandbox, place Spec, p Program) (Running, error) {
	want = cmp.Or(want, &pipeline.Sandbox{})
	d, _, err := s.Pick(ctx, want.Driver)
	if err != nil {
		p.Close()
		return nil, err
	}
	spec := Spec{
		Workspace: place.Workspace, Readable: place.Readable, Image: place.Image, Network: want.Network,
		Memory: cmp.Or(want.Memory, s.Limits.Memory), CPU: cmp.Or(want.CPU, s.Limits.CPU),
		Pids: cmp.Or(want.Pids, s.Limits.Pids), Disk: s.Limits.Disk,
	}
	r, err := d.Start(ctx, spec, p)
	if err != nil {
		return nil, err
	}
	return watch(r, spec, want.Timeout), nil
}

// watched is a program whose time and disk are looked after.
type watched struct {
	Running
	level Level
	broke atomic.Pointer[string] // the bound for which it was killed
	stop  chan struct{}          // closed when nobody needs to look any more
	once  sync.Once
	eyes  sync.WaitGroup
}

func watch(r Running, s Spec, limit time.Duration) Running {
	w := &watched{Running: r, level: r.Level(), stop: make(chan struct{})}
	if s.Disk > 0 && w.level.Driver != HostRun {
		if q := newQuota(s.Workspace, s.Disk); q != nil {
			w.level.Disk = "watch"
			w.eyes.Go(func() { w.look(q) })
		}
	}
	if limit > 0 {
		w.eyes.Go(func() { w.await(limit) })
	}
	return w
}

func (w *watched) Level() Level { return w.level }

// kill ends the program for the bound that it broke, the first one counts.
func (w *watched) kill(limit string) {
	w.broke.CompareAndSwap(nil, &limit)
	w.Kill()
}

// await ends the program after its time.
func (w *watched) await(limit time.Duration) {
	late := time.NewTimer(limit)
	defer late.Stop()
	select {
	case <-late.C:
		w.kill(LimitTime)
	case <-w.stop:
	}
}

// look ends the program when it has written too much. How often it looks bounds
// what a program can write beyond: the disk's speed times this.
func (w *watched) look(q *quota) {
	tick := time.NewTicker(250 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			if q.exceeded() {
				w.kill(LimitDisk)
				return
			}
		case <-w.stop:
			return
		}
	}
}

func (w *watched) Wait() (Exit, error) {
	<-w.Done()
	w.once.Do(func() { close(w.stop) })
	w.eyes.Wait()
	exit, err := w.Running.Wait()
	if broke := w.broke.Load(); broke != nil {
		exit.Limit = *broke
	}
	return exit, err
}
