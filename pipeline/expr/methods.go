package expr

import (
	"maps"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// method is an entry of the closed table of methods. fn gets the plain receiver,
// or the *loopState of loop.
type method struct {
	name string
	sig  signature
	fn   func(c *call, x any, args []any) any
}

var methods = methodTable()

func methodTable() map[string]*method {
	chars := sig(opt("chars", textKind, nil))
	search := sig(need("sub", textKind), opt("start", intKind, nil), opt("end", intKind, nil))
	affix := sig(need("prefix", anyKind))
	width := sig(need("width", intKind), opt("fillchar", textKind, " "))
	splits := sig(opt("sep", textKind, nil), opt("maxsplit", intKind, int64(-1)))
	all := []*method{
		{name: "get", sig: sig(need("key", textKind), opt("default", anyKind, nil)), fn: methodGet},
		{name: "items", fn: onMap(func(c *call, m map[string]any) any { return c.pairs(m) })},
		{name: "keys", fn: onMap(func(c *call, m map[string]any) any { return c.ev.texts(slices.Sorted(maps.Keys(m)), c.at) })},
		{name: "values", fn: onMap(func(c *call, m map[string]any) any {
			out := c.ev.list(len(m), c.at)
			for i, k := range slices.Sorted(maps.Keys(m)) {
				out[i] = m[k]
			}
			return out
		})},
		{name: "index", sig: sig(need("sub", anyKind), opt("start", intKind, nil), opt("end", intKind, nil)), fn: methodIndex},
		{name: "count", sig: sig(need("sub", anyKind), opt("start", intKind, nil), opt("end", intKind, nil)), fn: methodCount},
		{name: "cycle", sig: signature{rest: true}, fn: methodCycle},
		{name: "changed", sig: signature{rest: true}, fn: methodChanged},
		{name: "split", sig: splits, fn: split(false)},
		{name: "rsplit", sig: splits, fn: split(true)},
		{name: "splitlines", sig: sig(opt("keepends", boolKind, false)), fn: onText(func(c *call, s string, args []any) any {
			return c.ev.texts(splitLines(s, asBool(args[0])), c.at)
		})},
		{name: "partition", sig: sig(need("sep", textKind)), fn: onText(methodPartition)},
		{name: "rpartition", sig: sig(need("sep", textKind)), fn: onText(methodRPartition)},
		{name: "strip", sig: chars, fn: onText(func(_ *call, s string, args []any) any { return strip(s, args[0], true, true) })},
		{name: "lstrip", sig: chars, fn: onText(func(_ *call, s string, args []any) any { return strip(s, args[0], true, false) })},
		{name: "rstrip", sig: chars, fn: onText(func(_ *call, s string, args []any) any { return strip(s, args[0], false, true) })},
		{name: "lower", fn: onText(func(c *call, s string, _ []any) any { return filterLower(c, s, nil) })},
		{name: "casefold", fn: onText(func(c *call, s string, _ []any) any { return filterLower(c, s, nil) })},
		{name: "upper", fn: onText(func(c *call, s string, _ []any) any { return filterUpper(c, s, nil) })},
		{name: "capitalize", fn: onText(func(c *call, s string, _ []any) any { return filterCapitalize(c, s, nil) })},
		{name: "title", fn: onText(methodTitle)},
		{name: "swapcase", fn: onText(func(c *call, s string, _ []any) any {
			return c.ev.str(strings.Map(func(r rune) rune {
				if unicode.IsUpper(r) {
					return unicode.ToLower(r)
				}
				return unicode.ToUpper(r)
			}, s), c.at)
		})},
		{name: "startswith", sig: affix, fn: affixes(strings.HasPrefix)},
		{name: "endswith", sig: affix, fn: affixes(strings.HasSuffix)},
		{name: "removeprefix", sig: sig(need("prefix", textKind)), fn: onText(func(_ *call, s string, args []any) any { return strings.TrimPrefix(s, asText(args[0])) })},
		{name: "removesuffix", sig: sig(need("suffix", textKind)), fn: onText(func(_ *call, s string, args []any) any { return strings.TrimSuffix(s, asText(args[0])) })},
		{name: "replace", sig: sig(need("old", textKind), need("new", textKind), opt("count", intKind, int64(-1))), fn: onText(func(c *call, s string, args []any) any { return filterReplace(c, s, args) })},
		{name: "find", sig: search, fn: onText(func(c *call, s string, args []any) any { return c.find(s, args, strings.Index) })},
		{name: "rfind", sig: search, fn: onText(func(c *call, s string, args []any) any { return c.find(s, args, strings.LastIndex) })},
		{name: "join", sig: sig(need("items", anyKind)), fn: onText(func(c *call, s string, args []any) any {
			return filterJoin(c, c.ev.iterate(args[0], c.at), []any{s, nil})
		})},
		{name: "format", sig: signature{rest: true, named: true}, fn: onText(func(c *call, s string, _ []any) any { return c.strFormat(s) })},
		{name: "center", sig: width, fn: onText(func(c *call, s string, args []any) any { return c.center(s, c.fillChar(args[1]), asInt(args[0])) })},
		{name: "ljust", sig: width, fn: onText(func(c *call, s string, args []any) any {
			return c.pad(s, c.fillChar(args[1]), 0, asInt(args[0])-int64(utf8.RuneCountInString(s)))
		})},
		{name: "rjust", sig: width, fn: onText(func(c *call, s string, args []any) any {
			return c.pad(s, c.fillChar(args[1]), asInt(args[0])-int64(utf8.RuneCountInString(s)), 0)
		})},
		{name: "zfill", sig: sig(need("width", intKind)), fn: onText(methodZFill)},
		{name: "isdigit", fn: every(unicode.IsDigit)},
		{name: "isdecimal", fn: every(unicode.IsDigit)},
		{name: "isnumeric", fn: every(unicode.IsNumber)},
		{name: "isalpha", fn: every(unicode.IsLetter)},
		{name: "isalnum", fn: every(func(r rune) bool { return unicode.IsLetter(r) || unicode.IsNumber(r) })},
		{name: "isspace", fn: every(unicode.IsSpace)},
		{name: "islower", fn: onText(func(_ *call, s string, _ []any) any { return isCase(s, unicode.IsLower, unicode.IsUpper) })},
		{name: "isupper", fn: onText(func(_ *call, s string, _ []any) any { return isCase(s, unicode.IsUpper, unicode.IsLower) })},
	}
	t := make(map[string]*method, len(all))
	for _, m := range all {
		t[m.name] = m
	}
	return t
}

func onText(f func(c *call, s string, args []any) any) func(*call, any, []any) any {
	return func(c *call, x any, args []any) any {
		s, ok := x.(string)
		if !ok {
			c.fail("%s has no such method, only a text has", typeName(x))
		}
		c.ev.scan(len(s), c.at)
		return f(c, s, args)
	}
}

func onMap(f func(c *call, m map[string]any) any) func(*call, any, []any) any {
	return func(c *call, x any, _ []any) any {
		m, ok := x.(map[string]any)
		if !ok {
			c.fail("%s has no such method, only a map has", typeName(x))
		}
		return f(c, m)
	}
}

func every(is func(rune) bool) func(*call, any, []any) any {
	return onText(func(_ *call, s string, _ []any) any {
		return s != "" && strings.IndexFunc(s, func(r rune) bool { return !is(r) }) < 0
	})
}

func methodGet(c *call, x any, args []any) any {
	m, ok := x.(map[string]any)
	if !ok {
		c.fail("%s has no such method, only a map has", typeName(x))
	}
	if v, ok := m[asText(args[0])]; ok {
		return v
	}
	return args[1]
}

// affixes is startswith and endswith; a list of texts means any of them.
func affixes(has func(s, affix string) bool) func(*call, any, []any) any {
	return onText(func(c *call, s string, args []any) any {
		list, ok := args[0].([]any)
		if !ok {
			list = args[:1]
		}
		for _, a := range list {
			c.ev.visit(1, c.at)
			t, ok := c.ev.plain(a, c.at).(string)
			if !ok {
				c.fail("it needs a text or a list of texts, not %s", typeName(a))
			}
			if has(s, t) {
				return true
			}
		}
		return false
	})
}

func split(right bool) func(*call, any, []any) any {
	return onText(func(c *call, s string, args []any) any {
		limit := asInt(args[1])
		sep, ok := args[0].(string)
		if ok && sep == "" {
			c.fail("the separator cannot be empty")
		}
		most := int64(len(s)) + 1
		if limit >= 0 {
			most = min(most, limit)
		}
		if !ok {
			return c.fields(s, most, right)
		}
		c.ev.visit(int(min(int64(strings.Count(s, sep)), most)), c.at)
		if !right {
			return c.ev.texts(strings.SplitN(s, sep, int(most)+1), c.at)
		}
		var out []string
		for ; most > 0; most-- {
			i := strings.LastIndex(s, sep)
			if i < 0 {
				break
			}
			out = append(out, s[i+len(sep):])
			s = s[:i]
		}
		out = append(out, s)
		slices.Reverse(out)
		return c.ev.texts(out, c.at)
	})
}

// fields splits at runs of white space.
func (c *call) fields(s string, most int64, right bool) any {
	var out []string
	for {
		s = strip(s, nil, !right, right)
		if right && most == 0 {
			s = strip(s, nil, false, true)
		}
		if s == "" {
			break
		}
		c.ev.visit(1, c.at)
		i := strings.IndexFunc(s, unicode.IsSpace)
		if right {
			i = strings.LastIndexFunc(s, unicode.IsSpace)
		}
		if i < 0 || most == 0 {
			out = append(out, s)
			break
		}
		most--
		if right {
			_, n := utf8.DecodeRuneInString(s[i:])
			out = append(out, s[i+n:])
			s = s[:i]
		} else {
			out = append(out, s[:i])
			s = s[i:]
		}
	}
	if right {
		slices.Reverse(out)
	}
	return c.ev.texts(out, c.at)
}

func methodPartition(c *call, s string, args []any) any {
	sep := asText(args[0])
	if sep == "" {
		c.fail("the separator cannot be empty")
	}
	before, after, ok := strings.Cut(s, sep)
	if !ok {
		sep = ""
	}
	return c.ev.texts([]string{before, sep, after}, c.at)
}

func methodRPartition(c *call, s string, args []any) any {
	sep := asText(args[0])
	if sep == "" {
		c.fail("the separator cannot be empty")
	}
	i := strings.LastIndex(s, sep)
	if i < 0 {
		return c.ev.texts([]string{"", "", s}, c.at)
	}
	return c.ev.texts([]string{s[:i], sep, s[i+len(sep):]}, c.at)
}

// methodTitle is Python's: a word begins after anything that is no letter.
func methodTitle(c *call, s string, _ []any) any {
	inside := false
	return c.ev.str(strings.Map(func(r rune) rune {
		first := !inside
		if inside = unicode.IsLetter(r); first {
			return unicode.ToTitle(r)
		}
		return unicode.ToLower(r)
	}, s), c.at)
}

// window returns the part of s between two optional indexes, and where it begins.
func (c *call) window(s string, from, to any) (runes, int) {
	r := c.ev.runes(s, c.at)
	n := int64(r.len())
	bound := func(v any, def int64) int64 {
		i, ok := v.(int64)
		if !ok {
			return def
		}
		if i < 0 {
			i += n
		}
		return max(0, min(i, n))
	}
	a := bound(from, 0)
	b := max(a, bound(to, n))
	return runes{s: r.slice(int(a), int(b))}, int(a)
}

func (c *call) find(s string, args []any, index func(s, sub string) int) any {
	r, off := c.window(s, args[1], args[2])
	i := index(r.s, asText(args[0]))
	if i < 0 {
		return int64(-1)
	}
	return int64(off + utf8.RuneCountInString(r.s[:i]))
}

func methodIndex(c *call, x any, args []any) any {
	switch v := x.(type) {
	case string:
		if !isText(args[0]) {
			c.fail("only a text can be in a text, not %s", typeName(args[0]))
		}
		if n := c.find(v, args, strings.Index); n != int64(-1) {
			return n
		}
		c.fail("the text does not hold %s", quoteShort(asText(args[0])))
	case []any:
		for i, e := range v {
			if c.ev.equal(e, args[0], c.at) {
				return int64(i)
			}
		}
		c.fail("the list does not hold this value")
	}
	c.fail("%s has no such method, only a text or a list has", typeName(x))
	return nil
}

func methodCount(c *call, x any, args []any) any {
	switch v := x.(type) {
	case string:
		if !isText(args[0]) {
			c.fail("only a text can be in a text, not %s", typeName(args[0]))
		}
		r, _ := c.window(v, args[1], args[2])
		return int64(strings.Count(r.s, asText(args[0])))
	case []any:
		n := int64(0)
		for _, e := range v {
			if c.ev.equal(e, args[0], c.at) {
				n++
			}
		}
		return n
	}
	c.fail("%s has no such method, only a text or a list has", typeName(x))
	return nil
}

func (c *call) fillChar(v any) string {
	s := asText(v)
	if utf8.RuneCountInString(s) != 1 {
		c.fail("'fillchar' must be one character")
	}
	return s
}

func methodZFill(c *call, s string, args []any) any {
	sign := ""
	if s != "" && (s[0] == '-' || s[0] == '+') {
		sign, s = s[:1], s[1:]
	}
	return sign + c.pad(s, "0", asInt(args[0])-int64(utf8.RuneCountInString(s)+len(sign)), 0)
}

func (c *call) loop(x any) *loopState {
	l, ok := x.(*loopState)
	if !ok {
		c.fail("only loop has this method")
	}
	return l
}

func methodCycle(c *call, x any, _ []any) any {
	l := c.loop(x)
	if len(c.pos) == 0 {
		c.fail("it needs at least one value")
	}
	return c.pos[l.i%len(c.pos)]
}

// methodChanged reports whether the values differ from those of the call before.
func methodChanged(c *call, x any, _ []any) any {
	l := c.loop(x)
	if l.changed && c.ev.equal(l.seen, c.pos, c.at) {
		return false
	}
	l.changed, l.seen = true, c.pos
	return true
}
