package cassette

import (
	"fmt"
	"strings"

	"github.com/orchestrator-project/orchestrator/executor/model"
	"github.com/orchestrator-project/orchestrator/pipeline"
)

// shownLines is how many lines of a difference are told.
const shownLines = 4

// miss says that a request was not recorded, and how the nearest recording
// differs from it.
func (p *Provider) miss(r *model.Request) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s holds no recording of this request of the step %s", p.file, r.Step)
	if r.Agent != "" {
		fmt.Fprintf(&b, ", turn %d of the agent %s", r.Turn, r.Agent)
	}
	if r.Param != "" {
		fmt.Fprintf(&b, ", <AUTO> tag %s", r.Param)
	}
	b.WriteString(".\n")
	asked := lines(r)
	if p.redact != nil {
		for i := range asked {
			asked[i] = p.redact(asked[i])
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	best, most, head, tail := -1, 0, 0, 0
	for i := range p.list {
		recorded := lines(p.list[i].Request)
		h, t := common(recorded, asked)
		near := 4*(h+t) - len(recorded) - len(asked) // what they have in common against what they have not
		if p.list[i].Step == r.Step {
			near++ // of two that are as near, the step's own
		}
		if best < 0 || near > most {
			best, most, head, tail = i, near, h, t
		}
	}
	if best < 0 {
		b.WriteString("The file has no recordings.")
		return b.String()
	}
	recorded := lines(p.list[best].Request)
	fmt.Fprintf(&b, "The nearest is recording %d, of the step %s. It differs after %d equal lines:", best+1, p.list[best].Step, head)
	tell := func(mark string, list []string) {
		for i, l := range list {
			if i == shownLines {
				fmt.Fprintf(&b, "\n  %s ... and %d more lines", mark, len(list)-i)
				break
			}
			fmt.Fprintf(&b, "\n  %s %s", mark, short(l))
		}
	}
	tell("recorded:", recorded[head:len(recorded)-tail])
	tell("asked:   ", asked[head:len(asked)-tail])
	return b.String()
}

// common counts the equal lines at the beginning, and then at the end.
func common(a, b []string) (head, tail int) {
	for head < len(a) && head < len(b) && a[head] == b[head] {
		head++
	}
	for tail < len(a)-head && tail < len(b)-head && a[len(a)-1-tail] == b[len(b)-1-tail] {
		tail++
	}
	return head, tail
}

// lines is a request as people read it.
func lines(r *model.Request) []string {
	var out []string
	add := func(what, text string) {
		for l := range strings.SplitSeq(text, "\n") {
			out = append(out, what+": "+l)
		}
	}
	if r.System != "" {
		add("system", r.System)
	}
	for _, t := range r.Tools {
		add("tool "+t.Name, t.Description)
		add("tool "+t.Name, string(pipeline.EncodeValue(plain(t.Schema))))
	}
	if r.Schema != nil {
		add("schema", string(pipeline.EncodeValue(r.Schema)))
	}
	if r.Choice != "" && r.Choice != "auto" {
		add("choice", r.Choice)
	}
	for i := range r.Messages {
		m := &r.Messages[i]
		for k := range m.Blocks {
			block := &m.Blocks[k]
			switch {
			case block.ToolUse != nil:
				add(string(m.Role)+" calls "+block.ToolUse.Name, block.ToolUse.Arguments)
			case block.ToolResult != nil:
				add("result of "+block.ToolResult.Name, model.Message{Blocks: block.ToolResult.Content}.Text())
			case block.Media != nil:
				add(string(m.Role), block.Kind+" "+block.Media.Type+" "+block.Media.Name)
			default:
				add(string(m.Role), block.Text)
			}
		}
	}
	return out
}

// short keeps a line readable.
func short(s string) string {
	r := []rune(s)
	if len(r) <= 200 {
		return s
	}
	return string(r[:200]) + "…"
}
