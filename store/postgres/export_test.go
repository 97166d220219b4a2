package postgres

// Abandon does to the store's connections what the kernel does when the
// process is killed.
func (s *Store) Abandon() {
	s.mu.Lock()
	s.closed = true
	lanes := s.lanes
	s.lanes = make(map[int64]*lane)
	s.mu.Unlock()
	for _, l := range lanes {
		if l.conn != nil {
			l.conn.PgConn().Conn().Close()
			l.drop()
		}
	}
	s.stop()
	s.work.Wait()
	s.presence.wait()
	s.logs.close()
	s.ringer.close()
	s.pool.Close()
}

// URL is the address of the store's database.
func (s *Store) URL() string { return s.cfg.URL }
