package main

import (
	"errors"
	"fmt"
	"io"
	"net/url"
	"strings"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/orchestrator-project/orchestrator/pipeline"
	"github.com/orchestrator-project/orchestrator/pipeline/spec"
	api "github.com/orchestrator-project/orchestrator/proto/orchestrator/v1"
)

// The exit codes. Scripts rely on them.
const (
	exitFailed      = 1   // the run failed or was cancelled
	exitInvalid     = 2   // invalid pipeline, input or usage
	exitWaiting     = 3   // the run waits for a person
	exitRefused     = 4   // server unreachable, refused, not found or conflict
	exitInterrupted = 130 // by a signal
)

// failure is an error as people read it: what went wrong and where, why, and
// what to do. An empty what says that all has been said.
type failure struct {
	code int
	what string
	why  string
	fix  []string
}

func (f *failure) Error() string { return strings.TrimSpace(f.what + "\n" + f.why) }

// quiet ends the command with a code and without another word.
func quiet(code int) error { return &failure{code: code} }

// usage is a command line that cannot be meant.
func usage(fix, format string, args ...any) error {
	f := &failure{code: exitInvalid, what: fmt.Sprintf(format, args...)}
	if fix != "" {
		f.fix = []string{fix}
	}
	return f
}

// explainError finds the words for an error that is not a failure yet.
func (c *cli) explainError(err error) *failure {
	var pe *pipeline.Error
	var diags *pipeline.Diagnostics
	switch {
	case c.interrupted() && (errors.Is(err, errInterrupted) || status.Code(err) == codes.Canceled):
		return &failure{code: exitInterrupted}
	case errors.As(err, &diags):
		return &failure{code: exitInvalid, what: diags.Error()}
	case errors.As(err, &pe):
		return fromDomain(pe)
	}
	if st, ok := status.FromError(err); ok && st.Code() != codes.OK && st.Code() != codes.Unknown {
		return c.fromStatus(st)
	}
	if !c.entered { // cobra's own
		return &failure{code: exitInvalid, what: err.Error(), fix: []string{"orchestrator --help lists the commands; COMMAND --help explains one"}}
	}
	return &failure{code: exitFailed, what: err.Error()}
}

var errInterrupted = errors.New("interrupted")

// fromDomain explains an error of a room in this process.
func fromDomain(e *pipeline.Error) *failure {
	f := &failure{code: exitRefused, what: e.Text}
	switch e.Kind {
	case pipeline.Invalid, pipeline.TooLarge:
		f.code = exitInvalid
	case pipeline.Internal:
		f.code = exitFailed
	case pipeline.NotFound, pipeline.Conflict, pipeline.Exhausted, pipeline.Unavailable, pipeline.Denied, pipeline.Unidentified:
	}
	return f
}

// fromStatus explains what the API has answered.
func (c *cli) fromStatus(st *status.Status) *failure {
	f := &failure{code: exitRefused, what: st.Message()}
	reason := ""
	for _, d := range st.Details() {
		switch d := d.(type) {
		case *errdetails.ErrorInfo:
			reason = d.GetReason()
		case *errdetails.BadRequest:
			if list := d.GetFieldViolations(); len(list) > 1 {
				f.what = "the request was refused"
				var b strings.Builder
				for _, v := range list {
					fmt.Fprintf(&b, "%s: %s\n", v.GetField(), v.GetDescription())
				}
				f.why = b.String()
			}
		}
	}
	switch st.Code() {
	case codes.InvalidArgument, codes.OutOfRange, codes.FailedPrecondition:
		f.code = exitInvalid
	case codes.Internal, codes.DataLoss:
		f.code = exitFailed
	case codes.Unavailable, codes.DeadlineExceeded:
		if reason == "" { // it did not come from a server of ours
			f.what = "cannot reach the server at " + c.server
			f.why = transport(st.Message())
			f.fix = []string{"start it with: orchestrator serve", "or leave out --server and ORCHESTRATOR_SERVER to work in this process"}
		}
	case codes.Unimplemented:
		f.what = "the server at " + c.server + " does not know this call: is it older than this command?"
	case codes.NotFound:
		switch reason {
		case "run_not_found":
			f.fix = []string{"orchestrator runs list shows the runs"}
		case "approval_not_found":
			f.fix = []string{"orchestrator approvals list shows the approvals"}
		case "artifact_not_found":
			f.fix = []string{"orchestrator runs artifacts RUN lists what the run has published"}
		case "pipeline_not_found":
			f.fix = []string{"orchestrator pipelines list shows the pipelines"}
		}
	}
	return f
}

// transport is the cause in a message of gRPC's transport.
func transport(text string) string {
	text = strings.Trim(text, `"`)
	if i := strings.LastIndex(text, "dial "); i >= 0 {
		text = text[i+len("dial "):]
	}
	text = strings.TrimRight(strings.TrimPrefix(text, "tcp "), `"`)
	if _, after, ok := strings.Cut(text, ": connect: "); ok {
		text = after
	}
	return text
}

// diagnosticsOf finds the findings about a pipeline in an error of the API.
func diagnosticsOf(err error) *api.Diagnostics {
	st, ok := status.FromError(err)
	if !ok {
		return nil
	}
	for _, d := range st.Details() {
		if d, ok := d.(*api.Diagnostics); ok {
			return d
		}
	}
	return nil
}

// formatDiagnostics prints findings about sources, each with its line.
func formatDiagnostics(w io.Writer, d *api.Diagnostics, sources []*source, color bool) {
	list := &pipeline.Diagnostics{Truncated: int(d.GetTruncated())}
	for _, x := range d.GetDiagnostics() {
		one := pipeline.Diagnostic{
			Code: x.GetCode(), Severity: pipeline.Severity(x.GetSeverity()), Message: x.GetMessage(), File: x.GetFile(),
			Line: int(x.GetLine()), Column: int(x.GetColumn()), EndLine: int(x.GetEndLine()), EndColumn: int(x.GetEndColumn()),
			Step: x.GetStep(), Path: x.GetPath(), Hint: x.GetHint(),
		}
		for _, r := range x.GetRelated() {
			one.Related = append(one.Related, pipeline.Related{Message: r.GetMessage(), File: r.GetFile(), Line: int(r.GetLine()), Column: int(r.GetColumn())})
		}
		for _, s := range sources {
			if one.Excerpt == "" {
				one.Excerpt = s.line(one.File, one.Line)
			}
		}
		list.List = append(list.List, one)
	}
	spec.Format(w, list, color)
}

// counts says how many errors and warnings there are.
func counts(list []*api.Diagnostic, truncated int32) (errs, warnings int, text string) {
	for _, d := range list {
		switch pipeline.Severity(d.GetSeverity()) {
		case pipeline.SeverityError:
			errs++
		case pipeline.SeverityWarning:
			warnings++
		case pipeline.SeverityInfo:
		}
	}
	parts := []string{}
	if errs > 0 {
		parts = append(parts, plural(errs, "error"))
	}
	if warnings > 0 {
		parts = append(parts, plural(warnings, "warning"))
	}
	if truncated > 0 {
		parts = append(parts, fmt.Sprintf("%d more not shown", truncated))
	}
	return errs, warnings, strings.Join(parts, ", ")
}

// address checks the URL of a server.
func address(text string) (*url.URL, error) {
	u, err := url.Parse(text)
	if err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") {
		return nil, usage("write it like http://127.0.0.1:8080", "%q is not the address of a server", text)
	}
	return u, nil
}
