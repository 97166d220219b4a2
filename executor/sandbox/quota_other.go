//go:build !linux

package sandbox

// quota is for Linux only, as are the sandboxes.
type quota struct{}

func newQuota(string, int64) *quota { return nil }

func (*quota) exceeded() bool { return false }
