package web

import (
	"context"
	"errors"
	"net/http"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	api "github.com/orchestrator-project/orchestrator/proto/orchestrator/v1"
)

// problem is what an error page says.
type problem struct {
	Title string
	Text  string
	Code  string // the API's word for it, if it has one
}

// httpOf says which answer of a page goes with which code of the API.
var httpOf = map[codes.Code]int{
	codes.InvalidArgument:    http.StatusBadRequest,
	codes.OutOfRange:         http.StatusBadRequest,
	codes.FailedPrecondition: http.StatusBadRequest,
	codes.Unauthenticated:    http.StatusUnauthorized,
	codes.PermissionDenied:   http.StatusForbidden,
	codes.NotFound:           http.StatusNotFound,
	codes.Aborted:            http.StatusConflict,
	codes.AlreadyExists:      http.StatusConflict,
	codes.ResourceExhausted:  http.StatusTooManyRequests,
	codes.Unimplemented:      http.StatusNotImplemented,
	codes.Unavailable:        http.StatusServiceUnavailable,
	codes.DeadlineExceeded:   http.StatusServiceUnavailable,
}

// describe turns an error of the API into its page and its HTTP status. The
// API's texts are meant to be read; those of internal errors are not.
func describe(err error) (problem, int) {
	st, ok := status.FromError(err)
	if !ok && errors.Is(err, context.DeadlineExceeded) {
		st = status.New(codes.DeadlineExceeded, "the server took too long to answer")
	}
	code, known := httpOf[st.Code()]
	if !known {
		return problem{
			Title: "Something went wrong", Text: "The server could not answer. Its log says why.",
		}, http.StatusInternalServerError
	}
	p := problem{Title: titleOf[code], Text: st.Message()}
	for _, d := range st.Details() {
		if info, ok := d.(*errdetails.ErrorInfo); ok {
			p.Code = info.GetReason()
		}
	}
	return p, code
}

var titleOf = map[int]string{
	http.StatusBadRequest:         "This cannot be done",
	http.StatusUnauthorized:       "Sign in first",
	http.StatusForbidden:          "Not allowed",
	http.StatusNotFound:           "Not found",
	http.StatusConflict:           "Too late",
	http.StatusTooManyRequests:    "Too much at once",
	http.StatusNotImplemented:     "Not available here",
	http.StatusServiceUnavailable: "The server does not answer",
}

// complain shows a problem as a page.
func (s *site) complain(w http.ResponseWriter, r *http.Request, code int, p problem) {
	s.show(w, r, code, page{p.Title, "", errorPage(p)})
}

// fail shows err as a page.
func (s *site) fail(w http.ResponseWriter, r *http.Request, err error) {
	if r.Context().Err() != nil {
		return // nobody reads it
	}
	p, code := describe(err)
	if code == http.StatusInternalServerError {
		s.log.ErrorContext(r.Context(), "page failed", "path", r.URL.Path, "err", err)
	}
	s.complain(w, r, code, p)
}

func (s *site) notFound(w http.ResponseWriter, r *http.Request) {
	s.complain(w, r, http.StatusNotFound, problem{
		Title: "No such page", Text: "Nothing lives at " + r.URL.Path + ".",
	})
}

// refusal is what the API found wrong with a submission: findings about the
// source, words about single inputs, or a plain text.
type refusal struct {
	Text        string
	Inputs      map[string]string // by input name
	Diagnostics []*api.Diagnostic
	Truncated   int32
}

// refused reads the details of err.
func refused(err error) refusal {
	p, _ := describe(err)
	out := refusal{Text: p.Text, Inputs: map[string]string{}}
	var fields *errdetails.BadRequest
	for _, d := range status.Convert(err).Details() {
		switch d := d.(type) {
		case *api.Diagnostics:
			out.Diagnostics, out.Truncated = d.GetDiagnostics(), d.GetTruncated()
		case *errdetails.BadRequest:
			fields = d
		}
	}
	for _, v := range fields.GetFieldViolations() {
		if line, column, ok := parsePosition(v.GetField()); ok {
			if out.Diagnostics == nil {
				out.Diagnostics = append(out.Diagnostics, &api.Diagnostic{
					Severity: "error", Code: v.GetReason(), Message: v.GetDescription(), Line: line, Column: column,
				})
			}
			continue
		}
		out.Inputs[v.GetField()] = v.GetDescription()
	}
	return out
}
