package process

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/orchestrator-project/orchestrator/executor/sandbox"
)

// TestTheMachinesFilesKeepTheirModes holds that a program of root's, which owns them,
// changes neither the devices that it is given nor bwrap itself.
func TestTheMachinesFilesKeepTheirModes(t *testing.T) {
	set := real(t, &Driver{})
	level, _ := set.Drivers[0].Probe(t.Context())
	if !level.Users {
		t.Skip("the machine does not allow it, and the level says so: ", level)
	}
	bwrap, err := look()
	if err != nil {
		t.Fatal(err)
	}
	// The mode is what it is already: where the test fails, nothing is broken.
	line := "chmod " + mode(t, os.DevNull) + ` /dev/null 2>/dev/null && echo /dev/null
chmod ` + mode(t, bwrap) + ` /proc/1/exe 2>/dev/null && echo bwrap
for fd in 0 1 2; do [ -c /proc/self/fd/$fd ] && echo "$fd is a device"; done
echo x >/dev/null && head -c 1 /dev/urandom | wc -c`
	says(t, attack(t, set, nil, t.TempDir(), line), "1\n")

	// Also what nobody reads or writes is no file of the machine.
	dir := t.TempDir()
	run, err := set.Start(t.Context(), nil, sandbox.Spec{Workspace: dir}, bash("for fd in 0 1 2; do readlink /proc/self/fd/$fd; done >links; head -c 200000 /dev/zero"))
	if err != nil {
		t.Fatal(err)
	}
	if exit, err := run.Wait(); err != nil || exit.Code != 0 {
		t.Errorf("exit %+v, %v", exit, err)
	}
	if links := read(t, dir, "links"); strings.Contains(links, "/dev/null") {
		t.Errorf("it was given %q", links)
	}
}

func mode(t *testing.T, path string) string {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return strconv.FormatInt(int64(info.Mode().Perm()), 8)
}

// TestNoFileMakesItsUserAnother holds that no file of a workspace, which is the
// server's user's, lets whoever executes it become that user.
func TestNoFileMakesItsUserAnother(t *testing.T) {
	needsFilter(t)
	set := real(t, &Driver{})
	dir := t.TempDir()
	says(t, attack(t, set, nil, dir, `
cp /bin/true tool; mkdir d
chmod 4755 tool 2>/dev/null && echo chmod
chmod 2755 tool 2>/dev/null && echo group
chmod g+s d 2>/dev/null && echo folder
install -m 4755 /bin/true other 2>/dev/null; [ -u other ] && echo install
python3 - <<'P'
import os, stat
for name, make in {
    "open": lambda: os.close(os.open("made", os.O_CREAT | os.O_WRONLY, 0o4755)),
    "mknod": lambda: os.mknod("node", 0o4755 | stat.S_IFREG),
    "fchmod": lambda: os.fchmod(os.open("tool", os.O_RDONLY), 0o6755),
}.items():
    try:
        make()
        print(name)
    except PermissionError:
        pass
os.close(os.open("plain", os.O_CREAT | os.O_WRONLY, 0o755))
os.mkfifo("pipe")
P
chmod 755 tool && echo over`), "over\n")
	found, err := exec.CommandContext(t.Context(), "find", dir, "-perm", "/6000").Output()
	if err != nil || len(found) > 0 {
		t.Errorf("found %q, %v", found, err)
	}
}

func needsFilter(t *testing.T) {
	t.Helper()
	if machine == 0 {
		t.Skip("there is no filter of calls for this machine, and levels say so")
	}
}

// TestCallsThatNobodyNeedsAreRefused tries, beside others, the sockets that know no
// namespace of the network: those to the host of a virtual machine.
func TestCallsThatNobodyNeedsAreRefused(t *testing.T) {
	needsFilter(t)
	set := real(t, &Driver{})
	calls := map[string]int{
		"io_uring_setup": unix.SYS_IO_URING_SETUP, "bpf": unix.SYS_BPF, "perf_event_open": unix.SYS_PERF_EVENT_OPEN, "userfaultfd": unix.SYS_USERFAULTFD,
		"keyctl": unix.SYS_KEYCTL, "add_key": unix.SYS_ADD_KEY, "request_key": unix.SYS_REQUEST_KEY, "setns": unix.SYS_SETNS, "openat2": unix.SYS_OPENAT2,
	}
	line := "python3 - <<'P'\nimport ctypes, errno, socket\n" + `
for family in range(1, 46):
    for kind, protocol in ((1, 0), (2, 0), (3, 0), (5, 0), (3, 9), (3, 15)):
        try:
            socket.socket(family, kind, protocol)
            print("family", family, protocol if family == 16 else "")
            break
        except OSError as e:
            pass
try:
    socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 9)
    print("audit")
except OSError as e:
    print(errno.errorcode[e.errno])
c = ctypes.CDLL(None, use_errno=True)
`
	for name, n := range calls {
		line += "r = c.syscall(" + strconv.Itoa(n) + ", 0, 0, 0, 0, 0); e = ctypes.get_errno()\nif r != -1 or e not in (errno.EPERM, errno.ENOSYS): print('" + name + "', r, e)\n"
	}
	line += `
if c.unshare(0x10000000) != -1: print("a namespace of its own")
import threading, subprocess
t = threading.Thread(target=print, args=("threads",)); t.start(); t.join()
print(subprocess.run(["echo", "children"], capture_output=True, text=True).stdout, end="")
P`
	says(t, attack(t, set, nil, t.TempDir(), line), "family 1 \nfamily 2 \nfamily 10 \nfamily 16 0\nEAFNOSUPPORT\nthreads\nchildren\n")
}

// TestTheInputCannotBeChanged holds that standard input is no file on a disk that
// nothing bounds.
func TestTheInputCannotBeChanged(t *testing.T) {
	set := real(t, &Driver{})
	got, err := set.Run(t.Context(), nil, sandbox.Spec{Workspace: t.TempDir()}, bash("(echo more >&0) 2>/dev/null && echo wrote; (echo more >>/proc/self/fd/0) 2>/dev/null && echo appended; (: >/proc/self/fd/0) 2>/dev/null && echo emptied; cat"), "given\n", 1000)
	if err != nil {
		t.Fatal(err)
	}
	says(t, got, "given\n")
}

// TestTheFilterIsWhole holds what the kernel wants of a filter.
func TestTheFilterIsWhole(t *testing.T) {
	needsFilter(t)
	code := filter()
	if len(code)%8 != 0 || len(code)/8 > 4096 {
		t.Fatalf("%d bytes: the kernel takes at most 4096 instructions", len(code))
	}
	seen := map[uint32]bool{}
	for _, r := range refusals() {
		if seen[r.call] {
			t.Errorf("call %d stands twice: the second is never reached", r.call)
		}
		seen[r.call] = true
	}
}

// TestUnreadableFoldersCount holds that a program cannot hide from the watch what it
// writes, and not exhaust the file system by files that hold nothing.
func TestUnreadableFoldersCount(t *testing.T) {
	set := real(t, &Driver{})
	set.Limits.Disk = 8 << 20
	for name, line := range map[string]string{
		"a closed folder": "mkdir d; cd d; for ((i = 0; i < 20; i++)); do head -c 1000000 /dev/zero >f$i; done; chmod 000 .; sync; sleep 600",
		"empty files":     "for ((i = 0; i < 3000; i++)); do : >f$i; done; sleep 600",
		"folders":         "mkdir f{1..3000}; sleep 600",
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if name == "a closed folder" {
				if os.Geteuid() == 0 {
					t.Skip("root reads every folder")
				}
				t.Cleanup(func() { _ = os.Chmod(filepath.Join(dir, "d"), 0o700) }) //nolint:gosec // a folder
			}
			run, err := set.Start(t.Context(), nil, sandbox.Spec{Workspace: dir}, bash(line))
			if err != nil {
				t.Fatal(err)
			}
			if exit, err := run.Wait(); err != nil || exit.Limit != sandbox.LimitDisk {
				t.Errorf("exit %+v, %v", exit, err)
			}
		})
	}
}
