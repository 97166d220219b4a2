package tool

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/orchestrator-project/orchestrator/executor"
	"github.com/orchestrator-project/orchestrator/executor/sandbox"
	"github.com/orchestrator-project/orchestrator/pipeline"
	"github.com/orchestrator-project/orchestrator/pipeline/expr"
)

// process is a program to run for a tool.
type process struct {
	argv  []string // its first word is looked for in the PATH of its environment
	dir   string   // within the workspace; empty: the workspace
	stdin string
}

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
			return s.run(ctx, env, w, def, c, process{argv: []string{"/bin/sh", "-c", line}, dir: dir})
		},
	}
}

// command is a program of the pipeline's own as a tool.
func (s *source) command(w Want, def *pipeline.Tool) Tool {
	return Tool{
		Name: def.Name, Description: def.Description, Schema: argumentsOf(def.Parameters), Effect: pipeline.EffectAtMostOnce,
		Run: func(ctx context.Context, env executor.Env, c Call) (Result, error) {
			p := process{stdin: string(pipeline.EncodeValue(c.Arguments))}
			for i := range def.Command {
				v, err := w.Text(&def.Command[i], named(c.Arguments))
				if err != nil {
					return Result{}, err
				}
				p.argv = append(p.argv, expr.Text(v))
			}
			return s.run(ctx, env, w, def, c, p)
		},
	}
}

// named are the names that templates of a tool read: the arguments by theirs,
// and all of them as args.
func named(args map[string]any) map[string]any {
	more := make(map[string]any, len(args)+1)
	maps.Copy(more, args)
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
func (s *source) run(ctx context.Context, env executor.Env, w Want, def *pipeline.Tool, c Call, p process) (Result, error) {
	var err error
	if env.Environ, err = environ(env, w, def, c.Arguments); err != nil {
		return Result{}, err
	}
	env.Environ = append(executor.TraceEnviron(ctx, env.Environ), "ORCHESTRATOR_IDEMPOTENCY_KEY="+env.IdempotencyKey())
	switch {
	case def.Sandbox != nil:
		env.Sandbox = def.Sandbox
	case env.Sandbox == nil:
		env.Sandbox = &pipeline.Sandbox{}
	}
	dir, err := folder(env, cmp.Or(p.dir, "."))
	if err != nil {
		return Result{}, err
	}
	out := s.spool(env)
	exit, err := s.start(ctx, env, sandbox.Program{Argv: p.argv, Environ: env.Environ, Dir: dir}, p.stdin, func(stream string, b []byte) error {
		_, err := out.Write(ctx, b)
		text := strings.ToValidUTF8(string(b), "\ufffd")
		env.Log(stream, text)
		if c.Progress != nil {
			if env.Redact != nil {
				text = env.Redact(text)
			}
			c.Progress(text)
		}
		return err
	})
	text, wrong := out.text(context.WithoutCancel(ctx))
	if wrong != nil {
		return Result{}, wrong
	}
	var r Result
	if text = strings.TrimRight(text, "\n"); text != "" {
		r = Text(text)
	}
	switch {
	case err != nil:
		return r, err
	case exit.Limit != "":
		return failed(r, "[ended: it took more "+exit.Limit+" than it may]"), nil
	case exit.Code != 0:
		return failed(r, fmt.Sprintf("[exit code %d]", exit.Code)), nil
	case text == "":
		return Text("(no output, exit code 0)"), nil
	}
	return r, nil
}

// folder is a folder of the workspace, absolute.
func folder(env executor.Env, name string) (string, error) {
	root, rel, err := openFile(env, name)
	if err != nil {
		return "", err
	}
	defer func() { _ = root.Close() }()
	if info, err := root.Stat(rel); err != nil || !info.IsDir() {
		return "", fmt.Errorf("there is no folder %s in the workspace", rel)
	}
	return filepath.Join(env.Workspace, filepath.FromSlash(rel)), nil
}

// late is how long what a program has left behind may hold its output open.
const late = 5 * time.Second

// start runs a program in the step's sandbox to its end. say gets what it writes,
// piece by piece; its error ends the program.
func (s *source) start(ctx context.Context, env executor.Env, p sandbox.Program, stdin string, say func(stream string, b []byte) error) (sandbox.Exit, error) {
	if err := env.MakeWorkspace(); err != nil {
		return sandbox.Exit{}, err
	}
	in, err := sandbox.Input(stdin)
	if err != nil {
		return sandbox.Exit{}, fmt.Errorf("prepare the standard input: %w", err)
	}
	p.Stdin = in
	var readers []*os.File
	for _, f := range []**os.File{&p.Stdout, &p.Stderr} {
		r, w, err := os.Pipe()
		if err != nil {
			p.Close()
			return sandbox.Exit{}, fmt.Errorf("open pipes: %w", err)
		}
		defer func() { _ = r.Close() }()
		*f = w
		readers = append(readers, r)
	}
	work, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	place := sandbox.Spec{Workspace: env.Workspace}
	if env.Bundle != "" {
		place.Readable = []string{env.Bundle}
	}
	running, err := s.cfg.Sandbox.Start(work, env.Sandbox, place, p)
	if err != nil {
		return sandbox.Exit{}, err
	}
	var mu sync.Mutex
	var pumps sync.WaitGroup
	for i, r := range readers {
		pumps.Go(func() {
			buf := make([]byte, 32<<10)
			for {
				n, err := r.Read(buf)
				if n > 0 {
					mu.Lock()
					if work.Err() == nil {
						if err := say([]string{"stdout", "stderr"}[i], buf[:n]); err != nil {
							stop(err)
						}
					}
					mu.Unlock()
				}
				if err != nil {
					return
				}
			}
		})
	}
	end := context.AfterFunc(work, running.Kill)
	<-running.Done()
	whole := end()
	exit, err := running.Wait()
	for _, r := range readers {
		_ = r.SetReadDeadline(time.Now().Add(late))
	}
	pumps.Wait()
	if !whole {
		return exit, context.Cause(work)
	}
	return exit, err
}
