package server

import (
	"container/list"
	"context"
	"fmt"
	"sort"
	"sync"
	"sync/atomic"

	"github.com/orchestrator-project/orchestrator/pipeline"
	orchestratorv1 "github.com/orchestrator-project/orchestrator/proto/orchestrator/v1"
)

// The sizes of what a folded run keeps and does at once.
const (
	segmentEvents = 512     // events of a segment, at most
	segmentBytes  = 1 << 20 // a segment that has grown over this takes no more
	cursorEvents  = 4096    // events between two cursors
	stepBytes     = 768     // what a folded step weighs besides its values
	eventBytes    = 256     // what an encoded event weighs besides its data
	runBytes      = 4096    // what a folded run weighs besides its steps
)

// always is a count of rings that is never reached: the store is asked even if
// no bell was heard.
const always = ^uint64(0)

// folded is one run as the hub keeps it: the view of its newest events, and
// its log as encoded events in segments. Segments are filled in order, once,
// and may lose their events to save memory; they are then made again from the
// nearest cursor, a view of the run at an earlier event.
type folded struct {
	hub          *hub
	id           pipeline.RunID
	events, logs signal

	// Guarded by hub.mu.
	users   int
	bytes   int64
	element *list.Element

	// turn is held (by sending to it) while events are read from the store; it
	// guards the views. A channel, so that waiting for it ends with a context.
	turn    chan struct{}
	view    *pipeline.View
	cursors []cursor // by Seq
	replay  cursor   // where the last remaking of a segment ended; no view: none did
	early   int      // steps that began before the snapshot that the view began with
	held    int      // of these, those that the view holds, ahead of the others
	read    uint64   // 1 + rings of events before the last reading that reached the log's end

	begun atomic.Bool // view is set

	mu       sync.Mutex       // guards what follows; taken after hub.mu
	pushed   []pipeline.Event // committed in this process and not folded yet
	missed   bool             // the store may hold events that were not pushed
	segments []*segment
	seq      int32 // of the newest event folded
	done     bool  // run_finished is among them
}

// segment is a stretch of a run's log. Besides what is said otherwise, it is
// guarded by its run's mu; first never changes, last not once it is closed.
type segment struct {
	run         *folded
	first, last int32
	open        bool                    // the newest segment, which still grows
	weight      int64                   // of the data of all its events
	events      []*orchestratorv1.Event // nil: dropped; only ever appended to

	// Guarded by hub.mu.
	bytes   int64
	element *list.Element
}

func newFolded(h *hub, id pipeline.RunID) *folded {
	return &folded{hub: h, id: id, turn: make(chan struct{}, 1), missed: true}
}

// maxPushed bounds the events that wait to be folded; beyond, they are read.
const maxPushed = 16384

// push takes events that this process has committed.
func (r *folded) push(events []pipeline.Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case r.missed:
	case len(r.pushed)+len(events) > maxPushed:
		r.pushed, r.missed = nil, true
	default:
		r.pushed = append(r.pushed, events...)
	}
}

// miss notes that there may be events which only the store has.
func (r *folded) miss() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.pushed, r.missed = nil, true
}

// whole reports whether all events have been pushed since the run began, or
// since it was last read: its owner is in this process.
func (r *folded) whole() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return !r.missed
}

// pull returns the events that were pushed, and whether that is all there is.
func (r *folded) pull() ([]pipeline.Event, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	events := r.pushed
	r.pushed = nil
	return events, !r.missed
}

// start gives the fold the run's unchanging facts.
func (r *folded) start(run *pipeline.Run) {
	r.view = pipeline.NewView(*run)
	r.cursors = []cursor{{view: pipeline.NewView(*run)}}
	r.bytes += runBytes
	r.begun.Store(true)
}

func (r *folded) take(ctx context.Context) error {
	select {
	case r.turn <- struct{}{}:
		return nil
	default:
	}
	select {
	case r.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (r *folded) give() { <-r.turn }

// begin reads the run's unchanging facts, once.
func (r *folded) begin(ctx context.Context) error {
	if r.begun.Load() {
		return nil
	}
	if err := r.take(ctx); err != nil {
		return err
	}
	defer r.give()
	if r.begun.Load() {
		return nil
	}
	run, err := r.hub.store.Run(ctx, r.id)
	if err != nil {
		return err
	}
	m, err := r.hub.restored(ctx, run)
	if err != nil {
		return err
	}
	r.hub.mu.Lock()
	defer r.hub.mu.Unlock()
	r.start(run)
	if m != nil {
		r.startLate(m)
	}
	r.hub.viewed += r.bytes
	return nil
}

// state tells how far the fold is and whether the log has ended.
func (r *folded) state() (seq int32, done bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.seq, r.done
}

// next returns events after a sequence number, at least one, or none when the
// log holds no more as far as rings tell: gen is the count of rings up to
// which the caller wants the log read. What it returns is shared and must not
// be changed.
func (r *folded) next(ctx context.Context, after int32, gen uint64) ([]*orchestratorv1.Event, error) {
	for {
		seq, done := r.state()
		if after < seq {
			return r.stretch(ctx, after+1)
		}
		if done {
			return nil, nil
		}
		more, err := r.advance(ctx, gen)
		if err != nil {
			return nil, err
		}
		if now, _ := r.state(); now == seq && !more {
			return nil, nil
		}
	}
}

// catchUp folds the whole log that is durable now.
func (r *folded) catchUp(ctx context.Context) error {
	for {
		if _, done := r.state(); done {
			return nil
		}
		more, err := r.advance(ctx, always)
		if err != nil || !more {
			return err
		}
	}
}

// advance folds the next stretch of the log; more says that it goes on. If
// another caller has read the log to its end after gen rings, it does nothing.
func (r *folded) advance(ctx context.Context, gen uint64) (more bool, err error) {
	if err := r.take(ctx); err != nil {
		return false, err
	}
	defer r.give()
	if r.read > gen {
		return false, nil
	}
	rings, _ := r.events.state()
	events, whole := r.pull()
	for i := range events {
		if events[i].Seq <= r.view.Seq {
			continue
		}
		if events[i].Seq > r.view.Seq+1 {
			whole = false
			break
		}
		if err := r.fold(&events[i]); err != nil {
			return false, err
		}
	}
	if whole && gen != always {
		r.read = rings + 1
		return false, nil
	}
	// From here on, what is pushed follows what is read.
	r.mu.Lock()
	r.missed = false
	r.mu.Unlock()
	n := 0
	for e, err := range r.hub.store.Events(ctx, r.id, r.view.Seq) {
		if err == nil {
			err = r.fold(&e)
		}
		if err != nil {
			r.miss()
			return false, err
		}
		if n++; n == segmentEvents {
			r.miss()
			return true, nil
		}
	}
	r.read = rings + 1
	return false, nil
}

// fold applies the next event and encodes it; the turn is held.
func (r *folded) fold(e *pipeline.Event) error {
	if e.Seq != r.view.Seq+1 {
		return fmt.Errorf("log of run %s: event %d follows event %d", r.id, e.Seq, r.view.Seq)
	}
	known := len(r.view.Steps)
	step := r.view.Apply(e)
	encoded, err := fromEvent(e, &r.view.Run, step)
	if err != nil {
		return fmt.Errorf("encode event %d of run %s: %w", e.Seq, r.id, err)
	}
	size := int64(len(encoded.GetData()) + eventBytes)

	r.mu.Lock()
	last := len(r.segments) - 1
	if last < 0 || !r.segments[last].open {
		r.segments = append(r.segments, &segment{run: r, first: e.Seq, open: true})
		last++
	}
	s := r.segments[last]
	s.last = e.Seq
	s.events = append(s.events, encoded)
	s.weight += size
	r.seq = e.Seq
	r.done = e.Type == pipeline.RunFinished
	s.open = !r.done && len(s.events) < segmentEvents && s.weight < segmentBytes
	r.mu.Unlock()

	r.hub.hold(s, size)
	grown := int64(stepBytes * (len(r.view.Steps) - known))
	if step != nil {
		grown += weight(e.Data.Parameters) + weight(e.Data.Items) + weight(e.Data.Output)
	}
	r.hub.charge(r, grown)
	r.keep(r.view, r.stepCount())
	r.hub.seen(e)
	return nil
}

// drop lets the events go, unless the segment still grows.
func (s *segment) drop() bool {
	s.run.mu.Lock()
	defer s.run.mu.Unlock()
	if s.open {
		return false
	}
	s.events = nil
	return true
}

// stretch returns the events from seq to the end of its segment.
func (r *folded) stretch(ctx context.Context, seq int32) ([]*orchestratorv1.Event, error) {
	r.mu.Lock()
	i := sort.Search(len(r.segments), func(i int) bool { return r.segments[i].last >= seq })
	if i == len(r.segments) {
		r.mu.Unlock()
		return nil, fmt.Errorf("log of run %s: no segment holds event %d", r.id, seq)
	}
	s := r.segments[i]
	events := s.events
	r.mu.Unlock()
	if events == nil {
		var err error
		if events, err = r.remake(ctx, s); err != nil {
			return nil, err
		}
	}
	r.hub.touch(s)
	return events[seq-s.first : len(events) : len(events)], nil
}

// remake encodes again what a segment has lost.
func (r *folded) remake(ctx context.Context, s *segment) ([]*orchestratorv1.Event, error) {
	if err := r.take(ctx); err != nil {
		return nil, err
	}
	defer r.give()
	r.mu.Lock()
	events := s.events
	r.mu.Unlock()
	if events != nil { // another reader was faster
		return events, nil
	}
	at := r.replay
	r.replay = cursor{}
	if i := sort.Search(len(r.cursors), func(i int) bool { return r.cursors[i].view.Seq >= s.first }) - 1; at.view == nil ||
		at.view.Seq >= s.first || at.view.Seq < r.cursors[i].view.Seq {
		at = r.cursors[i].clone()
	}
	view := at.view
	var size int64
	events = make([]*orchestratorv1.Event, 0, s.last-s.first+1)
	for e, err := range r.hub.store.Events(ctx, r.id, view.Seq) {
		if err != nil {
			return nil, err
		}
		step := at.apply(&e)
		r.keep(view, at.steps)
		if e.Seq >= s.first {
			encoded, err := fromEvent(&e, &view.Run, step)
			if err != nil {
				return nil, fmt.Errorf("encode event %d of run %s: %w", e.Seq, r.id, err)
			}
			size += int64(len(encoded.GetData()) + eventBytes)
			events = append(events, encoded)
		}
		if e.Seq == s.last {
			break
		}
	}
	if len(events) != int(s.last-s.first+1) {
		return nil, fmt.Errorf("log of run %s: events %d to %d are not all there any more", r.id, s.first, s.last)
	}
	r.replay = cursor{view: view.Unfinished(), steps: at.steps}
	r.mu.Lock()
	s.events = events
	r.mu.Unlock()
	r.hub.hold(s, size)
	return events, nil
}
