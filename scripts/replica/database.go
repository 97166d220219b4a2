package replica

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"time"

	"github.com/jackc/pgx/v5"
)

// Database is a fresh database on somebody's PostgreSQL server.
type Database struct {
	URL  string
	name string
	root string
}

// NewDatabase makes an empty database on the server that serverURL names.
func NewDatabase(ctx context.Context, serverURL, name string) (*Database, error) {
	if serverURL == "" {
		return nil, errors.New("no PostgreSQL server: set TEST_DATABASE_URL or -url, or start me through make, which brings one")
	}
	u, err := url.Parse(serverURL)
	if err != nil {
		return nil, fmt.Errorf("the address of PostgreSQL: %w", err)
	}
	d := &Database{name: fmt.Sprintf("%s_%d", name, time.Now().UnixNano()), root: serverURL}
	if err := d.exec(ctx, "CREATE DATABASE "+pgx.Identifier{d.name}.Sanitize()); err != nil {
		return nil, err
	}
	u.Path = "/" + d.name
	d.URL = u.String()
	return d, nil
}

// Drop removes the database, whoever still uses it.
func (d *Database) Drop() error {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	return d.exec(ctx, "DROP DATABASE "+pgx.Identifier{d.name}.Sanitize()+" WITH (FORCE)")
}

func (d *Database) exec(ctx context.Context, sql string) (err error) {
	conn, err := pgx.Connect(ctx, d.root)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, conn.Close(ctx)) }()
	_, err = conn.Exec(ctx, sql)
	return err
}
