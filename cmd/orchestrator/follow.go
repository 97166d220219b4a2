package main

import (
	"context"
	"errors"
	"io"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	api "github.com/orchestrator-project/orchestrator/proto/orchestrator/v1"
)

// reporter chooses how a run is shown: nothing when quiet, a live tree on a
// terminal, lines elsewhere.
func (c *cli) reporter(hush bool) (r reporter) {
	switch {
	case hush:
		return silent{}
	case c.tty != nil:
		r = newLive(c.tty, c.environ)
	default:
		r = newPlain(c.err)
	}
	c.log.to(r)
	return r
}

// logWriter is where the parts of this process log to: standard error, or the
// reporter while there is one, so that the lines do not tear its tree apart.
type logWriter struct {
	w io.Writer

	mu   sync.Mutex // guards what follows
	show reporter
}

// to sends lines to a reporter; nil ends that.
func (l *logWriter) to(show reporter) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.show = show
}

func (l *logWriter) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.show == nil {
		return l.w.Write(b)
	}
	l.show.note(strings.TrimRight(string(b), "\n"))
	return len(b), nil
}

// follower watches one run.
type follower struct {
	c    *cli
	cl   *client
	id   string
	show reporter
	p    *progress
	seen map[string]place // of the log, by step
	seq  int32
	// since leaves out what is older: it is known, and counts, but is no news.
	since time.Time
}

// place is the newest log line of a step that was shown.
type place struct{ attempt, n int32 }

// reach is how long a lost connection is tried again.
const reach = time.Minute

// follow shows a run until it has finished, waits for a person, or ctx ends,
// and returns its final state.
func (c *cli) follow(ctx context.Context, cl *client, id string, show reporter, since time.Time) (*api.Run, error) {
	run, err := cl.runs.GetRun(ctx, &api.GetRunRequest{Id: id})
	if err != nil {
		return nil, err
	}
	g, err := cl.runs.GetGraph(ctx, &api.GetGraphRequest{Id: id})
	if err != nil {
		return nil, err
	}
	f := &follower{c: c, cl: cl, id: run.GetId(), show: show, p: newProgress(run, g), seen: map[string]place{}, since: since}
	defer func() {
		c.log.to(nil)
		show.close(f.p)
	}()
	if err := f.watch(ctx); err != nil {
		return nil, err
	}
	return cl.runs.GetRun(ctx, &api.GetRunRequest{Id: id})
}

// watch reads events and log lines side by side. A server that goes away is
// sought again: nothing is lost, since the events continue by their number.
func (f *follower) watch(ctx context.Context) error {
	if _, ok := f.show.(silent); ok {
		return f.retry(ctx, func() error { return f.stream(ctx, nil) })
	}
	return f.retry(ctx, func() error {
		ctx, cancel := context.WithCancel(ctx)
		lines := make(chan *api.LogLine, 64)
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			f.logs(ctx, lines)
		}()
		err := f.stream(ctx, lines)
		if err == nil {
			f.drain(lines, ended)
		}
		cancel()
		<-ended
		return err
	})
}

// retry calls again what fails because the server is away.
func (f *follower) retry(ctx context.Context, once func() error) error {
	var since time.Time
	for {
		before := f.seq
		err := once()
		if status.Code(err) != codes.Unavailable || !f.c.remote() {
			return err
		}
		if f.seq != before || since.IsZero() {
			since = time.Now()
			f.show.note("connection to " + f.c.server + " lost; trying again")
		}
		if time.Since(since) > reach {
			return err
		}
		select {
		case <-time.After(500 * time.Millisecond):
		case <-ctx.Done():
			return errInterrupted
		}
	}
}

// drain shows the rest of the log of a run that has finished.
func (f *follower) drain(lines <-chan *api.LogLine, ended <-chan struct{}) {
	late := time.NewTimer(5 * time.Second)
	defer late.Stop()
	for {
		select {
		case l := <-lines:
			f.line(l)
		case <-late.C:
			return
		case <-ended:
			for {
				select {
				case l := <-lines:
					f.line(l)
				default:
					return
				}
			}
		}
	}
}

// stream shows events and log lines until the run has finished.
func (f *follower) stream(ctx context.Context, lines <-chan *api.LogLine) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	watch, err := f.cl.runs.WatchRun(ctx, &api.WatchRunRequest{Id: f.id, After: f.seq})
	if err != nil {
		return err
	}
	type item struct {
		event *api.Event
		err   error
	}
	items := make(chan item, 64)
	go func() {
		for {
			e, err := watch.Recv()
			select {
			case items <- item{e, err}:
			case <-ctx.Done():
				return
			}
			if err != nil {
				return
			}
		}
	}()
	tick := time.NewTicker(turn)
	defer tick.Stop()
	for {
		select {
		case it := <-items:
			if errors.Is(it.err, io.EOF) {
				return nil
			}
			if it.err != nil {
				return it.err
			}
			f.event(it.event)
			if waitsForPerson(&f.p.run) {
				return nil
			}
		case l := <-lines:
			f.line(l)
		case <-tick.C:
			f.show.tick(f.p)
		case <-ctx.Done():
			return errInterrupted
		}
	}
}

// waitsForPerson reports whether a run goes on only when somebody answers.
func waitsForPerson(r *runFacts) bool {
	if r.Status != api.Run_WAITING.String() {
		return false
	}
	switch r.Reason {
	case "ask", "approve", "approval", "tool", "needs_decision", "budget":
		return true
	}
	return false
}

func (f *follower) event(e *api.Event) {
	c := f.p.apply(e)
	f.seq = e.GetSeq()
	if !c.at.Before(f.since) {
		f.show.event(f.p, c)
	}
}

// line shows a log line once.
func (f *follower) line(l *api.LogLine) {
	if moment(l.GetAt()).Before(f.since) {
		return
	}
	at, last := place{l.GetAttempt(), l.GetN()}, f.seen[l.GetPath()]
	if at.attempt < last.attempt || (at.attempt == last.attempt && at.n <= last.n) {
		return
	}
	f.seen[l.GetPath()] = at
	f.show.line(f.p, l)
}

// logs hands over log lines as they come. It ends with ctx, or when there are
// no more; an error shows in the events too.
func (f *follower) logs(ctx context.Context, lines chan<- *api.LogLine) {
	req := &api.ReadLogsRequest{Id: f.id, Follow: true}
	if _, ok := f.show.(*live); ok {
		req.Tail = 200 // only the last line of what runs is shown
	}
	stream, err := f.cl.runs.ReadLogs(ctx, req)
	if err != nil {
		return
	}
	for {
		l, err := stream.Recv()
		if err != nil {
			return
		}
		select {
		case lines <- l:
		case <-ctx.Done():
			return
		}
	}
}

// outcome is the exit code of a run's final state.
func outcome(run *api.Run) int {
	switch run.GetStatus() {
	case api.Run_COMPLETED:
		return 0
	case api.Run_WAITING, api.Run_PAUSED:
		return exitWaiting
	case api.Run_STATUS_UNSPECIFIED, api.Run_QUEUED, api.Run_RUNNING, api.Run_FAILED, api.Run_CANCELLED:
	}
	return exitFailed
}
