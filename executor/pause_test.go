package executor_test

import (
	"context"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/orchestrator-project/orchestrator/executor"
	"github.com/orchestrator-project/orchestrator/pipeline"
	"github.com/orchestrator-project/orchestrator/store"
	"github.com/orchestrator-project/orchestrator/store/storetest"
)

func (e *engine) say(id pipeline.RunID, kind, body string) {
	e.t.Helper()
	m := store.Message{Kind: kind, Actor: "ann"}
	if body != "" {
		m.Body = []byte(body)
	}
	if err := e.store.Send(context.Background(), id, m); err != nil {
		e.t.Fatalf("send %s: %v", kind, err)
	}
}

// rests waits until a run is parked in that state: nobody owns it.
func (e *engine) rests(id pipeline.RunID, status pipeline.RunStatus) {
	e.t.Helper()
	e.await("run "+string(id)+" to be "+string(status), func() bool {
		run, err := e.store.Run(context.Background(), id)
		if err != nil {
			e.t.Fatal(err)
		}
		return run.Status == status
	})
}

// held is a probe whose steps wait until they are let go.
type held struct {
	begun chan string
	let   chan struct{}
}

func (h *held) call(ctx context.Context, _ executor.Env, do string) (any, error) {
	h.begun <- do
	select {
	case <-h.let:
		return do, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

const twoThenOne = `
steps:
- {id: a, action: probe, with: {do: a}}
- {id: b, action: probe, with: {do: b}}
- {id: c, action: probe, with: {do: c}}
settings: {order: sequence}
`

func kinds(log []pipeline.Event) []string {
	var list []string
	for i := range log {
		list = append(list, string(log[i].Type)+" "+string(log[i].Path))
	}
	return list
}

func TestAPausedRunEndsWhatRunsAndBeginsNothing(t *testing.T) {
	h := &held{begun: make(chan string, 9), let: make(chan struct{}, 9)}
	e := start(t, storetest.Open(t), h.call)
	id := e.submit(twoThenOne, nil)
	<-h.begun
	e.say(id, store.MessagePause, "")
	e.await("the pause", func() bool { return slices.Contains(kinds(e.log(id)), "run_paused ") })
	h.let <- struct{}{}
	e.await("the end of a", func() bool { return slices.Contains(kinds(e.log(id)), "step_finished a") })
	e.rests(id, pipeline.RunPaused)
	if got := len(h.begun); got > 0 {
		t.Fatalf("%d steps began in a paused run", got)
	}
	e.say(id, store.MessageResume, "")
	for range 2 {
		<-h.begun
		h.let <- struct{}{}
	}
	run, _ := e.wait(id)
	if run.Status != pipeline.RunCompleted {
		t.Errorf("the run is %s", run.Status)
	}
	want := []string{
		"run_created ", "run_started ", "step_started a", "run_paused ", "step_finished a", "run_resumed ",
		"step_started b", "step_finished b", "step_started c", "step_finished c", "run_finished ",
	}
	if diff := cmp.Diff(want, kinds(e.log(id))); diff != "" {
		t.Errorf("the log (-want +got):\n%s", diff)
	}
}

func TestWhatComesForAPausedRunWaits(t *testing.T) {
	e := start(t, storetest.Open(t), nil)
	id := e.submit("steps:\n- {id: w, wait: {signal: go}}\n- {id: t, wait: {for: 5s}, condition: '{{ w == 1 }}'}\noutputs: {w: '{{ w }}'}\n", nil)
	e.rests(id, pipeline.RunWaiting)
	e.say(id, store.MessagePause, "")
	e.rests(id, pipeline.RunPaused)
	e.say(id, store.MessageSignal, `{"name":"go","data":2}`)
	e.say(id, store.MessageSignal, `{"name":"other","data":3}`)
	e.rests(id, pipeline.RunPaused)
	e.say(id, store.MessageResume, "")
	run, _ := e.wait(id)
	if run.Status != pipeline.RunCompleted || run.Outputs["w"] != int64(2) {
		t.Errorf("the run is %s with %v", run.Status, run.Outputs)
	}
}

func TestAPausedRunCanBeCancelled(t *testing.T) {
	h := &held{begun: make(chan string, 9), let: make(chan struct{}, 9)}
	e := start(t, storetest.Open(t), h.call)
	id := e.submit(twoThenOne+"finally: [{id: z, action: debug, with: {value: over}}]\n", nil)
	<-h.begun
	e.say(id, store.MessagePause, "")
	h.let <- struct{}{}
	e.rests(id, pipeline.RunPaused)
	e.say(id, store.MessageCancel, "")
	run, v := e.wait(id)
	if run.Status != pipeline.RunCancelled || v.Step("z") == nil || v.Step("z").Status != pipeline.StepCompleted {
		t.Errorf("the run is %s, its finally %+v", run.Status, v.Step("z"))
	}
}

// A run stays paused whoever takes it over, and what was under way then is begun
// again once it is resumed.
func TestAPauseSurvivesItsOwner(t *testing.T) {
	s := storetest.Open(t)
	h := &held{begun: make(chan string, 9), let: make(chan struct{}, 9)}
	e := start(t, s, h.call, func(c *executor.Config) { c.Grace = 1 })
	id := e.submit(twoThenOne, nil)
	<-h.begun
	e.say(id, store.MessagePause, "")
	e.await("the pause", func() bool { return slices.Contains(kinds(e.log(id)), "run_paused ") })
	e.stop()
	next := start(t, s, h.call)
	next.rests(id, pipeline.RunPaused)
	next.say(id, store.MessageResume, "")
	for range 3 {
		<-h.begun
		h.let <- struct{}{}
	}
	if run, v := next.wait(id); run.Status != pipeline.RunCompleted || v.Step("a").Attempt < 2 {
		t.Errorf("the run is %s, a had %d attempts", run.Status, v.Step("a").Attempt)
	}
}

const family = `
steps:
- {id: one, detach: true, pipeline: {id: child, steps: [{id: deeper, detach: true, pipeline: {id: grandchild, steps: [{id: w, wait: {signal: never}}]}}, {id: w, wait: {signal: never}}]}}
- {id: two, detach: true, pipeline: {id: other, steps: [{id: w, wait: {signal: never}}]}}
- {id: w, wait: {signal: never}}
`

// relatives are the runs of the family that have begun, by their pipelines.
func (e *engine) relatives() map[string]pipeline.RunID {
	e.t.Helper()
	page, err := e.store.Runs(context.Background(), store.Query{})
	if err != nil {
		e.t.Fatal(err)
	}
	all := map[string]pipeline.RunID{}
	for _, r := range page.Runs {
		all[r.Pipeline] = r.ID
	}
	return all
}

func TestACancelReachesTheWholeTree(t *testing.T) {
	e := start(t, storetest.Open(t), nil)
	id := e.submit(family, nil)
	e.await("the family", func() bool { return len(e.relatives()) == 4 })
	e.say(e.relatives()["grandchild"], store.MessagePause, "") // a paused one too
	e.rests(e.relatives()["grandchild"], pipeline.RunPaused)
	e.say(id, store.MessageCancel, "")
	for name, run := range e.relatives() {
		if r, _ := e.wait(run); r.Status != pipeline.RunCancelled {
			t.Errorf("%s is %s", name, r.Status)
		}
	}
}

// deaf is a store that a process cannot send through: it dies between the record
// of its cancel and the end of its children.
type deaf struct{ store.Store }

func (deaf) Send(context.Context, pipeline.RunID, store.Message) error {
	return &pipeline.Error{Kind: pipeline.Unavailable, Reason: "store_unavailable", Text: "not now"}
}

func TestACancelOfTheTreeSurvivesItsOwner(t *testing.T) {
	s := storetest.Open(t)
	e := start(t, deaf{s}, nil, func(c *executor.Config) { c.Grace = 1 })
	id := e.submit(family, nil)
	e.await("the family", func() bool { return len(e.relatives()) == 4 })
	if err := s.Send(t.Context(), id, store.Message{Kind: store.MessageCancel}); err != nil {
		t.Fatal(err)
	}
	e.await("the cancel", func() bool { return slices.Contains(kinds(e.log(id)), "step_skipped w") })
	if run, err := s.Run(t.Context(), id); err != nil || run.Status.Final() {
		t.Fatalf("the run is over before its children: %v, %v", run, err)
	}
	e.stop()
	next := start(t, s, nil)
	for name, run := range next.relatives() {
		if r, _ := next.wait(run); r.Status != pipeline.RunCancelled {
			t.Errorf("%s is %s", name, r.Status)
		}
	}
}
