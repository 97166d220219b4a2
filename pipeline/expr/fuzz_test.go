package expr_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/orchestrator-project/orchestrator/pipeline/expr"
)

func seeds(f *testing.F) {
	f.Helper()
	for _, file := range referenceFiles {
		for _, c := range readReference(f, file).Cases {
			f.Add(c.Template)
		}
	}
	for _, s := range []string{
		"{{ web-search.result }}", "{{ $item }}", "{%- raw -%}{{{%- endraw -%}", "{{ '\\u12' }}", "{{ 1__0 }}", "{{ a.b-c-1.d }}", "\xff{{ '\xff' | upper }}", "{# -#}", "{{ {'a':{}}}}}",
		"{{ " + strings.Repeat("[", 300), "{% for a in range(99999) %}{% for b in a %}{{ b }}{% endfor %}{% endfor %}", "{{ range(10 ** 6) | map('list') | map('list') | list }}",
		"{{ 'a' * 10 ** 6 ~ 'b' | replace('', 'x' * 1000) }}", "{{ ('a' * 1000) | regex_search('(a*)*b') }}", "{% set x = [0] %}" + strings.Repeat("{% set x = [x, x] %}", 30) + "{{ x | unique }}",
	} {
		f.Add(s)
	}
}

// FuzzCompile: any text compiles or fails with a span inside it.
func FuzzCompile(f *testing.F) {
	seeds(f)
	f.Fuzz(func(t *testing.T, src string) {
		if _, err := expr.Compile(src); err != nil {
			checkError(t, src, err)
		}
		c, err := expr.CompileCondition(src)
		if err != nil {
			checkError(t, src, err)
			return
		}
		if c.Source() != src {
			t.Errorf("Source is %q", c.Source())
		}
	})
}

// FuzzEval: any text that compiles evaluates to a plain value or fails, soon.
func FuzzEval(f *testing.F) {
	seeds(f)
	ref := readReference(f, "testdata/more-cases.json").Context
	maps.Copy(ref, scope)
	env := &expr.Env{Scope: expr.MapScope(ref), Host: host}
	f.Fuzz(func(t *testing.T, src string) { check(t, src, env) })
}

// hostile are arguments that ask for much, or for what does not exist.
var hostile = []string{
	`null`, `true`, `0`, `-1`, `1`, `9223372036854775807`, `-9223372036854775808`, `1e308`, `-1e-320`, `100000`, `1048577`, `""`, `"a"`, `"%"`, `"{"`, `"\u0000"`, `"é\ufffd"`,
	`"%9999999999d"`, `"{:>9999999999}"`, `"{0[a].b!r:^30}"`, `"(a*)*b"`, `"(?P<x>.)|$"`, `"((((a{9}){9}){9}){9})"`, `"\\g<x>\\1\\9"`, `"a.b.0.-1"`, `"%-j%%%Q"`, `"9999-12-31T23:59:59Z"`,
	`[]`, `{}`, `[[], {}]`, `[1, "a", null]`, `{"a": {"b": [1.5]}}`, `[{"a": 1}, {"a": "x"}]`, `"http://a.b/(c&d)."`, `"upper"`, `"divisibleby"`, `"attribute"`,
}

// FuzzCalls gives every filter, test, method and function values of any kind: it
// gives a plain value within the limits, or fails.
func FuzzCalls(f *testing.F) {
	var calls []string
	for _, name := range expr.Filters() {
		calls = append(calls, "x | "+name)
	}
	for _, name := range slices.Concat(expr.Filters(), expr.Tests()) {
		calls = append(calls, "[x, x] | map('"+name+"'", "[x, x] | select('"+name+"'", "[x] | rejectattr(0, '"+name+"'")
	}
	for _, name := range expr.Tests() {
		calls = append(calls, "x is "+name)
	}
	calls = append(calls, expr.Functions()...)
	for name := range strings.FieldsSeq("get items keys values index count split rsplit splitlines partition rpartition strip lstrip rstrip lower casefold upper capitalize title swapcase " +
		"startswith endswith removeprefix removesuffix replace find rfind join format center ljust rjust zfill isdigit isalpha islower") {
		calls = append(calls, "x."+name)
	}
	for i := range calls {
		for j, x := range hostile {
			f.Add(uint16(i), x, "["+hostile[(i+j)%len(hostile)]+","+hostile[(2*i+j+7)%len(hostile)]+"]", uint16(i+j))
		}
	}
	f.Fuzz(func(t *testing.T, which uint16, x, arguments string, repeat uint16) {
		var in any
		var args []any
		if !decode(x, &in) || !decode(arguments, &args) || len(args) > 6 {
			return
		}
		if s, ok := in.(string); ok {
			in = strings.Repeat(s, int(repeat%512)+1)
		}
		vars := expr.MapScope{"x": in}
		names := make([]string, len(args))
		for i, a := range args {
			names[i] = fmt.Sprintf("a%d", i)
			vars[names[i]] = a
		}
		call := calls[int(which)%len(calls)]
		for n := range len(names) + 1 { // each number of arguments
			src := call
			switch list := strings.Join(names[:n], ", "); {
			case !strings.Contains(call, "("):
				src += "(" + list + ")"
			case n > 0:
				src += ", " + list + ")"
			default:
				src += ")"
			}
			check(t, "{{ "+src+" }}", &expr.Env{Scope: vars, Host: host})
		}
	})
}

// decode reads JSON as values of the language; false where it is none.
func decode(text string, into any) bool {
	if len(text) > 1<<16 {
		return false
	}
	d := json.NewDecoder(strings.NewReader(text))
	d.UseNumber()
	if d.Decode(into) != nil {
		return false
	}
	var v any
	switch p := into.(type) {
	case *any:
		v = native(*p)
		*p = v
	case *[]any:
		v = native(*p)
	}
	return plainValue(v) == nil // 1e999 is no value
}
