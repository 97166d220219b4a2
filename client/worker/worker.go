// Package worker makes a process a worker of Orchestrator: it connects to the
// servers, brings actions of its own, carries out the steps that it is given, and
// comes back when a connection breaks, with all that it holds.
//
//	type In struct {
//		Text string `json:"text" doc:"what to shout"`
//	}
//
//	shout := worker.Func("shout", "Writes a text in capitals.", func(ctx context.Context, t *worker.Task, in In) (string, error) {
//		t.Log("stdout", "shouting\n")
//		return strings.ToUpper(in.Text), nil
//	})
//	err := worker.Run(ctx, worker.Config{Servers: []string{"http://127.0.0.1:8080"}, Labels: []string{"eu"}, Actions: []worker.Action{shout}})
//
// A pipeline then says action: shout. Other languages speak the same protocol,
// which docs/guide/workers.md describes.
package worker

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"

	api "github.com/orchestrator-project/orchestrator/proto/orchestrator/v1"
)

// protocol is the version of the protocol that this package speaks.
const protocol = 1

// Config is what a worker needs. Servers and Actions are required.
type Config struct {
	// Servers are addresses of servers, as in http://127.0.0.1:8080. Of several
	// that share their store one is enough: it tells the others.
	Servers []string
	Name    string   // unique among the workers; default: the host's name and the process
	Version string   // of this software, for people
	Labels  []string // what steps may ask for, as in worker: [gpu]
	Slots   int      // attempts at once; default 1
	// Resources bound what the steps that say what they take have together; zero
	// members: without a bound.
	Resources Resources
	Actions   []Action
	// Dir holds the working folders of attempts and the bundles; default: a folder
	// in the system's one for temporary files.
	Dir string
	// Grace is how long running attempts may take once Run is to end; then they
	// are cancelled and given back. Default 30 s.
	Grace  time.Duration
	Logger *slog.Logger      // default: none
	Dial   []grpc.DialOption // besides those that the address asks for
}

// Resources are what steps take.
type Resources struct{ CPU, MemoryGB, GPU float64 }

// Action is something that a worker can do.
type Action struct {
	Name string
	Doc  string
	// Parameters is a JSON Schema of an object, Returns one of the result; nil: any.
	Parameters, Returns json.RawMessage
	// Effect is pure, idempotent, at_least_once (default) or at_most_once: what
	// may be done again after a crash.
	Effect string
	// Known says that the server has the action itself; only the name counts.
	Known bool
	// Run carries out one attempt. It must return soon after ctx has ended. An
	// error is best a *Failure, with which a result may come too.
	Run func(ctx context.Context, t *Task) (Result, error)
}

// Result is what an attempt gives.
type Result struct {
	Output       any // as encoding/json writes it
	Model        string
	InputTokens  int32
	OutputTokens int32
	CostUSD      float64
}

// Failure is why an attempt failed, as the language tells failures apart.
type Failure struct {
	Category   string // failed (default), validation, timeout, resource_exhaustion, rate_limit, tool, system ...
	Reason     string // snake case, for programs
	Message    string
	ExitCode   int
	RetryAfter time.Duration
}

func (f *Failure) Error() string { return f.Message }

// worker is a running one.
type worker struct {
	cfg         Config
	log         *slog.Logger
	incarnation string
	actions     map[string]*Action
	bundles     bundles
	life        context.Context //nolint:containedctx // of attempts: outlives Run's ctx by Grace
	online      context.Context //nolint:containedctx // of links: ends last
	running     sync.WaitGroup
	connecting  sync.WaitGroup

	mu       sync.Mutex
	moved    *sync.Cond // something was sent, or a link has ended
	links    map[string]*link
	attempts map[string]*attempt // by token, until their results are acknowledged
	busy     int
	used     Resources
	draining bool
	leave    context.CancelFunc // begins the drain
	fatal    error
}

// Run is a worker until ctx ends: then it takes nothing new, lets what it has end
// within Grace, gives the rest back, and returns once everything has ended. It
// also returns, with nil, when a server has drained it. An error is something that
// trying again does not heal, as a protocol that the server does not speak.
func Run(ctx context.Context, cfg Config) error {
	w, err := newWorker(cfg)
	if err != nil {
		return err
	}
	return w.run(ctx)
}

func newWorker(cfg Config) (*worker, error) {
	if len(cfg.Servers) == 0 || len(cfg.Actions) == 0 {
		return nil, errors.New("worker: Config needs Servers and Actions")
	}
	if cfg.Slots <= 0 {
		cfg.Slots = 1
	}
	if cfg.Grace <= 0 {
		cfg.Grace = 30 * time.Second
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Name == "" {
		host, _ := os.Hostname()
		host, _, _ = strings.Cut(host, ".")
		cfg.Name = fmt.Sprintf("%s-%d", host, os.Getpid())
	}
	if cfg.Dir == "" {
		cfg.Dir = filepath.Join(os.TempDir(), "orchestrator-worker")
	}
	w := &worker{
		cfg: cfg, log: cfg.Logger, incarnation: rand.Text(), actions: map[string]*Action{},
		links: map[string]*link{}, attempts: map[string]*attempt{},
	}
	w.moved = sync.NewCond(&w.mu)
	w.bundles = bundles{dir: filepath.Join(cfg.Dir, "bundles")}
	for i := range cfg.Actions {
		a := &cfg.Actions[i]
		if a.Name == "" || a.Run == nil || w.actions[a.Name] != nil {
			return nil, fmt.Errorf("worker: action %q needs a name of its own and something to run", a.Name)
		}
		w.actions[a.Name] = a
	}
	return w, nil
}

func (w *worker) run(ctx context.Context) error {
	soft, leave := context.WithCancel(ctx)
	defer leave()
	work, kill := context.WithCancelCause(context.WithoutCancel(ctx))
	defer kill(errHandBack)
	connected, disconnect := context.WithCancel(context.WithoutCancel(ctx))
	defer disconnect()
	w.life, w.online, w.leave = work, connected, leave
	w.mu.Lock()
	for _, address := range w.cfg.Servers {
		w.connect(address) //nolint:contextcheck // its life is online
	}
	w.mu.Unlock()
	<-soft.Done()
	w.drain()
	late := time.AfterFunc(w.cfg.Grace, func() { kill(errHandBack) })
	defer late.Stop()
	w.running.Wait()
	w.settle(w.cfg.Grace)
	disconnect()
	w.connecting.Wait()
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.fatal
}

// drain takes nothing new from now on, and says so.
func (w *worker) drain() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.draining {
		return
	}
	w.draining = true
	w.log.Info("draining", "attempts", w.busy)
	for _, l := range w.links {
		l.say(&api.ConnectRequest{Message: &api.ConnectRequest_Drain{Drain: &api.WorkerDrain{}}})
	}
}

// settle waits until all results are acknowledged and all messages are sent, at
// most so long: without a server there is nobody to wait for.
func (w *worker) settle(most time.Duration) {
	over := false
	late := time.AfterFunc(most, func() {
		w.mu.Lock()
		over = true
		w.mu.Unlock()
		w.moved.Broadcast()
	})
	defer late.Stop()
	w.mu.Lock()
	defer w.mu.Unlock()
	for !over && w.fatal == nil && (len(w.attempts) > 0 || slices.ContainsFunc(slices.Collect(maps.Values(w.links)), func(l *link) bool { return l.size > 0 })) {
		w.moved.Wait()
	}
}

// fail ends the worker: trying again would not help. w.mu is held.
func (w *worker) fail(err error) {
	if w.fatal == nil {
		w.fatal = err
	}
	w.moved.Broadcast()
	w.leave()
}

// hello introduces the worker. w.mu is held.
func (w *worker) hello() *api.WorkerHello {
	h := &api.WorkerHello{
		Protocol: protocol, Name: w.cfg.Name, Incarnation: w.incarnation, Version: w.cfg.Version, Labels: w.cfg.Labels,
		Slots:     int32(min(w.cfg.Slots, 1<<20)), //nolint:gosec // bounded
		Resources: w.cfg.Resources.wire(), Held: slices.Sorted(maps.Keys(w.attempts)), Draining: w.draining,
	}
	for _, name := range slices.Sorted(maps.Keys(w.actions)) {
		a := w.actions[name]
		if a.Known {
			h.Runs = append(h.Runs, name)
			continue
		}
		h.Actions = append(h.Actions, &api.WorkerAction{
			Name: name, Doc: a.Doc, Effect: a.Effect, Parameters: string(a.Parameters), Returns: string(a.Returns),
		})
	}
	return h
}

// heartbeat says how much of the worker is taken. w.mu is held.
func (w *worker) heartbeat() *api.ConnectRequest {
	return &api.ConnectRequest{Message: &api.ConnectRequest_Heartbeat{Heartbeat: &api.WorkerHeartbeat{
		Busy: int32(w.busy), Used: w.used.wire(), //nolint:gosec // no more than there are slots
	}}}
}

// loaded takes a slot, or gives it back, and tells all servers. w.mu is held.
func (w *worker) loaded(n int, r *api.WorkerResources) {
	w.busy += n
	w.used.CPU += float64(n) * r.GetCpu()
	w.used.MemoryGB += float64(n) * r.GetMemoryGb()
	w.used.GPU += float64(n) * r.GetGpu()
	for _, l := range w.links {
		l.say(w.heartbeat())
	}
}

func (r Resources) wire() *api.WorkerResources {
	return &api.WorkerResources{Cpu: r.CPU, MemoryGb: r.MemoryGB, Gpu: r.GPU}
}

// assigned begins an attempt, or gives it back.
func (w *worker) assigned(l *link, o *api.WorkerAssignment) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.attempts[o.GetToken()] != nil {
		return
	}
	why := ""
	switch {
	case w.draining:
		why = "it is draining"
	case w.busy >= w.cfg.Slots:
		why = "it is busy"
	case !w.fits(o.GetResources()):
		why = "its resources are taken"
	case w.actions[o.GetAction()] == nil:
		why = "it has no action " + o.GetAction()
	}
	if why != "" {
		l.say(declined(o.GetToken(), why, false))
		return
	}
	ctx, cancel := context.WithCancelCause(w.life)
	a := &attempt{w: w, order: o, link: l, cancel: cancel, blot: newBlotter(o.GetSecrets())}
	w.attempts[o.GetToken()] = a
	w.loaded(1, o.GetResources())
	w.running.Go(func() {
		defer cancel(nil)
		a.carryOut(ctx)
	})
}

func declined(token, why string, begun bool) *api.ConnectRequest {
	return &api.ConnectRequest{Message: &api.ConnectRequest_Decline{Decline: &api.WorkerDecline{Token: token, Reason: why, Begun: begun}}}
}

// fits reports whether what a step takes is free. w.mu is held.
func (w *worker) fits(r *api.WorkerResources) bool {
	has := w.cfg.Resources
	fit := func(need, used, total float64) bool { return need == 0 || total == 0 || used+need <= total+1e-9 }
	return fit(r.GetCpu(), w.used.CPU, has.CPU) && fit(r.GetMemoryGb(), w.used.MemoryGB, has.MemoryGB) && fit(r.GetGpu(), w.used.GPU, has.GPU)
}

// cancelled ends an attempt that nobody wants any more.
func (w *worker) cancelled(token string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if a := w.attempts[token]; a != nil {
		a.cancel(errCancelled)
	}
}

// acknowledged forgets an attempt whose result is durable.
func (w *worker) acknowledged(token string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if a := w.attempts[token]; a != nil {
		a.dropped = true
		if a.ended {
			delete(w.attempts, token)
		}
		w.moved.Broadcast()
	}
}
