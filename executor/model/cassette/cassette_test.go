package cassette

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/orchestrator-project/orchestrator/executor"
	"github.com/orchestrator-project/orchestrator/executor/model"
	"github.com/orchestrator-project/orchestrator/pipeline"
)

func ask(p *Provider, r *model.Request) (*model.Response, error) {
	s, err := p.Call(context.Background(), r)
	if err != nil {
		return nil, err
	}
	return model.Drain(s, nil)
}

// session is an agent's conversation and a question of its own.
func session() []Recording {
	tools := []model.ToolDef{{Name: "read_file", Description: "reads", Schema: map[string]any{"type": "object"}}}
	first := &model.Request{System: "Be short.", Tools: tools, Messages: []model.Message{model.UserText("What do the notes say?\nAll of them.")}}
	call := model.Message{Role: model.Assistant, Blocks: []model.Block{
		{Kind: model.BlockReasoning, Text: "hm", Opaque: []byte{0, 1, 255}, Of: "anthropic"},
		{Kind: model.BlockToolUse, ToolUse: &model.ToolUse{ID: "c1", Name: "read_file", Arguments: `{"path": `}},
	}}
	second := &model.Request{System: "Be short.", Tools: tools, Messages: append(append([]model.Message{}, first.Messages...), call, model.Message{
		Role: model.User, Blocks: []model.Block{{Kind: model.BlockToolResult, ToolResult: &model.ToolResult{
			ID: "c1", Name: "read_file", Failed: true, Content: []model.Block{{Kind: model.BlockText, Text: "sk-secret-1 is no JSON"}},
		}}},
	})}
	label := &model.Request{Schema: map[string]any{"type": "integer"}, Messages: []model.Message{model.UserText("How many?")}}
	return []Recording{
		{Step: "research", Agent: "reader", Model: "fable", Request: first, Answer: &model.Response{
			Message: call, Stop: model.StopTools, Model: "fable", Usage: &pipeline.Usage{InputTokens: 7, CostUSD: 0.25},
		}},
		{Step: "label", Model: "fable", Request: label, Answer: &model.Response{Message: model.AssistantText("eight"), Value: int64(8), Stop: model.StopEnd, Model: "fable"}},
		{Step: "research", Agent: "reader", Turn: 1, Model: "fable", Request: second, Answer: &model.Response{
			Message: model.AssistantText("yes: no"), Stop: model.StopEnd, Model: "fable",
		}},
	}
}

func parse(t *testing.T, source []byte) *Provider {
	t.Helper()
	p, err := Parse("x.cassette.yaml", source)
	if err != nil {
		t.Fatalf("%v\n%s", err, source)
	}
	return p
}

func TestRecordingsAnswerTheSameRequests(t *testing.T) {
	list := session()
	text, err := Write(list, nil)
	if err != nil {
		t.Fatal(err)
	}
	p := parse(t, text)
	for i := range list {
		r := *list[i].Request
		r.Model, r.Step, r.MaxTokens = "another", "elsewhere", 7 // neither counts
		a, err := ask(p, &r)
		if err != nil {
			t.Fatal(err)
		}
		want := *list[i].Answer
		want.Rule = a.Rule
		if diff := cmp.Diff(&want, a); diff != "" || !strings.HasPrefix(a.Rule, "cassette:") {
			t.Errorf("recording %d: %s", i, diff)
		}
	}
	again, err := Write(p.list, nil)
	if err != nil || string(again) != string(text) {
		t.Errorf("written again it differs (%v):\n%s\n%s", err, text, again)
	}
	if n := strings.Count(string(text), "All of them."); n != 1 {
		t.Errorf("the first message stands there %d times:\n%s", n, text)
	}
}

func TestKeysNeverStandInCassettes(t *testing.T) {
	list := session()
	list[1].Request.System = "the key is sk-secret-1."
	list[1].Answer.Value = map[string]any{"key": "sk-secret-1"}
	text, err := Write(list, func(s string) string { return strings.ReplaceAll(s, "sk-secret-1", "***") })
	if err != nil || strings.Contains(string(text), "sk-secret-1") || strings.Count(string(text), "***") != 3 {
		t.Errorf("%v:\n%s", err, text)
	}
	parse(t, text)
}

func TestEqualRequestsAreAnsweredInTheirOrder(t *testing.T) {
	r := &model.Request{Messages: []model.Message{model.UserText("a number")}}
	text, err := Write([]Recording{
		{Step: "s", Request: r, Answer: &model.Response{Message: model.AssistantText("1")}},
		{Step: "s", Request: r, Answer: &model.Response{Message: model.AssistantText("2")}},
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	p := parse(t, text)
	for range 2 { // each run by itself
		uses := model.UsesOf(executor.Env{Tenure: executor.NewTenure(nil, pipeline.Usage{}, nil)})
		for i, want := range []string{"1", "2", "2"} {
			q := *r
			q.Uses = uses
			if a, err := ask(p, &q); err != nil || a.Text() != want || a.Model != "cassette" {
				t.Errorf("request %d: %+v, %v", i, a, err)
			}
		}
	}
}

func TestMissShowsTheNearestRecording(t *testing.T) {
	list := session()
	text, err := Write(list, nil)
	if err != nil {
		t.Fatal(err)
	}
	p := parse(t, text)
	r := *list[0].Request
	r.Step, r.Agent = "research", "reader"
	r.Messages = []model.Message{model.UserText("What do the notes say?\nOnly the first.")}
	_, err = ask(p, &r)
	f, ok := errors.AsType[*pipeline.Failure](err)
	if !ok || f.Reason != "cassette_miss" {
		t.Fatalf("got %v", err)
	}
	for _, want := range []string{
		"x.cassette.yaml holds no recording of this request of the step research, turn 0 of the agent reader.",
		"The nearest is recording 1, of the step research. It differs after 4 equal lines:",
		"\n  recorded: user: All of them.\n  asked:    user: Only the first.",
	} {
		if !strings.Contains(f.Message, want) {
			t.Errorf("the message lacks %q:\n%s", want, f.Message)
		}
	}
	if _, err := ask(parse(t, nil), &r); err == nil || !strings.Contains(err.Error(), "The file has no recordings.") {
		t.Errorf("got %v", err)
	}
}

func TestFaultsOfCassettesAreTold(t *testing.T) {
	for source, want := range map[string]string{
		"recording: []": "recording",
		"recordings:\n  - request: {messages: [{user: a}], model: b}\n    answer: {message: {assistant: a}}":     `recording 1: a request has no key "model"`,
		"recordings:\n  - request: {messages: [{boss: a}]}\n    answer: {message: {assistant: a}}":               "a message is {user: ...} or {assistant: ...}",
		"recordings:\n  - request: {messages: [{user: a}]}":                                                      "recording 1: a message is",
		"recordings:\n  - request: {continues: 1, messages: [{user: a}]}\n    answer: {message: {assistant: a}}": "recording 1: it continues recording 1",
	} {
		_, err := Parse("x.yaml", []byte(source))
		if err == nil || !strings.Contains(err.Error(), want) || !strings.HasPrefix(err.Error(), "x.yaml: ") {
			t.Errorf("%q: got %v", source, err)
		}
	}
}

func TestAnyConversationComesBack(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		var messages []model.Message
		var list []Recording
		for i := range rapid.IntRange(1, 6).Draw(rt, "turns") {
			messages = append(messages, model.UserText(rapid.String().Draw(rt, "asked")))
			r := &model.Request{System: rapid.StringN(0, 5, -1).Draw(rt, "system"), Messages: slices.Clip(messages)}
			a := &model.Response{Message: model.AssistantText(rapid.String().Draw(rt, "said")), Model: "m"}
			list = append(list, Recording{Step: "s", Turn: i, Model: "m", Request: r, Answer: a})
			messages = append(messages, a.Message)
		}
		text, err := Write(list, nil)
		if err != nil {
			rt.Fatal(err)
		}
		p, err := Parse("x", text)
		if err != nil {
			rt.Fatalf("%v\n%s", err, text)
		}
		for i := range list {
			if p.list[i].Key != KeyOf(list[i].Request) {
				rt.Fatalf("recording %d has another key:\n%s", i, text)
			}
		}
	})
}

func TestKeysAreBlottedOut(t *testing.T) {
	text := "call sk-abcdefghij0123456789 or AIzaSyA0123456789abcdefghijklmnopqrstu with Bearer abcdef0123456789abcdef, ghp_0123456789abcdefABCDEF; not sk-short, nor hunter2hunter2"
	got := redacted(text, []string{"hunter2hunter2", "call"})
	if want := "call *** or *** with ***, ***; not sk-short, nor ***"; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}
