package executor_test

import (
	"context"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/orchestrator-project/orchestrator/executor"
	"github.com/orchestrator-project/orchestrator/pipeline"
	"github.com/orchestrator-project/orchestrator/pipeline/spec"
)

// simPipeline is one of the small pipelines that simulations run. Whatever goes
// wrong around it, its result is the same: what its steps give depends on what
// they are given, not on when or how often they run.
type simPipeline struct {
	src        string
	signals    []string // that somebody must send
	submission pipeline.Submission
	poison     bool // it kills the processes that run it
}

// simWriter writes a random pipeline.
type simWriter struct {
	r       *rand.Rand
	n       int
	signals []string
}

func (g *simWriter) id(letter string) string {
	g.n++
	return fmt.Sprint(letter, g.n)
}

func (g *simWriter) one(n int) bool { return g.r.IntN(n) == 0 }

// steps writes a list of steps as a YAML flow sequence and returns their ids.
func (g *simWriter) steps(count, depth int, looped bool) (string, []string) {
	var texts, ids []string
	for range count {
		before := ""
		if len(ids) > 0 && !g.one(3) {
			before = ids[g.r.IntN(len(ids))]
		}
		text, id := g.step(before, depth, looped)
		texts, ids = append(texts, text), append(ids, id)
	}
	return flow(texts), ids
}

func flow(texts []string) string { return "[" + strings.Join(texts, ", ") + "]" }

func (g *simWriter) step(before string, depth int, looped bool) (text, id string) {
	needs := ""
	if before != "" {
		needs = ", needs: [" + before + "]"
	}
	kind := g.r.IntN(20)
	if depth == 0 && kind >= 12 {
		kind = g.r.IntN(12)
	}
	id = g.id("s")
	switch kind {
	case 7:
		return fmt.Sprintf("{id: %s, wait: {for: %.2f}%s}", id, 5*g.r.Float64(), needs), id
	case 8:
		if looped {
			break
		}
		g.signals = append(g.signals, "go-"+id)
		return fmt.Sprintf("{id: %s, wait: {signal: go-%s}%s}", id, id, needs), id
	case 9:
		if g.one(2) {
			return fmt.Sprintf("{id: %s, ask: {question: %s, choices: [1, 2, 3], default: 1, deadline: 6}%s}", id, id, needs), id
		}
		return fmt.Sprintf("{id: %s, ask: {question: %s, choices: [1, 2, 3]}%s}", id, id, needs), id
	case 10:
		return fmt.Sprintf("{id: %s, approve: {question: %s, deadline: 4, on_timeout: approve}%s}", id, id, needs), id
	case 11:
		if looped { // passes that run at once cannot share a variable
			break
		}
		return fmt.Sprintf("{id: %s, set: {v%s: '%s!'}%s}", id, id, id, needs), id
	case 12, 13:
		var arms []string
		for range 2 + g.r.IntN(2) { // they cannot wait for each other
			arm, _ := g.step("", depth-1, looped)
			arms = append(arms, arm)
		}
		return fmt.Sprintf("{id: %s, parallel: %s%s}", id, flow(arms), needs), id
	case 14, 15:
		inner, _ := g.steps(1+g.r.IntN(2), depth-1, true)
		return fmt.Sprintf("{id: %s, for: {items: [1, 2, 3], parallel: %s}, steps: %s%s}", id, []string{"false", "2", "true"}[g.r.IntN(3)], inner, needs), id
	case 16:
		if looped {
			break
		}
		count, n := g.id("c"), g.id("n")
		inner, _ := g.steps(1, depth-1, true)
		return fmt.Sprintf("{id: %s, repeat: {until: '%s >= 2', max_iterations: 4}, steps: [{id: %s, set: {%s: '{{ (%s | default(0, true)) + 1 }}'}}, %s%s}",
			id, n, count, n, n, inner[1:], needs), id
	case 17:
		then, _ := g.steps(1, depth-1, looped)
		other, _ := g.steps(1, depth-1, looped)
		return fmt.Sprintf("{id: %s, if: {condition: '%d > 1', then: %s}, else: %s%s}", id, g.r.IntN(4), then, other, needs), id
	case 18:
		inner, ids := g.steps(2, depth-1, true)
		return fmt.Sprintf("{id: %s, with: {x: 1}, pipeline: {inputs: {x: {type: integer}}, steps: %s, outputs: {v: '{{ %s }}'}}%s}", id, inner, ids[1], needs), id
	case 19:
		inner, ids := g.steps(1, depth-1, true)
		return fmt.Sprintf("{id: %s, queue: {items: [1, 2, 3], max_parallel: 2, steps: %s, collect: '{{ %s }}'}%s}", id, inner, ids[0], needs), id
	}
	return g.leaf(id, before, needs), id
}

func (g *simWriter) leaf(id, before, needs string) string {
	with := fmt.Sprintf("takes: %d", g.r.IntN(1+[]int{5, 5, 300, 300, 2500, 9000}[g.r.IntN(6)]))
	if before != "" {
		with += fmt.Sprintf(", after: %s, in: '{{ %s }}'", before, before)
		needs = ""
		if g.one(2) {
			needs = ", needs: [" + before + "]"
		}
	}
	extra := ""
	switch g.r.IntN(12) {
	case 0, 1:
		with += fmt.Sprintf(", fails: %d", 1+g.r.IntN(2))
		extra = fmt.Sprintf(", retry: {max_attempts: 4, initial: %s, jitter: none}", []string{"0.05", "0.7", "2.6"}[g.r.IntN(3)])
	case 2:
		with += ", fails: 99"
		extra = ", on_failure: " + []string{"skip", "continue"}[g.r.IntN(2)]
	case 3, 4:
		with += ", once: true"
		extra = ", effect: at_most_once"
	case 5:
		extra = ", timeout: 60"
	case 6:
		extra = ", effect: idempotent"
	}
	return fmt.Sprintf("{id: %s, action: sim, with: {%s}%s%s}", id, with, extra, needs)
}

// write makes the pipeline of a number. Every tenth is the smallest that can be
// raced for: it parks at once and waits for one thing.
func (g *simWriter) write(number int) string {
	order := "settings: {order: " + []string{"sequence", "graph"}[g.r.IntN(2)] + "}\n"
	switch number % 20 {
	case 0, 1:
		g.signals = []string{"go-s1"}
		return "steps: [{id: s1, wait: {signal: go-s1}}, {id: s2, action: sim, with: {takes: 10, after: s1, in: '{{ s1 }}'}}]\n"
	case 2, 3:
		return "steps: [{id: s1, ask: {question: s1, choices: [1, 2, 3], default: 1, deadline: 2.5}}, {id: s2, action: sim, with: {takes: 10, after: s1, in: '{{ s1 }}'}}]\n"
	case 4:
		return "steps: [{id: s1, action: sim, with: {takes: 50}}, {id: s2, action: sim, with: {takes: 40, after: s1, poison: true}, needs: [s1]}, {id: s3, action: sim, with: {after: s2}, needs: [s2]}]\n"
	}
	text, _ := g.steps(2+g.r.IntN(4), 2, false)
	src := order + "steps: " + text + "\n"
	if g.one(4) {
		src += "finally: [{id: tidy, action: sim, with: {takes: 20}}]\n"
	}
	return src
}

var (
	simPipelines sync.Map // of func() *simPipeline, by number
	simCompiler  = sync.OnceValue(func() *executor.Executor {
		ex, err := executor.New(executor.Config{Store: &simClient{}, Actions: []executor.Action{simAction(nil, nil)}, Command: simCommand()})
		if err != nil {
			panic(err)
		}
		return ex
	})
)

// simCommand stands for the command steps that simulations do not have.
func simCommand() executor.Action {
	return executor.Action{Bind: func(map[string]any) (executor.Runner, error) {
		return nil, pipeline.Failuref(pipeline.CategorySystem, "simulations run no commands")
	}}
}

// pipelineOf is the pipeline of a number; it is written and compiled once.
func pipelineOf(number int) *simPipeline {
	f, _ := simPipelines.LoadOrStore(number, sync.OnceValue(func() *simPipeline {
		g := &simWriter{r: rand.New(rand.NewPCG(uint64(number), 77))}
		p := &simPipeline{src: g.write(number), signals: g.signals, poison: number%20 == 4}
		plan, diagnostics, err := spec.Compile(spec.Source{File: "sim.yaml", Text: []byte(p.src)}, simCompiler().Catalog())
		if err != nil {
			panic(fmt.Sprintf("pipeline %d does not compile: %v %v\n%s", number, err, diagnostics, p.src))
		}
		compiled, digest, err := spec.EncodePlan(plan)
		if err == nil {
			plan, err = spec.DecodePlan(compiled)
		}
		if err != nil {
			panic(err)
		}
		inputs, err := spec.Inputs(plan, nil)
		if err != nil {
			panic(err)
		}
		p.submission = pipeline.Submission{Plan: plan, PlanDigest: digest, Compiled: compiled, Source: []byte(p.src), Inputs: inputs}
		return p
	}))
	return f.(func() *simPipeline)()
}

// simStep is the action of all leaves.
type simStep struct {
	Takes  int64  `param:"takes" doc:"milliseconds"`
	Fails  int64  `param:"fails" doc:"how many executions fail before one succeeds"`
	After  string `param:"after" doc:"the step beside it that must have ended durably"`
	In     any    `param:"in"`
	Once   bool   `param:"once" doc:"it may run at most once for each decision"`
	Poison bool   `param:"poison" doc:"it kills its process"`

	w *simWorld
	c *simClient
}

func simAction(w *simWorld, c *simClient) executor.Action {
	a := executor.NewAction[simStep](executor.Describe{Name: "sim", Doc: "For simulations.", Effect: pipeline.EffectAtLeastOnce})
	bind := a.Bind
	a.Bind = func(params map[string]any) (executor.Runner, error) {
		r, err := bind(params)
		if s, ok := r.(simStep); ok {
			s.w, s.c = w, c
			return s, err
		}
		return r, err
	}
	return a
}

// Run has its effect in the ledger of the world, which no crash loses.
func (s simStep) Run(ctx context.Context, env executor.Env) (executor.Output, error) {
	if err := s.c.held(); err != nil {
		return executor.Output{}, err
	}
	s.w.at(s.c, "step begins")
	if err := s.c.held(); err != nil {
		return executor.Output{}, err
	}
	e := s.w.begins(s.c, env, &s)
	defer s.w.leaves(env, e)
	if s.Poison {
		s.w.kill(s.c, "a poisoned step")
	}
	if err := s.c.spend(ctx, time.Duration(s.Takes)*time.Millisecond); err != nil {
		return executor.Output{}, err
	}
	failed := s.w.ends(e, &s)
	if !failed {
		s.w.succeeds(env, e)
	}
	s.w.at(s.c, "step ends")
	if err := s.c.held(); err != nil {
		return executor.Output{}, err
	}
	if failed {
		return executor.Output{}, pipeline.Failuref(pipeline.CategorySystem, "told to fail")
	}
	return executor.Output{Value: e.output}, nil
}

// simEntry is what the ledger knows of a step instance.
type simEntry struct {
	attempts []simAttempt
	finished int64 // executions that came to their end
	output   string
	once     bool
}

type simAttempt struct {
	number  int32
	replica int
	at      time.Time
	ended   time.Time // with success
	over    bool      // its goroutine has ended
}

// begins enters an execution in the ledger and looks whether it may be.
func (w *simWorld) begins(c *simClient, env executor.Env, s *simStep) *simEntry {
	w.db.mu.Lock()
	defer w.db.mu.Unlock()
	key := env.IdempotencyKey()
	e := w.ledger[key]
	if e == nil {
		h := fnv.New32a()
		h.Write(pipeline.EncodeValue(s.In))
		e = &simEntry{output: fmt.Sprintf("%s:%x", env.Path.ID(), h.Sum32()), once: s.Once}
		w.ledger[key] = e
	}
	r := w.db.runs[env.Run]
	if r == nil {
		w.violation("replica %d executes %s of a run that does not exist", c.number, env.Path)
		return e
	}
	w.tell("replica %d executes %s of run %d, attempt %d", c.number, env.Path, r.number, env.Attempt)
	for _, a := range e.attempts {
		if a.number == env.Attempt {
			w.violation("run %d: attempt %d of %s runs at replica %d, and ran at replica %d at %s", r.number, env.Attempt, env.Path, c.number, a.replica, simClock(a.at))
		}
	}
	w.adopts(r, c, env, e)
	e.attempts = append(e.attempts, simAttempt{number: env.Attempt, replica: c.number, at: time.Now()})
	if s.Once && int64(len(e.attempts)) > 1+w.retries(env) {
		w.violation("run %d: %s may run once and runs %d times", r.number, env.Path, len(e.attempts))
	}
	if s.After != "" {
		path := string(env.Path)
		if sibling := pipeline.Path(path[:strings.LastIndexByte(path, '/')+1] + s.After); !r.ended(sibling) {
			w.violation("run %d: %s begins before the end of %s is durable", r.number, path, sibling)
		}
	}
	w.count.steps++
	return e
}

// retries is how often people have said that a step is to be tried again.
func (w *simWorld) retries(env executor.Env) int64 {
	n := int64(0)
	for _, id := range w.db.asked {
		a := w.db.approvals[id]
		if a.Run == env.Run && a.Path == env.Path && a.Kind == pipeline.ApprovalDecide && len(a.Decisions) > 0 && a.Decisions[len(a.Decisions)-1].Decision == "retry" {
			n++
		}
	}
	return n
}

// ends notes that an execution has come to its end, and tells whether it fails.
func (w *simWorld) ends(e *simEntry, s *simStep) bool {
	w.db.mu.Lock()
	defer w.db.mu.Unlock()
	e.finished++
	return e.finished <= s.Fails
}

// succeeds notes that an execution has a result.
func (w *simWorld) succeeds(env executor.Env, e *simEntry) {
	w.db.mu.Lock()
	defer w.db.mu.Unlock()
	for i := range e.attempts {
		if a := &e.attempts[i]; a.number == env.Attempt {
			a.ended = time.Now()
		}
	}
}

// leaves notes that an execution is over, however it has ended.
func (w *simWorld) leaves(env executor.Env, e *simEntry) {
	w.db.mu.Lock()
	defer w.db.mu.Unlock()
	for i := range e.attempts {
		if a := &e.attempts[i]; a.number == env.Attempt {
			a.over = true
		}
	}
}

// adopts looks whether a step begins again although a process that is well goes on
// with it, or has its result, and has had the time to say so.
func (w *simWorld) adopts(r *simRow, c *simClient, env executor.Env, e *simEntry) {
	if len(e.attempts) == 0 || w.retries(env) > 0 || w.weather.slots < 50 || w.weather.latency > 3*time.Millisecond {
		return
	}
	last := e.attempts[len(e.attempts)-1]
	if !slices.ContainsFunc(r.log, func(rec simRecord) bool {
		return rec.event.Type == pipeline.StepStarted && rec.event.Path == env.Path && rec.event.Attempt == last.number
	}) {
		return // nobody but its holder knows of it
	}
	holder := w.procs[last.replica-1]
	since := holder.client.unwell
	if since.Before(last.at) {
		since = last.at
	}
	if !last.ended.IsZero() {
		since = last.ended
	} else if last.over {
		return // without a result
	}
	offer := 500 * time.Millisecond
	if w.weather.bellLoss > 0 {
		offer = hearing
	}
	if time.Since(since) < offer || holder.shut || holder.client.dead() || holder.client.thaw != nil ||
		holder.client.unwell.After(since) || c.unwell.After(since) {
		return
	}
	w.violation("adoption: run %d: attempt %d of %s begins at replica %d, and replica %d has held attempt %d or its result for %s",
		r.number, env.Attempt, env.Path, c.number, last.replica, last.number, time.Since(since))
}
