package web

import (
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	api "github.com/orchestrator-project/orchestrator/proto/orchestrator/v1"
)

func TestInboxShowsWhatIsAsked(t *testing.T) {
	f := demo()
	addr := serve(t, f).URL
	doc, _, body := get(t, addr+"/approvals")
	list := textOf(byID(t, doc, "approvals"))
	for _, want := range []string{"Ship <a major> release?", "Question of ask_head in release", "due in 2 h", "Ship it?", "due in 8 min"} {
		if !strings.Contains(list, want) {
			t.Errorf("the inbox does not say %q: %s", want, list)
		}
	}
	if strings.Contains(body, "<a major>") {
		t.Error("a question became markup")
	}
	if got := textOf(byID(t, doc, "nav-approvals")); got != "Approvals 4 open" {
		t.Errorf("the navigation says %q", got)
	}
	doc, _, _ = get(t, addr+"/")
	if got := textOf(byID(t, doc, "home-asked")); !strings.Contains(got, "Ship it?") {
		t.Errorf("the home page says %q", got)
	}
	doc, _, _ = get(t, addr+"/approvals?status=withdrawn")
	if got := textOf(byID(t, doc, "approvals")); !strings.Contains(got, "No approval of this kind") {
		t.Errorf("of the withdrawn ones it says %q", got)
	}
	if _, res, _ := get(t, addr+"/approvals/nope"); res.StatusCode != http.StatusNotFound {
		t.Errorf("an unknown approval: %s", res.Status)
	}
}

func TestInboxIsPagedByKeys(t *testing.T) {
	f := newFake()
	s := f.begin(1, "p", demoGraph(), "")
	for n := range 120 {
		s.ask(n, "ask", "ask", "Well?", nil)
	}
	addr := serve(t, f).URL
	seen, pages := map[string]bool{}, 0
	for next := "/approvals"; next != ""; pages++ {
		doc, _, _ := get(t, addr+next)
		next = ""
		for n := range doc.Descendants() {
			if strings.HasPrefix(attr(n, "id"), "ask-") {
				seen[attr(n, "id")] = true
			}
			if attr(n, "rel") == "next" {
				next = attr(n, "href")
			}
		}
		if got := textOf(byID(t, doc, "nav-approvals")); got != "Approvals 99+ open" {
			t.Errorf("the navigation says %q", got)
		}
	}
	if len(seen) != 120 || pages != 3 {
		t.Errorf("%d approvals on %d pages, want 120 on 3", len(seen), pages)
	}
}

// Each kind has its form, and what is sent is what the API takes.
func TestDecisionsByKind(t *testing.T) {
	with := func(typ, choices string) func(*api.Approval) {
		return func(a *api.Approval) { a.Type, a.Choices = typ, choices }
	}
	for _, c := range []struct {
		name, kind string
		change     func(*api.Approval)
		form       url.Values
		want       string // decision, value, comment; empty: refused by the form
	}{
		{"approve", "approve", nil, url.Values{"decision": {"approve"}, "comment": {" fine \r\n"}}, "approve||fine"},
		{"reject", "approve", nil, url.Values{"decision": {"reject"}, "value": {"ignored"}}, "reject||"},
		{"text", "ask", nil, url.Values{"decision": {"answer"}, "value": {"one\r\ntwo: 2"}}, `answer|"one\ntwo: 2"|`},
		{"no text", "ask", nil, url.Values{"decision": {"answer"}, "value": {""}}, `answer|""|`},
		{"a choice", "ask", with("", `["now",7]`), url.Values{"decision": {"answer"}, "value": {"7"}}, "answer|7|"},
		{"no choice", "ask", with("", `["now",7]`), url.Values{"decision": {"answer"}}, ""},
		{"yes", "ask", with("boolean", ""), url.Values{"decision": {"answer"}, "value": {"true"}}, "answer|true|"},
		{"a number", "ask", with("number", ""), url.Values{"decision": {"answer"}, "value": {" 2.5 "}}, "answer|2.5|"},
		{"no number", "ask", with("optional integer", ""), url.Values{"decision": {"answer"}, "value": {"three"}}, ""},
		{"nothing typed", "ask", with("integer", ""), url.Values{"decision": {"answer"}, "value": {" "}}, ""},
		{"refused by the API", "ask", with("integer", ""), url.Values{"decision": {"answer"}, "value": {"2.5"}}, ""},
		{"a list", "ask", with("list<string>", ""), url.Values{"decision": {"answer"}, "value": {"- a\n- b"}}, `answer|["a","b"]|`},
		{"a map as JSON", "ask", with("map {n: integer}", ""), url.Values{"decision": {"answer"}, "value": {`{"n": 9007199254740993}`}}, `answer|{"n": 9007199254740993}|`},
		{"no map", "ask", with("map", ""), url.Values{"decision": {"answer"}, "value": {"{n: ["}}, ""},
		{"again", "needs_decision", nil, url.Values{"decision": {"retry"}, "value": {"left behind"}}, "retry||"},
		{"done with an output", "needs_decision", nil, url.Values{"decision": {"done"}, "value": {"id: 7"}}, `done|{"id":7}|`},
		{"done", "needs_decision", nil, url.Values{"decision": {"done"}}, "done||"},
		{"nothing decided", "approve", nil, url.Values{}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := newFake()
			s := f.begin(1, "p", demoGraph(), "")
			a := s.ask(1, "load", c.kind, "Well?", c.change)
			doc, res, _ := post(t, serve(t, f).URL+pathOfApproval(a.Id), c.form)
			if c.want == "" {
				if res.StatusCode != http.StatusBadRequest || len(f.decided) != 0 || textOf(byID(t, doc, "wrong-"+a.Id)) == "" {
					t.Errorf("%s, %d decisions", res.Status, len(f.decided))
				}
				return
			}
			if len(f.decided) != 1 || res.StatusCode != http.StatusOK {
				t.Fatalf("%s, %d decisions: %s", res.Status, len(f.decided), textOf(doc))
			}
			if got := f.decided[0]; got.Decision+"|"+got.Value+"|"+got.Comment != c.want {
				t.Errorf("sent %v, want %s", got, c.want)
			}
			word := "Decided"
			if c.name == "reject" {
				word = "Rejected"
			}
			if got := textOf(byID(t, doc, "approval-"+a.Id)); !strings.HasPrefix(got, word) || !strings.Contains(got, "local") {
				t.Errorf("afterwards it says %q", got)
			}
		})
	}
}

func TestRefusedDecisionKeepsWhatWasTyped(t *testing.T) {
	f := newFake()
	s := f.begin(1, "p", demoGraph(), "")
	a := s.ask(1, "load", "ask", "How many?", func(a *api.Approval) { a.Type, a.Default = "integer", "3" })
	addr := serve(t, f).URL + pathOfApproval(a.Id)
	doc, _, _ := get(t, addr)
	if got := attr(byID(t, doc, "value-"+a.Id), "value"); got != "3" {
		t.Errorf("the default stands as %q", got)
	}
	doc, res, _ := post(t, addr, url.Values{"decision": {"answer"}, "value": {"<many>"}, "comment": {"I think"}})
	if res.StatusCode != http.StatusBadRequest || attr(byID(t, doc, "value-"+a.Id), "value") != "<many>" {
		t.Errorf("%s: %q", res.Status, attr(byID(t, doc, "value-"+a.Id), "value"))
	}
	if got := textOf(byID(t, doc, "comment-"+a.Id)); got != "I think" {
		t.Errorf("the comment became %q", got)
	}
}

func TestSecondDecisionSeesTheFirst(t *testing.T) {
	f := newFake()
	s := f.begin(1, "p", demoGraph(), "")
	a := s.ask(1, "load", "approve", "Ship it?", nil)
	addr := serve(t, f).URL + pathOfApproval(a.Id)
	post(t, addr, url.Values{"decision": {"approve"}, "comment": {"go"}})
	doc, res, _ := post(t, addr, url.Values{"decision": {"reject"}})
	got := textOf(byID(t, doc, "approval-"+a.Id))
	if res.StatusCode != http.StatusConflict || !strings.Contains(got, "Somebody was faster") || !strings.Contains(got, "local approved") || !strings.Contains(got, "go") {
		t.Errorf("%s: %s", res.Status, got)
	}
	for n := range doc.Descendants() {
		if n.Data == "form" && strings.Contains(attr(n, "class"), "decide") {
			t.Error("the form is still there")
		}
	}
}

func TestDeadlineHasDecided(t *testing.T) {
	f := newFake()
	s := f.begin(1, "p", demoGraph(), "")
	a := s.ask(1, "load", "ask", "Now?", func(a *api.Approval) {
		a.Status, a.DecidedAt = "expired", timestamppb.New(epoch)
		a.Decisions = []*api.Decision{{Decision: "answer", Value: `"tonight"`, Actor: "deadline", At: timestamppb.New(epoch)}}
	})
	doc, _, _ := get(t, serve(t, f).URL+pathOfApproval(a.Id))
	if got := textOf(byID(t, doc, "approval-"+a.Id)); !strings.Contains(got, "Expired") || !strings.Contains(got, "The deadline answered") || !strings.Contains(got, "tonight") {
		t.Errorf("it says %q", got)
	}
}

func TestRunShowsWhyItWaits(t *testing.T) {
	f := demo()
	id := idOf(12)
	addr := serve(t, f).URL
	doc, _, _ := get(t, addr+pathOfRun(id)+"?tab=steps")
	got := textOf(byID(t, doc, "waits"))
	for _, want := range []string{"Ship <a major> release?", "now tonight never", "Approve Reject", "then it counts as rejected", "wait_ci waits for the signal ci_green", "gives up in 1 h"} {
		if !strings.Contains(got, want) {
			t.Errorf("it does not say %q: %s", want, got)
		}
	}
	if got := textOf(byID(t, doc, "run-head")); !strings.Contains(got, "waits for a decision") {
		t.Errorf("the head says %q", got)
	}
	steps := textOf(byID(t, doc, "steps"))
	for _, want := range []string{"draft visit 2", "skill summarise", "call lib/review", "a jump led past it", "waits for a decision"} {
		if !strings.Contains(steps, want) {
			t.Errorf("the steps do not say %q: %s", want, steps)
		}
	}
	back := pathOfRun(id) + "?tab=steps"
	_, res, _ := post(t, addr+pathOfRun(id)+"/signal", url.Values{"name": {"ci_green"}, "data": {"build: 7"}, "back": {back}})
	if len(f.signals) != 1 || f.signals[0].Name != "ci_green" || f.signals[0].Data != `{"build":7}` || res.Request.URL.RequestURI() != back {
		t.Errorf("sent %v, led to %s", f.signals, res.Request.URL)
	}
	if _, res, _ = post(t, addr+pathOfRun(id)+"/signal", url.Values{"name": {"ci_green"}, "data": {"{"}}); res.StatusCode != http.StatusBadRequest {
		t.Errorf("data that cannot be read: %s", res.Status)
	}
	doc, res, _ = post(t, addr+pathOfApproval(approvalID(2)), url.Values{"decision": {"approve"}, "back": {back}})
	if res.Request.URL.RequestURI() != back || strings.Contains(textOf(byID(t, doc, "waits")), "Ship it?") {
		t.Errorf("a decision on the run's page led to %s", res.Request.URL)
	}
	_, res, _ = post(t, addr+pathOfApproval(approvalID(1)), url.Values{"decision": {"answer"}, "value": {`"now"`}, "back": {"//evil.example/runs/" + id}})
	if res.Request.URL.Path != pathOfApproval(approvalID(1)) {
		t.Errorf("a foreign address led to %s", res.Request.URL)
	}
}

func TestDrawerShowsWhatWasFilledInAndPublished(t *testing.T) {
	f := demo()
	addr := serve(t, f).URL + pathOfRun(idOf(12))
	doc, _, body := get(t, addr+"?step=draft")
	got := textOf(byID(t, doc, "drawer"))
	for _, want := range []string{"tone fallback Edit <i>plain</i>", "notes version 1"} {
		if !strings.Contains(got, want) || strings.Contains(body, "<i>plain") {
			t.Errorf("the drawer does not say %q as text: %s", want, got)
		}
	}
	doc, _, _ = get(t, addr+"?step=wait_ci")
	if got := textOf(byID(t, doc, "drawer")); !strings.Contains(got, "Waiting for the signal ci_green") {
		t.Errorf("of the wait it says %q", got)
	}
	doc, _, _ = get(t, addr+"?tab=events")
	events := textOf(byID(t, doc, "events"))
	for _, want := range []string{"tone = <i>plain</i> (fallback)", "waits for the signal ci_green", "waits for a decision"} {
		if !strings.Contains(events, want) {
			t.Errorf("the events do not say %q: %s", want, events)
		}
	}
}

func TestEventsSayWhatHappened(t *testing.T) {
	for _, c := range []struct{ typ, data, want string }{
		{"auto_resolved", `{"auto":{"key":"n","value":7,"from":"model","model":"fast"}}`, "n = 7 (model fast)"},
		{"approval_decided", `{"decision":{"decision":"answer","value":"now","comment":"go","actor":"ada"}}`, "ada answered: now (go)"},
		{"approval_decided", `{"decision":{"decision":"reject","actor":"deadline"}}`, "The deadline rejected"},
		{"signal_received", `{"signal":"ci_green","value":{"n":1},"actor":"local"}`, `signal ci_green with {"n":1} by local`},
		{"signal_received", `{"signal":"cancel","actor":"local"}`, "asked to cancel by local"},
		{"signal_received", `{"signal":"timeout"}`, "its time is over"},
		{"run_waiting", `{"reason":"approval"}`, "waits for a decision"},
		{"run_resumed", `{"reason":"woken"}`, "goes on"},
		{"step_waiting", `{"step":{"status":"WAITING","waiting":{"for":"files","files":"in/*.task"}}}`, "waits for files like in/*.task"},
		{"state_set", `{"state":{"b":1,"a":2}}`, "sets a, b"},
		{"step_skipped", `{"step":{"status":"SKIPPED","reason":"jumped"}}`, "a jump led past it"},
		{"step_finished", `{"signal":"go","step":{"status":"COMPLETED"}}`, "took the signal go"},
		{"step_finished", `{"step":{"status":"FAILED","reason":"max_visits","error":{"message":"too often"}}}`, "too often"},
		{"run_created", `{}`, ""},
		{"model_called", `{"call":{"agent":"keeper","turn":1,"state":"finished"},"usage":{"input_tokens":1831,"output_tokens":49}}`, "turn 2 of keeper, 1,831 tokens in, 49 out"},
		{"model_called", `{"call":{"param":"title","state":"finished"}}`, "fills in title"},
		{"tool_called", `{"call":{"agent":"keeper","name":"order","state":"asked"}}`, "calls order, waits for people"},
		{"tool_called", `{"call":{"agent":"keeper","name":"order","state":"finished","failed":true}}`, "calls order, failed"},
	} {
		if got := eventOf(&api.Event{Type: c.typ, Data: c.data}, screen{}).Note; got != c.want {
			t.Errorf("%s %s: %q, want %q", c.typ, c.data, got, c.want)
		}
	}
}

func TestArtifactsAreKeptAndNeverShown(t *testing.T) {
	f := demo()
	addr := serve(t, f).URL
	doc, _, _ := get(t, addr+pathOfRun(idOf(12))+"?tab=artifacts")
	got := textOf(byID(t, doc, "artifacts"))
	for _, want := range []string{"notes 2 draft~2", "notes 1 draft", "verdict 1 review~2", "8 B"} {
		if !strings.Contains(got, want) {
			t.Errorf("the tab does not say %q: %s", want, got)
		}
	}
	var loads []string
	for n := range doc.Descendants() {
		if strings.Contains(attr(n, "href"), "/artifact?") {
			loads = append(loads, attr(n, "href"))
		}
	}
	if len(loads) != 3 {
		t.Fatalf("%d downloads", len(loads))
	}
	res, err := http.Get(addr + loads[0])
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, _ := io.ReadAll(res.Body)
	h := res.Header
	if string(body) != f.blobs["sha256:notes2"] || h.Get("Content-Type") != "text/plain; charset=utf-8" || h.Get("X-Content-Type-Options") != "nosniff" ||
		h.Get("Content-Disposition") != "attachment; filename=Release_notes.html" {
		t.Errorf("%q with %v", body, h)
	}
	f.blobs["sha256:notes1"] = "\x00\x01"
	if _, res, _ := get(t, addr+loads[1]); res.Header.Get("Content-Type") != "application/octet-stream" {
		t.Errorf("bytes come as %s", res.Header.Get("Content-Type"))
	}
	if _, res, body := get(t, addr+loads[2]); body != `{"kind":"major","score":0.93}`+"\n" || res.Header.Get("Content-Disposition") != "attachment; filename=verdict.json" {
		t.Errorf("a value comes as %q, %s", body, res.Header.Get("Content-Disposition"))
	}
	if _, res, _ := get(t, addr+pathOfRun(idOf(12))+"/artifact?name=nope&version=1"); res.StatusCode != http.StatusNotFound {
		t.Errorf("an unknown one: %s", res.Status)
	}
}

func TestFileNamesAreHarmless(t *testing.T) {
	for value, want := range map[string]string{
		`"out/report.md"`: "report.md", `"..\\..\\.bashrc"`: "bashrc", `"a/\"b\u0000\n<c>.txt"`: "_b___c_.txt", `"/"`: "artifact", `".."`: "artifact", `"größe 測試.txt"`: "größe 測試.txt",
	} {
		if got := fileName(&api.Artifact{Artifact: "x", Value: value, Digest: "sha256:1"}); got != want {
			t.Errorf("%s is kept as %q, want %q", value, got, want)
		}
	}
}

func TestHolesAreAnswered(t *testing.T) {
	f := demo()
	addr := serve(t, f).URL + "/new"
	form := url.Values{
		"source": {demoSource}, "do": {"run"}, "in.repo": {"acme/site"},
		"auto.report.tone": {"warm"}, "auto.report.length": {""}, "auto.report.hints": {"[a, b]"},
	}
	post(t, addr, form)
	if len(f.created) != 1 || f.created[0].Answers != `{"report.hints":["a","b"],"report.tone":"warm"}` {
		t.Fatalf("asked for %v", f.created)
	}
	form.Set("auto.report.length", "long")
	doc, res, _ := post(t, addr, form)
	if res.StatusCode != http.StatusBadRequest || len(f.created) != 1 || !strings.Contains(textOf(byID(t, doc, "about-auto-report.length")), "not a number") {
		t.Errorf("an answer of the wrong type: %s", res.Status)
	}
	if got := attr(byID(t, doc, "auto-report.length"), "value"); got != "long" {
		t.Errorf("what was typed became %q", got)
	}
	holes := textOf(byID(t, doc, "holes"))
	for _, want := range []string{"report.tone one of plain, warm optional", "fallback: plain", "report.length integer required", "How many words"} {
		if !strings.Contains(holes, want) {
			t.Errorf("the form does not say %q: %s", want, holes)
		}
	}
}

func TestDryRunShowsThePlan(t *testing.T) {
	f := demo()
	addr := serve(t, f).URL + "/new"
	doc, res, body := post(t, addr, url.Values{"source": {demoSource}, "do": {"dry"}, "in.repo": {"acme/site"}, "auto.report.tone": {"warm"}})
	if res.StatusCode != http.StatusOK || len(f.created) != 0 || len(f.dry) != 1 || f.dry[0].Answers != `{"report.tone":"warm"}` {
		t.Fatalf("%s, %d runs, dry %v", res.Status, len(f.created), f.dry)
	}
	got := textOf(byID(t, doc, "plan"))
	for _, want := range []string{"2 steps would run, 1 would not, 1 may. Nothing was started.", "Yes load command gh issue list", "It depends each_issue/classify action Classify <b>this</b> issue.", "No notify skill its condition is false"} {
		if !strings.Contains(got, want) {
			t.Errorf("the plan does not say %q: %s", want, got)
		}
	}
	if strings.Contains(body, "<b>this") {
		t.Error("a prompt became markup")
	}
	if byID(t, doc, "in-repo").FirstChild.Data != "acme/site" {
		t.Error("the form lost what was typed")
	}
	doc, res, _ = post(t, addr, url.Values{"source": {demoSource}, "do": {"dry"}})
	if res.StatusCode != http.StatusBadRequest || !strings.Contains(textOf(byID(t, doc, "refused")), "is required") {
		t.Errorf("a dry run without inputs: %s", res.Status)
	}
}

func TestPipelineSaysWhatItNeeds(t *testing.T) {
	doc, _, _ := get(t, serve(t, demo()).URL+"/pipelines/nightly-triage")
	got := textOf(byID(t, doc, "main"))
	for _, want := range []string{
		"Models fast claude-haiku-4-5", "Tools fs.read http.get", "Skills summarise", "Agents triager", "Secrets GITHUB_TOKEN",
		"Steps of a run 7 + 2 per item of load", "report.tone one of plain, warm", "fallback \"plain\"", "orchestrator run nightly-triage.yaml",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("the page does not say %q: %s", want, got)
		}
	}
}

// What was registered with its files does not pass by its source alone, and can
// be run all the same.
func TestRegisteredPipelineNeedsNoCheck(t *testing.T) {
	f := demo()
	p := demoPipeline("3.0.0")
	p.Id, p.Source = "bundled", "imports: {x: flaw.yaml}\n"
	f.pipelines = append(f.pipelines, p)
	addr := serve(t, f).URL
	doc, _, _ := get(t, addr+"/new?pipeline=bundled&version=3.0.0")
	if got := textOf(byID(t, doc, "findings")); got != "No findings" {
		t.Errorf("the findings are %q", got)
	}
	byID(t, doc, "in-repo")
	post(t, addr+"/new", url.Values{"source": {p.Source}, "pipeline": {"bundled"}, "version": {"3.0.0"}, "in.repo": {"x"}, "do": {"run"}})
	if len(f.created) != 1 || f.created[0].Pipeline != "bundled" {
		t.Errorf("asked for %v", f.created)
	}
}

func TestGraphDrawsArmsAndJumps(t *testing.T) {
	doc, _, body := get(t, serve(t, demo()).URL+pathOfRun(idOf(12)))
	var arms, ways []string
	for n := range doc.Descendants() {
		switch attr(n, "class") {
		case "arm":
			arms = append(arms, textOf(n))
		case "way":
			ways = append(ways, textOf(n))
		}
	}
	if strings.Join(arms, ",") != "major,default" || strings.Join(ways, ",") != "on failure,when false,always" {
		t.Errorf("arms %v, jumps %v", arms, ways)
	}
	if strings.Count(body, "cause-jump back") != 2 {
		t.Error("jumps back look like the others")
	}
	for id, want := range map[string]string{
		"node-review": "review, call lib/review, Completed, visit 2, on failure back to draft",
		"node-gates":  "gates, parallel, Running, always to best",
	} {
		var label string
		for n := range byID(t, doc, id).Descendants() {
			if attr(n, "role") == "img" {
				label = attr(n, "aria-label")
			}
		}
		if label != want {
			t.Errorf("%s says %q, want %q", id, label, want)
		}
	}
	if got := attr(byID(t, doc, "node-kind/ask_head"), "class"); !strings.Contains(got, "s-waiting") {
		t.Errorf("a step in an arm has the classes %q", got)
	}
}

// A pass with a step that jumps have led back to is over when its last visit is.
func TestVisitsAreOfOnePass(t *testing.T) {
	f := newFake()
	s := f.begin(1, "p", demoGraph(), "")
	s.start(epoch)
	s.step("each_issue", api.Step_RUNNING, epoch, nil)
	for _, p := range []string{"classify", "score"} {
		s.step("each_issue[0]/"+p, api.Step_COMPLETED, epoch, nil)
	}
	v := newView(s.run.Id)
	passed := func() int32 {
		t.Helper()
		if err := v.catchUp(t.Context(), api.NewRunsClient(dial(t, f)), time.Minute); err != nil {
			t.Fatal(err)
		}
		return v.nodes["each_issue"].passed
	}
	if got := passed(); got != 1 {
		t.Fatalf("%d passes are over, want 1", got)
	}
	s.step("each_issue[0]/classify~2", api.Step_RUNNING, epoch, nil)
	if got := passed(); got != 0 {
		t.Errorf("while a second visit goes on, %d passes are over", got)
	}
	s.step("each_issue[0]/classify~2", api.Step_COMPLETED, epoch, nil)
	if got := passed(); got != 1 {
		t.Errorf("after it, %d passes are over", got)
	}
}

func TestTimesAhead(t *testing.T) {
	now := time.Now()
	for d, want := range map[time.Duration]string{
		-time.Second: "now", 30 * time.Second: "in 30 s", 9 * time.Minute: "in 9 min", 47 * time.Hour: "in 47 h", 72 * time.Hour: "in 3 d",
	} {
		if got := ahead(now.Add(d), now); got != want {
			t.Errorf("%v ahead is %q, want %q", d, got, want)
		}
	}
}

// The feed of the inbox sees what comes and what is decided elsewhere.
func TestInboxIsLive(t *testing.T) {
	noLeaks(t)
	f := newFake()
	s := f.begin(1, "p", demoGraph(), "")
	s.start(epoch)
	addr := serve(t, f).URL
	v := watch(t, addr, "", "&inbox=1&after=0")
	v.until("approvals", "Nothing waits for you")
	a := s.ask(1, "load", "approve", "Ship it?", nil)
	v.until("approvals", "Ship it?")
	if last := v.all[len(v.all)-1]; !strings.Contains(last.Patches[0].HTML, ">1<") {
		t.Errorf("the navigation became %s", last.Patches[0].HTML)
	}
	post(t, addr+pathOfApproval(a.Id), url.Values{"decision": {"approve"}})
	v.until("approvals", "Nothing waits for you")
}

// An open decision page learns that somebody else was faster, and keeps what is
// being typed until then.
func TestDecisionPageIsLive(t *testing.T) {
	noLeaks(t)
	f := newFake()
	s := f.begin(1, "p", demoGraph(), "")
	s.start(epoch)
	a := s.ask(1, "load", "approve", "Ship it?", nil)
	addr := serve(t, f).URL
	v := watch(t, addr, "", "&inbox=1&id="+a.Id+"&was="+url.QueryEscape(standing(a)))
	post(t, addr+pathOfApproval(a.Id), url.Values{"decision": {"approve"}})
	p := v.until("approval-"+a.Id, "Decided")
	if len(v.all) != 1 || strings.Contains(p.HTML, "<form") {
		t.Errorf("%d frames, the last one %s", len(v.all), p.HTML)
	}
}

// The page of a run shows questions as they come and takes them away again.
func TestRunPageAsksLive(t *testing.T) {
	noLeaks(t)
	f := newFake()
	s := f.running(9)
	addr := serve(t, f).URL
	v := watch(t, addr, s.run.Id, "&tab=graph&after="+itoa(at(s)))
	a := s.ask(1, "report", "approve", "Ship it?", nil)
	v.until("waits", "Ship it?")
	s.waits("check", &api.Waiting{For: "timer", Due: timestamppb.New(time.Now().Add(time.Hour))})
	v.until("waits", "a time")
	post(t, addr+pathOfApproval(a.Id), url.Values{"decision": {"approve"}})
	for p := (patch{HTML: "Ship it?"}); strings.Contains(p.HTML, "Ship it?"); {
		p = v.until("waits", "a time")
	}
}
