package model

import (
	"context"
	"time"

	"github.com/orchestrator-project/orchestrator/executor"
	"github.com/orchestrator-project/orchestrator/pipeline"
)

// Models tells how the models of the registry stand now.
func (r *Router) Models(ctx context.Context) (pipeline.Models, error) {
	if err := r.board.load(ctx); err != nil {
		return pipeline.Models{}, err
	}
	all := pipeline.Models{BuiltIn: r.cfg.Registry.BuiltIn, Scripted: r.cfg.Scripted != nil}
	for _, e := range r.cfg.Registry.Entries {
		t := r.registered(r.outside(), e)
		s := pipeline.ModelState{
			ModelSpec: e.Spec(), Provider: e.Provider, ID: e.own(), Reason: r.unavailable(ctx, t), Breaker: r.breakers.state(t.id()),
			BaseModel: e.BaseModel, Quantization: e.Quantization, Fallback: e.Fallback, Stat: r.board.stat(t.statName()),
		}
		if all.Scripted {
			s.Reason = ""
		}
		s.Available = s.Reason == ""
		if p, ok := e.Price(time.Now()); ok {
			s.Price = &pipeline.ModelPrice{Input: p.Input, Output: p.Output, Cached: or(p.Cached, p.Input), CacheWrite: or(p.CacheWrite, p.Input)}
			if !p.From.IsZero() {
				s.Price.From = p.From.Format(time.DateOnly)
			}
		}
		all.List = append(all.List, s)
	}
	return all, nil
}

// Able reports whether there is a model that could be asked.
func (r *Router) Able(ctx context.Context) bool {
	if r.cfg.Scripted != nil {
		return true
	}
	for _, t := range r.candidates(r.outside()) {
		if r.unavailable(ctx, t) == "" {
			return true
		}
	}
	return false
}

// outside is what a call has to go by that belongs to no step.
func (r *Router) outside() executor.Env { return executor.Env{Secret: r.cfg.Secret} }

// testTokens is how long the answer to a test may be.
const testTokens = 64

// TestModel asks one model for a short answer; an empty prompt asks for the word
// ready. The error is a *pipeline.Failure.
func (r *Router) TestModel(ctx context.Context, name, prompt string) (pipeline.ModelTest, error) {
	if prompt == "" {
		prompt = "Answer with the word ready."
	}
	begun := time.Now()
	a, err := r.Ask(ctx, r.outside(), &Request{Model: name, Messages: []Message{UserText(prompt)}, MaxTokens: testTokens})
	if err != nil {
		return pipeline.ModelTest{}, err
	}
	t := pipeline.ModelTest{Text: a.Text(), Model: a.Model, Seconds: time.Since(begun).Seconds(), Usage: *a.Usage}
	if e := r.cfg.Registry.Entry(name); e != nil {
		_, t.Priced = e.Price(begun)
	}
	return t, nil
}
