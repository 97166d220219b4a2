package tool

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/orchestrator-project/orchestrator/executor"
	"github.com/orchestrator-project/orchestrator/pipeline"
)

const (
	partBytes = 4 << 20   // of one part of a long result
	overlap   = 64 << 10  // that is held back, so that no secret stands across two parts
	maxKept   = 256 << 20 // bytes of a result; what comes after them is counted only
)

// partsPrefix begins the handle of a result that is kept in parts: the digest
// after it is of an index.
const partsPrefix = "parts:"

// index lists the parts of a long result.
type index struct {
	Size  int64  `json:"size"`
	Parts []part `json:"parts"`
}

type part struct {
	Digest pipeline.Digest `json:"digest"`
	Size   int64           `json:"size"`
}

// spool takes a result as it comes. What a model is shown at once stays in
// memory; of more, only the head and the tail do, and the whole is kept with the
// run, in parts.
type spool struct {
	s     *source
	env   executor.Env
	size  int64 // of what was written
	kept  int64 // of what was kept
	odd   int64 // bytes that are no text
	raw   []byte
	head  string
	tail  string
	parts []part
	err   error // why nothing more is kept
}

func (s *source) spool(env executor.Env) *spool { return &spool{s: s, env: env} }

// Write takes a piece. The error is the context's.
func (w *spool) Write(ctx context.Context, b []byte) (int, error) {
	w.size += int64(len(b))
	for rest := b; len(rest) > 0; {
		n := min(len(rest), partBytes+overlap-len(w.raw))
		w.raw = append(w.raw, rest[:n]...)
		rest = rest[n:]
		if len(w.raw) == partBytes+overlap {
			if err := w.flush(ctx, overlap); err != nil {
				return 0, err
			}
		}
	}
	return len(b), nil
}

// flush keeps what has come, but for the last hold bytes.
func (w *spool) flush(ctx context.Context, hold int) error {
	w.odd += oddBytes(w.raw)
	text := clean(w.env, string(w.raw))
	cut := max(0, len(text)-hold)
	for cut > 0 && cut < len(text) && !utf8.RuneStart(text[cut]) {
		cut--
	}
	piece := text[:cut]
	w.raw = append(w.raw[:0], text[cut:]...)
	if w.head == "" {
		w.head = upTo(piece, w.s.cfg.Limit/4)
	}
	w.tail = from(w.tail+piece, w.s.cfg.Limit/4)
	if piece == "" || w.err != nil {
		return nil //nolint:nilerr // the model is told why nothing is kept
	}
	switch {
	case w.s.cfg.Results == nil || w.env.Run == "":
		w.err = errors.New("nothing can be kept here")
		return nil
	case w.kept+int64(len(piece)) > maxKept:
		w.err = fmt.Errorf("at most %d MiB of a result are kept", maxKept>>20)
		return nil
	}
	d, err := w.s.cfg.Results.PutBlob(ctx, w.env.Run, []byte(piece))
	if err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		w.err = errors.New("the store did not take it")
		return nil
	}
	w.kept += int64(len(piece))
	w.parts = append(w.parts, part{d, int64(len(piece))})
	return nil
}

// text is what the model is shown in the end.
func (w *spool) text(ctx context.Context) (string, error) {
	if len(w.parts) == 0 && w.err == nil {
		if odd := w.odd + oddBytes(w.raw); binary(odd, w.size) {
			return notText(w.size), nil
		}
		if text := clean(w.env, string(w.raw)); len(text) <= w.s.cfg.Limit {
			return text, nil
		}
	}
	if err := w.flush(ctx, 0); err != nil {
		return "", err
	}
	if binary(w.odd, w.size) {
		return notText(w.size), nil
	}
	handle, err := w.handle(ctx)
	if err != nil {
		return "", err
	}
	var gap strings.Builder
	fmt.Fprintf(&gap, "\n\n[%d bytes are left out here.", max(0, w.size-int64(len(w.head)+len(w.tail))))
	switch {
	case handle == "":
		fmt.Fprintf(&gap, " They are not kept: %v.]\n\n", w.err)
	case w.err != nil:
		fmt.Fprintf(&gap, " The first %d bytes are kept (%v): %s reads on, with handle %q and an offset or a search.]\n\n", w.kept, w.err, ReadResult, handle)
	default:
		fmt.Fprintf(&gap, " The whole result of %d bytes is kept: %s reads on, with handle %q and an offset or a search.]\n\n", w.kept, ReadResult, handle)
	}
	return w.head + gap.String() + w.tail, nil
}

// handle names what is kept; empty: nothing is.
func (w *spool) handle(ctx context.Context) (string, error) {
	switch len(w.parts) {
	case 0:
		return "", nil
	case 1:
		return string(w.parts[0].Digest), nil
	}
	text, err := json.Marshal(index{w.kept, w.parts})
	if err != nil {
		return "", fmt.Errorf("list the parts of a result: %w", err)
	}
	d, err := w.s.cfg.Results.PutBlob(ctx, w.env.Run, text)
	if err != nil {
		if ctx.Err() != nil {
			return "", ctx.Err()
		}
		w.err = errors.New("the store did not take it")
		return "", nil
	}
	return partsPrefix + string(d), nil
}

// oddBytes counts the bytes that stand in no text.
func oddBytes(b []byte) int64 {
	n := int64(bytes.Count(b, []byte{0}))
	if utf8.Valid(b) {
		return n
	}
	for len(b) > 0 {
		r, size := utf8.DecodeRune(b)
		if r == utf8.RuneError && size == 1 {
			n++
		}
		b = b[size:]
	}
	return n
}

// binary reports whether something is no text, by how many of its bytes are odd.
func binary(odd, size int64) bool { return odd > 16 && odd > size/50 }

func notText(size int64) string {
	return fmt.Sprintf("[%d bytes that are not text, and are not shown. Write them to a file, or turn them into text first.]", size)
}

// upTo is the beginning of a text, of at most n bytes, at the end of a line if
// there is one near.
func upTo(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	if i := strings.LastIndexByte(s[:n], '\n'); i > n/2 {
		n = i + 1
	}
	return s[:n]
}

// from is the end of a text, likewise.
func from(s string, n int) string {
	if len(s) <= n {
		return s
	}
	at := len(s) - n
	for at < len(s) && !utf8.RuneStart(s[at]) {
		at++
	}
	if i := strings.IndexByte(s[at:], '\n'); i >= 0 && i < n/2 {
		at += i + 1
	}
	return s[at:]
}
