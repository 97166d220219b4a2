package agent_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/orchestrator-project/orchestrator/executor"
	"github.com/orchestrator-project/orchestrator/executor/agent"
	"github.com/orchestrator-project/orchestrator/executor/model"
	"github.com/orchestrator-project/orchestrator/executor/step"
	"github.com/orchestrator-project/orchestrator/executor/tool"
	"github.com/orchestrator-project/orchestrator/pipeline"
	"github.com/orchestrator-project/orchestrator/pipeline/spec"
	"github.com/orchestrator-project/orchestrator/store"
	"github.com/orchestrator-project/orchestrator/store/postgres"
	"github.com/orchestrator-project/orchestrator/store/sqlite"
	"github.com/orchestrator-project/orchestrator/store/storetest"
)

// world is what outlives processes: the store, what calls have done, and people.
type world struct {
	t    testing.TB
	open func() store.Store
	eyes store.Store // of the test, and of people

	mu      sync.Mutex
	done    map[string]int    // effects, by tool and argument
	paid    map[string]int    // answers of the model, by agent and turn
	settled map[string]bool   // what is known to be recorded: turns and calls
	points  int               // boundaries that were passed
	kill    int               // the one at which the first process dies; 0: none
	where   string            // which that was
	victim  *process          // the process that can die
	asks    map[string]string // what people were asked: approvals by kind and question
	refund  chan struct{}     // is closed once the gated call has had its effect
	lingers bool              // a free call lasts until then
}

// process is a server: an engine over a store of its own.
type process struct {
	w      *world
	store  store.Store
	ex     *executor.Executor
	cancel context.CancelFunc
	ended  sync.WaitGroup

	mu   sync.Mutex
	dead bool
}

var errDead = &pipeline.Error{Kind: pipeline.Unavailable, Reason: "dead", Text: "the process is dead"}

func (p *process) gone() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.dead
}

// at is a boundary. It reports whether the process is dead from here on.
func (p *process) at(where string) bool {
	if p.gone() {
		return true
	}
	w := p.w
	w.mu.Lock()
	if w.victim != p {
		w.mu.Unlock()
		return false
	}
	w.points++
	dies := w.points == w.kill
	if dies {
		w.where = where
	}
	w.mu.Unlock()
	if dies {
		p.mu.Lock()
		p.dead = true
		p.mu.Unlock()
		p.cancel()
	}
	return dies
}

// mortal is the store as a process sees it that may be dead.
type mortal struct {
	store.Store
	p *process
}

func (m mortal) OpenLane(ctx context.Context, r store.ReplicaID) (store.Lane, error) {
	if m.p.gone() {
		return nil, errDead
	}
	l, err := m.Store.OpenLane(ctx, r)
	if err != nil {
		return nil, err
	}
	return mortalLane{l, m.p}, nil
}

func (m mortal) Heartbeat(ctx context.Context, r store.ReplicaID) (store.Pulse, error) {
	if m.p.gone() {
		return store.Pulse{}, errDead
	}
	return m.Store.Heartbeat(ctx, r)
}

func (m mortal) Send(ctx context.Context, run pipeline.RunID, msg store.Message) error {
	if m.p.gone() {
		return errDead
	}
	return m.Store.Send(ctx, run, msg)
}

type mortalLane struct {
	store.Lane
	p *process
}

// Commit dies before the batch is recorded, or after it, before anybody knows.
func (l mortalLane) Commit(ctx context.Context, b *store.Batch) (store.Result, error) {
	what := boundaries(b)
	if l.p.gone() || what != "" && l.p.at("before "+what) {
		return store.Result{}, store.ErrFenced
	}
	res, err := l.Lane.Commit(ctx, b)
	if err == nil {
		l.p.w.recorded(b)
		if what != "" && l.p.at("after "+what) {
			return store.Result{}, store.ErrFenced
		}
	}
	return res, err
}

// Release of a dead process does nothing: its store is closed, as by its end.
func (l mortalLane) Release(ctx context.Context) error {
	if l.p.gone() {
		return nil
	}
	return l.Lane.Release(ctx)
}

// boundaries names what a batch tells of the agent; empty: nothing.
func boundaries(b *store.Batch) string {
	var list []string
	for i := range b.Append {
		for _, e := range b.Append[i].Events {
			switch c := e.Data.Call; {
			case e.Path != "work":
			case c != nil && e.Type == pipeline.ModelCalled:
				list = append(list, fmt.Sprintf("turn %s %d", c.Agent, c.Turn))
			case c != nil:
				list = append(list, c.Name+" "+c.State)
			default:
				list = append(list, string(e.Type))
			}
		}
	}
	return strings.Join(list, ", ")
}

// recorded notes what is durable.
func (w *world) recorded(b *store.Batch) {
	if w.settled == nil { // nobody asks
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for i := range b.Append {
		for _, e := range b.Append[i].Events {
			c := e.Data.Call
			switch {
			case c == nil || c.State != pipeline.InvocationFinished:
			case e.Type == pipeline.ModelCalled && c.Response != nil:
				w.settled[fmt.Sprintf("%s turn %d %d", b.Append[i].Run, c.In, c.Turn)] = true
			case e.Type == pipeline.ToolCalled:
				w.settled[fmt.Sprintf("%s call %d", b.Append[i].Run, c.N)] = true
			}
		}
	}
}

// begins is a process of its own over the world's store.
func (w *world) begins() *process {
	p := &process{w: w, store: w.open()}
	router := model.NewRouter(model.Config{
		Logger: slog.New(slog.DiscardHandler), Scripted: model.Func(func(ctx context.Context, r *model.Request) (*model.Response, error) { return p.says(ctx, r) }),
		Open: func(model.Endpoint) (model.Provider, error) { return nil, errors.New("no network") },
	})
	p.serve(router, p)
	return p
}

// serve is a process whose agents ask this model and have these tools.
func (w *world) serve(models model.Caller, tools tool.Source) *process {
	p := &process{w: w, store: w.open()}
	p.serve(models, tools)
	return p
}

func (p *process) serve(models model.Caller, tools tool.Source) {
	w := p.w
	actions := step.All(step.Config{})
	ex, err := executor.New(executor.Config{
		Store: mortal{p.store, p}, Actions: actions, Command: step.Command(step.Config{}), Agent: agent.New(agent.Config{Models: models, Tools: tools, Grace: time.Second}),
		Workspaces: w.t.TempDir(), Bundles: w.t.TempDir(), Grace: 50 * time.Millisecond, Heartbeat: 50 * time.Millisecond, Lanes: 1, AdoptionWait: time.Millisecond,
		Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		w.t.Fatal(err)
	}
	p.ex = ex
	ctx, cancel := context.WithCancel(context.Background())
	p.cancel = cancel
	p.ended.Go(func() { _ = ex.Run(ctx) })
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for ex.Ready(ctx) != nil {
		<-tick.C
	}
}

// end waits until nothing of the process is left, and closes its store.
func (p *process) end() {
	p.cancel()
	p.ended.Wait()
	_ = p.store.Close()
}

// says is the model: the worker calls five tools at once, then two, then answers.
func (p *process) says(ctx context.Context, r *model.Request) (*model.Response, error) {
	if p.at(fmt.Sprintf("before asking %s %d", r.Agent, r.Turn)) {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	w := p.w
	w.mu.Lock()
	w.paid[fmt.Sprintf("%s %d", r.Agent, r.Turn)]++
	if w.settled[fmt.Sprintf("%s turn %d %d", r.Run, r.In, r.Turn)] {
		w.t.Errorf("turn %d of %s is paid again", r.Turn, r.Agent)
	}
	w.mu.Unlock()
	if p.at(fmt.Sprintf("after asking %s %d", r.Agent, r.Turn)) {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	switch {
	case r.Agent == "helper" && r.Turn == 0:
		return wants("pay", `{"x":"within"}`)
	case r.Agent == "helper":
		return says("helped: " + strings.Join(results(r), " | "))
	case r.Turn == 0:
		return wants("look", `{"x":1}`, "note", `{"x":2}`, "pay", `{"x":3}`, "refund", `{"x":4}`, "helper", `{"prompt":"help"}`)
	case r.Turn == 1:
		return wants("look", `{"x":5}`, "note", `{"x":6}`)
	}
	var all []string
	for _, m := range r.Messages {
		for _, b := range m.Blocks {
			if b.ToolResult != nil {
				all = append(all, model.Message{Blocks: b.ToolResult.Content}.Text())
			}
		}
	}
	return says(strings.Join(all, "; "))
}

// Open makes the process the source of its agents' tools.
func (p *process) Open(_ context.Context, _ executor.Env, want tool.Want) (tool.Box, error) {
	one := func(name string, effect pipeline.Effect) tool.Tool {
		return tool.Tool{Name: name, Effect: effect, Run: func(ctx context.Context, env executor.Env, c tool.Call) (tool.Result, error) {
			key := fmt.Sprintf("%s %v", name, c.Arguments["x"])
			if p.at("before " + key) {
				<-ctx.Done()
				return tool.Result{}, ctx.Err()
			}
			if p.w.lingers && key == "look 1" {
				select {
				case <-p.w.refund:
				case <-ctx.Done():
					return tool.Result{}, ctx.Err()
				}
			}
			p.w.mu.Lock()
			if p.w.done[key]++; key == "refund 4" && p.w.done[key] == 1 && p.w.refund != nil {
				close(p.w.refund)
			}
			if p.w.settled[fmt.Sprintf("%s call %d", env.Run, c.N)] {
				p.w.t.Errorf("the finished call %s is made again", key)
			}
			p.w.mu.Unlock()
			if p.at("after " + key) {
				<-ctx.Done()
				return tool.Result{}, ctx.Err()
			}
			return tool.Text("did " + key), nil
		}}
	}
	return box{
		one("look", pipeline.EffectPure), one("note", pipeline.EffectAtLeastOnce), one("pay", pipeline.EffectAtMostOnce),
		gated(one("refund", pipeline.EffectAtMostOnce), pipeline.Gate{Always: true}),
		{Name: "helper", Effect: pipeline.EffectIdempotent, Run: func(ctx context.Context, env executor.Env, c tool.Call) (tool.Result, error) {
			return want.Nested(ctx, env, want.Root.Find("helper"), "help", c)
		}},
	}, nil
}

const crashPipeline = `
agents:
  helper: {instructions: Help., tools: [ask_human]}
  worker: {instructions: Work., tools: [{name: helper, agent: helper}]}
steps:
- {id: work, agent: worker, prompt: Do it.}
outputs: {said: '{{ work }}'}`

const crashResult = "did look 1; did note 2; did pay 3; did refund 4; helped: did pay within; did look 5; did note 6"

func submission(t testing.TB, ex *executor.Executor, src string) pipeline.Submission {
	t.Helper()
	plan, _, err := spec.Compile(spec.Source{File: "test.yaml", Text: []byte(src)}, ex.Catalog())
	if err != nil {
		t.Fatalf("compile: %v", err)
	}
	compiled, digest, err := spec.EncodePlan(plan)
	if err != nil {
		t.Fatal(err)
	}
	return pipeline.Submission{Plan: plan, PlanDigest: digest, Compiled: compiled, Source: []byte(src)}
}

// people answer what they are asked: refunds are approved, and of a call in doubt
// they know what became of it.
func (w *world) people(id pipeline.RunID) {
	page, err := w.eyes.Approvals(context.Background(), store.ApprovalQuery{Run: id, Status: pipeline.ApprovalOpen, Limit: 100})
	if err != nil {
		w.t.Fatal(err)
	}
	for _, a := range page.Approvals {
		d := pipeline.Decision{Approval: a.ID, Decision: "approve", Actor: "ann"}
		if a.Kind == pipeline.ApprovalDecide {
			d.Decision = "retry"
			w.mu.Lock()
			for _, key := range []string{"pay 3", "pay within", "refund 4"} {
				name, x, _ := strings.Cut(key, " ")
				if strings.Contains(a.Question, "called "+name+" ") && strings.Contains(a.Question, x) && w.done[key] > 0 {
					d.Decision, d.Value = "done", "did "+key
				}
			}
			w.mu.Unlock()
		}
		w.mu.Lock()
		w.asks[string(a.ID)] = string(a.Kind)
		w.mu.Unlock()
		if _, err := w.eyes.Decide(context.Background(), a.ID, d); err != nil && pipeline.KindOf(err) != pipeline.Conflict {
			w.t.Fatal(err)
		}
	}
}

// story runs the agent with a process that dies at a boundary, and another one
// that takes over; it returns how many boundaries there were.
func story(t *testing.T, open func() store.Store, lingers bool, kill int) int {
	t.Helper()
	w := &world{
		t: t, open: open, eyes: open(), done: map[string]int{}, paid: map[string]int{}, settled: map[string]bool{}, kill: kill, asks: map[string]string{},
		refund: make(chan struct{}), lingers: lingers,
	}
	defer func() { _ = w.eyes.Close() }()
	first := w.begins()
	run, err := first.ex.Submit(t.Context(), submission(t, first.ex, crashPipeline))
	if err != nil {
		t.Fatal(err)
	}
	w.mu.Lock()
	w.victim = first
	w.mu.Unlock()
	var second *process
	defer func() {
		first.end()
		if second != nil {
			second.end()
		}
	}()
	deadline := time.After(5 * time.Minute)
	tick := time.NewTicker(3 * time.Millisecond)
	defer tick.Stop()
	for {
		now, err := w.eyes.Run(t.Context(), run.ID)
		if err != nil {
			t.Fatal(err)
		}
		if now.Status.Final() {
			run = now
			break
		}
		if first.gone() && second == nil {
			first.end()
			second = w.begins()
		}
		w.people(run.ID)
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("it stands still after it died %s: %s %s; %v", w.where, now.Status, now.Reason, w.done)
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if run.Status != pipeline.RunCompleted || run.Outputs["said"] != crashResult {
		t.Errorf("died %s: the run is %s, %v %v", w.where, run.Status, run.Outputs["said"], run.Error)
	}
	for key, n := range w.done {
		most := 1
		if strings.HasPrefix(key, "look") || strings.HasPrefix(key, "note") {
			most = 2
		}
		if n > most || n == 0 {
			t.Errorf("died %s: %s was done %d times", w.where, key, n)
		}
	}
	paid := 0
	for _, n := range w.paid {
		paid += n
	}
	if paid > 7 { // five turns, and up to two that were not recorded: the worker's and the helper's are never under way at once
		t.Errorf("died %s: %v turns were paid", w.where, w.paid)
	}
	if n := slices.Collect(maps.Values(w.asks)); !slices.Contains(n, string(pipeline.ApprovalTool)) || strings.Count(strings.Join(n, " "), "tool") != 1 {
		t.Errorf("died %s: people were asked %v", w.where, n)
	}
	return w.points
}

// stores are openers of processes' own handles on one store each.
func stores(t *testing.T) map[string]func(t *testing.T) func() store.Store {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	return map[string]func(t *testing.T) func() store.Store{
		"sqlite": func(t *testing.T) func() store.Store {
			t.Helper()
			path := filepath.Join(t.TempDir(), "store.db")
			return func() store.Store {
				s, err := sqlite.Open(context.Background(), sqlite.Config{Path: path, Logger: log})
				if err != nil {
					t.Fatal(err)
				}
				return s
			}
		},
		"postgres": func(t *testing.T) func() store.Store {
			t.Helper()
			dsn := storetest.Postgres(t)
			return func() store.Store {
				s, err := postgres.Open(context.Background(), postgres.Config{URL: dsn, LeaseTTL: 2 * time.Second, Logger: log})
				if err != nil {
					t.Fatal(err)
				}
				return s
			}
		},
	}
}

// matrix kills the process at each boundary of the story.
func matrix(t *testing.T, opener func(*testing.T) func() store.Store, lingers bool) {
	t.Helper()
	points := story(t, opener(t), lingers, 0)
	t.Logf("%d boundaries", points)
	if points < 40 {
		t.Errorf("only %d boundaries", points)
	}
	stride := 1
	if testing.Short() {
		stride = 5
	}
	var all sync.WaitGroup
	slots := make(chan struct{}, 8) // they wait more than they compute
	for kill := 1; kill <= points; kill += stride {
		slots <- struct{}{}
		all.Go(func() {
			defer func() { <-slots }()
			t.Run(fmt.Sprint(kill), func(t *testing.T) { story(t, opener(t), lingers, kill) })
		})
	}
	all.Wait()
}

// Promises 2 and 3, down to the single call: a process that dies at any boundary
// of an agent's journal, before or after a commit or an effect, is followed by one
// that finishes what it began, and nothing that was finished is done again. So it
// is where people decide while a free call of the turn goes on, too.
func TestCrashMatrix(t *testing.T) {
	for name, opener := range stores(t) {
		t.Run(name, func(t *testing.T) {
			for _, lingers := range []bool{false, true} {
				t.Run(map[bool]string{false: "quick", true: "lingering"}[lingers], func(t *testing.T) { matrix(t, opener, lingers) })
			}
		})
	}
}

// Two replicas hear of a decision; the call that it approves is made once.
func TestTwoReplicasApplyADecisionOnce(t *testing.T) {
	for name, opener := range stores(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			open := opener(t)
			w := &world{t: t, open: open, eyes: open(), done: map[string]int{}, paid: map[string]int{}, settled: map[string]bool{}, asks: map[string]string{}}
			defer func() { _ = w.eyes.Close() }()
			one, two := w.begins(), w.begins()
			defer one.end()
			defer two.end()
			var runs []pipeline.RunID
			for range 5 {
				run, err := one.ex.Submit(t.Context(), submission(t, one.ex, crashPipeline))
				if err != nil {
					t.Fatal(err)
				}
				runs = append(runs, run.ID)
			}
			deadline := time.After(5 * time.Minute)
			tick := time.NewTicker(3 * time.Millisecond)
			defer tick.Stop()
			for len(runs) > 0 {
				runs = slices.DeleteFunc(runs, func(id pipeline.RunID) bool {
					run, err := w.eyes.Run(t.Context(), id)
					if err != nil {
						t.Fatal(err)
					}
					w.people(id)
					if run.Status.Final() && (run.Status != pipeline.RunCompleted || run.Outputs["said"] != crashResult) {
						t.Errorf("%s %v %v", run.Status, run.Outputs, run.Error)
					}
					return run.Status.Final()
				})
				select {
				case <-tick.C:
				case <-deadline:
					t.Fatal("it stands still")
				}
			}
			if n := w.done["refund 4"]; n != 5 {
				t.Errorf("5 approved calls were made %d times", n)
			}
		})
	}
}
