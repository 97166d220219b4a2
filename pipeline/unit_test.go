package pipeline_test

import (
	"testing"
	"time"

	"github.com/orchestrator-project/orchestrator/pipeline"
)

// lookup is what a name means in a scope; nil and false: nothing.
func lookup(s pipeline.Scope, name string) (any, bool) {
	v, ok := s.Lookup(name)
	if w, is := v.(interface{ Value() any }); is {
		return w.Value(), ok
	}
	return v, ok
}

func means(t *testing.T, s pipeline.Scope, names map[string]any) {
	t.Helper()
	for name, want := range names {
		got, ok := lookup(s, name)
		if !ok {
			t.Errorf("%s means nothing", name)
			continue
		}
		equalValue(t, got, want)
	}
}

func unknown(t *testing.T, s pipeline.Scope, names ...string) {
	t.Helper()
	for _, name := range names {
		if v, ok := lookup(s, name); ok {
			t.Errorf("%s means %v", name, v)
		}
	}
}

func TestNamesMeanWhatStandsInTheirPipeline(t *testing.T) {
	sub := &pipeline.Unit{
		ID: "sub", Name: "Sub", Version: "2", Root: sequence(act("inner"), act("second")), Finally: graph(act("wipe")),
		State: []string{"n"}, HasOutputs: true,
	}
	each := loop(pipeline.KindFor, "each", graph(call("c", 0)), pipeline.Loop{Variable: "file"})
	plan := planOf(sequence(act("outer"), each), sub)
	plan.State = []string{"n", "m"}
	d := fresh(t, plan, script{"items each": 2}.choose)
	d.m.Run.Inputs = map[string]any{}
	d.m.SetVars(map[string]any{"style": "terse"})
	d.m.SetDir("/bundle")
	d.record(pipeline.RunCreated, "", 0, pipeline.Data{})
	d.record(pipeline.RunStarted, "", 0, pipeline.Data{})
	d.pump()
	delete(d.run, "outer")
	d.record(pipeline.StepFinished, "outer", 1, pipeline.Data{Status: pipeline.StepCompleted, Output: "o", State: map[string]any{"n": int64(1)}})

	// The call in the first pass is about to begin.
	for {
		d.tasks = append(d.tasks, d.m.Next()...)
		if d.tasks[0].Path == "each[0]/c" {
			break
		}
		d.answerOne()
	}
	at := pipeline.Path("each[0]/c")
	means(t, d.m.Scope(at), map[string]any{"outer": "o", "n": int64(1), "m": nil, "style": "terse", "file": nil, "item": nil, "index": int64(0), "position": int64(1)})
	for want, s := range map[pipeline.Path]pipeline.Scope{at: d.m.Scope(at), "each[0]": d.m.PassScope("each", 0), "each[1]": d.m.PassScope("each", 1), "": d.m.Scope("")} {
		if s.Path() != want {
			t.Errorf("the scope of %q is that of %q", want, s.Path())
		}
	}
	vars := d.m.VarsScope(at, map[string]any{"x": int64(7)})
	means(t, vars, map[string]any{"x": int64(7), "n": nil, "inputs": map[string]any{"x": int64(7)}})
	unknown(t, vars, "outer", "file", "index", "style", "inner")
	d.pump()

	inner := pipeline.Path("each[0]/c/inner")
	s := d.m.Scope(inner)
	means(t, s, map[string]any{
		"at": string(at), "of": string(at), "inner": nil, "second": nil, "n": nil,
		"pipeline": map[string]any{"id": "sub", "name": "Sub", "version": "2", "dir": "/bundle"},
		"steps":    map[string]any{"inner": nil, "second": nil},
	})
	unknown(t, s, "outer", "file", "index", "style", "each", "m", "wipe")
	if u := d.m.Unit(inner); u != sub || d.m.Unit("each") != &plan.Unit || d.m.Unit("") != &plan.Unit {
		t.Errorf("the step stands in %s", u.ID)
	}

	delete(d.run, inner)
	d.record(pipeline.StepFinished, inner, 1, pipeline.Data{Status: pipeline.StepCompleted, Output: "i", State: map[string]any{"n": int64(5)}})
	means(t, d.m.Scope("each[0]/c/second"), map[string]any{"inner": "i", "n": int64(5)})
	means(t, d.m.Scope("each"), map[string]any{"n": int64(1)})
	d.pump()
	d.endLeaf("each[0]/c/second")
	d.pump()
	means(t, d.m.Scope("each[0]/c/wipe"), map[string]any{"inner": "i", "n": int64(5)})
	out := d.m.UnitScope(at)
	means(t, out, map[string]any{"inner": "i", "second": "each[0]/c/second", "at": string(at), "n": int64(5)})
	unknown(t, out, "outer")
	means(t, d.m.UnitScope(""), map[string]any{"outer": "o", "n": int64(1)})
	d.endLeaf("each[0]/c/wipe")
	d.pump()
	// The next pass begins the pipeline anew.
	means(t, d.m.Scope("each[1]/c/inner"), map[string]any{"n": nil, "inner": nil})
	d.finishRun()
}

func TestWhatACallGives(t *testing.T) {
	sub := &pipeline.Unit{Root: sequence(act("a"), act("b")), Finally: graph(act("wipe"))}
	d := ran(t, planOf(graph(call("sub", 0)), sub), nil)
	d.tells(t, "sub/a COMPLETED\nsub/b COMPLETED\nsub/wipe COMPLETED\nsub COMPLETED\nrun COMPLETED")
	equalValue(t, d.output("sub"), any(map[string]any{"a": "sub/a", "b": "sub/b"}))

	sub.HasOutputs = true // then the driver evaluates them
	d = ran(t, planOf(graph(call("sub", 0)), sub), nil)
	equalValue(t, d.output("sub"), nil)

	d = ran(t, planOf(graph(call("sub", 0)), sub), script{"fails sub/wipe": fails})
	if s := d.view.Step("sub"); s.Status != pipeline.StepFailed || s.Error.Step != "sub/wipe" {
		t.Errorf("its clean-up has failed and the call is %s: %v", s.Status, s.Error)
	}
}

func TestCallsWithinCalls(t *testing.T) {
	inner := &pipeline.Unit{Root: graph(act("x"))}
	outer := &pipeline.Unit{Root: graph(call("one", 1), call("two", 1))}
	d := ran(t, planOf(graph(call("sub", 0), loop(pipeline.KindFor, "each", graph(call("", 1)), pipeline.Loop{Single: true})), outer, inner), script{"items each": 1})
	d.tells(t, `
		each[0]/x COMPLETED
		each[0] COMPLETED
		each COMPLETED
		sub/one/x COMPLETED
		sub/one COMPLETED
		sub/two/x COMPLETED
		sub/two COMPLETED
		sub COMPLETED
		run COMPLETED`)
}

func TestADetachedCallHoldsNothing(t *testing.T) {
	c := call("sub", 0)
	c.Call.Detach = true
	d := newDriver(t, planOf(graph(c), &pipeline.Unit{Root: graph(act("x"))}), script{}.choose)
	tasks := d.m.Next()
	d.record(pipeline.StepFinished, "sub", tasks[0].Attempt, pipeline.Data{Kind: pipeline.KindCall, Status: pipeline.StepCompleted, Child: "r2"})
	d.finishRun()
	d.tells(t, "sub COMPLETED\nrun COMPLETED")
}

func TestACancelledRunLetsACallCleanUpThatHasDoneItsSteps(t *testing.T) {
	sub := &pipeline.Unit{Root: graph(act("a")), Finally: graph(act("wipe"), act("more", 0))}
	d := started(t, planOf(sequence(call("sub", 0), act("after")), sub), nil)
	d.endLeaf("sub/a")
	d.pump()
	d.record(pipeline.SignalReceived, "", 0, pipeline.Data{Signal: pipeline.SignalCancel})
	d.finishRun()
	d.tells(t, "sub/a COMPLETED\nafter SKIPPED cancelled\nsub/wipe COMPLETED\nsub/more COMPLETED\nsub COMPLETED\nrun CANCELLED cancelled")
}

func TestTheRetryPolicyIsThatOfThePipelineOfTheStep(t *testing.T) {
	mine, theirs := &pipeline.Retry{MaxAttempts: 2}, &pipeline.Retry{MaxAttempts: 5}
	sub := &pipeline.Unit{Root: graph(loop(pipeline.KindFor, "each", graph(act("in")), pipeline.Loop{})), Finally: graph(act("wipe"))}
	sub.Settings.Retry = theirs
	own := with(act("own"), func(s *pipeline.StepDef) { s.Retry = &pipeline.Retry{MaxAttempts: 9} })
	plan := planOf(graph(act("out"), call("sub", 0), own), sub)
	plan.Settings.Retry = mine
	m := pipeline.NewMachine(plan, pipeline.Run{})
	for _, c := range []struct {
		def    *pipeline.StepDef
		effect pipeline.Effect
		want   *pipeline.Retry
	}{
		{plan.Root.Steps[0], pipeline.EffectIdempotent, mine},
		{plan.Root.Steps[0], pipeline.EffectAtLeastOnce, nil},
		{sub.Root.Steps[0].Loop.Body.Steps[0], pipeline.EffectPure, theirs},
		{sub.Finally.Steps[0], pipeline.EffectPure, theirs},
		{own, pipeline.EffectAtMostOnce, own.Retry},
	} {
		if got := m.RetryOf(c.def, c.effect); got != c.want {
			t.Errorf("%s: %+v", c.def.ID, got)
		}
	}
}

func TestARunTellsOfItself(t *testing.T) {
	m := pipeline.NewMachine(planOf(graph(act("a"))), pipeline.Run{ID: "r", CreatedAt: time.Unix(0, 0), Inputs: map[string]any{"x": true}})
	means(t, m.Scope(""), map[string]any{
		"run": map[string]any{"id": "r", "created_at": "1970-01-01T00:00:00Z", "scheduled_at": "1970-01-01T00:00:00Z"}, "x": true,
		"pipeline": map[string]any{"id": "main", "name": "", "version": "", "dir": ""},
	})
	unknown(t, m.Scope(""), "a", "candidates", "index", "nope")
	if len(m.RunOutputs()) != 0 {
		t.Error("a run that has not started has outputs")
	}
}

func TestWhatAFailedStepGave(t *testing.T) {
	a := with(act("a"), func(s *pipeline.StepDef) {
		s.OnError = []pipeline.Rule{{Do: "fallback", Value: &pipeline.Field{Const: map[string]any{"status": "late", "n": int64(1)}}}}
	})
	d := started(t, planOf(graph(a, act("b", 0))), script{"fails a": fails})
	d.endLeaf("a")
	v, _ := d.m.Scope("b").Lookup("a")
	attr := v.(interface{ Attr(string) (any, bool) }).Attr
	for name, want := range map[string]any{"n": int64(1), "status": "late", "success": false, "output": map[string]any{"status": "late", "n": int64(1)}} {
		got, _ := attr(name)
		equalValue(t, got, want)
	}
	steps, _ := d.m.Scope("b").Lookup("steps")
	strict, _ := steps.(interface{ Attr(string) (any, bool) }).Attr("a")
	got, _ := strict.(interface{ Attr(string) (any, bool) }).Attr("status")
	equalValue(t, got, any("failed"))
}
