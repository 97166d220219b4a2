package step

import (
	"cmp"
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/orchestrator-project/orchestrator/executor"
	"github.com/orchestrator-project/orchestrator/executor/sandbox"
	"github.com/orchestrator-project/orchestrator/pipeline"
	"github.com/orchestrator-project/orchestrator/pipeline/expr"
)

const executeDoc = `Runs a piece of code in the workspace.

    - id: sum
      action: execute
      parameters:
        language: python
        code: |
          import sys
          print(sum(int(line) for line in sys.stdin))
        stdin: "1\n2\n3\n"

language is python (python3), javascript (node), bash or sh; the program must be in the step's PATH, or in the sandbox's image; sh is /bin/sh. The code sees what a command step sees, and environment; stdin is its standard input. What it writes is shown as it comes and is the output in the end: stdout and stderr, also called output and errors, each without its final newline; of stderr the first 1 MiB. An exit code other than 0 fails the step, which then has no result: what it wrote is in its log. With check: false it is a result, and success is false. At the end of timeout (default: the step's own) all its processes are killed.

The code runs in a sandbox: the first of the server's that works, or the one that the step's own sandbox names, with its bounds. Where there is none the step fails, unless the server's configuration names host among its drivers: then auto runs the code as a command step runs, and so does none in any case; required always wants a sandbox. sandbox in the result says which it was, and isolation what held.`

const maxStderr = 1 << 20

// Execute is a piece of code and where to run it.
type Execute struct {
	Language    string         `param:"required" enum:"python,javascript,bash,sh" doc:"what the code is written in"`
	Code        string         `param:"required" doc:"the program's text"`
	Environment map[string]any `doc:"more variables of the environment"`
	Stdin       string         `doc:"the standard input; default: empty"`
	Timeout     any            `type:"duration" doc:"how long it may take; default: the time limit of the step"`
	Check       bool           `default:"true" doc:"whether an exit code other than 0 fails the step; false: it is a result, with success: false"`
	Sandbox     string         `default:"\"auto\"" enum:"auto,required,none" doc:"whether it is locked in"`

	set *sandbox.Set
}

type executeResult struct {
	Stdout    string         `doc:"what it wrote to standard output"`
	Stderr    string         `doc:"what it wrote to standard error"`
	Output    string         `doc:"as stdout"`
	Errors    string         `doc:"as stderr"`
	ExitCode  int64          `doc:"0 where it succeeded"`
	Success   bool           `doc:"whether the exit code is 0"`
	Time      float64        `param:"execution_time" doc:"how long it took, in seconds"`
	Language  string         `doc:"as given"`
	Sandbox   string         `doc:"process, docker or host"`
	Isolation map[string]any `doc:"what held: network, files, processes and users say whether it was apart; memory, cpu, pids and disk by what they were bound"`
}

func executeAction(cfg Config) executor.Action {
	return prepare(executor.NewAction[Execute](executor.Describe{
		Name: "execute", Doc: executeDoc, Effect: pipeline.EffectAtLeastOnce, Workspace: true, Confined: true, Returns: executeResult{},
	}), func(e *Execute) { e.set = cfg.Sandbox })
}

// interpreters are the programs for a language, the first that is found counts,
// the ending of its files, and the image that has it.
var interpreters = map[string]struct {
	programs      []string
	ending, image string
}{
	"python":     {[]string{"python3", "python"}, ".py", "python"},
	"javascript": {[]string{"node", "nodejs"}, ".js", "nodejs"},
	"bash":       {[]string{"bash"}, ".sh", ""},
	"sh":         {[]string{"/bin/sh"}, ".sh", ""}, // as of command steps
}

// Run writes the code to a folder outside the workspace, which is removed in the
// end, and runs it as a command.
func (e Execute) Run(ctx context.Context, env executor.Env) (executor.Output, error) {
	limit, err := duration("timeout", e.Timeout)
	if err != nil {
		return executor.Output{}, err
	}
	if limit > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, limit, pipeline.Failuref(pipeline.CategoryTimeout, "the code has taken longer than %s", limit))
		defer cancel()
	}
	if env.Environ, err = e.environ(env.Environ); err != nil {
		return executor.Output{}, err
	}
	lang, ok := interpreters[e.Language]
	switch {
	case !ok:
		return executor.Output{}, invalid("parameter language is %q; it can be python, javascript, bash, sh", head(e.Language, 40))
	case strings.TrimSpace(e.Code) == "":
		return executor.Output{}, invalid("parameter code is empty")
	case !filepath.IsAbs(env.Workspace):
		return executor.Output{}, pipeline.Failuref(pipeline.CategorySystem, "the run has no workspace")
	}
	set, want := e.sandbox(env)
	_, level, err := set.Pick(ctx, want.Driver)
	if err != nil {
		return executor.Output{}, err
	}
	interpreter := lang.programs[0]
	if level.Image == "" {
		if interpreter, err = e.interpreter(env); err != nil {
			return executor.Output{}, err
		}
	}
	dir, err := os.MkdirTemp("", "orchestrator-execute-")
	if err != nil {
		return executor.Output{}, pipeline.Failuref(pipeline.CategorySystem, "make a folder for the code: %v", cause(err))
	}
	defer os.RemoveAll(dir)
	code := filepath.Join(dir, "code"+lang.ending)
	if err := os.WriteFile(code, []byte(e.Code), 0o600); err != nil {
		return executor.Output{}, pipeline.Failuref(pipeline.CategoryResource, "write the code: %v", cause(err))
	}
	return e.run(ctx, env, []string{interpreter, code}, confined(env, set, want, lang.image, dir))
}

// sandbox is where the code may run and how. What the step itself says of its
// sandbox counts most.
func (e Execute) sandbox(env executor.Env) (*sandbox.Set, *pipeline.Sandbox) {
	want := cmp.Or(env.Sandbox, &pipeline.Sandbox{})
	switch {
	case e.Sandbox == "required":
		return e.set.Strict(), want
	case e.Sandbox == "none" && env.Sandbox == nil:
		want.Driver = sandbox.HostRun
	}
	return e.set, want
}

// interpreter is the first program for the language that the step's PATH has, by
// its name.
func (e Execute) interpreter(env executor.Env) (string, error) {
	programs := interpreters[e.Language].programs
	for _, p := range programs {
		if _, err := sandbox.LookUp(p, env.Workspace, env.Environ, nil); err == nil {
			return p, nil
		}
	}
	f := invalid("%s needs the program %s, which is not in the step's PATH (%s); install it, or name its folder in the PATH",
		e.Language, strings.Join(programs, " or "), sandbox.Variable(env.Environ, "PATH"))
	f.Reason = "interpreter_not_found"
	return "", f
}

// environ adds the step's variables; they win.
func (e Execute) environ(base []string) ([]string, error) {
	out := slices.Clone(base)
	for _, name := range sortedKeys(e.Environment) {
		v := expr.Text(e.Environment[name])
		if name == "" || strings.ContainsAny(name, "=\x00") || strings.ContainsRune(v, 0) {
			return nil, invalid("environment: %q is no variable", head(name, 40))
		}
		if e.Environment[name] == nil {
			return nil, invalid("environment.%s is null", name)
		}
		out = slices.DeleteFunc(out, func(kv string) bool { return strings.HasPrefix(kv, name+"=") })
		out = append(out, name+"="+v)
	}
	return out, nil
}

// run is a command whose both streams are the output.
func (e Execute) run(ctx context.Context, env executor.Env, argv []string, start starter) (executor.Output, error) {
	var level sandbox.Level
	var begun time.Time
	var stderr strings.Builder
	out, err := program{argv: argv, name: "the code", stdin: e.Stdin, start: func(ctx context.Context, s sandbox.Spec, p sandbox.Program) (sandbox.Running, error) {
		r, err := start(ctx, s, p)
		if err == nil {
			level, begun = r.Level(), time.Now()
		}
		return r, err
	}}.run(ctx, env, func(stream, text string) {
		if stream == "stderr" && stderr.Len() < maxStderr { // one goroutine reads this stream
			stderr.WriteString(head(text, maxStderr-stderr.Len()))
		}
		env.Log(stream, text)
	})
	if out == nil {
		return executor.Output{}, err
	}
	code := int64(0)
	if f, ok := errors.AsType[*pipeline.Failure](err); ok {
		code = -1
		if f.ExitCode != nil {
			code = int64(*f.ExitCode)
		}
	}
	said := strings.TrimSuffix(stderr.String(), "\n")
	if f, ok := errors.AsType[*pipeline.Failure](err); ok && !e.Check && f.Reason == "exit_code" {
		err = nil
	}
	return executor.Output{Value: map[string]any{
		"stdout": out.text(), "stderr": said, "output": out.text(), "errors": said, "exit_code": code, "success": code == 0,
		"execution_time": time.Since(begun).Round(time.Microsecond).Seconds(), "language": e.Language, "sandbox": level.Driver, "isolation": level.Value(),
	}}, err
}
