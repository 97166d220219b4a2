package executor_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/orchestrator-project/orchestrator/executor"
	"github.com/orchestrator-project/orchestrator/pipeline"
	"github.com/orchestrator-project/orchestrator/store"
	"github.com/orchestrator-project/orchestrator/store/storetest"
)

// stores open a fresh store of each kind.
var stores = map[string]func(t *testing.T) store.Store{
	"sqlite": func(t *testing.T) store.Store {
		t.Helper()
		return storetest.Open(t)
	},
	"postgres": func(t *testing.T) store.Store {
		t.Helper()
		return openPostgres(t, storetest.Postgres(t), 15*time.Second)
	},
}

// unpolled lets nothing happen but by bells, timers and alarms.
func unpolled(c *executor.Config) { c.Heartbeat = time.Hour }

// status waits until the run's row has that status.
func (e *engine) status(id pipeline.RunID, want pipeline.RunStatus) *pipeline.Run {
	e.t.Helper()
	var run *pipeline.Run
	e.await(fmt.Sprintf("run %s to be %s", id, want), func() bool {
		var err error
		if run, err = e.store.Run(context.Background(), id); err != nil {
			e.t.Fatal(err)
		}
		return run.Status == want
	})
	return run
}

func (e *engine) send(id pipeline.RunID, kind, body string) {
	e.t.Helper()
	if err := e.store.Send(context.Background(), id, store.Message{Kind: kind, Actor: "somebody", Body: []byte(body)}); err != nil {
		e.t.Fatal(err)
	}
}

func (e *engine) signal(id pipeline.RunID, name string, data any) {
	e.t.Helper()
	e.send(id, store.MessageSignal, string(pipeline.EncodeValue(map[string]any{"name": name, "data": data})))
}

// approval is the open one of a run.
func (e *engine) approval(id pipeline.RunID) *pipeline.Approval {
	e.t.Helper()
	var found *pipeline.Approval
	e.await("an open approval of run "+string(id), func() bool {
		page, err := e.store.Approvals(context.Background(), store.ApprovalQuery{Run: id, Status: pipeline.ApprovalOpen, Limit: 10})
		if err != nil {
			e.t.Fatal(err)
		}
		if len(page.Approvals) > 0 {
			found = page.Approvals[0]
		}
		return found != nil
	})
	return found
}

// told lists the types of the run's events, with the reason of those of the run.
func (e *engine) told(id pipeline.RunID, types ...pipeline.EventType) []string {
	e.t.Helper()
	var list []string
	for ev, err := range e.store.Events(context.Background(), id, 0) {
		if err != nil {
			e.t.Fatal(err)
		}
		for _, typ := range types {
			if ev.Type == typ {
				list = append(list, string(typ)+" "+ev.Data.Reason)
			}
		}
	}
	return list
}

func TestWaits(t *testing.T) {
	dir := t.TempDir()
	e := start(t, storetest.Open(t), troubled, func(c *executor.Config) { c.Workspace = dir })
	if err := os.WriteFile(filepath.Join(dir, "there.task"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name, src string
		outputs   map[string]any
		reason    string
	}{
		{name: "a while", src: "steps:\n- {id: w, wait: {for: 0.03}, state: {s: done}}\n- {id: a, action: probe, needs: w, with: {do: '{{ s }}'}}\noutputs: {w: '{{ w }}', a: '{{ a }}'}", outputs: map[string]any{"w": nil, "a": "done"}},
		{name: "no time", src: "steps:\n- {id: w, wait: {for: '{{ 0 }}'}}\noutputs: {w: '{{ w.status }}'}", outputs: map[string]any{"w": "completed"}},
		{name: "a time that is past", src: "steps:\n- {id: w, wait: {until: '2001-01-01T00:00:00Z'}}\noutputs: {w: '{{ w.status }}'}", outputs: map[string]any{"w": "completed"}},
		{name: "no time at all", src: "inputs: {t: {type: string, default: soon}}\nsteps:\n- {id: w, wait: {until: '{{ t }}'}}", reason: "validation"},
		{name: "files that are there", src: "steps:\n- {id: w, wait: {files: '*.task'}}\noutputs: {w: '{{ w }}'}", outputs: map[string]any{"w": []any{"there.task"}}},
		{name: "files that come", src: "steps:\n- {id: w, wait: {files: 'late/*.x', count: 2, poll: 5ms}}\n- {id: b, run: 'mkdir -p late; touch late/1.x; sleep 0.03; touch late/2.x'}\noutputs: {w: '{{ w }}'}", outputs: map[string]any{"w": []any{"late/1.x", "late/2.x"}}},
		{name: "files that do not come", src: "steps:\n- {id: w, wait: {files: 'never/*.x', poll: 5ms}, timeout: 0.03}", reason: "timeout"},
		{name: "a signal that does not come", src: "steps:\n- {id: w, wait: {signal: go}, timeout: 0.03, on_failure: skip}\noutputs: {w: '{{ w.status }}'}", outputs: map[string]any{"w": "skipped"}},
		{name: "longer than it may take", src: "steps:\n- {id: w, wait: {for: 1h}, timeout: 0.03}", reason: "timeout"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			e := &engine{Executor: e.Executor, t: t, store: e.store}
			run, _ := e.wait(e.submit(tt.src, nil))
			switch {
			case tt.reason != "":
				if run.Status != pipeline.RunFailed || run.Error.Kind != tt.reason {
					t.Errorf("%s %v, want it to fail by %s", run.Status, run.Error, tt.reason)
				}
			case run.Status != pipeline.RunCompleted:
				t.Errorf("%s %v", run.Status, run.Error)
			default:
				if diff := cmp.Diff(tt.outputs, run.Outputs); diff != "" {
					t.Error(diff)
				}
			}
		})
	}
}

// A run that only waits is in no memory; a signal wakes it, and is kept where it
// comes before it is waited for.
func TestSignalWakesAParkedRun(t *testing.T) {
	for name, open := range stores {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := open(t)
			reg := prometheus.NewRegistry()
			e := start(t, s, troubled, unpolled, func(c *executor.Config) { c.Metrics = reg })
			id := e.submit("steps:\n- {id: one, wait: {signal: go}}\n- {id: two, wait: {signal: 'g{{ one.x }}'}, needs: one}\n- {id: three, wait: {signal: go}, needs: two, timeout: 1h}\noutputs: {one: '{{ one }}', two: '{{ two }}', three: '{{ three }}'}", nil)
			if run := e.status(id, pipeline.RunWaiting); run.Reason != "signal" {
				t.Errorf("it waits for %q", run.Reason)
			}
			e.await("the run to be in no memory", func() bool { return active(t, reg) == 0 })
			e.signal(id, "unrelated", nil)
			e.signal(id, "go", map[string]any{"x": int64(1)})
			e.signal(id, "go", "later")
			e.signal(id, "g1", []any{"a"})
			run, _ := e.wait(id)
			want := map[string]any{"one": map[string]any{"x": int64(1)}, "two": []any{"a"}, "three": "later"}
			if diff := cmp.Diff(want, run.Outputs); diff != "" {
				t.Errorf("%s %v: %s", run.Status, run.Error, diff)
			}
			told := e.told(id, pipeline.RunIsWaiting, pipeline.RunResumed)
			if len(told)%2 != 0 || told[0] != "run_waiting signal" || told[1] != "run_resumed woken" {
				t.Errorf("it was told: %q", told)
			}
		})
	}
}

func active(t *testing.T, reg *prometheus.Registry) float64 {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == "orchestrator_runs_active" {
			return f.GetMetric()[0].GetGauge().GetValue()
		}
	}
	t.Fatal("no such metric")
	return 0
}

// Timers fire on time although nobody polls for them, also when several runs are
// parked and a delay before a next attempt is among what they wait for.
func TestTimersWakeParkedRuns(t *testing.T) {
	for name, open := range stores {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := open(t)
			e := start(t, s, func(_ context.Context, env executor.Env, do string) (any, error) {
				if env.Attempt == 1 {
					return nil, pipeline.Failuref(pipeline.CategorySystem, "once")
				}
				return do, nil
			}, unpolled)
			ids := []pipeline.RunID{
				e.submit("steps:\n- {id: w, wait: {for: 10.8}}", nil), // long enough for all to be seen waiting
				e.submit("steps:\n- {id: w, wait: {for: 10.2}}", nil),
				e.submit("steps:\n- {id: a, action: probe, retry: {max_attempts: 2, initial: 10.5, jitter: none}}", nil),
				e.submit("settings: {timeout: 10.4}\nsteps:\n- {id: w, wait: {signal: never}}", nil),
			}
			reasons := []string{"timer", "timer", "retry", "signal"}
			for i, id := range ids {
				if run := e.status(id, pipeline.RunWaiting); run.Reason != reasons[i] {
					t.Errorf("run %d waits for %q", i, run.Reason)
				}
			}
			for i, id := range ids {
				run, v := e.wait(id)
				want := pipeline.RunCompleted
				if i == 3 {
					want = pipeline.RunFailed
				}
				if run.Status != want {
					t.Errorf("run %d: %s %v", i, run.Status, run.Error)
				}
				if i == 2 && v.Step("a").Attempt != 2 {
					t.Errorf("the repeated step ended with attempt %d", v.Step("a").Attempt)
				}
				if told := e.told(id, pipeline.RunResumed); len(told) != 1 {
					t.Errorf("run %d was woken %q", i, told)
				}
			}
		})
	}
}

// wakes notes the batches that tell of a run's waking.
type wakes struct {
	store.Store
	batches chan []pipeline.Event
}

type wakesLane struct {
	store.Lane
	batches chan []pipeline.Event
}

func (s wakes) OpenLane(ctx context.Context, replica store.ReplicaID) (store.Lane, error) {
	l, err := s.Store.OpenLane(ctx, replica)
	return wakesLane{l, s.batches}, err
}

func (l wakesLane) Commit(ctx context.Context, b *store.Batch) (store.Result, error) {
	for _, a := range b.Append {
		if slices.ContainsFunc(a.Events, func(e pipeline.Event) bool { return e.Data.Reason == pipeline.ReasonWoken }) {
			l.batches <- a.Events
		}
	}
	return l.Lane.Commit(ctx, b)
}

// If the server died between an attempt's effect and its record, and nothing told
// that the run had been woken, the next owner would give the number out again.
func TestWakingIsDurableBeforeAnAttemptBegins(t *testing.T) {
	s := wakes{storetest.Open(t), make(chan []pipeline.Event, 1)}
	e := start(t, s, func(_ context.Context, env executor.Env, do string) (any, error) {
		if env.Attempt == 1 {
			return nil, pipeline.Failuref(pipeline.CategorySystem, "once")
		}
		return do, nil
	})
	id := e.submit("steps:\n- {id: a, action: probe, retry: {max_attempts: 2, initial: 2.5, jitter: none}}", nil)
	if run, _ := e.wait(id); run.Status != pipeline.RunCompleted {
		t.Fatalf("%s %v", run.Status, run.Error)
	}
	if batch := <-s.batches; len(batch) != 1 {
		t.Errorf("the batch that tells of the waking holds %d events of the run", len(batch))
	}
}

// Files wake a parked run; one that is cancelled meanwhile no longer waits.
func TestFilesWakeAParkedRun(t *testing.T) {
	for name, open := range stores {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := open(t)
			dir := t.TempDir()
			e := start(t, s, troubled, unpolled, func(c *executor.Config) { c.Workspace = dir })
			id := e.submit("steps:\n- {id: w, wait: {files: 'in/**/*.task', poll: 5ms, count: 2}}\noutputs: {w: '{{ w }}'}", nil)
			other := e.submit("steps:\n- {id: w, wait: {files: 'never', poll: 5ms}}", nil)
			for _, id := range []pipeline.RunID{id, other} {
				if run := e.status(id, pipeline.RunWaiting); run.Reason != "files" {
					t.Errorf("it waits for %q", run.Reason)
				}
			}
			e.send(other, store.MessageCancel, "")
			if run, v := e.wait(other); run.Status != pipeline.RunCancelled || v.Step("w").Status != pipeline.StepSkipped {
				t.Errorf("the cancelled run: %s, its wait %s", run.Status, v.Step("w").Status)
			}
			if err := os.MkdirAll(filepath.Join(dir, "in", "a"), 0o700); err != nil {
				t.Fatal(err)
			}
			for _, name := range []string{"in/1.task", "in/a/2.task"} {
				if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			run, _ := e.wait(id)
			if diff := cmp.Diff(map[string]any{"w": []any{"in/1.task", "in/a/2.task"}}, run.Outputs); diff != "" {
				t.Errorf("%s %v: %s", run.Status, run.Error, diff)
			}
		})
	}
}

// An executor that takes nothing from the queue wakes its own runs.
func TestSelectiveExecutorWakesItsOwnRuns(t *testing.T) {
	for name, open := range stores {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := open(t)
			selective := func(c *executor.Config) { c.Selective = true }
			one := start(t, s, troubled, unpolled, selective)
			two := start(t, s, troubled, unpolled, selective)
			timed := one.submit("steps:\n- {id: w, wait: {for: 10.3}}", nil) // after it was seen waiting
			told := one.submit("steps:\n- {id: w, wait: {signal: go}}", nil)
			moved := one.submit("steps:\n- {id: w, wait: {signal: go}}\n- {id: x, wait: {signal: on}, needs: w}", nil)
			for _, id := range []pipeline.RunID{timed, told, moved} {
				one.status(id, pipeline.RunWaiting)
			}
			one.signal(told, "go", nil)
			if run, _ := one.wait(told); run.Status != pipeline.RunCompleted {
				t.Errorf("%s %v", run.Status, run.Error)
			}
			if run, _ := one.wait(timed); run.Status != pipeline.RunCompleted {
				t.Errorf("%s %v", run.Status, run.Error)
			}
			one.stop()
			if err := two.Resume(context.Background(), moved); err != nil {
				t.Fatal(err)
			}
			two.signal(moved, "go", nil)
			two.signal(moved, "on", nil)
			if run, _ := two.wait(moved); run.Status != pipeline.RunCompleted {
				t.Errorf("%s %v", run.Status, run.Error)
			}
		})
	}
}

// A parked run is woken exactly once by whatever comes for it at the same time,
// on whichever replica: each signal is received once, and each wait ends once.
func TestRacingWakes(t *testing.T) {
	for name, open := range stores {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := open(t)
			one, two := start(t, s, troubled), start(t, s, troubled)
			const runs, signals = 12, 5
			ids := make([]pipeline.RunID, runs)
			for i := range ids {
				ids[i] = []*engine{one, two}[i%2].submit(fmt.Sprintf(
					"steps:\n- {id: a, ask: {question: ok?}}\n- {id: t, wait: {for: 2.2}}\n- {id: l, for: {items: '{{ range(%d) }}'}, wait: {signal: go}}\noutputs: {n: '{{ l.results }}', a: '{{ a }}'}", signals), nil)
			}
			var all sync.WaitGroup
			var refused atomic.Int32
			for _, id := range ids {
				one.status(id, pipeline.RunWaiting)
				a := one.approval(id)
				for i := range signals {
					all.Go(func() { one.signal(id, "go", int64(i)) })
				}
				for i := range 3 {
					all.Go(func() {
						_, err := s.Decide(context.Background(), a.ID, pipeline.Decision{Decision: "answer", Value: int64(i), Actor: fmt.Sprint("p", i), At: time.Now()})
						if pipeline.KindOf(err) == pipeline.Conflict {
							refused.Add(1)
						} else if err != nil {
							t.Error(err)
						}
					})
				}
			}
			all.Wait()
			if n := refused.Load(); n != 2*runs {
				t.Errorf("%d decisions were refused, want %d", n, 2*runs)
			}
			for _, id := range ids {
				run, _ := one.wait(id)
				if run.Status != pipeline.RunCompleted {
					t.Fatalf("%s %v", run.Status, run.Error)
				}
				seen := map[any]int{}
				list, _ := run.Outputs["n"].([]any)
				for _, v := range list {
					seen[v]++
				}
				if len(list) != signals || len(seen) != signals {
					t.Errorf("the signals %v were taken", list)
				}
				if n := len(one.told(id, pipeline.SignalReceived)); n != signals {
					t.Errorf("%d signals were received", n)
				}
				if n := len(one.told(id, pipeline.ApprovalIsDecided)); n != 1 {
					t.Errorf("%d decisions were recorded", n)
				}
				if w, r := one.told(id, pipeline.RunIsWaiting), one.told(id, pipeline.RunResumed); len(w) != len(r) {
					t.Errorf("it was parked %d and woken %d times", len(w), len(r))
				}
			}
		})
	}
}
