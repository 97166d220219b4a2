package store

import (
	"context"
	"encoding/json"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/orchestrator-project/orchestrator/pipeline"
)

// Live carries what is never stored: the pieces of answers and of tools' outputs
// that running steps have got so far, to whoever looks at their runs now.
type Live interface {
	// Watched reports whether somebody looks at the run, here or in another process
	// as far as that is known. It asks no database.
	Watched(run pipeline.RunID) bool
	// Show passes a piece to those who look at its run: at once to those of this
	// process, a few milliseconds later to those of others that are heard. It never
	// blocks; where nobody looks it does nothing, and a piece that is lost is lost.
	Show(s Shown)
	// Look calls f for each piece that is shown of a run, in the order of showing,
	// until leave is called. f must not block.
	Look(run pipeline.RunID, f func(Shown)) (leave func())
}

// Shown is a piece of what a call of a step gives.
type Shown struct {
	Run     pipeline.RunID
	Path    pipeline.Path
	Attempt int32
	At      time.Time
	Delta   pipeline.Delta
}

// The rhythm and the bounds of a Stage.
const (
	announceEvery = 5 * time.Second  // how often others are told at which runs somebody looks
	announced     = 12 * time.Second // how long that is believed
	noteGap       = 20 * time.Millisecond
	noteRuns      = 150     // runs that one note names
	noteBytes     = 7800    // of a note, a little less than Postgres takes
	noteText      = 1000    // bytes of a piece in a note: six times as many as JSON
	maxUnsent     = 1 << 20 // bytes that wait for others; beyond, pieces are lost
)

// Stage is Live for the dialects: within this process, and by notes between
// processes, which the send function of Run carries. Notes are sent only while
// somebody looks. The zero value works, and reaches this process alone. All methods
// may be called concurrently.
type Stage struct {
	looked atomic.Int32 // runs that somebody looks at

	mu     sync.Mutex
	next   int
	here   map[pipeline.RunID]map[int]func(Shown)
	there  map[pipeline.RunID]time.Time // until when that is believed
	unsent []Shown
	size   int
	joined bool // somebody looks at a run at which nobody looked before
	wake   chan struct{}
}

// Watched implements Live.
func (s *Stage) Watched(run pipeline.RunID) bool {
	if s.looked.Load() == 0 {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.here[run]) > 0 || s.elsewhere(run)
}

// elsewhere reports whether others look at a run; s.mu is held.
func (s *Stage) elsewhere(run pipeline.RunID) bool {
	until, ok := s.there[run]
	if !ok {
		return false
	}
	if time.Now().After(until) {
		delete(s.there, run)
		s.count()
		return false
	}
	return true
}

func (s *Stage) count() { s.looked.Store(int32(len(s.here) + len(s.there))) }

// Show implements Live.
func (s *Stage) Show(p Shown) {
	if s.looked.Load() == 0 {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.deliver(p)
	if s.wake != nil && s.elsewhere(p.Run) && s.size < maxUnsent {
		s.unsent = append(s.unsent, p)
		s.size += len(p.Delta.Text) + len(p.Path) + 64
		s.poke()
	}
}

// deliver tells those who look here; s.mu is held, so that pieces keep their order.
func (s *Stage) deliver(p Shown) {
	for _, f := range s.here[p.Run] {
		f(p)
	}
}

// Look implements Live.
func (s *Stage) Look(run pipeline.RunID, f func(Shown)) (leave func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	id := s.next
	s.next++
	if s.here == nil {
		s.here = map[pipeline.RunID]map[int]func(Shown){}
	}
	if s.here[run] == nil {
		s.here[run] = map[int]func(Shown){}
		s.joined = true
		s.poke()
	}
	s.here[run][id] = f
	s.count()
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.here[run], id)
		if len(s.here[run]) == 0 {
			delete(s.here, run)
			s.count()
		}
	}
}

// poke wakes Run; s.mu is held.
func (s *Stage) poke() {
	if s.wake == nil {
		return
	}
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// note is what one process tells the others.
type note struct {
	Watch []pipeline.RunID `json:"watch,omitempty"`
	Shown []Shown          `json:"shown,omitempty"`
}

// Run hands notes to send until ctx ends: each a text of less than 8,000 bytes.
// What could not be sent is lost.
func (s *Stage) Run(ctx context.Context, send func(ctx context.Context, note string) error) {
	s.mu.Lock()
	s.wake = make(chan struct{}, 1)
	wake := s.wake
	s.poke()
	s.mu.Unlock()
	again := time.NewTimer(0)
	defer again.Stop()
	<-again.C
	for {
		announce := false
		select {
		case <-ctx.Done():
			return
		case <-again.C:
			announce = true
		case <-wake:
			select {
			case <-ctx.Done():
				return
			case <-time.After(noteGap):
			}
		}
		watch, shown := s.take(announce)
		if len(watch) > 0 {
			again.Reset(announceEvery)
		}
		for _, text := range notes(watch, shown) {
			if send(ctx, text) != nil {
				break
			}
		}
	}
}

// take gives what is to be sent: at which runs somebody looks only when that is to
// be told again, or is new.
func (s *Stage) take(announce bool) (watch []pipeline.RunID, shown []Shown) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if announce || s.joined {
		for id := range s.here {
			watch = append(watch, id)
		}
		s.joined = false
	}
	shown, s.unsent, s.size = s.unsent, nil, 0
	return watch, shown
}

// notes packs what is to be sent into texts.
func notes(watch []pipeline.RunID, shown []Shown) []string {
	var list []string
	for len(watch) > 0 {
		n := min(len(watch), noteRuns)
		list = append(list, encodeNote(note{Watch: watch[:n]}))
		watch = watch[n:]
	}
	for len(shown) > 0 {
		var group []Shown
		text := ""
		for len(shown) > 0 {
			first := shown[0]
			head, rest := cutText(first.Delta.Text, noteText)
			first.Delta.Text = head
			more := encodeNote(note{Shown: append(slices.Clip(group), first)})
			if len(more) > noteBytes {
				break
			}
			group, text = append(group, first), more
			if rest == "" {
				shown = shown[1:]
			} else {
				shown[0].Delta.Text = rest
			}
		}
		if len(group) == 0 { // a path as long as that is shown nowhere else
			shown = shown[1:]
			continue
		}
		list = append(list, text)
	}
	return list
}

// cutText cuts a text after at most n bytes, between characters.
func cutText(text string, n int) (head, rest string) {
	if len(text) <= n {
		return text, ""
	}
	for n > 1 && text[n]&0xc0 == 0x80 {
		n--
	}
	return text[:n], text[n:]
}

func encodeNote(n note) string {
	var b strings.Builder
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if enc.Encode(n) != nil {
		return ""
	}
	return strings.TrimSuffix(b.String(), "\n")
}

// Hear takes a note of another process. One that it does not understand tells it
// nothing.
func (s *Stage) Hear(text string) {
	var n note
	if json.Unmarshal([]byte(text), &n) != nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, id := range n.Watch {
		if s.there == nil {
			s.there = map[pipeline.RunID]time.Time{}
		}
		s.there[id] = time.Now().Add(announced)
	}
	if len(n.Watch) > 0 {
		for id := range s.there { // those at which nobody looks any more
			s.elsewhere(id)
		}
		s.count()
	}
	for _, p := range n.Shown {
		s.deliver(p)
	}
}

var _ Live = (*Stage)(nil)
