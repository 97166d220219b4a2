// Package model is the contract between steps and language models. A Provider
// speaks to one kind of service and knows nothing of runs; a Caller is what
// steps, agents and <AUTO> tags ask: it chooses the model, stays within budgets
// and limits, tries again, falls back, and records every call in the step's
// journal, so that none is paid twice. Providers live in folders of their own;
// script answers from a file, without a network or a key.
//
//	r, err := caller.Ask(ctx, env, &model.Request{
//		Messages: []model.Message{model.UserText("How many legs has a spider?")},
//		Schema:   map[string]any{"type": "integer"},
//	})
//	// r.Value is int64(8)
package model

import (
	"context"
	"errors"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/orchestrator-project/orchestrator/executor"
	"github.com/orchestrator-project/orchestrator/pipeline"
)

// Caller answers the requests of steps.
type Caller interface {
	// Ask asks a model and waits for its whole answer. An equal request that an
	// earlier attempt of the step has made is answered from env.Journal. Where the
	// request has a schema, the answer's Value satisfies it, or the error is a
	// *pipeline.Failure of category contract; but agents hold the answers of their
	// turns against the schema themselves. Errors are *pipeline.Failure,
	// executor.ErrJournal, *executor.Suspension (a budget is spent), or the context's. A
	// Response may come together with an error: what was paid for.
	Ask(ctx context.Context, env executor.Env, r *Request) (*Response, error)
}

// Provider speaks to a service that has models.
type Provider interface {
	// Call sends the request to the model that r.Model names in the provider's own
	// words. It may be called concurrently; the stream and its socket end soon
	// after ctx does. The errors, also of the stream, are *Error, or a
	// *pipeline.Failure where trying again is of no use. It tries once: trying again is
	// the Caller's.
	Call(ctx context.Context, r *Request) (Stream, error)
}

// Stream is an answer on its way.
type Stream interface {
	// Next gives the next piece; io.EOF: the answer is whole.
	Next() (Piece, error)
	// Response is the whole answer, once Next has given io.EOF.
	Response() *Response
	// Close frees what the stream holds. It may be called at any time, also twice.
	Close() error
}

// Piece is a part of an answer.
type Piece struct {
	Kind string // text, reasoning, tool (the name, then parts of the arguments)
	Name string // of tool
	Text string
}

// Request is one question to a model.
type Request struct {
	Run    pipeline.RunID // the run that asks; may be empty
	Step   pipeline.Path  // the step instance that asks
	Action string         // its action's catalogue key
	Param  string         // of an <AUTO> tag: the parameter's dotted path; else empty
	Agent  string         // of an agent's turn: the agent's name; else empty
	Turn   int            // of an agent's turn: counts from 0
	In     int32          // of an agent within a tool call: the N of that call; else 0
	Phase  Phase          // what the answer is for

	Model    string          // as the pipeline names it; empty: one is chosen. For a Provider: its own name for the model
	Needs    *pipeline.Needs // what the model must be able to do; nil: what the request itself says
	System   string          // instructions that stand above the conversation; may be empty
	Messages []Message       // in order; the last one is the user's
	Tools    []ToolDef       // that the model may call
	Choice   string          // auto (default), none, required, or a tool's name

	MaxTokens   int64    // of the answer; 0: the provider's default
	Temperature *float64 // nil: the provider's default
	Effort      string   // of reasoning: none, low, medium, high; empty: the provider's default
	// Schema is the JSON Schema (2020-12) of the wanted answer; nil: a text is
	// wanted. References lead nowhere but into the schema itself.
	Schema map[string]any
	// Mode is how the answer is brought into the form of Schema: native, tool or
	// prompt; empty: the best that the model can.
	Mode string
	// Expected is, in PhaseSchema, the JSON Schema of the type that the pipeline
	// expects: what the schema that is asked for has to refine. Else nil.
	Expected map[string]any
	// Uses are those of the step's run, see UsesOf: a scripted provider counts in
	// them how often its rules answer. nil: none of them was used.
	Uses *Uses
	// IdempotencyKey is equal over all attempts of the step, and different for
	// every question that one attempt asks.
	IdempotencyKey string
	// Parts names what the prompt was composed of, with sizes, for those who want to
	// know where the tokens went. It is recorded and not sent.
	Parts []Part
}

// Part is a part of a composed prompt.
type Part struct {
	Name  string `json:"name"` // system, instructions, skills, tools, history, files, contract, prompt ...
	Bytes int    `json:"bytes"`
}

// LastUser is the text of the user's newest message.
func (r *Request) LastUser() string {
	for _, m := range slices.Backward(r.Messages) {
		if m.Role == User {
			if t := m.Text(); t != "" {
				return t
			}
		}
	}
	return ""
}

// ToolDef is a tool as a model sees it.
type ToolDef struct {
	Name        string
	Description string
	Schema      map[string]any // JSON Schema of its arguments: an object
}

// Phase says what the answer to a request is for.
type Phase string

// The phases. A request without one is an answer.
const (
	PhaseSchema  Phase = "schema"  // a schema for the answer to come
	PhaseAnswer  Phase = "answer"  // the answer itself
	PhaseRepair  Phase = "repair"  // a better one, after an answer that violated its schema
	PhaseTurn    Phase = "turn"    // a turn of an agent
	PhaseJudge   Phase = "judge"   // a verdict between candidates
	PhaseCompact Phase = "compact" // a summary that takes the place of a conversation that has grown too long
)

// Phases lists all of them.
var Phases = []Phase{PhaseSchema, PhaseAnswer, PhaseRepair, PhaseTurn, PhaseJudge, PhaseCompact}

// Role says who speaks.
type Role string

// The roles. Results of tools are spoken by the user.
const (
	User      Role = "user"
	Assistant Role = "assistant"
)

// Message is one turn of a conversation.
type Message struct {
	Role   Role    `json:"role"`
	Blocks []Block `json:"blocks"`
}

// UserText is a message of the user that is a text.
func UserText(text string) Message {
	return Message{Role: User, Blocks: []Block{{Kind: BlockText, Text: text}}}
}

// AssistantText is a message of the assistant that is a text.
func AssistantText(text string) Message {
	return Message{Role: Assistant, Blocks: []Block{{Kind: BlockText, Text: text}}}
}

// Text is the message's text blocks, one after the other.
func (m Message) Text() string {
	var b strings.Builder
	for i := range m.Blocks {
		if m.Blocks[i].Kind == BlockText {
			b.WriteString(m.Blocks[i].Text)
		}
	}
	return b.String()
}

// Calls are the tools that the message asks for.
func (m Message) Calls() []*ToolUse {
	var list []*ToolUse
	for i := range m.Blocks {
		if u := m.Blocks[i].ToolUse; u != nil {
			list = append(list, u)
		}
	}
	return list
}

// The kinds of Block.
const (
	BlockText       = "text"
	BlockReasoning  = "reasoning"
	BlockImage      = "image"
	BlockAudio      = "audio"
	BlockDocument   = "document"
	BlockToolUse    = "tool_use"
	BlockToolResult = "tool_result"
)

// Block is a part of a message. Its JSON form is stored: keys are added, never
// renamed.
type Block struct {
	Kind string `json:"kind"`
	Text string `json:"text,omitempty"` // of text and reasoning
	// Opaque is what the provider wants back with the block, byte for byte: a
	// signature of reasoning, an encrypted item. Only the provider named in Of may
	// read it; others leave the block out, or send its text.
	Opaque []byte `json:"opaque,omitempty"`
	Of     string `json:"of,omitempty"`

	Media      *Media      `json:"media,omitempty"` // of image, audio and document
	ToolUse    *ToolUse    `json:"tool_use,omitempty"`
	ToolResult *ToolResult `json:"tool_result,omitempty"`
}

// Media is a file in a message: its bytes, or where they are.
type Media struct {
	Type string          `json:"type"` // media type, as in image/png
	Name string          `json:"name,omitempty"`
	Data []byte          `json:"data,omitempty"`
	URL  string          `json:"url,omitempty"`
	Blob pipeline.Digest `json:"blob,omitempty"` // kept with the run
}

// ToolUse is a model's wish to call a tool. Arguments are the model's own text,
// which may be anything but JSON.
type ToolUse struct {
	ID        string `json:"id"`
	Name      string `json:"name"`
	Arguments string `json:"arguments"`
}

// ToolResult is what came of it.
type ToolResult struct {
	ID      string  `json:"id"`
	Name    string  `json:"name"`
	Content []Block `json:"content"`
	Failed  bool    `json:"failed,omitempty"`
	// From says where the journal has it already; nil: nowhere. It is no part of what
	// a model reads.
	From *Kept `json:"-"`
}

// Kept is a result of a tool as the event of its call tells it.
type Kept struct {
	N       int32   // of the call
	Content []Block // that the event has; a ToolResult may have more after it
	Failed  bool
}

// Why an answer ended.
const (
	StopEnd       = "end"
	StopTools     = "tools"      // it wants tools to be called
	StopMaxTokens = "max_tokens" // it was cut off
	StopFiltered  = "filtered"   // the provider has kept the rest back
)

// Response is a model's whole answer.
type Response struct {
	Message Message
	// Value is the decoded answer to a request with a schema, a JSON value as of
	// pipeline.DecodeValue. A provider that leaves it nil lets the text be read.
	Value any
	Stop  string
	Model string          // what answered, as the provider says; "script" for scripted answers
	Usage *pipeline.Usage // nil: unknown
	// N is the number of the call in the step's journal; Tries how many requests it
	// took; Provider whom it was asked of; Rule is of a scripted answer: which rule gave
	// it. A Provider sets Rule alone.
	N        int32
	Tries    int
	Provider string
	Rule     string
}

// Text is the answer's text.
func (r *Response) Text() string { return r.Message.Text() }

// The classes of Error: what can be done about it.
const (
	ClassRateLimit     = "rate_limit"     // wait, then try again
	ClassOverloaded    = "overloaded"     // likewise: 503, 529
	ClassServer        = "server"         // 5xx, 408, 409, 425
	ClassNetwork       = "network"        // no connection, or one that broke
	ClassTimeout       = "timeout"        // no answer in time
	ClassMalformed     = "malformed"      // an answer that is none; tried again
	ClassAuth          = "auth"           // 401, 403
	ClassInvalid       = "invalid"        // 400, 404, 413, 422: it will never work
	ClassFiltered      = "filtered"       // the provider refuses the content
	ClassContextLength = "context_length" // the conversation is too long
	ClassQuota         = "quota"          // the account has no money left
	ClassCancelled     = "cancelled"
)

// Error is why a model gave no answer.
type Error struct {
	Class      string
	Status     int           // of HTTP; 0: none
	Message    string        // of the service, without keys
	RetryAfter time.Duration // that the service asks for; 0: it does not say
	Rule       string        // of a scripted error: which rule gave it
	Cause      error         // may be nil
}

func (e *Error) Error() string { return e.Message }

// Unwrap is the cause.
func (e *Error) Unwrap() error { return e.Cause }

// Retryable reports whether the same request may work later.
func (e *Error) Retryable() bool {
	switch e.Class {
	case ClassRateLimit, ClassOverloaded, ClassServer, ClassNetwork, ClassTimeout, ClassMalformed:
		return true
	}
	return false
}

// Failure is the error as the failure of a step.
func (e *Error) Failure() *pipeline.Failure {
	kind := pipeline.CategoryModel
	switch e.Class {
	case ClassRateLimit:
		kind = pipeline.CategoryRateLimit
	case ClassTimeout:
		kind = pipeline.CategoryTimeout
	case ClassInvalid, ClassAuth:
		kind = pipeline.CategoryValidation
	case ClassCancelled:
		kind = pipeline.CategoryCancelled
	}
	f := pipeline.Failuref(kind, "%s", e.Message)
	f.Reason = "model_" + e.Class
	return f
}

// Drain waits for the whole answer of a stream and closes it. show, if not nil,
// sees each piece.
func Drain(s Stream, show func(Piece)) (*Response, error) {
	defer func() { _ = s.Close() }()
	for {
		p, err := s.Next()
		switch {
		case errors.Is(err, io.EOF):
			return s.Response(), nil
		case err != nil:
			return nil, err
		case show != nil:
			show(p)
		}
	}
}

// Whole is the stream of an answer that came at once.
func Whole(r *Response) Stream { return &whole{r: r} }

type whole struct {
	r    *Response
	told int
}

func (w *whole) Next() (Piece, error) {
	for w.told < len(w.r.Message.Blocks) {
		b := &w.r.Message.Blocks[w.told]
		w.told++
		switch {
		case b.ToolUse != nil:
			return Piece{Kind: "tool", Name: b.ToolUse.Name, Text: b.ToolUse.Arguments}, nil
		case b.Text != "":
			return Piece{Kind: b.Kind, Text: b.Text}, nil
		}
	}
	return Piece{}, io.EOF
}

func (w *whole) Response() *Response { return w.r }
func (w *whole) Close() error        { return nil }

// Func is a Provider that gives whole answers.
type Func func(ctx context.Context, r *Request) (*Response, error)

// Call calls f.
func (f Func) Call(ctx context.Context, r *Request) (Stream, error) {
	a, err := f(ctx, r)
	if err != nil {
		return nil, err
	}
	return Whole(a), nil
}

// Direct asks one provider and records nothing.
type Direct struct{ Provider Provider }

// Ask asks, and once more for an answer that violates its schema.
func (d Direct) Ask(ctx context.Context, _ executor.Env, r *Request) (*Response, error) {
	return Checked(ctx, r, func(ctx context.Context, r *Request) (*Response, error) {
		s, err := d.Provider.Call(ctx, r)
		if err != nil {
			return nil, failureOf(err)
		}
		a, err := Drain(s, nil)
		return a, failureOf(err)
	})
}

func failureOf(err error) error {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Failure()
	}
	return err
}
