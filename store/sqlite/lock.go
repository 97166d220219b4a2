package sqlite

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"
)

// errHeld says that another process (or another open store) holds the lock.
var errHeld = errors.New("the file is locked")

// fileLock is a held lock on a file; the kernel frees it with the process.
type fileLock struct{ f *os.File }

func (l *fileLock) close() { l.f.Close() }

// lockTry locks the file at once or returns errHeld.
func lockTry(path string) (*fileLock, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600) //nolint:gosec // beside the database
	if err != nil {
		return nil, err
	}
	if err := tryFlock(f); err != nil {
		f.Close()
		if errors.Is(err, errHeld) {
			return nil, errHeld
		}
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	return &fileLock{f: f}, nil
}

// lockWait is lockTry until the lock is free, for at most the given time.
func lockWait(ctx context.Context, path string, most time.Duration) (*fileLock, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, most, fmt.Errorf("%s: %w", path, errHeld))
	defer cancel()
	for {
		l, err := lockTry(path)
		if !errors.Is(err, errHeld) {
			return l, err
		}
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-time.After(2 * time.Millisecond):
		}
	}
}
