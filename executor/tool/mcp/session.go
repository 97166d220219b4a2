package mcp

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	sdk "github.com/modelcontextprotocol/go-sdk/mcp"

	"github.com/orchestrator-project/orchestrator/executor/sandbox"
	"github.com/orchestrator-project/orchestrator/pipeline"
)

const (
	maxDeaths   = 5                // connections in a row that ended before a call of them came to an end
	restful     = 30 * time.Second // without a sign of life, after which a connection is tried before it is used
	maxLog      = 256 << 10        // bytes of a server's log that are kept, for each connection
	refreshRest = 200 * time.Millisecond
)

// pauses are how long to wait before each attempt to connect.
var pauses = []time.Duration{0, 200 * time.Millisecond, time.Second}

// session is what the steps of a run share of a server. Connections come and go
// under it.
type session struct {
	pool   *Pool
	at     place
	server Server
	place  sandbox.Spec // of its program

	// Guarded by the pool's mutex.
	idle *time.Timer // ends a session that nobody holds
	left bool        // the run has left this process

	mu      sync.Mutex
	sets    []*Set
	live    *link         // nil: not connected
	trying  *link         // the connection that is being made
	dialing chan struct{} // closed when the attempt to connect is over; nil: there is none
	failure error         // of the last attempt
	ended   func() error  // why the last connection has ended
	legacy  bool          // it does not answer to newer versions of the protocol
	deaths  int
	closed  bool
	listing listing
	calls   map[string]*running // by token
	tokens  int64
	order   []*running // the newest last
}

func (s *session) hold(set *Set) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sets = append(s.sets, set)
}

// letGo tells how many still hold the session.
func (s *session) letGo(set *Set) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sets = slices.DeleteFunc(s.sets, func(x *Set) bool { return x == set })
	return len(s.sets)
}

func (s *session) holders() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.sets)
}

// log keeps a line of the server's for the viewers of the step that has opened
// it last.
func (s *session) log(stream, text string) {
	s.mu.Lock()
	var to func(stream, text string)
	if n := len(s.sets); n > 0 {
		to = s.sets[n-1].env.Log
	}
	s.mu.Unlock()
	if to != nil {
		to(stream, s.server.Name+": "+s.server.blot(text)+"\n")
	}
}

// note tells those who look on, and the operator, what is wrong with a server.
func (s *session) note(text string) {
	s.log("system", text)
	s.pool.cfg.Logger.Warn("MCP server", "server", s.server.Name, "run", s.at.run, "what", s.server.blot(text))
}

// ready connects, unless there is a connection that works.
func (s *session) ready(ctx context.Context) error {
	_, err := s.connected(ctx)
	return err
}

func (s *session) connected(ctx context.Context) (*link, error) {
	for {
		s.mu.Lock()
		switch {
		case s.closed:
			s.mu.Unlock()
			return nil, errClosed
		case s.live != nil && s.live.works():
			l := s.live
			s.mu.Unlock()
			if l.quiet() < restful || l.answers(ctx) {
				return l, nil
			}
			l.lose(errors.New("it does not answer any more"))
			continue
		case s.deaths >= maxDeaths:
			ended := s.ended
			s.mu.Unlock()
			return nil, fmt.Errorf("its connection has ended %d times in a row, at last: %w", maxDeaths, ended())
		}
		if s.dialing == nil {
			s.dialing, s.failure = make(chan struct{}), nil
			s.pool.tasks.Go(s.dial)
		}
		over := s.dialing
		s.mu.Unlock()
		select {
		case <-over:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
		s.mu.Lock()
		l, err := s.live, s.failure
		s.mu.Unlock()
		if l == nil && err != nil {
			return nil, err
		}
	}
}

// dial tries to connect, a few times.
func (s *session) dial() {
	var l *link
	var err error
	for i, pause := range pauses {
		if pause > 0 {
			t := time.NewTimer(pause)
			select {
			case <-t.C:
			case <-s.pool.life.Done():
				t.Stop()
			}
		}
		s.mu.Lock()
		closed := s.closed
		s.mu.Unlock()
		if closed {
			err = errClosed
			break
		}
		if l, err = s.connect(i > 0); err == nil {
			break
		}
		if f, ok := errors.AsType[*pipeline.Failure](err); ok && f.Kind == pipeline.CategoryValidation {
			break // it will not work later either
		}
	}
	s.mu.Lock()
	unwanted := err == nil && s.closed
	if unwanted {
		err = errClosed
	} else if err == nil {
		s.live = l
	}
	s.failure = err
	close(s.dialing)
	s.dialing = nil
	s.mu.Unlock()
	if unwanted {
		l.lose(errClosed)
	}
}

// connect makes one connection, with what the server offers.
func (s *session) connect(again bool) (*link, error) {
	s.mu.Lock()
	legacy := s.legacy || again
	s.mu.Unlock()
	bound := s.pool.cfg.Connect
	switch program := s.server.Transport == stdio; {
	case program && legacy:
		bound *= 3 // npx and its like fetch a program before they start it
	case !program && !legacy:
		bound /= 2 // one that knows nothing of newer versions may answer nothing at all
	}
	l := s.newLink()
	s.mu.Lock()
	s.trying = l
	closed := s.closed
	s.mu.Unlock()
	if closed {
		l.lose(errClosed)
	}
	slow := time.AfterFunc(bound, func() { l.lose(fmt.Errorf("it has not answered for %s", bound)) })
	defer slow.Stop()
	err := l.open(legacy)
	close(l.opened)
	var found listing
	if err == nil {
		found, err = s.list(l.ctx, l.client)
	}
	if err != nil {
		l.lose(err)
		<-l.over
		return nil, l.why(err)
	}
	s.mu.Lock()
	s.legacy = legacy
	s.mu.Unlock()
	s.accept(found)
	return l, nil
}

// accept takes over what a server offers.
func (s *session) accept(found listing) {
	s.mu.Lock()
	before := s.listing
	s.listing = found
	sets := slices.Clone(s.sets)
	s.mu.Unlock()
	for name, why := range found.refused {
		if before.refused[name] != why {
			s.note("the tool " + name + " is left out: " + why)
		}
	}
	for _, set := range sets {
		select {
		case set.changed <- struct{}{}:
		default:
		}
	}
}

func (s *session) offers() []*listed {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.listing.tools
}

func (s *session) refused(remote string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.listing.refused[remote]
}

// lost notes that a connection has ended by itself.
func (s *session) lost(l *link, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.live != l {
		return
	}
	s.live = nil
	s.deaths++
	s.ended = func() error { return l.why(err) }
}

// refresh lists the tools anew whenever the server says that they have changed.
func (l *link) refresh() {
	for {
		select {
		case <-l.stale:
		case <-l.ctx.Done():
			return
		}
		ctx, cancel := context.WithTimeout(l.ctx, l.s.pool.cfg.Connect)
		found, err := l.s.list(ctx, l.client)
		cancel()
		switch {
		case err == nil:
			l.s.accept(found)
		case l.ctx.Err() == nil:
			l.s.note("its tools cannot be listed: " + err.Error())
		}
		rest := time.NewTimer(refreshRest) // one that says so all the time is not asked all the time
		select {
		case <-rest.C:
		case <-l.ctx.Done():
			rest.Stop()
			return
		}
	}
}

// close ends the session for good.
func (s *session) close() {
	s.mu.Lock()
	s.closed = true
	links := []*link{s.live, s.trying}
	s.live, s.trying = nil, nil
	s.mu.Unlock()
	for _, l := range links {
		if l != nil {
			l.lose(errClosed)
		}
	}
}

// toolsChanged is the handler of a server's word that its tools have changed.
func (l *link) toolsChanged(context.Context, *sdk.ToolListChangedRequest) {
	select {
	case l.stale <- struct{}{}:
	default:
	}
}
