package sqlite

import (
	"context"
	"database/sql"
	"time"

	"github.com/orchestrator-project/orchestrator/pipeline"
	"github.com/orchestrator-project/orchestrator/store"
)

const (
	insertBundle = `INSERT INTO bundle (digest, size, data, used_at) VALUES (?, ?, ?, ?)
		ON CONFLICT (digest) DO UPDATE SET used_at = excluded.used_at`
	bundleThere = `SELECT 1 FROM bundle WHERE digest = ? AND used_at > ?`
	readBundle  = `SELECT size, data FROM bundle WHERE digest = ?`
	blobThere   = `SELECT 1 FROM blob WHERE day = ? AND sha = ?`
	readBlob    = `SELECT size, data FROM blob WHERE day = ? AND sha = ?`
)

// there tells whether a query gives a row.
func (s *Store) there(ctx context.Context, query string, args ...any) (bool, error) {
	found := false
	err := s.query(ctx, query, args, func(*sql.Rows) error {
		found = true
		return nil
	})
	return found, err
}

// freshSince is the time since when a put need not be written again.
func freshSince() int64 { return time.Now().Add(-store.UseFresh).UnixMicro() }

// PutBundle implements store.Store.
func (s *Store) PutBundle(ctx context.Context, d pipeline.Digest, b pipeline.Bundle) error {
	if d == "" && len(b) == 0 {
		return nil
	}
	if there, err := s.there(ctx, bundleThere, text(d), freshSince()); err == nil && there { // the common case costs no write
		return nil
	}
	data, size, err := store.EncodeBundle(d, b)
	if err != nil {
		return err
	}
	return s.writer.do(ctx, "store the files of a pipeline", func(t *tx) error {
		_, err := t.exec(insertBundle, text(d), size, data, t.now.UnixMicro())
		return err
	})
}

// Bundle implements store.Store.
func (s *Store) Bundle(ctx context.Context, d pipeline.Digest) (pipeline.Bundle, error) {
	if d == "" {
		return nil, nil
	}
	var b pipeline.Bundle
	err := s.query(ctx, readBundle, []any{text(d)}, func(r *sql.Rows) error {
		var size int
		var data sql.RawBytes
		err := r.Scan(&size, &data)
		if err == nil {
			b, err = store.DecodeBundle(data, size)
		}
		return err
	})
	if err == nil && b == nil {
		err = store.BundleNotFound(d)
	}
	return b, storeError("read the files of a pipeline", err)
}

// PutBlob implements store.Store.
func (s *Store) PutBlob(ctx context.Context, run pipeline.RunID, data []byte) (pipeline.Digest, error) {
	id, err := key(run)
	if err != nil {
		return "", err
	}
	if err := store.CheckBlob(data); err != nil {
		return "", err
	}
	b := store.NewBlob(store.DayOf(id), data)
	if there, err := s.there(ctx, blobThere, b.Day, b.SHA[:]); err != nil || !there {
		err := s.writer.do(ctx, "store content of run "+string(run), func(t *tx) error { return t.blobs([]store.Blob{b}) })
		if err != nil {
			return "", err
		}
	}
	return store.BlobDigest(b.SHA), nil
}

// Blob implements store.Store.
func (s *Store) Blob(ctx context.Context, run pipeline.RunID, d pipeline.Digest) ([]byte, error) {
	id, err := key(run)
	if err != nil {
		return nil, err
	}
	sha, err := store.BlobSHA(d)
	if err != nil {
		return nil, err
	}
	var body []byte
	found := false
	err = s.query(ctx, readBlob, []any{store.DayOf(id), sha[:]}, func(r *sql.Rows) error {
		var size int
		var data sql.RawBytes
		err := r.Scan(&size, &data)
		if err == nil {
			body, err = store.OpenBlob(data, size)
		}
		found = true
		return err
	})
	if err == nil && !found {
		err = store.BlobNotFound(d)
	}
	return body, storeError("read content of run "+string(run), err)
}

const (
	readCache   = `SELECT value, expires_at FROM cache WHERE key = ? AND expires_at > ?`
	writeCache  = `INSERT OR REPLACE INTO cache (key, expires_at, value) VALUES (?, ?, ?)`
	sweepCached = `DELETE FROM cache WHERE key IN (SELECT key FROM cache WHERE expires_at <= ? ORDER BY expires_at LIMIT ?)`
)

// Cached implements pipeline.ResultCache.
func (s *Store) Cached(ctx context.Context, key pipeline.Digest) (value []byte, left time.Duration, err error) {
	now := time.Now().UnixMicro()
	err = s.query(ctx, readCache, []any{text(key), now}, func(r *sql.Rows) error {
		var expires int64
		err := r.Scan(&value, &expires)
		value, left = nonNil(value), time.Duration(expires-now)*time.Microsecond
		return err
	})
	return value, left, storeError("read the cache", err)
}

// PutCached implements pipeline.ResultCache.
func (s *Store) PutCached(ctx context.Context, key pipeline.Digest, value []byte, ttl time.Duration) error {
	return s.writer.relaxed(ctx, "write the cache", func(t *tx) error {
		if _, err := t.exec(sweepCached, t.now.UnixMicro(), store.CacheSweep); err != nil {
			return err
		}
		_, err := t.exec(writeCache, text(key), t.now.Add(ttl).UnixMicro(), nonNil(value))
		return err
	})
}
