package tool

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"

	"github.com/orchestrator-project/orchestrator/executor"
	"github.com/orchestrator-project/orchestrator/pipeline"
	"github.com/orchestrator-project/orchestrator/pipeline/expr"
)

// Process is a program to run for a tool.
type Process struct {
	Argv  []string // its first word is looked for in the PATH of env.Environ
	Dir   string   // absolute, within the workspace
	Stdin string
	// Output gets what it writes, as it comes. It is not called concurrently with
	// itself.
	Output func(stream string, b []byte)
}

// Program runs a program in the sandbox that env.Sandbox describes, and waits for
// its end. code is its exit code, 128 and the signal's number where one has ended
// it. The error, a *pipeline.Failure or the context's, says why it could not run or was
// ended.
type Program func(ctx context.Context, env executor.Env, p Process) (code int, err error)

// terminal is the tool that runs lines of the shell.
func terminal(cfg Config) Tool {
	s := &source{cfg: cfg}
	return s.terminalOf(Want{}, &pipeline.Tool{})
}

func (s *source) terminalOf(w Want, def *pipeline.Tool) Tool {
	return Tool{
		Name:        Terminal,
		Description: "Runs a command line by sh in the workspace and gives what it writes and its exit code. Each call begins anew: a cd, and variables, last for one call. It has no input to ask for and ends when the line does.",
		Effect:      pipeline.EffectAtMostOnce,
		Schema: map[string]any{
			"type": "object", "additionalProperties": false, "required": []any{"command"},
			"properties": map[string]any{
				"command":   map[string]any{"type": "string", "minLength": int64(1), "description": "a line for sh -c"},
				"directory": map[string]any{"type": "string", "default": ".", "description": "where to run it, relative to the workspace"},
			},
		},
		Run: func(ctx context.Context, env executor.Env, c Call) (Result, error) {
			line, _ := c.Arguments["command"].(string)
			dir, _ := c.Arguments["directory"].(string)
			return s.run(ctx, env, w, def, c, Process{Argv: []string{"/bin/sh", "-c", line}, Dir: dir})
		},
	}
}

// command is a program of the pipeline's own as a tool.
func (s *source) command(w Want, def *pipeline.Tool) (Tool, error) {
	return Tool{
		Name: def.Name, Description: def.Description, Schema: argumentsOf(def.Parameters), Effect: pipeline.EffectAtMostOnce,
		Run: func(ctx context.Context, env executor.Env, c Call) (Result, error) {
			p := Process{Stdin: string(pipeline.EncodeValue(c.Arguments))}
			for i := range def.Command {
				v, err := w.Text(&def.Command[i], named(c.Arguments))
				if err != nil {
					return Result{}, err
				}
				p.Argv = append(p.Argv, expr.Text(v))
			}
			return s.run(ctx, env, w, def, c, p)
		},
	}, nil
}

// named are the names that templates of a tool read: the arguments by theirs,
// and all of them as args.
func named(args map[string]any) map[string]any {
	more := make(map[string]any, len(args)+1)
	for k, v := range args {
		more[k] = v
	}
	more["args"] = args
	return more
}

// secrets is the name of that in fields where secrets may stand.
type secrets struct{ find func(string) (string, bool) }

// Attr is a secret's value.
func (s secrets) Attr(name string) (any, bool) { return s.find(name) }

// Value is null: secrets are named one by one.
func (secrets) Value() any { return nil }

// environ is what a tool's process inherits: the step's, and what the tool adds.
func environ(env executor.Env, w Want, def *pipeline.Tool, args map[string]any) ([]string, error) {
	list := append([]string{}, env.Environ...)
	for _, name := range def.Secrets {
		v, ok := w.Secret(name)
		if !ok {
			return nil, fmt.Errorf("the secret %s has no value on this server", name)
		}
		list = append(list, name+"="+v)
	}
	for i := range def.Env {
		e := &def.Env[i]
		more := named(args)
		more["secrets"] = secrets{w.Secret}
		v, err := w.Text(&e.Value, more)
		if err != nil {
			return nil, err
		}
		if v != nil {
			list = append(list, e.Name+"="+expr.Text(v))
		}
	}
	return list, nil
}

// run runs a program and gives what it has written.
func (s *source) run(ctx context.Context, env executor.Env, w Want, def *pipeline.Tool, c Call, p Process) (Result, error) {
	if s.cfg.Program == nil {
		return Result{}, errors.New("this server runs no programs")
	}
	var err error
	if env.Environ, err = environ(env, w, def, c.Arguments); err != nil {
		return Result{}, err
	}
	env.Environ = append(env.Environ, "ORCHESTRATOR_IDEMPOTENCY_KEY="+env.IdempotencyKey())
	switch {
	case def.Sandbox != nil:
		env.Sandbox = def.Sandbox
	case env.Sandbox == nil:
		env.Sandbox = &pipeline.Sandbox{}
	}
	root, dir, err := openFile(env, cmp.Or(p.Dir, "."))
	if err != nil {
		return Result{}, err
	}
	info, err := root.Stat(dir)
	_ = root.Close()
	if err != nil || !info.IsDir() {
		return Result{}, fmt.Errorf("there is no folder %s in the workspace", dir)
	}
	p.Dir = filepath.Join(env.Workspace, filepath.FromSlash(dir))
	out := s.spool(env)
	var mu sync.Mutex
	var kept error
	p.Output = func(stream string, b []byte) {
		mu.Lock()
		defer mu.Unlock()
		if kept == nil {
			_, kept = out.Write(ctx, b)
		}
		text := strings.ToValidUTF8(string(b), "\ufffd")
		env.Log(stream, text)
		if c.Progress != nil {
			c.Progress(text)
		}
	}
	code, err := s.cfg.Program(ctx, env, p)
	mu.Lock()
	defer mu.Unlock()
	if kept != nil {
		return Result{}, kept
	}
	text, wrong := out.text(context.WithoutCancel(ctx))
	if wrong != nil {
		return Result{}, wrong
	}
	r := Text(strings.TrimRight(text, "\n"))
	switch {
	case err != nil && text == "":
		return Result{}, err
	case err != nil:
		return r, err
	case code != 0:
		return failed(r, fmt.Sprintf("[exit code %d]", code)), nil
	case text == "":
		return Text("(no output, exit code 0)"), nil
	}
	return r, nil
}
