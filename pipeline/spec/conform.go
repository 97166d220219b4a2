package spec

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/orchestrator-project/orchestrator/pipeline"
)

// Violation is where and how a value is not of a type.
type Violation struct {
	Path    string // within the value, as in rows[2].name; empty: the value itself
	Text    string // as in "must be a whole number, not the text "a""
	Hint    string
	Escapes bool // a path that leaves the workspace
}

// String reads well behind the name of the value.
func (v *Violation) String() string {
	if v.Path != "" {
		return "is wrong at " + v.Path + ": it " + v.Text
	}
	return v.Text
}

func (v *Violation) code(other string) string {
	if v.Escapes {
		return "E0601"
	}
	return other
}

// maxViolations bounds how many are listed.
const maxViolations = 50

// Conform holds a JSON value against a type. It returns the value with defaults
// of a map's properties filled in and whole floats as integers where the type
// says so; nothing else is converted. Of a value that does not conform it lists
// what is wrong, at most 50 places, and returns the value as it is.
func Conform(t *pipeline.Type, v any) (any, []Violation) {
	k := checker{}
	out := k.value(t, v, "")
	if len(k.bad) > 0 {
		return v, k.bad
	}
	return out, nil
}

// check is Conform for those who tell one thing at a time.
func check(t *pipeline.Type, v any) (any, *Violation) {
	out, bad := Conform(t, v)
	if bad != nil {
		return v, &bad[0]
	}
	return out, nil
}

// checker collects what is wrong with a value.
type checker struct{ bad []Violation }

func (k *checker) violation(v Violation) {
	if len(k.bad) < maxViolations {
		k.bad = append(k.bad, v)
	}
}

func (k *checker) wrong(t *pipeline.Type, v any, at string) any {
	m := Violation{Path: at, Text: fmt.Sprintf("must be %s, not %s", typeText(t), describe(v))}
	switch x := v.(type) {
	case string:
		if typeOfValue(mustPlain(x)).Kind == t.Kind && t.Kind != "string" {
			m.Hint = "write it without quotes"
		}
	case int64, float64, bool:
		if t.Kind == "string" || t.Kind == "path" || t.Kind == "file" || t.Kind == "secret" {
			m.Hint = "quote it"
		}
	}
	k.violation(m)
	return v
}

func (k *checker) value(t *pipeline.Type, v any, at string) any {
	if v == nil {
		if t.Optional || t.Kind == "any" && t.Schema == nil {
			return nil
		}
		if t.Kind != "any" {
			return k.wrong(t, v, at)
		}
	}
	found := len(k.bad)
	out := k.kind(t, v, at)
	if t.Schema != nil && len(k.bad) == found {
		k.schema(t.Schema, v, at)
	}
	return out
}

func (k *checker) kind(t *pipeline.Type, v any, at string) any {
	switch t.Kind {
	case "string", "file", "secret":
		if _, ok := v.(string); !ok {
			return k.wrong(t, v, at)
		}
	case "path":
		return k.path(t, v, at)
	case "integer", "number":
		return k.number(t, v, at)
	case "boolean":
		if _, ok := v.(bool); !ok {
			return k.wrong(t, v, at)
		}
	case "enum":
		for _, e := range t.Values {
			if same(e, v) {
				return e
			}
		}
		k.violation(Violation{Path: at, Text: fmt.Sprintf("must be one of %s, not %s", valueList(t.Values), describe(v))})
	case "duration":
		if _, ok := Duration(v); !ok {
			return k.wrong(t, v, at)
		}
	case "list":
		return k.list(t, v, at)
	case "map":
		m, ok := v.(map[string]any)
		if !ok {
			return k.wrong(t, v, at)
		}
		if len(t.Properties) == 0 && t.Additional {
			return v
		}
		if len(t.Properties) == 0 && t.Schema == nil {
			return v // nothing is known about its keys
		}
		return k.fields(t.Properties, t.Additional || len(t.Properties) == 0, m, at)
	case "union":
		return k.union(t, v, at)
	}
	return v
}

func (k *checker) path(t *pipeline.Type, v any, at string) any {
	s, ok := v.(string)
	if !ok || s == "" {
		return k.wrong(t, v, at)
	}
	clean := path.Clean(strings.ReplaceAll(s, `\`, "/"))
	if path.IsAbs(clean) || clean == ".." || strings.HasPrefix(clean, "../") {
		k.violation(Violation{Path: at, Text: fmt.Sprintf("must be a path within the workspace, not %q", s), Escapes: true})
		return v
	}
	if u := path.Clean(t.Under); t.Under != "" && clean != u && !strings.HasPrefix(clean, u+"/") && u != "." {
		k.violation(Violation{Path: at, Text: fmt.Sprintf("must be a path under %s, not %q", t.Under, s)})
	}
	return v
}

func (k *checker) number(t *pipeline.Type, v any, at string) any {
	var f float64
	switch n := v.(type) {
	case int64:
		f = float64(n)
	case float64:
		f = n
		if t.Kind == "integer" {
			if n != math.Trunc(n) || math.Abs(n) >= 1<<63 {
				return k.wrong(t, v, at)
			}
			v = int64(n)
		}
	default:
		return k.wrong(t, v, at)
	}
	if t.Min != nil && f < *t.Min || t.Max != nil && f > *t.Max {
		k.violation(Violation{Path: at, Text: fmt.Sprintf("must be %s, not %s", typeText(t), describe(v))})
	}
	return v
}

func (k *checker) list(t *pipeline.Type, v any, at string) any {
	vs, ok := v.([]any)
	if !ok {
		return k.wrong(t, v, at)
	}
	if t.Items == nil {
		return v
	}
	out := make([]any, len(vs))
	for i := range vs {
		if len(k.bad) >= maxViolations {
			return v
		}
		out[i] = k.value(t.Items, vs[i], at+"["+strconv.Itoa(i)+"]")
	}
	return out
}

// fields checks the members of a map.
func (k *checker) fields(ps []pipeline.Property, additional bool, m map[string]any, at string) any {
	inner := at
	if at != "" {
		inner += "."
	}
	out := make(map[string]any, len(m))
	known := make(map[string]bool, len(ps))
	for i := range ps {
		p := &ps[i]
		known[p.Name] = true
		e, given := m[p.Name]
		switch {
		case !given && p.Required:
			k.violation(Violation{Path: at, Text: "must have " + p.Name})
		case !given && p.Default != nil:
			out[p.Name] = p.Default
		case given && e == nil && !p.Required:
			out[p.Name] = p.Default
		case given:
			out[p.Name] = k.value(&p.Type, e, inner+p.Name)
		}
	}
	var others []string
	for name := range m {
		if !known[name] {
			others = append(others, name)
		}
	}
	slices.Sort(others)
	for _, name := range others {
		if !additional {
			k.violation(Violation{Path: at, Text: "must not have " + name})
		}
		out[name] = m[name]
	}
	return out
}

func (k *checker) union(t *pipeline.Type, v any, at string) any {
	m, ok := v.(map[string]any)
	if !ok {
		return k.wrong(t, v, at)
	}
	tag, given := m[t.By]
	if !given {
		k.violation(Violation{Path: at, Text: "must have " + t.By})
		return v
	}
	for i := range t.Cases {
		one := &t.Cases[i]
		if tag != one.Tag {
			continue
		}
		return k.fields(append([]pipeline.Property{{Name: t.By, Type: *tagType(t), Required: true}}, one.Fields...), false, m, at)
	}
	by := t.By
	if at != "" {
		by = at + "." + by
	}
	k.value(tagType(t), tag, by)
	return v
}

// tagType is the type of the field that tells the cases of a union apart.
func tagType(t *pipeline.Type) *pipeline.Type {
	tags := make([]any, len(t.Cases))
	for i := range t.Cases {
		tags[i] = t.Cases[i].Tag
	}
	return &pipeline.Type{Kind: "enum", Values: tags}
}

// closedLoader keeps a schema of a pipeline from reading files or the network.
type closedLoader struct{}

func (closedLoader) Load(url string) (any, error) {
	return nil, fmt.Errorf("%s lies outside the schema", url)
}

func compileSchema(source any) (*jsonschema.Schema, error) {
	const name = "schema.json"
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(pipeline.EncodeValue(source)))
	if err != nil {
		return nil, err
	}
	c := jsonschema.NewCompiler()
	c.DefaultDraft(jsonschema.Draft2020)
	c.UseLoader(closedLoader{})
	if err := c.AddResource(name, doc); err != nil {
		return nil, err
	}
	s, err := c.Compile(name)
	if bad, ok := errors.AsType[*jsonschema.SchemaValidationError](err); ok {
		if list := schemaErrors(bad.Err, true); len(list) > 0 {
			return nil, errors.New(list[0].Text)
		}
	}
	return s, err
}

func (k *checker) schema(source, v any, at string) {
	s, err := compileSchema(source)
	if err == nil {
		err = s.Validate(v)
	}
	if err == nil {
		return
	}
	list := schemaErrors(err, false)
	if len(list) == 0 {
		list = []Violation{{Text: "does not satisfy its schema: " + err.Error()}}
	}
	for _, b := range list {
		b.Path = strings.TrimPrefix(at+b.Path, ".")
		k.violation(b)
	}
}

// schemaErrors lists what a schema finds, by place. Of a schema that is itself at
// fault, the texts name the places.
func schemaErrors(err error, own bool) []Violation {
	bad, ok := errors.AsType[*jsonschema.ValidationError](err)
	if !ok {
		return nil
	}
	var list []Violation
	var walk func(*jsonschema.OutputUnit)
	walk = func(u *jsonschema.OutputUnit) {
		for i := range u.Errors {
			walk(&u.Errors[i])
		}
		if u.Error == nil || len(u.Errors) > 0 { // what made the whole fail says more
			return
		}
		v := Violation{Text: "does not satisfy its schema: " + u.Error.String()}
		if own {
			v.Text = strings.TrimPrefix(u.InstanceLocation+": "+u.Error.String(), ": ")
		}
		for part := range strings.SplitSeq(strings.TrimPrefix(u.InstanceLocation, "/"), "/") {
			part = strings.NewReplacer("~1", "/", "~0", "~").Replace(part)
			switch _, err := strconv.Atoi(part); {
			case part == "":
			case err == nil:
				v.Path += "[" + part + "]"
			default:
				v.Path += "." + part
			}
		}
		if !slices.Contains(list, v) {
			list = append(list, v)
		}
	}
	walk(bad.DetailedOutput())
	return list
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
