package mcp

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"

	sdk "github.com/modelcontextprotocol/go-sdk/mcp"
	"go.uber.org/goleak"

	"github.com/orchestrator-project/orchestrator/executor"
)

// serverMode in its environment makes the test program a server of that kind.
const serverMode = "MCP_TEST_SERVER"

func TestMain(m *testing.M) {
	if mode := os.Getenv(serverMode); mode != "" {
		serve(mode)
		return
	}
	goleak.VerifyTestMain(m)
}

// serve is a server on standard input and output; all but friend misbehave.
func serve(mode string) {
	switch mode {
	case "friend":
		_ = friend().Run(context.Background(), &sdk.StdioTransport{})
	case "old":
		_ = friend().Run(context.Background(), old{&sdk.StdioTransport{}})
	case "owner": // of a pool, as our server is; its own server has started something
		p := NewPool(Config{})
		self, _ := os.Executable()
		dir, _ := os.Getwd()
		_, err := p.Connect(context.Background(), executor.Env{Run: "run-1", Workspace: dir}, "", []Server{{
			Name: "srv", Transport: stdio, Env: map[string]string{serverMode: "friend"},
			Command: []string{"sh", "-c", "sleep 1000 & echo $! > left.pid; " + self},
		}})
		fmt.Println("open", err)
		select {}
	case "exit":
		fmt.Fprintln(os.Stderr, "no licence found")
		os.Exit(3)
	case "silent":
		_, _ = io.Copy(io.Discard, os.Stdin)
	case "deaf":
		time.Sleep(time.Hour) // the runtime would end one that waits for nothing
	case "stubborn": // does not end when its input does, nor when it is told to
		_, _ = exec.Command("sh", "-c", "trap '' TERM; echo $$ > stubborn.pid; exec sleep 1000").CombinedOutput() //nolint:noctx // it is killed
	case "garbage":
		for {
			if _, err := fmt.Println(strings.Repeat("garbage ", 1000)); err != nil {
				return
			}
		}
	case "endless":
		fmt.Print(`{"jsonrpc":"2.0","method":"`)
		for {
			if _, err := fmt.Print(strings.Repeat("x", 1<<16)); err != nil {
				return
			}
		}
	default:
		raw(mode)
	}
}

// raw answers by hand.
func raw(mode string) {
	out := bufio.NewWriter(os.Stdout)
	say := func(format string, args ...any) {
		_, _ = fmt.Fprintf(out, format+"\n", args...)
		_ = out.Flush()
	}
	in := bufio.NewScanner(os.Stdin)
	in.Buffer(nil, 1<<24)
	for in.Scan() {
		var q struct {
			ID     json.RawMessage `json:"id"`
			Method string          `json:"method"`
			Params struct {
				Name string `json:"name"`
			} `json:"params"`
		}
		if json.Unmarshal(in.Bytes(), &q) != nil || q.ID == nil {
			continue
		}
		result := ""
		switch q.Method {
		case "server/discover":
			if mode == "mute" { // as some older ones do
				continue
			}
			say(`{"jsonrpc":"2.0","id":%s,"error":{"code":-32601,"message":"no such method"}}`, q.ID)
			continue
		case "initialize":
			if mode == "chatty" {
				say("Welcome to the server!")
			}
			result = `{"protocolVersion":"2025-06-18","capabilities":{"tools":{"listChanged":true}},"serverInfo":{"name":"raw","version":"1"}}`
		case "tools/list":
			result = tools(mode)
			if mode == "restless" {
				say(`{"jsonrpc":"2.0","method":"notifications/tools/list_changed"}`)
			}
		case "tools/call":
			result = answerRaw(mode, q.Params.Name, say)
		default:
			result = `{}`
		}
		if result != "" {
			say(`{"jsonrpc":"2.0","id":%s,"result":%s}`, q.ID, result)
		}
	}
}

func tools(mode string) string {
	object := `{"type":"object"}`
	tool := func(name, schema string) string {
		return fmt.Sprintf(`{"name":%s,"inputSchema":%s}`, name, schema)
	}
	list := []string{tool(`"do"`, object)}
	switch mode {
	case "liar":
		list = append(list,
			tool(`"do"`, object),
			tool(`""`, object),
			tool(`"bell\u0007"`, object),
			tool(`"`+strings.Repeat("n", 300)+`"`, object),
			tool(`"broken"`, `{"type":"object","properties":{"a":{"type":"no such type"}}}`),
			tool(`"text"`, `{"type":"string"}`),
			tool(`"list"`, `[]`),
			tool(`"away"`, `{"type":"object","properties":{"a":{"$ref":"http://127.0.0.1:1/schema.json"}}}`),
			tool(`"huge"`, `{"type":"object","description":"`+strings.Repeat("x", 1<<17)+`"}`),
			tool(`"files/read.all"`, object),
			`null`,
			`{"name":"promise","inputSchema":{"type":"object"},"outputSchema":{"type":"object","required":["n"],"properties":{"n":{"type":"integer"}}}}`,
		)
	case "many":
		for i := range 1500 {
			list = append(list, tool(fmt.Sprintf(`"t%d"`, i), object))
		}
	case "forever":
		return `{"tools":[],"nextCursor":"again"}`
	}
	return `{"tools":[` + strings.Join(list, ",") + `]}`
}

func answerRaw(mode, name string, say func(string, ...any)) string {
	switch {
	case name == "promise":
		return `{"content":[],"structuredContent":{"n":"seven"}}`
	case mode == "dies":
		fmt.Fprintln(os.Stderr, "out of luck")
		os.Exit(1)
	case mode == "stderr":
		for range 5000 {
			fmt.Fprintln(os.Stderr, strings.Repeat("e", 1000))
		}
	case mode == "asides":
		for i := range 20000 {
			say(`{"jsonrpc":"2.0","method":"notifications/message","params":{"level":"info","data":"line %d"}}`, i)
		}
	case mode == "never":
		return ""
	case mode == "nonsense":
		return `{"content":5}`
	case mode == "wrong":
		return `{"content":[{"type":"hologram"}]}`
	}
	return `{"content":[{"type":"text","text":"done"}]}`
}

// old makes a server one of the versions that ask their clients by requests.
type old struct{ *sdk.StdioTransport }

func (old) SupportsProtocolVersion(v string) bool { return v <= initializing }

type textArgs struct {
	Text string `json:"text"`
}

// friend is a server that does everything as it should.
func friend() *sdk.Server {
	s := sdk.NewServer(&sdk.Implementation{Name: "friend", Version: "1"}, nil)
	text := func(format string, args ...any) *sdk.CallToolResult {
		return &sdk.CallToolResult{Content: []sdk.Content{&sdk.TextContent{Text: fmt.Sprintf(format, args...)}}}
	}
	yes := &sdk.ToolAnnotations{ReadOnlyHint: true}
	sdk.AddTool(s, &sdk.Tool{Name: "echo", Description: "Says it again.", Annotations: yes}, func(_ context.Context, _ *sdk.CallToolRequest, in textArgs) (*sdk.CallToolResult, textArgs, error) {
		return nil, in, nil
	})
	plain := func(name string, f func(ctx context.Context, r *sdk.CallToolRequest) (*sdk.CallToolResult, error)) {
		sdk.AddTool(s, &sdk.Tool{Name: name}, func(ctx context.Context, r *sdk.CallToolRequest, _ struct{}) (*sdk.CallToolResult, any, error) {
			out, err := f(ctx, r)
			return out, nil, err
		})
	}
	asking := func(name string, q sdk.InputRequest, then func(sdk.InputResponse) string) {
		plain(name, func(_ context.Context, r *sdk.CallToolRequest) (*sdk.CallToolResult, error) {
			if a := r.Params.InputResponses["q"]; a != nil {
				return text("%s", then(a)), nil
			}
			return &sdk.CallToolResult{InputRequests: sdk.InputRequestMap{"q": q}}, nil
		})
	}
	plain("fail", func(context.Context, *sdk.CallToolRequest) (*sdk.CallToolResult, error) {
		return nil, fmt.Errorf("the disk is full")
	})
	plain("pid", func(context.Context, *sdk.CallToolRequest) (*sdk.CallToolResult, error) {
		return text("%d", os.Getpid()), nil
	})
	plain("environ", func(context.Context, *sdk.CallToolRequest) (*sdk.CallToolResult, error) {
		return text("%s", strings.Join(os.Environ(), "\n")), nil
	})
	plain("meta", func(_ context.Context, r *sdk.CallToolRequest) (*sdk.CallToolResult, error) {
		m, _ := json.Marshal(r.Params.Meta)
		return text("%s", m), nil
	})
	plain("steps", func(ctx context.Context, r *sdk.CallToolRequest) (*sdk.CallToolResult, error) {
		for i := range 3 {
			_ = r.Session.NotifyProgress(ctx, &sdk.ProgressNotificationParams{ProgressToken: r.Params.GetProgressToken(), Progress: float64(i + 1), Total: 3, Message: "step"})
		}
		_ = r.Session.Log(ctx, &sdk.LoggingMessageParams{Level: "warning", Data: "nearly there"}) //nolint:staticcheck // as above
		for !exists("heard") && ctx.Err() == nil {                                                // until the client has heard it all
			runtime.Gosched()
		}
		return text("done"), nil
	})
	plain("wait", func(ctx context.Context, _ *sdk.CallToolRequest) (*sdk.CallToolResult, error) {
		_ = os.WriteFile("waiting", nil, 0o600)
		<-ctx.Done()
		return nil, os.WriteFile("cancelled", nil, 0o600)
	})
	plain("die", func(context.Context, *sdk.CallToolRequest) (*sdk.CallToolResult, error) {
		os.Exit(1)
		return nil, nil //nolint:nilnil // never
	})
	plain("child", func(context.Context, *sdk.CallToolRequest) (*sdk.CallToolResult, error) {
		cmd := exec.Command("sleep", "1000") //nolint:noctx // it outlives the call
		cmd.Stderr = os.Stderr
		if err := cmd.Start(); err != nil {
			return nil, err
		}
		return text("%d", cmd.Process.Pid), nil
	})
	plain("grow", func(context.Context, *sdk.CallToolRequest) (*sdk.CallToolResult, error) {
		s.RemoveTools("fail")
		plain("grown", func(context.Context, *sdk.CallToolRequest) (*sdk.CallToolResult, error) { return text("here"), nil })
		return text("grown"), nil
	})
	plain("picture", func(context.Context, *sdk.CallToolRequest) (*sdk.CallToolResult, error) {
		return &sdk.CallToolResult{Content: []sdk.Content{
			&sdk.ImageContent{MIMEType: "image/png", Data: []byte{1, 2}},
			&sdk.AudioContent{MIMEType: "audio/wav", Data: []byte{3}},
			&sdk.ResourceLink{URI: "file:///a", Name: "a"},
			&sdk.EmbeddedResource{Resource: &sdk.ResourceContents{URI: "file:///b", Text: "hello"}},
			&sdk.EmbeddedResource{Resource: &sdk.ResourceContents{URI: "file:///c", MIMEType: "application/pdf", Blob: []byte{4}}},
		}}, nil
	})
	asking("ask", &sdk.ElicitParams{Message: "Which colour?", RequestedSchema: map[string]any{
		"type": "object", "properties": map[string]any{"colour": map[string]any{"type": "string"}},
	}}, func(a sdk.InputResponse) string {
		r, _ := a.(*sdk.ElicitResult)
		return fmt.Sprintf("%s %v", r.Action, r.Content["colour"])
	})
	asking("sample", &sdk.CreateMessageParams{ //nolint:staticcheck // as above
		MaxTokens: 10, SystemPrompt: "Be short.", Messages: []*sdk.SamplingMessage{{Role: "user", Content: &sdk.TextContent{Text: "Name a colour."}}}, //nolint:staticcheck // as above
	}, func(a sdk.InputResponse) string {
		r, _ := a.(*sdk.CreateMessageWithToolsResult) //nolint:staticcheck // as above
		return r.Content[0].(*sdk.TextContent).Text
	})
	asking("roots", &sdk.ListRootsParams{}, func(a sdk.InputResponse) string { //nolint:staticcheck // as above
		return a.(*sdk.ListRootsResult).Roots[0].URI //nolint:staticcheck // as above
	})
	s.AddResource(&sdk.Resource{URI: "memo://one", Name: "one", MIMEType: "text/plain"}, func(context.Context, *sdk.ReadResourceRequest) (*sdk.ReadResourceResult, error) {
		return &sdk.ReadResourceResult{Contents: []*sdk.ResourceContents{{URI: "memo://one", Text: "remember"}}}, nil
	})
	return s
}

// patience is how long tests wait for what must come.
const patience = 2 * time.Minute

func writeFile(t *testing.T, name string) {
	t.Helper()
	if err := os.WriteFile(name, nil, 0o600); err != nil {
		t.Fatal(err)
	}
}

func exists(name string) bool {
	_, err := os.Stat(name)
	return err == nil
}
