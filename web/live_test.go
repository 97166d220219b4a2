package web

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"
	"go.uber.org/goleak"

	api "github.com/orchestrator-project/orchestrator/proto/orchestrator/v1"
)

// noLeaks fails the test if it leaves goroutines behind.
func noLeaks(t *testing.T) {
	t.Helper()
	before := goleak.IgnoreCurrent()
	t.Cleanup(func() {
		http.DefaultClient.CloseIdleConnections()
		goleak.VerifyNone(t, before)
	})
}

// viewer is an open page: it reads frames and holds them to the rules.
type viewer struct {
	t    *testing.T
	conn *websocket.Conn
	seq  int32
	all  []frame
}

// watch opens a live feed; query is what stands behind /live?run=ID.
func watch(t *testing.T, url, run, query string) *viewer {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), soon)
	defer cancel()
	conn, res, err := websocket.Dial(ctx, url+"/live?run="+run+query, nil)
	if err != nil {
		t.Fatal(err)
	}
	if res.Body != nil {
		res.Body.Close()
	}
	conn.SetReadLimit(4 << 20)
	t.Cleanup(func() { conn.CloseNow() })
	return &viewer{t: t, conn: conn}
}

// next reads one frame; false: the feed has ended in good order.
func (v *viewer) next() (frame, bool) {
	v.t.Helper()
	ctx, cancel := context.WithTimeout(v.t.Context(), soon)
	defer cancel()
	_, b, err := v.conn.Read(ctx)
	if websocket.CloseStatus(err) == websocket.StatusNormalClosure {
		return frame{}, false
	}
	if err != nil {
		v.t.Fatalf("after seq %d: %v", v.seq, err)
	}
	var f frame
	if err := json.Unmarshal(b, &f); err != nil {
		v.t.Fatal(err)
	}
	if f.Seq < v.seq {
		v.t.Fatalf("seq went back from %d to %d", v.seq, f.Seq)
	}
	v.seq = f.Seq
	v.all = append(v.all, f)
	return f, true
}

// until reads frames until one has a patch of that element with that text.
func (v *viewer) until(id, text string) patch {
	v.t.Helper()
	for {
		f, ok := v.next()
		if !ok {
			v.t.Fatalf("the feed ended without %q in #%s", text, id)
		}
		for _, p := range f.Patches {
			if p.ID == id && strings.Contains(p.HTML, text) {
				return p
			}
		}
	}
}

func at(s *story) int32 {
	s.f.mu.Lock()
	defer s.f.mu.Unlock()
	return int32(len(s.events))
}

func TestLiveSendsWhatChangesUntilTheRunEnds(t *testing.T) {
	noLeaks(t)
	f := newFake()
	s := f.running(9)
	url := serve(t, f).URL
	v := watch(t, url, s.run.Id, fmt.Sprintf("&tab=graph&after=%d", at(s)))
	s.step("report", api.Step_RUNNING, time.Now(), nil)
	v.until("node-report", "s-running")
	s.step("report", api.Step_COMPLETED, time.Now(), nil)
	v.until("node-report", "s-completed")
	s.finish(api.Run_COMPLETED, time.Now(), nil)
	var last frame
	said := false
	for {
		f, ok := v.next()
		if !ok {
			break
		}
		last, said = f, said || f.Say == "The run is completed."
	}
	if !last.Done || last.Seq != at(s) || !said {
		t.Errorf("the last frame is %+v; said: %v; the run has %d events", last, said, at(s))
	}
}

// What happened while nobody was connected is on the page after the first frame.
func TestLiveCatchesUpWithoutAGap(t *testing.T) {
	noLeaks(t)
	f := newFake()
	s := f.running(9)
	url := serve(t, f).URL
	from := at(s)
	v := watch(t, url, s.run.Id, fmt.Sprintf("&tab=graph&after=%d", from))
	s.step("sample", api.Step_COMPLETED, time.Now(), nil)
	v.until("node-check/sample", "s-completed")
	v.conn.CloseNow()
	s.step("check", api.Step_COMPLETED, time.Now(), nil)
	s.step("report", api.Step_RUNNING, time.Now(), nil)

	again := watch(t, url, s.run.Id, fmt.Sprintf("&tab=graph&after=%d", v.seq))
	first, _ := again.next()
	got := map[string]bool{}
	for _, p := range first.Patches {
		got[p.ID] = true
	}
	if !got["node-check"] || !got["node-report"] || got["node-load"] || first.Seq != at(s) {
		t.Errorf("the first frame after the break, at seq %d of %d, has %v", first.Seq, at(s), got)
	}
}

func TestLiveRowsComeAloneWhileTheListHolds(t *testing.T) {
	noLeaks(t)
	f := newFake()
	s := f.begin(1, "p", demoGraph(), "")
	s.start(epoch)
	s.step("load", api.Step_RUNNING, epoch, nil)
	v := watch(t, serve(t, f).URL, s.run.Id, fmt.Sprintf("&tab=steps&after=%d", at(s)))
	s.step("profile", api.Step_RUNNING, epoch, nil)
	v.until("steps", "step-profile") // a new row: the window
	s.step("load", api.Step_COMPLETED, epoch.Add(time.Second), nil)
	v.until("step-load", "Completed") // a known one: alone
	last := v.all[len(v.all)-1]
	for _, p := range last.Patches {
		if p.ID == "steps" || p.ID == "step-profile" {
			t.Errorf("#%s came again", p.ID)
		}
	}
}

func TestLiveFollowsLogsAsText(t *testing.T) {
	noLeaks(t)
	f := newFake()
	s := f.running(9)
	v := watch(t, serve(t, f).URL, s.run.Id, fmt.Sprintf("&tab=logs&after=%d", at(s)))
	if p := v.until("log", "warning:"); p.Append {
		t.Error("the first lines of a feed must replace those of the page")
	}
	s.say("load", "stdout", "\x1b[31m<img src=x onerror=alert(1)>\x1b[0m", time.Now())
	p := v.until("log", "onerror")
	if !p.Append || !strings.Contains(p.HTML, `<span class="fg-1">&lt;img src=x onerror=alert(1)&gt;</span>`) {
		t.Errorf("the line came as %+v", p)
	}
	for i := range 3 * logTail { // more than a page holds
		s.say("load", "stdout", fmt.Sprintf("line %d", i), time.Now())
	}
	v.until("log", fmt.Sprintf("line %d<", 3*logTail-1))
	for _, fr := range v.all {
		for _, p := range fr.Patches {
			if n := strings.Count(p.HTML, "data-line="); n > logTail {
				t.Errorf("a patch holds %d lines", n)
			}
		}
	}
}

func TestLiveDrawerFollowsItsStep(t *testing.T) {
	noLeaks(t)
	f := newFake()
	s := f.running(9)
	v := watch(t, serve(t, f).URL, s.run.Id, fmt.Sprintf("&tab=graph&step=sample&after=%d", at(s)))
	s.step("sample", api.Step_COMPLETED, time.Now(), func(st *api.Step) { st.Output = `"forty-two"` })
	v.until("drawer", "forty-two")
	s.say("sample", "stdout", "all done", time.Now())
	v.until("drawer-log", "all done")
}

// A reader that does not keep up gets fewer frames, each with the newest state.
func TestLiveDropsFramesForSlowReaders(t *testing.T) {
	noLeaks(t)
	f := newFake()
	s := f.running(9)
	st := newSite(Config{Conn: dial(t, f)})
	var mu sync.Mutex
	var frames []frame
	gate := make(chan struct{})
	sent := make(chan struct{}, 1)
	fd := &feed{site: st, screen: screen{Run: s.run.Id, Tab: "graph"}, sent: at(s), send: func(_ context.Context, b []byte) error {
		var fr frame
		if err := json.Unmarshal(b, &fr); err != nil {
			return err
		}
		mu.Lock()
		frames = append(frames, fr)
		mu.Unlock()
		select {
		case sent <- struct{}{}:
		default:
		}
		<-gate // the reader takes its time
		return nil
	}}
	done := make(chan error, 1)
	go func() { done <- fd.run(t.Context()) }()
	s.step("report", api.Step_RUNNING, time.Now(), nil)
	<-sent
	for i := range 2000 {
		s.step(fmt.Sprintf("each_issue[%d]/score", 100+i), api.Step_COMPLETED, time.Now(), nil)
	}
	for fd.view.at() < at(s) { // the view goes on meanwhile
		time.Sleep(time.Millisecond)
	}
	s.finish(api.Run_COMPLETED, time.Now(), nil)
	close(gate)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	mu.Lock()
	defer mu.Unlock()
	if len(frames) > 5 {
		t.Errorf("%d frames for a reader that took one", len(frames))
	}
	last := frames[len(frames)-1]
	if !last.Done || last.Seq != at(s) {
		t.Errorf("the last frame is %+v", last)
	}
}

func TestLiveKeepsToTenFramesASecond(t *testing.T) {
	noLeaks(t)
	f := newFake()
	s := f.running(9)
	st := newSite(Config{Conn: dial(t, f)})
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var writer sync.WaitGroup
	writer.Go(func() {
		for i := 0; ctx.Err() == nil; i++ {
			s.step(fmt.Sprintf("each_issue[%d]/score", 100+i), api.Step_COMPLETED, time.Now(), nil)
			time.Sleep(time.Millisecond)
		}
	})
	var sent []time.Time
	fd := &feed{site: st, screen: screen{Run: s.run.Id, Tab: "graph"}, sent: at(s), send: func(_ context.Context, b []byte) error {
		var fr frame
		if err := json.Unmarshal(b, &fr); err != nil || len(fr.Patches) == 0 { // a sign of life only
			return err
		}
		if sent = append(sent, time.Now()); len(sent) == 10 {
			stop()
		}
		return nil
	}}
	_ = fd.run(ctx) // it ends as its viewer leaves
	writer.Wait()
	if len(sent) < 10 {
		t.Fatalf("%d frames, want 10", len(sent))
	}
	for i := 1; i < 10; i++ {
		if gap := sent[i].Sub(sent[i-1]); gap < frameEvery {
			t.Errorf("frame %d came %v after the one before", i, gap)
		}
	}
}

// A long run is drawn before it has been read to its end.
func TestLiveCompletesALongRun(t *testing.T) {
	noLeaks(t)
	f := newFake()
	s := f.many(1, 20_000)
	st := newSite(Config{Conn: dial(t, f)})
	v := st.views.of(s.run.Id)
	if err := v.catchUp(t.Context(), st.runs, 0); err != nil {
		t.Fatal(err)
	}
	if v.whole() {
		t.Fatal("no patience at all was enough for 20,000 steps")
	}
	var last frame
	fd := &feed{site: st, screen: screen{Run: s.run.Id, Tab: "graph"}, sent: v.at(), send: func(_ context.Context, b []byte) error {
		return json.Unmarshal(b, &last)
	}}
	if err := fd.run(t.Context()); err != nil {
		t.Fatal(err)
	}
	if h := v.head(screen{}); !last.Done || h.Done != 20_004 || h.Reading != 0 {
		t.Errorf("done %v, %d steps, reading %d", last.Done, h.Done, h.Reading)
	}
}

func TestLiveRefusesOtherSites(t *testing.T) {
	noLeaks(t)
	f := demo()
	url := serve(t, f).URL
	_, res, err := websocket.Dial(t.Context(), url+"/live?run="+idOf(9), &websocket.DialOptions{
		HTTPHeader: http.Header{"Origin": {"https://evil.example"}},
	})
	if err == nil || res == nil || res.StatusCode != http.StatusForbidden {
		t.Errorf("another site's page got %v, %v", res, err)
	}
}
