package model

import (
	"strings"
	"testing"
)

// The counts are those of the services' own tokenizers, as their documentation and
// public vocabularies give them; what is reserved must not be less.
func TestWhatIsReservedIsNotLessThanWhatTextsTake(t *testing.T) {
	for _, c := range []struct {
		name string
		text string
		took int64
	}{
		{"English", strings.Repeat("the quick brown fox jumps over the lazy dog ", 10), 90},
		{"Chinese, a token for each character", strings.Repeat("数据库连接失败", 10), 70},
		{"Russian, two letters a token", strings.Repeat("ошибка соединения ", 10), 90},
		{"emoji, two tokens each", strings.Repeat("🚀", 20), 40},
		{"JSON", strings.Repeat(`{"id": 17, "ok": true}, `, 10), 80},
		{"digits, three a token", strings.Repeat("123456789", 10), 30},
		{"nothing", "", 0},
	} {
		if got := textAtMost(c.text); got < c.took || got > 3*c.took+1 {
			t.Errorf("%s: %d tokens are reserved for %d", c.name, got, c.took)
		}
	}
	for _, c := range []struct {
		m    Media
		want int64
	}{
		{Media{Type: "image/png", Data: make([]byte, 10)}, 5_000},
		{Media{Type: "application/pdf", Data: make([]byte, 10)}, 3_000},
		{Media{Type: "application/pdf", Data: make([]byte, 1<<20)}, 1 << 16},
		{Media{Type: "application/pdf", Blob: "sha256:x"}, 20_000},
	} {
		if got := mediaAtMost(&c.m); got != c.want {
			t.Errorf("%s of %d bytes: %d", c.m.Type, len(c.m.Data), got)
		}
	}
	q := &Request{System: "Be kind.", Messages: []Message{UserText("数据库"), {Blocks: []Block{{ToolUse: &ToolUse{Name: "x", Arguments: "{}"}}}}}}
	if most, about := tokensAtMost(q, 400), tokensOf(q, 400); most <= about {
		t.Errorf("%d are reserved, where it is about %d", most, about)
	}
}
