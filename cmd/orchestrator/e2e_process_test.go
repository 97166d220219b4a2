//go:build unix

package main_test

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// chain is a pipeline of n steps, one after the other. Each notes itself in the
// file ledger of the folder dir, with its attempt and the process that started
// it, and, if it is in gates, waits for a file of its name.
func chain(n int, gates ...int) (source string, paths []string) {
	var b strings.Builder
	b.WriteString("name: chain\ninputs:\n  dir: {type: string}\nsteps:\n")
	for i := range n {
		path := fmt.Sprintf("s%d", i)
		paths = append(paths, path)
		fmt.Fprintf(&b, "  - id: %s\n", path)
		if i > 0 {
			fmt.Fprintf(&b, "    dependencies: [s%d]\n", i-1)
		}
		b.WriteString("    run: |\n      cd {{ dir | sh }}\n      echo $ORCHESTRATOR_STEP_PATH $ORCHESTRATOR_ATTEMPT $PPID >>ledger\n")
		if slices.Contains(gates, i) {
			fmt.Fprintf(&b, "      until [ -e %s ]; do sleep 0.02; done\n", path)
		}
		fmt.Fprintf(&b, "      echo done %s\n", path)
	}
	fmt.Fprintf(&b, "outputs:\n  last: \"{{ s%d }}\"\n", n-1)
	return b.String(), paths
}

// entry is a line of a ledger.
type entry struct {
	path         string
	attempt, pid int
}

func ledger(t testing.TB, dir string) []entry {
	t.Helper()
	var all []entry
	for _, line := range lines(t, dir, "ledger") {
		var e entry
		if _, err := fmt.Sscanf(line, "%s %d %d", &e.path, &e.attempt, &e.pid); err != nil {
			t.Fatalf("the ledger has a line %q", line)
		}
		all = append(all, e)
	}
	return all
}

// starts waits until a step has begun for the n-th time, and returns who began it.
func starts(t testing.TB, dir, path string, n int) entry {
	t.Helper()
	var found entry
	eventually(t, fmt.Sprintf("%s has begun %d times", path, n), func() bool {
		seen := 0
		for _, e := range ledger(t, dir) {
			if e.path == path {
				found = e
				seen++
			}
		}
		return seen >= n
	})
	return found
}

// checkLedger holds the effects to promise 3: each at least once, no attempt
// twice, and only those more than once that were under way at a death.
func checkLedger(t testing.TB, dir string, paths []string, interrupted ...string) {
	t.Helper()
	attempts := map[string][]int{}
	for _, e := range ledger(t, dir) {
		if slices.Contains(attempts[e.path], e.attempt) {
			t.Errorf("attempt %d of %s ran twice", e.attempt, e.path)
		}
		attempts[e.path] = append(attempts[e.path], e.attempt)
	}
	for _, path := range paths {
		n := len(attempts[path])
		if n == 0 || n > 1 && !slices.Contains(interrupted, path) {
			t.Errorf("%s ran %d times, in the attempts %v", path, n, attempts[path])
		}
	}
}

func TestPromise1AcknowledgedSubmissionsSurviveKill9(t *testing.T) {
	t.Parallel()
	s := serve(t, t.TempDir())
	source, paths := chain(3)
	ids := map[string]string{} // by their folders
	for range 15 {
		dir := t.TempDir()
		ids[dir] = s.submit(source, map[string]any{"dir": dir})
	}
	s.kill()
	s = s.again()
	for dir, id := range ids {
		s.finish(id, "COMPLETED", paths...)
		checkLedger(t, dir, paths, paths...)
	}
	if n := s.runs(); n != len(ids) {
		t.Errorf("there are %d runs of %d", n, len(ids))
	}
}

func TestPromise2KilledServerRecordsEachStepOnce(t *testing.T) {
	t.Parallel()
	s := serve(t, t.TempDir())
	dir := t.TempDir()
	source, paths := chain(10, 3, 7)
	id := s.submit(source, map[string]any{"dir": dir})

	starts(t, dir, "s3", 1)
	before := s.watch(id, 0, begins("s3"))
	s.kill() // between two records
	s = s.again()
	if again := s.watch(id, 0, begins("s3")); len(again) < len(before) {
		t.Errorf("of %d events %d are left", len(before), len(again))
	} else {
		for i := range before {
			a, b := toJSON(t, before[i]), toJSON(t, again[i])
			if a != b {
				t.Errorf("event %d was %s and is now %s", i+1, a, b)
			}
		}
	}
	touch(t, dir, "s3")
	starts(t, dir, "s3", 2)
	starts(t, dir, "s7", 1)
	s.kill()
	touch(t, dir, "s7") // it opens while nobody is there
	s = s.again()
	s.finish(id, "COMPLETED", paths...)
	checkLedger(t, dir, paths, "s3", "s7")
	if out := string(s.run(id).Outputs); out != `{"last":"done s9"}` {
		t.Errorf("the outputs are %s", out)
	}
	s.stop()
}

func toJSON(t testing.TB, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestPromise7ARunThatKillsItsServerIsStopped(t *testing.T) {
	t.Parallel()
	s := serve(t, t.TempDir())
	dir := t.TempDir()
	source, _ := chain(3, 1)
	id := s.submit(source, map[string]any{"dir": dir})
	other := s.submit(greeting, nil)
	s.finish(other, "COMPLETED")
	for death := range 3 {
		starts(t, dir, "s1", death+1)
		begun := 0 // also on record: a death before that is not held against the step
		s.watch(id, 0, func(e eventInfo) bool {
			if begins("s1")(e) {
				begun++
			}
			return begun > death
		})
		s.kill()
		s = s.again()
	}
	s.finish(id, "FAILED", "s0", "s1")
	step := s.steps(id)["s1"]
	if step.Status != "FAILED" || step.Error == nil || step.Error.Kind != "system" {
		t.Errorf("the step is %+v, %+v", step, step.Error)
	}
	if n := len(slices.DeleteFunc(ledger(t, dir), func(e entry) bool { return e.path != "s1" })); n != 3 {
		t.Errorf("it ran %d times", n)
	}
}

func TestPromise7ServersThatStopInGoodOrderAreNoDeaths(t *testing.T) {
	t.Parallel()
	s := serve(t, t.TempDir())
	dir := t.TempDir()
	source, paths := chain(3, 1)
	id := s.submit(source, map[string]any{"dir": dir})
	for stop := range 4 { // as many deployments while a long step runs
		starts(t, dir, "s1", stop+1)
		s.stop()
		s = s.again()
	}
	touch(t, dir, "s1")
	s.finish(id, "COMPLETED", paths...)
	checkLedger(t, dir, paths, "s1")
}

func TestSIGTERMStopsAServerAndItsNextStartGoesOn(t *testing.T) {
	t.Parallel()
	s := serve(t, t.TempDir())
	dir := t.TempDir()
	source, paths := chain(4, 1)
	id := s.submit(source, map[string]any{"dir": dir})
	starts(t, dir, "s1", 1)
	begin := time.Now()
	s.stop()
	if took := time.Since(begin); took > 20*time.Second {
		t.Errorf("the server took %s to stop", took)
	}
	touch(t, dir, "s1")
	s = s.again()
	s.finish(id, "COMPLETED", paths...)
	checkLedger(t, dir, paths, "s1")
}

// runFile is a pipeline in a file, for orchestrator run.
func runFile(t *testing.T, source string) (l launch, dir string) {
	t.Helper()
	home, dir := t.TempDir(), t.TempDir()
	file := save(t, source, dir, "pipeline.yaml")
	return launch{args: []string{"run", file, "-i", "dir=" + dir}, home: home, dir: dir}, dir
}

// command is another verb in the same home.
func (l launch) command(args ...string) launch {
	l.args = args
	return l
}

func TestRunInterruptedBySIGINTRunsItsFinallySteps(t *testing.T) {
	t.Parallel()
	l, _ := runFile(t, gated)
	p := start(t, l)
	p.wrote(&p.err, `gate`)
	var r struct {
		runInfo
		Steps []stepInfo
	}
	last := func() {
		t.Helper()
		code, out, _ := run(t, l.command("runs", "get", "last", "--json"))
		if code != 0 {
			t.Fatalf("runs get: %d", code)
		}
		r.Steps = nil
		decode(t, out, &r)
	}
	// The process tells of the step; a second one sees it in the store.
	eventually(t, "the run waits", func() bool {
		last()
		return slices.ContainsFunc(r.Steps, func(s stepInfo) bool { return s.Path == "gate" && s.Status == "RUNNING" })
	})
	p.signal(syscall.SIGINT)
	if code := p.wait(patience); code != 130 {
		t.Errorf("it exits with %d", code)
	}
	last()
	if r.Status != "CANCELLED" {
		t.Errorf("the run is %s", r.Status)
	}
	states := map[string]string{}
	for _, s := range r.Steps {
		states[s.Path] = s.Status
	}
	if states["before"] != "COMPLETED" || states["gate"] != "CANCELLED" || states["sweep"] != "COMPLETED" {
		t.Errorf("the steps are %v", states)
	}
}

func TestRunKilledIsResumed(t *testing.T) {
	t.Parallel()
	source, paths := chain(5, 2)
	l, dir := runFile(t, source)
	p := start(t, l)
	starts(t, dir, "s2", 1)
	// Another process does not take it while its own lives.
	code, _, text := run(t, l.command("runs", "resume", "last"))
	if code != 4 || !strings.Contains(text, "another process") {
		t.Errorf("resuming a run under way: %d %s", code, text)
	}
	p.kill()
	touch(t, dir, "s2")
	code, out, text := run(t, l.command("runs", "resume", "last"))
	if code != 0 || !strings.Contains(out, "done s4") {
		t.Fatalf("resume: %d\n%s\n%s", code, out, text)
	}
	checkLedger(t, dir, paths, "s2")
	code, _, text = run(t, l.command("runs", "resume", "last"))
	if code != 4 || !strings.Contains(text, "already finished") {
		t.Errorf("resuming what is over: %d %s", code, text)
	}
	// A server finds the same run in the store, and its log is whole.
	s := serve(t, l.home)
	var list struct{ Runs []runInfo }
	s.get("/v1/runs", &list)
	if len(list.Runs) != 1 {
		t.Fatalf("there are %d runs", len(list.Runs))
	}
	s.finish(list.Runs[0].ID, "COMPLETED", paths...)
}

func TestRunKilledIsContinuedByAServer(t *testing.T) {
	t.Parallel()
	source, paths := chain(4, 1)
	l, dir := runFile(t, source)
	p := start(t, l)
	starts(t, dir, "s1", 1)
	s := serve(t, l.home)
	var list struct{ Runs []runInfo }
	s.get("/v1/runs", &list)
	if len(list.Runs) != 1 {
		t.Fatalf("there are %d runs", len(list.Runs))
	}
	p.kill()
	touch(t, dir, "s1")
	s.finish(list.Runs[0].ID, "COMPLETED", paths...)
	checkLedger(t, dir, paths, "s1")
}

func TestExitCodes(t *testing.T) {
	t.Parallel()
	home, dir := t.TempDir(), t.TempDir()
	good := save(t, greeting, dir, "good.yaml")
	bad := save(t, "name: bad\ninputs: {name: x}\nsteps:\n  - id: a\n    run: echo {{ nmae | sh }}\n", dir, "bad.yaml")
	fails := save(t, "name: fails\nsteps:\n  - {id: a, run: exit 3}\n", dir, "fails.yaml")
	for _, c := range []struct {
		code           int
		stdout, stderr string
		args           []string
	}{
		{0, "HELLO ADA", "", []string{"run", good, "-i", "name=Ada"}},
		{0, `"status": "COMPLETED"`, "", []string{"run", good, "--json"}},
		{1, "", "exit", []string{"run", fails}},
		{2, "", "bad.yaml:5:18", []string{"run", bad}},
		{2, "bad.yaml:5:18", "", []string{"validate", good, bad}},
		{0, "", "", []string{"validate", good}},
		{2, "", "nmae", []string{"run", good, "-i", "nmae=x"}},
		{2, "", "", []string{"run", filepath.Join(dir, "nothing.yaml")}},
		{2, "", "", []string{"rnu", good}},
		{4, "", "", []string{"runs", "list", "--server", "http://127.0.0.1:1"}},
		{0, "fails", "", []string{"runs", "list"}},
	} {
		code, out, text := run(t, launch{args: c.args, home: home, dir: dir})
		if code != c.code || !strings.Contains(out, c.stdout) || !strings.Contains(text, c.stderr) {
			t.Errorf("orchestrator %s: %d, want %d\n%s\n%s", strings.Join(c.args, " "), code, c.code, out, text)
		}
	}
}
