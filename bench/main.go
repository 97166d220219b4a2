// Bench measures what Orchestrator promises about speed and idleness, against
// a real `orchestrator serve` process and a real PostgreSQL, in one run:
//
//	make bench
//
// It prints one row per figure with its target and writes them to
// .cache/bench.json. Two figures are gates, since they depend on the design
// and not on the machine: commits per step and WAL bytes per step. Only they
// decide the exit code. README.md beside this file tells how each is measured.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/orchestrator-project/orchestrator/scripts/replica"
)

type config struct {
	url    string
	binary string
	window time.Duration
	runs   int
	steps  int
	large  int
	out    string
}

func main() {
	var c config
	flag.StringVar(&c.url, "url", os.Getenv("TEST_DATABASE_URL"), "a PostgreSQL `server`, on which a database is made for this run")
	flag.StringVar(&c.binary, "binary", "bin/orchestrator", "the server's `file`")
	flag.DurationVar(&c.window, "window", 15*time.Second, "how long each throughput is measured")
	flag.IntVar(&c.runs, "runs", 256, "concurrent runs")
	flag.IntVar(&c.steps, "steps", 10, "steps of each of these runs")
	flag.IntVar(&c.large, "large", 10_000, "steps of the wide and the long run")
	flag.StringVar(&c.out, "json", ".cache/bench.json", "`file` for the figures")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	ok, err := run(ctx, c)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
	}
	if err != nil || !ok {
		os.Exit(1)
	}
}

// figure is one measured number.
type figure struct {
	Name     string  `json:"name"`
	Measured float64 `json:"measured"`
	Unit     string  `json:"unit"`
	Target   string  `json:"target,omitempty"`
	OK       *bool   `json:"ok,omitempty"` // nil: no target
	Gate     bool    `json:"gate,omitempty"`
}

// report collects figures and shows each as soon as it is known.
type report struct{ figures []figure }

func (r *report) add(name string, value float64, unit string) {
	r.put(figure{Name: name, Measured: value, Unit: unit})
}

func (r *report) atMost(name string, value float64, unit string, limit float64) {
	ok := value <= limit
	r.put(figure{Name: name, Measured: value, Unit: unit, Target: fmt.Sprintf("<= %g", limit), OK: &ok})
}

func (r *report) atLeast(name string, value float64, unit string, limit float64) {
	ok := value >= limit
	r.put(figure{Name: name, Measured: value, Unit: unit, Target: fmt.Sprintf(">= %g", limit), OK: &ok})
}

func (r *report) gate(name string, value float64, unit string, limit float64) {
	r.atMost(name, value, unit, limit)
	r.figures[len(r.figures)-1].Gate = true
}

func (r *report) put(f figure) {
	r.figures = append(r.figures, f)
	fmt.Fprintf(os.Stderr, "bench: %s = %s %s\n", f.Name, number(f.Measured), f.Unit)
}

// passed reports whether every gate holds.
func (r *report) passed() bool {
	for _, f := range r.figures {
		if f.Gate && !*f.OK {
			return false
		}
	}
	return true
}

func number(v float64) string {
	switch {
	case v >= 100:
		return fmt.Sprintf("%.0f", v)
	case v >= 10:
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.3f", v)
}

func (r *report) print() {
	w := tabwriter.NewWriter(os.Stdout, 0, 4, 2, ' ', 0)
	fmt.Fprintln(w, "figure\tmeasured\tunit\ttarget\tok")
	for _, f := range r.figures {
		mark := ""
		switch {
		case f.OK == nil:
		case *f.OK:
			mark = "yes"
		default:
			mark = "NO"
		}
		if f.Gate {
			mark += " (gate)"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", f.Name, number(f.Measured), f.Unit, f.Target, mark)
	}
	_ = w.Flush()
}

func (r *report) write(name, server string) error {
	text, err := json.MarshalIndent(map[string]any{
		"at": time.Now().UTC().Format(time.RFC3339), "go": runtime.Version(), "os": runtime.GOOS, "arch": runtime.GOARCH,
		"cpus": runtime.NumCPU(), "postgres": server, "figures": r.figures,
	}, "", "  ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(name), 0o750); err != nil {
		return err
	}
	return os.WriteFile(name, append(text, '\n'), 0o600)
}

// run measures everything; it reports whether the gates hold.
func run(ctx context.Context, c config) (ok bool, err error) {
	r := &report{}
	defer func() {
		if len(r.figures) > 0 {
			r.print()
		}
	}()
	if err := language(r); err != nil {
		return false, fmt.Errorf("language: %w", err)
	}
	if err := embedded(ctx, c, r); err != nil {
		return false, fmt.Errorf("embedded store: %w", err)
	}
	if err := idle(ctx, c, r); err != nil {
		return false, fmt.Errorf("idle server: %w", err)
	}
	db, err := replica.NewDatabase(ctx, c.url, "bench")
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, db.Drop()) }()
	server, err := shared(ctx, c, db.URL, r)
	if err != nil {
		return false, err
	}
	return r.passed(), r.write(c.out, server)
}

// embedded measures the memory of an idle server on the embedded store.
func embedded(ctx context.Context, c config, r *report) (err error) {
	s, err := start(ctx, c, "")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.end()) }()
	for range 20 {
		if _, err := s.finish(ctx, chain(c.steps), 0); err != nil {
			return err
		}
	}
	if err := sleep(ctx, 5*time.Second); err != nil {
		return err
	}
	if now, _ := s.process.Memory(); now > 0 {
		r.atMost("memory of an idle server on SQLite", float64(now)/(1<<20), "MiB", 60)
	}
	return nil
}

// shared measures the server on PostgreSQL; it returns what PostgreSQL that is.
func shared(ctx context.Context, c config, url string, r *report) (server string, err error) {
	pg, err := connect(ctx, url)
	if err != nil {
		return "", err
	}
	defer pg.close()
	server = pg.describe(ctx)

	plain, err := plainLoop(ctx, c, pg)
	if err != nil {
		return server, fmt.Errorf("plain loop: %w", err)
	}
	r.add("plain loop, one commit per step, 32 connections", plain, "steps/s")

	s, err := start(ctx, c, url)
	if err != nil {
		return server, err
	}
	defer func() { err = errors.Join(err, s.end()) }()

	source := chain(c.steps)
	if _, err := s.unwatched(ctx, c, source, 3*time.Second); err != nil { // warms caches and connections up
		return server, fmt.Errorf("warming up: %w", err)
	}
	load, err := measured(ctx, s, pg, func() (int, error) { return s.unwatched(ctx, c, source, c.window) })
	if err != nil {
		return server, fmt.Errorf("throughput: %w", err)
	}
	r.add(fmt.Sprintf("%d concurrent runs of %d steps", c.runs, c.steps), load.stepsPerSecond, "steps/s")
	r.atLeast("ratio to the plain loop", load.stepsPerSecond/plain, "", 2.5)
	r.gate("commits per step", load.commitsPerStep, "", 0.2)
	r.gate("WAL per step", load.walPerStep, "bytes", 2048)
	r.add("processor time of the server per step", load.cpuPerStep*1e6, "us")

	if load, err = measured(ctx, s, pg, func() (int, error) { return s.watched(ctx, c, source, c.window/2) }); err != nil {
		return server, fmt.Errorf("watched throughput: %w", err)
	}
	r.add("the same with each run watched by its caller", load.stepsPerSecond, "steps/s")
	r.add("statements per step then, reads included", load.commitsPerStep, "")

	p50, p99, err := latency(ctx, s)
	if err != nil {
		return server, fmt.Errorf("latency: %w", err)
	}
	r.atMost("one run of one step, submitted to finished, p50", p50, "ms", 5)
	r.add("one run of one step, submitted to finished, p99", p99, "ms")

	if err := pure(ctx, s, pg, r); err != nil {
		return server, err
	}
	if err := items(ctx, s, r); err != nil {
		return server, err
	}
	return server, large(ctx, c, s, r)
}

// idle measures how many statements a server sends that has nothing to do, on a
// database of its own that has seen little.
func idle(ctx context.Context, c config, r *report) (err error) {
	db, err := replica.NewDatabase(ctx, c.url, "bench_idle")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Drop()) }()
	pg, err := connect(ctx, db.URL)
	if err != nil {
		return err
	}
	defer pg.close()
	// Autovacuum's visits would count as statements of the server.
	quiet := func(how string) error {
		for _, sql := range []string{"ALTER SYSTEM " + how, "SELECT pg_reload_conf()"} {
			if _, err := pg.conn.Exec(ctx, sql); err != nil {
				return err
			}
		}
		return nil
	}
	if err := quiet("SET autovacuum = off"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, quiet("RESET autovacuum")) }()
	s, err := start(ctx, c, db.URL)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.end()) }()
	if _, err := s.finish(ctx, chain(c.steps), 0); err != nil {
		return err
	}
	if err := sleep(ctx, 10*time.Second); err != nil {
		return err
	}
	rate, err := pg.statements(ctx, 20*time.Second)
	if err != nil {
		return err
	}
	r.atMost("statements of an idle server", rate, "1/s", 0.5)
	return nil
}

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}
