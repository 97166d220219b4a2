package remote

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"time"
)

// maxBody bounds what is read of a refusal, in bytes.
const maxBody = 64 << 10

// RefusalOf reads the answer of a service that refuses, whatever it looks like.
func RefusalOf(answer *http.Response) Refusal {
	var body []byte
	if answer.Body != nil {
		body, _ = io.ReadAll(io.LimitReader(answer.Body, maxBody)) // half of it says more than nothing
	}
	r := RefusalIn(body)
	r.Status = answer.StatusCode
	if wait := RetryAfter(answer.Header, time.Now()); wait > 0 {
		r.RetryAfter = wait
	}
	return r
}

// said is an error in the words of the services: OpenAI's, Anthropic's and
// Google's within "error", Ollama's as a text there, others' at the top.
type said struct {
	Error   json.RawMessage `json:"error"`
	Code    json.RawMessage `json:"code"` // a text or a number
	Type    string          `json:"type"`
	Status  string          `json:"status"`
	Message string          `json:"message"`
	Detail  json.RawMessage `json:"detail"`
	Details []struct {
		Reason     string `json:"reason"`
		RetryDelay string `json:"retryDelay"`
		Violations []struct {
			QuotaID string `json:"quotaId"`
		} `json:"violations"`
	} `json:"details"`
}

// RefusalIn reads a refusal's body, or the event of a stream that tells of one.
func RefusalIn(body []byte) Refusal {
	body = bytes.TrimSpace(body)
	var list []json.RawMessage
	if json.Unmarshal(body, &list) == nil && len(list) > 0 { // as Google does at times
		body = list[0]
	}
	var top, in said
	if json.Unmarshal(body, &top) != nil {
		return Refusal{Message: string(body)}
	}
	switch {
	case len(top.Error) == 0 || string(top.Error) == "null":
		in = top
	case json.Unmarshal(top.Error, &in) != nil:
		in.Message = text(top.Error)
	}
	if in.Message == "" {
		in.Message = text(in.Detail)
	}
	if in.Message == "" {
		in.Message = string(body)
	}
	r := Refusal{Message: in.Message}
	for _, d := range in.Details {
		r.add(d.Reason)
		for _, v := range d.Violations {
			r.add(v.QuotaID)
		}
		if wait, err := time.ParseDuration(d.RetryDelay); err == nil {
			r.RetryAfter = max(0, min(wait, maxRetryAfter))
		}
	}
	r.add(text(in.Code))
	r.add(in.Status)
	r.add(in.Type)
	return r
}

func (r *Refusal) add(code string) {
	if code != "" {
		r.Codes = append(r.Codes, code)
	}
}

// text is a JSON text's text, and the JSON of anything else.
func text(raw json.RawMessage) string {
	if len(raw) == 0 || string(raw) == "null" {
		return ""
	}
	var s string
	if json.Unmarshal(raw, &s) == nil {
		return s
	}
	return string(raw)
}
