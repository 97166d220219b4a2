package web

import (
	"strings"
	"testing"

	api "github.com/orchestrator-project/orchestrator/proto/orchestrator/v1"
)

// Who comes into the middle of an answer is told that its beginning is missing;
// who was there from the start is not.
func TestOngoingSaysWhatIsCut(t *testing.T) {
	delta := func(call, text string) *api.Event {
		return &api.Event{Data: `{"call":` + call + `,"kind":"text","agent":"writer","text":"` + text + `"}`}
	}
	var p ongoing
	p.hear(delta("1", "le of a word"))
	if got := p.now(); len(got) != 1 || !got[0].Cut {
		t.Fatalf("in the middle: %+v", got)
	}
	p.recorded(&api.Event{Type: "model_called", Data: `{"call":{"n":1,"state":"finished"}}`})
	p.hear(delta("2", "From the start"))
	if got := p.now(); len(got) != 1 || got[0].Cut {
		t.Fatalf("the next call: %+v", got)
	}
	p.hear(&api.Event{Data: `{"call":2,"kind":"reset"}`})
	p.hear(delta("2", "Anew"))
	if got := p.now(); len(got) != 1 || got[0].Cut || got[0].Text != "Anew" {
		t.Fatalf("after a reset: %+v", got)
	}
	for range 3 {
		p.hear(delta("2", strings.Repeat("x", liveText)))
	}
	if got := p.now(); len(got) != 1 || !got[0].Cut || len(got[0].Text) > liveText {
		t.Fatalf("a long answer: cut %v, %d bytes", got[0].Cut, len(got[0].Text))
	}
}

// A count of passes never lies over the name of its step.
func TestNoteLeavesTheLabelReadable(t *testing.T) {
	for _, c := range []struct {
		label, note string
		width       float64
		below       bool
	}{
		{"double", "10,000/10,000", 150, true},
		{"double", "12/20", 150, false},
		{"a_long_name_of_a_step", "8/8", 200, false},
		{"double", "", 150, false},
	} {
		b := box{Label: c.label, Note: c.note, Kind: "assert", Node: &api.GraphNode{Width: c.width, Height: 44}}
		if got := b.noteBelow(); got != c.below {
			t.Errorf("%q with %q: below %v, want %v", c.label, c.note, got, c.below)
		}
		taken := float64(len([]rune(clip(c.label, b.labelRoom()))))*7.2 + 34
		if !b.noteBelow() {
			taken += float64(8 * len(c.note))
		}
		if taken > c.width {
			t.Errorf("%q with %q takes %v of %v", c.label, c.note, taken, c.width)
		}
	}
}

func TestPerMillion(t *testing.T) {
	for usd, want := range map[float64]string{3: "$3.00", 0.6: "$0.60", 0.15: "$0.15", 0.075: "$0.075", 0: "$0.00"} {
		if got := perMillion(usd); got != want {
			t.Errorf("%v: %s, want %s", usd, got, want)
		}
	}
}

// JSON that Go's encoder has written for HTML reads as its author wrote it.
func TestPrettyUndoesEscapesForHTML(t *testing.T) {
	for text, want := range map[string]string{
		`["list\u003cstring\u003e \u0026 more"]`: "[\n  \"list<string> & more\"\n]",
		`["C:\\u003c"]`:                          "[\n  \"C:\\\\u003c\"\n]",
		`"\\u003c"`:                              `\u003c`,
	} {
		if got, more := pretty(text, 1000); got != want || more != 0 {
			t.Errorf("%s became %s, %d more", text, got, more)
		}
	}
	if got, more := pretty(`["\u003c and more"]`, 12); got != `["< and` || more != 7 {
		t.Errorf("cut: %s, %d more", got, more)
	}
}
