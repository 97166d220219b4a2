package expr

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// printf is Python's text % values: conversions d i u s r f F e E g G x X o c and
// %%, with flags, width and precision; names in parentheses take from a map.
func (ev *evaluator) printf(format string, v any, at Span) string {
	ev.scan(len(format), at)
	values, isList := v.([]any)
	named, isMap := v.(map[string]any)
	if !isList {
		values = []any{v}
	}
	var b strings.Builder
	used, byName := 0, false
	for format != "" {
		i := strings.IndexByte(format, '%')
		if i < 0 {
			i = len(format)
		}
		b.WriteString(format[:i])
		if format = format[i:]; format == "" {
			break
		}
		f := ev.directive(&format, at)
		if f.verb == '%' {
			b.WriteByte('%')
			continue
		}
		var x any
		switch {
		case f.named && !isMap:
			fail(at, "the format names a value, but gets no map")
		case f.named:
			var ok bool
			if x, ok = named[f.name]; !ok {
				fail(at, "the format names %s, which the map has not%s", quoteShort(f.name), itHas(slices.Sorted(maps.Keys(named))))
			}
			byName = true
		case used >= len(values):
			fail(at, "the format needs more values than the %d it gets", len(values))
		default:
			x = values[used]
			used++
		}
		s := ev.converted(f, ev.plain(x, at), at)
		if b.Len()+len(s) > maxText {
			ev.room(maxText+1, at)
		}
		b.WriteString(s)
	}
	if used < len(values) && !byName && !isMap {
		fail(at, "the format uses %d of the %d values it gets", used, len(values))
	}
	return ev.str(b.String(), at)
}

// directive is one % of a format, or one {} of str.format.
type directive struct {
	named            bool
	name             string
	plus, space, alt bool
	comma            byte // , or _ between thousands
	fill             string
	align            byte // < > ^ =
	width, prec      int  // prec -1 without
	verb             byte
}

func (ev *evaluator) directive(format *string, at Span) directive {
	f := directive{prec: -1, fill: " ", align: '>'}
	s := (*format)[1:]
	if strings.HasPrefix(s, "(") {
		i := strings.IndexByte(s, ')')
		if i < 0 {
			fail(at, "the format has a ( without )")
		}
		f.named, f.name, s = true, s[1:i], s[i+1:]
	}
flags:
	for s != "" {
		switch s[0] {
		case '-':
			f.align, f.fill = '<', " "
		case '0':
			if f.align != '<' {
				f.align, f.fill = '=', "0"
			}
		case '+':
			f.plus = true
		case ' ':
			f.space = true
		case '#':
			f.alt = true
		default:
			break flags
		}
		s = s[1:]
	}
	f.width, s = count(s, at)
	if strings.HasPrefix(s, ".") {
		f.prec, s = count(s[1:], at)
	}
	if s == "" {
		fail(at, "the format ends inside a %%")
	}
	f.verb, *format = s[0], s[1:]
	return f
}

// count reads a width or precision.
func count(s string, at Span) (int, string) {
	i := 0
	for i < len(s) && s[i] >= '0' && s[i] <= '9' {
		i++
	}
	n, err := strconv.Atoi("0" + s[:i])
	if err != nil || n > 10_000 {
		fail(at, "the format asks for more than 10,000 characters")
	}
	return n, s[i:]
}

func (ev *evaluator) converted(f directive, v any, at Span) string {
	n := number(v)
	whole := func() int64 {
		switch n := n.(type) {
		case int64:
			return n
		case float64:
			if math.Abs(n) < 1<<62 && (f.verb == 'd' || f.verb == 'i' || f.verb == 'u') {
				return int64(n)
			}
		}
		fail(at, "%%%c needs a whole number, not %s", f.verb, typeName(v))
		return 0
	}
	switch f.verb {
	case 's', 'r', 'a':
		s := ev.text(v, at)
		if f.verb != 's' {
			w := writer{limit: maxText}
			if !w.value(v, true) {
				ev.room(maxText+1, at)
			}
			s = ev.str(string(w.b), at)
		}
		if f.prec >= 0 {
			if r := ev.runes(s, at); r.len() > f.prec {
				s = r.slice(0, f.prec)
			}
		}
		if f.align == '=' {
			f.align, f.fill = '>', " "
		}
		return ev.aligned(f, "", s, at)
	case 'c':
		if s, ok := v.(string); ok && utf8.RuneCountInString(s) == 1 {
			return ev.aligned(f, "", s, at)
		}
		if r := whole(); r >= 0 && r <= utf8.MaxRune {
			return ev.aligned(f, "", string(rune(r)), at)
		}
		fail(at, "%%c needs one character")
	case 'd', 'i', 'u', 'x', 'X', 'o', 'b':
		return ev.numeral(f, whole(), at)
	case 'f', 'F', 'e', 'E', 'g', 'G':
		if n == nil {
			fail(at, "%%%c needs a number, not %s", f.verb, typeName(v))
		}
		return ev.decimal(f, toFloat(n), at)
	}
	fail(at, "the format has the unknown conversion %%%c", f.verb)
	return ""
}

func (f directive) sign(negative bool) string {
	switch {
	case negative:
		return "-"
	case f.plus:
		return "+"
	case f.space:
		return " "
	}
	return ""
}

func (ev *evaluator) numeral(f directive, n int64, at Span) string {
	base, prefix := 10, ""
	switch f.verb {
	case 'x', 'X':
		base, prefix = 16, "0x"
	case 'o':
		base, prefix = 8, "0o"
	case 'b':
		base, prefix = 2, "0b"
	}
	s := strings.TrimPrefix(strconv.FormatInt(n, base), "-")
	if len(s) < f.prec {
		s = strings.Repeat("0", f.prec-len(s)) + s
	}
	if !f.alt {
		prefix = ""
	}
	s, sign := f.thousands(s), f.sign(n < 0)+prefix
	if f.verb == 'X' {
		s, sign = strings.ToUpper(s), strings.ToUpper(sign)
	}
	return ev.aligned(f, sign, s, at)
}

func (ev *evaluator) decimal(f directive, x float64, at Span) string {
	if f.prec < 0 {
		f.prec = 6
	}
	if f.prec > 400 {
		fail(at, "the format asks for more than 400 decimals")
	}
	verb := f.verb | 0x20
	s := fmt.Sprintf("%."+strconv.Itoa(f.prec)+string(verb), math.Abs(x))
	if verb == 'g' && f.prec == 0 {
		s = fmt.Sprintf("%.1g", math.Abs(x))
	}
	if f.verb != verb {
		s = strings.ToUpper(s)
	}
	return ev.aligned(f, f.sign(math.Signbit(x)), f.thousands(s), at)
}

// thousands groups the digits before the point.
func (f directive) thousands(s string) string {
	if f.comma == 0 {
		return s
	}
	end := strings.IndexAny(s, ".e")
	if end < 0 {
		end = len(s)
	}
	var b strings.Builder
	for i := range end {
		if i > 0 && (end-i)%3 == 0 {
			b.WriteByte(f.comma)
		}
		b.WriteByte(s[i])
	}
	return b.String() + s[end:]
}

func (ev *evaluator) aligned(f directive, sign, s string, at Span) string {
	rest := f.width - utf8.RuneCountInString(sign) - utf8.RuneCountInString(s)
	if rest <= 0 {
		return sign + s
	}
	left, right := rest, 0
	switch f.align {
	case '<':
		left, right = 0, rest
	case '^':
		left, right = rest/2, rest-rest/2
	case '=':
		ev.room(rest+len(s), at)
		return sign + strings.Repeat(f.fill, rest) + s
	}
	ev.room(rest*len(f.fill)+len(s), at)
	return strings.Repeat(f.fill, left) + sign + s + strings.Repeat(f.fill, right)
}

// strftime formats a time by the directives of C that do not depend on a locale.
func (c *call) strftime(t time.Time, format string) string {
	c.ev.room(len(format), c.at)
	layouts := map[byte]string{
		'Y': "2006", 'm': "01", 'd': "02", 'H': "15", 'I': "03", 'M': "04", 'S': "05", 'p': "PM", 'y': "06",
		'b': "Jan", 'h': "Jan", 'B': "January", 'a': "Mon", 'A': "Monday", 'z': "-0700", 'Z': "MST", 'e': "_2",
		'F': "2006-01-02", 'T': "15:04:05", 'D': "01/02/06", 'R': "15:04", 'c': "Mon Jan _2 15:04:05 2006", 'x': "01/02/06", 'X': "15:04:05", 'j': "002",
	}
	var b strings.Builder
	for i := 0; i < len(format); i++ {
		if format[i] != '%' || i+1 == len(format) {
			b.WriteByte(format[i])
			continue
		}
		i++
		trim := format[i] == '-' && i+1 < len(format)
		if trim {
			i++
		}
		s := ""
		year, week := t.ISOWeek()
		switch d := format[i]; d {
		case '%':
			s = "%"
		case 'f':
			s = fmt.Sprintf("%06d", t.Nanosecond()/1000)
		case 's':
			s = strconv.FormatInt(t.Unix(), 10)
		case 'u':
			s = strconv.Itoa((int(t.Weekday())+6)%7 + 1)
		case 'w':
			s = strconv.Itoa(int(t.Weekday()))
		case 'V':
			s = fmt.Sprintf("%02d", week)
		case 'G':
			s = strconv.Itoa(year)
		case 'U':
			s = fmt.Sprintf("%02d", (t.YearDay()+6-int(t.Weekday()))/7)
		case 'W':
			s = fmt.Sprintf("%02d", (t.YearDay()+6-(int(t.Weekday())+6)%7)/7)
		default:
			layout, ok := layouts[d]
			if !ok {
				c.fail("the format has the unknown directive %%%c", d)
			}
			s = t.Format(layout)
		}
		if trim && len(s) > 1 {
			if s = strings.TrimLeft(s, "0 "); s == "" {
				s = "0"
			}
		}
		b.WriteString(s)
	}
	return c.ev.str(b.String(), c.at)
}
