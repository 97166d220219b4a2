package step

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/orchestrator-project/orchestrator/executor"
	"github.com/orchestrator-project/orchestrator/executor/sandbox"
	"github.com/orchestrator-project/orchestrator/pipeline"
	"github.com/orchestrator-project/orchestrator/pipeline/expr"
)

const commandDoc = `Runs a program in the workspace.

    - id: test
      command: [go, test, ./...]        # the program and its arguments, taken as they are
    - id: todo
      run: grep -rn TODO . | wc -l      # a line for the shell, sh -c
      capture: lines

The program sees the step's environment and nothing else; its standard input is empty. What it writes is shown as it comes. Its standard output becomes the step's output: as a text without the final newline, as a list of lines, or as the JSON value it spells.

An exit code other than 0 fails the step; the message shows the end of what the program wrote to standard error, and the output is kept. A program that leaves background processes behind is over when it ends itself: what it left gets five seconds if it still holds the output, then it is killed (setsid takes a process out of the step). At the end of the step's time the whole process group gets SIGTERM, and SIGKILL five seconds later.

sandbox: true, or a mapping with network, memory, pids, cpu and timeout, locks the program in by bubblewrap (bwrap): without a network unless network is true, with the file system read-only but for the workspace and an empty /tmp, without the machine's other processes and without privileges. A program that is locked in is killed at once at the end of its time. Where there is no bubblewrap, such a step fails.

In a run line quote every value with the filter sh: run: grep {{ pattern | sh }} notes.txt`

// The forms of a program's output.
const (
	captureText  = "text"
	captureLines = "lines"
	captureJSON  = "json"
)

// grace is how long a process may go on after SIGTERM, and how long what a
// command left behind may hold its output open.
const grace = 5 * time.Second

// CommandStep is a program to run: an argv, or a line for the shell.
type CommandStep struct {
	Command []any  `doc:"the program and its arguments"`
	Line    string `param:"run" doc:"a line for the shell"`
	Capture string `default:"\"text\"" enum:"text,lines,json" doc:"how standard output becomes the step's output"`
	Stdin   string `doc:"what the program reads from standard input; default: nothing"`

	grace time.Duration // 0: grace; tests shorten it
}

// Command is the action behind the command and run steps of the language. It is
// not in All: pipelines do not name it.
func Command() executor.Action {
	return executor.NewAction[CommandStep](executor.Describe{
		Name: "command", Doc: commandDoc, Effect: pipeline.EffectAtLeastOnce, Workspace: true,
	})
}

// Run runs the program. The output of one that fails is kept.
func (c CommandStep) Run(ctx context.Context, env executor.Env) (executor.Output, error) {
	argv, name, err := c.argv()
	if err != nil {
		return executor.Output{}, err
	}
	out, err := program{argv: argv, name: name, stdin: c.Stdin, grace: c.grace, confine: env.Sandbox != nil}.run(ctx, env, env.Log)
	if out == nil {
		return executor.Output{}, err
	}
	v, wrong := out.value(c.Capture)
	if wrong != nil {
		v = out.text()
		if err == nil {
			err = wrong
		}
	}
	return executor.Output{Value: v}, err
}

// argv is what to execute, and its name for messages.
func (c CommandStep) argv() (argv []string, name string, err error) {
	switch {
	case len(c.Command) > 0 && c.Line != "":
		return nil, "", invalid("a step has either command or run, not both")
	case c.Line != "":
		if strings.ContainsRune(c.Line, 0) {
			return nil, "", invalid("the command line holds a NUL character")
		}
		return []string{"/bin/sh", "-c", c.Line}, "the command", nil
	case len(c.Command) == 0:
		return nil, "", invalid("the command is empty")
	}
	for i, a := range c.Command {
		if a == nil {
			return nil, "", invalid("argument %d of the command is null", i)
		}
		s := expr.Text(a)
		if strings.ContainsRune(s, 0) {
			return nil, "", invalid("argument %d of the command holds a NUL character", i)
		}
		argv = append(argv, s)
	}
	if argv[0] == "" {
		return nil, "", invalid("the command's name is empty")
	}
	return argv, argv[0], nil
}

// lookUp finds the program as a shell would, by the step's own PATH.
func lookUp(name string, env executor.Env) (string, error) {
	refuse := func(reason, format string, args ...any) (string, error) {
		f := invalid(format, args...)
		f.Reason = reason
		return "", f
	}
	if strings.Contains(name, "/") {
		path := name
		if !filepath.IsAbs(path) {
			path = filepath.Join(env.Workspace, path)
		}
		info, err := os.Stat(path)
		switch {
		case errors.Is(err, os.ErrNotExist):
			return refuse("command_not_found", "there is no file %s to run", name)
		case err != nil:
			return refuse("not_executable", "%s cannot be run: %v", name, errors.Unwrap(err))
		case info.IsDir():
			return refuse("not_executable", "%s is a folder, not a program", name)
		case info.Mode()&0o111 == 0:
			return refuse("not_executable", "%s is not executable; chmod +x makes it so", name)
		}
		return path, nil
	}
	search := ""
	for _, e := range env.Environ {
		if v, ok := strings.CutPrefix(e, "PATH="); ok {
			search = v
		}
	}
	for _, dir := range filepath.SplitList(search) {
		if !filepath.IsAbs(dir) {
			dir = filepath.Join(env.Workspace, dir)
		}
		path := filepath.Join(dir, name)
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0 {
			return path, nil
		}
	}
	return refuse("command_not_found", "there is no command %s in the step's PATH (%s)", name, search)
}

// program is something to run in the workspace.
type program struct {
	argv  []string
	name  string        // for messages
	stdin string        // what it reads
	grace time.Duration // 0: grace

	confine bool // it is locked in, as the step says
}

// run starts the program in a process group of its own, passes what it writes to
// the log, and returns when it has ended and its output is closed, or given up.
// The capture holds what it wrote, also where it failed; nil: nothing can be said
// of that.
func (p program) run(ctx context.Context, env executor.Env, log func(stream, text string)) (*capture, error) {
	if ctx.Err() != nil {
		return nil, ended(ctx)
	}
	if x := env.Sandbox; x != nil && x.Timeout > 0 {
		var stop context.CancelFunc
		ctx, stop = context.WithTimeoutCause(ctx, x.Timeout, pipeline.Failuref(pipeline.CategoryTimeout, "the sandbox's time of %s is over", x.Timeout))
		defer stop()
	}
	if !filepath.IsAbs(env.Workspace) {
		return nil, pipeline.Failuref(pipeline.CategorySystem, "the run has no workspace")
	}
	path, err := lookUp(p.argv[0], env)
	if err != nil {
		return nil, err
	}
	if p.confine {
		line, err := confined(ctx, env, sandbox.Bubblewrap{}, append([]string{path}, p.argv[1:]...))
		switch {
		case ctx.Err() != nil:
			return nil, ended(ctx)
		case err != nil:
			return nil, noSandbox(err)
		}
		path, p.argv = line[0], line
	}
	if p.grace == 0 {
		p.grace = grace
	}
	stdin, err := standardInput(p.stdin)
	if err != nil {
		return nil, pipeline.Failuref(pipeline.CategoryResource, "prepare the standard input: %v", err)
	}
	defer stdin.Close()
	out, err := newCapture(log)
	if err != nil {
		return nil, pipeline.Failuref(pipeline.CategorySystem, "open pipes: %v", err)
	}
	proc, err := start(ctx, path, p.argv, env, stdin, out)
	if err != nil {
		out.close()
		return nil, err
	}
	stopped := p.watch(ctx, proc, out)
	state, err := proc.reap()
	out.finish()
	switch {
	case out.tooLarge():
		return nil, tooLarge("%s wrote more than %s to standard output; write it to a file instead", p.name, size(maxValue))
	case stopped != nil:
		stopped.Message += out.tail(env.Redact)
		return out, stopped
	case err != nil:
		return nil, pipeline.Failuref(pipeline.CategorySystem, "wait for %s: %v", p.name, err)
	}
	if f := verdict(p.name, state); f != nil {
		f.Message += out.tail(env.Redact)
		return out, f
	}
	return out, nil
}

// standardInput is a file with that text, which has no name any more, so that
// nothing waits for a program that does not read it.
func standardInput(text string) (*os.File, error) {
	if text == "" {
		return os.Open(os.DevNull)
	}
	f, err := os.CreateTemp("", "orchestrator-stdin-")
	if err != nil {
		return nil, err
	}
	err = os.Remove(f.Name())
	if err == nil {
		_, err = f.WriteString(text)
	}
	if err == nil {
		_, err = f.Seek(0, io.SeekStart)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// process is a running program. Until it is reaped its id, and so the id of its
// group, cannot be given to another.
type process struct {
	proc   *os.Process
	exited chan struct{} // closed when the program has ended
	wait   sync.WaitGroup
}

// start runs the program in a group of its own. The goroutine that starts it
// keeps its thread until the program has ended: on Linux the kernel kills the
// program when that thread ends, which shall mean that the server was killed.
func start(ctx context.Context, path string, argv []string, env executor.Env, stdin *os.File, out *capture) (*process, error) {
	p := &process{exited: make(chan struct{})}
	started := make(chan error)
	environ := env.Environ
	if environ == nil {
		environ = []string{} // nil would mean our own
	}
	p.wait.Go(func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		var err error
		for delay := 5 * time.Millisecond; ; delay *= 2 {
			p.proc, err = os.StartProcess(path, argv, &os.ProcAttr{
				Dir: env.Workspace, Env: environ, Sys: processAttributes(),
				Files: []*os.File{stdin, out.stdout.w, out.stderr.w},
			})
			// A file that this process has just written may still be open in a
			// child between fork and exec.
			if !errors.Is(err, syscall.ETXTBSY) || delay > 200*time.Millisecond || pause(ctx, delay) != nil {
				break
			}
		}
		started <- err
		if err == nil {
			awaitExit(p.proc.Pid)
			close(p.exited)
		}
	})
	err := <-started
	if err == nil {
		out.started()
		return p, nil
	}
	p.wait.Wait()
	if ctx.Err() != nil {
		return nil, ended(ctx)
	}
	errno, _ := errors.AsType[syscall.Errno](err)
	f := invalid("%s cannot be run: %s", argv[0], errno)
	f.Reason = "not_executable"
	switch errno {
	case syscall.E2BIG:
		f.Message, f.Reason = "the arguments and environment are larger than the system allows; pass them in a file", "arguments_too_long"
	case syscall.ENOEXEC:
		f.Message += "; a script needs a first line such as #!/bin/sh"
	case syscall.ENOENT:
		if _, err := os.Stat(env.Workspace); err != nil {
			return nil, pipeline.Failuref(pipeline.CategorySystem, "the workspace of the run is gone")
		}
		f.Message = fmt.Sprintf("%s cannot be run: the interpreter in its first line does not exist", argv[0])
	case syscall.EAGAIN, syscall.ENOMEM, syscall.EMFILE, syscall.ENFILE:
		f.Kind, f.Reason = pipeline.CategoryResource, ""
	case syscall.ETXTBSY:
		f.Kind, f.Reason = pipeline.CategorySystem, ""
	default:
	}
	return nil, f
}

// signal reaches the program and everything in its group. It may be called
// until the process is reaped.
func (p *process) signal(s syscall.Signal) { _ = syscall.Kill(-p.proc.Pid, s) }

// watch returns when the program has ended and its output with it. It ends both
// where they go on too long; then it tells why.
func (p program) watch(ctx context.Context, proc *process, out *capture) *pipeline.Failure {
	var stopped *pipeline.Failure
	select {
	case <-proc.exited:
	case <-out.full: // the step has failed whatever comes
		proc.end(p.grace, out)
	case <-ctx.Done():
		select {
		case <-proc.exited: // it was faster
		default:
			stopped = ended(ctx)
			proc.end(p.grace, out)
		}
	}
	if stopped == nil && ctx.Err() == nil {
		late := time.NewTimer(p.grace)
		defer late.Stop()
		select {
		case <-out.drained:
		case <-late.C:
		case <-out.full:
		case <-ctx.Done():
		}
	}
	proc.signal(syscall.SIGKILL) // nothing of the group outlives the step
	return stopped
}

// end asks the group to stop and kills it if it does not.
func (p *process) end(grace time.Duration, out *capture) {
	p.signal(syscall.SIGTERM)
	p.signal(syscall.SIGCONT) // a stopped process gets no signal but these
	late := time.NewTimer(grace)
	defer late.Stop()
	for exited, drained := p.exited, out.drained; exited != nil || drained != nil; {
		select {
		case <-exited:
			exited = nil
		case <-drained:
			drained = nil
		case <-late.C:
			p.signal(syscall.SIGKILL)
			<-p.exited
			return
		}
	}
}

// reap takes the exit state and frees the process id.
func (p *process) reap() (*os.ProcessState, error) {
	p.wait.Wait()
	return p.proc.Wait()
}

// verdict is the failure that an exit state means, or nil.
func verdict(name string, state *os.ProcessState) *pipeline.Failure {
	ws, ok := state.Sys().(syscall.WaitStatus)
	if !ok {
		return pipeline.Failuref(pipeline.CategorySystem, "%s ended in an unknown way: %s", name, state)
	}
	code, signal := ws.ExitStatus(), ws.Signal()
	var f *pipeline.Failure
	switch {
	case signal >= 0:
		code = 128 + int(signal) // as the shell counts
		f = pipeline.Failuref(pipeline.CategoryFailed, "%s was ended by signal %s (%s)", name, unix.SignalName(signal), signal)
		f.Reason = "signal"
	case code == 0:
		return nil
	default:
		f = pipeline.Failuref(pipeline.CategoryFailed, "%s ended with exit code %d", name, code)
		f.Reason = "exit_code"
	}
	f.ExitCode = &code
	return f
}
