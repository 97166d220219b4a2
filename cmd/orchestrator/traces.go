package main

import (
	"context"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	semconv "go.opentelemetry.io/otel/semconv/v1.41.0"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc/metadata"

	"github.com/orchestrator-project/orchestrator/executor"
)

// flushTime is how long a process that ends waits for a collector to take its
// last spans.
const flushTime = 5 * time.Second

// traces is where spans go; nil: tracing is off. What the settings leave open,
// the standard OTEL_ variables say.
func (h *house) traces(ctx context.Context, p plan) (trace.TracerProvider, error) {
	if p.env == nil || !p.lanes {
		return nil, nil //nolint:nilnil // off
	}
	m := p.cfg.Monitoring
	variable := func(name string) string { v, _ := p.env(name); return v }
	on := m.TracingEnabled || m.TracingEndpoint != "" || variable("OTEL_EXPORTER_OTLP_ENDPOINT")+variable("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") != ""
	if !on || variable("OTEL_SDK_DISABLED") == "true" || variable("OTEL_TRACES_EXPORTER") == "none" {
		return nil, nil //nolint:nilnil // off
	}
	var opts []otlptracegrpc.Option
	if at := m.TracingEndpoint; at != "" {
		if !strings.Contains(at, "://") {
			at = "http://" + at
		}
		opts = append(opts, otlptracegrpc.WithEndpointURL(at))
	} else if variable("OTEL_EXPORTER_OTLP_ENDPOINT")+variable("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") == "" {
		opts = append(opts, otlptracegrpc.WithEndpointURL("http://localhost:4317"))
	}
	exporter, err := otlptracegrpc.New(ctx, opts...)
	if err != nil {
		return nil, &failure{code: exitInvalid, what: "cannot send traces to monitoring.tracing_endpoint", why: err.Error(), fix: []string{"write it like http://127.0.0.1:4317"}}
	}
	own := resource.NewSchemaless(semconv.ServiceName("orchestrator"), semconv.ServiceVersion(version))
	if p.cfg.Environment != "" {
		if own, err = resource.Merge(own, resource.NewSchemaless(semconv.DeploymentEnvironmentNameKey.String(p.cfg.Environment))); err != nil {
			return nil, err
		}
	}
	said, err := resource.New(ctx, resource.WithFromEnv()) // OTEL_SERVICE_NAME, OTEL_RESOURCE_ATTRIBUTES
	if err == nil {
		own, err = resource.Merge(own, said)
	}
	if err != nil {
		return nil, &failure{code: exitInvalid, what: "cannot read OTEL_RESOURCE_ATTRIBUTES", why: err.Error()}
	}
	provider := sdktrace.NewTracerProvider(sdktrace.WithBatcher(exporter), sdktrace.WithResource(own), sdktrace.WithIDGenerator(executor.SpanIDs{}))
	otel.SetErrorHandler(otel.ErrorHandlerFunc(func(err error) { p.log.Warn("traces not sent", slog.Any("err", err)) }))
	h.stops = append(h.stops, func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), flushTime)
		defer cancel()
		if err := provider.Shutdown(ctx); err != nil {
			p.log.Warn("the last traces are lost", "err", err)
		}
	})
	return provider, nil
}

// placed tells services their place in the trace of the call.
type placed struct{ http.RoundTripper }

// RoundTrip adds the headers traceparent and tracestate, where there is a trace.
func (p placed) RoundTrip(req *http.Request) (*http.Response, error) {
	if trace.SpanContextFromContext(req.Context()).IsValid() {
		ctx := req.Context()
		req = req.Clone(ctx)
		propagation.TraceContext{}.Inject(ctx, propagation.HeaderCarrier(req.Header))
	}
	return p.RoundTripper.RoundTrip(req)
}

// placed is ctx with the place in a trace that the caller of this command has
// given it, in TRACEPARENT and TRACESTATE: runs that it starts belong there.
func (c *cli) placed(ctx context.Context) context.Context {
	var place []string
	for _, name := range []string{"TRACEPARENT", "TRACESTATE"} {
		if v, ok := c.env(name); ok && v != "" {
			place = append(place, strings.ToLower(name), v)
		}
	}
	return metadata.AppendToOutgoingContext(ctx, place...)
}
