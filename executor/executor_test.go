package executor_test

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/orchestrator-project/orchestrator/executor"
	"github.com/orchestrator-project/orchestrator/executor/sandbox"
	"github.com/orchestrator-project/orchestrator/executor/sandbox/process"
	"github.com/orchestrator-project/orchestrator/executor/step"
	"github.com/orchestrator-project/orchestrator/pipeline"
	"github.com/orchestrator-project/orchestrator/pipeline/spec"
	"github.com/orchestrator-project/orchestrator/store"
	"github.com/orchestrator-project/orchestrator/store/storetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// engine is an executor under test with its store.
type engine struct {
	*executor.Executor
	t     testing.TB
	store store.Store
	stop  func()
}

// probe is an action that the test controls: it calls f with its parameter.
type probe struct {
	Do   string `param:"do"`
	call func(ctx context.Context, env executor.Env, do string) (any, error)
}

func (p probe) Run(ctx context.Context, env executor.Env) (executor.Output, error) {
	if p.call == nil {
		return executor.Output{Value: p.Do}, nil
	}
	v, err := p.call(ctx, env, p.Do)
	return executor.Output{Value: v}, err
}

func probeAction(f func(ctx context.Context, env executor.Env, do string) (any, error)) executor.Action {
	a := executor.NewAction[probe](executor.Describe{Name: "probe", Doc: "For tests.", Effect: pipeline.EffectAtLeastOnce})
	bind := a.Bind
	a.Bind = func(params map[string]any) (executor.Runner, error) {
		r, err := bind(params)
		if p, ok := r.(probe); ok {
			p.call = f
			return p, err
		}
		return r, err
	}
	return a
}

// locked is the sandboxes that steps have here; where the machine allows none,
// what is to be locked in runs bare.
var locked = step.Config{Sandbox: &sandbox.Set{Drivers: []sandbox.Driver{&process.Driver{}, sandbox.Host{}}}}

func start(t testing.TB, s store.Store, f func(ctx context.Context, env executor.Env, do string) (any, error), change ...func(*executor.Config)) *engine {
	t.Helper()
	cfg := executor.Config{
		Store: s, Actions: append(step.All(locked), probeAction(f)), Command: step.Command(locked),
		Workspaces: t.TempDir(), Grace: 2 * time.Second, Heartbeat: 200 * time.Millisecond, Lanes: 1,
		Logger: slog.New(slog.DiscardHandler),
	}
	for _, c := range change {
		c(&cfg)
	}
	ex, err := executor.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var done sync.WaitGroup
	done.Go(func() {
		if err := ex.Run(ctx); err != nil {
			t.Errorf("run: %v", err)
		}
	})
	e := &engine{Executor: ex, t: t, store: s, stop: sync.OnceFunc(func() { cancel(); done.Wait() })}
	t.Cleanup(e.stop)
	e.await("the first lane", func() bool { return ex.Ready(ctx) == nil })
	return e
}

// await polls without sleeping long for what no event tells.
func (e *engine) await(what string, ok func() bool) {
	e.t.Helper()
	deadline := time.After(5 * time.Minute) // the race detector makes long runs slow
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline:
			e.t.Fatalf("waited too long for %s", what)
		}
	}
}

func (e *engine) submission(src string, inputs map[string]any) pipeline.Submission {
	e.t.Helper()
	plan, _, err := spec.Compile(spec.Source{File: "test.yaml", Text: []byte(src)}, e.Catalog())
	if err != nil {
		e.t.Fatalf("compile: %v", err)
	}
	compiled, digest, err := spec.EncodePlan(plan)
	if err != nil {
		e.t.Fatal(err)
	}
	if plan, err = spec.DecodePlan(compiled); err != nil { // what a restart would read
		e.t.Fatal(err)
	}
	in, err := spec.Inputs(plan, inputs)
	if err != nil {
		e.t.Fatal(err)
	}
	return pipeline.Submission{Plan: plan, PlanDigest: digest, Compiled: compiled, Source: []byte(src), Inputs: in}
}

func (e *engine) submit(src string, inputs map[string]any) pipeline.RunID {
	e.t.Helper()
	run, err := e.Submit(context.Background(), e.submission(src, inputs))
	if err != nil {
		e.t.Fatalf("submit: %v", err)
	}
	return run.ID
}

// wait returns the run once it is final, with its folded steps; it checks that
// the log has no gaps and tells the same as the run's row.
func (e *engine) wait(id pipeline.RunID) (*pipeline.Run, *pipeline.View) {
	e.t.Helper()
	ctx := context.Background()
	var run *pipeline.Run
	e.await("run "+string(id), func() bool {
		var err error
		run, err = e.store.Run(ctx, id)
		if err != nil {
			e.t.Fatal(err)
		}
		return run.Status.Final()
	})
	v := pipeline.NewView(*run)
	for ev, err := range e.store.Events(ctx, id, 0) {
		if err != nil {
			e.t.Fatal(err)
		}
		if ev.Seq != v.Seq+1 {
			e.t.Fatalf("event %d follows %d", ev.Seq, v.Seq)
		}
		v.Apply(&ev)
	}
	if v.Run.Status != run.Status {
		e.t.Fatalf("the log says %s, the row %s", v.Run.Status, run.Status)
	}
	return run, v
}

func TestPipelines(t *testing.T) {
	e := start(t, storetest.Open(t), func(_ context.Context, env executor.Env, do string) (any, error) {
		switch do {
		case "fail":
			return nil, pipeline.Failuref(pipeline.CategoryFailed, "told to fail")
		case "fail twice":
			if env.Attempt < 3 {
				return nil, pipeline.Failuref(pipeline.CategorySystem, "attempt %d", env.Attempt)
			}
		}
		return do, nil
	})
	tests := []struct {
		name    string
		src     string
		status  pipeline.RunStatus
		outputs map[string]any
		steps   map[string]pipeline.StepStatus
	}{
		{
			name:    "a chain by reference",
			src:     "steps:\n- {id: a, action: probe, with: {do: x}}\n- {id: b, action: probe, with: {do: '{{ a }}y'}}\noutputs: {v: '{{ b }}'}",
			status:  pipeline.RunCompleted,
			outputs: map[string]any{"v": "xy"},
		},
		{
			name:    "nested loops",
			src:     "steps:\n- id: rows\n  for: {items: [1, 2], variable: r, parallel: true}\n  steps:\n  - id: cells\n    for: {items: [3, 4], variable: c}\n    action: debug\n    with: {value: '{{ r * c }}'}\noutputs: {v: '{{ rows.results | map(attribute=\"cells\") | map(attribute=\"results\") | list }}', n: '{{ rows.iterations }}'}",
			status:  pipeline.RunCompleted,
			outputs: map[string]any{"n": int64(2), "v": []any{[]any{int64(3), int64(4)}, []any{int64(6), int64(8)}}},
		},
		{
			name:    "while until a state holds",
			src:     "steps:\n- id: loop\n  while: {condition: '{{ (n or 0) < 3 }}', max_iterations: 9}\n  steps:\n  - {id: more, set: {n: '{{ (n or 0) + 1 }}'}}\noutputs: {n: '{{ n }}', i: '{{ loop.iterations }}', c: '{{ loop.completed }}'}",
			status:  pipeline.RunCompleted,
			outputs: map[string]any{"n": int64(3), "i": int64(3), "c": true},
		},
		{
			name:    "the first branch that holds",
			src:     "inputs: {n: 5}\nsteps:\n- id: c\n  if: {condition: '{{ n > 9 }}', then: [{id: x, action: probe, with: {do: big}}]}\n  elif: [{condition: '{{ n > 3 }}', then: [{id: y, action: probe, with: {do: middle}}]}]\n  else: [{id: z, action: probe, with: {do: small}}]\noutputs: {v: '{{ c.y }}'}",
			status:  pipeline.RunCompleted,
			outputs: map[string]any{"v": "middle"},
		},
		{
			name:   "a failure stops what depends on it, finally runs",
			src:    "steps:\n- {id: a, action: probe, with: {do: fail}}\n- {id: b, action: probe, dependencies: [a]}\nfinally:\n- {id: tidy, action: probe}",
			status: pipeline.RunFailed,
			steps:  map[string]pipeline.StepStatus{"a": pipeline.StepFailed, "b": pipeline.StepSkipped, "tidy": pipeline.StepCompleted},
		},
		{
			name:   "on_failure continue goes on and fails in the end",
			src:    "steps:\n- {id: a, action: probe, with: {do: fail}, on_failure: continue}\n- {id: b, action: probe, dependencies: [a], with: {do: '{{ a is none }}{{ a.status }}'}}",
			status: pipeline.RunFailed,
			steps:  map[string]pipeline.StepStatus{"a": pipeline.StepFailed, "b": pipeline.StepCompleted},
		},
		{
			name:    "on_failure skip",
			src:     "steps:\n- {id: a, action: probe, with: {do: fail}, on_failure: skip}\n- {id: b, action: probe, dependencies: [a], with: {do: '{{ a.status }}'}}\noutputs: {b: '{{ b }}'}",
			status:  pipeline.RunCompleted,
			outputs: map[string]any{"b": "skipped"},
		},
		{
			name:    "retries",
			src:     "steps:\n- {id: a, action: probe, with: {do: fail twice}, retry: {max_attempts: 3, initial: 0.001}}\noutputs: {n: '{{ a.attempts }}'}",
			status:  pipeline.RunCompleted,
			outputs: map[string]any{"n": int64(3)},
		},
		{
			name:    "a false condition skips, dependants run",
			src:     "steps:\n- {id: a, action: probe, condition: '{{ 1 > 2 }}'}\n- {id: b, action: probe, dependencies: [a], with: {do: 'x{{ a is none }}'}}\noutputs: {b: '{{ b }}'}",
			status:  pipeline.RunCompleted,
			outputs: map[string]any{"b": "xtrue"},
		},
		{
			name:   "a condition that cannot be evaluated fails its step",
			src:    "steps:\n- {id: a, action: probe, with: {do: x}, condition: '{{ 1 / 0 }}'}",
			status: pipeline.RunFailed,
			steps:  map[string]pipeline.StepStatus{"a": pipeline.StepFailed},
		},
		{
			name:    "item errors can be kept",
			src:     "steps:\n- id: l\n  for: {items: [ok, fail, fine], on_item_error: continue}\n  action: probe\n  with: {do: '{{ item }}'}\noutputs: {r: '{{ l.results }}', e: '{{ l.errors | length }}', i: '{{ l.errors[0].index }}'}",
			status:  pipeline.RunCompleted,
			outputs: map[string]any{"r": []any{"ok", nil, "fine"}, "e": int64(1), "i": int64(1)},
		},
		{
			name:   "an item error fails the loop",
			src:    "steps:\n- id: l\n  for: {items: [ok, fail, never]}\n  action: probe\n  with: {do: '{{ item }}'}",
			status: pipeline.RunFailed,
			steps:  map[string]pipeline.StepStatus{"l": pipeline.StepFailed, "l[0]": pipeline.StepCompleted, "l[1]": pipeline.StepFailed},
		},
		{
			name:    "state of a loop collects its results",
			src:     "steps:\n- id: l\n  for: {items: [a, b], parallel: 2, collect: '{{ item }}!'}\n  action: probe\n  state: {all: '{{ collect_results() }}'}\n- {id: b, action: probe, with: {do: '{{ all | join(\"-\") }}'}}\noutputs: {b: '{{ b }}'}",
			status:  pipeline.RunCompleted,
			outputs: map[string]any{"b": "a!-b!"},
		},
		{
			name:    "no outputs block gives every step's output",
			src:     "steps:\n- {id: a, action: probe, with: {do: x}}\n- {id: s, set: {k: 1}}",
			status:  pipeline.RunCompleted,
			outputs: map[string]any{"a": "x", "s": map[string]any{"k": int64(1)}},
		},
		{
			name:    "commands",
			src:     "steps:\n- {id: a, command: [echo, 'a b', '{{ 1 + 1 }}']}\n- {id: b, run: 'printf \"%s\" \"$X\"; echo $ORCHESTRATOR_STEP_PATH >&2', env: {X: '{{ a }}'}}\n- {id: c, run: 'exit 3', on_failure: skip}\noutputs: {b: '{{ b }}', c: '{{ c.exit_code }}'}",
			status:  pipeline.RunCompleted,
			outputs: map[string]any{"b": "a b 2", "c": int64(3)},
		},
		{
			name:   "the run's own time limit",
			src:    "settings: {timeout: 2}\nsteps:\n- {id: a, command: [sleep, '30']}\n- {id: b, action: probe, dependencies: [a]}\nfinally:\n- {id: tidy, action: probe}",
			status: pipeline.RunFailed,
			steps:  map[string]pipeline.StepStatus{"a": pipeline.StepCancelled, "b": pipeline.StepSkipped, "tidy": pipeline.StepCompleted},
		},
		{
			name:   "a step's time limit ends its process group",
			src:    "steps:\n- {id: a, run: 'sleep 30 & sleep 30', timeout: 0.2}",
			status: pipeline.RunFailed,
			steps:  map[string]pipeline.StepStatus{"a": pipeline.StepFailed},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			e := &engine{Executor: e.Executor, t: t, store: e.store}
			run, v := e.wait(e.submit(tt.src, nil))
			if run.Status != tt.status {
				t.Fatalf("status %s, want %s (error: %v)", run.Status, tt.status, run.Error)
			}
			if tt.outputs != nil {
				if diff := cmp.Diff(tt.outputs, run.Outputs); diff != "" {
					t.Errorf("outputs: %s", diff)
				}
			}
			for path, want := range tt.steps {
				if s := v.Step(pipeline.Path(path)); s == nil || s.Status != want {
					t.Errorf("step %s: %+v, want %s", path, s, want)
				}
			}
		})
	}
}

func TestCancelStopsWhatRunsAndRunsFinally(t *testing.T) {
	running := make(chan struct{}, 1)
	e := start(t, storetest.Open(t), func(ctx context.Context, _ executor.Env, do string) (any, error) {
		if do == "hang" {
			running <- struct{}{}
			<-ctx.Done()
			return nil, ctx.Err()
		}
		return do, nil
	})
	id := e.submit("steps:\n- {id: a, action: probe, with: {do: hang}}\n- {id: b, action: probe, dependencies: [a]}\nfinally:\n- {id: tidy, action: probe}", nil)
	<-running
	if err := e.store.Send(context.Background(), id, store.Message{Kind: "cancel", Actor: "me"}); err != nil {
		t.Fatal(err)
	}
	run, v := e.wait(id)
	if run.Status != pipeline.RunCancelled {
		t.Fatalf("status %s", run.Status)
	}
	for path, want := range map[pipeline.Path]pipeline.StepStatus{"a": pipeline.StepCancelled, "b": pipeline.StepSkipped, "tidy": pipeline.StepCompleted} {
		if s := v.Step(path); s == nil || s.Status != want {
			t.Errorf("step %s: %+v, want %s", path, s, want)
		}
	}
	if err := e.store.Send(context.Background(), id, store.Message{Kind: "cancel"}); pipeline.KindOf(err) != pipeline.Conflict {
		t.Errorf("cancelling a finished run: %v", err)
	}
}

func TestIdempotencyKey(t *testing.T) {
	e := start(t, storetest.Open(t), nil)
	s := e.submission("steps: [{id: a, action: probe}]", nil)
	s.IdempotencyKey, s.RequestDigest = "k", "sha256:1"
	first, err := e.Submit(context.Background(), s)
	if err != nil {
		t.Fatal(err)
	}
	again, err := e.Submit(context.Background(), s)
	if err != nil || again.ID != first.ID {
		t.Fatalf("again: %v %v, want run %s", again, err, first.ID)
	}
	s.RequestDigest = "sha256:2"
	if _, err := e.Submit(context.Background(), s); pipeline.KindOf(err) != pipeline.Conflict {
		t.Fatalf("another request under the key: %v", err)
	}
	if run, _ := e.wait(first.ID); run.Status != pipeline.RunCompleted {
		t.Fatal(run.Status)
	}
}

// A slot goes to each run in turn, so that a run with many ready steps does
// not keep another from its first.
func TestPoolIsFair(t *testing.T) {
	var order []string
	var mu sync.Mutex
	gate := make(chan struct{})
	e := start(t, storetest.Open(t), func(_ context.Context, _ executor.Env, do string) (any, error) {
		<-gate
		mu.Lock()
		defer mu.Unlock()
		order = append(order, do)
		return nil, nil
	}, func(c *executor.Config) { c.Steps = 1 })
	big := e.submit("steps:\n- {id: l, for: {items: '{{ range(20) }}', parallel: true}, action: probe, with: {do: big}}", nil)
	small := e.submit("steps:\n- {id: a, action: probe, with: {do: small}}", nil)
	close(gate)
	e.wait(small)
	e.wait(big)
	for i, s := range order {
		if s == "small" {
			if i > 4 {
				t.Fatalf("the small run's step came as number %d: %v", i, order)
			}
			return
		}
	}
	t.Fatal("the small run never ran")
}

func TestRunLimitsItsParallelSteps(t *testing.T) {
	var now, most atomic.Int32
	full := make(chan struct{}) // closed once as many run as may
	open := sync.OnceFunc(func() { close(full) })
	e := start(t, storetest.Open(t), func(ctx context.Context, _ executor.Env, _ string) (any, error) {
		n := now.Add(1)
		defer now.Add(-1)
		for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
			continue
		}
		if n == 3 {
			open()
		}
		select {
		case <-full:
			return nil, nil
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	})
	e.wait(e.submit("settings: {max_parallel: 3}\nsteps:\n- {id: l, for: {items: '{{ range(30) }}', parallel: true}, action: probe}", nil))
	if m := most.Load(); m != 3 {
		t.Fatalf("%d steps ran at once, the limit is 3", m)
	}
}

// A clean stop hands runs over: the next executor on the store finishes them
// at once, and finished steps are not repeated.
func TestHandOverAtShutdown(t *testing.T) {
	s := storetest.Open(t)
	var calls sync.Map
	count := func(do string) int32 {
		v, _ := calls.LoadOrStore(do, new(atomic.Int32))
		return v.(*atomic.Int32).Add(1)
	}
	running := make(chan struct{}, 1)
	act := func(ctx context.Context, _ executor.Env, do string) (any, error) {
		if n := count(do); do == "second" && n == 1 {
			running <- struct{}{}
			<-ctx.Done()
			return nil, ctx.Err()
		}
		return do, nil
	}
	one := start(t, s, act, func(c *executor.Config) { c.Grace = 10 * time.Millisecond })
	id := one.submit("steps:\n- {id: a, action: probe, with: {do: first}}\n- {id: b, action: probe, dependencies: [a], with: {do: second}}", nil)
	<-running
	one.stop()
	two := start(t, s, act)
	run, v := two.wait(id)
	if run.Status != pipeline.RunCompleted {
		t.Fatalf("status %s: %v", run.Status, run.Error)
	}
	if n := count("first"); n != 2 { // one call, and this count
		t.Errorf("the finished step ran %d times", n-1)
	}
	if b := v.Step("b"); b.Attempt != 2 {
		t.Errorf("the interrupted step ended with attempt %d, want 2", b.Attempt)
	}
}

func TestPanicFailsItsStep(t *testing.T) {
	e := start(t, storetest.Open(t), func(context.Context, executor.Env, string) (any, error) { panic("boom") })
	run, _ := e.wait(e.submit("steps: [{id: a, action: probe}]", nil))
	if run.Status != pipeline.RunFailed || run.Error.Kind != pipeline.CategorySystem {
		t.Fatalf("%s %v", run.Status, run.Error)
	}
}

func TestSecretsAreBlottedOut(t *testing.T) {
	e := start(t, storetest.Open(t), nil, func(c *executor.Config) {
		c.Secret = func(name string) (string, bool) { return "s3cr3t-value", name == "TOKEN" }
	})
	id := e.submit("secrets: [TOKEN]\nsteps:\n- {id: a, run: 'echo \"$TOKEN\"; echo \"err $TOKEN\" >&2; exit 1', secrets: [TOKEN]}", nil)
	run, v := e.wait(id)
	text := fmt.Sprint(run.Error, v.Step("a").Output, v.Step("a").Parameters)
	for c, err := range e.store.Logs(context.Background(), store.LogQuery{Run: id}) {
		if err != nil {
			t.Fatal(err)
		}
		text += c.Text
	}
	if !strings.Contains(text, "[secret TOKEN]") || strings.Contains(text, "s3cr3t") {
		t.Fatalf("%s", text)
	}
}

func TestLimitOfRunsQueuesTheRest(t *testing.T) {
	gate := make(chan struct{})
	e := start(t, storetest.Open(t), func(context.Context, executor.Env, string) (any, error) { <-gate; return nil, nil },
		func(c *executor.Config) { c.Runs = 2 })
	var ids []pipeline.RunID
	for range 7 {
		ids = append(ids, e.submit("steps: [{id: a, action: probe}]", nil))
	}
	queued := 0
	for _, id := range ids {
		run, err := e.store.Run(context.Background(), id)
		if err != nil {
			t.Fatal(err)
		}
		if run.Status == pipeline.RunQueued {
			queued++
		}
	}
	if queued != 5 {
		t.Errorf("%d runs are queued, want 5", queued)
	}
	close(gate)
	for _, id := range ids {
		if run, _ := e.wait(id); run.Status != pipeline.RunCompleted {
			t.Errorf("run %s: %s", id, run.Status)
		}
	}
}
