package main

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/orchestrator-project/orchestrator/proto/human"
	api "github.com/orchestrator-project/orchestrator/proto/orchestrator/v1"
)

// callFacts is what is shown of a call of a model or a tool.
type callFacts struct {
	N     int32         `json:"n"`
	State string        `json:"state"`
	Agent string        `json:"agent"`
	Turn  int32         `json:"turn"`
	Phase string        `json:"phase"`
	Param string        `json:"param"`
	Name  string        `json:"name"`
	Took  time.Duration `json:"took"`
	Fail  bool          `json:"failed"`

	Request  json.RawMessage `json:"request"`
	Response json.RawMessage `json:"response"`
}

// usageFacts is what something has cost.
type usageFacts struct {
	Input    int32   `json:"input_tokens"`
	Output   int32   `json:"output_tokens"`
	USD      float64 `json:"cost_usd"`
	Unpriced int32   `json:"unpriced"`
}

// pieceFacts is a piece of an answer on its way.
type pieceFacts struct {
	Kind string `json:"kind"`
	Name string `json:"name"`
	Text string `json:"text"`
}

// maxPiece is how much of an answer on its way is kept, for its last line.
const maxPiece = 400

// piece takes what is only live of a call.
func (p *progress) piece(e *api.Event) {
	s := p.steps[e.GetPath()]
	var d pieceFacts
	if s == nil || json.Unmarshal([]byte(e.GetData()), &d) != nil {
		return
	}
	switch {
	case d.Kind == "reset":
		s.talk = ""
		return
	case d.Kind == "tool" && d.Name != "" && !strings.HasPrefix(s.talk, d.Name+" "):
		s.talk = d.Name + " "
	}
	s.talk += d.Text
	if over := len(s.talk) - maxPiece; over > 0 {
		s.talk = strings.ToValidUTF8(s.talk[over:], "")
	}
}

// lastLine is the end of what an answer has come to, without what a terminal would
// obey.
func lastLine(text string) string {
	lines := strings.Split(strings.TrimRight(text, "\r\n"), "\n")
	return strings.TrimSpace(harmlessLine(lines[len(lines)-1]))
}

// text is a call in a few words.
func (c *callFacts) text(model string, u *usageFacts) string {
	var b strings.Builder
	switch {
	case c.Name != "":
		fmt.Fprintf(&b, "calls %s", harmlessLine(c.Name))
		if given := strings.TrimSpace(argumentsText(string(c.Request))); given != "" && given != "null" && given != "{}" {
			b.WriteString(" " + cut(harmlessLine(given), 60))
		}
	case c.Param != "":
		fmt.Fprintf(&b, "fills in %s", c.Param)
	case c.Agent != "":
		fmt.Fprintf(&b, "turn %d", c.Turn+1)
	default:
		b.WriteString("asks a model")
	}
	if model != "" {
		fmt.Fprintf(&b, " (%s)", model)
	}
	switch {
	case c.State == "asked":
		b.WriteString("  waits for people")
	case c.State == "started":
		b.WriteString("  ...")
	case c.Fail:
		b.WriteString("  failed")
		if why := resultText(c.Response); why != "" {
			b.WriteString(": " + cut(harmlessLine(strings.SplitN(why, "\n", 2)[0]), 100))
		}
	}
	if c.Took > 0 {
		b.WriteString("  " + human.Span(c.Took.Round(time.Millisecond)))
	}
	if u != nil {
		fmt.Fprintf(&b, "  %d in, %d out", u.Input, u.Output)
		if u.USD > 0 || u.Unpriced > 0 {
			b.WriteString("  cost " + costText(u.USD, u.Unpriced))
		}
	}
	return b.String()
}
