package expr

import (
	"regexp"
	"slices"
	"strings"
	"unicode"
)

// What urlize takes for an address, as in Jinja2.
var (
	webAddress = regexp.MustCompile(`(?i)^(?:` +
		`(?:https?://|www\.)(?:(?:[\pL\pN_%-]+\.)+)?(?:[a-z]{2,63}|xn--[\pL\pN_%]{2,59})` + // a scheme or www, then a name
		`|(?:[\pL\pN_%-]{2,63}\.)+(?:com|net|int|edu|gov|org|info|mil)` + // a name of a common domain
		`|https?://(?:\p{Nd}{1,3}(?:\.\p{Nd}{1,3}){3}|\[(?:[\p{Nd}a-f]{0,4}:){2}(?:[\p{Nd}a-f]{0,4}:?){1,6}\])` + // numbers
		`)(?::\p{Nd}{1,5})?(?:[/?#]\S*)?$`)
	mailAddress = regexp.MustCompile(`^\S+@[\pL\pN_][\pL\pN_.-]*\.[\pL\pN_]+$`)
	uriScheme   = regexp.MustCompile(`^[\pL\pN_.+-]{2,}:/{0,2}$`)
)

// filterURLize escapes a text for HTML and makes links of the addresses in it.
func filterURLize(c *call, in any, args []any) any {
	limit, hasLimit := args[0].(int64)
	relations := append(strings.Fields(asText(args[3])), "noopener")
	if asBool(args[1]) {
		relations = append(relations, "nofollow")
	}
	slices.Sort(relations)
	attributes := ` rel="` + c.escaped(strings.Join(slices.Compact(relations), " ")) + `"`
	if target := asText(args[2]); target != "" {
		attributes += ` target="` + c.escaped(target) + `"`
	}
	schemes := c.schemes(args[4])
	link := func(href, attributes, text string) string {
		return `<a href="` + href + `"` + attributes + `>` + text + `</a>`
	}
	linked := func(s string) string {
		switch {
		case webAddress.MatchString(s):
			shown, href := s, s
			if r := c.ev.runes(s, c.at); hasLimit && int64(r.len()) > limit {
				end := limit
				if end < 0 {
					end = max(0, int64(r.len())+end)
				}
				shown = r.slice(0, int(end)) + "..."
			}
			if !strings.HasPrefix(s, "https://") && !strings.HasPrefix(s, "http://") {
				href = "https://" + s
			}
			return link(href, attributes, shown)
		case strings.HasPrefix(s, "mailto:") && mailAddress.MatchString(s[7:]):
			return link(s, "", s[7:])
		case strings.Contains(s, "@") && !strings.HasPrefix(s, "www.") && !strings.HasPrefix(s, "@") &&
			!strings.Contains(s, ":") && mailAddress.MatchString(s):
			return link("mailto:"+s, "", s)
		}
		for _, scheme := range schemes {
			c.ev.visit(1, c.at)
			if s != scheme && strings.HasPrefix(s, scheme) {
				return link(s, attributes, s)
			}
		}
		return s
	}
	s := c.escaped(asText(in))
	c.ev.scan(64*len(s), c.at) // the patterns are large
	var b strings.Builder
	for s != "" {
		i := strings.IndexFunc(s, func(r rune) bool { return !unicode.IsSpace(r) })
		if i < 0 {
			i = len(s)
		}
		b.WriteString(s[:i])
		s = s[i:]
		if i = strings.IndexFunc(s, unicode.IsSpace); i < 0 {
			i = len(s)
		}
		head, middle, tail := withoutPunctuation(s[:i])
		s = s[i:]
		b.WriteString(head + linked(middle) + tail)
		if b.Len() > maxText {
			c.ev.room(b.Len(), c.at)
		}
	}
	return c.ev.str(b.String(), c.at)
}

func (c *call) schemes(v any) []string {
	if v == nil {
		return nil
	}
	list, ok := v.([]any)
	if !ok {
		c.fail("'extra_schemes' must be a list of texts, not %s", typeName(v))
	}
	var out []string
	for _, x := range list {
		c.ev.visit(1, c.at)
		s := asText(plain(x))
		if len(s) > 100 || !uriScheme.MatchString(s) {
			c.fail("%s is no scheme of an address (write it as tel: or ftp://)", quoteShort(c.ev.text(x, c.at)))
		}
		out = append(out, s)
	}
	return out
}

// withoutPunctuation takes the brackets, points and commas around an escaped word
// away, but for the brackets at its end that have their partner inside.
func withoutPunctuation(word string) (head, middle, tail string) {
	middle = word
	for cut := true; cut; {
		cut = false
		for _, mark := range []string{"(", "&lt;"} {
			if s, ok := strings.CutPrefix(middle, mark); ok {
				middle, cut = s, true
			}
		}
	}
	head = word[:len(word)-len(middle)]
	rest := middle
	for cut := true; cut; {
		cut = false
		for _, mark := range []string{")", ".", ",", "&gt;"} {
			if s, ok := strings.CutSuffix(middle, mark); ok {
				middle, cut = s, true
			}
		}
	}
	for _, pair := range [][2]string{{"(", ")"}, {"&lt;", "&gt;"}} {
		open := strings.Count(middle, pair[0])
		if open <= strings.Count(middle, pair[1]) {
			continue
		}
		end := len(middle)
		for ; open > 0; open-- {
			i := strings.Index(rest[end:], pair[1])
			if i < 0 {
				break
			}
			end += i + len(pair[1])
		}
		middle = rest[:end]
	}
	return head, middle, rest[len(middle):]
}
