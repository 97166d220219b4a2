package executor

import (
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/orchestrator-project/orchestrator/pipeline"
)

func TestRedactor(t *testing.T) {
	x := &redactor{}
	x.add("A", "abcd")
	x.add("B", "cdefgh")
	x.add("LONG", "abcdabcdabcd-1/?é\"<&")
	tests := []struct{ in, want string }{
		{"xabcdx", "x[secret A]x"},
		{"abcdefgh.", "[secret A]."}, // overlapping ones are one
		{"abcabcd", "abc[secret A]"},
		{"abcdabcdabcd-1/?é\"<&!", "[secret LONG]!"},
		{`"abcdabcdabcd-1/?é\"<&"`, `"[secret LONG]"`},
		{`abcdabcdabcd-1/?é\"\u003c\u0026`, "[secret LONG]"},
		{`abcdabcdabcd-1/?\u00e9\"<&`, "[secret LONG]"},
		{"abcdabcdabcd-1%2F%3F%C3%A9%22%3C%26", "[secret LONG]"},
		{"YWJjZGFiY2RhYmNkLTEvP8OpIjwm", "[secret LONG]"},
		{"abc", "abc"},
	}
	for _, tt := range tests {
		if got := x.text(tt.in); got != tt.want {
			t.Errorf("%q becomes %q, want %q", tt.in, got, tt.want)
		}
	}
}

func TestNoRunShowsWhatIsHidden(t *testing.T) {
	ex := &Executor{cfg: Config{Secret: func(string) (string, bool) { return "of-the-run-alone", true }}}
	ex.hidden.add("of led", "tell-nobody-1")
	run := func(secrets ...string) *redactor {
		r := &runState{lane: &lane{ex: ex}, prog: &program{plan: &pipeline.Plan{Secrets: secrets}}}
		return r.redactor()
	}
	const text = "tell-nobody-1 of-the-run-alone"
	if got := run("A").text(text); got != "[secret of led] [secret A]" {
		t.Errorf("a run with a secret shows %q", got)
	}
	if got := run().text(text); got != "[secret of led] of-the-run-alone" {
		t.Errorf("a run without one shows %q", got)
	}
}

// However a text is cut into pieces, no secret comes through, and nothing else
// is lost.
func TestPiecesAreRedactedAsAWhole(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		x := &redactor{}
		for i, s := range rapid.SliceOfN(rapid.StringMatching("[abc]{4,8}"), 1, 3).Draw(t, "secrets") {
			x.add(string(rune('X'+i)), s)
		}
		text := rapid.StringMatching("[abcd]{0,60}").Draw(t, "text")
		var b strings.Builder
		rest := ""
		for left := text; left != ""; {
			n := rapid.IntRange(1, len(left)).Draw(t, "piece")
			var out string
			out, rest = x.pass(rest+left[:n], false)
			b.WriteString(out)
			left = left[n:]
		}
		b.WriteString(x.text(rest))
		if got, want := b.String(), x.text(text); got != want {
			t.Fatalf("in pieces %q, as a whole %q", got, want)
		}
		for _, f := range x.forms {
			if strings.Contains(strings.ReplaceAll(b.String(), f.mark, " "), f.text) {
				t.Fatalf("%q comes through in %q", f.text, b.String())
			}
		}
	})
}
