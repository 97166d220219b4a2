package spec

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/orchestrator-project/orchestrator/pipeline"
)

func mustCompile(t *testing.T, src string) *pipeline.Plan {
	t.Helper()
	plan, _, err := Compile(Source{File: "x.yaml", Text: []byte(src)}, testCatalog())
	if err != nil {
		t.Fatal(err)
	}
	return plan
}

const typedInputs = `
inputs:
  repo: {type: path, under: repos}
  depth: {type: enum, values: [shallow, deep, 3], default: shallow}
  budget: 3
  ratio: {type: number, default: 0.5}
  on: {type: boolean, required: false}
  tags: {type: list, items: integer, default: []}
  opts: {type: map, properties: {k: {type: integer, default: 2}, s: string}, required: false}
  wait: {type: duration, default: 90s}
  note: {type: optional<string>}
steps:
  - {id: a, set: {x: "{{ inputs }}"}}
`

func TestInputs(t *testing.T) {
	plan := mustCompile(t, typedInputs)
	got, err := Inputs(plan, map[string]any{"repo": "repos/x", "budget": 4.0, "opts": map[string]any{"s": "y"}, "tags": []any{1.0, int64(2)}, "depth": int64(3)})
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]any{
		"repo": "repos/x", "depth": int64(3), "budget": int64(4), "ratio": 0.5, "on": nil, "tags": []any{int64(1), int64(2)},
		"opts": map[string]any{"s": "y", "k": int64(2)}, "wait": "90s", "note": nil,
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

func TestInputsRefused(t *testing.T) {
	plan := mustCompile(t, typedInputs)
	for _, c := range []struct {
		name  string
		value any
		want  string
	}{
		{"repo", "other/x", `input repo must be a path under repos, not "other/x"`},
		{"repo", "repos/../../x", `input repo must be a path within the workspace, not "repos/../../x"`},
		{"repo", "/etc", `input repo must be a path within the workspace, not "/etc"`},
		{"depth", "deeep", `input depth must be one of shallow, deep, 3, not the text "deeep"`},
		{"budget", "4", `input budget must be a whole number, not the text "4"`},
		{"budget", 4.5, `input budget must be a whole number, not 4.5`},
		{"budget", nil, `input budget must be a whole number, not nothing`},
		{"tags", []any{"x"}, `input tags is wrong at [0]: it must be a whole number, not the text "x"`},
		{"opts", map[string]any{}, `input opts must have s`},
		{"opts", map[string]any{"s": "a", "z": 1}, `input opts must not have z`},
		{"wait", "soon", `input wait must be a duration such as 90s or 1h30m, not the text "soon"`},
		{"budgte", 1, `there is no input "budgte" (did you mean "budget"?)`},
	} {
		given := map[string]any{"repo": "repos/x", c.name: c.value}
		_, err := Inputs(plan, given)
		if c.name == "budget" && c.value == nil {
			if err != nil {
				t.Errorf("null does not give the default: %v", err)
			}
			continue
		}
		var d *pipeline.Diagnostics
		if !errors.As(err, &d) || len(d.List) != 1 || d.List[0].Message != c.want || d.List[0].Code != "E0502" || d.List[0].Path != c.name {
			t.Errorf("%s = %v: %v, want %s", c.name, c.value, err, c.want)
		}
	}
	_, err := Inputs(plan, nil)
	if err == nil || !strings.Contains(err.Error(), "input repo is required: a path") {
		t.Error(err)
	}
}

func TestInferredInputs(t *testing.T) {
	plan := mustCompile(t, `steps: [{id: a, set: {x: "{{ topic }} {{ maybe | default(1) }}"}}]`)
	if _, err := Inputs(plan, nil); err == nil || !strings.Contains(err.Error(), "input topic is required") {
		t.Error(err)
	}
	got, err := Inputs(plan, map[string]any{"topic": "x"})
	if d := cmp.Diff(map[string]any{"topic": "x"}, got); d != "" || err != nil {
		t.Error(d, err)
	}
}

func TestParseInput(t *testing.T) {
	plan := mustCompile(t, typedInputs+"  - {id: b, action: debug}\n")
	byName := map[string]pipeline.Input{"any": {Name: "any", Type: pipeline.Type{Kind: "any"}}, "text": {Name: "text", Type: pipeline.Type{Kind: "string"}}}
	for _, in := range plan.Inputs {
		byName[in.Name] = in
	}
	for _, c := range []struct {
		name, text string
		want       any
	}{
		{"repo", "repos/x", "repos/x"},
		{"depth", "3", int64(3)},
		{"depth", "deep", "deep"},
		{"budget", " 7 ", int64(7)},
		{"ratio", "1e3", 1000.0},
		{"ratio", "2", int64(2)},
		{"on", "true", true},
		{"tags", "1,2", []any{int64(1), int64(2)}},
		{"tags", "[1, 2]", []any{int64(1), int64(2)}},
		{"tags", "", []any{}},
		{"opts", "{s: a}", map[string]any{"s": "a"}},
		{"opts", "s: a", map[string]any{"s": "a"}},
		{"wait", "1h30m", "1h30m"},
		{"note", "null", nil},
		{"note", "x: y", "x: y"},
		{"text", "5", "5"},
		{"any", "5", int64(5)},
		{"any", "0777", int64(777)},
		{"any", "yes", "yes"},
		{"any", "AI: a history", "AI: a history"},
		{"any", "{a: 1}", map[string]any{"a": int64(1)}},
		{"any", "what's @this", "what's @this"},
		{"any", "@x", "@x"},
		{"any", "", ""},
	} {
		got, err := ParseInput(byName[c.name], c.text)
		if d := cmp.Diff(c.want, got); d != "" || err != nil {
			t.Errorf("%s=%s: %s %v", c.name, c.text, d, err)
		}
	}
	for _, c := range [][2]string{{"depth", "x"}, {"budget", "1.5"}, {"ratio", "much"}, {"on", "yes"}, {"tags", "a"}, {"opts", "x"}, {"wait", "x"}, {"any", "{a"}} {
		if v, err := ParseInput(byName[c[0]], c[1]); err == nil {
			t.Errorf("%s=%s gives %v", c[0], c[1], v)
		}
	}
}

func TestReadInputs(t *testing.T) {
	want := map[string]any{"a": int64(1), "b": []any{1.5, nil, "x {{ y }}"}, "c": map[string]any{"d": true}}
	for _, src := range []string{
		"a: 1\nb: [1.5, ~, 'x {{ y }}']\nc: {d: true}\n",
		"{\"a\": 1,\n\t\"b\": [1.5, null, \"x {{ y }}\"], \"c\": {\"d\": true}}",
	} {
		got, err := ReadInputs([]byte(src))
		if d := cmp.Diff(want, got); d != "" || err != nil {
			t.Error(d, err)
		}
	}
	if got, err := ReadInputs([]byte(" \n")); err != nil || len(got) != 0 {
		t.Error(got, err)
	}
	for src, want := range map[string]string{
		"- a":        "inputs:1:1: E0103",
		"a: 1\na: 2": "inputs:2:1: E0102",
		"a: [":       "inputs:1:5: E0101",
		"a: .inf":    "inputs:1:4: E0104",
	} {
		if _, err := ReadInputs([]byte(src)); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%q: %v", src, err)
		}
	}
}

func TestDuration(t *testing.T) {
	for in, want := range map[any]string{
		int64(90): "1m30s", 1.5: "1.5s", "90s": "1m30s", "5m": "5m0s", "1h30m": "1h30m0s", "2d": "48h0m0s", "500ms": "500ms", "10": "10s", "0": "0s",
		"": "", "x": "", "-1s": "", "5 m": "", int64(-1): "", "1e30s": "", "99999999d": "", true: "", "1h-": "", ".": "",
	} {
		d, ok := Duration(in)
		got := ""
		if ok {
			got = d.String()
		}
		if got != want {
			t.Errorf("%v: %q, want %q", in, got, want)
		}
	}
}

func TestPlainValues(t *testing.T) {
	for in, want := range map[string]any{
		"": nil, "~": nil, "null": nil, "nULL": "nULL", "true": true, "FALSE": false, "yes": "yes", "on": "on", "no": "no",
		"0": int64(0), "0777": int64(777), "0o17": int64(15), "0xFf": int64(255), "0b1": "0b1", "1_000": "1_000", "+5": int64(5), "-": "-", "+": "+",
		"1.": 1.0, ".5": 0.5, "-1.5e3": -1500.0, "1e3": 1000.0, ".": ".", "1e": "1e", "2001-01-01": "2001-01-01", "1:30": "1:30", "0x": "0x", ".infx": ".infx",
	} {
		got, problem := plainValue(in)
		if got != want || problem != "" {
			t.Errorf("%q: %v %q, want %v", in, got, problem, want)
		}
	}
}
