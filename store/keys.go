package store

import (
	"context"
	"crypto/rand"
)

// KeySize is the length of a key in bytes.
const KeySize = 32

// Keys are secrets that all replicas of one store share. They never change.
type Keys interface {
	// Key reads the key of that name, KeySize random bytes, and makes it where
	// there is none. Of several callers that make it at once one wins, and all
	// get its key.
	Key(ctx context.Context, name string) ([]byte, error)
}

// NewKey is a fresh key.
func NewKey() []byte {
	key := make([]byte, KeySize)
	_, _ = rand.Read(key) // never fails
	return key
}
