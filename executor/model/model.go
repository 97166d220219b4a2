// Package model is the contract between steps and language models: a Request
// goes to a Provider, a Response comes back. Ask adds what every structured
// answer needs: it is held against its schema and repaired once. Providers live
// in folders of their own; script answers from a file, without a network or a
// key.
//
//	r, err := model.Ask(ctx, provider, model.Request{
//		Messages: []model.Message{{Role: model.User, Text: "How many legs has a spider?"}},
//		Schema:   map[string]any{"type": "integer"},
//	})
//	// r.Value is int64(8)
package model

import (
	"context"
	"slices"

	"github.com/orchestrator-project/orchestrator/pipeline"
)

// Provider answers requests.
type Provider interface {
	// Call asks the model and waits for its whole answer. It may be called
	// concurrently and returns soon after ctx ends. The error is a
	// *pipeline.Failure where the provider knows what went wrong. The answer to a
	// request with a schema need not satisfy it: Ask sees to that.
	Call(ctx context.Context, r Request) (*Response, error)
}

// Request is one question to a model.
type Request struct {
	Run         pipeline.RunID // the run that asks; may be empty
	Step        pipeline.Path  // the step instance that asks
	Action      string         // its action's catalogue key
	Param       string         // of an <AUTO> tag: the parameter's dotted path; else empty
	Agent       string         // of an agent's turn: the agent's name; else empty
	Turn        int            // of an agent's turn: counts from 0
	Phase       Phase          // what the answer is for
	Model       string         // as the pipeline names it; empty: the provider's default
	System      string         // instructions that stand above the conversation; may be empty
	Messages    []Message      // in order; the last one is the user's
	MaxTokens   int64          // of the answer; 0: the provider's default
	Temperature *float64       // nil: the provider's default
	// Schema is the JSON Schema (2020-12) of the wanted answer; nil: a text is
	// wanted. References lead nowhere but into the schema itself.
	Schema map[string]any
	// Expected is, in PhaseSchema, the JSON Schema of the type that the pipeline
	// expects: what the schema that is asked for has to refine. Else nil.
	Expected map[string]any
	// IdempotencyKey is equal over all attempts of the step, and different for
	// every question that one attempt asks.
	IdempotencyKey string
}

// LastUser is the text of the user's newest message.
func (r Request) LastUser() string {
	for _, m := range slices.Backward(r.Messages) {
		if m.Role == User {
			return m.Text
		}
	}
	return ""
}

// Phase says what the answer to a request is for.
type Phase string

// The phases. A request without one is an answer.
const (
	PhaseSchema Phase = "schema" // a schema for the answer to come
	PhaseAnswer Phase = "answer" // the answer itself
	PhaseRepair Phase = "repair" // a better one, after an answer that violated its schema
	PhaseTurn   Phase = "turn"   // a turn of an agent
	PhaseJudge  Phase = "judge"  // a verdict between candidates
)

// Phases lists all of them.
var Phases = []Phase{PhaseSchema, PhaseAnswer, PhaseRepair, PhaseTurn, PhaseJudge}

// Role says who speaks.
type Role string

// The roles.
const (
	User      Role = "user"
	Assistant Role = "assistant"
)

// Message is one turn of a conversation.
type Message struct {
	Role Role
	Text string
}

// Response is a model's whole answer.
type Response struct {
	Text string
	// Value is the decoded answer to a request with a schema, a JSON value as of
	// pipeline.DecodeValue. A provider that leaves it nil lets Ask read Text.
	Value any
	Model string          // what answered; "script" for scripted answers
	Usage *pipeline.Usage // nil: unknown
}
