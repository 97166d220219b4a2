package web

import (
	"fmt"
	"hash/fnv"
	"math"
	"slices"
	"strconv"
	"strings"

	api "github.com/orchestrator-project/orchestrator/proto/orchestrator/v1"
)

// graph is a plan's drawing with what the pages ask of it.
type graph struct {
	*api.Graph
	byID       map[string]*api.GraphNode
	byInstance map[string]*api.GraphNode // by what the paths of its instances say
	children   map[string]int32          // steps directly in each block
	jumps      map[string]string         // where a node's jumps lead, in words
}

func newGraph(g *api.Graph) *graph {
	out := &graph{
		Graph: g, byID: map[string]*api.GraphNode{}, byInstance: map[string]*api.GraphNode{}, children: map[string]int32{},
		jumps: map[string]string{},
	}
	for _, n := range g.GetNodes() {
		out.byID[n.GetId()] = n
		if n.GetParent() != "" {
			out.children[n.GetParent()]++
		}
	}
	for _, n := range g.GetNodes() {
		out.byInstance[out.instance(n)] = n
	}
	for _, e := range g.GetEdges() {
		if e.GetLabel() == "" {
			continue
		}
		word := ", " + jumpWord(e.GetLabel()) + " to "
		if e.GetBack() {
			word = ", " + jumpWord(e.GetLabel()) + " back to "
		}
		out.jumps[e.GetFrom()] += word + out.byID[e.GetTo()].GetLabel()
	}
	return out
}

// jumpWord says when a jump is taken.
func jumpWord(label string) string {
	switch label {
	case "false":
		return "when false"
	case "always":
		return "always"
	}
	return "on " + label
}

// silent reports whether paths do not name a block of that kind: a step in it is
// named as if it stood beside it.
func silent(kind string) bool {
	return kind == "if" || kind == "match" || kind == "parallel" || kind == "compete"
}

// instance is a node's id as the paths of its instances spell it.
func (g *graph) instance(n *api.GraphNode) string {
	id := lastPart(n.GetId())
	for at := g.byID[n.GetParent()]; at != nil; at = g.byID[at.GetParent()] {
		if !silent(at.GetKind()) {
			id = lastPart(at.GetId()) + "/" + id
		}
	}
	return id
}

func lastPart(id string) string { return id[strings.LastIndexByte(id, '/')+1:] }

// block reports whether a node holds others.
func (g *graph) block(id string) bool { return g.children[id] > 0 }

// outerFirst lists the nodes so that each block comes before what it holds, for
// what is drawn later lies on top.
func (g *graph) outerFirst() []*api.GraphNode {
	depth := func(n *api.GraphNode) int { return strings.Count(n.GetId(), "/") }
	nodes := slices.Clone(g.GetNodes())
	slices.SortStableFunc(nodes, func(a, b *api.GraphNode) int { return depth(a) - depth(b) })
	return nodes
}

// box is one node as it is drawn.
type box struct {
	ID    string
	Label string
	Kind  string
	Node  *api.GraphNode
	Block bool
	State state
	Note  string // how often it ran, or 12/20 for the passes of a loop
	Full  string // what the tooltip and screen readers say
	Href  string
	Begun bool
}

// drawing is a graph with the state of its nodes.
type drawing struct {
	Width, Height string
	Edges         []*api.GraphEdge
	Arms          []*api.GraphArm
	Boxes         []box
	Live          bool   // of a run, not of an edited text
	Signature     string // of a drawing without a run: while it stays, the page keeps its place in it
}

// drawn returns the drawing of the view's graph; boxes that have not changed
// after seq are left out. The caller has set the graph.
func (v *view) drawn(sc screen, after int32) drawing {
	v.mu.Lock()
	defer v.mu.Unlock()
	d := drawing{Width: num(v.graph.GetWidth()), Height: num(v.graph.GetHeight()), Edges: v.graph.GetEdges(), Arms: v.graph.GetArms(), Live: true}
	over := finalRun(v.run.GetStatus())
	for _, gn := range v.graph.outerFirst() {
		n := v.nodes[v.graph.instance(gn)]
		if after >= 0 && (n == nil || n.seq <= after) && (!over || v.runSeq <= after) {
			continue
		}
		d.Boxes = append(d.Boxes, v.boxOf(gn, n, over, sc))
	}
	return d
}

func (v *view) boxOf(gn *api.GraphNode, n *node, over bool, sc screen) box {
	b := box{
		ID: "node-" + gn.GetId(), Label: gn.GetLabel(), Kind: kindOf(gn), Node: gn,
		Block: v.graph.block(gn.GetId()), State: "pending",
		Href: sc.with("tab", "steps", "under", v.graph.instance(gn), "step", ""),
	}
	word := "not started"
	if over {
		b.State, word = "none", "not reached"
	}
	if n == nil || n.tally.all() == 0 {
		b.Full = b.Label + ", " + b.Kind + ", " + word + v.graph.jumps[gn.GetId()]
		return b
	}
	now := n.tally.without(&n.past)
	b.Begun, b.State = true, now.state()
	word = b.State.Word()
	all, visits := now.all(), n.past.all()+1
	switch {
	case n.begun > 0:
		passes := max(n.begun, n.items)
		b.Note = count(n.passed) + "/" + count(passes)
		word += ", " + count(n.passed) + " of " + plural(passes, "pass", "passes") + " done"
	case all > 1:
		b.Note = count(now.done()) + "/" + count(all)
		word += ", " + count(now.done()) + " of " + count(all) + " done"
		if f := now[api.Step_FAILED]; f > 0 {
			word += ", " + count(f) + " failed"
		}
	case visits > 1:
		b.Note = "\u00d7" + count(visits)
		word += ", visit " + count(visits)
		b.Href = sc.with("step", n.last)
	default:
		b.Href = sc.with("step", n.last)
	}
	b.Full = b.Label + ", " + b.Kind + ", " + word + v.graph.jumps[gn.GetId()]
	return b
}

// kindOf says what a node does in a word or two.
func kindOf(n *api.GraphNode) string { return doing(n.GetKind(), n.GetAction()) }

// preview is a drawing without a run.
func preview(g *api.Graph) drawing {
	all := newGraph(g)
	d := drawing{Width: num(g.GetWidth()), Height: num(g.GetHeight()), Edges: g.GetEdges(), Arms: g.GetArms()}
	for _, n := range all.outerFirst() {
		d.Boxes = append(d.Boxes, box{
			ID: "node-" + n.GetId(), Label: n.GetLabel(), Kind: kindOf(n), Node: n,
			Block: all.block(n.GetId()), State: "none", Full: n.GetLabel() + ", " + kindOf(n) + all.jumps[n.GetId()],
		})
	}
	h := fnv.New64a()
	for _, n := range g.GetNodes() {
		fmt.Fprintln(h, n.GetId(), n.GetLabel(), n.GetKind(), n.GetAction(), n.GetX(), n.GetY(), n.GetWidth(), n.GetHeight())
	}
	for _, e := range g.GetEdges() {
		fmt.Fprintln(h, e.GetFrom(), e.GetTo(), e.GetCause(), e.GetPoints(), e.GetLabel())
	}
	for _, a := range g.GetArms() {
		fmt.Fprintln(h, a.GetBlock(), a.GetLabel(), a.GetX(), a.GetY(), a.GetWidth(), a.GetHeight())
	}
	d.Signature = strconv.FormatUint(h.Sum64(), 36)
	return d
}

// labelRoom is how many characters of a label fit into a box beside its icon
// and, on the same line, its note.
func (b box) labelRoom() int { return max(4, b.room(!b.noteBelow())) }

// kindRoom is how many characters of what it does fit below the label.
func (b box) kindRoom() int { return b.room(b.noteBelow()) }

func (b box) room(besideNote bool) int {
	room := b.Node.GetWidth() - 34
	if b.Note != "" && besideNote {
		room -= float64(8*len([]rune(b.Note)) + 6)
	}
	return int(room / 7.2)
}

// noteBelow reports whether the note would hide the label and stands below it.
func (b box) noteBelow() bool {
	return b.tall() && b.Note != "" && b.room(true) < min(len([]rune(b.Label)), 8)
}

// noteLine is where the note stands.
func (b box) noteLine() float64 {
	if b.noteBelow() {
		return b.baseline() + 15
	}
	return b.baseline()
}

// Coordinates of the parts of a box.
func (b box) at(dx, dy float64) (x, y string) {
	return num(b.Node.GetX() + dx), num(b.Node.GetY() + dy)
}

// tall reports whether a box has room for a second line.
func (b box) tall() bool { return !b.Block && b.Node.GetHeight() >= 38 }

// baseline is where the label stands: in the middle, or in the head of a block.
func (b box) baseline() float64 {
	switch {
	case b.Block:
		return 18
	case b.tall():
		return b.Node.GetHeight()/2 - 2
	}
	return b.Node.GetHeight()/2 + 4.5
}

// edgePath draws an edge through its points. Edges go down, so each bend is a
// curve that begins and ends upright.
func edgePath(points []float64) string {
	if len(points) < 4 {
		return ""
	}
	var b strings.Builder
	b.Grow(24 * len(points))
	pair := func(cmd string, x, y float64) {
		b.WriteString(cmd)
		b.WriteString(num(x))
		b.WriteByte(' ')
		b.WriteString(num(y))
	}
	pair("M", points[0], points[1])
	for i := 2; i+1 < len(points); i += 2 {
		fromX, fromY, x, y := points[i-2], points[i-1], points[i], points[i+1]
		if fromX == x || fromY == y {
			pair("L", x, y)
			continue
		}
		middle := (fromY + y) / 2
		pair("C", fromX, middle)
		pair(" ", x, middle)
		pair(" ", x, y)
	}
	return b.String()
}

// arrowPath is the head of an edge at its last point.
func arrowPath(points []float64) string {
	n := len(points)
	if n < 4 {
		return ""
	}
	x, y := points[n-2], points[n-1]
	dx, dy := 0.0, 1.0
	if y == points[n-3] {
		dx, dy = math.Copysign(1, x-points[n-4]), 0
	} else if y < points[n-3] {
		dy = -1
	}
	side := func(s float64) string {
		return num(x-7*dx+s*3.5*dy) + " " + num(y-7*dy-s*3.5*dx)
	}
	return "M" + num(x) + " " + num(y) + "L" + side(1) + "L" + side(-1) + "z"
}

// headRoom is how many characters of what a block does fit behind its label.
func (b box) headRoom() int {
	if b.Kind == b.Label {
		return 0
	}
	return b.labelRoom() - len([]rune(clip(b.Label, b.labelRoom()))) - 2
}

// wayAt is where the label of a jump stands: beside the middle of its line.
func wayAt(points []float64) (x, y string) {
	if len(points) < 4 {
		return "0", "0"
	}
	i := len(points) / 4 * 2
	return num(points[i] + 5), num(points[i+1] - 4)
}

// half puts a 14 px icon in the middle of a line of text with that baseline.
func half(b box) string {
	x, y := b.at(9, b.baseline()-11.5)
	return "translate(" + x + " " + y + ") scale(0.875)"
}

// inset is where the label begins: after the icon.
func (b box) inset() float64 { return 29 }

// mark is the icon of a box: its state, or what it does while it has none.
func (b box) mark() string {
	if b.State == "none" {
		return kindIcon(b.Node.GetKind())
	}
	return string(b.State)
}
