package remote

import (
	"crypto/sha256"
	"encoding/hex"
	"maps"
	"strings"

	"github.com/orchestrator-project/orchestrator/executor/model"
	"github.com/orchestrator-project/orchestrator/pipeline"
)

// The modes in which an answer is brought into the form of a schema.
const (
	Native = "native" // the service holds the model to the schema
	Tool   = "tool"   // the answer is the argument of a tool that the model must call
	Prompt = "prompt" // the model is told
)

// Form is a request as a service gets it, as far as its answer's form and the
// names of its tools go; it turns what comes back into what was asked for.
type Form struct {
	Mode   string // how the schema is kept to; empty: no schema
	System string // the request's, with what Prompt adds
	Tools  []model.ToolDef
	Choice string         // auto, none, required, or the name of one of Tools; empty: auto
	Schema map[string]any // of Native, an object; else nil

	model   string            // that was asked
	wrapped bool              // the schema is that of the member "value" of an object
	answer  string            // of Tool: the name of the tool that takes the answer
	names   map[string]string // of tools as the service has them, to those of the request
}

// valueKey is the member that holds an answer which is no object, as services
// want objects.
const valueKey = "value"

// NewForm gives a request's form. best is the mode of one that names none.
func NewForm(r *model.Request, best string) *Form {
	f := &Form{System: r.System, Choice: r.Choice, model: r.Model, names: map[string]string{}}
	for _, t := range r.Tools {
		t.Name = f.name(t.Name)
		t.Schema = parameters(t.Schema)
		f.Tools = append(f.Tools, t)
	}
	switch f.Choice {
	case "", "auto", "none", "required":
	default:
		f.Choice = f.name(f.Choice)
	}
	if len(f.Tools) == 0 {
		f.Choice = ""
	}
	if r.Schema == nil {
		return f
	}
	if f.Mode = r.Mode; f.Mode == "" {
		f.Mode = best
	}
	schema := r.Schema
	if f.Mode != Prompt {
		schema, f.wrapped = asObject(r.Schema)
	}
	switch f.Mode {
	case Native:
		f.Schema = schema
	case Tool:
		f.takeAnswer(schema)
	default:
		if f.System != "" {
			f.System += "\n\n"
		}
		f.System += "Answer with nothing but JSON that satisfies this schema:\n" + string(pipeline.EncodeValue(r.Schema))
	}
	return f
}

// takeAnswer adds the tool that takes the answer, unless the request wants
// another tool to be called first.
func (f *Form) takeAnswer(schema map[string]any) {
	switch f.Choice {
	case "", "auto", "none":
	default:
		return
	}
	f.answer = "final_answer"
	for f.names[f.answer] != "" {
		f.answer += "_"
	}
	if len(f.Tools) == 0 || f.Choice == "none" {
		f.Choice = f.answer
	} else {
		f.Choice = "required"
	}
	f.Tools = append(f.Tools, model.ToolDef{
		Name: f.answer, Description: "Takes your final answer. Call it once, when you know the answer, and alone.", Schema: schema,
	})
}

// maxName is the longest name of a tool that all services take.
const maxName = 64

// name is a tool's name as all services take it. One that they do not take gets
// another, which is the same in every request.
func (f *Form) name(name string) string {
	sent := strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '_' || r == '-' {
			return r
		}
		return '_'
	}, name)
	if sent != name || sent == "" || len(sent) > maxName || sent[0] == '-' || sent[0] >= '0' && sent[0] <= '9' {
		sum := sha256.Sum256([]byte(name))
		sent = "_" + sent[:min(len(sent), maxName-10)] + "_" + hex.EncodeToString(sum[:4])
	}
	f.names[sent] = name
	return sent
}

// Original is the name that a tool has in the request.
func (f *Form) Original(sent string) string {
	if name, ok := f.names[sent]; ok {
		return name
	}
	return sent
}

// Piece is a piece of the service's as the request's reader wants it.
func (f *Form) Piece(p model.Piece) model.Piece {
	if p.Kind != pieceTool {
		return p
	}
	if f.answer != "" && p.Name == f.answer {
		return model.Piece{Kind: model.BlockText, Text: p.Text}
	}
	p.Name = f.Original(p.Name)
	return p
}

const pieceTool = "tool"

// Finish turns the service's answer into the request's: with the request's names
// of tools, and what a tool took as the answer as its text.
func (f *Form) Finish(a *model.Response) {
	if a.Model == "" { // some do not say
		a.Model = f.model
	}
	var blocks []model.Block
	calls := false
	for _, b := range a.Message.Blocks {
		if b.ToolUse != nil && (f.answer == "" || b.ToolUse.Name != f.answer) {
			calls = true
		}
	}
	answered := false
	for _, b := range a.Message.Blocks {
		switch u := b.ToolUse; {
		case u == nil:
			blocks = append(blocks, b)
		case f.answer == "" || u.Name != f.answer:
			use := *u
			use.Name = f.Original(u.Name)
			b.ToolUse = &use
			blocks = append(blocks, b)
		case !calls && !answered: // with other calls, it answers before it knows
			answered = true
		}
	}
	if answered {
		blocks = f.answered(a.Message.Blocks, blocks)
		if a.Stop == model.StopTools {
			a.Stop = model.StopEnd
		}
	}
	a.Message = model.Message{Role: model.Assistant, Blocks: blocks}
	if f.wrapped && !calls && a.Stop != model.StopFiltered {
		f.unwrap(a)
	}
}

// answered puts the arguments of the answering tool in the place of what the
// model said around it.
func (f *Form) answered(all, rest []model.Block) []model.Block {
	kept := rest[:0]
	for _, b := range rest {
		if b.Kind != model.BlockText {
			kept = append(kept, b)
		}
	}
	for _, b := range all {
		if b.ToolUse != nil && b.ToolUse.Name == f.answer {
			return append(kept, model.Block{Kind: model.BlockText, Text: b.ToolUse.Arguments})
		}
	}
	return kept
}

// unwrap takes the value out of the object around it. A text that is none is
// left for whoever holds it against the schema.
func (f *Form) unwrap(a *model.Response) {
	v, err := pipeline.DecodeValue([]byte(strings.TrimSpace(a.Message.Text())))
	if err != nil {
		return
	}
	m, ok := v.(map[string]any)
	if !ok {
		return
	}
	inner, ok := m[valueKey]
	if !ok {
		return
	}
	var blocks []model.Block
	for _, b := range a.Message.Blocks {
		if b.Kind != model.BlockText {
			blocks = append(blocks, b)
		}
	}
	a.Message.Blocks = append(blocks, model.Block{Kind: model.BlockText, Text: string(pipeline.EncodeValue(inner))})
	if inner != nil { // nil means that the text is still to be read
		a.Value = inner
	}
}

// parameters is a tool's schema as services want it: an object that says so.
func parameters(s map[string]any) map[string]any {
	own := maps.Clone(s)
	if own == nil {
		own = map[string]any{}
	}
	own["type"] = "object"
	if _, ok := own["properties"].(map[string]any); !ok {
		own["properties"] = map[string]any{}
	}
	delete(own, "$schema")
	return own
}

// asObject is the schema of an object: the schema itself, or one of an object
// whose member "value" it describes.
func asObject(s map[string]any) (schema map[string]any, wrapped bool) {
	if _, ok := s["properties"].(map[string]any); ok && s["type"] == "object" && s["anyOf"] == nil {
		if _, ok := s["$schema"]; ok {
			s = maps.Clone(s)
			delete(s, "$schema")
		}
		return s, false
	}
	inner, _ := moved(s, true).(map[string]any)
	schema = map[string]any{"type": "object", "required": []any{valueKey}, "additionalProperties": false}
	for _, key := range []string{"$defs", "definitions"} {
		if defs, ok := inner[key]; ok {
			schema[key] = defs
			delete(inner, key)
		}
	}
	schema["properties"] = map[string]any{valueKey: inner}
	return schema, true
}

// moved is a copy of a schema whose references hold within the member that it
// becomes. Those into its definitions stay, as these move to the top.
func moved(v any, top bool) any {
	switch v := v.(type) {
	case map[string]any:
		own := make(map[string]any, len(v))
		for key, e := range v {
			ref, isRef := e.(string)
			switch {
			case top && key == "$schema":
			case key == "enum" || key == "const" || key == "default" || key == "examples": // values, not schemas
				own[key] = e
			case key == "$ref" && isRef && strings.HasPrefix(ref, "#") &&
				!strings.HasPrefix(ref, "#/$defs/") && !strings.HasPrefix(ref, "#/definitions/"):
				own[key] = "#/properties/" + valueKey + ref[1:]
			default:
				own[key] = moved(e, false)
			}
		}
		return own
	case []any:
		own := make([]any, len(v))
		for i, e := range v {
			own[i] = moved(e, false)
		}
		return own
	}
	return v
}
