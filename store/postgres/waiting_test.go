package postgres_test

import (
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/orchestrator-project/orchestrator/pipeline"
	"github.com/orchestrator-project/orchestrator/store"
	"github.com/orchestrator-project/orchestrator/store/postgres"
	"github.com/orchestrator-project/orchestrator/store/storetest"
)

// 100,000 parked runs cost rows, not time: whatever looks for work touches only
// what it takes, with the planner's figures and without.
func TestParkedRunsAreNotWalked(t *testing.T) {
	const most = 300 // rows, the nodes of a plan counted each
	s := open(t, storetest.Migrated(t), 0)
	conn, err := pgx.Connect(t.Context(), s.URL())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	l := lane(t, s, "a")
	first := &pipeline.Run{ID: pipeline.NewRunID(), Pipeline: "p", Version: "1", Status: pipeline.RunRunning, CreatedAt: pipeline.NewRunID().Time()}
	must[store.Result](t)(l.Commit(t.Context(), &store.Batch{Create: []store.Create{{Run: first}}}))
	must[store.Result](t)(l.Commit(t.Context(), &store.Batch{Park: []store.Park{{Run: first}}}))
	for _, sql := range []string{
		`INSERT INTO run SELECT day, (left(run_id::text, 24) || lpad(to_hex(g), 12, '0'))::uuid, pipeline, version, plan_digest, parent_run,
				forked_from, status, reason, error, lane_epoch, priority, labels, inputs, outputs, workdir, created_at, started_at, finished_at,
				input_tokens, output_tokens, cost_usd, steps
			FROM run, generate_series(1, 100000) g`,
		`INSERT INTO run_timer SELECT run_id, day, now() + (row_number() OVER (ORDER BY run_id) - 100) * interval '1 minute' FROM run`,
		`INSERT INTO run_queue SELECT priority, day, run_id FROM run ORDER BY run_id LIMIT 1000`,
		// A long queue, half of which waits for a slot of one key.
		`INSERT INTO queue (name) VALUES ('default')`,
		`INSERT INTO fair_clock VALUES ('default', 0, 10)`,
		`INSERT INTO slot_freed VALUES ('k')`,
		`INSERT INTO run_queue (priority, day, run_id, queue, pass, held, concurrency, concurrency_max, fair_key)
			SELECT priority, day, run_id, 'default', n, n % 2, CASE n % 2 WHEN 1 THEN 'k' END, 1, 'hog'
			FROM (SELECT priority, day, run_id, row_number() OVER (ORDER BY run_id) AS n FROM run ORDER BY run_id OFFSET 1000) r`,
		`INSERT INTO fair_key SELECT 'default', 0, 'key ' || g, g, 1, 1 FROM generate_series(1, 10000) g`,
		`INSERT INTO approval (id, run_id, pipeline, status, request, created_at)
			SELECT gen_random_uuid(), gen_random_uuid(), 'p', 'open', '{}', now() FROM generate_series(1, 10000)`,
	} {
		if _, err := conn.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	key, _ := store.RunKey(first.ID)
	for _, figures := range []string{"without", "with"} {
		for what, n := range s.Examined(t, first.ID.Day(), key) {
			if n > most {
				t.Errorf("%s figures of the planner: %s touches %d rows", figures, what, n)
			}
		}
		if _, err := conn.Exec(t.Context(), `ANALYZE`); err != nil {
			t.Fatal(err)
		}
	}
	if p := must[store.Pulse](t)(s.Heartbeat(t.Context(), "a")); !p.Queued || p.NextDue.IsZero() {
		t.Errorf("pulse %+v", p)
	}
}

// Lanes, senders and those who decide take their locks in one order.
func TestParkingDoesNotDeadlock(t *testing.T) {
	u := storetest.Migrated(t)
	conn, err := pgx.Connect(t.Context(), u)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	func() {
		s, other := openAlone(t, u), openAlone(t, u)
		defer s.Close()
		defer other.Close()
		t.Run("load", func(t *testing.T) { storetest.NoLostWakeUp(t, s, other) })
	}() // ended connections have told what they counted
	var deadlocks int
	if err := conn.QueryRow(t.Context(), `SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()`).Scan(&deadlocks); err != nil {
		t.Fatal(err)
	}
	if deadlocks > 0 {
		t.Errorf("%d deadlocks", deadlocks)
	}
}

func openAlone(t testing.TB, url string) *postgres.Store {
	t.Helper()
	return must[*postgres.Store](t)(postgres.Open(t.Context(), postgres.Config{URL: url}))
}
