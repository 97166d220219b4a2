package torture

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

const (
	callTimeout = 5 * time.Second // a replica that is frozen does not answer
	watchTime   = 4 * time.Second
)

// load submits the runs and watches each from its acknowledgement to its end,
// through every death of the server.
type load struct {
	config    config
	ledger    string
	busy      *shape
	patient   *shape
	once      *shape
	client    orchestratorv1.RunsClient
	approvals orchestratorv1.ApprovalsClient
	submitted atomic.Int64
	finished  atomic.Int64

	mu       sync.Mutex
	runs     map[string]*told // by id: those whose submission was acknowledged
	repeated map[string]bool  // run/path of what is under way again
}

// told is what the outside world knows of a run.
type told struct {
	shape   *shape
	seen    []*orchestratorv1.Event // by its watcher; complete once the run has finished
	people  *people                 // nil: the run needs none
	settled *settled                // nil: its steps may run as often as it takes

	finished bool // guarded by load's mu
}

// shape is a pipeline and the steps of which each run of it must have a result.
type shape struct {
	source  string
	files   map[string][]byte
	effects []string // the result is the token of an effect
	said    []string // the result is what people said
	others  []string
}

func (s *shape) results() int { return len(s.effects) + len(s.said) + len(s.others) }

func newLoad(conn *grpc.ClientConn, c config, ledger string) *load {
	return &load{
		config: c, ledger: ledger, busy: chain(c.steps, "at_least_once"), patient: patience(), once: chain(c.steps/2, "at_most_once"),
		client: orchestratorv1.NewRunsClient(conn), approvals: orchestratorv1.NewApprovalsClient(conn),
		runs: map[string]*told{}, repeated: map[string]bool{},
	}
}

// shapeOf is the pipeline of a submission: of the first half each fourth one
// waits for this and that, so that it has the time for it, and of all each fourth
// one has steps that may run at most once.
func (l *load) shapeOf(i int) *shape {
	switch {
	case i%4 == 0 && i < l.config.runs/2:
		return l.patient
	case i%4 == 1:
		return l.once
	}
	return l.busy
}

// chain is a chain of commands. Each leaves a line in the ledger before it
// takes its time, so that a kill in that time finds an effect without a result.
func chain(steps int, effect string) *shape {
	var b strings.Builder
	b.WriteString("id: torture-" + strings.ReplaceAll(effect, "_", "-") + "\ninputs: {ledger: {type: string}}\nsteps:\n")
	s := &shape{}
	for i := range steps {
		id := fmt.Sprintf("s%d", i)
		s.effects = append(s.effects, id)
		fmt.Fprintf(&b, "  - id: %s\n", id)
		if i > 0 {
			fmt.Fprintf(&b, "    dependencies: [s%d]\n", i-1)
		}
		b.WriteString(strings.Replace(command("    ", fmt.Sprintf("sleep 0.%02d", 3+i%3*4)), "at_least_once", effect, 1))
	}
	s.source = b.String()
	return s
}

// command is the rest of a step that notes its attempt in the ledger, does
// something, and prints its token.
func command(indent, does string) string {
	lines := []string{
		"effect: at_least_once",
		`env: {LEDGER: "{{ inputs.ledger }}"}`,
		"run: |",
		`  echo "$ORCHESTRATOR_RUN_ID $ORCHESTRATOR_STEP_PATH $ORCHESTRATOR_ATTEMPT $ORCHESTRATOR_IDEMPOTENCY_KEY $$" >> "$LEDGER"`,
		"  " + does,
		`  echo "$ORCHESTRATOR_ATTEMPT.$$"`,
	}
	return indent + strings.Join(lines, "\n"+indent) + "\n"
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
			// Over the time of the faults, so that each finds runs of every age.
			if err := pause(ctx, l.config.over/time.Duration(l.config.runs)); err != nil {
				return err
			}
		}
		return nil
	})
	for range 8 {
		g.Go(func() error {
			for i := range submit {
				id, run, err := l.submit(ctx, i)
				if err != nil {
					return err
				}
				if run.people != nil {
					g.Go(func() error { return l.send(ctx, id, run.people) })
				}
				g.Go(func() error { return l.watch(ctx, id, run) })
			}
			return nil
		})
	}
	return g.Wait()
}

// submit repeats a submission under its idempotency key until it is acknowledged.
func (l *load) submit(ctx context.Context, i int) (string, *told, error) {
	t := &told{shape: l.shapeOf(i)}
	if len(t.shape.said) > 0 {
		t.people = newPeople(l.config.seed, i)
	}
	if t.shape == l.once {
		t.settled = newSettled(l.config.seed, i)
	}
	for {
		call, cancel := context.WithTimeout(ctx, callTimeout)
		run, err := l.client.CreateRun(call, &orchestratorv1.CreateRunRequest{
			Source: t.shape.source, Files: t.shape.files, Inputs: `{"ledger": ` + strconv.Quote(l.ledger) + `}`,
			Labels: map[string]string{"number": strconv.Itoa(i)}, IdempotencyKey: fmt.Sprintf("torture-%d", i),
		})
		cancel()
		if err == nil {
			l.submitted.Add(1)
			l.mu.Lock()
			l.runs[run.GetId()] = t
			l.mu.Unlock()
			return run.GetId(), t, nil
		}
		if err := again(ctx, "submitting", err); err != nil {
			return "", nil, err
		}
	}
}

// watch follows a run to its end, going on after the last event it has seen
// whenever the stream breaks. What the run asks, people answer.
func (l *load) watch(ctx context.Context, id string, run *told) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		return l.follow(ctx, id, func(e *orchestratorv1.Event) error {
			run.seen = append(run.seen, e)
			l.note(e)
			approval, err := asks(e)
			switch {
			case err != nil || approval == "":
			case run.settled != nil:
				g.Go(func() error { return l.settle(ctx, e.GetPath(), approval, run.settled) })
			case run.people != nil:
				g.Go(func() error { return l.decide(ctx, e.GetPath(), approval, run.people) })
			default:
				err = fmt.Errorf("the step %s asks people", e.GetPath())
			}
			return err
		})
	})
	if err := g.Wait(); err != nil {
		return err
	}
	l.finished.Add(1)
	l.mu.Lock()
	defer l.mu.Unlock()
	run.finished = true
	return nil
}

// note keeps which steps are under way for the second time or more.
func (l *load) note(e *orchestratorv1.Event) {
	step := e.GetRunId() + "/" + e.GetPath()
	l.mu.Lock()
	defer l.mu.Unlock()
	switch e.GetType() {
	case "step_started":
		if e.GetAttempt() > 1 {
			l.repeated[step] = true
		}
	case "step_finished", "step_retrying":
		delete(l.repeated, step)
	}
}

// spared reports whether no step has to be spared: one in whose attempts three
// servers die is given up, as it might be what kills them.
func (l *load) spared() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.repeated) == 0
}

// open names the runs that have not finished, a few of them.
func (l *load) open() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var list []string
	for id, run := range l.runs {
		if !run.finished && len(list) < 10 {
			list = append(list, id)
		}
	}
	return strings.Join(list, ", ")
}

// follow gives each event of a run to the callback, to the last one.
func (l *load) follow(ctx context.Context, id string, each func(*orchestratorv1.Event) error) error {
	last := int32(0)
	for {
		// A replica that is frozen says nothing: go on elsewhere.
		watch, cancel := context.WithTimeout(ctx, watchTime)
		stream, err := l.client.WatchRun(watch, &orchestratorv1.WatchRunRequest{Id: id, After: last})
		for err == nil {
			var e *orchestratorv1.Event
			if e, err = stream.Recv(); err != nil || e.GetSeq() == 0 {
				continue
			}
			if last++; e.GetSeq() != last {
				cancel()
				return fmt.Errorf("run %s: a watcher got event %d where %d comes next", id, e.GetSeq(), last)
			}
			if err := each(e); err != nil {
				cancel()
				return fmt.Errorf("run %s: event %d: %w", id, last, err)
			}
			if e.GetType() == "run_finished" {
				cancel()
				return nil
			}
		}
		cancel()
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
	case codes.Unavailable, codes.Canceled, codes.DeadlineExceeded: // Canceled: by the server
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
