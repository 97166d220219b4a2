package agent_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/orchestrator-project/orchestrator/executor"
	"github.com/orchestrator-project/orchestrator/executor/model"
	"github.com/orchestrator-project/orchestrator/executor/tool"
	"github.com/orchestrator-project/orchestrator/pipeline"
	"github.com/orchestrator-project/orchestrator/store"
)

// desk is an engine whose agent has free and gated tools, and people at work.
type desk struct {
	t     *testing.T
	eyes  store.Store
	p     *process
	run   *pipeline.Run
	done  chan string   // tells of calls that were carried out
	slow  chan error    // how the call of slow ends
	began chan struct{} // it is under way
	gate  pipeline.Gate
}

func newDesk(t *testing.T, gate pipeline.Gate, calls ...string) *desk {
	t.Helper()
	return newDeskOf(t, gate, callsThenTells(calls...))
}

func newDeskOf(t *testing.T, gate pipeline.Gate, says func(*model.Request) (*model.Response, error)) *desk {
	t.Helper()
	d := &desk{t: t, done: make(chan string, 10), slow: make(chan error, 1), began: make(chan struct{}, 1), gate: gate}
	open := stores(t)["sqlite"](t)
	w := &world{t: t, open: open, eyes: open()}
	d.eyes = w.eyes
	d.p = w.serve(scripted(says), d)
	t.Cleanup(func() {
		d.p.end()
		_ = d.eyes.Close()
	})
	run, err := d.p.ex.Submit(t.Context(), submission(t, d.p.ex, `
agents:
  worker: {instructions: Work., tools: [ask_human]}
steps:
- {id: work, agent: worker, prompt: Do it.}
outputs: {said: '{{ work }}'}`))
	if err != nil {
		t.Fatal(err)
	}
	d.run = run
	return d
}

// Open makes the desk the source of its agent's tools.
func (d *desk) Open(_ context.Context, _ executor.Env, want tool.Want) (tool.Box, error) {
	one := func(name string) tool.Tool {
		return tool.Tool{Name: name, Effect: pipeline.EffectAtMostOnce, Run: func(_ context.Context, env executor.Env, c tool.Call) (tool.Result, error) {
			env.Log("stdout", fmt.Sprintf("%s %v\n", name, c.Arguments["x"]))
			d.done <- fmt.Sprintf("%s %v", name, c.Arguments["x"])
			return tool.Text(fmt.Sprintf("did %s %v", name, c.Arguments["x"])), nil
		}}
	}
	pay := one("pay")
	pay.Schema = map[string]any{"type": "object", "properties": map[string]any{"x": map[string]any{"type": "integer"}}}
	return box{
		one("look"), gated(pay, d.gate),
		{Name: "slow", Effect: pipeline.EffectPure, Run: func(ctx context.Context, _ executor.Env, _ tool.Call) (tool.Result, error) {
			d.began <- struct{}{}
			select {
			case err := <-d.slow:
				if err != nil {
					return tool.Result{}, err
				}
				return tool.Text("slow is over"), nil
			case <-ctx.Done():
				return tool.Result{}, ctx.Err()
			}
		}},
		{Name: "ask_human", Human: true, Effect: pipeline.EffectPure},
		{Name: "hand_on", Effect: pipeline.EffectPure, Run: func(ctx context.Context, env executor.Env, c tool.Call) (tool.Result, error) {
			to, _ := c.Arguments["to"].(string)
			return want.Nested(ctx, env, &pipeline.Agent{Name: to}, "Do it.", c)
		}},
	}, nil
}

// await looks until what is there.
func (d *desk) await(what string, there func() bool) {
	d.t.Helper()
	late := time.After(2 * time.Minute)
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !there() {
		select {
		case <-tick.C:
		case <-late:
			d.t.Fatalf("it waits in vain: %s", what)
		}
	}
}

// questions are what stands in the inbox.
func (d *desk) questions() []*pipeline.Approval {
	d.t.Helper()
	page, err := d.eyes.Approvals(d.t.Context(), store.ApprovalQuery{Run: d.run.ID, Status: pipeline.ApprovalOpen, Limit: 100})
	if err != nil {
		d.t.Fatal(err)
	}
	return page.Approvals
}

// question waits until people are asked something that holds text.
func (d *desk) question(text string) pipeline.ApprovalID {
	d.t.Helper()
	var id pipeline.ApprovalID
	d.await("the question about "+text, func() bool {
		for _, a := range d.questions() {
			if strings.Contains(a.Question, text) {
				id = a.ID
			}
		}
		return id != ""
	})
	return id
}

func (d *desk) decide(id pipeline.ApprovalID, say pipeline.Decision) {
	d.t.Helper()
	say.Approval, say.Actor = id, "ann"
	if _, err := d.eyes.Decide(d.t.Context(), id, say); err != nil {
		d.t.Fatal(err)
	}
}

// ends waits for the end of the run.
func (d *desk) ends(want string) *pipeline.Run {
	d.t.Helper()
	var run *pipeline.Run
	d.await("the end of the run", func() bool {
		var err error
		if run, err = d.eyes.Run(d.t.Context(), d.run.ID); err != nil {
			d.t.Fatal(err)
		}
		return run.Status.Final()
	})
	if run.Status != pipeline.RunCompleted || run.Outputs["said"] != want {
		d.t.Errorf("%s, %v, %v; want %s", run.Status, run.Outputs, run.Error, want)
	}
	return run
}

// events are those of the agent's step.
func (d *desk) events() []pipeline.Event {
	d.t.Helper()
	var list []pipeline.Event
	for e, err := range d.eyes.StepEvents(d.t.Context(), d.run.ID, "work", 0) {
		if err != nil {
			d.t.Fatal(err)
		}
		list = append(list, e)
	}
	return list
}

var always = pipeline.Gate{Always: true}

func TestAQuestionStandsWhileFreeCallsOfItsTurnGoOn(t *testing.T) {
	d := newDesk(t, always, "pay", `{"x":1}`, "slow", `{}`, "pay", `{"x":2}`, "ask_human", `{"question":"Which?"}`)
	<-d.began
	first, second, human := d.question(`{"x":1}`), d.question(`{"x":2}`), d.question("Which?")
	d.decide(second, pipeline.Decision{Decision: "approve"})
	if done := <-d.done; done != "pay 2" { // while slow goes on, and the first is not decided
		t.Errorf("carried out: %s", done)
	}
	d.decide(human, pipeline.Decision{Decision: "answer", Value: "the red one"})
	d.slow <- errors.New("out of order") // that it fails changes nothing for the others
	d.await("the step waits", func() bool {
		run, err := d.eyes.Run(t.Context(), d.run.ID)
		return err == nil && run.Status == pipeline.RunWaiting
	})
	if q := d.questions(); len(q) != 1 || q[0].ID != first {
		t.Errorf("open: %+v", q)
	}
	d.decide(first, pipeline.Decision{Decision: "reject", Comment: "no"})
	d.ends("failed: The call was denied by ann: no | failed: out of order | did pay 2 | the red one")
	if len(d.done) != 0 {
		t.Errorf("%d more calls", len(d.done))
	}
}

func TestADecisionThatDoesNotFitIsAskedAgainAtOnce(t *testing.T) {
	d := newDesk(t, always, "pay", `{"x":1}`, "slow", `{}`)
	d.decide(d.question("pay"), pipeline.Decision{Decision: "approve", Value: map[string]any{"x": "much"}})
	d.decide(d.question("do not fit"), pipeline.Decision{Decision: "approve", Value: map[string]any{"x": int64(7)}})
	if done := <-d.done; done != "pay 7" {
		t.Errorf("carried out: %s", done)
	}
	d.slow <- nil
	d.ends(`did pay 7A person has changed the arguments to {"x":7}. | slow is over`)
}

func TestADeadlinePassesWhileFreeCallsGoOn(t *testing.T) {
	d := newDesk(t, pipeline.Gate{Always: true, Deadline: time.Millisecond}, "pay", `{"x":1}`, "slow", `{}`)
	<-d.began
	d.await("the denial", func() bool {
		return slices.ContainsFunc(d.events(), func(e pipeline.Event) bool { return e.Type == pipeline.ApprovalIsDecided })
	})
	d.slow <- nil
	d.ends("failed: The call was denied: nobody approved it in time. | slow is over")
}

// What people are asked while calls go on is not asked again by whoever takes over.
func TestAQuestionOutlivesTheProcessThatAskedIt(t *testing.T) {
	d := newDesk(t, always, "pay", `{"x":1}`, "slow", `{}`)
	<-d.began
	id := d.question("pay")
	d.p.mu.Lock()
	d.p.dead = true
	d.p.mu.Unlock()
	d.p.end()
	d.p = d.p.w.serve(scripted(callsThenTells("nobody", `{}`)), d)
	<-d.began
	if q := d.questions(); len(q) != 1 || q[0].ID != id {
		t.Errorf("open: %+v", q)
	}
	d.decide(id, pipeline.Decision{Decision: "approve"})
	if done := <-d.done; done != "pay 1" {
		t.Errorf("carried out: %s", done)
	}
	d.slow <- nil
	d.ends("did pay 1 | slow is over")
}

// People who let a step go on have not failed it: the attempt stays the same.
func TestADecisionIsNoAttempt(t *testing.T) {
	d := newDesk(t, always, "look", `{"x":0}`, "pay", `{"x":1}`, "pay", `{"x":2}`)
	<-d.done
	for _, x := range []string{`{"x":1}`, `{"x":2}`} {
		id := d.question(x)
		d.await("the step waits", func() bool {
			run, err := d.eyes.Run(t.Context(), d.run.ID)
			return err == nil && run.Status == pipeline.RunWaiting
		})
		d.decide(id, pipeline.Decision{Decision: "approve"})
		<-d.done
	}
	d.ends("did look 0 | did pay 1 | did pay 2")
	for _, e := range d.events() {
		if e.Attempt != 1 {
			t.Errorf("%s %d says attempt %d", e.Type, e.Seq, e.Attempt)
		}
	}
	var lines []string
	for c, err := range d.eyes.Logs(t.Context(), store.LogQuery{Run: d.run.ID}) {
		if err != nil {
			t.Fatal(err)
		}
		lines = append(lines, fmt.Sprintf("%d.%d %s", c.Attempt, c.N, c.Text))
	}
	if want := []string{"1.1 look 0\n", "1.2 pay 1\n", "1.3 pay 2\n"}; !slices.Equal(lines, want) {
		t.Errorf("log %q", lines)
	}
}

// handsOn are agents that hand on what they are to do, to the last of them, which pays.
func handsOn(r *model.Request) (*model.Response, error) {
	switch {
	case r.Turn > 0:
		return says(strings.Join(results(r), " | "))
	case r.Agent == "worker":
		return wants("hand_on", `{"to":"clerk"}`, "hand_on", `{"to":"boss"}`, "slow", `{}`)
	case r.Agent == "clerk":
		return wants("pay", `{"x":1}`)
	case r.Agent == "boss":
		return wants("hand_on", `{"to":"cashier"}`)
	}
	return wants("pay", `{"x":2}`)
}

// What an agent within an agent is allowed begins at once, although other calls of
// the outer one go on, and so do its next turns.
func TestAnAnsweredCallOfAnAgentWithinAnAgentBeginsAtOnce(t *testing.T) {
	d := newDeskOf(t, always, handsOn)
	<-d.began
	first, second := d.question(`{"x":1}`), d.question(`{"x":2}`)
	d.decide(second, pipeline.Decision{Decision: "approve"})
	if done := <-d.done; done != "pay 2" { // while slow goes on, and the first is not decided
		t.Errorf("carried out: %s", done)
	}
	d.await("the answers of the cashier and the boss", func() bool {
		said := map[string]bool{}
		for _, e := range d.events() {
			if c := e.Data.Call; c != nil && e.Type == pipeline.ModelCalled && c.Turn == 1 && c.State == pipeline.InvocationFinished {
				said[c.Agent] = true
			}
		}
		return said["cashier"] && said["boss"]
	})
	d.decide(first, pipeline.Decision{Decision: "reject", Comment: "no"})
	d.await("the answer of the clerk", func() bool {
		return slices.ContainsFunc(d.events(), func(e pipeline.Event) bool {
			c := e.Data.Call
			return c != nil && e.Type == pipeline.ModelCalled && c.Agent == "clerk" && c.Turn == 1
		})
	})
	d.slow <- nil
	d.ends("failed: The call was denied by ann: no | did pay 2 | slow is over")
}

// Where nothing else is at work, the step is laid down, however deep it is asked for.
func TestAgentsWithinAgentsThatWaitForPeopleAreLaidDown(t *testing.T) {
	d := newDeskOf(t, always, handsOn)
	<-d.began
	first, second := d.question(`{"x":1}`), d.question(`{"x":2}`)
	d.slow <- nil
	d.await("the step waits", func() bool {
		run, err := d.eyes.Run(t.Context(), d.run.ID)
		return err == nil && run.Status == pipeline.RunWaiting
	})
	if q := d.questions(); len(q) != 2 {
		t.Errorf("open: %+v", q)
	}
	d.decide(first, pipeline.Decision{Decision: "approve"})
	if done := <-d.done; done != "pay 1" {
		t.Errorf("carried out: %s", done)
	}
	d.decide(second, pipeline.Decision{Decision: "approve"})
	if done := <-d.done; done != "pay 2" {
		t.Errorf("carried out: %s", done)
	}
	d.ends("did pay 1 | did pay 2 | slow is over")
}
