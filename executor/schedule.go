package executor

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/orchestrator-project/orchestrator/pipeline"
	"github.com/orchestrator-project/orchestrator/pipeline/spec"
	"github.com/orchestrator-project/orchestrator/pipeline/trigger"
	"github.com/orchestrator-project/orchestrator/store"
)

const (
	// fireHold is how long a schedule belongs to who took it. Whoever needs longer
	// may find that another has gone on, which repeats nothing.
	fireHold = 30 * time.Second
	// fireBatch is how many schedules are taken at once, and how many fires of one
	// are decided at once.
	fireBatch = 16
	maxFires  = 100
	// fireLate is how late a fire may be without being a missed one.
	fireLate = time.Minute
	// fireSafety is when to look again after a run whose end a fire waits for. Its
	// owner tells it at once, unless it dies just then.
	fireSafety = time.Minute
)

// scheduler starts the runs of schedules when their time has come. It sleeps until
// the heartbeat says when that is. Time is the store's.
type scheduler struct {
	ex   *Executor
	rung chan struct{} // capacity 1

	mu    sync.Mutex
	timer *time.Timer
}

func newScheduler(e *Executor) *scheduler {
	return &scheduler{ex: e, rung: make(chan struct{}, 1)}
}

// heard learns from a heartbeat when a schedule is due.
func (s *scheduler) heard(p store.Pulse) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.timer != nil {
		s.timer.Stop()
		s.timer = nil
	}
	switch {
	case p.Fires:
		nudge(s.rung)
	case p.FireIn > 0 && p.FireIn <= 2*s.ex.cfg.Heartbeat: // a later heartbeat knows better
		s.timer = time.AfterFunc(p.FireIn+time.Millisecond, func() { nudge(s.rung) })
	}
}

// run fires until ctx ends.
func (s *scheduler) run(ctx context.Context) {
	defer s.heard(store.Pulse{})
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.rung:
		}
		for ctx.Err() == nil {
			taken, err := s.ex.cfg.Store.TakeSchedules(ctx, fireBatch, fireHold)
			if err != nil {
				if ctx.Err() == nil {
					s.ex.log.Warn("schedules not read; the next heartbeat tries again", "err", err)
				}
				break
			}
			for _, one := range taken.List {
				s.serve(ctx, one, taken.Now)
			}
			if len(taken.List) < fireBatch {
				break
			}
		}
	}
}

// serve does what a schedule that was taken is due for.
func (s *scheduler) serve(ctx context.Context, one store.TakenSchedule, now time.Time) {
	f := &firing{ex: s.ex, TakenSchedule: one, now: now}
	err := f.fire(ctx)
	switch {
	case err == nil:
		if f.Waiting && f.over(ctx, f.waitsFor) {
			s.wake(ctx, f.ID)
		}
	case pipeline.KindOf(err) == pipeline.Conflict || pipeline.KindOf(err) == pipeline.NotFound:
		s.ex.log.Debug("a schedule was changed while it fired", "schedule", f.ID, "err", err)
	case ctx.Err() == nil:
		s.ex.log.Warn("a schedule did not fire; trying again", "schedule", f.ID, "in", fireHold, "err", err)
	}
}

// ended tells the schedule of a run of ours that it is over.
func (s *scheduler) ended(run *pipeline.Run) {
	id := run.Labels[pipeline.LabelSchedule]
	if id == "" {
		return
	}
	s.ex.tasks.Go(func() { s.wake(s.ex.work, id) })
}

// wake makes a schedule due whose fires wait for the end of a run.
func (s *scheduler) wake(ctx context.Context, id string) {
	woken, err := s.ex.cfg.Store.WakeSchedule(ctx, id)
	if err != nil && ctx.Err() == nil {
		s.ex.log.Warn("a schedule was not woken; it looks for itself", "schedule", id, "in", fireSafety, "err", err)
	}
	if woken && !s.ex.cfg.Selective {
		nudge(s.rung)
	}
}

// firing is one go at a schedule: what is due is decided and recorded, then
// submitted, then recorded as done. Whoever takes over after a crash in between
// finds the decisions and submits the same again, which makes no second run.
type firing struct {
	ex *Executor
	store.TakenSchedule
	now time.Time

	settled  []pipeline.Fire
	waitsFor []pipeline.RunID // whose ends open fires wait for
}

func (f *firing) fire(ctx context.Context) error {
	cron, err := trigger.ParseCron(f.Cron, f.Zone)
	if err != nil {
		return err
	}
	open, backfill := []pipeline.Fire{}, []pipeline.Fire{}
	for _, x := range f.Open {
		if x.Backfill {
			backfill = append(backfill, x)
		} else {
			open = append(open, x)
		}
	}
	times, next := dueFires(f.Schedule, cron, f.now)
	busy, err := f.busy(ctx)
	if err != nil {
		return err
	}
	fresh := decideFires(f.Overlap, times, open, busy)
	if len(fresh) > 0 {
		recorded, err := f.ex.cfg.Store.DecideFires(ctx, f.ID, f.Revision, fresh)
		if err != nil {
			return err
		}
		fresh = slices.DeleteFunc(fresh, func(x pipeline.Fire) bool {
			return !slices.ContainsFunc(recorded, x.At.Equal) // decided before
		})
	}
	waiting, err := f.start(ctx, append(open, fresh...), busy)
	if err == nil {
		var more bool
		more, err = f.fill(ctx, backfill)
		waiting = waiting || more
	}
	if err != nil {
		return err
	}
	f.Next, f.Waiting = next, waiting
	switch f.Due = f.DueAt(); {
	case !f.Next.IsZero() && !f.Next.After(f.now):
		f.Due = f.now // more fires than were taken at once
	case waiting && (f.Due.IsZero() || f.Due.After(f.now.Add(fireSafety))):
		f.Due = f.now.Add(fireSafety)
	}
	return f.ex.cfg.Store.AdvanceSchedule(ctx, f.Schedule, f.settled)
}

// busy tells whether the run of the last fire goes on, where that matters.
func (f *firing) busy(ctx context.Context) (bool, error) {
	if f.Overlap == pipeline.OverlapAllow || f.LastRun == "" {
		return false, nil
	}
	run, err := f.ex.cfg.Store.Run(ctx, f.LastRun)
	if pipeline.KindOf(err) == pipeline.NotFound {
		return false, nil // its day was dropped
	}
	return err == nil && !run.Status.Final(), err
}

// over tells whether one of these runs has ended.
func (f *firing) over(ctx context.Context, runs []pipeline.RunID) bool {
	return slices.ContainsFunc(runs, func(id pipeline.RunID) bool {
		run, err := f.ex.cfg.Store.Run(ctx, id)
		return err == nil && run.Status.Final()
	})
}

// start submits the fires for which that is decided, in the order of their times,
// and the buffered one when nothing is before it. It tells whether one still waits.
func (f *firing) start(ctx context.Context, open []pipeline.Fire, busy bool) (waiting bool, err error) {
	slices.SortFunc(open, func(a, b pipeline.Fire) int {
		return cmp.Or(cmp.Compare(rank(a), rank(b)), a.At.Compare(b.At))
	})
	for _, x := range open {
		switch {
		case x.State == pipeline.FireBuffered && busy:
			waiting = true
			f.waitsFor = append(f.waitsFor, f.LastRun)
			continue
		case x.State != pipeline.FirePending && x.State != pipeline.FireBuffered:
			continue
		}
		if busy && f.Overlap == pipeline.OverlapCancel {
			err := f.ex.cfg.Store.Send(ctx, f.LastRun, store.Message{Kind: store.MessageCancel, Actor: "schedule " + f.ID})
			if err != nil && pipeline.KindOf(err) != pipeline.Conflict && pipeline.KindOf(err) != pipeline.NotFound {
				return false, err
			}
		}
		x.Open = false
		if err := f.submit(ctx, &x); err != nil {
			return false, err
		}
		if x.State == pipeline.FireStarted {
			f.LastRun, busy = x.Run, true
			if x.At.After(f.LastFire) {
				f.LastFire = x.At
			}
		}
		f.settled = append(f.settled, x)
	}
	return waiting, nil
}

// rank puts what was decided before what waits.
func rank(x pipeline.Fire) int {
	if x.State == pipeline.FireBuffered {
		return 1
	}
	return 0
}

// fill submits as many fires of a backfill as may run at once. It tells whether
// more are to come, or run.
func (f *firing) fill(ctx context.Context, backfill []pipeline.Fire) (waiting bool, err error) {
	running := 0
	for _, x := range backfill {
		if x.State != pipeline.FireStarted {
			continue
		}
		run, err := f.ex.cfg.Store.Run(ctx, x.Run)
		if err != nil && pipeline.KindOf(err) != pipeline.NotFound {
			return false, err
		}
		if err == nil && !run.Status.Final() {
			running++
			f.waitsFor = append(f.waitsFor, x.Run)
			continue
		}
		x.Open = false
		f.settled = append(f.settled, x)
	}
	for _, x := range backfill {
		if x.State != pipeline.FirePending {
			continue
		}
		if running >= max(f.Parallel, 1) {
			return true, nil
		}
		if err := f.submit(ctx, &x); err != nil {
			return false, err
		}
		if x.Open = x.State == pipeline.FireStarted; x.Open {
			running++
			f.waitsFor = append(f.waitsFor, x.Run)
		}
		f.settled = append(f.settled, x)
	}
	return running > 0 || len(backfill) >= store.MaxOpen, nil
}

// submit starts the run of a fire and sets its state. An error means that it is to
// be tried again; what cannot become a run is a failed fire.
func (f *firing) submit(ctx context.Context, x *pipeline.Fire) error {
	run, err := f.earlier(ctx, x)
	if run == nil && err == nil {
		run, err = f.run(ctx, x)
	}
	switch kind := pipeline.KindOf(err); {
	case err == nil:
		x.State, x.Run, x.Reason = pipeline.FireStarted, run.ID, ""
		return nil
	case kind == pipeline.Unavailable || kind == pipeline.Exhausted || ctx.Err() != nil:
		return err
	}
	x.State, x.Reason = pipeline.FireFailed, "the run could not be made; the server's log says why"
	var known *pipeline.Error
	var found *pipeline.Diagnostics
	switch {
	case errors.As(err, &known) && known.Kind != pipeline.Internal:
		x.Reason = known.Text
	case errors.As(err, &found):
		x.Reason = found.Error()
	}
	f.ex.log.Warn("a fire of a schedule has started no run", "schedule", f.ID, "fire", x.At, "err", err)
	return nil
}

// earlier finds the run that a fire has started before a crash, where that is so
// long ago that its idempotency key may be forgotten.
func (f *firing) earlier(ctx context.Context, x *pipeline.Fire) (*pipeline.Run, error) {
	if f.now.Sub(x.Decided) < store.IdempotencyTTL/2 || x.Decided.IsZero() {
		return nil, nil //nolint:nilnil // there is none
	}
	page, err := f.ex.cfg.Store.Runs(ctx, store.Query{Labels: map[string]string{
		pipeline.LabelSchedule: f.ID, pipeline.LabelFire: x.At.UTC().Format(time.RFC3339),
	}, Limit: 1})
	if err != nil || len(page.Runs) == 0 {
		return nil, err
	}
	return page.Runs[0], nil
}

func (f *firing) run(ctx context.Context, x *pipeline.Fire) (*pipeline.Run, error) {
	registered, err := f.ex.cfg.Store.Pipeline(ctx, f.Pipeline, f.Version)
	if err != nil {
		return nil, err
	}
	prog, err := f.ex.program(ctx, &pipeline.Run{Pipeline: registered.ID, PlanDigest: registered.PlanDigest})
	if err != nil {
		return nil, err
	}
	inputs, err := spec.Inputs(prog.plan, f.Inputs)
	if err != nil {
		return nil, err
	}
	labels := map[string]string{pipeline.LabelSchedule: f.ID, pipeline.LabelFire: x.At.UTC().Format(time.RFC3339)}
	if x.Backfill {
		labels[pipeline.LabelBackfill] = "true"
	}
	for name, value := range f.Labels {
		if labels[name] == "" {
			labels[name] = value
		}
	}
	key := pipeline.FireKey(f.ID, x.At)
	sum := sha256.Sum256([]byte(key)) // not of the inputs: a repetition after a change is the same fire
	return f.ex.Submit(ctx, pipeline.Submission{
		Plan: prog.plan, PlanDigest: registered.PlanDigest, Inputs: maps.Clone(inputs), Labels: labels, Priority: f.Priority,
		IdempotencyKey: key, RequestDigest: pipeline.Digest("sha256:" + hex.EncodeToString(sum[:])),
	})
}

// dueFires lists the times at which a schedule is to fire now, oldest first, and
// the time that comes after them. Of those that were missed it takes what the
// schedule makes up.
func dueFires(s *pipeline.Schedule, cron *trigger.Cron, now time.Time) (times []time.Time, next time.Time) {
	if s.Next.IsZero() {
		return nil, time.Time{}
	}
	oldest := now.Add(-fireLate)
	if s.CatchUp != pipeline.CatchUpNone {
		oldest = now.Add(-max(s.CatchUpFrom, fireLate))
	}
	for t := s.Next; ; t = trigger.NextFire(s, cron, t) {
		if !t.IsZero() && t.Before(oldest) { // however many there were, the search begins here
			t = trigger.NextFire(s, cron, oldest.Add(-time.Nanosecond))
		}
		if next = t; t.IsZero() || t.After(now) {
			break
		}
		if s.CatchUp == pipeline.CatchUpLatest && len(times) > 0 && now.Sub(times[len(times)-1]) > fireLate {
			times = times[:len(times)-1]
		}
		if times = append(times, t); len(times) == maxFires {
			next = trigger.NextFire(s, cron, t)
			break
		}
	}
	return times, next
}

// decideFires says what becomes of the fires that are due. open are those that
// were decided before and are not through.
func decideFires(overlap string, times []time.Time, open []pipeline.Fire, busy bool) []pipeline.Fire {
	for _, x := range open {
		busy = busy || x.State == pipeline.FirePending
	}
	buffered := false
	for _, x := range open {
		if x.State == pipeline.FireBuffered {
			busy, buffered = true, busy // it starts now, or goes on waiting
		}
	}
	var fires []pipeline.Fire
	for i, t := range times {
		x := pipeline.Fire{At: t, State: pipeline.FirePending, Open: true}
		switch {
		case overlap == pipeline.OverlapAllow:
		case overlap == pipeline.OverlapCancel && i == len(times)-1:
		case overlap == pipeline.OverlapCancel:
			x = pipeline.Fire{At: t, State: pipeline.FireSkipped, Reason: "a later fire took its place"}
		case !busy:
			busy = true
		case overlap == pipeline.OverlapQueue && !buffered:
			x.State, buffered = pipeline.FireBuffered, true
		case overlap == pipeline.OverlapQueue:
			x = pipeline.Fire{At: t, State: pipeline.FireSkipped, Reason: "the run before was not over, and another fire waited for it"}
		default:
			x = pipeline.Fire{At: t, State: pipeline.FireSkipped, Reason: "the run before was not over"}
		}
		fires = append(fires, x)
	}
	return fires
}
