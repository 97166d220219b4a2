package expr

import (
	"strconv"
	"strings"
	"unicode/utf8"
)

// strFormat is Python's text.format(): {} {0} {name} {name.attr[0]}, an optional
// !s or !r, and after a colon [[fill]align][sign][#][0][width][,][.precision][type].
func (c *call) strFormat(format string) string {
	ev := c.ev
	ev.scan(len(format), c.at)
	var b strings.Builder
	next := int64(0)
	for format != "" {
		i := strings.IndexAny(format, "{}")
		if i < 0 {
			b.WriteString(format)
			break
		}
		b.WriteString(format[:i])
		brace := format[i]
		format = format[i+1:]
		if format != "" && format[0] == brace {
			b.WriteByte(brace)
			format = format[1:]
			continue
		}
		end := strings.IndexByte(format, '}')
		if brace == '}' || end < 0 {
			c.fail("the format has a single %c", brace)
		}
		field, spec, _ := strings.Cut(format[:end], ":")
		format = format[end+1:]
		field, conv, _ := strings.Cut(field, "!")
		if strings.ContainsRune(spec, '{') {
			c.fail("a width or precision cannot be taken from an argument")
		}
		v := ev.plain(c.field(field, &next), c.at)
		if conv == "r" {
			w := writer{limit: maxText}
			if !w.value(v, true) {
				ev.room(maxText+1, c.at)
			}
			v = ev.str(string(w.b), c.at)
		}
		s := c.formatted(v, spec)
		if b.Len()+len(s) > maxText {
			ev.room(maxText+1, c.at)
		}
		b.WriteString(s)
	}
	return ev.str(b.String(), c.at)
}

// field returns the value that a replacement field names.
func (c *call) field(field string, next *int64) any {
	end := strings.IndexAny(field, ".[")
	if end < 0 {
		end = len(field)
	}
	root, rest := field[:end], field[end:]
	n, err := strconv.ParseInt(root, 10, 64)
	if root == "" {
		n, err = *next, nil
		*next++
	}
	var v any
	switch {
	case err == nil:
		if n < 0 || n >= int64(len(c.pos)) {
			c.fail("the format needs argument %d, but gets %d", n, len(c.pos))
		}
		v = c.pos[n]
	default:
		found := false
		c.ev.visit(1+len(c.names), c.at)
		for i, name := range c.names {
			if name == root {
				v, found = c.named[i], true
			}
		}
		if !found {
			c.fail("the format needs an argument named %s", quoteShort(root))
		}
	}
	for rest != "" {
		c.ev.visit(1, c.at)
		var key string
		if rest[0] == '[' {
			i := strings.IndexByte(rest, ']')
			if i < 0 {
				c.fail("the format has a [ without ]")
			}
			key, rest = rest[1:i], rest[i+1:]
		} else {
			rest = rest[1:]
			i := strings.IndexAny(rest, ".[")
			if i < 0 {
				i = len(rest)
			}
			key, rest = rest[:i], rest[i:]
		}
		if rest != "" && rest[0] != '.' && rest[0] != '[' {
			c.fail("the format has a malformed field")
		}
		var i any = key
		if n, err := strconv.ParseInt(key, 10, 64); err == nil {
			i = n
		}
		v = c.ev.index(v, i, c.at, c.at)
		if u, ok := v.(*undefined); ok {
			u.fail()
		}
	}
	return v
}

// formatted applies a format specification.
func (c *call) formatted(v any, spec string) string {
	ev := c.ev
	if spec == "" {
		return ev.text(v, c.at)
	}
	f := directive{prec: -1, fill: " "}
	if _, n := utf8.DecodeRuneInString(spec); len(spec) > n && strings.IndexByte("<>^=", spec[n]) >= 0 {
		f.fill, f.align, spec = spec[:n], spec[n], spec[n+1:]
	} else if strings.IndexByte("<>^=", spec[0]) >= 0 {
		f.align, spec = spec[0], spec[1:]
	}
	take := func(set string) byte {
		if spec == "" || strings.IndexByte(set, spec[0]) < 0 {
			return 0
		}
		b := spec[0]
		spec = spec[1:]
		return b
	}
	switch take("+- ") {
	case '+':
		f.plus = true
	case ' ':
		f.space = true
	}
	f.alt = take("#") != 0
	if take("0") != 0 && f.align == 0 {
		f.fill, f.align = "0", '='
	}
	f.width, spec = count(spec, c.at)
	f.comma = take(",_")
	if take(".") != 0 {
		f.prec, spec = count(spec, c.at)
	}
	f.verb = take("bcdeEfFgGoxXs%")
	if spec != "" {
		c.fail("the format has the unknown part %s", quoteShort(spec))
	}
	if f.align == 0 {
		if f.align = '<'; number(v) != nil {
			f.align = '>'
		}
	}
	switch n := number(v).(type) {
	case int64:
		if f.verb == 0 {
			f.verb = 'd'
		}
	case float64:
		if f.verb == 0 && f.prec < 0 {
			s := Text(n)
			s, neg := strings.CutPrefix(s, "-")
			return ev.aligned(f, f.sign(neg), f.thousands(s), c.at)
		}
		if f.verb == 0 {
			f.verb = 'g'
		}
	default:
		if f.verb == 0 {
			f.verb = 's'
		}
		if f.verb != 's' {
			c.fail("the format wants a number, not %s", typeName(v))
		}
	}
	if f.verb == '%' {
		f.verb = 'f'
		s := ev.decimal(directive{prec: f.prec, verb: 'f', plus: f.plus, space: f.space, comma: f.comma, fill: " "}, 100*toFloat(number(v)), c.at)
		return ev.aligned(f, "", s+"%", c.at)
	}
	return ev.converted(f, v, c.at)
}
