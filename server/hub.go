package server

import (
	"container/list"
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/orchestrator-project/orchestrator/pipeline"
	"github.com/orchestrator-project/orchestrator/store"
)

// hub keeps folded runs for those who look at them: one fold of a run's log,
// however many watch it. It is woken by the store's bells and never polls; a
// bell says only that there is something to read, and what is read comes from
// the store by sequence number, so that a bell too many or too few in another
// process changes nothing.
//
// Memory is bounded, one half for encoded events, which are dropped when nobody
// has read them for long and made again when wanted, one half for views, of
// which those that nobody looks at are dropped.
type hub struct {
	store   store.Store
	log     *slog.Logger
	limit   int64
	seen    func(*pipeline.Event)                                          // told of every event that is folded first
	closing chan struct{}                                                  // closed when the server shuts down
	plan    func(context.Context, pipeline.Digest) (*pipeline.Plan, error) // nil: folds begin with the log's beginning

	mu       sync.Mutex // guards what follows; never held while the store is asked
	runs     map[pipeline.RunID]*folded
	order    list.List // of *folded, newest use first
	segments list.List // of *segment that hold events, newest use first
	viewed   int64     // bytes of views
	encoded  int64     // bytes of encoded events
	asking   bool      // whoever watches is woken by the clock
	fresh    fresh
}

func newHub(st store.Store, log *slog.Logger, limit int64, seen func(*pipeline.Event)) *hub {
	return &hub{
		store: st, log: log, limit: limit, seen: seen,
		closing: make(chan struct{}), runs: map[pipeline.RunID]*folded{}, fresh: newFresh(limit / 8),
	}
}

// listen hears bells until ctx ends. When the store's ear fails it tries
// again, and takes all bells in between for lost.
func (h *hub) listen(ctx context.Context) {
	const pause = time.Second
	for ctx.Err() == nil {
		err := h.store.Listen(ctx, func(b store.Bell) {
			h.bell(b)
			if b.All {
				h.ask() // the bells may be lost for good
			}
		})
		if ctx.Err() != nil {
			return
		}
		h.log.Warn("listening to the store ended", "err", err)
		h.bell(store.Bell{All: true})
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
		h.bell(store.Bell{All: true})
	}
}

// bell wakes those who wait for the runs that it names.
func (h *hub) bell(b store.Bell) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if b.All {
		h.fresh = newFresh(h.fresh.limit)
		for _, r := range h.runs {
			r.miss()
			r.events.ring()
			r.logs.ring()
		}
		return
	}
	for _, run := range b.Created {
		// What stands in line may do so for long, and another process may take it.
		if h.runs[run.ID] == nil && run.Status != pipeline.RunQueued {
			h.fresh.add(run)
		}
	}
	for i := range b.Appended {
		a := &b.Appended[i]
		if r := h.runs[a.Run]; r != nil {
			r.push(a.Events)
			r.events.ring()
		} else {
			h.fresh.append(a.Run, a.Events)
		}
	}
	for _, id := range b.Runs {
		if r := h.runs[id]; r != nil {
			r.miss()
			r.events.ring()
		} else {
			h.fresh.drop(id) // it goes on in another process
		}
	}
	for _, id := range b.Logs {
		if r := h.runs[id]; r != nil {
			r.logs.ring()
		}
	}
}

// open returns the folded run, which stays until release. The run must exist.
func (h *hub) open(ctx context.Context, id pipeline.RunID) (*folded, error) {
	h.mu.Lock()
	r := h.runs[id]
	if r == nil {
		r = newFolded(h, id)
		if run, events, ok := h.fresh.take(id); ok {
			r.pushed, r.missed = events, false
			r.start(run)
			h.viewed += r.bytes
		}
		h.runs[id] = r
		r.element = h.order.PushFront(r)
	} else {
		h.order.MoveToFront(r.element)
	}
	r.users++
	h.mu.Unlock()
	h.ask()
	if err := r.begin(ctx); err != nil {
		h.release(r)
		return nil, err
	}
	return r, nil
}

// release gives back what open gave.
func (h *hub) release(r *folded) {
	h.mu.Lock()
	defer h.mu.Unlock()
	r.users--
	if r.users == 0 && !r.begun.Load() {
		h.forget(r)
	}
	h.trim()
}

// charge accounts for memory that r has grown by.
func (h *hub) charge(r *folded, bytes int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	r.bytes += bytes
	h.viewed += bytes
	h.trim()
}

// forget drops a run; h.mu is held.
func (h *hub) forget(r *folded) {
	delete(h.runs, r.id)
	h.order.Remove(r.element)
	h.viewed -= r.bytes
	r.bytes = 0
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, s := range r.segments {
		if s.element != nil {
			h.segments.Remove(s.element)
			h.encoded -= s.bytes
			s.element = nil
		}
	}
}

// hold accounts for a segment whose events have been made or grown.
func (h *hub) hold(s *segment, bytes int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.runs[s.run.id] != s.run {
		return // forgotten meanwhile
	}
	s.bytes += bytes
	h.encoded += bytes
	if s.element == nil {
		s.element = h.segments.PushFront(s)
	} else {
		h.segments.MoveToFront(s.element)
	}
	h.trim()
}

// touch notes that a segment was read.
func (h *hub) touch(s *segment) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if s.element != nil {
		h.segments.MoveToFront(s.element)
	}
}

// trim brings both halves below their limit if it can; h.mu is held.
func (h *hub) trim() {
	for e := h.segments.Back(); e != nil && h.encoded > h.limit/2; {
		before := e.Prev()
		if s, ok := e.Value.(*segment); ok && s.drop() {
			h.segments.Remove(e)
			s.element = nil
			h.encoded -= s.bytes
			s.bytes = 0
		}
		e = before
	}
	// The run used last stays, however long it is: its reader comes back.
	for e := h.order.Back(); e != nil && e != h.order.Front() && h.viewed > h.limit/2; {
		before := e.Prev()
		if r, ok := e.Value.(*folded); ok && r.users == 0 {
			h.forget(r)
		}
		e = before
	}
}

// isClosing reports whether the server shuts down.
func (h *hub) isClosing() bool {
	select {
	case <-h.closing:
		return true
	default:
		return false
	}
}

// sizes is what the hub holds, for the metrics.
func (h *hub) sizes() (runs, users int, bytes int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, r := range h.runs {
		users += r.users
	}
	return len(h.runs), users, h.viewed + h.encoded
}

// signal wakes all who wait for it.
type signal struct {
	mu  sync.Mutex // guards what follows
	gen uint64
	ch  chan struct{}
}

func (s *signal) ring() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.gen++
	if s.ch != nil {
		close(s.ch)
		s.ch = nil
	}
}

// state returns the number of rings so far and a channel that the next one closes.
func (s *signal) state() (gen uint64, next <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ch == nil {
		s.ch = make(chan struct{})
	}
	return s.gen, s.ch
}
