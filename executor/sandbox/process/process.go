// Package process locks programs of this machine in by bubblewrap (bwrap), for
// Linux. A program sees the system's programs and libraries, what it was given to
// read, and its workspace, which is the one place that it can change besides a
// bounded scratch space; it has no network, sees no other processes and has no
// privileges. Nothing that it has started outlives it.
//
// What it takes is bound by control groups where this process may make some, and
// by resource limits elsewhere; the Level of each program says which it was. Where
// the machine does not allow all of it, as in some containers, the driver takes
// the strictest that works, and says so.
//
//	d := &process.Driver{Hidden: []string{home}}
//	p, err := d.Start(ctx, sandbox.Spec{Workspace: dir}, sandbox.Program{Argv: []string{"id"}, Environ: environ})
package process

import (
	"path/filepath"
	"strings"
	"sync"

	"github.com/orchestrator-project/orchestrator/executor/sandbox"
)

// Driver runs programs by bwrap. The zero value works.
type Driver struct {
	// Find finds bwrap; nil: in the PATH of this process, since that of a step may
	// lead into its workspace.
	Find func() (string, error)
	// Readable are folders of this machine that every program can read besides the
	// system's: programs and data in unusual places.
	Readable []string
	// Hidden are files and folders that no program may see wherever they lie: what
	// belongs to this server. A workspace and what a Spec names may lie below.
	Hidden []string
	// Groups is where control groups are looked for; empty: where the kernel says.
	// Tests set it to a folder without any.
	Groups string

	mu    sync.Mutex // guards rung and level
	rung  *rung      // the strictest that works here; nil: not known yet
	level sandbox.Level
}

var _ sandbox.Driver = (*Driver)(nil)

// Name is process.
func (*Driver) Name() string { return sandbox.Process }

// below reports whether a path is dir or lies in it; both are clean.
func below(path, dir string) bool {
	return path == dir || strings.HasPrefix(path, strings.TrimSuffix(dir, string(filepath.Separator))+string(filepath.Separator))
}
