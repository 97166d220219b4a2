package spec

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/orchestrator-project/orchestrator/pipeline"
	"github.com/orchestrator-project/orchestrator/pipeline/expr"
)

// The causes of an edge.
const (
	causeDeclared  = "declared"
	causeReference = "reference"
	causeState     = "state"
	causeSequence  = "sequence"
	causeArtifact  = "artifact"
	causeJump      = "jump"
)

// order derives the edges of every body and refuses cycles.
func (c *compiler) order() {
	c.orderBody(c.root)
	c.orderBody(c.finally)
}

func (c *compiler) orderBody(b *body) {
	// causes of edges by step; the strongest cause of a pair is kept.
	edges := make([][]caused, len(b.steps))
	add := func(i, on, off int, cause string) {
		edges[i] = append(edges[i], caused{on, off, cause})
	}
	for i, s := range b.steps {
		if !b.graph && i > 0 {
			add(i, i-1, -1, causeSequence)
		}
		for _, n := range s.declared {
			if on := c.dependency(s, n); on >= 0 {
				add(i, on, n.at.off, causeDeclared)
			}
		}
		for _, r := range s.refs {
			add(i, r.on, r.off, causeReference)
		}
		for _, r := range s.inflow {
			add(i, r.on, r.off, causeArtifact)
		}
		for on := 0; s.judge && on < i; on++ {
			add(i, on, -1, causeSequence)
		}
	}
	c.jumps(b, add)
	switch {
	case b.apart != "":
		c.sharedState(b)
	case b.graph:
		stateEdges(b, edges, add)
	}
	for i, s := range b.steps {
		s.def.Deps = c.deps(edges[i])
	}
	c.cycles(b, edges)
	for _, s := range b.steps {
		for _, inner := range s.bodies {
			c.orderBody(inner)
		}
	}
}

// caused is an edge with its cause.
type caused struct {
	on    int
	off   int // -1: no place of its own
	cause string
}

// deps turns a step's edges into its dependencies: one for each step that it
// waits for, with the first cause that was found.
func (c *compiler) deps(edges []caused) []pipeline.Dep {
	if len(edges) == 0 {
		return nil
	}
	slices.SortStableFunc(edges, func(a, b caused) int { return cmp.Compare(a.on, b.on) })
	out := make([]pipeline.Dep, 0, len(edges))
	for i, e := range edges {
		if i > 0 && edges[i-1].on == e.on {
			continue
		}
		d := pipeline.Dep{On: e.on, Cause: e.cause}
		if e.off >= 0 {
			d.Pos = c.text.pos(e.off)
		}
		out = append(out, d)
	}
	return out
}

// dependency resolves a declared dependency; -1 after an error.
func (c *compiler) dependency(s *step, n *node) int {
	w := where{s, "dependencies"}
	t := s.body.byID[n.text]
	if t != nil && t != s && s.body.apart != "" {
		c.error(fault{code: "E0401", at: n.at, msg: fmt.Sprintf("steps of %s run at the same time and cannot wait for each other", s.body.apart), hint: "a block with order: graph holds steps that depend on each other"}, w)
		return -1
	}
	switch {
	case t == s:
		c.error(fault{code: "E0402", at: n.at, msg: fmt.Sprintf("the step %s cannot depend on itself", n.text)}, w)
		return -1
	case t != nil:
		return t.index
	}
	x := fault{code: "E0401", at: n.at, msg: fmt.Sprintf("there is no step %q in this list", n.text)}
	if others := c.steps[n.text]; len(others) > 0 {
		x.hint = "dependencies name steps of the same list; one around or within cannot be named"
		c.found.error(c.placed(x, w), c.found.related(others[0].at.off, "%s is here", n.text))
		return -1
	}
	if c.found.errs <= maxDiagnostics {
		ids := make([]string, 0, len(s.body.byID))
		for id := range s.body.byID {
			ids = append(ids, id)
		}
		if like := expr.Suggest(n.text, ids); like != "" {
			x.msg += fmt.Sprintf(" (did you mean %q?)", like)
		}
	}
	c.error(x, w)
	return -1
}

// sharedState refuses steps that run at the same time and share a state variable
// that one of them sets.
func (c *compiler) sharedState(b *body) {
	first := map[string]*step{} // that sets the variable
	for _, s := range b.steps {
		for name, p := range s.access {
			if t := first[name]; p.write && !s.judge && t == nil {
				first[name] = s
			}
		}
	}
	for _, s := range b.steps {
		for name, p := range s.access {
			t := first[name]
			if t == nil || t == s || s.judge {
				continue
			}
			msg := fmt.Sprintf("%s and %s run at the same time, and both set %s", t.def.ID, s.def.ID, name)
			if !p.write {
				msg = fmt.Sprintf("%s reads %s, which %s sets at the same time", s.def.ID, name, t.def.ID)
			}
			x := fault{code: "E0412", at: span{p.off, p.off + len(name)}, step: s.path(), path: "state." + name, msg: msg, hint: "set it in the state of the block itself, from the steps' outputs"}
			related := "%s sets it here"
			if session, ok := strings.CutPrefix(name, sessionPrefix); ok {
				x.at.end, x.path, x.hint = p.off+len(session), "session", ""
				x.msg, related = fmt.Sprintf("%s and %s run at the same time, and both use %s", t.def.ID, s.def.ID, name), "%s uses it here"
			}
			c.found.error(x, c.found.related(t.access[name].off, related, t.def.ID))
		}
	}
}

// access is a step's access to one state variable.
type access struct {
	index int
	write bool
	off   int
}

// maxPairs bounds the pairs of steps that are compared one by one.
const maxPairs = 4_000_000

// stateEdges adds, for each state variable, edges in the order of the list
// between a step that sets it and any other that reads or sets it, unless the
// declared edges order the two the other way.
func stateEdges(b *body, edges [][]caused, add func(i, on, off int, cause string)) {
	byName := map[string][]access{}
	var names []string
	forward := false // some step depends on a later one
	for i, s := range b.steps {
		for name, p := range s.access {
			if byName[name] == nil {
				names = append(names, name)
			}
			byName[name] = append(byName[name], access{i, p.write, p.off})
		}
		for _, e := range edges[i] {
			forward = forward || e.cause == causeDeclared && e.on > i
		}
	}
	slices.Sort(names)
	var after *reach
	if forward && len(names) > 0 {
		after = newReach(edges)
	}
	for _, name := range names {
		list := byName[name]
		var odd map[int][]int
		if after != nil {
			odd = after.inversions(list)
		}
		link := func(i, on, off int) { add(i, on, off, causeState) }
		if len(odd)*len(list) > maxPairs {
			// A text made to be slow: keep to what cannot contradict the declared edges.
			odd = nil
			link = func(i, on, off int) {
				if after.rank[on] < after.rank[i] {
					add(i, on, off, causeState)
				}
			}
		}
		chain := list
		if len(odd) > 0 {
			chain = nil
			for _, a := range list {
				if odd[a.index] == nil {
					chain = append(chain, a)
				}
			}
			for i, x := range list { // those that are out of order: pair by pair
				if odd[x.index] == nil {
					continue
				}
				for k, y := range list {
					_, ordered := slices.BinarySearch(odd[x.index], y.index)
					switch {
					case i == k || ordered || !x.write && !y.write || odd[y.index] != nil && k < i:
					case i < k:
						add(y.index, x.index, y.off, causeState)
					default:
						add(x.index, y.index, x.off, causeState)
					}
				}
			}
		}
		writer := -1
		var readers []int
		for _, a := range chain {
			switch {
			case !a.write:
				if writer >= 0 {
					link(a.index, writer, a.off)
				}
				readers = append(readers, a.index)
			default:
				for _, r := range readers {
					link(a.index, r, a.off)
				}
				if len(readers) == 0 && writer >= 0 {
					link(a.index, writer, a.off)
				}
				writer, readers = a.index, readers[:0]
			}
		}
	}
}

// reach answers which steps come after others by declared edges.
type reach struct {
	order []int   // topological
	rank  []int   // place in order
	on    [][]int // declared edges
}

// newReach returns nil where the declared edges form a cycle, which is reported
// elsewhere.
func newReach(edges [][]caused) *reach {
	r := &reach{on: make([][]int, len(edges))}
	dependents := make([][]int, len(edges))
	waits := make([]int, len(edges))
	for i := range edges {
		for _, e := range edges[i] {
			if e.cause == causeDeclared {
				r.on[i] = append(r.on[i], e.on)
				dependents[e.on] = append(dependents[e.on], i)
				waits[i]++
			}
		}
	}
	for i := range edges {
		if waits[i] == 0 {
			r.order = append(r.order, i)
		}
	}
	for k := 0; k < len(r.order); k++ {
		for _, d := range dependents[r.order[k]] {
			if waits[d]--; waits[d] == 0 {
				r.order = append(r.order, d)
			}
		}
	}
	if len(r.order) < len(edges) {
		return nil
	}
	r.rank = make([]int, len(edges))
	for k, i := range r.order {
		r.rank[i] = k
	}
	return r
}

// inversions lists, for each step of list that depends by declaration on a later
// one of list, those later ones, and the other way round. It looks at 64 of them
// at a time.
func (r *reach) inversions(list []access) map[int][]int {
	odd := map[int][]int{}
	pairs := 0
	bits := make([]uint64, len(r.on))
	for from := 0; from < len(list); from += 64 {
		part := list[from:min(from+64, len(list))]
		clear(bits)
		for k, a := range part {
			bits[a.index] = 1 << k
		}
		for _, i := range r.order {
			for _, on := range r.on[i] {
				bits[i] |= bits[on]
			}
		}
		for _, a := range list { // a depends on each step of part whose bit it has
			if a.index > part[len(part)-1].index {
				break
			}
			for k, later := range part {
				if later.index > a.index && bits[a.index]&(1<<k) != 0 && pairs < maxPairs {
					pairs++
					odd[a.index] = append(odd[a.index], later.index)
					odd[later.index] = append(odd[later.index], a.index)
				}
			}
		}
	}
	for _, others := range odd {
		slices.Sort(others)
	}
	return odd
}

// cycles reports steps that wait for each other.
func (c *compiler) cycles(b *body, edges [][]caused) {
	n := len(edges)
	waits := make([]int, n)
	dependents := make([][]int, n)
	for i, s := range b.steps {
		waits[i] = len(s.def.Deps)
		for _, d := range s.def.Deps {
			dependents[d.On] = append(dependents[d.On], i)
		}
	}
	queue := make([]int, 0, n)
	for i := range n {
		if waits[i] == 0 {
			queue = append(queue, i)
		}
	}
	for k := 0; k < len(queue); k++ {
		for _, d := range dependents[queue[k]] {
			if waits[d]--; waits[d] == 0 {
				queue = append(queue, d)
			}
		}
	}
	if len(queue) == n {
		return
	}
	seen := make([]bool, n) // steps of cycles that were reported
	for i := range n {
		if waits[i] == 0 || seen[i] || c.found.errs > maxDiagnostics {
			continue
		}
		if cycle := shortestCycle(b, i, waits, seen); cycle != nil {
			for _, k := range cycle {
				seen[k] = true
			}
			c.cycle(b, edges, cycle)
		}
	}
}

// shortestCycle finds the shortest way from a step along its dependencies back
// to it, among the steps that Kahn's algorithm left over.
func shortestCycle(b *body, start int, waits []int, seen []bool) []int {
	prev := map[int]int{}
	queue := []int{start}
	for k := 0; k < len(queue); k++ {
		for _, d := range b.steps[queue[k]].def.Deps {
			if d.On == start {
				cycle := []int{queue[k]}
				for at := queue[k]; at != start; {
					at = prev[at]
					cycle = append(cycle, at)
				}
				slices.Reverse(cycle)
				return cycle
			}
			if _, known := prev[d.On]; known || waits[d.On] == 0 || seen[d.On] {
				continue
			}
			prev[d.On] = queue[k]
			queue = append(queue, d.On)
		}
	}
	return nil
}

// cycle reports one cycle at its first step in the file: each step waits for the
// next.
func (c *compiler) cycle(b *body, edges [][]caused, steps []int) {
	var names []string
	var related []pipeline.Related
	for k, i := range steps {
		next := steps[(k+1)%len(steps)]
		s, t := b.steps[i], b.steps[next]
		names = append(names, s.def.ID)
		if k >= 10 {
			continue
		}
		e := edges[i][slices.IndexFunc(edges[i], func(e caused) bool { return e.on == next })]
		off := e.off
		if off < 0 {
			off = s.at.off
		}
		related = append(related, c.found.related(off, "%s waits for %s: %s", s.def.ID, t.def.ID, because(e.cause)))
	}
	text := strings.Join(append(names, names[0]), " -> ")
	if len(names) > 12 {
		text = strings.Join(names[:10], " -> ") + fmt.Sprintf(" -> ... %d more ... -> %s", len(names)-10, names[0])
	}
	first := b.steps[steps[0]]
	c.found.error(fault{code: "E0403", at: first.at, step: first.path(), msg: "these steps wait for each other: " + text}, related...)
}

func because(cause string) string {
	switch cause {
	case causeDeclared:
		return "a declared dependency"
	case causeReference:
		return "it uses its result"
	case causeArtifact:
		return "it consumes what that one publishes"
	case causeJump:
		return "that one may jump over it or to it"
	case causeState:
		return "they share a state variable, and the list's order counts"
	}
	return "it comes later in a sequence"
}
