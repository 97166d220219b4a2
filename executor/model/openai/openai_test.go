package openai

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/orchestrator-project/orchestrator/executor/model"
	"github.com/orchestrator-project/orchestrator/pipeline"
)

// lines makes a stream of events of their data.
func lines(data ...string) string {
	var b strings.Builder
	for _, d := range data {
		b.WriteString("data: " + strings.ReplaceAll(d, "\n", " ") + "\n\n")
	}
	return b.String()
}

// ask asks a service that answers with a stream; sent is what it was sent.
func ask(t *testing.T, api, stream string, r *model.Request) (a *model.Response, sent map[string]any, err error) {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		body, err := io.ReadAll(q.Body)
		if err != nil || json.Unmarshal(body, &sent) != nil {
			t.Errorf("the request is %s, %v", body, err)
		}
		w.Header().Set("Content-Type", "text/event-stream; charset=utf-8")
		_, _ = io.WriteString(w, stream)
	}))
	defer s.Close()
	stream1, err := New(Config{BaseURL: s.URL + "/v1", API: api}).Call(t.Context(), r)
	if err != nil {
		return nil, sent, err
	}
	a, err = model.Drain(stream1, nil)
	return a, sent, err
}

func said(text string) *model.Request {
	return &model.Request{Model: "local", Messages: []model.Message{model.UserText(text)}}
}

// TestCompatibleServices holds the streams of services that leave things out, or
// do them in their own way.
func TestCompatibleServices(t *testing.T) {
	for name, c := range map[string]struct {
		stream string
		text   string
		stop   string
		calls  []string // name and arguments
		usage  *pipeline.Usage
	}{
		"no usage, no DONE": {
			stream: lines(`{"choices":[{"index":0,"delta":{"content":"hi"}}]}`, `{"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}`),
			text:   "hi", stop: model.StopEnd,
		},
		"usage with each chunk": {
			stream: lines(`{"choices":[{"index":0,"delta":{"content":"hi"}}],"usage":{"prompt_tokens":3,"completion_tokens":1}}`,
				`{"choices":[{"index":0,"delta":{"content":""},"finish_reason":"length"}],"usage":{"prompt_tokens":3,"completion_tokens":2}}`, `[DONE]`),
			text: "hi", stop: model.StopMaxTokens, usage: &pipeline.Usage{InputTokens: 3, OutputTokens: 2},
		},
		"calls at once, without ids, all numbered alike": {
			stream: lines(`{"choices":[{"index":0,"delta":{"role":"assistant","content":null,"tool_calls":[
				{"index":0,"function":{"name":"a","arguments":"{\"x\":1}"}},{"index":0,"function":{"name":"b","arguments":"{}"}}]},"finish_reason":"stop"}]}`, `[DONE]`),
			stop: model.StopTools, calls: []string{`a{"x":1}`, `b{}`},
		},
		"the name said again with each part": {
			stream: lines(`{"choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"id":"1","function":{"name":"a","arguments":"{\"x\""}}]}}]}`,
				`{"choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"id":"1","function":{"name":"a","arguments":":1}"}}]},"finish_reason":"tool_calls"}]}`, `[DONE]`),
			stop: model.StopTools, calls: []string{`a{"x":1}`},
		},
		"interleaved calls": {
			stream: lines(`{"choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"id":"1","function":{"name":"a","arguments":""}},{"index":1,"id":"2","function":{"name":"b","arguments":""}}]}}]}`,
				`{"choices":[{"index":0,"delta":{"tool_calls":[{"index":1,"function":{"arguments":"{\"y\":2}"}},{"index":0,"function":{"arguments":"{\"x\":1}"}}]}}]}`,
				`{"choices":[{"index":0,"delta":{},"finish_reason":"tool_calls"}]}`, `[DONE]`),
			stop: model.StopTools, calls: []string{`a{"x":1}`, `b{"y":2}`},
		},
		"comments, as OpenRouter sends them": {
			stream: ": OPENROUTER PROCESSING\n\n" + lines(`{"choices":[{"index":0,"delta":{"content":"hi","reasoning":null}}]}`, `{"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}`, `[DONE]`),
			text:   "hi", stop: model.StopEnd,
		},
		"a refusal": {
			stream: lines(`{"choices":[{"index":0,"delta":{"refusal":"No."}}]}`, `{"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}`, `[DONE]`),
			text:   "No.", stop: model.StopFiltered,
		},
	} {
		a, _, err := ask(t, Chat, c.stream, said("hi"))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		var calls []string
		ids := map[string]bool{}
		for _, u := range a.Message.Calls() {
			calls = append(calls, u.Name+u.Arguments)
			if u.ID == "" || ids[u.ID] {
				t.Errorf("%s: the id %q", name, u.ID)
			}
			ids[u.ID] = true
		}
		if a.Text() != c.text || a.Stop != c.stop || a.Model != "local" || !cmp.Equal(calls, c.calls) || !cmp.Equal(a.Usage, c.usage) {
			t.Errorf("%s: got %+v, calls %v", name, a, calls)
		}
	}
}

func TestStreamsThatFail(t *testing.T) {
	for name, c := range map[string]struct{ api, stream, class string }{
		"an error within":             {Chat, lines(`{"choices":[{"index":0,"delta":{"content":"hi"}}]}`, `{"error":{"message":"busy","code":429}}`), model.ClassRateLimit},
		"no end":                      {Chat, lines(`{"choices":[{"index":0,"delta":{"content":"hi"}}]}`, `[DONE]`), model.ClassNetwork},
		"nothing":                     {Chat, "", model.ClassNetwork},
		"no JSON":                     {Chat, lines(`{"choices":[{`), model.ClassMalformed},
		"the model fails":             {Chat, lines(`{"choices":[{"index":0,"delta":{"content":"hi"},"finish_reason":"error"}]}`, `[DONE]`), model.ClassServer},
		"all is filtered":             {Chat, lines(`{"choices":[{"index":0,"delta":{},"finish_reason":"content_filter"}]}`, `[DONE]`), model.ClassFiltered},
		"responses: failed":           {Responses, lines(`{"type":"response.failed","response":{"error":{"code":"rate_limit_exceeded","message":"slow down"}}}`), model.ClassRateLimit},
		"responses: an error":         {Responses, lines(`{"type":"error","code":"server_error","message":"it broke"}`), model.ClassServer},
		"responses: no end":           {Responses, lines(`{"type":"response.output_text.delta","delta":"hi"}`), model.ClassNetwork},
		"responses: all is filtered":  {Responses, lines(`{"type":"response.incomplete","response":{"incomplete_details":{"reason":"content_filter"},"output":[]}}`), model.ClassFiltered},
		"responses: a flagged prompt": {Responses, lines(`{"type":"response.failed","response":{"error":{"code":"invalid_prompt","message":"flagged"}}}`), model.ClassFiltered},
	} {
		a, _, err := ask(t, c.api, c.stream, said("hi"))
		if e, ok := errors.AsType[*model.Error](err); !ok || e.Class != c.class {
			t.Errorf("%s: got %+v, %v", name, a, err)
		}
	}
}

func TestResponsesThatAreCutOff(t *testing.T) {
	a, _, err := ask(t, Responses, lines(`{"type":"response.incomplete","response":{"incomplete_details":{"reason":"max_output_tokens"},
		"output":[{"type":"message","content":[{"type":"output_text","text":"hal"}]}]}}`), said("hi"))
	if err != nil || a.Text() != "hal" || a.Stop != model.StopMaxTokens {
		t.Errorf("got %+v, %v", a, err)
	}
}

func TestSchemasAreStrictWhereTheyCanBe(t *testing.T) {
	closed := map[string]any{"type": "object", "properties": map[string]any{"a": map[string]any{"type": "string"}}, "required": []any{"a"}}
	open := map[string]any{"type": "object", "properties": map[string]any{"a": map[string]any{"type": "string"}}}
	end := lines(`{"choices":[{"index":0,"delta":{"content":"{\"a\":\"x\"}"},"finish_reason":"stop"}]}`, `[DONE]`)
	for strict, schema := range map[bool]map[string]any{true: closed, false: open} {
		r := said("hi")
		r.Schema = schema
		_, sent, err := ask(t, Chat, end, r)
		if err != nil {
			t.Fatal(err)
		}
		format, _ := sent["response_format"].(map[string]any)
		inner, _ := format["json_schema"].(map[string]any)
		if format["type"] != "json_schema" || inner["strict"] != strict {
			t.Errorf("strict %v: %v", strict, format)
		}
	}
}

// TestOwnServiceGetsWhatOthersMayNotKnow looks at a request to OpenAI itself,
// which goes nowhere.
func TestOwnServiceGetsWhatOthersMayNotKnow(t *testing.T) {
	var sent map[string]any
	var head http.Header
	c := &http.Client{Transport: tripper(func(q *http.Request) (*http.Response, error) {
		head = q.Header
		if err := json.NewDecoder(q.Body).Decode(&sent); err != nil {
			return nil, err
		}
		return nil, io.ErrUnexpectedEOF
	})}
	r := said("hi")
	r.MaxTokens, r.IdempotencyKey, r.Run, r.Agent, r.Model = 10, "run/step", "run", "guide", "gpt-5"
	_, err := New(Config{Client: c}).Call(t.Context(), r)
	if e, ok := errors.AsType[*model.Error](err); !ok || e.Class != model.ClassNetwork {
		t.Errorf("got %v", err)
	}
	if key := head.Get("Idempotency-Key"); len(key) != 32 || sent["max_completion_tokens"] != 10.0 || sent["max_tokens"] != nil || sent["prompt_cache_key"] == nil {
		t.Errorf("sent %v with the key %q", sent, key)
	}
	if head.Get("Authorization") != "" {
		t.Error("a key came from nowhere")
	}
}

type tripper func(*http.Request) (*http.Response, error)

func (t tripper) RoundTrip(r *http.Request) (*http.Response, error) { return t(r) }
