package spec

import (
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/orchestrator-project/orchestrator/pipeline"
)

// typeNames are the spellings of types, with those of JSON Schema and of older
// pipelines.
var typeNames = map[string]string{
	"string": "string", "str": "string", "text": "string",
	"integer": "integer", "int": "integer",
	"number": "number", "float": "number",
	"boolean": "boolean", "bool": "boolean",
	"enum": "enum",
	"path": "path", "relpath": "path",
	"list": "list", "array": "list",
	"map": "map", "object": "map",
	"any":      "any",
	"file":     "file",
	"duration": "duration",
	"secret":   "secret",
	"union":    "union",
}

const typeHint = "types are string, integer, number, boolean, enum, path, list, map, any, file, secret, duration, union; list<T> and optional<T>"

// parseType reads a type's name, as in integer, list<string> or optional<path>.
// problem is what is wrong with it, or empty.
func parseType(s string) (t pipeline.Type, problem string) {
	s = strings.TrimSpace(s)
	if outer, inner, ok := strings.Cut(s, "<"); ok && strings.HasSuffix(inner, ">") && len(s) < 200 {
		item, problem := parseType(inner[:len(inner)-1])
		switch outer = strings.TrimSpace(outer); {
		case problem != "":
			return item, problem
		case outer == "optional":
			item.Optional = true
			return item, ""
		case typeNames[outer] == "list":
			return pipeline.Type{Kind: "list", Items: &item}, ""
		}
	}
	if kind := typeNames[s]; kind != "" {
		return pipeline.Type{Kind: kind, Additional: kind == "map"}, ""
	}
	return pipeline.Type{Kind: "any"}, fmt.Sprintf("there is no type %q", s)
}

// typeName reads a type's name.
func (c *compiler) typeName(n *node, s string, w where) pipeline.Type {
	t, problem := parseType(s)
	if problem == "" {
		return t
	}
	c.error(fault{code: "E0104", at: n.at, msg: problem + c.likeType(s), hint: typeHint}, w)
	return t
}

// likeType asks whether a type was meant that is spelled much the same.
func (c *compiler) likeType(s string) string {
	like := c.suggest(s, append(sortedKeys(typeNames), "optional"))
	if like == "" {
		return ""
	}
	return fmt.Sprintf(" (did you mean %q?)", like)
}

// declared reports whether a mapping declares a type, rather than being a
// default value itself.
func declared(n *node) bool {
	if n.kind != mapping || len(n.pairs) == 0 {
		return false
	}
	known := byPlace[inType]
	for i := range n.pairs {
		switch n.pairs[i].name {
		case "type", "default":
			return true
		}
		if known[n.pairs[i].name] == nil {
			return false
		}
	}
	return true
}

// property reads a declaration: a type with default, description and whether a
// value is required.
func (c *compiler) property(name string, n *node, w where) pipeline.Property {
	p := pipeline.Property{Name: name, Required: true}
	if n.kind == scalar {
		if n.isNull() {
			p.Type = pipeline.Type{Kind: "any"}
		} else if s, ok := c.word(n, w); ok {
			p.Type = c.typeName(n, s, w)
		}
		p.Required = !p.Type.Optional
		return p
	}
	if n.kind != mapping {
		c.wrong(n, w, "a type")
		return p
	}
	f := c.fields(n, inType, w)
	p.Type = c.typeOf(f, w)
	p.Doc = c.inert(f.get("description"), w.in("description"))
	p.Type.Description = ""
	if r := f.get("required"); r != nil && r.kind != list {
		p.Required = c.boolean(r, w.in("required"))
	}
	if p.Type.Optional {
		p.Required = false
	}
	if d := f.get("default"); d != nil {
		p.Required = false
		v, ok := c.constant(d, w.in("default"))
		if ok && (v != nil || !p.Type.Optional) && !d.isNull() {
			if f.get("type") == nil && p.Type.Kind == "any" {
				p.Type = typeOfValue(v)
			}
			v2, bad := check(&p.Type, v)
			if bad != nil {
				at := d.at
				if inner := d.walk(bad.Path); inner != nil {
					at = inner.at
				}
				c.error(fault{code: bad.code("E0501"), at: at, msg: fmt.Sprintf("the default of %s %s", name, bad)}, w.in("default"))
			}
			v = v2
		}
		p.Default = v
	}
	return p
}

// typeOf reads the keys of a type.
func (c *compiler) typeOf(f *fields, w where) pipeline.Type {
	t := pipeline.Type{Kind: "any"}
	if n := f.get("type"); n != nil {
		names, nodes := []string(nil), []*node(nil)
		if n.kind == list { // as in [string, "null"]
			names, nodes = c.names(n, w.in("type"))
			if i := slices.Index(names, "null"); i >= 0 {
				t.Optional = true
				names, nodes = slices.Delete(names, i, i+1), slices.Delete(nodes, i, i+1)
			}
			if len(names) != 1 {
				c.wrong(n, w.in("type"), "one type")
				names = nil
			}
		} else if s, ok := c.word(n, w.in("type")); ok {
			names, nodes = []string{s}, []*node{n}
		}
		if len(names) == 1 {
			optional := t.Optional
			t = c.typeName(nodes[0], names[0], w.in("type"))
			t.Optional = t.Optional || optional
		}
	}
	if n := f.get("optional"); n != nil {
		t.Optional = c.boolean(n, w.in("optional"))
	}
	if n := f.get("values"); n != nil {
		if v, ok := c.constant(n, w.in("values")); ok {
			vs, isList := v.([]any)
			if !isList || len(vs) == 0 {
				c.wrong(n, w.in("values"), "a list of values")
			} else {
				t.Kind, t.Values = "enum", vs
			}
		}
	} else if t.Kind == "enum" && !f.broken {
		c.error(fault{code: "E0111", at: f.node.at, msg: "an enum needs values", hint: "as in values: [low, high]"}, w)
	}
	want := func(key string, kinds ...string) *node {
		p := f.pair(key)
		if p == nil {
			return nil
		}
		if t.Kind == "any" && f.get("type") == nil {
			t.Kind = kinds[0]
			t.Additional = t.Kind == "map"
		}
		if !slices.Contains(kinds, t.Kind) {
			c.error(fault{code: "E0110", at: p.key.at, msg: fmt.Sprintf("%s is a key of the type %s, not of %s", p.name, kinds[0], t.Kind)}, w)
			return nil
		}
		return p.value
	}
	if n := want("under", "path"); n != nil {
		t.Under, _ = c.word(n, w.in("under"))
		if clean := path.Clean(t.Under); path.IsAbs(clean) || clean == ".." || strings.HasPrefix(clean, "../") {
			c.error(fault{code: "E0601", at: n.at, msg: fmt.Sprintf("%s is not within the workspace", t.Under)}, w.in("under"))
		}
	}
	if n := want("must_exist", "path", "file"); n != nil {
		t.MustExist = c.boolean(n, w.in("must_exist"))
	}
	if n := want("items", "list"); n != nil {
		item := c.property("items", n, w.in("items"))
		t.Items = &item.Type
	}
	if n := want("properties", "map"); n != nil {
		t.Additional = false
		c.properties(&t, f, n, w.in("properties"))
	}
	if n := want("additional", "map"); n != nil {
		t.Additional = c.boolean(n, w.in("additional"))
	}
	t.Min, t.Max = c.bound(want("min", "number", "integer"), w.in("min")), c.bound(want("max", "number", "integer"), w.in("max"))
	if t.Min != nil && t.Max != nil && *t.Min > *t.Max {
		c.error(fault{code: "E0104", at: f.get("max").at, msg: "max is less than min"}, w.in("max"))
	}
	by, cases := want("by", "union"), want("cases", "union")
	if t.Kind == "union" {
		c.union(&t, f.node, by, cases, w)
	}
	if n := f.get("schema"); n != nil {
		t.Schema = c.jsonSchema(n, w.in("schema"))
	}
	return t
}

// bound reads what a number must not pass.
func (c *compiler) bound(n *node, w where) *float64 {
	if n == nil {
		return nil
	}
	if n.kind == scalar {
		switch v := mustPlain(n.text).(type) {
		case int64:
			f := float64(v)
			return &f
		case float64:
			return &v
		}
	}
	c.wrong(n, w, "a number")
	return nil
}

// union reads the cases of a union: maps that are told apart by one field.
func (c *compiler) union(t *pipeline.Type, at, by, cases *node, w where) {
	if by == nil || cases == nil {
		c.error(fault{code: "E0111", at: at.at, msg: "a union needs by, the field that tells its cases apart, and cases"}, w)
		return
	}
	t.By, _ = c.word(by, w.in("by"))
	w = w.in("cases")
	if cases.kind != mapping || len(cases.pairs) == 0 {
		c.wrong(cases, w, "a mapping from values of "+t.By+" to fields")
		return
	}
	for i := range cases.pairs {
		p := &cases.pairs[i]
		one := pipeline.Case{Tag: p.name}
		switch {
		case p.value.isNull():
		case p.value.kind != mapping:
			c.wrong(p.value, w.in(p.name), "a mapping of fields")
		default:
			for k := range p.value.pairs {
				q := &p.value.pairs[k]
				if q.name == t.By {
					c.error(fault{code: "E0102", at: q.key.at, msg: fmt.Sprintf("%s tells the cases apart and cannot be a field of one", q.name)}, w.in(p.name))
					continue
				}
				one.Fields = append(one.Fields, c.property(q.name, q.value, w.in(p.name).in(q.name)))
			}
		}
		t.Cases = append(t.Cases, one)
	}
}

// jsonSchema reads a JSON Schema that values must satisfy besides.
func (c *compiler) jsonSchema(n *node, w where) any {
	v, ok := c.constant(n, w)
	if !ok {
		return nil
	}
	switch v.(type) {
	case map[string]any, bool:
	default:
		c.wrong(n, w, "a JSON Schema")
		return nil
	}
	if _, err := compileSchema(v); err != nil {
		c.error(fault{code: "E0104", at: n.at, msg: "this is not a JSON Schema: " + err.Error()}, w)
		return nil
	}
	return v
}

func (c *compiler) properties(t *pipeline.Type, f *fields, n *node, w where) {
	if n.kind != mapping {
		c.wrong(n, w, "a mapping of types")
		return
	}
	for i := range n.pairs {
		p := &n.pairs[i]
		t.Properties = append(t.Properties, c.property(p.name, p.value, w.in(p.name)))
	}
	if r := f.get("required"); r != nil && r.kind == list { // as in JSON Schema
		names, nodes := c.names(r, w)
		for i := range t.Properties {
			t.Properties[i].Required = slices.Contains(names, t.Properties[i].Name)
		}
		for i, name := range names {
			if !slices.ContainsFunc(t.Properties, func(p pipeline.Property) bool { return p.Name == name }) {
				c.error(fault{code: "E0104", at: nodes[i].at, msg: fmt.Sprintf("there is no property %q", name)}, w)
			}
		}
	}
}

// constant reads a value that cannot hold templates.
func (c *compiler) constant(n *node, w where) (any, bool) {
	switch n.kind {
	case list:
		vs := make([]any, 0, len(n.items))
		for i, item := range n.items {
			v, ok := c.constant(item, w.in("["+strconv.Itoa(i)+"]"))
			if !ok {
				return nil, false
			}
			vs = append(vs, v)
		}
		return vs, true
	case mapping:
		m := make(map[string]any, len(n.pairs))
		for i := range n.pairs {
			v, ok := c.constant(n.pairs[i].value, w.in(n.pairs[i].name))
			if !ok {
				return nil, false
			}
			m[n.pairs[i].name] = v
		}
		return m, true
	}
	v, bad := n.value()
	if bad != nil {
		c.error(*bad, w)
		return nil, false
	}
	if s, ok := v.(string); ok {
		if c.fixed(n, w) {
			return nil, false
		}
		if strings.Contains(s, "{{") || strings.Contains(s, "{%") {
			c.error(fault{code: "E0501", at: n.at, msg: "this value is fixed; a template is not rendered here", hint: "vars may hold templates"}, w)
			return nil, false
		}
	}
	return v, true
}

// typeOfValue is the type that a bare default stands for.
func typeOfValue(v any) pipeline.Type {
	switch v.(type) {
	case string:
		return pipeline.Type{Kind: "string"}
	case int64:
		return pipeline.Type{Kind: "integer"}
	case float64:
		return pipeline.Type{Kind: "number"}
	case bool:
		return pipeline.Type{Kind: "boolean"}
	case []any:
		return pipeline.Type{Kind: "list"}
	case map[string]any:
		return pipeline.Type{Kind: "map", Additional: true}
	}
	return pipeline.Type{Kind: "any"}
}

// typeText names a type for people.
func typeText(t *pipeline.Type) string {
	switch t.Kind {
	case "string":
		return "a text"
	case "file", "path":
		return "a path"
	case "integer":
		return "a whole number" + bounds(t)
	case "number":
		return "a number" + bounds(t)
	case "secret":
		return "a secret text"
	case "union":
		return "a map with " + t.By + ", one of " + valueList(tagType(t).Values)
	case "boolean":
		return "true or false"
	case "enum":
		return "one of " + valueList(t.Values)
	case "duration":
		return "a duration such as 90s or 1h30m"
	case "list":
		return "a list"
	case "map":
		return "a map"
	}
	return "a value"
}

// bounds says what a number must not pass, for people.
func bounds(t *pipeline.Type) string {
	number := func(f *float64) string { return strconv.FormatFloat(*f, 'g', -1, 64) }
	switch {
	case t.Min != nil && t.Max != nil:
		return " from " + number(t.Min) + " to " + number(t.Max)
	case t.Min != nil:
		return " of at least " + number(t.Min)
	case t.Max != nil:
		return " of at most " + number(t.Max)
	}
	return ""
}

// describe names a value for people.
func describe(v any) string {
	switch v := v.(type) {
	case nil:
		return "nothing"
	case string:
		if len(v) > 40 {
			return "a text"
		}
		return "the text " + strconv.Quote(v)
	case []any:
		return "a list"
	case map[string]any:
		return "a map"
	}
	return string(pipeline.EncodeValue(v))
}

func valueList(values []any) string {
	parts := make([]string, 0, len(values))
	for i, v := range values {
		if i == 20 {
			parts = append(parts, "...")
			break
		}
		if s, ok := v.(string); ok {
			parts = append(parts, s)
			continue
		}
		parts = append(parts, string(pipeline.EncodeValue(v)))
	}
	return strings.Join(parts, ", ")
}
