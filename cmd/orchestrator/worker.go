package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"runtime"
	"slices"
	"sort"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/orchestrator-project/orchestrator/client/worker"
	"github.com/orchestrator-project/orchestrator/executor"
	"github.com/orchestrator-project/orchestrator/executor/sandbox"
	"github.com/orchestrator-project/orchestrator/pipeline"
	"github.com/orchestrator-project/orchestrator/pipeline/expr"
)

// workerFlags are what the verb worker is told.
type workerFlags struct {
	servers, labels, actions []string
	name, dir                string
	capacity                 int
	resources                map[string]string
	grace                    time.Duration
}

func (c *cli) workerCommand() *cobra.Command {
	f := workerFlags{}
	cmd := &cobra.Command{
		Use:   "worker",
		Short: "Carry out steps for a server, on this machine",
		Long: `Connects to a server and carries out the steps that ask for a worker with labels of this one, as in worker: [gpu]: commands, skills, agents that are programs, and the server's own actions but those that ask a model. It comes back when the connection breaks, and keeps what it has under way. Of several servers that share a database one address is enough: it tells the others (server.advertise).

With SIGTERM or Ctrl-C, or orchestrator workers drain, it takes nothing new, lets what it has end within --grace, gives the rest back, and leaves; a second signal ends it at once.

Everybody who reaches the server may have this machine run commands: see the guide on workers.`,
		Example: `
orchestrator worker --labels gpu,eu
orchestrator worker --server http://10.0.0.7:8080 --labels gpu --capacity 2 --resources gpu=2,memory_gb=64
orchestrator worker --labels build --actions command`,
		Args: args(0, 0, "no arguments", "orchestrator worker --labels gpu"),
		RunE: func(cmd *cobra.Command, _ []string) error { return c.work(cmd.Context(), &f) },
	}
	fl := cmd.Flags()
	fl.StringArrayVar(&f.servers, "server", nil, "a server to work for; may be given several times; default http://127.0.0.1:8080")
	fl.StringSliceVar(&f.labels, "labels", nil, "what this machine has to offer")
	fl.StringVar(&f.name, "name", "", "unique among the workers; default: the host's name and the process")
	fl.IntVar(&f.capacity, "capacity", runtime.GOMAXPROCS(0), "attempts at once")
	fl.StringToStringVar(&f.resources, "resources", nil, "what steps that say what they take have together: cpu, memory_gb, gpu; default: no bound")
	fl.StringSliceVar(&f.actions, "actions", nil, "only these actions; command stands for commands, skills and agents; default: all")
	fl.StringVar(&f.dir, "dir", "", "where attempts get a folder each; default: worker in the home")
	fl.DurationVar(&f.grace, "grace", 30*time.Second, "how long what is under way may take once the worker is to leave")
	return cmd
}

// work is a worker until a signal comes or a server drains it.
func (c *cli) work(ctx context.Context, f *workerFlags) error {
	cfg, err := c.loadConfig()
	if err != nil {
		return err
	}
	if len(f.servers) == 0 {
		f.servers = []string{"http://127.0.0.1:8080"}
		if c.server != "" {
			f.servers = []string{c.server}
		}
	}
	for _, s := range f.servers {
		if _, err := address(s); err != nil {
			return err
		}
	}
	if f.capacity < 1 {
		return usage("orchestrator worker --capacity 4", "a worker carries out at least one attempt at once, not %d", f.capacity)
	}
	resources, err := f.bounds()
	if err != nil {
		return err
	}
	boxes, err := sandboxes(cfg, logger(c.err, cfg, cfg.Monitoring.StructuredLogging), c.home(), cfg.Storage.Path)
	if err != nil {
		return err
	}
	actions, err := c.workerActions(f.actions, boxes)
	if err != nil {
		return err
	}
	if f.dir == "" {
		f.dir = filepath.Join(c.home(), "worker")
	}
	soft, stop := c.endOnSignal(ctx)
	defer stop()
	ended := make(chan error, 1)
	go func() {
		ended <- worker.Run(soft, worker.Config{
			Servers: f.servers, Name: f.name, Version: version, Labels: f.labels, Slots: f.capacity, Resources: resources,
			Actions: actions, Dir: f.dir, Grace: f.grace, Logger: logger(c.err, cfg, cfg.Monitoring.StructuredLogging),
		})
	}()
	select {
	case err = <-ended:
	case <-ctx.Done(): // the second signal
		return errInterrupted
	}
	if err != nil {
		return &failure{code: exitRefused, what: "the worker cannot work", why: err.Error()}
	}
	return nil
}

// bounds reads what the machine has.
func (f *workerFlags) bounds() (worker.Resources, error) {
	var r worker.Resources
	of := map[string]*float64{"cpu": &r.CPU, "memory_gb": &r.MemoryGB, "gpu": &r.GPU}
	for name, text := range f.resources {
		n, err := strconv.ParseFloat(text, 64)
		if of[name] == nil || err != nil || n < 0 {
			return r, usage("write it like --resources cpu=8,memory_gb=32,gpu=1", "%s=%s is no resource", name, text)
		}
		*of[name] = n
	}
	return r, nil
}

// workerActions are the actions that this program can carry out without a server.
func (c *cli) workerActions(only []string, boxes *sandbox.Set) ([]worker.Action, error) {
	var list []worker.Action
	var names []string
	base := executor.Harmless(c.environ)
	for _, a := range withoutModels(boxes) {
		names = append(names, a.Spec.Key)
		if len(only) == 0 || slices.Contains(only, a.Spec.Key) {
			list = append(list, worker.Action{Name: a.Spec.Key, Known: true, Run: func(ctx context.Context, t *worker.Task) (worker.Result, error) {
				return carryOut(ctx, a, t, base)
			}})
		}
	}
	for _, name := range only {
		if !slices.Contains(names, name) {
			hint := ""
			if n := expr.Suggest(name, names); n != "" {
				hint = " (did you mean " + n + "?)"
			}
			return nil, usage("the actions are "+strings.Join(names, ", "), "a worker has no action %q%s", name, hint)
		}
	}
	return list, nil
}

// carryOut runs an action of the engine for a worker.
func carryOut(ctx context.Context, a executor.Action, t *worker.Task, base []string) (worker.Result, error) {
	v, err := pipeline.DecodeValue(t.Parameters)
	if err != nil {
		return worker.Result{}, fmt.Errorf("read the parameters: %w", err)
	}
	params, _ := v.(map[string]any)
	env := executor.Env{
		Run: pipeline.RunID(t.Run), Path: pipeline.Path(t.Path), Attempt: int32(t.Attempt), //nolint:gosec // an attempt's number
		Workspace: t.Dir, Bundle: t.Bundle, Environ: environOf(base, t), Redact: t.Redact, Log: t.Log,
	}
	if len(t.Sandbox) > 0 {
		env.Sandbox = &pipeline.Sandbox{}
		if err := json.Unmarshal(t.Sandbox, env.Sandbox); err != nil {
			return worker.Result{}, fmt.Errorf("read the sandbox: %w", err)
		}
	}
	runner, err := a.Bind(params)
	if err != nil {
		return worker.Result{}, asWorkerFailure(err)
	}
	out, err := runner.Run(ctx, env)
	r := worker.Result{Model: out.Model}
	if out.Value != nil {
		r.Output = json.RawMessage(pipeline.EncodeValue(out.Value))
	}
	if u := out.Usage; u != nil {
		r.InputTokens, r.OutputTokens, r.CostUSD = u.InputTokens, u.OutputTokens, u.CostUSD
	}
	return r, asWorkerFailure(err)
}

// environOf is what a command of a step sees: what is harmless of this process's
// own environment, and the step's variables.
func environOf(base []string, t *worker.Task) []string {
	vars := map[string]string{}
	for _, kv := range base {
		k, v, _ := strings.Cut(kv, "=")
		vars[k] = v
	}
	maps.Copy(vars, t.Env)
	vars["PWD"] = t.Dir
	list := make([]string, 0, len(vars))
	for k, v := range vars {
		list = append(list, k+"="+v)
	}
	sort.Strings(list)
	return list
}

func asWorkerFailure(err error) error {
	f, ok := errors.AsType[*pipeline.Failure](err)
	if !ok {
		return err
	}
	out := &worker.Failure{Category: f.Kind, Reason: f.Reason, Message: f.Message, RetryAfter: time.Duration(f.RetryAfter * float64(time.Second))}
	if f.ExitCode != nil {
		out.ExitCode = *f.ExitCode
	}
	return out
}
