package executor_test

import (
	"context"
	"errors"
	"iter"
	"slices"
	"time"

	"github.com/orchestrator-project/orchestrator/pipeline"
	"github.com/orchestrator-project/orchestrator/store"
)

// simClient is the store as one process sees it: each operation takes its time
// and may go wrong on the way there or back. Verbs that the engine has no need
// of are nil.
type simClient struct {
	store.Store
	w      *simWorld
	db     *simDB
	number int // of the process

	// Guarded by db.mu.
	open       []int64 // epochs of lanes that were opened and not released
	listeners  []func(store.Bell)
	deaf       time.Time     // bells are lost until then; then one says All
	cut        time.Time     // the store does not answer this process until then
	thaw       chan struct{} // closed at the end of a stop; nil: it is not stopped
	died       chan struct{} // closed when the process is killed
	diedAt     time.Time     // zero: it lives
	noticed    bool          // the death of the process is known without its lease
	unwell     time.Time     // the newest time at which something was wrong with it
	statements int
	ops        map[string]int // counted by kind, for what is drawn from them
}

var errSimDead = errors.New("the process is dead")

func simAway(op string) error {
	return &pipeline.Error{Kind: pipeline.Unavailable, Reason: "store_unavailable", Text: op + ": the store does not answer"}
}

// knownGone reports whether others know without a lease that the process is gone.
func (c *simClient) knownGone(now time.Time) bool {
	return c.noticed && !c.diedAt.IsZero() && now.Sub(c.diedAt) > 100*time.Millisecond
}

func (c *simClient) dead() bool {
	select {
	case <-c.died:
		return true
	default:
		return false
	}
}

// held waits while the process is stopped.
func (c *simClient) held() error {
	for {
		c.db.mu.Lock()
		thaw := c.thaw
		c.db.mu.Unlock()
		if thaw == nil {
			break
		}
		select {
		case <-thaw:
		case <-c.died:
			return errSimDead
		}
	}
	if c.dead() {
		return errSimDead
	}
	return nil
}

// spend lets the time of a half of an operation pass.
func (c *simClient) spend(ctx context.Context, d time.Duration) error {
	if d > 0 {
		t := time.NewTimer(d)
		defer t.Stop()
		select {
		case <-t.C:
		case <-ctx.Done():
		case <-c.died:
		}
	}
	if err := c.held(); err != nil {
		return err
	}
	return ctx.Err()
}

// simPeople is the key of contexts of people who use a process: what they ask of
// the store is not what an idle process asks.
type simPeople struct{}

func byPeople() context.Context { return context.WithValue(context.Background(), simPeople{}, true) }

// do carries out an operation: on its way there, in the store, on its way back.
// Point names what the operation is about, for faults that wait for it.
func (c *simClient) do(ctx context.Context, op string, f func() (point string, err error)) error {
	c.db.mu.Lock()
	if ctx.Value(simPeople{}) == nil {
		c.statements++
	}
	p := c.w.pace(c, op)
	c.db.mu.Unlock()
	if err := c.spend(ctx, p.there); err != nil {
		return err
	}
	c.w.at(c, op+" sent")
	if err := c.held(); err != nil {
		return err
	}
	c.db.mu.Lock()
	if p.unsent || c.w.away(c) {
		c.db.mu.Unlock()
		return simAway(op)
	}
	point, err := f()
	c.db.mu.Unlock()
	if err == nil {
		c.w.at(c, point+" done")
	}
	if e := c.spend(ctx, p.back); e != nil {
		return e
	}
	c.db.mu.Lock()
	lost := p.unanswered || c.w.away(c)
	c.db.mu.Unlock()
	if lost {
		return simAway(op)
	}
	if err == nil {
		c.w.at(c, point+" answered")
	}
	return err
}

func (c *simClient) OpenLane(ctx context.Context, _ store.ReplicaID) (store.Lane, error) {
	var l *simLease
	err := c.do(ctx, "open lane", func() (string, error) {
		l = c.db.openLane(c)
		return "open lane", nil
	})
	if err != nil {
		return nil, err
	}
	c.db.mu.Lock()
	c.open = append(c.open, l.epoch)
	c.db.mu.Unlock()
	c.w.tell("replica %d opens lane %d", c.number, l.epoch)
	return &simLane{c: c, epoch: l.epoch}, nil
}

func (c *simClient) Heartbeat(ctx context.Context, _ store.ReplicaID) (p store.Pulse, err error) {
	err = c.do(ctx, "heartbeat", func() (string, error) {
		p = c.db.heartbeat(c)
		return "heartbeat", nil
	})
	return p, err
}

func (c *simClient) Reclaim(ctx context.Context) (n int, err error) {
	err = c.do(ctx, "reclaim", func() (string, error) {
		if n = c.db.reclaim(c); n > 0 {
			return "reclaim of runs", nil
		}
		return "reclaim", nil
	})
	if err == nil && n > 0 {
		c.Ring(store.Bell{Queued: true})
	}
	return n, err
}

func (c *simClient) Run(ctx context.Context, id pipeline.RunID) (run *pipeline.Run, err error) {
	err = c.do(ctx, "run", func() (string, error) {
		r := c.db.runs[id]
		if r == nil {
			return "", simNoRun(id)
		}
		row := r.run
		run = &row
		return "run", nil
	})
	return run, err
}

func (c *simClient) Events(ctx context.Context, id pipeline.RunID, after int32) iter.Seq2[pipeline.Event, error] {
	return func(yield func(pipeline.Event, error) bool) {
		var list []pipeline.Event
		err := c.do(ctx, "events", func() (_ string, err error) {
			if r := c.db.runs[id]; r != nil {
				list, err = c.db.read(r, after)
			}
			return "events", err
		})
		if err != nil {
			yield(pipeline.Event{}, err)
			return
		}
		for i := range list {
			if !yield(list[i], nil) {
				return
			}
		}
	}
}

func (c *simClient) StepEvents(ctx context.Context, id pipeline.RunID, path pipeline.Path, after int32) iter.Seq2[pipeline.Event, error] {
	return func(yield func(pipeline.Event, error) bool) {
		for e, err := range c.Events(ctx, id, after) {
			if (err != nil || e.Path == path) && !yield(e, err) {
				return
			}
		}
	}
}

func (c *simClient) PutPlan(ctx context.Context, p store.Plan) error {
	return c.do(ctx, "put plan", func() (string, error) {
		c.db.plans[p.Digest] = p
		return "put plan", nil
	})
}

func (c *simClient) Plan(ctx context.Context, d pipeline.Digest) (plan *store.Plan, err error) {
	err = c.do(ctx, "plan", func() (string, error) {
		p, ok := c.db.plans[d]
		if !ok {
			return "", &pipeline.Error{Kind: pipeline.NotFound, Text: "there is no plan " + string(d)}
		}
		plan = &p
		return "plan", nil
	})
	return plan, err
}

func (c *simClient) Approval(ctx context.Context, id pipeline.ApprovalID) (a *pipeline.Approval, err error) {
	err = c.do(ctx, "approval", func() (string, error) {
		known := c.db.approvals[id]
		if known == nil {
			return "", store.ApprovalNotFound(id)
		}
		row := *known
		a = &row
		return "approval", nil
	})
	return a, err
}

func (c *simClient) Decide(ctx context.Context, id pipeline.ApprovalID, d pipeline.Decision) (a *pipeline.Approval, err error) {
	var bell store.Bell
	err = c.do(ctx, "decide", func() (_ string, err error) {
		a, err = c.db.decide(id, d, &bell)
		return "decide", err
	})
	if err == nil {
		c.Ring(bell)
	}
	return a, err
}

func (c *simClient) Send(ctx context.Context, run pipeline.RunID, m store.Message) error {
	var bell store.Bell
	err := c.do(ctx, "send", func() (string, error) { return "send", c.db.send(run, m, &bell) })
	if err == nil {
		c.Ring(bell)
	}
	return err
}

func (c *simClient) Inbox(ctx context.Context, runs []pipeline.RunID) (list []store.Message, err error) {
	err = c.do(ctx, "inbox", func() (string, error) {
		for _, id := range runs {
			if r := c.db.runs[id]; r != nil {
				list = append(list, c.w.flaw.found(r.inbox)...)
			}
		}
		store.SortMessages(list)
		if len(list) > 0 {
			return "inbox with messages", nil
		}
		return "inbox", nil
	})
	return list, err
}

func (c *simClient) AppendLogs(ctx context.Context, _ []store.LogChunk) error {
	return c.do(ctx, "logs", func() (string, error) { return "logs", nil })
}

// Ring reaches the listeners of the process at once. On their way to the others
// bells are late, lost or come twice; they do not carry records.
func (c *simClient) Ring(b store.Bell) {
	if b.Empty() && len(b.Created)+len(b.Appended) == 0 || c.dead() || c.w.flaw.losesBells && len(b.Inbox) > 0 {
		return
	}
	c.w.rung(b)
	c.db.mu.Lock()
	own := slices.Clone(c.listeners)
	others := b
	others.Created, others.Appended = nil, nil
	others.Runs = slices.Clone(b.Runs)
	for i := range b.Appended {
		others.Runs = append(others.Runs, b.Appended[i].Run)
	}
	delays := c.w.bellDelays(c)
	c.db.mu.Unlock()
	for _, f := range own {
		f(b)
	}
	for _, d := range delays {
		time.AfterFunc(d.leave, func() {
			if !c.dead() { // what it had gathered is lost with it
				d.to.hear(others, d.travel)
			}
		})
	}
}

// hear is a bell that comes from another process.
func (c *simClient) hear(b store.Bell, after time.Duration) {
	time.AfterFunc(after, func() {
		if c.held() != nil {
			return
		}
		c.db.mu.Lock()
		own := slices.Clone(c.listeners)
		if time.Now().Before(c.deaf) || c.w.away(c) {
			own = nil
		}
		c.db.mu.Unlock()
		for _, f := range own {
			f(b)
		}
	})
}

func (c *simClient) Listen(ctx context.Context, f func(store.Bell)) error {
	c.db.mu.Lock()
	c.listeners = append(c.listeners, f)
	c.db.mu.Unlock()
	select {
	case <-ctx.Done():
	case <-c.died:
	}
	c.db.mu.Lock()
	c.listeners = nil
	c.db.mu.Unlock()
	return nil
}

// simLane is a lane as its owner holds it.
type simLane struct {
	c     *simClient
	epoch int64
	doubt []*pipeline.Run // of claims whose answers were lost
}

func (l *simLane) ID() int64    { return l.epoch }
func (l *simLane) Epoch() int64 { return l.epoch }

func (l *simLane) Commit(ctx context.Context, b *store.Batch) (res store.Result, err error) {
	var bell store.Bell
	point := pointOf(b)
	err = l.do(ctx, point, func() (_ string, err error) {
		res, bell, err = l.c.db.commit(l.epoch, b)
		return point, err
	})
	if err == nil {
		l.c.Ring(bell)
	}
	return res, err
}

// pointOf names a batch by the rarest thing that it holds.
func pointOf(b *store.Batch) string {
	switch {
	case len(b.Park) > 0:
		return "parking"
	case len(b.Ask) > 0:
		return "asking"
	case len(b.Create) > 0:
		return "creation"
	case len(b.Consume) > 0:
		return "consumption"
	case len(b.Finish) > 0:
		return "finish"
	}
	return "commit"
}

func (l *simLane) Claim(ctx context.Context, n int) (runs []*pipeline.Run, err error) {
	err = l.do(ctx, "claim", func() (_ string, err error) {
		runs, err = l.c.db.claim(l.epoch, max(0, n-len(l.doubt)))
		if err != nil {
			return "", err
		}
		runs = append(l.doubt, runs...)
		if l.doubt = runs; len(runs) > 0 {
			return "claim of runs", nil
		}
		return "claim", nil
	})
	if err == nil {
		l.doubt = nil
	}
	return runs, err
}

func (l *simLane) ClaimRun(ctx context.Context, id pipeline.RunID) (run *pipeline.Run, err error) {
	named := func(run *pipeline.Run) bool { return run.ID == id }
	err = l.do(ctx, "claim run", func() (_ string, err error) {
		if i := slices.IndexFunc(l.doubt, named); i >= 0 {
			run = l.doubt[i]
			return "claim run", l.c.db.fence(l.epoch)
		}
		if run, err = l.c.db.claimRun(l.epoch, id); err == nil {
			l.doubt = append(l.doubt, run)
		}
		return "claim run", err
	})
	if err == nil {
		l.doubt = slices.DeleteFunc(l.doubt, named)
	}
	return run, err
}

// do is an operation of the lane: nothing of a process that is dead is recorded,
// and its goroutines end.
func (l *simLane) do(ctx context.Context, op string, f func() (string, error)) error {
	err := l.c.do(ctx, op, f)
	if errors.Is(err, errSimDead) {
		return store.ErrFenced
	}
	return err
}

func (l *simLane) Release(ctx context.Context) error {
	n := 0
	err := l.do(ctx, "release", func() (string, error) {
		n = l.c.db.release(l.epoch)
		return "release", nil
	})
	if err == nil {
		l.c.db.mu.Lock()
		l.c.open = slices.DeleteFunc(l.c.open, func(e int64) bool { return e == l.epoch })
		l.c.db.mu.Unlock()
		if n > 0 {
			l.c.Ring(store.Bell{Queued: true})
		}
	}
	return err
}

// Key is the same for all processes.
func (c *simClient) Key(context.Context, string) ([]byte, error) {
	return []byte("the key that all processes share"), nil
}
