package postgres

import (
	"strconv"
	"strings"
	"testing"

	"github.com/orchestrator-project/orchestrator/store"
)

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

// Stall leaves the lane's connection in the middle of a batch, as a client
// does that is stopped between two of its statements.
func Stall(t testing.TB, sl store.Lane) {
	t.Helper()
	l := sl.(*lane)
	for _, sql := range []string{"BEGIN", strings.ReplaceAll(fence, "$1", strconv.FormatInt(l.epoch, 10))} {
		if _, err := l.conn.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
}
