package mcp

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	sdk "github.com/modelcontextprotocol/go-sdk/mcp"
	"go.opentelemetry.io/otel/trace"

	"github.com/orchestrator-project/orchestrator/executor"
	"github.com/orchestrator-project/orchestrator/executor/model"
	"github.com/orchestrator-project/orchestrator/executor/tool"
	"github.com/orchestrator-project/orchestrator/pipeline"
)

// world is a pool under test, and a run that uses it.
type world struct {
	*testing.T
	pool *Pool
	env  executor.Env
	done context.Context //nolint:containedctx // ends with the test

	mu  sync.Mutex
	log []string
}

func newWorld(t *testing.T, cfg Config) *world {
	t.Helper()
	w := &world{T: t}
	w.env = executor.Env{Run: "run-1", Path: "s", Workspace: t.TempDir(), Log: func(stream, text string) {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.log = append(w.log, stream+" "+text)
	}}
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	t.Cleanup(cancel)
	w.done = ctx
	w.pool = NewPool(cfg)
	t.Cleanup(w.pool.Close)
	return w
}

func (w *world) logged() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return strings.Join(w.log, "")
}

// program is the test program as a server.
func (w *world) program(mode string) Server {
	w.Helper()
	self, err := os.Executable()
	if err != nil {
		w.Fatal(err)
	}
	return Server{Name: "srv", Transport: stdio, Command: []string{self}, Env: map[string]string{serverMode: mode}}
}

func (w *world) open(servers ...Server) *Set {
	w.Helper()
	set, err := w.pool.Connect(w.done, w.env, "small", servers)
	if err != nil {
		w.Fatal(err)
	}
	w.Cleanup(set.Close)
	return set
}

func (w *world) try(set *Set, remote string, c tool.Call) (tool.Result, error) {
	w.Helper()
	t := set.Find(pipeline.MCPName("srv", remote))
	if t == nil {
		w.Fatalf("no tool %s: %s", remote, set.Why("srv", remote))
	}
	return t.Run(w.done, w.env, c)
}

func (w *world) call(set *Set, remote string, c tool.Call) string {
	w.Helper()
	r, err := w.try(set, remote, c)
	if err != nil {
		w.Fatalf("%s: %v", remote, err)
	}
	return r.Content[0].Text
}

func names(set *Set) []string {
	var list []string
	for _, t := range set.Tools() {
		list = append(list, t.Name)
	}
	return list
}

// transports serves friend over each of them.
func transports(w *world) map[string]Server {
	var mu sync.Mutex
	var servers []*sdk.Server
	serving := func(h http.Handler) string {
		s := httptest.NewServer(h)
		w.Cleanup(func() { s.CloseClientConnections(); s.Close() })
		return s.URL
	}
	get := func(*http.Request) *sdk.Server {
		mu.Lock()
		defer mu.Unlock()
		servers = append(servers, friend())
		return servers[len(servers)-1]
	}
	w.Cleanup(func() {
		mu.Lock()
		defer mu.Unlock()
		for _, s := range servers {
			for session := range s.Sessions() {
				_ = session.Close()
			}
		}
	})
	return map[string]Server{
		stdio:       w.program("friend"),
		streamable:  {Name: "srv", Transport: streamable, URL: serving(sdk.NewStreamableHTTPHandler(get, nil))},
		sse:         {Name: "srv", Transport: sse, URL: serving(sdk.NewSSEHandler(get, nil))},
		"stateless": {Name: "srv", Transport: streamable, URL: serving(sdk.NewStreamableHTTPHandler(get, &sdk.StreamableHTTPOptions{Stateless: true, JSONResponse: true}))},
	}
}

func TestToolsOverEachTransport(t *testing.T) {
	for _, name := range []string{stdio, streamable, sse, "stateless"} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, Config{})
			set := w.open(transports(w)[name])
			if got := w.call(set, "echo", tool.Call{Arguments: map[string]any{"text": "hi"}}); got != `{"text":"hi"}` {
				t.Errorf("echo gave %q", got)
			}
			r, err := w.try(set, "fail", tool.Call{})
			if err != nil || !r.Failed || r.Content[0].Text != "the disk is full" {
				t.Errorf("fail gave %+v, %v", r, err)
			}
			if _, err := w.try(set, "echo", tool.Call{Arguments: map[string]any{"text": 5}}); err != nil && !strings.Contains(err.Error(), "srv") {
				t.Errorf("wrong arguments gave %v", err)
			}
			if got := w.call(set, "read_resource", tool.Call{}); !strings.Contains(got, "memo://one") {
				t.Errorf("resources are %q", got)
			}
			if got := w.call(set, "read_resource", tool.Call{Arguments: map[string]any{"uri": "memo://one"}}); !strings.Contains(got, "remember") {
				t.Errorf("the resource is %q", got)
			}
			if echo, pid := set.Find("mcp__srv__echo"), set.Find("mcp__srv__pid"); echo.Effect != pipeline.EffectIdempotent || pid.Effect != pipeline.EffectAtMostOnce {
				t.Errorf("effects are %s and %s", echo.Effect, pid.Effect)
			}
		})
	}
}

func TestContentOfEveryKind(t *testing.T) {
	w := newWorld(t, Config{})
	r, err := w.try(w.open(w.program("friend")), "picture", tool.Call{})
	if err != nil {
		t.Fatal(err)
	}
	var kinds []string
	for _, b := range r.Content {
		kinds = append(kinds, b.Kind)
	}
	if want := []string{"image", "audio", "text", "text", "document"}; !slices.Equal(kinds, want) {
		t.Errorf("the blocks are %v, not %v", kinds, want)
	}
}

func TestOneSessionForEachRunAndServer(t *testing.T) {
	w := newWorld(t, Config{})
	a, b := w.open(w.program("friend")), w.open(w.program("friend"))
	first := w.call(a, "pid", tool.Call{})
	if second := w.call(b, "pid", tool.Call{}); second != first {
		t.Errorf("two sets of a run have the processes %s and %s", first, second)
	}
	other := w.env
	other.Run = "run-2"
	c, err := w.pool.Connect(w.done, other, "", []Server{w.program("friend")})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if third := w.call(c, "pid", tool.Call{}); third == first {
		t.Error("two runs have one process")
	}
	a.Close()
	w.call(b, "pid", tool.Call{})
	w.pool.Leave("run-1")
	w.call(b, "pid", tool.Call{}) // it is in use
	b.Close()
	gone(t, first)
}

func TestIdleSessionsEnd(t *testing.T) {
	w := newWorld(t, Config{Idle: time.Millisecond})
	set := w.open(w.program("friend"))
	pid := w.call(set, "pid", tool.Call{})
	set.Close()
	gone(t, pid)
}

// gone waits for the end of a process.
func gone(t *testing.T, pid string) {
	t.Helper()
	n, err := strconv.Atoi(pid)
	if err != nil {
		t.Fatal(err)
	}
	await(t, "process "+pid+" has ended", func() bool { return errors.Is(syscall.Kill(n, 0), syscall.ESRCH) || zombie(n) })
}

// zombie reports whether a process has ended and only its parent, who is not of
// ours, has not asked for it.
func zombie(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err == nil && strings.Contains(string(stat), ") Z ")
}

func await(t *testing.T, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !is(); {
		if time.Now().After(end) {
			t.Fatalf("%s: not within %s", what, patience)
		}
		runtime.Gosched()
	}
}

func TestConnectionThatBreaksIsMadeAgain(t *testing.T) {
	w := newWorld(t, Config{})
	set := w.open(w.program("friend"))
	first := w.call(set, "pid", tool.Call{})
	_, err := w.try(set, "die", tool.Call{})
	if f, ok := errors.AsType[*pipeline.Failure](err); !ok || f.Kind != pipeline.CategoryTool || f.Reason != reasonLost {
		t.Errorf("a call whose server dies gives %v", err)
	}
	if second := w.call(set, "pid", tool.Call{}); second == first {
		t.Error("the process that died is still the one")
	}
}

func TestServerThatDiesEachTimeIsGivenUp(t *testing.T) {
	w := newWorld(t, Config{})
	set := w.open(w.program("dies"))
	var err error
	for range maxDeaths + 1 {
		if _, err = w.try(set, "do", tool.Call{}); err == nil {
			t.Fatal("the call succeeded")
		}
	}
	if !strings.Contains(err.Error(), "5 times in a row") || !strings.Contains(err.Error(), "out of luck") {
		t.Errorf("the last call gives %v", err)
	}
}

func TestProcessesOfAServerEndWithIt(t *testing.T) {
	w := newWorld(t, Config{Idle: time.Millisecond})
	set := w.open(w.program("friend"))
	pid, child := w.call(set, "pid", tool.Call{}), w.call(set, "child", tool.Call{})
	set.Close()
	gone(t, pid)
	gone(t, child)
}

func TestListIsReadAgainWhenItChanges(t *testing.T) {
	for _, name := range []string{stdio, streamable, sse} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, Config{})
			set := w.open(transports(w)[name])
			for len(set.Changed()) > 0 {
				<-set.Changed()
			}
			w.call(set, "grow", tool.Call{})
			for set.Find("mcp__srv__grown") == nil || set.Find("mcp__srv__fail") != nil {
				select {
				case <-set.Changed():
				case <-w.done.Done():
					t.Fatal("the tools have not changed")
				}
			}
			if got := w.call(set, "grown", tool.Call{}); got != "here" {
				t.Errorf("the new tool gave %q", got)
			}
		})
	}
}

func TestProgressAndLog(t *testing.T) {
	w := newWorld(t, Config{})
	set := w.open(w.program("old")) // newer versions send logs to those alone who ask for them in each request
	seen := make(chan string, 10)
	done := make(chan string)
	go func() {
		done <- w.call(set, "steps", tool.Call{Progress: func(text string) { seen <- text }})
	}()
	for i := range 3 {
		if got, want := <-seen, fmt.Sprintf("%d/3 step\n", i+1); got != want {
			t.Errorf("progress is %q, not %q", got, want)
		}
	}
	await(t, "the log", func() bool { return strings.Contains(w.logged(), "system srv: warning: nearly there\n") })
	if err := os.WriteFile(filepath.Join(w.env.Workspace, "heard"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	<-done
}

func TestCancellationReachesTheServer(t *testing.T) {
	for _, name := range []string{stdio, streamable, sse} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, Config{})
			t.Chdir(w.env.Workspace) // where the servers of this process write
			set := w.open(transports(w)[name])
			ctx, cancel := context.WithCancelCause(w.done)
			ended := make(chan error, 1)
			go func() {
				_, err := set.Find("mcp__srv__wait").Run(ctx, w.env, tool.Call{})
				ended <- err
			}()
			exists := func(name string) func() bool {
				return func() bool { _, err := os.Stat(filepath.Join(w.env.Workspace, name)); return err == nil }
			}
			await(t, "the call has begun", exists("waiting"))
			why := errors.New("enough")
			cancel(why)
			if err := <-ended; !errors.Is(err, why) {
				t.Errorf("the call ended with %v", err)
			}
			await(t, "the server has heard", exists("cancelled"))
		})
	}
}

func TestServerKnowsTheCall(t *testing.T) {
	w := newWorld(t, Config{})
	set := w.open(w.program("friend"))
	span := trace.NewSpanContext(trace.SpanContextConfig{TraceID: trace.TraceID{1}, SpanID: trace.SpanID{2}, TraceFlags: trace.FlagsSampled})
	w.done = trace.ContextWithSpanContext(w.done, span)
	got := w.call(set, "meta", tool.Call{Key: "run-1/s/3"})
	for _, want := range []string{`"idempotency_key":"run-1/s/3"`, `"traceparent":"00-` + span.TraceID().String(), `"progressToken"`} {
		if !strings.Contains(got, want) {
			t.Errorf("_meta is %s, without %s", got, want)
		}
	}
	for _, mode := range []string{"friend", "old"} {
		if got := w.call(w.open(w.program(mode)), "roots", tool.Call{}); got != "file://"+w.env.Workspace {
			t.Errorf("the root is %s for %s", got, mode)
		}
	}
}

func TestServerSeesItsOwnEnvironmentAlone(t *testing.T) {
	t.Setenv("ANTHROPIC_API_KEY", "sk-secret")
	w := newWorld(t, Config{})
	s := w.program("friend")
	s.Env["TOKEN"], s.Env["LANG"] = "mine", "C"
	got := w.call(w.open(s), "environ", tool.Call{})
	for line := range strings.SplitSeq(got, "\n") {
		name, _, _ := strings.Cut(line, "=")
		if !slices.Contains([]string{serverMode, "TOKEN", "PATH", "HOME", "LANG", "TMPDIR", "TZ"}, name) {
			t.Errorf("the server sees %s", name)
		}
	}
	if !strings.Contains(got, "TOKEN=mine") || !strings.Contains(got, "LANG=C") {
		t.Errorf("its environment is %s", got)
	}
}

func TestServerAsksPeople(t *testing.T) {
	for _, c := range []struct {
		name string
		d    *pipeline.Decision
		err  error
		want string
	}{
		{name: "answer", d: &pipeline.Decision{Decision: "answer", Value: map[string]any{"colour": "red"}}, want: "accept red"},
		{name: "the one member", d: &pipeline.Decision{Decision: "answer", Value: "red"}, want: "accept red"},
		{name: "null", d: &pipeline.Decision{Decision: "answer"}, want: "decline <nil>"},
		{name: "rejected", d: &pipeline.Decision{Decision: "reject"}, want: "decline <nil>"},
	} {
		for _, mode := range []string{"friend", "old"} {
			t.Run(c.name+" "+mode, func(t *testing.T) {
				w := newWorld(t, Config{})
				set := w.open(w.program(mode))
				got := w.call(set, "ask", tool.Call{Ask: func(_ context.Context, q string, schema map[string]any) (*pipeline.Decision, error) {
					if !strings.Contains(q, "srv asks: Which colour?\n- colour (string)\n") || encoded(schema["type"]) != `["object","null","string"]` {
						t.Errorf("asked %q with %v", q, schema)
					}
					return c.d, c.err
				}})
				if got != c.want {
					t.Errorf("the server heard %q, not %q", got, c.want)
				}
			})
		}
	}
	t.Run("nobody there", func(t *testing.T) {
		w := newWorld(t, Config{})
		if got := w.call(w.open(w.program("friend")), "ask", tool.Call{}); got != "decline <nil>" {
			t.Errorf("the server heard %q", got)
		}
	})
	t.Run("step laid down", func(t *testing.T) {
		w := newWorld(t, Config{})
		_, err := w.try(w.open(w.program("friend")), "ask", tool.Call{Ask: func(context.Context, string, map[string]any) (*pipeline.Decision, error) {
			return nil, &executor.Suspension{}
		}})
		if _, ok := errors.AsType[*executor.Suspension](err); !ok {
			t.Errorf("the call ended with %v", err)
		}
	})
}

// asked is a Caller that keeps what it was asked.
type asked struct {
	request *model.Request
	env     executor.Env
	err     error
}

func (a *asked) Ask(_ context.Context, env executor.Env, r *model.Request) (*model.Response, error) {
	a.request, a.env = r, env
	return &model.Response{Message: model.AssistantText("blue"), Model: "m"}, a.err
}

func TestServerAsksAModel(t *testing.T) {
	for _, mode := range []string{"friend", "old"} {
		t.Run(mode, func(t *testing.T) {
			caller := &asked{}
			w := newWorld(t, Config{Models: caller})
			set := w.open(w.program(mode))
			if got := w.call(set, "sample", tool.Call{N: 7, Key: "k"}); got != "blue" {
				t.Errorf("the server heard %q", got)
			}
			r := caller.request
			if r.In != 7 || r.Model != "small" || r.System != "Be short." || r.LastUser() != "Name a colour." || r.MaxTokens != 10 || r.IdempotencyKey != "k/sampling/1" || caller.env.Path != "s" {
				t.Errorf("the model was asked %+v", r)
			}
			caller.err = &executor.Suspension{Reason: "budget_exceeded"}
			_, err := w.try(set, "sample", tool.Call{})
			if s, ok := errors.AsType[*executor.Suspension](err); !ok || s.Reason != "budget_exceeded" {
				t.Errorf("a budget that is spent gave %v", err)
			}
		})
	}
}

func TestAllowAndDeny(t *testing.T) {
	w := newWorld(t, Config{})
	s := w.program("friend")
	s.Allow, s.Deny = []string{"p*", "read_*"}, []string{"pic*"}
	if got, want := names(w.open(s)), []string{"mcp__srv__pid", "mcp__srv__read_resource"}; !slices.Equal(got, want) {
		t.Errorf("allowed are %v, not %v", got, want)
	}
}
