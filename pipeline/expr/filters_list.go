package expr

import (
	"cmp"
	"maps"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

func filterLength(c *call, in any, _ []any) any {
	switch v := in.(type) {
	case string:
		c.ev.scan(len(v), c.at)
		return int64(utf8.RuneCountInString(v))
	case []any:
		return int64(len(v))
	case map[string]any:
		return int64(len(v))
	}
	c.fail("%s has no length", typeName(in))
	return nil
}

func (c *call) empty(what string) any {
	return &undefined{at: c.at, text: c.what + ": no " + what + " element, the list is empty"}
}

func filterFirst(c *call, in any, _ []any) any {
	if l := asList(in); len(l) > 0 {
		return l[0]
	}
	return c.empty("first")
}

func filterLast(c *call, in any, _ []any) any {
	if l := asList(in); len(l) > 0 {
		return l[len(l)-1]
	}
	return c.empty("last")
}

func filterList(_ *call, in any, _ []any) any { return in }

func filterReverse(c *call, in any, _ []any) any {
	if s, ok := in.(string); ok {
		r := []rune(c.ev.str(s, c.at))
		slices.Reverse(r)
		return string(r)
	}
	l := slices.Clone(c.ev.iterate(in, c.at))
	c.ev.hold(len(l), c.at)
	slices.Reverse(l)
	return l
}

// get returns the attribute that a path such as 'a.b.0' names; it may be *undefined.
func (c *call) get(v, attribute any) any {
	switch a := attribute.(type) {
	case int64:
		return c.ev.index(v, a, c.at, c.at)
	case string:
		for part := range strings.SplitSeq(a, ".") {
			c.ev.visit(1, c.at)
			if u, ok := v.(*undefined); ok {
				u.fail()
			}
			var i any = part
			if part != "" && part[0] >= '0' && part[0] <= '9' {
				if n, err := strconv.ParseInt(part, 10, 64); err == nil {
					i = n
				}
			}
			v = c.ev.index(v, i, c.at, c.at)
		}
	}
	return v
}

// key returns what a list is sorted or compared by.
func (c *call) key(v, attribute any, caseSensitive bool) any {
	v = c.get(v, attribute)
	if u, ok := v.(*undefined); ok {
		u.fail()
	}
	v = c.ev.plain(v, c.at)
	if s, ok := v.(string); ok && !caseSensitive {
		return c.ev.str(strings.ToLower(s), c.at)
	}
	return v
}

func filterJoin(c *call, in any, args []any) any {
	list, sep := asList(in), asText(args[0])
	parts := make([]string, len(list))
	size := 0
	for i, x := range list {
		if args[1] != nil {
			x = c.key(x, args[1], true)
		}
		parts[i] = c.ev.text(x, c.at)
		if size += len(parts[i]) + len(sep); size > maxText+len(sep) {
			break
		}
	}
	c.ev.room(max(0, size-len(sep)), c.at)
	return strings.Join(parts, sep)
}

// keyed is an element with its sort key and its place.
type keyed struct {
	key, v any
	i      int
}

func (c *call) sorted(list []any, reverse bool, key func(v any) any) []keyed {
	out := make([]keyed, len(list))
	c.ev.visit(len(list), c.at)
	for i, x := range list {
		out[i] = keyed{key(x), x, i}
	}
	slices.SortFunc(out, func(a, b keyed) int { // with the places it is stable, and needs fewer comparisons than a stable sort
		o := c.ev.order(a.key, b.key, c.at)
		if reverse {
			o = -o
		}
		return cmp.Or(o, a.i-b.i)
	})
	return out
}

func filterSort(c *call, in any, args []any) any {
	attributes := []any{args[2]}
	if s, ok := args[2].(string); ok {
		attributes = nil
		for a := range strings.SplitSeq(s, ",") {
			attributes = append(attributes, a)
		}
	}
	key := func(v any) any {
		if len(attributes) == 1 {
			return c.key(v, attributes[0], asBool(args[1]))
		}
		keys := make([]any, len(attributes))
		for i, a := range attributes {
			keys[i] = c.key(v, a, asBool(args[1]))
		}
		return keys
	}
	list := asList(in)
	out := c.ev.list(len(list), c.at)
	for i, k := range c.sorted(list, asBool(args[0]), key) {
		out[i] = k.v
	}
	return out
}

func filterUnique(c *call, in any, args []any) any {
	out := []any{}
	seen := map[any]bool{}
	for _, x := range asList(in) {
		h := c.ev.hash(c.key(x, args[1], asBool(args[0])), c.at)
		if !seen[h] {
			c.ev.hold(weightOfList, c.at) // of seen and out
			seen[h] = true
			out = append(out, x)
		}
	}
	return out
}

// extreme is min (-1) or max (1); of equals the first wins.
func extreme(sign int) func(c *call, in any, args []any) any {
	return func(c *call, in any, args []any) any {
		list := asList(in)
		if len(list) == 0 {
			return c.empty("such")
		}
		best := list[0]
		key := c.key(best, args[1], asBool(args[0]))
		for _, x := range list[1:] {
			k := c.key(x, args[1], asBool(args[0]))
			if c.ev.order(k, key, c.at)*sign > 0 {
				best, key = x, k
			}
		}
		return best
	}
}

func filterSum(c *call, in any, args []any) any {
	total := args[1]
	if isText(total) {
		c.fail("it adds numbers or lists; join texts with join")
	}
	for _, x := range asList(in) {
		total = c.ev.arith("+", total, c.key(x, args[0], true), c.at)
	}
	return total
}

func filterBatch(c *call, in any, args []any) any {
	size := asInt(args[0])
	if size < 1 {
		c.fail("'linecount' must be at least 1")
	}
	out := []any{}
	list := asList(in)
	for len(list) > 0 {
		n := min(size, int64(len(list)))
		c.ev.hold(int(n)+weightOfList, c.at)
		row := slices.Clone(list[:n])
		list = list[n:]
		if args[1] != nil && n < size {
			c.ev.hold(int(min(size-n, maxElements+1)), c.at)
			for range size - n {
				row = append(row, args[1])
			}
		}
		out = append(out, row)
	}
	return out
}

func filterSlice(c *call, in any, args []any) any {
	list, n := asList(in), asInt(args[0])
	if n < 1 {
		c.fail("'slices' must be at least 1")
	}
	c.ev.hold(int(min(n, maxElements+1))*weightOfList, c.at)
	out := c.ev.list(int(n), c.at)
	c.ev.hold(2*len(list), c.at) // the fill may double a row of one
	per, more, from := len(list)/len(out), len(list)%len(out), 0
	for i := range out {
		to := from + per
		if i < more {
			to++
		}
		row := slices.Clone(list[from:to])
		if row == nil {
			row = []any{}
		}
		if args[1] != nil && i >= more {
			row = append(row, args[1])
		}
		out[i], from = row, to
	}
	return out
}

// group is an element of groupby: a pair, whose parts have names.
type group struct {
	key  any
	list []any
}

// Attr implements Object.
func (g *group) Attr(name string) (any, bool) {
	switch name {
	case "grouper":
		return g.key, true
	case "list":
		return g.list, true
	}
	return nil, false
}

// Value implements Object.
func (g *group) Value() any { return []any{g.key, g.list} }

// Names lists the attributes for messages.
func (g *group) Names() []string { return []string{"grouper", "list"} }

func filterGroupBy(c *call, in any, args []any) any {
	value := func(v any) any {
		v = c.get(v, args[0])
		if u, ok := v.(*undefined); ok {
			if args[1] == nil {
				u.fail()
			}
			v = args[1]
		}
		return c.ev.plain(v, c.at)
	}
	out := []any{}
	var last *group
	var lastKey any
	for _, k := range c.sorted(asList(in), false, func(v any) any { return c.key(value(v), nil, asBool(args[2])) }) {
		c.ev.hold(1, c.at)
		if last == nil || !c.ev.equal(lastKey, k.key, c.at) {
			c.ev.hold(weightOfMap, c.at)
			last, lastKey = &group{key: value(k.v)}, k.key
			out = append(out, last)
		}
		last.list = append(last.list, k.v)
	}
	return out
}

// pairs returns [key, value] lists in key order.
func (c *call) pairs(in any) []any {
	m, _ := in.(map[string]any)
	c.ev.hold(len(m)*weightOfMap, c.at)
	out := c.ev.list(len(m), c.at)
	for i, k := range slices.Sorted(maps.Keys(m)) {
		out[i] = []any{k, m[k]}
	}
	return out
}

func filterDictSort(c *call, in any, args []any) any {
	at := int64(0)
	switch asText(args[1]) {
	case "key":
	case "value":
		at = 1
	default:
		c.fail("'by' must be 'key' or 'value'")
	}
	pairs := c.pairs(in)
	out := c.ev.list(len(pairs), c.at)
	for i, k := range c.sorted(pairs, asBool(args[2]), func(v any) any { return c.key(v, at, asBool(args[0])) }) {
		out[i] = k.v
	}
	return out
}

func filterAttr(c *call, in any, args []any) any {
	return c.ev.index(in, asText(args[0]), c.at, c.at)
}

// extras returns the extra arguments of a call as values for an inner call.
func (c *call) extras(s signature, what string, pos []any) (*call, []any) {
	inner := &call{ev: c.ev, at: c.at, what: c.what + ": " + what}
	args := make([]any, len(s.params))
	given := make([]bool, len(args))
	for i, v := range pos {
		switch {
		case i < len(args):
			args[i], given[i] = inner.convert(s.params[i], v, c.at), true
		case s.rest:
			inner.pos = append(inner.pos, v)
		default:
			inner.fail("it takes %s", s.arity())
		}
	}
	for i, name := range c.names {
		j := slices.IndexFunc(s.params, func(q param) bool { return q.name == name })
		switch {
		case j >= 0:
			args[j], given[j] = inner.convert(s.params[j], c.named[i], c.at), true
		case s.named:
			inner.names, inner.named = append(inner.names, name), append(inner.named, c.named[i])
		default:
			inner.fail("it has no parameter '%s'", name)
		}
	}
	for i, q := range s.params {
		if given[i] {
			continue
		}
		if q.need {
			inner.fail("it misses its argument '%s'", q.name)
		}
		args[i] = q.def
	}
	return inner, args
}

func filterMap(c *call, in any, _ []any) any {
	out := asList(in)
	if len(c.pos) == 0 {
		return c.mapAttribute(out)
	}
	name, ok := c.pos[0].(string)
	f := c.ev.filters[name]
	if !ok || f == nil {
		c.fail("no filter named '%s'", c.ev.text(c.pos[0], c.at))
	}
	if f.raw {
		c.fail("give a default as map(attribute='a', default='x')")
	}
	inner, args := c.extras(f.sig, f.name, c.pos[1:])
	c.ev.hold(len(out), c.at)
	out = slices.Clone(out)
	for i, x := range out {
		v := f.fn(inner, inner.input(f, x), args)
		if u, ok := v.(*undefined); ok {
			u.fail()
		}
		out[i] = v
	}
	return out
}

func (c *call) mapAttribute(list []any) any {
	var attribute, def any
	hasDefault := false
	for i, name := range c.names {
		switch name {
		case "attribute":
			attribute = c.convert(need("attribute", attrKind), c.named[i], c.at)
		case "default":
			def, hasDefault = c.named[i], true
		default:
			c.fail("it has no parameter '%s'", name)
		}
	}
	if attribute == nil {
		c.fail("it needs a filter's name or an attribute")
	}
	out := c.ev.list(len(list), c.at)
	for i, x := range list {
		v := c.get(x, attribute)
		if u, ok := v.(*undefined); ok {
			if !hasDefault {
				u.fail()
			}
			v = def
		}
		out[i] = v
	}
	return out
}

// pick is select, reject, selectattr and rejectattr.
func pick(attr, keep bool) func(c *call, in any, args []any) any {
	return func(c *call, in any, args []any) any {
		check := func(v any) bool {
			if u, ok := v.(*undefined); ok {
				u.fail()
			}
			return Truthy(v)
		}
		if len(c.pos) > 0 {
			name, ok := c.pos[0].(string)
			t := c.ev.tests[name]
			if !ok || t == nil {
				c.fail("no test named '%s'", c.ev.text(c.pos[0], c.at))
			}
			inner, more := c.extras(t.sig, t.name, c.pos[1:])
			check = func(v any) bool {
				u, missing := v.(*undefined)
				switch {
				case t.raw:
					return (t.name == "undefined") == missing
				case missing:
					u.fail()
				}
				return t.fn(inner, c.ev.plain(v, c.at), more)
			}
		}
		out := []any{}
		for _, x := range asList(in) {
			v := x
			if attr {
				v = c.get(x, args[0])
			}
			if check(v) == keep {
				c.ev.hold(1, c.at)
				out = append(out, x)
			}
		}
		return out
	}
}
