package step

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/orchestrator-project/orchestrator/pipeline"
)

// web is a server for a test, and the Config of a client of its own.
func web(t *testing.T, h http.HandlerFunc) (address string, cfg Config) {
	t.Helper()
	s := httptest.NewServer(h)
	transport := &http.Transport{}
	t.Cleanup(func() {
		transport.CloseIdleConnections()
		s.Close()
	})
	return s.URL, Config{Transport: transport}
}

// echo answers with what it was sent.
func echo(w http.ResponseWriter, r *http.Request) {
	b, _ := io.ReadAll(r.Body)
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.Header().Add("X-Many", "a")
	w.Header().Add("X-Many", "b")
	headers := params{}
	for k, v := range r.Header {
		headers[strings.ToLower(k)] = strings.Join(v, ",")
	}
	_, _ = w.Write(pipeline.EncodeValue(params{
		"method": r.Method, "path": r.URL.Path, "query": r.URL.RawQuery, "body": string(b), "headers": headers, "host": r.Host,
	}))
}

func TestHTTPRequestAndResult(t *testing.T) {
	address, cfg := web(t, echo)
	env, j := testEnv(t)
	v, err := run(t, cfg, env, "http", params{
		"url": address + "/a b?x=1&token=hidden", "method": "post", "json": params{"n": 1}, "query": params{"q": "ä&", "l": []any{1, 2}, "none": nil},
		"headers": params{"X-Number": 5, "X-None": nil, "host": "example.org"},
	})
	if err != nil {
		t.Fatal(err)
	}
	if field(t, v, "status") != int64(200) || field(t, v, "encoding") != "text" || field(t, v, "url") != address+"/a%20b" {
		t.Errorf("got %s", pipeline.EncodeValue(v))
	}
	if d, _ := field(t, v, "duration").(float64); d <= 0 || d > 60 {
		t.Errorf("duration %v", d)
	}
	if h := field(t, v, "headers"); field(t, h, "x-many") != "a, b" {
		t.Errorf("headers %v", h)
	}
	sent := field(t, v, "json")
	same(t, sent, params{
		"method": "POST", "path": "/a b", "query": "l=1&l=2&q=%C3%A4%26&token=hidden&x=1", "body": `{"n":1}`, "host": "example.org",
		"headers": params{
			"accept-encoding": "gzip", "content-length": "7", "content-type": "application/json", "user-agent": "orchestrator",
			"x-number": "5", "idempotency-key": env.IdempotencyKey(),
		},
	})
	if s := j.String(); !strings.HasPrefix(s, "system: POST "+address+"/a%20b: 200 OK, ") || strings.Contains(s, "hidden") {
		t.Errorf("log: %s", s)
	}
}

func TestHTTPKeyIsSentWithChangesOnlyAndYieldsToTheAuthor(t *testing.T) {
	address, cfg := web(t, echo)
	env, _ := testEnv(t)
	for _, c := range []struct {
		method, own string
		want        any
	}{
		{"GET", "", nil},
		{"HEAD", "", nil},
		{"DELETE", "", env.IdempotencyKey()},
		{"PUT", "mine", "mine"},
	} {
		p := params{"url": address, "method": c.method}
		if c.own != "" {
			p["headers"] = params{"idempotency-key": c.own}
		}
		v, err := run(t, cfg, env, "http", p)
		if err != nil {
			t.Fatal(err)
		}
		if c.method == "HEAD" {
			if field(t, v, "body") != "" || field(t, v, "json") != nil {
				t.Errorf("HEAD gives %v", v)
			}
			continue
		}
		if got := field(t, field(t, v, "json"), "headers").(params)["idempotency-key"]; got != c.want {
			t.Errorf("%s: key %v, want %v", c.method, got, c.want)
		}
	}
}

func TestHTTPEffect(t *testing.T) {
	a := find(t, Config{}, "http")
	for method, want := range map[any]pipeline.Effect{
		nil: "idempotent", "GET": "idempotent", "head": "idempotent", "OPTIONS": "idempotent", "POST": "at_least_once", "PUT": "at_least_once", "?": "at_least_once",
	} {
		p := params{}
		if method != nil {
			p["method"] = method
		}
		if got := a.Effect(p); got != want {
			t.Errorf("%v: %s", method, got)
		}
	}
}

func TestHTTPStatuses(t *testing.T) {
	address, cfg := web(t, func(w http.ResponseWriter, r *http.Request) {
		code := 0
		for _, c := range r.URL.Path[1:] {
			code = code*10 + int(c-'0')
		}
		if r.URL.Query().Has("after") {
			w.Header().Set("Retry-After", r.URL.Query().Get("after"))
		}
		w.WriteHeader(code)
		if code != 204 && code != 304 {
			_, _ = io.WriteString(w, " not today\n")
		}
	})
	for _, c := range []struct {
		path     string
		expect   any
		category string // empty: success
	}{
		{"/200", nil, ""},
		{"/204", nil, ""},
		{"/304", nil, ""},
		{"/400", nil, "failed"},
		{"/404", nil, "failed"},
		{"/408", nil, "timeout"},
		{"/429", nil, "rate_limit"},
		{"/500", nil, "system"},
		{"/503", nil, "system"},
		{"/504", nil, "timeout"},
		{"/404", 404, ""},
		{"/404", []any{200, 404}, ""},
		{"/404", "4xx", ""},
		{"/404", "404", ""},
		{"/200", 404, "failed"},
		{"/503", []any{"2xx", 404}, "system"},
		{"/429", "4XX", ""},
	} {
		env, _ := testEnv(t)
		p := params{"url": address + c.path}
		if c.expect != nil {
			p["expect"] = c.expect
		}
		v, err := run(t, cfg, env, "http", p)
		if c.category == "" {
			if err != nil {
				t.Errorf("%s, expect %v: %v", c.path, c.expect, err)
			}
			continue
		}
		f := failed(t, err, c.category, "GET "+address+c.path+" answered "+c.path[1:])
		if !strings.HasSuffix(f.Message, ": not today") || f.Reason != "http_"+c.path[1:] {
			t.Errorf("%s: %q %s", c.path, f.Message, f.Reason)
		}
		if field(t, v, "body") != " not today\n" {
			t.Errorf("%s: the output is %v", c.path, v)
		}
	}
	env, _ := testEnv(t)
	date := time.Now().Add(time.Hour).UTC().Format(http.TimeFormat)
	for after, want := range map[string][2]float64{"7": {7, 7}, date: {3500, 3600}, "soon": {0, 0}, "-5": {0, 0}, "1e300": {0, 0}} {
		_, err := run(t, cfg, env, "http", params{"url": address + "/429", "query": params{"after": after}})
		if f := failed(t, err, "rate_limit", "429"); f.RetryAfter < want[0] || f.RetryAfter > want[1] {
			t.Errorf("Retry-After %s: %v", after, f.RetryAfter)
		}
	}
}

func TestHTTPParameters(t *testing.T) {
	env, _ := testEnv(t)
	for text, p := range map[string]params{
		"absolute http or https":     {"url": "/x"},
		"http or https address":      {"url": "file:///etc/passwd"},
		"not an address":             {"url": "http://a b"},
		"it can be GET":              {"url": "http://x", "method": "BREW"},
		"not both":                   {"url": "http://x", "body": "a", "json": 1},
		"must be a text":             {"url": "http://x", "body": 5},
		"parameter timeout":          {"url": "http://x", "timeout": "long"},
		"parameter max_bytes":        {"url": "http://x", "max_bytes": 1 << 30},
		"parameter expect":           {"url": "http://x", "expect": 99},
		"a class as 2xx":             {"url": "http://x", "expect": []any{"6xx"}},
		"invalid header field name":  {"url": "http://x", "headers": params{"a b": 1}},
		"invalid header field value": {"url": "http://x", "headers": params{"a": "x\r\ny"}},
		"there is no parameter verb": {"url": "http://x", "verb": "GET"},
		"parameter url is missing":   {},
	} {
		_, err := run(t, Config{}, env, "http", p)
		failed(t, err, pipeline.CategoryValidation, text)
	}
}

func TestHTTPServerThatHangs(t *testing.T) {
	address, cfg := web(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/body" {
			_, _ = io.WriteString(w, "begun")
			w.(http.Flusher).Flush()
		}
		<-r.Context().Done()
	})
	env, _ := testEnv(t)
	for _, path := range []string{"/", "/body"} {
		_, err := run(t, cfg, env, "http", params{"url": address + path, "timeout": 0.05})
		failed(t, err, pipeline.CategoryTimeout, "gave no whole answer within 50ms")
	}
	ctx, cancel := context.WithCancel(t.Context())
	r, err := find(t, cfg, "http").Bind(params{"url": address})
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	_, err = r.Run(ctx, env)
	failed(t, err, pipeline.CategoryCancelled, "cancelled")
}

func TestHTTPServerThatSendsAGigabyte(t *testing.T) {
	address, cfg := web(t, func(w http.ResponseWriter, _ *http.Request) {
		chunk := make([]byte, 1<<20)
		for range 1 << 10 {
			if _, err := w.Write(chunk); err != nil {
				return
			}
		}
	})
	env, _ := testEnv(t)
	_, err := run(t, cfg, env, "http", params{"url": address})
	if f := failed(t, err, "failed", "a body of more than 8 MiB"); f.Reason != reasonTooLarge {
		t.Errorf("reason %s", f.Reason)
	}
}

func TestHTTPRedirects(t *testing.T) {
	other, cfg := web(t, echo)
	other = strings.Replace(other, "127.0.0.1", "localhost", 1)
	address, _ := web(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/loop":
			http.Redirect(w, r, "/loop", http.StatusFound)
		case "/away":
			http.Redirect(w, r, other+"/x", http.StatusTemporaryRedirect)
		case "/near":
			http.Redirect(w, r, "/here", http.StatusTemporaryRedirect)
		default:
			echo(w, r)
		}
	})
	env, _ := testEnv(t)
	_, err := run(t, cfg, env, "http", params{"url": address + "/loop"})
	if f := failed(t, err, "failed", "redirected more than 10 times"); f.Reason != "too_many_redirects" {
		t.Errorf("reason %s", f.Reason)
	}
	v, err := run(t, cfg, env, "http", params{"url": address + "/loop", "follow_redirects": false})
	if err != nil || field(t, v, "status") != int64(302) || field(t, field(t, v, "headers"), "location") != "/loop" {
		t.Errorf("got %v, %v", v, err)
	}
	post := params{"url": address + "/near", "method": "POST", "body": "x", "headers": params{"Private-Token": "t", "Authorization": "Bearer t"}}
	v, err = run(t, cfg, env, "http", post)
	if err != nil {
		t.Fatal(err)
	}
	h, _ := field(t, field(t, v, "json"), "headers").(params)
	if h["private-token"] != "t" || h["authorization"] != "Bearer t" || h["idempotency-key"] == nil {
		t.Errorf("on the same host the headers go along: %v", h)
	}
	post["url"] = address + "/away"
	v, err = run(t, cfg, env, "http", post)
	if err != nil {
		t.Fatal(err)
	}
	h, _ = field(t, field(t, v, "json"), "headers").(params)
	if h["private-token"] != nil || h["authorization"] != nil || h["idempotency-key"] != nil || field(t, field(t, v, "json"), "body") != "x" {
		t.Errorf("another host got %v", h)
	}
}

func TestHTTPBodies(t *testing.T) {
	address, cfg := web(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", r.URL.Query().Get("type"))
		_, _ = io.WriteString(w, r.URL.Query().Get("body"))
	})
	env, _ := testEnv(t)
	for _, c := range []struct {
		kind, body string
		want       params
	}{
		{"application/json", `{"a":1}`, params{"json": params{"a": 1}, "encoding": "text"}},
		{"application/problem+json", `[1]`, params{"json": []any{1}, "encoding": "text"}},
		{"application/json", `{`, params{"json": nil, "encoding": "text"}},
		{"text/plain", `{"a":1}`, params{"json": nil, "encoding": "text"}},
		{"image/png", "\xff\x00", params{"json": nil, "encoding": "base64", "body": "/wA="}},
	} {
		r, err := find(t, cfg, "http").Bind(params{"url": address, "query": params{"type": c.kind, "body": c.body}})
		if err != nil {
			t.Fatal(err)
		}
		out, err := r.Run(t.Context(), env)
		if err != nil {
			t.Fatal(err)
		}
		for k, want := range c.want {
			same(t, field(t, out.Value, k), want)
		}
	}
}

func TestHTTPNoConnection(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(echo))
	s.Close()
	env, _ := testEnv(t)
	_, err := run(t, Config{Transport: &http.Transport{DisableKeepAlives: true}}, env, "http", params{"url": s.URL + "/?token=hidden"})
	if f := failed(t, err, pipeline.CategorySystem, "connection refused"); strings.Contains(f.Message, "hidden") {
		t.Errorf("message: %s", f.Message)
	}
}
