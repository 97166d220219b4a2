//go:build darwin || dragonfly || freebsd || netbsd || openbsd

package sandbox

import (
	"errors"
	"syscall"

	"golang.org/x/sys/unix"
)

// attributes puts a program into a group of its own.
func attributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true}
}

// awaitExit returns when the child has ended and leaves it to be reaped.
func awaitExit(pid int) {
	kq, err := unix.Kqueue()
	if err != nil {
		return
	}
	defer unix.Close(kq)
	var event [1]unix.Kevent_t
	unix.SetKevent(&event[0], pid, unix.EVFILT_PROC, unix.EV_ADD|unix.EV_ONESHOT)
	event[0].Fflags = unix.NOTE_EXIT
	for {
		// Registering fails where the process has ended already.
		n, err := unix.Kevent(kq, event[:], event[:], nil)
		if n > 0 || !errors.Is(err, unix.EINTR) {
			return
		}
	}
}
