package spec

import (
	"fmt"
	"regexp"
	"strings"
)

const (
	noTagEnd   = "this <AUTO> tag has no end"
	tagEndHint = "it ends with </AUTO>"
)

// tag is an <AUTO> tag at its place in a text, in bytes.
type tag struct {
	span
	attrs   []attribute
	open    int  // where its own text begins
	close   int  // and ends
	inside  bool // it stands within {{ }} or {% %}
	literal bool // and there within quotes
}

// attribute is a name with its value, which may be empty.
type attribute struct {
	name, value string
	at, valueAt span
}

// tagFault is what is wrong with the tags of a text.
type tagFault struct {
	at        span
	msg, hint string
}

// findTags finds the outermost tags of a text. An expression is a condition
// without braces.
func findTags(s string, expression bool) (tags []tag, braces bool, bad *tagFault) {
	depth := 0          // of braces within an expression
	inside := byte('{') // 0 outside of braces, else what they end with
	if !expression {
		inside = 0
	}
	quote := byte(0)
	for i := 0; i < len(s); {
		rest := s[i:]
		switch b := s[i]; {
		case isTag(rest):
			t, bad := readTag(s, i)
			if bad != nil {
				return nil, braces, bad
			}
			t.inside, t.literal = inside != 0, quote != 0
			tags = append(tags, t)
			i = t.end
			continue
		case strings.HasPrefix(rest, tagClose):
			return nil, braces, &tagFault{span{i, i + len(tagClose)}, "this </AUTO> ends nothing", "a tag begins with <AUTO>"}
		case inside == 0 && b == '{' && len(rest) > 1 && strings.IndexByte("{%#", rest[1]) >= 0:
			braces = true
			if end := skipped(rest); end > 0 {
				i += end
				continue
			}
			inside, depth = rest[1], 0
			if inside == '{' {
				inside = '}'
			}
			i++
		case inside == 0:
		case quote != 0 && b == '\\':
			i++
		case quote != 0:
			if b == quote {
				quote = 0
			}
		case b == '\'' || b == '"':
			quote = b
		case b == '{':
			depth++
		case b == '}' && depth > 0:
			depth--
		case b == inside && len(rest) > 1 && rest[1] == '}':
			inside = 0
			i++
		}
		i++
	}
	return tags, braces, nil
}

var (
	rawBegin = regexp.MustCompile(`^\{%[-+]?\s*raw\s*[-+]?%\}`)
	rawEnd   = regexp.MustCompile(`\{%[-+]?\s*endraw\s*[-+]?%\}`)
)

// skipped is the length of a comment, or of a part that stands for itself; 0
// for anything else.
func skipped(s string) int {
	if strings.HasPrefix(s, "{#") {
		if i := strings.Index(s, "#}"); i >= 0 {
			return i + 2
		}
		return len(s)
	}
	if n := len(rawBegin.FindString(s)); n > 0 {
		if end := rawEnd.FindStringIndex(s[n:]); end != nil {
			return n + end[1]
		}
	}
	return 0
}

// readTag reads the tag that begins at i.
func readTag(s string, i int) (tag, *tagFault) {
	t := tag{span: span{i, 0}}
	begin := span{i, i + len(tagOpen)}
	p := i + len(tagOpen)
	blank := func() {
		for p < len(s) && strings.IndexByte(" \t\r\n", s[p]) >= 0 {
			p++
		}
	}
	for {
		blank()
		switch {
		case p >= len(s):
			return t, &tagFault{begin, noTagEnd, tagEndHint}
		case s[p] == '>':
			t.open = p + 1
			return t.toEnd(s)
		}
		a := attribute{at: span{p, p}}
		for p < len(s) && (s[p] >= 'a' && s[p] <= 'z' || s[p] >= 'A' && s[p] <= 'Z' || s[p] == '_' || s[p] == '-') {
			p++
		}
		a.name, a.at.end = s[a.at.off:p], p
		if a.name == "" {
			return t, &tagFault{span{p, p + 1}, "this is no attribute of an <AUTO> tag", `attributes are written as type="integer"`}
		}
		blank()
		if p >= len(s) || s[p] != '=' {
			return t, &tagFault{a.at, fmt.Sprintf("the attribute %s has no value", a.name), fmt.Sprintf(`as in %s="..."`, a.name)}
		}
		p++
		blank()
		from := p
		var end int
		if p < len(s) && (s[p] == '"' || s[p] == '\'') {
			from++
			k := strings.IndexByte(s[from:], s[p])
			if k < 0 {
				return t, &tagFault{span{p, p + 1}, "this quote has no end", ""}
			}
			end = from + k
			p = end + 1
		} else {
			for p < len(s) && strings.IndexByte(" \t\r\n>\"'=<", s[p]) < 0 {
				p++
			}
			end = p
		}
		a.value, a.valueAt = s[from:end], span{from, max(end, from+1)}
		t.attrs = append(t.attrs, a)
	}
}

// toEnd finds the end of a tag whose beginning was read.
func (t tag) toEnd(s string) (tag, *tagFault) {
	begin := span{t.off, t.off + len(tagOpen)}
	depth := 1
	for p := t.open; p < len(s); {
		k := strings.IndexByte(s[p:], '<')
		if k < 0 {
			break
		}
		p += k
		switch rest := s[p:]; {
		case isTag(rest):
			depth++
			p += len(tagOpen)
		case strings.HasPrefix(rest, tagClose):
			if depth--; depth == 0 {
				t.close, t.end = p, p+len(tagClose)
				if strings.TrimSpace(s[t.open:t.close]) == "" {
					return t, &tagFault{begin, "this <AUTO> tag says nothing", "its text says what is to be chosen"}
				}
				return t, nil
			}
			p += len(tagClose)
		default:
			p++
		}
	}
	return t, &tagFault{begin, noTagEnd, tagEndHint}
}
