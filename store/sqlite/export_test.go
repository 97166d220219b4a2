package sqlite

// Abandon does to the store's files what the kernel does when the process is
// killed: locks and sockets close, and nothing is written.
func (s *Store) Abandon() {
	s.mu.Lock()
	s.closed = true
	for _, l := range s.lanes {
		l.lock.close()
	}
	clear(s.lanes)
	s.mu.Unlock()
	s.stop()
	s.work.Wait()
	s.bells.mu.Lock()
	if s.bells.in != nil {
		s.bells.in.Close()
	}
	s.bells.mu.Unlock()
	_ = s.closeFiles()
}

// Path is where the store lives.
func (s *Store) Path() string { return s.path }
