package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"

	orchestratorv1 "github.com/orchestrator-project/orchestrator/proto/orchestrator/v1"
	"github.com/orchestrator-project/orchestrator/scripts/replica"
)

// sleeper is a pipeline that waits for as long as nobody wakes it.
const sleeper = "id: sleeper\nsteps:\n  - id: rest\n    wait: {signal: up}\n"

// footprint is what a server costs.
type footprint struct {
	resident   int64 // bytes
	heap       int64 // bytes in use
	goroutines int64
	active     int64 // runs in memory
}

func (f footprint) String() string {
	return fmt.Sprintf("%.1f MiB resident, %.1f MiB of heap, %d goroutines, %d runs in memory",
		float64(f.resident)/(1<<20), float64(f.heap)/(1<<20), f.goroutines, f.active)
}

// parked parks many runs on an embedded store, tells what they cost, kills the
// server, tells what they cost the next one, and wakes them all. Goroutines and
// runs in memory are checked; bytes depend on the collector and are only told.
func parked(ctx context.Context, c config, home string, log io.Writer) (violations []string, err error) {
	bad := func(format string, args ...any) { violations = append(violations, fmt.Sprintf(format, args...)) }
	home = filepath.Join(home, "parked")
	if err := os.Mkdir(home, 0o700); err != nil {
		return nil, err
	}
	addr, err := replica.FreeAddr(ctx)
	if err != nil {
		return nil, err
	}
	config := replica.Config{Binary: c.binary, Home: home, Addr: addr, Log: log}
	r, err := replica.Start(ctx, config)
	if err != nil {
		return nil, err
	}
	defer func() { r.Kill() }()
	conn, err := replica.Dial(addr)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	s := sleepers{client: orchestratorv1.NewRunsClient(conn), count: c.parked}

	empty, err := s.settled(ctx, r, "waiting", 0)
	if err != nil {
		return nil, err
	}
	fmt.Printf("kill-test: without runs: %v\n", empty)
	ids, err := s.submit(ctx)
	if err != nil {
		return nil, err
	}
	after, err := s.settled(ctx, r, "waiting", s.count)
	if err != nil {
		return nil, err
	}
	fmt.Printf("kill-test: with %d parked runs: %v\n", s.count, after)
	r.Kill()
	if r, err = replica.Start(ctx, config); err != nil {
		return nil, err
	}
	again, err := s.settled(ctx, r, "waiting", s.count)
	if err != nil {
		return nil, err
	}
	fmt.Printf("kill-test: with %d parked runs after a new start: %v\n", s.count, again)
	few := empty.goroutines + int64(s.count/20) // a connection or two; none for each run
	for _, f := range []footprint{after, again} {
		if f.goroutines > few {
			bad("%d parked runs brought the goroutines from %d to %d", s.count, empty.goroutines, f.goroutines)
		}
	}
	if err := s.wake(ctx, ids); err != nil {
		return nil, err
	}
	_, err = s.settled(ctx, r, "completed", s.count)
	return violations, err
}

// sleepers are the runs that are parked.
type sleepers struct {
	client orchestratorv1.RunsClient
	count  int
}

func (s sleepers) submit(ctx context.Context) ([]string, error) {
	ids := make([]string, s.count)
	return ids, s.each(ctx, func(ctx context.Context, i int) error {
		run, err := s.client.CreateRun(ctx, &orchestratorv1.CreateRunRequest{Source: sleeper})
		ids[i] = run.GetId()
		return err
	})
}

func (s sleepers) wake(ctx context.Context, ids []string) error {
	return s.each(ctx, func(ctx context.Context, i int) error {
		_, err := s.client.SendSignal(ctx, &orchestratorv1.SendSignalRequest{Id: ids[i], Name: "up"}, grpc.WaitForReady(true))
		return err
	})
}

func (s sleepers) each(ctx context.Context, do func(ctx context.Context, i int) error) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(32)
	for i := range s.count {
		g.Go(func() error { return do(ctx, i) })
	}
	return g.Wait()
}

// settled waits until so many runs have the status and none is in memory, and
// measures the server then.
func (s sleepers) settled(ctx context.Context, r *replica.Replica, status string, count int) (f footprint, err error) {
	late := time.After(time.Minute)
	for {
		n, err := s.have(ctx, status)
		if err != nil {
			return footprint{}, err
		}
		if f, err = measure(ctx, r); err != nil {
			return footprint{}, err
		}
		if n == count && f.active == 0 {
			return f, nil
		}
		select {
		case <-late:
			return f, fmt.Errorf("of %d runs %d are %s after a minute, and %d are in memory", count, n, status, f.active)
		case <-time.After(200 * time.Millisecond):
		case <-ctx.Done():
			return f, context.Cause(ctx)
		}
	}
}

func (s sleepers) have(ctx context.Context, status string) (n int, err error) {
	token := ""
	for {
		page, err := s.client.ListRuns(ctx, &orchestratorv1.ListRunsRequest{Filter: "status:" + status, PageSize: 500, PageToken: token}, grpc.WaitForReady(true))
		if err != nil {
			return 0, err
		}
		n += len(page.GetRuns())
		if token = page.GetNextPageToken(); token == "" {
			return n, nil
		}
	}
}

// measure reads what the server and the system tell of the process.
func measure(ctx context.Context, r *replica.Replica) (f footprint, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+r.Addr+"/metrics", nil)
	if err != nil {
		return f, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return f, err
	}
	defer func() { err = errors.Join(err, resp.Body.Close()) }()
	want := map[string]*int64{"go_goroutines": &f.goroutines, "go_memstats_heap_inuse_bytes": &f.heap, "orchestrator_runs_active": &f.active}
	lines := bufio.NewScanner(resp.Body)
	for lines.Scan() {
		name, value, _ := strings.Cut(lines.Text(), " ")
		if at := want[name]; at != nil {
			v, err := strconv.ParseFloat(value, 64)
			if err != nil {
				return f, fmt.Errorf("/metrics has the line %q", lines.Text())
			}
			*at = int64(v)
			delete(want, name)
		}
	}
	if len(want) > 0 && lines.Err() == nil {
		return f, errors.New("/metrics lacks a figure that is measured here")
	}
	f.resident, _ = r.Memory()
	return f, lines.Err()
}
