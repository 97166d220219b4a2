package expr

import (
	"encoding/json"
	"math"
	"regexp"
	"regexp/syntax"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

func filterToJSON(c *call, in any, args []any) any {
	indent := asInt(args[0])
	if indent < 0 || indent > 100 {
		c.fail("'indent' must be between 0 and 100")
	}
	w := writer{limit: maxText, indent: int(indent)}
	if !w.value(in, true) {
		c.fail("%s", tooMuchText)
	}
	return c.ev.str(string(w.b), c.at)
}

// filterFromJSON parses one JSON value. Whole numbers must fit in 64 bits.
func filterFromJSON(c *call, in any, _ []any) any {
	s := asText(in)
	c.ev.scan(64+4*len(s), c.at)
	d := json.NewDecoder(strings.NewReader(s))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		c.fail("the text is not JSON: %s: %s", strings.TrimPrefix(err.Error(), "json: "), quoteShort(s))
	}
	if d.More() {
		c.fail("the text is not JSON: something follows the value: %s", quoteShort(s[d.InputOffset():]))
	}
	return c.decoded(v)
}

func (c *call) decoded(v any) any {
	c.ev.hold(1, c.at)
	switch v := v.(type) {
	case json.Number:
		if n, err := strconv.ParseInt(string(v), 10, 64); err == nil {
			return n
		}
		f, err := strconv.ParseFloat(string(v), 64)
		if err != nil || math.IsInf(f, 0) || !strings.ContainsAny(string(v), ".eE") {
			c.fail("the number %s does not fit in 64 bits", quoteShort(string(v)))
		}
		return f
	case []any:
		c.ev.hold(weightOfList, c.at)
		for i := range v {
			v[i] = c.decoded(v[i])
		}
	case map[string]any:
		c.ev.hold(weightOfMap, c.at)
		for k := range v {
			v[k] = c.decoded(v[k])
		}
	}
	return v
}

// folded are the Latin letters that slugify writes without their marks.
var folded = func() map[rune]string {
	m := map[rune]string{
		'ß': "ss", 'æ': "ae", 'œ': "oe", 'ø': "o", 'đ': "d", 'ð': "d", 'þ': "th", 'ł': "l", 'ı': "i",
	}
	for plain, marked := range map[string]string{
		"a": "àáâãäåāăą", "c": "çćĉċč", "d": "ď", "e": "èéêëēĕėęě", "g": "ĝğġģ", "h": "ĥħ", "i": "ìíîïĩīĭį",
		"j": "ĵ", "k": "ķ", "l": "ĺļľ", "n": "ñńņň", "o": "òóôõöōŏő", "r": "ŕŗř", "s": "śŝşšș", "t": "ţťŧț",
		"u": "ùúûüũūŭůűų", "w": "ŵ", "y": "ýÿŷ", "z": "źżž",
	} {
		for _, r := range marked {
			m[r] = plain
		}
	}
	return m
}()

// filterSlugify makes a name for files and addresses: lower case, Latin letters
// without marks, digits, and the separator for everything between.
func filterSlugify(c *call, in any, args []any) any {
	sep := asText(args[0])
	var b strings.Builder
	gap := false
	c.ev.scan(4*len(asText(in)), c.at)
	for _, r := range strings.ToLower(c.ev.str(asText(in), c.at)) {
		var s string
		var ok bool
		if r >= utf8.RuneSelf {
			s, ok = folded[r]
		}
		if !ok && (unicode.IsLetter(r) || unicode.IsDigit(r)) {
			s, ok = string(r), true
		}
		switch {
		case !ok && (unicode.Is(unicode.Mn, r) || r == '\'' || r == '’'):
		case !ok:
			gap = true
		default:
			if gap && b.Len() > 0 {
				b.WriteString(sep)
			}
			gap = false
			b.WriteString(s)
			if b.Len() > maxText {
				c.ev.room(b.Len(), c.at)
			}
		}
	}
	return c.ev.str(b.String(), c.at)
}

func filterBasename(_ *call, in any, _ []any) any {
	s := asText(in)
	return s[strings.LastIndexByte(s, '/')+1:]
}

func filterDirname(_ *call, in any, _ []any) any {
	s := asText(in)
	s = s[:strings.LastIndexByte(s, '/')+1]
	if t := strings.TrimRight(s, "/"); t != "" {
		return t
	}
	return s
}

// compiledPattern is a regular expression and the number of its instructions.
type compiledPattern struct {
	source string
	re     *regexp.Regexp
	size   int
}

// pattern compiles a regular expression (the syntax is Go's RE2) and charges for
// matching it against s: a match costs up to one step per byte and instruction,
// of which a unit has 64.
func (c *call) pattern(p, s string, ignoreCase bool) *regexp.Regexp {
	if ignoreCase {
		p = "(?i:" + p + ")"
	}
	if c.ev.regex.re == nil || c.ev.regex.source != p {
		c.ev.regex = c.compiled(p)
	}
	c.ev.units(1+(len(s)+1)*(16+c.ev.regex.size)/64, c.at)
	return c.ev.regex.re
}

func (c *call) compiled(p string) compiledPattern {
	const maxPattern, maxProgram = 4096, 4000
	if len(p) > maxPattern {
		c.fail("the pattern is too long (more than %d bytes)", maxPattern)
	}
	tree, err := syntax.Parse(p, syntax.Perl)
	if err != nil {
		c.fail("the pattern does not parse: %s", strings.TrimPrefix(err.Error(), "error parsing regexp: "))
	}
	prog, err := syntax.Compile(tree.Simplify())
	if err != nil || len(prog.Inst) > maxProgram {
		c.fail("the pattern is too complex")
	}
	size := 100
	for _, i := range prog.Inst {
		size += 1 + len(i.Rune) // a class such as \pL has hundreds of ranges
	}
	c.ev.charge(size/10, c.at)
	re, err := regexp.Compile(p)
	if err != nil {
		c.fail("the pattern does not parse: %v", err)
	}
	return compiledPattern{source: p, re: re, size: len(prog.Inst)}
}

// filterRegexSearch returns the first match, or one of its groups by number or
// name; null where there is none.
func filterRegexSearch(c *call, in any, args []any) any {
	s := asText(in)
	re := c.pattern(asText(args[0]), s, asBool(args[2]))
	g := 0
	switch v := args[1].(type) {
	case int64:
		if v < 0 || v > int64(re.NumSubexp()) {
			c.fail("the pattern has no group %d", v)
		}
		g = int(v)
	case string:
		if g = re.SubexpIndex(v); g < 0 {
			c.fail("the pattern has no group %s", quoteShort(v))
		}
	default:
		c.fail("'group' must be a number or a name, not %s", typeName(v))
	}
	m := re.FindStringSubmatchIndex(s)
	if m == nil || m[2*g] < 0 {
		return nil
	}
	return s[m[2*g]:m[2*g+1]]
}

// filterRegexReplace replaces all matches, or the first count; \1 and \g<name> in
// the replacement stand for groups.
func filterRegexReplace(c *call, in any, args []any) any {
	s := asText(in)
	re := c.pattern(asText(args[0]), s, asBool(args[2]))
	parts := c.replacement(asText(args[1]), re)
	cost := 4 * (1 + re.NumSubexp())
	limit := (maxWork-c.ev.work)/cost + 1 // one more than may be charged
	if n := asInt(args[3]); n > 0 && n < int64(limit) {
		limit = int(n)
	}
	var b strings.Builder
	add := func(t string) {
		if b.Len()+len(t) > maxText {
			c.ev.room(maxText+1, c.at)
		}
		b.WriteString(t)
	}
	last := 0
	for _, m := range re.FindAllStringSubmatchIndex(s, limit) {
		c.ev.visit(cost, c.at)
		add(s[last:m[0]])
		for _, p := range parts {
			if p.group < 0 {
				add(p.text)
			} else if m[2*p.group] >= 0 {
				add(s[m[2*p.group]:m[2*p.group+1]])
			}
		}
		last = m[1]
	}
	add(s[last:])
	return c.ev.str(b.String(), c.at)
}

// piece is a literal of a replacement, or a group.
type piece struct {
	text  string
	group int // -1 for a literal
}

func (c *call) replacement(s string, re *regexp.Regexp) []piece {
	var out []piece
	for {
		i := strings.IndexByte(s, '\\')
		if i < 0 || i+1 >= len(s) {
			return append(out, piece{s, -1})
		}
		out = append(out, piece{s[:i], -1})
		s = s[i+1:]
		name, size := "", 1
		switch {
		case s[0] >= '0' && s[0] <= '9':
			name = s[:1]
		case strings.HasPrefix(s, "g<") && strings.Contains(s, ">"):
			size = strings.IndexByte(s, '>') + 1
			name = s[2 : size-1]
		case s[0] == 'n':
			out, s = append(out, piece{"\n", -1}), s[1:]
			continue
		case s[0] == 't':
			out, s = append(out, piece{"\t", -1}), s[1:]
			continue
		default:
			if s[0] != '\\' {
				_, size = utf8.DecodeRuneInString(s)
				out = append(out, piece{`\`, -1})
			}
			out, s = append(out, piece{s[:size], -1}), s[size:]
			continue
		}
		g, err := strconv.Atoi(name)
		if err != nil {
			g = re.SubexpIndex(name)
		}
		if g < 0 || g > re.NumSubexp() {
			c.fail("the pattern has no group %s", quoteShort(name))
		}
		out, s = append(out, piece{group: g}), s[size:]
	}
}

var timeLayouts = []string{
	time.RFC3339Nano, "2006-01-02T15:04:05", "2006-01-02 15:04:05Z07:00", "2006-01-02 15:04:05", "2006-01-02T15:04", "2006-01-02 15:04", time.DateOnly,
	time.RFC1123Z, time.RFC1123, "20060102T150405Z0700", "20060102",
}

// filterDate formats a time as strftime does. The time is a text (RFC 3339, or
// its parts) or a number of seconds since 1970, in UTC.
func filterDate(c *call, in any, args []any) any {
	var t time.Time
	c.ev.visit(16, c.at) // one layout after the other is tried
	switch v := in.(type) {
	case string:
		ok := false
		for _, layout := range timeLayouts {
			var err error
			if t, err = time.Parse(layout, strings.TrimSpace(v)); err == nil {
				ok = true
				break
			}
		}
		if !ok {
			c.fail("the text %s is no date (write it as 2026-01-31 or 2026-01-31T15:04:05Z)", quoteShort(v))
		}
	case int64, float64:
		f := toFloat(v)
		if math.Abs(f) > 253402300799 { // the end of the year 9999
			c.fail("the number %s is no date", Text(v))
		}
		t = time.Unix(int64(math.Floor(f)), int64((f-math.Floor(f))*1e9)).UTC()
	default:
		c.fail("it needs a text or a number, not %s", typeName(in))
	}
	return c.strftime(t, asText(args[0]))
}

// filterShell quotes a text for a POSIX shell; of a list, each element.
func filterShell(c *call, in any, _ []any) any {
	switch v := in.(type) {
	case map[string]any:
		c.fail("it needs a text or a list, not a map")
	case []any:
		parts := make([]string, len(v))
		size := 0
		for i, x := range v {
			c.ev.visit(1, c.at)
			switch plain(x).(type) {
			case []any, map[string]any:
				c.fail("it needs a list of texts, not of lists or maps")
			}
			parts[i] = c.shellQuoted(c.ev.text(x, c.at))
			if size += len(parts[i]) + 1; size > maxText {
				c.ev.room(size, c.at)
			}
		}
		return c.ev.str(strings.Join(parts, " "), c.at)
	}
	return c.shellQuoted(c.ev.text(in, c.at))
}

func (c *call) shellQuoted(s string) string {
	if strings.IndexByte(s, 0) >= 0 {
		c.fail("a zero byte cannot be passed to a shell")
	}
	safe := func(r rune) bool {
		return r < utf8.RuneSelf && (isAlnum(byte(r)) || strings.ContainsRune("@%+=:,./_-", r)) //nolint:gosec // below 128
	}
	if s != "" && strings.IndexFunc(s, func(r rune) bool { return !safe(r) }) < 0 {
		return s
	}
	n := strings.Count(s, "'")
	c.ev.room(len(s)+4*n+2, c.at)
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
