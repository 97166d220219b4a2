//go:build unix

package main_test

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"

	"github.com/orchestrator-project/orchestrator/web/webtest"
)

// triage is a pipeline with something of everything: loops, a choice, a
// failure that is tolerated, a step that is skipped, colours and long lines.
const triage = `name: nightly_triage_of_everything_that_came_in_since_yesterday_evening
version: 1.2.0
description: Reads what has come in, scores each item and writes a report
inputs:
  source: {type: string, default: "https://issues.example/a/very/long/path/without/any/break/in/it/index.json", description: Where the items are}
  items: {type: integer, default: 6, description: How many to read}
  depth: {type: enum, values: [shallow, deep], default: shallow}
  dry: {type: boolean, default: false}
  tags: {type: list, items: string, default: [new, small]}
steps:
  - id: load
    run: printf '\033[32mread\033[0m %s items from %s\n' {{ items | sh }} {{ source | sh }}
  - id: profile
    set: {seen: "{{ {'items': items, 'tags': tags, 'source': source} }}"}
    dependencies: [load]
  - id: statistics
    run: for i in 1 2 3 4 5; do echo "bucket $i <b>not bold</b>"; echo "warning $i" >&2; done
    dependencies: [load]
  - id: each_item
    for: {items: "{{ range(items) | list }}", variable: n}
    dependencies: [profile, statistics]
    steps:
      - id: classify
        run: echo item {{ n | sh }} | tr a-z A-Z
      - id: choose
        if:
          condition: n % 2 == 0
          then:
            - id: score
              set: {scored: "{{ n * 10 }}"}
        else:
          - id: reject
            run: echo rejected
  - id: extra
    condition: dry
    run: echo dry
    dependencies: [each_item]
  - id: notify
    run: 'echo "cannot reach the mail server at mail.example: connection refused" >&2; exit 7'
    on_failure: continue
    dependencies: [each_item]
  - id: report
    run: printf '# Report\n\n%s items, a long line follows %s\n' {{ items | sh }} "$(printf 'x%.0s' $(seq 200))"
    dependencies: [each_item]
outputs:
  report: "{{ report }}"
  profile: "{{ seen }}"
  count: "{{ items }}"
`

// TestPagesWithRealRunsAreAccessible shows every page to axe, light, dark and
// as narrow as a phone, and holds that nothing has to be scrolled sideways.
// With ORCHESTRATOR_SHOTS set to a folder it leaves pictures there.
func TestPagesWithRealRunsAreAccessible(t *testing.T) {
	t.Parallel()
	s := serve(t, t.TempDir())
	labels := map[string]any{"customer": "42", "team": "the people who look after what comes in at night"}
	code, _, text := s.send("POST", "/v1/pipelines", toJSON(t, map[string]any{"source": triage}))
	if code != http.StatusOK {
		t.Fatalf("register: %d %s", code, text)
	}
	var registered struct{ ID string }
	decode(t, text, &registered)
	done := s.submit(triage, map[string]any{"items": 8}, "labels", labels)
	s.watch(done, 0, nil)
	failed := s.submit("name: broken\nsteps:\n  - {id: first, run: echo fine}\n  - {id: second, run: 'echo no such file or directory >&2; exit 3', dependencies: [first]}\n  - {id: third, run: echo never, dependencies: [second]}\n", nil, "labels", labels)
	s.finish(failed, "FAILED")
	cancelled := s.submit(gated, map[string]any{"dir": t.TempDir()})
	s.watch(cancelled, 0, begins("gate"))
	s.send("POST", "/v1/runs/"+cancelled+":cancel", "{}")
	s.finish(cancelled, "CANCELLED")
	for range 8 {
		s.submit(greeting, map[string]any{"name": "Ada"})
	}
	running := s.submit(gated, map[string]any{"dir": t.TempDir()}, "labels", labels)
	s.watch(running, 0, begins("gate"))

	b := browse(t)
	shots := os.Getenv("ORCHESTRATOR_SHOTS")
	for _, p := range []struct{ name, path string }{
		{"home", "/"},
		{"runs", "/runs"},
		{"runs-none", "/runs?filter=pipeline:nothing"},
		{"runs-refused", "/runs?filter=colour:red"},
		{"run-graph", "/runs/" + done},
		{"run-drawer", "/runs/" + done + "?step=notify"},
		{"run-timeline", "/runs/" + done + "?tab=timeline"},
		{"run-steps", "/runs/" + done + "?tab=steps"},
		{"run-events", "/runs/" + done + "?tab=events"},
		{"run-logs", "/runs/" + done + "?tab=logs"},
		{"run-outputs", "/runs/" + done + "?tab=outputs"},
		{"run-definition", "/runs/" + done + "?tab=definition"},
		{"run-failed", "/runs/" + failed},
		{"run-cancelled", "/runs/" + cancelled + "?tab=steps"},
		{"run-running", "/runs/" + running},
		{"run-running-timeline", "/runs/" + running + "?tab=timeline"},
		{"new", "/new"},
		{"new-again", "/new?run=" + done},
		{"pipelines", "/pipelines"},
		{"pipeline", "/pipelines/" + registered.ID},
		{"about", "/about"},
		{"docs", "/docs"},
		{"missing", "/nothing"},
	} {
		shot := func(look string) {
			if shots == "" {
				return
			}
			png, err := chromedp.Run(b.ctx, chromedp.CaptureScreenshot())
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(shots, "e2e-"+p.name+"-"+look+".png"), png, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		t.Run(p.name, func(t *testing.T) {
			b.do(webtest.Size(1440, 900), webtest.Scheme("light"), chromedp.Navigate(s.url+p.path))
			if strings.HasPrefix(p.name, "new") {
				b.until(`document.querySelector(".editor.on .gutter div")`)
			}
			webtest.Accessible(t, b.ctx)
			shot("light")
			b.do(webtest.Scheme("dark"))
			webtest.Accessible(t, b.ctx)
			shot("dark")
			b.do(webtest.Size(390, 844), webtest.Scheme("light"), chromedp.Navigate(s.url+p.path))
			if p.name == "run-logs" && !webtest.Eval[bool](t, b.ctx, `[...document.querySelectorAll("#log .row .text")].some(e => e.textContent.trim() === "warning 3")`) {
				t.Error("the lines of the log do not stand alone")
			}
			if w := webtest.Eval[int](t, b.ctx, `document.documentElement.scrollWidth`); w > 390 {
				t.Errorf("at 390 px the page is %d px wide: %s", w, webtest.Eval[string](t, b.ctx, `[...document.querySelectorAll("body *")]
					.filter(e => e.getBoundingClientRect().right > 391 && !e.closest(".scroll, .graph-pane, pre, .log, .tabs, .editor"))
					.slice(0, 5).map(e => e.outerHTML.slice(0, 160)).join("\n")`))
			}
			webtest.Accessible(t, b.ctx)
			shot("narrow")
		})
	}
}
