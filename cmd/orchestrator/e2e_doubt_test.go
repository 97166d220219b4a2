//go:build unix

package main_test

import (
	"net/http"
	"net/url"
	"strings"
	"testing"
)

// The step takes effect, and then its process goes on until somebody lets it end.
const transfer = `name: transfer
inputs: {dir: {type: string}}
steps:
  - id: pay
    effect: at_most_once
    run: echo "$ORCHESTRATOR_IDEMPOTENCY_KEY" >>{{ dir | sh }}/ledger; while [ ! -e {{ dir | sh }}/open ]; do sleep 0.02; done; echo paid
  - id: tell
    dependencies: [pay]
    run: "echo told: {{ pay }}"
outputs: {said: "{{ tell }}", paid: "{{ pay }}"}
`

// Promise 3: a step that may run once is not repeated after kill -9 between its
// effect and its record. The run waits until somebody says what shall be done:
// over the API, at the command line, or on a page.
func TestPromise3AtMostOnceIsNeverRepeated(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		decide func(s *server, home, approval string)
		status string
		begun  int
		said   string
	}{
		"retry over the API": {func(s *server, _, approval string) {
			if code, _, text := s.send(http.MethodPost, "/v1/approvals/"+approval+":decide", `{"decision": "retry"}`); code != http.StatusOK {
				t.Errorf("decide: %d %s", code, text)
			}
		}, "COMPLETED", 2, "told: paid"},
		"done at the command line": {func(s *server, home, approval string) {
			code, out, text := run(t, launch{args: []string{"approvals", "decide", approval, "done", "--value", `"by hand"`, "--server", s.url}, home: home})
			if code != 0 {
				t.Errorf("decide: %d %s %s", code, out, text)
			}
		}, "COMPLETED", 1, "told: by hand"},
		"fail on a page": {func(s *server, _, approval string) {
			code, _, text := s.send(http.MethodPost, "/approvals/"+approval, url.Values{"decision": {"fail"}}.Encode(),
				"Content-Type", "application/x-www-form-urlencoded", "Origin", s.url, "Sec-Fetch-Site", "same-origin")
			if code >= http.StatusBadRequest {
				t.Errorf("the page answers %d %s", code, text)
			}
		}, "FAILED", 1, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			home, dir := t.TempDir(), t.TempDir()
			s := serve(t, home)
			id := s.submit(transfer, map[string]any{"dir": dir})
			eventually(t, "the step has taken effect", func() bool { return len(lines(t, dir, "ledger")) == 1 })
			s.kill()
			touch(t, dir, "open")
			s = s.again()
			s.parked(id, "approval")
			var list struct {
				Approvals []struct{ ID, Kind, Path, Question string }
			}
			s.get("/v1/approvals?status=open&run_id="+id, &list)
			if len(list.Approvals) != 1 || list.Approvals[0].Kind != "needs_decision" || list.Approvals[0].Path != "pay" {
				t.Fatalf("the run asks %+v", list.Approvals)
			}
			c.decide(s, home, list.Approvals[0].ID)
			s.finish(id, c.status)
			begun := lines(t, dir, "ledger")
			if len(begun) != c.begun {
				t.Errorf("the step has taken effect %d times, want %d", len(begun), c.begun)
			}
			for _, key := range begun {
				if key != id+"/pay" {
					t.Errorf("the idempotency key was %q, want %s/pay", key, id)
				}
			}
			r := s.run(id)
			if c.said != "" && !strings.Contains(string(r.Outputs), c.said) {
				t.Errorf("the outputs are %s, want %q", r.Outputs, c.said)
			}
			if pay := s.steps(id)["pay"]; c.status == "FAILED" && (pay.Error == nil || !strings.Contains(pay.Error.Message, "nobody knows")) {
				t.Errorf("the step is %+v, %+v", pay, pay.Error)
			}
			s.stop()
		})
	}
}
