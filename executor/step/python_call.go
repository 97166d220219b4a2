package step

import (
	"slices"
	"strings"
)

// pyCall is a call within an expression.
type pyCall struct {
	// callee is the dotted name that is called; where the chain begins with
	// something else than a name, as in f().g, its first part is empty: ".g".
	callee string
	args   []pyArg
	line   int
	// result are the tokens that follow on the same level, as in f(x).y.
	result []pyToken
}

type pyArg struct {
	name  string // of a keyword argument; * and ** for what is spread
	value []pyToken
}

func (c *pyCall) arg(name string) []pyToken {
	for i := range c.args {
		if c.args[i].name == name {
			return c.args[i].value
		}
	}
	return nil
}

// positional is the argument at an index, among those without a name.
func (c *pyCall) positional(i int) []pyToken {
	for j := range c.args {
		if c.args[j].name != "" {
			continue
		}
		if i == 0 {
			return c.args[j].value
		}
		i--
	}
	return nil
}

// pyCalls finds all calls in an expression: in arguments and in f-strings too.
func pyCalls(tokens []pyToken, visit func(c *pyCall)) {
	for i := range tokens {
		t := &tokens[i]
		if len(t.fields) > 0 {
			pyCalls(t.fields, visit)
		}
		if !t.op("(") || i == 0 {
			continue
		}
		before := &tokens[i-1]
		if (before.kind != pyName || pyKeyword(before.text)) && before.kind != pyString && !before.op(")") && !before.op("]") && !before.op("}") {
			continue
		}
		end := pyClose(tokens, i)
		if end < 0 {
			continue
		}
		c := &pyCall{callee: pyChain(tokens[:i]), line: before.line, result: tokens[end+1:]}
		for _, part := range pySplit(tokens[i+1:end], ",") {
			a := pyArg{value: part}
			switch {
			case len(part) == 0:
				continue
			case part[0].op("*") || part[0].op("**"):
				a = pyArg{name: part[0].text, value: part[1:]}
			case len(part) > 1 && part[0].kind == pyName && part[1].op("="):
				a = pyArg{name: part[0].text, value: part[2:]}
			}
			c.args = append(c.args, a)
		}
		visit(c)
	}
}

// pyChain reads a dotted name backwards from the end of tokens.
func pyChain(tokens []pyToken) string {
	var names []string
	i := len(tokens) - 1
	for i >= 0 && tokens[i].kind == pyName && !pyKeyword(tokens[i].text) {
		names = append(names, tokens[i].text)
		if i < 2 || !tokens[i-1].op(".") {
			break
		}
		i -= 2
		if tokens[i].kind != pyName || pyKeyword(tokens[i].text) {
			names = append(names, "")
			break
		}
	}
	slices.Reverse(names)
	return strings.Join(names, ".")
}

// expressions are the tokens of a statement in which names are used rather than
// bound: all but the name of a def or class and the patterns of a case.
func (s *pyStatement) expressions() [][]pyToken {
	list := slices.Clone(s.decorators)
	switch s.kind {
	case "def", "class":
		name := slices.IndexFunc(s.head, func(t pyToken) bool { return t.kind == pyOp })
		if name < 0 {
			return list
		}
		rest := s.head[name:]
		if rest[0].op("[") { // parameters of types
			end := pyClose(rest, 0)
			list, rest = append(list, rest[:end+1]), rest[end+1:]
		}
		return append(list, rest)
	case "case":
		guard := s.guard()
		if guard != nil {
			list = append(list, guard)
		}
		return list
	case "import", "from", "global", "nonlocal", "pass", "break", "continue":
		return list
	}
	head := s.head
	if s.async && len(head) > 0 {
		head = head[1:]
	}
	if s.kind != "expression" && s.kind != "assign" && len(head) > 0 {
		head = head[1:] // the keyword
	}
	return append(list, head)
}

// guard is the condition of a case; nil: none.
func (s *pyStatement) guard() []pyToken {
	var guard []pyToken
	pyTop(s.head, func(i int, t *pyToken) bool {
		if t.word("if") {
			guard = s.head[i+1:]
			return false
		}
		return true
	})
	return guard
}

// always reports whether a case takes whatever is left: a lone name without a
// guard.
func (s *pyStatement) always() bool {
	return len(s.head) == 2 && s.head[1].kind == pyName && !pyKeyword(s.head[1].text)
}

// decisions counts the places of an expression where the way forks: and, or,
// conditional expressions, and the for and if of comprehensions.
func pyDecisions(tokens []pyToken) int {
	n := 0
	for i := range tokens {
		t := &tokens[i]
		if t.kind == pyName && (t.text == "and" || t.text == "or" || t.text == "if" || t.text == "for") && (i == 0 || !tokens[i-1].op(".")) {
			n++
		}
		n += pyDecisions(t.fields)
	}
	return n
}
