package remote

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/orchestrator-project/orchestrator/executor/model"
	"github.com/orchestrator-project/orchestrator/pipeline"
)

type object = map[string]any

var strictly = Dialect{
	Keys:   []string{"type", "properties", "required", "additionalProperties", "items", "enum", "anyOf", "$ref", "$defs", "description"},
	Closed: true, Required: true,
}

func parsed(t *testing.T, text string) object {
	t.Helper()
	v, err := pipeline.DecodeValue([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return v.(object) //nolint:forcetypeassert // the tables hold objects
}

func TestSchemasFitTheDialect(t *testing.T) {
	for in, want := range map[string]string{
		`{"type":"object","properties":{"a":{"type":"integer","minimum":1}},"required":["a"]}`:               `{"additionalProperties":false,"properties":{"a":{"description":"It also satisfies {\"minimum\":1}","type":"integer"}},"required":["a"],"type":"object"}`,
		`{"type":"object","properties":{},"additionalProperties":false}`:                                     `{"additionalProperties":false,"properties":{},"required":[],"type":"object"}`,
		`{"type":"string","title":"T","default":"x","oneOf":[{"type":"string"}]}`:                            `{"anyOf":[{"type":"string"}],"type":"string"}`,
		`{"$ref":"#/$defs/a","description":"x","$defs":{"a":{"type":"array","items":{"$ref":"#/$defs/a"}}}}`: `{"$defs":{"a":{"items":{"$ref":"#/$defs/a"},"type":"array"}},"$ref":"#/$defs/a"}`,
		`{"type":"object","properties":{"a":{"type":"string"}}}`:                                             ``, // a is not required
		`{"type":"object"}`: ``, // open
		`{"type":"object","additionalProperties":{"type":"string"}}`:                                                  ``,
		`{"type":"object","properties":{"a":{}},"required":["a"]}`:                                                    ``, // anything
		`{"type":"object","properties":{"a":true},"required":["a"]}`:                                                  ``,
		`{"type":"object","properties":{},"patternProperties":{"^a":{"type":"string"}},"additionalProperties":false}`: ``,
		`{"type":"array","items":{"type":"object"}}`:                                                                  ``,
		`{"allOf":[{"type":"string"}]}`:                                                                               ``,
	} {
		got, ok := strictly.Fit(parsed(t, in))
		if want == "" {
			if ok {
				t.Errorf("%s became %s", in, pipeline.EncodeValue(got))
			}
			continue
		}
		if !ok || string(pipeline.EncodeValue(got)) != want {
			t.Errorf("%s: got %s, %v, want %s", in, pipeline.EncodeValue(got), ok, want)
		}
	}
}

func TestAnswersThatAreNoObjectsAreWrapped(t *testing.T) {
	for in, want := range map[string]string{
		`{"type":"integer"}`: `{"additionalProperties":false,"properties":{"value":{"type":"integer"}},"required":["value"],"type":"object"}`,
		`{"type":"array","items":{"$ref":"#/$defs/a"},"$defs":{"a":{"type":"string"}}}`: `{"$defs":{"a":{"type":"string"}},"additionalProperties":false,"properties":{"value":{"items":{"$ref":"#/$defs/a"},"type":"array"}},"required":["value"],"type":"object"}`,
		`{"type":"array","items":{"$ref":"#"}}`:                                         `{"additionalProperties":false,"properties":{"value":{"items":{"$ref":"#/properties/value"},"type":"array"}},"required":["value"],"type":"object"}`,
		`{"enum":[{"$ref":"#"}]}`:                                                       `{"additionalProperties":false,"properties":{"value":{"enum":[{"$ref":"#"}]}},"required":["value"],"type":"object"}`,
		`{"type":"object","properties":{"a":{}}}`:                                       `{"properties":{"a":{}},"type":"object"}`,
	} {
		schema := parsed(t, in)
		f := NewForm(&model.Request{Schema: schema}, Native)
		if got := string(pipeline.EncodeValue(f.Schema)); got != want {
			t.Errorf("%s: got %s, want %s", in, got, want)
		}
		if got := pipeline.EncodeValue(schema); !cmp.Equal(parsed(t, in), schema) {
			t.Errorf("%s was changed: %s", in, got)
		}
	}
}

func answer(blocks ...model.Block) *model.Response {
	return &model.Response{Stop: model.StopTools, Message: model.Message{Role: model.Assistant, Blocks: blocks}}
}

func called(name, arguments string) model.Block {
	return model.Block{Kind: model.BlockToolUse, ToolUse: &model.ToolUse{ID: name, Name: name, Arguments: arguments}}
}

func spoken(text string) model.Block { return model.Block{Kind: model.BlockText, Text: text} }

func TestToolTakesTheAnswer(t *testing.T) {
	schema := object{"type": "integer"}
	now := []model.ToolDef{{Name: "now"}}
	for name, c := range map[string]struct {
		request model.Request
		choice  string
		answer  *model.Response
		text    string
		value   any
		stop    string
		calls   int
	}{
		"alone":             {model.Request{}, "final_answer", answer(spoken("So:"), called("final_answer", `{"value":8}`)), "8", int64(8), model.StopEnd, 0},
		"twice":             {model.Request{}, "final_answer", answer(called("final_answer", `{"value":8}`), called("final_answer", `{"value":9}`)), "8", int64(8), model.StopEnd, 0},
		"malformed":         {model.Request{}, "final_answer", answer(called("final_answer", `{"value":`)), `{"value":`, nil, model.StopEnd, 0},
		"beside tools":      {model.Request{Tools: now}, "required", answer(called("final_answer", `{"value":8}`)), "8", int64(8), model.StopEnd, 0},
		"before it knows":   {model.Request{Tools: now}, "required", answer(called("now", `{}`), called("final_answer", `{"value":8}`)), "", nil, model.StopTools, 1},
		"no tools any more": {model.Request{Tools: now, Choice: "none"}, "final_answer", answer(called("final_answer", `{"value":8}`)), "8", int64(8), model.StopEnd, 0},
		"a tool is wanted":  {model.Request{Tools: now, Choice: "now"}, "now", answer(called("now", `{}`)), "", nil, model.StopTools, 1},
	} {
		c.request.Schema, c.request.Mode = schema, Tool
		f := NewForm(&c.request, Native)
		f.Finish(c.answer)
		if f.Choice != c.choice || c.answer.Text() != c.text || !cmp.Equal(c.answer.Value, c.value) || c.answer.Stop != c.stop || len(c.answer.Message.Calls()) != c.calls {
			t.Errorf("%s: choice %s, got %+v", name, f.Choice, c.answer)
		}
	}
}

func TestPromptTellsTheSchema(t *testing.T) {
	f := NewForm(&model.Request{System: "Be brief.", Schema: object{"type": "integer"}, Mode: Prompt}, Native)
	if !strings.HasPrefix(f.System, "Be brief.\n\n") || !strings.HasSuffix(f.System, `{"type":"integer"}`) || f.Schema != nil || f.Tools != nil {
		t.Errorf("got %+v", f)
	}
	a := answer(spoken("```json\n8\n```"))
	f.Finish(a)
	if a.Value != nil || a.Text() != "```json\n8\n```" {
		t.Errorf("got %+v", a)
	}
}

func TestNamesOfToolsComeBack(t *testing.T) {
	f := NewForm(&model.Request{Tools: []model.ToolDef{{Name: "plain_name-1"}, {Name: "mcp__a__b.c"}, {Name: "mcp__a__b:c"}, {Name: strings.Repeat("n", 200)}, {Name: "1st"}, {Name: ""}}}, Native)
	sent := map[string]bool{}
	for i, tool := range f.Tools {
		if sent[tool.Name] || len(tool.Name) > maxName || tool.Name == "" || !plain.MatchString(tool.Name) || tool.Name[0] >= '0' && tool.Name[0] <= '9' {
			t.Errorf("%d is sent as %q", i, tool.Name)
		}
		sent[tool.Name] = true
		if i == 0 && tool.Name != "plain_name-1" {
			t.Errorf("a good name becomes %s", tool.Name)
		}
	}
	a := answer(called(f.Tools[1].Name, "{}"), called("of nobody", "{}"))
	f.Finish(a)
	if calls := a.Message.Calls(); calls[0].Name != "mcp__a__b.c" || calls[1].Name != "of nobody" {
		t.Errorf("got %+v %+v", calls[0], calls[1])
	}
	if p := f.Piece(model.Piece{Kind: "tool", Name: f.Tools[2].Name}); p.Name != "mcp__a__b:c" {
		t.Errorf("got %+v", p)
	}
}

func TestFilesThatAServiceDoesNotTake(t *testing.T) {
	s := Service{Name: "service"}
	rules := Rules{MaxID: 64, Takes: func(*model.Block) bool { return false }, Form: NewForm(&model.Request{}, Native)}
	voice := model.Message{Role: model.User, Blocks: []model.Block{{Kind: model.BlockAudio, Media: &model.Media{Type: "audio/wav", Name: "v.wav", Data: []byte("x")}}}}
	if _, err := s.Talk([]model.Message{voice}, rules); err == nil || !strings.Contains(err.Error(), "v.wav") {
		t.Errorf("the last message loses a file: %v", err)
	}
	talk, err := s.Talk([]model.Message{voice, model.AssistantText("ok"), model.UserText("and?")}, rules)
	if err != nil || !strings.Contains(talk[0].Text(), "v.wav of type audio/wav, which you cannot read") {
		t.Errorf("got %+v, %v", talk, err)
	}
	kept := model.Message{Role: model.User, Blocks: []model.Block{{Kind: model.BlockImage, Media: &model.Media{Type: "image/png", Blob: "sha256:1"}}}}
	if _, err := s.Talk([]model.Message{kept}, rules); err == nil {
		t.Error("a file without its bytes is sent")
	}
}
