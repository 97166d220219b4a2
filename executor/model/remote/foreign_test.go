package remote_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/orchestrator-project/orchestrator/executor/model"
)

// wire answers in memory, and keeps the newest body.
type wire struct {
	reply []byte
	body  []byte
}

func (w *wire) RoundTrip(r *http.Request) (*http.Response, error) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, err
	}
	w.body = body
	return &http.Response{
		StatusCode: http.StatusOK, Request: r, Header: http.Header{"Content-Type": []string{"text/event-stream"}},
		Body: io.NopCloser(bytes.NewReader(w.reply)),
	}, nil
}

// TestAnyConversationIsTakenByEveryService lets conversations that were held with
// any service, cut off anywhere and mixed up, go on with each of them.
func TestAnyConversationIsTakenByEveryService(t *testing.T) {
	rules := map[string]func([]byte) error{"anthropic": anthropicTakes, "chat": chatTakes, "responses": responsesTakes, "google": googleTakes}
	for _, k := range kinds {
		t.Run(k.name, func(t *testing.T) {
			w := &wire{reply: reply(t, k.name)}
			p := k.open("http://service.test", &http.Client{Transport: w})
			rapid.Check(t, func(t *rapid.T) {
				r := conversation(t)
				r.Model = rapid.SampledFrom([]string{k.model, "gemini-3-pro", "claude-opus-4-6", "claude-3-haiku-20240307", "local"}).Draw(t, "model")
				before, err := json.Marshal(r)
				if err != nil {
					t.Fatal(err)
				}
				s, err := p.Call(t.Context(), r)
				if err != nil {
					t.Fatal(err)
				}
				if _, err := model.Drain(s, nil); err != nil {
					t.Fatal(err)
				}
				if err := rules[k.name](w.body); err != nil {
					t.Fatalf("%v in\n%s", err, w.body)
				}
				if after, err := json.Marshal(r); err != nil || !bytes.Equal(before, after) {
					t.Fatalf("the request was changed: %s", after)
				}
			})
		})
	}
}

// conversation is one that may have been held with anybody.
func conversation(t *rapid.T) *model.Request {
	text := rapid.SampledFrom([]string{"", " ", "\n\t", "hello", "two\n\nparagraphs", "<x>&\"'", "\u0000odd"})
	id := rapid.SampledFrom([]string{"", "call_1", "call_1", "call_2", "call1", "toolu_01AB", "a b/c", strings.Repeat("x", 80), "ü"})
	name := rapid.SampledFrom([]string{"now", "mcp__fs__read.file", "", "9lives", strings.Repeat("long_", 30)})
	arguments := rapid.SampledFrom([]string{"", "{}", `{"a": 9007199254740993}`, "not JSON", `[1]`, `{"a":`, "null", `{"a":1}{"b":2}`})
	media := rapid.SampledFrom([]model.Media{
		{Type: "image/png", Data: []byte("x")},
		{Type: "audio/wav", Data: []byte("x")},
		{Type: "application/pdf", Name: "a.pdf", Data: []byte("x")},
		{Type: "text/plain", Data: []byte("x")},
		{Type: "video/mp4", URL: "https://example.com/v.mp4"},
		{Type: "image/jpeg", URL: "https://example.com/i.jpg"},
	})
	signed := rapid.SampledFrom([]model.Block{
		{},
		{Of: "elsewhere", Opaque: []byte("x")},
		{Of: "google", Opaque: []byte(`{"signature":"c2ln"}`)},
		{Of: "anthropic", Opaque: []byte(`{"signature":"c2ln"}`)},
		{Of: "anthropic", Opaque: []byte(`{"redacted":"eA=="}`)},
		{Of: "openai", Opaque: []byte(`{"id":"rs_1","type":"reasoning","summary":[],"encrypted_content":"x"}`)},
	})
	file := rapid.Custom(func(t *rapid.T) model.Block {
		m := media.Draw(t, "media")
		kind := model.BlockDocument
		switch {
		case strings.HasPrefix(m.Type, "image/"):
			kind = model.BlockImage
		case strings.HasPrefix(m.Type, "audio/"):
			kind = model.BlockAudio
		}
		return model.Block{Kind: kind, Media: &m}
	})
	said := rapid.Custom(func(t *rapid.T) model.Block {
		if rapid.IntRange(0, 5).Draw(t, "file") == 0 {
			return file.Draw(t, "file")
		}
		return model.Block{Kind: model.BlockText, Text: text.Draw(t, "text")}
	})
	block := rapid.Custom(func(t *rapid.T) model.Block {
		switch rapid.IntRange(0, 5).Draw(t, "kind") {
		case 0, 1:
			return said.Draw(t, "said")
		case 2:
			b := signed.Draw(t, "signed")
			b.Kind, b.Text = model.BlockReasoning, text.Draw(t, "reasoning")
			return b
		case 3:
			return model.Block{Kind: model.BlockToolUse, ToolUse: &model.ToolUse{
				ID: id.Draw(t, "id"), Name: name.Draw(t, "name"), Arguments: arguments.Draw(t, "arguments"),
			}}
		case 4:
			return model.Block{Kind: model.BlockToolResult, ToolResult: &model.ToolResult{
				ID: id.Draw(t, "id"), Name: name.Draw(t, "name"), Content: rapid.SliceOfN(said, 0, 3).Draw(t, "content"), Failed: rapid.Bool().Draw(t, "failed"),
			}}
		}
		return model.Block{}
	})
	message := rapid.Custom(func(t *rapid.T) model.Message {
		return model.Message{
			Role: rapid.SampledFrom([]model.Role{model.User, model.Assistant}).Draw(t, "role"), Blocks: rapid.SliceOfN(block, 0, 5).Draw(t, "blocks"),
		}
	})
	r := &model.Request{Messages: rapid.SliceOfN(message, 0, 8).Draw(t, "messages"), Effort: rapid.SampledFrom([]string{"", "none", "low", "high"}).Draw(t, "effort")}
	r.Messages = append(r.Messages, model.UserText("and now?")) // files in the last message are refused where they are not taken
	if rapid.Bool().Draw(t, "tools") {
		r.Tools = []model.ToolDef{{Name: "now", Schema: map[string]any{"type": "object"}}}
	}
	return r
}

type object = map[string]any

var plainID = regexp.MustCompile(`^[a-zA-Z0-9_-]{1,64}$`)

// calls keeps that each id is given once.
type calls map[string]bool

func (c calls) add(v any) (string, error) {
	id, _ := v.(string)
	if !plainID.MatchString(id) || c[id] {
		return "", fmt.Errorf("the id %q is none, or was given before", id)
	}
	c[id] = true
	return id, nil
}

func list(v any) []object {
	all, _ := v.([]any)
	var own []object
	for _, e := range all {
		m, _ := e.(object)
		own = append(own, m)
	}
	return own
}

func decode(body []byte) (object, error) {
	var v object
	err := json.Unmarshal(body, &v)
	return v, err
}

func blank(v any) bool {
	s, _ := v.(string)
	return strings.TrimSpace(s) == ""
}

func anthropicTakes(body []byte) error {
	v, err := decode(body)
	if err != nil {
		return err
	}
	known := calls{}
	var open []string // calls whose results must come next
	messages := list(v["messages"])
	for i, m := range messages {
		if want := []string{"user", "assistant"}[i%2]; m["role"] != want {
			return fmt.Errorf("message %d is of %v", i, m["role"])
		}
		content := list(m["content"])
		if len(content) == 0 {
			return fmt.Errorf("message %d is empty", i)
		}
		for n, id := range open {
			if n >= len(content) || content[n]["tool_use_id"] != id {
				return fmt.Errorf("message %d has no result of %s at %d", i, id, n)
			}
		}
		results := len(open)
		open = nil
		for n, b := range content {
			switch b["type"] {
			case "text":
				if blank(b["text"]) {
					return fmt.Errorf("message %d has an empty text", i)
				}
			case "thinking", "redacted_thinking":
				if i%2 == 0 || n == len(content)-1 {
					return fmt.Errorf("message %d has thinking where it may not stand", i)
				}
			case "tool_use":
				id, err := known.add(b["id"])
				if _, ok := b["input"].(object); err != nil || !ok || i%2 == 0 || !plainID.MatchString(b["name"].(string)) {
					return fmt.Errorf("message %d has the call %v: %w", i, b, err)
				}
				open = append(open, id)
			case "tool_result":
				if n >= results || len(list(b["content"])) == 0 {
					return fmt.Errorf("message %d has a result that nobody asked for, or an empty one", i)
				}
			}
		}
	}
	if len(open) > 0 || len(messages)%2 == 0 {
		return fmt.Errorf("the user does not have the last word")
	}
	if len(known) > 0 && len(list(v["tools"])) == 0 {
		return fmt.Errorf("the tools that were called are unknown")
	}
	if thinking, ok := v["thinking"].(object); ok && thinking["type"] == "enabled" && len(messages) > 1 {
		last := list(messages[len(messages)-2]["content"])
		for _, b := range last {
			if first := last[0]["type"]; b["type"] == "tool_use" && first != "thinking" && first != "redacted_thinking" {
				return fmt.Errorf("thinking is on, and the last message does not begin with it")
			}
		}
	}
	return nil
}

func chatTakes(body []byte) error {
	v, err := decode(body)
	if err != nil {
		return err
	}
	known := calls{}
	var open []any
	before := ""
	for i, m := range list(v["messages"]) {
		role, _ := m["role"].(string)
		if len(open) > 0 {
			if role != "tool" || m["tool_call_id"] != open[0] || blank(m["content"]) {
				return fmt.Errorf("message %d is not the result of %v", i, open[0])
			}
			open = open[1:]
			before = role
			continue
		}
		called := list(m["tool_calls"])
		switch {
		case role == "tool", role == before, i == 0 && role != "user":
			return fmt.Errorf("message %d is of %s after %s", i, role, before)
		case len(called) == 0 && len(list(m["content"])) == 0 && blank(m["content"]):
			return fmt.Errorf("message %d is empty", i)
		}
		for _, c := range called {
			f, _ := c["function"].(object)
			id, err := known.add(c["id"])
			if err != nil || len(id) > 40 || !plainID.MatchString(f["name"].(string)) || json.Unmarshal([]byte(f["arguments"].(string)), &object{}) != nil {
				return fmt.Errorf("message %d has the call %v: %w", i, c, err)
			}
			open = append(open, id)
		}
		before = role
	}
	if len(open) > 0 || before == "assistant" {
		return fmt.Errorf("the user does not have the last word")
	}
	return nil
}

func responsesTakes(body []byte) error {
	v, err := decode(body)
	if err != nil {
		return err
	}
	known := calls{}
	var open []any
	items := list(v["input"])
	for i, item := range items {
		switch kind := item["type"]; kind {
		case "function_call":
			id, err := known.add(item["call_id"])
			if err != nil || json.Unmarshal([]byte(item["arguments"].(string)), &object{}) != nil {
				return fmt.Errorf("item %d is the call %v: %w", i, item, err)
			}
			open = append(open, id)
		case "function_call_output":
			if len(open) == 0 || item["call_id"] != open[0] || len(list(item["output"])) == 0 && blank(item["output"]) {
				return fmt.Errorf("item %d is the result of %v, not of %v", i, item["call_id"], open)
			}
			open = open[1:]
		case "reasoning":
			if i == len(items)-1 || items[i+1]["role"] == "user" || items[i+1]["type"] == "function_call_output" {
				return fmt.Errorf("item %d is reasoning that leads nowhere", i)
			}
		default:
			if len(open) > 0 && item["role"] == "user" || len(list(item["content"])) == 0 && blank(item["content"]) {
				return fmt.Errorf("item %d is empty, or comes before the results of %v", i, open)
			}
		}
	}
	if len(open) > 0 || len(items) == 0 {
		return fmt.Errorf("the results of %v are missing", open)
	}
	return nil
}

func googleTakes(body []byte) error {
	v, err := decode(body)
	if err != nil {
		return err
	}
	var open []object
	contents := list(v["contents"])
	for i, c := range contents {
		if want := []string{"user", "model"}[i%2]; c["role"] != want {
			return fmt.Errorf("content %d is of %v", i, c["role"])
		}
		parts := list(c["parts"])
		if len(parts) == 0 {
			return fmt.Errorf("content %d is empty", i)
		}
		for n, call := range open {
			response, _ := parts[min(n, len(parts)-1)]["functionResponse"].(object)
			if n >= len(parts) || response["id"] != call["id"] || response["name"] != call["name"] || len(response["response"].(object)) == 0 {
				return fmt.Errorf("content %d has no result of %v", i, call)
			}
		}
		answered := len(open)
		open = nil
		for n, p := range parts {
			if call, ok := p["functionCall"].(object); ok {
				if _, ok := call["args"].(object); !ok && call["args"] != nil || i%2 == 0 {
					return fmt.Errorf("content %d has the call %v", i, call)
				}
				open = append(open, call)
			}
			if p["functionResponse"] != nil && n >= answered {
				return fmt.Errorf("content %d has a result that nobody asked for", i)
			}
			if p["thought"] != nil || len(p) == 0 || len(p) == 1 && p["text"] != nil && blank(p["text"]) {
				return fmt.Errorf("part %d of content %d is empty, or a thought", n, i)
			}
		}
	}
	if len(open) > 0 || len(contents)%2 == 0 {
		return fmt.Errorf("the user does not have the last word")
	}
	return nil
}
