//go:build unix

package main_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	api "github.com/orchestrator-project/orchestrator/proto/orchestrator/v1"
)

// What the API answers, as far as the tests look at it. They read the JSON
// that is on the wire rather than through our own code.
type (
	runInfo struct {
		ID, Pipeline, Status, Reason string
		Inputs, Outputs              json.RawMessage
		Error                        *failInfo
		Labels                       map[string]string
		Usage                        struct{ Steps int }
	}
	stepInfo struct {
		Path, Kind, Status string
		Attempt            int
		Output             json.RawMessage
		Error              *failInfo
		Worker             string
	}
	failInfo  struct{ Kind, Step, Message string }
	eventInfo struct {
		Seq        int
		Type, Path string
		Attempt    int
		Data       struct {
			Run    *runInfo
			Step   *stepInfo
			Reason string
		}
	}
	logInfo struct {
		Path, Stream, Text string
		Attempt, N         int
	}
	diagnostic struct {
		Code, Severity, File, Message string
		Line, Column                  int
	}
	errorInfo struct {
		Error struct {
			Code                    int
			Status, Message, Reason string
			Diagnostics             []diagnostic
		}
	}
)

// site is a server's HTTP.
type site struct {
	t   testing.TB
	url string
}

// send makes a request and returns the whole answer. Headers come in pairs.
func (s *site) send(method, path, body string, headers ...string) (code int, h http.Header, text string) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), patience)
	defer cancel()
	resp, err := s.open(ctx, method, path, strings.NewReader(body), headers...)
	if err != nil {
		s.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		s.t.Fatalf("%s %s: %v", method, path, err)
	}
	return resp.StatusCode, resp.Header, string(b)
}

func (s *site) open(ctx context.Context, method, path string, body io.Reader, headers ...string) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, s.url+path, body)
	if err != nil {
		return nil, err
	}
	if method != http.MethodGet {
		req.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i < len(headers); i += 2 {
		if headers[i] == "Host" {
			req.Host = headers[i+1]
		} else {
			req.Header.Set(headers[i], headers[i+1])
		}
	}
	// No connection outlives its request: servers come and go here.
	return (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(req)
}

// get reads a resource that must be there.
func (s *site) get(path string, into any) {
	s.t.Helper()
	code, _, text := s.send(http.MethodGet, path, "")
	if code != http.StatusOK {
		s.t.Fatalf("GET %s: %d %s", path, code, text)
	}
	decode(s.t, text, into)
}

func decode(t testing.TB, text string, into any) {
	t.Helper()
	if err := json.Unmarshal([]byte(text), into); err != nil {
		t.Fatalf("%v in %s", err, text)
	}
}

// ready waits until the server says that it is.
func (s *site) ready() {
	s.t.Helper()
	eventually(s.t, s.url+" is ready", func() bool { return s.code("/readyz") == http.StatusOK })
}

// code is what a path answers with; 0: it cannot be reached.
func (s *site) code(path string) int {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), 10*time.Second)
	defer cancel()
	resp, err := s.open(ctx, http.MethodGet, path, nil)
	if err != nil {
		return 0
	}
	resp.Body.Close()
	return resp.StatusCode
}

// request is the body of a submission.
func request(source string, inputs map[string]any, more ...any) string {
	body := map[string]any{"source": source, "inputs": inputs}
	for i := 0; i < len(more); i += 2 {
		body[more[i].(string)] = more[i+1]
	}
	b, err := json.Marshal(body)
	if err != nil {
		panic(err)
	}
	return string(b)
}

// submit starts a run and returns its id.
func (s *site) submit(source string, inputs map[string]any, more ...any) string {
	s.t.Helper()
	code, _, text := s.send(http.MethodPost, "/v1/runs", request(source, inputs, more...))
	if code != http.StatusOK {
		s.t.Fatalf("submit: %d %s", code, text)
	}
	var r runInfo
	decode(s.t, text, &r)
	if r.ID == "" {
		s.t.Fatalf("no id in %s", text)
	}
	return r.ID
}

// run reads a run.
func (s *site) run(id string) runInfo {
	s.t.Helper()
	var r runInfo
	s.get("/v1/runs/"+id, &r)
	return r
}

// runs counts all runs that there are.
func (s *site) runs() int {
	s.t.Helper()
	n, token := 0, ""
	for {
		var page struct {
			Runs          []runInfo
			NextPageToken string `json:"next_page_token"`
		}
		s.get("/v1/runs?page_size=500&page_token="+url.QueryEscape(token), &page)
		n += len(page.Runs)
		if token = page.NextPageToken; token == "" {
			return n
		}
	}
}

// steps reads the steps of a run by their paths.
func (s *site) steps(id string) map[string]stepInfo {
	s.t.Helper()
	var page struct{ Steps []stepInfo }
	s.get("/v1/runs/"+id+"/steps?page_size=500", &page)
	all := map[string]stepInfo{}
	for _, st := range page.Steps {
		all[st.Path] = st
	}
	return all
}

// watch reads a run's stream after a sequence number, holds it to having no
// gap, and returns what came once enough says so, or the stream has ended.
func (s *site) watch(id string, after int, enough func(eventInfo) bool) []eventInfo {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), patience)
	defer cancel()
	resp, err := s.open(ctx, http.MethodGet, fmt.Sprintf("/v1/runs/%s/events:watch?after=%d", id, after), nil)
	if err != nil {
		s.t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK || resp.Header.Get("Content-Type") != "application/x-ndjson" {
		s.t.Fatalf("watch: %s, %s", resp.Status, resp.Header.Get("Content-Type"))
	}
	var all []eventInfo
	lines := bufio.NewScanner(resp.Body)
	lines.Buffer(nil, 32<<20)
	for lines.Scan() {
		if bytes.HasPrefix(lines.Bytes(), []byte(`{"error"`)) {
			s.t.Fatalf("the stream of %s broke off: %s", id, lines.Text())
		}
		var e eventInfo
		decode(s.t, lines.Text(), &e)
		if e.Seq == 0 {
			continue // only live
		}
		if after++; e.Seq != after {
			s.t.Fatalf("event %d came where %d should", e.Seq, after)
		}
		all = append(all, e)
		if enough != nil && enough(e) {
			return all
		}
	}
	if err := lines.Err(); err != nil {
		s.t.Fatalf("watch %s after %d events: %v", id, len(all), err)
	}
	if enough != nil {
		s.t.Fatalf("the stream of %s ended before what the test waits for", id)
	}
	return all
}

// finish watches a run to its end and holds its log to the promises.
func (s *site) finish(id, status string, paths ...string) []eventInfo {
	s.t.Helper()
	all := s.watch(id, 0, nil)
	checkLog(s.t, all, status, paths...)
	return all
}

// checkLog holds a run's whole log to promise 2: no gap, a beginning, an end,
// and one result of each step.
func checkLog(t testing.TB, all []eventInfo, status string, paths ...string) {
	t.Helper()
	results := map[string]int{}
	for i, e := range all {
		if e.Seq != i+1 {
			t.Fatalf("event %d stands at place %d", e.Seq, i+1)
		}
		if e.Type == "step_finished" || e.Type == "step_skipped" {
			results[e.Path]++
		}
	}
	if len(all) < 2 || all[0].Type != "run_created" {
		t.Fatalf("the log begins with %+v", all)
	}
	last := all[len(all)-1]
	if last.Type != "run_finished" || last.Data.Run == nil || last.Data.Run.Status != status {
		b, _ := json.Marshal(last)
		t.Errorf("the run should end as %s; its last event is %s", status, b)
	}
	for path, n := range results {
		if n != 1 {
			t.Errorf("the result of %s is recorded %d times", path, n)
		}
	}
	for _, path := range paths {
		if results[path] == 0 {
			t.Errorf("there is no result of %s", path)
		}
	}
}

// begins is for watch: a step has begun.
func begins(path string) func(eventInfo) bool {
	return func(e eventInfo) bool { return e.Type == "step_started" && e.Path == path }
}

// viewer watches a run over gRPC the whole time. It fails the test as soon as
// an event is missing or comes twice.
type viewer struct {
	t    testing.TB
	done chan struct{} // closed when the stream has ended

	mu   sync.Mutex // guards what follows
	seq  int32
	last *api.Run
	err  error
}

// dial connects to a server's gRPC.
func dial(t testing.TB, s *server) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient(s.listen, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// view attaches a viewer to a run.
func view(t testing.TB, conn *grpc.ClientConn, id string) *viewer {
	t.Helper()
	stream, err := api.NewRunsClient(conn).WatchRun(t.Context(), &api.WatchRunRequest{Id: id})
	if err != nil {
		t.Fatal(err)
	}
	v := &viewer{t: t, done: make(chan struct{})}
	go func() {
		defer close(v.done)
		for {
			e, err := stream.Recv()
			v.mu.Lock()
			switch {
			case err != nil:
				if !errors.Is(err, io.EOF) {
					v.err = err
				}
			case e.GetSeq() == 0: // only live
			case e.GetSeq() != v.seq+1:
				err = fmt.Errorf("event %d came after %d", e.GetSeq(), v.seq)
				v.err = err
			default:
				v.seq++
				if e.GetType() == "run_finished" {
					var data struct{ Run struct{ Status string } }
					if err := json.Unmarshal([]byte(e.GetData()), &data); err == nil {
						v.last = &api.Run{Status: api.Run_Status(api.Run_Status_value[data.Run.Status])}
					}
				}
			}
			v.mu.Unlock()
			if err != nil {
				return
			}
		}
	}()
	return v
}

// ends waits for the end of the stream, which must be that of the run.
func (v *viewer) ends(status api.Run_Status) (seq int32) {
	v.t.Helper()
	select {
	case <-v.done:
	case <-time.After(patience):
		v.t.Fatal("the viewer's stream does not end")
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.err != nil {
		v.t.Errorf("after event %d: %v", v.seq, v.err)
	}
	if v.last.GetStatus() != status {
		v.t.Errorf("the stream ended after event %d with the run %s", v.seq, v.last.GetStatus())
	}
	return v.seq
}
