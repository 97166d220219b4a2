package spec

import (
	"bytes"
	"fmt"
	"io"
	"strconv"
	"strings"
	"unicode"

	"github.com/orchestrator-project/orchestrator/pipeline"
)

// excerptWidth is how much of a source line is shown.
const excerptWidth = 120

// Format prints findings for people: a line with place, severity, code and
// message, the line of the source with the place underlined, the step and field,
// other places, and what to do. A colour is written as an ANSI sequence.
func Format(w io.Writer, d *pipeline.Diagnostics, color bool) {
	if d == nil {
		return
	}
	var b bytes.Buffer
	for i := range d.List {
		formatOne(&b, &d.List[i], color)
	}
	if d.Truncated > 0 {
		fmt.Fprintf(&b, "and %d more\n", d.Truncated)
	}
	_, _ = w.Write(b.Bytes())
}

func formatOne(b *bytes.Buffer, d *pipeline.Diagnostic, color bool) {
	paint := func(sequence, s string) string {
		if !color {
			return s
		}
		return "\x1b[" + sequence + "m" + s + "\x1b[0m"
	}
	hue := map[pipeline.Severity]string{pipeline.SeverityError: "1;31", pipeline.SeverityWarning: "1;33"}[d.Severity]
	if hue == "" {
		hue = "1;36"
	}
	if d.File != "" || d.Line > 0 {
		file := d.File
		if file == "" {
			file = "line"
		}
		b.WriteString(paint("1", fmt.Sprintf("%s:%d:%d:", file, d.Line, d.Column)))
		b.WriteByte(' ')
	}
	fmt.Fprintf(b, "%s: %s\n", paint(hue, string(d.Severity)+" "+d.Code), printable(d.Message))
	if d.Excerpt != "" {
		line, marks := excerpt(d)
		number := strconv.Itoa(d.Line)
		fmt.Fprintf(b, "%5s | %s\n", number, line)
		fmt.Fprintf(b, "%s | %s\n", strings.Repeat(" ", max(5, len(number))), paint(hue, marks))
	}
	switch {
	case d.Step != "" && d.Path != "":
		fmt.Fprintf(b, "   step %s, %s\n", d.Step, d.Path)
	case d.Step != "":
		fmt.Fprintf(b, "   step %s\n", d.Step)
	case d.Path != "":
		fmt.Fprintf(b, "   %s\n", d.Path)
	}
	for _, r := range d.Related {
		fmt.Fprintf(b, "   %s:%d:%d: %s\n", r.File, r.Line, r.Column, printable(r.Message))
	}
	if d.Hint != "" {
		fmt.Fprintf(b, "   hint: %s\n", printable(d.Hint))
	}
}

// excerpt gives the part of the source line around the finding, and the marks
// under it.
func excerpt(d *pipeline.Diagnostic) (text, marks string) {
	rs := []rune(d.Excerpt)
	from := min(max(d.Column-1, 0), len(rs))
	to := len(rs)
	if d.EndLine == d.Line {
		to = min(max(d.EndColumn-1, from), len(rs))
	}
	begin := 0
	if len(rs) > excerptWidth {
		begin = max(0, min(from-excerptWidth/3, len(rs)-excerptWidth))
		end := min(begin+excerptWidth, len(rs))
		to = min(to, end)
		rs = rs[:end]
	}
	var line, under strings.Builder
	if begin > 0 {
		line.WriteString("...")
		under.WriteString("   ")
	}
	mark := func(i int, width int) {
		b := byte(' ')
		if i >= from && i < to || i == from {
			b = '^'
		}
		for range width {
			under.WriteByte(b)
		}
	}
	for i := begin; i < len(rs); i++ {
		r := rs[i]
		switch {
		case r == '\t':
			line.WriteByte('\t')
			if i >= from && i < to {
				under.WriteByte('^')
			}
			under.WriteByte('\t')
		case unicode.IsControl(r) || r == unicode.ReplacementChar:
			line.WriteRune(unicode.ReplacementChar)
			mark(i, 1)
		default:
			line.WriteRune(r)
			mark(i, columns(r))
		}
	}
	if from >= len(rs) {
		mark(from, 1)
	}
	return line.String(), strings.TrimRight(under.String(), " \t")
}

// columns is about how many columns of a terminal a character takes.
func columns(r rune) int {
	switch {
	case unicode.In(r, unicode.Mn, unicode.Me, unicode.Cf):
		return 0
	case r >= 0x1100 && r <= 0x115f, r >= 0x2e80 && r <= 0xa4cf, r >= 0xac00 && r <= 0xd7a3, r >= 0xf900 && r <= 0xfaff,
		r >= 0xfe30 && r <= 0xfe6f, r >= 0xff00 && r <= 0xff60, r >= 0xffe0 && r <= 0xffe6, r >= 0x1f300 && r <= 0x1faff, r >= 0x20000 && r <= 0x3fffd:
		return 2
	}
	return 1
}

// printable keeps messages, which may quote the source, on one line and free of
// control sequences.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\t':
			return ' '
		case unicode.IsControl(r):
			return unicode.ReplacementChar
		}
		return r
	}, s)
}
