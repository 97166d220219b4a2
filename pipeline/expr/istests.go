package expr

import (
	"strings"
	"unicode"
)

// test is an entry of the closed table of tests, what follows is.
type test struct {
	name string
	sig  signature
	raw  bool // takes an undefined value: defined and undefined
	fn   func(c *call, v any, args []any) bool
}

var tests = testTable()

func testTable() map[string]*test {
	is := func(f func(v any) bool) func(*call, any, []any) bool {
		return func(_ *call, v any, _ []any) bool { return f(v) }
	}
	compares := func(op string) func(*call, any, []any) bool {
		return func(c *call, v any, args []any) bool { return c.ev.compare(op, v, args[0], c.at) }
	}
	divides := func(c *call, v, by any) bool {
		if number(v) == nil {
			c.fail("it needs a number, not %s", typeName(v))
		}
		return !Truthy(c.ev.arith("%", v, by, c.at))
	}
	other := sig(need("other", anyKind))
	all := []*test{
		{name: "defined", raw: true},
		{name: "undefined", raw: true},
		{name: "none", fn: is(func(v any) bool { return v == nil })},
		{name: "boolean", fn: is(func(v any) bool { _, ok := v.(bool); return ok })},
		{name: "true", fn: is(func(v any) bool { b, ok := v.(bool); return ok && b })},
		{name: "false", fn: is(func(v any) bool { b, ok := v.(bool); return ok && !b })},
		{name: "integer", fn: is(func(v any) bool { _, ok := v.(int64); return ok })},
		{name: "float", fn: is(func(v any) bool { _, ok := v.(float64); return ok })},
		{name: "number", fn: is(func(v any) bool { return number(v) != nil })},
		{name: "string", fn: is(isText)},
		{name: "mapping", fn: is(func(v any) bool { _, ok := v.(map[string]any); return ok })},
		{name: "sequence", fn: is(isContainer)},
		{name: "iterable", fn: is(isContainer)},
		{name: "lower", fn: func(c *call, v any, _ []any) bool {
			return isCase(c.ev.text(v, c.at), unicode.IsLower, unicode.IsUpper)
		}},
		{name: "upper", fn: func(c *call, v any, _ []any) bool {
			return isCase(c.ev.text(v, c.at), unicode.IsUpper, unicode.IsLower)
		}},
		{name: "odd", fn: func(c *call, v any, _ []any) bool {
			return !divides(c, v, int64(2)) && divides(c, c.ev.arith("-", v, int64(1), c.at), int64(2))
		}},
		{name: "even", fn: func(c *call, v any, _ []any) bool { return divides(c, v, int64(2)) }},
		{name: "divisibleby", sig: sig(need("num", numKind)), fn: func(c *call, v any, args []any) bool { return divides(c, v, args[0]) }},
		{name: "sameas", sig: other, fn: func(c *call, v any, args []any) bool {
			return typeName(v) == typeName(args[0]) && c.ev.equal(v, args[0], c.at)
		}},
		{name: "in", sig: sig(need("seq", anyKind)), fn: func(c *call, v any, args []any) bool { return c.ev.contains(args[0], v, c.at) }},
		{name: "filter", fn: func(c *call, v any, _ []any) bool { return c.ev.filters[c.ev.text(v, c.at)] != nil }},
		{name: "test", fn: func(c *call, v any, _ []any) bool { return c.ev.tests[c.ev.text(v, c.at)] != nil }},
		{name: "eq", sig: other, fn: compares("==")},
		{name: "ne", sig: other, fn: compares("!=")},
		{name: "gt", sig: other, fn: compares(">")},
		{name: "ge", sig: other, fn: compares(">=")},
		{name: "lt", sig: other, fn: compares("<")},
		{name: "le", sig: other, fn: compares("<=")},
	}
	t := make(map[string]*test, len(all)+12)
	for _, x := range all {
		t[x.name] = x
	}
	for alias, name := range map[string]string{
		"==": "eq", "equalto": "eq", "!=": "ne", ">": "gt", "greaterthan": "gt", ">=": "ge",
		"<": "lt", "lessthan": "lt", "<=": "le", "null": "none",
	} {
		t[alias] = t[name]
	}
	return t
}

func isContainer(v any) bool {
	switch v.(type) {
	case string, []any, map[string]any:
		return true
	}
	return false
}

// isCase reports whether s has a letter of the wanted case, and none of the other.
func isCase(s string, want, other func(rune) bool) bool {
	return strings.IndexFunc(s, want) >= 0 && strings.IndexFunc(s, other) < 0
}
