package anthropic

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
)

func events(data ...string) string {
	var b strings.Builder
	for _, d := range data {
		var e struct {
			Type string `json:"type"`
		}
		if json.Unmarshal([]byte(d), &e) != nil {
			e.Type = "content_block_delta"
		}
		b.WriteString("event: " + e.Type + "\ndata: " + d + "\n\n")
	}
	return b.String()
}

func ask(t *testing.T, stream string, r *model.Request) (a *model.Response, sent map[string]any, err error) {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		body, err := io.ReadAll(q.Body)
		if err != nil || json.Unmarshal(body, &sent) != nil {
			t.Errorf("the request is %s, %v", body, err)
		}
		w.Header().Set("Content-Type", "text/event-stream")
		_, _ = io.WriteString(w, stream)
	}))
	defer s.Close()
	answer, err := New(Config{BaseURL: s.URL}).Call(t.Context(), r)
	if err != nil {
		return nil, sent, err
	}
	a, err = model.Drain(answer, nil)
	return a, sent, err
}

func said(name, text string) *model.Request {
	return &model.Request{Model: name, Messages: []model.Message{model.UserText(text)}}
}

const (
	start = `{"type":"message_start","message":{"model":"claude","usage":{"input_tokens":1,"output_tokens":1}}}`
	begun = `{"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}`
	hi    = `{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"hi"}}`
	stop  = `{"type":"message_stop"}`
)

func ends(reason string) string {
	return `{"type":"message_delta","delta":{"stop_reason":"` + reason + `"},"usage":{"output_tokens":5}}`
}

func TestAnswersEnd(t *testing.T) {
	for reason, want := range map[string]string{
		"end_turn": model.StopEnd, "stop_sequence": model.StopEnd, "max_tokens": model.StopMaxTokens, "model_context_window_exceeded": model.StopMaxTokens,
		"tool_use": model.StopTools, "refusal": model.StopFiltered, "of tomorrow": model.StopEnd,
	} {
		a, _, err := ask(t, events(start, begun, hi, ends(reason), stop), said("claude-sonnet-4-5", "hi"))
		if err != nil || a.Stop != want || a.Text() != "hi" || a.Usage.OutputTokens != 5 {
			t.Errorf("%s: got %+v, %v", reason, a, err)
		}
	}
}

func TestStreamsThatFail(t *testing.T) {
	for name, c := range map[string]struct{ stream, class string }{
		"overloaded within":   {events(start, begun, hi, `{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}`), model.ClassOverloaded},
		"no end":              {events(start, begun, hi, ends("end_turn")), model.ClassNetwork},
		"nothing":             {"", model.ClassNetwork},
		"no JSON":             {events(start, begun, `{"type":`), model.ClassMalformed},
		"a part of nothing":   {events(start, hi), model.ClassMalformed},
		"a refusal, no words": {events(start, ends("refusal"), stop), model.ClassFiltered},
	} {
		a, _, err := ask(t, c.stream, said("claude-sonnet-4-5", "hi"))
		if e, ok := errors.AsType[*model.Error](err); !ok || e.Class != c.class {
			t.Errorf("%s: got %+v, %v", name, a, err)
		}
	}
}

func TestFamilies(t *testing.T) {
	for name, want := range map[string]family{
		"claude-3-haiku-20240307":        {longest: 4096},
		"claude-3-5-haiku-latest":        {longest: 8192},
		"claude-3-7-sonnet-20250219":     {longest: 8192, thinks: true},
		"claude-sonnet-4-20250514":       {longest: 32_000, thinks: true},
		"claude-opus-4@20250514":         {longest: 32_000, thinks: true},
		"claude-opus-4-1-20250805":       {longest: 32_000, thinks: true, native: true},
		"claude-haiku-4-5":               {longest: 32_000, thinks: true, native: true},
		"eu.anthropic.claude-sonnet-4.5": {longest: 32_000, thinks: true, native: true},
		"claude-opus-4-6":                {longest: 32_000, thinks: true, native: true, adaptive: true},
		"claude-sonnet-5":                {longest: 32_000, thinks: true, native: true, adaptive: true},
		"my-own-proxy":                   {longest: 4096, thinks: true},
	} {
		if got := familyOf(name); got != want {
			t.Errorf("%s: got %+v", name, got)
		}
	}
}

func TestEffort(t *testing.T) {
	end := events(start, begun, hi, ends("end_turn"), stop)
	warm := 0.3
	for _, c := range []struct {
		model, effort string
		bound         int64
		want          map[string]any
	}{
		{"claude-sonnet-4-5", "", 0, map[string]any{"max_tokens": 32_000.0, "temperature": 0.3}},
		{"claude-sonnet-4-5", "none", 0, map[string]any{"max_tokens": 32_000.0, "temperature": 0.3}},
		{"claude-sonnet-4-5", "high", 0, map[string]any{"max_tokens": 32_000.0, "thinking": map[string]any{"type": "enabled", "budget_tokens": 16_384.0}}},
		{"claude-sonnet-4-5", "low", 100, map[string]any{"max_tokens": 2148.0, "thinking": map[string]any{"type": "enabled", "budget_tokens": 2048.0}}},
		{"claude-opus-4-6", "medium", 100, map[string]any{
			"max_tokens": 100.0, "thinking": map[string]any{"type": "adaptive", "display": "summarized"}, "output_config": map[string]any{"effort": "medium"},
		}},
		{"claude-opus-4-6", "none", 100, map[string]any{"max_tokens": 100.0, "thinking": map[string]any{"type": "disabled"}, "temperature": 0.3}},
		{"claude-3-5-haiku-latest", "high", 0, map[string]any{"max_tokens": 8192.0, "temperature": 0.3}},
	} {
		r := said(c.model, "hi")
		r.Effort, r.MaxTokens, r.Temperature = c.effort, c.bound, &warm
		_, sent, err := ask(t, end, r)
		if err != nil {
			t.Fatal(err)
		}
		for _, key := range []string{"model", "messages", "stream"} {
			delete(sent, key)
		}
		if diff := cmp.Diff(c.want, sent); diff != "" {
			t.Errorf("%s, %q, %d: %s", c.model, c.effort, c.bound, diff)
		}
	}
}

func TestSchemas(t *testing.T) {
	end := events(start, begun, `{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"{\"value\":8}"}}`, ends("end_turn"), stop)
	r := said("claude-sonnet-4-5", "hi")
	r.Schema = map[string]any{"type": "integer"}
	a, sent, err := ask(t, end, r)
	if err != nil || a.Value != int64(8) || a.Text() != "8" {
		t.Errorf("got %+v, %v", a, err)
	}
	if c, _ := sent["output_config"].(map[string]any); c["format"] == nil || sent["tools"] != nil {
		t.Errorf("sent %v", sent)
	}
	r.Schema = map[string]any{"type": "object"}                                                                       // of anything: the service cannot hold to it
	if _, sent, err = ask(t, end, r); err != nil || sent["output_config"] != nil || len(sent["tools"].([]any)) != 1 { //nolint:forcetypeassert // fails loudly
		t.Errorf("sent %v, %v", sent, err)
	}
	r.Model = "claude-3-haiku-20240307"
	r.Schema = map[string]any{"type": "integer"}
	if _, sent, err = ask(t, end, r); err != nil || sent["output_config"] != nil || sent["tool_choice"].(map[string]any)["name"] != "final_answer" { //nolint:forcetypeassert // as above
		t.Errorf("sent %v, %v", sent, err)
	}
}
