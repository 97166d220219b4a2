package expr

import (
	"errors"
	"fmt"
	"html"
	"maps"
	"math"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

func filterAbs(c *call, in any, _ []any) any {
	if n, ok := in.(int64); ok && n < 0 {
		return c.ev.arith("-", int64(0), n, c.at)
	} else if ok {
		return n
	}
	return math.Abs(toFloat(in))
}

func filterRound(c *call, in any, args []any) any {
	places, method := asInt(args[0]), asText(args[1])
	f := toFloat(in)
	whole, isWhole := in.(int64)
	if !isWhole {
		c.ev.visit(16, c.at)
		if places > 20 || math.Abs(f) > 1e20 { // digits beyond the float's own are worked out one by one
			c.ev.visit(256, c.at)
		}
	}
	switch method {
	case "ceil", "floor":
		scale := math.Pow(10, float64(max(-300, min(places, 300))))
		f *= scale
		if math.IsInf(f, 0) {
			return toFloat(in)
		}
		if method == "ceil" {
			return math.Ceil(f) / scale
		}
		return math.Floor(f) / scale
	case "common":
	default:
		c.fail("'method' must be 'common', 'ceil' or 'floor'")
	}
	switch {
	case isWhole && places >= 0:
		return whole
	case isWhole && places < -18:
		return int64(0)
	case isWhole:
		unit, _ := raise(10, -places)
		rem := whole % unit
		low := whole - rem
		if rem < 0 {
			rem += unit
			low -= unit
		}
		if rem > unit-rem || rem == unit-rem && (low/unit)%2 != 0 {
			return c.ev.arith("+", low, unit, c.at)
		}
		return low
	case places > 300:
		return f
	case places >= 0:
		r, _ := strconv.ParseFloat(strconv.FormatFloat(f, 'f', int(places), 64), 64)
		return r
	case places < -308:
		return 0.0
	}
	unit := math.Pow(10, float64(-places))
	return math.RoundToEven(f/unit) * unit
}

func filterInt(c *call, in any, args []any) any {
	switch v := in.(type) {
	case bool:
		return number(v)
	case int64:
		return v
	case float64:
		return c.truncated(v)
	case string:
		c.ev.scan(len(v), c.at)
		s := strings.TrimSpace(v)
		base := asInt(args[1])
		if base != 0 && (base < 2 || base > 36) {
			c.fail("'base' must be 0 or between 2 and 36")
		}
		if n, err := strconv.ParseInt(unprefixed(s, base), int(base), 64); err == nil {
			return n
		} else if errors.Is(numError(err), strconv.ErrRange) {
			c.fail("%s does not fit in 64 bits", quoteShort(s))
		}
		if f, ok := parseFloat(s); ok {
			return c.truncated(f)
		}
	}
	return args[0]
}

func numError(err error) error {
	if e, ok := err.(*strconv.NumError); ok { //nolint:errorlint // strconv returns it bare
		return e.Err
	}
	return err
}

// unprefixed drops 0x, 0o or 0b where it fits the base, and underscores between digits.
func unprefixed(s string, base int64) string {
	sign := ""
	if s != "" && (s[0] == '-' || s[0] == '+') {
		sign, s = s[:1], s[1:]
	}
	if prefix := map[int64]string{16: "0x", 8: "0o", 2: "0b"}[base]; prefix != "" && len(s) > 2 && strings.EqualFold(s[:2], prefix) {
		s = s[2:]
	}
	return sign + plainDigits(s)
}

func plainDigits(s string) string {
	if strings.HasPrefix(s, "_") || strings.HasSuffix(s, "_") || strings.Contains(s, "__") {
		return ""
	}
	return strings.ReplaceAll(s, "_", "")
}

func parseFloat(s string) (float64, bool) {
	if strings.ContainsAny(s, "xXpP") { // hexadecimal is Go's, not Python's
		return 0, false
	}
	f, err := strconv.ParseFloat(plainDigits(s), 64)
	return f, err == nil && !math.IsInf(f, 0) && !math.IsNaN(f)
}

func (c *call) truncated(f float64) any {
	if f >= 1<<63 || f < -1<<63 {
		c.fail("the number %s does not fit in 64 bits", Text(f))
	}
	return int64(f)
}

func filterFloat(c *call, in any, args []any) any {
	switch v := in.(type) {
	case bool, int64, float64:
		return toFloat(number(v))
	case string:
		c.ev.scan(len(v), c.at)
		if f, ok := parseFloat(strings.TrimSpace(v)); ok {
			return f
		}
	}
	return args[0]
}

func filterFileSize(c *call, in any, args []any) any {
	n, ok := filterFloat(c, in, []any{nil}).(float64)
	if !ok {
		c.fail("it needs a number of bytes, not %s", typeName(in))
	}
	base, unit := 1000.0, "B"
	if asBool(args[0]) {
		base, unit = 1024.0, "iB"
	}
	switch {
	case n == 1:
		return "1 Byte"
	case n < base:
		return fmt.Sprintf("%.0f Bytes", math.Trunc(n))
	}
	prefixes := "kMGTPEZY"
	if unit == "iB" {
		prefixes = "KMGTPEZY"
	}
	for i := range len(prefixes) {
		if n /= base; n < base || i == len(prefixes)-1 {
			return fmt.Sprintf("%.1f %c%s", n, prefixes[i], unit)
		}
	}
	return nil
}

func filterLower(c *call, in any, _ []any) any { return c.ev.str(strings.ToLower(asText(in)), c.at) }

func filterUpper(c *call, in any, _ []any) any { return c.ev.str(strings.ToUpper(asText(in)), c.at) }

func filterCapitalize(c *call, in any, _ []any) any { return c.ev.str(capitalize(asText(in)), c.at) }

// capitalize makes the first character upper case and the others lower case.
func capitalize(s string) string {
	_, n := utf8.DecodeRuneInString(s)
	return strings.ToUpper(s[:n]) + strings.ToLower(s[n:])
}

// filterTitle capitalizes words; they begin after blanks, dashes and brackets.
func filterTitle(c *call, in any, _ []any) any {
	begin := true
	return c.ev.str(strings.Map(func(r rune) rune {
		first := begin
		begin = unicode.IsSpace(r) || strings.ContainsRune("-({[<", r)
		if first && !begin {
			return unicode.ToUpper(r)
		}
		return unicode.ToLower(r)
	}, asText(in)), c.at)
}

// strip removes characters of a set, or blanks, at the ends that are asked for.
func strip(s string, chars any, left, right bool) string {
	cut := unicode.IsSpace
	if set, ok := chars.(string); ok {
		in := make(map[rune]bool, len(set))
		for _, r := range set {
			in[r] = true
		}
		cut = func(r rune) bool { return in[r] }
	}
	if left {
		s = strings.TrimLeftFunc(s, cut)
	}
	if right {
		s = strings.TrimRightFunc(s, cut)
	}
	return s
}

func filterTrim(c *call, in any, args []any) any {
	return c.ev.str(strip(asText(in), args[0], true, true), c.at)
}

func filterReplace(c *call, in any, args []any) any {
	s, old, with := asText(in), asText(args[0]), asText(args[1])
	n := strings.Count(s, old)
	if limit := asInt(args[2]); limit >= 0 && int64(n) > limit {
		n = int(limit)
	}
	c.ev.scan(len(s), c.at)
	if grow := len(with) - len(old); grow > 0 && n > maxText/grow {
		c.ev.room(maxText+1, c.at)
	}
	c.ev.room(len(s)+n*(len(with)-len(old)), c.at)
	return strings.Replace(s, old, with, n)
}

func filterTruncate(c *call, in any, args []any) any {
	length, end, leeway := asInt(args[0]), asText(args[2]), asInt(args[3])
	room := length - int64(utf8.RuneCountInString(end))
	if room < 0 || leeway < 0 {
		c.fail("'length' must be at least the length of 'end', and 'leeway' not negative")
	}
	s := asText(in)
	r := c.ev.runes(s, c.at)
	if int64(r.len()) <= length || int64(r.len())-length <= leeway {
		return s
	}
	cut := r.slice(0, int(room))
	if !asBool(args[1]) {
		if i := strings.LastIndexByte(cut, ' '); i >= 0 {
			cut = cut[:i]
		}
	}
	return c.ev.str(cut+end, c.at)
}

// pad adds left and right fill characters.
func (c *call) pad(s, fill string, left, right int64) string {
	if left > maxText || right > maxText {
		c.ev.room(maxText+1, c.at)
	}
	left, right = max(left, 0), max(right, 0)
	c.ev.room(len(s)+int(left+right)*len(fill), c.at)
	return strings.Repeat(fill, int(left)) + s + strings.Repeat(fill, int(right))
}

// center pads as Python does: of an odd rest, the right side gets more when the
// width is even.
func (c *call) center(s, fill string, width int64) string {
	rest := width - int64(utf8.RuneCountInString(s))
	if rest <= 0 {
		return s
	}
	left := rest/2 + rest&width&1
	return c.pad(s, fill, left, rest-left)
}

func filterCenter(c *call, in any, args []any) any {
	return c.center(asText(in), " ", asInt(args[0]))
}

// splitLines cuts as Python's splitlines does for \n, \r and \r\n.
func splitLines(s string, keep bool) []string {
	var out []string
	for len(s) > 0 {
		i := strings.IndexAny(s, "\n\r")
		if i < 0 {
			return append(out, s)
		}
		end := i + 1
		if s[i] == '\r' && end < len(s) && s[end] == '\n' {
			end++
		}
		if keep {
			i = end
		}
		out = append(out, s[:i])
		s = s[end:]
	}
	return out
}

func filterIndent(c *call, in any, args []any) any {
	by := ""
	switch w := args[0].(type) {
	case string:
		by = w
	case int64:
		by = c.pad("", " ", w, 0)
	default:
		c.fail("'width' must be a whole number or a text, not %s", typeName(w))
	}
	s := asText(in)
	n := strings.Count(s, "\n") + strings.Count(s, "\r") + 2
	if len(by) > 0 && n > maxText/len(by) {
		c.ev.room(maxText+1, c.at)
	}
	c.ev.room(len(s)+n*len(by), c.at)
	lines := splitLines(s+"\n", false)
	for i, l := range lines {
		if i > 0 && (l != "" || asBool(args[2])) || i == 0 && asBool(args[1]) {
			lines[i] = by + l
		}
	}
	return strings.Join(lines, "\n")
}

func isWord(r rune) bool {
	return r == '_' || unicode.IsLetter(r) || unicode.IsDigit(r) || unicode.IsNumber(r)
}

func filterWordCount(c *call, in any, _ []any) any {
	s := asText(in)
	c.ev.scan(len(s), c.at)
	n, inside := int64(0), false
	for _, r := range s {
		if w := isWord(r); w != inside {
			if inside = w; w {
				n++
			}
		}
	}
	return n
}

func filterFormat(c *call, in any, _ []any) any {
	if len(c.named) > 0 {
		if len(c.pos) > 0 {
			c.fail("give positional or named arguments, not both")
		}
		m := make(map[string]any, len(c.names))
		for i, n := range c.names {
			m[n] = c.named[i]
		}
		return c.ev.printf(asText(in), m, c.at)
	}
	return c.ev.printf(asText(in), c.pos, c.at)
}

var htmlEscaper = strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;", `"`, "&#34;", "'", "&#39;")

func (c *call) escaped(s string) string {
	c.ev.room(len(s), c.at)
	return c.ev.str(htmlEscaper.Replace(s), c.at)
}

func filterEscape(c *call, in any, _ []any) any { return c.escaped(asText(in)) }

var tags = regexp.MustCompile(`(?s)<!--.*?-->|<.*?>`)

func filterStripTags(c *call, in any, _ []any) any {
	s := c.ev.str(asText(in), c.at)
	c.ev.scan(16+4*len(s), c.at)
	s = tags.ReplaceAllLiteralString(s, "")
	return html.UnescapeString(strings.Join(strings.Fields(s), " "))
}

func (c *call) quoteURL(v any, safe string) string {
	s := c.ev.text(v, c.at)
	c.ev.room(3*len(s), c.at)
	var b strings.Builder
	for i := range len(s) {
		ch := s[i]
		if ch < utf8.RuneSelf && (isAlnum(ch) || strings.IndexByte("_.-~"+safe, ch) >= 0) {
			b.WriteByte(ch)
		} else {
			fmt.Fprintf(&b, "%%%02X", ch)
		}
	}
	return b.String()
}

func isAlnum(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
}

// filterURLEncode quotes a text for a path, or the pairs of a map or list for a query.
func filterURLEncode(c *call, in any, _ []any) any {
	var pairs []any
	switch v := in.(type) {
	case map[string]any:
		pairs = c.pairs(v)
	case []any:
		pairs = v
	default:
		return c.quoteURL(in, "/")
	}
	parts := make([]string, len(pairs))
	size := 0
	for i, p := range pairs {
		kv, ok := plain(p).([]any)
		if !ok || len(kv) != 2 {
			c.fail("it needs a text, a map, or a list of pairs")
		}
		parts[i] = url.QueryEscape(c.ev.text(kv[0], c.at)) + "=" + url.QueryEscape(c.ev.text(kv[1], c.at))
		size += len(parts[i]) + 1
		if size > maxText {
			c.ev.room(size, c.at)
		}
	}
	return c.ev.str(strings.Join(parts, "&"), c.at)
}

func filterXMLAttr(c *call, in any, args []any) any {
	m, _ := in.(map[string]any)
	var b strings.Builder
	for _, k := range slices.Sorted(maps.Keys(m)) {
		v := c.ev.plain(m[k], c.at)
		if v == nil {
			continue
		}
		if strings.ContainsAny(k, " \t\n\r\f\v/>=") {
			c.fail("%s is no name of an attribute", quoteShort(k))
		}
		if b.Len() > 0 || asBool(args[0]) {
			b.WriteByte(' ')
		}
		b.WriteString(c.escaped(k) + `="` + c.escaped(c.ev.text(v, c.at)) + `"`)
		if b.Len() > maxText {
			c.ev.room(b.Len(), c.at)
		}
	}
	return b.String()
}

// filterWordWrap wraps each line by itself, as textwrap does without replacing
// white space.
func filterWordWrap(c *call, in any, args []any) any {
	width, long, sep, hyphens := asInt(args[0]), asBool(args[1]), asText(args[2]), asBool(args[3])
	if width < 1 {
		c.fail("'width' must be at least 1")
	}
	s := asText(in)
	c.ev.scan(16*len(s), c.at)
	var out []string
	for _, line := range splitLines(s, false) {
		lines := wrapLine([]rune(line), int(min(width, maxText)), long, hyphens)
		if len(lines) == 0 {
			lines = []string{""}
		}
		out = append(out, lines...)
	}
	if n := len(out); len(sep) > 0 && n > maxText/len(sep) {
		c.ev.room(maxText+1, c.at)
	}
	c.ev.room(len(s)+len(out)*(len(sep)+1), c.at)
	return strings.Join(out, sep)
}
