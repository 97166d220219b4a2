// Package database asks databases for agents: one statement that only reads, and
// the database itself sees to that. PostgreSQL runs it as a cursor, which can be
// nothing but a query, in a transaction that is read-only, under a role that is no
// superuser; SQLite opens the file for reading and attaches no other.
//
//	rows, err := database.Query(ctx, "postgres://reader@db/shop", "SELECT name FROM item WHERE price < $1", []any{int64(10)}, 200)
package database

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/orchestrator-project/orchestrator/executor/tool"
)

const (
	timeout  = 30 * time.Second // of one query, with the way to the database
	maxBytes = 16 << 20         // of what one gives
	batch    = 100              // rows that are asked for at once
)

var _ tool.Query = Query

// Query asks the database that dsn names: postgres://..., or sqlite: and the path
// of a file, absolute. Its errors are for people and models, and name nothing of dsn.
func Query(ctx context.Context, dsn, text string, args []any, most int) (tool.Rows, error) {
	if strings.TrimSpace(text) == "" {
		return tool.Rows{}, errors.New("the query is empty")
	}
	timed, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	ask := askPostgres
	if file, ok := sqliteFile(dsn); ok {
		dsn, ask = file, askSQLite
	} else if scheme, _, found := strings.Cut(dsn, "://"); found && scheme != "postgres" && scheme != "postgresql" {
		return tool.Rows{}, errors.New("the database's URL must begin with postgres:// or sqlite: and a path")
	}
	rows, err := ask(timed, dsn, text, args, most)
	switch {
	case err == nil:
		return rows, nil
	case ctx.Err() != nil:
		return tool.Rows{}, ctx.Err()
	case timed.Err() != nil:
		return tool.Rows{}, errors.New("the query took longer than " + timeout.String() + " and was ended; ask for less")
	}
	return tool.Rows{}, err
}

// sqliteFile is the file that a URL names, as sqlite:///data/shop.db does.
func sqliteFile(dsn string) (string, bool) {
	rest, ok := strings.CutPrefix(dsn, "sqlite:")
	if !ok {
		return "", false
	}
	return strings.TrimPrefix(rest, "//"), true
}

// fill takes a row, unless there is no room for it.
func fill(rows *tool.Rows, size *int, row []any, bytes, most int) bool {
	*size += bytes
	if len(rows.Rows) == most || *size > maxBytes {
		rows.More = true
		return false
	}
	rows.Rows = append(rows.Rows, row)
	return true
}

var errTooLarge = errors.New("a row of the answer is larger than 16 MiB; ask for less of it")
