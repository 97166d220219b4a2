package pipeline_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/orchestrator-project/orchestrator/pipeline"
)

// Each row of the table of failures, in a run's own pipeline and in one that it
// calls. Step a meets what the row says; b depends on it; c runs at the same
// time; d waits for c; tidy is the clean-up.
func TestFailureTable(t *testing.T) {
	rules := func(rule pipeline.Rule) func(s *pipeline.StepDef) {
		return func(s *pipeline.StepDef) { s.OnError = []pipeline.Rule{rule} }
	}
	cases := []struct {
		name    string
		a       func(s *pipeline.StepDef)
		onError string
		script  script
		want    string // but for the run
		run     string
	}{
		{
			name: "condition false", script: script{"condition a": isOff},
			want: "a SKIPPED condition_false, b COMPLETED, c COMPLETED, d COMPLETED, tidy COMPLETED", run: "COMPLETED",
		},
		{
			name: "failed under stop", script: script{"fails a": fails},
			want: "a FAILED, b SKIPPED upstream_failed, d SKIPPED run_stopped, c COMPLETED, tidy COMPLETED", run: "FAILED",
		},
		{
			name: "failed under abort", script: script{"fails a": fails}, onError: "abort",
			want: "a FAILED, b SKIPPED upstream_failed, d SKIPPED run_stopped, c CANCELLED cancelled, tidy COMPLETED", run: "FAILED",
		},
		{
			name: "failed under continue", script: script{"fails a": fails}, onError: "continue",
			want: "a FAILED, b SKIPPED upstream_failed, c COMPLETED, d COMPLETED, tidy COMPLETED", run: "FAILED",
		},
		{
			name: "on_failure: continue", script: script{"fails a": fails}, a: func(s *pipeline.StepDef) { s.OnFailure = "continue" },
			want: "a FAILED, b COMPLETED, c COMPLETED, d COMPLETED, tidy COMPLETED", run: "FAILED",
		},
		{
			name: "on_failure: continue under continue", script: script{"fails a": fails}, onError: "continue", a: func(s *pipeline.StepDef) { s.OnFailure = "continue" },
			want: "a FAILED, b COMPLETED, c COMPLETED, d COMPLETED, tidy COMPLETED", run: "COMPLETED",
		},
		{
			name: "on_failure: skip", script: script{"fails a": fails}, a: func(s *pipeline.StepDef) { s.OnFailure = "skip" },
			want: "a SKIPPED failed, b COMPLETED, c COMPLETED, d COMPLETED, tidy COMPLETED", run: "COMPLETED",
		},
		{
			name: "routed by on_failure", script: script{"fails a": fails}, a: func(s *pipeline.StepDef) { s.Routes = &pipeline.Routes{Failure: new(2)} },
			want: "a FAILED, b SKIPPED jumped, c COMPLETED, d COMPLETED, tidy COMPLETED", run: "COMPLETED",
		},
		{
			name: "routed by on.always", script: script{"fails a": fails}, a: func(s *pipeline.StepDef) { s.Routes = &pipeline.Routes{Always: new(1)} },
			want: "a FAILED, b COMPLETED, c COMPLETED, d COMPLETED, tidy COMPLETED", run: "COMPLETED",
		},
		{
			name: "a rule goes on elsewhere", script: script{"fails a": fails}, a: rules(pipeline.Rule{Do: "goto", To: new(2)}),
			want: "a FAILED, b SKIPPED jumped, c COMPLETED, d COMPLETED, tidy COMPLETED", run: "COMPLETED",
		},
		{
			name: "a rule falls back", script: script{"fails a": fails}, a: rules(pipeline.Rule{Do: "fallback", Value: &pipeline.Field{Const: "instead"}}),
			want: "a FAILED, b COMPLETED, c COMPLETED, d COMPLETED, tidy COMPLETED", run: "COMPLETED",
		},
		{
			name: "a rule fails", script: script{"fails a": fails}, a: rules(pipeline.Rule{Do: "fail"}),
			want: "a FAILED, b SKIPPED upstream_failed, d SKIPPED run_stopped, c COMPLETED, tidy COMPLETED", run: "FAILED",
		},
		{
			name: "no rule matches", script: script{"fails a": fails}, a: rules(pipeline.Rule{Category: []string{"model"}, Do: "fallback"}),
			want: "a FAILED, b SKIPPED upstream_failed, d SKIPPED run_stopped, c COMPLETED, tidy COMPLETED", run: "FAILED",
		},
	}
	unitOf := func(change func(s *pipeline.StepDef), onError string) pipeline.Unit {
		a := act("a")
		c := act("c")
		if change != nil {
			change(a)
		}
		if a.Routes != nil || len(a.OnError) > 0 && a.OnError[0].To != nil {
			c = act("c", 0) // a jump's target depends on where it starts
		}
		u := pipeline.Unit{ID: "u", Root: graph(a, act("b", 0), c, act("d", 2)), Finally: graph(act("tidy"))}
		u.Settings.OnError = onError
		return u
	}
	sorted := func(lines []string) string {
		slices.Sort(lines)
		return strings.Join(lines, "\n")
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			d := ran(t, &pipeline.Plan{Unit: unitOf(c.a, c.onError)}, c.script)
			got := strings.Split(strings.TrimSpace(d.story()), "\n")
			if sorted(got[:len(got)-1]) != sorted(strings.Split(c.want, ", ")) {
				t.Errorf("got:\n%swant: %s", d.story(), c.want)
			}
			if got := string(d.m.Run.Status); got != c.run {
				t.Errorf("the run is %s, want %s", got, c.run)
			}
			if c.name == "a rule falls back" {
				equalValue(t, d.output("a"), any("instead"))
			}
		})
		t.Run(c.name+", in a call", func(t *testing.T) {
			u := unitOf(c.a, c.onError)
			inner := script{}
			for k, v := range c.script {
				inner[strings.Replace(k, " a", " sub/a", 1)] = v
			}
			d := ran(t, planOf(graph(call("sub", 0), act("after", 0)), &u), inner)
			var want []string
			for line := range strings.SplitSeq(c.want, ", ") {
				want = append(want, "sub/"+line)
			}
			var got []string
			for line := range strings.Lines(d.story()) {
				if strings.HasPrefix(line, "sub/") {
					got = append(got, strings.TrimSpace(line))
				}
			}
			if sorted(got) != sorted(want) {
				t.Errorf("got:\n%swant: %s", d.story(), c.want)
			}
			after := map[string]pipeline.StepStatus{"COMPLETED": pipeline.StepCompleted, "FAILED": pipeline.StepSkipped}[c.run]
			if sub := string(d.view.Step("sub").Status); sub != c.run || d.view.Step("after").Status != after || string(d.m.Run.Status) != c.run {
				t.Errorf("the call is %s, the step after it %s, the run %s; want %s", sub, d.view.Step("after").Status, d.m.Run.Status, c.run)
			}
			if c.run == "FAILED" && d.m.Run.Error.Step != "sub/a" {
				t.Errorf("the run failed by %s", d.m.Run.Error.Step)
			}
		})
	}
}

func TestAHandledFailureOfACallIsNotTheRuns(t *testing.T) {
	sub := &pipeline.Unit{Root: graph(onFailure(act("a"), "continue"))}
	for _, c := range []struct {
		name string
		call *pipeline.StepDef
		want string
	}{
		{"skip", onFailure(call("sub", 0), "skip"), "sub/a FAILED\nsub SKIPPED failed\nrun COMPLETED"},
		{"route", with(call("sub", 0), func(s *pipeline.StepDef) { s.Routes = &pipeline.Routes{Failure: new(1)} }), "sub/a FAILED\nsub FAILED\nthen COMPLETED\nrun COMPLETED"},
		{"rule", with(call("sub", 0), func(s *pipeline.StepDef) { s.OnError = []pipeline.Rule{{Do: "fallback"}} }), "sub/a FAILED\nsub FAILED\nrun COMPLETED"},
	} {
		t.Run(c.name, func(t *testing.T) {
			steps := []*pipeline.StepDef{c.call}
			if c.name == "route" {
				steps = append(steps, act("then", 0))
			}
			ran(t, planOf(graph(steps...), sub), script{"fails sub/a": fails}).tells(t, c.want)
		})
	}
}

func TestRuleOf(t *testing.T) {
	two := 2
	exit := &pipeline.Failure{Kind: "failed", Message: "make: *** no rule", ExitCode: &two}
	status := &pipeline.Failure{Kind: "rate_limit", Message: "GET x answered 429", Reason: "http_429"}
	for _, c := range []struct {
		name  string
		rules []pipeline.Rule
		f     *pipeline.Failure
		want  int
	}{
		{"none", nil, exit, -1},
		{"the first that matches", []pipeline.Rule{{Category: []string{"model"}}, {Category: []string{"tool", "failed"}}, {}}, exit, 1},
		{"an exit code", []pipeline.Rule{{Codes: []string{"1"}}, {Codes: []string{"1", "2"}}}, exit, 1},
		{"a status", []pipeline.Rule{{Codes: []string{"428"}}, {Codes: []string{"429"}}}, status, 1},
		{"a reason", []pipeline.Rule{{Codes: []string{"http_429"}}}, status, 0},
		{"a pattern", []pipeline.Rule{{Pattern: "^no rule"}, {Pattern: `no\s+rule`}}, exit, 1},
		{"all of the members", []pipeline.Rule{{Category: []string{"failed"}, Codes: []string{"3"}}, {Category: []string{"failed"}, Codes: []string{"2"}, Pattern: "make"}}, exit, 1},
		{"a broken pattern matches nothing", []pipeline.Rule{{Pattern: "("}}, exit, -1},
		{"cancellation is no failure", []pipeline.Rule{{}}, pipeline.Failuref(pipeline.CategoryCancelled, "x"), -1},
		{"success", []pipeline.Rule{{}}, nil, -1},
	} {
		if got := pipeline.RuleOf(&pipeline.StepDef{OnError: c.rules}, c.f); got != c.want {
			t.Errorf("%s: rule %d, want %d", c.name, got, c.want)
		}
	}
}

func TestTheRuleOfARetryIsKnownToTheNextAttempt(t *testing.T) {
	a := with(act("a"), func(s *pipeline.StepDef) {
		s.OnError = []pipeline.Rule{{Category: []string{"model"}, Do: "fail"}, {Do: "retry", Model: "other"}}
	})
	d := started(t, planOf(graph(a)), script{"fails a": fails, "delay a": 1})
	d.end()
	d = d.refold(0)
	if r := d.m.Rule("a"); r == nil || r.Model != "other" || d.m.Tries("a") != 1 {
		t.Errorf("after %d failures the rule is %+v", d.m.Tries("a"), r)
	}
	d.finishRun()
	if got := d.view.Step("a"); got.Attempt != 3 || got.Status != pipeline.StepFailed || d.m.Run.Status != pipeline.RunFailed {
		t.Errorf("the step ends %s after attempt %d, the run %s", got.Status, got.Attempt, d.m.Run.Status)
	}
}

func TestCancellationReachesEverything(t *testing.T) {
	sub := &pipeline.Unit{Root: sequence(act("deep"), act("later")), Finally: graph(act("wipe"))}
	plan := planOf(graph(
		act("a"),
		kind(pipeline.KindAsk, "ask"),
		loop(pipeline.KindFor, "each", graph(kind(pipeline.KindWait, "w"), act("x", 0)), pipeline.Loop{Parallel: -1}),
		call("sub", 0),
		act("end", 0, 1, 2, 3),
	), sub)
	plan.Finally = graph(act("tidy"))
	d := started(t, plan, script{"items each": 1})
	d.after = func(d *driver) { d.checkTwins(); d.checkView() }
	d.record(pipeline.SignalReceived, "", 0, pipeline.Data{Signal: pipeline.SignalCancel})
	for path, want := range map[pipeline.Path]bool{"a": true, "sub/deep": true, "none": false} {
		if got := d.m.Cancels(path); got != want {
			t.Errorf("cancels %s: %v", path, got)
		}
	}
	d.pump()
	d.endLeaf("sub/deep")
	d.pump()
	if d.m.Cancels("sub/wipe") || !d.m.Cancels("a") || !d.m.Aborting() {
		t.Error("the clean-up of a called pipeline is to be cancelled, or a running step is not")
	}
	d.finishRun()
	d.tells(t, `
		ask SKIPPED cancelled
		each[0]/w SKIPPED cancelled
		each[0]/x SKIPPED cancelled
		sub/later SKIPPED cancelled
		end SKIPPED cancelled
		each CANCELLED cancelled
		sub/deep CANCELLED cancelled
		a CANCELLED cancelled
		sub/wipe COMPLETED
		sub CANCELLED cancelled
		tidy COMPLETED
		run CANCELLED cancelled`)
}

func TestAbortOfACalledPipelineLeavesTheCallerAlone(t *testing.T) {
	sub := &pipeline.Unit{Root: graph(act("bad"), act("slow"))}
	sub.Settings.OnError = "abort"
	d := started(t, planOf(graph(act("mine"), onFailure(call("sub", 0), "skip")), sub), script{"fails sub/bad": fails})
	d.endLeaf("sub/bad")
	if d.m.Cancels("mine") || !d.m.Cancels("sub/slow") {
		t.Errorf("cancels mine: %v, sub/slow: %v", d.m.Cancels("mine"), d.m.Cancels("sub/slow"))
	}
	d.finishRun()
	if d.m.Aborting() {
		t.Error("something is still to be cancelled")
	}
	d.tells(t, "sub/bad FAILED\nmine COMPLETED\nsub/slow CANCELLED cancelled\nsub SKIPPED failed\nrun COMPLETED")
}
