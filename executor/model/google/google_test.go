package google

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/orchestrator-project/orchestrator/executor/model"
)

func lines(data ...string) string {
	var b strings.Builder
	for _, d := range data {
		b.WriteString("data: " + d + "\r\n\r\n")
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
		if q.Header.Get("X-Goog-Api-Key") != "" {
			t.Errorf("a key came from nowhere: %v", q.Header)
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

func TestAnswersEnd(t *testing.T) {
	for reason, want := range map[string]string{
		"STOP": model.StopEnd, "MAX_TOKENS": model.StopMaxTokens, "SAFETY": model.StopFiltered, "PROHIBITED_CONTENT": model.StopFiltered, "OF_TOMORROW": model.StopEnd,
	} {
		a, _, err := ask(t, lines(`{"candidates":[{"content":{"parts":[{"text":"hi"}]}}]}`, `{"candidates":[{"finishReason":"`+reason+`"}]}`), said("gemini-2.5-flash", "hi"))
		if err != nil || a.Stop != want || a.Text() != "hi" || a.Model != "gemini-2.5-flash" {
			t.Errorf("%s: got %+v, %v", reason, a, err)
		}
	}
}

func TestStreamsThatFail(t *testing.T) {
	for name, c := range map[string]struct{ stream, class string }{
		"the prompt is blocked": {lines(`{"promptFeedback":{"blockReason":"PROHIBITED_CONTENT"}}`), model.ClassFiltered},
		"all is filtered":       {lines(`{"candidates":[{"finishReason":"SAFETY"}]}`), model.ClassFiltered},
		"a call that is none":   {lines(`{"candidates":[{"finishReason":"MALFORMED_FUNCTION_CALL","finishMessage":"print(1)"}]}`), model.ClassMalformed},
		"an error within":       {lines(`{"candidates":[{"content":{"parts":[{"text":"hi"}]}}]}`, `{"error":{"code":503,"message":"overloaded","status":"UNAVAILABLE"}}`), model.ClassOverloaded},
		"no end":                {lines(`{"candidates":[{"content":{"parts":[{"text":"hi"}]}}]}`), model.ClassNetwork},
		"nothing":               {"", model.ClassNetwork},
		"no JSON":               {lines(`{"candidates":`), model.ClassMalformed},
		"no event":              {"<html>\n\n", model.ClassMalformed},
	} {
		a, _, err := ask(t, c.stream, said("gemini-2.5-flash", "hi"))
		if e, ok := errors.AsType[*model.Error](err); !ok || e.Class != c.class {
			t.Errorf("%s: got %+v, %v", name, a, err)
		}
	}
}

func TestCallsWithoutIDsGetOnes(t *testing.T) {
	a, _, err := ask(t, lines(`{"candidates":[{"content":{"parts":[{"functionCall":{"name":"a","args":{"n":12345678901234567890}}},{"functionCall":{"name":"a"}}]},"finishReason":"STOP"}]}`), said("gemini-2.5-flash", "hi"))
	if err != nil {
		t.Fatal(err)
	}
	calls := a.Message.Calls()
	if len(calls) != 2 || calls[0].ID == "" || calls[0].ID == calls[1].ID || calls[0].Arguments != `{"n":12345678901234567890}` || calls[1].Arguments != "{}" || a.Stop != model.StopTools {
		t.Errorf("got %+v", a)
	}
}

// TestCallsOfOthersAreMarked: models that sign refuse calls without a signature.
func TestCallsOfOthersAreMarked(t *testing.T) {
	r := said("gemini-3-pro-preview", "hi")
	r.Messages = append(r.Messages,
		model.Message{Role: model.Assistant, Blocks: []model.Block{
			{Kind: model.BlockToolUse, ToolUse: &model.ToolUse{ID: "1", Name: "a", Arguments: "{}"}},
			{Kind: model.BlockToolUse, ToolUse: &model.ToolUse{ID: "2", Name: "a", Arguments: "{}"}},
		}})
	end := lines(`{"candidates":[{"content":{"parts":[{"text":"hi"}]},"finishReason":"STOP"}]}`)
	for name, want := range map[string]int{"gemini-3-pro-preview": 1, "gemini-2.5-flash": 0} {
		r.Model = name
		_, sent, err := ask(t, end, r)
		if err != nil {
			t.Fatal(err)
		}
		body, err := json.Marshal(sent)
		if err != nil || strings.Count(string(body), "thoughtSignature") != want {
			t.Errorf("%s: sent %s", name, body)
		}
	}
}

func TestEffortAndSchema(t *testing.T) {
	end := lines(`{"candidates":[{"content":{"parts":[{"text":"{\"value\":8}"}]},"finishReason":"STOP"}]}`)
	r := said("gemini-3-pro-preview", "hi")
	r.Effort, r.Schema = "high", map[string]any{"type": "integer"}
	a, sent, err := ask(t, end, r)
	if err != nil || a.Value != int64(8) {
		t.Errorf("got %+v, %v", a, err)
	}
	config, _ := sent["generationConfig"].(map[string]any)
	thinking, _ := config["thinkingConfig"].(map[string]any)
	if thinking["thinkingLevel"] != "HIGH" || config["responseMimeType"] != "application/json" || config["responseJsonSchema"] == nil {
		t.Errorf("sent %v", sent)
	}
	r.Model, r.Tools = "gemini-2.5-flash", []model.ToolDef{{Name: "now"}}
	if _, sent, err = ask(t, end, r); err != nil {
		t.Fatal(err)
	}
	config, _ = sent["generationConfig"].(map[string]any)
	if config["responseJsonSchema"] != nil || sent["toolConfig"] == nil {
		t.Errorf("sent %v", sent)
	}
}
