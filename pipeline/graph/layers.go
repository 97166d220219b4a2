package graph

import (
	"cmp"
	"math"
	"slices"

	"github.com/orchestrator-project/orchestrator/pipeline"
)

const (
	maxDummies = 20_000 // beyond, long edges are drawn straight
	sweeps     = 8      // of the order within layers
	pulls      = 6      // of the places within layers
)

// drawing lays one body out. Its vertices are the steps, and behind them the
// dummies where long edges cross layers.
type drawing struct {
	steps  int
	boxes  []box
	edges  []drawnEdge
	back   []drawnEdge // jumps to a step above
	layer  []int
	w, h   []float64
	up     [][]int // neighbours in the layer above, and below
	down   [][]int
	layers [][]int // vertices by layer, left to right
	x, y   []float64

	top, bottom   []float64 // of layers
	width, height float64
}

type drawnEdge struct {
	from, to int
	cause    string
	label    string // of a jump
	hidden   bool   // for the order alone
	via      []int  // dummies from top to bottom
}

func newDrawing(b *pipeline.Body, boxes []box) *drawing {
	n := len(boxes)
	d := &drawing{steps: n, boxes: boxes, layer: make([]int, n), w: make([]float64, n), h: make([]float64, n)}
	for i := range boxes {
		d.w[i], d.h[i] = boxes[i].width, boxes[i].height
	}
	for i, s := range b.Steps {
		for _, dep := range s.Deps {
			if dep.On >= 0 && dep.On < n && dep.On != i {
				d.edges = append(d.edges, drawnEdge{from: dep.On, to: i, cause: dep.Cause, hidden: dep.Cause == jump})
			}
		}
		d.jumps(s, i, n)
	}
	return d
}

const jump = "jump"

// jumps adds where a step may go on.
func (d *drawing) jumps(s *pipeline.StepDef, i, n int) {
	add := func(label string, to *int) {
		switch {
		case to == nil || *to < 0 || *to >= n:
		case *to <= i:
			d.back = append(d.back, drawnEdge{from: i, to: *to, cause: jump, label: label})
		default:
			d.edges = append(d.edges, drawnEdge{from: i, to: *to, cause: jump, label: label})
		}
	}
	if r := s.Routes; r != nil {
		add("success", r.Success)
		add("failure", r.Failure)
		add("false", r.False)
		add("always", r.Always)
	}
	for k := range s.OnError {
		add("error", s.OnError[k].To)
	}
}

func (d *drawing) run() {
	d.assign()
	d.split()
	d.arrange()
	d.place()
}

// assign gives each step the layer below the last of those that it waits for.
// Steps without any edge are set out in rows.
func (d *drawing) assign() {
	n := d.steps
	waits := make([]int, n)
	out := make([][]int, n)
	for _, e := range d.edges {
		waits[e.to]++
		out[e.from] = append(out[e.from], e.to)
	}
	var queue, alone []int
	for i := range n {
		switch {
		case waits[i] == 0 && len(out[i]) == 0:
			alone = append(alone, i)
		case waits[i] == 0:
			queue = append(queue, i)
		}
	}
	for k := 0; k < len(queue); k++ {
		for _, t := range out[queue[k]] {
			d.layer[t] = max(d.layer[t], d.layer[queue[k]]+1)
			if waits[t]--; waits[t] == 0 {
				queue = append(queue, t)
			}
		}
	}
	row := max(6, int(math.Ceil(math.Sqrt(float64(len(alone))))))
	for k, i := range alone {
		d.layer[i] = k / row
	}
}

// split cuts edges that cross layers into pieces, and fills the layers.
func (d *drawing) split() {
	last, dummies := 0, 0
	for _, l := range d.layer {
		last = max(last, l)
	}
	for _, e := range d.edges {
		dummies += max(0, d.layer[e.to]-d.layer[e.from]-1)
	}
	d.up, d.down = make([][]int, d.steps), make([][]int, d.steps)
	link := func(a, b int) {
		d.down[a] = append(d.down[a], b)
		d.up[b] = append(d.up[b], a)
	}
	for i := range d.edges {
		e := &d.edges[i]
		if d.layer[e.from] >= d.layer[e.to] {
			continue // of a plan with a cycle, which no compiler makes
		}
		if dummies > maxDummies && d.layer[e.to]-d.layer[e.from] > 1 {
			continue
		}
		at := e.from
		for l := d.layer[e.from] + 1; l < d.layer[e.to]; l++ {
			v := len(d.layer)
			d.layer = append(d.layer, l)
			d.w, d.h = append(d.w, 0), append(d.h, 0)
			d.up, d.down = append(d.up, nil), append(d.down, nil)
			e.via = append(e.via, v)
			link(at, v)
			at = v
		}
		link(at, e.to)
	}
	d.layers = make([][]int, last+1)
	for v, l := range d.layer {
		d.layers[l] = append(d.layers[l], v)
	}
}

// arrange orders each layer so that few edges cross: each vertex goes to the
// mean place of its neighbours, downwards and upwards in turn. The best order is
// kept.
func (d *drawing) arrange() {
	rank := make([]int, len(d.layer))
	number := func(l []int) {
		for i, v := range l {
			rank[v] = i
		}
	}
	for _, l := range d.layers {
		number(l)
	}
	best, least := d.clone(), d.crossings(rank)
	for s := 0; s < sweeps && least > 0; s++ {
		order := func(l []int, near [][]int) {
			key := make([]float64, len(l))
			for i, v := range l {
				key[i] = float64(i)
				if len(near[v]) > 0 {
					sum := 0
					for _, u := range near[v] {
						sum += rank[u]
					}
					key[i] = float64(sum) / float64(len(near[v]))
				}
			}
			idx := make([]int, len(l))
			for i := range idx {
				idx[i] = i
			}
			slices.SortStableFunc(idx, func(a, b int) int { return cmp.Compare(key[a], key[b]) })
			sorted := make([]int, len(l))
			for i, k := range idx {
				sorted[i] = l[k]
			}
			copy(l, sorted)
			number(l)
		}
		if s%2 == 0 {
			for _, l := range d.layers[1:] {
				order(l, d.up)
			}
		} else {
			for i := len(d.layers) - 2; i >= 0; i-- {
				order(d.layers[i], d.down)
			}
		}
		if c := d.crossings(rank); c < least {
			best, least = d.clone(), c
		}
	}
	d.layers = best
}

func (d *drawing) clone() [][]int {
	out := make([][]int, len(d.layers))
	for i, l := range d.layers {
		out[i] = slices.Clone(l)
	}
	return out
}

// crossings counts the pairs of edges that cross between neighbouring layers.
func (d *drawing) crossings(rank []int) int {
	total := 0
	var tree []int
	for i := 0; i+1 < len(d.layers); i++ {
		size := len(d.layers[i+1])
		if cap(tree) <= size {
			tree = make([]int, size+1)
		}
		tree = tree[:size+1]
		clear(tree)
		seen := 0
		for _, v := range d.layers[i] {
			for _, t := range d.down[v] { // edges to the right of t that were seen before
				before := 0
				for k := rank[t] + 1; k > 0; k -= k & -k {
					before += tree[k]
				}
				total += seen - before
			}
			for _, t := range d.down[v] {
				for k := rank[t] + 1; k <= size; k += k & -k {
					tree[k]++
				}
				seen++
			}
		}
	}
	return total
}

// place gives every vertex its coordinates: each layer is drawn towards its
// neighbours as far as the widths allow.
func (d *drawing) place() {
	n := len(d.layer)
	d.x, d.y = make([]float64, n), make([]float64, n) // centres, until the end
	d.top, d.bottom = make([]float64, len(d.layers)), make([]float64, len(d.layers))
	y := 0.0
	for i, l := range d.layers {
		tallest := 0.0
		for _, v := range l {
			tallest = max(tallest, d.h[v])
		}
		d.top[i], d.bottom[i] = y, y+tallest
		for _, v := range l {
			d.y[v] = y
		}
		y += tallest + layerGap
		d.spread(l, nil)
	}
	d.height = max(y-layerGap, 0)
	for s := range pulls {
		if s%2 == 0 {
			for _, l := range d.layers[1:] {
				d.spread(l, d.up)
			}
		} else {
			for i := len(d.layers) - 2; i >= 0; i-- {
				d.spread(d.layers[i], d.down)
			}
		}
	}
	left, right := math.Inf(1), math.Inf(-1)
	for v := range n {
		left, right = min(left, d.x[v]-d.w[v]/2), max(right, d.x[v]+d.w[v]/2)
	}
	for v := range n {
		d.x[v] = round(d.x[v] - left - d.w[v]/2)
	}
	d.width = round(right - left)
}

// spread places a layer's vertices as near to the mean of their neighbours as
// their widths allow, in the sense of least squares: pool adjacent violators.
func (d *drawing) spread(l []int, near [][]int) {
	type pool struct {
		sum, weight float64
		n           int
	}
	offset := make([]float64, len(l)) // what stands to the left of each at least
	for i := 1; i < len(l); i++ {
		offset[i] = offset[i-1] + d.w[l[i-1]]/2 + nodeGap + d.w[l[i]]/2
	}
	pools := make([]pool, 0, len(l))
	for i, v := range l {
		want, weight := d.x[v], 0.1
		switch {
		case near == nil:
			want, weight = offset[i]-offset[len(l)-1]/2, 1
		case len(near[v]) > 0:
			want = 0
			for _, u := range near[v] {
				want += d.x[u]
			}
			want /= float64(len(near[v]))
			weight = 1
			if v >= d.steps {
				weight = 2 // long edges are straight rather than short ones
			}
		}
		pools = append(pools, pool{(want - offset[i]) * weight, weight, 1})
		for len(pools) > 1 {
			a, b := &pools[len(pools)-2], pools[len(pools)-1]
			if a.sum/a.weight <= b.sum/b.weight {
				break
			}
			a.sum, a.weight, a.n = a.sum+b.sum, a.weight+b.weight, a.n+b.n
			pools = pools[:len(pools)-1]
		}
	}
	i := 0
	for _, p := range pools {
		for range p.n {
			d.x[l[i]] = p.sum/p.weight + offset[i]
			i++
		}
	}
}

// points is the line of an edge: from the bottom of a box, between the boxes of
// the layers that it crosses, to the top of another.
func (d *drawing) points(e *drawnEdge) []Point {
	pts := make([]Point, 0, 2+2*len(e.via))
	add := func(x, y float64) {
		if n := len(pts); n >= 2 && pts[n-1].X == x && pts[n-2].X == x {
			pts[n-1].Y = y
			return
		}
		pts = append(pts, Point{x, y})
	}
	add(d.x[e.from]+round(d.w[e.from]/2), d.y[e.from]+d.h[e.from])
	if from := d.layer[e.from]; d.bottom[from] > d.y[e.from]+d.h[e.from] {
		add(d.x[e.from]+round(d.w[e.from]/2), d.bottom[from])
	}
	for _, v := range e.via {
		add(d.x[v], d.top[d.layer[v]])
		add(d.x[v], d.bottom[d.layer[v]])
	}
	add(d.x[e.to]+round(d.w[e.to]/2), d.y[e.to])
	return pts
}

// around is the line of a jump back: below its step, up beside the boxes in a
// lane of its own, and down to the other step.
func (d *drawing) around(e *drawnEdge, lane int) []Point {
	x := d.width + float64(lane+1)*laneGap
	from, to := d.x[e.from]+round(d.w[e.from]/2), d.x[e.to]+round(d.w[e.to]/2)
	below, above := d.bottom[d.layer[e.from]]+laneGap/2, d.top[d.layer[e.to]]-laneGap/2
	return []Point{{from, d.y[e.from] + d.h[e.from]}, {from, below}, {x, below}, {x, above}, {to, above}, {to, d.y[e.to]}}
}

// round keeps coordinates short in what is made of them.
func round(x float64) float64 { return math.Round(x*10) / 10 }
