package anthropic

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"strings"

	sdk "github.com/anthropics/anthropic-sdk-go"
	"github.com/anthropics/anthropic-sdk-go/packages/ssestream"

	"github.com/orchestrator-project/orchestrator/executor/model"
	"github.com/orchestrator-project/orchestrator/executor/model/remote"
	"github.com/orchestrator-project/orchestrator/pipeline"
)

// source reads the events of one answer.
type source struct {
	provider *Provider
	ctx      context.Context // of the request: tells why a stream broke
	events   *ssestream.Stream[sdk.MessageStreamEventUnion]
	answer   *http.Response

	parts []*part // of the message, in order
	model string
	stop  string
	usage *counts
	whole bool
}

// part is a block that grows.
type part struct {
	index int64
	kind  string
	name  string
	id    string
	text  strings.Builder // also the arguments of a call
	given string          // arguments that came with the block's begin
	seal  sealed
}

// counts are the service's newest; those of the end count what those of the begin
// did.
type counts struct{ input, output, read, written, thinking int64 }

// Next reads one event.
func (s *source) Next() ([]model.Piece, error) {
	if s.whole {
		return nil, io.EOF
	}
	if !s.events.Next() {
		if err := s.events.Err(); err != nil {
			return nil, s.provider.failed(s.ctx, err, s.answer)
		}
		if s.ctx.Err() != nil {
			return nil, s.ctx.Err()
		}
		if kind := s.answer.Header.Get("Content-Type"); s.model == "" && !strings.HasPrefix(kind, "text/event-stream") {
			return nil, s.provider.service.Malformed("it is of type %q, not a stream of events", kind)
		}
		return nil, s.provider.service.Cut()
	}
	return s.event(s.events.Current())
}

func (s *source) event(e sdk.MessageStreamEventUnion) ([]model.Piece, error) {
	switch e.Type {
	case "message_start":
		s.model = e.Message.Model
		u := e.Message.Usage
		s.count(u.InputTokens, u.OutputTokens, u.CacheReadInputTokens, u.CacheCreationInputTokens, u.OutputTokensDetails.ThinkingTokens)
	case "content_block_start":
		return s.begin(e.Index, e.ContentBlock), nil
	case "content_block_delta":
		for _, p := range s.parts {
			if p.index == e.Index {
				return p.grow(e.Delta), nil
			}
		}
		return nil, s.provider.service.Malformed("a part of block %d came before its begin", e.Index)
	case "message_delta":
		if e.Delta.StopReason != "" {
			s.stop = string(e.Delta.StopReason)
		}
		u := e.Usage
		s.count(u.InputTokens, u.OutputTokens, u.CacheReadInputTokens, u.CacheCreationInputTokens, u.OutputTokensDetails.ThinkingTokens)
	case "message_stop":
		s.whole = true
		return nil, io.EOF
	}
	return nil, nil
}

func (s *source) begin(index int64, b sdk.ContentBlockStartEventContentBlockUnion) []model.Piece {
	p := &part{index: index, name: b.Name, id: b.ID}
	switch b.Type {
	case "text":
		p.kind = model.BlockText
		p.text.WriteString(b.Text)
	case "thinking":
		p.kind = model.BlockReasoning
		p.text.WriteString(b.Thinking)
		p.seal.Signature = b.Signature
	case "redacted_thinking":
		p.kind = model.BlockReasoning
		p.seal.Redacted = b.Data
	case "tool_use":
		p.kind = model.BlockToolUse
		if raw := b.JSON.Input.Raw(); raw != "{}" && raw != "null" {
			p.given = raw
		}
		s.parts = append(s.parts, p)
		return []model.Piece{{Kind: "tool", Name: p.name, Text: p.given}}
	}
	s.parts = append(s.parts, p)
	return []model.Piece{{Kind: p.kind, Text: p.text.String()}}
}

func (p *part) grow(d sdk.MessageStreamEventUnionDelta) []model.Piece {
	switch d.Type {
	case "text_delta":
		p.text.WriteString(d.Text)
		return []model.Piece{{Kind: p.kind, Text: d.Text}}
	case "thinking_delta":
		p.text.WriteString(d.Thinking)
		return []model.Piece{{Kind: p.kind, Text: d.Thinking}}
	case "signature_delta":
		p.seal.Signature += d.Signature
	case "input_json_delta":
		p.text.WriteString(d.PartialJSON)
		return []model.Piece{{Kind: "tool", Name: p.name, Text: d.PartialJSON}}
	}
	return nil
}

func (s *source) count(input, output, read, written, thinking int64) {
	if s.usage == nil {
		s.usage = &counts{}
	}
	u := s.usage
	u.input, u.output = max(u.input, input), max(u.output, output)
	u.read, u.written, u.thinking = max(u.read, read), max(u.written, written), max(u.thinking, thinking)
}

// Response is the whole answer.
func (s *source) Response() *model.Response {
	a := &model.Response{Model: s.model, Stop: stopOf(s.stop), Message: model.Message{Role: model.Assistant}}
	for _, p := range s.parts {
		if b, ok := p.block(s.provider.service.Name); ok {
			a.Message.Blocks = append(a.Message.Blocks, b)
		}
	}
	if u := s.usage; u != nil && u.input+u.output+u.read+u.written > 0 {
		a.Usage = usage(u)
	}
	return a
}

func usage(u *counts) *pipeline.Usage {
	return remote.Usage(u.input+u.read+u.written, u.output, u.read, u.written, u.thinking)
}

func (p *part) block(of string) (model.Block, bool) {
	text := p.text.String()
	switch p.kind {
	case model.BlockText:
		return model.Block{Kind: p.kind, Text: text}, text != ""
	case model.BlockReasoning:
		b := model.Block{Kind: p.kind, Text: text}
		if p.seal != (sealed{}) {
			opaque, err := json.Marshal(p.seal)
			if err != nil {
				return b, text != ""
			}
			b.Opaque, b.Of = opaque, of
		}
		return b, text != "" || b.Opaque != nil
	case model.BlockToolUse:
		if text == "" {
			text = p.given
		}
		return model.Block{Kind: p.kind, ToolUse: &model.ToolUse{ID: p.id, Name: p.name, Arguments: text}}, true
	}
	return model.Block{}, false
}

func stopOf(reason string) string {
	switch sdk.StopReason(reason) {
	case sdk.StopReasonMaxTokens, sdk.StopReasonModelContextWindowExceeded:
		return model.StopMaxTokens
	case sdk.StopReasonToolUse:
		return model.StopTools
	case sdk.StopReasonRefusal:
		return model.StopFiltered
	}
	return model.StopEnd
}

// Close ends the stream's connection.
func (s *source) Close() error { return s.events.Close() }
