package spec

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/orchestrator-project/orchestrator/pipeline"
	"github.com/orchestrator-project/orchestrator/pipeline/expr"
)

// templated reports whether a text has to be compiled.
func templated(s string) bool {
	i := strings.IndexByte(s, '{')
	return i >= 0 && (strings.Contains(s[i:], "{{") || strings.Contains(s[i:], "{%") || strings.Contains(s[i:], "{#"))
}

// field reads a value that may hold templates.
func (c *compiler) field(n *node, w where, when usage) pipeline.Field {
	v, f := c.reduce(n, w, when)
	if f != nil {
		return *f
	}
	return pipeline.Field{Const: v}
}

// reduce returns a constant, or a field that holds a template somewhere.
func (c *compiler) reduce(n *node, w where, when usage) (any, *pipeline.Field) {
	switch n.kind {
	case list:
		consts := make([]any, len(n.items))
		var fs []pipeline.Field
		for i, item := range n.items {
			v, f := c.reduce(item, where{w.step, w.path + "[" + strconv.Itoa(i) + "]"}, when)
			if f != nil && fs == nil {
				fs = make([]pipeline.Field, i, len(n.items))
				for j := range i {
					fs[j].Const = consts[j]
				}
			}
			switch {
			case f != nil:
				fs = append(fs, *f)
			case fs != nil:
				fs = append(fs, pipeline.Field{Const: v})
			default:
				consts[i] = v
			}
		}
		if fs != nil {
			return nil, &pipeline.Field{List: fs}
		}
		return consts, nil
	case mapping:
		es := c.entries(n, w, when)
		if !slices.ContainsFunc(es, func(e pipeline.Entry) bool { return !isConst(&e.Value) }) {
			m := make(map[string]any, len(es))
			for i := range es {
				m[es[i].Name] = es[i].Value.Const
			}
			return m, nil
		}
		return nil, &pipeline.Field{Map: es}
	}
	v, bad := n.value()
	if bad != nil {
		c.error(*bad, w)
		return nil, nil
	}
	s, ok := v.(string)
	if !ok {
		return v, nil
	}
	t, konst := c.template(n, s, w, when, false)
	if t == nil {
		return konst, nil
	}
	return nil, &pipeline.Field{Template: t}
}

func isConst(f *pipeline.Field) bool { return f.Template == nil && f.List == nil && f.Map == nil }

// entries reads a mapping of values.
func (c *compiler) entries(n *node, w where, when usage) []pipeline.Entry {
	if len(n.pairs) == 0 {
		return nil
	}
	es := make([]pipeline.Entry, 0, len(n.pairs))
	for i := range n.pairs {
		p := &n.pairs[i]
		es = append(es, pipeline.Entry{Name: p.name, Value: c.field(p.value, w.in(p.name), when), Pos: c.text.pos(p.key.off)})
	}
	return es
}

// template compiles a text. A text without placeholders comes back as such.
func (c *compiler) template(n *node, s string, w where, when usage, condition bool) (*pipeline.Template, string) {
	form := mayCompile
	if condition {
		form = asCondition
	}
	return c.compile(n, s, nil, w, when, form, nil)
}

// form says what a text is.
type form uint8

const (
	mayCompile    form = iota // a template, if it has placeholders
	alwaysCompile             // a template, also without
	asCondition               // a condition
)

// compile compiles a text whose bytes stand in the source where to says; nil: as
// n says. keys are the keys of the <AUTO> tags of the text that this one is a
// part of; nil: it is a text of its own.
func (c *compiler) compile(n *node, s string, to func(int) int, w where, when usage, as form, keys *numbering) (*pipeline.Template, string) {
	u := &use{node: n, where: w, when: when, to: to}
	src := s
	if tagged(s) {
		if to == nil {
			to = c.text.source(n)
		}
		tags := c.replaceTags(n, s, to, w, when, as == asCondition, keys)
		if tags == nil {
			return nil, s
		}
		if len(tags.autos) > 0 {
			src, u.tags = tags.src, tags
			u.to = func(i int) int { return to(tags.old(i)) }
		}
	}
	if as == mayCompile && !templated(src) {
		return nil, s
	}
	x, err := c.parse(src, as == asCondition)
	u.expr = x
	if err != nil {
		c.templateErrors(u, err)
		return nil, s
	}
	konst, fixed := x.Const()
	if fixed && as == mayCompile {
		return nil, konst
	}
	for _, d := range x.Deprecated() {
		at := c.at(u, d.Off, d.End)
		c.warn(fault{code: "W0203", at: at, msg: fmt.Sprintf("%s is an old spelling", src[d.Off:d.End]), hint: "write " + strings.TrimPrefix(src[d.Off:d.End], "$")}, w)
	}
	t := &pipeline.Template{ID: c.templates, Src: src, Pos: c.text.pos(n.off), Condition: as == asCondition, Impure: x.Impure()}
	c.templates++
	if u.tags != nil {
		t.Autos = u.tags.autos
	}
	switch {
	case fixed:
	case w.step != nil:
		w.step.uses = append(w.step.uses, u)
	default:
		c.docUses = append(c.docUses, u)
	}
	return t, ""
}

// parsed names a text that has been compiled.
type parsed struct {
	src       string
	condition bool
}

// parse compiles a text. Many steps say the same: a text is compiled once.
func (c *compiler) parse(src string, condition bool) (*expr.Template, error) {
	key := parsed{src, condition}
	if x := c.parsed[key]; x != nil {
		return x, nil
	}
	compile := expr.Compile
	if condition {
		compile = expr.CompileCondition
	}
	x, err := compile(src)
	if err == nil {
		c.parsed[key] = x
	}
	return x, err
}

func (c *compiler) templateErrors(u *use, err error) {
	var many expr.Errors
	var one *expr.Error
	switch {
	case errors.As(err, &many):
		for _, e := range many {
			c.templateError(u, e)
		}
	case errors.As(err, &one):
		c.templateError(u, one)
	default:
		c.error(fault{code: "E0205", at: u.node.at, msg: err.Error()}, u.where)
	}
}

func (c *compiler) templateError(u *use, e *expr.Error) {
	code := e.Code
	if code == "" {
		code = "E0205"
	}
	c.error(fault{code: code, at: c.at(u, e.Off, e.End), msg: e.Text, hint: e.Hint}, u.where)
}

// condition reads a condition: a bare expression, one {{ }}, or a boolean.
func (c *compiler) condition(n *node, w where, when usage) *pipeline.Template {
	if n.kind != scalar {
		c.error(fault{code: "E0104", at: n.at, msg: "a condition is an expression, not " + n.what()}, w)
		return nil
	}
	if n.isNull() || strings.TrimSpace(n.text) == "" {
		c.error(fault{code: "E0104", at: n.at, msg: "an empty condition", hint: "leave the key out if the step always runs"}, w)
		return nil
	}
	t, _ := c.template(n, n.text, w, when, true)
	c.expect(t, &pipeline.Type{Kind: "boolean"})
	return t
}

// expression reads what gives any value: a bare expression, or a text with
// placeholders.
func (c *compiler) expression(n *node, w where) *pipeline.Template {
	if n.kind == scalar && (templated(n.text) || tagged(n.text)) {
		t, _ := c.template(n, n.text, w, useCollect, false)
		return t
	}
	return c.condition(n, w, useCollect)
}

// wrong reports a value of the wrong kind.
func (c *compiler) wrong(n *node, w where, want string) {
	if c.fixed(n, w) {
		return
	}
	x := fault{code: "E0104", at: n.at, msg: fmt.Sprintf("%s must be %s, not %s", lastName(w.path), want, n.what())}
	if n.kind == scalar && templated(n.text) {
		x.msg = fmt.Sprintf("%s must be %s and cannot be a template", lastName(w.path), want)
	}
	c.error(x, w)
}

func lastName(path string) string {
	if i := strings.LastIndexByte(path, '.'); i >= 0 {
		return path[i+1:]
	}
	return path
}

// inert reads a text that is never rendered: what stands in the source, also
// where YAML sees a number.
func (c *compiler) inert(n *node, w where) string {
	if n == nil {
		return ""
	}
	if n.kind != scalar {
		c.wrong(n, w, "a text")
		return ""
	}
	if n.isNull() {
		return ""
	}
	if templated(n.text) {
		i := strings.IndexByte(n.text, '{')
		to := c.text.source(n)
		c.warn(fault{code: "W0202", at: span{to(i), to(i+1) + 1}, msg: fmt.Sprintf("%s is never rendered; this template stays as it is", lastName(w.path))}, w)
	}
	return n.text
}

// tagged reports whether a text holds <AUTO> tags.
func tagged(s string) bool { return strings.Contains(s, tagOpen) || strings.Contains(s, tagClose) }

// fixed reports an <AUTO> tag where nothing can be filled in.
func (c *compiler) fixed(n *node, w where) bool {
	if n.kind != scalar || !tagged(n.text) {
		return false
	}
	to := c.text.source(n)
	i := max(strings.Index(n.text, tagOpen), 0)
	c.error(fault{code: "E0105", at: span{to(i), to(i+len(tagOpen)-1) + 1}, msg: fmt.Sprintf("%s is fixed; an <AUTO> tag cannot stand here", lastName(w.path)), hint: "tags can stand in the values that a step works with"}, w)
	return true
}

// word reads a constant text.
func (c *compiler) word(n *node, w where) (string, bool) {
	if n.kind == scalar && !templated(n.text) && !tagged(n.text) {
		if v, bad := n.value(); bad == nil {
			if s, ok := v.(string); ok {
				return s, true
			}
		}
	}
	c.wrong(n, w, "a text")
	return "", false
}

// oneOf reads one of a few words. The first is the default, stored as "".
func (c *compiler) oneOf(n *node, w where, words ...string) string {
	if word := c.choose(n, w, words...); word != words[0] {
		return word
	}
	return ""
}

// choose reads one of a few words.
func (c *compiler) choose(n *node, w where, words ...string) string {
	if n == nil {
		return ""
	}
	if n.kind != scalar {
		c.wrong(n, w, "one of "+quoteList(words))
		return ""
	}
	if !slices.Contains(words, n.text) && !c.fixed(n, w) {
		x := fault{code: "E0104", at: n.at, msg: fmt.Sprintf("%s cannot be %q", lastName(w.path), n.text), hint: "it can be " + quoteList(words)}
		if s := c.suggest(n.text, words); s != "" {
			x.msg += fmt.Sprintf(" (did you mean %q?)", s)
		}
		c.error(x, w)
	}
	if !slices.Contains(words, n.text) {
		return ""
	}
	return n.text
}

// integer reads a whole number of at least least.
func (c *compiler) integer(n *node, w where, least int64) (int, bool) {
	if n.kind == scalar {
		v, bad := n.value()
		if bad != nil {
			c.error(*bad, w)
			return 0, false
		}
		if i, ok := v.(int64); ok {
			if i < least || i > 1<<31-1 {
				c.error(fault{code: "E0104", at: n.at, msg: fmt.Sprintf("%s must be at least %d, and less than 2^31", lastName(w.path), least)}, w)
				return 0, false
			}
			return int(i), true
		}
	}
	c.wrong(n, w, "a whole number")
	return 0, false
}

func (c *compiler) boolean(n *node, w where) bool {
	if n == nil {
		return false
	}
	if n.kind == scalar {
		if v, bad := n.value(); bad == nil {
			if b, ok := v.(bool); ok {
				return b
			}
		}
	}
	c.wrong(n, w, "true or false")
	return false
}

// duration reads a number of seconds, or a text such as 1h30m.
func (c *compiler) duration(n *node, w where) (time.Duration, bool) {
	if n.kind == scalar && !templated(n.text) {
		v, bad := n.value()
		if bad != nil {
			c.error(*bad, w)
			return 0, false
		}
		if d, ok := Duration(v); ok {
			return d, true
		}
	}
	if c.fixed(n, w) {
		return 0, false
	}
	x := fault{code: "E0104", at: n.at, msg: lastName(w.path) + " must be a duration", hint: "a number of seconds, or 500ms, 90s, 5m, 1h30m, 2d"}
	if n.kind == scalar && templated(n.text) {
		x.msg += " and cannot be a template"
	}
	c.error(x, w)
	return 0, false
}

// maxDuration is the longest duration: about a hundred years.
const maxDuration = 100 * 365 * 24 * time.Hour

// Duration reads a duration of the language: a number of seconds, or parts of
// whole or decimal numbers with the units ms, s, m, h and d, as in 1h30m.
func Duration(v any) (time.Duration, bool) {
	switch v := v.(type) {
	case int64:
		if v < 0 || v > int64(maxDuration/time.Second) {
			return 0, false
		}
		return time.Duration(v) * time.Second, true
	case float64:
		if !(v >= 0 && v <= maxDuration.Seconds()) {
			return 0, false
		}
		return time.Duration(v * float64(time.Second)), true
	case string:
		return parseDuration(strings.TrimSpace(v))
	}
	return 0, false
}

func parseDuration(s string) (time.Duration, bool) {
	if v, problem := plainValue(s); problem == "" {
		switch v.(type) {
		case int64, float64:
			return Duration(v)
		}
	}
	var sum time.Duration
	parts := 0
	for s != "" {
		i := 0
		for i < len(s) && (s[i] >= '0' && s[i] <= '9' || s[i] == '.') {
			i++
		}
		number, err := strconv.ParseFloat(s[:i], 64)
		if i == 0 || err != nil {
			return 0, false
		}
		s = s[i:]
		var unit time.Duration
		switch {
		case strings.HasPrefix(s, "ms"):
			unit, s = time.Millisecond, s[2:]
		case strings.HasPrefix(s, "s"):
			unit, s = time.Second, s[1:]
		case strings.HasPrefix(s, "m"):
			unit, s = time.Minute, s[1:]
		case strings.HasPrefix(s, "h"):
			unit, s = time.Hour, s[1:]
		case strings.HasPrefix(s, "d"):
			unit, s = 24*time.Hour, s[1:]
		default:
			return 0, false
		}
		if number > float64(maxDuration/unit) {
			return 0, false
		}
		if sum += time.Duration(number * float64(unit)); sum > maxDuration {
			return 0, false
		}
		parts++
	}
	return sum, parts > 0
}

// names reads one name or a list of names, each with its node.
func (c *compiler) names(n *node, w where) (names []string, nodes []*node) {
	if n == nil || n.isNull() {
		return nil, nil
	}
	items := []*node{n}
	switch n.kind {
	case list:
		items = n.items
	case mapping:
		c.wrong(n, w, "a text or a list of texts")
		return nil, nil
	}
	for _, item := range items {
		if s, ok := c.word(item, w); ok {
			if slices.Contains(names, s) && len(names) < 100 {
				continue
			}
			names, nodes = append(names, s), append(nodes, item)
		}
	}
	return names, nodes
}
