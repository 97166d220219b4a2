package web

import (
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/html"

	api "github.com/orchestrator-project/orchestrator/proto/orchestrator/v1"
)

// serve starts the pages in front of f.
func serve(t testing.TB, f *fake) *httptest.Server {
	t.Helper()
	srv := httptest.NewServer(New(Config{Conn: dial(t, f), Version: "1.0.0", Logger: slog.New(slog.DiscardHandler)}))
	t.Cleanup(srv.Close)
	return srv
}

// get reads a page and parses it.
func get(t testing.TB, url string) (*html.Node, *http.Response, string) {
	t.Helper()
	res, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	return parsed(t, res)
}

func parsed(t testing.TB, res *http.Response) (*html.Node, *http.Response, string) {
	t.Helper()
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	doc, err := html.Parse(strings.NewReader(string(b)))
	if err != nil {
		t.Fatal(err)
	}
	return doc, res, string(b)
}

func attr(n *html.Node, name string) string {
	for _, a := range n.Attr {
		if a.Key == name {
			return a.Val
		}
	}
	return ""
}

// byID finds an element or fails.
func byID(t testing.TB, doc *html.Node, id string) *html.Node {
	t.Helper()
	for n := range doc.Descendants() {
		if n.Type == html.ElementNode && attr(n, "id") == id {
			return n
		}
	}
	t.Fatalf("no element with id %q", id)
	return nil
}

// textOf is all text in an element, with single blanks.
func textOf(n *html.Node) string {
	var b strings.Builder
	for c := range n.Descendants() {
		if c.Type == html.TextNode {
			b.WriteString(c.Data)
			b.WriteByte(' ')
		}
	}
	return strings.Join(strings.Fields(b.String()), " ")
}

func TestHomeShowsWhatGoesOn(t *testing.T) {
	url := serve(t, demo()).URL
	doc, res, _ := get(t, url+"/")
	if res.StatusCode != http.StatusOK {
		t.Fatal(res.Status)
	}
	for id, want := range map[string]string{
		"home-running": "nightly-triage", "home-waiting": "Queued summarise", "home-failed": "429 Too Many Requests", "home-finished": "Cancelled summarise",
	} {
		if got := textOf(byID(t, doc, id)); !strings.Contains(got, want) {
			t.Errorf("#%s says %q, want %q in it", id, got, want)
		}
	}
}

func TestEmptyPagesNameTheCommand(t *testing.T) {
	url := serve(t, newFake()).URL
	for _, path := range []string{"/", "/runs", "/pipelines", "/queues", "/schedules", "/workers"} {
		doc, _, _ := get(t, url+path)
		if got := textOf(byID(t, doc, "main")); !strings.Contains(got, "orchestrator ") {
			t.Errorf("%s says %q, which names no command", path, got)
		}
	}
}

func TestRunsArePagedByKeysAndFiltered(t *testing.T) {
	f := newFake()
	for n := range 120 {
		s := f.begin(n, "p", demoGraph(), "")
		if n%10 == 0 {
			s.finish(api.Run_FAILED, epoch, nil)
		}
	}
	url := serve(t, f).URL
	seen := map[string]bool{}
	pages := 0
	for next := "/runs"; next != ""; pages++ {
		doc, _, _ := get(t, url+next)
		next = ""
		for n := range doc.Descendants() {
			if n.Data == "tr" && strings.HasPrefix(attr(n, "id"), "run-") {
				if seen[attr(n, "id")] {
					t.Errorf("%s stands on two pages", attr(n, "id"))
				}
				seen[attr(n, "id")] = true
			}
			if attr(n, "rel") == "next" {
				next = attr(n, "href")
			}
		}
	}
	if len(seen) != 120 || pages != 3 {
		t.Errorf("%d runs on %d pages, want 120 on 3", len(seen), pages)
	}
	doc, _, _ := get(t, url+"/runs?filter=status:failed")
	if got := strings.Count(textOf(byID(t, doc, "runs")), "Failed"); got != 12 {
		t.Errorf("the filter shows %d failed runs, want 12", got)
	}
	doc, res, _ := get(t, url+"/runs?filter=colour:red")
	if got := textOf(byID(t, doc, "filter-error")); res.StatusCode != http.StatusBadRequest || !strings.Contains(got, "unknown filter") {
		t.Errorf("a bad filter gives %s, %q", res.Status, got)
	}
	if got := attr(byID(t, doc, "filter"), "value"); got != "colour:red" {
		t.Errorf("what was typed became %q", got)
	}
}

func TestRunShowsItsFailureOnTop(t *testing.T) {
	f := demo()
	url := serve(t, f).URL
	doc, _, body := get(t, url+pathOfRun(idOf(3)))
	head := byID(t, doc, "run-head")
	if got := textOf(head); !strings.Contains(got, "Failed") || !strings.Contains(got, "429 Too Many Requests: <b>slow down</b>") {
		t.Errorf("the head says %q", got)
	}
	if strings.Contains(body, "<b>slow") {
		t.Error("the error's text became markup")
	}
	var to string
	for n := range head.Descendants() {
		if n.Data == "a" && textOf(n) == "each_issue[7]/classify" {
			to = attr(n, "href")
		}
	}
	doc, _, _ = get(t, url+to)
	drawer := textOf(byID(t, doc, "drawer"))
	for _, want := range []string{"Attempts 1 Failed", "2 Failed", "rate limit", "It crashes when the list is empty", "Line 21 of nightly-triage.yaml", "error: <script>alert(1)</script>"} {
		if !strings.Contains(drawer, want) {
			t.Errorf("the drawer does not say %q: %s", want, drawer)
		}
	}
}

func TestTabsOfARun(t *testing.T) {
	f := demo()
	url := serve(t, f).URL + pathOfRun(idOf(4))
	for tab, want := range map[string][]string{
		"timeline":   {"[19] score", "report"},
		"steps":      {"Completed 46", "Skipped 1", "branch not taken", "1 to 47 of 47"},
		"events":     {"run finished", "step skipped"},
		"logs":       {"20 issues read from acme/site", "each_issue[19]/classify"},
		"outputs":    {"9007199254740993", "# Report", "acme/site"},
		"definition": {"id : nightly-triage", "{{ classify.label }}"},
	} {
		doc, res, _ := get(t, url+"?tab="+tab)
		got := textOf(byID(t, doc, "tab-"+tab))
		for _, w := range want {
			if res.StatusCode != http.StatusOK || !strings.Contains(got, w) {
				t.Errorf("tab %s (%s) does not say %q: %.600s", tab, res.Status, w, got)
			}
		}
	}
	doc, _, _ := get(t, url)
	if got := attr(byID(t, doc, "node-check/sample"), "class"); !strings.Contains(got, "s-skipped") {
		t.Errorf("the skipped node has the classes %q", got)
	}
}

func TestCancelAsksTheAPI(t *testing.T) {
	f := demo()
	url := serve(t, f).URL
	res, err := http.PostForm(url+pathOfRun(idOf(9))+"/cancel", nil)
	if err != nil {
		t.Fatal(err)
	}
	doc, res, _ := parsed(t, res)
	if res.Request.URL.Path != pathOfRun(idOf(9)) || !strings.Contains(textOf(byID(t, doc, "run-head")), "cancelling") {
		t.Errorf("after cancelling: %s %q", res.Request.URL, textOf(byID(t, doc, "run-head")))
	}
	res, err = http.PostForm(url+pathOfRun(idOf(3))+"/cancel", nil)
	if err != nil {
		t.Fatal(err)
	}
	if doc, res, _ = parsed(t, res); res.StatusCode != http.StatusConflict || !strings.Contains(textOf(doc), "has already finished") {
		t.Errorf("cancelling a finished run: %s", res.Status)
	}
}

func TestErrorsOfTheAPIBecomePages(t *testing.T) {
	url := serve(t, demo()).URL
	for path, code := range map[string]int{
		pathOfRun("nope"): http.StatusNotFound, "/pipelines/nope": http.StatusNotFound, "/nothing": http.StatusNotFound, "/live?run=nope": http.StatusNotFound,
		"/new?run=nope": http.StatusNotFound,
	} {
		if _, res, _ := get(t, url+path); res.StatusCode != code {
			t.Errorf("%s gives %s, want %d", path, res.Status, code)
		}
	}
}

func TestPagesHoldNoInlineScriptOrStyle(t *testing.T) {
	f := demo()
	f.many(2, 3000)
	url := serve(t, f).URL
	for _, p := range everyPage {
		doc, res, _ := get(t, url+p.path)
		csp := res.Header.Get("Content-Security-Policy")
		if strings.Contains(csp, "unsafe") || !strings.Contains(csp, "default-src 'none'") {
			t.Errorf("%s: policy %q", p.path, csp)
		}
		ids := map[string]bool{}
		for n := range doc.Descendants() {
			if n.Type != html.ElementNode {
				continue
			}
			for _, a := range n.Attr {
				if a.Key == "style" || strings.HasPrefix(a.Key, "on") || strings.HasPrefix(a.Val, "javascript:") {
					t.Errorf("%s: <%s %s=%q>", p.path, n.Data, a.Key, a.Val)
				}
				if a.Key == "id" {
					if ids[a.Val] {
						t.Errorf("%s: two elements with id %q", p.path, a.Val)
					}
					ids[a.Val] = true
				}
			}
			if n.Data == "style" || n.Data == "script" && n.FirstChild != nil {
				t.Errorf("%s: inline <%s>", p.path, n.Data)
			}
		}
	}
}

func TestOtherSitesCannotPost(t *testing.T) {
	f := demo()
	url := serve(t, f).URL
	for _, path := range []string{"/new", "/new/check", pathOfRun(idOf(9)) + "/cancel"} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url+path, strings.NewReader("source=x"))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		req.Header.Set("Origin", "https://evil.example")
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if res.StatusCode != http.StatusForbidden {
			t.Errorf("%s from another site: %s", path, res.Status)
		}
	}
	if f.calls["CancelRun"]+f.calls["CreateRun"] != 0 {
		t.Error("another site changed something")
	}
}

func TestStaticFilesAreKeptByTheirContent(t *testing.T) {
	url := serve(t, newFake()).URL
	_, res, _ := get(t, url+static("app.css"))
	if res.StatusCode != http.StatusOK || !strings.Contains(res.Header.Get("Cache-Control"), "immutable") {
		t.Errorf("%s %s", res.Status, res.Header.Get("Cache-Control"))
	}
	if _, res, _ = get(t, url+"/static/app.css"); strings.Contains(res.Header.Get("Cache-Control"), "immutable") {
		t.Error("an address without the content's mark is kept for ever")
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url+"/static/app.css", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("If-None-Match", res.Header.Get("ETag"))
	res, err = http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if res.StatusCode != http.StatusNotModified {
		t.Errorf("the same content again: %s", res.Status)
	}
}

// A run of 100,000 steps shows its first page at once: windows, slices and a
// bounded time for reading what nobody has read before.
func TestHugeRunsStaySmallOnTheScreen(t *testing.T) {
	f := newFake()
	s := f.many(1, 100_000)
	url := serve(t, f).URL + pathOfRun(s.run.Id)
	begin := time.Now()
	_, res, _ := get(t, url)
	first := time.Since(begin)
	t.Logf("first paint of %d steps: %v", len(s.steps), first)
	if res.StatusCode != http.StatusOK || first > 30*time.Second { // 300 ms on a quiet machine, minutes where it is read to its end
		t.Errorf("first paint: %s after %v", res.Status, first)
	}
	for _, tab := range []string{"graph", "timeline", "steps", "events", "logs", "outputs", "steps&at=50000", "steps&status=failed"} {
		begin := time.Now()
		doc, res, body := get(t, url+"?tab="+tab)
		rows := 0
		for n := range doc.Descendants() {
			if n.Data == "tr" {
				rows++
			}
		}
		t.Logf("tab %s: %d KB, %d rows, %v", tab, len(body)>>10, rows, time.Since(begin))
		if res.StatusCode != http.StatusOK || len(body) > 1<<20 || rows > 210 {
			t.Errorf("tab %s: %s, %d bytes, %d rows", tab, res.Status, len(body), rows)
		}
	}
	doc, _, _ := get(t, url+"?step=each_issue%5B33333%5D%2Fscore")
	if got := textOf(byID(t, doc, "drawer")); !strings.Contains(got, "Completed") {
		t.Errorf("the drawer says %q", got)
	}
}
