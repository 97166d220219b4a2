package executor

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/orchestrator-project/orchestrator/pipeline"
	"github.com/orchestrator-project/orchestrator/store"
)

const (
	maxBatchEvents = 8192 // a batch that has gathered so much lets its runs wait
	maxWaiting     = 1024 // submissions that wait for a store that does not answer
)

// lane owns runs: its goroutine alone changes their state. A second goroutine,
// the committer, is the only user of the store's lane. While one batch is being
// made durable, the next one gathers: there is no timer.
type lane struct {
	ex     *Executor
	epoch  int64         // of the lease
	opened time.Duration // when it was asked for, as Executor.beat
	held   atomic.Bool   // it has begun nothing for want of a heartbeat
	ended  chan struct{} // closed once the lane has let go of its runs
	runs   map[pipeline.RunID]*runState
	size   atomic.Int32 // of runs, for others

	mu     sync.Mutex
	mail   []func()
	closed bool
	bell   chan struct{} // capacity 1: there is mail
	tail   sync.Mutex    // serializes what is posted after the end
	soon   []func()      // what the lane's goroutine has left for itself

	batch   *store.Batch
	index   map[pipeline.RunID]int // of batch.Append
	events  int                    // in batch
	waiting []submission           // whose Create is in batch
	eager   bool                   // somebody waits for what is in batch
	patient bool                   // a timer will make it eager

	sent     *sentBatch // being committed
	jobs     chan laneJob
	durables []durable // waits for commits

	loading map[pipeline.RunID]bool  // claimed, their logs are being read; true: messages have come since
	reading int                      // readings of inboxes under way
	taken   map[store.MessageID]bool // messages that have had their effect; true: durably

	claiming bool
	claim    bool        // more may stand in the queue
	stalled  []*runState // they go on when the batch under way is committed
	check    bool        // ask the store whether the lease still stands
	stopping bool
	parted   bool // the runs were told that their owner leaves
	hurried  bool // there is no time left to save files
	fenced   bool
	broken   error // why the store does not answer, for /readyz
}

// sentBatch is a batch in the committer's hands.
type sentBatch struct {
	batch   *store.Batch
	waiting []submission
	ended   []*runState
	parked  []*runState // of batch.Park, by index
	failed  bool        // nothing of it is recorded, and the lane is lost
}

// durable is a function to call once a run's event is committed.
type durable struct {
	run    *runState
	seq    int32
	f      func()
	always bool   // also where the run has ended with it
	lost   func() // instead, where the run is let go before; nil: nothing
}

// submission is a run on its way in.
type submission struct {
	run     *pipeline.Run
	prog    *program
	answers map[string]any
	uploads pipeline.Digest
	fork    *pipeline.Fork
	trace   *pipeline.Trace
	create  store.Create
	at      int  // its index in batch.Create
	awaited bool // a run that is here waits for it: were it to line up, both might wait for ever
	state   *runState
	reply   func(submitted) // nil: nobody waits
}

func (s *submission) answer(a submitted) {
	if s.reply != nil {
		s.reply(a)
	}
}

type submitted struct {
	run *pipeline.Run
	err error
}

// laneJob is work for the committer; exactly one member is set.
type laneJob struct {
	commit *sentBatch
	claim  int
	resume pipeline.RunID
	reply  func(error) // of resume
}

func newLane(ex *Executor) *lane {
	return &lane{
		ex: ex, ended: make(chan struct{}), runs: map[pipeline.RunID]*runState{}, bell: make(chan struct{}, 1),
		batch: &store.Batch{}, index: map[pipeline.RunID]int{}, jobs: make(chan laneJob, 16), claim: true,
		loading: map[pipeline.RunID]bool{}, taken: map[store.MessageID]bool{},
	}
}

// post hands the lane's goroutine something to do. It never blocks. After the
// lane's end, when only loose ends are left, f runs at once.
func (l *lane) post(f func()) {
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		l.tail.Lock()
		defer l.tail.Unlock()
		f()
		return
	}
	l.mail = append(l.mail, f)
	l.mu.Unlock()
	nudge(l.bell)
}

// run serves the lane under one lease, until ctx ends or the lease is lost. A
// batch that is under way then is waited for: it may have been recorded before
// the loss, or after it where a heartbeat has renewed a lease that still stood.
func (l *lane) run(ctx context.Context, held store.Lane) {
	var committer sync.WaitGroup
	committer.Go(func() { l.committer(ctx, held) })
	stop := ctx.Done()
	nudge(l.bell) // look at the queue at once
	var grace <-chan time.Time
	for {
		select {
		case <-l.bell:
			l.mu.Lock()
			mail := l.mail
			l.mail = nil
			l.mu.Unlock()
			for _, f := range mail {
				f()
			}
			l.later()
		case <-stop:
			stop = nil
			l.stopping = true
			for _, r := range l.runs {
				r.leaveAbroad()
			}
			grace = time.After(l.ex.cfg.Grace)
		case <-grace:
			grace = nil
			for _, r := range l.runs {
				r.cancelAttempts(errStopped)
			}
			l.hurryFiles()
		}
		if l.stopping && !l.fenced && !l.parted && l.idle() && l.filesSaved() {
			l.part()
		}
		if l.fenced && (l.sent == nil || l.sent.failed) || l.stopping && l.parted && l.idle() {
			break
		}
		l.flush()
		l.fetch()
	}
	close(l.jobs)
	committer.Wait()
	cause := errStopped
	if l.fenced {
		cause = errFenced
	}
	l.abandon(cause)
	if l.fenced {
		l.ex.tasks.Go(func() { l.release(ctx, held) })
	} else {
		l.release(ctx, held)
	}
}

// release gives the lease up. A lane that has lost it is released, too, however
// long the store does not answer: it would hold the lane's connection, and find
// the lane lost at each heartbeat.
func (l *lane) release(ctx context.Context, held store.Lane) {
	for {
		last := ctx.Err() != nil || !l.fenced
		try, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		err := held.Release(try)
		cancel()
		if err == nil {
			return
		}
		l.ex.log.Warn("lane not released; its runs go on when the lease expires", "lane", held.ID(), "err", err)
		if last {
			return
		}
		select {
		case <-ctx.Done():
		case <-time.After(time.Second):
		}
	}
}

// refusal is the answer to a submitter whose run was not recorded.
func refusal(cause error) error {
	return &pipeline.Error{Kind: pipeline.Unavailable, Reason: "stopping", Text: "the server is stopping; submit again to another", Err: cause}
}

// abandon lets go of all runs, without a word in their logs.
func (l *lane) abandon(cause error) {
	refuse := refusal(cause)
	pending := l.waiting
	if l.sent != nil {
		pending = append(pending, l.sent.waiting...)
	}
	for i := range pending {
		pending[i].answer(submitted{err: refuse})
	}
	if l.fenced {
		l.orphans()
	}
	for _, r := range l.runs {
		l.drop(r)
		if !l.fenced {
			r.cancelAttempts(cause)
		}
	}
	l.batch, l.waiting, l.sent, l.events = &store.Batch{}, nil, nil, 0
	clear(l.index)
	for i := range l.durables {
		if lost := l.durables[i].lost; lost != nil {
			lost()
		}
	}
	l.durables, l.stalled = nil, nil
	l.mu.Lock()
	mail := l.mail
	l.mail, l.closed = nil, true
	l.mu.Unlock()
	close(l.ended)
	for _, f := range mail {
		f()
	}
	for len(l.soon) > 0 {
		l.later()
	}
}

// append adds an event to the batch.
func (l *lane) append(r *runState, e pipeline.Event) {
	l.events++
	l.eager = l.eager || e.Type != pipeline.StepStarted || e.Data.Kind.Block()
	if r.createdIn == l.batch {
		c := &l.batch.Create[r.createdAt]
		c.Events = append(c.Events, e)
		return
	}
	i, ok := l.index[r.run.ID]
	if !ok {
		i = len(l.batch.Append)
		l.index[r.run.ID] = i
		l.batch.Append = append(l.batch.Append, store.Append{Run: r.run.ID})
	}
	if a := &l.batch.Append[i]; a.Events == nil {
		a.Events = append(make([]pipeline.Event, 0, 2), e) // mostly the end of a step and the start of the next
	} else {
		a.Events = append(a.Events, e)
	}
}

// row puts the run's row, as it now is, into the batch.
func (l *lane) row(r *runState) {
	run := r.m.Run
	l.withoutRow(r)
	r.rowIn = l.batch
	l.batch.Finish = append(l.batch.Finish, store.Finish{Run: &run})
}

// withoutRow takes an earlier row of the run out of the batch: a batch writes
// each row once.
func (l *lane) withoutRow(r *runState) {
	if r.rowIn == l.batch {
		l.batch.Finish = slices.DeleteFunc(l.batch.Finish, func(f store.Finish) bool { return f.Run.ID == r.run.ID })
	}
	r.rowIn = nil
}

// whenDurable calls f on the lane once the run's event seq is committed.
func (l *lane) whenDurable(r *runState, seq int32, f func()) {
	l.eager = true
	l.durables = append(l.durables, durable{run: r, seq: seq, f: f})
}

// launchDurable launches a job, which holds a slot of the pool, once its run's
// event seq is committed.
func (l *lane) launchDurable(j *job, seq int32) {
	l.whenDurable(j.r, seq, j.launch)
	l.durables[len(l.durables)-1].lost = l.ex.pool.release
}

// startDelay is how long the start of a step may wait for its end, so that a
// short step takes one commit and not two.
const startDelay = 2 * time.Millisecond

// flush gives the batch to the committer if that is free.
func (l *lane) flush() {
	if l.sent != nil || l.batch.Empty() && !l.check {
		return
	}
	if !l.eager && !l.check && !l.stopping {
		if !l.patient {
			l.patient = true
			time.AfterFunc(startDelay, func() { l.post(func() { l.eager, l.patient = true, false }) })
		}
		return
	}
	l.check, l.eager = false, false
	l.sent = &sentBatch{batch: l.batch, waiting: l.waiting}
	for i := range l.batch.Finish {
		row := l.batch.Finish[i].Run
		if r := l.runs[row.ID]; r != nil && row.Status.Final() {
			l.sent.ended = append(l.sent.ended, r)
		}
	}
	for i := range l.batch.Park {
		l.sent.parked = append(l.sent.parked, l.runs[l.batch.Park[i].Run.ID])
	}
	l.ex.met.batchEvents.Observe(float64(l.events))
	l.batch, l.waiting, l.events = &store.Batch{}, nil, 0
	clear(l.index)
	l.jobs <- laneJob{commit: l.sent}
}

// fetch claims queued runs if there is room for more.
func (l *lane) fetch() {
	room := l.ex.cfg.Runs - len(l.runs)
	if l.ex.cfg.Selective || !l.claim || l.claiming || l.stopping || room <= 0 || l.events > maxBatchEvents {
		return
	}
	l.claim, l.claiming = false, true
	l.jobs <- laneJob{claim: min(room, 256)}
}

// committer does the lane's writes, one after the other.
func (l *lane) committer(ctx context.Context, held store.Lane) {
	soft := ctx
	ctx = context.WithoutCancel(ctx)
	for job := range l.jobs {
		if job.commit != nil {
			res, err := l.commit(ctx, soft, held, job.commit.batch)
			l.post(func() { l.committed(res, err) })
			continue
		}
		if job.resume != "" {
			run, err := held.ClaimRun(ctx, job.resume)
			if err == nil {
				l.post(func() { l.load(run) })
			}
			job.reply(err)
			continue
		}
		runs, err := held.Claim(ctx, job.claim)
		l.post(func() { l.claimed(runs, job.claim, err) })
	}
}

// commit records a batch. When the outcome is unknown it sends the same batch
// again: the store records it once. It gives up when the lease is lost, or when
// the server stops and the store stays away.
func (l *lane) commit(ctx, soft context.Context, held store.Lane, b *store.Batch) (store.Result, error) {
	wait := 20 * time.Millisecond
	stopped := time.Time{}
	renewed := false
	for {
		var res store.Result
		err := l.mute()
		if err == nil {
			begun := time.Now()
			res, err = held.Commit(ctx, b)
			if err == nil {
				l.ex.met.commitSeconds.Observe(time.Since(begun).Seconds())
				return res, nil
			}
		}
		if errors.Is(err, store.ErrFenced) {
			if renewed {
				return res, err
			}
			// A lease that has expired and still stands is ours to renew.
			if _, err = l.ex.renew(ctx); err == nil {
				renewed = true
				continue
			}
		}
		l.ex.log.Warn("commit not acknowledged; sending it again", "lane", held.ID(), "err", err)
		l.post(func() { l.broken = err })
		if soft.Err() != nil {
			if stopped.IsZero() {
				stopped = time.Now()
			}
			if time.Since(stopped) > l.ex.cfg.Grace {
				return res, store.ErrFenced
			}
		}
		time.Sleep(wait)
		wait = min(2*wait, time.Second)
	}
}

// committed goes on after a batch: its events may now be seen and built on.
func (l *lane) committed(res store.Result, err error) {
	sent := l.sent
	l.sent, l.broken = nil, nil
	if err != nil {
		sent.failed, l.sent = true, sent // abandon answers its submitters
		l.fenced = true
		l.ex.log.Warn("lane lost its lease; its runs go on elsewhere", "err", err)
		return
	}
	bell := store.Bell{}
	answers := make([]submitted, len(sent.waiting))
	for i := range sent.waiting {
		s := &sent.waiting[i]
		if answers[i] = l.created(s, sent.batch, res); answers[i].run == s.run {
			bell.Created = append(bell.Created, s.run)
			bell.Appended = append(bell.Appended, store.Append{Run: s.run.ID, Events: sent.batch.Create[s.at].Events})
			bell.Queued = bell.Queued || s.run.Status == pipeline.RunQueued
		}
	}
	for i := range sent.batch.Append {
		a := &sent.batch.Append[i]
		l.acknowledge(a.Run, a.Events[len(a.Events)-1].Seq)
	}
	bell.Appended = append(bell.Appended, sent.batch.Append...)
	bell.Approvals = len(sent.batch.Ask)+len(sent.batch.Withdraw) > 0
	for _, r := range sent.ended {
		l.drop(r)
		r.trace.end(&r.m.Run)
		l.ex.fires.ended(&r.m.Run)
		l.ex.met.runs.WithLabelValues(string(r.m.Run.Status)).Inc()
	}
	for i, r := range sent.parked {
		l.drop(r)
		l.ex.parked(r, sent.batch.Park[i].Wake)
	}
	l.consumed(sent.batch.Consume)
	if len(sent.ended)+len(sent.parked) > 0 && l.ex.queued.Load() {
		l.claim = true
	}
	l.ex.cfg.Store.Ring(bell)
	for i := range sent.waiting { // after the bell, so that who is answered finds the run's events here
		sent.waiting[i].answer(answers[i])
	}
	l.carryOn()
	stalled := l.stalled
	l.stalled = nil
	for _, r := range stalled {
		r.do(r.pump)
	}
}

// acknowledge tells a run that its events up to seq are durable.
func (l *lane) acknowledge(id pipeline.RunID, seq int32) {
	r := l.runs[id]
	if r == nil {
		return
	}
	r.durable = max(r.durable, seq)
	if len(r.held) > 0 {
		r.do(r.committed)
	}
}

// carryOn calls what has waited for events that are durable now.
func (l *lane) carryOn() {
	var due []durable
	l.durables = slices.DeleteFunc(l.durables, func(d durable) bool {
		if d.seq > d.run.durable && !d.run.gone {
			return false
		}
		due = append(due, d)
		return true
	})
	for _, d := range due {
		if !d.run.gone || d.always && d.seq <= d.run.durable {
			d.run.do(d.f)
		} else if d.lost != nil {
			d.lost()
		}
	}
}

// created goes on with a run that was submitted and returns the answer for its
// submitter, which names the run itself if that is new.
func (l *lane) created(s *submission, b *store.Batch, res store.Result) submitted {
	if s.at < len(res.Creates) {
		if c := res.Creates[s.at]; c.Existing != "" {
			if s.state != nil {
				l.drop(s.state)
			}
			if c.Mismatch {
				return submitted{err: &pipeline.Error{
					Kind: pipeline.Conflict, Reason: "idempotency_key_reused",
					Text: fmt.Sprintf("the idempotency key was used for another request, which is run %s", c.Existing),
				}}
			}
			return submitted{run: &pipeline.Run{ID: c.Existing}}
		}
	}
	if s.run.Status == pipeline.RunQueued {
		l.ex.lined(s.run)
		return submitted{run: s.run}
	}
	if s.state == nil { // it was not clear whether the key was free
		m, err := folded(s.prog.plan, s.run, s.create.Events)
		if err != nil {
			l.ex.log.Error("new run not taken", "run", s.run.ID, "err", err)
			return submitted{run: s.run}
		}
		r := l.adopt(s.run, s.prog, past{m: m}, nil, true)
		r.do(r.setOff)
		return submitted{run: s.run}
	}
	s.state.createdIn = nil
	events := b.Create[s.at].Events
	l.acknowledge(s.run.ID, events[len(events)-1].Seq)
	s.state.do(s.state.rest)
	return submitted{run: s.run}
}

// submit takes a new run into the batch.
func (l *lane) submit(s submission) {
	if l.broken != nil && len(l.waiting) >= maxWaiting {
		s.answer(submitted{err: &pipeline.Error{Kind: pipeline.Unavailable, Reason: "store_unavailable", Text: "the database does not answer; try again later", Err: l.broken}})
		return
	}
	if l.stopping || l.fenced {
		cause := errStopped
		if l.fenced {
			cause = errFenced
		}
		s.answer(submitted{err: refusal(cause)})
		return
	}
	l.enrol(s)
}

// enrol makes a run with the batch: one that begins at once, if there is room.
func (l *lane) enrol(s submission) {
	now := l.ex.cfg.Now().UTC()
	s.run.CreatedAt = now
	events := []pipeline.Event{{Seq: 1, Type: pipeline.RunCreated, At: now, Data: pipeline.Data{Answers: s.answers, Uploads: s.uploads, Fork: s.fork, Trace: s.trace}}}
	if l.lineUp(s.run, s.awaited) {
		s.run.Status = pipeline.RunQueued
		l.ex.queued.Store(true)
		if len(l.runs) >= l.ex.cfg.Runs {
			l.ex.crowded.Store(true)
		}
	} else {
		s.run.Status = pipeline.RunRunning
		s.run.StartedAt = now
		events = append(events, pipeline.Event{Seq: 2, Type: pipeline.RunStarted, At: now})
	}
	l.eager = true
	s.create.Run, s.create.Events = s.run, events
	s.at = len(l.batch.Create)
	l.events += len(events)
	l.batch.Create = append(l.batch.Create, s.create)
	l.waiting = append(l.waiting, s)
	if s.run.Status == pipeline.RunRunning && s.create.IdempotencyKey == "" {
		m, err := folded(s.prog.plan, s.run, events)
		if err != nil {
			l.ex.log.Error("new run not taken", "run", s.run.ID, "err", err)
			return
		}
		r := l.take(s.run, s.prog, m)
		r.createdIn, r.createdAt = l.batch, s.at
		l.waiting[len(l.waiting)-1].state = r
		r.setOff()
	}
}
