package web

import (
	"context"
	"encoding/json"
	"slices"
	"strings"

	"github.com/a-h/templ"

	api "github.com/orchestrator-project/orchestrator/proto/orchestrator/v1"
)

// answers reads what was typed for the <AUTO> tags of a pipeline as the JSON
// object of a request. Empty fields are left out: a fallback or a model fills
// them in.
func answers(data newData, wrong *refusal) string {
	values := map[string]json.RawMessage{}
	for _, h := range data.Pipeline.GetHoles() {
		text := data.Draft.Answers[h.GetKey()]
		if strings.TrimSpace(text) == "" {
			continue
		}
		raw, err := holeValue(h, text)
		if err != nil {
			wrong.Inputs[h.GetKey()] = err.Error()
			continue
		}
		values[h.GetKey()] = raw
	}
	if len(values) == 0 {
		return ""
	}
	all, err := json.Marshal(values)
	if err != nil {
		wrong.Text = "The answers cannot be written as JSON."
	}
	return string(all)
}

func holeValue(h *api.Hole, text string) (json.RawMessage, error) {
	if list := holeChoices(h); list != nil && slices.Contains(list, text) {
		return json.Marshal(text)
	}
	return inputValue(holeType(h), text)
}

// holeType is the type of an answer; what has none is text.
func holeType(h *api.Hole) string {
	if h.GetType() == "" || holeChoices(h) != nil {
		return "string"
	}
	return h.GetType()
}

// holeChoices are the values of a tag that names its choices, as in "one of
// a, b".
func holeChoices(h *api.Hole) []string {
	list, ok := strings.CutPrefix(strings.TrimPrefix(h.GetType(), "optional "), "one of ")
	if !ok {
		return nil
	}
	return strings.Split(list, ", ")
}

// filled reports whether a tag has a value without an answer.
func filled(h *api.Hole) bool { return h.GetFallback() != "" && h.GetFallback() != "null" }

// holeEntry is the field of a tag in a form.
type holeEntry struct {
	*api.Hole
	Text, Wrong string
	Was         *api.Answer // as the run that is forked has it; nil: it has none
	Forks       bool
	Focus       bool
}

func (d newData) field(h *api.Hole) holeEntry {
	key := h.GetKey()
	return holeEntry{
		Hole: h, Text: d.Draft.Answers[key], Wrong: d.Refused.Inputs[key], Was: d.Recorded[key], Forks: d.Recorded != nil, Focus: d.Focus == key,
	}
}

// mark says whether the field must be filled in.
func (f holeEntry) mark() string {
	switch {
	case f.Was != nil:
		return filledBy(f.Was)
	case f.Forks || filled(f.Hole):
		return "optional"
	}
	return "required"
}

// hint is what the empty field stands for.
func (f holeEntry) hint() string {
	switch {
	case f.Was != nil:
		return clip(typed(f.Was.GetValue()), 80)
	case filled(f.Hole):
		return clip(typed(f.GetFallback()), 80)
	}
	return ""
}

// unset is what a choice says while nothing is chosen.
func (f holeEntry) unset() string {
	switch {
	case f.Was != nil:
		return "as recorded: " + f.hint()
	case filled(f.Hole):
		return "fallback: " + f.hint()
	}
	return "not answered"
}

// about ties the field to the text below it.
func (f holeEntry) about() templ.Attributes {
	a := templ.Attributes{"aria-describedby": "about-auto-" + f.GetKey()}
	if f.Wrong != "" {
		a["aria-invalid"] = "true"
	}
	if f.Focus {
		a["autofocus"] = true
	}
	return a
}

// holesSignature changes when the fields have to be drawn anew.
func holesSignature(p *api.Pipeline) string {
	if p == nil {
		return "none"
	}
	var b strings.Builder
	for _, h := range p.GetHoles() {
		b.WriteString(h.GetKey() + "|" + h.GetType() + "|" + h.GetPrompt() + "|" + h.GetFallback() + "\n")
	}
	return b.String()
}

// dryPlan is what a dry run says.
type dryPlan struct {
	Steps []*api.PlannedStep
	Left  int // steps that are not shown
	Yes   int32
	No    int32
	Maybe int32
}

// plannedShown bounds the list of a dry run.
const plannedShown = 500

// dryRun asks what a request would run.
func (s *site) dryRun(ctx context.Context, req *api.CreateRunRequest) (*dryPlan, error) {
	got, err := s.runs.DryRun(ctx, req, bigAnswers)
	if err != nil {
		return nil, err
	}
	p := &dryPlan{Steps: got.GetPlan()}
	for _, st := range p.Steps {
		switch st.GetWouldRun() {
		case "yes":
			p.Yes++
		case "no":
			p.No++
		default:
			p.Maybe++
		}
	}
	if p.Left = len(p.Steps) - plannedShown; p.Left > 0 {
		p.Steps = p.Steps[:plannedShown]
	}
	return p, nil
}

// summary counts the steps of a dry run.
func (p *dryPlan) summary() string {
	parts := []string{plural(p.Yes, "step", "steps") + " would run"}
	if p.No > 0 {
		parts = append(parts, count(p.No)+" would not")
	}
	if p.Maybe > 0 {
		parts = append(parts, count(p.Maybe)+" may")
	}
	return strings.Join(parts, ", ") + "."
}

// need is one line of what a pipeline needs.
type need struct {
	Title string
	Names []string
}

// needs lists what a pipeline needs to run.
func needs(p *api.Pipeline) []need {
	var out []need
	for _, n := range []need{
		{"Models", p.GetModels()}, {"Tools", p.GetTools()}, {"Skills", p.GetSkills()}, {"Agents", p.GetAgents()}, {"Secrets", p.GetSecrets()},
	} {
		if len(n.Names) > 0 {
			out = append(out, n)
		}
	}
	return out
}
