package mcp

import (
	"context"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/orchestrator-project/orchestrator/executor/model"
	"github.com/orchestrator-project/orchestrator/executor/tool"
	"github.com/orchestrator-project/orchestrator/pipeline"
)

// foreign is a server of others, which npm brings.
func foreign(t *testing.T, name string, args ...string) Server {
	t.Helper()
	modules := os.Getenv("MCP_SERVERS")
	if modules == "" {
		t.Skip("MCP_SERVERS is not set; bin/needs -for mcp -- go test ... sets it")
	}
	script := filepath.Join(modules, "@modelcontextprotocol", name, "dist", "index.js")
	return Server{Name: "srv", Transport: stdio, Command: append([]string{"node", script}, args...)}
}

// everything is the reference server over a transport.
func everything(t *testing.T, transport string) Server {
	t.Helper()
	s := foreign(t, "server-everything", transport)
	if transport == stdio {
		return s
	}
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	_ = l.Close()
	_, port, _ := net.SplitHostPort(addr)
	cmd := exec.CommandContext(context.WithoutCancel(t.Context()), s.Command[0], s.Command[1:]...) //nolint:gosec // the server
	cmd.Env = append(os.Environ(), "PORT="+port)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	await(t, "the server listens", func() bool {
		c, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", addr)
		if err == nil {
			_ = c.Close()
		}
		return err == nil
	})
	if transport == "sse" {
		return Server{Name: "srv", Transport: sse, URL: "http://" + addr + "/sse"}
	}
	return Server{Name: "srv", Transport: streamable, URL: "http://" + addr + "/mcp"}
}

func TestEverythingServer(t *testing.T) {
	for _, transport := range []string{stdio, "sse", "streamableHttp"} {
		t.Run(transport, func(t *testing.T) {
			s := everything(t, transport)
			caller := &asked{}
			w := newWorld(t, Config{Models: caller})
			set := w.open(s)
			if got := w.call(set, "echo", tool.Call{Arguments: map[string]any{"message": "hi"}}); got != "Echo: hi" {
				t.Errorf("echo gave %q", got)
			}
			if got := w.call(set, "get-sum", tool.Call{Arguments: map[string]any{"a": int64(2), "b": 3.5}}); !strings.Contains(got, "5.5") {
				t.Errorf("get-sum gave %q", got)
			}
			r, err := w.try(set, "get-tiny-image", tool.Call{})
			if err != nil || !slices.ContainsFunc(r.Content, func(b model.Block) bool { return b.Kind == "image" && len(b.Media.Data) > 100 }) {
				t.Errorf("the image is %+v, %v", r, err)
			}
			m, l := set.listed("srv", "get-structured-content")
			if l == nil {
				t.Fatal("no get-structured-content")
			}
			_, v, err := set.run(w.done, m, l, w.env, tool.Call{Arguments: map[string]any{"location": "New York"}})
			if weather, _ := v.(map[string]any); err != nil || weather["temperature"] == nil {
				t.Errorf("the structured content is %v, %v", v, err)
			}
			progress := make(chan string, 10)
			w.call(set, "trigger-long-running-operation", tool.Call{Arguments: map[string]any{"duration": 0.2, "steps": int64(2)}, Progress: func(text string) { progress <- text }})
			if got := <-progress; got != "1/2\n" {
				t.Errorf("progress is %q", got)
			}
			if got := w.call(set, "trigger-sampling-request", tool.Call{N: 3, Arguments: map[string]any{"prompt": "a colour"}}); !strings.Contains(got, "blue") || caller.request.In != 3 {
				t.Errorf("sampling gave %q", got)
			}
			r, err = w.try(set, "trigger-elicitation-request", tool.Call{Ask: func(context.Context, string, map[string]any) (*pipeline.Decision, error) {
				return &pipeline.Decision{Decision: "answer", Value: map[string]any{"name": "Ada"}}, nil
			}})
			if err != nil || !strings.Contains(said(r), "Ada") {
				t.Errorf("elicitation gave %q, %v", said(r), err)
			}
			if transport == stdio {
				if got := w.call(set, "get-roots-list", tool.Call{}); !strings.Contains(got, w.env.Workspace) {
					t.Errorf("the roots are %q", got)
				}
			}
			if got := w.call(set, "read_resource", tool.Call{}); !strings.Contains(got, "://") {
				t.Errorf("the resources are %q", got)
			}
			ctx, cancel := context.WithCancelCause(w.done)
			begun := make(chan string, 100)
			ended := make(chan error, 1)
			go func() {
				long := set.Find("mcp__srv__trigger-long-running-operation")
				_, err := long.Run(ctx, w.env, tool.Call{Arguments: map[string]any{"duration": int64(100), "steps": int64(1000)}, Progress: func(text string) {
					select {
					case begun <- text:
					default:
					}
				}})
				ended <- err
			}()
			<-begun
			why := errors.New("enough")
			cancel(why)
			if err := <-ended; !errors.Is(err, why) {
				t.Errorf("the cancelled call ended with %v", err)
			}
			if got := w.call(set, "echo", tool.Call{Arguments: map[string]any{"message": "still here"}}); got != "Echo: still here" {
				t.Errorf("echo gave %q after that", got)
			}
		})
	}
}

func TestFilesystemServer(t *testing.T) {
	w := newWorld(t, Config{})
	s := foreign(t, "server-filesystem", w.env.Workspace)
	s.Deny = []string{"move_*"}
	set := w.open(s)
	path := filepath.Join(w.env.Workspace, "notes.md")
	w.call(set, "write_file", tool.Call{Arguments: map[string]any{"path": path, "content": "hello"}})
	if got, err := os.ReadFile(path); err != nil || string(got) != "hello" {
		t.Errorf("the file holds %q, %v", got, err)
	}
	if got := w.call(set, "read_text_file", tool.Call{Arguments: map[string]any{"path": path}}); got != "hello" {
		t.Errorf("read %q", got)
	}
	r, err := w.try(set, "read_text_file", tool.Call{Arguments: map[string]any{"path": "/etc/passwd"}})
	if err != nil || !r.Failed {
		t.Errorf("a file outside of the workspace gives %+v, %v", r, err)
	}
	if set.Find("mcp__srv__move_file") != nil || !strings.Contains(set.Why("srv", "move_file"), "allow and deny") {
		t.Errorf("move_file: %s", set.Why("srv", "move_file"))
	}
	if read, write := set.Find("mcp__srv__read_text_file"), set.Find("mcp__srv__edit_file"); read.Effect != pipeline.EffectIdempotent || write.Effect != pipeline.EffectAtMostOnce {
		t.Errorf("effects are %s and %s", read.Effect, write.Effect)
	}
}

func TestMemoryServer(t *testing.T) {
	w := newWorld(t, Config{})
	s := foreign(t, "server-memory")
	s.Env = map[string]string{"MEMORY_FILE_PATH": filepath.Join(w.env.Workspace, "memory.jsonl")}
	one, two := w.open(s), w.open(s)
	for i := range 3 {
		w.call(one, "create_entities", tool.Call{Arguments: map[string]any{"entities": []any{
			map[string]any{"name": "n" + strconv.Itoa(i), "entityType": "number", "observations": []any{"seen"}},
		}}})
	}
	if got := w.call(two, "read_graph", tool.Call{}); !strings.Contains(got, "n0") || !strings.Contains(got, "n2") {
		t.Errorf("the graph is %s", got)
	}
}
