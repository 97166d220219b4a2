package server

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/http"
	"strconv"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/protoadapt"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/orchestrator-project/orchestrator/pipeline"
	orchestratorv1 "github.com/orchestrator-project/orchestrator/proto/orchestrator/v1"
)

// domain stands in every ErrorInfo.
const domain = "orchestrator"

// errorRow is a row of the one table where error kinds meet the wire.
type errorRow struct {
	kind   pipeline.ErrorKind
	code   codes.Code
	http   int
	name   string        // of the code in REST
	reason string        // when the error names none
	retry  time.Duration // RetryInfo; 0: waiting does not help
}

// errorTable lists the kinds of our own errors first: both directions take
// the first row that fits.
var errorTable = []errorRow{
	{pipeline.Internal, codes.Internal, http.StatusInternalServerError, "INTERNAL", "internal", 0},
	{pipeline.Invalid, codes.InvalidArgument, http.StatusBadRequest, "INVALID_ARGUMENT", "invalid_request", 0},
	{pipeline.NotFound, codes.NotFound, http.StatusNotFound, "NOT_FOUND", "not_found", 0},
	// Not FailedPrecondition, which HTTP clients would see as 400.
	{pipeline.Conflict, codes.Aborted, http.StatusConflict, "ABORTED", "conflict", 0},
	// Not ResourceExhausted: that one asks to be tried again.
	{pipeline.TooLarge, codes.OutOfRange, http.StatusRequestEntityTooLarge, "OUT_OF_RANGE", "too_large", 0},
	{pipeline.Exhausted, codes.ResourceExhausted, http.StatusTooManyRequests, "RESOURCE_EXHAUSTED", "exhausted", time.Second},
	{pipeline.Unavailable, codes.Unavailable, http.StatusServiceUnavailable, "UNAVAILABLE", "unavailable", time.Second},
	{pipeline.Denied, codes.PermissionDenied, http.StatusForbidden, "PERMISSION_DENIED", "denied", 0},
	{pipeline.Unidentified, codes.Unauthenticated, http.StatusUnauthorized, "UNAUTHENTICATED", "unauthenticated", 0},
	// What gRPC itself answers.
	{pipeline.Invalid, codes.Canceled, 499, "CANCELLED", "cancelled", 0},
	{pipeline.Unavailable, codes.DeadlineExceeded, http.StatusGatewayTimeout, "DEADLINE_EXCEEDED", "deadline_exceeded", 0},
	{pipeline.NotFound, codes.Unimplemented, http.StatusNotImplemented, "UNIMPLEMENTED", "unimplemented", 0},
	{pipeline.Conflict, codes.AlreadyExists, http.StatusConflict, "ALREADY_EXISTS", "already_exists", 0},
	{pipeline.Invalid, codes.FailedPrecondition, http.StatusBadRequest, "FAILED_PRECONDITION", "failed_precondition", 0},
}

func rowOfKind(k pipeline.ErrorKind) errorRow {
	for _, r := range errorTable {
		if r.kind == k {
			return r
		}
	}
	return errorTable[0]
}

func rowOfCode(c codes.Code) errorRow {
	for _, r := range errorTable {
		if r.code == c {
			return r
		}
	}
	return errorTable[0]
}

// violation is one thing that is wrong with a request.
type violation struct {
	Field  string // a field, an input's name, or line:column of a pipeline
	Reason string // snake_case, or a diagnostic's code
	Text   string
}

// refusal is the error of a request with things wrong in named places.
type refusal struct {
	reason     string
	violations []violation
}

func (r *refusal) Error() string {
	texts := make([]string, 0, 3)
	for i, v := range r.violations {
		if i == 3 {
			texts = append(texts, fmt.Sprintf("and %d more", len(r.violations)-i))
			break
		}
		if v.Field == "" {
			texts = append(texts, v.Text)
		} else {
			texts = append(texts, v.Field+": "+v.Text)
		}
	}
	return strings.Join(texts, "; ")
}

// refuse is a refusal for one field.
func refuse(field, reason, format string, args ...any) error {
	return &refusal{reason: reason, violations: []violation{{Field: field, Reason: reason, Text: fmt.Sprintf(format, args...)}}}
}

// fault is an error of ours with a text that is safe to show.
func fault(kind pipeline.ErrorKind, reason, format string, args ...any) error {
	return &pipeline.Error{Kind: kind, Reason: reason, Text: fmt.Sprintf(format, args...)}
}

// toStatus turns any error of a handler into what goes over the wire. Internal
// says that the cause is ours: it must be logged under the id, which is all
// that the caller is told.
func toStatus(err error, id string) (st *status.Status, internal bool) {
	var pe *pipeline.Error
	var diags *pipeline.Diagnostics
	var ref *refusal
	var in *inputsError
	switch {
	case errors.As(err, &in):
		return diagnosticsStatus(in.found, "invalid_inputs", func(d *pipeline.Diagnostic) string { return d.Path }), false
	case errors.As(err, &diags):
		return diagnosticsStatus(diags, "invalid_pipeline", func(d *pipeline.Diagnostic) string { return fmt.Sprintf("%d:%d", d.Line, d.Column) }), false
	case errors.As(err, &ref):
		st := status.New(codes.InvalidArgument, ref.Error())
		bad := &errdetails.BadRequest{}
		for _, v := range ref.violations {
			bad.FieldViolations = append(bad.FieldViolations, &errdetails.BadRequest_FieldViolation{Field: v.Field, Reason: v.Reason, Description: v.Text})
		}
		return withDetails(st, &errdetails.ErrorInfo{Reason: ref.reason, Domain: domain}, bad), false
	case errors.As(err, &pe) && pe.Kind != pipeline.Internal:
		row := rowOfKind(pe.Kind)
		reason := pe.Reason
		if reason == "" {
			reason = row.reason
		}
		details := []protoadapt.MessageV1{&errdetails.ErrorInfo{Reason: reason, Domain: domain}}
		if row.retry > 0 {
			details = append(details, &errdetails.RetryInfo{RetryDelay: durationpb.New(row.retry)})
		}
		return withDetails(status.New(row.code, pe.Text), details...), false
	case errors.Is(err, context.Canceled):
		return status.New(codes.Canceled, "the caller went away"), false
	case errors.Is(err, context.DeadlineExceeded):
		return status.New(codes.DeadlineExceeded, "it took longer than the caller would wait"), false
	}
	if st, ok := status.FromError(err); ok && st.Code() != codes.Unknown && st.Code() != codes.Internal {
		return st, false
	}
	st = status.New(codes.Internal, "internal error; the server's log has it under request "+id)
	return withDetails(st, &errdetails.ErrorInfo{Reason: "internal", Domain: domain, Metadata: map[string]string{"request_id": id}}), true
}

// inputsError is the error of inputs that do not fit their pipeline; each
// finding's Path is the input's name.
type inputsError struct{ found *pipeline.Diagnostics }

func (e *inputsError) Error() string { return e.found.Error() }

// diagnosticsStatus is the answer to a pipeline, or inputs, that were refused;
// field tells what a violation calls its place.
func diagnosticsStatus(d *pipeline.Diagnostics, reason string, field func(*pipeline.Diagnostic) string) *status.Status {
	bad := &errdetails.BadRequest{}
	for i := range d.List {
		x := &d.List[i]
		if x.Severity == pipeline.SeverityError {
			bad.FieldViolations = append(bad.FieldViolations, &errdetails.BadRequest_FieldViolation{
				Field: field(x), Reason: x.Code, Description: x.Message,
			})
		}
	}
	st := status.New(codes.InvalidArgument, d.Error())
	full := &orchestratorv1.Diagnostics{Diagnostics: fromDiagnostics(d), Truncated: clamp(d.Truncated)}
	return withDetails(st, &errdetails.ErrorInfo{Reason: reason, Domain: domain}, bad, full)
}

func withDetails(st *status.Status, details ...protoadapt.MessageV1) *status.Status {
	if full, err := st.WithDetails(details...); err == nil {
		return full
	}
	return st
}

// clamp is n as the int32 of the wire.
func clamp(n int) int32 {
	return int32(max(math.MinInt32, min(n, math.MaxInt32)))
}

// errorText is the REST form of an error: {"error": {...}}.
func errorText(st *status.Status, httpCode int, id string) []byte {
	row := rowOfCode(st.Code())
	if httpCode == 0 {
		httpCode = row.http
	}
	e := map[string]any{
		"code": int64(httpCode), "status": row.name, "message": st.Message(),
		"reason": row.reason, "request_id": id, "details": []any{},
	}
	for _, d := range st.Details() {
		switch d := d.(type) {
		case *errdetails.ErrorInfo:
			e["reason"] = d.GetReason()
		case *errdetails.RetryInfo:
			e["retry_after"] = d.GetRetryDelay().AsDuration().Seconds()
		case *errdetails.BadRequest:
			list := []any{}
			for _, v := range d.GetFieldViolations() {
				list = append(list, map[string]any{"field": v.GetField(), "reason": v.GetReason(), "description": v.GetDescription()})
			}
			e["details"] = list
		case *orchestratorv1.Diagnostics:
			e["diagnostics"] = rawJSON(d, "diagnostics")
			e["truncated"] = int64(d.GetTruncated())
		}
	}
	return pipeline.EncodeValue(map[string]any{"error": e})
}

// httpStatus is the HTTP code of a gRPC status.
func httpStatus(st *status.Status) int { return rowOfCode(st.Code()).http }

// retryAfter is the Retry-After header of a status, or empty.
func retryAfter(st *status.Status) string {
	for _, d := range st.Details() {
		if r, ok := d.(*errdetails.RetryInfo); ok {
			return strconv.Itoa(int(math.Ceil(r.GetRetryDelay().AsDuration().Seconds())))
		}
	}
	return ""
}

// reject answers an HTTP request that never reached gRPC.
func reject(w http.ResponseWriter, httpCode int, code codes.Code, reason, format string, args ...any) {
	st := withDetails(status.New(code, fmt.Sprintf(format, args...)), &errdetails.ErrorInfo{Reason: reason, Domain: domain})
	writeError(w, st, httpCode)
}

func writeError(w http.ResponseWriter, st *status.Status, httpCode int) {
	if httpCode == 0 {
		httpCode = httpStatus(st)
	}
	h := w.Header()
	h.Set("Content-Type", "application/json")
	if after := retryAfter(st); after != "" {
		h.Set("Retry-After", after)
	}
	if httpCode == http.StatusUnauthorized {
		h.Set("WWW-Authenticate", "Bearer")
	}
	w.WriteHeader(httpCode)
	_, _ = w.Write(append(errorText(st, httpCode, h.Get("X-Request-Id")), '\n')) // the client may be gone
}
