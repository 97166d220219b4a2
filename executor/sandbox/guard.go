package sandbox

import (
	"os"
	"strconv"
	"syscall"
)

// guard is a small process beside a program: it ends the program's group when this
// process is gone without having called end, as after SIGKILL.
type guard struct {
	proc *os.Process
	hold *os.File // its standard input, which ends with this process
}

// guarding starts a guard of a process group; nil: there is none to be had, and what
// the program has started may outlive this process.
func guarding(group int) *guard {
	r, w, err := os.Pipe()
	if err != nil {
		return nil
	}
	defer func() { _ = r.Close() }()
	proc, err := os.StartProcess("/bin/sh", []string{"sh", "-c", `read -r over || kill -s KILL -- "-$0"`, strconv.Itoa(group)},
		&os.ProcAttr{Dir: "/", Env: []string{}, Files: []*os.File{r, nil, nil}, Sys: &syscall.SysProcAttr{Setpgid: true}})
	if err != nil {
		_ = w.Close()
		return nil
	}
	return &guard{proc: proc, hold: w}
}

// end lets the guard go: there is nothing left for it to do.
func (g *guard) end() {
	if g == nil {
		return
	}
	_, _ = g.hold.WriteString("over\n")
	_ = g.hold.Close()
	_, _ = g.proc.Wait()
}
