// Bench measures what Orchestrator promises about speed and idleness, against
// real `orchestrator serve` processes and a real PostgreSQL, in one run:
//
//	make bench
//	go run ./bench -only throughput,latency -profile .cache/profile
//
// It prints one row per figure with its target and writes them to
// .cache/bench.json. Two figures are gates, since they depend on the design
// and not on the machine: commits per step and WAL bytes per step. Only they
// decide the exit code. README.md beside this file tells how each is measured.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/orchestrator-project/orchestrator/scripts/replica"
)

// bench is one run of the measurements.
type bench struct {
	report
	url     string
	binary  string
	window  time.Duration
	rounds  int
	profile string
	server  string // what PostgreSQL that is
}

// parts are what can be measured, each on servers and databases of its own.
var parts = []struct {
	name, doc string
	run       func(*bench, context.Context) error
}{
	{"language", "compilation and evaluation, in this process", (*bench).language},
	{"throughput", "durable steps a second beside a plain loop of commits, and what they write", (*bench).throughput},
	{"latency", "how long one caller waits for one small run", (*bench).latency},
	{"shapes", "one wide run, one long run, one loop over many items", (*bench).shapes},
	{"viewers", "200 viewers of one run", (*bench).viewers},
	{"embedded", "durable steps a second and idle memory on the embedded store", (*bench).embedded},
	{"agents", "agents whose model is a script: a thousand at once, and what one costs", (*bench).agents},
	{"idle", "statements and memory of a server without work, memory of queued runs", (*bench).idle},
	{"kill", "a server killed in the middle of 5,000 steps, and started again", (*bench).kill},
	{"takeover", "1,000 running runs of a killed server, taken over by another", (*bench).takeover},
	{"waiting", "memory of 100,000 waiting runs", (*bench).waiting},
	{"stored", "lists and single runs among 1,000,000", (*bench).stored},
}

func main() {
	b := &bench{}
	var only, out string
	names := make([]string, len(parts))
	for i, p := range parts {
		names[i] = p.name
	}
	flag.StringVar(&b.url, "url", os.Getenv("TEST_DATABASE_URL"), "a PostgreSQL `server`, on which databases are made for this run")
	flag.StringVar(&b.binary, "binary", "bin/orchestrator", "the server's `file`")
	flag.DurationVar(&b.window, "window", 5*time.Second, "how long one throughput is measured in each round")
	flag.IntVar(&b.rounds, "rounds", 3, "how often the throughputs are measured in turn; their medians count")
	flag.StringVar(&only, "only", "", "measure only these `parts`, comma-separated: "+strings.Join(names, ", "))
	flag.StringVar(&b.profile, "profile", "", "write CPU and heap profiles of the measured servers into this `folder`")
	flag.StringVar(&out, "json", ".cache/bench.json", "`file` for the figures")
	flag.Parse()
	if only == "" {
		only = strings.Join(names, ",")
	}
	wanted := strings.Split(only, ",")
	for _, w := range wanted {
		if !slices.Contains(names, w) {
			fmt.Fprintf(os.Stderr, "bench: there is no part %q; the parts are %s\n", w, strings.Join(names, ", "))
			os.Exit(2)
		}
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := b.measure(ctx, wanted)
	stop()
	b.print()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
	} else {
		err = b.write(out, b.server)
	}
	if err != nil || !b.passed() {
		os.Exit(1)
	}
}

// measure runs the wanted parts. One that fails does not keep the others from
// being measured.
func (b *bench) measure(ctx context.Context, wanted []string) (err error) {
	for _, p := range parts {
		if !slices.Contains(wanted, p.name) || ctx.Err() != nil {
			continue
		}
		fmt.Fprintf(os.Stderr, "bench: %s: %s\n", p.name, p.doc)
		if failed := p.run(b, ctx); failed != nil {
			err = errors.Join(err, fmt.Errorf("%s: %w", p.name, failed))
		}
	}
	return errors.Join(err, ctx.Err())
}

// withDatabase calls f with a fresh database of its own.
func (b *bench) withDatabase(ctx context.Context, f func(*postgres) error) (err error) {
	db, err := replica.NewDatabase(ctx, b.url, "bench")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Drop()) }()
	pg, err := connect(ctx, db.URL)
	if err != nil {
		return err
	}
	defer pg.close()
	b.server = pg.describe(ctx)
	return f(pg)
}

// withServer calls f with a fresh database and a server on it, warmed up.
func (b *bench) withServer(ctx context.Context, part string, f func(*session, *postgres) error, environ ...string) error {
	return b.withDatabase(ctx, func(pg *postgres) (err error) {
		s, err := b.start(ctx, pg.url, environ...)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, s.end()) }()
		if _, err := s.batches(ctx, chain(10), 200, 2*time.Second); err != nil {
			return fmt.Errorf("warming up: %w", err)
		}
		profiled, err := b.profiled(ctx, s, part)
		if err != nil {
			return err
		}
		return errors.Join(f(s, pg), profiled())
	})
}

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}
