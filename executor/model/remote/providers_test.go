package remote_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/orchestrator-project/orchestrator/executor/model"
	"github.com/orchestrator-project/orchestrator/executor/model/anthropic"
	"github.com/orchestrator-project/orchestrator/executor/model/google"
	"github.com/orchestrator-project/orchestrator/executor/model/openai"
	"github.com/orchestrator-project/orchestrator/pipeline"
)

var update = flag.Bool("update", false, "write the golden files anew")

const key = "sk-a-secret-of-the-tests"

// kind is one of the ways in which providers speak.
type kind struct {
	name, model string
	open        func(url string, client *http.Client) model.Provider
}

func secret() string { return key }

var kinds = []kind{
	{"anthropic", "claude-sonnet-4-5", func(url string, c *http.Client) model.Provider {
		return anthropic.New(anthropic.Config{BaseURL: url, Key: secret, Client: c})
	}},
	{"chat", "gpt-5", func(url string, c *http.Client) model.Provider {
		return openai.New(openai.Config{BaseURL: url + "/v1", Key: secret, Client: c})
	}},
	{"responses", "gpt-5", func(url string, c *http.Client) model.Provider {
		return openai.New(openai.Config{BaseURL: url + "/v1", Key: secret, Client: c, API: openai.Responses})
	}},
	{"google", "gemini-2.5-flash", func(url string, c *http.Client) model.Provider {
		return google.New(google.Config{BaseURL: url, Key: secret, Client: c})
	}},
}

// service answers every request alike, and keeps what it was sent.
type service struct {
	*httptest.Server
	paths  []string
	bodies [][]byte
	heads  []http.Header
}

func serve(t testing.TB, answer http.HandlerFunc) *service {
	t.Helper()
	s := &service{}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		s.paths, s.bodies, s.heads = append(s.paths, r.URL.RequestURI()), append(s.bodies, body), append(s.heads, r.Header)
		answer(w, r)
	}))
	t.Cleanup(s.Close)
	return s
}

// streamed answers with a stream of events.
func streamed(data []byte) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		_, _ = w.Write(data)
	}
}

func reply(t testing.TB, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", name+".sse"))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func ask(t testing.TB, p model.Provider, r *model.Request) (*model.Response, []model.Piece, error) {
	t.Helper()
	s, err := p.Call(context.Background(), r)
	if err != nil {
		return nil, nil, err
	}
	var pieces []model.Piece
	a, err := model.Drain(s, func(p model.Piece) { pieces = append(pieces, p) })
	return a, pieces, err
}

const readFile = "mcp__fs__read.file" // a name that no service takes

// rich is a request with everything in it.
func rich(name string) *model.Request {
	warm := 0.5
	return &model.Request{
		Run: "run1", Step: "step", Agent: "guide", Turn: 1, Phase: model.PhaseTurn, Model: name,
		System: "You are brief.", MaxTokens: 1000, Temperature: &warm, Effort: "low", IdempotencyKey: "run1/step",
		Tools: []model.ToolDef{
			{Name: readFile, Description: "Reads a file.", Schema: map[string]any{
				"type": "object", "required": []any{"id"}, "properties": map[string]any{"id": map[string]any{"type": "integer", "minimum": int64(1)}},
			}},
			{Name: "now", Schema: map[string]any{}},
		},
		Messages: []model.Message{
			{Role: model.User, Blocks: []model.Block{
				{Kind: model.BlockText, Text: "What is in these?"},
				{Kind: model.BlockImage, Media: &model.Media{Type: "image/png", Name: "a.png", Data: []byte("png")}},
				{Kind: model.BlockDocument, Media: &model.Media{Type: "application/pdf", Name: "b.pdf", Data: []byte("pdf")}},
				{Kind: model.BlockDocument, Media: &model.Media{Type: "text/plain", Name: "c.txt", Data: []byte("text")}},
			}},
			{Role: model.Assistant, Blocks: []model.Block{
				{Kind: model.BlockReasoning, Text: "Foreign.", Opaque: []byte("x"), Of: "elsewhere"},
				{Kind: model.BlockToolUse, ToolUse: &model.ToolUse{ID: "an id/that strict services refuse", Name: "now", Arguments: "not JSON"}},
			}},
			{Role: model.User, Blocks: []model.Block{
				{Kind: model.BlockToolResult, ToolResult: &model.ToolResult{
					ID: "an id/that strict services refuse", Name: "now", Failed: true, Content: []model.Block{
						{Kind: model.BlockText, Text: "the arguments are no JSON"},
						{Kind: model.BlockImage, Media: &model.Media{Type: "image/png", Data: []byte("clock")}},
					},
				}},
				{Kind: model.BlockText, Text: "Go on with the file."},
			}},
		},
	}
}

// TestRequestsOnTheWire holds what is sent, in a first turn and in the next one,
// which gives back what the service has signed.
func TestRequestsOnTheWire(t *testing.T) {
	for _, k := range kinds {
		t.Run(k.name, func(t *testing.T) {
			s := serve(t, streamed(reply(t, k.name)))
			p := k.open(s.URL, s.Client())
			r := rich(k.model)
			a, pieces, err := ask(t, p, r)
			if err != nil {
				t.Fatal(err)
			}
			calls := a.Message.Calls()
			if a.Text() != "Let me look." || a.Stop != model.StopTools || len(calls) != 1 || calls[0].Name != readFile ||
				calls[0].Arguments != `{"id": 9007199254740993}` || calls[0].ID == "" {
				t.Fatalf("got %+v, calls %+v", a, calls)
			}
			want := &pipeline.Usage{InputTokens: 4320, OutputTokens: 50, CachedTokens: 4000, ReasoningTokens: 30}
			if k.name == "anthropic" {
				want.CacheWriteTokens, want.ReasoningTokens = 300, 0
			}
			if diff := cmp.Diff(want, a.Usage); diff != "" {
				t.Error(diff)
			}
			told := map[string]string{}
			for _, p := range pieces {
				told[p.Kind+" "+p.Name] += p.Text
			}
			if diff := cmp.Diff(map[string]string{
				"reasoning ": "I look it up.", "text ": "Let me look.", "tool " + readFile: `{"id": 9007199254740993}`,
			}, told); diff != "" {
				t.Error(diff)
			}
			calls[0].ID = "call_fixed" // some are made at random
			r.Messages = append(r.Messages, a.Message, model.Message{Role: model.User, Blocks: []model.Block{
				{Kind: model.BlockToolResult, ToolResult: &model.ToolResult{ID: "call_fixed", Name: readFile, Content: []model.Block{{Kind: model.BlockText, Text: "hello"}}}},
			}})
			if _, _, err := ask(t, p, r); err != nil {
				t.Fatal(err)
			}
			var golden bytes.Buffer
			for i := range s.bodies {
				golden.WriteString("POST " + s.paths[i] + "\n")
				if err := json.Indent(&golden, s.bodies[i], "", "  "); err != nil {
					t.Fatal(err)
				}
				golden.WriteString("\n\n")
			}
			checkGolden(t, k.name+".golden", golden.Bytes())
			for _, h := range s.heads {
				if h.Get("X-Api-Key") != key && h.Get("Authorization") != "Bearer "+key && h.Get("X-Goog-Api-Key") != key {
					t.Errorf("the key is missing in %v", h)
				}
			}
		})
	}
}

func checkGolden(t *testing.T, name string, got []byte) {
	t.Helper()
	file := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(file, got, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file) //nolint:gosec // names stand in this file
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("%s (-update writes it anew): %s", file, diff)
	}
}

func TestSignaturesGoBackByteForByte(t *testing.T) {
	for name, want := range map[string][]string{
		"anthropic": {`EqQB+/<sig>&==`, `Em+/secret==`},
		"responses": {`gAAAA+/<x>&==`, `"phase":"commentary"`, `"future":{"kept":1.0}`},
		"google":    {`AX+/c2lnbmF0dXJl`},
	} {
		for _, k := range kinds {
			if k.name != name {
				continue
			}
			s := serve(t, streamed(reply(t, k.name)))
			p := k.open(s.URL, s.Client())
			r := &model.Request{Model: k.model, Messages: []model.Message{model.UserText("hi")}}
			a, _, err := ask(t, p, r)
			if err != nil {
				t.Fatal(err)
			}
			stored, err := json.Marshal(a.Message) // it is kept as JSON between turns
			if err != nil {
				t.Fatal(err)
			}
			var back model.Message
			if err := json.Unmarshal(stored, &back); err != nil {
				t.Fatal(err)
			}
			r.Messages = append(r.Messages, back)
			if _, _, err := ask(t, p, r); err != nil {
				t.Fatal(err)
			}
			sent := strings.NewReplacer(`\u003c`, "<", `\u003e`, ">", `\u0026`, "&").Replace(string(s.bodies[1]))
			for _, w := range want {
				if !strings.Contains(sent, w) {
					t.Errorf("%s: %s is not in %s", name, w, sent)
				}
			}
		}
	}
}

// TestCancellationClosesTheSocket holds that a service sees the end of a
// connection when the caller gives up, before the answer and within it.
func TestCancellationClosesTheSocket(t *testing.T) {
	for _, k := range kinds {
		first, _, _ := bytes.Cut(reply(t, k.name), []byte("\n\n"))
		for _, begun := range []bool{false, true} {
			for _, by := range []string{"context", "close"} {
				if !begun && by == "close" {
					continue // there is no stream yet
				}
				arrived, gone := make(chan struct{}), make(chan struct{})
				s := serve(t, func(w http.ResponseWriter, r *http.Request) {
					if begun {
						w.Header().Set("Content-Type", "text/event-stream")
						_, _ = w.Write(append(first, "\n\n"...))
						w.(http.Flusher).Flush() //nolint:forcetypeassert // as the server documents
					}
					close(arrived)
					<-r.Context().Done()
					close(gone)
				})
				ctx, cancel := context.WithCancel(t.Context())
				failed := make(chan error, 1)
				p := k.open(s.URL, s.Client())
				streams := make(chan model.Stream, 1)
				go func() {
					stream, err := p.Call(ctx, &model.Request{Model: k.model, Messages: []model.Message{model.UserText("hi")}})
					if err == nil {
						streams <- stream
						_, err = model.Drain(stream, nil)
					}
					failed <- err
				}()
				<-arrived
				if by == "close" {
					_ = (<-streams).Close()
				} else {
					cancel()
				}
				e, ok := errors.AsType[*model.Error](<-failed)
				if !ok || e.Class != model.ClassCancelled {
					t.Errorf("%s, begun %v, by %s: got %v", k.name, begun, by, e)
				}
				<-gone
				cancel()
			}
		}
	}
}

func TestRedirectsAreNotFollowed(t *testing.T) {
	other := serve(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusTeapot) })
	for _, k := range kinds {
		s := serve(t, func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, other.URL, http.StatusTemporaryRedirect)
		})
		_, _, err := ask(t, k.open(s.URL, nil), &model.Request{Model: k.model, Messages: []model.Message{model.UserText("hi")}})
		e, ok := errors.AsType[*model.Error](err)
		if !ok || e.Class != model.ClassInvalid || !strings.Contains(e.Error(), "it redirects elsewhere") || len(other.heads) > 0 {
			t.Errorf("%s: got %v, %d requests went elsewhere", k.name, err, len(other.heads))
		}
	}
}

func TestARefusalWithoutEndIsNotReadToItsEnd(t *testing.T) {
	for _, k := range kinds {
		gone := make(chan struct{})
		s := serve(t, func(w http.ResponseWriter, r *http.Request) {
			defer close(gone)
			w.Header().Set("Retry-After", "7")
			w.WriteHeader(http.StatusInternalServerError)
			for r.Context().Err() == nil {
				if _, err := w.Write(bytes.Repeat([]byte("E"), 1<<20)); err != nil {
					return
				}
			}
		})
		_, _, err := ask(t, k.open(s.URL, nil), &model.Request{Model: k.model, Messages: []model.Message{model.UserText("hi")}})
		e, ok := errors.AsType[*model.Error](err)
		if !ok || e.Class != model.ClassServer || len(e.Error()) > 2000 || !strings.HasSuffix(e.Error(), "(status 500); it asks to wait for 7s") {
			t.Errorf("%s: got %v", k.name, err)
		}
		<-gone
	}
}

func TestKeysStayOutOfErrors(t *testing.T) {
	for _, k := range kinds {
		for _, status := range []int{http.StatusUnauthorized, http.StatusBadRequest, http.StatusInternalServerError} {
			s := serve(t, func(w http.ResponseWriter, r *http.Request) {
				w.WriteHeader(status)
				_, _ = io.WriteString(w, `{"error":{"message":"you sent `+key+`"}}`)
			})
			p := k.open(s.URL, nil)
			_, _, err := ask(t, p, &model.Request{Model: k.model, Messages: []model.Message{model.UserText("hi")}})
			e, ok := errors.AsType[*model.Error](err)
			if !ok || e.Status != status {
				t.Errorf("%s: got %v", k.name, err)
				continue
			}
			for _, text := range []string{e.Error(), fmt.Sprintf("%+v %#v %v %#v", e, e, e.Cause, p)} {
				if strings.Contains(text, key) {
					t.Errorf("%s, status %d: %s", k.name, status, text)
				}
			}
		}
	}
}
