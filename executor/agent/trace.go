package agent

import (
	"context"
	"strings"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	semconv "go.opentelemetry.io/otel/semconv/v1.41.0" // the last one that has gen_ai
	"go.opentelemetry.io/otel/trace"

	"github.com/orchestrator-project/orchestrator/executor"
	"github.com/orchestrator-project/orchestrator/executor/model"
	"github.com/orchestrator-project/orchestrator/executor/tool"
	"github.com/orchestrator-project/orchestrator/pipeline"
)

// maxContent bounds an attribute that tells what was said, in bytes.
const maxContent = 64 << 10

// ownProvider is the provider of agents that no model has answered.
const ownProvider = "orchestrator"

// run takes turns until there is an answer, within a span.
func (l *loop) run(ctx context.Context) (any, error) {
	if !executor.Traced(ctx) {
		return l.turns(ctx)
	}
	attrs := []attribute.KeyValue{semconv.GenAIOperationNameInvokeAgent, semconv.GenAIAgentName(l.agent.Name)}
	if l.model != "" {
		attrs = append(attrs, semconv.GenAIRequestModel(l.model))
	}
	if l.env.TraceContent && l.system != "" {
		attrs = append(attrs, semconv.GenAISystemInstructionsKey.String(l.content(l.system)))
	}
	ctx, span := executor.StartSpan(ctx, "invoke_agent "+l.agent.Name, trace.SpanKindInternal, attrs...)
	v, err := l.turns(ctx)
	provider := ownProvider
	if l.provider != "" {
		provider = model.TraceProvider(l.provider)
	}
	span.SetAttributes(semconv.GenAIProviderNameKey.String(provider), attribute.Int("orchestrator.agent.turns", l.turn))
	if l.answered != "" {
		span.SetAttributes(semconv.GenAIResponseModel(l.answered))
	}
	executor.EndSpan(span, l.env, err)
	return v, err
}

// execute calls the tool, within a span.
func (l *loop) execute(ctx context.Context, c *call) (tool.Result, error) {
	if !executor.Traced(ctx) {
		return l.invoke(ctx, c)
	}
	kind := "function"
	if _, _, remote := pipeline.MCPTool(c.tool.Name); remote {
		kind = "extension"
	}
	attrs := []attribute.KeyValue{
		semconv.GenAIOperationNameExecuteTool, semconv.GenAIToolName(c.tool.Name), semconv.GenAIToolType(kind), semconv.GenAIToolCallID(c.use.ID),
		attribute.Int("orchestrator.call", int(c.inv.N)),
	}
	if l.env.TraceContent {
		attrs = append(attrs, semconv.GenAIToolCallArgumentsKey.String(l.content(string(pipeline.EncodeValue(c.args)))))
	}
	ctx, span := executor.StartSpan(ctx, "execute_tool "+c.tool.Name, trace.SpanKindInternal, attrs...)
	r, err := l.invoke(ctx, c)
	if r.Failed && err == nil {
		span.SetAttributes(semconv.ErrorTypeKey.String("tool_failed"))
		span.SetStatus(codes.Error, "")
	}
	if l.env.TraceContent {
		var texts []string
		for i := range r.Content {
			texts = append(texts, r.Content[i].Text)
		}
		span.SetAttributes(semconv.GenAIToolCallResultKey.String(l.content(strings.Join(texts, "\n"))))
	}
	executor.EndSpan(span, l.env, err)
	return r, err
}

// content is a text as an attribute, without the step's secrets.
func (l *loop) content(text string) string {
	if l.env.Redact != nil {
		text = l.env.Redact(text)
	}
	return clipped(text, maxContent)
}
