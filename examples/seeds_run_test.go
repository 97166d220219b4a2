package examples_test

import (
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/orchestrator-project/orchestrator/pipeline/graph"
)

// seeds are the pipelines of the folder seeds, which run in a copy of it.
var seeds = map[string]example{
	"generate-uppercase.yaml": {want: `{"step1":"You said: Hello, world!","step2":"YOU SAID: HELLO, WORLD!"}`},
	"research-report.yaml": {
		of:   "{{ [web_search.results | map(attribute='title') | list, report_generation.split('\n')[0]] }}",
		want: `[["Write-Ahead Logging","Atomic Commit In SQLite"],"# Write-ahead logging and rollback journals in SQLite"]`,
	},
	"code-review.yaml": {
		of:   "{{ [security_scan.summary.total, style_check.summary.total, complexity_analysis.metrics.total.functions, generate_review.split('\n')[0]] }}",
		want: `[11,10,9,"# Review"]`,
	},
	"data-analysis.yaml": {
		of:   "{{ [data_ingestion.rows, (statistical_analysis.insights | first).text, generate_report.sections | map(attribute='title') | first] }}",
		want: `[24,"heating_kwh falls as temperature_c rises: Pearson's correlation r = -0.934, p \u003c 0.001, n = 24","Summary"]`,
	},
	"ensemble.yaml": {
		of:   "{{ [ensemble_aggregation.final_predictions | map(attribute='prediction') | list, ensemble_aggregation.final_predictions[2].confidence | round(2), result_validation.valid] }}",
		want: `[["leaves","stays","leaves","stays"],0.67,true]`,
	},
	"skills-for.yaml": {
		of:   "{{ [process_files.results | map(attribute='lines') | list, matrix_operation.results[2].process_cell.results[1]] }}",
		want: `[[41,38,23],{"col":20,"row":3,"value":60}]`,
	},
	"skills-while.yaml": {
		of:   "{{ [retry_until_success.completed, retry_until_success.results[0].attempt_operation.status] }}",
		want: `[true,200]`,
	},
	"skills-branches.yaml": {
		of:   "{{ [analyze_data.complexity, route_based_on_analysis.simple_process, optional_validation.valid] }}",
		want: `["medium",null,true]`,
	},
	"skills-code-review.yaml": {
		of:    "{{ [test_loop.iterations, generate_report.summary] }}",
		want:  `[2,"3 files, 10 issues; 12 of 12 tests passed."]`,
		files: map[string]string{"code_review_report.md": "12 of 12 tests passed.\n6 of them expect what the code was seen to do"},
	},
}

func TestSeeds(t *testing.T) {
	for file, want := range seeds {
		t.Run(file, func(t *testing.T) {
			file = filepath.Join("seeds", file)
			script := companion(file, "script")
			if !exists(script) {
				script = ""
			}
			h := open(t, script)
			copyTree(t, "seeds", h.dir)
			h.see(t, file, want)
		})
	}
}

// TestCodeReviewInParallel holds that the three scans of the code run at the same
// time: 1, then 3, then 1.
func TestCodeReviewInParallel(t *testing.T) {
	plan, _, _ := open(t, "").compile(t, "seeds/code-review.yaml")
	layers := map[int][]string{}
	for _, n := range graph.Layout(plan).Nodes {
		layers[n.Layer] = append(layers[n.Layer], n.ID)
	}
	want := map[int][]string{
		0: {"code_parsing"},
		1: {"security_scan", "style_check", "complexity_analysis"},
		2: {"generate_review"},
	}
	if diff := cmp.Diff(want, layers); diff != "" {
		t.Error(diff)
	}
}
