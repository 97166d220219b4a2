//go:build unix

package main_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/coder/websocket"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	api "github.com/orchestrator-project/orchestrator/proto/orchestrator/v1"
)

// greeting runs at once and gives back what it was given.
const greeting = `name: greeting
inputs:
  name: {type: string, default: world}
  number: {type: integer, default: 1}
steps:
  - id: greet
    run: echo "Hello" {{ name | sh }}
  - id: shout
    set: {text: "{{ greet | upper }}", twice: "{{ number }}"}
outputs:
  text: "{{ text }}"
  number: "{{ twice }}"
`

// gated waits in its second step for a file named go in the folder dir.
const gated = `name: gated
inputs:
  dir: {type: string}
steps:
  - id: before
    run: echo before
  - id: gate
    dependencies: [before]
    run: echo waiting; until [ -e {{ dir | sh }}/go ]; do sleep 0.02; done; echo passed
  - id: after
    dependencies: [gate]
    run: echo after
finally:
  - id: sweep
    run: echo swept
outputs:
  text: "{{ before }}, {{ gate }}, {{ after }}"
`

func TestRESTSubmitsAndReadsRuns(t *testing.T) {
	t.Parallel()
	s := serve(t, t.TempDir())
	// An integer beyond what a float holds comes through untouched.
	id := s.submit(greeting, map[string]any{"name": "O'Brien & <b>", "number": json.Number("9007199254740993")}, "labels", map[string]any{"team": "a b"})
	events := s.finish(id, "COMPLETED", "greet", "shout")
	r := s.run(id)
	if r.Status != "COMPLETED" || r.Pipeline != "greeting" || r.Labels["team"] != "a b" || r.Usage.Steps != 2 {
		t.Errorf("the run is %+v", r)
	}
	var out struct {
		Number json.Number
		Text   string
	}
	if decode(t, string(r.Outputs), &out); out.Number != "9007199254740993" || out.Text != "HELLO O'BRIEN & <B>" {
		t.Errorf("its outputs are %s", r.Outputs)
	}
	if steps := s.steps(id); len(steps) != 2 || steps["greet"].Kind != "command" || steps["greet"].Status != "COMPLETED" || steps["shout"].Attempt != 1 {
		t.Errorf("its steps are %+v", steps)
	}
	var page struct {
		Events        []eventInfo
		NextPageToken string `json:"next_page_token"`
	}
	s.get("/v1/runs/"+id+"/events?after=2&page_size=3", &page)
	if len(page.Events) != 3 || page.Events[0].Seq != 3 || page.NextPageToken == "" {
		t.Errorf("the page of events is %+v", page)
	}
	if rest := s.watch(id, len(events)-2, nil); len(rest) != 2 {
		t.Errorf("after all but two events come %d", len(rest))
	}
	var list struct{ Runs []runInfo }
	s.get(`/v1/runs?filter=status:completed+label.team%3D%22a+b%22`, &list)
	if len(list.Runs) != 1 || list.Runs[0].ID != id {
		t.Errorf("the filter finds %+v", list.Runs)
	}
	s.get(`/v1/runs?filter=status:failed`, &list)
	if len(list.Runs) != 0 {
		t.Errorf("the filter finds %+v", list.Runs)
	}
	s.stop()
}

func TestRESTKeepsIdempotencyKeys(t *testing.T) {
	t.Parallel()
	s := serve(t, t.TempDir())
	body := request(greeting, map[string]any{"name": "Ada"}, "idempotency_key", "order-7")
	code, _, first := s.send("POST", "/v1/runs", body)
	if code != http.StatusOK {
		t.Fatalf("%d %s", code, first)
	}
	var one, two runInfo
	decode(t, first, &one)
	s.finish(one.ID, "COMPLETED")
	s.stop()
	s = s.again() // the key is as durable as the run
	code, _, second := s.send("POST", "/v1/runs", body)
	decode(t, second, &two)
	if code != http.StatusOK || one.ID == "" || one.ID != two.ID {
		t.Errorf("the same key and request: %d, runs %q and %q", code, one.ID, two.ID)
	}
	code, _, text := s.send("POST", "/v1/runs", request(greeting, map[string]any{"name": "Eve"}, "idempotency_key", "order-7"))
	var e errorInfo
	decode(t, text, &e)
	if code != http.StatusConflict || e.Error.Reason == "" {
		t.Errorf("the same key with another request: %d %s", code, text)
	}
	if n := s.runs(); n != 1 {
		t.Errorf("there are %d runs", n)
	}
}

func TestRESTRefusedPipelinesStoreNothing(t *testing.T) {
	t.Parallel()
	s := serve(t, t.TempDir())
	bomb := "name: bomb\nvars:\n  a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n"
	for i := 1; i < 9; i++ {
		bomb += fmt.Sprintf("  a%d: &a%d [%s]\n", i, i, strings.TrimSuffix(strings.Repeat(fmt.Sprintf("*a%d, ", i-1), 10), ", "))
	}
	bomb += "steps: [{id: a, run: 'true'}]\n"
	for _, c := range []struct {
		name, body, code string
		line, column     int
	}{
		{"unknown input", request("name: x\ninputs: {name: World}\nsteps:\n  - id: a\n    run: echo {{ inputs.nmae | sh }}\n", nil), "E02", 5, 25},
		{"unknown key", request("name: x\nsteps:\n  - id: a\n    rum: echo\n", nil), "E0110", 4, 5},
		{"cycle", request("name: x\nsteps:\n  - {id: a, run: 'true', dependencies: [b]}\n  - {id: b, run: 'true', dependencies: [a]}\n", nil), "E0403", 3, 0},
		{"no YAML", request("name: [x\nsteps:\n  - {", nil), "E01", 0, 0},
		{"alias bomb", request(bomb, nil), "E0103", 0, 0},
		{"nothing in it", request("", nil), "", 0, 0},
		{"input of a wrong type", request(greeting, map[string]any{"number": "many"}), "E0502", 0, 0},
		{"input that does not exist", request(greeting, map[string]any{"nmae": "x"}), "E0502", 0, 0},
		{"no pipeline of this name", `{"pipeline": "nothing"}`, "", 0, 0},
		{"unknown field", `{"sorce": "name: x"}`, "", 0, 0},
		{"unknown field within", `{"source": "x", "labels": [1]}`, "", 0, 0},
	} {
		code, _, text := s.send("POST", "/v1/runs", c.body)
		var found errorInfo
		decode(t, text, &found)
		if want := http.StatusBadRequest; code != want && !(c.name == "no pipeline of this name" && code == http.StatusNotFound) {
			t.Errorf("%s: %d, want %d: %s", c.name, code, want, text)
		}
		if found.Error.Message == "" || found.Error.Reason == "" {
			t.Errorf("%s: the error does not say why: %s", c.name, text)
		}
		if c.code == "" {
			continue
		}
		if !slices.ContainsFunc(found.Error.Diagnostics, func(d diagnostic) bool {
			return strings.HasPrefix(d.Code, c.code) && d.Severity == "error" && (c.line == 0 || d.Line == c.line) && (c.column == 0 || d.Column == c.column)
		}) {
			t.Errorf("%s: no diagnostic %s at %d:%d in %s", c.name, c.code, c.line, c.column, text)
		}
	}
	if n := s.runs(); n != 0 {
		t.Errorf("the refused requests left %d runs", n)
	}
	code, _, text := s.send("POST", "/v1/pipelines:validate",
		`{"source": "name: x\ninputs: {name: x}\nsteps:\n  - id: a\n    run: echo {{ nmae | sh }}\n  - id: a\n    run: 'true'\n", "file": "two.yaml"}`)
	var v struct{ Diagnostics []diagnostic }
	decode(t, text, &v)
	if code != http.StatusOK || len(v.Diagnostics) < 2 {
		t.Fatalf("validate: %d %s", code, text)
	}
	places := map[string]string{}
	for _, d := range v.Diagnostics {
		places[d.Code] = fmt.Sprintf("%s:%d:%d", d.File, d.Line, d.Column)
	}
	if places["E0201"] != "two.yaml:5:18" || places["E0114"] != "two.yaml:6:9" {
		t.Errorf("validate finds %v in %s", places, text)
	}
}

func TestRESTRefusesHostileRequests(t *testing.T) {
	t.Parallel()
	s := serve(t, t.TempDir())
	id := s.submit(greeting, nil)
	s.finish(id, "COMPLETED")
	big := `{"source": "` + strings.Repeat("x", 10<<20) + `"}`
	for _, c := range []struct {
		name, method, path, body string
		code                     int
		headers                  []string
	}{
		{"10 MB", "POST", "/v1/runs", big, 413, nil},
		{"form", "POST", "/v1/runs", "source=x", 415, []string{"Content-Type", "application/x-www-form-urlencoded"}},
		{"text", "POST", "/v1/runs", "{}", 415, []string{"Content-Type", "text/plain"}},
		{"foreign host", "GET", "/v1/runs", "", 403, []string{"Host", "evil.example"}},
		{"foreign host of a page", "GET", "/runs", "", 403, []string{"Host", "evil.example:80"}},
		{"foreign origin", "POST", "/v1/runs", "{}", 403, []string{"Origin", "https://evil.example"}},
		{"origin null", "POST", "/v1/runs/" + id + ":cancel", "{}", 403, []string{"Origin", "null"}},
		{"foreign form of a page", "POST", "/new", "source=x", 403, []string{"Content-Type", "application/x-www-form-urlencoded", "Origin", "https://evil.example"}},
		{"foreign cancel of a page", "POST", "/runs/" + id + "/cancel", "", 403, []string{"Content-Type", "application/x-www-form-urlencoded", "Origin", "https://evil.example"}},
		{"unknown field", "POST", "/v1/runs", `{"source": "a", "dryrun": true}`, 400, nil},
		{"unknown query", "GET", "/v1/runs?page_sise=1", "", 400, nil},
		{"page too large", "GET", "/v1/runs?page_size=501", "", 400, nil},
		{"no such run", "GET", "/v1/runs/0198c2f0-7b1e-7cc3-98c4-dc0c0c07398f", "", 404, nil},
		{"no id", "GET", "/v1/runs/%2e%2e%2fsecrets", "", 404, nil},
		{"cancelling what is over", "POST", "/v1/runs/" + id + ":cancel", "{}", 409, nil},
		{"wrong method", "DELETE", "/v1/runs", "", 405, nil},
	} {
		code, _, text := s.send(c.method, c.path, c.body, c.headers...)
		if code != c.code {
			t.Errorf("%s: %d, want %d: %.300s", c.name, code, c.code, text)
		}
		if strings.Contains(text, "goroutine") || strings.Contains(text, ".go:") || strings.Contains(text, "sqlite") {
			t.Errorf("%s: the answer tells of our insides: %.300s", c.name, text)
		}
	}
	_, resp, err := websocket.Dial(t.Context(), s.url+"/v1/runs/"+id+"/ws", &websocket.DialOptions{HTTPHeader: http.Header{"Origin": {"https://evil.example"}}})
	if err == nil || resp == nil || resp.StatusCode != http.StatusForbidden {
		t.Errorf("a WebSocket of a foreign page: %v, %v", resp, err)
	}
	if n := s.runs(); n != 1 {
		t.Errorf("there are %d runs", n)
	}
}

func TestRESTStreamsFollowARun(t *testing.T) {
	t.Parallel()
	s := serve(t, t.TempDir())
	dir := t.TempDir()
	id := s.submit(gated, map[string]any{"dir": dir})
	seen := s.watch(id, 0, begins("gate"))

	ws, resp, err := websocket.Dial(t.Context(), fmt.Sprintf("%s/v1/runs/%s/ws?after=%d", s.url, id, len(seen)-1), nil)
	if err != nil {
		t.Fatal(err)
	}
	if resp.Body != nil {
		resp.Body.Close()
	}
	defer ws.CloseNow() //nolint:errcheck // it ends with the test
	ws.SetReadLimit(32 << 20)
	logs, err := s.open(t.Context(), "GET", "/v1/runs/"+id+"/logs?follow=true", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer logs.Body.Close()
	follow := bufio.NewReader(logs.Body)
	var printed []string
	for range 2 { // what was printed before the run can go on
		line, err := follow.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		var l logInfo
		decode(t, line, &l)
		printed = append(printed, l.Path+": "+l.Text)
	}
	if r := s.run(id); r.Status != "RUNNING" {
		t.Errorf("while a step waits the run is %s", r.Status)
	}
	touch(t, dir, "go")

	for seq := len(seen); ; seq++ {
		_, b, err := ws.Read(t.Context())
		if websocket.CloseStatus(err) == websocket.StatusNormalClosure {
			break
		}
		if err != nil {
			t.Fatalf("after event %d: %v", seq, err)
		}
		var e eventInfo
		decode(t, string(b), &e)
		if e.Seq == 0 {
			seq--
			continue
		}
		if e.Seq != seq {
			t.Fatalf("event %d came where %d should", e.Seq, seq)
		}
	}
	for {
		line, err := follow.ReadString('\n')
		if err == io.EOF { //nolint:errorlint // a reader gives it as it is
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		var l logInfo
		decode(t, line, &l)
		printed = append(printed, l.Path+": "+l.Text)
	}
	want := "before: before\ngate: waiting\ngate: passed\nafter: after\nsweep: swept\n"
	if got := strings.Join(printed, ""); got != want {
		t.Errorf("the log reads\n%s\nwant\n%s", got, want)
	}
	s.finish(id, "COMPLETED", "before", "gate", "after", "sweep")
	if r := s.run(id); string(r.Outputs) != `{"text":"before, waiting\npassed, after"}` {
		t.Errorf("the outputs are %s", r.Outputs)
	}
}

func TestRESTCancelsARunAndItsFinallyStepsRun(t *testing.T) {
	t.Parallel()
	s := serve(t, t.TempDir())
	id := s.submit(gated, map[string]any{"dir": t.TempDir()})
	s.watch(id, 0, begins("gate"))
	if code, _, text := s.send("POST", "/v1/runs/"+id+":cancel", "{}"); code != http.StatusOK {
		t.Fatalf("cancel: %d %s", code, text)
	}
	s.finish(id, "CANCELLED", "before", "gate", "sweep")
	steps := s.steps(id)
	if steps["gate"].Status != "CANCELLED" || steps["sweep"].Status != "COMPLETED" || steps["before"].Status != "COMPLETED" {
		t.Errorf("the steps are %+v", steps)
	}
	if after, ok := steps["after"]; ok && after.Status == "COMPLETED" {
		t.Error("a step began after the cancellation")
	}
}

func TestPlainPathsAnswer(t *testing.T) {
	t.Parallel()
	s := serve(t, t.TempDir())
	s.finish(s.submit(greeting, nil), "COMPLETED")
	for _, c := range []struct{ path, kind, holds string }{
		{"/healthz", "application/json", "ok"},
		{"/readyz", "application/json", "ok"},
		{"/metrics", "text/plain", "\norchestrator_"},
		{"/openapi.json", "application/json", `"/v1/runs/{id}/events:watch"`},
		{"/docs", "text/html", "/v1/runs/{id}/events:watch"},
		{"/", "text/html", "greeting"},
	} {
		code, h, text := s.send("GET", c.path, "")
		if code != http.StatusOK || !strings.HasPrefix(h.Get("Content-Type"), c.kind) || !strings.Contains(text, c.holds) {
			t.Errorf("%s: %d %s %.200s", c.path, code, h.Get("Content-Type"), text)
		}
		if h.Get("X-Content-Type-Options") != "nosniff" {
			t.Errorf("%s: its headers are %v", c.path, h)
		}
	}
}

func TestGRPCIsOnTheSamePort(t *testing.T) {
	t.Parallel()
	s := serve(t, t.TempDir())
	runs := api.NewRunsClient(dial(t, s))
	r, err := runs.CreateRun(t.Context(), &api.CreateRunRequest{Source: greeting, Inputs: `{"number": 9007199254740993}`})
	if err != nil {
		t.Fatal(err)
	}
	view(t, dial(t, s), r.GetId()).ends(api.Run_COMPLETED)
	got, err := runs.GetRun(t.Context(), &api.GetRunRequest{Id: r.GetId()})
	if err != nil || got.GetStatus() != api.Run_COMPLETED || !strings.Contains(got.GetOutputs(), "9007199254740993") {
		t.Errorf("%v, %v", got, err)
	}
	_, err = runs.GetRun(t.Context(), &api.GetRunRequest{Id: "0198c2f0-7b1e-7cc3-98c4-dc0c0c07398f"})
	if status.Code(err) != codes.NotFound {
		t.Errorf("no such run: %v", err)
	}
	_, err = runs.CancelRun(t.Context(), &api.CancelRunRequest{Id: r.GetId()})
	if status.Code(err) != codes.Aborted {
		t.Errorf("cancelling what is over: %v", err)
	}
	_, err = runs.CreateRun(t.Context(), &api.CreateRunRequest{Source: "name: x\ninputs: {name: x}\nsteps:\n  - id: a\n    run: echo {{ nmae | sh }}\n"})
	var place, reason string
	for _, d := range status.Convert(err).Details() {
		switch d := d.(type) {
		case *errdetails.BadRequest:
			place = d.GetFieldViolations()[0].GetField()
		case *errdetails.ErrorInfo:
			reason = d.GetReason()
		}
	}
	if status.Code(err) != codes.InvalidArgument || place != "5:18" || reason != "invalid_pipeline" {
		t.Errorf("%v: at %q because %q", err, place, reason)
	}
}
