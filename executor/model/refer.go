package model

import (
	"fmt"
	"maps"
	"slices"

	"github.com/orchestrator-project/orchestrator/pipeline"
)

// A result of a tool stands in the journal once, with the event of its call. The
// request that tells it to a model is recorded with
//
//	tool_result: {id, name, call: N of the call, more: blocks that the event has not}
//
// in place of its content. Only texts are told so: of anything else the two
// forms may differ.

// referring is a message as a request's record has it.
func referring(m *Message) map[string]any {
	v := messageValue(m)
	blocks, _ := v["blocks"].([]any)
	for i := range m.Blocks {
		t := m.Blocks[i].ToolResult
		if t == nil || t.From == nil || !t.From.within(t) {
			continue
		}
		r := map[string]any{"id": t.ID, "name": t.Name, "call": int64(t.From.N)}
		if more := t.Content[len(t.From.Content):]; len(more) > 0 {
			r["more"] = blockValues(more)
		}
		block, _ := blocks[i].(map[string]any)
		block["tool_result"] = r
	}
	return v
}

// within reports whether a result begins with what its call's event has.
func (k *Kept) within(t *ToolResult) bool {
	if len(k.Content) == 0 || len(t.Content) < len(k.Content) || t.Failed != k.Failed {
		return false
	}
	for i := range k.Content {
		a, b := &k.Content[i], &t.Content[i]
		if a.Kind != BlockText || b.Kind != BlockText || a.Text == "" || a.Text != b.Text || len(a.Opaque)+len(b.Opaque) > 0 || a.Of+b.Of != "" {
			return false
		}
	}
	return true
}

// results are the finished calls of tools of a step, by N.
type results map[int32]*pipeline.Invocation

func (r results) note(e *pipeline.Event) {
	if c := e.Data.Call; e.Type == pipeline.ToolCalled && c != nil && c.State == pipeline.InvocationFinished {
		r[c.N] = c
	}
}

// whole are the messages that a request adds, with the results that it refers to.
// What was recorded is not changed.
func (r results) whole(add any) (any, error) {
	messages, ok := add.([]any)
	if !ok {
		return add, nil
	}
	list := make([]any, len(messages))
	for i, v := range messages {
		m, _ := v.(map[string]any)
		blocks, _ := m["blocks"].([]any)
		blocks = slices.Clone(blocks)
		for j := range blocks {
			block, _ := blocks[j].(map[string]any)
			told, _ := block["tool_result"].(map[string]any)
			n, ok := told["call"].(int64)
			if !ok {
				continue
			}
			result, err := r.result(int32(n), told) //nolint:gosec // an N, as it was recorded
			if err != nil {
				return nil, err
			}
			block = maps.Clone(block)
			block["tool_result"] = result
			blocks[j] = block
		}
		m = maps.Clone(m)
		if m != nil {
			m["blocks"] = blocks
		}
		list[i] = m
	}
	return list, nil
}

// result is that of call n, as told tells it.
func (r results) result(n int32, told map[string]any) (map[string]any, error) {
	c := r[n]
	if c == nil {
		return nil, fmt.Errorf("the call %d of %v, whose result it tells, is not recorded", n, told["name"])
	}
	response, _ := c.Response.(map[string]any)
	content, _ := response["content"].([]any)
	more, _ := told["more"].([]any)
	result := map[string]any{"id": told["id"], "name": told["name"], "content": append(slices.Clip(content), more...)}
	if c.Failed {
		result["failed"] = true
	}
	return result, nil
}
