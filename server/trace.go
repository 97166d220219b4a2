package server

import (
	"context"
	"net/http"
	"slices"
	"strings"

	"go.opentelemetry.io/contrib/instrumentation/google.golang.org/grpc/otelgrpc"
	"go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/stats"
)

// w3c is how callers tell their place in a trace: by the headers traceparent and
// tracestate. What they start goes on in their trace.
var w3c propagation.TraceContext

// within is ctx with the caller's place in a trace, unless it has one already.
func within(ctx context.Context, c propagation.TextMapCarrier) context.Context {
	if trace.SpanContextFromContext(ctx).IsValid() {
		return ctx
	}
	return w3c.Extract(ctx, c)
}

// incoming are the headers of a call.
type incoming struct{ ctx context.Context } //nolint:containedctx // it is what they are read from

func (c incoming) Get(key string) string {
	if v := metadata.ValueFromIncomingContext(c.ctx, key); len(v) > 0 {
		return v[0]
	}
	return ""
}

func (incoming) Set(string, string) {}
func (incoming) Keys() []string     { return nil }

// outgoing are the headers that the gateway sends.
type outgoing metadata.MD

func (c outgoing) Get(key string) string { return strings.Join(metadata.MD(c).Get(key), ",") }
func (c outgoing) Set(key, value string) { metadata.MD(c).Set(key, value) }
func (outgoing) Keys() []string          { return nil }

// reading is how the names of calls begin that change nothing, or go on for long.
var reading = []string{"Connect", "Diff", "DryRun", "Explain", "Export", "Fetch", "Get", "List", "Preview", "Read", "Validate", "Watch", "Why"}

// traces has calls recorded that change something, as spans.
func (s *Server) traces() []grpc.ServerOption {
	if s.cfg.Traces == nil {
		return nil
	}
	return []grpc.ServerOption{grpc.StatsHandler(otelgrpc.NewServerHandler(
		otelgrpc.WithTracerProvider(s.cfg.Traces), otelgrpc.WithPropagators(w3c),
		otelgrpc.WithFilter(func(call *stats.RPCTagInfo) bool {
			name := call.FullMethodName[strings.LastIndexByte(call.FullMethodName, '/')+1:]
			return !slices.ContainsFunc(reading, func(begins string) bool { return strings.HasPrefix(name, begins) })
		}),
	))}
}

// traced has requests recorded that change something, as spans.
func (s *Server) traced(route string, h http.HandlerFunc) http.Handler {
	if s.cfg.Traces == nil {
		return h
	}
	return otelhttp.NewHandler(h, route,
		otelhttp.WithTracerProvider(s.cfg.Traces), otelhttp.WithPropagators(w3c),
		otelhttp.WithFilter(func(r *http.Request) bool { return changes(r.Method) }),
		otelhttp.WithSpanNameFormatter(func(_ string, r *http.Request) string { return r.Method + " " + route }),
	)
}
