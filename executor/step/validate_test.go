package step

import (
	"strings"
	"testing"

	"github.com/orchestrator-project/orchestrator/pipeline"
)

func TestValidate(t *testing.T) {
	fields := params{"label": params{"type": "enum", "values": []any{"bug", "idea"}}, "why": "string", "votes": "list<integer>", "note": "optional<text>"}
	good := params{"label": "bug", "why": "x", "votes": []any{1, 2.0}}
	for name, c := range map[string]struct {
		data, schema any
		mode         string
		want         string // the violations
	}{
		"fields":              {good, fields, "", ""},
		"null for optional":   {params{"label": "bug", "why": "x", "votes": []any{}, "note": nil}, fields, "", ""},
		"wrong fields":        {params{"label": "no", "votes": []any{1, "x"}, "more": 1}, fields, "", `: additional properties 'more' not allowed|: missing property 'why'|/label: value must be one of 'bug', 'idea'|/votes/1: got string, want integer`},
		"no map":              {5, fields, "", ": got number, want object"},
		"name":                {"x", "optional<string>", "", ""},
		"nested name":         {[]any{[]any{1}, []any{"x"}}, "list<list<number>>", "", "/1/0: got string, want number"},
		"map of language":     {params{"a": 1, "b": 2}, params{"type": "map", "properties": params{"a": "int"}, "additional": true}, "", ""},
		"closed map":          {params{"a": 1, "b": 2}, params{"type": "map", "properties": params{"a": "int"}}, "", ": additional properties 'b' not allowed"},
		"required: false":     {params{}, params{"a": params{"type": "string", "required": false}, "b": params{"type": "int", "default": 1}}, "", ""},
		"list of items":       {[]any{"a"}, params{"type": "list", "items": params{"type": "bool"}}, "", "/0: got string, want boolean"},
		"duration":            {[]any{"90s", 5, "1h30m", "soon"}, "list<duration>", "", "/3: ..."},
		"fields called type":  {params{"type": "x", "items": 1}, params{"type": params{"type": "string"}, "items": "integer"}, "types", ""},
		"JSON Schema":         {params{"a": 1, "z": 2}, params{"type": "object", "properties": params{"a": params{"type": "integer"}, "b": params{}}}, "", ""},
		"its required":        {params{"a": 1}, params{"type": "object", "properties": params{"a": params{"type": "integer"}}, "required": []any{"b"}}, "", ": missing property 'b'"},
		"its list of types":   {nil, params{"type": []any{"string", "null"}}, "", ""},
		"its $ref":            {[]any{[]any{}}, params{"$ref": "#/$defs/l", "$defs": params{"l": params{"type": "array", "items": params{"$ref": "#/$defs/l"}}}}, "", ""},
		"its format":          {"not a date", params{"$schema": "https://json-schema.org/draft/2020-12/schema", "format": "date"}, "", ": 'not a date' is not valid date..."},
		"as types":            {params{"a": 1, "z": 2}, params{"type": "object", "properties": params{"a": params{"type": "integer"}}}, "types", ": additional properties 'z' not allowed"},
		"as JSON Schema":      {5, params{"minimum": 6}, "json_schema", ": minimum: got 5, want 6"},
		"false fits nothing":  {5, false, "", ": false schema"},
		"pointer is escaped":  {params{"a/b~": "x"}, params{"a/b~": "integer"}, "", "/a~1b~0: got string, want integer"},
		"large integer":       {int64(1<<62 + 1), "integer", "", ""},
		"fraction no integer": {1.5, "integer", "", ": got number, want integer"},
	} {
		env, _ := testEnv(t)
		p := params{"data": c.data, "schema": c.schema, "fail": false}
		if c.mode != "" {
			p["mode"] = c.mode
		}
		v, err := run(t, Config{}, env, "validate", p)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		got := []string{}
		for _, e := range field(t, v, "errors").([]any) {
			got = append(got, field(t, e, "path").(string)+": "+field(t, e, "message").(string))
		}
		if g := strings.Join(got, "|"); g != c.want && !(strings.HasSuffix(c.want, "...") && strings.HasPrefix(g, strings.TrimSuffix(c.want, "..."))) {
			t.Errorf("%s: got %s\nwant %s", name, g, c.want)
		}
		if field(t, v, "valid") != (c.want == "") {
			t.Errorf("%s: %v", name, v)
		}
	}
}

func TestValidateFailsTheStep(t *testing.T) {
	env, _ := testEnv(t)
	v, err := run(t, Config{}, env, "validate", params{"data": params{"a": "x"}, "schema": params{"a": "int", "b": "int"}})
	f := failed(t, err, pipeline.CategoryContract, "2 violations: the value: missing property 'b'; /a: got string, want integer")
	if f.Reason != "schema_violated" || field(t, v, "valid") != false {
		t.Errorf("%v, %v", f.Reason, v)
	}
	many := []any{}
	for range 500 {
		many = append(many, "x")
	}
	v, _ = run(t, Config{}, env, "validate", params{"data": many, "schema": "list<int>", "fail": false})
	if got := field(t, v, "errors").([]any); len(got) != maxViolations {
		t.Errorf("%d violations are listed", len(got))
	}
}

func TestValidateRefusals(t *testing.T) {
	env, _ := testEnv(t)
	deep := any("int")
	for range 60 {
		deep = params{"a": deep}
	}
	for text, schema := range map[string]any{
		`schema: there is no type "sting"`:         "sting",
		`schema.a: there is no type "x"`:           params{"a": "x"},
		"schema is a number; it must be":           5,
		"schema.a is a number; a type is a name":   params{"a": 5},
		"is elsewhere":                             params{"$ref": "file:///etc/passwd"},
		"a schema may only refer to its own parts": params{"$ref": "https://example.org/schema.json"},
		"no schema":                                  params{"$schema": "https://json-schema.org/draft/2020-12/schema", "type": "sting"},
		"parameter schema is no schema":              params{"$schema": "https://json-schema.org/draft/2020-12/schema", "pattern": "("},
		"nested deeper than 50":                      deep,
		"schema: there is no type \"list<list<list<": strings.Repeat("list<", 60) + "x",
	} {
		_, err := run(t, Config{}, env, "validate", params{"data": 1, "schema": schema})
		failed(t, err, pipeline.CategoryValidation, text)
	}
}
