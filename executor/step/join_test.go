package step

import (
	"testing"

	"pgregory.net/rapid"

	"github.com/orchestrator-project/orchestrator/executor"
	"github.com/orchestrator-project/orchestrator/pipeline"
)

var (
	joinLeft  = []any{params{"id": 1, "x": "a"}, params{"id": 2, "x": "b"}, params{"id": nil, "x": "c"}, params{"id": 4, "x": "d"}}
	joinRight = []any{params{"id": 2.0, "x": "B", "y": true}, params{"id": 1, "x": "A"}, params{"id": 2, "x": "C"}, params{"id": nil, "x": "N"}, params{"id": 9}}
)

func TestJoin(t *testing.T) {
	inner := []any{
		params{"id": 1, "x": "a", "x_right": "A", "y": nil}, params{"id": 2, "x": "b", "x_right": "B", "y": true}, params{"id": 2, "x": "b", "x_right": "C", "y": nil},
	}
	left := []any{params{"id": nil, "x": "c", "x_right": nil, "y": nil}, params{"id": 4, "x": "d", "x_right": nil, "y": nil}}
	right := []any{params{"id": nil, "x": nil, "x_right": "N", "y": nil}, params{"id": 9, "x": nil, "x_right": nil, "y": nil}}
	for how, want := range map[string][]any{
		"inner": inner, "left": append(inner[:3:3], left...), "right": append(inner[:3:3], right...), "full": append(append(inner[:3:3], left...), right...),
	} {
		env, _ := testEnv(t)
		v, err := run(t, Config{}, env, "data.join", params{"left": joinLeft, "right": joinRight, "on": "id", "how": how})
		if err != nil {
			t.Fatal(err)
		}
		same(t, v, params{"data": want, "rows": len(want), "matched": 3, "left_alone": 2, "right_alone": 2})
	}
}

func TestJoinOnSeveralColumns(t *testing.T) {
	env, _ := testEnv(t)
	left := []any{params{"a": "1,2", "b": "3"}, params{"a": "1", "b": "2,3"}}
	for _, on := range []any{[]any{"a", "b"}, params{"a": "a", "b": "b"}} {
		v, err := run(t, Config{}, env, "data.join", params{"left": left, "right": left, "on": on})
		if err != nil {
			t.Fatal(err)
		}
		same(t, field(t, v, "data"), left)
	}
	v, err := run(t, Config{}, env, "data.join", params{
		"left": []any{params{"k": 1}}, "right": []any{params{"key": 2, "k": 5}}, "on": params{"k": "key"}, "how": "full", "suffix": "2",
	})
	if err != nil {
		t.Fatal(err)
	}
	same(t, field(t, v, "data"), []any{params{"k": 1, "k2": nil}, params{"k": 2, "k2": 5}})
}

func TestJoinRefusals(t *testing.T) {
	env, _ := testEnv(t)
	many := make([]any, 600)
	for i := range many {
		many[i] = params{"k": 1}
	}
	for text, p := range map[string]params{
		`left: no row has the column "no"`:       {"on": params{"no": "id"}},
		`right: no row has the column "no"`:      {"on": params{"id": "no"}},
		"parameter on is a column":               {"on": []any{}},
		"parameter on is a column, a list of":    {"on": 5},
		"parameter left is a list of maps":       {"left": []any{1}, "on": "id"},
		"parameter how is":                       {"on": "id", "how": "outer"},
		"choose another suffix":                  {"on": "id", "suffix": ""},
		"the joined table has more than 250000 ": {"on": "k", "left": many, "right": many},
	} {
		for k, v := range map[string]any{"left": joinLeft, "right": joinRight} {
			if p[k] == nil {
				p[k] = v
			}
		}
		_, err := run(t, Config{}, env, "data.join", p)
		category := pipeline.CategoryValidation
		if p["on"] == "k" {
			category = pipeline.CategoryFailed
		}
		failed(t, err, category, text)
	}
	if _, err := run(t, Config{}, env, "data.join", params{"left": []any{}, "right": joinRight, "on": "id"}); err != nil {
		t.Errorf("no rows: %v", err)
	}
}

func TestJoinCountsAsNestedLoopsDo(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		draw := func(name string) []any {
			list := []any{}
			for _, k := range rapid.SliceOfN(rapid.IntRange(0, 5), 0, 12).Draw(t, name) {
				row := map[string]any{"k": nil}
				if k > 0 {
					row["k"] = int64(k)
				}
				list = append(list, row)
			}
			return list
		}
		left, right := draw("left"), draw("right")
		pairs, alone := 0, 0
		for _, l := range left {
			found := 0
			for _, r := range right {
				if k := l.(map[string]any)["k"]; k != nil && k == r.(map[string]any)["k"] {
					found++
				}
			}
			pairs += found
			if found == 0 {
				alone++
			}
		}
		out, err := Join{Left: left, Right: right, On: "k", How: "left", Suffix: "_right"}.Run(t.Context(), executor.Env{})
		if err != nil {
			t.Fatal(err)
		}
		m := out.Value.(map[string]any)
		if m["matched"] != int64(pairs) || m["rows"] != int64(pairs+alone) {
			t.Fatalf("got %v; want %d pairs, %d alone", m, pairs, alone)
		}
	})
}
