package step

import (
	"cmp"
	"context"
	"math"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/orchestrator-project/orchestrator/executor"
	"github.com/orchestrator-project/orchestrator/pipeline"
)

const profileDoc = `Describes the columns of a table by figures.

    - id: look
      action: profile_data
      parameters: {data: "{{ weather.data }}", profile_depth: comprehensive}

profile holds rows, column_count, depth, duplicates (rows that are equal to an earlier one), columns and, at the depth comprehensive, correlations (Pearson's r of each pair of number columns, of the first 30).

Each of columns is a map. basic: name, type (integer, number, boolean, date, text, list, map, mixed, empty), count (of values that are not null), nulls, distinct, min, max, mean. standard adds stddev (of a sample), quantiles (p05, p25, p50, p75, p95, linear between the neighbours), top (the five most frequent values, each as value and count) and, of texts, min_length and max_length in characters. comprehensive adds skewness and kurtosis (of the normal distribution both are 0). A figure that does not exist is null.

anomaly_detection says how far a number may lie from the others: iqr (the default; beyond the quartiles by more than 1.5 times the distance between them), zscore (more than 3 standard deviations from the mean), both, or none. anomalies of a column holds count, methods, low and high (what still counts as usual), and rows: the first 20 as row (from 0) and value. basic looks for none unless told to.`

const (
	maxAnomalies   = 20
	maxTop         = 5
	maxCorrelated  = 30
	anomalyFences  = 1.5
	anomalyZ       = 3
	maxProfileText = 200 // bytes of a text in a profile
)

// ProfileData is a table to describe.
type ProfileData struct {
	Data             []any  `param:"required" doc:"the rows, a list of maps"`
	ProfileDepth     string `default:"\"standard\"" doc:"basic, standard or comprehensive"`
	AnomalyDetection any    `doc:"true, false, iqr, zscore, both or none; default: iqr, at the depth basic none"`
}

type profileResult struct {
	Profile map[string]any `doc:"rows, column_count, depth, duplicates, columns, correlations"`
}

func profileDataAction() executor.Action {
	return executor.NewAction[ProfileData](executor.Describe{
		Name: "profile_data", Doc: profileDoc, Effect: pipeline.EffectPure, Returns: profileResult{},
	})
}

// The depths of a profile.
const (
	depthBasic = iota
	depthStandard
	depthComprehensive
)

var depthNames = []string{"basic", "standard", "comprehensive"}

var depthWords = map[string]int{
	"basic": depthBasic, "quick": depthBasic, "minimal": depthBasic, "shallow": depthBasic,
	"": depthStandard, "standard": depthStandard, "normal": depthStandard, "default": depthStandard, "medium": depthStandard,
	"comprehensive": depthComprehensive, "deep": depthComprehensive, "full": depthComprehensive, "detailed": depthComprehensive,
}

// Run describes column by column.
func (p ProfileData) Run(ctx context.Context, _ executor.Env) (executor.Output, error) {
	rows, err := table("data", p.Data)
	if err != nil {
		return executor.Output{}, err
	}
	depth, ok := depthWords[word(p.ProfileDepth)]
	if !ok {
		return executor.Output{}, invalid("parameter profile_depth is %q; it can be %s", head(p.ProfileDepth, 80), strings.Join(depthNames, ", "))
	}
	methods, err := anomalyMethods(p.AnomalyDetection, depth)
	if err != nil {
		return executor.Output{}, err
	}
	profile, err := profileOf(ctx, rows, depth, methods)
	if err != nil {
		return executor.Output{}, err
	}
	return bounded("the profile", map[string]any{"profile": profile})
}

var methodsOf = map[string][]string{
	"true": {"iqr"}, "yes": {"iqr"}, "on": {"iqr"}, "enable": {"iqr"}, "enabled": {"iqr"}, "auto": {"iqr"}, "default": {"iqr"},
	"iqr": {"iqr"}, "zscore": {"zscore"}, "z": {"zscore"}, "both": {"iqr", "zscore"}, "all": {"iqr", "zscore"},
	"false": {}, "no": {}, "off": {}, "none": {}, "disable": {}, "disabled": {}, "not": {}, "skip": {},
}

// anomalyMethods reads a choice that a person or a model wrote. Of several words
// the refusal wins, then what names a method.
func anomalyMethods(v any, depth int) ([]string, error) {
	switch v := v.(type) {
	case nil:
		if depth == depthBasic {
			return nil, nil
		}
		return []string{"iqr"}, nil
	case bool:
		if v {
			return []string{"iqr"}, nil
		}
		return nil, nil
	case string:
		methods, some := []string{}, false
		general := false
		for part := range strings.SplitSeq(word(v), "_") {
			m, known := methodsOf[strings.Trim(part, ".,;:()")]
			some = some || known
			switch {
			case known && len(m) == 0:
				return nil, nil
			case known && (part == "iqr" || part == "z" || part == "zscore" || len(m) > 1):
				methods = append(methods, m...)
			case known:
				general = true
			}
		}
		if !some {
			break
		}
		if general && len(methods) == 0 {
			methods = []string{"iqr"}
		}
		slices.Sort(methods)
		return slices.Compact(methods), nil
	}
	return nil, invalid("parameter anomaly_detection is %s; it can be true, false, iqr, zscore, both, none", head(string(pipeline.EncodeValue(v)), 80))
}

func profileOf(ctx context.Context, rows []map[string]any, depth int, methods []string) (map[string]any, error) {
	names := columnsOf(rows)
	columns := make([]any, len(names))
	var numbers []string
	for i, name := range names {
		if ctx.Err() != nil {
			return nil, ended(ctx)
		}
		kind := kindOfColumn(rows, name)
		if numeric(kind) {
			numbers = append(numbers, name)
		}
		columns[i] = profileColumn(rows, name, kind, depth, methods)
	}
	profile := map[string]any{
		"rows": int64(len(rows)), "column_count": int64(len(names)), "depth": depthNames[depth],
		"duplicates": duplicates(rows), "columns": columns,
	}
	if depth == depthComprehensive {
		pairs := []any{}
		numbers = numbers[:min(len(numbers), maxCorrelated)]
		for i, a := range numbers {
			for _, b := range numbers[i+1:] {
				if ctx.Err() != nil {
					return nil, ended(ctx)
				}
				x, y := pairsOf(rows, a, b)
				pairs = append(pairs, map[string]any{"columns": []any{a, b}, "r": finite(pearson(x, y)), "n": int64(len(x))})
			}
		}
		profile["correlations"] = pairs
	}
	return profile, nil
}

func duplicates(rows []map[string]any) int64 {
	seen := make(map[string]bool, len(rows))
	for _, r := range rows {
		seen[identity(r)] = true
	}
	return int64(len(rows) - len(seen))
}

type tally struct {
	value any
	count int64
}

// tallies counts equal values, the most frequent first.
func tallies(values []any) []tally {
	at := map[string]int{}
	var list []tally
	for _, v := range values {
		id := identity(v)
		i, ok := at[id]
		if !ok {
			i = len(list)
			at[id] = i
			list = append(list, tally{value: v})
		}
		list[i].count++
	}
	slices.SortStableFunc(list, func(a, b tally) int {
		return cmp.Or(cmp.Compare(b.count, a.count), compareAny(a.value, b.value))
	})
	return list
}

func present(rows []map[string]any, column string) []any {
	values := make([]any, 0, len(rows))
	for _, r := range rows {
		if v := r[column]; v != nil {
			values = append(values, v)
		}
	}
	return values
}

func profileColumn(rows []map[string]any, name, kind string, depth int, methods []string) map[string]any {
	values := present(rows, name)
	counts := tallies(values)
	c := map[string]any{
		"name": name, "type": kind, "count": int64(len(values)), "nulls": int64(len(rows) - len(values)),
		"distinct": int64(len(counts)), "min": nil, "max": nil, "mean": nil,
	}
	switch {
	case numeric(kind) || textual(kind):
		c["min"], c["max"] = extremes(values)
	case depth >= depthStandard && kind == kindMixed:
		c["kinds"] = kindsOf(values)
	}
	if depth >= depthStandard && kind != kindList && kind != kindMap {
		c["top"] = topOf(counts)
	}
	if depth >= depthStandard && textual(kind) {
		c["min_length"], c["max_length"] = lengths(values)
	}
	if !numeric(kind) {
		return c
	}
	middle := mean(values)
	c["mean"] = finite(middle)
	deviation := math.NaN()
	if len(values) > 1 {
		deviation = math.Sqrt(variance(values))
	}
	order := floats(values)
	slices.Sort(order)
	if depth >= depthStandard {
		c["stddev"] = finite(deviation)
		q := map[string]any{}
		for _, p := range []struct {
			name string
			at   float64
		}{{"p05", 0.05}, {"p25", 0.25}, {"p50", 0.5}, {"p75", 0.75}, {"p95", 0.95}} {
			q[p.name] = finite(quantile(order, p.at))
		}
		c["quantiles"] = q
	}
	if depth == depthComprehensive {
		skew, kurtosis := shape(order)
		c["skewness"], c["kurtosis"] = finite(skew), finite(kurtosis)
	}
	if len(methods) > 0 {
		c["anomalies"] = anomalies(rows, name, order, middle, deviation, methods)
	}
	return c
}

func extremes(values []any) (low, high any) {
	low, high = values[0], values[0]
	for _, v := range values {
		if c, ok := compare(v, low); ok && c < 0 {
			low = v
		}
		if c, ok := compare(v, high); ok && c > 0 {
			high = v
		}
	}
	return shortText(low), shortText(high)
}

func shortText(v any) any {
	if s, ok := v.(string); ok {
		return head(s, maxProfileText)
	}
	return v
}

func kindsOf(values []any) map[string]any {
	kinds := map[string]any{}
	for _, v := range values {
		k := kindOfCell(v, false)
		n, _ := kinds[k].(int64)
		kinds[k] = n + 1
	}
	return kinds
}

func topOf(counts []tally) []any {
	top := []any{}
	for _, t := range counts[:min(len(counts), maxTop)] {
		top = append(top, map[string]any{"value": shortText(t.value), "count": t.count})
	}
	return top
}

func lengths(values []any) (low, high int64) {
	low = math.MaxInt64
	for _, v := range values {
		s, _ := v.(string)
		n := int64(utf8.RuneCountInString(s))
		low, high = min(low, n), max(high, n)
	}
	return low, high
}

// anomalies finds the numbers that lie outside the fences of all methods' union.
func anomalies(rows []map[string]any, name string, order []float64, middle, deviation float64, methods []string) map[string]any {
	low, high := math.Inf(-1), math.Inf(1)
	fence := func(a, b float64) {
		if b > a { // where most values are equal, every other would be an anomaly
			low, high = max(low, a), min(high, b)
		}
	}
	for _, m := range methods {
		switch m {
		case "iqr":
			q1, q3 := quantile(order, 0.25), quantile(order, 0.75)
			if q3 > q1 {
				fence(q1-anomalyFences*(q3-q1), q3+anomalyFences*(q3-q1))
			}
		case "zscore":
			fence(middle-anomalyZ*deviation, middle+anomalyZ*deviation)
		}
	}
	count, list := int64(0), []any{}
	for i, r := range rows {
		if v := r[name]; v != nil && (toFloat(v) < low || toFloat(v) > high) {
			if count++; count <= maxAnomalies {
				list = append(list, map[string]any{"row": int64(i), "value": v})
			}
		}
	}
	return map[string]any{"count": count, "methods": anyList(methods), "low": finite(low), "high": finite(high), "rows": list}
}
