package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"

	"github.com/orchestrator-project/orchestrator/executor"
	"github.com/orchestrator-project/orchestrator/executor/agent"
	"github.com/orchestrator-project/orchestrator/executor/cache"
	"github.com/orchestrator-project/orchestrator/executor/model"
	"github.com/orchestrator-project/orchestrator/executor/model/budget"
	"github.com/orchestrator-project/orchestrator/executor/model/cassette"
	"github.com/orchestrator-project/orchestrator/executor/model/script"
	"github.com/orchestrator-project/orchestrator/executor/sandbox"
	"github.com/orchestrator-project/orchestrator/executor/step"
	"github.com/orchestrator-project/orchestrator/executor/tool"
	"github.com/orchestrator-project/orchestrator/executor/tool/mcp"
	"github.com/orchestrator-project/orchestrator/pipeline"
	"github.com/orchestrator-project/orchestrator/server"
	"github.com/orchestrator-project/orchestrator/store"
	"github.com/orchestrator-project/orchestrator/store/postgres"
	"github.com/orchestrator-project/orchestrator/store/sqlite"
)

// This file is the one place that names every implementation: the stores, the
// model providers, the step kinds, and how the rooms that never see each other
// are joined.

// openStore opens the store that the settings name.
func openStore(ctx context.Context, cfg *config, log *slog.Logger) (store.Store, error) {
	if cfg.Storage.Backend == "postgres" {
		if cfg.Storage.ConnectionString == "" {
			return nil, &failure{
				code: exitInvalid, what: "storage.backend is postgres, but there is no connection_string",
				fix: []string{"set DATABASE_URL, as in postgres://user@host:5432/orchestrator"},
			}
		}
		s, err := postgres.Open(ctx, postgres.Config{URL: cfg.Storage.ConnectionString, PoolSize: cfg.Storage.PoolSize, Logger: log})
		if err != nil {
			return nil, storeFailure("cannot use the database "+redactURL(cfg.Storage.ConnectionString), err,
				"check that Postgres runs and that DATABASE_URL names it; orchestrator doctor looks closer")
		}
		return s, nil
	}
	s, err := sqlite.Open(ctx, sqlite.Config{Path: cfg.Storage.Path, Logger: log})
	if err != nil {
		return nil, storeFailure("cannot use the store "+cfg.Storage.Path, err,
			"ORCHESTRATOR_HOME names another home; orchestrator doctor looks closer")
	}
	return s, nil
}

func storeFailure(what string, err error, fix string) error {
	f := &failure{code: exitRefused, what: what, why: err.Error(), fix: []string{fix}}
	if pe, ok := errors.AsType[*pipeline.Error](err); ok {
		f.why = pe.Text
	}
	return f
}

// redactURL is a database's URL without its password.
func redactURL(text string) string {
	scheme, rest, ok := strings.Cut(text, "://")
	if !ok {
		return "of the connection string"
	}
	rest, _, _ = strings.Cut(rest, "?") // its parameters may hold one
	if i := strings.LastIndex(rest, "@"); i >= 0 {
		user, _, _ := strings.Cut(rest[:i], ":")
		rest = user + rest[i:]
	}
	return scheme + "://" + rest
}

// provider is the model that the settings name, or nil.
func provider(scriptFile string) (model.Provider, error) {
	if scriptFile == "" {
		return nil, nil //nolint:nilnil // steps that ask a model then say that there is none
	}
	text, err := readFile("script", scriptFile)
	if err != nil {
		return nil, err
	}
	p, err := script.Parse(scriptFile, text)
	if err != nil {
		return nil, unreadable("the script "+scriptFile+" is not valid", err)
	}
	return p, nil
}

// house is the rooms of this process, joined: a store, an engine over it, and
// the API over both.
type house struct {
	store   store.Store
	engine  *executor.Executor
	server  *server.Server
	budgets *budget.Purse // nil: there is no store
	metrics *prometheus.Registry

	stops []func() // in the order of their calling
}

// plan says what house is wanted.
type plan struct {
	cfg       *config
	log       *slog.Logger
	home      string   // what belongs to this installation
	bare      bool     // no store: only what needs none
	lanes     bool     // the engine executes runs
	queue     bool     // it takes them from the queue too, not only what it is given
	workspace string   // the directory of runs that are submitted here
	environ   []string // what their commands inherit
	secret    func(name string) (string, bool)
	env       func(name string) (string, bool) // where keys of models are found
	grace     time.Duration
	collects  bool // the house decides how often its heap is collected
}

// build joins the rooms and brings them to life. The house must be closed.
func build(ctx context.Context, p plan) (*house, error) {
	h := &house{metrics: prometheus.NewRegistry()}
	if err := h.build(ctx, p); err != nil {
		h.close()
		return nil, err
	}
	return h, nil
}

func (h *house) build(ctx context.Context, p plan) error {
	traces, err := h.traces(ctx, p)
	if err != nil {
		return err
	}
	switch {
	case p.bare:
		h.store = noStore{}
	default:
		if h.store, err = openStore(ctx, p.cfg, p.log); err != nil {
			return err
		}
		own := h.store
		h.stops = append(h.stops, func() {
			if err := own.Close(); err != nil {
				p.log.Warn("store not closed", "err", err)
			}
		})
	}
	results, err := h.results(p)
	if err != nil {
		return err
	}
	boxes, err := sandboxes(p.cfg, p.log, p.home, p.cfg.Storage.Path)
	if err != nil {
		return err
	}
	policy, err := policyOf(p.cfg)
	if err != nil {
		return err
	}
	models, registry, err := h.router(p)
	if err != nil {
		return err
	}
	steps := step.Config{Model: models, Sandbox: boxes}
	actions := step.All(steps)
	own, err := installed(p.home, p.secret, p.env)
	if err != nil {
		return err
	}
	servers := mcp.NewPool(mcp.Config{Models: models, Sandbox: boxes, Installed: own, Logins: loginsOf(p.home), Version: version, Logger: p.log})
	h.stops = append(h.stops, servers.Close)
	tools, err := toolsOf(p.cfg, actions, servers, boxes, h.store)
	if err != nil {
		return err
	}
	exec := p.cfg.Execution
	lanes := min(2, exec.MaxConcurrentPipelines)
	if !p.queue {
		lanes = 1
	}
	h.engine, err = executor.New(executor.Config{
		Store: h.store, Actions: actions, Command: step.Command(steps), Agent: agent.New(agent.Config{Models: models, Tools: tool.New(tools), Window: registry.Window}), Filler: model.Auto{Models: models, Names: registry.Names}, Policy: policy, Registry: checkedModels(p.cfg, registry),
		Remote: servers.Action, Left: servers.Leave, Servers: known(own), Hidden: hidden(own),
		Lanes: lanes, Runs: exec.MaxConcurrentPipelines / lanes, Selective: !p.queue,
		Labels: exec.Labels, Steps: exec.MaxConcurrentTasks, RunSteps: min(exec.MaxTasksPerRun, exec.MaxConcurrentTasks),
		Workspaces: exec.WorkspaceRoot, Workspace: p.workspace, Bundles: filepath.Join(p.home, "bundles"), Environ: p.environ, Secret: p.secret,
		Cache: results, CacheTTL: time.Duration(p.cfg.Cache.TTLSeconds) * time.Second,
		Grace: exec.Grace, Logger: p.log, Metrics: h.metrics, Now: skewed(), Traces: traces, TraceContent: p.cfg.Monitoring.TracingContent,
		Advertise: p.cfg.Server.Advertise, RemoteWait: exec.AdoptionWait, AdoptionGrace: exec.AdoptionGrace, WorkerHeartbeat: exec.WorkerHeartbeat,
	})
	if err != nil {
		return err
	}
	var ready func(context.Context) error
	if p.lanes {
		ready = h.engine.Ready
	}
	h.server, err = server.New(server.Config{
		Store: h.store, Submitter: h.engine, Preview: h.engine, Forks: h.engine, Archives: h.engine, Ready: ready, Catalog: h.engine.Catalog, Skills: skillsOf(p.home), Hosts: p.cfg.Server.Hosts, RetentionDays: p.cfg.Storage.RetentionDays,
		Version: version, Logger: p.log, Traces: traces, Metrics: h.metrics, Grace: p.grace, Profiling: p.cfg.Monitoring.Profiling, Secret: hookSecret(p.secret), Workers: crewOf(h.engine, p.lanes && p.queue), Models: models, Prompt: model.Prompt, Tools: append(tool.Tools(tools), offered(own)...), Fills: models.Able,
		Budgets: h.budgets, Recorder: cassette.Recorder{Store: h.store, Secrets: keysOf(os.Environ())},
	})
	if err != nil {
		return err
	}
	if p.queue {
		h.start(ctx, "memory", p.log, memory{own: p.collects, log: p.log}.run)
	}
	if !p.bare {
		h.start(ctx, "models", p.log, models.Run)
		h.start(ctx, "budgets", p.log, h.budgets.Run)
	}
	h.start(ctx, "api", p.log, h.server.Run)
	if p.lanes && p.queue {
		h.start(ctx, "retention", p.log, executor.NewRetention(h.engine, p.cfg.Storage.RetentionDays).Run)
	}
	if p.lanes {
		h.start(ctx, "engine", p.log, h.engine.Run)
	}
	return nil
}

// clockSkew is by how much the clock of this process is wrong, as a duration.
// Tests set it when they link a server.
var clockSkew string

func skewed() func() time.Time {
	skew, err := time.ParseDuration(clockSkew)
	if err != nil {
		return time.Now
	}
	return func() time.Time { return time.Now().Add(skew) }
}

// results is where results of equal steps are kept: in memory, in Redis if the
// settings name one, and in the store. Where they say so, nowhere.
func (h *house) results(p plan) (pipeline.ResultCache, error) {
	var layers []cache.Layer
	if c := p.cfg.Cache; c.Enabled && !p.bare {
		memory, err := cache.Memory(c.MemoryCacheSize)
		if err != nil {
			return nil, err
		}
		layers = append(layers, memory)
		if c.RedisURL != "" {
			redis, err := cache.OpenRedis(c.RedisURL, c.CompressionEnabled)
			if err != nil {
				return nil, &failure{code: exitInvalid, what: "cannot use cache.redis_url", why: err.Error()}
			}
			h.stops = append(h.stops, func() {
				if err := redis.Close(); err != nil {
					p.log.Warn("Redis not closed", "err", err)
				}
			})
			layers = append(layers, redis.Layer())
		}
		layers = append(layers, cache.Layer{Name: "store", Cache: h.store})
	}
	return cache.New(p.log, h.metrics, layers...)
}

// withoutModels are the actions, and the one behind command steps, that need no
// model.
func withoutModels(boxes *sandbox.Set) []executor.Action {
	steps := step.Config{Sandbox: boxes}
	return slices.DeleteFunc(append(step.All(steps), step.Command(steps)), func(a executor.Action) bool { return a.Spec.Model })
}

// crewOf is who takes workers in: an engine that takes runs from the queue.
func crewOf(e *executor.Executor, serves bool) server.Workers {
	if !serves {
		return nil
	}
	return e
}

// hookSecret finds the secrets of webhooks where the engine finds those of steps.
func hookSecret(own func(string) (string, bool)) func(string) (string, bool) {
	if own == nil {
		return executor.EnvSecret
	}
	return own
}

// start gives something a life that ends when the house is closed, before
// those that were started earlier.
func (h *house) start(ctx context.Context, name string, log *slog.Logger, run func(context.Context) error) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := run(ctx); err != nil {
			log.Error("stopped", "part", name, "err", err)
		}
	})
	h.stops = append(h.stops, func() { cancel(); wg.Wait() })
}

// close ends everything, the newest first. Running steps get their grace; runs
// that are not over can be continued by another process.
func (h *house) close() {
	for _, stop := range slices.Backward(h.stops) {
		stop()
	}
	h.stops = nil
}

// closeEngine ends only the engine: its runs are handed over while the API
// still answers.
func (h *house) closeEngine() {
	h.stops[len(h.stops)-1]()
}

// conn is the API in this process.
func (h *house) conn() grpc.ClientConnInterface { return h.server.Client() }

// ready waits until the engine can take runs.
func (h *house) ready(ctx context.Context) error {
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	late := time.NewTimer(15 * time.Second)
	defer late.Stop()
	for {
		err := h.engine.Ready(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return errInterrupted
		case <-late.C:
			return err
		}
	}
}

// noStore is for verbs that only compile: there is nothing to read or write.
type noStore struct{ store.Store }

// Listen hears nothing.
func (noStore) Listen(ctx context.Context, _ func(store.Bell)) error {
	<-ctx.Done()
	return nil
}

// logger writes what the operator should know.
func logger(w io.Writer, cfg *config, json bool) *slog.Logger {
	var level slog.Level
	if err := level.UnmarshalText([]byte(cfg.Monitoring.LogLevel)); err != nil {
		level = slog.LevelInfo
	}
	opts := &slog.HandlerOptions{Level: level}
	var h slog.Handler = slog.NewTextHandler(w, opts)
	if json {
		h = slog.NewJSONHandler(w, opts)
	}
	log := slog.New(h)
	if cfg.Environment != "" {
		log = log.With("environment", cfg.Environment)
	}
	return log
}

// workspaceDir is the directory that a run's relative paths mean, absolute.
func workspaceDir(given string) (string, error) {
	if given == "" {
		given = "."
	}
	dir, err := filepath.Abs(given)
	if err != nil {
		return "", fmt.Errorf("find the workspace: %w", err)
	}
	info, err := os.Stat(dir)
	switch {
	case err != nil:
		return "", &failure{code: exitInvalid, what: "cannot use the workspace " + given, why: cause(err), fix: []string{"mkdir -p " + shellWord(given)}}
	case !info.IsDir():
		return "", &failure{code: exitInvalid, what: "the workspace " + given + " is not a directory"}
	}
	return dir, nil
}
