// Package server is the public face of Orchestrator: the gRPC service
// orchestrator.v1, its REST mirror, the feed of run events, health, metrics
// and the description of the API, all on one port.
//
// REST and the dashboard are clients of the gRPC service over an in-memory
// connection, so that limits, validation, error mapping, logs and metrics live
// once, in the service's interceptors and the front that every HTTP request
// passes. The package converts (convert.go) and maps errors (errors.go) and
// holds no state of runs but the hub's folded logs, which can be lost at any
// time. Runs are started through the Submitter and read from the store.
//
//	s, err := server.New(server.Config{Store: st, Submitter: engine, Catalog: engine.Catalog})
//	go s.Run(ctx)                                // hub and in-memory service
//	s.Serve(ctx, listener, s.Handler(dashboard)) // HTTP/1, HTTP/2 and h2c
package server

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/test/bufconn"

	"github.com/orchestrator-project/orchestrator/pipeline"
	"github.com/orchestrator-project/orchestrator/pipeline/spec"
	orchestratorv1 "github.com/orchestrator-project/orchestrator/proto/orchestrator/v1"
	"github.com/orchestrator-project/orchestrator/store"
)

// Submitter makes runs durable and sees that they are executed.
type Submitter interface {
	// Submit returns the new run, or the one that was made under the same
	// idempotency key for an equal request; another request gives Conflict.
	Submit(ctx context.Context, sub pipeline.Submission) (*pipeline.Run, error)
}

// Preview says what a submission would run.
type Preview interface {
	// DryRun stores and starts nothing.
	DryRun(ctx context.Context, sub pipeline.Submission) ([]pipeline.Planned, error)
}

// Config is what a Server needs. Store, Submitter, Preview, Forks, Archives and Catalog must be set.
type Config struct {
	Store     store.Store
	Submitter Submitter
	Preview   Preview
	Forks     Forks
	Archives  Archives
	// Ready says why this process takes no work now, beyond what the store answers;
	// nil: the store's answer is enough.
	Ready func(ctx context.Context) error
	// Catalog returns the actions that pipelines may use now.
	Catalog func() pipeline.Catalog
	// Skills are those that this server has for pipelines which bring none of the
	// name; nil: it has none.
	Skills Skills
	// Workers takes in the processes that carry out steps elsewhere; nil: none are
	// taken in.
	Workers Workers
	// Budgets are those that runs share, and Recorder makes cassettes of runs.
	Budgets  Budgets
	Recorder Recorder
	// Tools are those that agents may name without describing them.
	Tools []pipeline.ToolSpec
	// Prompt rebuilds the whole request of a call of a model from the events of its
	// step, as a JSON value whose parts are sizes; nil: prompts are not shown.
	Prompt func(events []pipeline.Event, n int32) (map[string]any, error)
	// Models are the language models of this process; nil: it has none to show.
	Models Models
	// Secret gives the secrets that webhooks are signed with, by name. Default: there
	// are none.
	Secret func(name string) (string, bool)
	// RetentionDays is how many days of finished runs are kept; 0: all.
	RetentionDays int
	// Now is the clock that the age of webhooks is told by; default time.Now.
	Now func() time.Time
	// Fills reports whether some model can fill in the <AUTO> tags that have neither
	// an answer nor a fallback; nil: none can, and runs that have any are refused.
	Fills func(context.Context) bool
	// Hosts are names that the server is reached by, without port, besides the
	// loopback names. Requests for other hosts are refused.
	Hosts []string
	// Version is told by /openapi.json and the metrics.
	Version string
	// Profiling serves profiles of this process under /debug/pprof/.
	Profiling bool
	// Traces records spans of requests that change something; nil: nothing is
	// recorded.
	Traces  trace.TracerProvider
	Logger  *slog.Logger         // default: none
	Metrics *prometheus.Registry // default: one of its own
	Limits  Limits
	// Grace is how long requests under way may take when the server shuts
	// down; default 10 s.
	Grace time.Duration
}

// Limits bound what a request may ask for. Zero fields mean the default.
type Limits struct {
	Request     int   // bytes of a request without the files in it; default 8 MiB
	Files       int   // bytes of the files of a request; default 32 MiB
	Inputs      int   // bytes of a run's inputs as JSON; default 1 MiB
	PageDefault int   // entries of a page when none are asked for; default 50
	PageMost    int   // entries of a page; default 500
	Response    int   // bytes of values after which a page ends early; default 8 MiB
	Message     int   // bytes of one message that the server sends; default 64 MiB
	Plans       int64 // bytes of the cache of compiled plans; default 64 MiB
	Folded      int64 // bytes of the hub's folded runs; default 128 MiB
}

func (l *Limits) fill() {
	def := func(p *int, n int) {
		if *p <= 0 {
			*p = n
		}
	}
	def(&l.Request, 8<<20)
	def(&l.Files, 32<<20)
	def(&l.Inputs, 1<<20)
	def(&l.PageDefault, 50)
	def(&l.PageMost, 500)
	def(&l.Response, 8<<20)
	def(&l.Message, 64<<20)
	if l.Plans <= 0 {
		l.Plans = 64 << 20
	}
	if l.Folded <= 0 {
		l.Folded = 128 << 20
	}
}

// Server serves the API. Its methods may be called concurrently.
type Server struct {
	cfg     Config
	log     *slog.Logger
	metrics *metrics
	hub     *hub
	plans   *lru[pipeline.Digest, *compiled]
	needs   *lru[[sha256.Size]byte, []spec.Need]
	health  health
	grpc    *grpc.Server
	memory  *bufconn.Listener
	client  *grpc.ClientConn
	gate    gate
	hooks   chan struct{} // as many as webhooks are under way
	// counting holds one while somebody counts what the store takes.
	counting chan struct{}
	imports  chan struct{} // as many as archives are being taken in
	drained  sync.Once
}

// New returns a server that answers once Run runs.
func New(cfg Config) (*Server, error) {
	if cfg.Store == nil || cfg.Submitter == nil || cfg.Preview == nil || cfg.Forks == nil || cfg.Archives == nil || cfg.Catalog == nil {
		return nil, errors.New("server: Store, Submitter, Preview, Forks, Archives and Catalog must be set")
	}
	if cfg.Skills == nil {
		cfg.Skills = noSkills{}
	}
	if cfg.Secret == nil {
		cfg.Secret = func(string) (string, bool) { return "", false }
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Metrics == nil {
		cfg.Metrics = prometheus.NewRegistry()
	}
	if cfg.Grace <= 0 {
		cfg.Grace = 10 * time.Second
	}
	cfg.Limits.fill()
	s := &Server{cfg: cfg, log: cfg.Logger, memory: bufconn.Listen(1 << 20), hooks: make(chan struct{}, hooksAtOnce), counting: make(chan struct{}, 1), imports: make(chan struct{}, importsAtOnce)}
	s.plans = newLRU[pipeline.Digest, *compiled](cfg.Limits.Plans)
	s.needs = newLRU[[sha256.Size]byte, []spec.Need](cfg.Limits.Plans / 64)
	s.hub = newHub(cfg.Store, cfg.Logger, cfg.Limits.Folded, func(e *pipeline.Event) { s.metrics.event(e) })
	s.hub.plan = s.planOf
	var err error
	if s.metrics, err = newMetrics(cfg.Metrics, s); err != nil {
		return nil, err
	}
	s.grpc = grpc.NewServer(append(s.traces(),
		grpc.UnaryInterceptor(s.unary),
		grpc.StreamInterceptor(s.stream),
		grpc.MaxRecvMsgSize(cfg.Limits.Request+cfg.Limits.Files),
		grpc.MaxSendMsgSize(cfg.Limits.Message),
		grpc.MaxHeaderListSize(headerLimit),
		grpc.KeepaliveParams(keepalive.ServerParameters{MaxConnectionIdle: idleTimeout}),
		// Callers may ask as often as they like whether their connection stands.
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: time.Millisecond, PermitWithoutStream: true}),
	)...)
	orchestratorv1.RegisterRunsServer(s.grpc, runs{Server: s})
	orchestratorv1.RegisterPipelinesServer(s.grpc, pipelines{Server: s})
	orchestratorv1.RegisterApprovalsServer(s.grpc, approvals{Server: s})
	orchestratorv1.RegisterArtifactsServer(s.grpc, artifacts{Server: s})
	orchestratorv1.RegisterSchedulesServer(s.grpc, schedules{Server: s})
	orchestratorv1.RegisterWorkersServer(s.grpc, workers{Server: s})
	orchestratorv1.RegisterModelsServer(s.grpc, models{Server: s})
	orchestratorv1.RegisterCallsServer(s.grpc, calls{Server: s})
	orchestratorv1.RegisterToolsServer(s.grpc, tools{Server: s})
	orchestratorv1.RegisterSkillsServer(s.grpc, skills{Server: s})
	orchestratorv1.RegisterQueuesServer(s.grpc, queues{Server: s})
	orchestratorv1.RegisterBudgetsServer(s.grpc, budgets{Server: s})
	orchestratorv1.RegisterStorageServer(s.grpc, storage{Server: s})
	s.client, err = grpc.NewClient("passthrough:///memory",
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return s.memory.DialContext(ctx) }),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(cfg.Limits.Message), grpc.MaxCallSendMsgSize(cfg.Limits.Message)),
	)
	if err != nil {
		return nil, fmt.Errorf("connect in memory: %w", err)
	}
	return s, nil
}

// Client is a connection to the service in this process, through all
// interceptors. Calls wait until Run runs; after it has ended they fail.
func (s *Server) Client() grpc.ClientConnInterface { return s.client }

// Run hears the store's bells and serves the in-memory connection until ctx
// ends. Then streams end, requests under way get Grace to finish, and Run
// returns. It may be called once.
func (s *Server) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var wg sync.WaitGroup
	wg.Go(func() { s.hub.listen(ctx) })
	served := make(chan error, 1)
	go func() { served <- s.grpc.Serve(s.memory) }()

	var err error
	select {
	case <-ctx.Done():
	case err = <-served: // it ends by itself only when broken
		served <- nil
	}
	s.drain()
	s.gate.close(s.cfg.Grace)
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		s.grpc.GracefulStop()
	}()
	late := time.NewTimer(s.cfg.Grace)
	defer late.Stop()
	select {
	case <-stopped:
	case <-late.C:
		s.grpc.Stop()
		<-stopped
	}
	cancel()
	wg.Wait()
	if serr := <-served; err == nil && serr != nil && !errors.Is(serr, grpc.ErrServerStopped) {
		err = fmt.Errorf("serve in memory: %w", serr)
	}
	if cerr := s.client.Close(); err == nil && cerr != nil {
		err = fmt.Errorf("close the in-memory connection: %w", cerr)
	}
	return err
}

// drain ends the streams and makes the server not ready.
func (s *Server) drain() {
	s.drained.Do(func() { close(s.hub.closing) })
}

// What a connection may take its time for, and the bytes of a request's headers.
const (
	headerTimeout = 10 * time.Second
	idleTimeout   = 2 * time.Minute
	headerLimit   = 64 << 10
)

// Serve serves a handler that Handler has returned on a listener, with
// HTTP/1.1 and HTTP/2, also without TLS, until ctx ends and requests under way
// have finished or Grace has passed. It closes the listener.
func (s *Server) Serve(ctx context.Context, l net.Listener, h http.Handler) error {
	var protocols http.Protocols
	protocols.SetHTTP1(true)
	protocols.SetHTTP2(true)
	protocols.SetUnencryptedHTTP2(true)
	srv := &http.Server{
		Handler:           h,
		Protocols:         &protocols,
		ReadHeaderTimeout: headerTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    headerLimit,
		ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
	}
	sorted := newSorter(l, s.hostAllowed)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer sorted.close(nil)
	wg.Go(sorted.run)
	wg.Go(func() { _ = s.grpc.Serve(&sorted.grpc) }) // it ends with the listener, and its connections with Run
	served := make(chan error, 1)
	go func() { served <- srv.Serve(&sorted.http) }()
	select {
	case err := <-served:
		return fmt.Errorf("serve %s: %w", l.Addr(), err)
	case <-ctx.Done():
	}
	s.drain()
	late, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.cfg.Grace)
	defer cancel()
	if err := srv.Shutdown(late); err != nil {
		_ = srv.Close() // whoever is still there had Grace
	}
	if err := <-served; !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve %s: %w", l.Addr(), err)
	}
	return nil
}

// gate counts requests under way, so that a shutdown can wait for them.
type gate struct {
	mu     sync.Mutex // guards what follows
	inside int
	empty  chan struct{} // not nil: closing; closed when nobody is inside
}

// enter reports whether a request may still begin; leave must follow if so.
func (g *gate) enter() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.empty != nil {
		return false
	}
	g.inside++
	return true
}

func (g *gate) leave() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.inside--
	if g.inside == 0 && g.empty != nil {
		close(g.empty)
	}
}

// close lets nobody in any more and waits for those inside, at most so long.
func (g *gate) close(grace time.Duration) {
	g.mu.Lock()
	g.empty = make(chan struct{})
	if g.inside == 0 {
		close(g.empty)
	}
	g.mu.Unlock()
	late := time.NewTimer(grace)
	defer late.Stop()
	select {
	case <-g.empty:
	case <-late.C:
	}
}
