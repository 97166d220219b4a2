package web

import (
	"fmt"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	api "github.com/orchestrator-project/orchestrator/proto/orchestrator/v1"
)

const demoSource = `# Reads a repository's issues and writes a report.
id: nightly-triage
version: 1.2.0
inputs:
  repo:   {type: string, description: "Owner and name"}
  depth:  {type: enum, values: [shallow, deep], default: shallow}
  budget: 3
steps:
  - id: load
    command: [gh, issue, list, --repo, "{{ inputs.repo }}", --json, "number,title"]
    capture: json
  - id: profile
    action: data.profile
    parameters: {data: "{{ load }}"}
  - id: stats
    action: data.aggregate
    parameters: {data: "{{ load }}", by: label}
  - id: each_issue
    for: {items: "{{ load }}", parallel: 4}
    steps:
      - id: classify
        action: analyze
        parameters: {text: "{{ item.title }}"}
      - id: score
        command: [python3, score.py, "{{ classify.label }}"]  # a number from 0 to 1
  - id: check
    if: {condition: "{{ profile.rows > 100 }}"}
    then:
      - id: sample
        action: data.filter
  - id: report
    action: generate_report
    parameters: {stats: "{{ stats }}", issues: "{{ each_issue.results }}"}
outputs:
  report: "{{ report }}"
  rows: "{{ profile.rows }}"
`

// demoGraph is a plan with a loop, a branch and a join, drawn from top to bottom.
func demoGraph() *api.Graph {
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
	return &api.Graph{
		Width: 640, Height: 520,
		Nodes: []*api.GraphNode{
			n("load", "command", "", 240, 16, 160, 44, 9),
			n("profile", "action", "data.profile", 16, 116, 160, 44, 12),
			n("stats", "action", "data.aggregate", 464, 116, 160, 44, 15),
			n("each_issue", "for", "", 212, 108, 216, 192, 18),
			n("each_issue/classify", "action", "analyze", 240, 148, 160, 44, 21),
			n("each_issue/score", "command", "", 240, 236, 160, 44, 24),
			n("check", "if", "", 0, 220, 192, 112, 26),
			n("check/sample", "action", "data.filter", 16, 264, 160, 44, 29),
			n("report", "action", "generate_report", 240, 404, 160, 44, 31),
		},
		Edges: []*api.GraphEdge{
			e("load", "profile", "reference", 320, 60, 96, 116),
			e("load", "each_issue", "reference", 320, 60, 320, 108),
			e("load", "stats", "reference", 320, 60, 544, 116),
			e("each_issue/classify", "each_issue/score", "sequence", 320, 192, 320, 236),
			e("profile", "check", "reference", 96, 160, 96, 220),
			e("each_issue", "report", "reference", 320, 300, 320, 404),
			e("check", "report", "declared", 96, 332, 320, 404),
			e("stats", "report", "reference", 544, 160, 544, 300, 320, 404),
		},
	}
}

func demoPipeline(version string) *api.Pipeline {
	return &api.Pipeline{
		Id: "nightly-triage", Name: "nightly_triage", Version: version, Description: "Reads a repository's issues, scores each and writes a report.",
		PlanDigest: "sha256:" + strings.Repeat("4f", 32), CreatedAt: timestamppb.New(epoch.Add(-26 * time.Hour)), Steps: 9,
		Inputs: []*api.Input{
			{Name: "repo", Type: "string", Required: true, Description: "Owner and name, as in acme/site"},
			{Name: "depth", Type: "enum", Default: `"shallow"`, Values: `["shallow","deep"]`, Description: "How far back to read"},
			{Name: "budget", Type: "integer", Default: "3"},
			{Name: "dry", Type: "boolean", Default: "false", Description: "Write nothing"},
			{Name: "tags", Type: "list<string>", Description: "Only issues with one of these"},
		},
		Holes: []*api.Hole{
			{Key: "report.tone", Type: "one of plain, warm", Prompt: "Which tone suits the readers of {{ inputs.repo }}?", Fallback: `"plain"`, Line: 31},
			{Key: "report.length", Type: "integer", Prompt: "How many words may the report have?", Line: 32},
			{Key: "report.hints", Type: "list<string>", Prompt: "What should it point out?", Line: 33},
		},
		Models: []string{"fast", "claude-haiku-4-5"}, Tools: []string{"fs.read", "http.get"}, Skills: []string{"summarise"}, Agents: []string{"triager"},
		Secrets: []string{"GITHUB_TOKEN"}, Estimate: "7 + 2 per item of load",
		Outputs: []string{"report", "rows"}, Example: "orchestrator run nightly-triage.yaml -i repo=acme/site",
		Graph: demoGraph(), Source: demoSource,
	}
}

// demo fills a fake with runs in every state; the run with number 9 is alive.
func demo() *fake {
	f := newFake()
	f.pipelines = []*api.Pipeline{demoPipeline("1.2.0"), demoPipeline("1.1.0"), {
		Id: "summarise", Version: "0.3.1", Description: "Summarises one document.", CreatedAt: timestamppb.New(epoch.Add(-90 * time.Hour)),
		Source: "steps: []\n", Graph: &api.Graph{},
	}}
	f.failed(3)
	for n := 4; n <= 7; n++ {
		f.completed(n)
	}
	f.begin(8, "summarise", demoGraph(), demoSource)
	f.running(9)
	w := f.begin(10, "nightly-triage", demoGraph(), demoSource)
	w.start(epoch)
	w.do(func(r *api.Run) { r.Status, r.Reason = api.Run_WAITING, "retrying" })
	w.tell("run_waiting", "", epoch.Add(time.Minute))
	f.releasing(12)
	f.released(13)
	f.operating()
	c := f.begin(11, "summarise", demoGraph(), demoSource)
	c.start(epoch)
	c.finish(api.Run_CANCELLED, epoch.Add(80*time.Second), func(r *api.Run) { r.Reason = "cancelled_by_user" })
	return f
}

func (f *fake) completed(n int) *story {
	s := f.begin(n, "nightly-triage", demoGraph(), demoSource)
	s.do(func(r *api.Run) { r.Labels = map[string]string{"customer": fmt.Sprint(40 + n)} })
	s.loaded()
	s.items(20, 20)
	s.step("check", api.Step_COMPLETED, epoch.Add(40*time.Second), func(st *api.Step) { st.Kind = "if" })
	s.step("sample", api.Step_SKIPPED, epoch.Add(41*time.Second), func(st *api.Step) { st.Reason = "branch_not_taken" })
	s.step("each_issue", api.Step_COMPLETED, epoch.Add(72*time.Second), nil)
	s.step("report", api.Step_RUNNING, epoch.Add(72*time.Second), nil)
	s.step("report", api.Step_COMPLETED, epoch.Add(85*time.Second), func(st *api.Step) {
		st.Action, st.Kind, st.Model, st.Output = "generate_report", "action", "claude-haiku-4-5", `"# Report\n\nAll is well."`
		st.Usage = &api.Usage{InputTokens: 5321, OutputTokens: 804, CostUsd: 0.0093}
	})
	s.finish(api.Run_COMPLETED, epoch.Add(86*time.Second), func(r *api.Run) {
		r.Outputs = `{"report":"# Report\n\nAll is well.","rows":9007199254740993,"by_label":{"bug":12,"idea":8}}`
	})
	return s
}

func (f *fake) running(n int) *story {
	s := f.begin(n, "nightly-triage", demoGraph(), demoSource)
	s.loaded()
	s.items(20, 12)
	s.step("check", api.Step_RUNNING, epoch.Add(38*time.Second), func(st *api.Step) { st.Kind = "if" })
	s.step("sample", api.Step_RUNNING, epoch.Add(39*time.Second), func(st *api.Step) { st.Kind, st.Action = "action", "data.filter" })
	return s
}

// failed is a run whose loop body failed after a second attempt.
func (f *fake) failed(n int) *story {
	s := f.begin(n, "nightly-triage", demoGraph(), demoSource)
	s.loaded()
	s.items(8, 7)
	p := "each_issue[7]/classify"
	boom := &api.Failure{Kind: "rate_limit", Step: p, Message: "the model answered 429 Too Many Requests: <b>slow down</b> & retry in 20 s"}
	s.step(p, api.Step_WAITING, epoch.Add(60*time.Second), func(st *api.Step) { st.Reason, st.Error = "retrying", boom })
	s.step(p, api.Step_RUNNING, epoch.Add(64*time.Second), func(st *api.Step) { st.Attempt, st.Error, st.Reason = 2, nil, "" })
	s.say(p, "stderr", "\x1b[1;31merror:\x1b[0m <script>alert(1)</script> 429 Too Many Requests", epoch.Add(66*time.Second))
	s.step(p, api.Step_FAILED, epoch.Add(67*time.Second), func(st *api.Step) { st.Error = boom })
	s.step("each_issue", api.Step_FAILED, epoch.Add(68*time.Second), func(st *api.Step) { st.Error = boom })
	s.step("report", api.Step_SKIPPED, epoch.Add(68*time.Second), func(st *api.Step) { st.Kind, st.Action, st.Reason = "action", "generate_report", "upstream_failed" })
	s.finish(api.Run_FAILED, epoch.Add(69*time.Second), func(r *api.Run) { r.Error, r.Reason = boom, "step_failed" })
	return s
}

func (s *story) loaded() {
	s.start(epoch.Add(200 * time.Millisecond))
	s.step("load", api.Step_RUNNING, epoch.Add(210*time.Millisecond), nil)
	s.say("load", "system", "gh issue list --repo acme/site", epoch.Add(300*time.Millisecond))
	s.say("load", "stdout", "\x1b[32m20 issues\x1b[0m read from \x1b[1macme/site\x1b[0m", epoch.Add(4*time.Second))
	s.say("load", "stderr", "\x1b[33mwarning:\x1b[0m 2 issues have no label", epoch.Add(4200*time.Millisecond))
	s.step("load", api.Step_COMPLETED, epoch.Add(5*time.Second), func(st *api.Step) {
		st.Output = `[{"number":1,"title":"It crashes"},{"number":2,"title":"It is slow"}]`
	})
	s.step("profile", api.Step_RUNNING, epoch.Add(5*time.Second), func(st *api.Step) { st.Kind, st.Action = "action", "data.profile" })
	s.step("stats", api.Step_RUNNING, epoch.Add(5*time.Second), func(st *api.Step) { st.Kind, st.Action = "action", "data.aggregate" })
	s.step("each_issue", api.Step_RUNNING, epoch.Add(5100*time.Millisecond), func(st *api.Step) { st.Kind = "for" })
	s.step("stats", api.Step_COMPLETED, epoch.Add(9*time.Second), nil)
	s.step("profile", api.Step_COMPLETED, epoch.Add(38*time.Second), nil)
}

// items runs n passes of the loop, four side by side, of which done have ended.
func (s *story) items(n, done int) {
	for i := range n {
		from := epoch.Add(5200*time.Millisecond + time.Duration(i/4)*13*time.Second + time.Duration(i%4)*700*time.Millisecond)
		if i >= done+4 {
			return
		}
		c, sc := fmt.Sprintf("each_issue[%d]/classify", i), fmt.Sprintf("each_issue[%d]/score", i)
		s.step(c, api.Step_RUNNING, from, func(st *api.Step) {
			st.Kind, st.Action, st.Model, st.Parameters = "action", "analyze", "claude-haiku-4-5", `{"text":"It crashes when the list is empty","labels":["bug","idea","question"]}`
		})
		if i >= done {
			continue
		}
		s.say(c, "stdout", fmt.Sprintf("issue %d is a \x1b[36mbug\x1b[0m (0.%d)", i, 91-i), from.Add(2*time.Second))
		s.step(c, api.Step_COMPLETED, from.Add(8*time.Second), func(st *api.Step) {
			st.Output, st.Usage = `{"label":"bug","why":"It names a crash."}`, &api.Usage{InputTokens: 412, OutputTokens: 58, CostUsd: 0.0007}
		})
		s.step(sc, api.Step_RUNNING, from.Add(8*time.Second), nil)
		s.step(sc, api.Step_COMPLETED, from.Add(11*time.Second), func(st *api.Step) { st.Output = "0.91" })
	}
}

// many is a finished run of n steps in one loop.
func (f *fake) many(n, steps int) *story {
	s := f.begin(n, "nightly-triage", demoGraph(), demoSource)
	s.loaded()
	at := epoch.Add(40 * time.Second)
	for i := range steps / 2 {
		path := fmt.Sprintf("each_issue[%d]/classify", i)
		s.add(path, api.Step_COMPLETED, at, at.Add(80*time.Millisecond))
		st := api.Step_COMPLETED
		if i%97 == 96 {
			st = api.Step_FAILED
		}
		s.add(fmt.Sprintf("each_issue[%d]/score", i), st, at.Add(80*time.Millisecond), at.Add(120*time.Millisecond))
		at = at.Add(time.Duration(20+i%31) * time.Millisecond)
	}
	s.step("each_issue", api.Step_COMPLETED, at.Add(time.Second), nil)
	s.finish(api.Run_COMPLETED, at.Add(2*time.Second), nil)
	return s
}

// add puts in a step that is over, with one event for it.
func (s *story) add(path string, st api.Step_Status, from, to time.Time) {
	s.f.mu.Lock()
	defer s.f.mu.Unlock()
	s.index[path] = len(s.steps)
	s.steps = append(s.steps, &api.Step{
		Path: path, Id: path[strings.LastIndexByte(path, '/')+1:], Kind: "action", Action: "analyze", Attempt: 1, Status: st,
		StartedAt: timestamppb.New(from), FinishedAt: timestamppb.New(to), Output: `{"label":"bug"}`,
	})
	s.run.Usage.Steps++
	s.events = append(s.events, &api.Event{
		RunId: s.run.Id, Seq: int32(len(s.events) + 1), Type: "step_finished", Path: path, Attempt: 1, At: timestamppb.New(to), Data: "{}",
	})
}
