package main

import (
	"bufio"
	"fmt"
	"os"
	"strings"
	"syscall"
)

// releaseProgram gives back to the system the memory that holds parts of the
// program's own file. Starting and loads touch most of a large program, and a
// process that is idle needs little of it; what it needs again is mapped anew from
// the file, mostly from the system's cache. Only parts that nobody has written to
// are given back, so that none of them is lost. It returns how many bytes stood in
// memory.
func releaseProgram() (int64, error) {
	file, err := os.Open("/proc/self/smaps")
	if err != nil {
		return 0, fmt.Errorf("read how memory is used: %w", err)
	}
	defer func() { _ = file.Close() }()
	program, err := os.Stat("/proc/self/exe")
	if err != nil {
		return 0, fmt.Errorf("find the program's file: %w", err)
	}
	stat, ok := program.Sys().(*syscall.Stat_t)
	if !ok {
		return 0, nil
	}
	var released int64
	at, lines := stretch{}, bufio.NewScanner(file)
	for lines.Scan() {
		line := lines.Text()
		if s, ok := stretchOf(line); ok {
			at = s
			continue
		}
		if at.inode != stat.Ino || !at.clean {
			continue
		}
		var kib int64
		if n, _ := fmt.Sscanf(line, "Rss: %d kB", &kib); n == 1 {
			at.resident = kib << 10
		}
		// Anonymous are pages that were written to since they were mapped.
		if n, _ := fmt.Sscanf(line, "Anonymous: %d kB", &kib); n == 1 && kib == 0 && at.resident > 0 {
			if _, _, e := syscall.Syscall(syscall.SYS_MADVISE, at.from, at.to-at.from, syscall.MADV_DONTNEED); e != 0 {
				return released, fmt.Errorf("give back the program's memory: %w", e)
			}
			released += at.resident
		}
	}
	return released, lines.Err()
}

// stretch is a part of the process's memory.
type stretch struct {
	from, to uintptr
	inode    uint64
	clean    bool // it is private and cannot be written to
	resident int64
}

// stretchOf reads the line of smaps that begins one.
func stretchOf(line string) (stretch, bool) {
	var s stretch
	var access, device string
	var offset uint64
	if n, _ := fmt.Sscanf(line, "%x-%x %s %x %s %d", &s.from, &s.to, &access, &offset, &device, &s.inode); n != 6 {
		return stretch{}, false
	}
	s.clean = len(access) == 4 && access[1] == '-' && strings.HasSuffix(access, "p")
	return s, true
}
