package spec

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/orchestrator-project/orchestrator/pipeline"
)

// writer is a step that writes a file, or holds one that does.
type writer struct {
	output
	step *step // that writes
	in   int   // index in the body that is looked at
}

// outputPaths refuses steps that write the same file and may run at the same
// time. Only paths without templates are known.
func (c *compiler) outputPaths() {
	if c.found.errs > 0 {
		return // edges may be missing
	}
	c.writers(c.root)
	c.writers(c.finally)
}

// writers lists who writes what in a body.
func (c *compiler) writers(b *body) []writer {
	var all []writer
	for i, s := range b.steps {
		from := len(all)
		for _, o := range s.files {
			all = append(all, writer{output: o, step: s})
		}
		for _, inner := range s.bodies {
			all = append(all, c.writers(inner)...)
		}
		for k := range all[from:] {
			all[from+k].in = i
		}
		if l := s.def.Loop; l != nil && l.Parallel != 0 && l.Parallel != 1 {
			for _, w := range all[from:] {
				c.found.error(fault{code: "E0413", at: w.at, step: w.step.path(), msg: fmt.Sprintf("passes of the parallel loop %s would all write %s", s.def.ID, w.path), hint: "put something of the item into the path"}, c.found.related(s.at.off, "the loop"))
			}
		}
	}
	if b.graph && len(all) > 1 {
		c.sharedPaths(b, all)
	}
	return all
}

// sharedPaths compares those who write the same file. They are in order if each
// is before the next in an order that suits all edges.
func (c *compiler) sharedPaths(b *body, all []writer) {
	byPath := map[string][]writer{}
	for _, w := range all {
		byPath[w.path] = append(byPath[w.path], w)
	}
	var rank []int
	for _, w := range all { // each path once, in the order of the file
		same := byPath[w.path]
		delete(byPath, w.path)
		if len(same) < 2 {
			continue
		}
		if rank == nil {
			rank = ranks(b)
		}
		slices.SortStableFunc(same, func(x, y writer) int { return rank[x.in] - rank[y.in] })
		for i := 1; i < len(same); i++ {
			x, y := same[i-1], same[i]
			if x.in == y.in || waitsFor(b, rank, y.in, x.in) {
				continue
			}
			if x.at.off > y.at.off {
				x, y = y, x
			}
			c.found.error(fault{code: "E0413", at: y.at, step: y.step.path(), msg: fmt.Sprintf("%s and %s may run at the same time, and both write %s", x.step.path(), y.step.path(), y.path), hint: "write to different files, or let one depend on the other"}, c.found.related(x.at.off, "the other one"))
		}
	}
}

// ranks numbers the steps of a body without cycles so that each comes after those
// it waits for.
func ranks(b *body) []int {
	waits := make([]int, len(b.steps))
	dependents := make([][]int, len(b.steps))
	var queue []int
	for i, s := range b.steps {
		waits[i] = len(s.def.Deps)
		for _, d := range s.def.Deps {
			dependents[d.On] = append(dependents[d.On], i)
		}
		if waits[i] == 0 {
			queue = append(queue, i)
		}
	}
	rank := make([]int, len(b.steps))
	for k := 0; k < len(queue); k++ {
		rank[queue[k]] = k
		for _, d := range dependents[queue[k]] {
			if waits[d]--; waits[d] == 0 {
				queue = append(queue, d)
			}
		}
	}
	return rank
}

// waitsFor reports whether one step comes after another along the edges.
func waitsFor(b *body, rank []int, from, on int) bool {
	seen := map[int]bool{from: true}
	queue := []int{from}
	for len(queue) > 0 {
		i := queue[len(queue)-1]
		queue = queue[:len(queue)-1]
		for _, d := range b.steps[i].def.Deps {
			if d.On == on {
				return true
			}
			if rank[d.On] > rank[on] && !seen[d.On] {
				seen[d.On] = true
				queue = append(queue, d.On)
			}
		}
	}
	return false
}

// writesFile notes the file that an action writes, where the source says which.
func (c *compiler) writesFile(s *step, parameters *node) {
	if s.def.Action != "filesystem.write" || parameters == nil {
		return
	}
	for i := range s.def.Parameters {
		e := &s.def.Parameters[i]
		if file, ok := e.Value.Const.(string); ok && e.Name == "path" && isConst(&e.Value) {
			if at := parameters.get("path"); at != nil && !c.lost(at) {
				s.files = append(s.files, output{path.Clean(file), at.at})
			}
		}
	}
}

// staysWithin refuses what the tool filesystem is given as a text and leads out of
// the workspace, where the source says so. An absolute path may lead into it.
func (c *compiler) staysWithin(s *step, parameters *node) {
	if !strings.HasPrefix(s.def.Action, "filesystem.") || parameters == nil {
		return
	}
	for i := range s.def.Parameters {
		e := &s.def.Parameters[i]
		isText := func(p pipeline.Property) bool { return p.Name == e.Name && p.Type.Kind == "string" }
		if !isConst(&e.Value) || !slices.ContainsFunc(s.spec.Params, isText) {
			continue
		}
		name, _ := e.Value.Const.(string)
		if clean := path.Clean(name); clean == ".." || strings.HasPrefix(clean, "../") {
			if at := parameters.get(e.Name); at != nil && !c.lost(at) {
				c.error(fault{code: "E0601", at: at.at, msg: fmt.Sprintf("%s is not within the workspace", name)}, where{s, "parameters." + e.Name})
			}
		}
	}
}
