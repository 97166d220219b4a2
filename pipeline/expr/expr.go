// Package expr evaluates the expressions of pipelines: Jinja2, as far as it is
// pure on JSON values. It owns the syntax, the values and their text form, the
// closed tables of filters, tests and functions, and the limits of an
// evaluation. It does no I/O; what touches the world (now, list_files,
// file_exists, include_file, collect_results) is handed in by Host.
//
// A Template is compiled once and may be evaluated by many goroutines at once:
//
//	t, err := expr.Compile("{{ objs | map(attribute='name') | join(', ') }}")
//	if err != nil { ... } // *Error with a byte span, or Errors
//	v, err := t.Eval(&expr.Env{Scope: expr.MapScope{"objs": objs}})
//
// One evaluation has at most 100,000 operations, 1 MiB of output, 16 MiB of texts
// and 1,048,576 list elements that it makes on the way. A pass of a for statement
// and each part of an expression in it is an operation; an element that a filter
// such as map, selectattr, sort, join or unique visits by itself is the 64th part
// of one. So a list of 100,000 elements passes through a chain of filters, but not
// through {% for %}: such lists are for the for steps of a pipeline.
//
// Where the package differs from Jinja2, on purpose (testdata/deviations.md shows
// each of them by an example):
//
//   - A text that looks like a literal stays text; {{ n }}{{ n }} is "55".
//   - None prints empty; booleans print true and false; lists and maps print as
//     JSON (Python's spacing, keys sorted, no escapes but those JSON demands).
//   - Maps iterate in sorted key order. Keys are texts; m.x is always the key x,
//     m.items() always the method.
//   - Values cannot be changed: no append, update or pop.
//   - Integers are exact within int64, floats finite; anything else is an error.
//   - x if c, without else, is null when c is false; null is a spelling of none.
//   - Lazy sequences are lists; an undefined attribute is an error at once.
//   - There are no macros, imports, includes, blocks or namespaces, and no HTML
//     safety: escape is a plain text filter.
package expr

import (
	"strings"
	"time"
)

// Object is a value with attributes of its own: a step, steps, run. In
// attribute access and in an index by name it is asked by Attr; anywhere else it
// stands for Value(). Both must be safe for concurrent use and must not block.
type Object interface {
	// Attr returns the attribute; ok is false where there is none of that name.
	Attr(name string) (v any, ok bool)
	// Value returns a plain value: nil, bool, int64, float64, string, []any or
	// map[string]any, without Objects inside. Callers do not change it.
	Value() any
}

// Scope resolves the free names of a template. The value is plain (without
// Objects inside), an Object, or NullState; ok is false for an unknown name.
// Lookup may be called several times for one name in one evaluation.
//
// A Scope or Object that has a method Names() []string gets better messages.
type Scope interface {
	Lookup(name string) (v any, ok bool)
}

// MapScope is a Scope over a map.
type MapScope map[string]any

// Lookup returns the value of the key.
func (m MapScope) Lookup(name string) (any, bool) {
	v, ok := m[name]
	return v, ok
}

type nullState struct{}

// NullState is null, and so are its attributes and elements: the value of a state
// variable before its first assignment. It leaves an evaluation as nil.
var NullState any = nullState{}

// Host gives the functions that are not pure; calling one whose member is nil is
// an error.
type Host struct {
	Now         func() time.Time                       // now()
	ListFiles   func(pattern string) ([]string, error) // list_files(pattern)
	FileExists  func(path string) (bool, error)        // file_exists(path)
	IncludeFile func(path string) (string, error)      // include_file(path)
	Collect     func() (any, error)                    // collect_results()
}

// Env is what one evaluation sees. A nil Scope holds no names.
type Env struct {
	Scope Scope
	Host  Host
}

// Span is a range of bytes in the source of a template; End is exclusive.
type Span struct{ Off, End int }

// Ref is a reference to a free name, with the constant attributes and indexes
// that follow it.
type Ref struct {
	Root    string    // the free name; names bound by for and set are not free
	Path    []Segment // what follows: .name, ['name'], [0]; ends before a method
	Off     int       // byte span of the root name
	End     int
	Guarded bool   // the last name may be undefined: under default, is defined, or a condition that proves it
	Dashed  string // the joined name, where this ref is a part or the whole of one (see Template.Dashes)
}

// Segment is one step of a path.
type Segment struct {
	Name     string
	Index    int64
	IsIndex  bool
	Off, End int // byte span of the name or index, without dot or brackets
}

// Dash is a NAME-NAME chain without blanks, such as web-search. It is a
// subtraction, unless the scope has the joined name and none of its parts. Of
// a-b-c the chain b-c is listed too: it may be a minus b-c.
type Dash struct {
	Name     string   // web-search
	Base     []string // the constant path before it: steps in steps.web-search
	Off, End int
}

// Error is a fault in a template or in its evaluation.
type Error struct {
	Code     string // E0205 syntax, E0206 unknown filter, test or function, E0207 arity, E0201 undefined name, "" else
	Text     string
	Hint     string // what to do about it, or empty
	Off, End int    // byte span in the source
}

// Error returns the text and the hint; the span is for the caller to show.
func (e *Error) Error() string {
	s := e.Text
	if e.Hint != "" {
		s += " (" + e.Hint + ")"
	}
	if e.Code != "" {
		s = e.Code + ": " + s
	}
	return s
}

// Errors are several faults of one template, in order of appearance.
type Errors []*Error

func (e Errors) Error() string {
	var b strings.Builder
	for i, x := range e {
		if i > 0 {
			b.WriteString("; ")
		}
		b.WriteString(x.Error())
	}
	return b.String()
}

// Unwrap makes errors.As find the first fault.
func (e Errors) Unwrap() []error {
	out := make([]error, len(e))
	for i, x := range e {
		out[i] = x
	}
	return out
}
