package store

import (
	"context"
	"encoding/base64"
	"maps"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/orchestrator-project/orchestrator/pipeline"
)

// Bus carries bells: to the listeners of this process at once, and, gathered
// over a few milliseconds, to the other processes by the send function of Run.
// The zero value works. All methods may be called concurrently.
type Bus struct {
	mu        sync.Mutex
	next      int
	listeners map[int]func(Bell)
	pending   bellSet
	wake      chan struct{}
}

// Ring delivers b here and leaves it for the other processes.
func (b *Bus) Ring(bell Bell) {
	b.Deliver(bell)
	b.mu.Lock()
	b.pending.add(bell)
	b.mu.Unlock()
	b.Poke()
}

// Poke makes Run call its send soon, with an empty bell if nothing has rung.
func (b *Bus) Poke() {
	b.mu.Lock()
	wake := b.wakeLocked()
	b.mu.Unlock()
	select {
	case wake <- struct{}{}:
	default:
	}
}

// Deliver calls the listeners of this process.
func (b *Bus) Deliver(bell Bell) {
	b.mu.Lock()
	var few [4]func(Bell)
	fs := few[:0]
	for _, f := range b.listeners {
		fs = append(fs, f)
	}
	b.mu.Unlock()
	for _, f := range fs {
		f(bell)
	}
}

// Add registers a listener and returns what removes it.
func (b *Bus) Add(f func(Bell)) (remove func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	id := b.next
	b.next++
	if b.listeners == nil {
		b.listeners = make(map[int]func(Bell))
	}
	b.listeners[id] = f
	return func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		delete(b.listeners, id)
	}
}

// Run hands gathered bells to send, at most one every gap, until ctx ends; what
// is still pending then is sent once more, within a second. A bell that could
// not be sent is sent again as All after a second.
func (b *Bus) Run(ctx context.Context, gap time.Duration, send func(context.Context, Bell) error) {
	b.mu.Lock()
	wake := b.wakeLocked()
	b.mu.Unlock()
	timer := time.NewTimer(0)
	defer timer.Stop()
	<-timer.C
	wait := func(d time.Duration) {
		timer.Reset(d)
		select {
		case <-ctx.Done():
		case <-timer.C:
		}
	}
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
			continue
		case <-wake:
		}
		wait(gap)
		if ctx.Err() != nil {
			break
		}
		select {
		case <-wake: // what rang meanwhile goes along
		default:
		}
		if send(ctx, b.take()) != nil {
			b.mu.Lock()
			b.pending.all = true
			b.mu.Unlock()
			wait(time.Second)
			b.Poke()
		}
	}
	if bell := b.take(); !bell.Empty() {
		last, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		_ = send(last, bell) // a lost bell is harmless
	}
}

func (b *Bus) wakeLocked() chan struct{} {
	if b.wake == nil {
		b.wake = make(chan struct{}, 1)
	}
	return b.wake
}

func (b *Bus) take() Bell {
	b.mu.Lock()
	defer b.mu.Unlock()
	bell := b.pending.bell()
	b.pending = bellSet{}
	return bell
}

// Empty reports whether the bell says nothing.
func (b Bell) Empty() bool {
	return !b.All && !b.Queued && !b.Gates && !b.Approvals && len(b.Runs)+len(b.Logs)+len(b.Inbox) == 0
}

// maxBell bounds how many runs are gathered before a bell just says All.
const maxBell = 340

type bellSet struct {
	runs, logs, inbox map[pipeline.RunID]struct{}
	queued, gates     bool
	approvals, all    bool
}

func (s *bellSet) add(b Bell) {
	s.queued = s.queued || b.Queued
	s.gates = s.gates || b.Gates
	s.approvals = s.approvals || b.Approvals
	s.all = s.all || b.All
	runs := b.Runs
	for i := range b.Appended {
		runs = append(runs, b.Appended[i].Run)
	}
	for _, p := range []struct {
		set *map[pipeline.RunID]struct{}
		ids []pipeline.RunID
	}{{&s.runs, runs}, {&s.logs, b.Logs}, {&s.inbox, b.Inbox}} {
		for _, id := range p.ids {
			if s.all {
				break
			}
			if *p.set == nil {
				*p.set = make(map[pipeline.RunID]struct{})
			}
			(*p.set)[id] = struct{}{}
			s.all = len(s.runs)+len(s.logs)+len(s.inbox) > maxBell
		}
	}
	if s.all {
		s.runs, s.logs, s.inbox = nil, nil, nil
	}
}

func (s *bellSet) bell() Bell {
	if s.all {
		return Bell{All: true, Queued: s.queued, Gates: s.gates, Approvals: s.approvals}
	}
	list := func(m map[pipeline.RunID]struct{}) []pipeline.RunID {
		if len(m) == 0 {
			return nil
		}
		ids := make([]pipeline.RunID, 0, len(m))
		for id := range maps.Keys(m) {
			ids = append(ids, id)
		}
		return ids
	}
	return Bell{Runs: list(s.runs), Logs: list(s.logs), Inbox: list(s.inbox), Queued: s.queued, Gates: s.gates, Approvals: s.approvals}
}

// EncodeBell writes a bell as ASCII text of less than 8,000 bytes, for the way
// to another process; one that is too long for that says All.
func EncodeBell(b Bell) string {
	if len(b.Runs)+len(b.Logs)+len(b.Inbox) > maxBell+10 {
		b = Bell{All: true, Queued: b.Queued, Gates: b.Gates, Approvals: b.Approvals}
	}
	var out []byte
	if b.All {
		out = append(out, 'a')
	}
	if b.Queued {
		out = append(out, 'q')
	}
	if b.Gates {
		out = append(out, 'g')
	}
	if b.Approvals {
		out = append(out, 'p')
	}
	for _, p := range []struct {
		tag byte
		ids []pipeline.RunID
	}{{'r', b.Runs}, {'l', b.Logs}, {'i', b.Inbox}} {
		if len(p.ids) == 0 {
			continue
		}
		out = append(out, '.', p.tag)
		for _, id := range p.ids {
			if k, ok := RunKey(id); ok {
				out = base64.RawURLEncoding.AppendEncode(out, k[:])
			}
		}
	}
	return string(out)
}

// DecodeBell reads EncodeBell's text; of text it does not understand it makes All.
func DecodeBell(s string) Bell {
	parts := strings.Split(s, ".")
	says := func(flag string) bool { return strings.Contains(parts[0], flag) }
	b := Bell{All: says("a"), Queued: says("q"), Gates: says("g"), Approvals: says("p")}
	const width = 22
	for _, part := range parts[1:] {
		if part == "" || (len(part)-1)%width != 0 {
			return Bell{All: true, Queued: true}
		}
		var ids []pipeline.RunID
		for rest := part[1:]; rest != ""; rest = rest[width:] {
			var u uuid.UUID
			if _, err := base64.RawURLEncoding.Decode(u[:], []byte(rest[:width])); err != nil {
				return Bell{All: true, Queued: true}
			}
			ids = append(ids, pipeline.RunID(u.String()))
		}
		switch part[0] {
		case 'r':
			b.Runs = ids
		case 'l':
			b.Logs = ids
		case 'i':
			b.Inbox = ids
		default:
			return Bell{All: true, Queued: true}
		}
	}
	return b
}
