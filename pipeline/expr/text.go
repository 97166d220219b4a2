package expr

import (
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Text returns how a value prints inside a text: null prints nothing, a text
// itself, booleans as true and false, floats in their shortest form with at least
// one decimal (2.0, 1e+16), lists and maps as JSON with sorted keys.
func Text(v any) string {
	s, _ := textWithin(v, math.MaxInt)
	return s
}

func textWithin(v any, limit int) (string, bool) {
	switch v := plain(v).(type) {
	case nil:
		return "", true
	case string:
		return v, true
	case bool:
		return strconv.FormatBool(v), true
	case int64:
		return strconv.FormatInt(v, 10), true
	}
	w := writer{limit: limit}
	ok := w.value(v, false)
	return string(w.b), ok
}

// writer prints values, up to limit bytes.
type writer struct {
	b      []byte
	limit  int
	indent int // blanks per level; 0 prints on one line
	level  int
}

// value prints v, inside a list or map as JSON; false when the limit is passed.
func (w *writer) value(v any, inside bool) bool {
	switch v := plain(v).(type) {
	case nil:
		if inside {
			w.b = append(w.b, "null"...)
		}
	case bool:
		w.b = strconv.AppendBool(w.b, v)
	case int64:
		w.b = strconv.AppendInt(w.b, v, 10)
	case float64:
		w.b = appendFloat(w.b, v)
	case string:
		if len(v) > w.limit-len(w.b) {
			return false
		}
		if inside {
			w.b = appendQuoted(w.b, v)
		} else {
			w.b = append(w.b, v...)
		}
	case []any:
		return w.block('[', ']', len(v), func(i int) bool { return w.value(v[i], true) })
	case map[string]any:
		keys := slices.Sorted(maps.Keys(v))
		return w.block('{', '}', len(keys), func(i int) bool {
			w.b = appendQuoted(w.b, keys[i])
			w.b = append(w.b, ": "...)
			return w.value(v[keys[i]], true)
		})
	}
	return len(w.b) <= w.limit
}

func (w *writer) block(open, end byte, n int, item func(i int) bool) bool {
	w.b = append(w.b, open)
	w.level++
	for i := range n {
		switch {
		case w.indent > 0 && i > 0:
			w.b = append(w.b, ',')
			w.line()
		case w.indent > 0:
			w.line()
		case i > 0:
			w.b = append(w.b, ", "...)
		}
		if len(w.b) > w.limit || !item(i) {
			return false
		}
	}
	w.level--
	if w.indent > 0 && n > 0 {
		w.line()
	}
	w.b = append(w.b, end)
	return len(w.b) <= w.limit
}

func (w *writer) line() {
	w.b = append(w.b, '\n')
	for range min(w.indent*w.level, 1<<16) {
		w.b = append(w.b, ' ')
	}
}

// appendFloat prints as Python's repr does.
func appendFloat(b []byte, f float64) []byte {
	if f != 0 && (math.Abs(f) < 1e-4 || math.Abs(f) >= 1e16) {
		return strconv.AppendFloat(b, f, 'e', -1, 64)
	}
	n := len(b)
	b = strconv.AppendFloat(b, f, 'f', -1, 64)
	for _, c := range b[n:] {
		if c == '.' || c == 'I' || c == 'N' {
			return b
		}
	}
	return append(b, ".0"...)
}

// appendQuoted prints a JSON text; only what JSON demands is escaped.
func appendQuoted(b []byte, s string) []byte {
	b = append(b, '"')
	for i := 0; i < len(s); {
		c := s[i]
		if c < utf8.RuneSelf {
			switch {
			case c == '"' || c == '\\':
				b = append(b, '\\', c)
			case c == '\n':
				b = append(b, `\n`...)
			case c == '\r':
				b = append(b, `\r`...)
			case c == '\t':
				b = append(b, `\t`...)
			case c < 0x20:
				const hex = "0123456789abcdef"
				b = append(b, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
			default:
				b = append(b, c)
			}
			i++
			continue
		}
		r, n := utf8.DecodeRuneInString(s[i:])
		b = utf8.AppendRune(b, r)
		i += n
	}
	return append(b, '"')
}

// Truthy reports whether v counts as true: null, false, zero and what is empty
// do not.
func Truthy(v any) bool {
	switch v := plain(v).(type) {
	case nil:
		return false
	case bool:
		return v
	case int64:
		return v != 0
	case float64:
		return v != 0
	case string:
		return v != ""
	case []any:
		return len(v) > 0
	case map[string]any:
		return len(v) > 0
	}
	return true
}

func typeName(v any) string {
	switch plain(v).(type) {
	case nil:
		return "null"
	case bool:
		return "a boolean"
	case int64:
		return "a whole number"
	case float64:
		return "a number"
	case string:
		return "a text"
	case []any:
		return "a list"
	case map[string]any:
		return "a map"
	}
	return "an unknown value"
}

// quoteShort quotes the beginning of a text for a message.
func quoteShort(s string) string {
	const most = 40
	if len(s) > most {
		n := most
		for n > 0 && !utf8.RuneStart(s[n]) {
			n--
		}
		s = s[:n] + "..."
	}
	return strconv.Quote(s)
}

// runes indexes a text by code points.
type runes struct {
	s string
	r []rune // nil for ASCII
}

func (ev *evaluator) runes(s string, at Span) runes {
	ev.scan(len(s), at)
	for i := range len(s) {
		if s[i] >= utf8.RuneSelf {
			return runes{s: s, r: []rune(s)}
		}
	}
	return runes{s: s}
}

func (r runes) len() int {
	if r.r != nil {
		return len(r.r)
	}
	return len(r.s)
}

func (r runes) slice(from, to int) string {
	if r.r != nil {
		return string(r.r[from:to])
	}
	return r.s[from:to]
}

// Suggest returns the name of among that is most like the given one, or "" when
// none is close: at most a third of its letters differ, or one.
func Suggest(name string, among []string) string {
	best, least := "", max(1, len(name)/3)+1
	for _, s := range slices.Sorted(slices.Values(among)) {
		if s == name || len(s)-len(name) >= least || len(name)-len(s) >= least || len(s) > 100 {
			continue
		}
		if d := distance(strings.ToLower(name), strings.ToLower(s)); d < least && d < len(name) {
			best, least = s, d
		}
	}
	return best
}

func didYouMean(name string, among []string) string {
	if s := Suggest(name, among); s != "" {
		return "did you mean '" + s + "'?"
	}
	return ""
}

// distance counts insertions, deletions, substitutions and swaps of neighbours.
func distance(a, b string) int {
	prev2, prev, cur := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range prev {
		prev[j] = j
	}
	for i := 1; i <= len(a); i++ {
		cur[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			cur[j] = min(prev[j]+1, cur[j-1]+1, prev[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				cur[j] = min(cur[j], prev2[j-2]+1)
			}
		}
		prev2, prev, cur = prev, cur, prev2
	}
	return prev[len(b)]
}
