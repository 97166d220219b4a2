package tool_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/orchestrator-project/orchestrator/executor"
	"github.com/orchestrator-project/orchestrator/executor/tool"
	"github.com/orchestrator-project/orchestrator/pipeline"
)

// crowd is a server of many tools.
type crowd struct{ tools []tool.ServerTool }

func (c *crowd) Open(context.Context, executor.Env, tool.Want, []string) (tool.ServerSet, error) {
	return c, nil
}
func (c *crowd) Tools() []tool.ServerTool { return c.tools }
func (*crowd) Close()                     {}

func crowded(n int) *crowd {
	c := &crowd{}
	for _, d := range []string{"create_issue: Opens a new issue in a project.", "list_issues: Lists the issues of a project.", "send_mail: Sends an electronic letter to somebody.", "get_weather: Tells the weather of a city."} {
		name, doc, _ := strings.Cut(d, ": ")
		c.add(name, doc)
	}
	for i := len(c.tools); i < n; i++ {
		c.add(fmt.Sprintf("other_%d", i), "Does something else altogether.")
	}
	return c
}

func (c *crowd) add(name, doc string) {
	c.tools = append(c.tools, tool.ServerTool{
		Server: "s", Remote: name,
		Tool: tool.Tool{
			Name: "mcp__s__" + name, Description: doc, Schema: map[string]any{"type": "object"},
			Run: func(context.Context, executor.Env, tool.Call) (tool.Result, error) { return tool.Text(name), nil },
		},
	})
}

func wanting() tool.Want {
	w := want(pipeline.Tool{Name: "ask_human"}, pipeline.Tool{Name: "mcp__s__get_weather", Server: "s"})
	w.Agent.MCP, w.Unit = []string{"s"}, &pipeline.Unit{MCPServers: []pipeline.MCPServer{{Name: "s"}}}
	return w
}

func TestFewToolsAreAllShown(t *testing.T) {
	cfg := config(&blobs{})
	cfg.Servers = crowded(4)
	box := open(t, cfg, environment(t), wanting())
	if got := names(box.Tools()); got != "ask_human mcp__s__get_weather read_result mcp__s__create_issue mcp__s__list_issues mcp__s__send_mail" {
		t.Errorf("shown are %s", got)
	}
}

func TestManyToolsAreSearched(t *testing.T) {
	env, cfg := environment(t), config(&blobs{})
	server := crowded(200)
	cfg.Servers = server
	box := open(t, cfg, env, wanting())
	if got := names(box.Tools()); got != "ask_human mcp__s__get_weather read_result search_tools" {
		t.Errorf("shown are %s", got)
	}
	got, _ := call(t, box, env, "search_tools", `{"query": "issue"}`)
	if !strings.Contains(got, "- mcp__s__create_issue: Opens a new issue in a project.\n- mcp__s__list_issues") && !strings.Contains(got, "- mcp__s__list_issues: Lists the issues of a project.\n- mcp__s__create_issue") {
		t.Errorf("found %s", got)
	}
	shown := names(box.Tools())
	if !strings.HasPrefix(shown, "ask_human mcp__s__get_weather read_result search_tools mcp__s__") || strings.Count(shown, "issue") != 2 {
		t.Errorf("shown are %s", shown)
	}
	if got, _ := call(t, box, env, "search_tools", `{"query": "zebra"}`); !strings.HasPrefix(got, "No tool") {
		t.Errorf("found %s", got)
	}
	if got, _ := call(t, box, env, "mcp__s__send_mail", `{}`); got != "send_mail" {
		t.Errorf("a tool that is not shown gave %s", got)
	}
	server.tools = server.tools[:4] // the server takes tools away
	if box.Find("mcp__s__other_7") != nil {
		t.Error("a tool that has gone is found")
	}
}

// An attempt that goes on is shown what the searches of earlier ones have found.
func TestAnotherAttemptIsShownWhatWasFound(t *testing.T) {
	env, cfg := environment(t), config(&blobs{})
	cfg.Servers = crowded(200)
	box := open(t, cfg, env, wanting())
	found, _ := call(t, box, env, "search_tools", `{"query": "send a letter"}`)
	want := names(box.Tools())
	env.Journal = executor.NewJournal([]pipeline.Event{{Type: pipeline.ToolCalled, Data: pipeline.Data{Call: &pipeline.Invocation{
		N: 2, State: pipeline.InvocationFinished, Agent: "worker", Name: "search_tools", Response: []any{map[string]any{"kind": "text", "text": found}},
	}}}}, nil)
	if got := names(open(t, cfg, env, wanting()).Tools()); got != want {
		t.Errorf("shown are %s, not %s", got, want)
	}
}

func TestTheWindowDecidesToo(t *testing.T) {
	cfg := config(&blobs{})
	cfg.Servers = crowded(20)
	w := wanting()
	w.Window = 1000
	if got := names(open(t, cfg, environment(t), w).Tools()); !strings.HasSuffix(got, "search_tools") {
		t.Errorf("shown are %s", got)
	}
}
