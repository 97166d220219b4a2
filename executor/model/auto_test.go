package model

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/orchestrator-project/orchestrator/executor"
	"github.com/orchestrator-project/orchestrator/pipeline"
)

// fillBy has a tag filled in by the answers, in turn.
func fillBy(t *testing.T, q executor.Question, answers ...string) (pipeline.Answer, []Request, error) {
	t.Helper()
	p := &told{}
	for _, text := range answers {
		a := says(text)
		a.Usage = &pipeline.Usage{InputTokens: 10, OutputTokens: 1, CostUSD: 0.5}
		p.answers = append(p.answers, a)
	}
	auto := Auto{Models: Direct{Func(p.answer)}, Names: func() []string { return []string{"big", "small"} }}
	a, err := auto.Fill(t.Context(), executor.Env{Run: "run", Path: "s"}, q)
	return a, p.asked, err
}

func openTag(kind string, typ pipeline.Type) executor.Question {
	return executor.Question{
		Path: "s", Kind: kind, Text: "how many", Tag: &pipeline.Auto{Key: "n", Type: typ, Hint: []string{"layers"}},
		Step:   map[string]any{"id": "s", "action": "bake"},
		Around: map[string]any{"taste": "lemon"}, Earlier: map[string]any{"guests": int64(7)},
	}
}

func TestTagIsFilledInByTwoSteps(t *testing.T) {
	a, asked, err := fillBy(t, openTag(executor.OpenParameter, pipeline.Type{Kind: "integer"}), `{"type": "integer", "maximum": 5}`, "3")
	if err != nil || a.Value != int64(3) || a.Key != "n" || a.Usage.CostUSD != 1 || a.Usage.InputTokens != 20 {
		t.Fatalf("%+v, %v", a, err)
	}
	if len(asked) != 2 || asked[0].Phase != PhaseSchema || asked[1].Phase != PhaseAnswer || asked[0].IdempotencyKey == asked[1].IdempotencyKey {
		t.Fatalf("asked %+v", asked)
	}
	if diff := cmp.Diff(map[string]any{"type": "integer", "maximum": int64(5)}, asked[1].Schema); diff != "" {
		t.Error(diff)
	}
	prompt := asked[1].Messages[0].Blocks[0].Text
	for _, want := range []string{"The tag: how many", "layers", "- action: bake", "- taste: lemon", "- guests: 7", `"integer"`} {
		if !strings.Contains(prompt, want) {
			t.Errorf("the prompt lacks %q:\n%s", want, prompt)
		}
	}
	sum := 0
	for _, p := range asked[1].Parts {
		sum += p.Bytes
	}
	if want := len(prompt) + len(asked[1].System); sum != want {
		t.Errorf("the parts are %d bytes of %d: %+v", sum, want, asked[1].Parts)
	}
}

func TestWhatThePipelineExpectsStands(t *testing.T) {
	number := map[string]any{"type": "integer", "minimum": int64(1)}
	for name, c := range map[string]struct{ expected, given, want map[string]any }{
		"narrower":           {number, map[string]any{"type": "integer", "maximum": int64(5)}, map[string]any{"type": "integer", "minimum": int64(1), "maximum": int64(5)}},
		"wider":              {number, map[string]any{"type": "integer", "minimum": int64(-9)}, number},
		"of another type":    {number, map[string]any{"type": "string"}, number},
		"no schema":          {number, map[string]any{"type": "integer", "pattern": int64(3)}, number},
		"nothing":            {number, nil, number},
		"beyond the choices": {map[string]any{"enum": []any{"a"}}, map[string]any{"enum": []any{"b"}}, map[string]any{"enum": []any{"a"}}},
		"items": {
			map[string]any{"type": "array", "items": map[string]any{"type": "string"}},
			map[string]any{"type": "array", "items": map[string]any{"type": "string", "maxLength": int64(3)}},
			map[string]any{"type": "array", "items": map[string]any{"type": "string", "maxLength": int64(3)}},
		},
	} {
		if diff := cmp.Diff(c.want, refined(c.expected, c.given)); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
}

func TestAnswerToATagIsRepairedOnce(t *testing.T) {
	q := openTag(executor.OpenParameter, pipeline.Type{Kind: "integer"})
	if a, asked, err := fillBy(t, q, `{}`, `"three"`, "3"); err != nil || a.Value != int64(3) || asked[2].Phase != PhaseRepair {
		t.Errorf("%+v, %v, asked %d times", a, err, len(asked))
	}
	_, asked, err := fillBy(t, q, `{}`, `"three"`, `"tres"`)
	if f, ok := errors.AsType[*pipeline.Failure](err); !ok || f.Reason != ReasonSchema || len(asked) != 3 {
		t.Errorf("%v, asked %d times", err, len(asked))
	}
}

func TestTagChoosesAmongActionsAndModels(t *testing.T) {
	q := openTag(executor.OpenTask, pipeline.Type{Kind: "string"})
	q.Choices = []any{"bake", "fry"}
	q.Actions = []map[string]any{{"name": "bake", "does": "Bakes.", "parameters": []any{"heat"}}, {"name": "fry", "does": "Fries.", "parameters": []any{}}}
	a, asked, err := fillBy(t, q, `{}`, `"boil"`, `"fry"`)
	if err != nil || a.Value != "fry" || !strings.Contains(asked[0].Messages[0].Blocks[0].Text, "- bake: Bakes.") {
		t.Errorf("%+v, %v, %+v", a, err, asked)
	}
	a, asked, err = fillBy(t, openTag(executor.OpenModel, pipeline.Type{Kind: "string"}), `{}`, `"huge"`, `"small"`)
	if err != nil || a.Value != "small" {
		t.Errorf("%+v, %v", a, err)
	}
	if diff := cmp.Diff([]any{"big", "small"}, asked[1].Schema["enum"]); diff != "" {
		t.Error(diff)
	}
	if ways[executor.OpenTask] == ways[executor.OpenModel] || !strings.HasSuffix(asked[0].System, ways[executor.OpenModel]) {
		t.Errorf("it was asked as %q", asked[0].System)
	}
}

func TestTagNamesItsModelAndTask(t *testing.T) {
	q := openTag(executor.OpenParameter, pipeline.Type{Kind: "integer"})
	q.Tag.Model, q.Tag.Task = "big", "reasoning"
	_, asked, err := fillBy(t, q, `{}`, "1")
	if err != nil || asked[0].Model != "big" || asked[1].Needs == nil || !cmp.Equal(asked[1].Needs.Tasks, []string{"reasoning"}) {
		t.Errorf("%v, %+v", err, asked)
	}
}
