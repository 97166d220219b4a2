package mcp

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"github.com/orchestrator-project/orchestrator/pipeline"
)

// carrier sends the requests of one connection. They end when the connection
// does.
type carrier struct {
	base    *http.Transport
	life    context.Context //nolint:containedctx // of the connection
	home    *url.URL        // where the headers may go
	headers map[string]string
	keeper  keeper      // nil: the headers say who calls
	sent    *tokens     // nil: nobody looks
	fail    func(error) // ends the connection; nil: nobody is connected
}

func newCarrier(life context.Context, s *Server, logins *Logins) (*carrier, error) {
	u, err := url.Parse(s.URL)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return nil, pipeline.Failuref(pipeline.CategoryValidation, "its url is no address of the web, as in https://tools.example.org/mcp")
	}
	base, ok := http.DefaultTransport.(*http.Transport)
	if !ok {
		base = &http.Transport{Proxy: http.ProxyFromEnvironment}
	}
	c := &carrier{base: base.Clone(), life: life, home: u, headers: s.Headers, sent: s.sent}
	c.keeper, err = newKeeper(s, logins, c.base)
	return c, err
}

// RoundTrip sends a request. The server's headers, and a token of it, go to its own
// host alone. Where a token is refused and there is another one, it sends it again.
func (c *carrier) RoundTrip(req *http.Request) (*http.Response, error) {
	ctx, cancel := context.WithCancel(req.Context())
	stop := context.AfterFunc(c.life, cancel)
	done := func() { stop(); cancel() }
	resp, err := c.send(ctx, req)
	if err != nil {
		done()
		return nil, err
	}
	body := &answer{ReadCloser: resp.Body, done: done, left: -1}
	if !strings.HasPrefix(resp.Header.Get("Content-Type"), "text/event-stream") {
		body.left = maxMessage
	}
	resp.Body = body
	return resp, nil
}

func (c *carrier) send(ctx context.Context, first *http.Request) (*http.Response, error) {
	at := first.URL
	home := at.Host == c.home.Host && at.Scheme == c.home.Scheme
	for again := false; ; again = true {
		req := first.Clone(ctx)
		if again && first.GetBody != nil {
			body, err := first.GetBody()
			if err != nil {
				return nil, err
			}
			req.Body = body
		}
		token := ""
		if home && c.keeper != nil {
			var err error
			if token, err = c.keeper.token(c.life); err != nil {
				return nil, c.hopeless(err)
			}
		}
		if token != "" {
			c.sent.add(token)
			req.Header.Set("Authorization", "Bearer "+token)
		}
		for name, v := range c.headers {
			if home {
				req.Header.Set(name, v)
			}
		}
		resp, err := c.base.RoundTrip(req)
		if err != nil || !home || c.keeper == nil || again || resp.StatusCode != http.StatusUnauthorized && resp.StatusCode != http.StatusForbidden {
			return resp, err
		}
		retry, err := c.keeper.refused(c.life, req, resp, token)
		if err == nil && !retry {
			return resp, nil
		}
		resp.Body.Close()
		switch {
		case err == nil:
		case resp.StatusCode == http.StatusForbidden: // it is this request that reaches too far
			return nil, err
		default:
			return nil, c.hopeless(err)
		}
	}
}

// hopeless ends a connection that has no token, with the reason.
func (c *carrier) hopeless(err error) error {
	if f, ok := errors.AsType[*pipeline.Failure](err); ok && c.fail != nil {
		c.fail(f)
	}
	return err
}

// answer is the body of a response, which has a bound unless it is a stream of
// events; those have bounds of their own.
type answer struct {
	io.ReadCloser
	done func()
	left int64 // negative: no bound
}

var errTooLong = errors.New("the answer is too long")

func (a *answer) Read(p []byte) (int, error) {
	if a.left == 0 {
		return 0, fmt.Errorf("%w: more than %d bytes", errTooLong, maxMessage)
	}
	if a.left > 0 && int64(len(p)) > a.left {
		p = p[:a.left]
	}
	n, err := a.ReadCloser.Read(p)
	if a.left > 0 {
		a.left -= int64(n)
	}
	return n, err
}

func (a *answer) Close() error {
	defer a.done()
	return a.ReadCloser.Close()
}
