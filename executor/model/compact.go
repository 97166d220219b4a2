package model

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"strings"
)

// compacted says that a summary takes the place of a conversation's older
// messages: of those from from up to to, as the caller counts them. It holds for
// every request that begins with the same messages.
type compacted struct {
	from, to int
	prefix   string // digest of the messages before to
	summary  Message
	said     digest // of summary
	fresh    bool   // it was made for this call
}

// keepHead are the messages at the beginning that stay: the task.
const keepHead = 1

func prefixOf(messages []digest) string {
	h := sha256.New()
	for _, d := range messages {
		h.Write(d[:])
	}
	return hex.EncodeToString(h.Sum(nil))
}

// shortened is the summary that holds for a request; nil: none does.
func (t *talk) shortened(q *Request, given []digest) *compacted {
	t.mu.Lock()
	k := t.compacted
	t.mu.Unlock()
	if k == nil || len(given) < k.to || prefixOf(given[:k.to]) != k.prefix || q.Phase == PhaseCompact {
		return nil
	}
	return k
}

// apply is the conversation with the summary in it.
func (k *compacted) apply(messages []Message) []Message {
	list := make([]Message, 0, len(messages)-(k.to-k.from)+1)
	list = append(append(list, messages[:k.from]...), k.summary)
	return append(list, messages[k.to:]...)
}

// note records the summary with the call that was the first to be sent with it.
func (k *compacted) note(m map[string]any) {
	if k != nil && k.fresh {
		m["compacted"] = map[string]any{
			"from": int64(k.from), "to": int64(k.to), "prefix": k.prefix, "summary": messageValue(&k.summary),
		}
	}
}

// recalledCompaction reads what note has recorded.
func recalledCompaction(m map[string]any) *compacted {
	v, ok := m["compacted"].(map[string]any)
	if !ok {
		return nil
	}
	from, _ := v["from"].(int64)
	to, _ := v["to"].(int64)
	k := &compacted{from: int(from), to: int(to)}
	k.prefix, _ = v["prefix"].(string)
	if decoded(v["summary"], &k.summary) != nil {
		return nil
	}
	k.said = digestOf(messageValue(&k.summary))
	return k
}

const compactPrompt = `A conversation between a user and an assistant has grown too long for the model that leads it. You are shown its older part. Write what has to be known of it to go on: the task and its constraints, what was decided and why, what the tools have given (names, numbers, paths, identifiers word for word), what is still to be done. Write nothing else.`

// shownBlock is how much of one text the summary is made from, in bytes.
const shownBlock = 4000

// compact has the older half of the conversation summed up by the model; nil: there
// is nothing that could be left out.
func (c *call) compact(ctx context.Context, t *target) (*compacted, error) {
	messages, already := c.sent.Messages, c.cut
	at := cutAt(messages)
	if at == 0 {
		return nil, nil //nolint:nilnil // documented above
	}
	q := &Request{
		Run: c.asked.Run, Step: c.asked.Step, Action: c.asked.Action, Param: c.asked.Param, Agent: c.asked.Agent,
		Turn: c.asked.Turn, In: c.asked.In, Phase: PhaseCompact, Model: c.asked.Model, System: compactPrompt,
		Messages: []Message{UserText(transcript(messages[keepHead:at]))},
	}
	if c.asked.IdempotencyKey != "" {
		q.IdempotencyKey = c.asked.IdempotencyKey + "/compact"
	}
	if q.Model == "" && c.router.cfg.Scripted == nil {
		q.Model = t.name
	}
	a, err := c.router.one(ctx, c.env, q)
	if err != nil {
		return nil, err
	}
	to := at
	if already != nil { // at counts the earlier summary as one message
		to = at - (keepHead + 1) + already.to
	}
	k := &compacted{
		from: keepHead, to: to, prefix: prefixOf(c.given[:to]), fresh: true,
		summary: UserText("What came of our conversation until here, summed up:\n\n" + strings.TrimSpace(a.Text())),
	}
	k.said = digestOf(messageValue(&k.summary))
	return k, nil
}

// cutAt is before which message the summary ends: about the middle, measured in
// bytes, and never between a call of a tool and its result; 0: nowhere.
func cutAt(messages []Message) int {
	total := 0
	for i := range messages {
		total += sizeOf(messages[i].Blocks)
	}
	before, best := 0, 0
	for i := range messages {
		if i > keepHead && !answersTools(&messages[i]) {
			best = i
			if before*2 >= total {
				break
			}
		}
		before += sizeOf(messages[i].Blocks)
	}
	return best
}

func answersTools(m *Message) bool {
	for i := range m.Blocks {
		if m.Blocks[i].ToolResult != nil {
			return true
		}
	}
	return false
}

// transcript shows messages as a text.
func transcript(messages []Message) string {
	var b strings.Builder
	for i := range messages {
		m := &messages[i]
		b.WriteString("## " + string(m.Role) + "\n")
		writeBlocks(&b, m.Blocks)
	}
	return b.String()
}

func writeBlocks(b *strings.Builder, blocks []Block) {
	for i := range blocks {
		switch k := &blocks[i]; {
		case k.ToolUse != nil:
			b.WriteString("calls " + k.ToolUse.Name + ": " + clipped(k.ToolUse.Arguments) + "\n")
		case k.ToolResult != nil:
			b.WriteString("result of " + k.ToolResult.Name + ":\n")
			writeBlocks(b, k.ToolResult.Content)
		case k.Kind == BlockText:
			b.WriteString(clipped(k.Text) + "\n")
		case k.Media != nil:
			b.WriteString("(" + k.Kind + " " + k.Media.Name + ")\n")
		}
	}
}

// clipped keeps the head and the tail of a long text.
func clipped(s string) string {
	if len(s) <= shownBlock {
		return s
	}
	half := shownBlock / 2
	return strings.ToValidUTF8(s[:half], "") + "\n…\n" + strings.ToValidUTF8(s[len(s)-half:], "")
}
