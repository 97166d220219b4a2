package pipeline

import (
	"errors"
	"fmt"
)

// ErrorKind says what a caller can do about an error. The server maps kinds to
// gRPC codes, and those to HTTP, in one table.
type ErrorKind int

// The kinds.
const (
	Internal     ErrorKind = iota // our fault; the cause is for the log only
	Invalid                       // the request is wrong and stays wrong
	NotFound                      // there is no such thing
	Conflict                      // it lost against another change, or the key was used for another request
	TooLarge                      // over a documented limit
	Exhausted                     // a quota or queue is full; try later
	Unavailable                   // a dependency is away; try later
	Denied                        // not allowed
	Unidentified                  // who are you?
)

// Error is an error whose Text is safe to show the caller; Err is for our log.
type Error struct {
	Kind   ErrorKind
	Reason string // snake_case, for programs
	Text   string
	Err    error
}

func (e *Error) Error() string {
	if e.Err != nil {
		return fmt.Sprintf("%s: %v", e.Text, e.Err)
	}
	return e.Text
}

func (e *Error) Unwrap() error { return e.Err }

// KindOf is the kind of the first Error in err's chain, else Internal.
func KindOf(err error) ErrorKind {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Kind
	}
	if _, ok := errors.AsType[*Diagnostics](err); ok {
		return Invalid
	}
	return Internal
}

// The categories of a failed step.
const (
	CategoryRateLimit  = "rate_limit"
	CategoryTimeout    = "timeout"
	CategoryResource   = "resource_exhaustion"
	CategoryValidation = "validation"
	CategorySystem     = "system"
	CategoryModel      = "model"
	CategoryTool       = "tool"
	CategoryContract   = "contract"
	CategoryCancelled  = "cancelled"
	CategoryFailed     = "failed" // the step itself reported failure
	CategoryUnknown    = "unknown"
)

// Failure is why a step or run failed.
type Failure struct {
	Kind     string `json:"kind"`           // one of the categories
	Step     Path   `json:"step,omitempty"` // the step it began in
	Message  string `json:"message"`
	Reason   string `json:"reason,omitempty"`    // snake_case detail, for programs
	ExitCode *int   `json:"exit_code,omitempty"` // of commands
	Line     int    `json:"line,omitempty"`      // in the pipeline's source, from 1
	Column   int    `json:"column,omitempty"`
	// RetryAfter is how long the other side asked to be left alone, in seconds.
	RetryAfter float64 `json:"retry_after,omitempty"`
}

func (f *Failure) Error() string {
	if f.Step != "" {
		return fmt.Sprintf("step %s: %s", f.Step, f.Message)
	}
	return f.Message
}

// Failuref builds a failure of a category.
func Failuref(category, format string, args ...any) *Failure {
	return &Failure{Kind: category, Message: fmt.Sprintf(format, args...)}
}

// Severity of a diagnostic.
type Severity string

// The severities. Only errors refuse a pipeline.
const (
	SeverityError   Severity = "error"
	SeverityWarning Severity = "warning"
	SeverityInfo    Severity = "info"
)

// Diagnostic is one finding about a pipeline's source. Lines and columns count
// from 1, columns in code points; the end is exclusive.
type Diagnostic struct {
	Code      string    `json:"code"`
	Severity  Severity  `json:"severity"`
	Message   string    `json:"message"`
	File      string    `json:"file"`
	Line      int       `json:"line"`
	Column    int       `json:"column"`
	EndLine   int       `json:"end_line"`
	EndColumn int       `json:"end_column"`
	Step      string    `json:"step"` // the step's path of ids, empty outside steps
	Path      string    `json:"path"` // the field, as in parameters.code
	Hint      string    `json:"hint"`
	Related   []Related `json:"related"`
	Excerpt   string    `json:"-"` // the source line
}

// Related is a second place that a diagnostic speaks of.
type Related struct {
	Message string `json:"message"`
	File    string `json:"file"`
	Line    int    `json:"line"`
	Column  int    `json:"column"`
}

// Diagnostics is the error of a pipeline that was refused, and the list of
// findings of one that was accepted with warnings.
type Diagnostics struct {
	List      []Diagnostic
	Truncated int // findings beyond the first 50
}

// HasErrors reports whether any finding refuses the pipeline.
func (d *Diagnostics) HasErrors() bool {
	for i := range d.List {
		if d.List[i].Severity == SeverityError {
			return true
		}
	}
	return false
}

func (d *Diagnostics) Error() string {
	n := 0
	first := ""
	for i := range d.List {
		if d.List[i].Severity == SeverityError {
			if n == 0 {
				first = fmt.Sprintf("%s:%d:%d: %s: %s", d.List[i].File, d.List[i].Line, d.List[i].Column, d.List[i].Code, d.List[i].Message)
			}
			n++
		}
	}
	if n > 1 {
		return fmt.Sprintf("%s (and %d more)", first, n-1+d.Truncated)
	}
	return first
}
