package executor

import (
	"fmt"
	"maps"
	"slices"
	"sync"

	"github.com/orchestrator-project/orchestrator/pipeline"
	"github.com/orchestrator-project/orchestrator/store"
)

// gates are the queues and pipelines that new runs must not pass by, as the
// newest heartbeat has them. While they are not known, all new runs go through
// the queue, where the store knows.
type gates struct {
	mu        sync.Mutex
	news      int // how often they have changed
	known     bool
	queues    map[string]bool
	pipelines map[string]bool
}

// changed forgets what is known; it returns the state of the news.
func (g *gates) changed() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.news++
	g.known = false
}

// asked is to be called before the store is asked.
func (g *gates) asked() (news int, known bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.news, g.known
}

// learned takes what the store has said, unless there were news since it was asked.
func (g *gates) learned(news int, now store.Gates) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if news != g.news {
		return
	}
	g.known = true
	g.queues, g.pipelines = named(now.Queues), named(now.Pipelines)
}

func named(list []string) map[string]bool {
	if len(list) == 0 {
		return nil
	}
	m := make(map[string]bool, len(list))
	for _, name := range list {
		m[name] = true
	}
	return m
}

// stop reports whether a run must go through the queue.
func (g *gates) stop(run *pipeline.Run) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.known {
		return true
	}
	if len(g.queues)+len(g.pipelines) == 0 {
		return false
	}
	queue, _ := store.PlaceOf(run)
	return g.queues[queue] || g.pipelines[run.Pipeline]
}

// lineUp reports whether a new run has to wait for its turn: the lane is full,
// others wait already, or only the store knows whether it may start. An awaited one
// needs no room: it is part of a run that has it.
func (l *lane) lineUp(run *pipeline.Run, awaited bool) bool {
	full := len(l.runs) >= l.ex.cfg.Runs || l.ex.crowded.Load()
	return full && !awaited || run.Concurrency.Key != "" || l.ex.gates.stop(run)
}

// lined notes that a new run stands in the queue. A Selective executor claims
// its own by name.
func (e *Executor) lined(run *pipeline.Run) {
	if e.cfg.Selective {
		e.standing.add(run.ID)
		e.wake(run.ID)
	}
}

// standers are the runs of a Selective executor that stand in a queue: they are
// claimed by name whenever the queue moves.
type standers struct {
	mu   sync.Mutex
	runs map[pipeline.RunID]bool
}

func (s *standers) add(id pipeline.RunID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.runs == nil {
		s.runs = make(map[pipeline.RunID]bool)
	}
	s.runs[id] = true
}

func (s *standers) drop(id pipeline.RunID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.runs, id)
}

func (s *standers) list() []pipeline.RunID {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Collect(maps.Keys(s.runs))
}

// maxSlotKey bounds a concurrency key, in bytes.
const maxSlotKey = store.MaxFairKey

// place fills in where a new run waits for its start: the queue of its
// pipeline, unless it has one of its own, and its concurrency key.
func (p *program) place(run *pipeline.Run) error {
	if run.Queue == "" {
		run.Queue = p.plan.Settings.Queue
	}
	store.Placed(run)
	c := p.plan.Settings.Concurrency
	if c == nil {
		return nil
	}
	bad := func(format string, args ...any) error {
		return &pipeline.Error{Kind: pipeline.Invalid, Reason: "concurrency_key", Text: fmt.Sprintf(format, args...)}
	}
	m := pipeline.NewMachine(p.plan, *run)
	v, fail := evaluation{prog: p, scope: m.Scope("")}.eval(&c.Key, "settings.concurrency.key")
	if fail != nil {
		return bad("%s", fail.Message)
	}
	key, ok := v.(string)
	if !ok && v != nil {
		key = string(pipeline.EncodeValue(v))
	}
	if len(key) > maxSlotKey {
		return bad("settings.concurrency.key gives %d bytes; at most %d are allowed", len(key), maxSlotKey)
	}
	if key != "" {
		run.Concurrency = pipeline.Concurrency{Key: key, Max: int32(c.Max)} //nolint:gosec // the compiler bounds it
	}
	return nil
}
