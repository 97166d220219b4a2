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
}

func newCarrier(life context.Context, s *Server) (*carrier, error) {
	u, err := url.Parse(s.URL)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return nil, pipeline.Failuref(pipeline.CategoryValidation, "its url is no address of the web, as in https://tools.example.org/mcp")
	}
	base, ok := http.DefaultTransport.(*http.Transport)
	if !ok {
		base = &http.Transport{Proxy: http.ProxyFromEnvironment}
	}
	return &carrier{base: base.Clone(), life: life, home: u, headers: s.Headers}, nil
}

// RoundTrip sends a request. The server's headers go to its own host alone.
func (c *carrier) RoundTrip(req *http.Request) (*http.Response, error) {
	ctx, cancel := context.WithCancel(req.Context())
	stop := context.AfterFunc(c.life, cancel)
	done := func() { stop(); cancel() }
	req = req.Clone(ctx)
	if req.URL.Host == c.home.Host && req.URL.Scheme == c.home.Scheme {
		for name, v := range c.headers {
			req.Header.Set(name, v)
		}
	}
	resp, err := c.base.RoundTrip(req)
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
