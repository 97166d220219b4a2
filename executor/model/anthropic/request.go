package anthropic

import (
	"encoding/base64"
	"encoding/json"

	sdk "github.com/anthropics/anthropic-sdk-go"
	"github.com/anthropics/anthropic-sdk-go/packages/param"

	"github.com/orchestrator-project/orchestrator/executor/model"
	"github.com/orchestrator-project/orchestrator/executor/model/remote"
	"github.com/orchestrator-project/orchestrator/pipeline"
)

// schemas is the part of JSON Schema that the service holds answers to.
var schemas = remote.Dialect{
	Keys: []string{
		"type", "properties", "required", "additionalProperties", "items", "enum", "const", "anyOf", "allOf",
		"$ref", "$defs", "definitions", "description",
	},
	Closed: true,
}

// sealed is the Opaque of a reasoning block: what proves that the service said it.
type sealed struct {
	Signature string `json:"signature,omitempty"`
	Redacted  string `json:"redacted,omitempty"` // in the place of the text
}

// request is a request as the service takes it, and the form of its answer.
func request(service remote.Service, r *model.Request) (sdk.MessageNewParams, *remote.Form, error) {
	f := familyOf(r.Model)
	best := remote.Tool
	if f.native {
		best = remote.Native
	}
	form := remote.NewForm(r, best)
	p := sdk.MessageNewParams{Model: r.Model, MaxTokens: r.MaxTokens}
	if form.Mode == remote.Native {
		fitted, ok := schemas.Fit(form.Schema)
		if ok {
			p.OutputConfig.Format.Schema = fitted
		} else { // it cannot be held to this schema: a tool can
			again := *r
			again.Mode = remote.Tool
			form = remote.NewForm(&again, remote.Tool)
		}
	}
	talk, err := service.Talk(r.Messages, remote.Rules{Of: service.Name, MaxID: 64, Takes: takes, Form: form})
	if err != nil {
		return p, nil, err
	}
	if r.Temperature != nil {
		p.Temperature = param.NewOpt(*r.Temperature)
	}
	if form.System != "" {
		p.System = []sdk.TextBlockParam{{Text: form.System, CacheControl: sdk.NewCacheControlEphemeralParam()}}
	}
	for _, m := range talk {
		p.Messages = append(p.Messages, message(m))
	}
	tools(&p, form, talk)
	think(&p, r.Effort, f)
	if r.Agent != "" || r.Phase == model.PhaseTurn || len(talk) > 1 {
		keep(p.Messages)
	}
	return p, form, nil
}

func takes(b *model.Block) bool {
	switch b.Kind {
	case model.BlockImage:
		switch b.Media.Type {
		case "image/jpeg", "image/png", "image/gif", "image/webp":
			return true
		}
	case model.BlockDocument:
		return b.Media.Type == "application/pdf"
	}
	return false
}

// tools sets what the model may call. The service wants to know every tool that
// the conversation speaks of, also where none may be called any more.
func tools(p *sdk.MessageNewParams, form *remote.Form, talk []model.Message) {
	list := form.Tools
	if len(list) == 0 {
		known := map[string]bool{}
		for _, m := range talk {
			for _, u := range m.Calls() {
				if !known[u.Name] {
					known[u.Name] = true
					list = append(list, model.ToolDef{Name: u.Name, Schema: map[string]any{"type": "object"}})
				}
			}
		}
		if len(list) > 0 {
			none := sdk.NewToolChoiceNoneParam()
			p.ToolChoice.OfNone = &none
		}
	}
	for _, t := range list {
		own := sdk.ToolParam{Name: t.Name, InputSchema: param.Override[sdk.ToolInputSchemaParam](json.RawMessage(pipeline.EncodeValue(t.Schema)))}
		if t.Description != "" {
			own.Description = param.NewOpt(t.Description)
		}
		p.Tools = append(p.Tools, sdk.ToolUnionParam{OfTool: &own})
	}
	if n := len(p.Tools); n > 0 {
		p.Tools[n-1].OfTool.CacheControl = sdk.NewCacheControlEphemeralParam()
	}
	switch form.Choice {
	case "", "auto":
	case "none":
		none := sdk.NewToolChoiceNoneParam()
		p.ToolChoice.OfNone = &none
	case "required":
		p.ToolChoice.OfAny = &sdk.ToolChoiceAnyParam{}
	default:
		p.ToolChoice = sdk.ToolChoiceParamOfTool(form.Choice)
	}
}

// keep marks the ends of the user's last two messages: the service keeps what
// stands before the last, and finds what it kept a turn ago at the other.
func keep(messages []sdk.MessageParam) {
	for i, n := len(messages)-1, 0; i >= 0 && n < 2; i -= 2 {
		content := messages[i].Content
		if c := content[len(content)-1].GetCacheControl(); c != nil {
			*c = sdk.NewCacheControlEphemeralParam()
		}
		n++
	}
}

func message(m model.Message) sdk.MessageParam {
	own := sdk.MessageParam{Role: sdk.MessageParamRole(m.Role)}
	for _, b := range m.Blocks {
		own.Content = append(own.Content, block(b))
	}
	return own
}

func block(b model.Block) sdk.ContentBlockParamUnion {
	switch b.Kind {
	case model.BlockReasoning:
		var s sealed
		if json.Unmarshal(b.Opaque, &s) == nil && s.Redacted != "" {
			return sdk.NewRedactedThinkingBlock(s.Redacted)
		}
		return sdk.NewThinkingBlock(s.Signature, b.Text)
	case model.BlockImage:
		return sdk.ContentBlockParamUnion{OfImage: image(b.Media)}
	case model.BlockDocument:
		return sdk.ContentBlockParamUnion{OfDocument: document(b.Media)}
	case model.BlockToolUse:
		return sdk.NewToolUseBlock(b.ToolUse.ID, json.RawMessage(b.ToolUse.Arguments), b.ToolUse.Name)
	case model.BlockToolResult:
		result := sdk.ToolResultBlockParam{ToolUseID: b.ToolResult.ID}
		if b.ToolResult.Failed {
			result.IsError = param.NewOpt(true)
		}
		for _, c := range b.ToolResult.Content {
			result.Content = append(result.Content, resultBlock(c))
		}
		return sdk.ContentBlockParamUnion{OfToolResult: &result}
	}
	return sdk.NewTextBlock(b.Text)
}

func resultBlock(b model.Block) sdk.ToolResultBlockParamContentUnion {
	switch b.Kind {
	case model.BlockImage:
		return sdk.ToolResultBlockParamContentUnion{OfImage: image(b.Media)}
	case model.BlockDocument:
		return sdk.ToolResultBlockParamContentUnion{OfDocument: document(b.Media)}
	}
	return sdk.ToolResultBlockParamContentUnion{OfText: &sdk.TextBlockParam{Text: b.Text}}
}

func image(m *model.Media) *sdk.ImageBlockParam {
	if len(m.Data) == 0 {
		return &sdk.ImageBlockParam{Source: sdk.ImageBlockParamSourceUnion{OfURL: &sdk.URLImageSourceParam{URL: m.URL}}}
	}
	return &sdk.ImageBlockParam{Source: sdk.ImageBlockParamSourceUnion{OfBase64: &sdk.Base64ImageSourceParam{
		Data: base64.StdEncoding.EncodeToString(m.Data), MediaType: sdk.Base64ImageSourceMediaType(m.Type),
	}}}
}

func document(m *model.Media) *sdk.DocumentBlockParam {
	own := &sdk.DocumentBlockParam{}
	if m.Name != "" {
		own.Title = param.NewOpt(m.Name)
	}
	if len(m.Data) == 0 {
		own.Source.OfURL = &sdk.URLPDFSourceParam{URL: m.URL}
	} else {
		own.Source.OfBase64 = &sdk.Base64PDFSourceParam{Data: base64.StdEncoding.EncodeToString(m.Data)}
	}
	return own
}
