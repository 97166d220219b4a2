package tool_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/orchestrator-project/orchestrator/executor"
	"github.com/orchestrator-project/orchestrator/executor/tool"
	"github.com/orchestrator-project/orchestrator/pipeline"
)

func mapOf(ps ...pipeline.Property) *pipeline.Type {
	return &pipeline.Type{Kind: "map", Properties: ps}
}

func param(name, kind string) pipeline.Property {
	return pipeline.Property{Name: name, Required: true, Type: pipeline.Type{Kind: kind}}
}

func TestARequestIsATool(t *testing.T) {
	var seen *http.Request
	var body string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		seen, body = r, string(b)
		w.Header().Set("Content-Type", "application/json")
		if r.URL.Path == "/items/bad" {
			w.WriteHeader(http.StatusNotFound)
		}
		fmt.Fprintf(w, `{"id": 7, "echo": %q}`, r.Header.Get("Authorization"))
	}))
	defer server.Close()
	env := environment(t)
	payload := pipeline.Field{Map: []pipeline.Entry{{Name: "title", Value: template("{{ title }}")}}}
	box := open(t, config(&blobs{}), env, want(
		pipeline.Tool{Name: "item", Description: "Gives an item.", Parameters: mapOf(param("name", "string")), HTTP: &pipeline.HTTPTool{
			URL: template(server.URL + "/items/{{ name }}"), Headers: []pipeline.Entry{{Name: "Authorization", Value: template("Bearer {{ secrets.PASSWORD }}")}},
		}},
		pipeline.Tool{Name: "create", Parameters: mapOf(param("title", "string")), HTTP: &pipeline.HTTPTool{Method: "POST", URL: pipeline.Field{Const: server.URL + "/items"}, Body: &payload}},
		pipeline.Tool{Name: "loose", Parameters: mapOf(param("path", "string")), HTTP: &pipeline.HTTPTool{URL: template(server.URL + "{{ path }}")}},
	))
	if got, _ := call(t, box, env, "item", `{"name": "a"}`); got != `{"echo":"Bearer [secret PASSWORD]","id":7}` {
		t.Errorf("gave %s", got)
	}
	if got := seen.Header.Get("Authorization"); got != "Bearer hunter2hunter2" {
		t.Errorf("the server was sent %s", got)
	}
	if got, r := call(t, box, env, "item", `{"name": "bad"}`); !r.Failed || !strings.Contains(got, "404 Not Found") || !strings.Contains(got, `"id":7`) {
		t.Errorf("gave %s", got)
	}
	if got, r := call(t, box, env, "create", `{"title": "x"}`); r.Failed || body != `{"title":"x"}` {
		t.Errorf("gave %s, was sent %s", got, body)
	}
	if got := seen.Header.Get("Idempotency-Key"); got != "run-1/agent#1" {
		t.Errorf("the key is %q", got)
	}
	for name, want := range map[string]pipeline.Effect{"item": pipeline.EffectIdempotent, "create": pipeline.EffectAtMostOnce} {
		if got := box.Find(name).EffectWith(nil); got != want {
			t.Errorf("%s is %s", name, got)
		}
	}
	if _, r := call(t, box, env, "loose", `{"path": "/items/x"}`); r.Failed {
		t.Error("a path was refused")
	}
	for _, path := range []string{"@evil.example/", ".evil.example/", "0/"} {
		if got, r := call(t, box, env, "loose", fmt.Sprintf(`{"path": %q}`, path)); !r.Failed || !strings.Contains(got, "another host") {
			t.Errorf("%s gave %s", path, got)
		}
	}
}

func TestNoArgumentChangesTheHost(t *testing.T) {
	for _, c := range []struct {
		url, arg string
		ok       bool
	}{
		{"https://api.example.org/{{ x }}", "@evil.example/", true}, // a path
		{"https://api.example.org/{{ x }}", "../../other", true},
		{"https://api.example.org{{ x }}", "/items", true},
		{"https://api.example.org{{ x }}", "?a=b", true},
		{"https://api.example.org{{ x }}", "@evil.example/", false},
		{"https://api.example.org{{ x }}", ".evil.example/", false},
		{"https://api.example.org{{ x }}", ":80@evil.example/", false},
		{"https://api.example.org:{{ x }}/", "8080", true},
		{"https://api.example.org:{{ x }}/", "80@evil.example", false},
		{"https://{{ x }}.example.org/", "eu", true},
		{"https://{{ x }}.example.org/", "evil.example/", false},
		{"https://{{ x }}.example.org/", "evil.example#", false},
		{"https://{{ x }}.example.org/", "evil.example\\", false},
		{"https://{{ x }}/", "anywhere.example", true},
		{"{{ x }}", "https://anywhere.example/", true},
		{"https://{{ x | upper }}.example.org/", "eu", true},
	} {
		var sent string
		cfg := config(&blobs{})
		for i := range cfg.Actions {
			if cfg.Actions[i].Spec.Key == "http" {
				cfg.Actions[i].Bind = func(params map[string]any) (executor.Runner, error) {
					sent = fmt.Sprint(params["url"])
					return nil, errors.New("not sent")
				}
			}
		}
		env := environment(t)
		box := open(t, cfg, env, want(pipeline.Tool{Name: "get", Parameters: mapOf(param("x", "string")), HTTP: &pipeline.HTTPTool{URL: template(c.url)}}))
		if got, _ := call(t, box, env, "get", fmt.Sprintf(`{"x": %q}`, c.arg)); (sent != "") != c.ok {
			t.Errorf("%s with %q: %s, %s", c.url, c.arg, sent, got)
		}
	}
}

func TestAProgramIsATool(t *testing.T) {
	env := environment(t)
	env.Environ = append(env.Environ, "GREETING=hello")
	argv := func(parts ...string) []pipeline.Field {
		var list []pipeline.Field
		for _, p := range parts {
			list = append(list, template(p))
		}
		return list
	}
	box := open(t, config(&blobs{}), env, want(
		pipeline.Tool{Name: "say", Parameters: mapOf(param("word", "string")), Command: argv("printf", "%s|", "{{ word }}", "{{ args.word }}")},
		pipeline.Tool{Name: "input", Parameters: mapOf(param("n", "integer")), Command: argv("cat"), Effect: pipeline.EffectPure},
		pipeline.Tool{Name: "vars", Command: argv("sh", "-c", "echo $GREETING $EXTRA $PASSWORD $ORCHESTRATOR_IDEMPOTENCY_KEY"), Secrets: []string{"PASSWORD"}, Env: []pipeline.Entry{{Name: "EXTRA", Value: template("of {{ secrets.PASSWORD }}")}}},
		pipeline.Tool{Name: "optional", Command: argv("printf", "%s|", "{{ n }}", "{{ x or 'none' }}"), Parameters: mapOf(
			pipeline.Property{Name: "n", Default: int64(5), Type: pipeline.Type{Kind: "integer"}}, pipeline.Property{Name: "x", Type: pipeline.Type{Kind: "string"}},
		)},
		pipeline.Tool{Name: "below", Command: argv("cat", "{{ file }}"), Parameters: mapOf(param("file", "path"))},
		pipeline.Tool{Name: "nowhere", Command: argv("there-is-no-such-program")},
		pipeline.Tool{Name: "unknown", Command: argv("true"), Secrets: []string{"OTHER"}},
		pipeline.Tool{Name: "terminal", Timeout: 3 * time.Second},
	))
	for _, c := range []struct{ tool, arguments, want string }{
		{"say", `{"word": "a; rm -rf $HOME"}`, "a; rm -rf $HOME|a; rm -rf $HOME|"},
		{"input", `{"n": 5}`, `{"n":5}`},
		{"vars", `{}`, "hello of [secret PASSWORD] [secret PASSWORD] run-1/agent#1"},
		{"terminal", `{"command": "mkdir -p sub; pwd"}`, env.Workspace},
		{"terminal", `{"command": "basename $(pwd)", "directory": "sub"}`, "sub"},
		{"terminal", `{"command": "true"}`, "(no output, exit code 0)"},
		{"terminal", `{"command": "cat"}`, "(no output, exit code 0)"},
		{"optional", `{}`, "5|none|"},
		{"optional", `{"n": 6.0, "x": "y"}`, "6|y|"},
	} {
		if got, r := call(t, box, env, c.tool, c.arguments); got != c.want || r.Failed {
			t.Errorf("%s %s gave %q", c.tool, c.arguments, got)
		}
	}
	for _, c := range []struct{ tool, arguments, want string }{
		{"terminal", `{"command": "echo out; echo err >&2; exit 3"}`, "[exit code 3]"},
		{"terminal", `{"command": "echo began; sleep 60"}`, "began"},
		{"terminal", `{"command": "sleep 60"}`, "took longer than 3s"},
		{"terminal", `{"command": "pwd", "directory": "../.."}`, "not a path within the workspace"},
		{"terminal", `{"command": "pwd", "directory": "none"}`, "there is no folder none"},
		{"below", `{"file": "../x"}`, "workspace"},
		{"nowhere", `{}`, "there-is-no-such-program"},
		{"unknown", `{}`, "the secret OTHER has no value"},
	} {
		if got, r := call(t, box, env, c.tool, c.arguments); !strings.Contains(got, c.want) || !r.Failed {
			t.Errorf("%s %s gave %q", c.tool, c.arguments, got)
		}
	}
	for name, want := range map[string]pipeline.Effect{"say": pipeline.EffectAtMostOnce, "input": pipeline.EffectPure, "terminal": pipeline.EffectAtMostOnce} {
		if got := box.Find(name).EffectWith(nil); got != want {
			t.Errorf("%s is %s", name, got)
		}
	}
}

// Where there is no sandbox, a program does not run bare.
func TestNoProgramRunsWithoutASandbox(t *testing.T) {
	env := environment(t)
	cfg := config(&blobs{})
	cfg.Sandbox = nil
	box := open(t, cfg, env, want(pipeline.Tool{Name: "terminal"}))
	if got, r := call(t, box, env, "terminal", `{"command": "touch ran"}`); !r.Failed || !strings.Contains(got, "sandbox") {
		t.Errorf("gave %s", got)
	}
}

func TestAQueryIsATool(t *testing.T) {
	env := environment(t)
	cfg := config(&blobs{})
	var asked []any
	cfg.Query = func(_ context.Context, dsn, text string, args []any, most int) (tool.Rows, error) {
		if asked = []any{dsn, text, args, most}; text == "bad" {
			return tool.Rows{}, errors.New("the database says: no")
		}
		return tool.Rows{Columns: []string{"a"}, Rows: [][]any{{int64(1)}}, More: true}, nil
	}
	query := "SELECT a FROM b WHERE c = $1"
	box := open(t, cfg, env, want(
		pipeline.Tool{Name: "fixed", Parameters: mapOf(param("c", "string")), SQL: &pipeline.SQLTool{DSN: "PASSWORD", Query: &query, Args: []string{"c"}}},
		pipeline.Tool{Name: "free", SQL: &pipeline.SQLTool{DSN: "PASSWORD", MaxRow: 5}},
		pipeline.Tool{Name: "nowhere", SQL: &pipeline.SQLTool{DSN: "OTHER"}},
	))
	if got, _ := call(t, box, env, "fixed", `{"c": "x"}`); got != `{"columns":["a"],"more":true,"rows":[[1]]}` {
		t.Errorf("gave %s", got)
	}
	if d := cmp.Diff([]any{"hunter2hunter2", query, []any{"x"}, 200}, asked); d != "" {
		t.Error(d)
	}
	if _, r := call(t, box, env, "free", `{"query": "SELECT 1"}`); r.Failed || asked[3] != 5 {
		t.Errorf("asked %v", asked)
	}
	if got, r := call(t, box, env, "free", `{"query": "bad"}`); !r.Failed || got != "the database says: no" {
		t.Errorf("gave %s", got)
	}
	if got, r := call(t, box, env, "nowhere", `{"query": "SELECT 1"}`); !r.Failed || !strings.Contains(got, "OTHER") {
		t.Errorf("gave %s", got)
	}
}

func TestAPipelineIsATool(t *testing.T) {
	env := environment(t)
	var with map[string]any
	var under string
	env.Child = func(_ context.Context, c *pipeline.Call, inputs map[string]any, key string) (*pipeline.Run, error) {
		if with, under = inputs, key; inputs["topic"] == "bad" {
			return nil, pipeline.Failuref(pipeline.CategoryFailed, "the pipeline %s has failed", c.Name)
		}
		return &pipeline.Run{ID: "run-2", Outputs: map[string]any{"report": "r.md"}}, nil
	}
	box := open(t, config(&blobs{}), env, want(pipeline.Tool{
		Name: "research", Parameters: mapOf(param("topic", "string")),
		Pipeline: &pipeline.Call{Name: "research", With: []pipeline.Entry{{Name: "depth", Value: pipeline.Field{Const: int64(2)}}}},
	}))
	if got, _ := call(t, box, env, "research", `{"topic": "x"}`); got != `{"outputs":{"report":"r.md"},"run_id":"run-2"}` {
		t.Errorf("gave %s", got)
	}
	if d := cmp.Diff(map[string]any{"topic": "x", "depth": int64(2)}, with); d != "" || under != "run-1/agent#1" {
		t.Errorf("%s, key %s", d, under)
	}
	if got, r := call(t, box, env, "research", `{"topic": "bad"}`); !r.Failed || got != "the pipeline research has failed" {
		t.Errorf("gave %s", got)
	}
}

func TestAnAgentIsATool(t *testing.T) {
	env := environment(t)
	w := want(pipeline.Tool{Name: "ask_writer", Agent: "writer"}, pipeline.Tool{Name: "typed", Agent: "writer", Parameters: mapOf(param("subject", "string"))})
	w.Agent.Agents = []pipeline.Agent{{Name: "writer"}}
	w.Nested = func(_ context.Context, _ executor.Env, a *pipeline.Agent, prompt string, c tool.Call) (tool.Result, error) {
		return tool.Text(fmt.Sprint(a.Name, " ", prompt, " ", c.N)), nil
	}
	box := open(t, config(&blobs{}), env, w)
	for name, arguments := range map[string]string{"ask_writer": `{"prompt": "a poem"}`, "typed": `{"subject": "a poem"}`} {
		if got, _ := call(t, box, env, name, arguments); got != "writer a poem 1" {
			t.Errorf("%s gave %s", name, got)
		}
	}
}

func TestWhatAPipelineSaysOfAToolCounts(t *testing.T) {
	env := environment(t)
	cfg := config(&blobs{})
	cfg.Policy = func(name string) *pipeline.Gate {
		if name == "filesystem_delete" || name == "terminal" {
			return &pipeline.Gate{Always: true}
		}
		return nil
	}
	gate := &pipeline.Gate{When: &pipeline.Template{Src: "args.x"}, Assignees: []string{"ann"}}
	box := open(t, cfg, env, want(
		pipeline.Tool{Name: "filesystem", Timeout: time.Second},
		pipeline.Tool{Name: "terminal", Gate: gate, Effect: pipeline.EffectIdempotent, Description: "Runs."},
		pipeline.Tool{Name: "http", Action: "http"},
		pipeline.Tool{Name: "ask_human"},
	))
	if g := box.Find("filesystem_delete").Gate; g == nil || !g.Always {
		t.Error("the server's policy does not count")
	}
	if box.Find("filesystem_read").Gate != nil || box.Find("filesystem_read").Timeout != time.Second {
		t.Error("a tool of a set is not what the pipeline says")
	}
	if x := box.Find("terminal"); !x.Gate.Always || !cmp.Equal(x.Gate.Assignees, []string{"ann"}) || x.EffectWith(nil) != pipeline.EffectIdempotent || x.Description != "Runs." {
		t.Errorf("terminal is %+v", x)
	}
	h := box.Find("http")
	if e := h.EffectWith(map[string]any{"method": "POST"}); e != pipeline.EffectAtLeastOnce {
		t.Errorf("a POST is %s", e)
	}
	if e := h.EffectWith(map[string]any{"method": "GET"}); e != pipeline.EffectIdempotent {
		t.Errorf("a GET is %s", e)
	}
	if x := box.Find("ask_human"); !x.Human || x.Run != nil {
		t.Error("ask_human does not ask people")
	}
}

func TestUnknownToolsAreRefused(t *testing.T) {
	for _, list := range [][]pipeline.Tool{{{Name: "nothing"}}, {{Name: "x", Action: "nothing"}}, {{Name: "mcp__s__x", Server: "s"}}, {{Name: "terminal"}, {Name: "terminal"}}, {{Name: "x", Agent: "nobody"}}} {
		_, err := tool.New(config(&blobs{})).Open(t.Context(), environment(t), want(list...))
		f, ok := errors.AsType[*pipeline.Failure](err)
		if !ok || f.Kind != pipeline.CategoryValidation {
			t.Errorf("%v gave %v", list, err)
		}
	}
}

// Where the model chooses the host, it reaches no private one; what the pipeline
// names, and the operator allows, it does.
func TestModelsReachNoPrivateHosts(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "inner") }))
	defer server.Close()
	at := strings.TrimPrefix(server.URL, "http://")
	port := at[strings.LastIndexByte(at, ':')+1:]
	env := environment(t)
	list := &pipeline.Type{Kind: "list", Items: &pipeline.Type{Kind: "string"}}
	tools := want(
		pipeline.Tool{Name: "http"},
		pipeline.Tool{Name: "page", Parameters: mapOf(param("x", "string")), HTTP: &pipeline.HTTPTool{URL: template("{{ x }}")}},
		pipeline.Tool{Name: "host", Parameters: mapOf(param("x", "string")), HTTP: &pipeline.HTTPTool{URL: template("http://{{ x }}:" + port + "/")}},
		pipeline.Tool{Name: "number", Parameters: mapOf(param("x", "integer")), HTTP: &pipeline.HTTPTool{URL: template("http://{{ x }}:" + port + "/")}},
		pipeline.Tool{Name: "listed", Parameters: mapOf(pipeline.Property{Name: "x", Required: true, Type: *list}), HTTP: &pipeline.HTTPTool{URL: template("{{ x[0] }}")}},
		pipeline.Tool{Name: "fixed", Parameters: mapOf(param("x", "string")), HTTP: &pipeline.HTTPTool{URL: template(server.URL + "/{{ x }}")}},
	)
	box := open(t, config(&blobs{}), env, tools)
	for name, args := range map[string]string{
		"http": fmt.Sprintf(`{"url": %q}`, server.URL), "page": fmt.Sprintf(`{"x": %q}`, server.URL), "host": `{"x": "localhost"}`,
		"number": `{"x": 2130706433}`, "listed": fmt.Sprintf(`{"x": [%q]}`, server.URL),
	} {
		if got, r := call(t, box, env, name, args); !r.Failed || !strings.Contains(got, "public internet") {
			t.Errorf("%s gave %s", name, got)
		}
	}
	if got, r := call(t, box, env, "fixed", `{"x": "a"}`); r.Failed || got != "inner" {
		t.Errorf("a host that the pipeline names gave %s", got)
	}
	cfg := config(&blobs{})
	cfg.PrivateHosts = []string{"127.0.0.*"}
	if got, r := call(t, open(t, cfg, env, tools), env, "page", fmt.Sprintf(`{"x": %q}`, server.URL)); r.Failed || got != "inner" {
		t.Errorf("a host that is allowed gave %s", got)
	}
}
