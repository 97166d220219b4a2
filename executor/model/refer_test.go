package model_test

import (
	"strings"
	"testing"

	"github.com/orchestrator-project/orchestrator/executor/model"
	"github.com/orchestrator-project/orchestrator/pipeline"
)

// stored is an event as it is read back.
func stored(t *testing.T, e pipeline.Event) pipeline.Event {
	t.Helper()
	d, err := pipeline.DecodeData(pipeline.AppendData(nil, &e.Data))
	if err != nil {
		t.Fatal(err)
	}
	e.Data = d
	return e
}

func TestAResultIsToldWhole(t *testing.T) {
	call := func(n int32, content any, failed bool) pipeline.Event {
		return stored(t, pipeline.Event{Type: pipeline.ToolCalled, Data: pipeline.Data{Call: &pipeline.Invocation{
			N: n, Of: 1, State: pipeline.InvocationFinished, Response: map[string]any{"content": content}, Failed: failed,
		}}})
	}
	asks := func(result map[string]any) pipeline.Event {
		return stored(t, pipeline.Event{Type: pipeline.ModelCalled, Data: pipeline.Data{Call: &pipeline.Invocation{
			N: 9, State: pipeline.InvocationFinished, Request: map[string]any{"add": []any{map[string]any{
				"role": "user", "blocks": []any{map[string]any{"kind": "tool_result", "tool_result": result}},
			}}},
		}}})
	}
	text := func(s string) map[string]any { return map[string]any{"kind": "text", "text": s} }
	tests := []struct {
		name   string
		result map[string]any
		want   string // texts, or what the error says
		failed bool
	}{
		{"one that is referred to", map[string]any{"id": "a", "name": "look", "call": int64(2)}, "seen", false},
		{"with more", map[string]any{"id": "a", "name": "look", "call": int64(3), "more": []any{text("once more ends it")}}, "brokenonce more ends it", true},
		{"one of an older log", map[string]any{"id": "a", "name": "look", "content": []any{text("here")}}, "here", false},
		{"one that is not recorded", map[string]any{"id": "a", "name": "look", "call": int64(7)}, "call 7 of look", false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			events := []pipeline.Event{call(2, []any{text("seen")}, false), call(3, []any{text("broken")}, true), asks(tt.result)}
			r, err := model.Conversation(events, 9)
			if err != nil {
				if !strings.Contains(err.Error(), tt.want) {
					t.Error(err)
				}
				return
			}
			got := r.Messages[0].Blocks[0].ToolResult
			if s := (model.Message{Blocks: got.Content}).Text(); s != tt.want || got.Failed != tt.failed || got.ID != "a" || got.Name != "look" {
				t.Errorf("%+v", got)
			}
		})
	}
}
