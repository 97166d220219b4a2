package server

import "time"

// askEvery is how often those who watch look for news where the bells of other
// processes are not heard.
const askEvery = 200 * time.Millisecond

// ask begins to wake those who watch by the clock, if bells do not. It costs one
// statement for each run that is watched, and one for its logs if they are, and
// ends with the last viewer.
func (h *hub) ask() {
	if !h.store.Deaf() {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.asking {
		return
	}
	h.asking = true
	go func() {
		tick := time.NewTicker(askEvery)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
			case <-h.closing:
				return
			}
			if !h.look(h.store.Deaf()) {
				return
			}
		}
	}()
}

// look wakes those who watch, and reports whether that is to go on.
func (h *hub) look(deaf bool) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.asking = false
	for _, r := range h.runs {
		if r.users > 0 {
			h.asking = deaf
			r.miss()
			r.events.ring()
			r.logs.ring()
		}
	}
	return h.asking
}
