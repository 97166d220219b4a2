package step

import (
	"fmt"
	"slices"
	"strings"
)

// pyStatement is a statement of Python with its block. Expressions stay tokens.
type pyStatement struct {
	// kind is the keyword of a statement that has one, else assign or expression.
	// An elif, else, except, finally or case stands as a statement of its own:
	// the first four beside what they belong to, a case in the block of its match.
	kind       string
	name       string    // of def, class and type
	async      bool      // of def, for and with
	head       []pyToken // its tokens, without decorators, the final colon and the block
	decorators [][]pyToken
	body       []*pyStatement
	line       int    // where it begins; of def and class: of that word
	endLine    int    // where its block ends
	owner      string // of else and finally: the kind that they belong to
}

// pyModule is a parsed file.
type pyModule struct {
	body     []*pyStatement
	tokens   []pyToken // all of them
	comments []pyToken
}

// pyParse gives the statements of a module. It is more lenient than Python: what
// stands within an expression is not looked at.
func pyParse(src string) (*pyModule, error) {
	tokens, err := pyTokenize(src)
	if err != nil {
		return nil, err
	}
	m := &pyModule{tokens: tokens}
	p := &pyParser{}
	for _, t := range tokens {
		if t.kind == pyComment {
			m.comments = append(m.comments, t)
			continue
		}
		p.tokens = append(p.tokens, t)
	}
	m.body, err = p.block(false)
	return m, err
}

type pyParser struct {
	tokens []pyToken
	pos    int
}

func (p *pyParser) peek() *pyToken {
	if p.pos < len(p.tokens) {
		return &p.tokens[p.pos]
	}
	return nil
}

// pyCompound are the keywords that a block follows.
var pyCompound = []string{"if", "elif", "else", "for", "while", "try", "except", "finally", "with", "def", "class"}

// pyFollows says what may stand before a keyword that continues a statement.
var pyFollows = map[string][]string{
	"elif":    {"if", "elif"},
	"else":    {"if", "elif", "for", "while", "except"},
	"except":  {"try", "except"},
	"finally": {"try", "except", "else"},
}

// block reads statements up to the dedent that ends them, or to the end.
func (p *pyParser) block(cases bool) ([]*pyStatement, error) {
	var list []*pyStatement
	var decorators [][]pyToken
	for {
		t := p.peek()
		switch {
		case t == nil || t.kind == pyDedent:
			if t != nil {
				p.pos++
			}
			if decorators != nil {
				return list, &codeError{decorators[0][0].line, "a decorator stands before nothing"}
			}
			return list, nil
		case t.kind == pyNewline:
			p.pos++
			continue
		case t.kind == pyIndent:
			return list, &codeError{t.line, "an indentation is not expected here"}
		case t.op("@"):
			head := p.line()
			if decorators = append(decorators, head[1:]); len(head) < 2 {
				return list, &codeError{t.line, "a decorator has no name"}
			}
			continue
		}
		more, err := p.statement(cases)
		if err != nil {
			return list, err
		}
		first := more[0]
		if before, ok := pyFollows[first.kind]; ok {
			n := len(list)
			if n == 0 || !slices.Contains(before, list[n-1].kind) || (first.kind == "finally" && list[n-1].kind == "else" && list[n-1].owner != "try") {
				return list, &codeError{first.line, first.kind + " follows nothing that it belongs to"}
			}
			first.owner = list[n-1].kind
			switch first.owner {
			case "elif":
				first.owner = "if"
			case "except", "else":
				first.owner = "try"
			}
		}
		if decorators != nil {
			if first.kind != "def" && first.kind != "class" {
				return list, &codeError{first.line, "a decorator stands before neither a function nor a class"}
			}
			first.decorators, decorators = decorators, nil
		}
		list = append(list, more...)
	}
}

// line takes the tokens up to the end of the logical line.
func (p *pyParser) line() []pyToken {
	from := p.pos
	for p.pos < len(p.tokens) {
		if p.tokens[p.pos].kind == pyNewline {
			p.pos++
			return p.tokens[from : p.pos-1]
		}
		p.pos++
	}
	return p.tokens[from:]
}

// statement reads one compound statement, or the simple ones of a line.
func (p *pyParser) statement(cases bool) ([]*pyStatement, error) {
	t := p.peek()
	kind, async := "", false
	if t.kind == pyName {
		kind = t.text
		if next := p.at(p.pos + 1); kind == "async" && next != nil && next.kind == pyName {
			kind, async = next.text, true
		}
	}
	switch {
	case slices.Contains(pyCompound, kind):
	case cases && kind == "case", kind == "match" && p.isMatch():
	case cases:
		return nil, &codeError{t.line, "only cases stand in a match"}
	default:
		return p.simple()
	}
	s := &pyStatement{kind: kind, async: async, line: t.line}
	begin := p.pos
	if async {
		p.pos++
		s.line = p.peek().line
	}
	if kind == "def" || kind == "class" {
		name := p.at(p.pos + 1)
		if name == nil || name.kind != pyName {
			return nil, &codeError{t.line, "a " + kind + " has no name"}
		}
		s.name = name.text
	}
	colon := p.colon()
	if colon < 0 {
		return nil, &codeError{t.line, "a colon is missing after " + kind}
	}
	s.head = p.tokens[begin:colon]
	p.pos = colon + 1
	var err error
	if next := p.peek(); next != nil && next.kind == pyNewline {
		p.pos++
		if next = p.peek(); next == nil || next.kind != pyIndent {
			return nil, &codeError{t.line, kind + " has no block"}
		}
		p.pos++
		s.body, err = p.block(kind == "match")
	} else if next == nil {
		return nil, &codeError{t.line, kind + " has no block"}
	} else {
		s.body, err = p.simple()
	}
	if err != nil {
		return nil, err
	}
	if len(s.body) == 0 {
		return nil, &codeError{t.line, kind + " has no block"}
	}
	s.endLine = s.body[len(s.body)-1].endLine
	return []*pyStatement{s}, nil
}

func (p *pyParser) at(i int) *pyToken {
	if i < len(p.tokens) {
		return &p.tokens[i]
	}
	return nil
}

// colon finds the colon that ends the head of a compound statement; -1: none.
func (p *pyParser) colon() int {
	depth, lambdas := 0, 0
	for i := p.pos; i < len(p.tokens); i++ {
		t := &p.tokens[i]
		switch {
		case t.kind == pyNewline:
			return -1
		case t.op("(") || t.op("[") || t.op("{"):
			depth++
		case t.op(")") || t.op("]") || t.op("}"):
			depth--
		case depth > 0:
		case t.word("lambda"):
			lambdas++
		case t.op(":") && lambdas > 0:
			lambdas--
		case t.op(":"):
			return i
		}
	}
	return -1
}

// isMatch tells a match statement from a name that is match: a block with a case
// follows.
func (p *pyParser) isMatch() bool {
	next := p.at(p.pos + 1)
	if next == nil || next.kind == pyNewline || (next.kind == pyOp && strings.Contains("= . , : ; ) ]", next.text)) {
		return false
	}
	i := p.pos
	for i < len(p.tokens) && p.tokens[i].kind != pyNewline {
		i++
	}
	if i+2 >= len(p.tokens) || !p.tokens[i-1].op(":") {
		return false
	}
	return p.tokens[i+1].kind == pyIndent && p.tokens[i+2].word("case")
}

var pySimple = []string{
	"return", "raise", "import", "from", "assert", "del", "global", "nonlocal", "pass", "break", "continue",
}

// simple reads the statements of one line, between semicolons.
func (p *pyParser) simple() ([]*pyStatement, error) {
	tokens := p.line()
	var list []*pyStatement
	for _, part := range pySplit(tokens, ";") {
		if len(part) == 0 {
			continue
		}
		s := &pyStatement{kind: "expression", head: part, line: part[0].line, endLine: part[len(part)-1].endLine}
		switch first := &part[0]; {
		case first.kind == pyName && slices.Contains(pySimple, first.text):
			s.kind = first.text
		case first.word("type") && len(part) > 2 && part[1].kind == pyName && (part[2].op("=") || part[2].op("[")):
			s.kind, s.name = "type", part[1].text
		case pyAssigns(part):
			s.kind = "assign"
		}
		if at := pyAdjacent(part); at > 0 && s.kind != "type" {
			return nil, &codeError{part[at].line, fmt.Sprintf("%s stands beside %s with nothing between", head(part[at].text, 40), head(part[at-1].text, 40))}
		}
		list = append(list, s)
	}
	if len(list) == 0 {
		return nil, &codeError{tokens[0].line, "a statement is missing"}
	}
	return list, nil
}

// pyAdjacent finds two operands without an operator between them, as other
// languages write them; 0: there are none.
func pyAdjacent(tokens []pyToken) int {
	operand := func(t *pyToken) bool {
		return t.kind == pyNumber || t.kind == pyString || (t.kind == pyName && !pyKeyword(t.text))
	}
	for i := 1; i < len(tokens); i++ {
		if operand(&tokens[i]) && operand(&tokens[i-1]) && (tokens[i].kind != pyString || tokens[i-1].kind != pyString) {
			return i
		}
	}
	return 0
}

var pyAssignments = []string{"=", "+=", "-=", "*=", "/=", "//=", "%=", "@=", "&=", "|=", "^=", ">>=", "<<=", "**=", ":"}

// pyAssigns reports whether an assignment, or an annotation, stands outside all
// brackets.
func pyAssigns(tokens []pyToken) bool {
	found := false
	pyTop(tokens, func(_ int, t *pyToken) bool {
		if t.word("lambda") || t.word("yield") {
			return false
		}
		found = t.kind == pyOp && slices.Contains(pyAssignments, t.text)
		return !found
	})
	return found
}

// pyTop visits the tokens outside all brackets until visit returns false.
func pyTop(tokens []pyToken, visit func(i int, t *pyToken) bool) {
	depth := 0
	for i := range tokens {
		t := &tokens[i]
		switch {
		case t.op(")") || t.op("]") || t.op("}"):
			depth--
		case depth == 0:
			if !visit(i, t) {
				return
			}
		}
		if t.op("(") || t.op("[") || t.op("{") {
			depth++
		}
	}
}

// pySplit cuts tokens at an operator outside all brackets; an empty last part is
// left out.
func pySplit(tokens []pyToken, at string) [][]pyToken {
	var parts [][]pyToken
	from, lambdas := 0, 0
	pyTop(tokens, func(i int, t *pyToken) bool {
		switch {
		case t.word("lambda"):
			lambdas++
		case t.op(":") && lambdas > 0:
			lambdas--
		case t.op(at) && (lambdas == 0 || at == ";"):
			parts = append(parts, tokens[from:i])
			from = i + 1
		}
		return true
	})
	if from < len(tokens) {
		parts = append(parts, tokens[from:])
	}
	return parts
}

// pyWalk visits statements and those in their blocks, outer ones first; a visit
// that returns false leaves the block out.
func pyWalk(list []*pyStatement, visit func(s *pyStatement) bool) {
	for _, s := range list {
		if visit(s) {
			pyWalk(s.body, visit)
		}
	}
}

// pyText writes tokens as one line.
func pyText(tokens []pyToken) string {
	var b strings.Builder
	for i := range tokens {
		t := &tokens[i]
		if i > 0 {
			before := &tokens[i-1]
			words := before.kind != pyOp && t.kind != pyOp
			spaced := func(o *pyToken) bool {
				return o.kind == pyOp && !strings.Contains("( ) [ ] { } . , : ~ @ ** *", o.text)
			}
			if words || before.op(",") || before.op(":") || spaced(before) || spaced(t) || (before.kind == pyName && pyKeyword(before.text)) || (t.kind == pyName && pyKeyword(t.text) && before.kind != pyOp) {
				b.WriteByte(' ')
			}
		}
		b.WriteString(t.text)
	}
	return b.String()
}

var pyKeywords = strings.Fields("False None True and as assert async await break class continue def del elif else except finally for from global if import in is lambda nonlocal not or pass raise return try while with yield")

func pyKeyword(s string) bool { return slices.Contains(pyKeywords, s) }

// pyInside gives the tokens between the first round bracket outside all others and
// the one that closes it.
func pyInside(tokens []pyToken) (inside []pyToken, ok bool) {
	open := -1
	pyTop(tokens, func(i int, t *pyToken) bool {
		if t.op("(") {
			open = i
			return false
		}
		return true
	})
	if open < 0 {
		return nil, false
	}
	end := pyClose(tokens, open)
	if end < 0 {
		return nil, false
	}
	return tokens[open+1 : end], true
}

// pyClose is the index of what closes the bracket at i; -1: nothing does.
func pyClose(tokens []pyToken, i int) int {
	depth := 0
	for ; i < len(tokens); i++ {
		switch t := &tokens[i]; {
		case t.op("(") || t.op("[") || t.op("{"):
			depth++
		case t.op(")") || t.op("]") || t.op("}"):
			if depth--; depth == 0 {
				return i
			}
		}
	}
	return -1
}

// pyParam is a parameter of a function.
type pyParam struct {
	name  string    // with its stars
	value []pyToken // the default; empty: none
}

// params are those of a def.
func (s *pyStatement) params() []pyParam {
	inside, ok := pyInside(s.head)
	if !ok {
		return nil
	}
	var list []pyParam
	for _, part := range pySplit(inside, ",") {
		p := pyParam{}
		for i := range part {
			t := &part[i]
			if t.op("*") || t.op("**") {
				p.name += t.text
				continue
			}
			if t.kind == pyName {
				p.name += t.text
			}
			break
		}
		pyTop(part, func(i int, t *pyToken) bool {
			if t.op("=") {
				p.value = part[i+1:]
				return false
			}
			return true
		})
		if p.name == "" || p.name == "*" { // the marks / and * are none
			continue
		}
		list = append(list, p)
	}
	return list
}

// bases are what a class is derived from, without keywords such as metaclass.
func (s *pyStatement) bases() []string {
	inside, ok := pyInside(s.head)
	if !ok {
		return nil
	}
	var list []string
	for _, part := range pySplit(inside, ",") {
		if len(part) > 1 && part[0].kind == pyName && part[1].op("=") {
			continue
		}
		if len(part) > 0 && !part[0].op("**") {
			list = append(list, pyText(part))
		}
	}
	return list
}

// docstring is the text that documents a block, as it is spelled; nil: none.
func pyDocstring(body []*pyStatement) *pyToken {
	if len(body) == 0 || body[0].kind != "expression" || len(body[0].head) == 0 {
		return nil
	}
	for i := range body[0].head {
		if t := &body[0].head[i]; t.kind != pyString || t.fields != nil || strings.ContainsAny(pyStringPrefix(t.text), "bBfF") {
			return nil
		}
	}
	return &body[0].head[0]
}

func pyStringPrefix(text string) string {
	if i := strings.IndexAny(text, `'"`); i >= 0 {
		return text[:i]
	}
	return ""
}

// pyStringValue is what a string says, escapes left as they are.
func pyStringValue(text string) string {
	text = text[len(pyStringPrefix(text)):]
	for _, q := range []string{`"""`, `'''`, `"`, `'`} {
		if strings.HasPrefix(text, q) && strings.HasSuffix(text, q) && len(text) >= 2*len(q) {
			return text[len(q) : len(text)-len(q)]
		}
	}
	return text
}

// pyImport is one name that an import binds.
type pyImport struct {
	module string // with its leading dots
	name   string // of from: what is imported; * for all
	alias  string // as
	line   int
}

// binds is the name that the module can use then.
func (i *pyImport) binds() string {
	switch {
	case i.alias != "":
		return i.alias
	case i.name != "":
		return i.name
	}
	first, _, _ := strings.Cut(i.module, ".")
	return first
}

// imports are what an import or from statement binds.
func (s *pyStatement) imports() []pyImport {
	dotted := func(tokens []pyToken) (name, alias string) {
		for i := range tokens {
			if tokens[i].word("as") && i+1 < len(tokens) {
				return name, tokens[i+1].text
			}
			name += tokens[i].text
		}
		return name, ""
	}
	var list []pyImport
	switch s.kind {
	case "import":
		for _, part := range pySplit(s.head[1:], ",") {
			module, alias := dotted(part)
			list = append(list, pyImport{module: module, alias: alias, line: s.line})
		}
	case "from":
		at := slices.IndexFunc(s.head, func(t pyToken) bool { return t.word("import") })
		if at < 0 {
			return nil
		}
		module, _ := dotted(s.head[1:at])
		names := s.head[at+1:]
		if inside, ok := pyInside(names); ok {
			names = inside
		}
		for _, part := range pySplit(names, ",") {
			if len(part) == 0 {
				continue
			}
			name, alias := dotted(part)
			list = append(list, pyImport{module: module, name: name, alias: alias, line: part[0].line})
		}
	}
	return list
}
