package spec

import (
	"fmt"
	"slices"
	"strings"
)

// Change is a difference between two sources: a step that only one has, or a key
// that is not the same in both.
type Change struct {
	Kind         string // added, removed or changed
	Step         string // ids, of the blocks around it and its own, joined by "/"; empty: the pipeline itself
	Key          string // empty: the whole step
	LineA, LineB int    // where it stands, from 1; 0: it is not there
	TextA, TextB string // those lines, without the blanks around them
}

// The kinds of Change.
const (
	ChangeAdded   = "added"
	ChangeRemoved = "removed"
	ChangeChanged = "changed"
)

// Compare says in what two sources differ, in the order of the second one with what
// it lacks behind. Steps are the same by their ids, wherever they stand in their
// block. A source that cannot be read counts as empty. Comments and the way in which
// a value is written do not count.
func Compare(a, b []byte) []Change {
	c := comparison{}
	c.texts[0], _ = newText("", string(a))
	c.texts[1], _ = newText("", string(b))
	root := [2]*part{}
	for i, t := range c.texts {
		root[i] = &part{keys: map[string]pair{}, steps: map[string]*part{}}
		if n := loadTagged(t, newFindings(t)); n != nil && n.kind == mapping {
			root[i] = partOf(n)
		}
	}
	c.parts("", root[0], root[1])
	return c.list
}

// part is the pipeline or a step of it, with the steps within.
type part struct {
	at    int // where it begins
	keys  map[string]pair
	order []string
	steps map[string]*part
	ids   []string
}

type comparison struct {
	texts [2]*text
	list  []Change
}

// valueKeys are those that hold values of people's, in which nothing is a step.
var valueKeys = []string{"inputs", "parameters", "with", "metadata", "vars", "set", "state", "outputs", "returns", "env", "items"}

func partOf(n *node) *part {
	p := &part{at: n.off, keys: map[string]pair{}, steps: map[string]*part{}}
	for _, kv := range n.pairs {
		p.keys[kv.name] = kv
		p.order = append(p.order, kv.name)
		p.within(kv.name, kv.value)
	}
	return p
}

// within finds the steps below a key.
func (p *part) within(key string, n *node) {
	switch {
	case n.kind == scalar || slices.Contains(valueKeys, key):
	case n.kind == mapping:
		for _, kv := range n.pairs {
			p.within(kv.name, kv.value)
		}
	case !holdsSteps(key, n):
		for _, item := range n.items {
			p.within("", item)
		}
	default:
		for i, item := range n.items {
			id := item.get("id").text
			if _, twice := p.steps[id]; twice { // of two lists of one block
				id = fmt.Sprintf("%s#%d", id, i+1)
			}
			p.steps[id] = partOf(item)
			p.ids = append(p.ids, id)
		}
	}
}

// holdsSteps reports whether a list is one of steps: each has an id.
func holdsSteps(key string, n *node) bool {
	return !slices.Contains(valueKeys, key) && !slices.ContainsFunc(n.items, func(item *node) bool {
		id := item.get("id")
		return id == nil || id.kind != scalar || id.text == ""
	})
}

func (c *comparison) line(side, off int) (ln int, text string) {
	ln, _ = c.texts[side].place(off)
	return ln, strings.TrimSpace(c.texts[side].lineText(ln))
}

func (c *comparison) parts(step string, a, b *part) {
	for _, key := range union(b.order, a.order) {
		x, inA := a.keys[key]
		y, inB := b.keys[key]
		ch := Change{Kind: ChangeChanged, Step: step, Key: key}
		switch {
		case !inA:
			ch.Kind = ChangeAdded
		case !inB:
			ch.Kind = ChangeRemoved
		case apart(key, x.value, y.value) == nil:
			continue
		}
		if inA && inB { // the innermost value, which may stand lines below its key
			d := apart(key, x.value, y.value)
			ch.LineA, ch.TextA = c.line(0, d[0].off)
			ch.LineB, ch.TextB = c.line(1, d[1].off)
			c.list = append(c.list, ch)
			continue
		}
		if inA {
			ch.LineA, ch.TextA = c.line(0, x.key.off)
		}
		if inB {
			ch.LineB, ch.TextB = c.line(1, y.key.off)
		}
		c.list = append(c.list, ch)
	}
	for _, id := range union(b.ids, a.ids) {
		x, y := a.steps[id], b.steps[id]
		path := strings.TrimPrefix(step+"/"+id, "/")
		switch {
		case x == nil:
			ch := Change{Kind: ChangeAdded, Step: path}
			ch.LineB, ch.TextB = c.line(1, y.at)
			c.list = append(c.list, ch)
		case y == nil:
			ch := Change{Kind: ChangeRemoved, Step: path}
			ch.LineA, ch.TextA = c.line(0, x.at)
			c.list = append(c.list, ch)
		default:
			c.parts(path, x, y)
		}
	}
}

// union is b with what only a has behind it.
func union(b, a []string) []string {
	all := slices.Clone(b)
	for _, s := range a {
		if !slices.Contains(b, s) {
			all = append(all, s)
		}
	}
	return all
}

// apart are the innermost values in which two differ, the steps in them aside; nil:
// they do not.
func apart(key string, a, b *node) *[2]*node {
	here := &[2]*node{a, b}
	if a.kind != b.kind {
		return here
	}
	switch a.kind {
	case scalar:
		if a.text != b.text || a.tag != b.tag || a.quoted() != b.quoted() && (a.what() != b.what()) {
			return here
		}
	case list:
		if holdsSteps(key, a) && holdsSteps(key, b) {
			return nil
		}
		if len(a.items) != len(b.items) {
			return here
		}
		for i := range a.items {
			if d := apart(below(key, ""), a.items[i], b.items[i]); d != nil {
				return d
			}
		}
	case mapping:
		if len(a.pairs) != len(b.pairs) {
			return here
		}
		for _, kv := range a.pairs {
			other := b.get(kv.name)
			if other == nil {
				return here
			}
			if d := apart(below(key, kv.name), kv.value, other); d != nil {
				return d
			}
		}
	}
	return nil
}

// below is the key that counts for a value under another: what is within people's
// values stays theirs.
func below(key, name string) string {
	if slices.Contains(valueKeys, key) {
		return key
	}
	return name
}
