package executor_test

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/orchestrator-project/orchestrator/executor"
	"github.com/orchestrator-project/orchestrator/pipeline"
	"github.com/orchestrator-project/orchestrator/store"
	"github.com/orchestrator-project/orchestrator/store/storetest"
)

// tally counts what a probe was asked to do, by run and path.
type tally struct {
	mu   sync.Mutex
	done map[pipeline.RunID][]string
	fail map[string]bool // what fails
}

func newTally() *tally {
	return &tally{done: map[pipeline.RunID][]string{}, fail: map[string]bool{}}
}

func (c *tally) call(_ context.Context, env executor.Env, do string) (any, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.done[env.Run] = append(c.done[env.Run], string(env.Path))
	if c.fail[do] {
		return nil, pipeline.Failuref(pipeline.CategoryFailed, "told to fail")
	}
	return do + "!", nil
}

func (c *tally) set(do string, fails bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.fail[do] = fails
}

// of lists the paths that a run has executed, sorted.
func (c *tally) of(id pipeline.RunID) []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Sorted(slices.Values(c.done[id]))
}

func (e *engine) fork(f pipeline.Forking) pipeline.RunID {
	e.t.Helper()
	run, err := e.Fork(context.Background(), f)
	if err != nil {
		e.t.Fatalf("fork: %v", err)
	}
	if run.ForkedFrom != f.From {
		e.t.Fatalf("the fork is of %q", run.ForkedFrom)
	}
	return run.ID
}

func (e *engine) log(id pipeline.RunID) []pipeline.Event {
	e.t.Helper()
	var list []pipeline.Event
	for ev, err := range e.store.Events(context.Background(), id, 0) {
		if err != nil {
			e.t.Fatal(err)
		}
		list = append(list, ev)
	}
	return list
}

const errands = `
inputs: {n: {type: integer, default: 1}}
steps:
- {id: a, action: probe, with: {do: a}}
- {id: each, for: {items: '{{ range(3) }}', variable: i}, steps: [{id: one, action: probe, with: {do: '{{ i }}{{ a }}'}}]}
- {id: sum, set: {total: '{{ each.results | length + n }}'}}
- {id: b, action: probe, with: {do: 'b{{ n }}'}}
- {id: c, action: probe, with: {do: 'c{{ b }}'}}
finally:
- {id: clean, action: probe, with: {do: clean}}
outputs: {c: '{{ c }}', total: '{{ total }}'}
settings: {order: sequence}
`

func TestRetryRunsWhatFailedAndWhatFollows(t *testing.T) {
	c := newTally()
	e := start(t, storetest.Open(t), c.call)
	c.set("b1", true)
	first, v := e.wait(e.submit(errands, nil))
	if first.Status != pipeline.RunFailed || v.Step("c") == nil || v.Step("c").Status != pipeline.StepSkipped {
		t.Fatalf("the run is %s", first.Status)
	}
	if plan := e.preview(pipeline.Forking{From: first.ID, Mode: pipeline.ForkRetry}); cmp.Diff(plan, map[string]string{
		"a": "reuse", "each[0]/one": "reuse", "each[1]/one": "reuse", "each[2]/one": "reuse", "sum": "rerun", "b": "rerun", "c": "rerun", "clean": "rerun",
	}) != "" {
		t.Errorf("the preview says %v", plan)
	}
	c.set("b1", false)
	run, v := e.wait(e.fork(pipeline.Forking{From: first.ID, Mode: pipeline.ForkRetry}))
	if run.Status != pipeline.RunCompleted {
		t.Fatalf("the retry is %s: %v", run.Status, run.Error)
	}
	if diff := cmp.Diff([]string{"b", "c", "clean"}, c.of(run.ID)); diff != "" {
		t.Errorf("what ran (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(map[string]any{"c": "cb1!!", "total": int64(4)}, run.Outputs); diff != "" {
		t.Errorf("outputs (-want +got):\n%s", diff)
	}
	if s := v.Step("a"); s.ReusedFrom != first.ID || s.Output != "a!" {
		t.Errorf("a is %+v", s)
	}
	for _, bad := range []struct {
		f      pipeline.Forking
		reason string
	}{
		{pipeline.Forking{From: run.ID, Mode: pipeline.ForkRetry}, "run_completed"},
		{pipeline.Forking{From: run.ID, Mode: pipeline.ForkAt, At: 10_000}, "seq_beyond_log"},
		{pipeline.Forking{From: run.ID, Mode: pipeline.ForkRerun, Step: "each[1]/two"}, "unknown_step"},
	} {
		_, err := e.Fork(t.Context(), bad.f)
		if pe, ok := err.(*pipeline.Error); !ok || pe.Reason != bad.reason { //nolint:errorlint // as it is returned
			t.Errorf("%v gave %v", bad.f, err)
		} else if bad.reason == "unknown_step" && !strings.Contains(pe.Text, `did you mean "each[1]/one"`) {
			t.Errorf("no hint in %q", pe.Text)
		}
	}
}

// preview is what a fork would do, by path.
func (e *engine) preview(f pipeline.Forking) map[string]string {
	e.t.Helper()
	list, err := e.PreviewFork(context.Background(), f)
	if err != nil {
		e.t.Fatalf("preview: %v", err)
	}
	plan := map[string]string{}
	for _, s := range list {
		plan[string(s.Path)] = s.Decision
		e.t.Logf("%s: %s %s", s.Path, s.Decision, s.Reason)
	}
	return plan
}

func TestRerunBeginsFromAStep(t *testing.T) {
	c := newTally()
	e := start(t, storetest.Open(t), c.call)
	first, _ := e.wait(e.submit(errands, nil))
	run, _ := e.wait(e.fork(pipeline.Forking{From: first.ID, Mode: pipeline.ForkRerun, Step: "each[1]/one"}))
	want := []string{"b", "c", "clean", "each[1]/one", "each[2]/one"}
	if diff := cmp.Diff(want, c.of(run.ID)); diff != "" {
		t.Errorf("what ran (-want +got):\n%s", diff)
	}
	again, _ := e.wait(e.fork(pipeline.Forking{From: run.ID, Mode: pipeline.ForkRerun, Step: "c"})) // a fork of a fork
	if diff := cmp.Diff([]string{"c", "clean"}, c.of(again.ID)); diff != "" {
		t.Errorf("what ran again (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(first.Outputs, again.Outputs); diff != "" {
		t.Errorf("outputs (-want +got):\n%s", diff)
	}
}

func TestForkTakesOtherInputsAndAnotherSource(t *testing.T) {
	c := newTally()
	e := start(t, storetest.Open(t), c.call)
	first, _ := e.wait(e.submit(errands, nil))
	run, _ := e.wait(e.fork(pipeline.Forking{
		From: first.ID, Mode: pipeline.ForkAt, Edit: pipeline.Submission{Inputs: map[string]any{"n": int64(2)}},
	}))
	if diff := cmp.Diff([]string{"b", "c", "clean"}, c.of(run.ID)); diff != "" {
		t.Errorf("what ran with another input (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(map[string]any{"c": "cb2!!", "total": int64(5)}, run.Outputs); diff != "" {
		t.Errorf("outputs (-want +got):\n%s", diff)
	}

	edit := e.submission(strings.Replace(errands, "'c{{ b }}'", "'d{{ b }}'", 1), nil)
	edit.Inputs = nil
	run, _ = e.wait(e.fork(pipeline.Forking{From: first.ID, Mode: pipeline.ForkAt, Edit: edit}))
	if diff := cmp.Diff([]string{"c", "clean"}, c.of(run.ID)); diff != "" {
		t.Errorf("what ran with another source (-want +got):\n%s", diff)
	}

	at := int32(0)
	for _, ev := range e.log(first.ID) {
		if ev.Path == "each[0]/one" && ev.Type == pipeline.StepFinished {
			at = ev.Seq
		}
	}
	run, _ = e.wait(e.fork(pipeline.Forking{From: first.ID, Mode: pipeline.ForkAt, At: at}))
	if diff := cmp.Diff([]string{"b", "c", "clean", "each[1]/one", "each[2]/one"}, c.of(run.ID)); diff != "" {
		t.Errorf("what ran after the record (-want +got):\n%s", diff)
	}
	if run.ForkSeq != at {
		t.Errorf("it is forked at %d", run.ForkSeq)
	}
}

func TestReplayLaunchesNothing(t *testing.T) {
	c := newTally()
	e := start(t, storetest.Open(t), c.call)
	const src = `
steps:
- {id: a, action: probe, with: {do: a}, on_failure: continue}
- {id: when, set: {at: '{{ now() }}'}}
- {id: go, wait: {signal: go}}
- {id: loop, while: {condition: '{{ (k or 0) < 2 }}', max_iterations: 9}, steps: [{id: more, set: {k: '{{ (k or 0) + 1 }}'}}, {id: p, action: probe, with: {do: '{{ k }}'}}]}
- {id: out, run: 'echo hello'}
outputs: {at: '{{ at }}', a: '{{ a }}', go: '{{ go }}', p: '{{ loop.results }}', out: '{{ out }}'}
settings: {on_error: continue}
`
	c.set("a", true)
	id := e.submit(src, nil)
	if err := e.store.Send(t.Context(), id, store.Message{Kind: store.MessageSignal, Body: []byte(`{"name":"go","data":7}`)}); err != nil {
		t.Fatal(err)
	}
	first, v := e.wait(id)
	run, w := e.wait(e.fork(pipeline.Forking{From: first.ID, Mode: pipeline.ForkReplay}))
	if n := c.of(run.ID); len(n) > 0 {
		t.Errorf("the replay has run %v", n)
	}
	if run.Status != first.Status {
		t.Errorf("the replay is %s, not %s", run.Status, first.Status)
	}
	if diff := cmp.Diff(first.Outputs, run.Outputs); diff != "" {
		t.Errorf("outputs (-want +got):\n%s", diff)
	}
	for _, s := range v.Steps {
		x := w.Step(s.Path)
		if x == nil || x.Status != s.Status || cmp.Diff(s.Output, x.Output) != "" || x.Attempt != s.Attempt {
			t.Errorf("%s was %+v and is replayed as %+v", s.Path, s, x)
		}
	}
}

func TestReplayFailsWhereNothingIsRecorded(t *testing.T) {
	c := newTally()
	e := start(t, storetest.Open(t), c.call)
	id := e.submit("steps:\n- {id: a, action: probe, with: {do: a}}\n- {id: w, wait: {signal: never}}\n", nil)
	e.await("the wait", func() bool {
		r, err := e.store.Run(t.Context(), id)
		return err == nil && r.Status == pipeline.RunWaiting
	})
	if _, err := e.Fork(t.Context(), pipeline.Forking{From: id, Mode: pipeline.ForkReplay}); pipeline.KindOf(err) != pipeline.Conflict {
		t.Errorf("the replay of a run that is not over gave %v", err)
	}
	if err := e.store.Send(t.Context(), id, store.Message{Kind: store.MessageCancel}); err != nil {
		t.Fatal(err)
	}
	e.wait(id)
	run, v := e.wait(e.fork(pipeline.Forking{From: id, Mode: pipeline.ForkReplay}))
	if run.Status != pipeline.RunFailed || v.Step("w").Reason != pipeline.ReasonNotRecorded {
		t.Errorf("the replay is %s, its wait %+v", run.Status, v.Step("w"))
	}
}

// What a step does beyond its parameters is not seen by a fingerprint: what works
// with files, or asks people, follows what has run again.
func TestWhatFollowsRunsAgain(t *testing.T) {
	c := newTally()
	e := start(t, storetest.Open(t), c.call)
	const src = `
inputs: {v: {type: integer, default: 1}}
steps:
- {id: early, run: 'echo once >> early.txt'}
- {id: build, run: 'echo {{ v }} > built.txt'}
- {id: shout, action: debug, with: {value: loud}}
- {id: check, run: 'cat built.txt early.txt'}
outputs: {check: '{{ check }}'}
settings: {order: sequence}
`
	first, _ := e.wait(e.submit(src, nil))
	run, v := e.wait(e.fork(pipeline.Forking{
		From: first.ID, Mode: pipeline.ForkAt, Edit: pipeline.Submission{Inputs: map[string]any{"v": int64(2)}},
	}))
	if run.Outputs["check"] != "2\nonce\n" && run.Outputs["check"] != "2\nonce" {
		t.Errorf("check saw %q", run.Outputs["check"])
	}
	for path, reused := range map[pipeline.Path]bool{"early": true, "build": false, "shout": true, "check": false} {
		if got := v.Step(path).ReusedFrom != ""; got != reused {
			t.Errorf("%s: reused is %v", path, got)
		}
	}
}

func TestAnswersArtifactsAndChildrenAreReused(t *testing.T) {
	c := newTally()
	e := start(t, storetest.Open(t), c.call)
	const src = `
artifacts: {note: {type: path}}
steps:
- {id: q, ask: {question: How many?, schema: {type: integer}}}
- {id: w, wait: {for: 1ms}}
- {id: write, run: 'echo text > note.md', artifacts: [note.md]}
- {id: b, action: probe, with: {do: 'n{{ q }}'}}
outputs: {b: '{{ b }}'}
settings: {order: sequence}
`
	c.set("n3", true)
	id := e.submit(src, nil)
	var ask store.ApprovalPage
	e.await("the question", func() bool {
		var err error
		ask, err = e.store.Approvals(t.Context(), store.ApprovalQuery{Run: id})
		return err == nil && len(ask.Approvals) == 1
	})
	if _, err := e.store.Decide(t.Context(), ask.Approvals[0].ID, pipeline.Decision{Decision: "answer", Value: int64(3), Actor: "ann"}); err != nil {
		t.Fatal(err)
	}
	first, v := e.wait(id)
	if first.Status != pipeline.RunFailed {
		t.Fatalf("the run is %s", first.Status)
	}
	c.set("n3", false)
	run, w := e.wait(e.fork(pipeline.Forking{From: first.ID, Mode: pipeline.ForkRetry}))
	if run.Status != pipeline.RunCompleted || run.Outputs["b"] != "n3!" {
		t.Fatalf("the retry is %s with %v: %v", run.Status, run.Outputs, run.Error)
	}
	if again, err := e.store.Approvals(t.Context(), store.ApprovalQuery{Run: run.ID}); err != nil || len(again.Approvals) > 0 {
		t.Errorf("it asks again: %v, %v", again.Approvals, err)
	}
	for _, path := range []pipeline.Path{"q", "w", "write"} {
		if w.Step(path).ReusedFrom != first.ID {
			t.Errorf("%s is not reused: %+v", path, w.Step(path))
		}
	}
	was, is := v.Step("write").Artifacts, w.Step("write").Artifacts
	if len(was) != 1 || cmp.Diff(was, is) != "" {
		t.Fatalf("artifacts were %v and are %v", was, is)
	}
	if data, err := e.store.Blob(t.Context(), run.ID, is[0].Blob); err != nil || strings.TrimSpace(string(data)) != "text" {
		t.Errorf("its content reads back as %q, %v", data, err)
	}
}

// forkStep is a step of a random pipeline of probes, whose parameters show what
// they follow.
type forkStep struct {
	id     string
	word   string // of its own
	refs   []int  // steps whose outputs it names
	loop   int    // items; 0: none
	inputs bool   // names the input
}

func drawPlan(t *rapid.T) []forkStep {
	n := rapid.IntRange(2, 8).Draw(t, "steps")
	steps := make([]forkStep, n)
	for i := range steps {
		s := forkStep{id: fmt.Sprintf("s%d", i), word: rapid.SampledFrom([]string{"x", "y", "z"}).Draw(t, "word"), inputs: rapid.IntRange(0, 3).Draw(t, "input") == 0}
		for k := range i {
			if rapid.IntRange(0, 2).Draw(t, "ref") == 0 {
				s.refs = append(s.refs, k)
			}
		}
		if rapid.IntRange(0, 3).Draw(t, "loop") == 0 {
			s.loop = rapid.IntRange(1, 3).Draw(t, "items")
		}
		steps[i] = s
	}
	return steps
}

func source(steps []forkStep) string {
	var b strings.Builder
	b.WriteString("inputs: {n: {type: integer, default: 1}}\nsteps:\n")
	for _, s := range steps {
		do := s.id + s.word
		if s.inputs {
			do += "{{ n }}"
		}
		for _, k := range s.refs {
			do += fmt.Sprintf("<{{ s%d }}>", k)
		}
		if s.loop > 0 {
			fmt.Fprintf(&b, "- {id: %s, for: {items: '{{ range(%d) }}', variable: i}, action: probe, with: {do: '%s{{ i }}'}}\n", s.id, s.loop, do)
			continue
		}
		fmt.Fprintf(&b, "- {id: %s, action: probe, with: {do: '%s'}}\n", s.id, do)
	}
	return b.String() + "settings: {order: graph}\n"
}

// TestForksExecuteOnlyWhatChanged forks random pipelines at random records with
// random edits: what neither changed nor follows a change is never executed
// again, and the outputs are those of a fresh run.
func TestForksExecuteOnlyWhatChanged(t *testing.T) {
	c := newTally()
	e := start(t, storetest.Open(t), c.call)
	rapid.Check(t, func(t *rapid.T) {
		steps := drawPlan(t)
		first, _ := e.wait(e.submit(source(steps), nil))
		if first.Status != pipeline.RunCompleted {
			t.Fatalf("the first run is %s: %v", first.Status, first.Error)
		}
		log := e.log(first.ID)
		f := pipeline.Forking{From: first.ID, Mode: pipeline.ForkAt, At: rapid.Int32Range(0, int32(len(log))).Draw(t, "at")} //nolint:gosec // a short log
		edited := slices.Clone(steps)
		changed := map[int]bool{}
		inputs := map[string]any(nil)
		if rapid.Bool().Draw(t, "other input") {
			inputs = map[string]any{"n": int64(2)}
		}
		for i := range edited {
			if rapid.IntRange(0, 4).Draw(t, "edit") == 0 {
				edited[i].word += "w"
				changed[i] = true
			}
			changed[i] = changed[i] || inputs != nil && edited[i].inputs
		}
		for i := range edited {
			for _, k := range edited[i].refs {
				changed[i] = changed[i] || changed[k]
			}
		}
		recorded := map[string]bool{}
		for _, ev := range log {
			if ev.Type == pipeline.StepFinished && (f.At == 0 || ev.Seq <= f.At) {
				recorded[string(ev.Path)] = true
			}
		}
		f.Edit = e.submission(source(edited), inputs)
		f.Edit.Inputs = inputs
		run, _ := e.wait(e.fork(f))
		again := map[string]bool{}
		for _, path := range c.of(run.ID) {
			again[path] = true
		}
		moved := map[int]bool{} // what follows something that ran for want of a record
		for i, s := range edited {
			mine := false
			for path := range again {
				mine = mine || path == s.id || strings.HasPrefix(path, s.id+"[")
			}
			for _, k := range s.refs {
				moved[i] = moved[i] || moved[k]
			}
			for path := range again {
				if path != s.id && !strings.HasPrefix(path, s.id+"[") {
					continue
				}
				if recorded[path] && !changed[i] && !moved[i] {
					t.Fatalf("%s ran again although nothing of it changed", path)
				}
			}
			moved[i] = moved[i] || mine
		}
		fresh, _ := e.wait(e.submit(source(edited), inputs))
		if diff := cmp.Diff(fresh.Outputs, run.Outputs); diff != "" {
			t.Fatalf("outputs of a fresh run (-) and of the fork (+):\n%s", diff)
		}
	})
}

// TestForkGoesOnAfterItsOwnersDeath forks a run, lets the owner go while a step
// of the fork runs, and lets another go on: nothing is executed twice that ended.
func TestForkGoesOnAfterItsOwnersDeath(t *testing.T) {
	s := storetest.Open(t)
	c := newTally()
	dir := t.TempDir()
	same := func(cfg *executor.Config) { cfg.Workspaces = filepath.Join(dir, "runs") }
	reached, hold := make(chan struct{}), make(chan struct{})
	var once sync.Once
	e := start(t, s, func(ctx context.Context, env executor.Env, do string) (any, error) {
		v, err := c.call(ctx, env, do)
		if do == "cb2!" {
			once.Do(func() { close(reached) })
			select {
			case <-hold:
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		}
		return v, err
	}, same, func(cfg *executor.Config) { cfg.Grace = 1 })
	first, _ := e.wait(e.submit(errands, nil))
	id := e.fork(pipeline.Forking{From: first.ID, Mode: pipeline.ForkAt, Edit: pipeline.Submission{Inputs: map[string]any{"n": int64(2)}}})
	<-reached
	e.stop()
	close(hold)
	next := start(t, s, c.call, same)
	run, _ := next.wait(id)
	if run.Status != pipeline.RunCompleted {
		t.Fatalf("the fork is %s: %v", run.Status, run.Error)
	}
	if diff := cmp.Diff([]string{"b", "c", "c", "clean"}, c.of(id)); diff != "" {
		t.Errorf("what ran (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(map[string]any{"c": "cb2!!", "total": int64(5)}, run.Outputs); diff != "" {
		t.Errorf("outputs (-want +got):\n%s", diff)
	}
}
