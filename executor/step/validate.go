package step

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/santhosh-tekuri/jsonschema/v6"
	english "golang.org/x/text/language"
	"golang.org/x/text/message"

	"github.com/orchestrator-project/orchestrator/executor"
	"github.com/orchestrator-project/orchestrator/pipeline"
)

const validateDoc = `Checks a value against a schema.

    - id: check
      action: validate
      parameters:
        data: "{{ answer }}"
        schema: {label: {type: enum, values: [bug, idea]}, why: string, votes: list<integer>}

schema is a JSON Schema, or a type as the language writes it: string, integer, number, boolean, enum with values, path, duration, list with items, map with properties, list<...>, optional<...>, any; a map of fields stands for a map with these properties. In such a type a field is required unless it is optional, has a default, or says required: false, and fields that are not named are refused unless additional: true. mode says which of both it is; auto takes for a JSON Schema what has $schema or only its words.

The step fails with the category contract where the value does not fit, with a message that lists the violations; its output is there nevertheless. fail: false lets it complete with valid false. errors are maps of path (a JSON pointer) and message, at most 100, sorted.`

const maxViolations = 100

// Validate is a value and what it must be.
type Validate struct {
	Data   any    `doc:"what to check; null is a value too"`
	Schema any    `param:"required" doc:"a JSON Schema, or a type of the language"`
	Mode   string `default:"\"auto\"" enum:"auto,json_schema,types" doc:"what schema is"`
	Fail   bool   `default:"true" doc:"false: complete also where the value does not fit"`
}

type validateResult struct {
	Valid  bool  `doc:"whether the value fits"`
	Errors []any `doc:"the violations, maps of path and message"`
}

func validateAction() executor.Action {
	return executor.NewAction[Validate](executor.Describe{
		Name: "validate", Doc: validateDoc, Effect: pipeline.EffectPure, Returns: validateResult{},
	})
}

// closed is a loader of schemas that loads none: a schema may refer to itself,
// not to files or addresses.
type closed struct{}

func (closed) Load(url string) (any, error) {
	return nil, fmt.Errorf("%s is elsewhere; a schema may only refer to its own parts", url)
}

// Run compiles the schema, then checks.
func (v Validate) Run(_ context.Context, _ executor.Env) (executor.Output, error) {
	schema, err := v.schema()
	if err != nil {
		return executor.Output{}, err
	}
	c := jsonschema.NewCompiler()
	c.UseLoader(closed{})
	c.DefaultDraft(jsonschema.Draft2020)
	c.AssertFormat()
	const place = "mem:schema"
	doc, err := forSchema(schema)
	if err != nil {
		return executor.Output{}, err
	}
	if err := c.AddResource(place, doc); err != nil {
		return executor.Output{}, invalid("parameter schema is no schema: %v", err)
	}
	compiled, err := c.Compile(place)
	if err != nil {
		return executor.Output{}, invalid("parameter schema is no schema: %s", strings.ReplaceAll(err.Error(), place, ""))
	}
	data, err := forSchema(v.Data)
	if err != nil {
		return executor.Output{}, err
	}
	violations := []any{}
	if err := compiled.Validate(data); err != nil {
		bad, ok := errors.AsType[*jsonschema.ValidationError](err)
		if !ok {
			return executor.Output{}, invalid("the schema cannot be applied: %v", err)
		}
		violations = listViolations(bad)
	}
	out := executor.Output{Value: map[string]any{"valid": len(violations) == 0, "errors": violations}}
	if len(violations) == 0 || !v.Fail {
		return out, nil
	}
	lines := make([]string, len(violations))
	for i, e := range violations {
		m, _ := e.(map[string]any)
		at, _ := m["path"].(string)
		lines[i] = fmt.Sprintf("%s: %s", cmp.Or(at, "the value"), m["message"])
	}
	f := pipeline.Failuref(pipeline.CategoryContract, "%s: %s", plural(len(lines), "violation"), strings.Join(lines, "; "))
	f.Reason = "schema_violated"
	return out, f
}

// forSchema is a value in the form that the library takes.
func forSchema(v any) (any, error) {
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(pipeline.EncodeValue(v)))
	if err != nil {
		return nil, invalid("the value cannot be checked: %v", err)
	}
	return doc, nil
}

// listViolations takes the innermost causes, each once.
func listViolations(e *jsonschema.ValidationError) []any {
	type violation struct{ path, message string }
	var list []violation
	p := message.NewPrinter(english.English)
	var walk func(e *jsonschema.ValidationError)
	walk = func(e *jsonschema.ValidationError) {
		if len(e.Causes) == 0 {
			var at strings.Builder
			for _, part := range e.InstanceLocation {
				at.WriteString("/" + strings.NewReplacer("~", "~0", "/", "~1").Replace(part))
			}
			list = append(list, violation{at.String(), head(e.ErrorKind.LocalizedString(p), 500)})
		}
		for _, c := range e.Causes {
			walk(c)
		}
	}
	walk(e)
	slices.SortFunc(list, func(a, b violation) int {
		return cmp.Or(cmp.Compare(a.path, b.path), cmp.Compare(a.message, b.message))
	})
	list = slices.Compact(list)
	out := []any{}
	for _, v := range list[:min(len(list), maxViolations)] {
		out = append(out, map[string]any{"path": v.path, "message": v.message})
	}
	return out
}

// jsonTypes are the types of JSON Schema; typeWords those of the language with
// what they mean there.
var (
	jsonTypes = []string{"string", "integer", "number", "boolean", "array", "object", "null"}
	typeWords = map[string]map[string]any{
		"string": {"type": "string"}, "str": {"type": "string"}, "text": {"type": "string"}, "path": {"type": "string", "minLength": int64(1)},
		"relpath": {"type": "string", "minLength": int64(1)}, "file": {"type": "string"},
		"integer": {"type": "integer"}, "int": {"type": "integer"}, "number": {"type": "number"}, "float": {"type": "number"},
		"boolean": {"type": "boolean"}, "bool": {"type": "boolean"}, "list": {"type": "array"}, "array": {"type": "array"},
		"map": {"type": "object"}, "object": {"type": "object"}, "any": {}, "enum": {},
		"duration": {"anyOf": []any{
			map[string]any{"type": "number", "minimum": int64(0)},
			map[string]any{"type": "string", "pattern": `^\s*([0-9]+(\.[0-9]+)?(ms|s|m|h|d)?)+\s*$`},
		}},
	}
	schemaKeys = []string{
		"$schema", "$id", "$ref", "$defs", "definitions", "allOf", "anyOf", "oneOf", "not", "if", "const", "enum", "type", "properties",
		"items", "prefixItems", "required", "additionalProperties", "patternProperties", "minimum", "maximum", "pattern", "minItems", "maxItems",
		"minLength", "maxLength", "uniqueItems", "format", "title", "description",
	}
	typeKeys = []string{"type", "values", "allowed", "items", "properties", "required", "optional", "additional", "default", "description", "under", "must_exist"}
)

func (v Validate) schema() (any, error) {
	switch s := v.Schema.(type) {
	case bool:
		return s, nil
	case string:
		if v.Mode != "json_schema" {
			return typeSchema(s, "schema", 0)
		}
	case map[string]any:
		if v.Mode == "json_schema" || v.Mode != "types" && isJSONSchema(s) {
			return s, nil
		}
		return typeSchema(s, "schema", 0)
	}
	return nil, invalid("parameter schema is %s; it must be a map, or the name of a type", kindOf(v.Schema))
}

// isJSONSchema tells a JSON Schema from a type and from a map of fields.
func isJSONSchema(m map[string]any) bool {
	for _, sure := range []string{"$schema", "$ref", "allOf", "anyOf", "oneOf"} {
		if _, ok := m[sure]; ok {
			return true
		}
	}
	if _, isList := m["enum"].([]any); isList {
		return true
	}
	for k := range m {
		if !slices.Contains(schemaKeys, k) {
			return false
		}
	}
	switch t := m["type"].(type) {
	case string:
		if !slices.Contains(jsonTypes, t) {
			return false
		}
	case []any:
		return true
	default:
		_, properties := m["properties"].(map[string]any)
		return properties || len(m) == 0
	}
	if inner, ok := m["items"].(map[string]any); ok && !isJSONSchema(inner) {
		return false
	}
	if _, ok := m["items"].(string); ok {
		return false
	}
	properties, _ := m["properties"].(map[string]any)
	for _, p := range properties {
		if inner, ok := p.(map[string]any); !ok || !isJSONSchema(inner) {
			return false
		}
	}
	_, single := m["required"].(bool)
	return !single
}

// typeSchema translates a type of the language.
func typeSchema(v any, at string, depth int) (map[string]any, error) {
	if depth > 50 {
		return nil, invalid("%s is nested deeper than 50", at)
	}
	switch t := v.(type) {
	case nil:
		return map[string]any{}, nil
	case string:
		return namedType(t, at, depth)
	case map[string]any:
		for k := range t {
			if !slices.Contains(typeKeys, k) {
				return fieldsSchema(t, t, false, at, depth)
			}
		}
		_, isName := t["type"].(string)
		if !isName && (t["type"] != nil || t["values"] == nil && t["items"] == nil && t["properties"] == nil) {
			return fieldsSchema(t, t, false, at, depth) // fields that are called like keys
		}
		return declaredType(t, at, depth)
	}
	return nil, invalid("%s is %s; a type is a name or a map", at, kindOf(v))
}

func namedType(name, at string, depth int) (map[string]any, error) {
	name = strings.TrimSpace(name)
	if outer, inner, ok := strings.Cut(name, "<"); ok && strings.HasSuffix(inner, ">") {
		item, err := namedType(inner[:len(inner)-1], at, depth+1)
		switch {
		case depth > 50:
			return nil, invalid("%s is nested deeper than 50", at)
		case err != nil:
			return nil, err
		case outer == "optional":
			return optional(item), nil
		case outer == "list" || outer == "array":
			return map[string]any{"type": "array", "items": item}, nil
		}
	}
	s, ok := typeWords[name]
	if !ok {
		return nil, invalid("%s: there is no type %q; types are string, integer, number, boolean, enum, path, list, map, any, file, duration", at, head(name, 40))
	}
	return maps.Clone(s), nil
}

func optional(s map[string]any) map[string]any {
	return map[string]any{"anyOf": []any{s, map[string]any{"type": "null"}}}
}

func declaredType(t map[string]any, at string, depth int) (map[string]any, error) {
	s := map[string]any{}
	if name, ok := t["type"].(string); ok {
		var err error
		if s, err = namedType(name, at, depth); err != nil {
			return nil, err
		}
	}
	for _, key := range []string{"values", "allowed"} {
		if values, ok := t[key].([]any); ok {
			s["enum"] = values
		}
	}
	if items, ok := t["items"]; ok {
		item, err := typeSchema(items, at+".items", depth+1)
		if err != nil {
			return nil, err
		}
		s["type"], s["items"] = "array", item
	}
	if properties, ok := t["properties"].(map[string]any); ok {
		additional, _ := t["additional"].(bool)
		fields, err := fieldsSchema(properties, t, additional, at+".properties", depth)
		if err != nil {
			return nil, err
		}
		s = fields
	}
	if is, _ := t["optional"].(bool); is {
		s = optional(s)
	}
	return s, nil
}

// fieldsSchema is the schema of a map with these fields.
func fieldsSchema(fields, owner map[string]any, additional bool, at string, depth int) (map[string]any, error) {
	properties, required := map[string]any{}, []any{}
	listed, isList := owner["required"].([]any)
	for _, name := range sortedKeys(fields) {
		s, err := typeSchema(fields[name], at+"."+name, depth+1)
		if err != nil {
			return nil, err
		}
		properties[name] = s
		needed := true
		switch f := fields[name].(type) {
		case string:
			needed = !strings.HasPrefix(strings.TrimSpace(f), "optional<")
		case map[string]any:
			is, _ := f["optional"].(bool)
			_, def := f["default"]
			must, said := f["required"].(bool)
			needed = !is && !def && (!said || must)
		}
		if isList {
			needed = slices.Contains(listed, any(name))
		}
		if needed {
			required = append(required, name)
		}
	}
	return map[string]any{"type": "object", "properties": properties, "required": required, "additionalProperties": additional}, nil
}
