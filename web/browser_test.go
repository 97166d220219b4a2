package web

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	api "github.com/orchestrator-project/orchestrator/proto/orchestrator/v1"
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
	{"approvals", "/approvals"},
	{"approvals-decided", "/approvals?status=all"},
	{"approvals-none", "/approvals?status=withdrawn"},
	{"approval-choices", "/approvals/" + approvalID(1)},
	{"approval-approve", "/approvals/" + approvalID(2)},
	{"approval-typed", "/approvals/" + approvalID(3)},
	{"approval-unclear", "/approvals/" + approvalID(4)},
	{"approval-done", "/approvals/" + approvalID(5)},
	{"run-waits", "/runs/" + idOf(12)},
	{"run-waits-drawer", "/runs/" + idOf(12) + "?tab=steps&step=draft"},
	{"run-release-events", "/runs/" + idOf(13) + "?tab=events"},
	{"run-release-steps", "/runs/" + idOf(13) + "?tab=steps&step=ship"},
	{"run-release-graph", "/runs/" + idOf(13)},
	{"run-artifacts", "/runs/" + idOf(13) + "?tab=artifacts"},
	{"run-artifacts-none", "/runs/" + idOf(9) + "?tab=artifacts"},
	{"new", "/new"},
	{"new-run", "/new?run=" + idOf(4)},
	{"pipelines", "/pipelines"},
	{"pipeline", "/pipelines/nightly-triage"},
	{"run-queued", "/runs/" + idOf(8)},
	{"run-waiting", "/runs/" + idOf(10)},
	{"run-paused", "/runs/" + idOf(14)},
	{"run-forked", "/runs/" + idOf(15) + "?tab=steps&step=load"},
	{"fork", "/runs/" + idOf(15) + "/fork"},
	{"fork-step", "/runs/" + idOf(15) + "/fork?from=report"},
	{"fork-refused", "/runs/" + idOf(15) + "/fork?at=901"},
	{"queues", "/queues"},
	{"queue", "/queues/default"},
	{"queue-new", "/queues/never-used"},
	{"schedules", "/schedules"},
	{"schedules-none", "/schedules?pipeline=nothing"},
	{"schedule", "/schedules/nightly-triage"},
	{"schedule-paused", "/schedules/summarise?added=3"},
	{"schedule-new", "/schedules/new?pipeline=nightly-triage"},
	{"workers", "/workers"},
	{"workers-none", "/workers?label=arm"},
	{"about", "/about"},
	{"storage", "/storage"},
	{"missing", "/nothing/here"},
	{"run-filled-drawer", "/runs/" + idOf(18) + "?tab=steps&step=report"},
	{"run-filled-definition", "/runs/" + idOf(18) + "?tab=definition"},
	{"fork-edit", "/runs/" + idOf(18) + "/fork?auto=report.length"},
}

// TestPagesAreAccessible shows every page to axe, wide and narrow, light and
// dark. With ORCHESTRATOR_SHOTS set to a folder it leaves pictures there.
func TestPagesAreAccessible(t *testing.T) {
	f := demo()
	f.many(2, 3000)
	f.agentRun(17)
	f.filledRun(18)
	url := serve(t, f).URL
	shots := os.Getenv("ORCHESTRATOR_SHOTS")
	for _, scheme := range []string{"light", "dark"} {
		t.Run(scheme, func(t *testing.T) {
			ctx := webtest.Browser(t)
			for _, p := range slices.Concat(everyPage, agentPages) {
				for _, size := range []struct {
					name string
					w, h int64
				}{{"wide", 1440, 900}, {"narrow", 390, 844}} {
					t.Run(p.name+"/"+size.name, func(t *testing.T) {
						webtest.Run(t, ctx, webtest.Size(size.w, size.h), webtest.Scheme(scheme),
							chromedp.Navigate(url+p.path), chromedp.WaitReady("#main"))
						if p.name == "new" || p.name == "new-run" {
							webtest.Until(t, ctx, `document.querySelector(".editor.on .gutter div") !== null`, soon)
						}
						webtest.Accessible(t, ctx)
						if got := webtest.Eval[int64](t, ctx, `document.documentElement.scrollWidth`); got > size.w {
							t.Errorf("the page is %d wide in a window of %d", got, size.w)
						}
						picture(t, ctx, shots, p.name+"-"+scheme+"-"+size.name)
					})
				}
			}
		})
	}
}

// picture leaves a picture of the open page in a folder, if there is one.
func picture(t *testing.T, ctx context.Context, folder, name string) { //nolint:revive // the test comes first, as everywhere
	t.Helper()
	if folder == "" {
		return
	}
	png, err := chromedp.Run(ctx, chromedp.CaptureScreenshot())
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(folder, name+".png"), png, 0o600); err != nil {
		t.Fatal(err)
	}
}

// open shows a page and marks it, so that a reload would be noticed.
func open(t *testing.T, ctx context.Context, url string) { //nolint:revive // the test comes first, as everywhere
	t.Helper()
	webtest.Run(t, ctx, chromedp.Navigate(url), chromedp.WaitReady("#main"))
	webtest.Eval[bool](t, ctx, `window.marked = true`)
}

// same fails the test if the page has been loaded anew since open.
func same(t *testing.T, ctx context.Context) { //nolint:revive // the test comes first, as everywhere
	t.Helper()
	if !webtest.Eval[bool](t, ctx, `window.marked === true`) {
		t.Error("the page was loaded anew")
	}
}

// soon is the patience for what comes within a second on a quiet machine.
const soon = time.Minute

func TestBrowserWatchesARunToItsEnd(t *testing.T) {
	f := newFake()
	s := f.running(9)
	line := webtest.NewLine(t, serve(t, f).URL)
	ctx := webtest.Browser(t)
	open(t, ctx, line.URL+pathOfRun(s.run.Id))
	webtest.Run(t, ctx, chromedp.Click(chromedp.CSS("#cancel > summary"))) // what the reader opened stays open
	begin := time.Now()
	s.step("report", api.Step_RUNNING, time.Now(), nil)
	webtest.Until(t, ctx, `document.getElementById("node-report").classList.contains("s-running")`, soon)
	t.Logf("on the screen after %v", time.Since(begin))
	if !webtest.Eval[bool](t, ctx, `document.getElementById("cancel").open`) {
		t.Error("a patch closed what the reader had opened")
	}

	line.Cut()
	webtest.Until(t, ctx, `!document.getElementById("lost").hidden && document.getElementById("lost").textContent.includes("reconnecting")`, soon)
	webtest.Accessible(t, ctx)
	s.step("sample", api.Step_FAILED, time.Now(), nil)
	s.step("check", api.Step_FAILED, time.Now(), nil)
	line.Mend()
	webtest.Until(t, ctx, `document.getElementById("lost").hidden`, soon)
	webtest.Until(t, ctx, `document.getElementById("node-check").classList.contains("s-failed")`, soon)

	boom := &api.Failure{Kind: "failed", Step: "sample", Message: "it <b>broke</b>"}
	s.finish(api.Run_FAILED, time.Now(), func(r *api.Run) { r.Error = boom })
	webtest.Until(t, ctx, `document.querySelector("#run-head[data-state=failed] .failure") !== null`, soon)
	webtest.Until(t, ctx, `document.getElementById("announce").textContent === "The run is failed."`, soon)
	if !webtest.Eval[bool](t, ctx, `document.querySelector(".failure").textContent.includes("it <b>broke</b>") && document.getElementById("cancel") === null`) {
		t.Error("the failure is not shown as it is")
	}
	same(t, ctx)
}

func TestBrowserOpensStepsWithoutLeaving(t *testing.T) {
	f := newFake()
	s := f.running(9)
	ctx := webtest.Browser(t)
	open(t, ctx, serve(t, f).URL+pathOfRun(s.run.Id)+"?tab=steps")
	webtest.Run(t, ctx, chromedp.KeyEvent("j"), chromedp.KeyEvent("j"), chromedp.KeyEvent("k"), chromedp.KeyEvent("\r"))
	webtest.Until(t, ctx, `document.activeElement.id === "drawer-title" && document.activeElement.textContent.includes("load")`, soon)
	if !webtest.Eval[bool](t, ctx, `new URLSearchParams(location.search).get("step") === "load" && document.getElementById("step-load").classList.contains("open")`) {
		t.Error("the address or the list does not name the open step")
	}
	webtest.Run(t, ctx, chromedp.KeyEvent("\x1b"))
	webtest.Until(t, ctx, `document.getElementById("drawer").hidden && !location.search.includes("step=")`, soon)
	webtest.Run(t, ctx, chromedp.NavigateBack())
	webtest.Until(t, ctx, `!document.getElementById("drawer").hidden`, soon)

	// The open step is live: its output and its log arrive by themselves.
	open(t, ctx, serve(t, f).URL+pathOfRun(s.run.Id)+"?tab=steps&status=running")
	webtest.Run(t, ctx, chromedp.Click(chromedp.CSS(`#step-sample a`)))
	webtest.Until(t, ctx, `document.getElementById("drawer").textContent.includes("sample")`, soon)
	s.say("sample", "stdout", "still going", time.Now())
	webtest.Until(t, ctx, `document.getElementById("drawer-log").textContent.includes("still going")`, soon)
	s.step("sample", api.Step_COMPLETED, time.Now(), func(st *api.Step) { st.Output = `"forty-two"` })
	webtest.Until(t, ctx, `document.getElementById("drawer").textContent.includes("forty-two")`, soon)
	webtest.Until(t, ctx, `document.getElementById("step-sample") === null`, soon) // it is not running any more
	if n := webtest.Eval[int](t, ctx, `document.querySelectorAll("#drawer-log .row").length`); n != 1 {
		t.Errorf("the log shows %d lines, want 1", n)
	}
	same(t, ctx)
	webtest.Run(t, ctx, chromedp.KeyEvent("/"))
	webtest.Until(t, ctx, `document.activeElement.id === "step-find"`, soon)
}

func TestBrowserEditsAndRuns(t *testing.T) {
	f := demo()
	ctx := webtest.Browser(t)
	open(t, ctx, serve(t, f).URL+"/new")
	webtest.Until(t, ctx, `document.querySelector(".editor.on") !== null`, soon)
	webtest.Run(t, ctx, chromedp.SendKeys(chromedp.CSS("#in-repo"), "acme/site"))
	webtest.Eval[bool](t, ctx, `(() => { const s = document.getElementById("source"); s.focus(); s.setSelectionRange(s.value.length, s.value.length); return true })()`)
	webtest.Run(t, ctx, chromedp.KeyEvent("  flaw"))
	webtest.Until(t, ctx, `document.querySelector(".gutter .error")?.textContent === "9"`, soon)
	webtest.Until(t, ctx, `document.querySelector("#findings .is-error") !== null`, soon)
	webtest.Accessible(t, ctx)
	webtest.Run(t, ctx, chromedp.Click(chromedp.CSS("#findings [data-goto]")))
	if got := webtest.Eval[string](t, ctx, `(() => { const s = document.activeElement; return s.value.slice(s.selectionStart, s.selectionEnd) })()`); got != "flaw" {
		t.Errorf("the finding leads to %q", got)
	}
	webtest.Run(t, ctx, chromedp.KeyEvent("\b"))
	webtest.Until(t, ctx, `document.querySelector(".gutter .error") === null && document.querySelector("#findings .fine") !== null`, soon)
	if got := webtest.Eval[string](t, ctx, `document.getElementById("in-repo").value`); got != "acme/site" {
		t.Errorf("while checking, the input became %q", got)
	}
	same(t, ctx)
	webtest.Run(t, ctx, chromedp.Click(chromedp.CSS("button[value=run]")), chromedp.WaitReady("#run-head"))
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.created) != 1 || f.created[0].Inputs != `{"repo":"acme/site"}` {
		t.Errorf("asked for %v", f.created)
	}
}

// Questions come and go on an open inbox, and on the page of the run.
func TestBrowserDecides(t *testing.T) {
	f := newFake()
	s := f.begin(1, "p", demoGraph(), "")
	s.start(epoch)
	url := serve(t, f).URL
	ctx := webtest.Browser(t)
	open(t, ctx, url+"/approvals")
	webtest.Until(t, ctx, `document.querySelector("#approvals .empty") !== null`, soon)
	first := s.ask(1, "load", "approve", "Ship it?", nil)
	webtest.Until(t, ctx, `document.querySelector("#approvals .ask") !== null && document.querySelector("#nav-approvals .badge").textContent.startsWith("1")`, soon)
	same(t, ctx)
	webtest.Run(t, ctx, chromedp.KeyEvent("j"), chromedp.KeyEvent("\r"), chromedp.WaitReady("form.decide"),
		chromedp.SendKeys(chromedp.CSS("textarea[name=comment]"), "Fine <b>by</b> me"), chromedp.Click(chromedp.CSS("button[value=approve]")), chromedp.WaitReady(".said"))
	if got := f.decisions(); len(got) != 1 || got[0].Decision != "approve" || got[0].Comment != "Fine <b>by</b> me" {
		t.Errorf("decided %v", got)
	}

	open(t, ctx, url+pathOfRun(s.run.Id)+"?tab=steps")
	second := s.ask(2, "profile", "ask", "Which?", func(a *api.Approval) { a.Choices = `["now","never"]` })
	webtest.Until(t, ctx, `document.querySelector("#waits form.decide") !== null`, soon)
	webtest.Run(t, ctx, chromedp.SendKeys(chromedp.CSS("#waits textarea[name=comment]"), "half a thou"), chromedp.Click(chromedp.CSS("#waits .radio")))
	s.waits("stats", &api.Waiting{For: "signal", Signal: "go"})
	webtest.Until(t, ctx, `document.querySelector("#waits form.signal") !== null`, soon)
	if !webtest.Eval[bool](t, ctx, `document.querySelector("#waits textarea[name=comment]").value === "half a thou" && document.querySelector("#waits input[type=radio]").checked`) {
		t.Error("what was typed is lost when the page changes")
	}
	webtest.Accessible(t, ctx)
	same(t, ctx)
	webtest.Run(t, ctx, chromedp.Click(chromedp.CSS("#waits button[value=answer]")), chromedp.WaitReady("#waits:not(:has(form.decide))"))
	if got := f.decisions(); len(got) != 2 || got[1].Id != second.Id || got[1].Value != `"now"` || got[0].Id != first.Id {
		t.Errorf("decided %v", got)
	}
}

func TestBrowserShowsADryRun(t *testing.T) {
	f := demo()
	ctx := webtest.Browser(t)
	shots := os.Getenv("ORCHESTRATOR_SHOTS")
	for _, width := range []int64{1440, 390} {
		webtest.Run(t, ctx, webtest.Size(width, 900))
		open(t, ctx, serve(t, f).URL+"/new")
		webtest.Run(t, ctx, chromedp.SendKeys(chromedp.CSS("#in-repo"), "acme/site"), chromedp.Click(chromedp.CSS("button[value=dry]")), chromedp.WaitReady("#plan"))
		webtest.Accessible(t, ctx)
		picture(t, ctx, shots, "dry-run-"+itoa(int32(width)))
	}
}

func TestBrowserKeepsTheChosenTheme(t *testing.T) {
	url := serve(t, demo()).URL
	ctx := webtest.Browser(t)
	webtest.Run(t, ctx, webtest.Scheme("light"))
	open(t, ctx, url+"/runs")
	webtest.Run(t, ctx, chromedp.Click(chromedp.CSS("[data-theme-toggle]")))
	const page = `getComputedStyle(document.body).backgroundColor`
	dark := webtest.Eval[string](t, ctx, page)
	open(t, ctx, url+"/")
	if got := webtest.Eval[string](t, ctx, page); got != dark || got == "rgb(246, 247, 249)" {
		t.Errorf("chosen dark %s, on the next page %s", dark, got)
	}
}

// Lists look again by themselves, and leave alone what has not changed.
func TestBrowserRefreshesLists(t *testing.T) {
	f := demo()
	ctx := webtest.Browser(t)
	open(t, ctx, serve(t, f).URL+"/runs")
	webtest.Run(t, ctx, chromedp.KeyEvent("j"))
	focused := webtest.Eval[string](t, ctx, `document.activeElement.href`)
	f.begin(20, "brand-new", demoGraph(), "")
	webtest.Until(t, ctx, `document.querySelector("#runs tbody tr").textContent.includes("brand-new")`, 2*soon)
	if got := webtest.Eval[string](t, ctx, `document.activeElement.href`); got != focused || focused == "" {
		t.Errorf("the focus moved from %s to %s", focused, got)
	}
	same(t, ctx)
}
