package step

import (
	"math"
	"testing"

	"github.com/orchestrator-project/orchestrator/pipeline"
)

var orders = []any{
	params{"n": 1, "v": 1.5, "when": "2024-01-02", "who": "Ada", "ok": true, "any": 1, "list": []any{1}, "nil": nil},
	params{"n": 2, "v": 2, "when": "2023-12-31", "who": "Bob", "ok": false, "any": "x", "list": []any{}, "nil": nil},
	params{"n": 3, "v": nil, "when": nil, "who": "Ada", "ok": true, "any": nil, "list": nil, "nil": nil},
	params{"n": 4, "v": 2.5, "when": "2024-06-01T10:00", "who": "ünï", "ok": nil, "any": true, "list": []any{1}},
	params{"n": 100, "v": 2.0, "when": "2024-01-02", "who": "Ada", "ok": true, "any": 1, "list": []any{1}, "nil": nil},
}

func profileTest(t *testing.T, p params) (profile any, columns map[string]any) {
	t.Helper()
	env, _ := testEnv(t)
	v, err := run(t, Config{}, env, "profile_data", p)
	if err != nil {
		t.Fatal(err)
	}
	profile = field(t, v, "profile")
	columns = map[string]any{}
	for _, c := range field(t, profile, "columns").([]any) {
		columns[field(t, c, "name").(string)] = c
	}
	return profile, columns
}

func TestBasicProfile(t *testing.T) {
	profile, columns := profileTest(t, params{"data": append(orders[:5:5], orders[0]), "profile_depth": "Basic"})
	same(t, columns["n"], params{"name": "n", "type": "integer", "count": 6, "nulls": 0, "distinct": 5, "min": 1, "max": 100, "mean": 18.5})
	same(t, columns["v"], params{"name": "v", "type": "number", "count": 5, "nulls": 1, "distinct": 3, "min": 1.5, "max": 2.5, "mean": 1.9})
	same(t, columns["when"], params{"name": "when", "type": "date", "count": 5, "nulls": 1, "distinct": 3, "min": "2023-12-31", "max": "2024-06-01T10:00", "mean": nil})
	for column, kind := range map[string]string{"who": "text", "ok": "boolean", "any": "mixed", "list": "list", "nil": "empty"} {
		same(t, field(t, columns[column], "type"), kind)
	}
	same(t, field(t, profile, "rows"), 6)
	same(t, field(t, profile, "duplicates"), 1)
	same(t, field(t, profile, "column_count"), 8)
	same(t, field(t, profile, "depth"), "basic")
}

func TestStandardProfile(t *testing.T) {
	_, columns := profileTest(t, params{"data": orders})
	same(t, columns["n"], params{
		"name": "n", "type": "integer", "count": 5, "nulls": 0, "distinct": 5, "min": 1, "max": 100, "mean": 22.0, "stddev": math.Sqrt(1902.5),
		"quantiles": params{"p05": 1.2, "p25": 2.0, "p50": 3.0, "p75": 4.0, "p95": 80.79999999999998},
		"top": []any{
			params{"value": 1, "count": 1},
			params{"value": 2, "count": 1},
			params{"value": 3, "count": 1},
			params{"value": 4, "count": 1},
			params{"value": 100, "count": 1},
		},
		"anomalies": params{"count": 1, "methods": []any{"iqr"}, "low": -1.0, "high": 7.0, "rows": []any{params{"row": 4, "value": 100}}},
	})
	same(t, columns["who"], params{
		"name": "who", "type": "text", "count": 5, "nulls": 0, "distinct": 3, "min": "Ada", "max": "ünï", "mean": nil, "min_length": 3, "max_length": 3,
		"top": []any{params{"value": "Ada", "count": 3}, params{"value": "Bob", "count": 1}, params{"value": "ünï", "count": 1}},
	})
	same(t, field(t, columns["any"], "kinds"), params{"integer": 2, "text": 1, "boolean": 1})
}

func TestComprehensiveProfile(t *testing.T) {
	rows := []any{params{"a": 1, "b": -2, "c": 5}, params{"a": 2, "b": -4, "c": 5}, params{"a": 6, "b": -12, "c": 5}, params{"a": nil, "b": 7, "c": 5}}
	profile, columns := profileTest(t, params{"data": rows, "profile_depth": "comprehensive", "anomaly_detection": "z-score"})
	same(t, field(t, profile, "correlations"), []any{
		params{"columns": []any{"a", "b"}, "r": -1.0, "n": 3}, params{"columns": []any{"a", "c"}, "r": nil, "n": 3}, params{"columns": []any{"b", "c"}, "r": nil, "n": 4},
	})
	near(t, "skewness", toFloat(field(t, columns["a"], "skewness")), 0.595170064139495) // of 1, 2, 6, by SciPy
	near(t, "kurtosis", toFloat(field(t, columns["a"], "kurtosis")), -1.5)
	same(t, field(t, columns["c"], "skewness"), nil)
	same(t, field(t, field(t, columns["a"], "anomalies"), "methods"), []any{"zscore"})
	same(t, field(t, field(t, columns["c"], "anomalies"), "count"), 0)
}

func TestAnomaliesBeyondThreeDeviations(t *testing.T) {
	rows := []any{}
	for i := range 30 {
		rows = append(rows, params{"v": i % 3})
	}
	rows = append(rows, params{"v": 50})
	for method, want := range map[any]int64{"zscore": 1, "both": 1, "Enable IQR": 1, false: 0, "do not enable": 0, "disabled": 0, true: 1, "Enable based on data": 1} {
		_, columns := profileTest(t, params{"data": rows, "anomaly_detection": method})
		a, _ := field(t, columns["v"], "anomalies").(map[string]any)
		if got := whole(a["count"]); got != want {
			t.Errorf("%v: %d anomalies, want %d: %v", method, got, want, a)
		}
	}
}

func TestProfileRefusals(t *testing.T) {
	env, _ := testEnv(t)
	for text, p := range map[string]params{
		"item 1 is a text": {"data": []any{params{}, "x"}},
		`parameter profile_depth is "abyssal"; it can be basic, standard`: {"data": orders, "profile_depth": "abyssal"},
		`parameter anomaly_detection is "maybe"; it can be true, false`:   {"data": orders, "anomaly_detection": "maybe"},
		`parameter anomaly_detection is 5`:                                {"data": orders, "anomaly_detection": 5},
	} {
		_, err := run(t, Config{}, env, "profile_data", p)
		failed(t, err, pipeline.CategoryValidation, text)
	}
	if _, err := run(t, Config{}, env, "profile_data", params{"data": []any{}}); err != nil {
		t.Errorf("no rows: %v", err)
	}
}

func TestDatesAreRecognized(t *testing.T) {
	for s, want := range map[string]bool{
		"2024-05-31": true, "2024-05-31T08:30": true, "2024-05-31 08:30:59.5": true, "2024-05-31T08:30:00Z": true, "2024-05-31T08:30:00+02:00": true,
		"2024/05/31": true, "2024-02-30": false, "31.05.2024": false, "05/31/2024": false, "2024": false, "": false, "20240531": false, "2024-05-31 noon": false,
	} {
		if _, got := parseDate(s); got != want {
			t.Errorf("%q: %v", s, got)
		}
	}
}
