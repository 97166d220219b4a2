package script

import (
	"context"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/orchestrator-project/orchestrator/executor/model"
)

// told is what a tool said, as a message.
func told(name, text string) model.Message {
	return model.Message{Role: model.User, Blocks: []model.Block{{Kind: model.BlockToolResult, ToolResult: &model.ToolResult{
		ID: "call_1", Name: name, Content: []model.Block{{Kind: model.BlockText, Text: text}},
	}}}}
}

// turn is an agent's, after its messages.
func turn(n int, messages ...model.Message) *model.Request {
	return &model.Request{
		Step: "s", Agent: "researcher", Turn: n, Phase: model.PhaseTurn, Messages: append([]model.Message{model.UserText("notes")}, messages...),
	}
}

const agents = `
rules:
  - when: {agent: researcher, turn: 0}
    reasoning: "The {{ prompt }} come first."
    text: I look.
    tool_calls:
      - {name: read_file, arguments: {path: "{{ prompt }}.md", depth: 3, tags: [a, "{{ turn }}"]}}
      - {name: list, id: mine, arguments_text: '{"path": '}
      - {name: now}
  - when: {agent: researcher, tool_result: {name: read_file, path: lines.1, equals: two}}
    text: "It says {{ tool_results.read_file.lines | join('+') }}, then {{ tool_results.list }}"
  - when: {agent: researcher, tool_result: {name: list, equals: nothing}}
    text: empty
  - when: {agent: researcher, tool_result: {path: ok}}
    text: "ok is {{ tool_results.probe.ok }}"
`

func TestTurnCallsTools(t *testing.T) {
	p := parse(t, agents)
	a, err := call(t.Context(), p, turn(0))
	if err != nil {
		t.Fatal(err)
	}
	want := model.Message{Role: model.Assistant, Blocks: []model.Block{
		{Kind: model.BlockReasoning, Text: "The notes come first."},
		{Kind: model.BlockText, Text: "I look."},
		{Kind: model.BlockToolUse, ToolUse: &model.ToolUse{ID: "call_1", Name: "read_file", Arguments: `{"depth":3,"path":"notes.md","tags":["a",0]}`}},
		{Kind: model.BlockToolUse, ToolUse: &model.ToolUse{ID: "mine", Name: "list", Arguments: `{"path": `}},
		{Kind: model.BlockToolUse, ToolUse: &model.ToolUse{ID: "call_3", Name: "now", Arguments: `{}`}},
	}}
	if diff := cmp.Diff(want, a.Message); diff != "" || a.Stop != model.StopTools || a.Rule != "demo.script.yaml:3" {
		t.Errorf("stop %s, rule %s: %s", a.Stop, a.Rule, diff)
	}
	again, err := call(t.Context(), p, turn(0, a.Message))
	if err != nil || again.Message.Calls()[0].ID != "call_4" {
		t.Errorf("calls of a later turn have ids of their own: %+v, %v", again, err)
	}
}

func TestAnswersReadTheResultsOfTools(t *testing.T) {
	p := parse(t, agents)
	for want, messages := range map[string][]model.Message{
		"It says one+two, then a b": {told("read_file", "old"), told("list", "a b"), told("read_file", `{"lines": ["one", "two"]}`)},
		"empty":                     {told("list", "a"), told("list", "nothing")},
		"ok is false":               {told("list", "a"), told("probe", `{"ok": false}`)},
	} {
		a, err := call(t.Context(), p, turn(1, messages...))
		if err != nil || a.Text() != want || a.Stop != model.StopEnd {
			t.Errorf("got %+v, %v, want %s", a, err, want)
		}
	}
	p = parse(t, "rules: [{when: {tool_result: {name: read_file, path: lines.1, equals: two}}, text: a}]")
	_, err := call(t.Context(), p, turn(1, told("read_file", `{"lines": ["one"]}`)))
	if err == nil || !strings.Contains(err.Error(), `the newest tool result of read_file has at lines.1 "two"`) ||
		!strings.Contains(err.Error(), `tool_result: of read_file: {"lines"`) {
		t.Errorf("got %v", err)
	}
}

func TestSummariesNeedARuleThatNamesThem(t *testing.T) {
	r := turn(3)
	r.Phase = model.PhaseCompact
	if _, err := call(t.Context(), parse(t, "rules: [{text: a}]"), r); err == nil || !strings.Contains(err.Error(), `phase is "compact"`) {
		t.Errorf("got %v", err)
	}
	if a, err := call(t.Context(), parse(t, "rules: [{when: {phase: compact}, text: a}]"), r); err != nil || a.Text() != "a" {
		t.Errorf("got %v, %v", a, err)
	}
}

func TestChunksArriveOneAfterTheOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := parse(t, "rules: [{text: 'héllo wörld', chunks: 4, delay: 10ms}]")
		ctx, cancel := context.WithCancel(t.Context())
		began := time.Now()
		s, err := p.Call(ctx, turn(0))
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for i := range 4 {
			piece, err := s.Next()
			if err != nil || time.Since(began) != time.Duration(i+1)*10*time.Millisecond {
				t.Fatalf("piece %d: %v after %s", i, err, time.Since(began))
			}
			got = append(got, piece.Text)
		}
		if _, err := s.Next(); !errors.Is(err, io.EOF) || strings.Join(got, "") != "héllo wörld" || s.Response().Text() != "héllo wörld" {
			t.Errorf("got %q, %v", got, err)
		}
		s, err = p.Call(ctx, turn(0))
		if err != nil {
			t.Fatal(err)
		}
		cancel()
		if _, err := s.Next(); !errors.Is(err, context.Canceled) {
			t.Errorf("a cancelled stream gives %v", err)
		}
	})
}

func TestPiecesAreTheWholeAnswer(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		text, n := rapid.String().Draw(t, "text"), rapid.IntRange(1, 20).Draw(t, "n")
		a := &model.Response{Message: model.Message{Blocks: []model.Block{
			{Kind: model.BlockText, Text: text}, {Kind: model.BlockToolUse, ToolUse: &model.ToolUse{Name: "t", Arguments: text}},
		}}}
		var said, args strings.Builder
		list := pieces(a, n)
		for _, p := range list {
			if p.Kind == "tool" {
				args.WriteString(p.Text)
			} else {
				said.WriteString(p.Text)
			}
		}
		if said.String() != text || args.String() != text || len(list) > 2*n {
			t.Fatalf("got %q", list)
		}
		if !slices.ContainsFunc(list, func(p model.Piece) bool { return p.Kind == "tool" && p.Name == "t" }) {
			t.Fatal("the call is not told")
		}
	})
}

func BenchmarkTurn(b *testing.B) {
	p, err := Parse("demo.script.yaml", []byte(agents))
	if err != nil {
		b.Fatal(err)
	}
	var messages []model.Message
	for range 50 {
		messages = append(messages, told("read_file", `{"lines": ["one", "two"]}`), told("list", "nothing"))
	}
	r := turn(1, messages...)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := call(b.Context(), p, r); err != nil {
			b.Fatal(err)
		}
	}
}
