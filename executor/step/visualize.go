package step

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/orchestrator-project/orchestrator/executor"
	"github.com/orchestrator-project/orchestrator/pipeline"
)

const visualizeDoc = `Chooses charts that show a table, by the types of its columns and by what was found in it.

    - id: charts
      action: plan_visualizations
      parameters: {data_profile: "{{ look.profile }}", insights: "{{ facts.insights }}", num_visualizations: 4}

It plans and does not draw. charts has maps {id, kind, title, columns, x, y, color, aggregate, reason}, the most telling first; what a chart does not need is null. The rules, by what there is:
- an insight of the kind correlation: scatter; difference: box, by the groups; association: stacked_bar; distribution: histogram; outliers: box
- a date column and a number column: line, of the mean
- a column of at most 20 different texts or booleans: bar, of the counts (of at most 6, pie where chart_types asks for it), and with a number column: bar, of the mean
- a number column: histogram
- four or more number columns: heatmap, of the correlations

num_visualizations is 1 to 50, default 6. chart_types keeps only some kinds: scatter, line, bar, stacked_bar, histogram, box, heatmap, pie; a list or a text. Words that name none are listed in ignored; where no word does, all kinds are used.`

// PlanVisualizations is a profile with what was found.
type PlanVisualizations struct {
	DataProfile       map[string]any `param:"required" doc:"what profile_data gave"`
	Insights          []any          `doc:"what analyze_statistics found"`
	NumVisualizations any            `type:"integer" doc:"how many charts at most, 1 to 50; default 6"`
	ChartTypes        any            `doc:"the kinds to choose from, a list or a text; default: all but pie"`
}

type visualizeResult struct {
	Charts  []any    `doc:"maps of id, kind, title, columns, x, y, color, aggregate, reason"`
	Ignored []string `doc:"words of chart_types that name no kind"`
}

func planVisualizationsAction() executor.Action {
	return executor.NewAction[PlanVisualizations](executor.Describe{
		Name: "plan_visualizations", Doc: visualizeDoc, Effect: pipeline.EffectPure, Returns: visualizeResult{},
	})
}

var chartKinds = []string{"scatter", "line", "bar", "stacked_bar", "histogram", "box", "heatmap", "pie"}

// chartWords are other names of the kinds, without an ending such as _chart.
var chartWords = map[string]string{
	"scatterplot": "scatter", "boxplot": "box", "box_and_whisker": "box", "histograms": "histogram", "bars": "bar", "column": "bar",
	"time_series": "line", "lines": "line", "correlation_matrix": "heatmap", "heat_map": "heatmap", "stacked": "stacked_bar", "hist": "histogram",
}

// chart is one that was chosen.
type chart struct {
	kind, title, x, y, color, aggregate, reason string
	columns                                     []string
	weight                                      float64 // the heaviest come first
}

// Run applies the rules.
func (p PlanVisualizations) Run(_ context.Context, _ executor.Env) (executor.Output, error) {
	facts, err := readProfile("data_profile", p.DataProfile)
	if err != nil {
		return executor.Output{}, err
	}
	most, err := countParam("num_visualizations", p.NumVisualizations, 6, 50)
	if err != nil {
		return executor.Output{}, err
	}
	kinds, ignored, err := chartTypes(p.ChartTypes)
	if err != nil {
		return executor.Output{}, err
	}
	charts, err := fromInsights(p.Insights)
	if err != nil {
		return executor.Output{}, err
	}
	charts = append(charts, fromColumns(facts, kinds["pie"])...)
	slices.SortStableFunc(charts, func(a, b chart) int { return cmp.Compare(b.weight, a.weight) })
	list := []any{}
	seen := map[string]bool{}
	for _, c := range charts {
		key := strings.Join([]string{c.kind, c.x, c.y, c.color}, "\x00")
		if !kinds[c.kind] || seen[key] || len(list) == most {
			continue
		}
		seen[key] = true
		list = append(list, c.value(len(list)+1))
	}
	return bounded("the plan", map[string]any{"charts": list, "ignored": anyList(ignored)})
}

func (c chart) value(number int) map[string]any {
	some := func(s string) any {
		if s == "" {
			return nil
		}
		return s
	}
	return map[string]any{
		"id": "chart_" + strconv.Itoa(number), "kind": c.kind, "title": c.title, "columns": anyList(c.columns),
		"x": some(c.x), "y": some(c.y), "color": some(c.color), "aggregate": some(c.aggregate), "reason": c.reason,
	}
}

// countParam reads a number of things: 4, 4.0 and "4".
func countParam(param string, v any, def, most int) (int, error) {
	n := math.NaN()
	switch v := v.(type) {
	case nil:
		return def, nil
	case int64, float64:
		n = toFloat(v)
	case string:
		if f, err := strconv.ParseFloat(strings.TrimSpace(v), 64); err == nil {
			n = f
		}
	}
	if n != math.Trunc(n) || !(n >= 1 && n <= float64(most)) {
		return 0, invalid("parameter %s is %s; it can be a number from 1 to %d", param, head(string(pipeline.EncodeValue(v)), 80), most)
	}
	return int(n), nil
}

func chartTypes(v any) (kinds map[string]bool, ignored []string, err error) {
	words, err := wordList("chart_types", v)
	if err != nil {
		return nil, nil, err
	}
	kinds, ignored = map[string]bool{}, []string{}
	for _, w := range words {
		for _, end := range []string{"_charts", "_chart", "_plots", "_plot", "_graphs", "_graph"} {
			w = strings.TrimSuffix(w, end)
		}
		if known, ok := chartWords[w]; ok {
			w = known
		}
		if slices.Contains(chartKinds, w) {
			kinds[w] = true
		} else {
			ignored = append(ignored, w)
		}
	}
	if len(kinds) == 0 {
		for _, k := range chartKinds {
			kinds[k] = k != "pie"
		}
	}
	return kinds, ignored, nil
}

func fromInsights(list []any) ([]chart, error) {
	var charts []chart
	for i, e := range list {
		m, ok := e.(map[string]any)
		if !ok {
			return nil, invalid("parameter insights is a list of maps; item %d is %s", i, kindOf(e))
		}
		kind, _ := m["kind"].(string)
		reason, _ := m["text"].(string)
		names, _ := m["columns"].([]any)
		var columns []string
		for _, n := range names {
			if s, ok := n.(string); ok {
				columns = append(columns, s)
			}
		}
		c := chart{columns: columns, reason: head(reason, 500), weight: 100 - float64(min(i, 40))}
		switch {
		case kind == "correlation" && len(columns) == 2:
			c.kind, c.x, c.y = "scatter", columns[0], columns[1]
			c.title = columns[1] + " against " + columns[0]
		case kind == "difference" && len(columns) == 2:
			c.kind, c.x, c.y = "box", columns[1], columns[0]
			c.title = columns[0] + " by " + columns[1]
		case kind == "association" && len(columns) == 2:
			c.kind, c.x, c.color, c.aggregate = "stacked_bar", columns[0], columns[1], "count"
			c.title = columns[0] + " by " + columns[1]
		case kind == "distribution" && len(columns) == 1:
			c.kind, c.x, c.aggregate = "histogram", columns[0], "count"
			c.title = "Distribution of " + columns[0]
		case kind == "outliers" && len(columns) == 1:
			c.kind, c.y = "box", columns[0]
			c.title = "Unusual values of " + columns[0]
		default:
			continue // such an insight is no matter of a chart
		}
		charts = append(charts, c)
	}
	return charts, nil
}

// fromColumns applies the rules that need no insight. Columns with one value, and
// texts of which almost each is different, show nothing.
func fromColumns(f *profileFacts, pies bool) []chart {
	var charts []chart
	var numbers, dates, groups []columnFacts
	for _, c := range f.columns {
		switch {
		case c.distinct < 2:
		case numeric(c.kind):
			numbers = append(numbers, c)
		case c.kind == kindDate:
			dates = append(dates, c)
		case (c.kind == kindText || c.kind == kindBoolean) && c.distinct <= maxGroups:
			groups = append(groups, c)
		}
	}
	add := func(weight float64, c chart) {
		c.weight = weight
		for _, name := range []string{c.x, c.y, c.color} {
			if name != "" && !slices.Contains(c.columns, name) {
				c.columns = append(c.columns, name)
			}
		}
		charts = append(charts, c)
	}
	for i, d := range dates[:min(len(dates), 2)] {
		for j, n := range numbers[:min(len(numbers), 5)] {
			add(55-float64(5*i+j), chart{
				kind: "line", x: d.name, y: n.name, aggregate: "mean", title: n.name + " over " + d.name,
				reason: fmt.Sprintf("%s is a date, so %s has a course", d.name, n.name),
			})
		}
	}
	if len(numbers) >= 4 {
		c := chart{kind: "heatmap", aggregate: "pearson", title: "Correlations of the number columns", reason: fmt.Sprintf("there are %d number columns", len(numbers))}
		for _, n := range numbers[:min(len(numbers), maxCorrelated)] {
			c.columns = append(c.columns, n.name)
		}
		add(45, c)
	}
	for i, g := range groups[:min(len(groups), 10)] {
		c := chart{kind: "bar", x: g.name, aggregate: "count", title: "Rows by " + g.name, reason: fmt.Sprintf("%s has %d different values", g.name, g.distinct)}
		add(40-float64(i), c)
		if pies && g.distinct <= 6 {
			c.kind = "pie"
			add(39.5-float64(i), c)
		}
		for j, n := range numbers[:min(len(numbers), 5)] {
			add(20-float64(i)-float64(j), chart{
				kind: "bar", x: g.name, y: n.name, aggregate: "mean", title: "Mean " + n.name + " by " + g.name,
				reason: fmt.Sprintf("%s puts the rows into %d groups", g.name, g.distinct),
			})
		}
	}
	for i, n := range numbers[:min(len(numbers), 20)] {
		add(35-float64(i), chart{
			kind: "histogram", x: n.name, aggregate: "count", title: "Distribution of " + n.name,
			reason: n.name + " is a number",
		})
		if n.outliers > 0 {
			add(30-float64(i), chart{
				kind: "box", y: n.name, title: "Unusual values of " + n.name,
				reason: fmt.Sprintf("%s has %s", n.name, plural(int(n.outliers), "unusual value")),
			})
		}
	}
	return charts
}
