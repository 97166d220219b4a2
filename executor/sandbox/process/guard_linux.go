package process

import (
	"errors"
	"fmt"
	"io/fs"
	"runtime"

	"golang.org/x/sys/unix"
)

// devices are those of the machine that bwrap gives to programs.
var devices = []string{"/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty"}

// guard makes the machine's own files that every program can reach as such read-only
// for this thread and what it starts: the devices, which can be written to all the
// same, and bwrap itself, which is /proc/1/exe. A program of root's is their owner
// and could change their modes. The thread is of no other use from then on.
func guard(bwrap string) error {
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("make a namespace of mounts: %w", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("keep mounts apart: %w", err)
	}
	for _, path := range append([]string{bwrap}, devices...) {
		err := unix.Mount(path, path, "", unix.MS_BIND, "")
		if err == nil {
			err = unix.MountSetattr(unix.AT_FDCWD, path, 0, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY})
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("make %s read-only: %w", path, err)
		}
	}
	return nil
}

// guards tells whether this process may do that.
func guards(bwrap string) bool {
	result := make(chan error)
	go func() {
		runtime.LockOSThread() // for good: the thread ends with this function
		result <- guard(bwrap)
	}()
	return <-result == nil
}
