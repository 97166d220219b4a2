package tool_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/orchestrator-project/orchestrator/executor/model"
	"github.com/orchestrator-project/orchestrator/executor/tool"
	"github.com/orchestrator-project/orchestrator/pipeline"
)

func payTool() *tool.Tool {
	return &tool.Tool{Name: "pay", Schema: map[string]any{
		"type": "object", "additionalProperties": false, "required": []any{"amount"},
		"properties": map[string]any{
			"amount": map[string]any{"type": "integer", "minimum": int64(1)},
			"to":     map[string]any{"enum": []any{"ann", "bob"}},
			"lines":  map[string]any{"type": "array", "items": map[string]any{"type": "string"}},
		},
	}}
}

func TestArgumentsAreHeldAgainstTheSchema(t *testing.T) {
	for text, want := range map[string]map[string]any{
		`{"amount": 5}`: {"amount": int64(5)},
		` {"amount": 5.0, "to": "ann", "lines": []} `: {"amount": 5.0, "to": "ann", "lines": []any{}},
	} {
		got, wrong := tool.Check(payTool(), text)
		if d := cmp.Diff(want, got); d != "" || wrong != nil {
			t.Errorf("%s: %s %v", text, d, wrong)
		}
	}
	for text, want := range map[string]string{
		``:                                    "no arguments have come",
		`{}`:                                  "amount",
		`{"amount": "5"}`:                     "/amount",
		`{"amount": 0}`:                       "/amount",
		`{"amount": 1.5}`:                     "/amount",
		`{"amount": 1, "to": "eve"}`:          "/to",
		`{"amount": 1, "more": 1}`:            "more",
		`{"amount": 1, "lines": ["a", 2]}`:    "/lines/1",
		`{"amount": 1`:                        "not JSON",
		`{"amount": 1} {"amount": 2}`:         "not JSON",
		`[1]`:                                 "must be a JSON object",
		`null`:                                "must be a JSON object",
		`"{\"amount\": 1}"`:                   "must be a JSON object",
		"\x00":                                "not JSON",
		strings.Repeat("[", 100_000):          "not JSON",
		`{"a":"` + strings.Repeat("x", 2<<20): "at most 1048576",
	} {
		got, wrong := tool.Check(payTool(), text)
		if got != nil || len(wrong) == 0 || !strings.Contains(strings.Join(wrong, "; "), want) {
			t.Errorf("%.60s: %v %v", text, got, wrong)
		}
	}
}

func TestAToolWhoseSchemaIsWrongCannotBeCalled(t *testing.T) {
	for _, schema := range []map[string]any{{"type": "nothing"}, {"$ref": "http://127.0.0.1/schema"}, {"$ref": "file:///etc/passwd"}, {"pattern": "("}} {
		if args, wrong := tool.Check(&tool.Tool{Name: "x", Schema: schema}, `{}`); args != nil || len(wrong) == 0 {
			t.Errorf("%v: %v", schema, args)
		}
	}
}

// Every built-in tool has a schema that is one, and a name that every model takes.
func TestBuiltInToolsAreDescribed(t *testing.T) {
	seen := map[string]bool{}
	for _, s := range tool.Tools(config(&blobs{})) {
		if _, err := model.Compile(s.Schema); err != nil || s.Schema["type"] != "object" {
			t.Errorf("%s: %v", s.Name, err)
		}
		if seen[s.Name] || len(s.Name) > 64 || strings.Trim(s.Name, "abcdefghijklmnopqrstuvwxyz_0123456789") != "" {
			t.Errorf("%s is no name", s.Name)
		}
		if seen[s.Name] = true; s.Description == "" || strings.Contains(s.Description, "- id:") {
			t.Errorf("%s: described as %q", s.Name, s.Description)
		}
	}
	if len(seen) < 20 || !seen["terminal"] || !seen["filesystem_edit"] {
		t.Errorf("there are %v", seen)
	}
}

// What satisfies a schema by construction passes, as it was written.
func TestFittingArgumentsPass(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		args := map[string]any{"amount": rapid.Int64Range(1, 1<<53).Draw(rt, "amount")}
		if rapid.Bool().Draw(rt, "to?") {
			args["to"] = rapid.SampledFrom([]any{"ann", "bob"}).Draw(rt, "to")
		}
		if lines := rapid.SliceOf(rapid.String()).Draw(rt, "lines"); lines != nil {
			list := []any{}
			for _, l := range lines {
				list = append(list, l)
			}
			args["lines"] = list
		}
		text := string(pipeline.EncodeValue(args))
		got, wrong := tool.Check(payTool(), text)
		if len(wrong) > 0 || string(pipeline.EncodeValue(got)) != text {
			rt.Fatalf("%s: %v, %v", text, got, wrong)
		}
	})
}

func FuzzToolArguments(f *testing.F) {
	for _, s := range []string{`{"amount": 1}`, ``, `{}`, `null`, `{"amount": 1e400}`, `{"amount": 1, "amount": 2}`, "{\"amount\":1,\"to\":\"\\u0000\"}", `{"amount":`, "\xff", `{"lines": ["a"]}`} {
		f.Add(s)
	}
	schema, err := model.Compile(payTool().Schema)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, text string) {
		args, wrong := tool.Check(payTool(), text)
		switch {
		case (args == nil) == (len(wrong) == 0):
			t.Fatalf("%q: %v and %v", text, args, wrong)
		case args != nil && len(schema.Violations(args)) > 0:
			t.Fatalf("%q passed", text)
		}
		for _, w := range wrong {
			if w == "" {
				t.Fatalf("%q: a violation says nothing", text)
			}
		}
	})
}
