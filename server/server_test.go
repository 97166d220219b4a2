package server

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"testing"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/orchestrator-project/orchestrator/pipeline"
	orchestratorv1 "github.com/orchestrator-project/orchestrator/proto/orchestrator/v1"
	"github.com/orchestrator-project/orchestrator/store"
)

// remote is a gRPC client over the port that everything shares.
func (f *fixture) remote() *grpc.ClientConn {
	f.t.Helper()
	c, err := grpc.NewClient(strings.TrimPrefix(f.url, "http://"), grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallSendMsgSize(64<<20)))
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() { c.Close() })
	return c
}

// details are the parts of an error that programs use.
func details(err error) (reason string, fields []string, diags *orchestratorv1.Diagnostics, retry bool) {
	for _, d := range status.Convert(err).Details() {
		switch d := d.(type) {
		case *errdetails.ErrorInfo:
			reason = d.GetReason()
		case *errdetails.BadRequest:
			for _, v := range d.GetFieldViolations() {
				fields = append(fields, v.GetField()+" "+v.GetReason())
			}
		case *orchestratorv1.Diagnostics:
			diags = d
		case *errdetails.RetryInfo:
			retry = true
		}
	}
	return reason, fields, diags, retry
}

func TestOnePortSpeaksGRPCToo(t *testing.T) {
	f := start(t)
	c := orchestratorv1.NewRunsClient(f.remote())
	run, err := c.CreateRun(t.Context(), &orchestratorv1.CreateRunRequest{Source: hello, Inputs: `{"name": "Ada"}`})
	if err != nil {
		t.Fatal(err)
	}
	stream, err := c.WatchRun(t.Context(), &orchestratorv1.WatchRunRequest{Id: run.GetId()})
	if err != nil {
		t.Fatal(err)
	}
	f.engine.steps(pipeline.RunID(run.GetId()), 0, 300)
	f.engine.finish(pipeline.RunID(run.GetId()))
	n := int32(0)
	for {
		e, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if n++; e.GetSeq() != n {
			t.Fatalf("event %d, want %d", e.GetSeq(), n)
		}
	}
	if n != 603 {
		t.Errorf("%d events", n)
	}
	_, err = c.GetRun(t.Context(), &orchestratorv1.GetRunRequest{Id: string(pipeline.NewRunID())})
	if reason, _, _, _ := details(err); status.Code(err) != codes.NotFound || reason != "run_not_found" {
		t.Errorf("unknown run: %v %s", err, reason)
	}
	_, err = c.CreateRun(t.Context(), &orchestratorv1.CreateRunRequest{Source: strings.Repeat("x", 41<<20)})
	if status.Code(err) != codes.ResourceExhausted {
		t.Errorf("too large a message: %v", err)
	}
	_, err = c.CreateRun(t.Context(), &orchestratorv1.CreateRunRequest{Source: hello, Inputs: `{"name":"` + strings.Repeat("x", 1<<20) + `"}`})
	if reason, _, _, _ := details(err); status.Code(err) != codes.OutOfRange || reason != "inputs_too_large" {
		t.Errorf("too large inputs: %v %s", err, reason)
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, f.url+"/orchestrator.v1.Runs/GetRun", strings.NewReader("x"))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/grpc")
	resp, err := f.client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusNotFound {
		t.Errorf("gRPC by HTTP/1.1: %s", resp.Status)
	}
}

func TestBrokenPipelinesSayWhere(t *testing.T) {
	f := start(t)
	broken := "steps:\n  - id: a\n    id: b\n"
	_, err := f.runs().CreateRun(t.Context(), &orchestratorv1.CreateRunRequest{Source: broken, File: "x.yaml"})
	reason, fields, diags, _ := details(err)
	if status.Code(err) != codes.InvalidArgument || reason != "invalid_pipeline" || len(fields) == 0 || diags == nil || len(diags.GetDiagnostics()) == 0 {
		t.Fatalf("%v: %s %v %v", err, reason, fields, diags)
	}
	if d := diags.GetDiagnostics()[0]; d.GetFile() != "x.yaml" || d.GetLine() != 3 || !strings.HasPrefix(fields[0], fmt.Sprintf("%d:%d %s", d.GetLine(), d.GetColumn(), d.GetCode())) {
		t.Errorf("%v, fields %v", d, fields)
	}
	body := string(pipeline.EncodeValue(map[string]any{"source": broken}))
	e := f.refused(400, "invalid_pipeline", "POST", "/v1/runs", body)
	if len(e.Error.Diagnostics) == 0 || len(e.Error.Details) == 0 {
		t.Errorf("%+v", e)
	}
	code, _, text := f.do("POST", "/v1/pipelines:validate", body)
	if code != 200 {
		t.Errorf("validate: %d %s", code, text)
	}
	conforms(t, "ValidatePipelineResponse", text)
	if list, ok := object(t, text)["diagnostics"].([]any); !ok || len(list) == 0 {
		t.Errorf("validate: %s", text)
	}
	bomb := "a: &a [x,x,x,x,x,x,x,x,x]\n"
	for c := 'b'; c < 'k'; c++ {
		bomb += fmt.Sprintf("%c: &%c [%s]\n", c, c, strings.TrimSuffix(strings.Repeat("*"+string(c-1)+",", 9), ","))
	}
	f.refused(400, "invalid_pipeline", "POST", "/v1/runs", string(pipeline.EncodeValue(map[string]any{"source": bomb + "steps: []\n"})))
	if n := len(f.engine.subs); n != 0 {
		t.Errorf("%d submissions", n)
	}
}

func TestPipelinesAreRegisteredAndRun(t *testing.T) {
	f := start(t)
	code, _, text := f.do("POST", "/v1/pipelines", string(pipeline.EncodeValue(map[string]any{"source": hello, "file": "hello.yaml"})))
	if code != 200 {
		t.Fatalf("%d %s", code, text)
	}
	conforms(t, "Pipeline", text)
	p := object(t, text)
	if p["id"] != "hello" || p["version"] != "1.0.0" || p["created_at"] == nil || p["source"] != hello || p["example"] != "orchestrator run hello.yaml" {
		t.Errorf("created: %s", text)
	}
	// The same again changes nothing; another text under the same version does not pass.
	if code, _, text := f.do("POST", "/v1/pipelines", string(pipeline.EncodeValue(map[string]any{"source": hello, "file": "hello.yaml"}))); code != 200 {
		t.Errorf("again: %d %s", code, text)
	}
	other := strings.Replace(hello, "hello {{", "bye {{", 1)
	if code, _, text := f.do("POST", "/v1/pipelines", string(pipeline.EncodeValue(map[string]any{"source": other}))); code != 409 {
		t.Errorf("other text: %d %s", code, text)
	}
	next := strings.Replace(other, "1.0.0", "1.1.0", 1)
	if code, _, text := f.do("POST", "/v1/pipelines", string(pipeline.EncodeValue(map[string]any{"source": next}))); code != 200 {
		t.Errorf("next version: %d %s", code, text)
	}
	for path, component := range map[string]string{
		"/v1/pipelines":                     "ListPipelinesResponse",
		"/v1/pipelines/hello":               "Pipeline",
		"/v1/pipelines/hello?version=1.0.0": "Pipeline",
		"/v1/pipelines/hello/versions":      "ListVersionsResponse",
	} {
		code, _, text := f.do("GET", path, "")
		if code != 200 {
			t.Errorf("%s: %d %s", path, code, text)
		}
		conforms(t, component, text)
	}
	run, err := f.runs().CreateRun(t.Context(), &orchestratorv1.CreateRunRequest{Pipeline: "hello", Version: "1.0.0"})
	if err != nil || run.GetPipeline() != "hello" || run.GetVersion() != "1.0.0" || !strings.Contains(run.GetInputs(), `"name":"world"`) {
		t.Errorf("run of a version: %v %v", run, err)
	}
	run, err = f.runs().CreateRun(t.Context(), &orchestratorv1.CreateRunRequest{Pipeline: "hello"})
	if err != nil || run.GetVersion() != "1.1.0" {
		t.Errorf("run of the newest: %v %v", run, err)
	}
	def, err := f.runs().GetDefinition(t.Context(), &orchestratorv1.GetDefinitionRequest{Id: run.GetId()})
	if err != nil || def.GetSource() != next || def.GetPlanDigest() != run.GetPlanDigest() {
		t.Errorf("definition: %v %v", def, err)
	}
	graph, err := f.runs().GetGraph(t.Context(), &orchestratorv1.GetGraphRequest{Id: run.GetId()})
	if err != nil || len(graph.GetNodes()) != 1 || graph.GetWidth() <= 0 {
		t.Errorf("graph: %v %v", graph, err)
	}
	for path, code := range map[string]int{"/v1/pipelines/none": 404, "/v1/pipelines/hello?version=9": 404, "/v1/pipelines/none/versions": 404} {
		if got, _, text := f.do("GET", path, ""); got != code {
			t.Errorf("%s: %d %s", path, got, text)
		}
	}
	explained, err := orchestratorv1.NewPipelinesClient(f.srv.Client()).ExplainPipeline(t.Context(), &orchestratorv1.ExplainPipelineRequest{Source: hello})
	if err != nil || explained.GetSteps() != 1 || len(explained.GetInputs()) != 1 || explained.GetInputs()[0].GetDefault() != `"world"` || explained.GetMermaid() == "" {
		t.Errorf("explain: %v %v", explained, err)
	}
}

func TestInputsAreCheckedBeforeAnythingIsStored(t *testing.T) {
	f := start(t)
	source := "inputs:\n  depth: {type: integer}\nsteps:\n  - {id: a, set: {x: \"{{ inputs.depth }}\"}}\n"
	_, err := f.runs().CreateRun(t.Context(), &orchestratorv1.CreateRunRequest{Source: source, Inputs: `{"depth": "deep", "dept": 1}`})
	reason, fields, _, _ := details(err)
	if status.Code(err) != codes.InvalidArgument || reason != "invalid_inputs" || strings.Join(fields, ", ") != "depth E0502, dept E0502" {
		t.Errorf("%v, %s, fields %v", err, reason, fields)
	}
	for _, inputs := range []string{"[1]", "7", `"x"`} {
		_, err := f.runs().CreateRun(t.Context(), &orchestratorv1.CreateRunRequest{Source: source, Inputs: inputs})
		if status.Code(err) != codes.InvalidArgument {
			t.Errorf("%s: %v", inputs, err)
		}
	}
	if n := len(f.engine.subs); n != 0 {
		t.Errorf("%d submissions", n)
	}
}

func TestIdempotencyKeys(t *testing.T) {
	f := start(t)
	body := func(name string) string {
		return string(pipeline.EncodeValue(map[string]any{"source": hello, "inputs": map[string]any{"name": name}, "idempotency_key": "k1"}))
	}
	_, _, first := f.do("POST", "/v1/runs", body("a"))
	code, _, again := f.do("POST", "/v1/runs", body("a"))
	if code != 200 || object(t, first)["id"] != object(t, again)["id"] {
		t.Errorf("again: %d %s; first %s", code, again, first)
	}
	f.refused(409, "idempotency_key_used", "POST", "/v1/runs", body("b"))
}

func TestAPipelineIsCompiledOnce(t *testing.T) {
	var mu sync.Mutex
	asked := 0
	f := start(t, func(c *Config) {
		c.Catalog = func() pipeline.Catalog {
			mu.Lock()
			defer mu.Unlock()
			asked++
			return testCatalog()
		}
	})
	a, err := f.srv.compile(t.Context(), "", hello, nil)
	if err != nil {
		t.Fatal(err)
	}
	b, err := f.srv.compile(t.Context(), "", hello, nil)
	if err != nil || a != b || asked != 2 {
		t.Errorf("compiled again: %v", err)
	}
	c, err := f.srv.compile(t.Context(), "other.yaml", hello, nil)
	if err != nil || c == a {
		t.Errorf("another file name gave the same: %v", err)
	}
}

func TestCancelLeavesAMessageUntilTheRunHasFinished(t *testing.T) {
	f := start(t)
	id := f.create()
	code, _, text := f.do("POST", "/v1/runs/"+string(id)+":cancel", "")
	if code != 200 || object(t, text)["id"] != string(id) {
		t.Errorf("%d %s", code, text)
	}
	messages, err := f.st.Inbox(t.Context(), []pipeline.RunID{id})
	if err != nil || len(messages) != 1 || messages[0].Kind != "cancel" {
		t.Errorf("inbox: %v %v", messages, err)
	}
	f.engine.finish(id)
	if code, _, text := f.do("POST", "/v1/runs/"+string(id)+":cancel", "{}"); code != 409 {
		t.Errorf("after the end: %d %s", code, text)
	}
	if code, _, text := f.do("POST", "/v1/runs/"+string(pipeline.NewRunID())+":cancel", "{}"); code != 404 {
		t.Errorf("unknown: %d %s", code, text)
	}
}

func TestLogsAreFollowedUntilTheRunHasFinished(t *testing.T) {
	f := start(t)
	id := f.create()
	n := int32(0)
	write := func(path pipeline.Path, text string) {
		t.Helper()
		n++
		if err := f.st.AppendLogs(t.Context(), []store.LogChunk{{Run: id, Path: path, Attempt: 1, N: n, At: id.Time(), Stream: "stdout", Text: text}}); err != nil {
			t.Fatal(err)
		}
		f.st.Ring(store.Bell{Logs: []pipeline.RunID{id}})
	}
	for i := range 5 {
		write("a", fmt.Sprint(i))
	}
	stream, err := f.runs().ReadLogs(t.Context(), &orchestratorv1.ReadLogsRequest{Id: string(id), Step: "a", Follow: true, Tail: 2})
	if err != nil {
		t.Fatal(err)
	}
	expect := func(want string) {
		t.Helper()
		line, err := stream.Recv()
		if err != nil || line.GetText() != want {
			t.Errorf("got %v %v, want %s", line, err, want)
		}
	}
	expect("3")
	expect("4")
	write("b", "of another step")
	write("a", "5")
	expect("5")
	write("a", "6")
	f.engine.finish(id)
	expect("6")
	if line, err := stream.Recv(); !errors.Is(err, io.EOF) {
		t.Errorf("after the end: %v %v", line, err)
	}
}

// broken fails where a test wants it to.
type broken struct{ *spy }

func (broken) Run(context.Context, pipeline.RunID) (*pipeline.Run, error) {
	return nil, errors.New("dial tcp 10.1.2.3:5432: password secret refused")
}

func (broken) Runs(context.Context, store.Query) (store.Page, error) { panic("secret state") }

func (broken) Pipelines(context.Context, string, int) ([]store.Pipeline, error) {
	return nil, &pipeline.Error{Kind: pipeline.Unavailable, Text: "the database is away", Err: errors.New("secret")}
}

func TestCausesStayInside(t *testing.T) {
	var log syncBuffer
	f := start(t, func(c *Config) {
		c.Logger = slog.New(slog.NewTextHandler(&log, nil))
		s, ok := c.Store.(*spy)
		if !ok {
			t.Fatal("not a spy")
		}
		c.Store = broken{s}
	})
	id := string(pipeline.NewRunID())
	for _, path := range []string{"/v1/runs/" + id, "/v1/runs"} {
		code, h, text := f.do("GET", path, "")
		rid := h.Get("X-Request-Id")
		if code != 500 || strings.Contains(text, "secret") || strings.Contains(text, "10.1.2.3") || !strings.Contains(text, rid) {
			t.Errorf("%s: %d %s", path, code, text)
		}
		if rid == "" || !strings.Contains(log.String(), "request="+rid) || !strings.Contains(log.String(), "secret") {
			t.Errorf("%s: the log does not tell the cause of %s: %s", path, rid, log.String())
		}
	}
	code, h, text := f.do("GET", "/v1/pipelines", "")
	if code != 503 || h.Get("Retry-After") != "1" || strings.Contains(text, "secret") || !strings.Contains(text, `"retry_after":1`) {
		t.Errorf("away: %d %v %s", code, h, text)
	}
}

// syncBuffer is a buffer for several goroutines.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

func TestReadinessIsTheEnginesToo(t *testing.T) {
	var why error
	f := start(t, func(c *Config) { c.Ready = func(context.Context) error { return why } })
	if code, _, text := f.do("GET", "/readyz", ""); code != 200 {
		t.Errorf("readyz: %d %s", code, text)
	}
	why = &pipeline.Error{Kind: pipeline.Unavailable, Reason: "no_lane", Text: "no lane yet"}
	if code, _, text := f.do("GET", "/readyz", ""); code != 503 || !strings.Contains(text, `"engine: no lane yet"`) {
		t.Errorf("readyz without a lane: %d %s", code, text)
	}
}

func TestHealthReadinessMetricsAndDocs(t *testing.T) {
	f := start(t)
	if code, _, text := f.do("GET", "/healthz", "", "Host", "10.9.8.7"); code != 200 || text != "{\"status\":\"ok\"}\n" {
		t.Errorf("healthz: %d %s", code, text)
	}
	for range 5 {
		if code, _, text := f.do("GET", "/readyz", "", "Host", "pod"); code != 200 {
			t.Errorf("readyz: %d %s", code, text)
		}
	}
	if n := f.st.pings.Load(); n > 2 {
		t.Errorf("%d pings for 5 questions within a second", n)
	}
	f.st.away.Store(true)
	f.srv.health.mu.Lock()
	f.srv.health.at = f.srv.health.at.Add(-pingKept) // the answer has grown old
	f.srv.health.mu.Unlock()
	code, _, text := f.do("GET", "/readyz", "")
	if code != 503 || !strings.Contains(text, "the database is away") || strings.Contains(text, "secret") {
		t.Errorf("readyz of a store that is away: %d %s", code, text)
	}
	id := f.create()
	f.engine.finish(id)
	w := f.watch(t.Context(), id, 0)
	w.until(3)
	w.next()
	_, _, text = f.do("GET", "/metrics", "")
	for _, want := range []string{
		`orchestrator_api_requests_total{code="OK",method="CreateRun"} 1`,
		`orchestrator_api_request_seconds_count{method="CreateRun"} 1`,
		`orchestrator_watched_runs_finished_total{status="COMPLETED"} 1`,
		`orchestrator_watched_events_total{type="run_finished"} 1`,
		`orchestrator_http_requests_total{code="503",route="/readyz"} 1`,
		`orchestrator_hub_runs 1`, `orchestrator_build_info{version="test"} 1`, "go_goroutines",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("metrics lack %s:\n%s", want, text)
		}
	}
	code, h, text := f.do("GET", "/openapi.json", "")
	if code != 200 || h.Get("Content-Type") != "application/json" || object(t, text)["openapi"] != "3.1.0" {
		t.Errorf("openapi.json: %d %v", code, h)
	}
	code, h, text = f.do("GET", "/docs", "")
	if code != 200 || !strings.Contains(text, "POST /v1/runs/{id}:cancel") || !strings.Contains(text, "idempotency_key") ||
		strings.Contains(text, "<script") || !strings.Contains(h.Get("Content-Security-Policy"), "default-src 'none'") {
		t.Errorf("docs: %d %v", code, h)
	}
}

func TestTheDashboardGetsTheOtherPaths(t *testing.T) {
	f := start(t)
	h := f.srv.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/broken" {
			panic("secret")
		}
		fmt.Fprint(w, "page ", r.URL.Path)
	}))
	get := func(path string) *recorder {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://localhost"+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		rec := &recorder{header: http.Header{}}
		h.ServeHTTP(rec, req)
		return rec
	}
	if r := get("/runs/1"); r.body.String() != "page /runs/1" || r.header.Get("X-Content-Type-Options") != "nosniff" {
		t.Errorf("%s %v", r.body.String(), r.header)
	}
	if r := get("/broken"); r.code != 500 || strings.Contains(r.body.String(), "secret") {
		t.Errorf("%d %s", r.code, r.body.String())
	}
}

type recorder struct {
	header http.Header
	code   int
	body   bytes.Buffer
}

func (r *recorder) Header() http.Header         { return r.header }
func (r *recorder) WriteHeader(code int)        { r.code = code }
func (r *recorder) Write(b []byte) (int, error) { return r.body.Write(b) }

func TestAnIdleServerLeavesTheStoreAlone(t *testing.T) {
	f := start(t)
	id := f.create()
	w := f.watch(t.Context(), id, 0)
	w.until(2)
	if _, err := f.runs().GetRun(t.Context(), &orchestratorv1.GetRunRequest{Id: string(id)}); err != nil {
		t.Fatal(err)
	}
	readings, pings := f.st.readings.Load(), f.st.pings.Load()
	// Bells of other runs wake nobody.
	for range 100 {
		f.st.Ring(store.Bell{Runs: []pipeline.RunID{pipeline.NewRunID()}})
	}
	f.engine.steps(id, 0, 1)
	w.until(4)
	if n := f.st.readings.Load() - readings; n > 3 {
		t.Errorf("%d readings for one bell", n)
	}
	if n := f.st.pings.Load() - pings; n != 0 {
		t.Errorf("%d pings that nobody asked for", n)
	}
}

func TestProfilesAreServedOnlyWhereTheyShallBe(t *testing.T) {
	for _, on := range []bool{false, true} {
		f := start(t, func(c *Config) { c.Profiling = on })
		resp, err := f.client.Get(f.url + "/debug/pprof/heap") //nolint:noctx // of this test
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if got := resp.StatusCode == http.StatusOK && resp.Header.Get("Content-Type") == "application/octet-stream"; got != on {
			t.Errorf("profiling %v: %s %s", on, resp.Status, resp.Header.Get("Content-Type"))
		}
	}
}
