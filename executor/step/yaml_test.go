package step

import (
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/orchestrator-project/orchestrator/pipeline"
)

func TestYAMLScalarsAreOfVersion12(t *testing.T) {
	for text, want := range map[string]string{
		"- {a: 1, b: 0777, c: 0o17, d: 0x1F, e: 1_000, f: +3}": `[{"a":1,"b":777,"c":15,"d":31,"e":"1_000","f":3}]`,
		"- {a: yes, b: on, c: True, d: ~, e: '', f: }":         `[{"a":"yes","b":"on","c":true,"d":null,"e":"","f":null}]`,
		"- {a: 2024-01-02, b: 1:30, c: 1e3, d: .5, e: 1.}":     `[{"a":"2024-01-02","b":"1:30","c":1000.0,"d":0.5,"e":1.0}]`,
		"- {a: '1', b: \"true\", c: !!str 5, d: 1.2.3, e: e5}": `[{"a":"1","b":"true","c":"5","d":"1.2.3","e":"e5"}]`,
		"- &x {a: 1}\n- *x":                 `[{"a":1},{"a":1}]`,
		"a: |\n  two\n  lines\n":            `[{"a":"two\nlines\n"}]`,
		"---\n- 9223372036854775808: big\n": `[{"9223372036854775808":"big"}]`,
		"- a: 9223372036854775808":          `[{"a":9223372036854776000.0}]`,
	} {
		env, _ := testEnv(t)
		script(t, env, "t.txt", text, 0o600)
		v, err := run(t, Config{}, env, "load_data", params{"source": "t.txt", "format": "YML"})
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		if got := string(pipeline.EncodeValue(field(t, v, "data"))); got != want {
			t.Errorf("%s\ngot  %s\nwant %s", text, got, want)
		}
		same(t, field(t, v, "format"), "yaml")
	}
}

func TestYAMLRefusals(t *testing.T) {
	bomb := "a: &a [x,x,x,x,x,x,x,x,x]\n"
	for i := 'b'; i < 'j'; i++ {
		before := string(i - 1)
		bomb += string(i) + ": &" + string(i) + " [" + strings.Repeat("*"+before+",", 9) + "]\n"
	}
	for text, want := range map[string]string{
		"- a: 1\n  a: 2\n":                "",
		"- a: .nan\n":                     "is not a number that JSON has",
		"- a: -.INF\n":                    "is not a number that JSON has",
		"- a\n---\n- b\n":                 "more than one document",
		"- <<: {a: 1}\n":                  "merge key",
		"- [a]: 1\n":                      "a key is not a text",
		"- a: [\n":                        "read YAML",
		bomb:                              "",
		strings.Repeat("- ", 200) + "x\n": "",
		"just text\nin lines\n":           "holds a text",
	} {
		env, _ := testEnv(t)
		script(t, env, "t.yaml", text, 0o600)
		_, err := run(t, Config{}, env, "load_data", params{"source": "t.yaml"})
		if err == nil {
			t.Errorf("%.60s: no error", text)
			continue
		}
		failed(t, err, pipeline.CategoryValidation, want)
	}
}

// anyValue draws values as steps hand them on.
func anyValue() *rapid.Generator[any] {
	scalar := rapid.OneOf(
		rapid.Just[any](nil), rapid.Map(rapid.Bool(), func(b bool) any { return b }), rapid.Map(rapid.Int64(), func(i int64) any { return i }),
		rapid.Map(rapid.Float64(), func(f float64) any { return f }), rapid.Map(rapid.String(), func(s string) any { return s }),
		rapid.Map(rapid.SampledFrom([]string{"", "~", "null", "yes", "1", "0x1", "1e3", ".5", "- a", "a: b", "#", "'", "\"", "<<", " a ", "2024-01-02", "a\nb", "=", "?"}), func(s string) any { return s }),
	)
	return rapid.OneOf(
		scalar,
		rapid.Map(rapid.SliceOfN(scalar, 0, 3), func(l []any) any { return append([]any{}, l...) }),
		rapid.Map(rapid.MapOfN(rapid.String(), scalar, 0, 3), func(m map[string]any) any { return m }),
	)
}

func TestYAMLComesBackAsItWas(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		v := any([]any{anyValue().Draw(t, "value")})
		b, err := writeYAML(v)
		if err != nil {
			t.Fatal(err)
		}
		got, err := decodeYAML(b)
		if err != nil {
			t.Fatalf("%v: %s", err, b)
		}
		if g, w := string(pipeline.EncodeValue(got)), string(pipeline.EncodeValue(v)); g != w {
			t.Fatalf("got %s, want %s from\n%s", g, w, b)
		}
	})
}
