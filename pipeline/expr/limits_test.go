package expr_test

import (
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/orchestrator-project/orchestrator/pipeline/expr"
)

// TestLimits feeds what would take the time or memory of the process.
func TestLimits(t *testing.T) {
	ops, text, elements := "does too much work", "too long", "too many list elements"
	for src, want := range map[string]string{
		"{{ 'a' * 10 ** 9 }}":                                    text,
		"{{ 'a' * 9223372036854775807 }}":                        text,
		"{{ [1] * 10 ** 9 }}":                                    elements,
		"{{ [] * 10 ** 18 }}":                                    "",
		"{{ '' * 10 ** 18 }}":                                    "",
		"{{ range(10 ** 9) }}":                                   elements,
		"{{ range(-9223372036854775807, 9223372036854775807) }}": elements,
		"{{ range(100) | length }}":                              "",
		"{% for i in range(400) %}{% for j in range(400) %}{% endfor %}{% endfor %}":                                    ops,
		"{% set x = 'a' %}{% for i in range(30) %}{% endfor %}" + strings.Repeat("{% set x = x ~ x %}", 30) + "{{ x }}": text,
		strings.Repeat("{% set x = (x | default('a')) * 1000000 %}", 1) + strings.Repeat("{% set y = x ~ 'b' %}", 40):   "too much",
		"{% set a = [1, 1] %}" + strings.Repeat("{% set a = [a, a] %}", 40) + "{{ a }}":                                 "too large",
		"{% set a = [1, 1] %}" + strings.Repeat("{% set a = [a, a] %}", 40) + "x{{ a }}":                                text,
		"{% set a = [1, 1] %}" + strings.Repeat("{% set a = [a, a] %}", 40) + "{{ a == [a] }}{{ a == a }}":              ops,
		"{% set a = [1, 1] %}" + strings.Repeat("{% set a = [a, a] %}", 40) + "{{ [a] | unique }}":                      "too large",
		"{% set a = [1, 1] %}" + strings.Repeat("{% set a = [a, a] %}", 40) + "{{ a | tojson }}":                        text,
		"{{ 'a' | center(10 ** 12) }}":                            text,
		"{{ 'a'.ljust(10 ** 12) }}":                               text,
		"{{ 'a'.zfill(10 ** 12) }}":                               text,
		"{{ 'a' | indent(10 ** 12) }}":                            text,
		"{{ ('\\n' * 10000) | indent(10000, blank=true) }}":       text,
		"{{ ('a' * 10000) | replace('a', 'b' * 10000) }}":         text,
		"{{ ('a' * 10000) | regex_replace('a', 'b' * 10000) }}":   text,
		"{{ range(10000) | join('a' * 10000) }}":                  text,
		"{{ '%99999999d' % 1 }}":                                  "more than 10,000",
		"{{ '{:99999999}'.format(1) }}":                           "more than 10,000",
		"{{ '%.999f' % 1 }}":                                      "more than 400",
		"{{ [1] | batch(10 ** 12, 0) }}":                          elements,
		"{{ [1] | slice(10 ** 12) }}":                             elements,
		"{{ ('a ' * 500000).split() | length }}":                  "",
		"{{ ('a,' * 500000).split(',') | length }}":               "",
		"{{ ('a' * 1000000) | list | length }}":                   "",
		"{{ ('a' * 1000000) | regex_search('(a|b|ab){1000}c') }}": "too",
		"{{ 'a' | regex_search('a{1000}{1000}') }}":               "pattern does not parse",
		"{{ 'a' | regex_search('x' * 5000) }}":                    "pattern is too long",
		"{{ big | upper }}":                                       text,
		"{{ big ~ '' }}":                                          text,
		"x{{ big }}":                                              text,
		"{{ [big] }}":                                             "too large",
		"{{ ('[' * 9000) | from_json }}":                          "not JSON",
		"{{ 9 ** 9 ** 9 }}":                                       "64 bits",
	} {
		t.Run(src[:min(60, len(src))], func(t *testing.T) {
			start := time.Now()
			_, err := evaluate(src, env)
			if got := fmt.Sprint(err); want == "" && err != nil || want != "" && !strings.Contains(got, want) {
				t.Errorf("got %s, want %s", got, want)
			}
			if d := time.Since(start); d > 5*time.Second {
				t.Errorf("took %s", d)
			}
		})
	}
}

// TestHostileExpressionsEndSoon repeats work on large texts, which the number of
// operations must bound as well.
func TestHostileExpressionsEndSoon(t *testing.T) {
	for _, body := range []string{
		"{% if x is upper %}{% endif %}", "{% if x.isalpha() %}{% endif %}", "{% if x | regex_search('(a|b|c|d)*e') %}{% endif %}",
		"{% if 'abc' | regex_search('\\\\pL' * 1000) %}{% endif %}", "{% set y = x | wordwrap(1) %}", "{% set y = x | urlencode %}",
		"{% set y = x.strip('ab' * 50000) %}", "{% set y = x | striptags %}", "{% if x in {x: 1} %}{% endif %}", "{% set y = x[5] %}",
		"{% set y = x % [] %}", "{% if x == big or x < big %}{% endif %}", "{% set y = x | slugify %}", "{% set y = x.rsplit('zz') %}", "{{ x }}",
	} {
		src := "{% set x = 'aé' * 100000 %}{% for i in range(20000) %}" + body + "{% endfor %}"
		start := time.Now()
		if _, err := evaluate(src, env); err == nil {
			t.Errorf("%s: no error", body)
		}
		if d := time.Since(start); d > time.Minute {
			t.Errorf("%s took %s", body, d)
		}
	}
}

// TestLargeListsPass: the filters that visit elements by themselves take lists of
// more elements than an evaluation may have operations.
func TestLargeListsPass(t *testing.T) {
	const n = 150_000
	numbers, rows, texts := make([]any, n), make([]any, n), make([]any, n)
	for i := range n {
		k := int64(i * 7919 % n)
		numbers[i], texts[i] = k, fmt.Sprintf("text %d", k)
		rows[i] = map[string]any{"id": k, "name": texts[i], "ok": i%3 == 0, "in": map[string]any{"x": k % 10}}
	}
	env := &expr.Env{Scope: expr.MapScope{"numbers": numbers, "rows": rows, "texts": texts}}
	for src, want := range map[string]any{
		"{{ rows | length }}":                                                           int64(n),
		"{{ rows }}":                                                                    rows,
		"{{ numbers | sum }}":                                                           int64(n * (n - 1) / 2),
		"{{ numbers | join(',') | length }}":                                            int64(938_889),
		"{{ numbers | sort | first }}":                                                  int64(0),
		"{{ numbers | sort(reverse=true) | first }}":                                    int64(n - 1),
		"{{ (numbers | max) - (numbers | min) }}":                                       int64(n - 1),
		"{{ numbers | reverse | list | last }}":                                         int64(0),
		"{{ numbers | batch(1000) | length }}":                                          int64(n / 1000),
		"{{ numbers | map('string') | unique | length }}":                               int64(n),
		"{{ numbers | select('odd') | length }}":                                        int64(n / 2),
		"{{ numbers[10:] | length }}":                                                   int64(n - 10),
		"{{ -1 in numbers }}":                                                           false,
		"{{ (numbers + numbers) | length }}":                                            int64(2 * n),
		"{{ range(500000) | last }}":                                                    int64(499_999),
		"{{ rows | sort(attribute='id') | map(attribute='id') | first }}":               int64(0),
		"{{ rows | selectattr('ok') | map(attribute='id') | sum }}":                     int64(3_749_925_000),
		"{{ rows | selectattr('id', 'gt', 9) | list | length }}":                        int64(n - 10),
		"{{ rows | map(attribute='in.x') | unique | sort | join }}":                     "0123456789",
		"{{ rows | groupby('in.x') | map('last') | map('length') | max }}":              int64(n / 10),
		"{{ rows | rejectattr('ok') | map(attribute='name') | unique | sort | first }}": "text 1",
		"{{ texts | map('upper') | first }}":                                            "TEXT 0",
		"{{ texts | map('regex_replace', '[0-9]+', '') | unique | join }}":              "text ",
		"{{ texts | map('replace', 'text ', '') | map('int') | sum }}":                  int64(n * (n - 1) / 2),
		"{{ texts | sort | last }}":                                                     "text 99999",
	} {
		t.Run(src, func(t *testing.T) {
			got, err := evaluate(src, env)
			if err != nil || !expr.Equal(got, want) {
				t.Errorf("got %.100v, %v; want %.100v", got, err, want)
			}
		})
	}
}

// TestMemoryIsBounded lets expressions hold as much as they can.
func TestMemoryIsBounded(t *testing.T) {
	for _, src := range []string{
		"{{ [" + strings.Repeat("range(100000),", 50) + "] | length }}",
		"{% set a = range(1000) %}{% for i in a %}{% set b = a | map('string') | list %}{% endfor %}",
		"{{ range(90000) | map('string') | map('list') | map('list') | map('reverse') | map('list') | length }}",
		"{{ range(100000) | batch(1) | map('batch', 1) | map('list') | map('batch', 1) | list | length }}",
		"{{ (('[' ~ '{},' * 200000 ~ '{}]') | from_json) | length }}",
		"{{ (('[' ~ '{\"a\":1},' * 100000 ~ '{}]') | from_json) | map('items') | length }}",
		"{{ range(1000) | map('string') | map('center', 100000) | unique | length }}",
		"{{ range(100000) | map('string') | map('slugify', 'x' * 100000) | length }}{{ (['a b'] * 1000) | map('slugify', 'x' * 100000) | length }}",
		"{{ ('a,' * 500000).split(',') | map('list') | map('list') | length }}",
		"{{ range(200000) | slice(150000) | map('slice', 10) | length }}",
	} {
		t.Run(src[:min(60, len(src))], func(t *testing.T) {
			c, err := expr.Compile(src)
			if err != nil {
				t.Fatal(err)
			}
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			_, err = c.Eval(nil)
			runtime.ReadMemStats(&after)
			if got := (after.TotalAlloc - before.TotalAlloc) >> 20; got > 100 {
				t.Errorf("%d MiB were allocated (%v)", got, err)
			}
		})
	}
}
