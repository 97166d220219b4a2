package web

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"

	api "github.com/orchestrator-project/orchestrator/proto/orchestrator/v1"
	"github.com/orchestrator-project/orchestrator/web/webtest"
)

// ListAnswers tells the values of the events auto_resolved.
func (m *minds) ListAnswers(_ context.Context, r *api.ListAnswersRequest) (*api.ListAnswersResponse, error) {
	m.f.mu.Lock()
	defer m.f.mu.Unlock()
	s, err := m.f.story(r.GetId())
	if err != nil {
		return nil, err
	}
	resp := &api.ListAnswersResponse{}
	for _, e := range s.events {
		a, ok := autoOf(e)
		if !ok || e.GetType() != "auto_resolved" || r.GetStep() != "" && r.GetStep() != e.GetPath() {
			continue
		}
		var data struct {
			Auto struct {
				Usage struct {
					USD float64 `json:"cost_usd"`
				}
			}
		}
		if err := json.Unmarshal([]byte(e.GetData()), &data); err != nil {
			return nil, err
		}
		a.Step, a.Key, a.Scripted = e.GetPath(), e.GetPath()+"."+a.GetParam(), a.GetModel() == "script"
		if usd := data.Auto.Usage.USD; usd > 0 {
			a.Usage = &api.Usage{CostUsd: usd}
		}
		resp.Answers = append(resp.Answers, a)
	}
	return resp, nil
}

// filledRun is a run whose tags were filled in.
func (f *fake) filledRun(n int) *story {
	s := f.completed(n)
	s.definition.Holes = append(demoPipeline("1.2.0").Holes, &api.Hole{Key: "each_issue/classify.label", Type: "any", Prompt: "Which label?", Line: 20})
	s.carry("auto_resolved", "report", `{"auto":{"key":"tone","value":"warm","from":"model","model":"fast","kind":"parameter_inference","usage":{"cost_usd":0.0021}}}`)
	s.carry("auto_resolved", "report", `{"auto":{"key":"length","value":300,"from":"answer"}}`)
	s.carry("auto_resolved", "report", `{"auto":{"key":"hints","value":["<b>late</b>","costs"],"from":"cache","model":"script","kind":"parameter_inference"}}`)
	s.carry("auto_resolved", "each_issue[7]/classify", `{"auto":{"key":"label","value":"bug","from":"fallback"}}`)
	return s
}

func TestRecordedAnswersAreShownAndLeadToAFork(t *testing.T) {
	f := demo()
	f.filledRun(18)
	addr := serve(t, f).URL + pathOfRun(idOf(18))
	doc, _, _ := get(t, addr+"?tab=steps&step=report")
	drawer := textOf(byID(t, doc, "filled"))
	for _, want := range []string{"tone model fast parameter inference $0.0021 Edit warm", "length answered beforehand Edit 300", "hints from the cache, scripted model", "<b>late</b>"} {
		if !strings.Contains(drawer, want) {
			t.Errorf("the drawer does not say %q: %s", want, drawer)
		}
	}
	doc, _, body := get(t, addr+"?tab=definition")
	table := textOf(byID(t, doc, "filled"))
	for _, want := range []string{"report.tone warm model fast parameter inference $0.0021", "each_issue[7]/classify.label bug fallback"} {
		if !strings.Contains(table, want) {
			t.Errorf("the definition does not say %q: %s", want, table)
		}
	}
	if want := "/fork?auto=each_issue%5B7%5D%2Fclassify.label"; !strings.Contains(body, want) {
		t.Errorf("no way to edit the value of a pass")
	}
}

func TestARecordedAnswerIsEditedByAFork(t *testing.T) {
	f := demo()
	f.filledRun(18)
	f.runs[idOf(18)].definition.Holes = nil // the form reads those of the source
	addr := serve(t, f).URL + pathOfFork(idOf(18))
	doc, _, _ := get(t, addr+"?auto=report.length")
	if got := attr(byID(t, doc, "auto-report.length"), "value"); got != "300" {
		t.Errorf("the field holds %q", got)
	}
	holes := textOf(byID(t, doc, "holes"))
	for _, want := range []string{"report.tone one of plain, warm model fast as recorded: warm", "report.length integer answered beforehand"} {
		if !strings.Contains(holes, want) {
			t.Errorf("the form does not say %q: %s", want, holes)
		}
	}
	form := url.Values{
		"source": {demoSource}, "in.repo": {"acme/site"}, "in.depth": {"shallow"}, "key": {"k1"}, "by": {"record"}, "do": {"preview"},
		"tag": {"report.length"}, "auto.report.length": {"120"},
	}
	if _, res, _ := post(t, addr, form); res.StatusCode != http.StatusOK || f.ops.previews[len(f.ops.previews)-1].GetAnswers() != `{"report.length":120}` {
		t.Errorf("%s: asked for the preview %v", res.Status, f.ops.previews[len(f.ops.previews)-1])
	}
	form.Set("do", "start")
	post(t, addr, form)
	if got := f.ops.last(); !strings.Contains(got, `answers:"{\"report.length\":120}"`) {
		t.Errorf("asked for %s", got)
	}
}

func TestBrowserEditsARecordedAnswer(t *testing.T) {
	f := demo()
	f.filledRun(18)
	addr := serve(t, f).URL
	ctx := webtest.Browser(t)
	open(t, ctx, addr+pathOfRun(idOf(18))+"?tab=steps&step=report")
	webtest.Run(t, ctx, chromedp.Click(`#filled a[aria-label="Edit report.length"]`), chromedp.WaitReady("#fork"))
	const field = `document.getElementById("auto-report.length")`
	if got := webtest.Eval[string](t, ctx, field+`.value`); got != "300" {
		t.Errorf("the field holds %q", got)
	}
	if got := webtest.Eval[string](t, ctx, `document.activeElement.id`); got != "auto-report.length" {
		t.Errorf("%q has the focus", got)
	}
	webtest.Eval[string](t, ctx, field+`.value = "120"`)
	webtest.Run(t, ctx, chromedp.Click(`button[value="start"]`), chromedp.WaitNotPresent("#fork"), chromedp.WaitReady("#main"))
	if got := f.ops.last(); !strings.Contains(got, `answers:"{\"report.length\":120}"`) {
		t.Errorf("asked for %s", got)
	}
}
