package spec

import (
	"fmt"
	"sort"
	"strings"
	"unicode/utf8"

	"github.com/orchestrator-project/orchestrator/pipeline"
)

// maxSource is the largest pipeline source, in bytes.
const maxSource = 4 << 20

// span is a range of bytes in the source; the end is exclusive.
type span struct{ off, end int }

// text is the source with its lines. Line breaks are all \n and a byte order
// mark is gone; neither moves a line or a column.
type text struct {
	file  string
	src   string
	base  int // of its offsets among those of all files of a compiler
	lines []line
}

type line struct {
	off   int
	ascii bool
	runes []int32 // byte offset of every 64th code point; of long lines that are not ASCII
}

// runeStep is the distance of the offsets kept in line.runes.
const runeStep = 64

// newText checks that src is text that YAML can hold, and finds its lines.
func newText(file, src string) (*text, *fault) {
	if len(src) > maxSource {
		return &text{file: file, lines: []line{{ascii: true}}}, &fault{code: "E0103", msg: fmt.Sprintf("the pipeline is %.1f MiB; at most %d MiB are read", float64(len(src))/(1<<20), maxSource>>20)}
	}
	src = strings.TrimPrefix(src, "\ufeff")
	if strings.IndexByte(src, '\r') >= 0 {
		src = strings.ReplaceAll(src, "\r\n", "\n")
		src = strings.ReplaceAll(src, "\r", "\n")
	}
	t := &text{file: file, src: src, lines: make([]line, 0, strings.Count(src, "\n")+1)}
	start, ascii := 0, true
	var bad *fault
	for i := 0; i < len(src); {
		c := src[i]
		if c < utf8.RuneSelf {
			i++
			switch {
			case c == '\n':
				t.lines = append(t.lines, line{off: start, ascii: ascii})
				start, ascii = i, true
			case (c < 0x20 && c != '\t' || c == 0x7f) && bad == nil:
				bad = &fault{code: "E0101", at: span{i - 1, i}, msg: fmt.Sprintf("control character U+%04X", c), hint: "in double quotes it can be written as an escape"}
			}
			continue
		}
		ascii = false
		r, n := utf8.DecodeRuneInString(src[i:])
		if bad == nil {
			switch {
			case r == utf8.RuneError && n == 1:
				bad = &fault{code: "E0101", at: span{i, i + 1}, msg: fmt.Sprintf("not UTF-8: byte 0x%02X", src[i])}
			case r < 0xa0 || r == 0x2028 || r == 0x2029 || r == 0xfeff || r == 0xfffe || r == 0xffff:
				bad = &fault{code: "E0101", at: span{i, i + n}, msg: fmt.Sprintf("invisible character U+%04X", r), hint: "in double quotes it can be written as an escape"}
			}
		}
		i += n
	}
	t.lines = append(t.lines, line{off: start, ascii: ascii})
	return t, bad
}

// offset is the byte offset of a line and column, from 1.
func (t *text) offset(ln, col int) int {
	if ln < 1 {
		return 0
	}
	if ln > len(t.lines) {
		return len(t.src)
	}
	l := &t.lines[ln-1]
	end := len(t.src)
	if ln < len(t.lines) {
		end = t.lines[ln].off - 1
	}
	if l.ascii {
		return min(l.off+max(col-1, 0), end)
	}
	l.index(t.src[l.off:end])
	k := min((col-1)/runeStep, len(l.runes)-1)
	off := l.off + int(l.runes[k])
	for n := col - 1 - k*runeStep; n > 0 && off < end; n-- {
		_, w := utf8.DecodeRuneInString(t.src[off:end])
		off += w
	}
	return off
}

// place is the line and column of a byte offset, from 1.
func (t *text) place(off int) (ln, col int) {
	off = min(max(off, 0), len(t.src))
	i := sort.Search(len(t.lines), func(i int) bool { return t.lines[i].off > off }) - 1
	l := &t.lines[i]
	if l.ascii {
		return i + 1, off - l.off + 1
	}
	end := len(t.src)
	if i+1 < len(t.lines) {
		end = t.lines[i+1].off - 1
	}
	l.index(t.src[l.off:end])
	k := sort.Search(len(l.runes), func(k int) bool { return l.off+int(l.runes[k]) > off }) - 1
	from := l.off + int(l.runes[k])
	return i + 1, k*runeStep + utf8.RuneCountInString(t.src[from:max(off, from)]) + 1
}

func (l *line) index(s string) {
	if l.runes != nil {
		return
	}
	n := 0
	for i := range s {
		if n%runeStep == 0 {
			l.runes = append(l.runes, int32(i)) //nolint:gosec // a source is at most 4 MiB
		}
		n++
	}
	if l.runes == nil {
		l.runes = []int32{0}
	}
}

// lines finds the lines of a text that newText has checked in another form.
func lines(file, src string) *text {
	t := &text{file: file, src: src}
	for start := 0; ; {
		end := strings.IndexByte(src[start:], '\n')
		if end < 0 {
			end = len(src) - start
		}
		ascii := true
		for i := start; ascii && i < start+end; i++ {
			ascii = src[i] < utf8.RuneSelf
		}
		t.lines = append(t.lines, line{off: start, ascii: ascii})
		if start += end + 1; start > len(src) {
			return t
		}
	}
}

func (t *text) pos(off int) pipeline.Pos {
	ln, col := t.place(off)
	return pipeline.Pos{Line: ln, Column: col}
}

// lineText is the text of a line, from 1.
func (t *text) lineText(ln int) string {
	if ln < 1 || ln > len(t.lines) {
		return ""
	}
	end := len(t.src)
	if ln < len(t.lines) {
		end = t.lines[ln].off - 1
	}
	return t.src[t.lines[ln-1].off:end]
}

// lineEnd is the offset of the end of the line that holds off.
func (t *text) lineEnd(off int) int {
	i := sort.Search(len(t.lines), func(i int) bool { return t.lines[i].off > off })
	if i < len(t.lines) {
		return t.lines[i].off - 1
	}
	return len(t.src)
}
