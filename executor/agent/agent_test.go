package agent_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/orchestrator-project/orchestrator/executor"
	"github.com/orchestrator-project/orchestrator/executor/agent"
	"github.com/orchestrator-project/orchestrator/executor/model"
	"github.com/orchestrator-project/orchestrator/executor/tool"
	"github.com/orchestrator-project/orchestrator/pipeline"
)

// stage is a step with an agent, over as many attempts as a test wants.
type stage struct {
	t       testing.TB
	agent   *pipeline.Agent
	prompt  string
	schema  map[string]any
	tools   []tool.Tool
	say     func(r *model.Request) (*model.Response, error)
	cfg     agent.Config
	redact  func(string) string
	content bool // may stand in spans

	approved map[string]string
	test     func(t *pipeline.Template, more map[string]any) (bool, error)
	journal  *executor.Journal // of the newest attempt
	wrote    func(events []pipeline.Event) error
	slow     func(ctx context.Context) error // is waited for by each write; nil: nothing is

	mu     sync.Mutex
	events []pipeline.Event
	asked  []*model.Request
	posed  []*pipeline.Approval // by the newest attempt while it went on
}

func newStage(t testing.TB, say func(r *model.Request) (*model.Response, error), tools ...tool.Tool) *stage {
	t.Helper()
	return &stage{t: t, agent: &pipeline.Agent{Name: "worker"}, prompt: "Do it.", tools: tools, say: say}
}

// write is the journal's: what it is given is read back from its stored form.
func (s *stage) write(ctx context.Context, asks []*pipeline.Approval, events []pipeline.Event) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.slow != nil {
		if err := s.slow(ctx); err != nil {
			return err
		}
	}
	s.posed = append(s.posed, asks...)
	if s.wrote != nil {
		if err := s.wrote(events); err != nil {
			return err
		}
	}
	for i := range events {
		s.put(events[i])
	}
	return nil
}

func (s *stage) put(e pipeline.Event) {
	d, err := pipeline.DecodeData(pipeline.AppendData(nil, &e.Data))
	if err != nil {
		s.t.Errorf("event cannot be stored: %v", err)
	}
	e.Data, e.Seq, e.Path = d, int32(len(s.events)+1), "step"
	s.events = append(s.events, e)
}

// run is one attempt. What it asks people is recorded.
func (s *stage) run(ctx context.Context) (any, error) {
	s.t.Helper()
	router := model.NewRouter(model.Config{
		Logger: slog.New(slog.DiscardHandler),
		Scripted: model.Func(func(_ context.Context, r *model.Request) (*model.Response, error) {
			s.mu.Lock()
			c := *r
			c.Messages = slices.Clone(r.Messages)
			s.asked = append(s.asked, &c)
			s.mu.Unlock()
			return s.say(r)
		}),
		Open: func(model.Endpoint) (model.Provider, error) { return nil, errors.New("no network") },
	})
	s.cfg.Models, s.cfg.Tools = router, s
	action := agent.New(s.cfg)
	runner, err := action.Bind(nil)
	if err != nil {
		s.t.Fatal(err)
	}
	s.mu.Lock()
	past := slices.Clone(s.events)
	s.posed = nil
	s.mu.Unlock()
	s.journal = executor.NewJournal(past, s.write)
	out, err := runner.Run(ctx, executor.Env{
		Run: "run", Path: "step", Journal: s.journal, Log: func(string, string) {}, Redact: s.redact, TraceContent: s.content,
		Agent: &executor.AgentEnv{
			Agent: s.agent, Prompt: s.prompt, Schema: s.schema,
			Text: func(f *pipeline.Field, _ map[string]any) (any, error) { return f.Const, nil },
			Test: s.test,
			Approved: func(scope string) (string, bool, error) {
				by, ok := s.approved[scope]
				return by, ok, nil
			},
		},
	})
	if laid, ok := errors.AsType[*executor.Suspension](err); ok {
		for i := range laid.Asks {
			q := &laid.Asks[i]
			if q.Approval.ID == "" {
				q.Approval.ID = pipeline.NewApprovalID()
			}
			c := q.Call
			c.State, c.Approval = pipeline.InvocationAsked, q.Approval.ID
			s.put(pipeline.Event{Type: q.Type, Data: pipeline.Data{Call: &c}})
		}
	}
	return out.Value, err
}

// decide records a decision of people.
func (s *stage) decide(id pipeline.ApprovalID, d pipeline.Decision) {
	d.Approval = id
	if d.Actor == "" {
		d.Actor = "ann"
	}
	s.put(pipeline.Event{Type: pipeline.ApprovalIsDecided, Data: pipeline.Data{Decision: &d}})
}

// waits is what an attempt that lays its step down asks for.
func (s *stage) waits(err error) *executor.Suspension {
	s.t.Helper()
	laid, ok := errors.AsType[*executor.Suspension](err)
	if !ok {
		s.t.Fatalf("it does not wait for people: %v", err)
	}
	return laid
}

// questions are what the attempt has asked people, while it went on and at last.
func (s *stage) questions(err error) []*pipeline.Approval {
	s.t.Helper()
	list := slices.Clone(s.posed)
	for _, q := range s.waits(err).Asks {
		list = append(list, q.Approval)
	}
	return list
}

// Open makes the stage the source of its tools.
func (s *stage) Open(_ context.Context, _ executor.Env, w tool.Want) (tool.Box, error) {
	tools := slices.Clone(s.tools)
	for i := range w.Root.Agents { // each is a tool of its own name
		a := &w.Root.Agents[i]
		tools = append(tools, tool.Tool{
			Name: a.Name, Effect: pipeline.EffectIdempotent,
			Run: func(ctx context.Context, env executor.Env, c tool.Call) (tool.Result, error) {
				prompt, _ := c.Arguments["prompt"].(string)
				return w.Nested(ctx, env, a, prompt, c)
			},
		})
	}
	return box(tools), nil
}

type box []tool.Tool

func (b box) Tools() []tool.Tool { return b }

func (b box) Find(name string) *tool.Tool {
	for i := range b {
		if b[i].Name == name {
			return &b[i]
		}
	}
	return nil
}

func (b box) Close() error { return nil }

// says is a model's turn that is a text.
func says(text string) (*model.Response, error) {
	return &model.Response{Message: model.AssistantText(text), Stop: model.StopEnd, Usage: &pipeline.Usage{InputTokens: 10, OutputTokens: 5}}, nil
}

// wants is a turn that calls tools: name, arguments, name, arguments ...
func wants(pairs ...string) (*model.Response, error) {
	m := model.Message{Role: model.Assistant}
	for i := 0; i < len(pairs); i += 2 {
		m.Blocks = append(m.Blocks, model.Block{Kind: model.BlockToolUse, ToolUse: &model.ToolUse{ID: fmt.Sprint("c", i/2), Name: pairs[i], Arguments: pairs[i+1]}})
	}
	return &model.Response{Message: m, Stop: model.StopTools, Usage: &pipeline.Usage{InputTokens: 10, OutputTokens: 5}}, nil
}

// counted is a tool that counts its calls.
func counted(name string, effect pipeline.Effect, n *int32) tool.Tool {
	var mu sync.Mutex
	return tool.Tool{Name: name, Effect: effect, Run: func(_ context.Context, _ executor.Env, c tool.Call) (tool.Result, error) {
		mu.Lock()
		defer mu.Unlock()
		*n++
		return tool.Text(fmt.Sprintf("%s %v", name, c.Arguments["x"])), nil
	}}
}

// results are the results that the newest question tells the model.
func results(r *model.Request) []string {
	var list []string
	for _, m := range slices.Backward(r.Messages) {
		for _, b := range m.Blocks {
			if t := b.ToolResult; t != nil {
				text := model.Message{Blocks: t.Content}.Text()
				if t.Failed {
					text = "failed: " + text
				}
				list = append(list, text)
			}
		}
		if len(list) > 0 {
			return list
		}
	}
	return nil
}

func states(events []pipeline.Event) []string {
	var list []string
	for i := range events {
		switch c := events[i].Data.Call; {
		case c == nil:
			list = append(list, string(events[i].Type))
		case events[i].Type == pipeline.ModelCalled:
			list = append(list, fmt.Sprintf("model %d", c.Turn))
		default:
			list = append(list, c.Name+" "+c.State)
		}
	}
	return list
}

func failure(err error) *pipeline.Failure {
	f, _ := errors.AsType[*pipeline.Failure](err)
	if f == nil {
		f = &pipeline.Failure{Message: fmt.Sprint(err)}
	}
	return f
}

func TestAnAgentCallsToolsAndAnswers(t *testing.T) {
	var looks, pays int32
	s := newStage(t, func(r *model.Request) (*model.Response, error) {
		if r.Turn == 0 {
			return wants("look", `{"x":1}`, "pay", `{"x":2}`)
		}
		return says(strings.Join(results(r), ", "))
	}, counted("look", pipeline.EffectPure, &looks), counted("pay", "", &pays))
	v, err := s.run(t.Context())
	if err != nil || v != "look 1, pay 2" {
		t.Fatalf("%v, %v", v, err)
	}
	want := []string{"model 0", "pay started", "look finished", "pay finished", "model 1"}
	got := states(s.events)
	if got[2] == "pay finished" {
		got[2], got[3] = got[3], got[2]
	}
	if !slices.Equal(got, want) {
		t.Errorf("recorded %q, want %q", got, want)
	}
	again, err := s.run(t.Context())
	if err != nil || again != v || len(s.asked) != 2 || looks+pays != 2 {
		t.Errorf("a later attempt: %v, %v; %d questions, %d calls", again, err, len(s.asked), looks+pays)
	}
	if len(s.events) != len(want) {
		t.Errorf("a later attempt has recorded %q", states(s.events[len(want):]))
	}
}

func TestCallsThatCannotBeMadeAreToldToTheModel(t *testing.T) {
	var n int32
	strict := counted("look", pipeline.EffectPure, &n)
	strict.Schema = map[string]any{"type": "object", "required": []any{"x"}, "properties": map[string]any{"x": map[string]any{"type": "integer"}}, "additionalProperties": false}
	tests := map[string]struct{ name, arguments, want string }{
		"an unknown tool":     {"lok", `{"x":1}`, `Did you mean "look"?`},
		"truncated arguments": {"look", `{"x":`, "not JSON"},
		"no arguments":        {"look", ``, "no arguments have come"},
		"a list":              {"look", `[1]`, "must be a JSON object"},
		"the wrong type":      {"look", `{"x":"one"}`, "/x"},
		"an unknown argument": {"look", `{"x":1,"y":2}`, "y"},
		"huge arguments":      {"look", `{"x":"` + strings.Repeat("x", 2<<20) + `"}`, "bytes"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			s := newStage(t, func(r *model.Request) (*model.Response, error) {
				if r.Turn == 0 {
					return wants(tt.name, tt.arguments)
				}
				return says(results(r)[0])
			}, strict)
			v, err := s.run(t.Context())
			if text, _ := v.(string); err != nil || !strings.HasPrefix(text, "failed: ") || !strings.Contains(text, tt.want) {
				t.Errorf("%.200v, %v; want %q in it", v, err, tt.want)
			}
		})
	}
	if n != 0 {
		t.Errorf("%d of them were made", n)
	}
}

func TestTheSameCallAgainAndAgainEndsTheAgent(t *testing.T) {
	var n int32
	s := newStage(t, func(*model.Request) (*model.Response, error) { return wants("look", `{"x":1}`) }, counted("look", pipeline.EffectPure, &n))
	_, err := s.run(t.Context())
	if f := failure(err); f.Reason != agent.ReasonLoop || n != 3 {
		t.Errorf("%v after %d calls", err, n)
	}
	if last := results(s.asked[len(s.asked)-1]); !strings.Contains(last[0], "same call") {
		t.Errorf("it was not warned: %q", last)
	}
}

func TestTheLastTurnIsWithoutTools(t *testing.T) {
	var n int32
	s := newStage(t, func(r *model.Request) (*model.Response, error) {
		if r.Choice == "none" {
			return says("enough")
		}
		return wants("look", fmt.Sprintf(`{"x":%d}`, r.Turn))
	}, counted("look", pipeline.EffectPure, &n))
	s.agent.Limits.Steps = 3
	if v, err := s.run(t.Context()); err != nil || v != "enough" || n != 2 {
		t.Errorf("%v, %v after %d calls", v, err, n)
	}
	s = newStage(t, func(r *model.Request) (*model.Response, error) { return wants("look", fmt.Sprintf(`{"x":%d}`, r.Turn)) }, s.tools...)
	s.agent.Limits.Steps = 3
	if _, err := s.run(t.Context()); failure(err).Reason != agent.ReasonSteps {
		t.Errorf("a model that calls on: %v", err)
	}
}

func TestAnAgentKeepsWithinItsTokens(t *testing.T) {
	var n int32
	s := newStage(t, func(r *model.Request) (*model.Response, error) { return wants("look", fmt.Sprintf(`{"x":%d}`, r.Turn)) }, counted("look", pipeline.EffectPure, &n))
	s.agent.Limits.Tokens = 40
	for range 2 { // also in a later attempt
		if _, err := s.run(t.Context()); failure(err).Reason != agent.ReasonTokens {
			t.Fatal(err)
		}
		if len(s.asked) != 3 {
			t.Fatalf("asked %d times", len(s.asked))
		}
	}
}

func TestStructuredAnswers(t *testing.T) {
	schema := map[string]any{"type": "object", "required": []any{"label"}, "properties": map[string]any{"label": map[string]any{"enum": []any{"bug", "idea"}}}}
	tests := []struct {
		name, mode string
		turns      []func() (*model.Response, error)
		want       any
		reason     string
	}{
		{"as the model can", "", []func() (*model.Response, error){func() (*model.Response, error) { return says(`{"label":"bug"}`) }}, "bug", ""},
		{"repaired", "native", []func() (*model.Response, error){
			func() (*model.Response, error) { return says(`{"label":"joke"}`) },
			func() (*model.Response, error) { return says("```json\n{\"label\":\"idea\"}\n```") },
		}, "idea", ""},
		{"wrong twice", "prompt", []func() (*model.Response, error){
			func() (*model.Response, error) { return says(`a bug`) },
			func() (*model.Response, error) { return says(`still a bug`) },
		}, nil, model.ReasonSchema},
		{"handed in", "tool", []func() (*model.Response, error){func() (*model.Response, error) { return wants("final_answer", `{"label":"bug"}`) }}, "bug", ""},
		{"handed in at the second try", "tool", []func() (*model.Response, error){
			func() (*model.Response, error) { return wants("final_answer", `{"label":7}`) },
			func() (*model.Response, error) { return wants("final_answer", `{"label":"idea"}`) },
		}, "idea", ""},
		{"nothing at all", "", []func() (*model.Response, error){
			func() (*model.Response, error) { return says("") },
			func() (*model.Response, error) { return says(" ") },
		}, nil, agent.ReasonEmpty},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := newStage(t, func(r *model.Request) (*model.Response, error) { return tt.turns[r.Turn]() })
			s.agent.Output = &pipeline.AgentOutput{Schema: schema, Mode: tt.mode}
			for range 2 { // a later attempt reads the same from the journal
				v, err := s.run(t.Context())
				if tt.reason != "" {
					if failure(err).Reason != tt.reason {
						t.Fatal(err)
					}
					continue
				}
				if m, _ := v.(map[string]any); err != nil || m["label"] != tt.want {
					t.Fatalf("%v, %v", v, err)
				}
			}
			if len(s.asked) != len(tt.turns) {
				t.Errorf("asked %d times", len(s.asked))
			}
		})
	}
}
