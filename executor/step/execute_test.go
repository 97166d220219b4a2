package step

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/orchestrator-project/orchestrator/executor/sandbox"
	"github.com/orchestrator-project/orchestrator/executor/sandbox/process"
	"github.com/orchestrator-project/orchestrator/pipeline"
)

func TestExecute(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir()) // others' code runs in the place for temporary files, too
	for _, c := range []struct {
		language, program, code, stdin string
		stdout, stderr                 string
	}{
		{"sh", "sh", "echo out; echo err >&2; cat", "in\n", "out\nin", "err"},
		{"bash", "bash", `a=(1 2 3); echo "${a[1]}"; printf '%s' "$NAME"`, "", "2\nO'Brien $x", ""},
		{"python", "python3", "import sys, os\nprint(sum(int(l) for l in sys.stdin))\nopen('made', 'w').write(os.getcwd())", "1\n2\n", "3", ""},
		{"javascript", "node", "console.log([1, 2].map(x => x * 2).join()); console.error('é')", "", "2,4", "é"},
	} {
		t.Run(c.language, func(t *testing.T) {
			env, j := testEnv(t)
			if _, err := sandbox.LookUp(c.program, env.Workspace, env.Environ, nil); err != nil {
				t.Skip(err)
			}
			v, err := run(t, host, env, "execute", params{
				"language": c.language, "code": c.code, "stdin": c.stdin, "environment": params{"NAME": "O'Brien $x"}, "sandbox": "none",
			})
			if err != nil {
				t.Fatal(err)
			}
			gave(t, v, params{
				"stdout": c.stdout, "stderr": c.stderr, "output": c.stdout, "errors": c.stderr,
				"exit_code": 0, "success": true, "language": c.language, "sandbox": "host",
			})
			if !strings.Contains(j.String(), "stdout: "+strings.Split(c.stdout, "\n")[0]) {
				t.Errorf("log: %s", j)
			}
			if c.language == "python" && contentOf(t, env.Workspace, "made") != env.Workspace {
				t.Errorf("it ran in %s", contentOf(t, env.Workspace, "made"))
			}
		})
	}
	left, _ := filepath.Glob(filepath.Join(os.TempDir(), "orchestrator-execute-*"))
	if len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestExecuteReportsFailure(t *testing.T) {
	env, _ := testEnv(t)
	v, err := run(t, host, env, "execute", params{"language": "sh", "code": "echo some; echo why >&2; exit 3", "sandbox": "none"})
	f := failed(t, err, pipeline.CategoryFailed, "the code ended with exit code 3: why")
	if f.ExitCode == nil || *f.ExitCode != 3 {
		t.Errorf("exit code %v", f.ExitCode)
	}
	gave(t, v, params{"stdout": "some", "errors": "why", "exit_code": 3, "success": false, "language": "sh", "sandbox": "host"})
	v, err = run(t, host, env, "execute", params{"language": "sh", "code": "echo some; echo why >&2; exit 3", "sandbox": "none", "check": false})
	if err != nil {
		t.Fatal(err)
	}
	gave(t, v, params{"output": "some", "errors": "why", "exit_code": 3, "success": false, "sandbox": "host"})
	_, err = run(t, host, env, "execute", params{"language": "sh", "code": "kill -9 $$", "sandbox": "none", "check": false})
	failed(t, err, pipeline.CategoryFailed, "the code was ended by signal SIGKILL (killed)")
	v, err = run(t, host, env, "execute", params{"language": "sh", "code": "echo begun; exec sleep 60", "timeout": "3s", "sandbox": "none"})
	failed(t, err, pipeline.CategoryTimeout, "the code has taken longer than 3s")
	same(t, []any{field(t, v, "stdout"), field(t, v, "exit_code")}, []any{"begun", -1})
}

// gave checks what the result of code holds, and that it took some time.
func gave(t *testing.T, v any, want params) {
	t.Helper()
	for name, w := range want {
		same(t, field(t, v, name), w)
	}
	if took, ok := field(t, v, "execution_time").(float64); !ok || took <= 0 {
		t.Errorf("execution_time is %v", field(t, v, "execution_time"))
	}
	same(t, field(t, field(t, v, "isolation"), "driver"), want["sandbox"])
}

func TestExecuteRefusals(t *testing.T) {
	env, _ := testEnv(t)
	empty := env
	empty.Environ = []string{"PATH=" + t.TempDir()}
	_, err := run(t, host, empty, "execute", params{"language": "python", "code": "1"})
	if f := failed(t, err, pipeline.CategoryValidation, "python needs the program python3 or python, which is not in the step's PATH"); f.Reason != "interpreter_not_found" {
		t.Errorf("reason %s", f.Reason)
	}
	for text, p := range map[string]params{
		"parameter language is":               {"language": "cobol", "code": "x"},
		"parameter code is empty":             {"language": "sh", "code": " \n"},
		`environment: "A=B" is no variable`:   {"language": "sh", "code": ":", "environment": params{"A=B": 1}},
		`environment: "A" is no variable`:     {"language": "sh", "code": ":", "environment": params{"A": "\x00"}},
		"environment.A is null":               {"language": "sh", "code": ":", "environment": params{"A": nil}},
		"parameter timeout is":                {"language": "sh", "code": ":", "timeout": "soon"},
		"parameter sandbox is":                {"language": "sh", "code": ":", "sandbox": "maybe"},
		"parameter code is missing":           {"language": "sh"},
		"parameter environment is a text; it": {"language": "sh", "code": ":", "environment": "A=B"},
	} {
		_, err := run(t, host, env, "execute", p)
		failed(t, err, pipeline.CategoryValidation, text)
	}
}

func TestExecuteIsSandboxed(t *testing.T) {
	env, _ := testEnv(t)
	absent := &process.Driver{Find: func() (string, error) { return "", errors.New("bwrap is not installed") }}
	locked, open := &sandbox.Set{Drivers: []sandbox.Driver{absent}}, &sandbox.Set{Drivers: []sandbox.Driver{absent, sandbox.Host{}}}
	for _, c := range []struct {
		sandbox string
		set     *sandbox.Set
		want    string // within the failure; empty: it runs
	}{
		{"auto", locked, "it does not run without one"},
		{"required", locked, "it does not run without one"},
		{"none", locked, "there is no sandbox host; sandbox.drivers of this server has process"},
		{"auto", nil, "this server has no sandbox"},
		{"none", nil, "this server has no sandbox"},
		{"auto", open, ""},
		{"none", open, ""},
		{"required", open, "it does not run without one"},
	} {
		out, err := Execute{Language: "sh", Code: "echo ran", Sandbox: c.sandbox, set: c.set}.Run(t.Context(), env)
		if c.want == "" {
			if err != nil {
				t.Errorf("%s: %v", c.sandbox, err)
				continue
			}
			gave(t, out.Value, params{"stdout": "ran", "sandbox": "host"})
			continue
		}
		f, ok := errors.AsType[*pipeline.Failure](err)
		if !ok || f.Reason != "no_sandbox" || !strings.Contains(f.Message, c.want) {
			t.Errorf("%s: got %v, want %q", c.sandbox, err, c.want)
		}
	}
}

func TestSandbox(t *testing.T) {
	sandboxHere(t)
	env, _ := testEnv(t)
	outside := t.TempDir()
	code := `
pwd
echo x > made && echo wrote
echo x > ` + outside + `/made 2>/dev/null || echo "outside is closed"
echo x > /etc/made 2>/dev/null || echo "the system is closed"
echo x > /tmp/scratch && echo "tmp is open"
test -e /run || echo 0
ls /sys/class/net 2>/dev/null | grep -vc '^lo$' >/dev/null; cat /proc/net/dev | grep -c :
kill -0 ` + pidText() + ` 2>/dev/null || echo "others are hidden"
echo "$TMPDIR $SECRET"
cat`
	v, err := run(t, Config{Sandbox: boxes}, env, "execute", params{"language": "sh", "code": code, "stdin": "in", "sandbox": "required", "environment": params{"SECRET": "s"}})
	if err != nil {
		t.Fatal(err)
	}
	same(t, field(t, v, "stdout"), env.Workspace+"\nwrote\noutside is closed\nthe system is closed\ntmp is open\n0\n1\nothers are hidden\n/tmp s\nin")
	same(t, field(t, v, "sandbox"), "process")
	if contentOf(t, env.Workspace, "made") != "x\n" || contentOf(t, outside, "made") != "-" {
		t.Error("files are not where they should be")
	}
	v, err = run(t, Config{Sandbox: boxes}, env, "execute", params{"language": "sh", "code": "exit 7"})
	failed(t, err, pipeline.CategoryFailed, "exit code 7")
	same(t, field(t, v, "sandbox"), "process")
}

func pidText() string { return strings.TrimSpace(string(pipeline.EncodeValue(int64(os.Getpid())))) }

func TestSandboxedCodeEndsWithItsStep(t *testing.T) {
	sandboxHere(t)
	env, j := testEnv(t)
	j.seen = make(chan string, 10)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		_, err := Execute{Language: "sh", Code: "(while :; do echo x >> alive; sleep 0.01; done) & echo ready; wait", Sandbox: "required", set: boxes}.Run(ctx, env)
		done <- err
	}()
	select {
	case <-j.seen:
	case err := <-done:
		t.Fatal(err)
	}
	cancel()
	failed(t, <-done, pipeline.CategoryCancelled, "cancelled")
	// Nothing of it is left when the step is over.
	before := len(contentOf(t, env.Workspace, "alive"))
	<-time.After(50 * time.Millisecond)
	if len(contentOf(t, env.Workspace, "alive")) != before {
		t.Error("the code goes on after its step")
	}
}
