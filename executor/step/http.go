package step

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.opentelemetry.io/otel/propagation"

	"github.com/orchestrator-project/orchestrator/executor"
	"github.com/orchestrator-project/orchestrator/pipeline"
	"github.com/orchestrator-project/orchestrator/pipeline/expr"
	"github.com/orchestrator-project/orchestrator/pipeline/spec"
)

const httpDoc = `Sends an HTTP request and gives the answer.

    - id: issue
      action: http
      parameters:
        url: https://api.example.org/issues
        method: POST
        headers: {Authorization: "Bearer {{ secrets.TOKEN }}"}
        json: {title: "{{ title }}"}
        expect: 201

An answer of 400 or above fails the step, unless expect allows it: 408 and 504 with category timeout, 429 with rate_limit, other 5xx with system, and the rest with failed; a Retry-After is honoured by the step's retry. No connection is category system, no answer in time is timeout. The output is kept with the failure.

Requests that may change something carry the step's idempotency key as Idempotency-Key, equal over all attempts. GET, HEAD and OPTIONS count as idempotent, anything else as at_least_once. When a redirect leads to another host, the headers given here are not sent there.`

const (
	httpTimeout   = 30 * time.Second
	httpRedirects = 10
	httpMaxBytes  = 8 << 20
	httpMostBytes = 12 << 20 // its base64 fits a value
	keyHeader     = "Idempotency-Key"
)

// HTTP is one request.
type HTTP struct {
	URL             string         `param:"required" doc:"absolute http or https address"`
	Method          string         `default:"\"GET\"" doc:"GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"`
	Headers         map[string]any `doc:"names and values"`
	Query           map[string]any `doc:"added to the address; a list repeats its name"`
	Body            any            `type:"string" doc:"the body as a text"`
	JSON            any            `doc:"a value to send as JSON, in place of body"`
	Timeout         any            `type:"duration" default:"30" doc:"for the whole exchange, body included"`
	Expect          any            `doc:"what counts as success: a status, a class as in 2xx, or a list of them; default: below 400"`
	FollowRedirects bool           `default:"true" doc:"go where a 3xx leads, at most 10 times"`
	MaxBytes        int64          `default:"8388608" doc:"refuse a larger body; at most 12582912"`

	transport http.RoundTripper
}

type httpResult struct {
	Status   int64             `doc:"the status code"`
	Headers  map[string]string `doc:"names in lower case; repeated ones joined by a comma"`
	Body     string            `doc:"the text, or base64"`
	Encoding string            `doc:"of body: text or base64"`
	JSON     any               `doc:"the body's value, where the answer says it is JSON; else null"`
	URL      string            `doc:"where the answer came from, after redirects"`
	Duration float64           `doc:"of the whole exchange, in seconds"`
}

func httpAction(cfg Config) executor.Action {
	if cfg.Transport == nil {
		cfg.Transport = http.DefaultTransport
		if t, ok := http.DefaultTransport.(*http.Transport); ok {
			own := t.Clone()
			own.MaxIdleConnsPerHost = 16
			own.IdleConnTimeout = 30 * time.Second
			cfg.Transport = executor.Guarded(own)
		}
	}
	a := prepare(executor.NewAction[HTTP](executor.Describe{Name: "http", Doc: httpDoc, Returns: httpResult{}}),
		func(h *HTTP) { h.transport = cfg.Transport })
	a.Spec.Secret = []string{"headers"}
	a.Effect = func(params map[string]any) pipeline.Effect {
		m, given := params["method"].(string)
		if m = strings.ToUpper(m); !given || safe(m) {
			return pipeline.EffectIdempotent
		}
		return pipeline.EffectAtLeastOnce
	}
	return a
}

// safe reports whether a method only asks.
func safe(method string) bool {
	return method == http.MethodGet || method == http.MethodHead || method == http.MethodOptions
}

// Run sends the request once; retries are the step's.
func (h HTTP) Run(ctx context.Context, env executor.Env) (executor.Output, error) {
	limit, err := duration("timeout", h.Timeout)
	if err != nil {
		return executor.Output{}, err
	}
	if limit == 0 {
		limit = httpTimeout
	}
	if h.MaxBytes <= 0 || h.MaxBytes > httpMostBytes {
		return executor.Output{}, invalid("parameter max_bytes is %d; it can be 1 to %d", h.MaxBytes, httpMostBytes)
	}
	allowed, err := statuses(h.Expect)
	if err != nil {
		return executor.Output{}, err
	}
	timed, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	req, err := h.request(timed, env)
	if err != nil {
		return executor.Output{}, err
	}
	name := req.Method + " " + publicURL(req.URL)
	began := time.Now()
	client := http.Client{Transport: h.transport, CheckRedirect: h.redirect}
	resp, err := client.Do(req)
	var body []byte
	if err == nil {
		body, err = io.ReadAll(io.LimitReader(resp.Body, h.MaxBytes+1))
		resp.Body.Close()
	}
	took := time.Since(began)
	switch {
	case err == nil:
	case ctx.Err() != nil:
		return executor.Output{}, ended(ctx)
	case timed.Err() != nil:
		return executor.Output{}, pipeline.Failuref(pipeline.CategoryTimeout, "%s gave no whole answer within %s", name, limit)
	default:
		return executor.Output{}, h.unreachable(name, err)
	}
	env.Log("system", fmt.Sprintf("%s: %s, %s in %s\n", name, resp.Status, size(int64(len(body))), took.Round(time.Millisecond)))
	if int64(len(body)) > h.MaxBytes {
		return executor.Output{}, tooLarge("%s answered with a body of more than %s", name, size(h.MaxBytes))
	}
	out := executor.Output{Value: h.result(resp, body, took)}
	ok := resp.StatusCode < 400
	if allowed != nil {
		ok = allowed(resp.StatusCode)
	}
	if !ok {
		return out, refusal(name, resp, body)
	}
	return out, nil
}

func (h HTTP) request(ctx context.Context, env executor.Env) (*http.Request, error) {
	u, err := url.Parse(strings.TrimSpace(h.URL))
	if err != nil {
		return nil, invalid("parameter url is not an address: %v", errors.Unwrap(err))
	}
	if u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return nil, invalid("parameter url must be an absolute http or https address")
	}
	if len(h.Query) > 0 {
		q := u.Query()
		for name, v := range h.Query {
			if l, ok := v.([]any); ok {
				for _, e := range l {
					q.Add(name, expr.Text(e))
				}
			} else if v != nil {
				q.Set(name, expr.Text(v))
			}
		}
		u.RawQuery = q.Encode()
	}
	var body io.Reader
	kind := ""
	switch b := h.Body.(type) {
	case nil:
		if h.JSON != nil {
			body, kind = bytes.NewReader(pipeline.EncodeValue(h.JSON)), "application/json"
		}
	case string:
		if h.JSON != nil {
			return nil, invalid("a request has either body or json, not both")
		}
		body, kind = strings.NewReader(b), "text/plain; charset=utf-8"
	default:
		return nil, invalid("parameter body must be a text; json sends a value")
	}
	method := strings.ToUpper(h.Method)
	if !slices.Contains([]string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}, method) {
		return nil, invalid("parameter method is %q; it can be GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS", h.Method)
	}
	req, err := http.NewRequestWithContext(ctx, method, u.String(), body)
	if err != nil {
		return nil, invalid("parameter url is not an address: %v", err)
	}
	req.Header.Set("User-Agent", "orchestrator")
	if kind != "" {
		req.Header.Set("Content-Type", kind)
	}
	propagation.TraceContext{}.Inject(ctx, propagation.HeaderCarrier(req.Header))
	if !safe(method) {
		req.Header.Set(keyHeader, env.IdempotencyKey())
	}
	for name, v := range h.Headers {
		if v == nil {
			continue
		}
		if strings.EqualFold(name, "host") {
			req.Host = expr.Text(v)
			continue
		}
		req.Header.Set(name, expr.Text(v))
	}
	return req, nil
}

var errRedirects = errors.New("redirected too often")

// redirect follows while it may; what the step's author meant for one host is
// not sent to another.
func (h HTTP) redirect(req *http.Request, via []*http.Request) error {
	switch {
	case !h.FollowRedirects:
		return http.ErrUseLastResponse
	case len(via) > httpRedirects:
		return errRedirects
	}
	first := via[0].URL
	if req.URL.Host != first.Host || req.URL.Scheme != first.Scheme {
		for name := range h.Headers {
			switch http.CanonicalHeaderKey(name) {
			case "Accept", "Accept-Language", "Content-Type", "User-Agent":
			default:
				req.Header.Del(name)
			}
		}
		for _, name := range append([]string{keyHeader}, propagation.TraceContext{}.Fields()...) {
			req.Header.Del(name)
		}
	}
	return nil
}

// unreachable is the failure of a request without an answer.
func (h HTTP) unreachable(name string, err error) error {
	if u, ok := errors.AsType[*url.Error](err); ok {
		err = u.Err // name says the rest, without what may be secret in the address
	}
	switch {
	case errors.Is(err, errRedirects):
		f := pipeline.Failuref(pipeline.CategoryFailed, "%s was redirected more than %d times", name, httpRedirects)
		f.Reason = "too_many_redirects"
		return f
	case strings.HasPrefix(err.Error(), "net/http: invalid header"):
		return invalid("%s: %v", name, err)
	case errors.Is(err, executor.ErrNotPublic):
		f := invalid("%s: %v; a host that a model chooses must be public, or be named in security.private_hosts of the configuration", name, err)
		f.Reason = "private_address"
		return f
	}
	return pipeline.Failuref(pipeline.CategorySystem, "%s: %v", name, err)
}

func (h HTTP) result(resp *http.Response, body []byte, took time.Duration) map[string]any {
	headers := make(map[string]any, len(resp.Header))
	for name, values := range resp.Header {
		headers[strings.ToLower(name)] = strings.ToValidUTF8(strings.Join(values, ", "), "\ufffd")
	}
	content, encoding := textOrBase64(body)
	out := map[string]any{
		"status": int64(resp.StatusCode), "headers": headers, "body": content, "encoding": encoding,
		"json": nil, "url": publicURL(resp.Request.URL), "duration": took.Seconds(),
	}
	kind, _, err := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	if err == nil && (kind == "application/json" || strings.HasSuffix(kind, "+json")) {
		if v, err := pipeline.DecodeValue(body); err == nil {
			out["json"] = v
		}
	}
	return out
}

// refusal is the failure that an answer's status means.
func refusal(name string, resp *http.Response, body []byte) *pipeline.Failure {
	f := pipeline.Failuref(pipeline.CategoryFailed, "%s answered %s", name, resp.Status)
	f.Reason = "http_" + strconv.Itoa(resp.StatusCode)
	switch code := resp.StatusCode; {
	case code == http.StatusRequestTimeout || code == http.StatusGatewayTimeout:
		f.Kind = pipeline.CategoryTimeout
	case code == http.StatusTooManyRequests:
		f.Kind = pipeline.CategoryRateLimit
	case code >= 500:
		f.Kind = pipeline.CategorySystem
	}
	if text, encoding := textOrBase64(body); encoding == "text" && strings.TrimSpace(text) != "" {
		f.Message += ": " + head(strings.TrimSpace(text), 500)
	}
	if after := resp.Header.Get("Retry-After"); after != "" {
		if d, ok := spec.Duration(after); ok {
			f.RetryAfter = d.Seconds()
		} else if at, err := http.ParseTime(after); err == nil {
			f.RetryAfter = max(0, time.Until(at).Seconds())
		}
	}
	return f
}

// publicURL is an address without what may be secret in it.
func publicURL(u *url.URL) string {
	short := url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path}
	return short.String()
}

// statuses reads expect: 200, "2xx", [200, 404, "3xx"]. Nil means the default.
func statuses(v any) (func(code int) bool, error) {
	var codes, classes []int
	list, ok := v.([]any)
	if !ok {
		list = []any{v}
	}
	if v == nil {
		return nil, nil
	}
	for _, e := range list {
		n, isInt := e.(int64)
		s, isText := e.(string)
		if isText {
			if i, err := strconv.ParseInt(s, 10, 64); err == nil {
				n, isInt = i, true
			}
		}
		switch {
		case isInt && n >= 100 && n <= 599:
			codes = append(codes, int(n))
		case isText && len(s) == 3 && s[0] >= '1' && s[0] <= '5' && strings.EqualFold(s[1:], "xx"):
			classes = append(classes, int(s[0]-'0'))
		default:
			return nil, invalid("parameter expect holds %s; write a status as 404, or a class as 2xx", pipeline.EncodeValue(e))
		}
	}
	return func(code int) bool { return slices.Contains(codes, code) || slices.Contains(classes, code/100) }, nil
}
