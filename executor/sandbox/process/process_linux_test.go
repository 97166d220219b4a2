package process

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/orchestrator-project/orchestrator/executor/sandbox"
	"github.com/orchestrator-project/orchestrator/pipeline"
)

func TestNoBubblewrap(t *testing.T) {
	for text, find := range map[string]func() (string, error){
		"is not installed": func() (string, error) { return "", errors.New("the program bwrap is not installed") },
		"bwrap does not work here: exit code 1; the machine, or the container": func() (string, error) { return exec.LookPath("false") },
	} {
		d := &Driver{Find: find}
		if _, err := d.Probe(t.Context()); err == nil || !strings.Contains(err.Error(), text) {
			t.Errorf("got %v, want %q", err, text)
		}
		_, err := d.Start(t.Context(), sandbox.Spec{Workspace: t.TempDir()}, bash(":"))
		if f, ok := errors.AsType[*pipeline.Failure](err); !ok || f.Reason != sandbox.ReasonNone {
			t.Errorf("got %v", err)
		}
	}
	set := &sandbox.Set{Drivers: []sandbox.Driver{&Driver{}}}
	t.Setenv("PATH", t.TempDir())
	if _, _, err := set.Pick(t.Context(), ""); err == nil || !strings.Contains(err.Error(), "apt-get install bubblewrap") {
		t.Errorf("got %v", err)
	}
}

// TestEveryRungHolds runs a program by each form of the sandbox that works here, as
// a machine that allows less would.
func TestEveryRungHolds(t *testing.T) {
	real(t, &Driver{})
	bwrap, err := look()
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range rungs(bwrap) {
		d := &Driver{}
		level, err := d.try(t.Context(), r, t.TempDir())
		if err != nil {
			t.Logf("%+v: %v", r, err)
			continue
		}
		if level.Users != r.users || !level.Network || !level.Files || !level.Processes {
			t.Errorf("%+v: %s", r, level)
		}
		d.rung, d.level = &r, level
		outside, dir := t.TempDir(), t.TempDir()
		got := attack(t, &sandbox.Set{Drivers: []sandbox.Driver{d}}, nil, dir, `
test -w /proc/sys/kernel/core_pattern && echo the kernel
test -w /proc/sysrq-trigger && echo the machine
(echo x >/usr/made) 2>/dev/null && echo the system
(echo x >`+outside+`/made) 2>/dev/null && echo outside
cat /etc/shadow 2>/dev/null
kill -0 `+pidText()+` 2>/dev/null && echo others
mount -t tmpfs x /tmp 2>/dev/null && echo mounted
echo x >made; echo x >/tmp/made; echo x >/dev/null; echo over`)
		says(t, got, "over\n")
		if read(t, dir, "made") != "x\n" {
			t.Errorf("%+v: the workspace is closed", r)
		}
	}
}

func pidText() string { return string(pipeline.EncodeValue(int64(os.Getpid()))) }

func TestBoundsWithoutControlGroups(t *testing.T) {
	set := real(t, &Driver{Groups: t.TempDir()})
	dir := t.TempDir()
	got := attack(t, set, &pipeline.Sandbox{CPU: 0.5, Memory: 1 << 30, Pids: 50}, dir, "nproc; ulimit -d; ulimit -c")
	says(t, got, "1\n1048576\n0\n")
	want := "rlimit"
	if os.Geteuid() == 0 {
		want = "" // and the level says so
	}
	if l := got.Level; l.Memory != "rlimit" || l.CPU != "affinity" || l.Pids != want {
		t.Errorf("level %s", l)
	}
}

func TestProgramsAreFoundWhereTheyCanBeSeen(t *testing.T) {
	set := real(t, &Driver{})
	dir, far := t.TempDir(), t.TempDir()
	tool := "#!/bin/sh\necho far \"$@\"\n"
	for _, path := range []string{filepath.Join(far, "sh"), filepath.Join(far, "tool"), filepath.Join(dir, "own")} {
		if err := os.WriteFile(path, []byte(tool), 0o700); err != nil { //nolint:gosec // a program
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		argv []string
		want string
	}{
		{[]string{"sh", "-c", "echo the system"}, "the system\n"}, // the first in the PATH is not visible
		{[]string{"tool", "a"}, "far a\n"},                        // stands there alone
		{[]string{filepath.Join(far, "tool")}, "far\n"},
		{[]string{"./own", "b c"}, "far b c\n"},
	} {
		got, err := set.Run(t.Context(), nil, sandbox.Spec{Workspace: dir}, sandbox.Program{Argv: c.argv, Environ: []string{"PATH=" + far + ":/usr/bin:/bin"}}, "", 1000)
		if err != nil || got.Stdout != c.want {
			t.Errorf("%q: got %+v, %v", c.argv, got, err)
		}
	}
	for reason, argv := range map[string][]string{"command_not_found": {"no-such"}, "not_executable": {"/etc"}, "": {""}, "arguments_too_long": {"sh", strings.Repeat("x", 200_000)}} {
		_, err := set.Run(t.Context(), nil, sandbox.Spec{Workspace: dir}, sandbox.Program{Argv: argv, Environ: []string{"PATH=/usr/bin:/bin"}, Dir: ""}, "", 10)
		if f, ok := errors.AsType[*pipeline.Failure](err); !ok || f.Reason != reason || f.Kind != pipeline.CategoryValidation {
			t.Errorf("%.20q: got %v", argv, err)
		}
	}
}

func TestAProgramStartsInItsFolder(t *testing.T) {
	set := real(t, &Driver{})
	dir := t.TempDir()
	write(t, dir, "sub/x", "")
	p := bash("pwd; echo $HOME $TMPDIR")
	p.Dir = filepath.Join(dir, "sub")
	got, err := set.Run(t.Context(), nil, sandbox.Spec{Workspace: dir}, p, "", 1000)
	if err != nil {
		t.Fatal(err)
	}
	says(t, got, p.Dir+"\n/tmp /tmp\n")
	for _, wrong := range []string{"/etc", dir + "/..", "sub", dir + "/../" + filepath.Base(dir) + "x"} {
		p.Dir = wrong
		if _, err := set.Run(t.Context(), nil, sandbox.Spec{Workspace: dir}, p, "", 1000); err == nil || !strings.Contains(err.Error(), "is not in the workspace") {
			t.Errorf("%s: got %v", wrong, err)
		}
	}
}

// TestArgumentsArriveAsTheyAre holds that no argument, variable or name of a folder
// is taken for an option of the sandbox.
func TestArgumentsArriveAsTheyAre(t *testing.T) {
	set := real(t, &Driver{})
	texts := rapid.OneOf(
		rapid.SampledFrom([]string{"--bind", "/", "--", "--args", "3", "-c", "", "\n", "$(id)", "`id`", "--setenv", "'", `"`, "\xff\xfe", "--ro-bind / /", "é"}),
		rapid.Map(rapid.SliceOfN(rapid.ByteRange(1, 255), 0, 40), func(b []byte) string { return string(b) }),
	)
	root := t.TempDir()
	folders := rapid.SampledFrom([]string{"plain", "--bind", "a b", "new\nline", "é"})
	for seed := range 25 {
		args, value := rapid.SliceOfN(texts, 0, 6).Example(seed), texts.Example(seed)
		dir := filepath.Join(root, folders.Example(seed))
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		p := sandbox.Program{Argv: append([]string{"/bin/sh", "-c", `printf '%s\0' "$@"; printenv -0 VALUE; pwd`, "sh"}, args...), Environ: []string{"PATH=/usr/bin:/bin", "VALUE=" + value}}
		stdout, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		p.Stdout = w
		run, err := set.Start(t.Context(), nil, sandbox.Spec{Workspace: dir}, p)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := run.Wait(); err != nil {
			t.Fatal(err)
		}
		buf := make([]byte, 64<<10)
		n, _ := stdout.Read(buf)
		stdout.Close()
		if len(args) == 0 {
			args = []string{""} // as printf does
		}
		want := strings.Join(slices.Concat(args, []string{value, dir + "\n"}), "\x00")
		if string(buf[:n]) != want {
			t.Fatalf("got %q, want %q", buf[:n], want)
		}
	}
	for _, p := range []sandbox.Program{
		{Argv: []string{"/bin/echo", "a\x00--bind\x00/\x00/"}},
		{Argv: []string{"/bin/echo"}, Environ: []string{"A=b\x00--bind\x00/\x00/mnt"}},
		{Argv: []string{"/bin/echo"}, Dir: root + "\x00--bind\x00/\x00/mnt"},
	} {
		if _, err := set.Run(t.Context(), nil, sandbox.Spec{Workspace: root}, p, "", 10); err == nil || !strings.Contains(err.Error(), "NUL") {
			t.Errorf("%q: got %v", p.Argv, err)
		}
	}
}
