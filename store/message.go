package store

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"

	"github.com/orchestrator-project/orchestrator/pipeline"
)

// TakenKey is under which the message's key stands among all keys that are
// remembered; empty: it has none. No key of a submission is equal.
func (m *Message) TakenKey(run pipeline.RunID) string {
	if m.Key == "" {
		return ""
	}
	return "message:" + hashed(string(run), m.Key)
}

// Digest tells messages of the same key apart.
func (m *Message) Digest() pipeline.Digest {
	return pipeline.Digest("sha256:" + hashed(m.Kind, string(m.Body)))
}

func hashed(a, b string) string {
	sum := sha256.Sum256(fmt.Appendf(nil, "%d %s%s", len(a), a, b))
	return hex.EncodeToString(sum[:])
}

// Again is the error of a message whose key was used before, for one with this
// digest.
func (m *Message) Again(run pipeline.RunID, before string) error {
	if before == string(m.Digest()) {
		return nil
	}
	return &pipeline.Error{
		Kind: pipeline.Conflict, Reason: "idempotency_key_reused",
		Text: fmt.Sprintf("the idempotency key was used for another message to run %s", run),
	}
}
