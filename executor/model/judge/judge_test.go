// Package judge_test holds the providers against aimock, a mock of the services'
// wire formats by people who know nothing of ours: what our own tests think a
// service says, they may have in common with our own mistakes.
package judge_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/orchestrator-project/orchestrator/executor/model"
	"github.com/orchestrator-project/orchestrator/executor/model/anthropic"
	"github.com/orchestrator-project/orchestrator/executor/model/google"
	"github.com/orchestrator-project/orchestrator/executor/model/openai"
)

const key = "sk-the-secret-of-the-judge"

// mock starts aimock and gives its address.
func mock(t *testing.T) string {
	t.Helper()
	script := os.Getenv("AIMOCK_JS")
	if script == "" {
		t.Skip("AIMOCK_JS is not set; make judges and make test bring it")
	}
	ctx, cancel := context.WithCancel(context.Background())
	cmd := exec.CommandContext(ctx, "node", script, "-p", "0", "-f", "testdata/fixtures.json", "--strict", "--validate-on-load")
	cmd.Env = append(os.Environ(), "AIMOCK_API_KEYS="+key)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = cmd.Stdout
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel()
		_ = cmd.Wait() // it was killed
	})
	lines := bufio.NewScanner(out)
	address := regexp.MustCompile(`http://127\.0\.0\.1:\d+`)
	var said []string
	for lines.Scan() {
		said = append(said, lines.Text())
		if a := address.FindString(lines.Text()); a != "" && strings.Contains(lines.Text(), "listening") {
			go func() { _, _ = io.Copy(io.Discard, out) }() // it must not wait for a reader
			return a
		}
	}
	t.Fatalf("aimock does not listen:\n%s", strings.Join(said, "\n"))
	return ""
}

// subject is a provider as it stands before the judge.
type subject struct {
	name     string
	provider model.Provider
	model    string
}

func subjects(url string) []subject {
	secret := func() string { return key }
	return []subject{
		{"anthropic", anthropic.New(anthropic.Config{BaseURL: url, Key: secret}), "claude-sonnet-4-5"},
		{"chat", openai.New(openai.Config{BaseURL: url + "/v1", Key: secret}), "gpt-5"},
		{"responses", openai.New(openai.Config{BaseURL: url + "/v1", Key: secret, API: openai.Responses}), "gpt-5"},
		{"google", google.New(google.Config{BaseURL: url, Key: secret}), "gemini-2.5-flash"},
	}
}

func (s subject) ask(t *testing.T, r *model.Request) (*model.Response, []model.Piece, error) {
	t.Helper()
	r.Model = s.model
	stream, err := s.provider.Call(t.Context(), r)
	if err != nil {
		return nil, nil, err
	}
	var pieces []model.Piece
	a, err := model.Drain(stream, func(p model.Piece) { pieces = append(pieces, p) })
	return a, pieces, err
}

func said(text string) *model.Request {
	return &model.Request{Messages: []model.Message{model.UserText(text)}}
}

func TestTextStreamsInPieces(t *testing.T) {
	for _, s := range subjects(mock(t)) {
		t.Run(s.name, func(t *testing.T) {
			r := said("hello")
			r.System = "You are brief."
			a, pieces, err := s.ask(t, r)
			if err != nil {
				t.Fatal(err)
			}
			if a.Text() != "Hi there, how are you today?" || a.Stop != model.StopEnd || a.Model == "" {
				t.Errorf("got %+v", a)
			}
			if a.Usage == nil || a.Usage.InputTokens != 12 || a.Usage.OutputTokens != 7 {
				t.Errorf("usage %+v", a.Usage)
			}
			var text strings.Builder
			for _, p := range pieces {
				text.WriteString(p.Text)
			}
			if len(pieces) < 2 || text.String() != a.Text() {
				t.Errorf("%d pieces: %q", len(pieces), text.String())
			}
		})
	}
}

func TestReasoningComesApartFromTheAnswer(t *testing.T) {
	for _, s := range subjects(mock(t)) {
		t.Run(s.name, func(t *testing.T) {
			a, _, err := s.ask(t, said("think"))
			if err != nil {
				t.Fatal(err)
			}
			var reasoning string
			for _, b := range a.Message.Blocks {
				if b.Kind == model.BlockReasoning {
					reasoning += b.Text
				}
			}
			if a.Text() != "Forty-two." || reasoning != "Six by nine." {
				t.Errorf("text %q, reasoning %q", a.Text(), reasoning)
			}
		})
	}
}

var tools = []model.ToolDef{
	{Name: "get_weather", Description: "Tells the weather.", Schema: map[string]any{
		"type": "object", "required": []any{"city"}, "properties": map[string]any{"city": map[string]any{"type": "string"}},
	}},
	{Name: "get_time", Description: "Tells the time.", Schema: map[string]any{"type": "object"}},
}

func TestToolsAreCalledAndAnswered(t *testing.T) {
	for _, s := range subjects(mock(t)) {
		t.Run(s.name, func(t *testing.T) {
			r := said("what is the weather?")
			r.Tools, r.Agent = tools, "guide"
			a, pieces, err := s.ask(t, r)
			if err != nil {
				t.Fatal(err)
			}
			calls := a.Message.Calls()
			if a.Stop != model.StopTools || a.Text() != "Let me look." || len(calls) != 2 || calls[0].ID == calls[1].ID || calls[0].ID == "" {
				t.Fatalf("got %+v %+v", a, calls)
			}
			if calls[0].Name != "get_weather" || !equalJSON(calls[0].Arguments, `{"city":"Paris"}`) || calls[1].Name != "get_time" || !equalJSON(calls[1].Arguments, `{}`) {
				t.Errorf("calls %+v %+v", calls[0], calls[1])
			}
			arguments := map[string]string{}
			for _, p := range pieces {
				if p.Kind == "tool" {
					arguments[p.Name] += p.Text
				}
			}
			if !equalJSON(arguments["get_weather"], `{"city":"Paris"}`) {
				t.Errorf("pieces %v", arguments)
			}
			var results []model.Block
			for _, c := range calls {
				results = append(results, model.Block{Kind: model.BlockToolResult, ToolResult: &model.ToolResult{
					ID: c.ID, Name: c.Name, Content: []model.Block{{Kind: model.BlockText, Text: "sunny"}},
				}})
			}
			r.Messages = append(r.Messages, a.Message, model.Message{Role: model.User, Blocks: results})
			a, _, err = s.ask(t, r)
			if err != nil || a.Text() != "It is sunny." || a.Stop != model.StopEnd {
				t.Errorf("after the results: %+v, %v", a, err)
			}
		})
	}
}

func TestConversationGoesOnWithAnotherProvider(t *testing.T) {
	url := mock(t)
	all := subjects(url)
	for _, from := range all {
		for _, to := range all {
			t.Run(from.name+" to "+to.name, func(t *testing.T) {
				r := said("what is the weather?")
				r.Tools, r.Agent = tools, "guide"
				a, _, err := from.ask(t, r)
				if err != nil {
					t.Fatal(err)
				}
				var results []model.Block
				for _, c := range a.Message.Calls() {
					results = append(results, model.Block{Kind: model.BlockToolResult, ToolResult: &model.ToolResult{
						ID: c.ID, Name: c.Name, Content: []model.Block{{Kind: model.BlockText, Text: "sunny"}},
					}})
				}
				r.Messages = append(r.Messages, a.Message, model.Message{Role: model.User, Blocks: results})
				a, _, err = to.ask(t, r)
				if err != nil || a.Text() != "It is sunny." {
					t.Errorf("got %+v, %v", a, err)
				}
			})
		}
	}
}

func TestAnswersHaveTheFormOfTheSchema(t *testing.T) {
	for _, s := range subjects(mock(t)) {
		t.Run(s.name, func(t *testing.T) {
			for mode, text := range map[string]string{"native": "how many legs has a spider?", "tool": "an answer taken by a tool", "": "how many legs has a spider?"} {
				r := said(text)
				r.Mode, r.Schema = mode, map[string]any{"type": "integer", "minimum": int64(0)}
				a, _, err := s.ask(t, r)
				if err != nil {
					t.Errorf("%s: %v", mode, err)
					continue
				}
				if diff := cmp.Diff(any(int64(8)), a.Value); diff != "" || a.Text() != "8" || a.Stop != model.StopEnd || len(a.Message.Calls()) != 0 {
					t.Errorf("%s: %+v %s", mode, a, diff)
				}
			}
		})
	}
}

func TestFailuresAreToldApart(t *testing.T) {
	for _, s := range subjects(mock(t)) {
		t.Run(s.name, func(t *testing.T) {
			for text, want := range map[string]string{
				"limited": model.ClassRateLimit, "overloaded": model.ClassOverloaded, "unavailable": model.ClassOverloaded, "internal": model.ClassServer,
				"forbidden": model.ClassAuth, "too long": model.ClassContextLength, "malformed": model.ClassMalformed, "dropped": model.ClassServer,
				"broken": model.ClassNetwork, "cut in the middle": model.ClassNetwork, "disconnect late": model.ClassNetwork,
			} {
				a, _, err := s.ask(t, said(text))
				e, ok := errors.AsType[*model.Error](err)
				if !ok || e.Class != want {
					t.Errorf("%s: got %+v %v, want class %s", text, a, err, want)
					continue
				}
				if strings.Contains(e.Error(), key) || e.Message == "" {
					t.Errorf("%s: the message is %q", text, e.Message)
				}
				if text == "limited" && (e.RetryAfter.Seconds() != 1 || e.Status != http.StatusTooManyRequests) {
					t.Errorf("retry after %v, status %d", e.RetryAfter, e.Status)
				}
			}
		})
	}
}

func TestWrongKeyIsToldAndNotShown(t *testing.T) {
	url := mock(t)
	wrong := func() string { return "sk-wrong-and-still-a-secret" }
	for name, p := range map[string]model.Provider{
		"anthropic": anthropic.New(anthropic.Config{BaseURL: url, Key: wrong}),
		"chat":      openai.New(openai.Config{BaseURL: url + "/v1", Key: wrong}),
		"responses": openai.New(openai.Config{BaseURL: url + "/v1", Key: wrong, API: openai.Responses}),
		"google":    google.New(google.Config{BaseURL: url, Key: wrong}),
	} {
		_, _, err := subject{provider: p, model: "gemini-2.5-flash"}.ask(t, said("hello"))
		e, ok := errors.AsType[*model.Error](err)
		if !ok || e.Class != model.ClassAuth || strings.Contains(e.Error(), wrong()) {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

func equalJSON(a, b string) bool {
	var x, y any
	return json.Unmarshal([]byte(a), &x) == nil && json.Unmarshal([]byte(b), &y) == nil && cmp.Equal(x, y)
}
