package web

import (
	"context"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	api "github.com/orchestrator-project/orchestrator/proto/orchestrator/v1"
	"github.com/orchestrator-project/orchestrator/web/webtest"
)

// agentPages show what models and agents do.
var agentPages = []struct{ name, path string }{
	{"agent-step", "/runs/" + idOf(17) + "?tab=steps&step=answer"},
	{"agent-calls", "/runs/" + idOf(17) + "/calls?step=answer"},
	{"agent-calls-none", "/runs/" + idOf(17) + "/calls?step=other"},
	{"agent-prompt", "/runs/" + idOf(17) + "/call?step=answer&n=3"},
	{"approval-tool", "/approvals/" + approvalID(40)},
	{"approval-budget", "/approvals/" + approvalID(41)},
	{"models", "/models"},
	{"tools", "/tools"},
	{"skills", "/skills"},
	{"skill", "/skills/reviewer"},
	{"skill-problem", "/skills/changed"},
}

func TestBrowserShowsAnAnswerAsItComes(t *testing.T) {
	f := newFake()
	s := f.agentRun(17)
	url := serve(t, f).URL
	ctx := webtest.Browser(t)
	open(t, ctx, url+"/runs/"+idOf(17)+"?tab=steps&step=answer")
	s.delta("answer", 6, "text", "Dear <b>Ann")
	webtest.Until(t, ctx, `document.querySelector("#talk-live pre")?.textContent === "Dear <b>Ann"`, soon)
	s.delta("answer", 6, "text", ", all is well.")
	webtest.Until(t, ctx, `document.querySelector("#talk-live pre")?.textContent === "Dear <b>Ann, all is well."`, soon)
	s.delta("answer", 6, "reset", "")
	webtest.Until(t, ctx, `document.querySelector("#talk-live pre") === null`, soon)
	s.delta("answer", 6, "text", "Dear Ann, it is done.")
	webtest.Until(t, ctx, `document.querySelector("#talk-live pre") !== null`, soon)
	s.recorded(&api.Call{Step: "answer", N: 6, Kind: "model", State: "finished", Agent: "writer", Turn: 2, Phase: "turn", Response: `{"message":{"blocks":[{"kind":"text","text":"Dear Ann, it is done."}]}}`})
	webtest.Until(t, ctx, `document.querySelector("#call-6 pre")?.textContent === "Dear Ann, it is done." && document.querySelector("#talk-live pre") === null`, soon)
	same(t, ctx)
}

// The rhythm of a page does not hold back what its viewer waits for.
func TestTheFirstPieceOfAnAnswerIsShownAtOnce(t *testing.T) {
	noLeaks(t)
	f := newFake()
	s := f.agentRun(17)
	st := newSite(Config{Conn: dial(t, f)})
	ctx, stop := context.WithCancel(t.Context())
	frames := make(chan string)
	fd := &feed{site: st, screen: screen{Run: s.run.Id, Tab: "steps", Step: "answer"}, sent: at(s) - 1, every: time.Hour, send: func(ctx context.Context, b []byte) error {
		select {
		case frames <- string(b):
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}}
	done := make(chan error, 1)
	go func() { done <- fd.run(ctx) }()
	next := func() string {
		t.Helper()
		select {
		case b := <-frames:
			return b
		case <-time.After(soon):
			t.Fatal("no frame comes")
			return ""
		}
	}
	next() // the next one is due in an hour
	s.delta("answer", 6, "text", "Dear Ann")
	if b := next(); !strings.Contains(b, "Dear Ann") {
		t.Errorf("the frame is %s", b)
	}
	stop()
	<-done // it ends as its viewer leaves
}

func TestDecidingAboutACallOfATool(t *testing.T) {
	f := newFake()
	f.agentRun(17)
	srv := serve(t, f)
	send := func(form url.Values) (int, string) {
		t.Helper()
		client := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
		resp, err := client.PostForm(srv.URL+"/approvals/"+approvalID(40), form)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b := new(strings.Builder)
		if _, err := io.Copy(b, resp.Body); err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, b.String()
	}
	code, body := send(url.Values{"decision": {"approve"}, "arguments": {"{\n  \"order\": 7,\n  \"amount\": }"}})
	if code != 400 || !strings.Contains(body, "line 3") || !strings.Contains(body, "&#34;order&#34;: 7") {
		t.Errorf("broken arguments: %d, %.600s", code, body)
	}
	if code, body = send(url.Values{"decision": {"approve"}, "arguments": {"[1]"}}); code != 400 || !strings.Contains(body, "no JSON object") {
		t.Errorf("a list for arguments: %d, %.600s", code, body)
	}
	if code, _ = send(url.Values{"decision": {approveForRun}, "arguments": {`{"order":7,"amount":100}`}}); code != http.StatusSeeOther {
		t.Fatalf("approved: %d", code)
	}
	got := f.decided[len(f.decided)-1]
	if got.GetDecision() != "approve" || !got.GetRemember() || got.GetValue() != `{"order":7,"amount":100}` {
		t.Errorf("decided: %v", got)
	}
}
