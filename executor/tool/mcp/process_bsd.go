//go:build darwin || dragonfly || freebsd || netbsd || openbsd

package mcp

import "syscall"

// attributes puts a program into a group of its own.
func attributes() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }
