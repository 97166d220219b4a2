package expr_test

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/orchestrator-project/orchestrator/pipeline/expr"
)

// step is an Object as the executor makes them.
type step struct {
	output any
	attrs  map[string]any
}

func (s step) Attr(name string) (any, bool) {
	if v, ok := s.attrs[name]; ok {
		return v, true
	}
	if m, ok := s.output.(map[string]any); ok {
		v, ok := m[name]
		return v, ok
	}
	return nil, false
}

func (s step) Value() any { return s.output }

var scope = expr.MapScope{
	"n": int64(5), "s": "text", "yes": "True", "word": "maybe", "nil": nil, "list": []any{int64(1), "b"},
	"m":     map[string]any{"a": int64(1), "b": int64(2), "items": "key"},
	"state": expr.NullState,
	"finder": step{
		output: map[string]any{"results": []any{"r1", "r2"}, "text": "found"},
		attrs:  map[string]any{"status": "completed", "success": true},
	},
	"write":      step{output: "all done", attrs: map[string]any{"status": "failed", "success": false}},
	"web-search": map[string]any{"result": "dashed"},
	"item":       "an item", "big": strings.Repeat("x", 2<<20),
	"steps":  map[string]any{"web-search": map[string]any{"result": "in steps"}, "step-1": int64(7)},
	"step-1": map[string]any{"result": "first"}, "check-in": "checked",
	"min": int64(math63), "a": int64(9), "b": int64(4), "a-b": "joined",
}

const math63 = -1 << 63

var host = expr.Host{
	Now:         func() time.Time { return time.Date(2026, 1, 31, 15, 4, 5, 0, time.UTC) },
	ListFiles:   func(p string) ([]string, error) { return []string{p + "/a", p + "/b"}, nil },
	FileExists:  func(p string) (bool, error) { return p == "here", nil },
	IncludeFile: func(p string) (string, error) { return "", errors.New("open " + p + ": no such file") },
}

var env = &expr.Env{Scope: scope, Host: host}

// TestValues covers what Jinja2 has not, or what differs from it.
func TestValues(t *testing.T) {
	list := func(v ...any) []any { return v }
	for src, want := range map[string]any{
		// objects and null state
		"{{ finder }}":                    map[string]any{"results": list("r1", "r2"), "text": "found"},
		"{{ finder.status }}":             "completed",
		"{{ finder['status'] }}":          "completed",
		"{{ finder.results[1] }}":         "r2",
		"{{ finder.results | length }}":   int64(2),
		"{{ finder | length }}":           int64(2),
		"{{ finder.items() | first }}":    list("results", list("r1", "r2")),
		"{{ write }}":                     "all done",
		"{{ write.upper() }}":             "ALL DONE",
		"{{ write[0] }}":                  "a",
		"{{ write ~ '!' }}":               "all done!",
		"{{ 'done' in write }}":           true,
		"{{ write == 'all done' }}":       true,
		"{{ write.nope | default('d') }}": "d",
		"{{ write.nope is defined }}":     false,
		"It is {{ write }}.":              "It is all done.",
		"{{ [finder, write] | map(attribute='status') | join(' ') }}":   "completed failed",
		"{{ [finder, write] | selectattr('success') | list | length }}": int64(1),
		"{{ [write, {'k': write}] }}":                                   list("all done", map[string]any{"k": "all done"}),
		"{% set x = write %}{{ x.status }}!":                            "failed!",
		"{{ (write if true else 1).status }}":                           "failed",
		"{{ (nil or write).status }}":                                   "failed",
		"{{ state }}":                                                   nil,
		"{{ state.a.b }}":                                               nil,
		"{{ state['a'][0] }}":                                           nil,
		"{{ state.a is none }}":                                         true,
		"{{ state is defined }}":                                        true,
		"{{ state.a | default('x') }}":                                  nil,
		"{{ state.a | default('x', true) }}":                            "x",
		"{{ state == none }}":                                           true,
		"{{ [state.a] }}":                                               list(nil),
		"[{{ state.a }}]":                                               "[]",
		"{{ not state.a }}":                                             true,
		// names
		"{{ $item }}":                 "an item",
		"{{ null }}":                  nil,
		"{{ n is null }}":             false,
		"{{ n == null }}":             false,
		"{{ m.items }}":               "key",
		"{{ m.items() | length }}":    int64(3),
		"{{ m['items'] }}":            "key",
		"{{ {1: 'a', '2': 'b'}[1] }}": "a",
		"{{ {1: 'a', '2': 'b'}[2] }}": "b",
		// dashes
		"{{ web-search.result }}":                     "dashed",
		"{{ web-search['result'] ~ '!' }}":            "dashed!",
		"{{ steps.web-search.result }}":               "in steps",
		"{{ steps.step-1 }}":                          int64(7),
		"{{ step-1.result }}":                         "first",
		"{{ check-in }}":                              "checked",
		"{{ a-b }}":                                   int64(5),
		"{{ a -b }}":                                  int64(5),
		"{{ n-1 }}":                                   int64(4),
		"{{ n-m.a }}":                                 int64(4),
		"{{ n-b-1 }}":                                 int64(0),
		"{{ web-search.result ~ (n-1) }}":             "dashed4",
		"{% for web in [5] %}{{ web-n }}{% endfor %}": "0",
		// numbers
		"{{ min }}":                     int64(math63),
		"{{ 9223372036854775807 + 0 }}": int64(1<<63 - 1),
		"{{ 3037000499 * 3037000499 }}": int64(9223372030926249001),
		"{{ min % -1 }}":                int64(0),
		"{{ 2 ** 62 }}":                 int64(1 << 62),
		"{{ (-2) ** 63 }}":              int64(math63),
		"{{ min < -9.3e18 }}":           false,
		"{{ 9223372036854775807 < 9223372036854775808.0 }}": true,
		// null
		"{{ none | upper }}":            "",
		"{{ none ~ 'a' }}":              "a",
		"{{ ['a', none] | join('-') }}": "a-",
		// own filters
		"{{ '{\"a\": [1, 2.5, null, true]}' | from_json }}":             map[string]any{"a": list(int64(1), 2.5, nil, true)},
		"{{ '[1e2]' | from_json }}":                                     list(100.0),
		"{{ m | json }}":                                                `{"a": 1, "b": 2, "items": "key"}`,
		"{{ m | to_json == m | json_encode }}":                          true,
		"{{ 'é<&>\\u2028' | tojson }}":                                  "\"é<&>\u2028\"",
		"{{ {} | tojson(2) }}":                                          "{}",
		"{{ 'Crème Brûlée: 50% off!' | slugify }}":                      "creme-brulee-50-off",
		"{{ \"It's Łódź\" | slugify('_') }}":                            "its_lodz",
		"{{ '  --  ' | slugify }}":                                      "",
		"{{ '日本 語' | slugify }}":                                        "日本-語",
		"{{ '/a/b/c.txt' | basename }}":                                 "c.txt",
		"{{ 'c.txt' | basename }}":                                      "c.txt",
		"{{ '/a/b/' | basename }}":                                      "",
		"{{ '/a/b/c.txt' | dirname }}":                                  "/a/b",
		"{{ '/a' | dirname }}":                                          "/",
		"{{ 'a' | dirname }}":                                           "",
		"{{ 'v1.22.3' | regex_search('[0-9]+') }}":                      "1",
		"{{ 'v1.22.3' | regex_search('v(\\\\d+)\\\\.(\\\\d+)', 2) }}":   "22",
		"{{ 'v1.22.3' | regex_search('v(?P<major>\\\\d+)', 'major') }}": "1",
		"{{ 'abc' | regex_search('z') }}":                               nil,
		"{{ 'ABC' | regex_search('b', ignorecase=true) }}":              "B",
		"{{ 'a1b22' | regex_replace('[0-9]+', '#') }}":                  "a#b#",
		"{{ 'a1b22' | regex_replace('([a-z])', '<\\\\1>') }}":           "<a>1<b>22",
		"{{ 'ab' | regex_replace('(?P<x>a)', '\\\\g<x>\\\\g<x>') }}":    "aab",
		"{{ 'aaa' | regex_replace('a', 'b', count=2) }}":                "bba",
		"{{ 'abc' | regex_replace('b') }}":                              "ac",
		"{{ 'x' | regex_replace('x', '\\\\d$1') }}":                     `\d$1`,
		"{{ '2026-01-31T15:04:05Z' | date }}":                           "2026-01-31",
		"{{ '2026-01-31' | date('%d.%m.%y') }}":                         "31.01.26",
		"{{ 0 | date('%Y-%m-%d %H:%M:%S') }}":                           "1970-01-01 00:00:00",
		"{{ 1.5 | date('%S.%f') }}":                                     "01.500000",
		"{{ '2026-03-07' | date('%A %-d %B, %j %U %W %V %u %w %%') }}":  "Saturday 7 March, 066 09 09 10 6 6 %",
		"{{ now() }}":                            "2026-01-31T15:04:05Z",
		"{{ now() | date('%H:%M') }}":            "15:04",
		"{{ 'plain-1.txt' | sh }}":               "plain-1.txt",
		"{{ \"it's\" | sh }}":                    `'it'\''s'`,
		"{{ '' | sh }}":                          "''",
		"{{ '$(rm -rf /)' | sh }}":               "'$(rm -rf /)'",
		"{{ ['a b', 1, 'c'] | sh }}":             "'a b' 1 c",
		"{{ [3, 1] | batch(2) | first | sort }}": list(int64(1), int64(3)),
		// functions
		"{{ list_files('src') }}":   list("src/a", "src/b"),
		"{{ file_exists('here') }}": true,
		// native values and text
		" {{ n }}\n":                     int64(5),
		"{# why #} {{ n }}":              int64(5),
		"{% set x = 2 %}\n{{ x * n }}\n": int64(10),
		"{% if n %}{{ n }}{% endif %}":   "5",
		"n: {{ n }}\n":                   "n: 5\n",
		"":                               "",
		"\n":                             "\n",
		"{{ '42' }}":                     "42",
		"{% raw %}{{ n }}{% endraw %}":   "{{ n }}",
		"{{ big }}":                      scope["big"],
	} {
		t.Run(src, func(t *testing.T) {
			got, err := evaluate(src, env)
			if err != nil {
				t.Fatalf("failed: %v", err)
			}
			if d := cmp.Diff(want, got); d != "" {
				t.Errorf("(-want +got)\n%s", d)
			}
		})
	}
}

// TestFaults checks code, span, text and hint. The span is given as the text it covers.
func TestFaults(t *testing.T) {
	for _, c := range []struct{ src, code, span, text, hint string }{
		// syntax
		{"{{ n b }}", "E0205", "b", "expected the end of the expression, found 'b'", ""},
		{"{{ 1 + }}", "E0205", "}}", "expected an expression, found the end of the tag", ""},
		{"{{  }}", "E0205", "{{  }}", "an empty expression", ""},
		{"a {{ n", "E0205", "{{", "this {{ is never closed", "end it with }}"},
		{"{{ 'n }}", "E0205", "'", "this text is never closed", "end it with '"},
		{"{{ n && s }}", "E0205", "&&", "unexpected '&&'", "write and"},
		{"{{ !n }}", "E0205", "!", "unexpected '!'", "write not"},
		{"{{ n ? 1 : 2 }}", "E0205", "?", "unexpected '?'", "write a if c else b"},
		{"{{ n # }}", "E0205", "#", "unexpected character '#'", ""},
		{"{{ (n }}", "E0205", "}", "expected ')' to close the parenthesis, found '}'", ""},
		{"{{ 9223372036854775808 }}", "E0205", "9223372036854775808", "the number 9223372036854775808 does not fit in 64 bits", ""},
		{"{{ 1e999 }}", "E0205", "1e999", "the number 1e999 is too large", ""},
		{`{{ '\xzz' }}`, "E0205", `\xzz`, "malformed escape in a text", `write \xhh, \uhhhh or \Uhhhhhhhh`},
		{"{% if n %}x", "E0205", "{% if", "this if is never closed", "end it with {% endif %}"},
		{"{% include 'x' %}", "E0205", "include", "there is no statement 'include' here", "statements are if, for, set and raw"},
		{"{% fro i in n %}", "E0205", "fro", "no statement named 'fro'", "did you mean 'for'?"},
		{"{% endfor %}", "E0205", "endfor", "'endfor' without its beginning", ""},
		{"{% for i in list recursive %}{% endfor %}", "E0205", "recursive", "loops cannot be recursive", ""},
		{"{% set m.a = 1 %}", "E0205", ".", "attributes cannot be set", ""},
		{"{{ m['a']('x') }}", "E0205", "(", "only functions and methods can be called", ""},
		{"{{ n | round(*list) }}", "E0205", "*", "arguments cannot be unpacked", "write the arguments one by one"},
		// unknown names of the closed tables
		{"é {{ s | uper }}", "E0206", "uper", "no filter named 'uper'", "did you mean 'upper'?"},
		{"{{ s | split(',') }}", "E0206", "split", "no filter named 'split'", "it is a method: x.split(',')"},
		{"{{ s | qqqqq }}", "E0206", "qqqqq", "no filter named 'qqqqq'", ""},
		{"{{ n is od }}", "E0206", "od", "no test named 'od'", "did you mean 'odd'?"},
		{"{{ rang(3) }}", "E0206", "rang", "no function named 'rang'", "did you mean 'range'?"},
		{"{{ upper(s) }}", "E0206", "upper", "no function named 'upper'", "it is a filter: x | upper"},
		{"{{ s.uper() }}", "E0206", "uper", "no method named 'uper'", "did you mean 'upper'?"},
		{"{{ list.append(1) }}", "E0206", "append", "no method named 'append'", "values cannot be changed; build a new one, as in items + [x]"},
		{"{{ list.length() }}", "E0206", "length", "no method named 'length'", "it is a filter: x | length"},
		{"{{ list | map('uper') }}", "E0206", "'uper'", "no filter named 'uper'", "did you mean 'upper'?"},
		{"{{ list | select('od') }}", "E0206", "'od'", "no test named 'od'", "did you mean 'odd'?"},
		{"{{ list | map(upper) }}", "E0201", "upper", "'upper' is undefined", ""},
		// arity
		{"{{ n | round(1, 'ceil', 3) }}", "E0207", "3", "filter round takes 0 to 2 arguments, not 3", "its arguments: precision?, method?"},
		{"{{ s | upper(1) }}", "E0207", "1", "filter upper takes no arguments, not 1", ""},
		{"{{ s | replace('a') }}", "E0207", "replace", "filter replace misses its argument 'new'", "its arguments: old, new, count?"},
		{"{{ s | truncate(len=3) }}", "E0207", "len", "filter truncate has no parameter 'len'", ""},
		{"{{ s | truncate(3, length=3) }}", "E0207", "length", "filter truncate gets 'length' twice", ""},
		{"{{ range() }}", "E0207", "range", "range() misses its argument 'start'", "its arguments: start, stop?, step?"},
		{"{{ n is divisibleby }}", "E0207", "divisibleby", "test divisibleby misses its argument 'num'", "its arguments: num"},
		{"{{ s.startswith() }}", "E0207", "startswith", "startswith() misses its argument 'prefix'", "its arguments: prefix"},
		// undefined
		{"{{ nope }}", "E0201", "nope", "'nope' is undefined", ""},
		{"{{ nope.x | default(1) }}", "E0201", "nope", "'nope' is undefined", ""},
		{"{{ now }}", "E0201", "now", "'now' is undefined", "to call the function write now()"},
		{"x {{ m.itmes }}", "E0201", "itmes", "no attribute 'itmes' on a map (it has: a, b, items)", "did you mean 'items'?"},
		{"{{ m['zz'] }}", "E0201", "'zz'", "no attribute 'zz' on a map (it has: a, b, items)", ""},
		{"{{ {}.x }}", "E0201", "x", "no attribute 'x' on a map (it is empty)", ""},
		{"{{ s.upper }}", "E0201", "upper", "no attribute 'upper' on a text", "to call the method write .upper()"},
		{"{{ nil.x }}", "E0201", "x", "no attribute 'x' on null", ""},
		{"{{ list[2] }}", "E0201", "2", "no element 2 in a list of 2", ""},
		{"{{ list[-3] }}", "E0201", "-3", "no element -3 in a list of 2", ""},
		{"{{ s[9] }}", "E0201", "9", "no character 9 in a text of 4", ""},
		{"{{ [m] | map(attribute='x') }}", "E0201", "map(attribute='x')", "no attribute 'x' on a map (it has: a, b, items)", ""},
		{"{{ [] | first }}", "E0201", "first", "filter first: no first element, the list is empty", ""},
		{"{{ write.nope }}", "E0201", "nope", "no attribute 'nope' on a text", ""},
		// values
		{"{{ n + s }}", "", "n + s", "cannot compute a whole number + a text", "join texts and other values with ~"},
		{"{{ 1 + (2 / 0) }}", "", "2 / 0", "division by zero", ""},
		{"{{ 9223372036854775807 + 1 }}", "", "9223372036854775807 + 1", "the result does not fit in 64 bits", ""},
		{"{{ min - 1 }}", "", "min - 1", "the result does not fit in 64 bits", ""},
		{"{{ -min }}", "", "-min", "the result does not fit in 64 bits", ""},
		{"{{ min // -1 }}", "", "min // -1", "the result does not fit in 64 bits", ""},
		{"{{ min * -1 }}", "", "min * -1", "the result does not fit in 64 bits", ""},
		{"{{ min | abs }}", "", "abs", "the result does not fit in 64 bits", ""},
		{"{{ 10 ** 19 }}", "", "10 ** 19", "the result does not fit in 64 bits", ""},
		{"{{ 1e308 * 10 }}", "", "1e308 * 10", "the result is too large for a number", ""},
		{"{{ (-8) ** 0.5 }}", "", "-8) ** 0.5", "this power is no real number", ""},
		{"{{ 1e30 | int }}", "", "int", "filter int: the number 1e+30 does not fit in 64 bits", ""},
		{"{{ n < s }}", "", "n < s", "a whole number and a text have no order", ""},
		{"{{ 1 in n }}", "", "1 in n", "'in' needs a list, a map or a text, not a whole number", ""},
		{"{{ list[s] }}", "E0201", "s", "no attribute 'text' on a list", ""},
		{"{{ list[1.5] }}", "", "1.5", "an index is a whole number or a text, not a number", ""},
		{"{{ n | join }}", "", "join", "filter join: it needs a list, not a whole number", ""},
		{"{{ list | upper }}", "", "upper", "filter upper: it needs a text, not a list", ""},
		{"{{ s | truncate('x') }}", "", "'x'", "filter truncate: 'length' must be a whole number, not a text", ""},
		{"{{ n.upper() }}", "", "n.upper()", "upper(): a whole number has no such method, only a text has", ""},
		{"{{ '{' | from_json }}", "", "from_json", `filter from_json: the text is not JSON: unexpected EOF: "{"`, ""},
		{"{{ '1 2' | from_json }}", "", "from_json", `filter from_json: the text is not JSON: something follows the value: "2"`, ""},
		{"{{ s | regex_search('(') }}", "", "regex_search('(')", "filter regex_search: the pattern does not parse: missing closing ): `(`", ""},
		{"{{ s | regex_replace('a', '\\\\2') }}", "", "regex_replace('a', '\\\\2')", `filter regex_replace: the pattern has no group "2"`, ""},
		{"{{ s | date }}", "", "date", `filter date: the text "text" is no date (write it as 2026-01-31 or 2026-01-31T15:04:05Z)`, ""},
		{"{% for a, b in [[1]] %}{% endfor %}", "", "[[1]]", "cannot unpack 1 values into 2 names", ""},
		{"{{ collect_results() }}", "", "collect_results()", "collect_results(): it is not available here", ""},
		{"{{ include_file('x') }}", "", "include_file('x')", "include_file(): open x: no such file", ""},
	} {
		t.Run(c.src, func(t *testing.T) {
			v, err := evaluate(c.src, env)
			var e *expr.Error
			if !errors.As(err, &e) {
				t.Fatalf("got %#v and error %v", v, err)
			}
			got := fmt.Sprintf("%s|%s|%s|%s", e.Code, c.src[e.Off:e.End], e.Text, e.Hint)
			if want := fmt.Sprintf("%s|%s|%s|%s", c.code, c.span, c.text, c.hint); got != want {
				t.Errorf("\n got %s\nwant %s", got, want)
			}
		})
	}
}

func TestSeveralFaultsComeTogether(t *testing.T) {
	_, err := expr.Compile("{{ s | uper }} {{ n | round(1, 2, 3) }} {{ n is od }}")
	var all expr.Errors
	if !errors.As(err, &all) || len(all) != 3 {
		t.Fatalf("got %v", err)
	}
	want := "E0206: no filter named 'uper' (did you mean 'upper'?); E0207: filter round takes 0 to 2 arguments, not 3 (its arguments: precision?, method?); E0206: no test named 'od' (did you mean 'odd'?)"
	if err.Error() != want {
		t.Errorf("got %s", err)
	}
}

func TestConditions(t *testing.T) {
	for src, want := range map[string]string{
		"n > 3": "true", "{{ n > 3 }}": "true", " {{ n > 9 }} \n": "false", "not n": "false", "true": "true", "{{ nil }}": "false",
		"state": "false", "state.a": "false", "list": "true", "[]": "false", "m": "true", "0": "false", "0.5": "true",
		"yes": "true", "'false'": "false", "' TRUE '": "true", "finder": "true", "finder.success": "true", "write.success": "false",
		"word":                      `a condition needs true or false, not the text "maybe" (compare it, as in x == 'yes', or ask x | length > 0)`,
		"''":                        `a condition needs true or false, not the text "" (compare it, as in x == 'yes', or ask x | length > 0)`,
		"missing":                   "E0201: 'missing' is undefined",
		"{{ n }} > 3":               "E0205: a condition is one expression (write it bare, or in one {{ }})",
		"n > 3 and {{ n }}":         "E0205: expected ':' after a key of a map, found '}'",
		"":                          "E0205: an empty condition",
		"{% if n %}true{% endif %}": "E0205: a condition is one expression (write it bare, or in one {{ }})",
		"n >":                       "E0205: expected an expression, found the end",
		"web-search":                "true",
	} {
		t.Run(src, func(t *testing.T) {
			var ok bool
			c, err := expr.CompileCondition(src)
			if err == nil {
				ok, err = c.Test(env)
			}
			got := fmt.Sprint(ok)
			if err != nil {
				got = err.Error()
			}
			if got != want {
				t.Errorf("got %s, want %s", got, want)
			}
		})
	}
}

func TestEvalString(t *testing.T) {
	for src, want := range map[string]string{
		"{{ n }}": "5", "{{ nil }}": "", "{{ n == 5 }}": "true", "{{ list }}": `[1, "b"]`, "{{ 1.0 }}": "1.0", "a{{ s }}": "atext", "{{ write }}": "all done",
	} {
		c, err := expr.Compile(src)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := c.EvalString(env); got != want || err != nil {
			t.Errorf("%s: got %q, %v", src, got, err)
		}
	}
}

func TestNestingIsBounded(t *testing.T) {
	for _, src := range []string{
		"{{ " + strings.Repeat("(", 100_000), "{{ " + strings.Repeat("[", 100_000), "{{ " + strings.Repeat("{1:", 100_000),
		"{{ " + strings.Repeat("not ", 100_000), "{{ " + strings.Repeat("-", 100_000) + "1 }}", "{{ a" + strings.Repeat(".a", 100_000) + " }}",
		"{{ a" + strings.Repeat(" + a", 100_000) + " }}", "{{ a" + strings.Repeat("|upper", 100_000) + " }}", "{{ a" + strings.Repeat(" if a", 100_000) + " }}",
		"{{ 1 " + strings.Repeat("if 1 else 1 ", 100_000) + " }}", strings.Repeat("{% if a %}", 100_000), strings.Repeat("{% for a in a %}", 100_000),
		"{{ a" + strings.Repeat("[0", 100_000), "{{ " + strings.Repeat("range(", 100_000), "{{ a" + strings.Repeat("**a", 100_000) + "}}",
	} {
		_, err := expr.Compile(src)
		if err == nil || !strings.Contains(err.Error(), "nested too deeply") {
			t.Errorf("%.30s...: got %v", src, err)
		}
	}
	deep := "{{ " + strings.Repeat("(", 40) + "n" + strings.Repeat(")", 40) + " }}"
	if v, err := evaluate(deep, env); err != nil || v != int64(5) {
		t.Errorf("40 levels: got %v, %v", v, err)
	}
}

func TestTemplateIsSafeForConcurrentUse(t *testing.T) {
	c, err := expr.Compile("{% for i in range(20) %}{{ web-search.result }}{{ loop.index }}{% endfor %}")
	if err != nil {
		t.Fatal(err)
	}
	want, err := c.EvalString(env)
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 200 {
				if got, err := c.EvalString(env); got != want || err != nil {
					t.Errorf("got %s, %v", got, err)
				}
			}
		})
	}
	wg.Wait()
}

func TestScopeValuesAreNotChanged(t *testing.T) {
	before := []any{int64(3), int64(1), int64(2)}
	s := expr.MapScope{"l": before}
	for _, src := range []string{"{{ l | sort }}", "{{ l | reverse }}", "{{ l | map('string') }}", "{{ l + [9] }}", "{{ [l, l] | sum(start=[]) }}", "{{ l | batch(2, 7) }}", "{{ l | slice(2, 7) }}"} {
		if _, err := evaluate(src, &expr.Env{Scope: s}); err != nil {
			t.Errorf("%s: %v", src, err)
		}
		if d := cmp.Diff([]any{int64(3), int64(1), int64(2)}, s["l"]); d != "" {
			t.Errorf("%s changed its input: %s", src, d)
		}
	}
}

func TestEmptyEnv(t *testing.T) {
	if v, err := evaluate("{{ 1 + 1 }}", nil); v != int64(2) || err != nil {
		t.Errorf("got %v, %v", v, err)
	}
	if _, err := evaluate("{{ x }}", &expr.Env{}); err == nil {
		t.Error("a name was found in no scope")
	}
	if _, err := evaluate("{{ x }}", &expr.Env{Scope: expr.MapScope{"x": struct{}{}}}); err == nil {
		t.Error("a foreign value was accepted")
	}
}

// TestCompilingIsLinear compiles large sources, in which each part must cost
// about the same.
func TestCompilingIsLinear(t *testing.T) {
	const size = 1 << 18
	sources := []string{
		"{% if a %}" + strings.Repeat("{% elif a is defined %}{{ a }}", size/30) + "{% endif %}",
		"{{ " + strings.Repeat("'a' ", size/4) + "}}",
	}
	for _, part := range []string{"{{ a-b-c.d }}", "{{ a.b-c }}", "{{ nope | nope }}", "{% if a is defined %}{{ a }}{% endif %}", "{# #}", "{% raw %}{% x {% endraw %}", "{"} {
		sources = append(sources, strings.Repeat(part, size/len(part)))
	}
	for _, src := range sources {
		start := time.Now()
		_, _ = expr.Compile(src)
		if d := time.Since(start); d > time.Minute {
			t.Errorf("%.40s... took %s", src, d)
		}
	}
}
