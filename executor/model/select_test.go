package model

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/orchestrator-project/orchestrator/executor"
	"github.com/orchestrator-project/orchestrator/pipeline"
)

func failing(class string) *service {
	return &service{f: func(int, *Request) (*Response, error) {
		return nil, &Error{Class: class, Status: 503, Message: class}
	}}
}

func choiceOf(t *testing.T, b *book, i int) map[string]any {
	t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	m, ok := b.events[i].Data.Call.Choice.(map[string]any)
	if !ok {
		t.Fatalf("no choice in %+v", b.events[i].Data.Call)
	}
	return m
}

func TestUntriedModelsGoFirstThenThoseThatAreWorthIt(t *testing.T) {
	good, dear := &service{f: echo}, &service{f: func(_ int, _ *Request) (*Response, error) {
		return &Response{Message: AssistantText("x"), Usage: &pipeline.Usage{InputTokens: 30_000_000}}, nil
	}}
	r, cfg := routed(t, map[string]*service{"good": good, "dear": dear}, "dear", "good")
	narrow := 0.1
	cfg.Registry.Policies["default"] = SelectionPolicy{Strategy: StrategyUCB, Exploration: &narrow}
	b := &book{}
	for i := range 40 {
		if _, err := r.Ask(t.Context(), b.attempt(), ask(fmt.Sprint(i))); err != nil {
			t.Fatal(err)
		}
	}
	if first, second := choiceOf(t, b, 0)["model"], choiceOf(t, b, 1)["model"]; first != "dear" || second != "good" {
		t.Errorf("untried models in the order of the registry: %v, %v", first, second)
	}
	if len(good.asked) < 3*len(dear.asked) {
		t.Errorf("the better one was asked %d times, the other one %d times", len(good.asked), len(dear.asked))
	}
	c := choiceOf(t, b, 39)
	list, _ := c["candidates"].([]any)
	if c["by"] != byPolicy || c["policy"] != "default" || len(list) != 2 || list[0].(map[string]any)["reason"] == "" {
		t.Errorf("recorded %v", c)
	}
}

func TestUCB1(t *testing.T) {
	if s, _ := ucb1(0, 0, 10, 2); !math.IsInf(s, 1) {
		t.Errorf("an untried model has %v", s)
	}
	if s, _ := ucb1(4, 3, 10, 2); math.Abs(s-(0.75+2*math.Sqrt(math.Log(11)/4))) > 1e-12 {
		t.Errorf("got %v", s)
	}
}

func TestWeightedPolicyWeighs(t *testing.T) {
	services := map[string]*service{"a": {f: echo}, "b": {f: echo}}
	r, cfg := routed(t, services, "a", "b")
	cfg.Registry.Entries[0].Metrics = Metrics{Accuracy: 0.9, LatencyP50: 3}
	cfg.Registry.Entries[1].Metrics = Metrics{Accuracy: 0.5, LatencyP50: 1}
	cfg.Registry.Policies["exact"] = SelectionPolicy{Strategy: StrategyWeighted, Weights: Weights{Accuracy: 1}}
	cfg.Registry.Policies["fast"] = SelectionPolicy{Strategy: StrategyWeighted, Weights: Weights{Latency: 1}}
	for policy, want := range map[string]string{"exact": "a", "fast": "b"} {
		b := &book{}
		q := ask(policy)
		q.Needs = &pipeline.Needs{Policy: policy}
		if _, err := r.Ask(t.Context(), b.attempt(), q); err != nil || choiceOf(t, b, 0)["model"] != want {
			t.Errorf("%s: %v, %v", policy, choiceOf(t, b, 0), err)
		}
	}
}

func TestModelsThatDoNotSuitArePassedOver(t *testing.T) {
	services := map[string]*service{"small": {f: echo}, "mute": {f: echo}, "fit": {f: echo}}
	r, cfg := routed(t, services, "small", "mute", "fit")
	no := false
	for i, c := range []Capabilities{
		{Tasks: []string{"analysis"}, ContextWindow: 10, Tools: &truth},
		{Tasks: []string{"analysis"}, ContextWindow: 100_000, Tools: &no},
		{Tasks: []string{"analysis"}, ContextWindow: 100_000, Tools: &truth},
	} {
		cfg.Registry.Entries[i].Capabilities = c
	}
	cfg.Registry.Entries = append(cfg.Registry.Entries, &Entry{Name: "keyless", Provider: ProviderAnthropic, Capabilities: cfg.Registry.Entries[2].Capabilities})
	b := &book{}
	q := ask(strings.Repeat("long ", 100))
	q.Tools, q.Needs = []ToolDef{{Name: "t"}}, &pipeline.Needs{Tasks: []string{"analysis"}}
	if _, err := r.Ask(t.Context(), b.attempt(), q); err != nil {
		t.Fatal(err)
	}
	c := choiceOf(t, b, 0)
	passed := fmt.Sprint(c["passed"])
	if c["model"] != "fit" || !strings.Contains(passed, "does not call tools") || !strings.Contains(passed, "its context") || !strings.Contains(passed, "set ANTHROPIC_API_KEY") {
		t.Errorf("recorded %v", c)
	}
	q.Needs.Tasks = []string{"poetry"}
	_, err := r.Ask(t.Context(), b.attempt(), q)
	if f, ok := errors.AsType[*pipeline.Failure](err); !ok || f.Reason != "no_model" || !strings.Contains(f.Message, "not for the task poetry") {
		t.Errorf("nothing suits: %v", err)
	}
}

func TestAQuantizedVersionTakesTheRoomThatThereIs(t *testing.T) {
	local := func(name, base string, gb float64) *Entry {
		return &Entry{Name: name, Provider: ProviderLocal, BaseModel: base, Quantization: "int4", Requirements: Requirements{MemoryGB: gb}}
	}
	for _, c := range []struct {
		memory float64
		want   string // empty: none has room
	}{{32, "full"}, {10, "half"}, {2, ""}} {
		r := NewRouter(Config{
			Registry: &Registry{Entries: []*Entry{local("full", "", 16), local("half", "full", 8)}, Policies: policies()},
			Host:     &Host{MemoryGB: c.memory, Cores: 4}, Logger: slog.New(slog.DiscardHandler),
			Open: func(Endpoint) (Provider, error) {
				return Func(func(_ context.Context, r *Request) (*Response, error) { return echo(1, r) }), nil
			},
		})
		r.probes[Endpoint{Provider: ProviderLocal, BaseURL: r.cfg.LocalURL}] = &probe{at: time.Now()}
		for _, named := range []string{"", "full"} {
			b := &book{}
			q := ask("hello")
			q.Model = named
			_, err := r.Ask(t.Context(), b.attempt(), q)
			if c.want == "" {
				if err == nil || !strings.Contains(err.Error(), "it needs 16 GB of memory, and this machine has 2.0") {
					t.Errorf("%v GB: %v", c.memory, err)
				}
				continue
			}
			if err != nil || choiceOf(t, b, 0)["model"] != c.want {
				t.Errorf("%v GB, named %q: %v, %v", c.memory, named, choiceOf(t, b, 0), err)
			}
		}
	}
}

func TestAFallbackGoesOnWithTheConversation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		good := &service{f: echo}
		r, cfg := routed(t, map[string]*service{"a": failing(ClassOverloaded), "b": good}, "a", "b")
		cfg.Registry.Entries[0].Fallback = []string{"b"}
		b := &book{}
		env := b.attempt()
		q := ask("one")
		q.Model, q.Agent, q.Phase = "a", "x", PhaseTurn
		a, err := r.Ask(t.Context(), env, q)
		if err != nil || a.Model != "b" {
			t.Fatalf("%+v, %v", a, err)
		}
		c := choiceOf(t, b, 0)
		if c["by"] != byFallback || !strings.Contains(fmt.Sprint(c["instead_of"]), "model:a") || b.events[0].Data.Call.Tries != 5 {
			t.Errorf("recorded %v", c)
		}
		q.Messages = append(q.Messages, a.Message, UserText("two"))
		q.Turn = 1
		if a, err = r.Ask(t.Context(), b.attempt(), q); err != nil || a.Tries != 1 {
			t.Errorf("it does not stay with the model it was switched to: %+v, %v", a, err)
		}
		if last := good.asked[len(good.asked)-1]; len(last.Messages) != 3 || last.Model != "b" {
			t.Errorf("asked %+v", last)
		}
	})
}

func TestABreakerOpensAndLetsOneTryLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		well := false
		s := &service{f: func(n int, r *Request) (*Response, error) {
			if well {
				return echo(n, r)
			}
			return nil, &Error{Class: ClassServer, Status: 500, Message: "down"}
		}}
		r, cfg := routed(t, map[string]*service{"m": s}, "m")
		cfg.Registry.Entries[0].Fallback = nil
		q := ask("hello")
		q.Model = "m"
		for range 2 { // four tries, then one
			if _, err := r.Ask(t.Context(), (&book{}).attempt(), q); err == nil {
				t.Fatal("it answers")
			}
		}
		if len(s.asked) != 5 {
			t.Errorf("asked %d times", len(s.asked))
		}
		well = true
		_, err := r.Ask(t.Context(), (&book{}).attempt(), q)
		if err == nil || !strings.Contains(err.Error(), "left alone for a while") || len(s.asked) != 5 {
			t.Errorf("an open breaker lets through: %v", err)
		}
		all, err := r.Models(t.Context())
		if err != nil || all.List[0].Breaker != BreakerOpen || all.List[0].Available {
			t.Errorf("shown as %+v, %v", all.List, err)
		}
		time.Sleep(breakerTimeout + time.Second)
		if _, err := r.Ask(t.Context(), (&book{}).attempt(), q); err != nil || r.breakers.state("openai/m") != BreakerClosed {
			t.Errorf("after a minute: %v, %s", err, r.breakers.state("openai/m"))
		}
	})
}

// cut breaks off after its pieces.
type cut struct{ pieces []string }

func (c *cut) Next() (Piece, error) {
	if len(c.pieces) == 0 {
		return Piece{}, &Error{Class: ClassNetwork, Message: "the stream broke off"}
	}
	p := c.pieces[0]
	c.pieces = c.pieces[1:]
	return Piece{Kind: "text", Text: p}, nil
}
func (c *cut) Response() *Response { return nil }
func (c *cut) Close() error        { return nil }

type streams func(n int) Stream

func (s streams) Call(context.Context, *Request) (Stream, error) { return s(0), nil }

func TestViewersForgetWhatABrokenStreamHasSaid(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := 0
		r := NewRouter(Config{
			Registry: &Registry{Entries: []*Entry{{Name: "m", Provider: ProviderOpenAI, BaseURL: "http://m"}}, Policies: policies()},
			Open: func(Endpoint) (Provider, error) {
				return streams(func(int) Stream {
					if n++; n == 1 {
						return &cut{pieces: []string{"never ", "mind"}}
					}
					return Whole(&Response{Message: AssistantText("hello")})
				}), nil
			},
			Logger: slog.New(slog.DiscardHandler),
		})
		b := &book{}
		env := b.attempt()
		var seen []string
		env.Delta = func(d pipeline.Delta) { seen = append(seen, fmt.Sprintf("%d %s %s", d.Call, d.Kind, d.Text)) }
		a, err := r.Ask(t.Context(), env, ask("hello"))
		if err != nil || a.Text() != "hello" {
			t.Fatal(a, err)
		}
		if want := []string{"1 text never ", "1 text mind", "1 reset ", "1 text hello"}; !slices.Equal(seen, want) {
			t.Errorf("seen %q", seen)
		}
		if u := b.events[0].Data.Usage; u == nil || !u.Estimated {
			t.Errorf("usage that nobody has told is estimated: %+v", u)
		}
	})
}

func TestAConversationThatIsTooLongIsShortenedOnce(t *testing.T) {
	const room = 4000
	s := &service{}
	s.f = func(_ int, r *Request) (*Response, error) {
		if r.Phase == PhaseCompact {
			return &Response{Message: AssistantText("we looked at many things")}, nil
		}
		size := 0
		for i := range r.Messages {
			size += sizeOf(r.Messages[i].Blocks)
		}
		if size > room {
			return nil, &Error{Class: ClassContextLength, Status: 400, Message: "too long"}
		}
		return &Response{Message: Message{Role: Assistant, Blocks: []Block{{Kind: BlockToolUse, ToolUse: &ToolUse{ID: "c", Name: "look", Arguments: "{}"}}}}}, nil
	}
	r, _ := routed(t, map[string]*service{"m": s}, "m")
	b := &book{}
	q := ask("The task.")
	q.Agent, q.Phase = "x", PhaseTurn
	summaries := 0
	for turn := range 60 {
		q.Turn = turn
		a, err := r.Ask(t.Context(), b.attempt(), q)
		if err != nil {
			t.Fatalf("turn %d: %v", turn, err)
		}
		q.Messages = append(q.Messages, a.Message, Message{Role: User, Blocks: []Block{
			{Kind: BlockToolResult, ToolResult: &ToolResult{ID: "c", Name: "look", Content: []Block{{Kind: BlockText, Text: strings.Repeat("x", 200)}}}},
		}})
	}
	for i, e := range b.events {
		got, err := Conversation(b.events, e.Data.Call.N)
		if err != nil {
			t.Fatal(err)
		}
		if got.Phase == PhaseCompact {
			summaries++
			continue
		}
		if got.Messages[0].Text() != "The task." {
			t.Errorf("call %d does not begin with the task", i)
		}
		for k := range got.Messages {
			if answersTools(&got.Messages[k]) && len(got.Messages[k-1].Calls()) == 0 {
				t.Fatalf("call %d: message %d is the result of a call that was left out", i, k)
			}
		}
	}
	if summaries < 3 || summaries > 10 {
		t.Errorf("%d summaries", summaries)
	}
	if again, err := r.Ask(t.Context(), b.attempt(), q); err != nil || again == nil {
		t.Errorf("after a crash: %v", err)
	}
}

// ledger shares statistics between routers, as a store does.
type ledger struct {
	mu   sync.Mutex
	rows map[string]pipeline.ModelStat
	adds int
}

func (l *ledger) AddModelStats(_ context.Context, list []pipeline.ModelStat) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.adds++
	for _, m := range list {
		sum := l.rows[m.Model]
		sum.Model = m.Model
		sum.Add(&m)
		l.rows[m.Model] = sum
	}
	return nil
}

// seen is how often was added, and what has come of it.
func (l *ledger) seen() (int, pipeline.ModelStat) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.adds, l.rows["openai/a"]
}

func (l *ledger) ModelStats(context.Context, time.Time) ([]pipeline.ModelStat, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	var list []pipeline.ModelStat
	for _, m := range l.rows {
		list = append(list, m)
	}
	return list, nil
}

func TestStatisticsAreSharedInBatches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &ledger{rows: map[string]pipeline.ModelStat{}}
		replica := func() *Router {
			_, cfg := routed(t, map[string]*service{"a": {f: echo}, "b": {f: echo}}, "a", "b")
			cfg.Stats = l
			return NewRouter(*cfg)
		}
		one, two := replica(), replica()
		ctx, stop := context.WithCancel(t.Context())
		var all sync.WaitGroup
		for _, r := range []*Router{one, two} {
			all.Go(func() { _ = r.Run(ctx) })
		}
		for i := range 100 {
			q := ask(fmt.Sprint(i))
			q.Model = "a"
			if _, err := one.Ask(t.Context(), executor.Env{}, q); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(2 * statsFlush)
		if adds, a := l.seen(); adds != 1 || a.Calls != 100 {
			t.Errorf("%d batches: %+v", adds, a)
		}
		b := &book{}
		if _, err := two.Ask(t.Context(), b.attempt(), ask("which?")); err != nil || choiceOf(t, b, 0)["model"] != "b" {
			t.Errorf("another replica does not know what was tried: %v, %v", choiceOf(t, b, 0), err)
		}
		time.Sleep(time.Hour)
		if adds, _ := l.seen(); adds != 2 {
			t.Errorf("%d batches", adds)
		}
		stop()
		all.Wait()
	})
}
