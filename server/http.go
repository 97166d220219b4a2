package server

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"runtime/debug"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"
	"google.golang.org/grpc/codes"
)

// bodyTimeout is how long a REST request's body may take to arrive.
const bodyTimeout = time.Minute

// What is taken in of a body that is too large.
const (
	swallowLimit   = 64 << 20
	swallowTimeout = 5 * time.Second
)

// Handler serves everything on one port: gRPC, REST under /v1/, the feed of
// events as WebSocket, the plain paths, and the dashboard (which may be nil)
// on all others.
func (s *Server) Handler(dashboard http.Handler) http.Handler {
	if dashboard == nil {
		dashboard = http.HandlerFunc(noSuchPath)
	}
	gateway := s.gateway()
	rest := s.traced("/v1", func(w http.ResponseWriter, r *http.Request) { s.serveREST(w, r, gateway) })
	hooks := s.traced("/v1/hooks", s.serveHook)
	plain := map[string]http.Handler{
		"/healthz":      http.HandlerFunc(s.serveHealth),
		"/readyz":       http.HandlerFunc(s.serveReady),
		"/metrics":      promhttp.HandlerFor(s.cfg.Metrics, promhttp.HandlerOpts{}),
		"/openapi.json": http.HandlerFunc(s.serveOpenAPI),
		"/docs":         http.HandlerFunc(s.serveDocs),
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		out := &response{ResponseWriter: w}
		id := requestID(r.Header.Get("X-Request-Id"))
		r.Header.Set("X-Request-Id", id)
		h := out.Header()
		h.Set("X-Request-Id", id)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "same-origin")
		route := "dashboard"
		defer func() {
			if p := recover(); p != nil {
				if p == http.ErrAbortHandler { //nolint:errorlint // it is never wrapped
					panic(p)
				}
				s.log.Error("request failed", "request", id, "route", route, "panic", p, "stack", string(debug.Stack()))
				reject(out, http.StatusInternalServerError, codes.Internal, "internal", "internal error; the server's log has it under request %s", id)
			}
			s.metrics.served(route, out.status())
		}()
		switch {
		case isGRPC(r):
			route = "grpc"
			if !s.safe(out, r) {
				return
			}
			if !s.gate.enter() {
				reject(out, 0, codes.Unavailable, "shutting_down", "the server is shutting down")
				return
			}
			defer s.gate.leave()
			// It sets its own headers, and none of a browser's concern.
			clear(h)
			s.grpc.ServeHTTP(out, r.WithContext(context.WithValue(r.Context(), responseKey{}, out)))
		case strings.HasPrefix(r.URL.Path, hookPath):
			route = "webhook"
			h.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
			h.Set("Cache-Control", "no-store")
			hooks.ServeHTTP(out, r)
		case !s.safe(out, r):
			route = "refused"
		case s.cfg.Profiling && strings.HasPrefix(r.URL.Path, profilePath):
			route = "profile"
			serveProfile(out, r)
		case plain[r.URL.Path] != nil:
			route = r.URL.Path
			if changes(r.Method) {
				h.Set("Allow", "GET, HEAD")
				reject(out, http.StatusMethodNotAllowed, codes.Unimplemented, "method_not_allowed", "%s only answers GET", r.URL.Path)
				return
			}
			h.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
			plain[r.URL.Path].ServeHTTP(out, r)
		case strings.HasPrefix(r.URL.Path, "/v1/"):
			route = "rest"
			h.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
			h.Set("Cache-Control", "no-store")
			if run, ok := webSocketPath(r.URL.Path); ok {
				route = "websocket"
				s.serveWebSocket(out, r, run)
				return
			}
			if s.serveArchive(out, r) {
				return
			}
			rest.ServeHTTP(out, r)
		default:
			r.Body = http.MaxBytesReader(out, r.Body, int64(s.cfg.Limits.Request))
			dashboard.ServeHTTP(out, r)
		}
	})
}

func noSuchPath(w http.ResponseWriter, _ *http.Request) {
	reject(w, 0, codes.NotFound, "no_such_path", "there is nothing at this path")
}

func isGRPC(r *http.Request) bool {
	return r.ProtoMajor == 2 && strings.HasPrefix(r.Header.Get("Content-Type"), "application/grpc")
}

// serveREST reads the body, within the limit, and hands over to the gateway.
func (s *Server) serveREST(w http.ResponseWriter, r *http.Request, gateway http.Handler) {
	if !s.gate.enter() {
		reject(w, 0, codes.Unavailable, "shutting_down", "the server is shutting down")
		return
	}
	defer s.gate.leave()
	limit := s.bodyLimit(r)
	rc := http.NewResponseController(w)
	if r.ContentLength > limit {
		swallow(rc, w, r)
		reject(w, http.StatusRequestEntityTooLarge, codes.OutOfRange, "request_too_large", "the request is over %d bytes", limit)
		return
	}
	if r.ContentLength != 0 && changes(r.Method) {
		if !isJSON(r) {
			reject(w, http.StatusUnsupportedMediaType, codes.InvalidArgument, "unsupported_media_type", "send the header Content-Type: application/json")
			return
		}
		if e := r.Header.Get("Content-Encoding"); e != "" && e != "identity" {
			reject(w, http.StatusUnsupportedMediaType, codes.InvalidArgument, "unsupported_media_type", "send the body without Content-Encoding")
			return
		}
	}
	_ = rc.SetReadDeadline(time.Now().Add(bodyTimeout)) // not every writer knows deadlines
	data, err := io.ReadAll(http.MaxBytesReader(w, r.Body, limit))
	_ = rc.SetReadDeadline(time.Time{})
	var large *http.MaxBytesError
	switch {
	case errors.As(err, &large):
		swallow(rc, w, r)
		reject(w, http.StatusRequestEntityTooLarge, codes.OutOfRange, "request_too_large", "the request is over %d bytes", limit)
		return
	case err != nil:
		reject(w, 0, codes.InvalidArgument, "broken_body", "the body did not arrive in full")
		return
	}
	if r.Method == http.MethodPost && r.URL.Path == "/v1/runs" && isDryRun(data) {
		r.URL.Path = "/v1/runs:dryRun"
	}
	if r.Method == http.MethodPost {
		r.URL.Path, data = previewed(r.URL.Path, data)
	}
	r.Body = &body{Reader: bytes.NewReader(data)}
	gateway.ServeHTTP(w, r)
}

// bodyLimit is how many bytes a REST request may have: the files that some of
// them carry come as base64 text.
func (s *Server) bodyLimit(r *http.Request) int64 {
	limit := int64(s.cfg.Limits.Request)
	switch r.URL.Path {
	case "/v1/runs", "/v1/runs:dryRun", "/v1/pipelines", "/v1/pipelines:validate", "/v1/pipelines:explain":
		limit += int64(s.cfg.Limits.Files) * 4 / 3
	}
	if strings.HasPrefix(r.URL.Path, "/v1/runs/") && (strings.HasSuffix(r.URL.Path, ":fork") || strings.HasSuffix(r.URL.Path, ":forkPreview")) {
		limit += int64(s.cfg.Limits.Files) * 4 / 3
	}
	return limit
}

// isDryRun reports whether a request to make a run only asks what would run.
func isDryRun(data []byte) bool {
	var req struct {
		DryRun bool `json:"dry_run"`
	}
	return bytes.Contains(data, []byte(`"dry_run"`)) && json.Unmarshal(data, &req) == nil && req.DryRun
}

// swallow takes in what is left of a body that is refused, within reason. A
// client that is cut off while it still writes seldom gets to the answer.
func swallow(rc *http.ResponseController, w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Connection", "close") // there may be more
	if strings.EqualFold(r.Header.Get("Expect"), "100-continue") {
		return // it asks before it sends
	}
	_ = rc.SetReadDeadline(time.Now().Add(swallowTimeout)) // not every writer knows deadlines
	_, _ = io.CopyN(io.Discard, r.Body, swallowLimit)      // an answer is due either way
}

// body is a request's body in memory; it carries the error of its decoding,
// which the gateway would flatten into a text.
type body struct {
	*bytes.Reader
	err error
}

// Close is for io.ReadCloser.
func (*body) Close() error { return nil }

// response remembers the code of a response and ignores a second one.
type response struct {
	http.ResponseWriter
	code  int
	spare atomic.Int32 // flushes that are left out
}

type responseKey struct{}

// together tells the response of a gRPC request that n messages follow, so that
// they are flushed once: each flush costs a frame, a write to the network and
// several turns of goroutines. A flush too many in between only ends that sooner.
func together(ctx context.Context, n int) {
	if w, ok := ctx.Value(responseKey{}).(*response); ok {
		w.spare.Store(int32(max(n-1, 0))) //nolint:gosec // a stretch of a run's events
	}
}

// WriteHeader sends the code unless one was sent.
func (w *response) WriteHeader(code int) {
	if w.code != 0 {
		return
	}
	if code >= 200 || code == http.StatusSwitchingProtocols {
		w.code = code
	}
	w.ResponseWriter.WriteHeader(code)
}

func (w *response) Write(b []byte) (int, error) {
	if w.code == 0 {
		w.code = http.StatusOK
	}
	return w.ResponseWriter.Write(b)
}

// Flush sends what was written. gRPC asks for this method itself.
func (w *response) Flush() {
	if w.spare.Load() > 0 {
		w.spare.Add(-1)
		return
	}
	if w.code == 0 {
		w.code = http.StatusOK
	}
	_ = http.NewResponseController(w.ResponseWriter).Flush() // the client may be gone
}

// Unwrap is for http.ResponseController and WebSockets.
func (w *response) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w *response) status() int {
	if w.code == 0 {
		return http.StatusOK
	}
	return w.code
}
