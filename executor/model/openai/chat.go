package openai

import (
	"encoding/json"
	"io"
	"strings"

	"github.com/openai/openai-go/v3"

	"github.com/orchestrator-project/orchestrator/executor/model"
	"github.com/orchestrator-project/orchestrator/executor/model/remote"
	"github.com/orchestrator-project/orchestrator/pipeline"
)

// chatSource reads the chunks of one answer.
type chatSource struct {
	*transport[openai.ChatCompletionChunk]
	model     string
	text      strings.Builder
	reasoning strings.Builder
	calls     []*chatCall
	finish    string
	refused   bool
	usage     *pipeline.Usage
}

// chatCall is a call that grows.
type chatCall struct {
	index     int64
	id, name  string
	arguments strings.Builder
}

// Next reads one chunk. The answer is whole once the service has said why it
// ended: what comes after that, and be it a broken connection, is usage at most.
func (s *chatSource) Next() ([]model.Piece, error) {
	chunk, ok, err := s.next()
	switch {
	case err != nil && (s.finish == "" || s.ctx.Err() != nil):
		return nil, err
	case ok:
		return s.chunk(chunk)
	case s.finish == "":
		return nil, s.provider.service.Cut()
	case s.finish == "error":
		return nil, s.provider.service.Refused(remote.Refusal{Codes: []string{"server_error"}, Message: "the model failed within its answer"})
	}
	return nil, io.EOF
}

func (s *chatSource) chunk(c openai.ChatCompletionChunk) ([]model.Piece, error) {
	if c.Model != "" {
		s.model = c.Model
	}
	if u := c.Usage; u.PromptTokens+u.CompletionTokens > 0 {
		s.usage = remote.Usage(u.PromptTokens, u.CompletionTokens, u.PromptTokensDetails.CachedTokens, 0, u.CompletionTokensDetails.ReasoningTokens)
	}
	var pieces []model.Piece
	for _, choice := range c.Choices {
		if choice.Index != 0 {
			continue
		}
		d := choice.Delta
		if t := reasoning(d.RawJSON()); t != "" {
			s.reasoning.WriteString(t)
			pieces = append(pieces, model.Piece{Kind: model.BlockReasoning, Text: t})
		}
		for _, t := range []string{d.Content, d.Refusal} {
			if t != "" {
				s.text.WriteString(t)
				pieces = append(pieces, model.Piece{Kind: model.BlockText, Text: t})
			}
		}
		s.refused = s.refused || d.Refusal != ""
		for _, t := range d.ToolCalls {
			pieces = append(pieces, s.grow(t))
		}
		if choice.FinishReason != "" {
			s.finish = choice.FinishReason
		}
	}
	return pieces, nil
}

// reasoning is the reasoning in a delta, of which the SDK knows nothing.
func reasoning(delta string) string {
	if !strings.Contains(delta, `"reasoning`) {
		return ""
	}
	var d struct {
		DeepSeek any `json:"reasoning_content"` // also of vLLM and llama.cpp
		Router   any `json:"reasoning"`         // of OpenRouter and Ollama
	}
	if json.Unmarshal([]byte(delta), &d) != nil {
		return ""
	}
	if t, ok := d.DeepSeek.(string); ok && t != "" {
		return t
	}
	t, _ := d.Router.(string)
	return t
}

// grow adds a part of a call. Services that send calls whole may number them all
// alike: another id, or another name, is another call.
func (s *chatSource) grow(d openai.ChatCompletionChunkChoiceDeltaToolCall) model.Piece {
	var call *chatCall
	for _, c := range s.calls {
		if c.index == d.Index {
			call = c
		}
	}
	if call == nil || d.ID != "" && call.id != "" && d.ID != call.id || d.ID == "" && d.Function.Name != "" && call.name != "" {
		call = &chatCall{index: d.Index}
		s.calls = append(s.calls, call)
	}
	if d.ID != "" {
		call.id = d.ID
	}
	call.name += d.Function.Name
	if d.ID != "" && d.Function.Name != "" {
		call.name = d.Function.Name // some say it again with each part
	}
	call.arguments.WriteString(d.Function.Arguments)
	return model.Piece{Kind: "tool", Name: call.name, Text: d.Function.Arguments}
}

// Response is the whole answer.
func (s *chatSource) Response() *model.Response {
	a := &model.Response{Model: s.model, Usage: s.usage, Message: model.Message{Role: model.Assistant}}
	if s.reasoning.Len() > 0 {
		a.Message.Blocks = append(a.Message.Blocks, model.Block{Kind: model.BlockReasoning, Text: s.reasoning.String()})
	}
	if s.text.Len() > 0 {
		a.Message.Blocks = append(a.Message.Blocks, model.Block{Kind: model.BlockText, Text: s.text.String()})
	}
	for _, c := range s.calls {
		if c.id == "" {
			c.id = remote.NewID()
		}
		a.Message.Blocks = append(a.Message.Blocks, model.Block{Kind: model.BlockToolUse, ToolUse: &model.ToolUse{ID: c.id, Name: c.name, Arguments: c.arguments.String()}})
	}
	switch {
	case s.finish == "content_filter", s.refused:
		a.Stop = model.StopFiltered
	case s.finish == "length":
		a.Stop = model.StopMaxTokens
	case len(s.calls) > 0:
		a.Stop = model.StopTools
	default:
		a.Stop = model.StopEnd
	}
	return a
}
