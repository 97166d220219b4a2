package step

import (
	"strings"
	"testing"

	"github.com/orchestrator-project/orchestrator/pipeline"
)

func profileColumns(columns ...params) params {
	list := []any{}
	for _, c := range columns {
		list = append(list, c)
	}
	return params{"rows": 100, "columns": list}
}

var shopProfile = profileColumns(
	params{"name": "day", "type": "date", "count": 100, "distinct": 90},
	params{"name": "shop", "type": "text", "count": 100, "distinct": 4},
	params{"name": "note", "type": "text", "count": 100, "distinct": 99},
	params{"name": "open", "type": "boolean", "count": 100, "distinct": 1},
	params{"name": "sales", "type": "number", "count": 100, "distinct": 95, "anomalies": params{"count": 2}},
	params{"name": "staff", "type": "integer", "count": 100, "distinct": 7},
)

func planned(t *testing.T, p params) (string, any) {
	t.Helper()
	env, _ := testEnv(t)
	v, err := run(t, Config{}, env, "plan_visualizations", p)
	if err != nil {
		t.Fatal(err)
	}
	lines := []string{}
	for _, e := range field(t, v, "charts").([]any) {
		m := e.(map[string]any)
		lines = append(lines, strings.Join([]string{m["kind"].(string), cellOf(m["x"]), cellOf(m["y"]), cellOf(m["color"]), cellOf(m["aggregate"])}, " "))
	}
	return strings.Join(lines, "\n"), v
}

func TestChartsByColumnTypes(t *testing.T) {
	got, v := planned(t, params{"data_profile": shopProfile, "num_visualizations": 20})
	want := `line day sales  mean
line day staff  mean
bar shop   count
histogram sales   count
histogram staff   count
box  sales  
bar shop sales  mean
bar shop staff  mean`
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	same(t, field(t, v, "charts").([]any)[0], params{
		"id": "chart_1", "kind": "line", "title": "sales over day", "columns": []any{"day", "sales"}, "x": "day", "y": "sales",
		"color": nil, "aggregate": "mean", "reason": "day is a date, so sales has a course",
	})
}

func TestChartsByInsights(t *testing.T) {
	insights := []any{
		params{"kind": "correlation", "columns": []any{"sales", "staff"}, "text": "they rise"},
		params{"kind": "difference", "columns": []any{"sales", "shop"}},
		params{"kind": "association", "columns": []any{"shop", "open"}},
		params{"kind": "distribution", "columns": []any{"sales"}},
		params{"kind": "outliers", "columns": []any{"sales"}},
		params{"kind": "correlation", "columns": []any{"sales"}},
		params{"kind": "hunch"},
		params{"columns": 5},
	}
	got, v := planned(t, params{"data_profile": params{"profile": shopProfile}, "insights": insights})
	want := "scatter sales staff  \nbox shop sales  \nstacked_bar shop  open count\nhistogram sales   count\nbox  sales  \nline day sales  mean"
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	same(t, field(t, field(t, v, "charts").([]any)[0], "reason"), "they rise")
}

func TestChartsOfGivenKinds(t *testing.T) {
	for _, c := range []struct {
		types   any
		want    string
		ignored []any
	}{
		{"Pie charts, sunburst", "pie shop   count", []any{"sunburst"}},
		{[]any{"Scatter Plot", "time series"}, "line day sales  mean\nline day staff  mean", []any{}},
		{"whatever fits", "line day sales  mean\nline day staff  mean\nbar shop   count", []any{"whatever_fits"}},
	} {
		got, v := planned(t, params{"data_profile": shopProfile, "chart_types": c.types, "num_visualizations": "3"})
		if got != c.want {
			t.Errorf("%v: got\n%s", c.types, got)
		}
		same(t, field(t, v, "ignored"), c.ignored)
	}
	four := profileColumns()
	for _, n := range []string{"a", "b", "c", "d"} {
		four["columns"] = append(four["columns"].([]any), params{"name": n, "type": "number", "distinct": 5})
	}
	got, v := planned(t, params{"data_profile": four, "num_visualizations": 1})
	if got != "heatmap    pearson" {
		t.Errorf("got %s", got)
	}
	same(t, field(t, field(t, v, "charts").([]any)[0], "columns"), []any{"a", "b", "c", "d"})
}

func TestPlanRefusals(t *testing.T) {
	env, _ := testEnv(t)
	for text, p := range map[string]params{
		"data_profile is no profile":              {"data_profile": params{}},
		"num_visualizations is 0; it can be":      {"num_visualizations": 0},
		"num_visualizations is 51":                {"num_visualizations": 51},
		"num_visualizations is 2.5":               {"num_visualizations": 2.5},
		`num_visualizations is "NaN"`:             {"num_visualizations": "NaN"},
		"insights is a list of maps; item 0 is a": {"insights": []any{1}},
		"chart_types is a list or a text":         {"chart_types": 5},
	} {
		if p["data_profile"] == nil {
			p["data_profile"] = shopProfile
		}
		_, err := run(t, Config{}, env, "plan_visualizations", p)
		failed(t, err, pipeline.CategoryValidation, text)
	}
}
