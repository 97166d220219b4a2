package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/charmbracelet/x/ansi"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/types/known/timestamppb"

	api "github.com/orchestrator-project/orchestrator/proto/orchestrator/v1"
)

// begin is when the runs of these tests begin; the events follow second by
// second.
var begin = time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)

// tape folds events as a server would send them.
type tape struct {
	t   *testing.T
	p   *progress
	seq int32
	out []change
}

func newTape(t *testing.T, nodes ...*api.GraphNode) *tape {
	t.Helper()
	run := &api.Run{Id: "run-1", Pipeline: "demo", Status: api.Run_RUNNING, CreatedAt: timestamppb.New(begin)}
	return &tape{t: t, p: newProgress(run, &api.Graph{Nodes: nodes})}
}

func (x *tape) event(kind string, data map[string]any) change {
	x.t.Helper()
	x.seq++
	b, err := json.Marshal(data)
	if err != nil {
		x.t.Fatal(err)
	}
	at := begin.Add(time.Duration(x.seq) * time.Second)
	c := x.p.apply(&api.Event{Seq: x.seq, Type: kind, At: timestamppb.New(at), Data: string(b)})
	x.out = append(x.out, c)
	return c
}

// step tells of a step instance in a status, as kind path status.
func (x *tape) step(kind, path, status string, more map[string]any) change {
	x.t.Helper()
	at := begin.Add(time.Duration(x.seq+1) * time.Second)
	s := map[string]any{"path": path, "id": pathID(path), "kind": kind, "status": status, "attempt": 1, "started_at": begin.Add(time.Second)}
	name := "step_started"
	switch status {
	case "SKIPPED":
		name = "step_skipped"
		s["finished_at"] = at
	case "WAITING":
		name = "step_retrying"
	case "COMPLETED", "FAILED", "CANCELLED":
		name = "step_finished"
		s["finished_at"] = at
	}
	maps.Copy(s, more)
	return x.event(name, map[string]any{"step": s})
}

func pathID(path string) string {
	id := path[strings.LastIndexByte(path, '/')+1:]
	id, _, _ = strings.Cut(id, "[")
	id, _, _ = strings.Cut(id, "~")
	return id
}

func node(id, kind, parent string) *api.GraphNode {
	return &api.GraphNode{Id: id, Kind: kind, Parent: parent}
}

// seen is the tree as text.
func (x *tape) seen(final bool) string {
	now := begin.Add(time.Duration(x.seq) * time.Second)
	lines := (&drawing{p: x.p, now: now, final: final}).lines()
	return strings.ReplaceAll(ansi.Strip(strings.Join(lines, "\n"))+"\n", spinner, "*")
}

func TestTreeShowsPlanAndInstances(t *testing.T) {
	x := newTape(t,
		node("fetch", "command", ""), node("check", "if", ""), node("check/lint", "command", "check"), node("check/other", "command", "check"),
		node("batch", "for", ""), node("batch/compile", "command", "batch"), node("batch/test", "command", "batch"), node("report", "action", ""))
	x.event("run_started", map[string]any{"run": map[string]any{"id": "run-1", "pipeline": "demo", "status": "RUNNING", "started_at": begin}})
	x.step("command", "fetch", "RUNNING", nil)
	x.step("if", "check", "RUNNING", nil)
	x.step("command", "lint", "RUNNING", nil) // arms of a choice add nothing to the path
	x.step("for", "batch", "RUNNING", map[string]any{"parameters": map[string]any{"items": []int{1, 2, 3}}})
	x.step("command", "batch[0]/compile", "COMPLETED", nil)
	x.step("command", "batch[0]/test", "COMPLETED", nil)
	x.step("command", "batch[1]/compile", "RUNNING", nil)
	x.p.steps["fetch"].log = "half of it"
	want := `demo  * running  8 s  run-1
  * fetch        running  7.0 s  half of it
  * check        running  7.0 s
    * lint       running  7.0 s
  * batch        running  7.0 s  1/3
    * [1]        running
      * compile  running  7.0 s
  ○ report       pending
`
	want = strings.Replace(want, "8 s ", "8.0 s ", 1)
	if d := cmp.Diff(want, x.seen(false)); d != "" {
		t.Error(d)
	}

	x.step("command", "fetch", "COMPLETED", nil)
	x.step("command", "lint", "COMPLETED", nil)
	x.step("if", "check", "COMPLETED", nil)
	x.step("command", "batch[1]/compile", "FAILED", map[string]any{"error": map[string]any{"kind": "failed", "step": "batch[1]/compile", "message": "exit code 2:\nno such file"}})
	x.step("command", "batch[1]/test", "SKIPPED", map[string]any{"reason": "upstream_failed"})
	x.step("for", "batch", "FAILED", map[string]any{"error": map[string]any{"kind": "failed", "step": "batch[1]/compile", "message": "x"}})
	x.step("action", "report", "SKIPPED", map[string]any{"reason": "upstream_failed"})
	x.event("run_finished", map[string]any{"run": map[string]any{"id": "run-1", "pipeline": "demo", "status": "FAILED", "started_at": begin, "finished_at": begin.Add(16 * time.Second)}})
	want = `demo  ✗ failed  16 s  run-1
  ✓ fetch        completed  8.0 s
  ✓ check        completed   10 s
    ✓ lint       completed  9.0 s
  ✗ batch        failed      13 s  2/3
    ✗ [1]        failed
      ✗ compile  failed      11 s  exit code 2
      ↷ test     skipped           upstream failed
  ↷ report       skipped           upstream failed
`
	if d := cmp.Diff(want, x.seen(true)); d != "" {
		t.Error(d)
	}
}

func TestTreeWithoutADrawing(t *testing.T) {
	x := newTape(t)
	x.step("command", "one", "COMPLETED", nil)
	x.step("for", "loop", "RUNNING", map[string]any{"parameters": map[string]any{"items": []int{1, 2}}})
	x.step("command", "loop[0]", "COMPLETED", nil)
	x.step("command", "loop[1]", "RUNNING", nil)
	x.step("command", "two", "WAITING", map[string]any{"attempt": 2, "error": map[string]any{"message": "slow \x1b[31mdown"}})
	want := `demo  * running  run-1
  ✓ one    completed  0 ms
  * loop   running    4.0 s  1/2
    * [1]  running    4.0 s
  ◷ two    waiting    4.0 s  attempt 2 failed: slow down
`
	want = strings.Replace(want, "completed  0 ms", "completed   0 ms", 1)
	if d := cmp.Diff(want, x.seen(false)); d != "" {
		t.Error(d)
	}
}

func TestTreeOfBlocksThatWaitAndJump(t *testing.T) {
	x := newTape(t, node("both", "parallel", ""), node("both/gate", "ask", "both"), node("both/paid", "wait", "both"),
		node("try", "repeat", ""), node("try/a", "command", "try"), node("try/b", "command", "try"),
		node("sub", "call", ""), node("sub/inner", "command", "sub"))
	x.p.questions["q1"] = "Deploy\nnow?"
	x.step("parallel", "both", "RUNNING", nil)
	x.step("ask", "gate", "WAITING", map[string]any{"waiting": map[string]any{"for": "approval", "approval": "q1"}})
	x.step("wait", "paid", "WAITING", map[string]any{"waiting": map[string]any{"for": "signal", "signal": "paid"}})
	x.step("repeat", "try", "RUNNING", nil)
	x.step("command", "try[0]/a", "COMPLETED", nil)
	x.step("command", "try[0]/b", "FAILED", map[string]any{"error": map[string]any{"message": "no"}})
	x.step("command", "try[0]/a~2", "COMPLETED", map[string]any{"artifacts": []any{map[string]any{"artifact": "report", "version": 2}}})
	x.step("command", "try[0]/b~2", "RUNNING", nil)
	x.step("call", "sub", "RUNNING", nil)
	x.step("command", "sub/inner", "SKIPPED", map[string]any{"reason": "jumped"})
	want := `demo  * running  run-1
  * both     running    9.0 s
    ◷ gate   waiting    9.0 s  for an answer: Deploy now?
    ◷ paid   waiting    9.0 s  for the signal paid
  * try      running    9.0 s  pass 1
    ✗ [0]    failed
      ✓ a    completed  6.0 s  published report 2
      * b    running    9.0 s
  * sub      running    9.0 s
    ↷ inner  skipped           jumped over
`
	if d := cmp.Diff(want, x.seen(false)); d != "" {
		t.Error(d)
	}
	if loop := x.p.steps["try"]; loop.done != 0 {
		t.Errorf("%d passes are said to be over", loop.done)
	}
	x.step("command", "try[0]/b~2", "COMPLETED", nil)
	if loop := x.p.steps["try"]; loop.done != 1 {
		t.Errorf("%d passes are said to be over", loop.done)
	}
}

func TestALongLoopDoesNotFillTheMemory(t *testing.T) {
	x := newTape(t, node("loop", "for", ""), node("loop/a", "command", "loop"), node("loop/inner", "while", "loop"),
		node("loop/inner/b", "command", "loop/inner"), node("loop/choice", "if", "loop"), node("loop/choice/c", "command", "loop/choice"))
	x.step("for", "loop", "RUNNING", map[string]any{"parameters": map[string]any{"items": make([]int, 5000)}})
	for i := range 5000 {
		at := fmt.Sprintf("loop[%d]/", i)
		x.step("while", at+"inner", "RUNNING", nil)
		for j := range 3 {
			x.step("command", fmt.Sprintf("%sinner[%d]/b", at, j), "COMPLETED", nil)
		}
		x.step("while", at+"inner", "COMPLETED", nil)
		x.step("command", at+"a", "COMPLETED", nil)
		x.step("command", at+"c", "COMPLETED", nil)
		x.step("if", at+"choice", "COMPLETED", nil)
	}
	loop := x.p.steps["loop"]
	if loop.count() != "5000/5000" {
		t.Errorf("count is %s", loop.count())
	}
	if len(x.p.steps) > 10 || len(loop.passes) > 1 {
		t.Errorf("%d steps and %d passes are kept", len(x.p.steps), len(loop.passes))
	}
}

func TestUnknownEventsAreNoFault(t *testing.T) {
	x := newTape(t)
	if c := x.p.apply(&api.Event{Seq: 1, Type: "telepathy", Data: `"what?"`}); c.kind != "telepathy" || c.step != nil {
		t.Errorf("got %+v", c)
	}
}

func TestFitKeepsWhatRunsAndWhatFailed(t *testing.T) {
	lines := []string{"head"}
	for i := range 50 {
		mark := icon("COMPLETED")
		switch i {
		case 20:
			mark = spinner
		case 40:
			mark = icon("FAILED")
		}
		lines = append(lines, fmt.Sprintf("%s step %d %s", mark, i, strings.Repeat("x", 200)))
	}
	got := fit(lines, 40, 10)
	if len(got) != 10 {
		t.Errorf("%d lines", len(got))
	}
	text := strings.Join(got, "\n")
	for _, want := range []string{"head", "step 20 ", "step 40 ", "and 42 steps more"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
	for _, l := range got {
		if ansi.StringWidth(l) > 39 {
			t.Errorf("too wide: %q", l)
		}
	}
}

func TestPlainLines(t *testing.T) {
	x := newTape(t, node("one", "command", ""), node("loop", "for", ""), node("loop/in", "command", "loop"))
	var out bytes.Buffer
	r := newPlain(&out)
	show := func(c change) { r.event(x.p, c) }
	show(x.event("run_created", map[string]any{"run": map[string]any{"id": "run-1", "pipeline": "demo", "status": "QUEUED"}}))
	show(x.step("command", "one", "RUNNING", nil))
	print := func(stream, text string) {
		r.line(x.p, &api.LogLine{Path: "one", Stream: stream, Text: text, At: timestamppb.New(begin.Add(time.Duration(x.seq) * time.Second))})
	}
	print("stdout", "first\nsec")
	print("stderr", "aside\r\n")
	show(x.step("command", "one", "WAITING", map[string]any{"error": map[string]any{"message": "busy:\nvery"}}))
	show(x.step("command", "one", "COMPLETED", map[string]any{"attempt": 2}))
	print("stdout", "ond") // later than the end of its step, of the same time
	show(x.step("for", "loop", "COMPLETED", map[string]any{"parameters": map[string]any{"items": []int{}}}))
	show(x.event("signal_received", map[string]any{"signal": "cancel"}))
	show(x.event("run_finished", map[string]any{"run": map[string]any{"id": "run-1", "pipeline": "demo", "status": "COMPLETED", "started_at": begin, "finished_at": begin.Add(90 * time.Second)}}))
	r.close(x.p)
	want := `run run-1 of demo
one | first
one | aside
◷ attempt 1 of one failed: busy
one | second
✓ one completed  3.0 s  attempt 2
✓ loop completed  4.0 s
cancelling: running steps are stopped, finally steps still run
✓ run completed  1 m 30 s
`
	if d := cmp.Diff(want, out.String()); d != "" {
		t.Error(d)
	}
}

func TestPlainSaysThatAStepTakesLong(t *testing.T) {
	x := newTape(t, node("one", "command", ""), node("two", "command", ""))
	var out bytes.Buffer
	r := newPlain(&out)
	r.event(x.p, x.step("command", "one", "RUNNING", nil))
	r.event(x.p, x.step("command", "two", "RUNNING", nil))
	r.event(x.p, x.step("command", "two", "COMPLETED", nil))
	r.release(time.Now().Add(hold))
	if strings.Contains(out.String(), "one") {
		t.Errorf("too early: %s", out.String())
	}
	r.tick(x.p)
	for path := range r.wait {
		r.wait[path] = time.Now().Add(-time.Millisecond)
	}
	r.tick(x.p)
	r.tick(x.p)
	if got := strings.Count(out.String(), "▸ one running\n"); got != 1 || strings.Contains(out.String(), "two running") {
		t.Errorf("got %s", out.String())
	}
}

func TestForeignTextCannotControlTheTerminal(t *testing.T) {
	for in, want := range map[string]string{
		"plain":                      "plain",
		"\x1b[31mred\x1b[0m":         "red",
		"\x1b]0;title\x07text":       "text",
		"a\tb\rc\x08d\x00":           "a    bcd",
		"\u009b31mx":                 "31mx",
		"tree \u2713 \U0001f600 ünï": "tree \u2713 \U0001f600 ünï",
		"bad \xff byte":              "bad \uFFFD byte",
	} {
		if got := harmlessLine(in); got != want {
			t.Errorf("harmlessLine(%q) = %q, want %q", in, got, want)
		}
	}
}
