package postgres

import (
	"context"
	"errors"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/orchestrator-project/orchestrator/pipeline"
	"github.com/orchestrator-project/orchestrator/store"
)

const (
	bundleThere  = `SELECT EXISTS (SELECT FROM bundle WHERE digest = $1 AND used_at > statement_timestamp() - $2::interval)`
	insertBundle = `INSERT INTO bundle (digest, size, data, used_at) VALUES ($1, $2, $3, statement_timestamp())
		ON CONFLICT (digest) DO UPDATE SET used_at = EXCLUDED.used_at`
	readBundle = `SELECT size, data FROM bundle WHERE digest = $1`
)

// PutBundle implements store.Store.
func (s *Store) PutBundle(ctx context.Context, d pipeline.Digest, b pipeline.Bundle) error {
	if d == "" && len(b) == 0 {
		return nil
	}
	const what = "store the files of a pipeline"
	digest := store.Clean(string(d))
	var there bool
	err := s.do(ctx, what, func(c *pgxpool.Conn) error { return c.QueryRow(ctx, bundleThere, digest, store.UseFresh).Scan(&there) })
	if err != nil || there { // the common case costs no write
		return err
	}
	data, size, err := store.EncodeBundle(d, b)
	if err != nil {
		return err
	}
	return s.do(ctx, what, func(c *pgxpool.Conn) error {
		_, err := c.Exec(ctx, insertBundle, digest, size, data)
		return err
	})
}

// Bundle implements store.Store.
func (s *Store) Bundle(ctx context.Context, d pipeline.Digest) (pipeline.Bundle, error) {
	if d == "" {
		return nil, nil
	}
	var size int
	var data []byte
	err := s.do(ctx, "read the files of a pipeline", func(c *pgxpool.Conn) error {
		return c.QueryRow(ctx, readBundle, store.Clean(string(d))).Scan(&size, &data)
	})
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, store.BundleNotFound(d)
	}
	if err != nil {
		return nil, err
	}
	return store.DecodeBundle(data, size)
}

const (
	blobThere  = `SELECT EXISTS (SELECT FROM blob WHERE day = $1 AND sha = $2)`
	insertBlob = `INSERT INTO blob (day, sha, size, data) VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING`
	readBlob   = `SELECT size, data FROM blob WHERE day = $1 AND sha = $2`
)

// PutBlob implements store.Store.
func (s *Store) PutBlob(ctx context.Context, run pipeline.RunID, data []byte) (pipeline.Digest, error) {
	k, err := runKey(run)
	if err != nil {
		return "", err
	}
	if err := store.CheckBlob(data); err != nil {
		return "", err
	}
	b := store.NewBlob(store.DayOf(k), data)
	write := func() error {
		return s.do(ctx, "store content of run "+string(run), func(c *pgxpool.Conn) error {
			var there bool
			if err := c.QueryRow(ctx, blobThere, run.Day(), b.SHA[:]).Scan(&there); err != nil || there {
				return err
			}
			_, err := c.Exec(ctx, insertBlob, run.Day(), b.SHA[:], b.Size, b.Data)
			return err
		})
	}
	err = write()
	if noPartition(err) {
		if err := s.ensureRunDays(ctx, []int64{b.Day}); err != nil {
			return "", err
		}
		err = write()
	}
	if err != nil {
		return "", err
	}
	return store.BlobDigest(b.SHA), nil
}

// Blob implements store.Store.
func (s *Store) Blob(ctx context.Context, run pipeline.RunID, d pipeline.Digest) ([]byte, error) {
	if _, err := runKey(run); err != nil {
		return nil, err
	}
	sha, err := store.BlobSHA(d)
	if err != nil {
		return nil, err
	}
	var size int
	var data []byte
	err = s.do(ctx, "read content of run "+string(run), func(c *pgxpool.Conn) error {
		return c.QueryRow(ctx, readBlob, run.Day(), sha[:]).Scan(&size, &data)
	})
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, store.BlobNotFound(d)
	}
	if err != nil {
		return nil, err
	}
	return store.OpenBlob(data, size)
}

const (
	readCache  = `SELECT value, expires_at - statement_timestamp() FROM cache WHERE key = $1 AND expires_at > statement_timestamp()`
	writeCache = `INSERT INTO cache (key, expires_at, value) VALUES ($1, statement_timestamp() + $2, $3)
		ON CONFLICT (key) DO UPDATE SET expires_at = EXCLUDED.expires_at, value = EXCLUDED.value`
	// After writeCache, which may wait for another: this does not wait.
	sweepCache = `DELETE FROM cache WHERE key IN (SELECT key FROM cache WHERE expires_at <= statement_timestamp()
		ORDER BY expires_at LIMIT $1 FOR UPDATE SKIP LOCKED)`
)

// Cached implements pipeline.ResultCache.
func (s *Store) Cached(ctx context.Context, key pipeline.Digest) (value []byte, left time.Duration, err error) {
	err = s.do(ctx, "read the cache", func(c *pgxpool.Conn) error {
		return c.QueryRow(ctx, readCache, store.Clean(string(key))).Scan(&value, &left)
	})
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, 0, nil
	}
	return value, left, err
}

// PutCached implements pipeline.ResultCache. A crash of the database may lose the last
// of the values.
func (s *Store) PutCached(ctx context.Context, key pipeline.Digest, value []byte, ttl time.Duration) error {
	return s.do(ctx, "write the cache", func(c *pgxpool.Conn) error {
		b := new(pgx.Batch)
		b.Queue(asyncCommit)
		b.Queue(writeCache, store.Clean(string(key)), ttl, nonNil(value))
		b.Queue(sweepCache, store.CacheSweep)
		return c.SendBatch(ctx, b).Close()
	})
}
