package postgres

import (
	"context"
	"errors"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/orchestrator-project/orchestrator/store"
)

const (
	readKey = `SELECT value FROM shared_key WHERE name = $1`
	makeKey = `INSERT INTO shared_key (name, value) VALUES ($1, $2) ON CONFLICT DO NOTHING`
)

// Key implements store.Keys.
func (s *Store) Key(ctx context.Context, name string) ([]byte, error) {
	var key []byte
	err := s.do(ctx, "read the key "+name, func(c *pgxpool.Conn) error {
		read := func() error { return c.QueryRow(ctx, readKey, store.Clean(name)).Scan(&key) }
		err := read()
		if !errors.Is(err, pgx.ErrNoRows) {
			return err
		}
		if _, err := c.Exec(ctx, makeKey, store.Clean(name), store.NewKey()); err != nil {
			return err
		}
		return read() // another's, where that was faster
	})
	return key, err
}
