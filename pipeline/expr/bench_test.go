package expr_test

import (
	"testing"

	"github.com/orchestrator-project/orchestrator/pipeline/expr"
)

func benchmark(b *testing.B, src string) {
	b.Helper()
	c, err := expr.Compile(src)
	if err != nil {
		b.Fatal(err)
	}
	rows := make([]any, 100)
	for i := range rows {
		rows[i] = map[string]any{"name": "row", "n": int64(i), "ok": i%2 == 0}
	}
	env := &expr.Env{Scope: expr.MapScope{
		"a": map[string]any{"b": map[string]any{"c": "value"}}, "n": int64(41), "rows": rows, "web-search": map[string]any{"result": "x"},
	}}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := c.Eval(env); err != nil {
			b.Fatal(err)
		}
	}
}

// What most fields of a pipeline are; each must take less than a microsecond.

func BenchmarkPath(b *testing.B)    { benchmark(b, "{{ a.b.c }}") }
func BenchmarkText(b *testing.B)    { benchmark(b, "Find {{ a.b.c }} at {{ n }}.") }
func BenchmarkCompare(b *testing.B) { benchmark(b, "{{ n >= 40 }}") }
func BenchmarkSum(b *testing.B)     { benchmark(b, "{{ n + 1 }}") }
func BenchmarkGuard(b *testing.B)   { benchmark(b, "{{ n > 3 and a.b.c == 'value' }}") }
func BenchmarkDash(b *testing.B)    { benchmark(b, "{{ web-search.result }}") }
func BenchmarkFilter(b *testing.B)  { benchmark(b, "{{ a.b.c | upper }}") }
func BenchmarkLoop(b *testing.B) {
	benchmark(b, "{% for r in rows %}{{ loop.index }}: {{ r.name }}\n{% endfor %}")
}

func BenchmarkPipeline(b *testing.B) {
	benchmark(b, "{{ rows | selectattr('ok') | map(attribute='n') | sum }}")
}

// BenchmarkLargeList is the time of an element in a list of 100,000.
func BenchmarkLargeList(b *testing.B) {
	c, err := expr.Compile("{{ rows | selectattr('ok') | map(attribute='n') | sort | unique | join(',') }}")
	if err != nil {
		b.Fatal(err)
	}
	const n = 100_000
	rows := make([]any, n)
	for i := range rows {
		rows[i] = map[string]any{"n": int64(i * 7919 % n), "ok": i%2 == 0}
	}
	env := &expr.Env{Scope: expr.MapScope{"rows": rows}}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := c.Eval(env); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/n, "ns/element")
}

func BenchmarkCompile(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		if _, err := expr.Compile("{{ steps.code_parsing.parsed_code | default('none') }}"); err != nil {
			b.Fatal(err)
		}
	}
}
