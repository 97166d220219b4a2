package step

import (
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/orchestrator-project/orchestrator/executor"
	"github.com/orchestrator-project/orchestrator/pipeline"
)

const soon = 50 * time.Millisecond // the grace of tests

func command(t *testing.T, env executor.Env, p params) (any, error) {
	t.Helper()
	r, err := Command(Config{Sandbox: boxes}).Bind(language(t, p))
	if err != nil {
		return nil, err
	}
	out, err := r.Run(t.Context(), env)
	return out.Value, err
}

func TestCommandOutput(t *testing.T) {
	for name, c := range map[string]struct {
		params params
		want   any
	}{
		"text":                 {params{"command": []any{"printf", `a b\n\n`}}, "a b\n"},
		"crlf":                 {params{"run": `printf 'a\r\n'`}, "a"},
		"nothing":              {params{"run": "true"}, ""},
		"lines":                {params{"run": `printf 'a\n\nb\r\nc'`, "capture": "lines"}, []any{"a", "", "b", "c"}},
		"no lines":             {params{"run": "true", "capture": "lines"}, []any{}},
		"json":                 {params{"run": `echo '{"a": [1, 2.0]}'`, "capture": "json"}, params{"a": []any{1, 2.0}}},
		"arguments":            {params{"command": []any{"printf", "%s|", "a b", "$HOME", 1, 2.5, true, []any{1}, ""}}, `a b|$HOME|1|2.5|true|[1]||`},
		"the step's env only":  {params{"run": "env | grep -v -e ^PWD= -e ^_= -e ^OLDPWD= -e ^SHLVL= | sort"}, "LANG=C.UTF-8\nPATH=/usr/local/bin:/usr/bin:/bin"},
		"empty standard input": {params{"run": "cat"}, ""},
		"invalid text":         {params{"run": `printf 'a\377b'`}, "a\ufffdb"},
		"its own path":         {params{"command": []any{"bin/tool", "x"}}, "tool x"},
		"only stdout":          {params{"run": "echo out; echo err >&2"}, "out"},
	} {
		t.Run(name, func(t *testing.T) {
			env, _ := testEnv(t)
			script(t, env, "bin/tool", "#!/bin/sh\necho tool $1\n", 0o755)
			got, err := command(t, env, c.params)
			if err != nil {
				t.Fatal(err)
			}
			same(t, got, c.want)
		})
	}
}

func script(t *testing.T, env executor.Env, name, text string, mode os.FileMode) {
	t.Helper()
	path := filepath.Join(env.Workspace, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
}

func TestCommandRunsInTheWorkspace(t *testing.T) {
	env, _ := testEnv(t)
	got, err := command(t, env, params{"run": "pwd -P"})
	want, _ := filepath.EvalSymlinks(env.Workspace)
	if got != want || err != nil {
		t.Errorf("got %v, %v", got, err)
	}
}

func TestCommandFailures(t *testing.T) {
	for name, c := range map[string]struct {
		params         params
		category, text string
		reason         string
		code           int // 0: none
		output         any
	}{
		"exit code": {
			params{"run": "echo partly; echo first >&2; echo last >&2; exit 3"},
			"failed", "the command ended with exit code 3:\nfirst\nlast", "exit_code", 3, "partly",
		},
		"one line":          {params{"command": []any{"ls", "/nowhere"}}, "failed", "ls ended with exit code 2: ls:", "exit_code", 2, ""},
		"nothing on stderr": {params{"run": "echo FAIL: TestX; exit 1"}, "failed", "exit code 1: FAIL: TestX", "exit_code", 1, "FAIL: TestX"},
		"lines are kept":    {params{"run": "printf 'a\nb\n'; false", "capture": "lines"}, "failed", "exit code 1", "exit_code", 1, []any{"a", "b"}},
		"broken json":       {params{"run": "echo '{'; exit 1", "capture": "json"}, "failed", "exit code 1", "exit_code", 1, "{"},
		"signal":            {params{"run": "kill -SEGV $$"}, "failed", "ended by signal SIGSEGV (segmentation fault)", "signal", 139, ""},
		"no json":           {params{"run": "echo hello", "capture": "json"}, "contract", `it begins "hello"`, "not_json", 0, "hello"},
		"two values":        {params{"run": "echo 1 2", "capture": "json"}, "contract", "more than one value", "not_json", 0, "1 2"},
		"unknown":           {params{"command": []any{"no-such-tool"}}, "validation", "no command no-such-tool in the step's PATH", "command_not_found", 0, nil},
		"unknown file":      {params{"command": []any{"./no-such-tool"}}, "validation", "no file ./no-such-tool", "command_not_found", 0, nil},
		"not executable":    {params{"command": []any{"./notes"}}, "validation", "chmod +x", "not_executable", 0, nil},
		"folder":            {params{"command": []any{"./bin"}}, "validation", "is a folder", "not_executable", 0, nil},
		"no interpreter":    {params{"command": []any{"./orphan"}}, "validation", "the interpreter in its first line does not exist", "not_executable", 0, nil},
		"no format":         {params{"command": []any{"./data"}}, "validation", "a first line such as #!/bin/sh", "not_executable", 0, nil},
		"null argument":     {params{"command": []any{"echo", nil}}, "validation", "argument 1 of the command is null", "", 0, nil},
		"NUL":               {params{"command": []any{"echo", "a\x00b"}}, "validation", "NUL character", "", 0, nil},
		"NUL in a line":     {params{"run": "echo a\x00b"}, "validation", "NUL character", "", 0, nil},
		"nothing":           {params{}, "validation", "the command is empty", "", 0, nil},
		"no name":           {params{"command": []any{""}}, "validation", "name is empty", "", 0, nil},
		"both":              {params{"command": []any{"a"}, "run": "a"}, "validation", "not both", "", 0, nil},
		"long arguments":    {params{"command": []any{"echo", strings.Repeat("x", 1<<20)}}, "validation", "in a file or on standard input", "arguments_too_long", 0, nil},
	} {
		t.Run(name, func(t *testing.T) {
			env, _ := testEnv(t)
			script(t, env, "bin/tool", "", 0o755)
			script(t, env, "notes", "", 0o644)
			script(t, env, "orphan", "#!/no/such/interpreter\n", 0o755)
			script(t, env, "data", "\x00\x01", 0o755)
			got, err := command(t, env, c.params)
			f := failed(t, err, c.category, c.text)
			same(t, got, c.output)
			if f.Reason != c.reason {
				t.Errorf("reason %q, want %q", f.Reason, c.reason)
			}
			if (f.ExitCode != nil) != (c.code != 0) || f.ExitCode != nil && *f.ExitCode != c.code {
				t.Errorf("exit code %v, want %d", f.ExitCode, c.code)
			}
		})
	}
}

func TestCommandWithoutWorkspace(t *testing.T) {
	env, _ := testEnv(t)
	env.Workspace = filepath.Join(env.Workspace, "gone")
	_, err := command(t, env, params{"run": "true"})
	failed(t, err, pipeline.CategorySystem, "workspace of the run is gone")
	env.Workspace = ""
	_, err = command(t, env, params{"run": "true"})
	failed(t, err, pipeline.CategorySystem, "no workspace")
}

func TestCommandKeepsOnlyTheEndOfALongError(t *testing.T) {
	env, _ := testEnv(t)
	_, err := command(t, env, params{"run": "i=0; while [ $i -lt 5000 ]; do echo line $i >&2; i=$((i+1)); done; false"})
	f := failed(t, err, "failed", "line 4999")
	if strings.Contains(f.Message, "line 4989\n") || len(f.Message) > 3000 {
		t.Errorf("message: %s", f.Message)
	}
}

func TestCommandShowsLinesAsTheyCome(t *testing.T) {
	env, j := testEnv(t)
	j.seen = make(chan string)
	fifo(t, env, "go")
	var g errgroup.Group
	g.Go(func() error {
		defer close(j.seen)
		_, err := command(t, env, params{"run": "echo one; echo two >&2; printf 'name? '; read x <go; echo $x"})
		return err
	})
	// The prompt has no newline; it must be shown before the program goes on.
	seen := map[string]bool{}
	for !seen["name? "] || !seen["one\n"] || !seen["two\n"] {
		seen[<-j.seen] = true
	}
	if err := os.WriteFile(filepath.Join(env.Workspace, "go"), []byte("Ada\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for text := range j.seen {
		seen[text] = true
	}
	if err := g.Wait(); err != nil || !seen["Ada\n"] {
		t.Errorf("%v, log: %v", err, seen)
	}
}

// fifo makes a named pipe in the workspace.
func fifo(t *testing.T, env executor.Env, name string) {
	t.Helper()
	path := filepath.Join(env.Workspace, name)
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
}

// lifeline is a named pipe that processes hold open while they live.
func lifeline(t *testing.T, env executor.Env) func() {
	t.Helper()
	fifo(t, env, "alive")
	r, err := os.OpenFile(filepath.Join(env.Workspace, "alive"), os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	return func() { // fails unless all who held it have ended
		t.Helper()
		defer r.Close()
		_ = r.SetReadDeadline(time.Now().Add(time.Minute))
		if _, err := io.Copy(io.Discard, r); err != nil {
			t.Errorf("a process of the step is still there: %v", err)
		}
	}
}

// untilReady runs a command and ends its context once it has logged "ready".
func untilReady(t *testing.T, env executor.Env, j *journal, line string) (any, error) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	env.Log = func(stream, text string) {
		j.log(stream, text)
		if strings.Contains(text, "ready") {
			cancel()
		}
	}
	out, err := CommandStep{Line: line, grace: soon}.Run(ctx, env)
	return out.Value, err
}

func TestCancelledCommandGetsTheChanceToCleanUp(t *testing.T) {
	env, j := testEnv(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	env.Log = func(stream, text string) {
		j.log(stream, text)
		cancel()
	}
	out, err := CommandStep{Line: "trap 'echo cleaned up; exit 0' TERM; sleep 1000 >/dev/null 2>&1 & echo ready; wait"}.Run(ctx, env)
	failed(t, err, pipeline.CategoryCancelled, "cancelled")
	same(t, out.Value, "ready\ncleaned up")
}

func TestCommandThatIgnoresSIGTERMIsKilledWithItsChildren(t *testing.T) {
	env, j := testEnv(t)
	gone := lifeline(t, env)
	_, err := untilReady(t, env, j, "exec 3>alive; trap '' TERM; (trap '' TERM; sleep 1000) & echo ready; sleep 1000; wait")
	failed(t, err, pipeline.CategoryCancelled, "cancelled")
	gone()
}

func TestStoppedCommandIsKilled(t *testing.T) {
	env, j := testEnv(t)
	gone := lifeline(t, env)
	_, err := untilReady(t, env, j, "exec 3>alive; echo ready; kill -STOP $$; sleep 1000")
	failed(t, err, pipeline.CategoryCancelled, "cancelled")
	gone()
}

func TestTimedOutCommand(t *testing.T) {
	env, _ := testEnv(t)
	gone := lifeline(t, env)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	_, err := CommandStep{Line: "exec 3>alive; sleep 1000", grace: soon}.Run(ctx, env)
	failed(t, err, pipeline.CategoryTimeout, "out of time")
	gone()
	_, err = CommandStep{Line: "touch ran"}.Run(ctx, env)
	failed(t, err, pipeline.CategoryTimeout, "out of time")
	if _, err := os.Stat(filepath.Join(env.Workspace, "ran")); !errors.Is(err, os.ErrNotExist) {
		t.Error("a step without time left was started")
	}
}

func TestCommandIsOverWhenItEndsThoughAChildHoldsItsOutput(t *testing.T) {
	env, _ := testEnv(t)
	gone := lifeline(t, env)
	out, err := CommandStep{Line: "exec 3>alive; sleep 1000 & echo done", grace: soon}.Run(t.Context(), env)
	if out.Value != "done" || err != nil {
		t.Errorf("got %v, %v", out.Value, err)
	}
	gone()
}

func TestCommandWaitsForOutputOnItsWay(t *testing.T) {
	env, j := testEnv(t)
	fifo(t, env, "go")
	env.Log = func(stream, text string) {
		j.log(stream, text)
		if strings.Contains(text, "early") {
			if err := os.WriteFile(filepath.Join(env.Workspace, "go"), []byte("late\n"), 0o600); err != nil {
				t.Error(err)
			}
		}
	}
	out, err := CommandStep{Line: "(read x <go; echo $x) & echo early"}.Run(t.Context(), env)
	if out.Value != "early\nlate" || err != nil {
		t.Errorf("got %v, %v", out.Value, err)
	}
}

func TestBackgroundChildDoesNotOutliveItsStep(t *testing.T) {
	env, _ := testEnv(t)
	gone := lifeline(t, env)
	fifo(t, env, "go")
	out, err := CommandStep{Line: "(exec 3>alive; echo x >go; sleep 1000) >/dev/null 2>&1 & read x <go; echo done"}.Run(t.Context(), env)
	if out.Value != "done" || err != nil {
		t.Errorf("got %v, %v", out.Value, err)
	}
	gone()
}

func TestChildInASessionOfItsOwnCannotHoldTheStep(t *testing.T) {
	env, _ := testEnv(t)
	fifo(t, env, "go")
	out, err := CommandStep{Line: "setsid sh -c 'echo $$ >go; exec sleep 1000' & read x <go; echo $x", grace: soon}.Run(t.Context(), env)
	pid, _ := strconv.Atoi(out.Value.(string))
	if pid < 2 || err != nil {
		t.Fatalf("got %v, %v", out.Value, err)
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Errorf("what left the group with setsid is gone: %v", err)
	}
}

func TestHugeOutputEndsTheStep(t *testing.T) {
	env, _ := testEnv(t)
	_, err := command(t, env, params{"command": []any{"yes"}})
	if f := failed(t, err, "failed", "more than 16 MiB"); f.Reason != reasonTooLarge {
		t.Errorf("reason %s", f.Reason)
	}
	_, err = command(t, env, params{"run": "head -c 8388608 /dev/zero | tr '\\0' '\\n'", "capture": "lines"})
	if f := failed(t, err, "failed", "the list of lines is larger"); f.Reason != reasonTooLarge {
		t.Errorf("reason %s", f.Reason)
	}
}

func TestLogOfAnAttemptIsBounded(t *testing.T) {
	j := &journal{}
	c, err := newCapture(j.log)
	if err != nil {
		t.Fatal(err)
	}
	defer c.close()
	if c.left != 64<<20 {
		t.Errorf("the bound is %d", c.left)
	}
	c.left = 10
	for range 3 {
		c.stdout.take([]byte("out\n"))
		c.stderr.take([]byte("err\n"))
	}
	if got := j.String(); got != "stdout: out\nstderr: err\nsystem: The log ends here: this attempt has written more than 64 MiB.\n" {
		t.Errorf("log: %q", got)
	}
	if c.text() != "out\nout\nout" {
		t.Errorf("the value is not bounded by the log: %q", c.text())
	}
}

func TestCharactersAreNotCutInTheLog(t *testing.T) {
	j := &journal{}
	c := &capture{log: j.log, left: maxLog, full: make(chan struct{})}
	p := &pump{c: c, stream: "stdout"}
	c.stdout, c.stderr = p, &pump{c: c, stream: "stderr"}
	for i := range len("aé€😀") {
		p.take([]byte("aé€😀")[i : i+1])
		p.show(wholeRunes(p.line)) // as after a pause
	}
	p.take([]byte("\xff\xe2\x82"))
	p.show(len(p.line)) // as at the end
	if got := strings.Join(j.lines, ""); got != "stdout: astdout: éstdout: €stdout: 😀stdout: \ufffd" {
		t.Errorf("log: %q", got)
	}
	if c.text() != "aé€😀\ufffd" {
		t.Errorf("text: %q", c.text())
	}
}

func TestManyCommandsAtOnce(t *testing.T) {
	env, _ := testEnv(t)
	var g errgroup.Group
	g.SetLimit(16)
	for i := range 100 {
		g.Go(func() error {
			name := "./tool" + strconv.Itoa(i) // fresh programs meet forks of the others: text file busy
			if err := os.WriteFile(filepath.Join(env.Workspace, name), []byte("#!/bin/sh\necho "+strconv.Itoa(i)), 0o755); err != nil {
				return err
			}
			out, err := CommandStep{Command: []any{name}, Capture: "json"}.Run(t.Context(), env)
			if err == nil && out.Value != int64(i) {
				err = errors.New("wrong output " + name)
			}
			return err
		})
	}
	if err := g.Wait(); err != nil {
		t.Error(err)
	}
}

// serve is a server with one running command, in a process of its own.
func serve(dir string) {
	env := executor.Env{Workspace: dir, Environ: []string{"PATH=/usr/bin:/bin"}, Log: func(string, string) {}}
	_, _ = CommandStep{Line: "exec 3>alive; echo ready >go; exec sleep 1000"}.Run(context.Background(), env)
}

func TestCommandDoesNotOutliveAKilledServer(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("only Linux tells a program that its parent was killed")
	}
	env, _ := testEnv(t)
	gone := lifeline(t, env)
	fifo(t, env, "go")
	server := exec.CommandContext(t.Context(), os.Args[0])
	server.Env = append(os.Environ(), "STEP_TEST_SERVER="+env.Workspace)
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(filepath.Join(env.Workspace, "go")); string(b) != "ready\n" || err != nil {
		t.Fatalf("got %q, %v", b, err)
	}
	if err := server.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = server.Wait()
	gone()
}
