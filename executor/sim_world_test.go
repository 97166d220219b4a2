package executor_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/orchestrator-project/orchestrator/executor"
	"github.com/orchestrator-project/orchestrator/pipeline"
	"github.com/orchestrator-project/orchestrator/store"
)

// simWorld is one simulation: a store, the processes that share it, those who
// submit runs and talk to them, and everything that goes wrong, all of it drawn
// from a seed. It lives in a bubble of virtual time.
type simWorld struct {
	seed     uint64
	weather  simWeather
	flaw     simFlaws
	pipeline *simPipeline
	begun    time.Time
	db       *simDB
	tasks    sync.WaitGroup // of processes

	// Guarded by db.mu.
	procs    []*simProc
	triggers []*simTrigger
	outage   time.Time
	calm     bool // no more faults
	over     bool // nothing begins any more
	asking   int  // submissions that are not answered yet
	ledger   map[string]*simEntry
	acked    map[pipeline.RunID]bool
	byKey    map[string]pipeline.RunID
	meddled  map[pipeline.RunID]bool // somebody has cancelled it
	viewers  []*simViewer
	count    simCount

	mu         sync.Mutex
	story      []simLine
	violations []string
}

// simProc is a server process.
type simProc struct {
	client *simClient
	ex     *executor.Executor
	cancel context.CancelFunc
	clock  atomic.Int64 // by how many nanoseconds it is wrong
	born   time.Time
	shut   bool
	aloof  bool // it takes no runs from the queue but its own
	done   chan struct{}
}

// simLine is a line of the story, put together only if somebody reads it.
type simLine struct {
	at     time.Time
	format string
	args   []any
}

func (w *simWorld) tell(format string, args ...any) {
	w.mu.Lock()
	w.story = append(w.story, simLine{time.Now(), format, args})
	w.mu.Unlock()
}

// violation notes that a promise is broken.
func (w *simWorld) violation(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	w.tell("VIOLATION %s", text)
	w.mu.Lock()
	w.violations = append(w.violations, text)
	w.mu.Unlock()
}

func (w *simWorld) broken() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.violations) > 0
}

func simClock(t time.Time) string {
	if t.IsZero() {
		return "never"
	}
	return fmt.Sprintf("%.4fs", t.Sub(time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)).Seconds())
}

func (w *simWorld) tale() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var b strings.Builder
	for _, l := range w.story {
		fmt.Fprintf(&b, "%10s  %s\n", simClock(l.at), fmt.Sprintf(l.format, l.args...))
	}
	return b.String()
}

// Handle makes the world the handler of its executors' logs: whatever they hold
// for an error belongs to the story.
func (w *simWorld) Handle(_ context.Context, r slog.Record) error {
	var attrs []string
	r.Attrs(func(a slog.Attr) bool { attrs = append(attrs, a.String()); return true })
	w.tell("log: %s %s", r.Message, strings.Join(attrs, " "))
	if r.Message == "event does not follow" { // a panic comes next
		fmt.Printf("seed %d: %s %v\n%s\n%s", w.seed, r.Message, attrs, w.pipeline.src, w.tale())
	}
	return nil
}

func (w *simWorld) Enabled(_ context.Context, l slog.Level) bool { return l >= slog.LevelError }
func (w *simWorld) WithAttrs([]slog.Attr) slog.Handler           { return w }
func (w *simWorld) WithGroup(string) slog.Handler                { return w }

// later lets f happen after that time, unless the simulation is over by then.
func (w *simWorld) later(d time.Duration, f func()) {
	time.AfterFunc(d, func() {
		w.db.mu.Lock()
		over := w.over
		w.db.mu.Unlock()
		if !over {
			f()
		}
	})
}

// spawn starts a process.
func (w *simWorld) spawn() {
	w.db.mu.Lock()
	c := &simClient{w: w, db: w.db, number: len(w.procs) + 1, died: make(chan struct{}), noticed: w.weather.notices, unwell: w.outage, ops: map[string]int{}}
	p := &simProc{client: c, born: time.Now(), done: make(chan struct{}), aloof: w.weather.selective && len(w.procs) == 0}
	w.procs = append(w.procs, p)
	if !w.calm {
		p.clock.Store(int64((2*w.draw("clock", c.number) - 1) * float64(w.weather.skew)))
	}
	w.db.mu.Unlock()
	var err error
	p.ex, err = executor.New(executor.Config{
		Store: c, Replica: store.ReplicaID(fmt.Sprint("replica ", c.number)), Actions: []executor.Action{simAction(w, c)}, Command: simCommand(),
		Lanes: w.weather.lanes, Runs: w.weather.memory, Steps: w.weather.slots, Workspaces: "/nonexistent/workspaces", Bundles: "/nonexistent/bundles",
		Resources: pipeline.Resources{CPU: 4, MemoryGB: 4}, Environ: []string{"PATH=/bin"}, Heartbeat: w.weather.heartbeat, TTL: simTTL, Grace: 2 * time.Second,
		Selective: p.aloof, AdoptionGrace: w.weather.grace,
		Logger: slog.New(w), Now: func() time.Time { return time.Now().Add(time.Duration(p.clock.Load())) },
	})
	if err != nil {
		w.violation("no executor: %v", err)
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	p.cancel = cancel
	w.tell("replica %d starts", c.number)
	w.tasks.Go(func() {
		defer close(p.done)
		if err := p.ex.Run(ctx); err != nil {
			w.violation("replica %d: %v", c.number, err)
		}
		w.ended(p)
	})
}

// kill ends a process without a word: nothing that it still does has an effect.
func (w *simWorld) kill(c *simClient, why string) {
	w.db.mu.Lock()
	if !c.diedAt.IsZero() {
		w.db.mu.Unlock()
		return
	}
	c.diedAt = time.Now()
	close(c.died)
	p := w.procs[c.number-1]
	w.count.faults["crash"]++
	w.tell("replica %d dies: %s", c.number, why)
	lanes := map[int64]bool{}
	for _, e := range c.open {
		lanes[e] = true
	}
	over, calm := w.over, w.calm
	w.db.mu.Unlock()
	p.cancel()
	if over {
		return
	}
	died := time.Now()
	w.later(20*time.Second, func() { w.takenOver(lanes, died, c.number) })
	again := 100 * time.Millisecond
	if !calm {
		again += time.Duration(w.draw("rebirth", c.number) * float64(20*time.Second))
	}
	w.later(again, w.spawn)
}

// shut asks a process to end in good order.
func (w *simWorld) shut(p *simProc) {
	w.db.mu.Lock()
	again := p.shut || w.over
	p.shut = true
	w.count.faults["shutdown"]++
	w.db.mu.Unlock()
	if again {
		return
	}
	p.cancel()
	w.later(time.Duration(w.draw("successor", p.client.number)*float64(5*time.Second)), w.spawn)
}

// all is the bell after bells may have been lost.
func (c *simClient) all() { c.hear(store.Bell{All: true}, time.Millisecond) }

func (w *simWorld) procOf(c *simClient) *simProc {
	w.db.mu.Lock()
	defer w.db.mu.Unlock()
	return w.procs[c.number-1]
}

// pick draws a process that lives; nil: none does.
func (w *simWorld) pick(what string, n ...int) *simProc {
	w.db.mu.Lock()
	defer w.db.mu.Unlock()
	var living []*simProc
	for _, p := range w.procs {
		if !p.client.dead() && !p.shut && p.ex != nil {
			living = append(living, p)
		}
	}
	if len(living) == 0 {
		return nil
	}
	return living[int(w.draw(what, n...)*float64(len(living)))]
}

// insist does something through a process that lives until it is answered: f
// says so. It gives up at the end of the simulation.
func (w *simWorld) insist(what string, n int, f func(p *simProc) bool) {
	for try := 0; ; try++ {
		w.db.mu.Lock()
		over := w.over
		w.db.mu.Unlock()
		if over {
			return
		}
		if p := w.pick(what, n, try); p != nil && f(p) && !p.client.dead() {
			return
		}
		time.Sleep(200 * time.Millisecond)
	}
}

// submit submits run number n until somebody acknowledges it, or, without an
// idempotency key, once.
func (w *simWorld) submit(n int, key string) {
	defer func() {
		w.db.mu.Lock()
		w.asking--
		w.db.mu.Unlock()
	}()
	s := w.pipeline.submission
	s.IdempotencyKey, s.RequestDigest = key, "sha256:1"
	w.insist("submit", n, func(p *simProc) bool {
		run, err := p.ex.Submit(context.Background(), s)
		if err != nil || p.client.dead() {
			e, known := errors.AsType[*pipeline.Error](err)
			refused := known && (e.Reason == "store_unavailable" || e.Reason == "stopping") && !p.client.dead()
			w.tell("submission %d fails: %v", n, err)
			return key == "" && !refused
		}
		w.db.mu.Lock()
		defer w.db.mu.Unlock()
		w.tell("run %s is acknowledged by replica %d", w.name(run.ID), p.client.number)
		w.acked[run.ID] = true
		if w.db.runs[run.ID] == nil {
			w.violation("a run was acknowledged and is not in the store")
		}
		if first := w.byKey[key]; key != "" && first != "" && first != run.ID {
			w.violation("the key %s was answered with two runs", key)
		}
		w.byKey[key] = run.ID
		return true
	})
}

func (w *simWorld) name(id pipeline.RunID) string {
	if r := w.db.runs[id]; r != nil {
		return fmt.Sprint(r.number)
	}
	return string(id)
}

// created lets people say to a new run what it waits for, at their own time. The
// caller holds db.mu.
func (w *simWorld) created(r *simRow) {
	id, n := r.run.ID, r.number
	for i, name := range w.pipeline.signals {
		body := pipeline.EncodeValue(map[string]any{"name": name, "data": name + "!"})
		at := w.moment("signal", n, i)
		send := func(id2 string) {
			w.insist("signaller", 100*n+i, func(p *simProc) bool {
				err := p.client.Send(byPeople(), id, store.Message{ID: store.MessageID(id2), Kind: store.MessageSignal, Actor: "ann", Body: body})
				return err == nil || pipeline.KindOf(err) == pipeline.Conflict
			})
		}
		m := fmt.Sprintf("signal-%d-%d", n, i)
		w.later(at, func() { send(m) })
		if !w.calm && w.draw("again", n, i) < 0.1 {
			w.count.faults["message doubled"]++
			w.later(at+w.moment("again after", n, i), func() { send(m + "-again") })
		}
	}
	if !w.calm && w.draw("pause", n) < 0.15 {
		w.count.faults["pause"]++
		after := w.moment("resume at", n)
		w.later(w.moment("pause at", n), func() {
			w.say(id, n, store.MessagePause)
			w.later(after, func() { w.say(id, n, store.MessageResume) })
		})
	}
	if !w.calm && w.draw("cancel", n) < 0.12 {
		w.meddled[id] = true
		w.count.faults["cancel"]++
		w.later(w.moment("cancel at", n), func() { w.say(id, n, store.MessageCancel) })
	}
}

// say sends a message to a run, of which it gets at most one of a kind.
func (w *simWorld) say(id pipeline.RunID, n int, kind string) {
	w.insist(kind, n, func(p *simProc) bool {
		err := p.client.Send(byPeople(), id, store.Message{ID: store.MessageID(fmt.Sprint(kind, "-", n)), Kind: kind, Actor: "ann"})
		return err == nil || pipeline.KindOf(err) == pipeline.Conflict
	})
}

// moment draws when somebody says something: while it matters most, soon, or at
// leisure.
func (w *simWorld) moment(what string, n ...int) time.Duration {
	x := w.draw(what+" moment", n...)
	if w.calm {
		return time.Millisecond
	}
	switch scale := w.draw(what+" scale", n...); {
	case scale < 0.4: // about as long as it takes to park
		return time.Duration(x * float64(4*w.weather.latency+2*time.Millisecond))
	case scale < 0.7:
		return time.Duration(x * float64(time.Second))
	}
	return time.Duration(x * float64(w.weather.storm))
}

// asked lets somebody decide a question. The caller holds db.mu.
func (w *simWorld) asked(id pipeline.ApprovalID, a *pipeline.Approval) {
	n := len(w.db.asked)
	at := w.moment("decision", n)
	if left := time.Until(a.Deadline); !a.Deadline.IsZero() && !w.calm && w.draw("late", n) < 0.4 {
		at = max(0, left+time.Duration((2*w.draw("how late", n)-1)*float64(4*w.weather.latency+2*time.Millisecond)))
	}
	d := pipeline.Decision{Actor: "ann", Decision: "approve"}
	switch a.Kind {
	case pipeline.ApprovalAsk:
		d.Decision, d.Value = "answer", int64(1)
	case pipeline.ApprovalDecide:
		d.Decision = "retry"
		switch e, x := w.ledger[string(a.Run)+"/"+string(a.Path)], w.draw("decided", n); {
		case e != nil && x < 0.4:
			d.Decision, d.Value = "done", e.output
		case x < 0.5:
			d.Decision = "fail"
		}
	}
	w.later(at, func() {
		w.insist("decider", n, func(p *simProc) bool {
			_, err := p.client.Decide(byPeople(), id, d)
			return err == nil || pipeline.KindOf(err) != pipeline.Unavailable && !errors.Is(err, errSimDead)
		})
	})
}

// simulate lets the whole thing happen, and returns what was broken.
func (w *simWorld) simulate() {
	w.begun = time.Now()
	r := rand.New(rand.NewPCG(w.seed, 1))
	w.weather = drawWeather(r)
	if w.calm {
		w.weather = simWeather{replicas: 1, lanes: 1, memory: 1000, slots: 50, heartbeat: 3 * time.Second, runs: 1}
	}
	w.db = newSimDB(w)
	for range w.weather.replicas {
		w.spawn()
	}
	if !w.calm {
		w.drawFaults(r)
	}
	w.db.mu.Lock()
	for n := range w.weather.runs {
		key := ""
		if !w.calm && w.draw("keyed", n) < 0.6 {
			key = fmt.Sprint("key", n)
		}
		at := w.moment("submission", n) / 2
		w.asking++
		w.later(at, func() { w.submit(n, key) })
		if key != "" && w.draw("submitted twice", n) < 0.3 {
			w.asking++
			w.later(at+w.moment("submission again", n)/4, func() { w.submit(n, key) })
		}
	}
	w.db.mu.Unlock()
	for n := range w.weather.viewers {
		w.watch(n)
	}
	if !w.calm {
		time.Sleep(w.weather.storm)
		w.clear()
	}
	w.settle()
	if !w.broken() && w.weather.storm > 0 {
		w.rest()
	}
	w.db.mu.Lock()
	w.over = true
	procs := w.procs
	w.db.mu.Unlock()
	for _, p := range procs {
		p.cancel()
	}
	w.tasks.Wait()
	w.db.mu.Lock()
	for _, p := range procs { // whoever still asks one of them is answered
		if p.client.diedAt.IsZero() {
			p.client.diedAt = time.Now()
			close(p.client.died)
		}
	}
	w.db.mu.Unlock()
	time.Sleep(time.Minute) // until those have noticed
}

// clear ends all faults.
func (w *simWorld) clear() {
	w.tell("no more faults")
	w.db.mu.Lock()
	w.calm, w.outage = true, time.Time{}
	procs := w.procs
	for _, p := range procs {
		p.client.cut, p.client.deaf = time.Time{}, time.Time{}
		w.later(0, p.client.all)
	}
	w.db.mu.Unlock()
	for _, p := range procs {
		if thaw := p.client.thaw; thaw != nil {
			w.thaw(p.client, thaw)
		}
	}
}
