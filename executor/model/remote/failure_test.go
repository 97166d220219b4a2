package remote

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/orchestrator-project/orchestrator/executor/model"
)

func TestRetryAfter(t *testing.T) {
	now := time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
	for _, c := range []struct {
		name, value string
		want        time.Duration
	}{
		{"Retry-After", "3", 3 * time.Second},
		{"Retry-After", " 0.5 ", 500 * time.Millisecond},
		{"Retry-After", "-3", 0},
		{"Retry-After", "NaN", 0},
		{"Retry-After", "soon", 0},
		{"Retry-After", "1e300", maxRetryAfter},
		{"Retry-After", "Sat, 21 Nov 2026 12:01:30 GMT", 90 * time.Second},
		{"Retry-After", "Sat, 21 Nov 2026 11:00:00 GMT", 0},
		{"Retry-After-Ms", "250", 250 * time.Millisecond},
		{"X-Other", "3", 0},
	} {
		if got := RetryAfter(http.Header{c.name: {c.value}}, now); got != c.want {
			t.Errorf("%s: %s gives %v, want %v", c.name, c.value, got, c.want)
		}
	}
	both := http.Header{"Retry-After": {"1"}, "Retry-After-Ms": {"1500"}}
	if got := RetryAfter(both, now); got != 1500*time.Millisecond {
		t.Errorf("the exact one is passed over: %v", got)
	}
	if got := RetryAfter(nil, now); got != 0 {
		t.Errorf("without headers: %v", got)
	}
}

// TestRefusalsAreToldApart holds the bodies as the services send them.
func TestRefusalsAreToldApart(t *testing.T) {
	for _, c := range []struct {
		from   string
		status int
		body   string
		class  string
	}{
		{"Anthropic", 400, `{"type":"error","error":{"type":"invalid_request_error","message":"prompt is too long: 210000 tokens > 200000 maximum"}}`, model.ClassContextLength},
		{"Anthropic", 400, `{"type":"error","error":{"type":"invalid_request_error","message":"input length and ` + "`max_tokens`" + ` exceed context limit: 190000 + 32000 > 200000"}}`, model.ClassContextLength},
		{"Anthropic", 400, `{"type":"error","error":{"type":"invalid_request_error","message":"Your credit balance is too low to access the API."}}`, model.ClassQuota},
		{"Anthropic", 400, `{"type":"error","error":{"type":"invalid_request_error","message":"Output blocked by content filtering policy"}}`, model.ClassFiltered},
		{"Anthropic", 400, `{"type":"error","error":{"type":"invalid_request_error","message":"messages.1: roles must alternate"}}`, model.ClassInvalid},
		{"Anthropic", 413, `{"type":"error","error":{"type":"request_too_large","message":"Request exceeds the maximum size"}}`, model.ClassInvalid},
		{"Anthropic", 529, `{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}`, model.ClassOverloaded},
		{"Anthropic", 0, `{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}`, model.ClassOverloaded},
		{"Anthropic", 0, `{"type":"error","error":{"type":"api_error","message":"Internal server error"}}`, model.ClassServer},
		{"OpenAI", 400, `{"error":{"message":"This model's maximum context length is 128000 tokens.","type":"invalid_request_error","param":"messages","code":"context_length_exceeded"}}`, model.ClassContextLength},
		{"OpenAI", 429, `{"error":{"message":"You exceeded your current quota, please check your plan and billing details.","type":"insufficient_quota","code":"insufficient_quota"}}`, model.ClassQuota},
		{"OpenAI", 429, `{"error":{"message":"Rate limit reached for gpt-5","type":"tokens","code":"rate_limit_exceeded"}}`, model.ClassRateLimit},
		{"OpenAI", 400, `{"error":{"message":"Invalid prompt: your prompt was flagged as potentially violating our usage policy.","code":"invalid_prompt"}}`, model.ClassFiltered},
		{"OpenAI", 401, `{"error":{"message":"Incorrect API key provided: sk-a***b.","code":"invalid_api_key"}}`, model.ClassAuth},
		{"OpenAI", 404, `{"error":{"message":"The model does not exist","code":"model_not_found"}}`, model.ClassInvalid},
		{"OpenAI", 409, `{"error":{"message":"Conflict"}}`, model.ClassServer},
		{"OpenAI", 0, `{"error":{"message":"The server had an error","type":"server_error","code":null}}`, model.ClassServer},
		{"OpenRouter", 402, `{"error":{"code":402,"message":"Insufficient credits"}}`, model.ClassQuota},
		{"OpenRouter", 0, `{"id":"x","error":{"code":429,"message":"upstream is busy"},"choices":[]}`, model.ClassRateLimit},
		{"Ollama", 404, `{"error":"model \"x\" not found, try pulling it first"}`, model.ClassInvalid},
		{"llama.cpp", 400, `{"error":{"code":400,"message":"the request exceeds the available context size","type":"exceed_context_size_error"}}`, model.ClassContextLength},
		{"vLLM", 400, `{"object":"error","message":"This model's maximum context length is 4096 tokens.","type":"BadRequestError","code":400}`, model.ClassContextLength},
		{"FastAPI", 422, `{"detail":[{"loc":["body"],"msg":"field required"}]}`, model.ClassInvalid},
		{"Google", 400, `{"error":{"code":400,"message":"The input token count (1200000) exceeds the maximum number of tokens allowed (1048576).","status":"INVALID_ARGUMENT"}}`, model.ClassContextLength},
		{"Google", 400, `{"error":{"code":400,"message":"API key not valid. Please pass a valid API key.","status":"INVALID_ARGUMENT","details":[{"reason":"API_KEY_INVALID"}]}}`, model.ClassAuth},
		{"Google", 429, `[{"error":{"code":429,"message":"You exceeded your current quota","status":"RESOURCE_EXHAUSTED"}}]`, model.ClassRateLimit},
		{"Google", 503, `{"error":{"code":503,"message":"The model is overloaded.","status":"UNAVAILABLE"}}`, model.ClassOverloaded},
		{"Google", 403, `{"error":{"code":403,"message":"Permission denied","status":"PERMISSION_DENIED"}}`, model.ClassAuth},
		{"a proxy", 502, `<html><body>Bad Gateway</body></html>`, model.ClassServer},
		{"a proxy", 504, ``, model.ClassTimeout},
		{"anybody", 408, ``, model.ClassServer},
		{"anybody", 425, `null`, model.ClassServer},
		{"anybody", 500, `{"error":{"message":"the context window broke"}}`, model.ClassServer},
		{"a captive portal", 302, ``, model.ClassInvalid},
	} {
		r := RefusalIn([]byte(c.body))
		r.Status = c.status
		e := Service{Name: "service"}.Refused(r)
		if e.Class != c.class || e.Status != c.status || e.Message == "service: " {
			t.Errorf("%s %d %s: got class %s, %q; want %s", c.from, c.status, c.body, e.Class, e.Message, c.class)
		}
	}
}

func TestRefusalTellsHowLongToWait(t *testing.T) {
	body := `{"error":{"code":429,"status":"RESOURCE_EXHAUSTED","message":"quota","details":[{"@type":"type.googleapis.com/google.rpc.RetryInfo","retryDelay":"34.5s"}]}}`
	answer := &http.Response{StatusCode: http.StatusTooManyRequests, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(body))}
	if r := RefusalOf(answer); r.RetryAfter != 34500*time.Millisecond {
		t.Errorf("got %v", r.RetryAfter)
	}
	answer = &http.Response{StatusCode: http.StatusTooManyRequests, Header: http.Header{"Retry-After": {"2"}}, Body: io.NopCloser(strings.NewReader(body))}
	if r := RefusalOf(answer); r.RetryAfter != 2*time.Second {
		t.Errorf("the header is passed over: %v", r.RetryAfter)
	}
}

func TestBrokenConnections(t *testing.T) {
	s := Service{Name: "service", Key: func() string { return "sk-secret" }}
	err := s.Failed(t.Context(), &url.Error{Op: "Post", URL: "https://service.test/sk-secret", Err: io.EOF})
	if err.Class != model.ClassNetwork || errors.Is(err, io.EOF) || !errors.Is(err, io.ErrUnexpectedEOF) || strings.Contains(err.Error(), "sk-secret") {
		t.Errorf("got %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Failed(ctx, io.ErrUnexpectedEOF); err.Class != model.ClassCancelled || !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	late, cancel := context.WithDeadline(t.Context(), time.Unix(0, 0))
	defer cancel()
	if err := s.Failed(late, io.ErrUnexpectedEOF); err.Class != model.ClassTimeout || !err.Retryable() {
		t.Errorf("got %v", err)
	}
}
