package executor

import (
	"sync"
	"time"

	"github.com/orchestrator-project/orchestrator/pipeline"
	"github.com/orchestrator-project/orchestrator/store"
)

const (
	// briefly is how long a run that only waits stays in memory.
	briefly = 2 * time.Second
	// briefAgain is the same for a run that was woken and found nothing to do: its
	// time may have come by another clock than ours.
	briefAgain = time.Minute
	// fileSafety is how long the files of a parked run are at most looked for by
	// the same process.
	fileSafety = 5 * time.Minute
)

// weight orders the things that a run waits for: it is said to wait for the
// weightiest.
var weight = map[string]int{waitApproval: 5, waitSignal: 4, waitFiles: 3, waitTimer: 2, pipeline.WaitRetry: 1, pipeline.ReasonBudget: 6, pipeline.WaitWorker: 7}

// rest lets go of a run that only waits, unless that is soon over. It then costs
// rows and nothing else.
func (r *runState) rest() {
	if r.arriving {
		return
	}
	if !r.over() && !r.busy && r.m.Paused() {
		r.restPaused()
		return
	}
	if r.over() || r.busy || r.asking || r.staying || r.createdIn != nil || r.running+r.looking > 0 ||
		len(r.ready)+len(r.held)+len(r.backlog) > 0 {
		return
	}
	filling, due := r.waitingFills()
	if !r.m.IdleBut(filling) {
		return
	}
	now := r.lane.ex.cfg.Now()
	wake, reason, files, workers := r.deadline(), "", false, false
	sooner := func(t time.Time) {
		if !t.IsZero() && (wake.IsZero() || t.Before(wake)) {
			wake = t
		}
	}
	if filling > 0 {
		reason = pipeline.ReasonBudget
		sooner(due)
	}
	waits := r.m.Waits()
	for i := range waits {
		w := &waits[i]
		sooner(w.Due)
		files = files || w.Waiting.For == waitFiles
		if w.Waiting.For == pipeline.WaitWorker {
			if workers = true; r.lane.ex.crew.near(w.Def) {
				return // it stands in line
			}
		}
		about := w.Waiting.For
		if s := r.m.Step(w.Path); s != nil && s.Reason == pipeline.ReasonBudget {
			about = pipeline.ReasonBudget
		}
		if weight[about] > weight[reason] {
			reason = about
		}
	}
	if reason == "" {
		return // nothing that could wake it: it is not for us to hide that
	}
	if files {
		sooner(now.Add(fileSafety))
	}
	if workers {
		sooner(now.Add(workerSafety))
	}
	stay := briefly
	if r.asleep {
		stay = briefAgain
	}
	if !wake.IsZero() && wake.Sub(now) <= stay {
		r.staying = true
		r.after(max(wake.Sub(now), 0)+time.Millisecond, func() {
			r.staying = false
			r.pump()
		})
		return
	}
	if r.saveFiles() {
		return
	}
	if r.m.Run.Status != pipeline.RunWaiting {
		r.record(pipeline.RunIsWaiting, "", 0, pipeline.Data{Reason: reason})
	}
	r.park(wake)
}

// park puts the run's parking into the batch. What comes for it from now on is
// the store's to keep.
func (r *runState) park(wake time.Time) {
	l := r.lane
	l.withoutRow(r)
	r.unheeded()
	run := r.m.Run
	l.batch.Park = append(l.batch.Park, store.Park{Run: &run, Wake: l.ex.clock.theirs(wake)})
	l.eager = true
	r.parked = true
	r.stopTimers()
	l.ex.watch.linger(run.ID, wake.Add(fileSafety))
}

// parked sees to it that a run whose parking is durable is woken in time. The
// queue has it once a message has come, but a Selective executor takes nothing
// from there.
func (e *Executor) parked(r *runState, wake time.Time) {
	wake = e.clock.ours(wake)
	e.crew.sleep(r)
	if e.cfg.Selective {
		if r.rung {
			wake = e.cfg.Now()
		}
		e.sleepers.add(r.run.ID, wake)
		return
	}
	e.alarm.set(wake)
}

// alarm rings when the time of a parked run has come, so that nobody need look
// for it before. Only the nearest time is kept: a heartbeat tells the next one.
type alarm struct {
	now  func() time.Time
	most time.Duration // between two heartbeats
	rung chan struct{} // capacity 1

	mu    sync.Mutex
	at    time.Time     // zero: not set
	gap   time.Duration // the last wait for a time that had come
	timer *time.Timer
}

// clockGap is how long to wait where the time has come by our clock but not by
// the store's. It doubles while that stays so, up to the period of heartbeats.
const clockGap = 100 * time.Millisecond

// wait is how long it takes until the alarm rings for a time.
func (a *alarm) wait(at time.Time) time.Duration {
	wait := at.Sub(a.now())
	if wait > 0 {
		a.gap = 0
		return wait
	}
	a.gap = min(max(2*a.gap, clockGap), max(a.most, clockGap))
	return a.gap
}

// set makes the alarm ring at that time, if not before. A zero time means never.
func (a *alarm) set(at time.Time) {
	if at.IsZero() {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.at.IsZero() && !at.Before(a.at) {
		return
	}
	if a.timer != nil {
		a.timer.Stop()
	}
	a.at = at
	a.timer = time.AfterFunc(a.wait(at), func() {
		a.mu.Lock()
		if a.at.Equal(at) {
			a.at = time.Time{}
		}
		a.mu.Unlock()
		nudge(a.rung)
	})
}

func (a *alarm) stop() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.timer != nil {
		a.timer.Stop()
	}
}

// sleepers are the parked runs of a Selective executor, which takes nothing from
// the queue: it wakes its own runs, each by name.
type sleepers struct {
	now  func() time.Time
	wake func(pipeline.RunID)

	mu   sync.Mutex
	runs map[pipeline.RunID]*time.Timer // nil: only a bell wakes it
	told map[store.MessageID]bool       // messages that the newest heartbeat has found
	over bool
}

// add keeps a run until its time comes; zero: until its bell rings.
func (s *sleepers) add(run pipeline.RunID, at time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.over {
		return
	}
	if t := s.runs[run]; t != nil {
		t.Stop()
	}
	s.runs[run] = nil
	if !at.IsZero() {
		s.runs[run] = time.AfterFunc(max(0, at.Sub(s.now())), func() { s.wake(run) })
	}
}

func (s *sleepers) drop(run pipeline.RunID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if t := s.runs[run]; t != nil {
		t.Stop()
	}
	delete(s.runs, run)
}

func (s *sleepers) stop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, t := range s.runs {
		if t != nil {
			t.Stop()
		}
	}
	clear(s.runs)
	s.over = true
}

// of lists which of the runs of a bell are kept.
func (s *sleepers) of(b store.Bell) []pipeline.RunID {
	s.mu.Lock()
	defer s.mu.Unlock()
	var ids []pipeline.RunID
	if b.All {
		for id := range s.runs {
			ids = append(ids, id)
		}
		return ids
	}
	for _, id := range b.Inbox {
		if _, ok := s.runs[id]; ok {
			ids = append(ids, id)
		}
	}
	return ids
}

// rouse wakes the runs of a Selective executor for which messages have come.
func (e *Executor) rouse(b store.Bell) {
	for _, id := range e.sleepers.of(b) {
		e.wake(id)
	}
}

// lostSleep is when to look again after a run of ours that somebody else has.
const lostSleep = 5 * time.Second

// wake takes a parked run of a Selective executor by its name.
func (e *Executor) wake(id pipeline.RunID) {
	e.mu.Lock()
	var l *lane
	if len(e.lanes) > 0 {
		l = e.lanes[0]
	}
	e.mu.Unlock()
	later := func() { e.sleepers.add(id, e.cfg.Now().Add(lostSleep)) }
	if l == nil {
		later()
		return
	}
	l.post(func() {
		_, loading := l.loading[id]
		switch {
		case l.runs[id] != nil || loading: // another bell was faster
		case l.stopping || l.fenced:
			later()
		default:
			l.jobs <- laneJob{resume: id, reply: func(err error) { e.woken(l, id, err) }}
		}
	})
}

// woken learns whether a run of ours was free to be taken. One that somebody else
// goes on with may come back to us.
func (e *Executor) woken(l *lane, id pipeline.RunID, err error) {
	later := func() { e.sleepers.add(id, e.cfg.Now().Add(lostSleep)) }
	switch {
	case err == nil || pipeline.KindOf(err) == pipeline.NotFound:
		e.sleepers.drop(id)
		e.standing.drop(id)
	case pipeline.KindOf(err) == pipeline.Conflict:
		e.tasks.Go(func() {
			run, err := e.cfg.Store.Run(e.work, id)
			final := err == nil && run.Status.Final()
			l.post(func() {
				if _, loading := l.loading[id]; final || loading || l.runs[id] != nil {
					e.sleepers.drop(id)
				} else {
					later()
				}
			})
		})
	default:
		later()
	}
}
