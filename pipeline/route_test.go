package pipeline_test

import (
	"strings"
	"testing"

	"github.com/orchestrator-project/orchestrator/pipeline"
)

func routed(s *pipeline.StepDef, r pipeline.Routes) *pipeline.StepDef {
	s.Routes = &r
	return s
}

func visits(s *pipeline.StepDef, n int) *pipeline.StepDef {
	s.MaxVisits = n
	return s
}

func TestJumpsForward(t *testing.T) {
	everything := "a COMPLETED\nb COMPLETED\nc COMPLETED\nd COMPLETED\nrun COMPLETED"
	jumped := "a COMPLETED\nb SKIPPED jumped\nc COMPLETED\nd COMPLETED\nrun COMPLETED"
	for _, c := range []struct {
		name   string
		routes pipeline.Routes
		script script
		want   string
	}{
		{"taken on success", pipeline.Routes{Success: new(2)}, nil, jumped},
		{"not taken without the failure", pipeline.Routes{Failure: new(2)}, nil, everything},
		{"to the next step", pipeline.Routes{Success: new(1)}, nil, everything},
		{"always, on success", pipeline.Routes{Always: new(2)}, nil, jumped},
		{"always, where no other is", pipeline.Routes{Success: new(2), Always: new(3)}, nil, jumped},
		{
			"on failure",
			pipeline.Routes{Failure: new(3)},
			script{"fails a": fails},
			"a FAILED\nb SKIPPED jumped\nc SKIPPED jumped\nd COMPLETED\nrun COMPLETED",
		},
		{
			"on false",
			pipeline.Routes{False: new(2), Success: new(3)},
			script{"condition a": isOff},
			"a SKIPPED condition_false\nb SKIPPED jumped\nc COMPLETED\nd COMPLETED\nrun COMPLETED",
		},
		{
			"always, on false",
			pipeline.Routes{Always: new(2)},
			script{"condition a": isOff},
			"a SKIPPED condition_false\nb SKIPPED jumped\nc COMPLETED\nd COMPLETED\nrun COMPLETED",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			body := sequence(routed(act("a"), c.routes), act("b"), act("c"), act("d"))
			ran(t, planOf(body), c.script).tells(t, c.want)
			// In a graph, what a jump may lead past depends on where it starts.
			body = graph(routed(act("a"), c.routes), act("b", 0), act("c", 0, 1), act("d", 0, 2))
			ran(t, planOf(body), c.script).tells(t, c.want)
		})
	}
}

func TestAJumpIsNotTakenOnceTheRunIsStopping(t *testing.T) {
	// b succeeds after a has failed: d, past which it would jump, is stopped as c is.
	plan := planOf(graph(act("a"), routed(act("b"), pipeline.Routes{Success: new(3)}), act("c", 1), act("d", 1, 2)))
	ran(t, plan, script{"fails a": fails}).tells(t, "a FAILED\nc SKIPPED run_stopped\nd SKIPPED run_stopped\nb COMPLETED\nrun FAILED step_failed")
}

func TestJumpsBack(t *testing.T) {
	body := func() pipeline.Body {
		return sequence(act("a"), visits(act("b"), 3), act("c"), routed(act("d"), pipeline.Routes{Failure: new(1)}), act("e"))
	}
	for _, c := range []struct {
		name   string
		script script
		want   string
	}{
		{"not taken", nil, "a COMPLETED\nb COMPLETED\nc COMPLETED\nd COMPLETED\ne COMPLETED\nrun COMPLETED"},
		{
			"begin the steps between again",
			script{"fails d": fails},
			"a COMPLETED\nb COMPLETED\nc COMPLETED\nd FAILED\nb~2 COMPLETED\nc~2 COMPLETED\nd~2 COMPLETED\ne COMPLETED\nrun COMPLETED",
		},
		{
			"again and again, within the bound",
			script{"fails d": fails, "fails d~2": fails, "condition c~2": isOff},
			"a COMPLETED\nb COMPLETED\nc COMPLETED\nd FAILED\nb~2 COMPLETED\nc~2 SKIPPED condition_false\nd~2 FAILED\nb~3 COMPLETED\nc~3 COMPLETED\nd~3 COMPLETED\ne COMPLETED\nrun COMPLETED",
		},
		{
			"never beyond max_visits",
			script{"fails d": fails, "fails d~2": fails, "fails d~3": fails},
			"a COMPLETED\nb COMPLETED\nc COMPLETED\nd FAILED\nb~2 COMPLETED\nc~2 COMPLETED\nd~2 FAILED\nb~3 COMPLETED\nc~3 COMPLETED\nd~3 FAILED\ne SKIPPED upstream_failed\nrun FAILED step_failed",
		},
		{
			"not after a failure that nothing handles",
			script{"fails c": fails},
			"a COMPLETED\nb COMPLETED\nc FAILED\nd SKIPPED upstream_failed\ne SKIPPED run_stopped\nrun FAILED step_failed",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := ran(t, planOf(body()), c.script)
			d.tells(t, c.want)
			if c.name != "never beyond max_visits" {
				return
			}
			f := d.m.Run.Error
			if f.Kind != pipeline.CategoryValidation || f.Reason != pipeline.ReasonMaxVisits || f.Step != "d~3" ||
				!strings.Contains(f.Message, "from d ") || !strings.Contains(f.Message, "to b ") {
				t.Errorf("the failure does not say what it is about: %+v", f)
			}
		})
	}
}

func TestJumpsBackAreBounded(t *testing.T) {
	again := func(s *pipeline.StepDef) *pipeline.StepDef { return routed(s, pipeline.Routes{Success: new(0)}) }
	plan := planOf(sequence(act("a"), again(act("b")), act("c")))
	plan.Settings.MaxTransitions = 2
	d := ran(t, plan, nil)
	d.tells(t, "a COMPLETED\nb COMPLETED\na~2 COMPLETED\nb~2 COMPLETED\na~3 COMPLETED\nb~3 COMPLETED\nc SKIPPED upstream_failed\nrun FAILED step_failed")
	if !strings.Contains(d.m.Run.Error.Message, "max_transitions") {
		t.Error(d.m.Run.Error)
	}
	plan.Settings.OnError = "continue" // what comes after still does not run
	ran(t, plan, nil).tells(t, "a COMPLETED\nb COMPLETED\na~2 COMPLETED\nb~2 COMPLETED\na~3 COMPLETED\nb~3 COMPLETED\nc SKIPPED upstream_failed\nrun FAILED step_failed")

	ran(t, planOf(sequence(act("a"), again(act("b")))), nil).tells(t, "a COMPLETED\nb COMPLETED\nrun FAILED step_failed")
	ran(t, planOf(sequence(visits(routed(act("a"), pipeline.Routes{Failure: new(0)}), 2), act("b"))), script{"fails a": fails}).
		tells(t, "a FAILED\na~2 COMPLETED\nb COMPLETED\nrun COMPLETED")
}

func TestAJumpBackReturnsToWhatWasJumped(t *testing.T) {
	// a leads past b to c; c leads back to b, and from there all goes straight on.
	plan := planOf(sequence(routed(act("a"), pipeline.Routes{Success: new(2)}), visits(act("b"), 2), routed(act("c"), pipeline.Routes{Failure: new(1)}), act("d")))
	ran(t, plan, script{"fails c": fails}).tells(t, "a COMPLETED\nb SKIPPED jumped\nc FAILED\nb~2 COMPLETED\nc~2 COMPLETED\nd COMPLETED\nrun COMPLETED")
}

func TestJumpsByRule(t *testing.T) {
	a := visits(act("a"), 2)
	b := with(act("b"), func(s *pipeline.StepDef) {
		s.OnError = []pipeline.Rule{{Category: []string{"tool"}, Do: "goto", To: new(0)}, {Do: "goto", To: new(3)}}
		s.Routes = &pipeline.Routes{Failure: new(1), Success: new(3)}
	})
	plan := planOf(sequence(a, b, act("c"), act("d")))
	ran(t, plan, script{"fails b": fails, "category b": 2}).tells(t, "a COMPLETED\nb FAILED\na~2 COMPLETED\nb~2 COMPLETED\nc SKIPPED jumped\nd COMPLETED\nrun COMPLETED")
	ran(t, plan, script{"fails b": fails}).tells(t, "a COMPLETED\nb FAILED\nc SKIPPED jumped\nd COMPLETED\nrun COMPLETED")
	// A fallback leaves only the route that is always taken.
	b.OnError = []pipeline.Rule{{Do: "fallback"}}
	ran(t, plan, script{"fails b": fails}).tells(t, "a COMPLETED\nb FAILED\nc COMPLETED\nd COMPLETED\nrun COMPLETED")
	b.Routes.Always = new(3)
	ran(t, plan, script{"fails b": fails}).tells(t, "a COMPLETED\nb FAILED\nc SKIPPED jumped\nd COMPLETED\nrun COMPLETED")
}

func TestBlocksAreVisitedAgain(t *testing.T) {
	sub := &pipeline.Unit{Root: graph(act("deep")), Finally: graph(act("wipe"))}
	plan := planOf(sequence(
		branches(pipeline.KindIf, "choice", graph(act("yes"))),
		loop(pipeline.KindFor, "each", graph(act("x")), pipeline.Loop{}),
		call("sub", 0),
		routed(act("check"), pipeline.Routes{Failure: new(0)}),
	), sub)
	plan.Settings.MaxTransitions = 1
	d := ran(t, plan, script{"fails check": fails, "items each": 1, "items each~2": 2})
	d.tells(t, `
		yes COMPLETED
		choice COMPLETED
		each[0]/x COMPLETED
		each COMPLETED
		sub/deep COMPLETED
		sub/wipe COMPLETED
		sub COMPLETED
		check FAILED
		yes~2 COMPLETED
		choice~2 COMPLETED
		each~2[0]/x COMPLETED
		each~2[1]/x COMPLETED
		each~2 COMPLETED
		sub~2/deep COMPLETED
		sub~2/wipe COMPLETED
		sub~2 COMPLETED
		check~2 COMPLETED
		run COMPLETED`)
	for _, s := range d.view.Steps {
		if strings.ContainsAny(s.ID, "~[/") {
			t.Errorf("the id of %s is %s", s.Path, s.ID)
		}
	}
}

func TestEachPassCountsItsOwnVisits(t *testing.T) {
	body := sequence(visits(act("a"), 2), routed(act("b"), pipeline.Routes{Failure: new(0)}))
	plan := planOf(graph(loop(pipeline.KindFor, "each", body, pipeline.Loop{OnItemError: "continue"})))
	d := ran(t, plan, script{"items each": 2, "fails each[0]/b": fails, "fails each[0]/b~2": fails, "fails each[1]/b": fails})
	d.tells(t, `
		each[0]/a COMPLETED
		each[0]/b FAILED
		each[0]/a~2 COMPLETED
		each[0]/b~2 FAILED
		each[1]/a COMPLETED
		each[1]/b FAILED
		each[1]/a~2 COMPLETED
		each[1]/b~2 COMPLETED
		each COMPLETED
		run COMPLETED`)
	out, _ := d.output("each").(map[string]any)
	results, _ := out["results"].([]any)
	equalValue(t, results, []any{nil, map[string]any{"a": "each[1]/a~2", "b": "each[1]/b~2"}})
	errs, _ := out["errors"].([]any)
	if len(errs) != 1 || errs[0].(map[string]any)["index"] != int64(0) {
		t.Errorf("errors are %v", errs)
	}
}

func TestArmsThatShareAnIDHaveDifferentPaths(t *testing.T) {
	plan := planOf(sequence(
		branches(pipeline.KindIf, "one", graph(act("x"))),
		branches(pipeline.KindIf, "two", graph(act("x"))),
		loop(pipeline.KindFor, "each", graph(branches(pipeline.KindIf, "", graph(act("x")))), pipeline.Loop{Single: true}),
	))
	plan.Finally = graph(branches(pipeline.KindIf, "last", graph(act("x"))))
	ran(t, plan, script{"items each": 2}).tells(t, `
		x COMPLETED
		one COMPLETED
		x~2 COMPLETED
		two COMPLETED
		each[0]/x COMPLETED
		each[0] COMPLETED
		each[1]/x COMPLETED
		each[1] COMPLETED
		each COMPLETED
		x~3 COMPLETED
		last COMPLETED
		run COMPLETED`)
}
