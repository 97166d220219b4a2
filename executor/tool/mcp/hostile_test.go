package mcp

import (
	"bufio"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/orchestrator-project/orchestrator/executor/tool"
	"github.com/orchestrator-project/orchestrator/pipeline"
	"github.com/orchestrator-project/orchestrator/pipeline/expr"
)

// refusedOpen opens a server that cannot be used.
func (w *world) refusedOpen(s Server) *pipeline.Failure {
	w.Helper()
	set, err := w.pool.Connect(w.done, w.env, "", []Server{s})
	if err == nil {
		set.Close()
		w.Fatal("the server could be opened")
	}
	f, ok := errors.AsType[*pipeline.Failure](err)
	if !ok {
		w.Fatalf("the error is no failure: %v", err)
	}
	return f
}

func TestServersThatCannotBeUsed(t *testing.T) {
	short := Config{Connect: 200 * time.Millisecond}
	for _, c := range []struct {
		mode string
		cfg  Config
		want string
	}{
		{"exit", Config{}, "no licence found"},
		{"silent", short, "has not answered"},
		{"deaf", short, "has not answered"},
		{"garbage", Config{}, "no message"},
		{"endless", Config{}, "more than 16777216 bytes"},
		{"forever", Config{}, "more than 100 pages"},
	} {
		t.Run(c.mode, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, c.cfg)
			f := w.refusedOpen(w.program(c.mode))
			if f.Kind != pipeline.CategoryTool || f.Reason != "mcp_unreachable" || !strings.Contains(f.Message, c.want) || !strings.Contains(f.Message, "srv") {
				t.Errorf("the failure is %+v, without %q", f, c.want)
			}
		})
	}
	t.Run("no such program", func(t *testing.T) {
		w := newWorld(t, Config{})
		f := w.refusedOpen(Server{Name: "srv", Transport: stdio, Command: []string{"no-such-program"}})
		if f.Kind != pipeline.CategoryValidation || !strings.Contains(f.Message, "no-such-program") {
			t.Errorf("the failure is %+v", f)
		}
	})
	t.Run("no sandbox", func(t *testing.T) {
		w := newWorld(t, Config{})
		s := w.program("friend")
		s.Sandbox = &pipeline.Sandbox{}
		if f := w.refusedOpen(s); !strings.Contains(f.Message, "sandbox") {
			t.Errorf("the failure is %+v", f)
		}
	})
	for name, h := range map[string]http.HandlerFunc{
		"500":     func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "broken", http.StatusInternalServerError) },
		"401":     func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "who are you", http.StatusUnauthorized) },
		"page":    func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "<html>") },
		"nothing": func(http.ResponseWriter, *http.Request) {},
		"long": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			for {
				if _, err := fmt.Fprint(w, strings.Repeat(" ", 1<<20)); err != nil {
					return
				}
			}
		},
	} {
		for _, transport := range []string{streamable, sse} {
			t.Run(name+" over "+transport, func(t *testing.T) {
				t.Parallel()
				s := httptest.NewServer(h)
				defer s.Close()
				w := newWorld(t, Config{Connect: 5 * time.Second})
				kind := pipeline.CategoryTool
				if name == "401" { // a login, or a key, may help; trying again does not
					kind = pipeline.CategoryValidation
				}
				if f := w.refusedOpen(Server{Name: "srv", Transport: transport, URL: s.URL}); f.Kind != kind || f.Kind == pipeline.CategoryValidation && f.Reason != reasonLogin {
					t.Errorf("the failure is %+v", f)
				}
			})
		}
	}
}

func TestServersThatMisbehaveInACall(t *testing.T) {
	for _, c := range []struct {
		mode, reason, want string
		cfg                Config
	}{
		{mode: "dies", reason: reasonLost, want: "out of luck"},
		{mode: "never", reason: reasonSilent, want: "no sign for", cfg: Config{Silence: 100 * time.Millisecond}},
		{mode: "nonsense", reason: reasonResult, want: "cannot be read"},
		{mode: "wrong", reason: reasonResult, want: "cannot be read"},
	} {
		t.Run(c.mode, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, c.cfg)
			set := w.open(w.program(c.mode))
			_, err := w.try(set, "do", tool.Call{})
			f, ok := errors.AsType[*pipeline.Failure](err)
			if !ok || f.Kind != pipeline.CategoryTool || f.Reason != c.reason || !strings.Contains(f.Message, c.want) {
				t.Errorf("the call gives %+v, not %s with %q", err, c.reason, c.want)
			}
		})
	}
	for _, mode := range []string{"chatty", "mute", "stderr", "asides", "restless"} {
		t.Run(mode+" is borne", func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, Config{Connect: 5 * time.Second})
			if got := w.call(w.open(w.program(mode)), "do", tool.Call{}); got != "done" {
				t.Errorf("the call gave %q", got)
			}
			if n := len(w.logged()); n > 2*maxLog {
				t.Errorf("%d bytes were logged", n)
			}
		})
	}
}

func TestToolsThatCannotBeUsedAreLeftOut(t *testing.T) {
	w := newWorld(t, Config{})
	set := w.open(w.program("liar"))
	offered := names(set)
	if len(offered) != 3 {
		t.Errorf("offered are %v", offered)
	}
	for remote, want := range map[string]string{
		"do": "twice", "bell?": "cannot be shown", "broken": "no JSON Schema|not a JSON Schema", "text": "not one of an object",
		"list": "no object", "away": "outside the schema", "huge": "more than 65536", "missing": "has no tool",
	} {
		ok := false
		for w := range strings.SplitSeq(want, "|") {
			ok = ok || strings.Contains(set.Why("srv", remote), w)
		}
		if !ok {
			t.Errorf("%s: %q does not say %q", remote, set.Why("srv", remote), want)
		}
	}
	if got := set.Find("mcp__srv__files/read.all"); got == nil || got.Name != Name("srv", "files/read.all") || got.Remote != "files/read.all" || set.Find(got.Name) == nil {
		t.Errorf("the tool with the strange name is %+v", got)
	}
	_, err := w.try(set, "promise", tool.Call{})
	if f, ok := errors.AsType[*pipeline.Failure](err); !ok || f.Reason != reasonResult || !strings.Contains(f.Message, "/n") {
		t.Errorf("the broken promise gives %v", err)
	}
}

func TestOnlySoManyTools(t *testing.T) {
	w := newWorld(t, Config{})
	if n := len(w.open(w.program("many")).Tools()); n != maxTools {
		t.Errorf("%d tools", n)
	}
}

// Also one that does not end when it is told to.
func TestClosingEndsWhatIsBeingConnected(t *testing.T) {
	t.Parallel()
	w := newWorld(t, Config{Connect: time.Hour})
	failed := make(chan error, 1)
	go func() {
		_, err := w.pool.Connect(w.done, w.env, "", []Server{w.program("stubborn")})
		failed <- err
	}()
	pid := written(t, filepath.Join(w.env.Workspace, "stubborn.pid"))
	w.pool.Close()
	if err := <-failed; err == nil || !strings.Contains(err.Error(), errClosed.Error()) {
		t.Errorf("it ended with %v", err)
	}
	gone(t, pid)
}

// A process of ours that is killed cannot end what servers have started.
func TestServersDoNotOutliveAProcessThatIsKilled(t *testing.T) {
	t.Parallel()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	owner := exec.CommandContext(t.Context(), self)
	owner.Dir, owner.Env = t.TempDir(), append(os.Environ(), serverMode+"=owner")
	out, err := owner.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := owner.Start(); err != nil {
		t.Fatal(err)
	}
	said, err := bufio.NewReader(out).ReadString('\n')
	if said != "open <nil>\n" {
		t.Errorf("it said %q, %v", said, err)
	}
	pid := written(t, filepath.Join(owner.Dir, "left.pid"))
	_ = owner.Process.Kill()
	_ = owner.Wait()
	gone(t, pid)
}

// written is what stands in a file, once a line does.
func written(t *testing.T, name string) string {
	t.Helper()
	var text []byte
	await(t, name+" is written", func() bool {
		text, _ = os.ReadFile(name)
		return strings.HasSuffix(string(text), "\n")
	})
	return strings.TrimSpace(string(text))
}

func TestNamesFitEveryModel(t *testing.T) {
	seen := map[string]string{}
	for _, remote := range []string{"read", "read_file", "read.file", "read/file", "read file", "lesen_ö", strings.Repeat("a", 80), strings.Repeat("a", 81), "_", "-", "a__b"} {
		name := Name("srv", remote)
		if len(name) > 64 || strings.Trim(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-") != "" {
			t.Errorf("%q became %q", remote, name)
		}
		if other, twice := seen[name]; twice {
			t.Errorf("%q and %q are both %q", remote, other, name)
		}
		seen[name] = remote
	}
	if Name("fs", "read_file") != "mcp__fs__read_file" {
		t.Error("a name that fits is changed")
	}
}

func TestSecretsAreNotShown(t *testing.T) {
	const key = "tell-nobody-1234"
	elsewhere := make(chan string, 10)
	thief := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { elsewhere <- r.Header.Get("Authorization") }))
	defer thief.Close()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer "+key {
			t.Errorf("the header is %q", r.Header.Get("Authorization"))
		}
		http.Redirect(w, r, thief.URL, http.StatusTemporaryRedirect)
	}))
	defer s.Close()
	plan := &pipeline.MCPServer{
		Name: "srv", Transport: streamable, URL: &pipeline.Field{Const: s.URL},
		Headers: []pipeline.Entry{{Name: "Authorization", Value: pipeline.Field{Const: "the header"}}},
	}
	text := func(f *pipeline.Field, more map[string]any) (any, error) {
		if f.Const == "the header" {
			v, ok := more["secrets"].(expr.Object).Attr("KEY")
			if !ok {
				return nil, errors.New("no such attribute")
			}
			return "Bearer " + v.(string), nil
		}
		return f.Const, nil
	}
	server, err := Resolve(plan, text, func(name string) (string, bool) { return key, name == "KEY" })
	if err != nil {
		t.Fatal(err)
	}
	w := newWorld(t, Config{Connect: time.Second})
	f := w.refusedOpen(server)
	if strings.Contains(f.Message+w.logged(), key) {
		t.Errorf("the secret shows in %s", f.Message)
	}
	close(elsewhere)
	for got := range elsewhere {
		if got != "" {
			t.Errorf("another host was sent %q", got)
		}
	}
	if _, err := Resolve(plan, text, func(string) (string, bool) { return "", false }); err == nil || !strings.Contains(err.Error(), "the secret KEY") {
		t.Errorf("a missing secret gives %v", err)
	}
	loud := w.program("exit")
	loud.hidden = []string{"no licence found"}
	if f := w.refusedOpen(loud); !strings.Contains(f.Message, "[secret]") {
		t.Errorf("what a program said is shown as it is: %s", f.Message)
	}
}
