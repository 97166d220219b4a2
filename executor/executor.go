package executor

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/maypok86/otter/v2"
	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/trace"

	"github.com/orchestrator-project/orchestrator/pipeline"
	"github.com/orchestrator-project/orchestrator/store"
)

// Config is what an Executor needs. Zero values mean the defaults named here.
type Config struct {
	Store   store.Store     // required
	Replica store.ReplicaID // default: a fresh one
	Actions []Action        // the catalogue
	Command Action          // runs command steps; required
	Agent   Action          // works for the steps of agents that are no programs; its Bind nil: there are none
	Filler  Filler          // fills in <AUTO> tags; nil: they need answers or fallbacks
	// Registry is the models that pipelines may name and require; nil: it is not
	// known when they are compiled.
	Registry []pipeline.ModelSpec
	Policy   *pipeline.Policy // what they may do; nil: everything
	// Servers are the MCP servers that any pipeline may name without saying what they
	// are: Name, Allow and Deny of each. Remote and Agent know the rest.
	Servers []pipeline.MCPServer
	// Hidden are values that no run may show, as are keys of Servers, each with the
	// name that is shown in its place. Secrets of pipelines need not be among them.
	Hidden map[string]string

	// Remote is an action that is in no catalogue, by its key: a tool of an MCP server.
	// effect is what the step says, and may be empty. nil: there are
	// none.
	Remote func(key string, effect pipeline.Effect) *Action
	// Left is told of each run that leaves this process: it is over, waits, or has
	// got another owner. It must not block. nil: nobody is.
	Left func(run pipeline.RunID)

	Lanes int // committers, default 2
	Runs  int // runs in memory per lane, default 1000; more wait in the queue
	// Selective lanes take no runs from the queue but those named to Resume.
	Selective bool
	Steps     int // steps that run at once, default 50
	RunSteps  int // steps of one run that run at once, default Steps

	Labels []string // what steps may ask of their worker, as in worker: [gpu]
	// Resources are what the steps that say what they take have together; zero
	// members: the processors and memory of the machine, and no gpu.
	Resources pipeline.Resources

	// Workspaces is where runs get a directory each. Workspace, if set, is the
	// one directory that runs submitted here mean instead.
	Workspaces string
	Workspace  string
	Bundles    string // where the files that travel with pipelines are unpacked, by digest

	Cache    pipeline.ResultCache // of results of equal steps; default: Store
	CacheTTL time.Duration        // for steps that do not say how long theirs are good; default 24 h

	Environ []string                         // what commands inherit; default: PATH, HOME, LANG, TMPDIR, TZ of this process
	Secret  func(name string) (string, bool) // default: ORCHESTRATOR_SECRET_<NAME>

	Heartbeat time.Duration // default 3s
	TTL       time.Duration // of a lease, as the store has it; default 15s
	Grace     time.Duration // for running steps at the end, default 10s

	// AdoptionGrace is how long steps under way may go on after the lease of their
	// lane is lost, so that the next owner can take what they give; default 10 min.
	AdoptionGrace time.Duration
	// AdoptionWait is how long a new owner waits for the attempt of one that may
	// live, before it begins the step again; default 5s. RemoteWait is the same for
	// attempts outside the owner's process; default 30s.
	AdoptionWait, RemoteWait time.Duration
	// Advertise is the address at which workers reach this process, as in
	// http://10.0.0.7:8080; empty: they know it by themselves.
	Advertise string
	// WorkerHeartbeat is how often workers are to be heard of; default 3s.
	WorkerHeartbeat time.Duration

	// Traces records spans of runs, attempts of steps, agents, and calls of models
	// and tools; it must number them by SpanIDs. nil: nothing is recorded.
	Traces trace.TracerProvider
	// TraceContent has spans tell what was said, too: prompts, answers, arguments and
	// results, without secrets.
	TraceContent bool

	Logger  *slog.Logger          // default: slog.Default
	Metrics prometheus.Registerer // default: none
	Now     func() time.Time      // default time.Now
}

// Executor runs pipelines. Make one with New and give it life with Run.
type Executor struct {
	cfg      Config
	log      *slog.Logger
	actions  map[string]*Action
	catalog  pipeline.Catalog
	hidden   redactor // of what no run may show
	met      *metrics
	pool     *pool
	logs     *logBook
	plans    *otter.Cache[pipeline.Digest, *program]
	bundles  holders
	saving   chan struct{} // holds one for each directory that is being saved
	capacity *capacity
	watch    *watcher
	alarm    *alarm
	clock    storeClock
	books    sync.Map // of the forks that a lane is about to take: *book by run
	// sleepers are kept by a Selective executor only.
	sleepers *sleepers
	endings  endings
	fires    *scheduler
	crew     *crew

	work     context.Context //nolint:containedctx // the life of attempts: outlives Run's ctx by Grace
	tasks    sync.WaitGroup
	queued   atomic.Bool // runs may stand in the queue
	crowded  atomic.Bool // more runs stand there than the lanes could take
	gates    gates
	standing standers     // kept by a Selective executor only
	beat     atomic.Int64 // when the newest acknowledged heartbeat was sent: nanoseconds after start, on the monotonic clock
	start    time.Time
	signer   atomic.Pointer[[]byte] // the key of attempt tokens
	// listening: inboxes are being read although no bell has rung.
	listening atomic.Bool
	// orphaned counts attempts whose runs have other owners.
	orphaned sync.WaitGroup

	mu    sync.Mutex
	lanes []*lane
}

// New returns an executor of the given configuration. It does nothing yet.
func New(cfg Config) (*Executor, error) {
	if cfg.Store == nil || cfg.Command.Bind == nil {
		return nil, errors.New("executor: Config needs a Store and a Command")
	}
	setDefault(&cfg.Replica, store.ReplicaID(uuid.Must(uuid.NewV7()).String()))
	setDefault(&cfg.Lanes, 2)
	setDefault(&cfg.Runs, 1000)
	setDefault(&cfg.Steps, 50)
	setDefault(&cfg.RunSteps, cfg.Steps)
	setDefault(&cfg.Heartbeat, 3*time.Second)
	setDefault(&cfg.TTL, 15*time.Second)
	setDefault(&cfg.Grace, 10*time.Second)
	setDefault(&cfg.AdoptionGrace, 10*time.Minute)
	setDefault(&cfg.AdoptionWait, 5*time.Second)
	setDefault(&cfg.RemoteWait, 30*time.Second)
	setDefault(&cfg.WorkerHeartbeat, 3*time.Second)
	setDefault(&cfg.Workspaces, filepath.Join(os.TempDir(), "orchestrator-workspaces"))
	setDefault(&cfg.Bundles, filepath.Join(os.TempDir(), "orchestrator-bundles"))
	setDefault(&cfg.CacheTTL, 24*time.Hour)
	if cfg.Cache == nil {
		cfg.Cache = cfg.Store
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	now := cfg.Now
	cfg.Now = func() time.Time { return now().Truncate(time.Microsecond) } // as the stores keep it
	if cfg.Environ == nil {
		cfg.Environ = Harmless(os.Environ())
	}
	if cfg.Secret == nil {
		cfg.Secret = EnvSecret
	}
	plans, err := otter.New(&otter.Options[pipeline.Digest, *program]{MaximumSize: 512})
	if err != nil {
		return nil, fmt.Errorf("executor: plan cache: %w", err)
	}
	e := &Executor{
		cfg: cfg, log: cfg.Logger, actions: map[string]*Action{}, met: newMetrics(cfg.Metrics), plans: plans,
		work: context.Background(), start: time.Now(), saving: make(chan struct{}, savesAtOnce),
	}
	for value, name := range cfg.Hidden {
		e.hidden.add(name, value)
	}
	e.catalog, err = e.buildCatalog()
	if err != nil {
		return nil, err
	}
	e.capacity = newCapacity(cfg.Resources)
	e.pool = newPool(cfg.Steps, e.grant)
	e.logs = newLogBook(cfg.Store, cfg.Logger, cfg.Now)
	e.watch = newWatcher(e)
	e.alarm = &alarm{now: cfg.Now, most: cfg.Heartbeat, rung: make(chan struct{}, 1)}
	e.fires = newScheduler(e)
	e.crew = newCrew(e)
	e.sleepers = &sleepers{now: cfg.Now, wake: e.wake, runs: map[pipeline.RunID]*time.Timer{}}
	return e, nil
}

func setDefault[T comparable](p *T, v T) {
	var zero T
	if *p == zero {
		*p = v
	}
}

// grant hands a slot of the pool to a run's lane.
func (e *Executor) grant(r *runState) {
	if r.lane.over() {
		e.pool.release()
		return
	}
	r.lane.post(func() { r.do(r.granted) })
}

func (e *Executor) buildCatalog() (pipeline.Catalog, error) {
	c := pipeline.Catalog{Actions: map[string]*pipeline.ActionSpec{}}
	for i := range e.cfg.Actions {
		a := &e.cfg.Actions[i]
		if e.actions[a.Spec.Key] != nil {
			return c, fmt.Errorf("executor: two actions are called %s", a.Spec.Key)
		}
		e.actions[a.Spec.Key] = a
		c.Actions[a.Spec.Key] = &a.Spec
	}
	var err error
	c.Models, c.Policy, c.Servers = e.cfg.Registry, e.cfg.Policy, e.cfg.Servers
	c.Digest, err = catalogDigest(c)
	return c, err
}

func catalogDigest(c pipeline.Catalog) (pipeline.Digest, error) {
	parts := []any{c.Actions, c.Models, c.Policy}
	if len(c.Servers) > 0 {
		parts = append(parts, c.Servers)
	}
	text, err := json.Marshal(parts) // sorted by key; what is secret of them are names
	if err != nil {
		return "", fmt.Errorf("executor: describe actions: %w", err)
	}
	sum := sha256.Sum256(text)
	return pipeline.Digest("sha256:" + hex.EncodeToString(sum[:])), nil
}

// Catalog is the actions that pipelines may name: this process's own and those
// that workers have brought since it began.
func (e *Executor) Catalog() pipeline.Catalog { return e.crew.extended() }

// Run owns lanes and executes runs until ctx ends; then it lets running steps
// finish within Grace, hands its runs over, and returns once every goroutine
// that it started has ended. It waits for a store that is away.
func (e *Executor) Run(ctx context.Context) error {
	work, kill := context.WithCancelCause(context.WithoutCancel(ctx))
	defer kill(errStopped)
	e.work = work
	var all sync.WaitGroup
	logs, stopLogs := context.WithCancel(context.WithoutCancel(ctx))
	all.Go(func() { e.logs.run(logs) })
	all.Go(func() { e.heartbeat(ctx) })
	all.Go(func() { e.fires.run(ctx) })
	all.Go(func() {
		if err := e.cfg.Store.Listen(ctx, e.heard); err != nil && ctx.Err() == nil {
			e.log.Error("bells are not heard", "err", err)
		}
	})
	var lanes sync.WaitGroup
	for range e.cfg.Lanes {
		lanes.Go(func() { e.keepLane(ctx) })
	}
	late := make(chan struct{})
	defer context.AfterFunc(ctx, func() { time.AfterFunc(e.cfg.Grace, func() { close(late) }) })()
	lanes.Wait()
	orphans := make(chan struct{})
	all.Go(func() { e.orphaned.Wait(); close(orphans) })
	select {
	case <-orphans:
	case <-late:
	}
	kill(errStopped)
	e.alarm.stop()
	e.sleepers.stop()
	e.crew.stop()
	e.tasks.Wait()
	stopLogs()
	all.Wait()
	return nil
}

// keepLane serves one lane after the other: a lane that lost its lease is
// replaced by a new one.
func (e *Executor) keepLane(ctx context.Context) {
	wait := 50 * time.Millisecond
	for ctx.Err() == nil {
		opened := time.Since(e.start)
		held, err := e.openLane(ctx)
		if err != nil {
			if ctx.Err() == nil {
				e.log.Warn("no lane; trying again", "err", err)
			}
			select {
			case <-ctx.Done():
			case <-time.After(wait):
				wait = min(2*wait, 3*time.Second)
			}
			continue
		}
		wait = 50 * time.Millisecond
		if err := e.announce(ctx); err != nil && ctx.Err() == nil {
			e.log.Warn("workers will not find this server by themselves", "err", err)
		}
		if news, known := e.gates.asked(); !known {
			if p, err := e.renew(ctx); err == nil {
				e.gates.learned(news, p.Gates)
			}
		}
		l := newLane(e)
		l.epoch, l.opened = held.Epoch(), opened
		e.mu.Lock()
		e.lanes = append(e.lanes, l)
		e.mu.Unlock()
		l.run(ctx, held)
		e.mu.Lock()
		e.lanes = slices.DeleteFunc(e.lanes, func(x *lane) bool { return x == l })
		e.mu.Unlock()
	}
}

// openLane takes a lease. Whoever has one can sign tokens.
func (e *Executor) openLane(ctx context.Context) (store.Lane, error) {
	if _, err := e.key(ctx); err != nil {
		return nil, err
	}
	return e.cfg.Store.OpenLane(ctx, e.cfg.Replica)
}

// heartbeat renews the leases and sees what waits for a lane.
func (e *Executor) heartbeat(ctx context.Context) {
	tick := time.NewTicker(e.cfg.Heartbeat)
	defer tick.Stop()
	e.reclaim(ctx) // what a dead process left behind goes on at once
	listen := false
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			listen = true
		case <-e.alarm.rung:
		}
		news, _ := e.gates.asked()
		p, err := e.renew(ctx)
		if err != nil {
			if ctx.Err() == nil {
				e.log.Warn("heartbeat failed", "err", err)
				e.alarm.set(e.cfg.Now().Add(min(e.cfg.Heartbeat, beatAgain)))
			}
			continue
		}
		e.gates.learned(news, p.Gates)
		if listen {
			listen = false
			e.listenAgain()
		}
		if p.Expired {
			e.reclaim(ctx)
		}
		if p.Queued {
			e.claim()
		}
		if !e.cfg.Selective && (!p.Queued || p.NextDue.After(e.clock.theirs(e.cfg.Now()))) {
			e.alarm.set(e.clock.ours(p.NextDue))
		}
		if !e.cfg.Selective {
			e.fires.heard(p)
		}
		if p.Lost {
			e.each(func(l *lane) { l.post(func() { l.check = true }) })
		}
	}
}

func (e *Executor) reclaim(ctx context.Context) {
	n, err := e.cfg.Store.Reclaim(ctx)
	switch {
	case err != nil && ctx.Err() == nil:
		e.log.Warn("dead lanes not reclaimed", "err", err)
	case n > 0:
		e.log.Info("took over the runs of a lost process", "runs", n)
		e.claim()
	}
}

// claim lets the lanes look at the queue.
func (e *Executor) claim() {
	e.queued.Store(true)
	e.each(func(l *lane) { l.post(func() { l.claim = true }) })
}

func (e *Executor) each(f func(*lane)) {
	e.mu.Lock()
	lanes := slices.Clone(e.lanes)
	e.mu.Unlock()
	for _, l := range lanes {
		f(l)
	}
}

// Ready reports why this executor cannot make progress, or nil.
func (e *Executor) Ready(context.Context) error {
	e.mu.Lock()
	n := len(e.lanes)
	e.mu.Unlock()
	if n == 0 {
		return &pipeline.Error{Kind: pipeline.Unavailable, Reason: "no_lane", Text: "no lane yet: the database has not answered"}
	}
	age := time.Since(e.start)
	e.each(func(l *lane) { age = min(age, l.silent()) })
	if age > e.cfg.TTL {
		return &pipeline.Error{Kind: pipeline.Unavailable, Reason: "no_heartbeat", Text: fmt.Sprintf("the database has not acknowledged a heartbeat for %s", age.Round(time.Second))}
	}
	return nil
}

func sortedKeys(m map[string]any) []any {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	out := make([]any, len(keys))
	for i, k := range keys {
		out[i] = k
	}
	return out
}
