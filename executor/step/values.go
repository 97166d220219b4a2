package step

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"unicode"

	"github.com/orchestrator-project/orchestrator/executor"
	"github.com/orchestrator-project/orchestrator/pipeline"
)

// kindOf names the kind of a value for messages.
func kindOf(v any) string {
	switch v.(type) {
	case nil:
		return "null"
	case bool:
		return "a boolean"
	case int64, float64:
		return "a number"
	case string:
		return "a text"
	case []any:
		return "a list"
	case map[string]any:
		return "a map"
	}
	return fmt.Sprintf("a %T", v)
}

func anyList(l []string) []any {
	out := make([]any, len(l))
	for i, s := range l {
		out[i] = s
	}
	return out
}

// compare orders two numbers, two texts or two booleans; ok is false for
// anything else, which is in no order.
func compare(a, b any) (order int, ok bool) {
	switch x := a.(type) {
	case string:
		if y, ok := b.(string); ok {
			return strings.Compare(x, y), true
		}
	case bool:
		if y, ok := b.(bool); ok {
			return cmp.Compare(boolInt(x), boolInt(y)), true
		}
	case int64:
		switch y := b.(type) {
		case int64:
			return cmp.Compare(x, y), true
		case float64:
			return compareMixed(x, y), true
		}
	case float64:
		switch y := b.(type) {
		case float64:
			return cmp.Compare(x, y), true
		case int64:
			return -compareMixed(y, x), true
		}
	}
	return 0, false
}

func boolInt(b bool) int {
	if b {
		return 1
	}
	return 0
}

// compareMixed is exact also where the integer has no float64 of its own.
func compareMixed(i int64, f float64) int {
	switch {
	case f >= 1<<63:
		return -1
	case f < -1<<63:
		return 1
	}
	whole := math.Trunc(f)
	if c := cmp.Compare(i, int64(whole)); c != 0 {
		return c
	}
	return cmp.Compare(whole, f)
}

// identity is equal for equal values: 1 and 1.0 are.
func identity(v any) string { return string(pipeline.EncodeValue(wholeInts(v))) }

func wholeInts(v any) any {
	switch v := v.(type) {
	case float64:
		if v == math.Trunc(v) && math.Abs(v) < 1<<63 {
			return int64(v)
		}
	case []any:
		out := make([]any, len(v))
		for i, e := range v {
			out[i] = wholeInts(e)
		}
		return out
	case map[string]any:
		out := make(map[string]any, len(v))
		for k, e := range v {
			out[k] = wholeInts(e)
		}
		return out
	}
	return v
}

// table reads the rows of a parameter: a list of maps.
func table(param string, v []any) ([]map[string]any, error) {
	rows := make([]map[string]any, len(v))
	for i, e := range v {
		m, ok := e.(map[string]any)
		if !ok {
			return nil, invalid("parameter %s is a list of maps; item %d is %s", param, i, kindOf(e))
		}
		rows[i] = m
	}
	return rows, nil
}

// columnsOf are the keys of all rows, sorted.
func columnsOf(rows []map[string]any) []string {
	seen := map[string]bool{}
	var names []string
	for _, r := range rows {
		for k := range r {
			if !seen[k] {
				seen[k] = true
				names = append(names, k)
			}
		}
	}
	slices.Sort(names)
	return names
}

// knownColumn refuses a column that no row has: a typing error must not look
// like an empty result.
func knownColumn(rows []map[string]any, name string) error {
	if len(rows) == 0 {
		return nil
	}
	for _, r := range rows {
		if _, ok := r[name]; ok {
			return nil
		}
	}
	return invalid("no row has the column %q; there are %s", name, strings.Join(columnsOf(rows), ", "))
}

// word is a text of a person or a model in one form: lower case, with _ between
// its parts. "Full load", full-load and FULL_LOAD are the same word.
func word(s string) string {
	parts := strings.FieldsFunc(strings.ToLower(s), func(r rune) bool {
		return unicode.IsSpace(r) || r == '_' || r == '-' || r == '"' || r == '\'' || r == '`'
	})
	return strings.Join(parts, "_")
}

// finite is f, or null where f is no number that JSON has.
func finite(f float64) any {
	if math.IsNaN(f) || math.IsInf(f, 0) {
		return nil
	}
	return f
}

func sortedKeys(m map[string]any) []string { return slices.Sorted(maps.Keys(m)) }

// weight is about how many bytes v has as JSON. It stops counting beyond limit.
func weight(v any, limit int) int {
	switch v := v.(type) {
	case string:
		return len(v) + 2
	case []any:
		n := 2
		for _, e := range v {
			if n += 1 + weight(e, limit-n); n > limit {
				return n
			}
		}
		return n
	case map[string]any:
		n := 2
		for k, e := range v {
			if n += len(k) + 4 + weight(e, limit-n); n > limit {
				return n
			}
		}
		return n
	case float64:
		return 12
	}
	return 6
}

// bounded is the output of a step, or its failure where it is larger than a
// value may be.
func bounded(name string, v map[string]any) (executor.Output, error) {
	if weight(v, maxValue) > maxValue {
		return executor.Output{}, tooLarge("%s is larger than %s; work on fewer rows or columns", name, size(maxValue))
	}
	return executor.Output{Value: v}, nil
}
