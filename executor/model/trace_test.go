package model

import (
	"context"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"

	"github.com/orchestrator-project/orchestrator/executor"
	"github.com/orchestrator-project/orchestrator/pipeline"
)

// What the conventions of OpenTelemetry want to know of a call stands in its span,
// and in metrics under the names that Prometheus has for theirs.
func TestCallsAreTold(t *testing.T) {
	registry, faults := ReadRegistry("models.yaml", []byte(`
models:
  good: {provider: google, model: gemini-x, base_url: 'http://gemini.test:8081/v1', key_env: X, capabilities: {tasks: [generate]}}
`))
	if len(faults) > 0 {
		t.Fatal(faults)
	}
	reg := prometheus.NewRegistry()
	var place trace.SpanContext
	router := NewRouter(Config{
		Registry: registry, Metrics: reg, Env: func(string) (string, bool) { return "k", true },
		Open: func(Endpoint) (Provider, error) {
			return Func(func(ctx context.Context, _ *Request) (*Response, error) {
				place = trace.SpanContextFromContext(ctx)
				return &Response{
					Message: AssistantText("Yes."), Stop: StopEnd, Model: "gemini-x-001",
					Usage: &pipeline.Usage{InputTokens: 30, OutputTokens: 4, CachedTokens: 20},
				}, nil
			}), nil
		},
	})
	kept := tracetest.NewInMemoryExporter()
	provider := sdktrace.NewTracerProvider(sdktrace.WithSyncer(kept))
	defer func() { _ = provider.Shutdown(context.Background()) }()
	ask := func(ctx context.Context) {
		t.Helper()
		q := &Request{Model: "good", MaxTokens: 100, Messages: []Message{UserText("Is it so?")}}
		if _, err := router.Ask(ctx, executor.Env{}, q); err != nil {
			t.Fatal(err)
		}
	}
	ask(t.Context())
	if n := len(kept.GetSpans()); n != 0 || place.IsValid() {
		t.Errorf("nobody records, and there are %d spans", n)
	}
	ctx, step := provider.Tracer("").Start(t.Context(), "step")
	ask(ctx)
	step.End()
	s := kept.GetSpans()[0]
	if s.Name != "generate_content gemini-x" || s.SpanKind != trace.SpanKindClient || s.SpanContext.SpanID() != place.SpanID() {
		t.Errorf("the span is %s %v", s.Name, s.SpanKind)
	}
	has := map[string]string{}
	for _, a := range s.Attributes {
		has[string(a.Key)] = a.Value.String()
	}
	for key, want := range map[string]string{
		"gen_ai.operation.name": "generate_content", "gen_ai.provider.name": "gcp.gemini", "gen_ai.request.model": "gemini-x",
		"gen_ai.response.model": "gemini-x-001", "gen_ai.response.finish_reasons": `["stop"]`, "gen_ai.request.max_tokens": "100",
		"gen_ai.usage.input_tokens": "30", "gen_ai.usage.output_tokens": "4", "gen_ai.usage.cache_read.input_tokens": "20",
		"server.address": "gemini.test", "server.port": "8081", "gen_ai.output.type": "text",
	} {
		if has[key] != want {
			t.Errorf("%s is %q, not %q", key, has[key], want)
		}
	}
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	seen := 0
	for _, f := range families {
		for _, m := range f.GetMetric() {
			var labels []string
			for _, l := range m.GetLabel() {
				labels = append(labels, l.GetName()+"="+l.GetValue())
			}
			text := strings.Join(labels, " ")
			h := m.GetHistogram()
			switch {
			case f.GetName() == "gen_ai_client_token_usage" && strings.Contains(text, "gen_ai_token_type=input"):
				seen++
				if h.GetSampleCount() != 2 || h.GetSampleSum() != 60 {
					t.Errorf("%s: %v", text, h)
				}
			case f.GetName() == "gen_ai_client_operation_duration_seconds":
				seen++
				if want := "error_type= gen_ai_operation_name=generate_content gen_ai_provider_name=gcp.gemini gen_ai_request_model=gemini-x"; text != want || h.GetSampleCount() != 2 {
					t.Errorf("%s: %v", text, h)
				}
			}
		}
	}
	if seen != 2 {
		t.Errorf("%d of the metrics are there", seen)
	}
}
