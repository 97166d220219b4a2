package model

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

// talked is a request in the middle of an agent's conversation.
func talked() *Request {
	return &Request{
		System: "You count.", Schema: map[string]any{"type": "integer"},
		Tools: []ToolDef{{Name: "look", Description: "Looks.", Schema: map[string]any{"type": "object"}}},
		Messages: []Message{
			UserText("How many?"),
			{Role: Assistant, Blocks: []Block{
				{Kind: BlockText, Text: "I look."}, {Kind: BlockToolUse, ToolUse: &ToolUse{ID: "a", Name: "look", Arguments: `{"at":1}`}},
			}},
			{Role: User, Blocks: []Block{
				{Kind: BlockToolResult, ToolResult: &ToolResult{ID: "a", Name: "look", Content: []Block{{Kind: BlockText, Text: "seven"}}}},
			}},
			UserText("Be quick."),
		},
	}
}

func TestPartsOfAPromptAddUp(t *testing.T) {
	all := []Part{
		{"system", 10}, {"tools", 4 + 6 + 17}, {"schema", 18}, {"messages", 9 + 9}, {"answers", 7 + 4 + 8}, {"results", 5},
	}
	for name, tt := range map[string]struct {
		told []Part
		want []Part
	}{
		"nobody has told": {nil, all},
		"an agent has": {
			[]Part{{"instructions", 4}, {"skills", 6}, {"tools", 27}, {"prompt", 9}},
			[]Part{{"instructions", 4}, {"skills", 6}, {"tools", 27}, {"prompt", 9}, {"schema", 18}, {"messages", 9}, {"answers", 19}, {"results", 5}},
		},
		"a tag has, without tools": {
			[]Part{{"system", 10}, {"prompt", 9}},
			[]Part{{"system", 10}, {"prompt", 9}, {"schema", 18}, {"messages", 9}, {"answers", 19}, {"results", 5}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := talked()
			if r.Parts = tt.told; name == "a tag has, without tools" {
				r.Tools = nil
			}
			if diff := cmp.Diff(tt.want, sizes(r)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestPartsAreRecordedAsThePromptTellsThem(t *testing.T) {
	r := talked()
	r.Parts = []Part{{"instructions", 10}, {"prompt", 9}}
	recorded := (*line)(nil).addition(r, make([]digest, len(parts)), make([]digest, len(r.Messages)))["parts"]
	r.Parts = sizes(r) // as the log gives them back
	if diff := cmp.Diff(plain(recordedSizes(r)), recorded); diff != "" {
		t.Error(diff)
	}
}
