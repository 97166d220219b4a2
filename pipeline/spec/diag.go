package spec

import (
	"fmt"
	"slices"
	"sort"
	"strings"

	"github.com/orchestrator-project/orchestrator/pipeline"
)

// maxDiagnostics is how many findings are reported; the rest is counted.
const maxDiagnostics = 50

// fault is a finding before it is placed: what is wrong, where in the source,
// and what to do about it.
type fault struct {
	code string
	at   span
	msg  string
	hint string
	step string // the step's path of ids
	path string // the field
}

// finding names a printed finding, so that content used twice by an alias, or
// seen by two checks, is reported once.
type finding struct {
	code string
	at   span
	msg  string
}

// findings collects what is found out about a source.
type findings struct {
	text *text
	more []*text // files that belong to it, see join
	list []pipeline.Diagnostic
	seen map[finding]bool
	errs int
}

func newFindings(t *text) *findings {
	return &findings{text: t, seen: map[finding]bool{}}
}

func (f *findings) error(x fault, related ...pipeline.Related) {
	f.add(pipeline.SeverityError, x, related)
}

func (f *findings) warn(x fault, related ...pipeline.Related) {
	f.add(pipeline.SeverityWarning, x, related)
}

func (f *findings) add(sev pipeline.Severity, x fault, related []pipeline.Related) {
	x.msg, x.hint = clip(x.msg, 400), clip(x.hint, 800)
	key := finding{x.code, x.at, x.msg}
	if f.seen[key] {
		return
	}
	f.seen[key] = true
	if sev == pipeline.SeverityError {
		f.errs++
	}
	t := f.textAt(x.at.off)
	d := pipeline.Diagnostic{Code: x.code, Severity: sev, Message: x.msg, Hint: x.hint, File: t.file, Step: x.step, Path: x.path, Related: related}
	d.Line, d.Column = t.place(x.at.off - t.base)
	d.EndLine, d.EndColumn = t.place(x.at.end - t.base)
	if d.EndLine < d.Line || d.EndLine == d.Line && d.EndColumn <= d.Column {
		d.EndLine, d.EndColumn = d.Line, d.Column+1
	}
	d.Excerpt = t.lineText(d.Line)
	f.list = append(f.list, d)
}

// clip shortens a text that quotes an overlong part of the source.
func clip(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return strings.ToValidUTF8(s[:n*3/4], "") + " ... " + strings.ToValidUTF8(s[len(s)-n/4:], "")
}

// related points at a second place.
func (f *findings) related(off int, format string, args ...any) pipeline.Related {
	t := f.textAt(off)
	ln, col := t.place(off - t.base)
	return pipeline.Related{Message: fmt.Sprintf(format, args...), File: t.file, Line: ln, Column: col}
}

// join makes offsets from the text's base on places in another file, such as a
// prompt's.
func (f *findings) join(t *text) {
	last := f.text
	if len(f.more) > 0 {
		last = f.more[len(f.more)-1]
	}
	t.base = last.base + len(last.src) + 2
	f.more = append(f.more, t)
}

func (f *findings) textAt(off int) *text {
	for _, t := range slices.Backward(f.more) {
		if off >= t.base {
			return t
		}
	}
	return f.text
}

// diagnostics sorts the findings by place, those of others behind. Where they
// are too many, errors are kept before warnings.
func (f *findings) diagnostics(others ...*findings) *pipeline.Diagnostics {
	list := slices.Clone(f.list)
	file := map[string]int{f.text.file: 0}
	for i, o := range others {
		list = append(list, o.list...)
		file[o.text.file] = i + 1
	}
	// A template that is wrong is mended first; how to quote it comes later.
	type field struct{ file, step, path string }
	wrong := map[field]bool{}
	for i := range list {
		if d := &list[i]; d.Severity == pipeline.SeverityError {
			wrong[field{d.File, d.Step, d.Path}] = true
		}
	}
	list = slices.DeleteFunc(list, func(d pipeline.Diagnostic) bool {
		return d.Code == "W0601" && wrong[field{d.File, d.Step, d.Path}]
	})
	byPlace := func(i, j int) bool {
		a, b := &list[i], &list[j]
		if a.File != b.File {
			if x, y := file[a.File], file[b.File]; x != y {
				return x < y
			}
			return a.File < b.File
		}
		if a.Line != b.Line {
			return a.Line < b.Line
		}
		if a.Column != b.Column {
			return a.Column < b.Column
		}
		return a.Code < b.Code
	}
	sort.SliceStable(list, byPlace)
	d := &pipeline.Diagnostics{List: list}
	if len(list) > maxDiagnostics {
		sort.SliceStable(list, func(i, j int) bool {
			return list[i].Severity == pipeline.SeverityError && list[j].Severity != pipeline.SeverityError
		})
		d.Truncated = len(list) - maxDiagnostics
		list = list[:maxDiagnostics:maxDiagnostics]
		sort.SliceStable(list, byPlace)
		d.List = list
	}
	return d
}
