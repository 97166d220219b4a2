package expr_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/orchestrator-project/orchestrator/pipeline/expr"
)

// show prints refs shortly: path@offset, ? for guarded, ~ for a dashed chain.
func show(src string, refs []expr.Ref) []string {
	out := []string{}
	for _, r := range refs {
		s := src[r.Off:r.End]
		if s != r.Root {
			s = r.Root + "(" + s + ")"
		}
		for _, p := range r.Path {
			if p.IsIndex {
				s += fmt.Sprintf("[%d]", p.Index)
			} else {
				s += "." + p.Name
			}
			if at := src[p.Off:p.End]; strings.Trim(at, `'"`) != p.Name && !p.IsIndex {
				s += "(" + at + ")"
			}
		}
		if r.Guarded {
			s += "?"
		}
		if r.Dashed != "" {
			s += "~" + r.Dashed
		}
		out = append(out, s)
	}
	return out
}

func TestRefs(t *testing.T) {
	for src, want := range map[string]string{
		"text":                             "",
		"{{ a }}":                          "a",
		"{{ a.b.c }}":                      "a.b.c",
		"{{ a['b'][0].c[-1] }}":            "a.b[0].c[-1]",
		"{{ a.0.b }}":                      "a[0].b",
		"{{ a[b].c }}":                     "a b",
		"{{ a[b.c]['d'] }}":                "a b.c",
		"{{ a.b[1:n] }}":                   "a.b n",
		"{{ a.b.items() }}":                "a.b",
		"{{ a.split(b.c)[0] }}":            "a b.c",
		"{{ a ~ b and c or not d }}":       "a b c d",
		"{{ x if c else y }}":              "x c y",
		"{{ [a, {b: c}, -d, e(f=g) ] }}":   "",
		"{{ [a, {b: c}, -d, dict(f=g)] }}": "a b c d g",
		"{{ a | join(b, attribute=c) }}":   "a b c",
		"{{ a | map('replace', b, c) }}":   "a b c",
		"{{ a is divisibleby b }}":         "a b",
		"{{ 1 < a <= b }}":                 "a b",
		"{{ $item.x }}":                    "item($item).x",
		"{{ true }}{{ none }}{{ null }}":   "",
		"{{ range(n) }}":                   "n",
		"a{% if b.c %}{{ d }}{% elif e %}{{ f }}{% else %}{{ g }}{% endif %}": "b.c d e f g",
		// locals
		"{% for i in a.b %}{{ i.x }}{{ loop.index }}{{ c }}{% else %}{{ i }}{% endfor %}{{ i }}": "a.b c i i",
		"{% for k, v in m.items() if v > n %}{{ k }}{% endfor %}":                                "m n",

		"{% set x = x + 1 %}{{ x }}":                           "x",
		"{% set x = a.b %}{{ x.y | default(z) }}":              "a.b z",
		"{% for i in [1] %}{% set y = 1 %}{% endfor %}{{ y }}": "y",
		"{% set y %}{{ a }}{% endset %}{{ y }}":                "a",
		// guards
		"{{ a.b | default(c.d) }}":                "a.b? c.d",
		"{{ a | default(b) | default(c) }}":       "a? b? c",
		"{{ (a.b) | d(1) }}":                      "a.b?",
		"{{ a.b.c is defined }}":                  "a.b.c?",
		"{{ a.b is undefined }}":                  "a.b?",
		"{{ a[b] | default(1) }}":                 "a b",
		"{{ a.keys() | default(1) }}":             "a",
		"{{ (a if b else c) | default(1) }}":      "a? b c?",
		"{{ (a or b) | default(1) }}":             "a b?",
		"{{ a is defined and a.b and c }}":        "a? a.b? c",
		"{{ a.b is defined and a.b.c }}{{ a.b }}": "a.b? a.b.c? a.b",
		"{{ a is defined or a }}":                 "a? a",
		"{{ a is not defined or a }}":             "a? a?",
		"{{ not (a is undefined) and a }}":        "a? a?",
		"{{ a.x if a is defined else a }}":        "a.x? a? a",
		"{% if a is defined and b %}{{ a.x }}{{ b }}{% else %}{{ a }}{% endif %}":       "a? b a.x? b a",
		"{% if a is undefined %}{{ a }}{% elif c %}{{ a }}{% else %}{{ a }}{% endif %}": "a? a c a? a?",
		// dashes: both readings
		"{{ web-search.result }}":               "web-search.result~web-search web~web-search search.result~web-search",
		"{{ a - b }}":                           "a b",
		"{{ a -b }}":                            "a b",
		"{{ n-1 }}":                             "n-1~n-1 n~n-1",
		"{{ a.b-c.d }}":                         "a.b~b-c a.b-c.d~b-c c.d~b-c",
		"{{ step-1.x }}":                        "step-1.x~step-1 step~step-1",
		"{{ check-in.x }}":                      "check-in.x~check-in",
		"{% for a in x %}{{ a-b }}{% endfor %}": "x b",
		"{{ a-b-c }}":                           "a-b-c~a-b-c a~a-b-c b~a-b-c c~a-b-c",
		"{{ a-range(3) }}":                      "a",
		"{{ web-search | default(1) }}":         "web-search?~web-search web~web-search search?~web-search",
	} {
		t.Run(src, func(t *testing.T) {
			c, err := expr.Compile(src)
			if err != nil {
				if want == "" {
					return
				}
				t.Fatal(err)
			}
			got := show(src, c.Refs())
			if len(c.Dashes()) > 0 { // of two readings at one place either may come first
				if d := cmp.Diff(count(strings.Fields(want)), count(got)); d != "" {
					t.Errorf("(-want +got)\n%s", d)
				}
				return
			}
			if strings.Join(got, " ") != want {
				t.Errorf("\n got %s\nwant %s", strings.Join(got, " "), want)
			}
		})
	}
}

func count(list []string) map[string]int {
	m := map[string]int{}
	for _, s := range list {
		m[s]++
	}
	return m
}

func TestRefsOfConditions(t *testing.T) {
	src := " steps.a.output > limit "
	c, err := expr.CompileCondition(src)
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(show(src, c.Refs()), " "); got != "steps.a.output limit" {
		t.Errorf("got %s", got)
	}
}

func TestDashes(t *testing.T) {
	src := "{{ web-search.x + steps.a-b }}"
	c, err := expr.Compile(src)
	if err != nil {
		t.Fatal(err)
	}
	want := []expr.Dash{{Name: "web-search", Off: 3, End: 13}, {Name: "a-b", Base: []string{"steps"}, Off: 24, End: 27}}
	if d := cmp.Diff(want, c.Dashes()); d != "" {
		t.Errorf("(-want +got)\n%s", d)
	}
}

// TestDashReadings checks the rule: joined where the scope has that name and
// neither part.
func TestDashReadings(t *testing.T) {
	c, err := expr.Compile("{{ a-b }}")
	if err != nil {
		t.Fatal(err)
	}
	for _, x := range []struct {
		scope expr.MapScope
		want  string
	}{
		{expr.MapScope{"a-b": "joined"}, "joined"},
		{expr.MapScope{"a": int64(3), "b": int64(1)}, "2"},
		{expr.MapScope{"a-b": "joined", "a": int64(3), "b": int64(1)}, "2"},
		{expr.MapScope{"a-b": "joined", "b": int64(1)}, "E0201: 'a' is undefined"},
		{expr.MapScope{}, "E0201: 'a' is undefined"},
	} {
		got, err := c.EvalString(&expr.Env{Scope: x.scope})
		if err != nil {
			got = err.Error()
		}
		if got != x.want {
			t.Errorf("%v: got %s, want %s", x.scope, got, x.want)
		}
	}
}

func TestTemplateFacts(t *testing.T) {
	for _, x := range []struct {
		src        string
		constant   bool
		impure     bool
		calls      string
		deprecated int
	}{
		{"plain text", true, false, "", 0},
		{"", true, false, "", 0},
		{"{# note #}x", true, false, "", 0},
		{"{{ 1 }}", false, false, "", 0},
		{"{% if a %}{% endif %}", false, false, "", 0},
		{"{{ now() }}", false, true, "now", 0},
		{"{{ range(3) }}{{ [list_files(a), file_exists(b)] }}{{ range(1) }}", false, true, "file_exists list_files range", 0},
		{"{{ x if include_file('a') }}", false, true, "include_file", 0},
		{"{{ collect_results() }}", false, false, "collect_results", 0},
		{"{{ $item }} {{ $item.x }}", false, false, "", 2},
		{"{{ a-now() }}", false, true, "now", 0},
	} {
		c, err := expr.Compile(x.src)
		if err != nil {
			t.Fatal(err)
		}
		text, ok := c.Const()
		if ok != x.constant || ok && text != strings.TrimPrefix(x.src, "{# note #}") {
			t.Errorf("%s: Const gives %q, %v", x.src, text, ok)
		}
		if got := strings.Join(c.Calls(), " "); got != x.calls || c.Impure() != x.impure {
			t.Errorf("%s: calls %s, impure %v", x.src, got, c.Impure())
		}
		if got := c.Deprecated(); len(got) != x.deprecated {
			t.Errorf("%s: deprecated %v", x.src, got)
		}
		if c.Source() != x.src {
			t.Errorf("Source is %q", c.Source())
		}
	}
}

func TestTables(t *testing.T) {
	want := strings.Fields(`default length tojson from_json slugify join basename dirname title truncate round replace regex_search
		regex_replace list int float string capitalize upper lower trim first last sort unique sum min max map selectattr
		rejectattr groupby date batch sh d json to_json json_encode`)
	have := count(expr.Filters())
	for _, name := range want {
		if have[name] == 0 {
			t.Errorf("the filter %s of the language is missing", name)
		}
	}
	for name := range strings.FieldsSeq("defined none string number mapping iterable") {
		if count(expr.Tests())[name] == 0 {
			t.Errorf("the test %s of the language is missing", name)
		}
	}
	if got := strings.Join(expr.Functions(), " "); got != "collect_results dict file_exists include_file list_files now range" {
		t.Errorf("functions are %s", got)
	}
}

func TestText(t *testing.T) {
	for _, x := range []struct {
		v    any
		want string
	}{
		{nil, ""},
		{expr.NullState, ""},
		{true, "true"},
		{int64(-3), "-3"},
		{2.0, "2.0"},
		{1e16, "1e+16"},
		{1e-5, "1e-05"},
		{123456.75, "123456.75"},
		{0.0, "0.0"},
		{"a\"b", "a\"b"},
		{[]any{"a\"\n\x01é", nil, expr.NullState, 1.5}, `["a\"\n\u0001é", null, null, 1.5]`},
		{map[string]any{"b": []any{}, "a": map[string]any{}}, `{"a": {}, "b": []}`},
		{step{output: "out"}, "out"},
		{[]any{step{output: "out"}}, `["out"]`},
	} {
		if got := expr.Text(x.v); got != x.want {
			t.Errorf("%#v: got %s, want %s", x.v, got, x.want)
		}
	}
}

func TestEqualAndTruthy(t *testing.T) {
	if !expr.Equal(int64(1), 1.0) || !expr.Equal(true, int64(1)) || expr.Equal("1", int64(1)) || !expr.Equal(nil, expr.NullState) || expr.Equal(nil, false) {
		t.Error("Equal of scalars")
	}
	if !expr.Equal([]any{int64(1), map[string]any{"a": nil}}, []any{1.0, map[string]any{"a": nil}}) || expr.Equal([]any{nil}, []any{}) {
		t.Error("Equal of lists")
	}
	for _, v := range []any{nil, expr.NullState, false, int64(0), 0.0, "", []any{}, map[string]any{}, step{}} {
		if expr.Truthy(v) {
			t.Errorf("%#v is truthy", v)
		}
	}
	for _, v := range []any{true, int64(-1), 0.1, "false", []any{nil}, map[string]any{"a": nil}, step{output: "x"}} {
		if !expr.Truthy(v) {
			t.Errorf("%#v is not truthy", v)
		}
	}
}

func TestSuggest(t *testing.T) {
	for _, x := range [][3]string{
		{"code_parse", "code_parsing style_check", "code_parsing"},
		{"lenght", "length list", "length"},
		{"Upper", "upper", "upper"},
		{"x", "a b", ""},
		{"od", "odd even", "odd"},
		{"completely", "different", ""},
		{"ab", "ab", ""},
		{"abd", "abc abe", "abc"},
		{"", "a", ""},
	} {
		if got := expr.Suggest(x[0], strings.Fields(x[1])); got != x[2] {
			t.Errorf("%s among %s: got %q, want %q", x[0], x[1], got, x[2])
		}
	}
}
