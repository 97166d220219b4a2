package openai

import (
	"encoding/json"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/openai/openai-go/v3/packages/param"
	"github.com/openai/openai-go/v3/responses"
	"github.com/openai/openai-go/v3/shared"

	"github.com/orchestrator-project/orchestrator/executor/model"
	"github.com/orchestrator-project/orchestrator/executor/model/remote"
	"github.com/orchestrator-project/orchestrator/pipeline"
)

// phased is the Opaque of a text: what the service wants to know of it again.
type phased struct {
	Phase string `json:"phase"`
}

// responsesRequest is a request as Responses take it, and the form of its answer.
// The service keeps nothing: reasoning goes back and forth encrypted.
func (p *Provider) responsesRequest(r *model.Request) (responses.ResponseNewParams, *remote.Form, error) {
	form := remote.NewForm(r, remote.Native)
	q := responses.ResponseNewParams{Model: r.Model, Store: param.NewOpt(false)}
	talk, err := p.service.Talk(r.Messages, remote.Rules{Of: p.service.Name, MaxID: maxID, Takes: responsesTakes, Form: form})
	if err != nil {
		return q, nil, err
	}
	if form.System != "" {
		q.Instructions = param.NewOpt(form.System)
	}
	if r.MaxTokens > 0 {
		q.MaxOutputTokens = param.NewOpt(r.MaxTokens)
	}
	if r.Temperature != nil {
		q.Temperature = param.NewOpt(*r.Temperature)
	}
	q.Reasoning.Effort = shared.ReasoningEffort(r.Effort)
	if reasons.MatchString(r.Model) || r.Effort != "" && r.Effort != "none" {
		q.Include = []responses.ResponseIncludable{responses.ResponseIncludableReasoningEncryptedContent}
	}
	if key := conversation(r); key != "" && p.own {
		q.PromptCacheKey = param.NewOpt(key)
	}
	for _, m := range talk {
		q.Input.OfInputItemList = append(q.Input.OfInputItemList, items(m)...)
	}
	for _, t := range form.Tools {
		f := responses.FunctionToolParam{Name: t.Name, Parameters: t.Schema, Strict: param.NewOpt(false)} // else it changes the schema
		if t.Description != "" {
			f.Description = param.NewOpt(t.Description)
		}
		q.Tools = append(q.Tools, responses.ToolUnionParam{OfFunction: &f})
	}
	switch form.Choice {
	case "", "auto":
	case "none", "required":
		q.ToolChoice.OfToolChoiceMode = param.NewOpt(responses.ToolChoiceOptions(form.Choice))
	default:
		q.ToolChoice.OfFunctionTool = &responses.ToolChoiceFunctionParam{Name: form.Choice}
	}
	if form.Mode == remote.Native {
		schema, is := strict(form.Schema)
		q.Text.Format.OfJSONSchema = &responses.ResponseFormatTextJSONSchemaConfigParam{
			Name: answerName, Schema: schema, Strict: param.NewOpt(is),
		}
	}
	return q, form, nil
}

func responsesTakes(b *model.Block) bool {
	switch b.Kind {
	case model.BlockImage:
		return strings.HasPrefix(b.Media.Type, "image/")
	case model.BlockDocument:
		return b.Media.Type == "application/pdf"
	}
	return false
}

// items are a message as items of the conversation, in order.
func items(m model.Message) []responses.ResponseInputItemUnionParam {
	var list []responses.ResponseInputItemUnionParam
	var said responses.ResponseInputMessageContentListParam
	for _, b := range m.Blocks {
		switch {
		case b.Kind == model.BlockReasoning:
			item := param.Override[responses.ResponseReasoningItemParam](json.RawMessage(b.Opaque))
			list = append(list, responses.ResponseInputItemUnionParam{OfReasoning: &item})
		case b.ToolUse != nil:
			list = append(list, responses.ResponseInputItemParamOfFunctionCall(b.ToolUse.Arguments, b.ToolUse.ID, b.ToolUse.Name))
		case b.ToolResult != nil:
			list = append(list, output(b.ToolResult))
		case m.Role == model.Assistant:
			list = append(list, spoken(b))
		default:
			said = append(said, input(b))
		}
	}
	if len(said) > 0 {
		list = append(list, responses.ResponseInputItemParamOfMessage(said, responses.EasyInputMessageRoleUser))
	}
	return list
}

func spoken(b model.Block) responses.ResponseInputItemUnionParam {
	text := b.Text
	if b.Media != nil { // the service takes no files of the assistant
		text = "[a file of type " + b.Media.Type + "]"
	}
	item := responses.ResponseInputItemParamOfMessage(text, responses.EasyInputMessageRoleAssistant)
	var p phased
	if len(b.Opaque) > 0 && json.Unmarshal(b.Opaque, &p) == nil {
		item.OfMessage.Phase = responses.EasyInputMessagePhase(p.Phase)
	}
	return item
}

func output(r *model.ToolResult) responses.ResponseInputItemUnionParam {
	item := responses.ResponseInputItemFunctionCallOutputParam{CallID: param.NewOpt(r.ID)}
	text, files := resultText(r)
	if len(files) == 0 {
		item.Output.OfString = param.NewOpt(text)
		return responses.ResponseInputItemUnionParam{OfFunctionCallOutput: &item}
	}
	parts := responses.ResponseFunctionCallOutputItemListParam{{OfInputText: &responses.ResponseInputTextContentParam{Text: text}}}
	for _, b := range files {
		if b.Kind == model.BlockImage {
			parts = append(parts, responses.ResponseFunctionCallOutputItemUnionParam{OfInputImage: &responses.ResponseInputImageContentParam{
				ImageURL: param.NewOpt(where(b.Media)),
			}})
			continue
		}
		file := input(b).OfInputFile
		parts = append(parts, responses.ResponseFunctionCallOutputItemUnionParam{OfInputFile: &responses.ResponseInputFileContentParam{
			FileData: file.FileData, FileURL: file.FileURL, Filename: file.Filename,
		}})
	}
	item.Output.OfResponseFunctionCallOutputItemArray = parts
	return responses.ResponseInputItemUnionParam{OfFunctionCallOutput: &item}
}

func input(b model.Block) responses.ResponseInputContentUnionParam {
	switch b.Kind {
	case model.BlockImage:
		return responses.ResponseInputContentUnionParam{OfInputImage: &responses.ResponseInputImageParam{
			ImageURL: param.NewOpt(where(b.Media)), Detail: responses.ResponseInputImageDetailAuto,
		}}
	case model.BlockDocument:
		file := &responses.ResponseInputFileParam{}
		if len(b.Media.Data) == 0 {
			file.FileURL = param.NewOpt(b.Media.URL)
		} else {
			file.FileData, file.Filename = param.NewOpt(remote.DataURL(b.Media)), param.NewOpt(remote.FileName(b.Media))
		}
		return responses.ResponseInputContentUnionParam{OfInputFile: file}
	}
	return responses.ResponseInputContentUnionParam{OfInputText: &responses.ResponseInputTextParam{Text: b.Text}}
}

// responsesSource reads the events of one answer.
type responsesSource struct {
	*transport[responses.ResponseStreamEventUnion]
	model string
	names map[int64]string // of calls, by the number of the item
	items map[int64]responses.ResponseOutputItemUnion
	end   *responses.Response
}

// Next reads one event.
func (s *responsesSource) Next() ([]model.Piece, error) {
	if s.end != nil {
		return nil, io.EOF
	}
	e, ok, err := s.next()
	switch {
	case err != nil:
		return nil, err
	case !ok:
		return nil, s.provider.service.Cut()
	}
	switch e.Type {
	case "response.created":
		s.model = e.Response.Model
	case "response.output_text.delta", "response.refusal.delta":
		return []model.Piece{{Kind: model.BlockText, Text: e.Delta}}, nil
	case "response.reasoning_summary_text.delta", "response.reasoning_text.delta":
		return []model.Piece{{Kind: model.BlockReasoning, Text: e.Delta}}, nil
	case "response.output_item.added":
		if e.Item.Type == "function_call" {
			if s.names == nil {
				s.names = map[int64]string{}
			}
			s.names[e.OutputIndex] = e.Item.Name
			return []model.Piece{{Kind: "tool", Name: e.Item.Name}}, nil
		}
	case "response.function_call_arguments.delta":
		return []model.Piece{{Kind: "tool", Name: s.names[e.OutputIndex], Text: e.Delta}}, nil
	case "response.output_item.done":
		if s.items == nil {
			s.items = map[int64]responses.ResponseOutputItemUnion{}
		}
		s.items[e.OutputIndex] = e.Item
	case "response.completed", "response.incomplete":
		s.end = &e.Response
		return nil, io.EOF
	case "response.failed":
		r := remote.Refusal{Codes: []string{string(e.Response.Error.Code)}, Message: e.Response.Error.Message}
		return nil, s.provider.service.Refused(r)
	case "error":
		return nil, s.provider.service.Refused(remote.Refusal{Codes: []string{e.Code}, Message: e.Message})
	}
	return nil, nil
}

// Response is the whole answer.
func (s *responsesSource) Response() *model.Response {
	a := &model.Response{Model: s.model, Stop: model.StopEnd, Message: model.Message{Role: model.Assistant}}
	if s.end.Model != "" {
		a.Model = s.end.Model
	}
	list := s.end.Output
	if len(s.items) > 0 {
		list = nil
		for _, i := range slices.Sorted(maps.Keys(s.items)) {
			list = append(list, s.items[i])
		}
	}
	refused := false
	for i := range list {
		blocks, no := s.blocks(&list[i])
		a.Message.Blocks = append(a.Message.Blocks, blocks...)
		refused = refused || no
	}
	switch reason := s.end.IncompleteDetails.Reason; {
	case refused, reason == "content_filter":
		a.Stop = model.StopFiltered
	case reason != "":
		a.Stop = model.StopMaxTokens
	case len(a.Message.Calls()) > 0:
		a.Stop = model.StopTools
	}
	if u := s.end.Usage; u.InputTokens+u.OutputTokens > 0 {
		a.Usage = usageOf(u)
	}
	return a
}

func usageOf(u responses.ResponseUsage) *pipeline.Usage {
	return remote.Usage(u.InputTokens, u.OutputTokens, u.InputTokensDetails.CachedTokens, 0, u.OutputTokensDetails.ReasoningTokens)
}

// blocks are an item's blocks, and whether the model refuses in it.
func (s *responsesSource) blocks(item *responses.ResponseOutputItemUnion) (blocks []model.Block, refused bool) {
	switch item.Type {
	case "reasoning":
		b := model.Block{Kind: model.BlockReasoning}
		var parts []string
		for _, t := range item.Summary {
			parts = append(parts, t.Text)
		}
		b.Text = strings.Join(parts, "\n\n")
		if item.EncryptedContent != "" { // without it, the service would not know the item again
			b.Opaque, b.Of = []byte(item.RawJSON()), s.provider.service.Name
		}
		if b.Text != "" || b.Opaque != nil {
			blocks = append(blocks, b)
		}
	case "message":
		for _, c := range item.Content {
			b := model.Block{Kind: model.BlockText, Text: c.Text}
			if c.Type == "refusal" {
				b.Text, refused = c.Refusal, true
			}
			if item.Phase != "" {
				b.Opaque, b.Of = pipeline.EncodeValue(map[string]any{"phase": string(item.Phase)}), s.provider.service.Name
			}
			if b.Text != "" {
				blocks = append(blocks, b)
			}
		}
	case "function_call":
		blocks = []model.Block{{Kind: model.BlockToolUse, ToolUse: &model.ToolUse{ID: item.CallID, Name: item.Name, Arguments: item.Arguments.OfString}}}
	}
	return blocks, refused
}
