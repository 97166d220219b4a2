//go:build unix

package main_test

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/input"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/chromedp"

	"github.com/orchestrator-project/orchestrator/web/webtest"
)

// tab is an open tab of a browser. Everything that its console says is an
// error of the test: see webtest.
type tab struct {
	t   testing.TB
	ctx context.Context //nolint:containedctx // chromedp keeps the tab in it

	navigated atomic.Int32 // how often the page was loaded
}

func browse(t testing.TB) *tab {
	t.Helper()
	b := &tab{t: t, ctx: webtest.Browser(t)}
	err := chromedp.Listen(b.ctx, func(ev any) {
		if e, ok := ev.(*page.EventFrameNavigated); ok && e.Frame.ParentID == "" {
			b.navigated.Add(1)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func (b *tab) do(actions ...chromedp.Action[chromedp.Void]) {
	b.t.Helper()
	webtest.Run(b.t, b.ctx, actions...)
}

// open loads a page.
func (b *tab) open(url string) {
	b.t.Helper()
	b.do(chromedp.Navigate(url), chromedp.WaitReady("#main"))
}

// until waits for an expression to hold, on this page or on the one that a
// click leads to.
func (b *tab) until(expr string) {
	b.t.Helper()
	var last error
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	late := time.After(patience)
	for {
		ok, err := chromedp.Run(b.ctx, chromedp.Evaluate[bool]("Boolean("+expr+")"))
		if ok {
			return
		}
		last = err // while a page loads there is none to ask
		select {
		case <-tick.C:
		case <-late:
			b.t.Fatalf("the page never got to %s: %v\n%s", expr, last, tail(b.text("body")))
		}
	}
}

// click clicks the element at its middle, as a mouse does.
func (b *tab) click(selector string) {
	b.t.Helper()
	b.do(chromedp.Click(chromedp.CSS(selector), chromedp.NodeVisible))
}

// write types into a field, in place of what it holds.
func (b *tab) write(selector, text string) {
	b.t.Helper()
	b.do(chromedp.Focus(chromedp.CSS(selector)))
	webtest.Eval[bool](b.t, b.ctx, fmt.Sprintf("document.querySelector(%q).select(), true", selector))
	b.insert(text)
}

// insert types at the cursor, in place of what is selected.
func (b *tab) insert(text string) {
	b.t.Helper()
	b.do(chromedp.Func(func(ctx context.Context, t *chromedp.Target) error {
		_, err := cdp.Call(ctx, t, input.InsertText, input.InsertTextParams{Text: text})
		return err
	}))
}

// text is what an element says.
func (b *tab) text(selector string) string {
	b.t.Helper()
	return webtest.Eval[string](b.t, b.ctx, fmt.Sprintf("document.querySelector(%q)?.innerText ?? ''", selector))
}

// shows waits until an element says something.
func (b *tab) shows(selector, text string) {
	b.t.Helper()
	b.until(fmt.Sprintf("document.querySelector(%q)?.innerText.includes(%q)", selector, text))
}

// node waits until a step's box in the graph has a state.
func (b *tab) node(step, state string) {
	b.t.Helper()
	b.until(fmt.Sprintf("document.getElementById(%q)?.classList.contains(%q)", "node-"+step, "s-"+state))
}

// stays holds that f happens on one page, without a load.
func (b *tab) stays(f func()) {
	b.t.Helper()
	webtest.Eval[bool](b.t, b.ctx, "window.untouched = true")
	before := b.navigated.Load()
	f()
	if n := b.navigated.Load() - before; n != 0 || !webtest.Eval[bool](b.t, b.ctx, "window.untouched === true") {
		b.t.Errorf("the page was loaded %d times", n)
	}
}

// deliveries is what the tests write in the browser, with a slip in line 9.
// Its steps wait for files in the folder dir.
const deliveries = `name: deliveries
description: Packs parcels and brings them
inputs:
  dir: {type: string, description: Where the doors are}
  parcels: {type: integer, default: 2, description: How many}
  speed: {type: enum, values: [slow, fast], default: slow}
steps:
  - id: pack
    run: echo packing {{ parcls | sh }} parcels; until [ -e {{ dir | sh }}/pack ]; do sleep 0.02; done
  - id: each
    for: {items: "{{ range(parcels) | list }}", variable: n}
    dependencies: [pack]
    steps:
      - id: bring
        run: echo parcel {{ n | sh }} goes {{ speed | sh }}; until [ -e {{ dir | sh }}/bring{{ n | sh }} ]; do sleep 0.02; done; echo parcel {{ n | sh }} is there
  - id: report
    set: {told: "{{ parcels }} parcels, {{ speed }}"}
    dependencies: [each]
outputs:
  text: "{{ told }}"
`

func TestBrowserWritesAPipelineAndWatchesItsRun(t *testing.T) {
	t.Parallel()
	s := serve(t, t.TempDir())
	dir := t.TempDir()
	b := browse(t)
	b.open(s.url + "/new")
	b.until(`document.querySelector(".editor.on .gutter div")`)
	b.stays(func() {
		b.write("#source", deliveries)
		b.shows("#findings .is-error", `"parcls" (did you mean "parcels"?)`)
		b.shows("#findings .is-error .place", "9:26")
		b.until(`document.querySelectorAll(".gutter div")[8].className === "error"`)
		// The place leads to the word, which is selected there.
		b.click("#findings .is-error .place")
		b.until(`document.activeElement.id === "source"`)
		b.insert("parcels")
		b.shows("#findings", "No findings")
		b.until(`document.getElementById("in-dir")`)
		b.shows("#preview", "bring")
		b.write("#in-dir", dir)
		b.write("#in-parcels", "3")
		b.do(chromedp.SetValue(chromedp.CSS("#in-speed"), `"fast"`))
	})
	b.click(`#new button[value="run"]`)
	b.until(`location.pathname.startsWith("/runs/")`)
	b.until(`document.getElementById("run-head")?.dataset.state === "running"`)
	run := webtest.Eval[string](t, b.ctx, `document.querySelector("[data-run]").dataset.run`)

	b.stays(func() { // the graph
		b.node("pack", "running")
		if got := webtest.Eval[string](t, b.ctx, `document.getElementById("node-report").getAttribute("class")`); strings.Contains(got, "s-running") || strings.Contains(got, "s-completed") {
			t.Errorf("a step that has not begun looks like %q", got)
		}
		touch(t, dir, "pack")
		b.node("pack", "completed")
		b.node("each/bring", "running")
	})
	b.click(`nav.tabs a[href*="tab=steps"]`)
	b.until(`document.getElementById("tab-steps")`)
	b.stays(func() { // the list of steps
		b.shows(`[id="step-each[0]/bring"]`, "Running")
		touch(t, dir, "bring0")
		b.shows(`[id="step-each[0]/bring"]`, "Completed")
		b.shows(`[id="step-each[1]/bring"]`, "Running")
	})
	b.click(`nav.tabs a[href*="tab=logs"]`)
	b.until(`document.getElementById("tab-logs")`)
	b.stays(func() { // the log
		b.shows("#log", "parcel 1 goes fast")
		touch(t, dir, "bring1")
		b.shows("#log", "parcel 1 is there")
		b.shows("#log", "parcel 2 goes fast")
	})
	b.click(`nav.tabs a[href*="tab=outputs"]`)
	b.until(`document.getElementById("tab-outputs")`)
	b.stays(func() { // the outputs
		touch(t, dir, "bring2")
		b.shows("#tab-outputs", "3 parcels, fast")
		b.until(`document.getElementById("run-head").dataset.state === "completed"`)
		b.shows("#announce", "")
	})
	s.finish(run, "COMPLETED", "pack", "each[0]/bring", "each[1]/bring", "each[2]/bring", "each", "report")
	b.open(s.url + "/runs/" + run)
	b.node("report", "completed")
	b.stays(func() { // a step's drawer opens and closes in place
		b.click("#node-pack a")
		b.shows("#drawer", "packing 3 parcels")
		b.do(chromedp.KeyEvent("\x1b"))
		b.until(`document.getElementById("drawer").hidden`)
	})
}

func TestBrowserCatchesUpAfterALostConnection(t *testing.T) {
	t.Parallel()
	s := serve(t, t.TempDir())
	dir := t.TempDir()
	source, paths := chain(6, 1, 2, 3, 4)
	id := s.submit(source, map[string]any{"dir": dir})
	starts(t, dir, "s1", 1)
	line := between(t, s.listen)
	b := browse(t)
	b.open("http://" + line.addr + "/runs/" + id + "?tab=events")
	b.stays(func() {
		b.shows("#events tbody", "s1")
		line.cut()
		b.shows("#lost", "Connection lost")
		touch(t, dir, "s1") // the run goes on unseen
		touch(t, dir, "s2")
		starts(t, dir, "s3", 1)
		if strings.Contains(b.text("#events"), "s3") {
			t.Error("the page knows what it cannot know")
		}
		line.mend()
		b.until(`document.getElementById("lost").hidden`)
		b.shows("#events tbody", "s3")

		s.kill() // now the server itself goes away
		b.shows("#lost", "Connection lost")
		touch(t, dir, "s3")
		s = s.again()
		b.until(`document.getElementById("lost").hidden`)
		b.shows("#events tbody", "s4")
		touch(t, dir, "s4")
		b.until(`document.getElementById("run-head").dataset.state === "completed"`)
	})
	// What has come bit by bit is the whole, and what a fresh page shows.
	all := s.finish(id, "COMPLETED", paths...)
	rows := func() string {
		return webtest.Eval[string](t, b.ctx, `[...document.querySelectorAll("#events tbody tr")].map(r => r.textContent.trim().replace(/\s+/g, " ")).join("\n")`)
	}
	live := rows()
	if n := strings.Count(live, "\n") + 1; n != len(all) {
		t.Errorf("the page has %d events of %d", n, len(all))
	}
	b.open(s.url + "/runs/" + id + "?tab=events")
	if fresh := rows(); fresh != live {
		t.Errorf("the page reads\n%s\na fresh one\n%s", live, fresh)
	}
}

func TestBrowserCancelsARun(t *testing.T) {
	t.Parallel()
	s := serve(t, t.TempDir())
	id := s.submit(gated, map[string]any{"dir": t.TempDir()})
	s.watch(id, 0, begins("gate"))
	b := browse(t)
	b.open(s.url + "/runs/" + id)
	b.node("gate", "running")
	b.click("#cancel summary")
	b.click("#cancel button.danger")
	b.until(`document.getElementById("run-head")?.dataset.state === "cancelled"`)
	b.node("gate", "cancelled")
	b.node("sweep", "completed")
	b.until(`!document.getElementById("cancel")`)
	s.finish(id, "CANCELLED", "sweep")
}

func TestBrowserFiltersAndPagesRuns(t *testing.T) {
	t.Parallel()
	s := serve(t, t.TempDir())
	const many = 60
	var last string
	for i := range many {
		last = s.submit("name: quick\nsteps: [{id: a, set: {x: 1}}]\n", nil, "labels", map[string]any{"n": fmt.Sprint(i)})
	}
	broken := s.submit("name: broken\nsteps: [{id: a, run: exit 3}]\n", nil)
	s.finish(broken, "FAILED")
	waits := s.submit(gated, map[string]any{"dir": t.TempDir()})
	s.watch(waits, 0, begins("gate"))
	s.finish(last, "COMPLETED")

	b := browse(t)
	rows := func() int { return webtest.Eval[int](t, b.ctx, `document.querySelectorAll("#runs tbody tr").length`) }
	b.open(s.url + "/runs")
	if n := rows(); n != 50 {
		t.Errorf("the first page has %d runs", n)
	}
	first := webtest.Eval[string](t, b.ctx, `document.querySelector("#runs tbody tr").id`)
	if first != "run-"+waits {
		t.Errorf("the first is %s, not the newest", first)
	}
	b.click(`#runs .pager a[rel="next"]`)
	b.until(`location.search.includes("page=")`)
	b.until(`document.querySelectorAll("#runs tbody tr").length === 12`)
	b.click(`#runs .pager a`) // newest
	b.until(`document.querySelectorAll("#runs tbody tr").length === 50`)

	b.write("#filter", "status:failed pipeline:broken")
	b.do(chromedp.KeyEvent("\r"))
	b.until(`location.search.includes("filter=")`)
	b.until(`document.querySelectorAll("#runs tbody tr").length === 1`)
	b.shows("#runs tbody", "broken")
	b.open(s.url + "/runs?filter=label.n%3D7")
	if n := rows(); n != 1 {
		t.Errorf("%d runs have the label", n)
	}
	b.click(`nav.chips a[href*="running"]`)
	b.until(`location.search.includes("running")`)
	b.shows("#runs", "No run fits")
	b.open(s.url + "/runs?filter=status:running")
	if n := rows(); n != 1 {
		t.Errorf("%d runs are running", n)
	}
	b.open(s.url + "/runs?filter=colour:red")
	b.shows("#filter-error", "colour")

	b.open(s.url + "/")
	b.shows("#home-running", "gated")
	b.shows("#home-failed", "broken")
	b.shows("#home-finished", "quick")
	b.stays(func() { // the list looks again by itself
		s.send("POST", "/v1/runs/"+waits+":cancel", "{}")
		b.shows("#home-running", "Nothing is running")
		b.shows("#home-finished", "gated")
	})
	b.click("#home-failed a.card")
	b.shows("#run-head", "exit code 3")
}

func TestBrowserWithoutJavaScript(t *testing.T) {
	t.Parallel()
	s := serve(t, t.TempDir())
	b := browse(t)
	b.do(chromedp.Func(func(ctx context.Context, t *chromedp.Target) error {
		_, err := cdp.Call(ctx, t, emulation.SetScriptExecutionDisabled, emulation.SetScriptExecutionDisabledParams{Value: true})
		return err
	}))
	b.open(s.url + "/new")
	b.write("#source", "name: plain\ninputs:\n  dir: {type: string}\nsteps:\n  - id: a\n    run: echo {{ dri | sh }}\n")
	b.click(`#new button[value="check"]`)
	b.shows("#findings", "6:18")
	b.write("#source", gated)
	b.click(`#new button[value="check"]`)
	b.until(`document.getElementById("in-dir")`)
	dir := t.TempDir()
	b.click(`#new button[value="run"]`) // without its input
	b.shows("#refused", "dir")
	b.write("#in-dir", dir)
	b.click(`#new button[value="run"]`)
	b.until(`location.pathname.startsWith("/runs/")`)
	id := webtest.Eval[string](t, b.ctx, `location.pathname.slice(6)`)
	s.watch(id, 0, begins("gate"))
	b.do(chromedp.Reload())
	b.shows("#run-head", "Running")
	b.node("gate", "running")
	touch(t, dir, "go")
	s.finish(id, "COMPLETED")
	b.do(chromedp.Reload())
	b.shows("#run-head", "Completed")
	for path, text := range map[string]string{
		"?tab=steps":      "sweep",
		"?tab=timeline":   "sweep",
		"?tab=events":     "run finished",
		"?tab=logs":       "swept",
		"?tab=outputs":    "passed",
		"?tab=definition": "until [ -e",
		"?step=gate":      "waiting",
	} {
		b.open(s.url + "/runs/" + id + path)
		b.shows("#run .body", text)
	}
	for path, text := range map[string]string{"/": "gated", "/runs": "gated", "/pipelines": "ipeline", "/about": "ersion", "/docs": "events:watch"} {
		b.do(chromedp.Navigate(s.url + path))
		b.shows("body", text)
	}
	// Cancelling needs no script either.
	id = s.submit(gated, map[string]any{"dir": t.TempDir()})
	s.watch(id, 0, begins("gate"))
	b.open(s.url + "/runs/" + id)
	b.click("#cancel summary")
	b.click("#cancel button.danger")
	b.shows("#run-head", "ancel")
	s.finish(id, "CANCELLED", "sweep")
}
