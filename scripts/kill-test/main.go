// Kill-test kills a server with SIGKILL at random moments while runs are under
// way, starts it again each time, and then proves from the outside that nothing
// was lost and nothing was recorded twice:
//
//	make kill-test
//	go run ./scripts/kill-test -runs 200 -kills 10 -seed 42 -url postgres://...
//
// The steps are commands that append a line to a ledger, a file that the server
// knows nothing of, and print a token. At the end it holds the ledger against
// what the API tells. It demands that every submission that was acknowledged
// has completed, that each run's events count from 1 without a gap, that
// each step has one result and that this is the token of an effect in the
// ledger, that no attempt number was used twice, and that those who watched
// all the time saw the same log. Effects may have run more than once, always
// with the same idempotency key; it says how many did.
//
// A part of the runs waits for timers, retries, signals and people, each time
// long enough to leave memory. Signals and decisions come while the server dies:
// each that was acknowledged must have been taken once, and of two people who
// decide the same, one. At last it parks many runs on an embedded store and
// tells what they cost a server in memory and goroutines.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/orchestrator-project/orchestrator/scripts/replica"
)

type config struct {
	url      string
	binary   string
	runs     int
	steps    int
	kills    int
	parked   int
	seed     uint64
	patience time.Duration
}

func main() {
	var c config
	flag.StringVar(&c.url, "url", os.Getenv("TEST_DATABASE_URL"), "a PostgreSQL `server`, on which a database is made for this test; sqlite: the embedded store")
	flag.StringVar(&c.binary, "binary", "bin/orchestrator", "the server's `file`")
	flag.IntVar(&c.runs, "runs", 200, "how many runs are submitted")
	flag.IntVar(&c.steps, "steps", 10, "how many steps each run has")
	flag.IntVar(&c.kills, "kills", 10, "how often the server is killed")
	flag.IntVar(&c.parked, "parked", 2000, "how many waiting runs are measured in the end")
	flag.Uint64Var(&c.seed, "seed", uint64(time.Now().UnixNano()), "decides the moments of the kills")
	flag.DurationVar(&c.patience, "patience", 5*time.Minute, "how long the runs may take after the last kill")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	violations, err := run(ctx, c)
	stop()
	for i, v := range violations {
		if i == 50 {
			fmt.Printf("... and %d more\n", len(violations)-i)
			break
		}
		fmt.Println("VIOLATION:", v)
	}
	switch {
	case err != nil:
		fmt.Fprintln(os.Stderr, "kill-test:", err)
		os.Exit(1)
	case len(violations) > 0:
		fmt.Printf("kill-test: FAILED with %d violations; repeat with -seed %d\n", len(violations), c.seed)
		os.Exit(1)
	}
	fmt.Println("kill-test: passed")
}

func run(ctx context.Context, c config) (violations []string, err error) {
	fmt.Printf("kill-test: %d runs of %d steps, %d kills, seed %d\n", c.runs, c.steps, c.kills, c.seed)
	home, err := os.MkdirTemp("", "orchestrator-kill-test")
	if err != nil {
		return nil, err
	}
	keep := false // the server's log, when there is something to look for in it
	defer func() {
		if keep || err != nil {
			fmt.Println("kill-test: the server's log and the ledger stand in", home)
			return
		}
		err = os.RemoveAll(home)
	}()
	url := ""
	if c.url != "sqlite" {
		db, err := replica.NewDatabase(ctx, c.url, "kill_test")
		if err != nil {
			return nil, err
		}
		defer func() { err = errors.Join(err, db.Drop()) }()
		url = db.URL
	}
	log, err := os.Create(filepath.Join(home, "server.log")) //nolint:gosec // in our own folder
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, log.Close()) }()
	addr, err := replica.FreeAddr(ctx)
	if err != nil {
		return nil, err
	}
	server := &server{
		config: replica.Config{Binary: c.binary, DatabaseURL: url, Home: home, Addr: addr, Log: log},
		random: rand.New(rand.NewPCG(c.seed, 1)), //nolint:gosec // repeatable, not secret
	}
	if err := server.start(ctx); err != nil {
		return nil, err
	}
	defer server.end()
	conn, err := replica.Dial(addr)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, conn.Close()) }()

	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	l := newLoad(conn, c, filepath.Join(home, "ledger.txt"))
	began := time.Now()
	done := make(chan error, 1)
	go func() { done <- l.run(ctx) }()
	for i := range c.kills {
		if err := server.strike(ctx, i+1, l.spared); err != nil {
			cancel(err)
			return nil, errors.Join(err, <-done)
		}
		fmt.Printf("kill-test: kill %d of %d, %.1f s after the start; %d runs submitted, %d finished\n",
			i+1, c.kills, time.Since(began).Seconds(), l.submitted.Load(), l.finished.Load())
	}
	if l.finished.Load() == int64(c.runs) {
		fmt.Println("kill-test: every run had finished before the last kill: more runs or fewer kills would test more")
	}
	late := time.AfterFunc(c.patience, func() {
		cancel(fmt.Errorf("%d of %d runs have not finished %v after the last kill", int64(c.runs)-l.finished.Load(), c.runs, c.patience))
	})
	err = <-done
	late.Stop()
	if err != nil {
		return nil, errors.Join(err, context.Cause(ctx))
	}
	fmt.Printf("kill-test: all %d runs have finished after %.1f s\n", c.runs, time.Since(began).Seconds())
	if violations, err = l.check(ctx); err != nil {
		return nil, err
	}
	server.end()
	more, err := parked(ctx, c, home, log)
	violations = append(violations, more...)
	keep = len(violations) > 0
	return violations, err
}

// The time between two kills is drawn evenly from leastGap on, around meanGap.
const (
	leastGap = 300 * time.Millisecond
	meanGap  = 1550 * time.Millisecond
)

// server is the process that gets killed again and again.
type server struct {
	config  replica.Config
	random  *rand.Rand
	process *replica.Replica
}

func (s *server) start(ctx context.Context) (err error) {
	s.process, err = replica.Start(ctx, s.config)
	return err
}

func (s *server) end() {
	if s.process != nil {
		s.process.Kill()
	}
}

// strike kills the server after a while, once it may, and starts it again. Each
// fourth time it also kills the new one while that is starting.
func (s *server) strike(ctx context.Context, n int, may func() bool) error {
	wait := leastGap + time.Duration(s.random.Int64N(int64(2*(meanGap-leastGap))))
	early := time.Duration(s.random.Int64N(int64(250 * time.Millisecond)))
	for first := true; first || !may(); first = false {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-s.process.Done():
			return errors.New("the server ended by itself")
		case <-time.After(wait):
		}
		wait = 10 * time.Millisecond
	}
	s.process.Kill()
	s.process = nil
	if n%4 == 0 {
		short, cancel := context.WithTimeout(ctx, early)
		p, err := replica.Start(short, s.config)
		cancel()
		if err == nil { // it was ready sooner than that
			p.Kill()
		}
	}
	return s.start(ctx)
}
