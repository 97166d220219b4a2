//go:build unix

package main_test

import (
	"fmt"
	"net/http"
	"regexp"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/orchestrator-project/orchestrator/store/storetest"
)

// stores are the stores that a server can have, each with its environment.
func stores(t *testing.T) map[string][]string {
	t.Helper()
	return map[string][]string{"SQLite": nil, "PostgreSQL": {"DATABASE_URL=" + storetest.Postgres(t)}}
}

// parked waits until a run only waits, for a reason, and its server no longer
// has it in memory.
func (s *server) parked(id, reason string) {
	s.process.t.Helper()
	eventually(s.process.t, "the run waits for "+reason, func() bool {
		r := s.run(id)
		return r.Status == "WAITING" && r.Reason == reason
	})
	eventually(s.process.t, "no run is in memory", func() bool { return s.metric("orchestrator_runs_active") == 0 })
}

// metric is a figure without labels that the server tells of itself.
func (s *server) metric(name string) (value float64) {
	s.process.t.Helper()
	_, _, text := s.send(http.MethodGet, "/metrics", "")
	at := regexp.MustCompile(`(?m)^` + name + ` (\S+)$`).FindStringSubmatch(text)
	if at == nil {
		s.process.t.Fatalf("/metrics has no %s", name)
	}
	value, err := strconv.ParseFloat(at[1], 64)
	if err != nil {
		s.process.t.Fatal(err)
	}
	return value
}

// once counts the events of a type.
func once(t testing.TB, all []eventInfo, typ string) {
	t.Helper()
	n := 0
	for _, e := range all {
		if e.Type == typ {
			n++
		}
	}
	if n != 1 {
		t.Errorf("the log has %d events %s, want 1", n, typ)
	}
}

func TestAKilledServersApprovalIsDecidedAtTheNext(t *testing.T) {
	t.Parallel()
	for name, env := range stores(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := serve(t, t.TempDir(), env...)
			dir := t.TempDir()
			id := s.submit(`name: release
inputs: {dir: {type: string}}
steps:
  - id: build
    run: echo built >>{{ dir | sh }}/ledger
  - id: consent
    dependencies: [build]
    approve: {question: Release it?}
  - id: ship
    dependencies: [consent]
    run: echo shipped >>{{ dir | sh }}/ledger
outputs: {said: "{{ consent }}"}
`, map[string]any{"dir": dir})
			s.parked(id, "approval")
			s.kill()
			s = s.again()
			var list struct {
				Approvals []struct{ ID, Status, Path string }
			}
			s.get("/v1/approvals?status=open&run_id="+id, &list)
			if len(list.Approvals) != 1 || list.Approvals[0].Path != "consent" {
				t.Fatalf("after the kill the run asks %+v", list.Approvals)
			}
			decide := "/v1/approvals/" + list.Approvals[0].ID + ":decide"
			if code, _, text := s.send(http.MethodPost, decide, `{"decision": "approve"}`); code != http.StatusOK {
				t.Fatalf("decide: %d %s", code, text)
			}
			if code, _, text := s.send(http.MethodPost, decide, `{"decision": "reject"}`); code != http.StatusConflict {
				t.Errorf("deciding again: %d %s", code, text)
			}
			once(t, s.finish(id, "COMPLETED", "build", "consent", "ship"), "approval_decided")
			if out := string(s.run(id).Outputs); out != `{"said":"approve"}` {
				t.Errorf("the outputs are %s", out)
			}
			if got := lines(t, dir, "ledger"); len(got) != 2 {
				t.Errorf("the steps did %q", got)
			}
		})
	}
}

// The time is given rather than a while, so that it is surely past before
// anybody is there again.
func TestATimerThatCameDueWhileNobodyRanWakesItsRun(t *testing.T) {
	t.Parallel()
	for name, env := range stores(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := serve(t, t.TempDir(), env...)
			opens := time.Now().Add(20 * time.Second) // after the run has parked, on a busy machine too
			id := s.submit(fmt.Sprintf("name: shop\nsteps:\n  - {id: night, wait: {until: %q}}\n  - {id: sell, run: echo sold, dependencies: [night]}\n",
				opens.UTC().Format(time.RFC3339Nano)), nil)
			s.parked(id, "timer")
			s.kill()
			eventually(t, "the time has come", func() bool { return time.Now().After(opens) })
			s = s.again()
			s.finish(id, "COMPLETED", "night", "sell")
		})
	}
}

// post is a run that waits for a letter.
const post = `name: post
steps:
  - id: letter
    wait: {signal: letter}
  - id: read
    dependencies: [letter]
    run: echo {{ letter | sh }}
outputs: {text: "{{ read }}"}
`

// delivered holds a run's log to one letter that was read.
func delivered(t *testing.T, s *server, id string) {
	t.Helper()
	once(t, s.finish(id, "COMPLETED", "letter", "read"), "signal_received")
	if out := string(s.run(id).Outputs); out != `{"text":"Dear Ada"}` {
		t.Errorf("the outputs are %s", out)
	}
}

// Whoever else is there takes the run of a frozen server; where nobody is, the
// server finds what was said when it goes on.
func TestASignalReachesTheParkedRunOfAFrozenServer(t *testing.T) {
	t.Parallel()
	t.Run("SQLite", func(t *testing.T) {
		t.Parallel()
		home := t.TempDir()
		s := serve(t, home)
		id := s.submit(post, nil)
		s.parked(id, "signal")
		s.signal(syscall.SIGSTOP)
		code, out, text := run(t, launch{args: []string{"signal", id, "letter", "--data", `"Dear Ada"`}, home: home})
		if code != 0 {
			t.Fatalf("signal: %d\n%s\n%s", code, out, text)
		}
		s.signal(syscall.SIGCONT)
		delivered(t, s, id)
	})
	t.Run("SQLite, a second server", func(t *testing.T) {
		t.Parallel()
		home := t.TempDir()
		frozen(t, serve(t, home), serve(t, home))
	})
	t.Run("PostgreSQL", func(t *testing.T) {
		t.Parallel()
		both := replicas(t)
		frozen(t, both[0], both[1])
	})
}

func frozen(t *testing.T, s, other *server) {
	t.Helper()
	id := s.submit(post, nil)
	s.parked(id, "signal")
	s.process.signal(syscall.SIGSTOP)
	if code, _, text := other.send(http.MethodPost, "/v1/runs/"+id+"/signals/letter", `{"data": "Dear Ada"}`); code != http.StatusOK {
		t.Fatalf("signal: %d %s", code, text)
	}
	delivered(t, other, id)
	s.process.signal(syscall.SIGCONT)
	s.ready()
	if a, b := toJSON(t, s.watch(id, 0, nil)), toJSON(t, other.watch(id, 0, nil)); a != b {
		t.Errorf("the servers tell different stories:\n%s\n%s", a, b)
	}
	s.stop()
	other.stop()
}
