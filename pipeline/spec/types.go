package spec

import (
	"fmt"
	"math"
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
}

// typeName reads a type's name, as in integer, list<string> or optional<path>.
func (c *compiler) typeName(n *node, s string, w where) pipeline.Type {
	s = strings.TrimSpace(s)
	if outer, inner, ok := strings.Cut(s, "<"); ok && strings.HasSuffix(inner, ">") && len(s) < 200 {
		item := c.typeName(n, inner[:len(inner)-1], w)
		switch typeNames[outer] {
		case "list":
			return pipeline.Type{Kind: "list", Items: &item}
		case "":
			if outer == "optional" {
				item.Optional = true
				return item
			}
		}
	}
	if kind := typeNames[s]; kind != "" {
		return pipeline.Type{Kind: kind, Additional: kind == "map"}
	}
	x := fault{code: "E0104", at: n.at, msg: fmt.Sprintf("there is no type %q", s), hint: "types are string, integer, number, boolean, enum, path, list, map, any, file, duration"}
	switch s {
	case "secret", "union":
		x = fault{code: "E0110", at: n.at, msg: fmt.Sprintf("the type %s is part of the language, but this version does not support it yet", s)}
		if s == "secret" {
			x.hint = "name it in the pipeline's secrets"
		}
	default:
		names := make([]string, 0, len(typeNames))
		for name := range typeNames {
			names = append(names, name)
		}
		if like := c.suggest(s, names); like != "" {
			x.msg += fmt.Sprintf(" (did you mean %q?)", like)
		}
	}
	c.error(x, w)
	return pipeline.Type{Kind: "any"}
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
			v2, bad := check(&p.Type, v, "")
			if bad != nil {
				at := d.at
				if inner := d.walk(bad.path); inner != nil {
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
	} else if t.Kind == "enum" {
		c.error(fault{code: "E0111", at: f.node.at, msg: "an enum needs values"}, w)
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
	return t
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
		if found := strings.Contains(s, "<AUTO"); found {
			c.template(n, s, w, useField, false) // reports it
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

// mismatch is why a value is not of a type.
type mismatch struct {
	path    string // within the value, as in [2].name
	text    string // "must be an integer, not a text"
	hint    string
	escapes bool // a path that leaves the workspace
}

func (m *mismatch) String() string {
	if m.path != "" {
		return "is wrong at " + strings.TrimPrefix(m.path, ".") + ": it " + m.text
	}
	return m.text
}

func (m *mismatch) code(other string) string {
	if m.escapes {
		return "E0601"
	}
	return other
}

// check tests a value against a type. It returns the value converted: whole
// floats become integers where the type says so, defaults of a map's properties
// are filled in.
func check(t *pipeline.Type, v any, at string) (any, *mismatch) {
	wrong := func(want string) (any, *mismatch) {
		m := &mismatch{path: at, text: fmt.Sprintf("must be %s, not %s", want, describe(v))}
		switch x := v.(type) {
		case string:
			if typeOfValue(mustPlain(x)).Kind == t.Kind {
				m.hint = "write it without quotes"
			}
		case int64, float64, bool:
			if t.Kind == "string" || t.Kind == "path" || t.Kind == "file" {
				m.hint = "quote it"
			}
		}
		return v, m
	}
	if v == nil {
		if t.Optional || t.Kind == "any" {
			return nil, nil
		}
		return wrong(typeText(t))
	}
	switch t.Kind {
	case "string", "file":
		if _, ok := v.(string); !ok {
			return wrong(typeText(t))
		}
	case "path":
		s, ok := v.(string)
		if !ok || s == "" {
			return wrong(typeText(t))
		}
		clean := path.Clean(strings.ReplaceAll(s, `\`, "/"))
		if path.IsAbs(clean) || clean == ".." || strings.HasPrefix(clean, "../") {
			return v, &mismatch{path: at, text: fmt.Sprintf("must be a path within the workspace, not %q", s), escapes: true}
		}
		if u := path.Clean(t.Under); t.Under != "" && clean != u && !strings.HasPrefix(clean, u+"/") && u != "." {
			return v, &mismatch{path: at, text: fmt.Sprintf("must be a path under %s, not %q", t.Under, s)}
		}
	case "integer":
		switch n := v.(type) {
		case int64:
		case float64:
			if n != math.Trunc(n) || math.Abs(n) >= 1<<63 {
				return wrong(typeText(t))
			}
			return int64(n), nil
		default:
			return wrong(typeText(t))
		}
	case "number":
		switch v.(type) {
		case int64, float64:
		default:
			return wrong(typeText(t))
		}
	case "boolean":
		if _, ok := v.(bool); !ok {
			return wrong(typeText(t))
		}
	case "enum":
		for _, e := range t.Values {
			if same(e, v) {
				return e, nil
			}
		}
		return v, &mismatch{path: at, text: fmt.Sprintf("must be one of %s, not %s", valueList(t.Values), describe(v))}
	case "duration":
		if _, ok := Duration(v); !ok {
			return wrong(typeText(t))
		}
	case "list":
		return checkList(t, v, at, wrong)
	case "map":
		return checkMap(t, v, at, wrong)
	}
	return v, nil
}

func checkList(t *pipeline.Type, v any, at string, wrong func(string) (any, *mismatch)) (any, *mismatch) {
	vs, ok := v.([]any)
	if !ok {
		return wrong(typeText(t))
	}
	if t.Items == nil {
		return v, nil
	}
	out := make([]any, len(vs))
	for i := range vs {
		e, bad := check(t.Items, vs[i], fmt.Sprintf("%s[%d]", at, i))
		if bad != nil {
			return v, bad
		}
		out[i] = e
	}
	return out, nil
}

func checkMap(t *pipeline.Type, v any, at string, wrong func(string) (any, *mismatch)) (any, *mismatch) {
	m, ok := v.(map[string]any)
	if !ok {
		return wrong(typeText(t))
	}
	if len(t.Properties) == 0 {
		return v, nil
	}
	out := make(map[string]any, len(m))
	for i := range t.Properties {
		p := &t.Properties[i]
		e, given := m[p.Name]
		switch {
		case !given && p.Required:
			return v, &mismatch{path: at, text: fmt.Sprintf("must have %s", p.Name)}
		case !given && p.Default != nil:
			out[p.Name] = p.Default
		case given && e == nil && !p.Required:
			out[p.Name] = p.Default
		case given:
			e, bad := check(&p.Type, e, at+"."+p.Name)
			if bad != nil {
				return v, bad
			}
			out[p.Name] = e
		}
	}
	names := make([]string, 0, len(m))
	for name := range m {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		if _, known := out[name]; known || slices.ContainsFunc(t.Properties, func(p pipeline.Property) bool { return p.Name == name }) {
			continue
		}
		if !t.Additional {
			return v, &mismatch{path: at, text: fmt.Sprintf("must not have %s", name)}
		}
		out[name] = m[name]
	}
	return out, nil
}

func same(a, b any) bool {
	if !scalarValue(a) || !scalarValue(b) {
		return false
	}
	if a == b {
		return true
	}
	switch x := a.(type) {
	case int64:
		y, ok := b.(float64)
		return ok && float64(x) == y
	case float64:
		y, ok := b.(int64)
		return ok && x == float64(y)
	}
	return false
}

// scalarValue reports whether == may be asked of the value.
func scalarValue(v any) bool {
	switch v.(type) {
	case []any, map[string]any:
		return false
	}
	return true
}

func mustPlain(s string) any {
	v, _ := plainValue(s)
	return v
}

// typeText names a type for people.
func typeText(t *pipeline.Type) string {
	switch t.Kind {
	case "string":
		return "a text"
	case "file", "path":
		return "a path"
	case "integer":
		return "a whole number"
	case "number":
		return "a number"
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
