package main

import (
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/charmbracelet/x/ansi"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/orchestrator-project/orchestrator/proto/human"
)

// took is how long something has lasted, or nothing before its begin.
func took(from, to *timestamppb.Timestamp, now time.Time) string {
	if from == nil {
		return ""
	}
	end := now
	if to != nil {
		end = to.AsTime()
	}
	return human.Span(end.Sub(from.AsTime()))
}

func plural(n int, word string) string {
	if n != 1 && strings.HasSuffix(word, "s") {
		return strconv.Itoa(n) + " " + word + "es"
	}
	if n == 1 {
		return "1 " + word
	}
	return strconv.Itoa(n) + " " + word + "s"
}

// table prints rows in columns that are aligned by what is seen of them.
func table(w io.Writer, rows [][]string) {
	var widths []int
	for _, row := range rows {
		for i, cell := range row {
			if i == len(widths) {
				widths = append(widths, 0)
			}
			widths[i] = max(widths[i], ansi.StringWidth(cell))
		}
	}
	for _, row := range rows {
		var b strings.Builder
		for i, cell := range row {
			b.WriteString(cell)
			if i < len(row)-1 {
				b.WriteString(strings.Repeat(" ", widths[i]-ansi.StringWidth(cell)+2))
			}
		}
		fmt.Fprintln(w, strings.TrimRight(b.String(), " "))
	}
}

// dim is text of less weight.
func dim(s string) string {
	if s == "" {
		return ""
	}
	return faint.Render(s)
}

// cut shortens a line to a width on the screen.
func cut(s string, width int) string { return ansi.Truncate(s, max(width, 1), "…") }

// harmlessLine is a line of foreign text as it may stand on a terminal: no
// escape sequences, no control characters.
func harmlessLine(s string) string {
	s = ansi.Strip(strings.ToValidUTF8(s, "\uFFFD"))
	s = strings.ReplaceAll(s, "\t", "    ")
	return strings.Map(func(r rune) rune {
		if r < 0x20 || r == 0x7f || (r >= 0x80 && r < 0xa0) {
			return -1
		}
		return r
	}, s)
}

// harmless is harmlessLine of several lines.
func harmless(s string) string {
	lines := strings.Split(s, "\n")
	for i := range lines {
		lines[i] = harmlessLine(lines[i])
	}
	return strings.Join(lines, "\n")
}

// shellWord quotes a word for a POSIX shell if it must be.
func shellWord(s string) string {
	plain := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("-_./=,:@+%", r)
	}
	if s != "" && !slices.ContainsFunc([]rune(s), func(r rune) bool { return !plain(r) }) {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
