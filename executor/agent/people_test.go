package agent_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/orchestrator-project/orchestrator/executor"
	"github.com/orchestrator-project/orchestrator/executor/model"
	"github.com/orchestrator-project/orchestrator/executor/tool"
	"github.com/orchestrator-project/orchestrator/pipeline"
)

// gated is a tool that needs approval.
func gated(t tool.Tool, g pipeline.Gate) tool.Tool {
	t.Gate = &g
	return t
}

// callsThenTells calls these tools in the first turn and tells their results.
func callsThenTells(pairs ...string) func(r *model.Request) (*model.Response, error) {
	return func(r *model.Request) (*model.Response, error) {
		if r.Turn == 0 {
			return wants(pairs...)
		}
		return says(strings.Join(results(r), " | "))
	}
}

func TestPeopleDecideAboutCalls(t *testing.T) {
	tests := []struct {
		name  string
		say   pipeline.Decision
		want  string
		calls int32
	}{
		{"approved", pipeline.Decision{Decision: "approve"}, "pay 120", 1},
		{"approved with other arguments", pipeline.Decision{Decision: "approve", Value: map[string]any{"x": int64(20)}}, `pay 20A person has changed the arguments to {"x":20}.`, 1},
		{"rejected with a reason", pipeline.Decision{Decision: "reject", Comment: "too much"}, "failed: The call was denied by ann: too much", 0},
		{"answered instead", pipeline.Decision{Decision: "answer", Value: "paid by hand"}, "paid by hand", 0},
		{"too late", pipeline.Decision{Decision: "reject", Actor: pipeline.DeadlineActor}, "failed: The call was denied: nobody approved it in time.", 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var pays, looks int32
			s := newStage(t, callsThenTells("pay", `{"x":120}`, "look", `{"x":1}`),
				gated(counted("pay", "", &pays), pipeline.Gate{Always: true, Assignees: []string{"ann"}, Deadline: time.Hour}), counted("look", pipeline.EffectPure, &looks))
			_, err := s.run(t.Context())
			asks := s.questions(err)
			if len(asks) != 1 || pays != 0 || looks != 1 {
				t.Fatalf("%d questions, %d and %d calls", len(asks), pays, looks)
			}
			a := asks[0]
			if a.Kind != pipeline.ApprovalTool || !strings.Contains(a.Question, "120") || a.Assignees[0] != "ann" || a.Deadline.IsZero() || a.OnTimeout != "reject" {
				t.Errorf("asked %+v", a)
			}
			_, err = s.run(t.Context()) // woken by something else
			if laid := s.waits(err); len(laid.Asks) != 0 || !slices.Equal(laid.Open, []pipeline.ApprovalID{a.ID}) || laid.Due.IsZero() {
				t.Fatalf("asked again: %+v", laid)
			}
			s.decide(a.ID, tt.say)
			v, err := s.run(t.Context())
			if want := tt.want + " | look 1"; err != nil || v != want || pays != tt.calls || looks != 1 {
				t.Errorf("%v, %v; want %s; %d calls", v, err, want, pays)
			}
			done := s.events[len(s.events)-2].Data.Call
			if done.Name != "pay" || done.State != pipeline.InvocationFinished || done.By == "" {
				t.Errorf("who decided is not recorded: %+v", done)
			}
		})
	}
}

func TestArgumentsThatPeopleGaveAreHeldAgainstTheSchema(t *testing.T) {
	var n int32
	pay := gated(counted("pay", "", &n), pipeline.Gate{Always: true})
	pay.Schema = map[string]any{"type": "object", "properties": map[string]any{"x": map[string]any{"type": "integer"}}}
	s := newStage(t, callsThenTells("pay", `{"x":1}`), pay)
	_, err := s.run(t.Context())
	s.decide(s.waits(err).Asks[0].Approval.ID, pipeline.Decision{Decision: "approve", Value: map[string]any{"x": "much"}})
	_, err = s.run(t.Context())
	again := s.waits(err).Asks
	if n != 0 || len(again) != 1 || !strings.Contains(again[0].Approval.Question, "do not fit") {
		t.Fatalf("%d calls, %+v", n, again)
	}
	s.decide(again[0].Approval.ID, pipeline.Decision{Decision: "approve", Value: map[string]any{"x": int64(2)}})
	if v, err := s.run(t.Context()); err != nil || !strings.HasPrefix(fmt.Sprint(v), "pay 2") || n != 1 {
		t.Errorf("%v, %v after %d calls", v, err, n)
	}
}

func TestGatesOnArguments(t *testing.T) {
	var n int32
	when := &pipeline.Template{Src: "args.x > 100"}
	s := newStage(t, callsThenTells("pay", `{"x":120}`, "pay", `{"x":7}`, "pay", `{"x":"?"}`), gated(counted("pay", "", &n), pipeline.Gate{When: when}))
	s.test = func(_ *pipeline.Template, more map[string]any) (bool, error) {
		args, _ := more["args"].(map[string]any)
		x, ok := args["x"].(int64)
		if !ok {
			return false, pipeline.Failuref(pipeline.CategoryValidation, "x is no number")
		}
		return x > 100, nil
	}
	_, err := s.run(t.Context())
	if asks := s.questions(err); len(asks) != 2 || n != 1 || !strings.Contains(asks[1].Question, "?") {
		t.Errorf("%d questions, %d calls", len(asks), n)
	}
	s = newStage(t, callsThenTells("pay", `{"x":120}`), s.tools...)
	s.test = func(*pipeline.Template, map[string]any) (bool, error) { return true, nil }
	s.approved = map[string]string{"worker/pay": "ben"}
	if v, err := s.run(t.Context()); err != nil || v != "pay 120" {
		t.Errorf("approved for the run: %v, %v", v, err)
	}
	if c := s.events[1].Data.Call; c.By != "ben" {
		t.Errorf("by %q", c.By)
	}
}

func TestAgentsAskPeople(t *testing.T) {
	human := tool.Tool{Name: "ask_human", Human: true, Effect: pipeline.EffectPure}
	s := newStage(t, callsThenTells("ask_human", `{"question":"Which one?","choices":["a","b"]}`), human)
	_, err := s.run(t.Context())
	a := s.waits(err).Asks[0].Approval
	if a.Kind != pipeline.ApprovalAsk || a.Question != "Which one?" || len(a.Choices) != 2 {
		t.Errorf("asked %+v", a)
	}
	s.decide(a.ID, pipeline.Decision{Decision: "answer", Value: "b"})
	if v, err := s.run(t.Context()); err != nil || v != "b" {
		t.Errorf("%v, %v", v, err)
	}
}

// What a crash does to a call that had begun: by its effect.
func TestCallsThatACrashCutShort(t *testing.T) {
	tests := []struct {
		effect pipeline.Effect
		say    pipeline.Decision // empty: nobody is asked
		want   string
		calls  int32 // after the crash
	}{
		{pipeline.EffectPure, pipeline.Decision{}, "pay 1", 1},
		{pipeline.EffectIdempotent, pipeline.Decision{}, "pay 1", 1},
		{pipeline.EffectAtLeastOnce, pipeline.Decision{}, "pay 1", 1},
		{pipeline.EffectAtMostOnce, pipeline.Decision{Decision: "retry"}, "pay 1", 1},
		{pipeline.EffectAtMostOnce, pipeline.Decision{Decision: "done", Value: map[string]any{"ok": true}}, `{"ok":true}`, 0},
		{pipeline.EffectAtMostOnce, pipeline.Decision{Decision: "fail", Comment: "gone"}, "failed: Nobody knows whether the call took effect; it counts as failed by ann: gone", 0},
	}
	for _, tt := range tests {
		t.Run(string(tt.effect)+" "+tt.say.Decision, func(t *testing.T) {
			var n int32
			var keys []string
			pay := counted("pay", tt.effect, &n)
			inner := pay.Run
			crash := true
			pay.Run = func(ctx context.Context, env executor.Env, c tool.Call) (tool.Result, error) {
				keys = append(keys, c.Key)
				if crash {
					return tool.Result{}, executor.ErrJournal // the process is gone
				}
				if !c.Again && tt.effect != pipeline.EffectPure && tt.effect != pipeline.EffectIdempotent {
					t.Error("it is not told that the call may have been made")
				}
				return inner(ctx, env, c)
			}
			s := newStage(t, callsThenTells("pay", `{"x":1}`), pay)
			if _, err := s.run(t.Context()); !errors.Is(err, executor.ErrJournal) {
				t.Fatal(err)
			}
			crash = false
			if tt.say.Decision != "" {
				_, err := s.run(t.Context())
				a := s.waits(err).Asks[0].Approval
				if a.Kind != pipeline.ApprovalDecide || n != 0 {
					t.Fatalf("asked %+v after %d calls", a, n)
				}
				s.decide(a.ID, tt.say)
			}
			v, err := s.run(t.Context())
			if err != nil || v != tt.want || n != tt.calls {
				t.Errorf("%v, %v after %d calls; want %s", v, err, n, tt.want)
			}
			for _, k := range keys {
				if k != keys[0] || k == "" {
					t.Errorf("keys differ: %q", keys)
				}
			}
			if len(s.asked) != 2 {
				t.Errorf("%d turns were paid", len(s.asked))
			}
		})
	}
}

// A call that is made again by decision and cut short again is in doubt again.
func TestASecondCrashAsksAgain(t *testing.T) {
	crash := true
	n := 0
	pay := tool.Tool{Name: "pay", Run: func(context.Context, executor.Env, tool.Call) (tool.Result, error) {
		if n++; crash {
			return tool.Result{}, executor.ErrJournal
		}
		return tool.Text("paid"), nil
	}}
	s := newStage(t, callsThenTells("pay", `{}`), pay)
	for range 2 {
		if _, err := s.run(t.Context()); !errors.Is(err, executor.ErrJournal) {
			t.Fatal(err)
		}
		_, err := s.run(t.Context())
		s.decide(s.waits(err).Asks[0].Approval.ID, pipeline.Decision{Decision: "retry"})
	}
	crash = false
	if v, err := s.run(t.Context()); err != nil || v != "paid" || n != 3 {
		t.Errorf("%v, %v after %d calls", v, err, n)
	}
}

func TestNestedAgentsGoOnWhereTheyStood(t *testing.T) {
	var pays int32
	s := newStage(t, func(r *model.Request) (*model.Response, error) {
		switch {
		case r.Agent == "worker" && r.Turn == 0:
			return wants("helper", `{"prompt":"one"}`, "helper", `{"prompt":"two"}`)
		case r.Agent == "helper" && r.Turn == 0:
			return wants("pay", `{"x":"`+r.LastUser()+`"}`)
		}
		return says(strings.Join(results(r), " | "))
	}, gated(counted("pay", "", &pays), pipeline.Gate{Always: true}))
	s.agent.Agents = []pipeline.Agent{{Name: "helper"}}
	_, err := s.run(t.Context())
	asks := s.questions(err)
	if len(asks) != 2 || pays != 0 {
		t.Fatalf("%d questions", len(asks))
	}
	s.decide(asks[0].ID, pipeline.Decision{Decision: "approve"})
	_, err = s.run(t.Context())
	if laid := s.waits(err); len(laid.Asks) != 0 || len(laid.Open) != 1 || pays != 1 {
		t.Fatalf("%+v after %d calls", laid, pays)
	}
	s.decide(asks[1].ID, pipeline.Decision{Decision: "approve"})
	v, err := s.run(t.Context())
	if err != nil || v != "pay one | pay two" || pays != 2 {
		t.Errorf("%v, %v after %d calls", v, err, pays)
	}
	if len(s.asked) != 6 {
		t.Errorf("%d turns were paid", len(s.asked))
	}
}

func TestAgentsWithinAgentsHaveABottom(t *testing.T) {
	s := newStage(t, func(r *model.Request) (*model.Response, error) {
		if r.Turn == 0 {
			return wants("worker", `{"prompt":"deeper"}`)
		}
		return says(fmt.Sprint(results(r)))
	})
	s.agent.Limits.Depth = 2
	s.agent.Agents = []pipeline.Agent{{Name: "worker"}}
	v, err := s.run(t.Context())
	if err != nil || !strings.Contains(fmt.Sprint(v), "only 2 deep") {
		t.Errorf("%v, %v", v, err)
	}
}

func TestAMessageIsHeardBeforeTheNextTurn(t *testing.T) {
	var s *stage
	steer := func(text string) {
		s.put(pipeline.Event{Type: pipeline.SignalReceived, Data: pipeline.Data{Signal: pipeline.SignalSteer, Value: text, Actor: "ann"}})
	}
	crash := true
	look := tool.Tool{Name: "look", Effect: pipeline.EffectPure, Run: func(context.Context, executor.Env, tool.Call) (tool.Result, error) {
		return tool.Text("seen"), nil
	}}
	s = newStage(t, func(r *model.Request) (*model.Response, error) {
		switch r.Turn {
		case 0:
			return wants("look", `{}`)
		case 1:
			if r.LastUser() != "be brief" {
				t.Errorf("turn 1 was told %q", r.LastUser())
			}
			if crash {
				crash = false
				return wants("look", `{"x":2}`)
			}
		}
		return says("told: " + r.LastUser())
	}, look)
	turns := 0
	s.wrote = func(events []pipeline.Event) error {
		if events[len(events)-1].Type != pipeline.ModelCalled {
			return nil
		}
		if turns++; turns == 3 { // it dies before its third turn is recorded
			return executor.ErrJournal
		}
		return nil
	}
	steer("be brief") // before anything was done
	s.say = func(say func(*model.Request) (*model.Response, error)) func(*model.Request) (*model.Response, error) {
		return func(r *model.Request) (*model.Response, error) {
			if r.Turn == 0 && r.LastUser() != "be brief" {
				t.Errorf("turn 0 was told %q", r.LastUser())
			}
			return say(r)
		}
	}(s.say)
	if _, err := s.run(t.Context()); !errors.Is(err, executor.ErrJournal) {
		t.Fatal(err)
	}
	steer("and kind")
	v, err := s.run(t.Context())
	if err != nil || v != "told: and kind" {
		t.Errorf("%v, %v", v, err)
	}
	heard := 0
	for _, m := range s.asked[len(s.asked)-1].Messages {
		if m.Text() == "be brief" || m.Text() == "and kind" {
			heard++
		}
	}
	if heard != 2 {
		t.Errorf("the last turn was told %d of 2 messages", heard)
	}
}

func TestACallUnderWayIsRecordedWhenItsStepIsCancelled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancelCause(t.Context())
		boom := errors.New("cancelled")
		var others sync.WaitGroup
		others.Add(2)
		slow := tool.Tool{Name: "slow", Run: func(ctx context.Context, _ executor.Env, _ tool.Call) (tool.Result, error) {
			others.Wait() // what has not begun by then would never begin
			cancel(boom)
			select {
			case <-time.After(time.Second):
				return tool.Text("done"), nil
			case <-ctx.Done():
				return tool.Result{}, ctx.Err()
			}
		}}
		stuck := slow
		stuck.Name = "stuck"
		stuck.Run = func(ctx context.Context, _ executor.Env, _ tool.Call) (tool.Result, error) {
			others.Done()
			<-ctx.Done()
			return tool.Result{}, ctx.Err()
		}
		look := stuck
		look.Name, look.Effect = "look", pipeline.EffectPure
		s := newStage(t, callsThenTells("stuck", `{}`, "slow", `{}`, "look", `{}`), slow, stuck, look)
		begun := time.Now()
		if _, err := s.run(ctx); !errors.Is(err, boom) {
			t.Errorf("it ended with %v", err)
		}
		if d := time.Since(begun); d != 5*time.Second {
			t.Errorf("it took %s", d)
		}
		last := s.events[len(s.events)-1].Data.Call
		if last.Name != "slow" || last.State != pipeline.InvocationFinished || last.Failed {
			t.Errorf("recorded %q", states(s.events))
		}
	})
}

func TestAQuestionOfAToolIsAskedOnce(t *testing.T) {
	elicit := tool.Tool{Name: "elicit", Effect: pipeline.EffectAtLeastOnce, Run: func(ctx context.Context, _ executor.Env, c tool.Call) (tool.Result, error) {
		d, err := c.Ask(ctx, "Which account?", map[string]any{"type": "string"})
		if err != nil {
			return tool.Result{}, err
		}
		return tool.Text(fmt.Sprint(d.Value)), nil
	}}
	s := newStage(t, callsThenTells("elicit", `{}`), elicit)
	ctx, crash := context.WithCancel(t.Context())
	var asked []pipeline.ApprovalID
	s.wrote = func(events []pipeline.Event) error {
		if c := events[0].Data.Call; c.State == pipeline.InvocationAsked {
			asked = append(asked, c.Approval)
			crash()
		}
		return nil
	}
	s.cfg.Grace = time.Millisecond
	if _, err := s.run(ctx); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	s.decide(asked[0], pipeline.Decision{Decision: "answer", Value: "7"})
	if v, err := s.run(t.Context()); err != nil || v != "7" || len(asked) != 1 {
		t.Errorf("%v, %v after %d questions", v, err, len(asked))
	}
}

// The grace of calls is for those whose step is cancelled: nothing else bounds how long
// a commit takes.
func TestWhatACallGaveIsRecordedHoweverLongThatTakes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var pays int32
		s := newStage(t, callsThenTells("pay", `{"x":1}`), counted("pay", "", &pays))
		s.slow = func(ctx context.Context) error {
			select {
			case <-time.After(time.Minute):
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		if v, err := s.run(t.Context()); err != nil || v != "pay 1" || pays != 1 {
			t.Errorf("%v, %v after %d calls", v, err, pays)
		}
	})
}
