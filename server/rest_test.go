package server

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/orchestrator-project/orchestrator/pipeline"
	orchestratorv1 "github.com/orchestrator-project/orchestrator/proto/orchestrator/v1"
	"github.com/orchestrator-project/orchestrator/store"
)

var update = flag.Bool("update", false, "write the golden files anew")

var changing = []struct {
	form *regexp.Regexp
	with string
}{
	{regexp.MustCompile(`[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}`), "RUN"},
	{regexp.MustCompile(`"sha256:[0-9a-f]{64}"`), `"DIGEST"`},
	{regexp.MustCompile(`"20\d\d-\d\d-\d\dT[0-9:.]+Z"`), `"TIME"`},
	{regexp.MustCompile(`"request_id":"[^"]+"`), `"request_id":"ID"`},
	{regexp.MustCompile(`"next_page_token":"[^"]+"`), `"next_page_token":"TOKEN"`},
}

// golden compares an answer, without what changes, to a file.
func golden(t *testing.T, name, text string) {
	t.Helper()
	for _, c := range changing {
		text = c.form.ReplaceAllString(text, c.with)
	}
	var pretty bytes.Buffer
	for line := range strings.Lines(text) {
		if err := json.Indent(&pretty, []byte(line), "", "  "); err != nil {
			t.Fatalf("%s: %q: %v", name, line, err)
		}
	}
	file := filepath.Join("testdata", name+".json")
	if *update {
		if err := os.WriteFile(file, pretty.Bytes(), 0o600); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if pretty.String() != string(want) {
		t.Errorf("%s: got\n%s\nwant\n%s", name, &pretty, want)
	}
}

// conforms checks an answer against a component of openapi.json.
func conforms(t *testing.T, component, text string) {
	t.Helper()
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(openAPI))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	if err := c.AddResource("openapi.json", doc); err != nil {
		t.Fatal(err)
	}
	s, err := c.Compile("openapi.json#/components/schemas/" + component)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(text) {
		v, err := jsonschema.UnmarshalJSON(strings.NewReader(line))
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Validate(v); err != nil {
			t.Errorf("%s is no %s: %v", line, component, err)
		}
	}
}

func TestRESTShapes(t *testing.T) {
	f := start(t)
	code, h, text := f.do("POST", "/v1/runs", `{"source": `+string(pipeline.EncodeValue(hello))+`, "inputs": {"name": "Ada"}, "labels": {"team": "x"}, "priority": 2}`)
	if code != 200 || h.Get("Content-Type") != "application/json" || h.Get("X-Request-Id") == "" || h.Get("Cache-Control") != "no-store" {
		t.Errorf("create: %d %v %s", code, h, text)
	}
	golden(t, "create_run", text)
	conforms(t, "Run", text)
	id, _ := object(t, text)["id"].(string)
	run := pipeline.RunID(id)
	f.engine.steps(run, 0, 2)
	f.engine.finish(run)
	if err := f.st.AppendLogs(t.Context(), []store.LogChunk{
		{Run: run, Path: "a", Attempt: 1, N: 1, At: run.Time(), Stream: "stdout", Text: "one\n"},
		{Run: run, Path: "b", Attempt: 1, N: 1, At: run.Time(), Stream: "stderr", Text: "two\n"},
	}); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ name, path, component string }{
		{"get_run", "/v1/runs/" + id, "Run"},
		{"list_runs", "/v1/runs?filter=status:completed&page_size=5", "ListRunsResponse"},
		{"list_runs_none", "/v1/runs?filter=status:queued", "ListRunsResponse"},
		{"list_steps", "/v1/runs/" + id + "/steps?page_size=1", "ListStepsResponse"},
		{"list_events", "/v1/runs/" + id + "/events?after=3&page_size=2", "ListEventsResponse"},
		{"watch", "/v1/runs/" + id + "/events:watch?after=5", "Event"},
		{"logs", "/v1/runs/" + id + "/logs", "LogLine"},
		{"logs_step", "/v1/runs/" + id + "/logs?step=b&follow=true", "LogLine"},
		{"logs_tail", "/v1/runs/" + id + "/logs?tail=1", "LogLine"},
		{"definition", "/v1/runs/" + id + "/definition", "Definition"},
		{"list_pipelines_none", "/v1/pipelines", "ListPipelinesResponse"},
	} {
		code, h, text := f.do("GET", c.path, "")
		if code != 200 || h.Get("X-Content-Type-Options") != "nosniff" || !strings.Contains(h.Get("Content-Security-Policy"), "default-src 'none'") {
			t.Errorf("%s: %d %v %s", c.path, code, h, text)
		}
		golden(t, c.name, text)
		conforms(t, c.component, text)
	}
	for path, component := range map[string]string{"/v1/runs/" + id + "/graph": "Graph", "/v1/schema": "Schema"} {
		code, _, text := f.do("GET", path, "")
		if code != 200 {
			t.Errorf("%s: %d %s", path, code, text)
		}
		conforms(t, component, text)
	}
	_, _, text = f.do("GET", "/v1/runs/"+string(pipeline.NewRunID()), "")
	golden(t, "error_not_found", text)
	conforms(t, "Error", text)
	_, _, text = f.do("POST", "/v1/runs", `{"sorce": "x"}`)
	golden(t, "error_unknown_field", text)
	conforms(t, "Error", text)
}

func TestRESTRefusesHostileRequests(t *testing.T) {
	f := start(t, func(c *Config) { c.Limits.Request = 100_000 })
	id := string(f.create())
	big := `{"source": "` + strings.Repeat("x", 100_000) + `"}`
	for _, c := range []struct {
		code                       int
		reason, method, path, body string
		headers                    []string
	}{
		{413, "request_too_large", "POST", "/v1/runs", big, nil},
		{413, "request_too_large", "POST", "/v1/pipelines:validate", big, nil},
		{415, "unsupported_media_type", "POST", "/v1/runs", "source=x", []string{"Content-Type", "application/x-www-form-urlencoded"}},
		{415, "unsupported_media_type", "POST", "/v1/runs", "{}", []string{"Content-Type", "text/plain"}},
		{415, "unsupported_media_type", "POST", "/v1/runs", "{}", []string{"Content-Type", "application/json; charset=utf-16"}},
		{415, "unsupported_media_type", "POST", "/v1/runs", "{}", []string{"Content-Type", ""}},
		{415, "unsupported_media_type", "POST", "/v1/runs", "{}", []string{"Content-Encoding", "gzip"}},
		{403, "host_not_allowed", "GET", "/v1/runs", "", []string{"Host", "evil.example"}},
		{403, "host_not_allowed", "GET", "/v1/runs", "", []string{"Host", "127.0.0.1.evil.example:80"}},
		{403, "host_not_allowed", "GET", "/", "", []string{"Host", "10.0.0.1"}},
		{403, "host_not_allowed", "GET", "/openapi.json", "", []string{"Host", "localhost.evil.example"}},
		{403, "origin_not_allowed", "POST", "/v1/runs", "{}", []string{"Origin", "https://evil.example"}},
		{403, "origin_not_allowed", "POST", "/v1/runs", "{}", []string{"Origin", "null"}},
		{403, "origin_not_allowed", "POST", "/v1/runs", "{}", []string{"Origin", "http://localhost:1"}},
		{403, "origin_not_allowed", "DELETE", "/v1/runs/" + id, "", []string{"Origin", "http://evil.example"}},
		{403, "origin_not_allowed", "POST", "/v1/runs/" + id + ":cancel", "", []string{"Sec-Fetch-Site", "cross-site"}},
		{403, "origin_not_allowed", "POST", "/anything", "", []string{"Origin", "https://evil.example"}},
		{400, "invalid_json", "POST", "/v1/runs", `{"source": "a", "dryrun": true}`, nil},
		{400, "invalid_json", "POST", "/v1/runs", `{"source": `, nil},
		{400, "invalid_json", "POST", "/v1/runs", `[]`, nil},
		{400, "invalid_json", "POST", "/v1/runs", `{"priority": 1e99}`, nil},
		{400, "invalid_json", "POST", "/v1/runs", `{"labels": {"a": {}}}`, nil},
		{400, "invalid_json", "POST", "/v1/runs", `{"inputs": ` + strings.Repeat("[", 40_000) + `}`, nil},
		{400, "invalid_json", "POST", "/v1/runs", `{"source":` + string(pipeline.EncodeValue(hello)) + `,"inputs": ` + strings.Repeat("[", 9000) + strings.Repeat("]", 9000) + `}`, nil},
		{400, "invalid_request", "POST", "/v1/runs", `{}`, nil},
		{400, "invalid_request", "POST", "/v1/runs", ``, nil},
		{400, "invalid_request", "POST", "/v1/runs", `{"source": "a", "pipeline": "b"}`, nil},
		{400, "invalid_request", "POST", "/v1/runs", `{"source": "a", "version": "1"}`, nil},
		{400, "invalid_request", "POST", "/v1/runs", `{"source": "a", "labels": {"a b": ""}}`, nil},
		{400, "invalid_request", "POST", "/v1/runs", `{"source": "a", "labels": {"a": "\u0000"}}`, nil},
		{404, "run_not_found", "GET", "/v1/runs/x", "", nil},
		{404, "no_such_path", "GET", "/v1/runs/..%2f..%2fetc", "", nil},
		{404, "run_not_found", "POST", "/v1/runs/x:cancel", "{}", nil},
		{404, "no_such_path", "GET", "/v1/nothing", "", nil},
		{404, "no_such_path", "GET", "/v1/runs/" + id + "/steps/more", "", nil},
		{404, "no_such_path", "GET", "/", "", nil},
		{405, "method_not_allowed", "DELETE", "/v1/runs", "", nil},
		{405, "method_not_allowed", "POST", "/healthz", "", nil},
		{405, "method_not_allowed", "GET", "/v1/pipelines:validate", "", []string{"X-Http-Method-Override", "POST"}},
		{400, "invalid_page_size", "GET", "/v1/runs?page_size=501", "", nil},
		{400, "invalid_page_size", "GET", "/v1/runs?page_size=-1", "", nil},
		{400, "invalid_request", "GET", "/v1/runs?page_size=x", "", nil},
		{400, "invalid_request", "GET", "/v1/runs?page_sise=5", "", nil},
		{400, "invalid_page_token", "GET", "/v1/runs?page_token=AAAA", "", nil},
		{400, "invalid_page_token", "GET", "/v1/runs/" + id + "/steps?page_token=%2e%2e", "", nil},
		{400, "invalid_page_token", "GET", "/v1/runs/" + id + "/events?page_token=x", "", nil},
		{400, "invalid_filter", "GET", "/v1/runs?filter=stat:failed", "", nil},
		{400, "invalid_after", "GET", "/v1/runs/" + id + "/events?after=-1", "", nil},
		{400, "invalid_after", "GET", "/v1/runs/" + id + "/events:watch?after=-1", "", nil},
		{400, "invalid_request", "GET", "/v1/runs/" + id + "/events:watch?after=99999999999", "", nil},
		{400, "invalid_tail", "GET", "/v1/runs/" + id + "/logs?tail=-1", "", nil},
	} {
		name := fmt.Sprintf("%s %s %.60s %v", c.method, c.path, c.body, c.headers)
		t.Run(name, func(t *testing.T) {
			f := *f
			f.t = t
			f.refused(c.code, c.reason, c.method, c.path, c.body, c.headers...)
		})
	}
	if n := len(f.engine.subs); n != 1 {
		t.Errorf("%d submissions", n)
	}
}

func TestRESTLimitsABodyOfUnknownLength(t *testing.T) {
	f := start(t, func(c *Config) { c.Limits.Request, c.Limits.Files = 1000, 1000 })
	r, w := io.Pipe()
	go func() {
		for range 100 {
			if _, err := w.Write(bytes.Repeat([]byte("x"), 100)); err != nil {
				return
			}
		}
		w.Close()
	}()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, f.url+"/v1/runs", r)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := f.client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusRequestEntityTooLarge {
		t.Errorf("%s", resp.Status)
	}
	r.Close()
}

// A client that writes on gets to read the answer.
func TestRESTAnswersABodyThatIsTooLarge(t *testing.T) {
	f := start(t)
	big := `{"source": "` + strings.Repeat("x", 10<<20) + `"}`
	for range 20 {
		if code, _, text := f.do("POST", "/v1/runs", big); code != http.StatusRequestEntityTooLarge {
			t.Fatalf("%d %s", code, text)
		}
	}
}

func TestRESTAcceptsWhatIsOurs(t *testing.T) {
	f := start(t)
	id := string(f.create())
	for _, headers := range [][]string{
		{"Host", "localhost:8080"}, {"Host", "LOCALHOST."}, {"Host", "[::1]:80"}, {"Host", "127.1.2.3"}, {"Host", "orchestrator.example"}, {"Host", "Orchestrator.Example:443"},
	} {
		if code, _, text := f.do("GET", "/v1/runs/"+id, "", headers...); code != 200 {
			t.Errorf("%v: %d %s", headers, code, text)
		}
	}
	for _, headers := range [][]string{
		{"Origin", f.url},
		{"Origin", "https://orchestrator.example", "Host", "127.0.0.1"}, // behind a proxy
		{"Sec-Fetch-Site", "same-origin"},
		{"Content-Type", "application/json; charset=UTF-8"},
	} {
		if code, _, text := f.do("POST", "/v1/pipelines:validate", `{"source": "steps: []"}`, headers...); code != 200 {
			t.Errorf("%v: %d %s", headers, code, text)
		}
	}
	// A foreign page may send GETs, but its browser keeps the answer from it.
	code, h, _ := f.do("GET", "/v1/runs", "", "Origin", "https://evil.example")
	if code != 200 || h.Get("Access-Control-Allow-Origin") != "" {
		t.Errorf("GET of a foreign page: %d %v", code, h)
	}
	if _, h, _ := f.do("GET", "/v1/runs", "", "X-Request-Id", "my-id.1"); h.Get("X-Request-Id") != "my-id.1" {
		t.Errorf("request id: %v", h)
	}
	if _, h, _ := f.do("GET", "/v1/runs", "", "X-Request-Id", "bad id <"); strings.ContainsAny(h.Get("X-Request-Id"), " <") {
		t.Errorf("request id: %v", h)
	}
}

func TestPagesLeadThroughTheWholeList(t *testing.T) {
	f := start(t)
	var ids []string
	for range 7 {
		ids = append([]string{string(f.create())}, ids...)
	}
	var got []string
	token := ""
	for {
		resp, err := f.runs().ListRuns(t.Context(), &orchestratorv1.ListRunsRequest{PageSize: 3, PageToken: token})
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range resp.GetRuns() {
			got = append(got, r.GetId())
			if r.GetInputs() != "" {
				t.Error("a list carries inputs")
			}
		}
		if token = resp.GetNextPageToken(); token == "" {
			break
		}
	}
	if strings.Join(got, " ") != strings.Join(ids, " ") {
		t.Errorf("got %v, want %v", got, ids)
	}

	id := pipeline.RunID(ids[0])
	f.engine.steps(id, 0, 600)
	var paths int
	for {
		resp, err := f.runs().ListSteps(t.Context(), &orchestratorv1.ListStepsRequest{Id: ids[0], PageSize: 250, PageToken: token})
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range resp.GetSteps() {
			if want := fmt.Sprintf("loop[%d]/work", paths); s.GetPath() != want {
				t.Fatalf("step %s, want %s", s.GetPath(), want)
			}
			paths++
		}
		if token = resp.GetNextPageToken(); token == "" {
			break
		}
	}
	seq := int32(0)
	for {
		resp, err := f.runs().ListEvents(t.Context(), &orchestratorv1.ListEventsRequest{Id: ids[0], PageSize: 500, PageToken: token})
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range resp.GetEvents() {
			if seq++; e.GetSeq() != seq {
				t.Fatalf("event %d, want %d", e.GetSeq(), seq)
			}
		}
		if token = resp.GetNextPageToken(); token == "" {
			break
		}
	}
	if paths != 600 || seq != 1202 {
		t.Errorf("%d steps, %d events", paths, seq)
	}
}

func TestPagesEndEarlyWhenTheirValuesAreLarge(t *testing.T) {
	f := start(t, func(c *Config) { c.Limits.Response = 5000 })
	id := f.create()
	for i := range 6 {
		path := pipeline.Path(fmt.Sprintf("s%d", i))
		f.engine.add(id, pipeline.Event{Type: pipeline.StepFinished, Path: path, Attempt: 1, Data: pipeline.Data{
			Kind: pipeline.KindCommand, Status: pipeline.StepCompleted, Output: strings.Repeat("x", 3000),
		}})
	}
	steps, err := f.runs().ListSteps(t.Context(), &orchestratorv1.ListStepsRequest{Id: string(id)})
	if err != nil || len(steps.GetSteps()) != 2 || steps.GetNextPageToken() == "" {
		t.Errorf("%d steps, %v", len(steps.GetSteps()), err)
	}
	events, err := f.runs().ListEvents(t.Context(), &orchestratorv1.ListEventsRequest{Id: string(id), After: 2})
	if err != nil || len(events.GetEvents()) != 2 || events.GetNextPageToken() == "" {
		t.Errorf("%d events, %v", len(events.GetEvents()), err)
	}
}
