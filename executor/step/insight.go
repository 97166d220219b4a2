package step

import (
	"cmp"
	"fmt"
	"math"
	"slices"

	"github.com/orchestrator-project/orchestrator/pipeline/expr"
)

// insight is a thing about a table that stands out.
type insight struct {
	kind     string
	columns  []string
	text     string
	value, p float64
	strength float64 // 0 to 1, for the order
}

// insightOrder is in which order the kinds are told.
var insightOrder = map[string]int{"correlation": 0, "difference": 0, "association": 0, "distribution": 1, "outliers": 2, "missing": 3, "duplicates": 4, "constant": 5}

// probability writes a p-value for people.
func probability(p float64) string {
	if p < 0.001 {
		return "p < 0.001"
	}
	return fmt.Sprintf("p = %.3f", p)
}

func shownValue(v any) string { return head(expr.Text(v), 40) }

// notice adds what the figures and the profile say.
func (w *analysis) notice(facts *profileFacts, statistics map[string]any) {
	for _, name := range sortedKeys(statistics) {
		m, _ := statistics[name].(map[string]any)
		if skew, ok := m["skewness"].(float64); ok && math.Abs(skew) >= 1 {
			side := "right: a few values are much larger than the rest"
			if skew < 0 {
				side = "left: a few values are much smaller than the rest"
			}
			w.add("distribution", []string{name}, skew, math.Abs(skew)/10, "%s is skewed to the %s (skewness %.2f)", name, side, skew)
		}
	}
	for _, c := range facts.columns {
		if c.outliers > 0 {
			w.add("outliers", []string{c.name}, float64(c.outliers), float64(c.outliers)/float64(max(1, c.count)),
				"%s has %s among %d", c.name, plural(int(c.outliers), "unusual value"), c.count)
		}
		if all := c.count + c.nulls; c.nulls > 0 {
			share := float64(c.nulls) / float64(all)
			w.add("missing", []string{c.name}, share, share, "%s is missing in %d of %d rows (%.1f%%)", c.name, c.nulls, all, 100*share)
		}
		if c.distinct == 1 && c.count > 1 {
			w.add("constant", []string{c.name}, 1, 0, "%s has the same value in all rows that have one", c.name)
		}
	}
	if facts.duplicates > 0 {
		w.add("duplicates", nil, float64(facts.duplicates), 1, "rows that are equal to an earlier one: %d", facts.duplicates)
	}
}

func (w *analysis) add(kind string, columns []string, value, strength float64, format string, args ...any) {
	w.found = append(w.found, insight{
		kind: kind, columns: columns, value: value, p: math.NaN(), strength: strength, text: fmt.Sprintf(format, args...),
	})
}

func (w *analysis) insights() []any {
	slices.SortStableFunc(w.found, func(a, b insight) int {
		return cmp.Or(cmp.Compare(insightOrder[a.kind], insightOrder[b.kind]), cmp.Compare(b.strength, a.strength))
	})
	list := []any{}
	for _, f := range w.found[:min(len(w.found), maxInsights)] {
		list = append(list, map[string]any{
			"kind": f.kind, "columns": anyList(f.columns), "text": f.text, "value": finite(f.value), "p_value": finite(f.p),
		})
	}
	return list
}

// profileFacts is what other steps read out of a profile.
type profileFacts struct {
	rows, duplicates int64
	columns          []columnFacts
}

type columnFacts struct {
	name, kind                       string
	count, nulls, distinct, outliers int64
}

// readProfile reads a profile that a step has given, perhaps changed on its way.
func readProfile(param string, m map[string]any) (*profileFacts, error) {
	if inner, ok := m["profile"].(map[string]any); ok { // the whole output of profile_data
		m = inner
	}
	list, ok := m["columns"].([]any)
	if !ok {
		return nil, invalid("parameter %s is no profile: it has no list columns; profile_data makes one", param)
	}
	f := &profileFacts{rows: whole(m["rows"]), duplicates: whole(m["duplicates"])}
	for i, e := range list {
		c, _ := e.(map[string]any)
		name, ok := c["name"].(string)
		kind, ok2 := c["type"].(string)
		if !ok || !ok2 {
			return nil, invalid("parameter %s is no profile: columns[%d] has no name and type", param, i)
		}
		a, _ := c["anomalies"].(map[string]any)
		f.columns = append(f.columns, columnFacts{
			name: name, kind: kind, count: whole(c["count"]), nulls: whole(c["nulls"]),
			distinct: whole(c["distinct"]), outliers: whole(a["count"]),
		})
	}
	return f, nil
}

// whole is a count; what is none counts as 0.
func whole(v any) int64 {
	switch n := v.(type) {
	case int64:
		return max(0, n)
	case float64:
		if n > 0 && n < 1<<53 {
			return int64(n)
		}
	}
	return 0
}
