package spec

import (
	"fmt"
	"math"
	"strings"

	"github.com/orchestrator-project/orchestrator/pipeline"
)

// Estimate is how many steps a run may have, without blocks, repeated attempts
// and jumps back.
type Estimate struct {
	Least, Most int
	Open        bool     // there may be more than Most
	PerItem     []string // why, as in "2 for each file of {{ files }}"
}

func (e Estimate) String() string {
	s := fmt.Sprintf("%d steps", e.Least)
	if e.Least == 1 {
		s = "1 step"
	}
	switch {
	case e.Open:
		s += " or more"
	case e.Least != e.Most:
		s = fmt.Sprintf("%d to %d steps", e.Least, e.Most)
	}
	if len(e.PerItem) > 0 {
		s += ": " + strings.Join(e.PerItem, ", ")
	}
	return s
}

// maxEstimate is where counting ends.
const maxEstimate = math.MaxInt32

// counter counts the steps of a plan. Units are counted once.
type counter struct {
	plan  *pipeline.Plan
	units map[int]Estimate
}

func estimate(plan *pipeline.Plan) Estimate {
	c := counter{plan, map[int]Estimate{}}
	return c.unit(&plan.Unit)
}

func (c *counter) unit(u *pipeline.Unit) Estimate {
	return sum(c.body(&u.Root), c.body(&u.Finally))
}

func (c *counter) body(b *pipeline.Body) Estimate {
	var out Estimate
	over := 0 // steps before this one may be jumped over
	for i, s := range b.Steps {
		e := c.step(s)
		if s.Condition != nil || i < over {
			e.Least = 0
		}
		for _, to := range targets(s) {
			over = max(over, to)
			out.Open = out.Open || to <= i
		}
		out = sum(out, e)
	}
	return out
}

// targets lists the steps that a step may go on with by a jump.
func targets(s *pipeline.StepDef) []int {
	var out []int
	add := func(to *int) {
		if to != nil {
			out = append(out, *to)
		}
	}
	if r := s.Routes; r != nil {
		add(r.Success)
		add(r.Failure)
		add(r.False)
		add(r.Always)
	}
	for i := range s.OnError {
		add(s.OnError[i].To)
	}
	return out
}

func (c *counter) step(s *pipeline.StepDef) Estimate {
	switch {
	case s.Loop != nil:
		return c.loop(s)
	case s.Call != nil && !s.Call.Detach:
		e, known := c.units[s.Call.Unit]
		if !known {
			e = c.unit(c.plan.Units[s.Call.Unit])
			c.units[s.Call.Unit] = e
		}
		return e
	case s.Kind == pipeline.KindIf || s.Kind == pipeline.KindMatch:
		return c.choice(s)
	case len(s.Branches) > 0:
		return c.body(&s.Branches[0].Body)
	}
	return Estimate{Least: 1, Most: 1}
}

// choice counts the arm with the fewest and the one with the most steps. Without
// an arm for the rest, there may be none.
func (c *counter) choice(s *pipeline.StepDef) Estimate {
	var out Estimate
	rest := false
	for i := range s.Branches {
		e := c.body(&s.Branches[i].Body)
		if i == 0 || e.Least < out.Least {
			out.Least = e.Least
		}
		out.Most, out.Open = max(out.Most, e.Most), out.Open || e.Open
		out.PerItem = append(out.PerItem, e.PerItem...)
		rest = rest || s.Branches[i].Condition == nil && s.Branches[i].Case == nil
	}
	if !rest && s.Kind == pipeline.KindIf {
		out.Least = 0
	}
	return out
}

func (c *counter) loop(s *pipeline.StepDef) Estimate {
	l := s.Loop
	e := c.body(&l.Body)
	least, most := 0, l.Max
	switch {
	case s.Kind == pipeline.KindRepeat:
		least = 1
	case l.Items != nil && (l.Items.List != nil || isConst(l.Items)):
		most = len(l.Items.List)
		if items, ok := l.Items.Const.([]any); ok {
			most = len(items)
		}
		if l.Until == nil {
			least = most
		} else {
			least = min(1, most)
		}
	case l.Items != nil:
		own := e
		own.PerItem = nil
		text := fmt.Sprint(e.Most)
		if e.Open || e.Least != e.Most {
			text = strings.Replace(own.String(), " steps", "", 1)
		}
		return Estimate{Open: true, PerItem: append([]string{fmt.Sprintf("%s for each %s of %s", text, l.Variable, source(l.Items))}, e.PerItem...)}
	}
	return Estimate{Least: times(e.Least, least), Most: times(e.Most, most), Open: e.Open, PerItem: e.PerItem}
}

func times(a, b int) int {
	if a != 0 && b > maxEstimate/a {
		return maxEstimate
	}
	return a * b
}

func sum(a, b Estimate) Estimate {
	return Estimate{
		Least: min(a.Least+b.Least, maxEstimate), Most: min(a.Most+b.Most, maxEstimate), Open: a.Open || b.Open,
		PerItem: append(a.PerItem, b.PerItem...),
	}
}
