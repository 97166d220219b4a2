package step

import (
	"context"
	"fmt"
	"strings"

	"github.com/orchestrator-project/orchestrator/executor"
	"github.com/orchestrator-project/orchestrator/pipeline"
	"github.com/orchestrator-project/orchestrator/pipeline/expr"
)

const reportDoc = `Writes a report in Markdown from what the steps before have found.

    - id: report
      action: create_analysis_report
      parameters: {visualizations: "{{ charts.charts }}", insights: "{{ facts.insights }}", technical_depth: high}

It writes nothing that is not in its parameters. The sections: a summary (executive_summary where it is a text; else the three strongest insights), the relations between columns, the quality of the data, the charts, and, at the depth high, a table of all figures. At the depth low the insights lose what stands behind their colon: the figures of the tests. executive_summary: false leaves the summary out. sections has the same as maps of title and text.`

// CreateAnalysisReport is what a report is made of.
type CreateAnalysisReport struct {
	Visualizations   []any  `doc:"what plan_visualizations gave"`
	Insights         []any  `doc:"what analyze_statistics found"`
	ExecutiveSummary any    `doc:"a text to begin with; true: made of the insights; false: none; default: true"`
	TechnicalDepth   string `default:"\"medium\"" doc:"low, medium or high"`
	Title            string `default:"\"Analysis report\"" doc:"the heading"`
}

type reportResult struct {
	Report   string `doc:"the report, in Markdown"`
	Sections []any  `doc:"its sections, maps of title and text"`
}

func createAnalysisReportAction() executor.Action {
	return executor.NewAction[CreateAnalysisReport](executor.Describe{
		Name: "create_analysis_report", Doc: reportDoc, Effect: pipeline.EffectPure, Returns: reportResult{},
	})
}

var technicalWords = map[string]string{
	"low": "low", "basic": "low", "simple": "low", "executive": "low", "non_technical": "low", "nontechnical": "low", "business": "low",
	"": "medium", "medium": "medium", "moderate": "medium", "standard": "medium", "intermediate": "medium", "general": "medium", "balanced": "medium",
	"high": "high", "technical": "high", "detailed": "high", "expert": "high", "advanced": "high", "comprehensive": "high", "deep": "high",
}

// analysisReport is one that is being written.
type analysisReport struct {
	depth    string
	insights []map[string]any
	charts   []map[string]any
	sections []any
}

// Run writes section by section.
func (c CreateAnalysisReport) Run(_ context.Context, _ executor.Env) (executor.Output, error) {
	depth, ok := technicalWords[word(c.TechnicalDepth)]
	if !ok {
		return executor.Output{}, invalid("parameter technical_depth is %q; it can be low, medium, high", head(c.TechnicalDepth, 80))
	}
	r := &analysisReport{depth: depth, sections: []any{}}
	var err error
	if r.insights, err = table("insights", c.Insights); err != nil {
		return executor.Output{}, err
	}
	if r.charts, err = table("visualizations", c.Visualizations); err != nil {
		return executor.Output{}, err
	}
	switch s := c.ExecutiveSummary.(type) {
	case nil:
		r.summary()
	case bool:
		if s {
			r.summary()
		}
	case string:
		if strings.TrimSpace(s) != "" {
			r.section("Summary", strings.TrimSpace(s))
		}
	default:
		return executor.Output{}, invalid("parameter executive_summary is %s; it can be a text, true or false", kindOf(s))
	}
	r.listed("Relations", "correlation", "difference", "association")
	r.listed("Data quality", "distribution", "outliers", "missing", "duplicates", "constant")
	r.others()
	r.drawn()
	if depth == "high" {
		r.figures()
	}
	var b strings.Builder
	fmt.Fprintf(&b, "# %s\n", oneLine(c.Title))
	for _, s := range r.sections {
		m, _ := s.(map[string]any)
		fmt.Fprintf(&b, "\n## %s\n\n%s\n", m["title"], m["text"])
	}
	return bounded("the report", map[string]any{"report": b.String(), "sections": r.sections})
}

func (r *analysisReport) section(title, text string) {
	r.sections = append(r.sections, map[string]any{"title": title, "text": text})
}

func (r *analysisReport) summary() {
	if len(r.insights) == 0 {
		r.section("Summary", "Nothing stands out.")
		return
	}
	lines := []string{fmt.Sprintf("%s. The strongest:", plural(len(r.insights), "finding")), ""}
	for _, m := range r.insights[:min(len(r.insights), 3)] {
		lines = append(lines, "- "+r.said(m))
	}
	r.section("Summary", strings.Join(lines, "\n"))
}

func plural(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// said is an insight's text; at the depth low without the figures behind it.
func (r *analysisReport) said(m map[string]any) string {
	text := oneLine(cellOf(m["text"]))
	kind, _ := m["kind"].(string)
	if r.depth == "low" && insightOrder[kind] == 0 && kind != "" {
		text, _, _ = strings.Cut(text, ": ")
	}
	return text
}

// listed is a section of the insights of some kinds, if there are any.
func (r *analysisReport) listed(title string, kinds ...string) {
	var lines []string
	for _, kind := range kinds {
		for _, m := range r.insights {
			if m["kind"] == kind {
				lines = append(lines, "- "+r.said(m))
			}
		}
	}
	if len(lines) > 0 {
		r.section(title, strings.Join(lines, "\n"))
	}
}

// others lists the insights of kinds that only their author knows.
func (r *analysisReport) others() {
	var lines []string
	for _, m := range r.insights {
		kind, _ := m["kind"].(string)
		if _, known := insightOrder[kind]; !known {
			lines = append(lines, "- "+r.said(m))
		}
	}
	if len(lines) > 0 {
		r.section("Further findings", strings.Join(lines, "\n"))
	}
}

func (r *analysisReport) drawn() {
	if len(r.charts) == 0 {
		return
	}
	lines := make([]string, len(r.charts))
	for i, m := range r.charts {
		lines[i] = fmt.Sprintf("%d. **%s** (%s)", i+1, oneLine(cellOf(m["title"])), oneLine(cellOf(m["kind"])))
		if reason := oneLine(cellOf(m["reason"])); reason != "" && r.depth != "low" {
			lines[i] += ": " + reason
		}
	}
	r.section("Charts", strings.Join(lines, "\n"))
}

func (r *analysisReport) figures() {
	if len(r.insights) == 0 {
		return
	}
	lines := []string{"| kind | columns | value | p |", "|---|---|---|---|"}
	for _, m := range r.insights {
		names, _ := m["columns"].([]any)
		columns := make([]string, len(names))
		for i, n := range names {
			columns[i] = cellOf(n)
		}
		row := []string{cellOf(m["kind"]), strings.Join(columns, ", "), cellOf(m["value"]), cellOf(m["p_value"])}
		for i, c := range row {
			row[i] = strings.ReplaceAll(oneLine(c), "|", `\|`)
		}
		lines = append(lines, "| "+strings.Join(row, " | ")+" |")
	}
	r.section("Figures", strings.Join(lines, "\n"))
}

// cellOf writes a value for a report; numbers have six digits at most.
func cellOf(v any) string {
	switch v := v.(type) {
	case nil:
		return ""
	case float64:
		return fmt.Sprintf("%.6g", v)
	}
	return expr.Text(v)
}

func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }
