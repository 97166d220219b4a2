package web

import (
	"fmt"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	api "github.com/orchestrator-project/orchestrator/proto/orchestrator/v1"
)

const releaseSource = `# Drafts, reviews and ships a release, with people in between.
id: release
version: 2.0.0
steps:
  - id: draft
    skill: summarise
    parameters: {tone: '<AUTO fallback="plain">Which tone?</AUTO>'}
  - id: review
    call: lib/review
    on_failure: {goto: draft}
  - id: gates
    parallel:
      - {id: tests, command: [make, test]}
      - {id: lint, command: [make, lint]}
  - id: kind
    match: "{{ review.kind }}"
    cases:
      major: [{id: ask_head, ask: {question: "Ship <a major> release?", choices: [now, tonight, never]}}]
      default: [{id: log_it, set: {major: false}}]
  - id: best
    compete: {judge: {model: fast}}
    steps: [{id: short, agent: writer}, {id: long, agent: writer}]
  - id: wait_ci
    wait: {signal: ci_green, timeout: 2h}
  - id: ship
    approve: "Ship it?"
  - id: sane
    assert: "{{ ship == 'approve' }}"
`

// releaseGraph has every kind of block, arms, and jumps both ways.
func releaseGraph() *api.Graph {
	n := func(id, kind, action string, x, y, w, h float64, line int32) *api.GraphNode {
		label, parent := id, ""
		if i := strings.LastIndexByte(id, '/'); i >= 0 {
			label, parent = id[i+1:], id[:i]
		}
		return &api.GraphNode{Id: id, Label: label, Kind: kind, Action: action, Parent: parent, X: x, Y: y, Width: w, Height: h, Line: line}
	}
	e := func(from, to, cause string, points ...float64) *api.GraphEdge {
		return &api.GraphEdge{From: from, To: to, Cause: cause, Points: points}
	}
	jump := func(from, to, label string, back bool, points ...float64) *api.GraphEdge {
		return &api.GraphEdge{From: from, To: to, Cause: "jump", Label: label, Back: back, Points: points}
	}
	return &api.Graph{
		Width: 760, Height: 940,
		Nodes: []*api.GraphNode{
			n("draft", "skill", "summarise", 240, 16, 176, 44, 5),
			n("review", "call", "lib/review", 240, 108, 176, 44, 8),
			n("gates", "parallel", "", 132, 200, 392, 104, 11),
			n("gates/tests", "command", "", 148, 240, 168, 44, 13),
			n("gates/lint", "command", "", 340, 240, 168, 44, 14),
			n("kind", "match", "", 112, 352, 432, 140, 15),
			n("kind/ask_head", "ask", "", 136, 420, 168, 44, 18),
			n("kind/log_it", "set", "", 352, 420, 168, 44, 19),
			n("best", "compete", "", 132, 540, 392, 104, 20),
			n("best/short", "agent", "writer", 148, 580, 168, 44, 22),
			n("best/long", "agent", "writer", 340, 580, 168, 44, 22),
			n("wait_ci", "wait", "", 240, 692, 176, 44, 23),
			n("ship", "ask", "", 240, 784, 176, 44, 25),
			n("sane", "assert", "", 240, 876, 176, 44, 27),
		},
		Arms: []*api.GraphArm{
			{Block: "kind", Label: "major", X: 124, Y: 384, Width: 192, Height: 96},
			{Block: "kind", Label: "default", X: 340, Y: 384, Width: 192, Height: 96},
		},
		Edges: []*api.GraphEdge{
			e("draft", "review", "sequence", 328, 60, 328, 108),
			e("review", "gates", "sequence", 328, 152, 328, 200),
			e("gates", "kind", "sequence", 328, 304, 328, 352),
			e("kind", "best", "sequence", 328, 492, 328, 540),
			e("best", "wait_ci", "sequence", 328, 644, 328, 692),
			e("wait_ci", "ship", "sequence", 328, 736, 328, 784),
			e("ship", "sane", "sequence", 328, 828, 328, 876),
			jump("review", "draft", "failure", true, 372, 152, 372, 164, 460, 164, 460, 38, 416, 38),
			jump("ship", "draft", "false", true, 372, 828, 372, 848, 700, 848, 700, 28, 416, 28),
			jump("gates", "best", "always", false, 524, 252, 600, 252, 600, 592, 524, 592),
		},
	}
}

// released is the same when all is over; people were asked in other ways too.
func (f *fake) released(n int) *story {
	s := f.begin(n, "release", releaseGraph(), releaseSource)
	s.start(epoch)
	for i, path := range []string{"draft", "review", "review/check", "draft~2", "review~2", "review~2/check", "gates", "tests", "lint", "kind", "log_it", "best", "short", "long", "wait_ci"} {
		s.step(path, api.Step_RUNNING, epoch.Add(time.Duration(i)*time.Second), nil)
		s.step(path, api.Step_COMPLETED, epoch.Add(time.Duration(i+1)*time.Second), nil)
	}
	for i, path := range []string{"draft", "draft~2", "review~2"} {
		s.step(path, api.Step_COMPLETED, epoch.Add(16*time.Second), func(st *api.Step) {
			a := &api.Artifact{Artifact: "notes", Version: int32(i + 1), Producer: path, Value: `"out/notes.md"`, Digest: "sha256:notes1", Size: 5<<20 + int32(i)*77777, RunId: s.run.Id}
			if path == "review~2" {
				a = &api.Artifact{Artifact: "verdict", Version: 1, Producer: path, Value: `{"kind":"major","breaking":["the old flags are gone"],"score":0.93}`, RunId: s.run.Id}
			}
			st.Artifacts = []*api.Artifact{a}
		})
	}
	s.step("ask_head", api.Step_SKIPPED, epoch.Add(20*time.Second), func(st *api.Step) { st.Kind, st.Reason = "ask", "jumped" })
	s.ask(5, "ship", "approve", "Ship it, <b>now</b>?", func(a *api.Approval) {
		a.Status, a.DecidedAt = "decided", timestamppb.New(epoch.Add(2*time.Minute))
		a.Decisions = []*api.Decision{
			{Decision: "approve", Actor: "ada", At: timestamppb.New(epoch.Add(90 * time.Second))},
			{Decision: "reject", Actor: "grace", Comment: "The <i>notes</i> are not ready.\nLet us wait.", At: timestamppb.New(epoch.Add(2 * time.Minute))},
		}
	})
	s.step("ship", api.Step_FAILED, epoch.Add(2*time.Minute), func(st *api.Step) {
		st.Waiting, st.Reason, st.Error = nil, "rejected", &api.Failure{Kind: "failed", Step: "ship", Message: "rejected by grace: The notes are not ready."}
	})
	s.finish(api.Run_FAILED, epoch.Add(2*time.Minute), func(r *api.Run) {
		r.Reason, r.Error = "rejected", &api.Failure{Kind: "failed", Step: "ship", Message: "rejected by grace: The notes are not ready."}
	})
	return s
}

// releasing is a run that has jumped back once, asks people and waits.
func (f *fake) releasing(n int) *story {
	s := f.begin(n, "release", releaseGraph(), releaseSource)
	s.start(epoch)
	at := func(sec int) time.Time { return epoch.Add(time.Duration(sec) * time.Second) }
	kind := func(kind, action string) func(*api.Step) {
		return func(st *api.Step) { st.Kind, st.Action = kind, action }
	}
	s.definition.Holes = []*api.Hole{{Key: "draft.tone", Type: "any"}}
	s.carry("auto_resolved", "draft", `{"auto":{"key":"tone","value":"<i>plain</i>","from":"fallback"}}`)
	s.step("draft", api.Step_RUNNING, at(1), kind("skill", "summarise"))
	f.blobs["sha256:notes1"], f.blobs["sha256:notes2"] = "# Notes\n", "# Notes\n\n<script>alert(1)</script>\n"
	published := func(version int32, path string) func(*api.Step) {
		return func(st *api.Step) {
			st.Kind, st.Action = "skill", "summarise"
			content := f.blobs[fmt.Sprintf("sha256:notes%d", version)]
			st.Artifacts = []*api.Artifact{
				{Artifact: "notes", Version: version, Producer: path, Value: `"out/../Release\nnotes.html"`, Digest: fmt.Sprintf("sha256:notes%d", version), Size: int32(len(content)), RunId: s.run.Id},
			}
		}
	}
	s.step("draft", api.Step_COMPLETED, at(8), published(1, "draft"))
	s.step("review", api.Step_RUNNING, at(8), kind("call", "lib/review"))
	s.step("review/check", api.Step_RUNNING, at(8), kind("agent", "critic"))
	s.step("review/check", api.Step_FAILED, at(14), func(st *api.Step) {
		st.Error = &api.Failure{Kind: "contract", Step: "review/check", Message: "the notes name no breaking change"}
	})
	s.step("review", api.Step_FAILED, at(14), func(st *api.Step) {
		st.Error = &api.Failure{Kind: "contract", Step: "review/check", Message: "the notes name no breaking change"}
	})
	s.step("draft~2", api.Step_RUNNING, at(14), kind("skill", "summarise"))
	s.step("draft~2", api.Step_COMPLETED, at(20), published(2, "draft~2"))
	s.step("review~2", api.Step_RUNNING, at(20), kind("call", "lib/review"))
	s.step("review~2/check", api.Step_RUNNING, at(20), kind("agent", "critic"))
	s.step("review~2/check", api.Step_COMPLETED, at(25), nil)
	s.step("review~2", api.Step_COMPLETED, at(25), func(st *api.Step) {
		st.Artifacts = []*api.Artifact{{Artifact: "verdict", Version: 1, Producer: "review~2", Value: `{"kind":"major","score":0.93}`, RunId: s.run.Id}}
	})
	s.step("gates", api.Step_RUNNING, at(25), kind("parallel", ""))
	s.step("tests", api.Step_RUNNING, at(25), nil)
	s.step("lint", api.Step_SKIPPED, at(26), func(st *api.Step) { st.Reason = "jumped" })
	s.step("kind", api.Step_RUNNING, at(26), kind("match", ""))
	s.step("best", api.Step_RUNNING, at(26), kind("compete", ""))
	s.step("short", api.Step_RUNNING, at(26), kind("agent", "writer"))
	s.ask(1, "ask_head", "ask", "Ship <a major> release?", func(a *api.Approval) {
		a.Choices, a.Default, a.OnTimeout = `["now","tonight","never"]`, `"tonight"`, "default"
		a.Deadline = timestamppb.New(time.Now().Add(3 * time.Hour))
	})
	s.ask(3, "tests", "ask", "Which suites, and how often?", func(a *api.Approval) { a.Type = "map {suites: list<string>, times: integer}" })
	s.ask(4, "short", "needs_decision", "The server went away while short was running, and it may have taken effect. What shall be done?", nil)
	s.ask(2, "ship", "approve", "Ship it?\nThe notes are ready, and the tests are green.", func(a *api.Approval) {
		a.Assignees, a.Quorum = []string{"ada", "grace"}, 2
		a.Deadline, a.OnTimeout = timestamppb.New(time.Now().Add(9*time.Minute)), "reject"
	})
	s.waits("wait_ci", &api.Waiting{For: "signal", Signal: "ci_green", Due: timestamppb.New(time.Now().Add(2 * time.Hour))})
	s.do(func(r *api.Run) { r.Status, r.Reason = api.Run_WAITING, "approval" })
	s.tell("run_waiting", "", at(61))
	return s
}
