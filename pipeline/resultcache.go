package pipeline

import (
	"context"
	"time"
)

// ResultCache keeps results of steps by what makes steps equal. It may lose what it
// keeps at any time. Its methods may be called concurrently.
type ResultCache interface {
	// Cached gives what was put under the key, and how long it is still good;
	// nil: there is nothing.
	Cached(ctx context.Context, key Digest) (value []byte, left time.Duration, err error)
	// PutCached keeps a value, at most as long as ttl; a later one takes its place.
	// The value must not be changed afterwards.
	PutCached(ctx context.Context, key Digest, value []byte, ttl time.Duration) error
}
