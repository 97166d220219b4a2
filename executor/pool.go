package executor

import (
	"context"
	"slices"
	"sync"
)

// pool hands out the right to run a step, in fair order: whoever waits gets
// one slot, then stands at the end of the line again. A run thus never starves
// others, however many steps it has ready.
type pool struct {
	mu    sync.Mutex
	free  int
	line  []waiter // in the order of their turns
	grant func(*runState)
}

// waiter is a run with a ready step, or a step that goes on: one of both is set.
type waiter struct {
	run  *runState
	turn chan struct{} // is closed once the step has a slot
}

func newPool(slots int, grant func(*runState)) *pool {
	return &pool{free: slots, grant: grant}
}

// request asks for a slot for the run. It reports whether the run has it now;
// else grant is called once it has. At most one request of a run may be out.
func (p *pool) request(r *runState) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.free <= 0 {
		p.line = append(p.line, waiter{run: r})
		return false
	}
	p.free--
	return true
}

// release gives a slot back.
func (p *pool) release() {
	p.mu.Lock()
	if len(p.line) == 0 || p.free < 0 {
		p.free++
		p.mu.Unlock()
		return
	}
	w := p.line[0]
	p.line[0] = waiter{}
	p.line = p.line[1:]
	p.mu.Unlock()
	if w.turn != nil {
		close(w.turn)
		return
	}
	p.grant(w.run)
}

// retake waits in line for a slot that was given back by somebody who only waited.
// Whoever is cancelled meanwhile goes on without one, to come to an end: then fewer
// are handed out until that is made good.
func (p *pool) retake(ctx context.Context) {
	p.mu.Lock()
	if p.free > 0 {
		p.free--
		p.mu.Unlock()
		return
	}
	turn := make(chan struct{})
	p.line = append(p.line, waiter{turn: turn})
	p.mu.Unlock()
	select {
	case <-turn:
		return
	case <-ctx.Done():
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if i := slices.IndexFunc(p.line, func(w waiter) bool { return w.turn == turn }); i >= 0 {
		p.line = slices.Delete(p.line, i, i+1)
		p.free--
	}
}

// slot is what a step holds of the pool. While the step waits for a model or for a
// run that it has begun, others have it.
type slot struct {
	pool *pool

	mu      sync.Mutex
	resting int // calls of the step that wait
}

// rest is Env.Rest. Of several calls at once, the first gives the slot back and the
// last takes one again.
func (s *slot) rest(ctx context.Context) (wake func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.resting++
	if s.resting == 1 {
		s.pool.release()
	}
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.resting--
		if s.resting == 0 {
			s.pool.retake(ctx)
		}
	}
}
