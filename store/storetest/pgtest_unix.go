//go:build unix

package storetest

import (
	"context"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// clusterDir is where clusters live: the user's cache, or, since Postgres
// refuses to run as root and cannot enter root's home, the place for
// temporary files.
func clusterDir() (string, error) {
	base, err := os.UserCacheDir()
	if err != nil || os.Geteuid() == 0 {
		base = os.TempDir()
	}
	dir := filepath.Join(base, "orchestrator-test")
	if os.Geteuid() != 0 {
		return dir, os.MkdirAll(dir, 0o700)
	}
	dir += "-root"
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	info, err := os.Lstat(dir)
	if err != nil {
		return "", err
	}
	if st, ok := info.Sys().(*syscall.Stat_t); !ok || !info.IsDir() || st.Uid != 0 {
		return "", &os.PathError{Op: "use", Path: dir, Err: os.ErrPermission} // somebody else's
	}
	return dir, os.Chmod(dir, 0o755)
}

func lockFile(ctx context.Context, path string) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	for {
		if err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err == nil {
			return func() { f.Close() }, nil
		}
		select {
		case <-ctx.Done():
			f.Close()
			return nil, ctx.Err()
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// serverUser is whom the server runs as when we are root.
func serverUser() (uid, gid uint32, ok bool) {
	if os.Geteuid() != 0 {
		return 0, 0, false
	}
	for _, name := range []string{"postgres", "nobody"} {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		id, err1 := strconv.ParseUint(u.Uid, 10, 32)
		group, err2 := strconv.ParseUint(u.Gid, 10, 32)
		if err1 == nil && err2 == nil {
			return uint32(id), uint32(group), true
		}
	}
	return 65534, 65534, true
}

// asServer makes cmd run as the server's user, in a session of its own.
func asServer(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if uid, gid, ok := serverUser(); ok {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uid, Gid: gid}
	}
}

func giveToServer(paths ...string) error {
	uid, gid, ok := serverUser()
	if !ok {
		return nil
	}
	for _, p := range paths {
		if err := os.Chown(p, int(uid), int(gid)); err != nil {
			return err
		}
	}
	return nil
}

// quit is an immediate shutdown.
func quit(p *os.Process) { _ = p.Signal(syscall.SIGQUIT) }

// isPostmaster tells whether the process is the one that serves the data
// folder, not another that was given its number since.
func isPostmaster(pid int, data string) bool {
	if syscall.Kill(pid, 0) != nil {
		return false
	}
	b, err := os.ReadFile(filepath.Join(data, "postmaster.pid"))
	if err != nil {
		return false // it has ended, or not begun
	}
	first, _, _ := strings.Cut(string(b), "\n")
	return first == strconv.Itoa(pid)
}
