package sandbox

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync"
	"syscall"
	"time"

	"github.com/orchestrator-project/orchestrator/pipeline"
)

// Child is a process of this machine that leads a group of its own. Until Wait
// has returned its id, and so the id of its group, cannot be given to another.
type Child struct {
	Proc *os.Process

	exited chan struct{} // closed when the process has ended
	wait   sync.WaitGroup

	mu     sync.Mutex // guards reaped
	reaped bool
}

// StartChild runs a program in a group of its own; path is what to execute, and
// files are its first descriptors, which stay the caller's. If this process is killed,
// so is the child: the goroutine that starts it keeps its thread until the child has
// ended, as on Linux the kernel kills the child when that thread ends. before, if
// any, is called on that thread, which serves nothing else afterwards. name stands
// in messages. The error is a *pipeline.Failure.
func StartChild(ctx context.Context, name, path string, argv, environ []string, dir string, files []*os.File, before func() error) (*Child, error) {
	c := &Child{exited: make(chan struct{})}
	started := make(chan error)
	if environ == nil {
		environ = []string{} // nil would mean our own
	}
	c.wait.Go(func() {
		runtime.LockOSThread()
		var err error
		if before == nil {
			defer runtime.UnlockOSThread()
		} else if err = before(); err != nil {
			started <- pipeline.Failuref(pipeline.CategorySystem, "prepare to start %s: %v", name, err)
			return
		}
		for delay := 5 * time.Millisecond; ; delay *= 2 {
			c.Proc, err = os.StartProcess(path, argv, &os.ProcAttr{Dir: dir, Env: environ, Sys: attributes(), Files: files})
			// A file that this process has just written may still be open in a
			// child between fork and exec.
			if !errors.Is(err, syscall.ETXTBSY) || delay > 200*time.Millisecond || !pause(ctx, delay) {
				break
			}
		}
		started <- err
		if err == nil {
			awaitExit(c.Proc.Pid)
			close(c.exited)
		}
	})
	err := <-started
	if err == nil {
		return c, nil
	}
	c.wait.Wait()
	if f, ok := errors.AsType[*pipeline.Failure](err); ok {
		return nil, f
	}
	return nil, notStarted(ctx, err, name, dir)
}

// pause waits for d; it reports whether ctx let it.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// notStarted is the failure of a program that could not be executed.
func notStarted(ctx context.Context, err error, name, dir string) *pipeline.Failure {
	if ctx.Err() != nil {
		return ended(ctx)
	}
	errno, _ := errors.AsType[syscall.Errno](err)
	f := pipeline.Failuref(pipeline.CategoryValidation, "%s cannot be run: %s", name, errno)
	f.Reason = "not_executable"
	switch errno {
	case syscall.E2BIG:
		f.Message, f.Reason = "the arguments and environment are larger than the system allows; pass what is long in a file or on standard input", "arguments_too_long"
	case syscall.ENOEXEC:
		f.Message += "; a script needs a first line such as #!/bin/sh"
	case syscall.ENOENT:
		if _, err := os.Stat(dir); err != nil {
			return pipeline.Failuref(pipeline.CategorySystem, "the workspace of the run is gone")
		}
		f.Message = fmt.Sprintf("%s cannot be run: the interpreter in its first line does not exist", name)
	case syscall.EAGAIN, syscall.ENOMEM, syscall.EMFILE, syscall.ENFILE:
		f.Kind, f.Reason = pipeline.CategoryResource, ""
	case syscall.ETXTBSY:
		f.Kind, f.Reason = pipeline.CategorySystem, ""
	default:
	}
	return f
}

// ended tells why ctx has ended.
func ended(ctx context.Context) *pipeline.Failure {
	cause := context.Cause(ctx)
	if f, ok := errors.AsType[*pipeline.Failure](cause); ok {
		own := *f
		return &own
	}
	if errors.Is(cause, context.DeadlineExceeded) {
		return pipeline.Failuref(pipeline.CategoryTimeout, "the step ran out of time")
	}
	return pipeline.Failuref(pipeline.CategoryCancelled, "the step was cancelled")
}

// Done is closed when the process has ended, though not yet reaped.
func (c *Child) Done() <-chan struct{} { return c.exited }

// Terminate asks the group to end.
func (c *Child) Terminate() {
	c.signal(syscall.SIGTERM)
	c.signal(syscall.SIGCONT) // a stopped process gets no signal but these
}

// Kill ends the group.
func (c *Child) Kill() { c.signal(syscall.SIGKILL) }

func (c *Child) signal(s syscall.Signal) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.reaped {
		_ = syscall.Kill(-c.Proc.Pid, s)
	}
}

// Wait ends what is left of the group after the process, and frees its id.
func (c *Child) Wait() (Exit, error) {
	c.wait.Wait()
	c.Kill()
	c.mu.Lock()
	c.reaped = true
	state, err := c.Proc.Wait()
	c.mu.Unlock()
	if err != nil {
		return Exit{}, pipeline.Failuref(pipeline.CategorySystem, "wait for the program: %v", err)
	}
	ws, ok := state.Sys().(syscall.WaitStatus)
	if !ok {
		return Exit{}, pipeline.Failuref(pipeline.CategorySystem, "the program ended in an unknown way: %s", state)
	}
	if ws.Signaled() {
		return Exit{Code: 128 + int(ws.Signal()), Signal: ws.Signal()}, nil
	}
	return Exit{Code: ws.ExitStatus()}, nil
}
