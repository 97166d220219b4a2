package server

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"net/http"
	"strings"
	"time"

	"go.opentelemetry.io/otel/propagation"
	"google.golang.org/grpc/codes"

	"github.com/orchestrator-project/orchestrator/pipeline"
	"github.com/orchestrator-project/orchestrator/pipeline/trigger"
)

const (
	hookPath = "/v1/hooks/"
	// hooksAtOnce bounds the webhooks under way, and so the memory that strangers
	// may take: each has a body of at most Limits.Inputs.
	hooksAtOnce = 64
)

// The labels of runs that a webhook has started.
const (
	labelHook     = "webhook"  // the pipeline's id
	labelDelivery = "delivery" // the sender's id of the delivery
)

// serveHook starts a run of a registered pipeline for a signed request of another
// service. Such requests come from programs that know nothing of this API: the
// signature takes the place of its rules for origins and content types.
func (s *Server) serveHook(w http.ResponseWriter, r *http.Request) {
	if !s.hostAllowed(r.Host) {
		reject(w, http.StatusForbidden, codes.PermissionDenied, "host_not_allowed",
			"the host %s is not served here; add it to the server's hosts if it should be", short(r.Host))
		return
	}
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
		reject(w, http.StatusMethodNotAllowed, codes.Unimplemented, "method_not_allowed", "a webhook only takes POST")
		return
	}
	if !s.gate.enter() {
		reject(w, 0, codes.Unavailable, "shutting_down", "the server is shutting down")
		return
	}
	defer s.gate.leave()
	select {
	case s.hooks <- struct{}{}:
		defer func() { <-s.hooks }()
	default:
		w.Header().Set("Retry-After", "1")
		reject(w, http.StatusTooManyRequests, codes.ResourceExhausted, "too_many_webhooks", "too many webhooks come in at once; send it again")
		return
	}
	run, fresh, err := s.hook(w, r)
	if err != nil {
		st, internal := toStatus(err, r.Header.Get("X-Request-Id"))
		if internal {
			s.log.Error("webhook failed", "request", r.Header.Get("X-Request-Id"), "path", r.URL.Path, "err", err)
		}
		writeError(w, st, 0)
		return
	}
	w.Header().Set("Content-Type", contentJSON)
	if fresh {
		w.WriteHeader(http.StatusAccepted)
	}
	answer := pipeline.EncodeValue(map[string]any{"run_id": string(run.ID), "repeated": !fresh})
	_, _ = w.Write(append(answer, '\n')) // the sender may be gone
}

// hook checks a request from end to end; fresh tells that its run is new. Nothing
// is stored of a request that is refused.
func (s *Server) hook(w http.ResponseWriter, r *http.Request) (run *pipeline.Run, fresh bool, err error) {
	ctx := within(r.Context(), propagation.HeaderCarrier(r.Header))
	c, err := s.registered(ctx, strings.TrimPrefix(r.URL.Path, hookPath), "")
	if pipeline.KindOf(err) == pipeline.NotFound || err == nil && (c.plan.On == nil || c.plan.On.Webhook == nil) {
		return nil, false, fault(pipeline.NotFound, "no_such_webhook", "there is no webhook at this path")
	}
	if err != nil {
		return nil, false, err
	}
	body, err := s.hookBody(w, r)
	if err != nil {
		return nil, false, err
	}
	hook := c.plan.On.Webhook
	secret, ok := s.cfg.Secret(hook.Secret)
	if !ok || secret == "" {
		s.log.Error("a webhook is refused: its secret is not set", "pipeline", c.plan.ID, "secret", hook.Secret, "variable", "ORCHESTRATOR_SECRET_"+hook.Secret)
		return nil, false, fault(pipeline.Unavailable, "webhook_not_ready", "the webhook has no secret yet; the server's log says more")
	}
	delivery, err := trigger.Verify(hook.Scheme, secret, r.Header, body, s.cfg.Now())
	if err != nil {
		return nil, false, fault(pipeline.Unidentified, "bad_signature", "%v", err)
	}
	var value any
	if len(bytes.TrimSpace(body)) > 0 {
		if value, err = pipeline.DecodeValue(body); err != nil {
			return nil, false, refuse("body", "invalid_json", "not a JSON value that can be used: %v", err)
		}
	}
	given, err := trigger.HookInputs(hook, c.plan.Inputs, value, hookHeaders(r.Header))
	if err != nil {
		return nil, false, err
	}
	inputs, err := checkInputs(c.plan, given)
	if err != nil {
		return nil, false, err
	}
	if err := s.unfilled(ctx, c.plan, nil); err != nil {
		return nil, false, err
	}
	sum := sha256.Sum256(body)
	mark := pipeline.NewRunID()
	run, err = s.cfg.Submitter.Submit(ctx, pipeline.Submission{
		Plan: c.plan, PlanDigest: c.digest, Compiled: c.encoded, Source: []byte(c.source), Bundle: c.files, Inputs: inputs,
		Labels:         map[string]string{labelHook: c.plan.ID, labelDelivery: delivery.ID},
		IdempotencyKey: "hook/" + c.plan.ID + "/" + delivery.Key, RequestDigest: pipeline.Digest("sha256:" + hex.EncodeToString(sum[:])),
	})
	if err != nil {
		return nil, false, err
	}
	return run, run.ID > mark, nil // ids grow
}

// hookBody reads the body, as it was signed.
func (s *Server) hookBody(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	limit := int64(s.cfg.Limits.Inputs)
	rc := http.NewResponseController(w)
	tooLarge := func() error {
		swallow(rc, w, r)
		return fault(pipeline.TooLarge, "request_too_large", "the body is over %d bytes", limit)
	}
	if r.ContentLength > limit {
		return nil, tooLarge()
	}
	_ = rc.SetReadDeadline(time.Now().Add(bodyTimeout)) // not every writer knows deadlines
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, limit))
	_ = rc.SetReadDeadline(time.Time{})
	var large *http.MaxBytesError
	switch {
	case errors.As(err, &large):
		return nil, tooLarge()
	case err != nil:
		return nil, fault(pipeline.Invalid, "broken_body", "the body did not arrive in full")
	}
	return body, nil
}

// hookHeaders are the headers by their names in lower case, without those that
// prove or identify somebody.
func hookHeaders(h http.Header) map[string]any {
	out := map[string]any{}
	for name, values := range h {
		switch name {
		case "Authorization", "Cookie", "Proxy-Authorization":
			continue
		}
		out[strings.ToLower(name)] = strings.Join(values, ", ")
	}
	return out
}
