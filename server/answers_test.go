package server

import (
	"fmt"
	"strings"
	"testing"

	"github.com/orchestrator-project/orchestrator/pipeline"
)

func TestAnswersOfARun(t *testing.T) {
	f := start(t)
	id := f.create()
	filled := func(path pipeline.Path, a pipeline.Answer) pipeline.Event {
		return pipeline.Event{Type: pipeline.AutoResolved, Path: path, Data: pipeline.Data{Auto: &a}}
	}
	f.engine.add(id,
		filled("plan", pipeline.Answer{Key: "value.depth", Value: int64(3), From: "model", Model: "fast", Kind: "parameter_inference", Usage: &pipeline.Usage{InputTokens: 10, OutputTokens: 2, CostUSD: 0.25}}),
		filled("plan", pipeline.Answer{Key: "value.style", Value: "calm", From: "cache", Model: "script", Kind: "parameter_inference"}),
		filled("each[2]/x", pipeline.Answer{Key: "if", Value: false, From: "fallback"}),
		filled("each[2]/x", pipeline.Answer{Key: "value", From: "answer"}),
	)
	base := "/v1/runs/" + string(id) + "/answers"
	var got []string
	for token := ""; ; {
		m := f.decoded("GET", base+"?page_size=3&page_token="+token, "")
		for _, a := range m["answers"].([]any) {
			a, _ := a.(map[string]any)
			usage, _ := a["usage"].(map[string]any)
			got = append(got, fmt.Sprint(a["key"], " ", a["step"], " ", a["param"], " ", a["value"], " ", a["from"], " ", a["model"], " ", a["scripted"], " ", a["kind"], " ", usage["cost_usd"]))
		}
		if token, _ = m["next_page_token"].(string); token == "" {
			break
		}
	}
	want := `plan.value.depth plan value.depth 3 model fast false parameter_inference 0.25
plan.value.style plan value.style calm cache script true parameter_inference <nil>
each[2]/x.if each[2]/x if false fallback  false  <nil>
each[2]/x.value each[2]/x value <nil> answer  false  <nil>`
	if strings.Join(got, "\n") != want {
		t.Errorf("answers:\n%s", strings.Join(got, "\n"))
	}
	if m := f.decoded("GET", base+"?step=plan", ""); len(m["answers"].([]any)) != 2 {
		t.Errorf("of one step: %v", m)
	}
	f.refused(404, "run_not_found", "GET", "/v1/runs/01a20000-0000-7000-8000-000000000000/answers", "")
	f.refused(400, "invalid_page_token", "GET", base+"?page_token=x", "")
}
