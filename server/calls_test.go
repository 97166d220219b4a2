package server

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/orchestrator-project/orchestrator/pipeline"
)

// conversation is two turns of an agent with a tool that needed people.
func conversation(path pipeline.Path) []pipeline.Event {
	call := func(typ pipeline.EventType, c pipeline.Invocation) pipeline.Event {
		return pipeline.Event{Type: typ, Path: path, Attempt: 1, Data: pipeline.Data{Call: &c}}
	}
	finished := func(n, turn int32, text string) pipeline.Event {
		e := call(pipeline.ModelCalled, pipeline.Invocation{
			N: n, State: pipeline.InvocationFinished, Agent: "writer", Turn: turn, Phase: "turn", Provider: "script", Took: 1500 * time.Millisecond, Wait: time.Millisecond,
			Request:  map[string]any{"parts": []any{map[string]any{"name": "system", "bytes": int64(7)}}},
			Response: map[string]any{"message": text}, Choice: map[string]any{"by": "name"},
		})
		e.Data.Model, e.Data.Usage = "fast", &pipeline.Usage{InputTokens: 10, OutputTokens: 2, CostUSD: 0.25}
		return e
	}
	tool := pipeline.Invocation{N: 2, Of: 1, Agent: "writer", Name: "refund", Effect: pipeline.EffectAtMostOnce, Request: map[string]any{"amount": int64(5)}}
	asked, done := tool, tool
	asked.State, asked.Approval = pipeline.InvocationAsked, "ap-1"
	done.State, done.Response, done.By = pipeline.InvocationFinished, []any{map[string]any{"kind": "text", "text": "paid"}}, "ann"
	return []pipeline.Event{
		{Type: pipeline.StepStarted, Path: path, Attempt: 1, Data: pipeline.Data{Kind: pipeline.KindAgent, Action: pipeline.AgentAction}},
		finished(1, 0, "I will pay."),
		call(pipeline.ToolCalled, asked),
		{Type: pipeline.ApprovalIsDecided, Path: path, Data: pipeline.Data{Decision: &pipeline.Decision{Approval: "ap-1", Decision: "approve", Actor: "ann", Comment: "fine"}}},
		call(pipeline.ToolCalled, done),
		finished(3, 1, "Paid."),
		{Type: pipeline.StepFinished, Path: path, Attempt: 1, Data: pipeline.Data{Status: pipeline.StepCompleted}},
	}
}

func TestACallThatFailedWithoutAnyCostIsListed(t *testing.T) {
	f := start(t)
	id := f.create()
	failed := pipeline.Event{Type: pipeline.ModelCalled, Path: "a", Data: pipeline.Data{
		Call:  &pipeline.Invocation{N: 1, State: pipeline.InvocationFinished, Failed: true, Tries: 4},
		Error: pipeline.Failuref(pipeline.CategoryModel, "the service is down"),
	}}
	guessed := pipeline.Event{Type: pipeline.ModelCalled, Path: "b", Data: pipeline.Data{
		Call: &pipeline.Invocation{N: 1, State: pipeline.InvocationFinished}, Usage: &pipeline.Usage{InputTokens: 5, Calls: 1, Estimated: true},
	}}
	f.engine.add(id,
		failed, pipeline.Event{Type: pipeline.StepStarted, Path: "a", Attempt: 1, Data: pipeline.Data{Kind: pipeline.KindAction, Action: "generate_text"}},
		pipeline.Event{Type: pipeline.StepStarted, Path: "b", Attempt: 1, Data: pipeline.Data{Kind: pipeline.KindAction, Action: "generate_text"}}, guessed,
		pipeline.Event{Type: pipeline.StepStarted, Path: "c", Attempt: 1, Data: pipeline.Data{Kind: pipeline.KindAction, Action: "echo"}},
	)
	var seen []string
	for _, c := range f.decoded("GET", "/v1/runs/"+string(id)+"/calls", "")["calls"].([]any) {
		c, _ := c.(map[string]any)
		u, _ := c["usage"].(map[string]any)
		seen = append(seen, fmt.Sprint(c["step"], " failed ", c["failed"], " tries ", c["tries"], " estimated ", u["estimated"]))
	}
	if got := strings.Join(seen, ", "); got != "a failed true tries 4 estimated <nil>, b failed false tries 0 estimated true" {
		t.Error(got)
	}
}

func TestCallsOfAStepAndOfARun(t *testing.T) {
	f := start(t, func(c *Config) {
		c.Prompt = func(events []pipeline.Event, n int32) (map[string]any, error) {
			if n == 3 {
				return nil, fmt.Errorf("not recorded")
			}
			return map[string]any{"system": "Be kind.", "parts": []any{map[string]any{"name": "system", "bytes": int64(len(events))}}}, nil
		}
	})
	id := f.create()
	f.engine.add(id, conversation("a")...)
	f.engine.steps(id, 0, 3)
	f.engine.add(id, conversation("b[2]/c")...)
	base := "/v1/runs/" + string(id) + "/calls"

	m := f.decoded("GET", base+"?step=a", "")
	list, _ := m["calls"].([]any)
	if len(list) != 3 {
		t.Fatalf("calls of a step: %v", m)
	}
	turn, _ := list[0].(map[string]any)
	tool, _ := list[1].(map[string]any)
	usage, _ := turn["usage"].(map[string]any)
	for what, ok := range map[string]bool{
		"model":    turn["kind"] == "model" && turn["model"] == "fast" && turn["agent"] == "writer" && turn["phase"] == "turn" && turn["scripted"] == true,
		"cost":     usage["cost_usd"] == 0.25 && turn["took"] == 1500.0 && turn["first"] == 1.0,
		"choice":   fmt.Sprint(turn["choice"]) == "map[by:name]",
		"parts":    fmt.Sprint(turn["parts"]) == "[map[bytes:7 name:system]]",
		"tool":     tool["kind"] == "tool" && tool["name"] == "refund" && tool["of"] == 1.0 && tool["state"] == "finished" && tool["effect"] == "at_most_once",
		"people":   tool["approval"] == "ap-1" && tool["decision"] == "approve" && tool["decided_by"] == "ann" && tool["comment"] == "fine",
		"argument": fmt.Sprint(tool["request"]) == "map[amount:5]",
	} {
		if !ok {
			t.Errorf("%s: %v, %v", what, turn, tool)
		}
	}

	var seen []string
	for token := ""; ; {
		m := f.decoded("GET", base+"?page_size=2&page_token="+token, "")
		for _, c := range m["calls"].([]any) {
			c, _ := c.(map[string]any)
			seen = append(seen, fmt.Sprintf("%v#%v", c["step"], c["n"]))
		}
		if token, _ = m["next_page_token"].(string); token == "" {
			break
		}
	}
	if got := strings.Join(seen, " "); got != "a#1 a#2 a#3 b[2]/c#1 b[2]/c#2 b[2]/c#3" {
		t.Errorf("calls of the run: %s", got)
	}

	one := f.decoded("GET", base+"/1?step=a", "")
	if prompt, _ := one["prompt"].(map[string]any); prompt["system"] != "Be kind." || fmt.Sprint(one["parts"]) != "[map[bytes:4 name:system]]" {
		t.Errorf("one call: %v", one)
	}
	f.refused(404, "no_call", "GET", base+"/9?step=a", "")
	f.refused(409, "prompt_incomplete", "GET", base+"/3?step=a", "")
	f.refused(400, "required", "GET", base+"/1", "")
	f.refused(400, "invalid_page_token", "GET", base+"?page_token=x", "")
	if m := f.decoded("GET", base+"?step=nowhere", ""); fmt.Sprint(m["calls"]) != "[]" {
		t.Errorf("a step that there is not: %v", m)
	}
}
