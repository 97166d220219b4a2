package executor_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/orchestrator-project/orchestrator/pipeline"
	"github.com/orchestrator-project/orchestrator/store"
)

// patience is how long nothing may happen to runs that have not ended, once the
// faults are over: leases expire in less, no step takes so long, and no clock is
// as wrong.
const patience = time.Minute

// settle waits until every run has ended. One that does not is stuck.
func (w *simWorld) settle() {
	limit, known := time.Now().Add(patience), 0
	for !w.broken() {
		w.db.mu.Lock()
		if w.count.events > known {
			limit, known = time.Now().Add(patience), w.count.events
		}
		busy := w.asking > 0 || slices.ContainsFunc(w.db.order, func(r *simRow) bool { return !r.run.Status.Final() })
		w.db.mu.Unlock()
		if !busy {
			return
		}
		if time.Now().After(limit) {
			w.db.mu.Lock()
			for _, r := range w.db.order {
				if !r.run.Status.Final() {
					w.violation("run %d is stuck: %s", r.number, w.why(r))
				}
			}
			if w.asking > 0 {
				w.violation("promise 1: %d submissions are not answered", w.asking)
			}
			w.db.mu.Unlock()
			return
		}
		time.Sleep(500 * time.Millisecond)
	}
}

// why tells all that is known of a run that does not go on.
func (w *simWorld) why(r *simRow) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s, lane %d, queued %v, due %s, %d messages\n", r.run.Status, r.run.Reason, r.epoch, r.queued, simClock(r.due), len(r.inbox))
	for _, m := range r.inbox {
		fmt.Fprintf(&b, "\tmessage %s %s\n", m.Kind, m.Body)
	}
	for _, rec := range r.log[max(0, len(r.log)-20):] {
		fmt.Fprintf(&b, "\t%d %s %s %s %d %s\n", rec.event.Seq, simClock(rec.event.At), rec.event.Type, rec.event.Path, rec.event.Attempt, rec.body)
	}
	return b.String()
}

// well reports whether a process has been able to work since then. The caller
// holds db.mu.
func (p *simProc) well(since time.Time) bool {
	c := p.client
	return c.diedAt.IsZero() && !p.shut && c.thaw == nil && p.born.Before(since) && c.unwell.Before(since.Add(-4*time.Second))
}

// claims reports whether a process has been able since then to take any run from
// the queue. The caller holds db.mu.
func (p *simProc) claims(since time.Time) bool { return !p.aloof && p.well(since) }

// takenOver looks whether the runs of a process that died are in other hands, if
// somebody was there to take them. Promise 4.
func (w *simWorld) takenOver(lanes map[int64]bool, since time.Time, replica int) {
	w.db.mu.Lock()
	defer w.db.mu.Unlock()
	if w.weather.memory < 100 || !slices.ContainsFunc(w.procs, func(p *simProc) bool { return p.claims(since) }) {
		return
	}
	for _, r := range w.db.order {
		if lanes[r.epoch] {
			w.violation("promise 4: replica %d died 20 seconds ago, and lane %d still has run %d", replica, r.epoch, r.number)
		}
	}
}

// ended looks at what a process leaves behind that has ended in good order: no
// lanes, and runs that others go on with at once. Promise 4.
func (w *simWorld) ended(p *simProc) {
	w.db.mu.Lock()
	defer w.db.mu.Unlock()
	c := p.client
	if w.over && w.broken() || c.dead() || time.Since(c.unwell) < 30*time.Second {
		return
	}
	w.tell("replica %d has ended", c.number)
	for _, r := range w.db.order {
		if slices.Contains(c.open, r.epoch) {
			w.violation("replica %d has ended in good order, and run %d is still its", c.number, r.number)
		}
	}
	if len(c.open) > 0 {
		w.violation("replica %d has ended in good order, and holds the lanes %v", c.number, c.open)
	}
	if w.over {
		return
	}
	since := time.Now()
	var left []*simRow
	for _, r := range w.db.order {
		if r.queued {
			left = append(left, r)
		}
	}
	w.later(4*time.Second, func() {
		w.db.mu.Lock()
		defer w.db.mu.Unlock()
		if w.weather.memory < 100 || !slices.ContainsFunc(w.procs, func(p *simProc) bool { return p.claims(since) }) {
			return
		}
		for _, r := range left {
			if r.queued && r.taken.Before(since) {
				w.violation("promise 4: replica %d has ended in good order, and after 4 seconds nobody has taken run %d", c.number, r.number)
			}
		}
	})
}

// rest lets the replicas idle, and counts what they ask the store. Promise 6.
func (w *simWorld) rest() {
	const idle = 40 * time.Second
	time.Sleep(6 * time.Second)
	before := map[*simClient]int{}
	w.db.mu.Lock()
	for _, p := range w.procs {
		before[p.client] = p.client.statements
	}
	w.db.mu.Unlock()
	time.Sleep(idle)
	w.db.mu.Lock()
	defer w.db.mu.Unlock()
	for _, p := range w.procs {
		if n, known := before[p.client]; known && float64(p.client.statements-n) > idle.Seconds()/2 {
			w.violation("promise 6: replica %d has nothing to do and sent %d statements in %s", p.client.number, p.client.statements-n, idle)
		}
	}
}

// rung looks whether what a bell shows is durable. Promise 5.
func (w *simWorld) rung(b store.Bell) {
	w.db.mu.Lock()
	defer w.db.mu.Unlock()
	for i := range b.Appended {
		a := &b.Appended[i]
		r := w.db.runs[a.Run]
		if n := len(a.Events); r == nil || n > 0 && int(a.Events[n-1].Seq) > len(r.log) {
			w.violation("promise 5: viewers are shown records of run %s that are not durable", w.name(a.Run))
		}
	}
}

// simViewer follows all runs, through whatever process it is connected to.
type simViewer struct {
	mu   sync.Mutex
	seen map[pipeline.RunID][]pipeline.Event
}

// watch lets somebody follow all runs until the simulation is over.
func (w *simWorld) watch(n int) {
	v := &simViewer{seen: map[pipeline.RunID][]pipeline.Event{}}
	w.viewers = append(w.viewers, v)
	w.later(time.Millisecond, func() {
		for try := 0; ; try++ {
			w.db.mu.Lock()
			over := w.over
			w.db.mu.Unlock()
			if over {
				return
			}
			if p := w.pick("viewer", n, try); p != nil {
				v.follow(w, p)
			}
			time.Sleep(300 * time.Millisecond)
		}
	})
}

// follow reads what bells tell of until the process ends.
func (v *simViewer) follow(w *simWorld, p *simProc) {
	var mu sync.Mutex
	var bells []store.Bell
	some := make(chan struct{}, 1)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var listening sync.WaitGroup
	listening.Go(func() {
		_ = p.client.Listen(ctx, func(b store.Bell) {
			mu.Lock()
			bells = append(bells, b)
			mu.Unlock()
			select {
			case some <- struct{}{}:
			default:
			}
		})
	})
	defer listening.Wait()
	defer cancel()
	for {
		select {
		case <-p.done:
			return
		case <-p.client.died:
			return
		case <-some:
		}
		mu.Lock()
		list := bells
		bells = nil
		mu.Unlock()
		for i := range list {
			for j := range list[i].Appended {
				v.take(w, list[i].Appended[j].Run, list[i].Appended[j].Events)
			}
			for _, id := range list[i].Runs {
				v.catchUp(w, p.client, id)
			}
		}
	}
}

func (v *simViewer) catchUp(w *simWorld, c *simClient, id pipeline.RunID) {
	v.mu.Lock()
	after := int32(len(v.seen[id]))
	v.mu.Unlock()
	var list []pipeline.Event
	for e, err := range c.Events(context.Background(), id, after) {
		if err != nil {
			return
		}
		list = append(list, e)
	}
	if len(list) > 0 && list[0].Seq != after+1 {
		w.violation("promise 5: a reader of run %s asked for what follows %d and got %d", w.name(id), after, list[0].Seq)
	}
	v.take(w, id, list)
}

// take adds what follows on what the viewer has seen.
func (v *simViewer) take(_ *simWorld, id pipeline.RunID, list []pipeline.Event) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for i := range list {
		if int(list[i].Seq) == len(v.seen[id])+1 {
			v.seen[id] = append(v.seen[id], list[i])
		}
	}
}

// check compares what is in the store at the end with what must be there.
func (w *simWorld) check(want *simResult) {
	for id := range w.acked {
		if w.db.runs[id] == nil {
			w.violation("promise 1: an acknowledged run is gone")
		}
	}
	keys := map[string]int{}
	for _, r := range w.db.order {
		if r.key != "" {
			if keys[r.key]++; keys[r.key] > 1 {
				w.violation("the key %s has two runs", r.key)
			}
		}
		w.checkRun(r, want)
	}
	for _, v := range w.viewers {
		for id, seen := range v.seen {
			w.checkSeen(w.db.runs[id], seen)
		}
	}
}

func (w *simWorld) checkSeen(r *simRow, seen []pipeline.Event) {
	log, err := w.db.read(r, 0)
	if err != nil || len(seen) > len(log) {
		w.violation("promise 5: a viewer of run %d saw %d records of %d", r.number, len(seen), len(log))
		return
	}
	for i := range seen {
		a, b := &seen[i], &log[i]
		if a.Seq != b.Seq || a.Type != b.Type || a.Path != b.Path || string(pipeline.AppendData(nil, &a.Data)) != string(pipeline.AppendData(nil, &b.Data)) {
			w.violation("promise 5: a viewer of run %d saw record %d as a %s at %q, which is a %s at %q", r.number, b.Seq, a.Type, a.Path, b.Type, b.Path)
			return
		}
	}
}

// simResult is how a run of the pipeline ends when nothing goes wrong.
type simResult struct {
	status  pipeline.RunStatus
	outputs string
}

// checkRun folds a run's log, and holds its effects and its result against what
// they must be. Promises 2, 3 and 7.
func (w *simWorld) checkRun(r *simRow, want *simResult) {
	log, err := w.db.read(r, 0)
	if err != nil {
		w.violation("run %d: %v", r.number, err)
		return
	}
	m := pipeline.NewMachine(w.pipeline.submission.Plan, r.run)
	m.SetVars(map[string]any{})
	altered := w.meddled[r.run.ID]
	for i := range log {
		e := &log[i]
		if e.Seq != int32(i+1) {
			w.violation("promise 2: record %d of run %d has the number %d", i+1, r.number, e.Seq)
			return
		}
		if err := m.Apply(e); err != nil {
			w.violation("promise 2: the log of run %d does not fold: %v", r.number, err)
			return
		}
		if f := e.Data.Error; f != nil && (f.Reason == pipeline.ReasonOwnerDied || f.Reason == "outcome_unknown") {
			altered = true
			if f.Reason == pipeline.ReasonOwnerDied {
				w.checkDeaths(r, e.Path)
			}
		}
		if e.Type == pipeline.StepFinished && e.Data.Status == pipeline.StepCompleted && e.Data.Kind == "" {
			key := string(r.run.ID) + "/" + string(e.Path)
			if l := w.ledger[key]; l != nil && (len(l.attempts) == 0 || e.Data.Output != any(l.output)) {
				w.violation("promise 3: run %d says that %s gave %v; it ran %d times and gives %s", r.number, e.Path, e.Data.Output, len(l.attempts), l.output)
			}
		}
		if e.Data.Decision != nil && e.Data.Decision.Decision == "fail" {
			altered = true
		}
	}
	if m.Run.Status != r.run.Status {
		w.violation("run %d is %s, and its log says %s", r.number, r.run.Status, m.Run.Status)
	}
	if len(r.inbox) > 0 {
		w.violation("run %d has ended, and %d messages are left", r.number, len(r.inbox))
	}
	if want == nil || altered {
		return
	}
	if got := string(pipeline.EncodeValue(r.run.Outputs)); r.run.Status != want.status || got != want.outputs {
		w.violation("run %d is %s with %s; without faults it is %s with %s\n%s", r.number, r.run.Status, got, want.status, want.outputs, w.why(r))
	}
}

// checkDeaths looks whether a step that was given up had its three deaths. Promise 7.
func (w *simWorld) checkDeaths(r *simRow, path pipeline.Path) {
	deaths := 0
	for _, p := range w.procs {
		if !p.client.diedAt.IsZero() || p.client.unwell.After(w.begun) {
			deaths++
		}
	}
	if deaths < 3 {
		w.violation("promise 7: %s of run %d was given up after %d deaths", path, r.number, deaths)
	}
}
