package expr

import "slices"

// collector walks a program for its references and calls.
type collector struct {
	refs  []Ref
	calls []string
	proof [][]Ref // paths that conditions around the current place prove
}

func collect(prog *program) *collector {
	c := &collector{}
	c.stmts(prog.body)
	return c
}

// mark sets Dashed of the refs that belong to a chain. Of chains inside another,
// as b-c in a-b-c, the longest counts.
func mark(refs []Ref, dashes []Dash) {
	if len(dashes) == 0 {
		return
	}
	var outer []Dash // in order of appearance, without overlap
	for _, d := range dashes {
		if n := len(outer); n == 0 || d.Off >= outer[n-1].End {
			outer = append(outer, d)
		}
	}
	chain := func(off, end int) string {
		i, _ := slices.BinarySearchFunc(outer, off, func(d Dash, off int) int { return d.End - 1 - off })
		if i < len(outer) && off >= outer[i].Off && end <= outer[i].End {
			return outer[i].Name
		}
		return ""
	}
	for i := range refs {
		r := &refs[i]
		r.Dashed = chain(r.Off, r.End)
		for _, s := range r.Path {
			if r.Dashed == "" {
				r.Dashed = chain(s.Off, s.End)
			}
		}
	}
}

// joined reports whether the ref is the joined reading of its chain.
func (r Ref) joined() bool {
	return r.Dashed != "" && (r.Root == r.Dashed || slices.ContainsFunc(r.Path, func(s Segment) bool { return s.Name == r.Dashed }))
}

func (c *collector) stmts(body []stmt) {
	for _, s := range body {
		switch s := s.(type) {
		case *outStmt:
			c.node(s.x, false)
		case *setStmt:
			c.node(s.x, false)
		case *setBlockStmt:
			c.stmts(s.body)
		case *ifStmt:
			undo := len(c.proof)
			for i, cond := range s.conds {
				c.node(cond, false)
				c.under(proven(cond, true), func() { c.stmts(s.bodies[i]) })
				c.prove(proven(cond, false))
			}
			c.stmts(s.els)
			c.proof = c.proof[:undo]
		case *forStmt:
			c.node(s.over, false)
			if s.filter == nil {
				c.stmts(s.body)
			} else {
				c.node(s.filter, false)
				c.under(proven(s.filter, true), func() { c.stmts(s.body) })
			}
			c.stmts(s.els)
		}
	}
}

func (c *collector) under(paths []Ref, f func()) {
	undo := len(c.proof)
	c.prove(paths)
	f()
	c.proof = c.proof[:undo]
}

func (c *collector) prove(paths []Ref) {
	if len(paths) > 0 && len(c.proof) < maxProofs {
		c.proof = append(c.proof, paths)
	}
}

// proven returns the paths that are defined where the condition is as given.
func proven(x node, truth bool) []Ref {
	switch x := x.(type) {
	case *notNode:
		return proven(x.x, !truth)
	case *andNode:
		if truth {
			return append(proven(x.a, true), proven(x.b, true)...)
		}
	case *orNode:
		if !truth {
			return append(proven(x.a, false), proven(x.b, false)...)
		}
	case *testNode:
		if x.t != nil && x.t.raw && (x.t.name == "defined") == (truth != x.negate) {
			if r, ok := path(x.x); ok {
				return []Ref{r}
			}
		}
	}
	return nil
}

// path returns the reference that x is, if it is nothing else.
func path(x node) (Ref, bool) {
	switch x := x.(type) {
	case *nameNode:
		return Ref{Root: x.name, Off: x.Off, End: x.End}, len(x.slots) == 0
	case *attrNode:
		r, ok := path(x.x)
		r.Path = append(r.Path, Segment{Name: x.name, Off: x.nsp.Off, End: x.nsp.End})
		return r, ok
	case *indexNode:
		k, ok := x.i.(*constNode)
		if !ok {
			return Ref{}, false
		}
		s := Segment{Off: k.Off, End: k.End}
		switch v := k.v.(type) {
		case string:
			s.Name = v
		case int64:
			s.Index, s.IsIndex = v, true
		default:
			return Ref{}, false
		}
		r, ok := path(x.x)
		r.Path = append(r.Path, s)
		return r, ok
	}
	return Ref{}, false
}

// covers reports whether p is r or a part of its beginning.
func (r Ref) covers(p Ref) bool {
	if r.Root != p.Root || len(p.Path) > len(r.Path) {
		return false
	}
	for i, s := range p.Path {
		if t := r.Path[i]; s.Name != t.Name || s.Index != t.Index || s.IsIndex != t.IsIndex {
			return false
		}
	}
	return true
}

// node collects from an expression; guarded says that it may be undefined.
func (c *collector) node(x node, guarded bool) {
	if r, ok := path(x); ok {
		r.Guarded = guarded || slices.ContainsFunc(c.proof, func(paths []Ref) bool {
			return slices.ContainsFunc(paths, r.covers)
		})
		c.refs = append(c.refs, r)
		return
	}
	switch x := x.(type) {
	case *attrNode:
		c.node(x.x, false)
	case *indexNode:
		c.node(x.x, false)
		c.node(x.i, false)
	case *sliceNode:
		c.node(x.x, false)
		c.nodes([]node{x.lo, x.hi, x.step})
	case *listNode:
		c.nodes(x.items)
	case *mapNode:
		for i := range x.keys {
			c.node(x.keys[i], false)
			c.node(x.values[i], false)
		}
	case *negNode:
		c.node(x.x, false)
	case *notNode:
		c.node(x.x, false)
	case *andNode:
		c.node(x.a, false)
		c.under(proven(x.a, true), func() { c.node(x.b, guarded) })
	case *orNode:
		c.node(x.a, false)
		c.under(proven(x.a, false), func() { c.node(x.b, guarded) })
	case *binNode:
		c.node(x.a, false)
		c.node(x.b, false)
	case *concatNode:
		c.nodes(x.items)
	case *compareNode:
		c.node(x.first, false)
		for _, r := range x.rest {
			c.node(r.x, false)
		}
	case *condNode:
		c.under(proven(x.cond, true), func() { c.node(x.then, guarded) })
		c.node(x.cond, false)
		if x.els != nil {
			c.under(proven(x.cond, false), func() { c.node(x.els, guarded) })
		}
	case *filterNode:
		raw := x.f != nil && x.f.raw
		c.node(x.x, raw)
		for i, a := range x.args {
			if a != nil {
				c.node(a, raw && i == 0 && guarded)
			}
		}
		c.extra(x.rest)
	case *testNode:
		c.node(x.x, x.t != nil && x.t.raw)
		c.nodes(x.args)
	case *methodNode:
		c.node(x.x, false)
		c.nodes(x.args)
		c.extra(x.rest)
	case *funcNode:
		c.calls = append(c.calls, x.f.name)
		c.nodes(x.args)
		c.extra(x.rest)
	}
}

func (c *collector) nodes(list []node) {
	for _, x := range list {
		if x != nil {
			c.node(x, false)
		}
	}
}

func (c *collector) extra(e extra) {
	c.nodes(e.pos)
	c.nodes(e.named)
}
