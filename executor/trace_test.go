package executor_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.opentelemetry.io/otel/codes"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"

	"github.com/orchestrator-project/orchestrator/executor"
	"github.com/orchestrator-project/orchestrator/pipeline"
	"github.com/orchestrator-project/orchestrator/store/storetest"
)

// recorder keeps the spans of one process.
func recorder(t testing.TB) (*tracetest.InMemoryExporter, func(*executor.Config)) {
	t.Helper()
	kept := tracetest.NewInMemoryExporter()
	p := sdktrace.NewTracerProvider(sdktrace.WithSyncer(kept), sdktrace.WithIDGenerator(executor.SpanIDs{}))
	t.Cleanup(func() { _ = p.Shutdown(context.Background()) })
	return kept, func(c *executor.Config) { c.Traces = p }
}

// spanTree is a line for each span, children below their parents, in the order in
// which they began.
func spanTree(spans tracetest.SpanStubs) string {
	slices.SortStableFunc(spans, func(a, b tracetest.SpanStub) int { return a.StartTime.Compare(b.StartTime) })
	known := map[trace.SpanID]bool{}
	for _, s := range spans {
		known[s.SpanContext.SpanID()] = true
	}
	var b strings.Builder
	var below func(parent trace.SpanID, indent string)
	below = func(parent trace.SpanID, indent string) {
		for _, s := range spans {
			p := s.Parent.SpanID()
			if p != parent && (parent.IsValid() || known[p]) {
				continue
			}
			b.WriteString(indent + s.Name)
			for _, a := range s.Attributes {
				if k := string(a.Key); k == "orchestrator.step.attempt" || k == "error.type" {
					b.WriteString(" " + k[strings.LastIndexByte(k, '.')+1:] + "=" + a.Value.String())
				}
			}
			if s.Status.Code == codes.Error {
				b.WriteString(" failed")
			}
			b.WriteString("\n")
			below(s.SpanContext.SpanID(), indent+"  ")
		}
	}
	below(trace.SpanID{}, "")
	return b.String()
}

// ended waits for the span of a run, which is told once its end is durable.
func (e *engine) ended(kept *tracetest.InMemoryExporter, n int) tracetest.SpanStubs {
	e.t.Helper()
	e.await("the spans of runs", func() bool {
		had := 0
		for _, s := range kept.GetSpans() {
			if strings.HasPrefix(s.Name, "run ") {
				had++
			}
		}
		return had == n
	})
	return kept.GetSpans()
}

func remoteCaller() (context.Context, trace.SpanContext) {
	state, _ := trace.ParseTraceState("vendor=x1")
	sc := trace.NewSpanContext(trace.SpanContextConfig{
		TraceID: trace.TraceID{7, 1}, SpanID: trace.SpanID{9}, TraceFlags: trace.FlagsSampled, TraceState: state, Remote: true,
	})
	return trace.ContextWithRemoteSpanContext(context.Background(), sc), sc
}

func TestRunsAreTraced(t *testing.T) {
	kept, traced := recorder(t)
	e := start(t, storetest.Open(t), func(_ context.Context, env executor.Env, do string) (any, error) {
		if do == "fail once" && env.Attempt == 1 {
			return nil, pipeline.Failuref(pipeline.CategorySystem, "not yet")
		}
		return do, nil
	}, traced, func(c *executor.Config) {
		c.Secret = func(string) (string, bool) { return "hunter2-hunter2", true }
	})
	caller, sc := remoteCaller()
	run, err := e.Submit(caller, e.submission(`
id: report
secrets: [TOKEN]
steps:
- {id: a, action: probe, with: {do: fail once}, retry: {max_attempts: 2, initial: 0.001}}
- {id: b, for: {items: [1, 2]}, action: probe, with: {do: '{{ a.result }}{{ item }}'}, dependencies: [a]}
- {id: c, run: 'echo $TRACEPARENT $TRACESTATE', dependencies: [b]}
- {id: d, detach: true, pipeline: {id: below, steps: [{id: in, action: probe, with: {do: x}}]}, dependencies: [c]}
- {id: e, run: 'echo "refused: $TOKEN" >&2; exit 3', secrets: [TOKEN], dependencies: [d]}
`, nil))
	if err != nil {
		t.Fatal(err)
	}
	_, v := e.wait(run.ID)
	spans := e.ended(kept, 2)
	want := `run report type=exit_code failed
  step a attempt=1 type=system failed
  step a attempt=2
  step b attempt=1
  step b attempt=1
  step c attempt=1
  run below
    step in attempt=1
  step e attempt=1 type=exit_code failed
`
	if got := spanTree(spans); got != want {
		t.Errorf("the spans are\n%swant\n%s", got, want)
	}
	var c tracetest.SpanStub
	for _, s := range spans {
		if s.SpanContext.TraceID() != sc.TraceID() {
			t.Errorf("%s is in another trace", s.Name)
		}
		switch s.Name {
		case "run report":
			if s.Parent.SpanID() != sc.SpanID() || !s.EndTime.After(s.StartTime) {
				t.Errorf("the run's span is %+v", s)
			}
		case "step c":
			c = s
		}
		if text := fmt.Sprintf("%+v", s); strings.Contains(text, "hunter2") {
			t.Errorf("a secret stands in %s", text)
		}
	}
	if got, want := fmt.Sprint(v.Step("c").Output), fmt.Sprintf("00-%s-%s-01 vendor=x1", c.SpanContext.TraceID(), c.SpanContext.SpanID()); !strings.Contains(got, want) {
		t.Errorf("the command was told %q, want %q", got, want)
	}
}

// A run that gets another owner stays one trace with one span of the run.
func TestNewOwnerContinuesTheTrace(t *testing.T) {
	dsn := storetest.Postgres(t)
	lost, through := startProxy(t, dsn)
	hang := atomic.Bool{}
	hang.Store(true)
	stuck := make(chan struct{}, 1)
	first, traced := recorder(t)
	one := start(t, openPostgres(t, through, briefLease), func(ctx context.Context, _ executor.Env, do string) (any, error) {
		if hang.Load() && do == "4x" {
			stuck <- struct{}{}
			<-ctx.Done()
			return nil, ctx.Err()
		}
		return do, nil
	}, traced, func(c *executor.Config) { c.TTL = briefLease; c.Grace = 50 * time.Millisecond })
	id := one.submit(tenSteps, nil)
	<-stuck
	lost.cut(true)
	hang.Store(false)
	second, traced := recorder(t)
	two := start(t, openPostgres(t, dsn, briefLease), nil, traced, func(c *executor.Config) { c.TTL = briefLease })
	two.wait(id)
	two.ended(second, 1)
	one.stop()
	spans := append(first.GetSpans(), second.GetSpans()...)
	var root trace.SpanContext
	for _, s := range spans {
		if strings.HasPrefix(s.Name, "run ") {
			if root.IsValid() {
				t.Error("the run has two spans")
			}
			root = s.SpanContext
		}
	}
	for _, s := range spans {
		if s.SpanContext.TraceID() != root.TraceID() || s.SpanContext.SpanID() != root.SpanID() && s.Parent.SpanID() != root.SpanID() {
			t.Errorf("%s does not belong to the run's span", s.Name)
		}
	}
	if len(spans) < 11 {
		t.Errorf("there are %d spans of 10 steps", len(spans))
	}
}

// Where nothing is recorded, steps pass their caller's place in a trace on, and
// nothing more.
func TestPlaceInATraceIsPassedOnWhereNothingIsRecorded(t *testing.T) {
	heard := make(chan http.Header, 2)
	service := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { heard <- r.Header }))
	defer service.Close()
	e := start(t, storetest.Open(t), nil)
	caller, sc := remoteCaller()
	src := "steps:\n- {id: a, action: http, with: {url: '" + service.URL + "'}}"
	run, err := e.Submit(caller, e.submission(src, nil))
	if err != nil {
		t.Fatal(err)
	}
	e.wait(run.ID)
	if h, want := <-heard, fmt.Sprintf("00-%s-%s-01", sc.TraceID(), sc.SpanID()); h.Get("Traceparent") != want || h.Get("Tracestate") != "vendor=x1" {
		t.Errorf("the service heard %q %q, want %q", h.Get("Traceparent"), h.Get("Tracestate"), want)
	}
	e.wait(e.submit(src, nil))
	if h := <-heard; h.Get("Traceparent") != "" {
		t.Errorf("without a trace, the service heard %q", h.Get("Traceparent"))
	}
}

func TestWorkersContinueTheTrace(t *testing.T) {
	kept, traced := recorder(t)
	e := start(t, storetest.Open(t), nil, traced)
	gpu := hire(t, e, pipeline.Worker{Name: "gpu", Labels: []string{"gpu"}}).welcomed()
	id := e.submit(onGPU, nil)
	a := gpu.assigned()
	gpu.finish(a, "trained")
	gpu.acknowledged(a.Token)
	e.wait(id)
	for _, s := range e.ended(kept, 1) {
		if want := fmt.Sprintf("00-%s-%s-01", s.SpanContext.TraceID(), s.SpanContext.SpanID()); s.Name == "step train" && a.Env["TRACEPARENT"] != want {
			t.Errorf("the worker was told %q, want %q", a.Env["TRACEPARENT"], want)
		}
	}
}

// A span of a step that people have to decide about has not failed.
func TestSpansOfWhatEndedOtherwise(t *testing.T) {
	kept := tracetest.NewInMemoryExporter()
	p := sdktrace.NewTracerProvider(sdktrace.WithSyncer(kept))
	for _, c := range []struct {
		err  error
		kind string
	}{
		{&executor.Suspension{}, ""},
		{context.Canceled, "cancelled"},
		{executor.ErrJournal, "owner_lost"},
		{&pipeline.Failure{Kind: pipeline.CategoryModel, Reason: "model_rate_limit"}, "model_rate_limit"},
		{errors.New("x"), "unknown"},
	} {
		kept.Reset()
		_, span := p.Tracer("").Start(t.Context(), "x")
		executor.EndSpan(span, executor.Env{}, c.err)
		s := kept.GetSpans()[0]
		got := ""
		for _, a := range s.Attributes {
			if a.Key == "error.type" {
				got = a.Value.AsString()
			}
		}
		if got != c.kind || (s.Status.Code == codes.Error) != (c.kind != "") {
			t.Errorf("%v: %q %v", c.err, got, s.Status)
		}
	}
	if err := p.Shutdown(context.Background()); err != nil {
		t.Fatal(err)
	}
}

// A thousand steps that do nothing: what a step costs without and with traces.
func BenchmarkSteps(b *testing.B) {
	for _, c := range []struct {
		name   string
		change func(*executor.Config)
	}{
		{"off", func(*executor.Config) {}},
		{"on", func(c *executor.Config) {
			c.Traces = sdktrace.NewTracerProvider(sdktrace.WithIDGenerator(executor.SpanIDs{}))
		}},
	} {
		b.Run(c.name, func(b *testing.B) {
			e := start(b, storetest.Open(b), nil, c.change)
			b.ReportAllocs()
			for b.Loop() {
				e.wait(e.submit("steps:\n- {id: a, for: {items: '{{ range(1000) }}'}, action: probe, with: {do: x}}", nil))
			}
		})
	}
}
