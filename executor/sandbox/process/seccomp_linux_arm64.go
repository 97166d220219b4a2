package process

import "golang.org/x/sys/unix"

// machine is whose calls the filter knows; from foreign on, there are none.
const (
	machine = unix.AUDIT_ARCH_AARCH64
	foreign = 0x40000000
)

// older are calls that newer machines, as this, do not have.
var older []refusal
