package storetest

import (
	"context"
	"fmt"
	"log/slog"
	"net/url"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/orchestrator-project/orchestrator/migrations"
	"github.com/orchestrator-project/orchestrator/store/postgres"
)

// Migrated is like Postgres, but the database has the schema and the partitions
// of these days already: it is a copy of one that all test processes share,
// which is quicker than to make them again.
func Migrated(t testing.TB) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	server, err := EnsurePostgres(ctx)
	if err != nil {
		t.Fatalf("%v", err)
	}
	template, err := ensureTemplate(ctx, server)
	if err != nil {
		t.Fatalf("make a database to copy: %v", err)
	}
	return newDatabase(t, server, template)
}

// templateLock is the advisory lock of whoever makes a template.
const templateLock = 7811887430015

// ensureTemplate gives the name of the database to copy, which is made once for
// a day and a state of the migrations. dropOld removes those of other days.
func ensureTemplate(ctx context.Context, server string) (string, error) {
	sum, err := migrations.Sum(migrations.Postgres)
	if err != nil {
		return "", err
	}
	name := fmt.Sprintf("template_%d_%s", time.Now().Unix()/(24*3600)*24, sum[:12])
	conn, err := pgx.Connect(ctx, server)
	if err != nil {
		return "", err
	}
	defer conn.Close(ctx)
	if _, err := conn.Exec(ctx, `SELECT pg_advisory_lock($1)`, int64(templateLock)); err != nil {
		return "", err
	}
	var there bool
	if err := conn.QueryRow(ctx, `SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)`, name).Scan(&there); err != nil || there {
		return name, err
	}
	draft := name + "_draft"
	for _, statement := range []string{`DROP DATABASE IF EXISTS ` + draft + ` WITH (FORCE)`, `CREATE DATABASE ` + draft + ` TEMPLATE template0`} {
		if _, err := conn.Exec(ctx, statement); err != nil {
			return "", err
		}
	}
	u, err := url.Parse(server)
	if err != nil {
		return "", err
	}
	u.Path = "/" + draft
	s, err := postgres.Open(ctx, postgres.Config{URL: u.String(), Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		return "", err
	}
	if err := s.Close(); err != nil {
		return "", err
	}
	for _, statement := range []string{`ALTER DATABASE ` + draft + ` ALLOW_CONNECTIONS false`, `ALTER DATABASE ` + draft + ` RENAME TO ` + name} {
		if _, err := conn.Exec(ctx, statement); err != nil {
			return "", err
		}
	}
	return name, nil
}
