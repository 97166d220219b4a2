package executor_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/orchestrator-project/orchestrator/executor"
	"github.com/orchestrator-project/orchestrator/pipeline"
	"github.com/orchestrator-project/orchestrator/store"
	"github.com/orchestrator-project/orchestrator/store/storetest"
)

// hired is a worker under test: the test decides what it says.
type hired struct {
	t       *testing.T
	e       *engine
	info    pipeline.Worker
	words   chan pipeline.WorkerWord
	orders  chan pipeline.WorkerOrder
	welcome chan pipeline.WorkerWelcome
	leave   context.CancelFunc
	ended   chan error
}

// hire connects a worker to an engine, without waiting for a welcome.
func hire(t *testing.T, e *engine, info pipeline.Worker) *hired {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	if info.Incarnation == "" {
		info.Incarnation = info.Name + "-1"
	}
	if info.Slots == 0 {
		info.Slots = 4
	}
	if info.Runs == nil {
		info.Runs = []string{"command", "probe"}
	}
	h := &hired{
		t: t, e: e, info: info, words: make(chan pipeline.WorkerWord), orders: make(chan pipeline.WorkerOrder, 100),
		welcome: make(chan pipeline.WorkerWelcome, 1), ended: make(chan error, 1),
	}
	var once sync.Once
	h.leave = func() { once.Do(cancel) }
	go func() {
		h.ended <- e.Attend(ctx, info,
			func(w pipeline.WorkerWelcome) error { h.welcome <- w; return nil },
			func() (pipeline.WorkerWord, error) {
				select {
				case w := <-h.words:
					return w, nil
				case <-ctx.Done():
					return pipeline.WorkerWord{}, io.EOF
				}
			},
			func(o pipeline.WorkerOrder) error { h.orders <- o; return nil })
		close(h.ended)
	}()
	t.Cleanup(h.gone)
	return h
}

// welcomed waits until the worker is taken in.
func (h *hired) welcomed() *hired {
	h.t.Helper()
	select {
	case <-h.welcome:
	case err := <-h.ended:
		h.t.Fatalf("the worker is not taken in: %v", err)
	}
	return h
}

// gone breaks the worker's stream.
func (h *hired) gone() {
	h.leave()
	for range h.ended {
	}
}

func (h *hired) say(w pipeline.WorkerWord) {
	h.t.Helper()
	select {
	case h.words <- w:
	case err := <-h.ended:
		h.t.Fatalf("the stream has ended: %v", err)
	}
}

// told waits for an order of the kind that is wanted; others are dropped.
func (h *hired) told(want func(pipeline.WorkerOrder) bool) pipeline.WorkerOrder {
	h.t.Helper()
	late := time.After(2 * time.Minute)
	for {
		select {
		case o := <-h.orders:
			if want(o) {
				return o
			}
		case <-late:
			h.t.Fatal("the worker waits too long for an order")
		}
	}
}

func (h *hired) assigned() *pipeline.Assignment {
	h.t.Helper()
	return h.told(func(o pipeline.WorkerOrder) bool { return o.Assign != nil }).Assign
}

func (h *hired) finish(a *pipeline.Assignment, output any) {
	h.t.Helper()
	h.say(pipeline.WorkerWord{Result: &pipeline.WorkerResult{Token: a.Token, Output: output}})
}

func (h *hired) acknowledged(token string) {
	h.t.Helper()
	h.told(func(o pipeline.WorkerOrder) bool { return o.Acknowledge == token })
}

// brief shortens the waits for workers.
func brief(c *executor.Config) { c.RemoteWait, c.WorkerHeartbeat = 50*time.Millisecond, time.Minute }

const onGPU = `
steps:
  - id: train
    action: probe
    worker: [gpu]
    parameters: {do: x}
`

func TestStepGoesOnlyToAWorkerWithItsLabels(t *testing.T) {
	e := start(t, storetest.Open(t), nil)
	other := hire(t, e, pipeline.Worker{Name: "other", Labels: []string{"eu"}}).welcomed()
	gpu := hire(t, e, pipeline.Worker{Name: "gpu", Labels: []string{"eu", "gpu"}}).welcomed()
	id := e.submit(onGPU, nil)
	a := gpu.assigned()
	if a.Run != id || a.Path != "train" || a.Attempt != 1 || a.Key != string(id)+"/train" || a.Action != "probe" || a.Parameters["do"] != "x" {
		t.Errorf("assigned is %+v", a)
	}
	gpu.say(pipeline.WorkerWord{Log: &pipeline.WorkerLog{Token: a.Token, Stream: "stdout", Text: "training\n", N: 1}})
	gpu.finish(a, "trained")
	gpu.acknowledged(a.Token)
	run, view := e.wait(id)
	s := view.Step("train")
	if run.Status != pipeline.RunCompleted || s.Output != "trained" || s.Worker != "gpu" || !s.Remote {
		t.Errorf("the run is %s, its step %+v", run.Status, s)
	}
	var text string
	for c, err := range e.store.Logs(t.Context(), store.LogQuery{Run: id}) {
		if err != nil {
			t.Fatal(err)
		}
		text += c.Text
	}
	if text != "training\n" {
		t.Errorf("the log is %q", text)
	}
	select {
	case o := <-other.orders:
		t.Errorf("a worker without the label is told %+v", o)
	default:
	}
}

func TestRunWaitsForAWorker(t *testing.T) {
	s := storetest.Open(t)
	e := start(t, s, nil, unpolled)
	id := e.submit(onGPU, nil)
	run := e.status(id, pipeline.RunWaiting)
	if run.Reason != pipeline.WaitWorker {
		t.Errorf("the run waits for %s", run.Reason)
	}
	gpu := hire(t, e, pipeline.Worker{Name: "gpu", Labels: []string{"gpu"}}).welcomed()
	a := gpu.assigned()
	gpu.finish(a, "trained")
	if run, _ := e.wait(id); run.Status != pipeline.RunCompleted || a.Attempt != 1 {
		t.Errorf("attempt %d: the run is %s", a.Attempt, run.Status)
	}
}

func TestRunThatWaitsForAWorkerOutlivesItsServer(t *testing.T) {
	s := storetest.Open(t)
	e := start(t, s, nil)
	id := e.submit(onGPU, nil)
	e.status(id, pipeline.RunWaiting)
	e.stop()
	e = start(t, s, nil)
	gpu := hire(t, e, pipeline.Worker{Name: "gpu", Labels: []string{"gpu"}}).welcomed()
	gpu.finish(gpu.assigned(), "trained")
	if run, _ := e.wait(id); run.Status != pipeline.RunCompleted {
		t.Errorf("the run is %s", run.Status)
	}
}

func TestWorkersTakeNoMoreThanTheyHaveSlotsFor(t *testing.T) {
	e := start(t, storetest.Open(t), nil)
	gpu := hire(t, e, pipeline.Worker{Name: "gpu", Labels: []string{"gpu"}, Slots: 2}).welcomed()
	id := e.submit(`
steps:
  - id: all
    for:
      items: [a, b, c, d, e, f]
      parallel: 6
    steps:
      - id: train
        action: probe
        worker: [gpu]
        parameters: {do: "{{ item }}"}
`, nil)
	held := []*pipeline.Assignment{gpu.assigned(), gpu.assigned()}
	for n := 0; len(held) > 0; n++ {
		if w := e.Workers(); len(w) != 1 || w[0].Busy > 2 || len(w[0].Attempts) > 2 {
			t.Fatalf("the workers are %+v", w)
		}
		gpu.finish(held[0], "done")
		if held = held[1:]; n < 4 {
			held = append(held, gpu.assigned())
		}
	}
	if run, _ := e.wait(id); run.Status != pipeline.RunCompleted {
		t.Errorf("the run is %s", run.Status)
	}
}

func TestLeastLoadedWorkerIsTaken(t *testing.T) {
	e := start(t, storetest.Open(t), nil)
	one := hire(t, e, pipeline.Worker{Name: "one", Labels: []string{"gpu"}, Slots: 4}).welcomed()
	two := hire(t, e, pipeline.Worker{Name: "two", Labels: []string{"gpu"}, Slots: 4}).welcomed()
	first := e.submit(onGPU, nil)
	a := one.assigned() // equal: by name
	second := e.submit(onGPU, nil)
	b := two.assigned()
	one.finish(a, nil)
	two.finish(b, nil)
	e.wait(first)
	e.wait(second)
}

func TestLostWorkersStepIsBegunAgainElsewhere(t *testing.T) {
	e := start(t, storetest.Open(t), nil, brief)
	one := hire(t, e, pipeline.Worker{Name: "one", Labels: []string{"gpu"}}).welcomed()
	id := e.submit(onGPU, nil)
	a := one.assigned()
	one.gone()
	two := hire(t, e, pipeline.Worker{Name: "two", Labels: []string{"gpu"}}).welcomed()
	b := two.assigned()
	if b.Attempt != 2 || b.Key != a.Key || b.Token == a.Token {
		t.Errorf("begun again is %+v", b)
	}
	// What the lost one still says changes nothing.
	one = hire(t, e, pipeline.Worker{Name: "one", Labels: []string{"gpu"}, Held: []string{a.Token}}).welcomed()
	one.told(func(o pipeline.WorkerOrder) bool { return o.Cancel == a.Token })
	one.finish(a, "late")
	one.acknowledged(a.Token)
	two.finish(b, "trained")
	run, view := e.wait(id)
	if run.Status != pipeline.RunCompleted || view.Step("train").Output != "trained" {
		t.Errorf("the run is %s, its step %+v", run.Status, view.Step("train"))
	}
}

// A step that may run once is not begun again by itself where its worker is lost:
// the run asks a person, whether the step or its action says so.
func TestLostWorkersStepThatMayRunOnceAsks(t *testing.T) {
	pay := pipeline.ActionSpec{Key: "pay", Name: "pay", Effect: pipeline.EffectAtMostOnce, Open: true, Returns: pipeline.Type{Kind: "string"}}
	for name, src := range map[string]string{
		"the step says so":   "steps:\n- {id: pay, action: probe, worker: [gpu], effect: at_most_once, parameters: {do: x}}\noutputs: {said: '{{ pay }}'}",
		"its action says so": "steps:\n- {id: pay, action: pay}\noutputs: {said: '{{ pay }}'}",
	} {
		for _, ownerLives := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, the owner lives: %t", name, ownerLives), func(t *testing.T) {
				s := storetest.Open(t)
				e := start(t, s, nil, brief)
				one := hire(t, e, pipeline.Worker{Name: "one", Labels: []string{"gpu"}, Actions: []pipeline.ActionSpec{pay}}).welcomed()
				id := e.submit(src, nil)
				one.assigned()
				if !ownerLives {
					e.stop()
				}
				one.gone()
				if !ownerLives {
					e = start(t, s, nil, brief)
				}
				a := e.approval(id)
				if a.Kind != pipeline.ApprovalDecide || a.Path != "pay" || !strings.Contains(a.Question, "may run only once") {
					t.Errorf("asked is %+v", a)
				}
				e.decide(a, "done", "paid by hand", "ann")
				if run, view := e.wait(id); run.Status != pipeline.RunCompleted || run.Outputs["said"] != "paid by hand" || view.Step("pay").Attempt != 1 {
					t.Errorf("the run is %s, its step %+v", run.Status, view.Step("pay"))
				}
			})
		}
	}
}

func TestWorkerThatComesBackKeepsItsStep(t *testing.T) {
	e := start(t, storetest.Open(t), nil, func(c *executor.Config) { c.RemoteWait, c.WorkerHeartbeat = time.Hour, time.Minute })
	gpu := hire(t, e, pipeline.Worker{Name: "gpu", Labels: []string{"gpu"}}).welcomed()
	id := e.submit(onGPU, nil)
	a := gpu.assigned()
	gpu.gone()
	if w := e.Workers(); len(w) != 1 || w[0].Status != pipeline.WorkerLost {
		t.Errorf("the workers are %+v", w)
	}
	gpu = hire(t, e, pipeline.Worker{Name: "gpu", Labels: []string{"gpu"}, Held: []string{a.Token}}).welcomed()
	gpu.finish(a, "trained")
	gpu.acknowledged(a.Token)
	if run, view := e.wait(id); run.Status != pipeline.RunCompleted || view.Step("train").Attempt != 1 {
		t.Errorf("the run is %s, its step %+v", run.Status, view.Step("train"))
	}
}

func TestNewOwnerAdoptsWhatAWorkerHolds(t *testing.T) {
	s := storetest.Open(t)
	e := start(t, s, nil)
	gpu := hire(t, e, pipeline.Worker{Name: "gpu", Labels: []string{"gpu"}}).welcomed()
	id := e.submit(onGPU, nil)
	a := gpu.assigned()
	e.stop()
	e = start(t, s, nil, func(c *executor.Config) { c.RemoteWait, c.WorkerHeartbeat = time.Hour, time.Minute })
	gpu = hire(t, e, pipeline.Worker{Name: "gpu", Labels: []string{"gpu"}, Held: []string{a.Token}}).welcomed()
	gpu.finish(a, "trained")
	gpu.acknowledged(a.Token)
	run, view := e.wait(id)
	if step := view.Step("train"); run.Status != pipeline.RunCompleted || step.Attempt != 1 || step.Output != "trained" || step.Worker != "gpu" {
		t.Errorf("the run is %s, its step %+v", run.Status, step)
	}
}

func TestCancelReachesTheWorker(t *testing.T) {
	e := start(t, storetest.Open(t), nil)
	gpu := hire(t, e, pipeline.Worker{Name: "gpu", Labels: []string{"gpu"}}).welcomed()
	id := e.submit(onGPU, nil)
	a := gpu.assigned()
	e.send(id, store.MessageCancel, "")
	gpu.told(func(o pipeline.WorkerOrder) bool { return o.Cancel == a.Token })
	gpu.say(pipeline.WorkerWord{Result: &pipeline.WorkerResult{Token: a.Token, Error: pipeline.Failuref(pipeline.CategoryCancelled, "cancelled")}})
	if run, _ := e.wait(id); run.Status != pipeline.RunCancelled {
		t.Errorf("the run is %s", run.Status)
	}
}

func TestDrainedWorkerTakesNothingNew(t *testing.T) {
	e := start(t, storetest.Open(t), nil, brief)
	one := hire(t, e, pipeline.Worker{Name: "one", Labels: []string{"gpu"}}).welcomed()
	id := e.submit(onGPU, nil)
	a := one.assigned()
	if err := e.DrainWorker("one"); err != nil {
		t.Fatal(err)
	}
	one.told(func(o pipeline.WorkerOrder) bool { return o.Drain })
	one.say(pipeline.WorkerWord{Decline: &pipeline.WorkerDecline{Token: a.Token, Begun: true}})
	e.status(id, pipeline.RunWaiting)
	two := hire(t, e, pipeline.Worker{Name: "two", Labels: []string{"gpu"}}).welcomed()
	b := two.assigned()
	two.finish(b, nil)
	if run, _ := e.wait(id); run.Status != pipeline.RunCompleted || b.Attempt != 2 {
		t.Errorf("attempt %d: the run is %s", b.Attempt, run.Status)
	}
	if err := e.DrainWorker("nobody"); pipeline.KindOf(err) != pipeline.NotFound {
		t.Errorf("an unknown worker gives %v", err)
	}
}

func TestActionsThatWorkersBring(t *testing.T) {
	e := start(t, storetest.Open(t), nil)
	spec := pipeline.ActionSpec{
		Key: "shout", Name: "shout", Doc: "Writes a text in capitals.", Effect: pipeline.EffectIdempotent,
		Params:  []pipeline.Property{{Name: "text", Type: pipeline.Type{Kind: "string"}, Required: true}, {Name: "times", Type: pipeline.Type{Kind: "integer", Optional: true}, Default: int64(2)}},
		Returns: pipeline.Type{Kind: "string"},
	}
	w := hire(t, e, pipeline.Worker{Name: "w", Runs: []string{}, Actions: []pipeline.ActionSpec{spec}}).welcomed()
	id := e.submit(`
inputs: {text: string}
steps:
  - id: loud
    action: shout
    parameters: {text: "{{ text }}"}
`, map[string]any{"text": "hey"})
	a := w.assigned()
	if a.Parameters["text"] != "hey" || a.Parameters["times"] != int64(2) {
		t.Errorf("the parameters are %v", a.Parameters)
	}
	w.finish(a, "HEY")
	if run, view := e.wait(id); run.Status != pipeline.RunCompleted || view.Step("loud").Output != "HEY" {
		t.Errorf("the run is %s", run.Status)
	}
	id = e.submit(`
steps:
  - id: loud
    action: shout
    parameters: {text: hey}
`, nil)
	w.finish(w.assigned(), int64(7)) // not what it has promised
	if run, view := e.wait(id); run.Status != pipeline.RunFailed || view.Step("loud").Error.Kind != pipeline.CategoryContract {
		t.Errorf("the run is %s: %v", run.Status, view.Step("loud").Error)
	}
}

func TestWorkersThatAreNotTakenIn(t *testing.T) {
	e := start(t, storetest.Open(t), nil)
	hire(t, e, pipeline.Worker{Name: "taken", Labels: []string{"gpu"}}).welcomed()
	for name, w := range map[string]pipeline.Worker{
		"invalid_name":      {Name: "-x"},
		"invalid_slots":     {Name: "x", Slots: -1},
		"action_exists":     {Name: "x", Actions: []pipeline.ActionSpec{{Key: "probe"}}},
		"worker_name_taken": {Name: "taken", Incarnation: "another"},
	} {
		h := hire(t, e, w)
		err := <-h.ended
		var pe *pipeline.Error
		if !errors.As(err, &pe) || pe.Reason != name {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestTokensOfOthersAreRefused(t *testing.T) {
	e := start(t, storetest.Open(t), nil)
	w := hire(t, e, pipeline.Worker{Name: "w", Labels: []string{"gpu"}, Held: []string{"made-up"}}).welcomed()
	w.acknowledged("made-up")
	if _, err := e.AttemptRun(t.Context(), "made-up"); pipeline.KindOf(err) != pipeline.Denied {
		t.Errorf("a made-up token gives %v", err)
	}
}
