package model

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"

	"github.com/orchestrator-project/orchestrator/pipeline"
)

// This file is how requests and answers stand in the journal. A call's Request
// is a map that says only what is new against an earlier call of the same
// conversation, its base:
//
//	base:       N of the earlier call
//	keep:       how many messages of the base's line go on: what it sent, then its answer
//	add:        the messages after those; of results that events of calls tell, only which (see refer.go)
//	system, tools, schema, expected, model, needs, settings: where they differ from the base's
//	parts:      of what the prompt was composed, with sizes
//	compacted:  that older messages were replaced by a summary: from, to (of the messages
//	            that the caller gave), digest of those before to
//
// So that a conversation of n turns takes the room of its messages, once.

// part is a member of a request that calls of a conversation often have in common.
type part struct {
	name  string
	value func(r *Request) any // a JSON value; nil: it has none
	// same says at a glance that two requests have it in common; false: perhaps.
	// Maps that were sent are not changed.
	same func(a, b *Request) bool
}

var parts = []part{
	{"system", func(r *Request) any { return orNil(r.System) }, func(a, b *Request) bool { return a.System == b.System }},
	{"tools", func(r *Request) any { return toolValues(r.Tools) }, func(a, b *Request) bool { return slices.EqualFunc(a.Tools, b.Tools, sameTool) }},
	{"schema", func(r *Request) any { return mapOrNil(r.Schema) }, func(a, b *Request) bool { return sameMap(a.Schema, b.Schema) }},
	{"expected", func(r *Request) any { return mapOrNil(r.Expected) }, func(a, b *Request) bool { return sameMap(a.Expected, b.Expected) }},
	{"model", func(r *Request) any { return orNil(r.Model) }, func(a, b *Request) bool { return a.Model == b.Model }},
	{"needs", needsOf, func(a, b *Request) bool { return a.Needs == b.Needs }},
	{"settings", settingsOf, sameSettings},
}

func sameTool(a, b ToolDef) bool {
	return a.Name == b.Name && a.Description == b.Description && sameMap(a.Schema, b.Schema)
}

// sameMap reports whether two maps are one.
func sameMap(a, b map[string]any) bool {
	return reflect.ValueOf(a).Pointer() == reflect.ValueOf(b).Pointer()
}

func sameSettings(a, b *Request) bool {
	return a.Choice == b.Choice && a.Effort == b.Effort && a.Mode == b.Mode && a.MaxTokens == b.MaxTokens && a.Temperature == b.Temperature
}

func needsOf(r *Request) any {
	if r.Needs == nil {
		return nil
	}
	return plain(r.Needs)
}

func orNil(s string) any {
	if s == "" {
		return nil
	}
	return s
}

func mapOrNil(m map[string]any) any {
	if m == nil {
		return nil
	}
	return m
}

// plain is a struct as a JSON value.
func plain(v any) any {
	b, err := json.Marshal(v)
	if err != nil {
		return nil
	}
	value, err := pipeline.DecodeValue(b)
	if err != nil {
		return nil
	}
	return value
}

func toolValues(tools []ToolDef) any {
	if len(tools) == 0 {
		return nil
	}
	list := make([]any, len(tools))
	for i, t := range tools {
		list[i] = map[string]any{"name": t.Name, "description": t.Description, "schema": mapOrNil(t.Schema)}
	}
	return list
}

func settingsOf(r *Request) any {
	m := map[string]any{}
	for name, text := range map[string]string{"choice": r.Choice, "effort": r.Effort, "mode": r.Mode} {
		if text != "" {
			m[name] = text
		}
	}
	if r.MaxTokens != 0 {
		m["max_tokens"] = r.MaxTokens
	}
	if r.Temperature != nil {
		m["temperature"] = *r.Temperature
	}
	if len(m) == 0 {
		return nil
	}
	return m
}

// digest names a JSON value.
type digest [sha256.Size]byte

func digestOf(v any) digest { return sha256.Sum256(pipeline.EncodeValue(v)) }

// keyOf names a request: equal requests, and only these, have equal keys. What is
// for viewers alone counts for nothing.
func keyOf(r *Request, of, messages []digest) pipeline.Digest {
	h := sha256.New()
	for _, d := range of { // parts
		h.Write(d[:])
	}
	for _, d := range messages {
		h.Write(d[:])
	}
	_, _ = fmt.Fprintf(h, "%q %q %q %d %d", r.Phase, r.Param, r.Agent, r.Turn, r.In)
	return pipeline.Digest("sha256:" + hex.EncodeToString(h.Sum(nil)))
}

// messageValue is a message as a JSON value: its JSON form.
func messageValue(m *Message) map[string]any {
	return map[string]any{"role": string(m.Role), "blocks": blockValues(m.Blocks)}
}

func blockValues(blocks []Block) []any {
	list := make([]any, len(blocks))
	for i := range blocks {
		b := &blocks[i]
		v := map[string]any{"kind": b.Kind}
		set(v, "text", b.Text)
		set(v, "of", b.Of)
		if len(b.Opaque) > 0 {
			v["opaque"] = base64.StdEncoding.EncodeToString(b.Opaque)
		}
		if m := b.Media; m != nil {
			media := map[string]any{"type": m.Type}
			set(media, "name", m.Name)
			set(media, "url", m.URL)
			set(media, "blob", string(m.Blob))
			if len(m.Data) > 0 && m.Blob == "" { // what is kept with the run is not kept twice
				media["data"] = base64.StdEncoding.EncodeToString(m.Data)
			}
			v["media"] = media
		}
		if u := b.ToolUse; u != nil {
			v["tool_use"] = map[string]any{"id": u.ID, "name": u.Name, "arguments": u.Arguments}
		}
		if t := b.ToolResult; t != nil {
			result := map[string]any{"id": t.ID, "name": t.Name, "content": blockValues(t.Content)}
			if t.Failed {
				result["failed"] = true
			}
			v["tool_result"] = result
		}
		list[i] = v
	}
	return list
}

func set(m map[string]any, key, text string) {
	if text != "" {
		m[key] = text
	}
}

// decoded reads what stands in the journal into a struct of its JSON form.
func decoded(v any, into any) error {
	return json.Unmarshal(pipeline.EncodeValue(v), into)
}

// responseValue is an answer as it is recorded. A value that the text tells by
// itself is left out.
func responseValue(a *Response) any {
	m := map[string]any{"message": messageValue(&a.Message)}
	set(m, "stop", a.Stop)
	set(m, "rule", a.Rule)
	if a.Value != nil {
		switch a.Value.(type) {
		case map[string]any, []any:
			if string(pipeline.EncodeValue(a.Value)) == a.Text() {
				return m
			}
		}
		m["value"] = a.Value
	}
	return m
}

// Recorded is the answer that an event model_called tells of; nil: it tells of
// none.
func Recorded(e *pipeline.Event) *Response {
	c := e.Data.Call
	if c == nil || c.State != pipeline.InvocationFinished || c.Response == nil {
		return nil
	}
	m, ok := c.Response.(map[string]any)
	if !ok {
		return nil
	}
	a := &Response{Model: e.Data.Model, Usage: e.Data.Usage, N: c.N, Tries: max(int(c.Tries), 1), Provider: c.Provider, Value: m["value"]}
	a.Stop, _ = m["stop"].(string)
	a.Rule, _ = m["rule"].(string)
	if decoded(m["message"], &a.Message) != nil {
		return nil
	}
	return a
}

// line is what is known of the newest recorded call of a conversation.
type line struct {
	n        int32
	parts    []digest // of parts
	messages []digest // what was sent, and then the answer, if there was one
}

// addition is the request as it is recorded after a call that is known.
func (l *line) addition(r *Request, of, messages []digest) map[string]any {
	m := map[string]any{}
	keep := 0
	if l != nil {
		m["base"] = int64(l.n)
		for keep < len(messages) && keep < len(l.messages) && messages[keep] == l.messages[keep] {
			keep++
		}
		if keep > 0 {
			m["keep"] = int64(keep)
		}
	}
	if keep < len(r.Messages) {
		add := make([]any, 0, len(r.Messages)-keep)
		for i := keep; i < len(r.Messages); i++ {
			add = append(add, referring(&r.Messages[i]))
		}
		m["add"] = add
	}
	for i, p := range parts {
		if l != nil && of[i] == l.parts[i] {
			continue
		}
		if v := p.value(r); v != nil || l != nil {
			m[p.name] = v
		}
	}
	m["parts"] = plain(sizes(r))
	return m
}

// after is the line once the call is recorded.
func after(n int32, of, messages []digest, a *Response) *line {
	l := &line{n: n, parts: of, messages: messages}
	if a != nil {
		l.messages = append(slices.Clip(messages), digestOf(messageValue(&a.Message)))
	}
	return l
}

// Conversation rebuilds the request of call n from a step's recorded events, as it
// was sent: each call says only what it adds to an earlier one. Live members
// (IdempotencyKey, Uses) are not recorded. The error says what is missing.
func Conversation(events []pipeline.Event, n int32) (*Request, error) {
	calls, given := map[int32]*pipeline.Event{}, results{}
	for i := range events {
		e := &events[i]
		if c := e.Data.Call; e.Type == pipeline.ModelCalled && c != nil && c.State == pipeline.InvocationFinished {
			calls[c.N] = e
		}
		given.note(e)
	}
	return (&rebuilder{calls: calls, results: given, line: map[int32][]Message{}, said: map[int32]map[string]any{}}).request(n)
}

// baseOf is N of the call that a recorded request builds on.
func baseOf(m map[string]any) (int32, bool) {
	base, ok := m["base"].(int64)
	return int32(base), ok //nolint:gosec // an N, as it was recorded
}

// rebuilder rebuilds requests; what it has rebuilt serves the ones after it.
type rebuilder struct {
	calls   map[int32]*pipeline.Event
	results results
	line    map[int32][]Message      // by call: what it sent, then its answer
	said    map[int32]map[string]any // by call: its parts
}

func (b *rebuilder) request(n int32) (*Request, error) {
	var chain []int32
	for at := n; ; {
		e := b.calls[at]
		if e == nil {
			return nil, fmt.Errorf("call %d of a model is not recorded", at)
		}
		chain = append(chain, at)
		m, ok := e.Data.Call.Request.(map[string]any)
		if !ok {
			return nil, fmt.Errorf("call %d of a model is recorded without its request", at)
		}
		base, ok := baseOf(m)
		if _, known := b.line[base]; !ok || known {
			break
		}
		if len(chain) > len(b.calls) {
			return nil, fmt.Errorf("call %d of a model is recorded as part of itself", at)
		}
		at = base
	}
	var r *Request
	for _, at := range slices.Backward(chain) {
		var err error
		if r, err = b.next(at); err != nil {
			return nil, err
		}
	}
	return r, nil
}

// next rebuilds a call whose base is rebuilt.
func (b *rebuilder) next(n int32) (*Request, error) {
	e := b.calls[n]
	c := e.Data.Call
	m, _ := c.Request.(map[string]any)
	said := map[string]any{}
	var messages []Message
	if base, ok := baseOf(m); ok {
		maps.Copy(said, b.said[base])
		keep, _ := m["keep"].(int64)
		if known := b.line[base]; keep > int64(len(known)) {
			return nil, fmt.Errorf("call %d of a model builds on %d messages, of which %d are recorded", n, keep, len(known))
		} else {
			messages = known[:keep:keep]
		}
	}
	var added []Message
	add, err := b.results.whole(m["add"])
	if err != nil {
		return nil, fmt.Errorf("call %d of a model: %w", n, err)
	}
	if err := decoded(add, &added); err != nil {
		return nil, fmt.Errorf("call %d of a model: %w", n, err)
	}
	messages = append(messages, added...)
	for _, p := range parts {
		if v, ok := m[p.name]; ok {
			said[p.name] = v
		}
	}
	b.said[n], b.line[n] = said, messages
	if a := Recorded(e); a != nil {
		b.line[n] = append(slices.Clip(messages), a.Message)
	}
	r := &Request{
		Step: e.Path, Agent: c.Agent, Turn: int(c.Turn), In: c.In, Param: c.Param, Phase: Phase(c.Phase),
		Messages: messages,
	}
	var settings struct {
		Choice      string   `json:"choice"`
		Effort      string   `json:"effort"`
		Mode        string   `json:"mode"`
		MaxTokens   int64    `json:"max_tokens"`
		Temperature *float64 `json:"temperature"`
	}
	for _, d := range []struct {
		from any
		into any
	}{{said["needs"], &r.Needs}, {said["settings"], &settings}, {m["parts"], &r.Parts}} {
		if err := decoded(d.from, d.into); err != nil {
			return nil, fmt.Errorf("call %d of a model: %w", n, err)
		}
	}
	r.System, _ = said["system"].(string)
	r.Model, _ = said["model"].(string)
	r.Schema, _ = said["schema"].(map[string]any)
	r.Expected, _ = said["expected"].(map[string]any)
	r.Choice, r.Effort, r.Mode, r.MaxTokens, r.Temperature = settings.Choice, settings.Effort, settings.Mode, settings.MaxTokens, settings.Temperature
	tools, _ := said["tools"].([]any)
	for _, t := range tools {
		one, _ := t.(map[string]any)
		def := ToolDef{}
		def.Name, _ = one["name"].(string)
		def.Description, _ = one["description"].(string)
		def.Schema, _ = one["schema"].(map[string]any)
		r.Tools = append(r.Tools, def)
	}
	return r, nil
}
