package mcp

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/orchestrator-project/orchestrator/executor"
	"github.com/orchestrator-project/orchestrator/pipeline"
)

// attempt runs a step that calls a tool of the program server, on a journal that
// begins with past. It gives what was recorded.
func (w *world) attempt(mode, remote string, effect pipeline.Effect, args map[string]any, past []pipeline.Event) (executor.Output, []pipeline.Event, error) {
	w.Helper()
	var recorded []pipeline.Event
	env := w.env
	env.Journal = executor.NewJournal(past, func(_ context.Context, _ []*pipeline.Approval, events []pipeline.Event) error {
		recorded = append(recorded, events...)
		return nil
	})
	s := w.program(mode)
	env.Unit = &pipeline.Unit{MCPServers: []pipeline.MCPServer{{
		Name: "srv", Command: []pipeline.Field{{Const: s.Command[0]}}, Env: []pipeline.Entry{{Name: serverMode, Value: pipeline.Field{Const: mode}}}, Deny: []string{"wait"},
	}}}
	env.Agent = &executor.AgentEnv{Text: func(f *pipeline.Field, _ map[string]any) (any, error) { return f.Const, nil }}
	run, err := w.pool.Action(pipeline.MCPName("srv", remote), effect).Bind(args)
	if err != nil {
		w.Fatal(err)
	}
	out, err := run.Run(w.done, env)
	return out, recorded, err
}

func states(events []pipeline.Event) string {
	var list []string
	for _, e := range events {
		list = append(list, e.Data.Call.State)
	}
	return strings.Join(list, " ")
}

func TestStepGivesWhatItsToolGives(t *testing.T) {
	for _, c := range []struct {
		remote string
		args   map[string]any
		want   string
		states string
	}{
		{"echo", map[string]any{"text": "hi"}, `{"text":"hi"}`, ""},
		{"steps", nil, `"done"`, "started finished"},
		{"read_resource", map[string]any{"uri": "memo://one"}, `"remember"`, ""},
		{"read_resource", nil, `[{"mimeType":"text/plain","name":"one","uri":"memo://one"}]`, ""},
	} {
		t.Run(c.remote, func(t *testing.T) {
			w := newWorld(t, Config{})
			t.Chdir(w.env.Workspace)
			writeFile(t, "heard")
			out, events, err := w.attempt("friend", c.remote, "", c.args, nil)
			if got := encoded(out.Value); err != nil || got != c.want || states(events) != c.states {
				t.Errorf("gave %s, %v and recorded %q", got, err, states(events))
			}
			if len(events) == 0 {
				return
			}
			again, more, err := w.attempt("exit", c.remote, "", c.args, events) // there is no need of a server
			if err != nil || encoded(again.Value) != c.want || len(more) != 0 {
				t.Errorf("a later attempt gave %v, %v and recorded %q", again.Value, err, states(more))
			}
		})
	}
}

func TestStepFailures(t *testing.T) {
	for _, c := range []struct {
		mode, remote, kind, reason, text string
		args                             map[string]any
	}{
		{"friend", "fail", pipeline.CategoryTool, "tool_failed", "the disk is full", nil},
		{"friend", "nothing", pipeline.CategoryValidation, reasonTool, "has no tool nothing", nil},
		{"friend", "wait", pipeline.CategoryValidation, reasonTool, "allow and deny", nil},
		{"friend", "echo", pipeline.CategoryValidation, "", "text", map[string]any{"text": int64(5)}},
		{"exit", "echo", pipeline.CategoryTool, "mcp_unreachable", "no licence found", nil},
		{"liar", "broken", pipeline.CategoryValidation, reasonTool, "JSON Schema", nil},
	} {
		t.Run(c.remote+" of "+c.mode, func(t *testing.T) {
			w := newWorld(t, Config{})
			_, _, err := w.attempt(c.mode, c.remote, "", c.args, nil)
			f, ok := errors.AsType[*pipeline.Failure](err)
			if !ok || f.Kind != c.kind || f.Reason != c.reason || !strings.Contains(f.Message, c.text) {
				t.Errorf("failed with %+v", err)
			}
		})
	}
}

func TestStepInDoubtIsDecidedByPeople(t *testing.T) {
	w := newWorld(t, Config{})
	_, events, err := w.attempt("friend", "die", "", nil, nil)
	laid, ok := errors.AsType[*executor.Suspension](err)
	if !ok || len(laid.Asks) != 1 || laid.Asks[0].Approval.Kind != pipeline.ApprovalDecide || states(events) != "started" {
		t.Fatalf("a call that was lost gives %v and recorded %q", err, states(events))
	}
	// A process that died leaves the same behind.
	_, more, err := w.attempt("friend", "die", "", nil, events)
	if laid, ok = errors.AsType[*executor.Suspension](err); !ok || len(laid.Asks) != 1 || len(more) != 0 {
		t.Fatalf("the next attempt gives %v and recorded %q", err, states(more))
	}
	asked := laid.Asks[0].Call
	asked.State, asked.Approval = pipeline.InvocationAsked, "a1"
	events = append(events, pipeline.Event{Type: pipeline.ToolCalled, Data: pipeline.Data{Call: &asked}})
	if _, _, err = w.attempt("friend", "die", "", nil, events); !errors.As(err, &laid) || len(laid.Open) != 1 {
		t.Errorf("an open question gives %v", err)
	}
	say := func(decision string, v any) []pipeline.Event {
		return append(events[:2:2], pipeline.Event{Type: pipeline.ApprovalIsDecided, Data: pipeline.Data{Decision: &pipeline.Decision{Approval: "a1", Decision: decision, Value: v, Actor: "ada"}}})
	}
	if out, _, err := w.attempt("exit", "die", "", nil, say("done", "as it was")); err != nil || out.Value != "as it was" {
		t.Errorf("done gives %v, %v", out.Value, err)
	}
	if _, _, err := w.attempt("exit", "die", "", nil, say("fail", nil)); err == nil || !strings.Contains(err.Error(), "decided by ada") {
		t.Errorf("fail gives %v", err)
	}
	if _, more, err := w.attempt("friend", "die", "", nil, say("retry", nil)); !errors.As(err, &laid) || states(more) != "started" {
		t.Errorf("retry gives %v and recorded %q", err, states(more))
	}
	// What the step says of its effect counts more than what the tool does.
	if _, events, err := w.attempt("friend", "die", pipeline.EffectAtLeastOnce, nil, nil); errors.As(err, &laid) || len(events) != 0 {
		t.Errorf("a step that may run again gives %v and recorded %q", err, states(events))
	}
}
