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
	Edges         []Edge
	Width, Height float64
}

// Node is a step.
type Node struct {
	ID     string // the ids of the blocks around it and its own, joined by "/"
	Label  string
	Kind   string // as in pipeline.Kind
	Action string
	Parent string // the block that holds it, or empty
	Layer  int    // within its body, from 0
	X, Y   float64
	W, H   float64
	Line   int // in the source
}

// Edge says that one step of a body waits for another.
type Edge struct {
	From, To string // ids of nodes
	Cause    string // declared, reference, state, sequence
	Points   []Point
}

// Point is a corner of an edge's line.
type Point struct{ X, Y float64 }
