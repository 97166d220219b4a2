package model

import (
	"github.com/orchestrator-project/orchestrator/pipeline"
)

// Prompt is the whole request of call n of a model, rebuilt from its step's events,
// for those who want to read it: a JSON value with system, messages, tools, schema,
// settings and parts, which are sizes in bytes. The error says what is missing.
func Prompt(events []pipeline.Event, n int32) (map[string]any, error) {
	r, err := Conversation(events, n)
	if err != nil {
		return nil, err
	}
	m := map[string]any{}
	for _, p := range parts {
		if v := p.value(r); v != nil {
			m[p.name] = v
		}
	}
	messages := make([]any, len(r.Messages))
	for i := range r.Messages {
		messages[i] = messageValue(&r.Messages[i])
	}
	m["messages"] = messages
	m["parts"] = plain(sizes(r))
	return m, nil
}

// sizes are the parts of a prompt: those that its composer has told, and what of
// the request stands in none of them.
func sizes(r *Request) []Part {
	if len(r.Parts) > 0 {
		return r.Parts
	}
	var list []Part
	add := func(name string, bytes int) {
		if bytes > 0 {
			list = append(list, Part{Name: name, Bytes: bytes})
		}
	}
	add("system", len(r.System))
	tools := 0
	for i := range r.Tools {
		tools += len(r.Tools[i].Name) + len(r.Tools[i].Description) + len(pipeline.EncodeValue(mapOrNil(r.Tools[i].Schema)))
	}
	add("tools", tools)
	if r.Schema != nil {
		add("schema", len(pipeline.EncodeValue(r.Schema)))
	}
	said, answers, results := 0, 0, 0
	for i := range r.Messages {
		for j := range r.Messages[i].Blocks {
			switch b := r.Messages[i].Blocks[j : j+1]; {
			case b[0].ToolResult != nil:
				results += sizeOf(b)
			case r.Messages[i].Role == User:
				said += sizeOf(b)
			default:
				answers += sizeOf(b)
			}
		}
	}
	add("messages", said)
	add("answers", answers)
	add("results", results)
	return list
}
