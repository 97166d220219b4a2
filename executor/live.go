package executor

import (
	"slices"
	"sync"
	"time"

	"github.com/orchestrator-project/orchestrator/pipeline"
	"github.com/orchestrator-project/orchestrator/store"
)

const (
	showEvery  = 40 * time.Millisecond // between two pieces of what an attempt shows
	showAtMost = 16 << 10              // bytes that wait for each other
)

// showing passes the pieces that an attempt's calls give to those who look on:
// the first at once, later ones gathered for a few hundredths of a second. While
// nobody looks it keeps nothing.
type showing struct {
	store  store.Store
	redact *redactor
	shown  store.Shown // what all pieces have in common
	now    func() time.Time

	mu    sync.Mutex
	open  []pipeline.Delta // gathered, one for each call, kind and name; in their order
	size  int              // of what may be sent
	last  time.Time        // of the newest sending
	armed bool             // a timer will send
}

// show connects what the attempt gives on its way with those who look at its run.
// Its journal must be open.
func (e *Executor) show(env *Env, red *redactor) {
	s := &showing{
		store: e.cfg.Store, redact: red, now: e.cfg.Now,
		shown: store.Shown{Run: env.Run, Path: env.Path, Attempt: env.Attempt},
	}
	env.Delta, env.Journal.before = s.add, s.flush
}

// add takes a piece. It is what Env.Delta is.
func (s *showing) add(d pipeline.Delta) {
	watched := s.store.Watched(s.shown.Run)
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case !watched:
		s.open, s.size = nil, 0
		return
	case d.Kind == pipeline.DeltaReset:
		s.open = slices.DeleteFunc(s.open, func(o pipeline.Delta) bool { return o.Call == d.Call })
		s.send(d)
		return
	case d.Text == "" && d.Name == "":
		return
	}
	i := slices.IndexFunc(s.open, func(o pipeline.Delta) bool { return o.Call == d.Call && o.Kind == d.Kind && o.Name == d.Name })
	if i < 0 {
		s.open = append(s.open, d)
	} else {
		s.open[i].Text += d.Text
	}
	s.size += len(d.Text)
	switch wait := showEvery - time.Since(s.last); {
	case wait <= 0 || s.size > showAtMost:
		s.sendAll()
	case !s.armed:
		s.armed = true
		time.AfterFunc(wait, func() {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.armed = false
			s.sendAll()
		})
	}
}

// flush sends what waits: something is about to be recorded, which is to be seen
// after it.
func (s *showing) flush() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sendAll()
}

// sendAll sends what was gathered, but for what may be the beginning of a secret.
// The caller holds mu.
func (s *showing) sendAll() {
	if len(s.open) == 0 {
		return
	}
	kept := s.open[:0]
	for _, d := range s.open {
		text, rest := s.redact.pass(d.Text, false)
		if rest != "" {
			kept = append(kept, pipeline.Delta{Call: d.Call, Agent: d.Agent, Kind: d.Kind, Name: d.Name, Text: rest})
		}
		if d.Text = text; text != "" || rest == "" {
			s.send(d)
		}
	}
	s.open, s.size = kept, 0
}

func (s *showing) send(d pipeline.Delta) {
	p := s.shown
	p.At, p.Delta = s.now().UTC(), d
	s.store.Show(p)
	s.last = time.Now()
}
