package spec

import (
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"
)

// The ends of an <AUTO> tag.
const (
	tagOpen  = "<AUTO"
	tagClose = "</AUTO>"
)

// veil is where the characters that YAML must not see in an unquoted tag are
// moved to: private-use runes that no text holds, one for each of ASCII.
const veil = 0x10F800

// veiled are the characters that mean something to YAML within an unquoted
// value. Line breaks are among them, so that a tag can have several lines
// whatever their indentation.
const veiled = ":#,[]{}&*!|>%@`\"'\n\t"

// shielded is a source with its unquoted <AUTO> tags hidden from YAML. Each
// hidden character became one rune, so columns stay; lines are fewer where tags
// have several.
type shielded struct {
	text   *text  // what YAML reads
	moved  []int  // offsets in it of the runes that stand for hidden characters, rising
	tags   []span // the outermost tags, in the source
	orphan []int  // offsets in the source of unquoted tags without an end
}

// shield hides the unquoted tags of a source. The result is nil where there are
// none.
func shield(t *text) (*shielded, *fault) {
	if !strings.Contains(t.src, tagOpen) {
		return nil, nil
	}
	s := scanner{src: t.src, indent: -1, ends: map[int]int{}}
	s.run()
	if len(s.tags) == 0 && len(s.orphan) == 0 {
		return nil, nil
	}
	for _, prefix := range []string{"\xf4\x8f\xa0", "\xf4\x8f\xa1"} { // of the runes from veil to veil+127
		if i := strings.Index(t.src, prefix); i >= 0 {
			r, n := utf8.DecodeRuneInString(t.src[i:])
			return nil, &fault{code: "E0101", at: span{i, i + n}, msg: fmt.Sprintf("the private-use character U+%04X cannot stand beside unquoted <AUTO> tags", r), hint: "quote the tags, or leave the character out"}
		}
	}
	out := &shielded{tags: s.tags, orphan: s.orphan}
	var b strings.Builder
	at := 0
	for _, tag := range s.tags {
		b.WriteString(t.src[at:tag.off])
		for i := tag.off; i < tag.end; i++ {
			c := t.src[i]
			if strings.IndexByte(veiled, c) >= 0 && i > tag.off {
				out.moved = append(out.moved, b.Len())
				b.WriteRune(veil + rune(c))
				continue
			}
			b.WriteByte(c)
		}
		at = tag.end
	}
	b.WriteString(t.src[at:])
	out.text = lines(t.file, b.String())
	return out, nil
}

// offset is where a line and column of what YAML read stand in the source.
func (s *shielded) offset(ln, col int) int {
	off := s.text.offset(ln, col)
	before, _ := slices.BinarySearch(s.moved, off)
	return off - before*(utf8.RuneLen(veil)-1)
}

// unveil gives a value of YAML's back the characters that were hidden from it.
func (s *shielded) unveil(v string) string {
	if !strings.Contains(v, "\xf4\x8f\xa0") && !strings.Contains(v, "\xf4\x8f\xa1") {
		return v
	}
	return strings.Map(func(r rune) rune {
		if r >= veil && r < veil+utf8.RuneSelf {
			return r - veil
		}
		return r
	}, v)
}

// from lists the tags that begin at off or behind.
func (s *shielded) from(off int) []span {
	i, _ := slices.BinarySearchFunc(s.tags, off, func(tag span, off int) int { return tag.off - off })
	return s.tags[i:]
}

// isTag reports whether an <AUTO> tag begins here.
func isTag(s string) bool {
	return strings.HasPrefix(s, tagOpen) && (len(s) == len(tagOpen) || strings.IndexByte(" \t\n>/", s[len(tagOpen)]) >= 0)
}

// scanner goes through YAML just far enough to tell unquoted values from quoted
// ones, blocks and comments. What is not YAML it passes over; the library
// reports it.
type scanner struct {
	src    string
	i      int
	line   int // where the line of i begins
	token  int // where the scalar began that was seen last
	flow   int // brackets and braces that are open
	indent int // column of the key or dash whose value this is, -1: the document
	ends   map[int]int
	tags   []span
	orphan []int
}

func (s *scanner) run() {
	for s.i < len(s.src) {
		switch b := s.src[s.i]; {
		case b == '\n':
			s.i++
			s.line = s.i
		case s.i == s.line && s.marker():
			s.indent = -1
			s.i += 3
		case b == ' ' || b == '\t':
			s.i++
		case b == '#' && s.blankBefore(), b == '%' && s.i == s.line:
			s.i = s.lineEnd(s.i)
		case b == '"' || b == '\'':
			s.token = s.i
			s.quoted(b)
		case b == '&' || b == '*' || b == '!':
			for s.i < len(s.src) && strings.IndexByte(" \t\n,]}", s.src[s.i]) < 0 {
				s.i++
			}
		case (b == '|' || b == '>') && s.flow == 0:
			s.block()
		case b == '[' || b == '{':
			s.flow++
			s.i++
		case b == ']' || b == '}':
			s.flow = max(s.flow-1, 0)
			s.i++
		case b == ',' && s.flow > 0:
			s.i++
		case (b == '-' || b == '?') && s.flow == 0 && s.blankAfter():
			s.indent = s.i - s.line
			s.i++
		case b == ':' && (s.flow > 0 || s.blankAfter()):
			s.key()
		default:
			s.plain()
		}
	}
}

// marker reports whether the line separates documents.
func (s *scanner) marker() bool {
	rest := s.src[s.i:]
	return (strings.HasPrefix(rest, "---") || strings.HasPrefix(rest, "...")) && (len(rest) == 3 || strings.IndexByte(" \t\n", rest[3]) >= 0)
}

func (s *scanner) blankBefore() bool {
	return s.i == 0 || strings.IndexByte(" \t\n", s.src[s.i-1]) >= 0
}

func (s *scanner) blankAfter() bool {
	return s.i+1 == len(s.src) || strings.IndexByte(" \t\n", s.src[s.i+1]) >= 0
}

// lineEnd is the offset of the line break behind i, or of the end.
func (s *scanner) lineEnd(i int) int {
	if k := strings.IndexByte(s.src[i:], '\n'); k >= 0 {
		return i + k
	}
	return len(s.src)
}

// key passes over the colon behind a key: what follows is its value.
func (s *scanner) key() {
	if s.flow == 0 && s.token >= s.line {
		s.indent = s.token - s.line
	}
	s.i++
}

func (s *scanner) quoted(q byte) {
	for s.i++; s.i < len(s.src); s.i++ {
		switch b := s.src[s.i]; {
		case b == '\n':
			s.line = s.i + 1
		case b == '\\' && q == '"':
			if s.i++; s.i < len(s.src) && s.src[s.i] == '\n' {
				s.line = s.i + 1
			}
		case b == q && q == '\'' && s.i+1 < len(s.src) && s.src[s.i+1] == q:
			s.i++
		case b == q:
			s.i++
			return
		}
	}
}

// block passes over a literal or folded block.
func (s *scanner) block() {
	for s.i = s.lineEnd(s.i); s.i < len(s.src); s.i = s.lineEnd(s.i + 1) {
		if indent, blank := s.margin(s.i + 1); !blank && indent <= s.indent {
			return
		}
	}
}

// margin is the number of spaces that the line at off begins with, and whether
// it has nothing else.
func (s *scanner) margin(off int) (indent int, blank bool) {
	i := off
	for i < len(s.src) && s.src[i] == ' ' {
		i++
	}
	return i - off, i >= len(s.src) || s.src[i] == '\n'
}

// plain passes over an unquoted scalar, which may go on in further lines, and
// notes the tags in it.
func (s *scanner) plain() {
	s.token = s.i
	for s.i < len(s.src) {
		switch b := s.src[s.i]; {
		case b == '\n':
			if !s.goesOn() {
				return
			}
		case b == ':' && (s.blankAfter() || s.flow > 0 && strings.IndexByte(",[]{}", s.src[s.i+1]) >= 0):
			s.key()
			return
		case b == '#' && s.blankBefore():
			return
		case s.flow > 0 && strings.IndexByte(",[]{}", b) >= 0:
			return
		case b == '<' && isTag(s.src[s.i:]):
			s.tag()
		default:
			s.i++
		}
	}
}

// goesOn reports whether the scalar goes on behind the line break at i, and
// passes over it then.
func (s *scanner) goesOn() bool {
	next := s.i + 1
	for {
		indent, blank := s.margin(next)
		if !blank {
			at := next + indent
			if s.flow == 0 && indent <= s.indent || s.src[at] == '#' {
				return false
			}
			s.line, s.i = next, at
			return true
		}
		if next = s.lineEnd(min(next, len(s.src))) + 1; next > len(s.src) {
			return false
		}
	}
}

// tag passes over a tag.
func (s *scanner) tag() {
	end := s.end(s.i)
	if end < 0 {
		s.orphan = append(s.orphan, s.i)
		s.i += len(tagOpen)
		return
	}
	s.tags = append(s.tags, span{s.i, end})
	if k := strings.LastIndexByte(s.src[s.i:end], '\n'); k >= 0 {
		s.line = s.i + k + 1
	}
	s.i = end
}

// end finds where the tag at from ends, with the tags within it; -1: nowhere.
// What is found out about tags within is kept, so that a source is gone through
// once even where no tag has an end.
func (s *scanner) end(from int) int {
	if end, known := s.ends[from]; known {
		return end
	}
	var open []int
	for i := from; i < len(s.src); {
		switch rest := s.src[i:]; {
		case rest[0] == '\n' && s.flow == 0 && !s.within(i+1):
			i = len(s.src)
		case isTag(rest):
			open = append(open, i)
			i += len(tagOpen)
		case strings.HasPrefix(rest, tagClose):
			i += len(tagClose)
			s.ends[open[len(open)-1]] = i
			if open = open[:len(open)-1]; len(open) == 0 {
				return i
			}
		default:
			i++
		}
	}
	for _, o := range open {
		s.ends[o] = -1
	}
	return -1
}

// within reports whether the line at off can belong to a tag that began above:
// it is indented like a value, or begins with the end of the tag.
func (s *scanner) within(off int) bool {
	indent, blank := s.margin(off)
	return blank || indent > s.indent || s.src[off+indent] == '\t' || indent == s.indent && strings.HasPrefix(s.src[off+indent:], tagClose)
}
