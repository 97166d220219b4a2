//go:build unix

package main_test

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const cashier = `name: cashier
inputs: {service: {type: string}}
agents:
  cashier:
    instructions: You pay bills.
    limits: {steps: 6}
    tools:
      - {name: look, http: {url: "{{ inputs.service }}/look"}, effect: pure}
      - {name: pay, http: {method: POST, url: "{{ inputs.service }}/pay?n={{ n }}"}, parameters: {n: integer}, effect: at_most_once, approval: always}
steps:
  - {id: settle, agent: cashier, prompt: Pay all.}
outputs: {said: "{{ settle }}"}
`

const cashierScript = `rules:
  - when: {turn: 0}
    tool_calls:
      - {name: pay, arguments: {n: 1}}
      - {name: look, arguments: {}}
      - {name: pay, arguments: {n: 2}}
  - when: {turn: 1, last_user: {contains: in rhyme}}
    tool_calls: [{name: pay, arguments: {n: 3}}]
  - when: {turn: 2}
    text: "paid: {{ tool_results.pay }}"
`

type asked struct {
	ID, Kind, Question, Status, Scope string
	Decisions                         []struct{ Decision, Actor, Remember string }
}

// asked are the questions of a run over REST.
func (s *server) asked(id, status string) []asked {
	s.process.t.Helper()
	var list struct{ Approvals []asked }
	s.get("/v1/approvals?status="+status+"&run_id="+id, &list)
	return list.Approvals
}

// decides posts a decision and holds the answer's code against what it must be.
func (s *server) decides(id, body string, want int, says string) {
	s.process.t.Helper()
	code, _, text := s.send(http.MethodPost, "/v1/approvals/"+id+":decide", body)
	if code != want || !strings.Contains(text, says) {
		s.process.t.Errorf("deciding %s: %d %s", body, code, text)
	}
}

// steers posts a message to an agent and holds the answer's code against what it must be.
func (s *server) steers(id, body string, want int, says string) {
	s.process.t.Helper()
	code, _, text := s.send(http.MethodPost, "/v1/runs/"+id+":steer", body)
	if code != want || !strings.Contains(text, says) {
		s.process.t.Errorf("steering with %s: %d %s", body, code, text)
	}
}

// Over REST: both calls are asked about while the free one goes on, one approval
// for the run is good for all of the tool's, and the agent hears what it is told.
func TestRESTApprovesForTheRunAndSteers(t *testing.T) {
	t.Parallel()
	home := t.TempDir()
	o := newOutside(t, "/look")
	s := serve(t, home, "ORCHESTRATOR_SCRIPT="+save(t, cashierScript, home, "cashier.script.yaml"))
	id := s.submit(cashier, map[string]any{"service": o.URL})
	eventually(t, "the free call is being made and both others are asked about", func() bool {
		return o.calls("/look") == 1 && len(s.asked(id, "open")) == 2
	})
	list := s.asked(id, "open")
	s.decides(list[0].ID, `{"decision": "reject", "remember": true}`, http.StatusBadRequest, "not_remembered")
	s.decides(list[0].ID, `{"decision": "approve", "value": 7}`, http.StatusBadRequest, "invalid_arguments")
	s.decides(list[0].ID, `{"decision": "perhaps"}`, http.StatusBadRequest, "approve")
	s.decides(list[0].ID, `{"decision": "approve", "remember": true}`, http.StatusOK, "cashier/pay")
	eventually(t, "both are made while the free one goes on", func() bool { return o.calls("/pay") == 2 })
	s.decides(list[1].ID, `{"decision": "reject"}`, http.StatusConflict, "")
	s.steers(id, `{"step": "settle", "text": " "}`, http.StatusBadRequest, "required")
	s.steers(id, `{"step": "nowhere", "text": "hello"}`, http.StatusNotFound, "no_step")
	s.steers(id, `{"step": "settle", "text": "Say it in rhyme, äöü 🐝.", "idempotency_key": "rhyme"}`, http.StatusOK, id)
	s.steers(id, `{"step": "settle", "text": "Say it in prose.", "idempotency_key": "rhyme"}`, http.StatusConflict, "idempotency_key_reused")
	eventually(t, "the message is recorded", func() bool {
		_, _, text := s.send(http.MethodGet, "/v1/runs/"+id+"/events?page_size=100", "")
		return strings.Contains(text, "signal_received")
	})
	o.open()
	s.finish(id, "COMPLETED", "settle")
	s.steers(id, `{"step": "settle", "text": "too late"}`, http.StatusConflict, "step_finished")
	s.steers(id, `{"step": "settle", "text": "Say it in rhyme, äöü 🐝.", "idempotency_key": "rhyme"}`, http.StatusOK, id)
	if _, _, text := s.send(http.MethodGet, "/v1/runs/"+id+"/events?page_size=500", ""); strings.Count(text, `"signal_received"`) != 1 {
		t.Errorf("what was sent twice is recorded %d times", strings.Count(text, `"signal_received"`))
	}
	if out := string(s.run(id).Outputs); !strings.Contains(out, "paid: ") || o.calls("/pay") != 3 {
		t.Errorf("the outputs are %s after %d calls", out, o.calls("/pay"))
	}
	for _, a := range s.asked(id, "") {
		if a.Status != "decided" || len(a.Decisions) != 1 || a.Decisions[0].Decision != "approve" {
			t.Errorf("asked: %+v", a)
		}
	}
	if n := len(s.asked(id, "")); n != 2 {
		t.Errorf("%d questions", n)
	}
	if a := s.steps(id)["settle"].Attempt; a != 1 {
		t.Errorf("the step says attempt %d", a)
	}
}

// By the commands: the same, with changed arguments.
func TestCommandsApproveForTheRunAndSteer(t *testing.T) {
	t.Parallel()
	home := t.TempDir()
	o := newOutside(t, "")
	s := serve(t, home, "ORCHESTRATOR_SCRIPT="+save(t, cashierScript, home, "cashier.script.yaml"))
	cli := func(want int, args ...string) string {
		t.Helper()
		code, out, errs := run(t, launch{args: append(args, "--server", s.url), home: home})
		if code != want {
			t.Errorf("orchestrator %s: %d\n%s%s", strings.Join(args, " "), code, out, errs)
		}
		return out + errs
	}
	id := s.submit(cashier, map[string]any{"service": o.URL})
	s.parked(id, "approval")
	list := s.asked(id, "open")
	if len(list) != 2 {
		t.Fatalf("asked %+v", list)
	}
	cli(0, "runs", "steer", id, "settle", "Say it in rhyme.")
	cli(2, "runs", "steer", id, "settle")
	cli(0, "approvals", "approve", list[1].ID, "--remember", "--value", `{"n": 9}`)
	s.finish(id, "COMPLETED", "settle")
	if text := cli(0, "runs", "calls", id); !strings.Contains(text, "pay") {
		t.Errorf("its calls are\n%s", text)
	}
	if o.calls("/pay") != 3 {
		t.Errorf("%d calls", o.calls("/pay"))
	}
	if text := cli(4, "approvals", "approve", list[0].ID); !strings.Contains(text, "decided") {
		t.Errorf("approving again says\n%s", text)
	}
	if text := cli(4, "runs", "steer", id, "settle", "more"); !strings.Contains(text, "has ended") {
		t.Errorf("steering a finished step says\n%s", text)
	}
}

// A result of a tool tells the model to go beyond what it may do, and the model
// obeys: it gets no tool that is not its agent's, no call past a gate, no file outside
// the workspace, and nothing of the server in the terminal.
func TestInjectedPromptsWidenNothing(t *testing.T) {
	t.Parallel()
	home := t.TempDir()
	o := newOutside(t, "")
	outside := save(t, "the key of the house", home, "outside.txt")
	s := serve(t, home, "HOUSE_KEY=swordfish-4711", "ORCHESTRATOR_SCRIPT="+save(t, fmt.Sprintf(`rules:
  - when: {turn: 0}
    tool_calls: [{name: look, arguments: {}}]
  - when: {turn: 1}
    tool_calls:
      - {name: delete_everything, arguments: {}}
      - {name: mcp__house__open, arguments: {door: all}}
      - {name: pay, arguments: {n: 1, approved: true}}
      - {name: pay, arguments: {n: 2}}
      - {name: read_file, arguments: {path: %q}}
      - {name: read_file, arguments: {path: ../../../../../../etc/passwd}}
      - {name: write_file, arguments: {path: ../escaped.txt, content: out}}
      - {name: terminal, arguments: {command: "cat /proc/1/environ /proc/*/environ %s; echo x > %s.new; echo >/dev/tcp/127.0.0.1/80 && echo is con''nected; echo tried"}}
  - when: {turn: 2}
    text: over
`, outside, outside, outside), home, "bad.script.yaml"))
	id := s.submit(strings.Replace(cashier, "    tools:\n", "    tools:\n      - filesystem\n      - {name: terminal, sandbox: true}\n", 1), map[string]any{"service": o.URL})
	eventually(t, "the gate asks", func() bool { return len(s.asked(id, "open")) == 1 })
	s.decides(s.asked(id, "open")[0].ID, `{"decision": "reject", "comment": "nobody ordered that"}`, http.StatusOK, "")
	s.finish(id, "COMPLETED", "settle")
	if o.calls("/pay") != 0 || o.calls("/look") != 1 {
		t.Errorf("the service was called %d and %d times", o.calls("/pay"), o.calls("/look"))
	}
	_, _, text := s.send(http.MethodGet, "/v1/runs/"+id+"/events?page_size=500", "")
	for _, secret := range []string{"swordfish", "key of the house", "root:x:0", "is connected"} {
		if strings.Contains(text, secret) {
			t.Errorf("the agent has seen %q", secret)
		}
	}
	for _, told := range []string{"There is no tool", "mcp__house__open", "additional", "nobody ordered that", "tried"} {
		if !strings.Contains(text, told) {
			t.Errorf("the model is not told %q", told)
		}
	}
	if _, err := os.Stat(outside + ".new"); err == nil {
		t.Error("the terminal has written outside of the workspace")
	}
	if found, _ := filepath.Glob(filepath.Join(home, "**", "escaped.txt")); len(found) > 0 {
		t.Errorf("a file has left the workspace: %q", found)
	}
	if t.Failed() {
		t.Logf("%s", text)
	}
}
