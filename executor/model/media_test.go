package model

import (
	"context"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/orchestrator-project/orchestrator/pipeline"
)

func TestKeptFilesAreRecordedByNameAndSentWhole(t *testing.T) {
	picture := Media{Type: "image/png", Data: []byte("pixels"), Blob: "sha256:1"}
	q := &Request{Run: "run", Messages: []Message{{Role: User, Blocks: []Block{{
		Kind: BlockToolResult, ToolResult: &ToolResult{ID: "1", Name: "look", Content: []Block{{Kind: BlockImage, Media: &picture}}},
	}}}}}
	stored := messageValue(&q.Messages[0])
	want := map[string]any{"role": "user", "blocks": []any{map[string]any{"kind": "tool_result", "tool_result": map[string]any{
		"id": "1", "name": "look", "content": []any{map[string]any{"kind": "image", "media": map[string]any{"type": "image/png", "blob": "sha256:1"}}},
	}}}}
	if diff := cmp.Diff(want, stored); diff != "" {
		t.Errorf("recorded: %s", diff)
	}
	read := 0
	c := &call{sent: q, router: &Router{cfg: Config{Blob: func(_ context.Context, run pipeline.RunID, d pipeline.Digest) ([]byte, error) {
		read++
		return []byte("pixels of " + string(run) + string(d)), nil
	}}}}
	if out, err := c.withMedia(t.Context(), q); err != nil || out != q || read != 0 {
		t.Errorf("what is at hand is read again: %v, %d", err, read)
	}
	picture.Data = nil
	out, err := c.withMedia(t.Context(), q)
	if err != nil || string(out.Messages[0].Blocks[0].ToolResult.Content[0].Media.Data) != "pixels of runsha256:1" {
		t.Errorf("sent %+v, %v", out.Messages[0].Blocks[0].ToolResult.Content[0].Media, err)
	}
	if picture.Data != nil {
		t.Error("the caller's own message was changed")
	}
}
