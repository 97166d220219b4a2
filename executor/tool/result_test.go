package tool_test

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/orchestrator-project/orchestrator/executor"
	"github.com/orchestrator-project/orchestrator/executor/model"
	"github.com/orchestrator-project/orchestrator/executor/tool"
	"github.com/orchestrator-project/orchestrator/pipeline"
)

var handleForm = regexp.MustCompile(`handle "([^"]+)"`)

// says is a server of one tool that gives what f gives.
type says struct {
	f func(ctx context.Context, env executor.Env, c tool.Call) (tool.Result, error)
	t tool.Tool
}

func (s says) Open(context.Context, executor.Env, tool.Want, []string) (tool.ServerSet, error) {
	return s, nil
}

func (s says) Tools() []tool.ServerTool {
	t := s.t
	t.Name, t.Run = "mcp__s__say", s.f
	return []tool.ServerTool{{Tool: t, Server: "s", Remote: "say"}}
}

func (says) Close() {}

// saying is a box with one tool mcp__s__say that gives what f gives.
func saying(t *testing.T, cfg tool.Config, env executor.Env, own tool.Tool, f func(ctx context.Context, env executor.Env, c tool.Call) (tool.Result, error)) tool.Box {
	t.Helper()
	cfg.Servers = says{f, own}
	w := want()
	w.Agent.MCP, w.Unit = []string{"s"}, &pipeline.Unit{MCPServers: []pipeline.MCPServer{{Name: "s"}}}
	return open(t, cfg, env, w)
}

func TestALongResultIsReadOn(t *testing.T) {
	var whole strings.Builder
	for i := range 20_000 {
		fmt.Fprintf(&whole, "line %d of the result\n", i)
	}
	env := environment(t)
	box := saying(t, config(&blobs{}), env, tool.Tool{}, func(context.Context, executor.Env, tool.Call) (tool.Result, error) {
		return tool.Text(whole.String()), nil
	})
	got, _ := call(t, box, env, "mcp__s__say", "{}")
	if len(got) > 32<<10 || !strings.HasPrefix(got, "line 0 of") || !strings.HasSuffix(got, "line 19999 of the result\n") {
		t.Fatalf("%d bytes: %.80s ... %.80s", len(got), got, got[len(got)-80:])
	}
	handle := handleForm.FindStringSubmatch(got)[1]
	read := func(format string, args ...any) string {
		text, _ := call(t, box, env, "read_result", fmt.Sprintf(`{"handle": %q, `+format+`}`, append([]any{handle}, args...)...))
		return text
	}
	var again strings.Builder
	for again.Len() < whole.Len() {
		_, body, _ := strings.Cut(read(`"offset": %d, "length": 30000`, again.Len()), "]\n")
		body, _, _ = strings.Cut(body, "\n[it goes on")
		again.WriteString(body)
	}
	if again.String() != whole.String() {
		t.Error("what was read on is not what was given")
	}
	at := strings.Index(whole.String(), "line 12345 ")
	if got := read(`"search": "line 12345 "`); got != fmt.Sprintf("%d: line 12345 of the result\n", at) {
		t.Errorf("a search gave %s", got)
	}
	if got := read(`"search": "of the"`); strings.Count(got, "\n") != 51 || !strings.Contains(got, "more lines match; go on with offset") {
		t.Errorf("a search for all gave %s", got)
	}
	for _, wrong := range []string{`"offset": 99999999`, `"search": "("`} {
		if got := read(wrong); !strings.Contains(got, "nothing at") && !strings.Contains(got, "not a regular expression") {
			t.Errorf("%s gave %s", wrong, got)
		}
	}
}

func TestAHandleIsOfItsRunAlone(t *testing.T) {
	kept, env := &blobs{}, environment(t)
	f := func(context.Context, executor.Env, tool.Call) (tool.Result, error) {
		return tool.Text(strings.Repeat("private ", 10_000)), nil
	}
	got, _ := call(t, saying(t, config(kept), env, tool.Tool{}, f), env, "mcp__s__say", "{}")
	handle := handleForm.FindStringSubmatch(got)[1]
	other := environment(t)
	other.Run = "run-2"
	box := saying(t, config(kept), other, tool.Tool{}, f)
	for _, h := range []string{handle, "sha256:beef", "parts:" + handle, "../etc", ""} {
		if got, r := call(t, box, other, "read_result", fmt.Sprintf(`{"handle": %q}`, h)); !r.Failed || strings.Contains(got, "private") {
			t.Errorf("%q gave %.100s", h, got)
		}
	}
}

func TestAResultOfAHundredMegabytesTakesLittleMemory(t *testing.T) {
	kept, env := &blobs{}, environment(t)
	env.Redact = nil
	box := open(t, config(kept), env, want(pipeline.Tool{Name: "terminal"}))
	most := uint64(0)
	look := func() {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		most = max(most, m.HeapAlloc)
	}
	n := 0
	got, r := call(t, box, env, "terminal", `{"command": "yes 0123456789abcdef0123456789abcdef | head -c 104857600; echo the end"}`, func(c *tool.Call) {
		c.Progress = func(s string) {
			if n += len(s); n > 8<<20 {
				n = 0
				look()
			}
		}
	})
	if r.Failed || len(got) > 32<<10 || !strings.HasSuffix(got, "the end") || !strings.Contains(got, "read_result reads on") {
		t.Fatalf("gave %d bytes: ...%.300s", len(got), got[max(0, len(got)-300):])
	}
	if kept.largest > 5<<20 || kept.size < 100<<20 {
		t.Errorf("%d bytes are kept, the largest part has %d", kept.size, kept.largest)
	}
	if most > uint64(kept.size)+(32<<20) { // the test keeps the parts in memory itself
		t.Errorf("%d MiB of memory were in use", most>>20)
	}
	handle := handleForm.FindStringSubmatch(got)[1]
	if got, _ := call(t, box, env, "read_result", fmt.Sprintf(`{"handle": %q, "search": "the end"}`, handle)); got != "104857600: the end\n" && !strings.Contains(got, "the end") {
		t.Errorf("a search gave %s", got)
	}
}

// Wherever in a long result a secret stands, also across the cut between two
// parts, it does not come through, and nothing else is lost.
func TestNoSecretComesThrough(t *testing.T) {
	const secret, mark, part = "hunter2hunter2", "[secret PASSWORD]", 4 << 20
	env := environment(t)
	for _, at := range []int{0, 8<<10 - 5, 100_000, part - 64<<10, part - 13, part - 1, part, part + 64<<10 - 7, part + 64<<10, 2*part - 3, 2*part + 64<<10 - 1} {
		kept := &blobs{}
		whole := strings.Repeat("x", at) + secret + strings.Repeat("y", 2*part+200_000-at)
		box := saying(t, config(kept), env, tool.Tool{}, func(context.Context, executor.Env, tool.Call) (tool.Result, error) {
			return tool.Text(whole), nil
		})
		got, _ := call(t, box, env, "mcp__s__say", "{}")
		size := kept.size
		for _, data := range kept.by {
			if strings.Contains(string(data), "hunter2") {
				t.Fatalf("at %d the secret is kept", at)
			}
			if strings.HasPrefix(string(data), `{"size"`) { // the index
				size -= len(data)
			}
		}
		if strings.Contains(got, "hunter2") {
			t.Fatalf("at %d the secret is shown", at)
		}
		if want := len(whole) - len(secret) + len(mark); size != want {
			t.Errorf("at %d: %d bytes of %d are kept", at, size, want)
		}
	}
}

func TestErrorsOfToolsAreResults(t *testing.T) {
	for _, c := range []struct {
		name string
		tool tool.Tool
		give func(ctx context.Context) (tool.Result, error)
		want string
	}{
		{"a failure", tool.Tool{}, func(context.Context) (tool.Result, error) {
			return tool.Text("so far"), pipeline.Failuref(pipeline.CategoryFailed, "no luck with hunter2hunter2")
		}, "no luck with [secret PASSWORD]so far"},
		{"an error", tool.Tool{}, func(context.Context) (tool.Result, error) { return tool.Result{}, errors.New("broken") }, "broken"},
		{"a panic", tool.Tool{}, func(context.Context) (tool.Result, error) { panic("at the disco") }, "broke down inside the server"},
		{"late", tool.Tool{Timeout: time.Millisecond}, func(ctx context.Context) (tool.Result, error) {
			<-ctx.Done()
			return tool.Result{}, ctx.Err()
		}, "may have had its effect"},
		{"late, harmless", tool.Tool{Timeout: time.Millisecond, Effect: pipeline.EffectPure}, func(ctx context.Context) (tool.Result, error) {
			<-ctx.Done()
			return tool.Result{}, ctx.Err()
		}, "took longer than 1ms and was ended."},
	} {
		t.Run(c.name, func(t *testing.T) {
			env := environment(t)
			box := saying(t, config(&blobs{}), env, c.tool, func(ctx context.Context, _ executor.Env, _ tool.Call) (tool.Result, error) { return c.give(ctx) })
			if got, r := call(t, box, env, "mcp__s__say", "{}"); !r.Failed || !strings.Contains(got, c.want) {
				t.Errorf("gave %q, failed: %v", got, r.Failed)
			}
		})
	}
}

func TestWhatEndsAnAttemptIsNoResult(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	env := environment(t)
	for _, want := range []error{executor.ErrJournal, &executor.Suspension{}, context.Canceled} {
		box := saying(t, config(&blobs{}), env, tool.Tool{}, func(context.Context, executor.Env, tool.Call) (tool.Result, error) { return tool.Result{}, want })
		in := t.Context()
		if errors.Is(want, context.Canceled) {
			in = ctx
		}
		if _, err := box.Find("mcp__s__say").Run(in, env, tool.Call{}); !errors.Is(err, want) {
			t.Errorf("%v came as %v", want, err)
		}
	}
}

func TestBytesThatAreNoTextAreRefused(t *testing.T) {
	env := environment(t)
	for name, s := range map[string]string{"short": strings.Repeat("\x00\xff", 100), "long": strings.Repeat("\x00\xff", 100_000)} {
		box := saying(t, config(&blobs{}), env, tool.Tool{}, func(context.Context, executor.Env, tool.Call) (tool.Result, error) {
			return tool.Text(s), nil
		})
		got, _ := call(t, box, env, "mcp__s__say", "{}")
		if strings.ContainsRune(got, 0) || len(got) > 1000 && name == "long" {
			t.Errorf("%s gave %q", name, got[:min(len(got), 100)])
		}
	}
}

func TestMediaAreShownUpToABound(t *testing.T) {
	env := environment(t)
	var blocks []model.Block
	for range 12 {
		blocks = append(blocks, model.Block{Kind: model.BlockImage, Media: &model.Media{Type: "image/png", Data: []byte("png")}})
	}
	blocks = append(blocks, model.Block{Kind: model.BlockImage, Media: &model.Media{Type: "application/x-evil", Data: []byte("evil")}})
	box := saying(t, config(&blobs{}), env, tool.Tool{}, func(context.Context, executor.Env, tool.Call) (tool.Result, error) {
		return tool.Result{Content: blocks}, nil
	})
	got, r := call(t, box, env, "mcp__s__say", "{}")
	shown := 0
	for _, b := range r.Content {
		if b.Media != nil {
			shown++
		}
	}
	if shown != 8 || strings.Count(got, "is not shown") != 5 {
		t.Errorf("%d are shown: %s", shown, got)
	}
}
