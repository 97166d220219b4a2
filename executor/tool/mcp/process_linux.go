package mcp

import "syscall"

// attributes puts a program into a group of its own, and ties it to the thread
// that starts it: a server does not outlive a process of ours that is killed.
func attributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
