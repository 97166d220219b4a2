package spec_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/textproto"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/orchestrator-project/orchestrator/executor"
	"github.com/orchestrator-project/orchestrator/executor/step"
	"github.com/orchestrator-project/orchestrator/pipeline/spec"
	"github.com/orchestrator-project/orchestrator/store/storetest"
)

// editor speaks to yaml-language-server, which is what editors ask about YAML,
// as an editor does: over its standard input and output. It reads only while it
// waits for something, so it needs no goroutine.
type editor struct {
	t        testing.TB
	out      io.Writer
	in       *textproto.Reader
	settings map[string]any
	asked    int
	opened   int
	found    map[string][]diagnostic // by document, as published last
}

type diagnostic struct {
	Message string `json:"message"`
	Range   struct {
		Start position `json:"start"`
	} `json:"range"`
}

type position struct {
	Line      int `json:"line"`
	Character int `json:"character"`
}

// message is a request, an answer or a notification.
type message struct {
	ID     json.RawMessage `json:"id,omitempty"`
	Method string          `json:"method,omitempty"`
	Params json.RawMessage `json:"params,omitempty"`
	Result json.RawMessage `json:"result,omitempty"`
	Error  json.RawMessage `json:"error,omitempty"`
}

// openEditor starts the language server with the schema of all actions. Without
// node, or without the package that scripts/needs installs, the test is skipped.
func openEditor(t *testing.T) *editor {
	t.Helper()
	node, err := exec.LookPath("node")
	if err != nil {
		t.Skipf("the test of editors needs node: %v", err)
	}
	server, err := filepath.Abs("../../.cache/npm/node_modules/yaml-language-server/bin/yaml-language-server")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(server); err != nil {
		t.Skipf("the test of editors needs yaml-language-server: go run ./scripts/needs -for axe (%v)", err)
	}
	e, err := executor.New(executor.Config{Store: storetest.Open(t), Actions: step.All(step.Config{}), Command: step.Command(step.Config{}), Workspace: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	schema := filepath.Join(t.TempDir(), "pipeline.json")
	if err := os.WriteFile(schema, spec.Schema(e.Catalog()), 0o600); err != nil {
		t.Fatal(err)
	}

	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute) // one that hangs is ended, and says what it was asked
	cmd := exec.CommandContext(ctx, node, server, "--stdio")
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var complaints bytes.Buffer
	cmd.Stderr = &complaints
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel()
		_ = cmd.Wait()
		if t.Failed() && complaints.Len() > 0 {
			t.Logf("yaml-language-server: %s", &complaints)
		}
	})
	ed := &editor{
		t: t, out: stdin, in: textproto.NewReader(bufio.NewReader(stdout)), found: map[string][]diagnostic{},
		settings: map[string]any{
			"validate": true, "completion": true, "hover": true,
			"schemaStore": map[string]any{"enable": false},
			"schemas":     map[string]any{"file://" + filepath.ToSlash(schema): "*.yaml"},
		},
	}
	markdown := []string{"markdown", "plaintext"}
	ed.ask("initialize", map[string]any{
		"processId": os.Getpid(), "rootUri": nil,
		"capabilities": map[string]any{
			"workspace": map[string]any{"configuration": true},
			"textDocument": map[string]any{
				"completion": map[string]any{"completionItem": map[string]any{"documentationFormat": markdown, "snippetSupport": true}},
				"hover":      map[string]any{"contentFormat": markdown},
			},
		},
	}, nil)
	ed.tell("initialized", map[string]any{})
	// The settings are there once a document is held against the schema.
	uri := ed.open("no_such_key: 1\n")
	for len(ed.found[uri]) == 0 {
		ed.read()
	}
	return ed
}

func (e *editor) send(m any) {
	e.t.Helper()
	b, err := json.Marshal(m)
	if err != nil {
		e.t.Fatal(err)
	}
	if _, err := fmt.Fprintf(e.out, "Content-Length: %d\r\n\r\n%s", len(b), b); err != nil {
		e.t.Fatal(err)
	}
}

func (e *editor) tell(method string, params any) {
	e.t.Helper()
	e.send(map[string]any{"jsonrpc": "2.0", "method": method, "params": params})
}

// ask sends a request and waits for its answer.
func (e *editor) ask(method string, params, answer any) {
	e.t.Helper()
	e.asked++
	id := strconv.Itoa(e.asked)
	e.send(map[string]any{"jsonrpc": "2.0", "id": e.asked, "method": method, "params": params})
	for {
		m := e.read()
		if m.Method != "" || string(m.ID) != id {
			continue
		}
		if m.Error != nil {
			e.t.Fatalf("%s: %s", method, m.Error)
		}
		if answer != nil {
			if err := json.Unmarshal(m.Result, answer); err != nil {
				e.t.Fatalf("%s: %v: %s", method, err, m.Result)
			}
		}
		return
	}
}

// read waits for a message. It answers what the server asks itself.
func (e *editor) read() message {
	e.t.Helper()
	head, err := e.in.ReadMIMEHeader()
	if err != nil {
		e.t.Fatalf("the language server has ended, or was ended, within request %d: %v", e.asked, err)
	}
	size, err := strconv.Atoi(head.Get("Content-Length"))
	if err != nil {
		e.t.Fatal(err)
	}
	b := make([]byte, size)
	if _, err := io.ReadFull(e.in.R, b); err != nil {
		e.t.Fatal(err)
	}
	var m message
	if err := json.Unmarshal(b, &m); err != nil {
		e.t.Fatalf("%v: %s", err, b)
	}
	switch {
	case m.Method == "workspace/configuration":
		var p struct{ Items []struct{ Section string } }
		if err := json.Unmarshal(m.Params, &p); err != nil {
			e.t.Fatal(err)
		}
		answer := make([]any, len(p.Items))
		for i, item := range p.Items {
			if item.Section == "yaml" {
				answer[i] = e.settings
			}
		}
		e.send(map[string]any{"jsonrpc": "2.0", "id": m.ID, "result": answer})
	case m.Method == "textDocument/publishDiagnostics":
		var p struct {
			URI         string
			Diagnostics []diagnostic
		}
		if err := json.Unmarshal(m.Params, &p); err != nil {
			e.t.Fatal(err)
		}
		e.found[p.URI] = p.Diagnostics
	case m.Method != "" && m.ID != nil:
		e.send(map[string]any{"jsonrpc": "2.0", "id": m.ID, "result": nil})
	}
	return m
}

func (e *editor) open(text string) (uri string) {
	e.t.Helper()
	e.opened++
	uri = fmt.Sprintf("file:///pipelines/%d.yaml", e.opened)
	e.tell("textDocument/didOpen", map[string]any{"textDocument": map[string]any{"uri": uri, "languageId": "yaml", "version": 1, "text": text}})
	return uri
}

// at opens a text with a cursor in it, written as a bar.
func (e *editor) at(text string) map[string]any {
	e.t.Helper()
	before, after, ok := strings.Cut(text, "|")
	if !ok {
		e.t.Fatalf("no cursor in %q", text)
	}
	line := strings.Count(before, "\n")
	column := len(before) - strings.LastIndexByte(before, '\n') - 1
	return map[string]any{"textDocument": map[string]any{"uri": e.open(before + after)}, "position": position{line, column}}
}

// complete gives what is offered at the cursor, each with its documentation.
func (e *editor) complete(text string) map[string]string {
	e.t.Helper()
	var list struct {
		Items []struct {
			Label         string
			Documentation json.RawMessage
		}
	}
	e.ask("textDocument/completion", e.at(text), &list)
	offered := map[string]string{}
	for _, item := range list.Items {
		doc := plainOrMarkup(item.Documentation)
		if offered[item.Label] == "" {
			offered[item.Label] = doc
		}
	}
	return offered
}

func (e *editor) hover(text string) string {
	e.t.Helper()
	var h struct{ Contents json.RawMessage }
	e.ask("textDocument/hover", e.at(text), &h)
	return plainOrMarkup(h.Contents)
}

// plainOrMarkup reads a text, or one of those with their kind beside.
func plainOrMarkup(b json.RawMessage) string {
	var s string
	var markup struct{ Value string }
	if json.Unmarshal(b, &s) != nil && json.Unmarshal(b, &markup) == nil {
		return markup.Value
	}
	return s
}

// diagnose gives what is found in a document that is open.
func (e *editor) diagnose(uri string) []string {
	e.t.Helper()
	for {
		if list, published := e.found[uri]; published {
			var out []string
			for _, d := range list {
				out = append(out, fmt.Sprintf("%d:%d: %s", d.Range.Start.Line+1, d.Range.Start.Character+1, d.Message))
			}
			return out
		}
		e.read()
	}
}

// TestEditors: with the schema, an editor completes keys, actions, operations,
// parameters and types with their descriptions, explains what the mouse is on,
// and marks what is wrong.
func TestEditors(t *testing.T) {
	e := openEditor(t)
	for _, c := range []struct {
		name, text string
		want       map[string]string // what is offered, and words of its documentation
		not        []string
	}{
		{"keys of the document", "|", map[string]string{"steps": "What is to be done", "inputs": "What a run is given", "settings": "as a whole", "models": "names of the pipeline's own"}, []string{"memory"}},
		{"keys of a step", "steps:\n  - id: a\n    |\n", map[string]string{
			"action": "http", "command": "without a shell", "run": "sh }}", "set": "State variables", "assert": "Fails the step", "wait": "5m", "ask": "Asks people",
			"approve": "approve or reject", "call": "imported pipeline", "pipeline": "called in place", "for": "for each item", "while": "Repeats the steps", "repeat": "until a condition",
			"queue": "several at once", "if": "under a condition", "match": "the case", "parallel": "at the same time", "compete": "takes the best", "skill": "SKILL.md", "agent": "prompt",
			"needs": "Ids of steps", "when": "skipped unless", "timeout": "Belongs to", "on_error": "rules", "with": "The same as parameters",
		}, []string{"id", "memory", "settings"}},
		{"keys of a step in a block", "steps:\n  - id: a\n    if:\n      condition: x\n      then:\n        - id: b\n          |\n", map[string]string{"action": "The action to run", "run": "shell"}, nil},
		{"keys of a block", "steps:\n  - id: a\n    for:\n      |\n", map[string]string{"items": "a list, or an expression", "variable": "name in the body", "parallel": "at once"}, []string{"action"}},
		{"keys of an inner pipeline", "steps:\n  - id: a\n    pipeline:\n      |\n", map[string]string{"steps": "What is to be done", "inputs": "What a run is given"}, []string{"action"}},
		{"actions", "steps:\n  - id: a\n    action: |\n", map[string]string{"http": "HTTP request", "generate": "model", "debug": ""}, []string{"write"}},
		{"tools", "steps:\n  - id: a\n    tool: |\n", map[string]string{"filesystem": "", "data": ""}, nil},
		{"operations of a tool", "steps:\n  - id: a\n    tool: filesystem\n    action: |\n", map[string]string{"write": "file", "list": "files"}, nil},
		{"parameters", "steps:\n  - id: a\n    action: http\n    parameters:\n      |\n", map[string]string{"url": "address", "method": "", "headers": ""}, []string{"path"}},
		{"parameters under their other name", "steps:\n  - id: a\n    tool: filesystem\n    action: write\n    with:\n      |\n", map[string]string{"path": "", "content": ""}, []string{"url"}},
		{"words", "steps:\n  - id: a\n    run: x\n    on_failure: |\n", map[string]string{"continue": "null output", "skip": "", "retry": "", "fail": ""}, nil},
		{"keys of an input", "inputs:\n  n:\n    |\nsteps: []\n", map[string]string{"type": "string, integer", "default": "where none is given", "min": "least"}, []string{"minimum"}},
		{"types", "inputs:\n  n:\n    type: |\nsteps: []\n", map[string]string{"integer": "whole number", "path": "workspace", "duration": "90s"}, []string{"relpath"}},
		{"keys of a type", "steps:\n  - id: a\n    run: x\n    returns:\n      score:\n        |\n", map[string]string{"type": "string, integer", "values": "allowed", "min": "least"}, []string{"allowed"}},
		{"keys of retry", "steps:\n  - id: a\n    run: x\n    retry:\n      |\n", map[string]string{"max_attempts": "in all"}, nil},
		{"keys of a rule", "steps:\n  - id: a\n    run: x\n    on_error:\n      - |\n", map[string]string{"do": "fallback", "match": "Which failures"}, nil},
		{"keys of ask", "steps:\n  - id: a\n    ask:\n      |\n", map[string]string{"question": "What is asked", "choices": ""}, nil},
		{"keys of approve", "steps:\n  - id: a\n    approve:\n      |\n", map[string]string{"assignees": "Who"}, []string{"choices"}},
		{"keys of cache", "steps:\n  - id: a\n    run: x\n    cache:\n      |\n", map[string]string{"ttl": "24h"}, nil},
		{"keys of if", "steps:\n  - id: a\n    if:\n      |\n", map[string]string{"condition": "When", "then": ""}, nil},
		{"keys of an arm", "steps:\n  - id: a\n    elif:\n      - |\n", map[string]string{"condition": "When", "then": ""}, nil},
		{"keys of publish", "steps:\n  - id: a\n    run: x\n    publish:\n      |\n", map[string]string{"artifact": "name", "from": "field"}, []string{"fresh"}},
		{"keys of an agent", "agents:\n  coder:\n    |\nsteps: []\n", map[string]string{"command": "program"}, nil},
		{"keys of a case", "steps:\n  - id: a\n    match:\n      cases:\n        bug:\n          - |\n", map[string]string{"id": "name for other steps", "action": ""}, nil},
		{"keys of a judge", "steps:\n  - id: a\n    compete:\n      judge:\n        |\n", map[string]string{"action": ""}, nil},
		{"operation without its tool", "steps:\n  - id: a\n    action: filesystem.write\n    with:\n      |\n", map[string]string{"path": "", "content": ""}, nil},
		{"types in short", "steps:\n  - id: a\n    run: x\n    returns:\n      score: |\n", map[string]string{"number": "min and max"}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			offered := e.complete(c.text)
			for label, words := range c.want {
				doc, ok := offered[label]
				if !ok {
					t.Errorf("%s is not offered, only %v", label, offered)
				} else if doc == "" || !strings.Contains(doc, words) {
					if words != "" {
						t.Errorf("%s is explained by %q, want %q in it", label, doc, words)
					}
				}
			}
			for _, label := range c.not {
				if _, ok := offered[label]; ok {
					t.Errorf("%s is offered", label)
				}
			}
		})
	}
	for text, want := range map[string]string{
		"st|eps:\n  - id: a\n    run: x\n":                                                  "What is to be done",
		"steps:\n  - id: a\n    ac|tion: http\n    parameters: {url: 'https://a.b'}\n":      "HTTP request",
		"steps:\n  - id: a\n    action: ht|tp\n    parameters: {url: 'https://a.b'}\n":      "HTTP request",
		"steps:\n  - id: a\n    action: http\n    parameters:\n      u|rl: 'https://a.b'\n": "address",
		"steps:\n  - id: a\n    run: x\n    ne|eds: [b]\n":                                  "Ids of steps",
		"inputs:\n  n: {type: integer, m|in: 1}\nsteps: []\n":                               "the least",
	} {
		if got := e.hover(text); !strings.Contains(got, want) {
			t.Errorf("%q is explained by %q, want %q in it", text, got, want)
		}
	}
	for _, c := range []struct{ text, want string }{ // want is a pattern; empty: nothing is found
		{"steps:\n  - id: a\n    run: x\n    neds: [b]\n", `^4:5: Property neds is not allowed`},
		{"steps:\n  - id: a\n    comand: [ls]\n", `^3:5: Property comand is not allowed`},
		{"steps:\n  - id: a\n    run: x\n    effect: none\n", `^4:13: Value is not accepted. Valid values: "pure"`},
		{"steps:\n  - id: a\n    action: http\n    parameters: {urll: x}\n", `urll is not allowed`},
		{"steps:\n  - id: a\n    action: http\n    parameters: {}\n", `Missing property "url"`},
		{"steps:\n  - id: a\n    tool: filesystem\n    action: wriite\n    parameters: {path: x}\n", `^4:13:`},
		{"inputs: {n: {type: integer, minn: 1}}\nsteps: []\n", `minn is not allowed`},
		{"steps:\n  - id: a\n    timeout: \"<AUTO>how long?</AUTO>\"\n    run: x\n", `^3:14:`},
		{"steps:\n  - id: a\n    action: generate\n    parameters: {prompt: x, max_tokens: '<AUTO>how many?</AUTO>'}\n", ""},
		{"inputs: {n: 3, m: {a: 1}}\nsteps:\n  - id: a\n    run: x\n    when: \"{{ n > 2 }}\"\n", ""},
	} {
		got := strings.Join(e.diagnose(e.open(c.text)), "\n")
		if c.want == "" && got != "" || !regexp.MustCompile(`(?m)`+c.want).MatchString(got) {
			t.Errorf("%q: found %q, want %q", c.text, got, c.want)
		}
	}
}

// TestEditorsTakeExamples: an editor marks nothing in the pipelines that come
// with the project, but the tags without quotes, which are no YAML to it.
func TestEditorsTakeExamples(t *testing.T) {
	e := openEditor(t)
	unquoted := regexp.MustCompile(`: <AUTO`)
	files, err := filepath.Glob("../../examples/*.yaml")
	if err != nil {
		t.Fatal(err)
	}
	seeds, err := filepath.Glob("../../examples/seeds/*.yaml")
	if err != nil {
		t.Fatal(err)
	}
	open := map[string]string{} // the server waits a moment with each, but not for one after the other
	for _, file := range append(files, seeds...) {
		if strings.Count(filepath.Base(file), ".") > 1 { // inputs, answers and scripts
			continue
		}
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if unquoted.Match(text) {
			continue
		}
		open[file] = e.open(string(text))
	}
	if len(open) < 40 {
		t.Errorf("only %d examples", len(open))
	}
	for file, uri := range open {
		for _, d := range e.diagnose(uri) {
			t.Errorf("%s:%s", file, d)
		}
	}
}
