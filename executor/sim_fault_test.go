package executor_test

import (
	"fmt"
	"hash/fnv"
	"maps"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"time"
)

// simFlaws are defects of the store, of which a simulation must find each.
type simFlaws struct {
	fencesNobody   bool // lanes without a lease may write
	parksDeaf      bool // parking does not look for messages that came before
	forgetsTimers  bool // nothing wakes a parked run when its time comes
	losesBells     bool // bells of messages are lost, and no heartbeat makes up for it
	losesRecord    bool // one record is acknowledged and not kept
	freesTheLiving bool // runs of lanes that hold their lease are reclaimed
	findsLate      bool // messages for runs in memory are found only after a while
	losesReports   bool // what is reported of attempts is acknowledged and not kept
}

// simWeather is what a simulation draws from its seed before it begins.
type simWeather struct {
	replicas  int
	lanes     int
	memory    int // runs in memory per lane
	slots     int
	heartbeat time.Duration
	latency   time.Duration // the most that half an operation takes, as a rule
	slow      float64       // the share of operations that take up to seconds
	cutBefore float64       // of operations that do not reach the store
	cutAfter  float64       // of operations whose answer is lost
	bellLoss  float64       // of bells between processes
	notices   bool          // dead processes are noticed without their lease
	skew      time.Duration // the most by which clocks differ
	runs      int
	viewers   int
	storm     time.Duration // how long faults go on
	selective bool          // the first process takes no runs from the queue but its own
	grace     time.Duration // for which the attempts of lost runs go on
}

func drawWeather(r *rand.Rand) simWeather {
	pick := func(list ...time.Duration) time.Duration { return list[r.IntN(len(list))] }
	chance := func(list ...float64) float64 { return list[r.IntN(len(list))] }
	w := simWeather{
		replicas: 1 + r.IntN(3), lanes: 1 + r.IntN(2), memory: []int{1000, 1000, 2}[r.IntN(3)], slots: []int{50, 50, 2}[r.IntN(3)],
		heartbeat: 3 * time.Second,
		latency:   pick(300*time.Microsecond, 3*time.Millisecond, 30*time.Millisecond), slow: chance(0, 0, 0.02),
		cutBefore: chance(0, 0, 0.03), cutAfter: chance(0, 0, 0.05), bellLoss: chance(0, 0, 0.2, 1), notices: r.IntN(3) == 0,
		skew: pick(0, 0, 50*time.Millisecond, 5*time.Second), runs: 1 + r.IntN(3), viewers: r.IntN(2), storm: pick(20*time.Second, 20*time.Second, 45*time.Second),
	}
	w.selective = w.replicas > 1 && r.IntN(5) == 0
	w.grace = pick(2*time.Second, 20*time.Second)
	return w
}

// draw is a number in [0, 1) that depends on the seed and on what it is for, so
// that the order in which goroutines ask does not matter.
func (w *simWorld) draw(what string, numbers ...int) float64 {
	h := fnv.New64a()
	fmt.Fprint(h, w.seed, what, numbers)
	return rand.New(rand.NewPCG(h.Sum64(), w.seed)).Float64()
}

// simPace is how long the halves of an operation take, and how it goes wrong.
type simPace struct {
	there, back        time.Duration
	unsent, unanswered bool
}

// pace draws the next operation of a kind. The caller holds db.mu.
func (w *simWorld) pace(c *simClient, op string) simPace {
	c.ops[op]++
	w.count.operations++
	p := simPace{there: 100 * time.Microsecond, back: 100 * time.Microsecond}
	if w.calm {
		return p
	}
	h := fnv.New64a()
	h.Write([]byte(op))
	r := rand.New(rand.NewPCG(w.seed^h.Sum64(), uint64(c.number)<<32|uint64(c.ops[op])))
	p.there += time.Duration(r.Float64() * float64(w.weather.latency))
	p.back += time.Duration(r.Float64() * float64(w.weather.latency))
	if r.Float64() < w.weather.slow {
		slow := time.Duration(r.Float64() * float64(3*time.Second))
		if w.hit(c, "slow operation", slow); r.IntN(2) == 0 {
			p.there += slow
		} else {
			p.back += slow
		}
	}
	if p.unsent = r.Float64() < w.weather.cutBefore; p.unsent {
		w.hit(c, "operation not sent", 0)
	} else if p.unanswered = r.Float64() < w.weather.cutAfter; p.unanswered {
		w.hit(c, "answer lost", 0)
	}
	return p
}

// hit counts a fault and notes until when it troubles a process. The caller
// holds db.mu.
func (w *simWorld) hit(c *simClient, kind string, d time.Duration) {
	w.count.faults[kind]++
	if until := time.Now().Add(d); c != nil && until.After(c.unwell) {
		c.unwell = until
	}
}

// away reports whether the store is out of the process's reach. The caller holds db.mu.
func (w *simWorld) away(c *simClient) bool {
	now := time.Now()
	return now.Before(w.outage) || now.Before(c.cut)
}

type simBellDelay struct {
	to            *simClient
	leave, travel time.Duration
}

// bellDelays draws which processes hear a bell, and when. The caller holds db.mu.
func (w *simWorld) bellDelays(c *simClient) []simBellDelay {
	c.ops["bell"]++
	var list []simBellDelay
	for _, p := range w.procs {
		if p.client == c || p.client.dead() {
			continue
		}
		d := simBellDelay{to: p.client, leave: 10 * time.Millisecond, travel: time.Millisecond}
		if !w.calm {
			x := w.draw("bell", c.number, p.client.number, c.ops["bell"])
			if x < w.weather.bellLoss {
				w.count.faults["bell lost"]++
				continue
			}
			d.travel += time.Duration(x * float64(w.weather.latency))
			if x > 0.95 {
				w.count.faults["bell doubled"]++
				list = append(list, simBellDelay{to: p.client, leave: d.leave, travel: d.travel + 700*time.Millisecond})
			}
		}
		list = append(list, d)
	}
	return list
}

// simTrigger is a fault that waits until a process does something.
type simTrigger struct {
	point string
	left  int // how often yet
	delay time.Duration
	fault string
	d     time.Duration
}

// simPoints are where faults wait. "Sent" is before the store has it, "done" when
// it is durable and not answered, "answered" when the process knows.
var simPoints = []string{
	"commit sent", "commit done", "commit answered", "parking sent", "parking done", "parking answered",
	"creation sent", "creation done", "creation answered", "asking done", "asking answered",
	"consumption sent", "consumption done", "consumption answered", "finish sent", "finish done", "finish answered",
	"claim of runs done", "claim of runs answered", "claim run done", "claim run answered", "plan sent", "events sent", "events answered",
	"inbox with messages done", "inbox with messages answered", "release sent", "release done", "release answered",
	"decide done", "decide answered", "send done", "send answered", "reclaim of runs done", "reclaim of runs answered",
	"open lane done", "open lane answered", "heartbeat sent", "step begins", "step ends",
}

// drawFaults plans the faults of a simulation: some by the clock, some for when
// something happens.
func (w *simWorld) drawFaults(r *rand.Rand) {
	for range r.IntN(4) {
		t := &simTrigger{point: simPoints[r.IntN(len(simPoints))], left: 1 + r.IntN(3), fault: "crash"}
		if r.IntN(3) == 0 {
			t.fault, t.d = "stop", time.Second+time.Duration(r.Int64N(int64(40*time.Second)))
		}
		if r.IntN(2) == 0 {
			t.delay = time.Duration(r.Int64N(int64(2*w.weather.latency + time.Millisecond)))
		}
		w.triggers = append(w.triggers, t)
	}
	if w.weather.storm > 40*time.Second { // somebody loses a lease, and comes back while the next owner waits for it
		w.triggers = append(w.triggers, &simTrigger{
			point: []string{"step begins", "step ends"}[r.IntN(2)], left: 1 + r.IntN(3), fault: []string{"stop", "stop", "cut"}[r.IntN(3)],
			d: simTTL + time.Duration(r.Int64N(int64(9*time.Second))),
		})
	}
	for n := range r.IntN(5) {
		kind := []string{"crash", "crash", "stop", "stop", "cut", "outage", "shutdown", "shutdown", "deafness", "clock jump"}[r.IntN(10)]
		d := time.Second + time.Duration(r.ExpFloat64()*float64(8*time.Second))
		at := time.Duration(r.Int64N(int64(w.weather.storm)))
		w.later(at, func() { w.strike(kind, w.pick("victim", n), min(d, 45*time.Second)) })
	}
}

// at is where a process stands; a fault may have waited for it.
func (w *simWorld) at(c *simClient, point string) {
	w.db.mu.Lock()
	var due *simTrigger
	if !w.calm && c.diedAt.IsZero() {
		for _, t := range w.triggers {
			if t.point == point && t.left > 0 {
				if t.left--; t.left == 0 {
					due = t
				}
			}
		}
	}
	w.db.mu.Unlock()
	switch {
	case due == nil:
	case due.delay > 0:
		w.later(due.delay, func() { w.strikeAt(due, c) })
	default:
		w.strikeAt(due, c)
	}
}

func (w *simWorld) strikeAt(t *simTrigger, c *simClient) {
	w.tell("replica %d: %s", c.number, t.point)
	w.strike(t.fault, w.procOf(c), t.d)
}

// strike makes a fault happen to a process.
func (w *simWorld) strike(kind string, p *simProc, d time.Duration) {
	w.db.mu.Lock()
	if w.calm || p == nil || p.client.dead() {
		w.db.mu.Unlock()
		return
	}
	c, until := p.client, time.Now().Add(d)
	w.tell("replica %d: %s %s", c.number, kind, d.Round(time.Millisecond))
	switch kind {
	case "crash":
		w.db.mu.Unlock()
		w.kill(c, kind)
		return
	case "shutdown":
		w.db.mu.Unlock()
		w.shut(p)
		return
	case "stop":
		if c.thaw != nil {
			break
		}
		w.hit(c, kind, d)
		thaw := make(chan struct{})
		c.thaw = thaw
		w.later(d, func() { w.thaw(c, thaw) })
	case "cut":
		w.hit(c, kind, d)
		c.cut = until
		w.ringsAfter(d, c)
	case "outage":
		for _, p := range w.procs {
			w.hit(p.client, kind, d)
		}
		w.outage = until
		for _, p := range w.procs {
			w.ringsAfter(d, p.client)
		}
	case "deafness":
		w.hit(c, kind, d)
		c.deaf = until
		w.ringsAfter(d, c)
	case "clock jump":
		w.hit(c, kind, 0)
		p.clock.Add(int64((2*w.draw("jump", c.number) - 1) * float64(20*time.Second)))
	}
	w.db.mu.Unlock()
}

// ringsAfter rings, at the end of a fault, the bell of those who may have missed
// one. Faults that the calm has ended have had theirs.
func (w *simWorld) ringsAfter(d time.Duration, c *simClient) {
	w.later(d, func() {
		w.db.mu.Lock()
		calm := w.calm
		w.db.mu.Unlock()
		if !calm {
			c.all()
		}
	})
}

func (w *simWorld) thaw(c *simClient, thaw chan struct{}) {
	w.db.mu.Lock()
	defer w.db.mu.Unlock()
	if c.thaw == thaw {
		w.tell("replica %d goes on", c.number)
		c.thaw = nil
		close(thaw)
	}
}

// simCount is what simulations have done so far.
type simCount struct {
	runs, steps, events, operations int
	faults                          map[string]int
}

// simTotal adds up the counts of many simulations.
type simTotal struct {
	seeds, runs, steps, events, operations atomic.Int64
	faults                                 chan map[string]int // capacity 1: the counts, for whoever holds them
}

func newSimTotal() *simTotal {
	t := &simTotal{faults: make(chan map[string]int, 1)}
	t.faults <- map[string]int{}
	return t
}

func (t *simTotal) add(c *simCount) {
	t.seeds.Add(1)
	t.runs.Add(int64(c.runs))
	t.steps.Add(int64(c.steps))
	t.events.Add(int64(c.events))
	t.operations.Add(int64(c.operations))
	all := <-t.faults
	for k, n := range c.faults {
		all[k] += n
	}
	t.faults <- all
}

func (t *simTotal) String() string {
	all := <-t.faults
	text := ""
	for _, k := range slices.Sorted(maps.Keys(all)) {
		text += fmt.Sprintf(", %s %d", k, all[k])
	}
	t.faults <- all
	return fmt.Sprintf("%d seeds, %d runs, %d executions of steps, %d records, %d operations; faults%s",
		t.seeds.Load(), t.runs.Load(), t.steps.Load(), t.events.Load(), t.operations.Load(), text)
}
