package sqlite

// Deaf implements store.Hearing: bells are files.
func (s *Store) Deaf() bool { return false }
