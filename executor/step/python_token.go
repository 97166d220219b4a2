package step

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// pyKind is the kind of a token of Python.
type pyKind int

const (
	pyName pyKind = iota // also keywords
	pyNumber
	pyString
	pyOp
	pyNewline // the end of a logical line
	pyIndent
	pyDedent
	pyComment
)

// pyToken is a token of Python, as of the language reference, chapter 2, version
// 3.14. Lines count from 1, columns from 0, in characters.
type pyToken struct {
	kind    pyKind
	text    string
	line    int
	col     int
	endLine int
	// fields are the tokens of the expressions within an f-string.
	fields []pyToken
}

func (t *pyToken) op(text string) bool   { return t.kind == pyOp && t.text == text }
func (t *pyToken) word(text string) bool { return t.kind == pyName && t.text == text }

// codeError is a fault of a source file.
type codeError struct {
	line int
	text string
}

func (e *codeError) Error() string { return fmt.Sprintf("line %d: %s", e.line, e.text) }

// maxNesting bounds brackets, blocks and f-strings within each other; Python's own
// limit is 100 for blocks and 200 for brackets.
const maxNesting = 200

// pyScanner cuts a source into tokens. It fails where Python would; what comes
// after is then unknown.
type pyScanner struct {
	src     string
	pos     int
	line    int
	start   int // of the line, in bytes
	counted int // a place up to which the columns of the line are counted
	column  int // of that place
	tokens  []pyToken
	indents []pyIndentation
	open    []pyBracket
	fresh   bool // at the beginning of a logical line
	nested  int  // f-strings around
}

// pyBracket is an open bracket: what closes it, and its line.
type pyBracket struct {
	end  byte
	line int
}

// pyIndentation is a column counted twice: with tabs to multiples of 8, and with
// tabs as one. Where the two disagree on the order, Python refuses.
type pyIndentation struct{ col, alt int }

// pyTokenize gives the tokens of a module, comments among them.
func pyTokenize(src string) ([]pyToken, error) {
	s := &pyScanner{src: strings.TrimPrefix(src, "\ufeff"), line: 1, indents: []pyIndentation{{}}, fresh: true}
	if i := strings.IndexByte(s.src, 0); i >= 0 {
		return nil, &codeError{1 + strings.Count(s.src[:i], "\n"), "a null byte"}
	}
	for s.pos < len(s.src) {
		if s.fresh && len(s.open) == 0 {
			if err := s.indentation(); err != nil {
				return s.tokens, err
			}
			continue
		}
		if err := s.next(); err != nil {
			return s.tokens, err
		}
	}
	if n := len(s.open); n > 0 {
		return s.tokens, &codeError{s.open[n-1].line, fmt.Sprintf("a bracket is not closed: %q is missing", s.open[n-1].end)}
	}
	if n := len(s.tokens); n > 0 && !s.fresh {
		s.add(pyNewline, "", s.pos)
	}
	for range s.indents[1:] {
		s.add(pyDedent, "", s.pos)
	}
	return s.tokens, nil
}

func (s *pyScanner) fail(format string, args ...any) error {
	return &codeError{s.line, fmt.Sprintf(format, args...)}
}

// add appends the token that begins at pos, which is on the current line.
func (s *pyScanner) add(kind pyKind, text string, pos int) {
	s.tokens = append(s.tokens, pyToken{
		kind: kind, text: text, line: s.line, endLine: s.line, col: s.columnOf(pos),
	})
}

// columnOf counts on from the place before, so that long lines cost no more than
// short ones.
func (s *pyScanner) columnOf(pos int) int {
	if s.counted < s.start || s.counted > pos {
		s.counted, s.column = s.start, 0
	}
	s.column += utf8.RuneCountInString(s.src[s.counted:pos])
	s.counted = pos
	return s.column
}

// newline steps over a line's end, in any of its spellings.
func (s *pyScanner) newline() {
	if s.src[s.pos] == '\r' && s.pos+1 < len(s.src) && s.src[s.pos+1] == '\n' {
		s.pos++
	}
	s.pos++
	s.line++
	s.start = s.pos
}

// indentation reads the white space before a logical line; blank lines and those
// with a comment alone have none.
func (s *pyScanner) indentation() error {
	var at pyIndentation
	from := s.pos
scan:
	for ; s.pos < len(s.src); s.pos++ {
		switch s.src[s.pos] {
		case ' ':
			at.col, at.alt = at.col+1, at.alt+1
		case '\t':
			at.col, at.alt = (at.col/8+1)*8, at.alt+1
		case '\f':
			at = pyIndentation{}
		default:
			break scan
		}
	}
	if s.pos == len(s.src) {
		return nil
	}
	switch c := s.src[s.pos]; {
	case c == '\n' || c == '\r':
		s.newline()
		return nil
	case c == '#':
		s.comment()
		return nil
	case c == '\\' && s.continued():
		// A line that continues an empty one has the indentation of the first.
		s.pos++
		s.newline()
		return s.indentation()
	}
	s.fresh = false
	top := s.indents[len(s.indents)-1]
	switch {
	case at.col == top.col:
		if at.alt != top.alt {
			return s.fail("tabs and spaces are mixed in the indentation")
		}
	case at.col > top.col:
		if at.alt <= top.alt {
			return s.fail("tabs and spaces are mixed in the indentation")
		}
		if len(s.indents) > maxNesting {
			return s.fail("blocks are nested deeper than %d", maxNesting)
		}
		s.indents = append(s.indents, at)
		s.add(pyIndent, s.src[from:s.pos], from)
	default:
		for at.col < s.indents[len(s.indents)-1].col {
			s.indents = s.indents[:len(s.indents)-1]
			s.add(pyDedent, "", s.pos)
		}
		if at != s.indents[len(s.indents)-1] {
			return s.fail("the indentation fits no outer block")
		}
	}
	return nil
}

func (s *pyScanner) comment() {
	end := s.pos
	for end < len(s.src) && s.src[end] != '\n' && s.src[end] != '\r' {
		end++
	}
	s.add(pyComment, s.src[s.pos:end], s.pos)
	s.pos = end
}

// continued reports whether a backslash stands at the end of its line.
func (s *pyScanner) continued() bool {
	return s.pos+1 < len(s.src) && (s.src[s.pos+1] == '\n' || s.src[s.pos+1] == '\r')
}

// next reads one token within a logical line.
func (s *pyScanner) next() error {
	c := s.src[s.pos]
	switch {
	case c == ' ' || c == '\t' || c == '\f':
		s.pos++
		return nil
	case c == '\n' || c == '\r':
		if len(s.open) == 0 && !s.fresh {
			s.add(pyNewline, "", s.pos)
			s.fresh = true
		}
		s.newline()
		return nil
	case c == '#':
		s.comment()
		return nil
	case c == '\\':
		if !s.continued() {
			return s.fail("a backslash stands within the line")
		}
		s.pos++
		s.newline()
		return nil
	case c >= '0' && c <= '9', c == '.' && s.pos+1 < len(s.src) && s.src[s.pos+1] >= '0' && s.src[s.pos+1] <= '9':
		end := pyNumberEnd(s.src, s.pos)
		s.add(pyNumber, s.src[s.pos:end], s.pos)
		s.pos = end
		return nil
	case c == '"' || c == '\'':
		return s.text(s.pos, s.pos)
	}
	r, _ := utf8.DecodeRuneInString(s.src[s.pos:])
	if r == '_' || unicode.IsLetter(r) || r > 127 && unicode.Is(unicode.Nl, r) {
		end := s.pos
		for end < len(s.src) {
			r, size := utf8.DecodeRuneInString(s.src[end:])
			if r != '_' && !unicode.IsLetter(r) && !unicode.IsDigit(r) && (r < 128 || !unicode.In(r, unicode.Nl, unicode.Mn, unicode.Mc, unicode.Pc)) {
				break
			}
			end += size
		}
		if end < len(s.src) && (s.src[end] == '"' || s.src[end] == '\'') && pyPrefix(s.src[s.pos:end]) {
			return s.text(s.pos, end)
		}
		s.add(pyName, s.src[s.pos:end], s.pos)
		s.pos = end
		return nil
	}
	return s.operator()
}

func pyPrefix(p string) bool {
	switch strings.ToLower(p) {
	case "r", "u", "b", "f", "t", "br", "rb", "fr", "rf", "tr", "rt":
		return true
	}
	return false
}

// pyNumberEnd is where a number ends: 0xff, 1_000, 1.5e-3, 2j.
func pyNumberEnd(src string, i int) int {
	digits := func(ok func(c byte) bool) {
		for i < len(src) && (ok(src[i]) || (src[i] == '_' && i+1 < len(src) && ok(src[i+1]))) {
			i++
		}
	}
	decimal := func(c byte) bool { return c >= '0' && c <= '9' }
	if src[i] == '0' && i+1 < len(src) && strings.IndexByte("xXoObB", src[i+1]) >= 0 {
		i += 2
		digits(func(c byte) bool { return decimal(c) || c >= 'a' && c <= 'f' || c >= 'A' && c <= 'F' })
		return i
	}
	digits(decimal)
	if i < len(src) && src[i] == '.' {
		i++
		digits(decimal)
	}
	if i < len(src) && (src[i] == 'e' || src[i] == 'E') {
		j := i + 1
		if j < len(src) && (src[j] == '+' || src[j] == '-') {
			j++
		}
		if j < len(src) && decimal(src[j]) {
			i = j
			digits(decimal)
		}
	}
	if i < len(src) && (src[i] == 'j' || src[i] == 'J') {
		i++
	}
	return i
}

// pyOperators are those of more than one character, the longer ones first.
var pyOperators = []string{
	"**=", "//=", ">>=", "<<=", "...",
	"!=", "->", ":=", "**", "//", ">>", "<<", "<=", ">=", "==", "<>", "+=", "-=", "*=", "/=", "%=", "&=", "|=", "^=", "@=",
}

func (s *pyScanner) operator() error {
	rest := s.src[s.pos:]
	for _, op := range pyOperators {
		if strings.HasPrefix(rest, op) {
			s.add(pyOp, op, s.pos)
			s.pos += len(op)
			return nil
		}
	}
	switch c := rest[0]; c {
	case '(', '[', '{':
		if len(s.open) >= maxNesting {
			return s.fail("brackets are nested deeper than %d", maxNesting)
		}
		s.open = append(s.open, pyBracket{map[byte]byte{'(': ')', '[': ']', '{': '}'}[c], s.line})
	case ')', ']', '}':
		n := len(s.open)
		switch {
		case n == 0:
			return s.fail("%q closes nothing", c)
		case s.open[n-1].end != c:
			return s.fail("%q stands where %q is expected", c, s.open[n-1].end)
		}
		s.open = s.open[:n-1]
	case '+', '-', '*', '/', '%', '@', '&', '|', '^', '~', '<', '>', ',', ':', '.', ';', '=':
	default:
		r, _ := utf8.DecodeRuneInString(rest)
		return s.fail("the character %q has no meaning here", r)
	}
	s.add(pyOp, rest[:1], s.pos)
	s.pos++
	return nil
}

// text reads a string whose prefix begins at from and whose quote is at quote.
func (s *pyScanner) text(from, quote int) error {
	prefix := strings.ToLower(s.src[from:quote])
	delimiter := s.src[quote : quote+1]
	if strings.HasPrefix(s.src[quote:], strings.Repeat(delimiter, 3)) {
		delimiter = strings.Repeat(delimiter, 3)
	}
	t := pyToken{kind: pyString, line: s.line, col: s.columnOf(from)}
	s.pos = quote + len(delimiter)
	var err error
	if strings.ContainsAny(prefix, "ft") {
		t.fields, err = s.formatted(delimiter, strings.Contains(prefix, "r"), t.line)
	} else {
		err = s.plain(delimiter, t.line)
	}
	if err != nil {
		return err
	}
	t.text, t.endLine = s.src[from:s.pos], s.line
	s.tokens = append(s.tokens, t)
	return nil
}

// plain reads up to the end of a string without fields.
func (s *pyScanner) plain(delimiter string, begun int) error {
	for s.pos < len(s.src) {
		switch c := s.src[s.pos]; {
		case strings.HasPrefix(s.src[s.pos:], delimiter):
			s.pos += len(delimiter)
			return nil
		case c == '\\':
			s.escape()
		case c == '\n' || c == '\r':
			if len(delimiter) == 1 {
				return &codeError{begun, "a string is not closed"}
			}
			s.newline()
		default:
			s.pos++
		}
	}
	return &codeError{begun, "a string is not closed"}
}

// escape steps over a backslash and what it escapes.
func (s *pyScanner) escape() {
	s.pos++
	if s.pos == len(s.src) {
		return
	}
	if c := s.src[s.pos]; c == '\n' || c == '\r' {
		s.newline()
		return
	}
	s.pos++
}

// formatted reads up to the end of an f-string and gives the tokens of its fields,
// as of PEP 701: a field may hold anything, also the string's own quotes.
func (s *pyScanner) formatted(delimiter string, raw bool, begun int) ([]pyToken, error) {
	var fields []pyToken
	if s.nested++; s.nested > maxNesting/2 {
		return nil, s.fail("f-strings are nested deeper than %d", maxNesting/2)
	}
	defer func() { s.nested-- }()
	for s.pos < len(s.src) {
		rest := s.src[s.pos:]
		switch c := rest[0]; {
		case strings.HasPrefix(rest, delimiter):
			s.pos += len(delimiter)
			return fields, nil
		case strings.HasPrefix(rest, "{{"), strings.HasPrefix(rest, "}}"):
			s.pos += 2
		case c == '{':
			inner, err := s.field(delimiter, raw, begun)
			if err != nil {
				return nil, err
			}
			fields = append(fields, inner...)
		case c == '}':
			return nil, s.fail("a single } stands in an f-string")
		case c == '\\':
			switch {
			case raw || len(rest) > 1 && (rest[1] == '{' || rest[1] == '}'):
				// A brace is not escaped by it; a quote is, also in a raw string.
				s.pos++
				if raw && len(rest) > 1 && (rest[1] == delimiter[0] || rest[1] == '\\') {
					s.pos++
				}
			case strings.HasPrefix(rest, `\N{`):
				if end := strings.IndexByte(rest, '}'); end > 0 {
					s.pos += end + 1
				} else {
					s.pos += 3
				}
			default:
				s.escape()
			}
		case c == '\n' || c == '\r':
			if len(delimiter) == 1 {
				return nil, &codeError{begun, "an f-string is not closed"}
			}
			s.newline()
		default:
			s.pos++
		}
	}
	return nil, &codeError{begun, "an f-string is not closed"}
}

// field reads {expression!r:format}, from its brace. The format may hold fields.
func (s *pyScanner) field(delimiter string, raw bool, begun int) ([]pyToken, error) {
	outerTokens, outerOpen := s.tokens, s.open
	s.tokens, s.open = nil, nil
	defer func() { s.tokens, s.open = outerTokens, outerOpen }()
	if s.nested++; s.nested > maxNesting/2 {
		return nil, s.fail("f-strings are nested deeper than %d", maxNesting/2)
	}
	defer func() { s.nested-- }()
	s.pos++
	lambdas := 0
	for s.pos < len(s.src) {
		c := s.src[s.pos]
		top := len(s.open) == 0
		switch {
		case top && c == '}':
			s.pos++
			return s.fieldTokens()
		case top && c == ':' && lambdas == 0:
			s.pos++
			inner, err := s.format(delimiter, raw, begun)
			if err != nil {
				return nil, err
			}
			s.tokens = append(s.tokens, inner...)
			return s.fieldTokens()
		case top && c == '!' && !strings.HasPrefix(s.src[s.pos:], "!="):
			s.pos++
			for s.pos < len(s.src) && (s.src[s.pos] == ' ' || unicode.IsLetter(rune(s.src[s.pos]))) {
				s.pos++
			}
		case top && c == '=' && strings.HasPrefix(strings.TrimLeft(s.src[s.pos+1:], " "), "}"):
			s.pos++
		case c == '\n' || c == '\r':
			s.newline()
		default:
			n := len(s.tokens)
			if err := s.next(); err != nil {
				return nil, err
			}
			if len(s.tokens) == n || len(s.open) > 0 {
				continue
			}
			switch t := &s.tokens[n]; {
			case t.word("lambda"):
				lambdas++
			case t.op(":") && lambdas > 0:
				lambdas--
			}
		}
	}
	return nil, &codeError{begun, "a field of an f-string is not closed"}
}

// fieldTokens marks the end of a field, so that expressions of two fields stay two.
func (s *pyScanner) fieldTokens() ([]pyToken, error) {
	if len(s.tokens) == 0 {
		return nil, s.fail("a field of an f-string is empty")
	}
	s.add(pyOp, ",", s.pos)
	return s.tokens, nil
}

// format reads a format up to its closing brace and gives the tokens of the fields
// in it.
func (s *pyScanner) format(delimiter string, raw bool, begun int) ([]pyToken, error) {
	var fields []pyToken
	for s.pos < len(s.src) {
		rest := s.src[s.pos:]
		switch c := rest[0]; {
		case c == '}':
			s.pos++
			return fields, nil
		case c == '{':
			inner, err := s.field(delimiter, raw, begun)
			if err != nil {
				return nil, err
			}
			fields = append(fields, inner...)
		case strings.HasPrefix(rest, delimiter):
			return nil, &codeError{begun, "a field of an f-string is not closed"}
		case c == '\n' || c == '\r':
			s.newline()
		default:
			s.pos++
		}
	}
	return nil, &codeError{begun, "a field of an f-string is not closed"}
}
