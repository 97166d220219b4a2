package store

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"
)

// ErrFileLocked says that another process, or another holder in this one, has a lock.
var ErrFileLocked = errors.New("the file is locked")

// FileLock is a held lock on a file; the kernel frees it with the process.
type FileLock struct{ f *os.File }

// Release frees the lock. The file stays, for the next holder.
func (l *FileLock) Release() { l.f.Close() }

// TryLockFile locks the file, which it makes if need be, at once or returns
// ErrFileLocked.
func TryLockFile(path string) (*FileLock, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600) //nolint:gosec // a name that callers have made
	if err != nil {
		return nil, err
	}
	if err := tryFlock(f); err != nil {
		f.Close()
		if errors.Is(err, ErrFileLocked) {
			return nil, ErrFileLocked
		}
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	return &FileLock{f: f}, nil
}

// LockFile is TryLockFile until the lock is free, for at most the given time.
func LockFile(ctx context.Context, path string, most time.Duration) (*FileLock, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, most, fmt.Errorf("%s: %w", path, ErrFileLocked))
	defer cancel()
	for {
		l, err := TryLockFile(path)
		if !errors.Is(err, ErrFileLocked) {
			return l, err
		}
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-time.After(2 * time.Millisecond):
		}
	}
}
