package pipeline_test

import (
	"strings"
	"testing"

	"github.com/orchestrator-project/orchestrator/pipeline"
)

func field(t *testing.T, v any, name string) any {
	t.Helper()
	m, ok := v.(map[string]any)
	if !ok {
		t.Fatalf("%v has no %s", v, name)
	}
	return m[name]
}

func TestRepeatEndsByItsConditionOrItsMaximum(t *testing.T) {
	for _, c := range []struct {
		name, exhausted string
		script          script
		want            string
		output          any
	}{
		{
			"by its condition", "",
			script{"until r[1]": holds},
			"r[0]/x COMPLETED\nr[1]/x COMPLETED\nr COMPLETED\nrun COMPLETED",
			map[string]any{"results": []any{map[string]any{"x": "r[0]/x"}, map[string]any{"x": "r[1]/x"}}, "iterations": int64(2), "completed": true},
		},
		{
			"by its condition in the last pass", "",
			script{"until r[2]": holds},
			"r[0]/x COMPLETED\nr[1]/x COMPLETED\nr[2]/x COMPLETED\nr COMPLETED\nrun COMPLETED",
			map[string]any{"results": []any{map[string]any{"x": "r[0]/x"}, map[string]any{"x": "r[1]/x"}, map[string]any{"x": "r[2]/x"}}, "iterations": int64(3), "completed": true},
		},
		{"exhausted", "", nil, "r[0]/x COMPLETED\nr[1]/x COMPLETED\nr[2]/x COMPLETED\nr FAILED\nafter SKIPPED upstream_failed\nrun FAILED step_failed", nil},
		{"exhausted: continue", "continue", nil, "r[0]/x COMPLETED\nr[1]/x COMPLETED\nr[2]/x COMPLETED\nr COMPLETED\nrun COMPLETED", nil},
		{"exhausted: outputs", "outputs", nil, "r[0]/x COMPLETED\nr[1]/x COMPLETED\nr[2]/x COMPLETED\nr COMPLETED\nrun COMPLETED", "exhausted"},
		{"a pass fails", "continue", script{"fails r[1]/x": fails}, "r[0]/x COMPLETED\nr[1]/x FAILED\nr FAILED\nafter SKIPPED upstream_failed\nrun FAILED step_failed", nil},
		{"its condition is broken", "continue", script{"collect fails r[0]": 9}, "r[0]/x COMPLETED\nr FAILED\nafter SKIPPED upstream_failed\nrun FAILED step_failed", nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := loop(pipeline.KindRepeat, "r", graph(act("x")), pipeline.Loop{Until: &pipeline.Template{}, Max: 3, OnExhausted: c.exhausted})
			want := c.want
			steps := []*pipeline.StepDef{r}
			if strings.Contains(want, "after") {
				steps = append(steps, act("after", 0))
			}
			d := ran(t, planOf(graph(steps...)), c.script)
			d.tells(t, want)
			if c.output != nil {
				equalValue(t, d.output("r"), c.output)
			}
			if c.name == "exhausted: continue" {
				equalValue(t, field(t, d.output("r"), "completed"), any(false))
			}
			if c.name == "exhausted" && (d.m.Run.Error.Reason != pipeline.ReasonExhausted || d.m.Run.Error.Step != "r") {
				t.Errorf("the run failed by %+v", d.m.Run.Error)
			}
		})
	}
}

func TestQueueStopsOnceItsConditionHolds(t *testing.T) {
	q := loop(pipeline.KindQueue, "q", graph(act("x")), pipeline.Loop{Until: &pipeline.Template{}, Parallel: 2})
	d := ran(t, planOf(graph(q)), script{"items q": 4, "until q[0]": holds})
	d.tells(t, "q[0]/x COMPLETED\nq[1]/x COMPLETED\nq COMPLETED\nrun COMPLETED")
	equalValue(t, d.output("q"), any(map[string]any{
		"results": []any{map[string]any{"x": "q[0]/x"}, map[string]any{"x": "q[1]/x"}}, "iterations": int64(2), "completed": true, "errors": []any{},
	}))
	q.Loop.OnItemError = "continue"
	d = ran(t, planOf(graph(q)), script{"items q": 3, "collect fails q[1]": 9})
	d.tells(t, "q[0]/x COMPLETED\nq[1]/x COMPLETED\nq[2]/x COMPLETED\nq COMPLETED\nrun COMPLETED")
	equalValue(t, field(t, d.output("q"), "results"), any([]any{map[string]any{"x": "q[0]/x"}, nil, map[string]any{"x": "q[2]/x"}}))
}

func TestWhileEndsCompletedAtItsMaximum(t *testing.T) {
	w := loop(pipeline.KindWhile, "w", graph(act("x")), pipeline.Loop{Max: 2})
	d := ran(t, planOf(graph(w)), nil)
	equalValue(t, field(t, d.output("w"), "completed"), any(false))
	d = ran(t, planOf(graph(w)), script{"pass w[1]": over})
	equalValue(t, field(t, d.output("w"), "completed"), any(true))
	equalValue(t, field(t, d.output("w"), "iterations"), any(int64(1)))
}

func TestMatchTakesOneCase(t *testing.T) {
	m := branches(pipeline.KindMatch, "m", graph(act("x")), graph(act("y")))
	d := ran(t, planOf(graph(m)), script{"branch m": 1})
	d.tells(t, "y COMPLETED\nm COMPLETED\nrun COMPLETED")
	equalValue(t, d.output("m"), any(map[string]any{"x": nil, "y": "y"}))
	ran(t, planOf(graph(m)), script{"branch m": 2}).tells(t, "m COMPLETED\nrun COMPLETED")
}

func TestParallelArms(t *testing.T) {
	p := branches(pipeline.KindParallel, "p", graph(act("x"), act("y"), kind(pipeline.KindWait, "z")))
	d := ran(t, planOf(graph(p)), nil)
	d.tells(t, "x COMPLETED\ny COMPLETED\nz COMPLETED\np COMPLETED\nrun COMPLETED")
	equalValue(t, d.output("p"), any(map[string]any{"x": "x", "y": "y", "z": "z"}))
	// What runs may finish; what waits does not.
	ran(t, planOf(graph(p)), script{"fails x": fails}).tells(t, "x FAILED\nz SKIPPED run_stopped\ny COMPLETED\np FAILED\nrun FAILED step_failed")
}

func competing(judge bool, tie string) *pipeline.StepDef {
	fallback := []pipeline.Rule{{Do: "fallback", Value: &pipeline.Field{}}}
	body := graph(act("aa"), act("b"), act("ccc"))
	for _, s := range body.Steps {
		s.OnError = fallback
	}
	if judge {
		body.Steps = append(body.Steps, act("judge", 0, 1, 2))
	}
	p := branches(pipeline.KindCompete, "pick", body)
	p.Compete = &pipeline.Compete{Judge: judge, TieBreak: tie}
	return p
}

// judged runs a compete block whose judge says what is given.
func judged(t *testing.T, def *pipeline.StepDef, s script, judgement any) *driver {
	t.Helper()
	d := newDriver(t, planOf(graph(def)), s.choose)
	for !d.m.Run.Status.Final() {
		d.pump()
		if task, ok := d.run["judge"]; ok {
			delete(d.run, "judge")
			v, _ := d.m.Scope("judge").Lookup("candidates")
			equalValue(t, field(t, v, "b"), d.output("b"))
			if _, ok := d.m.Scope("aa").Lookup("candidates"); ok {
				t.Error("a candidate sees the candidates")
			}
			d.record(pipeline.StepFinished, "judge", task.Attempt, pipeline.Data{Status: pipeline.StepCompleted, Output: judgement})
			continue
		}
		if !d.end() && !d.m.Run.Status.Final() {
			t.Fatal("the run stands still")
		}
	}
	return d
}

func TestCompete(t *testing.T) {
	for _, c := range []struct {
		name      string
		tie       string
		script    script
		judgement any
		want      string // empty: nobody wins
	}{
		{"an id", "", nil, " b\n", "b"},
		{"a map with winner", "", nil, map[string]any{"winner": "ccc", "why": "long"}, "ccc"},
		{"several winners, the first", "", nil, []any{"ccc", "b"}, "b"},
		{"several winners, the shortest", "shortest", nil, map[string]any{"winner": []any{"ccc", "aa"}}, "aa"},
		{"scores", "", nil, map[string]any{"aa": int64(1), "b": 2.5, "ccc": int64(2)}, "b"},
		{"scores below zero", "", nil, map[string]any{"aa": int64(-2), "b": int64(-1)}, "b"},
		{"equal scores, the longest", "longest", nil, map[string]any{"scores": map[string]any{"aa": int64(2), "b": int64(2), "ccc": 2.0}}, "ccc"},
		{"one that has failed", "", script{"fails b": fails}, "b", ""},
		{"scores of one that has failed", "", script{"fails b": fails}, map[string]any{"b": int64(9), "aa": int64(1)}, "aa"},
		{"a name of no candidate", "", nil, "d", ""},
		{"nothing", "", nil, nil, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := judged(t, competing(true, c.tie), c.script, c.judgement)
			out := d.output("pick")
			equalValue(t, field(t, out, "judgement"), c.judgement)
			if c.want == "" {
				if s := d.view.Step("pick"); s.Status != pipeline.StepFailed || s.Error.Reason != pipeline.ReasonNoWinner {
					t.Errorf("the block is %s: %v", s.Status, s.Error)
				}
				return
			}
			equalValue(t, field(t, out, "winner"), any(c.want))
			equalValue(t, field(t, out, "output"), any(c.want))
			offers := map[string]any{"aa": "aa", "b": "b", "ccc": "ccc"}
			if c.script != nil {
				offers["b"] = nil
			}
			equalValue(t, field(t, out, "candidates"), any(offers))
		})
	}
}

func TestCompeteWithoutJudge(t *testing.T) {
	for tie, want := range map[string]string{"": "aa", "first": "aa", "shortest": "b", "longest": "ccc"} {
		d := ran(t, planOf(graph(competing(false, tie))), nil)
		equalValue(t, field(t, d.output("pick"), "winner"), any(want))
	}
}

func TestNobodyJudgesNothing(t *testing.T) {
	none := script{"fails aa": fails, "fails b": fails, "condition ccc": isOff}
	d := ran(t, planOf(graph(competing(true, ""))), none)
	d.tells(t, "ccc SKIPPED condition_false\naa FAILED\nb FAILED\njudge SKIPPED run_stopped\npick FAILED\nrun FAILED step_failed")
	if f := d.m.Run.Error; f.Reason != pipeline.ReasonNoWinner || !strings.Contains(f.Message, "aa broke") {
		t.Errorf("the failure does not say why: %+v", f)
	}
	d = ran(t, planOf(graph(competing(false, ""))), none)
	if s := d.view.Step("pick"); s.Status != pipeline.StepFailed || s.Error.Reason != pipeline.ReasonNoWinner {
		t.Errorf("the block is %s: %v", s.Status, s.Error)
	}
}

func TestAStepThatFailsInALoopWhoseOtherPassesRun(t *testing.T) {
	each := loop(pipeline.KindFor, "each", graph(act("x"), act("y", 0)), pipeline.Loop{Parallel: 2, Collect: &pipeline.Template{}})
	d := ran(t, planOf(graph(each)), script{"items each": 4, "collect fails each[0]": 9})
	d.tells(t, `
		each[0]/x COMPLETED
		each[0]/y COMPLETED
		each[1]/y SKIPPED run_stopped
		each[1]/x COMPLETED
		each FAILED
		run FAILED step_failed`)
}
