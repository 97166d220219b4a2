// Package google speaks to the Gemini API of Google. Answers are always streamed;
// what the service signs in its thoughts goes back as it came.
//
//	p := google.New(google.Config{Key: func() string { return key }})
//	s, err := p.Call(ctx, &model.Request{Model: "gemini-2.5-flash", Messages: talk})
package google

import (
	"context"
	"errors"
	"io"
	"iter"
	"net/http"
	"strings"

	"google.golang.org/genai"

	"github.com/orchestrator-project/orchestrator/executor/model"
	"github.com/orchestrator-project/orchestrator/executor/model/remote"
)

// Config says where the service is and who asks.
type Config struct {
	Name    string        // in errors, and in what its thoughts are marked with; default google
	BaseURL string        // without the version; default https://generativelanguage.googleapis.com
	Key     func() string // asked before each call; nil or empty: no key is sent
	Client  *http.Client  // nil: the defaults of net/http. Redirects are not followed
}

// Provider calls the service. It is safe for concurrent use.
type Provider struct {
	service remote.Service
	baseURL string
	client  *http.Client
}

var _ model.Provider = (*Provider)(nil)

// ownURL is given to the SDK always, so that it reads none of the environment.
const ownURL = "https://generativelanguage.googleapis.com/"

// New gives the provider. It reads nothing of the environment.
func New(cfg Config) *Provider {
	if cfg.Name == "" {
		cfg.Name = "google"
	}
	if cfg.BaseURL == "" {
		cfg.BaseURL = ownURL
	}
	return &Provider{service: remote.Service{Name: cfg.Name, Key: cfg.Key}, baseURL: cfg.BaseURL, client: remote.Client(cfg.Client)}
}

// noKey satisfies the SDK, which wants a key; the exchange takes it out again.
const noKey = "none"

// Call sends the request once.
func (p *Provider) Call(ctx context.Context, r *model.Request) (model.Stream, error) {
	contents, config, form, err := request(p.service, r)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	ex := &exchange{next: p.client.Transport}
	client := *p.client
	client.Transport = ex
	key := p.service.Secret()
	if key == "" {
		key = noKey
	}
	sdk, err := genai.NewClient(ctx, &genai.ClientConfig{
		APIKey: key, Backend: genai.BackendGeminiAPI, HTTPClient: &client, HTTPOptions: genai.HTTPOptions{BaseURL: p.baseURL},
	})
	if err != nil {
		cancel()
		return nil, p.service.Invalid("%s", err)
	}
	next, stop := iter.Pull2(sdk.Models.GenerateContentStream(ctx, r.Model, contents, config))
	s := &source{provider: p, ctx: ctx, exchange: ex, next: next, stop: stop}
	// The SDK sends the request when the first event is asked for.
	first, err := s.Next()
	if err != nil && !errors.Is(err, io.EOF) {
		cancel()
		stop()
		return nil, err
	}
	s.first, s.firstErr, s.held = first, err, true
	return remote.NewStream(ctx, cancel, p.service, form, s), nil
}

// exchange is the one request of a call: it keeps what the SDK's errors leave out,
// and the events as they came, since the SDK reads numbers as floating points.
type exchange struct {
	next   http.RoundTripper
	answer *http.Response
	events *recorder
}

// RoundTrip sends the request.
func (e *exchange) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Header.Get("X-Goog-Api-Key") == noKey {
		r = r.Clone(r.Context())
		r.Header.Del("X-Goog-Api-Key")
	}
	next := e.next
	if next == nil {
		next = http.DefaultTransport
	}
	answer, err := next.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	e.answer = answer
	if answer.StatusCode == http.StatusOK {
		e.events = &recorder{body: answer.Body}
		answer.Body = e.events
	}
	return answer, nil
}

// failed is an error of the SDK without what it knows of the request.
func (s *source) failed(err error) *model.Error {
	service := s.provider.service
	if broken := s.exchange.events.broken(); broken != nil {
		err = broken
	}
	if s.ctx.Err() != nil {
		return service.Failed(s.ctx, err)
	}
	if refused, ok := errors.AsType[genai.APIError](err); ok {
		return service.Refused(refusal(&refused, s.exchange.answer))
	}
	if strings.Contains(err.Error(), "invalid stream chunk") { // the SDK has no type for it
		return service.Malformed("%s", err)
	}
	return service.Failed(s.ctx, err)
}

// Close ends the stream's connection.
func (s *source) Close() error {
	s.stop()
	return nil
}
