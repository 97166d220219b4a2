package spec

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v4"
)

// value resolves a scalar by the core schema of YAML 1.2: nil, bool, int64,
// float64 or string. The library's own tags are not asked; they follow
// YAML 1.1 in places.
func (n *node) value() (any, *fault) {
	if n.quoted() && n.tag == "" || n.tag == "!!str" || n.tag == "!" {
		return n.text, nil
	}
	v, err := plainValue(n.text)
	if err != "" {
		return nil, &fault{code: "E0104", at: n.at, msg: err, hint: "quote it if it is meant as a text"}
	}
	ok := true
	switch n.tag {
	case "!!int":
		_, ok = v.(int64)
	case "!!float":
		if i, isInt := v.(int64); isInt {
			v = float64(i)
		}
		_, ok = v.(float64)
	case "!!bool":
		_, ok = v.(bool)
	case "!!null":
		ok = v == nil
	}
	if !ok {
		return nil, &fault{code: "E0104", at: n.at, msg: fmt.Sprintf("%q is not what its tag %s says", n.text, n.tag)}
	}
	return v, nil
}

// plainValue resolves an unquoted scalar. The message is empty on success.
func plainValue(s string) (v any, problem string) {
	switch s {
	case "", "~", "null", "Null", "NULL":
		return nil, ""
	case "true", "True", "TRUE":
		return true, ""
	case "false", "False", "FALSE":
		return false, ""
	}
	switch c := s[0]; {
	case c >= '0' && c <= '9' || c == '-' || c == '+' || c == '.':
	default:
		return s, ""
	}
	if isInt(s) {
		i, err := strconv.ParseInt(s, 10, 64)
		if err != nil {
			return nil, fmt.Sprintf("the integer %s does not fit into 64 bits", s)
		}
		return i, ""
	}
	if len(s) > 2 && s[0] == '0' && (s[1] == 'x' || s[1] == 'o') {
		base, digits := 16, "0123456789abcdefABCDEF"
		if s[1] == 'o' {
			base, digits = 8, "01234567"
		}
		if strings.Trim(s[2:], digits) == "" {
			i, err := strconv.ParseInt(s[2:], base, 64)
			if err != nil {
				return nil, fmt.Sprintf("the integer %s does not fit into 64 bits", s)
			}
			return i, ""
		}
		return s, ""
	}
	if isFloat(s) {
		f, err := strconv.ParseFloat(s, 64)
		if err != nil || math.IsInf(f, 0) {
			return nil, fmt.Sprintf("the number %s is out of range", s)
		}
		return f, ""
	}
	switch strings.ToLower(strings.TrimLeft(s, "+-")) {
	case ".inf", ".nan":
		if t := strings.TrimLeft(s, "+-")[1:]; len(s) <= 5 && (t == strings.ToLower(t) || t == strings.ToUpper(t) || t == "Inf" || t == "NaN") {
			return nil, fmt.Sprintf("the number %s is not finite", s)
		}
	}
	return s, ""
}

func isInt(s string) bool {
	if s[0] == '-' || s[0] == '+' {
		s = s[1:]
	}
	if s == "" {
		return false
	}
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return true
}

func isFloat(s string) bool {
	if s[0] == '-' || s[0] == '+' {
		s = s[1:]
	}
	digits := func() int {
		n := 0
		for n < len(s) && s[n] >= '0' && s[n] <= '9' {
			n++
		}
		s = s[n:]
		return n
	}
	whole := digits()
	fraction := 0
	if s != "" && s[0] == '.' {
		s = s[1:]
		fraction = digits()
	}
	if whole+fraction == 0 {
		return false
	}
	if s != "" && (s[0] == 'e' || s[0] == 'E') {
		s = s[1:]
		if s != "" && (s[0] == '-' || s[0] == '+') {
			s = s[1:]
		}
		if digits() == 0 {
			return false
		}
	}
	return s == ""
}

// body is the offset of the first byte of the scalar's content.
func (n *node) body() int {
	if n.style&(yaml.SingleQuotedStyle|yaml.DoubleQuotedStyle) != 0 {
		return n.off + 1
	}
	return n.off
}

// block reports whether the scalar is a literal or folded block.
func (n *node) block() bool { return n.style&(yaml.LiteralStyle|yaml.FoldedStyle) != 0 }

// verbatim reports whether the scalar's text stands in the source as it is.
func (t *text) verbatim(n *node) bool {
	return !n.block() && strings.HasPrefix(t.src[min(n.body(), len(t.src)):], n.text)
}

// scalarSpan is what a message about a scalar underlines: the value, up to the
// end of its first line.
func (t *text) scalarSpan(n *node) span {
	end := t.lineEnd(n.off)
	if n.block() {
		return span{n.off, end}
	}
	if t.verbatim(n) {
		e := n.body() + len(n.text)
		if n.body() != n.off && e < len(t.src) {
			e++
		}
		if strings.IndexByte(n.text, '\n') < 0 {
			return span{n.off, e}
		}
	}
	if q := n.off; n.body() != q && q < len(t.src) {
		for i := q + 1; i < end; i++ {
			switch {
			case t.src[i] == '\\' && t.src[q] == '"':
				i++
			case t.src[i] == '\'' && t.src[q] == '\'' && i+1 < end && t.src[i+1] == '\'':
				i++
			case t.src[i] == t.src[q]:
				return span{q, i + 1}
			}
		}
	}
	return span{n.off, n.off + len(strings.TrimRight(t.src[n.off:end], " \t"))}
}

// collectionSpan is what a message about a list or mapping underlines: its
// first element or bracket.
func (t *text) collectionSpan(n *node) span {
	if n.style&yaml.FlowStyle == 0 {
		if n.kind == mapping && len(n.pairs) > 0 {
			return n.pairs[0].key.at
		}
		if n.kind == list && len(n.items) > 0 {
			return span{n.off, min(n.items[0].at.end, t.lineEnd(n.off))}
		}
		return span{n.off, n.off + 1}
	}
	end := t.lineEnd(n.off)
	last := n.off
	for _, i := range n.items {
		last = max(last, i.at.end)
	}
	for i := range n.pairs {
		last = max(last, n.pairs[i].key.at.end, n.pairs[i].value.at.end)
	}
	if last >= end {
		return span{n.off, end}
	}
	closing := byte(']')
	if n.kind == mapping {
		closing = '}'
	}
	if i := strings.IndexByte(t.src[last:end], closing); i >= 0 {
		return span{n.off, last + i + 1}
	}
	return span{n.off, end}
}

// source maps byte offsets in the scalar's decoded text to byte offsets in
// the source, by scanning the scalar again.
func (t *text) source(n *node) func(int) int {
	if t.verbatim(n) {
		base := n.body()
		return func(i int) int { return base + i }
	}
	var m []int32
	switch {
	case n.style&yaml.LiteralStyle != 0:
		m = t.mapLiteral(n)
	case n.style&yaml.FoldedStyle != 0:
		m = t.mapFolded(n)
	default:
		m = t.mapFlow(n)
	}
	return func(i int) int {
		if len(m) == 0 {
			return n.off
		}
		if i >= len(m) { // the end of the text: behind its last byte
			return int(m[len(m)-1]) + 1
		}
		return int(m[max(i, 0)])
	}
}

// mapFlow scans plain and quoted scalars.
func (t *text) mapFlow(n *node) []int32 {
	src, value := t.src, n.text
	m := make([]int32, 0, len(value))
	double := n.style&yaml.DoubleQuotedStyle != 0
	single := n.style&yaml.SingleQuotedStyle != 0
	emit := func(from, count int) {
		for k := 0; k < count && len(m) < len(value); k++ {
			m = append(m, int32(from)) //nolint:gosec // a source is at most 4 MiB
		}
	}
	tags := n.tags
	for i := n.body(); i < len(src) && len(m) < len(value); {
		c := src[i]
		if len(tags) > 0 && i == tags[0].off { // a tag stands in the text as it is
			for ; i < tags[0].end; i++ {
				emit(i, 1)
			}
			tags = tags[1:]
			continue
		}
		switch {
		case c == ' ' || c == '\t' || c == '\n':
			j, breaks := i, 0
			for j < len(src) && (src[j] == ' ' || src[j] == '\t' || src[j] == '\n') {
				if src[j] == '\n' {
					breaks++
				}
				j++
			}
			switch breaks {
			case 0:
				for ; i < j; i++ {
					emit(i, 1)
				}
			case 1:
				emit(i, 1)
			default:
				emit(i, breaks-1)
			}
			i = j
		case c == '\\' && double:
			w := escapeWidth(src[i:])
			if i+1 < len(src) && src[i+1] == '\n' { // the line goes on
				for i += 2; i < len(src) && (src[i] == ' ' || src[i] == '\t'); {
					i++
				}
				continue
			}
			_, size := utf8.DecodeRuneInString(value[len(m):])
			emit(i, size)
			i += w
		case c == '\'' && single && i+1 < len(src) && src[i+1] == '\'':
			emit(i, 1)
			i += 2
		default:
			_, size := utf8.DecodeRuneInString(src[i:])
			for k := range size {
				emit(i+k, 1)
			}
			i += size
		}
	}
	return m
}

// escapeWidth is the length of the escape that s begins with.
func escapeWidth(s string) int {
	if len(s) < 2 {
		return len(s)
	}
	w := 2
	switch s[1] {
	case 'x':
		w = 4
	case 'u':
		w = 6
		if len(s) >= 12 && (s[2] == 'd' || s[2] == 'D') && strings.IndexByte("89abAB", s[3]) >= 0 && s[6] == '\\' && s[7] == 'u' {
			w = 12 // a surrogate pair
		}
	case 'U':
		w = 10
	}
	return min(w, len(s))
}

// mapLiteral scans a | block: each line of the text ends its line of the source.
func (t *text) mapLiteral(n *node) []int32 {
	m := make([]int32, 0, len(n.text))
	start := t.lineEnd(n.off) + 1
	for line := range strings.SplitAfterSeq(n.text, "\n") {
		if start > len(t.src) {
			break
		}
		end := t.lineEnd(start)
		from := max(end-len(strings.TrimSuffix(line, "\n")), start)
		for k := range len(line) {
			m = append(m, int32(from+k)) //nolint:gosec // a source is at most 4 MiB
		}
		start = end + 1
	}
	return m
}

// mapFolded scans a > block, whose line breaks became blanks or vanished.
func (t *text) mapFolded(n *node) []int32 {
	value := n.text
	m := make([]int32, 0, len(value))
	indent := -1
	for start := t.lineEnd(n.off) + 1; start <= len(t.src) && len(m) < len(value); {
		end := t.lineEnd(start)
		src := t.src[start:end]
		lead := len(src) - len(strings.TrimLeft(src, " "))
		if lead == len(src) {
			start = end + 1
			continue
		}
		for len(m) < len(value) && value[len(m)] == '\n' {
			m = append(m, int32(start)) //nolint:gosec // a source is at most 4 MiB
		}
		rest := value[len(m):]
		if indent < 0 {
			indent = max(lead-(len(rest)-len(strings.TrimLeft(rest, " "))), 0)
		}
		content := src[min(indent, lead):]
		if !strings.HasPrefix(rest, content) && strings.HasPrefix(rest, " ") {
			m = append(m, int32(start-1)) //nolint:gosec // a source is at most 4 MiB
			rest = rest[1:]
		}
		for k := range min(len(content), len(rest)) {
			m = append(m, int32(start+min(indent, lead)+k)) //nolint:gosec // a source is at most 4 MiB
		}
		start = end + 1
	}
	return m
}
