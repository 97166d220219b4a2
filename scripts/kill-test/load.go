package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	orchestratorv1 "github.com/orchestrator-project/orchestrator/proto/orchestrator/v1"
)

// load submits the runs and watches each from its acknowledgement to its end,
// through every death of the server.
type load struct {
	config    config
	ledger    string
	source    string
	client    orchestratorv1.RunsClient
	submitted atomic.Int64
	finished  atomic.Int64

	mu   sync.Mutex
	seen map[string][]*orchestratorv1.Event // by run: what its watcher saw; the run was acknowledged
}

func newLoad(conn *grpc.ClientConn, c config, ledger string) *load {
	return &load{
		config: c, ledger: ledger, source: pipeline(c.steps),
		client: orchestratorv1.NewRunsClient(conn), seen: map[string][]*orchestratorv1.Event{},
	}
}

// pipeline is a chain of commands. Each leaves a line in the ledger before it
// takes its time, so that a kill in that time finds an effect without a result.
func pipeline(steps int) string {
	var b strings.Builder
	b.WriteString("id: kill-test\ninputs: {ledger: string}\nsteps:\n")
	for i := range steps {
		fmt.Fprintf(&b, "  - id: s%d\n    effect: at_least_once\n", i)
		if i > 0 {
			fmt.Fprintf(&b, "    dependencies: [s%d]\n", i-1)
		}
		b.WriteString("    env: {LEDGER: \"{{ inputs.ledger }}\"}\n    run: |\n")
		b.WriteString("      echo \"$ORCHESTRATOR_RUN_ID $ORCHESTRATOR_STEP_PATH $ORCHESTRATOR_ATTEMPT $ORCHESTRATOR_IDEMPOTENCY_KEY $$\" >> \"$LEDGER\"\n")
		fmt.Fprintf(&b, "      sleep 0.%02d\n", 3+i%3*4)
		b.WriteString("      echo \"$ORCHESTRATOR_ATTEMPT.$$\"\n")
	}
	return b.String()
}

// run returns when every run has finished.
func (l *load) run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	submit := make(chan int)
	g.Go(func() error {
		defer close(submit)
		for i := range l.config.runs {
			select {
			case submit <- i:
			case <-ctx.Done():
				return context.Cause(ctx)
			}
			// Over the time of the kills, so that each finds runs of every age.
			if err := pause(ctx, time.Duration(l.config.kills)*meanGap/time.Duration(l.config.runs)); err != nil {
				return err
			}
		}
		return nil
	})
	for range 8 {
		g.Go(func() error {
			for i := range submit {
				id, err := l.submit(ctx, i)
				if err != nil {
					return err
				}
				g.Go(func() error { return l.watch(ctx, id) })
			}
			return nil
		})
	}
	return g.Wait()
}

// submit repeats a submission under its idempotency key until it is acknowledged.
func (l *load) submit(ctx context.Context, i int) (string, error) {
	for {
		run, err := l.client.CreateRun(ctx, &orchestratorv1.CreateRunRequest{
			Source: l.source, Inputs: `{"ledger": ` + strconv.Quote(l.ledger) + `}`,
			Labels: map[string]string{"number": strconv.Itoa(i)}, IdempotencyKey: fmt.Sprintf("kill-test-%d", i),
		})
		if err == nil {
			l.submitted.Add(1)
			l.mu.Lock()
			l.seen[run.GetId()] = nil
			l.mu.Unlock()
			return run.GetId(), nil
		}
		if err := again(ctx, "submitting", err); err != nil {
			return "", err
		}
	}
}

// watch follows a run to its end, going on after the last event it has seen
// whenever the stream breaks.
func (l *load) watch(ctx context.Context, id string) error {
	var events []*orchestratorv1.Event
	for {
		after := int32(len(events)) //nolint:gosec // few
		stream, err := l.client.WatchRun(ctx, &orchestratorv1.WatchRunRequest{Id: id, After: after})
		for err == nil {
			var e *orchestratorv1.Event
			if e, err = stream.Recv(); err != nil || e.GetSeq() == 0 {
				continue
			}
			events = append(events, e)
			if int(e.GetSeq()) != len(events) {
				return fmt.Errorf("run %s: a watcher got event %d where %d comes next", id, e.GetSeq(), len(events))
			}
			if e.GetType() == "run_finished" {
				l.mu.Lock()
				l.seen[id] = events
				l.mu.Unlock()
				l.finished.Add(1)
				return nil
			}
		}
		if errors.Is(err, io.EOF) {
			err = status.Error(codes.Unavailable, "the stream ended before run_finished")
		}
		if err := again(ctx, "watching "+id, err); err != nil {
			return err
		}
	}
}

// again waits a little after an error that a dying server explains, and returns
// any other.
func again(ctx context.Context, what string, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	switch status.Code(err) {
	case codes.Unavailable, codes.Canceled, codes.DeadlineExceeded:
		return pause(ctx, 50*time.Millisecond)
	}
	return fmt.Errorf("%s: %w", what, err)
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(d):
		return nil
	}
}
