package expr_test

import (
	"testing"

	"github.com/orchestrator-project/orchestrator/pipeline/expr"
)

// TestEvaluationsAllocateTheSame: a compiled template keeps nothing of its
// evaluations, and the simple ones need next to no memory.
func TestEvaluationsAllocateTheSame(t *testing.T) {
	env := &expr.Env{Scope: expr.MapScope{
		"a": map[string]any{"b": map[string]any{"c": "value"}}, "n": int64(41), "list": []any{int64(3), int64(1)}, "web-search": "x",
	}}
	for src, most := range map[string]float64{
		"{{ a.b.c }}":                            0,
		"{{ n >= 40 and a.b.c == 'value' }}":     0,
		"{{ n + 1 }}":                            1,
		"Find {{ a.b.c }} at {{ n }}.":           2,
		"{% for x in list %}{{ x }}{% endfor %}": 4,
		"{{ list | sort | join(',') }}":          20,
		"{{ web-search }}":                       8,
		"{{ a.b.nope | default('x') }}":          4,
		"{{ nope }}":                             20,
		"{{ a.b.c | regex_replace('a', 'b') }}":  80,
	} {
		c, err := expr.Compile(src)
		if err != nil {
			t.Fatal(err)
		}
		evaluate := func() { _, _ = c.Eval(env) }
		first := testing.AllocsPerRun(100, evaluate)
		for range 20_000 {
			evaluate()
		}
		const dropped = 3 // of what is pooled, by the race detector
		if last := testing.AllocsPerRun(100, evaluate); first > most+dropped || last > first+dropped {
			t.Errorf("%s: %v allocations at first, at most %v are meant; %v later", src, first, most, last)
		}
	}
}
