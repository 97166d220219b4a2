package executor_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/orchestrator-project/orchestrator/executor"
	"github.com/orchestrator-project/orchestrator/pipeline"
	"github.com/orchestrator-project/orchestrator/store"
	"github.com/orchestrator-project/orchestrator/store/storetest"
)

// everything is a pipeline with each construct that keeps something over time.
const everything = `
steps:
- {id: first, action: probe, with: {do: one}}
- {id: q, ask: {question: "{{ first }}?"}}
- {id: s, wait: {signal: go}, needs: q}
- {id: t, wait: {for: 0.01}, needs: s}
- id: c
  needs: t
  with: {n: "{{ s }}"}
  pipeline:
    inputs: {n: {type: any}}
    vars: {twice: "{{ n }}{{ n }}"}
    steps:
    - {id: a, action: probe, with: {do: "{{ twice }}"}}
    - {id: s, wait: {signal: on}, needs: a}
    outputs: {a: "{{ a }}", s: "{{ s }}"}
- {id: r, repeat: {until: "k >= 2", max_iterations: 5}, steps: [{id: count, set: {k: "{{ (k | default(0, true)) + 1 }}"}}, {id: w, wait: {for: 0.005}}], needs: c}
- {id: d, detach: true, pipeline: {id: below, steps: [{id: a, action: probe}]}, needs: r}
- {id: bad, action: probe, with: {do: fail tool}, on_error: [{do: fallback, value: saved}], needs: d}
outputs: {q: "{{ q }}", s: "{{ s }}", c: "{{ c }}", k: "{{ k }}", bad: "{{ bad }}"}`

// Promise 2, of runs that wait: killed between any two records of its log, a run
// goes on and comes to the same end, with each question asked, each signal taken
// and each child begun once.
func TestKilledBetweenAnyTwoRecords(t *testing.T) {
	origin := start(t, storetest.Open(t), troubled)
	sub := origin.submission(everything, nil)
	run, err := origin.Submit(context.Background(), sub)
	if err != nil {
		t.Fatal(err)
	}
	origin.decide(origin.approval(run.ID), "answer", "yes", "ann")
	origin.signal(run.ID, "on", "late")
	origin.signal(run.ID, "go", "g")
	whole, _ := origin.wait(run.ID)
	want := map[string]any{"q": "yes", "s": "g", "c": map[string]any{"a": "gg", "s": "late"}, "k": int64(2), "bad": "saved"}
	if diff := cmp.Diff(want, whole.Outputs); diff != "" {
		t.Fatalf("%s %v: %s", whole.Status, whole.Error, diff)
	}
	log := events(t, origin.store, run.ID)
	plans := submissionPlans(t, origin, log, sub.PlanDigest)
	for n := 1; n < len(log); n++ {
		t.Run(fmt.Sprintf("after %d %s", n, log[n-1].Type), func(t *testing.T) {
			t.Parallel()
			s := storetest.Open(t)
			for _, p := range plans {
				if err := s.PutPlan(t.Context(), *p); err != nil {
					t.Fatal(err)
				}
			}
			restore(t, s, whole, log[:n])
			e := start(t, s, troubled)
			had := func(typ pipeline.EventType, is func(d *pipeline.Data) bool) bool {
				return slices.ContainsFunc(log[:n], func(ev pipeline.Event) bool { return ev.Type == typ && is(&ev.Data) })
			}
			if !had(pipeline.ApprovalIsDecided, func(*pipeline.Data) bool { return true }) {
				e.decide(e.approval(run.ID), "answer", "yes", "ann")
			}
			for name, data := range map[string]any{"go": "g", "on": "late"} {
				if !had(pipeline.SignalReceived, func(d *pipeline.Data) bool { return d.Signal == name }) {
					e.signal(run.ID, name, data)
				}
			}
			got, v := e.wait(run.ID)
			if diff := cmp.Diff(want, got.Outputs); diff != "" || got.Status != pipeline.RunCompleted {
				t.Fatalf("%s %v: %s", got.Status, got.Error, diff)
			}
			if n := len(e.told(run.ID, pipeline.SignalReceived)); n != 2 {
				t.Errorf("%d signals were received", n)
			}
			page, err := s.Runs(t.Context(), store.Query{Pipeline: "below", Limit: 10})
			if err != nil {
				t.Fatal(err)
			}
			begun := 1
			if had(pipeline.StepFinished, func(d *pipeline.Data) bool { return d.Child != "" }) {
				begun = 0 // by the owner that is gone, in another store
			}
			if len(page.Runs) != begun {
				t.Errorf("%d children were begun, want %d", len(page.Runs), begun)
			}
			if s := v.Step("bad"); s.Status != pipeline.StepFailed {
				t.Errorf("the step that fell back is %s", s.Status)
			}
		})
	}
}

func events(t *testing.T, s store.Store, id pipeline.RunID) []pipeline.Event {
	t.Helper()
	var log []pipeline.Event
	for ev, err := range s.Events(t.Context(), id, 0) {
		if err != nil {
			t.Fatal(err)
		}
		log = append(log, ev)
	}
	return log
}

// submissionPlans are the plans of a run and of the children that it began.
func submissionPlans(t *testing.T, e *engine, log []pipeline.Event, d pipeline.Digest) []*store.Plan {
	t.Helper()
	digests := []pipeline.Digest{d}
	for i := range log {
		if id := log[i].Data.Child; id != "" {
			child, err := e.store.Run(t.Context(), id)
			if err != nil {
				t.Fatal(err)
			}
			digests = append(digests, child.PlanDigest)
		}
	}
	plans := make([]*store.Plan, len(digests))
	for i, d := range digests {
		p, err := e.store.Plan(t.Context(), d)
		if err != nil {
			t.Fatal(err)
		}
		plans[i] = p
	}
	return plans
}

// restore puts a run with the beginning of its log into a store, as its owner
// left it.
func restore(t *testing.T, s store.Store, run *pipeline.Run, log []pipeline.Event) {
	t.Helper()
	l, err := s.OpenLane(t.Context(), "gone")
	if err != nil {
		t.Fatal(err)
	}
	row := *run
	row.Status, row.Outputs, row.Error, row.FinishedAt = pipeline.RunQueued, nil, nil, time.Time{}
	b := &store.Batch{Create: []store.Create{{Run: &row, Events: log}}}
	open := map[pipeline.ApprovalID]pipeline.Path{}
	for i := range log {
		switch d := &log[i].Data; {
		case d.Waiting != nil && d.Waiting.Approval != "":
			open[d.Waiting.Approval] = log[i].Path
		case d.Decision != nil:
			delete(open, d.Decision.Approval)
		}
	}
	for id, path := range open {
		b.Ask = append(b.Ask, &pipeline.Approval{
			ID: id, Run: run.ID, Pipeline: run.Pipeline, Path: path, Kind: pipeline.ApprovalAsk, Question: "one?",
			Status: pipeline.ApprovalOpen, CreatedAt: time.Now(), OnTimeout: "fail",
		})
	}
	if _, err := l.Commit(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	if err := l.Release(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// A deployment leaves parked runs alone and parks those that only wait.
func TestParkedRunsOutliveTheirExecutor(t *testing.T) {
	for name, open := range stores {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := open(t)
			one := start(t, s, troubled, unpolled)
			id := one.submit("steps:\n- {id: q, ask: q}\n- {id: t, wait: {for: 2.5}}\n- {id: s, wait: {signal: go}}", nil)
			one.status(id, pipeline.RunWaiting)
			one.stop()
			one.signal(id, "go", nil)
			two := start(t, s, troubled, func(c *executor.Config) { c.Heartbeat = 500 * time.Millisecond })
			two.decide(two.approval(id), "answer", 1, "ann")
			if run, _ := two.wait(id); run.Status != pipeline.RunCompleted {
				t.Errorf("%s %v", run.Status, run.Error)
			}
			for _, reason := range two.told(id, pipeline.RunResumed) {
				if reason != "run_resumed woken" {
					t.Errorf("it was told %q", reason)
				}
			}
		})
	}
}

// counting is a store that counts the commits of its lanes.
type counting struct {
	store.Store
	mu      sync.Mutex
	commits []int // the events of each
}

type countingLane struct {
	store.Lane
	s *counting
}

func (s *counting) OpenLane(ctx context.Context, replica store.ReplicaID) (store.Lane, error) {
	l, err := s.Store.OpenLane(ctx, replica)
	return countingLane{l, s}, err
}

func (l countingLane) Commit(ctx context.Context, b *store.Batch) (store.Result, error) {
	n := 0
	for i := range b.Create {
		n += len(b.Create[i].Events)
	}
	for i := range b.Append {
		n += len(b.Append[i].Events)
	}
	l.s.mu.Lock()
	l.s.commits = append(l.s.commits, n)
	l.s.mu.Unlock()
	return l.Lane.Commit(ctx, b)
}

// A chain of pure steps runs ahead of the log and costs one commit.
func TestPureChainCostsOneCommit(t *testing.T) {
	s := &counting{Store: storetest.Open(t)}
	e := start(t, s, nil)
	src := "settings: {order: sequence}\nsteps:\n"
	for i := range 1000 {
		src += fmt.Sprintf("- {id: s%d, set: {n: '{{ (n | default(0, true)) + 1 }}'}}\n", i)
	}
	sub := e.submission(src+"outputs: {n: '{{ n }}'}", nil)
	s.commits = nil
	run, err := e.Submit(context.Background(), sub)
	if err != nil {
		t.Fatal(err)
	}
	done, _ := e.wait(run.ID)
	if done.Status != pipeline.RunCompleted || done.Outputs["n"] != int64(1000) {
		t.Fatalf("%s %v %v", done.Status, done.Outputs, done.Error)
	}
	if len(s.commits) != 1 {
		t.Errorf("it took commits of %v events", s.commits)
	}
}

// A loop over many items streams: no commit is large, and the passes that are
// over are forgotten.
func TestLongLoopStreams(t *testing.T) {
	const items = 100_000
	s := &counting{Store: storetest.Open(t)}
	e := start(t, s, nil)
	list := make([]any, items)
	for i := range list {
		list[i] = int64(i)
	}
	id := e.submit("inputs: {list: {type: list}}\nsteps:\n- {id: l, for: {items: '{{ list }}', collect: 'item % 2'}, set: {last: '{{ item }}'}}\noutputs: {last: '{{ last }}', n: '{{ l.results | length }}', odd: '{{ l.results[99999] }}'}", map[string]any{"list": list})
	var run *pipeline.Run
	deadline := time.After(5 * time.Minute)
	for tick := time.NewTicker(50 * time.Millisecond); run == nil || !run.Status.Final(); {
		select {
		case <-deadline:
			t.Fatal("waited too long")
		case <-tick.C:
		}
		var err error
		if run, err = s.Run(t.Context(), id); err != nil {
			t.Fatal(err)
		}
	}
	if run.Status != pipeline.RunCompleted || run.Outputs["last"] != int64(items-1) || run.Outputs["n"] != int64(items) || run.Outputs["odd"] != int64(1) {
		t.Fatalf("%s %v %v", run.Status, run.Outputs, run.Error)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if most := slices.Max(s.commits); most > 2*8192 {
		t.Errorf("a commit held %d events", most)
	}
	if len(s.commits) > items/100 {
		t.Errorf("it took %d commits", len(s.commits))
	}
}
