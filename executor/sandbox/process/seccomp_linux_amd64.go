package process

import "golang.org/x/sys/unix"

// machine is whose calls the filter knows; from foreign on, numbers are those of
// another way to call this kernel.
const (
	machine = unix.AUDIT_ARCH_X86_64
	foreign = 0x40000000
)

// older are calls that newer machines do not have.
var older = []refusal{
	{unix.SYS_CHMOD, unix.EPERM, anyOf(1, becoming)},
	{unix.SYS_CREAT, unix.EPERM, anyOf(1, becoming)},
	{unix.SYS_MKNOD, unix.EPERM, anyOf(1, becoming)},
	{unix.SYS_OPEN, unix.EPERM, making(1, 2)},
	{unix.SYS_IOPL, unix.EPERM, nil},
	{unix.SYS_IOPERM, unix.EPERM, nil},
	{unix.SYS_USELIB, unix.EPERM, nil},
}
