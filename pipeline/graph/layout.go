package graph

import (
	"strings"
	"unicode/utf8"

	"github.com/orchestrator-project/orchestrator/pipeline"
)

// The measures of a drawing, in pixels.
const (
	charWidth  = 7.6 // of a label's letter, about
	minWidth   = 136.0
	countWidth = 56.0 // of "12/20", which those who draw put beside the label
	maxWidth   = 280.0
	nodeHeight = 44.0
	nodeGap    = 28.0 // between nodes of a layer
	layerGap   = 46.0 // between layers; edges bend here
	blockPad   = 18.0
	blockHead  = 34.0 // for a block's label
	armGap     = 36.0 // between the arms of a choice
	armHead    = 20.0 // for an arm's label
	laneGap    = 16.0 // between the lines of jumps back, which run beside the boxes
	maxLabel   = 36   // letters of an arm's label
)

// maxNodes is how many steps are drawn before calls are left closed: pipelines
// that call each other twice and more would fill any drawing.
const maxNodes = 5000

// Layout places the steps of a plan.
func Layout(p *pipeline.Plan) Graph {
	l := &layouter{units: p.Units}
	l.g.Width, l.g.Height = l.unit(&p.Unit, "", "")
	return l.g
}

type layouter struct {
	g     Graph
	units []*pipeline.Unit
}

// unit lays out a pipeline's steps, and its finally below them.
func (l *layouter) unit(u *pipeline.Unit, prefix, parent string) (w, h float64) {
	w, h = l.body(&u.Root, prefix, parent)
	if len(u.Finally.Steps) == 0 {
		return w, h
	}
	from := l.mark()
	fw, fh := l.body(&u.Finally, prefix, parent)
	dy := h + layerGap
	if len(u.Root.Steps) == 0 {
		dy = 0
	}
	l.shift(from, l.mark(), 0, dy)
	return max(w, fw), dy + fh
}

// body lays a body out at the origin, appends its nodes and edges, and returns
// its size. prefix stands before the ids of its steps.
func (l *layouter) body(b *pipeline.Body, prefix, parent string) (w, h float64) {
	n := len(b.Steps)
	if n == 0 {
		return 0, 0
	}
	boxes := make([]box, n)
	for i, s := range b.Steps {
		boxes[i] = l.step(s, prefix, parent)
	}
	d := newDrawing(b, boxes)
	d.run()
	head := 0.0 // for jumps back to the first steps
	if len(d.back) > 0 {
		head = laneGap
	}
	for i := range boxes {
		x := &boxes[i]
		l.shift(x.from, x.to, d.x[i], d.y[i]+head)
		l.g.Nodes[x.from.nodes].Layer = d.layer[i]
	}
	add := func(e *drawnEdge, points []Point) {
		for i := range points {
			points[i].Y += head
		}
		from, to := &l.g.Nodes[boxes[e.from].from.nodes], &l.g.Nodes[boxes[e.to].from.nodes]
		l.g.Edges = append(l.g.Edges, Edge{From: from.ID, To: to.ID, Cause: e.cause, Label: e.label, Back: e.to <= e.from && e.label != "", Points: points})
	}
	for e := range d.edges {
		if !d.edges[e].hidden {
			add(&d.edges[e], d.points(&d.edges[e]))
		}
	}
	for k := range d.back {
		add(&d.back[k], d.around(&d.back[k], k))
	}
	return d.width + float64(len(d.back))*laneGap, d.height + 2*head
}

// mark is a place in what has been drawn so far.
type mark struct{ nodes, arms, edges int }

func (l *layouter) mark() mark { return mark{len(l.g.Nodes), len(l.g.Arms), len(l.g.Edges)} }

// box is a step with all it holds, placed at the origin: a range of what is
// drawn, whose first node is its own.
type box struct {
	from, to      mark
	width, height float64
}

// arm is a part of a block.
type arm struct {
	body  *pipeline.Body
	unit  *pipeline.Unit // in place of body
	label string
}

// step appends the node of a step, and of what it holds.
func (l *layouter) step(s *pipeline.StepDef, prefix, parent string) box {
	id := prefix + s.ID
	b := box{from: l.mark()}
	action := named(s)
	l.g.Nodes = append(l.g.Nodes, Node{ID: id, Label: label(s), Kind: string(s.Kind), Action: action, Parent: parent, Line: s.Pos.Line})
	letters := max(utf8.RuneCountInString(label(s)), utf8.RuneCountInString(action))
	own := max(minWidth, min(maxWidth, float64(letters)*charWidth+32+countWidth))
	b.width, b.height = own, nodeHeight
	arms := l.arms(s)
	head := blockHead
	if len(arms) > 0 && arms[0].label != "" {
		head += armHead
	}
	x, tallest, drawn := blockPad, 0.0, 0
	for _, a := range arms {
		from := l.mark()
		var w, h float64
		switch {
		case a.unit != nil:
			w, h = l.unit(a.unit, id+"/", id)
		default:
			w, h = l.body(a.body, id+"/", id)
		}
		if a.label != "" {
			w = max(w, min(maxWidth, float64(utf8.RuneCountInString(a.label))*charWidth+16))
		}
		if w == 0 {
			continue
		}
		if drawn++; drawn > 1 {
			x += armGap
		}
		l.shift(from, l.mark(), x, head)
		if a.label != "" {
			l.arm(a, id, from, x, blockHead, w, h+armHead)
		}
		x += w
		tallest = max(tallest, h)
	}
	if drawn > 0 {
		b.width, b.height = max(own, x+blockPad), head+tallest+blockPad
	}
	n := &l.g.Nodes[b.from.nodes]
	n.W, n.H = b.width, b.height
	b.to = l.mark()
	return b
}

// arm appends an arm, with the nodes drawn since.
func (l *layouter) arm(a arm, block string, from mark, x, y, w, h float64) {
	out := Arm{Block: block, Label: a.label, X: x, Y: y, W: w, H: h}
	for i := from.nodes; i < len(l.g.Nodes); i++ {
		if l.g.Nodes[i].Parent == block {
			out.Nodes = append(out.Nodes, l.g.Nodes[i].ID)
		}
	}
	l.g.Arms = append(l.g.Arms, out)
}

// arms lists the bodies that a step holds, with their labels where it chooses.
func (l *layouter) arms(s *pipeline.StepDef) []arm {
	switch {
	case s.Loop != nil && s.Loop.Single && len(s.Loop.Body.Steps) == 1:
		return l.arms(s.Loop.Body.Steps[0])
	case s.Loop != nil:
		return []arm{{body: &s.Loop.Body}}
	case s.Call != nil && s.Block() && s.Call.Unit < len(l.units) && len(l.g.Nodes) < maxNodes:
		return []arm{{unit: l.units[s.Call.Unit]}}
	}
	var arms []arm
	for i := range s.Branches {
		b := &s.Branches[i]
		a := arm{body: &b.Body}
		switch {
		case b.Condition != nil:
			a.label = short(b.Condition.Src)
		case b.Case != nil:
			a.label = short(*b.Case)
		case s.Kind == pipeline.KindIf:
			a.label = "else"
		case s.Kind == pipeline.KindMatch:
			a.label = "default"
		}
		arms = append(arms, a)
	}
	return arms
}

// named is what a step names to do its work.
func named(s *pipeline.StepDef) string {
	switch {
	case s.Loop != nil && s.Loop.Single && len(s.Loop.Body.Steps) == 1:
		return named(s.Loop.Body.Steps[0])
	case s.Skill != nil:
		return s.Skill.Name
	case s.Agent != nil:
		return s.Agent.Name
	case s.Call != nil && s.Call.Name != s.ID:
		return s.Call.Name
	}
	return s.Action
}

// short is a condition or case as a label: without its braces, on one line.
func short(src string) string {
	s := strings.TrimSpace(src)
	if strings.HasPrefix(s, "{{") && strings.HasSuffix(s, "}}") && strings.Count(s, "{{") == 1 {
		s = s[2 : len(s)-2]
	}
	s = strings.Join(strings.Fields(s), " ")
	if rs := []rune(s); len(rs) > maxLabel {
		s = string(rs[:maxLabel-1]) + "…"
	}
	if s == "" {
		s = "''"
	}
	return s
}

func label(s *pipeline.StepDef) string {
	if s.Name != "" {
		return s.Name
	}
	return s.ID
}

// shift moves a range of what is drawn.
func (l *layouter) shift(from, to mark, dx, dy float64) {
	for i := from.nodes; i < to.nodes; i++ {
		l.g.Nodes[i].X += dx
		l.g.Nodes[i].Y += dy
	}
	for i := from.arms; i < to.arms; i++ {
		l.g.Arms[i].X += dx
		l.g.Arms[i].Y += dy
	}
	for i := from.edges; i < to.edges; i++ {
		for k := range l.g.Edges[i].Points {
			l.g.Edges[i].Points[k].X += dx
			l.g.Edges[i].Points[k].Y += dy
		}
	}
}
