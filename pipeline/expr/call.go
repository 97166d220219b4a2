package expr

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// kind is the type of a parameter.
type kind uint8

const (
	anyKind  kind = iota
	textKind      // a text; numbers and booleans are taken as their text
	intKind       // a whole number
	numKind       // a number
	boolKind      // a boolean
	attrKind      // an attribute path: a text such as 'a.b.0', or an index
)

var kindNames = [...]string{"a value", "a text", "a whole number", "a number", "true or false", "an attribute name"}

// param is a declared parameter. Without need, a missing or null argument is def.
type param struct {
	name string
	kind kind
	need bool
	def  any
}

// signature is a list of parameters; rest takes further positional arguments,
// named further named ones.
type signature struct {
	params      []param
	rest, named bool
}

func need(name string, k kind) param         { return param{name: name, kind: k, need: true} }
func opt(name string, k kind, def any) param { return param{name: name, kind: k, def: def} }
func sig(params ...param) signature          { return signature{params: params} }

type arg struct {
	name string // empty for a positional argument
	nsp  Span
	x    node
}

// arguments parses (...) and returns the arguments and the end of the call.
func (p *parser) arguments() ([]arg, int) {
	p.expect("(", "")
	var out []arg
	for !p.is(")") {
		if p.is("*") || p.is("**") {
			p.fail(p.peek().Span, "write the arguments one by one", "arguments cannot be unpacked")
		}
		var a arg
		if t := p.peek(); t.kind == tokName && p.tokens[p.pos+1].kind == tokOp && p.tokens[p.pos+1].text == "=" {
			a.name, a.nsp = t.text, t.Span
			p.pos += 2
		} else if n := len(out); n > 0 && out[n-1].name != "" {
			p.unexpected("expected a named argument, as the one before")
		}
		a.x = p.expression(true)
		out = append(out, a)
		if !p.skip(",") && !p.is(")") {
			p.unexpected("expected ',' or ')' in the arguments")
		}
	}
	return out, p.next().End
}

// assign matches arguments to the parameters of what; faults are collected.
func (p *parser) assign(what string, at Span, s signature, args []arg) ([]node, extra) {
	out := make([]node, len(s.params))
	var rest extra
	for i, a := range args {
		switch {
		case a.name == "" && i < len(out):
			out[i] = a.x
		case a.name == "" && s.rest:
			rest.pos = append(rest.pos, a.x)
		case a.name == "":
			p.fault("E0207", a.x.at(), s.hint(), "%s takes %s, not %d", what, s.arity(), len(args))
			return out, rest
		default:
			j := slices.IndexFunc(s.params, func(q param) bool { return q.name == a.name })
			switch {
			case j < 0 && s.named:
				rest.names, rest.named = append(rest.names, a.name), append(rest.named, a.x)
			case j < 0:
				names := make([]string, len(s.params))
				for k, q := range s.params {
					names[k] = q.name
				}
				p.fault("E0207", a.nsp, didYouMean(a.name, names), "%s has no parameter '%s'", what, a.name)
				return out, rest
			case out[j] != nil:
				p.fault("E0207", a.nsp, "", "%s gets '%s' twice", what, a.name)
				return out, rest
			default:
				out[j] = a.x
			}
		}
	}
	for i, q := range s.params {
		if q.need && out[i] == nil {
			p.fault("E0207", at, s.hint(), "%s misses its argument '%s'", what, q.name)
			break
		}
	}
	return out, rest
}

func (s signature) arity() string {
	least := 0
	for _, q := range s.params {
		if q.need {
			least++
		}
	}
	plural := func(n int) string {
		if n == 1 {
			return "1 argument"
		}
		return fmt.Sprintf("%d arguments", n)
	}
	switch most := len(s.params); {
	case most == 0:
		return "no arguments"
	case s.rest:
		return "at least " + plural(least)
	case least == most:
		return plural(most)
	default:
		return fmt.Sprintf("%d to %s", least, plural(most))
	}
}

// hint shows the parameters.
func (s signature) hint() string {
	if len(s.params) == 0 {
		return ""
	}
	names := make([]string, len(s.params))
	for i, q := range s.params {
		names[i] = q.name
		if !q.need {
			names[i] += "?"
		}
	}
	return "its arguments: " + strings.Join(names, ", ")
}

// filter parses a filter's name and arguments, after the |.
func (p *parser) filter(x node) node {
	t := p.peek()
	if t.kind != tokName {
		p.unexpected("expected the name of a filter")
	}
	p.next()
	n := &filterNode{Span: t.Span, x: x}
	var args []arg
	if p.is("(") {
		args, n.End = p.arguments()
	}
	f := filters[t.text]
	if f == nil {
		p.unknown("filter", t, filterAdvice[t.text], Filters())
		return n
	}
	n.f = f
	n.args, n.rest = p.assign("filter "+t.text, t.Span, f.sig, args)
	p.inner(f.inner, t.text, n)
	return n
}

// inner checks the filter or test that map, select and their like name, so far
// as the name is a constant.
func (p *parser) inner(kind byte, name string, n *filterNode) {
	if kind == 0 || len(n.rest.pos) == 0 {
		return
	}
	c, ok := n.rest.pos[0].(*constNode)
	if !ok {
		return
	}
	s, ok := c.v.(string)
	if !ok {
		p.fault("E0207", c.Span, "", "%s needs a name in quotes", name)
		return
	}
	t := token{kind: tokName, Span: c.Span, text: s}
	if kind == 'f' && filters[s] == nil {
		p.unknown("filter", t, filterAdvice[s], Filters())
	} else if kind == 't' && tests[s] == nil {
		p.unknown("test", t, "", Tests())
	}
}

func (p *parser) unknown(what string, t token, advice string, among []string) {
	if advice == "" {
		advice = didYouMean(t.text, among)
	}
	p.fault("E0206", t.Span, advice, "no %s named '%s'", what, t.text)
}

// test parses a test's name and argument, after is.
func (p *parser) test(x node) node {
	n := &testNode{x: x}
	if p.word("not") {
		p.next()
		n.negate = true
	}
	t := p.peek()
	if t.kind != tokName {
		p.unexpected("expected the name of a test")
	}
	p.next()
	n.Span = Span{x.at().Off, t.End}
	var args []arg
	switch u := p.peek(); {
	case p.is("("):
		args, n.End = p.arguments()
	case u.kind == tokName && u.text == "is":
		p.fail(u.Span, "join them with and", "tests cannot be chained")
	case u.kind == tokString, u.kind == tokInt, u.kind == tokFloat, p.is("["), p.is("{"),
		u.kind == tokName && !keywords[u.text]:
		y := p.postfix(p.primary())
		args, n.End = []arg{{x: y}}, y.at().End
	}
	n.t = tests[t.text]
	if n.t == nil {
		p.unknown("test", t, "", Tests())
		return n
	}
	n.args, _ = p.assign("test "+t.text, t.Span, n.t.sig, args)
	return n
}

// function parses the arguments of a global function.
func (p *parser) function(t token) node {
	args, end := p.arguments()
	n := &funcNode{Span: Span{t.Off, end}}
	f := functions[t.text]
	if f == nil {
		advice := ""
		if filters[t.text] != nil {
			advice = "it is a filter: x | " + t.text
		}
		p.unknown("function", t, advice, Functions())
		return n
	}
	n.f = f
	n.args, n.rest = p.assign(t.text+"()", t.Span, f.sig, args)
	return n
}

// method parses the arguments of a method of x.
func (p *parser) method(x node, t token) node {
	args, end := p.arguments()
	n := &methodNode{Span: Span{x.at().Off, end}, x: x}
	m := methods[t.text]
	if m == nil {
		advice := ""
		switch {
		case changers[t.text]:
			advice = "values cannot be changed; build a new one, as in items + [x]"
		case filters[t.text] != nil:
			advice = "it is a filter: x | " + t.text
		}
		p.unknown("method", t, advice, slices.Collect(maps.Keys(methods)))
		return n
	}
	n.m = m
	n.args, n.rest = p.assign(t.text+"()", t.Span, m.sig, args)
	return n
}

// changers are the methods that Jinja2 has and that would change a value.
var changers = map[string]bool{
	"append": true, "extend": true, "insert": true, "remove": true, "pop": true, "popitem": true,
	"clear": true, "update": true, "setdefault": true, "sort": true, "reverse": true,
}
