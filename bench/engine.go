package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"

	orchestratorv1 "github.com/orchestrator-project/orchestrator/proto/orchestrator/v1"
	"github.com/orchestrator-project/orchestrator/scripts/replica"
)

// session is a server process with a client of it.
type session struct {
	process *replica.Replica
	conn    *grpc.ClientConn
	runs    orchestratorv1.RunsClient
	home    string
	log     *os.File
}

func start(ctx context.Context, c config, url string) (s *session, err error) {
	s = &session{}
	if s.home, err = os.MkdirTemp("", "orchestrator-bench"); err != nil {
		return nil, err
	}
	if s.log, err = os.Create(filepath.Join(s.home, "server.log")); err != nil {
		return nil, errors.Join(err, os.RemoveAll(s.home))
	}
	if s.process, err = replica.Start(ctx, replica.Config{Binary: c.binary, DatabaseURL: url, Home: s.home, Log: s.log}); err != nil {
		text, _ := os.ReadFile(s.log.Name())
		return nil, errors.Join(fmt.Errorf("%w\n%s", err, text), os.RemoveAll(s.home))
	}
	if s.conn, err = replica.Dial(s.process.Addr); err != nil {
		s.process.Kill()
		return nil, errors.Join(err, os.RemoveAll(s.home))
	}
	s.runs = orchestratorv1.NewRunsClient(s.conn)
	return s, nil
}

func (s *session) end() error {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	return errors.Join(s.conn.Close(), s.process.Stop(ctx), s.log.Close(), os.RemoveAll(s.home))
}

// chain is a pipeline whose steps run one after the other. They may not be
// repeated freely, so each must be durable before the next one starts.
func chain(n int) string {
	var b strings.Builder
	b.WriteString("id: bench-chain\nsteps:\n")
	for i := range n {
		fmt.Fprintf(&b, "  - {id: s%d, action: debug, effect: at_least_once", i)
		if i > 0 {
			fmt.Fprintf(&b, ", dependencies: [s%d]", i-1)
		}
		b.WriteString("}\n")
	}
	return b.String()
}

// wide is a pipeline whose steps need nothing of each other.
func wide(n int) string {
	var b strings.Builder
	b.WriteString("id: bench-wide\nsteps:\n")
	for i := range n {
		fmt.Fprintf(&b, "  - {id: s%d, action: debug}\n", i)
	}
	return b.String()
}

// finish submits a run and returns when its caller knows that it has completed.
// It watches the events after a sequence number; the last one's is returned.
func (s *session) finish(ctx context.Context, source string, after int32) (last int32, err error) {
	run, err := s.runs.CreateRun(ctx, &orchestratorv1.CreateRunRequest{Source: source})
	if err != nil {
		return 0, err
	}
	return s.watch(ctx, run.GetId(), after, nil)
}

// watch reads a run's events to the end, which must be a success.
func (s *session) watch(ctx context.Context, id string, after int32, each func(*orchestratorv1.Event)) (last int32, err error) {
	stream, err := s.runs.WatchRun(ctx, &orchestratorv1.WatchRunRequest{Id: id, After: after})
	if err != nil {
		return 0, err
	}
	for {
		e, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return last, fmt.Errorf("run %s: the stream ended before run_finished", id)
		}
		if err != nil {
			return last, err
		}
		if e.GetSeq() > 0 {
			last = e.GetSeq()
		}
		if each != nil {
			each(e)
		}
		if e.GetType() != "run_finished" {
			continue
		}
		var data struct {
			Run struct {
				Status string `json:"status"`
			} `json:"run"`
		}
		if err := json.Unmarshal([]byte(e.GetData()), &data); err != nil {
			return last, err
		}
		if data.Run.Status != "COMPLETED" {
			return last, fmt.Errorf("run %s ended as %s", id, data.Run.Status)
		}
		_, err = stream.Recv() // the stream's own end
		if !errors.Is(err, io.EOF) {
			return last, fmt.Errorf("run %s: after run_finished: %w", id, err)
		}
		return last, nil
	}
}

type loadResult struct {
	stepsPerSecond, commitsPerStep, walPerStep, cpuPerStep float64
}

// measured runs a load between two looks at the counters. The load returns how
// many steps it was.
func measured(ctx context.Context, s *session, pg *postgres, load func() (steps int, err error)) (l loadResult, err error) {
	if err := pg.checkpoint(ctx); err != nil {
		return l, err
	}
	before, err := pg.counters(ctx)
	if err != nil {
		return l, err
	}
	cpu, began := s.process.CPU(), time.Now()
	steps, err := load()
	if err != nil {
		return l, err
	}
	elapsed := time.Since(began)
	cpu = s.process.CPU() - cpu
	after, err := pg.counters(ctx)
	if err != nil {
		return l, err
	}
	n := float64(steps)
	return loadResult{
		stepsPerSecond: n / elapsed.Seconds(),
		commitsPerStep: float64(after.commits-before.commits) / n,
		walPerStep:     float64(after.wal-before.wal) / n,
		cpuPerStep:     cpu.Seconds() / n,
	}, nil
}

// unwatched keeps c.runs runs under way for a while: callers submit, and a new
// run begins for each that has finished, which the server's metrics tell. It
// returns the steps of all of them, when the last one has finished.
func (s *session) unwatched(ctx context.Context, c config, source string, d time.Duration) (steps int, err error) {
	done, err := s.completed(ctx)
	if err != nil {
		return 0, err
	}
	first := done
	free := make(chan struct{}, c.runs) // runs that may be submitted
	for range c.runs {
		free <- struct{}{}
	}
	var submitted atomic.Int64
	deadline := time.Now().Add(d)
	g, loop := errgroup.WithContext(ctx)
	for range 32 {
		g.Go(func() error {
			for range free {
				if _, err := s.runs.CreateRun(loop, &orchestratorv1.CreateRunRequest{Source: source}); err != nil {
					return err
				}
				submitted.Add(1)
			}
			return nil
		})
	}
	g.Go(func() error {
		defer close(free)
		for time.Now().Before(deadline) {
			if err := sleep(loop, 20*time.Millisecond); err != nil {
				return err
			}
			now, err := s.completed(loop)
			if err != nil {
				return err
			}
			for ; done < now; done++ {
				free <- struct{}{}
			}
		}
		return nil
	})
	if err := g.Wait(); err != nil {
		return 0, err
	}
	for done < first+int(submitted.Load()) {
		if err := sleep(ctx, 5*time.Millisecond); err != nil {
			return 0, err
		}
		if done, err = s.completed(ctx); err != nil {
			return 0, err
		}
	}
	return int(submitted.Load()) * c.steps, nil
}

// completed reads from the server's metrics how many runs it has completed. One
// that ended otherwise is an error.
func (s *session) completed(ctx context.Context) (n int, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+s.process.Addr+"/metrics", nil)
	if err != nil {
		return 0, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		rest, ok := strings.CutPrefix(line, `orchestrator_runs_finished_total{status="`)
		if !ok {
			continue
		}
		status, value, _ := strings.Cut(strings.TrimSpace(rest), `"} `)
		count, err := strconv.ParseFloat(value, 64)
		if err != nil {
			return 0, fmt.Errorf("metrics: %w", err)
		}
		if status != "COMPLETED" && count > 0 {
			return 0, fmt.Errorf("%v runs are %s", count, status)
		}
		n += int(count)
	}
	return n, nil
}

// watched is the same load with a viewer for each run: each caller submits one,
// waits on its stream of events for the last one, and submits the next.
func (s *session) watched(ctx context.Context, c config, source string, d time.Duration) (steps int, err error) {
	// A run of this pipeline always has the same number of events.
	last, err := s.finish(ctx, source, 0)
	if err != nil {
		return 0, err
	}
	finished := atomic.Int64{}
	deadline := time.Now().Add(d)
	g, ctx := errgroup.WithContext(ctx)
	for range c.runs {
		g.Go(func() error {
			for time.Now().Before(deadline) {
				if _, err := s.finish(ctx, source, last-1); err != nil {
					return err
				}
				finished.Add(1)
			}
			return nil
		})
	}
	err = g.Wait()
	return int(finished.Load()+1) * c.steps, err
}

// latency is how long one caller waits for one run of one step, in milliseconds.
func latency(ctx context.Context, s *session) (p50, p99 float64, err error) {
	source := chain(1)
	var times []time.Duration
	for i := range 520 {
		began := time.Now()
		if _, err := s.finish(ctx, source, 0); err != nil {
			return 0, 0, err
		}
		if i >= 20 {
			times = append(times, time.Since(began))
		}
	}
	slices.Sort(times)
	ms := func(q float64) float64 { return times[int(q*float64(len(times)-1))].Seconds() * 1e3 }
	return ms(0.50), ms(0.99), nil
}

// pure measures what a run of steps costs that change nothing outside: they need
// not be durable one by one.
func pure(ctx context.Context, s *session, pg *postgres, r *report) error {
	var b strings.Builder
	b.WriteString("id: bench-pure\nsteps:\n  - {id: s0, action: debug}\n")
	for i := 1; i < 1000; i++ {
		fmt.Fprintf(&b, "  - {id: s%d, action: debug, dependencies: [s%d]}\n", i, i-1)
	}
	before, err := pg.counters(ctx)
	if err != nil {
		return err
	}
	if _, err := s.finish(ctx, b.String(), 0); err != nil {
		return fmt.Errorf("chain of pure steps: %w", err)
	}
	after, err := pg.counters(ctx)
	if err != nil {
		return err
	}
	r.atMost("a chain of 1,000 pure steps, submitted to finished and watched: transactions", float64(after.commits-before.commits), "", 50)
	return nil
}

// items measures one loop over very many items.
func items(ctx context.Context, s *session, r *report) error {
	const source = `id: bench-items
steps:
  - id: each
    for: {items: "{{ range(100000) }}", collect: "{{ item }}"}
    steps:
      - {id: s, action: debug, parameters: {value: "{{ item }}"}}
`
	began := time.Now()
	run, err := s.runs.CreateRun(ctx, &orchestratorv1.CreateRunRequest{Source: source})
	if err != nil {
		return fmt.Errorf("loop over items: %w", err)
	}
	if err := s.completes(ctx, run); err != nil {
		return fmt.Errorf("loop over items: %w", err)
	}
	r.add("a loop over 100,000 items, submitted to finished", time.Since(began).Seconds(), "s")
	if now, peak := s.process.Memory(); now > 0 {
		r.add("memory of the server after it", float64(now)/(1<<20), "MiB")
		r.add("memory of the server at its peak so far", float64(peak)/(1<<20), "MiB")
	}
	return nil
}

// completes waits until a run that nobody watches has ended, which must be a success.
func (s *session) completes(ctx context.Context, run *orchestratorv1.Run) (err error) {
	for run.GetStatus() != orchestratorv1.Run_COMPLETED {
		if err := sleep(ctx, 200*time.Millisecond); err != nil {
			return err
		}
		if run, err = s.runs.GetRun(ctx, &orchestratorv1.GetRunRequest{Id: run.GetId()}); err != nil {
			return err
		}
		if run.GetStatus() == orchestratorv1.Run_FAILED {
			return fmt.Errorf("it failed: %v", run.GetError())
		}
	}
	return nil
}

// large measures one run with very many steps, side by side and in a row.
func large(ctx context.Context, c config, s *session, r *report) error {
	began := time.Now()
	if _, err := s.finish(ctx, wide(c.large), 0); err != nil {
		return fmt.Errorf("wide run: %w", err)
	}
	r.add(fmt.Sprintf("one run of %d parallel steps, submitted to finished", c.large), time.Since(began).Seconds(), "s")

	began, cpu := time.Now(), s.process.CPU()
	run, err := s.runs.CreateRun(ctx, &orchestratorv1.CreateRunRequest{Source: chain(c.large)})
	if err != nil {
		return fmt.Errorf("long chain: %w", err)
	}
	if err := s.completes(ctx, run); err != nil {
		return fmt.Errorf("long chain: %w", err)
	}
	took := time.Since(began)
	cpu = s.process.CPU() - cpu
	var finished []time.Time
	if _, err := s.watch(ctx, run.GetId(), 0, func(e *orchestratorv1.Event) {
		if e.GetType() == "step_finished" {
			finished = append(finished, e.GetAt().AsTime())
		}
	}); err != nil {
		return fmt.Errorf("long chain: %w", err)
	}
	r.add(fmt.Sprintf("one chain of %d steps, submitted to finished", c.large), took.Seconds(), "s")
	if len(finished) != c.large {
		return fmt.Errorf("long chain: %d steps finished, want %d", len(finished), c.large)
	}
	tenth := len(finished) / 10
	first := finished[tenth].Sub(finished[0]).Seconds() / float64(tenth)
	last := finished[len(finished)-1].Sub(finished[len(finished)-1-tenth]).Seconds() / float64(tenth)
	r.add("processor time of the server per step of it", cpu.Seconds()/float64(c.large)*1e6, "us")
	r.add("its first tenth", first*1e3, "ms/step")
	r.add("its last tenth", last*1e3, "ms/step")
	r.atMost("last tenth to first", last/first, "", 1.5)
	if now, peak := s.process.Memory(); now > 0 {
		r.add("memory of the server after both", float64(now)/(1<<20), "MiB")
		r.add("memory of the server at its peak", float64(peak)/(1<<20), "MiB")
	}
	return nil
}
