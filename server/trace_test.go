package server

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"strconv"
	"strings"
	"testing"

	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc/metadata"

	"github.com/orchestrator-project/orchestrator/pipeline"
	orchestratorv1 "github.com/orchestrator-project/orchestrator/proto/orchestrator/v1"
)

// placing notes the place in a trace at which runs are submitted.
type placing struct {
	Submitter
	at chan trace.SpanContext
}

func (p placing) Submit(ctx context.Context, sub pipeline.Submission) (*pipeline.Run, error) {
	p.at <- trace.SpanContextFromContext(ctx)
	return p.Submitter.Submit(ctx, sub)
}

const (
	callersTrace = "0af7651916cd43dd8448eb211c80319c"
	callersSpan  = "b7ad6b7169203331"
	callersPlace = "00-" + callersTrace + "-" + callersSpan + "-01"
)

// However a run is asked for, it belongs to its caller's trace; spans of requests
// are made only where somebody records them.
func TestRunsBelongToTheirCallersTrace(t *testing.T) {
	for _, on := range []bool{false, true} {
		kept := tracetest.NewInMemoryExporter()
		provider := sdktrace.NewTracerProvider(sdktrace.WithSyncer(kept))
		at := make(chan trace.SpanContext, 1)
		f := start(t, func(c *Config) {
			c.Submitter = placing{c.Submitter, at}
			c.Secret = func(string) (string, bool) { return "s", true }
			if on {
				c.Traces = provider
			}
		})
		body := `{"source": ` + quoted(hello) + `}`
		ways := map[string]func(place string){
			"REST": func(place string) {
				if code, _, text := f.do(http.MethodPost, "/v1/runs", body, "Traceparent", place, "Tracestate", "vendor=x1"); code != http.StatusOK {
					t.Fatalf("%d %s", code, text)
				}
			},
			"gRPC": func(place string) {
				ctx := metadata.AppendToOutgoingContext(t.Context(), "traceparent", place, "tracestate", "vendor=x1")
				if _, err := f.runs().CreateRun(ctx, &orchestratorv1.CreateRunRequest{Source: hello}); err != nil {
					t.Fatal(err)
				}
			},
		}
		f.register("id: hooked\non: {webhook: {secret: HOOK, scheme: github}}\nsteps:\n  - {id: a, action: debug}\n")
		deliveries := 0
		ways["webhook"] = func(place string) {
			deliveries++
			mac := hmac.New(sha256.New, []byte("s"))
			mac.Write([]byte("{}"))
			code, _, text := f.do(http.MethodPost, "/v1/hooks/hooked", "{}", "Traceparent", place, "Tracestate", "vendor=x1",
				"X-GitHub-Delivery", strconv.Itoa(deliveries), "X-Hub-Signature-256", "sha256="+hex.EncodeToString(mac.Sum(nil)))
			if code/100 != 2 {
				t.Fatalf("%d %s", code, text)
			}
		}
		for name, ask := range ways {
			kept.Reset()
			ask(callersPlace)
			sc := <-at
			if sc.TraceID().String() != callersTrace || sc.TraceState().Get("vendor") != "x1" {
				t.Errorf("%s, recorded %v: the run is at %v", name, on, sc)
			}
			if own := sc.SpanID().String() != callersSpan; own != on {
				t.Errorf("%s, recorded %v: its parent is %v", name, on, sc.SpanID())
			}
			ask("nonsense")
			if sc = <-at; sc.IsValid() != on {
				t.Errorf("%s, recorded %v: without a place the run is at %v", name, on, sc)
			}
		}
		kept.Reset()
		if code, _, _ := f.do(http.MethodGet, "/v1/runs", "", "Traceparent", callersPlace); code != http.StatusOK {
			t.Fatal(code)
		}
		if n := len(kept.GetSpans()); n != 0 {
			t.Errorf("reading makes %d spans", n)
		}
		f.stop()
		if err := provider.Shutdown(context.Background()); err != nil {
			t.Fatal(err)
		}
	}
}

func quoted(s string) string { return string(pipeline.EncodeValue(strings.TrimSpace(s))) }
