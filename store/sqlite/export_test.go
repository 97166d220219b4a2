package sqlite

import (
	"database/sql"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/orchestrator-project/orchestrator/store"
)

// Abandon does to the store's files what the kernel does when the process is
// killed: locks and sockets close, and nothing is written.
func (s *Store) Abandon() {
	s.mu.Lock()
	s.closed = true
	for _, l := range s.lanes {
		l.lock.Release()
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

// Fill lets the database not grow any more, as on a full disk.
func (s *Store) Fill(t testing.TB) { s.limit(t, "PRAGMA max_page_count = 1") }

// Empty undoes Fill.
func (s *Store) Empty(t testing.TB) { s.limit(t, "PRAGMA max_page_count = 1000000") }

func (s *Store) limit(t testing.TB, pragma string) {
	t.Helper()
	var n int
	if err := s.writer.conn.QueryRowContext(t.Context(), pragma).Scan(&n); err != nil {
		t.Fatal(err)
	}
}

// Pragmas are the writer's journal mode and synchronous level.
func (s *Store) Pragmas(t testing.TB) (mode string, sync int) {
	t.Helper()
	if err := s.writer.conn.QueryRowContext(t.Context(), "PRAGMA journal_mode").Scan(&mode); err != nil {
		t.Fatal(err)
	}
	if err := s.writer.conn.QueryRowContext(t.Context(), "PRAGMA synchronous").Scan(&sync); err != nil {
		t.Fatal(err)
	}
	return mode, sync
}

// Deafen adds a listener of another process that does not read; the function
// it returns reads everything and gives the last bell.
func Deafen(t testing.TB, s *Store) func() store.Bell {
	t.Helper()
	if err := os.MkdirAll(s.bells.dir, 0o700); err != nil {
		t.Fatal(err)
	}
	in, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(s.bells.dir, "0deaf.sock"), Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { in.Close() })
	return func() store.Bell {
		var last store.Bell
		buf := make([]byte, 64<<10)
		_ = in.SetReadDeadline(time.Now().Add(time.Minute))
		for {
			n, err := in.Read(buf)
			if err != nil {
				return last
			}
			if last = store.DecodeBell(string(buf[:n])); last.All {
				return last
			}
		}
	}
}

// Plans are what the database will do for a heartbeat, a claim and a message.
func (s *Store) Plans(t testing.TB) map[string][]string {
	t.Helper()
	plans := make(map[string][]string)
	for _, query := range []string{
		lookForWork, dueTimers, openQueues, candidates, claimRun, dropTimer, unqueueRun, countSlots, moveClock, sweepFair,
		growKey, freeSlots, letGo, letGoOn, queueGates, runState, wakeRun, withdrawOfRun,
	} {
		rows, err := s.writer.conn.QueryContext(t.Context(), "EXPLAIN QUERY PLAN "+query, make([]any, strings.Count(query, "?"))...)
		if err != nil {
			t.Fatalf("%s: %v", query, err)
		}
		err = drain(rows, func(r *sql.Rows) error {
			var id, parent, unused int
			var detail string
			err := r.Scan(&id, &parent, &unused, &detail)
			plans[query] = append(plans[query], detail)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return plans
}
