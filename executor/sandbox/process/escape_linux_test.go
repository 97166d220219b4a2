package process

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/orchestrator-project/orchestrator/executor/sandbox"
	"github.com/orchestrator-project/orchestrator/pipeline"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv("SANDBOX_TEST_LAUNCHER"); dir != "" {
		launch(dir)
		return
	}
	goleak.VerifyTestMain(m)
}

// real is the driver as servers have it; the test is skipped where the machine
// allows no sandbox.
func real(t *testing.T, d *Driver) *sandbox.Set {
	t.Helper()
	if _, err := d.Probe(t.Context()); err != nil {
		t.Skip(err)
	}
	return &sandbox.Set{Drivers: []sandbox.Driver{d}, Limits: sandbox.Spec{Memory: 256 << 20, CPU: 1, Pids: 100, Disk: 64 << 20}}
}

// attack runs a line of bash in a workspace of its own and gives what it wrote.
func attack(t *testing.T, set *sandbox.Set, want *pipeline.Sandbox, dir, line string) sandbox.Result {
	t.Helper()
	got, err := set.Run(t.Context(), want, sandbox.Spec{Workspace: dir}, bash(line), "", 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func bash(line string) sandbox.Program {
	return sandbox.Program{Argv: []string{"bash", "-c", line}, Environ: []string{"PATH=/usr/local/bin:/usr/bin:/bin", "HOME=/nowhere"}}
}

func says(t *testing.T, got sandbox.Result, want string) {
	t.Helper()
	if got.Stdout != want {
		t.Errorf("it wrote %q and %q, exit %+v; want %q", got.Stdout, got.Stderr, got.Exit, want)
	}
}

func TestNoNetwork(t *testing.T) {
	set := real(t, &Driver{})
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	line := "(exec 3<>/dev/tcp/127.0.0.1/" + port + ") 2>/dev/null && echo reached; grep -c : /proc/net/dev"
	says(t, attack(t, set, nil, t.TempDir(), line), "1\n")
	open := attack(t, set, &pipeline.Sandbox{Network: true}, t.TempDir(), line)
	if !strings.HasPrefix(open.Stdout, "reached\n") || open.Level.Network {
		t.Errorf("with a network: %q, %s", open.Stdout, open.Level)
	}

	// A socket without a file is reached by whoever shares the network's namespace.
	name := "orchestrator-test-" + strconv.Itoa(os.Getpid())
	u, err := (&net.ListenConfig{}).Listen(t.Context(), "unix", "@"+name)
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	says(t, attack(t, set, nil, t.TempDir(), "grep -c "+name+" /proc/net/unix"), "0\n")
}

func TestTheLaunchersEnvironmentIsNotThere(t *testing.T) {
	set := real(t, &Driver{})
	t.Setenv("LAUNCHERS_SECRET", "hunter2")
	p := bash("cat /proc/[0-9]*/environ /proc/[0-9]*/cmdline | tr '\\0' '\\n' | grep -a -e [h]unter2 -e [L]AUNCHERS -e ^TOKEN | sort -u")
	p.Environ = append(p.Environ, "TOKEN=own")
	got, err := set.Run(t.Context(), nil, sandbox.Spec{Workspace: t.TempDir()}, p, "", 1000)
	if err != nil {
		t.Fatal(err)
	}
	says(t, got, "TOKEN=own\n")
	says(t, attack(t, set, nil, t.TempDir(), "tr -d '\\0' </proc/1/environ; tr '\\0' ' ' </proc/1/cmdline | grep -c -e --[s]etenv -e --[b]ind"), "0\n")
}

func TestOthersAreOutOfReach(t *testing.T) {
	set := real(t, &Driver{})
	other := exec.CommandContext(t.Context(), "sleep", "600")
	if err := other.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = other.Process.Kill(); _ = other.Wait() }()
	got := attack(t, set, nil, t.TempDir(), fmt.Sprintf(
		"for p in %d %d; do kill -0 $p 2>/dev/null && grep -q -e sleep -e process /proc/$p/comm && echo seen; done; (kill -9 -1) 2>/dev/null; echo still", other.Process.Pid, os.Getpid()))
	if strings.Contains(got.Stdout, "seen") {
		t.Errorf("it sees others: %+v", got)
	}
	if err := other.Process.Signal(syscall.Signal(0)); err != nil {
		t.Errorf("it reached a process outside: %v", err)
	}
	if state, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", other.Process.Pid)); err != nil || strings.Contains(string(state), ") Z ") {
		t.Errorf("it ended a process outside: %s", state)
	}
}

func TestNoPrivileges(t *testing.T) {
	set := real(t, &Driver{})
	got := attack(t, set, nil, t.TempDir(), `
grep -e CapEff -e NoNewPrivs /proc/self/status | tr -d '\t'
mount -t tmpfs x /tmp 2>/dev/null && echo mounted
unshare -Ur true 2>/dev/null && echo a namespace of its own
for f in /proc/sys/kernel/core_pattern /proc/sys/kernel/modprobe /proc/sys/vm/drop_caches /proc/sysrq-trigger /proc/irq/default_smp_affinity /sys/kernel/uevent_helper; do
	test -w $f && echo "$f can be written"
done
for f in /proc/kcore /dev/mem /dev/vda /dev/sda /dev/kmsg; do head -c 1 $f 2>/dev/null | grep -q . && echo "$f can be read"; done
mknod null c 1 3 2>/dev/null && cat null && echo a device
true`)
	says(t, got, "CapEff:0000000000000000\nNoNewPrivs:1\n")
}

func TestSecretsCannotBeRead(t *testing.T) {
	home, readable := t.TempDir(), t.TempDir()
	write(t, home, "config.yaml", "password: hunter2")
	write(t, home, "orchestrator.db", "hunter2")
	write(t, readable, "part/key", "hunter2")
	write(t, readable, "part/public", "public")
	set := real(t, &Driver{Readable: []string{readable}, Hidden: []string{home, filepath.Join(readable, "part", "key"), filepath.Join(home, "gone")}})
	workspace := filepath.Join(home, "workspaces", "one")
	write(t, home, "workspaces/two/own", "hunter2")
	if err := os.MkdirAll(workspace, 0o700); err != nil {
		t.Fatal(err)
	}
	line := "cat " + readable + "/part/public; cat " + readable + "/part/key " + home + "/config.yaml " + home + "/*.db /etc/shadow /etc/sudoers ~root/.* ../two/own 2>/dev/null; ls " + home
	says(t, attack(t, set, nil, workspace, line), "publicworkspaces\n")

	// A workspace above the server's home, as where somebody runs a pipeline at home.
	above := t.TempDir()
	write(t, above, ".orchestrator/config.yaml", "hunter2")
	write(t, above, ".orchestrator/bundles/b/part", "a part")
	set = real(t, &Driver{Hidden: []string{filepath.Join(above, ".orchestrator")}})
	bundle := filepath.Join(above, ".orchestrator", "bundles", "b")
	got, err := set.Run(t.Context(), nil, sandbox.Spec{Workspace: above, Readable: []string{bundle}},
		bash("cat .orchestrator/config.yaml 2>/dev/null; cat "+bundle+"/part; echo x 2>/dev/null >"+bundle+"/part; rm -rf .orchestrator 2>/dev/null; echo x >made"), "", 1000)
	if err != nil {
		t.Fatal(err)
	}
	says(t, got, "a part")
	if read(t, above, ".orchestrator/config.yaml") != "hunter2" || read(t, above, ".orchestrator/bundles/b/part") != "a part" || read(t, above, "made") != "x\n" {
		t.Error("the files are not as they should be")
	}
}

func TestNothingInheritedStaysOpen(t *testing.T) {
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte("hunter2"), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(secret)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	fd, err := syscall.Dup(int(f.Fd())) // stays open in children, as what a server inherits does
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(fd)
	set := real(t, &Driver{})
	says(t, attack(t, set, nil, t.TempDir(), "for f in /proc/self/fd/*; do readlink $f; done | grep -c secret; cat <&"+strconv.Itoa(fd)+" 2>/dev/null"), "0\n")
}

func TestOnlyTheWorkspaceCanBeChanged(t *testing.T) {
	set := real(t, &Driver{})
	outside, dir := t.TempDir(), t.TempDir()
	write(t, outside, "kept", "kept")
	if err := os.Symlink(outside, filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	says(t, attack(t, set, nil, dir, `
for d in / /usr /etc /usr/local/bin /dev /proc/sys /var /root /run link `+outside+`; do
	(echo x >$d/made) 2>/dev/null && echo "$d can be written"
done
cat link/kept 2>/dev/null
ln -s /etc/shadow shadow; cat shadow 2>/dev/null
echo x >made && echo wrote; echo x >/tmp/made && echo scratch`), "wrote\nscratch\n")
	if read(t, dir, "made") != "x\n" || read(t, outside, "kept") != "kept" {
		t.Error("the files are not as they should be")
	}
	if entries, _ := os.ReadDir(outside); len(entries) != 1 {
		t.Errorf("outside: %v", entries)
	}
}

// TestRacingLinks swaps a folder for a link out of the workspace while another
// program of the same run writes and reads through it.
func TestRacingLinks(t *testing.T) {
	set := real(t, &Driver{})
	outside, dir := t.TempDir(), t.TempDir()
	write(t, outside, "secret", "hunter2")
	swap, err := set.Start(t.Context(), nil, sandbox.Spec{Workspace: dir}, bash("while :; do mkdir -p d; rm -rf d; ln -sfn "+outside+" d; rm -f d; done"))
	if err != nil {
		t.Fatal(err)
	}
	got := attack(t, set, nil, dir, "for i in {1..3000}; do echo x 2>/dev/null >d/made; [ -e d/secret ] && echo leaked; done 2>/dev/null; echo over")
	swap.Kill()
	if _, err := swap.Wait(); err != nil {
		t.Error(err)
	}
	says(t, got, "over\n")
	if entries, _ := os.ReadDir(outside); len(entries) != 1 {
		t.Errorf("it wrote outside: %v", entries)
	}
}

func TestAForkBombIsBound(t *testing.T) {
	set := real(t, &Driver{})
	if set.Limits.Pids = 40; os.Geteuid() == 0 {
		if l, err := set.Drivers[0].Probe(t.Context()); err != nil || l.Pids == "" {
			t.Skip("without control groups nothing bounds the processes of root: ", l)
		}
	}
	dir := t.TempDir()
	got := attack(t, set, &pipeline.Sandbox{Timeout: 3 * time.Second}, dir, "bomb() { bomb | bomb & }; bomb 2>/dev/null; for i in {1..20}; do set -- /proc/[0-9]*; echo $#; done; sleep 60")
	most := 0 // that were counted while some came and went
	for n := range strings.FieldsSeq(got.Stdout) {
		if n, err := strconv.Atoi(n); err == nil {
			most = max(most, n)
		}
	}
	if most == 0 || most > 2*40 || got.Exit.Code == 0 {
		t.Errorf("%d processes at once, exit %+v, %q", most, got.Exit, got.Stderr)
	}
	nobodyIsIn(t, dir)
}

func TestMemoryIsBound(t *testing.T) {
	for name, d := range map[string]*Driver{"groups": {}, "limits": {Groups: t.TempDir()}} {
		t.Run(name, func(t *testing.T) {
			set := real(t, d)
			// tail keeps what has no end of line.
			got := attack(t, set, &pipeline.Sandbox{Memory: 64 << 20}, t.TempDir(), "head -c 300000000 /dev/zero | tail | wc -c; echo ${PIPESTATUS[1]}")
			if strings.HasPrefix(got.Stdout, "300000000\n") {
				t.Errorf("it had all the memory: %+v", got)
			}
			if got.Level.Memory == "cgroup" && got.Exit.Limit != "" && got.Exit.Limit != sandbox.LimitMemory {
				t.Errorf("exit %+v", got.Exit)
			}
		})
	}
	set := real(t, &Driver{})
	if l, _ := set.Drivers[0].Probe(t.Context()); l.Memory != "cgroup" {
		t.Skip("no control groups here: ", l)
	}
	got := attack(t, set, &pipeline.Sandbox{Memory: 64 << 20}, t.TempDir(), "exec tail /dev/zero")
	if got.Exit.Limit != sandbox.LimitMemory || got.Exit.Code != 137 {
		t.Errorf("exit %+v, %q", got.Exit, got.Stderr)
	}
}

func TestTheDiskIsBound(t *testing.T) {
	set := real(t, &Driver{})
	set.Limits.Memory = 1 << 30
	set.Limits.Disk = 8 << 20
	got := attack(t, set, nil, t.TempDir(), "head -c 20000000 /dev/zero >one; echo $?; wc -c <one; exec head -c 20000000 /dev/zero >two")
	says(t, got, "153\n8388608\n")
	if got.Exit.Limit != sandbox.LimitDisk {
		t.Errorf("exit %+v", got.Exit)
	}
	// Many files that are small enough each.
	dir := t.TempDir()
	got = attack(t, set, &pipeline.Sandbox{Timeout: time.Minute}, dir, "for ((i = 0; i < 4000; i++)); do head -c 1000000 /dev/zero >f$((i % 200)); sync f$((i % 200)); done; sleep 600")
	if got.Exit.Limit != sandbox.LimitDisk || got.Level.Disk != "watch" {
		t.Errorf("exit %+v, level %s", got.Exit, got.Level)
	}
	// What has no file on the disk.
	set.Limits.Disk = 0
	got = attack(t, set, nil, t.TempDir(), "for d in /tmp /dev/shm; do head -c 200000000 /dev/zero 2>/dev/null >$d/x; wc -c <$d/x; done")
	says(t, got, fmt.Sprintf("%d\n%d\n", sandbox.Scratch, sandbox.Scratch))
}

func TestNothingOutlivesTheProgram(t *testing.T) {
	set := real(t, &Driver{})
	dir := t.TempDir()
	got := attack(t, set, nil, dir, "for i in 1 2 3; do (setsid bash -c 'trap \"\" TERM HUP; while :; do :; done' </dev/null >/dev/null 2>&1 &); done; nohup sleep 600 >/dev/null 2>&1 & echo over")
	says(t, got, "over\n")
	nobodyIsIn(t, dir)
	got = attack(t, set, &pipeline.Sandbox{Timeout: 3 * time.Second}, dir, "trap '' TERM; (setsid sleep 600 &); echo begun; sleep 600")
	if says(t, got, "begun\n"); got.Exit.Limit != sandbox.LimitTime {
		t.Errorf("exit %+v", got.Exit)
	}
	nobodyIsIn(t, dir)
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := set.Run(ctx, nil, sandbox.Spec{Workspace: dir}, bash("sleep 600"), "", 10); err == nil {
		t.Error("no error at the end of the context")
	}
	nobodyIsIn(t, dir)
	groups, _ := filepath.Glob("/sys/fs/cgroup/*/orchestrator-" + strconv.Itoa(os.Getpid()) + "-*")
	if len(groups) > 0 {
		t.Errorf("groups left behind: %q", groups)
	}
}

// nobodyIsIn checks that no process of the machine works in a folder.
func nobodyIsIn(t *testing.T, dir string) {
	t.Helper()
	links, _ := filepath.Glob("/proc/[0-9]*/cwd")
	for _, l := range links {
		if cwd, err := os.Readlink(l); err == nil && strings.HasPrefix(cwd, dir) {
			name, _ := os.ReadFile(filepath.Join(filepath.Dir(l), "cmdline"))
			t.Errorf("%s is still there: %q", l, bytes.ReplaceAll(name, []byte{0}, []byte{' '}))
		}
	}
}

// TestAProgramEndsWithItsServer kills the process that started one.
func TestAProgramEndsWithItsServer(t *testing.T) {
	real(t, &Driver{})
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	server := exec.CommandContext(t.Context(), exe)
	server.Env = append(os.Environ(), "SANDBOX_TEST_LAUNCHER="+dir)
	out, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	server.Stdout, server.Stderr = w, os.Stderr
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	w.Close()
	buf := make([]byte, 100)
	if n, err := out.Read(buf); err != nil || string(buf[:n]) != "ready\n" {
		t.Fatalf("got %q, %v", buf[:n], err)
	}
	if err := server.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = server.Wait()
	// The program holds the other end: the end of the stream is its own.
	_ = out.SetReadDeadline(time.Now().Add(time.Minute))
	if n, err := out.Read(buf); n != 0 || err == nil || os.IsTimeout(err) {
		t.Fatalf("the program goes on: %q, %v", buf[:n], err)
	}
}

// launch is the server of that test.
func launch(dir string) {
	r, err := (&Driver{}).Start(context.Background(), sandbox.Spec{Workspace: dir}, sandbox.Program{
		Argv: []string{"sh", "-c", "echo ready; (sleep 600 &); sleep 600"}, Environ: []string{"PATH=/usr/bin:/bin"}, Stdout: os.Stdout,
	})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return
	}
	_, _ = r.Wait()
}

func write(t *testing.T, dir, name, text string) {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, dir, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		return err.Error()
	}
	return string(text)
}
