package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/orchestrator-project/orchestrator/store/storetest"
)

var update = flag.Bool("update", false, "write the golden parts of the scripts anew")

// TestMain lets the test binary be the command: scripts and tests start it as
// orchestrator, in a process of its own.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"orchestrator": main})
}

// TestScripts runs testdata/script, one conversation with the command each. The
// scripts know beside the usual commands:
//
//	exits CODE COMMAND...   runs a command that must end with the code
//	await FILE              waits until the file exists
//	json FILE PATH [WANT]   looks into a JSON file, as in steps.0.status
//	serve                   starts a server; its address is in $SERVER
func TestScripts(t *testing.T) {
	testscript.Run(t, scripts("script", ""))
}

// TestScriptsOnPostgres runs testdata/postgres with DATABASE_URL.
func TestScriptsOnPostgres(t *testing.T) {
	testscript.Run(t, scripts("postgres", storetest.Postgres(t)))
}

func scripts(dir, database string) testscript.Params {
	return testscript.Params{
		Dir:           filepath.Join("testdata", dir),
		UpdateScripts: *update,
		Setup: func(env *testscript.Env) error {
			env.Setenv("HOME", env.WorkDir)
			env.Setenv("ORCHESTRATOR_HOME", filepath.Join(env.WorkDir, "home"))
			env.Setenv("DATABASE_URL", database)
			env.Setenv("__FANG_TEST_WIDTH", "100")
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits": scriptExits, "await": scriptAwait, "json": scriptJSON, "serve": scriptServe,
		},
	}
}

func scriptExits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE COMMAND...")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	err = ts.Exec(args[1], args[2:]...)
	got := 0
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		got = exit.ExitCode()
	} else {
		ts.Check(err)
	}
	if got != want {
		ts.Fatalf("exit code %d, want %d", got, want)
	}
}

// patience for what other processes do on a busy machine.
const longEnough = 2 * time.Minute

func scriptAwait(ts *testscript.TestScript, _ bool, args []string) {
	if !appears(ts.MkAbs(args[0])) {
		ts.Fatalf("%s did not appear", args[0])
	}
}

// appears waits until a file exists.
func appears(file string) bool {
	return happens(func() bool {
		_, err := os.Stat(file)
		return err == nil
	})
}

// happens waits until something of another process is so.
func happens(is func() bool) bool {
	for end := time.Now().Add(longEnough); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if is() {
			return true
		}
	}
	return false
}

func scriptJSON(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 2 && len(args) != 3 {
		ts.Fatalf("usage: json FILE PATH [WANT]")
	}
	got, ok, err := lookJSON([]byte(ts.ReadFile(args[0])), args[1])
	ts.Check(err)
	switch {
	case len(args) == 2 && ok == neg:
		ts.Fatalf("%s: there is a %s: %v", args[0], args[1], ok)
	case len(args) == 3 && (got == args[2]) == neg:
		ts.Fatalf("%s: %s is %s", args[0], args[1], got)
	}
}

// lookJSON finds a value by its path, as in steps.0.status; a text comes
// without quotes, and length is that of a list.
func lookJSON(text []byte, path string) (string, bool, error) {
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.UseNumber()
	var v any
	if err := dec.Decode(&v); err != nil {
		return "", false, err
	}
	if dec.More() {
		return "", false, errors.New("more than one JSON document")
	}
	for part := range strings.SplitSeq(path, ".") {
		switch at := v.(type) {
		case map[string]any:
			var ok bool
			if v, ok = at[part]; !ok {
				return "", false, nil
			}
		case []any:
			if part == "length" {
				return strconv.Itoa(len(at)), true, nil
			}
			i, err := strconv.Atoi(part)
			if err != nil || i >= len(at) {
				return "", false, nil
			}
			v = at[i]
		default:
			return "", false, nil
		}
	}
	if s, ok := v.(string); ok {
		return s, true, nil
	}
	b, err := json.Marshal(v)
	return string(b), true, err
}

// scriptServe starts a server that lives as long as the script.
func scriptServe(ts *testscript.TestScript, _ bool, args []string) {
	log := ts.MkAbs("server.log")
	f, err := os.Create(log)
	ts.Check(err)
	cmd := exec.Command("orchestrator", append([]string{"serve", "--listen", "127.0.0.1:0"}, args...)...)
	cmd.Dir = ts.MkAbs(".")
	cmd.Env = append(os.Environ(), "ORCHESTRATOR_HOME="+ts.MkAbs("server-home"), "DATABASE_URL="+ts.Getenv("DATABASE_URL"))
	cmd.Stdout, cmd.Stderr = f, f
	ts.Check(cmd.Start())
	ts.Check(f.Close())
	ts.Defer(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM) // it may be gone
		if err := cmd.Wait(); err != nil {
			ts.Logf("server: %v\n%s", err, ts.ReadFile(log))
		}
	})
	for end := time.Now().Add(longEnough); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if m := regexp.MustCompile(`dashboard +(\S+)\n`).FindStringSubmatch(ts.ReadFile(log)); m != nil {
			ts.Setenv("SERVER", m[1])
			return
		}
	}
	ts.Fatalf("the server has not started:\n%s", ts.ReadFile(log))
}
