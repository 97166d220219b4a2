package process

import (
	"bufio"
	"bytes"
	"cmp"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/orchestrator-project/orchestrator/executor/sandbox"
)

// group is the control groups of one program: one folder in the second version of
// the kernel's interface, one for each controller in the first.
type group struct {
	dirs  map[string]string // memory, cpu, pids: the folder that holds it
	first bool              // the first version
}

// groupNumber tells the groups of this process apart.
var groupNumber atomic.Int64

// newGroup puts a process into control groups that hold what the spec says, as far
// as this process may make some: what is not held is missing in it. root is
// where control groups are; empty: where the kernel says.
func newGroup(root string, s sandbox.Spec, pid int) *group {
	name := "orchestrator-" + strconv.Itoa(os.Getpid()) + "-" + strconv.FormatInt(groupNumber.Add(1), 10)
	places, first := findGroups(root)
	g := &group{dirs: map[string]string{}, first: first}
	for _, controller := range []string{"memory", "cpu", "pids"} {
		want := map[string]bool{"memory": s.Memory > 0, "cpu": s.CPU > 0, "pids": s.Pids > 0}
		if place := places[controller]; place != "" && want[controller] {
			g.hold(controller, filepath.Join(place, name), s, pid)
		}
	}
	return g
}

// hold makes a group for a controller, unless there is one, sets the bound and
// moves the process there.
func (g *group) hold(controller, dir string, s sandbox.Spec, pid int) {
	if err := os.Mkdir(dir, 0o755); err != nil && !os.IsExist(err) { //nolint:gosec // the kernel's own rights
		return
	}
	set := func(file, text string) bool {
		return os.WriteFile(filepath.Join(dir, file), []byte(text), 0o600) == nil
	}
	ok := false
	switch controller {
	case "memory":
		bytes := strconv.FormatInt(s.Memory, 10)
		if g.first {
			ok = set("memory.limit_in_bytes", bytes)
			set("memory.memsw.limit_in_bytes", bytes) // where swap is counted
		} else {
			ok = set("memory.max", bytes)
			set("memory.swap.max", "0")
			set("memory.oom.group", "1")
		}
	case "pids":
		ok = set("pids.max", strconv.Itoa(s.Pids))
	case "cpu":
		const period = 100_000 // microseconds
		quota := strconv.FormatInt(max(1000, int64(math.Round(s.CPU*period))), 10)
		if g.first {
			ok = set("cpu.cfs_period_us", strconv.Itoa(period)) && set("cpu.cfs_quota_us", quota)
		} else {
			ok = set("cpu.max", quota+" "+strconv.Itoa(period))
		}
	}
	if ok = ok && set("cgroup.procs", strconv.Itoa(pid)); ok {
		g.dirs[controller] = dir
	} else {
		_ = os.Remove(dir) // stays where another controller holds it
	}
}

// holds says how a bound is held: by these groups, or, as far as they know, not.
func (g *group) holds(controller string) string {
	if g == nil || g.dirs[controller] == "" {
		return ""
	}
	return "cgroup"
}

// starved reports whether the kernel killed a process for want of memory.
func (g *group) starved() bool {
	if g.holds("memory") == "" {
		return false
	}
	file := "memory.events"
	if g.first {
		file = "memory.oom_control"
	}
	text, err := os.ReadFile(filepath.Join(g.dirs["memory"], file))
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(text)) {
		if n, ok := strings.CutPrefix(strings.TrimSpace(line), "oom_kill "); ok {
			return n != "0"
		}
	}
	return false
}

// remove frees the groups. Their processes are gone, but for a moment the kernel
// may still count them.
func (g *group) remove() {
	if g == nil {
		return
	}
	for _, dir := range g.dirs {
		for wait := time.Millisecond; wait < time.Second; wait *= 2 {
			if err := os.Remove(dir); err == nil || os.IsNotExist(err) {
				break
			}
			time.Sleep(wait)
		}
	}
}

// findGroups is where groups for each controller can be made: beside or below the
// group of this process.
func findGroups(root string) (places map[string]string, first bool) {
	places = map[string]string{}
	if root != "" {
		return places, false
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return places, false
	}
	own, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return places, false
	}
	of := map[string]string{} // controller, or nothing for the second version -> path
	for line := range strings.Lines(string(own)) {
		if parts := strings.SplitN(strings.TrimSpace(line), ":", 3); len(parts) == 3 {
			for name := range strings.SplitSeq(parts[1], ",") {
				of[name] = parts[2]
			}
		}
	}
	lines := bufio.NewScanner(bytes.NewReader(mounts))
	for lines.Scan() {
		before, after, _ := strings.Cut(lines.Text(), " - ")
		fields, kind := strings.Fields(before), strings.Fields(after)
		if len(fields) < 5 || len(kind) < 3 {
			continue
		}
		at := func(path string) string { // of a path of /proc/self/cgroup, seen through this mount
			return filepath.Join(fields[4], strings.TrimPrefix(path, strings.TrimSuffix(cmp.Or(fields[3], "/"), "/")))
		}
		switch kind[0] {
		case "cgroup2":
			own := at(of[""])
			for _, dir := range []string{own, filepath.Dir(own)} {
				if below(dir, fields[4]) && delegated(dir, places) {
					break
				}
			}
		case "cgroup":
			for name := range strings.SplitSeq(kind[2], ",") {
				if name == "memory" || name == "cpu" || name == "pids" {
					places[name], first = at(of[name]), true
				}
			}
		}
	}
	return places, first
}

// delegated finds out which controllers groups below dir may have, and asks for
// them where nobody did. The kernel refuses that for a group that holds processes.
func delegated(dir string, places map[string]string) bool {
	for _, c := range []string{"memory", "cpu", "pids"} {
		_ = os.WriteFile(filepath.Join(dir, "cgroup.subtree_control"), []byte("+"+c), 0o600)
	}
	text, err := os.ReadFile(filepath.Join(dir, "cgroup.subtree_control")) //nolint:gosec // of the kernel
	if err != nil {
		return false
	}
	found := false
	for c := range strings.FieldsSeq(string(text)) {
		if c == "memory" || c == "cpu" || c == "pids" {
			places[c], found = dir, true
		}
	}
	return found
}
