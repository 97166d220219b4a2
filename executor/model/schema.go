package model

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/orchestrator-project/orchestrator/pipeline"
	"github.com/orchestrator-project/orchestrator/pipeline/expr"
)

// Schema is a JSON Schema (2020-12) that answers are held against.
type Schema struct {
	source   map[string]any
	compiled *jsonschema.Schema
}

// maxViolations is how many are listed.
const maxViolations = 20

// closed refuses to load: a schema of a pipeline reads neither files nor the network.
type closed struct{}

func (closed) Load(url string) (any, error) {
	return nil, fmt.Errorf("%s lies outside the schema", url)
}

// Compile reads a schema. The error is a *pipeline.Failure of category
// validation.
func Compile(source map[string]any) (*Schema, error) {
	const name = "schema.json"
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(pipeline.EncodeValue(source)))
	if err != nil {
		return nil, pipeline.Failuref(pipeline.CategoryValidation, "the schema of the answer: %v", err)
	}
	c := jsonschema.NewCompiler()
	c.DefaultDraft(jsonschema.Draft2020)
	c.UseLoader(closed{})
	if err := c.AddResource(name, doc); err != nil {
		return nil, pipeline.Failuref(pipeline.CategoryValidation, "the schema of the answer: %v", err)
	}
	s, err := c.Compile(name)
	if err != nil {
		return nil, pipeline.Failuref(pipeline.CategoryValidation, "the schema of the answer is not a JSON Schema: %v", err)
	}
	return &Schema{source: source, compiled: s}, nil
}

// Violations tells where a JSON value does not satisfy the schema, at most 20
// places; none: it does.
func (s *Schema) Violations(v any) []string {
	err := s.compiled.Validate(v)
	if err == nil {
		return nil
	}
	bad, ok := errors.AsType[*jsonschema.ValidationError](err)
	if !ok {
		return []string{err.Error()}
	}
	var list []string
	for _, u := range bad.BasicOutput().Errors {
		if u.Error == nil {
			continue
		}
		at := u.InstanceLocation
		if at == "" {
			at = "the answer"
		}
		list = append(list, at+": "+u.Error.String())
	}
	if len(list) == 0 {
		list = []string{"the answer does not satisfy the schema"}
	}
	slices.Sort(list)
	list = slices.Compact(list)
	if n := len(list) - maxViolations; n > 0 {
		list = append(list[:maxViolations], fmt.Sprintf("and %d more", n))
	}
	return list
}

// Decode reads a model's text as a value of the schema: JSON, also in a Markdown
// fence; where a text is wanted, the text itself if it is not one as JSON.
func (s *Schema) Decode(text string) (any, error) {
	trimmed := unfenced(strings.TrimSpace(text))
	v, err := pipeline.DecodeValue([]byte(trimmed))
	texts := slices.Contains(kinds(s.source), "string")
	switch {
	case err == nil && (!texts || len(s.Violations(v)) == 0):
		return v, nil
	case texts:
		return text, nil
	}
	return nil, fmt.Errorf("the answer: it is not JSON (%w)", err)
}

func unfenced(s string) string {
	if !strings.HasPrefix(s, "```") || !strings.HasSuffix(s, "```") || len(s) < 6 {
		return s
	}
	_, body, ok := strings.Cut(s[:len(s)-3], "\n")
	if !ok {
		return s
	}
	return strings.TrimSpace(body)
}

// Coerce turns a text that people wrote into what the schema wants: "5" is 5
// where a number is wanted, a choice is found without regard to case, lists and
// maps are read as JSON. What fits nothing stays a text.
func (s *Schema) Coerce(text string) any {
	trimmed := strings.TrimSpace(text)
	if choices, ok := s.source["enum"].([]any); ok {
		for _, same := range []func(a, b string) bool{func(a, b string) bool { return a == b }, strings.EqualFold} {
			for _, c := range choices {
				if same(expr.Text(c), trimmed) {
					return c
				}
			}
		}
		return text
	}
	want := kinds(s.source)
	if slices.Equal(want, []string{"string"}) {
		return text
	}
	if slices.Contains(want, "boolean") && (strings.EqualFold(trimmed, "true") || strings.EqualFold(trimmed, "false")) {
		return strings.EqualFold(trimmed, "true")
	}
	v, err := pipeline.DecodeValue([]byte(trimmed))
	if err != nil || (slices.Contains(want, "string") && len(s.Violations(v)) > 0) {
		return text
	}
	return v
}

// kinds are the JSON types that a schema names, its own or those of its
// alternatives and choices, each once. A schema that names none is satisfied by
// a text.
func kinds(s map[string]any) []string {
	var list []string
	switch t := s["type"].(type) {
	case string:
		return []string{t}
	case []any:
		for _, e := range t {
			if k, ok := e.(string); ok {
				list = append(list, k)
			}
		}
		return list
	}
	for _, key := range []string{"anyOf", "oneOf"} {
		parts, _ := s[key].([]any)
		for _, p := range parts {
			if m, ok := p.(map[string]any); ok {
				list = append(list, kinds(m)...)
			}
		}
	}
	values, _ := s["enum"].([]any)
	if v, ok := s["const"]; ok {
		values = append(slices.Clip(values), v)
	}
	for _, v := range values {
		switch v.(type) {
		case string:
			list = append(list, "string")
		case bool:
			list = append(list, "boolean")
		case int64, float64:
			list = append(list, "number")
		default:
			list = append(list, "object")
		}
	}
	switch {
	case list != nil:
	case s["properties"] != nil, s["required"] != nil, s["$ref"] != nil, s["allOf"] != nil:
		list = []string{"object"}
	case s["items"] != nil:
		list = []string{"array"}
	case s["minimum"] != nil, s["maximum"] != nil:
		list = []string{"number"}
	default:
		list = []string{"string"}
	}
	slices.Sort(list)
	return slices.Compact(list)
}
