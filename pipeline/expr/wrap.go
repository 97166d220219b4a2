package expr

import (
	"slices"
	"strings"
	"unicode"
)

// wrapLine is the algorithm of Python's textwrap: chunks fill lines of width
// characters; white space at both ends of a line goes.
func wrapLine(line []rune, width int, long, hyphens bool) []string {
	chunks := chunksOf(line, hyphens)
	var lines []string
	for len(chunks) > 0 {
		var cur []rune
		var ends []int // where each chunk of cur starts
		if len(lines) > 0 && isBlank(chunks[0]) {
			chunks = chunks[1:]
		}
		for len(chunks) > 0 && len(cur)+len(chunks[0]) <= width {
			ends = append(ends, len(cur))
			cur = append(cur, chunks[0]...)
			chunks = chunks[1:]
		}
		if len(chunks) > 0 && len(chunks[0]) > width {
			word := chunks[0]
			switch {
			case long:
				cut := width - len(cur)
				if i := lastHyphen(word[:min(cut, len(word))]); hyphens && i > 0 {
					cut = i + 1
				}
				ends = append(ends, len(cur))
				cur = append(cur, word[:cut]...)
				chunks[0] = word[cut:]
			case len(cur) == 0:
				ends = append(ends, 0)
				cur = slices.Clone(word)
				chunks = chunks[1:]
			}
		}
		if n := len(ends); n > 0 && isBlank(cur[ends[n-1]:]) {
			cur = cur[:ends[n-1]]
		}
		if len(cur) > 0 {
			lines = append(lines, string(cur))
		}
	}
	return lines
}

func isBlank(r []rune) bool {
	return !slices.ContainsFunc(r, func(c rune) bool { return !unicode.IsSpace(c) })
}

// lastHyphen returns the last hyphen that has something else before it.
func lastHyphen(r []rune) int {
	for i, c := range slices.Backward(r) {
		if c == '-' && slices.ContainsFunc(r[:i], func(c rune) bool { return c != '-' }) {
			return i
		}
	}
	return -1
}

// chunksOf cuts a line into white space, words, dashes between words and, with
// hyphens, the parts of hyphenated words.
func chunksOf(r []rune, hyphens bool) [][]rune {
	var out [][]rune
	start := 0
	cut := func(i int) {
		if i > start {
			out = append(out, r[start:i])
			start = i
		}
	}
	at := func(i int) rune {
		if i < 0 || i >= len(r) {
			return 0
		}
		return r[i]
	}
	letter := func(i int) bool { c := at(i); return c == '_' || unicode.IsLetter(c) }
	for i := 0; i < len(r); i++ {
		switch {
		case i > 0 && unicode.IsSpace(r[i]) != unicode.IsSpace(r[i-1]):
			cut(i)
		case r[i] == '-' && at(i+1) == '-' && hyphens:
			j := i
			for at(j) == '-' {
				j++
			}
			if p := at(i - 1); (isWord(p) || strings.ContainsRune(`!"'&.,?`, p)) && isWord(at(j)) {
				cut(i)
				cut(j)
			}
			i = j - 1
		case r[i] == '-' && hyphens:
			before := letter(i-1) && (letter(i-2) || at(i-2) == '-' && letter(i-3))
			after := letter(i+1) && (letter(i+2) || at(i+2) == '-' && letter(i+3))
			if before && after {
				cut(i + 1)
			}
		}
	}
	cut(len(r))
	return out
}
