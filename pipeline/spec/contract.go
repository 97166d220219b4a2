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

// contract reads what a step promises to give. asks says that a model gives it;
// runs, that a program does.
func (c *compiler) contract(f *fields, s *step, asks, runs bool) {
	n := f.get("returns")
	if n == nil {
		return
	}
	w := where{s, "returns"}
	if n.kind != mapping {
		c.wrong(n, w, "a mapping of fields with their types")
		return
	}
	if p := f.pair("capture"); p != nil && s.def.Kind == pipeline.KindCommand {
		c.error(fault{code: "E0110", at: p.key.at, msg: "capture means nothing beside returns, which says what the output is"}, where{step: s})
	}
	out := &pipeline.Contract{From: "model"}
	if runs {
		out.From = "stdout"
	}
	rest := node{kind: mapping, off: n.off, at: n.at}
	tagged := n.get("by") != nil && n.get("cases") != nil
	for i := range n.pairs {
		p := &n.pairs[i]
		switch {
		case p.name == "from":
			c.contractFrom(p.value, out, w.in("from"), asks, runs)
		case tagged && p.name != "by" && p.name != "cases":
			c.error(fault{code: "E0110", at: p.key.at, msg: fmt.Sprintf("%s cannot stand beside by and cases", p.name), hint: "a field that every case has is written in each"}, w)
		default:
			rest.pairs = append(rest.pairs, *p)
		}
	}
	switch {
	case tagged:
		out.Type = pipeline.Type{Kind: "union"}
		c.union(&out.Type, n, n.get("by"), n.get("cases"), w)
	case len(rest.pairs) == 0:
		c.error(fault{code: "E0111", at: n.at, msg: "returns names no field", hint: "as in returns: {score: number}"}, w)
	default:
		out.Type = pipeline.Type{Kind: "map", Properties: c.propertiesOf(&rest, w)}
	}
	s.def.Returns = out
	s.returns = &out.Type
}

// contractFrom reads where the result is found.
func (c *compiler) contractFrom(n *node, out *pipeline.Contract, w where, asks, runs bool) {
	if n.kind != scalar || n.isNull() {
		c.wrong(n, w, "stdout, files, model, or json with a file")
		return
	}
	word, file, _ := strings.Cut(strings.TrimSpace(n.text), " ")
	switch {
	case word == "json" && strings.TrimSpace(file) != "":
		out.From = "json"
		file = strings.TrimSpace(file)
		off := strings.Index(n.text, file)
		to := c.text.source(n)
		t, konst := c.compile(n, file, func(i int) int { return to(off + i) }, w, useField, mayCompile, nil)
		out.File = &pipeline.Field{Template: t}
		if t == nil {
			out.File.Const = konst
			if _, bad := check(&pipeline.Type{Kind: "path"}, konst); bad != nil {
				c.error(fault{code: bad.code("E0104"), at: span{to(off), to(off+len(file)-1) + 1}, msg: "the file " + bad.String()}, w)
			}
		}
	case word == "json":
		c.error(fault{code: "E0104", at: n.at, msg: "json names no file", hint: "as in from: json out/review.json"}, w)
	case file != "" || word != "stdout" && word != "files" && word != "model":
		x := fault{code: "E0104", at: n.at, msg: fmt.Sprintf("a result cannot come from %q", n.text), hint: "it can come from stdout, files, model, or json FILE"}
		if like := c.suggest(word, []string{"stdout", "files", "model", "json"}); like != "" {
			x.msg += fmt.Sprintf(" (did you mean %q?)", like)
		}
		c.error(x, w)
	case word == "stdout" && !runs:
		c.error(fault{code: "E0104", at: n.at, msg: "nothing here writes to standard output", hint: "leave from out"}, w)
	case word == "model" && !asks:
		c.error(fault{code: "E0104", at: n.at, msg: "no model is asked here", hint: "it can come from stdout, files, or json FILE"}, w)
	default:
		out.From = word
	}
}

// AnswerSchema is a type as the JSON Schema (2020-12) that a model's answer has
// to satisfy.
func AnswerSchema(t *pipeline.Type) map[string]any {
	o := map[string]any{}
	if t.Description != "" {
		o["description"] = t.Description
	}
	switch t.Kind {
	case "string", "path", "file", "secret", "duration":
		o["type"] = "string"
	case "integer", "number":
		o["type"] = t.Kind
		if t.Min != nil {
			o["minimum"] = *t.Min
		}
		if t.Max != nil {
			o["maximum"] = *t.Max
		}
	case "boolean":
		o["type"] = "boolean"
	case "enum":
		o["enum"] = t.Values
	case "list":
		o["type"] = "array"
		if t.Items != nil {
			o["items"] = AnswerSchema(t.Items)
		}
	case "map":
		objectSchema(o, t.Properties, t.Additional || len(t.Properties) == 0)
	case "union":
		cases := make([]any, len(t.Cases))
		for i := range t.Cases {
			one := map[string]any{}
			tag := pipeline.Property{Name: t.By, Required: true, Type: pipeline.Type{Kind: "enum", Values: []any{t.Cases[i].Tag}}}
			objectSchema(one, append([]pipeline.Property{tag}, t.Cases[i].Fields...), false)
			cases[i] = one
		}
		o["oneOf"] = cases
	}
	if m, ok := t.Schema.(map[string]any); ok {
		o = map[string]any{"allOf": []any{o, m}}
	}
	if t.Optional {
		return map[string]any{"anyOf": []any{o, map[string]any{"type": "null"}}}
	}
	return o
}

func objectSchema(o map[string]any, ps []pipeline.Property, open bool) {
	o["type"] = "object"
	o["additionalProperties"] = open
	props := map[string]any{}
	required := []any{}
	for i := range ps {
		p := AnswerSchema(&ps[i].Type)
		if ps[i].Doc != "" {
			p["description"] = ps[i].Doc
		}
		props[ps[i].Name] = p
		if ps[i].Required {
			required = append(required, ps[i].Name)
		}
	}
	if len(props) > 0 {
		o["properties"] = props
	}
	if len(required) > 0 {
		o["required"] = required
	}
}

// unionField finds a field of a union that every case has: the one that tells
// them apart, or one of the same type in each.
func unionField(t *pipeline.Type, name string) *pipeline.Property {
	if name == t.By {
		return &pipeline.Property{Name: name, Type: *tagType(t), Required: true}
	}
	var first *pipeline.Property
	for i := range t.Cases {
		p := caseField(&t.Cases[i], name)
		if p == nil {
			return nil
		}
		if first == nil {
			first = p
		} else if first.Type.Kind != p.Type.Kind {
			return &pipeline.Property{Name: name, Type: pipeline.Type{Kind: "any"}}
		}
	}
	return first
}

func caseField(x *pipeline.Case, name string) *pipeline.Property {
	for i := range x.Fields {
		if x.Fields[i].Name == name {
			return &x.Fields[i]
		}
	}
	return nil
}

// provenField finds a field that only some cases of the step's result have, or
// reports that those cases are not proven where it is read. It returns nil after
// an error, and where no case has the field.
func (c *compiler) provenField(u *use, r *expr.Ref, i int, t *step, union *pipeline.Type) (field *pipeline.Property, reported bool) {
	name := r.Path[i].Name
	var tags []string
	for k := range union.Cases {
		if p := caseField(&union.Cases[k], name); p != nil {
			tags = append(tags, union.Cases[k].Tag)
			field = p
		}
	}
	if field == nil {
		return nil, false
	}
	if r.Guarded && i == len(r.Path)-1 {
		return field, false
	}
	for _, tag := range possible(u, r.Path[i].Off, t, union) {
		if !slices.Contains(tags, tag) {
			c.error(fault{
				code: "E0505", at: c.at(u, r.Path[i].Off, r.Path[i].End),
				msg:  fmt.Sprintf("%s of step %s is there only where its %s is %s, which is not certain here", name, t.def.ID, union.By, strings.Join(tags, " or ")),
				hint: fmt.Sprintf("read it in a match on {{ %s.%s }}, or under the condition %s.%s == '%s'", t.def.ID, union.By, t.def.ID, union.By, tags[0]),
			}, u.where)
			return nil, true
		}
	}
	return field, false
}

// unionField checks the names behind a step's result, read by output.
func (c *compiler) unionField(u *use, r *expr.Ref, i int, t *step, union *pipeline.Type) {
	f := property(union, r.Path[i].Name)
	if f == nil {
		reported := false
		if f, reported = c.provenField(u, r, i, t, union); reported {
			return
		}
	}
	if f == nil {
		c.noField(u, r, i, union, "step "+t.def.ID)
		return
	}
	c.typed(u, r, i+1, &f.Type, fmt.Sprintf("%s of step %s", f.Name, t.def.ID))
}

// unionFields lists the fields of all cases.
func unionFields(t *pipeline.Type) []string {
	names := []string{t.By}
	for i := range t.Cases {
		for k := range t.Cases[i].Fields {
			if name := t.Cases[i].Fields[k].Name; !slices.Contains(names, name) {
				names = append(names, name)
			}
		}
	}
	return names
}

// possible lists the cases of a step's result that can be where u is evaluated:
// those that no condition and no case of a match around it rules out.
func possible(u *use, off int, t *step, union *pipeline.Type) []string {
	left := make([]string, len(union.Cases))
	for i := range union.Cases {
		left[i] = union.Cases[i].Tag
	}
	keep := func(tags []string, in bool) {
		left = slices.DeleteFunc(left, func(tag string) bool { return slices.Contains(tags, tag) != in })
	}
	holds := func(cond *pipeline.Template) {
		if cond == nil {
			return
		}
		for _, part := range conjuncts(cond.Src) {
			if tags, in := caseTest(part, t.def.ID, union.By); tags != nil {
				keep(tags, in)
			}
		}
	}
	for _, part := range provenWithin(u.expr.Source(), off) {
		if tags, in := caseTest(part, t.def.ID, union.By); tags != nil {
			keep(tags, in)
		}
	}
	for s := u.where.step; s != nil; s = s.parent() {
		if s != u.where.step || u.where.path != "condition" && u.where.path != "if" {
			holds(s.def.Condition)
		}
		o := s.parent()
		if o == nil {
			break
		}
		k := slices.Index(o.bodies, s.body)
		switch {
		case k < 0 || k >= len(o.def.Branches):
		case o.def.Kind == pipeline.KindIf:
			for j := max(0, k-maxArms); j < k; j++ { // those before did not hold
				if cond := o.def.Branches[j].Condition; cond != nil {
					if parts := conjuncts(cond.Src); len(parts) == 1 {
						if tags, in := caseTest(parts[0], t.def.ID, union.By); tags != nil {
							keep(tags, !in)
						}
					}
				}
			}
			holds(o.def.Branches[k].Condition)
		case o.def.Kind == pipeline.KindMatch && o.def.Match != nil && o.def.Match.Template != nil && isField(inBraces(o.def.Match.Template.Src), t.def.ID, union.By):
			if tag := o.def.Branches[k].Case; tag != nil {
				keep([]string{*tag}, true)
				break
			}
			for j := range o.def.Branches {
				if tag := o.def.Branches[j].Case; tag != nil {
					keep([]string{*tag}, false)
				}
			}
		}
	}
	return left
}

var (
	lastIf  = regexp.MustCompile(`(?s)^.*\{%[-+]?\s*if\s+(.*?)\s*[-+]?%\}`)
	endIf   = regexp.MustCompile(`\{%[-+]?\s*(else|elif|endif)\b`)
	ternary = regexp.MustCompile(`^(.*?)\sif\s+(.*?)(?:\selse\s.*)?$`)
)

// maxProof is how many bytes before a name are looked at for what proves it, and
// maxArms how many arms before its own.
const (
	maxProof = 4096
	maxArms  = 200
)

// provenWithin lists the tests that hold where the name at off of a template is
// evaluated, as far as the template itself says: those before it in a chain of
// and, the condition of x if c else y around it, and of the {% if %} around it.
func provenWithin(src string, off int) []string {
	var proofs []string
	if far := off - maxProof; far > 0 {
		src, off = src[far:], maxProof
	}
	if m := lastIf.FindStringSubmatchIndex(src[:off]); m != nil && !endIf.MatchString(src[m[1]:off]) {
		proofs = append(proofs, conjuncts(src[m[2]:m[3]])...)
	}
	from, end := 0, len(src)
	if i := max(strings.LastIndex(src[:off], "{{"), strings.LastIndex(src[:off], "{%")); i >= 0 {
		from = i + 2
	}
	if i := strings.IndexAny(src[off:], "}%"); i >= 0 {
		end = off + i
	}
	x := src[from:end]
	before := x
	if m := ternary.FindStringSubmatchIndex(x); m != nil {
		switch at := off - from; {
		case at < m[3]:
			proofs = append(proofs, conjuncts(x[m[4]:m[5]])...)
		case at < m[5]:
			before = x[m[4]:m[5]]
			from += m[4]
		default:
			return proofs
		}
	}
	if !strings.ContainsAny(before, "()") && !either.MatchString(before) {
		parts := and.Split(before[:max(off-from, 0)], -1)
		proofs = append(proofs, parts[:len(parts)-1]...)
	}
	return proofs
}

// inBraces is an expression without the braces around it.
func inBraces(src string) string {
	s := strings.TrimSpace(src)
	if inner, ok := strings.CutPrefix(s, "{{"); ok {
		if inner, ok = strings.CutSuffix(inner, "}}"); ok {
			s = strings.TrimSpace(inner)
		}
	}
	return s
}

// isField reports whether an expression is a field of a step's result.
func isField(x, id, field string) bool {
	x = strings.TrimPrefix(x, "steps.")
	rest, ok := strings.CutPrefix(x, id+".")
	for _, name := range []string{"output.", "result.", "value."} {
		rest = strings.TrimPrefix(rest, name)
	}
	return ok && rest == field
}

var (
	or     = regexp.MustCompile(`\s+or\s+`)
	and    = regexp.MustCompile(`\s+and\s+`)
	either = regexp.MustCompile(`\s(or|if|else)\s`)
)

// conjuncts are the parts of a condition that all hold where it does. Of what is
// not that simple it is the whole, which proves nothing then.
func conjuncts(src string) []string {
	x := inBraces(src)
	if strings.ContainsAny(x, "()") || either.MatchString(x) {
		return []string{x}
	}
	return and.Split(x, -1)
}

var (
	equals = regexp.MustCompile(`^([\w.-]+)\s*(==|!=)\s*('[^'\\]*'|"[^"\\]*")$`)
	among  = regexp.MustCompile(`^([\w.-]+)\s+(not\s+in|in)\s+[\[(]\s*((?:'[^'\\]*'|"[^"\\]*")(?:\s*,\s*(?:'[^'\\]*'|"[^"\\]*"))*)\s*,?\s*[\])]$`)
)

// caseTest reads a test of a step's field against fixed values: which ones, and
// whether it is one of them where the test holds. Anything else gives nil.
func caseTest(x, id, field string) (tags []string, in bool) {
	x = strings.TrimSpace(x)
	if parts := or.Split(x, -1); len(parts) > 1 {
		for _, part := range parts {
			one, in := caseTest(part, id, field)
			if one == nil || !in {
				return nil, false
			}
			tags = append(tags, one...)
		}
		return tags, true
	}
	if m := equals.FindStringSubmatch(x); m != nil && isField(m[1], id, field) {
		return []string{m[3][1 : len(m[3])-1]}, m[2] == "=="
	}
	if m := among.FindStringSubmatch(x); m != nil && isField(m[1], id, field) {
		for part := range strings.SplitSeq(m[3], ",") {
			part = strings.TrimSpace(part)
			tags = append(tags, part[1:len(part)-1])
		}
		return tags, m[2] == "in"
	}
	return nil, false
}

// promptFiles reads the files that are put into a step's prompt.
func (c *compiler) promptFiles(n *node, w where) *pipeline.Files {
	if n.kind != mapping {
		c.wrong(n, w, "a mapping with required or optional")
		return nil
	}
	f := c.fields(n, inFiles, w)
	out := &pipeline.Files{
		Required: c.patterns(f.get("required"), w.in("required")),
		Optional: c.patterns(f.get("optional"), w.in("optional")),
	}
	if out.Required == nil && out.Optional == nil {
		c.error(fault{code: "E0111", at: n.at, msg: "files names no file", hint: "as in files: {required: [docs/*.md]}"}, w)
	}
	if v := f.get("inject"); v != nil {
		w := w.in("inject")
		if v.kind != mapping {
			c.wrong(v, w, "a mapping with mode or position")
			return out
		}
		g := c.fields(v, inInject, w)
		out.Mode = c.oneOf(g.get("mode"), w.in("mode"), "content", "list")
		out.Position = c.oneOf(g.get("position"), w.in("position"), "after", "before")
	}
	return out
}

// patterns reads one pattern of files in the workspace, or a list of them.
func (c *compiler) patterns(n *node, w where) []pipeline.Field {
	if n == nil || n.isNull() {
		return nil
	}
	items := []*node{n}
	if n.kind == list {
		items = n.items
	}
	var out []pipeline.Field
	for i, item := range items {
		at := w
		if n.kind == list {
			at = w.in("[" + strconv.Itoa(i) + "]")
		}
		if item.kind != scalar || item.isNull() {
			c.wrong(item, at, "a pattern of files")
			continue
		}
		x := c.field(item, at, useField)
		if x.Template == nil {
			x.Const = item.text
			if _, bad := check(&pipeline.Type{Kind: "path"}, item.text); bad != nil {
				c.error(fault{code: bad.code("E0104"), at: item.at, msg: "the pattern " + bad.String()}, at)
			}
		}
		out = append(out, x)
	}
	return out
}

// contractShape is shape for what this file and artifact.go read.
func contractShape(name string) object {
	types := object{"type": "object", "additionalProperties": ref("type")}
	switch name {
	case "fields":
		return object{"type": "object", "additionalProperties": anyOf(types, object{"type": "null"})}
	case "returns":
		return object{"type": "object", "properties": object{
			"from": object{"type": "string", "pattern": "^(stdout|files|model|json .+)$"},
			"by":   object{"type": "string"}, "cases": contractShape("fields"),
		}, "additionalProperties": ref("type")}
	case "publish":
		return anyOf(mapShape(inPublish), object{"type": "array", "items": mapShape(inPublish)})
	case "consume":
		return anyOf(mapShape(inConsume), object{"type": "array", "items": mapShape(inConsume)})
	case "fresh":
		return enum("any", "new")
	case "consume_as":
		return enum("reference", "content", "none")
	case "files":
		return mapShape(inFiles)
	case "inject":
		return mapShape(inInject)
	case "inject_mode":
		return enum("content", "list")
	case "inject_position":
		return enum("after", "before")
	case "own_actions":
		return object{"type": "object", "additionalProperties": mapShape(inOwnAction)}
	}
	return agentShape(name)
}
