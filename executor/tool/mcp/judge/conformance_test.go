// Package judge holds the MCP client against the conformance suite of the Model
// Context Protocol: the suite starts a server for each scenario, and this test
// program as the client, which uses a Pool as agents and steps do.
package judge

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
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
	"auth/client-credentials-jwt":           "an extension: the official SDK's client credentials are an id and a secret, no signed assertion",
	"auth/enterprise-managed-authorization": "an extension: there is no login at a company's own provider whose tokens could be exchanged",
	"auth/dpop":                             "an extension: the official SDK's tokens are of the kind Bearer alone",
	"auth/wif-jwt-bearer":                   "an extension: the official SDK does not exchange the tokens of workloads",
	"sep-2640-":                             "an extension: skills are not taken from MCP servers",
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
func client(ctx context.Context, name, address string) error {
	server := mcp.Server{Name: "judge", Transport: "http", URL: address}
	dir, err := os.MkdirTemp("", "logins")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	logins := &mcp.Logins{Dir: dir}
	if strings.HasPrefix(name, "auth/") {
		return authorized(ctx, name, server, logins)
	}
	return play(ctx, name, server, logins)
}

// wanted is what a failure tells a person to ask for.
var wanted = regexp.MustCompile(`log in: orchestrator tools login \S+ judge(?: --scope '([^']*)')?`)

// authorized plays a scenario with a person who logs in when they are told to, and
// gives up after a few times.
func authorized(ctx context.Context, name string, server mcp.Server, logins *mcp.Logins) error {
	var given struct {
		ClientID     string `json:"client_id"`
		ClientSecret string `json:"client_secret"`
	}
	if text := os.Getenv("MCP_CONFORMANCE_CONTEXT"); text != "" {
		if err := json.Unmarshal([]byte(text), &given); err != nil {
			return err
		}
	}
	if given.ClientID != "" {
		server.OAuth = &mcp.OAuth{ClientID: given.ClientID, ClientSecret: given.ClientSecret, Credentials: strings.HasPrefix(name, "auth/client-credentials")}
	} else if name == "auth/basic-cimd" {
		server.OAuth = &mcp.OAuth{ClientID: "https://conformance-test.local/client-metadata.json"}
	}
	for range 3 {
		err := play(ctx, name, server, logins)
		told := []string(nil)
		if err != nil {
			told = wanted.FindStringSubmatch(err.Error())
		}
		if told == nil {
			return err
		}
		if err := mcp.Login(ctx, server, logins, "http://localhost:3000/callback", strings.Fields(told[1]), visit); err != nil {
			return err
		}
	}
	return errors.New("there is no end to logging in")
}

// visit is a person in a browser, whom the page sends on at once.
func visit(ctx context.Context, address string) (url.Values, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return nil, err
	}
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	resp.Body.Close()
	to, err := resp.Location()
	if err != nil {
		return nil, err
	}
	return to.Query(), nil
}

func play(ctx context.Context, name string, server mcp.Server, logins *mcp.Logins) error {
	pool := mcp.NewPool(mcp.Config{Logins: logins})
	defer pool.Close()
	env := executor.Env{Run: "conformance", Path: "s", Log: func(stream, text string) { fmt.Fprint(os.Stderr, stream, " ", text) }}
	set, err := pool.Connect(ctx, env, "", []mcp.Server{server})
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
	if strings.HasPrefix(name, "auth/") {
		return call("test-tool", nil)
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
