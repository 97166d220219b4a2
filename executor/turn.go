package executor

import "slices"

// next leaves something for the lane's goroutine, which is the caller, to do before
// it looks at its mail again.
func (l *lane) next(f func()) { l.soon = append(l.soon, f) }

// later does what was left, unless that goes on for too long: then there may be
// mail, and the committer may be idle.
func (l *lane) later() {
	const atOnce = 512
	for n := 0; n < len(l.soon); n++ {
		if n == atOnce {
			l.soon = slices.Delete(l.soon, 0, n)
			nudge(l.bell)
			return
		}
		l.soon[n]()
	}
	clear(l.soon)
	l.soon = l.soon[:0]
}

// over reports whether the lane has ended.
func (l *lane) over() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.closed
}
