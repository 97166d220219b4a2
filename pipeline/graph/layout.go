package graph

import (
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
)

// Layout places the steps of a plan.
func Layout(p *pipeline.Plan) Graph {
	l := &layouter{}
	w, h := l.body(&p.Root, "", "")
	if len(p.Finally.Steps) > 0 {
		first := len(l.g.Nodes)
		edges := len(l.g.Edges)
		fw, fh := l.body(&p.Finally, "", "")
		dy := h + layerGap
		if len(p.Root.Steps) == 0 {
			dy = 0
		}
		l.shift(first, edges, 0, dy)
		w, h = max(w, fw), dy+fh
	}
	l.g.Width, l.g.Height = w, h
	return l.g
}

type layouter struct {
	g Graph
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
	for i := range boxes {
		x := &boxes[i]
		l.shiftBox(x, d.x[i], d.y[i])
		l.g.Nodes[x.node].Layer = d.layer[i]
	}
	for e := range d.edges {
		de := &d.edges[e]
		from, to := &l.g.Nodes[boxes[de.from].node], &l.g.Nodes[boxes[de.to].node]
		l.g.Edges = append(l.g.Edges, Edge{From: from.ID, To: to.ID, Cause: de.cause, Points: d.points(de)})
	}
	return d.width, d.height
}

// box is a step with all it holds, placed at the origin: a range of nodes and
// edges of the graph.
type box struct {
	node            int // its own
	nodes, nodesEnd int
	edges, edgesEnd int
	width, height   float64
}

// step appends the node of a step, and of what it holds.
func (l *layouter) step(s *pipeline.StepDef, prefix, parent string) box {
	id := prefix + s.ID
	b := box{node: len(l.g.Nodes), nodes: len(l.g.Nodes), edges: len(l.g.Edges)}
	action := s.Action
	if s.Loop != nil && s.Loop.Single && len(s.Loop.Body.Steps) == 1 {
		action = s.Loop.Body.Steps[0].Action
	}
	l.g.Nodes = append(l.g.Nodes, Node{ID: id, Label: label(s), Kind: string(s.Kind), Action: action, Parent: parent, Line: s.Pos.Line})
	letters := max(utf8.RuneCountInString(label(s)), utf8.RuneCountInString(action))
	own := max(minWidth, min(maxWidth, float64(letters)*charWidth+32+countWidth))
	b.width, b.height = own, nodeHeight
	var arms []*pipeline.Body
	switch {
	case s.Loop != nil && !s.Loop.Single:
		arms = []*pipeline.Body{&s.Loop.Body}
	case s.Loop == nil:
		for i := range s.Branches {
			if len(s.Branches[i].Body.Steps) > 0 {
				arms = append(arms, &s.Branches[i].Body)
			}
		}
	}
	x, tallest := blockPad, 0.0
	for _, arm := range arms {
		if x > blockPad {
			x += armGap
		}
		nodes, edges := len(l.g.Nodes), len(l.g.Edges)
		w, h := l.body(arm, id+"/", id)
		l.shift(nodes, edges, x, blockHead)
		x += w
		tallest = max(tallest, h)
	}
	if len(arms) > 0 {
		b.width, b.height = max(own, x+blockPad), blockHead+tallest+blockPad
	}
	l.g.Nodes[b.node].W, l.g.Nodes[b.node].H = b.width, b.height
	b.nodesEnd, b.edgesEnd = len(l.g.Nodes), len(l.g.Edges)
	return b
}

func label(s *pipeline.StepDef) string {
	if s.Name != "" {
		return s.Name
	}
	return s.ID
}

// shift moves what was appended since.
func (l *layouter) shift(nodes, edges int, dx, dy float64) {
	l.shiftRange(nodes, len(l.g.Nodes), edges, len(l.g.Edges), dx, dy)
}

func (l *layouter) shiftBox(b *box, dx, dy float64) {
	l.shiftRange(b.nodes, b.nodesEnd, b.edges, b.edgesEnd, dx, dy)
}

func (l *layouter) shiftRange(nodes, nodesEnd, edges, edgesEnd int, dx, dy float64) {
	for i := nodes; i < nodesEnd; i++ {
		l.g.Nodes[i].X += dx
		l.g.Nodes[i].Y += dy
	}
	for i := edges; i < edgesEnd; i++ {
		for k := range l.g.Edges[i].Points {
			l.g.Edges[i].Points[k].X += dx
			l.g.Edges[i].Points[k].Y += dy
		}
	}
}
