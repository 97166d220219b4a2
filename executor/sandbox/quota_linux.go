package sandbox

import (
	"errors"
	"io/fs"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// reserve is how full a disk may become by a program that has written more than
// it may, wherever that is: its last 16th part is for the others.
const reserve = 16

// quota tells when a program has written more to its workspace than it may. Most
// of the time that costs one system call: only when the file system as a whole has
// become fuller by as much does it look at the files.
type quota struct {
	dir   string
	limit int64     // bytes
	begun time.Time // changes since then are the program's
	used  int64     // bytes of the file system when the files were looked at
	files int64     // files of the file system then
}

// least is what a file counts at least: a file system has room for so many only.
const least = 4096

// newQuota is nil where the file system does not tell.
func newQuota(dir string, limit int64) *quota {
	used, files, _, err := filled(dir)
	if err != nil {
		return nil
	}
	return &quota{dir: dir, limit: limit, begun: time.Now(), used: used, files: files}
}

// filled is how many bytes and files of a file system are in use, and whether it is
// nearly full. Some do not count files.
func filled(dir string) (used, files int64, scarce bool, err error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return 0, 0, false, err
	}
	scarce = st.Bavail < st.Blocks/reserve || st.Ffree < st.Files/reserve
	return int64(st.Blocks-st.Bfree) * st.Bsize, int64(st.Files - st.Ffree), scarce, nil //nolint:gosec // no disk has 2^63 bytes
}

func (q *quota) exceeded() bool {
	used, files, scarce, err := filled(q.dir)
	grown := max(used-q.used, (files-q.files)*least)
	if err != nil || grown <= q.limit {
		return false
	}
	written, whole := q.written()
	if !whole {
		written = grown // what a program hides is held to be all of it
	}
	// Files that were removed while open are found by no walk: where the disk runs
	// full while this program runs, it is held to be its doing.
	if written > q.limit || scarce {
		return true
	}
	q.used, q.files = used-written, files-written/least // others wrote
	return false
}

// written is the size on disk of the files that changed since the program began, and
// whether all could be seen. A program cannot forge the time of a change.
func (q *quota) written() (sum int64, whole bool) {
	whole = true
	seen := map[uint64]bool{} // files with several names count once
	_ = filepath.WalkDir(q.dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil {
			whole = whole && !errors.Is(err, fs.ErrPermission)
			if d != nil && d.IsDir() {
				return fs.SkipDir
			}
			return nil // it is gone by now
		}
		info, err := d.Info()
		if err != nil {
			return nil //nolint:nilerr // as above
		}
		st, ok := info.Sys().(*syscall.Stat_t)
		if !ok || time.Unix(st.Ctim.Unix()).Before(q.begun.Add(-time.Second)) {
			return nil
		}
		if st.Nlink > 1 {
			if seen[st.Ino] {
				return nil
			}
			seen[st.Ino] = true
		}
		if sum += max(st.Blocks*512, least); sum > q.limit {
			return fs.SkipAll
		}
		return nil
	})
	return sum, whole
}
