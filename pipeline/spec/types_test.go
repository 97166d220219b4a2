package spec

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/orchestrator-project/orchestrator/pipeline"
)

// TestConform: every place that is wrong is listed, and only whole floats and
// defaults change a value.
func TestConform(t *testing.T) {
	one, five := 1.0, 5.0
	integer := pipeline.Type{Kind: "integer", Min: &one, Max: &five}
	text := pipeline.Type{Kind: "string"}
	row := pipeline.Type{Kind: "map", Properties: []pipeline.Property{
		{Name: "n", Type: integer, Required: true}, {Name: "s", Type: text, Default: "d"},
	}}
	review := pipeline.Type{Kind: "union", By: "decision", Cases: []pipeline.Case{
		{Tag: "APPROVE", Fields: []pipeline.Property{{Name: "report", Type: pipeline.Type{Kind: "path", Under: "out"}, Required: true}}},
		{Tag: "REVISE", Fields: []pipeline.Property{{Name: "issues", Type: pipeline.Type{Kind: "list", Items: &text}, Required: true}}},
	}}
	schema := map[string]any{"type": "object", "required": []any{"a"}, "properties": map[string]any{"b": map[string]any{"type": "array", "items": map[string]any{"type": "integer"}}}}
	for name, c := range map[string]struct {
		kind pipeline.Type
		in   any
		want any
		bad  []string
	}{
		"whole float":        {integer, 3.0, int64(3), nil},
		"fraction":           {integer, 3.5, nil, []string{": must be a whole number from 1 to 5, not 3.5"}},
		"number text":        {integer, "3", nil, []string{`: must be a whole number from 1 to 5, not the text "3"`}},
		"bounds":             {integer, int64(6), nil, []string{": must be a whole number from 1 to 5, not 6"}},
		"null":               {text, nil, nil, []string{": must be a text, not nothing"}},
		"optional":           {pipeline.Type{Kind: "string", Optional: true}, nil, nil, nil},
		"defaults":           {row, map[string]any{"n": 2.0}, map[string]any{"n": int64(2), "s": "d"}, nil},
		"all at once":        {pipeline.Type{Kind: "list", Items: &row}, []any{map[string]any{"n": int64(9), "s": true}, map[string]any{"x": nil, "n": int64(1)}, "y"}, nil, []string{"[0].n: must be a whole number from 1 to 5, not 9", "[0].s: must be a text, not true", "[1]: must not have x", `[2]: must be a map, not the text "y"`}},
		"case":               {review, map[string]any{"decision": "REVISE", "issues": []any{"a"}}, map[string]any{"decision": "REVISE", "issues": []any{"a"}}, nil},
		"field of another":   {review, map[string]any{"decision": "APPROVE", "issues": []any{}, "report": "out/x"}, nil, []string{": must not have issues"}},
		"no such case":       {review, map[string]any{"decision": "MAYBE"}, nil, []string{`decision: must be one of APPROVE, REVISE, not the text "MAYBE"`}},
		"no tag":             {review, map[string]any{}, nil, []string{": must have decision"}},
		"path under":         {review, map[string]any{"decision": "APPROVE", "report": "in/x"}, nil, []string{`report: must be a path under out, not "in/x"`}},
		"schema":             {pipeline.Type{Kind: "any", Schema: schema}, map[string]any{"b": []any{int64(1), "x"}}, nil, []string{": does not satisfy its schema: missing property 'a'", "b[1]: does not satisfy its schema: got string, want integer"}},
		"schema holds":       {pipeline.Type{Kind: "any", Schema: schema}, map[string]any{"a": nil}, map[string]any{"a": nil}, nil},
		"schema asks a null": {pipeline.Type{Kind: "any", Schema: schema}, nil, nil, []string{": does not satisfy its schema: got null, want object"}},
	} {
		t.Run(name, func(t *testing.T) {
			got, bad := Conform(&c.kind, c.in)
			var texts []string
			for _, b := range bad {
				texts = append(texts, b.Path+": "+b.Text)
			}
			slices.Sort(texts)
			slices.Sort(c.bad)
			if d := cmp.Diff(c.bad, texts); d != "" {
				t.Error(d)
			}
			if bad == nil && !cmp.Equal(c.want, got) {
				t.Errorf("%v", got)
			}
		})
	}
}

func someType(t *rapid.T, depth int) pipeline.Type {
	x := pipeline.Type{Kind: rapid.SampledFrom([]string{"string", "integer", "enum", "path", "list", "map", "any", "union"}).Draw(t, "type")}
	x.Optional = rapid.Bool().Draw(t, "optional")
	fields := func() []pipeline.Property {
		if depth > 1 {
			return nil
		}
		return []pipeline.Property{{Name: "p", Type: someType(t, depth+1), Required: rapid.Bool().Draw(t, "required")}}
	}
	switch x.Kind {
	case "enum":
		x.Values = []any{int64(1), "a", true}
	case "list":
		if depth < 2 {
			item := someType(t, depth+1)
			x.Items = &item
		}
	case "map":
		x.Properties, x.Additional = fields(), rapid.Bool().Draw(t, "additional")
	case "union":
		x.By, x.Cases = "by", []pipeline.Case{{Tag: "a", Fields: fields()}, {Tag: "b"}}
	}
	return x
}

func someValue(t *rapid.T, depth int) any {
	switch rapid.IntRange(0, 6).Draw(t, "kind") {
	case 0:
		return rapid.Bool().Draw(t, "bool")
	case 1:
		return rapid.Int64Range(-2, 2).Draw(t, "int")
	case 2:
		return float64(rapid.IntRange(-2, 2).Draw(t, "whole"))
	case 3:
		return rapid.SampledFrom([]string{"a", "b", "../x"}).Draw(t, "text")
	case 4:
		if depth < 3 {
			return rapid.SliceOfN(rapid.Custom(func(t *rapid.T) any { return someValue(t, depth+1) }), 0, 3).Draw(t, "list")
		}
	case 5:
		if depth < 3 {
			return rapid.MapOfN(rapid.SampledFrom([]string{"p", "by", "x"}), rapid.Custom(func(t *rapid.T) any { return someValue(t, depth+1) }), 0, 3).Draw(t, "map")
		}
	}
	return nil
}

// TestConformKeepsValues: what conforms once conforms again, as it is; what does
// not is given back untouched.
func TestConformKeepsValues(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		kind, v := someType(t, 0), someValue(t, 0)
		got, bad := Conform(&kind, v)
		if bad != nil {
			if !cmp.Equal(v, got) {
				t.Fatalf("%v became %v", v, got)
			}
			return
		}
		if again, bad := Conform(&kind, got); bad != nil || !cmp.Equal(again, got) {
			t.Fatalf("%v became %v: %v", got, again, bad)
		}
	})
}

func TestConformIsBounded(t *testing.T) {
	vs := make([]any, 100_000)
	_, bad := Conform(&pipeline.Type{Kind: "list", Items: &pipeline.Type{Kind: "string"}}, vs)
	if len(bad) != maxViolations {
		t.Errorf("%d places", len(bad))
	}
}

func TestParseType(t *testing.T) {
	text := pipeline.Type{Kind: "string"}
	for in, want := range map[string]pipeline.Type{
		"str": text, "list<string>": {Kind: "list", Items: &text}, " optional<int> ": {Kind: "integer", Optional: true}, "object": {Kind: "map", Additional: true},
		"array<list<bool>>": {Kind: "list", Items: &pipeline.Type{Kind: "list", Items: &pipeline.Type{Kind: "boolean"}}},
	} {
		if got, problem := parseType(in); problem != "" || !cmp.Equal(got, want) {
			t.Errorf("%s: %+v %s", in, got, problem)
		}
	}
	for _, in := range []string{"", "lst", "list<", "list<lst>", "map<string>", strings.Repeat("list<", 100) + "string" + strings.Repeat(">", 100)} {
		if _, problem := parseType(in); problem == "" {
			t.Errorf("%q is a type", in)
		}
	}
}
