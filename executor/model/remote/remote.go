// Package remote holds what providers that speak to services on the network have
// in common: how failures are told apart (failure.go), how a conversation, which
// may have been held with another service, is brought into an order that strict
// services take (talk.go), how an answer gets the form of a schema (form.go,
// dialect.go), and how a stream ends its socket (stream.go). It knows no service
// and no SDK.
//
//	service := remote.Service{Name: "anthropic", Key: key}
//	client := remote.Client(cfg.Client)
//	form := remote.NewForm(r, remote.Native)
//	talk, err := remote.Talk(r.Messages, rules)
//	...
//	return remote.NewStream(ctx, service, form, source)
package remote

import (
	"crypto/rand"
	"errors"
	"io"
	"net/http"
	"strings"

	"github.com/orchestrator-project/orchestrator/pipeline"
)

// Service is who answers, as errors name it, and the secret that no text shows.
type Service struct {
	Name string
	Key  func() string // nil: none is needed
}

// Secret is the key as it is now; empty: none.
func (s Service) Secret() string {
	if s.Key == nil {
		return ""
	}
	return s.Key()
}

// String tells the name and nothing of the key.
func (s Service) String() string { return s.Name }

// GoString is String: %#v tells no more.
func (s Service) GoString() string { return s.Name }

// maxTold bounds what is quoted from a service, in bytes.
const maxTold = 1000

// told is a text of a service as errors may show it: without the key, and not
// endless.
func (s Service) told(text string) string {
	if key := s.Secret(); len(key) > 3 {
		text = strings.ReplaceAll(text, key, "[key]")
	}
	text = strings.Join(strings.Fields(text), " ")
	if len(text) > maxTold {
		text = strings.ToValidUTF8(text[:maxTold], "") + " ..."
	}
	return text
}

// errRedirect is why a redirect is not followed: headers with keys would go along
// to wherever it leads.
var errRedirect = errors.New("it redirects elsewhere, which is not followed since the key would go along")

// Client is a copy of a client (nil: one with the defaults of net/http) that
// follows no redirects, and reads no more of a refusal than is told.
func Client(c *http.Client) *http.Client {
	var own http.Client
	if c != nil {
		own = *c
	}
	own.Transport = brief{own.Transport}
	own.CheckRedirect = func(*http.Request, []*http.Request) error { return errRedirect }
	return &own
}

// brief cuts the bodies of refusals: the SDKs read them to their ends, and a service
// may have none.
type brief struct{ next http.RoundTripper }

func (b brief) RoundTrip(r *http.Request) (*http.Response, error) {
	next := b.next
	if next == nil {
		next = http.DefaultTransport
	}
	answer, err := next.RoundTrip(r)
	if err == nil && answer.StatusCode >= http.StatusMultipleChoices {
		answer.Body = struct {
			io.Reader
			io.Closer
		}{io.LimitReader(answer.Body, maxBody), answer.Body}
		answer.ContentLength = -1 // what is told of it need not be all
	}
	return answer, err
}

// Usage is what a service says it has counted. The input is all of it, with what
// the service had kept and what it keeps from now on.
func Usage(input, output, cached, written, reasoning int64) *pipeline.Usage {
	return &pipeline.Usage{
		InputTokens: count(input), OutputTokens: count(output),
		CachedTokens: count(cached), CacheWriteTokens: count(written), ReasoningTokens: count(reasoning),
	}
}

// NewID is the id of a call whose service gave it none.
func NewID() string { return "call_" + strings.ToLower(rand.Text()) }

func count(n int64) int32 {
	const most = 1<<31 - 1
	return int32(max(0, min(n, most)))
}
