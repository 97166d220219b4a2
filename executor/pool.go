package executor

import "sync"

// pool hands out the right to run a step, in fair order: whoever waits gets
// one slot, then stands at the end of the line again. A run thus never starves
// others, however many steps it has ready.
type pool struct {
	mu    sync.Mutex
	free  int
	line  []*runState // runs with ready steps, in the order of their turns
	grant func(*runState)
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
		p.line = append(p.line, r)
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
	r := p.line[0]
	p.line[0] = nil
	p.line = p.line[1:]
	p.mu.Unlock()
	p.grant(r)
}

// retake takes a slot that was given back by somebody who only waited, and goes on
// now, also where none is free: then fewer are handed out until that is made good.
func (p *pool) retake() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.free--
}
