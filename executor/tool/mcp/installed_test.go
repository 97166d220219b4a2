package mcp

import (
	"context"
	"errors"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/orchestrator-project/orchestrator/executor"
	"github.com/orchestrator-project/orchestrator/executor/tool"
	"github.com/orchestrator-project/orchestrator/pipeline"
)

func TestInstalledServers(t *testing.T) {
	env := map[string]string{"TOKEN": "tell-nobody-1", "HOME": "/srv/ann", "EMPTY": ""}
	text := `{"$schema": "x", "mcpServers": {
		"fs": {"command": "npx", "args": ["-y", "server", "${HOME}/notes", "{{ x }}"], "sandbox": true, "allow": ["read_*"], "deny": ["read_all"]},
		"led": {"type": "streamable-http", "url": "https://led.example.org/${EMPTY:-v1}/mcp", "headers": {"Authorization": "Bearer ${env:TOKEN}", "X-Team": "a"}},
		"old": {"type": "sse", "url": "http://old.example.org/sse", "headers": {"X-Key": "literal-key"}},
		"poor": {"command": "x", "env": {"A": "${NOT_SET}", "B": "${EMPTY}"}},
		"off": {"command": "x", "disabled": true}
	}}`
	list, faults := ReadInstalled("mcp.json", []byte(text), func(name string) (string, bool) { v, ok := env[name]; return v, ok })
	if len(faults) > 0 {
		t.Fatal(faults)
	}
	var names []string
	at := map[string]Server{}
	for _, s := range list {
		names = append(names, s.Name)
		at[s.Name] = s
	}
	if got := strings.Join(names, " "); got != "fs led old poor" {
		t.Errorf("the servers are %s", got)
	}
	fs, led, old, poor := at["fs"], at["led"], at["old"], at["poor"]
	if got := strings.Join(fs.Command, " "); got != "npx -y server /srv/ann/notes {{ x }}" || fs.Transport != stdio || fs.Sandbox == nil || len(fs.Hidden()) != 0 {
		t.Errorf("fs is %+v", fs)
	}
	if !fs.allows("read_one") || fs.allows("read_all") || fs.allows("write") {
		t.Error("allow and deny of fs do not hold")
	}
	if led.URL != "https://led.example.org/v1/mcp" || led.Transport != streamable || led.Headers["Authorization"] != "Bearer tell-nobody-1" || led.Headers["X-Team"] != "a" {
		t.Errorf("led is %+v", led)
	}
	if !slices.Contains(led.Hidden(), "tell-nobody-1") || slices.Contains(led.Hidden(), "a") {
		t.Errorf("of led, %q is hidden", led.Hidden())
	}
	if old.Transport != sse || !slices.Contains(old.Hidden(), "literal-key") {
		t.Errorf("old is %+v", old)
	}
	if got := strings.Join(poor.Lacking(), " "); got != "EMPTY NOT_SET" || len(fs.Lacking()) != 0 {
		t.Errorf("poor lacks %q", got)
	}
}

func TestInstalledServersThatCannotBeRead(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{`{`, "it is no mcp.json"},
		{`[]`, "it is no mcp.json"},
		{`{"servers": {}}`, "it has no mcpServers"},
		{`{"mcpServers": {"a": []}}`, `the server "a": it is to be an object`},
		{`{"mcpServers": {"a": null}}`, "it is to be an object"},
		{`{"mcpServers": {"a": {}}}`, "neither a command nor a url"},
		{`{"mcpServers": {"a": {"command": "x", "url": "http://x"}}}`, "a command and a url"},
		{`{"mcpServers": {"a": {"command": "x", "autoApprove": ["y"]}}}`, `there is no key "autoApprove"; there are type, command`},
		{`{"mcpServers": {"a": {"command": ["x"]}}}`, "cannot unmarshal"},
		{`{"mcpServers": {"a": {"command": "x", "args": [1]}}}`, "cannot unmarshal"},
		{`{"mcpServers": {"a__b": {"command": "x"}}}`, "cannot be a server's name"},
		{`{"mcpServers": {"": {"command": "x"}}}`, "cannot be a server's name"},
		{`{"mcpServers": {"a": {"command": "x", "type": "ws"}}}`, `there is no type "ws"`},
		{`{"mcpServers": {"a": {"command": "x", "type": "http"}}}`, "does not go with a command"},
		{`{"mcpServers": {"a": {"url": "http://x", "env": {"A": "b"}}}}`, "mean nothing for a url"},
		{`{"mcpServers": {"a": {"command": "x", "headers": {"A": "b"}}}}`, "mean nothing for a command"},
		{`{"mcpServers": {"a": {"command": "x", "allow": ["["]}}}`, "is not a pattern"},
		{`{"mcpServers": {"a": {"command": "x", "env": {"A": "${input:key}"}}}}`, "taken from the environment"},
	} {
		_, faults := ReadInstalled("dir/mcp.json", []byte(c.text), func(string) (string, bool) { return "", false })
		if len(faults) != 1 || !strings.HasPrefix(faults[0], "dir/mcp.json: ") || !strings.Contains(faults[0], c.want) {
			t.Errorf("%s gives %q", c.text, faults)
		}
	}
}

// named opens a server by its name; own are those of the pipeline.
func (w *world) named(name string, own ...pipeline.MCPServer) (tool.ServerSet, error) {
	return w.pool.Open(w.done, w.env, tool.Want{
		Unit: &pipeline.Unit{MCPServers: own}, Text: func(f *pipeline.Field, _ map[string]any) (any, error) { return f.Const, nil },
	}, []string{name})
}

func TestPipelinesNameInstalledServers(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	text := `{"mcpServers": {
		"srv": {"command": ` + encoded(self) + `, "env": {"` + serverMode + `": "friend"}, "deny": ["wait"]},
		"poor": {"command": "x", "env": {"A": "${NOT_SET}"}}}}`
	list, faults := ReadInstalled("mcp.json", []byte(text), func(string) (string, bool) { return "", false })
	if len(faults) > 0 {
		t.Fatal(faults)
	}
	w := newWorld(t, Config{Installed: list})

	set, err := w.named("srv")
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, s := range set.Tools() {
		names = append(names, s.Name)
	}
	set.Close()
	if !slices.Contains(names, "mcp__srv__echo") || slices.Contains(names, "mcp__srv__wait") {
		t.Errorf("the tools are %q", names)
	}

	var f *pipeline.Failure
	if _, err = w.named("poor"); !errors.As(err, &f) || f.Kind != pipeline.CategoryValidation || !strings.Contains(f.Message, "poor needs NOT_SET") {
		t.Errorf("a server without its key gives %v", err)
	}
	if _, err = w.named("other"); !errors.As(err, &f) || f.Reason != reasonTool || !strings.Contains(f.Message, "no MCP server other") {
		t.Errorf("a server that is nowhere gives %v", err)
	}
	own := pipeline.MCPServer{Name: "srv", Command: []pipeline.Field{{Const: self}}, Env: []pipeline.Entry{{Name: serverMode, Value: pipeline.Field{Const: "exit"}}}}
	if _, err = w.named("srv", own); err == nil || !strings.Contains(err.Error(), "no licence found") {
		t.Errorf("the pipeline's own server of the name gives %v", err)
	}

	env := w.env
	env.Journal = executor.NewJournal(nil, func(context.Context, []*pipeline.Approval, []pipeline.Event) error { return nil })
	env.Unit, env.Agent = &pipeline.Unit{}, &executor.AgentEnv{}
	step, err := w.pool.Action("mcp__srv__echo", "").Bind(map[string]any{"text": "hi"})
	if err != nil {
		t.Fatal(err)
	}
	if out, err := step.Run(w.done, env); err != nil || encoded(out.Value) != `{"text":"hi"}` {
		t.Errorf("a step gives %v, %v", out.Value, err)
	}
}
