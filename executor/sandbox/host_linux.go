package sandbox

import (
	"errors"
	"syscall"

	"golang.org/x/sys/unix"
)

// attributes puts a program into a group of its own and ties it to the
// thread that starts it: if this process is killed, the program does not work on
// beside the attempt that another replica starts. Its children are not reached;
// they see their parent gone.
func attributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}

// awaitExit returns when the child has ended and leaves it to be reaped.
func awaitExit(pid int) {
	for {
		err := unix.Waitid(unix.P_PID, pid, nil, unix.WEXITED|unix.WNOWAIT, nil)
		if !errors.Is(err, unix.EINTR) {
			return
		}
	}
}
