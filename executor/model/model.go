// Package model is the contract between steps and language models: a Request
// goes to a Provider, a Response comes back. Providers live in folders of their
// own; script answers from a file, without a network or a key.
//
//	r, err := provider.Call(ctx, model.Request{
//		Messages: []model.Message{{Role: model.User, Text: "Hello, world!"}},
//	})
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
	// *pipeline.Failure where the provider knows what went wrong.
	Call(ctx context.Context, r Request) (*Response, error)
}

// Request is one question to a model.
type Request struct {
	Step        pipeline.Path // the step instance that asks
	Action      string        // its action's catalogue key
	Model       string        // as the pipeline names it; empty: the provider's default
	System      string        // instructions that stand above the conversation; may be empty
	Messages    []Message     // in order; the last one is the user's
	MaxTokens   int64         // of the answer; 0: the provider's default
	Temperature *float64      // nil: the provider's default
	// IdempotencyKey is equal over all attempts of the step.
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
	Text  string
	Model string          // what answered; "script" for scripted answers
	Usage *pipeline.Usage // nil: unknown
}
