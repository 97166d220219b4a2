package expr_test

import (
	"encoding/json"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/orchestrator-project/orchestrator/pipeline/expr"
)

// reference is a file of templates with what Jinja2 3.1 gives for them.
type reference struct {
	Context map[string]any `json:"context"`
	Cases   []struct {
		Template string `json:"template"`
		Value    any    `json:"value"`
		Text     string `json:"text"`
		Error    string `json:"error"`
	} `json:"cases"`
}

// deviation is a case in which we differ on purpose; fails says that it is an error
// here, else value is what we give.
type deviation struct {
	value  any
	fails  bool
	reason string
}

var deviations = map[string]deviation{
	"{{ 'a' ~ 1 ~ none }}":          {value: "a1", reason: "null prints empty"},
	"{{ 'x' if n > 300 }}":          {value: nil, reason: "without else the value is null"},
	"{{ items | tojson }}":          {value: `["a", "b", "c"]`, reason: "a text that looks like a literal stays text"},
	"{{ n | string }}":              {value: "5", reason: "a text that looks like a literal stays text"},
	"{{n}}{{n}}":                    {value: "55", reason: "a text that looks like a literal stays text"},
	"{{ liststr }}":                 {value: "[1, 2]", reason: "a text that looks like a literal stays text"},
	"{{ truestr }}":                 {value: "True", reason: "a text that looks like a literal stays text"},
	"  {{ n }}  ":                   {value: int64(5), reason: "blanks around a lone expression do not count"},
	"{{ items.append('z') }}":       {fails: true, reason: "values cannot be changed"},
	"{{ lipsum() }}":                {fails: true, reason: "not a function of the language"},
	"{{ 12345678901234567890123 }}": {fails: true, reason: "integers are those of 64 bits"},
	"{% macro f(a) %}<{{a}}>{% endmacro %}{{ f('q') }}": {fails: true, reason: "no macros"},
	"{{ items | map(attribute='x') | list }}":           {fails: true, reason: "an undefined attribute is an error at once"},
	"{{ 1, 2 }}":                       {value: []any{int64(1), int64(2)}, reason: "compile_expression takes no bare tuple; a template does"},
	"{{ [1, 2.5, true] | join(',') }}": {value: "1,2.5,true", reason: "booleans print in lower case"},
	"{{ 'éa ßb' | title }}":            {value: "Éa ßb", reason: "upper case goes character by character"},
	"{{ keysm.items() | list }}":       {value: []any{[]any{"b c", int64(3)}, []any{"get", int64(2)}, []any{"items", int64(1)}}, reason: "maps iterate in key order"},
	"{{ n }}\n":                        {value: int64(5), reason: "blanks around a lone expression do not count"},
}

func readReference(t testing.TB, name string) reference {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	d := json.NewDecoder(strings.NewReader(string(b)))
	d.UseNumber()
	var r reference
	if err := d.Decode(&r); err != nil {
		t.Fatal(err)
	}
	r.Context, _ = native(r.Context).(map[string]any)
	for i := range r.Cases {
		r.Cases[i].Value = native(r.Cases[i].Value)
	}
	return r
}

// native turns decoded JSON into the values of the language.
func native(v any) any {
	switch v := v.(type) {
	case json.Number:
		if n, err := v.Int64(); err == nil {
			return n
		}
		f, _ := v.Float64()
		return f
	case []any:
		for i := range v {
			v[i] = native(v[i])
		}
	case map[string]any:
		for k := range v {
			v[k] = native(v[k])
		}
	}
	return v
}

var referenceHost = expr.Host{
	ListFiles: func(dir string) ([]string, error) { return []string{dir + "/1.py", dir + "/2.py"}, nil },
	Collect:   func() (any, error) { return []any{map[string]any{"r": int64(1)}}, nil },
}

func evaluate(src string, env *expr.Env) (any, error) {
	t, err := expr.Compile(src)
	if err != nil {
		return nil, err
	}
	return t.Eval(env)
}

func TestReferenceCases(t *testing.T) {
	for _, file := range []string{"testdata/jinja-cases.json", "testdata/more-cases.json"} {
		ref := readReference(t, file)
		env := &expr.Env{Scope: expr.MapScope(ref.Context), Host: referenceHost}
		for _, c := range ref.Cases {
			t.Run(c.Template, func(t *testing.T) {
				want := deviation{value: c.Value, fails: c.Error != "" || c.Text != ""}
				if d, ok := deviations[c.Template]; ok {
					want = d
				}
				got, err := evaluate(c.Template, env)
				switch {
				case want.fails && err == nil:
					t.Errorf("got %#v, want an error (%s%s)", got, c.Error, want.reason)
				case !want.fails && err != nil:
					t.Errorf("failed: %v; want %#v", err, want.value)
				case !want.fails && !cmp.Equal(got, want.value):
					t.Errorf("got %#v, want %#v %s", got, want.value, want.reason)
				}
			})
		}
	}
}
