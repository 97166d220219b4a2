package spec

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/orchestrator-project/orchestrator/pipeline"
	"github.com/orchestrator-project/orchestrator/pipeline/expr"
)

// openAuto is a tag whose type is not known before its surroundings are.
type openAuto struct {
	auto     *pipeline.Auto
	tag      tag
	to       func(int) int // from the text to the source
	where    where
	expected *pipeline.Type // of the place that the whole value stands at
}

// autos are the tags of a source.
type autos struct {
	open []*openAuto
	keys map[autoKey]bool
}

type autoKey struct {
	step *step
	key  string
}

// numbering gives the tags of one text their keys.
type numbering struct {
	key   string
	n     int
	depth int // of tags within tags, while they are read
}

// maxTagDepth is how deep tags may stand within each other.
const maxTagDepth = 8

func (k *numbering) next() string {
	if k.n++; k.n > 1 {
		return k.key + "#" + strconv.Itoa(k.n)
	}
	return k.key
}

// autoKeyOf is the key of the first tag of a text, which no other text of the
// step has.
func (c *compiler) autoKeyOf(w where) string {
	key := w.path
	for _, name := range []string{"parameters.", "with."} {
		key = strings.TrimPrefix(key, name)
	}
	if c.autos.keys == nil {
		c.autos.keys = map[autoKey]bool{}
	}
	if c.autos.keys[autoKey{w.step, key}] {
		key = w.path
	}
	c.autos.keys[autoKey{w.step, key}] = true
	return key
}

// replaced is a text whose tags gave way to the names of their answers.
type replaced struct {
	src   string
	parts []replacement
	autos []*pipeline.Auto
}

// replacement is a part of the new text: of the old one as it was, or in place
// of a tag.
type replacement struct {
	off, end int // in the new text
	old      int // in the old one
	tag      bool
}

// old is where a byte of the new text stood in the old one.
func (r *replaced) old(i int) int {
	p := r.part(i)
	if p.tag {
		return p.old + min(i-p.off, len(tagOpen)-1)
	}
	return p.old + i - p.off
}

// part is the part that a byte of the new text belongs to.
func (r *replaced) part(i int) replacement {
	k, _ := slices.BinarySearchFunc(r.parts, i+1, func(p replacement, i int) int { return p.off - i })
	return r.parts[max(k-1, 0)]
}

// answer reports whether the name at off of the new text is that of an answer.
func (r *replaced) answer(off int) bool {
	if r == nil {
		return false
	}
	p := r.part(off)
	return p.tag && off < p.end
}

// replaceTags reads the tags of a text. It returns nil after an error, which it
// reports; at is where the text's bytes stand in the source.
func (c *compiler) replaceTags(n *node, s string, to func(int) int, w where, when usage, condition bool, keys *numbering) *replaced {
	fail := func(at span, msg, hint string) *replaced {
		c.error(fault{code: "E0105", at: span{to(at.off), to(at.end-1) + 1}, msg: msg, hint: hint}, w)
		return nil
	}
	tags, braces, bad := findTags(s, false)
	if bad == nil && condition && !braces {
		tags, _, bad = findTags(s, true)
	}
	if bad != nil {
		return fail(bad.at, bad.msg, bad.hint)
	}
	if len(tags) == 0 {
		return &replaced{}
	}
	if w.step == nil {
		return fail(span{tags[0].off, tags[0].off + len(tagOpen)}, "an <AUTO> tag belongs to a step and cannot stand here", "let a step choose, and use its output or state")
	}
	if i := strings.Index(s, pipeline.AutoName); i >= 0 {
		return fail(span{i, i + len(pipeline.AutoName)}, pipeline.AutoName+" is a name of the engine's own", "")
	}
	if keys == nil {
		keys = &numbering{key: c.autoKeyOf(w)}
	}
	out := &replaced{}
	var b strings.Builder
	at := 0
	keep := func(end int) {
		out.parts = append(out.parts, replacement{b.Len(), b.Len() + end - at, at, false})
		b.WriteString(s[at:end])
	}
	for i, t := range tags {
		if t.literal {
			return fail(span{t.off, t.off + len(tagOpen)}, "an <AUTO> tag cannot stand within a text of an expression", "join the two, as in 'a' ~ <AUTO>b</AUTO>")
		}
		keep(t.off)
		name := pipeline.AutoName + "[" + strconv.Itoa(i) + "]"
		if !t.inside {
			name = "{{ " + name + " }}"
		}
		out.parts = append(out.parts, replacement{b.Len(), b.Len() + len(name), t.off, true})
		b.WriteString(name)
		at = t.end
		a := c.readAuto(n, s, t, to, w, when, keys)
		if a == nil {
			return nil
		}
		out.autos = append(out.autos, a)
		if w.path == "run" && !t.inside {
			c.warn(fault{code: "W0601", at: span{to(t.off), to(t.off+len(tagOpen)-1) + 1}, msg: "this value is not quoted for the shell", hint: "write {{ <AUTO>...</AUTO> | sh }}, or use command with a list of arguments"}, w)
		}
	}
	keep(len(s))
	out.src = b.String()
	return out
}

var autoAttributes = []string{"type", "min", "max", "choices", "task", "model", "fallback"}

// readAuto reads one tag; what depends on its type comes later, see closeAutos.
func (c *compiler) readAuto(n *node, s string, t tag, to func(int) int, w where, when usage, keys *numbering) *pipeline.Auto {
	a := &pipeline.Auto{Key: keys.next(), Pos: c.text.pos(to(t.off))}
	o := &openAuto{auto: a, tag: t, to: to, where: w}
	ok := true
	for i := range t.attrs {
		x := &t.attrs[i]
		switch {
		case !slices.Contains(autoAttributes, x.name):
			f := fault{code: "E0105", at: o.at(x.at), msg: fmt.Sprintf("an <AUTO> tag has no attribute %q", x.name), hint: "it has " + quoteList(autoAttributes)}
			if like := c.suggest(x.name, autoAttributes); like != "" {
				f.msg += fmt.Sprintf(" (did you mean %q?)", like)
			}
			c.error(f, w)
			ok = false
		case slices.ContainsFunc(t.attrs[:i], func(y attribute) bool { return y.name == x.name }):
			c.error(fault{code: "E0105", at: o.at(x.at), msg: fmt.Sprintf("the attribute %s stands here twice", x.name)}, w)
			ok = false
		}
	}
	if !ok {
		return nil
	}
	inner := s[t.open:t.close]
	lead := len(inner) - len(strings.TrimLeft(inner, " \t\r\n"))
	inner = strings.TrimSpace(inner)
	toInner := func(i int) int { return to(t.open + lead + i) }
	if keys.depth++; keys.depth > maxTagDepth {
		c.error(fault{code: "E0105", at: o.at(span{t.off, t.off + len(tagOpen)}), msg: fmt.Sprintf("<AUTO> tags stand within each other deeper than %d", maxTagDepth)}, w)
		return nil
	}
	a.Prompt, _ = c.compile(n, inner, toInner, w, when, alwaysCompile, keys)
	keys.depth--
	if a.Prompt == nil {
		return nil
	}
	a.Hint = hint(inner)
	if x := o.attr("task"); x != nil {
		a.Task = strings.TrimSpace(x.value)
	}
	if x := o.attr("model"); x != nil {
		if a.Model = strings.TrimSpace(x.value); a.Model != "" {
			c.modelAt(o.at(x.valueAt), a.Model, w)
		}
	}
	if x := o.attr("fallback"); x != nil && templated(x.value) {
		from := x.valueAt.off
		ft, _ := c.compile(n, x.value, func(i int) int { return to(from + i) }, w, when, mayCompile, keys)
		if ft == nil {
			return nil
		}
		a.Fallback = &pipeline.Field{Template: ft}
	}
	c.autos.open = append(c.autos.open, o)
	return a
}

func (o *openAuto) attr(name string) *attribute {
	for i := range o.tag.attrs {
		if o.tag.attrs[i].name == name {
			return &o.tag.attrs[i]
		}
	}
	return nil
}

func (o *openAuto) at(s span) span { return span{o.to(s.off), o.to(s.end-1) + 1} }

// expect tells the tag that is the whole value of a template what its place asks for.
func (c *compiler) expect(t *pipeline.Template, want *pipeline.Type) {
	if t == nil || len(t.Autos) != 1 || !wholeTag(t) {
		return
	}
	for _, o := range slices.Backward(c.autos.open) {
		if o.auto == t.Autos[0] {
			o.expected = want
			return
		}
	}
}

// wholeTag reports whether a template is one tag and nothing else.
func wholeTag(t *pipeline.Template) bool {
	src := strings.TrimSpace(t.Src)
	src = strings.TrimSuffix(strings.TrimPrefix(src, "{{"), "}}")
	return strings.TrimSpace(src) == pipeline.AutoName+"[0]"
}

// closeAutos works out the types of all tags: by their attributes, else by the
// place, else a text. Where the place takes anything, an answer may be anything.
func (c *compiler) closeAutos() {
	for _, o := range c.autos.open {
		if f := c.autoType(o); f != nil {
			f.code = "E0105"
			c.error(*f, o.where)
		}
	}
	c.autos.open = nil
}

func (c *compiler) autoType(o *openAuto) *fault {
	a := o.auto
	a.Type = pipeline.Type{Kind: "string"}
	given := o.attr("type")
	if o.expected != nil && o.expected.Kind != "any" && o.expected.Kind != "union" {
		a.Type = *o.expected
		a.Type.Optional = false
	}
	if given != nil {
		t, problem := parseType(given.value)
		if problem != "" {
			return &fault{at: o.at(given.valueAt), msg: problem + c.likeType(given.value), hint: typeHint}
		}
		a.Type = t
	}
	if f := o.bounds(given != nil || o.expected != nil && a.Type.Kind != "string"); f != nil {
		return f
	}
	if f := o.choices(given); f != nil {
		return f
	}
	if x := o.attr("fallback"); x != nil && a.Fallback == nil {
		v, err := parseText(&a.Type, x.value)
		if err == nil {
			var bad []Violation
			if v, bad = Conform(&a.Type, v); bad != nil {
				return &fault{at: o.at(x.valueAt), msg: "the fallback " + bad[0].String()}
			}
		} else {
			return &fault{at: o.at(x.valueAt), msg: "the fallback " + err.Error()}
		}
		a.Fallback = &pipeline.Field{Const: v}
	}
	if given == nil && a.Type.Kind == "string" && o.expected != nil && (o.expected.Kind == "any" || o.expected.Kind == "union") {
		a.Type = pipeline.Type{Kind: "any"} // a list in an answers file is as good as a text
	}
	return nil
}

// bounds reads min and max. Without a type of the tag's or the place's own, they
// make the answer a number.
func (o *openAuto) bounds(typed bool) *fault {
	t := &o.auto.Type
	whole := true
	var last *attribute
	for _, name := range []string{"min", "max"} {
		x := o.attr(name)
		if x == nil {
			continue
		}
		last = x
		var f float64
		switch v := mustPlain(strings.TrimSpace(x.value)).(type) {
		case int64:
			f = float64(v)
		case float64:
			f, whole = v, false
		default:
			return &fault{at: o.at(x.valueAt), msg: fmt.Sprintf("%s must be a number, not %q", name, x.value)}
		}
		if name == "min" {
			t.Min = &f
		} else {
			t.Max = &f
		}
	}
	switch {
	case last == nil:
		return nil
	case !typed:
		t.Kind = "number"
		if whole {
			t.Kind = "integer"
		}
	case t.Kind != "integer" && t.Kind != "number":
		return &fault{at: o.at(last.at), msg: fmt.Sprintf("%s is an attribute of numbers, not of %s", last.name, typeText(t))}
	}
	if t.Min != nil && t.Max != nil && *t.Min > *t.Max {
		return &fault{at: o.at(last.valueAt), msg: "min is greater than max"}
	}
	return nil
}

// choices reads the values that an answer may have, or its items.
func (o *openAuto) choices(given *attribute) *fault {
	x := o.attr("choices")
	t := &o.auto.Type
	if x == nil {
		if t.Kind == "enum" && len(t.Values) == 0 {
			return &fault{at: o.at(given.valueAt), msg: "an enum needs choices", hint: `as in choices="a, b"`}
		}
		return nil
	}
	of := t
	if t.Kind == "list" {
		if t.Items == nil {
			t.Items = &pipeline.Type{Kind: "string"}
		}
		item := *t.Items
		of, t.Items = &item, &item
	}
	item := *of
	if item.Kind == "enum" && len(item.Values) == 0 {
		item.Kind = "string"
	}
	var values []any
	for part := range strings.SplitSeq(x.value, ",") {
		part = strings.TrimSpace(part)
		if part == "" {
			return &fault{at: o.at(x.valueAt), msg: "choices holds an empty value", hint: `as in choices="a, b"`}
		}
		v, err := parseText(&item, part)
		if err != nil {
			return &fault{at: o.at(x.valueAt), msg: "choices: " + err.Error()}
		}
		values = append(values, v)
	}
	*of = pipeline.Type{Kind: "enum", Values: values}
	return nil
}

// hintPattern finds choices that end a text or a part of it: a, b, or c.
var hintPattern = regexp.MustCompile(`(?:^|[:(.]\s*)((?:[\w-]+(?: [\w-]+){0,2},\s*)+(?:and\s+|or\s+)?(?:[\w-]+)(?: [\w-]+){0,2})\s*[).]*\s*$`)

// hint lists the choices that the text of a tag names, as in "a, b, or c".
func hint(text string) []string {
	m := hintPattern.FindStringSubmatch(text)
	if m == nil {
		return nil
	}
	parts := strings.Split(m[1], ",")
	last := strings.TrimSpace(parts[len(parts)-1])
	word, named := strings.CutPrefix(last, "or ")
	if a, b, both := strings.Cut(last, " or "); both { // a, b or c
		parts = append(parts[:len(parts)-1], a, b)
	} else if !named {
		return nil // a list of things, not a choice
	} else {
		parts[len(parts)-1] = word
	}
	for i := range parts {
		parts[i] = strings.TrimSpace(parts[i])
		if i == 0 {
			for _, lead := range []string{"choose ", "either "} {
				if len(parts[i]) > len(lead) && strings.EqualFold(parts[i][:len(lead)], lead) {
					parts[i] = parts[i][len(lead):]
				}
			}
		}
	}
	return parts
}

// answer reports whether a reference is to the answer of one of the template's tags.
func (u *use) answer(r *expr.Ref) bool { return u.tags.answer(r.Off) }

// autoAction reads an action that is itself a tag: the answer is the key of one
// in the catalogue.
func (c *compiler) autoAction(n *node, tool string, s *step) {
	w := where{s, "action"}
	t, _ := c.template(n, n.text, w, useField, false)
	if t == nil {
		return
	}
	if !wholeTag(t) || len(t.Autos) != 1 {
		c.error(fault{code: "E0105", at: n.at, msg: "an action is one <AUTO> tag, or a name", hint: "nothing can stand before or behind the tag"}, w)
		return
	}
	var keys []any
	for _, key := range c.cat.keys {
		if a := c.cat.byKey[key]; (tool == "" || a.Tool == tool) && c.cat.policy.Allows(a.Key, a.Name, a.Tool) {
			keys = append(keys, key)
		}
	}
	c.expect(t, &pipeline.Type{Kind: "enum", Values: keys})
	s.def.ActionAuto = t.Autos[0]
	c.templates-- // the template around the tag, the last one, is not needed
}
