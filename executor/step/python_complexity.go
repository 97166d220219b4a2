package step

import (
	"slices"
	"strings"
)

// pyCyclomatic is McCabe's number of a body, without the functions and classes in
// it: one, and one for each place where the way forks.
func pyCyclomatic(body []*pyStatement) int {
	n := 1
	pyWalk(body, func(s *pyStatement) bool {
		switch s.kind {
		case "def", "class":
			for _, e := range s.decorators {
				n += pyDecisions(e)
			}
			return false
		case "if", "elif", "for", "while", "except":
			n++
		case "case":
			if !s.always() {
				n++
			}
			if s.guard() != nil {
				n++
			}
		}
		for _, e := range s.expressions() {
			n += pyDecisions(e)
		}
		return true
	})
	return n
}

// pyDepth is how deep blocks that fork or repeat stand within each other.
func pyDepth(body []*pyStatement) int {
	deepest := 0
	for _, s := range body {
		inner := 0
		switch s.kind {
		case "def", "class":
		case "if", "elif", "else", "for", "while", "try", "except", "finally", "with", "match":
			inner = 1 + pyDepth(s.body)
		default:
			inner = pyDepth(s.body)
		}
		deepest = max(deepest, inner)
	}
	return deepest
}

// pyCognitive is Campbell's number of a body at a level of nesting. Functions
// within it count, one level deeper.
func pyCognitive(body []*pyStatement, nesting int) int {
	n := 0
	for _, s := range body {
		inner := nesting + 1
		switch s.kind {
		case "if", "for", "while", "except", "match":
			n += 1 + nesting
		case "elif":
			n++
		case "else":
			if s.owner != "try" {
				n++
			} else {
				inner = nesting
			}
		case "def":
			n += pyCognitiveFunction(s, inner)
			continue
		case "class", "try", "finally", "with", "case":
			inner = nesting
		}
		for _, e := range s.expressions() {
			n += pyCognitiveExpression(e, nesting)
		}
		n += pyCognitive(s.body, inner)
	}
	return n
}

// pyCognitiveFunction counts a function's body, and one more where it calls
// itself.
func pyCognitiveFunction(s *pyStatement, nesting int) int {
	n := 0
	if inner := pyDecorator(s); inner != nil {
		n = pyCognitiveFunction(inner, nesting)
	} else {
		n = pyCognitive(s.body, nesting)
	}
	if pyRecursive(s) {
		n++
	}
	return n
}

// pyDecorator is the one function that a function defines and returns: such a
// wrapper adds no nesting.
func pyDecorator(s *pyStatement) *pyStatement {
	body := s.body
	if pyDocstring(body) != nil {
		body = body[1:]
	}
	if len(body) != 2 || body[0].kind != "def" || body[1].kind != "return" || len(body[1].head) != 2 || !body[1].head[1].word(body[0].name) {
		return nil
	}
	return body[0]
}

func pyRecursive(s *pyStatement) bool {
	found := false
	own := []string{s.name, "self." + s.name, "cls." + s.name}
	pyWalk(s.body, func(inner *pyStatement) bool {
		for _, e := range inner.expressions() {
			pyCalls(e, func(c *pyCall) { found = found || slices.Contains(own, c.callee) })
		}
		return !found
	})
	return found
}

// pyCognitiveExpression counts conditional expressions with their nesting, and
// each sequence of like boolean operators.
func pyCognitiveExpression(tokens []pyToken, nesting int) int {
	type level struct {
		last   string // the boolean operator before, of the same sequence
		deeper int    // conditionals and lambdas around
		loops  int    // comprehension clauses: an if after them filters
	}
	n := 0
	stack := []level{{deeper: nesting}}
	for i := range tokens {
		t := &tokens[i]
		top := &stack[len(stack)-1]
		switch {
		case len(t.fields) > 0:
			n += pyCognitiveExpression(t.fields, top.deeper)
		case t.op("(") || t.op("[") || t.op("{"):
			stack = append(stack, level{deeper: top.deeper})
		case t.op(")") || t.op("]") || t.op("}"):
			if len(stack) > 1 {
				stack = stack[:len(stack)-1]
			}
		case t.kind == pyOp && strings.Contains(", : = :=", t.text):
			top.last = ""
			if t.op(",") {
				top.deeper = stack[0].deeper
				if len(stack) > 1 {
					top.deeper = stack[len(stack)-2].deeper
				}
			}
		case t.kind != pyName:
		case t.text == "and" || t.text == "or":
			if top.last != t.text {
				n++
			}
			top.last = t.text
		case t.text == "for":
			top.loops++
			top.last = ""
		case t.text == "if":
			top.last = ""
			if top.loops == 0 {
				n += 1 + top.deeper
				top.deeper++
			}
		case t.text == "else" || t.text == "in":
			top.last = ""
		case t.text == "lambda":
			top.deeper++
		}
	}
	return n
}
