package pipeline

import (
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"
)

// judgeOf is the index of the step that judges a compete block's candidates;
// -1: nobody does.
func judgeOf(def *StepDef) int {
	if def.Compete == nil || !def.Compete.Judge || len(def.Branches) == 0 {
		return -1
	}
	return len(def.Branches[0].Body.Steps) - 1
}

// candidates are the instances of a compete block that may win.
func (x *inst) candidates() []*inst {
	if i := judgeOf(x.def); i >= 0 {
		return x.arm.insts[:i]
	}
	return x.arm.insts
}

// offers are the candidates' outputs, by id; null of those that did not give any.
func (x *inst) offers() map[string]any {
	out := map[string]any{}
	for _, c := range x.candidates() {
		out[c.def.ID] = c.step.Output
	}
	return out
}

// nothingToJudge says why a step that may begin is the judge of nothing; nil: it
// is no judge, or some candidate is there.
func (f *frame) nothingToJudge(d *inst) *Failure {
	x := f.owner
	if x == nil || judgeOf(x.def) != d.pos {
		return nil
	}
	for _, c := range x.candidates() {
		if c.step.Status == StepCompleted {
			return nil
		}
	}
	return x.noWinner("none of its candidates has completed")
}

func (x *inst) noWinner(why string) *Failure {
	f := Failuref(CategoryFailed, "%s has no winner: %s", x.def.ID, why)
	f.Reason, f.Step = ReasonNoWinner, x.path
	for _, c := range x.candidates() {
		if c.step.Error != nil {
			f.Message += fmt.Sprintf("; %s: %s", c.def.ID, c.step.Error.Message)
		}
	}
	return f
}

// closeCompete names the winner and gives what the block is for: {winner,
// output, candidates, judgement}.
func (x *inst) closeCompete(t *Task) {
	out := map[string]any{"winner": nil, "output": nil, "candidates": x.offers(), "judgement": nil}
	t.Output = out
	best := x.candidates()
	if i := judgeOf(x.def); i >= 0 {
		out["judgement"] = x.arm.insts[i].step.Output
	}
	if t.Status != StepCompleted {
		return
	}
	best = slices.DeleteFunc(slices.Clone(best), func(c *inst) bool { return c.step.Status != StepCompleted })
	why := "none of its candidates has completed"
	if i := judgeOf(x.def); i >= 0 && len(best) > 0 {
		best = chosen(x.arm.insts[i].step.Output, best)
		why = fmt.Sprintf("the judge named none of the candidates that have completed, but %s", EncodeValue(out["judgement"]))
	}
	if len(best) == 0 {
		t.Status, t.Failure = StepFailed, x.noWinner(why)
		return
	}
	w := best[0]
	for _, c := range best[1:] {
		switch n, m := length(c.step.Output), length(w.step.Output); {
		case x.def.Compete.TieBreak == "shortest" && n < m, x.def.Compete.TieBreak == "longest" && n > m:
			w = c
		}
	}
	out["winner"], out["output"] = w.def.ID, w.step.Output
}

// chosen are the candidates that a judgement puts first: it is an id, a list of
// ids, a map with one of these under winner, or a map of numbers by id, which
// may stand under scores. A number of names or an equal score is a tie.
func chosen(judgement any, candidates []*inst) []*inst {
	named := func(v any) []*inst {
		return slices.DeleteFunc(slices.Clone(candidates), func(c *inst) bool {
			switch v := v.(type) {
			case string:
				return strings.TrimSpace(v) != c.def.ID
			case []any:
				return !slices.ContainsFunc(v, func(e any) bool { s, ok := e.(string); return ok && strings.TrimSpace(s) == c.def.ID })
			}
			return true
		})
	}
	m, ok := judgement.(map[string]any)
	if !ok {
		return named(judgement)
	}
	if w, ok := m["winner"]; ok {
		return named(w)
	}
	if s, ok := m["scores"].(map[string]any); ok {
		m = s
	}
	var best []*inst
	top := 0.0
	for _, c := range candidates {
		score, ok := number(m[c.def.ID])
		switch {
		case !ok || len(best) > 0 && score < top:
		case len(best) > 0 && score == top:
			best = append(best, c)
		default:
			best, top = []*inst{c}, score
		}
	}
	return best
}

func number(v any) (float64, bool) {
	switch v := v.(type) {
	case int64:
		return float64(v), true
	case float64:
		return v, true
	}
	return 0, false
}

// length is how long an output is as a text, in characters.
func length(v any) int {
	if s, ok := v.(string); ok {
		return utf8.RuneCountInString(s)
	}
	return utf8.RuneCount(EncodeValue(v))
}
