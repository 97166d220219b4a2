package executor

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"sync"
	"time"

	"github.com/orchestrator-project/orchestrator/pipeline"
	"github.com/orchestrator-project/orchestrator/store"
)

// missedBeats is how many heartbeats a worker may leave out before its stream is
// held to be broken.
const missedBeats = 3

// peersEvery is how often the addresses of the other servers are read while a
// worker is connected.
const peersEvery = time.Minute

// maxTaskLog bounds one piece of output that a worker sends, in bytes.
const maxTaskLog = 1 << 20

var workerNameForm = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._@-]{0,99}$`)

// session is the stream of one worker.
type session struct {
	crew *crew
	hand *hand
	bell chan struct{} // capacity 1: there are orders
	end  context.CancelCauseFunc

	mu     sync.Mutex
	orders []pipeline.WorkerOrder
}

// order is sent soon; it never blocks.
func (s *session) order(o pipeline.WorkerOrder) {
	s.mu.Lock()
	s.orders = append(s.orders, o)
	s.mu.Unlock()
	nudge(s.bell)
}

var errReplaced = errors.New("the worker has connected anew")

// Attend serves the stream of a worker until ctx or the stream ends. hear waits
// for what the worker says next, say tells it something; neither is called
// concurrently with itself. hear must return soon after Attend has returned. A
// worker that cannot be taken in gets a *pipeline.Error.
func (e *Executor) Attend(ctx context.Context, w pipeline.Worker, welcome func(pipeline.WorkerWelcome) error, hear func() (pipeline.WorkerWord, error), say func(pipeline.WorkerOrder) error) error {
	c := e.crew
	if err := c.acceptable(&w); err != nil {
		return err
	}
	ctx, end := context.WithCancelCause(ctx)
	defer end(nil)
	s := &session{crew: c, bell: make(chan struct{}, 1), end: end}
	peers := c.peers(ctx)
	if err := c.join(&w, s); err != nil {
		return err
	}
	var reports sync.WaitGroup
	defer reports.Wait()
	defer c.part(s)
	if err := welcome(pipeline.WorkerWelcome{Heartbeat: e.cfg.WorkerHeartbeat, Peers: peers}); err != nil {
		return err
	}
	for _, token := range w.Held {
		reports.Go(func() { c.held(ctx, s, token) })
	}
	type heard struct {
		word pipeline.WorkerWord
		err  error
	}
	words := make(chan heard)
	go func() {
		for {
			w, err := hear()
			select {
			case words <- heard{w, err}:
			case <-ctx.Done():
				return
			}
			if err != nil {
				return
			}
		}
	}()
	silence := time.NewTimer(missedBeats * e.cfg.WorkerHeartbeat)
	defer silence.Stop()
	look := time.NewTicker(peersEvery)
	defer look.Stop()
	remind := time.NewTicker(max(time.Millisecond, e.cfg.AdoptionGrace/3))
	defer remind.Stop()
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-silence.C:
			return &pipeline.Error{Kind: pipeline.Unavailable, Reason: "worker_silent", Text: fmt.Sprintf("no heartbeat for %s", missedBeats*e.cfg.WorkerHeartbeat)}
		case <-s.bell:
			s.mu.Lock()
			orders := s.orders
			s.orders = nil
			s.mu.Unlock()
			for _, o := range orders {
				if err := say(o); err != nil {
					return err
				}
			}
		case <-look.C:
			reports.Go(func() { s.order(pipeline.WorkerOrder{Peers: c.peers(ctx)}) })
		case <-remind.C: // an owner that hears nothing for AdoptionGrace no longer waits
			for _, token := range c.relayedBy(s) {
				reports.Go(func() { c.held(ctx, s, token) })
			}
		case h := <-words:
			if h.err != nil {
				return h.err
			}
			silence.Reset(missedBeats * e.cfg.WorkerHeartbeat)
			c.take(ctx, s, &h.word, &reports)
		}
	}
}

// acceptable refuses a worker that cannot be worked with.
func (c *crew) acceptable(w *pipeline.Worker) error {
	refuse := func(reason, format string, args ...any) error {
		return &pipeline.Error{Kind: pipeline.Invalid, Reason: reason, Text: fmt.Sprintf(format, args...)}
	}
	switch {
	case !workerNameForm.MatchString(w.Name):
		return refuse("invalid_name", "a worker's name is up to 100 letters, digits and the characters . _ @ -, beginning with a letter or digit")
	case w.Incarnation == "":
		return refuse("invalid_incarnation", "a worker names its process by a fresh incarnation")
	case w.Slots < 1:
		return refuse("invalid_slots", "a worker has at least one slot")
	}
	for i := range w.Actions {
		a := &w.Actions[i]
		switch {
		case c.ex.actions[a.Key] != nil || a.Key == pipeline.CommandAction:
			return refuse("action_exists", "the worker brings an action %s, which the server has itself; call it something else", a.Key)
		case w.Labels == nil && len(w.Actions) == 0:
			return refuse("nothing_to_do", "the worker brings nothing")
		}
	}
	return nil
}

// join takes a worker in.
func (c *crew) join(w *pipeline.Worker, s *session) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	h := c.hands[w.Name]
	switch {
	case h == nil || h.session == nil && h.info.Incarnation != w.Incarnation:
		if h != nil { // its attempts are waited for as before
			c.forget(h)
		}
		h = &hand{errands: map[string]*errand{}}
		c.hands[w.Name] = h
	case h.info.Incarnation != w.Incarnation:
		return &pipeline.Error{Kind: pipeline.Conflict, Reason: "worker_name_taken", Text: "a worker called " + w.Name + " is connected already; give this one another name"}
	case h.session != nil:
		h.session.end(errReplaced)
	}
	if h.gone != nil {
		h.gone.Stop()
		h.gone = nil
	}
	now := c.ex.cfg.Now()
	h.info, h.session, h.connected, h.heard = *w, s, now, now
	s.hand = h
	c.learn(w.Actions)
	c.ex.log.Info("worker connected", "worker", w.Name, "labels", w.Labels, "slots", w.Slots, "version", w.Version, "held", len(w.Held))
	c.serve()
	if !c.scanned {
		c.scanned = true
		c.ex.tasks.Go(c.scan)
	}
	return nil
}

// part notes that a worker's stream has ended. It may come back with what it
// holds; what it does not bring back in time is given to others.
func (c *crew) part(s *session) {
	c.mu.Lock()
	defer c.mu.Unlock()
	h := s.hand
	if h.session != s {
		return // it has come back already
	}
	h.session = nil
	c.ex.log.Info("worker disconnected", "worker", h.info.Name, "attempts", len(h.errands))
	for _, x := range h.errands {
		x.expect()
	}
	for _, y := range c.relayed {
		if y.session == s {
			y.expect()
		}
	}
	if len(h.errands) == 0 {
		c.forget(h)
	} else {
		h.gone = time.AfterFunc(c.ex.cfg.RemoteWait, func() {
			c.mu.Lock()
			defer c.mu.Unlock()
			if h.session == nil {
				c.forget(h)
			}
		})
	}
	c.strand()
}

// forget drops a worker that has gone.
func (c *crew) forget(h *hand) {
	if c.hands[h.info.Name] == h {
		delete(c.hands, h.info.Name)
	}
}

// strand tells the steps in line for which no worker is connected any more, so
// that their runs may be parked.
func (c *crew) strand() {
	for _, g := range c.order {
		for _, r := range g.runs {
			for _, w := range g.wants[r] {
				if !c.suited(w.task.Def) {
					r.lane.post(func() { r.do(func() { r.stranded(w.task) }) })
				}
			}
		}
	}
}

// take acts on what a worker says.
func (c *crew) take(ctx context.Context, s *session, w *pipeline.WorkerWord, reports *sync.WaitGroup) {
	c.mu.Lock()
	s.hand.heard = c.ex.cfg.Now()
	c.mu.Unlock()
	switch {
	case w.Heartbeat != nil:
		c.mu.Lock()
		s.hand.info.Busy, s.hand.info.Used = w.Heartbeat.Busy, w.Heartbeat.Used
		c.serve()
		c.mu.Unlock()
	case w.Held != nil:
		for _, token := range w.Held {
			reports.Go(func() { c.held(ctx, s, token) })
		}
	case w.Log != nil && w.Log.N > 0 && w.Log.N < ownLines:
		c.heardLog(ctx, w.Log)
	case w.Result != nil:
		r := *w.Result
		reports.Go(func() { c.result(ctx, s, ReportFinished, r) })
	case w.Decline != nil:
		c.mu.Lock()
		x := c.errands[w.Decline.Token]
		c.mu.Unlock()
		if x != nil {
			c.ex.log.Info("worker declined an attempt", "worker", s.hand.info.Name, "run", x.order.Run, "step", x.order.Path, "why", w.Decline.Reason)
			if w.Decline.Begun {
				x.close(errHandedBack)
			} else {
				x.close(errDeclined)
			}
			return
		}
		d := *w.Decline
		reports.Go(func() { c.result(ctx, s, ReportLost, pipeline.WorkerResult{Token: d.Token}) })
	case w.Drain:
		c.mu.Lock()
		s.hand.info.Draining = true
		c.strand()
		c.mu.Unlock()
	}
}

// held learns that a worker has an attempt.
func (c *crew) held(ctx context.Context, s *session, token string) {
	t, err := c.ex.attemptOf(ctx, token)
	if err != nil {
		c.dismiss(ctx, s, token, err)
		return
	}
	c.mu.Lock()
	if x := c.errands[token]; x != nil {
		x.attach(s)
		c.mu.Unlock()
		return
	}
	y := c.relayed[token]
	if y == nil {
		y = &relay{crew: c, token: token}
		c.relayed[token] = y
	}
	y.session, y.worker = s, s.hand.info.Name
	if y.gone != nil {
		y.gone.Stop()
	}
	c.mu.Unlock()
	if err := c.ex.Report(ctx, Report{Token: AttemptToken(token), State: ReportHeld, Worker: s.hand.info.Name}); err != nil {
		c.dismiss(ctx, s, token, err)
		return
	}
	c.ex.log.Info("worker holds an attempt", "worker", s.hand.info.Name, "run", t.Run, "step", t.Path, "attempt", t.Attempt)
}

// AttemptRun is the run of the attempt that a token names; a token that is not
// ours is Denied.
func (e *Executor) AttemptRun(ctx context.Context, token string) (pipeline.RunID, error) {
	id, err := e.attemptOf(ctx, token)
	return id.Run, err
}

// relayedBy lists the attempts of others' runs that a worker has.
func (c *crew) relayedBy(s *session) []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var list []string
	for token, y := range c.relayed {
		if y.session == s {
			list = append(list, token)
		}
	}
	return list
}

// recall tells a worker, if it is connected, that nobody wants an attempt any
// more.
func (c *crew) recall(worker, token string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if h := c.hands[worker]; h != nil && h.session != nil {
		h.session.order(pipeline.WorkerOrder{Cancel: token})
	}
}

// dismiss tells a worker that nobody wants an attempt, where that is for good.
func (c *crew) dismiss(ctx context.Context, s *session, token string, err error) {
	if ctx.Err() != nil || pipeline.KindOf(err) == pipeline.Unavailable || pipeline.KindOf(err) == pipeline.Internal {
		c.ex.log.Warn("attempt of a worker not reported; it will say so again", "worker", s.hand.info.Name, "err", err)
		return
	}
	c.mu.Lock()
	delete(c.relayed, token)
	c.mu.Unlock()
	s.order(pipeline.WorkerOrder{Cancel: token})
	s.order(pipeline.WorkerOrder{Acknowledge: token})
}

// result hands on how an attempt ended, to whoever owns its run. The worker may
// forget it once it is durable.
func (c *crew) result(ctx context.Context, s *session, state string, r pipeline.WorkerResult) {
	err := c.ex.Report(ctx, Report{
		Token: AttemptToken(r.Token), State: state, Output: r.Output, Error: r.Error, Usage: r.Usage, Model: r.Model,
		Worker: s.hand.info.Name, Files: r.Files,
	})
	if err != nil {
		c.dismiss(ctx, s, r.Token, err)
		return
	}
	c.mu.Lock()
	delete(c.relayed, r.Token)
	c.mu.Unlock()
	s.order(pipeline.WorkerOrder{Acknowledge: r.Token})
}

// heardLog keeps a piece of an attempt's output under the worker's own number:
// any server may get it, and get it again.
func (c *crew) heardLog(ctx context.Context, l *pipeline.WorkerLog) {
	t, err := c.ex.attemptOf(ctx, l.Token)
	if err != nil || len(l.Text) > maxTaskLog {
		return
	}
	c.mu.Lock()
	x := c.errands[l.Token]
	c.mu.Unlock()
	text := l.Text
	if x != nil {
		text = x.redact.text(text)
	}
	gen := c.ex.logs.keep(store.LogChunk{Run: t.Run, Path: t.Path, Attempt: t.Attempt, N: l.N, Stream: l.Stream, Text: text})
	if x != nil {
		x.logged.Store(gen)
	}
}

// relay is an attempt of a run that another process owns, whose worker is
// connected here.
type relay struct {
	crew    *crew
	token   string
	worker  string
	session *session
	gone    *time.Timer
}

// expect waits for the worker to come back, and then says that the attempt is
// lost.
func (y *relay) expect() {
	c := y.crew
	y.session = nil
	y.gone = time.AfterFunc(c.ex.cfg.RemoteWait, func() {
		c.mu.Lock()
		stays := y.session != nil || c.relayed[y.token] != y
		if !stays {
			delete(c.relayed, y.token)
		}
		c.mu.Unlock()
		if stays {
			return
		}
		ctx, cancel := context.WithTimeout(c.ex.work, 10*time.Second)
		defer cancel()
		if err := c.ex.Report(ctx, Report{Token: AttemptToken(y.token), State: ReportLost, Worker: y.worker}); err != nil && ctx.Err() == nil {
			c.ex.log.Warn("loss of an attempt not reported", "worker", y.worker, "err", err)
		}
	})
}
