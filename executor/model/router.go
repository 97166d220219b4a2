package model

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/orchestrator-project/orchestrator/executor"
	"github.com/orchestrator-project/orchestrator/pipeline"
)

// Config is what a Router needs. Zero values mean the defaults named here.
type Config struct {
	Registry *Registry // default: BuiltIn
	// Open makes the Provider of an endpoint; required. Each is opened once.
	Open func(Endpoint) (Provider, error)
	// Scripted answers for all models, whatever they are; nil: each answers for itself.
	Scripted Provider
	Env      func(name string) (string, bool) // where keys of providers are looked up; default: nowhere
	Secret   func(name string) (string, bool) // secrets, for calls that belong to no step; nil: there are none
	Policy   string                           // of selection, where a step names none; default "default"
	LocalURL string                           // of models of the provider local that say none; default http://127.0.0.1:11434/v1
	// LocalPath is the folder with the files of models that servers of this machine
	// serve, absolute; empty: it is not known.
	LocalPath string
	// NoFallback: where a model fails, no other one is asked.
	NoFallback bool
	Host       *Host // what local models may use; nil: it is looked up

	Purse   Purse   // nil: calls are not bounded
	Limiter Limiter // nil: rates are not bounded
	Stats   Stats   // shared statistics; nil: those of this process alone
	// Blob reads what is kept with a run: media of earlier attempts. nil: nothing is.
	Blob func(ctx context.Context, run pipeline.RunID, d pipeline.Digest) ([]byte, error)

	Retry   Retry
	Logger  *slog.Logger          // default: slog.Default
	Metrics prometheus.Registerer // default: none
}

// Router is the Caller of a server. It answers from the step's journal what an
// earlier attempt has asked, else it chooses a model, stays within budgets and
// rates, tries again, falls back to other models, and records what was asked and
// answered before it returns. It is safe for concurrent use.
type Router struct {
	cfg      Config
	log      *slog.Logger
	met      *metrics
	board    *board
	breakers breakers

	mu        sync.Mutex
	providers map[Endpoint]*opened
	probes    map[Endpoint]*probe
	host      *Host
}

var _ Caller = (*Router)(nil)

// NewRouter returns a Router of the given configuration.
func NewRouter(cfg Config) *Router {
	if cfg.Registry == nil {
		cfg.Registry = BuiltIn()
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	if cfg.Env == nil {
		cfg.Env = func(string) (string, bool) { return "", false }
	}
	if cfg.Policy == "" {
		cfg.Policy = DefaultPolicy
	}
	if cfg.LocalURL == "" {
		cfg.LocalURL = "http://127.0.0.1:11434/v1"
	}
	cfg.Retry = cfg.Retry.filled()
	r := &Router{
		cfg: cfg, log: cfg.Logger, met: newMetrics(cfg.Metrics), board: newBoard(cfg.Stats, cfg.Logger),
		providers: map[Endpoint]*opened{}, probes: map[Endpoint]*probe{}, host: cfg.Host,
	}
	r.breakers.changed = r.met.breaker
	return r
}

// Run shares statistics with other replicas until ctx ends.
func (r *Router) Run(ctx context.Context) error { return r.board.run(ctx) }

// Ask implements Caller. The repair of an answer that violates its schema is a
// call of its own.
func (r *Router) Ask(ctx context.Context, env executor.Env, q *Request) (*Response, error) {
	return Checked(ctx, q, func(ctx context.Context, q *Request) (*Response, error) {
		if q.Phase == PhaseRepair {
			r.blame(env, q)
		}
		return r.one(ctx, env, q)
	})
}

// one is one call: from the journal, or made and recorded.
func (r *Router) one(ctx context.Context, env executor.Env, q *Request) (*Response, error) {
	talk := talkOf(env.Journal, q)
	of, frame := talk.frame(q)
	given := talk.digest(q.Messages)
	key := keyOf(q, of, given)
	if env.Journal != nil {
		if e := env.Journal.Take(pipeline.ModelCalled, key); e != nil {
			if a := Recorded(e); a != nil {
				r.met.recalled.Inc()
				return a, nil
			}
		}
	}
	c := &call{router: r, env: env, asked: q, key: key, parts: of, given: given, frame: frame, talk: talk, begun: time.Now()}
	if env.Journal != nil {
		c.n = env.Journal.Next()
	}
	a, err := c.makeResting(ctx)
	if failed := c.record(ctx, a, err); failed != nil {
		return a, failed
	}
	if err != nil {
		return a, r.failure(ctx, err)
	}
	return a, nil
}

// makeResting makes the call while the step's slot is others'.
func (c *call) makeResting(ctx context.Context) (*Response, error) {
	if c.env.Rest != nil {
		defer c.env.Rest(ctx)()
	}
	return c.make(ctx)
}

// blame takes back a part of what the answer was worth that has to be repaired.
func (r *Router) blame(env executor.Env, q *Request) {
	talk := talkOf(env.Journal, q)
	talk.mu.Lock()
	name := talk.model
	talk.mu.Unlock()
	if t, fail := r.find(env, name); name != "" && r.cfg.Scripted == nil && fail == nil {
		r.board.blame(env, t.statName())
	}
}

// failure is how the error of a call reaches the step.
func (r *Router) failure(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if e, ok := errors.AsType[*Error](err); ok {
		f := e.Failure()
		f.RetryAfter = e.RetryAfter.Seconds()
		return f
	}
	return err
}

// refused is the failure of a request that no model could be asked.
func refused(reason, format string, args ...any) *pipeline.Failure {
	f := pipeline.Failuref(pipeline.CategoryModel, format, args...)
	f.Reason = reason
	return f
}

// opened is a provider, or why there is none.
type opened struct {
	Provider
	err error
}

// provider opens an endpoint once.
func (r *Router) provider(at Endpoint) (Provider, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	o := r.providers[at]
	if o == nil {
		if len(r.providers) >= maxProviders { // pipelines may name endpoints of their own
			clear(r.providers)
		}
		p, err := r.cfg.Open(at)
		if err != nil {
			err = fmt.Errorf("open the provider %s: %w", at.Provider, err)
		}
		o = &opened{p, err}
		r.providers[at] = o
	}
	return o.Provider, o.err
}

// maxProviders is how many endpoints are kept open.
const maxProviders = 256
