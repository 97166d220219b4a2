package executor

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"slices"
	"strings"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"

	"github.com/orchestrator-project/orchestrator/pipeline"
)

// traceScope names what makes the spans.
const traceScope = "github.com/orchestrator-project/orchestrator"

// w3c is how the place in a trace is told to others.
var w3c propagation.TraceContext

// What spans of runs and steps tell.
const (
	spanRun      = attribute.Key("orchestrator.run.id")
	spanPipeline = attribute.Key("orchestrator.pipeline")
	spanParent   = attribute.Key("orchestrator.run.parent")
	spanStep     = attribute.Key("orchestrator.step.path")
	spanAttempt  = attribute.Key("orchestrator.step.attempt")
	spanKind     = attribute.Key("orchestrator.step.kind")
	spanAction   = attribute.Key("orchestrator.step.action")
	spanStatus   = attribute.Key("orchestrator.status")
	spanError    = attribute.Key("error.type")
)

// runTrace is a run's place in a trace. All owners of a run continue the same
// one: the numbers of the trace and of the run's own span come from the run's id,
// and only the owner that sees the run end tells of that span.
type runTrace struct {
	tracer trace.Tracer
	// span is the run's; where nothing is recorded, it is the span of the submitter,
	// and is only passed on.
	span trace.Span
}

// traceOf opens a run's trace; nil: there is none.
func (e *Executor) traceOf(run *pipeline.Run, given *pipeline.Trace) *runTrace {
	if e.cfg.Traces == nil && given == nil {
		return nil
	}
	ctx := context.Background()
	if given != nil {
		ctx = w3c.Extract(ctx, propagation.MapCarrier{"traceparent": given.Parent, "tracestate": given.State})
	}
	if e.cfg.Traces == nil {
		return &runTrace{span: trace.SpanFromContext(ctx)}
	}
	t := &runTrace{tracer: e.cfg.Traces.Tracer(traceScope)}
	attrs := []attribute.KeyValue{spanRun.String(string(run.ID)), spanPipeline.String(run.Pipeline)}
	if run.ParentRun != "" {
		attrs = append(attrs, spanParent.String(string(run.ParentRun)))
	}
	ctx = context.WithValue(ctx, ownSpan{}, run.ID)
	_, t.span = t.tracer.Start(ctx, "run "+run.Pipeline, trace.WithTimestamp(run.CreatedAt), trace.WithAttributes(attrs...))
	return t
}

// place is where a child of the run belongs.
func (t *runTrace) place() *pipeline.Trace {
	if t == nil {
		return nil
	}
	return placeOf(t.span.SpanContext())
}

// placeIn is the place of a context; nil: it has none.
func placeIn(ctx context.Context) *pipeline.Trace { return placeOf(trace.SpanContextFromContext(ctx)) }

func placeOf(sc trace.SpanContext) *pipeline.Trace {
	if !sc.IsValid() {
		return nil
	}
	c := propagation.MapCarrier{}
	w3c.Inject(trace.ContextWithSpanContext(context.Background(), sc), c)
	return &pipeline.Trace{Parent: c["traceparent"], State: c["tracestate"]}
}

// end tells of a run that is over.
func (t *runTrace) end(run *pipeline.Run) {
	if t == nil || t.tracer == nil {
		return
	}
	t.span.SetAttributes(spanStatus.String(string(run.Status)))
	switch f := run.Error; {
	case run.Status == pipeline.RunCompleted:
	case f != nil:
		t.span.SetAttributes(spanError.String(errorType(f)))
		t.span.SetStatus(codes.Error, f.Message) // it is recorded without secrets
	default:
		t.span.SetAttributes(spanError.String(string(run.Status)))
		t.span.SetStatus(codes.Error, run.Reason)
	}
	t.span.End(trace.WithTimestamp(run.FinishedAt))
}

// traced gives the attempt its place in the run's trace, and its span; nil:
// nothing is recorded.
func (j *job) traced(ctx context.Context) (context.Context, trace.Span) {
	t := j.r.trace
	if t == nil {
		return ctx, nil
	}
	ctx = trace.ContextWithSpan(ctx, t.span)
	var span trace.Span
	if t.span.IsRecording() {
		def := j.task.Def
		attrs := []attribute.KeyValue{
			spanRun.String(string(j.env.Run)), spanStep.String(string(j.env.Path)), spanAttempt.Int(int(j.env.Attempt)), spanKind.String(string(def.Kind)),
		}
		if j.work.key != "" {
			attrs = append(attrs, spanAction.String(j.work.key))
		}
		ctx, span = t.tracer.Start(ctx, "step "+plainPath(j.env.Path), trace.WithAttributes(attrs...))
	}
	if len(j.env.Environ) > 0 && !slices.ContainsFunc(j.task.Def.Env, func(e pipeline.Entry) bool { return e.Name == traceParent }) {
		j.env.Environ = TraceEnviron(ctx, j.env.Environ)
	}
	return ctx, span
}

// Traced reports whether somebody records what happens within ctx.
func Traced(ctx context.Context) bool { return trace.SpanFromContext(ctx).IsRecording() }

// StartSpan begins a span within that of ctx. Ask Traced first: where nothing is
// recorded, nobody should pay for a name and attributes.
func StartSpan(ctx context.Context, name string, kind trace.SpanKind, attrs ...attribute.KeyValue) (context.Context, trace.Span) {
	return trace.SpanFromContext(ctx).TracerProvider().Tracer(traceScope).
		Start(ctx, name, trace.WithSpanKind(kind), trace.WithAttributes(attrs...))
}

// EndSpan ends a span of a step's. An error is told without the step's secrets. A
// step that is laid down until people have decided has not failed.
func EndSpan(span trace.Span, env Env, err error) {
	defer span.End()
	var kind string
	if err == nil {
		return
	}
	if _, waits := errors.AsType[*Suspension](err); waits {
		span.SetAttributes(spanStatus.String(string(pipeline.StepWaiting)))
		return
	}
	switch {
	case errors.Is(err, ErrJournal), errors.Is(err, errFenced), errors.Is(err, errStopped):
		kind = "owner_lost"
	case errors.Is(err, context.Canceled), errors.Is(err, errCancelled):
		kind = string(pipeline.CategoryCancelled)
	default:
		kind = errorType(asFailure(err))
	}
	text := err.Error()
	if env.Redact != nil {
		text = env.Redact(text)
	}
	span.SetAttributes(spanError.String(kind))
	span.SetStatus(codes.Error, text)
}

func errorType(f *pipeline.Failure) string {
	if f.Reason != "" {
		return f.Reason
	}
	return f.Kind
}

// The variables by which a process learns its place in a trace.
const (
	traceParent = "TRACEPARENT"
	traceState  = "TRACESTATE"
)

// TraceEnviron is an environment with the place of ctx in its trace, in the
// variables TRACEPARENT and TRACESTATE. Where ctx has none, it is environ itself.
func TraceEnviron(ctx context.Context, environ []string) []string {
	t := placeIn(ctx)
	if t == nil {
		return environ
	}
	own := slices.DeleteFunc(slices.Clone(environ), func(kv string) bool {
		name, _, _ := strings.Cut(kv, "=")
		return name == traceParent || name == traceState
	})
	own = append(own, traceParent+"="+t.Parent)
	if t.State != "" {
		own = append(own, traceState+"="+t.State)
	}
	return own
}

// ownSpan is the key of the run whose own span begins with a context.
type ownSpan struct{}

// SpanIDs numbers traces and spans, as the IDGenerator of a tracer provider:
// those of a run by its id, so that all its owners say the same, and others at
// random.
type SpanIDs struct{}

// NewIDs implements sdktrace.IDGenerator.
func (SpanIDs) NewIDs(ctx context.Context) (t trace.TraceID, s trace.SpanID) {
	if id, ok := ctx.Value(ownSpan{}).(pipeline.RunID); ok {
		sum := sha256.Sum256([]byte(id))
		copy(t[:], sum[:])
		copy(s[:], sum[len(t):])
		return t, s
	}
	_, _ = rand.Read(t[:]) // it never fails
	_, _ = rand.Read(s[:])
	return t, s
}

// NewSpanID implements sdktrace.IDGenerator.
func (i SpanIDs) NewSpanID(ctx context.Context, _ trace.TraceID) (s trace.SpanID) {
	_, s = i.NewIDs(ctx)
	return s
}
