//go:build unix

package main_test

import (
	"context"
	"encoding/hex"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"

	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	"google.golang.org/grpc"
)

// spans is a collector of traces.
type spans struct {
	collector.UnimplementedTraceServiceServer

	mu    sync.Mutex
	names []string
	of    map[string]bool // the traces that they belong to
	from  string          // who sent them
}

func (s *spans) Export(_ context.Context, r *collector.ExportTraceServiceRequest) (*collector.ExportTraceServiceResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, res := range r.GetResourceSpans() {
		for _, a := range res.GetResource().GetAttributes() {
			s.from += a.GetKey() + "=" + a.GetValue().GetStringValue() + " "
		}
		for _, scope := range res.GetScopeSpans() {
			for _, span := range scope.GetSpans() {
				s.names = append(s.names, span.GetName())
				s.of[hex.EncodeToString(span.GetTraceId())] = true
			}
		}
	}
	return &collector.ExportTraceServiceResponse{}, nil
}

func collect(t *testing.T) (*spans, string) {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &spans{of: map[string]bool{}}
	srv := grpc.NewServer()
	collector.RegisterTraceServiceServer(srv, s)
	var serving sync.WaitGroup
	serving.Go(func() { _ = srv.Serve(l) }) // it ends when the test does
	t.Cleanup(func() { srv.Stop(); serving.Wait() })
	return s, "http://" + l.Addr().String()
}

// A run of the command line belongs to the trace of who has called it, and all its
// spans have arrived when it ends; without a collector, nobody is told anything.
func TestTracesReachTheCollector(t *testing.T) {
	s, at := collect(t)
	const place = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	home := t.TempDir()
	file := save(t, "id: traced\nsteps:\n- {id: a, run: 'echo $TRACEPARENT'}\n- {id: b, action: debug, parameters: {value: '{{ a }}'}}\n", home, "traced.yaml")
	for _, env := range [][]string{
		{"ORCHESTRATOR_MONITORING_TRACING_ENDPOINT=" + at},
		{"OTEL_EXPORTER_OTLP_ENDPOINT=" + at, "OTEL_SERVICE_NAME=ours"},
		{"OTEL_EXPORTER_OTLP_ENDPOINT=" + at, "OTEL_SDK_DISABLED=true"},
		nil,
	} {
		s.mu.Lock()
		s.names, s.of, s.from = nil, map[string]bool{}, ""
		s.mu.Unlock()
		code, out, errs := run(t, launch{args: []string{"run", file}, home: home, env: append([]string{"TRACEPARENT=" + place}, env...)})
		if code != 0 || strings.Contains(errs, "traces") {
			t.Fatalf("exit %d\n%s\n%s", code, out, errs)
		}
		s.mu.Lock()
		slices.Sort(s.names)
		got := strings.Join(s.names, ", ")
		if len(env) == 0 || slices.Contains(env, "OTEL_SDK_DISABLED=true") {
			if got != "" {
				t.Errorf("%v: although it is off, there are %s", env, got)
			}
		} else if want := "orchestrator.v1.Runs/CreateRun, run traced, step a, step b"; got != want || len(s.of) != 1 || !s.of["0af7651916cd43dd8448eb211c80319c"] {
			t.Errorf("%v: the spans are %s of %v, want %s", env, got, s.of, want)
		}
		if slices.Contains(env, "OTEL_SERVICE_NAME=ours") && !strings.Contains(s.from, "service.name=ours ") {
			t.Errorf("they come from %s", s.from)
		}
		s.mu.Unlock()
	}
}
