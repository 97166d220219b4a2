package agent

import "sync"

// crew counts who is at work in an attempt: agents, and calls of theirs. An agent all
// of whose calls wait for people stays as long as others are at work, at whatever depth,
// so that what is decided meanwhile begins at once.
type crew struct {
	mu      sync.Mutex
	working int
	over    chan struct{} // is closed when nobody works any more
}

// join adds one.
func (c *crew) join() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.working++; c.working == 1 {
		c.over = make(chan struct{})
	}
}

// leave takes away an agent that waits for calls of its own.
func (c *crew) leave() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.working--; c.working == 0 {
		close(c.over)
	}
}

// stay takes away an agent that waits for people, unless it is the last one at work.
// The channel is closed when nobody else works any more.
func (c *crew) stay() (over <-chan struct{}, stays bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.working <= 1 {
		return nil, false
	}
	c.working--
	return c.over, true
}

// others reports whether anybody else is at work.
func (c *crew) others() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.working > 1
}
