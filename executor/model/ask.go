package model

import (
	"context"
	"strings"

	"github.com/orchestrator-project/orchestrator/pipeline"
)

// ReasonSchema is the reason of the failure of an answer that violated its
// schema, also after it was asked for again.
const ReasonSchema = "schema_violated"

// Checked asks by ask. Where the request has a schema, the answer's Value is
// held against it; a violation is told to the model once, and a second one is a
// *pipeline.Failure of category contract that lists what is wrong. The usage is
// that of both calls.
func Checked(ctx context.Context, r *Request, ask func(context.Context, *Request) (*Response, error)) (*Response, error) {
	if r.Phase == "" {
		first := *r
		first.Phase = PhaseAnswer
		r = &first
	}
	if r.Schema == nil || r.Agent != "" { // an agent's answer may also be calls; it reads and repairs by itself
		return ask(ctx, r)
	}
	s, err := Compile(r.Schema)
	if err != nil {
		return nil, err
	}
	first, err := ask(ctx, r)
	if err != nil {
		return nil, err
	}
	wrong := s.read(first)
	if len(wrong) == 0 {
		return first, nil
	}
	again := *r
	again.Phase = PhaseRepair
	if r.IdempotencyKey != "" {
		again.IdempotencyKey += "/repair"
	}
	again.Messages = append(append([]Message{}, r.Messages...),
		AssistantText(spoken(first)),
		UserText("The answer does not have the form that was asked for:\n- "+strings.Join(wrong, "\n- ")+
			"\nAnswer again, with nothing but JSON that satisfies this schema:\n"+string(pipeline.EncodeValue(r.Schema))))
	second, err := ask(ctx, &again)
	if err != nil {
		return first, err
	}
	second.Usage = Sum(first.Usage, second.Usage)
	if wrong = s.read(second); len(wrong) > 0 {
		f := pipeline.Failuref(pipeline.CategoryContract,
			"the model's answer does not have the form that was asked for, also when asked again: %s", strings.Join(wrong, "; "))
		f.Reason = ReasonSchema
		return second, f
	}
	return second, nil
}

// read decodes the answer where the provider has not, and lists what violates
// the schema.
func (s *Schema) read(a *Response) []string {
	if a.Value == nil {
		v, err := s.Decode(a.Text())
		if err != nil {
			return []string{err.Error()}
		}
		a.Value = v
	}
	return s.Violations(a.Value)
}

// spoken is the answer as the model gave it.
func spoken(a *Response) string {
	if t := a.Text(); t != "" || a.Value == nil {
		return t
	}
	return string(pipeline.EncodeValue(a.Value))
}

// Sum adds two usages; nil is unknown and adds nothing.
func Sum(a, b *pipeline.Usage) *pipeline.Usage {
	if a == nil || b == nil {
		if a == nil {
			return b
		}
		return a
	}
	sum := *a
	sum.Add(b)
	return &sum
}
