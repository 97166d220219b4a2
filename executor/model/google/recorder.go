package google

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/http"

	"google.golang.org/genai"

	"github.com/orchestrator-project/orchestrator/executor/model/remote"
)

// recorder keeps the events of a body that somebody else reads, until they are
// taken.
type recorder struct {
	body io.ReadCloser
	read []byte
	err  error // why the body broke
}

// Read reads the body. One that breaks looks as if it ended: the SDK would print
// the error.
func (r *recorder) Read(p []byte) (int, error) {
	n, err := r.body.Read(p)
	r.read = append(r.read, p[:n]...)
	if err != nil && !errors.Is(err, io.EOF) {
		r.err, err = err, io.EOF
	}
	return n, err
}

// Close closes the body.
func (r *recorder) Close() error {
	_ = r.body.Close() // it is of no interest any more, and the SDK would print why
	return nil
}

// broken is why the body broke; nil: it did not.
func (r *recorder) broken() error {
	if r == nil {
		return nil
	}
	return r.err
}

// event takes the data of the oldest event.
func (r *recorder) event() []byte {
	for len(r.read) > 0 {
		end, length := bytes.Index(r.read, []byte("\n\n")), 2
		if crlf := bytes.Index(r.read, []byte("\r\n\r\n")); crlf >= 0 && (end < 0 || crlf < end) {
			end, length = crlf, 4
		}
		if end < 0 {
			end, length = len(r.read), 0
		}
		chunk := r.read[:end]
		r.read = r.read[end+length:]
		if data, ok := bytes.CutPrefix(bytes.TrimSpace(chunk), []byte("data:")); ok {
			return bytes.TrimSpace(data)
		}
	}
	return nil
}

// exact is what of an event must stay as it came.
type exact struct {
	Candidates []struct {
		Content struct {
			Parts []exactPart `json:"parts"`
		} `json:"content"`
	} `json:"candidates"`
}

type exactPart struct {
	Signature string `json:"thoughtSignature"`
	Call      *struct {
		Args json.RawMessage `json:"args"`
	} `json:"functionCall"`
}

// parts are the parts of the event that the SDK has just read; they may be fewer
// than it has.
func (r *recorder) parts() []exactPart {
	if r == nil {
		return nil
	}
	var e exact
	if json.Unmarshal(r.event(), &e) != nil || len(e.Candidates) == 0 {
		return nil
	}
	return e.Candidates[0].Content.Parts
}

// refusal is an error of the service. The SDK keeps its details, and the answer
// its headers.
func refusal(e *genai.APIError, answer *http.Response) remote.Refusal {
	body, err := json.Marshal(map[string]any{"error": e})
	if err != nil {
		body = []byte(e.Message)
	}
	r := remote.RefusalIn(body)
	if r.Message == string(body) {
		r.Message = e.Message
	}
	if answer != nil && answer.StatusCode != http.StatusOK {
		r.Status = answer.StatusCode
		headers := *answer
		headers.Body = nil // it was read
		if wait := remote.RefusalOf(&headers).RetryAfter; wait > 0 {
			r.RetryAfter = wait
		}
	}
	return r
}
