package script

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/orchestrator-project/orchestrator/executor"
	"github.com/orchestrator-project/orchestrator/executor/model"
	"github.com/orchestrator-project/orchestrator/pipeline"
)

type object = map[string]any

func TestRulesMatchWhatARequestSays(t *testing.T) {
	p := parse(t, `
rules:
  - when: {step: plan, param: depth}
    text: "3"
  - when: {agent: researcher, turn: 1}
    text: "{{ agent }} in turn {{ turn }}"
  - when: {phase: judge}
    text: the left one
  - when: {phase: schema, step: own}
    json: {type: integer, minimum: 1}
  - when: {schema: false, step: free}
    text: a text
  - when: {schema: true, step: free}
    json: [1, 2]
  - when: {phase: repair, step: mend}
    json: {ok: true}
  - when: {step: mend}
    text: nonsense
`)
	number, expected := object{"type": "integer"}, object{"type": "integer", "maximum": int64(9)}
	for _, c := range []struct {
		name    string
		request model.Request
		text    string
		value   any
	}{
		{"a tag", model.Request{Step: "plan", Param: "depth", Schema: number, Phase: model.PhaseAnswer}, "3", int64(3)},
		{"a tag's schema", model.Request{Step: "plan", Param: "depth", Phase: model.PhaseSchema, Schema: object{}, Expected: expected}, `{"maximum":9,"type":"integer"}`, expected},
		{"a tag's own schema", model.Request{Step: "own", Param: "x", Phase: model.PhaseSchema, Schema: object{}, Expected: expected}, `{"minimum":1,"type":"integer"}`, object{"type": "integer", "minimum": int64(1)}},
		{"a turn", model.Request{Step: "s", Agent: "researcher", Turn: 1, Phase: model.PhaseTurn}, "researcher in turn 1", nil},
		{"a verdict", model.Request{Step: "s", Phase: model.PhaseJudge}, "the left one", nil},
		{"no schema", model.Request{Step: "free"}, "a text", nil},
		{"a schema", model.Request{Step: "free", Schema: object{}}, "[1,2]", []any{int64(1), int64(2)}},
		{"a repair", model.Request{Step: "mend", Phase: model.PhaseRepair, Schema: object{"type": "object"}}, `{"ok":true}`, object{"ok": true}},
		{"before the repair", model.Request{Step: "mend", Schema: object{"type": "object"}}, "nonsense", "nonsense"},
	} {
		a, err := call(t.Context(), p, &c.request)
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		if diff := cmp.Diff(c.value, a.Value); a.Text() != c.text || diff != "" {
			t.Errorf("%s: got %q %s", c.name, a.Text(), diff)
		}
	}
}

func TestTagsAnswerRulesDoNotTakeItsOtherCalls(t *testing.T) {
	p := parse(t, "rules: [{when: {step: plan, param: depth}, text: deep}]")
	_, err := call(t.Context(), p, &model.Request{Step: "plan", Param: "depth", Phase: model.PhaseRepair, Schema: object{"type": "integer"}})
	if err == nil || !strings.Contains(err.Error(), `it needs that phase is "repair"`) ||
		!strings.Contains(err.Error(), "param: depth\n") || !strings.Contains(err.Error(), `schema: {"type":"integer"}`) {
		t.Errorf("got %v", err)
	}
}

func TestUsesAreCountedWithinARun(t *testing.T) {
	p := parse(t, `
rules:
  - {when: {step: s}, times: 2, error: {status: 503}}
  - {when: {step: s}, times: 1, text: at last}
`)
	asked := func(env executor.Env) string {
		a, err := call(t.Context(), p, &model.Request{Step: "s", Uses: model.UsesOf(env)})
		if e, ok := errors.AsType[*model.Error](err); ok {
			return e.Class + " by " + e.Rule
		}
		if f, ok := errors.AsType[*pipeline.Failure](err); ok {
			return f.Reason
		}
		return a.Text() + " by " + a.Rule
	}
	first, second := "overloaded by demo.script.yaml:3", "at last by demo.script.yaml:4"
	for range 2 {
		env := executor.Env{Tenure: executor.NewTenure(nil, pipeline.Usage{}, nil)}
		for i, want := range []string{first, first, second, "script_no_rule"} {
			if got := asked(env); got != want {
				t.Errorf("request %d: got %s, want %s", i, got, want)
			}
		}
	}
	taken := executor.Env{Tenure: executor.NewTenure(nil, pipeline.Usage{}, func(_ context.Context, each func(pipeline.Event)) error {
		each(pipeline.Event{Type: pipeline.ModelCalled, Path: "other", Data: pipeline.Data{Call: &pipeline.Invocation{Rules: []string{"demo.script.yaml:3"}}}})
		return nil
	})}
	for i, want := range []string{first, second, "script_no_rule"} {
		if got := asked(taken); got != want {
			t.Errorf("after another process, request %d: got %s, want %s", i, got, want)
		}
	}
	_, err := call(t.Context(), p, &model.Request{Step: "s", Uses: model.UsesOf(taken)})
	if err == nil || !strings.Contains(err.Error(), "line 3; it needs that it has uses left, of 2.") {
		t.Errorf("got %v", err)
	}
}

func TestGeneratedAnswersSatisfyTheirSchema(t *testing.T) {
	p := parse(t, "rules: [{when: {schema: true}, generate: {seed: 7}}]")
	other := parse(t, "rules: [{when: {schema: true}, generate: {seed: 8}}]")
	schemas := map[string]object{
		"flat": {"type": "object", "required": []any{"n", "s", "e"}, "additionalProperties": false, "properties": object{
			"n": object{"type": "integer", "minimum": int64(3), "maximum": int64(300)},
			"s": object{"type": "string", "minLength": int64(40), "maxLength": int64(50)},
			"e": object{"enum": []any{"a", "b", "c"}}, "b": object{"type": "boolean"},
		}},
		"list":     {"type": "array", "minItems": int64(5), "maxItems": int64(5), "items": object{"type": "number", "exclusiveMinimum": 0.0}},
		"optional": {"type": []any{"null", "string"}},
		"choice":   {"anyOf": []any{object{"type": "null"}, object{"type": "integer", "multipleOf": int64(5)}}},
		"both":     {"allOf": []any{object{"required": []any{"a"}, "properties": object{"a": object{"type": "integer"}}}, object{"required": []any{"b"}}}},
		"tree": {"$ref": "#/$defs/node", "$defs": object{"node": object{
			"type": "object", "required": []any{"name"}, "properties": object{
				"name": object{"type": "string"}, "children": object{"type": "array", "items": object{"$ref": "#/$defs/node"}},
			},
		}}},
		"map": {"type": "object", "additionalProperties": object{"type": "boolean"}, "minProperties": int64(2)},
		"any": {},
	}
	for name, schema := range schemas {
		s, err := model.Compile(schema)
		if err != nil {
			t.Fatal(err)
		}
		r := model.Request{Step: "s", Schema: schema}
		a, err := call(t.Context(), p, &r)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if wrong := s.Violations(a.Value); len(wrong) > 0 {
			t.Errorf("%s: %s: %v", name, a.Text(), wrong)
		}
		b, err := call(t.Context(), p, &r)
		if err != nil || b.Text() != a.Text() {
			t.Errorf("%s: %s, then %s", name, a.Text(), b.Text())
		}
		if c, err := call(t.Context(), other, &r); err != nil || (name == "flat" && c.Text() == a.Text()) {
			t.Errorf("%s: another seed gives the same", name)
		}
	}
}

func TestWhatCannotBeGeneratedIsAnError(t *testing.T) {
	p := parse(t, "rules: [{generate: {}}]")
	for want, schema := range map[string]object{
		"answer with json":                  {"type": "string", "pattern": "^[0-9]{4}$"},
		"without end":                       {"$ref": "#/$defs/a", "$defs": object{"a": object{"$ref": "#/$defs/a"}}},
		"no whole number":                   {"type": "integer", "minimum": 0.1, "maximum": 0.9},
		"no value could be generated":       {"not": object{}},
		"and this request has none; answer": nil,
	} {
		_, err := call(t.Context(), p, &model.Request{Step: "s", Schema: schema})
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "demo.script.yaml:1: the rule") {
			t.Errorf("%v: got %v, want %s", schema, err, want)
		}
	}
}

func TestGeneratingNeverPanicsAndNeverLies(t *testing.T) {
	kinds := []string{"object", "array", "string", "integer", "number", "boolean", "null"}
	var schema func(depth int) *rapid.Generator[object]
	schema = func(depth int) *rapid.Generator[object] {
		return rapid.Custom(func(t *rapid.T) object {
			s := object{}
			if rapid.Bool().Draw(t, "typed") {
				s["type"] = rapid.SampledFrom(kinds).Draw(t, "type")
			}
			for _, key := range []string{"minimum", "maximum", "minItems", "maxItems", "minLength", "maxLength", "minProperties"} {
				if rapid.IntRange(0, 4).Draw(t, key+"?") == 0 {
					s[key] = int64(rapid.IntRange(0, 20).Draw(t, key))
				}
			}
			if depth > 0 && rapid.Bool().Draw(t, "items?") {
				s["items"] = schema(depth-1).Draw(t, "items")
			}
			if depth > 0 && rapid.Bool().Draw(t, "properties?") {
				s["properties"] = object{"a": schema(depth-1).Draw(t, "a"), "b": schema(depth-1).Draw(t, "b")}
				s["required"] = []any{"a", "c"}
			}
			return s
		})
	}
	rapid.Check(t, func(t *rapid.T) {
		source := schema(2).Draw(t, "schema")
		s, err := model.Compile(source)
		if err != nil {
			t.Fatal(err)
		}
		v, err := fill(s, source, rapid.Int64().Draw(t, "seed"))
		if err == nil && len(s.Violations(v)) > 0 {
			t.Fatalf("%v does not satisfy %v", v, source)
		}
	})
}
