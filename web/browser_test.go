package web

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"github.com/orchestrator-project/orchestrator/web/webtest"
)

// everyPage names each page of the demo once.
var everyPage = []struct{ name, path string }{
	{"home", "/"},
	{"runs", "/runs"},
	{"runs-none", "/runs?filter=pipeline:nothing"},
	{"runs-refused", "/runs?filter=colour:red"},
	{"run-graph", "/runs/" + idOf(9)},
	{"run-failed", "/runs/" + idOf(3)},
	{"run-drawer", "/runs/" + idOf(3) + "?step=each_issue%5B7%5D%2Fclassify"},
	{"run-timeline", "/runs/" + idOf(9) + "?tab=timeline"},
	{"run-timeline-many", "/runs/" + idOf(2) + "?tab=timeline"},
	{"run-steps", "/runs/" + idOf(9) + "?tab=steps"},
	{"run-steps-failed", "/runs/" + idOf(3) + "?tab=steps&status=failed&step=each_issue%5B7%5D%2Fclassify"},
	{"run-events", "/runs/" + idOf(3) + "?tab=events"},
	{"run-logs", "/runs/" + idOf(9) + "?tab=logs"},
	{"run-outputs", "/runs/" + idOf(4) + "?tab=outputs"},
	{"run-definition", "/runs/" + idOf(9) + "?tab=definition"},
	{"new", "/new"},
	{"new-run", "/new?run=" + idOf(4)},
	{"pipelines", "/pipelines"},
	{"pipeline", "/pipelines/nightly-triage"},
	{"about", "/about"},
	{"missing", "/nothing/here"},
}

// TestPagesAreAccessible shows every page to axe, wide and narrow, light and
// dark. With ORCHESTRATOR_SHOTS set to a folder it leaves pictures there.
func TestPagesAreAccessible(t *testing.T) {
	f := demo()
	f.many(2, 3000)
	url := serve(t, f).URL
	ctx := webtest.Browser(t)
	shots := os.Getenv("ORCHESTRATOR_SHOTS")
	for _, p := range everyPage {
		for _, scheme := range []string{"light", "dark"} {
			for _, size := range []struct {
				name string
				w, h int64
			}{{"wide", 1440, 900}, {"narrow", 390, 844}} {
				t.Run(p.name+"/"+scheme+"/"+size.name, func(t *testing.T) {
					webtest.Run(t, ctx, webtest.Size(size.w, size.h), webtest.Scheme(scheme),
						chromedp.Navigate(url+p.path), chromedp.WaitReady("#main"))
					if p.name == "new" || p.name == "new-run" {
						webtest.Until(t, ctx, `document.querySelector(".editor.on .gutter div") !== null`, 5*time.Second)
					}
					webtest.Accessible(t, ctx)
					if shots == "" {
						return
					}
					png, err := chromedp.Run(ctx, chromedp.CaptureScreenshot())
					if err != nil {
						t.Fatal(err)
					}
					name := filepath.Join(shots, p.name+"-"+scheme+"-"+size.name+".png")
					if err := os.WriteFile(name, png, 0o600); err != nil {
						t.Fatal(err)
					}
				})
			}
		}
	}
}
