package expr

func (n *constNode) eval(ev *evaluator) any {
	ev.tick(n.Span)
	return n.v
}

func (n *nameNode) eval(ev *evaluator) any {
	ev.tick(n.Span)
	for _, s := range n.slots {
		if v := ev.locals[s]; v != unset {
			return v
		}
	}
	if ev.env.Scope != nil {
		if v, ok := ev.env.Scope.Lookup(n.name); ok {
			return v
		}
	}
	return &undefined{at: n.Span, name: n.name, root: true, ev: ev}
}

func (n *attrNode) eval(ev *evaluator) any {
	ev.tick(n.nsp)
	x := ev.defined(n.x)
	if v, ok := member(x, n.name); ok {
		return v
	}
	return &undefined{at: n.nsp, base: x, name: n.name, ev: ev}
}

// member returns the attribute of an Object or the value of a map's key.
func member(x any, name string) (any, bool) {
	switch x := x.(type) {
	case map[string]any:
		v, ok := x[name]
		return v, ok
	case nullState:
		return NullState, true
	case Object:
		return x.Attr(name)
	}
	return nil, false
}

func (n *indexNode) eval(ev *evaluator) any {
	ev.tick(n.Span)
	x := ev.defined(n.x)
	return ev.index(x, ev.val(n.i), n.Span, n.i.at())
}

// index returns x[i], or *undefined. A map is asked by the text of a number.
func (ev *evaluator) index(x, i any, whole, at Span) any {
	if x == NullState {
		return NullState
	}
	if name, ok := i.(string); ok {
		ev.scan(len(name), at)
		v, ok := member(x, name)
		if !ok {
			return &undefined{at: at, base: x, name: name, ev: ev}
		}
		return v
	}
	k, ok := i.(int64)
	if !ok {
		fail(at, "an index is a whole number or a text, not %s", typeName(i))
	}
	switch x := ev.plain(x, whole).(type) {
	case []any:
		j := k
		if j < 0 {
			j += int64(len(x))
		}
		if j < 0 || j >= int64(len(x)) {
			return &undefined{at: at, text: "no element " + Text(k) + " in a list of " + Text(int64(len(x)))}
		}
		return x[j]
	case string:
		r := ev.runes(x, at)
		j := k
		if j < 0 {
			j += int64(r.len())
		}
		if j < 0 || j >= int64(r.len()) {
			return &undefined{at: at, text: "no character " + Text(k) + " in a text of " + Text(int64(r.len()))}
		}
		return r.slice(int(j), int(j)+1)
	case map[string]any:
		v, ok := x[Text(k)]
		if !ok {
			return &undefined{at: at, base: x, name: Text(k), ev: ev}
		}
		return v
	default:
		return &undefined{at: at, text: "no element " + Text(k) + " on " + typeName(x)}
	}
}

func (n *sliceNode) eval(ev *evaluator) any {
	ev.tick(n.Span)
	x := ev.val(n.x)
	bound := func(b node) (int64, bool) {
		if b == nil {
			return 0, false
		}
		switch v := ev.val(b).(type) {
		case nil:
			return 0, false
		case int64:
			return v, true
		default:
			fail(b.at(), "a slice needs whole numbers, not %s", typeName(v))
			return 0, false
		}
	}
	step, ok := bound(n.step)
	if !ok {
		step = 1
	} else if step == 0 {
		fail(n.step.at(), "the step of a slice cannot be 0")
	}
	cut := func(length int) (from, to int64) {
		size := int64(length)
		low, high := int64(0), size
		from, to = 0, size
		if step < 0 {
			low, high = -1, size-1
			from, to = size-1, -1
		}
		clamp := func(v int64) int64 {
			if v < 0 {
				v += size
			}
			return max(low, min(v, high))
		}
		if v, ok := bound(n.lo); ok {
			from = clamp(v)
		}
		if v, ok := bound(n.hi); ok {
			to = clamp(v)
		}
		return from, to
	}
	each := func(length int, f func(i int)) {
		from, to := cut(length)
		for i := from; step > 0 && i < to || step < 0 && i > to; i += step {
			ev.visit(1, n.Span)
			f(int(i))
			if step > 0 && to-i <= step || step < 0 && i-to <= -step {
				break
			}
		}
	}
	switch x := x.(type) {
	case []any:
		ev.built = true
		out := []any{}
		each(len(x), func(i int) {
			ev.hold(1, n.Span)
			out = append(out, x[i])
		})
		return out
	case string:
		r := ev.runes(x, n.Span)
		if step == 1 {
			from, to := cut(r.len())
			return r.slice(int(from), int(max(from, to)))
		}
		var out []byte
		each(r.len(), func(i int) { out = append(out, r.slice(i, i+1)...) })
		return ev.str(string(out), n.Span)
	default:
		fail(n.Span, "%s cannot be sliced", typeName(x))
		return nil
	}
}

func (n *listNode) eval(ev *evaluator) any {
	ev.tick(n.Span)
	ev.hold(weightOfList, n.Span)
	out := ev.list(len(n.items), n.Span)
	for i, x := range n.items {
		out[i] = ev.defined(x)
	}
	return out
}

func (n *mapNode) eval(ev *evaluator) any {
	ev.charge(len(n.keys)+1, n.Span)
	ev.hold(weightOfMap+len(n.keys)*weightOfList, n.Span)
	out := make(map[string]any, len(n.keys))
	for i, k := range n.keys {
		switch key := ev.val(k).(type) {
		case string:
			ev.scan(len(key), k.at())
			out[key] = ev.defined(n.values[i])
		case int64:
			out[Text(key)] = ev.defined(n.values[i])
		default:
			fail(k.at(), "the key of a map is a text, not %s", typeName(key))
		}
	}
	return out
}

func (n *negNode) eval(ev *evaluator) any {
	ev.tick(n.Span)
	v := ev.val(n.x)
	switch x := number(v).(type) {
	case int64:
		if n.plus {
			return x
		}
		return ev.arith("-", int64(0), x, n.Span)
	case float64:
		if n.plus {
			return x
		}
		return -x
	}
	fail(n.Span, "a sign needs a number, not %s", typeName(v))
	return nil
}

func (n *notNode) eval(ev *evaluator) any {
	ev.tick(n.Span)
	return !Truthy(ev.val(n.x))
}

func (n *andNode) eval(ev *evaluator) any {
	ev.tick(n.Span)
	v := ev.defined(n.a)
	if !Truthy(v) {
		return v
	}
	return n.b.eval(ev)
}

func (n *orNode) eval(ev *evaluator) any {
	ev.tick(n.Span)
	v := ev.defined(n.a)
	if Truthy(v) {
		return v
	}
	return n.b.eval(ev)
}

func (n *binNode) eval(ev *evaluator) any {
	ev.tick(n.Span)
	a := ev.val(n.a)
	return ev.arith(n.op, a, ev.val(n.b), n.Span)
}

func (n *concatNode) eval(ev *evaluator) any {
	ev.tick(n.Span)
	size := 0
	parts := make([]string, len(n.items))
	for i, x := range n.items {
		parts[i] = ev.text(ev.defined(x), x.at())
		size += len(parts[i])
	}
	ev.room(size, n.Span)
	out := make([]byte, 0, size)
	for _, s := range parts {
		out = append(out, s...)
	}
	return string(out)
}

func (n *compareNode) eval(ev *evaluator) any {
	ev.tick(n.Span)
	a := ev.val(n.first)
	for _, r := range n.rest {
		b := ev.val(r.x)
		if !ev.compare(r.op, a, b, Span{n.first.at().Off, r.x.at().End}) {
			return false
		}
		a = b
	}
	return true
}

func (n *condNode) eval(ev *evaluator) any {
	ev.tick(n.Span)
	switch {
	case Truthy(ev.val(n.cond)):
		return n.then.eval(ev)
	case n.els != nil:
		return n.els.eval(ev)
	}
	return nil
}

// call is one call of a filter, test, method or function.
type call struct {
	ev    *evaluator
	at    Span   // of the call
	what  string // "filter round", for messages
	pos   []any  // beyond the parameters
	names []string
	named []any
}

func (c *call) fail(format string, args ...any) { fail(c.at, c.what+": "+format, args...) }

// args evaluates the arguments and checks their types.
func (c *call) args(s signature, nodes []node, rest extra) []any {
	ev := c.ev
	c.ev.tick(c.at)
	var out []any
	if len(nodes) > 0 {
		out = make([]any, len(nodes))
	}
	for i, q := range s.params {
		if nodes[i] == nil {
			out[i] = q.def
			continue
		}
		out[i] = c.convert(q, ev.val(nodes[i]), nodes[i].at())
	}
	for _, x := range rest.pos {
		c.pos = append(c.pos, ev.val(x))
	}
	c.names = rest.names
	for _, x := range rest.named {
		c.named = append(c.named, ev.val(x))
	}
	return out
}

func (c *call) convert(q param, v any, at Span) any {
	if v == nil && !q.need {
		return q.def
	}
	switch q.kind {
	case anyKind:
		return v
	case textKind:
		switch v := v.(type) {
		case string:
			c.ev.scan(len(v), at)
			return v
		case int64, float64, bool:
			return Text(v)
		}
	case intKind:
		switch number(v).(type) {
		case int64:
			return number(v)
		}
	case numKind:
		if n := number(v); n != nil {
			return n
		}
	case boolKind:
		switch v := v.(type) {
		case bool:
			return v
		case int64:
			return v != 0
		}
	case attrKind:
		switch v.(type) {
		case string, int64:
			return v
		}
	}
	fail(at, "%s: '%s' must be %s, not %s", c.what, q.name, kindNames[q.kind], typeName(v))
	return nil
}

func (n *filterNode) eval(ev *evaluator) any {
	c := &call{ev: ev, at: n.Span, what: "filter " + n.f.name}
	if n.f.raw {
		return n.orDefault(c)
	}
	in := c.input(n.f, ev.defined(n.x))
	args := c.args(n.f.sig, n.args, n.rest)
	ev.built = true
	return n.f.fn(c, in, args)
}

// orDefault is the filter default: it takes an undefined value, and passes an
// undefined argument on, so that defaults can be chained.
func (n *filterNode) orDefault(c *call) any {
	ev := c.ev
	ev.tick(c.at)
	v := n.x.eval(ev)
	if _, ok := v.(*undefined); !ok {
		loose, ok := false, false
		if n.args[1] != nil {
			loose, ok = c.convert(n.f.sig.params[1], ev.val(n.args[1]), n.args[1].at()).(bool)
		}
		if !ok || !loose || Truthy(v) {
			return v
		}
	}
	if n.args[0] == nil {
		return ""
	}
	return n.args[0].eval(ev)
}

func (n *testNode) eval(ev *evaluator) any {
	c := &call{ev: ev, at: n.Span, what: "test " + n.t.name}
	if n.t.raw {
		ev.tick(n.Span)
		_, missing := n.x.eval(ev).(*undefined)
		return (n.t.name == "undefined") == missing != n.negate
	}
	v := ev.val(n.x)
	return n.t.fn(c, v, c.args(n.t.sig, n.args, extra{})) != n.negate
}

func (n *methodNode) eval(ev *evaluator) any {
	c := &call{ev: ev, at: n.Span, what: n.m.name + "()"}
	x := ev.defined(n.x)
	if _, ok := x.(*loopState); !ok {
		x = ev.plain(x, n.x.at())
	}
	args := c.args(n.m.sig, n.args, n.rest)
	ev.built = true
	return n.m.fn(c, x, args)
}

func (n *funcNode) eval(ev *evaluator) any {
	c := &call{ev: ev, at: n.Span, what: n.f.name + "()"}
	args := c.args(n.f.sig, n.args, n.rest)
	ev.built = true
	return n.f.fn(c, args)
}
