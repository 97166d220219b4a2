package web

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/coder/websocket"
	"golang.org/x/sync/errgroup"

	api "github.com/orchestrator-project/orchestrator/proto/orchestrator/v1"
)

// Rhythm of a live feed.
const (
	frameEvery = 100 * time.Millisecond // at most ten frames a second
	slowEvery  = time.Second            // for what is dear to draw
	beatEvery  = 15 * time.Second       // an empty frame says that the line is alive
	writeWait  = 20 * time.Second       // a reader slower than this comes back later
	manySteps  = 5000                   // from here on the list of steps is dear to draw
)

// live feeds one open page of a run. The page says where it stands with
// after; the feed sends what has changed since, then goes on as events come.
//
// One goroutine folds events into the run's view as fast as they come; another
// draws, now and then, what has changed since it last drew. Nothing queues up
// between them: while a slow reader takes one frame, the view moves on, and the
// next frame shows the newest state.
func (s *site) live(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	if q.Has("inbox") {
		s.liveInbox(w, r)
		return
	}
	sc := readScreen(q.Get("run"), q)
	if _, err := s.runs.GetRun(r.Context(), &api.GetRunRequest{Id: sc.Run}, bigAnswers); err != nil {
		p, code := describe(err)
		http.Error(w, p.Text, code)
		return
	}
	conn, err := websocket.Accept(w, r, nil) // checks that Origin is us
	if err != nil {
		s.log.InfoContext(r.Context(), "live feed refused", "run", sc.Run, "err", err)
		return
	}
	defer conn.CloseNow() //nolint:errcheck // the answer was given already
	ctx := conn.CloseRead(r.Context())
	f := &feed{site: s, screen: sc, sent: number(q.Get("after")), send: func(ctx context.Context, b []byte) error {
		ctx, cancel := context.WithTimeout(ctx, writeWait)
		defer cancel()
		return conn.Write(ctx, websocket.MessageText, b)
	}}
	err = f.run(ctx)
	switch {
	case err == nil:
		conn.Close(websocket.StatusNormalClosure, "the run has finished")
	case ctx.Err() == nil:
		s.log.InfoContext(ctx, "live feed ended", "run", sc.Run, "err", err)
		conn.Close(websocket.StatusTryAgainLater, "the feed broke off")
	}
}

// feed is what one open page is being sent.
type feed struct {
	site   *site
	screen screen
	view   *view
	send   func(context.Context, []byte) error
	every  time.Duration // between frames; 0: frameEvery
	begun  chan struct{} // a model begins to answer, which is shown at once; capacity 1

	// Of the drawing goroutine.
	sent   int32  // everything up to this event is on the page
	rows   string // the rows of the list of steps, once it was drawn whole
	total  int32  // rows over all windows of the list of steps
	status state
	slow   time.Time // when dear parts were drawn last
	all    bool      // draw everything: the page began without the whole run

	log  tail
	live ongoing // of the step of the drawer
}

// run sends frames until the run has finished, then returns nil.
func (f *feed) run(ctx context.Context) error {
	v, err := f.site.open(ctx, f.screen.Run, patience)
	if err != nil {
		return err
	}
	f.view, f.begun = v, make(chan struct{}, 1)
	if err := f.complete(ctx); err != nil {
		return err
	}
	if v.final() {
		return f.frame(ctx, true)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	bell := make(chan struct{}, 1) // something new is in the view; rings collapse
	ring := func() {
		select {
		case bell <- struct{}{}:
		default:
		}
	}
	ended := make(chan struct{})   // the run has finished; closed by the reader
	printed := make(chan struct{}) // so has its log
	var g errgroup.Group
	g.Go(func() error {
		err := f.fold(ctx, ring)
		if err == nil {
			close(ended)
		} else {
			cancel()
		}
		return err
	})
	if step, wanted := f.wantsLog(); wanted {
		g.Go(func() error {
			defer close(printed)
			return f.follow(ctx, step, ring)
		})
	} else {
		close(printed)
	}
	err = f.draw(ctx, bell, ended, printed)
	cancel()
	if readErr := g.Wait(); readErr != nil && !errors.Is(err, errGone) && err != nil {
		err = readErr
	}
	return err
}

// complete reads a long run that nobody has looked at yet to its end, and shows
// every second how far it has got.
func (f *feed) complete(ctx context.Context) error {
	if f.view.whole() {
		return nil
	}
	f.all = true
	ctx, cancel := context.WithCancel(ctx)
	var g errgroup.Group
	read := make(chan struct{})
	g.Go(func() error {
		defer close(read)
		for !f.view.whole() {
			if err := f.view.catchUp(ctx, f.site.runs, longPatience); err != nil {
				return err
			}
		}
		return nil
	})
	g.Go(func() error {
		defer cancel() // a page that is gone needs no more reading
		tick := time.NewTicker(slowEvery)
		defer tick.Stop()
		for {
			select {
			case <-read:
				return nil
			case <-tick.C:
				if err := f.frame(ctx, false); err != nil {
					return err
				}
			}
		}
	})
	return g.Wait()
}

// errGone means that the page went away or does not read.
var errGone = errors.New("the page is gone")

// fold applies the run's events to the view until the run has finished.
func (f *feed) fold(ctx context.Context, ring func()) error {
	stream, err := f.site.runs.WatchRun(ctx, &api.WatchRunRequest{Id: f.screen.Run, After: f.view.at()}, bigAnswers)
	if err != nil {
		return err
	}
	for {
		e, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("watch run: %w", err)
		}
		if e.GetSeq() == 0 {
			if e.GetType() == "delta" && e.GetPath() == f.screen.Step {
				if f.live.hear(e) {
					select {
					case f.begun <- struct{}{}:
					default:
					}
				}
				ring()
			}
			continue
		}
		if err := f.view.apply(e); err != nil {
			return err
		}
		if e.GetPath() == f.screen.Step {
			f.live.recorded(e)
		}
		ring()
	}
}

// draw sends frames as the bell rings, but no faster than the rhythm: only the first
// piece of an answer, which somebody has waited for, comes between.
func (f *feed) draw(ctx context.Context, bell, ended, printed <-chan struct{}) error {
	slow := time.NewTicker(slowEvery)
	defer slow.Stop()
	beat := time.NewTicker(beatEvery)
	defer beat.Stop()
	var pause <-chan time.Time // runs while no frame may be sent
	dirty := true
	for {
		if dirty && pause == nil {
			if err := f.frame(ctx, false); err != nil {
				return err
			}
			dirty, pause = false, time.After(cmp.Or(f.every, frameEvery))
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-bell:
			dirty = true
		case <-f.begun:
			dirty, pause = true, nil
		case <-pause:
			pause = nil
		case <-slow.C:
			dirty = dirty || f.growing()
		case <-beat.C:
			if err := f.write(ctx, frame{Seq: f.sent}); err != nil {
				return err
			}
		case <-ended:
			select {
			case <-printed:
			case <-time.After(slowEvery): // a log that does not end is cut off
			case <-ctx.Done():
			}
			return f.frame(ctx, true)
		}
	}
}

// growing reports whether the screen changes by time alone.
func (f *feed) growing() bool { return f.screen.Tab == "timeline" && !f.view.final() }

// frame draws what has changed since the last one and sends it.
func (f *feed) frame(ctx context.Context, done bool) error {
	to := f.view.at()
	parts, err := f.changed(ctx, done)
	if err != nil {
		return err
	}
	patches, err := draw(ctx, parts...)
	if err != nil {
		return err
	}
	if lines, fresh, some := f.log.take(); some {
		p, err := f.logPatch(ctx, lines, fresh)
		if err != nil {
			return err
		}
		patches = append(patches, p)
	}
	out := frame{Seq: to, Patches: patches, Done: done, Say: f.say()}
	f.all = f.all && !f.view.whole()
	if len(patches) == 0 && !done && to == f.sent {
		return nil
	}
	f.sent = to
	return f.write(ctx, out)
}

func (f *feed) write(ctx context.Context, out frame) error {
	b, err := json.Marshal(out)
	if err != nil {
		return err
	}
	if err := f.send(ctx, b); err != nil {
		return fmt.Errorf("%w: %w", errGone, err)
	}
	return nil
}

// say is a change of the run's status, for screen readers.
func (f *feed) say() string {
	now := runState(f.view.current().GetStatus())
	before := f.status
	f.status = now
	if before == "" || before == now {
		return ""
	}
	return "The run is " + string(now) + "."
}

// changed lists the elements of the screen that events after f.sent touched.
// The last frame of a run draws everything once more.
func (f *feed) changed(ctx context.Context, done bool) ([]fragment, error) {
	v, sc := f.view, f.screen
	news := f.live.take()
	ch := v.since(f.sent, sc.Step)
	all := done || f.all
	if all {
		ch = change{any: true, run: true, steps: true, waits: true, published: true, drawer: sc.Step != ""}
	}
	var out []fragment
	if ch.run || ch.steps {
		out = append(out, fragment{"run-head", runHead(v.head(sc))})
	}
	if ch.waits || ch.run {
		d, err := f.site.waitsData(ctx, v, sc)
		if err != nil {
			return nil, err
		}
		out = append(out, fragment{"waits", waitsPane(d)}, fragment{"nav-approvals", navApprovals(f.site.openApprovals(ctx), false)})
	}
	now := time.Now()
	dear := all || now.Sub(f.slow) >= slowEvery
	after := f.sent
	if all {
		after = -1
	}
	switch sc.Tab {
	case "graph":
		for _, b := range v.drawn(sc, after).Boxes {
			out = append(out, fragment{b.ID, graphBox(b)})
		}
	case "timeline":
		if dear && (ch.steps || ch.run || f.growing()) {
			f.slow = now
			out = append(out, fragment{"timeline", timelineTab(v.timeline(sc, now))})
		}
	case "steps":
		if ch.steps && (dear || v.size() < manySteps) {
			f.slow = now
			out = append(out, f.stepRows(v.window(sc), after)...)
		}
	case "events":
		if sc.Top == 0 && ch.any {
			d, err := f.site.eventsData(ctx, v, sc)
			if err != nil {
				return nil, err
			}
			out = append(out, fragment{"events", eventsTab(d)})
		}
	case "artifacts":
		if ch.published {
			d, err := f.site.artifactsData(ctx, v, sc)
			if err != nil {
				return nil, err
			}
			out = append(out, fragment{"artifacts", artifactsTab(d)})
		}
	case "outputs":
		if ch.run {
			out = append(out, fragment{"outputs", outputsTab(v.current())})
		}
	}
	if ch.drawer {
		d, err := f.site.drawer(ctx, v, sc, f.live.now())
		if err != nil {
			return nil, err
		}
		out = append(out, fragment{"drawer", drawerPane(d)})
	} else if news {
		out = append(out, fragment{"talk-live", talkLive(f.live.now())})
	}
	return out, nil
}

// stepRows draws the changed rows alone while the window holds the same rows as
// before, else the whole window: the page keeps the rows it has.
func (f *feed) stepRows(d stepsData, after int32) []fragment {
	ids, total := rowIDs(d), f.total
	same := ids == f.rows
	f.rows, f.total = ids, d.Total
	out := []fragment{{"step-chips", stepChips(d)}}
	if !same {
		return append(out, fragment{"steps", stepTable(d)})
	}
	for _, r := range d.Rows {
		if r.seq > after {
			out = append(out, fragment{"step-" + r.Path, stepLine(r, d)})
		}
	}
	if total != d.Total {
		out = append(out, fragment{"step-pager", stepPager(d)})
	}
	return out
}

// wantsLog says which log the screen follows: of one step, or of all ("").
func (f *feed) wantsLog() (step string, wanted bool) {
	if f.screen.Tab == "logs" {
		return "", true
	}
	return f.screen.Step, f.screen.Step != ""
}

// logID is the element that holds the followed log, and how many lines it keeps.
func (f *feed) logID() (string, int) {
	if f.screen.Tab == "logs" {
		return "log", logTail
	}
	return "drawer-log", drawerLog
}

// follow reads what is printed until the run has finished.
func (f *feed) follow(ctx context.Context, step string, ring func()) error {
	_, keep := f.logID()
	f.log.begin(keep)
	stream, err := f.site.runs.ReadLogs(ctx, &api.ReadLogsRequest{
		Id: f.screen.Run, Step: step, Follow: true, Tail: int32(keep),
	}, bigAnswers)
	if err != nil {
		return err
	}
	for {
		l, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("follow log: %w", err)
		}
		f.log.add(l)
		ring()
	}
}

// tail holds the printed lines that have not been sent yet, and of these only
// as many as the page keeps.
type tail struct {
	mu    sync.Mutex
	lines []logLine
	keep  int
	whole bool // the page's lines are to be replaced, not added to
	any   bool
}

func (t *tail) begin(keep int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.keep, t.whole = keep, true
}

func (t *tail) add(l *api.LogLine) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.lines = appendLines(t.lines, l)
	if over := len(t.lines) - t.keep; over > 0 {
		t.lines = append(t.lines[:0], t.lines[over:]...)
		t.whole = true
	}
	t.any = true
}

// take returns the waiting lines and whether they replace what the page has.
func (t *tail) take() (lines []logLine, whole, some bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	lines, whole, some = t.lines, t.whole, t.any
	if some {
		t.lines, t.whole, t.any = nil, false, false
	}
	return lines, whole, some
}

func (f *feed) logPatch(ctx context.Context, lines []logLine, whole bool) (patch, error) {
	id, keep := f.logID()
	part := fragment{id, logRows(lines)}
	if whole {
		part.body = logLines(id, lines, id == "log")
	}
	p, err := draw(ctx, part)
	if err != nil {
		return patch{}, err
	}
	p[0].Append, p[0].Keep = !whole, keep
	return p[0], nil
}
