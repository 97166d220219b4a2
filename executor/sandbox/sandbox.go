// Package sandbox confines the processes of steps. It makes command lines and
// starts nothing that lasts: whoever runs a program puts the sandbox before it.
//
//	argv, err := sandbox.Bubblewrap{}.Wrap(ctx, sandbox.Spec{Workspace: dir}, []string{"/bin/sh", "-c", "id"})
package sandbox

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Name is what pipelines and results call the one driver that there is.
const Name = "bubblewrap"

// tryTime is how long it may take to find out whether a sandbox works here.
const tryTime = 10 * time.Second

// Spec says what a program may use.
type Spec struct {
	Workspace string   // absolute; the one folder that it may change
	Readable  []string // folders that it can read although they lie below /tmp or /run
	Network   bool     // false: none but its own
	Memory    int64    // bytes of data that each of its processes may have; 0: no bound
	Pids      int      // processes; 0: no bound. The kernel does not bind the user root by it
	CPU       float64  // processors, rounded up; 0: no bound
}

// Bubblewrap is the driver for Linux with the program bwrap: the program sees
// the file system as it is, but can change only its workspace and an empty /tmp of
// its own; it sees no other processes, has no network and no privileges. When
// bwrap ends, all its processes do.
type Bubblewrap struct {
	// Find finds bwrap; nil: in the PATH of this process, since that of a step may
	// lead into its workspace.
	Find func() (string, error)
}

// Wrap is the command line that runs argv, whose first word is an absolute path,
// in the sandbox. It tries the sandbox out with a program that does nothing, as
// not every machine allows one; the error says why there is none.
func (b Bubblewrap) Wrap(ctx context.Context, s Spec, argv []string) ([]string, error) {
	find := b.Find
	if find == nil {
		find = look("bwrap")
	}
	bwrap, err := find()
	if err != nil {
		return nil, err
	}
	line := []string{
		bwrap, "--unshare-all", "--die-with-parent", "--new-session", "--cap-drop", "ALL",
		"--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc", "--tmpfs", "/tmp",
	}
	if s.Network {
		line = append(line, "--share-net")
	}
	if info, err := os.Stat("/run"); err == nil && info.IsDir() {
		line = append(line, "--tmpfs", "/run") // the sockets of the machine's services
	}
	for _, dir := range s.Readable {
		line = append(line, "--ro-bind", dir, dir)
	}
	line = append(line, "--bind", s.Workspace, s.Workspace, "--chdir", s.Workspace, "--setenv", "TMPDIR", "/tmp", "--")
	bounds, err := s.bounds()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, tryTime)
	defer cancel()
	try := exec.CommandContext(ctx, bwrap, append(slices.Clone(line[1:]), "/bin/sh", "-c", ":")...) //nolint:gosec // bwrap, with folders that we have made
	try.Env = []string{"PATH=/usr/bin:/bin"}
	if out, err := try.CombinedOutput(); err != nil {
		said := strings.Join(strings.Fields(cmp.Or(string(out), err.Error())), " ")
		return nil, errors.New("bwrap does not work here: " + said[:min(len(said), 300)])
	}
	return slices.Concat(line, bounds, argv), nil
}

// bounds is what comes before a program to bound what it uses.
func (s Spec) bounds() ([]string, error) {
	var line []string
	if s.Memory > 0 || s.Pids > 0 {
		prlimit, err := look("prlimit")()
		if err != nil {
			return nil, err
		}
		line = append(line, prlimit)
		if s.Memory > 0 {
			line = append(line, "--data="+strconv.FormatInt(s.Memory, 10))
		}
		if s.Pids > 0 {
			line = append(line, "--nproc="+strconv.Itoa(s.Pids))
		}
		line = append(line, "--")
	}
	if n := int(math.Ceil(s.CPU)); n > 0 && n < runtime.NumCPU() {
		taskset, err := look("taskset")()
		if err != nil {
			return nil, err
		}
		line = append(line, taskset, "--cpu-list", fmt.Sprintf("0-%d", n-1))
	}
	return line, nil
}

// look finds a program in the PATH of this process.
func look(name string) func() (string, error) {
	return func() (string, error) {
		path, err := exec.LookPath(name)
		if err != nil {
			return "", fmt.Errorf("the program %s is not installed", name)
		}
		return path, nil
	}
}
