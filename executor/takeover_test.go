package executor_test

import (
	"context"
	"io"
	"log/slog"
	"net"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/orchestrator-project/orchestrator/executor"
	"github.com/orchestrator-project/orchestrator/pipeline"
	"github.com/orchestrator-project/orchestrator/store"
	"github.com/orchestrator-project/orchestrator/store/postgres"
	"github.com/orchestrator-project/orchestrator/store/storetest"
)

// proxy forwards TCP to the database until it is cut; it can be mended.
type proxy struct {
	net.Listener
	target string
	mu     sync.Mutex
	down   bool
	conns  []net.Conn
	all    sync.WaitGroup
}

// startProxy listens before the database of a connection URL, and returns the
// URL that leads through it.
func startProxy(t *testing.T, dsn string) (*proxy, string) {
	t.Helper()
	u, err := url.Parse(dsn)
	if err != nil {
		t.Fatal(err)
	}
	target := u.Host
	network := "tcp"
	if host := u.Query().Get("host"); host != "" { // a socket's folder
		port := u.Query().Get("port")
		if port == "" {
			port = "5432"
		}
		network, target = "unix", host+"/.s.PGSQL."+port
	} else if !strings.Contains(target, ":") {
		target += ":5432"
	}
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{Listener: l, target: target}
	p.all.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			p.all.Go(func() { p.serve(network, c) })
		}
	})
	t.Cleanup(func() { _ = l.Close(); p.cut(true); p.all.Wait() })
	q := u.Query()
	q.Del("host")
	q.Del("port")
	q.Set("sslmode", "disable")
	u.Host, u.RawQuery = l.Addr().String(), q.Encode()
	return p, u.String()
}

func (p *proxy) serve(network string, c net.Conn) {
	d, err := (&net.Dialer{}).DialContext(context.Background(), network, p.target)
	p.mu.Lock()
	if err != nil || p.down {
		p.mu.Unlock()
		_ = c.Close()
		if err == nil {
			_ = d.Close()
		}
		return
	}
	p.conns = append(p.conns, c, d)
	p.mu.Unlock()
	var both sync.WaitGroup
	for _, pair := range [][2]net.Conn{{c, d}, {d, c}} {
		both.Go(func() {
			_, _ = io.Copy(pair[0], pair[1])
			_ = pair[0].Close()
			_ = pair[1].Close()
		})
	}
	both.Wait()
}

// cut ends all connections and, while down, refuses new ones.
func (p *proxy) cut(down bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.down = down
	for _, c := range p.conns {
		_ = c.Close()
	}
	p.conns = nil
}

// briefLease is how long a lease lasts in tests that lose one: long enough that a
// disk which is slow for a moment loses none by itself.
const briefLease = 4 * time.Second

func openPostgres(t *testing.T, dsn string, ttl time.Duration) store.Store {
	t.Helper()
	s, err := postgres.Open(t.Context(), postgres.Config{URL: dsn, LeaseTTL: ttl, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

const tenSteps = `
steps:
- id: chain
  for: {items: '{{ range(10) }}'}
  action: probe
  with: {do: '{{ item }}x'}
outputs: {n: '{{ chain.results | length }}'}`

// Promise 4: a dead replica's runs continue elsewhere. Promise 2: what the old
// owner had in hand is recorded once, and nothing that it still says counts.
func TestRunsOfALostReplicaContinueElsewhere(t *testing.T) {
	dsn := storetest.Postgres(t)
	lost, through := startProxy(t, dsn)
	var hang atomic.Bool
	hang.Store(true)
	stuck := make(chan struct{}, 100)
	one := start(t, openPostgres(t, through, briefLease), func(ctx context.Context, _ executor.Env, do string) (any, error) {
		if hang.Load() && do == "4x" {
			stuck <- struct{}{}
			<-ctx.Done()
			return nil, ctx.Err()
		}
		return do, nil
	}, func(c *executor.Config) { c.TTL = briefLease; c.Grace = 50 * time.Millisecond })
	var ids []pipeline.RunID
	for range 5 {
		ids = append(ids, one.submit(tenSteps, nil))
	}
	for range ids {
		<-stuck
	}
	lost.cut(true)
	hang.Store(false)
	two := start(t, openPostgres(t, dsn, briefLease), func(_ context.Context, _ executor.Env, do string) (any, error) { return do, nil },
		func(c *executor.Config) { c.TTL = briefLease })
	for _, id := range ids {
		run, v := two.wait(id)
		if run.Status != pipeline.RunCompleted || run.Outputs["n"] != int64(10) {
			t.Fatalf("run %s: %s %v %v", id, run.Status, run.Outputs, run.Error)
		}
		if s := v.Step("chain[4]"); s.Attempt != 2 {
			t.Errorf("the step in flight ended with attempt %d, want 2", s.Attempt)
		}
		if s := v.Step("chain[3]"); s.Attempt != 1 {
			t.Errorf("a finished step has attempt %d", s.Attempt)
		}
	}
}

// A database that goes away for a moment stops runs and loses nothing.
func TestDatabaseOutage(t *testing.T) {
	wire, through := startProxy(t, storetest.Postgres(t))
	var calls atomic.Int32
	e := start(t, openPostgres(t, through, briefLease), func(_ context.Context, _ executor.Env, do string) (any, error) {
		if calls.Add(1) == 3 {
			wire.cut(true)
		}
		return do, nil
	}, func(c *executor.Config) { c.TTL = briefLease })
	id := e.submit(tenSteps, nil)
	e.await("the outage to show", func() bool { return e.store.Ping(t.Context()) != nil })
	if _, err := e.store.Run(t.Context(), id); pipeline.KindOf(err) != pipeline.Unavailable {
		t.Errorf("reading without a database: %v", err)
	}
	wire.cut(false)
	run, _ := e.wait(id)
	if run.Status != pipeline.RunCompleted || run.Outputs["n"] != int64(10) {
		t.Fatalf("%s %v %v", run.Status, run.Outputs, run.Error)
	}
	if n := calls.Load(); n != 10 {
		t.Errorf("%d calls were made for 10 steps", n)
	}
}
