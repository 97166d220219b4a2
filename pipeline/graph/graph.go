// Package graph lays a plan out for drawing: steps as boxes, blocks as boxes
// around their bodies, and edges between the steps of one body, drawn from top
// to bottom. It decides places only; colours, live states and SVG belong to
// whoever draws.
//
//	g := graph.Layout(plan)
//	for _, n := range g.Nodes { ... }
//	text := g.Mermaid()
//
// The same plan gives the same drawing.
package graph

// Graph is a drawing of a plan. Coordinates are in pixels from the top left.
type Graph struct {
	Nodes         []Node // a block stands before what it holds
	Arms          []Arm  // of blocks that choose
	Edges         []Edge
	Width, Height float64
}

// Node is a step.
type Node struct {
	ID     string // the ids of the blocks around it and its own, joined by "/"
	Label  string
	Kind   string // as in pipeline.Kind
	Action string // the action, skill, agent or pipeline that it names
	Parent string // the block that holds it, or empty
	Layer  int    // within its body, from 0
	X, Y   float64
	W, H   float64
	Line   int // in the source
}

// Arm is one of the ways that a block may take: the part of its box where the
// steps of the arm stand, below its label. An arm may be empty.
type Arm struct {
	Block      string // the id of its node
	Label      string // a condition, the value of a case, else or default
	Nodes      []string
	X, Y, W, H float64
}

// Edge says that one step of a body waits for another, or may go on with it.
type Edge struct {
	From, To string // ids of nodes
	Cause    string // declared, reference, state, sequence, artifact, jump
	Label    string // of jumps: success, failure, false, always or error
	Back     bool   // a jump to a step above, or to the same one
	Points   []Point
}

// Point is a corner of an edge's line.
type Point struct{ X, Y float64 }
