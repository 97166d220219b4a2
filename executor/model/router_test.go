package model

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/orchestrator-project/orchestrator/executor"
	"github.com/orchestrator-project/orchestrator/pipeline"
)

// book keeps what a journal appends, as a store would give it back.
type book struct {
	mu     sync.Mutex
	events []pipeline.Event
}

func (b *book) write(_ context.Context, _ []*pipeline.Approval, events []pipeline.Event) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, e := range events {
		stored := pipeline.AppendData(nil, &e.Data)
		d, err := pipeline.DecodeData(stored)
		if err != nil {
			return err
		}
		e.Data, e.Seq = d, int32(len(b.events)+1)
		b.events = append(b.events, e)
	}
	return nil
}

// attempt is the next attempt of a step.
func (b *book) attempt() executor.Env {
	b.mu.Lock()
	defer b.mu.Unlock()
	past := append([]pipeline.Event{}, b.events...)
	return executor.Env{Run: "run", Path: "step", Journal: executor.NewJournal(past, b.write)}
}

// service is a provider under test: it answers with what f gives and counts.
type service struct {
	mu    sync.Mutex
	asked []*Request
	f     func(n int, r *Request) (*Response, error)
}

func (s *service) Call(_ context.Context, r *Request) (Stream, error) {
	s.mu.Lock()
	s.asked = append(s.asked, r)
	n := len(s.asked)
	s.mu.Unlock()
	a, err := s.f(n, r)
	if err != nil {
		return nil, err
	}
	return Whole(a), nil
}

func echo(n int, _ *Request) (*Response, error) {
	return &Response{Message: AssistantText(fmt.Sprintf("answer %d", n)), Usage: &pipeline.Usage{InputTokens: 1000, OutputTokens: 100}}, nil
}

// routed is a router over services by the names of their models, each of the
// provider openai, in the order given.
func routed(t testing.TB, services map[string]*service, order ...string) (*Router, *Config) {
	t.Helper()
	g := &Registry{Policies: policies()}
	for _, name := range order {
		g.Entries = append(g.Entries, &Entry{
			Name: name, Provider: ProviderOpenAI, BaseURL: "http://" + name + ".test", Capabilities: Capabilities{Tools: &truth, Structured: &truth},
			Prices: []Price{{Input: 1, Output: 10}},
		})
	}
	cfg := Config{
		Registry: g, Logger: slog.New(slog.DiscardHandler), Retry: Retry{Jitter: func() float64 { return 1 }},
		Open: func(at Endpoint) (Provider, error) {
			return services[strings.TrimSuffix(strings.TrimPrefix(at.BaseURL, "http://"), ".test")], nil
		},
	}
	return NewRouter(cfg), &cfg
}

func ask(text string) *Request {
	return &Request{Run: "run", Step: "step", Messages: []Message{UserText(text)}, IdempotencyKey: "run/step"}
}

func TestARecordedCallIsNotMadeAgain(t *testing.T) {
	s := &service{f: echo}
	r, _ := routed(t, map[string]*service{"m": s}, "m")
	b := &book{}
	env := b.attempt()
	first, err := r.Ask(t.Context(), env, ask("hello"))
	if err != nil || first.Text() != "answer 1" {
		t.Fatalf("%+v, %v", first, err)
	}
	again, err := r.Ask(t.Context(), b.attempt(), ask("hello"))
	if err != nil || again.Text() != "answer 1" || len(s.asked) != 1 || again.N != first.N || again.Model != "m" {
		t.Errorf("%+v, %v; asked %d times", again, err, len(s.asked))
	}
	if _, err = r.Ask(t.Context(), b.attempt(), ask("hello there")); err != nil || len(s.asked) != 2 {
		t.Errorf("another question: %v, asked %d times", err, len(s.asked))
	}
	e := b.events[0]
	if e.Type != pipeline.ModelCalled || e.Data.Model != "m" || e.Data.Usage.Calls != 1 || e.Data.Usage.CostUSD != 0.002 || e.Data.Call.Provider != ProviderOpenAI {
		t.Errorf("recorded %+v %+v", e.Data, e.Data.Usage)
	}
}

func TestEqualQuestionsOfAnAttemptAreAnsweredOneByOne(t *testing.T) {
	s := &service{f: echo}
	r, _ := routed(t, map[string]*service{"m": s}, "m")
	b := &book{}
	for range 2 {
		env := b.attempt()
		for i := range 3 {
			a, err := r.Ask(t.Context(), env, ask("same"))
			if want := fmt.Sprintf("answer %d", i+1); err != nil || a.Text() != want {
				t.Fatalf("%v, want %s; %v", a, want, err)
			}
		}
	}
	if len(s.asked) != 3 {
		t.Errorf("asked %d times", len(s.asked))
	}
}

func TestRetriesWaitAndAreCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &service{f: func(n int, r *Request) (*Response, error) {
			switch n {
			case 1:
				return nil, &Error{Class: ClassOverloaded, Status: 529, Message: "busy"}
			case 2:
				return nil, &Error{Class: ClassRateLimit, Status: 429, Message: "slow down", RetryAfter: 7 * time.Second}
			}
			return echo(n, r)
		}}
		r, _ := routed(t, map[string]*service{"m": s}, "m")
		b := &book{}
		begun := time.Now()
		a, err := r.Ask(t.Context(), b.attempt(), ask("hello"))
		if err != nil || a.Tries != 3 {
			t.Fatalf("%+v, %v", a, err)
		}
		if took := time.Since(begun); took != 7500*time.Millisecond { // 0.5 s, then what was asked for
			t.Errorf("waited %v", took)
		}
		if len(b.events) != 1 || b.events[0].Data.Call.Tries != 3 {
			t.Errorf("recorded %+v", b.events)
		}
	})
}

func TestWhatCannotWorkIsNotTriedAgain(t *testing.T) {
	for _, class := range []string{ClassInvalid, ClassAuth, ClassFiltered, ClassQuota} {
		s := &service{f: func(int, *Request) (*Response, error) { return nil, &Error{Class: class, Status: 400, Message: "no"} }}
		r, _ := routed(t, map[string]*service{"m": s}, "m")
		b := &book{}
		_, err := r.Ask(t.Context(), b.attempt(), ask("hello"))
		f, ok := errors.AsType[*pipeline.Failure](err)
		if !ok || f.Reason != "model_"+class || len(s.asked) != 1 {
			t.Errorf("%s: %v, asked %d times", class, err, len(s.asked))
		}
		if len(b.events) != 1 || !b.events[0].Data.Call.Failed || b.events[0].Data.Error == nil || b.events[0].Data.Call.Key != "" {
			t.Errorf("%s: recorded %+v", class, b.events)
		}
	}
}

// What was sent is what the journal tells, whatever the conversation: turns of
// agents, nested ones, other tools, other prompts, summaries.
func TestConversationsAreRebuilt(t *testing.T) {
	s := &service{}
	s.f = func(n int, r *Request) (*Response, error) {
		return &Response{Message: Message{Role: Assistant, Blocks: []Block{
			{Kind: BlockReasoning, Text: "hm", Opaque: []byte{0, 255, byte(n)}, Of: "openai"},
			{Kind: BlockToolUse, ToolUse: &ToolUse{ID: fmt.Sprint(n), Name: "look", Arguments: `{"at": ` + fmt.Sprint(n) + `}`}},
		}}, Stop: StopTools}, nil
	}
	r, _ := routed(t, map[string]*service{"m": s}, "m")
	b := &book{}
	env := b.attempt()
	talk := map[string][]Message{}
	zero := 0.0
	for turn := range 40 {
		if turn%13 == 12 { // a crash
			env = b.attempt()
		}
		for in, agent := range []string{"outer", "inner"} {
			q := ask("")
			q.Agent, q.Turn, q.In, q.Phase = agent, turn, int32(in*7), PhaseTurn
			q.System = "Be " + agent
			q.Tools = []ToolDef{{Name: "look", Description: "looks", Schema: object{"type": "object"}}}
			q.Temperature, q.MaxTokens, q.Model = &zero, int64(100+turn/10), "m"
			if turn > 20 {
				q.Tools = append(q.Tools, ToolDef{Name: "more"})
			}
			if turn == 30 {
				q.System = ""
			}
			q.Parts = []Part{{Name: "system", Bytes: len(q.System)}}
			if turn == 0 {
				talk[agent] = []Message{UserText("begin " + agent)}
			}
			q.Messages = talk[agent]
			a, err := r.Ask(t.Context(), env, q)
			if err != nil {
				t.Fatal(err)
			}
			use := a.Message.Calls()[0]
			talk[agent] = append(talk[agent], a.Message, Message{Role: User, Blocks: []Block{
				{Kind: BlockToolResult, ToolResult: &ToolResult{ID: use.ID, Name: use.Name, Content: []Block{{Kind: BlockText, Text: "seen " + use.ID}}, Failed: turn%3 == 0}},
			}})
		}
	}
	if len(b.events) != len(s.asked) {
		t.Fatalf("%d calls, %d records", len(s.asked), len(b.events))
	}
	live := cmpopts.IgnoreFields(Request{}, "Run", "IdempotencyKey", "Uses", "Action")
	for i, e := range b.events {
		got, err := Conversation(b.events, e.Data.Call.N)
		if err != nil {
			t.Fatal(err)
		}
		s.asked[i].Parts = sizes(s.asked[i])
		if diff := cmp.Diff(s.asked[i], got, live, cmpopts.EquateEmpty()); diff != "" {
			t.Fatalf("call %d: %s", i, diff)
		}
	}
	if first, last := len(pipeline.AppendData(nil, &b.events[4].Data)), len(pipeline.AppendData(nil, &b.events[77].Data)); last > first+40 { // figures gain digits
		t.Errorf("a turn takes %d bytes in the beginning and %d in the end", first, last)
	}
}

// BenchmarkTurn is what a turn of an agent costs beside its model and its store,
// the hundredth of a conversation.
func BenchmarkTurn(b *testing.B) {
	s := &service{f: echo}
	r, _ := routed(b, map[string]*service{"m": s}, "m")
	q := ask("begin")
	q.Agent, q.Phase, q.Model = "x", PhaseTurn, "m"
	q.System, q.Parts = strings.Repeat("Instructions. ", 50), []Part{{"instructions", 700}, {"tools", 12000}, {"prompt", 5}}
	for i := range 12 {
		properties := map[string]any{}
		for j := range 6 {
			properties[fmt.Sprintf("argument_%d", j)] = map[string]any{"type": "string", "description": "What the tool is told of its work."}
		}
		q.Tools = append(q.Tools, ToolDef{
			Name: fmt.Sprintf("tool_%d", i), Description: strings.Repeat("Does a piece of work. ", 5),
			Schema: map[string]any{"type": "object", "properties": properties, "required": []any{"argument_0"}, "additionalProperties": false},
		})
	}
	for range 100 {
		q.Messages = append(q.Messages, AssistantText(strings.Repeat("thought ", 50)), UserText(strings.Repeat("result ", 50)))
	}
	env := executor.Env{Run: "run", Path: "step", Journal: executor.NewJournal(nil, func(context.Context, []*pipeline.Approval, []pipeline.Event) error { return nil })}
	b.ReportAllocs()
	for b.Loop() {
		q.Turn++
		if _, err := r.Ask(b.Context(), env, q); err != nil {
			b.Fatal(err)
		}
	}
}
