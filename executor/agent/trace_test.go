package agent_test

import (
	"context"
	"slices"
	"strings"
	"testing"

	"go.opentelemetry.io/otel/codes"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"

	"github.com/orchestrator-project/orchestrator/executor"
	"github.com/orchestrator-project/orchestrator/executor/model"
	"github.com/orchestrator-project/orchestrator/executor/tool"
	"github.com/orchestrator-project/orchestrator/pipeline"
)

// shown is a line for each span below parent, with what the conventions demand.
func shown(spans tracetest.SpanStubs, parent trace.SpanID, indent string) string {
	slices.SortStableFunc(spans, func(a, b tracetest.SpanStub) int { return a.StartTime.Compare(b.StartTime) })
	var b strings.Builder
	for _, s := range spans {
		if s.Parent.SpanID() != parent {
			continue
		}
		b.WriteString(indent + s.Name)
		for _, want := range []string{"gen_ai.operation.name", "gen_ai.provider.name", "gen_ai.usage.input_tokens", "error.type"} {
			for _, a := range s.Attributes {
				if string(a.Key) == want {
					b.WriteString(" " + a.Value.String())
				}
			}
		}
		if s.Status.Code == codes.Error {
			b.WriteString(" failed")
		}
		b.WriteString("\n" + shown(spans, s.SpanContext.SpanID(), indent+"  "))
	}
	return b.String()
}

// An agent that asks another one, uses tools, and whose model fails once: one tree.
func TestAgentsAreTraced(t *testing.T) {
	kept := tracetest.NewInMemoryExporter()
	provider := sdktrace.NewTracerProvider(sdktrace.WithSyncer(kept))
	defer func() { _ = provider.Shutdown(context.Background()) }()
	troubled := false
	s := newStage(t, func(r *model.Request) (*model.Response, error) {
		switch {
		case r.Agent == "helper":
			return says("Helped.")
		case r.Turn == 0:
			return wants("look", `{"x":"hunter2"}`)
		case r.Turn == 1:
			return wants("helper", `{"prompt":"Help."}`, "break", `{}`)
		case !troubled:
			troubled = true
			return nil, &model.Error{Class: model.ClassOverloaded, Status: 529, Message: "busy: hunter2"}
		}
		return says("Done: hunter2.")
	},
		tool.Tool{Name: "look", Effect: pipeline.EffectPure, Run: func(_ context.Context, env executor.Env, _ tool.Call) (tool.Result, error) {
			return tool.Text("It says hunter2."), nil
		}},
		tool.Tool{Name: "break", Effect: pipeline.EffectPure, Run: func(context.Context, executor.Env, tool.Call) (tool.Result, error) {
			return tool.Result{Failed: true, Content: []model.Block{{Kind: model.BlockText, Text: "broken"}}}, nil
		}},
	)
	s.agent.Agents = []pipeline.Agent{{Name: "helper"}}
	s.agent.Limits.Parallel = 1 // so that the spans have an order
	s.redact = func(text string) string { return strings.ReplaceAll(text, "hunter2", "***") }
	const want = `invoke_agent worker invoke_agent script
  chat chat script 10
  execute_tool look execute_tool
  chat chat script 10
  execute_tool helper execute_tool
    invoke_agent helper invoke_agent script
      chat chat script 10
  execute_tool break execute_tool tool_failed failed
  chat chat script overloaded failed
  chat chat script 10
`
	for _, content := range []bool{false, true} {
		kept.Reset()
		troubled, s.events, s.content = false, nil, content
		ctx, root := provider.Tracer("").Start(t.Context(), "step")
		if _, err := s.run(ctx); err != nil {
			t.Fatal(err)
		}
		root.End()
		if got := shown(kept.GetSpans(), root.SpanContext().SpanID(), ""); got != want {
			t.Errorf("the spans are\n%swant\n%s", got, want)
		}
		all := ""
		for _, span := range kept.GetSpans() {
			all += span.Status.Description + "\n"
			for _, a := range span.Attributes {
				all += a.Value.String() + "\n"
			}
		}
		if strings.Contains(all, "hunter2") {
			t.Errorf("a secret stands in the spans: %s", all)
		}
		for _, said := range []string{"Do it.", "It says ***.", "Done: ***.", `{"x":"***"}`} {
			if strings.Contains(all, said) != content {
				t.Errorf("content %v: %q stands there: %v", content, said, !content)
			}
		}
	}
	// An attempt that finds everything in its journal calls nobody.
	kept.Reset()
	ctx, root := provider.Tracer("").Start(t.Context(), "step")
	if _, err := s.run(ctx); err != nil {
		t.Fatal(err)
	}
	root.End()
	if got := shown(kept.GetSpans(), root.SpanContext().SpanID(), ""); strings.Contains(got, "chat") || !strings.Contains(got, "invoke_agent") {
		t.Errorf("what was recorded is done again:\n%s", got)
	}
}
