package graph_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/orchestrator-project/orchestrator/pipeline"
	"github.com/orchestrator-project/orchestrator/pipeline/graph"
)

func leaf(id string, on ...int) *pipeline.StepDef {
	s := &pipeline.StepDef{ID: id, Kind: pipeline.KindAction, Action: "debug"}
	for _, k := range on {
		s.Deps = append(s.Deps, pipeline.Dep{On: k, Cause: "declared"})
	}
	return s
}

func body(steps ...*pipeline.StepDef) pipeline.Body {
	return pipeline.Body{Order: "graph", Steps: steps}
}

func diamond() *pipeline.Plan {
	loop := leaf("loop", 0)
	loop.Kind, loop.Loop = pipeline.KindFor, &pipeline.Loop{Body: body(leaf("x"), leaf("y", 0))}
	choice := leaf("choice", 0)
	choice.Kind = pipeline.KindIf
	choice.Branches = []pipeline.Branch{{Condition: &pipeline.Template{Src: "{{ a }}"}, Body: body(leaf("yes"))}, {Body: body(leaf("no"), leaf("then", 0))}}
	return &pipeline.Plan{Unit: pipeline.Unit{Root: body(leaf("a"), loop, choice, leaf("b", 1, 2), leaf("c", 0, 3)), Finally: body(leaf("tidy"))}}
}

func TestLayout(t *testing.T) {
	g := graph.Layout(diamond())
	check(t, &g)
	var ids []string
	for _, n := range g.Nodes {
		ids = append(ids, fmt.Sprintf("%s@%d", n.ID, n.Layer))
	}
	want := []string{"a@0", "loop@1", "loop/x@0", "loop/y@1", "choice@1", "choice/yes@0", "choice/no@0", "choice/then@1", "b@2", "c@3", "tidy@0"}
	if d := cmp.Diff(want, ids); d != "" {
		t.Error(d)
	}
}

// check tests what every drawing must fulfil.
func check(t interface {
	Errorf(format string, args ...any)
}, g *graph.Graph,
) {
	byID := map[string]graph.Node{}
	for _, n := range g.Nodes {
		byID[n.ID] = n
		if n.X < 0 || n.Y < 0 || n.X+n.W > g.Width+0.2 || n.Y+n.H > g.Height+0.2 {
			t.Errorf("%s is outside the drawing", n.ID)
		}
		if p, ok := byID[n.Parent]; n.Parent != "" && (!ok || n.X < p.X || n.Y < p.Y || n.X+n.W > p.X+p.W+0.2 || n.Y+n.H > p.Y+p.H+0.2) {
			t.Errorf("%s is outside its block %s", n.ID, n.Parent)
		}
	}
	for i, a := range g.Nodes {
		for _, b := range g.Nodes[i+1:] {
			if a.Parent == b.Parent && a.X < b.X+b.W-0.2 && b.X < a.X+a.W-0.2 && a.Y < b.Y+b.H && b.Y < a.Y+a.H {
				t.Errorf("%s and %s overlap", a.ID, b.ID)
			}
		}
	}
	for _, a := range g.Arms {
		if b := byID[a.Block]; a.X < b.X || a.Y < b.Y || a.X+a.W > b.X+b.W+0.2 || a.Y+a.H > b.Y+b.H+0.2 {
			t.Errorf("the arm %s is outside its block %s", a.Label, a.Block)
		}
		for _, id := range a.Nodes {
			if n := byID[id]; n.X < a.X || n.Y < a.Y || n.X+n.W > a.X+a.W+0.2 || n.Y+n.H > a.Y+a.H+0.2 {
				t.Errorf("%s is outside its arm %s", id, a.Label)
			}
		}
	}
	for _, e := range g.Edges {
		for _, p := range e.Points {
			if p.X < 0 || p.Y < 0 || p.X > g.Width+0.2 || p.Y > g.Height+0.2 {
				t.Errorf("the edge %s to %s leaves the drawing: %v", e.From, e.To, p)
			}
		}
		from, to := byID[e.From], byID[e.To]
		first, last := e.Points[0], e.Points[len(e.Points)-1]
		if first.Y != from.Y+from.H || last.Y != to.Y || first.X < from.X || first.X > from.X+from.W || last.X < to.X || last.X > to.X+to.W {
			t.Errorf("the edge %s to %s does not join them: %v", e.From, e.To, e.Points)
		}
	}
}

func randomBody(t *rapid.T, depth int, next *int) pipeline.Body {
	var b pipeline.Body
	for i := range rapid.IntRange(0, 12).Draw(t, "steps") {
		*next++
		s := leaf(fmt.Sprintf("s%d", *next))
		for k := range i {
			if rapid.IntRange(0, 3).Draw(t, "dep") == 0 {
				s.Deps = append(s.Deps, pipeline.Dep{On: k, Cause: "reference"})
			}
		}
		if rapid.IntRange(0, 4).Draw(t, "jump") == 0 {
			to, back := i, rapid.IntRange(0, i).Draw(t, "to")
			s.Routes = &pipeline.Routes{Always: &back}
			if len(s.Deps) > 0 {
				b.Steps[s.Deps[0].On].Routes = &pipeline.Routes{Success: &to}
			}
		}
		if depth < 3 && rapid.IntRange(0, 4).Draw(t, "block") == 0 {
			s.Kind = pipeline.KindMatch
			label := "case"
			s.Branches = append(s.Branches, pipeline.Branch{Case: &label})
			for range rapid.IntRange(1, 3).Draw(t, "arms") {
				s.Branches = append(s.Branches, pipeline.Branch{Body: randomBody(t, depth+1, next)})
			}
		}
		b.Steps = append(b.Steps, s)
	}
	return b
}

func TestLayoutOfAnyPlan(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		next := 0
		p := &pipeline.Plan{Unit: pipeline.Unit{Root: randomBody(t, 0, &next), Finally: randomBody(t, 2, &next)}}
		g := graph.Layout(p)
		check(t, &g)
		if len(g.Nodes) != next {
			t.Errorf("%d nodes of %d steps", len(g.Nodes), next)
		}
		if d := cmp.Diff(g, graph.Layout(p)); d != "" {
			t.Error(d)
		}
	})
}

func TestMermaid(t *testing.T) {
	p := diamond()
	p.Root.Steps[0].Name = `say "hi" <b>`
	got := graph.Layout(p).Mermaid()
	want := `flowchart TD
  n0["say #34;hi#34; #60;b#62;<br/>debug"]
  subgraph n1["for: loop<br/>debug"]
    n2["x<br/>debug"]
    n3["y<br/>debug"]
  end
  subgraph n4["if: choice<br/>debug"]
    subgraph a0["a"]
      n5["yes<br/>debug"]
    end
    subgraph a1["else"]
      n6["no<br/>debug"]
      n7["then<br/>debug"]
    end
  end
  n8["b<br/>debug"]
  n9["c<br/>debug"]
  n10["tidy<br/>debug"]
  n2 --> n3
  n6 --> n7
  n0 --> n1
  n0 --> n4
  n1 --> n8
  n4 --> n8
  n0 --> n9
  n8 --> n9
`
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

// flow is a plan with every kind of block and jump.
func flow() *pipeline.Plan {
	at := func(i int) *int { return &i }
	bug := "bug"
	match := leaf("sort", 0)
	match.Kind, match.Action = pipeline.KindMatch, ""
	match.Branches = []pipeline.Branch{{Case: &bug, Body: body(leaf("fix"))}, {}}
	each := leaf("each", 1)
	each.Kind, each.Action = pipeline.KindFor, ""
	both := &pipeline.StepDef{Kind: pipeline.KindParallel, Branches: []pipeline.Branch{{Body: body(leaf("l"), leaf("r"))}}}
	each.Loop = &pipeline.Loop{Single: true, Body: body(both)}
	call := leaf("check", 2)
	call.Kind, call.Action, call.Call = pipeline.KindCall, "", &pipeline.Call{Name: "review"}
	call.Routes = &pipeline.Routes{Failure: at(0), Success: at(5)}
	child := leaf("child", 3)
	child.Kind, child.Action, child.Call = pipeline.KindCall, "", &pipeline.Call{Name: "review", Detach: true}
	ask := leaf("ask", 4)
	ask.Kind, ask.Action = pipeline.KindAsk, ""
	ask.OnError = []pipeline.Rule{{Do: "goto", To: at(5)}}
	return &pipeline.Plan{
		Unit:  pipeline.Unit{Root: body(leaf("a"), match, each, call, child, ask)},
		Units: []*pipeline.Unit{{Root: body(leaf("read")), Finally: body(leaf("tidy"))}},
	}
}

func TestBlocksAndJumps(t *testing.T) {
	g := graph.Layout(flow())
	check(t, &g)
	want := `flowchart TD
  n0["a<br/>debug"]
  subgraph n1["match: sort"]
    subgraph a0["bug"]
      n2["fix<br/>debug"]
    end
  end
  subgraph n3["for: each"]
    n4["l<br/>debug"]
    n5["r<br/>debug"]
  end
  subgraph n6["call: check<br/>review"]
    n7["read<br/>debug"]
    n8["tidy<br/>debug"]
  end
  n9[["child<br/>review"]]
  n10(["ask"])
  n0 --> n1
  n1 --> n3
  n3 --> n6
  n6 -.->|success| n10
  n6 --> n9
  n9 --> n10
  n6 -.->|failure| n0
  n10 -.->|error| n10
`
	if d := cmp.Diff(want, g.Mermaid()); d != "" {
		t.Error(d)
	}
	for _, e := range g.Edges {
		if (e.Label == "failure" || e.Label == "error") != e.Back {
			t.Errorf("%s to %s: back %v", e.From, e.To, e.Back)
		}
	}
	var labels []string
	for _, a := range g.Arms {
		labels = append(labels, a.Label)
	}
	if d := cmp.Diff([]string{"bug", "default"}, labels); d != "" {
		t.Error(d)
	}
}

// TestManyCalls: pipelines that call each other more than once are drawn in part.
func TestManyCalls(t *testing.T) {
	p := &pipeline.Plan{}
	for i := range 16 {
		twice := func(id string) *pipeline.StepDef {
			return &pipeline.StepDef{ID: id, Kind: pipeline.KindCall, Call: &pipeline.Call{Name: "next", Unit: i - 1}}
		}
		u := &pipeline.Unit{Root: body(leaf("end"))}
		if i > 0 {
			u.Root = body(twice("a"), twice("b"))
		}
		p.Units = append(p.Units, u)
	}
	p.Unit = *p.Units[15]
	if g := graph.Layout(p); len(g.Nodes) < 5000 || len(g.Nodes) > 5100 {
		t.Errorf("%d nodes", len(g.Nodes))
	}
}

// large is a plan of n steps, each waiting for up to three others.
func large(n int) *pipeline.Plan {
	p := &pipeline.Plan{}
	for i := range n {
		var on []int
		for _, k := range []int{i - 1 - i%7, i - 11, i - 23} {
			if k >= 0 {
				on = append(on, k)
			}
		}
		p.Root.Steps = append(p.Root.Steps, leaf(fmt.Sprintf("step_%d", i), on...))
	}
	return p
}

func TestLargePlans(t *testing.T) {
	chain := &pipeline.Plan{}
	for i := range 10_000 {
		s := leaf(fmt.Sprint("s", i))
		if i > 0 {
			s = leaf(fmt.Sprint("s", i), 0, i-1)
		}
		chain.Root.Steps = append(chain.Root.Steps, s)
	}
	for name, p := range map[string]*pipeline.Plan{"web": large(10_000), "chain": chain} {
		begun := time.Now()
		g := graph.Layout(p)
		if took := time.Since(begun); took > time.Minute {
			t.Errorf("%s took %s", name, took)
		}
		if len(g.Nodes) != 10_000 || !strings.HasPrefix(g.Mermaid(), "flowchart") {
			t.Errorf("%s: %d nodes", name, len(g.Nodes))
		}
	}
}

func BenchmarkLayout500(b *testing.B) {
	p := large(500)
	for b.Loop() {
		graph.Layout(p)
	}
}
