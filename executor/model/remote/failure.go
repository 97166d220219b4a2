package remote

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/orchestrator-project/orchestrator/executor/model"
)

// Refusal is what a service says when it gives no answer.
type Refusal struct {
	Status     int      // of HTTP; 0: it came within a stream
	Codes      []string // the service's own words for it, as in rate_limit_error, the narrowest first
	Message    string
	RetryAfter time.Duration // that it asks for; 0: it does not say
}

// maxRetryAfter bounds what a service may ask for; more is a mistake, or a way to
// say never.
const maxRetryAfter = 24 * time.Hour

// Refused is the error for a refusal.
func (s Service) Refused(r Refusal) *model.Error {
	e := &model.Error{Class: classOf(r), Status: r.Status, RetryAfter: r.RetryAfter}
	if r.Status >= 300 && r.Status < 400 {
		r.Message = errRedirect.Error()
	}
	text := s.told(r.Message)
	if text == "" {
		text = s.told(strings.Join(r.Codes, " ") + " " + http.StatusText(r.Status))
	}
	e.Message = s.Name + ": " + text
	if r.Status != 0 {
		e.Message += fmt.Sprintf(" (status %d)", r.Status)
	}
	if r.RetryAfter >= time.Second {
		e.Message += fmt.Sprintf("; it asks to wait for %s", r.RetryAfter.Round(time.Second))
	}
	return e
}

// Failed is the error for a request that got no answer, and for a stream that
// broke. One that is a *model.Error already stays what it is.
func (s Service) Failed(ctx context.Context, err error) *model.Error {
	var (
		known  *model.Error
		ofURL  *url.Error
		ofNet  net.Error
		syntax *json.SyntaxError
		kind   *json.UnmarshalTypeError
	)
	switch {
	case errors.As(err, &known):
		return known
	case ctx.Err() != nil:
		e := &model.Error{Class: model.ClassCancelled, Message: s.Name + ": the call was cancelled", Cause: context.Cause(ctx)}
		if errors.Is(ctx.Err(), context.DeadlineExceeded) {
			e.Class, e.Message = model.ClassTimeout, s.Name+": no answer in time"
		}
		return e
	case errors.Is(err, errRedirect):
		return &model.Error{Class: model.ClassInvalid, Message: s.Name + ": " + errRedirect.Error()}
	case errors.As(err, &syntax), errors.As(err, &kind), errors.Is(err, bufio.ErrTooLong):
		return s.Malformed("%s", err.Error())
	}
	// The URL is the operator's own; who gets the error need not know it.
	if errors.As(err, &ofURL) {
		err = ofURL.Err
	}
	if errors.Is(err, io.EOF) { // to readers of a stream, that would be its proper end
		err = io.ErrUnexpectedEOF
	}
	e := &model.Error{Class: model.ClassNetwork, Message: s.Name + ": the connection failed: " + s.told(err.Error()), Cause: err}
	if errors.As(err, &ofNet) && ofNet.Timeout() {
		e.Class, e.Message = model.ClassTimeout, s.Name+": no answer in time: "+s.told(err.Error())
	}
	return e
}

// Malformed is the error for an answer that is none.
func (s Service) Malformed(format string, args ...any) *model.Error {
	return &model.Error{Class: model.ClassMalformed, Message: s.Name + ": the answer cannot be read: " + s.told(fmt.Sprintf(format, args...))}
}

// Cut is the error for a stream that ended before the answer did.
func (s Service) Cut() *model.Error {
	return &model.Error{Class: model.ClassNetwork, Message: s.Name + ": the stream ended before the answer did"}
}

// Filtered is the error for an answer that the service keeps back as a whole.
func (s Service) Filtered(why string) *model.Error {
	text := s.Name + ": the service refuses the content"
	if why != "" {
		text += ": " + s.told(why)
	}
	return &model.Error{Class: model.ClassFiltered, Message: text}
}

// Invalid is the error for a request that the service cannot take.
func (s Service) Invalid(format string, args ...any) *model.Error {
	return &model.Error{Class: model.ClassInvalid, Message: s.Name + ": " + s.told(fmt.Sprintf(format, args...))}
}

// The words by which services say what no status tells.
var (
	tooLong = []string{
		"context_length_exceeded", "exceed_context_size_error", "model_max_prompt_tokens_exceeded",
		"prompt is too long", "input is too long", "context length", "context window", "context limit", "context size",
		"exceeds the maximum number of tokens", "maximum number of input tokens", "reduce the length of the messages",
	}
	noMoney = []string{
		"insufficient_quota", "billing_error", "billing_hard_limit_reached", "credit balance is too low",
		"insufficient credits", "insufficient balance",
	}
	refused = []string{
		"content_filter", "content_policy_violation", "invalid_prompt", "content filtering policy", "content management policy",
		"violating our usage policy", "responsibleaipolicyviolation", "safety_violation", "prohibited_content",
	}
	noKey = []string{"api_key_invalid", "invalid_api_key", "api key not valid", "api key expired"}
)

// codes are the services' own words, which stand in streams where no status does.
var codes = map[string]string{
	"rate_limit_error": model.ClassRateLimit, "rate_limit_exceeded": model.ClassRateLimit, "resource_exhausted": model.ClassRateLimit,
	"too_many_requests": model.ClassRateLimit,
	"overloaded_error":  model.ClassOverloaded, "unavailable": model.ClassOverloaded, "slow_down": model.ClassOverloaded,
	"service_unavailable": model.ClassOverloaded, "server_overloaded": model.ClassOverloaded,
	"timeout_error": model.ClassTimeout, "deadline_exceeded": model.ClassTimeout,
	"api_error": model.ClassServer, "server_error": model.ClassServer, "internal": model.ClassServer, "internal_error": model.ClassServer,
	"internal_server_error": model.ClassServer, "aborted": model.ClassServer, "unknown": model.ClassServer,
	"authentication_error": model.ClassAuth, "permission_error": model.ClassAuth, "unauthenticated": model.ClassAuth, "permission_denied": model.ClassAuth,
	"billing_error":         model.ClassQuota,
	"invalid_request_error": model.ClassInvalid, "not_found_error": model.ClassInvalid, "request_too_large": model.ClassInvalid,
	"invalid_argument": model.ClassInvalid, "failed_precondition": model.ClassInvalid, "not_found": model.ClassInvalid,
}

func classOf(r Refusal) string {
	said := strings.ToLower(strings.Join(r.Codes, " ") + " " + r.Message)
	says := func(words []string) bool {
		return slices.ContainsFunc(words, func(w string) bool { return strings.Contains(said, w) })
	}
	final := r.Status < 500 && r.Status != http.StatusRequestTimeout && r.Status != http.StatusConflict && r.Status != http.StatusTooEarly
	switch {
	case final && says(noMoney), r.Status == http.StatusPaymentRequired:
		return model.ClassQuota
	case r.Status == http.StatusTooManyRequests:
		return model.ClassRateLimit
	case final && says(noKey), r.Status == http.StatusUnauthorized:
		return model.ClassAuth
	case final && says(refused):
		return model.ClassFiltered
	case r.Status == http.StatusForbidden:
		return model.ClassAuth
	case final && says(tooLong):
		return model.ClassContextLength
	case r.Status == http.StatusServiceUnavailable, r.Status == 529:
		return model.ClassOverloaded
	case r.Status == http.StatusGatewayTimeout:
		return model.ClassTimeout
	case r.Status >= 500, r.Status >= 400 && !final:
		return model.ClassServer
	case r.Status >= 300:
		return model.ClassInvalid
	}
	for _, code := range r.Codes {
		if c, ok := codes[strings.ToLower(code)]; ok {
			return c
		}
		if status, err := strconv.Atoi(code); err == nil && status >= 300 { // some put the status there
			return classOf(Refusal{Status: status, Message: r.Message})
		}
	}
	return model.ClassServer
}

// RetryAfter is how long a service asks to wait: retry-after-ms, or Retry-After in
// seconds or as a date; 0: it does not say.
func RetryAfter(h http.Header, now time.Time) time.Duration {
	wait := func(d time.Duration) time.Duration { return max(0, min(d, maxRetryAfter)) }
	seconds := func(text string, unit time.Duration) (time.Duration, bool) {
		n, err := strconv.ParseFloat(strings.TrimSpace(text), 64)
		if err != nil || n != n {
			return 0, false
		}
		return wait(time.Duration(min(max(n, 0), maxRetryAfter.Seconds()*1000) * float64(unit))), true
	}
	if d, ok := seconds(h.Get("Retry-After-Ms"), time.Millisecond); ok {
		return d
	}
	if d, ok := seconds(h.Get("Retry-After"), time.Second); ok {
		return d
	}
	if at, err := http.ParseTime(h.Get("Retry-After")); err == nil {
		return wait(at.Sub(now))
	}
	return 0
}
