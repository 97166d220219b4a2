package web

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/coder/websocket"

	api "github.com/orchestrator-project/orchestrator/proto/orchestrator/v1"
)

// Bounds of what the inbox listens to.
const (
	inboxRuns  = 100             // runs that are listened to at the same time
	inboxAgain = 5 * time.Second // after an answer that did not come
)

// inbox tells the open pages of the approvals that something may have changed.
// The API sends events run by run; so, while anybody looks, one goroutine
// listens to the runs that are under way or ask somebody, and rings for all
// pages. A run that begins while nothing else happens is found when a page is
// opened or looked at again.
type inbox struct {
	site *site

	mu    sync.Mutex
	bells map[chan struct{}]struct{}
	stop  func()        // ends the listening; nil: nobody listens
	seek  chan struct{} // asks the listener to look for new runs
}

// join registers a page. The bell rings, and rings collapse, until leave.
func (b *inbox) join() (bell <-chan struct{}, leave func()) {
	ring := make(chan struct{}, 1)
	b.mu.Lock()
	defer b.mu.Unlock()
	b.bells[ring] = struct{}{}
	if b.stop == nil {
		ctx, cancel := context.WithCancel(context.Background())
		done, seek := make(chan struct{}), make(chan struct{}, 1)
		go func() {
			defer close(done)
			b.listen(ctx, seek)
		}()
		b.seek, b.stop = seek, func() {
			cancel()
			<-done
		}
	} else {
		poke(b.seek)
	}
	return ring, func() {
		b.mu.Lock()
		delete(b.bells, ring)
		var stop func()
		if len(b.bells) == 0 {
			stop, b.stop = b.stop, nil
		}
		b.mu.Unlock()
		if stop != nil {
			stop()
		}
	}
}

// poke rings a bell with room for one ring.
func poke(bell chan struct{}) {
	select {
	case bell <- struct{}{}:
	default:
	}
}

func (b *inbox) ring() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for bell := range b.bells {
		poke(bell)
	}
}

// listen follows the runs until ctx ends, and looks for new ones whenever one of
// them says something of weight.
func (b *inbox) listen(ctx context.Context, seek chan struct{}) {
	var heard sync.WaitGroup
	defer heard.Wait()
	ended := make(chan string, inboxRuns)
	known := map[string]bool{}
	for {
		runs, err := b.runs(ctx)
		for _, id := range runs {
			if known[id] || len(known) >= inboxRuns {
				continue
			}
			known[id] = true
			heard.Go(func() {
				b.follow(ctx, id, seek)
				ended <- id
			})
		}
		var again <-chan time.Time
		if err != nil {
			again = time.After(inboxAgain)
		}
		select {
		case <-ctx.Done():
			return
		case id := <-ended:
			delete(known, id)
		case <-seek:
		case <-again:
		}
	}
}

// runs lists whose events may change the inbox.
func (b *inbox) runs(ctx context.Context) ([]string, error) {
	var out []string
	asked, err := b.site.approvals.ListApprovals(ctx, &api.ListApprovalsRequest{Status: "open", PageSize: approvalsPage}, bigAnswers)
	if err != nil {
		return nil, err
	}
	for _, a := range asked.GetApprovals() {
		out = append(out, a.GetRunId())
	}
	live, err := b.site.runs.ListRuns(ctx, &api.ListRunsRequest{Filter: "status:queued,running,waiting,paused", PageSize: approvalsPage}, bigAnswers)
	if err != nil {
		return nil, err
	}
	for _, r := range live.GetRuns() {
		out = append(out, r.GetId())
	}
	return out, nil
}

// follow rings for each event of a run that may open or close an approval, until
// the run has finished. What goes wrong is tried again after a while.
func (b *inbox) follow(ctx context.Context, id string, seek chan struct{}) {
	if err := b.events(ctx, id, seek); errors.Is(err, io.EOF) {
		return
	}
	select {
	case <-time.After(inboxAgain):
	case <-ctx.Done():
	}
}

func (b *inbox) events(ctx context.Context, id string, seek chan struct{}) error {
	run, err := b.site.runs.GetRun(ctx, &api.GetRunRequest{Id: id}, bigAnswers)
	if err != nil {
		return err
	}
	after, err := lastSeq(ctx, b.site.runs, id, guess(run))
	if err != nil {
		return err
	}
	stream, err := b.site.runs.WatchRun(ctx, &api.WatchRunRequest{Id: id, After: after}, bigAnswers)
	if err != nil {
		return err
	}
	b.ring() // for what has happened since the pages were drawn
	for {
		e, err := stream.Recv()
		if err != nil {
			return err
		}
		switch e.GetType() {
		case "step_finished":
			if !strings.Contains(e.GetData(), `"kind":"ask"`) {
				continue
			}
		case "step_waiting", "approval_decided", "run_waiting", "run_finished":
		default:
			continue
		}
		b.ring()
		poke(seek)
	}
}

// liveInbox feeds one open page of the approvals: the list, or one of them (id).
func (s *site) liveInbox(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	conn, err := websocket.Accept(w, r, nil) // checks that Origin is us
	if err != nil {
		s.log.InfoContext(r.Context(), "live feed refused", "err", err)
		return
	}
	defer conn.CloseNow() //nolint:errcheck // the answer was given already
	ctx := conn.CloseRead(r.Context())
	err = s.feedInbox(ctx, q, func(ctx context.Context, b []byte) error {
		ctx, cancel := context.WithTimeout(ctx, writeWait)
		defer cancel()
		return conn.Write(ctx, websocket.MessageText, b)
	})
	if ctx.Err() == nil {
		s.log.InfoContext(ctx, "live feed ended", "err", err)
		conn.Close(websocket.StatusTryAgainLater, "the feed broke off")
	}
}

// feedInbox sends a frame whenever the page is no longer what it was.
func (s *site) feedInbox(ctx context.Context, q url.Values, send func(context.Context, []byte) error) error {
	bell, leave := s.inbox.join()
	defer leave()
	beat := time.NewTicker(beatEvery)
	defer beat.Stop()
	f := &feed{site: s, send: send, sent: number(q.Get("after"))}
	shown := q.Get("was")
	for {
		now, parts, err := s.inboxParts(ctx, q)
		if err != nil {
			return err
		}
		if shown != now {
			shown = now
			patches, err := draw(ctx, parts...)
			if err != nil {
				return err
			}
			f.sent++
			if err := f.write(ctx, frame{Seq: f.sent, Patches: patches}); err != nil {
				return err
			}
		}
		pause := time.After(frameEvery)
		for waiting := true; waiting; {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-bell:
				waiting = false
			case <-beat.C:
				if err := f.write(ctx, frame{Seq: f.sent}); err != nil {
					return err
				}
			}
		}
		select {
		case <-pause:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// inboxParts reads what the page shows and draws it; the first result changes
// when there is something new to see.
func (s *site) inboxParts(ctx context.Context, q url.Values) (string, []fragment, error) {
	open := s.openApprovals(ctx)
	out := []fragment{{"nav-approvals", navApprovals(open, true)}}
	if id := q.Get("id"); id != "" {
		a, err := s.approvals.GetApproval(ctx, &api.GetApprovalRequest{Id: id}, bigAnswers)
		if err != nil {
			return "", nil, err
		}
		return standing(a), append(out, fragment{"approval-" + id, approvalBox(question{Approval: a, Back: pathOfApproval(id), Now: time.Now()})}), nil
	}
	d, err := s.approvalsData(ctx, q)
	if err != nil {
		return "", nil, err
	}
	var is strings.Builder
	is.WriteString("list " + open)
	for _, a := range d.Approvals {
		is.WriteString(" " + a.GetId() + " " + standing(a))
	}
	return is.String(), append(out, fragment{"approvals", approvalsTable(d)}), nil
}

// standing changes whenever somebody has said something to an approval.
func standing(a *api.Approval) string {
	return a.GetStatus() + " " + strconv.Itoa(len(a.GetDecisions()))
}
