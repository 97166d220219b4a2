package server

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/orchestrator-project/orchestrator/pipeline"
	orchestratorv1 "github.com/orchestrator-project/orchestrator/proto/orchestrator/v1"
	"github.com/orchestrator-project/orchestrator/store"
)

// watcher reads a WatchRun and checks that nothing is missing.
type watcher struct {
	t      testing.TB
	stream orchestratorv1.Runs_WatchRunClient
	after  int32
}

func (f *fixture) watch(ctx context.Context, id pipeline.RunID, after int32) *watcher {
	f.t.Helper()
	stream, err := f.runs().WatchRun(ctx, &orchestratorv1.WatchRunRequest{Id: string(id), After: after})
	if err != nil {
		f.t.Fatal(err)
	}
	return &watcher{t: f.t, stream: stream, after: after}
}

// next returns the next event, or nil at the end of the stream.
func (w *watcher) next() *orchestratorv1.Event {
	w.t.Helper()
	e, err := w.stream.Recv()
	if errors.Is(err, io.EOF) {
		return nil
	}
	if err != nil {
		w.t.Errorf("watch after %d: %v", w.after, err)
		return nil
	}
	if e.GetSeq() != w.after+1 {
		w.t.Errorf("event %d came after %d", e.GetSeq(), w.after)
	}
	w.after = e.GetSeq()
	return e
}

// until reads to a sequence number.
func (w *watcher) until(seq int32) {
	w.t.Helper()
	for w.after < seq {
		if w.next() == nil {
			w.t.Fatalf("the stream ended after %d, before %d", w.after, seq)
		}
	}
}

func TestWatchRunCatchesUpFollowsAndEnds(t *testing.T) {
	f := start(t)
	id := f.create()
	f.engine.steps(id, 0, 3)
	w := f.watch(t.Context(), id, 0)
	if e := w.next(); e.GetType() != "run_created" || e.GetRunId() != string(id) {
		t.Errorf("first event: %v", e)
	}
	w.until(8) // created, started and three times two
	f.engine.steps(id, 3, 1)
	w.until(10)
	f.engine.finish(id)
	last := w.next()
	if last.GetType() != "run_finished" {
		t.Errorf("last event: %v", last)
	}
	if e := w.next(); e != nil {
		t.Errorf("after the last event: %v", e)
	}
	data := object(t, last.GetData())
	run, _ := data["run"].(map[string]any)
	if run["status"] != "COMPLETED" || !strings.Contains(last.GetData(), `"n":9007199254740993`) {
		t.Errorf("run after the last event: %s", last.GetData())
	}
}

func TestEventsCarryTheWholeStepAfterThem(t *testing.T) {
	f := start(t)
	id := f.create()
	f.engine.add(id,
		pipeline.Event{Type: pipeline.StepStarted, Path: "a", Attempt: 1, Data: pipeline.Data{Kind: pipeline.KindCommand, Parameters: map[string]any{"argv": []any{"x"}}, Worker: "w"}},
		pipeline.Event{Type: pipeline.StepRetrying, Path: "a", Attempt: 1, Data: pipeline.Data{Error: pipeline.Failuref("timeout", "too slow"), Due: time.Unix(2e9, 0)}},
		pipeline.Event{Type: pipeline.StateSet, Path: "a", Data: pipeline.Data{State: map[string]any{"k": int64(1)}}},
		pipeline.Event{Type: pipeline.StepStarted, Path: "a", Attempt: 2},
		pipeline.Event{Type: pipeline.StepFinished, Path: "a", Attempt: 2, Data: pipeline.Data{Status: pipeline.StepFailed, Error: pipeline.Failuref("failed", "no")}},
	)
	resp, err := f.runs().ListEvents(t.Context(), &orchestratorv1.ListEventsRequest{Id: string(id), After: 2})
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		`"status":"RUNNING"`, `"due":"2033-05-18T03:33:20Z","step":{"path":"a","id":"a","kind":"command"`,
		`{"state":{"k":1}}`, `"attempt":2`, `"status":"FAILED"`,
	}
	if len(resp.GetEvents()) != len(want) {
		t.Fatalf("%d events", len(resp.GetEvents()))
	}
	for i, e := range resp.GetEvents() {
		if !strings.Contains(e.GetData(), want[i]) {
			t.Errorf("event %d: %s lacks %s", i, e.GetData(), want[i])
		}
		if n := strings.Count(e.GetData(), `"argv"`); n > 1 {
			t.Errorf("event %d repeats the parameters: %s", i, e.GetData())
		}
	}
}

func TestWatchRunSurvivesALostBell(t *testing.T) {
	f := start(t)
	id := f.create()
	w := f.watch(t.Context(), id, 0)
	w.until(2)
	f.st.deaf.Store(true)
	f.engine.steps(id, 0, 5)
	f.st.deaf.Store(false)
	f.engine.steps(id, 5, 1) // its bell brings what the lost one should have
	w.until(14)
	f.st.deaf.Store(true)
	f.engine.steps(id, 6, 1)
	f.st.deaf.Store(false)
	f.st.Ring(store.Bell{All: true})
	w.until(16)
}

func TestReadsNeedNoBell(t *testing.T) {
	f := start(t)
	id := f.create()
	f.st.deaf.Store(true)
	for i := range 3 {
		f.engine.steps(id, i, 1)
		resp, err := f.runs().ListSteps(t.Context(), &orchestratorv1.ListStepsRequest{Id: string(id)})
		if err != nil || len(resp.GetSteps()) != i+1 {
			t.Errorf("steps: %d, %v; want %d", len(resp.GetSteps()), err, i+1)
		}
		events, err := f.runs().ListEvents(t.Context(), &orchestratorv1.ListEventsRequest{Id: string(id)})
		if err != nil || len(events.GetEvents()) != 4+2*i {
			t.Errorf("events: %d, %v", len(events.GetEvents()), err)
		}
	}
	w := f.watch(t.Context(), id, 0)
	w.until(8)
}

func TestWatchRunResumesAfterAnySequenceNumber(t *testing.T) {
	f := start(t)
	id := f.create()
	f.engine.steps(id, 0, 700)
	f.engine.finish(id)
	for _, after := range []int32{0, 1, 511, 512, 513, 1400, 1402, 1403, 5000} {
		w := f.watch(t.Context(), id, after)
		n := 0
		for w.next() != nil {
			n++
		}
		if want := max(0, 1403-int(after)); n != want {
			t.Errorf("after %d: %d events, want %d", after, n, want)
		}
	}
}

func TestManyWatchersShareOneFold(t *testing.T) {
	f := start(t)
	id := f.create()
	f.engine.steps(id, 0, 200)
	ctx := t.Context()
	const viewers = 100
	var wg sync.WaitGroup
	for range viewers {
		w := f.watch(ctx, id, 0)
		wg.Go(func() {
			for w.next() != nil { //nolint:revive // until the end
			}
			if w.after != 803 {
				t.Errorf("the stream ended after %d", w.after)
			}
		})
	}
	for i := range 20 {
		f.engine.steps(id, 200+10*i, 10)
	}
	f.engine.finish(id)
	wg.Wait()
	// 803 events; each is folded once, and every bell costs one reading.
	if n := f.st.events.Load(); n > 900 {
		t.Errorf("%d events were read for %d viewers", n, viewers)
	}
	// Coming back to a folded run that has ended reads nothing at all.
	before := f.st.readings.Load()
	w := f.watch(ctx, id, 700)
	for w.next() != nil { //nolint:revive // until the end
	}
	if _, err := f.runs().ListSteps(ctx, &orchestratorv1.ListStepsRequest{Id: string(id)}); err != nil {
		t.Error(err)
	}
	if n := f.st.readings.Load() - before; n != 0 {
		t.Errorf("%d readings of a run that is folded and has ended", n)
	}
}

func TestNobodyWaitsForASlowReader(t *testing.T) {
	f := start(t)
	id := f.create()
	ctx := t.Context()
	slow := f.watch(ctx, id, 0)
	slow.until(1)
	fast := f.watch(ctx, id, 0)
	f.engine.steps(id, 0, 1500) // far more than the connection's buffers hold
	f.engine.finish(id)
	for fast.next() != nil { //nolint:revive // until the end
	}
	if fast.after != 3003 {
		t.Errorf("the fast reader ended after %d", fast.after)
	}
	for slow.next() != nil { //nolint:revive // until the end
	}
	if slow.after != 3003 {
		t.Errorf("the slow reader ended after %d", slow.after)
	}
}

func TestWatchRunRefusesWhatIsWrong(t *testing.T) {
	f := start(t)
	for _, c := range []struct {
		id    string
		after int32
		code  codes.Code
	}{
		{"nonsense", 0, codes.NotFound},
		{string(pipeline.NewRunID()), 0, codes.NotFound},
		{string(f.create()), -1, codes.InvalidArgument},
	} {
		stream, err := f.runs().WatchRun(t.Context(), &orchestratorv1.WatchRunRequest{Id: c.id, After: c.after})
		if err == nil {
			_, err = stream.Recv()
		}
		if status.Code(err) != c.code {
			t.Errorf("%s after %d: %v", c.id, c.after, err)
		}
	}
	if n, _, _ := f.srv.hub.sizes(); n > 1 {
		t.Errorf("the hub keeps %d runs, of which some do not exist", n)
	}
}

func TestShutdownEndsStreamsSoThatClientsComeBack(t *testing.T) {
	f := start(t)
	id := f.create()
	w := f.watch(t.Context(), id, 0)
	w.until(2)
	lines := f.open(t.Context(), "/v1/runs/"+string(id)+"/events:watch?after=2")
	f.stop()
	if _, err := w.stream.Recv(); status.Code(err) != codes.Unavailable {
		t.Errorf("the stream ended with %v", err)
	}
	b, err := io.ReadAll(lines)
	if err != nil || !strings.Contains(string(b), `"status":"UNAVAILABLE"`) {
		t.Errorf("the lines ended with %q, %v", b, err)
	}
}

// open begins a GET whose body is read later.
func (f *fixture) open(ctx context.Context, path string) io.Reader {
	f.t.Helper()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, f.url+path, nil)
	if err != nil {
		f.t.Fatal(err)
	}
	resp, err := f.client.Do(req)
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() { resp.Body.Close() })
	if resp.StatusCode != http.StatusOK || resp.Header.Get("Content-Type") != "application/x-ndjson" {
		f.t.Errorf("%s: %d %v", path, resp.StatusCode, resp.Header)
	}
	return resp.Body
}

func TestWatchAsLinesIsBareAndFlushed(t *testing.T) {
	f := start(t)
	id := f.create()
	// The headers come although there is no event to send yet.
	lines := bufio.NewReader(f.open(t.Context(), "/v1/runs/"+string(id)+"/events:watch?after=2"))
	for i := range 3 {
		f.engine.steps(id, i, 1)
		for n := range 2 {
			line, err := lines.ReadString('\n')
			if err != nil {
				t.Fatal(err)
			}
			var e struct {
				Seq  int
				Data struct{ Step struct{ Path string } }
			}
			if err := json.Unmarshal([]byte(line), &e); err != nil {
				t.Fatalf("%q: %v", line, err)
			}
			if e.Seq != 3+2*i+n || e.Data.Step.Path != fmt.Sprintf("loop[%d]/work", i) {
				t.Errorf("line %q", line)
			}
		}
	}
	f.engine.finish(id)
	line, err := lines.ReadString('\n')
	if err != nil || !strings.Contains(line, `"type":"run_finished"`) {
		t.Errorf("last line %q, %v", line, err)
	}
	if rest, err := io.ReadAll(lines); err != nil || len(rest) != 0 {
		t.Errorf("after the last line: %q, %v", rest, err)
	}
	f.refused(404, "run_not_found", "GET", "/v1/runs/"+string(pipeline.NewRunID())+"/events:watch", "")
}

// socket begins a WebSocket; code is the HTTP code of the answer.
func (f *fixture) socket(id pipeline.RunID, query string, header http.Header) (c *websocket.Conn, code int, err error) {
	c, resp, err := websocket.Dial(f.t.Context(), f.url+"/v1/runs/"+string(id)+"/ws"+query, &websocket.DialOptions{HTTPClient: f.client, HTTPHeader: header})
	if resp != nil {
		code = resp.StatusCode
		if err != nil {
			resp.Body.Close()
		}
	}
	return c, code, err
}

func TestWebSocketSendsOneEventPerMessage(t *testing.T) {
	f := start(t)
	id := f.create()
	c, _, err := f.socket(id, "?after=1", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer c.CloseNow()
	f.engine.steps(id, 0, 2)
	f.engine.finish(id)
	for seq := 2; seq <= 7; seq++ {
		kind, b, err := c.Read(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		var e struct {
			Seq   int
			RunID string `json:"run_id"`
		}
		if err := json.Unmarshal(b, &e); err != nil || kind != websocket.MessageText || e.Seq != seq || e.RunID != string(id) {
			t.Errorf("message %q, %v", b, err)
		}
	}
	_, _, err = c.Read(t.Context())
	if websocket.CloseStatus(err) != websocket.StatusNormalClosure {
		t.Errorf("closed with %v", err)
	}
}

func TestWebSocketOfAServerThatGoesAway(t *testing.T) {
	f := start(t)
	id := f.create()
	c, _, err := f.socket(id, "?after=2", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer c.CloseNow()
	go f.stop()
	_, b, err := c.Read(t.Context())
	if err != nil || !strings.Contains(string(b), "UNAVAILABLE") {
		t.Errorf("last message %q, %v", b, err)
	}
	if _, _, err = c.Read(t.Context()); websocket.CloseStatus(err) != websocket.StatusGoingAway {
		t.Errorf("closed with %v", err)
	}
	f.stop()
}

func TestWebSocketAnswersInHTTPWhenItCannotBegin(t *testing.T) {
	f := start(t)
	id := f.create()
	for _, c := range []struct {
		id    pipeline.RunID
		query string
		head  http.Header
		code  int
	}{
		{pipeline.NewRunID(), "", nil, 404},
		{id, "?after=-1", nil, 400},
		{id, "?after=x", nil, 400},
		{id, "?since=1", nil, 400},
		{id, "", http.Header{"Origin": {"https://evil.example"}}, 403},
		{id, "", http.Header{"Origin": {"null"}}, 403},
	} {
		conn, code, err := f.socket(c.id, c.query, c.head)
		if err == nil {
			conn.CloseNow()
			t.Errorf("%s %v: it began", c.query, c.head)
			continue
		}
		if code != c.code {
			t.Errorf("%s %v: %v", c.query, c.head, err)
		}
	}
	f.refused(426, "upgrade_required", "GET", "/v1/runs/"+string(id)+"/ws", "")
	c, _, err := f.socket(id, "", http.Header{"Origin": {f.url}})
	if err != nil {
		t.Fatalf("own origin: %v", err)
	}
	c.CloseNow()
}
