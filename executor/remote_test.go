package executor_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	sdk "github.com/modelcontextprotocol/go-sdk/mcp"

	"github.com/orchestrator-project/orchestrator/executor"
	"github.com/orchestrator-project/orchestrator/executor/tool/mcp"
	"github.com/orchestrator-project/orchestrator/pipeline"
	"github.com/orchestrator-project/orchestrator/store/storetest"
)

func TestToolsOfMCPServersAreSteps(t *testing.T) {
	type word struct {
		Word string `json:"word"`
	}
	handler := sdk.NewStreamableHTTPHandler(func(*http.Request) *sdk.Server {
		s := sdk.NewServer(&sdk.Implementation{Name: "words", Version: "1"}, nil)
		sdk.AddTool(s, &sdk.Tool{Name: "turn"}, func(_ context.Context, r *sdk.CallToolRequest, in word) (*sdk.CallToolResult, word, error) {
			if in.Word == "" {
				return nil, word{}, fmt.Errorf("there is no word")
			}
			out := ""
			for _, c := range in.Word {
				out = string(c) + out
			}
			if !strings.HasSuffix(fmt.Sprint(r.Params.Meta["idempotency_key"]), "/turned") {
				return nil, word{}, fmt.Errorf("the key is %v", r.Params.Meta["idempotency_key"])
			}
			return nil, word{out}, nil
		})
		return s
	}, &sdk.StreamableHTTPOptions{Stateless: true})
	var mu sync.Mutex
	var keys []string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		keys = append(keys, r.Header.Get("X-Key"))
		mu.Unlock()
		handler.ServeHTTP(w, r)
	}))
	t.Cleanup(func() { server.CloseClientConnections(); server.Close() })

	pool := mcp.NewPool(mcp.Config{})
	t.Cleanup(pool.Close)
	e := start(t, storetest.Open(t), nil, func(c *executor.Config) {
		c.Remote, c.Left = pool.Action, pool.Leave
		c.Secret = func(name string) (string, bool) { return "hush-hush", name == "KEY" }
	})
	src := `
secrets: [KEY]
inputs: {url: string, word: string}
mcp_servers:
  words: {url: '{{ inputs.url }}', headers: {X-Key: 'key {{ secrets.KEY }}'}}
steps:
- {id: turned, action: mcp__words__turn, parameters: {word: '{{ inputs.word }}'}}
outputs: {word: '{{ turned.word }}'}
`
	run, _ := e.wait(e.submit(src, map[string]any{"url": server.URL, "word": "abc"}))
	if run.Status != pipeline.RunCompleted || run.Outputs["word"] != "cba" {
		t.Errorf("the run is %s with %v: %v", run.Status, run.Outputs, run.Error)
	}
	run, v := e.wait(e.submit(src, map[string]any{"url": server.URL, "word": ""}))
	if f := v.Step("turned").Error; run.Status != pipeline.RunFailed || f == nil || f.Kind != pipeline.CategoryTool || !strings.Contains(f.Message, "there is no word") {
		t.Errorf("the step failed with %+v", f)
	}
	mu.Lock()
	defer mu.Unlock()
	for _, k := range keys {
		if k != "key hush-hush" {
			t.Errorf("a request came with the header %q", k)
		}
	}
}
