//go:build unix

package main

import "golang.org/x/sys/unix"

// freeDisk is how many bytes can still be written below a directory.
func freeDisk(dir string) (uint64, bool) {
	var s unix.Statfs_t
	if err := unix.Statfs(dir, &s); err != nil {
		return 0, false
	}
	return uint64(s.Bavail) * uint64(s.Bsize), true //nolint:gosec,unconvert // the types differ between systems; neither is negative
}
