package executor_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/orchestrator-project/orchestrator/executor"
	"github.com/orchestrator-project/orchestrator/pipeline"
	"github.com/orchestrator-project/orchestrator/store"
	"github.com/orchestrator-project/orchestrator/store/storetest"
)

// mutedStore is a store whose heartbeats do not arrive for a while: the lease
// expires although the process lives and keeps its connections.
type mutedStore struct {
	store.Store
	muted atomic.Bool
}

func (s *mutedStore) Heartbeat(ctx context.Context, r store.ReplicaID) (store.Pulse, error) {
	if s.muted.Load() {
		return store.Pulse{}, &pipeline.Error{Kind: pipeline.Unavailable, Text: "nothing arrives"}
	}
	return s.Store.Heartbeat(ctx, r)
}

// takeover is a replica that has lost a run with a step under way, and another
// that has taken the run over and waits for that step's attempt.
type takeover struct {
	t        *testing.T
	old      *mutedStore
	one, two *engine
	run      pipeline.RunID
	calls    atomic.Int32
	release  chan string // what the first attempt gives
}

func shortLease(c *executor.Config) {
	c.TTL, c.AdoptionWait, c.RemoteWait = briefLease, time.Minute, time.Minute
}

func lose(t *testing.T, source string) *takeover {
	t.Helper()
	dsn := storetest.Postgres(t)
	o := &takeover{t: t, old: &mutedStore{Store: openPostgres(t, dsn, briefLease)}, release: make(chan string, 1)}
	begun := make(chan struct{}, 1)
	o.one = start(t, o.old, func(ctx context.Context, _ executor.Env, do string) (any, error) {
		o.calls.Add(1)
		begun <- struct{}{}
		select {
		case said := <-o.release:
			if said == "fail" {
				return nil, pipeline.Failuref(pipeline.CategorySystem, "told to fail")
			}
			return do + " " + said, nil
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}, shortLease)
	o.run = o.one.submit(source, nil)
	<-begun
	o.one.await("the start on record", func() bool { return o.count(pipeline.StepStarted) > 0 })
	o.old.muted.Store(true)
	o.two = start(t, openPostgres(t, dsn, briefLease), func(_ context.Context, _ executor.Env, do string) (any, error) {
		o.calls.Add(1)
		return do + " again", nil
	}, shortLease)
	o.two.await("the takeover", func() bool { return o.count(pipeline.RunResumed) > 0 })
	return o
}

func (o *takeover) events() (list []pipeline.Event) {
	o.t.Helper()
	for e, err := range o.one.store.Events(context.Background(), o.run, 0) {
		if err != nil {
			o.t.Fatal(err)
		}
		list = append(list, e)
	}
	return list
}

func (o *takeover) count(typ pipeline.EventType) (n int) {
	for _, e := range o.events() {
		if e.Type == typ {
			n++
		}
	}
	return n
}

const oneLong = "steps:\n- {id: a, action: probe, with: {do: long}}\noutputs: {a: '{{ a }}'}"

// Promise 2: what a process has under way when it loses its lease is taken over
// with its result, not begun again.
func TestPromise2AnAttemptOfALostLeaseIsAdopted(t *testing.T) {
	for name, when := range map[string]string{"ends after the loss is known": "after", "ends before": "before"} {
		t.Run(name, func(t *testing.T) {
			o := lose(t, oneLong)
			if when == "before" {
				o.release <- "work"
			}
			o.old.muted.Store(false)
			if when == "after" {
				o.one.await("the attempt to be claimed", func() bool {
					list, err := o.two.store.Inbox(context.Background(), []pipeline.RunID{o.run})
					return err == nil && len(list) > 0 && list[0].Kind == store.MessageAttempt
				})
				o.release <- "work"
			}
			run, v := o.two.wait(o.run)
			if run.Outputs["a"] != "long work" || o.calls.Load() != 1 || v.Step("a").Attempt != 1 {
				t.Errorf("after %d calls attempt %d gave %v, the run is %s: %v", o.calls.Load(), v.Step("a").Attempt, run.Outputs, run.Status, run.Error)
			}
			adopted := false
			for _, e := range o.events() {
				if e.Type == pipeline.RunResumed && e.Data.Reason != pipeline.ReasonLeaseExpired {
					t.Errorf("it was resumed because of %s", e.Data.Reason)
				}
				adopted = adopted || e.Type == pipeline.StepFinished && e.Data.Adopted
			}
			if !adopted {
				t.Error("the log does not say that the attempt was adopted")
			}
			if left, err := o.two.store.Inbox(context.Background(), []pipeline.RunID{o.run}); err != nil || len(left) > 0 {
				t.Errorf("%d messages are left: %v", len(left), err)
			}
		})
	}
}

// Promise 7: a process that was only slow has not died.
func TestPromise7AnAdoptedAttemptIsNoDeath(t *testing.T) {
	o := lose(t, "steps:\n- {id: a, action: probe, with: {do: long}, retry: {max_attempts: 2}}\noutputs: {a: '{{ a }}'}")
	o.release <- "fail"
	o.old.muted.Store(false)
	run, v := o.two.wait(o.run)
	if run.Status != pipeline.RunCompleted || v.Step("a").Attempt != 2 {
		t.Fatalf("the run is %s after attempt %d: %v", run.Status, v.Step("a").Attempt, run.Error)
	}
	m := pipeline.NewMachine(o.two.submission("steps:\n- {id: a, action: probe, with: {do: long}}", nil).Plan, *run)
	for _, e := range o.events() {
		if e.Type == pipeline.StepFinished {
			break
		}
		if err := m.Apply(&e); err != nil {
			t.Fatal(err)
		}
	}
	if n := m.Deaths("a"); n != 0 {
		t.Errorf("%d deaths are held against the step", n)
	}
}

// A report is taken once, from those who hold the attempt that is waited for.
func TestReportsAreForTheAttemptThatIsWaitedFor(t *testing.T) {
	o := lose(t, oneLong)
	token := o.two.TokenOf(o.run, "a", 1)
	refused := func(reason string, token executor.AttemptToken) {
		t.Helper()
		err := o.two.Report(t.Context(), executor.Report{Token: token, State: executor.ReportFinished, Output: "forged"})
		if e, ok := err.(*pipeline.Error); !ok || e.Reason != reason { //nolint:errorlint // as Report promises
			t.Errorf("got %v, want the reason %s", err, reason)
		}
	}
	for i := range token { // each letter counts
		c := "A"
		if token[i] == 'A' {
			c = "Q"
		}
		refused("token_invalid", token[:i]+executor.AttemptToken(c)+token[i+1:])
	}
	refused("token_invalid", "")
	refused("attempt_over", o.two.TokenOf(o.run, "a", 2))
	refused("attempt_over", o.two.TokenOf(o.run, "b", 1))
	if err := o.two.Report(t.Context(), executor.Report{Token: token, State: "odd"}); pipeline.KindOf(err) != pipeline.Invalid {
		t.Errorf("an odd state: %v", err)
	}
	// A third process knows neither of them and leaves a message.
	if err := o.one.Report(t.Context(), executor.Report{Token: token, State: executor.ReportFinished, Output: "reported", Worker: "somebody"}); err != nil {
		t.Fatal(err)
	}
	run, _ := o.two.wait(o.run)
	if run.Outputs["a"] != "reported" || o.calls.Load() != 1 {
		t.Errorf("after %d calls the run gave %v", o.calls.Load(), run.Outputs)
	}
	refused("attempt_over", token)
}

// What nobody claims is begun again.
func TestALostAttemptIsBegunAgain(t *testing.T) {
	o := lose(t, oneLong)
	if err := o.two.Report(t.Context(), executor.Report{Token: o.two.TokenOf(o.run, "a", 1), State: executor.ReportHeld}); err != nil {
		t.Fatal(err)
	}
	if err := o.two.Report(t.Context(), executor.Report{Token: o.two.TokenOf(o.run, "a", 1), State: executor.ReportLost}); err != nil {
		t.Fatal(err)
	}
	run, v := o.two.wait(o.run)
	if run.Outputs["a"] != "long again" || v.Step("a").Attempt != 2 {
		t.Errorf("attempt %d gave %v", v.Step("a").Attempt, run.Outputs)
	}
}

// Promise 2: a database that is away for longer than a lease lasts repeats
// nothing, whether steps end meanwhile or not.
func TestAnOutageOfTheDatabaseRepeatsNothing(t *testing.T) {
	wire, through := startProxy(t, storetest.Postgres(t))
	ledger := filepath.Join(t.TempDir(), "ledger")
	hold, cut := make(chan struct{}), make(chan struct{}, 100)
	act := func(_ context.Context, env executor.Env, do string) (any, error) {
		f, err := os.OpenFile(ledger, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600) //nolint:gosec // of the test
		if err != nil {
			return nil, err
		}
		if _, err = fmt.Fprintf(f, "%s\n", env.IdempotencyKey()); err == nil {
			err = f.Close()
		}
		if do == "4x" {
			cut <- struct{}{}
		}
		if do == "4x" || do == "5x" {
			<-hold
		}
		return do, err
	}
	change := func(c *executor.Config) { c.TTL, c.AdoptionWait = briefLease, 50*time.Millisecond }
	one := start(t, openPostgres(t, through, briefLease), act, change)
	two := start(t, openPostgres(t, through, briefLease), act, change)
	var ids []pipeline.RunID
	for i := range 6 {
		e := []*engine{one, two}[i%2]
		ids = append(ids, e.submit(tenSteps, nil))
	}
	for range ids {
		<-cut
	}
	wire.cut(true)
	silent := func(e *engine) func() bool {
		return func() bool {
			var err *pipeline.Error
			ready := e.Ready(t.Context())
			err, _ = ready.(*pipeline.Error) //nolint:errorlint // as Ready gives it
			return err != nil && err.Reason == "no_heartbeat"
		}
	}
	one.await("the lease of the first to expire", silent(one))
	two.await("the lease of the second to expire", silent(two))
	close(hold) // the steps end while nobody can record it
	wire.cut(false)
	for _, id := range ids {
		run, v := one.wait(id)
		if run.Status != pipeline.RunCompleted {
			t.Errorf("run %s: %s %v", id, run.Status, run.Error)
		}
		for _, s := range v.Steps {
			if s.Attempt > 1 {
				t.Errorf("%s of run %s ended with attempt %d", s.Path, id, s.Attempt)
			}
		}
	}
	text, err := os.ReadFile(ledger) //nolint:gosec // of the test
	if err != nil {
		t.Fatal(err)
	}
	times := map[string]int{}
	for line := range strings.Lines(string(text)) {
		times[line]++
	}
	for key, n := range times {
		if n > 1 {
			t.Errorf("%s ran %d times", strings.TrimSpace(key), n)
		}
	}
	if len(times) != 60 {
		t.Errorf("%d steps ran, want 60", len(times))
	}
}

// Promise 3: what a step hands on to tell repetitions apart is equal over its
// attempts, and over the owners of its run.
func TestPromise3IdempotencyKeysAreEqualOverAttemptsAndOwners(t *testing.T) {
	s := storetest.Open(t)
	keys, stuck := make(chan string, 10), make(chan struct{}, 1)
	var requests atomic.Int32
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		keys <- r.Header.Get("Idempotency-Key")
		switch requests.Add(1) {
		case 1:
			w.WriteHeader(http.StatusServiceUnavailable)
		case 2: // its owner leaves meanwhile
			_, _ = io.Copy(io.Discard, r.Body)
			stuck <- struct{}{}
			<-r.Context().Done()
		}
	}))
	defer web.Close()
	source := fmt.Sprintf(`
steps:
- {id: pay, action: http, with: {url: %q, method: post, json: {n: 1}}, retry: {max_attempts: 5, initial: 1ms, on: [system]}}
- id: note
  dependencies: [pay]
  run: echo "$ORCHESTRATOR_IDEMPOTENCY_KEY" >>keys; test "$ORCHESTRATOR_ATTEMPT" -gt 2 && cat keys
  retry: {max_attempts: 5, initial: 1ms, on: [failed]}
outputs: {keys: '{{ note }}'}`, web.URL)
	dir := t.TempDir()
	shortly := func(c *executor.Config) { c.Grace, c.Workspace = 10*time.Millisecond, dir }
	one := start(t, s, nil, shortly)
	id := one.submit(source, nil)
	<-stuck
	one.stop()
	run, _ := start(t, s, nil, shortly).wait(id)
	if run.Status != pipeline.RunCompleted {
		t.Fatalf("the run is %s: %v", run.Status, run.Error)
	}
	close(keys)
	for key := range keys {
		if want := string(id) + "/pay"; key != want {
			t.Errorf("a request had the key %q, want %q", key, want)
		}
	}
	text, _ := run.Outputs["keys"].(string)
	if want := strings.TrimSpace(strings.Repeat(string(id)+"/note\n", 3)); strings.TrimSpace(text) != want {
		t.Errorf("the command had the keys %q, want %q", text, want)
	}
}
