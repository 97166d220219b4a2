package step

import (
	"context"
	"strings"
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

sandbox: true, or a mapping with driver, network, memory, pids, cpu and timeout, locks the program in: without a network unless network is true, with nothing to change but the workspace and a scratch space in /tmp, without the server's files, the machine's other processes and privileges, and within bounds. What really holds for it stands in the log. A program that is locked in is killed at once at the end of its time, and nothing that it has started outlives it. Where the server has no sandbox such a step fails; docs/guide/sandbox.md tells how to get one.

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
	set   *sandbox.Set
}

// Command is the action behind the command and run steps of the language. It is
// not in All: pipelines do not name it.
func Command(cfg Config) executor.Action {
	return prepare(executor.NewAction[CommandStep](executor.Describe{
		Name: "command", Doc: commandDoc, Effect: pipeline.EffectAtLeastOnce, Workspace: true,
	}), func(c *CommandStep) { c.set = cfg.Sandbox })
}

// Run runs the program. The output of one that fails is kept.
func (c CommandStep) Run(ctx context.Context, env executor.Env) (executor.Output, error) {
	argv, name, err := c.argv()
	if err != nil {
		return executor.Output{}, err
	}
	p := program{argv: argv, name: name, stdin: c.Stdin, grace: c.grace, start: sandbox.Host{}.Start}
	if env.Sandbox != nil {
		p.start = confined(env, c.set, env.Sandbox, "")
	}
	out, err := p.run(ctx, env, env.Log)
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

// program is something to run in the workspace.
type program struct {
	argv  []string
	name  string        // for messages
	stdin string        // what it reads
	grace time.Duration // 0: grace
	start starter       // how it is started: bare or locked in
}

// starter starts a program, as sandbox.Driver does.
type starter func(ctx context.Context, s sandbox.Spec, p sandbox.Program) (sandbox.Running, error)

// run starts the program, passes what it writes to the log, and returns when it
// has ended and its output is closed, or given up. The capture holds what it wrote,
// also where it failed; nil: nothing can be said of that.
func (p program) run(ctx context.Context, env executor.Env, log func(stream, text string)) (*capture, error) {
	if ctx.Err() != nil {
		return nil, ended(ctx)
	}
	if p.grace == 0 {
		p.grace = grace
	}
	stdin, err := sandbox.Input(p.stdin)
	if err != nil {
		return nil, pipeline.Failuref(pipeline.CategoryResource, "prepare the standard input: %v", err)
	}
	out, err := newCapture(log)
	if err != nil {
		stdin.Close()
		return nil, pipeline.Failuref(pipeline.CategorySystem, "open pipes: %v", err)
	}
	proc, err := p.start(ctx, sandbox.Spec{Workspace: env.Workspace}, sandbox.Program{
		Argv: p.argv, Environ: env.Environ, Stdin: stdin, Stdout: out.stdout.w, Stderr: out.stderr.w,
	})
	if err != nil {
		out.close()
		return nil, err
	}
	out.started()
	stopped := p.watch(ctx, proc, out)
	exit, err := proc.Wait()
	out.finish()
	switch {
	case out.tooLarge():
		return nil, tooLarge("%s wrote more than %s to standard output; write it to a file instead", p.name, size(maxValue))
	case stopped != nil:
		stopped.Message += out.tail(env.Redact)
		return out, stopped
	case err != nil:
		return nil, err
	}
	if f := verdict(p.name, exit, env.Sandbox); f != nil {
		f.Message += out.tail(env.Redact)
		return out, f
	}
	return out, nil
}

// watch returns when the program has ended and its output with it. It ends both
// where they go on too long; then it tells why.
func (p program) watch(ctx context.Context, proc sandbox.Running, out *capture) *pipeline.Failure {
	var stopped *pipeline.Failure
	exited := proc.Done()
	select {
	case <-exited:
	case <-out.full: // the step has failed whatever comes
		p.end(proc, out)
	case <-ctx.Done():
		select {
		case <-exited: // it was faster
		default:
			stopped = ended(ctx)
			p.end(proc, out)
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
	return stopped
}

// end asks the program to stop and kills it if it does not.
func (p program) end(proc sandbox.Running, out *capture) {
	proc.Terminate()
	late := time.NewTimer(p.grace)
	defer late.Stop()
	for exited, drained := proc.Done(), (<-chan struct{})(out.drained); exited != nil || drained != nil; {
		select {
		case <-exited:
			exited = nil
		case <-drained:
			drained = nil
		case <-late.C:
			proc.Kill()
			<-proc.Done()
			return
		}
	}
}

// verdict is the failure that an exit means, or nil.
func verdict(name string, exit sandbox.Exit, box *pipeline.Sandbox) *pipeline.Failure {
	var f *pipeline.Failure
	switch {
	case exit.Limit == sandbox.LimitTime && box != nil:
		f = pipeline.Failuref(pipeline.CategoryTimeout, "the sandbox's time of %s is over", box.Timeout)
		f.Reason = "sandbox_time"
	case exit.Limit == sandbox.LimitMemory:
		f = pipeline.Failuref(pipeline.CategoryResource, "%s was ended as it took more memory than its sandbox has", name)
		f.Reason = "sandbox_memory"
	case exit.Limit == sandbox.LimitDisk:
		f = pipeline.Failuref(pipeline.CategoryResource, "%s was ended as it wrote more to the disk than its sandbox lets it", name)
		f.Reason = "sandbox_disk"
	case exit.Signal > 0:
		f = pipeline.Failuref(pipeline.CategoryFailed, "%s was ended by signal %s (%s)", name, unix.SignalName(exit.Signal), exit.Signal)
		f.Reason = "signal"
	case exit.Code == 0:
		return nil
	default:
		f = pipeline.Failuref(pipeline.CategoryFailed, "%s ended with exit code %d", name, exit.Code)
		f.Reason = "exit_code"
	}
	f.ExitCode = &exit.Code
	return f
}
