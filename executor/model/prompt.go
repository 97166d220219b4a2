package model

import (
	"slices"

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
	m["parts"] = plain(recordedSizes(r))
	return m, nil
}

// recordedSizes are the parts as the log has them; calls of an older log may have
// none.
func recordedSizes(r *Request) []Part {
	if len(r.Parts) > 0 {
		return r.Parts
	}
	return sizes(r)
}

// sizes are the parts of a prompt, in bytes, which add up to all of it: those that
// its composer has told, then what of the request stands in none of them. A
// composer tells of instructions, tools and the texts of the first message.
func sizes(r *Request) []Part {
	list := slices.Clone(r.Parts)
	told, tools := 0, -1
	for _, p := range list {
		told += p.Bytes
		if p.Name == "tools" {
			tools = p.Bytes
		}
	}
	add := func(name string, bytes int) {
		if bytes > 0 {
			list = append(list, Part{Name: name, Bytes: bytes})
		}
	}
	if tools < 0 {
		tools = 0
		for i := range r.Tools {
			tools += len(r.Tools[i].Name) + len(r.Tools[i].Description) + len(pipeline.EncodeValue(mapOrNil(r.Tools[i].Schema)))
		}
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
	if len(list) == 0 {
		add("system", len(r.System))
		add("tools", tools)
	} else {
		said -= told - len(r.System) - tools
	}
	if r.Schema != nil {
		add("schema", len(pipeline.EncodeValue(r.Schema)))
	}
	add("messages", said)
	add("answers", answers)
	add("results", results)
	return list
}
