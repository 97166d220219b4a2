package expr

import (
	"math"
	"strconv"
	"strings"
	"sync"
	"unicode"
	"unicode/utf8"
)

type tokenKind uint8

const (
	tokEOF    tokenKind = iota
	tokText             // text between tags, whitespace control applied
	tokOpen             // {{
	tokClose            // }}
	tokBlock            // {%
	tokEnd              // %}
	tokOp               // an operator or punctuation mark
	tokName             // a name or keyword
	tokString           // a quoted text, decoded
	tokInt              // a whole number
	tokFloat            // a number with a fraction or an exponent
	tokBad              // a fault; text is the message, hint the remedy
)

type token struct {
	kind tokenKind
	Span
	text string // decoded text, name, operator or message
	hint string
	num  any // int64 or float64
}

// lexer cuts a source into tokens. A fault becomes the last token, so that the
// parser can report an earlier one first.
type lexer struct {
	src        string
	pos        int
	tokens     []token
	deprecated []Span // names spelled $item
	trimNext   bool   // the last tag ended in -%} or -}}
}

// lexers keeps the room for tokens, of which nothing is left in a program.
var lexers = sync.Pool{New: func() any { return &lexer{tokens: make([]token, 0, 48)} }}

func newLexer(src string) *lexer {
	l, _ := lexers.Get().(*lexer) // the pool holds nothing else
	l.src = src
	return l
}

// release gives the tokens back; nobody reads them any more.
func (l *lexer) release() {
	clear(l.tokens)
	*l = lexer{tokens: l.tokens[:0]}
	if cap(l.tokens) <= 4096 {
		lexers.Put(l)
	}
}

// lex cuts a template; lexBare cuts an expression without tags.
func lex(src string) *lexer {
	l := newLexer(src)
	for l.template() {
	}
	return l
}

func lexBare(src string) *lexer {
	l := newLexer(src)
	l.code(tokEOF, Span{})
	return l
}

func (l *lexer) add(k tokenKind, off, end int, text string) {
	l.tokens = append(l.tokens, token{kind: k, Span: Span{off, end}, text: text})
}

func (l *lexer) bad(off, end int, text, hint string) bool {
	l.tokens = append(l.tokens, token{kind: tokBad, Span: Span{off, end}, text: text, hint: hint})
	return false
}

// template lexes one stretch of text and the tag after it; false at the end.
func (l *lexer) template() bool {
	start := l.pos
	tag := nextTag(l.src, start)
	if tag < 0 {
		l.flush(start, len(l.src), false)
		l.add(tokEOF, len(l.src), len(l.src), "")
		return false
	}
	body := tag + 2
	trim := body < len(l.src) && l.src[body] == '-'
	l.flush(start, tag, trim)
	if body < len(l.src) && (l.src[body] == '-' || l.src[body] == '+' && l.src[tag+1] != '{') {
		body++
	}
	l.pos = body
	switch l.src[tag+1] {
	case '#':
		i := strings.Index(l.src[body:], "#}")
		if i < 0 {
			return l.bad(tag, tag+2, "this comment is never closed", "end it with #}")
		}
		l.trimNext = i > 0 && l.src[body+i-1] == '-'
		l.pos = body + i + 2
		return true
	case '%':
		if done, ok := l.raw(tag); done {
			return ok
		}
		l.add(tokBlock, tag, body, "{%")
		return l.code(tokEnd, Span{tag, body})
	}
	l.add(tokOpen, tag, body, "{{")
	return l.code(tokClose, Span{tag, body})
}

// nextTag returns the offset of the next {{, {% or {#, or -1.
func nextTag(src string, from int) int {
	for {
		i := strings.IndexByte(src[from:], '{')
		if i < 0 || from+i+1 >= len(src) {
			return -1
		}
		from += i
		switch src[from+1] {
		case '{', '%', '#':
			return from
		}
		from++
	}
}

func (l *lexer) flush(off, end int, trimEnd bool) {
	s := l.src[off:end]
	if l.trimNext {
		s = strings.TrimLeftFunc(s, unicode.IsSpace)
		l.trimNext = false
	}
	if trimEnd {
		s = strings.TrimRightFunc(s, unicode.IsSpace)
	}
	if s != "" {
		l.add(tokText, off, end, s)
	}
}

// raw lexes {% raw %}...{% endraw %}; done is false where the tag is another one.
func (l *lexer) raw(tag int) (done, ok bool) {
	end, trimStart, found := tagNamed(l.src, l.pos, "raw")
	if !found {
		return false, true
	}
	for at := end; ; {
		i := strings.Index(l.src[at:], "{%")
		if i < 0 {
			return true, l.bad(tag, end, "this raw block is never closed", "end it with {% endraw %}")
		}
		at += i
		in := at + 2
		trimEnd := in < len(l.src) && l.src[in] == '-'
		if trimEnd || in < len(l.src) && l.src[in] == '+' {
			in++
		}
		if after, trim, found := tagNamed(l.src, in, "endraw"); found {
			l.trimNext = trimStart
			l.flush(end, at, trimEnd)
			l.trimNext = trim
			l.pos = after
			return true, true
		}
		at += 2
	}
}

// tagNamed reports whether the tag whose inside starts at pos is just that name;
// end is the offset after it, trim whether it ends in -%}.
func tagNamed(src string, pos int, name string) (end int, trim, ok bool) {
	s := strings.TrimLeftFunc(src[pos:], unicode.IsSpace)
	s, ok = strings.CutPrefix(s, name)
	if !ok {
		return 0, false, false
	}
	s = strings.TrimLeftFunc(s, unicode.IsSpace)
	if t, cut := strings.CutPrefix(s, "-"); cut {
		s, trim = t, true
	} else {
		s = strings.TrimPrefix(s, "+")
	}
	s, ok = strings.CutPrefix(s, "%}")
	return len(src) - len(s), trim, ok
}

var operators = []string{
	"**", "//", "==", "!=", ">=", "<=",
	"+", "-", "*", "/", "%", "~", "<", ">", "=", "(", ")", "[", "]", "{", "}", ".", ":", "|", ",",
}

// foreign are operators of other languages, with what is written here.
var foreign = []struct{ op, hint string }{
	{"&&", "write and"},
	{"||", "write or"},
	{"===", "write =="},
	{"!==", "write !="},
	{"??", "write | default(...)"},
	{"=>", "write >="},
	{"=<", "write <="},
	{"<>", "write !="},
	{"!", "write not"},
	{"?", "write a if c else b"},
	{";", ""},
	{"^", "a power is written **"},
	{"&", "write and"},
}

// code lexes the inside of a tag up to and with its end; false at a fault.
func (l *lexer) code(end tokenKind, open Span) bool {
	depth := 0
	for {
		for l.pos < len(l.src) {
			r, n := utf8.DecodeRuneInString(l.src[l.pos:])
			if !unicode.IsSpace(r) {
				break
			}
			l.pos += n
		}
		rest := l.src[l.pos:]
		if rest == "" {
			if end != tokEOF {
				want := map[tokenKind]string{tokClose: "}}", tokEnd: "%}"}[end]
				return l.bad(open.Off, open.End, "this "+l.src[open.Off:open.Off+2]+" is never closed", "end it with "+want)
			}
			l.add(tokEOF, l.pos, l.pos, "")
			return false
		}
		if depth == 0 && end != tokEOF && l.closing(end, rest) {
			return true
		}
		c, off := rest[0], l.pos
		switch {
		case c == '"' || c == '\'':
			if !l.str() {
				return false
			}
		case c >= '0' && c <= '9':
			if !l.number() {
				return false
			}
		case c == '$' && isNameStart(rest[1:]):
			l.pos++
			l.name(off)
			l.deprecated = append(l.deprecated, Span{off, l.pos})
		case isNameStart(rest):
			l.name(off)
		default:
			op := ""
			for _, f := range foreign {
				if strings.HasPrefix(rest, f.op) && (f.op != "!" || !strings.HasPrefix(rest, "!=")) {
					return l.bad(off, off+len(f.op), "unexpected '"+f.op+"'", f.hint)
				}
			}
			for _, o := range operators {
				if strings.HasPrefix(rest, o) {
					op = o
					break
				}
			}
			switch op {
			case "":
				r, n := utf8.DecodeRuneInString(rest)
				return l.bad(off, off+n, "unexpected character "+strconv.QuoteRune(r), "")
			case "(", "[", "{":
				depth++
			case ")", "]", "}":
				depth = max(0, depth-1)
			}
			l.pos += len(op)
			l.add(tokOp, off, l.pos, op)
		}
	}
}

// closing consumes the end of the tag, where rest starts with it.
func (l *lexer) closing(end tokenKind, rest string) bool {
	mark := "}}"
	if end == tokEnd {
		mark = "%}"
	}
	s, trim := strings.CutPrefix(rest, "-")
	if !trim && end == tokEnd {
		s = strings.TrimPrefix(s, "+")
	}
	if !strings.HasPrefix(s, mark) {
		return false
	}
	off := l.pos
	l.pos = len(l.src) - len(s) + 2
	l.trimNext = trim
	l.add(end, off, l.pos, mark)
	return true
}

func isNameStart(s string) bool {
	r, _ := utf8.DecodeRuneInString(s)
	return r == '_' || unicode.IsLetter(r)
}

func (l *lexer) name(off int) {
	start := l.pos
	for l.pos < len(l.src) {
		r, n := utf8.DecodeRuneInString(l.src[l.pos:])
		if r != '_' && !unicode.IsLetter(r) && !unicode.IsDigit(r) && !unicode.Is(unicode.Mn, r) {
			break
		}
		l.pos += n
	}
	l.add(tokName, off, l.pos, l.src[start:l.pos])
}

func (l *lexer) number() bool {
	off, s := l.pos, l.src
	digits := func(i int) int { // the end of \d+(_\d+)*, or i
		for i < len(s) && (s[i] >= '0' && s[i] <= '9' || s[i] == '_' && i+1 < len(s) && s[i+1] >= '0' && s[i+1] <= '9') {
			i++
		}
		return i
	}
	var end int
	isFloat := false
	if s[off] == '0' && off+1 < len(s) && strings.IndexByte("xXoObB", s[off+1]) >= 0 {
		end = off + 2
		for end < len(s) && (s[end] == '_' || isHex(s[end])) {
			end++
		}
	} else {
		end = digits(off)
		afterDot := len(l.tokens) > 0 && l.tokens[len(l.tokens)-1].text == "." && l.tokens[len(l.tokens)-1].kind == tokOp
		if !afterDot && end+1 < len(s) && s[end] == '.' && s[end+1] >= '0' && s[end+1] <= '9' {
			end, isFloat = digits(end+1), true
		}
		if !afterDot && end < len(s) && (s[end] == 'e' || s[end] == 'E') {
			i := end + 1
			if i < len(s) && (s[i] == '+' || s[i] == '-') {
				i++
			}
			if j := digits(i); j > i {
				end, isFloat = j, true
			}
		}
	}
	l.pos = end
	t := token{kind: tokInt, Span: Span{off, end}, text: s[off:end]}
	plain := strings.ReplaceAll(t.text, "_", "")
	if isFloat {
		f, err := strconv.ParseFloat(plain, 64)
		if err != nil || math.IsInf(f, 0) {
			return l.bad(off, end, "the number "+t.text+" is too large", "")
		}
		t.kind, t.num = tokFloat, f
	} else {
		base := 10
		if len(plain) > 1 && plain[0] == '0' && (plain[1] > '9') {
			base = 0
		}
		n, err := strconv.ParseInt(plain, base, 64)
		if err != nil {
			if strings.Contains(err.Error(), "range") {
				return l.bad(off, end, "the number "+t.text+" does not fit in 64 bits", "")
			}
			return l.bad(off, end, "malformed number "+t.text, "")
		}
		t.num = n
	}
	l.tokens = append(l.tokens, t)
	return true
}

func isHex(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'a' && c <= 'f' || c >= 'A' && c <= 'F'
}

var escapes = map[byte]byte{'n': '\n', 't': '\t', 'r': '\r', 'a': '\a', 'b': '\b', 'f': '\f', 'v': '\v', '\\': '\\', '\'': '\'', '"': '"'}

// str lexes a quoted text. As in Python an unknown escape keeps its backslash.
func (l *lexer) str() bool {
	off, s := l.pos, l.src
	quote := s[off]
	var b []byte
	i := off + 1
	for {
		if i >= len(s) {
			return l.bad(off, off+1, "this text is never closed", "end it with "+string(quote))
		}
		c := s[i]
		if c == quote {
			break
		}
		if c != '\\' || i+1 >= len(s) {
			b = append(b, c)
			i++
			continue
		}
		e := s[i+1]
		digits, base := 0, 16
		switch e {
		case 'x':
			digits = 2
		case 'u':
			digits = 4
		case 'U':
			digits = 8
		case '0', '1', '2', '3', '4', '5', '6', '7':
			base = 8
		}
		switch r, ok := escapes[e]; {
		case ok:
			b = append(b, r)
			i += 2
		case e == '\n':
			i += 2
		case base == 8:
			j := i + 1
			for j < len(s) && j < i+4 && s[j] >= '0' && s[j] <= '7' {
				j++
			}
			n, _ := strconv.ParseUint(s[i+1:j], 8, 32)
			b = utf8.AppendRune(b, rune(n)) //nolint:gosec // three octal digits
			i = j
		case digits > 0:
			end := i + 2 + digits
			if end > len(s) {
				return l.bad(i, len(s), "malformed escape in a text", "")
			}
			n, err := strconv.ParseUint(s[i+2:end], 16, 32)
			if err != nil || n > unicode.MaxRune || n >= 0xD800 && n < 0xE000 {
				return l.bad(i, end, "malformed escape in a text", `write \xhh, \uhhhh or \Uhhhhhhhh`)
			}
			b = utf8.AppendRune(b, rune(n))
			i = end
		default:
			b = append(b, '\\')
			i++
		}
	}
	l.pos = i + 1
	l.add(tokString, off, l.pos, string(b))
	return true
}
