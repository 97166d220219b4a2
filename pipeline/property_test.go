package pipeline_test

import (
	"fmt"
	"testing"

	"pgregory.net/rapid"

	"github.com/orchestrator-project/orchestrator/pipeline"
)

// planner draws plans that hold every kind of step.
type planner struct {
	t     *rapid.T
	next  int
	units int // how many pipelines there are to call
	unit  int // the one being drawn; it calls later ones only. -1: the root
}

func randomPlan(t *rapid.T) *pipeline.Plan {
	g := &planner{t: t, units: rapid.IntRange(0, 2).Draw(t, "units"), unit: -1}
	p := &pipeline.Plan{}
	g.drawUnit(&p.Unit, 2)
	for i := range g.units {
		g.unit = i
		u := &pipeline.Unit{}
		g.drawUnit(u, 1)
		p.Units = append(p.Units, u)
	}
	return p
}

func (g *planner) oneOf(what string, of ...string) string {
	return rapid.SampledFrom(of).Draw(g.t, what)
}

func (g *planner) rarely(what string, n int) bool { return rapid.IntRange(0, n).Draw(g.t, what) == n }

func (g *planner) drawUnit(u *pipeline.Unit, depth int) {
	u.Settings.OnError = g.oneOf("on_error", "", "stop", "abort", "continue")
	u.Settings.MaxTransitions = rapid.IntRange(0, 3).Draw(g.t, "max_transitions")
	u.Root = g.body(depth)
	if rapid.Bool().Draw(g.t, "has_finally") {
		u.Finally = g.body(min(depth, 1))
	}
	u.HasOutputs = rapid.Bool().Draw(g.t, "has_outputs")
}

func (g *planner) id() string {
	g.next++
	return fmt.Sprintf("s%d", g.next)
}

// body draws a graph with edges to earlier steps, or a sequence.
func (g *planner) body(depth int) pipeline.Body {
	b := pipeline.Body{Order: g.oneOf("order", "graph", "sequence")}
	for i := range rapid.IntRange(1, 4).Draw(g.t, "steps") {
		s := g.step(g.id(), depth)
		if i == 0 && g.rarely("twin", 5) {
			s.ID = twin
		}
		for j := range i {
			if b.Order == "sequence" && j == i-1 || g.rarely("edge", 2) {
				s.Deps = append(s.Deps, pipeline.Dep{On: j, Cause: "declared"})
			}
		}
		b.Steps = append(b.Steps, s)
	}
	for i := range b.Steps {
		g.routes(&b, i)
	}
	return b
}

// routes draws the jumps and rules of the i-th step.
func (g *planner) routes(b *pipeline.Body, i int) {
	s := b.Steps[i]
	target := func(what string) *int {
		first := i + 1
		if b.Order == "sequence" {
			first = 0
		}
		if first >= len(b.Steps) || !g.rarely(what, 5) {
			return nil
		}
		to := rapid.IntRange(first, len(b.Steps)-1).Draw(g.t, "to")
		for k := i + 1; k <= to && b.Order == "graph"; k++ {
			dependsOn(b.Steps[k], i)
		}
		if to <= i && g.rarely("max_visits", 1) {
			b.Steps[to].MaxVisits = rapid.IntRange(1, 3).Draw(g.t, "visits")
		}
		return &to
	}
	r := pipeline.Routes{Success: target("on success"), Failure: target("on failure"), False: target("on false"), Always: target("always")}
	if r != (pipeline.Routes{}) {
		s.Routes = &r
	}
	for range rapid.IntRange(0, 2).Draw(g.t, "rules") {
		rule := pipeline.Rule{Category: []string{g.oneOf("category", "failed", "system", "tool")}, Do: g.oneOf("do", "retry", "fallback", "fail")}
		if to := target("rule"); to != nil {
			rule.Do, rule.To = "goto", to
		}
		s.OnError = append(s.OnError, rule)
	}
}

func dependsOn(s *pipeline.StepDef, on int) {
	for _, d := range s.Deps {
		if d.On == on {
			return
		}
	}
	s.Deps = append(s.Deps, pipeline.Dep{On: on, Cause: "jump"})
}

func (g *planner) step(id string, depth int) *pipeline.StepDef {
	s := &pipeline.StepDef{ID: id}
	kinds := []pipeline.Kind{
		pipeline.KindAction, pipeline.KindAction, pipeline.KindCommand, pipeline.KindSkill, pipeline.KindAgent,
		pipeline.KindSet, pipeline.KindAssert, pipeline.KindWait, pipeline.KindAsk,
	}
	if depth > 0 {
		kinds = append(kinds, pipeline.KindFor, pipeline.KindWhile, pipeline.KindRepeat, pipeline.KindQueue,
			pipeline.KindIf, pipeline.KindMatch, pipeline.KindParallel, pipeline.KindCompete)
		if g.unit+1 < g.units {
			kinds = append(kinds, pipeline.KindCall, pipeline.KindCall, pipeline.KindCall)
		}
	}
	s.Kind = rapid.SampledFrom(kinds).Draw(g.t, "kind")
	s.OnFailure = g.oneOf("on_failure", "", "", "continue", "skip")
	switch s.Kind {
	case pipeline.KindWait:
		s.Wait = &pipeline.Wait{}
		if rapid.Bool().Draw(g.t, "for a signal") {
			s.Wait.Signal = &pipeline.Field{Const: "s"}
		}
	case pipeline.KindFor, pipeline.KindWhile, pipeline.KindRepeat, pipeline.KindQueue:
		s.Loop = g.loop(s.Kind, depth-1)
	case pipeline.KindIf, pipeline.KindMatch:
		for range rapid.IntRange(1, 2).Draw(g.t, "branches") {
			s.Branches = append(s.Branches, pipeline.Branch{Body: g.body(depth - 1)})
		}
	case pipeline.KindParallel:
		b := pipeline.Body{Order: "graph"}
		for range rapid.IntRange(1, 3).Draw(g.t, "arms") {
			b.Steps = append(b.Steps, g.step(g.id(), depth-1))
		}
		s.Branches = []pipeline.Branch{{Body: b}}
	case pipeline.KindCompete:
		s.Compete = &pipeline.Compete{Judge: rapid.Bool().Draw(g.t, "judge"), TieBreak: g.oneOf("tie_break", "", "shortest", "longest")}
		b := pipeline.Body{Order: "graph"}
		judge := &pipeline.StepDef{ID: twin, Kind: pipeline.KindAction}
		for i := range rapid.IntRange(1, 3).Draw(g.t, "candidates") {
			c := g.step(g.id(), depth-1)
			c.OnError = []pipeline.Rule{{Do: "fallback", Value: &pipeline.Field{}}}
			b.Steps = append(b.Steps, c)
			dependsOn(judge, i)
		}
		if s.Compete.Judge {
			b.Steps = append(b.Steps, judge)
		}
		s.Branches = []pipeline.Branch{{Body: b}}
	case pipeline.KindCall:
		s.Call = &pipeline.Call{Unit: rapid.IntRange(g.unit+1, g.units-1).Draw(g.t, "calls")}
	}
	return s
}

func (g *planner) loop(kind pipeline.Kind, depth int) *pipeline.Loop {
	l := &pipeline.Loop{OnItemError: g.oneOf("on_item_error", "", "continue"), OnExhausted: g.oneOf("on_exhausted", "", "continue", "outputs"), Max: 3}
	if kind == pipeline.KindFor || kind == pipeline.KindQueue {
		l.Parallel = rapid.SampledFrom([]int{0, 1, 2, -1}).Draw(g.t, "parallel")
	}
	if rapid.Bool().Draw(g.t, "collect") {
		l.Collect = &pipeline.Template{}
	}
	if kind == pipeline.KindRepeat || kind == pipeline.KindQueue && rapid.Bool().Draw(g.t, "until") {
		l.Until = &pipeline.Template{}
	}
	if g.rarely("single", 2) {
		l.Single = true
		l.Body = pipeline.Body{Steps: []*pipeline.StepDef{g.step("", depth)}}
		return l
	}
	l.Body = g.body(depth)
	return l
}

// Whatever the plan and the outcomes, a run ends, with all that it began: there
// is always a task, a step that runs or a wait. No step ends twice, begins an
// attempt twice or before what it depends on. The log alone tells the same
// story: a machine that folds it has the same tasks, viewers see the same, and a
// new owner goes on from any point of it.
func TestMachineAlwaysEnds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		plan := randomPlan(t)
		d := newDriver(t, plan, func(what string, _ pipeline.Path, n int) int { return rapid.IntRange(0, n-1).Draw(t, what) })
		cancelAt := rapid.IntRange(0, 80).Draw(t, "cancel_at")
		crashes := rapid.IntRange(0, 5).Draw(t, "crashes")
		parks := rapid.IntRange(0, 5).Draw(t, "parks")
		twins := rapid.IntRange(0, 40).Draw(t, "twins_at")
		d.after = func(d *driver) {
			if twins > 0 {
				twins--
				if twins == 0 {
					d.checkTwins()
				}
			}
		}
		snapshots := rapid.IntRange(0, 6).Draw(t, "snapshots")
		d.late = rapid.IntRange(0, 60).Draw(t, "late")
		for n := 0; !d.m.Run.Status.Final(); n++ {
			for d.answerOne() {
				if snapshots > 0 && !d.m.Run.Status.Final() && d.choose("snapshot", "", 8) == 7 {
					snapshots--
					d.snapshot()
				}
				if crashes > 0 && !d.m.Run.Status.Final() && d.choose("crash amid", "", 20) == 19 {
					crashes--
					d = d.crash()
				}
			}
			if d.m.Run.Status.Final() {
				break
			}
			if idle := len(d.run) == 0; idle != d.m.Idle() {
				t.Fatalf("%d steps run, idle is %v\n%s", len(d.run), d.m.Idle(), d.dump())
			}
			d.checkView()
			switch {
			case n == cancelAt:
				d.record(pipeline.SignalReceived, "", 0, pipeline.Data{Signal: rapid.SampledFrom([]string{pipeline.SignalCancel, pipeline.SignalTimeout, "s"}).Draw(t, "signal")})
			case crashes > 0 && d.choose("crash", "", 6) == 5:
				crashes--
				d = d.crash()
			case parks > 0 && d.m.Idle():
				parks--
				d = d.park()
			case !d.end():
				t.Fatalf("the run stands still with status %s\n%s", d.m.Run.Status, d.dump())
			}
			if n > 100000 {
				t.Fatalf("the run does not end")
			}
		}
		for _, s := range d.view.Steps {
			if !s.Status.Final() {
				t.Fatalf("the run has ended and %s is %s", s.Path, s.Status)
			}
		}
	})
}
