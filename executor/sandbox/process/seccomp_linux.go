package process

import (
	"encoding/binary"

	"golang.org/x/sys/unix"
)

// refusal is a call to the kernel that no program in the sandbox needs, and what it
// is told instead.
type refusal struct {
	call  uint32
	errno unix.Errno
	when  []unix.SockFilter // leads to the refusal by its end, to what comes after it by a jump over that; nil: always
}

// The instructions of the kernel's filters. They stand in the order of the machine,
// as do the words that they load: the machines that have a filter are little-endian.
func load(offset uint32) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: offset}
}

func jump(test uint16, value uint32, yes, no uint8) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_JMP | test | unix.BPF_K, Jt: yes, Jf: no, K: value}
}

func answer(what uint32) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: what}
}

// Where struct seccomp_data has the number of the call, the machine that it is of,
// and the lower half of an argument.
const (
	atCall    = 0
	atMachine = 4
)

func argument(n uint32) uint32 { return 16 + 8*n }

// anyOf holds where an argument has one of some bits.
func anyOf(arg, bits uint32) []unix.SockFilter {
	return []unix.SockFilter{load(argument(arg)), jump(unix.BPF_JSET, bits, 0, 1)}
}

// making holds where a file is made with one of some bits of its mode: without the
// flags that make one, the mode is whatever stood there.
func making(flags, mode uint32) []unix.SockFilter {
	return append([]unix.SockFilter{
		load(argument(flags)), jump(unix.BPF_JSET, unix.O_CREAT|unix.O_TMPFILE&^unix.O_DIRECTORY, 0, 3),
	}, anyOf(mode, becoming)...)
}

// becoming is the bits of a mode by which whoever executes a file becomes its owner.
// The files of a workspace are the server's user's, outside of the sandbox too.
const becoming = unix.S_ISUID | unix.S_ISGID

// apart is the namespaces that a program could make for itself.
const apart = unix.CLONE_NEWNS | unix.CLONE_NEWCGROUP | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC | unix.CLONE_NEWUSER | unix.CLONE_NEWPID | unix.CLONE_NEWNET

// refusals are what is kept from programs: marks that make a file a way to become
// the server's user, sockets that know no namespace of the network (as those to the
// host of a virtual machine), the kernel's keys, and parts of it by which programs
// without any privileges have often got some.
func refusals() []refusal {
	list := []refusal{
		{unix.SYS_FCHMOD, unix.EPERM, anyOf(1, becoming)},
		{unix.SYS_FCHMODAT, unix.EPERM, anyOf(2, becoming)},
		{unix.SYS_FCHMODAT2, unix.EPERM, anyOf(2, becoming)},
		{unix.SYS_MKNODAT, unix.EPERM, anyOf(2, becoming)},
		{unix.SYS_OPENAT, unix.EPERM, making(2, 3)},
		{unix.SYS_OPENAT2, unix.ENOSYS, nil}, // its mode cannot be seen; all who use it know openat too
		{unix.SYS_SOCKET, unix.EAFNOSUPPORT, []unix.SockFilter{
			load(argument(0)),
			jump(unix.BPF_JEQ, unix.AF_UNIX, 6, 0), jump(unix.BPF_JEQ, unix.AF_INET, 5, 0), jump(unix.BPF_JEQ, unix.AF_INET6, 4, 0),
			jump(unix.BPF_JEQ, unix.AF_NETLINK, 0, 2), // lists of interfaces are asked for by it
			load(argument(2)), jump(unix.BPF_JEQ, unix.NETLINK_ROUTE, 1, 0),
		}},
		{unix.SYS_IOCTL, unix.EPERM, []unix.SockFilter{ // typing into a terminal for its user
			load(argument(1)), jump(unix.BPF_JEQ, unix.TIOCSTI, 1, 0), jump(unix.BPF_JEQ, tiocLinux, 0, 1),
		}},
		{unix.SYS_CLONE, unix.EPERM, anyOf(0, apart)},
		{unix.SYS_UNSHARE, unix.EPERM, anyOf(0, apart)},
		{unix.SYS_CLONE3, unix.ENOSYS, nil}, // as openat2
	}
	list = append(list, older...)
	for _, call := range []uint32{unix.SYS_IO_URING_SETUP, unix.SYS_IO_URING_ENTER, unix.SYS_IO_URING_REGISTER} {
		list = append(list, refusal{call, unix.ENOSYS, nil}) // it does what is refused above
	}
	for _, call := range []uint32{
		unix.SYS_KEYCTL, unix.SYS_ADD_KEY, unix.SYS_REQUEST_KEY, unix.SYS_BPF, unix.SYS_PERF_EVENT_OPEN, unix.SYS_USERFAULTFD, unix.SYS_FANOTIFY_INIT,
		unix.SYS_SETNS, unix.SYS_MOUNT, unix.SYS_UMOUNT2, unix.SYS_PIVOT_ROOT, unix.SYS_OPEN_TREE, unix.SYS_MOVE_MOUNT, unix.SYS_FSOPEN, unix.SYS_FSCONFIG,
		unix.SYS_FSMOUNT, unix.SYS_FSPICK, unix.SYS_MOUNT_SETATTR, unix.SYS_OPEN_BY_HANDLE_AT, unix.SYS_QUOTACTL, unix.SYS_QUOTACTL_FD, unix.SYS_SYSLOG,
		unix.SYS_ACCT, unix.SYS_SWAPON, unix.SYS_SWAPOFF, unix.SYS_REBOOT, unix.SYS_KEXEC_LOAD, unix.SYS_KEXEC_FILE_LOAD, unix.SYS_INIT_MODULE,
		unix.SYS_FINIT_MODULE, unix.SYS_DELETE_MODULE, unix.SYS_SETTIMEOFDAY, unix.SYS_CLOCK_SETTIME, unix.SYS_SETHOSTNAME, unix.SYS_SETDOMAINNAME,
	} {
		list = append(list, refusal{call, unix.EPERM, nil})
	}
	return list
}

// tiocLinux pastes into a virtual console.
const tiocLinux = 0x541C

// filter is the program of the kernel that refuses, as bwrap takes it; empty on
// machines of which it does not know how they call the kernel.
func filter() []byte {
	if machine == 0 {
		return nil
	}
	refuse := func(e unix.Errno) unix.SockFilter { return answer(unix.SECCOMP_RET_ERRNO | uint32(e)) } //nolint:gosec // a small number
	code := []unix.SockFilter{
		load(atMachine), jump(unix.BPF_JEQ, machine, 1, 0), refuse(unix.ENOSYS), // as 32-bit programs call, all numbers mean something else
		load(atCall), jump(unix.BPF_JGE, foreign, 0, 1), refuse(unix.ENOSYS),
	}
	for _, r := range refusals() {
		block := append(append([]unix.SockFilter{}, r.when...), refuse(r.errno))
		if r.when != nil {
			block = append(block, answer(unix.SECCOMP_RET_ALLOW))
		}
		code = append(append(code, jump(unix.BPF_JEQ, r.call, 0, uint8(len(block)))), block...) //nolint:gosec // a few instructions
	}
	code = append(code, answer(unix.SECCOMP_RET_ALLOW))
	out := make([]byte, 0, 8*len(code))
	for _, i := range code {
		out = binary.LittleEndian.AppendUint16(out, i.Code)
		out = append(out, i.Jt, i.Jf)
		out = binary.LittleEndian.AppendUint32(out, i.K)
	}
	return out
}
