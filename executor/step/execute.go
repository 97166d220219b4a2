package step

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"

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

language is python (python3), javascript (node), bash or sh; the program must be in the step's PATH; sh is /bin/sh. The code sees what a command step sees, and environment; stdin is its standard input. It is shown as it comes and is the output in the end: stdout and stderr, each without its final newline; of stderr the first 1 MiB. An exit code other than 0 fails the step, and the output is kept. At the end of timeout (default: the step's own) all its processes are killed.

sandbox: auto runs the code in bubblewrap (bwrap) where the machine has it and lets it work: without a network, with the file system read-only but for the workspace and an empty /tmp, without the machine's other processes, and without privileges. It can read what the server's user can read. Where there is no bubblewrap, auto runs the code as a command step runs; required fails instead, and none does without in any case. sandbox in the result says which it was.`

const maxStderr = 1 << 20

// Execute is a piece of code and where to run it.
type Execute struct {
	Language    string         `param:"required" enum:"python,javascript,bash,sh" doc:"what the code is written in"`
	Code        string         `param:"required" doc:"the program's text"`
	Environment map[string]any `doc:"more variables of the environment"`
	Stdin       string         `doc:"the standard input; default: empty"`
	Timeout     any            `type:"duration" doc:"how long it may take; default: the time limit of the step"`
	Sandbox     string         `default:"\"auto\"" enum:"auto,required,none" doc:"whether it is locked in"`

	bwrap func() (string, error) // finds bubblewrap; nil: bubblewrap; tests replace it
}

type executeResult struct {
	Stdout   string `doc:"what it wrote to standard output"`
	Stderr   string `doc:"what it wrote to standard error"`
	ExitCode int64  `doc:"0 where it succeeded"`
	Success  bool   `doc:"whether the exit code is 0"`
	Language string `doc:"as given"`
	Sandbox  string `doc:"bubblewrap or none"`
}

func executeAction() executor.Action {
	return executor.NewAction[Execute](executor.Describe{
		Name: "execute", Doc: executeDoc, Effect: pipeline.EffectAtLeastOnce, Workspace: true, Returns: executeResult{},
	})
}

// interpreters are the programs for a language, the first that is found counts,
// and the ending of its files.
var interpreters = map[string]struct {
	programs []string
	ending   string
}{
	"python":     {[]string{"python3", "python"}, ".py"},
	"javascript": {[]string{"node", "nodejs"}, ".js"},
	"bash":       {[]string{"bash"}, ".sh"},
	"sh":         {[]string{"/bin/sh"}, ".sh"}, // as of command steps
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
	interpreter, err := e.interpreter(env)
	if err != nil {
		return executor.Output{}, err
	}
	if !filepath.IsAbs(env.Workspace) {
		return executor.Output{}, pipeline.Failuref(pipeline.CategorySystem, "the run has no workspace")
	}
	dir, err := os.MkdirTemp("", "orchestrator-execute-")
	if err != nil {
		return executor.Output{}, pipeline.Failuref(pipeline.CategorySystem, "make a folder for the code: %v", cause(err))
	}
	defer os.RemoveAll(dir)
	code := filepath.Join(dir, "code"+interpreters[e.Language].ending)
	if err := os.WriteFile(code, []byte(e.Code), 0o600); err != nil {
		return executor.Output{}, pipeline.Failuref(pipeline.CategoryResource, "write the code: %v", cause(err))
	}
	argv, driver, err := e.sandboxed(ctx, env, dir, []string{interpreter, code})
	if err != nil {
		return executor.Output{}, err
	}
	return e.run(ctx, env, argv, driver)
}

func (e Execute) interpreter(env executor.Env) (string, error) {
	lang, ok := interpreters[e.Language]
	if !ok {
		return "", invalid("parameter language is %q; it can be python, javascript, bash, sh", head(e.Language, 40))
	}
	if strings.TrimSpace(e.Code) == "" {
		return "", invalid("parameter code is empty")
	}
	for _, p := range lang.programs {
		if path, err := lookUp(p, env); err == nil {
			return path, nil
		}
	}
	search := ""
	for _, v := range env.Environ {
		if p, ok := strings.CutPrefix(v, "PATH="); ok {
			search = p
		}
	}
	f := invalid("%s needs the program %s, which is not in the step's PATH (%s); install it, or name its folder in the PATH",
		e.Language, strings.Join(lang.programs, " or "), search)
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

// sandboxed puts a sandbox before the program where that is asked for and works.
// What the step itself says of its sandbox counts most.
func (e Execute) sandboxed(ctx context.Context, env executor.Env, dir string, argv []string) ([]string, string, error) {
	if e.Sandbox == "none" && env.Sandbox == nil {
		return argv, "none", nil
	}
	wrapped, err := confined(ctx, env, sandbox.Bubblewrap{Find: e.bwrap}, argv, dir)
	if err == nil {
		return wrapped, sandbox.Name, nil
	}
	if ctx.Err() != nil {
		return nil, "", ended(ctx)
	}
	if env.Sandbox != nil || e.Sandbox == "required" {
		return nil, "", noSandbox(err)
	}
	env.Log("system", "The code runs without a sandbox: "+err.Error()+".\n")
	return argv, "none", nil
}

// run is a command whose both streams are the output.
func (e Execute) run(ctx context.Context, env executor.Env, argv []string, driver string) (executor.Output, error) {
	var stderr strings.Builder
	out, err := program{argv: argv, name: "the code", stdin: e.Stdin}.run(ctx, env, func(stream, text string) {
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
	return executor.Output{Value: map[string]any{
		"stdout": out.text(), "stderr": strings.TrimSuffix(stderr.String(), "\n"), "exit_code": code, "success": code == 0,
		"language": e.Language, "sandbox": driver,
	}}, err
}
