package web

import (
	"strings"
	"testing"

	api "github.com/orchestrator-project/orchestrator/proto/orchestrator/v1"
)

func TestAnsiColoursBecomeClassesAndNothingElse(t *testing.T) {
	for _, c := range []struct {
		line string
		want []piece
	}{
		{"plain <b>", []piece{{Text: "plain <b>"}}},
		{"\x1b[31mred\x1b[0m x", []piece{{"red", "fg-1"}, {" x", ""}}},
		{"\x1b[1;92mok\x1b[39m bold\x1b[m.", []piece{{"ok", "bold fg-10"}, {" bold", "bold"}, {".", ""}}},
		{"\x1b[38;5;3mamber\x1b[38;2;1;2;3mstill", []piece{{"amber", "fg-3"}, {"still", "fg-3"}}},
		{"\x1b]0;title\x07a\x1b[2Kb\x1b]8;;http://x\x1b\\c", []piece{{"abc", ""}}},
		{"10%\r20%\r100%\r\n", []piece{{Text: "100%"}}},
		{"a\x00\x08b\tc", []piece{{"ab\tc", ""}}},
		{"\x1b[31", nil},
		{"\x1b", nil},
	} {
		got := ansi(c.line)
		if len(got) != len(c.want) {
			t.Errorf("%q: %v, want %v", c.line, got, c.want)
			continue
		}
		for i := range got {
			if got[i] != c.want[i] {
				t.Errorf("%q: %v, want %v", c.line, got, c.want)
			}
		}
	}
}

func FuzzAnsi(f *testing.F) {
	f.Add("\x1b[1;31mx\x1b[0m")
	f.Add("\x1b]8;;\x1b\\\x1b[38;5m")
	f.Fuzz(func(t *testing.T, line string) {
		for _, p := range ansi(line) {
			if strings.ContainsAny(p.Text, "\x1b\x07") || strings.Trim(p.Class, "abcdefghijklmnopqrstuvwxyz-0123456789 ") != "" {
				t.Fatalf("%q gave %q", line, p)
			}
		}
	})
}

func FuzzSourceColours(f *testing.F) {
	f.Add(`  - id: "{{ x }}"  # note`)
	f.Add("<AUTO>a: b</AUTO>")
	f.Fuzz(func(t *testing.T, line string) {
		var b strings.Builder
		for _, p := range colours(line) {
			b.WriteString(p.Text)
		}
		if b.String() != line {
			t.Fatalf("%q came out as %q", line, b.String())
		}
	})
}

func TestALogMessageMayHoldSeveralLines(t *testing.T) {
	var out []logLine
	for _, l := range []*api.LogLine{
		{Path: "a", Attempt: 1, N: 1, Text: "one\ntwo\r\n\nfour\n"},
		{Path: "a", Attempt: 1, N: 2, Text: "half"},
		{Path: "b", Attempt: 1, N: 1, Text: "\n"},
	} {
		out = appendLines(out, l)
	}
	var texts []string
	ids := map[string]bool{}
	for _, l := range out {
		text := ""
		for _, p := range l.Pieces {
			text += p.Text
		}
		texts = append(texts, l.Path+" "+text)
		ids[l.ID] = true
	}
	if got := strings.Join(texts, "|"); got != "a one|a two|a |a four|a half|b " {
		t.Errorf("the lines are %q", got)
	}
	if len(ids) != len(out) || !out[1].Same || out[5].Same {
		t.Errorf("%+v", out)
	}
}
