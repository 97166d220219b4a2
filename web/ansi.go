package web

import (
	"context"
	"io"
	"strconv"
	"strings"

	"github.com/a-h/templ"
)

// piece is a part of a log line in one look. Its text is always shown as text.
type piece struct {
	Text  string
	Class string // of static/app.css: bold, dim, italic, underline, fg-1 ... fg-15
}

// look is what escape sequences have set so far.
type look struct {
	bold, dim, italic, underline bool
	fg                           int // -1: none
}

func (l look) class() string {
	var c []string
	for _, x := range []struct {
		on   bool
		name string
	}{{l.bold, "bold"}, {l.dim, "dim"}, {l.italic, "italic"}, {l.underline, "underline"}} {
		if x.on {
			c = append(c, x.name)
		}
	}
	if l.fg >= 0 {
		c = append(c, "fg-"+strconv.Itoa(l.fg))
	}
	return strings.Join(c, " ")
}

// ansi takes a line of a terminal apart: colours become classes, every other
// control sequence vanishes, and a carriage return overwrites the line.
func ansi(line string) []piece {
	line = strings.TrimRight(line, "\r\n")
	if i := strings.LastIndexByte(line, '\r'); i >= 0 {
		line = line[i+1:]
	}
	if !strings.ContainsFunc(line, control) {
		return []piece{{Text: line}}
	}
	var out []piece
	var text strings.Builder
	now := look{fg: -1}
	flush := func() {
		if text.Len() > 0 {
			out = append(out, piece{Text: text.String(), Class: now.class()})
			text.Reset()
		}
	}
	for i := 0; i < len(line); {
		c := line[i]
		switch {
		case c == 0x1b:
			end, params, colour := sequence(line, i)
			if colour {
				flush()
				now.set(params)
			}
			i = end
		case c < 0x20 && c != '\t' || c == 0x7f:
			i++
		default:
			text.WriteByte(c)
			i++
		}
	}
	flush()
	return out
}

func control(r rune) bool { return r < 0x20 && r != '\t' || r == 0x7f }

// sequence reads the escape sequence at i and returns where it ends.
func sequence(s string, i int) (end int, params string, colour bool) {
	i++
	if i >= len(s) {
		return i, "", false
	}
	switch s[i] {
	case '[': // CSI: parameters, then a final byte
		start := i + 1
		for j := start; j < len(s); j++ {
			if s[j] >= 0x40 && s[j] <= 0x7e {
				return j + 1, s[start:j], s[j] == 'm'
			}
		}
		return len(s), "", false
	case ']', 'P', '_', '^', 'X': // strings up to BEL or ST
		for j := i + 1; j < len(s); j++ {
			if s[j] == 0x07 {
				return j + 1, "", false
			}
			if s[j] == 0x1b && j+1 < len(s) && s[j+1] == '\\' {
				return j + 2, "", false
			}
		}
		return len(s), "", false
	}
	return i + 1, "", false
}

// set applies the parameters of a colour sequence.
func (l *look) set(params string) {
	codes := strings.FieldsFunc(params, func(r rune) bool { return r == ';' || r == ':' })
	if len(codes) == 0 {
		*l = look{fg: -1}
	}
	for i := 0; i < len(codes); i++ {
		n, err := strconv.Atoi(codes[i])
		if err != nil {
			return
		}
		switch {
		case n == 0:
			*l = look{fg: -1}
		case n == 1:
			l.bold = true
		case n == 2:
			l.dim = true
		case n == 3:
			l.italic = true
		case n == 4:
			l.underline = true
		case n == 22:
			l.bold, l.dim = false, false
		case n == 23:
			l.italic = false
		case n == 24:
			l.underline = false
		case n >= 30 && n <= 37:
			l.fg = n - 30
		case n >= 90 && n <= 97:
			l.fg = n - 90 + 8
		case n == 39:
			l.fg = -1
		case n == 38 || n == 48: // 256 colours and true colour: only the first sixteen have a look
			skip := 2
			if i+1 < len(codes) && codes[i+1] == "2" {
				skip = 4
			} else if n == 38 && i+2 < len(codes) {
				if c, err := strconv.Atoi(codes[i+2]); err == nil && c >= 0 && c < 16 {
					l.fg = c
				}
			}
			i += skip
		}
	}
}

// pieces writes parts of a line without adding blanks between them.
func pieces(list []piece) templ.Component {
	return templ.ComponentFunc(func(_ context.Context, w io.Writer) error {
		var b strings.Builder
		for _, p := range list {
			if p.Class == "" {
				b.WriteString(templ.EscapeString(p.Text))
				continue
			}
			b.WriteString(`<span class="` + templ.EscapeString(p.Class) + `">` + templ.EscapeString(p.Text) + `</span>`)
		}
		_, err := io.WriteString(w, b.String())
		return err
	})
}
