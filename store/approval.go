package store

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/orchestrator-project/orchestrator/pipeline"
)

// request is what an approval asks, as its row holds it. Values are written so
// that numbers keep their kind.
type request struct {
	Kind      pipeline.ApprovalKind `json:"kind"`
	Path      pipeline.Path         `json:"path,omitempty"`
	Question  string                `json:"question,omitempty"`
	Choices   json.RawMessage       `json:"choices,omitempty"`
	Schema    *pipeline.Type        `json:"schema,omitempty"`
	Default   json.RawMessage       `json:"default,omitempty"`
	Assignees []string              `json:"assignees,omitempty"`
	Quorum    int                   `json:"quorum,omitempty"`
	OnTimeout string                `json:"on_timeout,omitempty"`
	Scope     string                `json:"scope,omitempty"`
}

// EncodeRequest writes as JSON what the approval asks: everything that has no
// column of its own and does not change.
func EncodeRequest(a *pipeline.Approval) ([]byte, error) {
	r := request{
		Kind: a.Kind, Path: a.Path, Question: a.Question, Assignees: a.Assignees, Quorum: a.Quorum, OnTimeout: a.OnTimeout,
		Scope: a.Scope,
	}
	if a.Choices != nil {
		r.Choices = pipeline.EncodeValue(a.Choices)
	}
	if a.Default != nil {
		r.Default = pipeline.EncodeValue(a.Default)
	}
	if a.Schema != nil {
		schema, err := mapValues(a.Schema, func(v any) (any, error) { return json.RawMessage(pipeline.EncodeValue(v)), nil })
		if err != nil {
			return nil, fmt.Errorf("write approval %s: %w", a.ID, err)
		}
		r.Schema = schema
	}
	b, err := json.Marshal(&r)
	if err != nil {
		return nil, fmt.Errorf("write approval %s: %w", a.ID, err)
	}
	return b, nil
}

// DecodeRequest reads into a what EncodeRequest wrote.
func DecodeRequest(a *pipeline.Approval, b []byte) error {
	var r request
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber()
	if err := d.Decode(&r); err != nil {
		return fmt.Errorf("read approval %s: %w", a.ID, err)
	}
	a.Kind, a.Path, a.Question, a.Assignees, a.Quorum, a.OnTimeout = r.Kind, r.Path, r.Question, r.Assignees, r.Quorum, r.OnTimeout
	a.Scope = r.Scope
	if r.Choices != nil {
		v, err := pipeline.DecodeValue(r.Choices)
		if err != nil {
			return fmt.Errorf("read the choices of approval %s: %w", a.ID, err)
		}
		a.Choices, _ = v.([]any)
	}
	var err error
	if r.Default != nil {
		if a.Default, err = pipeline.DecodeValue(r.Default); err != nil {
			return fmt.Errorf("read the default of approval %s: %w", a.ID, err)
		}
	}
	if r.Schema != nil {
		a.Schema, err = mapValues(r.Schema, func(v any) (any, error) {
			b, err := json.Marshal(v)
			if err != nil {
				return nil, err
			}
			return pipeline.DecodeValue(b)
		})
		if err != nil {
			return fmt.Errorf("read the schema of approval %s: %w", a.ID, err)
		}
	}
	return nil
}

// mapValues is a copy of a type in which f has changed all values that are there.
func mapValues(t *pipeline.Type, f func(any) (any, error)) (*pipeline.Type, error) {
	c := *t
	var failed error
	value := func(v any) any {
		if v == nil || failed != nil {
			return nil
		}
		v, failed = f(v)
		return v
	}
	inner := func(t pipeline.Type) pipeline.Type {
		m, err := mapValues(&t, f)
		if err != nil {
			failed = err
			return t
		}
		return *m
	}
	properties := func(list []pipeline.Property) []pipeline.Property {
		list = slices.Clone(list)
		for i := range list {
			list[i].Type, list[i].Default = inner(list[i].Type), value(list[i].Default)
		}
		return list
	}
	c.Values = slices.Clone(t.Values)
	for i, v := range c.Values {
		c.Values[i] = value(v)
	}
	if t.Items != nil {
		items := inner(*t.Items)
		c.Items = &items
	}
	c.Properties = properties(t.Properties)
	c.Cases = slices.Clone(t.Cases)
	for i := range c.Cases {
		c.Cases[i].Fields = properties(c.Cases[i].Fields)
	}
	c.Schema = value(t.Schema)
	return &c, failed
}

// EncodeDecisions writes decisions as a JSON array; none is nil.
func EncodeDecisions(list []pipeline.Decision) []byte {
	if len(list) == 0 {
		return nil
	}
	b := []byte{'['}
	for i := range list {
		if i > 0 {
			b = append(b, ',')
		}
		b = pipeline.AppendDecision(b, &list[i])
	}
	return append(b, ']')
}

// DecodeDecisions reads what EncodeDecisions wrote.
func DecodeDecisions(b []byte) ([]pipeline.Decision, error) {
	if len(b) == 0 {
		return nil, nil
	}
	var parts []json.RawMessage
	if err := json.Unmarshal(b, &parts); err != nil {
		return nil, fmt.Errorf("read decisions: %w", err)
	}
	list := make([]pipeline.Decision, 0, len(parts))
	for _, p := range parts {
		d, err := pipeline.DecodeDecision(p)
		if err != nil {
			return nil, err
		}
		list = append(list, *d)
	}
	return list, nil
}

// Settle adds a decision to an approval; when that settles it, it gives the
// message that tells the run.
func Settle(a *pipeline.Approval, d pipeline.Decision) (*Message, error) {
	settled, err := a.Decide(d)
	if err != nil || !settled {
		return nil, err
	}
	return &Message{
		ID: MessageID(uuid.Must(uuid.NewV7()).String()), Run: a.Run, Kind: MessageDecision, Actor: d.Actor,
		Body: pipeline.AppendDecision(nil, &a.Decisions[len(a.Decisions)-1]), At: d.At,
	}, nil
}

// DecisionTime is when a decision counts as made: its own time or now, in the
// precision that both stores keep.
func DecisionTime(at, now time.Time) time.Time {
	if at.IsZero() {
		at = now
	}
	return at.UTC().Truncate(time.Microsecond)
}

// ApprovalKey is the 16 bytes of an approval's id, which sort by its time.
func ApprovalKey(id pipeline.ApprovalID) ([16]byte, error) {
	u, err := uuid.Parse(string(id))
	if err != nil {
		return [16]byte{}, ApprovalNotFound(id)
	}
	return [16]byte(u), nil
}

// ApprovalIDOf is the id of a key.
func ApprovalIDOf(key [16]byte) pipeline.ApprovalID {
	return pipeline.ApprovalID(uuid.UUID(key).String())
}

// ApprovalNotFound is the error of an approval that there is not.
func ApprovalNotFound(id pipeline.ApprovalID) error {
	return &pipeline.Error{Kind: pipeline.NotFound, Reason: "approval_not_found", Text: fmt.Sprintf("there is no approval %s", id)}
}
