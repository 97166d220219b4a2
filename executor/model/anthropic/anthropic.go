// Package anthropic speaks to the Messages API of Anthropic, and to whatever
// speaks like it. Answers are always streamed; prompts are kept in the service's
// cache from turn to turn; thinking goes back with its signatures as it came.
//
//	p := anthropic.New(anthropic.Config{Key: func() string { return key }})
//	s, err := p.Call(ctx, &model.Request{Model: "claude-sonnet-4-5", Messages: talk})
package anthropic

import (
	"context"
	"errors"
	"net/http"

	sdk "github.com/anthropics/anthropic-sdk-go"
	"github.com/anthropics/anthropic-sdk-go/option"

	"github.com/orchestrator-project/orchestrator/executor/model"
	"github.com/orchestrator-project/orchestrator/executor/model/remote"
)

// Config says where the service is and who asks.
type Config struct {
	Name    string        // in errors, and in what its reasoning is marked with; default anthropic
	BaseURL string        // without /v1; default https://api.anthropic.com
	Key     func() string // asked before each call; nil or empty: no key is sent
	Client  *http.Client  // nil: the defaults of net/http. Redirects are not followed
}

// Provider calls the service. It is safe for concurrent use.
type Provider struct {
	service  remote.Service
	messages sdk.MessageService
}

var _ model.Provider = (*Provider)(nil)

// New gives the provider. It reads nothing of the environment.
func New(cfg Config) *Provider {
	if cfg.Name == "" {
		cfg.Name = "anthropic"
	}
	options := []option.RequestOption{
		option.WithEnvironmentProduction(),
		option.WithHTTPClient(remote.Client(cfg.Client)),
		option.WithMaxRetries(0),      // trying again is the caller's
		option.WithoutOpenTelemetry(), // so are spans
	}
	if cfg.BaseURL != "" {
		options = append(options, option.WithBaseURL(cfg.BaseURL))
	}
	return &Provider{service: remote.Service{Name: cfg.Name, Key: cfg.Key}, messages: sdk.NewMessageService(options...)}
}

// Call sends the request once.
func (p *Provider) Call(ctx context.Context, r *model.Request) (model.Stream, error) {
	params, form, err := request(p.service, r)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	var answer *http.Response
	options := []option.RequestOption{option.WithResponseInto(&answer)}
	if key := p.service.Secret(); key != "" {
		options = append(options, option.WithAPIKey(key))
	}
	events := p.messages.NewStreaming(ctx, params, options...)
	if err := events.Err(); err != nil {
		defer cancel()
		_ = events.Close() // there is nothing to read
		return nil, p.failed(ctx, err, answer)
	}
	source := &source{provider: p, ctx: ctx, events: events, answer: answer}
	return remote.NewStream(ctx, cancel, p.service, form, source), nil
}

// failed is an error of the SDK without what it knows of the request. answer may be
// nil.
func (p *Provider) failed(ctx context.Context, err error, answer *http.Response) *model.Error {
	if ctx.Err() != nil {
		return p.service.Failed(ctx, err)
	}
	if answer != nil && answer.StatusCode != http.StatusOK {
		return p.service.Refused(remote.RefusalOf(answer))
	}
	if refused, ok := errors.AsType[*sdk.Error](err); ok { // within the stream
		return p.service.Refused(remote.RefusalIn([]byte(refused.RawJSON())))
	}
	return p.service.Failed(ctx, err)
}
