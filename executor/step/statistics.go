package step

import (
	"context"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/orchestrator-project/orchestrator/executor"
	"github.com/orchestrator-project/orchestrator/pipeline"
)

const statisticsDoc = `Computes statistics over a table, tests hypotheses and says what stands out.

    - id: facts
      action: analyze_statistics
      parameters: {data: "{{ weather.data }}", tests: [pearson, anova], confidence_level: 0.99}

statistics maps each number column to count, mean, stddev, stderr, ci_low and ci_high (the confidence interval of the mean, by Student's t), min, median, max, skewness and kurtosis.

tests, in the result, has one map for each test that was made: test, method, columns, n, statistic, df (a list), p_value, effect, significant (p_value below 1 - confidence_level), and groups of the tests that compare groups: value, n and mean of each. The tests, and what effect is:
- pearson: linear correlation of two number columns; r
- spearman: correlation of their ranks; rho
- t_test: whether the means of the two groups that a column makes differ, in Welch's form; Cohen's d
- anova: whether the means of three or more groups differ, one way; eta squared
- chi_square: whether two columns of groups are independent, without a correction for continuity; Cramér's V. small_counts is true where an expected count is below 5, and the probability rough
- normality: the Jarque-Bera test; skewness. Its probability is rough for fewer than some 200 rows

parameter tests is a list or a text with commas, default all; words that name no test are listed in ignored. Groups are made by columns of texts or booleans, and by integers with at most 10 different values, that have 2 to 20 values; groups of one row are left out. Rows with null in one of the columns are left out. The first 20 number columns and the first 10 columns of groups are tested. The probabilities are two-sided and not corrected for the number of tests.

insights has maps {kind, columns, text, value, p_value}, the strongest first, at most 50: correlation, difference and association (of significant tests), then distribution (skewness of 1 and more), outliers, missing, duplicates and constant. profile, from profile_data, saves work; what it lacks is computed.`

const (
	maxTestedNumbers = 20
	maxTestedGroups  = 10
	maxGroups        = 20
	maxGroupIntegers = 10
	maxInsights      = 50
)

// AnalyzeStatistics is a table with what to test.
type AnalyzeStatistics struct {
	Data            []any          `param:"required" doc:"the rows, a list of maps"`
	Profile         map[string]any `doc:"what profile_data gave for the same rows"`
	Tests           any            `doc:"of pearson, spearman, t_test, anova, chi_square, normality: a list or a text; default: all"`
	ConfidenceLevel any            `type:"number" doc:"above 0 and below 1, or in percent; default 0.95"`
}

type statisticsResult struct {
	Insights   []any          `doc:"what stands out: maps of kind, columns, text, value, p_value"`
	Statistics map[string]any `doc:"for each number column its figures"`
	Tests      []any          `doc:"the tests with their results"`
	Ignored    []string       `doc:"words of the parameter tests that name none"`
}

func analyzeStatisticsAction() executor.Action {
	return executor.NewAction[AnalyzeStatistics](executor.Describe{
		Name: "analyze_statistics", Doc: statisticsDoc, Effect: pipeline.EffectPure, Returns: statisticsResult{},
	})
}

var testNames = []string{"pearson", "spearman", "t_test", "anova", "chi_square", "normality"}

// testWords are parts of words by which people name the tests.
var testWords = []struct{ part, test string }{
	{"pearson_correlation", "pearson"},
	{"spearman_rank_correlation", "spearman"},
	{"spearman_correlation", "spearman"},
	{"pearson", "pearson"},
	{"spearman", "spearman"},
	{"correlation", "pearson spearman"},
	{"anova", "anova"},
	{"analysis_of_variance", "anova"},
	{"t_test", "t_test"},
	{"ttest", "t_test"},
	{"welch", "t_test"},
	{"chi_square", "chi_square"},
	{"chi2", "chi_square"},
	{"chisq", "chi_square"},
	{"normality", "normality"},
	{"jarque", "normality"},
}

func (a AnalyzeStatistics) chosen() (tests map[string]bool, ignored []string, err error) {
	words, err := wordList("tests", a.Tests)
	if err != nil {
		return nil, nil, err
	}
	tests, ignored = map[string]bool{}, []string{}
	for _, w := range words {
		found := w == "all" || w == "auto" || w == "default"
		if found {
			for _, t := range testNames {
				tests[t] = true
			}
		}
		for _, known := range testWords {
			if !found && strings.Contains(w, known.part) {
				found = true
				for t := range strings.FieldsSeq(known.test) {
					tests[t] = true
				}
			}
		}
		if !found {
			ignored = append(ignored, w)
		}
	}
	switch {
	case len(words) == 0:
		for _, t := range testNames {
			tests[t] = true
		}
	case len(tests) == 0:
		return nil, nil, invalid("parameter tests names none of %s", strings.Join(testNames, ", "))
	}
	return tests, ignored, nil
}

// wordList reads a list of words, or a text with commas, semicolons or lines.
func wordList(param string, v any) ([]string, error) {
	var words []string
	switch v := v.(type) {
	case nil:
	case string:
		for part := range strings.FieldsFuncSeq(v, func(r rune) bool { return r == ',' || r == ';' || r == '\n' }) {
			for piece := range strings.SplitSeq(part, " and ") {
				w := strings.Trim(strings.TrimPrefix(strings.Trim(word(piece), "_.*[]"), "and_"), "_")
				if w != "" {
					words = append(words, head(w, 80))
				}
			}
		}
	case []any:
		for _, e := range v {
			s, ok := e.(string)
			if !ok {
				return nil, invalid("parameter %s is a list of texts; it holds %s", param, kindOf(e))
			}
			if w := word(s); w != "" {
				words = append(words, head(w, 80))
			}
		}
	default:
		return nil, invalid("parameter %s is a list or a text, not %s", param, kindOf(v))
	}
	if len(words) > 1000 {
		return nil, invalid("parameter %s holds more than 1000 words", param)
	}
	return words, nil
}

// confidenceLevel reads 0.95, 95 and "95%".
func confidenceLevel(v any) (float64, error) {
	level := math.NaN()
	switch v := v.(type) {
	case nil:
		return 0.95, nil
	case int64, float64:
		level = toFloat(v)
	case string:
		digits := strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(v), "%"))
		if f, err := strconv.ParseFloat(digits, 64); err == nil {
			level = f
		}
	}
	if level > 1 {
		level /= 100
	}
	if !(level >= 0.5 && level < 1) {
		return 0, invalid("parameter confidence_level is %s; it can be 0.5 to below 1, as 0.95, or in percent", head(string(pipeline.EncodeValue(v)), 80))
	}
	return level, nil
}

// analysis is the work on one table.
type analysis struct {
	rows    []map[string]any
	numbers []string // the first number columns
	groups  []grouping
	level   float64
	tests   []any
	found   []insight
}

// grouping is a column that puts the rows into groups.
type grouping struct {
	column string
	values []any       // of the groups, in order
	of     map[int]int // row -> group; rows with null have none
}

// Run computes figures, then tests, then what they say.
func (a AnalyzeStatistics) Run(ctx context.Context, _ executor.Env) (executor.Output, error) {
	rows, err := table("data", a.Data)
	if err != nil {
		return executor.Output{}, err
	}
	chosen, ignored, err := a.chosen()
	if err != nil {
		return executor.Output{}, err
	}
	level, err := confidenceLevel(a.ConfidenceLevel)
	if err != nil {
		return executor.Output{}, err
	}
	profile := a.Profile
	if profile == nil {
		if profile, err = profileOf(ctx, rows, depthStandard, []string{"iqr"}); err != nil {
			return executor.Output{}, err
		}
	}
	facts, err := readProfile("profile", profile)
	if err != nil {
		return executor.Output{}, err
	}
	w := &analysis{rows: rows, level: level, tests: []any{}}
	statistics := w.describe(ctx)
	for _, t := range []struct {
		names []string
		run   func(context.Context, map[string]bool)
	}{{[]string{"pearson", "spearman"}, w.correlate}, {[]string{"t_test", "anova"}, w.compare}, {[]string{"chi_square"}, w.associate}, {[]string{"normality"}, w.normality}} {
		if slices.ContainsFunc(t.names, func(n string) bool { return chosen[n] }) {
			t.run(ctx, chosen)
		}
	}
	if ctx.Err() != nil {
		return executor.Output{}, ended(ctx)
	}
	w.notice(facts, statistics)
	return bounded("the result", map[string]any{
		"insights": w.insights(), "statistics": statistics, "tests": w.tests, "ignored": anyList(ignored),
	})
}

// describe computes the figures of the number columns and picks the columns to
// test.
func (w *analysis) describe(ctx context.Context) map[string]any {
	statistics := map[string]any{}
	for _, name := range columnsOf(w.rows) {
		if ctx.Err() != nil {
			break
		}
		kind := kindOfColumn(w.rows, name)
		if kind == kindText || kind == kindBoolean || kind == kindInteger {
			w.group(name, kind)
		}
		if !numeric(kind) {
			continue
		}
		if len(w.numbers) < maxTestedNumbers {
			w.numbers = append(w.numbers, name)
		}
		order := floats(present(w.rows, name))
		slices.Sort(order)
		m, n := average(order), float64(len(order))
		deviation := math.Sqrt(spread(order))
		half := studentQuantile(w.level, n-1) * deviation / math.Sqrt(n)
		skew, kurtosis := shape(order)
		statistics[name] = map[string]any{
			"count": int64(len(order)), "mean": finite(m), "stddev": finite(deviation), "stderr": finite(deviation / math.Sqrt(n)),
			"ci_low": finite(m - half), "ci_high": finite(m + half), "min": order[0], "median": finite(quantile(order, 0.5)),
			"max": order[len(order)-1], "skewness": finite(skew), "kurtosis": finite(kurtosis),
		}
	}
	return statistics
}

// group makes groups of a column where it has few enough values.
func (w *analysis) group(name, kind string) {
	if len(w.groups) >= maxTestedGroups {
		return
	}
	most := maxGroups
	if kind == kindInteger {
		most = maxGroupIntegers
	}
	g := grouping{column: name, of: map[int]int{}}
	at := map[string]int{}
	for _, t := range sortedTallies(present(w.rows, name), most) {
		if t.count > 1 {
			at[identity(t.value)] = len(g.values)
			g.values = append(g.values, t.value)
		}
	}
	if len(g.values) < 2 {
		return
	}
	for i, r := range w.rows {
		if k, ok := at[identity(r[name])]; ok && r[name] != nil {
			g.of[i] = k
		}
	}
	w.groups = append(w.groups, g)
}

// sortedTallies are the different values in their order, or none where there are
// more than most.
func sortedTallies(values []any, most int) []tally {
	seen := map[string]bool{}
	for _, v := range values {
		if seen[identity(v)] = true; len(seen) > most {
			return nil
		}
	}
	list := tallies(values)
	slices.SortFunc(list, func(a, b tally) int { return compareAny(a.value, b.value) })
	return list
}

// record keeps a test, and says whether it is significant.
func (w *analysis) record(test, method string, columns []string, f testResult, more map[string]any) bool {
	df := []any{}
	for _, d := range f.df {
		df = append(df, finite(d))
	}
	significant := f.p < 1-w.level
	m := map[string]any{
		"test": test, "method": method, "columns": anyList(columns), "n": int64(f.n), "statistic": finite(f.statistic),
		"df": df, "p_value": finite(f.p), "effect": finite(f.effect), "significant": significant,
	}
	maps.Copy(m, more)
	w.tests = append(w.tests, m)
	return significant
}

func (w *analysis) correlate(ctx context.Context, chosen map[string]bool) {
	for i, a := range w.numbers {
		for _, b := range w.numbers[i+1:] {
			if ctx.Err() != nil {
				return
			}
			x, y := pairsOf(w.rows, a, b)
			if len(x) < 3 {
				continue
			}
			told := false
			for _, test := range []string{"pearson", "spearman"} {
				if !chosen[test] {
					continue
				}
				method, letter := "Pearson's correlation", "r"
				if test == "spearman" {
					method, letter = "Spearman's rank correlation", "rho"
					x, y = ranks(x), ranks(y)
				}
				r := pearson(x, y)
				if math.IsNaN(r) {
					continue
				}
				f := testResult{statistic: r, effect: r, p: correlationP(r, len(x)), df: []float64{float64(len(x) - 2)}, n: len(x)}
				if !w.record(test, method, []string{a, b}, f, nil) || told || math.Abs(r) < 0.3 {
					continue
				}
				told = true
				way := "rises with"
				if r < 0 {
					way = "falls as"
				}
				end := ""
				if r < 0 {
					end = " rises"
				}
				w.found = append(w.found, insight{
					kind: "correlation", columns: []string{a, b}, value: r, p: f.p, strength: math.Abs(r),
					text: fmt.Sprintf("%s %s %s%s: %s %s = %.3f, %s, n = %d", a, way, b, end, method, letter, r, probability(f.p), f.n),
				})
			}
		}
	}
}

func (w *analysis) compare(ctx context.Context, chosen map[string]bool) {
	for _, g := range w.groups {
		for _, number := range w.numbers {
			if ctx.Err() != nil {
				return
			}
			if number != g.column {
				w.compareGroups(chosen, g, number)
			}
		}
	}
}

func (w *analysis) compareGroups(chosen map[string]bool, g grouping, number string) {
	all := make([][]float64, len(g.values))
	for i, r := range w.rows {
		if k, ok := g.of[i]; ok && r[number] != nil {
			all[k] = append(all[k], toFloat(r[number]))
		}
	}
	var groups [][]float64
	shown := []any{}
	var low, high any
	least, most := math.Inf(1), math.Inf(-1)
	for k, x := range all {
		if len(x) < 2 {
			continue
		}
		groups = append(groups, x)
		m := average(x)
		shown = append(shown, map[string]any{"value": shortText(g.values[k]), "n": int64(len(x)), "mean": finite(m)})
		if m < least {
			least, low = m, g.values[k]
		}
		if m > most {
			most, high = m, g.values[k]
		}
	}
	test, method, letter := "t_test", "Welch's t-test", "t"
	if len(groups) > 2 {
		test, method, letter = "anova", "one-way analysis of variance", "F"
	}
	if len(groups) < 2 || !chosen[test] {
		return
	}
	var f testResult
	if test == "t_test" {
		f = welch(groups[0], groups[1])
	} else {
		f = anova(groups)
	}
	if math.IsNaN(f.p) || !w.record(test, method, []string{number, g.column}, f, map[string]any{"groups": shown}) {
		return
	}
	strength := f.effect // eta squared is a share; d of 2 counts as a strong 0.5
	if test == "t_test" {
		strength = f.effect * f.effect / (f.effect*f.effect + 4)
	}
	w.found = append(w.found, insight{
		kind: "difference", columns: []string{number, g.column}, value: f.effect, p: f.p, strength: math.Sqrt(strength),
		text: fmt.Sprintf("%s differs by %s: its mean is %.4g for %s and %.4g for %s; %s %s = %.2f, %s",
			number, g.column, most, shownValue(high), least, shownValue(low), method, letter, f.statistic, probability(f.p)),
	})
}

func (w *analysis) associate(ctx context.Context, _ map[string]bool) {
	for i, a := range w.groups {
		for _, b := range w.groups[i+1:] {
			if ctx.Err() != nil {
				return
			}
			counts := make([][]float64, len(a.values))
			for k := range counts {
				counts[k] = make([]float64, len(b.values))
			}
			for row, k := range a.of {
				if l, ok := b.of[row]; ok {
					counts[k][l]++
				}
			}
			f, lowest := chiSquare(counts)
			if math.IsNaN(f.p) {
				continue
			}
			more := map[string]any{"small_counts": lowest < 5}
			if !w.record("chi_square", "Pearson's chi-square test of independence", []string{a.column, b.column}, f, more) {
				continue
			}
			w.found = append(w.found, insight{
				kind: "association", columns: []string{a.column, b.column}, value: f.effect, p: f.p, strength: f.effect,
				text: fmt.Sprintf("%s and %s are not independent: Cramér's V = %.3f, chi-square = %.2f, %s", a.column, b.column, f.effect, f.statistic, probability(f.p)),
			})
		}
	}
}

func (w *analysis) normality(ctx context.Context, _ map[string]bool) {
	for _, name := range w.numbers {
		if ctx.Err() != nil {
			return
		}
		x := floats(present(w.rows, name))
		if f := jarqueBera(x); len(x) >= 8 && !math.IsNaN(f.p) {
			w.record("normality", "Jarque-Bera test", []string{name}, f, nil)
		}
	}
}
