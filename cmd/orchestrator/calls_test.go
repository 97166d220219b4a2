package main

import (
	"strings"
	"testing"

	api "github.com/orchestrator-project/orchestrator/proto/orchestrator/v1"
)

func TestCallIsPrintedAsAConversation(t *testing.T) {
	var b strings.Builder
	printCall(&b, &api.Call{
		Step: "count", N: 3, Kind: "model", State: "finished", Agent: "counter", Turn: 1, Model: "fast", Choice: `{"by":"policy","policy":"ucb","passed":[{"model":"large","reason":"too big"}]}`,
		Usage: &api.Usage{InputTokens: 30, OutputTokens: 4}, Took: 12,
		Parts: []*api.PromptPart{{Name: "system", Bytes: 9}, {Name: "messages", Bytes: 104}},
		Prompt: `{"system":"Be brief.","tools":[{"name":"look","description":"Looks.","schema":{"type":"object"}}],"messages":[
			{"role":"user","blocks":[{"kind":"text","text":"How many\u001b[31m?"}]},
			{"role":"assistant","blocks":[{"kind":"tool_use","tool_use":{"name":"look","arguments":"{\"at\":1}"}}]},
			{"role":"user","blocks":[{"kind":"tool_result","tool_result":{"name":"look","content":[{"kind":"text","text":"seven"}]}}]}]}`,
		Response: `{"message":{"role":"assistant","blocks":[{"kind":"reasoning","text":"Hm."},{"kind":"text","text":"Seven."}]}}`,
	})
	want := `call 3 of count: turn 2
agent   counter
model   fast
chosen  by the policy ucb; not large: too big
state   finished
tokens  30 in, 4 out
cost    $0.0000
took    12 ms

Prompt, 113 bytes
  system      9
  messages  104

System
  Be brief.

User
  How many?

Model
  calls look {"at":1}

Tools
  result of look:
  seven

Tools that it was shown
  look
    Looks.
    {"type":"object"}

Answer
  (reasoning) Hm.
  Seven.
`
	if b.String() != want {
		t.Errorf("printed:\n%s\nwant:\n%s", b.String(), want)
	}
}

func TestNoteOfACall(t *testing.T) {
	for want, x := range map[string]*api.Call{
		"there is no such file":                           {Failed: true, Response: `{"content":[{"kind":"text","text":"there is no such file"}]}`},
		"the service is away":                             {Error: &api.Failure{Message: "the service is away"}},
		"ann: approve, with other arguments, not so much": {DecidedBy: "ann", Decision: "approve", Edited: true, Comment: "not so much"},
		"": {State: "finished"},
	} {
		if got := callNote(x); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

// What is on its way is shown with its arguments, and forgotten when the service
// begins anew.
func TestPiecesOfAnAnswerAreShown(t *testing.T) {
	p := &progress{steps: map[string]*stepFacts{"a": {Path: "a"}}}
	for _, c := range []struct{ data, want string }{
		{`{"kind":"text","text":"Dear "}`, "Dear "},
		{`{"kind":"text","text":"Ann"}`, "Dear Ann"},
		{`{"kind":"reset"}`, ""},
		{`{"kind":"tool","name":"send","text":"{\"to\":"}`, `send {"to":`},
		{`{"kind":"tool","name":"send","text":"\"Ann\"}"}`, `send {"to":"Ann"}`},
	} {
		if p.piece(&api.Event{Path: "a", Data: c.data}); p.steps["a"].talk != c.want {
			t.Errorf("after %s: %q, want %q", c.data, p.steps["a"].talk, c.want)
		}
	}
}

func TestCallThatFailedSaysWhyWhileItGoesOn(t *testing.T) {
	c := &callFacts{
		Name: "send", State: "finished", Fail: true,
		Request: []byte(`{"to":"Ann"}`), Response: []byte(`{"content":[{"kind":"text","text":"nobody is there\nat all"}]}`),
	}
	if got, want := c.text("", nil), `calls send {"to":"Ann"}  failed: nobody is there`; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}
