package executor

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"math"
	"slices"

	"github.com/orchestrator-project/orchestrator/pipeline"
	"github.com/orchestrator-project/orchestrator/store"
)

// AttemptToken names one attempt and the right to report on it: the run, the
// step's path, the number of the attempt and the epoch of the lane that began
// it, signed with a key that all replicas share. It is URL-safe text.
type AttemptToken string

// attemptKey is the name of the key that signs tokens.
const attemptKey = "attempt"

// tokenForm is the first byte of a token: how the rest is written.
const tokenForm = 1

// attemptID is what a token says.
type attemptID struct {
	Run     pipeline.RunID
	Path    pipeline.Path
	Attempt int32
	Epoch   int64
}

// sign writes a token: its form, the run's 16 bytes, epoch and attempt as
// uvarints, the path, and the HMAC-SHA256 of all that.
func (id attemptID) sign(key []byte) AttemptToken {
	run, ok := store.RunKey(id.Run)
	if !ok {
		return ""
	}
	b := append(make([]byte, 0, 96), tokenForm)
	b = append(b, run[:]...)
	b = binary.AppendUvarint(b, uint64(max(id.Epoch, 0)))
	b = binary.AppendUvarint(b, uint64(max(id.Attempt, 0)))
	b = append(b, id.Path...)
	return AttemptToken(base64.RawURLEncoding.EncodeToString(seal(key, b)))
}

// seal appends the signature of b.
func seal(key, b []byte) []byte {
	h := hmac.New(sha256.New, key)
	h.Write(b)
	return h.Sum(b)
}

// open reads a token whose signature holds.
func (t AttemptToken) open(key []byte) (attemptID, error) {
	refused := &pipeline.Error{Kind: pipeline.Denied, Reason: "token_invalid", Text: "the token of the attempt is not one that this installation has given"}
	b, err := base64.RawURLEncoding.DecodeString(string(t))
	if err != nil || len(b) < 1+16+2+sha256.Size || b[0] != tokenForm {
		return attemptID{}, refused
	}
	text := b[:len(b)-sha256.Size]
	if !hmac.Equal(seal(key, slices.Clip(text)), b) {
		return attemptID{}, refused
	}
	id := attemptID{Run: store.RunIDOf(text[1:17])}
	text = text[17:]
	epoch, n := binary.Uvarint(text)
	attempt, m := binary.Uvarint(text[max(n, 0):])
	if n <= 0 || m <= 0 || epoch > math.MaxInt64 || attempt > math.MaxInt32 {
		return attemptID{}, refused
	}
	id.Epoch, id.Attempt, id.Path = int64(epoch), int32(attempt), pipeline.Path(text[n+m:])
	return id, nil
}

// key is what signs tokens, once the store has told it.
func (e *Executor) key(ctx context.Context) ([]byte, error) {
	if key := e.signer.Load(); key != nil {
		return *key, nil
	}
	key, err := e.cfg.Store.Key(ctx, attemptKey)
	if err != nil {
		return nil, err
	}
	e.signer.Store(&key)
	return key, nil
}

// attemptOf is the attempt that a token names, if the token is one of ours.
func (e *Executor) attemptOf(ctx context.Context, token string) (attemptID, error) {
	key, err := e.key(ctx)
	if err != nil {
		return attemptID{}, err
	}
	return AttemptToken(token).open(key)
}

// token is the right to report on an attempt of the run. A lane opens only once
// the key is known.
func (r *runState) token(path pipeline.Path, attempt int32) AttemptToken {
	key := r.lane.ex.signer.Load()
	if key == nil {
		return ""
	}
	return attemptID{Run: r.run.ID, Path: path, Attempt: attempt, Epoch: r.lane.epoch}.sign(*key)
}
