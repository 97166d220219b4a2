package model

import "strings"

// What budgets reserve for the parts of a request, which no tokenizer of ours
// counts: more than they take with the services that we know, so that a call seldom
// costs more than was set aside for it. The average is bytesPerToken.
const (
	asciiPerToken  = 3      // bytes of English, JSON or code; random digits take more
	othersPerToken = 2      // bytes of UTF-8 beyond ASCII: a Cyrillic letter, 2/3 of a Chinese one
	messageTokens  = 8      // that frame a message
	imageTokens    = 5_000  // of the largest images
	fileTokens     = 3_000  // of a document or recording, at least
	filePerToken   = 16     // its bytes for a token, beyond that
	storedTokens   = 20_000 // of a file whose size is not at hand
)

// tokensAtMost is how many tokens a request has at most, as far as that can be told
// without the service's own count.
func tokensAtMost(q *Request, frame int) int64 {
	n := textAtMost(q.System) + int64(frame)/asciiPerToken + 1
	for i := range q.Messages {
		n += blocksAtMost(q.Messages[i].Blocks) + messageTokens
	}
	return n
}

func textAtMost(s string) int64 {
	ascii := 0
	for i := range len(s) {
		if s[i] < 0x80 {
			ascii++
		}
	}
	return int64((ascii+asciiPerToken-1)/asciiPerToken + (len(s)-ascii+othersPerToken-1)/othersPerToken)
}

func blocksAtMost(blocks []Block) int64 {
	n := int64(0)
	for i := range blocks {
		b := &blocks[i]
		n += textAtMost(b.Text)
		if u := b.ToolUse; u != nil {
			n += textAtMost(u.Name) + textAtMost(u.Arguments) + messageTokens
		}
		if t := b.ToolResult; t != nil {
			n += blocksAtMost(t.Content) + messageTokens
		}
		if m := b.Media; m != nil {
			n += mediaAtMost(m)
		}
	}
	return n
}

func mediaAtMost(m *Media) int64 {
	switch {
	case strings.HasPrefix(m.Type, "image/"):
		return imageTokens
	case len(m.Data) == 0:
		return storedTokens
	}
	return max(fileTokens, int64(len(m.Data))/filePerToken)
}
