// Package judge holds the MCP client against the conformance suite of the Model
// Context Protocol: the suite starts a server for each scenario, and this test
// program as the client, which uses a Pool as agents and steps do.
package judge

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/orchestrator-project/orchestrator/executor"
	"github.com/orchestrator-project/orchestrator/executor/tool"
	"github.com/orchestrator-project/orchestrator/executor/tool/mcp"
	"github.com/orchestrator-project/orchestrator/pipeline"
)

// leftOut are the scenarios, by the beginning of their names, that are about
// what this client does not have.
var leftOut = map[string]string{
	"auth/":     "servers are given the headers that the pipeline names; there is no OAuth flow",
	"sep-2640-": "an extension: skills are not taken from MCP servers",
}

// scenario is set by the suite when it starts a client.
const scenario = "MCP_CONFORMANCE_SCENARIO"

func TestMain(m *testing.M) {
	if name := os.Getenv(scenario); name != "" {
		ctx, cancel := context.WithTimeout(context.Background(), 25*time.Second)
		err := client(ctx, name, os.Args[len(os.Args)-1])
		cancel()
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// client plays a scenario.
func client(ctx context.Context, name, url string) error {
	pool := mcp.NewPool(mcp.Config{})
	defer pool.Close()
	env := executor.Env{Run: "conformance", Path: "s", Log: func(stream, text string) { fmt.Fprint(os.Stderr, stream, " ", text) }}
	set, err := pool.Connect(ctx, env, "", []mcp.Server{{Name: "judge", Transport: "http", URL: url}})
	if err != nil {
		return err
	}
	defer set.Close()
	call := func(remote string, args map[string]any) error {
		t := set.Find(pipeline.MCPName("judge", remote))
		if t == nil {
			return fmt.Errorf("there is no tool %s: %s", remote, set.Why("judge", remote))
		}
		_, err := t.Run(ctx, env, tool.Call{ID: remote, Arguments: args, Ask: answer})
		return err
	}
	switch name {
	case "tools_call":
		return call("add_numbers", map[string]any{"a": int64(5), "b": int64(3)})
	case "elicitation-sep1034-client-defaults":
		return call("test_client_elicitation_defaults", nil)
	case "sse-retry":
		return call("test_reconnection", nil)
	case "json-schema-2020-12-preservation":
		t := set.Find("mcp__judge__json_schema_2020_12_tool")
		if t == nil {
			return fmt.Errorf("the tool is missing: %s", set.Why("judge", "json_schema_2020_12_tool"))
		}
		return call("json_schema_echo", map[string]any{"schema": t.Schema})
	case "http-custom-headers":
		var asked struct {
			Calls []struct {
				Name      string         `json:"name"`
				Arguments map[string]any `json:"arguments"`
			} `json:"toolCalls"`
		}
		if err := json.Unmarshal([]byte(os.Getenv("MCP_CONFORMANCE_CONTEXT")), &asked); err != nil {
			return err
		}
		for _, c := range asked.Calls {
			if err := call(c.Name, c.Arguments); err != nil {
				fmt.Fprintln(os.Stderr, err) // some are refused
			}
		}
	default: // some of the others look at what comes of every tool; of some calls nothing can
		for _, t := range set.Tools() {
			if err := call(t.Remote, map[string]any{"region": "us-west1"}); err != nil {
				fmt.Fprintln(os.Stderr, err)
			}
			if t.Remote == "read_resource" {
				if err := call(t.Remote, map[string]any{"uri": uriOf(ctx, env, &t)}); err != nil {
					fmt.Fprintln(os.Stderr, err)
				}
			}
		}
	}
	return nil
}

// uriOf is a resource that is listed.
func uriOf(ctx context.Context, env executor.Env, t *tool.ServerTool) string {
	r, err := t.Run(ctx, env, tool.Call{})
	if err != nil || len(r.Content) == 0 {
		return ""
	}
	uri, _, _ := strings.Cut(r.Content[0].Text, ": ")
	return uri
}

// answer is what people say to every question.
func answer(_ context.Context, _ string, schema map[string]any) (*pipeline.Decision, error) {
	v := map[string]any{}
	if members, _ := schema["properties"].(map[string]any); members["confirmed"] != nil {
		v["confirmed"] = true
	}
	return &pipeline.Decision{Decision: "answer", Value: v}, nil
}

func TestConformance(t *testing.T) {
	script, node := os.Getenv("MCP_CONFORMANCE"), os.Getenv("MCP_CONFORMANCE_NODE")
	if script == "" || node == "" {
		t.Skip("MCP_CONFORMANCE and MCP_CONFORMANCE_NODE are not set; make judges sets them")
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	suite := func(t *testing.T, args ...string) (string, error) {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), node, append([]string{script}, args...)...) //nolint:gosec // the suite
		cmd.Dir = t.TempDir()
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	listed, err := suite(t, "list", "--client")
	if err != nil {
		t.Fatalf("the suite cannot list its scenarios: %v\n%s", err, listed)
	}
	names := regexp.MustCompile(`(?m)^\s+- (\S+) \[`).FindAllStringSubmatch(listed, -1)
	if len(names) < 10 {
		t.Fatalf("the suite lists %d scenarios:\n%s", len(names), listed)
	}
	for _, m := range names {
		name := m[1]
		t.Run(name, func(t *testing.T) {
			for begin, why := range leftOut {
				if strings.HasPrefix(name, begin) {
					t.Skip(why)
				}
			}
			out, err := suite(t, "client", "--command", self, "--scenario", name)
			if err != nil || bytes.Contains([]byte(out), []byte("FAILURE")) {
				t.Errorf("%v\n%s", err, out)
			}
		})
	}
}
