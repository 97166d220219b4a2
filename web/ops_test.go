package web

import (
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"golang.org/x/net/html"

	api "github.com/orchestrator-project/orchestrator/proto/orchestrator/v1"
)

// links are the addresses that the links in an element lead to.
func links(n *html.Node) []string {
	var out []string
	for c := range n.Descendants() {
		if c.Data == "a" && attr(c, "href") != "" {
			out = append(out, attr(c, "href"))
		}
	}
	return out
}

// forms are the addresses that the forms in an element post to.
func forms(n *html.Node) []string {
	var out []string
	for c := range n.Descendants() {
		if c.Data == "form" {
			out = append(out, attr(c, "action"))
		}
	}
	return out
}

func TestARunOffersWhatItsStateAllows(t *testing.T) {
	f := demo()
	addr := serve(t, f).URL
	for n, want := range map[int]string{
		8: "pause cancel", 9: "pause cancel", 10: "pause cancel", 14: "resume cancel", 3: "retry replay", 11: "retry replay", 4: "replay",
	} {
		doc, _, _ := get(t, addr+pathOfRun(idOf(n)))
		var got []string
		for _, f := range forms(byID(t, doc, "run-head")) {
			got = append(got, strings.TrimPrefix(f, pathOfRun(idOf(n))+"/"))
		}
		if strings.Join(got, " ") != want {
			t.Errorf("run %d offers %v, want %s", n, got, want)
		}
	}
}

func TestARunPausesAndGoesOn(t *testing.T) {
	f := demo()
	addr := serve(t, f).URL + pathOfRun(idOf(9))
	back := pathOfRun(idOf(9)) + "?tab=steps"
	doc, res, _ := post(t, addr+"/pause", url.Values{"back": {back}})
	if res.Request.URL.RequestURI() != back || !strings.Contains(textOf(byID(t, doc, "run-head")), "Paused") {
		t.Errorf("after pausing: %s %q", res.Request.URL, textOf(byID(t, doc, "run-head")))
	}
	if doc, _, _ = post(t, addr+"/resume", nil); !strings.Contains(textOf(byID(t, doc, "run-head")), "Running") {
		t.Errorf("after resuming: %q", textOf(byID(t, doc, "run-head")))
	}
}

func TestWhatIsRefusedIsSaidWhereTheFormStood(t *testing.T) {
	addr := serve(t, demo()).URL + pathOfRun(idOf(3))
	doc, res, _ := post(t, addr+"/pause", url.Values{"back": {pathOfRun(idOf(3)) + "?tab=outputs"}})
	if res.StatusCode != http.StatusConflict || !strings.Contains(textOf(byID(t, doc, "refused")), "has already finished") {
		t.Errorf("%s: %q", res.Status, textOf(doc))
	}
	byID(t, doc, "tab-outputs")
}

func TestNewRunsComeOfAnOldOne(t *testing.T) {
	f := demo()
	addr := serve(t, f).URL + pathOfRun(idOf(3))
	for verb, form := range map[string]url.Values{
		"retry": {"key": {"k"}}, "replay": {"key": {"k"}}, "rerun": {"key": {"k"}, "from": {"each_issue[7]/classify"}},
	} {
		doc, res, _ := post(t, addr+"/"+verb, form)
		if res.Request.URL.Path == pathOfRun(idOf(3)) || !slices.Contains(links(byID(t, doc, "run-head")), pathOfRun(idOf(3))) {
			t.Errorf("%s leads to %s: %q", verb, res.Request.URL, textOf(byID(t, doc, "run-head")))
		}
		if got := f.ops.last(); !strings.Contains(got, `idempotency_key:"k"`) || verb == "rerun" && !strings.Contains(got, `from:"each_issue[7]/classify"`) {
			t.Errorf("%s asked for %s", verb, got)
		}
	}
	doc, _, _ := get(t, addr+"?step=report")
	if got := forms(byID(t, doc, "drawer")); !slices.Contains(got, pathOfRun(idOf(3))+"/rerun") {
		t.Errorf("the drawer of a step posts to %v", got)
	}
}

func TestARunSaysWhyItIsWhereItIs(t *testing.T) {
	f := demo()
	addr := serve(t, f).URL
	doc, _, _ := get(t, addr+pathOfRun(idOf(8)))
	why := byID(t, doc, "why")
	for _, want := range []string{"Why it is queued", "Its queue is paused", "was paused by ada", "Its concurrency key is taken"} {
		if !strings.Contains(textOf(why), want) {
			t.Errorf("%q does not say %q", textOf(why), want)
		}
	}
	if got := links(why); !slices.Contains(got, "/queues/reports") || !slices.Contains(got, pathOfRun(idOf(9))) {
		t.Errorf("it leads to %v", got)
	}
	doc, _, _ = get(t, addr+pathOfRun(idOf(10)))
	if got := links(byID(t, doc, "why")); !slices.Contains(got, "/workers") || !slices.Contains(got, pathOfApproval(approvalID(1))) {
		t.Errorf("a waiting run leads to %v", got)
	}
	doc, _, _ = get(t, addr+pathOfRun(idOf(14)))
	if got := textOf(byID(t, doc, "why")); !strings.Contains(got, "Why it is paused") {
		t.Errorf("a paused run says %q", got)
	}
	if _, _, text := get(t, addr+pathOfRun(idOf(9))); strings.Contains(text, `id="why"`) {
		t.Error("a running run says why it runs")
	}
	// The failure itself stands in the head, and is not told twice.
	f.ops.causes[idOf(3)] = []*api.Cause{{Code: "failed", Message: "the run has failed"}}
	doc, _, text := get(t, addr+pathOfRun(idOf(3)))
	if !strings.Contains(textOf(byID(t, doc, "run-head")), "Why it failed") || strings.Contains(text, `id="why"`) {
		t.Error("a failed run does not say why once")
	}
}

func TestWhyComesLive(t *testing.T) {
	f := newFake()
	s := f.running(9)
	f.ops.causes = map[string][]*api.Cause{s.run.Id: {{Code: "paused", Message: "the run is paused"}}}
	v := watch(t, serve(t, f).URL, s.run.Id, "")
	if _, err := f.rest(s.run.Id, true); err != nil {
		t.Fatal(err)
	}
	v.until("waits", "Why it is paused")
}

func TestWaitsThatStandBelowAreNotToldTwice(t *testing.T) {
	f := newFake()
	s := f.begin(1, "p", demoGraph(), "")
	s.start(epoch)
	s.waits("load", &api.Waiting{For: "signal", Signal: "go"})
	s.do(func(r *api.Run) { r.Status = api.Run_WAITING })
	s.tell("run_waiting", "", epoch)
	f.ops.causes = map[string][]*api.Cause{s.run.Id: {{Code: "signal", Message: "the step load waits", Refs: []*api.Ref{{Kind: "step", Id: "load"}}}}}
	doc, _, text := get(t, serve(t, f).URL+pathOfRun(s.run.Id))
	if strings.Contains(text, `id="why"`) || !strings.Contains(textOf(byID(t, doc, "waits")), "waits for the signal") {
		t.Errorf("it says %q", textOf(byID(t, doc, "waits")))
	}
}

func TestARunNamesItsKin(t *testing.T) {
	doc, _, _ := get(t, serve(t, demo()).URL+pathOfRun(idOf(15)))
	head := byID(t, doc, "run-head")
	for _, want := range []string{
		pathOfRun(idOf(3)), pathOfRun(idOf(4)), "/queues/reports", link("/runs", "filter", "parent:"+idOf(15)), link("/runs", "filter", "forked_from:"+idOf(15)),
	} {
		if !slices.Contains(links(head), want) {
			t.Errorf("the head does not lead to %s", want)
		}
	}
	if !strings.Contains(textOf(head), "at record 41") {
		t.Errorf("the head says %q", textOf(head))
	}
}

func TestForkPlannerPreviewsAndStarts(t *testing.T) {
	f := demo()
	addr := serve(t, f).URL + pathOfFork(idOf(3))
	form := func(change map[string]string) url.Values {
		v := url.Values{
			"source": {strings.ReplaceAll(demoSource, "\n", "\r\n")}, "in.repo": {"acme/site"}, "in.depth": {"shallow"}, "key": {"k1"}, "by": {"record"}, "do": {"start"},
		}
		for name, text := range change {
			v.Set(name, text)
		}
		return v
	}
	doc, res, _ := get(t, addr+"?at=7")
	if got := textOf(byID(t, doc, "preview")); res.StatusCode != http.StatusOK || !strings.Contains(got, "2 reused, 1 run again, 1 skipped") || !strings.Contains(got, "Its items are not what they were") {
		t.Errorf("%s: the preview says %q", res.Status, got)
	}
	if p := f.ops.previews[0]; p.GetMode() != "fork" || p.GetAt() != 7 || p.GetInputs()+p.GetSource() != "" {
		t.Errorf("asked for the preview %v", p)
	}
	get(t, addr+"?from=report")
	if p := f.ops.previews[1]; p.GetMode() != "rerun" || p.GetFrom() != "report" {
		t.Errorf("asked for the preview %v", p)
	}
	for _, c := range []struct {
		name   string
		change map[string]string
		want   []string
		not    []string
	}{
		{"as it is", nil, []string{"ForkRunRequest", `idempotency_key:"k1"`}, []string{"inputs:", "source:", "at:"}},
		{"a record", map[string]string{"at": "9"}, []string{"ForkRunRequest", "at:9"}, []string{"inputs:", "source:"}},
		{"another input", map[string]string{"in.budget": "5"}, []string{`inputs:"{\"budget\":5}"`}, []string{"source:", "repo"}},
		{"another definition", map[string]string{"source": "id: other\n"}, []string{`source:"id: other\n"`}, []string{"inputs:"}},
		{"a step", map[string]string{"by": "step", "from": "report"}, []string{"RerunRunRequest", `from:"report"`}, nil},
		// The record before the step began.
		{"a step and an edit", map[string]string{"by": "step", "from": "load", "in.repo": "acme/app"}, []string{"ForkRunRequest", "at:2", `acme/app`}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, res, _ := post(t, addr, form(c.change))
			got := f.ops.last()
			if !strings.HasPrefix(res.Request.URL.Path, "/runs/") || strings.HasSuffix(res.Request.URL.Path, "/fork") {
				t.Fatalf("%s leads to %s", res.Status, res.Request.URL)
			}
			for _, want := range c.want {
				if !strings.Contains(got, want) {
					t.Errorf("asked for %s, want %s", got, want)
				}
			}
			for _, not := range c.not {
				if strings.Contains(got, not) {
					t.Errorf("asked for %s, with %s", got, not)
				}
			}
		})
	}
}

func TestRefusedForkKeepsWhatWasTyped(t *testing.T) {
	f := demo()
	addr := serve(t, f).URL
	for name, change := range map[string]url.Values{
		"a record that is none":    {"by": {"record"}, "at": {"soon"}},
		"a record beyond the log":  {"by": {"record"}, "at": {"901"}},
		"no step":                  {"by": {"step"}},
		"a step that never began":  {"by": {"step"}, "from": {"nope"}, "in.budget": {"5"}},
		"a number that is none":    {"by": {"record"}, "in.budget": {"many"}},
		"the first step, and more": {"by": {"step"}, "from": {"nope"}, "in.repo": {"other"}},
	} {
		t.Run(name, func(t *testing.T) {
			change.Set("source", demoSource)
			change.Set("do", "preview")
			change.Set("in.tags", "- kept")
			doc, res, text := post(t, addr+pathOfFork(idOf(3)), change)
			if res.StatusCode != http.StatusBadRequest || textOf(byID(t, doc, "refused")) == "" || !strings.Contains(text, "- kept") {
				t.Errorf("%s: %q", res.Status, textOf(byID(t, doc, "refused")))
			}
		})
	}
	if f.calls["ForkRun"]+f.calls["RerunRun"] != 0 {
		t.Error("something was started")
	}
}

func TestQueuesArePausedAndLimited(t *testing.T) {
	f := demo()
	addr := serve(t, f).URL
	doc, _, _ := get(t, addr+"/queues")
	row := textOf(byID(t, doc, "queue-default"))
	for _, want := range []string{"12,840", "37 held", "8 of 8", "41 min ago", "120/m", "team-a 9,120", "and 1 more"} {
		if !strings.Contains(row, want) {
			t.Errorf("the row says %q, not %q", row, want)
		}
	}
	if got := textOf(byID(t, doc, "queue-reports")); !strings.Contains(got, "Paused") || !strings.Contains(got, "Resume") {
		t.Errorf("the paused queue says %q", got)
	}
	doc, res, _ := post(t, addr+"/queues/reports/resume", url.Values{"back": {"/queues"}})
	if res.Request.URL.Path != "/queues" || strings.Contains(textOf(byID(t, doc, "queue-reports")), "Paused") {
		t.Errorf("after resuming: %s", textOf(byID(t, doc, "queue-reports")))
	}
	odd := "a b/c%41"
	if _, res, _ = post(t, addr+pathOfQueue(odd)+"/pause", nil); res.StatusCode != http.StatusOK || !strings.Contains(f.ops.last(), `name:"a b/c%41"`) {
		t.Errorf("%s, asked for %s", res.Status, f.ops.last())
	}
	doc, _, _ = post(t, addr+"/queues/idle/limits", url.Values{"max_running": {"4"}, "rate": {"10/m"}, "burst": {"3"}, "weight": {"2"}, "weights": {"team=a=3\r\nb = 2\r\n"}})
	got := f.ops.last()
	for _, want := range []string{"max_running:4", `rate:"10/m"`, "burst:3", "weight:2", `key:"team=a" value:3`, `key:"b" value:2`} {
		if !strings.Contains(got, want) {
			t.Errorf("asked for %s, want %s", got, want)
		}
	}
	if text := textOf(byID(t, doc, "queue")); !strings.Contains(text, "0 of 4") || !strings.Contains(text, "10/m") {
		t.Errorf("the queue says %q", text)
	}
	for _, form := range []url.Values{{"rate": {"often"}}, {"max_running": {"some"}, "rate": {"often"}}, {"weights": {"a"}, "rate": {"often"}}} {
		doc, res, _ = post(t, addr+"/queues/idle/limits", form)
		if res.StatusCode != http.StatusBadRequest || textOf(byID(t, doc, "refused")) == "" || attr(byID(t, doc, "rate"), "value") != "often" {
			t.Errorf("%v gives %s: %q", form, res.Status, textOf(byID(t, doc, "limits")))
		}
	}
}

func TestSchedulesShowTheirFires(t *testing.T) {
	f := demo()
	addr := serve(t, f).URL
	doc, _, _ := get(t, addr+"/schedules")
	row := byID(t, doc, "schedule-nightly-triage")
	for _, want := range []string{"Active", "0 6 * * 1-5", "0 9 * * 0,6", "in 8 h", "Europe/Berlin"} {
		if !strings.Contains(textOf(row), want) {
			t.Errorf("the row says %q, not %q", textOf(row), want)
		}
	}
	if !slices.Contains(links(row), pathOfRun(idOf(5))) {
		t.Errorf("the row leads to %v", links(row))
	}
	doc, _, _ = get(t, addr+"/schedules/nightly-triage")
	if got := textOf(byID(t, doc, "fires")); !strings.Contains(got, "Skipped") || !strings.Contains(got, "The run before it was still going on") || !strings.Contains(got, "backfill") {
		t.Errorf("the fires say %q", got)
	}
	if got := textOf(byID(t, doc, "schedule")); !strings.Contains(got, "skip the fire") || !strings.Contains(got, "written in the pipeline") {
		t.Errorf("the schedule says %q", got)
	}
	doc, res, _ := post(t, addr+"/schedules/nightly-triage/pause", url.Values{"back": {"/schedules/nightly-triage"}})
	if res.Request.URL.Path != "/schedules/nightly-triage" || !strings.Contains(textOf(byID(t, doc, "schedule")), "Paused") {
		t.Errorf("after pausing: %s", textOf(byID(t, doc, "schedule")))
	}
	doc, _, _ = post(t, addr+"/schedules/nightly-triage/backfill", url.Values{"from": {"2026-01-05T06:00"}, "max_parallel": {"2"}})
	if got := f.ops.last(); !strings.Contains(got, "from:{seconds:1767592800}") || !strings.Contains(got, "max_parallel:2") || !strings.Contains(textOf(byID(t, doc, "told")), "3 fires get a run") {
		t.Errorf("asked for %s, told %q", got, textOf(doc))
	}
	for _, form := range []url.Values{{"from": {"2026-01-05T06:00"}, "to": {"2026-01-04T06:00"}}, {"from": {"then"}}, {"from": {"2026-01-05T06:00"}, "max_parallel": {"x"}}} {
		if doc, res, _ = post(t, addr+"/schedules/nightly-triage/backfill", form); res.StatusCode != http.StatusBadRequest || textOf(byID(t, doc, "refused")) == "" || attr(byID(t, doc, "from"), "value") != form.Get("from") {
			t.Errorf("%v gives %s", form, res.Status)
		}
	}
}

func TestScheduleIsCreatedFromItsForm(t *testing.T) {
	f := demo()
	addr := serve(t, f).URL + "/schedules"
	form := url.Values{"pipeline": {"report"}, "cron": {"0 6 * * *\r\n\r\n@daily\r\n"}, "timezone": {"Asia/Tokyo"}, "inputs": {"repo: acme/site"}, "overlap": {"queue"}, "catch_up": {"none"}}
	_, res, _ := post(t, addr, form)
	got := f.ops.last()
	if res.Request.URL.Path != "/schedules/report" {
		t.Errorf("leads to %s", res.Request.URL)
	}
	for _, want := range []string{`cron:"0 6 * * *" cron:"@daily"`, `timezone:"Asia/Tokyo"`, `inputs:"{\"repo\":\"acme/site\"}"`, `overlap:"queue"`, `catch_up:"none"`} {
		if !strings.Contains(got, want) {
			t.Errorf("asked for %s, want %s", got, want)
		}
	}
	for name, text := range map[string]string{"cron": "hourly", "inputs": "{a: ["} {
		bad := url.Values{"pipeline": {"report"}, "cron": {"@daily"}, name: {text}}
		doc, res, page := post(t, addr, bad)
		if res.StatusCode != http.StatusBadRequest || textOf(byID(t, doc, "refused")) == "" || !strings.Contains(page, html.EscapeString(text)) {
			t.Errorf("%s=%s gives %s", name, text, res.Status)
		}
	}
}

func TestWorkersShowTheirLoadAndDrain(t *testing.T) {
	f := demo()
	addr := serve(t, f).URL
	doc, _, _ := get(t, addr+"/workers")
	row := byID(t, doc, "worker-gpu-1")
	for _, want := range []string{"Connected", "gpu", "3 of 4", "CPU 7.5 of 16", "memory 24 of 64 GB", "1.4.0", "each_issue[12]/classify"} {
		if !strings.Contains(textOf(row), want) {
			t.Errorf("the row says %q, not %q", textOf(row), want)
		}
	}
	doc, _, _ = post(t, addr+"/workers/gpu-1/drain", nil)
	if got := textOf(byID(t, doc, "worker-gpu-1")); !strings.Contains(got, "Draining") || strings.Contains(got, "Drain ") {
		t.Errorf("after draining: %q", got)
	}
	if doc, res, _ := post(t, addr+"/workers/gone/drain", nil); res.StatusCode != http.StatusNotFound || !strings.Contains(textOf(byID(t, doc, "refused")), "no worker gone") {
		t.Errorf("draining what is not there: %s", res.Status)
	}
	if _, _, text := get(t, addr+"/workers?label=build"); strings.Contains(text, "worker-gpu-1") || !strings.Contains(text, "worker-build") {
		t.Error("the label does not filter")
	}
}

func TestPipelineSaysWhatStartsIt(t *testing.T) {
	f := demo()
	f.pipelines[0].Triggers = []string{"at 0 6 * * 1-5 (Europe/Berlin)", "by POST /hooks/triage"}
	doc, _, _ := get(t, serve(t, f).URL+"/pipelines/nightly-triage")
	if got := textOf(byID(t, doc, "triggers")); !strings.Contains(got, "At 0 6 * * 1-5") || !strings.Contains(got, "/hooks/triage") {
		t.Errorf("it says %q", got)
	}
}

func TestOtherSitesCannotSteer(t *testing.T) {
	f := demo()
	addr := serve(t, f).URL
	for _, path := range []string{
		pathOfRun(idOf(9)) + "/pause", pathOfRun(idOf(3)) + "/retry", pathOfFork(idOf(3)), "/queues/default/pause", "/queues/default/limits", "/schedules", "/schedules/summarise/resume", "/workers/gpu-1/drain",
	} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, addr+path, strings.NewReader("do=start"))
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
	if got := f.ops.last(); got != "" {
		t.Errorf("another site asked for %s", got)
	}
}
