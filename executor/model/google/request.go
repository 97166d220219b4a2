package google

import (
	"encoding/json"
	"regexp"
	"strconv"
	"strings"

	"google.golang.org/genai"

	"github.com/orchestrator-project/orchestrator/executor/model"
	"github.com/orchestrator-project/orchestrator/executor/model/remote"
	"github.com/orchestrator-project/orchestrator/pipeline"
)

// schemas is the part of JSON Schema that the service knows.
var schemas = remote.Dialect{Keys: []string{
	"type", "format", "description", "enum", "items", "prefixItems", "minItems", "maxItems", "minimum", "maximum", "anyOf",
	"properties", "additionalProperties", "required", "$ref", "$defs", "$anchor",
}}

// sealed is the Opaque of a block: what the service has signed.
type sealed struct {
	Signature []byte `json:"signature"`
}

// version finds the generation in names like gemini-2.5-pro and gemini-3-pro-preview.
var version = regexp.MustCompile(`gemini-(\d+)`)

func generation(name string) int {
	m := version.FindStringSubmatch(name)
	if m == nil {
		return 0
	}
	n, _ := strconv.Atoi(m[1]) // the expression lets nothing but digits in
	return n
}

// unsigned is what the service accepts, by its own documentation, in the place of
// the signature of a call that another service has made.
const unsigned = "skip_thought_signature_validator"

// budgets are the tokens of thinking that an effort is worth to models that take
// a budget.
var budgets = map[string]int32{"none": 0, "low": 2048, "medium": 8192, "high": 16_384}

// request is a request as the service takes it, and the form of its answer.
func request(service remote.Service, r *model.Request) ([]*genai.Content, *genai.GenerateContentConfig, *remote.Form, error) {
	best := remote.Native
	if len(r.Tools) > 0 && generation(r.Model) < 3 { // they take one or the other
		best = remote.Tool
	}
	form := remote.NewForm(r, best)
	c := &genai.GenerateContentConfig{}
	if form.Mode == remote.Native {
		fitted, ok := schemas.Fit(form.Schema)
		if ok {
			c.ResponseMIMEType, c.ResponseJsonSchema = "application/json", fitted
		} else {
			again := *r
			again.Mode = remote.Tool
			form = remote.NewForm(&again, remote.Tool)
		}
	}
	talk, err := service.Talk(r.Messages, remote.Rules{Of: service.Name, MaxID: 64, Takes: takes, Form: form})
	if err != nil {
		return nil, nil, nil, err
	}
	if form.System != "" {
		c.SystemInstruction = &genai.Content{Parts: []*genai.Part{{Text: form.System}}}
	}
	if r.Temperature != nil {
		t := float32(*r.Temperature)
		c.Temperature = &t
	}
	c.MaxOutputTokens = int32(min(r.MaxTokens, 1<<31-1)) //nolint:gosec // bounded on this line
	think(c, r)
	tools(c, form)
	exactly(c, talk)
	var contents []*genai.Content
	for _, m := range talk {
		contents = append(contents, content(m, generation(r.Model) >= 3))
	}
	return contents, c, form, nil
}

// think sets how much the model thinks: older ones take a budget, newer ones a
// level.
func think(c *genai.GenerateContentConfig, r *model.Request) {
	budget, known := budgets[r.Effort]
	switch {
	case !known:
	case generation(r.Model) >= 3 && r.Effort == "none":
		c.ThinkingConfig = &genai.ThinkingConfig{ThinkingLevel: genai.ThinkingLevelLow} // they cannot do without
	case generation(r.Model) >= 3:
		c.ThinkingConfig = &genai.ThinkingConfig{ThinkingLevel: genai.ThinkingLevel(strings.ToUpper(r.Effort)), IncludeThoughts: true}
	default:
		c.ThinkingConfig = &genai.ThinkingConfig{ThinkingBudget: &budget, IncludeThoughts: budget > 0}
	}
}

func tools(c *genai.GenerateContentConfig, form *remote.Form) {
	if len(form.Tools) == 0 {
		return
	}
	own := &genai.Tool{}
	for _, t := range form.Tools {
		f := &genai.FunctionDeclaration{Name: t.Name, Description: t.Description}
		if fitted, ok := schemas.Fit(t.Schema); ok {
			f.ParametersJsonSchema = fitted
		} else { // the description is what the model can be told
			f.ParametersJsonSchema = map[string]any{"type": "object"}
			f.Description += "\nIts arguments satisfy this schema: " + string(pipeline.EncodeValue(t.Schema))
		}
		own.FunctionDeclarations = append(own.FunctionDeclarations, f)
	}
	c.Tools = []*genai.Tool{own}
	choice := &genai.FunctionCallingConfig{Mode: genai.FunctionCallingConfigModeAny}
	switch form.Choice {
	case "", "auto":
		return
	case "none":
		choice.Mode = genai.FunctionCallingConfigModeNone
	case "required":
	default:
		choice.AllowedFunctionNames = []string{form.Choice}
	}
	c.ToolConfig = &genai.ToolConfig{FunctionCallingConfig: choice}
}

func takes(b *model.Block) bool {
	t := b.Media.Type
	switch b.Kind {
	case model.BlockImage:
		return strings.HasPrefix(t, "image/")
	case model.BlockAudio:
		return strings.HasPrefix(t, "audio/")
	case model.BlockDocument:
		return t == "application/pdf"
	}
	return false
}

func content(m model.Message, signs bool) *genai.Content {
	if m.Role == model.Assistant {
		return &genai.Content{Role: genai.RoleModel, Parts: spoken(m.Blocks, signs)}
	}
	own := &genai.Content{Role: genai.RoleUser}
	var files []*genai.Part
	for _, b := range m.Blocks {
		if b.ToolResult == nil {
			files = append(files, part(b))
			continue
		}
		response, more := result(b.ToolResult)
		own.Parts = append(own.Parts, response)
		files = append(files, more...)
	}
	own.Parts = append(own.Parts, files...)
	return own
}

// spoken is what the model said. Models that sign want a signature at the first
// call of a message.
func spoken(blocks []model.Block, signs bool) []*genai.Part {
	var parts []*genai.Part
	first := true
	for _, b := range blocks {
		if b.Kind == model.BlockReasoning { // only the signatures of others count
			continue
		}
		p := part(b)
		var s sealed
		if len(b.Opaque) > 0 && json.Unmarshal(b.Opaque, &s) == nil {
			p.ThoughtSignature = s.Signature
		}
		if b.ToolUse != nil {
			if first && signs && len(p.ThoughtSignature) == 0 {
				p.ThoughtSignature = []byte(unsigned)
			}
			first = false
		}
		parts = append(parts, p)
	}
	if len(parts) == 0 {
		parts = []*genai.Part{{Text: "(nothing was said)"}}
	}
	return parts
}

func part(b model.Block) *genai.Part {
	switch {
	case b.ToolUse != nil:
		return &genai.Part{FunctionCall: &genai.FunctionCall{ID: b.ToolUse.ID, Name: b.ToolUse.Name, Args: map[string]any{}}}
	case b.Media != nil && len(b.Media.Data) > 0:
		return &genai.Part{InlineData: &genai.Blob{MIMEType: b.Media.Type, Data: b.Media.Data}}
	case b.Media != nil:
		return &genai.Part{FileData: &genai.FileData{MIMEType: b.Media.Type, FileURI: b.Media.URL}}
	}
	return &genai.Part{Text: b.Text}
}

// exactly puts the arguments of calls into the request as they were given. The SDK
// reads numbers as floating points, which keep no more than 15 digits.
func exactly(c *genai.GenerateContentConfig, talk []model.Message) {
	given := map[string]json.RawMessage{}
	for _, m := range talk {
		for _, u := range m.Calls() {
			given[u.ID] = json.RawMessage(u.Arguments)
		}
	}
	if len(given) == 0 {
		return
	}
	c.HTTPOptions = &genai.HTTPOptions{ExtrasRequestProvider: func(body map[string]any) map[string]any {
		visit(body["contents"], given)
		return body
	}}
}

// visit replaces the arguments of every call below v.
func visit(v any, given map[string]json.RawMessage) {
	switch v := v.(type) {
	case []any:
		for _, e := range v {
			visit(e, given)
		}
	case []map[string]any:
		for _, e := range v {
			visit(e, given)
		}
	case map[string]any:
		if call, ok := v["functionCall"].(map[string]any); ok {
			id, _ := call["id"].(string)
			if raw, ok := given[id]; ok {
				call["args"] = raw
			}
		}
		visit(v["parts"], given)
	}
}

// result is a result of a tool, and the files in it, which follow it.
func result(r *model.ToolResult) (*genai.Part, []*genai.Part) {
	var texts []string
	var files []*genai.Part
	for _, b := range r.Content {
		if b.Media != nil {
			files = append(files, part(b))
			continue
		}
		texts = append(texts, b.Text)
	}
	text := strings.Join(texts, "\n")
	if text == "" {
		text = "(see the files that follow)"
	}
	key := "output"
	if r.Failed {
		key = "error"
	}
	return &genai.Part{FunctionResponse: &genai.FunctionResponse{ID: r.ID, Name: r.Name, Response: map[string]any{key: text}}}, files
}
