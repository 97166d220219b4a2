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

func BenchmarkPath(b *testing.B)   { benchmark(b, "{{ a.b.c }}") }
func BenchmarkText(b *testing.B)   { benchmark(b, "Find {{ a.b.c }} at {{ n }}.") }
func BenchmarkSum(b *testing.B)    { benchmark(b, "{{ n + 1 }}") }
func BenchmarkGuard(b *testing.B)  { benchmark(b, "{{ n > 3 and a.b.c == 'value' }}") }
func BenchmarkDash(b *testing.B)   { benchmark(b, "{{ web-search.result }}") }
func BenchmarkFilter(b *testing.B) { benchmark(b, "{{ a.b.c | upper }}") }
func BenchmarkLoop(b *testing.B) {
	benchmark(b, "{% for r in rows %}{{ loop.index }}: {{ r.name }}\n{% endfor %}")
}

func BenchmarkPipeline(b *testing.B) {
	benchmark(b, "{{ rows | selectattr('ok') | map(attribute='n') | sum }}")
}

func BenchmarkCompile(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		if _, err := expr.Compile("{{ steps.code_parsing.parsed_code | default('none') }}"); err != nil {
			b.Fatal(err)
		}
	}
}
