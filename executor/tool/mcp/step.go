package mcp

import (
	"context"
	"errors"
	"fmt"

	"go.opentelemetry.io/otel/attribute"
	semconv "go.opentelemetry.io/otel/semconv/v1.41.0" // the last one that has gen_ai
	"go.opentelemetry.io/otel/trace"

	"github.com/orchestrator-project/orchestrator/executor"
	"github.com/orchestrator-project/orchestrator/executor/tool"
	"github.com/orchestrator-project/orchestrator/pipeline"
)

// reasonTool is the reason of a step whose tool there is not.
const reasonTool = "unknown_tool"

// Action is a tool of a server as the action of a step; it is what
// executor.Config.Remote wants. effect is what the step says; empty: as the tool
// does.
func (p *Pool) Action(key string, effect pipeline.Effect) *executor.Action {
	server, remote, ok := pipeline.MCPTool(key)
	if !ok {
		return nil
	}
	return &executor.Action{
		// What may run once is looked after by the step itself, which knows the tool's
		// effect only when it is connected.
		Spec:      pipeline.ActionSpec{Key: key, Name: key, Open: true, Effect: pipeline.EffectIdempotent, Returns: pipeline.Type{Kind: "any"}},
		Workspace: true, Journal: true,
		Bind: func(params map[string]any) (executor.Runner, error) {
			return &step{pool: p, key: key, server: server, remote: remote, effect: effect, args: params}, nil
		},
	}
}

// step calls one tool.
type step struct {
	pool                *Pool
	key, server, remote string
	effect              pipeline.Effect
	args                map[string]any
}

// Run calls the tool, unless an earlier attempt has. A call that may run once and
// may have been made is people's to decide about.
func (s *step) Run(ctx context.Context, env executor.Env) (executor.Output, error) {
	past := s.past(env.Journal)
	if past.finished != nil {
		return executor.Output{Value: past.finished.Response}, nil
	}
	if past.begun != nil && past.begun.Effect == pipeline.EffectAtMostOnce {
		if out, over, err := s.decided(env, past); over {
			return out, err
		}
	}
	if env.Unit == nil || env.Agent == nil {
		return executor.Output{}, pipeline.Failuref(pipeline.CategorySystem, "tools of MCP servers can be called only where their pipeline is known")
	}
	resolved, err := s.pool.named(s.server, env.Unit, env.Agent.Text, env.Secret)
	if err != nil {
		return executor.Output{}, err
	}
	set, err := s.pool.Connect(ctx, env, "", []Server{resolved})
	if err != nil {
		return executor.Output{}, err
	}
	defer set.Close()
	return s.call(ctx, env, set, past.begun)
}

func missing(format string, args ...any) *pipeline.Failure {
	f := pipeline.Failuref(pipeline.CategoryValidation, format, args...)
	f.Reason = reasonTool
	return f
}

// call makes the call. begun is what an earlier attempt has recorded of it; nil:
// nothing.
func (s *step) call(ctx context.Context, env executor.Env, set *Set, begun *pipeline.Invocation) (executor.Output, error) {
	m, l := set.listed(s.server, s.remote)
	if l == nil {
		return executor.Output{}, missing("the tool %s cannot be called: %s", s.key, set.Why(s.server, s.remote))
	}
	if wrong := l.arguments(s.args); wrong != "" {
		return executor.Output{}, pipeline.Failuref(pipeline.CategoryValidation, "the parameters do not fit the tool %s: %s", s.key, wrong)
	}
	inv := pipeline.Invocation{Name: s.key, Effect: s.effect, Request: any(s.args)}
	if inv.Effect == "" {
		inv.Effect = l.effect
	}
	if begun != nil {
		inv.N = begun.N
	} else {
		inv.N = env.Journal.Next()
	}
	record := func(state string) error {
		e := inv
		e.State = state
		return env.Journal.Append(ctx, pipeline.Event{Type: pipeline.ToolCalled, Data: pipeline.Data{Call: &e}})
	}
	if inv.Effect == pipeline.EffectAtMostOnce { // it must be known to have begun before it can have an effect
		if err := record(pipeline.InvocationStarted); err != nil {
			return executor.Output{}, err
		}
	}
	var span trace.Span
	if executor.Traced(ctx) {
		ctx, span = executor.StartSpan(ctx, "execute_tool "+s.key, trace.SpanKindInternal, semconv.GenAIOperationNameExecuteTool,
			semconv.GenAIToolName(s.key), semconv.GenAIToolType("extension"), attribute.Int("orchestrator.call", int(inv.N)))
	}
	r, value, err := set.run(ctx, m, l, env, tool.Call{
		N: inv.N, ID: s.key, Arguments: s.args, Key: env.IdempotencyKey(), Again: begun != nil,
		Progress: func(text string) {
			if env.Log != nil {
				env.Log("system", text)
			}
		},
		Ask: func(ctx context.Context, question string, schema map[string]any) (*pipeline.Decision, error) {
			a := &pipeline.Approval{ID: pipeline.NewApprovalID(), Kind: pipeline.ApprovalAsk, Question: question, OnTimeout: "fail"}
			if schema != nil {
				a.Schema = &pipeline.Type{Kind: "any", Schema: any(schema)}
			}
			return env.Journal.Ask(ctx, a, inv)
		},
	})
	if span != nil {
		executor.EndSpan(span, env, err)
	}
	if f, ok := errors.AsType[*pipeline.Failure](err); ok && inv.Effect == pipeline.EffectAtMostOnce && (f.Reason == reasonLost || f.Reason == reasonSilent) {
		if env.Log != nil {
			env.Log("system", f.Message+"\n")
		}
		_, _, err = s.decided(env, known{begun: &inv})
	}
	if err != nil {
		return executor.Output{}, err
	}
	if r.Failed {
		text := said(r)
		if text == "" {
			text = "it does not say why"
		}
		return executor.Output{Value: value}, failure("tool_failed", "the tool %s reports failure: %s", s.key, shownText(text))
	}
	if inv.Effect == pipeline.EffectAtMostOnce {
		inv.Response = value
		if err := record(pipeline.InvocationFinished); err != nil {
			return executor.Output{}, err
		}
	}
	return executor.Output{Value: value}, nil
}

// known is what earlier attempts have recorded of the call.
type known struct {
	begun, finished *pipeline.Invocation
	asked           pipeline.ApprovalID // about a call that may have been made
}

func (s *step) past(j *executor.Journal) known {
	var k known
	for _, e := range j.Events() {
		c := e.Data.Call
		if e.Type != pipeline.ToolCalled || c == nil || c.Name != s.key {
			continue
		}
		switch {
		case c.State == pipeline.InvocationStarted:
			k.begun, k.asked = c, ""
		case c.State == pipeline.InvocationFinished && !c.Failed:
			k.finished = c
		case c.State == pipeline.InvocationAsked && c.Phase == phaseDoubt:
			k.asked = c.Approval
		}
	}
	return k
}

// phaseDoubt marks the question what became of a call.
const phaseDoubt = "doubt"

// decided acts on what people say about a call that may have been made, or asks
// them. over reports whether the attempt ends by that.
func (s *step) decided(env executor.Env, past known) (out executor.Output, over bool, err error) {
	if past.asked == "" {
		inv := *past.begun
		inv.Phase = phaseDoubt
		return out, true, &executor.Suspension{Reason: pipeline.ReasonUnknown, Asks: []executor.Asked{{
			Approval: &pipeline.Approval{
				Kind: pipeline.ApprovalDecide,
				Question: fmt.Sprintf("The process that called the tool %s is gone, or has lost the server, and the call may have had its effect. It may run only once. "+
					"Shall it run again (retry), count as done with the output that you give (done), or fail (fail)?", s.key),
			},
			Type: pipeline.ToolCalled, Call: inv,
		}}}
	}
	d := env.Journal.Decision(past.asked)
	if d == nil {
		return out, true, &executor.Suspension{Reason: pipeline.ReasonUnknown, Open: []pipeline.ApprovalID{past.asked}}
	}
	switch d.Decision {
	case "retry":
		return out, false, nil
	case "done":
		return executor.Output{Value: d.Value}, true, nil
	}
	f := failure(pipeline.ReasonUnknown, "nobody knows whether the call of %s had its effect; decided by %s", s.key, d.Actor)
	if d.Comment != "" {
		f.Message += ": " + d.Comment
	}
	return out, true, f
}

// listed finds a tool by its own name.
func (s *Set) listed(server, remote string) (member, *listed) {
	for _, m := range s.members {
		if m.server.Name != server || !m.server.allows(remote) {
			continue
		}
		for _, l := range m.session.offers() {
			if l.remote == remote {
				return m, l
			}
		}
	}
	return member{}, nil
}
