package expr

import (
	"fmt"
	"slices"
	"strings"
)

// maxDepth bounds how deep expressions and statements nest in a source.
const maxDepth = 200

// Further bounds that keep compiling linear in the source.
const (
	maxFaults  = 50  // reported for one template
	maxTargets = 100 // names bound by one for or set
	maxProofs  = 64  // conditions around a place that may prove a path
)

// parser turns tokens into a program. It stops at the first syntax fault, by a
// panic with *Error that compile recovers; unknown names and wrong arguments of
// filters, tests, methods and functions are collected.
type parser struct {
	src    string
	tokens []token
	pos    int
	depth  int
	scopes []map[string]int // names bound by for and set, innermost last
	slots  int
	faults Errors

	joined map[string]bool // dash chains to read as one name, by Dash.key
	dashes []Dash
}

// binding powers, weakest first, as in Jinja2; not, unary and postfix operators
// have their own functions.
const (
	powOr = iota + 1
	powAnd
	powNot
	powCompare
	powAdd
	powConcat
	powMul
	powPower
)

func power(t token) int {
	switch {
	case t.kind == tokName:
		switch t.text {
		case "or":
			return powOr
		case "and":
			return powAnd
		case "in", "not":
			return powCompare
		}
	case t.kind == tokOp:
		switch t.text {
		case "==", "!=", "<", ">", "<=", ">=":
			return powCompare
		case "+", "-":
			return powAdd
		case "~":
			return powConcat
		case "*", "/", "//", "%":
			return powMul
		case "**":
			return powPower
		}
	}
	return 0
}

func (p *parser) peek() token { return p.tokens[p.pos] }

func (p *parser) next() token {
	t := p.tokens[p.pos]
	if t.kind != tokEOF && t.kind != tokBad {
		p.pos++
	}
	return t
}

func (p *parser) is(op string) bool {
	t := p.peek()
	return t.kind == tokOp && t.text == op
}

func (p *parser) word(name string) bool {
	t := p.peek()
	return t.kind == tokName && t.text == name
}

func (p *parser) skip(op string) bool {
	if p.is(op) {
		p.pos++
		return true
	}
	return false
}

func (p *parser) expect(op, after string) {
	if !p.is(op) {
		p.unexpected("expected '" + op + "' " + after)
	}
	p.next()
}

func (p *parser) fail(at Span, hint, format string, args ...any) {
	panic(&Error{Code: "E0205", Text: fmt.Sprintf(format, args...), Hint: hint, Off: at.Off, End: at.End})
}

func (p *parser) fault(code string, at Span, hint, format string, args ...any) {
	p.faults = append(p.faults, &Error{Code: code, Text: fmt.Sprintf(format, args...), Hint: hint, Off: at.Off, End: at.End})
	if len(p.faults) == maxFaults {
		panic(p.faults)
	}
}

// unexpected fails at the current token.
func (p *parser) unexpected(want string) {
	t := p.peek()
	if t.kind == tokBad {
		p.fail(t.Span, t.hint, "%s", t.text)
	}
	hint := ""
	if t.kind == tokOp && t.text == "=" {
		hint = "a comparison is written =="
	}
	p.fail(t.Span, hint, "%s, found %s", want, describe(t))
}

func describe(t token) string {
	switch t.kind {
	case tokEOF:
		return "the end"
	case tokClose, tokEnd:
		return "the end of the tag"
	case tokString:
		return "a text"
	case tokInt, tokFloat:
		return "the number " + t.text
	case tokText, tokOpen, tokBlock:
		return "text"
	}
	return "'" + t.text + "'"
}

func (p *parser) enter() {
	if p.depth++; p.depth > maxDepth {
		p.fail(p.peek().Span, "", "nested too deeply (more than %d levels)", maxDepth)
	}
}

// tuple parses an expression, or several with commas between, which are a list.
func (p *parser) tuple(cond bool) node {
	first := p.expression(cond)
	if !p.is(",") {
		return first
	}
	list := &listNode{Span: first.at(), items: []node{first}}
	for p.skip(",") {
		if t := p.peek(); t.kind == tokClose || t.kind == tokEnd || t.kind == tokEOF || p.is(")") {
			break
		}
		x := p.expression(cond)
		list.items = append(list.items, x)
		list.End = x.at().End
	}
	return list
}

// expression parses one expression; cond allows a top-level x if c else y.
func (p *parser) expression(cond bool) node {
	p.enter()
	depth := p.depth
	x := p.binary(powOr)
	for cond && p.word("if") {
		p.enter()
		p.next()
		c := &condNode{then: x, cond: p.binary(powOr)}
		c.Span = Span{x.at().Off, c.cond.at().End}
		if p.word("else") {
			p.next()
			c.els = p.expression(true)
			c.End = c.els.at().End
		}
		x = c
	}
	p.depth = depth - 1
	return x
}

func (p *parser) binary(least int) node {
	p.enter()
	depth := p.depth
	var x node
	if p.word("not") && least <= powNot {
		t := p.next()
		y := p.binary(powNot)
		x = &notNode{Span: Span{t.Off, y.at().End}, x: y}
	} else {
		x = p.unary(true)
	}
	for {
		t := p.peek()
		pow := power(t)
		if pow == 0 || pow < least {
			break
		}
		if t.text == "not" && (p.tokens[p.pos+1].kind != tokName || p.tokens[p.pos+1].text != "in") {
			break
		}
		p.enter()
		x = p.infix(x, pow)
	}
	p.depth = depth - 1
	return x
}

// infix parses what follows x from the operator on.
func (p *parser) infix(x node, pow int) node {
	if pow == powCompare {
		c := &compareNode{Span: x.at(), first: x}
		for power(p.peek()) == powCompare {
			t := p.next()
			r := comparison{Span: t.Span, op: t.text}
			if t.text == "not" {
				if !p.word("in") {
					p.unexpected("expected 'in'")
				}
				r.op, r.End = "not in", p.next().End
			}
			r.x = p.binary(powAdd)
			c.End = r.x.at().End
			c.rest = append(c.rest, r)
		}
		return c
	}
	op := p.next().text
	if pow == powConcat {
		y := p.binary(powMul)
		c, ok := x.(*concatNode)
		if !ok {
			c = &concatNode{Span: x.at(), items: []node{x}}
		}
		c.items, c.End = append(c.items, y), y.at().End
		return c
	}
	y := p.binary(pow + 1)
	at := Span{x.at().Off, y.at().End}
	switch op {
	case "or":
		return &orNode{Span: at, a: x, b: y}
	case "and":
		return &andNode{Span: at, a: x, b: y}
	}
	return &binNode{Span: at, op: op, a: x, b: y}
}

// unary parses signs, a primary, what is attached to it, and its filters.
func (p *parser) unary(filters bool) node {
	p.enter()
	depth := p.depth
	var x node
	if p.is("-") || p.is("+") {
		t := p.next()
		y := p.unary(false)
		n := &negNode{Span: Span{t.Off, y.at().End}, x: y, plus: t.text == "+"}
		x = n
		if c, ok := y.(*constNode); ok && !n.plus { // so that items[-1] is a constant path
			if v, ok := c.v.(int64); ok {
				x = &constNode{Span: n.Span, v: -v}
			}
		}
	} else {
		x = p.primary()
	}
	x = p.postfix(x)
	for filters {
		switch {
		case p.is("|"):
			p.enter()
			p.next()
			x = p.filter(x)
		case p.word("is"):
			p.enter()
			p.next()
			x = p.test(x)
		default:
			filters = false
		}
	}
	p.depth = depth - 1
	return x
}

func (p *parser) primary() node {
	t := p.peek()
	switch t.kind {
	case tokName:
		return p.name()
	case tokString:
		p.next()
		if p.peek().kind != tokString {
			return &constNode{Span: t.Span, v: t.text}
		}
		at := t.Span
		var b strings.Builder
		b.WriteString(t.text)
		for p.peek().kind == tokString {
			u := p.next()
			b.WriteString(u.text)
			at.End = u.End
		}
		return &constNode{Span: at, v: b.String()}
	case tokInt, tokFloat:
		p.next()
		return &constNode{Span: t.Span, v: t.num}
	case tokOp:
		switch t.text {
		case "(":
			return p.paren()
		case "[":
			return p.list()
		case "{":
			return p.mapping()
		}
	}
	p.unexpected("expected an expression")
	return nil
}

func (p *parser) paren() node {
	open := p.next()
	if p.is(")") {
		return &listNode{Span: Span{open.Off, p.next().End}}
	}
	x := p.tuple(true)
	p.expect(")", "to close the parenthesis")
	return x
}

func (p *parser) list() node {
	n := &listNode{Span: p.next().Span}
	for !p.is("]") {
		n.items = append(n.items, p.expression(true))
		if !p.skip(",") && !p.is("]") {
			p.unexpected("expected ',' or ']' in a list")
		}
	}
	n.End = p.next().End
	return n
}

func (p *parser) mapping() node {
	n := &mapNode{Span: p.next().Span}
	for !p.is("}") {
		n.keys = append(n.keys, p.expression(true))
		p.expect(":", "after a key of a map")
		n.values = append(n.values, p.expression(true))
		if !p.skip(",") && !p.is("}") {
			p.unexpected("expected ',' or '}' in a map")
		}
	}
	n.End = p.next().End
	return n
}

var keywords = map[string]bool{"and": true, "or": true, "not": true, "if": true, "else": true, "elif": true, "is": true, "in": true}

func (p *parser) name() node {
	t := p.peek()
	if n := p.dashed(nil); n.text != "" {
		return &nameNode{Span: n.Span, name: n.text}
	}
	switch t.text {
	case "true", "True":
		p.next()
		return &constNode{Span: t.Span, v: true}
	case "false", "False":
		p.next()
		return &constNode{Span: t.Span, v: false}
	case "none", "None", "null":
		p.next()
		return &constNode{Span: t.Span}
	}
	if keywords[t.text] {
		p.unexpected("expected an expression")
	}
	p.next()
	if p.is("(") {
		return p.function(t)
	}
	return &nameNode{Span: t.Span, name: t.text, slots: p.visible(t.text)}
}

// visible returns the slots a name may mean here, innermost first.
func (p *parser) visible(name string) []int {
	var out []int
	for _, s := range slices.Backward(p.scopes) {
		if slot, ok := s[name]; ok {
			out = append(out, slot)
		}
	}
	return out
}

func (p *parser) bind(name string) int {
	s := p.scopes[len(p.scopes)-1]
	slot, ok := s[name]
	if !ok {
		slot = p.slots
		p.slots++
		if s == nil { // the outermost scope, of which most templates need none
			s = map[string]int{}
			p.scopes[0] = s
		}
		s[name] = slot
	}
	return slot
}

// dashed looks at a chain NAME-NAME... at the current token. It records the
// chain, and consumes and returns it where it is to be read as one name. base is
// the constant path before it.
func (p *parser) dashed(base []string) token {
	i := p.pos
	first := p.tokens[i]
	if base == nil && len(p.visible(first.text)) > 0 {
		return token{}
	}
	for i+2 < len(p.tokens) {
		d, n := p.tokens[i+1], p.tokens[i+2]
		if d.kind != tokOp || d.text != "-" || d.Off != p.tokens[i].End || n.Off != d.End {
			break
		}
		if n.kind != tokInt && (n.kind != tokName || len(p.visible(n.text)) > 0) {
			break
		}
		if f := p.tokens[i+3]; f.kind == tokOp && f.text == "(" {
			break
		}
		i += 2
	}
	if i == p.pos {
		return token{}
	}
	at := Span{first.Off, p.tokens[i].End}
	d := Dash{Name: p.src[at.Off:at.End], Base: base, Off: at.Off, End: at.End}
	p.dashes = append(p.dashes, d)
	if !p.joined[d.key()] {
		return token{}
	}
	p.pos = i + 1
	return token{kind: tokName, Span: at, text: d.Name}
}

func (d Dash) key() string { return strings.Join(append(slices.Clone(d.Base), d.Name), ".") }

// constPath returns the names of a path such as a.b['c'], or nil.
func constPath(x node) []string {
	switch x := x.(type) {
	case *nameNode:
		if len(x.slots) == 0 {
			return []string{x.name}
		}
	case *attrNode:
		if p := constPath(x.x); p != nil {
			return append(p, x.name)
		}
	case *indexNode:
		c, ok := x.i.(*constNode)
		if !ok {
			return nil
		}
		if s, ok := c.v.(string); ok {
			if p := constPath(x.x); p != nil {
				return append(p, s)
			}
		}
	}
	return nil
}

func (p *parser) postfix(x node) node {
	depth := p.depth
	for {
		switch {
		case p.is("."):
			p.enter()
			p.next()
			x = p.attribute(x)
		case p.is("["):
			p.enter()
			p.next()
			x = p.subscript(x)
		case p.is("("):
			p.fail(p.peek().Span, "", "only functions and methods can be called")
		default:
			p.depth = depth
			return x
		}
	}
}

func (p *parser) attribute(x node) node {
	t := p.peek()
	switch t.kind {
	case tokInt:
		p.next()
		return &indexNode{Span: Span{x.at().Off, t.End}, x: x, i: &constNode{Span: t.Span, v: t.num}}
	case tokName:
		if d := p.tokens[p.pos+1]; d.kind == tokOp && d.text == "-" && d.Off == t.End {
			if base := constPath(x); base != nil {
				if n := p.dashed(base); n.text != "" {
					return &attrNode{Span: Span{x.at().Off, n.End}, x: x, name: n.text, nsp: n.Span}
				}
			}
		}
		p.next()
		if p.is("(") {
			return p.method(x, t)
		}
		return &attrNode{Span: Span{x.at().Off, t.End}, x: x, name: t.text, nsp: t.Span}
	}
	p.unexpected("expected a name after '.'")
	return nil
}

func (p *parser) subscript(x node) node {
	var part [3]node
	colons := 0
	for !p.is("]") {
		if p.is(":") {
			if colons++; colons > 2 {
				p.unexpected("expected ']'")
			}
			p.next()
			continue
		}
		if part[colons] != nil {
			p.unexpected("expected ']'")
		}
		part[colons] = p.expression(true)
	}
	t := p.next()
	at := Span{x.at().Off, t.End}
	if colons > 0 {
		return &sliceNode{Span: at, x: x, lo: part[0], hi: part[1], step: part[2]}
	}
	if part[0] == nil {
		p.fail(Span{t.Off - 1, t.End}, "", "expected an index")
	}
	return &indexNode{Span: at, x: x, i: part[0]}
}
