package model

import (
	"context"
	"errors"
	"net/url"
	"strconv"
	"strings"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	semconv "go.opentelemetry.io/otel/semconv/v1.41.0" // the last one that has gen_ai
	"go.opentelemetry.io/otel/trace"

	"github.com/orchestrator-project/orchestrator/executor"
	"github.com/orchestrator-project/orchestrator/pipeline"
)

// maxContent bounds an attribute that tells what was said, in bytes.
const maxContent = 64 << 10

// operation is what a provider is asked to do, as OpenTelemetry calls it.
func operation(provider string) string {
	if provider == ProviderGoogle {
		return semconv.GenAIOperationNameGenerateContent.Value.AsString()
	}
	return semconv.GenAIOperationNameChat.Value.AsString()
}

// TraceProvider is a provider as OpenTelemetry calls it.
func TraceProvider(name string) string {
	if name == ProviderGoogle {
		return semconv.GenAIProviderNameGCPGemini.Value.AsString()
	}
	return name
}

// services are where providers are reached that have no address of their own.
var services = map[string]string{
	ProviderAnthropic: "api.anthropic.com", ProviderOpenAI: "api.openai.com", ProviderGoogle: "generativelanguage.googleapis.com",
}

// traced begins the span of one request to a provider; nil: nothing is recorded.
func (c *call) traced(ctx context.Context, t *target, q *Request) (context.Context, trace.Span) {
	if !executor.Traced(ctx) {
		return ctx, nil
	}
	op := operation(t.Provider)
	attrs := []attribute.KeyValue{
		semconv.GenAIOperationNameKey.String(op), semconv.GenAIProviderNameKey.String(TraceProvider(t.Provider)),
		semconv.GenAIRequestStream(true),
		attribute.Int("orchestrator.call", int(c.n)), attribute.Int("orchestrator.call.try", c.tries),
	}
	if q.Model != "" {
		attrs = append(attrs, semconv.GenAIRequestModel(q.Model))
	}
	if q.MaxTokens > 0 {
		attrs = append(attrs, semconv.GenAIRequestMaxTokens(int(q.MaxTokens)))
	}
	if q.Temperature != nil {
		attrs = append(attrs, semconv.GenAIRequestTemperature(*q.Temperature))
	}
	if q.Schema != nil {
		attrs = append(attrs, semconv.GenAIOutputTypeJSON)
	} else {
		attrs = append(attrs, semconv.GenAIOutputTypeText)
	}
	if q.Agent != "" {
		attrs = append(attrs, semconv.GenAIAgentName(q.Agent))
	}
	attrs = append(attrs, address(t)...)
	if c.env.TraceContent {
		if q.System != "" {
			attrs = append(attrs, semconv.GenAISystemInstructionsKey.String(c.content([]any{map[string]any{"type": "text", "content": c.blotted(q.System)}})))
		}
		attrs = append(attrs, semconv.GenAIInputMessagesKey.String(c.content(c.spoken(q.Messages))))
	}
	return executor.StartSpan(ctx, strings.TrimSpace(op+" "+q.Model), trace.SpanKindClient, attrs...)
}

// address is where a target is reached.
func address(t *target) []attribute.KeyValue {
	host, port := services[t.Provider], 443
	if u, err := url.Parse(t.endpoint.BaseURL); err == nil && u.Hostname() != "" {
		host = u.Hostname()
		if u.Scheme == "http" {
			port = 80
		}
		if n, err := strconv.Atoi(u.Port()); err == nil {
			port = n
		}
	}
	if host == "" {
		return nil
	}
	return []attribute.KeyValue{semconv.ServerAddress(host), semconv.ServerPort(port)}
}

// told tells how a request ended, to its span and to the metrics.
func (c *call) told(span trace.Span, t *target, a *Response, err error, took time.Duration) {
	c.router.met.generated(t, a, err, took)
	if span == nil {
		return
	}
	defer span.End()
	if err != nil {
		text := err.Error()
		span.SetAttributes(semconv.ErrorTypeKey.String(errorClass(err)))
		span.SetStatus(codes.Error, c.blotted(text))
		return
	}
	attrs := []attribute.KeyValue{semconv.GenAIResponseModel(a.Model)}
	if a.Stop != "" {
		attrs = append(attrs, semconv.GenAIResponseFinishReasons(finishReason(a.Stop)))
	}
	if u := a.Usage; u != nil {
		attrs = append(attrs, semconv.GenAIUsageInputTokens(int(u.InputTokens)), semconv.GenAIUsageOutputTokens(int(u.OutputTokens)))
		if u.CachedTokens > 0 {
			attrs = append(attrs, semconv.GenAIUsageCacheReadInputTokens(int(u.CachedTokens)))
		}
		if u.CacheWriteTokens > 0 {
			attrs = append(attrs, semconv.GenAIUsageCacheCreationInputTokens(int(u.CacheWriteTokens)))
		}
		if u.ReasoningTokens > 0 {
			attrs = append(attrs, semconv.GenAIUsageReasoningOutputTokens(int(u.ReasoningTokens)))
		}
	}
	if c.first > 0 && c.tries == 1 {
		attrs = append(attrs, semconv.GenAIResponseTimeToFirstChunk(c.first.Seconds()))
	}
	if c.env.TraceContent {
		said := c.spoken([]Message{{Role: Assistant, Blocks: a.Message.Blocks}})
		if m, ok := said[0].(map[string]any); ok {
			m["finish_reason"] = finishReason(a.Stop)
		}
		attrs = append(attrs, semconv.GenAIOutputMessagesKey.String(c.content(said)))
	}
	span.SetAttributes(attrs...)
}

// finishReason is why an answer ended, as OpenTelemetry calls it.
func finishReason(stop string) string {
	switch stop {
	case StopEnd:
		return "stop"
	case StopTools:
		return "tool_call"
	case StopMaxTokens:
		return "length"
	case StopFiltered:
		return "content_filter"
	}
	return stop
}

func errorClass(err error) string {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Class
	}
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return ClassCancelled
	}
	return "_OTHER"
}

func (c *call) blotted(text string) string {
	if c.env.Redact == nil {
		return text
	}
	return c.env.Redact(text)
}

// content is a value as an attribute, without the step's secrets.
func (c *call) content(v any) string {
	text := c.blotted(string(pipeline.EncodeValue(v)))
	if len(text) > maxContent {
		text = strings.ToValidUTF8(text[:maxContent], "") + "..."
	}
	return text
}

// spoken are messages in the form that OpenTelemetry has for them. What is no text
// is only named.
func (c *call) spoken(messages []Message) []any {
	list := make([]any, 0, len(messages))
	for _, m := range messages {
		parts := []any{}
		for _, b := range m.Blocks {
			part := map[string]any{"type": b.Kind}
			switch {
			case b.ToolUse != nil:
				part = map[string]any{"type": "tool_call", "id": b.ToolUse.ID, "name": b.ToolUse.Name, "arguments": c.blotted(b.ToolUse.Arguments)}
			case b.ToolResult != nil:
				var texts []string
				for _, in := range b.ToolResult.Content {
					texts = append(texts, c.blotted(in.Text))
				}
				part = map[string]any{"type": "tool_call_response", "id": b.ToolResult.ID, "response": strings.Join(texts, "\n")}
			case b.Text != "":
				part["content"] = c.blotted(b.Text)
			}
			parts = append(parts, part)
		}
		list = append(list, map[string]any{"role": string(m.Role), "parts": parts})
	}
	return list
}
