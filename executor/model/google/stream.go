package google

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"io"
	"strings"

	"google.golang.org/genai"

	"github.com/orchestrator-project/orchestrator/executor/model"
	"github.com/orchestrator-project/orchestrator/executor/model/remote"
	"github.com/orchestrator-project/orchestrator/pipeline"
)

// source reads the events of one answer.
type source struct {
	provider *Provider
	ctx      context.Context // of the request: tells why a stream broke
	exchange *exchange
	next     func() (*genai.GenerateContentResponse, error, bool)
	stop     func()

	held     bool // the first event was read already
	first    []model.Piece
	firstErr error

	blocks  []model.Block
	model   string
	usage   *pipeline.Usage
	finish  genai.FinishReason
	message string // why it ended, in the service's words
	blocked string // why the service does not answer at all
}

// Next reads one event.
func (s *source) Next() ([]model.Piece, error) {
	if s.held {
		s.held = false
		return s.first, s.firstErr
	}
	if s.firstErr != nil {
		return nil, s.firstErr
	}
	e, err, ok := s.next()
	switch {
	case err != nil && (s.finish == "" || s.ctx.Err() != nil):
		return nil, s.failed(err)
	case ok && err == nil:
		return s.event(e), nil
	case s.ctx.Err() != nil:
		return nil, s.ctx.Err()
	case s.blocked != "":
		return nil, s.provider.service.Filtered(s.blocked)
	case s.finish == "" && s.exchange.events.broken() != nil:
		return nil, s.failed(s.exchange.events.broken())
	case s.finish == "":
		if answer := s.exchange.answer; answer != nil && s.model == "" {
			if kind := answer.Header.Get("Content-Type"); !strings.HasPrefix(kind, "text/event-stream") {
				return nil, s.provider.service.Malformed("it is of type %q, not a stream of events", kind)
			}
		}
		return nil, s.provider.service.Cut()
	case s.finish == genai.FinishReasonMalformedFunctionCall, s.finish == genai.FinishReasonUnexpectedToolCall:
		return nil, s.provider.service.Malformed("the model called a tool in a way that is none: %s %s", s.finish, s.message)
	}
	return nil, io.EOF
}

func (s *source) event(e *genai.GenerateContentResponse) []model.Piece {
	exacts := s.exchange.events.parts()
	if e.ModelVersion != "" {
		s.model = e.ModelVersion
	}
	if u := e.UsageMetadata; u != nil {
		s.usage = remote.Usage(int64(u.PromptTokenCount)+int64(u.ToolUsePromptTokenCount), int64(u.CandidatesTokenCount)+int64(u.ThoughtsTokenCount),
			int64(u.CachedContentTokenCount), 0, int64(u.ThoughtsTokenCount))
	}
	if f := e.PromptFeedback; f != nil && f.BlockReason != "" {
		s.blocked = strings.TrimSpace(string(f.BlockReason) + " " + f.BlockReasonMessage)
	}
	if len(e.Candidates) == 0 {
		return nil
	}
	c := e.Candidates[0]
	if c.FinishReason != "" && c.FinishReason != genai.FinishReasonUnspecified {
		s.finish, s.message = c.FinishReason, c.FinishMessage
	}
	if c.Content == nil {
		return nil
	}
	var pieces []model.Piece
	for i, p := range c.Content.Parts {
		if p == nil {
			continue
		}
		var ex exactPart
		if len(exacts) == len(c.Content.Parts) {
			ex = exacts[i]
		}
		if piece, ok := s.part(p, ex); ok {
			pieces = append(pieces, piece)
		}
	}
	return pieces
}

// part adds a part of the answer. Texts of a kind go on until a part is signed.
func (s *source) part(p *genai.Part, ex exactPart) (model.Piece, bool) {
	b := model.Block{Kind: model.BlockText, Text: p.Text}
	piece := model.Piece{Kind: model.BlockText, Text: p.Text}
	switch {
	case p.FunctionCall != nil:
		use := &model.ToolUse{ID: p.FunctionCall.ID, Name: p.FunctionCall.Name, Arguments: "{}"}
		switch {
		case ex.Call != nil && len(ex.Call.Args) > 0:
			use.Arguments = string(ex.Call.Args)
		case len(p.FunctionCall.Args) > 0:
			use.Arguments = string(pipeline.EncodeValue(p.FunctionCall.Args))
		}
		if use.ID == "" {
			use.ID = remote.NewID()
		}
		b = model.Block{Kind: model.BlockToolUse, ToolUse: use}
		piece = model.Piece{Kind: "tool", Name: use.Name, Text: use.Arguments}
	case p.InlineData != nil:
		b = model.Block{Kind: model.BlockImage, Media: &model.Media{Type: p.InlineData.MIMEType, Data: p.InlineData.Data}}
		if strings.HasPrefix(p.InlineData.MIMEType, "audio/") {
			b.Kind = model.BlockAudio
		}
		piece = model.Piece{}
	case p.Thought:
		b.Kind, piece.Kind = model.BlockReasoning, model.BlockReasoning
	}
	if signature := signatureOf(p, ex); signature != nil {
		if opaque, err := json.Marshal(sealed{Signature: signature}); err == nil {
			b.Opaque, b.Of = opaque, s.provider.service.Name
		}
	}
	if n := len(s.blocks); n > 0 && s.blocks[n-1].Kind == b.Kind && s.blocks[n-1].Opaque == nil &&
		(b.Kind == model.BlockText || b.Kind == model.BlockReasoning) {
		s.blocks[n-1].Text += b.Text
		s.blocks[n-1].Opaque, s.blocks[n-1].Of = b.Opaque, b.Of
	} else if b.Text != "" || b.ToolUse != nil || b.Media != nil || b.Opaque != nil {
		s.blocks = append(s.blocks, b)
	}
	return piece, piece.Text != ""
}

// signatureOf is a part's signature, decoded as the SDK will encode it again.
func signatureOf(p *genai.Part, ex exactPart) []byte {
	if len(p.ThoughtSignature) > 0 {
		return p.ThoughtSignature
	}
	if s, err := base64.StdEncoding.DecodeString(ex.Signature); err == nil && len(s) > 0 {
		return s
	}
	return nil
}

// Response is the whole answer.
func (s *source) Response() *model.Response {
	a := &model.Response{Model: s.model, Usage: s.usage, Stop: model.StopEnd, Message: model.Message{Role: model.Assistant, Blocks: s.blocks}}
	switch s.finish {
	case genai.FinishReasonMaxTokens, genai.FinishReasonTooManyToolCalls, genai.FinishReasonContinuation:
		a.Stop = model.StopMaxTokens
	case genai.FinishReasonSafety, genai.FinishReasonRecitation, genai.FinishReasonLanguage, genai.FinishReasonBlocklist,
		genai.FinishReasonProhibitedContent, genai.FinishReasonSPII, genai.FinishReasonImageSafety,
		genai.FinishReasonImageProhibitedContent, genai.FinishReasonImageRecitation:
		a.Stop = model.StopFiltered
	default:
		if len(a.Message.Calls()) > 0 {
			a.Stop = model.StopTools
		}
	}
	return a
}
