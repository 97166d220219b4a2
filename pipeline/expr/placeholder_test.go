package expr_test

import (
	"testing"

	"github.com/orchestrator-project/orchestrator/pipeline/expr"
)

func TestPlaceholderEnd(t *testing.T) {
	for src, want := range map[string]int{
		"{{ a }} b": 5, "{{ '}}' }}": 8, `{{ "\"}}" }}`: 10, "{{ a": 4, "{{}}": 2,
	} {
		if got := expr.PlaceholderEnd(src, 2); got != want {
			t.Errorf("%s: %d, not %d", src, got, want)
		}
	}
}
