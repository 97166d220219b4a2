package store

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"
	"github.com/klauspost/compress/zstd"

	"github.com/orchestrator-project/orchestrator/pipeline"
)

// How both children write the domain into rows. Callers outside the room do
// not need any of it.

// BlobMin is the size in bytes above which an event's body is kept as a blob.
const BlobMin = 2048

// IdempotencyTTL is how long a used idempotency key is remembered.
const IdempotencyTTL = 24 * time.Hour

// RunKey is the 16 bytes of a run's id, which sort by its time.
func RunKey(id pipeline.RunID) (key [16]byte, ok bool) {
	u, err := uuid.Parse(string(id))
	return [16]byte(u), err == nil
}

// RunIDOf is the id of a key.
func RunIDOf(key []byte) pipeline.RunID {
	u, err := uuid.FromBytes(key)
	if err != nil {
		return ""
	}
	return pipeline.RunID(u.String())
}

// DayOf is the day since 1970 of a key, by its leading milliseconds.
func DayOf(key [16]byte) int64 {
	ms := int64(binary.BigEndian.Uint64(key[:8]) >> 16)
	return ms / (24 * 60 * 60 * 1000)
}

// Clean makes text fit for a column: NUL and invalid UTF-8 become U+FFFD, so
// that no text can make a shared batch fail.
func Clean(s string) string {
	for i := range len(s) {
		if s[i] == 0 || s[i] >= utf8.RuneSelf {
			return strings.ReplaceAll(strings.ToValidUTF8(s, "\ufffd"), "\x00", "\ufffd")
		}
	}
	return s
}

// Finite is f, or 0 for what is not a number.
func Finite(f float64) float64 {
	if math.IsNaN(f) || math.IsInf(f, 0) {
		return 0
	}
	return f
}

// EventDigest tells apart two records with the same run and sequence number.
// It reads what the row holds: the body, or the hash of a blob.
func EventDigest(e *pipeline.Event, body []byte) int64 {
	const offset, prime = 14695981039346656037, 1099511628211 // FNV-1a, 64 bit
	h := uint64(offset)
	text := func(s string) {
		for i := range len(s) {
			h = (h ^ uint64(s[i])) * prime
		}
		h = (h ^ 0xff) * prime
	}
	text(string(e.Type))
	text(string(e.Path))
	h = (h ^ uint64(uint32(e.Attempt))) * prime
	h = (h ^ uint64(e.At.UnixMicro())) * prime
	for len(body) >= 8 { // by words: bodies are the bulk, and this runs for every event
		h = (h ^ binary.LittleEndian.Uint64(body)) * prime
		h ^= h >> 32
		body = body[8:]
	}
	for _, c := range body {
		h = (h ^ uint64(c)) * prime
	}
	return int64(h)
}

// Blob is a body that is kept apart from its row.
type Blob struct {
	Day  int64
	SHA  [32]byte
	Size int
	Data []byte // zstd
}

var encoder = sync.OnceValue(func() *zstd.Encoder {
	e, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(2))
	if err != nil {
		panic(err) // the options are constant
	}
	return e
})

var decoder = sync.OnceValue(func() *zstd.Decoder {
	d, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(2), zstd.WithDecoderMaxMemory(1<<30))
	if err != nil {
		panic(err) // the options are constant
	}
	return d
})

// NewBlob compresses a body that is kept with the given day.
func NewBlob(day int64, body []byte) Blob {
	return Blob{Day: day, SHA: sha256.Sum256(body), Size: len(body), Data: encoder().EncodeAll(body, nil)}
}

// OpenBlob gives the body of a blob's data back.
func OpenBlob(data []byte, size int) ([]byte, error) {
	body, err := decoder().DecodeAll(data, make([]byte, 0, max(0, size)))
	if err != nil {
		return nil, fmt.Errorf("decompress blob: %w", err)
	}
	return body, nil
}

// EncodeMap writes a map of values as JSON; nil stays nil.
func EncodeMap(m map[string]any) []byte {
	if m == nil {
		return nil
	}
	return pipeline.EncodeValue(m)
}

// DecodeMap reads what EncodeMap wrote.
func DecodeMap(b []byte) (map[string]any, error) {
	if len(b) == 0 {
		return nil, nil
	}
	v, err := pipeline.DecodeValue(b)
	if err != nil {
		return nil, err
	}
	m, ok := v.(map[string]any)
	if !ok {
		return nil, errors.New("read JSON map: it is not a map")
	}
	return m, nil
}

// EncodeLabels writes labels as JSON; none is nil.
func EncodeLabels(labels map[string]string) []byte {
	if len(labels) == 0 {
		return nil
	}
	m := make(map[string]any, len(labels))
	for k, v := range labels {
		m[Clean(k)] = Clean(v)
	}
	return pipeline.EncodeValue(m)
}

// DecodeLabels reads what EncodeLabels wrote.
func DecodeLabels(b []byte) (map[string]string, error) {
	if len(b) == 0 {
		return nil, nil
	}
	var m map[string]string
	if err := json.Unmarshal(b, &m); err != nil {
		return nil, fmt.Errorf("read labels: %w", err)
	}
	return m, nil
}

// EncodeFailure writes a failure as JSON; nil stays nil.
func EncodeFailure(f *pipeline.Failure) []byte {
	if f == nil {
		return nil
	}
	b, err := json.Marshal(f)
	if err != nil { // only a RetryAfter that is no number
		b, _ = json.Marshal(&pipeline.Failure{Kind: f.Kind, Step: f.Step, Message: f.Message, Reason: f.Reason})
	}
	return b
}

// DecodeFailure reads what EncodeFailure wrote.
func DecodeFailure(b []byte) (*pipeline.Failure, error) {
	if len(b) == 0 {
		return nil, nil
	}
	f := new(pipeline.Failure)
	if err := json.Unmarshal(b, f); err != nil {
		return nil, fmt.Errorf("read failure: %w", err)
	}
	return f, nil
}

// PageSize is the number of rows that a query's limit asks for.
func PageSize(limit int) int {
	if limit <= 0 {
		return 100
	}
	return min(limit, 1000)
}

// BadPage is the error of a keyset that does not name a row.
func BadPage() error {
	return &pipeline.Error{Kind: pipeline.Invalid, Reason: "page_token", Text: "the page does not begin at a known place: ask for the first page again"}
}

// SortMessages puts messages in the order in which they were sent.
func SortMessages(list []Message) {
	slices.SortStableFunc(list, func(a, b Message) int {
		return cmp.Or(a.At.Compare(b.At), strings.Compare(string(a.ID), string(b.ID)))
	})
}
