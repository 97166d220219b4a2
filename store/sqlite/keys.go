package sqlite

import (
	"context"
	"database/sql"
	"errors"

	"github.com/orchestrator-project/orchestrator/store"
)

const (
	readShared = `SELECT value FROM shared_key WHERE name = ?`
	makeShared = `INSERT INTO shared_key (name, value) VALUES (?, ?)`
)

// Key implements store.Keys.
func (s *Store) Key(ctx context.Context, name string) ([]byte, error) {
	var key []byte
	err := s.writer.do(ctx, "read the key "+name, func(t *tx) error {
		err := t.row(readShared, []any{text(name)}, &key)
		if !errors.Is(err, sql.ErrNoRows) {
			return err
		}
		key = store.NewKey()
		_, err = t.exec(makeShared, text(name), key)
		return err
	})
	return key, err
}
