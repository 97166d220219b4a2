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
	"strconv"
	"strings"
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
	config  replica.Config
	log     *os.File
}

// start starts a server; an empty url means the embedded store.
func (b *bench) start(ctx context.Context, url string, environ ...string) (s *session, err error) {
	s = &session{config: replica.Config{Binary: b.binary, DatabaseURL: url, Environ: environ}}
	if b.profile != "" {
		s.config.Environ = append(s.config.Environ, "ORCHESTRATOR_MONITORING_PROFILING=true")
	}
	if s.config.Home, err = os.MkdirTemp("", "orchestrator-bench"); err != nil {
		return nil, err
	}
	if s.log, err = os.Create(filepath.Join(s.config.Home, "server.log")); err != nil {
		return nil, errors.Join(err, os.RemoveAll(s.config.Home))
	}
	s.config.Log = s.log
	if err := s.again(ctx); err != nil {
		text, _ := os.ReadFile(s.log.Name())
		return nil, errors.Join(fmt.Errorf("%w\n%s", err, text), os.RemoveAll(s.config.Home))
	}
	return s, nil
}

// again starts the server, which is not running, at the address that it had.
func (s *session) again(ctx context.Context) (err error) {
	if s.process, err = replica.Start(ctx, s.config); err != nil {
		return err
	}
	s.config.Addr = s.process.Addr
	if s.conn == nil {
		if s.conn, err = replica.Dial(s.process.Addr); err != nil {
			s.process.Kill()
			return err
		}
		s.runs = orchestratorv1.NewRunsClient(s.conn)
	}
	return nil
}

func (s *session) end() error {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	err := s.conn.Close()
	select {
	case <-s.process.Done(): // it was killed
	default:
		err = errors.Join(err, s.process.Stop(ctx))
	}
	return errors.Join(err, s.log.Close(), os.RemoveAll(s.config.Home))
}

// memory is the resident memory of the server in MiB, now and at its peak.
func (s *session) memory() (now, peak float64) {
	n, p := s.process.Memory()
	return float64(n) / (1 << 20), float64(p) / (1 << 20)
}

// profiled takes profiles of the server while something is measured; what it
// returns writes them into the folder that was asked for.
func (b *bench) profiled(ctx context.Context, s *session, part string) (done func() error, err error) {
	if b.profile == "" {
		return func() error { return nil }, nil
	}
	if err := os.MkdirAll(b.profile, 0o750); err != nil {
		return nil, err
	}
	get := func(what, file string) error {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+s.process.Addr+"/debug/pprof/"+what, nil)
		if err != nil {
			return err
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			return err
		}
		defer func() { _ = resp.Body.Close() }()
		body, err := io.ReadAll(resp.Body)
		if err == nil && resp.StatusCode != http.StatusOK {
			err = fmt.Errorf("profile: %s: %s", resp.Status, body)
		}
		if err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(b.profile, part+"."+file), body, 0o600)
	}
	var g errgroup.Group
	g.Go(func() error { return get("profile?seconds=20", "cpu.pb.gz") })
	return func() error { return errors.Join(g.Wait(), get("heap", "heap.pb.gz")) }, nil
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

// wide is a pipeline of steps that need nothing of each other, and of one that
// waits for all of them.
func wide(n int) string {
	var b strings.Builder
	b.WriteString("id: bench-wide\nsteps:\n")
	ids := make([]string, n)
	for i := range n {
		ids[i] = fmt.Sprintf("s%d", i)
		fmt.Fprintf(&b, "  - {id: s%d, action: debug, effect: at_least_once}\n", i)
	}
	fmt.Fprintf(&b, "  - {id: join, action: debug, dependencies: [%s]}\n", strings.Join(ids, ", "))
	return b.String()
}

func (s *session) submit(ctx context.Context, source string) (*orchestratorv1.Run, error) {
	return s.runs.CreateRun(ctx, &orchestratorv1.CreateRunRequest{Source: source})
}

// submitMany submits equal runs from 16 callers at once.
func (s *session) submitMany(ctx context.Context, source string, n int) error {
	g, ctx := errgroup.WithContext(ctx)
	for i := range callers {
		g.Go(func() error {
			for range (n + i) / callers {
				if _, err := s.submit(ctx, source); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return g.Wait()
}

// finish submits a run and returns when its caller knows that it has completed.
func (s *session) finish(ctx context.Context, source string) error {
	run, err := s.submit(ctx, source)
	if err != nil {
		return err
	}
	return s.watch(ctx, run.GetId(), nil)
}

// signal sends a signal to a run.
func (s *session) signal(ctx context.Context, run, name string) error {
	_, err := s.runs.SendSignal(ctx, &orchestratorv1.SendSignalRequest{Id: run, Name: name})
	return err
}

// watch reads a run's events to the end, which must be a success.
func (s *session) watch(ctx context.Context, id string, each func(*orchestratorv1.Event)) error {
	stream, err := s.runs.WatchRun(ctx, &orchestratorv1.WatchRunRequest{Id: id})
	if err != nil {
		return err
	}
	for {
		e, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return fmt.Errorf("run %s: the stream ended before run_finished", id)
		}
		if err != nil {
			return err
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
			return err
		}
		if data.Run.Status != "COMPLETED" {
			return fmt.Errorf("run %s ended as %s", id, data.Run.Status)
		}
		if _, err = stream.Recv(); !errors.Is(err, io.EOF) { // the stream's own end
			return fmt.Errorf("run %s: after run_finished: %w", id, err)
		}
		return nil
	}
}

// completes waits until a run that nobody watches has ended, which must be a success.
func (s *session) completes(ctx context.Context, run *orchestratorv1.Run) (err error) {
	for run.GetStatus() != orchestratorv1.Run_COMPLETED {
		if err := sleep(ctx, 5*time.Millisecond); err != nil {
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

// completed reads from the server's metrics how many runs it has completed. One
// that ended otherwise is an error.
func (s *session) completed(ctx context.Context) (n int, err error) {
	return s.count(ctx, func(line string) (value string, err error) {
		rest, ok := strings.CutPrefix(line, `orchestrator_runs_finished_total{status="`)
		if !ok {
			return "", nil
		}
		status, value, _ := strings.Cut(rest, `"} `)
		if status != "COMPLETED" && value != "0" {
			return "", fmt.Errorf("%s runs are %s", value, status)
		}
		return value, nil
	})
}

// attempts reads from the server's metrics how many attempts of steps have ended.
func (s *session) attempts(ctx context.Context) (n int, err error) {
	return s.count(ctx, func(line string) (value string, err error) {
		if rest, ok := strings.CutPrefix(line, `orchestrator_step_seconds_count{`); ok {
			_, value, _ = strings.Cut(rest, "} ")
		}
		return value, nil
	})
}

// count adds up what value finds in the lines of the server's metrics.
func (s *session) count(ctx context.Context, value func(line string) (string, error)) (n int, err error) {
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
		text, err := value(strings.TrimSpace(line))
		if err != nil {
			return 0, err
		}
		if text == "" {
			continue
		}
		v, err := strconv.ParseFloat(text, 64)
		if err != nil {
			return 0, fmt.Errorf("metrics: %w", err)
		}
		n += int(v)
	}
	return n, nil
}
