package step

import (
	"maps"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/orchestrator-project/orchestrator/pipeline"
)

var reportInsights = []any{
	params{"kind": "correlation", "columns": []any{"a", "b"}, "text": "a rises with b: r = 0.9, p < 0.001", "value": 0.9, "p_value": 1e-9},
	params{"kind": "missing", "columns": []any{"a|c"}, "text": "a is missing in 3 of 9 rows", "value": 1.0 / 3, "p_value": nil},
	params{"kind": "hunch", "text": "it smells\nof fish"},
}

var reportCharts = []any{params{"kind": "scatter", "title": "b against a", "reason": "a rises with b"}}

func TestReports(t *testing.T) {
	for name, c := range map[string]struct {
		p    params
		want string
	}{
		"medium": {params{}, `# Analysis report

## Summary

3 findings. The strongest:

- a rises with b: r = 0.9, p < 0.001
- a is missing in 3 of 9 rows
- it smells of fish

## Relations

- a rises with b: r = 0.9, p < 0.001

## Data quality

- a is missing in 3 of 9 rows

## Further findings

- it smells of fish

## Charts

1. **b against a** (scatter): a rises with b
`},
		"low": {params{"technical_depth": "Non-technical", "executive_summary": " All is well. ", "title": "Week\n12"}, `# Week 12

## Summary

All is well.

## Relations

- a rises with b

## Data quality

- a is missing in 3 of 9 rows

## Further findings

- it smells of fish

## Charts

1. **b against a** (scatter)
`},
		"high": {params{"technical_depth": "expert", "executive_summary": false, "visualizations": []any{}}, `# Analysis report

## Relations

- a rises with b: r = 0.9, p < 0.001

## Data quality

- a is missing in 3 of 9 rows

## Further findings

- it smells of fish

## Figures

| kind | columns | value | p |
|---|---|---|---|
| correlation | a, b | 0.9 | 1e-09 |
| missing | a\|c | 0.333333 |  |
| hunch |  |  |  |
`},
		"nothing": {params{"insights": []any{}, "visualizations": nil, "technical_depth": "high", "executive_summary": true}, "# Analysis report\n\n## Summary\n\nNothing stands out.\n"},
	} {
		env, _ := testEnv(t)
		p := params{"insights": reportInsights, "visualizations": reportCharts}
		maps.Copy(p, c.p)
		v, err := run(t, Config{}, env, "create_analysis_report", p)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(c.want, field(t, v, "report")); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
}

func TestReportRefusals(t *testing.T) {
	env, _ := testEnv(t)
	for text, p := range map[string]params{
		`technical_depth is "so so"; it can be low, medium, high`: {"technical_depth": "so so"},
		"executive_summary is a number":                           {"executive_summary": 5},
		"parameter insights is a list of maps; item 0 is a text":  {"insights": []any{"x"}},
		"parameter visualizations is a list of maps":              {"visualizations": []any{nil}},
	} {
		_, err := run(t, Config{}, env, "create_analysis_report", p)
		failed(t, err, pipeline.CategoryValidation, text)
	}
}
