package web

import (
	"strings"

	api "github.com/orchestrator-project/orchestrator/proto/orchestrator/v1"
)

// sourceMost is how many lines of a definition a page shows.
const sourceMost = 3000

// sourceLine is a line of YAML, coloured.
type sourceLine struct {
	N      int32
	Pieces []piece
	Marked bool
	Step   string // a step of the plan begins here
	Href   string
}

// definitionData is the source of a run or of a registered pipeline.
type definitionData struct {
	Digest string
	File   string
	Source string
	Lines  []sourceLine
	Left   int        // lines that are not shown
	Filled filledList // values of the <AUTO> tags of a run
}

// definition marks where the steps of the view's plan begin.
func (v *view) definition(def *api.Definition, sc screen) definitionData {
	d := definitionData{Digest: def.GetPlanDigest(), File: def.GetFile(), Source: def.GetSource()}
	d.Lines, d.Left = source(def.GetSource())
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, n := range v.graph.GetNodes() {
		if i := int(n.GetLine()) - 1; i >= 0 && i < len(d.Lines) {
			d.Lines[i].Step = n.GetId()
			d.Lines[i].Href = sc.with("tab", "steps", "under", v.graph.instance(n), "step", "")
		}
	}
	return d
}

// source colours a text and cuts it.
func source(text string) ([]sourceLine, int) {
	lines := strings.Split(strings.TrimSuffix(text, "\n"), "\n")
	left := max(0, len(lines)-sourceMost)
	lines = lines[:len(lines)-left]
	out := make([]sourceLine, len(lines))
	for i, l := range lines {
		out[i] = sourceLine{N: int32(i + 1), Pieces: colours(strings.TrimSuffix(l, "\r"))}
	}
	return out, left
}

// excerpt returns the lines around one, which is marked.
func excerpt(text string, line, before, after int32) []sourceLine {
	all, _ := source(text)
	lo, hi := max(0, line-1-before), min(int32(len(all)), line+after)
	if lo >= hi {
		return nil
	}
	out := all[lo:hi]
	for i := range out {
		out[i].Marked = out[i].N == line
	}
	return out
}

// colours takes line apart: comment, key, text, template. It is a reading aid and
// no parser; static/editor.js colours the editor the same way.
func colours(line string) []piece {
	var out []piece
	add := func(text, class string) {
		if text != "" {
			out = append(out, piece{Text: text, Class: class})
		}
	}
	rest := line
	indent := len(rest) - len(strings.TrimLeft(rest, " -"))
	add(rest[:indent], "")
	rest = rest[indent:]
	if !strings.HasPrefix(rest, "#") {
		if k := keyEnd(rest); k > 0 {
			add(rest[:k], "y-key")
			add(rest[k:k+1], "y-mark")
			rest = rest[k+1:]
		}
	}
	for rest != "" {
		switch {
		case strings.HasPrefix(rest, "{{") || strings.HasPrefix(rest, "{%"):
			end := closing(rest, map[string]string{"{{": "}}", "{%": "%}"}[rest[:2]])
			add(rest[:end], "y-expr")
			rest = rest[end:]
		case rest[0] == '#' && (len(out) == 0 || endsBlank(out)):
			add(rest, "y-note")
			rest = ""
		case strings.HasPrefix(rest, "<AUTO") || strings.HasPrefix(rest, "</AUTO"):
			end := closing(rest, ">")
			add(rest[:end], "y-expr")
			rest = rest[end:]
		default:
			end := 1
			for end < len(rest) && !strings.ContainsRune("{#<", rune(rest[end])) {
				end++
			}
			add(rest[:end], "")
			rest = rest[end:]
		}
	}
	return out
}

// keyEnd is where a key at the start of s ends, or 0.
func keyEnd(s string) int {
	for i := range len(s) {
		switch c := s[i]; {
		case c == ':' && i > 0 && (i+1 == len(s) || s[i+1] == ' '):
			return i
		case c == ' ' || c == '{' || c == '[' || c == '"' || c == '\'' || c == '#':
			return 0
		}
	}
	return 0
}

func closing(s, mark string) int {
	if i := strings.Index(s, mark); i >= 0 {
		return i + len(mark)
	}
	return len(s)
}

func endsBlank(out []piece) bool {
	last := out[len(out)-1].Text
	return last == "" || last[len(last)-1] == ' ' || strings.TrimLeft(last, " -") == ""
}
