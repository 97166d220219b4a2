package model

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/orchestrator-project/orchestrator/executor"
	"github.com/orchestrator-project/orchestrator/pipeline"
)

// told answers with its responses in turn and keeps the requests.
type told struct {
	answers []Response
	asked   []Request
}

func (p *told) answer(_ context.Context, r *Request) (*Response, error) {
	p.asked = append(p.asked, *r)
	if len(p.asked) > len(p.answers) {
		return nil, errors.New("asked too often")
	}
	a := p.answers[len(p.asked)-1]
	return &a, nil
}

func (p *told) ask(t *testing.T, r *Request) (*Response, error) {
	t.Helper()
	return Direct{Func(p.answer)}.Ask(t.Context(), executor.Env{}, r)
}

func says(text string) Response { return Response{Message: AssistantText(text)} }

type object = map[string]any

var legs = object{
	"type": "object", "required": []any{"legs"}, "additionalProperties": false,
	"properties": object{"legs": object{"type": "integer", "minimum": int64(0)}, "name": object{"type": "string"}},
}

func question() *Request {
	return &Request{Schema: legs, IdempotencyKey: "run/step", Messages: []Message{UserText("How many legs has a spider?")}}
}

func TestAnswerIsReadAsJSON(t *testing.T) {
	for text, want := range map[string]any{
		`{"legs": 8}`:                     object{"legs": int64(8)},
		"```json\n{\"legs\": 8}\n```":     object{"legs": int64(8)},
		"  {\"legs\": 8, \"name\":\"x\"}": object{"legs": int64(8), "name": "x"},
	} {
		p := &told{answers: []Response{says(text)}}
		a, err := p.ask(t, question())
		if err != nil {
			t.Errorf("%q: %v", text, err)
			continue
		}
		if diff := cmp.Diff(want, a.Value); diff != "" {
			t.Errorf("%q: %s", text, diff)
		}
		if p.asked[0].Phase != PhaseAnswer {
			t.Errorf("asked in phase %q", p.asked[0].Phase)
		}
	}
}

func TestViolationIsRepairedOnce(t *testing.T) {
	p := &told{answers: []Response{
		{Message: AssistantText(`{"legs": "eight"}`), Usage: &pipeline.Usage{InputTokens: 10, OutputTokens: 2, CostUSD: 0.5}},
		{Message: AssistantText(`{"legs": 8}`), Usage: &pipeline.Usage{InputTokens: 20, OutputTokens: 3, CostUSD: 0.25}},
	}}
	a, err := p.ask(t, question())
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(any(object{"legs": int64(8)}), a.Value); diff != "" {
		t.Error(diff)
	}
	if *a.Usage != (pipeline.Usage{InputTokens: 30, OutputTokens: 5, CostUSD: 0.75}) {
		t.Errorf("usage %+v", *a.Usage)
	}
	again := p.asked[1]
	if again.Phase != PhaseRepair || again.IdempotencyKey != "run/step/repair" || len(again.Messages) != 3 ||
		!cmp.Equal(again.Messages[1], AssistantText(`{"legs": "eight"}`)) || !strings.Contains(again.LastUser(), "/legs: got string, want integer") {
		t.Errorf("the repair asks %+v", again)
	}
}

func TestSecondViolationFailsWithAllThatIsWrong(t *testing.T) {
	p := &told{answers: []Response{says("eight"), says(`{"legs": -1, "arms": 2}`)}}
	_, err := p.ask(t, question())
	f, ok := errors.AsType[*pipeline.Failure](err)
	if !ok || f.Kind != pipeline.CategoryContract || f.Reason != ReasonSchema ||
		!strings.Contains(f.Message, "/legs: minimum") || !strings.Contains(f.Message, "'arms' not allowed") {
		t.Errorf("got %v", err)
	}
}

func TestTextNeedsNoSchema(t *testing.T) {
	p := &told{answers: []Response{says("eight")}}
	r := question()
	r.Schema = nil
	a, err := p.ask(t, r)
	if err != nil || a.Text() != "eight" || a.Value != nil {
		t.Errorf("got %+v, %v", a, err)
	}
}

func TestSchemasReachNothingOutside(t *testing.T) {
	for _, s := range []object{
		{"$ref": "file:///etc/passwd"}, {"$ref": "https://example.com/s.json"}, {"$ref": "other.json"}, {"type": "nonsense"}, {"pattern": "("},
	} {
		_, err := Compile(s)
		if f, ok := errors.AsType[*pipeline.Failure](err); !ok || f.Kind != pipeline.CategoryValidation {
			t.Errorf("%v: got %v", s, err)
		}
	}
}

func TestCoerce(t *testing.T) {
	for _, c := range []struct {
		schema object
		text   string
		want   any
	}{
		{object{"type": "integer"}, " 5\n", int64(5)},
		{object{"type": "number"}, "2.5", 2.5},
		{object{"type": "boolean"}, "True", true},
		{object{"type": "string"}, "5", "5"},
		{object{"type": "array"}, `["a", 1]`, []any{"a", int64(1)}},
		{object{"type": []any{"integer", "string"}}, "5", int64(5)},
		{object{"type": []any{"integer", "string"}}, "5.5", "5.5"},
		{object{"enum": []any{"shallow", "deep", int64(3)}}, "Deep", "deep"},
		{object{"enum": []any{"shallow", "deep", int64(3)}}, "3", int64(3)},
		{object{"type": "integer"}, "five", "five"},
		{object{}, "5", "5"},
		{object{"anyOf": []any{object{"type": "null"}, object{"type": "object"}}}, "null", nil},
		{object{"properties": object{}}, `{"a":{}}`, object{"a": object{}}},
	} {
		s, err := Compile(c.schema)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(c.want, s.Coerce(c.text)); diff != "" {
			t.Errorf("%v %q: %s", c.schema, c.text, diff)
		}
	}
}

func TestDecodeKeepsTexts(t *testing.T) {
	for _, c := range []struct {
		schema object
		text   string
		want   any
	}{
		{object{"type": "string"}, `"hello"`, "hello"},
		{object{"type": "string"}, "5", "5"},
		{object{"type": "string"}, "hello", "hello"},
		{object{}, "hello", "hello"},
		{object{}, "5", int64(5)},
	} {
		s, err := Compile(c.schema)
		if err != nil {
			t.Fatal(err)
		}
		v, err := s.Decode(c.text)
		if diff := cmp.Diff(c.want, v); diff != "" || err != nil {
			t.Errorf("%v %q: %v %s", c.schema, c.text, err, diff)
		}
	}
}
