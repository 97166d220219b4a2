package server

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"iter"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/orchestrator-project/orchestrator/pipeline"
	orchestratorv1 "github.com/orchestrator-project/orchestrator/proto/orchestrator/v1"
	"github.com/orchestrator-project/orchestrator/store"
	"github.com/orchestrator-project/orchestrator/store/storetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// spy is a store that counts what is read and can lose bells or be away.
type spy struct {
	store.Store
	readings atomic.Int64 // calls of Events
	events   atomic.Int64 // events read
	deaf     atomic.Bool  // bells are lost
	away     atomic.Bool  // Ping fails
	pings    atomic.Int64
}

func (s *spy) Events(ctx context.Context, id pipeline.RunID, after int32) iter.Seq2[pipeline.Event, error] {
	s.readings.Add(1)
	return func(yield func(pipeline.Event, error) bool) {
		for e, err := range s.Store.Events(ctx, id, after) {
			s.events.Add(1)
			if !yield(e, err) {
				return
			}
		}
	}
}

func (s *spy) Listen(ctx context.Context, f func(store.Bell)) error {
	return s.Store.Listen(ctx, func(b store.Bell) {
		if !s.deaf.Load() {
			f(b)
		}
	})
}

func (s *spy) Ping(ctx context.Context) error {
	s.pings.Add(1)
	if s.away.Load() {
		return &pipeline.Error{Kind: pipeline.Unavailable, Text: "the database is away", Err: fmt.Errorf("dial 10.1.2.3: secret detail")}
	}
	return s.Store.Ping(ctx)
}

// engine stands in for the executor: it writes runs through a lane.
type engine struct {
	t  testing.TB
	st store.Store

	mu   sync.Mutex // guards what follows
	lane store.Lane
	seq  map[pipeline.RunID]int32
	runs map[pipeline.RunID]*pipeline.Run
	subs []pipeline.Submission
}

func (e *engine) Submit(ctx context.Context, sub pipeline.Submission) (*pipeline.Run, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if err := e.st.PutPlan(ctx, store.Plan{Digest: sub.PlanDigest, Source: sub.Source, Compiled: sub.Compiled, Format: sub.Plan.Format}); err != nil {
		return nil, err
	}
	run := &pipeline.Run{
		ID: pipeline.NewRunID(), Pipeline: sub.Plan.ID, Version: sub.Plan.Version, PlanDigest: sub.PlanDigest,
		Status: pipeline.RunRunning, Inputs: sub.Inputs, Labels: sub.Labels, Priority: sub.Priority,
	}
	run.CreatedAt = run.ID.Time()
	run.StartedAt = run.CreatedAt
	first := []pipeline.Event{
		{Seq: 1, Type: pipeline.RunCreated, At: run.CreatedAt},
		{Seq: 2, Type: pipeline.RunStarted, At: run.CreatedAt},
	}
	res, err := e.lane.Commit(ctx, &store.Batch{Create: []store.Create{{
		Run: run, IdempotencyKey: sub.IdempotencyKey, RequestDigest: sub.RequestDigest, Events: first,
	}}})
	if err != nil {
		return nil, err
	}
	if len(res.Creates) > 0 && res.Creates[0].Existing != "" {
		if res.Creates[0].Mismatch {
			return nil, &pipeline.Error{Kind: pipeline.Conflict, Reason: "idempotency_key_used", Text: "the idempotency key was used for another request"}
		}
		return e.st.Run(ctx, res.Creates[0].Existing)
	}
	e.seq[run.ID], e.runs[run.ID] = 2, run
	e.subs = append(e.subs, sub)
	e.st.Ring(store.Bell{Runs: []pipeline.RunID{run.ID}})
	return run, nil
}

// DryRun names the root's steps.
func (e *engine) DryRun(_ context.Context, sub pipeline.Submission) ([]pipeline.Planned, error) {
	var list []pipeline.Planned
	for _, s := range sub.Plan.Root.Steps {
		list = append(list, pipeline.Planned{Path: pipeline.Path(s.ID), Kind: s.Kind, WouldRun: "yes"})
	}
	return list, nil
}

// ask lets a run wait for people.
func (e *engine) ask(a *pipeline.Approval) {
	e.t.Helper()
	e.mu.Lock()
	defer e.mu.Unlock()
	if _, err := e.lane.Commit(context.Background(), &store.Batch{Ask: []*pipeline.Approval{a}}); err != nil {
		e.t.Errorf("ask: %v", err)
	}
}

// add appends events, numbering them, and rings.
func (e *engine) add(id pipeline.RunID, events ...pipeline.Event) {
	e.t.Helper()
	e.commit(id, nil, events)
}

func (e *engine) commit(id pipeline.RunID, finish *pipeline.Run, events []pipeline.Event) {
	e.t.Helper()
	e.mu.Lock()
	defer e.mu.Unlock()
	for i := range events {
		e.seq[id]++
		events[i].Seq = e.seq[id]
		if events[i].At.IsZero() {
			events[i].At = time.Now().UTC()
		}
	}
	b := &store.Batch{Append: []store.Append{{Run: id, Events: events}}}
	if finish != nil {
		b.Finish = []store.Finish{{Run: finish}}
	}
	if _, err := e.lane.Commit(context.Background(), b); err != nil {
		e.t.Errorf("commit: %v", err)
	}
	e.st.Ring(store.Bell{Runs: []pipeline.RunID{id}})
}

// steps adds n steps, each started and finished.
func (e *engine) steps(id pipeline.RunID, from, n int) {
	e.t.Helper()
	var events []pipeline.Event
	for i := from; i < from+n; i++ {
		path := pipeline.Path(fmt.Sprintf("loop[%d]/work", i))
		events = append(events,
			pipeline.Event{Type: pipeline.StepStarted, Path: path, Attempt: 1, Data: pipeline.Data{
				Kind: pipeline.KindAction, Action: "debug", Parameters: map[string]any{"i": int64(i)}, Worker: "w1",
			}},
			pipeline.Event{Type: pipeline.StepFinished, Path: path, Attempt: 1, Data: pipeline.Data{
				Status: pipeline.StepCompleted, Output: map[string]any{"text": strings.Repeat("x", 40), "i": int64(i)},
			}})
		if len(events) >= 4000 {
			e.add(id, events...)
			events = nil
		}
	}
	if len(events) > 0 {
		e.add(id, events...)
	}
}

// finish ends a run well.
func (e *engine) finish(id pipeline.RunID) {
	e.t.Helper()
	e.mu.Lock()
	run := *e.runs[id]
	e.mu.Unlock()
	run.Status, run.Outputs, run.FinishedAt = pipeline.RunCompleted, map[string]any{"n": int64(9007199254740993)}, time.Now().UTC()
	e.commit(id, &run, []pipeline.Event{{Type: pipeline.RunFinished, Data: pipeline.Data{RunStatus: run.Status, Outputs: run.Outputs}}})
}

// fixture is a server that serves.
type fixture struct {
	t      testing.TB
	st     *spy
	engine *engine
	srv    *Server
	url    string
	client *http.Client
	stop   func() // shuts down and waits
}

const hello = `id: hello
version: 1.0.0
inputs:
  name: world
steps:
  - id: greet
    set: {greeting: "hello {{ inputs.name }}"}
outputs:
  text: "{{ greet.greeting }}"
`

func testCatalog() pipeline.Catalog {
	return pipeline.Catalog{Actions: map[string]*pipeline.ActionSpec{
		"debug": {Key: "debug", Name: "debug", Open: true, Effect: pipeline.EffectPure, Returns: pipeline.Type{Kind: "any"}},
	}, Digest: "sha256:test"}
}

// start serves over a fresh store; change may alter the configuration.
func start(t testing.TB, change ...func(*Config)) *fixture {
	t.Helper()
	f := &fixture{t: t, st: &spy{Store: storetest.Open(t)}}
	lane, err := f.st.OpenLane(t.Context(), "test")
	if err != nil {
		t.Fatal(err)
	}
	f.engine = &engine{t: t, st: f.st, lane: lane, seq: map[pipeline.RunID]int32{}, runs: map[pipeline.RunID]*pipeline.Run{}}
	cfg := Config{Store: f.st, Submitter: f.engine, Preview: f.engine, Forks: f.engine, Archives: f.engine, Catalog: testCatalog, Version: "test", Hosts: []string{"orchestrator.example"}, Grace: 5 * time.Second}
	for _, c := range change {
		c(&cfg)
	}
	if f.srv, err = New(cfg); err != nil {
		t.Fatal(err)
	}
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f.url = "http://" + l.Addr().String()
	f.client = &http.Client{Transport: &http.Transport{}}
	h := f.srv.Handler(nil)
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := f.srv.Run(ctx); err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	wg.Go(func() {
		if err := f.srv.Serve(ctx, l, h); err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	f.stop = sync.OnceFunc(func() {
		cancel()
		wg.Wait()
	})
	t.Cleanup(func() {
		f.client.CloseIdleConnections()
		f.stop()
		if err := lane.Release(context.Background()); err != nil {
			t.Errorf("release lane: %v", err)
		}
	})
	return f
}

func (f *fixture) runs() orchestratorv1.RunsClient {
	return orchestratorv1.NewRunsClient(f.srv.Client())
}

// create starts a run of the hello pipeline.
func (f *fixture) create() pipeline.RunID {
	f.t.Helper()
	run, err := f.runs().CreateRun(f.t.Context(), &orchestratorv1.CreateRunRequest{Source: hello})
	if err != nil {
		f.t.Fatal(err)
	}
	return pipeline.RunID(run.GetId())
}

// do sends a request; headers are pairs.
func (f *fixture) do(method, path, body string, headers ...string) (int, http.Header, string) {
	f.t.Helper()
	var r io.Reader
	if body != "" {
		r = strings.NewReader(body)
	}
	req, err := http.NewRequestWithContext(f.t.Context(), method, f.url+path, r)
	if err != nil {
		f.t.Fatal(err)
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i < len(headers); i += 2 {
		if headers[i] == "Host" {
			req.Host = headers[i+1]
		} else {
			req.Header.Set(headers[i], headers[i+1])
		}
	}
	resp, err := f.client.Do(req)
	if err != nil {
		f.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		f.t.Fatal(err)
	}
	return resp.StatusCode, resp.Header, string(b)
}

// restFailure is the error of a REST answer.
type restFailure struct {
	Error struct {
		Code        int
		Status      string
		Message     string
		Reason      string
		RequestID   string  `json:"request_id"`
		RetryAfter  float64 `json:"retry_after"`
		Details     []struct{ Field, Reason, Description string }
		Diagnostics []map[string]any
	}
}

// refused checks that a request gets an error and returns it.
func (f *fixture) refused(code int, reason string, method, path, body string, headers ...string) restFailure {
	f.t.Helper()
	got, h, text := f.do(method, path, body, headers...)
	var e restFailure
	if err := json.Unmarshal([]byte(text), &e); err != nil {
		f.t.Fatalf("%s %s: %d %q is no error object: %v", method, path, got, text, err)
	}
	if got != code || e.Error.Reason != reason || e.Error.Code != code || e.Error.Message == "" || e.Error.Status == "" {
		f.t.Errorf("%s %s: got %d %s; want %d %s", method, path, got, text, code, reason)
	}
	if h.Get("Content-Type") != "application/json" || h.Get("X-Content-Type-Options") != "nosniff" {
		f.t.Errorf("%s %s: headers %v", method, path, h)
	}
	return e
}

// object reads a JSON object.
func object(t *testing.T, text string) map[string]any {
	t.Helper()
	v, err := pipeline.DecodeValue([]byte(text))
	if err != nil {
		t.Fatalf("%q: %v", text, err)
	}
	m, ok := v.(map[string]any)
	if !ok {
		t.Fatalf("%q is no object", text)
	}
	return m
}
