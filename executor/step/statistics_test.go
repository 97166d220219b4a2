package step

import (
	"maps"
	"math"
	"os"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/orchestrator-project/orchestrator/pipeline"
)

// near compares with a reference to a relative 1e-9; the references here are
// SciPy 1.10's, or published.
func near(t *testing.T, what string, got, want float64) {
	t.Helper()
	if math.IsNaN(want) != math.IsNaN(got) || math.Abs(got-want) > 1e-9*math.Abs(want) {
		t.Errorf("%s: got %.15g, want %.15g", what, got, want)
	}
}

func TestDistributions(t *testing.T) {
	nan := math.NaN()
	for _, c := range []struct {
		what      string
		got, want float64
	}{
		{"t 2.5, 7", studentP(2.5, 7), 0.040992218585752874},
		{"t -2.5, 7", studentP(-2.5, 7), 0.040992218585752874},
		{"t 40, 10", studentP(40, 10), 2.2808577430857475e-12},
		{"t 0, 3", studentP(0, 3), 1},
		{"t, no df", studentP(1, 0), nan},
		{"F 3.2, 2, 20", fisherP(3.2, 2, 20), 0.06226739368858501},
		{"F 250, 3, 100", fisherP(250, 3, 100), 2.5563317296916174e-46},
		{"F -1", fisherP(-1, 3, 100), nan},
		{"chi2 3.84, 1", chiSquareP(3.84, 1), 0.05004352124870519},
		{"chi2 200, 5", chiSquareP(200, 5), 2.8406228986415534e-41},
		{"chi2 NaN", chiSquareP(nan, 5), nan},
		{"quantile 0.95, 5", studentQuantile(0.95, 5), 2.5705818366147395},
		{"quantile 0.99, 149", studentQuantile(0.99, 149), 2.6092279073321927},
		{"quantile 0.95, 1", studentQuantile(0.95, 1), 12.706204736432095},
		{"quantile 0.5, 1000", studentQuantile(0.5, 1000), 0.6747351646070092},
		{"quantile 1", studentQuantile(1, 5), nan},
	} {
		near(t, c.what, c.got, c.want)
	}
}

// F. J. Anscombe, Graphs in statistical analysis, 1973: four sets with equal
// figures. The last digits are SciPy's.
func TestAnscombe(t *testing.T) {
	x := []float64{10, 8, 13, 9, 11, 14, 6, 4, 12, 7, 5}
	for i, c := range []struct {
		x, y []float64
		r, p float64
	}{
		{x, []float64{8.04, 6.95, 7.58, 8.81, 8.33, 9.96, 7.24, 4.26, 10.84, 4.82, 5.68}, 0.81642051634484, 0.002169628873078783},
		{x, []float64{9.14, 8.14, 8.74, 8.77, 9.26, 8.10, 6.13, 3.10, 9.13, 7.26, 4.74}, 0.8162365060002427, 0.0021788162369108114},
		{x, []float64{7.46, 6.77, 12.74, 7.11, 7.81, 8.84, 6.08, 5.39, 8.15, 6.42, 5.73}, 0.8162867394895982, 0.0021763052792280213},
		{[]float64{8, 8, 8, 8, 8, 8, 8, 19, 8, 8, 8}, []float64{6.58, 5.76, 7.71, 8.84, 8.47, 7.04, 5.25, 12.5, 5.56, 7.91, 6.89}, 0.8165214368885029, 0.002164602347197214},
	} {
		r := pearson(c.x, c.y)
		near(t, "r", r, c.r)
		near(t, "p", correlationP(r, 11), c.p)
		if m := average(c.y); math.Round(m*100) != 750 {
			t.Errorf("set %d: mean %v", i, m)
		}
		if v := spread(c.x); v != 11 {
			t.Errorf("set %d: variance %v", i, v)
		}
	}
}

func TestMomentsOfDifficultNumbers(t *testing.T) {
	nan := math.NaN()
	near(t, "far from 0", spread([]float64{1e9 + 4, 1e9 + 7, 1e9 + 13, 1e9 + 16}), 30)
	near(t, "large", pearson([]float64{1e200, 2e200, 4e200}, []float64{1, 2, 4}), 1)
	near(t, "falls", pearson([]float64{1, 2, 3}, []float64{3, 2, 1}), -1)
	near(t, "constant", pearson([]float64{0.1, 0.1, 0.1}, []float64{3, 2, 1}), nan)
	near(t, "one", pearson([]float64{1}, []float64{1}), nan)
	near(t, "none", average(nil), nan)
	near(t, "spread of one", spread([]float64{5}), nan)
	near(t, "sure", correlationP(1, 5), 0)
	near(t, "two", correlationP(0.5, 2), nan)
	near(t, "quantile of none", quantile(nil, 0.5), nan)
	near(t, "quantile", quantile([]float64{1, 2, 3, 4}, 0.25), 1.75)
	if got := ranks([]float64{3, 1, 3, 2, 1}); !slices.Equal(got, []float64{4.5, 1.5, 4.5, 3, 1.5}) {
		t.Errorf("ranks %v", got)
	}
	f, lowest := chiSquare([][]float64{{10, 20, 30}, {6, 9, 17}})
	near(t, "chi-square", f.statistic, 0.27157465150403504)
	near(t, "its p", f.p, 0.873028283380073)
	near(t, "lowest", lowest, 32*16.0/92)
	f, _ = chiSquare([][]float64{{12, 5}, {3, 11}})
	near(t, "2 x 2", f.statistic, 7.429254201680671)
	near(t, "its p", f.p, 0.006417193222052674)
	near(t, "phi", f.effect, math.Sqrt(7.429254201680671/31))
	f, _ = chiSquare([][]float64{{0, 0}, {3, 11}})
	near(t, "empty row", f.p, nan)
	f, _ = chiSquare([][]float64{{1, 2}})
	near(t, "one row", f.p, nan)
	near(t, "equal groups", welch([]float64{1, 1}, []float64{2, 2}).p, nan)
	near(t, "equal groups", anova([][]float64{{1, 1}, {2, 2}, {3, 3}}).p, nan)
	near(t, "constant", jarqueBera([]float64{1, 1, 1}).p, nan)
}

func TestCorrelationIsSymmetricAndBounded(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(0, 20).Draw(t, "n")
		x := rapid.SliceOfN(rapid.Float64(), n, n).Draw(t, "x")
		y := rapid.SliceOfN(rapid.Float64(), n, n).Draw(t, "y")
		a, b := pearson(x, y), pearson(y, x)
		if math.IsNaN(a) != math.IsNaN(b) || math.Abs(a-b) > 1e-12 || math.Abs(a) > 1 {
			t.Fatalf("%v and %v", a, b)
		}
		if p := correlationP(a, n); p < 0 || p > 1+1e-12 {
			t.Fatalf("p = %v", p)
		}
		sum := 0.0
		for _, r := range ranks(x) {
			sum += r
		}
		if sum != float64(n*(n+1))/2 {
			t.Fatalf("ranks of %v sum to %v", x, sum)
		}
	})
}

func iris(t *testing.T) []any {
	t.Helper()
	b, err := os.ReadFile("../../examples/data/iris.csv")
	if err != nil {
		t.Skip("the examples are not here") // as in a copy of this package alone
	}
	env, _ := testEnv(t)
	v, err := run(t, Config{}, env, "load_data", params{"source": string(b)})
	if err != nil {
		t.Fatal(err)
	}
	return field(t, v, "data").([]any)
}

// analyze runs the action and indexes its tests by name and columns.
func analyze(t *testing.T, p params) (v any, tests map[string]map[string]any) {
	t.Helper()
	env, _ := testEnv(t)
	v, err := run(t, Config{}, env, "analyze_statistics", p)
	if err != nil {
		t.Fatal(err)
	}
	tests = map[string]map[string]any{}
	for _, e := range field(t, v, "tests").([]any) {
		m := e.(map[string]any)
		names := []string{}
		for _, c := range m["columns"].([]any) {
			names = append(names, c.(string))
		}
		tests[m["test"].(string)+" "+strings.Join(names, " ")] = m
	}
	return v, tests
}

func TestStatisticsOfIris(t *testing.T) {
	data := iris(t)
	v, tests := analyze(t, params{"data": data})
	for name, want := range map[string]struct{ statistic, p, effect float64 }{
		"pearson petal_length petal_width":  {0.962865431402796, 4.675003907328653e-86, 0.962865431402796},
		"pearson sepal_length sepal_width":  {-0.11756978413300206, 0.15189826071144746, -0.11756978413300206},
		"spearman sepal_length sepal_width": {-0.166777658283235, 0.04136799424884587, -0.166777658283235},
		"spearman petal_length petal_width": {0.9376668235763412, 8.156596854126675e-70, 0.9376668235763412},
		"anova sepal_length species":        {119.26450218450468, 1.6696691907693826e-31, 0.618705730738631},
		"anova petal_length species":        {1180.161182252981, 2.8567766109615584e-91, 0.941371719057057},
		"normality petal_length":            {14.023339235201131, 0.0009013025009319217, -0.272127666456721},
		"normality sepal_width":             {2.6974243080415983, 0.25957433724664136, 0.31576710633893473},
	} {
		m := tests[name]
		if m == nil {
			t.Errorf("%s was not made", name)
			continue
		}
		near(t, name, toFloat(m["statistic"]), want.statistic)
		near(t, name+", p", toFloat(m["p_value"]), want.p)
		if math.Abs(toFloat(m["effect"])-want.effect) > 1e-3 {
			t.Errorf("%s: effect %v, want %v", name, m["effect"], want.effect)
		}
		if m["significant"] != (want.p < 0.05) || m["n"] != int64(150) {
			t.Errorf("%s: %v", name, m)
		}
	}
	if len(tests) != 6+6+4+4 {
		t.Errorf("%d tests", len(tests))
	}
	figures := field(t, field(t, v, "statistics"), "sepal_length")
	near(t, "ci_low", toFloat(field(t, figures, "ci_low")), 5.709732481507366)
	near(t, "ci_high", toFloat(field(t, figures, "ci_high")), 5.976934185159301)
	near(t, "median", toFloat(field(t, figures, "median")), 5.8)
	first := field(t, v, "insights").([]any)[0]
	same(t, field(t, first, "text"), "petal_length differs by species: its mean is 5.552 for virginica and 1.462 for setosa; one-way analysis of variance F = 1180.16, p < 0.001")
	same(t, field(t, first, "kind"), "difference")

	v, tests = analyze(t, params{"data": data[:100], "tests": "Welch's t-test", "confidence_level": "99%"})
	m := tests["t_test sepal_length species"]
	near(t, "t", toFloat(m["statistic"]), -10.52098626754911)
	near(t, "p", toFloat(m["p_value"]), 3.746742613983842e-17)
	near(t, "df", toFloat(m["df"].([]any)[0]), 86.53800179765497)
	near(t, "d", toFloat(m["effect"]), -2.104197253509822)
	same(t, m["groups"], []any{params{"value": "setosa", "n": 50, "mean": 5.006}, params{"value": "versicolor", "n": 50, "mean": 5.936}})
	if len(tests) != 4 {
		t.Errorf("%d tests", len(tests))
	}
	same(t, field(t, v, "ignored"), []any{})
	v, _ = analyze(t, params{"data": data, "confidence_level": 0.99})
	near(t, "ci_low", toFloat(field(t, field(t, field(t, v, "statistics"), "sepal_length"), "ci_low")), 5.666920000180822)
}

func TestGroupsAndAssociation(t *testing.T) {
	rows := []any{}
	for a, counts := range map[string][]int{"x": {12, 5}, "y": {3, 11}} {
		for b, n := range counts {
			for range n {
				rows = append(rows, params{"a": a, "b": b == 1, "one": "same"})
			}
		}
	}
	rows = append(rows, params{"a": "alone", "b": true}, params{"a": nil, "b": true})
	v, tests := analyze(t, params{"data": rows})
	m := tests["chi_square a b"]
	near(t, "chi-square", toFloat(m["statistic"]), 7.429254201680671)
	same(t, m["small_counts"], false)
	same(t, m["n"], 31)
	insights := field(t, v, "insights").([]any)
	kinds := []string{}
	for _, e := range insights {
		kinds = append(kinds, field(t, e, "kind").(string)+": "+field(t, e, "text").(string))
	}
	if got, want := strings.Join(kinds, "\n"), `association: a and b are not independent: Cramér's V = 0.490, chi-square = 7.43, p = 0.006
missing: one is missing in 2 of 33 rows (6.1%)
missing: a is missing in 1 of 33 rows (3.0%)
duplicates: rows that are equal to an earlier one: 27
constant: one has the same value in all rows that have one`; got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestInsightsOfShapeAndDirection(t *testing.T) {
	rows := []any{}
	for i := range 12 {
		rows = append(rows, params{"up": i, "down": -2 * i, "skew": []any{1, 2, 3, 2, 1, 2, 3, 1, 2, 3, 1, 1000}[i]})
	}
	v, _ := analyze(t, params{"data": rows, "tests": []any{"correlation", "Shapiro"}})
	texts := []string{}
	for _, e := range field(t, v, "insights").([]any) {
		texts = append(texts, field(t, e, "text").(string))
	}
	want := []string{
		"down falls as up rises: Pearson's correlation r = -1.000, p < 0.001, n = 12",
		"skew is skewed to the right: a few values are much larger than the rest (skewness 3.02)",
		"skew has 1 unusual value among 12",
	}
	for _, w := range want {
		if !slices.Contains(texts, w) {
			t.Errorf("no insight %q in %q", w, texts)
		}
	}
	same(t, field(t, v, "ignored"), []any{"shapiro"})
}

func TestTestsAreNamedAsPeopleDo(t *testing.T) {
	for _, c := range []struct {
		in      any
		want    string
		ignored string
	}{
		{nil, "anova chi_square normality pearson spearman t_test", ""},
		{"all", "anova chi_square normality pearson spearman t_test", ""},
		{"Pearson correlation, ANOVA and Chi-square test", "anova chi_square pearson", ""},
		{"correlation", "pearson spearman", ""},
		{"Spearman rank correlation; normality (Jarque-Bera)\nMann-Whitney", "normality spearman", "mann_whitney"},
		{[]any{"ttest", "chi2", "wilcoxon"}, "chi_square t_test", "wilcoxon"},
	} {
		got, ignored, err := AnalyzeStatistics{Tests: c.in}.chosen()
		if err != nil || strings.Join(slices.Sorted(maps.Keys(got)), " ") != c.want || strings.Join(ignored, " ") != c.ignored {
			t.Errorf("%v: got %v, ignored %q, %v", c.in, got, ignored, err)
		}
	}
}

func TestStatisticsRefusals(t *testing.T) {
	env, _ := testEnv(t)
	rows := []any{params{"a": 1}}
	for text, p := range map[string]params{
		"item 0 is a number":                           {"data": []any{1}},
		"parameter tests names none of pearson":        {"tests": "magic"},
		"parameter tests is a list of texts; it holds": {"tests": []any{1}},
		"parameter tests is a list or a text":          {"tests": params{}},
		"parameter confidence_level is 0.1":            {"confidence_level": 0.1},
		"parameter confidence_level is 100":            {"confidence_level": 100},
		`parameter confidence_level is "high"`:         {"confidence_level": "high"},
		"confidence_level is null":                     {"confidence_level": []any{}},
		"parameter profile is no profile: it has":      {"profile": params{"a": 1}},
		"columns[0] has no name and type":              {"profile": params{"columns": []any{1}}},
	} {
		if p["data"] == nil {
			p["data"] = rows
		}
		_, err := run(t, Config{}, env, "analyze_statistics", p)
		failed(t, err, pipeline.CategoryValidation, strings.Replace(text, "is null", "is []", 1))
	}
}

// FuzzStatistics gives tables with values of every kind to everything that
// computes on them.
func FuzzStatistics(f *testing.F) {
	for _, s := range []string{
		`[{"a":1,"b":"x"},{"a":2,"b":"y"},{"a":1e308,"b":null}]`, `[{"a":-1e308,"b":1e308},{"a":1e308,"b":-1e308},{"a":5e-324,"b":0}]`,
		`[{"a":"2024-01-01"},{"a":"9999-12-31T23:59:59Z"}]`, `[{}]`, `[]`, `[{"a":[1]},{"a":{"b":1}},{"a":true},{"":null}]`,
		`[{"a":9223372036854775807,"b":1},{"a":-9223372036854775808,"b":2},{"a":0,"b":3}]`,
	} {
		f.Add(s, "auto")
	}
	f.Fuzz(func(t *testing.T, text, words string) {
		v, err := pipeline.DecodeValue([]byte(text))
		rows, ok := v.([]any)
		if err != nil || !ok || len(text) > 1<<16 {
			return
		}
		env, _ := testEnv(t)
		for key, p := range map[string]params{
			"profile_data":       {"data": rows, "profile_depth": "comprehensive", "anomaly_detection": "both"},
			"analyze_statistics": {"data": rows},
			"prepare_data":       {"input_data": rows, "preprocessing": words, "feature_engineering": "log, one_hot, label_encode, date_parts"},
			"data.join":          {"left": rows, "right": rows, "on": "a"},
			"data.convert":       {"source": rows, "to": "parquet"},
			"validate":           {"data": rows, "schema": params{"type": "list"}},
		} {
			r, err := find(t, Config{}, key).Bind(p)
			if err != nil {
				t.Fatal(err)
			}
			out, err := r.Run(t.Context(), env)
			if err == nil && strings.Contains(string(pipeline.EncodeValue(out.Value)), "NaN") && !strings.Contains(text+words, "NaN") {
				t.Errorf("%s gives NaN", key)
			}
		}
	})
}
