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

var referenceFiles = []string{"testdata/jinja-cases.json", "testdata/more-cases.json"}

func TestReferenceCases(t *testing.T) {
	cases := 0
	for _, file := range referenceFiles {
		ref := readReference(t, file)
		cases += len(ref.Cases)
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
	if cases < 300 {
		t.Errorf("the record holds %d cases", cases)
	}
}
