package step

import (
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/orchestrator-project/orchestrator/pipeline"
)

func prepared(t *testing.T, data []any, clean, features any) any {
	t.Helper()
	env, _ := testEnv(t)
	v, err := run(t, Config{}, env, "prepare_data", params{"input_data": data, "preprocessing": clean, "feature_engineering": features})
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestPrepareSteps(t *testing.T) {
	column := func(values ...any) []any {
		rows := make([]any, len(values))
		for i, v := range values {
			rows[i] = params{"v": v}
		}
		return rows
	}
	for step, c := range map[string]struct {
		in   []any
		want []any
	}{
		"trim":            {column(" a ", "  ", "b", 1), column("a", nil, "b", 1)},
		"drop_duplicates": {column(1, 1.0, "1", 1), column(1, "1")},
		"drop_nulls":      {[]any{params{"a": 1, "b": 1}, params{"a": 1}, params{"a": nil, "b": 2}}, []any{params{"a": 1, "b": 1}}},
		"drop_constant":   {[]any{params{"a": 1, "b": 1, "c": nil}, params{"a": 1, "b": 2}}, []any{params{"b": 1}, params{"b": 2}}},
		"impute":          {[]any{params{"n": 1, "s": "x"}, params{"n": 4, "s": "x"}, params{"n": 9, "s": "y"}, params{}}, []any{params{"n": 1, "s": "x"}, params{"n": 4, "s": "x"}, params{"n": 9, "s": "y"}, params{"n": 4, "s": "x"}}},
		"impute_mean":     {column(1, 2, nil), column(1, 2, 1.5)},
		"impute_zero":     {column(1.5, nil), column(1.5, 0.0)},
		"impute_mode":     {column(3, 3, 1, nil), column(3, 3, 1, 3)},
		"clip_outliers":   {column(1, 2, 3, 4, 100), column(1.0, 2.0, 3.0, 4.0, 7.0)},
		"normalize":       {column(5, nil, 10, 15), column(0.0, nil, 0.5, 1.0)},
		"standardize":     {column(1, 2, 3), column(-1.0, 0.0, 1.0)},
		"label_encode":    {column("b", nil, "a", "b"), column(1, nil, 0, 1)},
		"one_hot":         {column("b", nil, "a"), []any{params{"v=a": 0, "v=b": 1}, params{"v=a": 0, "v=b": 0}, params{"v=a": 1, "v=b": 0}}},
		"log": {column(0, 0, 0, 0, math.E-1), []any{
			params{"v": 0, "v_log": 0.0}, params{"v": 0, "v_log": 0.0}, params{"v": 0, "v_log": 0.0}, params{"v": 0, "v_log": 0.0}, params{"v": math.E - 1, "v_log": 1.0},
		}},
		"date_parts": {column("2024-06-02", nil), []any{
			params{"v": "2024-06-02", "v_year": 2024, "v_month": 6, "v_day": 2, "v_weekday": 7},
			params{"v": nil, "v_year": nil, "v_month": nil, "v_day": nil, "v_weekday": nil},
		}},
	} {
		v := prepared(t, c.in, []any{step}, "none")
		got, want := string(pipeline.EncodeValue(field(t, v, "processed_data"))), string(pipeline.EncodeValue(c.want))
		if got != want {
			t.Errorf("%s: got  %s\nwant %s", step, got, want)
		}
		steps := field(t, v, "steps").([]any)
		if len(steps) != 1 || field(t, steps[0], "step") != step {
			t.Errorf("%s: steps %v", step, steps)
		}
	}
}

func TestPrepareByDefault(t *testing.T) {
	data := []any{
		params{"id": 1, "city": " Rome", "when": "2024-01-01T08:00", "x": 2.5},
		params{"id": 2, "city": "Oslo", "when": "2024-01-02T09:00", "x": nil},
		params{"id": 2, "city": "Oslo ", "when": "2024-01-02T09:00", "x": nil},
	}
	before := string(pipeline.EncodeValue(data))
	v := prepared(t, data, nil, nil)
	same(t, field(t, v, "processed_data"), []any{
		params{"id": 1, "city=Oslo": 0, "city=Rome": 1, "when": "2024-01-01T08:00", "when_year": 2024, "when_month": 1, "when_day": 1, "when_weekday": 1, "when_hour": 8, "x": 2.5},
		params{"id": 2, "city=Oslo": 1, "city=Rome": 0, "when": "2024-01-02T09:00", "when_year": 2024, "when_month": 1, "when_day": 2, "when_weekday": 2, "when_hour": 9, "x": 2.5},
	})
	same(t, field(t, v, "steps"), []any{
		params{"step": "trim", "columns": []any{"city"}, "changed": 2},
		params{"step": "drop_duplicates", "columns": []any{}, "changed": 1},
		params{"step": "impute", "columns": []any{"x"}, "changed": 1},
		params{"step": "date_parts", "columns": []any{"when"}, "changed": 1},
		params{"step": "one_hot", "columns": []any{"city"}, "changed": 1},
	})
	same(t, field(t, v, "features").([]any)[5], params{"name": "city=Oslo", "from": "city", "step": "one_hot"})
	if after := string(pipeline.EncodeValue(data)); after != before {
		t.Errorf("the input was changed: %s", after)
	}
	if got := prepared(t, []any{}, nil, nil); field(t, got, "rows") != int64(0) {
		t.Errorf("no rows: %v", got)
	}
}

func TestPrepareReadsWhatPeopleWrite(t *testing.T) {
	data := []any{params{"a": 1, "s": "x"}, params{"a": 3, "s": "y"}}
	for _, c := range []struct {
		clean, features any
		want            string
		ignored         []any
	}{
		{"Handle missing values, remove duplicates and normalization", "none", "drop_duplicates impute normalize", []any{}},
		{"Standardization; min-max scaling", "One-hot encoding", "one_hot normalize standardize", []any{}},
		{[]any{"imputation", "outlier removal", "PCA"}, "polynomial features, label encoding", "impute clip_outliers label_encode", []any{"pca", "polynomial_features"}},
		{"none", "skip", "", []any{}},
		{"auto", "log transform", "trim drop_duplicates impute log", []any{}},
	} {
		v := prepared(t, data, c.clean, c.features)
		names := []string{}
		for _, s := range field(t, v, "steps").([]any) {
			names = append(names, field(t, s, "step").(string))
		}
		if got := strings.Join(names, " "); got != c.want {
			t.Errorf("%v, %v: got %s, want %s", c.clean, c.features, got, c.want)
		}
		same(t, field(t, v, "ignored"), c.ignored)
	}
}

func TestPrepareRefusals(t *testing.T) {
	env, _ := testEnv(t)
	wide := []any{params{}, params{}}
	for i := range 110 {
		for v := range 20 {
			row := params{}
			if v+1 > len(wide) {
				wide = append(wide, row)
			}
			wide[v].(params)[fmt.Sprintf("c%d", i)] = fmt.Sprintf("v%d", v)
		}
	}
	for text, p := range map[string]params{
		"input_data is a list of maps; item 0":            {"input_data": []any{5}},
		"preprocessing is a list or a text, not a number": {"preprocessing": 5},
		`would make a column "v=a", which is there`:       {"input_data": []any{params{"v": "a", "v=a": 1}, params{"v": "b"}}},
		"makes more than 2000 columns":                    {"input_data": wide},
	} {
		if p["input_data"] == nil {
			p["input_data"] = []any{}
		}
		_, err := run(t, Config{}, env, "prepare_data", p)
		category := pipeline.CategoryValidation
		if strings.Contains(text, "2000") {
			category = pipeline.CategoryFailed
		}
		failed(t, err, category, text)
	}
}
