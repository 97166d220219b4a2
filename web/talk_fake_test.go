package web

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	api "github.com/orchestrator-project/orchestrator/proto/orchestrator/v1"
)

// minds is what the fake knows of models, tools, and of what agents have called.
type minds struct {
	api.UnimplementedCallsServer
	api.UnimplementedModelsServer
	api.UnimplementedToolsServer
	api.UnimplementedBudgetsServer
	api.UnimplementedSkillsServer

	f       *fake
	calls   []*api.Call
	models  []*api.Model
	tools   []*api.Tool
	budgets []*api.Budget
	none    bool // there are no models here
}

func (f *fake) register(srv *grpc.Server) {
	api.RegisterCallsServer(srv, f.minds)
	api.RegisterModelsServer(srv, f.minds)
	api.RegisterToolsServer(srv, f.minds)
	api.RegisterBudgetsServer(srv, f.minds)
	api.RegisterSkillsServer(srv, f.minds)
}

func (m *minds) ListCalls(_ context.Context, r *api.ListCallsRequest) (*api.ListCallsResponse, error) {
	m.f.mu.Lock()
	defer m.f.mu.Unlock()
	resp := &api.ListCallsResponse{}
	for _, c := range m.calls {
		if c.GetStep() == r.GetStep() {
			resp.Calls = append(resp.Calls, c)
		}
	}
	return resp, nil
}

func (m *minds) GetCall(_ context.Context, r *api.GetCallRequest) (*api.Call, error) {
	m.f.mu.Lock()
	defer m.f.mu.Unlock()
	i := slices.IndexFunc(m.calls, func(c *api.Call) bool { return c.GetStep() == r.GetStep() && c.GetN() == r.GetN() })
	if i < 0 {
		return nil, status.Error(codes.NotFound, "there is no such call")
	}
	return m.calls[i], nil
}

func (m *minds) ListModels(context.Context, *api.ListModelsRequest) (*api.ListModelsResponse, error) {
	if m.none {
		return nil, status.Error(codes.Unavailable, "this process asks no models")
	}
	return &api.ListModelsResponse{Models: m.models, Scripted: true}, nil
}

func (m *minds) ListTools(context.Context, *api.ListToolsRequest) (*api.ListToolsResponse, error) {
	return &api.ListToolsResponse{Tools: m.tools}, nil
}

func (m *minds) ListBudgets(context.Context, *api.ListBudgetsRequest) (*api.ListBudgetsResponse, error) {
	return &api.ListBudgetsResponse{Budgets: m.budgets}, nil
}

func (f *fake) SteerRun(_ context.Context, r *api.SteerRunRequest) (*api.Run, error) {
	f.ops.asks(r)
	return f.runs[r.GetId()].run, nil
}

// delta shows a piece of an answer to those who watch the run.
func (s *story) delta(path string, call int32, kind, text string) {
	s.f.mu.Lock()
	defer s.f.mu.Unlock()
	s.live = append(s.live, &api.Event{
		RunId: s.run.Id, Type: "delta", Path: path, At: timestamppb.Now(),
		Data: fmt.Sprintf(`{"call":%d,"kind":%q,"agent":"writer","text":%q}`, call, kind, text),
	})
	close(s.changed)
	s.changed = make(chan struct{})
}

// recorded adds a call, and the event that tells of it.
func (s *story) recorded(c *api.Call) {
	s.f.mu.Lock()
	s.f.minds.calls = append(s.f.minds.calls, c)
	s.f.mu.Unlock()
	s.carry(c.GetKind()+"_called", c.GetStep(), fmt.Sprintf(`{"call":{"n":%d,"state":%q}}`, c.GetN(), c.GetState()))
}

// conversation is two turns of an agent at work, one of whose tools waits for
// people.
func conversation(path string) []*api.Call {
	model := func(n, turn int32, blocks string) *api.Call {
		return &api.Call{
			Step: path, N: n, Kind: "model", State: "finished", Agent: "writer", Turn: turn, Phase: "turn", Model: "fast", Provider: "script", Scripted: true,
			Usage: &api.Usage{InputTokens: 1240, OutputTokens: 85, CostUsd: 0.0042}, Took: 1830, First: 210, Tries: 1,
			BeganAt: timestamppb.New(epoch), EndedAt: timestamppb.New(epoch), Response: `{"message":{"role":"assistant","blocks":[` + blocks + `]}}`,
			Choice: `{"by":"policy","policy":"ucb","model":"fast","passed":[{"model":"large","reason":"needs 80 GB of memory"}]}`,
			Parts:  []*api.PromptPart{{Name: "system", Bytes: 900}, {Name: "tools", Bytes: 2100}, {Name: "messages", Bytes: 1960}},
			Prompt: `{"system":"You write reports.","messages":[{"role":"user","blocks":[{"kind":"text","text":"Write <b>the</b> report."}]}],"tools":[{"name":"read_file"}]}`,
		}
	}
	tool := func(n, of int32, name string) *api.Call {
		return &api.Call{Step: path, N: n, Of: of, Kind: "tool", State: "finished", Agent: "writer", Name: name, Effect: "pure", Request: `{"path":"notes.md"}`, Took: 12}
	}
	read, refund := tool(2, 1, "read_file"), tool(4, 3, "refund")
	read.Response = `{"content":[{"kind":"text","text":"` + strings.Repeat("A line of the notes. ", 60) + `"}]}`
	refund.State, refund.Approval, refund.Request, refund.Effect = "asked", approvalID(40), `{"order":7,"amount":120}`, "at_most_once"
	edited := tool(5, 3, "mail")
	edited.Decision, edited.DecidedBy, edited.Comment, edited.Edited = "approve", "ann", "to me first", true
	edited.Response = `{"content":[{"kind":"text","text":"sent"}]}`
	return []*api.Call{
		model(1, 0, `{"kind":"reasoning","text":"First the notes."},{"kind":"text","text":"I will read the notes <script>."},{"kind":"tool_use","tool_use":{"id":"a","name":"read_file"}}`),
		read, model(3, 1, `{"kind":"text","text":"Now I refund."}`), refund, edited,
	}
}

func demoMinds(f *fake) *minds {
	return &minds{
		f: f,
		models: []*api.Model{
			{Name: "fast", Provider: "openai", Available: true, Breaker: "closed", Price: &api.ModelPrice{Input: 0.15, Output: 0.6}, Statistics: &api.ModelStatistics{Calls: 1204, Failures: 3, MeanReward: 0.91, MeanSeconds: 1.4, CostUsd: 3.2}},
			{Name: "large", Provider: "local", Reason: "needs 80 GB of memory, the host has 16", Breaker: "open", Statistics: &api.ModelStatistics{}},
		},
		tools: []*api.Tool{
			{Name: "read_file", Set: "filesystem", Description: "Reads a file of the workspace.", Effect: "pure", Schema: `{"type":"object","properties":{"path":{"type":"string"}}}`},
			{Name: "ask_human", Description: "Asks people.", Human: true, Effect: "idempotent", Schema: `{"type":"object"}`},
		},
		budgets: []*api.Budget{{Scope: "day", Name: "2026-01-31", Limit: &api.BudgetAmount{Usd: 5}, Spent: &api.BudgetAmount{Usd: 3.2, Tokens: 20400}, Held: &api.BudgetAmount{Usd: 0.1}}},
	}
}

// agentRun adds a run whose agent is at work.
func (f *fake) agentRun(n int) *story {
	s := f.begin(n, "support", &api.Graph{Width: 200, Height: 80, Nodes: []*api.GraphNode{{Id: "answer", Label: "answer", Kind: "agent", Action: "agent", X: 16, Y: 16, Width: 160, Height: 44}}}, "id: support\n")
	s.start(epoch)
	s.step("answer", api.Step_RUNNING, epoch, func(st *api.Step) {
		st.Kind, st.Action, st.Model = "agent", "agent", "fast"
		st.Usage = &api.Usage{InputTokens: 2480, OutputTokens: 170, CostUsd: 0.0084}
	})
	for _, c := range conversation("answer") {
		s.recorded(c)
	}
	s.f.mu.Lock()
	s.f.approvals = append(s.f.approvals, &api.Approval{
		Id: approvalID(40), RunId: s.run.Id, Pipeline: "support", Path: "answer", Kind: "tool", Question: "The agent writer wants to call refund",
		Status: "open", CreatedAt: timestamppb.New(epoch), Allowed: []string{"approve", "reject", "answer"}, OnTimeout: "reject", Default: `{"order":7,"amount":120}`, Scope: "writer/refund",
	}, &api.Approval{
		Id: approvalID(41), RunId: s.run.Id, Pipeline: "support", Path: "answer", Kind: "budget", Question: "The budget of the run is spent: $2.00 of $2.00",
		Status: "open", CreatedAt: timestamppb.New(epoch), Allowed: []string{"approve", "reject"}, OnTimeout: "reject",
	})
	s.f.mu.Unlock()
	return s
}
