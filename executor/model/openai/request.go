package openai

import (
	"encoding/base64"
	"encoding/json"
	"strings"

	"github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/packages/param"
	"github.com/openai/openai-go/v3/shared"

	"github.com/orchestrator-project/orchestrator/executor/model"
	"github.com/orchestrator-project/orchestrator/executor/model/remote"
	"github.com/orchestrator-project/orchestrator/pipeline"
)

// schemas is the part of JSON Schema that the service holds answers to in its
// strict mode.
var schemas = remote.Dialect{
	Keys: []string{
		"type", "properties", "required", "additionalProperties", "items", "enum", "const", "anyOf", "$ref", "$defs", "definitions",
		"description", "pattern", "format", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf", "minItems", "maxItems",
	},
	Closed: true, Required: true,
}

// answerName is the name of a schema, which the service wants.
const answerName = "answer"

// maxID is the longest id of a call that the service takes, in bytes.
const maxID = 40

// strict is the schema as the service can be strict about it, or the schema
// itself.
func strict(schema map[string]any) (fitted map[string]any, is bool) {
	if fitted, ok := schemas.Fit(schema); ok {
		return fitted, true
	}
	return schema, false
}

// raw is a schema as JSON, with its members in order: services keep prompts that
// are the same to the byte.
func raw(schema map[string]any) json.RawMessage { return json.RawMessage(pipeline.EncodeValue(schema)) }

// chatRequest is a request as Chat Completions take it, and the form of its answer.
func (p *Provider) chatRequest(r *model.Request) (openai.ChatCompletionNewParams, *remote.Form, error) {
	form := remote.NewForm(r, remote.Native)
	q := openai.ChatCompletionNewParams{Model: r.Model}
	talk, err := p.service.Talk(r.Messages, remote.Rules{Of: p.service.Name, MaxID: maxID, Takes: chatTakes, Form: form})
	if err != nil {
		return q, nil, err
	}
	q.StreamOptions.IncludeUsage = param.NewOpt(true)
	if r.MaxTokens > 0 && p.own {
		q.MaxCompletionTokens = param.NewOpt(r.MaxTokens)
	} else if r.MaxTokens > 0 { // the older name, which all others know
		q.MaxTokens = param.NewOpt(r.MaxTokens)
	}
	if r.Temperature != nil {
		q.Temperature = param.NewOpt(*r.Temperature)
	}
	q.ReasoningEffort = shared.ReasoningEffort(r.Effort)
	if key := conversation(r); key != "" && p.own {
		q.PromptCacheKey = param.NewOpt(key)
	}
	if form.System != "" {
		q.Messages = append(q.Messages, openai.SystemMessage(form.System))
	}
	for _, m := range talk {
		if m.Role == model.Assistant {
			q.Messages = append(q.Messages, assistant(m.Blocks))
		} else {
			q.Messages = append(q.Messages, user(m.Blocks)...)
		}
	}
	for _, t := range form.Tools {
		f := shared.FunctionDefinitionParam{Name: t.Name, Parameters: t.Schema}
		if t.Description != "" {
			f.Description = param.NewOpt(t.Description)
		}
		q.Tools = append(q.Tools, openai.ChatCompletionFunctionTool(f))
	}
	switch form.Choice {
	case "", "auto":
	case "none", "required":
		q.ToolChoice.OfAuto = param.NewOpt(form.Choice)
	default:
		q.ToolChoice = openai.ToolChoiceOptionFunctionToolChoice(openai.ChatCompletionNamedToolChoiceFunctionParam{Name: form.Choice})
	}
	if form.Mode == remote.Native {
		schema, is := strict(form.Schema)
		q.ResponseFormat.OfJSONSchema = &shared.ResponseFormatJSONSchemaParam{JSONSchema: shared.ResponseFormatJSONSchemaJSONSchemaParam{
			Name: answerName, Schema: raw(schema), Strict: param.NewOpt(is),
		}}
	}
	return q, form, nil
}

func chatTakes(b *model.Block) bool {
	m := b.Media
	switch b.Kind {
	case model.BlockImage:
		return strings.HasPrefix(m.Type, "image/")
	case model.BlockAudio:
		return len(m.Data) > 0 && audioFormat(m.Type) != ""
	case model.BlockDocument:
		return len(m.Data) > 0 && m.Type == "application/pdf"
	}
	return false
}

func audioFormat(mediaType string) string {
	switch mediaType {
	case "audio/wav", "audio/x-wav", "audio/wave":
		return "wav"
	case "audio/mpeg", "audio/mp3":
		return "mp3"
	}
	return ""
}

func assistant(blocks []model.Block) openai.ChatCompletionMessageParamUnion {
	own := openai.ChatCompletionAssistantMessageParam{}
	var text strings.Builder
	for _, b := range blocks {
		switch {
		case b.ToolUse != nil:
			own.ToolCalls = append(own.ToolCalls, openai.ChatCompletionMessageToolCallUnionParam{
				OfFunction: &openai.ChatCompletionMessageFunctionToolCallParam{
					ID:       b.ToolUse.ID,
					Function: openai.ChatCompletionMessageFunctionToolCallFunctionParam{Name: b.ToolUse.Name, Arguments: b.ToolUse.Arguments},
				},
			})
		case b.Kind == model.BlockText:
			text.WriteString(b.Text)
		case b.Media != nil: // the service takes no files of the assistant
			text.WriteString("[a file of type " + b.Media.Type + "]")
		}
	}
	if text.Len() > 0 {
		own.Content.OfString = param.NewOpt(text.String())
	} else if len(own.ToolCalls) == 0 {
		own.Content.OfString = param.NewOpt("(nothing was said)")
	}
	return openai.ChatCompletionMessageParamUnion{OfAssistant: &own}
}

// user is what the user says: each result of a tool is a message of its own. These
// hold texts alone, so that the files of results come after them.
func user(blocks []model.Block) []openai.ChatCompletionMessageParamUnion {
	var list []openai.ChatCompletionMessageParamUnion
	var rest, files []model.Block
	for _, b := range blocks {
		if b.ToolResult == nil {
			rest = append(rest, b)
			continue
		}
		text, more := resultText(b.ToolResult)
		list = append(list, openai.ToolMessage(text, b.ToolResult.ID))
		if len(more) > 0 {
			files = append(files, model.Block{Kind: model.BlockText, Text: "Files that " + b.ToolResult.Name + " gave:"})
			files = append(files, more...)
		}
	}
	if rest = append(files, rest...); len(rest) > 0 {
		list = append(list, openai.ChatCompletionMessageParamUnion{OfUser: &openai.ChatCompletionUserMessageParam{Content: content(rest)}})
	}
	return list
}

// resultText is a result as a text, and the files in it.
func resultText(r *model.ToolResult) (string, []model.Block) {
	var parts []string
	var files []model.Block
	for _, b := range r.Content {
		if b.Media != nil {
			files = append(files, b)
			continue
		}
		parts = append(parts, b.Text)
	}
	text := strings.Join(parts, "\n")
	switch {
	case text == "":
		text = "(see the files that follow)"
	case r.Failed:
		text = "The call failed: " + text
	}
	return text, files
}

// content is one text where it can be, which every service takes.
func content(blocks []model.Block) (c openai.ChatCompletionUserMessageParamContentUnion) {
	var texts []string
	for _, b := range blocks {
		if b.Media == nil {
			texts = append(texts, b.Text)
		}
	}
	if len(texts) == len(blocks) {
		c.OfString = param.NewOpt(strings.Join(texts, "\n\n"))
		return c
	}
	for _, b := range blocks {
		c.OfArrayOfContentParts = append(c.OfArrayOfContentParts, contentPart(b))
	}
	return c
}

func contentPart(b model.Block) openai.ChatCompletionContentPartUnionParam {
	m := b.Media
	switch b.Kind {
	case model.BlockImage:
		return openai.ImageContentPart(openai.ChatCompletionContentPartImageImageURLParam{URL: where(m)})
	case model.BlockAudio:
		return openai.InputAudioContentPart(openai.ChatCompletionContentPartInputAudioInputAudioParam{
			Data: base64.StdEncoding.EncodeToString(m.Data), Format: audioFormat(m.Type),
		})
	case model.BlockDocument:
		return openai.FileContentPart(openai.ChatCompletionContentPartFileFileParam{
			FileData: param.NewOpt(remote.DataURL(m)), Filename: param.NewOpt(remote.FileName(m)),
		})
	}
	return openai.TextContentPart(b.Text)
}

// where is a file's own URL, or one that holds its bytes.
func where(m *model.Media) string {
	if len(m.Data) == 0 {
		return m.URL
	}
	return remote.DataURL(m)
}
