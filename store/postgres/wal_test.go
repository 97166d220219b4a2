package postgres_test

import (
	"math"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/orchestrator-project/orchestrator/store/storetest"
)

// A run of ten steps writes at most 2 KiB of WAL per step, its own rows and
// the commits of a busy lane included.
func TestWriteAheadLogPerStep(t *testing.T) {
	const most = 2048
	s := open(t, storetest.Migrated(t), 0)
	conn, err := pgx.Connect(t.Context(), s.URL())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	for _, runs := range []int{16, 256} {
		least := math.MaxInt
		for range 4 { // others write to the same server, and the first touch of a page after a checkpoint is logged whole
			var before string
			if err := conn.QueryRow(t.Context(), `SELECT pg_current_wal_insert_lsn()::text`).Scan(&before); err != nil {
				t.Fatal(err)
			}
			steps := storetest.Life(t, s, runs)
			var bytes int
			if err := conn.QueryRow(t.Context(), `SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), $1::text::pg_lsn)::integer`, before).Scan(&bytes); err != nil {
				t.Fatal(err)
			}
			least = min(least, bytes/steps)
		}
		t.Logf("%d runs at once: %d bytes per step", runs, least)
		if least > most {
			t.Errorf("%d runs at once: %d bytes per step, more than %d", runs, least, most)
		}
	}
}
