package process

import (
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/orchestrator-project/orchestrator/executor/sandbox"
)

// system is where programs and libraries are. A symbolic link stays one.
var system = []string{"/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/nix/store", "/gnu/store"}

// settings are what programs read of /etc. What else stands there may be secret:
// root's files could be read, as it is the server's user who reads them.
var settings = []string{
	"alternatives", "bash.bashrc", "ca-certificates", "ca-certificates.conf", "crypto-policies", "debian_version", "fonts", "gai.conf", "group",
	"host.conf", "hosts", "inputrc", "ld.so.cache", "ld.so.conf", "ld.so.conf.d", "locale.alias", "locale.conf", "localtime", "lsb-release",
	"magic", "mime.types", "networks", "nsswitch.conf", "os-release", "passwd", "perl", "pki/ca-trust", "pki/tls/certs", "profile", "protocols",
	"python3", "redhat-release", "resolv.conf", "rpc", "services", "ssl/certs", "ssl/openssl.cnf", "terminfo", "timezone",
}

// kernel is what /proc holds of the machine as a whole: root may change it, even
// without privileges, and a server that runs as root has its programs be root there.
var kernel = []string{"sys", "sysrq-trigger", "fs", "irq", "bus", "mtrr", "driver", "scsi", "acpi", "asound", "pressure"}

// inner is what it holds that is nobody's business.
var inner = []string{"kcore", "kmsg", "keys", "key-users", "kallsyms", "kpagecount", "kpageflags", "kpagecgroup", "latency_stats", "sched_debug", "timer_list", "slabinfo", "vmallocinfo", "zoneinfo"}

// seal makes what /proc holds of the machine read-only, or empty.
func seal(o []string) []string {
	for _, name := range kernel {
		if path := "/proc/" + name; exists(path) {
			o = append(o, "--ro-bind", path, path)
		}
	}
	for _, name := range inner {
		if path := "/proc/" + name; exists(path) {
			o = append(o, "--ro-bind", os.DevNull, path)
		}
	}
	return o
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// mount is a place of this machine that a program sees.
type mount struct {
	from, to string
	write    bool
}

// view is what a program sees of this machine.
type view struct {
	r         rung
	base      []mount  // the system and what all may read
	hidden    []string // of those, what nobody may see
	given     []mount  // the program's workspace, and what was given to it
	workspace string
}

func (d *Driver) view(r rung, s sandbox.Spec) *view {
	v := &view{r: r, workspace: filepath.Clean(s.Workspace)}
	for _, dir := range system {
		if exists(dir) {
			v.base = append(v.base, mount{from: dir, to: dir})
		}
	}
	for _, name := range settings {
		path := filepath.Join("/etc", name)
		if real, err := filepath.EvalSymlinks(path); err == nil {
			v.base = append(v.base, mount{from: real, to: path})
		}
	}
	for _, dir := range d.Readable {
		if real, err := filepath.EvalSymlinks(dir); err == nil {
			v.base = append(v.base, mount{from: real, to: filepath.Clean(dir)})
		}
	}
	for _, h := range d.Hidden {
		if real, err := filepath.EvalSymlinks(h); err == nil {
			v.hidden = append(v.hidden, real)
		}
	}
	for _, dir := range s.Readable {
		v.given = append(v.given, mount{from: dir, to: filepath.Clean(dir)})
	}
	v.given = append(v.given, mount{from: v.workspace, to: v.workspace, write: true})
	// What lies below something else comes after it, or it would be covered.
	slices.SortStableFunc(v.given, func(a, b mount) int { return strings.Count(a.to, "/") - strings.Count(b.to, "/") })
	return v
}

// sees reports whether the program at a path can be executed, with what it is a
// link to.
func (v *view) sees(path string) bool {
	real, err := filepath.EvalSymlinks(path)
	return err == nil && v.shows(filepath.Clean(path)) && v.shows(real)
}

func (v *view) shows(path string) bool {
	for _, m := range v.given {
		if below(path, m.to) {
			return true
		}
	}
	return !slices.ContainsFunc(v.hidden, func(h string) bool { return below(path, h) }) &&
		slices.ContainsFunc(v.base, func(m mount) bool { return below(path, m.to) })
}

// options are those of bwrap.
func (v *view) options(program, dir string, network bool, environ []string) []string {
	o := []string{
		"--unshare-ipc", "--unshare-pid", "--unshare-uts", "--unshare-cgroup-try", "--hostname", "sandbox",
		"--die-with-parent", "--new-session", "--cap-drop", "ALL", "--info-fd", infoFD, "--block-fd", beginFD,
	}
	if machine != 0 {
		o = append(o, "--seccomp", filterFD)
	}
	if !network {
		o = append(o, "--unshare-net")
	}
	if v.r.users {
		o = append(o, "--unshare-user", "--uid", "65534", "--gid", "65534")
		if v.r.seals {
			o = append(o, "--disable-userns")
		}
	}
	scratch := strconv.Itoa(sandbox.Scratch)
	o = append(o, "--dev", "/dev", "--perms", "1777", "--size", scratch, "--tmpfs", "/dev/shm", "--remount-ro", "/dev")
	if v.r.proc {
		o = append(o, "--proc", "/proc")
		o = seal(o)
	}
	o = append(o, "--perms", "1777", "--size", scratch, "--tmpfs", "/tmp")
	for _, m := range v.base {
		if target, err := os.Readlink(m.to); err == nil && m.from == m.to {
			o = append(o, "--symlink", target, m.to)
			continue
		}
		o = append(o, "--ro-bind", m.from, m.to)
	}
	if !v.sees(program) { // a program in an unusual place, as it stands there alone
		if real, err := filepath.EvalSymlinks(program); err == nil {
			o = append(o, "--ro-bind", real, filepath.Clean(program))
		}
	}
	o = v.mask(o, func(h string) bool {
		return !v.holds(h) && slices.ContainsFunc(v.base, func(m mount) bool { return below(h, m.to) })
	})
	for _, m := range v.given {
		how := "--ro-bind"
		if m.write {
			how = "--bind"
		}
		o = append(o, how, m.from, m.to)
		if m.write {
			// A workspace may hold the server's home, and that what was given.
			o = v.mask(o, func(h string) bool { return below(h, v.workspace) && h != v.workspace })
		}
	}
	o = append(o, "--remount-ro", "/", "--chdir", dir, "--clearenv")
	for _, kv := range environ {
		name, value, _ := strings.Cut(kv, "=")
		o = append(o, "--setenv", name, value)
	}
	return o
}

// holds reports whether the workspace lies in a hidden folder: of that, nothing
// else is there in any case.
func (v *view) holds(h string) bool { return below(v.workspace, h) }

// mask puts nothing in the place of what nobody may see.
func (v *view) mask(o []string, which func(string) bool) []string {
	for _, h := range v.hidden {
		info, err := os.Stat(h)
		switch {
		case err != nil || !which(h):
		case info.IsDir():
			o = append(o, "--perms", "0555", "--size", "4096", "--tmpfs", h)
		default:
			o = append(o, "--ro-bind", os.DevNull, h)
		}
	}
	return o
}
