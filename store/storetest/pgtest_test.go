package storetest_test

import (
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/orchestrator-project/orchestrator/store/storetest"
)

func TestPostgresGivesEmptyDatabases(t *testing.T) {
	var wg sync.WaitGroup
	urls := make([]string, 4)
	for i := range urls {
		wg.Go(func() { urls[i] = storetest.Postgres(t) })
	}
	wg.Wait()
	for _, u := range urls {
		conn, err := pgx.Connect(t.Context(), u)
		if err != nil {
			t.Fatal(err)
		}
		var tables int
		err = conn.QueryRow(t.Context(), `SELECT count(*) FROM pg_tables WHERE schemaname = 'public'`).Scan(&tables)
		if err != nil || tables != 0 {
			t.Errorf("%d tables, %v", tables, err)
		}
		conn.Close(t.Context())
	}
}
