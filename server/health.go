package server

import (
	"context"
	"errors"
	"net/http"
	"sync"
	"time"

	"github.com/orchestrator-project/orchestrator/pipeline"
)

// The times of a readiness check.
const (
	pingTimeout = 2 * time.Second
	pingKept    = time.Second // an answer is good for so long
)

// health remembers the last answer of the store.
type health struct {
	mu   sync.Mutex // guards what follows; held during a ping, so that there is one at a time
	at   time.Time
	last error
}

// serveHealth says that the process is alive.
func (s *Server) serveHealth(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, http.StatusOK, map[string]any{"status": "ok"})
}

// serveReady says whether requests can be served.
func (s *Server) serveReady(w http.ResponseWriter, r *http.Request) {
	if s.hub.isClosing() {
		writeJSON(w, http.StatusServiceUnavailable, map[string]any{"status": "unavailable", "reason": "the server is shutting down"})
		return
	}
	if err := s.ping(r.Context()); err != nil {
		unready(w, "store", err)
		return
	}
	if s.cfg.Ready != nil {
		if err := s.cfg.Ready(r.Context()); err != nil {
			unready(w, "engine", err)
			return
		}
	}
	writeJSON(w, http.StatusOK, map[string]any{"status": "ok"})
}

func unready(w http.ResponseWriter, part string, err error) {
	reason := "the " + part + " does not answer"
	var pe *pipeline.Error
	if errors.As(err, &pe) && pe.Kind != pipeline.Internal && pe.Text != "" {
		reason = part + ": " + pe.Text
	}
	writeJSON(w, http.StatusServiceUnavailable, map[string]any{"status": "unavailable", "reason": reason})
}

func (s *Server) ping(ctx context.Context) error {
	h := &s.health
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.at.IsZero() && time.Since(h.at) < pingKept {
		return h.last
	}
	// Not under the request's context: its end would say nothing of the store.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), pingTimeout)
	defer cancel()
	was := h.last
	h.last = s.cfg.Store.Ping(ctx)
	h.at = time.Now()
	if (h.last == nil) != (was == nil) {
		s.log.Warn("readiness changed", "ready", h.last == nil, "err", h.last)
	}
	return h.last
}

func writeJSON(w http.ResponseWriter, code int, v map[string]any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(code)
	_, _ = w.Write(append(pipeline.EncodeValue(v), '\n')) // the client may be gone
}
