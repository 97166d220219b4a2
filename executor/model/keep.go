package model

import (
	"context"
	"errors"
	"strings"

	"github.com/orchestrator-project/orchestrator/pipeline"
)

// ReasonMissed is the reason of the failure of a request that a cassette does not
// hold.
const ReasonMissed = "cassette_miss"

// Keeper is a Provider that answers what it was told of, and fails with ReasonMissed
// else.
type Keeper interface {
	Provider
	// Keep remembers the answer to a request, for all time. Of what is kept, redact
	// blots out what is secret; it may be nil.
	Keep(ctx context.Context, r *Request, a *Response, redact func(string) string) error
}

// missed reports whether a recording target is to ask the model whose answers it
// records.
func (t *target) missed(err error) bool {
	f, ok := errors.AsType[*pipeline.Failure](err)
	return ok && t.record != nil && f.Reason == ReasonMissed
}

// taken asks the model that a cassette records, and keeps its answer.
func (c *call) taken(ctx context.Context, t *target, p Provider, q *Request, miss error) (*Response, error) {
	from := t.record
	keeper, ok := p.(Keeper)
	if !ok {
		return nil, miss
	}
	if why := c.router.unavailable(ctx, from); why != "" {
		f := pipeline.Failuref(pipeline.CategoryModel, "%v\n%s, which it records, cannot be asked: %s", miss, from.name, why)
		f.Reason = ReasonMissed
		return nil, f
	}
	inner, err := c.router.provider(from.endpoint)
	if err != nil {
		return nil, &Error{Class: ClassInvalid, Status: 404, Message: err.Error(), Cause: err}
	}
	if l := c.router.cfg.Limiter; l != nil {
		if err := l.Wait(ctx, from.endpoint.account(), c.router.cfg.Registry.limits(from.Entry), c.inputTokens()+c.outputTokens(t)); err != nil {
			return nil, err
		}
	}
	own := *q
	from.phrase(&own)
	c.provider, c.payer = from.Provider, from
	c.choice["recorded"] = from.name
	a, err := c.drained(ctx, from, inner, &own)
	if err != nil {
		return nil, err
	}
	kept := *a
	kept.Usage = c.usage(from, a)
	if err := keeper.Keep(ctx, q, &kept, c.secretless(from.endpoint.Key)); err != nil {
		// It is paid for, and the run goes on with it.
		c.router.log.Error("an answer was not recorded", "run", string(c.asked.Run), "step", string(c.env.Path), "model", t.name, "err", err)
		c.choice["unrecorded"] = err.Error()
	}
	return a, nil
}

// secretless blots out the step's secrets, and the key that a model is asked with.
func (c *call) secretless(key string) func(string) string {
	return func(text string) string {
		if key != "" {
			text = strings.ReplaceAll(text, key, "***")
		}
		return c.blotted(text)
	}
}
