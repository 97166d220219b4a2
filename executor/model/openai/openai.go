// Package openai speaks to the Chat Completions and to the Responses of OpenAI,
// and to the many services that speak like them: Ollama, vLLM, llama.cpp,
// OpenRouter and others, found by their base URL. Answers are always streamed.
// What such a service leaves out (usage, ids of calls, the end of the stream's
// protocol) is made up for where that is honest.
//
//	p := openai.New(openai.Config{BaseURL: "http://localhost:11434/v1"})
//	s, err := p.Call(ctx, &model.Request{Model: "llama3.2", Messages: talk})
package openai

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"net/http"
	"net/url"
	"regexp"
	"strings"

	"github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/option"
	"github.com/openai/openai-go/v3/packages/ssestream"
	"github.com/openai/openai-go/v3/responses"

	"github.com/orchestrator-project/orchestrator/executor/model"
	"github.com/orchestrator-project/orchestrator/executor/model/remote"
)

// The values of Config.API.
const (
	Chat      = "chat"      // Chat Completions
	Responses = "responses" // Responses
)

// Config says where the service is and who asks.
type Config struct {
	Name    string        // in errors, and in what its reasoning is marked with; default openai
	BaseURL string        // with /v1, as services name it; default https://api.openai.com/v1
	Key     func() string // asked before each call; nil or empty: no key is sent
	Client  *http.Client  // nil: the defaults of net/http. Redirects are not followed
	API     string        // Chat or Responses; default Chat
}

// Provider calls the service. It is safe for concurrent use.
type Provider struct {
	service   remote.Service
	api       string
	own       bool // OpenAI's own service: it knows what compatible ones may not
	chat      openai.ChatCompletionService
	responses responses.ResponseService
}

var _ model.Provider = (*Provider)(nil)

const (
	ownURL  = "https://api.openai.com/v1/"
	ownHost = "openai.com"
)

// New gives the provider. It reads nothing of the environment.
func New(cfg Config) *Provider {
	if cfg.Name == "" {
		cfg.Name = "openai"
	}
	if cfg.BaseURL == "" {
		cfg.BaseURL = ownURL
	}
	p := &Provider{service: remote.Service{Name: cfg.Name, Key: cfg.Key}, api: cfg.API}
	if u, err := url.Parse(cfg.BaseURL); err == nil {
		p.own = u.Hostname() == ownHost || strings.HasSuffix(u.Hostname(), "."+ownHost)
	}
	options := []option.RequestOption{
		option.WithBaseURL(cfg.BaseURL),
		option.WithHTTPClient(remote.Client(cfg.Client)),
		option.WithMaxRetries(0), // trying again is the caller's
	}
	p.chat = openai.NewChatCompletionService(options...)
	p.responses = responses.NewResponseService(options...)
	return p
}

// Call sends the request once.
func (p *Provider) Call(ctx context.Context, r *model.Request) (model.Stream, error) {
	if p.api == Responses {
		return p.callResponses(ctx, r)
	}
	return p.callChat(ctx, r)
}

func (p *Provider) callChat(ctx context.Context, r *model.Request) (model.Stream, error) {
	params, form, err := p.chatRequest(r)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	var answer *http.Response
	events := p.chat.NewStreaming(ctx, params, p.options(r, &answer)...)
	t := &transport[openai.ChatCompletionChunk]{provider: p, ctx: ctx, events: events, answer: answer}
	if err := events.Err(); err != nil {
		defer cancel()
		return nil, t.failed(err)
	}
	return remote.NewStream(ctx, cancel, p.service, form, &chatSource{transport: t}), nil
}

func (p *Provider) callResponses(ctx context.Context, r *model.Request) (model.Stream, error) {
	params, form, err := p.responsesRequest(r)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	var answer *http.Response
	events := p.responses.NewStreaming(ctx, params, p.options(r, &answer)...)
	t := &transport[responses.ResponseStreamEventUnion]{provider: p, ctx: ctx, events: events, answer: answer}
	if err := events.Err(); err != nil {
		defer cancel()
		return nil, t.failed(err)
	}
	return remote.NewStream(ctx, cancel, p.service, form, &responsesSource{transport: t}), nil
}

func (p *Provider) options(r *model.Request, answer **http.Response) []option.RequestOption {
	list := []option.RequestOption{option.WithResponseInto(answer)}
	if key := p.service.Secret(); key != "" {
		list = append(list, option.WithAPIKey(key))
	}
	if p.own && r.IdempotencyKey != "" {
		list = append(list, option.WithHeader("Idempotency-Key", digest(r.IdempotencyKey)))
	}
	return list
}

// digest is a text as a key that services take: short, and without what it says.
func digest(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:16])
}

// conversation is what requests with the same prompts before them share, so that
// the service finds them in the same cache; empty: there are none.
func conversation(r *model.Request) string {
	if r.Agent == "" || r.Run == "" {
		return ""
	}
	return digest(string(r.Run) + "\x00" + string(r.Step) + "\x00" + r.Agent)
}

// reasons tells the service's models that reason by their names.
var reasons = regexp.MustCompile(`^(?:[a-z-]+/)?(?:o\d|codex|gpt-(?:[5-9]|\d\d)(?:[.-]|$))`)

// transport is the stream of events of either API.
type transport[E any] struct {
	provider *Provider
	ctx      context.Context // of the request: tells why a stream broke
	events   *ssestream.Stream[E]
	answer   *http.Response
	any      bool // an event has come
}

// next reads one event; false: there are no more.
func (t *transport[E]) next() (e E, ok bool, err error) {
	if t.events.Next() {
		t.any = true
		return t.events.Current(), true, nil
	}
	if err := t.events.Err(); err != nil {
		return e, false, t.failed(err)
	}
	if t.ctx.Err() != nil {
		return e, false, t.ctx.Err()
	}
	if kind := t.answer.Header.Get("Content-Type"); !t.any && !strings.HasPrefix(kind, "text/event-stream") {
		return e, false, t.provider.service.Malformed("it is of type %q, not a stream of events", kind)
	}
	return e, false, nil
}

// failed is an error of the SDK without what it knows of the request.
func (t *transport[E]) failed(err error) *model.Error {
	service := t.provider.service
	if t.ctx.Err() != nil {
		return service.Failed(t.ctx, err)
	}
	if t.answer != nil && t.answer.StatusCode >= 300 {
		return service.Refused(remote.RefusalOf(t.answer))
	}
	if within, ok := errors.AsType[*ssestream.StreamError](err); ok {
		return service.Refused(remote.RefusalIn(within.Event.Data))
	}
	return service.Failed(t.ctx, err)
}

// Close ends the stream's connection.
func (t *transport[E]) Close() error { return t.events.Close() }
