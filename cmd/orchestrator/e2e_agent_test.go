//go:build unix

package main_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/orchestrator-project/orchestrator/store/storetest"
)

// An agent whose tools tell a service outside: it counts what has really happened.
const clerk = `name: clerk
inputs: {service: {type: string}}
agents:
  checker:
    instructions: You check what was done.
    tools: [{name: check, http: {method: POST, url: "{{ inputs.service }}/check"}, effect: at_least_once}]
  clerk:
    instructions: You settle complaints.
    limits: {steps: 6}
    tools:
      - {name: look, http: {url: "{{ inputs.service }}/look"}, effect: pure}
      - {name: note, http: {method: POST, url: "{{ inputs.service }}/note"}, effect: at_least_once}
      - {name: pay, http: {method: POST, url: "{{ inputs.service }}/pay"}, effect: at_most_once}
      - {name: refund, http: {method: POST, url: "{{ inputs.service }}/refund"}, effect: at_most_once, approval: always}
      - {name: checker, agent: checker, description: Checks.}
steps:
  - {id: settle, agent: clerk, prompt: Settle it.}
outputs: {said: "{{ settle }}"}
`

const clerkScript = `rules:
  - when: {agent: checker, turn: 0}
    tool_calls: [{name: check, arguments: {}}]
  - when: {agent: checker}
    text: checked
  - when: {agent: clerk, turn: 0}
    tool_calls:
      - {name: look, arguments: {}}
      - {name: note, arguments: {}}
      - {name: pay, arguments: {}}
      - {name: refund, arguments: {}}
      - {name: checker, arguments: {prompt: "Is all well?"}}
  - when: {agent: clerk, last_user: {contains: in rhyme}}
    text: settled, in rhyme
  - when: {agent: clerk}
    text: settled
`

// outside is the service: it counts its calls and can keep one from being answered.
type outside struct {
	*httptest.Server
	mu    sync.Mutex
	count map[string]int
	hold  string // the path whose calls are not answered
	free  chan struct{}
}

func newOutside(t *testing.T, hold string) *outside {
	t.Helper()
	o := &outside{count: map[string]int{}, hold: hold, free: make(chan struct{})}
	o.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		o.mu.Lock()
		o.count[r.URL.Path]++
		held := r.URL.Path == o.hold
		o.mu.Unlock()
		if held {
			select {
			case <-o.free:
			case <-r.Context().Done():
				return
			}
		}
		_, _ = fmt.Fprintf(w, "did %s", r.URL.Path)
	}))
	t.Cleanup(func() { o.open(); o.Close() })
	return o
}

func (o *outside) calls(path string) int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.count[path]
}

func (o *outside) open() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.hold != "" {
		o.hold = ""
		close(o.free)
	}
}

// kill -9 of the server while an agent is at work, at each of these points, on
// both stores: what is finished is not done again, by an external counter; what
// may run once is asked about; approvals survive.
func TestAgentsSurviveKill(t *testing.T) {
	t.Parallel()
	for _, on := range []string{"sqlite", "postgres"} {
		for _, held := range []string{"/look", "/note", "/pay", "/check", "/refund", ""} {
			t.Run(on+held, func(t *testing.T) {
				t.Parallel()
				home := t.TempDir()
				env := []string{"ORCHESTRATOR_SCRIPT=" + save(t, clerkScript, home, "clerk.script.yaml")}
				if on == "postgres" {
					env = append(env, "DATABASE_URL="+storetest.Postgres(t))
				}
				o := newOutside(t, held)
				s := serve(t, home, env...)
				id := s.submit(clerk, map[string]any{"service": o.URL})
				if held == "/refund" {
					s.approveAll(id, "")
				}
				if held != "" {
					eventually(t, held+" is being called", func() bool { return o.calls(held) == 1 })
				} else {
					s.parked(id, "approval")
				}
				s.kill()
				o.open()
				s = s.again()
				if held == "" { // it waits, and keeps what it is told
					if code, _, text := run(t, launch{args: []string{"runs", "steer", id, "settle", "Say it in rhyme.", "--server", s.url}, home: home}); code != 0 {
						t.Errorf("steer: %d", code)
						t.Log(text)
					}
				}
				doubts := s.approveAll(id, "COMPLETED")
				r := s.run(id)
				want := "settled"
				if held == "" {
					want = "settled, in rhyme"
				}
				if !strings.Contains(string(r.Outputs), `"`+want+`"`) {
					t.Errorf("the outputs are %s", r.Outputs)
				}
				for _, path := range []string{"/look", "/note", "/pay", "/check", "/refund"} {
					n, most := o.calls(path), 1
					if path == held && path != "/pay" && path != "/refund" || path == "/look" || path == "/check" && held == "/note" {
						most = 2
					}
					if held != "" && path == "/note" || held != "" && path == "/check" { // was under way, perhaps
						most = 2
					}
					least := 1
					if strings.Contains(doubts, "called "+path[1:]+" ") { // the kill came between its record and the call, perhaps
						least = 0
					}
					if n < least || n > most {
						t.Errorf("%s was called %d times, %d to %d are right", path, n, least, most)
					}
				}
				var list struct {
					Events []struct {
						Type string
						Data json.RawMessage
					}
				}
				s.get("/v1/runs/"+id+"/events?page_size=500", &list)
				turns := 0
				for _, e := range list.Events {
					if e.Type == "model_called" {
						turns++
					}
				}
				if turns != 4 {
					t.Errorf("%d turns are recorded", turns)
				}
				if code, _, text := run(t, launch{args: []string{"runs", "steer", id, "settle", "Too late.", "--server", s.url}, home: home}); code != 4 || !strings.Contains(text, "ended") {
					t.Errorf("a message that comes too late: %d %s", code, text)
				}
				s.stop()
			})
		}
	}
}

// approveAll lets people say yes to what is asked, and of calls in doubt that they
// are done, until the run has a status; empty: until something was approved. It
// returns what was in doubt.
func (s *server) approveAll(id, status string) (doubts string) {
	s.process.t.Helper()
	eventually(s.process.t, "the agent has its decisions", func() bool {
		var list struct {
			Approvals []struct{ ID, Kind, Question string }
		}
		s.get("/v1/approvals?status=open&run_id="+id, &list)
		for _, a := range list.Approvals {
			body := `{"decision": "approve"}`
			if a.Kind == "needs_decision" {
				body = `{"decision": "done", "value": "did it"}`
				doubts += a.Question + "\n"
			}
			if code, _, text := s.send(http.MethodPost, "/v1/approvals/"+a.ID+":decide", body); code != http.StatusOK && code != http.StatusConflict {
				s.process.t.Errorf("decide: %d %s", code, text)
			}
		}
		if status == "" {
			return len(list.Approvals) > 0
		}
		return s.run(id).Status == status
	})
	return doubts
}
