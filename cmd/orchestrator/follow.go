package main

import (
	"context"
	"errors"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/orchestrator-project/orchestrator/pipeline"
	"github.com/orchestrator-project/orchestrator/proto/human"
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
	hush bool
	show reporter
	p    *progress
	seen map[string]place // of the log, by step
	seq  int32
	// since leaves out what is older: it is known, and counts, but is no news.
	since time.Time
	heard time.Time       // when the newest event came
	open  []*api.Approval // what it waits for people to answer, the oldest first
}

// place is the newest log line of a step that was shown.
type place struct{ attempt, n int32 }

// reach is how long a lost connection is tried again.
const reach = time.Minute

func (c *cli) newFollower(ctx context.Context, cl *client, id string, hush bool, since time.Time) (*follower, error) {
	run, err := cl.runs.GetRun(ctx, &api.GetRunRequest{Id: id})
	if err != nil {
		return nil, err
	}
	g, err := cl.runs.GetGraph(ctx, &api.GetGraphRequest{Id: id})
	if err != nil {
		return nil, err
	}
	return &follower{c: c, cl: cl, id: run.GetId(), hush: hush, p: newProgress(run, g), seen: map[string]place{}, since: since}, nil
}

// follow shows the run from where it was left until it has finished, waits for
// a person, or ctx ends, and returns its state then.
func (f *follower) follow(ctx context.Context, show reporter) (*api.Run, error) {
	f.show, f.open = show, nil
	defer func() {
		f.c.log.to(nil)
		show.close(f.p)
	}()
	if err := f.watch(ctx); err != nil {
		return nil, err
	}
	return f.cl.runs.GetRun(ctx, &api.GetRunRequest{Id: f.id})
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
		if err == nil && f.open == nil {
			f.drain(lines, ended)
		}
		cancel()
		<-ended
		if err == nil && f.open != nil {
			f.rest(ctx, lines)
		}
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

// rest shows what the steps of a run that waits have printed so far.
func (f *follower) rest(ctx context.Context, lines <-chan *api.LogLine) {
	for len(lines) > 0 {
		f.line(<-lines)
	}
	stream, err := f.cl.runs.ReadLogs(ctx, f.logRequest(false))
	for err == nil { // without an answer less is shown
		var l *api.LogLine
		if l, err = stream.Recv(); err == nil {
			f.line(l)
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
			f.event(ctx, it.event)
		case l := <-lines:
			f.line(l)
		case <-tick.C:
			f.show.tick(f.p)
			if waits, err := f.waits(ctx); waits || err != nil {
				return err
			}
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
	return r.Reason == forApproval || r.Reason == pipeline.ReasonBudget
}

// forApproval is what a step and a run wait for that wait for a person.
const forApproval = "approval"

// calm is how long no event must have come before a run is said to wait.
const calm = 200 * time.Millisecond

// waits reports whether the run waits for people now, and finds out for what.
// That its log says so is not enough: more of the log may follow, and what it
// waited for may have come already.
func (f *follower) waits(ctx context.Context) (bool, error) {
	now := time.Now()
	if !waitsForPerson(&f.p.run) || now.Sub(f.heard) < calm {
		return false, nil
	}
	f.heard = now // the next look is a while later
	if h := f.cl.house; h != nil {
		messages, err := h.store.Inbox(ctx, []pipeline.RunID{pipeline.RunID(f.id)})
		if err != nil || len(messages) > 0 {
			return false, err
		}
		for _, s := range f.p.steps {
			if w := s.Waiting; s.Status == "WAITING" && w != nil && w.Due != nil && w.Due.Before(now) {
				return false, nil
			}
		}
	}
	more, err := f.cl.runs.ListEvents(ctx, &api.ListEventsRequest{Id: f.id, After: f.seq, PageSize: 1})
	if err != nil || len(more.GetEvents()) > 0 {
		return false, err
	}
	open, err := f.cl.approvals.ListApprovals(ctx, &api.ListApprovalsRequest{Status: "open", RunId: f.id, PageSize: 500})
	if err != nil || len(open.GetApprovals()) == 0 {
		return false, err
	}
	f.open = open.GetApprovals()
	slices.Reverse(f.open)
	for _, a := range f.open {
		f.p.questions[a.GetId()] = a.GetQuestion()
	}
	return true, nil
}

func (f *follower) event(ctx context.Context, e *api.Event) {
	if e.GetSeq() == 0 { // only live
		if f.heard = time.Now(); e.GetType() == "delta" {
			f.p.piece(e)
		}
		return
	}
	c := f.p.apply(e)
	f.seq, f.heard = e.GetSeq(), time.Now()
	if c.at.Before(f.since) {
		return
	}
	if s := c.step; s != nil && s.Status == "WAITING" && s.Waiting != nil && s.Waiting.Approval != "" {
		a, err := f.cl.approvals.GetApproval(ctx, &api.GetApprovalRequest{Id: s.Waiting.Approval})
		if err == nil { // else the question is not shown
			f.p.questions[a.GetId()] = a.GetQuestion()
		}
	}
	f.show.event(f.p, c)
}

// line shows a log line once.
func (f *follower) line(l *api.LogLine) {
	if human.Moment(l.GetAt()).Before(f.since) {
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
	stream, err := f.cl.runs.ReadLogs(ctx, f.logRequest(true))
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

func (f *follower) logRequest(follow bool) *api.ReadLogsRequest {
	req := &api.ReadLogsRequest{Id: f.id, Follow: follow}
	if _, ok := f.show.(*live); ok {
		req.Tail = 200 // only the last line of what runs is shown
	}
	return req
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
