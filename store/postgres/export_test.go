package postgres

import (
	"encoding/json"
	"strconv"
	"strings"
	"testing"
	"time"

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

// Examined are the rows that the database touches for a heartbeat, a claim of
// ten runs and a message to one of them.
func (s *Store) Examined(t testing.TB, day time.Time, run [16]byte) map[string]int {
	t.Helper()
	conn, err := s.connect(t.Context(), laneSettings)
	if err != nil {
		t.Fatal(err)
	}
	defer discard(conn)
	touched := make(map[string]int)
	for _, q := range []struct {
		name, sql string
		args      []any
	}{
		{"heartbeat", heartbeat, []any{s.cfg.LeaseTTL, []int64{}, int64(0)}},
		{"due timers", queueDue, []any{10}},
		{"queue", pickQueued, []any{10}},
		{"unqueue", unqueue, []any{[][16]byte{run}}},
		{"move queues", moveQueues, []any{[]string{"default"}, []float64{1}, []int64{1}}},
		{"move clocks", moveClocks, []any{[]string{"default"}, []int32{0}, []int64{1}}},
		{"sweep keys", sweepFair, []any{[]string{"default"}, []int32{0}, []int64{1}}},
		{"freed slots", letGo, nil},
		{"end of a run", dropHoldings, []any{[][16]byte{run}}},
		{"what is left behind", leftBehind, []any{run}},
		{"own", own, []any{int64(1), []time.Time{day}, [][16]byte{run}}},
		{"message", insertMessage, []any{day, run, "m", "signal", "", []byte(nil), (*time.Time)(nil), "k", "d"}},
		{"wake", wakeParked, []any{[]time.Time{day}, [][16]byte{run}}},
	} {
		tx, err := conn.Begin(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, sql := range []string{lockFreed, lockQueues} { // what others of them build on
			if _, err := tx.Exec(t.Context(), sql); err != nil {
				t.Fatal(err)
			}
		}
		var text []byte
		if err := tx.QueryRow(t.Context(), "EXPLAIN (ANALYZE, FORMAT JSON) "+q.sql, q.args...).Scan(&text); err != nil {
			t.Fatalf("%s: %v", q.name, err)
		}
		_ = tx.Rollback(t.Context())
		var plans []struct{ Plan planNode }
		if err := json.Unmarshal(text, &plans); err != nil {
			t.Fatal(err)
		}
		touched[q.name] = plans[0].Plan.rows()
	}
	return touched
}

type planNode struct {
	Rows    float64 `json:"Actual Rows"`
	Loops   float64 `json:"Actual Loops"`
	Removed float64 `json:"Rows Removed by Filter"`
	Plans   []planNode
}

func (n planNode) rows() int {
	sum := int((n.Rows + n.Removed) * n.Loops)
	for _, p := range n.Plans {
		sum += p.rows()
	}
	return sum
}
