// Package migrations holds the schema of both stores as numbered SQL files and
// applies them. Migrations only go forward; code of the previous release must
// still run on the new schema.
//
// The caller makes sure that one process migrates at a time (an advisory lock
// on Postgres, a file lock on SQLite) and asks Current first, which costs one
// query and spares the common start the rest.
package migrations

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"embed"
	"encoding/hex"
	"fmt"
	"io/fs"
	"path"

	"github.com/pressly/goose/v3"
)

//go:embed postgres/*.sql sqlite/*.sql
var files embed.FS

// Dialect names one of the two schemas; it is also its folder.
type Dialect string

// The dialects.
const (
	Postgres Dialect = "postgres"
	SQLite   Dialect = "sqlite"
)

// Latest is the highest version of the dialect's files.
func Latest(d Dialect) (int64, error) {
	entries, err := fs.ReadDir(files, string(d))
	if err != nil {
		return 0, fmt.Errorf("list migrations: %w", err)
	}
	var latest int64
	for _, e := range entries {
		v, err := goose.NumericComponent(e.Name())
		if err != nil {
			return 0, fmt.Errorf("migration %s: %w", e.Name(), err)
		}
		latest = max(latest, v)
	}
	return latest, nil
}

// Sum names the dialect's files by their content: 64 hexadecimal digits.
func Sum(d Dialect) (string, error) {
	entries, err := fs.ReadDir(files, string(d))
	if err != nil {
		return "", fmt.Errorf("list migrations: %w", err)
	}
	h := sha256.New()
	for _, e := range entries {
		text, err := fs.ReadFile(files, path.Join(string(d), e.Name()))
		if err != nil {
			return "", fmt.Errorf("read migrations: %w", err)
		}
		fmt.Fprintf(h, "%s %d\n%s", e.Name(), len(text), text)
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// CurrentSQL reads the newest applied version; it fails on an empty database.
const CurrentSQL = `SELECT max(version_id) FROM goose_db_version WHERE is_applied`

// Apply brings the database to Latest.
func Apply(ctx context.Context, db *sql.DB, d Dialect) error {
	sub, err := fs.Sub(files, string(d))
	if err != nil {
		return fmt.Errorf("open migrations: %w", err)
	}
	dialect := goose.DialectPostgres
	if d == SQLite {
		dialect = goose.DialectSQLite3
	}
	p, err := goose.NewProvider(dialect, db, sub, goose.WithDisableGlobalRegistry(true), goose.WithLogger(goose.NopLogger()))
	if err != nil {
		return fmt.Errorf("read migrations: %w", err)
	}
	if _, err := p.Up(ctx); err != nil {
		return fmt.Errorf("migrate the schema: %w", err)
	}
	return nil
}
