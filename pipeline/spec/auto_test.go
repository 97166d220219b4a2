package spec

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/orchestrator-project/orchestrator/pipeline"
)

// parameter is the template of the first step's parameter input.
func parameter(t *testing.T, src string) (*pipeline.Plan, *pipeline.Template) {
	t.Helper()
	plan, _, err := Compile(Source{File: "p.yaml", Text: []byte(src)}, testCatalog())
	if err != nil {
		t.Fatalf("%v\n%s", err, src)
	}
	for _, e := range plan.Root.Steps[0].Parameters {
		if e.Name == "input" {
			if e.Value.Template == nil {
				t.Fatalf("no template: %+v", e.Value)
			}
			return plan, e.Value.Template
		}
	}
	t.Fatal("no parameter input")
	return nil, nil
}

// TestUnquotedTags: what an unquoted tag holds is its text as it stands, and
// what stands behind it in the document keeps its place.
func TestUnquotedTags(t *testing.T) {
	for name, c := range map[string]struct{ value, prompt string }{
		"plain":           {"<AUTO>pick one</AUTO>", "pick one"},
		"colon":           {"<AUTO>Choose: a, b</AUTO>", "Choose: a, b"},
		"key":             {"<AUTO>a: b: c:</AUTO>", "a: b: c:"},
		"hash":            {"<AUTO>no # comment</AUTO>", "no # comment"},
		"quotes":          {`<AUTO>it's "so" 'so</AUTO>`, `it's "so" 'so`},
		"brackets":        {"<AUTO>[a], {b}: }{][</AUTO>", "[a], {b}: }{]["},
		"indicators":      {"<AUTO>&a *b !c |d >e %f @g `h` - i ? j</AUTO>", "&a *b !c |d >e %f @g `h` - i ? j"},
		"attributes":      {`<AUTO type="string" choices="a, b: c">say: # it</AUTO>`, "say: # it"},
		"lines":           {"<AUTO>one:\n        - a\n        # b\n      </AUTO>", "one:\n        - a\n        # b"},
		"lines at key":    {"<AUTO>\n        one\n      </AUTO>", "one"},
		"blank lines":     {"<AUTO>one\n\n\n        two</AUTO>", "one\n\n\n        two"},
		"crlf":            {"<AUTO>one: a\r\n        two</AUTO>", "one: a\n        two"},
		"tabs":            {"<AUTO>one\t#\ttwo:\tx</AUTO>", "one\t#\ttwo:\tx"},
		"tab lines":       {"<AUTO>one\n\ttwo</AUTO>", "one\n\ttwo"},
		"letters":         {"<AUTO>größe: 日本, 🙂</AUTO>", "größe: 日本, 🙂"},
		"double quoted":   {`"<AUTO>a: \"b\" # c</AUTO>"`, `a: "b" # c`},
		"single quoted":   {`'<AUTO>it''s: "b"</AUTO>'`, `it's: "b"`},
		"literal":         {"|\n        <AUTO>a: b\n        # c</AUTO>", "a: b\n# c"},
		"folded":          {">\n        <AUTO>a: b\n        c</AUTO>", "a: b c"},
		"literal, strip":  {"|-\n        <AUTO type='string'>a: 'b</AUTO>", "a: 'b"},
		"blanks within":   {"<AUTO>   a   </AUTO>", "a"},
		"behind comments": {"<AUTO>a # b</AUTO> # <AUTO>c", "a # b"},
	} {
		t.Run(name, func(t *testing.T) {
			src := "steps:\n  - id: a\n    action: analyze\n    parameters:\n      input: " + c.value + "\n      more: \"{{ x }}\"\n"
			plan, x := parameter(t, src)
			if len(x.Autos) != 1 || x.Autos[0].Prompt.Src != c.prompt {
				t.Fatalf("prompt %q, not %q", x.Autos[0].Prompt.Src, c.prompt)
			}
			if got := strings.TrimSpace(x.Src); got != "{{ __auto__[0] }}" {
				t.Errorf("template %q", got)
			}
			if x.Autos[0].Key != "input" || x.Autos[0].Type.Kind != "any" && x.Autos[0].Type.Kind != "string" && x.Autos[0].Type.Kind != "enum" {
				t.Errorf("tag %+v", x.Autos[0])
			}
			// The input that is inferred from the line behind tells its place.
			want := pipeline.Pos{Line: strings.Count(src[:strings.Index(src, "{{ x")], "\n") + 1, Column: 17}
			if in := plan.Inputs; len(in) != 1 || in[0].Pos != want {
				t.Errorf("the next line's name is at %+v, not %+v", in, want)
			}
		})
	}
}

func TestTagsInFlowCollections(t *testing.T) {
	_, x := parameter(t, "steps:\n  - {id: a, action: analyze, parameters: {input: <AUTO>a, b: [c] } # d</AUTO>, more: [<AUTO>\n x, y</AUTO>, \"z\"]}}\n")
	if x.Autos[0].Prompt.Src != "a, b: [c] } # d" {
		t.Errorf("prompt %q", x.Autos[0].Prompt.Src)
	}
}

// TestTagTypes: attributes decide, then the place, then it is a text.
func TestTagTypes(t *testing.T) {
	three, ten := 3.0, 10.0
	for name, c := range map[string]struct {
		tag      string
		want     pipeline.Type
		fallback any
	}{
		"text":             {`<AUTO type=string>x</AUTO>`, pipeline.Type{Kind: "string"}, nil},
		"anything":         {`<AUTO>x</AUTO>`, pipeline.Type{Kind: "any"}, nil},
		"integer":          {`<AUTO type="integer" fallback="4">x</AUTO>`, pipeline.Type{Kind: "integer"}, int64(4)},
		"bounds":           {`<AUTO type="integer" min="3" max=10>x</AUTO>`, pipeline.Type{Kind: "integer", Min: &three, Max: &ten}, nil},
		"bounds alone":     {`<AUTO min="3" max='10' fallback=3>x</AUTO>`, pipeline.Type{Kind: "integer", Min: &three, Max: &ten}, int64(3)},
		"choices":          {`<AUTO choices="a, b" fallback="b">x</AUTO>`, pipeline.Type{Kind: "enum", Values: []any{"a", "b"}}, "b"},
		"numbers":          {`<AUTO type="integer" choices="1, 2">x</AUTO>`, pipeline.Type{Kind: "enum", Values: []any{int64(1), int64(2)}}, nil},
		"list":             {`<AUTO type="list<integer>" fallback="1, 2">x</AUTO>`, pipeline.Type{Kind: "list", Items: &pipeline.Type{Kind: "integer"}}, []any{int64(1), int64(2)}},
		"list of choices":  {`<AUTO type="list" choices="a, b">x</AUTO>`, pipeline.Type{Kind: "list", Items: &pipeline.Type{Kind: "enum", Values: []any{"a", "b"}}}, nil},
		"boolean":          {`<AUTO type="bool" fallback="false">x</AUTO>`, pipeline.Type{Kind: "boolean"}, false},
		"angle in a quote": {`<AUTO fallback="a > b">x</AUTO>`, pipeline.Type{Kind: "any"}, "a > b"},
	} {
		t.Run(name, func(t *testing.T) {
			_, x := parameter(t, "steps:\n  - id: a\n    action: analyze\n    parameters:\n      input: "+c.tag+"\n")
			if d := cmp.Diff(c.want, x.Autos[0].Type); d != "" {
				t.Error(d)
			}
			switch f := x.Autos[0].Fallback; {
			case f == nil && c.fallback != nil:
				t.Error("no fallback")
			case f != nil:
				if d := cmp.Diff(c.fallback, f.Const); d != "" {
					t.Error(d)
				}
			}
		})
	}
}

func TestTagHints(t *testing.T) {
	for text, want := range map[string][]string{
		"Choose appropriate format: bullet_points, narrative, or structured": {"bullet_points", "narrative", "structured"},
		"Based on topic complexity, choose: shallow, medium, or deep":        {"shallow", "medium", "deep"},
		"Professional, constructive, or educational":                         {"Professional", "constructive", "educational"},
		"voting, averaging, or stacking.":                                    {"voting", "averaging", "stacking"},
		"Use the style (plain, rich or none)":                                {"plain", "rich", "none"},
		"Choose a, b, or c":                                                  {"a", "b", "c"},
		"Full load or sampling based on size":                                nil,
		"Generate queries for the plan":                                      nil,
		"Detect data format (csv, json, parquet, etc)":                       nil,
	} {
		if d := cmp.Diff(want, hint(text)); d != "" {
			t.Errorf("%s:\n%s", text, d)
		}
	}
}

const holed = `
steps:
  - id: plan
    action: typed
    condition: <AUTO>is it worth it?</AUTO>
    parameters:
      rows: [{name: "a <AUTO>b</AUTO> and <AUTO>c <AUTO>d</AUTO></AUTO>", n: <AUTO>how many</AUTO>}]
      strict: <AUTO fallback="false">stop?</AUTO>
  - id: each
    for: {items: <AUTO>which</AUTO>}
    steps:
      - id: do
        action: analyze
        parameters: {input: <AUTO>x {{ item }}</AUTO>, condition: <AUTO>y</AUTO>}
        condition: <AUTO>z</AUTO>
  - id: one
    for: {items: [1, 2]}
    action: analyze
    parameters: {input: "<AUTO>x</AUTO>"}
  - id: free
    action: <AUTO>which action</AUTO>
`

func holedPlan(t *testing.T) *pipeline.Plan {
	t.Helper()
	plan, d, err := Compile(Source{File: "h.yaml", Text: []byte(holed)}, testCatalog())
	if err != nil {
		var b strings.Builder
		Format(&b, d, false)
		t.Fatal(b.String())
	}
	return plan
}

func TestHoles(t *testing.T) {
	got := map[string]string{}
	var order []string
	for _, h := range Holes(holedPlan(t)) {
		got[h.Key] = h.Auto.Type.Kind
		order = append(order, h.Key)
	}
	want := map[string]string{
		"plan.condition": "boolean", "plan.rows[0].name": "string", "plan.rows[0].name#2": "string", "plan.rows[0].name#3": "string",
		"plan.rows[0].n": "integer", "plan.strict": "boolean", "each.for.items": "list", "each/do.condition": "boolean",
		"each/do.input": "any", "each/do.parameters.condition": "string", "one.input": "any", "free.action": "enum",
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	if len(order) != len(want) {
		t.Errorf("keys stand twice: %q", order)
	}
	if i, k := strings.Index(strings.Join(order, " "), "name#3"), strings.Index(strings.Join(order, " "), "name#2"); i > k {
		t.Errorf("inner tags stand first: %q", order)
	}
}

func TestCheckAnswers(t *testing.T) {
	plan := holedPlan(t)
	clean, unused, err := CheckAnswers(plan, map[string]any{
		"plan.rows[0].n": 3.0, "each[2]/do.input": "a", "each/do.input": "b", "one[1].input": "c", "each/do~2.condition": true, "free.action": "filesystem.write", "no.such": 1, "flat": 2,
	})
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]any{"plan.rows[0].n": int64(3), "each[2]/do.input": "a", "each/do.input": "b", "one[1].input": "c", "each/do~2.condition": true, "free.action": "filesystem.write"}
	if d := cmp.Diff(want, clean); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff([]string{"flat", "no.such"}, unused); d != "" {
		t.Error(d)
	}
	_, _, err = CheckAnswers(plan, map[string]any{"plan.rows[0].n": "x", "free.action": "nope", "each.for.items": 3})
	var d *pipeline.Diagnostics
	if !errors.As(err, &d) || len(d.List) != 3 {
		t.Fatalf("%v", err)
	}
	for i, path := range []string{"each.for.items", "free.action", "plan.rows[0].n"} {
		if x := d.List[i]; x.Path != path || x.Code != "E0502" || x.Line < 5 {
			t.Errorf("%+v", x)
		}
	}
	if !strings.Contains(d.List[2].Message, "must be a whole number") {
		t.Error(d.List[2].Message)
	}
}

func TestMissingAnswers(t *testing.T) {
	plan := holedPlan(t)
	var d *pipeline.Diagnostics
	if err := MissingAnswers(plan, nil); !errors.As(err, &d) || len(d.List) != len(Holes(plan))-1 || d.List[0].Code != "E0306" || d.List[0].Path != "plan.condition" {
		t.Fatalf("%v", err)
	}
	all := map[string]any{}
	for _, h := range Holes(plan) {
		if h.Key != "each/do.input" {
			all[h.Key] = 1
		}
	}
	if err := MissingAnswers(plan, all); err == nil {
		t.Error("a tag without an answer passes")
	}
	all["each[3]/do.input"] = "only one pass"
	if err := MissingAnswers(plan, all); err != nil {
		t.Error(err)
	}
}

func TestParseAnswer(t *testing.T) {
	plan := holedPlan(t)
	for text, want := range map[string]any{
		"plan.rows[0].n=3": int64(3), "plan.strict=true": true, "each.for.items=a,b": []any{"a", "b"}, "each[1]/do.input=a=b": "a=b", "plan.rows[0].name#2= x": " x",
	} {
		if _, v, err := ParseAnswer(plan, text); err != nil || !cmp.Equal(v, want) {
			t.Errorf("%s: %v, %v", text, v, err)
		}
	}
	for text, want := range map[string]string{
		"plan.rows[0].n=x": "not a whole number", "plan.strikt=true": "did you mean", "nothing": "step.param=value",
	} {
		if _, _, err := ParseAnswer(plan, text); err == nil || !strings.Contains(render(err), want) {
			t.Errorf("%s: %v", text, err)
		}
	}
}

func render(err error) string {
	var d *pipeline.Diagnostics
	if !errors.As(err, &d) {
		return err.Error()
	}
	var b strings.Builder
	Format(&b, d, false)
	return b.String()
}

func TestParseAnswers(t *testing.T) {
	got, err := ParseAnswers("a.yaml", []byte("a.b: 3\n'loop[2]/x.y#2': [1, \"<AUTO>: x\"]\n"))
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(map[string]any{"a.b": int64(3), "loop[2]/x.y#2": []any{int64(1), "<AUTO>: x"}}, got); d != "" {
		t.Error(d)
	}
	if _, err := ParseAnswers("a.yaml", []byte("- a\n")); err == nil || !strings.Contains(render(err), "a.yaml:1:1: error E0103") {
		t.Errorf("%v", err)
	}
}

// FuzzAuto: any value in place of an unquoted one neither breaks the reader nor
// moves what stands behind it, and a tag that is read holds what stood there.
func FuzzAuto(f *testing.F) {
	for _, s := range []string{
		"<AUTO>a: b</AUTO>", "<AUTO", "<AUTO>", "<AUTO/>", "</AUTO>", `<AUTO type="integer" min='3'>x</AUTO>`, "<AUTO>a <AUTO>b</AUTO></AUTO>", "[<AUTO>a, b</AUTO>]",
		"|\n  <AUTO>a\n  # b</AUTO>", "\"<AUTO type=\\\"x\\\">\"", "{{ <AUTO>a</AUTO> | upper }}", "{{ '<AUTO>a</AUTO>' }}", "{% raw %}<AUTO>a</AUTO>{% endraw %}", "<AUTO>{{ x </AUTO> }}",
		"'a' # <AUTO>", "<AUTO>\n- a\n</AUTO>", "<AUTO a=>x</AUTO>", "<AUTO choices=','>x</AUTO>", "\U0010F83A<AUTO>:</AUTO>",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if len(s) > 1<<14 {
			return
		}
		_, d, err := Compile(Source{File: "f.yaml", Text: []byte("steps:\n  - id: a\n    action: debug\n    parameters:\n      input: " + s + "\n")}, testCatalog())
		if d == nil {
			t.Fatal("no findings")
		}
		for _, x := range d.List {
			if x.Line < 1 || x.Column < 1 || x.EndLine < x.Line {
				t.Fatalf("no place: %+v", x)
			}
		}
		if strings.ContainsAny(s, "\r\n") || err != nil {
			return
		}
		tags, _, bad := findTags(s, false)
		if bad == nil {
			for _, tag := range tags {
				if !strings.HasPrefix(s[tag.off:], tagOpen) || !strings.HasSuffix(s[:tag.end], tagClose) {
					t.Fatalf("%q: tag at %d to %d", s, tag.off, tag.end)
				}
			}
		}
	})
}

// TestHostileTags: sources made to be slow are read about as fast as others; a
// quadratic reader would not come to the end of these.
func TestHostileTags(t *testing.T) {
	const n = 100_000
	for name, value := range map[string]string{
		"open":            strings.Repeat("<AUTO>", n),
		"open, in a list": "[" + strings.Repeat("<AUTO>,", n) + "]",
		"nested":          strings.Repeat("<AUTO>", n) + "x" + strings.Repeat("</AUTO>", n),
		"many":            strings.Repeat("<AUTO>x:</AUTO> ", n),
		"closed":          strings.Repeat("</AUTO>", n),
		"attributes":      "<AUTO " + strings.Repeat("max=1 ", n) + ">x</AUTO>",
		"lines":           "<AUTO>" + strings.Repeat("x:\n        ", n) + "</AUTO>",
		"quoted":          `"` + strings.Repeat("<AUTO>", n) + `"`,
	} {
		t.Run(name, func(t *testing.T) {
			if _, d, _ := Compile(Source{File: "f.yaml", Text: []byte("steps:\n  - id: a\n    action: debug\n    parameters:\n      input: " + value + "\n")}, testCatalog()); d == nil {
				t.Error("no findings")
			}
		})
	}
}
